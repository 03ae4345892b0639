/* One step: the rows of a batch, the slots they pass through, and the ops of the layer program. Private to engine/. */
#ifndef NJ_STEP_H
#define NJ_STEP_H

#include "engine/kv.h"
#include "numa/nj_numa.h"

/* What the router chose for the step's rows. */
typedef struct nj_routing {
    uint32_t *chosen; /* [rows][used] expert of each rank */
    float *weight;    /* [rows][used] */
    uint64_t bytes;   /* expert weights that the step has read so far */
} nj_routing;

/* Rows of each expert: expert e has entries [first[e], first[e + 1]) of `entry`, in row order. An entry is
 * row * experts_used + rank, which is also its row in the EXPERT_* slots. */
typedef struct nj_groups {
    uint32_t *first;  /* [experts + 1] */
    uint32_t *entry;  /* [rows * used] */
    uint32_t *active; /* [experts] experts with rows, ascending */
    uint32_t active_count;
} nj_groups;

/* Gate, up and activation are divided into units of so many columns: whole blocks of the rounding that follows. */
enum { NJ_GLU_COLUMNS = 32 };

/* Floats of nj_worker.glu that `units` of them need for each row: gate and up, which may begin inside of a panel. */
#define NJ_GLU_FLOATS(units) (2 * NJ_GLU_COLUMNS * (units) + NJ_PANEL_ROWS)

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
    uint32_t *row;       /* [rows] of a product: rows of its destination */
    const void **x;      /* [rows] where they come from */
    float **y;           /* [rows] where they go to */
    float *glu;          /* [glu_floats] gate and up of some columns, on their way to the activation */
    nj_groups groups;    /* each worker makes its own: cheaper than a barrier */
    nj_attention attention;
    float *norm;         /* [experts] router scratch */
} nj_worker;

typedef struct nj_step {
    const nj_model *m;
    const nj_kernels *kernels;
    const nj_kv *kv;
    nj_pool *pool;
    uint32_t rows_max, context; /* most rows of a step, positions of a sequence */
    bool acts_f32; /* the F32 recipe for all weights */
    bool has_wide; /* the tier has a wide recipe */
    uint32_t glu_floats;
    /* the step's rows */
    uint32_t rows, selected;
    int32_t *token;         /* [rows] */
    uint32_t *position;     /* [rows] */
    nj_sequence **sequence; /* [rows] */
    bool *wide;             /* [rows] computed by the wide recipe; all false without has_wide */
    uint32_t *select;       /* [selected] rows that asked for logits, ascending */
    float *rope;            /* [rows][rope_dim / 2][cos, sin] */
    float *slot[NJ_SLOT_COUNT];
    char *acts[NJ_SLOT_COUNT]; /* companion rows: nj_act_block[width / 32] of a narrow row, BF16 of a wide one */
    nj_routing routing;
    nj_softmax *kept_run; /* [attention size: kept] sums of the splits of long sequences */
    float *kept_out;      /* [kept][nj_attend_width(head_dim)] */
    nj_worker *worker;     /* [workers] */
    uint64_t attention_ns; /* that worker 0 has spent in attention, with the wait for the others, in all steps */
} nj_step;

/* Says by which kernels steps are computed, and whether by their F32 recipe alone. */
void nj_step_use(nj_step *s, const nj_kernels *kernels, bool acts_f32);

/* Allocates slots and scratch for `rows_max` rows; freed by the arena's owner. */
int nj_step_init(nj_step *s, nj_arena **arena, nj_error *err);

/* Runs the layer program over the rows that are filled in, on all workers. KV pages must be reserved. */
void nj_step_run(nj_step *s);

/* Attention of one op (engine/attention.c): all workers run it, as they may have to meet inside. */
void nj_step_attention(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);
nj_attention_size nj_attention_size_of(const nj_step *s);

/* Weight products (engine/linear.c) and what stands around those of experts (engine/experts.c). */
void nj_step_linear(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);
void nj_step_glu(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);
void nj_step_route(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);
void nj_step_group(nj_step *s, const nj_op *op, uint32_t worker);
void nj_step_combine(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers);

/* Rounds columns [begin, end) of a row of op->dst to its companion; begin is a multiple of 32. */
void nj_step_quantize(const nj_step *s, const nj_op *op, uint32_t row, uint32_t begin, uint32_t end);

/* Slots with a row for each (row, rank) of the routing. */
static inline bool nj_slot_is_routed(nj_slot slot)
{
    return slot == NJ_SLOT_EXPERT_ACT || slot == NJ_SLOT_EXPERT_OUT;
}

/* Rows that an op works on in this step. */
static inline uint32_t nj_op_rows(const nj_step *s, const nj_op *op)
{
    if (op->rows == NJ_ROWS_SELECTED) return s->selected;
    return op->rows == NJ_ROWS_ROUTED ? s->rows * s->m->h.experts_used : s->rows;
}

/* The step's row that an op's row `row` belongs to. */
static inline uint32_t nj_step_row(const nj_step *s, nj_rows rows, uint32_t row)
{
    if (rows == NJ_ROWS_SELECTED) return s->select[row];
    return rows == NJ_ROWS_ROUTED ? row / s->m->h.experts_used : row;
}

static inline float *nj_slot_row(const nj_step *s, nj_slot slot, uint32_t row)
{
    return s->slot[slot] + (size_t)row * s->m->slot_width[slot];
}

/* Both forms take 2 bytes per column. */
static inline char *nj_acts_row(const nj_step *s, nj_slot slot, uint32_t row)
{
    return s->acts[slot] + row * nj_acts_bytes(NJ_ACTS_BF16, s->m->slot_width[slot]);
}

#endif
