/* How bytes arrive: the GGUF parser and writer, checksums, durable files. Every byte of a file is hostile. */
#ifndef NJ_IO_H
#define NJ_IO_H

#include "numa/nj_base.h"

/* ---- GGUF metadata. Format: the GGUF specification of the ggml project, versions 2 and 3, little-endian. ---- */

typedef enum nj_meta_type {
    NJ_META_U8,
    NJ_META_I8,
    NJ_META_U16,
    NJ_META_I16,
    NJ_META_U32,
    NJ_META_I32,
    NJ_META_F32,
    NJ_META_BOOL,
    NJ_META_STRING,
    NJ_META_ARRAY,
    NJ_META_U64,
    NJ_META_I64,
    NJ_META_F64,
    NJ_META_TYPE_COUNT
} nj_meta_type;

typedef struct nj_str {
    const char *data;
    size_t len;
} nj_str; /* NUL-terminated too, but may hold NULs inside */

/* One key. Scalars are widened: all integers and bools to `i` (u64 reinterpreted) and `f`, floats to `f`.
 * Arrays of scalars are kept as written in the file (`items`, unaligned, `count` of them); arrays of strings as
 * `strings`. */
typedef struct nj_meta {
    nj_str key;
    nj_meta_type type, item_type; /* item_type only for arrays; nested arrays are refused */
    int64_t i;
    double f;
    nj_str s;
    uint64_t count;
    const void *items;
    const nj_str *strings;
    bool overridden; /* set by nj_gguf_set */
} nj_meta;

typedef struct nj_tensor {
    nj_str name;
    uint32_t type;   /* GGUF type id, known to the caller's nj_gguf_types */
    uint32_t n_dims; /* 1..4 */
    uint64_t dim[4]; /* dim[0] is the row length; unused ones are 1 */
    uint64_t bytes;
    uint64_t offset; /* absolute, in file `file` */
    uint32_t file;   /* index of the split file */
} nj_tensor;

/* What the parser must know of weight types. Supplied by the caller from quant's tables, as io may not include quant.
 */
typedef struct nj_gguf_types {
    bool (*size)(uint32_t type, uint32_t *block_weights, uint32_t *block_bytes);
    const char *(*name)(uint32_t type);
} nj_gguf_types;

typedef struct nj_gguf nj_gguf;

/* Opens FILE and, when its name ends in -00001-of-000NN.gguf, all its parts, and checks everything that can be checked
 * without reading tensor data: counts and sizes before allocation, duplicate names, alignment, tensor ends against file
 * sizes, overlaps. Any error names the file and the key or tensor. The result is read-only but for nj_gguf_set. */
int nj_gguf_open(nj_gguf **out, const char *path, const nj_gguf_types *types, nj_error *err);
void nj_gguf_close(nj_gguf *g); /* accepts NULL */

/* The same over bytes in memory (tests, fuzzers, headers of files not yet downloaded); `name` is for messages.
 * size_bytes is the size that the whole file claims to have; only [0, len) is read. Data must outlive the object.
 * -EAGAIN when nothing is wrong but the header goes on past `len`: try again with more of the file. */
int nj_gguf_parse(nj_gguf **out, const void *data, size_t len, uint64_t size_bytes, const char *name,
                  const nj_gguf_types *types, nj_error *err);

const char *nj_gguf_path(const nj_gguf *g); /* as given to open */
uint32_t nj_gguf_version(const nj_gguf *g);
uint32_t nj_gguf_files(const nj_gguf *g); /* 1, or the number of splits */
const char *nj_gguf_file_path(const nj_gguf *g, uint32_t file);
uint64_t nj_gguf_bytes(const nj_gguf *g); /* of all files */

size_t nj_gguf_meta_count(const nj_gguf *g);
const nj_meta *nj_gguf_meta_at(const nj_gguf *g, size_t index); /* in file order */
const nj_meta *nj_gguf_meta(const nj_gguf *g, const char *key); /* or NULL; hashed */

size_t nj_gguf_tensor_count(const nj_gguf *g);
const nj_tensor *nj_gguf_tensor_at(const nj_gguf *g, size_t index);  /* in file order */
const nj_tensor *nj_gguf_tensor(const nj_gguf *g, const char *name); /* or NULL; hashed */

/* Typed look-ups. 0 and *out set; -ENOENT when absent (err untouched, *out untouched, so it may hold the default);
 * -EINVAL with err filled when the key has the wrong type or a value that does not fit. */
int nj_gguf_get_u64(const nj_gguf *g, const char *key, uint64_t *out, nj_error *err);
int nj_gguf_get_u32(const nj_gguf *g, const char *key, uint32_t *out, nj_error *err);
int nj_gguf_get_f32(const nj_gguf *g, const char *key, float *out, nj_error *err);
int nj_gguf_get_bool(const nj_gguf *g, const char *key, bool *out, nj_error *err);
int nj_gguf_get_str(const nj_gguf *g, const char *key, nj_str *out, nj_error *err);

/* Element of a numeric array, widened. index < m->count. */
double nj_meta_item_f64(const nj_meta *m, uint64_t index);
int64_t nj_meta_item_i64(const nj_meta *m, uint64_t index);

/* Overrides or adds a scalar key from text ("llama.rope.freq_base=500000"): the type of an existing key is kept, a new
 * one is int, float, bool or string as it reads. -EINVAL for text without '=', a value that does not fit the type, or
 * an array. Which keys may be changed is the caller's business. Earlier nj_meta pointers are invalid after it. */
int nj_gguf_set(nj_gguf *g, const char *assignment, nj_error *err);

/* Reads bytes [offset, offset + len) of a tensor. Thread-safe. -EIO when the file has shrunk or the disk fails. */
int nj_gguf_read(const nj_gguf *g, const nj_tensor *t, uint64_t offset, void *dst, uint64_t len, nj_error *err);

/* ---- GGUF writer: metadata copied from an open file with changes, then tensors in order, then commit. ---- */

typedef struct nj_gguf_writer nj_gguf_writer;

/* Starts PATH.part; the data never replaces PATH before nj_gguf_writer_commit. */
int nj_gguf_writer_new(nj_gguf_writer **out, const char *path, nj_error *err);
/* A writer without a file, for nj_gguf_writer_header alone; `name` is for messages. */
int nj_gguf_writer_new_header(nj_gguf_writer **out, const char *name, nj_error *err);
/* Adds or replaces the key m->key.data with the value of `m`. */
int nj_gguf_writer_meta(nj_gguf_writer *w, const nj_meta *m, nj_error *err);
/* Copies every key of `g` but split.*; a later meta call for the same key replaces it. */
int nj_gguf_writer_meta_copy(nj_gguf_writer *w, const nj_gguf *g, nj_error *err);
int nj_gguf_writer_meta_u32(nj_gguf_writer *w, const char *key, uint32_t value, nj_error *err);
int nj_gguf_writer_meta_str(nj_gguf_writer *w, const char *key, const char *value, nj_error *err);
/* Declares a tensor (all before the first data). `bytes` is its exact size. */
int nj_gguf_writer_tensor(nj_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dim,
                          uint64_t bytes, nj_error *err);
/* Replaces *out by the header as it is in the file, padding included; *file_bytes: what the whole file will have. */
int nj_gguf_writer_header(nj_gguf_writer *w, nj_buf *out, uint64_t *file_bytes, nj_error *err);
/* Appends data of the tensors in declared order; padding between tensors is added by the writer. */
int nj_gguf_writer_data(nj_gguf_writer *w, const void *data, uint64_t len, nj_error *err);
/* fsync, rename over PATH, fsync the directory. -EINVAL when data is missing. */
int nj_gguf_writer_commit(nj_gguf_writer *w, nj_error *err);
/* Frees; an uncommitted PATH.part is removed. Accepts NULL. */
void nj_gguf_writer_free(nj_gguf_writer *w);

/* ---- Files ---- */

/* SHA-256 (FIPS 180-4) of a file as 64 hex digits and NUL. `progress` (may be NULL) gets bytes done. */
int nj_sha256_file(const char *path, char hex[65], void (*progress)(void *arg, uint64_t done), void *arg,
                   nj_error *err);

/* Whole file into *buf (bytes_max bounds it: -EFBIG beyond). "-" reads standard input. */
int nj_file_read(const char *path, uint64_t bytes_max, nj_buf *buf, nj_error *err);

/* Writes PATH atomically and durably: PATH.part, fsync, rename, fsync of the directory. */
int nj_file_write(const char *path, const void *data, size_t len, nj_error *err);

/* fsync of the directory that holds `path`, so that a rename or creation in it survives a power cut. */
int nj_dir_sync(const char *path, nj_error *err);

#endif
