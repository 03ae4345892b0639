/* Operators, attributes, subscripts and slices. */
#include "engine/template.h"

#include <math.h>

/* ---- Text joined in place ---- */

/* A growing buffer that several strings may lie in: whoever ends at `used` can be extended without a copy, so that a
 * template that gathers its output in a variable costs what it writes and not its square. */
typedef struct tp_rope {
    char *data;
    size_t used, cap;
} tp_rope;

tp_value tp_concat(tp_ctx *c, tp_value a, tp_value b)
{
    if (!b.s->len) return tp_of_str(a.s);
    if (!a.s->len) return tp_of_str(b.s);
    size_t len = (size_t)a.s->len + b.s->len;
    tp_rope *r = a.s->rope;
    tp_tick(c, 1 + b.s->len / 64);
    if (!r || a.s->data + a.s->len != r->data + r->used || r->cap - r->used < b.s->len) {
        r = tp_alloc(c, 1, sizeof *r);
        r->cap = len < 64 ? len : len + len / 2;
        r->data = tp_grow(c, NULL, 0, r->cap);
        tp_tick(c, a.s->len / 64);
        memcpy(r->data, a.s->data, a.s->len);
        r->used = a.s->len;
    }
    memcpy(r->data + r->used, b.s->data, b.s->len);
    r->used += b.s->len;
    tp_value s = tp_text(c, r->data + r->used - len, len);
    s.s->rope = r;
    if (a.s->chars != UINT32_MAX && b.s->chars != UINT32_MAX) s.s->chars = a.s->chars + b.s->chars;
    return s;
}

/* "+" on text: a safe side escapes the other one. */
static tp_value add_text(tp_ctx *c, tp_value a, tp_value b)
{
    bool safe = a.aux || b.aux;
    if (safe) {
        a = tp_escape(c, a);
        b = tp_escape(c, b);
    }
    tp_value r = tp_concat(c, a, b);
    r.aux = safe;
    return r;
}

/* ---- Arithmetic ---- */

static const char *op_name(unsigned op)
{
    switch (op) {
    case '+': return "+";
    case '-': return "-";
    case '*': return "*";
    case '/': return "/";
    case '%': return "%";
    case TP_OP('/', '/'): return "//";
    default: return "**";
    }
}

static _Noreturn void fail_operands(tp_ctx *c, unsigned op, tp_value a, tp_value b)
{
    if (a.type == T_UNDEFINED) tp_fail_undefined(c, a);
    if (b.type == T_UNDEFINED) tp_fail_undefined(c, b);
    if (a.type == T_BIG || b.type == T_BIG) tp_fail(c, -ERANGE, "integers beyond 64 bits can't be calculated with");
    tp_fail(c, -EINVAL, "'%s' does not work between %s and %s", op_name(op), tp_type_name(a), tp_type_name(b));
}

static _Noreturn void fail_overflow(tp_ctx *c)
{
    tp_fail(c, -ERANGE, "an integer grows beyond 64 bits");
}

static int64_t int_power(tp_ctx *c, int64_t base, int64_t exponent)
{
    int64_t r = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(r, base, &r)) fail_overflow(c);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base)) fail_overflow(c);
    }
    return r;
}

static tp_value int_binary(tp_ctx *c, unsigned op, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool over = false;
    if (b == 0 && (op == '%' || op == TP_OP('/', '/'))) tp_fail(c, -EINVAL, "division by zero");
    switch (op) {
    case '+': over = __builtin_add_overflow(a, b, &r); break;
    case '-': over = __builtin_sub_overflow(a, b, &r); break;
    case '*': over = __builtin_mul_overflow(a, b, &r); break;
    case '%': /* takes the divisor's sign */
        r = b == -1 ? 0 : a % b;
        if (r && (r < 0) != (b < 0)) r += b;
        break;
    case TP_OP('/', '/'):
        over = a == INT64_MIN && b == -1;
        if (!over) r = a / b - (a % b && (a < 0) != (b < 0));
        break;
    default: r = int_power(c, a, b); break;
    }
    if (over) fail_overflow(c);
    return tp_int(r);
}

static double float_mod(double a, double b)
{
    double r = fmod(a, b);
    if (r != 0) return (r < 0) != (b < 0) ? r + b : r;
    return copysign(0.0, b);
}

static double float_floor(double a, double b)
{
    double quotient = (a - float_mod(a, b)) / b, whole = floor(quotient);
    return quotient - whole > 0.5 ? whole + 1 : whole;
}

static tp_value float_binary(tp_ctx *c, unsigned op, double a, double b)
{
    if (b == 0 && (op == '/' || op == '%' || op == TP_OP('/', '/'))) tp_fail(c, -EINVAL, "division by zero");
    switch (op) {
    case '+': return tp_float(a + b);
    case '-': return tp_float(a - b);
    case '*': return tp_float(a * b);
    case '/': return tp_float(a / b);
    case '%': return tp_float(float_mod(a, b));
    case TP_OP('/', '/'): return tp_float(float_floor(a, b));
    default:
        if (a == 0 && b < 0) tp_fail(c, -EINVAL, "zero can't be raised to a negative power");
        if (a < 0 && b != floor(b)) tp_fail(c, -EINVAL, "the result would be a complex number");
        double r = pow(a, b);
        if (isinf(r) && isfinite(a) && isfinite(b)) tp_fail(c, -ERANGE, "a number grows too large");
        return tp_float(r);
    }
}

static tp_value repeat(tp_ctx *c, tp_value v, int64_t times)
{
    if (times < 0) times = 0;
    if (v.type == T_STR) {
        tp_buf b = { 0 };
        tp_pad(c, &b, v.s->data, v.s->len, times);
        tp_value r = tp_done(c, &b);
        r.aux = v.aux;
        return r;
    }
    int64_t n;
    if (__builtin_mul_overflow(times, (int64_t)v.l->n, &n) || n > TP_STEPS_MAX) tp_fail_steps(c);
    tp_list *l = tp_list_new(c, (uint32_t)n);
    for (int64_t i = 0; i < n; i++) tp_list_push(c, l, v.l->v[i % v.l->n]);
    return tp_of_list((tp_type)v.type, l);
}

static bool is_sequence(tp_value v)
{
    return v.type == T_STR || v.type == T_LIST || v.type == T_TUPLE;
}

tp_value tp_binary(tp_ctx *c, unsigned op, tp_value a, tp_value b)
{
    bool ia, ib;
    int64_t i, j;
    if (tp_is_number(a, &ia) && tp_is_number(b, &ib)) {
        if (ia && ib && op != '/' && tp_as_int(a, &i) && tp_as_int(b, &j) && !(op == TP_OP('*', '*') && j < 0))
            return int_binary(c, op, i, j);
        return float_binary(c, op, tp_as_double(a), tp_as_double(b));
    }
    if (op == '%' && a.type == T_STR) return tp_percent(c, a, b);
    if (op == '+' && a.type == T_STR && b.type == T_STR) return add_text(c, a, b);
    if (op == '+' && a.type == b.type && (a.type == T_LIST || a.type == T_TUPLE)) {
        tp_list *l = tp_list_new(c, a.l->n + b.l->n);
        for (uint32_t k = 0; k < a.l->n; k++) tp_list_push(c, l, a.l->v[k]);
        for (uint32_t k = 0; k < b.l->n; k++) tp_list_push(c, l, b.l->v[k]);
        return tp_of_list((tp_type)a.type, l);
    }
    if (op == '*' && is_sequence(a) && tp_as_int(b, &i)) return repeat(c, a, i);
    if (op == '*' && is_sequence(b) && tp_as_int(a, &i)) return repeat(c, b, i);
    fail_operands(c, op, a, b);
}

tp_value tp_negate(tp_ctx *c, tp_value v)
{
    int64_t i;
    if (v.type == T_FLOAT) return tp_float(-v.f);
    if (v.type == T_UNDEFINED) tp_fail_undefined(c, v);
    if (!tp_as_int(v, &i)) tp_fail(c, -EINVAL, "'-' does not work on %s", tp_type_name(v));
    if (i == INT64_MIN) fail_overflow(c);
    return tp_int(-i);
}

/* ---- Attributes and subscripts ---- */

static tp_value bound(tp_ctx *c, const tp_builtin *fn, tp_value self)
{
    tp_func *f = tp_alloc(c, 1, sizeof *f);
    *f = (tp_func){ .fn = fn, .self = self };
    return (tp_value){ .type = T_FUNC, .func = f };
}

static tp_value macro_attr(tp_ctx *c, const tp_macro *m, tp_str *name)
{
    const tp_node *n = m->node;
    if (tp_is(name, "name")) return tp_of_str(n->name);
    if (tp_is(name, "catch_kwargs")) return tp_bool(n->flags & MACRO_KWARGS);
    if (tp_is(name, "catch_varargs")) return tp_bool(n->flags & MACRO_VARARGS);
    if (tp_is(name, "caller")) return tp_bool(n->flags & MACRO_CALLER);
    if (!tp_is(name, "arguments")) return (tp_value){ .type = T_MISSING };
    tp_list *l = tp_list_new(c, n->n);
    for (uint32_t i = 0; i < n->n; i++) tp_list_push(c, l, tp_of_str(n->kid[i]->name));
    return tp_of_list(T_TUPLE, l);
}

/* What the object itself has: methods and fields, not the entries of a dict. T_MISSING: nothing. */
static tp_value own_attr(tp_ctx *c, tp_value v, tp_str *name)
{
    const tp_builtin *method = tp_method_find(v, name->data, name->len);
    if (method) return bound(c, method, v);
    tp_value none = { .type = T_MISSING }, found;
    switch (v.type) {
    case T_NAMESPACE: return tp_dict_get(c, v.d, tp_of_str(name), &found) ? found : none;
    case T_LOOP: return tp_loop_attr(c, v.loop, name);
    case T_MACRO: return macro_attr(c, v.macro, name);
    case T_CYCLER:
        if (tp_is(name, "current")) return v.cycler->items->v[v.cycler->pos];
        return none;
    case T_TUPLE:
        if (v.l->group && tp_is(name, "grouper")) return v.l->v[0];
        if (v.l->group && tp_is(name, "list")) return v.l->v[1];
        return none;
    default: return none;
    }
}

tp_value tp_get_attr(tp_ctx *c, tp_value v, tp_str *name)
{
    if (v.type == T_UNDEFINED) tp_fail_undefined(c, v);
    tp_value found = own_attr(c, v, name);
    if (found.type != T_MISSING) return found;
    if (v.type == T_DICT && tp_dict_get(c, v.d, tp_of_str(name), &found)) return found;
    return tp_undefined_attr(v, name);
}

tp_value tp_get_item(tp_ctx *c, tp_value v, tp_value key)
{
    int64_t i;
    tp_value found;
    if (v.type == T_UNDEFINED) tp_fail_undefined(c, v);
    if (v.type == T_DICT && key.type != T_LIST && key.type != T_DICT && tp_dict_get(c, v.d, key, &found)) return found;
    if (v.type != T_DICT && tp_as_int(key, &i)) {
        int64_t n = v.type == T_STR || v.type == T_LIST || v.type == T_TUPLE || v.type == T_RANGE ? tp_length(c, v) : 0;
        if (i < 0) i += n;
        if (i >= 0 && i < n) {
            if (v.type == T_RANGE) return tp_int(v.range->start + i * v.range->step);
            if (v.type != T_STR) return v.l->v[i];
            return tp_slice_str(c, v, i, i + 1, 1, 1);
        }
    }
    if (key.type == T_STR) {
        found = own_attr(c, v, key.s);
        if (found.type != T_MISSING) return found;
    }
    return tp_undefined_attr(v, tp_to_str(c, key).s);
}

static int64_t slice_bound(tp_ctx *c, tp_value v, int64_t otherwise, int64_t n, int64_t low, int64_t high)
{
    int64_t i;
    if (v.type == T_NONE) return otherwise;
    if (!tp_as_int(v, &i)) tp_fail(c, -EINVAL, "a slice needs whole numbers, not %s", tp_type_name(v));
    if (i < 0) i = i < -n - 1 ? -1 : i + n;
    return i < low ? low : i > high ? high : i;
}

/* start, stop and step as written; T_NONE where left out. */
tp_value tp_get_slice(tp_ctx *c, tp_value v, tp_value start, tp_value stop, tp_value step)
{
    int64_t by = 1, n = tp_length(c, v);
    if (v.type == T_UNDEFINED) tp_fail_undefined(c, v);
    if (!is_sequence(v) && v.type != T_RANGE) tp_fail(c, -EINVAL, "a %s can't be sliced", tp_type_name(v));
    if (step.type != T_NONE && !tp_as_int(step, &by)) tp_fail(c, -EINVAL, "a slice needs whole numbers");
    if (by == 0) tp_fail(c, -EINVAL, "the step of a slice can't be zero");
    int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
    int64_t from = slice_bound(c, start, by < 0 ? n - 1 : 0, n, low, high);
    int64_t to = slice_bound(c, stop, by < 0 ? -1 : n, n, low, high);
    if (by > n + 1) by = n + 1; /* the same items, and no overflow below */
    if (by < -n - 1) by = -n - 1;
    int64_t count = by > 0 ? (to - from + by - 1) / by : (from - to - by - 1) / -by;
    if (count < 0) count = 0;
    if (v.type == T_STR) return tp_slice_str(c, v, from, from + count, by, count);
    if (v.type == T_RANGE) {
        const tp_range *r = v.range;
        tp_range *part = tp_alloc(c, 1, sizeof *part);
        *part = (tp_range){ r->start + from * r->step, r->start + to * r->step, r->step * by, count };
        return (tp_value){ .type = T_RANGE, .range = part };
    }
    tp_list *l = tp_list_new(c, (uint32_t)count);
    for (int64_t k = 0, at = from; k < count; k++, at += by) tp_list_push(c, l, v.l->v[at]);
    return tp_of_list(v.type == T_TUPLE ? T_TUPLE : T_LIST, l);
}
