/* Global functions, methods of lists, dicts and helpers, and what all built-ins use to read their arguments. */
#include "engine/template.h"

#include <stdlib.h>

/* ---- Looking up and reading arguments ---- */

/* Tables are sorted by name (tests/test_template.c reaches every entry by its name). */
const tp_builtin *tp_builtin_find(const tp_builtin *table, size_t n, const char *name, size_t len)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = (low + high) / 2, have = strlen(table[mid].name);
        int sign = memcmp(name, table[mid].name, len < have ? len : have);
        if (!sign) sign = (len > have) - (len < have);
        if (!sign) return &table[mid];
        if (sign < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

static _Noreturn void fail_arg(tp_ctx *c, const tp_call *call, const char *wanted, tp_value got)
{
    if (got.type == T_UNDEFINED) tp_fail_undefined(c, got);
    tp_fail(c, -EINVAL, "%s needs %s, not %s", call->name, wanted, tp_type_name(got));
}

int64_t tp_arg_int(tp_ctx *c, const tp_call *call, int i, int64_t otherwise)
{
    int64_t v;
    if (call->arg[i].type == T_MISSING) return otherwise;
    if (!tp_as_int(call->arg[i], &v)) fail_arg(c, call, "an integer", call->arg[i]);
    return v;
}

bool tp_arg_bool(tp_ctx *c, const tp_call *call, int i, bool otherwise)
{
    return call->arg[i].type == T_MISSING ? otherwise : tp_truth(c, call->arg[i]);
}

tp_str *tp_arg_str(tp_ctx *c, const tp_call *call, int i, const char *otherwise)
{
    if (call->arg[i].type == T_MISSING && otherwise) return tp_cstr(c, otherwise).s;
    if (call->arg[i].type != T_STR) fail_arg(c, call, "text", call->arg[i]);
    return call->arg[i].s;
}

/* ---- Dicts ---- */

static tp_value d_get(tp_ctx *c, tp_call *call)
{
    tp_value v;
    if (tp_dict_get(c, call->self.d, call->arg[0], &v)) return v;
    return call->arg[1].type == T_MISSING ? tp_none() : call->arg[1];
}

static tp_value d_view(tp_ctx *c, tp_call *call)
{
    tp_view *view = tp_alloc(c, 1, sizeof *view);
    view->d = call->self.d;
    view->kind = call->name[0] == 'k' ? VIEW_KEYS : call->name[0] == 'v' ? VIEW_VALUES : VIEW_ITEMS;
    return (tp_value){ .type = T_VIEW, .view = view };
}

/* Entries of a dict or of a list of pairs, then keyword arguments, into d. */
static void dict_fill(tp_ctx *c, tp_dict *d, const tp_args *args, const char *who)
{
    if (args->n > 1) tp_fail(c, -EINVAL, "%s takes at most 1 argument", who);
    if (args->n && args->v[0].type == T_DICT) {
        const tp_dict *from = args->v[0].d == d ? tp_dict_copy(c, d) : args->v[0].d;
        for (uint32_t i = 0; i < from->n; i++)
            if (from->e[i].key.type != T_MISSING) tp_dict_set(c, d, from->e[i].key, from->e[i].value);
    } else if (args->n) {
        tp_list *l = tp_items(c, args->v[0]);
        for (uint32_t i = 0; i < l->n; i++) {
            tp_list *pair = tp_items(c, l->v[i]);
            if (pair->n != 2) tp_fail(c, -EINVAL, "%s needs pairs of a key and a value", who);
            tp_dict_set(c, d, pair->v[0], pair->v[1]);
        }
    }
    for (uint32_t i = 0; args->kw && i < args->kw->n; i++)
        if (args->kw->e[i].key.type != T_MISSING) tp_dict_set(c, d, args->kw->e[i].key, args->kw->e[i].value);
}

static tp_value d_update(tp_ctx *c, tp_call *call)
{
    dict_fill(c, call->self.d, &call->all, "update");
    return tp_none();
}

static tp_value d_pop(tp_ctx *c, tp_call *call)
{
    tp_value v;
    if (tp_dict_remove(c, call->self.d, call->arg[0], &v)) return v;
    if (call->arg[1].type == T_MISSING) tp_fail(c, -EINVAL, "pop: the dict has no such key");
    return call->arg[1];
}

static tp_value d_popitem(tp_ctx *c, tp_call *call)
{
    tp_dict *d = call->self.d;
    tp_value v;
    for (uint32_t i = d->n; i-- > 0;) {
        tp_value key = d->e[i].key;
        tp_tick(c, 1);
        if (key.type == T_MISSING) continue;
        tp_dict_remove(c, d, key, &v);
        return tp_pair(c, key, v);
    }
    tp_fail(c, -EINVAL, "popitem: the dict is empty");
}

static tp_value d_setdefault(tp_ctx *c, tp_call *call)
{
    tp_value v;
    if (tp_dict_get(c, call->self.d, call->arg[0], &v)) return v;
    v = call->arg[1].type == T_MISSING ? tp_none() : call->arg[1];
    tp_dict_set(c, call->self.d, call->arg[0], v);
    return v;
}

static tp_value d_copy(tp_ctx *c, tp_call *call)
{
    return tp_of_dict(tp_dict_copy(c, call->self.d));
}

static tp_value d_clear(__attribute__((unused)) tp_ctx *c, tp_call *call)
{
    *call->self.d = (tp_dict){ 0 };
    return tp_none();
}

// clang-format off
static const tp_builtin DICT_METHODS[] = {
    { "clear", d_clear, "", 0 },       { "copy", d_copy, "", 0 },
    { "get", d_get, "key default", 1 }, { "items", d_view, "", 0 },
    { "keys", d_view, "", 0 },         { "pop", d_pop, "key default", 1 },
    { "popitem", d_popitem, "", 0 },   { "setdefault", d_setdefault, "key default", 1 },
    { "update", d_update, NULL, 0 },   { "values", d_view, "", 0 },
};
// clang-format on

/* ---- Lists ---- */

static tp_value l_append(tp_ctx *c, tp_call *call)
{
    tp_list_push(c, call->self.l, call->arg[0]);
    return tp_none();
}

static tp_value l_extend(tp_ctx *c, tp_call *call)
{
    tp_list *l = tp_items(c, call->arg[0]);
    for (uint32_t i = 0, n = l->n; i < n; i++) tp_list_push(c, call->self.l, l->v[i]);
    return tp_none();
}

static tp_value l_insert(tp_ctx *c, tp_call *call)
{
    tp_list *l = call->self.l;
    int64_t at = tp_arg_int(c, call, 0, 0), n = l->n;
    if (at < 0) at = at + n < 0 ? 0 : at + n;
    if (at > n) at = n;
    tp_list_push(c, l, call->arg[1]);
    tp_tick(c, (uint64_t)(n - at) / 4);
    memmove(l->v + at + 1, l->v + at, (size_t)(n - at) * sizeof *l->v);
    l->v[at] = call->arg[1];
    return tp_none();
}

static tp_value l_take(tp_ctx *c, tp_list *l, int64_t at)
{
    tp_value v = l->v[at];
    tp_tick(c, (uint64_t)(l->n - at) / 4);
    memmove(l->v + at, l->v + at + 1, (size_t)(l->n - 1 - at) * sizeof *l->v);
    l->n--;
    return v;
}

static tp_value l_pop(tp_ctx *c, tp_call *call)
{
    int64_t at = tp_arg_int(c, call, 0, -1), n = call->self.l->n;
    if (at < 0) at += n;
    if (at < 0 || at >= n) tp_fail(c, -EINVAL, n ? "pop: the index is out of range" : "pop: the list is empty");
    return l_take(c, call->self.l, at);
}

static int64_t position(tp_ctx *c, const tp_list *l, tp_value v)
{
    for (uint32_t i = 0; i < l->n; i++) {
        tp_tick(c, 1);
        if (tp_equal(c, l->v[i], v)) return i;
    }
    return -1;
}

static tp_value l_remove(tp_ctx *c, tp_call *call)
{
    int64_t at = position(c, call->self.l, call->arg[0]);
    if (at < 0) tp_fail(c, -EINVAL, "remove: the list does not hold this value");
    l_take(c, call->self.l, at);
    return tp_none();
}

static tp_value l_index(tp_ctx *c, tp_call *call)
{
    int64_t at = position(c, call->self.l, call->arg[0]);
    if (at < 0) tp_fail(c, -EINVAL, "index: the %s does not hold this value", tp_type_name(call->self));
    return tp_int(at);
}

static tp_value l_count(tp_ctx *c, tp_call *call)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < call->self.l->n; i++) n += tp_equal(c, call->self.l->v[i], call->arg[0]);
    return tp_int(n);
}

static tp_value l_reverse(tp_ctx *c, tp_call *call)
{
    tp_list *l = call->self.l;
    tp_tick(c, l->n / 4);
    for (uint32_t i = 0; i < l->n / 2; i++) {
        tp_value swap = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = swap;
    }
    return tp_none();
}

static tp_value l_copy(tp_ctx *c, tp_call *call)
{
    return tp_get_slice(c, call->self, tp_none(), tp_none(), tp_none());
}

static tp_value l_clear(__attribute__((unused)) tp_ctx *c, tp_call *call)
{
    call->self.l->n = 0;
    return tp_none();
}

static tp_value l_sort(tp_ctx *c, tp_call *call)
{
    tp_value how[] = { call->arg[0].type == T_MISSING ? tp_bool(false) : call->arg[0], tp_bool(true) };
    tp_list *sorted = tp_invoke(c, tp_filter_find("sort", 4), call->self, &(tp_args){ .v = how, .n = 2 }).l;
    if (sorted->n) memcpy(call->self.l->v, sorted->v, sorted->n * sizeof *sorted->v);
    return tp_none();
}

// clang-format off
static const tp_builtin LIST_METHODS[] = {
    { "append", l_append, "object", 1 }, { "clear", l_clear, "", 0 },   { "copy", l_copy, "", 0 },
    { "count", l_count, "value", 1 },    { "extend", l_extend, "iterable", 1 }, { "index", l_index, "value", 1 },
    { "insert", l_insert, "index object", 2 }, { "pop", l_pop, "index", 0 }, { "remove", l_remove, "value", 1 },
    { "reverse", l_reverse, "", 0 },     { "sort", l_sort, "reverse", 0 },
};
// clang-format on

static const tp_builtin TUPLE_METHODS[] = { { "count", l_count, "value", 1 }, { "index", l_index, "value", 1 } };

/* ---- Loops, cyclers ---- */

static tp_value loop_cycle(tp_ctx *c, tp_call *call)
{
    if (!call->all.n) tp_fail(c, -EINVAL, "loop.cycle needs items");
    return call->all.v[call->self.loop->index0 % call->all.n];
}

static tp_value loop_changed(tp_ctx *c, tp_call *call)
{
    tp_list *now = tp_list_new(c, call->all.n);
    for (uint32_t i = 0; i < call->all.n; i++) tp_list_push(c, now, call->all.v[i]);
    tp_value v = tp_of_list(T_TUPLE, now);
    bool changed = !tp_equal(c, call->self.loop->changed, v);
    call->self.loop->changed = v;
    return tp_bool(changed);
}

static const tp_builtin LOOP_METHODS[] = { { "changed", loop_changed, NULL, 0 }, { "cycle", loop_cycle, NULL, 0 } };

static tp_value cycler_next(__attribute__((unused)) tp_ctx *c, tp_call *call)
{
    tp_cycler *y = call->self.cycler;
    tp_value v = y->items->v[y->pos];
    y->pos = (y->pos + 1) % y->items->n;
    return v;
}

static tp_value cycler_reset(__attribute__((unused)) tp_ctx *c, tp_call *call)
{
    call->self.cycler->pos = 0;
    return tp_none();
}

static const tp_builtin CYCLER_METHODS[] = { { "next", cycler_next, "", 0 }, { "reset", cycler_reset, "", 0 } };

const tp_builtin *tp_method_find(tp_value v, const char *name, size_t len)
{
    switch (v.type) {
    case T_STR: return tp_str_method(name, len);
    case T_DICT: return tp_builtin_find(DICT_METHODS, NJ_COUNT(DICT_METHODS), name, len);
    case T_LIST: return tp_builtin_find(LIST_METHODS, NJ_COUNT(LIST_METHODS), name, len);
    case T_TUPLE: return tp_builtin_find(TUPLE_METHODS, NJ_COUNT(TUPLE_METHODS), name, len);
    case T_LOOP: return tp_builtin_find(LOOP_METHODS, NJ_COUNT(LOOP_METHODS), name, len);
    case T_CYCLER: return tp_builtin_find(CYCLER_METHODS, NJ_COUNT(CYCLER_METHODS), name, len);
    default: return NULL;
    }
}

/* ---- Global functions ---- */

static tp_value g_range(tp_ctx *c, tp_call *call)
{
    int64_t start = tp_arg_int(c, call, 0, 0), stop = tp_arg_int(c, call, 1, 0), step = tp_arg_int(c, call, 2, 1), span;
    tp_range *r = tp_alloc(c, 1, sizeof *r);
    if (call->arg[1].type == T_MISSING) {
        stop = start;
        start = 0;
    }
    if (step == 0) tp_fail(c, -EINVAL, "range: the step must not be zero");
    if (__builtin_sub_overflow(stop, start, &span) || step == INT64_MIN || span == INT64_MIN)
        tp_fail(c, -ERANGE, "range: the numbers are too far apart");
    *r = (tp_range){ .start = start, .stop = stop, .step = step };
    if (step > 0 ? span > 0 : span < 0) r->n = step > 0 ? (span - 1) / step + 1 : (-span - 1) / -step + 1;
    return (tp_value){ .type = T_RANGE, .range = r };
}

static tp_value g_dict(tp_ctx *c, tp_call *call)
{
    tp_dict *d = tp_dict_new(c);
    dict_fill(c, d, &call->all, call->name);
    return (tp_value){ .type = call->name[0] == 'n' ? T_NAMESPACE : T_DICT, .d = d };
}

static tp_value g_cycler(tp_ctx *c, tp_call *call)
{
    tp_cycler *y = tp_alloc(c, 1, sizeof *y);
    if (!call->all.n) tp_fail(c, -EINVAL, "cycler needs at least one item");
    y->items = tp_list_new(c, call->all.n);
    for (uint32_t i = 0; i < call->all.n; i++) tp_list_push(c, y->items, call->all.v[i]);
    return (tp_value){ .type = T_CYCLER, .cycler = y };
}

static tp_value g_joiner(tp_ctx *c, tp_call *call)
{
    tp_list *state = tp_list_new(c, 2);
    tp_list_push(c, state, tp_of_str(tp_arg_str(c, call, 0, ", ")));
    return (tp_value){ .type = T_JOINER, .l = state };
}

static tp_value g_raise(tp_ctx *c, tp_call *call)
{
    tp_value text = tp_to_str(c, call->arg[0]);
    tp_fail_text(c, -EBADMSG, text.s->data, text.s->len);
}

/* As datetime.now().strftime(): a naive time, so %z and %Z are empty, and no fraction of a second. */
static tp_value g_strftime(tp_ctx *c, tp_call *call)
{
    tp_str *format = tp_arg_str(c, call, 0, NULL);
    struct tm now;
    time_t t = time(NULL);
    tp_buf b = { 0 };
    if (c->now)
        now = *c->now;
    else
        localtime_r(&t, &now);
    if (format->len > 1000) tp_fail(c, -E2BIG, "strftime_now: the format is too long");
    for (uint32_t i = 0; i < format->len; i++) {
        char one[4] = { '%', 0 }, text[256];
        if (format->data[i] != '%' || i + 1 == format->len) {
            tp_putc(c, &b, format->data[i]);
            continue;
        }
        one[1] = format->data[++i];
        tp_tick(c, 20);
        if ((one[1] == '-' || one[1] == '_' || one[1] == '0' || one[1] == '^' || one[1] == '#') && i + 1 < format->len)
            one[2] = format->data[++i];
        if (one[1] == 'z' || one[1] == 'Z') continue;
        if (one[1] == 'f')
            tp_puts(c, &b, "000000");
        else
            tp_put(c, &b, text, strftime(text, sizeof text, one, &now));
    }
    return tp_done(c, &b);
}

// clang-format off
static const tp_builtin GLOBALS[] = {
    { "cycler", g_cycler, NULL, 0 },
    { "dict", g_dict, NULL, 0 },
    { "joiner", g_joiner, "sep", 0 },
    { "namespace", g_dict, NULL, 0 },
    { "raise_exception", g_raise, "message", 1 },
    { "range", g_range, "start stop step", 1 },
    { "strftime_now", g_strftime, "format", 1 },
};
// clang-format on

const tp_builtin *tp_global_find(const char *name, size_t len)
{
    return tp_builtin_find(GLOBALS, NJ_COUNT(GLOBALS), name, len);
}
