/* The interpreter of the layer program: every worker walks the same ops and does its share of each. */
#include "engine/step.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* This worker's share of the op's rows. */
static void own_rows(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers, uint32_t *begin,
                     uint32_t *end)
{
    uint64_t b, e;
    nj_share(nj_op_rows(s, op), worker, workers, &b, &e);
    *begin = (uint32_t)b;
    *end = (uint32_t)e;
}

static void op_embed(const nj_step *s, const nj_op *op, uint32_t row)
{
    const nj_model *m = s->m;
    float *x = nj_slot_row(s, op->dst, row);
    if (m->embed_rows) {
        uint64_t bytes = nj_row_bytes(m->embed_type, op->width);
        nj_decode(m->embed_type, (const char *)m->embed_rows + bytes * (uint32_t)s->token[row], x, op->width);
    } else {
        nj_panels_row(&m->output.panels, (uint32_t)s->token[row], x);
    }
    if (op->scale != 1.0f)
        for (uint32_t i = 0; i < op->width; i++) x[i] *= op->scale;
}

/* Angles are computed in double: at position 100000 a float angle is off by 0.004. */
static void fill_rope(const nj_step *s, uint32_t row)
{
    uint32_t half = s->m->h.rope_dim / 2;
    float *table = s->rope + (size_t)row * 2 * half;
    for (uint32_t i = 0; i < half; i++) {
        double angle = s->position[row] * s->m->rope_freq[i];
        table[2 * i] = (float)cos(angle) * s->m->rope_magnitude;
        table[2 * i + 1] = (float)sin(angle) * s->m->rope_magnitude;
    }
}

/* RMS norm (Zhang & Sennrich 2019); the sum in double, as a model may be 16k wide. */
static void rms_norm(const float *x, const float *weight, float *y, uint32_t n, float eps)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    float scale = (float)(1.0 / sqrt(sum / n + (double)eps));
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];
}

/* The residual row of a selected row is where its row lies; selected ops before the last product read it from there. */
static void op_norm(const nj_step *s, const nj_op *op, uint32_t row)
{
    uint32_t src = op->rows == NJ_ROWS_SELECTED ? s->select[row] : row;
    rms_norm(nj_slot_row(s, op->src, src), op->vec, nj_slot_row(s, op->dst, row), op->width, op->scale);
}

static void op_head_norm(const nj_step *s, const nj_op *op, uint32_t row)
{
    float *x = nj_slot_row(s, op->dst, row) + op->dst_offset;
    for (uint32_t h = 0; h < op->heads; h++, x += op->width) rms_norm(x, op->vec, x, op->width, op->scale);
}

/* Rotary position (Su et al. 2021): pairs lie side by side (llama) or half the rotated dimensions apart (neox). */
static void op_rope(const nj_step *s, const nj_op *op, uint32_t row)
{
    uint32_t half = s->m->h.rope_dim / 2, gap = s->m->h.rope_neox ? half : 1, step = s->m->h.rope_neox ? 1 : 2;
    const float *table = s->rope + (size_t)row * 2 * half;
    float *x = nj_slot_row(s, op->dst, row) + op->dst_offset;
    for (uint32_t h = 0; h < op->heads; h++, x += op->width)
        for (uint32_t i = 0; i < half; i++) {
            float a = x[i * step], b = x[i * step + gap], c = table[2 * i], n = table[2 * i + 1];
            x[i * step] = a * c - b * n;
            x[i * step + gap] = a * n + b * c;
        }
}

static void op_kv_store(const nj_step *s, const nj_op *op, uint32_t row)
{
    const nj_kv *kv = s->kv;
    uint32_t position = s->position[row], slot = position % NJ_KV_PAGE;
    const nj_kv_page *page = s->sequence[row]->page[s->m->layer_cache[op->layer].group][position / NJ_KV_PAGE];
    const float *k = nj_slot_row(s, op->src, row) + op->src_offset, *v = k + op->heads * op->width;
    for (uint32_t h = 0; h < op->heads; h++) {
        char *dst = nj_kv_keys(kv, page, op->layer, h) + (size_t)slot * kv->row_bytes;
        s->kernels->store[kv->type](k + h * op->width, dst, op->width);
        s->kernels->store[kv->type](v + h * op->width, dst + nj_kv_values(kv), op->width);
    }
}

static float silu(float x)
{
    return x / (1.0f + expf(-x));
}

static float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x))); /* sqrt(2 / pi) */
}

static void op_glu(const nj_step *s, const nj_op *op, uint32_t row)
{
    const float *gate = nj_slot_row(s, op->src, row), *up = gate + op->width;
    float *out = nj_slot_row(s, op->dst, row);
    if (op->act == NJ_ACT_SILU)
        for (uint32_t i = 0; i < op->width; i++) out[i] = silu(gate[i]) * up[i];
    else
        for (uint32_t i = 0; i < op->width; i++) out[i] = gelu_tanh(gate[i]) * up[i];
}

static void op_add(const nj_step *s, const nj_op *op, uint32_t row)
{
    float *y = nj_slot_row(s, op->dst, row);
    const float *x = nj_slot_row(s, op->src, row);
    for (uint32_t i = 0; i < op->width; i++) y[i] += x[i];
}

static void op_gated_add(const nj_step *s, const nj_op *op, uint32_t row)
{
    float *y = nj_slot_row(s, op->dst, row);
    const float *x = nj_slot_row(s, op->src, row), *h = nj_slot_row(s, op->src2, row);
    double dot = 0.0;
    for (uint32_t i = 0; i < op->width; i++) dot += (double)h[i] * (double)op->vec[i];
    float gate = (float)(1.0 / (1.0 + exp(-dot)));
    for (uint32_t i = 0; i < op->width; i++) y[i] += gate * x[i];
}

static void op_softcap(const nj_step *s, const nj_op *op, uint32_t row)
{
    float *x = nj_slot_row(s, op->dst, row);
    for (uint32_t i = 0; i < op->width; i++) x[i] = op->scale * tanhf(x[i] / op->scale);
}

static void run_row_op(const nj_step *s, const nj_op *op, uint32_t row)
{
    switch (op->kind) {
    case NJ_OP_EMBED:
        op_embed(s, op, row);
        fill_rope(s, row);
        break;
    case NJ_OP_NORM: op_norm(s, op, row); break;
    case NJ_OP_HEAD_NORM: op_head_norm(s, op, row); break;
    case NJ_OP_ROPE: op_rope(s, op, row); break;
    case NJ_OP_KV_STORE: op_kv_store(s, op, row); break;
    case NJ_OP_GLU: op_glu(s, op, row); break;
    case NJ_OP_ADD: op_add(s, op, row); break;
    case NJ_OP_GATED_ADD: op_gated_add(s, op, row); break;
    case NJ_OP_SOFTCAP: op_softcap(s, op, row); break;
    default: __builtin_unreachable(); /* the builder gives NJ_BY_ROW to no other op */
    }
}

static void run_op(nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    uint32_t begin, end;
    switch (op->kind) {
    case NJ_OP_LINEAR: nj_step_linear(s, op, worker, workers); return;
    case NJ_OP_ATTENTION: nj_step_attention(s, op, worker, workers); return;
    case NJ_OP_ROUTE: nj_step_route(s, op, worker, workers); return;
    case NJ_OP_GROUP:
        if (worker == 0) nj_step_group(s, op);
        return;
    case NJ_OP_COMBINE: nj_step_combine(s, op, worker, workers); return;
    default: own_rows(s, op, worker, workers, &begin, &end);
    }
    for (uint32_t row = begin; row < end; row++) run_row_op(s, op, row);
}

static void run_program(void *arg, uint32_t worker, uint32_t workers)
{
    nj_step *s = arg;
    for (size_t i = 0; i < s->m->op_count; i++) {
        const nj_op *op = &s->m->op[i];
        run_op(s, op, worker, workers);
        if (op->barrier) nj_pool_barrier(s->pool);
    }
}

void nj_step_run(nj_step *s)
{
    s->routing.bytes = 0;
    nj_pool_run(s->pool, run_program, s);
}

/* Slots and scratch are cut from one arena in two passes: the first only adds sizes up (arena NULL). */
typedef struct cutter {
    nj_arena *arena;
    uint64_t bytes;
} cutter;

static void cut(cutter *c, void *pointer, uint64_t count, uint64_t size)
{
    uint64_t bytes = (count * size + 63) / 64 * 64 + 64;
    c->bytes += bytes;
    if (!c->arena) return;
    void *p = nj_arena_take(c->arena, bytes, 64);
    memcpy(pointer, &p, sizeof p);
}

static void cut_attention(const nj_step *s, nj_attention *own, cutter *c)
{
    uint64_t queries = nj_attention_size_of(s).queries, dim = s->m->h.head_dim;
    cut(c, &own->q, queries * ((dim + 63) / 64 * 64), sizeof *own->q);
    cut(c, &own->out, queries * nj_attend_width((uint32_t)dim), sizeof *own->out);
    cut(c, &own->run, queries, sizeof *own->run);
    cut(c, &own->total, queries, sizeof *own->total);
    cut(c, &own->span, queries, sizeof *own->span);
    cut(c, &own->scratch, nj_attend_scratch((uint32_t)queries, (uint32_t)dim), sizeof *own->scratch);
}

static void cut_step(nj_step *s, cutter *c)
{
    const nj_hparams *h = &s->m->h;
    uint64_t rows = s->rows_max, ranks = h->experts ? h->experts_used : 1, entries = rows * ranks;
    cut(c, &s->token, rows, sizeof *s->token);
    cut(c, &s->position, rows, sizeof *s->position);
    cut(c, &s->sequence, rows, sizeof *s->sequence);
    cut(c, &s->select, rows, sizeof *s->select);
    cut(c, &s->rope, rows * h->rope_dim, sizeof *s->rope);
    for (int i = 0; i < NJ_SLOT_COUNT; i++) {
        cut(c, &s->slot[i], (nj_slot_is_routed((nj_slot)i) ? entries : rows) * s->m->slot_width[i], sizeof(float));
    }
    nj_routing *r = &s->routing;
    cut(c, &r->chosen, entries, sizeof *r->chosen);
    cut(c, &r->weight, entries, sizeof *r->weight);
    cut(c, &r->first, h->experts + 1, sizeof *r->first);
    cut(c, &r->entry, entries, sizeof *r->entry);
    cut(c, &r->active, h->experts, sizeof *r->active);
    uint64_t kept = nj_attention_size_of(s).kept;
    cut(c, &s->kept_run, kept, sizeof *s->kept_run);
    cut(c, &s->kept_out, kept * nj_attend_width(h->head_dim), sizeof *s->kept_out);
    uint32_t workers = nj_pool_workers(s->pool);
    cut(c, &s->worker, workers, sizeof *s->worker);
    for (uint32_t w = 0; w < workers; w++) {
        nj_worker sizes, *own = c->arena ? &s->worker[w] : &sizes;
        cut(c, &own->x, entries, sizeof *own->x);
        cut(c, &own->y, entries, sizeof *own->y);
        cut_attention(s, &own->attention, c);
        cut(c, &own->norm, h->experts, sizeof(float));
    }
}

int nj_step_init(nj_step *s, nj_arena **arena, nj_error *err)
{
    cutter measure = { 0 };
    cut_step(s, &measure);
    int rc = nj_arena_new(arena, measure.bytes, err);
    if (rc) return rc;
    cutter take = { .arena = *arena };
    cut_step(s, &take);
    return 0;
}
