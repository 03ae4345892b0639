/* Expressions: tokens -> tree. The grammar is Jinja2's, including its oddities: unary minus binds its operand before
 * filters do, `a ~ b` binds tighter than `+`, tests may take one argument without parentheses. */
#include "engine/template.h"

tp_node *tp_node_new(tp_ctx *c, tp_kind kind, uint32_t line)
{
    tp_node *n = tp_alloc(c, 1, sizeof *n);
    n->kind = (uint8_t)kind;
    n->line = line;
    return n;
}

void tp_node_push(tp_ctx *c, tp_node *list, tp_node *kid)
{
    uint32_t n = list->n;
    if ((n & (n - 1)) == 0) { /* full at 0, 1, 2, 4, 8 ... */
        size_t cap = n ? 2 * (size_t)n : 1;
        list->kid = tp_grow(c, list->kid, n * sizeof kid, cap * sizeof kid);
    }
    list->kid[list->n++] = kid;
}

/* Renders in several threads read the tree's strings: what strings remember about themselves is filled in now, and none
 * may be extended in place. */
static void freeze(tp_ctx *c, tp_str *s)
{
    tp_chars(c, s);
    tp_str_hash(c, s);
    s->rope = NULL;
}

tp_str *tp_intern(tp_ctx *c, tp_str *name)
{
    tp_value known;
    freeze(c, name);
    if (tp_dict_get(c, &c->names, tp_of_str(name), &known)) return known.s;
    tp_dict_set(c, &c->names, tp_of_str(name), tp_of_str(name));
    return name;
}

/* ---- Tokens ---- */

tp_token *tp_peek(tp_ctx *c, size_t ahead)
{
    size_t i = c->at + ahead;
    return &c->tok[i < c->tok_n ? i : c->tok_n - 1];
}

static tp_token *next(tp_ctx *c)
{
    tp_token *t = tp_peek(c, 0);
    c->line = t->line;
    if (t->kind != TK_EOF) c->at++;
    return t;
}

bool tp_at_op(tp_ctx *c, unsigned op)
{
    tp_token *t = tp_peek(c, 0);
    return t->kind == TK_OP && t->op == op;
}

bool tp_at_name(tp_ctx *c, const char *name)
{
    tp_token *t = tp_peek(c, 0);
    return t->kind == TK_NAME && tp_is(t->value.s, name);
}

bool tp_skip_op(tp_ctx *c, unsigned op)
{
    if (!tp_at_op(c, op)) return false;
    next(c);
    return true;
}

bool tp_skip_name(tp_ctx *c, const char *name)
{
    if (!tp_at_name(c, name)) return false;
    next(c);
    return true;
}

_Noreturn void tp_unexpected(tp_ctx *c, const char *wanted)
{
    static const char *const NAMES[] = { "the end of the template",        "text", "{{",
                                         "the end of the expression (}})", "{%",   "the end of the tag (%})" };
    tp_token *t = tp_peek(c, 0);
    c->line = t->line;
    if (t->kind < NJ_COUNT(NAMES)) tp_fail(c, -EINVAL, "expected %s, got %s", wanted, NAMES[t->kind]);
    if (t->kind == TK_OP)
        tp_fail(c, -EINVAL, "expected %s, got '%c%c'", wanted, t->op & 255, t->op >> 8 ? t->op >> 8 : ' ');
    if (t->kind == TK_NAME || t->kind == TK_STRING) {
        int len = t->value.s->len > 60 ? 60 : (int)t->value.s->len;
        tp_fail(c, -EINVAL, "expected %s, got '%.*s'", wanted, len, t->value.s->data);
    }
    tp_fail(c, -EINVAL, "expected %s, got a number", wanted);
}

void tp_expect_op(tp_ctx *c, unsigned op)
{
    char wanted[4] = { '\'', (char)(op & 255), '\'', 0 };
    if (!tp_skip_op(c, op)) tp_unexpected(c, wanted);
}

tp_str *tp_expect_name(tp_ctx *c)
{
    if (tp_peek(c, 0)->kind != TK_NAME) tp_unexpected(c, "a name");
    return tp_intern(c, next(c)->value.s);
}

void tp_parse_enter(tp_ctx *c)
{
    tp_tick(c, 1);
    if (++c->depth > TP_PARSE_DEPTH_MAX) {
        c->line = tp_peek(c, 0)->line;
        tp_fail(c, -E2BIG, "it is nested too deeply (limit %d levels)", TP_PARSE_DEPTH_MAX);
    }
}

/* ---- Primary expressions ---- */

static tp_node *constant(tp_ctx *c, tp_value v)
{
    tp_node *n = tp_node_new(c, N_CONST, c->line);
    if (v.type == T_STR) freeze(c, v.s);
    n->value = v;
    return n;
}

static tp_node *parse_name(tp_ctx *c)
{
    tp_str *s = tp_expect_name(c);
    if (tp_is(s, "true") || tp_is(s, "True")) return constant(c, tp_bool(true));
    if (tp_is(s, "false") || tp_is(s, "False")) return constant(c, tp_bool(false));
    if (tp_is(s, "none") || tp_is(s, "None")) return constant(c, tp_none());
    if (tp_is(s, "caller")) c->special |= MACRO_CALLER;
    if (tp_is(s, "varargs")) c->special |= MACRO_VARARGS;
    if (tp_is(s, "kwargs")) c->special |= MACRO_KWARGS;
    tp_node *n = tp_node_new(c, N_NAME, c->line);
    n->name = s;
    return n;
}

static tp_node *parse_string(tp_ctx *c)
{
    tp_value s = next(c)->value;
    while (tp_peek(c, 0)->kind == TK_STRING) s = tp_concat(c, s, next(c)->value);
    return constant(c, s);
}

/* N_LIST: kid are the items. N_DICT: kid are key, value, key, value ... */
static tp_node *parse_items(tp_ctx *c, tp_kind kind, unsigned close)
{
    tp_node *n = tp_node_new(c, kind, next(c)->line);
    while (!tp_at_op(c, close)) {
        if (n->n) {
            tp_expect_op(c, ',');
            if (tp_at_op(c, close)) break;
        }
        tp_node_push(c, n, tp_parse_expr(c, true));
        if (kind != N_DICT) continue;
        tp_expect_op(c, ':');
        tp_node_push(c, n, tp_parse_expr(c, true));
    }
    tp_expect_op(c, close);
    return n;
}

static tp_node *parse_primary(tp_ctx *c)
{
    tp_token *t = tp_peek(c, 0);
    if (t->kind == TK_NAME) return parse_name(c);
    if (t->kind == TK_STRING) return parse_string(c);
    if (t->kind == TK_INT || t->kind == TK_FLOAT) return constant(c, next(c)->value);
    if (tp_at_op(c, '[')) return parse_items(c, N_LIST, ']');
    if (tp_at_op(c, '{')) return parse_items(c, N_DICT, '}');
    if (!tp_skip_op(c, '(')) tp_unexpected(c, "an expression");
    if (tp_at_op(c, ')')) {
        next(c);
        return tp_node_new(c, N_TUPLE, c->line);
    }
    tp_node *n = tp_parse_tuple(c, true, NULL);
    tp_expect_op(c, ')');
    return n;
}

/* ---- Postfix: attributes, subscripts, calls, filters, tests ---- */

/* a[...]: an index, a:b:c (N_SLICE: a, b, c may be NULL), or several of them with commas (a tuple). */
static tp_node *parse_subscript_part(tp_ctx *c)
{
    uint32_t line = tp_peek(c, 0)->line;
    tp_node *first = tp_at_op(c, ':') ? NULL : tp_parse_expr(c, true);
    if (first && !tp_at_op(c, ':')) return first;
    tp_node *s = tp_node_new(c, N_SLICE, line);
    s->a = first;
    tp_expect_op(c, ':');
    if (!tp_at_op(c, ':') && !tp_at_op(c, ']') && !tp_at_op(c, ',')) s->b = tp_parse_expr(c, true);
    if (tp_skip_op(c, ':') && !tp_at_op(c, ']') && !tp_at_op(c, ',')) s->c = tp_parse_expr(c, true);
    return s;
}

/* N_ATTR: a.name. N_ITEM: a[b]. */
static tp_node *parse_subscript(tp_ctx *c, tp_node *of)
{
    uint32_t line = tp_peek(c, 0)->line;
    if (tp_skip_op(c, '.')) {
        tp_token *t = tp_peek(c, 0);
        tp_node *n = tp_node_new(c, t->kind == TK_INT ? N_ITEM : N_ATTR, line);
        n->a = of;
        if (t->kind == TK_INT)
            n->b = constant(c, next(c)->value);
        else
            n->name = tp_expect_name(c);
        return n;
    }
    tp_expect_op(c, '[');
    tp_node *n = tp_node_new(c, N_ITEM, line), *parts = tp_node_new(c, N_TUPLE, line);
    n->a = of;
    while (!tp_at_op(c, ']')) {
        if (parts->n) tp_expect_op(c, ',');
        tp_node_push(c, parts, parse_subscript_part(c));
    }
    tp_expect_op(c, ']');
    n->b = parts->n == 1 ? parts->kid[0] : parts;
    return n;
}

/* Arguments in parentheses are pushed onto `call`: expressions, N_STAR (a), N_KEYWORD (name, a), N_STARSTAR (a). */
static void parse_args(tp_ctx *c, tp_node *call)
{
    tp_kind stage = N_CONST;
    tp_expect_op(c, '(');
    while (!tp_at_op(c, ')')) {
        if (call->n) {
            tp_expect_op(c, ',');
            if (tp_at_op(c, ')')) break;
        }
        tp_token *t = tp_peek(c, 0);
        tp_node *arg = NULL;
        tp_kind kind = tp_skip_op(c, '*') ? N_STAR : tp_skip_op(c, TP_OP('*', '*')) ? N_STARSTAR : N_CONST;
        if (kind == N_CONST && t->kind == TK_NAME && tp_peek(c, 1)->kind == TK_OP && tp_peek(c, 1)->op == '=')
            kind = N_KEYWORD;
        bool in_order = kind == N_CONST ? stage == N_CONST : kind == N_STAR ? stage <= N_KEYWORD : stage != N_STARSTAR;
        if (!in_order) tp_fail(c, -EINVAL, "the arguments of a call are in the wrong order");
        if (kind != N_CONST) arg = tp_node_new(c, kind, t->line);
        if (kind == N_KEYWORD) {
            arg->name = tp_expect_name(c);
            next(c);
        }
        tp_node *value = tp_parse_expr(c, true);
        if (arg) arg->a = value;
        tp_node_push(c, call, arg ? arg : value);
        if (kind > stage || stage == N_CONST) stage = kind;
    }
    tp_expect_op(c, ')');
}

/* N_CALL: a is called with kid. */
static tp_node *parse_call(tp_ctx *c, tp_node *callee)
{
    tp_node *n = tp_node_new(c, N_CALL, tp_peek(c, 0)->line);
    n->a = callee;
    parse_args(c, n);
    return n;
}

static tp_node *parse_postfix(tp_ctx *c, tp_node *n)
{
    for (;;) {
        if (tp_at_op(c, '.') || tp_at_op(c, '['))
            n = parse_subscript(c, n);
        else if (tp_at_op(c, '('))
            n = parse_call(c, n);
        else
            return n;
    }
}

/* Jinja2 refuses unknown filters when compiling, but inside an if only when they are reached. */
static void note_unknown(tp_ctx *c, const tp_node *n, const char *what, const tp_token *at)
{
    if (n->fn || c->soft || c->unknown) return;
    c->unknown = what;
    c->unknown_at = *at;
}

/* N_FILTER: a is filtered by `name` with kid as arguments; fn is NULL for an unknown one. */
tp_node *tp_parse_filters(tp_ctx *c, tp_node *input, bool start_inline)
{
    while (start_inline || tp_skip_op(c, '|')) {
        const tp_token *at = tp_peek(c, 0);
        tp_node *n = tp_node_new(c, N_FILTER, at->line);
        n->name = tp_expect_name(c);
        n->fn = tp_filter_find(n->name->data, n->name->len);
        note_unknown(c, n, "filter", at);
        n->a = input;
        if (tp_at_op(c, '(')) parse_args(c, n);
        input = n;
        start_inline = false;
    }
    return input;
}

/* N_TEST: a is tested by `name` with kid as arguments. */
static tp_node *parse_test(tp_ctx *c, tp_node *of)
{
    uint32_t line = tp_peek(c, 0)->line;
    bool negated = tp_skip_name(c, "not");
    const tp_token *at = tp_peek(c, 0);
    tp_node *n = tp_node_new(c, N_TEST, line);
    n->name = tp_expect_name(c);
    n->fn = tp_test_find(n->name->data, n->name->len);
    note_unknown(c, n, "test", at);
    n->a = of;
    tp_token *t = tp_peek(c, 0);
    if (tp_at_op(c, '(')) {
        parse_args(c, n);
    } else if ((t->kind >= TK_NAME && t->kind <= TK_FLOAT && !tp_at_name(c, "else") && !tp_at_name(c, "or") &&
                !tp_at_name(c, "and")) ||
               tp_at_op(c, '[') || tp_at_op(c, '{')) {
        if (tp_at_name(c, "is")) tp_unexpected(c, "anything but a second test (tests can't be chained)");
        tp_node_push(c, n, parse_postfix(c, parse_primary(c)));
    }
    if (!negated) return n;
    tp_node *not_n = tp_node_new(c, N_NOT, line);
    not_n->a = n;
    return not_n;
}

static tp_node *parse_unary(tp_ctx *c, bool with_filters)
{
    tp_node *n;
    tp_parse_enter(c);
    uint32_t line = tp_peek(c, 0)->line;
    if (tp_at_op(c, '-') || tp_at_op(c, '+')) {
        n = tp_node_new(c, tp_at_op(c, '-') ? N_NEG : N_POS, line);
        next(c);
        n->a = parse_unary(c, false);
    } else {
        n = parse_primary(c);
    }
    n = parse_postfix(c, n);
    for (; with_filters;) {
        if (tp_at_op(c, '|'))
            n = tp_parse_filters(c, n, false);
        else if (tp_skip_name(c, "is"))
            n = parse_test(c, n);
        else if (tp_at_op(c, '('))
            n = parse_call(c, n);
        else
            break;
    }
    c->depth--;
    return n;
}

/* ---- Binary operators, loosest first ---- */

enum { LEVEL_SUM, LEVEL_CONCAT, LEVEL_PRODUCT, LEVEL_POWER, LEVEL_UNARY };

static bool level_has(tp_ctx *c, int level)
{
    static const uint16_t OPS[][4] = { { '+', '-' }, { '~' }, { '*', '/', TP_OP('/', '/'), '%' }, { TP_OP('*', '*') } };
    for (size_t i = 0; i < 4; i++)
        if (OPS[level][i] && tp_at_op(c, OPS[level][i])) return true;
    return false;
}

/* N_BINARY: a op b. N_CONCAT: kid joined as text. */
static tp_node *parse_binary(tp_ctx *c, int level)
{
    if (level == LEVEL_UNARY) return parse_unary(c, true);
    tp_node *left = parse_binary(c, level + 1);
    while (level_has(c, level)) {
        tp_token *op = next(c);
        tp_node *right = parse_binary(c, level + 1);
        if (level == LEVEL_CONCAT && left->kind == N_CONCAT && left->flags) {
            tp_node_push(c, left, right);
            continue;
        }
        tp_node *n = tp_node_new(c, level == LEVEL_CONCAT ? N_CONCAT : N_BINARY, op->line);
        if (level == LEVEL_CONCAT) {
            n->flags = 1; /* still open: more operands may follow */
            tp_node_push(c, n, left);
            tp_node_push(c, n, right);
        } else {
            n->op = op->op;
            n->a = left;
            n->b = right;
        }
        left = n;
    }
    if (left->kind == N_CONCAT) left->flags = 0;
    return left;
}

/* Comparison operators as op codes; "in" is 'i', "not in" is 'n'. 0: none here. */
static unsigned comparison(tp_ctx *c)
{
    tp_token *t = tp_peek(c, 0);
    if (t->kind == TK_OP) {
        bool is = t->op == '<' || t->op == '>' || t->op == TP_OP('=', '=') || t->op == TP_OP('!', '=') ||
                  t->op == TP_OP('<', '=') || t->op == TP_OP('>', '=');
        return is ? next(c)->op : 0;
    }
    if (tp_skip_name(c, "in")) return 'i';
    tp_token *second = tp_peek(c, 1);
    if (tp_at_name(c, "not") && second->kind == TK_NAME && tp_is(second->value.s, "in")) {
        next(c);
        next(c);
        return 'n';
    }
    return 0;
}

/* N_COMPARE: kid[0] op1 kid[1] op2 kid[2] ...; the operator is in the op of the operand's wrapper, whose a it is. */
static tp_node *parse_compare(tp_ctx *c)
{
    tp_node *first = parse_binary(c, LEVEL_SUM), *n = NULL;
    for (unsigned op; (op = comparison(c)) != 0;) {
        if (!n) {
            n = tp_node_new(c, N_COMPARE, c->line);
            n->a = first;
        }
        tp_node *operand = tp_node_new(c, N_KEYWORD, c->line);
        operand->op = (uint16_t)op;
        operand->a = parse_binary(c, LEVEL_SUM);
        tp_node_push(c, n, operand);
    }
    return n ? n : first;
}

static tp_node *parse_not(tp_ctx *c)
{
    if (!tp_at_name(c, "not")) return parse_compare(c);
    tp_parse_enter(c);
    tp_node *n = tp_node_new(c, N_NOT, next(c)->line);
    n->a = parse_not(c);
    c->depth--;
    return n;
}

/* N_AND, N_OR: kid, left to right. */
static tp_node *parse_logic(tp_ctx *c, tp_kind kind)
{
    const char *word = kind == N_OR ? "or" : "and";
    tp_node *first = kind == N_OR ? parse_logic(c, N_AND) : parse_not(c);
    if (!tp_at_name(c, word)) return first;
    tp_node *n = tp_node_new(c, kind, c->line);
    tp_node_push(c, n, first);
    while (tp_skip_name(c, word)) tp_node_push(c, n, kind == N_OR ? parse_logic(c, N_AND) : parse_not(c));
    return n;
}

/* N_COND: b if a else c; c may be NULL. */
tp_node *tp_parse_expr(tp_ctx *c, bool with_cond)
{
    tp_parse_enter(c);
    const char *unknown = c->unknown;
    tp_node *n = parse_logic(c, N_OR);
    while (with_cond && tp_skip_name(c, "if")) {
        tp_node *cond = tp_node_new(c, N_COND, c->line);
        c->unknown = unknown;
        c->soft++;
        cond->b = n;
        cond->a = parse_logic(c, N_OR);
        if (tp_skip_name(c, "else")) cond->c = tp_parse_expr(c, true);
        c->soft--;
        n = cond;
    }
    c->depth--;
    return n;
}

static bool tuple_ends(tp_ctx *c, const char *end)
{
    tp_tok kind = tp_peek(c, 0)->kind;
    return kind == TK_PRINT_END || kind == TK_BLOCK_END || tp_at_op(c, ')') || (end && tp_at_name(c, end));
}

/* A target without commas; "name.attribute" only where no word has to follow, that is in {% set %}. */
static tp_node *parse_target_part(tp_ctx *c, const char *end)
{
    tp_node *n = parse_primary(c);
    return n->kind == N_NAME && !end && tp_at_op(c, '.') ? parse_subscript(c, n) : n;
}

static tp_node *finish_tuple(tp_ctx *c, tp_node *first, bool target, bool with_cond, const char *end)
{
    tp_node *n = tp_node_new(c, N_TUPLE, c->line);
    tp_node_push(c, n, first);
    while (tp_skip_op(c, ',')) {
        if (tuple_ends(c, end)) break;
        tp_node_push(c, n, target ? parse_target_part(c, end) : tp_parse_expr(c, with_cond));
    }
    return n;
}

tp_node *tp_parse_tuple(tp_ctx *c, bool with_cond, const char *end)
{
    if (tuple_ends(c, end)) tp_unexpected(c, "an expression");
    tp_node *first = tp_parse_expr(c, with_cond);
    return tp_at_op(c, ',') ? finish_tuple(c, first, false, with_cond, end) : first;
}

/* Names, tuples of targets, and attributes of a namespace. */
static void check_target(tp_ctx *c, const tp_node *n)
{
    tp_parse_enter(c);
    if (n->kind == N_TUPLE || n->kind == N_LIST) {
        for (uint32_t i = 0; i < n->n; i++) check_target(c, n->kid[i]);
    } else if (n->kind != N_NAME && !(n->kind == N_ATTR && n->a->kind == N_NAME)) {
        tp_fail(c, -EINVAL, "this can't be assigned to");
    }
    c->depth--;
}

tp_node *tp_parse_target(tp_ctx *c, const char *end)
{
    if (tuple_ends(c, end)) tp_unexpected(c, "a name to assign to");
    tp_node *n = parse_target_part(c, end);
    if (tp_at_op(c, ',')) n = finish_tuple(c, n, true, false, end);
    check_target(c, n);
    return n;
}
