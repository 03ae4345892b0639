/* Writer of GGUF version 3. Keys are kept in their file form until the header is written before the first data. */
#include "io/gguf_priv.h"
#include "io/part.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 3

struct key {
    nj_str name;
    char *value; /* u32 type and the value, as in the file */
    size_t len;
    uint64_t whole; /* the value of a whole number, else 0: general.alignment needs it */
};

struct tensor {
    nj_str name;
    uint32_t type, n_dims;
    uint64_t dim[4], bytes;
};

struct nj_gguf_writer {
    nj_part part;
    struct key *keys;
    size_t n_keys, cap_keys;
    nj_index key_index;
    struct tensor *tensors;
    size_t n_tensors, cap_tensors;
    nj_index tensor_index;
    bool header_done;
    int failed;    /* what the first failed write returned: nothing can be added after it */
    size_t tensor; /* the one whose data comes next */
    uint64_t done; /* bytes of it that were written */
    uint64_t alignment;
};

int nj_gguf_writer_new(nj_gguf_writer **out, const char *path, nj_error *err)
{
    nj_gguf_writer *w = nj_new(nj_gguf_writer);
    if (!w) return nj_fail(err, -ENOMEM, "%s: not enough memory.", path);
    int rc = nj_part_open(&w->part, path, err);
    if (rc)
        nj_gguf_writer_free(w);
    else
        *out = w;
    return rc;
}

int nj_gguf_writer_new_header(nj_gguf_writer **out, const char *name, nj_error *err)
{
    nj_gguf_writer *w = nj_new(nj_gguf_writer);
    if (w) w->part = (nj_part){ .path = strdup(name), .fd = -1 };
    if (w && w->part.path) {
        *out = w;
        return 0;
    }
    nj_gguf_writer_free(w);
    return nj_fail(err, -ENOMEM, "%s: not enough memory.", name);
}

void nj_gguf_writer_free(nj_gguf_writer *w)
{
    if (!w) return;
    nj_part_drop(&w->part);
    for (size_t i = 0; i < w->n_keys; i++) {
        free((char *)w->keys[i].name.data);
        free(w->keys[i].value);
    }
    for (size_t i = 0; i < w->n_tensors; i++) free((char *)w->tensors[i].name.data);
    nj_index_free(&w->key_index);
    nj_index_free(&w->tensor_index);
    free(w->keys);
    free(w->tensors);
    free(w);
}

static int no_memory(const nj_gguf_writer *w, nj_error *err)
{
    return nj_fail(err, -ENOMEM, "%s: not enough memory for the header.", w->part.path);
}

/* Keys and tensors can be added until the header is on its way. */
static int check_open(const nj_gguf_writer *w, const char *kind, const char *name, nj_error *err)
{
    const char *fault = nj_gguf_name_fault(name, strlen(name));
    if (fault) return nj_fail(err, -EINVAL, "%s: the name of a %s %s.", w->part.path, kind, fault);
    if (w->header_done) return nj_fail(err, -EINVAL, "%s: %s %s comes after the first data.", w->part.path, kind, name);
    return 0;
}

/* ---- Keys ---- */

static void add_u32(nj_buf *b, uint32_t v)
{
    nj_buf_add(b, &v, sizeof v);
}

static void add_u64(nj_buf *b, uint64_t v)
{
    nj_buf_add(b, &v, sizeof v);
}

static void add_str(nj_buf *b, const char *s, size_t len)
{
    add_u64(b, len);
    nj_buf_add(b, s, len);
}

/* Adds or replaces a key; takes over value's memory, also on failure. */
static int put_key(nj_gguf_writer *w, const char *name, nj_buf *value, uint64_t whole, nj_error *err)
{
    int rc = check_open(w, "key", name, err);
    if (rc) goto fail;
    rc = -ENOMEM;
    if (value->failed) goto memory;
    size_t at = nj_index_find(&w->key_index, w->keys, sizeof *w->keys, name, strlen(name));
    if (at == NJ_INDEX_NONE) {
        if (nj_array_grow(&w->keys, &w->cap_keys, w->n_keys + 1, sizeof *w->keys)) goto memory;
        struct key *key = &w->keys[w->n_keys];
        *key = (struct key){ .name = { strdup(name), strlen(name) } };
        if (!key->name.data) goto memory;
        if (nj_index_add(&w->key_index, w->keys, sizeof *w->keys, w->n_keys)) {
            free((char *)key->name.data);
            goto memory;
        }
        at = w->n_keys++;
    }
    free(w->keys[at].value);
    w->keys[at].value = value->data;
    w->keys[at].len = value->len;
    w->keys[at].whole = whole;
    return 0;
memory:
    no_memory(w, err);
fail:
    nj_buf_free(value);
    return rc;
}

int nj_gguf_writer_meta_u32(nj_gguf_writer *w, const char *key, uint32_t value, nj_error *err)
{
    nj_buf b = { 0 };
    add_u32(&b, NJ_META_U32);
    add_u32(&b, value);
    return put_key(w, key, &b, value, err);
}

int nj_gguf_writer_meta_str(nj_gguf_writer *w, const char *key, const char *value, nj_error *err)
{
    nj_buf b = { 0 };
    add_u32(&b, NJ_META_STRING);
    add_str(&b, value, strlen(value));
    return put_key(w, key, &b, 0, err);
}

/* A scalar from its widened form; the low bytes of the integer are the value in every integer type. */
static void add_scalar(nj_buf *b, const nj_meta *m)
{
    float f32 = (float)m->f;
    if (m->type == NJ_META_F32)
        nj_buf_add(b, &f32, sizeof f32);
    else
        nj_buf_add(b, m->type == NJ_META_F64 ? (const void *)&m->f : &m->i, nj_meta_type_bytes(m->type));
}

static void add_array(nj_buf *b, const nj_meta *m)
{
    add_u32(b, m->item_type);
    add_u64(b, m->count);
    if (m->item_type != NJ_META_STRING) {
        nj_buf_add(b, m->items, m->count * nj_meta_type_bytes(m->item_type));
        return;
    }
    for (uint64_t i = 0; i < m->count; i++) add_str(b, m->strings[i].data, m->strings[i].len);
}

int nj_gguf_writer_meta(nj_gguf_writer *w, const nj_meta *m, nj_error *err)
{
    nj_buf b = { 0 };
    add_u32(&b, m->type);
    if (m->type == NJ_META_ARRAY)
        add_array(&b, m);
    else if (m->type == NJ_META_STRING)
        add_str(&b, m->s.data, m->s.len);
    else
        add_scalar(&b, m);
    return put_key(w, m->key.data, &b, nj_meta_is_integer(m->type) ? (uint64_t)m->i : 0, err);
}

int nj_gguf_writer_meta_copy(nj_gguf_writer *w, const nj_gguf *g, nj_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < nj_gguf_meta_count(g) && !rc; i++) {
        const nj_meta *m = nj_gguf_meta_at(g, i);
        if (strncmp(m->key.data, "split.", 6) != 0) rc = nj_gguf_writer_meta(w, m, err);
    }
    return rc;
}

/* ---- Tensors ---- */

int nj_gguf_writer_tensor(nj_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dim,
                          uint64_t bytes, nj_error *err)
{
    int rc = check_open(w, "tensor", name, err);
    if (rc) return rc;
    if (n_dims < 1 || n_dims > 4 || !bytes || bytes > INT64_MAX)
        return nj_fail(err, -EINVAL, "%s: tensor %.200s has %" PRIu32 " dimensions and %" PRIu64 " bytes.",
                       w->part.path, name, n_dims, bytes);
    if (nj_array_grow(&w->tensors, &w->cap_tensors, w->n_tensors + 1, sizeof *w->tensors)) return no_memory(w, err);
    struct tensor *t = &w->tensors[w->n_tensors];
    *t = (struct tensor){ .name = { strdup(name), strlen(name) }, .type = type, .n_dims = n_dims, .bytes = bytes };
    if (!t->name.data) return no_memory(w, err);
    memcpy(t->dim, dim, n_dims * sizeof *dim);
    rc = nj_index_add(&w->tensor_index, w->tensors, sizeof *w->tensors, w->n_tensors);
    if (!rc) {
        w->n_tensors++;
        return 0;
    }
    free((char *)t->name.data);
    return rc == -EEXIST ? nj_fail(err, -EINVAL, "%s: tensor %.200s is there already.", w->part.path, name)
                         : no_memory(w, err);
}

static uint64_t padded(uint64_t bytes, uint64_t alignment)
{
    return (bytes + alignment - 1) & ~(alignment - 1);
}

static int find_alignment(nj_gguf_writer *w, nj_error *err)
{
    static const char key[] = "general.alignment";
    size_t at = nj_index_find(&w->key_index, w->keys, sizeof *w->keys, key, sizeof key - 1);
    w->alignment = at == NJ_INDEX_NONE ? NJ_GGUF_ALIGNMENT_DEFAULT : w->keys[at].whole;
    if (nj_gguf_alignment_ok(w->alignment)) return 0;
    return nj_fail(err, -EINVAL, "%s: key %.200s must be a power of two up to 2^30.", w->part.path, key);
}

int nj_gguf_writer_header(nj_gguf_writer *w, nj_buf *out, uint64_t *file_bytes, nj_error *err)
{
    uint64_t offset = 0;
    int rc = find_alignment(w, err);
    if (rc) return rc;
    nj_buf_clear(out);
    nj_buf_str(out, "GGUF");
    add_u32(out, VERSION);
    add_u64(out, w->n_tensors);
    add_u64(out, w->n_keys);
    for (size_t i = 0; i < w->n_keys; i++) {
        add_str(out, w->keys[i].name.data, w->keys[i].name.len);
        nj_buf_add(out, w->keys[i].value, w->keys[i].len);
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *t = &w->tensors[i];
        add_str(out, t->name.data, t->name.len);
        add_u32(out, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++) add_u64(out, t->dim[d]);
        add_u32(out, t->type);
        add_u64(out, offset);
        if (__builtin_add_overflow(offset, padded(t->bytes, w->alignment), &offset) || offset > INT64_MAX / 2)
            rc = nj_fail(err, -EINVAL, "%s: its tensors have more bytes than a file can.", w->part.path);
    }
    while (!out->failed && w->n_tensors && out->len % w->alignment) nj_buf_char(out, 0);
    if (out->failed) rc = no_memory(w, err);
    *file_bytes = out->len + offset;
    return rc;
}

static int write_header(nj_gguf_writer *w, nj_error *err)
{
    nj_buf b = { 0 };
    uint64_t bytes;
    int rc = nj_gguf_writer_header(w, &b, &bytes, err);
    if (!rc) {
        rc = nj_part_reserve(&w->part, bytes, err);
        if (!rc) rc = nj_part_write(&w->part, b.data, b.len, err);
        w->header_done = true;
        w->failed = rc;
    }
    nj_buf_free(&b);
    return rc;
}

static int write_padding(nj_gguf_writer *w, uint64_t len, nj_error *err)
{
    static const char zeros[4096];
    int rc = 0;
    for (; len && !rc; len -= len < sizeof zeros ? len : sizeof zeros)
        rc = nj_part_write(&w->part, zeros, len < sizeof zeros ? len : sizeof zeros, err);
    return rc;
}

/* Some bytes of the current tensor, and the padding when they are its last. */
static int write_some(nj_gguf_writer *w, const char *data, uint64_t len, nj_error *err)
{
    const struct tensor *t = &w->tensors[w->tensor];
    int rc = nj_part_write(&w->part, data, len, err);
    w->done += len;
    if (!rc && w->done == t->bytes) {
        rc = write_padding(w, padded(t->bytes, w->alignment) - t->bytes, err);
        w->tensor++;
        w->done = 0;
    }
    return w->failed = rc;
}

static int already_failed(const nj_gguf_writer *w, nj_error *err)
{
    return nj_fail(err, w->failed, "%s: an earlier write of it has failed: %s.", w->part.path, strerror(-w->failed));
}

int nj_gguf_writer_data(nj_gguf_writer *w, const void *data, uint64_t len, nj_error *err)
{
    const char *from = data;
    int rc = 0;
    if (w->failed) return already_failed(w, err);
    if (!w->header_done && (rc = write_header(w, err)) != 0) return rc;
    while (len && !rc) {
        if (w->tensor == w->n_tensors)
            return w->failed = nj_fail(err, -EINVAL, "%s: %" PRIu64 " bytes too many for the declared tensors.",
                                       w->part.path, len);
        uint64_t left = w->tensors[w->tensor].bytes - w->done, some = len < left ? len : left;
        rc = write_some(w, from, some, err);
        from += some;
        len -= some;
    }
    return rc;
}

int nj_gguf_writer_commit(nj_gguf_writer *w, nj_error *err)
{
    int rc;
    if (w->failed) return already_failed(w, err);
    if (!w->header_done && (rc = write_header(w, err)) != 0) return rc;
    if (w->tensor < w->n_tensors)
        return nj_fail(err, -EINVAL, "%s: data of tensor %.200s is missing: %" PRIu64 " of %" PRIu64 " bytes came.",
                       w->part.path, w->tensors[w->tensor].name.data, w->done, w->tensors[w->tensor].bytes);
    return nj_part_commit(&w->part, err);
}
