/* Attention over paged keys and values. Each row's cached positions are cut at fixed absolute positions: into tiles (KV
 * pages) for the online softmax, and into splits of SPLIT positions, whose sums are folded together in ascending order.
 * So a row's result depends neither on how the prompt was cut into steps nor on who computes which split.
 *
 * Work is a list of items: a block of rows of one sequence times a key/value head, whose queries share every page that
 * is read. An item that is a large part of all work (a long sequence that decodes) is cut at its splits, so that every
 * worker finds some; the sums of each split are then kept until all are there. */
#include "engine/step.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    SPLIT = 1024,         /* positions; 16 pages, so that folding is below 1% of a split's work */
    QUERIES_WHOLE = 128,  /* queries of an item; unpacking a page for them costs 3% of multiplying with it */
    QUERIES_CUT = 16,     /* of an item that may be cut; bounds the memory for kept sums */
    ITEMS_PER_WORKER = 4, /* an item above 1 / (4 workers) of all work is cut; smaller ones even out */
    UNPACK_QUERIES = 4    /* unpacking a page takes as long as multiplying it with four queries */
};

static_assert(SPLIT % NJ_KV_PAGE == 0 && (int)NJ_KV_PAGE == (int)NJ_TILE, "a page is a tile, a split whole pages");

/* Consecutive rows of one sequence, and the pages that they see: [page_begin, page_end). */
typedef struct block {
    uint32_t row, rows, page_begin, page_end;
} block;

/* How a step's work is cut; every worker comes to the same plan. */
typedef struct plan {
    uint32_t group;      /* query heads that share a key/value head */
    uint32_t window;     /* positions a row sees, 0: all */
    uint32_t block_rows; /* most rows of a block */
    uint64_t cost;       /* of all items, in (query, page) pairs */
} plan;

/* First position that a row at `position` sees. */
static uint32_t first_seen(const plan *p, uint32_t position)
{
    return p->window && position >= p->window ? position - p->window + 1 : 0;
}

/* The block that begins at row b->row + b->rows; false after the last row. */
static bool next_block(const nj_step *s, const plan *p, block *b)
{
    uint32_t row = b->row + b->rows, end = row + 1;
    if (row == s->rows) return false;
    while (end < s->rows && end - row < p->block_rows && s->sequence[end] == s->sequence[row] &&
           s->position[end] == s->position[end - 1] + 1)
        end++;
    *b = (block){ row, end - row, first_seen(p, s->position[row]) / NJ_KV_PAGE, s->position[end - 1] / NJ_KV_PAGE + 1 };
    return true;
}

static uint64_t cost_of(const plan *p, const block *b, uint32_t pages)
{
    return (uint64_t)(b->rows * p->group + UNPACK_QUERIES) * pages;
}

static uint32_t first_split(const block *b)
{
    return b->page_begin / (SPLIT / NJ_KV_PAGE);
}

static uint32_t splits_of(const block *b)
{
    return (b->page_end - 1) / (SPLIT / NJ_KV_PAGE) + 1 - first_split(b);
}

static bool is_cut(const plan *p, const block *b, uint32_t workers)
{
    return (b->rows == 1 || b->rows * p->group <= QUERIES_CUT) && splits_of(b) > 1 &&
           cost_of(p, b, b->page_end - b->page_begin) * ITEMS_PER_WORKER * workers > p->cost;
}

/* Blocks are as large as leaves a few items for every worker. */
static plan make_plan(const nj_step *s, const nj_op *op, uint32_t workers)
{
    const nj_hparams *h = &s->m->h;
    plan p = { .group = h->heads / h->kv_heads, .window = s->m->group[s->m->layer_cache[op->layer].group].window };
    for (uint32_t queries = QUERIES_WHOLE;; queries /= 2) {
        uint32_t items = 0;
        block b = { 0 };
        p.block_rows = queries > p.group ? queries / p.group : 1;
        p.cost = 0;
        while (next_block(s, &p, &b)) {
            items += h->kv_heads;
            p.cost += cost_of(&p, &b, b.page_end - b.page_begin) * h->kv_heads;
        }
        if (items >= ITEMS_PER_WORKER * workers || queries <= QUERIES_CUT) return p;
    }
}

/* The block's queries of one key/value head, scaled, as runs of 64 dims. */
static void take_queries(const nj_step *s, const nj_op *op, const plan *p, const block *b, uint32_t kv_head,
                         const nj_attention *own)
{
    uint32_t count = b->rows * p->group;
    for (uint32_t i = 0; i < count; i++) {
        const float *q =
            nj_slot_row(s, op->src, b->row + i / p->group) + (kv_head * p->group + i % p->group) * op->width;
        for (uint32_t d = 0; d < op->width; d++)
            own->q[((size_t)(d / 64) * count + i) * 64 + d % 64] = q[d] * op->scale;
    }
}

/* What each query sees of a page whose first position is `base`; NULL when that is all of it. */
static const nj_span *spans_of(const nj_step *s, const plan *p, const block *b, uint32_t base, const nj_attention *own)
{
    const uint32_t *position = s->position + b->row;
    if (position[0] + 1 >= base + NJ_TILE && first_seen(p, position[b->rows - 1]) <= base) return NULL;
    for (uint32_t i = 0; i < b->rows * p->group; i++) {
        uint32_t at = position[i / p->group], first = first_seen(p, at), last = at + 1;
        first = first > base ? first - base : 0;
        last = last > base ? last - base : 0;
        own->span[i] =
            (nj_span){ (uint8_t)(first < NJ_TILE ? first : NJ_TILE), (uint8_t)(last < NJ_TILE ? last : NJ_TILE) };
    }
    return own->span;
}

/* The sums of `q` over the pages [begin, end). */
static void attend_pages(const nj_step *s, const nj_op *op, const plan *p, const block *b, uint32_t kv_head,
                         uint32_t begin, uint32_t end, const nj_queries *q, const nj_attention *own)
{
    const nj_kv *kv = s->kv;
    nj_kv_page *const *pages = s->sequence[b->row]->page[s->m->layer_cache[op->layer].group];
    uint32_t length = s->position[b->row + b->rows - 1] + 1;
    memset(q->out, 0, sizeof *q->out * q->count * nj_attend_width(q->dim));
    for (uint32_t i = 0; i < q->count; i++) q->run[i] = (nj_softmax){ -INFINITY, 0.0f };
    for (uint32_t page = begin; page < end; page++) {
        uint32_t base = page * NJ_KV_PAGE;
        const char *keys = nj_kv_keys(kv, pages[page], op->layer, kv_head);
        const char *next = page + 1 < end ? nj_kv_keys(kv, pages[page + 1], op->layer, kv_head) : NULL;
        s->kernels->attend[kv->type](q, &(nj_tile){ .keys = keys,
                                                    .values = keys + nj_kv_values(kv),
                                                    .stride = kv->row_bytes,
                                                    .n = length - base < NJ_TILE ? length - base : NJ_TILE,
                                                    .span = spans_of(s, p, b, base, own),
                                                    .next_keys = next,
                                                    .next_values = next ? next + nj_kv_values(kv) : NULL });
    }
}

/* Adds the sums of a split to those of the splits before it. Where a row sees nothing of a split, nothing changes. */
static void fold(nj_softmax *total, float *out, const nj_softmax *part, const float *part_out, uint32_t dim)
{
    if (part->m == -INFINITY) return;
    float m = part->m > total->m ? part->m : total->m;
    float keep = expf(total->m - m), add = expf(part->m - m); /* keep is 0 for the first split */
    for (uint32_t d = 0; d < dim; d++) out[d] = out[d] * keep + part_out[d] * add;
    *total = (nj_softmax){ m, total->sum * keep + part->sum * add };
}

static float *output_of(const nj_step *s, const nj_op *op, const plan *p, const block *b, uint32_t kv_head, uint32_t i)
{
    return nj_slot_row(s, op->dst, b->row + i / p->group) + (kv_head * p->group + i % p->group) * op->width;
}

/* Pages of split i of a block, counted from its first. */
static void pages_of(const block *b, uint32_t i, uint32_t *begin, uint32_t *end)
{
    uint32_t at = (first_split(b) + i) * (SPLIT / NJ_KV_PAGE);
    *begin = at > b->page_begin ? at : b->page_begin;
    *end = at + SPLIT / NJ_KV_PAGE < b->page_end ? at + SPLIT / NJ_KV_PAGE : b->page_end;
}

/* Of all splits folded, the weighted mean of the values. */
static void divide(float *out, const nj_softmax *total, uint32_t dim)
{
    for (uint32_t d = 0; d < dim; d++) out[d] /= total->sum;
}

/* An item that one worker does alone: splits are folded as they come. */
static void attend_whole(const nj_step *s, const nj_op *op, const plan *p, const block *b, uint32_t kv_head,
                         const nj_attention *own)
{
    uint32_t dim = op->width, width = nj_attend_width(dim), begin, end;
    nj_queries q = { b->rows * p->group, dim, s->m->h.attn_softcap, own->q, own->run, own->out, own->scratch };
    take_queries(s, op, p, b, kv_head, own);
    for (uint32_t i = 0; i < q.count; i++) {
        own->total[i] = (nj_softmax){ -INFINITY, 0.0f };
        memset(output_of(s, op, p, b, kv_head, i), 0, sizeof(float) * dim);
    }
    for (uint32_t split = 0; split < splits_of(b); split++) {
        pages_of(b, split, &begin, &end);
        attend_pages(s, op, p, b, kv_head, begin, end, &q, own);
        for (uint32_t i = 0; i < q.count; i++)
            fold(&own->total[i], output_of(s, op, p, b, kv_head, i), &q.run[i], q.out + (size_t)i * width, dim);
    }
    for (uint32_t i = 0; i < q.count; i++) divide(output_of(s, op, p, b, kv_head, i), &own->total[i], dim);
}

/* One split of an item that is cut: its sums go to slot `slot` of those that are kept. */
static void attend_split(const nj_step *s, const nj_op *op, const plan *p, const block *b, uint32_t kv_head,
                         uint32_t split, size_t slot, const nj_attention *own)
{
    uint32_t begin, end;
    nj_queries q = { .count = b->rows * p->group,
                     .dim = op->width,
                     .softcap = s->m->h.attn_softcap,
                     .q = own->q,
                     .run = s->kept_run + slot,
                     .out = s->kept_out + slot * nj_attend_width(op->width),
                     .scratch = own->scratch };
    take_queries(s, op, p, b, kv_head, own);
    pages_of(b, split, &begin, &end);
    attend_pages(s, op, p, b, kv_head, begin, end, &q, own);
}

/* Folds the kept sums of an item, from slot `slot` on, for its query i. */
static void finish(const nj_step *s, const nj_op *op, const plan *p, const block *b, uint32_t kv_head, uint32_t i,
                   size_t slot)
{
    nj_softmax total = { -INFINITY, 0.0f };
    float *out = output_of(s, op, p, b, kv_head, i);
    memset(out, 0, sizeof *out * op->width);
    for (uint32_t split = 0; split < splits_of(b); split++) {
        size_t at = slot + (size_t)split * b->rows * p->group + i;
        fold(&total, out, s->kept_run + at, s->kept_out + at * nj_attend_width(op->width), op->width);
    }
    divide(out, &total, op->width);
}

/* Does this worker own the work of `cost` that comes after `before`? Each has a contiguous part of all. */
static bool is_mine(const plan *p, uint64_t before, uint64_t cost, uint32_t worker, uint32_t workers)
{
    return (before + cost / 2) * workers / p->cost == worker;
}

/* This worker's items, and splits of items that are cut; returns the slots that those of all workers fill. */
static size_t attend_share(const nj_step *s, const nj_op *op, const plan *p, uint32_t worker, uint32_t workers)
{
    const nj_attention *own = &s->worker[worker].attention;
    uint64_t before = 0;
    size_t slot = 0;
    for (block b = { 0 }; next_block(s, p, &b);) {
        bool cut = is_cut(p, &b, workers);
        for (uint32_t head = 0; head < s->m->h.kv_heads; head++)
            for (uint32_t i = 0; i < (cut ? splits_of(&b) : 1); i++) {
                uint32_t begin = b.page_begin, end = b.page_end;
                if (cut) pages_of(&b, i, &begin, &end);
                uint64_t cost = cost_of(p, &b, end - begin);
                bool mine = is_mine(p, before, cost, worker, workers);
                if (mine && cut) attend_split(s, op, p, &b, head, i, slot, own);
                if (mine && !cut) attend_whole(s, op, p, &b, head, own);
                before += cost;
                slot += cut ? b.rows * p->group : 0;
            }
    }
    return slot;
}

/* Queries of items that were cut, dealt out in turn. */
static void finish_share(const nj_step *s, const nj_op *op, const plan *p, uint32_t worker, uint32_t workers)
{
    size_t slot = 0;
    uint32_t turn = 0;
    for (block b = { 0 }; next_block(s, p, &b);) {
        if (!is_cut(p, &b, workers)) continue;
        for (uint32_t head = 0; head < s->m->h.kv_heads; head++, slot += (size_t)splits_of(&b) * b.rows * p->group)
            for (uint32_t i = 0; i < b.rows * p->group; i++)
                if (turn++ % workers == worker) finish(s, op, p, &b, head, i, slot);
    }
}

void nj_step_attention(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    plan p = make_plan(s, op, workers);
    if (attend_share(s, op, &p, worker, workers) == 0) return;
    nj_pool_barrier(s->pool);
    finish_share(s, op, &p, worker, workers);
}

/* An item is cut when it is more than 1 / (ITEMS_PER_WORKER * workers) of all work, so fewer than that many are. */
nj_attention_size nj_attention_size_of(const nj_step *s)
{
    const nj_hparams *h = &s->m->h;
    uint32_t group = h->heads / h->kv_heads, workers = nj_pool_workers(s->pool);
    uint64_t items = (uint64_t)s->rows_max * h->kv_heads, splits = s->context / SPLIT + 1;
    if (items > (uint64_t)ITEMS_PER_WORKER * workers) items = (uint64_t)ITEMS_PER_WORKER * workers;
    return (nj_attention_size){ .queries = group > QUERIES_WHOLE ? group : QUERIES_WHOLE,
                                .kept = items * splits * (group > QUERIES_CUT ? group : QUERIES_CUT) };
}
