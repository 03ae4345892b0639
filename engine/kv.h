/* Paged key/value cache: pages of 64 positions, shared between sequences with a common prefix. Private to engine/.
 *
 * A page belongs to one cache group and holds, for each layer of it, keys [kv_heads][64][row] and then values likewise,
 * so that attention reads one head's keys forward. A page that several sequences (or the prefix index) hold is never
 * written: a writer copies it first. A row is computed by the wide or the narrow recipe, and pages of the same tokens
 * but of other recipes are different pages, so a shared page holds the very bits that the request would have computed
 * itself (unless it said that any will do). */
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

/* Full pages known by their tokens and recipes: a node is 64 tokens that follow its parent's. */
typedef struct nj_prefix {
    struct nj_prefix *parent, *hash_next, *newer, *older; /* newer, older: order of use, for eviction */
    uint64_t hash;
    uint32_t children, users;              /* sequences whose last full page this is */
    nj_kv_page *page[NJ_CACHE_GROUPS_MAX]; /* NULL: a window left it behind before it was shared */
    uint64_t wide;                         /* bit i: position i was computed by the wide recipe */
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
    uint64_t *wide;    /* [pages] as in nj_prefix */
    size_t wide_cap;
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

/* Notes how a position was computed, before nj_kv_settle. */
static inline void nj_kv_mark(nj_sequence *s, uint32_t position, bool wide)
{
    uint64_t bit = 1ull << position % NJ_KV_PAGE, *page = &s->wide[position / NJ_KV_PAGE];
    *page = wide ? *page | bit : *page & ~bit;
}

/* Which positions of a page lie among the first `wide` of a sequence. */
static inline uint64_t nj_kv_wide_bits(uint32_t page, uint32_t wide)
{
    uint32_t begin = page * NJ_KV_PAGE;
    if (wide <= begin) return 0;
    return wide - begin >= NJ_KV_PAGE ? UINT64_MAX : (1ull << (wide - begin)) - 1;
}

/* Tokens of which a sequence would compute the first `wide` by the wide recipe; with any_recipe it does not mind. */
typedef struct nj_kv_want {
    const int32_t *token;
    uint32_t n, wide;
    bool any_recipe;
} nj_kv_want;

/* A sequence that stands at the end of its indexed pages (an empty one does) takes over the pages that others have
 * computed for the tokens wanted, its own and what follows: whole pages only, at most n - 1 positions in all.
 * Returns the positions gained, or -ENOMEM. */
int nj_kv_adopt(nj_kv *kv, nj_sequence *s, const nj_kv_want *want);

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
