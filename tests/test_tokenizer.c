/* The tokenizer over small vocabularies made here. Real vocabularies: test_tokenizer_golden.c; damaged ones:
 * test_tokenizer_hostile.c. */
#include "tests/test.h"

#include <errno.h>

#include "tests/tokenizer_build.h"

/* The file that the last parse() reads from. */
static nj_buf bytes;

static nj_gguf *parse(gb *b)
{
    nj_gguf *g = NULL;
    nj_error err = { 0 };
    nj_buf_free(&bytes);
    bytes = gb_finish(b);
    if (nj_gguf_parse(&g, bytes.data, bytes.len, bytes.len, "t.gguf", &gb_types, &err)) fail_msg("%s", err.text);
    return g;
}

static nj_tokenizer *load(gb *b)
{
    nj_tokenizer *t = NULL;
    nj_error err = { 0 };
    nj_gguf *g = parse(b);
    if (nj_tokenizer_new(&t, g, &err)) fail_msg("%s", err.text);
    nj_gguf_close(g);
    return t;
}

static nj_tokenizer *load_bpe(const char *pre)
{
    static tb v;
    gb b = { 0 };
    tb_bpe(&v);
    tb_keys(&v, &b, "gpt2");
    gb_str(&b, "tokenizer.ggml.pre", pre);
    gb_u32(&b, "tokenizer.ggml.bos_token_id", TB_BOS);
    gb_bool(&b, "tokenizer.ggml.add_bos_token", true);
    gb_u32(&b, "tokenizer.ggml.eos_token_id", TB_BOS);
    gb_bool(&b, "tokenizer.ggml.add_eos_token", false);
    return load(&b);
}

static nj_tokenizer *load_spm(bool prefix, const char *arch)
{
    static tb v;
    gb b = { 0 };
    tb_spm(&v);
    gb_str(&b, "general.architecture", arch);
    tb_keys(&v, &b, "llama");
    gb_u32(&b, "tokenizer.ggml.bos_token_id", 1);
    gb_u32(&b, "tokenizer.ggml.eos_token_id", 2);
    gb_u32(&b, "tokenizer.ggml.unknown_token_id", 0);
    gb_bool(&b, "tokenizer.ggml.add_eos_token", true);
    gb_bool(&b, "tokenizer.ggml.add_space_prefix", prefix);
    return load(&b);
}

static nj_tokens tokenize(const nj_tokenizer *t, const char *text, size_t len, unsigned flags)
{
    nj_tokens out = { 0 };
    nj_error err = { 0 };
    if (nj_tokenize(t, text, len, flags, &out, &err)) fail_msg("%s", err.text);
    return out;
}

static void assert_ids(const nj_tokenizer *t, const char *text, unsigned flags, const int32_t *ids, size_t n)
{
    nj_tokens out = tokenize(t, text, strlen(text), flags);
    assert_int_equal(out.len, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(out.id[i], ids[i]);
    free(out.id);
}
#define IDS(t, text, flags, ...)                                                                                       \
    assert_ids(t, text, flags, (const int32_t[]){ __VA_ARGS__ }, NJ_COUNT(((const int32_t[]){ __VA_ARGS__ })))

static void assert_round_trip(const nj_tokenizer *t, const char *text, size_t len)
{
    nj_tokens out = tokenize(t, text, len, NJ_TOKENIZE_SPECIAL);
    nj_buf back = { 0 };
    nj_detokenize(t, out.id, out.len, true, &back);
    assert_int_equal(back.len, len);
    if (len) assert_memory_equal(back.data, text, len);
    nj_buf_free(&back);
    free(out.id);
}

static void assert_text(const nj_tokenizer *t, const int32_t *ids, size_t n, bool special, const char *expected)
{
    nj_buf b = { 0 };
    nj_buf_str(&b, "");
    nj_detokenize(t, ids, n, special, &b);
    assert_string_equal(b.data ? b.data : "", expected);
    nj_buf_free(&b);
}

/* ---- Byte-level BPE ---- */

static void merges_go_by_rank_then_from_the_left(void **state)
{
    (void)state;
    nj_tokenizer *t = load_bpe("gpt-2");
    IDS(t, "hello", 0, TB_HELLO);
    IDS(t, "help", 0, TB_HE, 'l', 'p');
    IDS(t, "a the", 0, 'a', TB_SP_T, TB_HE); /* "h e" comes before "th" could */
    IDS(t, "a th", 0, 'a', TB_SP_TH);
    IDS(t, "aaa", 0, TB_AA, 'a');
    IDS(t, "aaaaaaa", 0, TB_AAAA, TB_AA, 'a');
    nj_tokenizer_free(t);
}

static void every_byte_comes_back(void **state)
{
    (void)state;
    static const char *const pre[] = { "gpt-2", "qwen2", "llama-bpe", "deepseek-coder" };
    char all[512];
    for (int i = 0; i < 512; i++) all[i] = (char)(i < 256 ? i : 511 - i);
    for (size_t i = 0; i < NJ_COUNT(pre); i++) {
        nj_tokenizer *t = load_bpe(pre[i]);
        assert_round_trip(t, all, sizeof all);
        assert_round_trip(t, "\xe4\xbd", 2); /* a character cut off */
        assert_round_trip(t,
                          "a\xed\xa0\x80"
                          "b",
                          5);                        /* a surrogate */
        assert_round_trip(t, "\xf4\x90\x80\x80", 4); /* beyond Unicode */
        assert_round_trip(t, "\xc0\x80 hello \xff", 10);
        assert_round_trip(t, "", 0);
        nj_tokenizer_free(t);
    }
}

/* Characters around invalid bytes are pieces of their own and merge as usual. */
static void invalid_bytes_leave_their_surroundings_alone(void **state)
{
    (void)state;
    nj_tokenizer *t = load_bpe("qwen2");
    nj_tokens out = tokenize(t, "hello\xffhello", 11, 0);
    assert_int_equal(out.len, 3);
    assert_int_equal(out.id[0], TB_HELLO);
    assert_int_equal(out.id[1], 0xff);
    assert_int_equal(out.id[2], TB_HELLO);
    free(out.id);
    nj_tokenizer_free(t);
}

static void qwen_normalises_and_gpt_2_does_not(void **state)
{
    (void)state;
    nj_tokenizer *qwen = load_bpe("qwen2"), *gpt = load_bpe("gpt-2");
    IDS(qwen, "e\xcc\x81", 0, TB_E_ACUTE);
    IDS(qwen, "xe\xcc\x81\xcc\x81 \xe2\x84\xaa", 0, 'x', TB_E_ACUTE, 0xcc, 0x81, ' ', 'K');
    IDS(qwen, "e\xff\xcc\x81", 0, 'e', 0xff, 0xcc, 0x81);
    IDS(gpt, "e\xcc\x81", 0, 'e', 0xcc, 0x81);
    nj_tokenizer_free(qwen);
    nj_tokenizer_free(gpt);
}

/* Marks are put in order within any natural run of them; a run that no text has keeps its bytes. */
static void long_runs_of_marks_are_normalised_in_time(void **state)
{
    (void)state;
    enum { MARKS = 1 << 19 };
    nj_tokenizer *t = load_bpe("qwen2");
    IDS(t, "x\xcc\x81\xcc\xa3", 0, 'x', 0xcc, 0xa3, 0xcc, 0x81); /* above, below -> below, above */
    char *text = malloc(2 * MARKS);
    assert_non_null(text);
    for (int i = 0; i < MARKS; i++) memcpy(text + 2 * i, i % 2 ? "\xcc\xa3" : "\xcc\x81", 2);
    uint64_t begin = nj_now_ns();
    nj_tokens out = tokenize(t, text, 2 * MARKS, 0);
    assert_true(nj_now_ns() - begin < 60000000000u);
    assert_int_equal(out.len, 2 * MARKS);
    free(out.id);
    free(text);
    nj_tokenizer_free(t);
}

/* A million letters in one piece: no quadratic merging, with or without merges that apply. */
static void a_piece_of_a_megabyte_is_merged_in_time(void **state)
{
    (void)state;
    enum { LEN = 1 << 20 };
    nj_tokenizer *bpe = load_bpe("gpt-2"), *spm = load_spm(false, "llama");
    char *text = malloc(LEN);
    assert_non_null(text);
    uint64_t begin = nj_now_ns();
    memset(text, 'a', LEN);
    nj_tokens out = tokenize(bpe, text, LEN, NJ_TOKENIZE_SPECIAL);
    assert_int_equal(out.len, LEN / 4);
    free(out.id);
    assert_round_trip(spm, text, LEN);
    for (size_t i = 0; i < LEN; i++) text[i] = "abc"[i * i % 3];
    assert_round_trip(bpe, text, LEN);
    assert_round_trip(spm, text, LEN);
    for (size_t i = 0; i < LEN; i++) text[i] = "<|im_end|"[i % 9]; /* a special token, but for its last byte */
    assert_round_trip(bpe, text, LEN);
    assert_true(nj_now_ns() - begin < 60000000000u);
    free(text);
    nj_tokenizer_free(bpe);
    nj_tokenizer_free(spm);
}

/* "hellx" as a whole is a token that no merge makes. */
static void whole_pieces_are_tokens_where_merges_are_ignored(void **state)
{
    static tb v;
    static const char *const pre[] = { "llama-bpe", "qwen2" };
    (void)state;
    for (int i = 0; i < 2; i++) {
        gb b = { 0 };
        tb_bpe(&v);
        int whole = tb_add(&v, "hellx", 1, 0);
        tb_keys(&v, &b, "gpt2");
        gb_str(&b, "tokenizer.ggml.pre", pre[i]);
        nj_tokenizer *t = load(&b);
        if (i == 0)
            IDS(t, "hellx", 0, whole);
        else
            IDS(t, "hellx", 0, TB_HELL, 'x');
        nj_tokenizer_free(t);
    }
}

/* A second token with the text "he" is never produced, but still read. */
static void the_first_of_equal_texts_is_produced(void **state)
{
    static tb v;
    gb b = { 0 };
    (void)state;
    tb_bpe(&v);
    int twin = tb_add(&v, "he", 1, 0);
    tb_keys(&v, &b, "gpt2");
    nj_tokenizer *t = load(&b);
    IDS(t, "he", 0, TB_HE);
    assert_text(t, (int32_t[]){ twin, TB_HE }, 2, false, "hehe");
    nj_tokenizer_free(t);
}

/* Real files have merges of pieces that were dropped from the vocabulary. */
static void merges_of_unknown_pieces_are_left_out(void **state)
{
    static tb v;
    gb b = { 0 };
    (void)state;
    tb_bpe(&v);
    v.merge[v.merges++] = "zz yy";
    v.merge[v.merges++] = "x";
    v.merge[v.merges++] = " ";
    v.merge[v.merges++] = "\xff \xff";
    v.merge[v.merges++] = "x y"; /* there is no token "xy" */
    tb_keys(&v, &b, "gpt2");
    nj_tokenizer *t = load(&b);
    IDS(t, "xy hello", 0, 'x', 'y', ' ', TB_HELLO);
    nj_tokenizer_free(t);
}

/* Some vocabularies lack the bytes that UTF-8 never has: U+FFFD stands in, else the unknown token, else it is an error.
 */
static void a_byte_without_token_is_replaced_or_an_error(void **state)
{
    static tb v;
    (void)state;
    for (int i = 0; i < 3; i++) {
        gb b = { 0 };
        nj_error err = { 0 };
        nj_tokens out = { 0 };
        tb_bpe(&v);
        strcpy(v.text[0xff], "hole");
        int substitute = i == 0 ? tb_add(&v, "\xc3\xaf\xc2\xbf\xc2\xbd", 1, 0) : TB_HE;
        tb_keys(&v, &b, "gpt2");
        if (i == 1) gb_u32(&b, "tokenizer.ggml.unknown_token_id", TB_HE);
        nj_tokenizer *t = load(&b);
        if (i < 2)
            IDS(t, "a\xff", 0, 'a', substitute);
        else {
            assert_int_equal(nj_tokenize(t, "a\xff", 2, 0, &out, &err), -EILSEQ);
            assert_non_null(strstr(err.text, "0xff"));
            assert_int_equal(out.len, 0);
            free(out.id);
        }
        nj_tokenizer_free(t);
    }
}

/* ---- Special tokens ---- */

static void the_longest_special_token_is_found(void **state)
{
    (void)state;
    nj_tokenizer *t = load_bpe("gpt-2");
    IDS(t, "<|im_end|>he", NJ_TOKENIZE_SPECIAL, TB_END, TB_HE);
    IDS(t, "<|im_end|>inghe", NJ_TOKENIZE_SPECIAL, TB_ENDING, TB_HE);
    IDS(t, "<|im_end|>in", NJ_TOKENIZE_SPECIAL, TB_END, 'i', 'n');
    IDS(t, "he<|start|><|im_end|>", NJ_TOKENIZE_SPECIAL, TB_HE, TB_BOS, TB_END);
    nj_tokenizer_free(t);
}

static void control_tokens_in_plain_text_are_text(void **state)
{
    (void)state;
    nj_tokenizer *t = load_bpe("gpt-2");
    IDS(t, "<|start|>", 0, '<', '|', 's', 't', 'a', 'r', 't', '|', '>');
    nj_tokenizer_free(t);
}

static void user_defined_tokens_are_always_found(void **state)
{
    (void)state;
    nj_tokenizer *t = load_bpe("gpt-2");
    IDS(t, "he<think>he", 0, TB_HE, TB_THINK, TB_HE);
    IDS(t, "he<think>he", NJ_TOKENIZE_SPECIAL, TB_HE, TB_THINK, TB_HE);
    nj_tokenizer_free(t);
}

static void control_tokens_are_silent_unless_asked_for(void **state)
{
    (void)state;
    nj_tokenizer *t = load_bpe("gpt-2");
    const int32_t ids[] = { TB_BOS, TB_HELLO, TB_THINK, TB_END, -1, 100000 };
    assert_text(t, ids, NJ_COUNT(ids), true, "<|start|>hello<think><|im_end|>");
    assert_text(t, ids, NJ_COUNT(ids), false, "hello<think>");
    nj_buf b = { 0 };
    nj_token_text(t, TB_BOS, false, &b);
    nj_token_text(t, 0xe4, false, &b); /* part of a character */
    assert_int_equal(b.len, 1);
    assert_int_equal((uint8_t)b.data[0], 0xe4);
    nj_buf_free(&b);
    nj_tokenizer_free(t);
}

static void bos_and_eos_are_added_where_the_file_says_so(void **state)
{
    (void)state;
    nj_tokenizer *bpe = load_bpe("gpt-2"), *spm = load_spm(true, "llama");
    IDS(bpe, "he", NJ_TOKENIZE_BOS, TB_BOS, TB_HE);
    IDS(bpe, "", NJ_TOKENIZE_BOS, TB_BOS);
    IDS(bpe, "<|start|>he", NJ_TOKENIZE_BOS | NJ_TOKENIZE_SPECIAL, TB_BOS, TB_HE); /* not twice */
    IDS(bpe, "he", 0, TB_HE);
    IDS(spm, "ab", NJ_TOKENIZE_BOS, 1, TB_SP_AB, 2);
    assert_int_equal(nj_tokenizer_bos(spm), 1);
    assert_int_equal(nj_tokenizer_eos(spm), 2);
    nj_tokenizer_free(bpe);
    nj_tokenizer_free(spm);
}

static void tokens_are_appended(void **state)
{
    (void)state;
    nj_tokenizer *t = load_bpe("gpt-2");
    nj_tokens out = { 0 };
    assert_int_equal(nj_tokenize(t, "hello", 5, 0, &out, NULL), 0);
    assert_int_equal(nj_tokenize(t, "<|start|>", 9, NJ_TOKENIZE_BOS | NJ_TOKENIZE_SPECIAL, &out, NULL), 0);
    assert_int_equal(out.len, 2);
    assert_int_equal(out.id[0], TB_HELLO);
    assert_int_equal(out.id[1], TB_BOS);
    free(out.id);
    nj_tokenizer_free(t);
}

/* eos_token_id, and control tokens with a usual text; not a user-defined one. */
static void ends_of_an_answer_are_known(void **state)
{
    (void)state;
    nj_tokenizer *t = load_bpe("gpt-2");
    assert_true(nj_token_is_end(t, TB_BOS));
    assert_true(nj_token_is_end(t, TB_END));
    assert_false(nj_token_is_end(t, TB_ENDING));
    assert_false(nj_token_is_end(t, TB_THINK));
    assert_false(nj_token_is_end(t, -1));
    assert_true(nj_token_is_special(t, TB_ENDING));
    assert_false(nj_token_is_special(t, TB_THINK));
    assert_false(nj_token_is_special(t, 1 << 30));
    nj_tokenizer_free(t);
}

static void eot_and_eom_ids_end_an_answer(void **state)
{
    static tb v;
    gb b = { 0 };
    (void)state;
    tb_bpe(&v);
    tb_keys(&v, &b, "gpt2");
    gb_u32(&b, "tokenizer.ggml.eot_token_id", TB_HE);
    gb_u32(&b, "tokenizer.ggml.eom_token_id", TB_LL);
    nj_tokenizer *t = load(&b);
    assert_true(nj_token_is_end(t, TB_HE));
    assert_true(nj_token_is_end(t, TB_LL));
    assert_false(nj_token_is_end(t, TB_HELL));
    assert_int_equal(nj_tokenizer_eos(t), -1);
    assert_int_equal(nj_tokenizer_bos(t), -1);
    nj_tokenizer_free(t);
}

/* ---- SentencePiece ---- */

static void the_best_score_is_merged_first(void **state)
{
    (void)state;
    nj_tokenizer *t = load_spm(false, "llama");
    IDS(t, "ab", 0, TB_AB);
    IDS(t, "abc", 0, TB_ABC); /* bc first, then a + bc */
    IDS(t, "bcb", 0, TB_BC, TB_B);
    IDS(t, " ab", 0, TB_SP_AB);
    IDS(t, " abc", 0, TB_SP_A, TB_BC); /* bc, then the space with a, which beats abc */
    nj_tokenizer_free(t);
}

static void unknown_characters_become_bytes(void **state)
{
    (void)state;
    nj_tokenizer *t = load_spm(false, "llama");
    IDS(t,
        "a\xc3\xa9"
        "b",
        0, TB_A, 3 + 0xc3, 3 + 0xa9, TB_B);
    IDS(t, "a\xff\n", 0, TB_A, 3 + 0xff, 3 + '\n');
    IDS(t, "<0x41>", 0, 3 + '<', 3 + '0', 3 + 'x', 3 + '4', 3 + '1', 3 + '>');
    char all[256];
    for (int i = 0; i < 256; i++) all[i] = (char)i;
    assert_round_trip(t, all, sizeof all);
    nj_tokenizer_free(t);
}

/* A space goes before the text and before what follows a special token, and is taken away again. */
static void a_space_is_put_before_each_text(void **state)
{
    (void)state;
    nj_tokenizer *t = load_spm(true, "llama");
    IDS(t, "ab", 0, TB_SP_AB);
    IDS(t, " ab", 0, TB_SPACE, TB_SP_AB);
    IDS(t, "ab<s>ab", NJ_TOKENIZE_SPECIAL, TB_SP_AB, 1, TB_SP_AB);
    IDS(t, "<tool>ab", 0, TB_USER, TB_SP_AB);
    assert_round_trip(t, "ab<s>ab", 7);
    assert_round_trip(t, " ab<s> ab <tool>  ", 18);
    assert_text(t, (int32_t[]){ TB_SP_AB, TB_SP_AB }, 2, false, "ab ab");
    nj_tokenizer_free(t);
}

static void no_space_is_put_where_the_file_says_so(void **state)
{
    (void)state;
    nj_tokenizer *t = load_spm(false, "gemma2");
    IDS(t, "ab<s>ab", NJ_TOKENIZE_SPECIAL, TB_AB, 1, TB_AB);
    assert_text(t, (int32_t[]){ TB_SP_AB }, 1, false, " ab");
    nj_tokenizer_free(t);
}

/* The vocabulary's sign for a space, met in a text, is a space. */
static void the_space_mark_in_a_text_is_a_space(void **state)
{
    (void)state;
    nj_tokenizer *t = load_spm(false, "llama");
    IDS(t,
        "c\xe2\x96\x81"
        "ab\xe2\x96\x81\xe2\x96\x81",
        0, TB_C, TB_SP_AB, TB_TWO_SPACES);
    nj_tokenizer_free(t);
}

static void phi_3_special_tokens_swallow_white_space(void **state)
{
    (void)state;
    nj_tokenizer *phi = load_spm(true, "phi3"), *llama = load_spm(true, "llama");
    IDS(phi, "</s> \n\tab", NJ_TOKENIZE_SPECIAL, 2, TB_SP_AB);
    IDS(phi, "<s> ab", NJ_TOKENIZE_SPECIAL, 1, TB_SPACE, TB_SP_AB);
    IDS(phi, "</s>  ", NJ_TOKENIZE_SPECIAL, 2);
    IDS(llama, "</s> ab", NJ_TOKENIZE_SPECIAL, 2, TB_SPACE, TB_SP_AB);
    nj_tokenizer_free(phi);
    nj_tokenizer_free(llama);
}

/* ---- Names ---- */

static void the_name_says_model_and_pre_tokenizer(void **state)
{
    (void)state;
    nj_tokenizer *bpe = load_bpe("llama3"), *spm = load_spm(true, "llama");
    assert_string_equal(nj_tokenizer_name(bpe), "gpt2/llama3");
    assert_string_equal(nj_tokenizer_name(spm), "llama");
    assert_int_equal(nj_tokenizer_size(bpe), TB_E_ACUTE + 1);
    nj_tokenizer_free(bpe);
    nj_tokenizer_free(spm);
}

static int free_bytes(void **state)
{
    (void)state;
    nj_buf_free(&bytes);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_go_by_rank_then_from_the_left),
        cmocka_unit_test(every_byte_comes_back),
        cmocka_unit_test(invalid_bytes_leave_their_surroundings_alone),
        cmocka_unit_test(qwen_normalises_and_gpt_2_does_not),
        cmocka_unit_test(long_runs_of_marks_are_normalised_in_time),
        cmocka_unit_test(a_piece_of_a_megabyte_is_merged_in_time),
        cmocka_unit_test(whole_pieces_are_tokens_where_merges_are_ignored),
        cmocka_unit_test(the_first_of_equal_texts_is_produced),
        cmocka_unit_test(merges_of_unknown_pieces_are_left_out),
        cmocka_unit_test(a_byte_without_token_is_replaced_or_an_error),
        cmocka_unit_test(the_longest_special_token_is_found),
        cmocka_unit_test(control_tokens_in_plain_text_are_text),
        cmocka_unit_test(user_defined_tokens_are_always_found),
        cmocka_unit_test(control_tokens_are_silent_unless_asked_for),
        cmocka_unit_test(bos_and_eos_are_added_where_the_file_says_so),
        cmocka_unit_test(tokens_are_appended),
        cmocka_unit_test(ends_of_an_answer_are_known),
        cmocka_unit_test(eot_and_eom_ids_end_an_answer),
        cmocka_unit_test(the_best_score_is_merged_first),
        cmocka_unit_test(unknown_characters_become_bytes),
        cmocka_unit_test(a_space_is_put_before_each_text),
        cmocka_unit_test(no_space_is_put_where_the_file_says_so),
        cmocka_unit_test(the_space_mark_in_a_text_is_a_space),
        cmocka_unit_test(phi_3_special_tokens_swallow_white_space),
        cmocka_unit_test(the_name_says_model_and_pre_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, free_bytes);
}
