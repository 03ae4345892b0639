/* Requests through the scheduler: the same text whatever runs beside them, shared prefixes, scarce pages, endings. */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/nj_engine.h"

#define MODEL        "tests/data/logits/qwen3moe.gguf"
#define WINDOW_MODEL "tests/data/logits/gemma2.gguf"

enum { REQUESTS = 12, PROMPT_MAX = 300 };

static nj_model *open_model(const char *path)
{
    nj_model *m;
    nj_error err = { 0 };
    if (nj_model_open(&m, path, NULL, &err)) fail_msg("%s", err.text);
    return m;
}

static nj_engine *new_engine(const nj_model *m, uint32_t threads, uint32_t rows_max, uint64_t kv_bytes_max)
{
    nj_engine *e;
    nj_error err = { 0 };
    nj_engine_options opt = { .isa = -1, .threads = threads, .rows_max = rows_max, .kv_bytes_max = kv_bytes_max };
    if (nj_engine_new(&e, m, &opt, &err)) fail_msg("%s", err.text);
    return e;
}

/* Deterministic prompts of 3 to 290 tokens; every other one begins with the same 150. */
static uint32_t make_prompt(uint32_t i, int32_t prompt[PROMPT_MAX])
{
    uint32_t n = 3 + i * 26, state = 12345;
    for (uint32_t k = 0; k < n; k++) {
        if (k == 150 || (i % 2 && k == 0)) state = 777 * (i + 1);
        state = state * 1664525u + 1013904223u;
        prompt[k] = (int32_t)(state >> 16) % 300;
    }
    return n;
}

static nj_session *submit(nj_engine *e, uint32_t i, uint32_t max_tokens)
{
    int32_t prompt[PROMPT_MAX];
    nj_session *s;
    nj_error err = { 0 };
    nj_request r = { .prompt = prompt,
                     .max_tokens = max_tokens,
                     .ignore_eos = true,
                     .sampling = { .temperature = i % 3 ? 1.0f : 0.0f,
                                   .top_p = 0.9f,
                                   .typical_p = 1,
                                   .repeat_penalty = 1.1f,
                                   .penalty_window = 64,
                                   .seed = i } };
    r.prompt_len = make_prompt(i, prompt);
    if (nj_session_new(e, &r, &s, &err)) fail_msg("%s", err.text);
    return s;
}

static void run_all(nj_engine *e)
{
    nj_error err = { 0 };
    int running;
    for (int steps = 0; (running = nj_engine_run(e, &err)) > 0; steps++) assert_true(steps < 100000);
    if (running < 0) fail_msg("%s", err.text);
}

static void take_ids(const nj_session *s, int32_t *ids, size_t max)
{
    size_t n;
    const nj_token_out *out = nj_session_tokens(s, &n);
    assert_int_equal(n, max);
    for (size_t i = 0; i < n; i++) ids[i] = out[i].token;
}

enum { ANSWER = 40 };

/* The answers of all requests, each computed alone on a fresh engine. */
static void answer_alone(const nj_model *m, int32_t ids[REQUESTS][ANSWER])
{
    for (uint32_t i = 0; i < REQUESTS; i++) {
        nj_engine *e = new_engine(m, 1, 0, 1 << 28);
        nj_session *s = submit(e, i, ANSWER);
        run_all(e);
        take_ids(s, ids[i], ANSWER);
        nj_engine_free(e);
    }
}

/* Returns how often a request lost its pages. */
static uint64_t answers_are_equal_beside_others(const char *path, uint32_t threads, uint32_t rows_max,
                                                uint64_t kv_bytes)
{
    nj_engine_stats stats;
    int32_t alone[REQUESTS][ANSWER], together[ANSWER];
    nj_session *s[REQUESTS];
    nj_model *m = open_model(path);
    answer_alone(m, alone);
    nj_engine *e = new_engine(m, threads, rows_max, kv_bytes);
    for (uint32_t i = 0; i < REQUESTS / 2; i++) s[i] = submit(e, i, ANSWER);
    for (int step = 0; step < 5; step++) assert_true(nj_engine_run(e, NULL) > 0);
    for (uint32_t i = REQUESTS; i-- > REQUESTS / 2;)
        s[i] = submit(e, i, ANSWER); /* others arrive later, in another order */
    run_all(e);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        assert_int_equal(nj_session_finish(s[i]), NJ_FINISH_LENGTH);
        take_ids(s[i], together, ANSWER);
        assert_memory_equal(alone[i], together, sizeof together);
    }
    nj_engine_stats_read(e, &stats);
    nj_engine_free(e);
    nj_model_close(m);
    return stats.preemptions;
}

static void answers_do_not_depend_on_what_runs_beside(void **state)
{
    (void)state;
    answers_are_equal_beside_others(MODEL, 2, 0, 1 << 28);
    answers_are_equal_beside_others(MODEL, 1, 13, 1 << 28);
}

static void answers_do_not_depend_on_what_runs_beside_with_windows(void **state)
{
    (void)state;
    answers_are_equal_beside_others(WINDOW_MODEL, 2, 37, 1 << 28);
}

/* A cache that holds few of the requests at a time: some lose their pages and are computed again, to the same bits. */
static void answers_survive_scarce_pages(void **state)
{
    (void)state;
    nj_model *m = open_model(MODEL);
    uint64_t per_token = nj_model_info_of(m)->kv_values_per_token * 2;
    nj_model_close(m);
    assert_true(answers_are_equal_beside_others(MODEL, 2, 64, per_token * 64 * 7) > 0);
}

static void answers_survive_scarce_pages_with_windows(void **state)
{
    (void)state;
    nj_model *m = open_model(WINDOW_MODEL);
    uint64_t per_token = nj_model_info_of(m)->kv_values_per_token * 2;
    nj_model_close(m);
    assert_true(answers_are_equal_beside_others(WINDOW_MODEL, 2, 64, per_token * 64 * 5) > 0);
}

/* Bytes of one page of the model's only cache group, as the engine counts them. */
static uint64_t page_bytes(const nj_model *m)
{
    return nj_model_info_of(m)->kv_values_per_token * 2 * 64 + 64;
}

static nj_session *submit_greedy(nj_engine *e, uint32_t prompt_len, uint32_t max_tokens)
{
    int32_t prompt[PROMPT_MAX];
    nj_session *s;
    nj_request r = { .prompt = prompt,
                     .prompt_len = prompt_len,
                     .max_tokens = max_tokens,
                     .ignore_eos = true,
                     .sampling = { .top_p = 1, .typical_p = 1, .repeat_penalty = 1 } };
    for (uint32_t i = 0; i < prompt_len; i++) prompt[i] = (int32_t)(i * 37 + 5) % 300;
    assert_int_equal(nj_session_new(e, &r, &s, NULL), 0);
    return s;
}

/* Twins share their pages: what one of them can finish alone, it can finish beside the other. */
static void equal_requests_share_what_they_compute(void **state)
{
    (void)state;
    nj_model *m = open_model(MODEL);
    nj_engine *e = new_engine(m, 1, 64, 6 * page_bytes(m));
    nj_session *a = submit_greedy(e, 20, 150), *b = submit_greedy(e, 20, 360); /* 380 positions: all six pages */
    run_all(e);
    assert_int_equal(nj_session_finish(a), NJ_FINISH_LENGTH);
    assert_int_equal(nj_session_finish(b), NJ_FINISH_LENGTH);
    nj_engine_free(e);
    nj_model_close(m);
}

/* A window of 64 never needs more than two pages and a step's worth, however long the answer. */
static void a_window_bounds_the_memory_of_a_long_answer(void **state)
{
    (void)state;
    nj_model *m;
    const char *window = "attention.sliding_window=64";
    assert_int_equal(nj_model_open(&m, MODEL, &(nj_model_options){ .set = &window, .set_count = 1 }, NULL), 0);
    nj_engine *e = new_engine(m, 1, 64, 4 * page_bytes(m));
    nj_session *s = submit_greedy(e, 10, 1000);
    run_all(e);
    assert_int_equal(nj_session_finish(s), NJ_FINISH_LENGTH);
    nj_engine_free(e);
    nj_model_close(m);
}

static void a_cancelled_request_gives_its_pages_back(void **state)
{
    (void)state;
    nj_model *m = open_model(MODEL);
    nj_engine *e = new_engine(m, 1, 400, 5 * page_bytes(m));
    nj_session *a = submit_greedy(e, 250, 50);
    assert_int_equal(nj_engine_run(e, NULL), 1);
    nj_session_cancel(a);
    nj_session *b = submit(e, 11, 5); /* 289 tokens: all five pages */
    run_all(e);
    assert_int_equal(nj_session_finish(b), NJ_FINISH_LENGTH);
    nj_engine_free(e);
    nj_model_close(m);
}

static void an_impossible_engine_is_refused(void **state)
{
    (void)state;
    nj_model *m = open_model(MODEL);
    nj_engine *e = NULL;
    nj_error err = { 0 };
    assert_int_equal(nj_engine_new(&e, m, &(nj_engine_options){ .isa = -1, .kv_type = NJ_Q4_0 }, &err), -EINVAL);
    assert_non_null(strstr(err.text, "q4_0"));
    assert_int_equal(nj_engine_new(&e, m, &(nj_engine_options){ .isa = -1, .kv_type = NJ_Q8_0 }, &err), -EINVAL);
    assert_non_null(strstr(err.text, "heads of 16"));
    assert_int_equal(nj_engine_new(&e, m, &(nj_engine_options){ .isa = -1, .rows_max = 1 << 20 }, &err), -EINVAL);
    for (int isa = 0; isa < NJ_ISA_COUNT; isa++)
        if (!nj_kernels_get((nj_isa)isa))
            assert_int_equal(nj_engine_new(&e, m, &(nj_engine_options){ .isa = isa }, &err), -ENOTSUP);
    nj_model_close(m);
}

static void a_common_prefix_is_computed_once(void **state)
{
    (void)state;
    nj_model *m = open_model(MODEL);
    nj_engine *e = new_engine(m, 2, 64, 1 << 28);
    nj_engine_stats stats;
    uint32_t rows = 0;
    for (uint32_t i = 0; i < 4; i++) { /* four times the same prompt of 263 tokens, at once */
        nj_session *s = submit(e, 10, 1);
        rows += nj_session_prompt_tokens(s);
    }
    run_all(e);
    nj_engine_stats_read(e, &stats);
    assert_int_equal(stats.prefix_rows_saved, 3 * 256); /* whole pages of 64 */
    assert_int_equal(stats.prompt_rows, rows - 3 * 256);
    nj_engine_free(e);
    nj_model_close(m);
}

static void a_request_that_can_never_fit_ends_with_an_error_and_others_go_on(void **state)
{
    (void)state;
    nj_model *m = open_model(MODEL);
    uint64_t page = nj_model_info_of(m)->kv_values_per_token * 2 * 64 + 4096;
    nj_engine *e = new_engine(m, 1, 0, 2 * page);
    nj_session *large = submit(e, 11, 4), *small = submit(e, 1, 4);
    run_all(e);
    assert_int_equal(nj_session_finish(large), NJ_FINISH_ERROR);
    assert_non_null(strstr(nj_session_error(large), "KV cache"));
    assert_int_equal(nj_session_finish(small), NJ_FINISH_LENGTH);
    nj_engine_free(e);
    nj_model_close(m);
}

static void a_cancelled_request_stops_and_the_rest_go_on(void **state)
{
    (void)state;
    nj_model *m = open_model(MODEL);
    nj_engine *e = new_engine(m, 1, 0, 1 << 28);
    nj_session *a = submit(e, 2, 1000), *b = submit(e, 3, 5);
    assert_int_equal(nj_engine_run(e, NULL), 2);
    nj_session_cancel(a);
    run_all(e);
    assert_int_equal(nj_session_finish(a), NJ_FINISH_CANCELLED);
    assert_int_equal(nj_session_finish(b), NJ_FINISH_LENGTH);
    nj_session_free(e, a);
    nj_engine_free(e); /* frees b */
    nj_model_close(m);
}

static void a_full_context_ends_the_answer(void **state)
{
    (void)state;
    nj_model *m = open_model(MODEL);
    nj_engine *e;
    assert_int_equal(nj_engine_new(&e, m, &(nj_engine_options){ .isa = -1, .context = 100 }, NULL), 0);
    nj_session *s = submit(e, 2, 0);
    run_all(e);
    size_t n;
    nj_session_tokens(s, &n);
    assert_int_equal(nj_session_finish(s), NJ_FINISH_LENGTH);
    assert_int_equal(n + nj_session_prompt_tokens(s), 100);
    int32_t prompt[PROMPT_MAX] = { 0 };
    nj_error err = { 0 };
    assert_int_equal(nj_session_new(e, &(nj_request){ .prompt = prompt, .prompt_len = 100 }, &s, &err), -EINVAL);
    assert_non_null(strstr(err.text, "context"));
    assert_int_equal(nj_session_new(e, &(nj_request){ .prompt = prompt, .prompt_len = 0 }, &s, &err), -EINVAL);
    prompt[0] = 320;
    assert_int_equal(nj_session_new(e, &(nj_request){ .prompt = prompt, .prompt_len = 1 }, &s, &err), -EINVAL);
    nj_engine_free(e);
    nj_model_close(m);
}

static void log_probabilities_come_with_the_tokens(void **state)
{
    (void)state;
    nj_model *m = open_model(MODEL);
    nj_engine *e = new_engine(m, 1, 0, 1 << 28);
    int32_t prompt[] = { 5, 17, 9 };
    nj_session *s;
    nj_request r = { .prompt = prompt,
                     .prompt_len = 3,
                     .max_tokens = 6,
                     .ignore_eos = true,
                     .logprobs = true,
                     .top_logprobs = 3,
                     .sampling = { .top_p = 1, .typical_p = 1, .repeat_penalty = 1 } };
    assert_int_equal(nj_session_new(e, &r, &s, NULL), 0);
    run_all(e);
    size_t n;
    const nj_token_out *out = nj_session_tokens(s, &n);
    assert_int_equal(n, 6);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(out[i].token, out[i].top[0].token); /* greedy takes the likeliest */
        assert_true(out[i].logprob == out[i].top[0].logprob && out[i].logprob < 0);
        assert_true(out[i].top[0].logprob >= out[i].top[1].logprob && out[i].top[1].logprob >= out[i].top[2].logprob);
    }
    nj_engine_free(e);
    nj_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_do_not_depend_on_what_runs_beside),
        cmocka_unit_test(answers_do_not_depend_on_what_runs_beside_with_windows),
        cmocka_unit_test(answers_survive_scarce_pages),
        cmocka_unit_test(answers_survive_scarce_pages_with_windows),
        cmocka_unit_test(equal_requests_share_what_they_compute),
        cmocka_unit_test(a_window_bounds_the_memory_of_a_long_answer),
        cmocka_unit_test(a_cancelled_request_gives_its_pages_back),
        cmocka_unit_test(an_impossible_engine_is_refused),
        cmocka_unit_test(a_common_prefix_is_computed_once),
        cmocka_unit_test(a_request_that_can_never_fit_ends_with_an_error_and_others_go_on),
        cmocka_unit_test(a_cancelled_request_stops_and_the_rest_go_on),
        cmocka_unit_test(a_full_context_ends_the_answer),
        cmocka_unit_test(log_probabilities_come_with_the_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
