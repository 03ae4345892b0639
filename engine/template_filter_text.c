/* Filters on text and numbers. */
#include "engine/template.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The filtered value as text; text that is marked safe stays so. */
static tp_value soft(tp_ctx *c, const tp_call *call)
{
    return call->self.type == T_STR ? call->self : tp_to_str(c, call->self);
}

static tp_value f_case(tp_ctx *c, tp_call *call)
{
    return tp_case(c, soft(c, call), call->name[0] == 't' ? 'j' : call->name[0]); /* Jinja2's title is not Python's */
}

static tp_value f_trim(tp_ctx *c, tp_call *call)
{
    if (call->arg[0].type != T_MISSING && call->arg[0].type != T_NONE) tp_arg_str(c, call, 0, NULL);
    return tp_strip(c, soft(c, call), call->arg[0], true, true);
}

static tp_value f_replace(tp_ctx *c, tp_call *call)
{
    int64_t max = call->arg[2].type == T_NONE ? -1 : tp_arg_int(c, call, 2, -1);
    return tp_replace(c, tp_to_str(c, call->self), tp_to_str(c, call->arg[0]).s, tp_to_str(c, call->arg[1]).s, max);
}

static tp_value f_escape(tp_ctx *c, tp_call *call)
{
    if (call->name[0] == 'f') call->self = tp_to_str(c, call->self); /* forceescape: also what is marked safe */
    return tp_escape(c, call->self);
}

static tp_value f_safe(tp_ctx *c, tp_call *call)
{
    tp_value v = soft(c, call);
    v.aux = 1;
    return v;
}

static tp_value f_center(tp_ctx *c, tp_call *call)
{
    tp_value width = tp_int(tp_arg_int(c, call, 0, 80));
    return tp_invoke(c, tp_str_method("center", 6), soft(c, call), &(tp_args){ .v = &width, .n = 1 });
}

static tp_value f_format(tp_ctx *c, tp_call *call)
{
    const tp_args *a = &call->all;
    bool named = a->kw && a->kw->live;
    if (named && a->n) tp_fail(c, -EINVAL, "format takes positional or keyword arguments, not both");
    if (named) return tp_percent(c, soft(c, call), tp_of_dict(a->kw));
    tp_list *l = tp_list_new(c, a->n);
    for (uint32_t i = 0; i < a->n; i++) tp_list_push(c, l, a->v[i]);
    return tp_percent(c, soft(c, call), tp_of_list(T_TUPLE, l));
}

static tp_value f_indent(tp_ctx *c, tp_call *call)
{
    tp_buf b = { 0 }, pad = { 0 };
    bool first = tp_arg_bool(c, call, 1, false), blank = tp_arg_bool(c, call, 2, false);
    tp_value s = call->self;
    if (s.type == T_UNDEFINED) tp_fail_undefined(c, s);
    if (s.type != T_STR) tp_fail(c, -EINVAL, "indent needs text, not %s", tp_type_name(s));
    if (call->arg[0].type == T_STR)
        tp_put_str(c, &pad, call->arg[0].s);
    else
        tp_pad(c, &pad, " ", 1, tp_arg_int(c, call, 0, 4));
    tp_list *lines = tp_split_lines(c, tp_concat(c, s, tp_cstr(c, "\n")), false);
    for (uint32_t i = 0; i < lines->n; i++) {
        tp_str *line = lines->v[i].s;
        if (i) tp_putc(c, &b, '\n');
        if (i ? blank || line->len : first) tp_put(c, &b, pad.data, pad.len);
        tp_put_str(c, &b, line);
    }
    tp_value r = tp_done(c, &b);
    r.aux = s.aux;
    return r;
}

static tp_value f_truncate(tp_ctx *c, tp_call *call)
{
    int64_t length = tp_arg_int(c, call, 0, 255), leeway = tp_arg_int(c, call, 3, 5), have = tp_length(c, call->self);
    bool kill_words = tp_arg_bool(c, call, 1, false);
    tp_value end = tp_of_str(tp_arg_str(c, call, 2, "...")), s = call->self;
    int64_t end_chars = tp_chars(c, end.s);
    if (have < 0) tp_fail(c, -EINVAL, "truncate needs text, not %s", tp_type_name(s));
    if (length < end_chars || leeway < 0)
        tp_fail(c, -EINVAL, "truncate: the length must be at least %" PRId64, end_chars);
    if (have <= length || have - length <= leeway) return s;
    if (s.type != T_STR) tp_fail(c, -EINVAL, "truncate needs text, not %s", tp_type_name(s));
    s = tp_slice_str(c, s, 0, length - end_chars, 1, length - end_chars);
    if (!kill_words) {
        int64_t space = tp_rfind(c, s.s->data, s.s->len, " ", 1);
        if (space >= 0) s = tp_substr(c, s, 0, (size_t)space);
    }
    return tp_concat(c, s, end);
}

static tp_value f_wordcount(tp_ctx *c, tp_call *call)
{
    tp_str *s = tp_to_str(c, call->self).s;
    const char *end = s->data + s->len;
    int64_t words = 0;
    bool inside = false;
    size_t n;
    for (const char *p = s->data; p < end; p += n) {
        int32_t cp = tp_decode(p, end, &n);
        tp_tick(c, 1);
        tp_str one = { .data = p, .len = (uint32_t)n, .chars = 1 };
        bool word = cp == '_' || tp_is_class(c, &one, "isalnum");
        words += word && !inside;
        inside = word;
    }
    return tp_int(words);
}

/* Percent-encodes; in a query "/" too, and a blank becomes "+". */
static void put_quoted(tp_ctx *c, tp_buf *b, tp_value v, bool query)
{
    tp_str *s = tp_to_str(c, v).s;
    for (uint32_t i = 0; i < s->len; i++) {
        unsigned char ch = (unsigned char)s->data[i];
        char text[4];
        bool plain =
            (ch >= '0' && ch <= '9') || ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'z') || (ch && strchr("_.-~", ch));
        if (plain || (ch == '/' && !query) || (ch == ' ' && query)) {
            tp_putc(c, b, ch == ' ' ? '+' : (char)ch);
            continue;
        }
        snprintf(text, sizeof text, "%%%02X", ch);
        tp_puts(c, b, text);
    }
}

static tp_value f_urlencode(tp_ctx *c, tp_call *call)
{
    tp_buf b = { 0 };
    tp_value v = call->self;
    if (v.type == T_STR || !tp_is_iterable(v)) {
        put_quoted(c, &b, v, false);
        return tp_done(c, &b);
    }
    tp_view view = { .d = v.d, .kind = VIEW_ITEMS };
    tp_list *pairs = tp_items(c, v.type == T_DICT ? (tp_value){ .type = T_VIEW, .view = &view } : v);
    for (uint32_t i = 0; i < pairs->n; i++) {
        tp_list *pair = tp_items(c, pairs->v[i]);
        if (pair->n != 2) tp_fail(c, -EINVAL, "urlencode needs pairs of a name and a value");
        if (i) tp_putc(c, &b, '&');
        put_quoted(c, &b, pair->v[0], true);
        tp_putc(c, &b, '=');
        put_quoted(c, &b, pair->v[1], true);
    }
    return tp_done(c, &b);
}

/* ---- Numbers ---- */

static tp_value f_abs(tp_ctx *c, tp_call *call)
{
    bool integral;
    if (call->self.type == T_UNDEFINED) tp_fail_undefined(c, call->self);
    if (!tp_is_number(call->self, &integral))
        tp_fail(c, -EINVAL, "abs needs a number, not %s", tp_type_name(call->self));
    if (!integral) return tp_float(fabs(call->self.f));
    int64_t i = 0;
    tp_as_int(call->self, &i);
    return i < 0 ? tp_negate(c, tp_int(i)) : tp_int(i);
}

/* The text of a number without its outer blanks and single underscores, in `out`; false when it can't be one. */
static bool number_text(tp_ctx *c, tp_value v, char *out, size_t size)
{
    tp_str *s = tp_strip(c, v, tp_none(), true, true).s;
    size_t n = 0;
    if (!s->len || s->len >= size) return false;
    for (uint32_t i = 0; i < s->len; i++) {
        char ch = s->data[i];
        if (ch == '_') {
            char before = i ? s->data[i - 1] : 0, after = i + 1 < s->len ? s->data[i + 1] : 0;
            if (!before || !after || before == '_' || after == '_' || before == '.' || after == '.') return false;
            continue;
        }
        if (!ch) return false;
        out[n++] = ch;
    }
    out[n] = '\0';
    return true;
}

/* float("...") of Python: no hexadecimal. */
static bool parse_float(tp_ctx *c, tp_value v, double *out)
{
    char text[400], *end;
    if (!number_text(c, v, text, sizeof text)) return false;
    if (strpbrk(text, "xXpP(")) return false;
    *out = strtod(text, &end);
    return *end == '\0';
}

static bool parse_int(tp_ctx *c, tp_value v, int64_t base, int64_t *out)
{
    char text[400], *end;
    if (!number_text(c, v, text, sizeof text)) return false;
    char *p = text + (text[0] == '-' || text[0] == '+');
    static const struct {
        char letter;
        int base;
    } PREFIX[] = { { 'b', 2 }, { 'o', 8 }, { 'x', 16 } };
    for (size_t i = 0; i < NJ_COUNT(PREFIX); i++)
        if (p[0] == '0' && (p[1] | 0x20) == PREFIX[i].letter && (base == PREFIX[i].base || base == 0)) {
            base = PREFIX[i].base;
            memmove(p, p + 2, strlen(p + 2) + 1);
        }
    if (base == 0) base = 10;
    if ((*p < '0' || *p > '9') && ((*p | 0x20) < 'a' || (*p | 0x20) > 'z')) return false;
    if (base == 16 && p[0] == '0' && (p[1] | 0x20) == 'x') return false; /* strtoll would take a second prefix */
    errno = 0;
    *out = strtoll(text, &end, (int)base);
    if (errno == ERANGE) tp_fail(c, -ERANGE, "int: %.40s does not fit 64 bits", text);
    return *end == '\0';
}

static tp_value f_int(tp_ctx *c, tp_call *call)
{
    tp_value otherwise = call->arg[0].type == T_MISSING ? tp_int(0) : call->arg[0], v = call->self;
    int64_t base = tp_arg_int(c, call, 1, 10), i;
    double f;
    if (v.type == T_UNDEFINED) tp_fail_undefined(c, v);
    if (v.type == T_BIG) return v;
    if (tp_as_int(v, &i)) return tp_int(i);
    if (v.type == T_STR) {
        if (base != 0 && (base < 2 || base > 36)) base = -1; /* no such base: only the float below may fit */
        if (base >= 0 && parse_int(c, v, base, &i)) return tp_int(i);
        if (!parse_float(c, v, &f) || !isfinite(f)) return otherwise;
    } else if (v.type == T_FLOAT) {
        f = v.f;
        if (isnan(f)) return otherwise;
    } else {
        return otherwise;
    }
    if (!(fabs(f) < 9223372036854775808.0)) tp_fail(c, -ERANGE, "int: the number does not fit 64 bits");
    return tp_int((int64_t)f);
}

static tp_value f_float(tp_ctx *c, tp_call *call)
{
    tp_value otherwise = call->arg[0].type == T_MISSING ? tp_float(0) : call->arg[0], v = call->self;
    bool integral;
    double f;
    if (v.type == T_UNDEFINED) tp_fail_undefined(c, v);
    if (tp_is_number(v, &integral)) return tp_float(tp_as_double(v));
    if ((v.type == T_STR || v.type == T_BIG) && parse_float(c, tp_of_str(v.s), &f)) return tp_float(f);
    return otherwise;
}

/* Half to even on the exact binary value, as round() does; printf rounds exactly so. */
static tp_value round_common(tp_ctx *c, tp_value v, int64_t precision)
{
    int64_t i;
    char text[700];
    if (tp_as_int(v, &i)) {
        if (precision >= 0) return tp_int(i);
        if (precision < -18) return tp_int(0);
        int64_t unit = 1;
        for (; precision < 0; precision++) unit *= 10;
        int64_t rest = ((i % unit) + unit) % unit, low;
        if (__builtin_sub_overflow(i, rest, &low)) tp_fail(c, -ERANGE, "an integer grows beyond 64 bits");
        bool up = rest > unit - rest || (rest == unit - rest && (low / unit) % 2 != 0);
        return tp_binary(c, '+', tp_int(low), tp_int(up ? unit : 0));
    }
    if (!isfinite(v.f) || precision > 300) return v;
    if (precision < -308) return tp_float(copysign(0.0, v.f));
    if (precision < 0) {
        double unit = pow(10, (double)-precision);
        return tp_float(rint(v.f / unit) * unit);
    }
    tp_tick(c, 40 + (uint64_t)snprintf(text, sizeof text, "%.*f", (int)precision, v.f));
    return tp_float(strtod(text, NULL));
}

static tp_value f_round(tp_ctx *c, tp_call *call)
{
    tp_str *method = tp_arg_str(c, call, 1, "common");
    int64_t precision = tp_arg_int(c, call, 0, 0);
    bool integral;
    tp_value v = call->self;
    if (v.type == T_UNDEFINED) tp_fail_undefined(c, v);
    if (!tp_is_number(v, &integral)) tp_fail(c, -EINVAL, "round needs a number, not %s", tp_type_name(v));
    if (tp_is(method, "common")) return round_common(c, v, precision);
    bool ceiling = tp_is(method, "ceil");
    if (!ceiling && !tp_is(method, "floor")) tp_fail(c, -EINVAL, "round: the method must be common, ceil or floor");
    if (precision > 300 || precision < -300) tp_fail(c, -ERANGE, "round: the precision is out of range");
    double unit = pow(10, (double)precision), scaled = tp_as_double(v) * unit;
    if (!isfinite(scaled)) tp_fail(c, -ERANGE, "round: the number is too large");
    return tp_float((ceiling ? ceil(scaled) : floor(scaled)) / unit);
}

// clang-format off
static const tp_builtin FILTERS[] = {
    { "abs", f_abs, "", 0 },
    { "capitalize", f_case, "", 0 },
    { "center", f_center, "width", 0 },
    { "e", f_escape, "", 0 },
    { "escape", f_escape, "", 0 },
    { "float", f_float, "default", 0 },
    { "forceescape", f_escape, "", 0 },
    { "format", f_format, NULL, 0 },
    { "indent", f_indent, "width first blank", 0 },
    { "int", f_int, "default base", 0 },
    { "lower", f_case, "", 0 },
    { "replace", f_replace, "old new count", 2 },
    { "round", f_round, "precision method", 0 },
    { "safe", f_safe, "", 0 },
    { "title", f_case, "", 0 },
    { "trim", f_trim, "chars", 0 },
    { "truncate", f_truncate, "length killwords end leeway", 0 },
    { "upper", f_case, "", 0 },
    { "urlencode", f_urlencode, "", 0 },
    { "wordcount", f_wordcount, "", 0 },
};
// clang-format on

const tp_builtin *tp_text_filter_find(const char *name, size_t len)
{
    return tp_builtin_find(FILTERS, NJ_COUNT(FILTERS), name, len);
}
