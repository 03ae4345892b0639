/* Filters on sequences and on anything; those on text are in template_filter_text.c. */
#include "engine/template.h"

/* ---- Attributes by path ---- */

tp_value tp_get_path(tp_ctx *c, tp_value v, tp_value path)
{
    if (path.type != T_STR) return tp_get_item(c, v, path);
    tp_value dot = tp_cstr(c, ".");
    tp_list *parts = tp_split(c, path, dot, -1, false).l;
    for (uint32_t i = 0; i < parts->n; i++) {
        tp_value part = parts->v[i];
        int64_t index = 0;
        bool digits = part.s->len > 0 && part.s->len < 10;
        for (uint32_t k = 0; k < part.s->len && digits; k++) {
            digits = part.s->data[k] >= '0' && part.s->data[k] <= '9';
            index = index * 10 + (part.s->data[k] - '0');
        }
        v = tp_get_item(c, v, digits ? tp_int(index) : part);
    }
    return v;
}

/* What an item is sorted, grouped or compared by. */
static tp_value key_of(tp_ctx *c, tp_value item, tp_value attribute, bool case_sensitive)
{
    if (attribute.type != T_MISSING && attribute.type != T_NONE) item = tp_get_path(c, item, attribute);
    return case_sensitive ? item : tp_fold(c, item);
}

/* ---- Sorting: stable, by key ---- */

typedef struct keyed {
    tp_value key, value;
} keyed;

static void merge_runs(tp_ctx *c, const keyed *from, keyed *to, size_t n, size_t width, bool reverse)
{
    for (size_t start = 0; start < n; start += 2 * width) {
        size_t mid = start + width < n ? start + width : n, end = mid + width < n ? mid + width : n;
        size_t a = start, b = mid;
        for (size_t k = start; k < end; k++) {
            bool second = a == mid;
            if (a < mid && b < end) {
                int sign = tp_order(c, from[b].key, from[a].key, "<"); /* equal ones keep their order both ways */
                second = reverse ? sign == 1 : sign < 0;
                tp_tick(c, 1);
            }
            to[k] = second ? from[b++] : from[a++];
        }
    }
}

static tp_list *sort_keyed(tp_ctx *c, keyed *items, size_t n, bool reverse)
{
    keyed *other = n ? tp_alloc(c, n, sizeof *other) : NULL;
    for (size_t width = 1; width < n; width *= 2) {
        merge_runs(c, items, other, n, width, reverse);
        keyed *swap = items;
        items = other;
        other = swap;
    }
    tp_list *l = tp_list_new(c, (uint32_t)n);
    for (size_t i = 0; i < n; i++) tp_list_push(c, l, items[i].value);
    return l;
}

/* "a,b" sorts by the list [item.a, item.b]. */
static tp_value multi_key(tp_ctx *c, tp_value item, tp_value attribute, bool case_sensitive)
{
    if (attribute.type != T_STR || tp_find(c, attribute.s->data, attribute.s->len, ",", 1) < 0)
        return key_of(c, item, attribute, case_sensitive);
    tp_list *names = tp_split(c, attribute, tp_cstr(c, ","), -1, false).l, *keys = tp_list_new(c, names->n);
    for (uint32_t i = 0; i < names->n; i++) tp_list_push(c, keys, key_of(c, item, names->v[i], case_sensitive));
    return tp_of_list(T_LIST, keys);
}

static tp_list *sort_list(tp_ctx *c, const tp_list *l, tp_value attribute, bool case_sensitive, bool reverse)
{
    keyed *items = l->n ? tp_alloc(c, l->n, sizeof *items) : NULL;
    for (uint32_t i = 0, n = l->n; i < n; i++)
        items[i] = (keyed){ multi_key(c, l->v[i], attribute, case_sensitive), l->v[i] };
    return sort_keyed(c, items, l->n, reverse);
}

static tp_value f_sort(tp_ctx *c, tp_call *call)
{
    bool reverse = tp_arg_bool(c, call, 0, false), case_sensitive = tp_arg_bool(c, call, 1, false);
    return tp_of_list(T_LIST, sort_list(c, tp_items(c, call->self), call->arg[2], case_sensitive, reverse));
}

static tp_value f_dictsort(tp_ctx *c, tp_call *call)
{
    bool case_sensitive = tp_arg_bool(c, call, 0, false), reverse = tp_arg_bool(c, call, 2, false);
    tp_str *by = tp_arg_str(c, call, 1, "key");
    if (call->self.type != T_DICT) tp_fail(c, -EINVAL, "dictsort needs a dict, not %s", tp_type_name(call->self));
    if (!tp_is(by, "key") && !tp_is(by, "value")) tp_fail(c, -EINVAL, "dictsort can sort by 'key' or 'value'");
    tp_view view = { .d = call->self.d, .kind = VIEW_ITEMS };
    tp_list *pairs = tp_items(c, (tp_value){ .type = T_VIEW, .view = &view });
    return tp_of_list(T_LIST, sort_list(c, pairs, tp_int(tp_is(by, "value")), case_sensitive, reverse));
}

static tp_value f_groupby(tp_ctx *c, tp_call *call)
{
    tp_list *l = tp_items(c, call->self), *groups = tp_list_new(c, 0);
    tp_value attribute = call->arg[0], otherwise = call->arg[1];
    bool case_sensitive = tp_arg_bool(c, call, 2, false);
    size_t n = l->n;
    keyed *items = n ? tp_alloc(c, n, sizeof *items) : NULL;
    for (size_t i = 0; i < n; i++) { /* value: the pair (real key, item) */
        tp_value key = tp_get_path(c, l->v[i], attribute);
        if (key.type == T_UNDEFINED && otherwise.type != T_MISSING && otherwise.type != T_NONE) key = otherwise;
        items[i] = (keyed){ case_sensitive ? key : tp_fold(c, key), tp_pair(c, key, l->v[i]) };
    }
    tp_list *sorted = sort_keyed(c, items, n, false);
    tp_value last = { .type = T_MISSING };
    for (uint32_t i = 0; i < sorted->n; i++) {
        tp_value real = sorted->v[i].l->v[0], key = case_sensitive ? real : tp_fold(c, real);
        if (last.type == T_MISSING || !tp_equal(c, last, key)) {
            tp_value group = tp_pair(c, real, tp_of_list(T_LIST, tp_list_new(c, 0)));
            group.l->group = true;
            tp_list_push(c, groups, group);
            last = key;
        }
        tp_list_push(c, groups->v[groups->n - 1].l->v[1].l, sorted->v[i].l->v[1]);
    }
    return tp_of_list(T_LIST, groups);
}

static tp_value f_unique(tp_ctx *c, tp_call *call)
{
    tp_list *l = tp_items(c, call->self), *out = tp_list_new(c, 0);
    tp_dict *seen = tp_dict_new(c);
    bool case_sensitive = tp_arg_bool(c, call, 0, false);
    for (uint32_t i = 0; i < l->n; i++) {
        tp_value key = key_of(c, l->v[i], call->arg[1], case_sensitive), known;
        if (tp_dict_get(c, seen, key, &known)) continue;
        tp_dict_set(c, seen, key, tp_none());
        tp_list_push(c, out, l->v[i]);
    }
    return tp_generator(c, out, "unique");
}

/* min max */
static tp_value f_extreme(tp_ctx *c, tp_call *call)
{
    tp_list *l = tp_items(c, call->self);
    bool case_sensitive = tp_arg_bool(c, call, 0, false), max = strcmp(call->name, "max") == 0;
    tp_value best = tp_undefined(NULL), best_key = best;
    for (uint32_t i = 0; i < l->n; i++) {
        tp_value key = key_of(c, l->v[i], call->arg[1], case_sensitive);
        tp_tick(c, 1);
        if (i) {
            int sign = tp_order(c, key, best_key, max ? ">" : "<");
            if (max ? sign != 1 : sign >= 0) continue;
        }
        best = l->v[i];
        best_key = key;
    }
    return best;
}

static tp_value f_sum(tp_ctx *c, tp_call *call)
{
    tp_list *l = tp_items(c, call->self);
    tp_value sum = call->arg[1].type == T_MISSING ? tp_int(0) : call->arg[1];
    if (sum.type == T_STR) tp_fail(c, -EINVAL, "sum can't add up text, use join");
    for (uint32_t i = 0; i < l->n; i++) sum = tp_binary(c, '+', sum, key_of(c, l->v[i], call->arg[0], true));
    return sum;
}

/* ---- Picking ---- */

static tp_value f_first(tp_ctx *c, tp_call *call)
{
    tp_value v = call->self;
    if (v.type == T_STR) return v.s->len ? tp_get_item(c, v, tp_int(0)) : tp_undefined(NULL);
    if (v.type == T_ITER) {
        tp_iter *it = v.iter;
        return it->pos < it->l->n ? it->l->v[it->pos++] : tp_undefined(NULL);
    }
    tp_list *l = tp_items(c, v);
    return l->n ? l->v[0] : tp_undefined(NULL);
}

static tp_value f_last(tp_ctx *c, tp_call *call)
{
    tp_value v = call->self;
    if (v.type == T_ITER) tp_fail(c, -EINVAL, "last does not work on a generator, put |list before it");
    if (v.type == T_STR) return v.s->len ? tp_get_item(c, v, tp_int(-1)) : tp_undefined(NULL);
    tp_list *l = tp_items(c, v);
    return l->n ? l->v[l->n - 1] : tp_undefined(NULL);
}

static tp_value f_length(tp_ctx *c, tp_call *call)
{
    int64_t n = tp_length(c, call->self);
    if (n < 0) tp_fail(c, -EINVAL, "an object of type %s has no length", tp_type_name(call->self));
    return tp_int(n);
}

static tp_value f_default(tp_ctx *c, tp_call *call)
{
    tp_value otherwise = call->arg[0].type == T_MISSING ? tp_cstr(c, "") : call->arg[0];
    if (call->self.type == T_UNDEFINED) return otherwise;
    return tp_arg_bool(c, call, 1, false) && !tp_truth(c, call->self) ? otherwise : call->self;
}

static tp_value f_list(tp_ctx *c, tp_call *call)
{
    tp_list *l = tp_items(c, call->self);
    if (call->self.type == T_LIST || call->self.type == T_TUPLE)
        l = tp_get_slice(c, tp_of_list(T_LIST, l), tp_none(), tp_none(), tp_none()).l;
    return tp_of_list(T_LIST, l);
}

static tp_value f_reverse(tp_ctx *c, tp_call *call)
{
    tp_value v = call->self;
    if (v.type == T_STR) return tp_get_slice(c, v, tp_none(), tp_none(), tp_int(-1));
    tp_value all = tp_of_list(T_LIST, tp_items(c, v));
    tp_value reversed = tp_get_slice(c, all, tp_none(), tp_none(), tp_int(-1));
    return v.type == T_ITER ? reversed : tp_generator(c, reversed.l, "reversed");
}

static tp_value f_items(tp_ctx *c, tp_call *call)
{
    if (call->self.type == T_UNDEFINED) return tp_generator(c, tp_list_new(c, 0), "items");
    if (call->self.type != T_DICT) tp_fail(c, -EINVAL, "items needs a dict, not %s", tp_type_name(call->self));
    tp_view view = { .d = call->self.d, .kind = VIEW_ITEMS };
    return tp_generator(c, tp_items(c, (tp_value){ .type = T_VIEW, .view = &view }), "items");
}

static tp_value f_attr(tp_ctx *c, tp_call *call)
{
    tp_str *name = tp_arg_str(c, call, 0, NULL);
    if (call->self.type == T_UNDEFINED) tp_fail_undefined(c, call->self);
    if (call->self.type == T_DICT && !tp_method_find(call->self, name->data, name->len))
        return tp_undefined_attr(call->self, name);
    return tp_get_attr(c, call->self, name);
}

static tp_value f_batch(tp_ctx *c, tp_call *call)
{
    tp_list *l = tp_items(c, call->self), *out = tp_list_new(c, 0), *row = NULL;
    int64_t size = tp_arg_int(c, call, 0, 1);
    tp_value fill = call->arg[1];
    for (uint32_t i = 0; i < l->n; i++) {
        if (!row || row->n == size) {
            row = tp_list_new(c, 0);
            tp_list_push(c, out, tp_of_list(T_LIST, row));
        }
        tp_list_push(c, row, l->v[i]);
    }
    while (row && fill.type != T_MISSING && fill.type != T_NONE && row->n < size) tp_list_push(c, row, fill);
    return tp_generator(c, out, "batch");
}

static tp_value f_slice(tp_ctx *c, tp_call *call)
{
    tp_list *l = tp_items(c, call->self), *out = tp_list_new(c, 0);
    int64_t slices = tp_arg_int(c, call, 0, 1), at = 0;
    tp_value fill = call->arg[1];
    if (slices == 0) tp_fail(c, -EINVAL, "slice: division by zero");
    for (int64_t i = 0, n = l->n; i < slices; i++) {
        tp_list *part = tp_list_new(c, 0);
        int64_t size = n / slices + (i < n % slices);
        for (int64_t k = 0; k < size; k++) tp_list_push(c, part, l->v[at++]);
        if (fill.type != T_MISSING && fill.type != T_NONE && i >= n % slices) tp_list_push(c, part, fill);
        tp_list_push(c, out, tp_of_list(T_LIST, part));
    }
    return tp_generator(c, out, "slice");
}

/* ---- Filters that apply others ---- */

static const tp_builtin *find_named(tp_ctx *c, tp_value name, bool test)
{
    const tp_builtin *fn = NULL;
    if (name.type == T_STR)
        fn = test ? tp_test_find(name.s->data, name.s->len) : tp_filter_find(name.s->data, name.s->len);
    if (fn) return fn;
    tp_str *text = tp_to_str(c, name).s;
    tp_fail(c, -EINVAL, "there is no %s named '%.*s'", test ? "test" : "filter", text->len > 60 ? 60 : (int)text->len,
            text->data);
}

static tp_value f_map(tp_ctx *c, tp_call *call)
{
    tp_args args = call->all;
    tp_value attribute = { .type = T_MISSING }, otherwise = attribute;
    const tp_builtin *fn = NULL;
    if (!args.n && args.kw && tp_dict_find(c, args.kw, "attribute", &attribute)) {
        tp_dict_find(c, args.kw, "default", &otherwise);
        if (args.kw->live > 1 + (otherwise.type != T_MISSING)) tp_fail(c, -EINVAL, "map: unexpected keyword argument");
    } else if (args.n) {
        fn = find_named(c, args.v[0], false);
        args.v++;
        args.n--;
    } else {
        tp_fail(c, -EINVAL, "map needs the name of a filter or attribute=...");
    }
    tp_list *out = tp_list_new(c, 0);
    if (tp_truth(c, call->self)) {
        tp_list *l = tp_items(c, call->self);
        tp_enter(c);
        for (uint32_t i = 0; i < l->n; i++) {
            tp_value v = fn ? tp_invoke(c, fn, l->v[i], &args) : tp_get_path(c, l->v[i], attribute);
            if (!fn && v.type == T_UNDEFINED && otherwise.type != T_MISSING && otherwise.type != T_NONE) v = otherwise;
            tp_list_push(c, out, v);
        }
        c->depth--;
    }
    return tp_generator(c, out, "map");
}

/* select reject selectattr rejectattr */
static tp_value f_select(tp_ctx *c, tp_call *call)
{
    tp_args args = call->all;
    bool want = call->name[0] == 's', by_attr = strstr(call->name, "attr") != NULL;
    tp_value attribute = { .type = T_MISSING };
    const tp_builtin *fn = NULL;
    tp_list *out = tp_list_new(c, 0);
    if (!tp_truth(c, call->self)) return tp_generator(c, out, call->name);
    if (by_attr) {
        if (!args.n) tp_fail(c, -EINVAL, "%s needs the name of an attribute", call->name);
        attribute = *args.v++;
        args.n--;
    }
    if (args.n) {
        fn = find_named(c, *args.v++, true);
        args.n--;
    }
    tp_list *l = tp_items(c, call->self);
    tp_enter(c);
    for (uint32_t i = 0; i < l->n; i++) {
        tp_value v = by_attr ? tp_get_path(c, l->v[i], attribute) : l->v[i];
        if (tp_truth(c, fn ? tp_invoke(c, fn, v, &args) : v) == want) tp_list_push(c, out, l->v[i]);
    }
    c->depth--;
    return tp_generator(c, out, call->name);
}

/* ---- Text made of anything ---- */

static tp_value f_join(tp_ctx *c, tp_call *call)
{
    tp_buf b = { 0 };
    tp_list *l = tp_items(c, call->self);
    tp_str *d = call->arg[0].type == T_MISSING ? tp_cstr(c, "").s : tp_to_str(c, call->arg[0]).s;
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) tp_put_str(c, &b, d);
        tp_tick(c, 1);
        tp_write(c, &b, key_of(c, l->v[i], call->arg[1], true));
    }
    return tp_done(c, &b);
}

static tp_value f_string(tp_ctx *c, tp_call *call)
{
    return call->self.type == T_STR ? call->self : tp_to_str(c, call->self);
}

/* json.dumps with the keyword arguments that model hubs let through; no HTML escapes. */
static tp_value f_tojson(tp_ctx *c, tp_call *call)
{
    tp_buf b = { 0 }, spaces = { 0 };
    int64_t width;
    tp_value indent = call->arg[1], separators = call->arg[2];
    tp_json_style style = { .ascii = tp_arg_bool(c, call, 0, false), .sorted = tp_arg_bool(c, call, 3, false) };
    if (indent.type == T_STR) {
        style.indent = indent.s;
    } else if (indent.type != T_MISSING && indent.type != T_NONE) {
        width = tp_arg_int(c, call, 1, 0);
        tp_pad(c, &spaces, " ", 1, width);
        style.indent = tp_done(c, &spaces).s;
    }
    style.comma = tp_cstr(c, style.indent ? "," : ", ").s;
    style.colon = tp_cstr(c, ": ").s;
    if (separators.type != T_MISSING && separators.type != T_NONE) {
        tp_list *pair = tp_items(c, separators);
        if (pair->n != 2 || pair->v[0].type != T_STR || pair->v[1].type != T_STR)
            tp_fail(c, -EINVAL, "tojson: separators must be two texts");
        style.comma = pair->v[0].s;
        style.colon = pair->v[1].s;
    }
    tp_json(c, &b, call->self, &style);
    return tp_done(c, &b);
}

// clang-format off
static const tp_builtin FILTERS[] = {
    { "attr", f_attr, "name", 1 },
    { "batch", f_batch, "linecount fill_with", 1 },
    { "count", f_length, "", 0 },
    { "d", f_default, "default_value boolean", 0 },
    { "default", f_default, "default_value boolean", 0 },
    { "dictsort", f_dictsort, "case_sensitive by reverse", 0 },
    { "first", f_first, "", 0 },
    { "groupby", f_groupby, "attribute default case_sensitive", 1 },
    { "items", f_items, "", 0 },
    { "join", f_join, "d attribute", 0 },
    { "last", f_last, "", 0 },
    { "length", f_length, "", 0 },
    { "list", f_list, "", 0 },
    { "map", f_map, NULL, 0 },
    { "max", f_extreme, "case_sensitive attribute", 0 },
    { "min", f_extreme, "case_sensitive attribute", 0 },
    { "reject", f_select, NULL, 0 },
    { "rejectattr", f_select, NULL, 0 },
    { "reverse", f_reverse, "", 0 },
    { "select", f_select, NULL, 0 },
    { "selectattr", f_select, NULL, 0 },
    { "slice", f_slice, "slices fill_with", 1 },
    { "sort", f_sort, "reverse case_sensitive attribute", 0 },
    { "string", f_string, "", 0 },
    { "sum", f_sum, "attribute start", 0 },
    { "tojson", f_tojson, "ensure_ascii indent separators sort_keys", 0 },
    { "unique", f_unique, "case_sensitive attribute", 0 },
};
// clang-format on

const tp_builtin *tp_filter_find(const char *name, size_t len)
{
    const tp_builtin *fn = tp_builtin_find(FILTERS, NJ_COUNT(FILTERS), name, len);
    return fn ? fn : tp_text_filter_find(name, len);
}
