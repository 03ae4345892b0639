/* A builder of small GGUF files in memory, good and damaged, for tests. It checks nothing: damage is what it is for.
 *
 *   gb b = { 0 };                        // version 3, alignment 32
 *   gb_u32(&b, "llama.block_count", 2);
 *   gb_tensor(&b, "output.weight", 0, 2, (uint64_t[]){ 8, 4 }, 128);
 *   nj_buf file = gb_finish(&b);         // b is spent, free the file with nj_buf_free */
#ifndef NJ_TESTS_GGUF_BUILD_H
#define NJ_TESTS_GGUF_BUILD_H

#include "io/nj_io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct gb {
    uint32_t version;           /* 0: 3 */
    uint32_t alignment;         /* 0: 32; also between tensors. The key general.alignment is for the test to add */
    uint64_t n_keys, n_tensors; /* counted, and may be changed before gb_finish */
    nj_buf keys, tensors, data;
} gb;

/* Weight types that tests use: f32, f16, q4_0, q8_0, q4_k, bf16. */
static inline bool gb_type_size(uint32_t type, uint32_t *block_weights, uint32_t *block_bytes)
{
    static const struct {
        uint32_t type, weights, bytes;
    } known[] = { { 0, 1, 4 }, { 1, 1, 2 }, { 2, 32, 18 }, { 8, 32, 34 }, { 12, 256, 144 }, { 30, 1, 2 } };
    for (size_t i = 0; i < NJ_COUNT(known); i++)
        if (known[i].type == type) {
            *block_weights = known[i].weights;
            *block_bytes = known[i].bytes;
            return true;
        }
    return false;
}

static inline const char *gb_type_name(uint32_t type)
{
    return type == 0 ? "f32" : type == 12 ? "q4_k" : type == 144 ? "iq4_ks, an ik_llama.cpp type" : "another type";
}

static const nj_gguf_types gb_types = { gb_type_size, gb_type_name };

/* ---- Bytes ---- */

static inline void gb_put32(nj_buf *b, uint32_t v)
{
    nj_buf_add(b, &v, sizeof v);
}

static inline void gb_put64(nj_buf *b, uint64_t v)
{
    nj_buf_add(b, &v, sizeof v);
}

static inline void gb_puts(nj_buf *b, const char *s, size_t len)
{
    gb_put64(b, len);
    nj_buf_add(b, s, len);
}

/* ---- Keys ---- */

/* A key's name and type; the test adds the value to b->keys. */
static inline void gb_key(gb *b, const char *key, uint32_t type)
{
    gb_puts(&b->keys, key, strlen(key));
    gb_put32(&b->keys, type);
    b->n_keys++;
}

static inline void gb_scalar(gb *b, const char *key, uint32_t type, const void *value, size_t bytes)
{
    gb_key(b, key, type);
    nj_buf_add(&b->keys, value, bytes);
}

static inline void gb_u32(gb *b, const char *key, uint32_t v)
{
    gb_scalar(b, key, NJ_META_U32, &v, sizeof v);
}

static inline void gb_i32(gb *b, const char *key, int32_t v)
{
    gb_scalar(b, key, NJ_META_I32, &v, sizeof v);
}

static inline void gb_u64(gb *b, const char *key, uint64_t v)
{
    gb_scalar(b, key, NJ_META_U64, &v, sizeof v);
}

static inline void gb_f32(gb *b, const char *key, float v)
{
    gb_scalar(b, key, NJ_META_F32, &v, sizeof v);
}

static inline void gb_bool(gb *b, const char *key, bool v)
{
    gb_scalar(b, key, NJ_META_BOOL, &v, sizeof v);
}

static inline void gb_str(gb *b, const char *key, const char *v)
{
    gb_key(b, key, NJ_META_STRING);
    gb_puts(&b->keys, v, strlen(v));
}

/* An array of `count` scalars that take `bytes` together. */
static inline void gb_array(gb *b, const char *key, uint32_t item_type, uint64_t count, const void *items, size_t bytes)
{
    gb_key(b, key, NJ_META_ARRAY);
    gb_put32(&b->keys, item_type);
    gb_put64(&b->keys, count);
    nj_buf_add(&b->keys, items, bytes);
}

static inline void gb_strings(gb *b, const char *key, uint64_t count, const char *const *strings)
{
    gb_array(b, key, NJ_META_STRING, count, "", 0);
    for (uint64_t i = 0; i < count; i++) gb_puts(&b->keys, strings[i], strlen(strings[i]));
}

/* ---- Tensors ---- */

static inline uint32_t gb_alignment(const gb *b)
{
    return b->alignment ? b->alignment : 32;
}

/* A tensor's entry alone, with an offset of the test's choice. */
static inline void gb_tensor_at(gb *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dim,
                                uint64_t offset)
{
    gb_puts(&b->tensors, name, strlen(name));
    gb_put32(&b->tensors, n_dims);
    nj_buf_add(&b->tensors, dim, n_dims * sizeof *dim);
    gb_put32(&b->tensors, type);
    gb_put64(&b->tensors, offset);
    b->n_tensors++;
}

/* A tensor and its data, of which byte i is gb_byte(name, i). */
static inline uint8_t gb_byte(const char *name, uint64_t i)
{
    return (uint8_t)(i * 31 + (unsigned char)name[0] + strlen(name));
}

static inline void gb_tensor(gb *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dim, size_t bytes)
{
    while (b->data.len % gb_alignment(b)) nj_buf_char(&b->data, 0);
    gb_tensor_at(b, name, type, n_dims, dim, b->data.len);
    for (size_t i = 0; i < bytes; i++) nj_buf_char(&b->data, (char)gb_byte(name, i));
}

/* ---- The file ---- */

static inline nj_buf gb_finish(gb *b)
{
    nj_buf out = { 0 };
    nj_buf_str(&out, "GGUF");
    gb_put32(&out, b->version ? b->version : 3);
    gb_put64(&out, b->n_tensors);
    gb_put64(&out, b->n_keys);
    nj_buf_add(&out, b->keys.data, b->keys.len);
    nj_buf_add(&out, b->tensors.data, b->tensors.len);
    while (b->data.len && out.len % gb_alignment(b)) nj_buf_char(&out, 0);
    nj_buf_add(&out, b->data.data, b->data.len);
    if (out.failed || b->keys.failed || b->tensors.failed || b->data.failed) abort();
    nj_buf_free(&b->keys);
    nj_buf_free(&b->tensors);
    nj_buf_free(&b->data);
    *b = (gb){ 0 };
    return out;
}

static inline void gb_write(gb *b, const char *path)
{
    nj_buf out = gb_finish(b);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(out.data, 1, out.len, f) != out.len || fclose(f)) abort();
    nj_buf_free(&out);
}

/* Keys of every type, arrays of every item type and tensors of several. */
static inline void gb_sample(gb *b)
{
    static const struct {
        uint32_t type;
        size_t bytes;
    } scalar[] = { { NJ_META_U8, 1 },  { NJ_META_I8, 1 },  { NJ_META_U16, 2 }, { NJ_META_I16, 2 }, { NJ_META_U32, 4 },
                   { NJ_META_I32, 4 }, { NJ_META_F32, 4 }, { NJ_META_U64, 8 }, { NJ_META_I64, 8 }, { NJ_META_F64, 8 } };
    static const char *const names[] = { "u8", "i8", "u16", "i16", "u32", "i32", "f32", "u64", "i64", "f64" };
    char key[64], items[24];
    memset(items, 0xFE, sizeof items);
    gb_str(b, "general.architecture", "llama");
    gb_bool(b, "test.bool", true);
    for (size_t i = 0; i < NJ_COUNT(scalar); i++) {
        snprintf(key, sizeof key, "test.%s", names[i]);
        gb_scalar(b, key, scalar[i].type, items, scalar[i].bytes);
        snprintf(key, sizeof key, "test.array.%s", names[i]);
        gb_array(b, key, scalar[i].type, 3, items, 3 * scalar[i].bytes);
    }
    gb_array(b, "test.array.bool", NJ_META_BOOL, 3, "\1\0\1", 3);
    gb_array(b, "test.array.empty", NJ_META_U32, 0, "", 0);
    gb_strings(b, "test.array.string", 3, (const char *const[]){ "a", "", "\xE2\x96\x81ni\xC3\xB1o" });
    gb_tensor(b, "token_embd.weight", 0, 2, (uint64_t[]){ 8, 3 }, 96);
    gb_tensor(b, "blk.0.ffn_down_exps.weight", 8, 3, (uint64_t[]){ 32, 2, 2 }, 136);
    gb_tensor(b, "output_norm.weight", 1, 1, (uint64_t[]){ 5 }, 10);
}

#endif
