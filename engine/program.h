/* A model as data: tensors, and the flat list of ops that every worker runs for each step. Private to engine/.
 *
 * One step holds n rows (tokens of one or several sequences). Each slot is a matrix of rows that ops read and write;
 * ops name slots, never pointers, so that one program serves every step, sequence and engine. An architecture is a
 * builder that emits ops (engine/build.c); no op asks which architecture it runs for. */
#ifndef NJ_PROGRAM_H
#define NJ_PROGRAM_H

#include "engine/hparams.h"

/* A weight product's operand: `count` matrices of one shape (1, or one per expert), each as panels. */
typedef struct nj_weight {
    nj_panels panels; /* the first matrix */
    uint64_t stride;  /* bytes from one matrix to the next */
    uint32_t count;
    const float *bias; /* [rows], or NULL */
} nj_weight;

static inline nj_panels nj_weight_at(const nj_weight *w, uint32_t index)
{
    nj_panels p = w->panels;
    p.data = (const char *)p.data + index * w->stride;
    return p;
}

/* Matrices of activations, [rows][width] floats; widths are set by the builder. A slot that quantized or 16-bit weights
 * read has companion rows beside its floats: what a product of the row's recipe takes, int8 blocks or BF16. */
typedef enum nj_slot {
    NJ_SLOT_NONE,
    NJ_SLOT_X,          /* residual stream */
    NJ_SLOT_H,          /* normed input of a sublayer */
    NJ_SLOT_QKV,        /* queries, keys, values side by side */
    NJ_SLOT_ATTN,       /* attention's output per head */
    NJ_SLOT_ACT,        /* activated MLP */
    NJ_SLOT_OUT,        /* a sublayer's output, before it is added to X */
    NJ_SLOT_SHARED,     /* the shared expert's output */
    NJ_SLOT_ROUTE,      /* router logits [experts] */
    NJ_SLOT_EXPERT_ACT, /* as ACT, one row per (row, rank) */
    NJ_SLOT_EXPERT_OUT, /* likewise: kept apart and added in rank order, so that a sum never depends on the batch */
    NJ_SLOT_LOGITS,     /* [vocab], one row per row that asked for logits */
    NJ_SLOT_KV,         /* no matrix, as the next: the cache; ops name it so that barriers follow from what they name */
    NJ_SLOT_CHOSEN,     /* the experts chosen, and their weights */
    NJ_SLOT_COUNT
} nj_slot;

typedef enum nj_op_kind {
    NJ_OP_EMBED,     /* dst = embedding of the row's token, times `scale` */
    NJ_OP_NORM,      /* dst = rms_norm(src) * vec */
    NJ_OP_QUANTIZE,  /* companion rows of dst from its floats */
    NJ_OP_HEAD_NORM, /* in place: each of `heads` heads from `head` on is normed on its own */
    NJ_OP_LINEAR,    /* dst = W src (+ bias): every weight product but a GLU's, those of experts too */
    NJ_OP_ROPE,      /* in place: rotates `heads` heads from `head` on */
    NJ_OP_KV_STORE,  /* keys, then values, in `heads` heads of src from `head` on, to the layer's cache pages */
    NJ_OP_ATTENTION, /* dst = attention of src's queries over the sequence's cached positions */
    NJ_OP_GLU,       /* dst = act(W src) * (U src), and its companion rows */
    NJ_OP_ADD,       /* dst += src */
    NJ_OP_SOFTCAP,   /* in place: scale * tanh(dst / scale) */
    NJ_OP_ROUTE,     /* chooses experts of each row from the logits in src */
    NJ_OP_GROUP,     /* lists the rows of each expert */
    NJ_OP_COMBINE,   /* dst = sum over ranks of weight * EXPERT_OUT */
    NJ_OP_GATED_ADD, /* dst += sigmoid(vec . src2) * src: a shared expert behind its gate */
} nj_op_kind;

/* How workers divide an op. Between ops of one division by row (or by head) no barrier is needed: each worker meets
 * its own again. */
typedef enum nj_division {
    NJ_BY_ROW,
    NJ_BY_HEAD,   /* by (row, head of QKV), whichever heads the op works on */
    NJ_BY_BLOCK,  /* by (row, 32 columns) */
    NJ_BY_OUTPUT, /* by (matrix, panels), by what the work costs */
    NJ_BY_TASK,   /* attention's own */
    NJ_BY_NONE    /* each worker does all of it, for itself */
} nj_division;

/* Which rows an op works on: all of the step, those that asked for logits, or one for each (row, rank) of the routing,
 * where a product takes the matrix of the expert that was chosen there. */
typedef enum nj_rows { NJ_ROWS_ALL, NJ_ROWS_SELECTED, NJ_ROWS_ROUTED } nj_rows;

typedef enum nj_activation { NJ_ACT_SILU, NJ_ACT_GELU_TANH } nj_activation;

typedef struct nj_op {
    nj_op_kind kind;
    nj_division division;
    bool barrier; /* workers meet after this op; set by the builder from the slots that ops name */
    nj_rows rows;
    nj_slot src, src2, dst;
    uint32_t dst_offset, width; /* columns */
    uint32_t layer, head, heads;
    const nj_weight *w;  /* LINEAR; GLU: gate */
    const nj_weight *up; /* GLU: from row `up_row` on, as a file may hold gate and up in one matrix */
    uint32_t up_row;
    unsigned acts;    /* QUANTIZE, GLU: bits 1 << nj_acts of the forms in which weights may read dst */
    bool f32;         /* LINEAR: the F32 recipe whatever the weights' type (the router) */
    const float *vec; /* norm weights, or a gate vector */
    float scale;
    uint64_t bytes; /* GROUP: weight bytes of one expert */
    nj_activation act;
} nj_op;

/* Layers with one retention rule share a page table: all positions, or a sliding window of them. */
typedef struct nj_cache_group {
    uint32_t window; /* positions a row sees (itself included), 0: all */
    uint32_t layers;
} nj_cache_group;

enum { NJ_CACHE_GROUPS_MAX = 2 };

typedef struct nj_layer_cache {
    uint8_t group;
    uint32_t index;
} nj_layer_cache; /* layer -> group, place in its pages */

typedef struct nj_layer {
    const float *attn_norm, *attn_post_norm, *q_norm, *k_norm, *mlp_norm, *mlp_post_norm, *shared_gate;
    nj_weight q, k, v, qkv, attn_out;
    nj_weight gate, up, gate_up, down;
    nj_weight router, expert_gate, expert_up, expert_down;
} nj_layer;

struct nj_model {
    nj_hparams h;
    nj_model_info info;
    nj_tokenizer *tokenizer;
    nj_template *chat;
    char *chat_error;
    nj_sampling sampling;   /* the file's recommended values over our defaults */
    struct nj_arena *arena; /* every weight */
    uint64_t bytes_dense;   /* weight bytes read in every step, whatever the router picks */
    nj_layer *layer;        /* [layers] */
    nj_weight output;       /* (vocab, d_model) */
    const void *embed_rows; /* untied embedding, GGUF row order; NULL when tied: rows are read from `output` */
    uint32_t embed_type;
    const float *output_norm;
    double *rope_freq; /* [rope_dim / 2] */
    float rope_magnitude;
    uint32_t slot_width[NJ_SLOT_COUNT];
    unsigned slot_acts[NJ_SLOT_COUNT]; /* forms of companion rows, as in nj_op */
    nj_cache_group group[NJ_CACHE_GROUPS_MAX];
    uint32_t groups;
    nj_layer_cache *layer_cache; /* [layers] */
    nj_op *op;
    size_t op_count, op_cap;
};

/* Emits the program of a model whose tensors are bound; fills slot widths, their companions and cache groups. */
int nj_program_build(nj_model *m, nj_error *err);

#endif
