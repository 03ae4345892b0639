/* Attention over paged keys and values with an online softmax (Milakov & Gimelshein 2018). Tiles are KV pages, so they
 * lie at fixed absolute positions and a row's result does not depend on how the prompt was cut into chunks. */
#include "engine/step.h"

#include <math.h>
#include <string.h>

/* Turns a tile's scores into weights relative to the new maximum and rescales what was summed before. */
static void softmax_tile(nj_softmax *run, float *scores, uint32_t n, float *out, uint32_t dim)
{
    float top = run->m;
    for (uint32_t p = 0; p < n; p++) top = scores[p] > top ? scores[p] : top;
    if (top > run->m) {
        float shrink = expf(run->m - top); /* 0 for the first tile: m starts at -inf */
        for (uint32_t d = 0; d < dim; d++) out[d] *= shrink;
        run->sum *= shrink;
        run->m = top;
    }
    for (uint32_t p = 0; p < n; p++) {
        scores[p] = expf(scores[p] - top);
        run->sum += scores[p];
    }
}

static void scale_scores(float *scores, uint32_t n, float scale, float softcap)
{
    for (uint32_t p = 0; p < n; p++) {
        scores[p] *= scale;
        if (softcap != 0.0f) scores[p] = softcap * tanhf(scores[p] / softcap);
    }
}

/* All query heads that share one key/value head, for one row: each page is read once for them. */
static void attend(const nj_step *s, const nj_op *op, uint32_t row, uint32_t kv_head, const nj_worker *own)
{
    const nj_kv *kv = s->kv;
    const nj_hparams *h = &s->m->h;
    uint32_t dim = op->width, group = h->heads / h->kv_heads, head = kv_head * group, position = s->position[row];
    const nj_cache_group *cache = &s->m->group[s->m->layer_cache[op->layer].group];
    nj_kv_page *const *pages = s->sequence[row]->page[s->m->layer_cache[op->layer].group];
    const float *q = nj_slot_row(s, op->src, row) + head * dim;
    float *out = nj_slot_row(s, op->dst, row) + head * dim, *scores = own->scores;
    nj_softmax *run = own->softmax;
    uint32_t start = cache->window && position >= cache->window ? position - cache->window + 1 : 0;
    memset(out, 0, sizeof *out * group * dim);
    for (uint32_t g = 0; g < group; g++) run[g] = (nj_softmax){ -INFINITY, 0.0f };
    for (uint32_t p = start / NJ_KV_PAGE; p <= position / NJ_KV_PAGE; p++) {
        uint32_t first = p == start / NJ_KV_PAGE ? start % NJ_KV_PAGE : 0;
        uint32_t last = p == position / NJ_KV_PAGE ? position % NJ_KV_PAGE + 1 : NJ_KV_PAGE;
        const char *keys = nj_kv_keys(kv, pages[p], op->layer, kv_head) + (size_t)first * kv->row_bytes;
        for (uint32_t g = 0; g < group; g++) {
            s->kernels->scores[kv->type](q + g * dim, keys, kv->row_bytes, last - first, dim, scores);
            scale_scores(scores, last - first, op->scale, h->attn_softcap);
            softmax_tile(&run[g], scores, last - first, out + g * dim, dim);
            s->kernels->mix[kv->type](scores, keys + nj_kv_values(kv), kv->row_bytes, last - first, dim, out + g * dim);
        }
    }
    for (uint32_t g = 0; g < group; g++)
        for (uint32_t d = 0; d < dim; d++) out[g * dim + d] /= run[g].sum;
}

/* Tasks (row, key/value head) are dealt out in turn: later rows see more positions, so blocks would be uneven. */
void nj_step_attention(const nj_step *s, const nj_op *op, uint32_t worker, uint32_t workers)
{
    uint32_t kv_heads = s->m->h.kv_heads;
    for (uint64_t task = worker; task < (uint64_t)s->rows * kv_heads; task += workers)
        attend(s, op, (uint32_t)(task / kv_heads), (uint32_t)(task % kv_heads), &s->worker[worker]);
}
