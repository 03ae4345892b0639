/* The vocabulary check of `inspect`: what a tokenizer trips over, told before a model is loaded. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/facts.h"
#include "appliance/text.h"

#define EXAMPLES_MAX 3

/* A token as its number and a short safe text, into `out`. */
static void add_token(nj_buf *out, const nj_meta *tokens, uint64_t id)
{
    nj_buf_printf(out, "%" PRIu64 " \"", id);
    nj_text_escape(out, tokens->strings[id].data, tokens->strings[id].len, 32);
    nj_buf_char(out, '"');
}

static int compare_text(const nj_str *a, const nj_str *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int order = n ? memcmp(a->data, b->data, n) : 0;
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

static int compare_ids(const void *a, const void *b, void *arg)
{
    const nj_str *text = arg;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    int order = compare_text(&text[i], &text[j]);
    return order ? order : (i > j) - (i < j);
}

/* Ids sorted by text, then id; NULL without memory. */
static uint32_t *sort_tokens(const nj_meta *tokens)
{
    uint32_t *order = nj_array_new(tokens->count, sizeof *order);
    if (!order) return NULL;
    for (uint32_t i = 0; i < tokens->count; i++) order[i] = i;
    qsort_r(order, tokens->count, sizeof *order, compare_ids, (void *)(uintptr_t)tokens->strings);
    return order;
}

static bool has_token(const nj_meta *tokens, const uint32_t *order, nj_str text)
{
    uint64_t low = 0, high = tokens->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int way = compare_text(&tokens->strings[order[middle]], &text);
        if (way == 0) return true;
        if (way < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static void check_duplicates(nj_vocab_report *r, const nj_meta *tokens, const uint32_t *order)
{
    uint64_t found = 0;
    nj_buf examples = { 0 };
    for (uint64_t i = 1; i < tokens->count; i++) {
        if (compare_text(&tokens->strings[order[i - 1]], &tokens->strings[order[i]]) != 0) continue;
        if (found++ >= EXAMPLES_MAX) continue;
        nj_buf_str(&examples, found > 1 ? ", " : "");
        add_token(&examples, tokens, order[i]);
        nj_buf_printf(&examples, " is also %" PRIu32, order[i - 1]);
    }
    if (found)
        nj_buf_printf(&r->notes, "%" PRIu64 " token%s the text of another: %s%s\n", found,
                      found > 1 ? "s have" : " has", examples.data ? examples.data : "",
                      found > EXAMPLES_MAX ? ", ..." : "");
    nj_buf_free(&examples);
}

/* Byte-level BPE writes byte b as the character b where that prints, and the others in order from U+0100 (GPT-2). */
static size_t byte_character(unsigned b, char out[8])
{
    unsigned code = b, others = 0;
    for (unsigned c = 0; c <= b; c++) {
        bool prints = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
        if (!prints) others++;
        if (c == b && !prints) code = 256 + others - 1;
    }
    if (code < 0x80)
        out[0] = (char)code;
    else
        out[0] = (char)(0xc0 | code >> 6), out[1] = (char)(0x80 | (code & 0x3f));
    return code < 0x80 ? 1 : 2;
}

static void check_bytes(nj_vocab_report *r, const nj_meta *tokens, const uint32_t *order, const char *kind)
{
    unsigned missing = 0, first = 0;
    bool byte_level = strcmp(kind, "gpt2") == 0;
    if (!byte_level && strcmp(kind, "llama") != 0) return;
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        size_t len = byte_level ? byte_character(b, text) : (size_t)snprintf(text, sizeof text, "<0x%02X>", b);
        if (has_token(tokens, order, (nj_str){ text, len })) continue;
        if (missing++ == 0) first = b;
    }
    if (missing)
        nj_buf_printf(&r->notes, "%u of 256 bytes have no token (the first is 0x%02x); text with them is lost\n",
                      missing, first);
}

/* Arrays beside the tokens must be as long as they are. */
static void check_counts(nj_vocab_report *r, const nj_gguf *g, const nj_meta *tokens)
{
    static const char *const keys[] = { "tokenizer.ggml.token_type", "tokenizer.ggml.scores" };
    for (size_t i = 0; i < NJ_COUNT(keys); i++) {
        const nj_meta *m = nj_gguf_meta(g, keys[i]);
        if (m && (m->type != NJ_META_ARRAY || m->count != tokens->count))
            nj_buf_printf(&r->faults, "%s has %" PRIu64 " entries for %" PRIu64 " tokens\n", keys[i],
                          m->type == NJ_META_ARRAY ? m->count : 0, tokens->count);
    }
    const nj_tensor *embedding = nj_gguf_tensor(g, "token_embd.weight");
    if (!embedding || embedding->dim[1] == tokens->count) return;
    if (embedding->dim[1] < tokens->count)
        nj_buf_printf(&r->faults, "token_embd.weight has %" PRIu64 " rows for %" PRIu64 " tokens\n", embedding->dim[1],
                      tokens->count);
    else
        nj_buf_printf(&r->notes, "token_embd.weight has %" PRIu64 " rows more than there are tokens\n",
                      embedding->dim[1] - tokens->count);
}

static void check_special(nj_vocab_report *r, const nj_gguf *g, const nj_meta *tokens)
{
    static const char suffix[] = "_token_id", prefix[] = "tokenizer.ggml.";
    bool end = false;
    for (size_t i = 0; i < nj_gguf_meta_count(g); i++) {
        const nj_meta *m = nj_gguf_meta_at(g, i);
        size_t len = m->key.len, tail = sizeof suffix - 1;
        if (len < tail || strcmp(m->key.data + len - tail, suffix) != 0) continue;
        if (strncmp(m->key.data, prefix, sizeof prefix - 1) != 0) continue;
        if (m->type == NJ_META_ARRAY || m->type == NJ_META_STRING || m->i < 0 || (uint64_t)m->i >= tokens->count) {
            /* All ones is how some converters write "none". */
            bool none = m->type != NJ_META_ARRAY && m->type != NJ_META_STRING && (m->i == -1 || m->i == UINT32_MAX);
            nj_buf_printf(none ? &r->notes : &r->faults, "%s is %" PRId64 ", not an id below %" PRIu64 "\n",
                          m->key.data, m->i, tokens->count);
            continue;
        }
        end = end || strstr(m->key.data, ".eos_") || strstr(m->key.data, ".eot_");
    }
    if (!end) nj_buf_str(&r->notes, "no token is named as the end of an answer (eos, eot)\n");
}

static void check_template(nj_vocab_report *r, const nj_gguf *g)
{
    nj_str source = { 0 };
    nj_error err = { 0 };
    nj_template *t = NULL;
    if (nj_gguf_get_str(g, "tokenizer.chat_template", &source, &err) == -ENOENT) return;
    r->template_there = true;
    r->template_works = source.data && nj_template_new(&t, source.data, source.len, &err) == 0;
    if (!r->template_works) nj_buf_printf(&r->notes, "the chat template can't be used: %s\n", err.text);
    nj_template_free(t);
}

void nj_vocab_check(nj_vocab_report *r, const nj_gguf *g)
{
    nj_error err = { 0 };
    nj_str kind = { "", 0 };
    nj_tokenizer *t = NULL;
    const nj_meta *tokens = nj_gguf_meta(g, "tokenizer.ggml.tokens");

    *r = (nj_vocab_report){ .tokens = -1 };
    check_template(r, g);
    if (!tokens) return;
    if (tokens->type != NJ_META_ARRAY || tokens->item_type != NJ_META_STRING || tokens->count == 0 ||
        tokens->count > INT32_MAX) {
        nj_buf_str(&r->faults, "tokenizer.ggml.tokens is not a list of texts\n");
        return;
    }
    r->tokens = (int64_t)tokens->count;
    nj_gguf_get_str(g, "tokenizer.ggml.model", &kind, NULL);
    check_counts(r, g, tokens);
    check_special(r, g, tokens);
    uint32_t *order = sort_tokens(tokens);
    if (order) {
        check_duplicates(r, tokens, order);
        check_bytes(r, tokens, order, kind.data);
    }
    free(order);
    int rc = nj_tokenizer_new(&t, g, &err);
    if (rc == 0)
        snprintf(r->name, sizeof r->name, "%s", nj_tokenizer_name(t));
    else
        nj_buf_printf(rc == -ENOTSUP ? &r->notes : &r->faults, "%s\n", err.text);
    nj_tokenizer_free(t);
}

void nj_vocab_report_free(nj_vocab_report *r)
{
    nj_buf_free(&r->faults);
    nj_buf_free(&r->notes);
}
