/* KV pages with made-up contents, for benchmarks of long contexts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

/* Stored rows that pages repeat: a prime number, so that heads, layers and pages don't begin alike. */
enum { PATTERN_ROWS = 1021 };

typedef struct filling {
    const nj_kv *kv;
    const nj_sequence *s;
    char *pattern; /* [PATTERN_ROWS][kv->row_bytes] */
} filling;

/* Values between -1 and 1, about as large as normed keys are. */
static void make_pattern(const nj_kernels *kernels, const nj_kv *kv, float *values, char *pattern)
{
    uint32_t state = 1, dim = kv->m->h.head_dim;
    for (uint32_t row = 0; row < PATTERN_ROWS; row++) {
        for (uint32_t i = 0; i < dim; i++) {
            state = state * 1664525u + 1013904223u;
            values[i] = (float)(int32_t)state * 0x1p-31f;
        }
        kernels->store[kv->type](values, pattern + (size_t)row * kv->row_bytes, dim);
    }
}

/* Each worker writes whole pages: keys and values of all layers and heads are rows that follow each other. */
static void fill_pages(void *arg, uint32_t worker, uint32_t workers)
{
    const filling *f = arg;
    const nj_kv *kv = f->kv;
    for (uint32_t g = 0; g < kv->m->groups; g++)
        for (uint32_t p = worker; p < f->s->pages; p += workers) {
            uint64_t rows = (kv->page_bytes[g] - sizeof(nj_kv_page)) / kv->row_bytes, at = p * rows % PATTERN_ROWS;
            char *dst = f->s->page[g][p]->data;
            while (rows) {
                uint64_t run = PATTERN_ROWS - at < rows ? PATTERN_ROWS - at : rows;
                memcpy(dst, f->pattern + at * kv->row_bytes, run * kv->row_bytes);
                dst += run * kv->row_bytes;
                rows -= run;
                at = 0;
            }
        }
}

int nj_sequence_fill(nj_engine *e, nj_sequence *s, uint32_t length, nj_error *err)
{
    nj_kv *kv = &e->kv;
    if (s->length || s->pages) return nj_fail(err, -EINVAL, "only an empty sequence can be filled");
    if (length > e->context)
        return nj_fail(err, -EOVERFLOW, "the context has %u positions, not %u", e->context, length);
    if (length == 0) return 0;
    filling f = { .kv = kv, .s = s, .pattern = malloc((size_t)PATTERN_ROWS * kv->row_bytes) };
    float *values = malloc(sizeof *values * e->m->h.head_dim);
    int rc = f.pattern && values ? nj_kv_reserve(kv, s, length) : -ENOMEM;
    if (rc) {
        nj_kv_release(kv, s);
        nj_fail(err, rc, "no room for %u positions, which take %.1f GB: all sequences together may have %.1f GB",
                length, (double)nj_kv_bytes_for(kv, length) / 1e9, (double)kv->bytes_max / 1e9);
    } else {
        make_pattern(e->step.kernels, kv, values, f.pattern);
        nj_pool_run(e->step.pool, fill_pages, &f);
        memset(s->token, 0, sizeof *s->token * length);
        memset(s->wide, 0, sizeof *s->wide * s->pages);
        s->synthetic = true;
        s->length = length;
        nj_kv_settle(kv, s);
    }
    free(values);
    free(f.pattern);
    return rc;
}
