/* Reading tensors into their arena: workers take chunks of rows, read them, and pack them where they belong. */
#include "engine/load.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, CHUNK_BYTES = 4 << 20 };

int nj_load_read(const nj_load_source *s, const nj_tensor *t, uint64_t offset, void *dst, uint64_t len, nj_error *err)
{
    if (!s->synth) return nj_gguf_read(s->g, t, offset, dst, len, err);
    nj_synth_read(s->synth, t, offset, dst, len);
    return 0;
}

static uint64_t item_bytes(nj_load_form form, uint32_t type, uint32_t rows, uint32_t cols)
{
    switch (form) {
    case NJ_LOAD_PANELS: return nj_panels_bytes(type, rows, cols);
    case NJ_LOAD_ROWS: return nj_row_bytes(type, cols) * rows;
    case NJ_LOAD_F32: return (uint64_t)rows * cols * sizeof(float);
    }
    return 0;
}

int nj_load_add(nj_load *l, const nj_tensor *t, nj_load_form form, uint32_t count, uint32_t rows, uint32_t cols,
                void *owner, nj_error *err)
{
    uint64_t stride = item_bytes(form, t->type, rows, cols), bytes, total;
    if (stride == 0 || __builtin_add_overflow(stride, ALIGN - 1, &stride)) goto too_large;
    stride = stride / ALIGN * ALIGN;
    if (__builtin_mul_overflow(stride, count, &bytes) || __builtin_add_overflow(l->bytes, bytes, &total))
        goto too_large;
    if (nj_array_grow(&l->item, &l->cap, l->count + 1, sizeof *l->item)) return nj_fail(err, -ENOMEM, "no memory");
    l->item[l->count++] = (nj_load_item){ t, form, count, rows, cols, stride, NULL, owner };
    l->bytes = total;
    return 0;
too_large:
    return nj_fail(err, -EOVERFLOW, "tensor %s is too large to load", t->name.data);
}

/* What workers share. Chunk c of an item covers rows [c * chunk_rows, ...) of its count * rows rows; chunks never span
 * two matrices, and in panel form they hold whole panels. */
typedef struct loader {
    const nj_load *load;
    const nj_load_source *source;
    const nj_model_options *opt;
    uint64_t *first_chunk; /* [items + 1] running count of chunks */
    uint32_t *chunk_rows;  /* [items] */
    atomic_uint_fast64_t next, done_bytes;
    atomic_int rc;
    pthread_mutex_t lock; /* guards err, and progress */
    nj_error *err;
    uint64_t total_bytes;
} loader;

static void plan_chunks(loader *ld)
{
    for (size_t i = 0; i < ld->load->count; i++) {
        const nj_load_item *it = &ld->load->item[i];
        uint64_t row = nj_row_bytes(it->tensor->type, it->cols);
        uint64_t rows = CHUNK_BYTES / row / NJ_PANEL_ROWS * NJ_PANEL_ROWS;
        if (rows < NJ_PANEL_ROWS) rows = NJ_PANEL_ROWS;
        if (rows > it->rows) rows = it->rows;
        ld->chunk_rows[i] = (uint32_t)rows;
        ld->first_chunk[i + 1] = ld->first_chunk[i] + (it->rows + rows - 1) / rows * it->count;
        ld->total_bytes += it->tensor->bytes;
    }
}

static void place_rows(const nj_load_item *it, uint32_t matrix, uint32_t row, uint32_t rows, const char *src)
{
    uint64_t row_bytes = nj_row_bytes(it->tensor->type, it->cols);
    char *dst = (char *)it->data + it->stride * matrix;
    if (it->form == NJ_LOAD_ROWS) {
        memcpy(dst + row * row_bytes, src, rows * row_bytes);
    } else if (it->form == NJ_LOAD_F32) {
        nj_decode(it->tensor->type, src, (float *)dst + (uint64_t)row * it->cols, (size_t)rows * it->cols);
    } else {
        uint64_t panel_bytes = nj_panel_bytes(it->tensor->type, it->cols);
        for (uint32_t r = 0; r < rows; r += NJ_PANEL_ROWS) {
            uint32_t n = rows - r < NJ_PANEL_ROWS ? rows - r : NJ_PANEL_ROWS;
            nj_panel_pack(it->tensor->type, src + r * row_bytes, n, it->cols,
                          dst + (row + r) / NJ_PANEL_ROWS * panel_bytes);
        }
    }
}

static int load_chunk(loader *ld, uint64_t chunk, char *buf, nj_error *err)
{
    size_t i = 0, end = ld->load->count; /* the last item whose first chunk is not after `chunk` */
    while (end - i > 1) {
        size_t mid = (i + end) / 2;
        if (ld->first_chunk[mid] <= chunk)
            i = mid;
        else
            end = mid;
    }
    const nj_load_item *it = &ld->load->item[i];
    uint64_t row_bytes = nj_row_bytes(it->tensor->type, it->cols);
    uint32_t chunks = (it->rows + ld->chunk_rows[i] - 1) / ld->chunk_rows[i];
    uint64_t index = chunk - ld->first_chunk[i];
    uint32_t matrix = (uint32_t)(index / chunks), row = (uint32_t)(index % chunks) * ld->chunk_rows[i];
    uint32_t rows = it->rows - row < ld->chunk_rows[i] ? it->rows - row : ld->chunk_rows[i];
    uint64_t at = ((uint64_t)matrix * it->rows + row) * row_bytes;
    int rc = nj_load_read(ld->source, it->tensor, at, buf, rows * row_bytes, err);
    if (rc) return rc;
    place_rows(it, matrix, row, rows, buf);
    atomic_fetch_add(&ld->done_bytes, rows * row_bytes);
    return 0;
}

static void stop_loading(loader *ld, int rc, const nj_error *why)
{
    pthread_mutex_lock(&ld->lock);
    if (atomic_load(&ld->rc) == 0) {
        atomic_store(&ld->rc, rc);
        if (ld->err) *ld->err = *why;
    }
    pthread_mutex_unlock(&ld->lock);
}

static void load_work(void *arg, uint32_t worker, uint32_t workers)
{
    loader *ld = arg;
    (void)workers;
    nj_error err = { 0 };
    uint64_t widest = CHUNK_BYTES;
    for (size_t i = 0; i < ld->load->count; i++) {
        uint64_t need = nj_row_bytes(ld->load->item[i].tensor->type, ld->load->item[i].cols) * ld->chunk_rows[i];
        if (need > widest) widest = need;
    }
    char *buf = malloc(widest);
    if (!buf) stop_loading(ld, nj_fail(&err, -ENOMEM, "no memory for a %" PRIu64 " byte read buffer", widest), &err);
    uint64_t chunks = ld->first_chunk[ld->load->count], chunk;
    while (atomic_load(&ld->rc) == 0 && (chunk = atomic_fetch_add(&ld->next, 1)) < chunks) {
        int rc = load_chunk(ld, chunk, buf, &err);
        if (!rc && ld->opt->cancel && *ld->opt->cancel) rc = nj_fail(&err, -ECANCELED, "loading was interrupted");
        if (rc) stop_loading(ld, rc, &err);
        if (worker == 0 && ld->opt->progress)
            ld->opt->progress(ld->opt->progress_arg, atomic_load(&ld->done_bytes), ld->total_bytes);
    }
    free(buf);
}

int nj_load_run(nj_load *l, const nj_load_source *source, const nj_model_options *opt, nj_arena **arena, nj_error *err)
{
    loader ld = { .load = l, .source = source, .opt = opt, .err = err };
    nj_pool *pool = NULL;
    int rc = nj_arena_new(arena, l->bytes, err);
    if (rc) return rc;
    for (size_t i = 0; i < l->count; i++) {
        nj_load_item *it = &l->item[i];
        if (!(it->data = nj_arena_take(*arena, it->stride * it->count, ALIGN)))
            return nj_fail(err, -ENOMEM, "the weights' arena is too small");
        assert(it->owner || it->data == (char *)it[-1].data + it[-1].stride); /* follows the item before it */
        if (it->owner) memcpy(it->owner, &it->data, sizeof it->data); /* a pointer of any type: copied, not aliased */
    }
    pthread_mutex_init(&ld.lock, NULL);
    ld.first_chunk = nj_array_new(l->count + 1, sizeof *ld.first_chunk);
    ld.chunk_rows = nj_array_new(l->count, sizeof *ld.chunk_rows);
    if (!ld.first_chunk || !ld.chunk_rows) {
        rc = nj_fail(err, -ENOMEM, "no memory to plan loading");
        goto done;
    }
    plan_chunks(&ld);
    if ((rc = nj_pool_new(&pool, opt->threads, err)) != 0) goto done;
    nj_pool_run(pool, load_work, &ld);
    rc = atomic_load(&ld.rc);
    if (!rc && opt->progress) opt->progress(opt->progress_arg, ld.total_bytes, ld.total_bytes);
done:
    nj_pool_free(pool);
    free(ld.chunk_rows);
    free(ld.first_chunk);
    pthread_mutex_destroy(&ld.lock);
    return rc;
}

void nj_load_free(nj_load *l)
{
    free(l->item);
    *l = (nj_load){ 0 };
}
