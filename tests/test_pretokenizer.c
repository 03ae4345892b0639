/* Pieces of every family of pre-tokenizers. The expected ones come from the patterns in the makers' tokenizer.json,
 * applied by another regular expression engine. */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer.h"

/* Pieces, joined by "|". */
typedef struct cutter {
    nj_encoder e; /* first, so that a piece function finds the rest */
    nj_buf pieces;
    size_t count, bytes;
} cutter;

static int add_piece(nj_encoder *e, const char *text, size_t len)
{
    cutter *c = (cutter *)e;
    if (c->count++) nj_buf_char(&c->pieces, '|');
    nj_buf_add(&c->pieces, text, len);
    return 0;
}

static int count_piece(nj_encoder *e, const char *text, size_t len)
{
    cutter *c = (cutter *)e;
    (void)text;
    c->count++;
    c->bytes += len;
    return 0;
}

static void cut(cutter *c, const char *name, const char *text, size_t len, nj_piece_fn *fn)
{
    nj_error err = { 0 };
    nj_pretokenizer *p = NULL;
    nj_pre_traits traits;
    *c = (cutter){ .e.err = &err };
    if (nj_pretokenizer_new(&p, &traits, name, &err)) fail_msg("%s", err.text);
    assert_int_equal(nj_pretokenize(p, text, len, fn, &c->e), 0);
    nj_pretokenizer_match_free(c->e.match);
    nj_pretokenizer_free(p);
}

static void assert_pieces(const char *name, const char *text, const char *expected)
{
    cutter c;
    cut(&c, name, text, strlen(text), add_piece);
    if (strcmp(c.pieces.data, expected) != 0)
        fail_msg("%s cuts \"%s\"\ninto \"%s\"\nnot  \"%s\"", name, text, c.pieces.data, expected);
    nj_buf_free(&c.pieces);
}

/* One text that tells the families apart: a contraction, its upper case, spaces, digits, signs, camel case, a path, a
 * combining mark, Chinese after a space, a superscript, a space at the end. */
static const char sample[] = "I'll SAY'LL  $1234.50, aB/\n\n  ne\xcc\x81 \xe7\x9a\x84\xe5\xad\x97 x\xc2\xb2 ";

static const struct {
    const char *name, *pieces;
} families[] = {
    { "gpt-2", "I|'ll| SAY|'|LL| | $|1234|.|50|,| aB|/|\n\n | ne|\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "llama-bpe",
      "I|'ll| SAY|'LL| | $|123|4|.|50|,| aB|/\n\n| | ne|\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "qwen2", "I|'ll| SAY|'LL| | $|1|2|3|4|.|5|0|,| aB|/\n\n| | ne|\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "qwen35", "I|'ll| SAY|'LL| | $|1|2|3|4|.|5|0|,| aB|/\n\n| | ne\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "deepseek-llm",
      "I|'|ll| SAY|'|LL| | $|1|2|3|4|.|5|0|,| aB|/|\n|\n| | ne|\xcc\x81 |\xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "deepseek-coder",
      "I|'|ll| SAY|'|LL|  $|1|2|3|4|.|5|0|,| aB|/|\n|\n| | ne|\xcc\x81| |\xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "deepseek-v3",
      "I|'ll| SAY|'LL| | $|123|4|.|50|,| aB|/\n\n| | ne\xcc\x81| |\xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "tekken",
      "I|'ll| SAY|'LL| | $|1|2|3|4|.|5|0|,| a|B|/\n\n| | ne\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "gpt-4o", "I'll| SAY'LL| | $|123|4|.|50|,| a|B|/\n\n| | ne\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "starcoder",
      "I|'ll| SAY|'|LL| | $|1|2|3|4|.|5|0|,| aB|/|\n\n | ne|\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "falcon", "I|'|ll| SAY|'|LL|  |$|123|4|.|50|,| aB|/|\n\n | ne|\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "seed-coder",
      "I|'ll| SAY|'LL| | $|1|2|3|4|.|5|0|,| aB|/|\n\n| | ne|\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "bailingmoe",
      "I|'ll| SAY|'LL| | $|1|2|3|4|.|5|0|,| aB|/\n\n| | ne|\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "minicpm5", "I|'ll| SAY|'LL| | $|123|4|.|50|,| aB|/\n\n| | ne|\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "ufakzeka",
      "I|'ll| SAY|'LL| | $|1|2|3|4|.|5|0|,| aB|/\n\n| | ne|\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
    { "bloom", "I'll| SAY'LL| | $1234|.|50|,| aB/|\n\n | ne\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x\xc2\xb2| " },
    { "viking", "I'll| SAY'LL| | $|1|2|3|4|.|5|0|,| aB/|\n\n | ne\xcc\x81| \xe7\x9a\x84\xe5\xad\x97| x|\xc2\xb2| " },
};

static void each_family_cuts_its_way(void **state)
{
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(families); i++) assert_pieces(families[i].name, sample, families[i].pieces);
}

/* Aliases differ in nothing. */
static void aliases_cut_like_their_family(void **state)
{
    static const char *const pair[][2] = { { "default", "gpt-2" },         { "llama3", "llama-bpe" },
                                           { "falcon3", "llama-bpe" },     { "dbrx", "llama-bpe" },
                                           { "phi-4", "llama-bpe" },       { "smaug-bpe", "llama-bpe" },
                                           { "refact", "starcoder" },      { "command-r", "starcoder" },
                                           { "smollm", "starcoder" },      { "megrez", "qwen2" },
                                           { "llama4", "gpt-4o" },         { "stablelm2", "qwen2" },
                                           { "deepseek-r1-qwen", "qwen2" } };
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(pair); i++) {
        cutter c;
        cut(&c, pair[i][1], sample, strlen(sample), add_piece);
        assert_pieces(pair[i][0], sample, c.pieces.data);
        nj_buf_free(&c.pieces);
    }
}

/* U+0085 and U+3000 are white space; U+180E and U+200B are not. */
static void white_space_is_unicodes(void **state)
{
    (void)state;
    assert_pieces("gpt-2",
                  "a\xc2\x85\xe3\x80\x80"
                  "b",
                  "a|\xc2\x85|\xe3\x80\x80|b");
    assert_pieces("gpt-2",
                  "a \xe1\xa0\x8e"
                  "b",
                  "a| \xe1\xa0\x8e|b");
    assert_pieces("gpt-2",
                  "a \xe2\x80\x8b"
                  "b",
                  "a| \xe2\x80\x8b|b");
}

/* Upper and lower case contractions, and the long s that Unicode folds to s. */
static void contractions_ignore_case_where_the_pattern_does(void **state)
{
    (void)state;
    assert_pieces("llama-bpe", "it'S we'Ve x'\xc5\xbf", "it|'S| we|'Ve| x|'\xc5\xbf");
    assert_pieces("gpt-2", "it'S we've", "it|'|S| we|'ve");
    assert_pieces("gpt-4o", "it's IT'S", "it's| IT'S");
}

static void camel_case_is_cut_by_the_gpt_4o_family(void **state)
{
    (void)state;
    assert_pieces("gpt-4o", "camelCaseXMLFile iPhone", "camel|Case|XMLFile| i|Phone");
    assert_pieces("tekken", "camelCaseXMLFile iPhone", "camel|Case|XMLFile| i|Phone");
    assert_pieces("qwen2", "camelCaseXMLFile", "camelCaseXMLFile");
}

static void digits_stay_together_as_the_family_says(void **state)
{
    (void)state;
    assert_pieces("gpt-2", " 1234567", " 1234567");
    assert_pieces("llama-bpe", " 1234567", " |123|456|7");
    assert_pieces("qwen2", " 123", " |1|2|3");
    assert_pieces("starcoder", " 123", " |1|2|3");
    assert_pieces("deepseek-v3", "1234", "123|4");
    assert_pieces("falcon", "12345", "123|45");
}

/* Runs of 1 MB that invite back-tracking: done in reasonable time, no byte lost. */
static void long_runs_are_cut_in_time_and_whole(void **state)
{
    static const char *const unit[] = {
        "a", "A", " ", "\n", " \n", "1", "'", "!", "\xe7\x9a\x84", "\xcc\x81", "\xe3\x80\x80", "aB", "a "
    };
    enum { LEN = 1 << 20 };
    (void)state;
    char *text = malloc(LEN + 8);
    assert_non_null(text);
    uint64_t begin = nj_now_ns();
    for (size_t u = 0; u < NJ_COUNT(unit); u++) {
        size_t len = 0;
        for (; len < LEN; len += strlen(unit[u])) memcpy(text + len, unit[u], strlen(unit[u]));
        text[len++] = 'x'; /* so that "space up to the end" is nearly true */
        for (size_t i = 0; i < NJ_COUNT(families); i++) {
            cutter c;
            cut(&c, families[i].name, text, len, count_piece);
            assert_int_equal(c.bytes, len);
        }
    }
    free(text);
    double seconds = (double)(nj_now_ns() - begin) / 1e9;
    print_message("%zu runs of 1 MB: %.1f s\n", NJ_COUNT(unit) * NJ_COUNT(families), seconds);
    assert_true(seconds < 300);
}

static void an_unknown_name_is_an_error_that_names_usual_ones(void **state)
{
    static const char *const wrong[] = { "", "gpt", "qwen2 ", "llama-bpe llama3", "no-such" };
    static const char *const usual[] = { "llama-bpe", "qwen2", "tekken", "gpt-2" };
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(wrong); i++) {
        nj_error err = { 0 };
        nj_pretokenizer *p;
        nj_pre_traits traits;
        assert_int_equal(nj_pretokenizer_new(&p, &traits, wrong[i], &err), -ENOTSUP);
        assert_non_null(strstr(err.text, "tokenizer.ggml.pre"));
        assert_non_null(strstr(err.text, wrong[i]));
        assert_non_null(strstr(err.remedy, "--set tokenizer.ggml.pre="));
        for (size_t k = 0; k < NJ_COUNT(usual); k++) {
            assert_non_null(strstr(err.remedy, usual[k]));
            assert_int_equal(nj_pretokenizer_new(&p, &traits, usual[k], &err), 0);
            nj_pretokenizer_free(p);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_family_cuts_its_way),
        cmocka_unit_test(aliases_cut_like_their_family),
        cmocka_unit_test(white_space_is_unicodes),
        cmocka_unit_test(contractions_ignore_case_where_the_pattern_does),
        cmocka_unit_test(camel_case_is_cut_by_the_gpt_4o_family),
        cmocka_unit_test(digits_stay_together_as_the_family_says),
        cmocka_unit_test(long_runs_are_cut_in_time_and_whole),
        cmocka_unit_test(an_unknown_name_is_an_error_that_names_usual_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
