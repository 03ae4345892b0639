/* The linear kernels beside the limits of this machine: few rows (decode) read weights from memory, so their limit is
 * the read rate; many rows (prefill) compute, so theirs is the peak of the arithmetic that they use. Both limits are
 * measured in turn with the kernel, by the same workers. Weights are out of cache: every pass takes up where the last
 * one ended in a store of at least 1 GiB and four times the L3.
 *
 * usage: bench_kernels [--json] [--isa TIER] [--threads N] [--rows N] [FORMAT... | all]
 * Without formats one of each kind. Prints medians; "noisy" where something else must have spoiled them, twice.
 * --json prints an object per line. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numa/nj_numa.h"
#include "quant/nj_quant.h"

enum { COLS = 4096, ROWS_MAX = 64, PASSES = 5 };
static const uint32_t counts[] = { 1, 4, 16, ROWS_MAX }; /* of rows */
#define SPREAD_MAX   0.5                                 /* (slowest - fastest) / median of the passes */
#define SHARE_MAX    1.1                                 /* of the limit */
#define WINDOW_BYTES (UINT64_C(256) << 20)
#define PASS_OPS     8e9 /* at most, so that slow cases end too */

typedef struct options {
    bool json, all;
    int isa;                /* or -1: all that this machine runs */
    uint32_t threads, rows; /* 0: the best; 1, 4, 16 and 64 */
    bool wanted[NJ_TYPE_COUNT];
} options;

/* One measured thing: all workers run the kernel on their share of the window. */
typedef struct bench {
    options opt;
    nj_pool *pool;
    nj_probe *probe;
    nj_arena *arena;
    unsigned char *store; /* [store_bytes], weights */
    uint64_t store_bytes, at;
    nj_panels window; /* of this pass */
    nj_linear_fn *kernel;
    uint32_t rows;
    float *x[ROWS_MAX];         /* [COLS] */
    const void *acts[ROWS_MAX]; /* x in the kernel's form */
    float *y[ROWS_MAX];         /* [window.rows], cut from y_all */
    float *y_all;
} bench;

/* A format in one of the recipes on one tier. */
typedef struct subject {
    const nj_kernels *kernels;
    uint32_t type;
    nj_acts form;
    nj_peak peak;
} subject;

static void linear_work(void *arg, uint32_t worker, uint32_t workers)
{
    bench *b = arg;
    uint64_t begin, end;
    nj_share(b->window.rows / NJ_PANEL_ROWS, worker, workers, &begin, &end);
    b->kernel(&b->window, (uint32_t)begin, (uint32_t)end, b->acts, b->y, b->rows);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of the kernel, and the limits, pass by pass; median and spread of them. */
typedef struct result {
    double seconds, spread, ceiling_gb_s, peak_gop_s;
} result;

static double median(double values[PASSES])
{
    qsort(values, PASSES, sizeof *values, by_value);
    return values[PASSES / 2];
}

static result measure_once(bench *b, const subject *s)
{
    double seconds[PASSES], ceiling[PASSES], peak[PASSES];
    uint64_t panel_bytes = nj_panel_bytes(s->type, COLS), bytes = b->window.rows / NJ_PANEL_ROWS * panel_bytes;
    uint64_t end = b->store_bytes / panel_bytes * panel_bytes;
    for (int pass = -1; pass < PASSES; pass++) { /* the first warms up */
        double read_rate = nj_probe_read(b->probe, b->pool, WINDOW_BYTES);
        double peak_rate = nj_probe_peak(b->pool, s->peak);
        if (b->at + bytes > end) b->at = 0;
        b->window.data = b->store + b->at;
        b->at += bytes;
        uint64_t begin = nj_now_ns();
        nj_pool_run(b->pool, linear_work, b);
        uint64_t ns = nj_now_ns() - begin;
        if (pass < 0) continue;
        seconds[pass] = (double)(ns ? ns : 1) / 1e9;
        ceiling[pass] = read_rate;
        peak[pass] = peak_rate;
    }
    result r = { .seconds = median(seconds), .ceiling_gb_s = median(ceiling), .peak_gop_s = median(peak) };
    r.spread = (seconds[PASSES - 1] - seconds[0]) / r.seconds;
    return r;
}

static void print(const bench *b, const subject *s, const result *r, double gb_s, double gop_s, bool noisy)
{
    static const char *const recipes[] = { [NJ_ACTS_F32] = "f32", [NJ_ACTS_INT8] = "int8", [NJ_ACTS_BF16] = "bf16" };
    double read_share = gb_s / r->ceiling_gb_s, peak_share = r->peak_gop_s > 0 ? gop_s / r->peak_gop_s : 0;
    const char *format = nj_format_name(s->type), *isa = nj_isa_name(s->kernels->isa);
    if (b->opt.json) {
        printf("{\"bench\":\"kernel\",\"format\":\"%s\",\"acts\":\"%s\",\"rows\":%" PRIu32
               ",\"isa\":\"%s\",\"threads\":%" PRIu32 ",\"gb_s\":%.4g,\"read_ceiling_gb_s\":%.4g,\"gop_s\":%.4g,\"peak_"
               "gop_s\":%.4g,\"peak\":\"%s\",\"share\":%.4g,"
               "\"spread\":%.3g,\"noisy\":%s}\n",
               format, recipes[s->form], b->rows, isa, nj_pool_workers(b->pool), gb_s, r->ceiling_gb_s, gop_s,
               r->peak_gop_s, nj_peak_name(s->peak), read_share > peak_share ? read_share : peak_share, r->spread,
               noisy ? "true" : "false");
    } else {
        printf(
            "linear  %-8s %-5s %2" PRIu32 " row%s  %-7s %7.1f GB/s  ceiling %6.1f  %3.0f%%  %8.0f GOP/s  %-10s %6.0f  "
            "%3.0f%%  spread %.0f%%%s\n",
            format, recipes[s->form], b->rows, b->rows == 1 ? " " : "s", isa, gb_s, r->ceiling_gb_s, 100 * read_share,
            gop_s, nj_peak_name(s->peak), r->peak_gop_s, 100 * peak_share, 100 * r->spread, noisy ? "  noisy" : "");
    }
    fflush(stdout);
}

/* Measures again, once, when the figures are such as no quiet machine gives. */
static void bench_rows(bench *b, const subject *s, uint32_t rows)
{
    uint64_t panel_bytes = nj_panel_bytes(s->type, COLS), panels = WINDOW_BYTES / panel_bytes;
    double most = PASS_OPS / (2.0 * NJ_PANEL_ROWS * COLS * rows);
    if ((double)panels > most) panels = (uint64_t)most;
    b->rows = rows;
    b->window = (nj_panels){ .type = s->type, .rows = (uint32_t)panels * NJ_PANEL_ROWS, .cols = COLS };
    for (uint32_t r = 0; r < rows; r++) b->y[r] = b->y_all + (uint64_t)r * b->window.rows;
    double bytes = (double)(panels * nj_row_bytes(s->type, COLS) * NJ_PANEL_ROWS);
    double ops = 2.0 * b->window.rows * COLS * rows;
    for (int turn = 0; turn < 2; turn++) {
        result r = measure_once(b, s);
        double gb_s = bytes / r.seconds / 1e9, gop_s = ops / r.seconds / 1e9;
        bool noisy = r.spread > SPREAD_MAX || gb_s > SHARE_MAX * r.ceiling_gb_s ||
                     (r.peak_gop_s > 0 && gop_s > SHARE_MAX * r.peak_gop_s);
        if (noisy && turn == 0) continue;
        print(b, s, &r, gb_s, gop_s, noisy);
        return;
    }
}

static uint32_t random_next(uint32_t *state)
{
    return *state = *state * 1664525u + 1013904223u;
}

/* Fills the store with copies of one panel of random values (random bytes where we can't encode: the speed is the
 * same). */
static void fill_store(bench *b, uint32_t type)
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
    nj_panel_pack(type, rows, NJ_PANEL_ROWS, COLS, b->store);
    for (uint64_t at = panel_bytes; at + panel_bytes <= b->store_bytes; at += panel_bytes)
        memcpy(b->store + at, b->store, panel_bytes);
    b->at = 0;
    free(rows);
}

/* Activations in the form that the kernel takes. */
static void make_acts(bench *b, const subject *s, unsigned char *memory)
{
    for (uint32_t r = 0; r < ROWS_MAX; r++) {
        unsigned char *row = memory + r * nj_acts_bytes(NJ_ACTS_F32, COLS);
        if (s->form == NJ_ACTS_INT8) s->kernels->quantize(b->x[r], COLS, (nj_act_block *)(void *)row);
        if (s->form == NJ_ACTS_BF16) s->kernels->round_bf16(b->x[r], COLS, (uint16_t *)(void *)row);
        b->acts[r] = s->form == NJ_ACTS_F32 ? (const void *)b->x[r] : row;
    }
}

static void bench_subject(bench *b, const subject *s, nj_linear_fn *kernel)
{
    unsigned char *memory = aligned_alloc(64, ROWS_MAX * nj_acts_bytes(NJ_ACTS_F32, COLS));
    if (!memory) exit(1);
    b->kernel = kernel;
    make_acts(b, s, memory);
    for (size_t i = 0; i < NJ_COUNT(counts); i++)
        if (!b->opt.rows || b->opt.rows == counts[i]) bench_rows(b, s, counts[i]);
    free(memory);
}

/* The narrow recipe, and the wide one where the tier has it, with the peak of the arithmetic that each can use. */
static void bench_format(bench *b, const nj_kernels *kernels, uint32_t type)
{
    static const nj_peak peaks[NJ_ISA_COUNT][2] = { [NJ_ISA_AVX2] = { NJ_PEAK_F32_AVX2, NJ_PEAK_I8_AVX2 },
                                                    [NJ_ISA_AVX512] = { NJ_PEAK_F32_AVX512, NJ_PEAK_I8_VNNI },
                                                    [NJ_ISA_AMX] = { NJ_PEAK_F32_AVX512, NJ_PEAK_I8_AMX } };
    nj_acts form = nj_acts_of(type);
    fill_store(b, type);
    bench_subject(b, &(subject){ kernels, type, form, peaks[kernels->isa][form == NJ_ACTS_INT8] },
                  kernels->linear[type]);
    if (kernels->linear_wide[type])
        bench_subject(b, &(subject){ kernels, type, NJ_ACTS_BF16, NJ_PEAK_BF16_AMX }, kernels->linear_wide[type]);
}

static int bench_new(bench *b, nj_error *err)
{
    nj_machine m;
    int rc;
    nj_machine_read(&m);
    b->store_bytes = UINT64_C(1) << 30;
    while (b->store_bytes < 4 * m.l3_bytes) b->store_bytes *= 2;
    while (b->store_bytes > m.ram_available_bytes / 4) b->store_bytes /= 2;
    /* The largest window has the most rows: those of one activation row, or as many outputs in all. */
    uint64_t y_bytes = sizeof(float) * (uint64_t)(PASS_OPS / (2.0 * COLS) + NJ_PANEL_ROWS);
    uint64_t x_bytes = sizeof(float) * COLS;
    if ((rc = nj_pool_new(&b->pool, b->opt.threads, err)) != 0) return rc;
    if ((rc = nj_probe_new(&b->probe, b->pool, 0, err)) != 0) return rc;
    if ((rc = nj_arena_new(&b->arena, b->store_bytes + y_bytes + ROWS_MAX * x_bytes + 4096, err)) != 0) return rc;
    b->store = nj_arena_take(b->arena, b->store_bytes, 4096);
    b->y_all = nj_arena_take(b->arena, y_bytes, 64);
    uint32_t seed = 2;
    for (int r = 0; r < ROWS_MAX; r++) {
        b->x[r] = nj_arena_take(b->arena, x_bytes, 64);
        for (uint32_t c = 0; c < COLS; c++) b->x[r][c] = (float)(int32_t)random_next(&seed) * 0x1p-31f;
    }
    fprintf(stderr, "%s, %" PRIu32 " threads on %" PRIu32 " cores, %" PRIu64 " MiB of weights\n", m.cpu_name,
            nj_pool_workers(b->pool), m.cores, b->store_bytes >> 20);
    return 0;
}

static bool read_number(const char *text, uint32_t max, uint32_t *out)
{
    char *end;
    unsigned long n = text ? strtoul(text, &end, 10) : 0;
    if (n < 1 || n > max || *end) return false;
    *out = (uint32_t)n;
    return true;
}

static bool is_count(uint32_t rows)
{
    for (size_t i = 0; i < NJ_COUNT(counts); i++)
        if (rows == counts[i]) return true;
    return false;
}

/* False for what it does not understand, which it names. */
static bool parse(int argc, char **argv, options *o)
{
    static const uint32_t usual[] = { NJ_F32, NJ_F16, NJ_BF16, NJ_Q8_0, NJ_Q4_K, NJ_Q6_K, NJ_IQ4_XS, NJ_MXFP4 };
    bool named = false;
    *o = (options){ .isa = -1 };
    for (int i = 1; i < argc; i++) {
        int type = nj_format_find(argv[i]);
        bool ok = true;
        if (!strcmp(argv[i], "--json"))
            o->json = true;
        else if (!strcmp(argv[i], "--isa"))
            ok = argv[++i] && (o->isa = nj_isa_find(argv[i])) > NJ_ISA_SCALAR;
        else if (!strcmp(argv[i], "--threads"))
            ok = read_number(argv[++i], 4096, &o->threads);
        else if (!strcmp(argv[i], "--rows"))
            ok = read_number(argv[++i], ROWS_MAX, &o->rows) && is_count(o->rows);
        else if (!strcmp(argv[i], "all"))
            o->all = true;
        else if ((ok = type >= 0))
            named = o->wanted[type] = true;
        if (ok) continue;
        fprintf(
            stderr,
            "kernels: '%s' is not understood.\n"
            "usage: perf/kernels [--json] [--isa avx2|avx512|amx] [--threads N] [--rows 1|4|16|64] [FORMAT... | all]\n",
            i < argc ? argv[i] : "the last option without its value");
        return false;
    }
    for (size_t i = 0; i < NJ_COUNT(usual) && !named; i++) o->wanted[usual[i]] = true;
    return true;
}

int main(int argc, char **argv)
{
    bench b = { 0 };
    nj_error err;
    int status = 0;
    if (!parse(argc, argv, &b.opt)) return 2;
    if (bench_new(&b, &err) != 0) {
        fprintf(stderr, "kernels: %s\n", err.text);
        status = 1;
    }
    for (int isa = NJ_ISA_AVX2; isa < NJ_ISA_COUNT && status == 0; isa++) {
        const nj_kernels *kernels = nj_kernels_get((nj_isa)isa);
        if (b.opt.isa >= 0 && b.opt.isa != isa) continue;
        if (!kernels) fprintf(stderr, "SKIP %s: this CPU or system can't run it\n", nj_isa_name((nj_isa)isa));
        for (uint32_t type = 0; kernels && type < NJ_TYPE_COUNT; type++)
            if (kernels->linear[type] && (b.opt.all || b.opt.wanted[type])) bench_format(&b, kernels, type);
    }
    nj_probe_free(b.probe);
    nj_arena_free(b.arena);
    nj_pool_free(b.pool);
    return status;
}
