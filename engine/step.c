/* The interpreter of the layer program: every worker walks the same ops and does its share of each. */
#include "engine/step.h"

#include <errno.h>
#include <math.h>
#include <string.h>

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

/* RMS norm (Zhang & Sennrich 2019); the sum in double, as a model may be 16k wide, in eight parts that a compiler keeps
 * in registers side by side. */
static void rms_norm(const float *x, const float *weight, float *y, uint32_t n, float eps)
{
    double part[8] = { 0 }, sum = 0.0;
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (uint32_t k = 0; k < 8; k++) part[k] += (double)x[i + k] * (double)x[i + k];
    for (; i < n; i++) sum += (double)x[i] * (double)x[i];
    for (uint32_t k = 0; k < 8; k++) sum += part[k];
    float scale = (float)(1.0 / sqrt(sum / n + (double)eps));
    for (i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];
}

/* The residual row of a selected row is where its row lies; selected ops before the last product read it from there. */
static void op_norm(const nj_step *s, const nj_op *op, uint32_t row)
{
    rms_norm(nj_slot_row(s, op->src, nj_step_row(s, op->rows, row)), op->vec, nj_slot_row(s, op->dst, row), op->width,
             op->scale);
}

void nj_step_quantize(const nj_step *s, const nj_op *op, uint32_t row, uint32_t begin, uint32_t end)
{
    if (!op->acts || s->acts_f32) return;
    const float *x = nj_slot_row(s, op->dst, row) + begin;
    char *acts = nj_acts_row(s, op->dst, row) + begin * sizeof(uint16_t);
    if (s->wide[nj_step_row(s, op->rows, row)])
        s->kernels->round_bf16(x, end - begin, (uint16_t *)(void *)acts);
    else if (op->acts & 1u << NJ_ACTS_INT8)
        s->kernels->quantize(x, end - begin, (nj_act_block *)(void *)acts);
}

/* Rotary position (Su et al. 2021): pairs lie side by side (llama) or half the rotated dimensions apart (neox). */
static void rotate(const nj_step *s, uint32_t row, float *x)
{
    uint32_t half = s->m->h.rope_dim / 2, gap = s->m->h.rope_neox ? half : 1, step = s->m->h.rope_neox ? 1 : 2;
    const float *table = s->rope + (size_t)row * 2 * half;
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i * step], b = x[i * step + gap], c = table[2 * i], n = table[2 * i + 1];
        x[i * step] = a * c - b * n;
        x[i * step + gap] = a * n + b * c;
    }
}

/* `head` counts the keys' heads, then the values'. */
static void store_head(const nj_step *s, const nj_op *op, uint32_t row, uint32_t head, const float *x)
{
    const nj_kv *kv = s->kv;
    uint32_t position = s->position[row], heads = op->heads / 2;
    const nj_kv_page *page = s->sequence[row]->page[s->m->layer_cache[op->layer].group][position / NJ_KV_PAGE];
    char *dst = nj_kv_keys(kv, page, op->layer, head % heads) + (size_t)(position % NJ_KV_PAGE) * kv->row_bytes;
    s->kernels->store[kv->type](x, head < heads ? dst : dst + nj_kv_values(kv), op->width);
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

static void run_by_row(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    uint64_t begin, end;
    nj_share(nj_op_rows(s, op), worker, workers, &begin, &end);
    for (uint32_t row = (uint32_t)begin; row < end; row++) switch (op->kind) {
        case NJ_OP_EMBED:
            op_embed(s, op, row);
            fill_rope(s, row);
            break;
        case NJ_OP_NORM: op_norm(s, op, row); break;
        case NJ_OP_QUANTIZE: nj_step_quantize(s, op, row, 0, op->width); break;
        case NJ_OP_ADD: op_add(s, op, row); break;
        case NJ_OP_GATED_ADD: op_gated_add(s, op, row); break;
        default: __builtin_unreachable(); /* the builder divides no other op so */
        }
}

/* All ops divided so share one list of (row, head): queries, keys and values. One sequence alone uses all workers. */
static void run_by_head(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    uint64_t begin, end;
    uint32_t heads = s->m->h.heads + 2 * s->m->h.kv_heads;
    nj_share((uint64_t)s->rows * heads, worker, workers, &begin, &end);
    for (uint64_t i = begin; i < end; i++) {
        uint32_t row = (uint32_t)(i / heads), head = (uint32_t)(i % heads);
        if (head < op->head || head >= op->head + op->heads) continue;
        float *x = nj_slot_row(s, op->src, row) + head * op->width;
        switch (op->kind) {
        case NJ_OP_HEAD_NORM: rms_norm(x, op->vec, x, op->width, op->scale); break;
        case NJ_OP_ROPE: rotate(s, row, x); break;
        case NJ_OP_KV_STORE: store_head(s, op, row, head - op->head, x); break;
        default: __builtin_unreachable();
        }
    }
}

/* The ends of a worker's share may lie inside of a row. */
static void run_by_block(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    enum { BLOCK = 32 };
    uint64_t at, end;
    uint32_t blocks = (op->width + BLOCK - 1) / BLOCK;
    nj_share((uint64_t)nj_op_rows(s, op) * blocks, worker, workers, &at, &end);
    while (at < end) {
        uint32_t row = (uint32_t)(at / blocks), first = (uint32_t)(at % blocks);
        uint32_t last = end - at < blocks - first ? first + (uint32_t)(end - at) : blocks;
        uint32_t stop = last == blocks ? op->width : last * BLOCK;
        if (op->kind == NJ_OP_QUANTIZE) {
            nj_step_quantize(s, op, row, first * BLOCK, stop);
        } else { /* SOFTCAP */
            float *x = nj_slot_row(s, op->dst, row);
            for (uint32_t i = first * BLOCK; i < stop; i++) x[i] = op->scale * tanhf(x[i] / op->scale);
        }
        at += last - first;
    }
}

static void run_op(nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    switch (op->kind) {
    case NJ_OP_LINEAR: nj_step_linear(s, op, worker, workers); return;
    case NJ_OP_GLU: nj_step_glu(s, op, worker, workers); return;
    case NJ_OP_ATTENTION: nj_step_attention(s, op, worker, workers); return;
    case NJ_OP_ROUTE: nj_step_route(s, op, worker, workers); return;
    case NJ_OP_GROUP: nj_step_group(s, op, worker); return;
    case NJ_OP_COMBINE: nj_step_combine(s, op, worker, workers); return;
    default: break;
    }
    if (op->division == NJ_BY_HEAD)
        run_by_head(s, op, worker, workers);
    else if (op->division == NJ_BY_BLOCK)
        run_by_block(s, op, worker, workers);
    else
        run_by_row(s, op, worker, workers);
}

static void run_program(void *arg, uint32_t worker, uint32_t workers)
{
    nj_step *s = arg;
    for (size_t i = 0; i < s->m->op_count; i++) {
        const nj_op *op = &s->m->op[i];
        bool timed = worker == 0 && op->kind == NJ_OP_ATTENTION; /* 2 looks at the clock per layer: 50 ns */
        uint64_t begin = timed ? nj_now_ns() : 0;
        run_op(s, op, worker, workers);
        if (op->barrier) nj_pool_barrier(s->pool);
        if (timed) s->attention_ns += nj_now_ns() - begin;
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
    cut(c, &s->wide, rows, sizeof *s->wide);
    cut(c, &s->select, rows, sizeof *s->select);
    cut(c, &s->rope, rows * h->rope_dim, sizeof *s->rope);
    for (int i = 0; i < NJ_SLOT_COUNT; i++) {
        uint64_t n = nj_slot_is_routed((nj_slot)i) ? entries : rows;
        cut(c, &s->slot[i], n * s->m->slot_width[i], sizeof(float));
        if (s->m->slot_acts[i]) cut(c, &s->acts[i], n, nj_acts_bytes(NJ_ACTS_BF16, s->m->slot_width[i]));
    }
    cut(c, &s->routing.chosen, entries, sizeof *s->routing.chosen);
    cut(c, &s->routing.weight, entries, sizeof *s->routing.weight);
    uint64_t kept = nj_attention_size_of(s).kept;
    cut(c, &s->kept_run, kept, sizeof *s->kept_run);
    cut(c, &s->kept_out, kept * nj_attend_width(h->head_dim), sizeof *s->kept_out);
    uint32_t workers = nj_pool_workers(s->pool);
    cut(c, &s->worker, workers, sizeof *s->worker);
    for (uint32_t w = 0; w < workers; w++) {
        nj_worker sizes, *own = c->arena ? &s->worker[w] : &sizes;
        cut(c, &own->row, rows, sizeof *own->row);
        cut(c, &own->x, rows, sizeof *own->x);
        cut(c, &own->y, rows, sizeof *own->y);
        cut(c, &own->glu, s->glu_floats, sizeof *own->glu);
        cut(c, &own->groups.first, h->experts + 1, sizeof(uint32_t));
        cut(c, &own->groups.entry, entries, sizeof(uint32_t));
        cut(c, &own->groups.active, h->experts, sizeof(uint32_t));
        cut_attention(s, &own->attention, c);
        cut(c, &own->norm, h->experts, sizeof(float));
    }
}

void nj_step_use(nj_step *s, const nj_kernels *kernels, bool acts_f32)
{
    s->kernels = kernels;
    s->acts_f32 = acts_f32;
    s->has_wide = kernels->linear_wide[NJ_BF16] && !acts_f32;
}

/* Gate and up on their way to the activation stay within half of a core's L2, whatever the rows: the other half is for
 * weights. */
static uint32_t size_glu(uint32_t rows_max)
{
    nj_machine machine;
    nj_machine_read(&machine);
    uint64_t floats = machine.l2_bytes / 2 / sizeof(float), least = (uint64_t)rows_max * NJ_GLU_FLOATS(1);
    return (uint32_t)(floats > least ? floats : least);
}

int nj_step_init(nj_step *s, nj_arena **arena, nj_error *err)
{
    cutter measure = { 0 };
    s->glu_floats = size_glu(s->rows_max);
    cut_step(s, &measure);
    int rc = nj_arena_new(arena, measure.bytes, err);
    if (rc) return rc;
    cutter take = { .arena = *arena };
    cut_step(s, &take);
    return 0;
}
