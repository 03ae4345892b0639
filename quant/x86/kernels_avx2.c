/* AVX2, FMA and F16C: sixteen floats are two registers. */
#include <immintrin.h>
#include <math.h>

#include "quant/x86/transpose.h"

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

#define QUERY_STEP 6 /* 12 sums, 2 of keys, 1 of a query: 15 of 16 registers */
#define PANELS     1
#define ROW_STEP   4 /* 8 sums, 2 of weights, 1 of x: 11 of 16 registers */
#include "quant/kernels.inc"

#define KERNELS nj_kernels_avx2
#define TIER    NJ_ISA_AVX2
#include "quant/kernels_table.inc"
