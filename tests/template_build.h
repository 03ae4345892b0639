/* What the template's tests and fuzzer share: one call that compiles and renders. */
#ifndef NJ_TEMPLATE_BUILD_H
#define NJ_TEMPLATE_BUILD_H

#include <stdlib.h>
#include <string.h>

#include "engine/nj_engine.h"

/* 2026-11-20 07:00:00, a Friday: the moment golden/chat was rendered at. */
static const struct tm TEMPLATE_NOW = { .tm_year = 126, .tm_mon = 10, .tm_mday = 20, .tm_hour = 7, .tm_wday = 5,
                                        .tm_yday = 323 };

/* Compiles and renders into *out (appended). Returns what failed first, or 0. */
static inline int template_run(const char *source, size_t source_len, const char *args, size_t args_len, nj_buf *out,
                               nj_error *err)
{
    nj_template *t;
    int          rc = nj_template_new(&t, source, source_len, err);
    if (rc == 0) rc = nj_template_render(t, args, args_len, &TEMPLATE_NOW, out, err);
    nj_template_free(t);
    return rc;
}

#endif
