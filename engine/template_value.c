/* Values: construction, lists, dicts, truth, equality, order, iteration - all by Python's rules. */
#include "engine/template.h"

#include <math.h>

/* ---- Construction ---- */

tp_value tp_none(void)
{
    return (tp_value){ .type = T_NONE };
}
tp_value tp_bool(bool b)
{
    return (tp_value){ .type = T_BOOL, .b = b };
}
tp_value tp_int(int64_t i)
{
    return (tp_value){ .type = T_INT, .i = i };
}
tp_value tp_float(double f)
{
    return (tp_value){ .type = T_FLOAT, .f = f };
}
tp_value tp_undefined(tp_str *name)
{
    return (tp_value){ .type = T_UNDEFINED, .s = name };
}
tp_value tp_undefined_attr(tp_value of, tp_str *name)
{
    return (tp_value){ .type = T_UNDEFINED, .aux = of.type, .s = name };
}

tp_value tp_of_str(tp_str *s)
{
    return (tp_value){ .type = T_STR, .s = s };
}
tp_value tp_of_list(tp_type type, tp_list *l)
{
    return (tp_value){ .type = (uint8_t)type, .l = l };
}
tp_value tp_of_dict(tp_dict *d)
{
    return (tp_value){ .type = T_DICT, .d = d };
}

tp_value tp_text(tp_ctx *c, const char *data, size_t len)
{
    tp_str *s = tp_alloc(c, 1, sizeof *s);
    *s = (tp_str){ .data = data, .len = (uint32_t)len, .chars = UINT32_MAX };
    return tp_of_str(s);
}

tp_value tp_copy(tp_ctx *c, const char *data, size_t len)
{
    tp_buf b = { 0 };
    tp_put(c, &b, data, len);
    return tp_done(c, &b);
}

tp_value tp_cstr(tp_ctx *c, const char *text)
{
    return tp_text(c, text, strlen(text));
}

tp_value tp_generator(tp_ctx *c, tp_list *l, const char *what)
{
    tp_iter *it = tp_alloc(c, 1, sizeof *it);
    *it = (tp_iter){ .l = l, .what = what };
    return (tp_value){ .type = T_ITER, .iter = it };
}

tp_list *tp_list_new(tp_ctx *c, uint32_t cap)
{
    tp_list *l = tp_alloc(c, 1, sizeof *l);
    l->v = cap ? tp_alloc(c, cap, sizeof *l->v) : NULL;
    l->cap = cap;
    return l;
}

void tp_list_push(tp_ctx *c, tp_list *l, tp_value v)
{
    tp_tick(c, 1);
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? 2 * l->cap : 8;
        l->v = tp_grow(c, l->v, l->cap * sizeof v, cap * sizeof v);
        l->cap = cap;
    }
    l->v[l->n++] = v;
}

tp_value tp_pair(tp_ctx *c, tp_value a, tp_value b)
{
    tp_list *l = tp_list_new(c, 2);
    l->v[0] = a;
    l->v[1] = b;
    l->n = 2;
    return tp_of_list(T_TUPLE, l);
}

bool tp_is(const tp_str *s, const char *text)
{
    return strncmp(text, s->data, s->len) == 0 && text[s->len] == '\0' && memchr(s->data, 0, s->len) == NULL;
}

const char *tp_type_name(tp_value v)
{
    static const char *const NAMES[] = {
        [T_MISSING] = "missing",
        [T_UNDEFINED] = "Undefined",
        [T_NONE] = "NoneType",
        [T_BOOL] = "bool",
        [T_INT] = "int",
        [T_BIG] = "int",
        [T_FLOAT] = "float",
        [T_STR] = "str",
        [T_LIST] = "list",
        [T_TUPLE] = "tuple",
        [T_DICT] = "dict",
        [T_VIEW] = "dict view",
        [T_RANGE] = "range",
        [T_ITER] = "generator",
        [T_NAMESPACE] = "Namespace",
        [T_LOOP] = "LoopContext",
        [T_MACRO] = "Macro",
        [T_FUNC] = "function",
        [T_CYCLER] = "Cycler",
        [T_JOINER] = "Joiner",
    };
    return NAMES[v.type];
}

_Noreturn void tp_fail_undefined(tp_ctx *c, tp_value v)
{
    if (!v.s) tp_fail(c, -EINVAL, "an undefined value is used");
    int len = v.s->len > 100 ? 100 : (int)v.s->len;
    if (v.aux == T_MISSING) tp_fail(c, -EINVAL, "'%.*s' is undefined", len, v.s->data);
    const char *of = v.aux == T_NONE ? "None" : tp_type_name((tp_value){ .type = v.aux });
    tp_fail(c, -EINVAL, "'%s%s' has no attribute '%.*s'", of, v.aux == T_NONE ? "" : " object", len, v.s->data);
}

/* ---- Hashing ---- */

static uint32_t hash_bytes(const char *p, size_t n)
{
    uint32_t h = 2166136261u; /* FNV-1a, then mixed: the index uses the low bits */
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 16777619u;
    h ^= h >> 15;
    h *= 0x2c1b3c6du;
    h ^= h >> 13;
    return h ? h : 1;
}

uint32_t tp_str_hash(tp_ctx *c, tp_str *s)
{
    if (s->hash) return s->hash;
    tp_tick(c, s->len / 16);
    return s->hash = hash_bytes(s->data, s->len);
}

/* Values that are equal have equal hashes: 1, 1.0 and True are one key. */
static uint32_t hash(tp_ctx *c, tp_value v)
{
    uint32_t h = v.type;
    switch (v.type) {
    case T_STR: return tp_str_hash(c, v.s);
    case T_BIG: return hash_bytes(v.s->data, v.s->len);
    case T_BOOL:
    case T_INT: {
        int64_t i = v.type == T_BOOL ? v.b : v.i;
        return hash_bytes((const char *)&i, sizeof i);
    }
    case T_FLOAT: {
        int64_t i = v.f >= -9e18 && v.f <= 9e18 ? (int64_t)v.f : 0;
        return (double)i == v.f ? hash_bytes((const char *)&i, sizeof i) : hash_bytes((const char *)&v.f, sizeof v.f);
    }
    case T_TUPLE:
        tp_enter(c);
        for (uint32_t i = 0; i < v.l->n; i++) h = h * 31 + hash(c, v.l->v[i]);
        c->depth--;
        return h | 1;
    case T_LIST:
    case T_DICT: tp_fail(c, -EINVAL, "a %s can't be the key of a dict (unhashable type)", tp_type_name(v));
    case T_UNDEFINED:
    case T_NONE: return 7;
    default: return hash_bytes((const char *)&v.p, sizeof v.p);
    }
}

/* ---- Dicts ---- */

tp_dict *tp_dict_new(tp_ctx *c)
{
    return tp_alloc(c, 1, sizeof(tp_dict));
}

static bool key_equal(tp_ctx *c, const tp_entry *e, tp_value key, uint32_t h)
{
    if (e->hash != h || e->key.type == T_MISSING) return false;
    if (e->key.type == T_STR && key.type == T_STR) {
        if (e->key.s == key.s) return true;
        tp_tick(c, key.s->len / 64);
        return e->key.s->len == key.s->len && memcmp(e->key.s->data, key.s->data, key.s->len) == 0;
    }
    return tp_equal(c, e->key, key);
}

enum { INDEX_FROM = 8 };

static tp_entry *find(tp_ctx *c, const tp_dict *d, tp_value key, uint32_t h)
{
    if (!d->index) {
        for (uint32_t i = 0; i < d->n; i++)
            if (key_equal(c, &d->e[i], key, h)) return &d->e[i];
        return NULL;
    }
    for (uint32_t at = h;; at++) {
        tp_tick(c, 1); /* also what makes chosen collisions harmless */
        uint32_t slot = d->index[at & (d->index_cap - 1)];
        if (!slot) return NULL;
        if (key_equal(c, &d->e[slot - 1], key, h)) return &d->e[slot - 1];
    }
}

static void index_add(tp_ctx *c, tp_dict *d, uint32_t entry)
{
    uint32_t at = d->e[entry].hash;
    while (d->index[at & (d->index_cap - 1)]) {
        tp_tick(c, 1);
        at++;
    }
    d->index[at & (d->index_cap - 1)] = entry + 1;
}

/* Makes room for one more entry: drops deleted ones, doubles, rebuilds the index. */
static void dict_grow(tp_ctx *c, tp_dict *d)
{
    uint32_t live = 0;
    for (uint32_t i = 0; i < d->n; i++)
        if (d->e[i].key.type != T_MISSING) d->e[live++] = d->e[i];
    d->n = live;
    if (live * 4 >= d->cap * 3) {
        uint32_t cap = d->cap ? 2 * d->cap : 4;
        d->e = tp_grow(c, d->e, d->cap * sizeof *d->e, cap * sizeof *d->e);
        d->cap = cap;
    }
    d->index = NULL;
    if (d->cap <= INDEX_FROM) return;
    d->index_cap = 2 * d->cap;
    d->index = tp_alloc(c, d->index_cap, sizeof *d->index);
    for (uint32_t i = 0; i < d->n; i++) index_add(c, d, i);
}

bool tp_dict_get(tp_ctx *c, const tp_dict *d, tp_value key, tp_value *out)
{
    uint32_t h = hash(c, key); /* also for an empty dict: some keys are errors */
    tp_entry *e = d->live ? find(c, d, key, h) : NULL;
    if (e) *out = e->value;
    return e != NULL;
}

bool tp_dict_find(tp_ctx *c, const tp_dict *d, const char *key, tp_value *out)
{
    tp_str s = { .data = key, .len = (uint32_t)strlen(key) };
    return tp_dict_get(c, d, tp_of_str(&s), out);
}

void tp_dict_set(tp_ctx *c, tp_dict *d, tp_value key, tp_value value)
{
    uint32_t h = hash(c, key);
    tp_entry *e = find(c, d, key, h);
    tp_tick(c, 1);
    if (e) {
        e->value = value;
        return;
    }
    if (d->n == d->cap) dict_grow(c, d);
    d->e[d->n] = (tp_entry){ .key = key, .value = value, .hash = h };
    if (d->index) index_add(c, d, d->n);
    d->n++;
    d->live++;
}

bool tp_dict_remove(tp_ctx *c, tp_dict *d, tp_value key, tp_value *out)
{
    tp_entry *e = find(c, d, key, hash(c, key));
    if (!e) return false;
    *out = e->value;
    e->key = (tp_value){ .type = T_MISSING };
    d->live--;
    return true;
}

tp_dict *tp_dict_copy(tp_ctx *c, const tp_dict *d)
{
    tp_dict *copy = tp_dict_new(c);
    for (uint32_t i = 0; i < d->n; i++)
        if (d->e[i].key.type != T_MISSING) tp_dict_set(c, copy, d->e[i].key, d->e[i].value);
    return copy;
}

/* ---- Truth, equality, order ---- */

bool tp_truth(tp_ctx *c, tp_value v)
{
    switch (v.type) {
    case T_MISSING:
    case T_UNDEFINED:
    case T_NONE: return false;
    case T_BOOL: return v.b;
    case T_INT: return v.i != 0;
    case T_FLOAT: return v.f != 0;
    case T_LOOP: return true;
    default: {
        int64_t n = tp_length(c, v);
        return n != 0; /* what has no length is true */
    }
    }
}

bool tp_is_number(tp_value v, bool *integral)
{
    *integral = v.type != T_FLOAT;
    return v.type == T_BOOL || v.type == T_INT || v.type == T_FLOAT;
}

double tp_as_double(tp_value v)
{
    return v.type == T_FLOAT ? v.f : v.type == T_INT ? (double)v.i : v.b;
}

bool tp_as_int(tp_value v, int64_t *out)
{
    if (v.type != T_INT && v.type != T_BOOL) return false;
    *out = v.type == T_INT ? v.i : v.b;
    return true;
}

/* Exact, also where the integer is not representable as a double. 2: unordered. */
static int compare_numbers(tp_value a, tp_value b)
{
    int64_t i, j;
    if (tp_as_int(a, &i) && tp_as_int(b, &j)) return (i > j) - (i < j);
    double f = tp_as_double(a), g = tp_as_double(b);
    if (isnan(f) || isnan(g)) return 2;
    if (f != g || a.type == b.type) return (f > g) - (f < g);
    bool swap = a.type == T_FLOAT;
    double d = swap ? f : g;
    if (d >= 9223372036854775808.0) return swap ? 1 : -1;
    i = swap ? (b.type == T_INT ? b.i : b.b) : (a.type == T_INT ? a.i : a.b);
    int sign = (i > (int64_t)d) - (i < (int64_t)d);
    return swap ? -sign : sign;
}

static bool lists_equal(tp_ctx *c, const tp_list *a, const tp_list *b)
{
    if (a == b) return true;
    if (a->n != b->n) return false;
    for (uint32_t i = 0; i < a->n && i < b->n; i++)
        if (!tp_equal(c, a->v[i], b->v[i])) return false;
    return true;
}

static bool dicts_equal(tp_ctx *c, const tp_dict *a, const tp_dict *b)
{
    tp_value other;
    if (a == b) return true;
    if (a->live != b->live) return false;
    for (uint32_t i = 0; i < a->n; i++) {
        if (a->e[i].key.type == T_MISSING) continue;
        if (!tp_dict_get(c, b, a->e[i].key, &other) || !tp_equal(c, a->e[i].value, other)) return false;
    }
    return true;
}

bool tp_equal(tp_ctx *c, tp_value a, tp_value b)
{
    bool ia, ib, same = false;
    if (tp_is_number(a, &ia) && tp_is_number(b, &ib)) return compare_numbers(a, b) == 0;
    if (a.type != b.type) return false;
    tp_enter(c);
    switch (a.type) {
    case T_MISSING:
    case T_UNDEFINED:
    case T_NONE: same = true; break;
    case T_STR:
    case T_BIG:
        tp_tick(c, a.s->len / 64);
        same = a.s == b.s || (a.s->len == b.s->len && memcmp(a.s->data, b.s->data, a.s->len) == 0);
        break;
    case T_LIST:
    case T_TUPLE: same = lists_equal(c, a.l, b.l); break;
    case T_DICT: same = dicts_equal(c, a.d, b.d); break;
    case T_RANGE:
        same = a.range->n == b.range->n && (a.range->n == 0 || (a.range->start == b.range->start &&
                                                                (a.range->n == 1 || a.range->step == b.range->step)));
        break;
    default: same = a.p == b.p; break;
    }
    c->depth--;
    return same;
}

static int order_lists(tp_ctx *c, const tp_list *a, const tp_list *b, const char *op)
{
    for (uint32_t i = 0; i < a->n && i < b->n; i++)
        if (!tp_equal(c, a->v[i], b->v[i])) return tp_order(c, a->v[i], b->v[i], op);
    return (a->n > b->n) - (a->n < b->n);
}

int tp_order(tp_ctx *c, tp_value a, tp_value b, const char *op)
{
    bool ia, ib;
    if (tp_is_number(a, &ia) && tp_is_number(b, &ib)) return compare_numbers(a, b);
    if (a.type == T_STR && b.type == T_STR) {
        size_t n = a.s->len < b.s->len ? a.s->len : b.s->len;
        tp_tick(c, 1 + n / 64);
        int sign = n ? memcmp(a.s->data, b.s->data, n) : 0; /* UTF-8 sorts as its code points do */
        return sign ? (sign > 0) - (sign < 0) : (a.s->len > b.s->len) - (a.s->len < b.s->len);
    }
    if (a.type == b.type && (a.type == T_LIST || a.type == T_TUPLE)) {
        tp_enter(c);
        int sign = order_lists(c, a.l, b.l, op);
        c->depth--;
        return sign;
    }
    if (a.type == T_UNDEFINED) tp_fail_undefined(c, a);
    if (b.type == T_UNDEFINED) tp_fail_undefined(c, b);
    tp_fail(c, -EINVAL, "'%s' is not supported between %s and %s", op, tp_type_name(a), tp_type_name(b));
}

/* ---- Length, iteration, membership ---- */

int64_t tp_length(tp_ctx *c, tp_value v)
{
    switch (v.type) {
    case T_UNDEFINED: return 0;
    case T_STR: return tp_chars(c, v.s);
    case T_LIST:
    case T_TUPLE: return v.l->n;
    case T_DICT: return v.d->live;
    case T_VIEW: return v.view->d->live;
    case T_RANGE: return v.range->n;
    default: return -1;
    }
}

bool tp_is_iterable(tp_value v)
{
    return v.type == T_UNDEFINED || (v.type >= T_STR && v.type <= T_ITER);
}

static tp_list *dict_items(tp_ctx *c, const tp_dict *d, int kind)
{
    tp_list *l = tp_list_new(c, d->live);
    for (uint32_t i = 0; i < d->n; i++) {
        const tp_entry *e = &d->e[i];
        if (e->key.type == T_MISSING) continue;
        tp_list_push(c, l, kind == VIEW_KEYS ? e->key : kind == VIEW_VALUES ? e->value : tp_pair(c, e->key, e->value));
    }
    return l;
}

static tp_list *range_items(tp_ctx *c, const tp_range *r)
{
    if (r->n > TP_STEPS_MAX) tp_fail_steps(c);
    tp_list *l = tp_list_new(c, (uint32_t)r->n);
    for (int64_t i = 0; i < r->n; i++) tp_list_push(c, l, tp_int(r->start + i * r->step));
    return l;
}

static tp_list *char_items(tp_ctx *c, tp_str *s)
{
    tp_list *l = tp_list_new(c, tp_chars(c, s));
    const char *end = s->data + s->len;
    size_t n;
    for (const char *p = s->data; p < end; p += n) {
        tp_decode(p, end, &n);
        tp_list_push(c, l, tp_text(c, p, n));
    }
    return l;
}

tp_list *tp_items(tp_ctx *c, tp_value v)
{
    switch (v.type) {
    case T_UNDEFINED: return tp_list_new(c, 0);
    case T_STR: return char_items(c, v.s);
    case T_LIST:
    case T_TUPLE: return v.l;
    case T_DICT: return dict_items(c, v.d, VIEW_KEYS);
    case T_VIEW: return dict_items(c, v.view->d, v.view->kind);
    case T_RANGE: return range_items(c, v.range);
    case T_ITER: {
        tp_list *rest = tp_list_new(c, 0);
        rest->v = v.iter->l->v ? v.iter->l->v + v.iter->pos : NULL;
        rest->n = rest->cap = v.iter->l->n - v.iter->pos;
        v.iter->pos = v.iter->l->n;
        return rest;
    }
    default: tp_fail(c, -EINVAL, "'%s' object is not iterable", tp_type_name(v));
    }
}

bool tp_contains(tp_ctx *c, tp_value item, tp_value container)
{
    tp_value found;
    if (container.type == T_STR) {
        if (item.type == T_UNDEFINED) tp_fail_undefined(c, item);
        if (item.type != T_STR)
            tp_fail(c, -EINVAL, "'in' on a string needs a string on its left, not %s", tp_type_name(item));
        return tp_find(c, container.s->data, container.s->len, item.s->data, item.s->len) >= 0;
    }
    if (container.type == T_DICT) return tp_dict_get(c, container.d, item, &found);
    if (container.type == T_VIEW && container.view->kind == VIEW_KEYS)
        return tp_dict_get(c, container.view->d, item, &found);
    if (container.type == T_RANGE) {
        const tp_range *r = container.range;
        int64_t i;
        bool integral;
        if (!tp_is_number(item, &integral) || tp_as_double(item) != floor(tp_as_double(item))) return false;
        if (!tp_as_int(item, &i)) i = fabs(item.f) < 9e18 ? (int64_t)item.f : INT64_MAX;
        int64_t last = r->start + (r->n - 1) * r->step;
        bool inside = r->n > 0 && (r->step > 0 ? i >= r->start && i <= last : i <= r->start && i >= last);
        return inside && (i - r->start) % r->step == 0;
    }
    tp_list *l = tp_items(c, container);
    for (uint32_t i = 0; i < l->n; i++) {
        tp_tick(c, 1);
        if (tp_equal(c, l->v[i], item)) return true;
    }
    return false;
}
