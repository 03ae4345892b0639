/* Small vocabularies of both models for tests and the fuzzer, as GGUF bytes in memory. */
#ifndef NJ_TESTS_TOKENIZER_BUILD_H
#define NJ_TESTS_TOKENIZER_BUILD_H

#include "engine/nj_engine.h"
#include "tests/gguf_build.h"

enum { TB_TOKENS = 400, TB_MERGES = 64 };

/* Tokens are added in order; every one has a text, a type and a score. */
typedef struct tb {
    int         count, merges;
    char        text[TB_TOKENS][48];
    int32_t     type[TB_TOKENS];
    float       score[TB_TOKENS];
    const char *merge[TB_MERGES];
} tb;

static inline int tb_add(tb *v, const char *text, int type, float score)
{
    snprintf(v->text[v->count], sizeof v->text[0], "%s", text);
    v->type[v->count] = type;
    v->score[v->count] = score;
    return v->count++;
}

/* A merge and the token that it makes. Returns the token. */
static inline int tb_merge(tb *v, const char *merge)
{
    char        text[48];
    const char *space = strchr(merge, ' ');
    snprintf(text, sizeof text, "%.*s%s", (int)(space - merge), merge, space + 1);
    v->merge[v->merges++] = merge;
    return tb_add(v, text, 1, 0);
}

/* The 256 tokens of the byte alphabet, so that the id of a byte is its place in the alphabet. */
static inline void tb_alphabet(tb *v)
{
    for (int b = 0, next = 256; b < 256; b++) {
        int  plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174, c = plain ? b : next++;
        char utf8[3] = { (char)c };
        if (c >= 0x80) {
            utf8[0] = (char)(0xc0 | c >> 6);
            utf8[1] = (char)(0x80 | (c & 0x3f));
        }
        tb_add(v, utf8, 1, 0);
    }
}

/* The arrays as keys; `model` gpt2 gets merges, llama scores. */
static inline void tb_keys(const tb *v, gb *b, const char *model)
{
    const char *text[TB_TOKENS];
    for (int i = 0; i < v->count; i++) text[i] = v->text[i];
    gb_str(b, "tokenizer.ggml.model", model);
    gb_strings(b, "tokenizer.ggml.tokens", (uint64_t)v->count, text);
    gb_array(b, "tokenizer.ggml.token_type", NJ_META_I32, (uint64_t)v->count, v->type, 4 * (size_t)v->count);
    if (strcmp(model, "llama") == 0)
        gb_array(b, "tokenizer.ggml.scores", NJ_META_F32, (uint64_t)v->count, v->score, 4 * (size_t)v->count);
    else gb_strings(b, "tokenizer.ggml.merges", (uint64_t)v->merges, v->merge);
}

/* Ids of tb_bpe beyond the bytes 0 to 255. */
enum {
    TB_HE = 256, TB_LL, TB_HELL, TB_HELLO, TB_SP_T, TB_SP_TH, TB_SP_THE, TB_AA, TB_AAAA, /* merges */
    TB_BOS, TB_END, TB_ENDING, TB_THINK, TB_E_ACUTE
};

/* Byte-level BPE with a few merges, two control tokens of which one starts with the other, and a user-defined one. */
static inline void tb_bpe(tb *v)
{
    static const char *const merge[] = { "h e", "l l", "he ll", "hell o", "\xc4\xa0 t", "\xc4\xa0t h", "\xc4\xa0th e",
                                         "a a", "aa aa" };
    *v = (tb){ 0 };
    tb_alphabet(v);
    for (size_t i = 0; i < NJ_COUNT(merge); i++) tb_merge(v, merge[i]);
    tb_add(v, "<|start|>", 3, 0);
    tb_add(v, "<|im_end|>", 3, 0);
    tb_add(v, "<|im_end|>ing", 3, 0);
    tb_add(v, "<think>", 4, 0);
    tb_merge(v, "\xc3\x83 \xc2\xa9"); /* the two bytes of U+00E9 */
}

/* Ids of tb_spm: unk, bos, eos, bytes from 3, then these. */
enum { TB_SPACE = 259, TB_A, TB_B, TB_C, TB_AB, TB_BC, TB_ABC, TB_SP_A, TB_SP_AB, TB_USER, TB_TWO_SPACES };

static inline void tb_spm(tb *v)
{
    *v = (tb){ 0 };
    tb_add(v, "<unk>", 2, 0);
    tb_add(v, "<s>", 3, 0);
    tb_add(v, "</s>", 3, 0);
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        tb_add(v, text, 6, 0);
    }
    tb_add(v, "\xe2\x96\x81", 1, -10);
    tb_add(v, "a", 1, -11);
    tb_add(v, "b", 1, -12);
    tb_add(v, "c", 1, -13);
    tb_add(v, "ab", 1, -2);
    tb_add(v, "bc", 1, -1);
    tb_add(v, "abc", 1, -5);
    tb_add(v, "\xe2\x96\x81" "a", 1, -3);
    tb_add(v, "\xe2\x96\x81" "ab", 1, -4);
    tb_add(v, "<tool>", 4, 0);
    tb_add(v, "\xe2\x96\x81\xe2\x96\x81", 1, -20);
}

#endif
