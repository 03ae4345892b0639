/* Encoders of the formats with blocks of 32 weights and one scale (and min) each: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL
 * MXFP4. Layouts: formats.h. */
#include "quant/encode_blocks.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quant/encode_search.h"
#include "quant/formats.h"
#include "quant/nj_quant.h"

#define BLOCK 32

/* MXFP4's magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6 with both signs, times 16: nj_near_levels then rounds finely enough. */
static const int8_t mxfp4_levels[15] = { -96, -64, -48, -32, -24, -16, -8, 0, 8, 16, 24, 32, 48, 64, 96 };

/* A rounded block: decoded values are d * level(code) + m. */
struct rounded {
    uint16_t d, m;
    uint8_t e; /* MXFP4: the scale is 2^(e - 127) */
    uint8_t code[BLOCK];
};

static const float ones[BLOCK] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                   1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };

/* d * level: Q4_0, Q5_0, Q8_0, IQ4_NL. `x` is scaled by 2^-exponent. */
static void round_scaled(const struct nj_levels *lv, const float *x, int exponent, struct rounded *out)
{
    struct nj_values v = nj_values_of(x, ones, BLOCK);
    out->d = nj_scale_store(lv, &v, nj_search(lv, &v), exponent);
    nj_round(lv, x, BLOCK, nj_half_load(out->d, exponent), 0, out->code);
}

/* d * level + m, m of any sign: Q4_1, Q5_1. */
static void round_affine(const struct nj_levels *lv, const float *x, int exponent, struct rounded *out)
{
    float lo, hi, centred[BLOCK];
    nj_range(x, BLOCK, &lo, &hi);
    /* Sums of squares keep their digits when a block lies far from 0. */
    float centre = 0.5f * (lo + hi);
    for (int i = 0; i < BLOCK; i++) centred[i] = x[i] - centre;
    struct nj_values v = nj_values_of(centred, ones, BLOCK);
    struct nj_fit fit = nj_search(lv, &v);
    if (fit.scale == 0) fit.min = 0;

    out->m = nj_half_store(fit.min + centre, exponent);
    float stored = nj_half_load(out->m, exponent) - centre;
    struct nj_levels fixed = *lv;
    if (fabsf(stored - fit.min) > 0.02f * fabsf(fit.scale)) {
        /* The half float missed the min by much: find the scale again for the min as it is. It may be negative. */
        fixed.affine = false;
        float above[BLOCK];
        for (int i = 0; i < BLOCK; i++) above[i] = centred[i] - stored;
        struct nj_values w = nj_values_of(above, ones, BLOCK);
        fit = nj_search(&fixed, &w);
    }
    fit.min = stored;
    out->d = nj_scale_store(lv, &v, fit, exponent);
    nj_round(lv, centred, BLOCK, nj_half_load(out->d, exponent), stored, out->code);
}

/* 2^(e - 127) * level / 16. The greatest e whose largest level is a finite float is 252. */
static void round_power(const struct nj_levels *lv, const float *x, int exponent, struct rounded *out)
{
    struct nj_values v = nj_values_of(x, ones, BLOCK);
    struct nj_fits f = { 0 };
    float error[NJ_LANES];
    int e[NJ_LANES], best = 0;
    for (int c = 0; c < NJ_LANES; c++) {
        e[c] = 127 + exponent - c; /* values reach [1, 2): with c = 0 the levels reach 6 */
        e[c] = e[c] < 0 ? 0 : e[c] > 252 ? 252 : e[c];
        f.scale[c] = ldexpf(1.0f / 16, e[c] - 127 - exponent);
    }
    nj_errors(lv, &v, &f, error);
    for (int c = 1; c < NJ_LANES; c++)
        if (error[c] < error[best]) best = c;
    out->e = (uint8_t)e[best];
    nj_round(lv, x, BLOCK, f.scale[best], 0, out->code);
}

/* Weights j and j + 16 share a byte. */
static void pack_nibbles(const uint8_t *code, uint8_t *qs)
{
    for (int j = 0; j < BLOCK / 2; j++) qs[j] = (uint8_t)((code[j] & 15) | (code[j + BLOCK / 2] & 15) << 4);
}

static void pack_bit_4(const uint8_t *code, uint8_t *qh)
{
    memset(qh, 0, 4);
    for (int j = 0; j < BLOCK; j++) qh[j / 8] |= (uint8_t)((code[j] >> 4 & 1) << j % 8);
}

static void pack_q4_0(const struct rounded *r, void *block)
{
    struct nj_block_q4_0 b = { .d = r->d };
    pack_nibbles(r->code, b.qs);
    memcpy(block, &b, sizeof b);
}

static void pack_q4_1(const struct rounded *r, void *block)
{
    struct nj_block_q4_1 b = { .d = r->d, .m = r->m };
    pack_nibbles(r->code, b.qs);
    memcpy(block, &b, sizeof b);
}

static void pack_q5_0(const struct rounded *r, void *block)
{
    struct nj_block_q5_0 b = { .d = r->d };
    pack_nibbles(r->code, b.qs);
    pack_bit_4(r->code, b.qh);
    memcpy(block, &b, sizeof b);
}

static void pack_q5_1(const struct rounded *r, void *block)
{
    struct nj_block_q5_1 b = { .d = r->d, .m = r->m };
    pack_nibbles(r->code, b.qs);
    pack_bit_4(r->code, b.qh);
    memcpy(block, &b, sizeof b);
}

static void pack_q8_0(const struct rounded *r, void *block)
{
    struct nj_block_q8_0 b = { .d = r->d };
    for (int j = 0; j < BLOCK; j++) b.qs[j] = (int8_t)(r->code[j] - 127);
    memcpy(block, &b, sizeof b);
}

/* Codes 0..7 are the magnitudes, 8..15 the same with a minus. */
static void pack_mxfp4(const struct rounded *r, void *block)
{
    struct nj_block_mxfp4 b = { .e = r->e };
    uint8_t code[BLOCK];
    for (int j = 0; j < BLOCK; j++) code[j] = (uint8_t)(r->code[j] < 7 ? 15 - r->code[j] : r->code[j] - 7);
    pack_nibbles(code, b.qs);
    memcpy(block, &b, sizeof b);
}

typedef void round_fn(const struct nj_levels *lv, const float *x, int exponent, struct rounded *out);

/* Q8_0 leaves out -128, which sign tricks of int8 kernels can't negate. IQ4_NL blocks are laid out as Q4_0's. */
static const struct format_32 {
    uint32_t type;
    struct nj_levels levels;
    round_fn *round;
    void (*pack)(const struct rounded *r, void *block);
} formats[] = {
    { NJ_Q4_0, { .lo = -8, .hi = 7, .count = 16 }, round_scaled, pack_q4_0 },
    { NJ_Q5_0, { .lo = -16, .hi = 15, .count = 32 }, round_scaled, pack_q5_0 },
    { NJ_Q8_0, { .lo = -127, .hi = 127, .count = 255 }, round_scaled, pack_q8_0 },
    { NJ_Q4_1, { .lo = 0, .hi = 15, .count = 16, .affine = true }, round_affine, pack_q4_1 },
    { NJ_Q5_1, { .lo = 0, .hi = 31, .count = 32, .affine = true }, round_affine, pack_q5_1 },
    { NJ_IQ4_NL, { .lo = -127, .hi = 113, .count = 16, .table = nj_values_iq4_nl }, round_scaled, pack_q4_0 },
    { NJ_MXFP4, { .lo = -96, .hi = 96, .count = 15, .table = mxfp4_levels }, round_power, pack_mxfp4 },
};
static_assert(sizeof(struct nj_block_iq4_nl) == sizeof(struct nj_block_q4_0), "IQ4_NL is laid out as Q4_0");

bool nj_encode_32(uint32_t type, const float *x, void *blocks, size_t n)
{
    const struct format_32 *f = formats, *end = formats + sizeof formats / sizeof *formats;
    uint32_t weights, bytes;
    while (f < end && f->type != type) f++;
    if (f == end || !nj_format_size(type, &weights, &bytes)) return false;

    struct nj_levels levels = f->levels;
    float near_level[NJ_NEAR_MAX];
    if (levels.table) {
        nj_near_levels(levels.table, levels.count, near_level);
        levels.near_level = near_level;
    }
    uint8_t *out = blocks;
    for (size_t i = 0; i < n; i += BLOCK, out += bytes) {
        float scaled[BLOCK];
        int exponent;
        float peak = nj_load(x + i, BLOCK, scaled, &exponent);
        struct rounded r = { 0 };
        if (f->round == round_power || peak >= NJ_VANISHES)
            f->round(&levels, scaled, exponent, &r);
        else
            nj_round(&levels, scaled, BLOCK, 0, 0, r.code);
        f->pack(&r, out);
    }
    return true;
}
