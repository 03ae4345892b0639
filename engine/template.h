/* The chat-template interpreter's private types. Nothing outside engine/template*.c includes this.
 *
 * A template is lexed and parsed once into a tree that lives in the template's arena and is never changed again.
 * A render walks that tree. Every value of a render lives in the render's arena, which is freed as a whole, so no value
 * has an owner; strings are immutable, lists and dicts are shared by reference as in Python.
 *
 * Failure is a longjmp to the one setjmp in nj_template_new or nj_template_render: between the two nothing is held but
 * the arena and the output buffer, both of which the landing place knows. Functions below therefore return values,
 * not codes; those that can fail take a tp_ctx. */
#ifndef NJ_TEMPLATE_H
#define NJ_TEMPLATE_H

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <string.h>
#include <time.h>

#include "numa/nj_base.h"

/* What a hostile template may cost. One step is about one node of the tree or 64 bytes moved; 5 million of them take
 * 0.1-0.3 s on a 2.5 GHz core. C stack: the deepest templates of the tests run in 1 MB. */
enum {
    TP_SOURCE_MAX = 1 << 20,
    TP_MEMORY_MAX = 44 << 20, /* of a render: arena, and twice the output (it doubles as it grows) */
    TP_TREE_MAX = 16 << 20,   /* of a compiled template; both together stay below 64 MB */
    TP_STEPS_MAX = 5000000,
    TP_PARSE_DEPTH_MAX = 200,
    TP_EVAL_DEPTH_MAX = 2000,
    TP_CALL_DEPTH_MAX = 200, /* macros inside macros */
    TP_PARAMS_MAX = 7,       /* of a built-in */
};

typedef struct tp_chunk tp_chunk;
typedef struct tp_arena {
    tp_chunk *head;
    size_t    total; /* bytes taken from malloc */
} tp_arena;

/* ---- Values ---- */

typedef enum tp_type {
    T_MISSING, /* an argument that was not given; never seen by a template */
    T_UNDEFINED,
    T_NONE,
    T_BOOL,
    T_INT,
    T_BIG, /* an integer beyond 64 bits, from the arguments: can be printed and compared for equality only */
    T_FLOAT,
    T_STR,
    T_LIST,
    T_TUPLE,
    T_DICT,
    T_VIEW,  /* dict.keys(), .values(), .items() */
    T_RANGE,
    T_ITER,  /* a generator: can be walked once */
    T_NAMESPACE,
    T_LOOP,
    T_MACRO,
    T_FUNC, /* a global function or a method bound to its object */
    T_CYCLER,
    T_JOINER,
} tp_type;

typedef struct tp_str       tp_str;
typedef struct tp_list      tp_list;
typedef struct tp_dict      tp_dict;
typedef struct tp_view      tp_view;
typedef struct tp_range     tp_range;
typedef struct tp_iter      tp_iter;
typedef struct tp_loop      tp_loop;
typedef struct tp_macro     tp_macro;
typedef struct tp_func      tp_func;
typedef struct tp_cycler    tp_cycler;
typedef struct tp_node      tp_node;
typedef struct tp_ctx       tp_ctx;
typedef struct tp_scope     tp_scope;
typedef struct tp_builtin   tp_builtin;

typedef struct tp_value {
    uint8_t type; /* tp_type */
    uint8_t aux;  /* T_STR: 1 when marked safe (Markup); T_UNDEFINED: type of the object that lacks it */
    union {
        bool       b;
        int64_t    i;
        double     f;
        tp_str    *s; /* also T_BIG (decimal digits) and T_UNDEFINED (its name, or NULL) */
        tp_list   *l; /* T_LIST, T_TUPLE, T_JOINER (its separator and whether it was used) */
        tp_dict   *d; /* T_DICT, T_NAMESPACE */
        tp_view   *view;
        tp_range  *range;
        tp_iter   *iter;
        tp_loop   *loop;
        tp_macro  *macro;
        tp_func   *func;
        tp_cycler *cycler;
        void      *p;
    };
} tp_value;

/* Always valid UTF-8, not NUL-terminated. */
struct tp_str {
    const char     *data;
    uint32_t        len;
    uint32_t        chars; /* code points, UINT32_MAX: not counted yet */
    uint32_t        hash;  /* 0: not computed yet */
    struct tp_rope *rope;  /* the growing buffer that `data` ends in, or NULL */
};

struct tp_list {
    tp_value *v;
    uint32_t  n, cap;
    bool      group; /* an entry of groupby: has .grouper and .list */
};

typedef struct tp_entry {
    tp_value key, value; /* key.type T_MISSING: deleted */
    uint32_t hash;
} tp_entry;

struct tp_dict {
    tp_entry *e;     /* in order of insertion */
    uint32_t  n, cap, live;
    uint32_t *index; /* open addressing over e, entry number + 1; NULL while small */
    uint32_t  index_cap;
};

struct tp_view { tp_dict *d; enum { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS } kind; };
struct tp_range { int64_t start, stop, step, n; };
struct tp_iter { tp_list *l; uint32_t pos; const char *what; };
struct tp_func { const tp_builtin *fn; tp_value self; };
struct tp_cycler { tp_list *items; uint32_t pos; };

struct tp_scope {
    tp_scope *parent;
    tp_dict   vars;
    bool      captured; /* a macro may outlive it: the next turn of a loop needs a new one */
};

struct tp_macro {
    const tp_node *node;
    tp_scope      *scope; /* where it was defined */
};

struct tp_loop {
    const tp_node *node;    /* N_FOR */
    tp_list       *source;  /* live: a list that grows is walked to its new end */
    uint32_t       pos;     /* next item of source */
    bool           filtered; /* `for x in y if ...` still to be applied to the rest */
    tp_scope      *scope;   /* around the loop */
    tp_scope      *probe;   /* where the `if` is evaluated */
    tp_value       before, current, after; /* after: looked ahead, T_MISSING otherwise */
    int64_t        index0, length;         /* length -1: not asked for yet */
    int64_t        depth0;
    tp_value       changed;
};

/* ---- Built-in functions, filters, tests and methods ---- */

typedef struct tp_args {
    const tp_value *v;
    uint32_t        n;
    tp_dict        *kw; /* NULL: none */
} tp_args;

typedef struct tp_call {
    tp_value    self;               /* the filtered, tested or owning value */
    tp_value    arg[TP_PARAMS_MAX]; /* by position in tp_builtin.params, T_MISSING when not given */
    tp_args     all;                /* as written; what functions without a parameter list read */
    const char *name;
} tp_call;

struct tp_builtin {
    const char *name;
    tp_value (*fn)(tp_ctx *c, tp_call *call);
    const char *params; /* names separated by blanks; NULL: takes anything and reads call->all */
    int         required;
};

/* ---- Tree ---- */

typedef enum tp_kind {
    /* expressions */
    N_CONST, N_NAME, N_LIST, N_TUPLE, N_DICT, N_ATTR, N_ITEM, N_SLICE, N_CALL, N_FILTER, N_TEST, N_NOT, N_NEG, N_POS,
    N_BINARY, N_CONCAT, N_COMPARE, N_AND, N_OR, N_COND, N_KEYWORD, N_STAR, N_STARSTAR, N_CAPTURE,
    /* statements */
    N_BODY, N_TEXT, N_PRINT, N_FOR, N_IF, N_SET, N_SETBLOCK, N_MACRO, N_CALLBLOCK, N_FILTERBLOCK, N_WITH, N_SCOPED,
    N_BLOCK, N_BREAK, N_CONTINUE,
} tp_kind;

enum { MACRO_CALLER = 1, MACRO_VARARGS = 2, MACRO_KWARGS = 4 };

/* Which fields a kind uses is said where the parser makes it. */
struct tp_node {
    uint8_t           kind; /* tp_kind */
    uint8_t           flags;
    uint16_t          op;
    uint32_t          line, n;
    tp_node         **kid;
    tp_node          *a, *b, *c, *body, *orelse;
    tp_str           *name;
    tp_value          value;
    const tp_builtin *fn;
};

/* ---- Lexer ---- */

typedef enum tp_tok { TK_EOF, TK_DATA, TK_PRINT, TK_PRINT_END, TK_BLOCK, TK_BLOCK_END, TK_NAME, TK_STRING, TK_INT,
                      TK_FLOAT, TK_OP } tp_tok;

#define TP_OP(a, b) ((a) | (b) << 8) /* operators of one (b = 0) or two characters */

typedef struct tp_token {
    uint8_t  kind; /* tp_tok */
    uint16_t op;
    uint32_t line;
    tp_value value; /* data, name, string: T_STR; numbers */
} tp_token;

/* ---- Context of one compilation or one render ---- */

struct tp_ctx {
    jmp_buf          landing;
    nj_error        *err;
    int              code;
    tp_arena         arena;
    uint64_t         steps;
    uint32_t         line;  /* of what is being done, for messages */
    int              depth, calls;
    /* compilation */
    tp_token        *tok;
    size_t           tok_n, tok_cap, at;
    tp_dict          names; /* interned */
    int              loops;  /* loops around the statement being parsed, as far as break may see */
    int              soft;   /* inside an if: an unknown filter is an error only when it is reached */
    unsigned         special; /* MACRO_* names met so far */
    const char      *unknown; /* first unknown filter or test outside an if: "filter" or "test" */
    tp_token         unknown_at;
    /* render */
    nj_buf          *out;
    size_t           out_start;
    tp_scope        *scope, *root;
    tp_value         capture; /* input of the filters of a filter or set block */
    const struct tm *now;
};

/* template.c: limits, memory, failure, text building */
_Noreturn void tp_fail(tp_ctx *c, int code, const char *fmt, ...) NJ_PRINTF(3, 4);
_Noreturn void tp_fail_text(tp_ctx *c, int code, const char *text, size_t len); /* without a prefix */
_Noreturn void tp_fail_steps(tp_ctx *c);
static inline void tp_tick(tp_ctx *c, uint64_t n)
{
    if ((c->steps += n) > TP_STEPS_MAX) tp_fail_steps(c);
}
void  tp_enter(tp_ctx *c); /* one level deeper; fails at TP_EVAL_DEPTH_MAX */
void *tp_alloc(tp_ctx *c, size_t count, size_t size); /* zeroed; counts steps for its size */
void *tp_grow(tp_ctx *c, void *p, size_t old_bytes, size_t new_bytes); /* in place at the arena's end; not zeroed */
void  tp_arena_free(tp_arena *a);

/* A string under construction in the arena. */
typedef struct tp_buf { char *data; size_t len, cap; } tp_buf;
void     tp_put(tp_ctx *c, tp_buf *b, const char *bytes, size_t len);
void     tp_puts(tp_ctx *c, tp_buf *b, const char *text);
void     tp_putc(tp_ctx *c, tp_buf *b, char ch);
void     tp_putcp(tp_ctx *c, tp_buf *b, int32_t cp);
void     tp_pad(tp_ctx *c, tp_buf *b, const char *unit, size_t len, int64_t times); /* unit `times` times */
void     tp_put_str(tp_ctx *c, tp_buf *b, const tp_str *s);
tp_value tp_done(tp_ctx *c, tp_buf *b);
void     tp_emit(tp_ctx *c, const char *bytes, size_t len); /* to the output */

/* template_lex.c */
void tp_lex(tp_ctx *c, const char *source, size_t len);

/* template_expr.c, template_parse.c */
tp_node *tp_node_new(tp_ctx *c, tp_kind kind, uint32_t line);
void     tp_node_push(tp_ctx *c, tp_node *list, tp_node *kid);
tp_str  *tp_intern(tp_ctx *c, tp_str *name);
tp_token *tp_peek(tp_ctx *c, size_t ahead);
bool     tp_at_op(tp_ctx *c, unsigned op);
bool     tp_at_name(tp_ctx *c, const char *name);
bool     tp_skip_op(tp_ctx *c, unsigned op);
bool     tp_skip_name(tp_ctx *c, const char *name);
void     tp_expect_op(tp_ctx *c, unsigned op);
tp_str  *tp_expect_name(tp_ctx *c);
_Noreturn void tp_unexpected(tp_ctx *c, const char *wanted);
void     tp_parse_enter(tp_ctx *c);
tp_node *tp_parse_expr(tp_ctx *c, bool with_cond);
/* An expression or, with commas, a tuple. end: a name that may follow a trailing comma ("in"), or NULL. */
tp_node *tp_parse_tuple(tp_ctx *c, bool with_cond, const char *end);
tp_node *tp_parse_target(tp_ctx *c, const char *end); /* what can be assigned to */
tp_node *tp_parse_filters(tp_ctx *c, tp_node *input, bool start_inline);
tp_node *tp_parse(tp_ctx *c); /* whole template: N_BODY */

/* template_value.c */
tp_value tp_none(void);
tp_value tp_bool(bool b);
tp_value tp_int(int64_t i);
tp_value tp_float(double f);
tp_value tp_undefined(tp_str *name);
tp_value tp_undefined_attr(tp_value of, tp_str *name);
tp_value tp_text(tp_ctx *c, const char *data, size_t len); /* shares data */
tp_value tp_copy(tp_ctx *c, const char *data, size_t len);
tp_value tp_cstr(tp_ctx *c, const char *text);             /* shares text */
tp_value tp_of_str(tp_str *s);
tp_value tp_of_list(tp_type type, tp_list *l);
tp_value tp_of_dict(tp_dict *d);
tp_value tp_generator(tp_ctx *c, tp_list *l, const char *what);
tp_list *tp_list_new(tp_ctx *c, uint32_t cap);
void     tp_list_push(tp_ctx *c, tp_list *l, tp_value v);
tp_value tp_pair(tp_ctx *c, tp_value a, tp_value b);
tp_dict *tp_dict_new(tp_ctx *c);
tp_dict *tp_dict_copy(tp_ctx *c, const tp_dict *d);
bool     tp_dict_get(tp_ctx *c, const tp_dict *d, tp_value key, tp_value *out);
bool     tp_dict_find(tp_ctx *c, const tp_dict *d, const char *key, tp_value *out);
void     tp_dict_set(tp_ctx *c, tp_dict *d, tp_value key, tp_value value);
bool     tp_dict_remove(tp_ctx *c, tp_dict *d, tp_value key, tp_value *out);
uint32_t tp_str_hash(tp_ctx *c, tp_str *s);
const char *tp_type_name(tp_value v);
bool     tp_truth(tp_ctx *c, tp_value v);
bool     tp_equal(tp_ctx *c, tp_value a, tp_value b);
int      tp_order(tp_ctx *c, tp_value a, tp_value b, const char *op); /* <0, 0, >0; 2: unordered (nan) */
bool     tp_is_number(tp_value v, bool *integral); /* bool, int, float */
double   tp_as_double(tp_value v);
bool     tp_as_int(tp_value v, int64_t *out);      /* int or bool */
bool     tp_is_iterable(tp_value v);
tp_list *tp_items(tp_ctx *c, tp_value v);          /* live for lists and tuples; fails when not iterable */
int64_t  tp_length(tp_ctx *c, tp_value v);         /* -1: has none */
bool     tp_contains(tp_ctx *c, tp_value item, tp_value container);
_Noreturn void tp_fail_undefined(tp_ctx *c, tp_value v);
bool     tp_is(const tp_str *s, const char *text);

/* template_text.c: code points */
int32_t  tp_decode(const char *p, const char *end, size_t *len); /* valid UTF-8 only */
bool     tp_is_space(int32_t cp);
bool     tp_is_printable(int32_t cp); /* repr() leaves it as it is */
bool     tp_is_name_char(int32_t cp);
size_t   tp_utf8_valid(const char *s, size_t len); /* length of the valid beginning */
uint32_t tp_chars(tp_ctx *c, tp_str *s);
size_t   tp_byte_at(tp_ctx *c, tp_str *s, int64_t chars); /* offset of a code point */
tp_value tp_slice_str(tp_ctx *c, tp_value v, int64_t start, int64_t stop, int64_t step, int64_t count);
tp_value tp_substr(tp_ctx *c, tp_value of, size_t from, size_t to); /* bytes; keeps the safe mark */
/* u(pper) l(ower) t(itle) c(apitalize) s(wap) f(old) j(inja title) */
tp_value tp_case(tp_ctx *c, tp_value s, char how);
tp_value tp_fold(tp_ctx *c, tp_value v);           /* lower case for strings, anything else as it is */
bool     tp_is_class(tp_ctx *c, tp_str *s, const char *which); /* "isalpha" ... */
tp_value tp_strip(tp_ctx *c, tp_value s, tp_value chars, bool left, bool right);
tp_value tp_split(tp_ctx *c, tp_value s, tp_value sep, int64_t max, bool from_right);
tp_list *tp_split_lines(tp_ctx *c, tp_value s, bool keep_ends);
tp_value tp_replace(tp_ctx *c, tp_value s, tp_str *from, tp_str *to, int64_t max);
int64_t  tp_find(tp_ctx *c, const char *hay, size_t hay_len, const char *needle, size_t len); /* -1: not there */
int64_t  tp_rfind(tp_ctx *c, const char *hay, size_t hay_len, const char *needle, size_t len);
tp_value tp_escape(tp_ctx *c, tp_value v); /* HTML, marked safe */

/* template_print.c */
tp_value tp_to_str(tp_ctx *c, tp_value v); /* T_STR, as Python's str() */
void     tp_write(tp_ctx *c, tp_buf *b, tp_value v);
void     tp_repr(tp_ctx *c, tp_buf *b, tp_value v);
void     tp_put_int(tp_ctx *c, tp_buf *b, int64_t i);
void     tp_put_float(tp_ctx *c, tp_buf *b, double f);
typedef struct tp_json_style {
    tp_str *indent; /* NULL: all on one line */
    tp_str *comma, *colon;
    bool    ascii, sorted;
} tp_json_style;
void     tp_json(tp_ctx *c, tp_buf *b, tp_value v, const tp_json_style *style);

/* template_format.c */
tp_value tp_percent(tp_ctx *c, tp_value format, tp_value args);            /* "%s" % args */
tp_value tp_format(tp_ctx *c, tp_value format, const tp_args *args);       /* "{}".format(args) */

/* template_ops.c */
tp_value tp_binary(tp_ctx *c, unsigned op, tp_value a, tp_value b);
tp_value tp_negate(tp_ctx *c, tp_value v);
tp_value tp_concat(tp_ctx *c, tp_value a, tp_value b); /* both T_STR */
tp_value tp_get_attr(tp_ctx *c, tp_value v, tp_str *name);
tp_value tp_get_item(tp_ctx *c, tp_value v, tp_value key);
tp_value tp_get_slice(tp_ctx *c, tp_value v, tp_value start, tp_value stop, tp_value step);

/* template_eval.c */
tp_value tp_eval(tp_ctx *c, const tp_node *n);
tp_args  tp_eval_args(tp_ctx *c, const tp_node *call);
tp_value tp_invoke(tp_ctx *c, const tp_builtin *fn, tp_value self, const tp_args *args);
tp_value tp_call_value(tp_ctx *c, tp_value callee, const tp_args *args);
tp_value tp_lookup(tp_ctx *c, tp_str *name);

/* template_exec.c */
void     tp_render(tp_ctx *c, const tp_node *body);
tp_value tp_call_macro(tp_ctx *c, tp_macro *m, const tp_args *args);
tp_value tp_call_loop(tp_ctx *c, tp_loop *l, const tp_args *args);
tp_value tp_loop_attr(tp_ctx *c, tp_loop *l, tp_str *name); /* T_MISSING: no such attribute */

/* Tables of built-ins; NULL when there is none of that name. */
const tp_builtin *tp_filter_find(const char *name, size_t len);
const tp_builtin *tp_text_filter_find(const char *name, size_t len); /* the part of them in template_filter_text.c */
const tp_builtin *tp_test_find(const char *name, size_t len);
const tp_builtin *tp_global_find(const char *name, size_t len);
const tp_builtin *tp_str_method(const char *name, size_t len);
const tp_builtin *tp_method_find(tp_value v, const char *name, size_t len);
const tp_builtin *tp_builtin_find(const tp_builtin *table, size_t n, const char *name, size_t len);

/* Arguments of built-ins, with a message naming the function when the type is wrong. */
int64_t tp_arg_int(tp_ctx *c, const tp_call *call, int i, int64_t otherwise);
bool    tp_arg_bool(tp_ctx *c, const tp_call *call, int i, bool otherwise);
tp_str *tp_arg_str(tp_ctx *c, const tp_call *call, int i, const char *otherwise);
/* Value of a dotted path ("a.b.0") or integer key, or the path's undefined. */
tp_value tp_get_path(tp_ctx *c, tp_value v, tp_value path);

/* template_json.c: members of a JSON object, as variables. Returns 0 or fills err. */
int tp_args_parse(tp_ctx *c, const char *json, size_t len, nj_error *err);

#endif
