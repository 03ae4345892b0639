/* Lines of any size, the set of ids, the plan of a batch and the durability of its result file. */
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/batch.h"
#include "io/nj_io.h"

static char folder[] = "/tmp/nj_results_XXXXXX", in_path[64], out_path[64];

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(in_path, sizeof in_path, "%s/in", folder);
    snprintf(out_path, sizeof out_path, "%s/out", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(in_path);
    unlink(out_path);
    return rmdir(folder);
}

static int fresh(void **state)
{
    (void)state;
    unlink(in_path);
    unlink(out_path);
    return 0;
}

static void write_bytes(const char *path, const void *bytes, size_t len)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static void expect_text(const char *path, const char *want)
{
    nj_buf b = { 0 };
    nj_error err = { 0 };
    assert_int_equal(nj_file_read(path, 1 << 20, &b, &err), 0);
    assert_string_equal(b.data ? b.data : "", want);
    nj_buf_free(&b);
}

/* ---- Lines ---- */

/* Against a plain split of the same bytes, with lines around the sizes of the reader's chunks and of the limit. */
static void lines_of_any_size_are_read(void **state)
{
    (void)state;
    enum { LIMIT = 300000 };
    static const size_t sizes[] = { 0, 1, 16383, 16384, 262143, 262144, 262145, LIMIT, LIMIT + 1, 2000000, 0, 5 };
    size_t total = 0, at = 0;
    for (size_t i = 0; i < NJ_COUNT(sizes); i++) total += sizes[i] + 1;
    char *all = malloc(total);
    for (size_t i = 0; i < NJ_COUNT(sizes); i++) {
        memset(all + at, 'a' + (int)i, sizes[i]);
        all[at + sizes[i]] = '\n';
        at += sizes[i] + 1;
    }
    write_bytes(in_path, all, total - 1); /* the last line lacks its newline */
    nj_lines l;
    nj_error err = { 0 };
    assert_int_equal(nj_lines_open(&l, in_path, LIMIT, &err), 0);
    for (int pass = 0; pass < 2; pass++) {
        at = 0;
        for (size_t i = 0; i < NJ_COUNT(sizes); i++) {
            bool last = i + 1 == NJ_COUNT(sizes);
            assert_int_equal(nj_lines_next(&l, &err), 1);
            assert_int_equal(l.number, i + 1);
            assert_int_equal(l.offset, at);
            assert_int_equal(l.bytes, sizes[i] + !last);
            assert_int_equal(l.newline, !last);
            assert_int_equal(l.too_long, sizes[i] > LIMIT);
            assert_int_equal(l.len, l.too_long ? 0 : sizes[i]);
            assert_memory_equal(l.text, all + at, l.len);
            assert_int_equal(l.text[l.len], 0);
            at += l.bytes;
        }
        assert_int_equal(nj_lines_next(&l, &err), 0);
        nj_lines_rewind(&l);
    }
    nj_lines_close(&l);
    free(all);
}

static void folders_and_missing_files_are_refused(void **state)
{
    (void)state;
    nj_lines l;
    nj_error err = { 0 };
    assert_int_equal(nj_lines_open(&l, folder, 100, &err), -EINVAL);
    assert_int_equal(nj_lines_open(&l, "/nowhere/at/all", 100, &err), -ENOENT);
    assert_true(strstr(err.text, "/nowhere/at/all"));
}

/* ---- Ids ---- */

static void id_map_holds_what_was_added(void **state)
{
    (void)state;
    enum { N = 50000 };
    nj_idmap m = { 0 };
    char id[32];
    uint64_t value;
    assert_false(nj_idmap_find(&m, nj_fingerprint_of("x", 1), NULL));
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < N; i++) {
            int len = snprintf(id, sizeof id, "request-%d", i);
            assert_int_equal(nj_idmap_add(&m, nj_fingerprint_of(id, (size_t)len), (uint64_t)(i + round)), round);
        }
    assert_int_equal(m.len, N);
    for (int i = 0; i < 2 * N; i++) {
        int len = snprintf(id, sizeof id, "request-%d", i);
        assert_int_equal(nj_idmap_find(&m, nj_fingerprint_of(id, (size_t)len), &value), i < N);
        if (i < N) assert_int_equal(value, i);
    }
    nj_idmap_free(&m);
}

/* Default seeds and request ids come from it: another function would change answers between versions. */
static void fingerprints_never_change(void **state)
{
    (void)state;
    nj_fingerprint a = nj_fingerprint_of("request-1", 9), b = nj_fingerprint_of("request-1\0", 10);
    assert_true(a.a != b.a && a.b != b.b);
    char hex[40];
    snprintf(hex, sizeof hex, "%016" PRIx64 "%016" PRIx64, a.a, a.b);
    assert_string_equal(hex, "a2f3080bc68ed9a0595ca6209b660ef7");
}

/* ---- Results ---- */

#define LINE_A "{\"id\":\"1\",\"custom_id\":\"a\",\"response\":{},\"error\":null}\n"
#define LINE_B "{\"id\":\"2\",\"custom_id\":\"b\",\"response\":null,\"error\":{\"code\":\"x\"}}\n"
#define LINE_7 "{\"id\":\"3\",\"custom_id\":null,\"response\":null,\"error\":{\"line\":7}}\n"

static void results_are_found_again(void **state)
{
    (void)state;
    nj_results r;
    nj_error err = { 0 };
    write_text(out_path, LINE_A LINE_7 LINE_B);
    assert_int_equal(nj_results_open(&r, out_path, in_path, &err), 0);
    assert_int_equal(r.done.len, 3);
    assert_true(nj_idmap_find(&r.done, nj_result_key("a", 0), NULL));
    assert_true(nj_idmap_find(&r.done, nj_result_key("b", 0), NULL));
    assert_true(nj_idmap_find(&r.done, nj_result_key(NULL, 7), NULL));
    assert_false(nj_idmap_find(&r.done, nj_result_key("7", 0), NULL));
    assert_false(nj_idmap_find(&r.done, nj_result_key(NULL, 8), NULL));
    assert_int_equal(r.cut_bytes, 0);
    nj_results_close(&r);
    expect_text(out_path, LINE_A LINE_7 LINE_B);
}

static void every_torn_tail_is_cut_back_to_whole_lines(void **state)
{
    (void)state;
    const char *all = LINE_A LINE_B;
    for (size_t len = strlen(LINE_A); len < strlen(all); len++) {
        nj_results r;
        nj_error err = { 0 };
        write_bytes(out_path, all, len);
        if (nj_results_open(&r, out_path, in_path, &err)) fail_msg("%zu bytes: %s", len, err.text);
        assert_int_equal(r.done.len, 1);
        assert_int_equal(r.cut_bytes, len - strlen(LINE_A));
        nj_results_close(&r);
        expect_text(out_path, LINE_A);
    }
}

static void other_files_are_refused_and_left_alone(void **state)
{
    (void)state;
    static const char *const other[] = { "Dear diary",
                                         "Dear diary\n",
                                         LINE_A "a note\n" LINE_B,
                                         "{\"custom_id\":\"a\"}\n",
                                         LINE_A "[1,2,3]\n",
                                         ("{\"id\":\"1\"}\n" LINE_A),
                                         "\n" };
    for (size_t i = 0; i < NJ_COUNT(other); i++) {
        nj_results r;
        nj_error err = { 0 };
        write_text(out_path, other[i]);
        if (nj_results_open(&r, out_path, in_path, &err) != -EINVAL) fail_msg("taken: %s", other[i]);
        assert_true(strstr(err.text, out_path) && err.remedy[0]);
        expect_text(out_path, other[i]);
    }
}

static void input_as_output_and_second_writers_are_refused(void **state)
{
    (void)state;
    nj_results a, b;
    nj_error err = { 0 };
    write_text(in_path, "");
    assert_int_equal(nj_results_open(&a, in_path, in_path, &err), -EINVAL);
    assert_int_equal(nj_results_open(&a, out_path, in_path, &err), 0);
    assert_int_equal(nj_results_open(&b, out_path, in_path, &err), -EBUSY);
    nj_results_close(&a);
    assert_int_equal(nj_results_open(&b, out_path, in_path, &err), 0);
    nj_results_close(&b);
}

static void add_line(nj_results *r, int i)
{
    char id[16];
    snprintf(id, sizeof id, "id%d", i);
    json_t *line = json_pack("{s:s,s:s,s:n,s:{}}", "id", "x", "custom_id", id, "response", "error");
    assert_int_equal(nj_results_add(r, line), 0);
    json_decref(line);
}

/* The limit falls inside the second commit: the file ends with the first, whole, and the next run adds the rest. */
static void full_disk_leaves_whole_lines(void **state)
{
    (void)state;
    nj_results r;
    nj_error err = { 0 };
    struct rlimit before, limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(nj_results_open(&r, out_path, in_path, &err), 0);
    add_line(&r, 1);
    assert_int_equal(nj_results_commit(&r, &err), 0);
    uint64_t size = r.size;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = size + 60;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    add_line(&r, 2);
    add_line(&r, 3);
    int rc = nj_results_commit(&r, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, -EFBIG);
    assert_true(strstr(err.remedy, "Make room"));
    nj_results_close(&r);
    assert_int_equal(nj_results_open(&r, out_path, in_path, &err), 0);
    assert_int_equal(r.done.len, 1);
    assert_int_equal(r.cut_bytes, 0);
    assert_int_equal(r.size, size);
    nj_results_close(&r);
}

/* ---- Plan ---- */

static void plan_tells_done_from_to_do(void **state)
{
    (void)state;
    write_text(in_path, "\xEF\xBB\xBF{\"custom_id\":\"a\"}\n"
                        "\n"
                        "{\"custom_id\":\"c\"}\r\n"
                        "{\"custom_id\":\"a\"}\n"
                        "broken\n"
                        " \t\r\n"
                        "broken too\n"
                        "{\"custom_id\":\"\"}\n"
                        "{\"custom_id\":\"b\"}");
    write_text(out_path, LINE_A LINE_7 LINE_B "{\"id\":\"\",\"custom_id\":\"z\",\"response\":{},\"error\":null}\n");
    static const uint8_t want[] = { NJ_LINE_DONE,  NJ_LINE_BLANK, NJ_LINE_TODO, NJ_LINE_DUPLICATE, NJ_LINE_TODO,
                                    NJ_LINE_BLANK, NJ_LINE_DONE,  NJ_LINE_TODO, NJ_LINE_DONE };
    nj_results r;
    nj_lines l;
    nj_batch_plan p;
    nj_error err = { 0 };
    assert_int_equal(nj_lines_open(&l, in_path, NJ_BATCH_LINE_MAX, &err), 0);
    assert_int_equal(nj_results_open(&r, out_path, in_path, &err), 0);
    assert_int_equal(nj_batch_plan_make(&p, &l, &r, &err), 0);
    assert_int_equal(p.lines, NJ_COUNT(want));
    assert_memory_equal(p.kind, want, sizeof want);
    assert_int_equal(p.total, 7);
    assert_int_equal(p.done, 3);
    assert_int_equal(p.strangers, 1);
    assert_int_equal(p.failed.len, 2);
    nj_batch_plan_free(&p);
    nj_results_close(&r);
    nj_lines_close(&l);
}

static int plan_of(const char *text, size_t len)
{
    nj_results r = { 0 };
    nj_lines l;
    nj_batch_plan p;
    nj_error err = { 0 };
    write_bytes(in_path, text, len);
    assert_int_equal(nj_lines_open(&l, in_path, NJ_BATCH_LINE_MAX, &err), 0);
    int rc = nj_batch_plan_make(&p, &l, &r, &err);
    if (rc) assert_true(strstr(err.text, in_path) && strstr(err.remedy, "custom_id"));
    if (!rc) nj_batch_plan_free(&p);
    nj_lines_close(&l);
    return rc;
}

static void files_without_a_request_are_refused(void **state)
{
    (void)state;
    static const char zero[] = "{\"custom_id\":\"a\"}\nGG\0UF\n", wide[] = "{\0}\0\n\0";
    static const char text[] = "Dear diary,\n[1,2]\n", mixed[] = "Dear diary,\n{}\n", blank[] = "\n \n";
    assert_int_equal(plan_of(zero, sizeof zero - 1), -EINVAL);
    assert_int_equal(plan_of(wide, sizeof wide - 1), -EINVAL);
    assert_int_equal(plan_of(text, sizeof text - 1), -EINVAL);
    assert_int_equal(plan_of(mixed, sizeof mixed - 1), 0);
    assert_int_equal(plan_of(blank, sizeof blank - 1), 0);
    assert_int_equal(plan_of("", 0), 0);
}

#define FAILED(id) "{\"id\":\"\",\"custom_id\":\"" id "\",\"response\":null,\"error\":{\"code\":\"x\"}}\n"

static void only_the_asked_errors_are_dropped(void **state)
{
    (void)state;
    nj_results r, late;
    nj_error err = { 0 };
    nj_idmap keys = { 0 };
    uint64_t dropped;
    write_text(out_path, LINE_A FAILED("p") LINE_7 FAILED("q") LINE_B);
    assert_int_equal(chmod(out_path, 0640), 0);
    assert_int_equal(nj_results_open(&r, out_path, in_path, &err), 0);
    assert_int_equal(nj_idmap_add(&keys, nj_result_key("p", 0), 0), 0);
    assert_int_equal(nj_idmap_add(&keys, nj_result_key("a", 0), 0), 0); /* answered: stays */
    assert_int_equal(nj_results_drop_errors(&r, &keys, &dropped, &err), 0);
    assert_int_equal(dropped, 2);
    assert_int_equal(r.done.len, 3);
    expect_text(out_path, LINE_A FAILED("q") LINE_B);
    struct stat st;
    assert_int_equal(stat(out_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(nj_results_open(&late, out_path, in_path, &err), -EBUSY);
    assert_int_equal(nj_results_drop_errors(&r, &keys, &dropped, &err), 0);
    assert_int_equal(dropped, 0);
    char part[80];
    snprintf(part, sizeof part, "%s.part", out_path);
    assert_int_not_equal(access(part, F_OK), 0);
    nj_results_close(&r);
    nj_idmap_free(&keys);
}

static void only_a_new_empty_file_is_withdrawn(void **state)
{
    (void)state;
    nj_results r;
    nj_error err = { 0 };
    assert_int_equal(nj_results_open(&r, out_path, in_path, &err), 0);
    nj_results_withdraw(&r);
    nj_results_close(&r);
    assert_int_not_equal(access(out_path, F_OK), 0);
    write_text(out_path, "");
    assert_int_equal(nj_results_open(&r, out_path, in_path, &err), 0);
    nj_results_withdraw(&r);
    nj_results_close(&r);
    assert_int_equal(access(out_path, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lines_of_any_size_are_read, fresh),
        cmocka_unit_test_setup(folders_and_missing_files_are_refused, fresh),
        cmocka_unit_test_setup(id_map_holds_what_was_added, fresh),
        cmocka_unit_test_setup(fingerprints_never_change, fresh),
        cmocka_unit_test_setup(results_are_found_again, fresh),
        cmocka_unit_test_setup(every_torn_tail_is_cut_back_to_whole_lines, fresh),
        cmocka_unit_test_setup(other_files_are_refused_and_left_alone, fresh),
        cmocka_unit_test_setup(input_as_output_and_second_writers_are_refused, fresh),
        cmocka_unit_test_setup(full_disk_leaves_whole_lines, fresh),
        cmocka_unit_test_setup(plan_tells_done_from_to_do, fresh),
        cmocka_unit_test_setup(files_without_a_request_are_refused, fresh),
        cmocka_unit_test_setup(only_the_asked_errors_are_dropped, fresh),
        cmocka_unit_test_setup(only_a_new_empty_file_is_withdrawn, fresh),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
