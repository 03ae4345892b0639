/* From bound tensors to the layer program. Every architecture we know is the same pre-norm decoder with variations that
 * show in which tensors it has; the two differences that don't (activation, embedding scale) are in nj_hparams. */
#include "engine/program.h"

#include <errno.h>
#include <stdlib.h>

static nj_division division_of(nj_op_kind kind)
{
    switch (kind) {
    case NJ_OP_HEAD_NORM:
    case NJ_OP_ROPE:
    case NJ_OP_KV_STORE: return NJ_BY_HEAD;
    case NJ_OP_SOFTCAP: return NJ_BY_BLOCK;
    case NJ_OP_LINEAR:
    case NJ_OP_GLU: return NJ_BY_OUTPUT;
    case NJ_OP_ATTENTION: return NJ_BY_TASK;
    case NJ_OP_GROUP: return NJ_BY_NONE;
    default: return NJ_BY_ROW;
    }
}

/* Appends an op; a failed allocation sticks in *rc. */
static void emit(nj_model *m, int *rc, nj_op op)
{
    if (*rc) return;
    *rc = nj_array_grow(&m->op, &m->op_cap, m->op_count + 1, sizeof *m->op);
    if (op.division == NJ_BY_ROW) op.division = division_of(op.kind);
    m->slot_acts[op.dst] |= op.acts;
    if (!*rc) m->op[m->op_count++] = op;
}

/* The forms in which a weight may read its rows beside floats, by the recipes. */
static unsigned acts_of(const nj_weight *w)
{
    if (!w->count || w->panels.type == NJ_F32) return 0;
    return 1u << NJ_ACTS_BF16 | (nj_acts_of(w->panels.type) == NJ_ACTS_INT8 ? 1u << NJ_ACTS_INT8 : 0);
}

static void emit_quantize(nj_model *m, int *rc, nj_slot slot, nj_division division, unsigned acts)
{
    if (!acts) return;
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_QUANTIZE,
                  .division = division,
                  .src = slot,
                  .dst = slot,
                  .width = m->slot_width[slot],
                  .acts = acts });
}

static void emit_norm(nj_model *m, int *rc, nj_slot src, nj_slot dst, const float *vec)
{
    emit(m, rc,
         (nj_op){
             .kind = NJ_OP_NORM, .src = src, .dst = dst, .width = m->h.d_model, .vec = vec, .scale = m->h.norm_eps });
}

static void emit_linear(nj_model *m, int *rc, nj_rows rows, nj_slot src, nj_slot dst, uint32_t dst_offset,
                        const nj_weight *w)
{
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_LINEAR, .rows = rows, .src = src, .dst = dst, .dst_offset = dst_offset, .w = w });
}

/* `width` activated columns; gate and up may be one matrix, gate's rows first. */
static void emit_glu(nj_model *m, int *rc, nj_rows rows, nj_slot dst, uint32_t width, const nj_weight *gate,
                     const nj_weight *up, const nj_weight *down)
{
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_GLU,
                  .rows = rows,
                  .src = NJ_SLOT_H,
                  .dst = dst,
                  .width = width,
                  .w = gate,
                  .up = up,
                  .up_row = gate == up ? width : 0,
                  .acts = acts_of(down),
                  .act = m->h.arch == NJ_ARCH_GEMMA2 ? NJ_ACT_GELU_TANH : NJ_ACT_SILU });
}

/* A sublayer's output joins the residual, through its own norm where the architecture has one (gemma2). */
static void emit_residual(nj_model *m, int *rc, const float *post_norm)
{
    if (post_norm) emit_norm(m, rc, NJ_SLOT_OUT, NJ_SLOT_OUT, post_norm);
    emit(m, rc, (nj_op){ .kind = NJ_OP_ADD, .src = NJ_SLOT_OUT, .dst = NJ_SLOT_X, .width = m->h.d_model });
}

static void emit_heads(nj_model *m, int *rc, nj_op_kind kind, uint32_t head, uint32_t heads, const float *vec)
{
    emit(m, rc,
         (nj_op){ .kind = kind,
                  .src = NJ_SLOT_QKV,
                  .dst = NJ_SLOT_QKV,
                  .head = head,
                  .heads = heads,
                  .width = m->h.head_dim,
                  .vec = vec,
                  .scale = m->h.norm_eps });
}

/* The heads of queries, keys and values lie side by side in QKV, in this order. */
static void emit_qkv(nj_model *m, int *rc, uint32_t layer)
{
    const nj_layer *l = &m->layer[layer];
    const nj_hparams *h = &m->h;
    uint32_t k_at = h->heads * h->head_dim, v_at = k_at + h->kv_heads * h->head_dim;
    emit_quantize(m, rc, NJ_SLOT_H, NJ_BY_ROW, acts_of(&l->qkv) | acts_of(&l->q) | acts_of(&l->k) | acts_of(&l->v));
    if (l->qkv.count) {
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_QKV, 0, &l->qkv);
    } else {
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_QKV, 0, &l->q);
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_QKV, k_at, &l->k);
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_QKV, v_at, &l->v);
    }
    if (l->q_norm) emit_heads(m, rc, NJ_OP_HEAD_NORM, 0, h->heads, l->q_norm);
    if (l->k_norm) emit_heads(m, rc, NJ_OP_HEAD_NORM, h->heads, h->kv_heads, l->k_norm);
    emit_heads(m, rc, NJ_OP_ROPE, 0, h->heads + h->kv_heads, NULL);
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_KV_STORE,
                  .src = NJ_SLOT_QKV,
                  .dst = NJ_SLOT_KV,
                  .layer = layer,
                  .head = h->heads,
                  .heads = 2 * h->kv_heads,
                  .width = h->head_dim });
}

static void emit_attention(nj_model *m, int *rc, uint32_t layer)
{
    const nj_layer *l = &m->layer[layer];
    emit_norm(m, rc, NJ_SLOT_X, NJ_SLOT_H, l->attn_norm);
    emit_qkv(m, rc, layer);
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_ATTENTION,
                  .src = NJ_SLOT_QKV,
                  .src2 = NJ_SLOT_KV,
                  .dst = NJ_SLOT_ATTN,
                  .layer = layer,
                  .heads = m->h.heads,
                  .width = m->h.head_dim,
                  .scale = m->h.attn_scale });
    emit_quantize(m, rc, NJ_SLOT_ATTN, NJ_BY_BLOCK, acts_of(&l->attn_out));
    emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_ATTN, NJ_SLOT_OUT, 0, &l->attn_out);
    emit_residual(m, rc, l->attn_post_norm);
}

/* A dense gated MLP from H to OUT. */
static void emit_mlp(nj_model *m, int *rc, const nj_layer *l)
{
    bool fused = l->gate_up.count;
    const nj_weight *gate = fused ? &l->gate_up : &l->gate, *up = fused ? &l->gate_up : &l->up;
    emit_quantize(m, rc, NJ_SLOT_H, NJ_BY_ROW, acts_of(gate) | acts_of(up));
    emit_glu(m, rc, NJ_ROWS_ALL, NJ_SLOT_ACT, m->h.d_ff, gate, up, &l->down);
    emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_ACT, NJ_SLOT_OUT, 0, &l->down);
}

/* Routed experts, and the shared one beside them: no barrier stands between the products of the two. */
static void emit_experts(nj_model *m, int *rc, const nj_layer *l)
{
    bool shared = l->shared_gate;
    unsigned acts = acts_of(&l->expert_gate) | acts_of(&l->expert_up) | acts_of(&l->gate) | acts_of(&l->up);
    emit_quantize(m, rc, NJ_SLOT_H, NJ_BY_ROW, acts);
    emit(m, rc, (nj_op){ .kind = NJ_OP_LINEAR, .src = NJ_SLOT_H, .dst = NJ_SLOT_ROUTE, .w = &l->router, .f32 = true });
    if (shared) emit_glu(m, rc, NJ_ROWS_ALL, NJ_SLOT_ACT, m->h.shared_d_ff, &l->gate, &l->up, &l->down);
    emit(m, rc, (nj_op){ .kind = NJ_OP_ROUTE, .src = NJ_SLOT_ROUTE, .dst = NJ_SLOT_CHOSEN });
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_GROUP,
                  .src = NJ_SLOT_CHOSEN,
                  .bytes = l->expert_gate.stride + l->expert_up.stride + l->expert_down.stride });
    emit_glu(m, rc, NJ_ROWS_ROUTED, NJ_SLOT_EXPERT_ACT, m->h.expert_d_ff, &l->expert_gate, &l->expert_up,
             &l->expert_down);
    if (shared) emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_ACT, NJ_SLOT_SHARED, 0, &l->down);
    emit_linear(m, rc, NJ_ROWS_ROUTED, NJ_SLOT_EXPERT_ACT, NJ_SLOT_EXPERT_OUT, 0, &l->expert_down);
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_COMBINE,
                  .src = NJ_SLOT_EXPERT_OUT,
                  .src2 = NJ_SLOT_CHOSEN,
                  .dst = NJ_SLOT_OUT,
                  .width = m->h.d_model });
    if (!shared) return;
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_GATED_ADD,
                  .src = NJ_SLOT_SHARED,
                  .src2 = NJ_SLOT_H,
                  .dst = NJ_SLOT_OUT,
                  .width = m->h.d_model,
                  .vec = l->shared_gate });
}

/* Must all of `a` be done before any worker begins `b`? */
static bool must_meet(const nj_op *a, const nj_op *b)
{
    bool own = a->division == b->division && a->rows == b->rows; /* each worker meets its own rows or heads again */
    if (own && (a->division == NJ_BY_ROW || a->division == NJ_BY_HEAD)) return false;
    if (a->dst == b->dst && a->kind == NJ_OP_LINEAR && b->kind == NJ_OP_LINEAR)
        return false; /* q, k, v: columns apart */
    bool after = a->dst != NJ_SLOT_NONE && (a->dst == b->src || a->dst == b->src2 || a->dst == b->dst);
    return after || (b->dst != NJ_SLOT_NONE && (b->dst == a->src || b->dst == a->src2));
}

/* A barrier stands before an op that must meet any op since the last barrier. So a dense layer has nine:
 *   norm, quantize | q, k, v | head norms, rope, store | attention | quantize | output | add, norm, quantize |
 *   gate, up, activation, quantize | down | add, and on with the next layer's norm
 * and one with experts eleven: after its second norm
 *   router, shared gate and up | route | group, gate, up, activation, quantize, shared down | down | combine, add */
static void place_barriers(nj_model *m)
{
    for (size_t i = 1, since = 0; i < m->op_count; i++) {
        for (size_t k = since; k < i && !m->op[i - 1].barrier; k++)
            m->op[i - 1].barrier = must_meet(&m->op[k], &m->op[i]);
        if (m->op[i - 1].barrier) since = i;
    }
}

static void size_slots(nj_model *m)
{
    const nj_hparams *h = &m->h;
    uint32_t ff = h->experts ? h->shared_d_ff : h->d_ff;
    uint32_t *w = m->slot_width;
    w[NJ_SLOT_X] = w[NJ_SLOT_H] = w[NJ_SLOT_OUT] = h->d_model;
    w[NJ_SLOT_QKV] = (h->heads + 2 * h->kv_heads) * h->head_dim;
    w[NJ_SLOT_ATTN] = h->heads * h->head_dim;
    w[NJ_SLOT_ACT] = ff;
    w[NJ_SLOT_SHARED] = h->shared_d_ff ? h->d_model : 0;
    w[NJ_SLOT_ROUTE] = h->experts;
    w[NJ_SLOT_EXPERT_ACT] = h->experts ? h->expert_d_ff : 0;
    w[NJ_SLOT_EXPERT_OUT] = h->experts ? h->d_model : 0;
    w[NJ_SLOT_LOGITS] = h->vocab;
}

/* Group 0 keeps every position, group 1 a window; a model with one rule has one group. */
static int place_caches(nj_model *m)
{
    const nj_hparams *h = &m->h;
    if (!(m->layer_cache = nj_array_new(h->layers, sizeof *m->layer_cache))) return -ENOMEM;
    int of_rule[2] = { -1, -1 };
    for (uint32_t l = 0; l < h->layers; l++) {
        int windowed = h->window && l % h->window_every == 0;
        if (of_rule[windowed] < 0) {
            of_rule[windowed] = (int)m->groups;
            m->group[m->groups++].window = windowed ? h->window : 0;
        }
        nj_cache_group *group = &m->group[of_rule[windowed]];
        m->layer_cache[l] = (nj_layer_cache){ (uint8_t)of_rule[windowed], group->layers++ };
    }
    return 0;
}

int nj_program_build(nj_model *m, nj_error *err)
{
    const nj_hparams *h = &m->h;
    int rc = place_caches(m);
    size_slots(m);
    emit(m, &rc, (nj_op){ .kind = NJ_OP_EMBED, .dst = NJ_SLOT_X, .width = h->d_model, .scale = h->embed_scale });
    for (uint32_t i = 0; i < h->layers; i++) {
        const nj_layer *l = &m->layer[i];
        emit_attention(m, &rc, i);
        emit_norm(m, &rc, NJ_SLOT_X, NJ_SLOT_H, l->mlp_norm);
        if (l->router.count)
            emit_experts(m, &rc, l);
        else
            emit_mlp(m, &rc, l);
        emit_residual(m, &rc, l->mlp_post_norm);
    }
    size_t head = m->op_count;
    emit_norm(m, &rc, NJ_SLOT_X, NJ_SLOT_H, m->output_norm);
    emit_quantize(m, &rc, NJ_SLOT_H, NJ_BY_ROW, acts_of(&m->output));
    emit_linear(m, &rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_LOGITS, 0, &m->output);
    if (h->logit_softcap != 0.0f)
        emit(m, &rc,
             (nj_op){ .kind = NJ_OP_SOFTCAP,
                      .src = NJ_SLOT_LOGITS,
                      .dst = NJ_SLOT_LOGITS,
                      .width = h->vocab,
                      .scale = h->logit_softcap });
    if (rc) return nj_fail(err, rc, "no memory for the layer program");
    for (size_t i = head; i < m->op_count; i++) m->op[i].rows = NJ_ROWS_SELECTED;
    place_barriers(m);
    return 0;
}
