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

int nj_score_tokens(const nj_score *s, const int32_t *tokens, size_t n, size_t first, nj_error *err)
{
    nj_sequence *sequence = NULL;
    nj_row *rows = nj_array_new(s->rows, sizeof *rows);
    int rc = rows ? nj_sequence_new(s->engine, &sequence, err) : nj_fail(err, -ENOMEM, "There is no memory left.");
    for (size_t at = 0; at < n && rc == 0;) {
        const float *logits = NULL;
        uint32_t count = n - at < s->rows ? (uint32_t)(n - at) : s->rows;
        for (uint32_t i = 0; i < count; i++)
            rows[i] = (nj_row){ .sequence = sequence, .token = tokens[at + i], .logits = at + i >= first };
        rc = nj_engine_step(s->engine, rows, count, &logits, err);
        for (uint32_t i = 0; i < count && rc == 0; i++) {
            if (!rows[i].logits) continue;
            rc = s->fn(s->arg, at + i, logits, err);
            logits += s->vocab;
        }
        at += count;
        if (rc == 0 && nj_cli_interrupted) rc = nj_fail(err, -ECANCELED, "Stopped.");
    }
    if (sequence) nj_sequence_free(s->engine, sequence);
    free(rows);
    return rc;
}
