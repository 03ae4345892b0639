/* Block layouts of the weight formats, as GGUF files hold them (little-endian, packed, any alignment).
 * Private to quant/. A `d` is a scale in half precision; `qs` are quants, low bits of a byte first unless said. */
#ifndef NJ_QUANT_FORMATS_H
#define NJ_QUANT_FORMATS_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "quant/nj_quant.h"

#define NJ_PACKED __attribute__((packed))

// clang-format off
struct nj_block_f32  { float v; } NJ_PACKED;
struct nj_block_f16  { uint16_t v; } NJ_PACKED;
struct nj_block_bf16 { uint16_t v; } NJ_PACKED;

/* 32 weights. Quant j of 0..15 is the low half of qs[j], j + 16 its high half; bit j of qh is bit 4 of quant j. */
struct nj_block_q4_0 { uint16_t d; uint8_t qs[16]; } NJ_PACKED;                       /* d * (q - 8) */
struct nj_block_q4_1 { uint16_t d, m; uint8_t qs[16]; } NJ_PACKED;                    /* d * q + m */
struct nj_block_q5_0 { uint16_t d; uint8_t qh[4], qs[16]; } NJ_PACKED;                /* d * (q - 16) */
struct nj_block_q5_1 { uint16_t d, m; uint8_t qh[4], qs[16]; } NJ_PACKED;             /* d * q + m */
struct nj_block_q8_0 { uint16_t d; int8_t qs[32]; } NJ_PACKED;                        /* d * q */
struct nj_block_iq4_nl { uint16_t d; uint8_t qs[16]; } NJ_PACKED;                     /* d * table[q] */
struct nj_block_mxfp4  { uint8_t e; uint8_t qs[16]; } NJ_PACKED;                      /* 2^(e - 128) * table[q] */

/* 256 weights in sub-blocks of 16 or 32 with scales of their own. */
struct nj_block_q2_k { uint8_t scales[16], qs[64]; uint16_t d, dmin; } NJ_PACKED;     /* scale low nibble, min high */
struct nj_block_q3_k { uint8_t hmask[32], qs[64], scales[12]; uint16_t d; } NJ_PACKED;
struct nj_block_q4_k { uint16_t d, dmin; uint8_t scales[12], qs[128]; } NJ_PACKED;
struct nj_block_q5_k { uint16_t d, dmin; uint8_t scales[12], qh[32], qs[128]; } NJ_PACKED;
struct nj_block_q6_k { uint8_t ql[128], qh[64]; int8_t scales[16]; uint16_t d; } NJ_PACKED;
struct nj_block_iq4_xs { uint16_t d, scales_h; uint8_t scales_l[4], qs[128]; } NJ_PACKED;

/* 256 weights as indices into a codebook of 8 or 4 magnitudes, with signs apart. */
struct nj_block_iq2_xxs { uint16_t d, qs[32]; } NJ_PACKED;
struct nj_block_iq2_xs  { uint16_t d, qs[32]; uint8_t scales[8]; } NJ_PACKED;
struct nj_block_iq2_s   { uint16_t d; uint8_t qs[32], signs[32], qh[8], scales[8]; } NJ_PACKED;
struct nj_block_iq3_xxs { uint16_t d; uint8_t qs[64], signs[32]; } NJ_PACKED;         /* signs: 8 words, scale on top */
struct nj_block_iq3_s   { uint16_t d; uint8_t qs[64], qh[8], signs[32], scales[4]; } NJ_PACKED;
struct nj_block_iq1_s   { uint16_t d; uint8_t qs[32]; uint16_t qh[8]; } NJ_PACKED;
struct nj_block_iq1_m   { uint8_t qs[32], qh[16]; uint16_t scales[4]; } NJ_PACKED;    /* d: top nibbles of scales */

/* 256 weights of -1, 0, 1: base 3, five to a byte (qs), four to a byte (qh); or two bits each. */
struct nj_block_tq1_0 { uint8_t qs[48], qh[4]; uint16_t d; } NJ_PACKED;
struct nj_block_tq2_0 { uint8_t qs[64]; uint16_t d; } NJ_PACKED;
// clang-format on

#define NJ_FORMAT(ID, name, id, weights, bytes)                                                                        \
    static_assert(NJ_##ID == (id) && sizeof(struct nj_block_##name) == (bytes), #name ": " #weights " in " #bytes);
#include "quant/formats.inc"

/* NJ_WEIGHTS_q4_k and so on: weights per block. */
#define NJ_FORMAT(ID, name, id, weights, bytes) enum { NJ_WEIGHTS_##name = (weights) };
#include "quant/formats.inc"

/* Codebooks of the IQ formats (quant/codebooks.c): byte j of an entry is value j; iq1 values are signed. */
extern const uint64_t nj_grid_iq2_xxs[256], nj_grid_iq2_xs[512], nj_grid_iq2_s[1024], nj_grid_iq1[2048];
extern const uint32_t nj_grid_iq3_xxs[256], nj_grid_iq3_s[512];
extern const int8_t nj_values_iq4_nl[16], nj_values_mxfp4[16]; /* the latter doubled, so that they are whole */

/* Kernels are compiled once per ISA, so conversions they need are inline; F16C gives the same bits as the plain code.
 */
static inline float nj_bits_f32(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t nj_f32_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float nj_half(uint16_t h)
{
#ifdef __F16C__
    return _cvtsh_ss(h);
#else
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >= 0x7c00) /* infinity; a NaN becomes quiet */
        return nj_bits_f32(sign | 0x7f800000 | (rest & 0x3ff) << 13 | (rest > 0x7c00 ? 0x400000 : 0));
    /* A normal half gets the bias 127 instead of 15; a subnormal one is rest * 2^-24, exact in float. */
    if (rest >= 0x400) return nj_bits_f32(sign | ((rest << 13) + (112u << 23)));
    return nj_bits_f32(sign | nj_f32_bits((float)rest * 0x1p-24f));
#endif
}

static inline uint16_t nj_to_half(float x)
{
#ifdef __F16C__
    return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
    uint32_t bits = nj_f32_bits(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (rest < 0x38800000) /* below 2^-14: the float unit rounds to a multiple of 2^-24 (0.5f has that last place) */
        return (uint16_t)(sign | (nj_f32_bits(nj_bits_f32(rest) + 0.5f) - 0x3f000000));
    rest -= 112u << 23;
    return (uint16_t)(sign | (rest + 0xfff + (rest >> 13 & 1)) >> 13);
#endif
}

static inline float nj_brain(uint16_t h)
{
    return nj_bits_f32((uint32_t)h << 16);
}

#endif
