/* The search for scales; see encode_search.h. SSE2 is part of the x86-64 baseline, so nothing is dispatched here. */
#include "quant/encode_search.h"

#include <emmintrin.h>
#include <float.h>
#include <math.h>

#include "quant/nj_quant.h"

/* A scale below this is 0: its inverse would overflow. Values of a block are at most 2. */
#define SCALE_MIN 1e-30f

float nj_load(const float *x, int n, float *out, int *exponent)
{
    float peak = 0;
    for (int i = 0; i < n; i++) {
        out[i] = fabsf(x[i]) <= FLT_MAX ? x[i] : 0; /* false for NaN and infinity */
        float a = fabsf(out[i]);
        peak = a > peak ? a : peak;
    }
    *exponent = 0;
    if (peak == 0) return 0;
    frexpf(peak, exponent);
    (*exponent)--;
    /* Two exact factors, because 2^149 is not a float. */
    float half = ldexpf(1, -*exponent / 2), rest = ldexpf(1, -*exponent - -*exponent / 2);
    for (int i = 0; i < n; i++) out[i] = out[i] * half * rest;
    return peak;
}

void nj_range(const float *x, int n, float *lo, float *hi)
{
    *lo = *hi = x[0];
    for (int i = 1; i < n; i++) {
        *lo = x[i] < *lo ? x[i] : *lo;
        *hi = x[i] > *hi ? x[i] : *hi;
    }
}

uint16_t nj_half_store(float x, int exponent)
{
    float y = ldexpf(x, exponent);
    return nj_f32_to_f16(y > 65504 ? 65504 : y < -65504 ? -65504 : y);
}

float nj_half_load(uint16_t h, int exponent)
{
    return ldexpf(nj_f16_to_f32(h), -exponent);
}

void nj_near_levels(const int8_t *table, int count, float *near_level)
{
    for (int t = table[0], k = 0; t <= table[count - 1]; t++) {
        while (k + 1 < count && 2 * t > table[k] + table[k + 1]) k++;
        near_level[t - table[0]] = table[k];
    }
}

struct nj_values nj_values_of(const float *x, const float *w, int n)
{
    struct nj_values v = { x, w, n, 0, 0 };
    for (int i = 0; i < n; i++) {
        v.sw += w[i];
        v.sx += w[i] * x[i];
    }
    return v;
}

/* 1 / scale, or 0 for a scale that is too small. */
static inline __m128 invert(__m128 scale)
{
    __m128 big = _mm_cmpge_ps(_mm_andnot_ps(_mm_set1_ps(-0.0f), scale), _mm_set1_ps(SCALE_MIN));
    return _mm_and_ps(_mm_div_ps(_mm_set1_ps(1), scale), big);
}

/* The level nearest to t, per lane. */
static inline __attribute__((always_inline)) __m128 level_of(const struct nj_levels *lv, bool table, __m128 t)
{
    t = _mm_min_ps(_mm_max_ps(t, _mm_set1_ps(lv->lo)), _mm_set1_ps(lv->hi));
    if (!table) return _mm_cvtepi32_ps(_mm_cvtps_epi32(t));
    __m128i i = _mm_cvtps_epi32(_mm_sub_ps(t, _mm_set1_ps(lv->lo)));
    const float *near_level = lv->near_level;
    return _mm_setr_ps(near_level[_mm_extract_epi16(i, 0)], near_level[_mm_extract_epi16(i, 2)],
                       near_level[_mm_extract_epi16(i, 4)], near_level[_mm_extract_epi16(i, 6)]);
}

/* The body of nj_sums_take; `table` and `affine` are constants where it is inlined. */
static inline __attribute__((always_inline)) void sums(const struct nj_levels *lv, bool table, bool affine,
                                                       const struct nj_values *v, const struct nj_fits *f,
                                                       struct nj_sums *out)
{
    __m128 l[2], ll[2], xl[2], inv[2], min[2];
    for (int h = 0; h < 2; h++) {
        l[h] = ll[h] = xl[h] = _mm_setzero_ps();
        inv[h] = invert(_mm_loadu_ps(f->scale + 4 * h));
        min[h] = _mm_loadu_ps(f->min + 4 * h);
    }
    for (int i = 0; i < v->n; i++) {
        __m128 x = _mm_set1_ps(v->x[i]), w = _mm_set1_ps(v->w[i]);
        for (int h = 0; h < 2; h++) {
            __m128 level = level_of(lv, table, _mm_mul_ps(affine ? _mm_sub_ps(x, min[h]) : x, inv[h]));
            __m128 wl = _mm_mul_ps(w, level);
            l[h] = _mm_add_ps(l[h], wl);
            ll[h] = _mm_add_ps(ll[h], _mm_mul_ps(wl, level));
            xl[h] = _mm_add_ps(xl[h], _mm_mul_ps(wl, x));
        }
    }
    for (int h = 0; h < 2; h++) {
        _mm_storeu_ps(out->l + 4 * h, l[h]);
        _mm_storeu_ps(out->ll + 4 * h, ll[h]);
        _mm_storeu_ps(out->xl + 4 * h, xl[h]);
    }
}

void nj_sums_take(const struct nj_levels *lv, const struct nj_values *v, const struct nj_fits *f, struct nj_sums *out)
{
    if (lv->table)
        sums(lv, true, false, v, f, out);
    else if (lv->affine)
        sums(lv, false, true, v, f, out);
    else
        sums(lv, false, false, v, f, out);
}

void nj_gains(const struct nj_values *v, const struct nj_sums *s, const struct nj_fits *f, float *gain)
{
    for (int c = 0; c < NJ_LANES; c++) {
        float a = f->scale[c], m = f->min[c];
        gain[c] = a * (2 * s->xl[c] - a * s->ll[c]) + m * (2 * (v->sx - a * s->l[c]) - m * v->sw);
    }
}

void nj_errors(const struct nj_levels *lv, const struct nj_values *v, const struct nj_fits *f, float *error)
{
    for (int h = 0; h < NJ_LANES; h += 4) {
        __m128 scale = _mm_loadu_ps(f->scale + h), min = _mm_loadu_ps(f->min + h), inv = invert(scale);
        __m128 sum = _mm_setzero_ps();
        for (int i = 0; i < v->n; i++) {
            __m128 x = _mm_sub_ps(_mm_set1_ps(v->x[i]), min);
            __m128 level = level_of(lv, lv->table != NULL, _mm_mul_ps(x, inv));
            __m128 miss = _mm_sub_ps(x, _mm_mul_ps(scale, level));
            sum = _mm_add_ps(sum, _mm_mul_ps(_mm_set1_ps(v->w[i]), _mm_mul_ps(miss, miss)));
        }
        _mm_storeu_ps(error + h, sum);
    }
}

int nj_lane_best(const float *gain)
{
    int best = 0;
    for (int c = 1; c < NJ_LANES; c++)
        if (gain[c] > gain[best]) best = c;
    return best;
}

/* Replaces each fit by the least-squares fit of its rounding, and takes the gains. */
static void refit(const struct nj_levels *lv, const struct nj_values *v, const struct nj_sums *s, struct nj_fits *f,
                  float *gain)
{
    for (int c = 0; c < NJ_LANES; c++) {
        float a = s->ll[c] > 0 ? s->xl[c] / s->ll[c] : 0, m = 0;
        if (lv->affine) {
            float det = v->sw * s->ll[c] - s->l[c] * s->l[c];
            float slope = det > 0 ? (v->sw * s->xl[c] - v->sx * s->l[c]) / det : 0;
            float at_0 = (v->sx - slope * s->l[c]) / v->sw;
            bool free_min = at_0 < 0 || !lv->min_negative;
            a = free_min ? slope : a;
            m = free_min ? at_0 : 0;
        }
        f->scale[c] = a;
        f->min[c] = m;
        gain[c] = a * s->xl[c] + m * v->sx; /* nj_gains for a least-squares fit */
    }
}

/* The best fit so far. */
struct best {
    struct nj_fit fit;
    float gain;
};

/* Rounds with the candidates `f`, and keeps the best refit if it beats *best. */
static void judge(const struct nj_levels *lv, const struct nj_values *v, struct nj_fits *f, struct best *best)
{
    struct nj_sums s;
    float gain[NJ_LANES];
    nj_sums_take(lv, v, f, &s);
    refit(lv, v, &s, f, gain);
    int c = nj_lane_best(gain);
    if (gain[c] > best->gain) *best = (struct best){ { f->scale[c], f->min[c], s.ll[c] }, gain[c] };
}

/* Scales that put the value of greatest magnitude near the last level of either end, from inside it to clipped. Fine
 * formats gain nothing from moving it by more than a few levels. */
static void try_scales(const struct nj_levels *lv, const struct nj_values *v, float peak, struct best *best)
{
    float half = 0.5f * (float)lv->count, inside = fminf(0.15f, 2.5f / half), beyond = fminf(0.3f, 2.5f / half);
    for (int end = 0; end < (lv->lo < 0 ? 2 : 1); end++) {
        struct nj_fits f = { 0 };
        float last = end ? lv->lo : lv->hi;
        for (int c = 0; c < NJ_LANES; c++)
            f.scale[c] = peak / (last * (1 - inside + (inside + beyond) * (float)c / (NJ_LANES - 1)));
        judge(lv, v, &f, best);
    }
    struct nj_fits f = { 0 };
    for (int c = 0; c < NJ_LANES; c++) f.scale[c] = best->fit.scale * (1 + 0.01f * (float)(c - 3));
    judge(lv, v, &f, best);
}

/* Ranges whose ends reach beyond the least and the greatest value by a step, or clip them by none, one or two; then
 * small moves of both ends around the best. A step is 0.6 levels, or 0.06 of the range where levels are few. */
static void try_ranges(const struct nj_levels *lv, const struct nj_values *v, float lo, float hi, struct best *best)
{
    static const float move[2][NJ_LANES] = { { 0, 1, -1, 0, 0, 1, -1, 1 }, { 0, 0, 0, 1, -1, 1, -1, -1 } };
    float step = (hi - lo) * fminf(0.06f, 0.6f / lv->hi);
    for (int half = 0; half < 2; half++) {
        struct nj_fits f;
        for (int c = 0; c < NJ_LANES; c++) {
            float from = lo + step * (float)((c & 3) - 1);
            float to = hi - step * (float)(2 * half + (c >> 2) - 1);
            if (lv->min_negative && from > 0) from = 0;
            f.scale[c] = (to - from) / lv->hi;
            f.min[c] = from;
        }
        judge(lv, v, &f, best);
    }
    for (int round = 0; round < 2; round++) {
        struct nj_fits f;
        step = (round ? 0.25f : 0.5f) * best->fit.scale;
        for (int c = 0; c < NJ_LANES; c++) {
            f.min[c] = best->fit.min + step * move[0][c];
            f.scale[c] = best->fit.scale + step * (move[1][c] - move[0][c]) / lv->hi;
        }
        judge(lv, v, &f, best);
    }
}

struct nj_fit nj_search(const struct nj_levels *lv, const struct nj_values *v)
{
    struct best best = { 0 };
    float lo, hi;
    nj_range(v->x, v->n, &lo, &hi);
    if (lv->min_negative && lo > 0) lo = 0;
    if (lv->affine)
        try_ranges(lv, v, lo, hi, &best);
    else
        try_scales(lv, v, -lo > hi ? lo : hi, &best);
    return best.fit;
}

void nj_round(const struct nj_levels *lv, const float *x, int n, float scale, float min, uint8_t *code)
{
    __m128 inv = invert(_mm_set1_ps(scale)), lo = _mm_set1_ps(lv->lo), hi = _mm_set1_ps(lv->hi);
    for (int i = 0; i < n; i += 4) {
        __m128 t = _mm_mul_ps(_mm_sub_ps(_mm_loadu_ps(x + i), _mm_set1_ps(min)), inv);
        t = _mm_min_ps(_mm_max_ps(t, lo), hi);
        float value[4];
        int32_t whole[4];
        _mm_storeu_ps(value, t);
        _mm_storeu_si128((void *)whole, _mm_cvtps_epi32(_mm_sub_ps(t, lo)));
        for (int j = 0; j < 4; j++) {
            int k = 0;
            if (lv->table)
                while (k + 1 < lv->count && 2 * value[j] > (float)(lv->table[k] + lv->table[k + 1])) k++;
            else
                k = whole[j];
            code[i + j] = (uint8_t)k;
        }
    }
}

uint16_t nj_scale_store(const struct nj_levels *lv, const struct nj_values *v, struct nj_fit fit, int exponent)
{
    uint16_t half[NJ_LANES], nearest = nj_half_store(fit.scale, exponent);
    struct nj_fits f;
    float error[NJ_LANES];
    int best = 0;
    for (int c = 0; c < NJ_LANES; c++) {
        int bits = (nearest & 0x7fff) + (c % 2 ? -(c + 1) / 2 : c / 2); /* 0, -1, 1, -2, .. */
        bits = bits < 0 ? 0 : bits > 0x7bff ? 0x7bff : bits;
        half[c] = (uint16_t)(bits | (nearest & 0x8000));
        f.scale[c] = nj_half_load(half[c], exponent);
        f.min[c] = fit.min;
    }
    nj_errors(lv, v, &f, error);
    for (int c = 1; c < NJ_LANES; c++)
        if (error[c] < error[best]) best = c;
    return half[best];
}
