/* Parser of one GGUF file's header, versions 2 and 3, little-endian. Layout (GGUF specification, ggml project):
 *   "GGUF", u32 version, u64 tensors, u64 keys, then
 *   keys:    string name, u32 type, value          (string: u64 length, bytes; array: u32 item type, u64 count, items)
 *   tensors: string name, u32 n_dims, u64 dim[n_dims], u32 type, u64 offset from the data's start
 *   data:    starts at the next multiple of general.alignment (32 when not given).
 *
 * The header is walked twice by the same code: first to check everything and add up what its strings and arrays need,
 * then, with that memory allocated, to keep it. So no allocation follows a claimed count, only what was there. */
#include "io/gguf_priv.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF values are copied from the file as they are");

#define NAME_MAX_BYTES   65535 /* the specification's bound on keys; nobody has longer tensor names */
#define KEY_BYTES_MIN    (8 + 1 + 4 + 1)
#define TENSOR_BYTES_MIN (8 + 1 + 4 + 8 + 4 + 8)

static const struct {
    const char *name;
    uint8_t bytes;
} meta_types[NJ_META_TYPE_COUNT] = {
    [NJ_META_U8] = { "u8", 1 },       [NJ_META_I8] = { "i8", 1 },     [NJ_META_U16] = { "u16", 2 },
    [NJ_META_I16] = { "i16", 2 },     [NJ_META_U32] = { "u32", 4 },   [NJ_META_I32] = { "i32", 4 },
    [NJ_META_F32] = { "f32", 4 },     [NJ_META_BOOL] = { "bool", 1 }, [NJ_META_STRING] = { "string", 0 },
    [NJ_META_ARRAY] = { "array", 0 }, [NJ_META_U64] = { "u64", 8 },   [NJ_META_I64] = { "i64", 8 },
    [NJ_META_F64] = { "f64", 8 },
};

size_t nj_meta_type_bytes(nj_meta_type type)
{
    return meta_types[type].bytes;
}

const char *nj_meta_type_name(nj_meta_type type)
{
    return meta_types[type].name;
}

bool nj_meta_is_integer(nj_meta_type type)
{
    return nj_meta_type_bytes(type) && type != NJ_META_BOOL && type != NJ_META_F32 && type != NJ_META_F64;
}

/* ---- Reading bytes ---- */

/* Where the walk is, and where what it keeps goes. While strs and text are NULL, n_strs and n_text only count. */
struct walk {
    const uint8_t *data;
    uint64_t pos, len, bytes; /* [0, len) can be read; the file claims `bytes` */
    nj_str *strs;
    char *text;
    size_t n_strs, n_text;
    char what[160]; /* "key llama.block_count", for messages */
    nj_error *err;
};

/* The next n bytes, or NULL with the error filled: -EAGAIN when they are in the file but not in [0, len). */
static const uint8_t *take(struct walk *w, uint64_t n)
{
    if (n > w->bytes - w->pos) {
        nj_fail(w->err, -EINVAL, "%s needs %" PRIu64 " bytes at byte %" PRIu64 ", the file has %" PRIu64 ".", w->what,
                n, w->pos, w->bytes);
        nj_remedy(w->err, "The download is incomplete or damaged. Fetch it again.");
        return NULL;
    }
    if (n > w->len - w->pos) {
        nj_fail(w->err, -EAGAIN, "the header goes on past the %" PRIu64 " bytes at hand.", w->len);
        return NULL;
    }
    const uint8_t *at = w->data + w->pos;
    w->pos += n;
    return at;
}

static bool take_u32(struct walk *w, uint32_t *v)
{
    const uint8_t *at = take(w, sizeof *v);
    if (at) memcpy(v, at, sizeof *v);
    return at;
}

static bool take_u64(struct walk *w, uint64_t *v)
{
    const uint8_t *at = take(w, sizeof *v);
    if (at) memcpy(v, at, sizeof *v);
    return at;
}

/* Copies bytes into the text and a NUL after them when wanted; while only counting, gives the file's own bytes. */
static const char *keep(struct walk *w, const uint8_t *at, size_t len, bool nul)
{
    const char *kept = (const char *)at;
    if (w->text) {
        char *to = w->text + w->n_text;
        memcpy(to, at, len);
        if (nul) to[len] = '\0';
        kept = to;
    }
    w->n_text += len + nul;
    return kept;
}

static bool take_str(struct walk *w, nj_str *s)
{
    uint64_t len;
    const uint8_t *at;
    if (!take_u64(w, &len) || !(at = take(w, len))) return false;
    *s = (nj_str){ keep(w, at, len, true), len };
    return true;
}

/* Bytes of the valid UTF-8 character at s, 0 when there is none. */
static size_t utf8_char(const unsigned char *s, size_t len)
{
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
               : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
               : s[0] < 0xF5                 ? 4
                                             : 0;
    if (n > len || (n > 1 && s[0] < 0xC2)) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if (n == 3 && ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] >= 0xA0))) return 0; /* overlong, surrogate */
    if (n == 4 && ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] >= 0x90))) return 0; /* overlong, too large */
    return n;
}

const char *nj_gguf_name_fault(const char *name, size_t len)
{
    const unsigned char *s = (const unsigned char *)name;
    if (!len) return "is empty";
    if (len > NAME_MAX_BYTES) return "is longer than 65535 bytes";
    for (size_t i = 0, n; i < len; i += n) {
        if (!(n = utf8_char(s + i, len - i))) return "is not valid UTF-8";
        if (s[i] < 0x20 || s[i] == 0x7F || (s[i] == 0xC2 && s[i + 1] < 0xA0)) return "holds a control character";
    }
    return NULL;
}

/* A name of a key or tensor; `what` becomes "key NAME". */
static bool take_name(struct walk *w, const char *kind, nj_str *name)
{
    if (!take_str(w, name)) return false;
    const char *fault = nj_gguf_name_fault(name->data, name->len);
    if (fault) {
        nj_fail(w->err, -EINVAL, "the name of %s %s.", w->what, fault);
        return false;
    }
    size_t room = sizeof w->what - 16, len = name->len <= room ? name->len : nj_utf8_whole(name->data, room);
    snprintf(w->what, sizeof w->what, "%s %.*s", kind, (int)len, name->data);
    return true;
}

/* ---- Keys ---- */

static bool take_type(struct walk *w, nj_meta_type *type)
{
    uint32_t raw;
    if (!take_u32(w, &raw)) return false;
    if (raw >= NJ_META_TYPE_COUNT) {
        nj_fail(w->err, -EINVAL, "%s has type %" PRIu32 ", which GGUF does not know.", w->what, raw);
        return false;
    }
    *type = raw;
    return true;
}

static bool bools_ok(struct walk *w, const uint8_t *at, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (at[i] > 1) {
            nj_fail(w->err, -EINVAL, "%s holds a bool of value %d; only 0 and 1 exist.", w->what, at[i]);
            return false;
        }
    return true;
}

static bool take_strings(struct walk *w, nj_meta *m)
{
    nj_str *first = w->strs ? w->strs + w->n_strs : NULL, s;
    for (uint64_t i = 0; i < m->count; i++) {
        if (!take_str(w, &s)) return false;
        if (first) first[i] = s;
        w->n_strs++;
    }
    m->strings = first;
    return true;
}

static bool take_array(struct walk *w, nj_meta *m)
{
    if (!take_type(w, &m->item_type) || !take_u64(w, &m->count)) return false;
    if (m->item_type == NJ_META_ARRAY) {
        nj_fail(w->err, -EINVAL, "%s is an array of arrays, which no known model needs and Nightjar refuses.", w->what);
        return false;
    }
    size_t item_bytes = m->item_type == NJ_META_STRING ? 8 : nj_meta_type_bytes(m->item_type);
    if (m->count > (w->bytes - w->pos) / item_bytes) {
        nj_fail(w->err, -EINVAL, "%s claims %" PRIu64 " items, but only %" PRIu64 " bytes follow.", w->what, m->count,
                w->bytes - w->pos);
        nj_remedy(w->err, "The download is incomplete or damaged. Fetch it again.");
        return false;
    }
    if (m->item_type == NJ_META_STRING) return take_strings(w, m);
    const uint8_t *at = take(w, m->count * item_bytes);
    if (!at || (m->item_type == NJ_META_BOOL && !bools_ok(w, at, m->count))) return false;
    m->items = keep(w, at, m->count * item_bytes, false);
    return true;
}

static bool take_key(struct walk *w, uint64_t number, nj_meta *m)
{
    *m = (nj_meta){ 0 };
    snprintf(w->what, sizeof w->what, "key number %" PRIu64, number + 1);
    if (!take_name(w, "key", &m->key) || !take_type(w, &m->type)) return false;
    if (m->type == NJ_META_STRING) return take_str(w, &m->s);
    if (m->type == NJ_META_ARRAY) return take_array(w, m);
    const uint8_t *at = take(w, nj_meta_type_bytes(m->type));
    if (!at || (m->type == NJ_META_BOOL && !bools_ok(w, at, 1))) return false;
    nj_meta_widen(m->type, at, &m->i, &m->f);
    return true;
}

/* ---- Tensors ---- */

/* bytes of the tensor, from its dimensions and type. */
static bool size_tensor(struct walk *w, nj_tensor *t, const nj_gguf_types *types)
{
    uint32_t block_weights, block_bytes;
    uint64_t weights = 1;
    if (!types->size(t->type, &block_weights, &block_bytes)) {
        nj_fail(w->err, -EINVAL, "%s has weight type %" PRIu32 " (%s), which Nightjar does not read.", w->what, t->type,
                types->name(t->type));
        nj_remedy(w->err, "Use a GGUF in one of the types listed by `nightjar quantize --help`, or requantize from the "
                          "original.");
        return false;
    }
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (!t->dim[i]) {
            nj_fail(w->err, -EINVAL, "%s has a dimension of 0.", w->what);
            return false;
        }
        if (__builtin_mul_overflow(weights, t->dim[i], &weights) || weights > INT64_MAX) {
            nj_fail(w->err, -EINVAL, "%s has more weights than 63 bits can count.", w->what);
            return false;
        }
    }
    if (t->dim[0] % block_weights) {
        nj_fail(w->err, -EINVAL,
                "%s has rows of %" PRIu64 " weights, which is not a multiple of the %" PRIu32 " in a block of %s.",
                w->what, t->dim[0], block_weights, types->name(t->type));
        return false;
    }
    if (__builtin_mul_overflow(weights / block_weights, block_bytes, &t->bytes)) {
        nj_fail(w->err, -EINVAL, "%s has more bytes than 64 bits can count.", w->what);
        return false;
    }
    return true;
}

/* t->offset is left as in the file: from the start of the data. */
static bool take_tensor(struct walk *w, uint64_t number, const nj_gguf_types *types, nj_tensor *t)
{
    *t = (nj_tensor){ .dim = { 1, 1, 1, 1 } };
    snprintf(w->what, sizeof w->what, "tensor number %" PRIu64, number + 1);
    if (!take_name(w, "tensor", &t->name) || !take_u32(w, &t->n_dims)) return false;
    if (t->n_dims < 1 || t->n_dims > 4) {
        nj_fail(w->err, -EINVAL, "%s has %" PRIu32 " dimensions; 1 to 4 are possible.", w->what, t->n_dims);
        return false;
    }
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (!take_u64(w, &t->dim[i])) return false;
    return take_u32(w, &t->type) && take_u64(w, &t->offset) && size_tensor(w, t, types);
}

/* ---- The whole header ---- */

/* What people download by mistake, told by its first bytes. */
static int not_a_gguf(const uint8_t *data, size_t len, nj_error *err)
{
    static const struct {
        const char *start, *is, *remedy;
        size_t skip;
    } known[] = {
        { "version https://git-lfs", "a Git LFS pointer: a note saying where the model lies, not the model",
          "Fetch the file itself, with `git lfs pull` or the site's download link.", 0 },
        { "<!DOCTYPE", "a web page", "Use the download link of the file, not the address of its page.", 0 },
        { "<!doctype", "a web page", "Use the download link of the file, not the address of its page.", 0 },
        { "<html", "a web page", "Use the download link of the file, not the address of its page.", 0 },
        { "{\"", "a safetensors file",
          "Fetch a GGUF version of this model, or convert it with llama.cpp's "
          "convert_hf_to_gguf.py.",
          8 },
        { "{\"", "JSON", "A model file ends in .gguf; the .json files beside it are not needed.", 0 },
        { "PK\3\4", "a ZIP archive or PyTorch checkpoint", "Unpack it, or fetch a GGUF version of this model.", 0 },
        { "\x1f\x8b", "compressed with gzip", "Unpack it with gunzip first.", 0 },
        { "\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it with `zstd -d` first.", 0 },
        { "tjgg", "a GGML file from before GGUF (2023)", "Fetch a GGUF version of this model.", 0 },
        { "fmgg", "a GGML file from before GGUF (2023)", "Fetch a GGUF version of this model.", 0 },
        { "lmgg", "a GGML file from before GGUF (2023)", "Fetch a GGUF version of this model.", 0 },
    };
    for (size_t i = 0; i < NJ_COUNT(known); i++) {
        size_t n = strlen(known[i].start);
        if (len < known[i].skip + n || memcmp(data + known[i].skip, known[i].start, n)) continue;
        nj_fail(err, -EINVAL, "not a GGUF file but %s.", known[i].is);
        return nj_remedy(err, "%s", known[i].remedy);
    }
    nj_fail(err, -EINVAL, len ? "not a GGUF file: it does not start with the letters GGUF." : "the file is empty.");
    return nj_remedy(err, "Check that the path names a .gguf model and that its download succeeded.");
}

static int check_version(uint32_t version, nj_error *err)
{
    if (version == 2 || version == 3) return 0;
    if (version == 1) {
        nj_fail(err, -EINVAL, "GGUF version 1, of August 2023, is too old; versions 2 and 3 can be read.");
    } else if (version && !(version & 0xFFFF)) { /* 2 or 3 with its bytes in the other order */
        nj_fail(err, -EINVAL, "a big-endian GGUF; only little-endian ones can be read.");
    } else {
        nj_fail(err, -EINVAL, "GGUF version %" PRIu32 " is not known; versions 2 and 3 can be read.", version);
        return nj_remedy(err, "The file is damaged, or newer than this Nightjar.");
    }
    return nj_remedy(err, "Fetch a newer conversion of this model.");
}

/* Walks the header from its start. `metas` and `tensors` may be NULL: then nothing is kept but the counts. */
static bool walk_header(struct walk *w, const nj_gguf_types *types, uint32_t *version, nj_meta *metas,
                        uint64_t *n_metas, nj_tensor *tensors, uint64_t *n_tensors)
{
    uint32_t magic;
    nj_meta meta;
    nj_tensor tensor;
    snprintf(w->what, sizeof w->what, "the header");
    w->pos = w->n_strs = w->n_text = 0;
    if (w->bytes < sizeof magic || (w->len >= sizeof magic && memcmp(w->data, "GGUF", sizeof magic))) {
        not_a_gguf(w->data, w->len, w->err);
        return false;
    }
    if (!take_u32(w, &magic) || !take_u32(w, version) || check_version(*version, w->err)) return false;
    if (!take_u64(w, n_tensors) || !take_u64(w, n_metas)) return false;
    uint64_t left = w->bytes - w->pos;
    if (*n_metas > NJ_INDEX_MAX || *n_tensors > NJ_INDEX_MAX || *n_metas > left / KEY_BYTES_MIN ||
        *n_tensors > left / TENSOR_BYTES_MIN) {
        nj_fail(w->err, -EINVAL,
                "the header claims %" PRIu64 " keys and %" PRIu64 " tensors, which do not fit into %" PRIu64 " bytes.",
                *n_metas, *n_tensors, w->bytes);
        nj_remedy(w->err, "The download is incomplete or damaged. Fetch it again.");
        return false;
    }
    for (uint64_t i = 0; i < *n_metas; i++)
        if (!take_key(w, i, metas ? &metas[i] : &meta)) return false;
    for (uint64_t i = 0; i < *n_tensors; i++)
        if (!take_tensor(w, i, types, tensors ? &tensors[i] : &tensor)) return false;
    return true;
}

/* ---- What must hold between keys and tensors ---- */

static const nj_meta *find(const nj_meta *metas, const nj_index *index, const char *key)
{
    size_t at = nj_index_find(index, metas, sizeof *metas, key, strlen(key));
    return at == NJ_INDEX_NONE ? NULL : &metas[at];
}

/* *v stays as it is when the key is absent. */
static int whole_number(const nj_meta *m, uint64_t max, uint64_t *v, nj_error *err)
{
    if (!m) return 0;
    if (!nj_meta_is_integer(m->type))
        return nj_fail(err, -EINVAL, "key %.200s is of type %s, not an integer.", m->key.data,
                       nj_meta_type_name(m->type));
    if ((m->type != NJ_META_U64 && m->i < 0) || (uint64_t)m->i > max)
        return nj_fail(err, -EINVAL, "key %.200s is out of range (0 to %" PRIu64 ").", m->key.data, max);
    *v = (uint64_t)m->i;
    return 0;
}

struct extent {
    uint64_t offset, end;
    const nj_tensor *tensor;
};

static int extent_order(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Turns offsets into absolute ones and checks them against the file's size and each other. */
static int place_tensors(nj_tensor *tensors, uint64_t n, uint64_t header_bytes, uint64_t file_bytes, uint64_t alignment,
                         nj_error *err)
{
    uint64_t start = (header_bytes + alignment - 1) & ~(alignment - 1); /* both far below 2^63 */
    struct extent *extent = nj_array_new(n, sizeof *extent);
    if (n && !extent) return nj_fail(err, -ENOMEM, "not enough memory for %" PRIu64 " tensors.", n);
    int rc = 0;
    for (uint64_t i = 0; i < n && !rc; i++) {
        nj_tensor *t = &tensors[i];
        uint64_t end;
        if (t->offset & (alignment - 1)) {
            rc = nj_fail(err, -EINVAL,
                         "tensor %.200s starts at offset %" PRIu64 ", which is not a multiple of the "
                         "alignment, %" PRIu64 ".",
                         t->name.data, t->offset, alignment);
        } else if (__builtin_add_overflow(t->offset, start, &t->offset) ||
                   __builtin_add_overflow(t->offset, t->bytes, &end)) {
            rc = nj_fail(err, -EINVAL, "tensor %.200s ends past any possible file.", t->name.data);
        } else if (end > file_bytes) {
            nj_fail(err, -EINVAL, "tensor %.200s ends at byte %" PRIu64 ", the file has %" PRIu64 ".", t->name.data,
                    end, file_bytes);
            rc = nj_remedy(err, "The download is incomplete. Fetch it again.");
        } else {
            extent[i] = (struct extent){ t->offset, end, t };
        }
    }
    if (!rc && n) qsort(extent, n, sizeof *extent, extent_order);
    for (uint64_t i = 1; i < n && !rc; i++)
        if (extent[i].offset < extent[i - 1].end)
            rc = nj_fail(err, -EINVAL, "tensors %.200s and %.200s overlap at byte %" PRIu64 ".",
                         extent[i - 1].tensor->name.data, extent[i].tensor->name.data, extent[i].offset);
    free(extent);
    return rc;
}

static int index_metas(const nj_meta *metas, uint64_t n, nj_index *index, nj_error *err)
{
    for (uint64_t i = 0; i < n; i++) {
        int rc = nj_index_add(index, metas, sizeof *metas, i);
        if (rc == -EEXIST) return nj_fail(err, -EINVAL, "key %.200s occurs twice.", metas[i].key.data);
        if (rc) return nj_fail(err, rc, "not enough memory for %" PRIu64 " keys.", n);
    }
    return 0;
}

/* The keys by which a file says how to read it. */
static int read_own_keys(const nj_meta *metas, const nj_index *index, uint64_t *alignment, struct nj_gguf_split *split,
                         nj_error *err)
{
    int rc;
    *alignment = NJ_GGUF_ALIGNMENT_DEFAULT;
    *split = (struct nj_gguf_split){ 0 };
    if ((rc = whole_number(find(metas, index, "general.alignment"), UINT64_MAX, alignment, err)) != 0) return rc;
    if (!nj_gguf_alignment_ok(*alignment))
        return nj_fail(err, -EINVAL, "key general.alignment is %" PRIu64 "; it must be a power of two up to 2^30.",
                       *alignment);
    if ((rc = whole_number(find(metas, index, "split.no"), UINT16_MAX, &split->no, err)) != 0) return rc;
    if ((rc = whole_number(find(metas, index, "split.count"), UINT16_MAX, &split->count, err)) != 0) return rc;
    split->given = find(metas, index, "split.count");
    return whole_number(find(metas, index, "split.tensors.count"), NJ_INDEX_MAX, &split->tensors, err);
}

static int index_tensors(nj_gguf *g, size_t first, uint32_t file, nj_error *err)
{
    for (size_t i = first; i < g->n_tensors; i++) {
        g->tensors[i].file = file;
        int rc = nj_index_add(&g->tensor_index, g->tensors, sizeof *g->tensors, i);
        if (rc == -EEXIST) return nj_fail(err, -EINVAL, "tensor %.200s occurs twice.", g->tensors[i].name.data);
        if (rc) return nj_fail(err, rc, "not enough memory for %zu tensors.", g->n_tensors);
    }
    return 0;
}

/* Memory for what the first walk counted. */
static int reserve(nj_gguf *g, struct walk *w, uint64_t n_metas, uint64_t n_tensors, nj_meta **metas)
{
    *metas = nj_array_new(n_metas, sizeof **metas);
    w->strs = nj_array_new(w->n_strs, sizeof *w->strs);
    w->text = malloc(w->n_text + 1);
    size_t need = g->n_tensors + n_tensors, bytes;
    nj_tensor *grown = NULL;
    if (n_tensors && !__builtin_mul_overflow(need, sizeof *grown, &bytes)) grown = realloc(g->tensors, bytes);
    if (grown) g->tensors = grown;
    return (n_metas && !*metas) || (w->n_strs && !w->strs) || !w->text || (n_tensors && !grown) ? -ENOMEM : 0;
}

int nj_gguf_parse_file(nj_gguf *g, uint32_t file, const uint8_t *data, size_t len, const nj_gguf_types *types,
                       struct nj_gguf_split *split, nj_error *err)
{
    struct nj_gguf_file *f = &g->files[file];
    struct walk w = { .data = data, .len = len < f->bytes ? len : f->bytes, .bytes = f->bytes, .err = err };
    nj_meta *metas = NULL;
    nj_index index = { 0 };
    uint64_t n_metas, n_tensors, alignment;
    size_t first = g->n_tensors;
    uint32_t version;
    int rc;

    if (!walk_header(&w, types, &version, NULL, &n_metas, NULL, &n_tensors)) return w.err->code;
    rc = reserve(g, &w, n_metas, n_tensors, &metas);
    f->strs = w.strs;
    f->text = w.text;
    if (rc) {
        nj_fail(err, rc, "not enough memory for a header of %" PRIu64 " bytes.", w.pos);
        goto done;
    }
    if (!walk_header(&w, types, &version, metas, &n_metas, n_tensors ? g->tensors + first : NULL, &n_tensors)) {
        rc = w.err->code; /* only when the bytes changed under us */
        goto done;
    }
    g->n_tensors += n_tensors;
    if ((rc = index_metas(metas, n_metas, &index, err)) != 0) goto done;
    if ((rc = read_own_keys(metas, &index, &alignment, split, err)) != 0) goto done;
    if ((rc = index_tensors(g, first, file, err)) != 0) goto done;
    if (n_tensors) rc = place_tensors(g->tensors + first, n_tensors, w.pos, f->bytes, alignment, err);
    if (rc || file) goto done;
    g->version = version;
    g->metas = metas;
    g->n_metas = g->cap_metas = n_metas;
    g->meta_index = index;
    return 0;
done:
    nj_index_free(&index);
    free(metas);
    return rc;
}
