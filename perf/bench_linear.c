/* The linear kernels beside the limits of this machine: one row (decode) reads weights from memory, so its limit is the
 * read rate; 32 rows (prefill) compute, so theirs is the rate of fused multiply-adds. Both limits are measured in turn
 * with the kernel, over the same threads. Prints the median of 5 and the spread; "noisy" where something else on the
 * machine must have spoiled them, twice.
 *
 * usage: bench_linear [FORMAT... | all]     without arguments one format of each kind */
#include <immintrin.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numa/nj_numa.h"
#include "quant/nj_quant.h"

enum { COLS = 4096, ROWS_MAX = 32, PASSES = 5 };
#define SPREAD_MAX 0.5 /* (slowest - fastest) / median of the passes */
#define SHARE_MAX  1.1 /* of the limit */

/* One measured thing: all workers run `work` on their share. */
typedef struct bench {
    nj_pool *pool;
    const nj_kernels *kernels;
    unsigned char *memory; /* [bytes_max], holds the weights */
    uint64_t bytes_max;
    nj_panels weights;     /* over `memory` */
    uint64_t bytes;        /* of the weights */
    uint32_t rows;         /* activation rows */
    float *x[ROWS_MAX];    /* [COLS] */
    float *y[ROWS_MAX];    /* [weights.rows] */
    _Atomic uint64_t sink; /* keeps the compiler from dropping what is only measured */
} bench;

static void linear_work(void *arg, uint32_t worker, uint32_t workers)
{
    bench *b = arg;
    uint64_t begin, end;
    nj_share(b->weights.rows / NJ_PANEL_ROWS, worker, workers, &begin, &end);
    b->kernels->linear_f32[b->weights.type](&b->weights, (uint32_t)begin, (uint32_t)end, (const void *const *)b->x, b->y,
                                        b->rows);
}

/* Reads every byte of the weights and does next to nothing with it. */
static void read_work(void *arg, uint32_t worker, uint32_t workers)
{
    typedef uint64_t lanes __attribute__((vector_size(64)));
    bench *b = arg;
    uint64_t begin, end;
    nj_share(b->bytes / 256, worker, workers, &begin, &end);
    const lanes *p = (const lanes *)b->memory;
    lanes sum[4] = { 0 };
    for (uint64_t i = 4 * begin; i < 4 * end; i += 4)
        for (int k = 0; k < 4; k++) sum[k] ^= p[i + (uint64_t)k];
    sum[0] ^= sum[1] ^ sum[2] ^ sum[3];
    b->sink += sum[0][0] ^ sum[0][7];
}

/* Chains enough to hide the latency of a fused multiply-add (4-5 cycles, 2 per cycle), few enough for 16 registers. */
enum { CHAINS = 12, PEAK_ROUNDS = 4000000 };

__attribute__((target("avx2,fma"))) static void peak_avx2(void *arg, uint32_t worker, uint32_t workers)
{
    bench *b = arg;
    __m256 sum[CHAINS], f = _mm256_set1_ps(0.999f), g = _mm256_set1_ps(0.001f);
    (void)worker, (void)workers;
    for (int k = 0; k < CHAINS; k++) sum[k] = _mm256_set1_ps((float)k);
    for (int i = 0; i < PEAK_ROUNDS; i++) {
#pragma GCC unroll 12
        for (int k = 0; k < CHAINS; k++) sum[k] = _mm256_fmadd_ps(sum[k], f, g);
    }
    for (int k = 0; k < CHAINS; k++) b->sink += (uint64_t)_mm256_cvtss_f32(sum[k]);
}

__attribute__((target("avx512f"))) static void peak_avx512(void *arg, uint32_t worker, uint32_t workers)
{
    bench *b = arg;
    __m512 sum[CHAINS], f = _mm512_set1_ps(0.999f), g = _mm512_set1_ps(0.001f);
    (void)worker, (void)workers;
    for (int k = 0; k < CHAINS; k++) sum[k] = _mm512_set1_ps((float)k);
    for (int i = 0; i < PEAK_ROUNDS; i++) {
#pragma GCC unroll 12
        for (int k = 0; k < CHAINS; k++) sum[k] = _mm512_fmadd_ps(sum[k], f, g);
    }
    for (int k = 0; k < CHAINS; k++) b->sink += (uint64_t)_mm512_cvtss_f32(sum[k]);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Giga-units per second of `units` units: median over the passes of two works that take turns, after one of each. */
typedef struct rate {
    double median, spread;
} rate;

static rate rate_of(double *ns, double units)
{
    qsort(ns, PASSES, sizeof *ns, by_value);
    return (rate){ units / ns[PASSES / 2], (ns[PASSES - 1] - ns[0]) / ns[PASSES / 2] };
}

/* What no quiet machine gives. */
static bool is_noisy(const rate *r, const rate *limit)
{
    return r->spread > SPREAD_MAX || limit->spread > SPREAD_MAX || r->median > SHARE_MAX * limit->median;
}

static void measure_once(bench *b, nj_work *work, double units, rate *r, nj_work *limit, double limit_units,
                         rate *limit_r)
{
    double ns[PASSES], limit_ns[PASSES];
    for (int pass = -1; pass < PASSES; pass++) {
        uint64_t begin = nj_now_ns();
        nj_pool_run(b->pool, limit, b);
        uint64_t middle = nj_now_ns();
        nj_pool_run(b->pool, work, b);
        uint64_t end = nj_now_ns();
        if (pass < 0) continue;
        limit_ns[pass] = (double)(middle - begin);
        ns[pass] = (double)(end - middle);
    }
    *r = rate_of(ns, units);
    *limit_r = rate_of(limit_ns, limit_units);
}

/* Measures again, once, when it was noisy. */
static void measure(bench *b, nj_work *work, double units, rate *r, nj_work *limit, double limit_units, rate *limit_r)
{
    measure_once(b, work, units, r, limit, limit_units, limit_r);
    if (is_noisy(r, limit_r)) measure_once(b, work, units, r, limit, limit_units, limit_r);
}

static const char *noise(const rate *r, const rate *limit)
{
    return is_noisy(r, limit) ? "  noisy" : "";
}

static uint32_t random_next(uint32_t *state)
{
    return *state = *state * 1664525u + 1013904223u;
}

/* Fills the matrix with copies of one panel of random values (random bytes where we can't encode: the speed is the
 * same). */
static void weights_fill(bench *b, uint32_t type, uint64_t bytes)
{
    uint64_t row_bytes = nj_row_bytes(type, COLS), panel_bytes = nj_panel_bytes(type, COLS);
    unsigned char *rows = malloc(NJ_PANEL_ROWS * row_bytes);
    uint32_t seed = 1;
    if (!rows) exit(1);
    for (uint32_t r = 0; r < NJ_PANEL_ROWS; r++) {
        float values[COLS];
        for (uint32_t c = 0; c < COLS; c++) values[c] = (float)(int32_t)random_next(&seed) * 0x1p-31f;
        if (nj_can_encode(type))
            nj_encode(type, values, rows + r * row_bytes, COLS);
        else
            for (uint64_t i = 0; i < row_bytes; i++)
                rows[r * row_bytes + i] = (unsigned char)(random_next(&seed) >> 24);
    }
    uint32_t panels = (uint32_t)(bytes / panel_bytes);
    nj_panel_pack(type, rows, NJ_PANEL_ROWS, COLS, b->memory);
    for (uint32_t p = 1; p < panels; p++) memcpy(b->memory + p * panel_bytes, b->memory, panel_bytes);
    b->weights = (nj_panels){ .data = b->memory, .type = type, .rows = panels * NJ_PANEL_ROWS, .cols = COLS };
    b->bytes = panels * panel_bytes;
    free(rows);
}

/* Rows that read from memory (1 row: the whole arena) and rows that compute (32 rows: a part, as they take longer). */
static void bench_format(bench *b, uint32_t type, nj_work *peak, double peak_flop)
{
    rate r, limit;
    const char *format = nj_format_name(type), *isa = nj_isa_name(b->kernels->isa);
    uint32_t workers = nj_pool_workers(b->pool);
    weights_fill(b, type, b->bytes_max);
    b->rows = 1;
    measure(b, linear_work, (double)b->bytes, &r, read_work, (double)b->bytes, &limit);
    printf("linear  %-8s  1 row   %-7s %8.1f GB/s    ceiling %7.1f  %3.0f%%  spread %.0f%%%s\n", format, isa, r.median,
           limit.median, 100 * r.median / limit.median, 100 * r.spread, noise(&r, &limit));
    fflush(stdout);

    uint64_t panels = (16u << 20) / (NJ_PANEL_ROWS * COLS); /* 16 million weights */
    b->weights.rows = (uint32_t)panels * NJ_PANEL_ROWS;
    b->rows = ROWS_MAX;
    double flop = 2.0 * b->weights.rows * COLS * b->rows;
    measure(b, linear_work, flop, &r, peak, peak_flop * workers, &limit);
    printf("linear  %-8s 32 rows  %-7s %8.1f GFLOP/s peak    %7.1f  %3.0f%%  spread %.0f%%%s\n", format, isa, r.median,
           limit.median, 100 * r.median / limit.median, 100 * r.spread, noise(&r, &limit));
    fflush(stdout);
}

static bool wanted(int argc, char **argv, uint32_t type)
{
    static const uint32_t usual[] = { NJ_F32, NJ_F16, NJ_BF16, NJ_Q8_0, NJ_Q4_K, NJ_Q6_K, NJ_IQ4_XS, NJ_MXFP4 };
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "all") || nj_format_find(argv[i]) == (int)type) return true;
    for (size_t i = 0; argc < 2 && i < NJ_COUNT(usual); i++)
        if (usual[i] == type) return true;
    return false;
}

/* Memory for the weights and activations. The smallest format has the most rows: 4096 columns in 800 bytes. */
static int bench_new(bench *b, nj_arena **arena, nj_error *err)
{
    nj_machine m;
    int rc;
    nj_machine_read(&m);
    b->bytes_max = UINT64_C(1) << 30;
    while (b->bytes_max < 4 * m.l3_bytes) b->bytes_max *= 2;
    while (b->bytes_max > m.ram_available_bytes / 2) b->bytes_max /= 2;
    uint64_t y_max = b->bytes_max / 800 + NJ_PANEL_ROWS, y_bytes = 4 * y_max, x_bytes = 4 * COLS;
    if ((rc = nj_pool_new(&b->pool, 0, err)) != 0) return rc;
    if ((rc = nj_arena_new(arena, b->bytes_max + ROWS_MAX * (x_bytes + y_bytes + 128), err)) != 0) return rc;
    b->memory = nj_arena_take(*arena, b->bytes_max, 4096);
    uint32_t seed = 2;
    for (int r = 0; r < ROWS_MAX; r++) {
        b->x[r] = nj_arena_take(*arena, x_bytes, 64);
        b->y[r] = nj_arena_take(*arena, y_bytes, 64);
        for (uint32_t c = 0; c < COLS; c++) b->x[r][c] = (float)(int32_t)random_next(&seed) * 0x1p-31f;
    }
    printf("%s, %" PRIu32 " threads on %" PRIu32 " cores, %" PRIu64 " MiB of weights\n", m.cpu_name,
           nj_pool_workers(b->pool), m.cores, b->bytes_max >> 20);
    return 0;
}

int main(int argc, char **argv)
{
    bench b = { 0 };
    nj_arena *arena = NULL;
    nj_error err;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "all") || nj_format_find(argv[i]) >= 0) continue;
        fprintf(stderr, "bench_linear: %s is not a format; try q4_k, or all\n", argv[i]);
        return 2;
    }
    if (bench_new(&b, &arena, &err) != 0) {
        fprintf(stderr, "bench_linear: %s\n", err.text);
        nj_pool_free(b.pool);
        return 1;
    }
    for (nj_isa isa = NJ_ISA_AVX2; isa <= NJ_ISA_AVX512; isa++) {
        b.kernels = nj_kernels_get(isa);
        if (!b.kernels) printf("SKIP %s: this CPU or system can't run it\n", nj_isa_name(isa));
        nj_work *peak = isa == NJ_ISA_AVX2 ? peak_avx2 : peak_avx512;
        double peak_flop = 2.0 * CHAINS * PEAK_ROUNDS * (isa == NJ_ISA_AVX2 ? 8 : 16);
        for (uint32_t type = 0; b.kernels && type < NJ_TYPE_COUNT; type++)
            if (b.kernels->linear[type] && wanted(argc, argv, type)) bench_format(&b, type, peak, peak_flop);
    }
    nj_pool_free(b.pool);
    nj_arena_free(arena);
    return 0;
}
