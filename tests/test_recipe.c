/* Recipes of weight products: quantized models give the same bits however their rows are computed, prompt rows by the
 * wide recipe where there is one, and cached pages are shared by those alone that would compute them alike. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/verbs.h"
#include "engine/engine.h"
#include "tests/amx_emulated.h"

#define NANO "appliance/demo/nano-q8_0.gguf"

enum { TOKENS = 40, PAGE = NJ_KV_PAGE };

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/nightjar-recipe-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

/* ---- Models and engines ---- */

static nj_model *open_model(const char *path)
{
    nj_model *m;
    nj_error err = { 0 };
    if (nj_model_open(&m, path, NULL, &err)) fail_msg("%s", err.text);
    return m;
}

/* A model in another weight type. */
static nj_model *open_quantized(const char *path, const char *type)
{
    char out[96], *argv[] = { "quantize", (char *)path, out, (char *)type, "--allow-requantize", "-q" };
    snprintf(out, sizeof out, "%s/model.gguf", folder);
    assert_int_equal(nj_verb_quantize(NJ_COUNT(argv), argv), 0);
    nj_model *m = open_model(out);
    unlink(out);
    return m;
}

static nj_engine *new_engine(const nj_model *m, const nj_engine_options *opt)
{
    nj_engine *e;
    nj_error err = { 0 };
    if (nj_engine_new(&e, m, opt, &err)) fail_msg("%s", err.text);
    return e;
}

/* A wide recipe for machines that have none: BF16 rows through the F32 kernels. */
static const nj_kernels *base;

static void wide_product(const nj_panels *w, uint32_t begin, uint32_t end, const void *const *x, float *const *y,
                         uint32_t rows)
{
    float *values = malloc(sizeof *values * w->cols);
    const void *row = values;
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t c = 0; c < w->cols; c++) values[c] = nj_bf16_to_f32(((const uint16_t *)x[r])[c]);
        base->linear_f32[w->type](w, begin, end, &row, y + r, 1);
    }
    free(values);
}

static const nj_kernels *wide_kernels(void)
{
    static nj_kernels k;
    base = nj_kernels_get(nj_isa_best());
    k = *base;
    for (int type = 0; type < NJ_TYPE_COUNT; type++)
        k.linear_wide[type] = type != NJ_F32 && k.linear[type] ? wide_product : NULL;
    return &k;
}

static nj_engine *new_wide_engine(const nj_model *m, uint32_t threads, uint32_t rows_max, uint64_t kv_bytes_max)
{
    nj_engine_options opt = { .isa = -1, .threads = threads, .rows_max = rows_max, .kv_bytes_max = kv_bytes_max };
    nj_engine *e = new_engine(m, &opt);
    nj_step_use(&e->step, wide_kernels(), false);
    return e;
}

static int32_t token_at(uint32_t text, uint32_t i)
{
    uint32_t state = (text * 1000 + i + 1) * 2654435761u;
    return (int32_t)((state ^ state >> 15) % 300);
}

/* ---- Logits ---- */

/* Logits of TOKENS rows of a text, in steps of `chunk` rows. */
static void compute(nj_engine *e, uint32_t text, uint32_t chunk, bool prompt, float *out)
{
    nj_sequence *s;
    nj_row row[TOKENS];
    const float *logits;
    uint32_t vocab = e->m->h.vocab;
    assert_int_equal(nj_sequence_new(e, &s, NULL), 0);
    for (uint32_t at = 0; at < TOKENS; at += chunk) {
        uint32_t n = TOKENS - at < chunk ? TOKENS - at : chunk;
        for (uint32_t i = 0; i < n; i++) row[i] = (nj_row){ s, token_at(text, at + i), true, prompt };
        assert_int_equal(nj_engine_step(e, row, n, &logits, NULL), 0);
        memcpy(out + (size_t)at * vocab, logits, sizeof *out * n * vocab);
    }
    nj_sequence_free(e, s);
}

/* Two texts at once, their rows in turn; `first` begins. The second text's rows are of a prompt when `prompt` says so.
 */
static void compute_two(nj_engine *e, uint32_t first, bool prompt, float *out[2])
{
    nj_sequence *s[2];
    nj_row row[2 * TOKENS];
    const float *logits;
    uint32_t vocab = e->m->h.vocab;
    for (int k = 0; k < 2; k++) assert_int_equal(nj_sequence_new(e, &s[k], NULL), 0);
    for (uint32_t i = 0; i < 2 * TOKENS; i++) {
        uint32_t k = (i + first) % 2;
        row[i] = (nj_row){ s[k], token_at(k, i / 2), true, k == 1 && prompt };
    }
    assert_int_equal(nj_engine_step(e, row, 2 * TOKENS, &logits, NULL), 0);
    for (uint32_t i = 0; i < 2 * TOKENS; i++)
        memcpy(out[(i + first) % 2] + (size_t)(i / 2) * vocab, logits + (size_t)i * vocab, sizeof *logits * vocab);
    for (int k = 0; k < 2; k++) nj_sequence_free(e, s[k]);
}

/* Threads, chunks, batches and row order, on each tier, against the reference tier by one thread in one step. */
static void check_bits(const nj_model *m)
{
    static const uint32_t ways[][2] = { { 1, 1 }, { 2, TOKENS }, { 3, 7 }, { 4, 19 } }; /* threads, chunk */
    size_t bytes = sizeof(float) * TOKENS * m->h.vocab;
    float *expected[2] = { malloc(bytes), malloc(bytes) }, *got[2] = { malloc(bytes), malloc(bytes) };
    nj_engine *e = new_engine(m, &(nj_engine_options){ .isa = NJ_ISA_SCALAR, .threads = 1 });
    for (uint32_t k = 0; k < 2; k++) compute(e, k, TOKENS, false, expected[k]);
    nj_engine_free(e);
    for (int isa = 0; isa < NJ_ISA_COUNT; isa++)
        for (size_t i = 0; i < NJ_COUNT(ways) && nj_kernels_get((nj_isa)isa); i++) {
            if (isa == NJ_ISA_SCALAR && i != 2) continue; /* slow, and the reference itself */
            e = new_engine(m, &(nj_engine_options){ .isa = isa, .threads = ways[i][0] });
            compute(e, 0, ways[i][1], false, got[0]);
            assert_memory_equal(got[0], expected[0], bytes);
            compute_two(e, i % 2, false, got);
            for (int k = 0; k < 2; k++) assert_memory_equal(got[k], expected[k], bytes);
            nj_engine_free(e);
        }
    for (int k = 0; k < 2; k++) {
        free(expected[k]);
        free(got[k]);
    }
}

static void bits_do_not_depend_on_how_experts_are_computed(void **state)
{
    (void)state;
    static const char *const types[] = { "q4_k_m", "q3_k", "iq4_nl" };
    nj_model *m = open_model(NANO);
    check_bits(m);
    nj_model_close(m);
    for (size_t i = 0; i < NJ_COUNT(types); i++) {
        m = open_quantized(NANO, types[i]);
        check_bits(m);
        nj_model_close(m);
    }
}

/* gemma2: a tied table, two norms more, windows and softcaps; phi3: fused matrices. */
static void bits_do_not_depend_on_how_dense_layers_are_computed(void **state)
{
    (void)state;
    static const char *const models[] = { "tests/data/logits/gemma2.gguf", "tests/data/logits/phi3-longrope.gguf" };
    static const char *const types[] = { "q8_0", "q4_1", "mxfp4", "f16", "bf16" };
    for (size_t i = 0; i < NJ_COUNT(models) * NJ_COUNT(types); i++) {
        nj_model *m = open_quantized(models[i % 2], types[i / 2]);
        check_bits(m);
        nj_model_close(m);
    }
}

/* Weights of a damaged file may be anything; lists of rows by expert have room for each row once. */
static void experts_of_a_row_differ_also_without_numbers(void **state)
{
    nj_model *m = open_model("tests/data/logits/qwen3moe.gguf");
    nj_engine *e = new_engine(m, &(nj_engine_options){ .isa = -1, .threads = 2, .rows_max = TOKENS });
    float *out = malloc(sizeof *out * TOKENS * m->h.vocab);
    uint32_t used = m->h.experts_used;
    (void)state;
    assert_true(used > 1);
    for (uint32_t i = 0; i < m->h.layers; i++) {
        const nj_panels *router = &m->layer[i].router.panels;
        memset((void *)router->data, 0xff, nj_panels_bytes(router->type, router->rows, router->cols)); /* NaN */
    }
    compute(e, 0, TOKENS, false, out);
    for (uint32_t i = 0; i < TOKENS * used; i++)
        for (uint32_t k = i + 1; k < (i / used + 1) * used; k++)
            assert_int_not_equal(e->step.routing.chosen[i], e->step.routing.chosen[k]);
    free(out);
    nj_engine_free(e);
    nj_model_close(m);
}

/* With F32 activations a quantized model is the F32 model of the same values, to the bit. */
static void f32_activations_leave_the_rounding_of_weights_alone(void **state)
{
    (void)state;
    nj_model *quantized = open_model(NANO), *exact = open_quantized(NANO, "f32");
    size_t bytes = sizeof(float) * TOKENS * exact->h.vocab;
    float *expected = malloc(bytes), *got = malloc(bytes);
    nj_engine *e = new_engine(exact, &(nj_engine_options){ .isa = -1 });
    compute(e, 0, TOKENS, false, expected);
    nj_engine_free(e);
    e = new_engine(quantized, &(nj_engine_options){ .isa = -1, .acts_f32 = true });
    compute(e, 0, 9, true, got);
    assert_memory_equal(got, expected, bytes);
    nj_engine_free(e);
    e = new_engine(quantized, NULL);
    compute(e, 0, 9, true, got);
    assert_memory_not_equal(got, expected, bytes);
    nj_engine_free(e);
    free(expected);
    free(got);
    nj_model_close(exact);
    nj_model_close(quantized);
}

/* Rows of both recipes in one step: each has the bits that it has alone. */
static void check_both_recipes(const nj_model *m)
{
    size_t bytes = sizeof(float) * TOKENS * m->h.vocab;
    float *expected[2] = { malloc(bytes), malloc(bytes) }, *got[2] = { malloc(bytes), malloc(bytes) };
    nj_engine *e = new_wide_engine(m, 1, 0, 0);
    compute(e, 0, TOKENS, false, expected[0]);
    compute(e, 1, TOKENS, true, expected[1]);
    compute(e, 1, TOKENS, false, got[1]);
    assert_memory_not_equal(got[1], expected[1], bytes);
    nj_engine_free(e);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        e = new_wide_engine(m, threads, 0, 0);
        compute_two(e, threads % 2, true, got);
        for (int k = 0; k < 2; k++) assert_memory_equal(got[k], expected[k], bytes);
        compute(e, 1, 3 * threads, true, got[1]);
        assert_memory_equal(got[1], expected[1], bytes);
        nj_engine_free(e);
    }
    e = new_engine(m, NULL); /* generated rows are those of a tier without a wide recipe */
    compute(e, 0, TOKENS, !e->step.has_wide, got[0]);
    if (!e->step.has_wide) assert_memory_equal(got[0], expected[0], bytes);
    nj_engine_free(e);
    for (int k = 0; k < 2; k++) {
        free(expected[k]);
        free(got[k]);
    }
}

static void rows_of_both_recipes_share_a_step(void **state)
{
    (void)state;
    static const char *const types[] = { "q8_0", "f16" };
    nj_model *m = open_model(NANO);
    check_both_recipes(m);
    nj_model_close(m);
    for (size_t i = 0; i < NJ_COUNT(types); i++) {
        m = open_quantized("tests/data/logits/gemma2.gguf", types[i]);
        check_both_recipes(m);
        nj_model_close(m);
    }
}

/* Log probabilities of the first `n` tokens of the held-out text, [n][vocab]. */
static float *text_distribution(nj_engine *e, uint32_t n)
{
    nj_buf text = { 0 };
    nj_tokens tokens = { 0 };
    nj_sequence *s;
    const float *logits;
    uint32_t vocab = e->m->h.vocab;
    float *out = malloc(sizeof *out * n * vocab);
    nj_row *row = calloc(n, sizeof *row);
    assert_int_equal(nj_file_read("tests/data/nano-heldout.txt", 1 << 20, &text, NULL), 0);
    assert_int_equal(nj_tokenize(e->m->tokenizer, text.data, 8 * n, 0, &tokens, NULL), 0);
    assert_true(tokens.len >= n && out && row);
    assert_int_equal(nj_sequence_new(e, &s, NULL), 0);
    for (uint32_t i = 0; i < n; i++) row[i] = (nj_row){ s, tokens.id[i], true, true };
    assert_int_equal(nj_engine_step(e, row, n, &logits, NULL), 0);
    for (uint32_t i = 0; i < n; i++) {
        double total = 0;
        for (uint32_t v = 0; v < vocab; v++) total += exp((double)logits[i * vocab + v]);
        for (uint32_t v = 0; v < vocab; v++) out[i * vocab + v] = logits[i * vocab + v] - (float)log(total);
    }
    nj_sequence_free(e, s);
    free(row);
    free(tokens.id);
    nj_buf_free(&text);
    return out;
}

/* Prompts through the BF16 tiles (emulated where there are none) against F32 activations: at most 1e-4 nats per token.
 */
static void bf16_prompts_keep_the_distribution(void **state)
{
    (void)state;
    enum { N = 96 };
    const nj_kernels *amx = emulated_amx(__func__);
    nj_engine_options opt = { .isa = -1, .acts_f32 = true };
    nj_model *m = open_model(NANO);
    uint32_t vocab = m->h.vocab;
    nj_engine *e = new_engine(m, &opt);
    float *exact = text_distribution(e, N);
    nj_engine_free(e);
    opt.acts_f32 = false;
    e = new_engine(m, &opt);
    nj_step_use(&e->step, amx, false);
    float *wide = text_distribution(e, N);
    nj_engine_free(e);
    double kl = 0;
    for (size_t i = 0; i < (size_t)N * vocab; i++) kl += exp((double)exact[i]) * ((double)exact[i] - (double)wide[i]);
    printf("divergence with BF16 activations: %.2e nats per token, limit 1e-4\n", kl / N);
    assert_true(kl / N <= 1e-4 && kl != 0);
    free(exact);
    free(wide);
    nj_model_close(m);
}

/* ---- Requests ---- */

/* A prompt of `n` tokens of a text, and then those of `more`, greedily answered with `answer` tokens. */
static nj_session *submit_long(nj_engine *e, uint32_t text, uint32_t n, const nj_session *more, bool any_recipe,
                               uint32_t answer)
{
    int32_t prompt[8 * PAGE];
    size_t answered = 0;
    nj_session *s;
    nj_error err = { 0 };
    const nj_token_out *out = more ? nj_session_tokens(more, &answered) : NULL;
    for (uint32_t i = 0; i < n; i++) prompt[i] = token_at(text, i);
    for (size_t i = 0; i < answered; i++) prompt[n + i] = out[i].token;
    nj_request r = { .prompt = prompt,
                     .prompt_len = n + answered,
                     .max_tokens = answer,
                     .ignore_eos = true,
                     .logprobs = true,
                     .any_recipe = any_recipe,
                     .sampling = { .top_p = 1, .typical_p = 1, .repeat_penalty = 1.2f } };
    if (nj_session_new(e, &r, &s, &err)) fail_msg("%s", err.text);
    return s;
}

static nj_session *submit(nj_engine *e, uint32_t text, uint32_t n, const nj_session *more, bool any_recipe)
{
    return submit_long(e, text, n, more, any_recipe, 70);
}

static void run_all(nj_engine *e)
{
    nj_error err = { 0 };
    int running;
    while ((running = nj_engine_run(e, &err)) > 0) {
    }
    if (running < 0) fail_msg("%s", err.text);
}

/* The same tokens with the same log probabilities, to the bit. */
static void assert_same_answer(const nj_session *a, const nj_session *b)
{
    size_t n, k;
    const nj_token_out *x = nj_session_tokens(a, &n), *y = nj_session_tokens(b, &k);
    assert_int_equal(n, k);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(x[i].token, y[i].token);
        assert_memory_equal(&x[i].logprob, &y[i].logprob, sizeof x[i].logprob);
    }
}

static uint64_t rows_saved(const nj_engine *e)
{
    nj_engine_stats stats;
    nj_engine_stats_read(e, &stats);
    return stats.prefix_rows_saved;
}

/* Four requests of three pages each, and room for eight: when each has grown over two, in the midst of the answers, the
 * youngest is thrown out, to be computed again: its prompt as a prompt, its answer as an answer. */
static void answers_keep_their_bits_when_computed_again(void **state)
{
    (void)state;
    enum { REQUESTS = 4 };
    nj_model *m = open_model(NANO);
    nj_session *s[REQUESTS];
    uint64_t page = nj_model_info_of(m)->kv_values_per_token * 2 * PAGE + PAGE;
    nj_engine_stats stats;
    nj_engine *e = new_wide_engine(m, 2, 48, 8 * page);
    for (uint32_t i = 0; i < REQUESTS; i++) s[i] = submit_long(e, i, 40, NULL, false, 130);
    run_all(e);
    nj_engine_stats_read(e, &stats);
    assert_true(stats.preemptions > 0);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        nj_engine *alone = new_wide_engine(m, 1, 0, 1 << 28);
        nj_session *expected = submit_long(alone, i, 40, NULL, false, 130);
        run_all(alone);
        assert_same_answer(s[i], expected);
        nj_engine_free(alone);
    }
    nj_engine_free(e);
    nj_model_close(m);
}

/* A prompt of 100 tokens and an answer of 70: the second page of the two has rows of both recipes. */
static void pages_of_another_recipe_are_not_shared(void **state)
{
    (void)state;
    nj_model *m = open_model(NANO);
    nj_engine *e = new_wide_engine(m, 2, 0, 1 << 28), *alone = new_wide_engine(m, 2, 0, 1 << 28);
    nj_session *first = submit(e, 0, 100, NULL, false);
    run_all(e);
    nj_session *next = submit(e, 0, 100, first, false), *expected = submit(alone, 0, 100, first, false);
    run_all(e);
    run_all(alone);
    assert_int_equal(rows_saved(e), PAGE); /* the prompt's only whole page */
    assert_same_answer(next, expected);
    nj_session *again = submit(e, 0, 100, first, false); /* by now there are pages that a prompt has computed */
    run_all(e);
    assert_int_equal(rows_saved(e), PAGE + 2 * PAGE);
    assert_same_answer(again, expected);
    nj_engine_free(alone);
    nj_engine_free(e);
    nj_model_close(m);
}

static void a_conversation_takes_over_pages_of_any_recipe(void **state)
{
    (void)state;
    nj_model *m = open_model(NANO);
    nj_engine *e = new_wide_engine(m, 2, 0, 1 << 28);
    nj_session *first = submit(e, 0, 100, NULL, true);
    run_all(e);
    nj_session *next = submit(e, 0, 100, first, true);
    run_all(e);
    assert_int_equal(rows_saved(e), 2 * PAGE);
    assert_int_equal(nj_session_finish(next), NJ_FINISH_LENGTH);
    nj_engine_free(e);
    nj_model_close(m);
}

/* Without a wide recipe there is but one, and what was generated serves as a prompt's page. */
static void one_recipe_shares_all_pages(void **state)
{
    (void)state;
    nj_model *m = open_model(NANO);
    nj_engine *e = new_engine(m, &(nj_engine_options){ .isa = NJ_ISA_SCALAR, .threads = 2 });
    nj_session *first = submit(e, 0, 100, NULL, false);
    run_all(e);
    submit(e, 0, 100, first, false);
    run_all(e);
    assert_int_equal(rows_saved(e), 2 * PAGE);
    nj_engine_free(e);
    nj_model_close(m);
}

/* A page's marks: what is computed anew after a truncation is marked anew. */
static void a_truncated_page_is_known_by_its_last_recipe(void **state)
{
    (void)state;
    nj_model *m = open_model(NANO);
    nj_engine *e = new_wide_engine(m, 1, 0, 1 << 28);
    nj_sequence *s;
    nj_row row[PAGE];
    const float *logits;
    assert_int_equal(nj_sequence_new(e, &s, NULL), 0);
    for (uint32_t i = 0; i < PAGE; i++) row[i] = (nj_row){ s, token_at(0, i), false, true };
    assert_int_equal(nj_engine_step(e, row, PAGE, &logits, NULL), 0);
    assert_true(s->wide[0] == UINT64_MAX);
    nj_sequence_truncate(e, s, 10);
    for (uint32_t i = 10; i < PAGE; i++) row[i].prompt = i >= 60;
    assert_int_equal(nj_engine_step(e, row + 10, PAGE - 10, &logits, NULL), 0);
    assert_true(s->wide[0] == (0x3ffu | 0xfull << 60));
    assert_int_equal(e->kv.prefixes, 2);
    nj_sequence_free(e, s);
    nj_engine_free(e);
    nj_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_how_experts_are_computed),
        cmocka_unit_test(bits_do_not_depend_on_how_dense_layers_are_computed),
        cmocka_unit_test(experts_of_a_row_differ_also_without_numbers),
        cmocka_unit_test(f32_activations_leave_the_rounding_of_weights_alone),
        cmocka_unit_test(rows_of_both_recipes_share_a_step),
        cmocka_unit_test(bf16_prompts_keep_the_distribution),
        cmocka_unit_test(answers_keep_their_bits_when_computed_again),
        cmocka_unit_test(pages_of_another_recipe_are_not_shared),
        cmocka_unit_test(a_conversation_takes_over_pages_of_any_recipe),
        cmocka_unit_test(one_recipe_shares_all_pages),
        cmocka_unit_test(a_truncated_page_is_known_by_its_last_recipe),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
