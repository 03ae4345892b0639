/* The model: tokenizer, chat template, layer program, paged KV, sampler, and the scheduler that answers requests.
 *
 * Ownership: a model owns its weights, tokenizer and template and outlives every engine made from it; an engine owns
 * its workers, KV pages and sessions; who makes a sequence of his own frees it before the engine. Threads: a model is
 * read-only after opening and may be shared; one thread at a time calls into an engine. */
#ifndef NJ_ENGINE_H
#define NJ_ENGINE_H

#include <time.h>

#include "io/nj_io.h"
#include "numa/nj_base.h"
#include "quant/nj_quant.h"

/* What nj_gguf_open must know of weight types: quant's tables. */
const nj_gguf_types *nj_weight_types(void);

/* ---- Tokenizer ---- */

typedef struct nj_tokenizer nj_tokenizer;

/* Built from the tokenizer.ggml.* keys (models gpt2 and llama). Checks every id and type against the vocabulary.
 * `g` may be closed afterwards. */
int nj_tokenizer_new(nj_tokenizer **out, const nj_gguf *g, nj_error *err);
void nj_tokenizer_free(nj_tokenizer *t);

typedef struct nj_tokens {
    int32_t *id;
    size_t len, cap;
} nj_tokens; /* zero-initialise; free(id) */

enum {
    NJ_TOKENIZE_SPECIAL = 1, /* text of special tokens ("<|im_end|>") becomes their id */
    NJ_TOKENIZE_BOS = 2,     /* add bos/eos where the model says so (add_bos_token, add_eos_token) */
};

/* Appends the ids of `text` (UTF-8; invalid bytes are kept where the vocabulary has bytes) to *out. Thread-safe. */
int nj_tokenize(const nj_tokenizer *t, const char *text, size_t len, unsigned flags, nj_tokens *out, nj_error *err);

/* Appends the bytes of one token; may be part of a UTF-8 character. Control tokens give nothing unless `special`. */
void nj_token_text(const nj_tokenizer *t, int32_t id, bool special, nj_buf *out);

/* Text of a sequence, undoing the vocabulary's conventions (the leading space SentencePiece adds, say). */
void nj_detokenize(const nj_tokenizer *t, const int32_t *id, size_t n, bool special, nj_buf *out);

int32_t nj_tokenizer_size(const nj_tokenizer *t);
int32_t nj_tokenizer_bos(const nj_tokenizer *t);             /* -1: none */
int32_t nj_tokenizer_eos(const nj_tokenizer *t);             /* -1: none */
bool nj_token_is_end(const nj_tokenizer *t, int32_t id);     /* eos, eot, eom: ends a generation */
bool nj_token_is_special(const nj_tokenizer *t, int32_t id); /* control, unknown or unused */
const char *nj_tokenizer_name(const nj_tokenizer *t);        /* "gpt2/qwen2", "llama" */

/* ---- Chat template: the part of Jinja2 that model makers use. ---- */

typedef struct nj_template nj_template;

/* Compiles. Errors name the line. */
int nj_template_new(nj_template **out, const char *source, size_t len, nj_error *err);
void nj_template_free(nj_template *t);

/* Renders with the members of a JSON object as variables. Bounded: at most 64 MB of values and output and a step count
 * that takes well under 1 s, then -E2BIG. raise_exception() gives -EBADMSG with the template's own text in err->text.
 *   now  what strftime_now sees; NULL: the present local time. Thread-safe. */
int nj_template_render(const nj_template *t, const char *args_json, size_t len, const struct tm *now, nj_buf *out,
                       nj_error *err);

/* ---- Model ---- */

typedef struct nj_model nj_model;

typedef struct nj_model_options {
    const char *const *set; /* "key=value" metadata overrides, `set_count` of them */
    size_t set_count;
    const char *rope_scaling; /* "yarn:4", "linear:2", "none", or NULL: as the file says */
    uint32_t context;         /* context to prepare for (chooses long-rope factors); 0: the file's */
    uint32_t threads;         /* for loading; 0: one per core */
    void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* may be NULL */
    void *progress_arg;
    const volatile bool *cancel; /* may be NULL; becoming true makes open return -ECANCELED */
} nj_model_options;

typedef struct nj_model_info {
    char name[128], arch[32];
    uint32_t layers, d_model, heads, kv_heads, head_dim, d_ff, vocab, context;
    uint32_t experts, experts_used, expert_d_ff;
    uint64_t params, params_active; /* weights in all; weights multiplied per token */
    uint64_t bytes;                 /* weights in memory */
    uint64_t bytes_per_token;       /* weight bytes read per decoded token (no looked-up-only embedding) */
    uint64_t kv_values_per_token;   /* K and V values per position over all layers; times the KV type's size */
    uint64_t load_ns;               /* time that reading and packing the weights took; 0 when only described */
} nj_model_info;

/* Opens, checks every tensor's presence and shape, loads into panels. */
int nj_model_open(nj_model **out, const char *path, const nj_model_options *opt, nj_error *err);
void nj_model_close(nj_model *m);

/* The same facts from an open file, without loading weights. */
int nj_model_describe(const nj_gguf *g, nj_model_info *out, nj_error *err);

const nj_model_info *nj_model_info_of(const nj_model *m);
const nj_tokenizer *nj_model_tokenizer(const nj_model *m);
const nj_template *nj_model_template(const nj_model *m); /* NULL: the file has none that we can use */
const char *nj_model_template_error(const nj_model *m);  /* why not, or NULL */

/* ---- Shapes: well-known models by their numbers alone, with random weights, to measure without a file. ---- */

typedef struct nj_shape {
    const char *name, *arch; /* "qwen3-4b"; GGUF's general.architecture */
    uint32_t layers, d_model, heads, kv_heads, head_dim;
    uint32_t d_ff; /* of dense layers */
    uint32_t experts, experts_used, expert_d_ff;
    uint32_t vocab, context;
    float rope_base, norm_eps;
    bool tied;           /* the output matrix is the embedding table */
    bool rope_factors;   /* has the table rope_freqs */
    uint32_t layers_all; /* of the whole model, when `layers` are fewer */
    int mix;             /* weight types, see nj_mix_find */
    uint64_t seed;
} nj_shape;

/* The shape of a text like "qwen3-4b:q4_k_m" (any case; without a type Q4_K_M), cut to `layers` (0: all), seed 0. The
 * caller may change numbers. -EINVAL, with what is known as remedy. */
int nj_shape_find(const char *spec, uint32_t layers, nj_shape *out, nj_error *err);
const char *nj_shape_name(size_t index); /* of those known; NULL past the last */

/* A model file that is computed instead of read: header, a vocabulary that turns any text into tokens and back, and
 * weights that keep activations near 1 and let a router choose its experts about equally often. The bytes depend on the
 * shape alone. Thread-safe but for nj_gguf_set. Weights of one dimension are read in whole F32 values. */
typedef struct nj_synth nj_synth;
int nj_synth_new(nj_synth **out, const nj_shape *shape, nj_error *err);
void nj_synth_free(nj_synth *s);             /* accepts NULL */
nj_gguf *nj_synth_gguf(const nj_synth *s);   /* owned by `s`; for its tensors nj_synth_read stands for nj_gguf_read */
void nj_synth_read(const nj_synth *s, const nj_tensor *t, uint64_t offset, void *dst, uint64_t len);

/* What nj_model_open would make of that file, without the file. -ENOMEM before any work when RAM does not suffice. */
int nj_model_synth(nj_model **out, const nj_shape *shape, const nj_model_options *opt, nj_error *err);

/* May this metadata key be changed at load, or is it bound to tensor shapes? */
typedef enum nj_key_kind { NJ_KEY_FREE, NJ_KEY_SHAPE, NJ_KEY_INFO } nj_key_kind;

/* What a metadata key does, one plain sentence, and whether it can be changed. `arch` is the file's architecture.
 * Unknown keys give NJ_KEY_INFO and "Not used by Nightjar." */
nj_key_kind nj_key_describe(const char *arch, const char *key, const char **sentence);

/* ---- Engine: workers, KV pages, and steps over rows of several sequences. ---- */

typedef struct nj_engine nj_engine;

enum { NJ_STEP_ROWS_MAX = 4096 };

typedef struct nj_engine_options {
    uint32_t threads;      /* 0: one per physical core */
    int isa;               /* nj_isa, or -1: the best this CPU has */
    uint32_t kv_type;      /* NJ_F16, NJ_F32 or NJ_Q8_0 */
    bool kv_type_set;      /* kv_type 0 is F32 only with this; else it means F16 */
    uint32_t context;      /* positions a sequence may have; 0: the model's */
    uint32_t rows_max;     /* rows per step, at most NJ_STEP_ROWS_MAX; 0: 256 */
    uint64_t kv_bytes_max; /* budget for KV pages; 0: half of the memory available now */
    bool acts_f32;         /* F32 activations for all weights: what rounded ones are compared with */
} nj_engine_options;

int nj_engine_new(nj_engine **out, const nj_model *m, const nj_engine_options *opt, nj_error *err);
void nj_engine_free(nj_engine *e);

typedef struct nj_engine_stats {
    nj_isa isa;
    bool has_wide; /* prompt rows have a recipe of their own */
    uint32_t threads;
    uint64_t steps, rows;
    uint64_t weight_bytes; /* that all steps had to read; of experts, those that some row chose */
    uint64_t kv_values;    /* K and V values that attention covered, summed over all rows */
    uint64_t kv_read;      /* those that steps had to read: rows of one sequence read together */
    uint64_t attention_ns; /* time in attention, in all steps */
    uint64_t prompt_rows, prompt_ns; /* steps that held at least one prompt row */
    uint64_t decode_rows, decode_ns; /* steps of generated rows only */
    uint64_t decode_bytes;           /* weight bytes those steps had to read */
    uint64_t prefix_rows_saved;      /* prompt rows taken from shared pages */
    uint64_t preemptions;            /* times a request lost its pages to older ones */
    uint64_t kv_bytes, kv_bytes_max;
} nj_engine_stats;
void nj_engine_stats_read(const nj_engine *e, nj_engine_stats *out);

/* A sequence: tokens already computed, held as KV pages. */
typedef struct nj_sequence nj_sequence;
int nj_sequence_new(nj_engine *e, nj_sequence **out, nj_error *err);
void nj_sequence_free(nj_engine *e, nj_sequence *s);
uint32_t nj_sequence_length(const nj_sequence *s);
/* Forgets positions >= length. With sliding windows it may forget more: nj_sequence_length says where to go on. */
void nj_sequence_truncate(nj_engine *e, nj_sequence *s, uint32_t length);

/* Fills an empty sequence with `length` positions of finite pseudo-random keys and values, as if so many tokens had
 * been computed: a benchmark of long contexts need not compute them. What is then computed means nothing, and no other
 * sequence ever shares it. -EINVAL when the sequence is not empty, -EOVERFLOW past the context, -ENOSPC when KV pages
 * ran out, -ENOMEM: then the sequence is empty. */
int nj_sequence_fill(nj_engine *e, nj_sequence *s, uint32_t length, nj_error *err);

/* One row of a step: the next token of a sequence. Rows of one sequence must follow each other in order.
 * The AMX tier computes a prompt's rows by its wide recipe (BF16 activations) and generated ones by the narrow recipe
 * (int8), which all tiers have in common; the other tiers compute all rows by the narrow one. Pages are shared between
 * sequences whose rows were computed alike. */
typedef struct nj_row {
    nj_sequence *sequence;
    int32_t token;
    bool logits; /* wanted for this row */
    bool prompt; /* a row of a prompt */
} nj_row;

/* Computes rows (at most rows_max) and appends them to their sequences. logits[i] of the i-th row that asked lie at
 * *logits + i * vocab, owned by the engine and valid until the next step.
 * -ENOSPC when KV pages ran out, -EOVERFLOW past the context, -EINVAL for a bad token: then no sequence has changed. */
int nj_engine_step(nj_engine *e, const nj_row *rows, uint32_t n, const float **logits, nj_error *err);

/* ---- Sampling ---- */

typedef struct nj_logit_bias {
    int32_t token;
    float bias;
} nj_logit_bias;

typedef struct nj_sampling {
    float temperature;                         /* 0: greedy */
    uint32_t top_k;                            /* 0: off */
    float top_p, min_p, typical_p;             /* 1, 0, 1: off */
    float repeat_penalty;                      /* 1: off */
    float presence_penalty, frequency_penalty; /* 0: off */
    uint32_t penalty_window;                   /* last tokens (prompt and answer) that penalties look at; 0: all */
    uint64_t seed;
    const nj_logit_bias *bias; /* copied by whoever keeps it */
    size_t bias_count;
} nj_sampling;

/* Plain defaults (temperature 0.8, top_k 40, top_p 0.95, min_p 0.05), replaced by general.sampling.* where the file has
 * them. */
void nj_sampling_defaults(const nj_model *m, nj_sampling *out);

/* ---- Requests: prompt in, text out. The scheduler forms steps from all running requests. ---- */

typedef enum nj_finish {
    NJ_RUNNING,
    NJ_FINISH_STOP,
    NJ_FINISH_LENGTH,
    NJ_FINISH_LOOP,
    NJ_FINISH_CANCELLED,
    NJ_FINISH_ERROR
} nj_finish;

typedef struct nj_request {
    const int32_t *prompt; /* copied */
    size_t prompt_len;     /* at least 1 */
    nj_sampling sampling;
    uint32_t max_tokens;     /* 0: until the context is full */
    const char *const *stop; /* copied; the answer ends before the first match, also across token borders */
    size_t stop_count;
    bool ignore_eos;
    bool detect_loops;     /* end with NJ_FINISH_LOOP when the same n-gram repeats over and over */
    bool logprobs;         /* keep the log probability of each token */
    uint32_t top_logprobs; /* and of this many best alternatives (at most 20) */
    /* Take over pages of the same tokens whatever recipe computed them: the earlier answers of a conversation need not
     * be computed again as rows of a prompt. The answer may then depend on what ran before. */
    bool any_recipe;
} nj_request;

typedef struct nj_top {
    int32_t token;
    float logprob;
} nj_top;
typedef struct nj_token_out {
    int32_t token;
    float logprob;     /* natural log, of the unmodified distribution; 0 unless asked for */
    const nj_top *top; /* top_logprobs entries, best first */
    uint32_t text_end; /* bytes of the answer up to and including this token (as decoded, before stop cuts) */
} nj_token_out;

typedef struct nj_session nj_session;

/* Queues a request. The session lives until nj_session_free. -EINVAL for an empty or too long prompt. */
int nj_session_new(nj_engine *e, const nj_request *r, nj_session **out, nj_error *err);
void nj_session_free(nj_engine *e, nj_session *s); /* also a running one */
void nj_session_cancel(nj_session *s);

/* Forms and computes one step over all unfinished sessions, in order of arrival, prompt chunks and decode rows
 * together. Returns the number of sessions still running, or a negative errno when the step as a whole failed.
 * A request that can't go on alone (KV can never hold it) ends with NJ_FINISH_ERROR; the others continue. */
int nj_engine_run(nj_engine *e, nj_error *err);

nj_finish nj_session_finish(const nj_session *s);
const char *nj_session_error(const nj_session *s); /* text for NJ_FINISH_ERROR */
/* Text that will not change any more: whole characters, nothing that may become a stop string. Grows; NUL-terminated.
 */
const char *nj_session_text(const nj_session *s, size_t *len);
const nj_token_out *nj_session_tokens(const nj_session *s, size_t *n);
uint32_t nj_session_prompt_tokens(const nj_session *s);
uint32_t nj_session_prompt_done(const nj_session *s); /* prompt rows computed or shared so far */
const char *nj_finish_name(nj_finish f);              /* "stop", "length", "repetition", ... */

#endif
