/* Sixteen cached keys turned so that each lane holds one: out[j][k] = column j of key k, for 8 columns j. Shared by the
 * AVX2 and AVX-512 tiers, which define v16_half() and v16_short() before: floats of sixteen halves, and of sixteen
 * integers of 16 bits. Eight registers hold eight columns of keys k and k + 8 in their halves; numbers are turned as 16
 * bits and become floats afterwards, with half the shuffles that floats would need. */
#ifndef NJ_QUANT_X86_TURN_H
#define NJ_QUANT_X86_TURN_H

#include "quant/formats.h"

static inline __attribute__((always_inline)) void nj_turn8(__m256i r[8])
{
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++) { /* pairs of keys */
        a[i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);     /* columns 0..3 */
        a[4 + i] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]); /* 4..7 */
    }
    for (int i = 0; i < 4; i++) { /* fours of keys, two columns each */
        b[2 * i] = _mm256_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    /* b: columns 01 and 23 of keys 0..3, then of keys 4..7; the same of columns 45 and 67 */
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            r[4 * i + 2 * j] = _mm256_unpacklo_epi64(b[4 * i + j], b[4 * i + 2 + j]);
            r[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(b[4 * i + j], b[4 * i + 2 + j]);
        }
}

static inline __attribute__((always_inline)) void v16_turn_f16(const uint8_t *keys, size_t stride, float *out)
{
    __m256i r[8];
    for (int k = 0; k < 8; k++) {
        const uint8_t *at = keys + k * stride;
        r[k] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)at)),
                                       _mm_loadu_si128((const __m128i *)(at + 8 * stride)), 1);
    }
    nj_turn8(r);
    for (int j = 0; j < 8; j++) v16_store(out + 16 * j, v16_half(r[j]));
}

/* keys: sixteen blocks, `stride` bytes apart; columns [c, c + 8) of them */
static inline __attribute__((always_inline)) void v16_turn_q8_0(const uint8_t *keys, size_t stride, uint32_t c,
                                                                float *out)
{
    __m256i r[8];
    uint16_t half[16];
    for (int k = 0; k < 8; k++) {
        const struct nj_block_q8_0 *lo = (const void *)(keys + k * stride);
        const struct nj_block_q8_0 *hi = (const void *)(keys + (k + 8) * stride);
        __m128i q = _mm_loadl_epi64((const __m128i *)(lo->qs + c));
        r[k] = _mm256_cvtepi8_epi16(_mm_unpacklo_epi64(q, _mm_loadl_epi64((const __m128i *)(hi->qs + c))));
        half[k] = lo->d;
        half[k + 8] = hi->d;
    }
    v16 d = v16_load_f16(half);
    nj_turn8(r);
    for (int j = 0; j < 8; j++) v16_store(out + 16 * j, v16_mul(d, v16_short(r[j])));
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

static inline void v16_turn_f32(const uint8_t *keys, size_t stride, float *out)
{
    const float *rows = (const float *)(const void *)keys;
    v16_transpose8(rows, stride / sizeof *rows, 8, out);
    v16_transpose8(rows + 8 * (stride / sizeof *rows), stride / sizeof *rows, 8, out + 8);
}

#endif
