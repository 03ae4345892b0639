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

/* What one worker needs to attend with an item's queries (engine/attention.c). */
typedef struct nj_attention {
    float *q;                /* [dim / 64, rounded up][queries][64] */
    float *out;              /* [queries][nj_attend_width(dim)] of one split */
    nj_softmax *run, *total; /* [queries] of one split; of all splits so far */
    nj_span *span;           /* [queries] */
    float *scratch;          /* the kernel's */
} nj_attention;

/* How much of it: queries of an item, and (query, split) pairs of items that are cut. `kept` grows with context and
 * workers, not with rows: 2 workers keep 2 MB for 8 heads of 128 in 4 groups at 32k positions. */
typedef struct nj_attention_size {
    uint64_t queries, kept;
} nj_attention_size;

/* What one worker needs for itself. */
typedef struct nj_worker {
    const float **x; /* [entries] row pointers of a product */
    float **y;
    nj_attention attention;
    float *norm; /* [experts] router scratch */
} nj_worker;

typedef struct nj_step {
    const nj_model *m;
    const nj_kernels *kernels;
    const nj_kv *kv;
    nj_pool *pool;
    uint32_t rows_max, context; /* most rows of a step, positions of a sequence */
    /* the step's rows */
    uint32_t rows, selected;
    int32_t *token;         /* [rows] */
    uint32_t *position;     /* [rows] */
    nj_sequence **sequence; /* [rows] */
    uint32_t *select;       /* [selected] rows that asked for logits, ascending */
    float *rope;            /* [rows][rope_dim / 2][cos, sin] */
    float *slot[NJ_SLOT_COUNT];
    nj_routing routing;
    nj_softmax *kept_run; /* [attention size: kept] sums of the splits of long sequences */
    float *kept_out;      /* [kept][nj_attend_width(head_dim)] */
    nj_worker *worker; /* [workers] */
} nj_step;

/* Allocates slots and scratch for `rows_max` rows; freed by the arena's owner. */
int nj_step_init(nj_step *s, nj_arena **arena, nj_error *err);

/* Runs the layer program over the rows that are filled in, on all workers. KV pages must be reserved. */
void nj_step_run(nj_step *s);

/* Attention of one op (engine/attention.c): all workers run it, as they may have to meet inside. */
void nj_step_attention(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);
nj_attention_size nj_attention_size_of(const nj_step *s);

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
