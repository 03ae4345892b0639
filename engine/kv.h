/* Paged key/value cache: pages of 64 positions, shared between sequences with a common prefix. Private to engine/.
 *
 * A page belongs to one cache group and holds, for each layer of it, keys [kv_heads][64][row] and then values likewise,
 * so that attention reads one head's keys forward. A page that several sequences (or the prefix index) hold is never
 * written: a writer copies it first. Every row is computed by one recipe (DESIGN, row invariance), so a shared page
 * holds the very bits that the request would have computed itself. */
#ifndef NJ_KV_H
#define NJ_KV_H

#include "engine/program.h"

enum { NJ_KV_PAGE = 64 };

typedef struct nj_kv_page {
    uint32_t refs;
    uint8_t group;
    struct nj_kv_page *next_free;
    char data[] __attribute__((aligned(64)));
} nj_kv_page;

/* Full pages known by their tokens: a node is 64 tokens that follow its parent's. */
typedef struct nj_prefix {
    struct nj_prefix *parent, *hash_next, *newer, *older; /* newer, older: order of use, for eviction */
    uint64_t hash;
    uint32_t children, users;              /* sequences whose last full page this is */
    nj_kv_page *page[NJ_CACHE_GROUPS_MAX]; /* NULL: a window left it behind before it was shared */
    int32_t token[NJ_KV_PAGE];
} nj_prefix;

typedef struct nj_kv {
    const nj_model *m;
    uint32_t type;      /* NJ_F32, NJ_F16 or NJ_Q8_0 */
    uint32_t row_bytes; /* one head's key or value at one position */
    uint64_t page_bytes[NJ_CACHE_GROUPS_MAX];
    nj_kv_page *free_pages[NJ_CACHE_GROUPS_MAX];
    uint64_t bytes, bytes_max; /* memory held, free pages included */
    nj_prefix **bucket;
    uint32_t buckets; /* a power of two */
    nj_prefix *newest, *oldest;
    size_t prefixes;
} nj_kv;

struct nj_sequence {
    int32_t *token;
    uint32_t length, pending; /* positions computed; rows of the step being formed */
    size_t token_cap;
    nj_kv_page **page[NJ_CACHE_GROUPS_MAX]; /* [group][position / 64]; NULL behind a window */
    size_t page_cap[NJ_CACHE_GROUPS_MAX];
    uint32_t pages;    /* page slots in use, each group alike */
    nj_prefix *prefix; /* node of the last indexed full page, or NULL */
    uint32_t indexed;  /* full pages in the index chain that ends at `prefix` */
    bool synthetic;    /* holds pages that no tokens have filled: they never enter the index */
};

int nj_kv_init(nj_kv *kv, const nj_model *m, uint32_t type, uint64_t bytes_max, nj_error *err);
void nj_kv_free(nj_kv *kv); /* after all sequences */

/* Makes room for positions up to `length` (exclusive), copying a shared page that would be written.
 * 0, -ENOSPC when the budget is used up even after eviction, or -ENOMEM; then the sequence is unchanged in content. */
int nj_kv_reserve(nj_kv *kv, nj_sequence *s, uint32_t length);

/* Gives back all of a sequence's pages; its tokens stay, its length becomes 0. */
void nj_kv_release(nj_kv *kv, nj_sequence *s);
void nj_kv_truncate(nj_kv *kv, nj_sequence *s, uint32_t length);

/* After a step: indexes pages that became full, and lets go of those that the window has passed. */
void nj_kv_settle(nj_kv *kv, nj_sequence *s);

/* A sequence that stands at the end of its indexed pages (an empty one does) takes over the pages that others have
 * computed for tokens[0..n), its own tokens and what follows: whole pages only, at most n - 1 positions in all.
 * Returns the positions gained, or -ENOMEM. */
int nj_kv_adopt(nj_kv *kv, nj_sequence *s, const int32_t *tokens, uint32_t n);

/* Bytes of pages that a sequence of `length` positions holds, at most. */
uint64_t nj_kv_bytes_for(const nj_kv *kv, uint32_t length);

/* First key row of (layer, head) in a page; values lie nj_kv_values further. Rows are row_bytes apart. */
static inline char *nj_kv_keys(const nj_kv *kv, const nj_kv_page *page, uint32_t layer, uint32_t head)
{
    const nj_model *m = kv->m;
    uint64_t head_bytes = (uint64_t)NJ_KV_PAGE * kv->row_bytes;
    uint64_t index = (uint64_t)m->layer_cache[layer].index * 2 * m->h.kv_heads + head;
    return (char *)page->data + index * head_bytes;
}

static inline uint64_t nj_kv_values(const nj_kv *kv)
{
    return (uint64_t)kv->m->h.kv_heads * NJ_KV_PAGE * kv->row_bytes;
}

#endif
