/* Weight products: the place where all weights are read, of dense layers and of experts alike. */
#include "engine/step.h"

#include <assert.h>

/* What multiplying costs beside reading: a core of today multiplies 16 int8 pairs (and unpacks one of them) in about
 * the time in which its share of the memory gives a byte. Only how experts with many rows weigh against those with few
 * depends on it. */
enum { PRODUCTS_PER_BYTE = 16 };

/* A worker's share of an op. Work is cut into units of some panels over all matrices that have rows (matrices count
 * from 0 through those in use). Workers get shares of equal cost, whatever the router picks: a unit costs the bytes of
 * its weights, and for each row its products over PRODUCTS_PER_BYTE. */
typedef struct share {
    const nj_step *s;
    const nj_op *op;
    const nj_groups *groups;
    uint32_t matrices, units; /* units in each matrix */
    uint64_t bytes, row_cost; /* of a unit */
    uint32_t matrix, unit;    /* the next */
    uint32_t end_matrix, end_unit;
} share;

/* A run of units of one matrix, for the rows that multiply it. */
typedef struct piece {
    uint32_t matrix, begin, end;
    uint32_t rows, wide; /* rows in all, the first `wide` of them by the wide recipe */
} piece;

static bool is_routed(const nj_op *op)
{
    return op->rows == NJ_ROWS_ROUTED;
}

static uint32_t rows_of(const share *sh, uint32_t matrix)
{
    if (!is_routed(sh->op)) return nj_op_rows(sh->s, sh->op);
    const uint32_t *first = sh->groups->first + sh->groups->active[matrix];
    return first[1] - first[0];
}

static uint64_t unit_cost(const share *sh, uint32_t matrix)
{
    return sh->bytes + sh->row_cost * rows_of(sh, matrix);
}

/* The first unit that begins `cost` or more after the beginning. */
static void find_unit(const share *sh, uint64_t cost, uint32_t *matrix, uint32_t *unit)
{
    *unit = 0;
    for (*matrix = 0; *matrix < sh->matrices; ++*matrix) {
        uint64_t each = unit_cost(sh, *matrix), all = each * sh->units;
        if (cost <= all - each) {
            *unit = (uint32_t)((cost + each - 1) / each);
            return;
        }
        cost = cost > all ? cost - all : 0;
    }
}

/* Cuts an op's work into units of `unit_panels` panels of each of its weights. */
static share take_share(const nj_step *s, const nj_op *op, uint32_t unit_panels, uint32_t units, uint32_t worker,
                        uint32_t workers)
{
    share sh = { .s = s, .op = op, .groups = &s->worker[worker].groups, .matrices = 1, .units = units };
    uint64_t total = 0;
    if (is_routed(op)) sh.matrices = sh.groups->active_count;
    for (int i = 0; i < 2; i++) {
        const nj_weight *w = i ? op->up : op->w;
        if (!w) continue;
        sh.bytes += unit_panels * nj_panel_bytes(w->panels.type, w->panels.cols);
        sh.row_cost += (uint64_t)unit_panels * NJ_PANEL_ROWS * w->panels.cols / PRODUCTS_PER_BYTE;
    }
    for (uint32_t i = 0; i < sh.matrices; i++) total += unit_cost(&sh, i) * units;
    find_unit(&sh, total * worker / workers, &sh.matrix, &sh.unit);
    find_unit(&sh, total * (worker + 1) / workers, &sh.end_matrix, &sh.end_unit);
    return sh;
}

/* Lists in own->row the rows of the op's destination that multiply a piece's matrix, wide ones first: each recipe is
 * one call of a kernel. */
static void list_rows(const share *sh, piece *p, const nj_worker *own)
{
    uint32_t n = 0;
    for (int wide = 1; wide >= 0; wide--) {
        for (uint32_t i = 0; i < p->rows; i++) {
            uint32_t row = is_routed(sh->op) ? sh->groups->entry[sh->groups->first[p->matrix] + i] : i;
            if (sh->s->wide[nj_step_row(sh->s, sh->op->rows, row)] == wide) own->row[n++] = row;
        }
        if (wide) p->wide = n;
    }
}

static bool next_piece(share *sh, piece *p, const nj_worker *own)
{
    if (sh->matrix > sh->end_matrix || (sh->matrix == sh->end_matrix && sh->unit == sh->end_unit)) return false;
    p->matrix = is_routed(sh->op) ? sh->groups->active[sh->matrix] : 0;
    p->begin = sh->unit;
    p->rows = rows_of(sh, sh->matrix);
    p->end = sh->matrix == sh->end_matrix ? sh->end_unit : sh->units;
    sh->unit = sh->matrix == sh->end_matrix ? p->end : 0;
    sh->matrix += sh->matrix < sh->end_matrix;
    list_rows(sh, p, own);
    return true;
}

/* One recipe's rows of a product, [begin, end) of own->x and own->y. A routed product reads the step's rows, or what
 * the same (row, rank) has left in a slot of its own. */
static void multiply_rows(const nj_step *s, const nj_op *op, const nj_panels *w, bool wide, uint32_t begin,
                          uint32_t end, const nj_worker *own)
{
    const nj_kernels *k = s->kernels;
    nj_linear_fn *linear = wide ? k->linear_wide[w->type] : NULL; /* none for F32 weights */
    bool acts = linear, by_row = is_routed(op) && !nj_slot_is_routed(op->src);
    if (begin == end) return;
    if (op->f32 || s->acts_f32) {
        linear = k->linear_f32[w->type];
        acts = false;
    } else if (!linear) {
        linear = k->linear[w->type];
        acts = nj_acts_of(w->type) == NJ_ACTS_INT8;
    }
    for (uint32_t i = begin; i < end; i++) {
        uint32_t row = by_row ? own->row[i] / s->m->h.experts_used : own->row[i];
        own->x[i] = acts ? nj_acts_row(s, op->src, row) : (const void *)nj_slot_row(s, op->src, row);
    }
    linear(w, 0, (w->rows + NJ_PANEL_ROWS - 1) / NJ_PANEL_ROWS, own->x + begin, own->y + begin, end - begin);
}

/* own->y[i] = panels [begin, end) of a piece's matrix times its i-th row. */
static void multiply(const nj_step *s, const nj_op *op, const nj_weight *weight, const piece *p, uint32_t begin,
                     uint32_t end, const nj_worker *own)
{
    nj_panels w = nj_weight_at(weight, p->matrix);
    uint32_t first = begin * NJ_PANEL_ROWS, last = end * NJ_PANEL_ROWS;
    w.data = (const char *)w.data + begin * nj_panel_bytes(w.type, w.cols);
    w.rows = (last < w.rows ? last : w.rows) - first;
    multiply_rows(s, op, &w, true, 0, p->wide, own);
    multiply_rows(s, op, &w, false, p->wide, p->rows, own);
    if (!weight->bias) return;
    for (uint32_t i = 0; i < p->rows; i++)
        for (uint32_t o = 0; o < w.rows; o++) own->y[i][o] += weight->bias[first + o];
}

void nj_step_linear(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    const nj_worker *own = &s->worker[worker];
    uint32_t panels = (op->w->panels.rows + NJ_PANEL_ROWS - 1) / NJ_PANEL_ROWS;
    share sh = take_share(s, op, 1, panels, worker, workers);
    piece p;
    while (next_piece(&sh, &p, own)) {
        for (uint32_t i = 0; i < p.rows; i++)
            own->y[i] = nj_slot_row(s, op->dst, own->row[i]) + op->dst_offset + p.begin * NJ_PANEL_ROWS;
        multiply(s, op, op->w, &p, p.begin, p.end, own);
    }
}

static_assert((int)NJ_ACT_SILU == NJ_GLU_SILU && (int)NJ_ACT_GELU_TANH == NJ_GLU_GELU_TANH, "kernels go by activation");

/* Columns [begin, end) of the activation, for all rows of a piece. Gate's first column begins a panel; up's need not,
 * where it follows gate in one matrix. */
static void glu_columns(const nj_step *s, const nj_op *op, const piece *p, uint32_t begin, uint32_t end,
                        const nj_worker *own)
{
    uint32_t gate_panel = begin / NJ_PANEL_ROWS, gate_end = (end + NJ_PANEL_ROWS - 1) / NJ_PANEL_ROWS;
    uint32_t up_at = op->up_row + begin, up_panel = up_at / NJ_PANEL_ROWS;
    uint32_t up_end = (op->up_row + end + NJ_PANEL_ROWS - 1) / NJ_PANEL_ROWS;
    size_t gate_width = (gate_end - gate_panel) * NJ_PANEL_ROWS, up_width = (up_end - up_panel) * NJ_PANEL_ROWS;
    float *gate = own->glu, *up = gate + p->rows * gate_width;
    for (uint32_t i = 0; i < p->rows; i++) own->y[i] = gate + i * gate_width;
    multiply(s, op, op->w, p, gate_panel, gate_end, own);
    for (uint32_t i = 0; i < p->rows; i++) own->y[i] = up + i * up_width;
    multiply(s, op, op->up, p, up_panel, up_end, own);
    up += up_at % NJ_PANEL_ROWS;
    for (uint32_t i = 0; i < p->rows; i++) {
        float *out = nj_slot_row(s, op->dst, own->row[i]) + begin;
        s->kernels->glu[op->act](gate + i * gate_width, up + i * up_width, out, end - begin);
        nj_step_quantize(s, op, own->row[i], begin, end);
    }
}

/* One pass over gate, up, activation and rounding, some columns at a time, so that nothing between them leaves the
 * cache: as four ops they wrote and read 8 * d_ff bytes per row, and of 256 rows that is more than an L2 holds. */
void nj_step_glu(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    const nj_worker *own = &s->worker[worker];
    uint32_t units = (op->width + NJ_GLU_COLUMNS - 1) / NJ_GLU_COLUMNS;
    share sh = take_share(s, op, NJ_GLU_COLUMNS / NJ_PANEL_ROWS, units, worker, workers);
    piece p;
    while (next_piece(&sh, &p, own)) {
        uint32_t step = (s->glu_floats / p.rows - NJ_GLU_FLOATS(0)) / (2 * NJ_GLU_COLUMNS);
        for (uint32_t u = p.begin; u < p.end; u += step) {
            uint32_t end = p.end - u < step ? p.end : u + step;
            glu_columns(s, op, &p, u * NJ_GLU_COLUMNS, end == units ? op->width : end * NJ_GLU_COLUMNS, own);
        }
    }
}
