/* Weight products: the one op through which all weights are read, of dense layers and of experts alike. */
#include "engine/step.h"

/* A run of panels of one matrix, for the rows that multiply it. */
typedef struct piece {
    uint32_t matrix, begin, end; /* panels [begin, end) */
} piece;

/* Work is cut by panels over all matrices that have rows, so that workers share every step equally whatever the router
 * picks. Matrices count from 0 through those in use. */
static bool next_piece(const nj_step *s, const nj_op *op, uint32_t panels, uint64_t *at, uint64_t end, piece *out)
{
    if (*at >= end) return false;
    uint64_t stop = (*at / panels + 1) * panels;
    if (stop > end) stop = end;
    out->matrix = op->rows == NJ_ROWS_ROUTED ? s->routing.active[*at / panels] : 0;
    out->begin = (uint32_t)(*at % panels);
    out->end = out->begin + (uint32_t)(stop - *at);
    *at = stop;
    return true;
}

/* Points own->x and own->y at the rows that multiply a matrix; returns how many there are. Rows of an expert come from
 * the step's rows, or from what the same (row, rank) has left in a slot of its own. */
static uint32_t point_at_rows(const nj_step *s, const nj_op *op, uint32_t matrix, const nj_worker *own)
{
    const nj_routing *r = &s->routing;
    bool routed = op->rows == NJ_ROWS_ROUTED, src_routed = nj_slot_is_routed(op->src);
    uint32_t n = routed ? r->first[matrix + 1] - r->first[matrix] : nj_op_rows(s, op);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t row = routed ? r->entry[r->first[matrix] + i] : i;
        own->x[i] = nj_slot_row(s, op->src, routed && !src_routed ? row / s->m->h.experts_used : row);
        own->y[i] = nj_slot_row(s, op->dst, row) + op->dst_offset;
    }
    return n;
}

void nj_step_linear(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    const nj_worker *own = &s->worker[worker];
    uint32_t panels = (op->w->panels.rows + NJ_PANEL_ROWS - 1) / NJ_PANEL_ROWS;
    uint32_t matrices = op->rows == NJ_ROWS_ROUTED ? s->routing.active_count : 1;
    uint64_t at, end;
    piece p;
    nj_share((uint64_t)panels * matrices, worker, workers, &at, &end);
    while (next_piece(s, op, panels, &at, end, &p)) {
        uint32_t n = point_at_rows(s, op, p.matrix, own);
        nj_panels w = nj_weight_at(op->w, p.matrix);
        s->kernels->linear_f32[w.type](&w, p.begin, p.end, own->x, own->y, n);
        if (!op->w->bias) continue;
        uint32_t last = p.end < panels ? p.end * NJ_PANEL_ROWS : w.rows;
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t o = p.begin * NJ_PANEL_ROWS; o < last; o++) own->y[i][o] += op->w->bias[o];
    }
}
