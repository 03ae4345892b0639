/* The text of an answer, stop strings across token borders, broken UTF-8, and the repetition detector. */
#include "engine/answer.h"
#include "engine/loop.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static nj_answer answer(const char *const *stop, size_t count)
{
    nj_answer a;
    nj_error err = { 0 };
    if (nj_answer_init(&a, stop, count, &err)) fail_msg("%s", err.text);
    return a;
}

static void add(nj_answer *a, const char *text)
{
    assert_int_equal(nj_answer_add(a, text, strlen(text)), 0);
}

static void text_without_stops_comes_at_once(void **state)
{
    (void)state;
    nj_answer a = answer(NULL, 0);
    assert_string_equal(a.text.data, "");
    add(&a, "Good ");
    assert_string_equal(a.text.data, "Good ");
    add(&a, "night");
    assert_string_equal(a.text.data, "Good night");
    assert_int_equal(a.raw_bytes, 10);
    nj_answer_free(&a);
}

static void half_a_character_is_held_back(void **state)
{
    (void)state;
    nj_answer a = answer(NULL, 0);
    add(&a, "a\xF0\x9F");
    assert_string_equal(a.text.data, "a");
    add(&a, "\x8C\x99"
            "b\xE2\x82");
    assert_string_equal(a.text.data, "a\xF0\x9F\x8C\x99"
                                     "b");
    assert_int_equal(nj_answer_end(&a), 0);
    assert_string_equal(a.text.data, "a\xF0\x9F\x8C\x99"
                                     "b\xEF\xBF\xBD");
    nj_answer_free(&a);
}

#define R "\xEF\xBF\xBD"
/* The counts of replacement characters are those of the Unicode standard's own example and of surrogates. */
static void bytes_that_are_not_utf8_become_replacement_characters(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } c[] = {
        { "a\xF1\x80\x80\xE1\x80\xC2"
          "b\x80"
          "c\x80\xBF"
          "d",
          "a" R R R "b" R "c" R R "d" },
        { "\xED\xA0\x80", R R R },
        { "\xC0\xAF\xE0\x80\xBF", R R R R R },
        { "\xF4\x91\x92\x93\xFF"
          "A",
          R R R R R "A" },
        { "\xF4\x8F\xBF\xBF\xE0\xA0\x80", "\xF4\x8F\xBF\xBF\xE0\xA0\x80" },
    };
    for (size_t i = 0; i < NJ_COUNT(c); i++) {
        nj_answer a = answer(NULL, 0);
        add(&a, c[i].in);
        assert_int_equal(nj_answer_end(&a), 0);
        assert_string_equal(a.text.data, c[i].out);
        nj_answer_free(&a);
    }
}

static void stop_is_found_across_tokens_and_cut_away(void **state)
{
    (void)state;
    nj_answer a = answer((const char *[]){ "\n\nUser:" }, 1);
    add(&a, "Yes.\n");
    assert_string_equal(a.text.data, "Yes.");
    add(&a, "\nUs");
    assert_string_equal(a.text.data, "Yes.");
    assert_false(a.stopped);
    add(&a, "er: and more");
    assert_true(a.stopped);
    add(&a, "ignored");
    assert_int_equal(nj_answer_end(&a), 0);
    assert_string_equal(a.text.data, "Yes.");
    nj_answer_free(&a);
}

static void held_text_is_given_out_when_the_stop_does_not_come(void **state)
{
    (void)state;
    nj_answer a = answer((const char *[]){ "aab", "xyz" }, 2);
    add(&a, "aaaa");
    assert_string_equal(a.text.data, "aa");
    add(&a, "xy");
    assert_string_equal(a.text.data, "aaaa");
    add(&a, "xy");
    assert_string_equal(a.text.data, "aaaaxy");
    assert_int_equal(nj_answer_end(&a), 0);
    assert_false(a.stopped);
    assert_string_equal(a.text.data, "aaaaxyxy");
    nj_answer_free(&a);
}

static void the_stop_completed_first_wins_then_the_longer(void **state)
{
    (void)state;
    nj_answer a = answer((const char *[]){ "abcd", "bc" }, 2);
    add(&a, "xabcd");
    assert_string_equal(a.text.data, "xa");
    nj_answer_free(&a);
    a = answer((const char *[]){ "c", "abc", "bc" }, 3);
    add(&a, "xabcd");
    assert_string_equal(a.text.data, "x");
    nj_answer_free(&a);
}

static void stop_of_several_bytes_per_character(void **state)
{
    (void)state;
    nj_answer a = answer((const char *[]){ "é!" }, 1);
    add(&a, "caf\xC3");
    add(&a, "\xA9");
    assert_string_equal(a.text.data, "caf");
    add(&a, "s");
    assert_string_equal(a.text.data, "cafés");
    add(&a, "é!");
    assert_string_equal(a.text.data, "cafés");
    assert_true(a.stopped);
    nj_answer_free(&a);
}

static void bad_stop_strings_are_refused(void **state)
{
    (void)state;
    nj_answer a;
    nj_error err = { 0 };
    assert_int_equal(nj_answer_init(&a, (const char *[]){ "ok", "" }, 2, &err), -EINVAL);
    assert_int_equal(nj_answer_init(&a, (const char *[]){ "\x80" }, 1, &err), -EINVAL);
    nj_answer_free(&a);
}

/* Over a small alphabet, so that stops and near misses abound: any split gives what the whole gives, what was given out
 * never changes, and the result is what strstr finds. */
static void random_splits_give_the_same_text(void **state)
{
    (void)state;
    static const char *const alphabet[] = { "a", "b", "é", "🌙", "\n" };
    static const char *const stops[][2] = { { "aba", "bb" }, { "éa", "a🌙b" }, { "\n\n", "aaaa" } };
    srand(11);
    int stopped = 0, ran_out = 0;
    for (int round = 0; round < 3000; round++) {
        char text[200] = "";
        const char *const *stop = stops[round % 3];
        for (int i = rand() % 24; i >= 0; i--) strcat(text, alphabet[rand() % 5]);
        const char *end = NULL, *cut = NULL; /* the stop that ends first */
        for (int i = 0; i < 2; i++) {
            const char *at = strstr(text, stop[i]);
            if (at && (!end || at + strlen(stop[i]) < end || (at + strlen(stop[i]) == end && at < cut)))
                cut = at, end = at + strlen(stop[i]);
        }
        nj_answer a = answer(stop, 2);
        for (size_t at = 0, len = strlen(text), n; at < len; at += n) {
            n = 1 + (size_t)rand() % 4;
            if (n > len - at) n = len - at;
            assert_int_equal(nj_answer_add(&a, text + at, n), 0);
            assert_true(a.text.len <= at + n);
            assert_memory_equal(a.text.data, text, a.text.len);
            assert_int_equal(nj_utf8_whole(a.text.data, a.text.len), a.text.len);
        }
        assert_int_equal(nj_answer_end(&a), 0);
        assert_int_equal(a.stopped, cut != NULL);
        assert_int_equal(a.text.len, cut ? (size_t)(cut - text) : strlen(text));
        assert_memory_equal(a.text.data, text, a.text.len);
        stopped += a.stopped;
        ran_out += !a.stopped;
        nj_answer_free(&a);
    }
    assert_true(stopped > 200 && ran_out > 200);
}

/* Bytes of any kind, whole and split: the same, and valid to the last byte. */
static void random_bytes_split_anywhere_give_the_same_text(void **state)
{
    (void)state;
    srand(12);
    for (int round = 0; round < 2000; round++) {
        static const char kinds[] = "ab\x80\xBF\xC3\xE2\xED\xF0\xF4\xFF\x9F\xA0";
        char bytes[64];
        size_t len = (size_t)rand() % sizeof bytes;
        for (size_t i = 0; i < len; i++) bytes[i] = kinds[rand() % (int)(sizeof kinds - 1)];
        nj_answer whole = answer((const char *[]){ "ab" }, 1), split = answer((const char *[]){ "ab" }, 1);
        nj_answer_add(&whole, bytes, len);
        for (size_t i = 0; i < len; i++) nj_answer_add(&split, bytes + i, 1);
        nj_answer_end(&whole);
        nj_answer_end(&split);
        assert_string_equal(whole.text.data, split.text.data);
        assert_int_equal(whole.stopped, split.stopped);
        nj_answer_free(&whole);
        nj_answer_free(&split);
    }
}

/* ---- Loops ---- */

/* Tokens until the detector speaks, or 0 when it keeps silent for `n`. */
static int first_loop(int32_t (*token)(int i, int period), int period, int n)
{
    nj_loop l = { 0 };
    for (int i = 0; i < n; i++)
        if (nj_loop_add(&l, token(i, period))) return i + 1;
    return 0;
}

static int32_t periodic(int i, int period)
{
    return i < 10 ? 1000 + i : (i - 10) % period;
}

static int32_t counted_list(int i, int period)
{
    return i % period ? i % period : 5000 + i / period; /* each item has its own number */
}

static void loops_of_any_period_are_found_in_time(void **state)
{
    (void)state;
    for (int period = 1; period <= NJ_LOOP_PERIOD_MAX; period++) {
        int span = NJ_LOOP_REPEATS * period > NJ_LOOP_SPAN ? NJ_LOOP_REPEATS * period : NJ_LOOP_SPAN;
        assert_int_equal(first_loop(periodic, period, 3000), 10 + span);
    }
}

static void lists_and_longer_periods_are_no_loops(void **state)
{
    (void)state;
    for (int period = 2; period < 60; period++) assert_int_equal(first_loop(counted_list, period, 4000), 0);
    assert_int_equal(first_loop(periodic, NJ_LOOP_PERIOD_MAX + 1, 4000), 0);
}

/* A rule of 80 dashes, a row of 64 zeros, five equal lines of 33 tokens: all of these end. */
static void short_repetition_is_no_loop(void **state)
{
    (void)state;
    nj_loop l = { 0 };
    for (int i = 0; i < 80; i++) assert_false(nj_loop_add(&l, 7));
    assert_false(nj_loop_add(&l, 1));
    for (int i = 0; i < 128; i++) assert_false(nj_loop_add(&l, 8 + i % 2));
    assert_false(nj_loop_add(&l, 1));
    for (int i = 0; i < 5 * 33; i++) assert_false(nj_loop_add(&l, 100 + i % 33));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_without_stops_comes_at_once),
        cmocka_unit_test(half_a_character_is_held_back),
        cmocka_unit_test(bytes_that_are_not_utf8_become_replacement_characters),
        cmocka_unit_test(stop_is_found_across_tokens_and_cut_away),
        cmocka_unit_test(held_text_is_given_out_when_the_stop_does_not_come),
        cmocka_unit_test(the_stop_completed_first_wins_then_the_longer),
        cmocka_unit_test(stop_of_several_bytes_per_character),
        cmocka_unit_test(bad_stop_strings_are_refused),
        cmocka_unit_test(random_splits_give_the_same_text),
        cmocka_unit_test(random_bytes_split_anywhere_give_the_same_text),
        cmocka_unit_test(loops_of_any_period_are_found_in_time),
        cmocka_unit_test(lists_and_longer_periods_are_no_loops),
        cmocka_unit_test(short_repetition_is_no_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
