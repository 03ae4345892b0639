/* AVX-512 (F, BW, VL, DQ): sixteen floats are one register. */
#include <immintrin.h>
#include <math.h>

#include "quant/x86/transpose.h"

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

#define QUERY_STEP 12 /* 24 sums, 2 of keys, 1 of a query: 27 of 32 registers */
#define PANELS     2
#define ROW_STEP   8 /* 8 sums hide the latency of two FMA units */
#include "quant/kernels.inc"

#define KERNELS nj_kernels_avx512
#define TIER    NJ_ISA_AVX512
#include "quant/kernels_table.inc"

/* The AMX tier is granted and named apart, but for now computes with these same AVX-512 kernels: no tile instruction
 * is used yet. */
#define KERNELS nj_kernels_amx
#define TIER    NJ_ISA_AMX
#include "quant/kernels_table.inc"
