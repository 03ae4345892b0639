/* The exact values of one block of each format, as static functions that every ISA compiles for itself.
 * Products and sums are in the order that defines the value: the Makefile turns contraction off, so all builds agree.
 * Loops are written for the compiler's vectoriser: straight bodies, constant counts, no aliasing. */
#ifndef NJ_QUANT_DECODE_H
#define NJ_QUANT_DECODE_H

#include "quant/formats.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* gcc would unroll a short loop whole before it looks for vectors, and then find none. */
#ifdef __clang__
#define NJ_LOOP
#else
#define NJ_LOOP _Pragma("GCC unroll 1")
#endif

#ifdef __AVX2__
/* Sixteen signed bytes times scale, where the compiler finds no good code of its own. */
static inline void nj_put16(__m128i bytes, float scale, float *out)
{
    __m256i lo = _mm256_cvtepi8_epi32(bytes), hi = _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8));
    _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(lo)));
    _mm256_storeu_ps(out + 8, _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(hi)));
}
#endif

static inline void nj_decode_f32(const struct nj_block_f32 *b, float *restrict out)
{
    *out = b->v;
}

static inline void nj_decode_f16(const struct nj_block_f16 *b, float *restrict out)
{
    *out = nj_half(b->v);
}

static inline void nj_decode_bf16(const struct nj_block_bf16 *b, float *restrict out)
{
    *out = nj_brain(b->v);
}

/* ---- 32 weights ---- */

/* 32 values scale * table[nibble], in the order of the 32-weight formats. */
static inline void nj_decode_table(const int8_t *table, float scale, const uint8_t *qs, float *restrict out)
{
#ifdef __AVX2__
    __m128i t = _mm_loadu_si128((const __m128i *)table), q = _mm_loadu_si128((const __m128i *)qs);
    __m128i nibble = _mm_set1_epi8(15);
    nj_put16(_mm_shuffle_epi8(t, _mm_and_si128(q, nibble)), scale, out);
    nj_put16(_mm_shuffle_epi8(t, _mm_and_si128(_mm_srli_epi16(q, 4), nibble)), scale, out + 16);
#else
    NJ_LOOP for (int j = 0; j < 16; j++) out[j] = scale * (float)table[qs[j] & 15];
    NJ_LOOP for (int j = 0; j < 16; j++) out[j + 16] = scale * (float)table[qs[j] >> 4];
#endif
}

/* Quants of Q5_0 and Q5_1: a nibble and, from `qh`, the fifth bit. */
static inline void nj_quants_q5(const uint8_t *qh, const uint8_t *qs, int32_t *restrict q)
{
    uint32_t high;
    memcpy(&high, qh, sizeof high);
    NJ_LOOP for (int j = 0; j < 16; j++) q[j] = (int32_t)((qs[j] & 15u) | (high >> j & 1) << 4);
    NJ_LOOP for (int j = 0; j < 16; j++) q[j + 16] = (int32_t)((qs[j] >> 4) | (high >> 16 >> j & 1) << 4);
}

static inline void nj_decode_q4_0(const struct nj_block_q4_0 *b, float *restrict out)
{
    static const int8_t values[16] = { -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7 };
    nj_decode_table(values, nj_half(b->d), b->qs, out);
}

static inline void nj_decode_q4_1(const struct nj_block_q4_1 *b, float *restrict out)
{
    static const int8_t values[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    float m = nj_half(b->m);
    nj_decode_table(values, nj_half(b->d), b->qs, out);
    NJ_LOOP for (int j = 0; j < 32; j++) out[j] += m;
}

static inline void nj_decode_q5_0(const struct nj_block_q5_0 *b, float *restrict out)
{
    float d = nj_half(b->d);
    int32_t q[32];
    nj_quants_q5(b->qh, b->qs, q);
    NJ_LOOP for (int j = 0; j < 32; j++) out[j] = d * (float)(q[j] - 16);
}

static inline void nj_decode_q5_1(const struct nj_block_q5_1 *b, float *restrict out)
{
    float d = nj_half(b->d), m = nj_half(b->m);
    int32_t q[32];
    nj_quants_q5(b->qh, b->qs, q);
    NJ_LOOP for (int j = 0; j < 32; j++) out[j] = d * (float)q[j] + m;
}

static inline void nj_decode_q8_0(const struct nj_block_q8_0 *b, float *restrict out)
{
    float d = nj_half(b->d);
    NJ_LOOP for (int j = 0; j < 32; j++) out[j] = d * (float)b->qs[j];
}

static inline void nj_decode_iq4_nl(const struct nj_block_iq4_nl *b, float *restrict out)
{
    nj_decode_table(nj_values_iq4_nl, nj_half(b->d), b->qs, out);
}

static inline void nj_decode_mxfp4(const struct nj_block_mxfp4 *b, float *restrict out)
{
    /* 2^(e - 128), one less than OCP's 2^(e - 127) as the table is doubled; the two smallest are subnormal. */
    float d = nj_bits_f32(b->e < 2 ? 0x200000u << b->e : (b->e - 1u) << 23);
    nj_decode_table(nj_values_mxfp4, d, b->qs, out);
    NJ_LOOP for (int j = 0; j < 16; j++)
    { /* the sign bit of each code, as code 8 is minus zero */
        out[j] = nj_bits_f32(nj_f32_bits(out[j]) | (uint32_t)(b->qs[j] & 8) << 28);
        out[j + 16] = nj_bits_f32(nj_f32_bits(out[j + 16]) | (uint32_t)(b->qs[j] & 0x80) << 24);
    }
}

/* ---- 256 weights, sub-blocks with scales ---- */

static inline void nj_decode_q2_k(const struct nj_block_q2_k *b, float *restrict out)
{
    float d = nj_half(b->d), dmin = nj_half(b->dmin);
    for (int s = 0; s < 16; s++) { /* s: 16 weights; bytes 32 * (s / 8) + 16 * (s % 2), bits 2 * (s / 2 % 4) */
        const uint8_t *qs = b->qs + s / 8 * 32 + s % 2 * 16;
        float dl = d * (float)(b->scales[s] & 15), ml = dmin * (float)(b->scales[s] >> 4);
        NJ_LOOP for (int j = 0; j < 16; j++) out[16 * s + j] = dl * (float)(qs[j] >> (s / 2 % 4 * 2) & 3) - ml;
    }
}

/* The 16 six-bit scales of Q3_K: low nibbles in bytes 0..7, two high bits each in bytes 8..11. */
static inline int nj_scale_q3_k(const uint8_t *scales, int s)
{
    int low = scales[s % 8] >> (s / 8 * 4) & 15, high = scales[8 + s % 4] >> (s / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

static inline void nj_decode_q3_k(const struct nj_block_q3_k *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int s = 0; s < 16; s++) { /* bytes as in Q2_K; a clear bit s / 2 of hmask subtracts 4 */
        const uint8_t *qs = b->qs + s / 8 * 32 + s % 2 * 16, *hmask = b->hmask + s % 2 * 16;
        float dl = d * (float)nj_scale_q3_k(b->scales, s);
        NJ_LOOP for (int j = 0; j < 16; j++)
        {
            int low = qs[j] >> (s / 2 % 4 * 2) & 3, high = (hmask[j] >> (s / 2) & 1) * 4;
            out[16 * s + j] = dl * (float)(low + high - 4);
        }
    }
}

/* Scale and minimum of sub-block s (0..7) of Q4_K and Q5_K: six bits each. Of the first four both lie in the low bits
 * of bytes s and s + 4; of the last four the nibbles lie in byte s + 4 and the high bits on top of bytes s - 4 and s.
 */
static inline void nj_scale_q4_k(const uint8_t *scales, int s, float *scale, float *min)
{
    int sc = s < 4 ? scales[s] & 63 : (scales[s + 4] & 15) | scales[s - 4] >> 6 << 4;
    int m = s < 4 ? scales[s + 4] & 63 : scales[s + 4] >> 4 | scales[s] >> 6 << 4;
    *scale = (float)sc;
    *min = (float)m;
}

static inline void nj_decode_q4_k(const struct nj_block_q4_k *b, float *restrict out)
{
    float d = nj_half(b->d), dmin = nj_half(b->dmin);
    for (int s = 0; s < 8; s++) { /* s: 32 weights; bytes of pair s / 2, low or high nibble */
        const uint8_t *qs = b->qs + s / 2 * 32;
        float scale, min;
        nj_scale_q4_k(b->scales, s, &scale, &min);
        scale *= d, min *= dmin;
        NJ_LOOP for (int j = 0; j < 32; j++) out[32 * s + j] = scale * (float)(qs[j] >> (s % 2 * 4) & 15) - min;
    }
}

static inline void nj_decode_q5_k(const struct nj_block_q5_k *b, float *restrict out)
{
    float d = nj_half(b->d), dmin = nj_half(b->dmin);
    for (int s = 0; s < 8; s++) { /* as Q4_K; bit s of qh is bit 4 */
        const uint8_t *qs = b->qs + s / 2 * 32;
        float scale, min;
        nj_scale_q4_k(b->scales, s, &scale, &min);
        scale *= d, min *= dmin;
        NJ_LOOP for (int j = 0; j < 32; j++)
        {
            int q = (qs[j] >> (s % 2 * 4) & 15) | (b->qh[j] >> s & 1) << 4;
            out[32 * s + j] = scale * (float)q - min;
        }
    }
}

static inline void nj_decode_q6_k(const struct nj_block_q6_k *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int s = 0; s < 16; s++) { /* s: 16 weights; low nibbles, then high ones, of 64 bytes; two bits of qh */
        const uint8_t *ql = b->ql + s / 8 * 64 + s % 4 * 16, *qh = b->qh + s / 8 * 32 + s % 2 * 16;
        float dl = d * (float)b->scales[s];
        NJ_LOOP for (int j = 0; j < 16; j++)
        {
            int q = (ql[j] >> (s / 4 % 2 * 4) & 15) | (qh[j] >> (s / 2 % 4 * 2) & 3) << 4;
            out[16 * s + j] = dl * (float)(q - 32);
        }
    }
}

static inline void nj_decode_iq4_xs(const struct nj_block_iq4_xs *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int s = 0; s < 8; s++) {
        int scale = (b->scales_l[s / 2] >> (s % 2 * 4) & 15) | (b->scales_h >> (2 * s) & 3) << 4;
        nj_decode_table(nj_values_iq4_nl, d * (float)(scale - 32), b->qs + 16 * s, out + 32 * s);
    }
}

/* ---- 256 weights, codebooks ---- */

/* Eight values scale * magnitude[j], negated where bit j of `signs` is set. */
static inline void nj_decode_signed(float scale, const void *magnitudes, uint32_t signs, float *restrict out)
{
#ifdef __AVX2__
    __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(magnitudes)));
    __m256i to_top = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
    __m256 sign = _mm256_castsi256_ps(_mm256_sllv_epi32(_mm256_set1_epi32((int)signs), to_top));
    sign = _mm256_and_ps(sign, _mm256_set1_ps(-0.0f));
    _mm256_storeu_ps(out, _mm256_xor_ps(_mm256_mul_ps(_mm256_set1_ps(scale), m), sign));
#else
    const uint8_t *m = magnitudes;
    NJ_LOOP for (int j = 0; j < 8; j++) out[j] =
        nj_bits_f32(nj_f32_bits(scale * (float)m[j]) ^ ((signs << (31 - j)) & 1u << 31));
#endif
}

/* Seven stored signs; the eighth makes the number of minus signs even. */
static inline uint32_t nj_even_signs(uint32_t seven)
{
    return seven | (uint32_t)__builtin_parity(seven) << 7;
}

static inline void nj_decode_iq2_xxs(const struct nj_block_iq2_xxs *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int s = 0; s < 8; s++) { /* 32 weights: four index bytes, then four times seven signs with the scale on top */
        uint8_t index[4];
        uint32_t signs;
        memcpy(index, (const char *)b->qs + 8 * s, sizeof index);
        memcpy(&signs, (const char *)b->qs + 8 * s + 4, sizeof signs);
        float scale = d * (0.5f + (float)(signs >> 28)) * 0.25f;
        for (int l = 0; l < 4; l++)
            nj_decode_signed(scale, &nj_grid_iq2_xxs[index[l]], nj_even_signs(signs >> (7 * l) & 127),
                             out + 32 * s + 8 * l);
    }
}

/* Scale of sub-block s (16 weights) of IQ2_XS and IQ2_S: a nibble. */
static inline float nj_scale_iq2(float d, const uint8_t *scales, int s)
{
    return d * (0.5f + (float)(scales[s / 2] >> (s % 2 * 4) & 15)) * 0.25f;
}

static inline void nj_decode_iq2_xs(const struct nj_block_iq2_xs *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int g = 0; g < 32; g++) /* 8 weights: nine bits of index, seven signs */
        nj_decode_signed(nj_scale_iq2(d, b->scales, g / 2), &nj_grid_iq2_xs[b->qs[g] & 511],
                         nj_even_signs(b->qs[g] >> 9), out + 8 * g);
}

static inline void nj_decode_iq2_s(const struct nj_block_iq2_s *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int g = 0; g < 32; g++) { /* 8 weights: eight bits of index, two more in qh, eight signs */
        int index = b->qs[g] | (b->qh[g / 4] >> (g % 4 * 2) & 3) << 8;
        nj_decode_signed(nj_scale_iq2(d, b->scales, g / 2), &nj_grid_iq2_s[index], b->signs[g], out + 8 * g);
    }
}

static inline void nj_decode_iq3_xxs(const struct nj_block_iq3_xxs *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int s = 0; s < 8; s++) { /* 32 weights: eight index bytes; signs and scale as in IQ2_XXS */
        uint32_t signs;
        memcpy(&signs, b->signs + 4 * s, sizeof signs);
        float scale = d * (0.5f + (float)(signs >> 28)) * 0.5f;
        for (int l = 0; l < 4; l++) {
            const uint8_t *index = b->qs + 8 * s + 2 * l;
            uint32_t grid[2] = { nj_grid_iq3_xxs[index[0]], nj_grid_iq3_xxs[index[1]] };
            nj_decode_signed(scale, grid, nj_even_signs(signs >> (7 * l) & 127), out + 32 * s + 8 * l);
        }
    }
}

static inline void nj_decode_iq3_s(const struct nj_block_iq3_s *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int g = 0; g < 32; g++) { /* 8 weights: two indices with a ninth bit in qh; scale per 32 */
        const uint8_t *index = b->qs + 2 * g;
        uint32_t high = b->qh[g / 4] >> (g % 4 * 2);
        uint32_t grid[2] = { nj_grid_iq3_s[index[0] | (high & 1) << 8], nj_grid_iq3_s[index[1] | (high & 2) << 7] };
        float scale = d * (float)(1 + 2 * (b->scales[g / 8] >> (g / 4 % 2 * 4) & 15));
        nj_decode_signed(scale, grid, b->signs[g], out + 8 * g);
    }
}

/* Eight values of IQ1: scale * (-1, 0 or 1, plus or minus an eighth). */
static inline void nj_decode_iq1(float scale, uint32_t index, bool minus, float *restrict out)
{
    float delta = minus ? -0.125f : 0.125f;
#ifdef __AVX2__
    __m256 v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)&nj_grid_iq1[index])));
    _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_add_ps(v, _mm256_set1_ps(delta))));
#else
    const int8_t *grid = (const int8_t *)&nj_grid_iq1[index];
    NJ_LOOP for (int j = 0; j < 8; j++) out[j] = scale * ((float)grid[j] + delta);
#endif
}

static inline void nj_decode_iq1_s(const struct nj_block_iq1_s *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int g = 0; g < 32; g++) { /* qh of 32 weights: three index bits for each 8, three of scale, sign of delta */
        uint32_t qh = b->qh[g / 4];
        nj_decode_iq1(d * (float)(2 * (qh >> 12 & 7) + 1), b->qs[g] | (qh >> (g % 4 * 3) & 7) << 8, qh >> 15,
                      out + 8 * g);
    }
}

static inline void nj_decode_iq1_m(const struct nj_block_iq1_m *b, float *restrict out)
{
    uint32_t top = 0; /* d: the top nibbles of the scale words, lowest first */
    for (int w = 0; w < 4; w++) top |= (uint32_t)(b->scales[w] >> 12) << (4 * w);
    float d = nj_half((uint16_t)top);
    for (int g = 0; g < 32; g++) { /* a nibble of qh for each 8: three index bits, sign of delta; scale per 16 */
        uint32_t qh = b->qh[g / 2] >> (g % 2 * 4) & 15, scale = b->scales[g / 8] >> (g / 2 % 4 * 3) & 7;
        nj_decode_iq1(d * (float)(2 * scale + 1), b->qs[g] | (qh & 7) << 8, qh >> 3, out + 8 * g);
    }
}

/* ---- 256 weights of -1, 0, 1 ---- */

/* n values: base-3 digit `power` (3^digit) of each byte, digits being read off the top of byte * 3^digit mod 256. */
static inline void nj_decode_trits(float d, const uint8_t *qs, int power, int n, float *restrict out)
{
    NJ_LOOP for (int j = 0; j < n; j++) out[j] = (float)(((qs[j] * power & 255) * 3 >> 8) - 1) * d;
}

static inline void nj_decode_tq1_0(const struct nj_block_tq1_0 *b, float *restrict out)
{
    static const int power[5] = { 1, 3, 9, 27, 81 };
    float d = nj_half(b->d);
    for (int k = 0; k < 5; k++) nj_decode_trits(d, b->qs, power[k], 32, out + 32 * k);
    for (int k = 0; k < 5; k++) nj_decode_trits(d, b->qs + 32, power[k], 16, out + 160 + 16 * k);
    for (int k = 0; k < 4; k++) nj_decode_trits(d, b->qh, power[k], 4, out + 240 + 4 * k);
}

static inline void nj_decode_tq2_0(const struct nj_block_tq2_0 *b, float *restrict out)
{
    float d = nj_half(b->d);
    for (int s = 0; s < 8; s++) /* 32 weights: half s / 4 of the bytes, bits 2 * (s % 4) */
        NJ_LOOP for (int j = 0; j < 32; j++) out[32 * s + j] =
            (float)((b->qs[s / 4 * 32 + j] >> (s % 4 * 2) & 3) - 1) * d;
}

#endif
