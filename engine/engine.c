/* An engine: workers, scratch, KV pages and statistics around the step. */
#include "engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_DEFAULT = 256 };

static int choose_kernels(nj_engine *e, int isa, bool acts_f32, nj_error *err)
{
    const nj_kernels *kernels = nj_kernels_get(isa < 0 ? nj_isa_best() : (nj_isa)isa);
    if (kernels) {
        nj_step_use(&e->step, kernels, acts_f32);
        return 0;
    }
    nj_fail(err, -ENOTSUP, "this CPU or operating system can't run the %s kernels", nj_isa_name((nj_isa)isa));
    return nj_remedy(err, "Leave --isa out: the best tier (%s) is chosen by itself.", nj_isa_name(nj_isa_best()));
}

/* Half of what is available now: the page cache and other programs live on the rest. */
static uint64_t kv_budget(const nj_engine_options *opt)
{
    nj_machine machine;
    if (opt->kv_bytes_max) return opt->kv_bytes_max;
    nj_machine_read(&machine);
    return machine.ram_available_bytes / 2;
}

int nj_engine_new(nj_engine **out, const nj_model *m, const nj_engine_options *opt, nj_error *err)
{
    static const nj_engine_options defaults = { .isa = -1 };
    if (!opt) opt = &defaults;
    nj_engine *e = nj_new(nj_engine);
    if (!e) return nj_fail(err, -ENOMEM, "no memory");
    e->m = m;
    e->context = opt->context ? opt->context : m->h.context;
    e->step = (nj_step){
        .m = m, .kv = &e->kv, .rows_max = opt->rows_max ? opt->rows_max : ROWS_DEFAULT, .context = e->context
    };
    uint32_t kv_type = opt->kv_type || opt->kv_type_set ? opt->kv_type : NJ_F16;
    int rc = choose_kernels(e, opt->isa, opt->acts_f32, err);
    if (!rc && e->step.rows_max > NJ_STEP_ROWS_MAX)
        rc =
            nj_fail(err, -EINVAL, "a step of %u rows is too large, the most is %u", e->step.rows_max, NJ_STEP_ROWS_MAX);
    if (!rc && (kv_type >= NJ_TYPE_COUNT || !e->step.kernels->store[kv_type]))
        rc = nj_fail(err, -EINVAL, "the KV cache can be f16, f32 or q8_0, not %s", nj_format_name(kv_type));
    if (!rc) rc = nj_kv_init(&e->kv, m, kv_type, kv_budget(opt), err);
    if (!rc) rc = nj_pool_new(&e->step.pool, opt->threads, err);
    if (!rc) rc = nj_step_init(&e->step, &e->scratch, err);
    e->row = nj_array_new(e->step.rows_max, sizeof *e->row);
    e->row_session = nj_array_new(e->step.rows_max, sizeof *e->row_session);
    if (!rc && (!e->row || !e->row_session)) rc = nj_fail(err, -ENOMEM, "no memory");
    if (rc)
        nj_engine_free(e);
    else
        *out = e;
    return rc;
}

void nj_engine_free(nj_engine *e)
{
    if (!e) return;
    while (e->sessions) nj_session_free(e, e->sessions);
    free(e->row_session);
    free(e->row);
    nj_arena_free(e->scratch);
    nj_pool_free(e->step.pool);
    nj_kv_free(&e->kv);
    free(e);
}

void nj_engine_stats_read(const nj_engine *e, nj_engine_stats *out)
{
    *out = e->stats;
    out->isa = e->step.kernels->isa;
    out->has_wide = e->step.has_wide;
    out->threads = nj_pool_workers(e->step.pool);
    out->attention_ns = e->step.attention_ns;
    out->kv_bytes = e->kv.bytes;
    out->kv_bytes_max = e->kv.bytes_max;
}

int nj_sequence_new(nj_engine *e, nj_sequence **out, nj_error *err)
{
    (void)e;
    *out = nj_new(nj_sequence);
    return *out ? 0 : nj_fail(err, -ENOMEM, "no memory");
}

void nj_sequence_free(nj_engine *e, nj_sequence *s)
{
    if (!s) return;
    nj_kv_release(&e->kv, s);
    for (int g = 0; g < NJ_CACHE_GROUPS_MAX; g++) free(s->page[g]);
    free(s->wide);
    free(s->token);
    free(s);
}

uint32_t nj_sequence_length(const nj_sequence *s)
{
    return s->length;
}

void nj_sequence_truncate(nj_engine *e, nj_sequence *s, uint32_t length)
{
    nj_kv_truncate(&e->kv, s, length);
}

static int check_rows(const nj_engine *e, const nj_row *rows, uint32_t n, nj_error *err)
{
    if (n > e->step.rows_max) return nj_fail(err, -EINVAL, "a step of %u rows, the most is %u", n, e->step.rows_max);
    for (uint32_t i = 0; i < n; i++)
        if (rows[i].token < 0 || (uint32_t)rows[i].token >= e->m->h.vocab)
            return nj_fail(err, -EINVAL, "token %d is outside the vocabulary of %u", rows[i].token, e->m->h.vocab);
    return 0;
}

/* Gives every row its position and takes the pages for it. Until all have succeeded only `pending` counts change. */
static int place_rows(nj_engine *e, const nj_row *rows, uint32_t n, nj_error *err)
{
    nj_step *s = &e->step;
    int rc = 0;
    for (uint32_t i = 0; i < n; i++) rows[i].sequence->pending = 0;
    for (uint32_t i = 0; i < n && !rc; i++) {
        nj_sequence *q = rows[i].sequence;
        s->position[i] = q->length + q->pending++;
        s->sequence[i] = q;
        s->token[i] = rows[i].token;
        s->wide[i] = rows[i].prompt && s->has_wide;
        if (s->position[i] >= e->context)
            rc = nj_fail(err, -EOVERFLOW, "the context of %u positions is full", e->context);
    }
    for (uint32_t i = 0; i < n && !rc; i++) {
        nj_sequence *q = rows[i].sequence;
        rc = nj_kv_reserve(&e->kv, q, q->length + q->pending);
        if (rc)
            nj_fail(err, rc, "no room for more KV pages (%.1f of %.1f GB in use)", (double)e->kv.bytes / 1e9,
                    (double)e->kv.bytes_max / 1e9);
    }
    return rc;
}

static void select_rows(nj_step *s, const nj_row *rows, uint32_t n)
{
    s->rows = n;
    s->selected = 0;
    for (uint32_t i = 0; i < n; i++)
        if (rows[i].logits) s->select[s->selected++] = i;
}

/* Keys and values that some row at the positions [first, last] of a sequence sees, its own included. */
static uint64_t values_seen(const nj_model *m, uint32_t first, uint32_t last)
{
    uint64_t values = 0;
    for (uint32_t g = 0; g < m->groups; g++) {
        uint32_t window = m->group[g].window, begin = window && first >= window ? first - window + 1 : 0;
        values += 2ull * m->group[g].layers * m->h.kv_heads * m->h.head_dim * (last + 1 - begin);
    }
    return values;
}

/* Weight bytes that the last step had to read. The output matrix is for rows that asked for logits. */
static uint64_t weights_read(const nj_step *s)
{
    const nj_panels *output = &s->m->output.panels;
    uint64_t unread = s->selected ? 0 : nj_row_bytes(output->type, output->cols) * output->rows;
    return s->m->bytes_dense - unread + s->routing.bytes;
}

int nj_engine_step(nj_engine *e, const nj_row *rows, uint32_t n, const float **logits, nj_error *err)
{
    nj_step *s = &e->step;
    int rc = check_rows(e, rows, n, err);
    if (!rc) rc = place_rows(e, rows, n, err);
    if (rc || n == 0) return rc;
    select_rows(s, rows, n);
    nj_step_run(s);
    for (uint32_t i = 0; i < n; i++) {
        rows[i].sequence->token[s->position[i]] = rows[i].token;
        nj_kv_mark(rows[i].sequence, s->position[i], s->wide[i]);
        e->stats.kv_values += values_seen(e->m, s->position[i], s->position[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        nj_sequence *q = rows[i].sequence;
        if (!q->pending) continue; /* settled with an earlier row */
        e->stats.kv_read += values_seen(e->m, q->length, q->length + q->pending - 1);
        q->length += q->pending;
        q->pending = 0;
        nj_kv_settle(&e->kv, q);
    }
    e->stats.steps++;
    e->stats.rows += n;
    e->stats.weight_bytes += weights_read(s);
    *logits = s->slot[NJ_SLOT_LOGITS];
    return 0;
}
