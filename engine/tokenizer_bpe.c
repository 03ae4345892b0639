/* The merge loop of both tokenizer models, and byte-level BPE on top of it.
 *
 * A piece starts as a chain of symbols (bytes or characters). The pair of neighbours that comes first (lowest rank,
 * then leftmost) is merged until none is left. A heap holds the candidates; one that has become outdated is recognised
 * when it is taken, so that a piece of n symbols costs n log n whatever it contains. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/tokenizer.h"

/* Characters below this one are in normal form C whatever stands before or after them. */
enum { FIRST_NOT_NFC = 0x300 };
/* Combining marks in a row that are sorted together: utf8proc's sort is quadratic in it. Unicode's Stream-Safe Text
 * Format allows 30. */
enum { MARKS_MAX = 256 };

int nj_encoder_put(nj_encoder *e, int32_t id)
{
    nj_tokens *o = e->out;
    if (o->len == o->cap && nj_array_grow(&o->id, &o->cap, o->len + 1, sizeof *o->id))
        return nj_fail(e->err, -ENOMEM, "No memory for %zu tokens.", o->len + 1);
    o->id[o->len++] = id;
    return 0;
}

int nj_encoder_symbols(nj_encoder *e, size_t n)
{
    if (nj_array_grow(&e->symbol, &e->symbol_cap, n, sizeof *e->symbol))
        return nj_fail(e->err, -ENOMEM, "No memory to tokenize a piece of %zu characters.", n);
    for (size_t i = 0; i < n; i++) {
        e->symbol[i].prev = i ? (uint32_t)i - 1 : NJ_NO_SYMBOL;
        e->symbol[i].next = i + 1 < n ? (uint32_t)i + 1 : NJ_NO_SYMBOL;
    }
    return 0;
}

int nj_encoder_piece(nj_encoder *e, const char *text, size_t len, nj_piece_fn *fn)
{
    if (!e->seen || len > sizeof e->seen->text) return fn(e, text, len);
    nj_seen *s = &e->seen[nj_vocab_hash(e->t, text, len) & e->seen_mask];
    if (s->len == len && memcmp(s->text, text, len) == 0) {
        int rc = 0;
        for (int i = 0; i < s->ids && !rc; i++) rc = nj_encoder_put(e, s->id[i]);
        return rc;
    }
    size_t before = e->out->len;
    int rc = fn(e, text, len);
    size_t ids = e->out->len - before;
    if (rc || ids > NJ_COUNT(s->id)) return rc;
    s->len = (uint8_t)len;
    s->ids = (uint8_t)ids;
    memcpy(s->text, text, len);
    memcpy(s->id, e->out->id + before, ids * sizeof *s->id);
    return 0;
}

/* ---- A binary heap of candidates, first to merge on top ---- */

static bool goes_before(const nj_candidate *a, const nj_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static void sift_down(nj_candidate *heap, size_t len, size_t at)
{
    nj_candidate moved = heap[at];
    for (size_t child; (child = 2 * at + 1) < len; at = child) {
        if (child + 1 < len && goes_before(&heap[child + 1], &heap[child])) child++;
        if (!goes_before(&heap[child], &moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static int heap_add(nj_encoder *e, const nj_candidate *c)
{
    if (e->heap_len == e->heap_cap && nj_array_grow(&e->heap, &e->heap_cap, e->heap_len + 1, sizeof *e->heap))
        return nj_fail(e->err, -ENOMEM, "No memory for %zu merge candidates.", e->heap_len + 1);
    size_t at = e->heap_len++;
    for (; at && goes_before(c, &e->heap[(at - 1) / 2]); at = (at - 1) / 2) e->heap[at] = e->heap[(at - 1) / 2];
    e->heap[at] = *c;
    return 0;
}

static nj_candidate heap_take(nj_encoder *e)
{
    nj_candidate first = e->heap[0];
    e->heap[0] = e->heap[--e->heap_len];
    if (e->heap_len) sift_down(e->heap, e->heap_len, 0);
    return first;
}

/* ---- Merging ---- */

static int consider(nj_encoder *e, const char *text, uint32_t left, nj_pair_fn *pair)
{
    if (left == NJ_NO_SYMBOL || e->symbol[left].next == NJ_NO_SYMBOL) return 0;
    const nj_symbol *l = &e->symbol[left], *r = &e->symbol[l->next];
    nj_candidate c = { .left = left, .len = l->len + r->len };
    return pair(e->t, text, l, r, &c) ? heap_add(e, &c) : 0;
}

int nj_encoder_merge(nj_encoder *e, const char *text, uint32_t n, nj_pair_fn *pair)
{
    int rc = 0;
    e->heap_len = 0;
    for (uint32_t i = 0; i + 1 < n && !rc; i++) rc = consider(e, text, i, pair);
    while (e->heap_len && !rc) {
        nj_candidate c = heap_take(e);
        nj_symbol *l = &e->symbol[c.left];
        if (l->len == 0 || l->next == NJ_NO_SYMBOL) continue;
        nj_symbol *r = &e->symbol[l->next];
        /* Symbols only grow, and a swallowed neighbour counts in full: equal sums mean the same two symbols. */
        if (l->len + r->len != c.len) continue;
        l->len = c.len;
        l->id = c.id;
        l->next = r->next;
        r->len = 0;
        if (l->next != NJ_NO_SYMBOL) e->symbol[l->next].prev = c.left;
        rc = consider(e, text, l->prev, pair);
        if (!rc) rc = consider(e, text, c.left, pair);
    }
    return rc;
}

/* ---- Byte-level BPE ---- */

static bool bpe_pair(const nj_tokenizer *t, const char *text, const nj_symbol *left, const nj_symbol *right,
                     nj_candidate *out)
{
    (void)text;
    const nj_pair_slot *p = nj_vocab_pair(t, left->id, right->id);
    if (!p) return false;
    out->rank = p->rank;
    out->id = p->id;
    return true;
}

static int merge_bytes(nj_encoder *e, const char *text, size_t len)
{
    const nj_tokenizer *t = e->t;
    if (t->ignore_merges) {
        int32_t id = nj_vocab_find(t, text, len);
        if (id >= 0) return nj_encoder_put(e, id);
    }
    int rc = nj_encoder_symbols(e, len);
    if (rc) return rc;
    for (size_t i = 0; i < len; i++) {
        nj_symbol *s = &e->symbol[i];
        s->start = (uint32_t)i;
        s->len = 1;
        s->id = t->byte_id[(uint8_t)text[i]];
        if (s->id < 0)
            return nj_fail(e->err, -EILSEQ, "The vocabulary has no token for byte 0x%02x and none to stand in for it.",
                           (uint8_t)text[i]);
    }
    if ((rc = nj_encoder_merge(e, text, (uint32_t)len, bpe_pair)) != 0) return rc;
    for (uint32_t i = 0; i != NJ_NO_SYMBOL && !rc; i = e->symbol[i].next) rc = nj_encoder_put(e, e->symbol[i].id);
    return rc;
}

static int bpe_piece(nj_encoder *e, const char *text, size_t len)
{
    return nj_encoder_piece(e, text, len, merge_bytes);
}

/* ---- Normal form C ---- */

static int normalize(nj_encoder *e, const char *text, size_t len)
{
    utf8proc_uint8_t *nfc = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &nfc, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n < 0) {
        free(nfc);
        return nj_fail(e->err, n == UTF8PROC_ERROR_NOMEM ? -ENOMEM : -EILSEQ, "Unicode normalisation failed: %s.",
                       utf8proc_errmsg(n));
    }
    nj_buf_add(&e->text, nfc, (size_t)n);
    free(nfc);
    return 0;
}

/* Appends the normal form of a valid text to e->text. Runs without characters that could change are copied; the others
 * start at the character before them, with which a mark may compose. */
static int normalize_runs(nj_encoder *e, const char *text, size_t len)
{
    int rc = 0;
    size_t done = 0, prev = 0;
    for (size_t at = 0; at < len && !rc;) {
        utf8proc_int32_t c;
        size_t n = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &c);
        if (c < FIRST_NOT_NFC) {
            prev = at;
            at += n;
            continue;
        }
        size_t marks = 0, end = at;
        while (end < len && marks < MARKS_MAX) {
            n = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + end, (utf8proc_ssize_t)(len - end), &c);
            if (c < FIRST_NOT_NFC) break;
            marks = utf8proc_get_property(c)->combining_class ? marks + 1 : 0;
            end += n;
        }
        nj_buf_add(&e->text, text + done, prev - done);
        rc = normalize(e, text + prev, end - prev);
        done = prev = at = end;
    }
    nj_buf_add(&e->text, text + done, len - done);
    if (!rc && e->text.failed) rc = nj_fail(e->err, e->text.failed, "No memory to normalise %zu bytes.", len);
    return rc;
}

/* A run of valid UTF-8. */
static int bpe_valid(nj_encoder *e, const char *text, size_t len)
{
    bool plain = true;
    /* U+0300 is the first character whose UTF-8 starts with 0xcc. */
    for (size_t i = 0; i < len && plain; i++) plain = (uint8_t)text[i] < 0xcc;
    if (!e->t->nfc || plain) return nj_pretokenize(e->t->pre, text, len, bpe_piece, e);
    nj_buf_clear(&e->text);
    int rc = normalize_runs(e, text, len);
    return rc ? rc : nj_pretokenize(e->t->pre, e->text.data, e->text.len, bpe_piece, e);
}

/* Patterns and normalisation are about characters, so bytes that form none are pieces of their own. */
int nj_bpe_encode(nj_encoder *e, const char *text, size_t len)
{
    int rc = 0;
    for (size_t at = 0; at < len && !rc;) {
        size_t end = at, n;
        while (end < len && (n = nj_utf8_char(text + end, len - end)) != 0) end += n;
        if (end > at) rc = bpe_valid(e, text + at, end - at);
        at = end;
        while (end < len && nj_utf8_char(text + end, len - end) == 0) end++;
        if (end > at && !rc) rc = bpe_piece(e, text + at, end - at);
        at = end;
    }
    return rc;
}
