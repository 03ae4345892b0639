/* The sampler against exact probabilities, with fixed seeds, and its edge cases. */
#include "engine/sampler.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { DRAWS = 20000, BIG = 50000 };

static const nj_sampling plain = { .temperature = 1, .top_p = 1, .typical_p = 1, .repeat_penalty = 1, .seed = 7 };

/* Logits of probabilities 0.4, 0.3, 0.15, 0.1, 0.05 (shifted, as a softmax doesn't mind). */
static const float five_p[5] = { 0.4f, 0.3f, 0.15f, 0.1f, 0.05f };

static void five(float *logits)
{
    for (int i = 0; i < 5; i++) logits[i] = logf(five_p[i]) + 3;
}

static nj_sampler *sampler(nj_sampling p, int32_t vocab)
{
    nj_sampler *s = NULL;
    nj_error err = { 0 };
    if (nj_sampler_new(&s, &p, vocab, &err)) fail_msg("%s", err.text);
    return s;
}

/* Draws from the five logits and compares each share with `want` within five standard deviations. */
static void expect_shares(nj_sampling p, const double *want)
{
    float logits[5];
    int hits[5] = { 0 };
    five(logits);
    nj_sampler *s = sampler(p, 5);
    for (int i = 0; i < DRAWS; i++) hits[nj_sampler_pick(s, logits)]++;
    for (int i = 0; i < 5; i++) {
        double sd = sqrt(want[i] * (1 - want[i]) / DRAWS), share = (double)hits[i] / DRAWS;
        if (want[i] == 0) assert_int_equal(hits[i], 0);
        if (fabs(share - want[i]) > 5 * sd + 1e-9) fail_msg("token %d: share %.4f, expected %.4f", i, share, want[i]);
    }
    nj_sampler_free(s);
}

static void plain_draws_follow_the_softmax(void **state)
{
    (void)state;
    expect_shares(plain, (double[]){ 0.4, 0.3, 0.15, 0.1, 0.05 });
}

static void temperature_sharpens_and_flattens(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        nj_sampling p = plain;
        double want[5], total = 0;
        p.temperature = t ? 2.0f : 0.5f;
        for (int i = 0; i < 5; i++) total += want[i] = pow((double)five_p[i], 1 / (double)p.temperature);
        for (int i = 0; i < 5; i++) want[i] /= total;
        expect_shares(p, want);
    }
}

static void top_k_keeps_the_k_likeliest(void **state)
{
    (void)state;
    nj_sampling p = plain;
    p.top_k = 2;
    expect_shares(p, (double[]){ 4 / 7., 3 / 7., 0, 0, 0 });
}

/* 0.4 + 0.3 falls short of 0.75, so the third token is in as well. */
static void top_p_keeps_the_smallest_nucleus(void **state)
{
    (void)state;
    nj_sampling p = plain;
    p.top_p = 0.75f;
    expect_shares(p, (double[]){ 0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0, 0 });
    p.top_p = 0;
    expect_shares(p, (double[]){ 1, 0, 0, 0, 0 });
}

static void min_p_is_relative_to_the_likeliest(void **state)
{
    (void)state;
    nj_sampling p = plain;
    p.min_p = 0.3f; /* 0.12 */
    expect_shares(p, (double[]){ 0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0, 0 });
}

/* Entropy 1.39 nats; surprises 0.92 1.20 1.90 2.30 3.00, so the order is token 1, 0, 2, 3, 4. */
static void typical_p_prefers_expected_surprise(void **state)
{
    (void)state;
    nj_sampling p = plain;
    p.typical_p = 0.25f;
    expect_shares(p, (double[]){ 0, 1, 0, 0, 0 });
    p.typical_p = 0.65f;
    expect_shares(p, (double[]){ 4 / 7., 3 / 7., 0, 0, 0 });
}

/* The cuts see the model's own probabilities: a high temperature brings no cut token back. */
static void temperature_comes_after_the_cuts(void **state)
{
    (void)state;
    nj_sampling p = plain;
    p.min_p = 0.3f;
    p.temperature = 1000;
    expect_shares(p, (double[]){ 1 / 3., 1 / 3., 1 / 3., 0, 0 });
}

static void greedy_takes_the_lowest_of_equals(void **state)
{
    (void)state;
    nj_sampling p = plain;
    p.temperature = 0;
    nj_sampler *s = sampler(p, 5);
    assert_int_equal(nj_sampler_pick(s, (float[]){ 1, 9, 3, 9, 9 }), 1);
    assert_int_equal(nj_sampler_pick(s, (float[]){ NAN, -INFINITY, NAN, -5, -5 }), 3);
    assert_int_equal(nj_sampler_pick(s, (float[]){ NAN, NAN, NAN, NAN, NAN }), 0);
    nj_sampler_free(s);
}

static void bias_moves_a_token(void **state)
{
    (void)state;
    nj_logit_bias bias[] = { { 4, 100 }, { 0, -100 } };
    nj_sampling p = plain;
    p.bias = bias;
    p.bias_count = 2;
    float logits[5];
    five(logits);
    nj_sampler *s = sampler(p, 5);
    memset(bias, 0, sizeof bias); /* it has its own copy */
    for (int i = 0; i < 100; i++) assert_int_equal(nj_sampler_pick(s, logits), 4);
    nj_sampler_free(s);
}

static void penalties_follow_their_formulas(void **state)
{
    (void)state;
    nj_sampling p = plain;
    p.temperature = 0;
    p.repeat_penalty = 2;
    nj_sampler *s = sampler(p, 3);
    float logits[3] = { 4, 3, -1 };
    assert_int_equal(nj_sampler_pick(s, logits), 0);
    nj_sampler_accept(s, 0); /* 4 / 2 = 2 */
    assert_int_equal(nj_sampler_pick(s, logits), 1);
    nj_sampler_accept(s, 1); /* 3 / 2 */
    assert_int_equal(nj_sampler_pick(s, logits), 0);
    nj_sampler_accept(s, 2);                                             /* -1 * 2 */
    assert_int_equal(nj_sampler_pick(s, (float[]){ -3, -4.5f, -2 }), 2); /* -6, -9, -4 */
    nj_sampler_free(s);

    p.repeat_penalty = 1;
    p.presence_penalty = 0.25f;
    p.frequency_penalty = 0.5f;
    s = sampler(p, 2);
    nj_sampler_accept(s, 0);
    assert_int_equal(nj_sampler_pick(s, (float[]){ 2, 1.5f }), 1); /* 2 - 0.25 - 0.5 < 1.5 */
    assert_int_equal(nj_sampler_pick(s, (float[]){ 2, 1 }), 0);
    nj_sampler_accept(s, 0);
    assert_int_equal(nj_sampler_pick(s, (float[]){ 2, 1 }), 1); /* 2 - 0.25 - 1 < 1 */
    nj_sampler_free(s);
}

static void penalties_forget_outside_the_window(void **state)
{
    (void)state;
    nj_sampling p = plain;
    p.temperature = 0;
    p.presence_penalty = 10;
    p.penalty_window = 2;
    nj_sampler *s = sampler(p, 4);
    float logits[4] = { 4, 3, 2, 1 };
    nj_sampler_accept(s, 0);
    nj_sampler_accept(s, 0);
    assert_int_equal(nj_sampler_pick(s, logits), 1);
    nj_sampler_accept(s, 1);
    assert_int_equal(nj_sampler_pick(s, logits), 2); /* the second 0 is still seen */
    nj_sampler_accept(s, 1);
    assert_int_equal(nj_sampler_pick(s, logits), 0);
    nj_sampler_free(s);
}

static void same_seed_same_tokens(void **state)
{
    (void)state;
    nj_sampling p = plain;
    float logits[5];
    five(logits);
    nj_sampler *a = sampler(p, 5), *b = sampler(p, 5);
    p.seed = 8;
    nj_sampler *c = sampler(p, 5);
    int differ = 0;
    for (int i = 0; i < 200; i++) {
        int32_t t = nj_sampler_pick(a, logits);
        assert_int_equal(nj_sampler_pick(b, logits), t);
        differ += nj_sampler_pick(c, logits) != t;
    }
    assert_in_range(differ, 100, 190); /* 1 - sum p^2 = 0.715 of 200 */
    nj_sampler_free(a);
    nj_sampler_free(b);
    nj_sampler_free(c);
}

/* The draw over `n` tokens that a plain full sort would make possible, for comparison with the heaps. */
typedef struct ranked {
    float logit;
    int32_t id;
} ranked;

static int by_rank(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static void large_cuts_equal_those_of_a_full_sort(void **state)
{
    (void)state;
    float *logits = malloc(BIG * sizeof *logits);
    ranked *sorted = malloc(BIG * sizeof *sorted);
    bool *allowed = malloc(BIG);
    srand(3);
    for (int round = 0; round < 6; round++) {
        double total = 0, mass = 0;
        for (int i = 0; i < BIG; i++) {
            logits[i] = (float)(rand() % 1000) / 1000 * (round % 2 ? 20 : 3); /* many equal values, steep and flat */
            sorted[i] = (ranked){ logits[i], i };
            total += exp((double)logits[i]);
        }
        qsort(sorted, BIG, sizeof *sorted, by_rank);
        nj_sampling p = plain;
        if (round < 2) p.top_k = 100;
        if (round >= 2) p.top_p = round < 4 ? 0.5f : 0.99f;
        memset(allowed, 0, BIG);
        for (int i = 0; i < BIG && (p.top_k ? i < 100 : i == 0 || mass < (double)p.top_p * total); i++) {
            allowed[sorted[i].id] = true;
            mass += exp((double)sorted[i].logit);
        }
        nj_sampler *s = sampler(p, BIG);
        for (int i = 0; i < 60; i++) assert_true(allowed[nj_sampler_pick(s, logits)]);
        nj_sampler_free(s);
    }
    free(logits);
    free(sorted);
    free(allowed);
}

static void odd_logits_neither_crash_nor_win(void **state)
{
    (void)state;
    nj_sampling p = plain;
    p.top_k = 3;
    p.top_p = 0.9f;
    p.typical_p = 0.9f;
    p.min_p = 0.1f;
    p.repeat_penalty = 1.1f;
    nj_sampler *s = sampler(p, 4);
    nj_sampler_accept(s, 1);
    assert_int_equal(nj_sampler_pick(s, (float[]){ NAN, -INFINITY, 1, NAN }), 2);
    assert_int_equal(nj_sampler_pick(s, (float[]){ 0, INFINITY, 1, NAN }), 1);
    assert_int_equal(nj_sampler_pick(s, (float[]){ NAN, NAN, NAN, NAN }), 0);
    assert_int_equal(nj_sampler_pick(s, (float[]){ -FLT_MAX, -FLT_MAX, -FLT_MAX, FLT_MAX }), 3);
    assert_in_range(nj_sampler_pick(s, (float[]){ INFINITY, INFINITY, INFINITY, INFINITY }), 0, 3);
    nj_sampler_free(s);
    p = plain;
    p.temperature = FLT_MIN;
    s = sampler(p, 4);
    assert_int_equal(nj_sampler_pick(s, (float[]){ 1, 2, 3, 2.9f }), 2);
    nj_sampler_free(s);
}

static void settings_outside_their_range_are_refused(void **state)
{
    (void)state;
    nj_logit_bias far = { 5, 1 }, endless = { 1, INFINITY };
    nj_sampling bad[12];
    const char *const field[] = { "temperature", "temperature",    "temperature",      "top_p",
                                  "top_p",       "min_p",          "typical_p",        "repeat_penalty",
                                  "presence",    "penalty_window", "logit_bias names", "logit_bias of" };
    for (size_t i = 0; i < NJ_COUNT(bad); i++) bad[i] = plain;
    bad[0].temperature = -1;
    bad[1].temperature = NAN;
    bad[2].temperature = INFINITY;
    bad[3].top_p = 1.5f;
    bad[4].top_p = NAN;
    bad[5].min_p = -0.1f;
    bad[6].typical_p = 2;
    bad[7].repeat_penalty = 0;
    bad[8].presence_penalty = NAN;
    bad[9].penalty_window = UINT32_MAX;
    bad[10].bias = &far, bad[10].bias_count = 1;
    bad[11].bias = &endless, bad[11].bias_count = 1;
    for (size_t i = 0; i < NJ_COUNT(bad); i++) {
        nj_sampler *s = NULL;
        nj_error err = { 0 };
        assert_int_equal(nj_sampler_new(&s, &bad[i], 5, &err), -EINVAL);
        if (!strstr(err.text, field[i])) fail_msg("%s is not named in: %s", field[i], err.text);
    }
}

static void logprobs_are_those_of_the_softmax(void **state)
{
    (void)state;
    float logits[5], lp;
    nj_top top[7];
    five(logits);
    nj_logprobs(logits, 5, 3, &lp, top, 7);
    assert_true(fabs((double)lp - log(0.1)) < 1e-5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(top[i].token, i);
        assert_true(fabs((double)top[i].logprob - log((double)five_p[i])) < 1e-5);
    }
    assert_int_equal(top[5].token, -1);
    nj_logprobs((float[]){ 1, 5, NAN, 5, -INFINITY, 2 }, 6, 4, &lp, top, 3);
    assert_true(lp == NJ_LOGPROB_MIN);
    assert_int_equal(top[0].token, 1);
    assert_int_equal(top[1].token, 3);
    assert_int_equal(top[2].token, 5);
    nj_logprobs((float[]){ NAN, NAN }, 2, 1, &lp, NULL, 0);
    assert_true(lp == NJ_LOGPROB_MIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_draws_follow_the_softmax),
        cmocka_unit_test(temperature_sharpens_and_flattens),
        cmocka_unit_test(top_k_keeps_the_k_likeliest),
        cmocka_unit_test(top_p_keeps_the_smallest_nucleus),
        cmocka_unit_test(min_p_is_relative_to_the_likeliest),
        cmocka_unit_test(typical_p_prefers_expected_surprise),
        cmocka_unit_test(temperature_comes_after_the_cuts),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(bias_moves_a_token),
        cmocka_unit_test(penalties_follow_their_formulas),
        cmocka_unit_test(penalties_forget_outside_the_window),
        cmocka_unit_test(same_seed_same_tokens),
        cmocka_unit_test(large_cuts_equal_those_of_a_full_sort),
        cmocka_unit_test(odd_logits_neither_crash_nor_win),
        cmocka_unit_test(settings_outside_their_range_are_refused),
        cmocka_unit_test(logprobs_are_those_of_the_softmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
