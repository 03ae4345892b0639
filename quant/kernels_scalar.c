/* The reference tier: plain C, on every CPU. fmaf rounds once, in hardware or in the C library. */
#include <math.h>

#include "quant/decode.h"

typedef struct v16 {
    float v[16];
} v16;

static inline v16 v16_set1(float x)
{
    v16 r;
    for (int i = 0; i < 16; i++) r.v[i] = x;
    return r;
}

static inline v16 v16_zero(void)
{
    return v16_set1(0.0f);
}

static inline v16 v16_load(const float *p)
{
    v16 r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}

static inline void v16_store(float *p, v16 a)
{
    memcpy(p, a.v, sizeof a.v);
}

static inline v16 v16_add(v16 a, v16 b)
{
    for (int i = 0; i < 16; i++) a.v[i] += b.v[i];
    return a;
}

static inline v16 v16_mul(v16 a, v16 b)
{
    for (int i = 0; i < 16; i++) a.v[i] *= b.v[i];
    return a;
}

static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    for (int i = 0; i < 16; i++) c.v[i] = fmaf(a.v[i], b.v[i], c.v[i]);
    return c;
}

static inline float v16_sum(v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++) a.v[i] += a.v[i + half];
    return a.v[0];
}

static inline v16 v16_div(v16 a, v16 b)
{
    for (int i = 0; i < 16; i++) a.v[i] /= b.v[i];
    return a;
}

static inline v16 v16_min(v16 a, v16 b)
{
    for (int i = 0; i < 16; i++) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}

static inline v16 v16_max(v16 a, v16 b)
{
    for (int i = 0; i < 16; i++) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}

static inline float v16_max_of(v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
    return a.v[0];
}

static inline v16 v16_pow2_half(v16 sum)
{
    for (int i = 0; i < 16; i++) sum.v[i] = nj_bits_f32((nj_f32_bits(sum.v[i]) << 23) + (126u << 23));
    return sum;
}

static inline v16 v16_zero_below(v16 x, float least, v16 a)
{
    for (int i = 0; i < 16; i++) a.v[i] = x.v[i] < least ? 0.0f : a.v[i];
    return a;
}

static inline v16 v16_load_f32(const void *p)
{
    return v16_load(p);
}

static inline v16 v16_load_f16(const void *p)
{
    const struct nj_block_f16 *h = p;
    v16 r;
    for (int i = 0; i < 16; i++) r.v[i] = nj_half(h[i].v);
    return r;
}

static inline v16 v16_load_bf16(const void *p)
{
    const struct nj_block_bf16 *h = p;
    v16 r;
    for (int i = 0; i < 16; i++) r.v[i] = nj_brain(h[i].v);
    return r;
}

static inline v16 v16_load_i8(const int8_t *p)
{
    v16 r;
    for (int i = 0; i < 16; i++) r.v[i] = p[i];
    return r;
}

static inline void v16_store_f16(void *p, v16 a)
{
    struct nj_block_f16 *h = p;
    for (int i = 0; i < 16; i++) h[i].v = nj_to_half(a.v[i]);
}

static inline void v16_transpose8(const float *rows, size_t stride, uint32_t cols, float *tile)
{
    for (uint32_t c = 0; c < cols; c++)
        for (uint32_t r = 0; r < 8; r++) tile[c * 16 + r] = rows[r * stride + c];
}

static inline void v16_turn_f32(const uint8_t *keys, size_t stride, float *out)
{
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++) memcpy(out + 16 * j + k, keys + k * stride + 4 * j, sizeof *out);
}

static inline void v16_turn_f16(const uint8_t *keys, size_t stride, float *out)
{
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++) out[16 * j + k] = nj_half(((const struct nj_block_f16 *)(keys + k * stride))[j].v);
}

static inline void v16_turn_q8_0(const uint8_t *keys, size_t stride, uint32_t c, float *out)
{
    for (int k = 0; k < 16; k++) {
        const struct nj_block_q8_0 *b = (const void *)(keys + k * stride);
        for (uint32_t j = 0; j < 8; j++) out[16 * j + (uint32_t)k] = nj_half(b->d) * b->qs[c + j];
    }
}

#define QUERY_STEP 1
#define PANELS     1
#define ROW_STEP   4
#include "quant/kernels.inc"

#define KERNELS nj_kernels_scalar
#define TIER    NJ_ISA_SCALAR
#include "quant/kernels_table.inc"
