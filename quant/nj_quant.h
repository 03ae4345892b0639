/* What weight bytes mean: block formats, their exact values, panels, and the kernels that multiply them.
 * Depends on libc alone. Everything here is thread-safe: tables are constant, functions touch only their arguments. */
#ifndef NJ_QUANT_H
#define NJ_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Weight types by their GGUF id. quant/formats.inc lists name, weights per block and bytes per block of each. */
enum nj_type {
    NJ_F32 = 0,
    NJ_F16 = 1,
    NJ_Q4_0 = 2,
    NJ_Q4_1 = 3,
    NJ_Q5_0 = 6,
    NJ_Q5_1 = 7,
    NJ_Q8_0 = 8,
    NJ_Q2_K = 10,
    NJ_Q3_K = 11,
    NJ_Q4_K = 12,
    NJ_Q5_K = 13,
    NJ_Q6_K = 14,
    NJ_IQ2_XXS = 16,
    NJ_IQ2_XS = 17,
    NJ_IQ3_XXS = 18,
    NJ_IQ1_S = 19,
    NJ_IQ4_NL = 20,
    NJ_IQ3_S = 21,
    NJ_IQ2_S = 22,
    NJ_IQ4_XS = 23,
    NJ_IQ1_M = 29,
    NJ_BF16 = 30,
    NJ_TQ1_0 = 34,
    NJ_TQ2_0 = 35,
    NJ_MXFP4 = 39,
    NJ_TYPE_COUNT = 40
};

/* ---- Formats ---- */

/* Weights and bytes per block of a type we read; false (outputs untouched) for any other id. */
bool nj_format_size(uint32_t type, uint32_t *block_weights, uint32_t *block_bytes);

/* Lower-case name ("q4_k"). Ids we don't read give a name too where the world knows one ("iq4_ks, an ik_llama.cpp
 * type", "i32", "q4_2, removed from GGUF"), else "unknown". Never NULL. */
const char *nj_format_name(uint32_t type);

/* The type of that name in any case, or -1. */
int nj_format_find(const char *name);

/* Bytes of one row of `cols` weights in GGUF order; 0 when the type is unknown, cols is 0 or not a multiple of the
 * block, or the size overflows. */
uint64_t nj_row_bytes(uint32_t type, uint64_t cols);

/* Exact values of `n` weights (a multiple of the block) of a type we read. Any alignment of `blocks`. */
void nj_decode(uint32_t type, const void *blocks, float *out, size_t n);

/* True for the types nj_encode can write. */
bool nj_can_encode(uint32_t type);

/* Rounds `n` finite values (whole blocks) to the type, minimising squared error (Q2_K..Q6_K count errors of large
 * values somewhat more); deterministic, the same for every compiler. Values too large for the type become its largest.
 * A value that is not finite is treated as 0. Types: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K..Q6_K IQ4_NL IQ4_XS
 * MXFP4. */
void nj_encode(uint32_t type, const float *x, void *blocks, size_t n);

uint16_t nj_f32_to_f16(float x); /* round to nearest even */
float nj_f16_to_f32(uint16_t h);
uint16_t nj_f32_to_bf16(float x); /* round to nearest even */
float nj_bf16_to_f32(uint16_t h);

/* ---- Mixes: the type that each tensor of a quantized model gets. ----
 * A mix is a plain type we can write, by its GGUF id, or one of the ids below. Whatever the mix,
 *   - tensors of one dimension, biases, norms, the router (ffn_gate_inp*) and rope factors are F32;
 *   - the output matrix, or a tied token_embd, has at least the bits of Q6_K;
 *   - in a model with experts, beside which attention is small, attn_k and attn_v have at least the bits of Q8_0, and
 *     attn_output those of Q5_K (perplexity of a 15M model in Q3_K: +1.0% instead of +1.4%);
 *   - a type whose block does not divide the row gives way to one of 32 weights: Q2_K, Q3_K and IQ4_XS to IQ4_NL,
 *     Q4_K to Q5_0, Q5_K to Q5_1, Q6_K to Q8_0; where 32 does not divide it either, to F16.
 * Q4_K_M and Q5_K_M are Q4_K and Q5_K, but Q6_K for attn_v and ffn_down in the first and last eighth of the layers and
 * every third between, and one type up (Q5_K, Q6_K) for a fused attn_qkv. */
enum nj_mix { NJ_MIX_Q4_K_M = 100, NJ_MIX_Q5_K_M = 101 };

/* What the choice depends on. */
typedef struct nj_mix_model {
    uint32_t layers;  /* block_count */
    uint32_t experts; /* 0: dense */
    bool tied;        /* has no output.weight */
} nj_mix_model;

/* The mix of a name ("q4_k_m", or a type's name) in any case, or -1 for one that we can't write. */
int nj_mix_find(const char *name);

/* Lower-case name of a mix that nj_mix_find gives. */
const char *nj_mix_name(int mix);

/* The value that GGUF's key general.file_type has for a mix. */
uint32_t nj_mix_file_type(int mix);

/* The type for the tensor `name` ("blk.3.attn_v.weight"); dims[0..dims_count) in GGUF order, so a row has dims[0]
 * weights. */
uint32_t nj_mix_type(int mix, const nj_mix_model *model, const char *name, const uint64_t *dims, uint32_t dims_count);

/* ---- Panels: the order in which kernels read a matrix (rows = outputs, cols = inputs). ----
 * A panel holds 16 rows, interleaved so that kernels read forward with one output row per lane; the bits of the
 * format are kept exactly. The last panel of a matrix is padded with zero rows. Nobody outside quant/ knows the order.
 */

#define NJ_PANEL_ROWS 16

typedef struct nj_panels {
    const void *data; /* nj_panels_bytes(type, rows, cols) bytes, 64-aligned */
    uint32_t type, rows, cols;
} nj_panels;

/* Bytes of one panel of `cols` columns (a multiple of 64, so that panels stay aligned); 0 as nj_row_bytes. */
uint64_t nj_panel_bytes(uint32_t type, uint64_t cols);

/* Bytes of all panels of a matrix; 0 as nj_row_bytes or for rows = 0. */
uint64_t nj_panels_bytes(uint32_t type, uint64_t rows, uint64_t cols);

/* Packs `rows` (1..16) rows in GGUF order (each nj_row_bytes long, contiguous) into one panel; missing rows are zero.
 */
void nj_panel_pack(uint32_t type, const void *src, uint32_t rows, uint32_t cols, void *dst);

/* Values of one row, out[cols]. Equal to nj_decode of the row that was packed. */
void nj_panels_row(const nj_panels *w, uint32_t row, float *out);

/* ---- Kernels ---- */

typedef enum nj_isa { NJ_ISA_SCALAR, NJ_ISA_AVX2, NJ_ISA_AVX512, NJ_ISA_AMX, NJ_ISA_COUNT } nj_isa;

/* A product takes its activation rows in one of these forms. */
typedef enum nj_acts {
    NJ_ACTS_F32,  /* floats, any alignment */
    NJ_ACTS_INT8, /* nj_act_block[cols / 32] */
    NJ_ACTS_BF16  /* uint16_t[cols], 64-aligned */
} nj_acts;

/* 32 columns of a row rounded to int8: x[c] is about scale * q[c]. One cache line, with what kernels need besides. */
typedef struct nj_act_block {
    int8_t q[32];                      /* -127..127 */
    float scale;                       /* max |x| / 127 */
    float sum, sum_half[2];            /* scale * (total of q), of the whole block and of its halves */
    int32_t total, total_half[2];      /* of q */
    int32_t reserved;                  /* 0 */
} nj_act_block;

/* The form that the narrow recipe takes for a weight type: F32 for types of one weight per block, else INT8. */
nj_acts nj_acts_of(uint32_t type);

/* Bytes of one row of `cols` activations, a multiple of 64. */
size_t nj_acts_bytes(nj_acts form, uint32_t cols);

/* y[r][o] = sum over c of w[o][c] * x[r][c], for rows r of 0..rows and outputs o of panels [panel_begin, panel_end).
 *   x   [rows] pointers to rows in the recipe's form, w->cols wide
 *   y   [rows] pointers to w->rows floats; outputs past w->rows and outside the panels are not touched
 * A result depends on its own row, the output and the recipe alone; never on the other rows, the panels asked for, or
 * the tier (but for the wide recipe, whose result is the tier's own). A call takes at most 512 KiB of stack.
 *
 * Narrow recipe, INT8: the weights' format cuts a row into blocks of 32 or 16 columns that share a scale (and perhaps a
 * minimum). Per block, in ascending order: y = fma((float)dot, scale_w * scale_x, y), where dot is the exact integer
 * product of the codes; then, for formats with a minimum, y = fma(minimum_w, sum_x, y).
 * Narrow recipe, F32 (types of one weight per block) and the F32 recipe (all types): per output four partial sums
 * (columns by c mod 4), each one fma per column in ascending order, then (s0 + s1) + (s2 + s3).
 * Wide recipe: weights and activations rounded to BF16, sums in F32 in an order of the tier's own. */
typedef void nj_linear_fn(const nj_panels *w, uint32_t panel_begin, uint32_t panel_end, const void *const *x,
                          float *const *y, uint32_t rows);

/* ---- Attention ---- */

enum { NJ_TILE = 64 }; /* positions of a tile, the unit of the online softmax (Milakov & Gimelshein 2018) */

/* What one query has seen so far: the largest score, and the weights' total relative to it; at first { -INF, 0 }. */
typedef struct nj_softmax {
    float m, sum;
} nj_softmax;

/* The positions [first, last) of a tile that one query sees. Where there are none, its sums stay as they are. */
typedef struct nj_span {
    uint8_t first, last;
} nj_span;

/* Queries that share one key/value head, and their sums. All memory is the caller's. */
typedef struct nj_queries {
    uint32_t count, dim; /* queries; values of one head */
    float softcap;       /* a score x becomes softcap * tanh(x / softcap); 0: as it is */
    const float *q;      /* [ceil(dim / 64)][count][64]: runs of 64 dims, multiplied by the attention scale */
    nj_softmax *run;     /* [count] */
    float *out;          /* [count][nj_attend_width(dim)] sum of weight * value, relative to run.m; at first 0 */
    float *scratch;      /* [nj_attend_scratch(count, dim)], 64-aligned */
} nj_queries;

static inline uint32_t nj_attend_width(uint32_t dim)
{
    return (dim + 31) / 32 * 32;
}

static inline size_t nj_attend_scratch(uint32_t count, uint32_t dim)
{
    return (size_t)count * NJ_TILE + 48 * ((size_t)dim + NJ_TILE);
}

/* One tile of cached rows. A row of Q8_0 begins at a block, and its last block may be used in part. */
typedef struct nj_tile {
    const void *keys, *values; /* [n] rows, `stride` bytes apart */
    size_t stride;
    uint32_t n;                          /* 1..NJ_TILE; what lies behind them is not read */
    const nj_span *span;                 /* [count] what each query sees of the tile; NULL: all n */
    const void *next_keys, *next_values; /* those of the tile that comes next, for the caches; or NULL */
} nj_tile;

/* Adds one tile to the sums of all queries. Per query:
 *   score[p]  one chain: fma over the dims in ascending order, from 0; then the softcap
 *   top       the largest of run.m and the scores seen
 *   w[p]      nj_exp(score[p] - top), 0 where it is not seen
 *   run.sum = run.sum * nj_exp(run.m - top) + the sum of w: lane i adds w[i], w[i + 16], w[i + 32], w[i + 48] as
 *             (a + b) + (c + d), then lanes 8, 4, 2 and 1 apart are added
 *   out[d]    is multiplied by nj_exp(run.m - top) and takes one fma per position seen, in ascending order
 * So a query's result does not depend on the others, and all tiers agree bit for bit. */
typedef void nj_attend_fn(const nj_queries *q, const nj_tile *t);

/* ---- Activation ---- */

/* out[i] = act(gate[i]) * up[i]; out may be gate. Per element the same operations on every tier, so the same bits.
 * exp is within 1.5 units in the last place; below exp(-86.6) it is 0, so that no weight is subnormal. */
typedef void nj_glu_fn(const float *gate, const float *up, float *out, uint32_t n);

enum { NJ_GLU_SILU, NJ_GLU_GELU_TANH, NJ_GLU_COUNT };

typedef struct nj_kernels {
    nj_isa isa;
    nj_linear_fn *linear[NJ_TYPE_COUNT];      /* narrow recipe, rows as nj_acts_of says; NULL for ids we don't read */
    nj_linear_fn *linear_f32[NJ_TYPE_COUNT];  /* F32 recipe: what int8 activations are compared with */
    nj_linear_fn *linear_wide[NJ_TYPE_COUNT]; /* BF16 rows; all NULL where the tier has no wide recipe, and for F32 */
    void (*quantize)(const float *x, uint32_t cols, nj_act_block *out); /* cols a multiple of 32; not finite: as 0 */
    void (*round_bf16)(const float *x, uint32_t cols, uint16_t *out);   /* round to nearest even */
    nj_attend_fn *attend[NJ_TYPE_COUNT]; /* NULL but for F32, F16, Q8_0 */
    /* Stores n floats as type F32, F16 (any n) or Q8_0 (n a multiple of 32), round to nearest even; NULL for others. */
    void (*store[NJ_TYPE_COUNT])(const float *x, void *dst, uint32_t n);
    nj_glu_fn *glu[NJ_GLU_COUNT]; /* by NJ_GLU_* */
} nj_kernels;

/* The kernels of a tier, or NULL when this CPU or OS can't run it (CPUID and XGETBV; AMX also needs permission).
 * NJ_ISA_SCALAR is the reference and always there. */
const nj_kernels *nj_kernels_get(nj_isa isa);

nj_isa nj_isa_best(void);            /* the highest tier nj_kernels_get grants */
const char *nj_isa_name(nj_isa isa); /* "scalar", "avx2", "avx512", "amx" */
int nj_isa_find(const char *name);   /* the tier, or -1 */

#endif
