/* The numbers that shape a model, read from GGUF metadata and checked once. Private to engine/. */
#ifndef NJ_HPARAMS_H
#define NJ_HPARAMS_H

#include "engine/nj_engine.h"

typedef enum nj_arch {
    NJ_ARCH_LLAMA,
    NJ_ARCH_QWEN2,
    NJ_ARCH_QWEN2MOE,
    NJ_ARCH_QWEN3,
    NJ_ARCH_QWEN3MOE,
    NJ_ARCH_PHI3,
    NJ_ARCH_GEMMA2,
    NJ_ARCH_COUNT
} nj_arch;

typedef enum nj_rope_scaling { NJ_ROPE_PLAIN, NJ_ROPE_LINEAR, NJ_ROPE_YARN, NJ_ROPE_LONG } nj_rope_scaling;

typedef struct nj_hparams {
    nj_arch arch;
    uint32_t layers, d_model, vocab, context;
    uint32_t heads, kv_heads, head_dim; /* keys and values have one head size */
    uint32_t d_ff;                      /* dense MLP width; 0 where every layer has experts */
    uint32_t experts, experts_used, expert_d_ff, shared_d_ff;
    bool expert_weights_norm; /* chosen experts' weights are scaled to sum to 1 */
    float expert_weights_scale;
    float norm_eps;
    float attn_scale, attn_softcap, logit_softcap, embed_scale; /* softcaps: 0 is none */
    uint32_t window;                                            /* sliding window in positions, 0: none */
    uint32_t window_every;                                      /* layers l with l % window_every == 0 have it */
    uint32_t rope_dim;
    bool rope_neox;       /* pairs (i, i + dim/2); else (2i, 2i + 1) */
    bool rope_overridden; /* the user chose the scaling: the file's factor tensors for it do not apply */
    float rope_base;
    nj_rope_scaling rope_scaling;
    float rope_factor, rope_attn_factor; /* attn_factor 0: not given */
    uint32_t rope_context;               /* context that the unscaled model was trained on */
    float yarn_beta_fast, yarn_beta_slow;
} nj_hparams;

/* Reads and checks. Errors name the key. `opt` (may be NULL) supplies rope scaling and context. */
int nj_hparams_read(nj_hparams *h, const nj_gguf *g, const nj_model_options *opt, nj_error *err);

/* Our defaults, replaced by the file's general.sampling.* values. */
void nj_sampling_read(nj_sampling *s, const nj_gguf *g);

const char *nj_arch_name(nj_arch arch);

/* Inverse frequencies [rope_dim / 2] and the factor on cos and sin. `factors` [rope_dim / 2] divides each frequency
 * (the rope_freqs or rope_factors_* tensor), or NULL. */
void nj_rope_frequencies(const nj_hparams *h, const float *factors, double *inv_freq, float *magnitude);

#endif
