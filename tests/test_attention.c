/* Attention: the kernels of each tier against the scalar reference, bit for bit, and the reference against sums in
 * double; and the op over paged caches, whose bits must not depend on how the work is cut. */
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/step.h"

static uint64_t seed = 88172645463325252u;

static uint32_t random_bits(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

/* Uniform in [-1, 1). */
static float random_value(void)
{
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

static void *allocate(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(p);
    return p;
}

static const float guard = -12345.5f;
static const uint32_t kv_types[] = { NJ_F32, NJ_F16, NJ_Q8_0 };

/* ---- One tile ---- */

/* Cached rows with a stride of their own, ending with the last byte of the last row, so that AddressSanitizer sees a
 * read beyond; and their exact values. */
typedef struct rows {
    uint8_t *data;
    float *values; /* [n][dim_whole] */
    size_t stride;
    uint32_t n, dim_whole; /* dim rounded up to whole blocks */
} rows;

static rows random_rows(uint32_t type, uint32_t n, uint32_t dim, bool extreme)
{
    rows r = { .n = n, .dim_whole = type == NJ_Q8_0 ? (dim + 31) / 32 * 32 : dim };
    size_t bytes = nj_row_bytes(type, r.dim_whole);
    r.stride = bytes + (type == NJ_F32 ? 4 : 2);
    r.data = malloc((n - 1) * r.stride + bytes);
    r.values = allocate((size_t)n * r.dim_whole * sizeof(float));
    assert_non_null(r.data);
    for (uint32_t p = 0; p < n; p++) {
        float *row = r.values + (size_t)p * r.dim_whole;
        for (uint32_t d = 0; d < r.dim_whole; d++) {
            row[d] = random_value();
            if (extreme && random_bits() % 16 == 0) row[d] = ldexpf(row[d], (int)(random_bits() % 40) - 24);
        }
        nj_kernels_get(NJ_ISA_SCALAR)->store[type](row, r.data + p * r.stride, r.dim_whole);
        nj_decode(type, r.data + p * r.stride, row, r.dim_whole);
    }
    return r;
}

static void rows_free(rows *r)
{
    free(r->data);
    free(r->values);
}

/* Queries with guards around all that a kernel writes. */
typedef struct guarded {
    nj_queries q;
    float *out, *rows; /* out before its guard is skipped; queries in plain order [count][dim] */
    nj_softmax *run;
    size_t out_floats, scratch_floats;
} guarded;

static guarded random_block(uint32_t count, uint32_t dim, float softcap, bool extreme)
{
    guarded b = { .out_floats = (size_t)count * nj_attend_width(dim), .scratch_floats = nj_attend_scratch(count, dim) };
    float *q = allocate(((size_t)dim + 63) / 64 * 64 * count * sizeof *q);
    float *scratch = allocate((b.scratch_floats + 1) * sizeof *scratch);
    b.rows = allocate((size_t)count * dim * sizeof *b.rows);
    b.out = allocate((b.out_floats + 2) * sizeof *b.out);
    b.run = allocate((count + 2) * sizeof *b.run);
    for (uint32_t i = 0; i < count; i++) {
        float size = extreme && random_bits() % 4 == 0 ? ldexpf(1, (int)(random_bits() % 20) - 10) : 1;
        for (uint32_t d = 0; d < dim; d++)
            q[((size_t)(d / 64) * count + i) * 64 + d % 64] = b.rows[i * dim + d] = size * random_value();
    }
    b.q = (nj_queries){ count, dim, softcap, q, b.run + 1, b.out + 1, scratch };
    return b;
}

static void block_clear(guarded *b)
{
    memset(b->out, 0, (b->out_floats + 2) * sizeof *b->out);
    b->out[0] = b->out[b->out_floats + 1] = b->q.scratch[b->scratch_floats] = guard;
    for (uint32_t i = 0; i < b->q.count + 2; i++) b->run[i] = (nj_softmax){ -INFINITY, 0 };
    b->run[0].sum = b->run[b->q.count + 1].m = guard;
}

static void assert_guards(const guarded *b)
{
    assert_true(b->out[0] == guard && b->out[b->out_floats + 1] == guard);
    assert_true(b->q.scratch[b->scratch_floats] == guard);
    assert_true(b->run[0].sum == guard && b->run[b->q.count + 1].m == guard);
}

static void block_free(guarded *b)
{
    free((void *)(uintptr_t)b->q.q);
    free(b->q.scratch);
    free(b->rows);
    free(b->out);
    free(b->run);
}

/* Rows of consecutive positions with `group` queries each, the first of which sees [first, last) of the tile. */
static void spans_fill(nj_span *span, uint32_t count, uint32_t group, uint32_t first, uint32_t last, uint32_t n)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t f = first + i / group, l = last + i / group;
        span[i] = (nj_span){ (uint8_t)(f < n ? f : n), (uint8_t)(l < n ? l : n) };
    }
}

/* One test case: two tiles, the second partly seen. */
typedef struct shape {
    uint32_t type, dim, count, n;
    float softcap;
    bool spans, extreme;
} shape;

static void attend(const nj_kernels *k, const shape *c, guarded *b, const rows *keys, const rows *values)
{
    nj_span span[64];
    nj_tile t = { .keys = keys->data, .values = values->data, .stride = keys->stride, .n = c->n };
    block_clear(b);
    k->attend[c->type](&b->q, &t);
    spans_fill(span, c->count, 3, c->n / 3, c->n / 2 + 1, c->n);
    if (c->spans) t.span = span;
    t.next_keys = t.keys, t.next_values = t.values;
    k->attend[c->type](&b->q, &t);
    assert_guards(b);
}

/* The same in double, from the stored values. */
static void assert_close(const shape *c, const guarded *b, const rows *keys, const rows *values)
{
    nj_span span[64];
    spans_fill(span, c->count, 3, c->n / 3, c->n / 2 + 1, c->n);
    for (uint32_t i = 0; i < c->count; i++) {
        double score[64], top = -INFINITY, sum = 0, error = 0;
        for (uint32_t p = 0; p < c->n; p++) {
            double size = 0;
            score[p] = 0;
            for (uint32_t d = 0; d < c->dim; d++) {
                double product = (double)b->rows[i * c->dim + d] * (double)keys->values[p * keys->dim_whole + d];
                score[p] += product;
                size += fabs(product);
            }
            double cap = (double)c->softcap;
            if (c->softcap != 0) score[p] = cap * tanh(score[p] / cap);
            error = fmax(error, size * (c->dim + 2) * FLT_EPSILON / 2 + fabs(cap) * 4 * FLT_EPSILON);
            top = fmax(top, score[p]);
        }
        double out[256] = { 0 }, size[256] = { 0 };
        for (uint32_t p = 0; p < c->n; p++) {
            bool twice = !c->spans || (p >= span[i].first && p < span[i].last);
            double w = exp(score[p] - top) * (twice ? 2 : 1);
            sum += w;
            for (uint32_t d = 0; d < c->dim; d++) {
                out[d] += w * (double)values->values[p * values->dim_whole + d];
                size[d] += w * fabs((double)values->values[p * values->dim_whole + d]);
            }
        }
        const float *got = b->q.out + (size_t)i * nj_attend_width(c->dim);
        double bound = 2 * error + 300 * (double)FLT_EPSILON; /* of a weight, and of sums of 128 */
        for (uint32_t d = 0; d < c->dim; d++) {
            double value = (double)got[d] / (double)b->q.run[i].sum;
            if (!(fabs(value - out[d] / sum) <= 2 * bound * size[d] / sum + 1e-30))
                fail_msg("%s dim %u: query %u of %u, value %u is %g, not %g", nj_format_name(c->type), c->dim, i,
                         c->count, d, value, out[d] / sum);
        }
    }
}

/* Runs a case on the scalar tier and on `k`: close to the sums in double, and the same bits. */
static void check_shape(const nj_kernels *k, const shape *c)
{
    guarded b = random_block(c->count, c->dim, c->softcap, c->extreme);
    rows keys = random_rows(c->type, c->n, c->dim, c->extreme), values = random_rows(c->type, c->n, c->dim, c->extreme);
    size_t bytes = b.out_floats * sizeof(float), run_bytes = c->count * sizeof *b.run;
    float *want = allocate(bytes);
    nj_softmax *want_run = allocate(run_bytes);
    attend(nj_kernels_get(NJ_ISA_SCALAR), c, &b, &keys, &values);
    assert_close(c, &b, &keys, &values);
    memcpy(want, b.q.out, bytes);
    memcpy(want_run, b.q.run, run_bytes);
    attend(k, c, &b, &keys, &values);
    if (memcmp(want, b.q.out, bytes) || memcmp(want_run, b.q.run, run_bytes))
        fail_msg("%s %s dim %u, %u queries, %u keys, spans %d: not the bits of the reference", nj_isa_name(k->isa),
                 nj_format_name(c->type), c->dim, c->count, c->n, c->spans);
    free(want);
    free(want_run);
    rows_free(&keys);
    rows_free(&values);
    block_free(&b);
}

static void check_attend(const nj_kernels *k)
{
    static const uint32_t dims[] = { 16, 20, 21, 40, 64, 80, 96, 100, 128, 256 };
    static const uint32_t counts[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 25, 48 };
    static const uint32_t keys[] = { 64, 1, 15, 16, 17, 33, 63 };
    uint32_t turn = 0;
    for (size_t t = 0; t < NJ_COUNT(kv_types); t++)
        for (size_t d = 0; d < NJ_COUNT(dims); d++)
            for (size_t i = 0; i < NJ_COUNT(counts); i++, turn++)
                check_shape(k, &(shape){ .type = kv_types[t],
                                         .dim = dims[d],
                                         .count = counts[i],
                                         .n = keys[turn % NJ_COUNT(keys)],
                                         .softcap = turn % 5 == 0 ? 4.0f : 0.0f,
                                         .spans = turn % 2,
                                         .extreme = turn % 3 == 0 });
}

/* A query's sums are the same alone and beside others. */
static void check_independence(const nj_kernels *k)
{
    enum { COUNT = 29, DIM = 80, N = 50 };
    shape c = { .type = NJ_F16, .dim = DIM, .count = COUNT, .n = N };
    guarded all = random_block(COUNT, DIM, 0, false), one = random_block(1, DIM, 0, false);
    rows keys = random_rows(NJ_F16, N, DIM, false), values = random_rows(NJ_F16, N, DIM, false);
    attend(k, &c, &all, &keys, &values);
    c.count = 1;
    for (uint32_t i = 0; i < COUNT; i++) {
        for (uint32_t d = 0; d < DIM; d++) ((float *)(uintptr_t)one.q.q)[d / 64 * 64 + d % 64] = all.rows[i * DIM + d];
        attend(k, &c, &one, &keys, &values);
        assert_memory_equal(one.q.out, all.q.out + (size_t)i * nj_attend_width(DIM), sizeof(float) * DIM);
        assert_memory_equal(one.q.run, all.q.run + i, sizeof(nj_softmax));
    }
    rows_free(&keys);
    rows_free(&values);
    block_free(&all);
    block_free(&one);
}

/* What a query does not see may be anything, and a query that sees nothing of a tile keeps its sums. */
static void check_hidden(const nj_kernels *k)
{
    enum { COUNT = 12, DIM = 64, N = 64 };
    guarded b = random_block(COUNT, DIM, 0, false);
    rows keys = random_rows(NJ_F32, N, DIM, false), values = random_rows(NJ_F32, N, DIM, false);
    float *bad[] = { (float *)(void *)(keys.data + 40 * keys.stride),
                     (float *)(void *)(values.data + 40 * values.stride) };
    nj_span span[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) span[i] = (nj_span){ i == 7 ? 64 : 3, i == 7 ? 64 : 40 };
    nj_tile t = { .keys = keys.data, .values = values.data, .stride = keys.stride, .n = N, .span = span };
    float *want = allocate(b.out_floats * sizeof *want);
    for (int round = 0; round < 2; round++) {
        block_clear(&b);
        k->attend[NJ_F32](&b.q, &t);
        if (round == 0) memcpy(want, b.q.out, b.out_floats * sizeof *want);
        for (int d = 0; d < DIM; d++) bad[0][d] = NAN, bad[1][d] = INFINITY;
    }
    assert_memory_equal(want, b.q.out, b.out_floats * sizeof *want);
    assert_true(b.q.run[7].m == -INFINITY && b.q.run[7].sum == 0);
    free(want);
    rows_free(&keys);
    rows_free(&values);
    block_free(&b);
}

/* ---- Activation ---- */

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* x / 2 * (1 + tanh(u)), without the cancellation at the left */
static double gelu_tanh(double x)
{
    return x / (1 + exp(-2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

static void check_glu(const nj_kernels *k)
{
    enum { N = 4096 };
    float *gate = allocate(N * sizeof *gate), *up = allocate(N * sizeof *up);
    float *out = allocate((N + 1) * sizeof *out), *want = allocate(N * sizeof *want);
    for (int act = 0; act < NJ_GLU_COUNT; act++)
        for (uint32_t n = 0; n <= N; n += n < 40 ? 1 : 2028) {
            for (uint32_t i = 0; i < n; i++) {
                gate[i] = ldexpf(random_value(), (int)(random_bits() % 16) - 8); /* up to 128 */
                up[i] = i % 7 == 0 ? 1.0f : random_value();
            }
            if (n > 3) gate[0] = -INFINITY, gate[1] = INFINITY, gate[2] = 0;
            if (n > 3) up[0] = up[1] = 1;
            nj_kernels_get(NJ_ISA_SCALAR)->glu[act](gate, up, want, n);
            out[n] = guard;
            k->glu[act](gate, up, out, n);
            assert_true(out[n] == guard);
            if (n > 3) want[0] = out[0] = 0; /* NaN, as infinity / infinity is */
            assert_memory_equal(want, out, n * sizeof *out);
            for (uint32_t i = n > 3 ? 2 : 0; i < n; i++) {
                double right = (act == NJ_GLU_SILU ? silu : gelu_tanh)((double)gate[i]) * (double)up[i];
                double slack = act == NJ_GLU_SILU ? 4e-7 : 2e-6 * (1 + fmin(fabs((double)gate[i]), 10));
                assert_true(fabs((double)out[i] - right) <= fabs(right) * slack + 1e-30);
            }
            k->glu[act](gate, up, gate, n); /* in place */
            if (n > 3) gate[0] = 0;
            assert_memory_equal(want, gate, n * sizeof *out);
        }
    free(gate);
    free(up);
    free(out);
    free(want);
}

/* F32 and F16 are the conversions of the room; Q8_0 has the largest value at quant 127 and errors of half a step. */
static void check_store(const nj_kernels *k)
{
    enum { N = 32 * 40 };
    float x[N];
    uint8_t f32[4 * N + 1], f16[2 * N + 1], q8_0[34 * N / 32 + 1];
    for (int i = 0; i < N; i++) { /* each block has a magnitude of its own, from subnormal halves to their limit */
        x[i] = ldexpf(random_value(), i / 32 - 25);
        if (i / 32 == 7) x[i] = 0;
    }
    f32[4 * N] = f16[2 * N] = q8_0[34 * N / 32] = 0xa5;
    k->store[NJ_F32](x, f32, N);
    k->store[NJ_F16](x, f16, N);
    k->store[NJ_Q8_0](x, q8_0, N);
    assert_true(f32[4 * N] == 0xa5 && f16[2 * N] == 0xa5 && q8_0[34 * N / 32] == 0xa5);
    assert_memory_equal(f32, x, sizeof x);
    float back[N];
    nj_decode(NJ_Q8_0, q8_0, back, N);
    for (int i = 0; i < N; i++) {
        uint16_t h, d;
        memcpy(&h, f16 + 2 * i, sizeof h);
        assert_int_equal(h, nj_f32_to_f16(x[i]));
        memcpy(&d, q8_0 + i / 32 * 34, sizeof d);
        float max = 0, step = nj_f16_to_f32(d);
        for (int j = i / 32 * 32; j < i / 32 * 32 + 32; j++) max = fmaxf(max, fabsf(x[j]));
        assert_int_equal(d, nj_f32_to_f16(max / 127.0f));
        /* Where the half was rounded down, the largest value lies up to 127 roundings past the last quant. */
        float lost = fmaxf(max - 127 * step, 0);
        assert_true(fabsf(back[i] - x[i]) <= fmaxf(step / 2 * 1.00001f, lost));
    }
}

/* The bytes of a stored row are those of the reference, also for values no half can hold. */
static void check_store_bits(const nj_kernels *k)
{
    float x[64];
    uint8_t got[256], want[256];
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 64; i++) {
            uint32_t bits = random_bits();
            memcpy(&x[i], &bits, sizeof bits); /* any float at all, NaN and infinity among them */
            if (round % 2) x[i] = ldexpf(random_value(), round % 64 - 40);
        }
        for (size_t t = 0; t < 3; t++) {
            memset(got, 0xa5, sizeof got);
            memset(want, 0xa5, sizeof want);
            uint32_t n =
                kv_types[t] == NJ_Q8_0 ? 64 : (uint32_t)round % 65; /* heads of 20 or 100 values end anywhere */
            k->store[kv_types[t]](x, got, n);
            nj_kernels_get(NJ_ISA_SCALAR)->store[kv_types[t]](x, want, n);
            assert_memory_equal(got, want, sizeof got);
            if (kv_types[t] != NJ_Q8_0)
                for (size_t b = nj_row_bytes(kv_types[t], n ? n : 1) * !!n; b < sizeof got; b++)
                    assert_int_equal(got[b], 0xa5);
        }
    }
}

/* A test of one tier, or a visible skip. */
static void check_tier(nj_isa isa, const char *test)
{
    const nj_kernels *k = nj_kernels_get(isa);
    if (!k) {
        printf("SKIP %s: this CPU or OS can't run %s\n", test, nj_isa_name(isa));
        skip();
    }
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++) {
        bool kv = type == NJ_F32 || type == NJ_F16 || type == NJ_Q8_0;
        assert_true((k->attend[type] != NULL) == kv && (k->store[type] != NULL) == kv);
    }
    check_attend(k);
    check_independence(k);
    check_hidden(k);
    check_glu(k);
    check_store(k);
    check_store_bits(k);
}

static void scalar_is_accurate(void **state)
{
    (void)state;
    check_tier(NJ_ISA_SCALAR, __func__);
}

static void avx2_gives_the_bits_of_the_reference(void **state)
{
    (void)state;
    check_tier(NJ_ISA_AVX2, __func__);
}

static void avx512_gives_the_bits_of_the_reference(void **state)
{
    (void)state;
    check_tier(NJ_ISA_AVX512, __func__);
}

static void amx_gives_the_bits_of_the_reference(void **state)
{
    (void)state;
    check_tier(NJ_ISA_AMX, __func__);
}

/* What Q8_0 can't hold is stored as 0 and leaves its neighbours alone. */
static void stored_infinities_become_zero(void **state)
{
    (void)state;
    const nj_kernels *k = nj_kernels_get(nj_isa_best());
    float x[32] = { NAN, INFINITY, -INFINITY, 127.0f, -63.5f }, back[32];
    uint8_t block[34];
    k->store[NJ_Q8_0](x, block, 32);
    nj_decode(NJ_Q8_0, block, back, 32);
    assert_true(back[0] == 0 && back[1] == 0 && back[2] == 0 && back[3] == 127.0f && back[4] == -64.0f);
}

/* ---- The op ---- */

enum { KV_HEADS = 2, GROUP = 3, HEAD_DIM = 32, LENGTH_MAX = 2600, ROWS_MAX = 300, SEQUENCES = 3 };

/* A model that is nothing but one attention layer, and sequences whose caches are filled. */
typedef struct stage {
    nj_model model;
    nj_kv kv;
    nj_layer_cache layer;
    nj_sequence sequence[SEQUENCES];
    nj_kv_page *page[SEQUENCES][LENGTH_MAX / NJ_KV_PAGE + 1];
    float *values; /* [SEQUENCES][key, value][LENGTH_MAX][KV_HEADS][HEAD_DIM] as stored */
    nj_op op;
} stage;

static float *stored(const stage *g, int sequence, int value, uint32_t position, uint32_t head)
{
    return g->values + ((((size_t)sequence * 2 + (size_t)value) * LENGTH_MAX + position) * KV_HEADS + head) * HEAD_DIM;
}

static void stage_open(stage *g, uint32_t type, uint32_t window, float softcap)
{
    memset(g, 0, sizeof *g);
    g->model.h =
        (nj_hparams){ .heads = KV_HEADS * GROUP, .kv_heads = KV_HEADS, .head_dim = HEAD_DIM, .attn_softcap = softcap };
    g->model.slot_width[NJ_SLOT_QKV] = g->model.slot_width[NJ_SLOT_ATTN] = KV_HEADS * GROUP * HEAD_DIM;
    g->model.layer_cache = &g->layer;
    g->model.group[0] = (nj_cache_group){ .window = window, .layers = 1 };
    g->model.groups = 1;
    assert_int_equal(nj_kv_init(&g->kv, &g->model, type, 1u << 30, NULL), 0);
    g->op =
        (nj_op){ .kind = NJ_OP_ATTENTION, .src = NJ_SLOT_QKV, .dst = NJ_SLOT_ATTN, .width = HEAD_DIM, .scale = 0.25f };
    g->values = allocate(sizeof(float) * SEQUENCES * 2 * LENGTH_MAX * KV_HEADS * HEAD_DIM);
    for (int i = 0; i < SEQUENCES; i++) {
        g->sequence[i].page[0] = g->page[i];
        for (uint32_t p = 0; p < LENGTH_MAX; p++) {
            if (p % NJ_KV_PAGE == 0) g->page[i][p / NJ_KV_PAGE] = allocate(g->kv.page_bytes[0]);
            for (uint32_t h = 0; h < KV_HEADS; h++)
                for (int v = 0; v < 2; v++) {
                    float *row = stored(g, i, v, p, h);
                    char *at = nj_kv_keys(&g->kv, g->page[i][p / NJ_KV_PAGE], 0, h) + p % NJ_KV_PAGE * g->kv.row_bytes +
                               (v ? nj_kv_values(&g->kv) : 0);
                    for (int d = 0; d < HEAD_DIM; d++) row[d] = random_value() * (p % 97 ? 1 : 8);
                    nj_kernels_get(NJ_ISA_SCALAR)->store[type](row, at, HEAD_DIM);
                    nj_decode(type, at, row, HEAD_DIM);
                }
        }
    }
}

static void stage_close(stage *g)
{
    for (int i = 0; i < SEQUENCES; i++)
        for (uint32_t p = 0; p < NJ_COUNT(g->page[i]); p++) free(g->page[i][p]);
    free(g->values);
    nj_kv_free(&g->kv);
}

/* A row of a step: which sequence and where in it. Its query follows from both. */
typedef struct step_row {
    int sequence;
    uint32_t position;
} step_row;

static void query_of(const step_row *r, float *q)
{
    uint64_t before = seed;
    seed = (uint64_t)r->sequence * 1000003 + r->position * 7919 + 12345;
    for (int i = 0; i < 8; i++) random_bits();
    for (uint32_t i = 0; i < KV_HEADS * GROUP * HEAD_DIM; i++) q[i] = 2 * random_value();
    seed = before;
}

typedef struct run {
    nj_step *step;
    const nj_op *op;
} run;

static void run_op(void *arg, uint32_t worker, uint32_t workers)
{
    run *r = arg;
    nj_step_attention(r->step, r->op, worker, workers);
}

/* Computes the rows in one step; out is [n][KV_HEADS * GROUP * HEAD_DIM]. */
static void compute(stage *g, const step_row *row, uint32_t n, uint32_t threads, nj_isa isa, float *out)
{
    nj_step s = {
        .m = &g->model, .kernels = nj_kernels_get(isa), .kv = &g->kv, .rows_max = ROWS_MAX, .context = LENGTH_MAX
    };
    nj_arena *arena = NULL;
    size_t width = KV_HEADS * GROUP * HEAD_DIM;
    assert_int_equal(nj_pool_new(&s.pool, threads, NULL), 0);
    assert_int_equal(nj_step_init(&s, &arena, NULL), 0);
    s.rows = n;
    for (uint32_t i = 0; i < n; i++) {
        s.sequence[i] = &g->sequence[row[i].sequence];
        s.position[i] = row[i].position;
        query_of(&row[i], nj_slot_row(&s, NJ_SLOT_QKV, i));
    }
    nj_pool_run(s.pool, run_op, &(run){ &s, &g->op });
    memcpy(out, s.slot[NJ_SLOT_ATTN], n * width * sizeof *out);
    nj_pool_free(s.pool);
    nj_arena_free(arena);
}

/* Attention of one row and head in double. */
static void oracle(const stage *g, const step_row *r, uint32_t head, uint32_t window, double *out)
{
    double score[LENGTH_MAX], top = -INFINITY, sum = 0, cap = (double)g->model.h.attn_softcap;
    float q[KV_HEADS * GROUP * HEAD_DIM];
    uint32_t begin = window && r->position >= window ? r->position - window + 1 : 0;
    query_of(r, q);
    memset(out, 0, sizeof *out * HEAD_DIM);
    for (uint32_t p = begin; p <= r->position; p++) {
        const float *key = stored(g, r->sequence, 0, p, head / GROUP);
        score[p] = 0;
        for (int d = 0; d < HEAD_DIM; d++) score[p] += (double)q[head * HEAD_DIM + d] * (double)key[d] / 4;
        if (cap != 0) score[p] = cap * tanh(score[p] / cap);
        top = fmax(top, score[p]);
    }
    for (uint32_t p = begin; p <= r->position; p++) {
        const float *value = stored(g, r->sequence, 1, p, head / GROUP);
        sum += exp(score[p] - top);
        for (int d = 0; d < HEAD_DIM; d++) out[d] += exp(score[p] - top) * (double)value[d];
    }
    for (int d = 0; d < HEAD_DIM; d++) out[d] /= sum;
}

enum { WIDTH = KV_HEADS * GROUP * HEAD_DIM };

/* One row at a time on one thread of the reference: close to the sums in double; and then the same bits however the
 * rows are cut into steps, for any number of threads and any tier. Scores reach 60, where a float is off by 4e-6. */
static void check_op(uint32_t type, uint32_t window, float softcap)
{
    enum { N = 150 };
    static const uint32_t starts[SEQUENCES] = { 2420, 1000, 0 };
    static stage g;
    static float want[SEQUENCES * N][WIDTH], got[SEQUENCES * N][WIDTH];
    step_row row[SEQUENCES * N];
    stage_open(&g, type, window, softcap);
    for (int i = 0; i < SEQUENCES * N; i++) row[i] = (step_row){ i / N, starts[i / N] + (uint32_t)(i % N) };
    for (int i = 0; i < SEQUENCES * N; i++) {
        double right[HEAD_DIM];
        compute(&g, &row[i], 1, 1, NJ_ISA_SCALAR, want[i]);
        for (uint32_t h = 0; i % 7 == 0 && h < KV_HEADS * GROUP; h++) {
            oracle(&g, &row[i], h, window, right);
            for (int d = 0; d < HEAD_DIM; d++) assert_float_equal(want[i][h * HEAD_DIM + d], right[d], 1e-4);
        }
    }
    static const uint32_t threads[] = { 1, 2, 3, 5 }, chunks[] = { 1, 17, 150, 300 };
    for (int isa = 0; isa < NJ_ISA_COUNT; isa++)
        for (size_t t = 0; nj_kernels_get((nj_isa)isa) && t < NJ_COUNT(threads); t++) {
            uint32_t chunk = chunks[((size_t)isa + t) % NJ_COUNT(chunks)];
            for (uint32_t i = 0; i < SEQUENCES * N; i += chunk == 1 ? 13 : chunk) {
                uint32_t n = SEQUENCES * N - i < chunk ? SEQUENCES * N - i : chunk;
                compute(&g, row + i, n, threads[t], (nj_isa)isa, got[i]);
                if (memcmp(got[i], want[i], n * sizeof *got))
                    fail_msg("%s, %u threads, rows %u to %u in one step: other bits", nj_isa_name((nj_isa)isa),
                             threads[t], i, i + n);
            }
        }
    stage_close(&g);
}

static void half_precision_rows_are_independent(void **state)
{
    (void)state;
    check_op(NJ_F16, 0, 0);
}

static void windowed_rows_are_independent(void **state)
{
    (void)state;
    check_op(NJ_F32, 100, 5);
}

static void rows_of_wide_windows_are_independent(void **state)
{
    (void)state;
    check_op(NJ_Q8_0, 1500, 0);
}

/* Pages that a window has passed are gone, and nobody asks for them. */
static void pages_behind_a_window_are_not_read(void **state)
{
    (void)state;
    static stage g;
    float with[WIDTH], without[WIDTH];
    stage_open(&g, NJ_F16, 130, 0);
    step_row row = { 0, 2500 };
    compute(&g, &row, 1, 2, nj_isa_best(), with);
    for (uint32_t p = 0; p < (2500 - 129) / NJ_KV_PAGE; p++) {
        free(g.page[0][p]);
        g.page[0][p] = NULL;
    }
    compute(&g, &row, 1, 2, nj_isa_best(), without);
    assert_memory_equal(with, without, sizeof with);
    stage_close(&g);
}

/* Sequences that decode side by side, in any order, give what each gives alone. */
static void batches_do_not_matter(void **state)
{
    (void)state;
    static stage g;
    float want[3][WIDTH], got[3][WIDTH];
    static const step_row row[3] = { { 1, 700 }, { 0, 2599 }, { 2, 0 } };
    stage_open(&g, NJ_F16, 0, 0);
    for (int i = 0; i < 3; i++) compute(&g, &row[i], 1, 1, NJ_ISA_SCALAR, want[i]);
    for (uint32_t threads = 1; threads < 6; threads++) {
        compute(&g, row, 3, threads, nj_isa_best(), got[0]);
        assert_memory_equal(want, got, sizeof want);
    }
    stage_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_is_accurate),
        cmocka_unit_test(avx2_gives_the_bits_of_the_reference),
        cmocka_unit_test(avx512_gives_the_bits_of_the_reference),
        cmocka_unit_test(amx_gives_the_bits_of_the_reference),
        cmocka_unit_test(stored_infinities_become_zero),
        cmocka_unit_test(half_precision_rows_are_independent),
        cmocka_unit_test(windowed_rows_are_independent),
        cmocka_unit_test(rows_of_wide_windows_are_independent),
        cmocka_unit_test(pages_behind_a_window_are_not_read),
        cmocka_unit_test(batches_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
