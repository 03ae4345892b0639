/* Methods of text, as Python's str has them. */
#include "engine/template.h"

/* The method's value as text with the safe mark of its owner. */
static tp_value like_self(const tp_call *call, tp_value v)
{
    v.aux = call->self.aux;
    return v;
}

static tp_value m_case(tp_ctx *c, tp_call *call)
{
    bool fold = strcmp(call->name, "casefold") == 0;
    return tp_case(c, call->self, fold ? 'f' : call->name[0]); /* upper lower title capitalize swapcase */
}

static tp_value m_strip(tp_ctx *c, tp_call *call)
{
    if (call->arg[0].type != T_MISSING && call->arg[0].type != T_NONE) tp_arg_str(c, call, 0, NULL);
    return tp_strip(c, call->self, call->arg[0], call->name[0] != 'r', call->name[0] != 'l');
}

static tp_value m_split(tp_ctx *c, tp_call *call)
{
    if (call->arg[0].type != T_MISSING && call->arg[0].type != T_NONE) tp_arg_str(c, call, 0, NULL);
    int64_t max = tp_arg_int(c, call, 1, -1);
    return tp_split(c, call->self, call->arg[0], max, call->name[0] == 'r');
}

static tp_value m_splitlines(tp_ctx *c, tp_call *call)
{
    return tp_of_list(T_LIST, tp_split_lines(c, call->self, tp_arg_bool(c, call, 0, false)));
}

/* start and end of find(), count(), startswith() as byte offsets; false when start lies behind the end. */
static bool window(tp_ctx *c, tp_call *call, size_t *from, size_t *to)
{
    tp_str *s = call->self.s;
    int64_t n = tp_chars(c, s), start = 0, stop = n;
    if (call->arg[1].type != T_NONE) start = tp_arg_int(c, call, 1, 0);
    if (call->arg[2].type != T_NONE) stop = tp_arg_int(c, call, 2, n);
    if (start < 0) start = start + n < 0 ? 0 : start + n;
    if (stop < 0) stop = stop + n < 0 ? 0 : stop + n;
    if (stop > n) stop = n;
    if (start > stop) return false;
    *from = tp_byte_at(c, s, start);
    *to = tp_byte_at(c, s, stop);
    return true;
}

static tp_value m_affix(tp_ctx *c, tp_call *call)
{
    size_t from, to;
    tp_value any = call->arg[0], one = any;
    bool starts = call->name[0] == 's';
    if (any.type != T_TUPLE) tp_arg_str(c, call, 0, NULL);
    if (!window(c, call, &from, &to)) return tp_bool(false);
    uint32_t n = any.type == T_TUPLE ? any.l->n : 1;
    for (uint32_t i = 0; i < n; i++) {
        if (any.type == T_TUPLE) one = any.l->v[i];
        if (one.type != T_STR) tp_fail(c, -EINVAL, "%s needs text, not %s", call->name, tp_type_name(one));
        tp_tick(c, 1 + one.s->len / 64);
        if (one.s->len > to - from) continue;
        if (memcmp(call->self.s->data + (starts ? from : to - one.s->len), one.s->data, one.s->len) == 0)
            return tp_bool(true);
    }
    return tp_bool(false);
}

/* find rfind index rindex */
static tp_value m_find(tp_ctx *c, tp_call *call)
{
    size_t from, to;
    tp_str *what = tp_arg_str(c, call, 0, NULL), *s = call->self.s;
    bool right = call->name[0] == 'r', must = strstr(call->name, "index") != NULL;
    int64_t at = -1;
    if (window(c, call, &from, &to)) {
        at = right ? tp_rfind(c, s->data + from, to - from, what->data, what->len)
                   : tp_find(c, s->data + from, to - from, what->data, what->len);
        if (at >= 0) at = tp_chars(c, tp_substr(c, call->self, 0, from + (size_t)at).s);
    }
    if (at < 0 && must) tp_fail(c, -EINVAL, "%s: substring not found", call->name);
    return tp_int(at);
}

static tp_value m_count(tp_ctx *c, tp_call *call)
{
    size_t from, to;
    tp_str *what = tp_arg_str(c, call, 0, NULL), *s = call->self.s;
    int64_t n = 0, at;
    if (!window(c, call, &from, &to)) return tp_int(0);
    if (!what->len) return tp_int((int64_t)tp_chars(c, tp_substr(c, call->self, from, to).s) + 1);
    for (; (at = tp_find(c, s->data + from, to - from, what->data, what->len)) >= 0; n++)
        from += (size_t)at + what->len;
    return tp_int(n);
}

static tp_value maybe_escape(tp_ctx *c, const tp_call *call, tp_value v)
{
    return call->self.aux ? tp_escape(c, v) : v;
}

static tp_value m_replace(tp_ctx *c, tp_call *call)
{
    tp_arg_str(c, call, 0, NULL);
    tp_arg_str(c, call, 1, NULL);
    tp_str *to = maybe_escape(c, call, call->arg[1]).s;
    return tp_replace(c, call->self, call->arg[0].s, to, tp_arg_int(c, call, 2, -1));
}

static tp_value m_join(tp_ctx *c, tp_call *call)
{
    tp_buf b = { 0 };
    tp_list *l = tp_items(c, call->arg[0]);
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->v[i].type != T_STR)
            tp_fail(c, -EINVAL, "join: item %" PRIu32 " must be text, not %s", i, tp_type_name(l->v[i]));
        if (i) tp_put_str(c, &b, call->self.s);
        tp_put_str(c, &b, maybe_escape(c, call, l->v[i]).s);
        tp_tick(c, 1);
    }
    return like_self(call, tp_done(c, &b));
}

static tp_value m_class(tp_ctx *c, tp_call *call)
{
    return tp_bool(tp_is_class(c, call->self.s, call->name));
}

static tp_value m_format(tp_ctx *c, tp_call *call)
{
    return tp_format(c, call->self, &call->all);
}

static tp_value m_remove_affix(tp_ctx *c, tp_call *call)
{
    tp_str *what = tp_arg_str(c, call, 0, NULL), *s = call->self.s;
    bool prefix = strcmp(call->name, "removeprefix") == 0;
    tp_tick(c, what->len / 64);
    if (what->len > s->len) return call->self;
    if (memcmp(s->data + (prefix ? 0 : s->len - what->len), what->data, what->len) != 0) return call->self;
    return prefix ? tp_substr(c, call->self, what->len, s->len) : tp_substr(c, call->self, 0, s->len - what->len);
}

static tp_value m_zfill(tp_ctx *c, tp_call *call)
{
    tp_buf b = { 0 };
    tp_str *s = call->self.s;
    bool sign = s->len && (s->data[0] == '+' || s->data[0] == '-');
    if (sign) tp_putc(c, &b, s->data[0]);
    tp_pad(c, &b, "0", 1, tp_arg_int(c, call, 0, 0) - (int64_t)tp_chars(c, s));
    tp_put(c, &b, s->data + sign, s->len - sign);
    return like_self(call, tp_done(c, &b));
}

/* ljust rjust center */
static tp_value m_justify(tp_ctx *c, tp_call *call)
{
    tp_buf b = { 0 };
    tp_str *fill = tp_arg_str(c, call, 1, " ");
    int64_t width = tp_arg_int(c, call, 0, 0), have = tp_chars(c, call->self.s);
    int64_t missing = width > have ? width - have : 0, left = call->name[0] == 'r' ? missing : 0;
    if (tp_chars(c, fill) != 1) tp_fail(c, -EINVAL, "%s: the fill must be exactly one character", call->name);
    if (call->name[0] == 'c') left = missing / 2 + (missing & width & 1);
    tp_pad(c, &b, fill->data, fill->len, left);
    tp_put_str(c, &b, call->self.s);
    tp_pad(c, &b, fill->data, fill->len, missing - left);
    return like_self(call, tp_done(c, &b));
}

/* partition rpartition */
static tp_value m_partition(tp_ctx *c, tp_call *call)
{
    tp_str *sep = tp_arg_str(c, call, 0, NULL), *s = call->self.s;
    bool right = call->name[0] == 'r';
    if (!sep->len) tp_fail(c, -EINVAL, "%s needs a separator that is not empty", call->name);
    int64_t at =
        right ? tp_rfind(c, s->data, s->len, sep->data, sep->len) : tp_find(c, s->data, s->len, sep->data, sep->len);
    tp_list *l = tp_list_new(c, 3);
    tp_value empty = like_self(call, tp_cstr(c, ""));
    tp_list_push(c, l, at >= 0 ? tp_substr(c, call->self, 0, (size_t)at) : right ? empty : call->self);
    tp_list_push(c, l, at >= 0 ? like_self(call, tp_of_str(sep)) : empty);
    tp_list_push(c, l, at >= 0 ? tp_substr(c, call->self, (size_t)at + sep->len, s->len) : right ? call->self : empty);
    return tp_of_list(T_TUPLE, l);
}

static tp_value m_expandtabs(tp_ctx *c, tp_call *call)
{
    tp_buf b = { 0 };
    int64_t size = tp_arg_int(c, call, 0, 8), column = 0;
    const char *end = call->self.s->data + call->self.s->len;
    size_t n;
    for (const char *p = call->self.s->data; p < end; p += n) {
        tp_decode(p, end, &n);
        if (*p == '\t') {
            int64_t pad = size > 0 ? size - column % size : 0;
            tp_pad(c, &b, " ", 1, pad);
            column += pad;
            continue;
        }
        column = *p == '\n' || *p == '\r' ? 0 : column + 1;
        tp_put(c, &b, p, n);
        tp_tick(c, 1);
    }
    return like_self(call, tp_done(c, &b));
}

// clang-format off
static const tp_builtin METHODS[] = {
    { "capitalize", m_case, "", 0 },
    { "casefold", m_case, "", 0 },
    { "center", m_justify, "width fillchar", 1 },
    { "count", m_count, "sub start end", 1 },
    { "endswith", m_affix, "suffix start end", 1 },
    { "expandtabs", m_expandtabs, "tabsize", 0 },
    { "find", m_find, "sub start end", 1 },
    { "format", m_format, NULL, 0 },
    { "index", m_find, "sub start end", 1 },
    { "isalnum", m_class, "", 0 },
    { "isalpha", m_class, "", 0 },
    { "isascii", m_class, "", 0 },
    { "isdecimal", m_class, "", 0 },
    { "isdigit", m_class, "", 0 },
    { "isidentifier", m_class, "", 0 },
    { "islower", m_class, "", 0 },
    { "isnumeric", m_class, "", 0 },
    { "isspace", m_class, "", 0 },
    { "istitle", m_class, "", 0 },
    { "isupper", m_class, "", 0 },
    { "join", m_join, "iterable", 1 },
    { "ljust", m_justify, "width fillchar", 1 },
    { "lower", m_case, "", 0 },
    { "lstrip", m_strip, "chars", 0 },
    { "partition", m_partition, "sep", 1 },
    { "removeprefix", m_remove_affix, "prefix", 1 },
    { "removesuffix", m_remove_affix, "suffix", 1 },
    { "replace", m_replace, "old new count", 2 },
    { "rfind", m_find, "sub start end", 1 },
    { "rindex", m_find, "sub start end", 1 },
    { "rjust", m_justify, "width fillchar", 1 },
    { "rpartition", m_partition, "sep", 1 },
    { "rsplit", m_split, "sep maxsplit", 0 },
    { "rstrip", m_strip, "chars", 0 },
    { "split", m_split, "sep maxsplit", 0 },
    { "splitlines", m_splitlines, "keepends", 0 },
    { "startswith", m_affix, "prefix start end", 1 },
    { "strip", m_strip, "chars", 0 },
    { "swapcase", m_case, "", 0 },
    { "title", m_case, "", 0 },
    { "upper", m_case, "", 0 },
    { "zfill", m_zfill, "width", 1 },
};
// clang-format on

const tp_builtin *tp_str_method(const char *name, size_t len)
{
    return tp_builtin_find(METHODS, NJ_COUNT(METHODS), name, len);
}
