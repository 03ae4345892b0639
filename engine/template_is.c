/* Tests: `value is name(arguments)`. */
#include "engine/template.h"

/* Most tests look at the type alone and need no context. */
#define IS(name) static tp_value is_##name(__attribute__((unused)) tp_ctx *c, tp_call *call)

static tp_type type_of(const tp_call *call)
{
    return (tp_type)call->self.type;
}

IS(defined)
{
    return tp_bool(type_of(call) != T_UNDEFINED);
}
IS(undefined)
{
    return tp_bool(type_of(call) == T_UNDEFINED);
}
IS(none)
{
    return tp_bool(type_of(call) == T_NONE);
}
IS(string)
{
    return tp_bool(type_of(call) == T_STR);
}
IS(mapping)
{
    return tp_bool(type_of(call) == T_DICT);
}
IS(boolean)
{
    return tp_bool(type_of(call) == T_BOOL);
}
IS(true)
{
    return tp_bool(type_of(call) == T_BOOL && call->self.b);
}
IS(false)
{
    return tp_bool(type_of(call) == T_BOOL && !call->self.b);
}
IS(integer)
{
    return tp_bool(type_of(call) == T_INT || type_of(call) == T_BIG);
}
IS(float)
{
    return tp_bool(type_of(call) == T_FLOAT);
}
IS(number)
{
    return tp_bool(type_of(call) >= T_BOOL && type_of(call) <= T_FLOAT);
}
IS(iterable)
{
    return tp_bool(tp_is_iterable(call->self));
}
IS(escaped)
{
    return tp_bool(type_of(call) == T_STR && call->self.aux);
}

IS(sequence)
{
    tp_type t = type_of(call);
    return tp_bool(t == T_STR || t == T_LIST || t == T_TUPLE || t == T_DICT || t == T_RANGE || t == T_UNDEFINED);
}

IS(callable)
{
    tp_type t = type_of(call);
    return tp_bool(t == T_FUNC || t == T_MACRO || t == T_JOINER || t == T_LOOP || t == T_UNDEFINED);
}

/* The remainder by `by`; fails for what has none. */
static tp_value remainder_of(tp_ctx *c, tp_call *call, tp_value by)
{
    return tp_binary(c, '%', call->self, by);
}

static tp_value odd_even(tp_ctx *c, tp_call *call, int want)
{
    if (type_of(call) == T_STR) tp_fail(c, -EINVAL, "'is %s' needs a number, not str", call->name);
    return tp_bool(tp_equal(c, remainder_of(c, call, tp_int(2)), tp_int(want)));
}

IS(odd)
{
    return odd_even(c, call, 1);
}
IS(even)
{
    return odd_even(c, call, 0);
}

IS(divisibleby)
{
    if (type_of(call) == T_STR) tp_fail(c, -EINVAL, "'is divisibleby' needs a number, not str");
    return tp_bool(tp_equal(c, remainder_of(c, call, call->arg[0]), tp_int(0)));
}

IS(lower)
{
    return tp_bool(tp_is_class(c, tp_to_str(c, call->self).s, "islower"));
}
IS(upper)
{
    return tp_bool(tp_is_class(c, tp_to_str(c, call->self).s, "isupper"));
}

IS(eq)
{
    return tp_bool(tp_equal(c, call->self, call->arg[0]));
}
IS(ne)
{
    return tp_bool(!tp_equal(c, call->self, call->arg[0]));
}

static int order(tp_ctx *c, tp_call *call, const char *op)
{
    return tp_order(c, call->self, call->arg[0], op);
}

IS(lt)
{
    return tp_bool(order(c, call, "<") < 0);
}
IS(gt)
{
    return tp_bool(order(c, call, ">") == 1);
}

IS(le)
{
    return tp_bool(order(c, call, "<=") <= 0);
}

IS(ge)
{
    int sign = order(c, call, ">=");
    return tp_bool(sign == 0 || sign == 1);
}

IS(in)
{
    return tp_bool(tp_contains(c, call->self, call->arg[0]));
}

/* Identity; what Python interns (numbers, short text) counts as identical when equal. */
IS(sameas)
{
    tp_value a = call->self, b = call->arg[0];
    if (a.type != b.type) return tp_bool(false);
    if (a.type <= T_STR) return tp_bool(tp_equal(c, a, b));
    return tp_bool(a.p == b.p);
}

IS(filter)
{
    tp_value name = tp_to_str(c, call->self);
    return tp_bool(tp_filter_find(name.s->data, name.s->len) != NULL);
}

IS(test)
{
    tp_value name = tp_to_str(c, call->self);
    return tp_bool(tp_test_find(name.s->data, name.s->len) != NULL);
}

// clang-format off
static const tp_builtin TESTS[] = {
    { "!=", is_ne, "other", 1 },
    { "<", is_lt, "other", 1 },
    { "<=", is_le, "other", 1 },
    { "==", is_eq, "other", 1 },
    { ">", is_gt, "other", 1 },
    { ">=", is_ge, "other", 1 },
    { "boolean", is_boolean, "", 0 },
    { "callable", is_callable, "", 0 },
    { "defined", is_defined, "", 0 },
    { "divisibleby", is_divisibleby, "num", 1 },
    { "eq", is_eq, "other", 1 },
    { "equalto", is_eq, "other", 1 },
    { "escaped", is_escaped, "", 0 },
    { "even", is_even, "", 0 },
    { "false", is_false, "", 0 },
    { "filter", is_filter, "", 0 },
    { "float", is_float, "", 0 },
    { "ge", is_ge, "other", 1 },
    { "greaterthan", is_gt, "other", 1 },
    { "gt", is_gt, "other", 1 },
    { "in", is_in, "seq", 1 },
    { "integer", is_integer, "", 0 },
    { "iterable", is_iterable, "", 0 },
    { "le", is_le, "other", 1 },
    { "lessthan", is_lt, "other", 1 },
    { "lower", is_lower, "", 0 },
    { "lt", is_lt, "other", 1 },
    { "mapping", is_mapping, "", 0 },
    { "ne", is_ne, "other", 1 },
    { "none", is_none, "", 0 },
    { "number", is_number, "", 0 },
    { "odd", is_odd, "", 0 },
    { "sameas", is_sameas, "other", 1 },
    { "sequence", is_sequence, "", 0 },
    { "string", is_string, "", 0 },
    { "test", is_test, "", 0 },
    { "true", is_true, "", 0 },
    { "undefined", is_undefined, "", 0 },
    { "upper", is_upper, "", 0 },
};
// clang-format on

const tp_builtin *tp_test_find(const char *name, size_t len)
{
    return tp_builtin_find(TESTS, NJ_COUNT(TESTS), name, len);
}
