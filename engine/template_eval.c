/* Expressions: tree -> values. */
#include "engine/template.h"

/* ---- Names ---- */

tp_value tp_lookup(tp_ctx *c, tp_str *name)
{
    tp_value v;
    for (const tp_scope *s = c->scope; s; s = s->parent) {
        tp_tick(c, 1);
        if (tp_dict_get(c, &s->vars, tp_of_str(name), &v) && v.type != T_MISSING) return v;
    }
    const tp_builtin *fn = tp_global_find(name->data, name->len);
    if (!fn) return tp_undefined(name);
    tp_func *f = tp_alloc(c, 1, sizeof *f);
    f->fn = fn;
    return (tp_value){ .type = T_FUNC, .func = f };
}

/* ---- Calls ---- */

static void add_keyword(tp_ctx *c, tp_dict *kw, tp_value name, tp_value v)
{
    tp_value before;
    if (tp_dict_get(c, kw, name, &before))
        tp_fail(c, -EINVAL, "argument '%.*s' is given twice", name.s->len > 60 ? 60 : (int)name.s->len, name.s->data);
    tp_dict_set(c, kw, name, v);
}

/* Arguments of a call, filter or test node, in order of writing. */
tp_args tp_eval_args(tp_ctx *c, const tp_node *call)
{
    tp_args args = { 0 };
    if (!call->n) return args;
    tp_list *pos = tp_list_new(c, call->n);
    for (uint32_t i = 0; i < call->n; i++) {
        const tp_node *k = call->kid[i];
        bool special = k->kind == N_STAR || k->kind == N_KEYWORD || k->kind == N_STARSTAR;
        tp_value v = tp_eval(c, special ? k->a : k);
        if (!special) tp_list_push(c, pos, v);
        if (k->kind == N_STAR) {
            tp_list *more = tp_items(c, v);
            for (uint32_t j = 0; j < more->n; j++) tp_list_push(c, pos, more->v[j]);
        }
        if (!args.kw && (k->kind == N_KEYWORD || k->kind == N_STARSTAR)) args.kw = tp_dict_new(c);
        if (k->kind == N_KEYWORD) add_keyword(c, args.kw, tp_of_str(k->name), v);
        if (k->kind != N_STARSTAR) continue;
        if (v.type != T_DICT) tp_fail(c, -EINVAL, "the argument after ** must be a dict, not %s", tp_type_name(v));
        for (uint32_t j = 0; j < v.d->n; j++) {
            const tp_entry *e = &v.d->e[j];
            if (e->key.type == T_MISSING) continue;
            if (e->key.type != T_STR) tp_fail(c, -EINVAL, "the keys of the dict after ** must be text");
            add_keyword(c, args.kw, e->key, e->value);
        }
    }
    args.v = pos->v;
    args.n = pos->n;
    return args;
}

/* Index of parameter `name` in "a b c", or -1; name NULL: their number. */
static int param_index(const char *params, const tp_str *name)
{
    int i = 0;
    for (const char *p = params; *p; i++) {
        size_t n = strcspn(p, " ");
        if (name && n == name->len && memcmp(p, name->data, n) == 0) return i;
        p += n;
        while (*p == ' ') p++;
    }
    return name ? -1 : i;
}

tp_value tp_invoke(tp_ctx *c, const tp_builtin *fn, tp_value self, const tp_args *args)
{
    tp_call call = { .self = self, .all = *args, .name = fn->name };
    tp_tick(c, 1);
    if (!fn->params) return fn->fn(c, &call);
    uint32_t count = (uint32_t)param_index(fn->params, NULL);
    if (args->n > count) tp_fail(c, -EINVAL, "%s takes at most %u arguments, got %u", fn->name, count, args->n);
    for (uint32_t i = 0; i < args->n; i++) call.arg[i] = args->v[i];
    for (uint32_t i = 0; args->kw && i < args->kw->n; i++) {
        const tp_entry *e = &args->kw->e[i];
        if (e->key.type == T_MISSING) continue;
        int at = param_index(fn->params, e->key.s);
        int len = e->key.s->len > 60 ? 60 : (int)e->key.s->len;
        if (at < 0) tp_fail(c, -EINVAL, "%s has no parameter '%.*s'", fn->name, len, e->key.s->data);
        if (call.arg[at].type != T_MISSING)
            tp_fail(c, -EINVAL, "%s got two values for '%.*s'", fn->name, len, e->key.s->data);
        call.arg[at] = e->value;
    }
    for (int i = 0; i < fn->required; i++)
        if (call.arg[i].type == T_MISSING)
            tp_fail(c, -EINVAL, "%s needs %d argument%s", fn->name, fn->required, fn->required == 1 ? "" : "s");
    return fn->fn(c, &call);
}

static tp_value call_joiner(tp_ctx *c, tp_list *state)
{
    if (state->n == 2) return state->v[0];
    tp_list_push(c, state, tp_none()); /* used once */
    return tp_cstr(c, "");
}

tp_value tp_call_value(tp_ctx *c, tp_value callee, const tp_args *args)
{
    switch (callee.type) {
    case T_FUNC: return tp_invoke(c, callee.func->fn, callee.func->self, args);
    case T_MACRO: return tp_call_macro(c, callee.macro, args);
    case T_LOOP: return tp_call_loop(c, callee.loop, args);
    case T_JOINER: return call_joiner(c, callee.l);
    case T_UNDEFINED: tp_fail_undefined(c, callee);
    default: tp_fail(c, -EINVAL, "an object of type %s can't be called", tp_type_name(callee));
    }
}

/* ---- Nodes ---- */

static tp_value eval_items(tp_ctx *c, const tp_node *n)
{
    tp_list *l = tp_list_new(c, n->n);
    for (uint32_t i = 0; i < n->n; i++) tp_list_push(c, l, tp_eval(c, n->kid[i]));
    return tp_of_list(n->kind == N_TUPLE ? T_TUPLE : T_LIST, l);
}

static tp_value eval_dict(tp_ctx *c, const tp_node *n)
{
    tp_dict *d = tp_dict_new(c);
    for (uint32_t i = 0; i < n->n; i += 2) {
        tp_value key = tp_eval(c, n->kid[i]);
        tp_dict_set(c, d, key, tp_eval(c, n->kid[i + 1]));
    }
    return tp_of_dict(d);
}

static tp_value eval_item(tp_ctx *c, const tp_node *n)
{
    tp_value of = tp_eval(c, n->a);
    if (n->b->kind != N_SLICE) return tp_get_item(c, of, tp_eval(c, n->b));
    const tp_node *s = n->b;
    tp_value start = s->a ? tp_eval(c, s->a) : tp_none(), stop = s->b ? tp_eval(c, s->b) : tp_none();
    tp_value step = s->c ? tp_eval(c, s->c) : tp_none();
    c->line = n->line;
    return tp_get_slice(c, of, start, stop, step);
}

static tp_value eval_call(tp_ctx *c, const tp_node *n)
{
    tp_value callee = tp_eval(c, n->a);
    tp_args args = tp_eval_args(c, n);
    c->line = n->line;
    return tp_call_value(c, callee, &args);
}

/* A filter or a test: `a` goes through a built-in. */
static tp_value eval_through(tp_ctx *c, const tp_node *n)
{
    tp_value in = tp_eval(c, n->a);
    tp_args args = tp_eval_args(c, n);
    c->line = n->line;
    if (!n->fn)
        tp_fail(c, -EINVAL, "there is no %s named '%.*s'", n->kind == N_TEST ? "test" : "filter",
                n->name->len > 60 ? 60 : (int)n->name->len, n->name->data);
    return tp_invoke(c, n->fn, in, &args);
}

static tp_value eval_concat(tp_ctx *c, const tp_node *n)
{
    tp_value text = tp_to_str(c, tp_eval(c, n->kid[0]));
    for (uint32_t i = 1; i < n->n; i++) text = tp_concat(c, text, tp_to_str(c, tp_eval(c, n->kid[i])));
    return text;
}

static bool compare(tp_ctx *c, unsigned op, tp_value a, tp_value b)
{
    switch (op) {
    case 'i': return tp_contains(c, a, b);
    case 'n': return !tp_contains(c, a, b);
    case TP_OP('=', '='): return tp_equal(c, a, b);
    case TP_OP('!', '='): return !tp_equal(c, a, b);
    default: break;
    }
    char name[3] = { (char)(op & 255), (char)(op >> 8), 0 };
    int sign = tp_order(c, a, b, name);
    if (sign == 2) return false; /* nan is neither */
    return op == '<' ? sign < 0 : op == '>' ? sign > 0 : op == TP_OP('<', '=') ? sign <= 0 : sign >= 0;
}

static tp_value eval_compare(tp_ctx *c, const tp_node *n)
{
    tp_value left = tp_eval(c, n->a);
    for (uint32_t i = 0; i < n->n; i++) {
        tp_value right = tp_eval(c, n->kid[i]->a);
        c->line = n->line;
        if (!compare(c, n->kid[i]->op, left, right)) return tp_bool(false);
        left = right;
    }
    return tp_bool(true);
}

static tp_value eval_logic(tp_ctx *c, const tp_node *n)
{
    tp_value v = tp_none();
    for (uint32_t i = 0; i < n->n; i++) {
        v = tp_eval(c, n->kid[i]);
        if (tp_truth(c, v) == (n->kind == N_OR)) break;
    }
    return v;
}

static tp_value eval_sign(tp_ctx *c, const tp_node *n)
{
    tp_value v = tp_eval(c, n->a);
    if (n->kind == N_NEG || v.type == T_UNDEFINED) return tp_negate(c, v);
    tp_negate(c, v); /* refuses what has no sign */
    return v.type == T_BOOL ? tp_int(v.b) : v;
}

static tp_value eval_kind(tp_ctx *c, const tp_node *n)
{
    tp_value a, b;
    switch (n->kind) {
    case N_CONST: return n->value;
    case N_NAME: return tp_lookup(c, n->name);
    case N_LIST:
    case N_TUPLE: return eval_items(c, n);
    case N_DICT: return eval_dict(c, n);
    case N_ATTR:
        a = tp_eval(c, n->a);
        c->line = n->line;
        return tp_get_attr(c, a, n->name);
    case N_ITEM: return eval_item(c, n);
    case N_CALL: return eval_call(c, n);
    case N_FILTER:
    case N_TEST: return eval_through(c, n);
    case N_NOT: return tp_bool(!tp_truth(c, tp_eval(c, n->a)));
    case N_NEG:
    case N_POS: return eval_sign(c, n);
    case N_BINARY:
        a = tp_eval(c, n->a);
        b = tp_eval(c, n->b);
        c->line = n->line;
        return tp_binary(c, n->op, a, b);
    case N_CONCAT: return eval_concat(c, n);
    case N_COMPARE: return eval_compare(c, n);
    case N_AND:
    case N_OR: return eval_logic(c, n);
    case N_COND:
        if (tp_truth(c, tp_eval(c, n->a))) return tp_eval(c, n->b);
        return n->c ? tp_eval(c, n->c) : tp_undefined(NULL);
    case N_CAPTURE: return c->capture;
    default: tp_fail(c, -EINVAL, "a slice stands where a value is needed");
    }
}

tp_value tp_eval(tp_ctx *c, const tp_node *n)
{
    tp_enter(c);
    c->line = n->line;
    tp_value v = eval_kind(c, n);
    c->depth--;
    return v;
}
