/* SentencePiece BPE: characters are merged into the piece with the best score; what is no piece becomes bytes. */
#include <errno.h>
#include <string.h>

#include "engine/tokenizer.h"

static bool spm_pair(const nj_tokenizer *t, const char *text, const nj_symbol *left, const nj_symbol *right,
                     nj_candidate *out)
{
    out->id = nj_vocab_find(t, text + left->start, left->len + right->len);
    if (out->id < 0) return false;
    out->rank = t->rank[out->id];
    return true;
}

/* A symbol at the end of merging: a token, or its bytes. */
static int put_symbol(nj_encoder *e, const char *text, const nj_symbol *s)
{
    if (s->id >= 0) return nj_encoder_put(e, s->id);
    int rc = 0;
    for (uint32_t i = 0; i < s->len && !rc; i++) {
        uint8_t byte = (uint8_t)text[s->start + i];
        int32_t id = e->t->byte_id[byte];
        rc = id >= 0
                 ? nj_encoder_put(e, id)
                 : nj_fail(e->err, -EILSEQ, "The vocabulary has no token for byte 0x%02x and no unknown token.", byte);
    }
    return rc;
}

/* Characters, or bytes that form none. */
static size_t symbol_len(const char *text, size_t len)
{
    size_t n = nj_utf8_char(text, len);
    return n ? n : 1;
}

static int merge_characters(nj_encoder *e, const char *text, size_t len)
{
    int rc = nj_encoder_symbols(e, len);
    uint32_t n = 0;
    if (rc) return rc;
    for (size_t at = 0; at < len; at += e->symbol[n++].len) {
        nj_symbol *s = &e->symbol[n];
        s->start = (uint32_t)at;
        s->len = (uint32_t)symbol_len(text + at, len - at);
        s->id = nj_vocab_find(e->t, text + at, s->len);
    }
    e->symbol[n - 1].next = NJ_NO_SYMBOL;
    if ((rc = nj_encoder_merge(e, text, n, spm_pair)) != 0) return rc;
    for (uint32_t i = 0; i != NJ_NO_SYMBOL && !rc; i = e->symbol[i].next) rc = put_symbol(e, text, &e->symbol[i]);
    return rc;
}

/* Merging knows no words, but where no token of the vocabulary has the two bytes around a place side by side, no merge
 * can cross it. Cutting there changes nothing and keeps the heap small enough for the cache. */
static int spm_pieces(nj_encoder *e, const char *text, size_t len)
{
    int rc = 0;
    size_t start = 0;
    for (size_t at = 0; at < len && !rc;) {
        at += symbol_len(text + at, len - at);
        unsigned pair = at < len ? (unsigned)(uint8_t)text[at - 1] * 256 + (uint8_t)text[at] : 0;
        if (at < len && (e->t->joins[pair / 8] >> pair % 8 & 1)) continue;
        rc = nj_encoder_piece(e, text + start, at - start, merge_characters);
        start = at;
    }
    return rc;
}

/* U+2581 in the text is what the vocabulary writes for a space, so it can't be told from one. */
int nj_spm_encode(nj_encoder *e, const char *text, size_t len, bool prefix)
{
    static const char mark[] = "\xe2\x96\x81";
    const char *found = memmem(text, len, mark, 3);
    if (!prefix && !found) return spm_pieces(e, text, len);
    nj_buf *b = &e->text;
    nj_buf_clear(b);
    if (prefix) nj_buf_char(b, ' ');
    size_t done = 0;
    for (; found; found = memmem(text + done, len - done, mark, 3)) {
        nj_buf_add(b, text + done, (size_t)(found - text) - done);
        nj_buf_char(b, ' ');
        done = (size_t)(found - text) + 3;
    }
    nj_buf_add(b, text + done, len - done);
    if (b->failed) return nj_fail(e->err, b->failed, "No memory to tokenize %zu bytes.", len);
    return spm_pieces(e, b->data, b->len);
}
