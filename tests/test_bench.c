/* nightjar bench without a stopwatch: what is planned, what peers' output is understood as, what figures are made of
 * samples, and the engine's and numa's parts of it. */
#include "tests/test.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/bench.h"

#define MODEL "tests/data/logits/qwen3moe.gguf"

/* ---- Peers ---- */

static int parse(const char *text, nj_peer_figure out[NJ_PEER_FIGURES_MAX])
{
    nj_error err = { 0 };
    int n = nj_peer_parse(text, out, &err);
    if (n < 0) assert_int_equal(n, err.code);
    return n;
}

static void check_figure(const nj_peer_figure *f, nj_bench_kind kind, uint32_t tokens, uint32_t ctx, double tok_s)
{
    assert_int_equal(f->kind, kind);
    assert_int_equal(f->tokens, tokens);
    assert_int_equal(f->ctx, ctx);
    assert_true(fabs(f->tok_s - tok_s) < 1e-9);
}

static void peer_table_is_understood(void **state)
{
    static const char text[] = "loading...\n"
                               "| model      |     size | backend | threads |           test |             t/s |\n"
                               "| ---------- | -------: | ------- | ------: | -------------: | --------------: |\n"
                               "| toy 4B Q4  | 2.32 GiB | CPU     |       2 |          pp512 |    57.10 ± 0.30 |\n"
                               "| toy 4B Q4  | 2.32 GiB | CPU     |       2 |           tg64 |     4.70 ± 0.02 |\n"
                               "| toy 4B Q4  | 2.32 GiB | CPU     |       2 |  pp512 @ d4096 |    31.25 ± 0.02 |\n"
                               "| toy 4B Q4  | 2.32 GiB | CPU     |       2 |     pp512+tg64 |    25.00 ± 0.02 |\n"
                               "\nbuild: 1234abc (600)\n| no | table |\n";
    nj_peer_figure f[NJ_PEER_FIGURES_MAX];
    (void)state;
    assert_int_equal(parse(text, f), 3);
    check_figure(&f[0], NJ_BENCH_PREFILL, 512, 0, 57.1);
    check_figure(&f[1], NJ_BENCH_DECODE, 64, 0, 4.7);
    check_figure(&f[2], NJ_BENCH_PREFILL, 512, 4096, 31.25);
}

static void peer_json_is_understood(void **state)
{
    static const char array[] = "warming up\n[\n  {\n    \"n_prompt\": 512, \"n_gen\": 0, \"n_depth\": 0,\n"
                                "    \"avg_ts\": 57.5, \"samples_ts\": [ 57.4, 57.6 ]\n  },\n"
                                "  { \"n_prompt\": 0, \"n_gen\": 128, \"n_depth\": 4096, \"avg_ts\": 4.25 },\n"
                                "  { \"n_prompt\": 512, \"n_gen\": 128, \"avg_ts\": 20 }\n]\ndone\n";
    static const char lines[] = "{\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": 50}\n"
                                "{\"n_prompt\": 0, \"n_gen\": 64, \"avg_ts\": 5}\n";
    static const char ours[] = "{\"machine\": {}, \"rows\": [\n"
                               "{\"kind\":\"decode\",\"parallel\":1,\"ctx\":0,\"tokens\":64,\"tok_s\":9.5},\n"
                               "{\"kind\":\"decode\",\"parallel\":4,\"ctx\":0,\"tokens\":64,\"tok_s\":30}]}\n";
    nj_peer_figure f[NJ_PEER_FIGURES_MAX];
    (void)state;
    assert_int_equal(parse(array, f), 2);
    check_figure(&f[0], NJ_BENCH_PREFILL, 512, 0, 57.5);
    check_figure(&f[1], NJ_BENCH_DECODE, 128, 4096, 4.25);
    assert_int_equal(parse(lines, f), 2);
    check_figure(&f[1], NJ_BENCH_DECODE, 64, 0, 5);
    assert_int_equal(parse(ours, f), 1);
    check_figure(&f[0], NJ_BENCH_DECODE, 64, 0, 9.5);
}

static void peer_words_are_understood(void **state)
{
    nj_peer_figure f[NJ_PEER_FIGURES_MAX];
    (void)state;
    assert_int_equal(parse("Prefill: 57.1 tok/s, decode 4 tokens/s\n", f), 2);
    check_figure(&f[0], NJ_BENCH_PREFILL, 0, 0, 57.1);
    check_figure(&f[1], NJ_BENCH_DECODE, 0, 0, 4);
    assert_int_equal(parse("decode   =  4.70 t/s", f), 1);
}

static void peer_nonsense_is_refused(void **state)
{
    static const char *const texts[] = { "",
                                         "\n\n",
                                         "hello",
                                         "prefill tok/s",
                                         "decode -- tok/s",
                                         "[",
                                         "{",
                                         "[1,2",
                                         "{}",
                                         "[[]]",
                                         "| test |",
                                         "| test | t/s |\n| pp |",
                                         "| test | t/s |\n| pp512 | x |",
                                         "| test | t/s |\n| tg99999999999x | 4 |",
                                         "{\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": -3}",
                                         "{\"rows\": 3}" };
    nj_peer_figure f[NJ_PEER_FIGURES_MAX];
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(texts); i++)
        if (parse(texts[i], f) != -EBADMSG) fail_msg("understood: %s", texts[i]);
}

/* More figures than there is room for are passed over; the first ones stay. */
static void peer_figures_are_bounded(void **state)
{
    nj_buf text = { 0 };
    nj_peer_figure f[NJ_PEER_FIGURES_MAX];
    (void)state;
    nj_buf_str(&text, "| test | t/s |\n");
    for (int i = 1; i < 100; i++) nj_buf_printf(&text, "| tg%d | %d.0 |\n", i, i);
    assert_int_equal(parse(text.data, f), NJ_PEER_FIGURES_MAX);
    check_figure(&f[3], NJ_BENCH_DECODE, 4, 0, 4);
    nj_buf_free(&text);
}

static int run_peer(const char *command, const volatile bool *cancel, nj_buf *out, nj_error *err)
{
    static volatile bool never;
    cpu_set_t cpus;
    sched_getaffinity(0, sizeof cpus, &cpus);
    return nj_peer_run(command, &cpus, cancel ? cancel : &never, out, err);
}

static void peer_is_run_and_its_status_checked(void **state)
{
    nj_buf out = { 0 };
    nj_error err = { 0 };
    (void)state;
    assert_int_equal(run_peer("echo talk >&2; echo one; echo two", NULL, &out, &err), 0);
    assert_string_equal(out.data, "one\ntwo\n");
    assert_int_equal(run_peer("echo first >&2; echo no model >&2; exit 3", NULL, &out, &err), -ECHILD);
    assert_non_null(strstr(err.text, "status 3: no model"));
    assert_int_equal(run_peer("kill -9 $$", NULL, &out, &err), -ECHILD);
    assert_non_null(strstr(err.text, "signal 9"));
    nj_buf_clear(&out); /* a flood on both pipes ends, and the output is cut */
    assert_int_equal(run_peer("head -c 20000000 /dev/zero | tee /dev/stderr", NULL, &out, &err), 0);
    assert_in_range(out.len, 1 << 24, (1 << 24) + 4096);
    nj_buf_free(&out);
}

/* A child of the shell is ended with it. */
static void cancelled_peer_is_ended(void **state)
{
    static volatile bool cancel = true;
    nj_buf out = { 0 };
    nj_error err = { 0 };
    (void)state;
    uint64_t begin = nj_now_ns();
    assert_int_equal(run_peer("trap '' TERM; sleep 600 & wait; sleep 600", &cancel, &out, &err), -ECANCELED);
    assert_true(nj_now_ns() - begin < UINT64_C(60000000000));
    nj_buf_free(&out);
}

/* A command may close its output and go on; Ctrl-C, whenever it comes, ends it. */
static volatile bool cancelled_later;

static void cancel_later(int signal)
{
    (void)signal;
    cancelled_later = true;
}

static void cancelled_peer_is_ended_though_its_output_is(void **state)
{
    struct sigaction before, action = { .sa_handler = cancel_later, .sa_flags = SA_RESTART };
    nj_buf out = { 0 };
    nj_error err = { 0 };
    (void)state;
    sigaction(SIGALRM, &action, &before);
    ualarm(200000, 0);
    uint64_t begin = nj_now_ns();
    assert_int_equal(run_peer("exec >&- 2>&-; sleep 30", &cancelled_later, &out, &err), -ECANCELED);
    assert_true(nj_now_ns() - begin < UINT64_C(20000000000));
    sigaction(SIGALRM, &before, NULL);
    nj_buf_free(&out);
}

static void peer_medians_are_kept_by_kind(void **state)
{
    nj_peer p = { .command = "x" };
    nj_error err = { 0 };
    uint32_t tokens = 64;
    (void)state;
    for (int i = 1; i <= 3; i++) {
        const nj_peer_figure f[] = { { NJ_BENCH_DECODE, 128, 0, i }, { NJ_BENCH_PREFILL, 512, 0, 10 * i } };
        assert_int_equal(nj_peer_keep(&p, f, 2, &err), 0);
    }
    assert_int_equal(p.rows, 2);
    assert_true(nj_peer_median(&p, NJ_BENCH_DECODE, 0, &tokens) == 2.0);
    assert_int_equal(tokens, 128); /* it has no such row of 64 tokens */
    assert_true(nj_peer_median(&p, NJ_BENCH_DECODE, 4096, &tokens) == 0.0);
}

/* ---- Plan and figures ---- */

static void plan_has_all_combinations(void **state)
{
    nj_bench b = { 0 };
    nj_error err = { 0 };
    nj_bench_plan plan = { .prompt = 512,
                           .tokens = 64,
                           .parallel = { { 1, 16 }, 2 },
                           .ctx = { { 0, 4096, 32768 }, 3 },
                           .threads = { { 1, 2 }, 2 },
                           .isa = { { NJ_ISA_AVX2, NJ_ISA_AVX512 }, 2 } };
    (void)state;
    assert_int_equal(nj_bench_plan_rows(&b, &plan, &err), 0);
    assert_int_equal(b.settings, 4);
    assert_int_equal(b.rows, 4 * (3 + 3 * 2));
    assert_int_equal(b.setting[3].threads, 2);
    assert_int_equal(b.setting[2].isa, NJ_ISA_AVX2);
    assert_int_equal(b.row[2].ctx, 32768);
    assert_int_equal(b.row[4].parallel, 16);
    assert_int_equal(b.row[4].kind, NJ_BENCH_DECODE);
    assert_int_equal(b.row[b.rows - 1].setting, 3);
    free(b.row);
    plan.prompt = plan.tokens = 0;
    assert_int_equal(nj_bench_plan_rows(&b, &plan, &err), -EINVAL);
}

/* A tier may be named twice: 16 numbers of threads on 5 tiers are more than there is room for. */
static void too_many_settings_are_refused(void **state)
{
    nj_bench b = { 0 };
    nj_error err = { 0 };
    nj_bench_plan plan = { .tokens = 1, .parallel = { { 1 }, 1 }, .ctx = { { 0 }, 1 } };
    (void)state;
    plan.threads.count = NJ_BENCH_LIST_MAX;
    plan.isa.count = NJ_ISA_COUNT + 1;
    assert_int_equal(nj_bench_plan_rows(&b, &plan, &err), -EINVAL);
    assert_null(b.row);
}

/* A bench with one row of each kind and round figures. */
static void make_bench(nj_bench *b, nj_model_info *info, nj_bench_row row[3])
{
    *info = (nj_model_info){ .name = "toy \"4B\"", .layers = 2, .d_model = 100, .vocab = 1000, .heads = 8 };
    info->kv_heads = 2;
    info->params = info->params_active = 1100000; /* 1,000,000 but for the output matrix */
    *b = (nj_bench){ .info = info, .source = "toy.gguf", .kv_type = NJ_F16, .repeat = 3, .row = row, .rows = 3 };
    snprintf(b->machine.cpu_name, sizeof b->machine.cpu_name, "A \"CPU\"");
    b->machine.cores = 2;
    b->settings = 1;
    b->setting[0] = (nj_bench_setting){ 2, NJ_ISA_AVX512, NJ_PEAK_I8_VNNI };
    row[0] = (nj_bench_row){ .kind = NJ_BENCH_PREFILL, .parallel = 1, .tokens = 512 };
    row[1] = (nj_bench_row){ .kind = NJ_BENCH_DECODE, .parallel = 4, .ctx = 64, .tokens = 16 };
    row[2] = (nj_bench_row){ .kind = NJ_BENCH_DECODE, .parallel = 16, .tokens = 16, .skipped = "too much" };
    for (uint32_t i = 0; i < 3; i++) {
        const nj_bench_sample s = { .seconds = i + 1, /* the median is 2 */
                                    .attention_seconds = 0.25 * (i + 1),
                                    .weight_bytes = 19e9,
                                    .kv_values = 8e8,
                                    .kv_read = 5e8, /* 1e9 bytes */
                                    .ceiling_gb_s = 20,
                                    .peak_gop_s = 1.024 };
        row[0].sample[row[0].samples++] = row[1].sample[row[1].samples++] = s;
    }
}

static void figures_count_what_the_work_needs(void **state)
{
    nj_bench b;
    nj_model_info info;
    nj_bench_row row[3];
    (void)state;
    make_bench(&b, &info, row);
    nj_bench_figures prefill = nj_bench_figures_of(&b, &row[0]), decode = nj_bench_figures_of(&b, &row[1]);
    assert_true(prefill.tok_s == 256);
    assert_true(prefill.spread == (512 - 512.0 / 3) / 256);
    assert_true(fabs(prefill.gop_s - 2 * (512e6 + 1e5) / 2 / 1e9) < 1e-9); /* one row meets the output matrix */
    assert_true(fabs(prefill.share - 0.5) < 1e-3);
    assert_true(decode.tok_s == 32);
    assert_true(fabs(decode.gb_s - 10) < 1e-9);
    assert_true(fabs(decode.share - 0.5) < 1e-9);
    assert_true(fabs(decode.attention_share - 0.25) < 1e-9);
    assert_true(fabs(decode.attention_gop_s - 2 * 8e8 * 4 / 0.5 / 1e9) < 1e-9);
    row[1].samples = 0;
    assert_true(nj_bench_figures_of(&b, &row[1]).tok_s == 0);
}

static char *printed(const nj_bench *b, void (*print)(const nj_bench *b, FILE *out))
{
    char *text = NULL;
    size_t size;
    nj_error err = { 0 };
    FILE *f = open_memstream(&text, &size);
    if (print)
        print(b, f);
    else
        assert_int_equal(nj_bench_print_json(b, f, &err), 0);
    fclose(f);
    return text;
}

static void json_has_the_promised_members(void **state)
{
    static const char *const members[] = {
        "kind",    "parallel", "ctx",    "tokens", "tok_s",      "gb_s",           "share", "isa", "read_ceiling_gb_s",
        "threads", "gop_s",    "spread", "peak",   "peak_gop_s", "attention_share"
    };
    nj_bench b;
    nj_model_info info;
    nj_bench_row row[3];
    (void)state;
    make_bench(&b, &info, row);
    char *text = printed(&b, NULL);
    json_t *o = json_loads(text, 0, NULL), *rows = json_object_get(o, "rows");
    assert_non_null(o);
    assert_int_equal(json_array_size(rows), 2);
    for (size_t i = 0; i < NJ_COUNT(members); i++)
        if (!json_object_get(json_array_get(rows, 1), members[i])) fail_msg("no member %s", members[i]);
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 0), "kind")), "prefill");
    assert_true(json_number_value(json_object_get(json_array_get(rows, 1), "tok_s")) == 32);
    assert_int_equal(json_array_size(json_object_get(o, "skipped")), 1);
    assert_string_equal(json_string_value(json_object_get(json_object_get(o, "machine"), "cpu")), "A \"CPU\"");
    json_decref(o);
    free(text);
    b.setting[0].peak = NJ_PEAK_COUNT; /* no limit known: no share */
    for (int i = 0; i < 3; i++) row[0].sample[i].peak_gop_s = 0;
    o = json_loads(text = printed(&b, NULL), 0, NULL);
    assert_true(json_is_null(json_object_get(json_array_get(json_object_get(o, "rows"), 0), "share")));
    json_decref(o);
    free(text);
}

static void report_is_a_short_table_with_ratios(void **state)
{
    nj_bench b;
    nj_model_info info;
    nj_bench_row row[3];
    nj_error err = { 0 };
    const nj_peer_figure f[] = { { NJ_BENCH_PREFILL, 512, 0, 128 } };
    (void)state;
    make_bench(&b, &info, row);
    b.peers = 1;
    b.peer[0].command = "/opt/bin/llama-bench -m x.gguf";
    assert_int_equal(nj_peer_keep(&b.peer[0], f, 1, &err), 0);
    char *text = printed(&b, nj_bench_print_report);
    assert_non_null(strstr(text, " llama-bench |"));
    assert_non_null(strstr(text, "| prefill 512 | avx512, 2 threads | 256.00 | 1 GOP/s of 1 int8 vnni = 50% | 128.00, "
                                 "ours 2.00x |"));
    assert_non_null(strstr(text, "| decode 16 x4 @ 64 |"));
    uint32_t lines = 0;
    for (const char *c = text; *c; c++) lines += *c == '\n';
    assert_in_range(lines, 8, 25);
    free(text);
    text = printed(&b, nj_bench_print_table);
    assert_non_null(strstr(text, "skipped: too much"));
    free(text);
}

/* ---- Parts of other rooms ---- */

/* Contents are finite, are read by what comes after, and never enter the prefix index. */
static void synthetic_pages_are_never_shared(void **state)
{
    enum { LENGTH = 200 };
    nj_model *m;
    nj_engine *e;
    nj_sequence *s, *t;
    nj_session *session;
    nj_error err = { 0 };
    const float *logits;
    int32_t prompt[LENGTH + 10] = { 0 }; /* what the filled positions have as tokens */
    nj_engine_stats stats;
    (void)state;
    if (nj_model_open(&m, MODEL, NULL, &err)) fail_msg("%s", err.text);
    if (nj_engine_new(&e, m, &(nj_engine_options){ .isa = -1, .threads = 2, .context = 512 }, &err))
        fail_msg("%s", err.text);
    assert_int_equal(nj_sequence_new(e, &s, &err), 0);
    assert_int_equal(nj_sequence_fill(e, s, 513, &err), -EOVERFLOW);
    assert_int_equal(nj_sequence_fill(e, s, LENGTH, &err), 0);
    assert_int_equal(nj_sequence_length(s), LENGTH);
    assert_int_equal(nj_sequence_fill(e, s, LENGTH, &err), -EINVAL);
    for (int i = 0; i < 100; i++) { /* past the ends of two pages */
        assert_int_equal(nj_engine_step(e, &(nj_row){ .sequence = s, .logits = true }, 1, &logits, &err), 0);
        for (uint32_t v = 0; v < nj_model_info_of(m)->vocab; v++) assert_true(isfinite(logits[v]));
    }
    nj_engine_stats_read(e, &stats);
    assert_true(stats.weight_bytes > 0 && stats.kv_values > 0);
    const nj_request r = { .prompt = prompt,
                           .prompt_len = LENGTH + 10,
                           .max_tokens = 1,
                           .ignore_eos = true,
                           .sampling = { .top_p = 1, .typical_p = 1, .repeat_penalty = 1 } };
    assert_int_equal(nj_session_new(e, &r, &session, &err), 0);
    while (nj_engine_run(e, &err) > 0) {
    }
    nj_engine_stats_read(e, &stats);
    assert_int_equal(stats.prefix_rows_saved, 0);
    nj_sequence_truncate(e, s, 10); /* within what was made up */
    assert_int_equal(nj_sequence_length(s), 10);
    assert_int_equal(nj_sequence_new(e, &t, &err), 0);
    assert_int_equal(nj_engine_step(e, &(nj_row){ .sequence = t, .logits = true }, 1, &logits, &err), 0);
    nj_sequence_free(e, s);
    nj_sequence_free(e, t);
    nj_session_free(e, session);
    nj_engine_free(e);
    nj_model_close(m);
}

/* A budget that is too small leaves the sequence empty and usable. */
static void synthetic_pages_respect_the_budget(void **state)
{
    nj_model *m;
    nj_engine *e;
    nj_sequence *s;
    nj_error err = { 0 };
    const float *logits;
    (void)state;
    if (nj_model_open(&m, MODEL, NULL, &err)) fail_msg("%s", err.text);
    const nj_engine_options opt = { .isa = -1, .threads = 1, .context = 100000, .kv_bytes_max = 1 << 20 };
    if (nj_engine_new(&e, m, &opt, &err)) fail_msg("%s", err.text);
    assert_int_equal(nj_sequence_new(e, &s, &err), 0);
    assert_int_equal(nj_sequence_fill(e, s, 100000, &err), -ENOSPC);
    assert_int_equal(nj_sequence_length(s), 0);
    assert_int_equal(nj_engine_step(e, &(nj_row){ .sequence = s, .logits = true }, 1, &logits, &err), 0);
    nj_sequence_free(e, s);
    nj_engine_free(e);
    nj_model_close(m);
}

/* Attention covers the cache row by row, but rows of a step read it together; the output matrix is for logits. */
static void steps_count_the_bytes_they_need(void **state)
{
    enum { CTX = 100, ROWS = 3 };
    nj_model *m;
    nj_engine *e;
    nj_sequence *s;
    nj_error err = { 0 };
    const float *logits;
    nj_engine_stats stats;
    nj_row row[ROWS];
    (void)state;
    if (nj_model_open(&m, MODEL, NULL, &err)) fail_msg("%s", err.text);
    if (nj_engine_new(&e, m, &(nj_engine_options){ .isa = -1, .threads = 1, .context = 512 }, &err))
        fail_msg("%s", err.text);
    assert_int_equal(nj_sequence_new(e, &s, &err), 0);
    assert_int_equal(nj_sequence_fill(e, s, CTX, &err), 0);
    for (int i = 0; i < ROWS; i++) row[i] = (nj_row){ .sequence = s };
    assert_int_equal(nj_engine_step(e, row, ROWS, &logits, &err), 0);
    nj_engine_stats_read(e, &stats);
    uint64_t each = nj_model_info_of(m)->kv_values_per_token;
    assert_int_equal(stats.kv_values, each * (ROWS * CTX + 1 + 2 + 3));
    assert_int_equal(stats.kv_read, each * (CTX + ROWS));
    uint64_t without_logits = stats.weight_bytes;
    row[0].logits = true;
    assert_int_equal(nj_engine_step(e, row, 1, &logits, &err), 0);
    nj_engine_stats_read(e, &stats);
    assert_true(stats.weight_bytes - without_logits <= nj_model_info_of(m)->bytes_per_token);
    row[0].logits = false;
    without_logits = stats.weight_bytes;
    assert_int_equal(nj_engine_step(e, row, 1, &logits, &err), 0);
    nj_engine_stats_read(e, &stats);
    uint64_t output = sizeof(float) * nj_model_info_of(m)->vocab * nj_model_info_of(m)->d_model;
    assert_true(stats.weight_bytes - without_logits <= nj_model_info_of(m)->bytes_per_token - output);
    nj_sequence_free(e, s);
    nj_engine_free(e);
    nj_model_close(m);
}

/* Sums over what every worker read: all bytes, wherever a pass begins and however many workers there are. */
static void probes_give_rates(void **state)
{
    nj_pool *pool;
    nj_probe *p;
    nj_error err = { 0 };
    (void)state;
    assert_int_equal(nj_pool_new(&pool, 3, &err), 0);
    assert_int_equal(nj_probe_new(&p, pool, UINT64_C(130) << 20, &err), 0);
    assert_int_equal(nj_probe_bytes(p), UINT64_C(128) << 20);
    for (int i = 0; i < 10; i++) assert_true(nj_probe_read(p, pool, i * UINT64_C(7) << 20) > 0);
    assert_true(nj_probe_read(p, pool, UINT64_MAX) > 0);
    for (int k = 0; k < NJ_PEAK_COUNT; k++) {
        double rate = nj_probe_peak(pool, (nj_peak)k);
        assert_true(isfinite(rate) && rate >= 0);
        bool avx2 = k == NJ_PEAK_F32_AVX2 || k == NJ_PEAK_I8_AVX2;
        if (avx2 && nj_kernels_get(NJ_ISA_AVX2)) assert_true(rate > 0);
        if (k == NJ_PEAK_I8_AMX) assert_int_equal(rate > 0, nj_kernels_get(NJ_ISA_AMX) != NULL);
    }
    nj_probe_free(p);
    nj_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peer_table_is_understood),
        cmocka_unit_test(peer_json_is_understood),
        cmocka_unit_test(peer_words_are_understood),
        cmocka_unit_test(peer_nonsense_is_refused),
        cmocka_unit_test(peer_figures_are_bounded),
        cmocka_unit_test(peer_is_run_and_its_status_checked),
        cmocka_unit_test(cancelled_peer_is_ended),
        cmocka_unit_test(cancelled_peer_is_ended_though_its_output_is),
        cmocka_unit_test(peer_medians_are_kept_by_kind),
        cmocka_unit_test(plan_has_all_combinations),
        cmocka_unit_test(too_many_settings_are_refused),
        cmocka_unit_test(figures_count_what_the_work_needs),
        cmocka_unit_test(json_has_the_promised_members),
        cmocka_unit_test(report_is_a_short_table_with_ratios),
        cmocka_unit_test(synthetic_pages_are_never_shared),
        cmocka_unit_test(synthetic_pages_respect_the_budget),
        cmocka_unit_test(steps_count_the_bytes_they_need),
        cmocka_unit_test(probes_give_rates),
    };
    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
