/* From bound tensors to the layer program. Every architecture we know is the same pre-norm decoder with variations that
 * show in which tensors it has; the two differences that don't (activation, embedding scale) are in nj_hparams. */
#include "engine/program.h"

#include <errno.h>
#include <stdlib.h>

static nj_division division_of(nj_op_kind kind)
{
    switch (kind) {
    case NJ_OP_LINEAR: return NJ_BY_OUTPUT;
    case NJ_OP_ATTENTION: return NJ_BY_HEAD;
    case NJ_OP_GROUP: return NJ_BY_ONE;
    default: return NJ_BY_ROW;
    }
}

/* Appends an op; a failed allocation sticks in *rc. */
static void emit(nj_model *m, int *rc, nj_op op)
{
    if (*rc) return;
    *rc = nj_array_grow(&m->op, &m->op_cap, m->op_count + 1, sizeof *m->op);
    op.division = division_of(op.kind);
    if (!*rc) m->op[m->op_count++] = op;
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

static void emit_glu(nj_model *m, int *rc, nj_rows rows, nj_slot src, nj_slot dst, uint32_t width)
{
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_GLU,
                  .rows = rows,
                  .src = src,
                  .dst = dst,
                  .width = width,
                  .act = m->h.arch == NJ_ARCH_GEMMA2 ? NJ_ACT_GELU_TANH : NJ_ACT_SILU });
}

/* A sublayer's output joins the residual, through its own norm where the architecture has one (gemma2). */
static void emit_residual(nj_model *m, int *rc, const float *post_norm)
{
    if (post_norm) emit_norm(m, rc, NJ_SLOT_OUT, NJ_SLOT_OUT, post_norm);
    emit(m, rc, (nj_op){ .kind = NJ_OP_ADD, .src = NJ_SLOT_OUT, .dst = NJ_SLOT_X, .width = m->h.d_model });
}

static void emit_heads(nj_model *m, int *rc, nj_op_kind kind, uint32_t offset, uint32_t heads, const float *vec)
{
    emit(m, rc,
         (nj_op){ .kind = kind,
                  .src = NJ_SLOT_QKV,
                  .dst = NJ_SLOT_QKV,
                  .dst_offset = offset,
                  .heads = heads,
                  .width = m->h.head_dim,
                  .vec = vec,
                  .scale = m->h.norm_eps });
}

static void emit_attention(nj_model *m, int *rc, uint32_t layer)
{
    const nj_layer *l = &m->layer[layer];
    const nj_hparams *h = &m->h;
    uint32_t k_at = h->heads * h->head_dim, v_at = k_at + h->kv_heads * h->head_dim;
    emit_norm(m, rc, NJ_SLOT_X, NJ_SLOT_H, l->attn_norm);
    if (l->qkv.count) {
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_QKV, 0, &l->qkv);
    } else {
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_QKV, 0, &l->q);
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_QKV, k_at, &l->k);
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_QKV, v_at, &l->v);
    }
    if (l->q_norm) emit_heads(m, rc, NJ_OP_HEAD_NORM, 0, h->heads, l->q_norm);
    if (l->k_norm) emit_heads(m, rc, NJ_OP_HEAD_NORM, k_at, h->kv_heads, l->k_norm);
    emit_heads(m, rc, NJ_OP_ROPE, 0, h->heads + h->kv_heads, NULL); /* queries and keys lie side by side */
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_KV_STORE,
                  .src = NJ_SLOT_QKV,
                  .src_offset = k_at,
                  .layer = layer,
                  .heads = h->kv_heads,
                  .width = h->head_dim });
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_ATTENTION,
                  .src = NJ_SLOT_QKV,
                  .dst = NJ_SLOT_ATTN,
                  .layer = layer,
                  .heads = h->heads,
                  .width = h->head_dim,
                  .scale = h->attn_scale });
    emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_ATTN, NJ_SLOT_OUT, 0, &l->attn_out);
    emit_residual(m, rc, l->attn_post_norm);
}

/* A dense gated MLP from H to `dst`, `width` wide inside. */
static void emit_mlp(nj_model *m, int *rc, const nj_layer *l, nj_slot dst, uint32_t width)
{
    if (l->gate_up.count) {
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_FF, 0, &l->gate_up);
    } else {
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_FF, 0, &l->gate);
        emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_FF, width, &l->up);
    }
    emit_glu(m, rc, NJ_ROWS_ALL, NJ_SLOT_FF, NJ_SLOT_ACT, width);
    emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_ACT, dst, 0, &l->down);
}

static void emit_experts(nj_model *m, int *rc, const nj_layer *l)
{
    emit_linear(m, rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_ROUTE, 0, &l->router);
    emit(m, rc, (nj_op){ .kind = NJ_OP_ROUTE, .src = NJ_SLOT_ROUTE });
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_GROUP, .bytes = l->expert_gate.stride + l->expert_up.stride + l->expert_down.stride });
    emit_linear(m, rc, NJ_ROWS_ROUTED, NJ_SLOT_H, NJ_SLOT_EXPERT_FF, 0, &l->expert_gate);
    emit_linear(m, rc, NJ_ROWS_ROUTED, NJ_SLOT_H, NJ_SLOT_EXPERT_FF, m->h.expert_d_ff, &l->expert_up);
    emit_glu(m, rc, NJ_ROWS_ROUTED, NJ_SLOT_EXPERT_FF, NJ_SLOT_EXPERT_ACT, m->h.expert_d_ff);
    emit_linear(m, rc, NJ_ROWS_ROUTED, NJ_SLOT_EXPERT_ACT, NJ_SLOT_EXPERT_OUT, 0, &l->expert_down);
    emit(m, rc, (nj_op){ .kind = NJ_OP_COMBINE, .src = NJ_SLOT_EXPERT_OUT, .dst = NJ_SLOT_OUT, .width = m->h.d_model });
    if (!l->shared_gate) return;
    /* EXPERT_OUT's rows are free again after COMBINE; the shared expert's output borrows the first of them. */
    emit_mlp(m, rc, l, NJ_SLOT_EXPERT_OUT, m->h.shared_d_ff);
    emit(m, rc,
         (nj_op){ .kind = NJ_OP_GATED_ADD,
                  .src = NJ_SLOT_EXPERT_OUT,
                  .src2 = NJ_SLOT_H,
                  .dst = NJ_SLOT_OUT,
                  .width = m->h.d_model,
                  .vec = l->shared_gate });
}

/* A barrier follows an op unless the next one reads only what the same worker wrote (row after row), or nothing that
 * this one writes (q, k and v; gate and up). */
static void place_barriers(nj_model *m)
{
    for (size_t i = 0; i + 1 < m->op_count; i++) {
        const nj_op *a = &m->op[i], *b = &m->op[i + 1];
        bool own_rows = a->division == NJ_BY_ROW && b->division == NJ_BY_ROW && a->rows == b->rows;
        bool independent = a->kind == NJ_OP_LINEAR && b->kind == NJ_OP_LINEAR && a->src == b->src && a->dst == b->dst;
        m->op[i].barrier = !own_rows && !independent;
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
    w[NJ_SLOT_FF] = 2 * ff;
    w[NJ_SLOT_ACT] = ff;
    w[NJ_SLOT_ROUTE] = h->experts;
    w[NJ_SLOT_EXPERT_FF] = h->experts ? 2 * h->expert_d_ff : 0;
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
            emit_mlp(m, &rc, l, NJ_SLOT_OUT, h->d_ff);
        emit_residual(m, &rc, l->mlp_post_norm);
    }
    size_t head = m->op_count;
    emit_norm(m, &rc, NJ_SLOT_X, NJ_SLOT_H, m->output_norm);
    emit_linear(m, &rc, NJ_ROWS_ALL, NJ_SLOT_H, NJ_SLOT_LOGITS, 0, &m->output);
    if (h->logit_softcap != 0.0f)
        emit(m, &rc,
             (nj_op){ .kind = NJ_OP_SOFTCAP, .dst = NJ_SLOT_LOGITS, .width = h->vocab, .scale = h->logit_softcap });
    if (rc) return nj_fail(err, rc, "no memory for the layer program");
    for (size_t i = head; i < m->op_count; i++) m->op[i].rows = NJ_ROWS_SELECTED;
    place_barriers(m);
    return 0;
}
