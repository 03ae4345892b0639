/* The text of an answer. See answer.h. */
#include "engine/answer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

/* One stop string and how much of it the text ends with (Knuth, Morris, Pratt 1977): each byte costs amortised O(1),
 * and `matched` grows by at most one per byte, so the held-back part never reaches back before what was given out. */
struct nj_stop_matcher {
    char *text;
    size_t *fallback; /* [len], longest proper border of text[0..i] */
    size_t len, matched;
};

static int matcher_init(nj_stop_matcher *m, const char *stop, nj_error *err)
{
    size_t len = strlen(stop);
    if (!len) return nj_fail(err, -EINVAL, "A stop string is empty.");
    for (size_t at = 0; at < len;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)stop + at, (utf8proc_ssize_t)(len - at), &c);
        if (n <= 0) return nj_fail(err, -EINVAL, "A stop string is not valid UTF-8.");
        at += (size_t)n;
    }
    m->text = strdup(stop);
    m->fallback = nj_array_new(len, sizeof *m->fallback);
    if (!m->text || !m->fallback) return nj_fail(err, -ENOMEM, "No memory for a stop string.");
    m->len = len;
    for (size_t i = 1, k = 0; i < len; i++) {
        while (k && stop[i] != stop[k]) k = m->fallback[k - 1];
        if (stop[i] == stop[k]) k++;
        m->fallback[i] = k;
    }
    return 0;
}

static void matcher_step(nj_stop_matcher *m, char c)
{
    while (m->matched && m->text[m->matched] != c) m->matched = m->fallback[m->matched - 1];
    if (m->text[m->matched] == c) m->matched++;
}

int nj_answer_init(nj_answer *a, const char *const *stop, size_t stop_count, nj_error *err)
{
    int rc = 0;
    *a = (nj_answer){ 0 };
    nj_buf_str(&a->text, "");
    if (stop_count) a->stop = nj_array_new(stop_count, sizeof *a->stop);
    if (a->text.failed || (stop_count && !a->stop)) rc = nj_fail(err, -ENOMEM, "No memory for an answer.");
    for (size_t i = 0; i < stop_count && !rc; i++) {
        a->stop_count = i + 1;
        rc = matcher_init(&a->stop[i], stop[i], err);
    }
    if (rc) nj_answer_free(a);
    return rc;
}

void nj_answer_free(nj_answer *a)
{
    for (size_t i = 0; i < a->stop_count; i++) {
        free(a->stop[i].text);
        free(a->stop[i].fallback);
    }
    free(a->stop);
    nj_buf_free(&a->text);
    *a = (nj_answer){ 0 };
}

/* One byte of valid UTF-8. The held-back bytes are the beginning of a stop string, so they need no copy. */
static void push(nj_answer *a, char c)
{
    if (a->stopped) return;
    size_t held = 0, held_stop = 0;
    for (size_t i = 0; i < a->stop_count; i++) {
        nj_stop_matcher *m = &a->stop[i];
        matcher_step(m, c);
        bool done = m->matched == m->len;
        if (done ? !a->stopped || m->len > held : !a->stopped && m->matched > held) {
            held = m->matched;
            held_stop = i;
        }
        if (done) {
            a->stopped = true;
            m->matched = m->fallback[m->len - 1]; /* text[len] is no character to compare with */
        }
    }
    size_t release = a->held + 1 - held;
    if (release > a->held) {
        if (a->held) nj_buf_add(&a->text, a->stop[a->held_stop].text, a->held);
        nj_buf_char(&a->text, c);
    } else if (release) {
        nj_buf_add(&a->text, a->stop[a->held_stop].text, release);
    }
    a->held = a->stopped ? 0 : held;
    a->held_stop = held_stop;
}

static void push_replacement(nj_answer *a)
{
    for (const char *c = "\xEF\xBF\xBD"; *c; c++) push(a, *c);
}

/* May `c` follow the bytes of the character in partial[]? Table 3-7 of the Unicode standard. */
static bool continues(const nj_answer *a, unsigned char c)
{
    unsigned char lead = a->partial[0];
    if (a->partial_len > 1) return c >= 0x80 && c <= 0xBF;
    return c >= (lead == 0xE0   ? 0xA0
                 : lead == 0xF0 ? 0x90
                                : 0x80) &&
           c <= (lead == 0xED   ? 0x9F
                 : lead == 0xF4 ? 0x8F
                                : 0xBF);
}

static unsigned char_len(unsigned char lead)
{
    if (lead < 0x80) return 1;
    if (lead >= 0xC2 && lead <= 0xDF) return 2;
    if (lead >= 0xE0 && lead <= 0xEF) return 3;
    return lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
}

/* Any byte: whole characters go on, and each longest beginning of one that is broken off becomes one U+FFFD, as
 * browsers and the Unicode standard (3.9, "substitution of maximal subparts") have it. */
static void decode(nj_answer *a, unsigned char c)
{
    if (a->partial_len && !continues(a, c)) {
        a->partial_len = 0;
        push_replacement(a);
    }
    if (!a->partial_len && !char_len(c)) {
        push_replacement(a);
        return;
    }
    a->partial[a->partial_len++] = c;
    if (a->partial_len < char_len(a->partial[0])) return;
    for (unsigned i = 0; i < a->partial_len; i++) push(a, (char)a->partial[i]);
    a->partial_len = 0;
}

int nj_answer_add(nj_answer *a, const char *bytes, size_t len)
{
    a->raw_bytes += len;
    for (size_t i = 0; i < len && !a->stopped; i++) decode(a, (unsigned char)bytes[i]);
    return a->text.failed;
}

int nj_answer_end(nj_answer *a)
{
    if (a->partial_len) push_replacement(a);
    a->partial_len = 0;
    if (a->held) nj_buf_add(&a->text, a->stop[a->held_stop].text, a->held);
    a->held = 0;
    return a->text.failed;
}
