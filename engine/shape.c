/* The shapes of well-known models, and the header of a file of such a shape. Numbers: the makers' config.json. */
#include "engine/shape.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// clang-format off
/* Whole, in Q4_K_M unless asked otherwise. */
#define SHAPE(name, arch, layers, ...) { name, arch, layers, __VA_ARGS__, layers, NJ_MIX_Q4_K_M, 0 }

static const nj_shape shapes[] = {
    /*                                            d         kv  head            experts          rope  norm
     *    name                arch      layers  model  heads  h  dim   d_ff   n used d_ff  vocab context base  eps tied factors */
    SHAPE("qwen3-4b",         "qwen3",    36, 2560, 32, 8, 128,  9728,   0, 0,    0, 151936,  40960, 1e6f, 1e-6f, true,  false),
    SHAPE("llama-8b",         "llama",    32, 4096, 32, 8, 128, 14336,   0, 0,    0, 128256, 131072, 5e5f, 1e-5f, false, true),
    SHAPE("qwen2.5-32b",      "qwen2",    64, 5120, 40, 8, 128, 27648,   0, 0,    0, 152064,  32768, 1e6f, 1e-6f, false, false),
    SHAPE("llama-70b",        "llama",    80, 8192, 64, 8, 128, 28672,   0, 0,    0, 128256, 131072, 5e5f, 1e-5f, false, true),
    SHAPE("mixtral-8x7b",     "llama",    32, 4096, 32, 8, 128, 14336,   8, 2, 14336, 32000,  32768, 1e6f, 1e-5f, false, false),
    SHAPE("qwen3-30b-a3b",    "qwen3moe", 48, 2048, 32, 4, 128,  6144, 128, 8,  768, 151936,  40960, 1e6f, 1e-6f, false, false),
    SHAPE("qwen3-235b-a22b",  "qwen3moe", 94, 4096, 64, 4, 128, 12288, 128, 8, 1536, 151936,  40960, 1e6f, 1e-6f, false, false),
    SHAPE("qwen3-coder-480b", "qwen3moe", 62, 6144, 96, 8, 128,  8192, 160, 8, 2560, 151936, 262144, 1e7f, 1e-6f, false, false),
};
// clang-format on

const char *nj_shape_name(size_t index)
{
    return index < NJ_COUNT(shapes) ? shapes[index].name : NULL;
}

static int unknown_shape(const char *spec, size_t len, nj_error *err)
{
    nj_buf names = { 0 };
    for (size_t i = 0; i < NJ_COUNT(shapes); i++) nj_buf_printf(&names, "%s%s", i ? ", " : "", shapes[i].name);
    nj_fail(err, -EINVAL, "\"%.*s\" is not a shape that Nightjar knows.", (int)(len < 64 ? len : 64), spec);
    nj_remedy(err, "Known: %s.", names.data ? names.data : "");
    nj_buf_free(&names);
    return -EINVAL;
}

int nj_shape_find(const char *spec, uint32_t layers, nj_shape *out, nj_error *err)
{
    size_t len = strcspn(spec, ":"), i = 0;
    while (i < NJ_COUNT(shapes) && (strlen(shapes[i].name) != len || strncasecmp(spec, shapes[i].name, len) != 0)) i++;
    if (i == NJ_COUNT(shapes)) return unknown_shape(spec, len, err);
    int mix = spec[len] ? nj_mix_find(spec + len + 1) : shapes[i].mix;
    if (mix < 0) {
        nj_fail(err, -EINVAL, "\"%.64s\" is not a weight type that Nightjar can make.", spec + len + 1);
        return nj_remedy(err,
                         "Take Q4_K_M, Q5_K_M, F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, "
                         "Q5_K, Q6_K, IQ4_NL, IQ4_XS or MXFP4, as in %s:q4_k_m.",
                         shapes[i].name);
    }
    if (layers > shapes[i].layers)
        return nj_fail(err, -EINVAL, "%s has %u layers; it can be cut to fewer, not stretched to %u.", shapes[i].name,
                       shapes[i].layers, layers);
    *out = shapes[i];
    out->mix = mix;
    if (layers) out->layers = layers;
    return 0;
}

/* ---- Building a header: the first failure sticks in rc and later calls do nothing. ---- */

typedef struct header {
    nj_gguf_writer *w;
    const nj_shape *s;
    nj_error *err;
    int rc;
} header;

static void add_meta(header *h, const char *key, nj_meta m)
{
    m.key = (nj_str){ key, strlen(key) };
    if (!h->rc) h->rc = nj_gguf_writer_meta(h->w, &m, h->err);
}

static void add_u32(header *h, const char *key, uint32_t value)
{
    add_meta(h, key, (nj_meta){ .type = NJ_META_U32, .i = value });
}

static void add_str(header *h, const char *key, const char *value)
{
    add_meta(h, key, (nj_meta){ .type = NJ_META_STRING, .s = { value, strlen(value) } });
}

static const char *arch_key(const header *h, const char *suffix, char key[96])
{
    snprintf(key, 96, "%s.%s", h->s->arch, suffix);
    return key;
}

static void add_arch_u32(header *h, const char *suffix, uint32_t value)
{
    char key[96];
    add_u32(h, arch_key(h, suffix, key), value);
}

static void add_arch_f32(header *h, const char *suffix, float value)
{
    char key[96];
    add_meta(h, arch_key(h, suffix, key), (nj_meta){ .type = NJ_META_F32, .f = (double)value });
}

static void add_keys(header *h)
{
    const nj_shape *s = h->s;
    char name[96];
    int len = snprintf(name, sizeof name, "%.40s of random weights", s->name);
    if (s->layers != s->layers_all)
        snprintf(name + len, sizeof name - (size_t)len, ", %u of %u layers", s->layers, s->layers_all);
    add_str(h, "general.architecture", s->arch);
    add_str(h, "general.type", "model");
    add_str(h, "general.name", name);
    add_u32(h, "general.file_type", nj_mix_file_type(s->mix));
    add_u32(h, "general.quantization_version", 2);
    add_arch_u32(h, "block_count", s->layers);
    add_arch_u32(h, "context_length", s->context);
    add_arch_u32(h, "embedding_length", s->d_model);
    add_arch_u32(h, "feed_forward_length", s->d_ff);
    add_arch_u32(h, "vocab_size", s->vocab);
    add_arch_u32(h, "attention.head_count", s->heads);
    add_arch_u32(h, "attention.head_count_kv", s->kv_heads);
    add_arch_u32(h, "attention.key_length", s->head_dim);
    add_arch_u32(h, "attention.value_length", s->head_dim);
    add_arch_f32(h, "attention.layer_norm_rms_epsilon", s->norm_eps);
    add_arch_u32(h, "rope.dimension_count", s->head_dim);
    add_arch_f32(h, "rope.freq_base", s->rope_base);
    if (!s->experts) return;
    add_arch_u32(h, "expert_count", s->experts);
    add_arch_u32(h, "expert_used_count", s->experts_used);
    add_arch_u32(h, "expert_feed_forward_length", s->expert_d_ff);
}

/* ---- Vocabulary: the bytes, words of a to z that each arise from one merge, and control tokens at the end. ---- */

enum { BYTES = 256, LETTERS = 26, TOKEN_TEXT = 8, NORMAL = 1, CONTROL = 3 };

static const char *const controls[] = { "<|endoftext|>", "<|im_start|>", "<|im_end|>" }; /* known to every engine */

/* Words of 2, 3 and 4 letters, of which the first may be a space: room for a vocabulary of 493765. */
enum { WORDS_MAX = (LETTERS + 1) * LETTERS * (1 + LETTERS + LETTERS * LETTERS) };

/* A byte in byte-level BPE's alphabet: printable Latin-1 is itself, the others are, in order, U+0100 and up. */
static void byte_text(int byte, int *next, char out[TOKEN_TEXT])
{
    bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    int c = plain ? byte : (*next)++;
    snprintf(out, TOKEN_TEXT, c < 0x80 ? "%c" : "%c%c", c < 0x80 ? c : 0xc0 | c >> 6, 0x80 | (c & 0x3f));
}

/* Word `k`, with `gap` before its last letter: " " makes it the merge from which it arises. */
static void word_text(uint32_t k, const char *gap, char out[TOKEN_TEXT])
{
    char letter[4];
    uint32_t len = 2, count = (LETTERS + 1) * LETTERS;
    for (; k >= count; len++, count *= LETTERS) k -= count;
    for (uint32_t i = len - 1; i > 0; i--, k /= LETTERS) letter[i] = (char)('a' + k % LETTERS);
    char first[3] = "\xc4\xa0"; /* U+0120, a space in the alphabet above */
    if (k) memcpy(first, (char[]){ (char)('a' + k - 1), '\0' }, 2);
    snprintf(out, TOKEN_TEXT, "%s%.*s%s%c", first, (int)len - 2, letter + 1, gap, letter[len - 1]);
}

static void add_array(header *h, const char *key, nj_meta_type type, uint64_t count, const void *items)
{
    nj_meta m = { .type = NJ_META_ARRAY, .item_type = type, .count = count };
    if (type == NJ_META_STRING)
        m.strings = items;
    else
        m.items = items;
    add_meta(h, key, m);
}

static int add_words(header *h, nj_str *token, nj_str *merge, int32_t *type, char (*text)[TOKEN_TEXT])
{
    uint32_t vocab = h->s->vocab, words = vocab - BYTES - NJ_COUNT(controls);
    for (int b = 0, next = 256; b < BYTES; b++) byte_text(b, &next, text[b]);
    for (uint32_t k = 0; k < words; k++) {
        word_text(k, "", text[BYTES + k]);
        word_text(k, " ", text[vocab + k]);
        merge[k] = (nj_str){ text[vocab + k], strlen(text[vocab + k]) };
    }
    for (uint32_t i = 0; i < vocab; i++) {
        bool control = i >= BYTES + words;
        const char *t = control ? controls[i - BYTES - words] : text[i];
        token[i] = (nj_str){ t, strlen(t) };
        type[i] = control ? CONTROL : NORMAL;
    }
    add_array(h, "tokenizer.ggml.tokens", NJ_META_STRING, vocab, token);
    add_array(h, "tokenizer.ggml.token_type", NJ_META_I32, vocab, type);
    add_array(h, "tokenizer.ggml.merges", NJ_META_STRING, words, merge);
    return h->rc;
}

static void add_vocabulary(header *h)
{
    uint32_t vocab = h->s->vocab;
    if (h->rc) return;
    nj_str *token = nj_array_new(vocab, sizeof *token), *merge = nj_array_new(vocab, sizeof *merge);
    int32_t *type = nj_array_new(vocab, sizeof *type);
    char(*text)[TOKEN_TEXT] = nj_array_new(2 * (size_t)vocab, sizeof *text);
    if (!token || !merge || !type || !text)
        h->rc = nj_fail(h->err, -ENOMEM, "There is no memory for a vocabulary of %u tokens.", vocab);
    else
        h->rc = add_words(h, token, merge, type, text);
    free(text);
    free(type);
    free(merge);
    free(token);
    add_str(h, "tokenizer.ggml.model", "gpt2");
    add_str(h, "tokenizer.ggml.pre", "qwen2");
    add_u32(h, "tokenizer.ggml.bos_token_id", vocab - 3);
    add_u32(h, "tokenizer.ggml.eos_token_id", vocab - 1);
    add_u32(h, "tokenizer.ggml.padding_token_id", vocab - 3);
    add_meta(h, "tokenizer.ggml.add_bos_token", (nj_meta){ .type = NJ_META_BOOL });
    add_str(h, "tokenizer.chat_template",
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
}

/* ---- Tensors ---- */

/* A tensor of `count` matrices (rows, cols); rows 0: a vector, count 0: one matrix. */
static void add_tensor(header *h, const char *name, uint32_t cols, uint32_t rows, uint32_t count)
{
    const nj_shape *s = h->s;
    uint64_t dim[3] = { cols, rows, count };
    uint32_t dims = rows ? count ? 3 : 2 : 1;
    nj_mix_model model = { .layers = s->layers, .experts = s->experts, .tied = s->tied };
    uint32_t type = nj_mix_type(s->mix, &model, name, dim, dims);
    uint64_t bytes = nj_row_bytes(type, cols) * (rows ? rows : 1) * (count ? count : 1);
    if (!h->rc) h->rc = nj_gguf_writer_tensor(h->w, name, type, dims, dim, bytes, h->err);
}

static void add_layer_tensor(header *h, uint32_t layer, const char *suffix, uint32_t cols, uint32_t rows,
                             uint32_t count)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%u.%s", layer, suffix);
    add_tensor(h, name, cols, rows, count);
}

static void add_attention(header *h, uint32_t i)
{
    const nj_shape *s = h->s;
    uint32_t d = s->d_model, q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    add_layer_tensor(h, i, "attn_norm.weight", d, 0, 0);
    add_layer_tensor(h, i, "attn_q.weight", d, q, 0);
    add_layer_tensor(h, i, "attn_k.weight", d, kv, 0);
    add_layer_tensor(h, i, "attn_v.weight", d, kv, 0);
    if (strcmp(s->arch, "qwen2") == 0) {
        add_layer_tensor(h, i, "attn_q.bias", q, 0, 0);
        add_layer_tensor(h, i, "attn_k.bias", kv, 0, 0);
        add_layer_tensor(h, i, "attn_v.bias", kv, 0, 0);
    }
    if (strncmp(s->arch, "qwen3", 5) == 0) {
        add_layer_tensor(h, i, "attn_q_norm.weight", s->head_dim, 0, 0);
        add_layer_tensor(h, i, "attn_k_norm.weight", s->head_dim, 0, 0);
    }
    add_layer_tensor(h, i, "attn_output.weight", q, d, 0);
}

static void add_mlp(header *h, uint32_t i)
{
    const nj_shape *s = h->s;
    add_layer_tensor(h, i, "ffn_norm.weight", s->d_model, 0, 0);
    if (s->experts) {
        add_layer_tensor(h, i, "ffn_gate_inp.weight", s->d_model, s->experts, 0);
        add_layer_tensor(h, i, "ffn_gate_exps.weight", s->d_model, s->expert_d_ff, s->experts);
        add_layer_tensor(h, i, "ffn_up_exps.weight", s->d_model, s->expert_d_ff, s->experts);
        add_layer_tensor(h, i, "ffn_down_exps.weight", s->expert_d_ff, s->d_model, s->experts);
        return;
    }
    add_layer_tensor(h, i, "ffn_gate.weight", s->d_model, s->d_ff, 0);
    add_layer_tensor(h, i, "ffn_up.weight", s->d_model, s->d_ff, 0);
    add_layer_tensor(h, i, "ffn_down.weight", s->d_ff, s->d_model, 0);
}

static void add_tensors(header *h)
{
    const nj_shape *s = h->s;
    add_tensor(h, "token_embd.weight", s->d_model, s->vocab, 0);
    for (uint32_t i = 0; i < s->layers && !h->rc; i++) {
        add_attention(h, i);
        add_mlp(h, i);
    }
    add_tensor(h, "output_norm.weight", s->d_model, 0, 0);
    if (!s->tied) add_tensor(h, "output.weight", s->d_model, s->vocab, 0);
    if (s->rope_factors) add_tensor(h, "rope_freqs.weight", s->head_dim / 2, 0, 0);
}

int nj_shape_header(const nj_shape *s, nj_buf *out, uint64_t *file_bytes, nj_error *err)
{
    if (s->vocab < BYTES + NJ_COUNT(controls) + 1 || s->vocab > BYTES + NJ_COUNT(controls) + WORDS_MAX)
        return nj_fail(err, -EINVAL, "A vocabulary of %u tokens can't be made up.", s->vocab);
    header h = { .s = s, .err = err };
    h.rc = nj_gguf_writer_new_header(&h.w, s->name, err);
    if (!h.rc) {
        add_keys(&h);
        add_vocabulary(&h);
        add_tensors(&h);
    }
    if (!h.rc) h.rc = nj_gguf_writer_header(h.w, out, file_bytes, err);
    nj_gguf_writer_free(h.w);
    return h.rc;
}
