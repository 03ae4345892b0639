/* Errors, text buffers, growing arrays, the clock and the border of UTF-8 characters. */
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "numa/nj_base.h"

static void fail_fills_the_error_and_drops_an_old_remedy(void **state)
{
    nj_error err = { .remedy = "old" };
    (void)state;
    assert_int_equal(nj_fail(&err, -EINVAL, "%s: %d layers", "a.gguf", 0), -EINVAL);
    assert_int_equal(err.code, -EINVAL);
    assert_string_equal(err.text, "a.gguf: 0 layers");
    assert_string_equal(err.remedy, "");
    assert_int_equal(nj_remedy(&err, "Fetch it %s.", "again"), -EINVAL);
    assert_string_equal(err.remedy, "Fetch it again.");
}

static void error_without_a_place_still_gives_its_code(void **state)
{
    (void)state;
    assert_int_equal(nj_fail(NULL, -EIO, "x"), -EIO);
    assert_int_equal(nj_remedy(NULL, "x"), -EINVAL);
    assert_int_equal(nj_error_prefix(NULL, "x"), -EINVAL);
}

static void prefixes_stack_from_the_inside_out(void **state)
{
    nj_error err;
    (void)state;
    nj_fail(&err, -EINVAL, "not a number");
    assert_int_equal(nj_error_prefix(&err, "line %d", 3), -EINVAL);
    nj_error_prefix(&err, "in.jsonl");
    assert_string_equal(err.text, "in.jsonl: line 3: not a number");
}

static void long_message_is_cut_not_overrun(void **state)
{
    char text[2000];
    nj_error err;
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    nj_fail(&err, -EINVAL, "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    nj_error_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    nj_error_prefix(&err, "here");
    assert_memory_equal(err.text, "here: xxx", 9);
    nj_remedy(&err, "%s", text);
    assert_int_equal(strlen(err.remedy), sizeof err.remedy - 1);
}

static void buffer_keeps_every_byte_and_ends_in_nul(void **state)
{
    nj_buf b = { 0 };
    (void)state;
    nj_buf_str(&b, "ab");
    nj_buf_char(&b, '\0');
    nj_buf_add(&b, "cd", 2);
    nj_buf_add(&b, NULL, 0);
    nj_buf_printf(&b, "%03d", 7);
    assert_int_equal(b.failed, 0);
    assert_int_equal(b.len, 8);
    assert_memory_equal(b.data, "ab\0cd007", 9);
    for (int i = 0; i < 5000; i++) nj_buf_printf(&b, "%d,", i);
    assert_int_equal(b.failed, 0);
    assert_string_equal(b.data + b.len - 10, "4998,4999,");
    nj_buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    nj_buf_free(&b);
    assert_null(b.data);
}

static void bounded_buffer_fails_once_and_for_all(void **state)
{
    nj_buf b = { .max = 4 };
    (void)state;
    nj_buf_str(&b, "1234");
    assert_int_equal(b.failed, 0);
    nj_buf_printf(&b, "%d", 5);
    assert_int_equal(b.failed, -E2BIG);
    nj_buf_clear(&b);
    assert_int_equal(b.failed, 0);
    nj_buf_str(&b, "12345");
    nj_buf_char(&b, '1'); /* would fit, but the chain is broken */
    assert_int_equal(b.failed, -E2BIG);
    assert_int_equal(b.len, 0);
    nj_buf_free(&b);
    assert_int_equal(b.max, 4);
}

static void impossible_length_is_refused_before_allocation(void **state)
{
    nj_buf b = { 0 };
    (void)state;
    nj_buf_str(&b, "x");
    nj_buf_add(&b, "y", SIZE_MAX - 1);
    assert_int_equal(b.failed, -E2BIG);
    assert_string_equal(b.data, "x");
    nj_buf_free(&b);
}

static void array_grows_keeping_its_elements(void **state)
{
    uint32_t *a = NULL;
    size_t cap = 0;
    (void)state;
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(nj_array_grow(&a, &cap, i + 1, sizeof *a), 0);
        a[i] = i;
    }
    assert_true(cap >= 1000 && cap < 4000);
    for (uint32_t i = 0; i < 1000; i++) assert_int_equal(a[i], i);
    uint32_t *before = a;
    size_t cap_before = cap;
    assert_int_equal(nj_array_grow(&a, &cap, SIZE_MAX, sizeof *a), -ENOMEM);
    assert_int_equal(nj_array_grow(&a, &cap, SIZE_MAX / 4, sizeof *a), -ENOMEM);
    assert_ptr_equal(a, before);
    assert_int_equal(cap, cap_before);
    free(a);
}

static void new_array_is_zero_and_checks_its_size(void **state)
{
    volatile size_t huge = SIZE_MAX / 2; /* volatile: keeps the compiler from warning about the very thing tested */
    (void)state;
    uint64_t *a = nj_array_new(100, sizeof *a);
    assert_non_null(a);
    for (int i = 0; i < 100; i++) assert_true(a[i] == 0);
    free(a);
    assert_null(nj_array_new(huge, 8));
    assert_null(nj_array_new(0, 8));
}

static void clock_never_goes_back(void **state)
{
    (void)state;
    uint64_t last = nj_now_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t now = nj_now_ns();
        assert_true(now >= last);
        last = now;
    }
}

static void utf8_prefix_never_ends_inside_a_character(void **state)
{
    static const char *const whole[] = { "", "a", "\u00e9", "a\u20ac", "\U0001F319" };
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(whole); i++)
        assert_int_equal(nj_utf8_whole(whole[i], strlen(whole[i])), strlen(whole[i]));
    const char *text = "x\U0001F319";
    assert_int_equal(nj_utf8_whole(text, 1), 1);
    for (size_t len = 2; len < 5; len++) assert_int_equal(nj_utf8_whole(text, len), 1);
    assert_int_equal(nj_utf8_whole(text, 5), 5);
}

static void invalid_utf8_is_not_waited_for(void **state)
{
    (void)state;
    assert_int_equal(nj_utf8_whole("\xff", 1), 1);
    assert_int_equal(nj_utf8_whole("\xc0", 1), 1); /* starts no character of any length */
    assert_int_equal(nj_utf8_whole("a\x80", 2), 2);
    assert_int_equal(nj_utf8_whole("\x80\x80\x80\x80\x80", 5), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_fills_the_error_and_drops_an_old_remedy),
        cmocka_unit_test(error_without_a_place_still_gives_its_code),
        cmocka_unit_test(prefixes_stack_from_the_inside_out),
        cmocka_unit_test(long_message_is_cut_not_overrun),
        cmocka_unit_test(buffer_keeps_every_byte_and_ends_in_nul),
        cmocka_unit_test(bounded_buffer_fails_once_and_for_all),
        cmocka_unit_test(impossible_length_is_refused_before_allocation),
        cmocka_unit_test(array_grows_keeping_its_elements),
        cmocka_unit_test(new_array_is_zero_and_checks_its_size),
        cmocka_unit_test(clock_never_goes_back),
        cmocka_unit_test(utf8_prefix_never_ends_inside_a_character),
        cmocka_unit_test(invalid_utf8_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
