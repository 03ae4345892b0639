/* Fuzzer of the tokenizer. The first byte of the input chooses:
 *   0 to 127    the rest is a text for the small vocabularies; what a text must keep is asserted
 *   128 to 255  the rest is a GGUF file with a hostile vocabulary, which then gets its own bytes as text */
#include "tests/tokenizer_build.h"

#undef NDEBUG
#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PRE_NAMES = 8 };
static const char *const pre_names[PRE_NAMES] = { "gpt-2",  "llama-bpe", "deepseek-coder", "deepseek-llm",
                                                  "tekken", "gpt-4o",    "falcon",         "deepseek-v3" };

static nj_tokenizer *from_bytes(const char *data, size_t len)
{
    nj_gguf *g = NULL;
    nj_tokenizer *t = NULL;
    nj_error err = { 0 };
    if (nj_gguf_parse(&g, data, len, len, "fuzz.gguf", &gb_types, &err)) return NULL;
    int rc = nj_tokenizer_new(&t, g, &err);
    nj_gguf_close(g);
    assert((rc == 0) == (t != NULL));
    assert(rc == 0 || (err.code == rc && err.text[0]));
    return t;
}

static nj_tokenizer *make(const char *model, const char *pre)
{
    static tb v;
    gb b = { 0 };
    if (pre)
        tb_bpe(&v);
    else
        tb_spm(&v);
    tb_keys(&v, &b, model);
    if (pre) gb_str(&b, "tokenizer.ggml.pre", pre);
    nj_buf file = gb_finish(&b);
    nj_tokenizer *t = from_bytes(file.data, file.len);
    assert(t);
    nj_buf_free(&file);
    return t;
}

/* Encodes and decodes. Ids are in range; the text comes back when `exact`. */
static void round_trip(const nj_tokenizer *t, const char *text, size_t len, unsigned flags, bool exact)
{
    nj_tokens out = { 0 };
    nj_buf back = { 0 };
    nj_error err = { 0 };
    int rc = nj_tokenize(t, text, len, flags, &out, &err);
    assert(rc == 0 || (!exact && out.len == 0 && err.text[0]));
    for (size_t i = 0; i < out.len; i++) assert(out.id[i] >= 0 && out.id[i] < nj_tokenizer_size(t));
    nj_detokenize(t, out.id, out.len, true, &back);
    if (exact) assert(back.len == len && (len == 0 || memcmp(back.data, text, len) == 0));
    nj_buf_free(&back);
    free(out.id);
}

static void fuzz_text(unsigned choice, const char *text, size_t len)
{
    static nj_tokenizer *bpe[PRE_NAMES], *qwen, *spm;
    if (!spm) {
        for (int i = 0; i < PRE_NAMES; i++) bpe[i] = make("gpt2", pre_names[i]);
        qwen = make("gpt2", "qwen2");
        spm = make("llama", NULL);
    }
    unsigned flags = choice & NJ_TOKENIZE_SPECIAL;
    round_trip(bpe[choice / 2 % PRE_NAMES], text, len, flags, true);
    round_trip(qwen, text, len, flags, false);                                /* normalises */
    round_trip(spm, text, len, flags, !memmem(text, len, "\xe2\x96\x81", 3)); /* its sign for a space */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    const char *rest = (const char *)data + 1;
    if (data[0] < 128) {
        fuzz_text(data[0], rest, size - 1);
        return 0;
    }
    nj_tokenizer *t = from_bytes(rest, size - 1);
    if (!t) return 0;
    round_trip(t, rest, size - 1, NJ_TOKENIZE_SPECIAL | NJ_TOKENIZE_BOS, false);
    round_trip(t, rest, size - 1, 0, false);
    for (int32_t i = -1; i <= nj_tokenizer_size(t); i++) {
        nj_buf text = { 0 };
        nj_token_text(t, i, data[0] & 1, &text);
        nj_buf_free(&text);
        if (nj_token_is_end(t, i)) assert(i >= 0 && i < nj_tokenizer_size(t));
    }
    nj_tokenizer_free(t);
    return 0;
}
