/* The reference tier: plain C, on every CPU. fmaf rounds once, in hardware or in the C library. */
#include <math.h>

#define NJ_REFERENCE

#include "quant/decode.h"
#include "quant/kernels.h"

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

static inline v16 v16_load_u8(const uint8_t *p)
{
    v16 r;
    for (int i = 0; i < 16; i++) r.v[i] = p[i];
    return r;
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

/* ---- 64 bytes ---- */

typedef union b64 {
    uint8_t byte[64];
    uint16_t half[32];
    uint32_t word[16];
} b64;

static inline b64 b64_load(const void *p)
{
    b64 r;
    memcpy(&r, p, sizeof r);
    return r;
}

static inline void b64_store(void *p, b64 a)
{
    memcpy(p, &a, sizeof a);
}

static inline b64 b64_words(uint32_t word)
{
    b64 r;
    for (int i = 0; i < 16; i++) r.word[i] = word;
    return r;
}

#define EACH(name, member, count, op)                                                                                  \
    static inline b64 name(b64 a, b64 b)                                                                               \
    {                                                                                                                  \
        for (int i = 0; i < (count); i++) a.member[i] = (__typeof__(a.member[0]))(a.member[i] op b.member[i]);         \
        return a;                                                                                                      \
    }
EACH(b64_and, word, 16, &)
EACH(b64_or, word, 16, |)
EACH(b64_xor, word, 16, ^)
EACH(b64_sub8, byte, 64, -)
EACH(b64_sub32, word, 16, -)
#undef EACH

static inline b64 b64_mul16(b64 a, b64 b)
{
    for (int i = 0; i < 32; i++) a.half[i] = (uint16_t)((uint32_t)a.half[i] * b.half[i]);
    return a;
}

static inline b64 b64_mulhi16(b64 a, b64 b)
{
    for (int i = 0; i < 32; i++) a.half[i] = (uint16_t)((uint32_t)a.half[i] * b.half[i] >> 16);
    return a;
}

#define SHIFT(name, member, count, op)                                                                                 \
    static inline b64 name(b64 a, uint32_t n)                                                                          \
    {                                                                                                                  \
        for (int i = 0; i < (count); i++) a.member[i] = (__typeof__(a.member[0]))(a.member[i] op n);                   \
        return a;                                                                                                      \
    }
SHIFT(b64_shr16, half, 32, >>)
SHIFT(b64_shl16, half, 32, <<)
SHIFT(b64_shr32, word, 16, >>)
SHIFT(b64_shl32, word, 16, <<)
#undef SHIFT

static inline b64 b64_test(b64 a, b64 bits, b64 value)
{
    for (int i = 0; i < 64; i++) a.byte[i] = a.byte[i] & bits.byte[i] ? value.byte[i] : 0;
    return a;
}

static inline b64 b64_table(const uint8_t table[16], b64 index)
{
    for (int i = 0; i < 64; i++) index.byte[i] = table[index.byte[i]];
    return index;
}

static inline b64 b64_spread(b64 a, uint32_t byte)
{
    b64 r;
    for (int i = 0; i < 64; i++) r.byte[i] = a.byte[i / 4 * 4 + (int)byte];
    return r;
}

static inline b64 b64_widen_u8(const void *p)
{
    b64 r;
    for (int i = 0; i < 16; i++) r.word[i] = ((const uint8_t *)p)[i];
    return r;
}

static inline b64 b64_widen_u16(const void *p)
{
    b64 r;
    for (int i = 0; i < 16; i++) r.word[i] = ((const struct nj_block_f16 *)p)[i].v;
    return r;
}

static inline b64 b64_plus_minus(b64 a, b64 b, b64 minus, b64 bits)
{
    for (int i = 0; i < 64; i++)
        a.byte[i] = (uint8_t)(minus.byte[i] & bits.byte[i] ? a.byte[i] - b.byte[i] : a.byte[i] + b.byte[i]);
    return a;
}

static inline void b64_pick_eights(const uint64_t *table, const uint16_t *index, b64 *out)
{
    for (int i = 0; i < 16; i++) {
        out[0].word[i] = (uint32_t)table[index[2 * i]];
        out[1].word[i] = (uint32_t)(table[index[2 * i]] >> 32);
    }
}

static inline b64 b64_pick_fours(const uint32_t *table, const uint16_t *index)
{
    b64 r;
    for (int i = 0; i < 16; i++) r.word[i] = table[index[2 * i]];
    return r;
}

static inline v16 v16_from_i32(b64 a)
{
    v16 r;
    for (int i = 0; i < 16; i++) r.v[i] = (float)(int32_t)a.word[i];
    return r;
}

static inline void dot_rows(const b64 *const *code, uint32_t n, const int8_t *const *x, const int32_t *minus, v16 *out,
                            uint32_t panels, uint32_t rows, uint32_t max)
{
    for (uint32_t i = 0; i < panels * rows; i++)
        for (int lane = 0; lane < 16; lane++) {
            int32_t sum = -minus[i % rows];
            for (uint32_t c = 0; c < 4 * n; c++) {
                uint8_t byte = code[i / rows][c / 4].byte[4 * lane + (int)(c % 4)];
                assert(byte <= max);
                sum += byte * x[i % rows][c];
            }
            out[i].v[lane] = (float)sum;
        }
}

#define QUERY_STEP 1
#define PANELS     1
#define ROW_STEP   4
#define ROW_TILE   4
#define PANEL_TILE 1
#include "quant/kernels.inc"

#define KERNELS nj_kernels_scalar
#define TIER    NJ_ISA_SCALAR
#include "quant/kernels_table.inc"
