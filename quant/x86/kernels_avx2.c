/* AVX2, FMA and F16C: sixteen floats are two registers. */
#include <immintrin.h>
#include <math.h>

#include "quant/kernels.h"
#include "quant/x86/pick.h"
#include "quant/x86/sum.h"

#define QUERY_STEP 6 /* 12 sums, 2 of keys, 1 of a query: 15 of 16 registers */
#define PANELS     1
#define ROW_TILE   4
#define PANEL_TILE 1
#define ROW_STEP   4 /* 8 sums, 2 of weights, 1 of x: 11 of 16 registers */

typedef struct v16 {
    __m256 lo, hi;
} v16;

static inline v16 v16_zero(void)
{
    return (v16){ _mm256_setzero_ps(), _mm256_setzero_ps() };
}

static inline v16 v16_set1(float x)
{
    __m256 v = _mm256_set1_ps(x);
    return (v16){ v, v };
}

static inline v16 v16_load(const float *p)
{
    return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}

static inline void v16_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

static inline v16 v16_add(v16 a, v16 b)
{
    return (v16){ _mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi) };
}

static inline v16 v16_mul(v16 a, v16 b)
{
    return (v16){ _mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi) };
}

static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){ _mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi) };
}

static inline float v16_sum(v16 a)
{
    return nj_sum8(_mm256_add_ps(a.lo, a.hi));
}

static inline v16 v16_div(v16 a, v16 b)
{
    return (v16){ _mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi) };
}

static inline v16 v16_min(v16 a, v16 b)
{
    return (v16){ _mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi) };
}

static inline v16 v16_max(v16 a, v16 b)
{
    return (v16){ _mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi) };
}

static inline float v16_max_of(v16 a)
{
    return nj_max8(_mm256_max_ps(a.lo, a.hi));
}

static inline __m256 pow2_half8(__m256 sum)
{
    __m256i n = _mm256_slli_epi32(_mm256_castps_si256(sum), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(126 << 23)));
}

static inline v16 v16_pow2_half(v16 sum)
{
    return (v16){ pow2_half8(sum.lo), pow2_half8(sum.hi) };
}

static inline v16 v16_zero_below(v16 x, float least, v16 a)
{
    __m256 l = _mm256_set1_ps(least);
    return (v16){ _mm256_and_ps(_mm256_cmp_ps(x.lo, l, _CMP_NLT_UQ), a.lo),
                  _mm256_and_ps(_mm256_cmp_ps(x.hi, l, _CMP_NLT_UQ), a.hi) };
}

static inline v16 v16_load_f32(const void *p)
{
    return v16_load(p);
}

static inline v16 v16_load_f16(const void *p)
{
    const __m128i *h = p;
    return (v16){ _mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1)) };
}

static inline v16 v16_load_bf16(const void *p)
{
    const __m128i *h = p;
    __m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128(h)), hi = _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1));
    return (v16){ _mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16)) };
}

static inline v16 v16_load_i8(const int8_t *p)
{
    __m128i q = _mm_loadu_si128((const __m128i *)p);
    return (v16){ _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
                  _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8))) };
}

static inline v16 v16_load_u8(const uint8_t *p)
{
    __m128i q = _mm_loadu_si128((const __m128i *)p);
    return (v16){ _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(q)),
                  _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(q, 8))) };
}

static inline void v16_store_f16(void *p, v16 a)
{
    _mm_storeu_si128(p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)p + 1, _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}

static inline v16 v16_half(__m256i h)
{
    return (v16){ _mm256_cvtph_ps(_mm256_castsi256_si128(h)), _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)) };
}

static inline v16 v16_short(__m256i n)
{
    return (v16){ _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(n))),
                  _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(n, 1))) };
}

#include "quant/x86/turn.h"

/* ---- 64 bytes: two registers ---- */

typedef struct b64 {
    __m256i lo, hi;
} b64;

static inline b64 b64_load(const void *p)
{
    return (b64){ _mm256_load_si256(p), _mm256_load_si256((const __m256i *)p + 1) };
}

static inline void b64_store(void *p, b64 a)
{
    _mm256_store_si256(p, a.lo);
    _mm256_store_si256((__m256i *)p + 1, a.hi);
}

static inline b64 b64_words(uint32_t word)
{
    __m256i v = _mm256_set1_epi32((int)word);
    return (b64){ v, v };
}

#define EACH2(name, op)                                                                                                \
    static inline b64 name(b64 a, b64 b)                                                                               \
    {                                                                                                                  \
        return (b64){ op(a.lo, b.lo), op(a.hi, b.hi) };                                                                \
    }
EACH2(b64_and, _mm256_and_si256)
EACH2(b64_or, _mm256_or_si256)
EACH2(b64_xor, _mm256_xor_si256)
EACH2(b64_sub8, _mm256_sub_epi8)
EACH2(b64_sub32, _mm256_sub_epi32)
EACH2(b64_mul16, _mm256_mullo_epi16)
EACH2(b64_mulhi16, _mm256_mulhi_epu16)
#undef EACH2

#define SHIFT(name, op)                                                                                                \
    static inline b64 name(b64 a, uint32_t n)                                                                          \
    {                                                                                                                  \
        return (b64){ op(a.lo, (int)n), op(a.hi, (int)n) };                                                            \
    }
SHIFT(b64_shr16, _mm256_srli_epi16)
SHIFT(b64_shl16, _mm256_slli_epi16)
SHIFT(b64_shr32, _mm256_srli_epi32)
SHIFT(b64_shl32, _mm256_slli_epi32)
#undef SHIFT

static inline b64 b64_test(b64 a, b64 bits, b64 value)
{
    __m256i zero = _mm256_setzero_si256();
    return (b64){ _mm256_andnot_si256(_mm256_cmpeq_epi8(_mm256_and_si256(a.lo, bits.lo), zero), value.lo),
                  _mm256_andnot_si256(_mm256_cmpeq_epi8(_mm256_and_si256(a.hi, bits.hi), zero), value.hi) };
}

static inline b64 b64_table(const uint8_t table[16], b64 index)
{
    __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return (b64){ _mm256_shuffle_epi8(t, index.lo), _mm256_shuffle_epi8(t, index.hi) };
}

static inline b64 b64_spread(b64 a, uint32_t byte)
{
    __m256i at = _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    at = _mm256_add_epi8(at, _mm256_set1_epi8((char)byte));
    return (b64){ _mm256_shuffle_epi8(a.lo, at), _mm256_shuffle_epi8(a.hi, at) };
}

static inline b64 b64_widen_u8(const void *p)
{
    __m128i q = _mm_loadu_si128(p);
    return (b64){ _mm256_cvtepu8_epi32(q), _mm256_cvtepu8_epi32(_mm_srli_si128(q, 8)) };
}

static inline b64 b64_widen_u16(const void *p)
{
    const __m128i *h = p;
    return (b64){ _mm256_cvtepu16_epi32(_mm_loadu_si128(h)), _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1)) };
}

static inline __m256i plus_minus(__m256i a, __m256i b, __m256i minus, __m256i bits)
{
    __m256i negate = _mm256_cmpeq_epi8(_mm256_and_si256(minus, bits), bits);
    return _mm256_add_epi8(a, _mm256_sub_epi8(_mm256_xor_si256(b, negate), negate));
}

static inline b64 b64_plus_minus(b64 a, b64 b, b64 minus, b64 bits)
{
    return (b64){ plus_minus(a.lo, b.lo, minus.lo, bits.lo), plus_minus(a.hi, b.hi, minus.hi, bits.hi) };
}

static inline void b64_pick_eights(const uint64_t *table, const uint16_t *index, b64 *out)
{
    __m128i q[8];
    __m256i even[2], odd[2];
    UNROLL for (int i = 0; i < 8; i++) q[i] = pick_two(table, index[4 * i], index[4 * i + 2]);
    UNROLL for (int i = 0; i < 2; i++)
    {
        __m256 a = _mm256_castsi256_ps(_mm256_set_m128i(q[4 * i + 2], q[4 * i]));
        __m256 b = _mm256_castsi256_ps(_mm256_set_m128i(q[4 * i + 3], q[4 * i + 1]));
        even[i] = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
        odd[i] = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
    }
    out[0] = (b64){ even[0], even[1] };
    out[1] = (b64){ odd[0], odd[1] };
}

static inline b64 b64_pick_fours(const uint32_t *table, const uint16_t *index)
{
    return (b64){ _mm256_set_m128i(pick_four(table, index + 8), pick_four(table, index)),
                  _mm256_set_m128i(pick_four(table, index + 24), pick_four(table, index + 16)) };
}

static inline v16 v16_from_i32(b64 a)
{
    return (v16){ _mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi) };
}

/* Pairs of products are summed in 16 bits (vpmaddubsw) as long as they can't overflow, then in 32. A code is the first,
 * unsigned factor: bytes above 127 would saturate, so these become signed, and their sign goes over to x. */
static inline __m256i pair_products(__m256i code, __m256i x, const uint32_t max)
{
    if (max <= 127) return _mm256_maddubs_epi16(code, x);
    code = _mm256_xor_si256(code, _mm256_set1_epi8((char)0x80));
    return _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(x, code));
}

INLINE void dot_rows(const b64 *const *code, const uint32_t n, const int8_t *const *x, const int32_t *minus, v16 *out,
                     const uint32_t panels, const uint32_t rows, const uint32_t max)
{
    const uint32_t fit = max <= 15 ? 8 : max <= 31 ? 4 : max <= 63 ? 2 : 1; /* 2 * max * 127 * fit < 2^15 */
    const uint32_t depth = fit < n ? fit : n;
    const __m256i one = _mm256_set1_epi16(1);
    b64 sum[PANEL_TILE * ROW_TILE], pair[PANEL_TILE * ROW_TILE];
    UNROLL for (uint32_t i = 0; i < panels * rows; i++) sum[i] = b64_words(max <= 127 ? -(uint32_t)minus[i % rows] : 0);
    UNROLL for (uint32_t k = 0; k < n; k++)
    {
        UNROLL for (uint32_t i = 0; i < panels * rows; i++)
        {
            __m256i v = _mm256_set1_epi32(four_bytes(x[i % rows] + 4 * k));
            b64 c = code[i / rows][k];
            __m256i lo = pair_products(c.lo, v, max), hi = pair_products(c.hi, v, max);
            pair[i].lo = k % depth == 0 ? lo : _mm256_add_epi16(pair[i].lo, lo);
            pair[i].hi = k % depth == 0 ? hi : _mm256_add_epi16(pair[i].hi, hi);
            if (k % depth < depth - 1) continue;
            sum[i].lo = _mm256_add_epi32(sum[i].lo, _mm256_madd_epi16(pair[i].lo, one));
            sum[i].hi = _mm256_add_epi32(sum[i].hi, _mm256_madd_epi16(pair[i].hi, one));
        }
    }
    UNROLL for (uint32_t i = 0; i < panels * rows; i++) out[i] = v16_from_i32(sum[i]);
}

#include "quant/kernels.inc"

#define KERNELS nj_kernels_avx2
#define TIER    NJ_ISA_AVX2
#include "quant/kernels_table.inc"
