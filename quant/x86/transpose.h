/* Shuffles that the AVX2 and AVX-512 tiers share. */
#ifndef NJ_QUANT_X86_TRANSPOSE_H
#define NJ_QUANT_X86_TRANSPOSE_H

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

/* tile[c * 16 + r] = rows[r * stride + c] for r < 8, four columns at a time. Each 256-bit register is loaded as halves
 * of two rows four apart, so that shuffles within 128 bits do the rest. */
static inline void v16_transpose8(const float *rows, size_t stride, uint32_t cols, float *tile)
{
    for (uint32_t c = 0; c < cols; c += 4) {
        __m256 r[4];
        for (int i = 0; i < 4; i++) {
            const float *at = rows + i * stride + c;
            r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)), _mm_loadu_ps(at + 4 * stride), 1);
        }
        __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
        __m256 d = _mm256_unpacklo_ps(r[2], r[3]), e = _mm256_unpackhi_ps(r[2], r[3]);
        _mm256_storeu_ps(tile + 16 * c, _mm256_shuffle_ps(a, d, 0x44));
        _mm256_storeu_ps(tile + 16 * c + 16, _mm256_shuffle_ps(a, d, 0xee));
        _mm256_storeu_ps(tile + 16 * c + 32, _mm256_shuffle_ps(b, e, 0x44));
        _mm256_storeu_ps(tile + 16 * c + 48, _mm256_shuffle_ps(b, e, 0xee));
    }
}

#endif
