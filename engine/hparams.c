/* Metadata to numbers. Key names and defaults: the GGUF specification and the model makers' configurations. */
#include "engine/hparams.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const arch_names[NJ_ARCH_COUNT] = { "llama",    "qwen2", "qwen2moe", "qwen3",
                                                       "qwen3moe", "phi3",  "gemma2" };

const char *nj_arch_name(nj_arch arch)
{
    return arch_names[arch];
}

/* Reading many keys of one architecture: the first failure sticks and later reads do nothing. */
typedef struct reader {
    const nj_gguf *g;
    const char *arch;
    nj_error *err;
    int rc;
} reader;

static const char *key_name(const reader *r, const char *suffix, char key[128])
{
    snprintf(key, 128, "%s.%s", r->arch, suffix);
    return key;
}

/* Some converters write a value per layer. One for all is as good as a scalar; layers that differ are not supported. */
static int read_uniform(const reader *r, const nj_meta *m, uint32_t max, uint32_t *out)
{
    bool fits =
        m->count && m->item_type != NJ_META_STRING && nj_meta_item_i64(m, 0) >= 0 && nj_meta_item_i64(m, 0) <= max;
    for (uint64_t i = 1; fits && i < m->count; i++) fits = nj_meta_item_i64(m, i) == nj_meta_item_i64(m, 0);
    if (fits) {
        *out = (uint32_t)nj_meta_item_i64(m, 0);
        return 0;
    }
    return nj_fail(r->err, -ENOTSUP,
                   "%s: %s differs from layer to layer (or is out of range), which Nightjar can't run",
                   nj_gguf_path(r->g), m->key.data);
}

/* An optional count of at most `max`; *out keeps its default when the key is absent. */
static void read_u32(reader *r, const char *suffix, uint32_t max, uint32_t *out)
{
    char key[128];
    if (r->rc) return;
    const nj_meta *m = nj_gguf_meta(r->g, key_name(r, suffix, key));
    if (m && m->type == NJ_META_ARRAY) {
        r->rc = read_uniform(r, m, max, out);
        return;
    }
    int rc = nj_gguf_get_u32(r->g, key, out, r->err);
    if (rc == -ENOENT) return;
    r->rc = rc;
    if (!rc && *out > max)
        r->rc = nj_fail(r->err, -EINVAL, "%s: %s is %u, the most Nightjar accepts is %u", nj_gguf_path(r->g), key, *out,
                        max);
}

static void need_u32(reader *r, const char *suffix, uint32_t max, uint32_t *out)
{
    char key[128];
    *out = 0;
    read_u32(r, suffix, max, out);
    if (!r->rc && *out == 0)
        r->rc = nj_fail(r->err, -EINVAL, "%s: metadata key %s is missing or 0", nj_gguf_path(r->g),
                        key_name(r, suffix, key));
}

/* An optional finite number in [min, max]. */
static void read_f32(reader *r, const char *suffix, float min, float max, float *out)
{
    char key[128];
    if (r->rc) return;
    int rc = nj_gguf_get_f32(r->g, key_name(r, suffix, key), out, r->err);
    if (rc == -ENOENT) return;
    r->rc = rc;
    if (!rc && !(*out >= min && *out <= max))
        r->rc = nj_fail(r->err, -EINVAL, "%s: %s is %g, outside %g to %g", nj_gguf_path(r->g), key, (double)*out,
                        (double)min, (double)max);
}

static void read_bool(reader *r, const char *suffix, bool *out)
{
    char key[128];
    if (r->rc) return;
    int rc = nj_gguf_get_bool(r->g, key_name(r, suffix, key), out, r->err);
    r->rc = rc == -ENOENT ? 0 : rc;
}

static int find_arch(nj_hparams *h, const nj_gguf *g, nj_error *err)
{
    nj_str name = { "", 0 };
    int rc = nj_gguf_get_str(g, "general.architecture", &name, err);
    if (rc == -ENOENT)
        return nj_fail(err, -EINVAL, "%s: metadata key general.architecture is missing", nj_gguf_path(g));
    if (rc) return rc;
    for (int a = 0; a < NJ_ARCH_COUNT; a++)
        if (strcmp(name.data, arch_names[a]) == 0) {
            h->arch = (nj_arch)a;
            return 0;
        }
    nj_fail(err, -ENOTSUP, "%s: architecture \"%.64s\" is not one Nightjar knows", nj_gguf_path(g), name.data);
    return nj_remedy(err, "Known: llama (also Mistral, Mixtral, Yi), qwen2, qwen2moe, qwen3, qwen3moe, phi3, gemma2.");
}

static void read_attention(reader *r, nj_hparams *h)
{
    need_u32(r, "attention.head_count", 4096, &h->heads);
    h->kv_heads = h->heads;
    read_u32(r, "attention.head_count_kv", 4096, &h->kv_heads);
    if (r->rc) return;
    if (h->kv_heads == 0 || h->heads % h->kv_heads) {
        r->rc = nj_fail(r->err, -EINVAL, "%s: %s.attention.head_count %u is not a multiple of head_count_kv %u",
                        nj_gguf_path(r->g), r->arch, h->heads, h->kv_heads);
        return;
    }
    h->head_dim = h->d_model / h->heads;
    read_u32(r, "attention.key_length", 1024, &h->head_dim);
    uint32_t value_dim = h->head_dim;
    read_u32(r, "attention.value_length", 1024, &value_dim);
    if (!r->rc && (h->head_dim == 0 || h->head_dim % 2 || value_dim != h->head_dim))
        r->rc = nj_fail(r->err, -EINVAL, "%s: %s.attention.key_length %u and value_length %u must be equal and even",
                        nj_gguf_path(r->g), r->arch, h->head_dim, value_dim);
    h->norm_eps = 1e-5f;
    read_f32(r, "attention.layer_norm_rms_epsilon", 0, 1, &h->norm_eps);
    read_u32(r, "attention.sliding_window", UINT32_MAX, &h->window);
    h->window_every = 1;
    if (r->rc) return;
    h->attn_scale = 1.0f / sqrtf((float)h->head_dim);
    if (h->arch == NJ_ARCH_GEMMA2) {
        h->window_every = 2;
        if (!nj_gguf_meta(r->g, "gemma2.attention.sliding_window"))
            h->window = 4096; /* early conversions lack the key */
        h->embed_scale = sqrtf((float)h->d_model);
        h->attn_softcap = 50.0f;
        h->logit_softcap = 30.0f;
        /* The 27B (46 layers) scales by d_model / heads = 144, not by its head size 128; GGUF has no key for it. */
        if (h->layers == 46) h->attn_scale = 1.0f / sqrtf((float)h->d_model / (float)h->heads);
    }
    read_f32(r, "attention.scale", 1e-6f, 1e6f, &h->attn_scale);
    read_f32(r, "attn_logit_softcapping", 0, 1e6f, &h->attn_softcap);
    read_f32(r, "final_logit_softcapping", 0, 1e6f, &h->logit_softcap);
}

/* Early files leave out a width that the tensor itself tells. */
static uint32_t width_of(const nj_gguf *g, const char *tensor, uint32_t otherwise)
{
    const nj_tensor *t = nj_gguf_tensor(g, tensor);
    return t && t->dim[1] <= 1u << 20 ? (uint32_t)t->dim[1] : otherwise;
}

static void read_experts(reader *r, nj_hparams *h)
{
    read_u32(r, "expert_count", 4096, &h->experts);
    if (r->rc || h->experts == 0) return;
    need_u32(r, "expert_used_count", h->experts, &h->experts_used);
    h->expert_d_ff = width_of(r->g, "blk.0.ffn_up_exps.weight", h->d_ff);
    read_u32(r, "expert_feed_forward_length", 1u << 20, &h->expert_d_ff);
    if (h->arch == NJ_ARCH_QWEN2MOE) {
        h->shared_d_ff = width_of(r->g, "blk.0.ffn_up_shexp.weight", h->d_ff);
        read_u32(r, "expert_shared_feed_forward_length", 1u << 20, &h->shared_d_ff);
    }
    h->expert_weights_norm = h->arch != NJ_ARCH_QWEN2MOE;
    read_bool(r, "expert_weights_norm", &h->expert_weights_norm);
    h->expert_weights_scale = 1.0f;
    read_f32(r, "expert_weights_scale", 0, 1e3f, &h->expert_weights_scale);
    if (h->expert_weights_scale == 0.0f) h->expert_weights_scale = 1.0f; /* 0 means that the model has none */
}

/* "yarn:4", "linear:2", "none": what the user asked for instead of the file's own scaling. */
static int override_rope(nj_hparams *h, const char *text, nj_error *err)
{
    static const struct {
        const char *name;
        nj_rope_scaling kind;
    } kinds[] = { { "none", NJ_ROPE_PLAIN }, { "linear:", NJ_ROPE_LINEAR }, { "yarn:", NJ_ROPE_YARN } };
    for (size_t i = 0; i < NJ_COUNT(kinds); i++) {
        size_t len = strlen(kinds[i].name);
        if (strncmp(text, kinds[i].name, len)) continue;
        char *end = NULL;
        double factor = kinds[i].kind == NJ_ROPE_PLAIN ? 1.0 : strtod(text + len, &end);
        if (end ? *end || end == text + len : text[len]) break;
        if (!(factor >= 1.0 && factor <= 1024.0)) break;
        h->rope_scaling = kinds[i].kind;
        h->rope_factor = (float)factor;
        h->rope_attn_factor = 0.0f;
        h->rope_overridden = true;
        double scaled =
            (double)h->rope_context * factor; /* the context before any stretching, the file's own included */
        h->context = scaled < (double)(1u << 30) ? (uint32_t)scaled : 1u << 30;
        return 0;
    }
    nj_fail(err, -EINVAL, "rope scaling \"%.64s\" is not understood", text);
    return nj_remedy(err, "Write none, linear:FACTOR or yarn:FACTOR with a factor from 1 to 1024, for example yarn:4.");
}

static void read_rope(reader *r, nj_hparams *h, const nj_model_options *opt)
{
    char key[128];
    h->rope_neox = h->arch != NJ_ARCH_LLAMA;
    h->rope_base = 10000.0f;
    read_f32(r, "rope.freq_base", 1.0f, 1e12f, &h->rope_base);
    h->rope_dim = h->head_dim;
    read_u32(r, "rope.dimension_count", h->head_dim, &h->rope_dim);
    if (!r->rc && (h->rope_dim == 0 || h->rope_dim % 2))
        r->rc = nj_fail(r->err, -EINVAL, "%s: %s.rope.dimension_count %u is not even", nj_gguf_path(r->g), r->arch,
                        h->rope_dim);
    h->rope_factor = 1.0f;
    h->rope_context = h->context;
    h->yarn_beta_fast = 32.0f;
    h->yarn_beta_slow = 1.0f;
    read_f32(r, "rope.scaling.factor", 0, 1e6f, &h->rope_factor);
    if (h->rope_factor == 0.0f) h->rope_factor = 1.0f;
    read_f32(r, "rope.scaling.attn_factor", 0, 1e3f, &h->rope_attn_factor);
    read_u32(r, "rope.scaling.original_context_length", 1u << 30, &h->rope_context);
    read_f32(r, "rope.scaling.yarn_beta_fast", 0, 1e6f, &h->yarn_beta_fast);
    read_f32(r, "rope.scaling.yarn_beta_slow", 0, 1e6f, &h->yarn_beta_slow);
    if (r->rc) return;
    /* Files from before rope.scaling.type say how far a linear scaling stretches under another name. */
    read_f32(r, "rope.scale_linear", 1e-3f, 1e6f, &h->rope_factor);
    if (r->rc) return;
    /* A factor without a type is linear stretching, as it was before types. */
    nj_str kind = h->rope_factor != 1.0f ? (nj_str){ "linear", 6 } : (nj_str){ "none", 4 };
    int rc = nj_gguf_get_str(r->g, key_name(r, "rope.scaling.type", key), &kind, r->err);
    if (rc && rc != -ENOENT) {
        r->rc = rc;
        return;
    }
    if (strcmp(kind.data, "linear") == 0)
        h->rope_scaling = NJ_ROPE_LINEAR;
    else if (strcmp(kind.data, "yarn") == 0)
        h->rope_scaling = NJ_ROPE_YARN;
    else if (strcmp(kind.data, "longrope") == 0)
        h->rope_scaling = NJ_ROPE_LONG;
    else if (strcmp(kind.data, "none") != 0) {
        r->rc = nj_fail(r->err, -ENOTSUP, "%s: %s \"%.32s\" is not known", nj_gguf_path(r->g), key, kind.data);
        return;
    }
    /* Phi-3's long-rope files may leave the factor out; it follows from the stretch (Ding et al. 2024, LongRoPE). */
    if (h->arch == NJ_ARCH_PHI3 && h->rope_attn_factor == 0.0f && h->rope_context > 1 && h->context > h->rope_context)
        h->rope_attn_factor =
            sqrtf(1.0f + logf((float)h->context / (float)h->rope_context) / logf((float)h->rope_context));
    if (opt && opt->rope_scaling) r->rc = override_rope(h, opt->rope_scaling, r->err);
}

int nj_hparams_read(nj_hparams *h, const nj_gguf *g, const nj_model_options *opt, nj_error *err)
{
    *h = (nj_hparams){ .embed_scale = 1.0f };
    int rc = find_arch(h, g, err);
    if (rc) return rc;
    reader r = { g, arch_names[h->arch], err, 0 };
    need_u32(&r, "block_count", 1024, &h->layers);
    need_u32(&r, "embedding_length", 1u << 20, &h->d_model);
    need_u32(&r, "context_length", 1u << 30, &h->context);
    read_u32(&r, "feed_forward_length", 1u << 20, &h->d_ff);
    if (r.rc) return r.rc;
    read_attention(&r, h);
    read_experts(&r, h);
    read_rope(&r, h, opt);
    if (r.rc) return r.rc;
    if (h->experts == 0 && h->d_ff == 0)
        return nj_fail(err, -EINVAL, "%s: metadata key %s.feed_forward_length is missing or 0", nj_gguf_path(g),
                       r.arch);
    if (opt && opt->context) h->context = opt->context;
    if (h->window >= h->context) h->window = 0; /* never bites: keep the simpler cache */
    return 0;
}

void nj_sampling_read(nj_sampling *s, const nj_gguf *g)
{
    *s = (nj_sampling){ .temperature = 0.8f,
                        .top_k = 40,
                        .top_p = 0.95f,
                        .min_p = 0.05f,
                        .typical_p = 1.0f,
                        .repeat_penalty = 1.0f,
                        .penalty_window = 64 };
    /* Recommendations: what makes no sense here is passed over, as it must not keep a model from running. */
    static const struct {
        const char *key;
        size_t at;
        float min, max;
    } floats[] = {
        { "general.sampling.temp", offsetof(nj_sampling, temperature), 0, 100 },
        { "general.sampling.top_p", offsetof(nj_sampling, top_p), 0, 1 },
        { "general.sampling.min_p", offsetof(nj_sampling, min_p), 0, 1 },
        { "general.sampling.penalty_repeat", offsetof(nj_sampling, repeat_penalty), 0.01f, 100 },
    };
    for (size_t i = 0; i < NJ_COUNT(floats); i++) {
        float value;
        if (nj_gguf_get_f32(g, floats[i].key, &value, NULL)) continue;
        if (value >= floats[i].min && value <= floats[i].max) memcpy((char *)s + floats[i].at, &value, sizeof value);
    }
    const nj_meta *top_k = nj_gguf_meta(g, "general.sampling.top_k"),
                  *last = nj_gguf_meta(g, "general.sampling.penalty_last_n");
    if (top_k && top_k->type != NJ_META_ARRAY && top_k->i >= 0 && top_k->i <= 1 << 24) s->top_k = (uint32_t)top_k->i;
    if (last && last->type != NJ_META_ARRAY && last->i >= -1 && last->i <= 1 << 24)
        s->penalty_window = last->i == -1 ? 0 : (uint32_t)last->i; /* -1: the whole context */
}

/* YaRN (Peng et al. 2023): fast dimensions keep their frequency, slow ones are divided by the factor, a ramp between.
 */
static double yarn_frequency(const nj_hparams *h, uint32_t i, double freq)
{
    double dim = h->rope_dim, base = log((double)h->rope_base);
    double low = floor(dim * log(h->rope_context / (h->yarn_beta_fast * 2.0 * M_PI)) / (2.0 * base));
    double high = ceil(dim * log(h->rope_context / (h->yarn_beta_slow * 2.0 * M_PI)) / (2.0 * base));
    low = fmax(low, 0.0);
    high = fmin(high, dim - 1.0);
    double ramp = fmin(fmax((i - low) / fmax(high - low, 0.001), 0.0), 1.0);
    return freq * (1.0 - ramp) + freq / (double)h->rope_factor * ramp;
}

/* Long-rope and YaRN raise attention's temperature with the stretch; a file may name the factor itself. */
static float rope_magnitude(const nj_hparams *h)
{
    if (h->rope_scaling == NJ_ROPE_YARN) {
        float extra = h->rope_attn_factor != 0.0f ? h->rope_attn_factor : 1.0f;
        return extra * (1.0f + 0.1f * logf(h->rope_factor));
    }
    return h->rope_attn_factor != 0.0f ? h->rope_attn_factor : 1.0f;
}

void nj_rope_frequencies(const nj_hparams *h, const float *factors, double *inv_freq, float *magnitude)
{
    for (uint32_t i = 0; i < h->rope_dim / 2; i++) {
        double freq = pow((double)h->rope_base, -2.0 * i / h->rope_dim);
        if (factors) freq /= (double)factors[i];
        if (h->rope_scaling == NJ_ROPE_LINEAR) freq /= (double)h->rope_factor;
        if (h->rope_scaling == NJ_ROPE_YARN) freq = yarn_frequency(h, i, freq);
        inv_freq[i] = freq;
    }
    *magnitude = rope_magnitude(h);
}
