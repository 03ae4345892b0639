/* A JSON object's members as the template's variables. */
#include "engine/template.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>

/* jansson refuses integers beyond 64 bits, Python keeps them. They pass through as text with this in front. */
#define BIG_MARK "\0int:"
enum { BIG_MARK_LEN = sizeof BIG_MARK - 1 };

/* End of a number at p, and whether it is an integer that does not fit 64 bits. */
static const char *scan_number(const char *p, const char *end, bool *big)
{
    const char *q = p + (*p == '-');
    bool whole = true;
    for (; q < end && (isdigit((unsigned char)*q) || (*q && strchr(".eE+-", *q))); q++)
        whole &= isdigit((unsigned char)*q) != 0;
    size_t digits = (size_t)(q - p) - (*p == '-');
    *big = whole && digits > 19;
    if (whole && digits == 19) *big = memcmp(q - 19, *p == '-' ? "9223372036854775808" : "9223372036854775807", 19) > 0;
    return q;
}

/* `json` with its huge integers as marked strings. False when out of memory. */
static bool quote_big(const char *json, size_t len, nj_buf *out)
{
    const char *p = json, *end = json + len, *done = json;
    bool inside = false, big;
    for (; p < end; p++) {
        if (*p == '"') inside = !inside;
        if (inside && *p == '\\') p++;
        if (inside || !(*p == '-' || isdigit((unsigned char)*p))) continue;
        const char *stop = scan_number(p, end, &big);
        if (big) {
            nj_buf_add(out, done, (size_t)(p - done));
            nj_buf_str(out, "\"\\u0000int:");
            nj_buf_add(out, p, (size_t)(stop - p));
            nj_buf_char(out, '"');
            done = stop;
        }
        p = stop - 1;
        if (stop == p) p++;
    }
    nj_buf_add(out, done, (size_t)(end - done));
    return !out->failed;
}

static tp_value convert(tp_ctx *c, json_t *j);

static tp_value convert_str(tp_ctx *c, json_t *j)
{
    const char *s = json_string_value(j);
    size_t len = json_string_length(j);
    if (len <= BIG_MARK_LEN || memcmp(s, BIG_MARK, BIG_MARK_LEN) != 0) return tp_copy(c, s, len);
    tp_value v = tp_copy(c, s + BIG_MARK_LEN, len - BIG_MARK_LEN);
    v.type = T_BIG;
    return v;
}

static tp_dict *convert_object(tp_ctx *c, json_t *j)
{
    tp_dict *d = tp_dict_new(c);
    for (void *it = json_object_iter(j); it; it = json_object_iter_next(j, it)) {
        tp_value key = tp_copy(c, json_object_iter_key(it), json_object_iter_key_len(it));
        tp_dict_set(c, d, key, convert(c, json_object_iter_value(it)));
    }
    return d;
}

static tp_value convert(tp_ctx *c, json_t *j)
{
    tp_value v = tp_none();
    tp_enter(c);
    switch (json_typeof(j)) {
    case JSON_NULL: break;
    case JSON_TRUE:
    case JSON_FALSE: v = tp_bool(json_is_true(j)); break;
    case JSON_INTEGER: v = tp_int(json_integer_value(j)); break;
    case JSON_REAL: v = tp_float(json_real_value(j)); break;
    case JSON_STRING: v = convert_str(c, j); break;
    case JSON_OBJECT: v = tp_of_dict(convert_object(c, j)); break;
    case JSON_ARRAY: {
        tp_list *l = tp_list_new(c, (uint32_t)json_array_size(j));
        for (size_t i = 0; i < json_array_size(j); i++) tp_list_push(c, l, convert(c, json_array_get(j, i)));
        v = tp_of_list(T_LIST, l);
        break;
    }
    }
    c->depth--;
    return v;
}

int tp_args_parse(tp_ctx *c, const char *json, size_t len, nj_error *err)
{
    json_error_t why;
    nj_buf text = { 0 };
    if (!quote_big(json, len, &text)) return nj_fail(err, -ENOMEM, "chat template arguments: out of memory");
    json_t *root = json_loadb(text.data ? text.data : "", text.len, JSON_ALLOW_NUL, &why);
    nj_buf_free(&text);
    if (!root) return nj_fail(err, -EINVAL, "chat template arguments: line %d: %s", why.line, why.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return nj_fail(err, -EINVAL, "chat template arguments: they must be a JSON object");
    }
    if (setjmp(c->landing) == 0) {
        c->root = c->scope = tp_alloc(c, 1, sizeof *c->root);
        c->root->vars = *convert_object(c, root);
        c->steps = 0; /* the arguments are the caller's, not the template's */
    }
    json_decref(root);
    return c->code;
}
