/* Statements: tokens -> tree. */
#include "engine/template.h"

static tp_node *parse_body(tp_ctx *c, const char *const *ends);

static void expect_block_end(tp_ctx *c)
{
    if (tp_peek(c, 0)->kind != TK_BLOCK_END) tp_unexpected(c, "the end of the tag (%})");
    c->at++;
}

/* The body of a statement up to "{% end %}", which is consumed. */
static tp_node *parse_until(tp_ctx *c, const char *end)
{
    const char *const ends[] = { end, NULL };
    tp_skip_op(c, ':');
    expect_block_end(c);
    tp_node *body = parse_body(c, ends);
    c->at++; /* the end's name; its %} is eaten by whoever parses tags */
    return body;
}

/* N_FOR: for a in b if c; body, orelse; flags 1: recursive. */
static tp_node *parse_for(tp_ctx *c, tp_node *n)
{
    static const char *const ENDS[] = { "endfor", "else", NULL };
    n->kind = N_FOR;
    n->a = tp_parse_target(c, "in");
    if (!tp_skip_name(c, "in")) tp_unexpected(c, "'in'");
    n->b = tp_parse_tuple(c, false, "recursive");
    if (tp_skip_name(c, "if")) n->c = tp_parse_expr(c, true);
    n->flags = tp_skip_name(c, "recursive");
    tp_skip_op(c, ':');
    expect_block_end(c);
    c->loops++;
    n->body = parse_body(c, ENDS);
    c->loops--;
    if (tp_skip_name(c, "else"))
        n->orelse = parse_until(c, "endfor");
    else
        c->at++;
    return n;
}

/* N_IF: kid are condition, body, condition, body ...; orelse. */
static tp_node *parse_if(tp_ctx *c, tp_node *n)
{
    static const char *const ENDS[] = { "endif", "elif", "else", NULL };
    n->kind = N_IF;
    do {
        tp_node_push(c, n, tp_parse_tuple(c, false, NULL));
        tp_skip_op(c, ':');
        expect_block_end(c);
        c->soft++;
        tp_node_push(c, n, parse_body(c, ENDS));
        c->soft--;
    } while (tp_skip_name(c, "elif"));
    if (tp_skip_name(c, "else")) {
        c->soft++;
        n->orelse = parse_until(c, "endif");
        c->soft--;
    } else {
        c->at++;
    }
    return n;
}

/* N_SET: a = b. N_SETBLOCK: a = body through the filters c, whose innermost input is N_CAPTURE. */
static tp_node *parse_set(tp_ctx *c, tp_node *n)
{
    n->a = tp_parse_target(c, NULL);
    if (tp_skip_op(c, '=')) {
        n->kind = N_SET;
        n->b = tp_parse_tuple(c, true, NULL);
        return n;
    }
    n->kind = N_SETBLOCK;
    n->c = tp_parse_filters(c, tp_node_new(c, N_CAPTURE, n->line), false);
    n->body = parse_until(c, "endset");
    return n;
}

/* Parameters in parentheses: kid are N_NAME, whose a is the default or NULL. */
static void parse_signature(tp_ctx *c, tp_node *n)
{
    bool defaults = false;
    tp_expect_op(c, '(');
    while (!tp_at_op(c, ')')) {
        if (n->n) tp_expect_op(c, ',');
        tp_node *param = tp_node_new(c, N_NAME, tp_peek(c, 0)->line);
        param->name = tp_expect_name(c);
        if (tp_skip_op(c, '=')) {
            param->a = tp_parse_expr(c, true);
            defaults = true;
        } else if (defaults) {
            tp_fail(c, -EINVAL, "parameter '%.*s' without a default follows one with a default",
                    param->name->len > 60 ? 60 : (int)param->name->len, param->name->data);
        }
        tp_node_push(c, n, param);
    }
    tp_expect_op(c, ')');
}

/* The body of a macro or call block; n->flags says which special names it reads. */
static void parse_macro_body(tp_ctx *c, tp_node *n, const char *end)
{
    unsigned outer = c->special;
    int loops = c->loops;
    c->special = 0;
    c->loops = 0;
    n->body = parse_until(c, end);
    n->flags = (uint8_t)c->special;
    c->special |= outer;
    c->loops = loops;
}

/* N_MACRO: name, kid (parameters), body. */
static tp_node *parse_macro(tp_ctx *c, tp_node *n)
{
    n->kind = N_MACRO;
    n->name = tp_expect_name(c);
    parse_signature(c, n);
    parse_macro_body(c, n, "endmacro");
    return n;
}

/* N_CALLBLOCK: a (a N_CALL) gets a macro made of kid and body as `caller`. */
static tp_node *parse_call_block(tp_ctx *c, tp_node *n)
{
    n->kind = N_CALLBLOCK;
    n->name = tp_intern(c, tp_cstr(c, "caller").s);
    if (tp_at_op(c, '(')) parse_signature(c, n);
    n->a = tp_parse_expr(c, true);
    if (n->a->kind != N_CALL) tp_fail(c, -EINVAL, "{%% call %%} needs a call, like {%% call name(arguments) %%}");
    parse_macro_body(c, n, "endcall");
    return n;
}

/* N_FILTERBLOCK: body through the filters c. */
static tp_node *parse_filter_block(tp_ctx *c, tp_node *n)
{
    n->kind = N_FILTERBLOCK;
    n->c = tp_parse_filters(c, tp_node_new(c, N_CAPTURE, n->line), true);
    n->body = parse_until(c, "endfilter");
    return n;
}

/* N_WITH: kid are target, value, target, value ...; body in a scope of its own. */
static tp_node *parse_with(tp_ctx *c, tp_node *n)
{
    n->kind = N_WITH;
    while (tp_peek(c, 0)->kind != TK_BLOCK_END) {
        if (n->n) tp_expect_op(c, ',');
        tp_node_push(c, n, tp_parse_target(c, "="));
        tp_expect_op(c, '=');
        tp_node_push(c, n, tp_parse_expr(c, true));
    }
    n->body = parse_until(c, "endwith");
    return n;
}

/* N_BLOCK: body, seeing the template's outermost scope only. Without inheritance that is all a block is. */
static tp_node *parse_block(tp_ctx *c, tp_node *n)
{
    n->kind = N_BLOCK;
    n->name = tp_expect_name(c);
    n->flags = tp_skip_name(c, "scoped");
    tp_skip_name(c, "required");
    int loops = c->loops;
    c->loops = 0;
    n->body = parse_until(c, "endblock");
    c->loops = loops;
    if (tp_peek(c, 0)->kind == TK_NAME && tp_peek(c, 0)->value.s->len == n->name->len &&
        memcmp(tp_peek(c, 0)->value.s->data, n->name->data, n->name->len) == 0)
        c->at++;
    return n;
}

/* N_BODY of N_PRINT: {% print a, b %} */
static tp_node *parse_print(tp_ctx *c, tp_node *n)
{
    n->kind = N_BODY;
    while (tp_peek(c, 0)->kind != TK_BLOCK_END) {
        if (n->n) tp_expect_op(c, ',');
        tp_node *print = tp_node_new(c, N_PRINT, n->line);
        print->a = tp_parse_expr(c, true);
        tp_node_push(c, n, print);
    }
    return n;
}

/* {% generation %} marks the text a model wrote; for rendering its body is all that counts (N_SCOPED). */
static tp_node *parse_generation(tp_ctx *c, tp_node *n)
{
    n->kind = N_SCOPED;
    n->body = parse_until(c, "endgeneration");
    return n;
}

static tp_node *parse_jump(tp_ctx *c, tp_node *n)
{
    if (!c->loops) tp_fail(c, -EINVAL, "'%s' outside of a loop", n->flags ? "break" : "continue");
    n->kind = n->flags ? N_BREAK : N_CONTINUE;
    return n;
}

static tp_node *parse_statement(tp_ctx *c)
{
    // clang-format off
    static const struct { const char *tag; tp_node *(*parse)(tp_ctx *, tp_node *); } STATEMENTS[] = {
        { "for", parse_for },           { "if", parse_if },       { "set", parse_set },
        { "macro", parse_macro },       { "call", parse_call_block }, { "filter", parse_filter_block },
        { "with", parse_with },         { "block", parse_block }, { "print", parse_print },
        { "generation", parse_generation }, { "break", parse_jump }, { "continue", parse_jump },
    };
    // clang-format on
    static const char *const NOT_SUPPORTED[] = { "include",    "import", "from",  "extends",
                                                 "autoescape", "do",     "trans", "debug" };
    if (tp_peek(c, 0)->kind != TK_NAME) tp_unexpected(c, "the name of a tag");
    tp_str *tag = tp_expect_name(c);
    tp_node *n = tp_node_new(c, N_BODY, c->line);
    for (size_t i = 0; i < NJ_COUNT(STATEMENTS); i++) {
        if (!tp_is(tag, STATEMENTS[i].tag)) continue;
        n->flags = tp_is(tag, "break");
        return STATEMENTS[i].parse(c, n);
    }
    for (size_t i = 0; i < NJ_COUNT(NOT_SUPPORTED); i++)
        if (tp_is(tag, NOT_SUPPORTED[i]))
            tp_fail(c, -EINVAL, "{%% %s %%} is not supported in chat templates", NOT_SUPPORTED[i]);
    tp_fail(c, -EINVAL, "unknown tag '%.*s'", tag->len > 60 ? 60 : (int)tag->len, tag->data);
}

static bool at_end(tp_ctx *c, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (tp_at_name(c, *ends)) return true;
    return false;
}

/* N_BODY: kid. Stops behind the "{%" of one of `ends` (NULL: only at the end of the template). */
static tp_node *parse_body(tp_ctx *c, const char *const *ends)
{
    tp_parse_enter(c);
    uint32_t line = c->line;
    tp_node *body = tp_node_new(c, N_BODY, line);
    for (;;) {
        tp_token *t = tp_peek(c, 0);
        if (t->kind == TK_EOF) break;
        c->at++;
        if (t->kind == TK_DATA) {
            tp_node *text = tp_node_new(c, N_TEXT, t->line);
            text->value = t->value;
            tp_node_push(c, body, text);
        } else if (t->kind == TK_PRINT) {
            tp_node *print = tp_node_new(c, N_PRINT, t->line);
            print->a = tp_parse_tuple(c, true, NULL);
            if (tp_peek(c, 0)->kind != TK_PRINT_END) tp_unexpected(c, "the end of the expression (}})");
            c->at++;
            tp_node_push(c, body, print);
        } else {
            if (at_end(c, ends)) break;
            tp_node_push(c, body, parse_statement(c));
            expect_block_end(c);
        }
    }
    if (ends && tp_peek(c, 0)->kind == TK_EOF) {
        c->line = line;
        tp_fail(c, -EINVAL, "the tag that begins here has no {%% %s %%}", ends[0]);
    }
    c->depth--;
    return body;
}

tp_node *tp_parse(tp_ctx *c)
{
    tp_node *body = parse_body(c, NULL);
    if (c->unknown) {
        tp_str *name = c->unknown_at.value.s;
        c->line = c->unknown_at.line;
        tp_fail(c, -EINVAL, "there is no %s named '%.*s'", c->unknown, name->len > 60 ? 60 : (int)name->len,
                name->data);
    }
    return body;
}
