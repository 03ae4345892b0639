/* Text to tokens and back: special tokens are found first, what lies between them goes to the model's encoder. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer.h"

/* Well-formed UTF-8 as in the Unicode Standard, table 3-7. */
size_t nj_utf8_char(const char *text, size_t len)
{
    const uint8_t *s = (const uint8_t *)text;
    if (len == 0) return 0;
    if (s[0] < 0x80) return 1;
    size_t n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint8_t low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[0] < 0xc2 || s[0] > 0xf4 || len < n || s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return n;
}

/* ---- Special tokens ---- */

/* Narrows [*lo, *hi), whose texts share their first `depth` bytes, to those with `byte` next. A text that ends there
 * sorts before all others. */
static void narrow(const nj_tokenizer *t, uint32_t *lo, uint32_t *hi, uint32_t depth, uint8_t byte)
{
    for (int side = 0; side < 2; side++) { /* first text with at least `byte`, then first with more */
        uint32_t a = *lo, b = *hi;
        while (a < b) {
            uint32_t mid = a + (b - a) / 2;
            int32_t id = t->special[mid].id;
            int next = depth < nj_vocab_len(t, id) ? (uint8_t)nj_vocab_text(t, id)[depth] : -1;
            if (next < byte + side)
                a = mid + 1;
            else
                b = mid;
        }
        *(side ? hi : lo) = a;
    }
}

/* The longest special token that the text starts with, or NULL. User-defined ones count whether or not `special`. */
static const nj_special *match_special(const nj_tokenizer *t, const char *text, size_t len, bool special)
{
    uint32_t lo = t->special_first[(uint8_t)text[0]], hi = t->special_first[(uint8_t)text[0] + 1];
    const nj_special *best = NULL;
    for (uint32_t depth = 1; lo < hi; depth++) {
        /* Texts sort by length where one starts with another: only the first of the range can end here. */
        const nj_special *s = &t->special[lo];
        if (nj_vocab_len(t, s->id) == depth && (special || t->type[s->id] == NJ_TOKEN_USER)) best = s;
        if (depth == len) break;
        narrow(t, &lo, &hi, depth, (uint8_t)text[depth]);
    }
    return best;
}

/* ---- Encoding ---- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int encode_plain(nj_encoder *e, const char *text, size_t len, bool first)
{
    if (len == 0) return 0;
    return e->t->spm ? nj_spm_encode(e, text, len, e->t->space_prefix && first) : nj_bpe_encode(e, text, len);
}

static int encode(nj_encoder *e, const char *text, size_t len, bool special)
{
    const nj_tokenizer *t = e->t;
    int rc = 0;
    bool first = true; /* at the start, and again after each special token */
    size_t done = 0;
    for (size_t at = 0; at < len && !rc;) {
        const nj_special *s = match_special(t, text + at, len - at, special);
        if (!s) {
            at++;
            continue;
        }
        rc = encode_plain(e, text + done, at - done, first);
        if (!rc) rc = nj_encoder_put(e, s->id);
        at += nj_vocab_len(t, s->id);
        while (s->strip_right && at < len && is_space(text[at])) at++;
        done = at;
        first = true;
    }
    return rc ? rc : encode_plain(e, text + done, len - done, first);
}

/* A text that brings its own first or last token (a rendered template, say) does not get a second one. */
static int add_ends(nj_encoder *e, size_t from, bool bos_added)
{
    const nj_tokenizer *t = e->t;
    nj_tokens *o = e->out;
    if (bos_added && o->len > from + 1 && o->id[from + 1] == t->bos) {
        memmove(&o->id[from], &o->id[from + 1], (o->len - from - 1) * sizeof *o->id);
        o->len--;
    }
    if (!t->add_eos || (o->len > from && o->id[o->len - 1] == t->eos)) return 0;
    return nj_encoder_put(e, t->eos);
}

/* A slot for every 8 bytes of text. Short texts repeat too little to be worth the memory. */
static void remember_pieces(nj_encoder *e, size_t len)
{
    uint32_t slots = NJ_SEEN_MIN;
    if (len / 8 < slots) return;
    while (slots < NJ_SEEN_MAX && slots < len / 8) slots *= 2;
    e->seen = nj_array_new(slots, sizeof *e->seen); /* without it, slower and the same */
    e->seen_mask = slots - 1;
}

int nj_tokenize(const nj_tokenizer *t, const char *text, size_t len, unsigned flags, nj_tokens *out, nj_error *err)
{
    if (len > NJ_TEXT_BYTES_MAX)
        return nj_fail(err, -EFBIG, "A text of %zu bytes is too long to tokenize; at most %d are.", len,
                       NJ_TEXT_BYTES_MAX);
    nj_encoder e = { .t = t, .out = out, .err = err };
    size_t from = out->len;
    remember_pieces(&e, len);
    bool bos = (flags & NJ_TOKENIZE_BOS) && t->add_bos;
    int rc = bos ? nj_encoder_put(&e, t->bos) : 0;
    if (!rc) rc = encode(&e, text, len, flags & NJ_TOKENIZE_SPECIAL);
    if (!rc && (flags & NJ_TOKENIZE_BOS)) rc = add_ends(&e, from, bos);
    if (rc) out->len = from;
    nj_pretokenizer_match_free(e.match);
    nj_buf_free(&e.text);
    free(e.seen);
    free(e.heap);
    free(e.symbol);
    return rc;
}

/* ---- Decoding ---- */

static bool is_id(const nj_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->count;
}

void nj_token_text(const nj_tokenizer *t, int32_t id, bool special, nj_buf *out)
{
    if (is_id(t, id) && (special || !nj_token_is_special(t, id)))
        nj_buf_add(out, nj_vocab_text(t, id), nj_vocab_len(t, id));
}

/* Where encoding puts a space before a text, that is at the start and after each token that it found as it stands, the
 * space is taken away again. */
void nj_detokenize(const nj_tokenizer *t, const int32_t *id, size_t n, bool special, nj_buf *out)
{
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        if (!is_id(t, id[i])) continue;
        const char *text = nj_vocab_text(t, id[i]);
        uint32_t len = nj_vocab_len(t, id[i]);
        bool plain = !nj_token_is_special(t, id[i]) && t->type[id[i]] != NJ_TOKEN_USER;
        bool strip = t->space_prefix && first && plain && len && text[0] == ' ';
        if (strip)
            nj_buf_add(out, text + 1, len - 1);
        else
            nj_token_text(t, id[i], special, out);
        first = !plain;
    }
}

/* ---- Facts ---- */

int32_t nj_tokenizer_size(const nj_tokenizer *t)
{
    return t->count;
}
int32_t nj_tokenizer_bos(const nj_tokenizer *t)
{
    return t->bos;
}
int32_t nj_tokenizer_eos(const nj_tokenizer *t)
{
    return t->eos;
}
const char *nj_tokenizer_name(const nj_tokenizer *t)
{
    return t->name;
}

bool nj_token_is_end(const nj_tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->ends; i++)
        if (t->end[i] == id) return true;
    return false;
}

bool nj_token_is_special(const nj_tokenizer *t, int32_t id)
{
    if (!is_id(t, id)) return false;
    int type = t->type[id];
    return type == NJ_TOKEN_CONTROL || type == NJ_TOKEN_UNKNOWN || type == NJ_TOKEN_UNUSED;
}
