/* The repetition detector. See loop.h. */
#include "engine/loop.h"

#include <assert.h>

static_assert((NJ_LOOP_PERIOD_MAX & (NJ_LOOP_PERIOD_MAX - 1)) == 0, "the ring is indexed by masking");

bool nj_loop_add(nj_loop *l, int32_t token)
{
    bool loops = false;
    uint32_t periods = l->count < NJ_LOOP_PERIOD_MAX ? (uint32_t)l->count : NJ_LOOP_PERIOD_MAX;
    for (uint32_t p = 1; p <= periods; p++) {
        bool same = l->recent[(l->count - p) & (NJ_LOOP_PERIOD_MAX - 1)] == token;
        l->run[p] = same ? l->run[p] + 1 : 0;
        uint32_t need = p * NJ_LOOP_REPEATS > NJ_LOOP_SPAN ? p * NJ_LOOP_REPEATS : NJ_LOOP_SPAN;
        loops |= l->run[p] + p >= need;
    }
    l->recent[l->count++ & (NJ_LOOP_PERIOD_MAX - 1)] = token;
    return loops;
}
