/* Template text -> tokens, as Jinja2's lexer with trim_blocks and lstrip_blocks: a line break right after a block or
 * comment is dropped, blanks between the start of a line and a block or comment too, `-` at a tag's edge eats all
 * white space on its side, `+` switches lstrip off, one line break at the very end of the source is dropped. */
#include "engine/template.h"

#include <stdlib.h>

typedef struct lexer {
    tp_ctx *c;
    const char *p, *end;
    bool line_starting; /* the last piece ended with a line break */
} lexer;

static void push(lexer *x, tp_token t)
{
    tp_ctx *c = x->c;
    tp_tick(c, 1);
    if (c->tok_n == c->tok_cap) {
        size_t cap = c->tok_cap ? 2 * c->tok_cap : 256;
        c->tok = tp_grow(c, c->tok, c->tok_cap * sizeof t, cap * sizeof t);
        c->tok_cap = cap;
    }
    c->tok[c->tok_n++] = t;
}

static void push_kind(lexer *x, tp_tok kind)
{
    push(x, (tp_token){ .kind = kind, .line = x->c->line });
}

/* Moves on, counting lines. */
static void advance(lexer *x, const char *to)
{
    for (; x->p < to; x->p++) x->c->line += *x->p == '\n';
}

static const char *skip_space(const char *p, const char *end)
{
    size_t n;
    while (p < end && tp_is_space(tp_decode(p, end, &n))) p += n;
    return p;
}

static const char *strip_back(const char *start, const char *end)
{
    while (end > start) {
        const char *p = end - 1;
        size_t n;
        while (p > start && ((unsigned char)*p & 0xC0) == 0x80) p--;
        if (!tp_is_space(tp_decode(p, end, &n))) break;
        end = p;
    }
    return end;
}

static bool starts(const char *p, const char *end, const char *what)
{
    size_t n = strlen(what);
    return (size_t)(end - p) >= n && memcmp(p, what, n) == 0;
}

/* End of "%}" or "#}" and what it swallows, or NULL when `p` is not at one. */
static const char *tag_end(const char *p, const char *end, const char *close, bool plus)
{
    bool print = close[0] == '}';
    if (starts(p, end, "-") && starts(p + 1, end, close)) return skip_space(p + 3, end);
    if (plus && starts(p, end, "+") && starts(p + 1, end, close)) return p + 3;
    if (!starts(p, end, close)) return NULL;
    p += 2;
    return !print && p < end && *p == '\n' ? p + 1 : p;
}

/* Pushes the text before a tag whose sign is `sign` ('-', '+' or 0). */
static void push_data(lexer *x, const char *tag, char sign, bool print)
{
    const char *start = x->p, *stop = tag;
    if (sign == '-') {
        stop = strip_back(start, tag);
    } else if (sign != '+' && !print) {
        const char *line = tag;
        while (line > start && line[-1] != '\n') line--;
        if ((line > start || x->line_starting) && skip_space(line, tag) == tag) stop = line;
    }
    if (stop > start) {
        tp_value text = tp_text(x->c, start, (size_t)(stop - start));
        push(x, (tp_token){ .kind = TK_DATA, .line = x->c->line, .value = text });
    }
    advance(x, tag);
}

static char sign_at(const lexer *x, const char *p)
{
    return p < x->end && (*p == '-' || *p == '+') ? *p : 0;
}

/* Is this "{% raw %}" or "{% endraw %}" (word)? Returns the place behind the word, or NULL. */
static const char *keyword_tag(const lexer *x, const char *tag, const char *word)
{
    const char *p = tag + 2;
    if (sign_at(x, p)) p++;
    p = skip_space(p, x->end);
    return starts(p, x->end, word) ? skip_space(p + strlen(word), x->end) : NULL;
}

/* `body` lies behind "{% raw %}". */
static void lex_raw(lexer *x, const char *body)
{
    advance(x, body);
    for (const char *p = body; p + 1 < x->end; p++) {
        if (!starts(p, x->end, "{%")) continue;
        const char *close = keyword_tag(x, p, "endraw");
        tp_tick(x->c, 1 + (uint64_t)((close ? close : p) - p) / 64);
        const char *after = close ? tag_end(close, x->end, "%}", true) : NULL;
        if (!after) continue;
        push_data(x, p, sign_at(x, p + 2), false);
        advance(x, after);
        x->line_starting = after[-1] == '\n';
        return;
    }
    tp_fail(x->c, -EINVAL, "{%% raw %%} has no {%% endraw %%}");
}

static void lex_comment(lexer *x, const char *body)
{
    for (const char *p = body; p < x->end; p++) {
        if (*p != '#' && *p != '-' && *p != '+') continue;
        const char *after = tag_end(p, x->end, "#}", true);
        if (!after) continue;
        advance(x, after);
        x->line_starting = after[-1] == '\n';
        return;
    }
    tp_fail(x->c, -EINVAL, "a comment {# has no end #}");
}

/* ---- Inside a tag ---- */

/* Digits of `set` with single underscores between them. */
static const char *digits(const char *p, const char *end, const char *set)
{
    const char *start = p;
    while (p < end && ((*p && strchr(set, *p)) || (*p == '_' && p > start && p + 1 < end && strchr(set, p[1]) && p[1])))
        p++;
    return p;
}

static const char DECIMAL[] = "0123456789";

/* End of a float at p, or NULL: digits, then a fraction, an exponent or both. */
static const char *float_end(const char *p, const char *end)
{
    const char *q = digits(p, end, DECIMAL), *r;
    bool is_float = false;
    if (q == p) return NULL;
    if (q < end && *q == '.' && (r = digits(q + 1, end, DECIMAL)) > q + 1) {
        q = r;
        is_float = true;
    }
    if (q < end && (*q == 'e' || *q == 'E')) {
        const char *e = q + 1;
        if (e < end && (*e == '+' || *e == '-')) e++;
        if ((r = digits(e, end, DECIMAL)) > e) {
            q = r;
            is_float = true;
        }
    }
    return is_float ? q : NULL;
}

static void lex_number(lexer *x)
{
    static const struct {
        char letter;
        int base;
        const char *set;
    } PREFIX[] = { { 'b', 2, "01" }, { 'o', 8, "01234567" }, { 'x', 16, "0123456789abcdefABCDEF" } };
    const char *p = x->p, *start = p, *q = p[-1] == '.' ? NULL : float_end(p, x->end);
    tp_token t = { .kind = q ? TK_FLOAT : TK_INT, .line = x->c->line };
    int base = 10;
    if (!q) {
        q = *p == '0' ? digits(p, x->end, "0") : digits(p, x->end, DECIMAL);
        for (size_t i = 0; i < NJ_COUNT(PREFIX) && *p == '0' && p + 1 < x->end; i++) {
            const char *d = p + 2, *e;
            if ((p[1] | 0x20) != PREFIX[i].letter) continue;
            if (d < x->end && *d == '_') d++;
            if ((e = digits(d, x->end, PREFIX[i].set)) == d) continue;
            base = PREFIX[i].base;
            start = d;
            q = e;
        }
    }
    char text[400];
    size_t n = 0;
    for (const char *s = start; s < q; s++) {
        if (*s == '_') continue;
        if (n + 1 == sizeof text) tp_fail(x->c, -EINVAL, "a number is too long");
        text[n++] = *s;
    }
    text[n] = '\0';
    errno = 0;
    t.value = t.kind == TK_FLOAT ? tp_float(strtod(text, NULL)) : tp_int(strtoll(text, NULL, base));
    if (t.kind == TK_INT && errno == ERANGE) tp_fail(x->c, -EINVAL, "the number %.40s does not fit 64 bits", text);
    push(x, t);
    x->p = q;
}

/* \x41 \u0041 \U00000041 behind the letter; 0 digits read: not an escape. */
static int32_t hex_escape(lexer *x, const char **p, const char *end, int count)
{
    int32_t v = 0;
    for (int i = 0; i < count; i++, (*p)++) {
        char d = *p < end ? **p : 0;
        int k = d >= '0' && d <= '9' ? d - '0' : (d | 0x20) >= 'a' && (d | 0x20) <= 'f' ? (d | 0x20) - 'a' + 10 : -1;
        if (k < 0 || v > 0x10FFFF) tp_fail(x->c, -EINVAL, "a string has a broken \\x, \\u or \\U escape");
        v = v << 4 | k;
    }
    return v;
}

/* The character of an escape whose letter is at *p, moved behind it.
 * -1: the escape stands for nothing, -2: it is none. */
static int32_t escape_char(lexer *x, const char **p, const char *end)
{
    static const char FROM[] = "abfnrtv\\'\"", TO[] = "\a\b\f\n\r\t\v\\'\"";
    char letter = *(*p)++;
    const char *at = letter ? strchr(FROM, letter) : NULL;
    if (at) return TO[at - FROM];
    if (letter == '\n') return -1;
    if (letter >= '0' && letter <= '7') {
        int32_t v = letter - '0';
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++) v = v << 3 | (*(*p)++ - '0');
        return v;
    }
    if (letter == 'N') tp_fail(x->c, -EINVAL, "\\N{...} escapes are not supported");
    int count = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    if (!count) return -2;
    int32_t v = hex_escape(x, p, end, count);
    if (v >= 0xD800 && v < 0xDC00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u') {
        const char *q = *p + 2;
        int32_t low = hex_escape(x, &q, end, 4);
        if (low >= 0xDC00 && low < 0xE000) {
            *p = q;
            return 0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    if (v > 0x10FFFF || (v >= 0xD800 && v < 0xE000))
        tp_fail(x->c, -EINVAL, "a string has an escape that is not a Unicode character");
    return v;
}

static void lex_string(lexer *x)
{
    const char *p = x->p + 1, quote = *x->p;
    tp_token t = { .kind = TK_STRING, .line = x->c->line };
    bool plain = true;
    for (; p < x->end && *p != quote; p++)
        if (*p == '\\') {
            plain = false;
            if (++p == x->end) break;
        }
    if (p >= x->end) tp_fail(x->c, -EINVAL, "a string has no end (%c missing)", quote);
    const char *stop = p;
    if (plain) {
        t.value = tp_text(x->c, x->p + 1, (size_t)(stop - x->p - 1));
    } else {
        tp_buf b = { 0 };
        for (p = x->p + 1; p < stop;) {
            if (*p != '\\') {
                const char *q = memchr(p, '\\', (size_t)(stop - p));
                if (!q) q = stop;
                tp_put(x->c, &b, p, (size_t)(q - p));
                p = q;
                continue;
            }
            const char *letter = ++p;
            int32_t cp = escape_char(x, &p, stop);
            if (cp >= 0) {
                tp_putcp(x->c, &b, cp);
            } else if (cp == -2) { /* Python keeps the backslash of an unknown escape */
                tp_putc(x->c, &b, '\\');
                p = letter;
                size_t n;
                int32_t kept = tp_decode(p, stop, &n);
                tp_putcp(x->c, &b, kept);
                p += n;
            }
        }
        t.value = tp_done(x->c, &b);
    }
    push(x, t);
    advance(x, stop + 1);
}

/* Pushes the operator at x->p; brackets are checked against `open`, a stack of the closing ones expected. */
static void lex_operator(lexer *x, tp_buf *open)
{
    static const char TWO[][3] = { "//", "**", "==", "!=", ">=", "<=" };
    const char *p = x->p;
    tp_token t = { .kind = TK_OP, .line = x->c->line, .op = (unsigned char)*p };
    for (size_t i = 0; i < NJ_COUNT(TWO); i++)
        if (starts(p, x->end, TWO[i])) t.op = TP_OP(TWO[i][0], TWO[i][1]);
    size_t n = 1;
    int32_t cp = tp_decode(p, x->end, &n);
    if (t.op < 0x100 && (cp >= 0x80 || !*p || !strchr("+-/*%~[](){}><=.:|,;", *p)))
        tp_fail(x->c, -EINVAL, "unexpected character '%.*s'", (int)n, p);
    if (*p == '(' || *p == '[' || *p == '{') {
        tp_putc(x->c, open, *p == '(' ? ')' : (char)(*p + 2));
    } else if (*p == ')' || *p == ']' || *p == '}') {
        if (!open->len) tp_fail(x->c, -EINVAL, "unexpected '%c'", *p);
        char want = open->data[--open->len];
        if (want != *p) tp_fail(x->c, -EINVAL, "unexpected '%c', expected '%c'", *p, want);
    }
    push(x, t);
    x->p += t.op < 0x100 ? 1 : 2;
}

/* Tokens up to the end of a tag, which is `close`. */
static void lex_tag(lexer *x, const char *close)
{
    tp_buf open = { 0 };
    bool print = close[0] == '}';
    uint32_t line = x->c->line;
    while (x->p < x->end) {
        const char *after = open.len ? NULL : tag_end(x->p, x->end, close, !print);
        if (after) {
            push_kind(x, print ? TK_PRINT_END : TK_BLOCK_END);
            advance(x, after);
            x->line_starting = after[-1] == '\n';
            return;
        }
        size_t n;
        int32_t cp = tp_decode(x->p, x->end, &n);
        if (tp_is_space(cp)) {
            advance(x, x->p + n);
        } else if (cp >= '0' && cp <= '9') {
            lex_number(x);
        } else if (tp_is_name_char(cp)) {
            const char *start = x->p;
            for (; x->p < x->end && tp_is_name_char(tp_decode(x->p, x->end, &n)); x->p += n) tp_tick(x->c, 1);
            tp_value text = tp_text(x->c, start, (size_t)(x->p - start));
            push(x, (tp_token){ .kind = TK_NAME, .line = x->c->line, .value = text });
        } else if (cp == '\'' || cp == '"') {
            lex_string(x);
        } else {
            lex_operator(x, &open);
        }
    }
    x->c->line = line;
    tp_fail(x->c, -EINVAL, "a tag that begins here has no end (%s missing)", close);
}

/* A copy with \r\n and \r as \n, less one line break at the end. */
static void normalise(lexer *x, const char *source, size_t len)
{
    char *copy = tp_alloc(x->c, len + 1, 1), *q = copy;
    for (size_t i = 0; i < len; i++) {
        if (source[i] == '\r' && i + 1 < len && source[i + 1] == '\n') continue;
        *q++ = source[i] == '\r' ? '\n' : source[i];
    }
    if (q > copy && q[-1] == '\n') q--;
    x->p = copy;
    x->end = q;
}

void tp_lex(tp_ctx *c, const char *source, size_t len)
{
    lexer x = { .c = c, .line_starting = true };
    normalise(&x, source, len);
    while (x.p < x.end) {
        const char *tag = x.p;
        while (tag < x.end && !(*tag == '{' && tag + 1 < x.end && strchr("{%#", tag[1]) && tag[1])) tag++;
        if (tag == x.end) {
            push_data(&x, tag, '+', true);
            break;
        }
        bool print = tag[1] == '{';
        const char *raw = tag[1] == '%' ? keyword_tag(&x, tag, "raw") : NULL;
        const char *raw_body = raw && !starts(raw, x.end, "+") ? tag_end(raw, x.end, "%}", false) : NULL;
        if (raw_body && raw_body[-1] == '\n' && *raw != '-') raw_body--; /* raw keeps its first line break */
        char sign = sign_at(&x, tag + 2), kind = tag[1];
        push_data(&x, tag, sign, print);
        x.line_starting = false;
        if (raw_body) {
            lex_raw(&x, raw_body);
            continue;
        }
        x.p = tag + 2 + (sign != 0);
        if (kind == '#') {
            lex_comment(&x, x.p);
        } else {
            push_kind(&x, print ? TK_PRINT : TK_BLOCK);
            lex_tag(&x, print ? "}}" : "%}");
        }
    }
    push_kind(&x, TK_EOF);
}
