/* Statements: the tree walked, text written, scopes, loops and macros kept. */
#include "engine/template.h"

typedef enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

static flow exec(tp_ctx *c, const tp_node *n);

/* ---- Scopes ---- */

static tp_scope *scope_new(tp_ctx *c, tp_scope *parent)
{
    tp_scope *s = tp_alloc(c, 1, sizeof *s);
    s->parent = parent;
    return s;
}

static void scope_set(tp_ctx *c, tp_str *name, tp_value v)
{
    tp_dict_set(c, &c->scope->vars, tp_of_str(name), v);
}

/* A macro keeps the scopes around it: loops must not reuse them. */
static void scope_capture(tp_ctx *c)
{
    for (tp_scope *s = c->scope; s && !s->captured; s = s->parent) s->captured = true;
}

/* A scope like `used`, empty: the same memory unless something holds on to it. */
static tp_scope *scope_again(tp_ctx *c, tp_scope *used)
{
    if (used->captured) return scope_new(c, used->parent);
    used->vars.n = used->vars.live = 0;
    if (used->vars.index) {
        tp_tick(c, used->vars.index_cap / 16);
        memset(used->vars.index, 0, used->vars.index_cap * sizeof *used->vars.index);
    }
    return used;
}

static void assign(tp_ctx *c, const tp_node *target, tp_value v)
{
    tp_enter(c);
    if (target->kind == N_NAME) {
        scope_set(c, target->name, v);
    } else if (target->kind == N_ATTR) {
        tp_value ns = tp_lookup(c, target->a->name);
        c->line = target->line;
        if (ns.type != T_NAMESPACE)
            tp_fail(c, -EINVAL, "'%.*s' is not a namespace, its attributes can't be set",
                    target->a->name->len > 60 ? 60 : (int)target->a->name->len, target->a->name->data);
        tp_dict_set(c, ns.d, tp_of_str(target->name), v);
    } else {
        tp_list *l = tp_items(c, v);
        c->line = target->line;
        if (l->n != target->n)
            tp_fail(c, -EINVAL, "%" PRIu32 " values can't be unpacked into %" PRIu32 " names", l->n, target->n);
        for (uint32_t i = 0; i < target->n; i++) assign(c, target->kid[i], l->v[i]);
    }
    c->depth--;
}

/* ---- Captured output ---- */

/* Takes what was written since `start` out of the output, as a value. */
static tp_value take_output(tp_ctx *c, size_t start)
{
    size_t len = c->out->len - start;
    tp_value v = len ? tp_copy(c, c->out->data + start, len) : tp_cstr(c, "");
    c->out->len = start;
    if (c->out->data) c->out->data[start] = '\0';
    return v;
}

/* A body in a scope of its own, with its output as a value. A break inside drops what was written, as in Jinja2. */
static flow capture_body(tp_ctx *c, const tp_node *body, tp_value *out)
{
    tp_scope *outer = c->scope;
    size_t start = c->out->len;
    c->scope = scope_new(c, outer);
    flow f = exec(c, body);
    c->scope = outer;
    *out = take_output(c, start);
    return f;
}

/* ---- Loops ---- */

/* The next item that passes the loop's `if`; false at the end. */
static bool loop_pull(tp_ctx *c, tp_loop *l, tp_value *out)
{
    while (l->pos < l->source->n) {
        tp_value item = l->source->v[l->pos++];
        tp_tick(c, 1);
        *out = item;
        if (!l->filtered) return true;
        tp_scope *outer = c->scope;
        l->probe = l->probe ? scope_again(c, l->probe) : scope_new(c, l->scope);
        c->scope = l->probe;
        assign(c, l->node->a, item);
        bool pass = tp_truth(c, tp_eval(c, l->node->c));
        c->scope = outer;
        if (pass) return true;
    }
    return false;
}

static tp_value loop_peek(tp_ctx *c, tp_loop *l)
{
    if (l->after.type == T_MISSING && !loop_pull(c, l, &l->after)) l->after.type = T_MISSING;
    return l->after;
}

static int64_t loop_length(tp_ctx *c, tp_loop *l)
{
    if (l->length >= 0) return l->length;
    if (l->filtered) { /* only counting tells */
        tp_list *rest = tp_list_new(c, 0);
        tp_value v;
        while (loop_pull(c, l, &v)) tp_list_push(c, rest, v);
        l->source = rest;
        l->pos = 0;
        l->filtered = false;
        return l->length = rest->n + l->index0 + 1 + (l->after.type != T_MISSING);
    }
    return l->length = l->source->n;
}

tp_value tp_loop_attr(tp_ctx *c, tp_loop *l, tp_str *name)
{
    static const char *const HINTS[] = { "previtem", "nextitem" };
    if (tp_is(name, "index")) return tp_int(l->index0 + 1);
    if (tp_is(name, "index0")) return tp_int(l->index0);
    if (tp_is(name, "first")) return tp_bool(l->index0 == 0);
    if (tp_is(name, "last")) return tp_bool(loop_peek(c, l).type == T_MISSING);
    if (tp_is(name, "length")) return tp_int(loop_length(c, l));
    if (tp_is(name, "revindex")) return tp_int(loop_length(c, l) - l->index0);
    if (tp_is(name, "revindex0")) return tp_int(loop_length(c, l) - l->index0 - 1);
    if (tp_is(name, "depth")) return tp_int(l->depth0 + 1);
    if (tp_is(name, "depth0")) return tp_int(l->depth0);
    if (!tp_is(name, HINTS[0]) && !tp_is(name, HINTS[1])) return (tp_value){ .type = T_MISSING };
    tp_value v = tp_is(name, HINTS[0]) ? (l->index0 ? l->before : (tp_value){ .type = T_MISSING }) : loop_peek(c, l);
    return v.type == T_MISSING ? tp_undefined(name) : v;
}

/* Bodies run with scopes: around the loop -> one per turn, holding `loop`, the targets and what the body sets. */
static flow run_loop(tp_ctx *c, tp_loop *l)
{
    const tp_node *n = l->node;
    tp_scope *turn = scope_new(c, l->scope), *outer = c->scope;
    tp_str *loop_name = tp_cstr(c, "loop").s;
    tp_value item;
    flow f = FLOW_ON;
    while (f != FLOW_BREAK) {
        item = l->after;
        l->after.type = T_MISSING;
        if (item.type == T_MISSING && !loop_pull(c, l, &item)) break;
        l->index0++;
        l->before = l->current;
        l->current = item;
        turn = scope_again(c, turn);
        c->scope = turn;
        scope_set(c, loop_name, (tp_value){ .type = T_LOOP, .loop = l });
        assign(c, n->a, item);
        f = exec(c, n->body);
    }
    c->scope = outer;
    if (l->index0 >= 0 || !n->orelse) return FLOW_ON;
    c->scope = scope_new(c, l->scope);
    f = exec(c, n->orelse);
    c->scope = outer;
    return f;
}

static tp_loop *loop_new(tp_ctx *c, const tp_node *n, tp_value over, tp_scope *scope, int64_t depth0)
{
    tp_loop *l = tp_alloc(c, 1, sizeof *l);
    *l = (tp_loop){ .node = n,
                    .source = tp_items(c, over),
                    .filtered = n->c != NULL,
                    .scope = scope,
                    .index0 = -1,
                    .length = -1,
                    .depth0 = depth0 };
    return l;
}

static flow exec_for(tp_ctx *c, const tp_node *n)
{
    tp_value over = tp_eval(c, n->b);
    c->line = n->line;
    return run_loop(c, loop_new(c, n, over, c->scope, 0));
}

static void call_enter(tp_ctx *c)
{
    if (++c->calls > TP_CALL_DEPTH_MAX)
        tp_fail(c, -E2BIG, "macros call each other too deeply (limit %d)", TP_CALL_DEPTH_MAX);
}

/* loop(items) inside {% for ... recursive %}. */
tp_value tp_call_loop(tp_ctx *c, tp_loop *l, const tp_args *args)
{
    if (!l->node->flags) tp_fail(c, -EINVAL, "the loop must be marked 'recursive' to be called");
    if (args->n != 1) tp_fail(c, -EINVAL, "loop() takes one argument");
    size_t start = c->out->len;
    uint32_t line = c->line;
    call_enter(c);
    run_loop(c, loop_new(c, l->node, args->v[0], l->scope, l->depth0 + 1));
    c->calls--;
    c->line = line;
    return take_output(c, start);
}

/* ---- Macros ---- */

static tp_value macro_new(tp_ctx *c, const tp_node *n)
{
    tp_macro *m = tp_alloc(c, 1, sizeof *m);
    scope_capture(c);
    *m = (tp_macro){ .node = n, .scope = c->scope };
    return (tp_value){ .type = T_MACRO, .macro = m };
}

static bool has_param(const tp_node *n, const char *name)
{
    for (uint32_t i = 0; i < n->n; i++)
        if (tp_is(n->kid[i]->name, name)) return true;
    return false;
}

/* varargs, kwargs and caller, for macros that read them; anything else left over is an error. */
static void bind_rest(tp_ctx *c, const tp_node *n, const tp_args *args, tp_dict *kw)
{
    int len = n->name->len > 60 ? 60 : (int)n->name->len;
    tp_value caller;
    if ((n->flags & MACRO_CALLER) && !has_param(n, "caller")) {
        tp_str *name = tp_cstr(c, "caller").s;
        if (!kw || !tp_dict_remove(c, kw, tp_of_str(name), &caller)) caller = tp_undefined(name);
        scope_set(c, name, caller);
    }
    if (n->flags & MACRO_KWARGS) {
        scope_set(c, tp_cstr(c, "kwargs").s, tp_of_dict(kw ? kw : tp_dict_new(c)));
    } else if (kw && kw->live) {
        tp_str *extra = tp_items(c, tp_of_dict(kw))->v[0].s;
        tp_fail(c, -EINVAL, "macro '%.*s' takes no keyword argument '%.*s'", len, n->name->data,
                extra->len > 60 ? 60 : (int)extra->len, extra->data);
    }
    uint32_t extra = args->n > n->n ? args->n - n->n : 0;
    if (n->flags & MACRO_VARARGS) {
        tp_list *rest = tp_list_new(c, extra);
        for (uint32_t i = 0; i < extra; i++) tp_list_push(c, rest, args->v[n->n + i]);
        scope_set(c, tp_cstr(c, "varargs").s, tp_of_list(T_TUPLE, rest));
    } else if (extra) {
        tp_fail(c, -EINVAL, "macro '%.*s' takes not more than %" PRIu32 " argument(s)", len, n->name->data, n->n);
    }
}

tp_value tp_call_macro(tp_ctx *c, tp_macro *m, const tp_args *args)
{
    const tp_node *n = m->node;
    tp_scope *outer = c->scope;
    tp_dict *kw = args->kw ? tp_dict_copy(c, args->kw) : NULL;
    size_t start = c->out->len;
    uint32_t line = c->line;
    tp_value v;
    call_enter(c);
    c->scope = scope_new(c, m->scope);
    for (uint32_t i = 0; i < n->n; i++) { /* all given ones first, as defaults may read them */
        const tp_node *param = n->kid[i];
        bool given = i < args->n;
        if (given)
            v = args->v[i];
        else if (!kw || !tp_dict_remove(c, kw, tp_of_str(param->name), &v))
            v = (tp_value){ .type = T_MISSING };
        scope_set(c, param->name, v.type == T_MISSING && !param->a ? tp_undefined(param->name) : v);
    }
    bind_rest(c, n, args, kw);
    for (uint32_t i = 0; i < n->n; i++) {
        const tp_node *param = n->kid[i];
        if (!tp_dict_get(c, &c->scope->vars, tp_of_str(param->name), &v) || v.type != T_MISSING) continue;
        scope_set(c, param->name, tp_eval(c, param->a));
    }
    exec(c, n->body);
    c->scope = outer;
    c->calls--;
    c->line = line;
    return take_output(c, start);
}

static void exec_call_block(tp_ctx *c, const tp_node *n)
{
    tp_value callee = tp_eval(c, n->a->a);
    tp_args args = tp_eval_args(c, n->a);
    if (!args.kw) args.kw = tp_dict_new(c);
    tp_dict_set(c, args.kw, tp_cstr(c, "caller"), macro_new(c, n));
    c->line = n->line;
    tp_value text = tp_to_str(c, tp_call_value(c, callee, &args));
    tp_emit(c, text.s->data, text.s->len);
}

/* ---- The other statements ---- */

static flow exec_if(tp_ctx *c, const tp_node *n)
{
    for (uint32_t i = 0; i < n->n; i += 2)
        if (tp_truth(c, tp_eval(c, n->kid[i]))) return exec(c, n->kid[i + 1]);
    return n->orelse ? exec(c, n->orelse) : FLOW_ON;
}

static void exec_print(tp_ctx *c, const tp_node *n)
{
    tp_value v = tp_eval(c, n->a);
    if (v.type != T_STR) v = tp_to_str(c, v);
    tp_emit(c, v.s->data, v.s->len);
}

/* {% filter %} and {% set x | filter %}: the captured body goes through the filters. */
static flow exec_captured(tp_ctx *c, const tp_node *n)
{
    tp_value text;
    flow f = capture_body(c, n->body, &text);
    if (f != FLOW_ON) return f;
    c->capture = text;
    text = tp_eval(c, n->c);
    if (n->kind == N_SETBLOCK) {
        assign(c, n->a, text);
    } else {
        text = tp_to_str(c, text);
        tp_emit(c, text.s->data, text.s->len);
    }
    return FLOW_ON;
}

/* {% with %}: values are computed outside, then all bound inside. */
static flow exec_with(tp_ctx *c, const tp_node *n)
{
    tp_scope *outer = c->scope, *inner = scope_new(c, outer);
    tp_list *values = tp_list_new(c, n->n / 2);
    for (uint32_t i = 1; i < n->n; i += 2) tp_list_push(c, values, tp_eval(c, n->kid[i]));
    c->scope = inner;
    for (uint32_t i = 0; i < n->n; i += 2) assign(c, n->kid[i], values->v[i / 2]);
    flow f = exec(c, n->body);
    c->scope = outer;
    return f;
}

static flow exec_scoped(tp_ctx *c, const tp_node *n)
{
    tp_scope *outer = c->scope;
    c->scope = scope_new(c, n->kind == N_BLOCK && !n->flags ? c->root : outer);
    flow f = exec(c, n->body);
    c->scope = outer;
    return f;
}

static flow exec_body(tp_ctx *c, const tp_node *n)
{
    flow f = FLOW_ON;
    for (uint32_t i = 0; i < n->n && f == FLOW_ON; i++) f = exec(c, n->kid[i]);
    return f;
}

static flow exec_kind(tp_ctx *c, const tp_node *n)
{
    switch (n->kind) {
    case N_BODY: return exec_body(c, n);
    case N_TEXT: tp_emit(c, n->value.s->data, n->value.s->len); return FLOW_ON;
    case N_PRINT: exec_print(c, n); return FLOW_ON;
    case N_FOR: return exec_for(c, n);
    case N_IF: return exec_if(c, n);
    case N_SET: assign(c, n->a, tp_eval(c, n->b)); return FLOW_ON;
    case N_SETBLOCK:
    case N_FILTERBLOCK: return exec_captured(c, n);
    case N_MACRO: scope_set(c, n->name, macro_new(c, n)); return FLOW_ON;
    case N_CALLBLOCK: exec_call_block(c, n); return FLOW_ON;
    case N_WITH: return exec_with(c, n);
    case N_SCOPED:
    case N_BLOCK: return exec_scoped(c, n);
    case N_BREAK: return FLOW_BREAK;
    default: return FLOW_CONTINUE;
    }
}

static flow exec(tp_ctx *c, const tp_node *n)
{
    tp_enter(c);
    c->line = n->line;
    flow f = exec_kind(c, n);
    c->depth--;
    return f;
}

void tp_render(tp_ctx *c, const tp_node *body)
{
    exec(c, body);
}
