/* Running a model over given tokens, for the verbs that look at logits rather than text. */
#ifndef NJ_SCORE_H
#define NJ_SCORE_H

#include "engine/nj_engine.h"

/* One position's logits, valid during the call; `reference`: the other engine's, or NULL. A negative result stops the
 * run. */
typedef int nj_score_fn(void *arg, size_t position, const float *logits, const float *reference, nj_error *err);

typedef struct nj_score {
    nj_engine   *engine;
    nj_engine   *reference; /* computes the same tokens for comparison; may be NULL */
    uint32_t     vocab;
    uint32_t     rows;      /* of a step, at most the engines' rows_max */
    bool         prompt;    /* as rows of a prompt */
    nj_score_fn *fn;
    void        *arg;
} nj_score;

/* Computes tokens[0..n) from empty sequences and calls `fn` for the positions from `first` on.
 * Ctrl-C (nj_cli_interrupted) gives -ECANCELED. */
int nj_score_tokens(const nj_score *s, const int32_t *tokens, size_t n, size_t first, nj_error *err);

/* Natural log of the sum of exp(logits), in double. */
double nj_log_sum_exp(const float *logits, size_t n);

/* Kullback-Leibler divergence in nats of the distribution that `logits` stand for from that of `reference`. */
double nj_divergence(const float *reference, const float *logits, size_t n);

/* Sums for a mean with its standard error (Welford's recurrence, which loses nothing on long texts). */
typedef struct nj_mean { uint64_t n; double mean, m2; } nj_mean;

void   nj_mean_add(nj_mean *m, double x);
double nj_mean_error(const nj_mean *m); /* standard error of the mean; 0 for fewer than 2 values */

#endif
