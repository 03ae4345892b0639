/* An engine and the sessions in it. Private to engine/. */
#ifndef NJ_ENGINE_PRIVATE_H
#define NJ_ENGINE_PRIVATE_H

#include "engine/step.h"

struct nj_engine {
    const nj_model *m;
    nj_arena *scratch;
    nj_step step;
    nj_kv kv;
    uint32_t context;
    nj_session *sessions, *sessions_last; /* in order of arrival */
    nj_row *row;                          /* [rows_max] the step being formed */
    nj_session **row_session;             /* [rows_max] whose logits row i asks for, or NULL */
    nj_engine_stats stats;
};

#endif
