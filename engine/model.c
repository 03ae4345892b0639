/* Opening a model: metadata, tokenizer, template, tensors by name and shape, loading, layer program. */
#include "engine/load.h"
#include "engine/program.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const nj_gguf_types weight_types = { nj_format_size, nj_format_name };

const nj_gguf_types *nj_weight_types(void)
{
    return &weight_types;
}

/* Finds tensors, checks shapes and lists what to load. The first failure sticks in rc and later calls do nothing. */
typedef struct binder {
    nj_model *m;
    const nj_gguf *g;
    nj_load *load;
    nj_error *err;
    int rc;
    uint64_t params, params_active, bytes_per_token;
} binder;

static bool has_shape(const nj_tensor *t, uint32_t cols, uint32_t rows, uint32_t count)
{
    return t->dim[0] == cols && t->dim[1] == rows && t->dim[2] == count && t->dim[3] == 1;
}

/* The tensor NAME of shape (cols, rows, count), trailing ones left out; NULL when absent or after a failure. */
static const nj_tensor *find(binder *b, const char *name, bool needed, uint32_t cols, uint32_t rows, uint32_t count)
{
    if (b->rc) return NULL;
    const nj_tensor *t = nj_gguf_tensor(b->g, name);
    if (!t) {
        if (needed) {
            b->rc = nj_fail(b->err, -EINVAL, "%s: tensor %s is missing", nj_gguf_path(b->g), name);
            nj_remedy(b->err, "The file is incomplete or of another architecture than it says (%s).",
                      nj_arch_name(b->m->h.arch));
        }
        return NULL;
    }
    if (has_shape(t, cols, rows, count)) return t;
    b->rc =
        nj_fail(b->err, -EINVAL,
                "%s: tensor %s has shape %" PRIu64 " x %" PRIu64 " x %" PRIu64 ", the metadata asks for %u x %u x %u",
                nj_gguf_path(b->g), name, t->dim[0], t->dim[1], t->dim[2], cols, rows, count);
    return NULL;
}

static const char *layer_name(char name[64], uint32_t layer, const char *suffix)
{
    snprintf(name, 64, "blk.%u.%s", layer, suffix);
    return name;
}

/* A vector of n floats (norm weights, bias, rope factors), whatever type it is stored in. */
static void bind_vector(binder *b, const char *name, bool needed, uint32_t n, const float **out)
{
    const nj_tensor *t = find(b, name, needed, n, 1, 1);
    if (!t) return;
    b->rc = nj_load_add(b->load, t, NJ_LOAD_F32, 1, 1, n, out, b->err);
    b->params += n;
    b->params_active += n;
    b->bytes_per_token += (uint64_t)n * sizeof(float);
    b->m->bytes_dense += (uint64_t)n * sizeof(float);
}

/* `count` matrices (rows, cols) as panels, `used` of them read per token. */
static void bind_matrices(binder *b, const char *name, bool needed, uint32_t rows, uint32_t cols, uint32_t count,
                          uint32_t used, nj_weight *out)
{
    const nj_tensor *t = find(b, name, needed, cols, rows, count);
    if (!t) return;
    out->panels = (nj_panels){ NULL, t->type, rows, cols };
    out->count = count;
    b->rc = nj_load_add(b->load, t, NJ_LOAD_PANELS, count, rows, cols, &out->panels.data, b->err);
    if (b->rc) return;
    out->stride = b->load->item[b->load->count - 1].stride;
    b->params += (uint64_t)rows * cols * count;
    b->params_active += (uint64_t)rows * cols * used;
    b->bytes_per_token += nj_row_bytes(t->type, cols) * rows * used;
    if (count == 1) b->m->bytes_dense += nj_row_bytes(t->type, cols) * rows;
}

enum { WEIGHT_NEEDED = 1, BIAS_NEEDED = 2 };

/* blk.L.NAME.weight and blk.L.NAME.bias; `needed` says which of them must be there. */
static void bind_linear(binder *b, uint32_t layer, const char *name, unsigned needed, uint32_t rows, uint32_t cols,
                        nj_weight *out)
{
    char full[64], suffix[48];
    snprintf(suffix, sizeof suffix, "%s.weight", name);
    bind_matrices(b, layer_name(full, layer, suffix), needed & WEIGHT_NEEDED, rows, cols, 1, 1, out);
    if (!out->count) return;
    snprintf(suffix, sizeof suffix, "%s.bias", name);
    bind_vector(b, layer_name(full, layer, suffix), needed & BIAS_NEEDED, rows, &out->bias);
}

static void bind_norm(binder *b, uint32_t layer, const char *name, bool needed, uint32_t n, const float **out)
{
    char full[64], suffix[48];
    snprintf(suffix, sizeof suffix, "%s.weight", name);
    bind_vector(b, layer_name(full, layer, suffix), needed, n, out);
}

static void bind_attention(binder *b, uint32_t i, nj_layer *l)
{
    const nj_hparams *h = &b->m->h;
    uint32_t d = h->d_model, q = h->heads * h->head_dim, kv = h->kv_heads * h->head_dim;
    bind_norm(b, i, "attn_norm", true, d, &l->attn_norm);
    bind_linear(b, i, "attn_qkv", 0, q + 2 * kv, d, &l->qkv);
    if (!l->qkv.count) {
        bool biased = h->arch == NJ_ARCH_QWEN2 || h->arch == NJ_ARCH_QWEN2MOE;
        unsigned needed = biased ? WEIGHT_NEEDED | BIAS_NEEDED : WEIGHT_NEEDED;
        bind_linear(b, i, "attn_q", needed, q, d, &l->q);
        bind_linear(b, i, "attn_k", needed, kv, d, &l->k);
        bind_linear(b, i, "attn_v", needed, kv, d, &l->v);
    }
    bool head_norms = h->arch == NJ_ARCH_QWEN3 || h->arch == NJ_ARCH_QWEN3MOE;
    bind_norm(b, i, "attn_q_norm", head_norms, h->head_dim, &l->q_norm);
    bind_norm(b, i, "attn_k_norm", head_norms, h->head_dim, &l->k_norm);
    bind_linear(b, i, "attn_output", WEIGHT_NEEDED, d, q, &l->attn_out);
    bind_norm(b, i, "post_attention_norm", h->arch == NJ_ARCH_GEMMA2, d, &l->attn_post_norm);
    bind_norm(b, i, "post_ffw_norm", h->arch == NJ_ARCH_GEMMA2, d, &l->mlp_post_norm);
    bind_norm(b, i, "ffn_norm", true, d, &l->mlp_norm);
}

static void bind_mlp(binder *b, uint32_t i, nj_layer *l, const char *tail, uint32_t ff)
{
    const nj_hparams *h = &b->m->h;
    char name[32];
    bool fused = h->arch == NJ_ARCH_PHI3; /* its ffn_up holds the gate's rows, then up's */
    if (fused) {
        bind_linear(b, i, "ffn_up", WEIGHT_NEEDED, 2 * ff, h->d_model, &l->gate_up);
    } else {
        snprintf(name, sizeof name, "ffn_gate%s", tail);
        bind_linear(b, i, name, WEIGHT_NEEDED, ff, h->d_model, &l->gate);
        snprintf(name, sizeof name, "ffn_up%s", tail);
        bind_linear(b, i, name, WEIGHT_NEEDED, ff, h->d_model, &l->up);
    }
    snprintf(name, sizeof name, "ffn_down%s", tail);
    bind_linear(b, i, name, WEIGHT_NEEDED, h->d_model, ff, &l->down);
}

/* Mixtral files from before 2024 hold one tensor per expert. Loaded one after the other they lie in memory like the
 * matrices of one tensor: the arena is cut in the order of the list, and every size in it is a multiple of its
 * alignment. */
static void bind_split_experts(binder *b, uint32_t layer, const char *name, uint32_t rows, uint32_t cols,
                               nj_weight *out)
{
    const nj_hparams *h = &b->m->h;
    char full[64], suffix[32];
    for (uint32_t e = 0; e < h->experts && !b->rc; e++) {
        nj_weight one = { 0 };
        snprintf(suffix, sizeof suffix, "%s.%u.weight", name, e);
        bind_matrices(b, layer_name(full, layer, suffix), true, rows, cols, 1, e < h->experts_used, e ? &one : out);
        if (b->rc) return;
        nj_load_item *item = &b->load->item[b->load->count - 1];
        b->m->bytes_dense -=
            nj_row_bytes(item->tensor->type, cols) * rows; /* not read in every step, as single matrices are */
        if (e == 0) continue;
        item->owner = NULL;
        if (item->tensor->type != out->panels.type)
            b->rc = nj_fail(b->err, -ENOTSUP, "%s: tensor %s has another type than the experts before it",
                            nj_gguf_path(b->g), full);
    }
    out->count = h->experts;
}

/* blk.L.NAME_exps.weight: `experts` matrices of (rows, cols). */
static void bind_expert(binder *b, uint32_t layer, const char *name, uint32_t rows, uint32_t cols, nj_weight *out)
{
    const nj_hparams *h = &b->m->h;
    char full[64], suffix[32];
    snprintf(suffix, sizeof suffix, "%s.0.weight", name);
    if (nj_gguf_tensor(b->g, layer_name(full, layer, suffix))) {
        bind_split_experts(b, layer, name, rows, cols, out);
        return;
    }
    snprintf(suffix, sizeof suffix, "%s_exps.weight", name);
    bind_matrices(b, layer_name(full, layer, suffix), true, rows, cols, h->experts, h->experts_used, out);
}

static void bind_experts(binder *b, uint32_t i, nj_layer *l)
{
    const nj_hparams *h = &b->m->h;
    bind_linear(b, i, "ffn_gate_inp", WEIGHT_NEEDED, h->experts, h->d_model, &l->router);
    bind_expert(b, i, "ffn_gate", h->expert_d_ff, h->d_model, &l->expert_gate);
    bind_expert(b, i, "ffn_up", h->expert_d_ff, h->d_model, &l->expert_up);
    bind_expert(b, i, "ffn_down", h->d_model, h->expert_d_ff, &l->expert_down);
    if (!h->shared_d_ff) return;
    bind_norm(b, i, "ffn_gate_inp_shexp", true, h->d_model, &l->shared_gate);
    bind_mlp(b, i, l, "_shexp", h->shared_d_ff);
}

/* Embedding and output. A tied table is stored once, as panels, and its rows are read from there. */
static void bind_ends(binder *b)
{
    nj_model *m = b->m;
    const nj_hparams *h = &m->h;
    bind_vector(b, "output_norm.weight", true, h->d_model, &m->output_norm);
    bind_matrices(b, "output.weight", false, h->vocab, h->d_model, 1, 1, &m->output);
    if (b->rc) return;
    if (!m->output.count) {
        bind_matrices(b, "token_embd.weight", true, h->vocab, h->d_model, 1, 1, &m->output);
        return;
    }
    const nj_tensor *t = find(b, "token_embd.weight", true, h->d_model, h->vocab, 1);
    if (!t) return;
    m->embed_type = t->type;
    b->params += (uint64_t)h->vocab * h->d_model;
    b->rc = nj_load_add(b->load, t, NJ_LOAD_ROWS, 1, h->vocab, h->d_model, &m->embed_rows, b->err);
}

static int compare_pointers(const void *a, const void *b)
{
    const void *x = *(const void *const *)a, *y = *(const void *const *)b;
    return (x > y) - (x < y);
}

/* A tensor that no op takes (a bias on a product that has none in this architecture, say) means that the file is not
 * what it says: leaving it out would give wrong answers. Tables of rope factors are read elsewhere or can be computed.
 */
static int check_all_bound(const binder *b)
{
    static const char *const elsewhere[] = { "rope_freqs.weight", "rope_factors_long.weight",
                                             "rope_factors_short.weight" };
    size_t n = b->load->count;
    const void **bound = nj_array_new(n, sizeof *bound);
    if (!bound) return nj_fail(b->err, -ENOMEM, "no memory");
    for (size_t i = 0; i < n; i++) bound[i] = b->load->item[i].tensor;
    qsort(bound, n, sizeof *bound, compare_pointers);
    int rc = 0;
    for (size_t i = 0; i < nj_gguf_tensor_count(b->g) && !rc; i++) {
        const void *t = nj_gguf_tensor_at(b->g, i);
        const char *name = ((const nj_tensor *)t)->name.data;
        bool known = bsearch(&t, bound, n, sizeof *bound, compare_pointers) || strstr(name, "rot_embd");
        for (size_t k = 0; k < NJ_COUNT(elsewhere); k++) known |= strcmp(name, elsewhere[k]) == 0;
        if (!known)
            rc = nj_fail(b->err, -ENOTSUP, "%s: tensor %s has no place in the architecture %s as Nightjar computes it",
                         nj_gguf_path(b->g), name, nj_arch_name(b->m->h.arch));
    }
    free(bound);
    return rc;
}

static int bind_tensors(binder *b)
{
    nj_model *m = b->m;
    const nj_tensor *embed = nj_gguf_tensor(b->g, "token_embd.weight");
    if (!embed || embed->dim[1] > INT32_MAX) return find(b, "token_embd.weight", true, m->h.d_model, 1, 1) ? 0 : b->rc;
    m->h.vocab = (uint32_t)embed->dim[1];
    if (!(m->layer = nj_array_new(m->h.layers, sizeof *m->layer))) return nj_fail(b->err, -ENOMEM, "no memory");
    bind_ends(b);
    for (uint32_t i = 0; i < m->h.layers && !b->rc; i++) {
        bind_attention(b, i, &m->layer[i]);
        if (m->h.experts)
            bind_experts(b, i, &m->layer[i]);
        else
            bind_mlp(b, i, &m->layer[i], "", m->h.d_ff);
    }
    return b->rc ? b->rc : check_all_bound(b);
}

static void fill_info(nj_model *m, const nj_gguf *g, const binder *b)
{
    const nj_hparams *h = &m->h;
    nj_model_info *i = &m->info;
    nj_str name = { "", 0 };
    nj_gguf_get_str(g, "general.name", &name, NULL);
    snprintf(i->name, sizeof i->name, "%.127s", name.len ? name.data : nj_arch_name(h->arch));
    snprintf(i->arch, sizeof i->arch, "%s", nj_arch_name(h->arch));
    i->layers = h->layers;
    i->d_model = h->d_model;
    i->heads = h->heads;
    i->kv_heads = h->kv_heads;
    i->head_dim = h->head_dim;
    i->d_ff = h->d_ff;
    i->vocab = h->vocab;
    i->context = h->context;
    i->experts = h->experts;
    i->experts_used = h->experts_used;
    i->expert_d_ff = h->expert_d_ff;
    i->params = b->params;
    i->params_active = b->params_active;
    i->bytes = b->load->bytes;
    i->bytes_per_token = b->bytes_per_token;
    i->kv_values_per_token = 2ull * h->layers * h->kv_heads * h->head_dim;
}

/* Hyperparameters, bindings and facts; nothing is read but the header. */
static int describe(nj_model *m, const nj_gguf *g, const nj_model_options *opt, nj_load *load, nj_error *err)
{
    int rc = nj_hparams_read(&m->h, g, opt, err);
    if (rc) return rc;
    binder b = { .m = m, .g = g, .load = load, .err = err };
    if ((rc = bind_tensors(&b)) != 0) return rc;
    fill_info(m, g, &b);
    return 0;
}

int nj_model_describe(const nj_gguf *g, nj_model_info *out, nj_error *err)
{
    nj_load load = { 0 };
    nj_model *m = nj_new(nj_model);
    if (!m) return nj_fail(err, -ENOMEM, "no memory");
    int rc = describe(m, g, NULL, &load, err);
    if (!rc) *out = m->info;
    nj_load_free(&load);
    nj_model_close(m);
    return rc;
}

/* --set KEY=VALUE: a key without the architecture's prefix gets it when the prefixed one is known. */
static int apply_set(nj_gguf *g, const char *text, nj_error *err)
{
    nj_str arch = { "", 0 };
    nj_gguf_get_str(g, "general.architecture", &arch, NULL);
    const char *equals = strchr(text, '='), *why;
    int key_len = equals ? (int)(equals - text) : 0;
    if (key_len <= 0 || key_len > 120) {
        nj_fail(err, -EINVAL, "metadata override \"%.64s\" is not KEY=VALUE", text);
        return nj_remedy(err, "For example: --set %s.rope.freq_base=500000", arch.data);
    }
    char assignment[512], key[256];
    snprintf(key, sizeof key, "%.*s", key_len, text);
    if (!nj_gguf_meta(g, key) && nj_key_describe(arch.data, key, &why) == NJ_KEY_INFO)
        snprintf(key, sizeof key, "%.64s.%.*s", arch.data, key_len, text);
    nj_key_kind kind = nj_key_describe(arch.data, key, &why);
    if (kind == NJ_KEY_INFO && !nj_gguf_meta(g, key)) {
        nj_fail(err, -EINVAL, "metadata override \"%.64s\" names no key that Nightjar reads", text);
        return nj_remedy(err, "nightjar inspect %s lists the keys and says which can be changed.", nj_gguf_path(g));
    }
    if (kind == NJ_KEY_SHAPE)
        return nj_fail(err, -EINVAL, "%s is bound to the shapes of the file's tensors and can't be changed: %s", key,
                       why);
    int len = snprintf(assignment, sizeof assignment, "%s%s", key, equals);
    if (len >= (int)sizeof assignment) return nj_fail(err, -EINVAL, "the value given for %s is too long", key);
    return nj_gguf_set(g, assignment, err);
}

/* Optional rope factor tensors: Llama 3.1's rope_freqs, or one of Phi-3's two sets by the context prepared for. */
static int bind_rope(nj_model *m, const nj_load_source *source, nj_error *err)
{
    const nj_gguf *g = source->g;
    const nj_hparams *h = &m->h;
    const char *name = "rope_freqs.weight";
    if (nj_gguf_tensor(g, "rope_factors_long.weight") && !h->rope_overridden)
        name = h->context > h->rope_context ? "rope_factors_long.weight" : "rope_factors_short.weight";
    const nj_tensor *t = nj_gguf_tensor(g, name);
    uint32_t n = h->rope_dim / 2;
    float *factors = NULL;
    int rc = 0;
    if (!(m->rope_freq = nj_array_new(n, sizeof *m->rope_freq))) return nj_fail(err, -ENOMEM, "no memory");
    if (t) {
        if (!has_shape(t, n, 1, 1) || t->type != NJ_F32)
            return nj_fail(err, -EINVAL, "%s: tensor %s must be %u F32 values", nj_gguf_path(g), name, n);
        if (!(factors = nj_array_new(n, sizeof *factors))) return nj_fail(err, -ENOMEM, "no memory");
        rc = nj_load_read(source, t, 0, factors, n * sizeof *factors, err);
        for (uint32_t i = 0; i < n && !rc; i++)
            if (!(factors[i] > 0.0f && factors[i] < 1e9f))
                rc = nj_fail(err, -EINVAL, "%s: tensor %s holds %g", nj_gguf_path(g), name, (double)factors[i]);
    }
    if (!rc) nj_rope_frequencies(h, factors, m->rope_freq, &m->rope_magnitude);
    free(factors);
    return rc;
}

static int open_text(nj_model *m, const nj_gguf *g, nj_error *err)
{
    int rc = nj_tokenizer_new(&m->tokenizer, g, err);
    if (rc) return rc;
    if ((uint32_t)nj_tokenizer_size(m->tokenizer) > m->h.vocab)
        return nj_fail(err, -EINVAL, "%s: the vocabulary has %d tokens, token_embd.weight only %u rows",
                       nj_gguf_path(g), nj_tokenizer_size(m->tokenizer), m->h.vocab);
    nj_str source = { NULL, 0 };
    nj_error why = { 0 };
    rc = nj_gguf_get_str(g, "tokenizer.chat_template", &source, &why);
    if (rc == -ENOENT)
        nj_fail(&why, rc, "the file has no tokenizer.chat_template");
    else if (!rc)
        rc = nj_template_new(&m->chat, source.data, source.len, &why);
    if (rc && !(m->chat_error = strdup(why.text))) return nj_fail(err, -ENOMEM, "no memory");
    return 0;
}

/* Weights, and a margin for scratch, a first KV page and everybody else: a model that just fits would swap at once. */
static int check_memory(const nj_model *m, const nj_gguf *g, nj_error *err)
{
    nj_machine machine;
    nj_machine_read(&machine);
    uint64_t margin = m->info.bytes / 16 < 1000000000 ? m->info.bytes / 16 : 1000000000;
    if (m->info.bytes + margin <= machine.ram_available_bytes) return 0;
    nj_fail(err, -ENOMEM, "%s needs %.1f GB of memory for its weights and a margin, %.1f GB are available",
            nj_gguf_path(g), (double)(m->info.bytes + margin) / 1e9, (double)machine.ram_available_bytes / 1e9);
    return nj_remedy(
        err, "Close other programs, or take a smaller quantization of the model (see: nightjar quantize --help).");
}

static int read_weights(nj_model *m, nj_load *load, const nj_load_source *source, const nj_model_options *opt,
                        nj_error *err)
{
    uint64_t start = nj_now_ns();
    int rc = nj_load_run(load, source, opt, &m->arena, err);
    m->info.load_ns = nj_now_ns() - start;
    return rc;
}

/* From a header to a model. */
static int open_source(nj_model **out, const nj_load_source *source, const nj_model_options *opt, nj_error *err)
{
    nj_gguf *g = source->g;
    nj_load load = { 0 };
    nj_model *m = nj_new(nj_model);
    int rc = m ? 0 : nj_fail(err, -ENOMEM, "no memory");
    for (size_t i = 0; !rc && i < opt->set_count; i++) rc = apply_set(g, opt->set[i], err);
    if (!rc) rc = describe(m, g, opt, &load, err);
    if (!rc) rc = check_memory(m, g, err);
    if (!rc) rc = bind_rope(m, source, err);
    if (!rc) rc = open_text(m, g, err);
    if (!rc) nj_sampling_read(&m->sampling, g);
    if (!rc) rc = read_weights(m, &load, source, opt, err);
    if (!rc) rc = nj_program_build(m, err);
    nj_load_free(&load);
    if (rc)
        nj_model_close(m);
    else
        *out = m;
    return rc;
}

static const nj_model_options default_options;

int nj_model_open(nj_model **out, const char *path, const nj_model_options *opt, nj_error *err)
{
    nj_load_source source = { 0 };
    int rc = nj_gguf_open(&source.g, path, &weight_types, err);
    if (!rc) rc = open_source(out, &source, opt ? opt : &default_options, err);
    nj_gguf_close(source.g);
    return rc;
}

int nj_model_synth(nj_model **out, const nj_shape *shape, const nj_model_options *opt, nj_error *err)
{
    nj_synth *synth = NULL;
    int rc = nj_synth_new(&synth, shape, err);
    if (!rc) rc = open_source(out, &(nj_load_source){ nj_synth_gguf(synth), synth }, opt ? opt : &default_options, err);
    if (rc == -ENOMEM) nj_remedy(err, "Close other programs, take a smaller type, or cut the model to fewer layers.");
    nj_synth_free(synth);
    return rc;
}

void nj_model_close(nj_model *m)
{
    if (!m) return;
    free(m->op);
    free(m->layer_cache);
    free(m->rope_freq);
    free(m->layer);
    nj_arena_free(m->arena);
    free(m->chat_error);
    nj_template_free(m->chat);
    nj_tokenizer_free(m->tokenizer);
    free(m);
}

const nj_model_info *nj_model_info_of(const nj_model *m)
{
    return &m->info;
}

const nj_tokenizer *nj_model_tokenizer(const nj_model *m)
{
    return m->tokenizer;
}

const nj_template *nj_model_template(const nj_model *m)
{
    return m->chat;
}

const char *nj_model_template_error(const nj_model *m)
{
    return m->chat_error;
}

void nj_sampling_defaults(const nj_model *m, nj_sampling *out)
{
    *out = m->sampling;
}
