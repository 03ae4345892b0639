/* The layer program against the float64 reference: every architecture variant, however the prompt is cut into steps. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/nj_engine.h"

#define GOLDEN "../shared/golden/logits/" /* all variants */
#define OWN    "tests/data/logits/"       /* the first three, which between them use every op */

static const char *const variants[] = { "gemma2",     "phi3-longrope", "qwen3moe",  "llama", "llama-linear",
                                        "llama-tied", "llama3",        "mixtral",   "phi3",  "qwen2",
                                        "qwen2moe",   "qwen3",         "qwen3-yarn" };

enum { TOKENS_MAX = 64 };

typedef struct golden {
    nj_model *model;
    int32_t token[TOKENS_MAX];
    uint32_t n, vocab;
    float *expected;  /* [n][vocab] */
    float *got;       /* [n][vocab] */
    double deviation; /* standard deviation of the expected logits */
} golden;

static const char *directory(void)
{
    return access(GOLDEN "tokens.txt", R_OK) == 0 ? GOLDEN : OWN;
}

static size_t variant_count(void)
{
    return strcmp(directory(), GOLDEN) == 0 ? NJ_COUNT(variants) : 3;
}

static void all_variants_are_here(void **state)
{
    (void)state;
    if (variant_count() == NJ_COUNT(variants)) return;
    print_message("SKIP logits of 10 variants: ../shared/golden is absent\n");
    skip();
}

static void golden_open(golden *g, const char *name)
{
    char path[256];
    nj_error err = { 0 };
    *g = (golden){ 0 };
    snprintf(path, sizeof path, "%stokens.txt", directory());
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (g->n < TOKENS_MAX && fscanf(f, "%d", &g->token[g->n]) == 1) g->n++;
    fclose(f);
    snprintf(path, sizeof path, "%s%s.gguf", directory(), name);
    if (nj_model_open(&g->model, path, NULL, &err)) fail_msg("%s", err.text);
    g->vocab = nj_model_info_of(g->model)->vocab;
    size_t count = (size_t)g->n * g->vocab;
    g->expected = malloc(count * sizeof(float));
    g->got = malloc(count * sizeof(float));
    snprintf(path, sizeof path, "%s%s.logits.f32", directory(), name);
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(g->expected, sizeof(float), count, f), count);
    fclose(f);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        sum += g->expected[i];
        squares += (double)g->expected[i] * g->expected[i];
    }
    g->deviation = sqrt(squares / count - sum / count * (sum / count));
}

static void golden_close(golden *g)
{
    nj_model_close(g->model);
    free(g->expected);
    free(g->got);
}

/* Computes all positions in steps of `chunk` rows. */
static void compute(golden *g, uint32_t chunk, const nj_engine_options *opt)
{
    nj_engine *e;
    nj_sequence *s;
    nj_error err = { 0 };
    nj_row row[TOKENS_MAX];
    const float *logits;
    if (nj_engine_new(&e, g->model, opt, &err)) fail_msg("%s", err.text);
    assert_int_equal(nj_sequence_new(e, &s, &err), 0);
    for (uint32_t at = 0; at < g->n; at += chunk) {
        uint32_t n = g->n - at < chunk ? g->n - at : chunk;
        for (uint32_t i = 0; i < n; i++) row[i] = (nj_row){ .sequence = s, .token = g->token[at + i], .logits = true };
        if (nj_engine_step(e, row, n, &logits, &err)) fail_msg("%s", err.text);
        memcpy(g->got + (size_t)at * g->vocab, logits, (size_t)n * g->vocab * sizeof(float));
    }
    nj_sequence_free(e, s);
    nj_engine_free(e);
}

static double worst_error(const golden *g)
{
    double worst = 0;
    for (size_t i = 0; i < (size_t)g->n * g->vocab; i++) {
        double error = fabs((double)g->got[i] - (double)g->expected[i]) / g->deviation;
        if (!(error <= worst)) worst = error; /* NaN is the worst */
    }
    return worst;
}

static void check_all(uint32_t chunk, uint32_t kv_type, double limit)
{
    nj_engine_options opt = { .isa = -1, .threads = 2, .kv_type = kv_type, .kv_type_set = true };
    for (size_t i = 0; i < variant_count(); i++) {
        golden g;
        golden_open(&g, variants[i]);
        compute(&g, chunk, &opt);
        double error = worst_error(&g);
        print_message("%-14s chunk %2u  kv %-4s  worst error %.2e of %.0e standard deviations\n", variants[i], chunk,
                      nj_format_name(kv_type), error, limit);
        assert_true(error <= limit);
        golden_close(&g);
    }
}

static void whole_prompts_match_the_reference(void **state)
{
    (void)state;
    check_all(TOKENS_MAX, NJ_F32, 2e-4);
}

static void token_by_token_matches_the_reference(void **state)
{
    (void)state;
    check_all(1, NJ_F32, 2e-4);
}

static void chunks_of_seven_match_the_reference(void **state)
{
    (void)state;
    check_all(7, NJ_F32, 2e-4);
}

static void a_half_precision_cache_stays_close(void **state)
{
    (void)state;
    check_all(TOKENS_MAX, NJ_F16, 5e-3);
}

/* The same bits for any chunk, thread count and ISA tier. */
static void logits_do_not_depend_on_how_they_are_computed(void **state)
{
    (void)state;
    for (size_t i = 0; i < variant_count(); i++) {
        golden g;
        golden_open(&g, variants[i]);
        size_t bytes = (size_t)g.n * g.vocab * sizeof(float);
        float *first = malloc(bytes);
        compute(&g, TOKENS_MAX, &(nj_engine_options){ .isa = NJ_ISA_SCALAR, .threads = 1 });
        memcpy(first, g.got, bytes);
        for (int isa = 0; isa < NJ_ISA_COUNT; isa++) {
            if (!nj_kernels_get((nj_isa)isa)) continue;
            for (uint32_t threads = 1; threads <= 3; threads++) {
                compute(&g, threads == 1 ? 1 : 5 * threads, &(nj_engine_options){ .isa = isa, .threads = threads });
                assert_memory_equal(first, g.got, bytes);
            }
        }
        free(first);
        golden_close(&g);
    }
}

/* Truncation forgets: what follows is computed as if the dropped tokens had never been there. */
static void a_truncated_sequence_goes_on_as_if_nothing_had_been(void **state)
{
    (void)state;
    golden g;
    nj_engine *e;
    nj_sequence *s;
    const float *logits;
    nj_row row[TOKENS_MAX];
    golden_open(&g, "gemma2");
    assert_int_equal(nj_engine_new(&e, g.model, &(nj_engine_options){ .isa = -1, .kv_type_set = true }, NULL), 0);
    assert_int_equal(nj_sequence_new(e, &s, NULL), 0);
    for (uint32_t i = 0; i < g.n; i++)
        row[i] = (nj_row){ .sequence = s, .token = g.token[g.n - 1 - i], .logits = false };
    for (uint32_t i = 0; i < 10; i++) row[i].token = g.token[i];
    assert_int_equal(nj_engine_step(e, row, g.n, &logits, NULL), 0);
    nj_sequence_truncate(e, s, 10);
    uint32_t from = nj_sequence_length(s);
    assert_true(from <= 10);
    for (uint32_t i = from; i < g.n; i++)
        row[i - from] = (nj_row){ .sequence = s, .token = g.token[i], .logits = true };
    assert_int_equal(nj_engine_step(e, row, g.n - from, &logits, NULL), 0);
    memcpy(g.got, g.expected, (size_t)g.n * g.vocab * sizeof(float));
    memcpy(g.got + (size_t)from * g.vocab, logits, (size_t)(g.n - from) * g.vocab * sizeof(float));
    assert_true(worst_error(&g) <= 2e-4);
    nj_sequence_free(e, s);
    nj_engine_free(e);
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_variants_are_here),
        cmocka_unit_test(whole_prompts_match_the_reference),
        cmocka_unit_test(token_by_token_matches_the_reference),
        cmocka_unit_test(chunks_of_seven_match_the_reference),
        cmocka_unit_test(a_half_precision_cache_stays_close),
        cmocka_unit_test(logits_do_not_depend_on_how_they_are_computed),
        cmocka_unit_test(a_truncated_sequence_goes_on_as_if_nothing_had_been),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
