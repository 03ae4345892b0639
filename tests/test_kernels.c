/* Kernels: each tier against the scalar reference, bit for bit, and the reference against a product in double and
 * against OpenBLAS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <float.h>
#include <math.h>
#include <cmocka.h>
#include <cblas.h>

#include "quant/kernels.h"

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

/* What random block bytes stand for: the scales are set apart, as random ones would be NaN or hide small errors. */
enum scales { SCALES_USUAL, SCALES_LARGE, SCALES_TINY, SCALES_ZERO, SCALES_COUNT };

static uint16_t random_half(enum scales scales)
{
    static const uint16_t base[SCALES_COUNT] = { 0x2000, 0x6800, 0x0000, 0x0000 }; /* 2^-7, 2^11, subnormal, 0 */
    return scales == SCALES_ZERO ? 0 : (uint16_t)((base[scales] + random_bits() % 0x3ff) | (random_bits() & 0x8000));
}

/* Offsets of the half-precision scales in a block, -1 ends the list. */
static const int *scale_offsets(uint32_t type)
{
    static const int first[] = { 0, -1 }, first_two[] = { 0, 2, -1 }, q2_k[] = { 80, 82, -1 }, q3_k[] = { 108, -1 };
    static const int q6_k[] = { 208, -1 }, tq1_0[] = { 52, -1 }, tq2_0[] = { 64, -1 }, none[] = { -1 };
    switch (type) {
    case NJ_Q4_1:
    case NJ_Q5_1:
    case NJ_Q4_K:
    case NJ_Q5_K: return first_two;
    case NJ_Q2_K: return q2_k;
    case NJ_Q3_K: return q3_k;
    case NJ_Q6_K: return q6_k;
    case NJ_TQ1_0: return tq1_0;
    case NJ_TQ2_0: return tq2_0;
    case NJ_F32:
    case NJ_F16:
    case NJ_BF16:
    case NJ_IQ1_M:
    case NJ_MXFP4: return none;
    default: return first;
    }
}

/* Fills one block with random bytes and the wanted kind of scale. */
static void random_block(uint32_t type, enum scales scales, uint8_t *block, uint32_t bytes)
{
    static const float magnitude[SCALES_COUNT] = { 1.0f, 0x1p60f, 0x1p-130f, 0.0f };
    for (uint32_t i = 0; i < bytes; i++) block[i] = (uint8_t)random_bits();
    for (const int *at = scale_offsets(type); *at >= 0; at++) {
        uint16_t h = random_half(scales);
        memcpy(block + *at, &h, sizeof h);
    }
    uint16_t h = random_half(scales);
    float f = random_value() * magnitude[scales];
    if (type == NJ_F32) memcpy(block, &f, sizeof f);
    if (type == NJ_F16) memcpy(block, &h, sizeof h);
    if (type == NJ_BF16) {
        h = nj_f32_to_bf16(f);
        memcpy(block, &h, sizeof h);
    }
    if (type == NJ_MXFP4) block[0] = (uint8_t[]){ 120, 188, 1, 0 }[scales];
    if (type == NJ_IQ1_M) /* a nibble on top of each of the last four words */
        for (int w = 0; w < 4; w++) block[49 + 2 * w] = (uint8_t)((block[49 + 2 * w] & 15) | (h >> (4 * w) & 15) << 4);
}

/* A random matrix, as panels and as exact floats [rows][cols]. */
typedef struct matrix {
    nj_panels w;
    void *data;
    float *values;
} matrix;

static matrix random_matrix(uint32_t type, uint32_t rows, uint32_t cols)
{
    uint32_t weights = 0, bytes = 0;
    assert_true(nj_format_size(type, &weights, &bytes));
    uint64_t row_bytes = nj_row_bytes(type, cols), panel = nj_panel_bytes(type, cols);
    uint8_t *blocks = allocate(rows * row_bytes);
    matrix m = { .values = allocate((size_t)rows * cols * sizeof(float)) };
    for (uint64_t at = 0; at < rows * row_bytes; at += bytes) /* mostly usual blocks, among them extreme ones */
        random_block(type, random_bits() % 4 ? SCALES_USUAL : random_bits() % SCALES_COUNT, blocks + at, bytes);
    m.data = allocate(nj_panels_bytes(type, rows, cols));
    for (uint32_t r = 0; r < rows; r += 16)
        nj_panel_pack(type, blocks + r * row_bytes, rows - r < 16 ? rows - r : 16, cols,
                      (uint8_t *)m.data + r / 16 * panel);
    nj_decode(type, blocks, m.values, (size_t)rows * cols);
    m.w = (nj_panels){ m.data, type, rows, cols };
    free(blocks);
    return m;
}

static void matrix_free(matrix *m)
{
    free(m->data);
    free(m->values);
}

/* Rows of activations and of results. Each row of y has a guard on both sides; untouched results keep the guard. */
enum { GUARD_FLOATS = 8, ROWS_MAX = 67 };
static const float guard = -12345.5f;

typedef struct rows {
    uint32_t count, cols, outputs;
    float *x_data, *y_data;
    nj_act_block *q_data;
    const void *x[ROWS_MAX]; /* floats */
    const void *q[ROWS_MAX]; /* the same rounded by the scalar tier; NULL unless cols is a multiple of 32 */
    float *y[ROWS_MAX];
} rows;

static rows random_rows(uint32_t count, uint32_t cols, uint32_t outputs)
{
    rows r = { .count = count, .cols = cols, .outputs = outputs };
    size_t stride = outputs + 2 * GUARD_FLOATS;
    r.x_data = allocate(((size_t)count * cols + 1) * sizeof(float));
    r.y_data = allocate(count * stride * sizeof(float));
    for (size_t i = 0; i <= (size_t)count * cols; i++) { /* some activations far from 1 */
        r.x_data[i] = random_value();
        if (random_bits() % 64 == 0) r.x_data[i] *= random_bits() % 2 ? 0x1p30f : 0x1p-140f;
    }
    for (uint32_t i = 0; i < count; i++) {
        r.x[i] = r.x_data + 1 + (size_t)i * cols; /* not aligned */
        r.y[i] = r.y_data + i * stride + GUARD_FLOATS;
    }
    if (cols % 32) return r;
    r.q_data = allocate(count * nj_acts_bytes(NJ_ACTS_INT8, cols));
    for (uint32_t i = 0; i < count; i++) {
        r.q[i] = r.q_data + (size_t)i * (cols / 32);
        nj_kernels_get(NJ_ISA_SCALAR)->quantize(r.x[i], cols, r.q_data + (size_t)i * (cols / 32));
    }
    return r;
}

static void rows_clear(rows *r)
{
    for (size_t i = 0; i < r->count * (size_t)(r->outputs + 2 * GUARD_FLOATS); i++) r->y_data[i] = guard;
}

/* Fails unless all of y but outputs [begin, end) of each row is the guard. */
static void assert_guards(const rows *r, uint32_t begin, uint32_t end)
{
    for (uint32_t i = 0; i < r->count; i++)
        for (int o = -GUARD_FLOATS; o < (int)r->outputs + GUARD_FLOATS; o++)
            if (o < (int)begin || o >= (int)end) assert_true(r->y[i][o] == guard);
}

static void rows_free(rows *r)
{
    free(r->x_data);
    free(r->y_data);
    free(r->q_data);
}

/* The rows in the form that a type's narrow recipe takes. */
static const void *const *rows_for(const rows *r, uint32_t type)
{
    return nj_acts_of(type) == NJ_ACTS_INT8 ? r->q : r->x;
}

static bool same_bits(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

/* Columns for a type: one block, and a count that leaves a part tile. */
static uint32_t cols_for(uint32_t type, bool wide)
{
    uint32_t weights = 0, bytes = 0;
    nj_format_size(type, &weights, &bytes);
    return weights == 1 ? (wide ? 263 : 7) : weights == 32 ? (wide ? 352 : 32) : wide ? 512 : 256;
}

/* The header's recipe, spelt out for one output. */
static float recipe(const float *w, const float *x, uint32_t cols)
{
    float s[4] = { 0 };
    for (uint32_t c = 0; c < cols; c++) s[c % 4] = fmaf(w[c], x[c], s[c % 4]);
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* A shape to try: all of its numbers from its index. */
typedef struct shape {
    uint32_t outputs, rows, begin, end, last; /* panels [begin, end) are asked for: outputs begin * 16 .. last */
} shape;

enum { SHAPES = 8 };

static shape shape_at(int i)
{
    static const uint32_t outputs[] = { 1, 16, 37, 80 }, counts[SHAPES] = { 1, 2, 3, 5, 8, 15, 40, ROWS_MAX };
    shape s = { .outputs = outputs[i % 4], .rows = counts[i] };
    uint32_t panels = (s.outputs + 15) / 16;
    s.begin = i % 3 && panels > 1 ? 1 : 0;
    s.end = i == 3 ? panels - 1 : panels;
    s.last = s.end * 16 < s.outputs ? s.end * 16 : s.outputs;
    return s;
}

/* Every format, several shapes: all results follow the F32 recipe to the bit, nothing else is written. */
static void check_f32(const nj_kernels *k)
{
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++) {
        uint32_t weights, bytes;
        bool read = nj_format_size(type, &weights, &bytes);
        assert_int_equal(k->linear_f32[type] != NULL, read);
        for (int i = 0; read && i < SHAPES; i++) {
            shape s = shape_at(i);
            uint32_t cols = cols_for(type, i > 0);
            matrix m = random_matrix(type, s.outputs, cols);
            rows r = random_rows(s.rows, cols, s.outputs);
            rows_clear(&r);
            k->linear_f32[type](&m.w, s.begin, s.end, r.x, r.y, r.count);
            assert_guards(&r, s.begin * 16, s.last);
            for (uint32_t row = 0; row < r.count; row++)
                for (uint32_t o = s.begin * 16; o < s.last; o++) {
                    float want = recipe(m.values + (size_t)o * cols, r.x[row], cols);
                    if (!same_bits(&want, &r.y[row][o], 1))
                        fail_msg("%s %s: row %u of %u, output %u of %u: %.9g, not %.9g", nj_isa_name(k->isa),
                                 nj_format_name(type), row, r.count, o, s.outputs, (double)r.y[row][o], (double)want);
                }
            rows_free(&r);
            matrix_free(&m);
        }
    }
}

/* The narrow recipe: bits of the scalar reference, nothing else written. */
static void check_narrow(const nj_kernels *k)
{
    const nj_kernels *reference = nj_kernels_get(NJ_ISA_SCALAR);
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++) {
        assert_int_equal(k->linear[type] != NULL, reference->linear[type] != NULL);
        for (int i = 0; k->linear[type] && i < SHAPES; i++) {
            shape s = shape_at(i);
            uint32_t cols = cols_for(type, i > 0);
            matrix m = random_matrix(type, s.outputs, cols);
            rows r = random_rows(s.rows, cols, s.outputs), want = random_rows(s.rows, cols, s.outputs);
            rows_clear(&r);
            k->linear[type](&m.w, s.begin, s.end, rows_for(&r, type), r.y, r.count);
            reference->linear[type](&m.w, s.begin, s.end, rows_for(&r, type), want.y, r.count);
            assert_guards(&r, s.begin * 16, s.last);
            for (uint32_t row = 0; row < r.count; row++)
                for (uint32_t o = s.begin * 16; o < s.last; o++)
                    if (!same_bits(&want.y[row][o], &r.y[row][o], 1))
                        fail_msg("%s %s: row %u of %u, output %u of %u: %.9g, the reference has %.9g",
                                 nj_isa_name(k->isa), nj_format_name(type), row, r.count, o, s.outputs,
                                 (double)r.y[row][o], (double)want.y[row][o]);
            rows_free(&want);
            rows_free(&r);
            matrix_free(&m);
        }
    }
}

/* Rounding activations: the bits of the scalar reference, and what the header says of them. */
static void check_quantize(const nj_kernels *k)
{
    enum { COLS = 32 * 40 };
    rows r = random_rows(3, COLS, 1);
    float *x = r.x_data;
    for (int c = 0; c < 32; c++) x[32 + c] = 0.0f, x[64 + c] *= 0x1p-130f;
    x[96] = INFINITY, x[97] = NAN, x[130] = FLT_MAX;
    nj_act_block *got = allocate(sizeof *got * COLS / 32), *want = allocate(sizeof *want * COLS / 32);
    k->quantize(x, COLS, got);
    nj_kernels_get(NJ_ISA_SCALAR)->quantize(x, COLS, want);
    assert_memory_equal(got, want, sizeof *got * COLS / 32);
    for (int b = 0; b < COLS / 32; b++) {
        int32_t half[2] = { 0, 0 };
        for (int j = 0; j < 32; j++) {
            half[j / 16] += got[b].q[j];
            float value = isfinite(x[32 * b + j]) ? x[32 * b + j] : 0.0f;
            if (got[b].scale > 0.0f)
                assert_true(fabs((double)value - (double)got[b].scale * got[b].q[j]) <= 0.50001 * (double)got[b].scale);
        }
        assert_true(half[0] == got[b].total_half[0] && half[1] == got[b].total_half[1]);
        assert_int_equal(got[b].total, half[0] + half[1]);
    }
    free(got);
    free(want);
    rows_free(&r);
}

/* A test of one tier, or a visible skip. */
static const nj_kernels *tier(nj_isa isa, const char *test)
{
    const nj_kernels *k = nj_kernels_get(isa);
    if (!k) {
        printf("SKIP %s: this CPU or OS can't run %s\n", test, nj_isa_name(isa));
        skip();
    }
    assert_int_equal(k->isa, isa);
    return k;
}

static void check_linear(const nj_kernels *k)
{
    check_f32(k);
    check_narrow(k);
    check_quantize(k);
}

static void linear_scalar_follows_the_recipe(void **state)
{
    (void)state;
    check_linear(tier(NJ_ISA_SCALAR, __func__));
}

static void linear_avx2_follows_the_recipe(void **state)
{
    (void)state;
    check_linear(tier(NJ_ISA_AVX2, __func__));
}

static void linear_avx512_follows_the_recipe(void **state)
{
    (void)state;
    check_linear(tier(NJ_ISA_AVX512, __func__));
}

/* The path for AVX-512 without VNNI, which a CPU with VNNI never takes by itself. */
static void linear_avx512_without_vnni_follows_the_recipe(void **state)
{
    (void)state;
#ifdef __x86_64__
    tier(NJ_ISA_AVX512, __func__);
    check_linear(&nj_kernels_avx512);
#endif
}

static void linear_amx_follows_the_recipe(void **state)
{
    (void)state;
    check_linear(tier(NJ_ISA_AMX, __func__));
}

/* A row's results don't depend on how many rows, or which panels, a call computes: every count from 1 to 40. */
static void linear_rows_are_independent(void **state)
{
    (void)state;
    static const uint32_t types[] = { NJ_Q4_K, NJ_Q6_K, NJ_Q8_0, NJ_BF16 };
    const nj_kernels *k = nj_kernels_get(nj_isa_best());
    enum { N = 83, COLS = 512 };
    for (int t = 0; t < 4; t++) {
        matrix m = random_matrix(types[t], N, COLS);
        rows all = random_rows(40, COLS, N), part = random_rows(40, COLS, N);
        const void *const *x = rows_for(&all, types[t]);
        k->linear[types[t]](&m.w, 0, 6, x, all.y, 40);
        for (uint32_t count = 1; count <= 40; count++) {
            for (uint32_t p = 0; p < 6; p++) k->linear[types[t]](&m.w, p, p + 1, x + 40 - count, part.y, count);
            for (uint32_t i = 0; i < count; i++) assert_true(same_bits(part.y[i], all.y[40 - count + i], N));
        }
        rows_free(&part);
        rows_free(&all);
        matrix_free(&m);
    }
}

/* Rounded activations times exact weights, in double: the narrow recipe errs by the rounding of its F32 sums alone. */
static void narrow_is_accurate(void **state)
{
    (void)state;
    const nj_kernels *k = nj_kernels_get(nj_isa_best());
    enum { N = 24, COLS = 512, COUNT = 3 };
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++) {
        if (!k->linear[type] || nj_acts_of(type) != NJ_ACTS_INT8) continue;
        matrix m = random_matrix(type, N, COLS);
        rows r = random_rows(COUNT, COLS, N);
        k->linear[type](&m.w, 0, 2, r.q, r.y, COUNT);
        for (uint32_t i = 0; i < COUNT; i++)
            for (uint32_t o = 0; o < N; o++) {
                const nj_act_block *q = r.q[i];
                double sum = 0, size = 0;
                for (uint32_t c = 0; c < COLS; c++) {
                    double w = (double)m.values[o * COLS + c];
                    sum += w * (double)q[c / 32].scale * q[c / 32].q[c % 32];
                    size += (fabs(w) + 1e-30) * (double)q[c / 32].scale * 127;
                }
                /* A minimum may cancel what its codes add: then both are larger than the weight. */
                if (!(fabs(sum - (double)r.y[i][o]) <= 8 * size * (COLS / 16 + 4) * FLT_EPSILON + FLT_MIN))
                    fail_msg("%s: row %u output %u: %.9g, not %.9g", nj_format_name(type), i, o, (double)r.y[i][o],
                             sum);
            }
        rows_free(&r);
        matrix_free(&m);
    }
}

/* Against a sum in double: the error is within the rounding of a float32 sum of that length. */
static void linear_is_accurate(void **state)
{
    (void)state;
    const nj_kernels *k = nj_kernels_get(nj_isa_best());
    enum { N = 24, COLS = 512, COUNT = 3 };
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++) {
        if (!k->linear_f32[type]) continue;
        matrix m = random_matrix(type, N, COLS);
        rows r = random_rows(COUNT, COLS, N);
        k->linear_f32[type](&m.w, 0, 2, r.x, r.y, COUNT);
        for (uint32_t i = 0; i < COUNT; i++)
            for (uint32_t o = 0; o < N; o++) {
                double sum = 0, size = 0;
                for (uint32_t c = 0; c < COLS; c++) {
                    double product = (double)m.values[o * COLS + c] * (double)((const float *)r.x[i])[c];
                    sum += product, size += fabs(product);
                }
                assert_true(fabs(sum - (double)r.y[i][o]) <= size * (COLS / 4 + 2) * FLT_EPSILON / 2 + FLT_MIN);
            }
        rows_free(&r);
        matrix_free(&m);
    }
}

/* Against OpenBLAS, a matrix product written by others. */
static void linear_agrees_with_openblas(void **state)
{
    (void)state;
    const nj_kernels *k = nj_kernels_get(nj_isa_best());
    enum { N = 48, COLS = 256, COUNT = 9 };
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++) {
        if (!k->linear_f32[type]) continue;
        matrix m = random_matrix(type, N, COLS);
        rows r = random_rows(COUNT, COLS, N);
        float *want = allocate(COUNT * N * sizeof(float));
        k->linear_f32[type](&m.w, 0, 3, r.x, r.y, COUNT);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, COUNT, N, COLS, 1.0f, r.x[0], COLS, m.values, COLS, 0.0f,
                    want, N);
        for (int i = 0; i < COUNT * N; i++) {
            double bound = 0;
            for (int c = 0; c < COLS; c++)
                bound += fabs((double)((const float *)r.x[i / N])[c] * (double)m.values[i % N * COLS + c]);
            assert_true(fabs((double)want[i] - (double)r.y[i / N][i % N]) <= bound * COLS * FLT_EPSILON + FLT_MIN);
        }
        free(want);
        rows_free(&r);
        matrix_free(&m);
    }
}

static void tiers_have_names(void **state)
{
    (void)state;
    for (int isa = 0; isa < NJ_ISA_COUNT; isa++) assert_int_equal(nj_isa_find(nj_isa_name((nj_isa)isa)), isa);
    assert_int_equal(nj_isa_find("AVX2"), NJ_ISA_AVX2);
    assert_int_equal(nj_isa_find("neon"), -1);
    assert_non_null(nj_kernels_get(NJ_ISA_SCALAR));
    assert_null(nj_kernels_get(NJ_ISA_COUNT));
    assert_int_equal(nj_kernels_get(nj_isa_best())->isa, nj_isa_best());
    for (int isa = (int)nj_isa_best() + 1; isa < NJ_ISA_COUNT; isa++) assert_null(nj_kernels_get((nj_isa)isa));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_scalar_follows_the_recipe),
        cmocka_unit_test(linear_avx2_follows_the_recipe),
        cmocka_unit_test(linear_avx512_follows_the_recipe),
        cmocka_unit_test(linear_avx512_without_vnni_follows_the_recipe),
        cmocka_unit_test(linear_amx_follows_the_recipe),
        cmocka_unit_test(linear_rows_are_independent),
        cmocka_unit_test(linear_is_accurate),
        cmocka_unit_test(narrow_is_accurate),
        cmocka_unit_test(linear_agrees_with_openblas),
        cmocka_unit_test(tiers_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
