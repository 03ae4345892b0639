/* Look-ups in an open GGUF, and overriding its keys. */
#include "io/gguf_priv.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *nj_gguf_path(const nj_gguf *g)
{
    return g->files[0].path;
}

uint32_t nj_gguf_version(const nj_gguf *g)
{
    return g->version;
}

uint32_t nj_gguf_files(const nj_gguf *g)
{
    return g->n_files;
}

const char *nj_gguf_file_path(const nj_gguf *g, uint32_t file)
{
    return g->files[file].path;
}

uint64_t nj_gguf_bytes(const nj_gguf *g)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < g->n_files; i++) bytes += g->files[i].bytes;
    return bytes;
}

size_t nj_gguf_meta_count(const nj_gguf *g)
{
    return g->n_metas;
}

const nj_meta *nj_gguf_meta_at(const nj_gguf *g, size_t index)
{
    return &g->metas[index];
}

const nj_meta *nj_gguf_meta(const nj_gguf *g, const char *key)
{
    size_t at = nj_index_find(&g->meta_index, g->metas, sizeof *g->metas, key, strlen(key));
    return at == NJ_INDEX_NONE ? NULL : &g->metas[at];
}

size_t nj_gguf_tensor_count(const nj_gguf *g)
{
    return g->n_tensors;
}

const nj_tensor *nj_gguf_tensor_at(const nj_gguf *g, size_t index)
{
    return &g->tensors[index];
}

const nj_tensor *nj_gguf_tensor(const nj_gguf *g, const char *name)
{
    size_t at = nj_index_find(&g->tensor_index, g->tensors, sizeof *g->tensors, name, strlen(name));
    return at == NJ_INDEX_NONE ? NULL : &g->tensors[at];
}

/* ---- Values ---- */

static int64_t saturated(double f)
{
    if (!(f >= -0x1p63)) return f < 0 ? INT64_MIN : 0; /* NaN too */
    return f >= 0x1p63 ? INT64_MAX : (int64_t)f;
}

void nj_meta_widen(nj_meta_type type, const void *p, int64_t *i, double *f)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } v;
    memcpy(&v, p, nj_meta_type_bytes(type));
    switch (type) {
    case NJ_META_U8:
    case NJ_META_BOOL: *i = v.u8; break;
    case NJ_META_I8: *i = v.i8; break;
    case NJ_META_U16: *i = v.u16; break;
    case NJ_META_I16: *i = v.i16; break;
    case NJ_META_U32: *i = v.u32; break;
    case NJ_META_I32: *i = v.i32; break;
    case NJ_META_U64: *i = (int64_t)v.u64, *f = (double)v.u64; return;
    case NJ_META_I64: *i = v.i64; break;
    case NJ_META_F32: *f = v.f32, *i = saturated(*f); return;
    case NJ_META_F64: *f = v.f64, *i = saturated(*f); return;
    default: *i = 0; break; /* strings and arrays have no number */
    }
    *f = (double)*i;
}

static void item(const nj_meta *m, uint64_t index, int64_t *i, double *f)
{
    *i = 0;
    *f = 0;
    size_t bytes = nj_meta_type_bytes(m->item_type);
    if (bytes && index < m->count) nj_meta_widen(m->item_type, (const char *)m->items + index * bytes, i, f);
}

double nj_meta_item_f64(const nj_meta *m, uint64_t index)
{
    int64_t i;
    double f;
    item(m, index, &i, &f);
    return f;
}

int64_t nj_meta_item_i64(const nj_meta *m, uint64_t index)
{
    int64_t i;
    double f;
    item(m, index, &i, &f);
    return i;
}

/* ---- Typed look-ups ---- */

static int wrong_type(const nj_gguf *g, const nj_meta *m, const char *wanted, nj_error *err)
{
    return nj_fail(err, -EINVAL, "%s: key %.200s is of type %s, not %s.", nj_gguf_path(g), m->key.data,
                   nj_meta_type_name(m->type), wanted);
}

static int unsigned_value(const nj_gguf *g, const char *key, uint64_t max, uint64_t *out, nj_error *err)
{
    const nj_meta *m = nj_gguf_meta(g, key);
    if (!m) return -ENOENT;
    if (!nj_meta_is_integer(m->type)) return wrong_type(g, m, "an integer", err);
    if (m->type != NJ_META_U64 && m->i < 0)
        return nj_fail(err, -EINVAL, "%s: key %.200s is %" PRId64 ", which may not be negative.", nj_gguf_path(g), key,
                       m->i);
    if ((uint64_t)m->i > max)
        return nj_fail(err, -EINVAL, "%s: key %.200s is %" PRIu64 ", more than %" PRIu64 ".", nj_gguf_path(g), key,
                       (uint64_t)m->i, max);
    *out = (uint64_t)m->i;
    return 0;
}

int nj_gguf_get_u64(const nj_gguf *g, const char *key, uint64_t *out, nj_error *err)
{
    return unsigned_value(g, key, UINT64_MAX, out, err);
}

int nj_gguf_get_u32(const nj_gguf *g, const char *key, uint32_t *out, nj_error *err)
{
    uint64_t value = 0;
    int rc = unsigned_value(g, key, UINT32_MAX, &value, err);
    if (!rc) *out = (uint32_t)value;
    return rc;
}

/* Integers are taken too: a new key set from "500000" is one. */
int nj_gguf_get_f32(const nj_gguf *g, const char *key, float *out, nj_error *err)
{
    const nj_meta *m = nj_gguf_meta(g, key);
    if (!m) return -ENOENT;
    if (!nj_meta_is_integer(m->type) && m->type != NJ_META_F32 && m->type != NJ_META_F64)
        return wrong_type(g, m, "a number", err);
    if (!(fabs(m->f) <= FLT_MAX))
        return nj_fail(err, -EINVAL, "%s: key %.200s is %g, which is not a finite float.", nj_gguf_path(g), key, m->f);
    *out = (float)m->f;
    return 0;
}

int nj_gguf_get_bool(const nj_gguf *g, const char *key, bool *out, nj_error *err)
{
    const nj_meta *m = nj_gguf_meta(g, key);
    if (!m) return -ENOENT;
    if (m->type != NJ_META_BOOL) return wrong_type(g, m, "a bool", err);
    *out = m->i != 0;
    return 0;
}

int nj_gguf_get_str(const nj_gguf *g, const char *key, nj_str *out, nj_error *err)
{
    const nj_meta *m = nj_gguf_meta(g, key);
    if (!m) return -ENOENT;
    if (m->type != NJ_META_STRING) return wrong_type(g, m, "a string", err);
    *out = m->s;
    return 0;
}

/* ---- Overrides ---- */

static bool read_i64(const char *text, int64_t *v)
{
    char *end;
    errno = 0;
    *v = strtoll(text, &end, 10);
    return !errno && end != text && !*end;
}

static bool read_u64(const char *text, uint64_t *v)
{
    char *end;
    errno = 0;
    *v = strtoull(text, &end, 10);
    return !errno && end != text && !*end && !strchr(text, '-');
}

/* Finite decimal numbers only: no hexadecimal, infinity or NaN. */
static bool read_f64(const char *text, double *v)
{
    char *end;
    if (text[strspn(text, "0123456789+-.eE")]) return false;
    *v = strtod(text, &end);
    return end != text && !*end && isfinite(*v);
}

static bool read_bool(const char *text, int64_t *v)
{
    *v = !strcmp(text, "true");
    return *v || !strcmp(text, "false");
}

/* What a new key is, as its text reads. */
static nj_meta_type type_of(const char *text)
{
    int64_t i;
    uint64_t u;
    double f;
    if (read_bool(text, &i)) return NJ_META_BOOL;
    if (read_i64(text, &i)) return NJ_META_I64;
    if (read_u64(text, &u)) return NJ_META_U64;
    return read_f64(text, &f) ? NJ_META_F32 : NJ_META_STRING;
}

/* Sets i and f of `m` from text; false when it does not fit the type. Strings and arrays are not for here. */
static bool read_number(nj_meta *m, const char *text)
{
    int64_t i = 0, low, high;
    uint64_t u;
    double f;
    switch (m->type) {
    case NJ_META_BOOL:
        if (!read_bool(text, &i)) return false;
        break;
    case NJ_META_U64:
        if (!read_u64(text, &u)) return false;
        m->i = (int64_t)u;
        m->f = (double)u;
        return true;
    case NJ_META_F32:
    case NJ_META_F64:
        if (!read_f64(text, &f) || (m->type == NJ_META_F32 && fabs(f) > FLT_MAX)) return false;
        m->f = m->type == NJ_META_F32 ? (double)(float)f : f;
        m->i = saturated(m->f);
        return true;
    default: {
        bool is_signed =
            m->type == NJ_META_I8 || m->type == NJ_META_I16 || m->type == NJ_META_I32 || m->type == NJ_META_I64;
        int bits = (int)nj_meta_type_bytes(m->type) * 8 - is_signed;
        high = (int64_t)(UINT64_MAX >> (64 - bits));
        low = is_signed ? -high - 1 : 0;
        if (!read_i64(text, &i) || i < low || i > high) return false;
    }
    }
    m->i = i;
    m->f = (double)i;
    return true;
}

/* A copy of `len` bytes and a NUL, owned by g. */
static const char *keep_text(nj_gguf *g, const char *text, size_t len)
{
    struct nj_gguf_text *t = malloc(sizeof *t + len + 1);
    if (!t) return NULL;
    memcpy(t->text, text, len);
    t->text[len] = '\0';
    t->next = g->set_texts;
    g->set_texts = t;
    return t->text;
}

static int set_value(nj_gguf *g, nj_meta *m, const char *text, nj_error *err)
{
    if (m->type == NJ_META_ARRAY)
        return nj_fail(err, -EINVAL, "%s: key %.200s is an array, which can't be set.", nj_gguf_path(g), m->key.data);
    if (m->type == NJ_META_STRING) {
        const char *kept = keep_text(g, text, strlen(text));
        if (!kept) return nj_fail(err, -ENOMEM, "%s: not enough memory.", nj_gguf_path(g));
        m->s = (nj_str){ kept, strlen(text) };
    } else if (!read_number(m, text)) {
        nj_fail(err, -EINVAL, "%s: key %.200s is of type %s, \"%s\" is not.", nj_gguf_path(g), m->key.data,
                nj_meta_type_name(m->type), text);
        return m->type == NJ_META_BOOL ? nj_remedy(err, "Write true or false.") : -EINVAL;
    }
    m->overridden = true;
    return 0;
}

int nj_gguf_set(nj_gguf *g, const char *assignment, nj_error *err)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment) {
        nj_fail(err, -EINVAL, "\"%s\" does not set a key.", assignment);
        return nj_remedy(err, "Write it as key=value, for instance llama.rope.freq_base=500000.");
    }
    size_t len = (size_t)(equals - assignment);
    size_t at = nj_index_find(&g->meta_index, g->metas, sizeof *g->metas, assignment, len);
    if (at != NJ_INDEX_NONE) return set_value(g, &g->metas[at], equals + 1, err);

    const char *fault = nj_gguf_name_fault(assignment, len);
    if (fault) return nj_fail(err, -EINVAL, "\"%s\": the key's name %s.", assignment, fault);
    nj_meta m = { .type = type_of(equals + 1), .key = { keep_text(g, assignment, len), len } };
    if (!m.key.data) return nj_fail(err, -ENOMEM, "%s: not enough memory.", nj_gguf_path(g));
    int rc = set_value(g, &m, equals + 1, err);
    if (rc) return rc;
    if (nj_array_grow(&g->metas, &g->cap_metas, g->n_metas + 1, sizeof m)) goto no_memory;
    g->metas[g->n_metas] = m;
    if (nj_index_add(&g->meta_index, g->metas, sizeof m, g->n_metas)) goto no_memory;
    g->n_metas++;
    return 0;
no_memory:
    return nj_fail(err, -ENOMEM, "%s: not enough memory for another key.", nj_gguf_path(g));
}
