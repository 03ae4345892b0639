#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "appliance/text.h"

/* RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF. */
size_t nj_text_char(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    if (len == 0) return 0;
    if (s[0] < 0x80) return 1;
    size_t n = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > len) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f)) return 0;
    if ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) return 0;
    return n;
}

static void escape_one(nj_buf *out, unsigned char c)
{
    if (c == '\n')
        nj_buf_str(out, "\\n");
    else if (c == '\t')
        nj_buf_str(out, "\\t");
    else if (c == '\r')
        nj_buf_str(out, "\\r");
    else
        nj_buf_printf(out, "\\x%02x", c);
}

static void escape(nj_buf *out, const char *text, size_t len, size_t bytes_max, bool quoted)
{
    size_t shown = bytes_max && len > bytes_max ? bytes_max : len, i = 0;
    while (i < shown) {
        size_t n = nj_text_char(text + i, len - i);
        /* U+0080 to U+009F are control characters too, two bytes beginning with 0xc2. */
        bool control = n == 0 || (n == 1 && ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)) ||
                       (n == 2 && (unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0);
        if (n > 1 && i + n > shown) break;
        if (quoted && (text[i] == '"' || text[i] == '\\')) nj_buf_char(out, '\\');
        if (!control)
            nj_buf_add(out, text + i, n);
        else
            for (size_t k = 0; k < (n ? n : 1); k++) escape_one(out, (unsigned char)text[i + k]);
        i += n ? n : 1;
    }
    if (i < len) nj_buf_str(out, "...");
}

void nj_text_escape(nj_buf *out, const char *text, size_t len, size_t bytes_max)
{
    escape(out, text, len, bytes_max, false);
}

void nj_text_quote(nj_buf *out, const char *text, size_t len, size_t bytes_max)
{
    nj_buf_char(out, '"');
    escape(out, text, len, bytes_max, true);
    nj_buf_char(out, '"');
}

json_t *nj_text_json(const char *text, size_t len)
{
    json_t *whole = json_stringn(text, len); /* refuses invalid UTF-8 */
    if (whole) return whole;
    nj_buf valid = { 0 };
    for (size_t i = 0; i < len;) {
        size_t n = nj_text_char(text + i, len - i);
        if (n)
            nj_buf_add(&valid, text + i, n);
        else
            nj_buf_str(&valid, "\xef\xbf\xbd");
        i += n ? n : 1;
    }
    json_t *string = valid.failed ? NULL : json_stringn(valid.data ? valid.data : "", valid.len);
    nj_buf_free(&valid);
    return string;
}

int nj_text_json_print(json_t *document, nj_error *err)
{
    if (!document) return nj_fail(err, -ENOMEM, "There is no memory for the JSON text.");
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    putchar('\n'); /* a write that fails is reported at the end of main */
    json_decref(document);
    return 0;
}
