/* The wide recipe: over emulated tiles bit for bit as the manual's order of sums says, on hardware within the rounding
 * of BF16 and F32. */
#include <float.h>
#include <math.h>

#include "tests/kernel_data.h"

static float flushed(float x)
{
    return fabsf(x) < FLT_MIN ? 0.0f * x : x;
}

static float bf16(uint16_t h)
{
    return flushed(nj_bf16_to_f32(h));
}

/* One output: 32 columns are two sums of 16, by even and odd columns; these are added up over 256 columns, from zero,
 * with denormals as zero; then over all. */
static float recipe(const float *w, const uint16_t *x, uint32_t cols)
{
    float y = 0;
    for (uint32_t chunk = 0; chunk < cols; chunk += 256) {
        float total = 0;
        for (uint32_t step = chunk; step < cols && step < chunk + 256; step += 32) {
            float sum[2] = { 0 };
            for (uint32_t c = step; c < cols && c < step + 32; c++)
                sum[c % 2] = flushed(fmaf(bf16(x[c]), bf16(nj_f32_to_bf16(flushed(w[c]))), sum[c % 2]));
            total = flushed(total + flushed(sum[0] + sum[1]));
        }
        y += total;
    }
    return y;
}

/* Rounded weights by rounded activations in double. The error is that of the F32 sums, and FLT_MIN for each factor,
 * product and sum that may count as 0. */
static bool is_near(float got, const float *w, const uint16_t *x, uint32_t cols)
{
    double sum = 0, size = 0, lost = 0;
    for (uint32_t c = 0; c < cols; c++) {
        double a = (double)nj_bf16_to_f32(nj_f32_to_bf16(w[c])), b = (double)nj_bf16_to_f32(x[c]);
        sum += a * b;
        size += fabs(a * b);
        lost += (fabs(a) + fabs(b) + 4) * (double)FLT_MIN;
    }
    return fabs(sum - (double)got) <= size * (cols / 16 + 20) * FLT_EPSILON + lost;
}

static void check_rows(const nj_kernels *k, uint32_t type, const matrix *m, const rows *r, uint32_t begin,
                       uint32_t last, bool exact)
{
    for (uint32_t row = 0; row < r->count; row++)
        for (uint32_t o = begin; o < last; o++) {
            const float *w = m->values + (size_t)o * r->cols, got = r->y[row][o];
            float want = recipe(w, r->bf16[row], r->cols);
            if (!is_near(got, w, r->bf16[row], r->cols) || (exact && !same_bits(&got, &want, 1)))
                fail_msg("%s %s: row %u of %u, output %u of %u, %u columns: %.9g, not %.9g", nj_isa_name(k->isa),
                         nj_format_name(type), row, r->count, o, m->w.rows, r->cols, (double)got, (double)want);
        }
}

/* A shape to try; panels [begin, end) are asked for. Columns are rounded up to the type's blocks. */
typedef struct shape {
    uint32_t outputs, rows, cols, begin, end;
} shape;

static void check_shape(const nj_kernels *k, uint32_t type, shape s, bool exact)
{
    uint32_t weights = 0, bytes = 0;
    nj_format_size(type, &weights, &bytes);
    s.cols = (s.cols + weights - 1) / weights * weights;
    matrix m = random_matrix(type, s.outputs, s.cols);
    rows r = random_rows(s.rows, s.cols, s.outputs);
    uint32_t last = 16 * s.end < s.outputs ? 16 * s.end : s.outputs;
    rows_clear(&r);
    k->linear_wide[type](&m.w, s.begin, s.end, r.bf16, r.y, r.count);
    assert_guards(&r, 16 * s.begin, last);
    check_rows(k, type, &m, &r, 16 * s.begin, last, exact);
    rows_free(&r);
    matrix_free(&m);
}

/* All formats and numbers of rows and panels in a block, odd columns, several chunks; more panels than a group has. */
static void check_wide(const nj_kernels *k, bool exact)
{
    static const shape shapes[] = { { 1, 1, 1, 0, 1 },      { 16, 2, 31, 0, 1 },   { 37, 15, 263, 0, 3 },
                                    { 37, 16, 352, 1, 2 },  { 48, 17, 256, 1, 3 }, { 80, 32, 97, 0, 4 },
                                    { 80, 33, 1023, 1, 5 }, { 33, 67, 544, 0, 3 } };
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++) {
        assert_int_equal(k->linear_wide[type] != NULL, k->linear[type] != NULL && type != NJ_F32);
        for (size_t i = 0; k->linear_wide[type] && i < sizeof shapes / sizeof *shapes; i++)
            check_shape(k, type, shapes[i], exact);
    }
    check_shape(k, NJ_Q4_K, (shape){ 16 * 70 - 3, 20, 512, 1, 70 }, exact);
}

static void wide_emulated_amx_follows_the_recipe(void **state)
{
    (void)state;
    check_wide(emulated_amx(__func__), true);
}

static void wide_amx_is_accurate(void **state)
{
    (void)state;
    check_wide(tier(NJ_ISA_AMX, __func__), false);
}

/* Every number of rows from 1 to 40, panels one by one or all at once, rows anywhere in memory: the same bits. */
static void check_independence(const nj_kernels *k)
{
    static const uint32_t types[] = { NJ_Q4_K, NJ_Q6_K, NJ_Q8_0, NJ_BF16, NJ_F16 };
    enum { N = 83, COLS = 512, COUNT = 40 };
    for (int t = 0; t < 5; t++) {
        matrix m = random_matrix(types[t], N, COLS);
        rows all = random_rows(COUNT, COLS, N), part = random_rows(COUNT, COLS, N);
        k->linear_wide[types[t]](&m.w, 0, 6, all.bf16, all.y, COUNT);
        for (uint32_t count = 1; count <= COUNT; count++) {
            const void *x[COUNT];
            for (uint32_t i = 0; i < count; i++) x[i] = all.bf16[i * 7 % COUNT];
            for (uint32_t p = 0; p < 6; p += 1 + count % 2)
                k->linear_wide[types[t]](&m.w, p, p + 1 + count % 2, x, part.y, count);
            for (uint32_t i = 0; i < count; i++) assert_true(same_bits(part.y[i], all.y[i * 7 % COUNT], N));
        }
        rows_free(&part);
        rows_free(&all);
        matrix_free(&m);
    }
}

static void wide_emulated_amx_rows_are_independent(void **state)
{
    (void)state;
    check_independence(emulated_amx(__func__));
}

static void wide_amx_rows_are_independent(void **state)
{
    (void)state;
    check_independence(tier(NJ_ISA_AMX, __func__));
}

/* Infinite and NaN activations reach the outputs of their own row alone. */
static void check_not_finite(const nj_kernels *k)
{
    enum { N = 32, COLS = 256, COUNT = 5 };
    matrix m = random_matrix(NJ_Q8_0, N, COLS);
    rows r = random_rows(COUNT, COLS, N);
    uint16_t *x = (uint16_t *)r.bf16_data;
    x[1 * COLS + 9] = nj_f32_to_bf16(INFINITY);
    x[3 * COLS + 200] = nj_f32_to_bf16(NAN);
    k->linear_wide[NJ_Q8_0](&m.w, 0, 2, r.bf16, r.y, COUNT);
    for (uint32_t row = 0; row < COUNT; row++)
        for (uint32_t o = 0; o < N; o++) assert_true(isfinite(r.y[row][o]) == (row != 1 && row != 3));
    rows_free(&r);
    matrix_free(&m);
}

static void wide_emulated_amx_keeps_what_is_not_finite(void **state)
{
    (void)state;
    check_not_finite(emulated_amx(__func__));
}

static void wide_amx_keeps_what_is_not_finite(void **state)
{
    (void)state;
    check_not_finite(tier(NJ_ISA_AMX, __func__));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wide_emulated_amx_follows_the_recipe),
        cmocka_unit_test(wide_emulated_amx_rows_are_independent),
        cmocka_unit_test(wide_emulated_amx_keeps_what_is_not_finite),
        cmocka_unit_test(wide_amx_is_accurate),
        cmocka_unit_test(wide_amx_rows_are_independent),
        cmocka_unit_test(wide_amx_keeps_what_is_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
