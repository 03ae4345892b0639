/* "%s" % values and "{}".format(values), as Python does them. */
#include "engine/template.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>

/* One field: "%-08.3f" or "{:>8,.3f}". */
typedef struct field {
    char fill[4]; /* one character */
    size_t fill_len;
    char align;               /* '<' '>' '^' '=', 0: by type */
    char sign;                /* '+', ' ', or 0 */
    bool alternate;           /* '#' */
    char group;               /* ',' or '_' between thousands, or 0 */
    int64_t width, precision; /* precision -1: none */
    char type;                /* 0: by value */
} field;

enum { PRECISION_MAX = 300 }; /* enough for every digit a double has before its point */

static int64_t read_number(tp_ctx *c, const char **p, const char *end)
{
    int64_t n = 0;
    for (; *p < end && isdigit((unsigned char)**p); (*p)++) {
        n = n * 10 + (**p - '0');
        if (n > TP_MEMORY_MAX) tp_fail(c, -E2BIG, "a format asks for more than %d MB", TP_MEMORY_MAX >> 20);
    }
    return n;
}

/* Puts `sign_prefix` ("-", "0x", "+0b" ...) and `body` padded to the field's width. */
static void put_padded(tp_ctx *c, tp_buf *b, const field *f, const char *prefix, const char *body, size_t len,
                       size_t chars)
{
    size_t head = strlen(prefix);
    int64_t missing = f->width - (int64_t)(head + chars);
    char align = f->align ? f->align : '>';
    int64_t left = missing <= 0 || align == '<' || align == '=' ? 0 : align == '^' ? missing / 2 : missing;
    tp_pad(c, b, f->fill, f->fill_len, left);
    tp_puts(c, b, prefix);
    if (align == '=') tp_pad(c, b, f->fill, f->fill_len, missing);
    tp_put(c, b, body, len);
    if (align == '<' || align == '^') tp_pad(c, b, f->fill, f->fill_len, missing - left);
}

/* Inserts the group character between every `size` digits of the integer part of `body`. */
static tp_value grouped(tp_ctx *c, const char *body, char group, int size)
{
    tp_buf b = { 0 };
    size_t whole = strspn(body, "0123456789abcdefABCDEF");
    if (strchr(body, 'e') || strchr(body, '.')) whole = strspn(body, "0123456789");
    for (size_t i = 0; i < whole; i++) {
        if (i && (whole - i) % (size_t)size == 0) tp_putc(c, &b, group);
        tp_putc(c, &b, body[i]);
    }
    tp_puts(c, &b, body + whole);
    return tp_done(c, &b);
}

static void put_number(tp_ctx *c, tp_buf *b, const field *f, const char *prefix, const char *body)
{
    tp_value text =
        f->group ? grouped(c, body, f->group, f->type && strchr("xXob", f->type) ? 4 : 3) : tp_cstr(c, body);
    put_padded(c, b, f, prefix, text.s->data, text.s->len, text.s->len);
}

static void put_int_field(tp_ctx *c, tp_buf *b, const field *f, int64_t v)
{
    char digits[72], prefix[4] = { 0 };
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    size_t at = sizeof digits - 1, n = 0;
    unsigned base = !f->type ? 10 : (f->type | 0x20) == 'x' ? 16 : f->type == 'o' ? 8 : f->type == 'b' ? 2 : 10;
    const char *set = f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    digits[at] = '\0';
    do digits[--at] = set[u % base];
    while ((u /= base) != 0);
    for (int64_t have = (int64_t)(sizeof digits - 1 - at); have < f->precision && at > 0; have++) digits[--at] = '0';
    if (v < 0 || f->sign) prefix[n++] = v < 0 ? '-' : f->sign;
    if (f->alternate && base != 10) {
        prefix[n++] = '0';
        prefix[n++] = f->type;
    }
    put_number(c, b, f, prefix, digits + at);
}

static void put_float_field(tp_ctx *c, tp_buf *b, const field *f, double v)
{
    char body[720], spec[8] = { '%', 0 }, prefix[2] = { 0 };
    char type = f->type ? f->type : 'g';
    int64_t precision = f->precision < 0 ? 6 : f->precision;
    bool percent = type == '%';
    if (signbit(v) && !isnan(v))
        prefix[0] = '-';
    else
        prefix[0] = f->sign;
    if (precision > PRECISION_MAX) tp_fail(c, -E2BIG, "a format asks for more than %d digits", PRECISION_MAX);
    if (!f->type && f->precision < 0) { /* like str() */
        tp_buf text = { 0 };
        tp_put_float(c, &text, fabs(v));
        snprintf(body, sizeof body, "%.*s", (int)text.len, text.data);
    } else {
        snprintf(spec, sizeof spec, f->alternate ? "%%#.*%c" : "%%.*%c", percent ? 'f' : type == 'n' ? 'g' : type);
        snprintf(body, sizeof body, spec, (int)precision, fabs(v) * (percent ? 100 : 1));
        if (!f->type && isfinite(v) && !strpbrk(body, ".e")) strcat(body, ".0");
        if (percent) strcat(body, "%");
    }
    tp_tick(c, 40 + strlen(body));
    put_number(c, b, f, prefix, body);
}

static void put_str_field(tp_ctx *c, tp_buf *b, field f, tp_value s)
{
    if (f.precision >= 0 && f.precision < tp_chars(c, s.s)) s = tp_substr(c, s, 0, tp_byte_at(c, s.s, f.precision));
    if (!f.align) f.align = '<';
    put_padded(c, b, &f, "", s.s->data, s.s->len, tp_chars(c, s.s));
}

/* ---- "%" ---- */

static tp_value as_char(tp_ctx *c, tp_value v)
{
    int64_t i;
    tp_buf b = { 0 };
    if (v.type == T_STR && tp_chars(c, v.s) == 1) return v;
    if (!tp_as_int(v, &i) || i < 0 || i > 0x10FFFF || (i >= 0xD800 && i < 0xE000))
        tp_fail(c, -EINVAL, "%%c needs one character or its number");
    tp_putcp(c, &b, (int32_t)i);
    return tp_done(c, &b);
}

static void percent_one(tp_ctx *c, tp_buf *b, field f, tp_value v, bool escape)
{
    bool integral;
    int64_t i;
    tp_buf text = { 0 };
    switch (f.type) {
    case 's': put_str_field(c, b, f, escape ? tp_escape(c, v) : tp_to_str(c, v)); return;
    case 'r':
    case 'a':
        tp_repr(c, &text, v);
        put_str_field(c, b, f, tp_done(c, &text));
        return;
    case 'c': put_str_field(c, b, f, as_char(c, v)); return;
    default: break;
    }
    if (v.type == T_UNDEFINED) tp_fail_undefined(c, v);
    if (!tp_is_number(v, &integral)) tp_fail(c, -EINVAL, "%%%c needs a number, not %s", f.type, tp_type_name(v));
    if (strchr("diuxXo", f.type)) {
        if (!integral && (f.type != 'd' && f.type != 'i' && f.type != 'u'))
            tp_fail(c, -EINVAL, "%%%c needs an integer", f.type);
        if (!tp_as_int(v, &i)) {
            if (!(fabs(v.f) < 9e18)) tp_fail(c, -ERANGE, "a number does not fit %%%c", f.type);
            i = (int64_t)v.f;
        }
        put_int_field(c, b, &f, i);
    } else {
        put_float_field(c, b, &f, tp_as_double(v));
    }
}

typedef struct percent_args {
    tp_value all;
    uint32_t used;
} percent_args;

static tp_value next_arg(tp_ctx *c, percent_args *a)
{
    uint32_t n = a->all.type == T_TUPLE ? a->all.l->n : 1;
    if (a->used >= n) tp_fail(c, -EINVAL, "not enough arguments for the format");
    a->used++;
    return a->all.type == T_TUPLE ? a->all.l->v[a->used - 1] : a->all;
}

/* Reads "(name)-08.3" up to the type letter. Returns the named value or T_MISSING. */
static tp_value percent_spec(tp_ctx *c, const char **p, const char *end, field *f, percent_args *a)
{
    tp_value named = { .type = T_MISSING };
    *f = (field){ .fill = " ", .fill_len = 1, .precision = -1 };
    if (*p < end && **p == '(') {
        const char *close = memchr(*p, ')', (size_t)(end - *p));
        if (!close || a->all.type != T_DICT) tp_fail(c, -EINVAL, "a format with %%(name) needs a dict");
        tp_value key = tp_text(c, *p + 1, (size_t)(close - *p - 1));
        if (!tp_dict_get(c, a->all.d, key, &named))
            tp_fail(c, -EINVAL, "the format's '%.*s' is missing", (int)key.s->len, key.s->data);
        a->used = 1;
        *p = close + 1;
    }
    for (; *p < end && **p && strchr("-+ #0", **p); (*p)++) {
        if (**p == '-') f->align = '<';
        if (**p == '+' || (**p == ' ' && !f->sign)) f->sign = **p;
        if (**p == '#') f->alternate = true;
        if (**p == '0') f->fill[0] = '0';
    }
    if (*p < end && **p == '*') {
        (*p)++;
        if (!tp_as_int(next_arg(c, a), &f->width)) tp_fail(c, -EINVAL, "'*' in a format needs an integer");
        if (f->width < 0) f->align = '<';
        if (f->width < 0) f->width = f->width < -TP_MEMORY_MAX ? TP_MEMORY_MAX : -f->width;
    } else {
        f->width = read_number(c, p, end);
    }
    if (*p < end && **p == '.') {
        (*p)++;
        if (*p < end && **p == '*') {
            (*p)++;
            if (!tp_as_int(next_arg(c, a), &f->precision)) tp_fail(c, -EINVAL, "'*' in a format needs an integer");
            if (f->precision < 0) f->precision = 0;
        } else {
            f->precision = read_number(c, p, end);
        }
    }
    while (*p < end && **p && strchr("hlL", **p)) (*p)++;
    if (*p == end) tp_fail(c, -EINVAL, "the format is incomplete");
    return named;
}

tp_value tp_percent(tp_ctx *c, tp_value format, tp_value args)
{
    tp_buf b = { 0 };
    percent_args a = { .all = args };
    const char *p = format.s->data, *end = p + format.s->len;
    while (p < end) {
        const char *at = memchr(p, '%', (size_t)(end - p));
        tp_put(c, &b, p, (size_t)((at ? at : end) - p));
        tp_tick(c, 1);
        if (!at) break;
        field f;
        p = at + 1;
        tp_value v = percent_spec(c, &p, end, &f, &a);
        f.type = *p++;
        if (f.type == '%') {
            tp_putc(c, &b, '%');
            continue;
        }
        if (!f.type || !strchr("srcadiuxXofFeEgG", f.type))
            tp_fail(c, -EINVAL, "'%%%c' is not a format", f.type > 32 ? f.type : '?');
        if (v.type == T_MISSING) v = next_arg(c, &a);
        if (strchr("src", f.type)) f.fill[0] = ' ';
        if (f.align == '<') f.fill[0] = ' ';
        f.align = f.align ? f.align : f.fill[0] == '0' ? '=' : '>';
        percent_one(c, &b, f, v, format.aux);
    }
    bool indexable = args.type == T_DICT || args.type == T_LIST || args.type == T_RANGE || args.type == T_UNDEFINED;
    uint32_t given = args.type == T_TUPLE ? args.l->n : !indexable;
    if (a.used < given) tp_fail(c, -EINVAL, "not all arguments are used by the format");
    tp_value r = tp_done(c, &b);
    r.aux = format.aux;
    return r;
}

/* ---- "{}".format ---- */

typedef struct formatter {
    const tp_args *args;
    int64_t next; /* automatic numbering */
    bool numbered, safe;
} formatter;

static tp_value format_text(tp_ctx *c, formatter *x, const char *p, const char *end, int level);

static tp_value format_name(tp_ctx *c, formatter *x, const char **p, const char *end)
{
    const char *start = *p;
    tp_value v;
    while (*p < end && !strchr(".[!:", **p)) (*p)++;
    tp_value name = tp_text(c, start, (size_t)(*p - start));
    int64_t i = -1;
    if (!name.s->len) {
        i = x->next++;
    } else if (isdigit((unsigned char)*start)) {
        const char *q = start;
        i = read_number(c, &q, *p);
        if (q != *p) i = -1;
        x->numbered |= i >= 0;
    }
    if (x->next && x->numbered) tp_fail(c, -EINVAL, "a format mixes {} with {0}");
    if (i >= 0) {
        if (i >= x->args->n) tp_fail(c, -EINVAL, "format() has too few arguments");
        return x->args->v[i];
    }
    if (!x->args->kw || !tp_dict_get(c, x->args->kw, name, &v))
        tp_fail(c, -EINVAL, "format() is missing '%.*s'", (int)name.s->len, name.s->data);
    return v;
}

/* name, then .attribute and [index] parts. */
static tp_value format_field(tp_ctx *c, formatter *x, const char **p, const char *end)
{
    tp_value v = format_name(c, x, p, end);
    while (*p < end && (**p == '.' || **p == '[')) {
        bool index = **p == '[';
        const char *start = ++*p;
        while (*p < end && (index ? **p != ']' : !strchr(".[!:", **p))) (*p)++;
        if (index && *p == end) tp_fail(c, -EINVAL, "']' is missing in a format");
        const char *q = start;
        int64_t i = index && q < *p && isdigit((unsigned char)*q) ? read_number(c, &q, *p) : -1;
        tp_str *name = tp_text(c, start, (size_t)(*p - start)).s;
        v = index ? tp_get_item(c, v, i >= 0 && q == *p ? tp_int(i) : tp_of_str(name)) : tp_get_attr(c, v, name);
        if (v.type == T_UNDEFINED) tp_fail_undefined(c, v);
        if (index) (*p)++;
    }
    return v;
}

static field parse_spec(tp_ctx *c, const char *p, const char *end)
{
    field f = { .fill = " ", .fill_len = 1, .precision = -1 };
    size_t n = 1;
    if (p < end) tp_decode(p, end, &n);
    if (p + n < end && p[n] && strchr("<>^=", p[n])) {
        memcpy(f.fill, p, n);
        f.fill_len = n;
        f.align = p[n];
        p += n + 1;
    } else if (p < end && *p && strchr("<>^=", *p)) {
        f.align = *p++;
    }
    if (p < end && (*p == '+' || *p == '-' || *p == ' ')) f.sign = *p++;
    if (f.sign == '-') f.sign = 0;
    if (p < end && *p == '#') f.alternate = true, p++;
    if (p < end && *p == '0') {
        if (!f.align) {
            f.align = '=';
            f.fill[0] = '0';
            f.fill_len = 1;
        }
        p++;
    }
    f.width = read_number(c, &p, end);
    if (p < end && (*p == ',' || *p == '_')) f.group = *p++;
    if (p < end && *p == '.') {
        p++;
        if (p == end || !isdigit((unsigned char)*p)) tp_fail(c, -EINVAL, "a format's precision is missing");
        f.precision = read_number(c, &p, end);
    }
    if (p < end) f.type = *p++;
    if (p != end) tp_fail(c, -EINVAL, "a format specification is not valid");
    return f;
}

static void format_value(tp_ctx *c, tp_buf *b, tp_value v, const char *spec, size_t len, bool safe)
{
    bool integral;
    int64_t i;
    field f = parse_spec(c, spec, spec + len);
    bool number = tp_is_number(v, &integral) && !(v.type == T_BOOL && !len);
    if (!number) {
        if (len && v.type != T_STR) tp_fail(c, -EINVAL, "a format specification does not work on %s", tp_type_name(v));
        if (f.type && f.type != 's') tp_fail(c, -EINVAL, "format '%c' does not work on text", f.type);
        if (f.align == '=' && f.fill[0] != '0') tp_fail(c, -EINVAL, "'=' alignment does not work on text");
        if (f.align == '=') f.align = '<';
        put_str_field(c, b, f, safe ? tp_escape(c, v) : tp_to_str(c, v));
    } else if (integral && (!f.type || strchr("dxXobcn", f.type))) {
        tp_as_int(v, &i);
        if (f.precision >= 0) tp_fail(c, -EINVAL, "a precision does not work on an integer");
        if (f.type == 'c')
            put_str_field(c, b, f, as_char(c, v));
        else
            put_int_field(c, b, &f, i);
    } else if (!f.type || strchr("fFeEgGn%", f.type)) {
        put_float_field(c, b, &f, tp_as_double(v));
    } else {
        tp_fail(c, -EINVAL, "format '%c' does not work on %s", f.type > 32 ? f.type : '?', tp_type_name(v));
    }
}

/* One replacement field, *p behind its "{"; moved behind its "}". */
static void format_one(tp_ctx *c, formatter *x, tp_buf *b, const char **p, const char *end, int level)
{
    int open = 1;
    const char *close = *p;
    for (; close < end; close++) {
        open += *close == '{' ? 1 : *close == '}' ? -1 : 0;
        if (!open) break;
    }
    tp_tick(c, 1 + (uint64_t)(close - *p) / 16);
    if (close == end) tp_fail(c, -EINVAL, "'}' is missing in a format");
    tp_value v = format_field(c, x, p, close), spec = tp_cstr(c, "");
    if (*p < close && **p == '!') {
        char how = *p + 1 < close ? (*p)[1] : 0;
        tp_buf text = { 0 };
        if (how != 'r' && how != 's') tp_fail(c, -EINVAL, "a conversion must be !r or !s");
        if (how == 'r') tp_repr(c, &text, v);
        v = how == 'r' ? tp_done(c, &text) : tp_to_str(c, v);
        *p += 2;
    }
    if (*p < close && **p != ':') tp_fail(c, -EINVAL, "expected ':' or '}' in a format");
    if (*p < close) spec = format_text(c, x, *p + 1, close, level + 1);
    format_value(c, b, v, spec.s->data, spec.s->len, x->safe);
    *p = close + 1;
}

static tp_value format_text(tp_ctx *c, formatter *x, const char *p, const char *end, int level)
{
    tp_buf b = { 0 };
    if (level > 2) tp_fail(c, -EINVAL, "a format is nested too deeply");
    while (p < end) {
        const char *at = p;
        while (at < end && *at != '{' && *at != '}') at++;
        tp_put(c, &b, p, (size_t)(at - p));
        tp_tick(c, 1 + (uint64_t)(at - p) / 16);
        if (at == end) break;
        p = at + 1;
        if (p < end && *p == *at && level == 0) {
            tp_putc(c, &b, *p++);
            continue;
        }
        if (*at == '}') tp_fail(c, -EINVAL, "a single '}' is in a format");
        format_one(c, x, &b, &p, end, level);
    }
    return tp_done(c, &b);
}

tp_value tp_format(tp_ctx *c, tp_value format, const tp_args *args)
{
    formatter x = { .args = args, .safe = format.aux };
    tp_value r = format_text(c, &x, format.s->data, format.s->data + format.s->len, 0);
    r.aux = format.aux;
    return r;
}
