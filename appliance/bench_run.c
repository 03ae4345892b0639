/* Measuring: engines, and the rounds in which rows and peers take turns. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/bench.h"
#include "appliance/cli.h"

#define CHUNK_ROWS  512u /* of a prefill step: a longer prompt takes several */
#define READ_PASSES 3    /* the fastest is the limit */
#define PEAK_PASSES 5
#define PROBE_BYTES (UINT64_C(2) << 30)

/* What one (threads, isa) needs: an engine, and workers of the same number for the limits. */
typedef struct lane {
    nj_engine *engine;
    nj_pool *pool;
} lane;

typedef struct bench_run {
    nj_bench *b;
    nj_probe *probe;
    lane lane[NJ_BENCH_LIST_MAX * NJ_ISA_COUNT];
    uint32_t rows_max, sequences_max; /* of a step; of a row */
    nj_sequence **sequence;           /* [sequences_max] */
    nj_row *row;                      /* [rows_max] */
    cpu_set_t cpus;                   /* where this process may run */
    nj_progress bar;
    uint64_t steps, steps_all;
} bench_run;

/* ---- Rows ---- */

int nj_bench_plan_rows(nj_bench *b, const nj_bench_plan *plan, nj_error *err)
{
    uint32_t decode = plan->tokens ? plan->parallel.count * plan->ctx.count : 0;
    uint32_t prefill = plan->prompt ? plan->ctx.count : 0;
    if (decode + prefill == 0) return nj_fail(err, -EINVAL, "With -p 0 and -n 0 there is nothing to measure.");
    if (plan->threads.count * plan->isa.count > NJ_COUNT(b->setting))
        return nj_fail(err, -EINVAL, "--threads and --isa: at most %zu combinations.", NJ_COUNT(b->setting));
    b->settings = plan->threads.count * plan->isa.count;
    b->row = nj_array_new((size_t)b->settings * (decode + prefill), sizeof *b->row);
    if (!b->row) return nj_fail(err, -ENOMEM, "There is no memory left.");
    b->rows = 0;
    for (uint32_t s = 0; s < b->settings; s++) {
        b->setting[s] = (nj_bench_setting){ plan->threads.item[s / plan->isa.count],
                                            (int)plan->isa.item[s % plan->isa.count], NJ_PEAK_COUNT };
        for (uint32_t c = 0; c < prefill; c++)
            b->row[b->rows++] = (nj_bench_row){
                .kind = NJ_BENCH_PREFILL, .parallel = 1, .ctx = plan->ctx.item[c], .tokens = plan->prompt, .setting = s
            };
        for (uint32_t i = 0; i < decode; i++)
            b->row[b->rows++] = (nj_bench_row){ .kind = NJ_BENCH_DECODE,
                                                .parallel = plan->parallel.item[i % plan->parallel.count],
                                                .ctx = plan->ctx.item[i / plan->parallel.count],
                                                .tokens = plan->tokens,
                                                .setting = s };
    }
    return 0;
}

/* Steps of one visit, warm-up included. */
static uint32_t row_steps(const nj_bench_row *row)
{
    return 1 + (row->kind == NJ_BENCH_DECODE ? row->tokens : (row->tokens + CHUNK_ROWS - 1) / CHUNK_ROWS);
}

static int tick(bench_run *r, nj_error *err)
{
    nj_progress_update(&r->bar, ++r->steps, r->steps_all);
    return nj_cli_interrupted ? nj_fail(err, -ECANCELED, "Stopped.") : 0;
}

/* A token that differs from row to row and step to step, so that experts are chosen as by texts. */
static int32_t token_of(const nj_bench *b, uint32_t sequence, uint32_t position)
{
    uint32_t x = (sequence * 7919u + position) * 2654435761u;
    return (int32_t)((x ^ x >> 15) % b->info->vocab);
}

/* One step of decode: a token for each of `n` sequences. */
static int decode_step(bench_run *r, nj_engine *e, uint32_t n, uint32_t position, nj_error *err)
{
    const float *logits;
    for (uint32_t i = 0; i < n; i++)
        r->row[i] = (nj_row){ .sequence = r->sequence[i], .token = token_of(r->b, i, position), .logits = true };
    int rc = nj_engine_step(e, r->row, n, &logits, err);
    return rc ? rc : tick(r, err);
}

static int prefill(bench_run *r, nj_engine *e, uint32_t tokens, nj_error *err)
{
    const float *logits;
    int rc = 0;
    for (uint32_t done = 0; done < tokens && rc == 0;) {
        uint32_t n = tokens - done < CHUNK_ROWS ? tokens - done : CHUNK_ROWS;
        for (uint32_t i = 0; i < n; i++, done++)
            r->row[i] = (nj_row){ .sequence = r->sequence[0],
                                  .token = token_of(r->b, 0, done),
                                  .logits = done + 1 == tokens,
                                  .prompt = true };
        rc = nj_engine_step(e, r->row, n, &logits, err);
        if (rc == 0) rc = tick(r, err);
    }
    return rc;
}

/* The row's own work, its warm-up outside of the clock. */
static int measure_work(bench_run *r, const nj_bench_row *row, nj_engine *e, nj_bench_sample *out, nj_error *err)
{
    nj_engine_stats before, after;
    int rc = decode_step(r, e, row->parallel, 0, err);
    nj_engine_stats_read(e, &before);
    uint64_t begin = nj_now_ns();
    if (row->kind == NJ_BENCH_PREFILL && rc == 0) rc = prefill(r, e, row->tokens, err);
    for (uint32_t i = 0; i < row->tokens && row->kind == NJ_BENCH_DECODE && rc == 0; i++)
        rc = decode_step(r, e, row->parallel, i + 1, err);
    out->seconds = (double)(nj_now_ns() - begin) / 1e9;
    nj_engine_stats_read(e, &after);
    out->attention_seconds = (double)(after.attention_ns - before.attention_ns) / 1e9;
    out->weight_bytes = (double)(after.weight_bytes - before.weight_bytes);
    out->kv_values = (double)(after.kv_values - before.kv_values);
    out->kv_read = (double)(after.kv_read - before.kv_read);
    return rc;
}

static double peak_rate(nj_pool *pool, nj_peak kind)
{
    double best = 0;
    for (int i = 0; i < PEAK_PASSES; i++) {
        double rate = nj_probe_peak(pool, kind);
        if (rate > best) best = rate;
    }
    return best;
}

static void measure_limits(const bench_run *r, const nj_bench_row *row, nj_bench_sample *out)
{
    const lane *l = &r->lane[row->setting];
    nj_peak peak = r->b->setting[row->setting].peak;
    for (int i = 0; i < READ_PASSES; i++) {
        double rate = nj_probe_read(r->probe, l->pool, nj_probe_bytes(r->probe) / 2);
        if (rate > out->ceiling_gb_s) out->ceiling_gb_s = rate;
    }
    if (peak < NJ_PEAK_COUNT) out->peak_gop_s = peak_rate(l->pool, peak);
}

/* Sequences filled up to the row's context, the limits, the work. */
static int visit(bench_run *r, nj_bench_row *row, nj_error *err)
{
    nj_engine *e = r->lane[row->setting].engine;
    nj_bench_sample sample = { 0 };
    uint32_t made = 0;
    int rc = 0;
    for (; made < row->parallel && rc == 0; made++) {
        if ((rc = nj_sequence_new(e, &r->sequence[made], err)) != 0) break;
        rc = nj_sequence_fill(e, r->sequence[made], row->ctx, err);
        if (rc == 0 && nj_cli_interrupted) rc = nj_fail(err, -ECANCELED, "Stopped.");
    }
    if (rc == 0) measure_limits(r, row, &sample);
    if (rc == 0) rc = measure_work(r, row, e, &sample, err);
    if (rc == 0) row->sample[row->samples++] = sample;
    while (made > 0) nj_sequence_free(e, r->sequence[--made]);
    if (rc != -ENOSPC && rc != -ENOMEM) return rc;
    snprintf(row->skipped, sizeof row->skipped, "%.199s", err->text);
    r->steps_all -= (uint64_t)row_steps(row) * r->b->repeat;
    return 0;
}

/* ---- Rounds ---- */

static int visit_peer(bench_run *r, nj_peer *p, nj_error *err)
{
    nj_buf text = { 0 };
    nj_peer_figure figure[NJ_PEER_FIGURES_MAX];
    snprintf(r->bar.note, sizeof r->bar.note, "peer %" PRIu32, (uint32_t)(p - r->b->peer) + 1);
    nj_progress_update(&r->bar, r->steps, r->steps_all);
    int rc = nj_peer_run(p->command, &r->cpus, &nj_cli_interrupted, &text, err);
    if (rc == 0) {
        int n = nj_peer_parse(text.data ? text.data : "", figure, err);
        rc = n < 0 ? n : nj_peer_keep(p, figure, (uint32_t)n, err);
    }
    if (rc != 0) nj_error_prefix(err, "--peer '%.100s'", p->command);
    r->bar.note[0] = '\0';
    nj_buf_free(&text);
    return rc;
}

/* Peers come first, so that a command that doesn't work is told at once. */
static int run_rounds(bench_run *r, nj_error *err)
{
    nj_bench *b = r->b;
    int rc = 0;
    for (uint32_t i = 0; i < b->rows; i++) r->steps_all += (uint64_t)row_steps(&b->row[i]) * b->repeat;
    for (uint32_t round = 0; round < b->repeat && rc == 0; round++) {
        for (uint32_t i = 0; i < b->peers && rc == 0; i++) rc = visit_peer(r, &b->peer[i], err);
        for (uint32_t i = 0; i < b->rows && rc == 0; i++)
            if (!b->row[i].skipped[0]) rc = visit(r, &b->row[i], err);
    }
    return rc;
}

/* The largest step and context that any row asks for. */
static void measure_plan(bench_run *r, uint32_t *context)
{
    *context = r->rows_max = r->sequences_max = 1;
    for (uint32_t i = 0; i < r->b->rows; i++) {
        const nj_bench_row *row = &r->b->row[i];
        uint32_t chunk = row->tokens < CHUNK_ROWS ? row->tokens : CHUNK_ROWS;
        uint32_t rows = row->kind == NJ_BENCH_PREFILL ? chunk : row->parallel;
        if (rows > r->rows_max) r->rows_max = rows;
        if (row->parallel > r->sequences_max) r->sequences_max = row->parallel;
        if (row->ctx + row->tokens + 1 > *context) *context = row->ctx + row->tokens + 1;
    }
}

/* Of a model whose weights have 16 bits or more products are of floats. */
static bool computes_in_floats(const nj_model_info *info)
{
    return info->bytes_per_token >= info->params_active / 8 * 12;
}

/* The fastest arithmetic of a tier on this machine (AVX-512 may lack VNNI) that the model's weights allow;
 * NJ_PEAK_COUNT where none is known. */
static nj_peak choose_peak(nj_pool *pool, int isa, bool floats)
{
    static const nj_peak kinds[NJ_ISA_COUNT][2] = {
        [NJ_ISA_SCALAR] = { NJ_PEAK_COUNT, NJ_PEAK_COUNT },
        [NJ_ISA_AVX2] = { NJ_PEAK_I8_AVX2, NJ_PEAK_F32_AVX2 },
        [NJ_ISA_AVX512] = { NJ_PEAK_I8_VNNI, NJ_PEAK_F32_AVX512 },
        [NJ_ISA_AMX] = { NJ_PEAK_BF16_AMX, NJ_PEAK_COUNT }, /* prompts; generated rows are bound by reading */
    };
    nj_peak best = NJ_PEAK_COUNT;
    double best_rate = 0;
    for (int i = floats && kinds[isa][1] < NJ_PEAK_COUNT; i < 2 && kinds[isa][i] < NJ_PEAK_COUNT; i++) {
        double rate = peak_rate(pool, kinds[isa][i]);
        if (rate > best_rate) best_rate = rate, best = kinds[isa][i];
    }
    return best;
}

/* An engine for each setting; they live through all rounds and share what memory is left for KV pages. */
static int open_lanes(bench_run *r, uint32_t context, nj_error *err)
{
    nj_bench *b = r->b;
    nj_machine now;
    int rc = 0;
    for (uint32_t s = 0; s < b->settings && rc == 0; s++) {
        rc = nj_pool_new(&r->lane[s].pool, b->setting[s].threads, err);
        if (rc == 0 && s == 0) rc = nj_probe_new(&r->probe, r->lane[0].pool, PROBE_BYTES, err);
        nj_machine_read(&now);
        const nj_engine_options opt = { .threads = b->setting[s].threads,
                                        .isa = b->setting[s].isa,
                                        .kv_type = b->kv_type,
                                        .kv_type_set = true,
                                        .context = context,
                                        .rows_max = r->rows_max,
                                        .kv_bytes_max = now.ram_available_bytes / 4 * 3 / b->settings };
        if (rc == 0) rc = nj_engine_new(&r->lane[s].engine, b->model, &opt, err);
        if (rc != 0) break;
        b->setting[s].threads = nj_pool_workers(r->lane[s].pool);
        b->setting[s].peak = choose_peak(r->lane[s].pool, b->setting[s].isa, computes_in_floats(b->info));
    }
    if (rc == 0) b->probe_bytes = nj_probe_bytes(r->probe);
    return rc;
}

int nj_bench_run(nj_bench *b, bool quiet, nj_error *err)
{
    bench_run *r = nj_new(bench_run);
    uint32_t context;
    if (!r) return nj_fail(err, -ENOMEM, "There is no memory left.");
    r->b = b;
    sched_getaffinity(0, sizeof r->cpus, &r->cpus);
    measure_plan(r, &context);
    r->sequence = nj_array_new(r->sequences_max, sizeof *r->sequence);
    r->row = nj_array_new(r->rows_max, sizeof *r->row);
    int rc = r->sequence && r->row ? 0 : nj_fail(err, -ENOMEM, "There is no memory left.");
    nj_progress_begin(&r->bar, "Measuring", "steps", quiet);
    if (rc == 0) rc = open_lanes(r, context, err);
    if (rc == 0) rc = run_rounds(r, err);
    nj_progress_end(&r->bar);
    for (uint32_t s = 0; s < b->settings; s++) {
        nj_engine_free(r->lane[s].engine);
        nj_pool_free(r->lane[s].pool);
    }
    nj_probe_free(r->probe);
    free(r->row);
    free(r->sequence);
    free(r);
    return rc;
}
