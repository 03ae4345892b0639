#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "appliance/cli.h"
#include "appliance/score.h"

double nj_log_sum_exp(const float *logits, size_t n)
{
    double sum = 0, top = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (logits[i] > top) top = logits[i];
    for (size_t i = 0; i < n; i++) sum += exp(logits[i] - top);
    return top + log(sum);
}

double nj_divergence(const float *reference, const float *logits, size_t n)
{
    double total = nj_log_sum_exp(reference, n), other = nj_log_sum_exp(logits, n), sum = 0;
    for (size_t i = 0; i < n; i++) {
        double log_p = (double)reference[i] - total;
        sum += exp(log_p) * (log_p - ((double)logits[i] - other));
    }
    return sum;
}

void nj_mean_add(nj_mean *m, double x)
{
    double before = x - m->mean;
    m->n++;
    m->mean += before / (double)m->n;
    m->m2 += before * (x - m->mean);
}

double nj_mean_error(const nj_mean *m)
{
    return m->n < 2 ? 0 : sqrt(m->m2 / (double)(m->n - 1) / (double)m->n);
}

/* One engine's side of a run. */
typedef struct side {
    nj_engine *engine;
    nj_sequence *sequence;
    const float *logits; /* of the next row that asked */
} side;

/* Computes `count` tokens, those from `first` on with logits. */
static int compute(const nj_score *s, side *one, nj_row *rows, const int32_t *tokens, uint32_t count, uint32_t first,
                   nj_error *err)
{
    if (!one->engine) return 0;
    for (uint32_t i = 0; i < count; i++)
        rows[i] = (nj_row){ .sequence = one->sequence, .token = tokens[i], .logits = i >= first, .prompt = s->prompt };
    return nj_engine_step(one->engine, rows, count, &one->logits, err);
}

int nj_score_tokens(const nj_score *s, const int32_t *tokens, size_t n, size_t first, nj_error *err)
{
    side own = { .engine = s->engine }, reference = { .engine = s->reference };
    nj_row *rows = nj_array_new(s->rows, sizeof *rows);
    int rc = rows ? nj_sequence_new(s->engine, &own.sequence, err) : nj_fail(err, -ENOMEM, "There is no memory left.");
    if (rc == 0 && s->reference) rc = nj_sequence_new(s->reference, &reference.sequence, err);
    for (size_t at = 0; at < n && rc == 0;) {
        uint32_t count = n - at < s->rows ? (uint32_t)(n - at) : s->rows;
        uint32_t skip = at >= first ? 0 : first - at < count ? (uint32_t)(first - at) : count;
        rc = compute(s, &own, rows, tokens + at, count, skip, err);
        if (rc == 0) rc = compute(s, &reference, rows, tokens + at, count, skip, err);
        for (uint32_t i = skip; i < count && rc == 0; i++) {
            size_t offset = (size_t)(i - skip) * s->vocab;
            rc = s->fn(s->arg, at + i, own.logits + offset, s->reference ? reference.logits + offset : NULL, err);
        }
        at += count;
        if (rc == 0 && nj_cli_interrupted) rc = nj_fail(err, -ECANCELED, "Stopped.");
    }
    if (reference.sequence) nj_sequence_free(s->reference, reference.sequence);
    if (own.sequence) nj_sequence_free(s->engine, own.sequence);
    free(rows);
    return rc;
}
