/* Kernels: each tier against the scalar reference, bit for bit, and the reference against a product in double and
 * against OpenBLAS. */
#include <float.h>
#include <math.h>
#include <cblas.h>

#include "tests/kernel_data.h"

/* The rows in the form that a type's narrow recipe takes. */
static const void *const *rows_for(const rows *r, uint32_t type)
{
    return nj_acts_of(type) == NJ_ACTS_INT8 ? r->q : r->x;
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

/* Blocks of one byte over and over, but for their scales, times activations of one sign that are as large as they can
 * be: sums in 16 bits come as near to their end as they ever do. */
static void check_saturation_of(const nj_kernels *k, uint32_t type, uint8_t byte, float sign)
{
    enum { COLS = 512, COUNT = 12 };
    uint32_t weights = 0, bytes = 0;
    nj_format_size(type, &weights, &bytes);
    uint64_t row_bytes = nj_row_bytes(type, COLS);
    uint8_t *blocks = allocate(16 * row_bytes), *panel = allocate(nj_panel_bytes(type, COLS));
    for (uint64_t at = 0; at < 16 * row_bytes; at += bytes) {
        static const uint16_t one = 0x3c00;
        memset(blocks + at, byte, bytes);
        for (const int *scale = scale_offsets(type); *scale >= 0; scale++)
            memcpy(blocks + at + *scale, &one, sizeof one);
        if (type == NJ_MXFP4) blocks[at] = 120;
        if (type == NJ_IQ1_M) /* as in random_block */
            for (int w = 0; w < 4; w++) blocks[at + 49 + 2 * w] = (uint8_t)((byte & 15) | (one >> (4 * w) & 15) << 4);
    }
    nj_panel_pack(type, blocks, 16, COLS, panel);
    const nj_panels w = { panel, type, 16, COLS };
    rows r = random_rows(COUNT, COLS, 16), want = random_rows(COUNT, COLS, 16);
    for (uint32_t i = 0; i <= COUNT * COLS; i++) r.x_data[i] = sign;
    for (uint32_t i = 0; i < COUNT; i++) k->quantize(r.x[i], COLS, r.q_data + (size_t)i * (COLS / 32));
    for (uint32_t count = 1; count <= COUNT; count += COUNT - 1) {
        k->linear[type](&w, 0, 1, r.q, r.y, count);
        nj_kernels_get(NJ_ISA_SCALAR)->linear[type](&w, 0, 1, r.q, want.y, count);
        for (uint32_t i = 0; i < count; i++)
            if (!same_bits(r.y[i], want.y[i], 16))
                fail_msg("%s %s: bytes %02x, %u rows: %.9g, the reference has %.9g", nj_isa_name(k->isa),
                         nj_format_name(type), byte, count, (double)r.y[i][0], (double)want.y[i][0]);
    }
    rows_free(&want);
    rows_free(&r);
    free(panel);
    free(blocks);
}

static void check_saturation(const nj_kernels *k)
{
    static const uint8_t byte[] = { 0x00, 0x0f, 0x55, 0x7f, 0x80, 0x81, 0xaa, 0xf0, 0xff };
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++)
        for (size_t i = 0; i < sizeof byte && k->linear[type] && nj_acts_of(type) == NJ_ACTS_INT8; i++) {
            check_saturation_of(k, type, byte[i], 1.0f);
            check_saturation_of(k, type, byte[i], -1.0f);
        }
}

static void check_linear(const nj_kernels *k)
{
    check_f32(k);
    check_narrow(k);
    check_saturation(k);
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

/* The AMX tier without AMX. */
static void linear_emulated_amx_follows_the_recipe(void **state)
{
    (void)state;
    check_linear(emulated_amx(__func__));
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
        cmocka_unit_test(linear_emulated_amx_follows_the_recipe),
        cmocka_unit_test(linear_amx_follows_the_recipe),
        cmocka_unit_test(linear_rows_are_independent),
        cmocka_unit_test(linear_is_accurate),
        cmocka_unit_test(narrow_is_accurate),
        cmocka_unit_test(linear_agrees_with_openblas),
        cmocka_unit_test(tiers_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
