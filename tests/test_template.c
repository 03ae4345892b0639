/* The chat template: Jinja2's language and errors. Hostile templates: test_template_hostile.c.
 *
 * tests/data/template/language.json holds small templates with what Jinja2 3.1 makes of them, configured as model hubs
 * do; an "error" there is the name of the exception. */
#include "tests/test.h"
#include "tests/template_build.h"

#include <errno.h>
#include <glob.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>

#define LANGUAGE "tests/data/template/language.json"
#define GOLDEN   "../shared/golden/chat"

/* ---- What Jinja2 renders ---- */

static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s can't be read", path);
    nj_buf b = { 0 };
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;) nj_buf_add(&b, chunk, n);
    fclose(f);
    nj_buf_char(&b, '\0');
    *len = b.len - 1;
    return b.data;
}

/* One case: `expected` text or `error`. Returns 1 and prints when it differs. */
static int case_differs(const char *source, size_t len, const char *args, size_t args_len, json_t *wanted)
{
    nj_buf out = { 0 };
    nj_error err = { 0 };
    json_t *expected = json_object_get(wanted, "expected");
    const char *error = json_string_value(json_object_get(wanted, "error"));
    int rc = template_run(source, len, args, args_len, &out, &err), differs;
    if (error)
        differs = rc == 0 || (rc == -EBADMSG) != (strcmp(error, "TemplateError") == 0);
    else
        differs = rc != 0 || out.len != json_string_length(expected) ||
                  (out.len && memcmp(out.data, json_string_value(expected), out.len) != 0);
    if (differs)
        print_message("template: %.300s\n  expected: %s\n  got: %s\n", source,
                      error ? error : json_string_value(expected),
                      rc         ? err.text
                      : out.data ? out.data
                                 : "");
    nj_buf_free(&out);
    return differs;
}

static void language_is_that_of_jinja2(void **state)
{
    (void)state;
    json_error_t why;
    json_t *file = json_load_file(LANGUAGE, JSON_ALLOW_NUL, &why), *one;
    size_t i;
    int bad = 0;
    if (!file) fail_msg("%s: line %d: %s", LANGUAGE, why.line, why.text);
    const char *args = json_string_value(json_object_get(file, "args"));
    json_t *cases = json_object_get(file, "cases");
    assert_true(json_array_size(cases) > 1000);
    json_array_foreach(cases, i, one)
    {
        json_t *source = json_object_get(one, "template");
        bad += case_differs(json_string_value(source), json_string_length(source), args, strlen(args), one);
    }
    if (bad) fail_msg("%d of %zu cases differ", bad, json_array_size(cases));
    json_decref(file);
}

static int golden_file_differs(const char *path, size_t *seen)
{
    json_error_t why;
    char template_path[512];
    size_t len, i;
    json_t *cases = json_load_file(path, JSON_ALLOW_NUL, &why), *one;
    if (!cases) fail_msg("%s: %s", path, why.text);
    snprintf(template_path, sizeof template_path, "%.*s.jinja", (int)(strlen(path) - 5), path);
    char *source = read_file(template_path, &len);
    int bad = 0;
    json_array_foreach(cases, i, one)
    {
        char *args = json_dumps(json_object_get(one, "args"), JSON_COMPACT);
        bad += case_differs(source, len, args, strlen(args), one);
        free(args);
        (*seen)++;
    }
    if (bad) print_message("%s: %d differ\n", path, bad);
    free(source);
    json_decref(cases);
    return bad;
}

static void golden_chats_match_byte_for_byte(void **state)
{
    (void)state;
    glob_t files;
    size_t seen = 0;
    int bad = 0;
    if (glob(GOLDEN "/*.json", 0, NULL, &files) != 0) {
        print_message("SKIP golden_chats_match_byte_for_byte: %s is absent\n", GOLDEN);
        skip();
    }
    for (size_t i = 0; i < files.gl_pathc; i++) bad += golden_file_differs(files.gl_pathv[i], &seen);
    globfree(&files);
    print_message("%zu golden chats\n", seen);
    assert_int_equal(bad, 0);
    assert_true(seen > 0);
}

/* ---- Helpers ---- */

static void renders(const char *source, const char *args, const char *expected)
{
    nj_buf out = { 0 };
    nj_error err = { 0 };
    int rc = template_run(source, strlen(source), args, strlen(args), &out, &err);
    if (rc) fail_msg("%s: %s", source, err.text);
    assert_string_equal(out.data ? out.data : "", expected);
    nj_buf_free(&out);
}

static void fails(const char *source, const char *args, int code, const char *text)
{
    nj_buf out = { 0 };
    nj_error err = { 0 };
    int rc = template_run(source, strlen(source), args, strlen(args), &out, &err);
    if (rc == 0) fail_msg("%s: rendered %s", source, out.data ? out.data : "");
    assert_string_equal(err.text, text);
    assert_int_equal(rc, code);
    assert_int_equal(err.code, code);
    nj_buf_free(&out);
}

/* ---- Errors ---- */

static void errors_name_line_and_reason(void **state)
{
    (void)state;
    fails("a\nb\n{{ x.y }}", "{}", -EINVAL, "chat template, line 3: 'x' is undefined");
    fails("{{ d.a.b }}", "{\"d\":{}}", -EINVAL, "chat template, line 1: 'dict object' has no attribute 'a'");
    fails("\n{% for i in [1] %}\n{{ 1 / (i - 1) }}\n{% endfor %}", "{}", -EINVAL,
          "chat template, line 3: division by zero");
    fails("{{ 'a' + 1 }}", "{}", -EINVAL, "chat template, line 1: '+' does not work between str and int");
    fails("x\n{% if true %}\ny", "{}", -EINVAL, "chat template, line 2: the tag that begins here has no {% endif %}");
    fails("\n\n{{ 1 +\n }}", "{}", -EINVAL,
          "chat template, line 4: expected an expression, got the end of the expression (}})");
    fails("{% include 'a' %}", "{}", -EINVAL,
          "chat template, line 1: {% include %} is not supported in chat templates");
    fails("\n{% wibble %}", "{}", -EINVAL, "chat template, line 2: unknown tag 'wibble'");
    fails("\n{{ 1 | wibble }}", "{}", -EINVAL, "chat template, line 2: there is no filter named 'wibble'");
    fails("{% macro f(a) %}{% endmacro %}\n{{ f(1, 2) }}", "{}", -EINVAL,
          "chat template, line 2: macro 'f' takes not more than 1 argument(s)");
    fails("{{ x }}\xff", "{}", -EINVAL, "chat template, line 1: this is not valid UTF-8");
    fails("{{ 9223372036854775807 + 1 }}", "{}", -ERANGE, "chat template, line 1: an integer grows beyond 64 bits");
}

static void raise_exception_gives_its_own_text(void **state)
{
    (void)state;
    fails("\n{{ raise_exception('Rollen müssen wechseln') }}", "{}", -EBADMSG, "Rollen müssen wechseln");
    nj_buf long_text = { 0 };
    nj_buf_str(&long_text, "{{ raise_exception('ü' * 2000) }}");
    nj_error err;
    nj_buf out = { 0 };
    assert_int_equal(template_run(long_text.data, long_text.len, "{}", 2, &out, &err), -EBADMSG);
    assert_int_equal(strlen(err.text), 1022); /* whole characters */
    nj_buf_free(&long_text);
    nj_buf_free(&out);
}

static void an_unknown_filter_inside_an_if_fails_only_when_reached(void **state)
{
    (void)state;
    renders("{% if x %}{{ 1 | wibble }}{% endif %}{{ 1 | wibble if x else 2 }}", "{}", "2");
    fails("{% if x %}\n{{ 1 | wibble }}{% endif %}", "{\"x\":1}", -EINVAL,
          "chat template, line 2: there is no filter named 'wibble'");
}

static void a_failed_render_writes_nothing(void **state)
{
    (void)state;
    nj_buf out = { 0 };
    nj_error err;
    const char *source = "abc{% set x %}def{{ 1 / 0 }}{% endset %}";
    nj_buf_str(&out, "kept");
    assert_int_equal(template_run(source, strlen(source), "{}", 2, &out, &err), -EINVAL);
    assert_string_equal(out.data, "kept");
    assert_int_equal(template_run("{{ 1 }}", 7, "{}", 2, &out, NULL), 0);
    assert_string_equal(out.data, "kept1");
    nj_buf_free(&out);
}

/* ---- Arguments ---- */

static void arguments_keep_order_last_duplicate_and_huge_integers(void **state)
{
    (void)state;
    renders("{{ d }}", "{\"d\":{\"z\":1,\"a\":2,\"z\":3,\"m\":[]}}", "{'z': 3, 'a': 2, 'm': []}");
    renders(
        "{{ [a, b, c, d] | tojson }}",
        "{\"a\":18446744073709551615,\"b\":-9223372036854775808,\"c\":-9223372036854775809,\"d\":9223372036854775807}",
        "[18446744073709551615, -9223372036854775808, -9223372036854775809, 9223372036854775807]");
    renders("{{ s }} {{ f }} {{ s is string }} {{ a is integer }}",
            "{\"s\":\"99999999999999999999 \\\" 1\",\"f\":1.50,\"a\":99999999999999999999}",
            "99999999999999999999 \" 1 1.5 True True");
    renders("{{ s | length }}", "{\"s\":\"a\\u0000b\"}", "3");
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    fails("x", "[]", -EINVAL, "chat template arguments: they must be a JSON object");
    nj_buf out = { 0 };
    nj_error err;
    assert_int_equal(template_run("x", 1, "{} x", 4, &out, &err), -EINVAL);
    assert_int_equal(template_run("x", 1, "", 0, &out, &err), -EINVAL);
    assert_int_equal(template_run("x", 1, "{\"a\":", 5, &out, &err), -EINVAL);
    assert_memory_equal(err.text, "chat template arguments: line 1: ", 33);
    nj_buf_free(&out);
}

/* ---- Built-ins ---- */

static void every_builtin_is_found_by_its_name(void **state)
{
    (void)state;
    renders("{% for f in 'abs attr batch capitalize center count d default dictsort e escape first float forceescape "
            "format groupby indent int items join last length list lower map max min reject rejectattr replace reverse "
            "round safe select selectattr slice sort string sum title tojson trim truncate unique upper urlencode "
            "wordcount'.split() if f is not filter %}{{ f }} {% endfor %}",
            "{}", "");
    renders(
        "{% for t in '!= < <= == > >= boolean callable defined divisibleby eq equalto escaped even false filter "
        "float ge greaterthan gt in integer iterable le lessthan lower lt mapping ne none number odd sameas sequence "
        "string test true undefined upper'.split() if t is not test %}{{ t }} {% endfor %}",
        "{}", "");
    renders(
        "{% for m in 'capitalize casefold center count endswith expandtabs find format index isalnum isalpha isascii "
        "isdecimal isdigit isidentifier islower isnumeric isspace istitle isupper join ljust lower lstrip partition "
        "removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith "
        "strip swapcase title upper zfill'.split() if ''[m] is not callable %}{{ m }} {% endfor %}",
        "{}", "");
    renders(
        "{% for m in 'clear copy get items keys pop popitem setdefault update values'.split() if {}[m] is not callable "
        "%}{{ m }} {% endfor %}",
        "{}", "");
    renders("{% for m in 'append clear copy count extend index insert pop remove reverse sort'.split() if [][m] is not "
            "callable %}{{ m }} {% endfor %}",
            "{}", "");
    renders("{{ [cycler, dict, joiner, namespace, raise_exception, range, strftime_now] | select('callable') | list | "
            "length }}",
            "{}", "7");
}

static void the_clock_is_the_callers_or_the_present(void **state)
{
    (void)state;
    renders("{{ strftime_now('%Y-%m-%d %H:%M %A') }}", "{}", "2026-11-20 07:00 Friday");
    nj_template *t;
    nj_buf out = { 0 };
    assert_int_equal(nj_template_new(&t, "{{ strftime_now('%Y') | int > 2020 }}", 37, NULL), 0);
    assert_int_equal(nj_template_render(t, "{}", 2, NULL, &out, NULL), 0);
    assert_string_equal(out.data, "True");
    nj_buf_free(&out);
    nj_template_free(t);
}

/* ---- Sharing ---- */

static void *render_often(void *shared)
{
    nj_buf out = { 0 };
    for (int i = 0; i < 200; i++) {
        nj_buf_clear(&out);
        if (nj_template_render(shared, "{\"n\":5}", 7, &TEMPLATE_NOW, &out, NULL) != 0) break;
        if (strcmp(out.data, "0a1a2a3a4a|5") != 0) break;
    }
    bool fine = out.data && strcmp(out.data, "0a1a2a3a4a|5") == 0;
    nj_buf_free(&out);
    return fine ? shared : NULL;
}

static void threads_may_share_a_template(void **state)
{
    (void)state;
    static const char SOURCE[] = "{% macro m(x) %}{{ x ~ {'k': 'a'}['k'] }}{% endmacro %}"
                                 "{% for i in range(n) %}{{ m(i) }}{% endfor %}{{ ('|' 'é' ~ '')[:1] }}"
                                 "{{ 'éüöä' 'x' | length }}";
    nj_template *t;
    pthread_t thread[4];
    void *result;
    assert_int_equal(nj_template_new(&t, SOURCE, sizeof SOURCE - 1, NULL), 0);
    for (size_t i = 0; i < NJ_COUNT(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, render_often, t), 0);
    for (size_t i = 0; i < NJ_COUNT(thread); i++) {
        pthread_join(thread[i], &result);
        assert_ptr_equal(result, t);
    }
    nj_template_free(t);
}

static void freeing_nothing_is_allowed(void **state)
{
    (void)state;
    nj_template_free(NULL);
    nj_template *t = (nj_template *)&t;
    assert_int_equal(nj_template_new(&t, "{{", 2, NULL), -EINVAL);
    assert_null(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(language_is_that_of_jinja2),
        cmocka_unit_test(golden_chats_match_byte_for_byte),
        cmocka_unit_test(errors_name_line_and_reason),
        cmocka_unit_test(raise_exception_gives_its_own_text),
        cmocka_unit_test(an_unknown_filter_inside_an_if_fails_only_when_reached),
        cmocka_unit_test(a_failed_render_writes_nothing),
        cmocka_unit_test(arguments_keep_order_last_duplicate_and_huge_integers),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(every_builtin_is_found_by_its_name),
        cmocka_unit_test(the_clock_is_the_callers_or_the_present),
        cmocka_unit_test(threads_may_share_a_template),
        cmocka_unit_test(freeing_nothing_is_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
