/* What the AVX-512 tiers (F, BW, VL, DQ; with VNNI or without) share: sixteen floats, or 64 bytes, are a register. */
#ifndef NJ_QUANT_X86_AVX512_H
#define NJ_QUANT_X86_AVX512_H

#include <immintrin.h>
#include <math.h>

#include "quant/kernels.h"
#include "quant/x86/pick.h"
#include "quant/x86/sum.h"

/* Eight sums hide the latency of a product of bytes. Two panels share each broadcast, so that 8 products take 6 loads
 * instead of 9: no gain on Zen 4 (46 of 64 products per cycle either way), but CPUs that start two products per cycle
 * would wait for loads. */
#define QUERY_STEP 12 /* 24 sums, 2 of keys, 1 of a query: 27 of 32 registers */
#define PANELS     2
#define ROW_TILE   4
#define PANEL_TILE 2
#define ROW_STEP   8 /* 8 sums hide the latency of two FMA units */

typedef __m512 v16;

static inline v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}

static inline v16 v16_set1(float x)
{
    return _mm512_set1_ps(x);
}

static inline v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void v16_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}

static inline v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

static inline v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline float v16_sum(v16 a)
{
    return nj_sum8(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}

static inline v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

static inline v16 v16_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

static inline v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

static inline float v16_max_of(v16 a)
{
    return nj_max8(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}

static inline v16 v16_pow2_half(v16 sum)
{
    __m512i n = _mm512_slli_epi32(_mm512_castps_si512(sum), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(126 << 23)));
}

static inline v16 v16_zero_below(v16 x, float least, v16 a)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(least), _CMP_NLT_UQ), a);
}

static inline v16 v16_load_f32(const void *p)
{
    return _mm512_loadu_ps(p);
}

static inline v16 v16_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

static inline v16 v16_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}

static inline v16 v16_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

static inline v16 v16_load_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

static inline void v16_store_f16(void *p, v16 a)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

static inline v16 v16_half(__m256i h)
{
    return _mm512_cvtph_ps(h);
}

static inline v16 v16_short(__m256i n)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(n));
}

#include "quant/x86/turn.h"

/* ---- 64 bytes ---- */

typedef __m512i b64;

static inline b64 b64_load(const void *p)
{
    return _mm512_load_si512(p);
}

static inline void b64_store(void *p, b64 a)
{
    _mm512_store_si512(p, a);
}

static inline b64 b64_words(uint32_t word)
{
    return _mm512_set1_epi32((int)word);
}

#define b64_and(a, b)   _mm512_and_si512(a, b)
#define b64_or(a, b)    _mm512_or_si512(a, b)
#define b64_xor(a, b)   _mm512_xor_si512(a, b)
#define b64_sub8(a, b)  _mm512_sub_epi8(a, b)
#define b64_sub32(a, b) _mm512_sub_epi32(a, b)
#define b64_mul16(a, b) _mm512_mullo_epi16(a, b)
#define b64_mulhi16(a, b) _mm512_mulhi_epu16(a, b)
#define b64_shr16(a, n) _mm512_srli_epi16(a, n)
#define b64_shl16(a, n) _mm512_slli_epi16(a, n)
#define b64_shr32(a, n) _mm512_srli_epi32(a, n)
#define b64_shl32(a, n) _mm512_slli_epi32(a, n)

static inline b64 b64_test(b64 a, b64 bits, b64 value)
{
    return _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(a, bits), value);
}

static inline b64 b64_table(const uint8_t table[16], b64 index)
{
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table)), index);
}

static inline b64 b64_spread(b64 a, uint32_t byte)
{
    b64 at = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
    return _mm512_shuffle_epi8(a, _mm512_add_epi8(at, _mm512_set1_epi8((char)byte)));
}

static inline b64 b64_widen_u8(const void *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(p));
}

static inline b64 b64_widen_u16(const void *p)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
}

static inline b64 b64_plus_minus(b64 a, b64 b, b64 minus, b64 bits)
{
    return _mm512_mask_sub_epi8(_mm512_add_epi8(a, b), _mm512_test_epi8_mask(minus, bits), a, b);
}

/* Loads of 4 or 8 bytes straight into vectors: gathers of Zen 4 take a cycle per element and more. */
static inline __m512i quarters(__m128i a, __m128i b, __m128i c, __m128i d)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(b, a)), _mm256_set_m128i(d, c), 1);
}

static inline void b64_pick_eights(const uint64_t *table, const uint16_t *index, b64 *out)
{
    __m128i q[8];
    UNROLL for (int i = 0; i < 8; i++) q[i] = pick_two(table, index[4 * i], index[4 * i + 2]);
    __m512 a = _mm512_castsi512_ps(quarters(q[0], q[2], q[4], q[6]));
    __m512 b = _mm512_castsi512_ps(quarters(q[1], q[3], q[5], q[7]));
    out[0] = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88));
    out[1] = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd));
}

static inline b64 b64_pick_fours(const uint32_t *table, const uint16_t *index)
{
    return quarters(pick_four(table, index), pick_four(table, index + 8), pick_four(table, index + 16),
                    pick_four(table, index + 24));
}

static inline v16 v16_from_i32(b64 a)
{
    return _mm512_cvtepi32_ps(a);
}

#endif
