/* Values as text: Python's str() and repr(), and JSON as json.dumps writes it. */
#include "engine/template.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void tp_put_int(tp_ctx *c, tp_buf *b, int64_t i)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%" PRId64, i);
    tp_put(c, b, text, (size_t)n);
}

/* The fewest digits that read back as the same number, as repr() of a float: 1e-05, 0.0001, 1e+16, 123.0. */
void tp_put_float(tp_ctx *c, tp_buf *b, double f)
{
    char text[40], digits[24];
    if (isnan(f) || isinf(f)) {
        tp_puts(c, b, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    /* Digits behind the first: what fits in 15 in all is found with 15 and zeros at the end; subnormals have fewer. */
    bool subnormal = fabs(f) < 2.3e-308;
    int precision = subnormal ? 0 : 14;
    tp_tick(c, subnormal ? 1000 : 40);
    for (; precision < 16; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, f);
        if (strtod(text, NULL) == f) break;
    }
    snprintf(text, sizeof text, "%.*e", precision, fabs(f));
    int exponent = atoi(strchr(text, 'e') + 1), n = 0;
    for (const char *p = text; *p != 'e'; p++)
        if (*p != '.') digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0') n--;
    if (signbit(f)) tp_putc(c, b, '-');
    if (exponent < -4 || exponent >= 16) {
        tp_putc(c, b, digits[0]);
        if (n > 1) tp_putc(c, b, '.');
        tp_put(c, b, digits + 1, (size_t)n - 1);
        snprintf(text, sizeof text, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        tp_puts(c, b, text);
        return;
    }
    if (exponent < 0) tp_puts(c, b, "0.");
    tp_pad(c, b, "0", 1, -exponent - 1);
    for (int i = 0; i < n; i++) {
        tp_putc(c, b, digits[i]);
        if (i == exponent) tp_putc(c, b, '.');
    }
    tp_pad(c, b, "0", 1, exponent - n + 1);
    if (exponent >= n) tp_putc(c, b, '.');
    if (exponent >= n - 1) tp_putc(c, b, '0');
}

/* ---- repr ---- */

static void repr_str(tp_ctx *c, tp_buf *b, const tp_value v)
{
    const tp_str *s = v.s;
    const char *end = s->data + s->len;
    char quote = memchr(s->data, '\'', s->len) && !memchr(s->data, '"', s->len) ? '"' : '\'', text[16];
    size_t n;
    tp_tick(c, s->len / 4);
    if (v.aux) tp_puts(c, b, "Markup(");
    tp_putc(c, b, quote);
    for (const char *p = s->data; p < end; p += n) {
        int32_t cp = tp_decode(p, end, &n);
        if (cp == quote || cp == '\\') {
            tp_putc(c, b, '\\');
            tp_putc(c, b, (char)cp);
        } else if (cp == '\n' || cp == '\r' || cp == '\t') {
            tp_puts(c, b, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t");
        } else if (!tp_is_printable(cp)) {
            const char *format = cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x";
            snprintf(text, sizeof text, format, (unsigned)cp);
            tp_puts(c, b, text);
        } else {
            tp_put(c, b, p, n);
        }
    }
    tp_putc(c, b, quote);
    if (v.aux) tp_puts(c, b, ")");
}

static void repr_list(tp_ctx *c, tp_buf *b, tp_value v)
{
    bool tuple = v.type == T_TUPLE;
    tp_putc(c, b, tuple ? '(' : '[');
    for (uint32_t i = 0; i < v.l->n; i++) {
        if (i) tp_puts(c, b, ", ");
        tp_repr(c, b, v.l->v[i]);
    }
    if (tuple && v.l->n == 1) tp_putc(c, b, ',');
    tp_putc(c, b, tuple ? ')' : ']');
}

static void repr_dict(tp_ctx *c, tp_buf *b, const tp_dict *d)
{
    bool first = true;
    tp_putc(c, b, '{');
    for (uint32_t i = 0; i < d->n; i++) {
        if (d->e[i].key.type == T_MISSING) continue;
        if (!first) tp_puts(c, b, ", ");
        first = false;
        tp_repr(c, b, d->e[i].key);
        tp_puts(c, b, ": ");
        tp_repr(c, b, d->e[i].value);
    }
    tp_putc(c, b, '}');
}

static void repr_range(tp_ctx *c, tp_buf *b, const tp_range *r)
{
    tp_puts(c, b, "range(");
    tp_put_int(c, b, r->start);
    tp_puts(c, b, ", ");
    tp_put_int(c, b, r->stop);
    if (r->step != 1) {
        tp_puts(c, b, ", ");
        tp_put_int(c, b, r->step);
    }
    tp_putc(c, b, ')');
}

static void repr_object(tp_ctx *c, tp_buf *b, tp_value v)
{
    static const char *const VIEWS[] = { "dict_keys(", "dict_values(", "dict_items(" };
    switch (v.type) {
    case T_UNDEFINED: tp_puts(c, b, "Undefined"); return;
    case T_VIEW:
        tp_puts(c, b, VIEWS[v.view->kind]);
        repr_list(c, b, tp_of_list(T_LIST, tp_items(c, v)));
        tp_putc(c, b, ')');
        return;
    case T_RANGE: repr_range(c, b, v.range); return;
    case T_NAMESPACE:
        tp_puts(c, b, "<Namespace ");
        repr_dict(c, b, v.d);
        tp_putc(c, b, '>');
        return;
    case T_LOOP:
        tp_puts(c, b, "<LoopContext ");
        tp_put_int(c, b, v.loop->index0 + 1);
        tp_putc(c, b, '/');
        tp_write(c, b, tp_loop_attr(c, v.loop, tp_cstr(c, "length").s));
        tp_putc(c, b, '>');
        return;
    case T_MACRO:
        tp_puts(c, b, "<Macro ");
        repr_str(c, b, tp_of_str(v.macro->node->name));
        tp_putc(c, b, '>');
        return;
    case T_FUNC:
        tp_puts(c, b, v.func->self.type == T_MISSING ? "<function " : "<built-in method ");
        tp_puts(c, b, v.func->fn->name);
        tp_putc(c, b, '>');
        return;
    case T_ITER:
        tp_puts(c, b, "<generator object ");
        tp_puts(c, b, v.iter->what);
        tp_putc(c, b, '>');
        return;
    default:
        tp_putc(c, b, '<');
        tp_puts(c, b, tp_type_name(v));
        tp_putc(c, b, '>');
    }
}

void tp_repr(tp_ctx *c, tp_buf *b, tp_value v)
{
    tp_enter(c);
    switch (v.type) {
    case T_NONE: tp_puts(c, b, "None"); break;
    case T_BOOL: tp_puts(c, b, v.b ? "True" : "False"); break;
    case T_INT: tp_put_int(c, b, v.i); break;
    case T_BIG: tp_put_str(c, b, v.s); break;
    case T_FLOAT: tp_put_float(c, b, v.f); break;
    case T_STR: repr_str(c, b, v); break;
    case T_LIST:
    case T_TUPLE: repr_list(c, b, v); break;
    case T_DICT: repr_dict(c, b, v.d); break;
    default: repr_object(c, b, v); break;
    }
    c->depth--;
}

void tp_write(tp_ctx *c, tp_buf *b, tp_value v)
{
    if (v.type == T_STR)
        tp_put_str(c, b, v.s);
    else if (v.type == T_JOINER || v.type == T_CYCLER || v.type != T_UNDEFINED)
        tp_repr(c, b, v);
}

tp_value tp_to_str(tp_ctx *c, tp_value v)
{
    if (v.type == T_STR) return tp_of_str(v.s);
    tp_buf b = { 0 };
    tp_write(c, &b, v);
    return tp_done(c, &b);
}

/* ---- JSON ---- */

static void json_str(tp_ctx *c, tp_buf *b, const tp_str *s, bool ascii)
{
    static const char FROM[] = "\"\\\n\r\t\b\f", TO[] = "\"\\nrtbf";
    const char *end = s->data + s->len, *plain = s->data, *p = plain;
    char text[16];
    size_t n;
    tp_putc(c, b, '"');
    for (; p < end; p += n) {
        int32_t cp = tp_decode(p, end, &n);
        if (cp >= 0x20 && cp != '"' && cp != '\\' && !(ascii && cp >= 0x7F && cp != 0x7F)) continue;
        tp_put(c, b, plain, (size_t)(p - plain));
        tp_tick(c, 1);
        plain = p + n;
        const char *at = cp ? strchr(FROM, cp < 0x80 ? cp : 1) : NULL;
        if (at) {
            tp_putc(c, b, '\\');
            tp_putc(c, b, TO[at - FROM]);
        } else if (cp >= 0x10000) {
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD7C0 + (unsigned)(cp >> 10),
                     0xDC00 | (unsigned)(cp & 0x3FF));
            tp_puts(c, b, text);
        } else {
            snprintf(text, sizeof text, "\\u%04x", (unsigned)cp);
            tp_puts(c, b, text);
        }
    }
    tp_put(c, b, plain, (size_t)(p - plain));
    tp_tick(c, s->len / 16);
    tp_putc(c, b, '"');
}

static void json_break(tp_ctx *c, tp_buf *b, const tp_json_style *style, int level)
{
    if (!style->indent) return;
    tp_putc(c, b, '\n');
    tp_pad(c, b, style->indent->data, style->indent->len, level);
}

static void json_float(tp_ctx *c, tp_buf *b, double f)
{
    if (isfinite(f))
        tp_put_float(c, b, f);
    else
        tp_puts(c, b, isnan(f) ? "NaN" : f > 0 ? "Infinity" : "-Infinity");
}

static void json_key(tp_ctx *c, tp_buf *b, tp_value key, bool ascii)
{
    if (key.type == T_STR) {
        json_str(c, b, key.s, ascii);
        return;
    }
    tp_putc(c, b, '"');
    if (key.type == T_NONE)
        tp_puts(c, b, "null");
    else if (key.type == T_BOOL)
        tp_puts(c, b, key.b ? "true" : "false");
    else if (key.type == T_FLOAT)
        json_float(c, b, key.f);
    else if (key.type == T_INT || key.type == T_BIG)
        tp_write(c, b, key);
    else
        tp_fail(c, -EINVAL, "tojson: a key must be text or a number, not %s", tp_type_name(key));
    tp_putc(c, b, '"');
}

static void json_any(tp_ctx *c, tp_buf *b, tp_value v, const tp_json_style *style, int level);

static void json_list(tp_ctx *c, tp_buf *b, const tp_list *l, const tp_json_style *style, int level)
{
    tp_putc(c, b, '[');
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) tp_put_str(c, b, style->comma);
        json_break(c, b, style, level + 1);
        json_any(c, b, l->v[i], style, level + 1);
    }
    if (l->n) json_break(c, b, style, level);
    tp_putc(c, b, ']');
}

static void json_dict(tp_ctx *c, tp_buf *b, const tp_dict *d, const tp_json_style *style, int level)
{
    tp_list *entries = tp_items(c, tp_of_dict((tp_dict *)d));
    if (style->sorted) {
        const tp_builtin *sort = tp_filter_find("sort", 4);
        tp_value yes[] = { tp_bool(false), tp_bool(true) }; /* upwards, case matters */
        entries = tp_invoke(c, sort, tp_of_list(T_LIST, entries), &(tp_args){ .v = yes, .n = 2 }).l;
    }
    tp_putc(c, b, '{');
    for (uint32_t i = 0; i < entries->n; i++) {
        tp_value value = tp_none();
        tp_dict_get(c, d, entries->v[i], &value);
        if (i) tp_put_str(c, b, style->comma);
        json_break(c, b, style, level + 1);
        json_key(c, b, entries->v[i], style->ascii);
        tp_put_str(c, b, style->colon);
        json_any(c, b, value, style, level + 1);
    }
    if (entries->n) json_break(c, b, style, level);
    tp_putc(c, b, '}');
}

static void json_any(tp_ctx *c, tp_buf *b, tp_value v, const tp_json_style *style, int level)
{
    tp_enter(c);
    switch (v.type) {
    case T_NONE: tp_puts(c, b, "null"); break;
    case T_BOOL: tp_puts(c, b, v.b ? "true" : "false"); break;
    case T_INT: tp_put_int(c, b, v.i); break;
    case T_BIG: tp_put_str(c, b, v.s); break;
    case T_FLOAT: json_float(c, b, v.f); break;
    case T_STR: json_str(c, b, v.s, style->ascii); break;
    case T_LIST:
    case T_TUPLE: json_list(c, b, v.l, style, level); break;
    case T_DICT: json_dict(c, b, v.d, style, level); break;
    case T_UNDEFINED: tp_fail_undefined(c, v);
    default: tp_fail(c, -EINVAL, "tojson: an object of type %s can't be written as JSON", tp_type_name(v));
    }
    c->depth--;
}

void tp_json(tp_ctx *c, tp_buf *b, tp_value v, const tp_json_style *style)
{
    json_any(c, b, v, style, 0);
}
