/* The search for scales that all block formats share. Private to quant/encode*.c.
 *
 * A block rounds its values x to scale * level + min, level one of a short list; weights say how much an error of each
 * value counts. For a given rounding the best scale and min follow from three sums (least squares), so the search
 * tries roundings and keeps the one whose best fit leaves the least squared error. Candidates sit in the lanes of
 * vectors: nothing is added across lanes, so every compiler gives the same bits. */
#ifndef NJ_ENCODE_SEARCH_H
#define NJ_ENCODE_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#define NJ_LANES 8 /* candidates judged at once */

/* The levels that codes 0, 1, .. stand for: the whole numbers lo..hi, or a table. */
struct nj_levels {
    float lo, hi;
    int count;
    bool affine;             /* scale * level + min; else min is 0 */
    bool min_negative;       /* affine with min <= 0 only: the K formats store -min, unsigned */
    const int8_t *table;     /* [count] ascending; NULL: whole numbers */
    const float *near_level; /* [hi - lo + 1], with a table: the level nearest to lo, lo + 1, .. hi */
};

/* A block as the search sees it: n (a multiple of 4, at most 32) values with |x| <= 2, and their weights. */
struct nj_values {
    const float *x, *w;
    int n;
    float sw, sx; /* sums of w and w*x */
};

/* Candidate fits, one per lane. */
struct nj_fits {
    float scale[NJ_LANES], min[NJ_LANES];
};

/* Per lane: the sums of w*l, w*l*l and w*x*l over a block, l being the level that a value was rounded to. */
struct nj_sums {
    float l[NJ_LANES], ll[NJ_LANES], xl[NJ_LANES];
};

struct nj_fit {
    float scale, min;
    float stiffness; /* sum of w*l*l of its rounding: squared error added per squared error of the scale */
};

struct nj_values nj_values_of(const float *x, const float *w, int n);

/* Rounds the block with each fit and takes the sums. A rounding with a table may miss the nearest level by a hair. */
void nj_sums_take(const struct nj_levels *lv, const struct nj_values *v, const struct nj_fits *f, struct nj_sums *out);

/* gain[lane]: sum(w*x*x) minus the squared error of the fit `f` when values are rounded as these sums say. */
void nj_gains(const struct nj_values *v, const struct nj_sums *s, const struct nj_fits *f, float *gain);

/* error[lane]: the squared error itself. It tells fits apart that differ by less than the rounding of gains. */
void nj_errors(const struct nj_levels *lv, const struct nj_values *v, const struct nj_fits *f, float *error);

/* The lane of the greatest gain; the first among equals. */
int nj_lane_best(const float *gain);

/* The fit of least squared error. Values that are all zero (or vanish in float arithmetic) give scale 0. */
struct nj_fit nj_search(const struct nj_levels *lv, const struct nj_values *v);

#define NJ_NEAR_MAX 256

/* Fills near_level[table[count - 1] - table[0] + 1] for a table of levels. */
void nj_near_levels(const int8_t *table, int count, float *near_level);

/* The code of the level nearest to each value under a fit; with scale 0 that of the level nearest to 0. */
void nj_round(const struct nj_levels *lv, const float *x, int n, float scale, float min, uint8_t *code);

/* The half float in which to store fit.scale * 2^exponent: of the eight around it the one with the least squared error.
 * (Among subnormals neighbours are far apart, and rounding up, so that no level is clipped, is often the better.) */
uint16_t nj_scale_store(const struct nj_levels *lv, const struct nj_values *v, struct nj_fit fit, int exponent);

/* x * 2^exponent as a half float, saturated at the largest finite one; and a half float times 2^-exponent. */
uint16_t nj_half_store(float x, int exponent);
float nj_half_load(uint16_t h, int exponent);

/* Copies n values, those not finite as 0, scaled by 2^-exponent so that the largest magnitude lies in [1, 2).
 * Returns that magnitude in the scale of x, 0 for an all-zero block. */
float nj_load(const float *x, int n, float *out, int *exponent);

void nj_range(const float *x, int n, float *lo, float *hi); /* least and greatest value */

/* Blocks whose magnitudes stay below this are zero in every format with half-float scales. */
#define NJ_VANISHES 0x1p-40f

#endif
