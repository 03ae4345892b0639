/* Files that are read whole, written durably, and hashed. */
#include "io/nj_io.h"
#include "io/part.h"
#include "io/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/nj-test-files-XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static int make_dir(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN); /* a file that grows too long is to be an error, not a signal */
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static bool exists(const char *path)
{
    struct stat st;
    return !lstat(path, &st);
}

static void expect_content(const char *path, const char *want)
{
    nj_buf b = { 0 };
    nj_error err = { 0 };
    if (nj_file_read(path, 1 << 20, &b, &err)) fail_msg("%s", err.text);
    assert_string_equal(b.data, want);
    assert_int_equal(b.len, strlen(want));
    nj_buf_free(&b);
}

/* ---- Reading ---- */

static void file_at_the_bound_is_read_and_one_byte_more_is_not(void **state)
{
    (void)state;
    nj_buf b = { 0 };
    nj_error err = { 0 };
    assert_int_equal(nj_file_write(in_dir("ten"), "0123456789", 10, NULL), 0);
    assert_int_equal(nj_file_read(in_dir("ten"), 10, &b, &err), 0);
    assert_string_equal(b.data, "0123456789");
    assert_int_equal(nj_file_read(in_dir("ten"), 9, &b, &err), -EFBIG);
    assert_non_null(strstr(err.text, "longer than 9 bytes"));
    nj_buf_free(&b);
}

static void empty_file_is_an_empty_string(void **state)
{
    (void)state;
    nj_buf b = { 0 };
    assert_int_equal(nj_file_write(in_dir("empty"), "", 0, NULL), 0);
    assert_int_equal(nj_file_read(in_dir("empty"), 0, &b, NULL), 0);
    assert_non_null(b.data);
    assert_int_equal(b.len, 0);
    nj_buf_free(&b);
}

static void reading_replaces_what_the_buffer_held(void **state)
{
    (void)state;
    nj_buf b = { 0 };
    nj_buf_str(&b, "old");
    assert_int_equal(nj_file_write(in_dir("new"), "new!", 4, NULL), 0);
    assert_int_equal(nj_file_read(in_dir("new"), 100, &b, NULL), 0);
    assert_string_equal(b.data, "new!");
    nj_buf_free(&b);
}

static void absent_file_and_directory_are_named(void **state)
{
    (void)state;
    nj_buf b = { 0 };
    nj_error err = { 0 };
    assert_int_equal(nj_file_read(in_dir("absent"), 100, &b, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/absent: "));
    assert_int_equal(nj_file_read(dir, 100, &b, &err), -EISDIR);
    assert_non_null(strstr(err.text, dir));
    nj_buf_free(&b);
}

static void dash_reads_standard_input(void **state)
{
    (void)state;
    nj_buf b = { 0 };
    assert_int_equal(nj_file_write(in_dir("stdin"), "from stdin", 10, NULL), 0);
    int saved = dup(STDIN_FILENO), fd = open(in_dir("stdin"), O_RDONLY);
    dup2(fd, STDIN_FILENO);
    int rc = nj_file_read("-", 100, &b, NULL);
    if (saved >= 0) dup2(saved, STDIN_FILENO), close(saved);
    close(fd);
    assert_int_equal(rc, 0);
    assert_string_equal(b.data, "from stdin");
    nj_buf_free(&b);
}

/* ---- Writing ---- */

static void written_file_is_whole_and_leaves_no_part(void **state)
{
    (void)state;
    assert_int_equal(nj_file_write(in_dir("w"), "first, longer", 13, NULL), 0);
    assert_int_equal(nj_file_write(in_dir("w"), "second", 6, NULL), 0);
    expect_content(in_dir("w"), "second");
    assert_false(exists(in_dir("w.part")));
}

static void path_without_a_folder_is_written(void **state)
{
    (void)state;
    char old[4096];
    assert_non_null(getcwd(old, sizeof old));
    assert_int_equal(chdir(dir), 0);
    int rc = nj_file_write("bare", "x", 1, NULL);
    assert_int_equal(chdir(old), 0);
    assert_int_equal(rc, 0);
    expect_content(in_dir("bare"), "x");
}

static void replaced_file_keeps_its_mode(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(nj_file_write(in_dir("private"), "1", 1, NULL), 0);
    assert_int_equal(chmod(in_dir("private"), 0600), 0);
    assert_int_equal(nj_file_write(in_dir("private"), "2", 1, NULL), 0);
    assert_int_equal(stat(in_dir("private"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void link_stays_a_link(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(nj_file_write(in_dir("target"), "1", 1, NULL), 0);
    assert_int_equal(symlink("target", in_dir("link")), 0);
    assert_int_equal(nj_file_write(in_dir("link"), "2", 1, NULL), 0);
    assert_int_equal(lstat(in_dir("link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    expect_content(in_dir("target"), "2");
}

static void device_is_written_and_never_replaced(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(nj_file_write("/dev/null", "x", 1, NULL), 0);
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    assert_false(exists("/dev/null.part"));
}

static void missing_folder_is_an_error_with_a_remedy(void **state)
{
    (void)state;
    nj_error err = { 0 };
    assert_int_equal(nj_file_write(in_dir("no/file"), "x", 1, &err), -ENOENT);
    assert_non_null(strstr(err.text, "no/file"));
    assert_non_null(strstr(err.remedy, "Create its folder"));
    assert_int_equal(nj_file_write(dir, "x", 1, &err), -EISDIR);
}

/* ---- Full disks ---- */

static void full_device_is_an_error_with_a_remedy(void **state)
{
    (void)state;
    nj_error err = { 0 };
    if (!exists("/dev/full")) {
        print_message("SKIP full_device: there is no /dev/full\n");
        skip();
    }
    assert_int_equal(nj_file_write("/dev/full", "x", 1, &err), -ENOSPC);
    assert_string_equal(err.text, "/dev/full: can't be written: No space left on device.");
    assert_non_null(strstr(err.remedy, "Free some space"));
}

/* RLIMIT_FSIZE stands for a full disk: the write of a regular file fails in its middle. */
static int with_file_limit(rlim_t bytes, int (*work)(nj_error *err), nj_error *err)
{
    struct rlimit old, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = (struct rlimit){ bytes, old.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    int rc = work(err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    return rc;
}

static int write_200_kb(nj_error *err)
{
    static const char data[200000];
    return nj_file_write(in_dir("limited"), data, sizeof data, err);
}

static void failed_write_removes_the_part_and_keeps_the_old_file(void **state)
{
    (void)state;
    nj_error err = { 0 };
    assert_int_equal(nj_file_write(in_dir("limited"), "old", 3, NULL), 0);
    assert_int_equal(with_file_limit(100000, write_200_kb, &err), -EFBIG);
    assert_non_null(strstr(err.text, "/limited: can't be written"));
    assert_non_null(strstr(err.remedy, "ulimit"));
    assert_false(exists(in_dir("limited.part")));
    expect_content(in_dir("limited"), "old");
}

static int write_gguf_200_kb(nj_error *err)
{
    static const char data[1000];
    nj_gguf_writer *w = NULL;
    int rc = nj_gguf_writer_new(&w, in_dir("limited.gguf"), err);
    if (!rc) rc = nj_gguf_writer_tensor(w, "t", 0, 1, (uint64_t[]){ 50000 }, 200000, err);
    for (int i = 0; i < 200 && !rc; i++) rc = nj_gguf_writer_data(w, data, sizeof data, err);
    if (rc) {
        nj_error later;
        assert_int_equal(nj_gguf_writer_data(w, data, 1, &later), rc);
        assert_int_equal(nj_gguf_writer_commit(w, &later), rc);
    }
    nj_gguf_writer_free(w);
    return rc;
}

static void full_disk_ends_a_gguf_without_a_part(void **state)
{
    (void)state;
    nj_error err = { 0 };
    assert_int_equal(with_file_limit(100000, write_gguf_200_kb, &err), -EFBIG);
    assert_non_null(strstr(err.text, "limited.gguf"));
    assert_false(exists(in_dir("limited.gguf.part")));
    assert_false(exists(in_dir("limited.gguf")));
}

static void space_is_asked_for_before_the_work(void **state)
{
    (void)state;
    nj_part p;
    nj_error err = { 0 };
    struct stat st;
    assert_int_equal(nj_part_open(&p, in_dir("reserved"), &err), 0);
    assert_int_equal(nj_part_reserve(&p, 1 << 20, &err), 0);
    assert_int_equal(fstat(p.fd, &st), 0);
    assert_int_equal(st.st_size, 0); /* reserved, but not part of the file */
    int rc = nj_part_reserve(&p, UINT64_C(1) << 60, &err);
    nj_part_drop(&p);
    if (!rc) {
        print_message("SKIP space_is_asked_for: this file system doesn't say what it can hold\n");
        skip();
    }
    assert_non_null(strstr(err.text, "1152921504606846976 bytes are needed"));
    assert_false(exists(in_dir("reserved.part")));
}

/* ---- SHA-256: the examples of FIPS 180-4 (NIST's sha2 example values) ---- */

static void sha256_of(const char *data, size_t len, size_t piece, bool plain, char hex[65])
{
    nj_sha256 s;
    uint8_t digest[32];
    nj_sha256_begin(&s);
    if (plain) s.sha_ni = false;
    for (size_t at = 0; at < len; at += piece) nj_sha256_add(&s, data + at, piece < len - at ? piece : len - at);
    nj_sha256_end(&s, digest);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

static void sha256_matches_the_standard(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hex;
    } cases[] = {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
        { "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
          "nopqrstu",
          "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1" },
    };
    for (size_t i = 0; i < NJ_COUNT(cases); i++)
        for (int plain = 0; plain < 2; plain++) {
            char hex[65];
            sha256_of(cases[i].text, strlen(cases[i].text), 1000, plain, hex);
            assert_string_equal(hex, cases[i].hex);
        }
}

static void sha256_does_not_depend_on_pieces_or_instructions(void **state)
{
    (void)state;
    static char data[1000];
    char want[65], hex[65];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 7 + i / 256);
    for (size_t len = 0; len < 300; len++) {
        sha256_of(data, len, 1000, true, want);
        for (size_t piece = 1; piece < 140; piece += 23) {
            sha256_of(data, len, piece, false, hex);
            assert_string_equal(hex, want);
        }
    }
    nj_sha256 s;
    nj_sha256_begin(&s);
    if (!s.sha_ni) print_message("SKIP sha_ni: this CPU has no SHA instructions\n");
}

static void note_progress(void *arg, uint64_t done)
{
    uint64_t *last = arg;
    assert_true(done > *last);
    *last = done;
}

static void sha256_of_a_file_tells_progress(void **state)
{
    (void)state;
    char *million = malloc(1000000), hex[65];
    uint64_t done = 0;
    memset(million, 'a', 1000000);
    assert_int_equal(nj_file_write(in_dir("million"), million, 1000000, NULL), 0);
    free(million);
    assert_int_equal(nj_sha256_file(in_dir("million"), hex, note_progress, &done, NULL), 0);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_int_equal(done, 1000000);
    nj_error err = { 0 };
    assert_int_equal(nj_sha256_file(in_dir("absent"), hex, NULL, NULL, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/absent"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_at_the_bound_is_read_and_one_byte_more_is_not),
        cmocka_unit_test(empty_file_is_an_empty_string),
        cmocka_unit_test(reading_replaces_what_the_buffer_held),
        cmocka_unit_test(absent_file_and_directory_are_named),
        cmocka_unit_test(dash_reads_standard_input),
        cmocka_unit_test(written_file_is_whole_and_leaves_no_part),
        cmocka_unit_test(path_without_a_folder_is_written),
        cmocka_unit_test(replaced_file_keeps_its_mode),
        cmocka_unit_test(link_stays_a_link),
        cmocka_unit_test(device_is_written_and_never_replaced),
        cmocka_unit_test(missing_folder_is_an_error_with_a_remedy),
        cmocka_unit_test(full_device_is_an_error_with_a_remedy),
        cmocka_unit_test(failed_write_removes_the_part_and_keeps_the_old_file),
        cmocka_unit_test(full_disk_ends_a_gguf_without_a_part),
        cmocka_unit_test(space_is_asked_for_before_the_work),
        cmocka_unit_test(sha256_matches_the_standard),
        cmocka_unit_test(sha256_does_not_depend_on_pieces_or_instructions),
        cmocka_unit_test(sha256_of_a_file_tells_progress),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
