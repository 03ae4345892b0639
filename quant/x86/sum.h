/* What the AVX2 and AVX-512 tiers share. */
#ifndef NJ_QUANT_X86_SUM_H
#define NJ_QUANT_X86_SUM_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* Lanes i + (i + 4), then 2 and 1 apart. */
static inline float nj_sum8(__m256 v)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float nj_max8(__m256 v)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

#endif
