/* Encoders of the formats with super-blocks of 256 weights: Q2_K..Q6_K and IQ4_XS. Layouts: formats.h.
 *
 * A sub-block decodes to d * ls * level (- dmin * lm), with half floats d and dmin and small whole ls and lm. First
 * each sub-block gets its own best scale; rounding those scales to whole multiples is the same problem once more,
 * weighted by what an error of each scale costs. Then ls and lm are moved to neighbours that lessen the true error, and
 * d and dmin refitted, in turns. */
#include "quant/encode_blocks.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quant/encode_search.h"
#include "quant/formats.h"
#include "quant/nj_quant.h"

#define SUPER    256
#define SUBS_MAX 16
/* Turns of moving and refitting: a third gains less than 0.1% of the error of any format. */
#define TURNS 2

struct shape {
    struct nj_levels levels; /* of the weights */
    struct nj_levels scales; /* of ls */
    struct nj_levels mins;   /* of lm; only where levels.affine */
    int sub;                 /* weights of a sub-block */
};

struct super {
    uint16_t d, dmin;
    int8_t ls[SUBS_MAX], lm[SUBS_MAX];
    uint8_t code[SUPER];
};

/* The sums that the refit of d and dmin needs: a sub-block decodes to d * u - dmin * t, u = ls * level, t = lm. */
struct normal {
    double uu, ut, tt, xu, xt;
};

static int clamp_level(const struct nj_levels *lv, int level)
{
    return level < (int)lv->lo ? (int)lv->lo : level > (int)lv->hi ? (int)lv->hi : level;
}

/* d and ls (or dmin and lm) from the scales wanted by the sub-blocks. */
static uint16_t round_scales(const struct nj_levels *lv, const float *want, const float *weight, int subs, int exponent,
                             int8_t *level)
{
    uint8_t code[SUBS_MAX];
    struct nj_values v = nj_values_of(want, weight, subs);
    uint16_t d = nj_scale_store(lv, &v, nj_search(lv, &v), exponent);
    nj_round(lv, want, subs, nj_half_load(d, exponent), 0, code);
    for (int j = 0; j < subs; j++) level[j] = (int8_t)(code[j] + (int)lv->lo);
    return d;
}

/* Moves *ls and *lm of one sub-block to the neighbours of least squared error under d and dmin; adds what the refit
 * needs. Returns the gain. */
static float move_levels(const struct shape *sh, const struct nj_values *v, float d, float dmin, int8_t *ls, int8_t *lm,
                         struct normal *sum)
{
    static const int8_t step[2][NJ_LANES] = { { 0, 1, -1, 0, 0, 1, -1 }, { 0, 0, 0, 1, -1, 1, -1 } };
    struct nj_fits f;
    struct nj_sums s;
    float gain[NJ_LANES];
    int8_t to_ls[NJ_LANES], to_lm[NJ_LANES];
    for (int c = 0; c < NJ_LANES; c++) {
        bool affine = sh->levels.affine;
        to_ls[c] = (int8_t)clamp_level(&sh->scales, *ls + (affine ? step[0][c] : c - 3));
        to_lm[c] = (int8_t)(affine ? clamp_level(&sh->mins, *lm + step[1][c]) : 0);
        if (c == NJ_LANES - 1) to_ls[c] = to_lm[c] = 0; /* never worse than dropping the sub-block */
        f.scale[c] = d * to_ls[c];
        f.min[c] = -dmin * to_lm[c];
    }
    nj_sums_take(&sh->levels, v, &f, &s);
    nj_gains(v, &s, &f, gain);
    int best = nj_lane_best(gain);
    double l = *ls = to_ls[best], m = *lm = to_lm[best];
    sum->uu += l * l * s.ll[best];
    sum->ut += l * m * s.l[best];
    sum->tt += m * m * v->sw;
    sum->xu += l * s.xl[best];
    sum->xt += m * v->sx;
    return gain[best];
}

/* Least squares for d and dmin; keeps what the sums do not determine. */
static void refit(const struct normal *n, bool affine, float *d, float *dmin)
{
    double det = n->uu * n->tt - n->ut * n->ut;
    if (affine && det > 1e-9 * n->uu * n->tt) {
        double scale = (n->xu * n->tt - n->xt * n->ut) / det, min = (n->xu * n->ut - n->xt * n->uu) / det;
        if (scale < 0 || min < 0) return;
        *d = (float)scale;
        *dmin = (float)min;
    } else if (n->uu > 0) {
        *d = (float)((n->xu + *dmin * n->ut) / n->uu);
    }
}

/* Errors of large weights cost a model more than their square says. Counting them by 0.5 + |x| / RMS raises the RMS
 * error by 2% and lowers the loss of perplexity (nano: Q2_K 4.6 -> 3.8%, Q3_K 1.4 -> 1.1%, Q4_K 0.29 -> 0.23%; Q5_K and
 * Q6_K within noise). IQ4_XS got worse (0.21 -> 0.36%) and goes without. */
static void weigh(const struct nj_levels *lv, const float *x, float *w)
{
    float energy = 0;
    for (int i = 0; i < SUPER; i++) energy += x[i] * x[i];
    float per_rms = 1 / sqrtf(energy / SUPER); /* some |x| is at least 1 */
    for (int i = 0; i < SUPER; i++) w[i] = lv->table ? 1 : 0.5f + fabsf(x[i]) * per_rms;
}

static void fit_super(const struct shape *sh, const float *x, int exponent, struct super *out)
{
    int subs = SUPER / sh->sub;
    struct nj_values v[SUBS_MAX];
    float w[SUPER], scale[SUBS_MAX], stiffness[SUBS_MAX], min[SUBS_MAX], total[SUBS_MAX];
    weigh(&sh->levels, x, w);
    for (int j = 0; j < subs; j++) {
        v[j] = nj_values_of(x + j * sh->sub, w + j * sh->sub, sh->sub);
        struct nj_fit fit = nj_search(&sh->levels, &v[j]);
        scale[j] = fit.scale;
        stiffness[j] = fit.stiffness;
        min[j] = -fit.min;
        total[j] = v[j].sw;
    }
    struct super s = { 0 };
    s.d = round_scales(&sh->scales, scale, stiffness, subs, exponent, s.ls);
    if (sh->levels.affine) s.dmin = round_scales(&sh->mins, min, total, subs, exponent, s.lm);

    float best = -1;
    for (int turn = 0; turn <= TURNS; turn++) {
        float d = nj_half_load(s.d, exponent), dmin = nj_half_load(s.dmin, exponent), gain = 0;
        struct normal sum = { 0 };
        for (int j = 0; j < subs; j++) gain += move_levels(sh, &v[j], d, dmin, &s.ls[j], &s.lm[j], &sum);
        if (turn == 0 || gain > best) {
            best = gain;
            *out = s;
        }
        refit(&sum, sh->levels.affine, &d, &dmin);
        s.d = nj_half_store(d, exponent);
        s.dmin = nj_half_store(dmin, exponent);
    }
    float d = nj_half_load(out->d, exponent), dmin = nj_half_load(out->dmin, exponent);
    for (int j = 0; j < subs; j++)
        nj_round(&sh->levels, v[j].x, sh->sub, d * out->ls[j], -dmin * out->lm[j], out->code + j * sh->sub);
}

/* Q4_K, Q5_K: eight scales and eight mins of 6 bits in 12 bytes; the upper 2 bits of the last four ride on the first.
 */
static void pack_scales_k4(const struct super *s, uint8_t *scales)
{
    for (int j = 0; j < 4; j++) {
        scales[j] = (uint8_t)(s->ls[j] | (s->ls[j + 4] >> 4) << 6);
        scales[j + 4] = (uint8_t)(s->lm[j] | (s->lm[j + 4] >> 4) << 6);
        scales[j + 8] = (uint8_t)((s->ls[j + 4] & 15) | (s->lm[j + 4] & 15) << 4);
    }
}

/* Low two bits of the codes: weights l, l + 32, l + 64, l + 96 of each half share byte l. */
static void pack_pairs(const uint8_t *code, uint8_t *qs)
{
    for (int half = 0; half < 2; half++, code += 128, qs += 32)
        for (int l = 0; l < 32; l++)
            qs[l] =
                (uint8_t)((code[l] & 3) | (code[l + 32] & 3) << 2 | (code[l + 64] & 3) << 4 | (code[l + 96] & 3) << 6);
}

/* Low nibbles of the codes: within each 64, weights l and l + 32 share byte l. */
static void pack_nibbles(const uint8_t *code, uint8_t *qs)
{
    for (int j = 0; j < SUPER; j += 64)
        for (int l = 0; l < 32; l++) *qs++ = (uint8_t)((code[j + l] & 15) | (code[j + l + 32] & 15) << 4);
}

/* Bit `bit` of the codes: bit j of byte l is that of weight 32 * j + l. */
static void pack_high(const uint8_t *code, int bit, uint8_t *qh)
{
    memset(qh, 0, 32);
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 32; l++) qh[l] |= (uint8_t)((code[32 * j + l] >> bit & 1) << j);
}

static void pack_q2_k(const struct super *s, void *block)
{
    struct nj_block_q2_k b = { .d = s->d, .dmin = s->dmin };
    for (int j = 0; j < 16; j++) b.scales[j] = (uint8_t)(s->ls[j] | s->lm[j] << 4);
    pack_pairs(s->code, b.qs);
    memcpy(block, &b, sizeof b);
}

/* Sixteen scales of 6 bits: low nibbles j and j + 8 share byte j, upper pairs j, j + 4, j + 8, j + 12 share byte 8 + j.
 */
static void pack_q3_k(const struct super *s, void *block)
{
    struct nj_block_q3_k b = { .d = s->d };
    for (int j = 0; j < 16; j++) {
        int level = s->ls[j] + 32;
        b.scales[j % 8] |= (uint8_t)((level & 15) << (j < 8 ? 0 : 4));
        b.scales[8 + j % 4] |= (uint8_t)((level >> 4) << 2 * (j / 4));
    }
    pack_pairs(s->code, b.qs);
    pack_high(s->code, 2, b.hmask);
    memcpy(block, &b, sizeof b);
}

static void pack_q4_k(const struct super *s, void *block)
{
    struct nj_block_q4_k b = { .d = s->d, .dmin = s->dmin };
    pack_scales_k4(s, b.scales);
    pack_nibbles(s->code, b.qs);
    memcpy(block, &b, sizeof b);
}

static void pack_q5_k(const struct super *s, void *block)
{
    struct nj_block_q5_k b = { .d = s->d, .dmin = s->dmin };
    pack_scales_k4(s, b.scales);
    pack_nibbles(s->code, b.qs);
    pack_high(s->code, 4, b.qh);
    memcpy(block, &b, sizeof b);
}

/* Of each half, weights l and l + 64 share a byte of ql; l, l + 32, l + 64 and l + 96 one of qh. */
static void pack_q6_k(const struct super *s, void *block)
{
    struct nj_block_q6_k b = { .d = s->d };
    memcpy(b.scales, s->ls, sizeof b.scales);
    for (int half = 0; half < 2; half++) {
        const uint8_t *code = s->code + 128 * half;
        for (int l = 0; l < 64; l++) b.ql[64 * half + l] = (uint8_t)((code[l] & 15) | (code[l + 64] & 15) << 4);
        for (int l = 0; l < 32; l++)
            b.qh[32 * half + l] =
                (uint8_t)(code[l] >> 4 | code[l + 32] >> 4 << 2 | code[l + 64] >> 4 << 4 | code[l + 96] >> 4 << 6);
    }
    memcpy(block, &b, sizeof b);
}

/* Within each 32, weights l and l + 16 share a byte; eight scales of 6 bits: low nibbles in scales_l, pairs in
 * scales_h. */
static void pack_iq4_xs(const struct super *s, void *block)
{
    struct nj_block_iq4_xs b = { .d = s->d };
    for (int j = 0; j < 8; j++) {
        int level = s->ls[j] + 32;
        b.scales_l[j / 2] |= (uint8_t)((level & 15) << 4 * (j % 2));
        b.scales_h |= (uint16_t)((level >> 4) << 2 * j);
        for (int l = 0; l < 16; l++) b.qs[16 * j + l] = (uint8_t)(s->code[32 * j + l] | s->code[32 * j + l + 16] << 4);
    }
    memcpy(block, &b, sizeof b);
}

#define WHOLE(from, to)                                                                                                \
    {                                                                                                                  \
        .lo = (from), .hi = (to), .count = (to) - (from) + 1                                                           \
    }
#define ABOVE_MIN(to)                                                                                                  \
    {                                                                                                                  \
        .lo = 0, .hi = (to), .count = (to) + 1, .affine = true, .min_negative = true                                   \
    }
#define NO_MINS                                                                                                        \
    {                                                                                                                  \
        .lo = 0                                                                                                        \
    }

static const struct format_super {
    uint32_t type;
    struct shape shape;
    void (*pack)(const struct super *s, void *block);
} formats[] = {
    { NJ_Q2_K, { ABOVE_MIN(3), WHOLE(0, 15), WHOLE(0, 15), 16 }, pack_q2_k },
    { NJ_Q3_K, { WHOLE(-4, 3), WHOLE(-32, 31), NO_MINS, 16 }, pack_q3_k },
    { NJ_Q4_K, { ABOVE_MIN(15), WHOLE(0, 63), WHOLE(0, 63), 32 }, pack_q4_k },
    { NJ_Q5_K, { ABOVE_MIN(31), WHOLE(0, 63), WHOLE(0, 63), 32 }, pack_q5_k },
    { NJ_Q6_K, { WHOLE(-32, 31), WHOLE(-128, 127), NO_MINS, 16 }, pack_q6_k },
    { NJ_IQ4_XS,
      { { .lo = -127, .hi = 113, .count = 16, .table = nj_values_iq4_nl }, WHOLE(-32, 31), NO_MINS, 32 },
      pack_iq4_xs },
};

bool nj_encode_super(uint32_t type, const float *x, void *blocks, size_t n)
{
    const struct format_super *f = formats, *end = formats + sizeof formats / sizeof *formats;
    uint32_t weights, bytes;
    while (f < end && f->type != type) f++;
    if (f == end || !nj_format_size(type, &weights, &bytes)) return false;

    struct shape shape = f->shape;
    float near_level[NJ_NEAR_MAX];
    if (shape.levels.table) {
        nj_near_levels(shape.levels.table, shape.levels.count, near_level);
        shape.levels.near_level = near_level;
    }
    uint8_t *out = blocks;
    for (size_t i = 0; i < n; i += SUPER, out += bytes) {
        float scaled[SUPER];
        int exponent;
        struct super s = { 0 };
        if (nj_load(x + i, SUPER, scaled, &exponent) >= NJ_VANISHES) fit_super(&shape, scaled, exponent, &s);
        f->pack(&s, out);
    }
    return true;
}
