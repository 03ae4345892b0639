/* Damaged and hostile GGUF files: each is an error that says what is wrong, and costs neither a crash nor memory. */
#include "io/nj_io.h"
#include "tests/gguf_build.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define CORPUS "tests/corpus/gguf"

/* ---- Memory that parsing asks for, counted by the allocator at hand ---- */

int mallctl(const char *name, void *old, size_t *old_len, void *new, size_t new_len) __attribute__((weak));
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *)) __attribute__((weak));

static uint64_t asked; /* under a sanitizer */

static void count_malloc(const volatile void *p, size_t bytes)
{
    (void)p;
    asked += bytes;
}

static void count_free(const volatile void *p)
{
    (void)p;
}

static bool can_count(void)
{
    uint64_t v;
    size_t len = sizeof v;
    return __sanitizer_install_malloc_and_free_hooks || (mallctl && !mallctl("thread.allocated", &v, &len, NULL, 0));
}

/* Bytes ever asked for by this thread. */
static uint64_t allocated(void)
{
    uint64_t v = asked;
    size_t len = sizeof v;
    if (!__sanitizer_install_malloc_and_free_hooks && mallctl) mallctl("thread.allocated", &v, &len, NULL, 0);
    return v;
}

/* ---- Trying files ---- */

static void expect_refusal_of(const void *data, size_t len, const char *text, const char *remedy)
{
    nj_gguf *g = NULL;
    nj_error err = { 0 };
    int rc = nj_gguf_parse(&g, data, len, len, "t.gguf", &gb_types, &err);
    if (rc != -EINVAL) fail_msg("'%s': gave %d", text, rc);
    assert_null(g);
    if (strncmp(err.text, "t.gguf: ", 8)) fail_msg("'%s' does not name the file", err.text);
    if (!strstr(err.text, text)) fail_msg("'%s' lacks '%s'", err.text, text);
    if (!strstr(err.remedy, remedy)) fail_msg("'%s' lacks '%s'", err.remedy, remedy);
}

static void expect_refusal(gb *b, const char *text, const char *remedy)
{
    nj_buf file = gb_finish(b);
    expect_refusal_of(file.data, file.len, text, remedy);
    nj_buf_free(&file);
}

/* A file of one tensor entry and 96 bytes of data. */
static void expect_tensor_refusal(const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dim,
                                  uint64_t offset, const char *text)
{
    gb b = { 0 };
    gb_tensor_at(&b, name, type, n_dims, dim, offset);
    for (int i = 0; i < 96; i++) nj_buf_char(&b.data, 0);
    expect_refusal(&b, text, "");
}

/* ---- Not what was meant ---- */

static void other_kinds_of_files_get_a_hint(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t len;
        const char *text, *remedy;
    } cases[] = { { "", 0, "the file is empty", "download" },
                  { "GG", 2, "does not start with", "download" },
                  { "random bytes", 12, "does not start with", "" },
                  { "<!DOCTYPE html><html>", 21, "a web page", "download link" },
                  { "<!doctype html>", 15, "a web page", "download link" },
                  { "version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS pointer", "git lfs pull" },
                  { "\x40\0\0\0\0\0\0\0{\"__metadata__\"", 23, "safetensors", "GGUF version" },
                  { "{\"architectures\":", 17, "JSON", ".gguf" },
                  { "PK\3\4....", 8, "ZIP", "" },
                  { "\x1f\x8b\x08....", 7, "gzip", "gunzip" },
                  { "tjgg\1\0\0\0", 8, "before GGUF", "" } };
    for (size_t i = 0; i < NJ_COUNT(cases); i++)
        expect_refusal_of(cases[i].data, cases[i].len, cases[i].text, cases[i].remedy);
}

static void other_versions_are_named(void **state)
{
    (void)state;
    gb b = { .version = 1 };
    expect_refusal(&b, "version 1", "newer conversion");
    b.version = 0x03000000;
    expect_refusal(&b, "big-endian", "newer conversion");
    b.version = 4;
    expect_refusal(&b, "version 4", "newer than this Nightjar");
}

/* ---- Truncation ---- */

static void truncated_data_names_the_tensor_and_both_sizes(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_tensor(&b, "blk.0.attn_q.weight", 0, 2, (uint64_t[]){ 8, 4 }, 128);
    nj_buf file = gb_finish(&b);
    char text[128];
    snprintf(text, sizeof text, "tensor blk.0.attn_q.weight ends at byte %zu, the file has %zu.", file.len,
             file.len - 1);
    expect_refusal_of(file.data, file.len - 1, text, "The download is incomplete. Fetch it again.");
    nj_buf_free(&file);
}

static void file_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_sample(&b);
    nj_buf file = gb_finish(&b);
    for (size_t len = 0; len < file.len; len++) {
        char *copy = malloc(len + 1); /* its own block, so that a sanitizer sees a read past its end */
        memcpy(copy, file.data, len);
        expect_refusal_of(copy, len, "", len >= 4 ? "Fetch it again" : "");
        free(copy);
    }
    nj_buf_free(&file);
}

/* ---- Counts and sizes ---- */

static void counts_beyond_the_file_are_refused(void **state)
{
    (void)state;
    static const uint64_t counts[] = { 2, 1000, UINT32_MAX, UINT64_MAX / 14, UINT64_MAX };
    for (size_t i = 0; i < NJ_COUNT(counts); i++) {
        gb b = { 0 };
        gb_u32(&b, "k", 1);
        b.n_keys = counts[i];
        expect_refusal(&b, i ? "do not fit" : "", "Fetch it again");
        gb_u32(&b, "k", 1);
        b.n_tensors = counts[i];
        expect_refusal(&b, i ? "do not fit" : "", "Fetch it again");
    }
}

static void arrays_beyond_the_file_are_refused(void **state)
{
    (void)state;
    static const uint64_t counts[] = { 9, UINT32_MAX, UINT64_MAX / 8 + 1, UINT64_MAX };
    static const uint32_t types[] = { NJ_META_U8, NJ_META_F64, NJ_META_STRING, NJ_META_BOOL };
    for (size_t i = 0; i < NJ_COUNT(counts); i++)
        for (size_t k = 0; k < NJ_COUNT(types); k++) {
            gb b = { 0 };
            gb_array(&b, "a", types[k], counts[i], "12345678", 8);
            expect_refusal(&b, "key a claims", "Fetch it again");
        }
}

static void strings_beyond_the_file_are_refused(void **state)
{
    (void)state;
    static const uint64_t lens[] = { 4, 1u << 31, UINT64_MAX - 7, UINT64_MAX };
    for (size_t i = 0; i < NJ_COUNT(lens); i++) {
        gb b = { 0 };
        gb_key(&b, "s", NJ_META_STRING);
        gb_put64(&b.keys, lens[i]);
        nj_buf_str(&b.keys, "abc");
        expect_refusal(&b, "key s needs", "Fetch it again");
        gb_array(&b, "a", NJ_META_STRING, 1, "", 0);
        gb_put64(&b.keys, lens[i]);
        nj_buf_str(&b.keys, "abc");
        expect_refusal(&b, "key a needs", "Fetch it again");
    }
}

static void long_name_is_refused(void **state)
{
    (void)state;
    gb b = { 0 };
    char *name = malloc(65537);
    memset(name, 'n', 65536);
    name[65536] = '\0';
    gb_u32(&b, name, 1);
    expect_refusal(&b, "longer than 65535", "");
    gb_u32(&b, name + 1, 1);
    gb_u32(&b, name + 1, 1);
    expect_refusal(&b, "occurs twice", "");
    free(name);
}

/* ---- Keys ---- */

static void unprintable_names_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t len;
        const char *text;
    } cases[] = { { "", 0, "is empty" },
                  { "a\0b", 3, "control character" },
                  { "a\x1b[2J", 5, "control character" },
                  { "\xC2\x9B", 2, "control character" },
                  { "\xFF", 1, "not valid UTF-8" },
                  { "a\xC3", 2, "not valid UTF-8" },
                  { "\xC0\xAF", 2, "not valid UTF-8" },
                  { "\xED\xA0\x80", 3, "not valid UTF-8" },
                  { "\xF4\x90\x80\x80", 4, "not valid UTF-8" } };
    for (size_t i = 0; i < NJ_COUNT(cases); i++) {
        gb b = { .n_keys = 1 };
        gb_puts(&b.keys, cases[i].name, cases[i].len);
        gb_put32(&b.keys, NJ_META_U32);
        gb_put32(&b.keys, 1);
        expect_refusal(&b, cases[i].text, "");
        b.n_tensors = 1;
        gb_puts(&b.tensors, cases[i].name, cases[i].len);
        for (int k = 0; k < 64; k++) nj_buf_char(&b.tensors, 1);
        expect_refusal(&b, cases[i].text, "");
    }
}

static void names_in_other_scripts_are_read(void **state)
{
    (void)state;
    gb b = { 0 };
    nj_gguf *g = NULL;
    gb_u32(&b, "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\xA6\xEF\xBF\xBD", 5);
    nj_buf file = gb_finish(&b);
    assert_int_equal(nj_gguf_parse(&g, file.data, file.len, file.len, "t", &gb_types, NULL), 0);
    nj_gguf_close(g);
    nj_buf_free(&file);
}

static void unknown_key_types_are_refused(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_key(&b, "k", 13);
    nj_buf_add(&b.keys, "12345678", 8);
    expect_refusal(&b, "key k has type 13", "");
    gb_array(&b, "k", 0xFFFFFFFF, 1, "12345678", 8);
    expect_refusal(&b, "key k has type 4294967295", "");
}

static void nested_arrays_are_refused(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_array(&b, "deep", NJ_META_ARRAY, 1, "", 0);
    for (int i = 0; i < 1000; i++) {
        gb_put32(&b.keys, NJ_META_ARRAY);
        gb_put64(&b.keys, 1);
    }
    expect_refusal(&b, "key deep is an array of arrays", "");
}

static void bools_other_than_0_and_1_are_refused(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_scalar(&b, "b", NJ_META_BOOL, "\2", 1);
    expect_refusal(&b, "bool of value 2", "");
    gb_array(&b, "b", NJ_META_BOOL, 2, "\1\xFF", 2);
    expect_refusal(&b, "bool of value 255", "");
}

static void duplicate_keys_are_refused(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_u32(&b, "twice", 1);
    gb_u32(&b, "once", 1);
    gb_u32(&b, "twice", 1);
    expect_refusal(&b, "key twice occurs twice", "");
}

static void bad_alignments_are_refused(void **state)
{
    (void)state;
    static const uint32_t bad[] = { 0, 3, 48, 0x80000000, UINT32_MAX };
    for (size_t i = 0; i < NJ_COUNT(bad); i++) {
        gb b = { 0 };
        gb_u32(&b, "general.alignment", bad[i]);
        expect_refusal(&b, "general.alignment", "");
    }
    gb b = { 0 };
    gb_i32(&b, "general.alignment", -32);
    expect_refusal(&b, "key general.alignment is out of range", "");
    gb_str(&b, "general.alignment", "32");
    expect_refusal(&b, "key general.alignment is of type string", "");
}

/* ---- Tensors ---- */

static void bad_dimensions_are_refused(void **state)
{
    (void)state;
    const uint64_t huge = UINT64_C(1) << 62;
    expect_tensor_refusal("t", 0, 0, (uint64_t[]){ 1 }, 0, "tensor t has 0 dimensions");
    expect_tensor_refusal("t", 0, 5, (uint64_t[]){ 1, 1, 1, 1, 1 }, 0, "tensor t has 5 dimensions");
    expect_tensor_refusal("t", 0, 2, (uint64_t[]){ 0, 4 }, 0, "tensor t has a dimension of 0");
    expect_tensor_refusal("t", 0, 2, (uint64_t[]){ 4, 0 }, 0, "tensor t has a dimension of 0");
    expect_tensor_refusal("t", 0, 1, (uint64_t[]){ UINT64_MAX }, 0, "more weights than");
    expect_tensor_refusal("t", 0, 2, (uint64_t[]){ huge, 4 }, 0, "more weights than");
    expect_tensor_refusal("t", 0, 4, (uint64_t[]){ 65536, 65536, 65536, 65536 }, 0, "more weights than");
    expect_tensor_refusal("t", 0, 1, (uint64_t[]){ huge }, 0, "more bytes than");
}

static void row_that_cuts_a_block_is_refused(void **state)
{
    (void)state;
    expect_tensor_refusal("t", 8, 2, (uint64_t[]){ 16, 4 }, 0, "rows of 16 weights, which is not a multiple of the 32");
    expect_tensor_refusal("t", 12, 1, (uint64_t[]){ 255 }, 0, "block of q4_k");
}

static void unknown_weight_type_names_type_tensor_and_remedy(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_tensor_at(&b, "blk.3.ffn_up.weight", 144, 1, (uint64_t[]){ 32 }, 0);
    expect_refusal(&b, "tensor blk.3.ffn_up.weight has weight type 144 (iq4_ks, an ik_llama.cpp type)",
                   "nightjar quantize --help");
}

static void bad_offsets_are_refused(void **state)
{
    (void)state;
    const uint64_t eight[] = { 8 };
    expect_tensor_refusal("t", 0, 1, eight, 16, "not a multiple of the alignment, 32");
    expect_tensor_refusal("t", 0, 1, eight, 96, "tensor t ends at byte");
    expect_tensor_refusal("t", 0, 1, eight, UINT64_C(1) << 63, "tensor t ends at byte");
    expect_tensor_refusal("t", 0, 1, eight, UINT64_MAX - 31, "ends past any possible file");
    expect_tensor_refusal("t", 0, 1, eight, UINT64_MAX - 95, "ends past any possible file");
}

static void overlapping_tensors_are_refused(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_tensor(&b, "first", 0, 1, (uint64_t[]){ 16 }, 64);
    gb_tensor(&b, "last", 0, 1, (uint64_t[]){ 8 }, 32);
    gb_tensor_at(&b, "inside", 0, 1, (uint64_t[]){ 8 }, 32);
    expect_refusal(&b, "tensors first and inside overlap", "");
}

static void tensors_in_any_order_of_offsets_are_read(void **state)
{
    (void)state;
    gb b = { 0 };
    nj_gguf *g = NULL;
    gb_tensor_at(&b, "second", 0, 1, (uint64_t[]){ 8 }, 32);
    gb_tensor(&b, "first", 0, 1, (uint64_t[]){ 8 }, 32);
    for (int i = 0; i < 32; i++) nj_buf_char(&b.data, 2);
    nj_buf file = gb_finish(&b);
    assert_int_equal(nj_gguf_parse(&g, file.data, file.len, file.len, "t", &gb_types, NULL), 0);
    assert_true(nj_gguf_tensor(g, "second")->offset > nj_gguf_tensor(g, "first")->offset);
    nj_gguf_close(g);
    nj_buf_free(&file);
}

static void duplicate_tensors_are_refused(void **state)
{
    (void)state;
    gb b = { 0 };
    gb_tensor(&b, "twice", 0, 1, (uint64_t[]){ 8 }, 32);
    gb_tensor(&b, "twice", 0, 1, (uint64_t[]){ 8 }, 32);
    expect_refusal(&b, "tensor twice occurs twice", "");
}

/* ---- Everything at once ---- */

/* Parses bytes and touches all that comes of them; the memory asked for is at most 16 times the input. */
static bool survives(const char *data, size_t len)
{
    nj_gguf *g = NULL;
    nj_error err = { 0 };
    char *copy = malloc(len + 1);
    memcpy(copy, data, len);
    uint64_t before = allocated();
    int rc = nj_gguf_parse(&g, copy, len, len, "t", &gb_types, &err);
    uint64_t took = allocated() - before;
    if (took > 16 * len + 4096) fail_msg("%llu bytes were allocated for %zu", (unsigned long long)took, len);
    if (rc && !err.text[0]) fail_msg("error %d without a text", rc);
    volatile double sum = 0;
    for (size_t i = 0; !rc && i < nj_gguf_meta_count(g); i++) {
        const nj_meta *m = nj_gguf_meta_at(g, i);
        assert_ptr_equal(nj_gguf_meta(g, m->key.data), m);
        for (uint64_t k = 0; k < m->count; k++)
            sum = sum + (m->item_type == NJ_META_STRING ? (double)strlen(m->strings[k].data) : nj_meta_item_f64(m, k));
    }
    for (size_t i = 0; !rc && i < nj_gguf_tensor_count(g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(g, i);
        assert_ptr_equal(nj_gguf_tensor(g, t->name.data), t);
        assert_true(t->offset + t->bytes <= len);
    }
    nj_gguf_close(g);
    free(copy);
    return !rc;
}

static uint64_t random_state = 42;

static uint64_t random_u64(void) /* xorshift64*: a fixed sequence */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545F4914F6CDD1Du;
}

static void mutate(char *data, size_t *len)
{
    static const uint64_t nasty[] = { 0,          1,          0x7F,       0xFF,      0xFFFF,
                                      0x7FFFFFFF, 0x80000000, UINT32_MAX, INT64_MAX, UINT64_MAX };
    for (uint64_t n = 1 + random_u64() % 4; n; n--) {
        size_t at = random_u64() % *len, width = (size_t)1 << random_u64() % 4;
        uint64_t v = random_u64() % 2 ? nasty[random_u64() % NJ_COUNT(nasty)] : random_u64() % (2 * *len);
        switch (random_u64() % 4) {
        case 0: data[at] ^= (char)(1 << random_u64() % 8); break;
        case 1: memcpy(data + at, &v, width < *len - at ? width : *len - at); break;
        case 2: memmove(data + at, data + random_u64() % (at + 1), (*len - at) / 2); break;
        default: *len = *len > 64 && !(random_u64() % 8) ? 1 + at : *len;
        }
    }
}

static void random_damage_never_crashes_or_takes_memory(void **state)
{
    (void)state;
    if (!can_count()) print_message("SKIP memory of random_damage: neither jemalloc nor a sanitizer counts it\n");
    gb b = { 0 };
    gb_sample(&b);
    nj_buf file = gb_finish(&b);
    char *copy = malloc(file.len);
    size_t good = 0;
    assert_true(survives(file.data, file.len));
    for (int i = 0; i < 20000; i++) {
        size_t len = file.len;
        memcpy(copy, file.data, len);
        mutate(copy, &len);
        good += survives(copy, len);
    }
    assert_in_range(good, 100, 19000); /* else the damage is too coarse, or too mild, to test anything */
    free(copy);
    nj_buf_free(&file);
}

/* The densest legal headers: many tiny keys, tensors and strings. */
static void dense_headers_take_little_memory(void **state)
{
    (void)state;
    if (!can_count()) print_message("SKIP memory of dense_headers: neither jemalloc nor a sanitizer counts it\n");
    gb keys = { 0 }, tensors = { 0 }, strings = { 0 };
    char name[16];
    for (int i = 0; i < 40000; i++) {
        snprintf(name, sizeof name, "%x", i);
        gb_scalar(&keys, name, NJ_META_U8, "", 1);
        gb_tensor_at(&tensors, name, 0, 1, (uint64_t[]){ 1 }, (uint64_t)i * 32);
    }
    for (int i = 0; i < 40000 * 32; i++) nj_buf_char(&tensors.data, 0);
    gb_array(&strings, "a", NJ_META_STRING, 40000, "", 0);
    for (int i = 0; i < 40000; i++) gb_puts(&strings.keys, "", 0);
    gb *const all[] = { &keys, &tensors, &strings };
    for (size_t i = 0; i < NJ_COUNT(all); i++) {
        nj_buf file = gb_finish(all[i]);
        assert_true(survives(file.data, file.len));
        nj_buf_free(&file);
    }
}

/* What the fuzzer found worth keeping stays harmless. */
static void corpus_is_survived(void **state)
{
    (void)state;
    DIR *d = opendir(CORPUS);
    if (!d) {
        print_message("SKIP corpus_is_survived: no %s below the working directory\n", CORPUS);
        skip();
    }
    size_t files = 0, good = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        nj_buf file = { 0 };
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", CORPUS, e->d_name);
        assert_int_equal(nj_file_read(path, 1 << 20, &file, NULL), 0);
        good += survives(file.data, file.len);
        files++;
        nj_buf_free(&file);
    }
    closedir(d);
    assert_true(files >= 10);
    assert_true(good >= 1 && good < files);
}

int main(void)
{
    if (__sanitizer_install_malloc_and_free_hooks) __sanitizer_install_malloc_and_free_hooks(count_malloc, count_free);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_kinds_of_files_get_a_hint),
        cmocka_unit_test(other_versions_are_named),
        cmocka_unit_test(truncated_data_names_the_tensor_and_both_sizes),
        cmocka_unit_test(file_cut_at_any_byte_is_refused),
        cmocka_unit_test(counts_beyond_the_file_are_refused),
        cmocka_unit_test(arrays_beyond_the_file_are_refused),
        cmocka_unit_test(strings_beyond_the_file_are_refused),
        cmocka_unit_test(long_name_is_refused),
        cmocka_unit_test(unprintable_names_are_refused),
        cmocka_unit_test(names_in_other_scripts_are_read),
        cmocka_unit_test(unknown_key_types_are_refused),
        cmocka_unit_test(nested_arrays_are_refused),
        cmocka_unit_test(bools_other_than_0_and_1_are_refused),
        cmocka_unit_test(duplicate_keys_are_refused),
        cmocka_unit_test(bad_alignments_are_refused),
        cmocka_unit_test(bad_dimensions_are_refused),
        cmocka_unit_test(row_that_cuts_a_block_is_refused),
        cmocka_unit_test(unknown_weight_type_names_type_tensor_and_remedy),
        cmocka_unit_test(bad_offsets_are_refused),
        cmocka_unit_test(overlapping_tensors_are_refused),
        cmocka_unit_test(tensors_in_any_order_of_offsets_are_read),
        cmocka_unit_test(duplicate_tensors_are_refused),
        cmocka_unit_test(random_damage_never_crashes_or_takes_memory),
        cmocka_unit_test(dense_headers_take_little_memory),
        cmocka_unit_test(corpus_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
