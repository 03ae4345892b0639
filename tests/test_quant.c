/* Weight formats: golden values, sizes, names, half-precision numbers, panels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <cmocka.h>
#include <jansson.h>

#include "quant/nj_quant.h"

#define GOLDEN "../shared/golden/quants/"

/* Whole file as malloc'd bytes, or NULL when it is not there. */
static void *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *len = (size_t)ftell(f);
    rewind(f);
    void *data = malloc(*len + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *len, f), *len);
    fclose(f);
    return data;
}

static json_t *manifest(const char *test)
{
    json_error_t err;
    json_t *m = json_load_file(GOLDEN "manifest.json", 0, &err);
    if (!m) {
        printf("SKIP %s: no " GOLDEN "\n", test);
        skip();
    }
    return m;
}

static uint32_t number(const json_t *entry, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(entry, key));
}

/* Every golden block decodes to its exact values, bit for bit, at any alignment. */
static void golden_blocks_decode_exactly(void **state)
{
    (void)state;
    json_t *m = manifest(__func__), *entry;
    const char *name;
    json_object_foreach(m, name, entry)
    {
        char path[256];
        size_t blocks_len, values_len;
        snprintf(path, sizeof path, GOLDEN "%s.blocks", name);
        uint8_t *blocks = read_file(path, &blocks_len);
        snprintf(path, sizeof path, GOLDEN "%s.f32", name);
        float *values = read_file(path, &values_len);
        assert_non_null(blocks);
        assert_non_null(values);

        size_t n = values_len / sizeof *values;
        float *out = malloc(values_len);
        uint8_t *odd = malloc(blocks_len + 1);
        assert_non_null(out);
        assert_non_null(odd);
        memcpy(odd + 1, blocks, blocks_len);
        assert_int_equal(nj_row_bytes(number(entry, "type_id"), n), blocks_len);
        nj_decode(number(entry, "type_id"), odd + 1, out, n);
        for (size_t i = 0; i < n; i++)
            if (memcmp(&out[i], &values[i], sizeof out[i]) != 0)
                fail_msg("%s value %zu: %.9g, golden %.9g", name, i, (double)out[i], (double)values[i]);
        free(odd);
        free(out);
        free(values);
        free(blocks);
    }
    json_decref(m);
}

/* Ids, names and sizes agree with the manifest of the golden files. */
static void sizes_match_the_manifest(void **state)
{
    (void)state;
    json_t *m = manifest(__func__), *entry;
    const char *name;
    assert_int_equal(json_object_size(m), 22);
    json_object_foreach(m, name, entry)
    {
        uint32_t type = number(entry, "type_id"), weights = 0, bytes = 0;
        assert_true(nj_format_size(type, &weights, &bytes));
        assert_int_equal(weights, number(entry, "block_weights"));
        assert_int_equal(bytes, number(entry, "block_bytes"));
        assert_string_equal(nj_format_name(type), name);
    }
    json_decref(m);
}

static void twenty_five_formats_are_read(void **state)
{
    (void)state;
    int count = 0;
    for (uint32_t type = 0; type < NJ_TYPE_COUNT + 400; type++) {
        uint32_t weights = 7, bytes = 7;
        if (nj_format_size(type, &weights, &bytes)) {
            count++;
            assert_int_equal(nj_row_bytes(type, 256), 256 / weights * bytes);
        } else {
            assert_true(weights == 7 && bytes == 7);
            assert_int_equal(nj_row_bytes(type, 256), 0);
        }
    }
    assert_int_equal(count, 25);
}

static void plain_types_decode(void **state)
{
    (void)state;
    const float f32[3] = { 1.5f, -0.0f, 3e38f };
    const uint16_t f16[3] = { 0x3c00, 0x8001, 0x7bff }, bf16[3] = { 0x3f80, 0xc040, 0x0001 };
    float out[3];
    nj_decode(NJ_F32, f32, out, 3);
    assert_memory_equal(out, f32, sizeof f32);
    nj_decode(NJ_F16, f16, out, 3);
    assert_true(out[0] == 1.0f && out[1] == -0x1p-24f && out[2] == 65504.0f);
    nj_decode(NJ_BF16, bf16, out, 3);
    assert_true(out[0] == 1.0f && out[1] == -3.0f && out[2] == 0x1p-133f);
}

/* MXFP4's scale at the ends of its range: 2^-128 and 2^-127 are subnormal, the largest overflows to infinity. */
static void mxfp4_scales_reach_both_ends(void **state)
{
    (void)state;
    uint8_t block[17] = { 0, 0x01 };
    float out[32];
    nj_decode(NJ_MXFP4, block, out, 32);
    assert_true(out[0] == 0x1p-128f && out[1] == 0.0f);
    block[0] = 1;
    nj_decode(NJ_MXFP4, block, out, 32);
    assert_true(out[0] == 0x1p-127f);
    block[0] = 2;
    nj_decode(NJ_MXFP4, block, out, 32);
    assert_true(out[0] == 0x1p-126f);
    block[0] = 255;
    block[1] = 0x71;
    nj_decode(NJ_MXFP4, block, out, 32);
    assert_true(out[0] == 0x1p127f && isinf(out[16]));
}

static void row_bytes_refuses_bad_sizes(void **state)
{
    (void)state;
    assert_int_equal(nj_row_bytes(NJ_Q4_K, 0), 0);
    assert_int_equal(nj_row_bytes(NJ_Q4_K, 128), 0);
    assert_int_equal(nj_row_bytes(NJ_Q4_0, 33), 0);
    assert_int_equal(nj_row_bytes(NJ_F32, UINT64_MAX / 4), UINT64_MAX / 4 * 4);
    assert_int_equal(nj_row_bytes(NJ_F32, UINT64_MAX / 4 + 1), 0);
    assert_int_equal(nj_row_bytes(NJ_Q8_0, UINT64_MAX - 31), 0);
    assert_int_equal(nj_row_bytes(NJ_Q4_0, UINT64_MAX - 31), (UINT64_MAX - 31) / 32 * 18);
    assert_int_equal(nj_row_bytes(4, 32), 0);
    assert_int_equal(nj_row_bytes(UINT32_MAX, 32), 0);
}

static void panel_bytes_are_whole_lines_or_zero(void **state)
{
    (void)state;
    assert_int_equal(nj_panel_bytes(NJ_Q4_0, 32), 320); /* 16 * 18 = 288 */
    assert_int_equal(nj_panel_bytes(NJ_F32, 3), 192);
    assert_int_equal(nj_panel_bytes(NJ_Q4_0, 31), 0);
    assert_int_equal(nj_panel_bytes(NJ_F32, UINT64_MAX / 64), UINT64_MAX / 64 * 64);
    assert_int_equal(nj_panel_bytes(NJ_F32, UINT64_MAX / 64 + 1), 0);
    assert_int_equal(nj_panels_bytes(NJ_Q4_0, 0, 32), 0);
    assert_int_equal(nj_panels_bytes(NJ_Q4_0, 16, 32), 320);
    assert_int_equal(nj_panels_bytes(NJ_Q4_0, 17, 32), 640);
    assert_int_equal(nj_panels_bytes(NJ_Q4_0, 16, 0), 0);
    assert_int_equal(nj_panels_bytes(NJ_F32, UINT64_MAX, 1), 0);
    assert_int_equal(nj_panels_bytes(99, 16, 32), 0);
}

static void names_are_found_in_any_case(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++) {
        uint32_t weights, bytes;
        if (nj_format_size(type, &weights, &bytes)) assert_int_equal(nj_format_find(nj_format_name(type)), type);
    }
    assert_int_equal(nj_format_find("Q4_K"), NJ_Q4_K);
    assert_int_equal(nj_format_find("iQ2_xXs"), NJ_IQ2_XXS);
    assert_int_equal(nj_format_find("q4_k_m"), -1);
    assert_int_equal(nj_format_find("i32"), -1);
    assert_int_equal(nj_format_find(""), -1);
}

/* An error about a type we don't read can still say which it is. */
static void foreign_types_have_names(void **state)
{
    (void)state;
    assert_string_equal(nj_format_name(4), "q4_2, removed from GGUF");
    assert_string_equal(nj_format_name(33), "q4_0_8_8, removed from GGUF");
    assert_string_equal(nj_format_name(26), "i32");
    assert_string_equal(nj_format_name(144), "iq4_ks, an ik_llama.cpp type");
    assert_string_equal(nj_format_name(399), "q8_k_r8, an ik_llama.cpp type");
    assert_string_equal(nj_format_name(200), "unknown, an ik_llama.cpp type");
    assert_string_equal(nj_format_name(400), "unknown");
    assert_string_equal(nj_format_name(UINT32_MAX), "unknown");
}

/* All 65536 halves keep their value through a float, and a float between two of them goes to the nearer, a tie to
 * the even one. */
static void halves_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float v = nj_f16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00) {
            assert_true(isnan(v));
            assert_int_equal(nj_f32_to_f16(v), h | 0x200);
            continue;
        }
        assert_int_equal(nj_f32_to_f16(v), h);
        if ((h & 0x7fff) >= 0x7bff) continue;
        float next = nj_f16_to_f32((uint16_t)(h + 1)), middle = v + (next - v) / 2;
        assert_int_equal(nj_f32_to_f16(middle), h & 1 ? h + 1 : h);
        assert_int_equal(nj_f32_to_f16(nextafterf(middle, v)), h);
        assert_int_equal(nj_f32_to_f16(nextafterf(middle, next)), h + 1);
    }
    assert_int_equal(nj_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(nj_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(nj_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(nj_f32_to_f16(0x1p-149f), 0);
}

static void brains_round_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(nj_f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(nj_f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);            /* tie to even */
    assert_int_equal(nj_f32_to_bf16(1.0f + 0x3p-8f), 0x3f82);            /* tie to even, upwards */
    assert_int_equal(nj_f32_to_bf16(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81); /* above the tie */
    assert_int_equal(nj_f32_to_bf16(3.4e38f), 0x7f80);
    assert_int_equal(nj_f32_to_bf16(-INFINITY), 0xff80);
    assert_true(isnan(nj_bf16_to_f32(nj_f32_to_bf16(NAN))));
    for (uint32_t h = 0; h <= 0x7f80; h++) assert_int_equal(nj_f32_to_bf16(nj_bf16_to_f32((uint16_t)h)), h);
}

/* A matrix with a half-filled last panel: each row reads back as it decodes, padding and bytes beyond stay put. */
static void panel_rows_read_as_they_decode(void **state)
{
    (void)state;
    enum { ROWS = 37, COLS = 512 };
    float *want = malloc(COLS * sizeof(float)), *got = malloc((COLS + 1) * sizeof(float));
    for (uint32_t type = 0; type < NJ_TYPE_COUNT; type++) {
        uint64_t row_bytes = nj_row_bytes(type, COLS), panel = nj_panel_bytes(type, COLS);
        if (row_bytes == 0) continue;
        uint8_t *rows = malloc(ROWS * row_bytes);
        uint8_t *data = aligned_alloc(64, nj_panels_bytes(type, ROWS, COLS) + 64);
        assert_non_null(rows);
        assert_non_null(data);
        uint32_t seed = type + 1;
        for (uint64_t i = 0; i < ROWS * row_bytes; i++) rows[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
        memset(data, 0xa5, nj_panels_bytes(type, ROWS, COLS) + 64);
        for (uint32_t r = 0; r < ROWS; r += 16)
            nj_panel_pack(type, rows + r * row_bytes, ROWS - r < 16 ? ROWS - r : 16, COLS, data + r / 16 * panel);
        for (int i = 0; i < 64; i++) assert_int_equal(data[3 * panel + (uint64_t)i], 0xa5);

        nj_panels w = { data, type, ROWS, COLS };
        for (uint32_t r = 0; r < ROWS; r++) {
            got[COLS] = 42.0f;
            nj_panels_row(&w, r, got);
            nj_decode(type, rows + r * row_bytes, want, COLS);
            assert_memory_equal(got, want, COLS * sizeof(float));
            assert_true(got[COLS] == 42.0f);
        }
        w.rows = 48; /* the padding decodes to zeros */
        nj_panels_row(&w, 47, got);
        for (int c = 0; c < COLS; c++) assert_true(got[c] == 0.0f);
        free(data);
        free(rows);
    }
    free(got);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_blocks_decode_exactly),
        cmocka_unit_test(sizes_match_the_manifest),
        cmocka_unit_test(twenty_five_formats_are_read),
        cmocka_unit_test(plain_types_decode),
        cmocka_unit_test(mxfp4_scales_reach_both_ends),
        cmocka_unit_test(row_bytes_refuses_bad_sizes),
        cmocka_unit_test(panel_bytes_are_whole_lines_or_zero),
        cmocka_unit_test(names_are_found_in_any_case),
        cmocka_unit_test(foreign_types_have_names),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(brains_round_to_nearest_even),
        cmocka_unit_test(panel_rows_read_as_they_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
