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

#define ROW_STEP 4
#include "quant/kernels.inc"

#define KERNELS nj_kernels_scalar
#define TIER    NJ_ISA_SCALAR
#include "quant/kernels_table.inc"
