/* Mixture of experts around its products: routing, grouping rows by expert, adding up. */
#include "engine/step.h"

#include <math.h>
#include <string.h>

/* Softmax over all experts, the `used` largest in order (ties to the lower index), optionally scaled to sum to 1. The
 * experts of a row differ also where logits are NaN (so are its weights then): lists have room for each row once. */
static void route_row(const nj_hparams *h, const float *logits, float *prob, uint32_t *chosen, float *weight)
{
    float top = logits[0], total = 0.0f, kept = 0.0f;
    for (uint32_t e = 1; e < h->experts; e++) top = logits[e] > top ? logits[e] : top;
    for (uint32_t e = 0; e < h->experts; e++) {
        total += prob[e] = expf(logits[e] - top);
        if (isnan(prob[e])) prob[e] = 0.0f;
    }
    for (uint32_t k = 0; k < h->experts_used; k++) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < h->experts; e++)
            if (prob[e] > prob[best]) best = e;
        chosen[k] = best;
        weight[k] = prob[best] / total;
        kept += weight[k];
        prob[best] = -1.0f;
    }
    float scale = h->expert_weights_scale / (h->expert_weights_norm ? kept : 1.0f);
    for (uint32_t k = 0; k < h->experts_used; k++) weight[k] *= scale;
}

void nj_step_route(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    uint64_t begin, end;
    const nj_hparams *h = &s->m->h;
    nj_share(s->rows, worker, workers, &begin, &end);
    for (uint64_t row = begin; row < end; row++)
        route_row(h, nj_slot_row(s, op->src, (uint32_t)row), s->worker[worker].norm,
                  s->routing.chosen + row * h->experts_used, s->routing.weight + row * h->experts_used);
}

/* A counting sort of (row, rank) entries by expert; entries of an expert stay in row order. */
void nj_step_group(nj_step *s, const nj_op *op, uint32_t worker)
{
    const nj_routing *r = &s->routing;
    nj_groups *g = &s->worker[worker].groups;
    uint32_t experts = s->m->h.experts, entries = s->rows * s->m->h.experts_used;
    memset(g->first, 0, sizeof *g->first * (experts + 1));
    for (uint32_t i = 0; i < entries; i++) g->first[r->chosen[i] + 1]++;
    g->active_count = 0;
    for (uint32_t e = 0; e < experts; e++) {
        if (g->first[e + 1]) g->active[g->active_count++] = e;
        g->first[e + 1] += g->first[e];
    }
    for (uint32_t i = 0; i < entries; i++) g->entry[g->first[r->chosen[i]]++] = i;
    memmove(g->first + 1, g->first, sizeof *g->first * experts); /* each start has moved to its end: shift back */
    g->first[0] = 0;
    if (worker == 0) s->routing.bytes += g->active_count * op->bytes;
}

/* Outputs are added in router rank order, whatever order the experts were computed in. */
void nj_step_combine(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    uint64_t begin, end;
    uint32_t used = s->m->h.experts_used;
    nj_share(s->rows, worker, workers, &begin, &end);
    for (uint32_t row = (uint32_t)begin; row < end; row++) {
        float *y = nj_slot_row(s, op->dst, row);
        memset(y, 0, sizeof *y * op->width);
        for (uint32_t k = 0; k < used; k++) {
            const float *x = nj_slot_row(s, op->src, row * used + k);
            float weight = s->routing.weight[row * used + k];
            for (uint32_t i = 0; i < op->width; i++) y[i] += weight * x[i];
        }
    }
}
