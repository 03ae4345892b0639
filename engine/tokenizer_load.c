/* A vocabulary from the tokenizer.ggml.* keys of a GGUF file. Every array, id and type is checked here, so that nothing
 * later has to. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer.h"

#define KEY "tokenizer.ggml."

/* ---- Hashing. The multiplier is 2^64 divided by the golden ratio, odd. ---- */

static uint64_t mix(uint64_t x)
{
    unsigned __int128 p = (unsigned __int128)x * 0x9e3779b97f4a7c15u;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

uint32_t nj_vocab_hash(const nj_tokenizer *t, const char *text, size_t len)
{
    uint64_t h = t->seed ^ len, word;
    for (; len >= 8; text += 8, len -= 8) {
        memcpy(&word, text, 8);
        h = mix(h ^ word);
    }
    word = 0;
    memcpy(&word, text, len);
    return (uint32_t)mix(h ^ word ^ t->seed << 7);
}

static uint32_t pair_hash(const nj_tokenizer *t, int32_t left, int32_t right)
{
    return (uint32_t)mix((uint64_t)(uint32_t)left << 32 ^ (uint32_t)right ^ t->seed);
}

int32_t nj_vocab_find(const nj_tokenizer *t, const char *text, size_t len)
{
    if (len == 0 || len > NJ_TOKEN_BYTES_MAX) return -1;
    uint32_t hash = nj_vocab_hash(t, text, len);
    for (uint32_t i = hash & t->text_mask;; i = (i + 1) & t->text_mask) {
        const nj_text_slot *s = &t->text_slot[i];
        if (s->id < 0) return -1;
        if (s->hash == hash && nj_vocab_len(t, s->id) == len && memcmp(nj_vocab_text(t, s->id), text, len) == 0)
            return s->id;
    }
}

const nj_pair_slot *nj_vocab_pair(const nj_tokenizer *t, int32_t left, int32_t right)
{
    for (uint32_t i = pair_hash(t, left, right) & t->pair_mask;; i = (i + 1) & t->pair_mask) {
        const nj_pair_slot *s = &t->pair_slot[i];
        if (s->id < 0) return NULL;
        if (s->left == (uint32_t)left && s->right == (uint32_t)right) return s;
    }
}

/* The first of several tokens with one text is the one that encoding produces. */
static void add_text(nj_tokenizer *t, int32_t id)
{
    const char *text = nj_vocab_text(t, id);
    uint32_t len = nj_vocab_len(t, id);
    if (len == 0 || nj_vocab_find(t, text, len) >= 0) return;
    uint32_t hash = nj_vocab_hash(t, text, len), i = hash & t->text_mask;
    while (t->text_slot[i].id >= 0) i = (i + 1) & t->text_mask;
    t->text_slot[i] = (nj_text_slot){ hash, id };
}

static void add_pair(nj_tokenizer *t, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    if (nj_vocab_pair(t, left, right)) return; /* an earlier merge goes first */
    uint32_t i = pair_hash(t, left, right) & t->pair_mask;
    while (t->pair_slot[i].id >= 0) i = (i + 1) & t->pair_mask;
    t->pair_slot[i] = (nj_pair_slot){ (uint32_t)left, (uint32_t)right, rank, id };
}

/* Size of an open hash table of `count` entries, at most half full; minus one, as a mask. */
static uint32_t table_mask(uint64_t count)
{
    uint32_t size = 64;
    while (size < 2 * count) size *= 2;
    return size - 1;
}

/* ---- The byte alphabet of byte-level BPE: printable Latin-1 stands for itself, the other bytes, in order, for
 * U+0100 and up. ---- */

static bool byte_is_plain(unsigned b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

/* Code point of the alphabet -> byte, or -1. */
static int alphabet_byte(uint32_t c)
{
    if (c < 256) return byte_is_plain(c) ? (int)c : -1;
    if (c < 256 + 33) return (int)(c - 256);                 /* 0..32 */
    if (c < 256 + 33 + 34) return (int)(c - 256 - 33 + 127); /* 127..160 */
    return c == 256 + 33 + 34 ? 173 : -1;
}

/* Decodes `len` bytes of alphabet text. Returns the number of bytes in dst (at most len), or -1 when a character is not
 * of the alphabet. */
static int64_t alphabet_decode(const char *text, size_t len, char *dst)
{
    int64_t n = 0;
    for (size_t i = 0; i < len; n++) {
        uint32_t c = (uint8_t)text[i++];
        if (c >= 0x80) { /* the whole alphabet lies below U+0800: two bytes at most */
            if (c < 0xc2 || c > 0xdf || i == len || ((uint8_t)text[i] & 0xc0) != 0x80) return -1;
            c = (c & 0x1f) << 6 | ((uint8_t)text[i++] & 0x3f);
        }
        int byte = alphabet_byte(c);
        if (byte < 0) return -1;
        dst[n] = (char)byte;
    }
    return n;
}

/* ---- Keys ---- */

/* An array key of the wanted kind. -ENOENT when absent, silently. */
static int get_array(const nj_gguf *g, const char *key, bool strings, uint64_t count_max, const nj_meta **out,
                     nj_error *err)
{
    const nj_meta *m = nj_gguf_meta(g, key);
    if (!m) return -ENOENT;
    if (m->type != NJ_META_ARRAY || (m->item_type == NJ_META_STRING) != strings)
        return nj_fail(err, -EINVAL, "%s is not an array of %s.", key, strings ? "strings" : "numbers");
    if (m->count > count_max)
        return nj_fail(err, -EINVAL, "%s has %llu entries; at most %llu are supported.", key,
                       (unsigned long long)m->count, (unsigned long long)count_max);
    *out = m;
    return 0;
}

/* An array with one number per token. */
static int get_per_token(const nj_gguf *g, const char *key, int32_t count, const nj_meta **out, nj_error *err)
{
    int rc = get_array(g, key, false, UINT64_MAX, out, err);
    if (!rc && (*out)->count != (uint64_t)count)
        return nj_fail(err, -EINVAL, "%s has %llu entries for %d tokens.", key, (unsigned long long)(*out)->count,
                       count);
    return rc;
}

/* A token id, or *out unchanged when the key is absent. */
static int get_id(const nj_tokenizer *t, const nj_gguf *g, const char *key, int32_t *out, nj_error *err)
{
    uint64_t id = 0;
    int rc = nj_gguf_get_u64(g, key, &id, err);
    if (rc == -ENOENT) return 0;
    if (rc) return rc;
    if (id >= (uint64_t)t->count) {
        nj_fail(err, -EINVAL, "%s is %llu, but the vocabulary has %d tokens.", key, (unsigned long long)id, t->count);
        return nj_remedy(err, "Give the right id: --set %s=ID.", key);
    }
    *out = (int32_t)id;
    return 0;
}

static int get_flag(const nj_gguf *g, const char *key, bool *out, nj_error *err)
{
    int rc = nj_gguf_get_bool(g, key, out, err);
    return rc == -ENOENT ? 0 : rc;
}

static int load_model(nj_tokenizer *t, const nj_gguf *g, nj_error *err)
{
    nj_str model, pre = { "default", 7 };
    int rc = nj_gguf_get_str(g, KEY "model", &model, err);
    if (rc == -ENOENT) {
        nj_fail(err, -EINVAL, KEY "model is missing: the file has no vocabulary.");
        return nj_remedy(err, "Use a GGUF file of a whole model; a file of weights alone can't turn text into tokens.");
    }
    if (rc) return rc;
    if (strcmp(model.data, "llama") == 0) {
        t->spm = t->add_bos = t->space_prefix = true;
        snprintf(t->name, sizeof t->name, "llama");
        return get_flag(g, KEY "add_space_prefix", &t->space_prefix, err);
    }
    if (strcmp(model.data, "gpt2") != 0) {
        nj_fail(err, -ENOTSUP,
                KEY "model is \"%.100s\"; known are gpt2 (byte-level BPE) and llama (SentencePiece BPE).", model.data);
        return nj_remedy(err, "This kind of vocabulary can't be used yet. Choose a model of another family.");
    }
    rc = nj_gguf_get_str(g, KEY "pre", &pre, err);
    if (rc && rc != -ENOENT) return rc;
    nj_pre_traits traits = { 0 };
    if ((rc = nj_pretokenizer_new(&t->pre, &traits, pre.data, err)) != 0) return rc;
    t->nfc = traits.nfc;
    t->ignore_merges = traits.ignore_merges;
    t->add_bos = traits.add_bos;
    snprintf(t->name, sizeof t->name, "gpt2/%.60s", pre.data);
    return 0;
}

/* ---- Texts and types ---- */

static int load_types(nj_tokenizer *t, const nj_gguf *g, nj_error *err)
{
    const nj_meta *m = NULL;
    int rc = get_per_token(g, KEY "token_type", t->count, &m, err);
    if (rc && rc != -ENOENT) return rc;
    if (!(t->type = calloc((size_t)t->count, 1))) return nj_fail(err, -ENOMEM, "No memory for %d tokens.", t->count);
    for (int32_t i = 0; i < t->count; i++) {
        int64_t type = m ? nj_meta_item_i64(m, (uint64_t)i) : NJ_TOKEN_NORMAL;
        if (type < 0 || type >= NJ_TOKEN_TYPES)
            return nj_fail(err, -EINVAL, KEY "token_type[%d] is %lld; known are 1 to 6.", i, (long long)type);
        t->type[i] = type ? (uint8_t)type : NJ_TOKEN_NORMAL;
    }
    return 0;
}

/* "<0x0A>" -> 10, or -1. */
static int byte_token(nj_str s)
{
    static const char digits[] = "0123456789ABCDEF";
    if (s.len != 6 || memcmp(s.data, "<0x", 3) != 0 || s.data[5] != '>') return -1;
    const char *high = memchr(digits, s.data[3], 16), *low = memchr(digits, s.data[4], 16);
    return high && low ? (int)((high - digits) * 16 + (low - digits)) : -1;
}

/* Writes the text of a SentencePiece token to dst; U+2581 is how normal pieces write a space. Returns its length. */
static uint32_t spm_text(nj_str s, char *dst)
{
    uint32_t n = 0;
    for (size_t i = 0; i < s.len; n++) {
        bool space = s.len - i >= 3 && memcmp(s.data + i, "\xe2\x96\x81", 3) == 0;
        dst[n] = space ? ' ' : s.data[i];
        i += space ? 3 : 1;
    }
    return n;
}

/* May a merge make a user-defined token? In a byte-level vocabulary when its text is plain ASCII, where the raw text
 * and the byte alphabet agree. */
static bool user_is_mergeable(const nj_tokenizer *t, int32_t id)
{
    const uint8_t *text = (const uint8_t *)nj_vocab_text(t, id);
    for (uint32_t i = 0; i < nj_vocab_len(t, id) && !t->spm; i++)
        if (text[i] < 33 || text[i] > 126) return false;
    return true;
}

/* Writes the bytes that token `id` stands for to dst, which has room for s.len. Returns their number, or -errno.
 * *mergeable: whether it is one of the tokens that merging makes. */
static int64_t token_bytes(nj_tokenizer *t, int32_t id, nj_str s, bool typed, char *dst, bool *mergeable, nj_error *err)
{
    int type = t->type[id];
    bool normal = type == NJ_TOKEN_NORMAL || (type == NJ_TOKEN_BYTE && !t->spm);
    *mergeable = false;
    if (t->spm && (type == NJ_TOKEN_BYTE || (!typed && byte_token(s) >= 0))) {
        int byte = byte_token(s);
        if (byte < 0)
            return nj_fail(err, -EINVAL,
                           KEY "tokens[%d] is typed as a byte, but its text is \"%.40s\", not \"<0xNN>\".", id, s.data);
        t->type[id] = NJ_TOKEN_BYTE;
        if (t->byte_id[byte] < 0) t->byte_id[byte] = id;
        *dst = (char)byte;
        return 1;
    }
    if (t->spm && (normal || type == NJ_TOKEN_USER)) {
        *mergeable = normal;
        return spm_text(s, dst);
    }
    if (!t->spm && normal) {
        int64_t n = alphabet_decode(s.data, s.len, dst);
        *mergeable = n >= 0; /* a text outside the alphabet stands for itself and is out of reach of merges */
        if (n >= 0) return n;
    }
    memcpy(dst, s.data, s.len);
    return (int64_t)s.len;
}

static int load_tokens(nj_tokenizer *t, const nj_gguf *g, nj_error *err)
{
    const nj_meta *m = NULL;
    int rc = get_array(g, KEY "tokens", true, NJ_VOCAB_MAX, &m, err);
    if (rc == -ENOENT || (!rc && m->count == 0)) return nj_fail(err, -EINVAL, KEY "tokens is missing or empty.");
    if (rc) return rc;
    t->count = (int32_t)m->count;
    bool typed = nj_gguf_meta(g, KEY "token_type") != NULL;
    uint64_t bytes = 0;
    for (int32_t i = 0; i < t->count; i++) {
        bytes += m->strings[i].len;
        if (m->strings[i].len > NJ_TOKEN_BYTES_MAX)
            return nj_fail(err, -EINVAL, KEY "tokens[%d] has %zu bytes; at most %d are supported.", i,
                           m->strings[i].len, NJ_TOKEN_BYTES_MAX);
    }
    if (bytes > UINT32_MAX)
        return nj_fail(err, -EINVAL, KEY "tokens has %llu bytes of text.", (unsigned long long)bytes);
    if ((rc = load_types(t, g, err)) != 0) return rc;
    t->pool = malloc((size_t)bytes + 1);
    t->start = nj_array_new((size_t)t->count + 1, sizeof *t->start);
    t->text_mask = table_mask((uint64_t)t->count);
    t->text_slot = nj_array_new((size_t)t->text_mask + 1, sizeof *t->text_slot);
    if (!t->pool || !t->start || !t->text_slot) return nj_fail(err, -ENOMEM, "No memory for %d tokens.", t->count);
    memset(t->text_slot, 0xff, ((size_t)t->text_mask + 1) * sizeof *t->text_slot);
    for (int32_t i = 0; i < t->count; i++) {
        bool mergeable;
        int64_t n = token_bytes(t, i, m->strings[i], typed, t->pool + t->start[i], &mergeable, err);
        if (n < 0) return (int)n;
        t->start[i + 1] = t->start[i] + (uint32_t)n;
        if (mergeable) add_text(t, i);
    }
    for (int32_t i = 0; i < t->count; i++)
        if (t->type[i] == NJ_TOKEN_USER && user_is_mergeable(t, i)) add_text(t, i);
    return 0;
}

/* ---- Byte-level BPE: bytes and merges ---- */

/* Bytes that never occur in UTF-8 are missing from some vocabularies; U+FFFD, or the unknown token, stands in. */
static void load_bytes(nj_tokenizer *t)
{
    int32_t substitute = nj_vocab_find(t, "\xef\xbf\xbd", 3);
    if (substitute < 0 || t->spm) substitute = t->unk;
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        if (!t->spm) t->byte_id[b] = nj_vocab_find(t, &c, 1);
        if (t->byte_id[b] < 0) t->byte_id[b] = substitute;
    }
}

/* One merge, "left right" in the byte alphabet. False when it refers to pieces that the vocabulary doesn't have. */
static bool load_merge(nj_tokenizer *t, nj_str s, uint32_t rank)
{
    char text[2 * NJ_TOKEN_BYTES_MAX];
    if (s.len < 3 || s.len > sizeof text) return false;
    const char *space = memchr(s.data + 1, ' ', s.len - 1);
    if (!space) return false;
    size_t left_len = (size_t)(space - s.data), right_len = s.len - left_len - 1;
    int64_t left_n = alphabet_decode(s.data, left_len, text);
    if (left_n <= 0) return false;
    int64_t right_n = alphabet_decode(space + 1, right_len, text + left_n);
    if (right_n <= 0) return false;
    int32_t left = nj_vocab_find(t, text, (size_t)left_n);
    int32_t right = nj_vocab_find(t, text + left_n, (size_t)right_n);
    int32_t both = nj_vocab_find(t, text, (size_t)(left_n + right_n));
    if (left < 0 || right < 0 || both < 0) return false;
    add_pair(t, left, right, rank, both);
    return true;
}

static int load_merges(nj_tokenizer *t, const nj_gguf *g, nj_error *err)
{
    const nj_meta *m = NULL;
    int rc = get_array(g, KEY "merges", true, NJ_MERGES_MAX, &m, err);
    if (rc == -ENOENT) return nj_fail(err, -EINVAL, KEY "merges is missing; the model gpt2 needs it.");
    if (rc) return rc;
    t->pair_mask = table_mask(m->count);
    t->pair_slot = nj_array_new((size_t)t->pair_mask + 1, sizeof *t->pair_slot);
    if (!t->pair_slot) return nj_fail(err, -ENOMEM, "No memory for %llu merges.", (unsigned long long)m->count);
    memset(t->pair_slot, 0xff, ((size_t)t->pair_mask + 1) * sizeof *t->pair_slot);
    uint64_t used = 0;
    for (uint64_t i = 0; i < m->count; i++) used += load_merge(t, m->strings[i], (uint32_t)i);
    if (m->count && !used)
        return nj_fail(err, -EINVAL, "None of the %llu entries of " KEY "merges joins tokens of the vocabulary.",
                       (unsigned long long)m->count);
    return 0;
}

/* ---- SentencePiece: scores ---- */

/* Scores as integers: lower for a better score, equal for an equal one. */
static uint32_t score_rank(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are one score */
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

static int load_scores(nj_tokenizer *t, const nj_gguf *g, nj_error *err)
{
    const nj_meta *m = NULL;
    int rc = get_per_token(g, KEY "scores", t->count, &m, err);
    if (rc == -ENOENT) return nj_fail(err, -EINVAL, KEY "scores is missing; the model llama needs it.");
    if (rc) return rc;
    t->rank = nj_array_new((size_t)t->count, sizeof *t->rank);
    if (!t->rank) return nj_fail(err, -ENOMEM, "No memory for %d tokens.", t->count);
    for (int32_t i = 0; i < t->count; i++) {
        float score = (float)nj_meta_item_f64(m, (uint64_t)i);
        if (isnan(score)) return nj_fail(err, -EINVAL, KEY "scores[%d] is not a number.", i);
        t->rank[i] = score_rank(score);
        if (t->type[i] != NJ_TOKEN_NORMAL && t->type[i] != NJ_TOKEN_USER) continue;
        const uint8_t *text = (const uint8_t *)nj_vocab_text(t, i);
        for (uint32_t k = 0; k + 1 < nj_vocab_len(t, i); k++) {
            unsigned pair = text[k] * 256u + text[k + 1];
            t->joins[pair / 8] |= (uint8_t)(1u << pair % 8);
        }
    }
    return 0;
}

/* ---- Special tokens ---- */

static int by_text(const void *a, const void *b, void *tokenizer)
{
    const nj_tokenizer *t = tokenizer;
    int32_t x = ((const nj_special *)a)->id, y = ((const nj_special *)b)->id;
    uint32_t m = nj_vocab_len(t, x), n = nj_vocab_len(t, y);
    int order = memcmp(nj_vocab_text(t, x), nj_vocab_text(t, y), m < n ? m : n);
    if (order) return order;
    return m != n ? (m < n ? -1 : 1) : (x < y ? -1 : x > y);
}

static bool has_text(const nj_tokenizer *t, int32_t id, const char *text)
{
    return nj_vocab_len(t, id) == strlen(text) && memcmp(nj_vocab_text(t, id), text, strlen(text)) == 0;
}

/* Tokens that are found in the text as they stand. In Phi-3's SentencePiece vocabulary they swallow the white space on
 * their right, but for the three that Llama's has too. GGUF does not carry the fact. */
static int load_specials(nj_tokenizer *t, const nj_gguf *g, nj_error *err)
{
    nj_str arch = { "", 0 };
    int rc = nj_gguf_get_str(g, "general.architecture", &arch, err);
    if (rc && rc != -ENOENT) return rc;
    bool phi3 = t->spm && strcmp(arch.data, "phi3") == 0;
    uint32_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass && n && !(t->special = nj_array_new(n, sizeof *t->special)))
            return nj_fail(err, -ENOMEM, "No memory for %u special tokens.", n);
        n = 0;
        for (int32_t i = 0; i < t->count; i++) {
            int type = t->type[i];
            if (type != NJ_TOKEN_CONTROL && type != NJ_TOKEN_UNKNOWN && type != NJ_TOKEN_USER) continue;
            if (nj_vocab_len(t, i) == 0) continue;
            bool strip = phi3 && !has_text(t, i, "<unk>") && !has_text(t, i, "<s>") && !has_text(t, i, "<|endoftext|>");
            if (pass) t->special[n] = (nj_special){ i, strip };
            n++;
        }
    }
    t->specials = n;
    if (n) qsort_r(t->special, n, sizeof *t->special, by_text, t);
    for (uint32_t i = 0; i < n; i++) t->special_first[(uint8_t)*nj_vocab_text(t, t->special[i].id) + 1] = i + 1;
    for (int b = 1; b <= 256; b++)
        if (t->special_first[b] < t->special_first[b - 1]) t->special_first[b] = t->special_first[b - 1];
    return 0;
}

static void add_end(nj_tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->ends; i++)
        if (t->end[i] == id) return;
    if (id >= 0 && t->ends < NJ_ENDS_MAX) t->end[t->ends++] = id;
}

/* Tokens that end an answer: those the file names, and the usual texts, since many files name only one of theirs. */
static int load_ends(nj_tokenizer *t, const nj_gguf *g, nj_error *err)
{
    static const char *const texts[] = { "<|im_end|>",    "<|eot_id|>",    "<|eom_id|>",      "<|end|>",
                                         "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|EOT|>" };
    static const char *const keys[] = { KEY "eos_token_id", KEY "eot_token_id", KEY "eom_token_id" };
    for (size_t i = 0; i < NJ_COUNT(keys); i++) {
        int32_t id = -1;
        int rc = get_id(t, g, keys[i], &id, err);
        if (rc) return rc;
        if (i == 0) t->eos = id;
        add_end(t, id);
    }
    for (uint32_t i = 0; i < t->specials; i++)
        for (size_t k = 0; k < NJ_COUNT(texts) && t->type[t->special[i].id] == NJ_TOKEN_CONTROL; k++)
            if (has_text(t, t->special[i].id, texts[k])) add_end(t, t->special[i].id);
    return 0;
}

/* add_bos_token without a token to add is a contradiction only when the file says so itself. */
static int load_additions(nj_tokenizer *t, const nj_gguf *g, nj_error *err)
{
    const struct {
        const char *flag, *id;
        bool *add;
        int32_t token;
    } rule[] = {
        { KEY "add_bos_token", KEY "bos_token_id", &t->add_bos, t->bos },
        { KEY "add_eos_token", KEY "eos_token_id", &t->add_eos, t->eos },
    };
    for (size_t i = 0; i < NJ_COUNT(rule); i++) {
        int rc = get_flag(g, rule[i].flag, rule[i].add, err);
        if (rc) return rc;
        if (!*rule[i].add || rule[i].token >= 0) continue;
        if (nj_gguf_meta(g, rule[i].flag)) {
            nj_fail(err, -EINVAL, "%s is true, but %s is missing.", rule[i].flag, rule[i].id);
            return nj_remedy(err, "Give the id, --set %s=ID, or switch it off: --set %s=false.", rule[i].id,
                             rule[i].flag);
        }
        *rule[i].add = false;
    }
    return 0;
}

int nj_tokenizer_new(nj_tokenizer **out, const nj_gguf *g, nj_error *err)
{
    static const char *const ignored[] = { KEY "padding_token_id", KEY "seperator_token_id", KEY "mask_token_id" };
    nj_tokenizer *t = nj_new(nj_tokenizer);
    if (!t) return nj_fail(err, -ENOMEM, "No memory for the tokenizer.");
    int rc;
    int32_t unused = -1;
    t->seed = mix(nj_now_ns() ^ (uintptr_t)t) | 1;
    t->bos = t->eos = t->unk = -1;
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    if ((rc = load_model(t, g, err)) != 0) goto fail;
    if ((rc = load_tokens(t, g, err)) != 0) goto fail;
    if ((rc = get_id(t, g, KEY "bos_token_id", &t->bos, err)) != 0) goto fail;
    if ((rc = get_id(t, g, KEY "unknown_token_id", &t->unk, err)) != 0) goto fail;
    for (size_t i = 0; i < NJ_COUNT(ignored); i++)
        if ((rc = get_id(t, g, ignored[i], &unused, err)) != 0) goto fail;
    load_bytes(t);
    if ((rc = t->spm ? load_scores(t, g, err) : load_merges(t, g, err)) != 0) goto fail;
    if ((rc = load_specials(t, g, err)) != 0) goto fail;
    if ((rc = load_ends(t, g, err)) != 0) goto fail;
    if ((rc = load_additions(t, g, err)) != 0) goto fail;
    *out = t;
    return 0;
fail:
    nj_tokenizer_free(t);
    return rc;
}

void nj_tokenizer_free(nj_tokenizer *t)
{
    if (!t) return;
    nj_pretokenizer_free(t->pre);
    free(t->special);
    free(t->pair_slot);
    free(t->text_slot);
    free(t->rank);
    free(t->type);
    free(t->start);
    free(t->pool);
    free(t);
}
