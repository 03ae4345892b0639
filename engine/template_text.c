/* Text as code points: counting, slicing, case, classes, and the splitting and replacing that methods and filters
 * share. */
#include "engine/template.h"

#include <utf8proc.h>

int32_t tp_decode(const char *p, const char *end, size_t *len)
{
    const unsigned char *s = (const unsigned char *)p;
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (n > (size_t)(end - p)) n = (size_t)(end - p);
    *len = n;
    if (n == 1) return s[0];
    int32_t cp = s[0] & (0x7F >> n);
    for (size_t i = 1; i < n; i++) cp = cp << 6 | (s[i] & 0x3F);
    return cp;
}

/* str.isspace() of one character. */
bool tp_is_space(int32_t cp)
{
    if (cp < 0x80) return (cp >= 9 && cp <= 13) || (cp >= 28 && cp <= 32);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool tp_is_name_char(int32_t cp)
{
    if (cp < 0x80) return cp == '_' || (cp >= '0' && cp <= '9') || ((cp | 0x20) >= 'a' && (cp | 0x20) <= 'z');
    utf8proc_category_t k = utf8proc_category(cp);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO) || k == UTF8PROC_CATEGORY_PC;
}

bool tp_is_printable(int32_t cp)
{
    if (cp < 0x80) return cp >= 0x20 && cp < 0x7F;
    utf8proc_category_t k = utf8proc_category(cp);
    return k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS; /* not separators, controls, formats, surrogates */
}

size_t tp_utf8_valid(const char *s, size_t len)
{
    utf8proc_int32_t cp;
    size_t i = 0;
    while (i < len) {
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(len - i), &cp);
        if (n <= 0) break;
        i += (size_t)n;
    }
    return i;
}

uint32_t tp_chars(tp_ctx *c, tp_str *s)
{
    if (s->chars != UINT32_MAX) return s->chars;
    tp_tick(c, s->len / 32);
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->len; i++) n += ((unsigned char)s->data[i] & 0xC0) != 0x80;
    return s->chars = n;
}

size_t tp_byte_at(tp_ctx *c, tp_str *s, int64_t chars)
{
    if (tp_chars(c, s) == s->len) return (size_t)chars;
    size_t at = 0;
    for (; chars > 0; chars--) {
        at++;
        while (at < s->len && ((unsigned char)s->data[at] & 0xC0) == 0x80) at++;
    }
    tp_tick(c, at / 16);
    return at;
}

tp_value tp_substr(tp_ctx *c, tp_value of, size_t from, size_t to)
{
    tp_value part = tp_text(c, of.s->data + from, to - from);
    if (of.s->chars == of.s->len) part.s->chars = part.s->len; /* a part of ASCII text is ASCII */
    part.aux = of.aux;
    return part;
}

/* `count` characters from `start`, `step` apart; the caller has clipped all of them to the string. */
tp_value tp_slice_str(tp_ctx *c, tp_value v, int64_t start, int64_t stop, int64_t step, int64_t count)
{
    if (step == 1)
        return tp_substr(c, v, tp_byte_at(c, v.s, start), count ? tp_byte_at(c, v.s, stop) : tp_byte_at(c, v.s, start));
    tp_buf b = { 0 };
    bool ascii = tp_chars(c, v.s) == v.s->len;
    size_t at = count ? tp_byte_at(c, v.s, start) : 0, n;
    for (int64_t i = 0; i < count; i++) {
        tp_decode(v.s->data + at, v.s->data + v.s->len, &n);
        tp_put(c, &b, v.s->data + at, n);
        if (i + 1 == count) break;
        tp_tick(c, 1 + (ascii ? 0 : (uint64_t)(step < 0 ? -step : step) / 16));
        if (ascii) {
            at = (size_t)((int64_t)at + step);
            continue;
        }
        for (int64_t k = step; k > 0; k--) do
                at++;
            while (((unsigned char)v.s->data[at] & 0xC0) == 0x80);
        for (int64_t k = step; k < 0; k++) do
                at--;
            while (((unsigned char)v.s->data[at] & 0xC0) == 0x80);
    }
    tp_value r = tp_done(c, &b);
    r.aux = v.aux;
    return r;
}

/* ---- Case ---- */

/* Upper case of more than one character, and what title case makes of it (Unicode SpecialCasing). */
// clang-format off
static const struct { int32_t cp; const char *upper, *title; } LONG_UPPER[] = {
    { 0xDF, "SS", "Ss" },        { 0x149, "\u02BCN", "\u02BCN" }, { 0x1F0, "J\u030C", "J\u030C" },
    { 0x390, "\u0399\u0308\u0301", "\u0399\u0308\u0301" },     { 0x3B0, "\u03A5\u0308\u0301", "\u03A5\u0308\u0301" },
    { 0x587, "\u0535\u0552", "\u0535\u0582" },                   { 0x1E96, "H\u0331", "H\u0331" },
    { 0x1E97, "T\u0308", "T\u0308" }, { 0x1E98, "W\u030A", "W\u030A" }, { 0x1E99, "Y\u030A", "Y\u030A" },
    { 0x1E9A, "A\u02BE", "A\u02BE" }, { 0xFB00, "FF", "Ff" }, { 0xFB01, "FI", "Fi" }, { 0xFB02, "FL", "Fl" },
    { 0xFB03, "FFI", "Ffi" }, { 0xFB04, "FFL", "Ffl" }, { 0xFB05, "ST", "St" }, { 0xFB06, "ST", "St" },
};
// clang-format on

static bool is_cased(int32_t cp)
{
    utf8proc_category_t k = utf8proc_category(cp);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

static void put_upper(tp_ctx *c, tp_buf *b, int32_t cp, bool title)
{
    for (size_t i = 0; cp >= 0xDF && i < NJ_COUNT(LONG_UPPER); i++)
        if (LONG_UPPER[i].cp == cp) {
            tp_puts(c, b, title ? LONG_UPPER[i].title : LONG_UPPER[i].upper);
            return;
        }
    tp_putcp(c, b, title ? utf8proc_totitle(cp) : utf8proc_toupper(cp));
}

/* A sigma at the end of a word is written differently: letters before it, none after it. */
static bool final_sigma(const char *start, const char *at, const char *end)
{
    size_t n;
    if (at == start) return false;
    const char *p = at;
    do p--;
    while (p > start && ((unsigned char)*p & 0xC0) == 0x80);
    if (!is_cased(tp_decode(p, end, &n))) return false;
    p = at + 2;
    return p >= end || !is_cased(tp_decode(p, end, &n));
}

static void put_lower(tp_ctx *c, tp_buf *b, const char *start, const char *at, const char *end, int32_t cp)
{
    if (cp == 0x130) {
        tp_puts(c, b, "i\u0307");
    } else if (cp == 0x3A3) {
        tp_putcp(c, b, final_sigma(start, at, end) ? 0x3C2 : 0x3C3);
    } else {
        tp_putcp(c, b, utf8proc_tolower(cp));
    }
}

tp_value tp_case(tp_ctx *c, tp_value s, char how)
{
    tp_buf b = { 0 };
    const char *start = s.s->data, *end = start + s.s->len;
    bool inside = false; /* of a word: behind a cased letter, or for 'j' not behind a separator */
    size_t n;
    for (const char *p = start; p < end; p += n) {
        int32_t cp = tp_decode(p, end, &n);
        bool upper = how == 'u' || (how != 'l' && how != 's' && how != 'f' && !inside);
        if (how == 's') upper = utf8proc_category(cp) == UTF8PROC_CATEGORY_LL;
        tp_tick(c, 2);
        if (how == 'f') { /* casefold() */
            utf8proc_int32_t folded[8];
            utf8proc_ssize_t count = utf8proc_decompose_char(cp, folded, NJ_COUNT(folded), UTF8PROC_CASEFOLD, NULL);
            for (utf8proc_ssize_t i = 0; i < count; i++) tp_putcp(c, &b, folded[i]);
        } else if (upper)
            put_upper(c, &b, cp, how == 't' || how == 'c');
        else if (how == 's' && utf8proc_category(cp) != UTF8PROC_CATEGORY_LU)
            tp_put(c, &b, p, n);
        else
            put_lower(c, &b, start, p, end, cp);
        inside = how == 't'   ? is_cased(cp)
                 : how == 'j' ? !(tp_is_space(cp) || (cp < 0x80 && cp && strchr("-({[<", cp)))
                              : true;
    }
    tp_value r = tp_done(c, &b);
    r.aux = s.aux;
    return r;
}

tp_value tp_fold(tp_ctx *c, tp_value v)
{
    return v.type == T_STR ? tp_case(c, v, 'l') : v;
}

/* ---- Classes ---- */

static bool is_digit_like(int32_t cp) /* superscripts and circled digits: isdigit(), not isdecimal() */
{
    return cp == 0xB2 || cp == 0xB3 || cp == 0xB9 || cp == 0x2070 || (cp >= 0x2074 && cp <= 0x2079) ||
           (cp >= 0x2080 && cp <= 0x2089) || (cp >= 0x2460 && cp <= 0x2468);
}

static bool in_class(int32_t cp, char which)
{
    utf8proc_category_t k = utf8proc_category(cp);
    bool alpha = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO, decimal = k == UTF8PROC_CATEGORY_ND;
    switch (which) {
    case 'a': return alpha;
    case 'd': return decimal || is_digit_like(cp);
    case 'D': return decimal;
    case 'n': return decimal || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
    case 'A': return alpha || decimal || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
    case 's': return tp_is_space(cp);
    case 'i':
        return alpha || decimal || cp == '_' || k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC ||
               k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_PC;
    default: return cp < 0x80;
    }
}

/* islower, isupper and istitle: at least one cased letter and none of the wrong kind. */
static bool cased_as(tp_ctx *c, tp_str *s, char how)
{
    const char *end = s->data + s->len;
    bool any = false, inside = false;
    size_t n;
    for (const char *p = s->data; p < end; p += n) {
        utf8proc_category_t k = utf8proc_category(tp_decode(p, end, &n));
        bool low = k == UTF8PROC_CATEGORY_LL, cap = k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LT;
        tp_tick(c, 1);
        if ((how == 'l' && cap) || (how == 'u' && (low || k == UTF8PROC_CATEGORY_LT))) return false;
        if (how == 't' && ((inside && cap) || (!inside && low))) return false;
        inside = low || cap;
        any |= inside;
    }
    return any;
}

bool tp_is_class(tp_ctx *c, tp_str *s, const char *which)
{
    // clang-format off
    static const struct { const char *name; char letter; } CLASSES[] = {
        { "isalpha", 'a' }, { "isdigit", 'd' }, { "isdecimal", 'D' }, { "isnumeric", 'n' }, { "isalnum", 'A' },
        { "isspace", 's' }, { "isidentifier", 'i' }, { "isascii", '7' } };
    // clang-format on
    if (strcmp(which, "islower") == 0) return cased_as(c, s, 'l');
    if (strcmp(which, "isupper") == 0) return cased_as(c, s, 'u');
    if (strcmp(which, "istitle") == 0) return cased_as(c, s, 't');
    char letter = 0;
    for (size_t i = 0; i < NJ_COUNT(CLASSES); i++)
        if (strcmp(which, CLASSES[i].name) == 0) letter = CLASSES[i].letter;
    const char *end = s->data + s->len;
    size_t n;
    if (!s->len) return letter == '7';
    for (const char *p = s->data; p < end; p += n) {
        int32_t cp = tp_decode(p, end, &n);
        tp_tick(c, 2);
        if (!in_class(cp, letter)) return false;
        if (letter == 'i' && p == s->data && !in_class(cp, 'a') && cp != '_') return false;
    }
    return true;
}

/* ---- Searching, stripping, splitting, replacing ---- */

int64_t tp_find(tp_ctx *c, const char *hay, size_t hay_len, const char *needle, size_t len)
{
    tp_tick(c, 1);
    if (len == 0) return 0;
    const char *at = memmem(hay, hay_len, needle, len);
    /* memmem preprocesses a long needle, and compares up to 256 bytes of a short one at many places. */
    size_t seen = at ? (size_t)(at - hay) : hay_len;
    tp_tick(c, seen / 32 * (1 + (len < 256 ? len : 256) / 32) + len / 32);
    return at ? at - hay : -1;
}

/* Compares at every place from the end; the steps counted are the bytes that could have been compared. */
int64_t tp_rfind(tp_ctx *c, const char *hay, size_t hay_len, const char *needle, size_t len)
{
    if (len > hay_len) return -1;
    for (size_t at = hay_len - len + 1; at-- > 0;) {
        tp_tick(c, 1 + (len && hay[at] == needle[0] ? len / 32 : 0));
        if (len == 0 || (hay[at] == needle[0] && memcmp(hay + at, needle, len) == 0)) return (int64_t)at;
    }
    return -1;
}

/* Is the character at p (of *n bytes) one to strip? */
static bool strips(const char *p, const char *end, size_t *len, tp_value chars)
{
    int32_t cp = tp_decode(p, end, len);
    size_t n = *len;
    if (chars.type != T_STR) return tp_is_space(cp);
    return n == 1 ? memchr(chars.s->data, *p, chars.s->len) != NULL
                  : memmem(chars.s->data, chars.s->len, p, n) != NULL; /* UTF-8: can't match inside a character */
}

tp_value tp_strip(tp_ctx *c, tp_value s, tp_value chars, bool left, bool right)
{
    const char *start = s.s->data, *p = start, *end = start + s.s->len;
    size_t n = 1, cost = chars.type == T_STR ? chars.s->len / 32 : 0;
    while (left && p < end && strips(p, end, &n, chars)) {
        tp_tick(c, 1 + cost);
        p += n;
    }
    while (right && end > p) {
        const char *q = end;
        do q--;
        while (q > p && ((unsigned char)*q & 0xC0) == 0x80);
        if (!strips(q, end, &n, chars)) break;
        tp_tick(c, 1 + cost);
        end = q;
    }
    return tp_substr(c, s, (size_t)(p - start), (size_t)(end - start));
}

/* Words between runs of white space. max < 0: no limit. */
static tp_list *split_words(tp_ctx *c, tp_value s, int64_t max)
{
    tp_list *l = tp_list_new(c, 0);
    const char *start = s.s->data, *p = start, *end = start + s.s->len;
    size_t n = 0;
    for (;;) {
        for (; p < end && tp_is_space(tp_decode(p, end, &n)); p += n) tp_tick(c, 1);
        if (p == end) return l;
        const char *word = p;
        if (max >= 0 && l->n == max) {
            tp_list_push(c, l, tp_substr(c, s, (size_t)(p - start), s.s->len)); /* with what blanks it ends in */
            return l;
        }
        for (; p < end && !tp_is_space(tp_decode(p, end, &n)); p += n) tp_tick(c, 1);
        tp_list_push(c, l, tp_substr(c, s, (size_t)(word - start), (size_t)(p - start)));
    }
}

static void reverse_list(tp_list *l)
{
    for (uint32_t i = 0; i < l->n / 2; i++) {
        tp_value swap = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = swap;
    }
}

/* rsplit() with a limit: pieces from the right. sep None: white space; `s` then loses what it ends in. */
static tp_list *split_right(tp_ctx *c, tp_value s, tp_value sep, int64_t max)
{
    tp_list *l = tp_list_new(c, 0);
    size_t end = s.s->len;
    if (sep.type != T_STR) s = tp_strip(c, s, sep, false, true), end = s.s->len;
    while (l->n < max && (sep.type == T_STR || end > 0)) {
        size_t at = end, next = 0;
        int64_t found;
        if (sep.type == T_STR) {
            found = tp_rfind(c, s.s->data, end, sep.s->data, sep.s->len);
            if (found < 0) break;
            at = (size_t)found + sep.s->len;
            next = (size_t)found;
        } else {
            size_t n;
            while (at > 0) {
                size_t q = at;
                do q--;
                while (q > 0 && ((unsigned char)s.s->data[q] & 0xC0) == 0x80);
                if (tp_is_space(tp_decode(s.s->data + q, s.s->data + end, &n))) break;
                tp_tick(c, 1);
                at = q;
            }
            next = tp_strip(c, tp_substr(c, s, 0, at), sep, false, true).s->len;
        }
        tp_list_push(c, l, tp_substr(c, s, at, end));
        end = next;
    }
    if (sep.type == T_STR || end > 0) tp_list_push(c, l, tp_substr(c, s, 0, end));
    reverse_list(l);
    return l;
}

tp_value tp_split(tp_ctx *c, tp_value s, tp_value sep, int64_t max, bool from_right)
{
    if (sep.type == T_STR && !sep.s->len) tp_fail(c, -EINVAL, "split() needs a separator that is not empty");
    if (from_right && max >= 0) return tp_of_list(T_LIST, split_right(c, s, sep, max));
    if (sep.type != T_STR) return tp_of_list(T_LIST, split_words(c, s, max));
    tp_list *l = tp_list_new(c, 0);
    size_t at = 0;
    for (int64_t found; max < 0 || l->n < max; at += (size_t)found + sep.s->len) {
        found = tp_find(c, s.s->data + at, s.s->len - at, sep.s->data, sep.s->len);
        if (found < 0) break;
        tp_list_push(c, l, tp_substr(c, s, at, at + (size_t)found));
    }
    tp_list_push(c, l, tp_substr(c, s, at, s.s->len));
    return tp_of_list(T_LIST, l);
}

tp_list *tp_split_lines(tp_ctx *c, tp_value s, bool keep_ends)
{
    tp_list *l = tp_list_new(c, 0);
    const char *start = s.s->data, *line = start, *end = start + s.s->len;
    size_t n;
    for (const char *p = start; p < end; p += n) {
        int32_t cp = tp_decode(p, end, &n);
        tp_tick(c, 1);
        bool breaks = (cp >= 10 && cp <= 13) || (cp >= 28 && cp <= 30) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
        if (!breaks) continue;
        if (cp == '\r' && p + 1 < end && p[1] == '\n') n = 2;
        tp_list_push(c, l, tp_substr(c, s, (size_t)(line - start), (size_t)(p - start) + (keep_ends ? n : 0)));
        line = p + n;
    }
    if (line < end) tp_list_push(c, l, tp_substr(c, s, (size_t)(line - start), s.s->len));
    return l;
}

tp_value tp_replace(tp_ctx *c, tp_value s, tp_str *from, tp_str *to, int64_t max)
{
    tp_buf b = { 0 };
    const char *p = s.s->data, *end = p + s.s->len;
    size_t n;
    for (int64_t count = 0; max < 0 || count < max; count++) {
        int64_t at = from->len ? tp_find(c, p, (size_t)(end - p), from->data, from->len) : 0;
        if (at < 0) break;
        tp_put(c, &b, p, (size_t)at);
        tp_put_str(c, &b, to);
        tp_tick(c, 1);
        p += (size_t)at + from->len;
        if (from->len) continue;
        if (p == end) break; /* an empty `from` matches between all characters and at both ends */
        tp_decode(p, end, &n);
        tp_put(c, &b, p, n);
        p += n;
    }
    tp_put(c, &b, p, (size_t)(end - p));
    tp_value r = tp_done(c, &b);
    r.aux = s.aux;
    return r;
}

tp_value tp_escape(tp_ctx *c, tp_value v)
{
    tp_value s = v.type == T_STR ? v : tp_to_str(c, v);
    if (v.type == T_STR && v.aux) return v;
    tp_buf b = { 0 };
    for (uint32_t i = 0; i < s.s->len; i++) {
        char ch = s.s->data[i];
        tp_tick(c, 1);
        if (ch == '&')
            tp_puts(c, &b, "&amp;");
        else if (ch == '<')
            tp_puts(c, &b, "&lt;");
        else if (ch == '>')
            tp_puts(c, &b, "&gt;");
        else if (ch == '"')
            tp_puts(c, &b, "&#34;");
        else if (ch == '\'')
            tp_puts(c, &b, "&#39;");
        else
            tp_putc(c, &b, ch);
    }
    tp_value r = tp_done(c, &b);
    r.aux = 1;
    return r;
}
