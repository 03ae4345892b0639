/* Random matrices, rows and results for the tests of kernels. */
#ifndef NJ_TESTS_KERNEL_DATA_H
#define NJ_TESTS_KERNEL_DATA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

#include "tests/amx_emulated.h"

static uint64_t seed = 88172645463325252u;

static inline uint32_t random_bits(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

/* Uniform in [-1, 1). */
static inline float random_value(void)
{
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

static inline void *allocate(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(p);
    return p;
}

/* What random block bytes stand for: the scales are set apart, as random ones would be NaN or hide small errors. */
enum scales { SCALES_USUAL, SCALES_LARGE, SCALES_TINY, SCALES_ZERO, SCALES_COUNT };

static inline uint16_t random_half(enum scales scales)
{
    static const uint16_t base[SCALES_COUNT] = { 0x2000, 0x6800, 0x0000, 0x0000 }; /* 2^-7, 2^11, subnormal, 0 */
    return scales == SCALES_ZERO ? 0 : (uint16_t)((base[scales] + random_bits() % 0x3ff) | (random_bits() & 0x8000));
}

/* Offsets of the half-precision scales in a block, -1 ends the list. */
static inline const int *scale_offsets(uint32_t type)
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
static inline void random_block(uint32_t type, enum scales scales, uint8_t *block, uint32_t bytes)
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

static inline matrix random_matrix(uint32_t type, uint32_t rows, uint32_t cols)
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

static inline void matrix_free(matrix *m)
{
    free(m->data);
    free(m->values);
}

/* Rows of activations and of results. Each row of y has a guard on both sides; untouched results keep the guard. */
enum { GUARD_FLOATS = 8, ROWS_MAX = 131 }; /* more rows than any kernel keeps the sums of */
static const float guard = -12345.5f;

typedef struct rows {
    uint32_t count, cols, outputs;
    float *x_data, *y_data;
    nj_act_block *q_data;
    uint8_t *bf16_data;
    const void *x[ROWS_MAX];    /* floats */
    const void *bf16[ROWS_MAX]; /* the same rounded by the scalar tier */
    const void *q[ROWS_MAX];    /* likewise; NULL unless cols is a multiple of 32 */
    float *y[ROWS_MAX];
} rows;

static inline rows random_rows(uint32_t count, uint32_t cols, uint32_t outputs)
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
    size_t bf16_stride = nj_acts_bytes(NJ_ACTS_BF16, cols);
    r.bf16_data = allocate(count * bf16_stride);
    memset(r.bf16_data, 0xff, count * bf16_stride); /* past the columns: NaN */
    for (uint32_t i = 0; i < count; i++) {
        r.bf16[i] = r.bf16_data + i * bf16_stride;
        nj_kernels_get(NJ_ISA_SCALAR)->round_bf16(r.x[i], cols, (uint16_t *)(r.bf16_data + i * bf16_stride));
    }
    if (cols % 32) return r;
    r.q_data = allocate(count * nj_acts_bytes(NJ_ACTS_INT8, cols));
    for (uint32_t i = 0; i < count; i++) {
        r.q[i] = r.q_data + (size_t)i * (cols / 32);
        nj_kernels_get(NJ_ISA_SCALAR)->quantize(r.x[i], cols, r.q_data + (size_t)i * (cols / 32));
    }
    return r;
}

static inline void rows_clear(rows *r)
{
    for (size_t i = 0; i < r->count * (size_t)(r->outputs + 2 * GUARD_FLOATS); i++) r->y_data[i] = guard;
}

/* Fails unless all of y but outputs [begin, end) of each row is the guard. */
static inline void assert_guards(const rows *r, uint32_t begin, uint32_t end)
{
    for (uint32_t i = 0; i < r->count; i++)
        for (int o = -GUARD_FLOATS; o < (int)r->outputs + GUARD_FLOATS; o++)
            if (o < (int)begin || o >= (int)end) assert_true(r->y[i][o] == guard);
}

static inline void rows_free(rows *r)
{
    free(r->x_data);
    free(r->y_data);
    free(r->q_data);
    free(r->bf16_data);
}

static inline bool same_bits(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

/* Columns for a type: one block, and a count that leaves a part tile. */
static inline uint32_t cols_for(uint32_t type, bool wide)
{
    uint32_t weights = 0, bytes = 0;
    nj_format_size(type, &weights, &bytes);
    return weights == 1 ? (wide ? 263 : 7) : weights == 32 ? (wide ? 352 : 32) : wide ? 512 : 256;
}

/* A test of one tier, or a visible skip. */
static inline const nj_kernels *tier(nj_isa isa, const char *test)
{
    const nj_kernels *k = nj_kernels_get(isa);
    if (!k) {
        printf("SKIP %s: this CPU or OS can't run %s\n", test, nj_isa_name(isa));
        skip();
    }
    assert_int_equal(k->isa, isa);
    return k;
}

#endif
