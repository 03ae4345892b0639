/* What the tokenizer's own files share: the vocabulary in memory, the merge loop, the pre-tokenizer.
 *
 * The text of a token is kept as the bytes it stands for: the byte alphabet of byte-level BPE ("Ġthe") is undone and
 * SentencePiece's U+2581 is a space, so that encoding works on the caller's bytes and decoding is a copy. */
#ifndef NJ_TOKENIZER_PRIVATE_H
#define NJ_TOKENIZER_PRIVATE_H

#include "engine/nj_engine.h"

enum {
    NJ_VOCAB_MAX = 1 << 22, /* tokens; the largest vocabularies in use have 2^18 */
    NJ_MERGES_MAX = 1 << 24,
    NJ_TOKEN_BYTES_MAX = 1024,   /* of one token as written in the file; the longest known ones have 256 */
    NJ_TEXT_BYTES_MAX = 1 << 30, /* of one nj_tokenize call */
    NJ_ENDS_MAX = 32,
};

/* Values of tokenizer.ggml.token_type. 0, "undefined", is read as normal. */
enum {
    NJ_TOKEN_NORMAL = 1,
    NJ_TOKEN_UNKNOWN = 2,
    NJ_TOKEN_CONTROL = 3,
    NJ_TOKEN_USER = 4,
    NJ_TOKEN_UNUSED = 5,
    NJ_TOKEN_BYTE = 6,
    NJ_TOKEN_TYPES
};

typedef struct nj_pretokenizer nj_pretokenizer;

typedef struct nj_text_slot {
    uint32_t hash;
    int32_t id;
} nj_text_slot; /* id -1: empty */
typedef struct nj_pair_slot {
    uint32_t left, right, rank;
    int32_t id;
} nj_pair_slot; /* id -1: empty */
typedef struct nj_special {
    int32_t id;
    bool strip_right;
} nj_special;

struct nj_tokenizer {
    char name[96];
    bool spm;           /* SentencePiece BPE; otherwise byte-level BPE */
    bool space_prefix;  /* SentencePiece: a text starts with a space of its own */
    bool ignore_merges; /* a piece that is a token as a whole is not merged */
    bool nfc;
    bool add_bos, add_eos;
    int32_t count, bos, eos, unk; /* ids are -1 for none */
    int32_t end[NJ_ENDS_MAX];
    int ends;

    char *pool;           /* all texts, one after the other */
    uint32_t *start;      /* [count + 1] offsets in pool */
    uint8_t *type;        /* [count] */
    uint32_t *rank;       /* [count] SentencePiece: scores as integers, lower is merged first; otherwise NULL */
    int32_t byte_id[256]; /* token that stands for a byte, or the best substitute, or -1 */

    uint64_t seed;           /* of both hashes, so that a file can't be made to collide */
    nj_text_slot *text_slot; /* [text_mask + 1] tokens that merging may produce */
    uint32_t text_mask;
    nj_pair_slot *pair_slot; /* [pair_mask + 1] merges of byte-level BPE */
    uint32_t pair_mask;
    uint8_t joins[8192]; /* SentencePiece: bit a * 256 + b when some token has byte b after byte a */

    nj_special *special; /* [specials] control, unknown and user-defined tokens, sorted by text */
    uint32_t specials;
    uint32_t special_first[257]; /* those that start with byte b lie in [first[b], first[b + 1]) */
    nj_pretokenizer *pre;        /* byte-level BPE only */
};

static inline const char *nj_vocab_text(const nj_tokenizer *t, int32_t id)
{
    return t->pool + t->start[id];
}
static inline uint32_t nj_vocab_len(const nj_tokenizer *t, int32_t id)
{
    return t->start[id + 1] - t->start[id];
}

uint32_t nj_vocab_hash(const nj_tokenizer *t, const char *text, size_t len);

/* Id of the token that merging may produce with exactly this text, or -1. */
int32_t nj_vocab_find(const nj_tokenizer *t, const char *text, size_t len);

/* The merge of two adjacent tokens in byte-level BPE, or NULL. */
const nj_pair_slot *nj_vocab_pair(const nj_tokenizer *t, int32_t left, int32_t right);

/* Length of the UTF-8 character at text[0], or 0 where there is none (invalid, or cut off at len). */
size_t nj_utf8_char(const char *text, size_t len);

/* ---- One call of nj_tokenize: its output and the memory that its pieces reuse. ---- */

typedef struct nj_symbol {
    uint32_t start, len; /* bytes in the piece; len 0: merged into its left neighbour */
    uint32_t prev, next; /* NJ_NO_SYMBOL at the ends */
    int32_t id;          /* -1: no token has this text */
} nj_symbol;
#define NJ_NO_SYMBOL UINT32_MAX

typedef struct nj_candidate {
    uint32_t rank, left; /* order of merging: rank, then position */
    uint32_t len;        /* of both symbols together when it was found; another sum means that it is outdated */
    int32_t id;          /* of the merged token */
} nj_candidate;

/* A piece met before in this call, and its tokens. 64 bytes, a cache line. */
typedef struct nj_seen {
    uint8_t len, ids; /* len 0: empty */
    char    text[30];
    int32_t id[8];
} nj_seen;
enum { NJ_SEEN_MIN = 512, NJ_SEEN_MAX = 1 << 14 }; /* slots; 54 KB of a novel have 6500 different pieces */

typedef struct nj_encoder {
    const nj_tokenizer *t;
    nj_tokens *out;
    nj_error *err;
    nj_symbol *symbol;
    size_t symbol_cap;
    nj_candidate *heap;
    size_t heap_len, heap_cap;
    nj_buf text; /* the normalised text */
    nj_seen *seen; /* [seen_mask + 1] by hash, or NULL */
    uint32_t seen_mask;
    void *match;   /* pre-tokenizer's match data */
} nj_encoder;

typedef int nj_piece_fn(nj_encoder *e, const char *text, size_t len);

int nj_encoder_put(nj_encoder *e, int32_t id);

/* Merges e->symbol[0, n), which cover `text`, until no pair of neighbours can be merged. Time n log n.
 * `pair` says what two neighbours become. */
typedef bool nj_pair_fn(const nj_tokenizer *t, const char *text, const nj_symbol *left, const nj_symbol *right,
                        nj_candidate *out);
int nj_encoder_merge(nj_encoder *e, const char *text, uint32_t n, nj_pair_fn *pair);

/* Room for n symbols, chained in order; the caller fills start, len and id. */
int nj_encoder_symbols(nj_encoder *e, size_t n);

/* Encodes a piece with fn, or repeats what fn made of it before. */
int nj_encoder_piece(nj_encoder *e, const char *text, size_t len, nj_piece_fn *fn);

/* Encode a text without special tokens. */
int nj_bpe_encode(nj_encoder *e, const char *text, size_t len);
int nj_spm_encode(nj_encoder *e, const char *text, size_t len, bool prefix);

/* ---- Pre-tokenizer: cuts a text into the pieces that merges never cross. ---- */

typedef struct nj_pre_traits {
    bool nfc, ignore_merges, add_bos;
} nj_pre_traits;

int nj_pretokenizer_new(nj_pretokenizer **out, nj_pre_traits *traits, const char *name, nj_error *err);
void nj_pretokenizer_free(nj_pretokenizer *p);

/* Calls fn for every piece of `text` (valid UTF-8) in order; together the pieces are the text. *match is made at the
 * first call and freed with nj_pretokenizer_match_free. */
int nj_pretokenize(const nj_pretokenizer *p, const char *text, size_t len, nj_piece_fn *fn, nj_encoder *e);
void nj_pretokenizer_match_free(void *match);

#endif
