/* Hostile chat templates end in an error within a second, 64 MB and a small stack. Each runs in a process of its own.
 */
#include "tests/test.h"
#include "tests/template_build.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
#else
enum { SANITIZED = 0 };
#endif

enum { STACK_KB = SANITIZED ? 8192 : 1024, DEADLINE_MS = SANITIZED ? 120000 : 1000, MEMORY_KB = 64 << 10 };

typedef struct outcome {
    int rc;
    long ms, kb;
    char text[200];
} outcome;

typedef struct job {
    const char *source;
    size_t len;
    outcome seen;
} job;

static long peak_kb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

static void *run_job(void *arg)
{
    job *j = arg;
    nj_buf out = { 0 };
    nj_error err = { 0 };
    long before = peak_kb();
    uint64_t start = nj_now_ns();
    j->seen.rc = template_run(j->source, j->len, "{\"t\":[1]}", 9, &out, &err);
    j->seen.ms = (long)((nj_now_ns() - start) / 1000000);
    j->seen.kb = peak_kb() - before;
    snprintf(j->seen.text, sizeof j->seen.text, "%.199s", err.text);
    nj_buf_free(&out);
    return NULL;
}

/* In a child, on a thread with a small stack. A crash is a failure named by the source. */
static outcome run_apart(const char *source, size_t len)
{
    int pipe_fd[2], status;
    outcome seen = { 0 };
    assert_int_equal(pipe(pipe_fd), 0);
    pid_t child = fork();
    if (child == 0) {
        job j = { .source = source, .len = len };
        pthread_attr_t attr;
        pthread_t thread;
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, (size_t)STACK_KB << 10);
        if (pthread_create(&thread, &attr, run_job, &j) != 0 || pthread_join(thread, NULL) != 0) _exit(2);
        _exit(write(pipe_fd[1], &j.seen, sizeof j.seen) == (ssize_t)sizeof j.seen ? 0 : 3);
    }
    close(pipe_fd[1]);
    ssize_t got = read(pipe_fd[0], &seen, sizeof seen);
    close(pipe_fd[0]);
    waitpid(child, &status, 0);
    if (got != (ssize_t)sizeof seen || status != 0) fail_msg("%.100s: the process died (status %d)", source, status);
    return seen;
}

/* `code` 0: any error or success will do, as long as it is quick and small. */
static void survives(const char *source, size_t len, int code)
{
    outcome seen = run_apart(source, len);
    if (code && seen.rc != code) fail_msg("%.100s: returned %d (%s), not %d", source, seen.rc, seen.text, code);
    if (seen.ms > DEADLINE_MS) fail_msg("%.100s: took %ld ms", source, seen.ms);
    if (!SANITIZED && seen.kb > MEMORY_KB) fail_msg("%.100s: took %ld KB", source, seen.kb);
}

static void too_big(const char *source)
{
    survives(source, strlen(source), -E2BIG);
}

/* before, then unit `times` times, middle, close `times` times, after. */
static void repeated(const char *before, const char *unit, const char *middle, const char *close, const char *after,
                     int times, int code)
{
    nj_buf b = { 0 };
    nj_buf_str(&b, before);
    for (int i = 0; i < times; i++) nj_buf_str(&b, unit);
    nj_buf_str(&b, middle);
    for (int i = 0; i < times; i++) nj_buf_str(&b, close);
    nj_buf_str(&b, after);
    survives(b.data, b.len, code);
    nj_buf_free(&b);
}

static void endless_loops_end(void **state)
{
    (void)state;
    too_big("{% for i in range(10**9) %}x{% endfor %}");
    too_big("{% for i in range(3000) %}{% for j in range(3000) %}{% endfor %}{% endfor %}");
    too_big("{% for i in range(3000) %}{% for j in range(3000) %}{{ i * j }}{% endfor %}{% endfor %}");
    too_big("{% set l = [1] %}{% for i in l %}{% set _ = l.append(i) %}{% endfor %}");
    too_big("{% for i in range(4000000) if i < 0 %}{% endfor %}");
    too_big("{{ range(10**9) | list }}");
    too_big("{{ range(4000000) | sum }}");
    too_big("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}");
    too_big("{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(100) }}");
    too_big("{% for i in t recursive %}{{ loop(t) }}{% endfor %}");
    too_big("{% for i in range(3000000) %}{{ zz }}{{ zz }}{% endfor %}");
}

static void huge_values_are_refused(void **state)
{
    (void)state;
    too_big("{{ 'a' * 10**9 }}");
    too_big("{{ [1] * 10**9 }}");
    too_big("{{ '%999999999d' % 1 }}");
    too_big("{{ '%.999999f' % 1.5 }}");
    too_big("{{ '{:999999999}'.format(1) }}");
    too_big("{{ 'a'.ljust(999999999) }}{{ 1 }}");
    too_big("{{ 'a' | center(10**12) }}");
    too_big("{{ '1'.zfill(10**10) }}");
    too_big("{{ ('\t' * 1000).expandtabs(10**9) }}");
    too_big("{{ [[[[1]]]] | tojson(indent=100000000) }}");
    too_big("{{ [1] | batch(10**9, 'x') | list }}");
    too_big("{{ [1] | slice(10**9) | list }}");
    too_big("{{ ('a\n' * 100000) | indent(10000) }}");
    too_big("{{ ('a' * 5000000).replace('a', 'b' * 1000) }}");
    too_big("{% set s = 'a' * 10000 %}{{ s | list | join(s) }}");
    too_big("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}");
    too_big("{% set l = [1] %}{% for i in range(100) %}{% set _ = l.extend(l) %}{% endfor %}");
    too_big("{% for i in range(1000000) %}{% macro m() %}{% endmacro %}{% endfor %}");
    too_big("{% set d = {} %}{% for i in range(1000000) %}{% set _ = d.update({i: i}) %}{% endfor %}");
    too_big("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}");
}

static void slow_operations_are_counted(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    print_message("SKIP slow_operations_are_counted: ThreadSanitizer's memmem reads all of the text at each call\n");
    skip();
#endif
    too_big(
        "{% set s = 'a' * 1000000 %}{% set p = 'b' + 'a' * 255 %}{% for i in range(100000) %}{% set x = s.find(p) %}"
        "{% endfor %}");
    too_big(
        "{% set s = 'a' * 1000000 %}{% set p = 'a' * 10000 + 'b' %}{% for i in range(9999) %}{% set x = s.rfind(p) %}"
        "{% endfor %}");
    too_big("{% set s = 'a,' * 1000000 %}{% for i in range(100) %}{% set x = s.split(',') %}{% endfor %}");
    too_big("{% set s = 'a' * 1000000 %}{% set b = 'b' * 1000000 ~ 'a' %}{{ s.strip(b) }}");
    too_big("{% set s = 'a' * 1000000 %}{% set l = [s + '1', s + '2', s + '3'] * 2000 %}{{ l | sort | length }}");
    too_big("{% set s = 'é' * 1000000 %}{% for i in range(1000) %}{% set x = s.upper() %}{% endfor %}");
    too_big("{% set s = 'é' * 1000000 %}{% for i in range(1000000) %}{% set x = s[900000] %}{% endfor %}");
    too_big("{% set s = 'é' * 1000000 %}{% for i in range(1000) %}{% set x = s[::-7] %}{% endfor %}");
    too_big("{% set s = 'é ' * 1000000 %}{% for i in range(100) %}{{ s | wordcount }}{% endfor %}");
    too_big("{% for i in range(1000000) %}{{ i * 0.1 }}{% endfor %}");
    too_big("{% for i in range(1000000) %}{{ 5e-324 * i }}{% endfor %}");
    too_big("{% for i in range(1000000) %}{{ 1e308 | round(300) }}{% endfor %}");
    too_big("{% for i in range(1000000) %}{% set x = '%.300f' % 1e308 %}{% endfor %}");
    too_big("{% for i in range(1000000) %}{{ strftime_now('%c%c%c%c%c%c%c%c%c%c%c%c%c%c') }}{% endfor %}");
}

static void knotted_values_end(void **state)
{
    (void)state;
    too_big("{% set l = [1] %}{% set _ = l.append(l) %}{{ l }}");
    too_big("{% set l = [1] %}{% set _ = l.append(l) %}{{ l | tojson }}");
    too_big("{% set l = [1] %}{% set _ = l.append(l) %}{% set m = [1] %}{% set _ = m.append(m) %}{{ l == m }}");
    too_big("{% set l = [1] %}{% set _ = l.append(l) %}{% set m = [1] %}{% set _ = m.append(m) %}{{ l < m }}");
    too_big("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}");
    too_big(
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}");
    too_big("{% set ns = namespace(l=(1,)) %}{% for i in range(60) %}{% set ns.l = (ns.l, ns.l) %}{% endfor %}"
            "{{ {ns.l: 1} }}");
    too_big("{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
            "{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}");
}

static void deep_templates_are_refused(void **state)
{
    (void)state;
    repeated("{{ ", "(", "1", ")", " }}", 100000, -E2BIG);
    repeated("{{ ", "[", "", "]", " }}", 100000, -E2BIG);
    repeated("{{ ", "{1:", "1", "}", " }}", 100000, -E2BIG);
    repeated("{{ ", "not ", "1 }}", "", "", 100000, -E2BIG);
    repeated("{{ ", "-", "1 }}", "", "", 100000, -E2BIG);
    repeated("{{ ", "1+", "1 }}", "", "", 100000, -E2BIG);
    repeated("{{ x", ".a", " }}", "", "", 100000, -E2BIG);
    repeated("{{ 1", "|abs", " }}", "", "", 100000, -E2BIG);
    repeated("{{ x", "()", " }}", "", "", 100000, -E2BIG);
    repeated("{{ ", "1 if 1 else ", "1 }}", "", "", 50000, -E2BIG);
    repeated("", "{% if 1 %}", "", "{% endif %}", "", 40000, -E2BIG);
    repeated("", "{% for i in [1] %}", "", "{% endfor %}", "", 30000, -E2BIG);
    repeated("", "{% filter upper %}", "", "{% endfilter %}", "", 20000, -E2BIG);
    repeated("{% set ", "(", "a", ")", " = 1 %}", 100000, -E2BIG);
    repeated("{{ ", "1 < ", "1 }}", "", "", 100000, 0);
    repeated("{{ ", "1 ~ ", "1 }}", "", "", 100000, 0);
    repeated("{% if 0 %}", "{% elif 0 %}", "{% endif %}", "", "", 50000, 0);
}

static void long_templates_are_quick(void **state)
{
    (void)state;
    repeated("", "a", "", "", "", (1 << 20) + 1, -E2BIG);
    repeated("", "{#", "", "", "", 300000, -EINVAL);
    repeated("", "{%", "", "", "", 30000, -EINVAL);
    repeated("", "{{", "", "", "", 30000, -EINVAL);
    repeated("{% raw %}", "{% endraw", "", "", "", 80000, -EINVAL);
    repeated("", "{%          ", "", "", "", 20000, -EINVAL);
    repeated("{{ ", "'a' ", "}}", "", "", 100000, 0);
    repeated("{{ dict(", "a=1,", ") }}", "", "", 20000, -EINVAL);
    repeated("", "{{ x }}", "", "", "", 40000, 0);
    repeated("", "\n", "", "", "", 1 << 20, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endless_loops_end),           cmocka_unit_test(huge_values_are_refused),
        cmocka_unit_test(slow_operations_are_counted), cmocka_unit_test(knotted_values_end),
        cmocka_unit_test(deep_templates_are_refused),  cmocka_unit_test(long_templates_are_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
