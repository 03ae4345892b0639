/* The parts of the command line that need no model and no terminal. */
#include "tests/test.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/cli.h"
#include "appliance/config.h"
#include "appliance/facts.h"
#include "appliance/score.h"
#include "appliance/text.h"
#include "tests/gguf_build.h"

/* ---- The command line ---- */

struct fields {
    const char *text;
    uint32_t count;
    uint64_t seed, bytes;
    float x;
    int kv;
    bool flag;
    nj_cli_strings list;
};

static const nj_cli_option options[] = {
    { "text", 't', "TEXT", nj_cli_text, offsetof(struct fields, text), 0, 0, "a text" },
    { "count", 'n', "N", nj_cli_u32, offsetof(struct fields, count), 1, 10, "a count" },
    { .help = "More:" },
    { "seed", 0, "N", nj_cli_u64, offsetof(struct fields, seed), 0, 0, "a seed" },
    { "bytes", 0, "SIZE", nj_cli_size, offsetof(struct fields, bytes), 0, 0, "a size" },
    { "x", 0, "X", nj_cli_float, offsetof(struct fields, x), -1, 2, "a number" },
    { "kv", 0, "TYPE", nj_cli_kv, offsetof(struct fields, kv), 0, 0, "a type" },
    { "flag", 'f', NULL, NULL, offsetof(struct fields, flag), 0, 0, "a flag" },
    { "list", 0, "ITEM", nj_cli_list, offsetof(struct fields, list), 0, 0, "a list" },
    { 0 },
};

static const nj_cli_verb verb = { "test", "A [B]", "Does nothing.", options, NULL, 1, 2 };

/* Parses up to 11 words, ended by NULL, after the verb's name. */
static int parse(struct fields *f, char ***operand, int *count, char **words)
{
    char *argv[13] = { (char *)"test" };
    int argc = 1;
    *f = (struct fields){ .count = 5, .x = 0.5f, .kv = -1 };
    while (words[argc - 1]) argv[argc] = words[argc - 1], argc++;
    int status = nj_cli_parse(&verb, argc, argv, f, operand, count);
    if (operand && status < 0) {
        static char *kept[12];
        memcpy(kept, *operand, (size_t)*count * sizeof **operand);
        *operand = kept;
    }
    return status;
}

#define WORDS(...) ((char *[]){ __VA_ARGS__, NULL })

static void options_and_operands_are_told_apart(void **state)
{
    struct fields f;
    char **operand;
    int count;
    (void)state;
    assert_int_equal(
        parse(&f, &operand, &count, WORDS("a", "-f", "--text=hi", "-n", "7", "--list", "x", "b", "--list", "y")), -1);
    assert_int_equal(count, 2);
    assert_string_equal(operand[0], "a");
    assert_string_equal(operand[1], "b");
    assert_string_equal(f.text, "hi");
    assert_true(f.flag);
    assert_int_equal(f.count, 7);
    assert_int_equal(f.list.count, 2);
    assert_string_equal(f.list.item[1], "y");
    free(f.list.item);
}

static void what_is_not_given_keeps_its_default(void **state)
{
    struct fields f;
    (void)state;
    assert_int_equal(parse(&f, NULL, NULL, WORDS("a")), -1);
    assert_int_equal(f.count, 5);
    assert_true(f.x == 0.5f);
    assert_false(f.flag);
}

static void wrong_calls_end_with_2(void **state)
{
    struct fields f;
    char **wrong[] = {
        WORDS("--nothing", "a"),
        WORDS("-z", "a"),
        WORDS("a", "--text"),
        WORDS("a", "--flag=1"),
        WORDS("a", "-n", "0"),
        WORDS("a", "-n", "11"),
        WORDS("a", "-n", "-3"),
        WORDS("a", "-n", "3x"),
        WORDS("a", "-n", ""),
        WORDS("a", "--x", "nan"),
        WORDS("a", "--x", "3"),
        WORDS("a", "--kv", "q4_0"),
        WORDS("a", "b", "c"),
        WORDS("--flag"),
        WORDS("a", "--bytes", "8Q"),
        WORDS("a", "--bytes", "-1"),
        WORDS("a", "--bytes", "9999999T"),
        WORDS("a", "--seed", "18446744073709551616"),
    };
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(wrong); i++) {
        int status = parse(&f, NULL, NULL, wrong[i]);
        if (status != 2) print_message("case %zu\n", i);
        assert_int_equal(status, 2);
    }
}

static void sizes_have_suffixes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = { { "512", 512 },
                  { "64K", 65536 },
                  { "1.5M", 3 << 19 },
                  { "8G", UINT64_C(8) << 30 },
                  { "2TiB", UINT64_C(2) << 40 } };
    struct fields f;
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(cases); i++) {
        assert_int_equal(parse(&f, NULL, NULL, WORDS("a", "--bytes", (char *)(uintptr_t)cases[i].text)), -1);
        assert_int_equal(f.bytes, cases[i].bytes);
    }
}

static void seeds_use_the_full_range(void **state)
{
    struct fields f;
    (void)state;
    assert_int_equal(parse(&f, NULL, NULL, WORDS("a", "--seed", "18446744073709551615", "--kv", "Q8_0")), -1);
    assert_true(f.seed == UINT64_MAX);
    assert_int_equal(f.kv, NJ_Q8_0);
}

static void near_words_are_suggested(void **state)
{
    static const char *const list[] = { "inspect", "tokenize", "detokenize", "run", NULL };
    (void)state;
    assert_string_equal(nj_cli_suggest("inspct", list), "inspect");
    assert_string_equal(nj_cli_suggest("tokeinze", list), "tokenize");
    assert_string_equal(nj_cli_suggest("detok", list), "detokenize");
    assert_null(nj_cli_suggest("xyzzy", list));
    assert_null(nj_cli_suggest("a word much longer than any of those that are in the list", list));
}

static void token_ids_are_checked(void **state)
{
    nj_tokens t = { 0 };
    nj_error err = { 0 };
    (void)state;
    assert_int_equal(nj_cli_ids("5,17 9\n[3, 0]", 18, &t, &err), 0);
    assert_int_equal(t.len, 5);
    assert_int_equal(t.id[1], 17);
    assert_int_equal(t.id[4], 0);
    assert_int_equal(nj_cli_ids("18", 18, &t, &err), -EINVAL);
    assert_int_equal(nj_cli_ids("-1", 18, &t, &err), -EINVAL);
    assert_int_equal(nj_cli_ids("1.5", 18, &t, &err), -EINVAL);
    assert_int_equal(nj_cli_ids("99999999999999999999", 18, &t, &err), -EINVAL);
    free(t.id);
}

/* ---- The environment ---- */

static void the_clock_of_templates_is_read(void **state)
{
    struct tm tm;
    nj_error err;
    (void)state;
    assert_int_equal(nj_config_parse_now("2026-11-20T07:05:09", &tm, &err), 0);
    assert_int_equal(tm.tm_year, 126);
    assert_int_equal(tm.tm_mon, 10);
    assert_int_equal(tm.tm_mday, 20);
    assert_int_equal(tm.tm_hour, 7);
    assert_int_equal(tm.tm_wday, 5);
    assert_int_equal(tm.tm_yday, 323);
    assert_int_equal(nj_config_parse_now("2028-02-29 23:59", &tm, &err), 0);
}

static void moments_that_are_none_are_refused(void **state)
{
    static const char *const wrong[] = { "yesterday",
                                         "2026-02-30T07:00:00",
                                         "2026-11-20",
                                         "2026-11-20T25:00:00",
                                         "2026-11-20T07:00:00Z",
                                         "2026-13-01T00:00:00",
                                         "" };
    struct tm tm;
    nj_error err;
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(wrong); i++) assert_int_equal(nj_config_parse_now(wrong[i], &tm, &err), -EINVAL);
}

/* ---- The bar ---- */

static void the_bar_fits_its_columns(void **state)
{
    nj_progress p = { .title = "Lädt märchen.gguf", .done = 3000000000, .total = 10000000000, .start_ns = 1 };
    char line[512];
    (void)state;
    snprintf(p.note, sizeof p.note, "%s", "note");
    for (uint32_t columns = 2; columns < 200; columns++) {
        size_t width = 0;
        nj_progress_format(&p, 10000000001u, columns, line, sizeof line);
        for (const char *c = line; *c; c++) width += ((unsigned char)*c & 0xc0) != 0x80;
        assert_true(width < columns);
        assert_int_equal(nj_utf8_whole(line, strlen(line)), strlen(line));
    }
    assert_string_equal(
        line, "Lädt märchen.gguf  [########....................]   30%  3.0 GB of 10.0 GB  300 MB/s  23 s left  note");
}

static void the_rate_leaves_out_what_was_done_before(void **state)
{
    nj_progress p = { .title = "Night", .unit = "requests", .done = 60, .base = 40, .total = 100 };
    char line[256];
    (void)state;
    nj_progress_format(&p, 10000000000u, 200, line, sizeof line);
    assert_non_null(strstr(line, "60 of 100 requests  2/s  20 s left"));
}

static void a_finished_bar_is_full(void **state)
{
    nj_progress p = { .title = "T", .done = 7, .total = 5, .unit = "x" };
    char line[256];
    (void)state;
    nj_progress_format(&p, 0, 120, line, sizeof line);
    assert_non_null(strstr(line, "[############################]"));
}

/* Updates a bar for a file, as if 5 s lay between, and ends it; the number of lines it printed. */
static int lines_printed(const uint64_t *done, size_t n, uint64_t total)
{
    nj_progress p;
    int lines = 0, c, kept = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    nj_progress_begin(&p, "Night", "requests", false);
    for (size_t i = 0; i < n; i++) {
        p.next_ns = 0;
        nj_progress_update(&p, done[i], total);
    }
    nj_progress_end(&p);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    while ((c = getc(file)) != EOF) lines += c == '\n';
    fclose(file);
    return lines;
}

static void the_last_line_is_printed_once(void **state)
{
    (void)state;
    assert_int_equal(lines_printed((const uint64_t[]){ 3, 5 }, 2, 5), 2);
    assert_int_equal(lines_printed(NULL, 0, 5), 0);
}

static void durations_and_sizes_read_well(void **state)
{
    char text[24];
    (void)state;
    nj_text_duration(59.4, text), assert_string_equal(text, "59 s");
    nj_text_duration(59.6, text), assert_string_equal(text, "1m 00s");
    nj_text_duration(3723, text), assert_string_equal(text, "1h 02m");
    nj_text_duration(INFINITY, text), assert_string_equal(text, "very long");
    nj_text_bytes(999, text), assert_string_equal(text, "999 B");
    nj_text_bytes(18.6e9, text), assert_string_equal(text, "18.6 GB");
    nj_text_bytes(999.7e6, text), assert_string_equal(text, "1.0 GB");
}

/* ---- Text from outside ---- */

static void no_text_steers_the_terminal(void **state)
{
    nj_buf b = { 0 };
    (void)state;
    nj_text_escape(&b, "a\033[2J\n\xc2\x9b\xff\xe2\x82é", 13, 0);
    assert_string_equal(b.data, "a\\x1b[2J\\n\\xc2\\x9b\\xff\\xe2\\x82é");
    nj_buf_clear(&b);
    nj_text_escape(&b, "ééé", 6, 3);
    assert_string_equal(b.data, "é...");
    nj_buf_free(&b);
}

static void quoted_text_has_its_quotes_escaped(void **state)
{
    nj_buf b = { 0 };
    (void)state;
    nj_text_quote(&b, "\"a\\\n", 4, 0);
    assert_string_equal(b.data, "\"\\\"a\\\\\\n\"");
    nj_buf_free(&b);
}

static void invalid_text_becomes_valid_json(void **state)
{
    (void)state;
    json_t *s = nj_text_json("a\xff\xed\xa0\x80z", 6);
    assert_non_null(s);
    assert_string_equal(json_string_value(s), "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz");
    json_decref(s);
}

/* ---- Figures ---- */

static void log_sum_exp_does_not_overflow(void **state)
{
    float logits[3] = { 10000, 10000, -10000 };
    (void)state;
    assert_true(fabs(nj_log_sum_exp(logits, 3) - (10000 + log(2))) < 1e-9);
}

static void the_mean_has_its_error(void **state)
{
    nj_mean m = { 0 };
    (void)state;
    for (int i = 1; i <= 5; i++) nj_mean_add(&m, i);
    assert_true(fabs(m.mean - 3) < 1e-12);
    assert_true(fabs(nj_mean_error(&m) - sqrt(2.5 / 5)) < 1e-12);
}

static void tensors_have_their_groups(void **state)
{
    static const struct {
        const char *name;
        nj_group group;
    } cases[] = {
        { "token_embd.weight", NJ_GROUP_EMBEDDING },     { "blk.0.attn_q.weight", NJ_GROUP_ATTENTION },
        { "blk.12.attn_q_norm.weight", NJ_GROUP_NORMS }, { "blk.3.ffn_up_exps.weight", NJ_GROUP_EXPERTS },
        { "blk.3.ffn_up_shexp.weight", NJ_GROUP_MLP },   { "blk.3.ffn_gate_inp.weight", NJ_GROUP_ROUTER },
        { "blk.3.ffn_gate.weight", NJ_GROUP_MLP },       { "output.weight", NJ_GROUP_OUTPUT },
        { "output_norm.weight", NJ_GROUP_NORMS },        { "rope_freqs.weight", NJ_GROUP_OTHER },
        { "blk.x.attn_q.weight", NJ_GROUP_OTHER },
    };
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(cases); i++) assert_int_equal(nj_group_of(cases[i].name), cases[i].group);
}

static void memory_goes_to_weights_first(void **state)
{
    const nj_model_info m = { .bytes = 1000, .context = 100, .kv_values_per_token = 10 }; /* 20 bytes per token */
    (void)state;
    nj_fit f = nj_fit_of(&m, 5000, 8000);
    assert_true(f.fit && f.weights_fit);
    assert_int_equal(f.kv, 2000);
    assert_int_equal(f.tokens, 100);
    f = nj_fit_of(&m, 2000, 8000);
    assert_true(f.weights_fit && !f.fit);
    assert_int_equal(f.tokens, 25);
    f = nj_fit_of(&m, 999, 8000);
    assert_true(!f.weights_fit && !f.fit);
    assert_int_equal(f.tokens, 0);
}

static void keys_are_described(void **state)
{
    const char *sentence = NULL;
    (void)state;
    assert_int_equal(nj_key_describe("llama", "llama.rope.freq_base", &sentence), NJ_KEY_FREE);
    assert_int_equal(nj_key_describe("llama", "llama.block_count", &sentence), NJ_KEY_SHAPE);
    assert_int_equal(nj_key_describe("llama", "general.name", &sentence), NJ_KEY_INFO);
    assert_int_equal(nj_key_describe("llama", "general.base_model.0.name", &sentence), NJ_KEY_INFO);
    assert_string_not_equal(sentence, "Not used by Nightjar.");
    assert_int_equal(nj_key_describe("llama", "qwen2.block_count", &sentence), NJ_KEY_INFO);
    assert_string_equal(sentence, "Not used by Nightjar.");
    assert_int_equal(nj_key_describe("llama", "llamarope.freq_base", &sentence), NJ_KEY_INFO);
}

/* ---- The vocabulary check ---- */

/* A vocabulary of `n` texts with special ids; checked into *r. */
static void check_vocabulary(nj_vocab_report *r, const char *const *texts, size_t n, uint32_t eos, size_t types)
{
    gb b = { 0 };
    nj_error err = { 0 };
    nj_gguf *g = NULL;
    gb_str(&b, "general.architecture", "llama");
    gb_str(&b, "tokenizer.ggml.model", "gpt2");
    gb_str(&b, "tokenizer.ggml.pre", "gpt-2");
    gb_strings(&b, "tokenizer.ggml.tokens", n, texts);
    gb_array(&b, "tokenizer.ggml.token_type", NJ_META_I32, types, "", 0);
    for (size_t i = 0; i < types; i++) gb_put32(&b.keys, 1);
    gb_strings(&b, "tokenizer.ggml.merges", 0, NULL);
    gb_u32(&b, "tokenizer.ggml.eos_token_id", eos);
    nj_buf file = gb_finish(&b);
    int rc = nj_gguf_parse(&g, file.data, file.len, file.len, "vocab.gguf", &gb_types, &err);
    if (rc != 0) print_message("%s\n", err.text);
    assert_int_equal(rc, 0);
    nj_vocab_check(r, g);
    nj_gguf_close(g);
    nj_buf_free(&file);
}

static void duplicate_tokens_are_noted(void **state)
{
    static const char *const texts[] = { "a", "b", "a", "c" };
    nj_vocab_report r;
    (void)state;
    check_vocabulary(&r, texts, 4, 3, 4);
    assert_int_equal(r.tokens, 4);
    assert_non_null(r.notes.data);
    assert_non_null(strstr(r.notes.data, "2 \"a\" is also 0"));
    assert_non_null(strstr(r.notes.data, "253 of 256 bytes"));
    assert_null(strstr(r.notes.data, "end of an answer"));
    nj_vocab_report_free(&r);
}

static void special_ids_outside_are_faults(void **state)
{
    static const char *const texts[] = { "a", "b" };
    nj_vocab_report r;
    (void)state;
    check_vocabulary(&r, texts, 2, 2, 2);
    assert_non_null(r.faults.data);
    assert_non_null(strstr(r.faults.data, "eos_token_id is 2"));
    nj_vocab_report_free(&r);
}

static void lists_of_another_length_are_faults(void **state)
{
    static const char *const texts[] = { "a", "b" };
    nj_vocab_report r;
    (void)state;
    check_vocabulary(&r, texts, 2, 1, 3);
    assert_non_null(r.faults.data);
    assert_non_null(strstr(r.faults.data, "token_type has 3 entries for 2 tokens"));
    nj_vocab_report_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_operands_are_told_apart),
        cmocka_unit_test(what_is_not_given_keeps_its_default),
        cmocka_unit_test(wrong_calls_end_with_2),
        cmocka_unit_test(sizes_have_suffixes),
        cmocka_unit_test(seeds_use_the_full_range),
        cmocka_unit_test(near_words_are_suggested),
        cmocka_unit_test(token_ids_are_checked),
        cmocka_unit_test(the_clock_of_templates_is_read),
        cmocka_unit_test(moments_that_are_none_are_refused),
        cmocka_unit_test(the_bar_fits_its_columns),
        cmocka_unit_test(the_rate_leaves_out_what_was_done_before),
        cmocka_unit_test(a_finished_bar_is_full),
        cmocka_unit_test(the_last_line_is_printed_once),
        cmocka_unit_test(durations_and_sizes_read_well),
        cmocka_unit_test(no_text_steers_the_terminal),
        cmocka_unit_test(quoted_text_has_its_quotes_escaped),
        cmocka_unit_test(invalid_text_becomes_valid_json),
        cmocka_unit_test(log_sum_exp_does_not_overflow),
        cmocka_unit_test(the_mean_has_its_error),
        cmocka_unit_test(tensors_have_their_groups),
        cmocka_unit_test(memory_goes_to_weights_first),
        cmocka_unit_test(keys_are_described),
        cmocka_unit_test(duplicate_tokens_are_noted),
        cmocka_unit_test(special_ids_outside_are_faults),
        cmocka_unit_test(lists_of_another_length_are_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
