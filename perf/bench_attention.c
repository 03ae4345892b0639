/* The attention kernel beside the limits of this machine. Prefill (512 rows of one sequence, 32 heads that share 8
 * key/value heads of 128) computes, so its limit is the rate of fused multiply-adds; decode (one row, 32768 positions)
 * reads the cache from memory, so its limit is the read rate. Both limits are measured in turn with the kernel, over
 * the same threads. Prints the median of the passes and the spread.
 *
 * usage: bench_attention [f32 | f16 | q8_0]...     without arguments all three */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numa/nj_numa.h"
#include "quant/nj_quant.h"

enum { DIM = 128, GROUP = 4, KV_HEADS = 8, ROWS = 512, BLOCK = 32, PASSES = 5, CONTEXT = 32768 };

/* What one worker needs to attend with a block of rows. */
typedef struct scratch {
    float *q, *out, *scratch;
    nj_softmax *run;
    nj_span *span;
} scratch;

/* One measured thing: all workers run `work` on their share. */
typedef struct bench {
    nj_pool *pool;
    const nj_kernels *kernels;
    uint32_t type, context; /* of the cache; positions before the first row */
    size_t row_bytes;
    unsigned char *cache;  /* [copies][KV_HEADS][CONTEXT + ROWS][key row, then all values likewise] */
    uint64_t cache_bytes;  /* all that is there */
    uint32_t copies, turn; /* decode takes another copy each time, so that no cache holds it */
    scratch *worker;       /* [workers] */
    nj_probe *probe;
} bench;

static uint64_t head_bytes(const bench *b)
{
    return (uint64_t)(CONTEXT + ROWS) * b->row_bytes;
}

/* `rows` rows from position `first` on attend to all before them, a tile at a time. */
static void attend_block(const bench *b, uint32_t head, uint32_t first, uint32_t rows, const scratch *own)
{
    nj_queries q = {
        .count = rows * GROUP, .dim = DIM, .q = own->q, .run = own->run, .out = own->out, .scratch = own->scratch
    };
    const unsigned char *keys = b->cache + (b->turn * KV_HEADS + head) * 2 * head_bytes(b);
    memset(q.out, 0, sizeof *q.out * q.count * DIM);
    for (uint32_t i = 0; i < q.count; i++) q.run[i] = (nj_softmax){ -INFINITY, 0.0f };
    for (uint32_t at = 0; at < first + rows; at += NJ_TILE) {
        bool whole = at + NJ_TILE <= first + 1;
        uint32_t n = first + rows - at < NJ_TILE ? first + rows - at : NJ_TILE;
        for (uint32_t i = 0; !whole && i < q.count; i++) {
            uint32_t seen = first + i / GROUP + 1 - at;
            own->span[i] = (nj_span){ 0, (uint8_t)(seen < n ? seen : n) };
        }
        const unsigned char *tile = keys + at * b->row_bytes;
        const unsigned char *next = tile + NJ_TILE * b->row_bytes;
        nj_tile t = { .keys = tile,
                      .values = tile + head_bytes(b),
                      .stride = b->row_bytes,
                      .n = n,
                      .span = whole ? NULL : own->span,
                      .next_keys = next,
                      .next_values = next + head_bytes(b) };
        b->kernels->attend[b->type](&q, &t);
    }
}

static void prefill_work(void *arg, uint32_t worker, uint32_t workers)
{
    bench *b = arg;
    for (uint32_t i = worker; i < ROWS / BLOCK * KV_HEADS; i += workers)
        attend_block(b, i % KV_HEADS, b->context + i / KV_HEADS * BLOCK, BLOCK, &b->worker[worker]);
}

static void decode_work(void *arg, uint32_t worker, uint32_t workers)
{
    bench *b = arg;
    uint64_t begin, end;
    nj_share(KV_HEADS, worker, workers, &begin, &end);
    for (uint64_t head = begin; head < end; head++) attend_block(b, (uint32_t)head, CONTEXT - 1, 1, &b->worker[worker]);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The best of five, as a probe takes milliseconds: giga-units per second. */
static double limit_rate(const bench *b, nj_peak peak, double units)
{
    double best = 0;
    for (int i = 0; i < 5; i++) {
        double rate =
            peak < NJ_PEAK_COUNT ? nj_probe_peak(b->pool, peak) : nj_probe_read(b->probe, b->pool, (uint64_t)units);
        if (rate > best) best = rate;
    }
    return best;
}

/* Measures `work` of `units` and its limit in turn and prints a row in giga-units per second. The limit is a peak, or
 * (NJ_PEAK_COUNT) the rate at which as many bytes are read. */
static void measure(bench *b, const char *what, const char *unit, nj_work *work, double units, nj_peak peak, int passes)
{
    double ns[PASSES], limit[PASSES];
    for (int pass = -1; pass < passes; pass++) { /* the first is not counted */
        double before = limit_rate(b, peak, units);
        b->turn = (b->turn + 1) % b->copies;
        uint64_t begin = nj_now_ns();
        nj_pool_run(b->pool, work, b);
        uint64_t end = nj_now_ns();
        if (pass < 0) continue;
        limit[pass] = before;
        ns[pass] = (double)(end - begin);
    }
    qsort(ns, (size_t)passes, sizeof *ns, by_value);
    qsort(limit, (size_t)passes, sizeof *limit, by_value);
    double rate = units / ns[passes / 2], most = limit[passes / 2];
    printf("attention  %-4s  %-24s  %-7s %8.1f %-8s limit %8.1f  %3.0f%%  spread %.0f%%\n", nj_format_name(b->type),
           what, nj_isa_name(b->kernels->isa), rate, unit, most, 100 * rate / most,
           100 * (ns[passes - 1] - ns[0]) / ns[passes / 2]);
    fflush(stdout);
}

/* Every row of the cache the same, as its values don't matter. */
static void cache_fill(bench *b, uint32_t type)
{
    float row[DIM];
    uint32_t seed = 1;
    b->type = type;
    b->row_bytes = nj_row_bytes(type, DIM);
    b->copies = (uint32_t)(b->cache_bytes / (2 * KV_HEADS * head_bytes(b)));
    for (int i = 0; i < DIM; i++) row[i] = (float)(int32_t)(seed = seed * 1664525u + 1013904223u) * 0x1p-31f;
    nj_kernels_get(NJ_ISA_SCALAR)->store[type](row, b->cache, DIM);
    for (uint64_t at = b->row_bytes; at + b->row_bytes <= b->cache_bytes; at += b->row_bytes)
        memcpy(b->cache + at, b->cache, b->row_bytes);
}

static void bench_type(bench *b)
{
    static const uint32_t contexts[] = { 0, 4096, CONTEXT };
    nj_peak peak = b->kernels->isa >= NJ_ISA_AVX512 ? NJ_PEAK_F32_AVX512 : NJ_PEAK_F32_AVX2;
    for (size_t i = 0; i < NJ_COUNT(contexts); i++) {
        char what[64];
        b->context = contexts[i];
        snprintf(what, sizeof what, "512 rows after %" PRIu32, b->context);
        double pairs = (double)ROWS * b->context + ROWS * (ROWS + 1) / 2.0; /* (row, position it sees) */
        measure(b, what, "GFLOP/s", prefill_work, 4.0 * DIM * GROUP * KV_HEADS * pairs, peak,
                b->context == CONTEXT ? 1 : PASSES);
    }
    double bytes = 2.0 * KV_HEADS * CONTEXT * (double)b->row_bytes;
    measure(b, "1 row at 32768", "GB/s", decode_work, bytes, NJ_PEAK_COUNT, PASSES);
}

static int bench_new(bench *b, nj_arena **arena, nj_error *err)
{
    nj_machine m;
    int rc;
    nj_machine_read(&m);
    b->cache_bytes = UINT64_C(1) << 30;
    while (b->cache_bytes < 4 * m.l3_bytes) b->cache_bytes *= 2;
    if ((rc = nj_pool_new(&b->pool, 0, err)) != 0) return rc;
    if ((rc = nj_probe_new(&b->probe, b->pool, 0, err)) != 0) return rc;
    uint32_t workers = nj_pool_workers(b->pool), queries = BLOCK * GROUP;
    uint64_t scratch_bytes = 4 * nj_attend_scratch(queries, DIM), rows_bytes = 4 * queries * DIM;
    if ((rc = nj_arena_new(arena, b->cache_bytes + workers * (scratch_bytes + 3 * rows_bytes + 4096), err)) != 0)
        return rc;
    b->cache = nj_arena_take(*arena, b->cache_bytes, 4096);
    if (!(b->worker = nj_array_new(workers, sizeof *b->worker))) return nj_fail(err, -1, "no memory");
    for (uint32_t w = 0; w < workers; w++) {
        scratch *own = &b->worker[w];
        own->q = nj_arena_take(*arena, rows_bytes, 64);
        own->out = nj_arena_take(*arena, rows_bytes, 64);
        own->run = nj_arena_take(*arena, queries * sizeof *own->run, 64);
        own->span = nj_arena_take(*arena, queries * sizeof *own->span, 64);
        own->scratch = nj_arena_take(*arena, scratch_bytes, 64);
        for (uint32_t i = 0; i < queries * DIM; i++) own->q[i] = (float)(i % 7) * 0.01f;
    }
    printf("%s, %" PRIu32 " threads on %" PRIu32 " cores, %" PRIu64 " MiB of cache\n", m.cpu_name, workers, m.cores,
           b->cache_bytes >> 20);
    return 0;
}

static bool wanted(int argc, char **argv, uint32_t type)
{
    for (int i = 1; i < argc; i++)
        if (nj_format_find(argv[i]) == (int)type) return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    static const uint32_t types[] = { NJ_F32, NJ_F16, NJ_Q8_0 };
    bench b = { 0 };
    nj_arena *arena = NULL;
    nj_error err = { 0 };
    int rc = bench_new(&b, &arena, &err);
    if (rc) fprintf(stderr, "bench_attention: %s\n", err.text);
    for (size_t t = 0; !rc && t < NJ_COUNT(types); t++) {
        if (!wanted(argc, argv, types[t])) continue;
        cache_fill(&b, types[t]);
        for (nj_isa isa = NJ_ISA_AVX2; isa <= NJ_ISA_AVX512; isa++)
            if ((b.kernels = nj_kernels_get(isa)))
                bench_type(&b);
            else
                printf("SKIP %s: this CPU or system can't run it\n", nj_isa_name(isa));
    }
    free(b.worker);
    nj_probe_free(b.probe);
    nj_pool_free(b.pool);
    nj_arena_free(arena);
    return rc != 0;
}
