/* Real vocabularies against the answers of their makers' tokenizers: ../shared/golden/tokenizers. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <jansson.h>
#include <utf8proc.h>

#include "tests/tokenizer_build.h"

#define GOLDEN "../shared/golden/"

typedef struct vocabulary {
    const char *file;
    bool nfc, prefix; /* what decoding can't undo */
} vocabulary;

static vocabulary vocabularies[] = {
    { "ggml-vocab-gpt-2", false, false },
    { "ggml-vocab-deepseek-coder", false, false },
    { "ggml-vocab-llama-spm", false, true },
    { "ggml-vocab-phi-3", false, true },
    { "llama3", false, false },
    { "qwen3", true, false },
};

/* perf/bench_tokenizer prints the figures; these are for machines of every kind. */
enum { RATE_MIN = 2 /* MB/s */, LOAD_MAX_MS = 300 };

static void skip_test(const char *why)
{
    print_message("SKIP tokenizer golden: %s\n", why);
    skip();
}

/* CPU time of this thread: the machine may be busy with other things. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static nj_tokenizer *load(const vocabulary *v, double *ms)
{
    char path[256];
    nj_error err = { 0 };
    nj_gguf *g = NULL;
    nj_tokenizer *t = NULL;
    snprintf(path, sizeof path, GOLDEN "tokenizers/%s.gguf", v->file);
    if (access(path, R_OK) != 0) skip_test(GOLDEN "tokenizers is absent");
    if (nj_gguf_open(&g, path, &gb_types, &err)) fail_msg("%s", err.text);
    double begin = cpu_seconds();
    if (nj_tokenizer_new(&t, g, &err)) fail_msg("%s", err.text);
    if (ms) *ms = 1e3 * (cpu_seconds() - begin);
    nj_gguf_close(g);
    return t;
}

static json_t *load_cases(const vocabulary *v)
{
    char path[256];
    snprintf(path, sizeof path, GOLDEN "tokenizers/%s.json", v->file);
    json_t *cases = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(cases) > 40);
    return cases;
}

static const char *text_of(const json_t *item, size_t *len)
{
    const json_t *text = json_object_get(item, "text");
    *len = json_string_length(text);
    return json_string_value(text);
}

static void texts_become_the_makers_ids(void **state)
{
    nj_tokenizer *t = load(*state, NULL);
    json_t *cases = load_cases(*state), *item;
    size_t i, len;
    json_array_foreach(cases, i, item)
    {
        const char *text = text_of(item, &len);
        json_t *ids = json_object_get(item, "ids");
        nj_tokens out = { 0 };
        assert_int_equal(nj_tokenize(t, text, len, NJ_TOKENIZE_SPECIAL, &out, NULL), 0);
        for (size_t k = 0; k < out.len || k < json_array_size(ids); k++) {
            int32_t expected = k < json_array_size(ids) ? (int32_t)json_integer_value(json_array_get(ids, k)) : -1;
            int32_t got = k < out.len ? out.id[k] : -1;
            if (got != expected) fail_msg("case %zu, \"%s\": token %zu is %d, not %d", i, text, k, got, expected);
        }
        free(out.id);
    }
    json_decref(cases);
    nj_tokenizer_free(t);
}

static bool is_nfc(const char *text, size_t len)
{
    utf8proc_uint8_t *nfc = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &nfc, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    bool same = n == (utf8proc_ssize_t)len && memcmp(nfc, text, len) == 0;
    free(nfc);
    return same;
}

/* Lossy by rule: a text that is not in normal form C, where the vocabulary normalises. */
static void ids_become_the_text_again(void **state)
{
    const vocabulary *v = *state;
    nj_tokenizer *t = load(v, NULL);
    json_t *cases = load_cases(v), *item;
    size_t i, len, lossy = 0;
    json_array_foreach(cases, i, item)
    {
        const char *text = text_of(item, &len);
        nj_tokens ids = { 0 };
        nj_buf back = { 0 };
        size_t k;
        json_t *id;
        json_array_foreach(json_object_get(item, "ids"), k, id)
        {
            assert_int_equal(nj_array_grow(&ids.id, &ids.cap, k + 1, sizeof *ids.id), 0);
            ids.id[ids.len++] = (int32_t)json_integer_value(id);
        }
        nj_detokenize(t, ids.id, ids.len, true, &back);
        bool same = back.len == len && (len == 0 || memcmp(back.data, text, len) == 0);
        if (v->nfc && !is_nfc(text, len))
            lossy++;
        else if (!same)
            fail_msg("case %zu: \"%s\" comes back as \"%s\"", i, text, back.data);
        nj_buf_free(&back);
        free(ids.id);
    }
    print_message("%s: %zu texts come back, %zu are not in normal form C\n", v->file, json_array_size(cases) - lossy,
                  lossy);
    assert_true(lossy <= 3);
    json_decref(cases);
    nj_tokenizer_free(t);
}

/* Streaming relies on it: token by token gives the same bytes as all at once, but for the space put before the text. */
static void single_tokens_join_to_the_text(void **state)
{
    const vocabulary *v = *state;
    nj_tokenizer *t = load(v, NULL);
    json_t *cases = load_cases(v), *item;
    size_t i, len;
    json_array_foreach(cases, i, item)
    {
        const char *text = text_of(item, &len);
        nj_tokens out = { 0 };
        nj_buf joined = { 0 }, whole = { 0 };
        assert_int_equal(nj_tokenize(t, text, len, 0, &out, NULL), 0);
        for (size_t k = 0; k < out.len; k++) nj_token_text(t, out.id[k], false, &joined);
        nj_detokenize(t, out.id, out.len, false, &whole);
        size_t skip_len = v->prefix && len ? 1 : 0;
        assert_int_equal(joined.len, whole.len + skip_len);
        if (whole.len) assert_memory_equal(joined.data + skip_len, whole.data, whole.len);
        nj_buf_free(&joined);
        nj_buf_free(&whole);
        free(out.id);
    }
    json_decref(cases);
    nj_tokenizer_free(t);
}

/* The next paragraph of a text, without the line ends after it. */
static size_t paragraph(const char *text, size_t len)
{
    const char *end = memmem(text, len, "\n\n", 2);
    return end ? (size_t)(end - text) : len;
}

/* Long texts remember their pieces, short ones don't. With a control token between them paragraphs don't touch, so that
 * the whole must give what they give one by one. */
static void a_long_text_is_tokenized_like_its_paragraphs(void **state)
{
    nj_tokenizer *t = load(*state, NULL);
    nj_buf book = { 0 }, joined = { 0 };
    nj_tokens parts = { 0 }, whole = { 0 };
    assert_int_equal(nj_file_read(GOLDEN "models/nano-heldout.txt", 1 << 24, &book, NULL), 0);
    for (size_t at = 0, n; at < book.len; at += n + 2) {
        n = paragraph(book.data + at, book.len - at);
        nj_buf_add(&joined, book.data + at, n);
        nj_token_text(t, nj_tokenizer_eos(t), true, &joined);
        assert_int_equal(nj_tokenize(t, book.data + at, n, NJ_TOKENIZE_SPECIAL, &parts, NULL), 0);
        assert_int_equal(nj_array_grow(&parts.id, &parts.cap, parts.len + 1, sizeof *parts.id), 0);
        parts.id[parts.len++] = nj_tokenizer_eos(t);
    }
    assert_int_equal(nj_tokenize(t, joined.data, joined.len, NJ_TOKENIZE_SPECIAL, &whole, NULL), 0);
    assert_int_equal(whole.len, parts.len);
    assert_memory_equal(whole.id, parts.id, whole.len * sizeof *whole.id);
    assert_true(whole.len > 10000);
    nj_buf_free(&book);
    nj_buf_free(&joined);
    free(parts.id);
    free(whole.id);
    nj_tokenizer_free(t);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1, HOSTILE_S = 200 }; /* everything is slow then, and one text took 25 s on a busy machine */
#else
enum { SANITIZED = 0, HOSTILE_S = 20 };
#endif

/* Text that invites back-tracking or quadratic merging, 256 KB of each: over in time and, without normalisation, whole.
 */
static void hostile_texts_are_tokenized_in_time(void **state)
{
    static const char *const unit[] = { "a",   " ", "\n", "!", "0", "\xe4", "<|im_", "\xe2\x96\x81", "\xe7\x9a\x84",
                                        " a\n" };
    enum { LEN = 1 << 18 };
    const vocabulary *v = *state;
    nj_tokenizer *t = load(v, NULL);
    char *text = malloc(LEN + 8);
    assert_non_null(text);
    for (size_t u = 0; u < NJ_COUNT(unit); u++) {
        nj_tokens out = { 0 };
        nj_buf back = { 0 };
        size_t len = 0;
        for (; len < LEN; len += strlen(unit[u])) memcpy(text + len, unit[u], strlen(unit[u]));
        uint64_t begin = nj_now_ns();
        assert_int_equal(nj_tokenize(t, text, len, NJ_TOKENIZE_SPECIAL, &out, NULL), 0);
        double seconds = (double)(nj_now_ns() - begin) / 1e9;
        if (seconds > HOSTILE_S) fail_msg("256 KB of \"%s\" take %.1f s", unit[u], seconds);
        nj_detokenize(t, out.id, out.len, true, &back);
        if (strcmp(unit[u], "\xe2\x96\x81") != 0)
            assert_int_equal(back.len, len); /* SentencePiece's sign for a space */
        nj_buf_free(&back);
        free(out.id);
    }
    free(text);
    nj_tokenizer_free(t);
}

/* Best of a few, since others may be at work on this machine. Sanitizers make everything slow. */
static void prose_is_tokenized_fast_enough(void **state)
{
    const vocabulary *v = *state;
    double load_ms = 1e9, rate = 0;
    nj_buf book = { 0 }, text = { 0 };
    nj_tokenizer *t = NULL;
    if (SANITIZED) skip_test("speed is not measured under a sanitizer");
    for (int i = 0; i < 5; i++) {
        double ms;
        nj_tokenizer_free(t);
        t = load(v, &ms);
        if (ms < load_ms) load_ms = ms;
    }
    assert_int_equal(nj_file_read(GOLDEN "models/nano-heldout.txt", 1 << 24, &book, NULL), 0);
    for (int i = 0; i < 40; i++) nj_buf_add(&text, book.data, book.len);
    for (int i = 0; i < 5; i++) {
        nj_tokens out = { 0 };
        double begin = cpu_seconds();
        assert_int_equal(nj_tokenize(t, text.data, text.len, NJ_TOKENIZE_SPECIAL, &out, NULL), 0);
        double now = (double)text.len / 1e6 / (cpu_seconds() - begin);
        if (now > rate) rate = now;
        free(out.id);
    }
    print_message("%s: loaded in %.0f ms, prose at %.1f MB/s\n", v->file, load_ms, rate);
    assert_true(rate >= RATE_MIN);
    assert_true(load_ms <= LOAD_MAX_MS);
    nj_buf_free(&book);
    nj_buf_free(&text);
    nj_tokenizer_free(t);
}

/* The demonstration model's text: the number of its tokens and the first of them are in nano.json. */
static void the_held_out_text_has_its_known_tokens(void **state)
{
    (void)state;
    nj_error err = { 0 };
    nj_gguf *g = NULL;
    nj_tokenizer *t = NULL;
    nj_buf book = { 0 };
    nj_tokens out = { 0 };
    size_t i;
    json_t *id, *facts = json_load_file(GOLDEN "models/nano.json", 0, NULL);
    if (!facts) skip_test(GOLDEN "models is absent");
    if (nj_gguf_open(&g, GOLDEN "models/nano-bf16.gguf", &gb_types, &err)) fail_msg("%s", err.text);
    if (nj_tokenizer_new(&t, g, &err)) fail_msg("%s", err.text);
    assert_int_equal(nj_file_read(GOLDEN "models/nano-heldout.txt", 1 << 24, &book, NULL), 0);
    assert_int_equal(nj_tokenize(t, book.data, book.len, 0, &out, NULL), 0);
    assert_int_equal(out.len, json_integer_value(json_object_get(facts, "tokens")));
    json_array_foreach(json_object_get(facts, "first_ids"), i, id) assert_int_equal(out.id[i], json_integer_value(id));
    assert_true(i > 10);
    free(out.id);
    nj_buf_free(&book);
    nj_tokenizer_free(t);
    nj_gguf_close(g);
    json_decref(facts);
}

/* Every behaviour with every vocabulary. */
int main(void)
{
    static const struct CMUnitTest behaviour[] = {
        cmocka_unit_test(texts_become_the_makers_ids),
        cmocka_unit_test(ids_become_the_text_again),
        cmocka_unit_test(single_tokens_join_to_the_text),
        cmocka_unit_test(a_long_text_is_tokenized_like_its_paragraphs),
        cmocka_unit_test(hostile_texts_are_tokenized_in_time),
        cmocka_unit_test(prose_is_tokenized_fast_enough),
    };
    enum { ALL = NJ_COUNT(behaviour) * NJ_COUNT(vocabularies) };
    static struct CMUnitTest tests[ALL + 1];
    static char name[ALL][128];
    for (size_t i = 0; i < ALL; i++) {
        vocabulary *v = &vocabularies[i / NJ_COUNT(behaviour)];
        tests[i] = behaviour[i % NJ_COUNT(behaviour)];
        snprintf(name[i], sizeof name[i], "%s: %s", v->file, tests[i].name);
        tests[i].name = name[i];
        tests[i].initial_state = v;
    }
    tests[ALL] = (struct CMUnitTest)cmocka_unit_test(the_held_out_text_has_its_known_tokens);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
