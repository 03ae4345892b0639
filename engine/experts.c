/* Mixture of experts: routing, grouping rows by expert, and products that read each expert's weights once per step. */
#include "engine/step.h"

#include <math.h>
#include <string.h>

/* Softmax over all experts, the `used` largest in order (ties to the lower index), optionally scaled to sum to 1. */
static void route_row(const nj_hparams *h, const float *logits, float *prob, uint32_t *chosen, float *weight)
{
    float top = logits[0], total = 0.0f, kept = 0.0f;
    for (uint32_t e = 1; e < h->experts; e++) top = logits[e] > top ? logits[e] : top;
    for (uint32_t e = 0; e < h->experts; e++) total += prob[e] = expf(logits[e] - top);
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
void nj_step_group(nj_step *s, const nj_op *op)
{
    nj_routing *r = &s->routing;
    uint32_t experts = s->m->h.experts, entries = s->rows * s->m->h.experts_used;
    memset(r->first, 0, sizeof *r->first * (experts + 1));
    for (uint32_t i = 0; i < entries; i++) r->first[r->chosen[i] + 1]++;
    r->active_count = 0;
    for (uint32_t e = 0; e < experts; e++) {
        if (r->first[e + 1]) r->active[r->active_count++] = e;
        r->first[e + 1] += r->first[e];
    }
    for (uint32_t i = 0; i < entries; i++) r->entry[r->first[r->chosen[i]]++] = i;
    memmove(r->first + 1, r->first, sizeof *r->first * experts); /* each start has moved to its end: shift back */
    r->first[0] = 0;
    r->bytes += r->active_count * op->bytes;
}

/* One expert's panels [begin, end) for all its rows. Returns the number of rows; pointers are left in own->x and
 * own->y. */
static uint32_t expert_linear(const nj_step *s, const nj_weight *w, uint32_t expert, uint32_t begin, uint32_t end,
                              nj_slot src, bool src_per_entry, nj_slot dst, uint32_t dst_offset, const nj_worker *own)
{
    const nj_routing *r = &s->routing;
    const uint32_t *entry = r->entry + r->first[expert];
    uint32_t n = r->first[expert + 1] - r->first[expert], used = s->m->h.experts_used;
    for (uint32_t i = 0; i < n; i++) {
        own->x[i] = nj_slot_row(s, src, src_per_entry ? entry[i] : entry[i] / used);
        own->y[i] = nj_slot_row(s, dst, entry[i]) + dst_offset;
    }
    nj_panels panels = nj_weight_at(w, expert);
    s->kernels->linear[panels.type](&panels, begin, end, own->x, own->y, n);
    return n;
}

/* This worker's share of all active experts' panels, as (expert, first panel, end panel) pieces. */
typedef struct piece {
    uint32_t expert, begin, end;
} piece;

static bool next_piece(const nj_step *s, uint32_t panels, uint64_t *at, uint64_t end, piece *out)
{
    if (*at >= end) return false;
    uint64_t stop = (*at / panels + 1) * panels;
    if (stop > end) stop = end;
    out->expert = s->routing.active[*at / panels];
    out->begin = (uint32_t)(*at % panels);
    out->end = out->begin + (uint32_t)(stop - *at);
    *at = stop;
    return true;
}

/* Gate and up of the same outputs go to the same worker, so the activation needs no barrier of its own. */
void nj_step_expert_up(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    const nj_worker *own = &s->worker[worker];
    uint32_t panels = (op->width + NJ_PANEL_ROWS - 1) / NJ_PANEL_ROWS;
    uint64_t at, end;
    piece p;
    nj_share((uint64_t)panels * s->routing.active_count, worker, workers, &at, &end);
    while (next_piece(s, panels, &at, end, &p)) {
        expert_linear(s, op->w, p.expert, p.begin, p.end, op->src, false, NJ_SLOT_EXPERT_FF, 0, own);
        uint32_t n =
            expert_linear(s, op->w2, p.expert, p.begin, p.end, op->src, false, NJ_SLOT_EXPERT_FF, op->width, own);
        uint32_t first = p.begin * NJ_PANEL_ROWS, last = p.end * NJ_PANEL_ROWS;
        if (last > op->width) last = op->width;
        const uint32_t *entry = s->routing.entry + s->routing.first[p.expert];
        for (uint32_t i = 0; i < n; i++) {
            const float *up = own->y[i], *gate = up - op->width;
            nj_glu(op->act, gate + first, up + first, nj_slot_row(s, op->dst, entry[i]) + first, last - first);
        }
    }
}

void nj_step_expert_down(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    uint32_t panels = (op->width + NJ_PANEL_ROWS - 1) / NJ_PANEL_ROWS;
    uint64_t at, end;
    piece p;
    nj_share((uint64_t)panels * s->routing.active_count, worker, workers, &at, &end);
    while (next_piece(s, panels, &at, end, &p))
        expert_linear(s, op->w, p.expert, p.begin, p.end, op->src, true, op->dst, 0, &s->worker[worker]);
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
