/* Pages, their sharing by prefix, and eviction. See kv.h. */
#include "engine/kv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int nj_kv_init(nj_kv *kv, const nj_model *m, uint32_t type, uint64_t bytes_max, nj_error *err)
{
    *kv = (nj_kv){ .m = m, .type = type, .bytes_max = bytes_max, .buckets = 4096 };
    kv->row_bytes = (uint32_t)nj_row_bytes(type, m->h.head_dim);
    if (kv->row_bytes == 0) {
        nj_fail(err, -EINVAL, "a %s KV cache can't hold heads of %u values", nj_format_name(type), m->h.head_dim);
        return nj_remedy(err, "Take --kv f16.");
    }
    for (uint32_t g = 0; g < m->groups; g++)
        kv->page_bytes[g] = 2ull * m->group[g].layers * m->h.kv_heads * NJ_KV_PAGE * kv->row_bytes + sizeof(nj_kv_page);
    kv->bucket = nj_array_new(kv->buckets, sizeof *kv->bucket);
    return kv->bucket ? 0 : nj_fail(err, -ENOMEM, "no memory for the KV index");
}

/* ---- Prefix index ---- */

static uint64_t hash_tokens(uint64_t parent, const int32_t *token)
{
    uint64_t h = parent ^ 0x9E3779B97F4A7C15u;
    for (int i = 0; i < NJ_KV_PAGE; i++) {
        h = (h ^ (uint32_t)token[i]) * 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
    }
    return h;
}

/* The node of these tokens and recipe; with `any`, one of another recipe where there is none of this. */
static nj_prefix *prefix_find(const nj_kv *kv, nj_prefix *parent, const int32_t *token, uint64_t wide, bool any)
{
    uint64_t hash = hash_tokens(parent ? parent->hash : 0, token);
    nj_prefix *other = NULL;
    for (nj_prefix *p = kv->bucket[hash & (kv->buckets - 1)]; p; p = p->hash_next) {
        if (p->hash != hash || p->parent != parent || memcmp(p->token, token, sizeof p->token) != 0) continue;
        if (p->wide == wide) return p;
        other = p;
    }
    return any ? other : NULL;
}

static void order_remove(nj_kv *kv, nj_prefix *p)
{
    *(p->newer ? &p->newer->older : &kv->newest) = p->older;
    *(p->older ? &p->older->newer : &kv->oldest) = p->newer;
    p->newer = p->older = NULL;
}

static void order_push(nj_kv *kv, nj_prefix *p)
{
    p->older = kv->newest;
    *(kv->newest ? &kv->newest->newer : &kv->oldest) = p;
    kv->newest = p;
}

/* Marks a chain as used, leaf first, so that a parent is always newer than its children and eviction meets leaves. */
static void prefix_touch(nj_kv *kv, nj_prefix *p)
{
    for (; p; p = p->parent) {
        order_remove(kv, p);
        order_push(kv, p);
    }
}

static void page_unref(nj_kv *kv, nj_kv_page *page)
{
    if (!page || --page->refs) return;
    page->next_free = kv->free_pages[page->group];
    kv->free_pages[page->group] = page;
}

static void prefix_drop(nj_kv *kv, nj_prefix *p)
{
    nj_prefix **link = &kv->bucket[p->hash & (kv->buckets - 1)];
    while (*link != p) link = &(*link)->hash_next;
    *link = p->hash_next;
    order_remove(kv, p);
    if (p->parent) p->parent->children--;
    for (uint32_t g = 0; g < kv->m->groups; g++) page_unref(kv, p->page[g]);
    kv->prefixes--;
    free(p);
}

/* Drops the least recently used node that no sequence stands on; false when every node is in use. */
static bool prefix_evict(nj_kv *kv)
{
    for (nj_prefix *p = kv->oldest; p; p = p->newer)
        if (!p->children && !p->users) {
            prefix_drop(kv, p);
            return true;
        }
    return false;
}

/* Drops one page of a window that no sequence sees any more; false when there is none. The node stays: who comes later
 * can't take over positions whose window reaches back to the page. */
static bool window_evict(nj_kv *kv)
{
    for (nj_prefix *p = kv->oldest; p; p = p->newer)
        for (uint32_t g = 0; g < kv->m->groups; g++)
            if (kv->m->group[g].window && p->page[g] && p->page[g]->refs == 1) {
                page_unref(kv, p->page[g]);
                p->page[g] = NULL;
                return true;
            }
    return false;
}

static nj_prefix *prefix_add(nj_kv *kv, nj_prefix *parent, const nj_sequence *s, uint32_t index)
{
    nj_prefix *p = nj_new(nj_prefix);
    if (!p) return NULL;
    memcpy(p->token, s->token + (size_t)index * NJ_KV_PAGE, sizeof p->token);
    p->wide = s->wide[index];
    p->parent = parent;
    p->hash = hash_tokens(parent ? parent->hash : 0, p->token);
    p->hash_next = kv->bucket[p->hash & (kv->buckets - 1)];
    kv->bucket[p->hash & (kv->buckets - 1)] = p;
    if (parent) parent->children++;
    for (uint32_t g = 0; g < kv->m->groups; g++)
        if ((p->page[g] = s->page[g][index])) p->page[g]->refs++;
    order_push(kv, p);
    kv->prefixes++;
    return p;
}

/* Moves the sequence's place in the index. */
static void stand_on(nj_sequence *s, nj_prefix *p, uint32_t indexed)
{
    if (p) p->users++;
    if (s->prefix) s->prefix->users--;
    s->prefix = p;
    s->indexed = indexed;
}

/* ---- Pages ---- */

/* Gives one free page of any group back to the heap; false when there is none. */
static bool free_page_return(nj_kv *kv)
{
    for (uint32_t g = 0; g < kv->m->groups; g++) {
        nj_kv_page *page = kv->free_pages[g];
        if (!page) continue;
        kv->free_pages[g] = page->next_free;
        kv->bytes -= kv->page_bytes[g];
        free(page);
        return true;
    }
    return false;
}

static int page_new(nj_kv *kv, uint8_t group, nj_kv_page **out)
{
    uint64_t size = kv->page_bytes[group];
    while (!kv->free_pages[group] && kv->bytes + size > kv->bytes_max)
        if (!free_page_return(kv) && !prefix_evict(kv) && !window_evict(kv)) return -ENOSPC;
    nj_kv_page *page = kv->free_pages[group];
    if (page) {
        kv->free_pages[group] = page->next_free;
    } else {
        if (!(page = aligned_alloc(64, (size + 63) / 64 * 64))) return -ENOMEM;
        kv->bytes += size;
    }
    page->refs = 1;
    page->group = group;
    page->next_free = NULL;
    *out = page;
    return 0;
}

/* First position that the row after `length` cached positions can still see in a group. */
static uint32_t first_seen(const nj_cache_group *group, uint32_t length)
{
    return group->window && length >= group->window ? length - group->window + 1 : 0;
}

static int copy_if_shared(nj_kv *kv, nj_kv_page **slot)
{
    nj_kv_page *copy, *page = *slot;
    if (!page || page->refs == 1) return 0;
    int rc = page_new(kv, page->group, &copy);
    if (rc) return rc;
    memcpy(copy->data, page->data, kv->page_bytes[page->group] - sizeof *page);
    page_unref(kv, page);
    *slot = copy;
    return 0;
}

int nj_kv_reserve(nj_kv *kv, nj_sequence *s, uint32_t length)
{
    uint32_t need = (length + NJ_KV_PAGE - 1) / NJ_KV_PAGE, groups = kv->m->groups;
    int rc;
    if ((rc = nj_array_grow(&s->token, &s->token_cap, length, sizeof *s->token)) != 0) return rc;
    if ((rc = nj_array_grow(&s->wide, &s->wide_cap, need, sizeof *s->wide)) != 0) return rc;
    for (uint32_t g = 0; g < groups; g++) {
        if ((rc = nj_array_grow(&s->page[g], &s->page_cap[g], need, sizeof *s->page[g])) != 0) return rc;
        if (s->length % NJ_KV_PAGE && (rc = copy_if_shared(kv, &s->page[g][s->length / NJ_KV_PAGE])) != 0) return rc;
    }
    for (; s->pages < need; s->pages++) {
        uint32_t g;
        for (g = 0; g < groups; g++)
            if ((rc = page_new(kv, (uint8_t)g, &s->page[g][s->pages])) != 0) break;
        if (g == groups) continue;
        while (g--) page_unref(kv, s->page[g][s->pages]);
        return rc;
    }
    return 0;
}

void nj_kv_truncate(nj_kv *kv, nj_sequence *s, uint32_t length)
{
    if (length >= s->length) return;
    uint32_t keep = (length + NJ_KV_PAGE - 1) / NJ_KV_PAGE, full = length / NJ_KV_PAGE;
    /* A window has let go of pages that the shorter sequence would see again: then nothing of it can be kept. */
    for (uint32_t g = 0; g < kv->m->groups; g++)
        for (uint32_t p = first_seen(&kv->m->group[g], length) / NJ_KV_PAGE; p < keep; p++)
            if (!s->page[g][p]) keep = full = length = 0;
    while (s->pages > keep) {
        s->pages--;
        for (uint32_t g = 0; g < kv->m->groups; g++) page_unref(kv, s->page[g][s->pages]);
    }
    while (s->indexed > full) stand_on(s, s->prefix->parent, s->indexed - 1);
    s->length = length;
}

void nj_kv_release(nj_kv *kv, nj_sequence *s)
{
    for (uint32_t p = 0; p < s->pages; p++)
        for (uint32_t g = 0; g < kv->m->groups; g++) page_unref(kv, s->page[g][p]);
    stand_on(s, NULL, 0);
    s->pages = s->length = 0;
    s->synthetic = false;
}

/* The node holds the same bits as the sequence's own page: one copy is enough for both. */
static void share_page(nj_kv *kv, nj_kv_page **own, nj_kv_page **indexed)
{
    if (*own == *indexed || !*own) return;
    if (*indexed) {
        page_unref(kv, *own);
        *own = *indexed;
    } else {
        *indexed = *own; /* a window had left it behind */
    }
    (*own)->refs++;
}

void nj_kv_settle(nj_kv *kv, nj_sequence *s)
{
    while (!s->synthetic && s->indexed < s->length / NJ_KV_PAGE) {
        const int32_t *token = s->token + (size_t)s->indexed * NJ_KV_PAGE;
        nj_prefix *p = prefix_find(kv, s->prefix, token, s->wide[s->indexed], false);
        if (p)
            for (uint32_t g = 0; g < kv->m->groups; g++) share_page(kv, &s->page[g][s->indexed], &p->page[g]);
        else if (!(p = prefix_add(kv, s->prefix, s, s->indexed)))
            break; /* no memory: not shared, still right */
        stand_on(s, p, s->indexed + 1);
        prefix_touch(kv, p);
    }
    for (uint32_t g = 0; g < kv->m->groups; g++)
        for (uint32_t p = first_seen(&kv->m->group[g], s->length) / NJ_KV_PAGE; p-- > 0 && s->page[g][p];) {
            page_unref(kv, s->page[g][p]);
            s->page[g][p] = NULL;
        }
}

/* Of a chain of `pages` nodes ending at `p`: can a sequence go on from here, with all pages that its windows see? */
static bool chain_is_whole(const nj_kv *kv, const nj_prefix *p, uint32_t pages)
{
    for (uint32_t i = pages; i-- > 0; p = p->parent)
        for (uint32_t g = 0; g < kv->m->groups; g++)
            if (i >= first_seen(&kv->m->group[g], pages * NJ_KV_PAGE) / NJ_KV_PAGE && !p->page[g]) return false;
    return true;
}

/* Follows the index from the sequence's place along the tokens wanted; *pages counts the pages up to the result. */
static nj_prefix *find_chain(const nj_kv *kv, const nj_sequence *s, const nj_kv_want *want, uint32_t *pages)
{
    nj_prefix *p = s->prefix, *next;
    for (*pages = s->indexed; (*pages + 1) * NJ_KV_PAGE < want->n; ++*pages, p = next) {
        const int32_t *token = want->token + (size_t)*pages * NJ_KV_PAGE;
        if (!(next = prefix_find(kv, p, token, nj_kv_wide_bits(*pages, want->wide), want->any_recipe))) break;
    }
    for (; *pages > s->indexed && !chain_is_whole(kv, p, *pages); --*pages) p = p->parent;
    return p;
}

int nj_kv_adopt(nj_kv *kv, nj_sequence *s, const nj_kv_want *want)
{
    uint32_t own = s->indexed, pages, groups = kv->m->groups;
    int rc;
    if (s->length != own * NJ_KV_PAGE) return 0;
    nj_prefix *p = find_chain(kv, s, want, &pages);
    if (pages == own) return 0;
    if ((rc = nj_array_grow(&s->token, &s->token_cap, want->n, sizeof *s->token)) != 0) return rc;
    if ((rc = nj_array_grow(&s->wide, &s->wide_cap, pages, sizeof *s->wide)) != 0) return rc;
    for (uint32_t g = 0; g < groups; g++)
        if ((rc = nj_array_grow(&s->page[g], &s->page_cap[g], pages, sizeof *s->page[g])) != 0) return rc;
    while (s->pages > own) /* reserved for rows that were not computed */
        for (uint32_t g = (s->pages--, 0); g < groups; g++) page_unref(kv, s->page[g][s->pages]);
    memcpy(s->token, want->token, (size_t)pages * NJ_KV_PAGE * sizeof *want->token);
    stand_on(s, p, pages);
    prefix_touch(kv, p);
    for (uint32_t i = pages; i-- > own; p = p->parent) {
        s->wide[i] = p->wide;
        for (uint32_t g = 0; g < groups; g++)
            if ((s->page[g][i] = p->page[g])) p->page[g]->refs++;
    }
    s->pages = pages;
    s->length = pages * NJ_KV_PAGE;
    nj_kv_settle(kv, s);
    return (int)((pages - own) * NJ_KV_PAGE);
}

uint64_t nj_kv_bytes_for(const nj_kv *kv, uint32_t length)
{
    uint64_t bytes = 0, pages = ((uint64_t)length + NJ_KV_PAGE - 1) / NJ_KV_PAGE;
    for (uint32_t g = 0; g < kv->m->groups; g++) bytes += pages * kv->page_bytes[g];
    return bytes;
}

void nj_kv_free(nj_kv *kv)
{
    if (!kv->m) return; /* never initialised */
    while (prefix_evict(kv)) {
    }
    while (free_page_return(kv)) {
    }
    free(kv->bucket);
    *kv = (nj_kv){ 0 };
}
