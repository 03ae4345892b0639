/* Reading, overriding and writing good GGUF files. Damaged ones: test_gguf_hostile.c. */
#include "io/nj_io.h"
#include "tests/gguf_build.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/nj-test-gguf-XXXXXX";

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
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

/* The file that the last parse() reads from. */
static nj_buf bytes;

static nj_gguf *parse(gb *b)
{
    nj_gguf *g = NULL;
    nj_error err = { 0 };
    nj_buf_free(&bytes);
    bytes = gb_finish(b);
    int rc = nj_gguf_parse(&g, bytes.data, bytes.len, bytes.len, "t.gguf", &gb_types, &err);
    if (rc) fail_msg("%s", err.text);
    return g;
}

static nj_gguf *parse_sample(void)
{
    gb b = { 0 };
    gb_sample(&b);
    return parse(&b);
}

static nj_gguf *open_ok(const char *path)
{
    nj_gguf *g = NULL;
    nj_error err = { 0 };
    if (nj_gguf_open(&g, path, &gb_types, &err)) fail_msg("%s", err.text);
    return g;
}

/* ---- Reading ---- */

static void every_scalar_type_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        int64_t i;
        double f;
    } want[] = { { "test.u8", 0xFE, 0xFE },
                 { "test.i8", -2, -2 },
                 { "test.u16", 0xFEFE, 0xFEFE },
                 { "test.i16", -258, -258 },
                 { "test.u32", 0xFEFEFEFE, 0xFEFEFEFE },
                 { "test.i32", -16843010, -16843010 },
                 { "test.u64", -72340172838076674, 18374403900871474942.0 },
                 { "test.i64", -72340172838076674, -72340172838076674.0 },
                 { "test.bool", 1, 1 } };
    nj_gguf *g = parse_sample();
    for (size_t i = 0; i < NJ_COUNT(want); i++) {
        const nj_meta *m = nj_gguf_meta(g, want[i].key);
        assert_non_null(m);
        assert_true(m->i == want[i].i);
        assert_true(m->f == want[i].f);
    }
    nj_gguf_close(g);
}

static void floats_are_read_exactly(void **state)
{
    (void)state;
    gb b = { 0 };
    double f64 = 0.1;
    gb_f32(&b, "f32", 0.1f);
    gb_scalar(&b, "f64", NJ_META_F64, &f64, sizeof f64);
    nj_gguf *g = parse(&b);
    assert_true(nj_gguf_meta(g, "f32")->f == (double)0.1f);
    assert_true(nj_gguf_meta(g, "f64")->f == 0.1);
    nj_gguf_close(g);
}

static void strings_end_with_nul_and_may_hold_one(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_key(&b, "s", NJ_META_STRING);
    gb_puts(&b.keys, "a\0b", 3);
    gb_str(&b, "after", "x");
    nj_gguf *g = parse(&b);
    const nj_meta *m = nj_gguf_meta(g, "s");
    assert_int_equal(m->s.len, 3);
    assert_memory_equal(m->s.data, "a\0b", 4);
    nj_gguf_close(g);
}

static void number_arrays_widen_item_by_item(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    const nj_meta *m = nj_gguf_meta(g, "test.array.i16");
    assert_int_equal(m->type, NJ_META_ARRAY);
    assert_int_equal(m->item_type, NJ_META_I16);
    assert_int_equal(m->count, 3);
    assert_int_equal(nj_meta_item_i64(m, 2), -258);
    assert_true(nj_meta_item_f64(m, 1) == -258);
    m = nj_gguf_meta(g, "test.array.bool");
    assert_int_equal(nj_meta_item_i64(m, 0), 1);
    assert_int_equal(nj_meta_item_i64(m, 1), 0);
    assert_int_equal(nj_gguf_meta(g, "test.array.empty")->count, 0);
    nj_gguf_close(g);
}

static void huge_floats_saturate_as_integers(void **state)
{
    (void)state;
    gb b = { 0 };
    float items[] = { 1e30f, -1e30f, NAN, 2.5f };
    gb_array(&b, "a", NJ_META_F32, 4, items, sizeof items);
    nj_gguf *g = parse(&b);
    const nj_meta *m = nj_gguf_meta(g, "a");
    assert_true(nj_meta_item_i64(m, 0) == INT64_MAX);
    assert_true(nj_meta_item_i64(m, 1) == INT64_MIN);
    assert_true(nj_meta_item_i64(m, 2) == 0);
    assert_true(nj_meta_item_i64(m, 3) == 2);
    nj_gguf_close(g);
}

static void string_arrays_are_read(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    const nj_meta *m = nj_gguf_meta(g, "test.array.string");
    assert_int_equal(m->count, 3);
    assert_string_equal(m->strings[0].data, "a");
    assert_int_equal(m->strings[1].len, 0);
    assert_string_equal(m->strings[2].data, "\xE2\x96\x81ni\xC3\xB1o");
    nj_gguf_close(g);
}

static void keys_and_tensors_keep_file_order(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    assert_string_equal(nj_gguf_meta_at(g, 0)->key.data, "general.architecture");
    assert_string_equal(nj_gguf_meta_at(g, nj_gguf_meta_count(g) - 1)->key.data, "test.array.string");
    assert_int_equal(nj_gguf_tensor_count(g), 3);
    assert_string_equal(nj_gguf_tensor_at(g, 2)->name.data, "output_norm.weight");
    for (size_t i = 0; i < nj_gguf_meta_count(g); i++)
        assert_ptr_equal(nj_gguf_meta(g, nj_gguf_meta_at(g, i)->key.data), nj_gguf_meta_at(g, i));
    nj_gguf_close(g);
}

static void absent_names_are_not_found(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    assert_null(nj_gguf_meta(g, "test.u"));
    assert_null(nj_gguf_meta(g, ""));
    assert_null(nj_gguf_tensor(g, "token_embd.weigh"));
    nj_gguf_close(g);
    gb b = { 0 };
    g = parse(&b);
    assert_null(nj_gguf_meta(g, "x"));
    assert_null(nj_gguf_tensor(g, "x"));
    nj_gguf_close(g);
}

static void tensor_shape_and_bytes_are_derived(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    const nj_tensor *t = nj_gguf_tensor(g, "blk.0.ffn_down_exps.weight");
    assert_int_equal(t->type, 8);
    assert_int_equal(t->n_dims, 3);
    assert_int_equal(t->dim[0], 32);
    assert_int_equal(t->dim[2], 2);
    assert_int_equal(t->dim[3], 1);
    assert_int_equal(t->bytes, 136);
    assert_int_equal(t->offset % 32, 0);
    nj_gguf_close(g);
}

static void tensor_data_in_memory_is_read(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    const nj_tensor *t = nj_gguf_tensor(g, "blk.0.ffn_down_exps.weight");
    uint8_t got[136];
    assert_int_equal(nj_gguf_read(g, t, 0, got, 136, NULL), 0);
    for (int i = 0; i < 136; i++) assert_int_equal(got[i], gb_byte("blk.0.ffn_down_exps.weight", (uint64_t)i));
    nj_gguf_close(g);
}

static void reading_past_a_tensor_is_refused(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    nj_error err;
    uint8_t got[200];
    const nj_tensor *t = nj_gguf_tensor_at(g, 0);
    assert_int_equal(nj_gguf_read(g, t, 96, got, 0, &err), 0);
    assert_int_equal(nj_gguf_read(g, t, 90, got, 7, &err), -EINVAL);
    assert_int_equal(nj_gguf_read(g, t, UINT64_MAX, got, 2, &err), -EINVAL);
    nj_gguf_close(g);
}

static void version_2_is_read(void **state)
{
    (void)state;
    gb b = { .version = 2 };
    gb_sample(&b);
    nj_gguf *g = parse(&b);
    assert_int_equal(nj_gguf_version(g), 2);
    nj_gguf_close(g);
}

static void every_power_of_two_alignment_is_read(void **state)
{
    (void)state;
    for (uint32_t alignment = 1; alignment <= 65536; alignment *= 2) {
        gb b = { .alignment = alignment };
        gb_u32(&b, "general.alignment", alignment);
        gb_sample(&b);
        nj_gguf *g = parse(&b);
        uint8_t got[10];
        const nj_tensor *t = nj_gguf_tensor(g, "output_norm.weight");
        assert_int_equal(t->offset % alignment, 0);
        assert_int_equal(nj_gguf_read(g, t, 0, got, 10, NULL), 0);
        assert_int_equal(got[9], gb_byte("output_norm.weight", 9));
        nj_gguf_close(g);
    }
}

/* A header that has not arrived whole says so, and is read once it has. */
static void short_header_asks_for_more(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_sample(&b);
    nj_buf file = gb_finish(&b);
    nj_gguf *g = NULL;
    nj_error err;
    size_t len = 0;
    while (nj_gguf_parse(&g, file.data, len, file.len, "t.gguf", &gb_types, &err) == -EAGAIN) len++;
    assert_non_null(g);
    assert_in_range(len, 400, file.len - 1);
    assert_int_equal(nj_gguf_read(g, nj_gguf_tensor_at(g, 2), 0, &len, 1, &err), -EIO);
    nj_gguf_close(g);
    nj_buf_free(&file);
}

static void file_on_disk_is_read(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_sample(&b);
    gb_write(&b, in_dir("disk.gguf"));
    nj_gguf *g = open_ok(in_dir("disk.gguf"));
    uint8_t got[5];
    assert_int_equal(nj_gguf_read(g, nj_gguf_tensor(g, "output_norm.weight"), 5, got, 5, NULL), 0);
    assert_int_equal(got[4], gb_byte("output_norm.weight", 9));
    assert_int_equal(nj_gguf_files(g), 1);
    assert_string_equal(nj_gguf_path(g), in_dir("disk.gguf"));
    nj_gguf_close(g);
}

/* Longer than the first read of a header: 300000 strings. */
static void long_header_on_disk_is_read(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_array(&b, "tokens", NJ_META_STRING, 300000, "", 0);
    for (int i = 0; i < 300000; i++) gb_puts(&b.keys, "twelve bytes", 12);
    gb_u32(&b, "last", 7);
    gb_write(&b, in_dir("long.gguf"));
    nj_gguf *g = open_ok(in_dir("long.gguf"));
    assert_string_equal(nj_gguf_meta(g, "tokens")->strings[299999].data, "twelve bytes");
    assert_int_equal(nj_gguf_meta(g, "last")->i, 7);
    nj_gguf_close(g);
}

/* A sparse file of 300 GB: offsets past 32 bits, and nothing read but the header and what is asked for. */
static void file_of_300_gb_is_read(void **state)
{
    (void)state;
    const uint64_t rows = 75000000, size = rows * 1024 * 4;
    gb b = { 0 };
    gb_tensor_at(&b, "big", 0, 2, (uint64_t[]){ 1024, rows }, 0);
    gb_write(&b, in_dir("big.gguf"));
    if (truncate(in_dir("big.gguf"), (off_t)(96 + size))) {
        print_message("SKIP file_of_300_gb_is_read: no sparse files of 300 GB here: %s\n", strerror(errno));
        skip();
    }
    int fd = open(in_dir("big.gguf"), O_WRONLY);
    assert_int_equal(pwrite(fd, "Z", 1, (off_t)(96 + size - 1)), 1);
    close(fd);
    nj_gguf *g = open_ok(in_dir("big.gguf"));
    char last = 0;
    assert_true(nj_gguf_tensor_at(g, 0)->bytes == size);
    assert_int_equal(nj_gguf_read(g, nj_gguf_tensor_at(g, 0), size - 1, &last, 1, NULL), 0);
    assert_int_equal(last, 'Z');
    assert_true(nj_gguf_bytes(g) == 96 + size);
    nj_gguf_close(g);
    unlink(in_dir("big.gguf"));
}

static void file_that_shrank_is_an_io_error(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_sample(&b);
    gb_write(&b, in_dir("shrink.gguf"));
    nj_gguf *g = open_ok(in_dir("shrink.gguf"));
    assert_int_equal(truncate(in_dir("shrink.gguf"), 100), 0);
    nj_error err;
    uint8_t got[96];
    assert_int_equal(nj_gguf_read(g, nj_gguf_tensor_at(g, 0), 0, got, 96, &err), -EIO);
    assert_non_null(strstr(err.text, "shrink.gguf"));
    nj_gguf_close(g);
}

/* ---- Split files ---- */

/* Part `no` (from 0) of `count`, with one tensor. */
static void write_part(const char *name, uint32_t no, uint32_t count, uint32_t tensors_in_all)
{
    gb b = { 0 };
    char tensor[32];
    if (!no) gb_str(&b, "general.architecture", "llama");
    gb_u32(&b, "split.no", no);
    gb_u32(&b, "split.count", count);
    gb_i32(&b, "split.tensors.count", (int32_t)tensors_in_all);
    snprintf(tensor, sizeof tensor, "part%u.weight", no);
    gb_tensor(&b, tensor, 0, 1, (uint64_t[]){ 8 }, 32);
    gb_write(&b, in_dir(name));
}

static void expect_open_error(const char *name, int rc, const char *text, const char *remedy)
{
    nj_gguf *g = NULL;
    nj_error err = { 0 };
    assert_int_equal(nj_gguf_open(&g, in_dir(name), &gb_types, &err), rc);
    assert_null(g);
    if (!strstr(err.text, text)) fail_msg("'%s' lacks '%s'", err.text, text);
    if (!strstr(err.remedy, remedy)) fail_msg("'%s' lacks '%s'", err.remedy, remedy);
}

static void split_files_are_one_model(void **state)
{
    (void)state;
    write_part("s-00001-of-00002.gguf", 0, 2, 2);
    write_part("s-00002-of-00002.gguf", 1, 2, 2);
    nj_gguf *g = open_ok(in_dir("s-00001-of-00002.gguf"));
    uint8_t got[32];
    assert_int_equal(nj_gguf_files(g), 2);
    assert_non_null(strstr(nj_gguf_file_path(g, 1), "s-00002-of-00002.gguf"));
    assert_int_equal(nj_gguf_tensor_count(g), 2);
    const nj_tensor *t = nj_gguf_tensor(g, "part1.weight");
    assert_int_equal(t->file, 1);
    assert_int_equal(nj_gguf_read(g, t, 0, got, 32, NULL), 0);
    assert_int_equal(got[31], gb_byte("part1.weight", 31));
    assert_non_null(nj_gguf_meta(g, "general.architecture"));
    assert_string_equal(nj_gguf_tensor(g, "part0.weight")->name.data, "part0.weight");
    nj_gguf_close(g);
}

static void other_part_names_the_first(void **state)
{
    (void)state;
    expect_open_error("s-00002-of-00002.gguf", -EINVAL, "part 2 of 2", "s-00001-of-00002.gguf");
}

static void missing_part_is_named(void **state)
{
    (void)state;
    write_part("m-00001-of-00002.gguf", 0, 2, 2);
    expect_open_error("m-00001-of-00002.gguf", -ENOENT, "m-00002-of-00002.gguf", "Fetch the missing");
}

static void part_with_another_number_is_refused(void **state)
{
    (void)state;
    write_part("n-00001-of-00002.gguf", 0, 2, 2);
    write_part("n-00002-of-00002.gguf", 7, 9, 2);
    expect_open_error("n-00001-of-00002.gguf", -EINVAL, "part 8 of 9", "Fetch this part again");
}

static void same_tensor_in_two_parts_is_refused(void **state)
{
    (void)state;
    write_part("d-00001-of-00002.gguf", 0, 2, 2);
    gb b = { 0 };
    gb_u32(&b, "split.no", 1);
    gb_u32(&b, "split.count", 2);
    gb_tensor(&b, "part0.weight", 0, 1, (uint64_t[]){ 8 }, 32);
    gb_write(&b, in_dir("d-00002-of-00002.gguf"));
    expect_open_error("d-00001-of-00002.gguf", -EINVAL, "tensor part0.weight occurs twice", "");
}

static void wrong_total_of_tensors_is_refused(void **state)
{
    (void)state;
    write_part("t-00001-of-00002.gguf", 0, 2, 3);
    write_part("t-00002-of-00002.gguf", 1, 2, 3);
    expect_open_error("t-00001-of-00002.gguf", -EINVAL, "split.tensors.count says 3", "one and the same model");
}

static void renamed_first_part_is_refused(void **state)
{
    (void)state;
    write_part("renamed.gguf", 0, 4, 4);
    expect_open_error("renamed.gguf", -EINVAL, "4 parts", "-00001-of-00004.gguf");
}

static void things_that_are_no_files_are_refused(void **state)
{
    (void)state;
    expect_open_error("absent.gguf", -ENOENT, "absent.gguf", "Check the path");
    expect_open_error(".", -EISDIR, "directory", "");
}

/* ---- Typed look-ups ---- */

static void typed_lookups_give_values(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_u32(&b, "u", 7);
    gb_u64(&b, "big", UINT64_MAX);
    gb_f32(&b, "f", 0.5f);
    gb_bool(&b, "b", true);
    gb_str(&b, "s", "x");
    nj_gguf *g = parse(&b);
    uint32_t u32;
    uint64_t u64;
    float f;
    bool flag;
    nj_str s;
    assert_int_equal(nj_gguf_get_u32(g, "u", &u32, NULL), 0);
    assert_int_equal(u32, 7);
    assert_int_equal(nj_gguf_get_u64(g, "big", &u64, NULL), 0);
    assert_true(u64 == UINT64_MAX);
    assert_int_equal(nj_gguf_get_f32(g, "f", &f, NULL), 0);
    assert_true(f == 0.5f);
    assert_int_equal(nj_gguf_get_f32(g, "u", &f, NULL), 0);
    assert_true(f == 7);
    assert_int_equal(nj_gguf_get_bool(g, "b", &flag, NULL), 0);
    assert_true(flag);
    assert_int_equal(nj_gguf_get_str(g, "s", &s, NULL), 0);
    assert_string_equal(s.data, "x");
    nj_gguf_close(g);
}

static void absent_key_leaves_the_default(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    nj_error err = { 0 };
    uint32_t v = 42;
    assert_int_equal(nj_gguf_get_u32(g, "absent", &v, &err), -ENOENT);
    assert_int_equal(v, 42);
    assert_int_equal(err.code, 0);
    nj_gguf_close(g);
}

static void values_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_u64(&b, "big", UINT64_MAX);
    gb_i32(&b, "negative", -1);
    gb_f32(&b, "nan", NAN);
    gb_str(&b, "s", "7");
    gb_bool(&b, "b", true);
    nj_gguf *g = parse(&b);
    nj_error err = { 0 };
    uint32_t u32 = 1;
    uint64_t u64 = 1;
    float f = 1;
    bool flag;
    assert_int_equal(nj_gguf_get_u32(g, "big", &u32, &err), -EINVAL);
    assert_non_null(strstr(err.text, "t.gguf: key big is 18446744073709551615"));
    assert_int_equal(nj_gguf_get_u64(g, "negative", &u64, &err), -EINVAL);
    assert_non_null(strstr(err.text, "key negative is -1"));
    assert_int_equal(nj_gguf_get_f32(g, "nan", &f, &err), -EINVAL);
    assert_int_equal(nj_gguf_get_u32(g, "s", &u32, &err), -EINVAL);
    assert_non_null(strstr(err.text, "of type string, not an integer"));
    assert_int_equal(nj_gguf_get_u32(g, "b", &u32, &err), -EINVAL);
    assert_int_equal(nj_gguf_get_bool(g, "s", &flag, &err), -EINVAL);
    assert_int_equal(u32, 1);
    nj_gguf_close(g);
}

/* ---- Overrides ---- */

static void setting_keeps_the_type_of_a_key(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_f32(&b, "f", 10000);
    gb_u32(&b, "u", 1);
    gb_bool(&b, "b", true);
    gb_str(&b, "s", "old");
    nj_gguf *g = parse(&b);
    assert_int_equal(nj_gguf_set(g, "f=500000", NULL), 0);
    assert_int_equal(nj_gguf_set(g, "u=4294967295", NULL), 0);
    assert_int_equal(nj_gguf_set(g, "b=false", NULL), 0);
    assert_int_equal(nj_gguf_set(g, "s=1=2", NULL), 0);
    assert_int_equal(nj_gguf_meta(g, "f")->type, NJ_META_F32);
    assert_true(nj_gguf_meta(g, "f")->f == 500000);
    assert_true(nj_gguf_meta(g, "u")->i == 4294967295);
    assert_int_equal(nj_gguf_meta(g, "b")->i, 0);
    assert_string_equal(nj_gguf_meta(g, "s")->s.data, "1=2");
    assert_true(nj_gguf_meta(g, "s")->overridden);
    nj_gguf_close(g);
}

static void setting_a_new_key_takes_the_type_it_reads_as(void **state)
{
    (void)state;
    static const struct {
        const char *text, *key;
        nj_meta_type type;
    } cases[] = { { "i=-5", "i", NJ_META_I64 },     { "u=18446744073709551615", "u", NJ_META_U64 },
                  { "f=1e6", "f", NJ_META_F32 },    { "b=true", "b", NJ_META_BOOL },
                  { "s=nan", "s", NJ_META_STRING }, { "e=", "e", NJ_META_STRING },
                  { "x=0x10", "x", NJ_META_STRING } };
    nj_gguf *g = parse_sample();
    size_t before = nj_gguf_meta_count(g);
    for (size_t i = 0; i < NJ_COUNT(cases); i++) {
        assert_int_equal(nj_gguf_set(g, cases[i].text, NULL), 0);
        assert_int_equal(nj_gguf_meta(g, cases[i].key)->type, cases[i].type);
        assert_true(nj_gguf_meta(g, cases[i].key)->overridden);
    }
    assert_int_equal(nj_gguf_meta_count(g), before + NJ_COUNT(cases));
    nj_gguf_close(g);
}

static void setting_many_new_keys_keeps_all_findable(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    char text[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "new.%d=%d", i, i);
        assert_int_equal(nj_gguf_set(g, text, NULL), 0);
    }
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "new.%d", i);
        assert_int_equal(nj_gguf_meta(g, text)->i, i);
    }
    assert_non_null(nj_gguf_meta(g, "test.u8"));
    nj_gguf_close(g);
}

static void settings_that_do_not_fit_change_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = { "test.u8=256",
                                       "test.u8=-1",
                                       "test.i8=128",
                                       "test.i8=-129",
                                       "test.u64=-1",
                                       "test.u32=",
                                       "test.u32=1.5",
                                       "test.u32=7x",
                                       "test.f32=1e39",
                                       "test.f32=inf",
                                       "test.bool=2",
                                       "no equals",
                                       "=5",
                                       "test.array.u8=1",
                                       "a\nb=1",
                                       "test.i64=9223372036854775808" };
    nj_gguf *g = parse_sample();
    size_t before = nj_gguf_meta_count(g);
    for (size_t i = 0; i < NJ_COUNT(bad); i++) {
        nj_error err = { 0 };
        if (nj_gguf_set(g, bad[i], &err) != -EINVAL || !err.text[0]) fail_msg("'%s' was taken", bad[i]);
    }
    for (size_t i = 0; i < nj_gguf_meta_count(g); i++) assert_false(nj_gguf_meta_at(g, i)->overridden);
    assert_int_equal(nj_gguf_meta_count(g), before);
    assert_int_equal(nj_gguf_meta(g, "test.u8")->i, 0xFE);
    nj_gguf_close(g);
}

/* ---- Writing ---- */

static void copy_has_equal_keys_and_tensors(void **state)
{
    (void)state;
    gb b = { .alignment = 64 };
    gb_u32(&b, "general.alignment", 64);
    gb_u32(&b, "split.count", 1);
    gb_sample(&b);
    nj_gguf *g = parse(&b);
    nj_gguf_writer *w = NULL;
    nj_error err = { 0 };
    assert_int_equal(nj_gguf_writer_new(&w, in_dir("copy.gguf"), &err), 0);
    assert_int_equal(nj_gguf_writer_meta_copy(w, g, &err), 0);
    for (size_t i = 0; i < nj_gguf_tensor_count(g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(g, i);
        assert_int_equal(nj_gguf_writer_tensor(w, t->name.data, t->type, t->n_dims, t->dim, t->bytes, &err), 0);
    }
    for (size_t i = 0; i < nj_gguf_tensor_count(g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(g, i);
        uint8_t data[256];
        assert_int_equal(nj_gguf_read(g, t, 0, data, t->bytes, &err), 0);
        assert_int_equal(nj_gguf_writer_data(w, data, 1, &err), 0); /* in two pieces */
        assert_int_equal(nj_gguf_writer_data(w, data + 1, t->bytes - 1, &err), 0);
    }
    assert_int_equal(nj_gguf_writer_commit(w, &err), 0);
    nj_gguf_writer_free(w);

    nj_gguf *c = open_ok(in_dir("copy.gguf"));
    assert_null(nj_gguf_meta(c, "split.count"));
    assert_int_equal(nj_gguf_meta_count(c), nj_gguf_meta_count(g) - 1);
    for (size_t i = 0; i < nj_gguf_meta_count(c); i++) {
        const nj_meta *got = nj_gguf_meta_at(c, i), *want = nj_gguf_meta(g, got->key.data);
        assert_int_equal(got->type, want->type);
        assert_int_equal(got->item_type, want->item_type);
        assert_true(got->i == want->i);
        assert_memory_equal(&got->f, &want->f, sizeof got->f);
        assert_int_equal(got->count, want->count);
        if (got->type == NJ_META_STRING) assert_string_equal(got->s.data, want->s.data);
        for (uint64_t k = 0; k < got->count && got->item_type != NJ_META_STRING; k++)
            assert_true(nj_meta_item_i64(got, k) == nj_meta_item_i64(want, k));
        for (uint64_t k = 0; k < got->count && got->item_type == NJ_META_STRING; k++)
            assert_string_equal(got->strings[k].data, want->strings[k].data);
    }
    for (size_t i = 0; i < nj_gguf_tensor_count(g); i++) {
        const nj_tensor *want = nj_gguf_tensor_at(g, i), *got = nj_gguf_tensor_at(c, i);
        uint8_t data[256];
        assert_string_equal(got->name.data, want->name.data);
        assert_memory_equal(got->dim, want->dim, sizeof got->dim);
        assert_int_equal(got->offset % 64, 0);
        assert_int_equal(nj_gguf_read(c, got, 0, data, got->bytes, &err), 0);
        for (uint64_t k = 0; k < got->bytes; k++) assert_int_equal(data[k], gb_byte(want->name.data, k));
    }
    nj_gguf_close(c);
    nj_gguf_close(g);
}

static void later_key_replaces_the_copied_one(void **state)
{
    (void)state;
    nj_gguf *g = parse_sample();
    nj_gguf_writer *w = NULL;
    assert_int_equal(nj_gguf_writer_new(&w, in_dir("replace.gguf"), NULL), 0);
    assert_int_equal(nj_gguf_writer_meta_copy(w, g, NULL), 0);
    assert_int_equal(nj_gguf_writer_meta_str(w, "general.architecture", "qwen3", NULL), 0);
    assert_int_equal(nj_gguf_writer_meta_u32(w, "test.bool", 9, NULL), 0);
    assert_int_equal(nj_gguf_writer_commit(w, NULL), 0);
    nj_gguf_writer_free(w);
    nj_gguf *c = open_ok(in_dir("replace.gguf"));
    assert_string_equal(nj_gguf_meta(c, "general.architecture")->s.data, "qwen3");
    assert_int_equal(nj_gguf_meta(c, "test.bool")->type, NJ_META_U32);
    assert_int_equal(nj_gguf_meta_count(c), nj_gguf_meta_count(g));
    nj_gguf_close(c);
    nj_gguf_close(g);
}

static void uncommitted_file_leaves_the_old_one(void **state)
{
    (void)state;
    assert_int_equal(nj_file_write(in_dir("old.gguf"), "old", 3, NULL), 0);
    nj_gguf_writer *w = NULL;
    assert_int_equal(nj_gguf_writer_new(&w, in_dir("old.gguf"), NULL), 0);
    assert_int_equal(nj_gguf_writer_tensor(w, "t", 0, 1, (uint64_t[]){ 2 }, 8, NULL), 0);
    assert_int_equal(nj_gguf_writer_data(w, "1234", 4, NULL), 0);
    assert_int_equal(access(in_dir("old.gguf.part"), F_OK), 0);
    nj_error err;
    assert_int_equal(nj_gguf_writer_commit(w, &err), -EINVAL);
    assert_non_null(strstr(err.text, "4 of 8 bytes"));
    nj_gguf_writer_free(w);
    assert_int_not_equal(access(in_dir("old.gguf.part"), F_OK), 0);
    nj_buf b = { 0 };
    assert_int_equal(nj_file_read(in_dir("old.gguf"), 100, &b, NULL), 0);
    assert_string_equal(b.data, "old");
    nj_buf_free(&b);
}

static void writer_refuses_what_the_parser_would(void **state)
{
    (void)state;
    const uint64_t dim[] = { 2 };
    nj_gguf_writer *w = NULL;
    assert_int_equal(nj_gguf_writer_new(&w, in_dir("bad.gguf"), NULL), 0);
    assert_int_equal(nj_gguf_writer_meta_u32(w, "", 1, NULL), -EINVAL);
    assert_int_equal(nj_gguf_writer_tensor(w, "a\n", 0, 1, dim, 8, NULL), -EINVAL);
    assert_int_equal(nj_gguf_writer_tensor(w, "t", 0, 5, dim, 8, NULL), -EINVAL);
    assert_int_equal(nj_gguf_writer_tensor(w, "t", 0, 1, dim, 8, NULL), 0);
    assert_int_equal(nj_gguf_writer_tensor(w, "t", 0, 1, dim, 8, NULL), -EINVAL);
    assert_int_equal(nj_gguf_writer_meta_u32(w, "general.alignment", 48, NULL), 0);
    assert_int_equal(nj_gguf_writer_data(w, "12345678", 8, NULL), -EINVAL);
    assert_int_equal(nj_gguf_writer_meta_u32(w, "general.alignment", 16, NULL), 0);
    assert_int_equal(nj_gguf_writer_data(w, "12345678", 8, NULL), 0);
    assert_int_equal(nj_gguf_writer_meta_u32(w, "late", 1, NULL), -EINVAL);
    assert_int_equal(nj_gguf_writer_data(w, "9", 1, NULL), -EINVAL);
    assert_int_equal(nj_gguf_writer_commit(w, NULL), -EINVAL);
    nj_gguf_writer_free(w);
    assert_int_not_equal(access(in_dir("bad.gguf"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scalar_type_is_read),
        cmocka_unit_test(floats_are_read_exactly),
        cmocka_unit_test(strings_end_with_nul_and_may_hold_one),
        cmocka_unit_test(number_arrays_widen_item_by_item),
        cmocka_unit_test(huge_floats_saturate_as_integers),
        cmocka_unit_test(string_arrays_are_read),
        cmocka_unit_test(keys_and_tensors_keep_file_order),
        cmocka_unit_test(absent_names_are_not_found),
        cmocka_unit_test(tensor_shape_and_bytes_are_derived),
        cmocka_unit_test(tensor_data_in_memory_is_read),
        cmocka_unit_test(reading_past_a_tensor_is_refused),
        cmocka_unit_test(version_2_is_read),
        cmocka_unit_test(every_power_of_two_alignment_is_read),
        cmocka_unit_test(short_header_asks_for_more),
        cmocka_unit_test(file_on_disk_is_read),
        cmocka_unit_test(long_header_on_disk_is_read),
        cmocka_unit_test(file_of_300_gb_is_read),
        cmocka_unit_test(file_that_shrank_is_an_io_error),
        cmocka_unit_test(split_files_are_one_model),
        cmocka_unit_test(other_part_names_the_first),
        cmocka_unit_test(missing_part_is_named),
        cmocka_unit_test(part_with_another_number_is_refused),
        cmocka_unit_test(same_tensor_in_two_parts_is_refused),
        cmocka_unit_test(wrong_total_of_tensors_is_refused),
        cmocka_unit_test(renamed_first_part_is_refused),
        cmocka_unit_test(things_that_are_no_files_are_refused),
        cmocka_unit_test(typed_lookups_give_values),
        cmocka_unit_test(absent_key_leaves_the_default),
        cmocka_unit_test(values_that_do_not_fit_are_refused),
        cmocka_unit_test(setting_keeps_the_type_of_a_key),
        cmocka_unit_test(setting_a_new_key_takes_the_type_it_reads_as),
        cmocka_unit_test(setting_many_new_keys_keeps_all_findable),
        cmocka_unit_test(settings_that_do_not_fit_change_nothing),
        cmocka_unit_test(copy_has_equal_keys_and_tensors),
        cmocka_unit_test(later_key_replaces_the_copied_one),
        cmocka_unit_test(uncommitted_file_leaves_the_old_one),
        cmocka_unit_test(writer_refuses_what_the_parser_would),
    };
    int failed = cmocka_run_group_tests(tests, make_dir, remove_dir);
    nj_buf_free(&bytes);
    return failed;
}
