/* One step: the rows of a batch, the slots they pass through, and the ops of the layer program. Private to engine/. */
#ifndef NJ_STEP_H
#define NJ_STEP_H

#include "engine/kv.h"
#include "numa/nj_numa.h"

/* Rows of each expert in one step: expert e has entries [first[e], first[e + 1]) of `entry`, in row order. An entry is
 * row * experts_used + rank, which is also its row in the EXPERT_* slots. */
typedef struct nj_routing {
    uint32_t *chosen; /* [rows][used] expert of each rank */
    float *weight;    /* [rows][used] */
    uint32_t *first;  /* [experts + 1] */
    uint32_t *entry;  /* [rows * used] */
    uint32_t *active; /* [experts] experts with rows, ascending */
    uint32_t active_count;
    uint64_t bytes; /* expert weights that the step has read so far */
} nj_routing;

/* The running softmax of one query head: m is the largest score so far, sum the weights' total relative to it. */
typedef struct nj_softmax {
    float m, sum;
} nj_softmax;

/* What one worker needs for itself. */
typedef struct nj_worker {
    const float **x; /* [entries] row pointers of a product */
    float **y;
    float *scores;       /* [NJ_KV_PAGE] one tile of one head */
    nj_softmax *softmax; /* [heads / kv_heads] */
    float *norm;         /* [experts] router scratch */
} nj_worker;

typedef struct nj_step {
    const nj_model *m;
    const nj_kernels *kernels;
    const nj_kv *kv;
    nj_pool *pool;
    uint32_t rows_max;
    /* the step's rows */
    uint32_t rows, selected;
    int32_t *token;         /* [rows] */
    uint32_t *position;     /* [rows] */
    nj_sequence **sequence; /* [rows] */
    uint32_t *select;       /* [selected] rows that asked for logits, ascending */
    float *rope;            /* [rows][rope_dim / 2][cos, sin] */
    float *slot[NJ_SLOT_COUNT];
    nj_routing routing;
    nj_worker *worker;     /* [workers] */
    uint64_t attention_ns; /* that worker 0 has spent in attention, with the wait for the others, in all steps */
} nj_step;

/* Allocates slots and scratch for `rows_max` rows; freed by the arena's owner. */
int nj_step_init(nj_step *s, nj_arena **arena, nj_error *err);

/* Runs the layer program over the rows that are filled in, on all workers. KV pages must be reserved. */
void nj_step_run(nj_step *s);

/* Attention of one op for the tasks of one worker; in its own file as it is the other kernel-shaped part. */
void nj_step_attention(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);

/* Weight products (engine/linear.c) and what stands around those of experts (engine/experts.c). */
void nj_step_linear(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);
void nj_step_route(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);
void nj_step_group(nj_step *s, const nj_op *op);
void nj_step_combine(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);

/* Slots with a row for each (row, rank) of the routing. */
static inline bool nj_slot_is_routed(nj_slot slot)
{
    return slot == NJ_SLOT_EXPERT_FF || slot == NJ_SLOT_EXPERT_ACT || slot == NJ_SLOT_EXPERT_OUT;
}

/* Rows that an op works on in this step. */
static inline uint32_t nj_op_rows(const nj_step *s, const nj_op *op)
{
    if (op->rows == NJ_ROWS_SELECTED) return s->selected;
    return op->rows == NJ_ROWS_ROUTED ? s->rows * s->m->h.experts_used : s->rows;
}

static inline float *nj_slot_row(const nj_step *s, nj_slot slot, uint32_t row)
{
    return s->slot[slot] + (size_t)row * s->m->slot_width[slot];
}

#endif
