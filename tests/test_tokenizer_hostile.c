/* Damaged vocabularies: each is refused with an error that names the key. */
#include "tests/test.h"

#include <errno.h>
#include <math.h>

#include "tests/tokenizer_build.h"

/* What a case changes in a good vocabulary. */
typedef struct damage {
    const char *key;    /* expected in the error */
    const char *drop;   /* key left out */
    void (*add)(gb *b); /* keys added */
    void (*edit)(tb *v);
    bool spm;
} damage;

static void add_key(gb *b, const tb *v, const char *key)
{
    const char *text[TB_TOKENS];
    for (int i = 0; i < v->count; i++) text[i] = v->text[i];
    uint64_t n = (uint64_t)v->count;
    if (strcmp(key, "tokenizer.ggml.tokens") == 0)
        gb_strings(b, key, n, text);
    else if (strcmp(key, "tokenizer.ggml.token_type") == 0)
        gb_array(b, key, NJ_META_I32, n, v->type, 4 * (size_t)n);
    else if (strcmp(key, "tokenizer.ggml.scores") == 0)
        gb_array(b, key, NJ_META_F32, n, v->score, 4 * (size_t)n);
    else
        gb_strings(b, key, (uint64_t)v->merges, v->merge);
}

static int load(const damage *d, nj_error *err)
{
    static const char *const keys[] = { "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores",
                                        "tokenizer.ggml.merges" };
    static tb v;
    gb b = { 0 };
    nj_gguf *g = NULL;
    nj_tokenizer *t = NULL;
    d->spm ? tb_spm(&v) : tb_bpe(&v);
    if (d->edit) d->edit(&v);
    if (d->add) d->add(&b);
    for (size_t i = 0; i < NJ_COUNT(keys); i++)
        if (!d->drop || strcmp(d->drop, keys[i]) != 0) add_key(&b, &v, keys[i]);
    if (!d->drop || strcmp(d->drop, "tokenizer.ggml.model") != 0)
        gb_str(&b, "tokenizer.ggml.model", d->spm ? "llama" : "gpt2");
    nj_buf file = gb_finish(&b);
    int rc = nj_gguf_parse(&g, file.data, file.len, file.len, "t.gguf", &gb_types, err);
    if (rc) fail_msg("%s", err->text);
    rc = nj_tokenizer_new(&t, g, err);
    nj_tokenizer_free(t);
    nj_gguf_close(g);
    nj_buf_free(&file);
    return rc;
}

static void model_bert(gb *b)
{
    gb_str(b, "tokenizer.ggml.model", "bert");
}
static void model_number(gb *b)
{
    gb_u32(b, "tokenizer.ggml.model", 1);
}
static void pre_odd(gb *b)
{
    gb_str(b, "tokenizer.ggml.pre", "odd");
}
static void pre_number(gb *b)
{
    gb_u32(b, "tokenizer.ggml.pre", 3);
}
static void tokens_numbers(gb *b)
{
    gb_array(b, "tokenizer.ggml.tokens", NJ_META_U32, 2, "12345678", 8);
}
static void tokens_none(gb *b)
{
    gb_strings(b, "tokenizer.ggml.tokens", 0, NULL);
}
static void tokens_scalar(gb *b)
{
    gb_str(b, "tokenizer.ggml.tokens", "a");
}
static void types_strings(gb *b)
{
    gb_strings(b, "tokenizer.ggml.token_type", 1, (const char *const[]){ "a" });
}
static void types_short(gb *b)
{
    gb_array(b, "tokenizer.ggml.token_type", NJ_META_I32, 1, "\1\0\0", 4);
}
static void scores_short(gb *b)
{
    gb_array(b, "tokenizer.ggml.scores", NJ_META_F32, 1, "\0\0\0", 4);
}
static void merges_numbers(gb *b)
{
    gb_array(b, "tokenizer.ggml.merges", NJ_META_U8, 4, "abcd", 4);
}
static void bos_large(gb *b)
{
    gb_u32(b, "tokenizer.ggml.bos_token_id", 100000);
}
static void eos_large(gb *b)
{
    gb_u32(b, "tokenizer.ggml.eos_token_id", UINT32_MAX);
}
static void eot_large(gb *b)
{
    gb_u64(b, "tokenizer.ggml.eot_token_id", UINT64_MAX);
}
static void eom_negative(gb *b)
{
    gb_i32(b, "tokenizer.ggml.eom_token_id", -1);
}
static void unk_text(gb *b)
{
    gb_str(b, "tokenizer.ggml.unknown_token_id", "<unk>");
}
static void pad_large(gb *b)
{
    gb_u32(b, "tokenizer.ggml.padding_token_id", 1u << 31);
}
static void bos_missing(gb *b)
{
    gb_bool(b, "tokenizer.ggml.add_bos_token", true);
}
static void eos_missing(gb *b)
{
    gb_bool(b, "tokenizer.ggml.add_eos_token", true);
}
static void prefix_text(gb *b)
{
    gb_str(b, "tokenizer.ggml.add_space_prefix", "yes");
}
static void type_99(tb *v)
{
    v->type[7] = 99;
}
static void type_negative(tb *v)
{
    v->type[7] = -1;
}
static void type_byte(tb *v)
{
    v->type[TB_A] = 6;
}
static void score_nan(tb *v)
{
    v->score[5] = NAN;
}
static void merges_alien(tb *v)
{
    for (int i = 0; i < v->merges; i++) v->merge[i] = "qqq zzz";
}
static void token_huge(gb *b)
{
    static char text[5000];
    const char *const strings[] = { text };
    memset(text, 'a', sizeof text - 1);
    gb_strings(b, "tokenizer.ggml.tokens", 1, strings);
}

#define T "tokenizer.ggml."
static const damage cases[] = {
    { T "model", T "model", NULL, NULL, false },
    { T "model", T "model", model_bert, NULL, false },
    { T "model", T "model", model_number, NULL, false },
    { T "pre", NULL, pre_odd, NULL, false },
    { T "pre", NULL, pre_number, NULL, false },
    { T "tokens", T "tokens", NULL, NULL, false },
    { T "tokens", T "tokens", tokens_numbers, NULL, false },
    { T "tokens", T "tokens", tokens_none, NULL, true },
    { T "tokens", T "tokens", tokens_scalar, NULL, true },
    { T "tokens[0]", T "tokens", token_huge, NULL, true },
    { T "token_type", T "token_type", types_strings, NULL, false },
    { T "token_type", T "token_type", types_short, NULL, true },
    { T "token_type[7]", NULL, NULL, type_99, false },
    { T "token_type[7]", NULL, NULL, type_negative, true },
    { T "tokens[260]", NULL, NULL, type_byte, true },
    { T "scores", T "scores", NULL, NULL, true },
    { T "scores", T "scores", scores_short, NULL, true },
    { T "scores[5]", NULL, NULL, score_nan, true },
    { T "merges", T "merges", NULL, NULL, false },
    { T "merges", T "merges", merges_numbers, NULL, false },
    { T "merges", NULL, NULL, merges_alien, false },
    { T "bos_token_id", NULL, bos_large, NULL, false },
    { T "eos_token_id", NULL, eos_large, NULL, false },
    { T "eot_token_id", NULL, eot_large, NULL, true },
    { T "eom_token_id", NULL, eom_negative, NULL, true },
    { T "unknown_token_id", NULL, unk_text, NULL, true },
    { T "padding_token_id", NULL, pad_large, NULL, true },
    { T "bos_token_id", NULL, bos_missing, NULL, false },
    { T "eos_token_id", NULL, eos_missing, NULL, true },
    { T "add_space_prefix", NULL, prefix_text, NULL, true },
};

static void damage_is_an_error_that_names_the_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(cases); i++) {
        nj_error err = { 0 };
        int rc = load(&cases[i], &err);
        if (rc >= 0) fail_msg("case %zu (%s) was accepted", i, cases[i].key);
        assert_int_equal(err.code, rc);
        if (!strstr(err.text, cases[i].key)) fail_msg("case %zu: \"%s\" does not name %s", i, err.text, cases[i].key);
    }
}

/* So that the damage, not the vocabulary, is what the cases above are refused for. */
static void the_undamaged_vocabularies_are_accepted(void **state)
{
    (void)state;
    nj_error err = { 0 };
    assert_int_equal(load(&(damage){ .spm = false }, &err), 0);
    assert_int_equal(load(&(damage){ .spm = true }, &err), 0);
    assert_int_equal(load(&(damage){ .drop = T "token_type", .spm = true }, &err), 0); /* types are optional */
}

static void a_text_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    static tb v;
    gb b = { 0 };
    nj_gguf *g = NULL;
    nj_tokenizer *t = NULL;
    nj_tokens out = { 0 };
    nj_error err = { 0 };
    tb_spm(&v);
    tb_keys(&v, &b, "llama");
    nj_buf file = gb_finish(&b);
    assert_int_equal(nj_gguf_parse(&g, file.data, file.len, file.len, "t.gguf", &gb_types, &err), 0);
    assert_int_equal(nj_tokenizer_new(&t, g, &err), 0);
    nj_gguf_close(g);
    nj_buf_free(&file); /* nothing of the file is needed any more */
    assert_int_equal(nj_tokenize(t, "a", SIZE_MAX / 2, 0, &out, &err), -EFBIG);
    assert_int_equal(nj_tokenize(t, "a", 1, 0, &out, &err), 0);
    assert_int_equal(out.len, 1);
    free(out.id);
    nj_tokenizer_free(t);
    nj_tokenizer_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_is_an_error_that_names_the_key),
        cmocka_unit_test(the_undamaged_vocabularies_are_accepted),
        cmocka_unit_test(a_text_beyond_the_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
