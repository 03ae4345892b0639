/* nightjar bench: what is measured, and how figures are told. Rows take turns in every round, and before each of them
 * the limit that it is compared with is measured by the same number of threads. */
#ifndef NJ_BENCH_H
#define NJ_BENCH_H

#include <sched.h>
#include <stdio.h>

#include "engine/nj_engine.h"
#include "numa/nj_numa.h"

enum { NJ_BENCH_LIST_MAX = 16, NJ_BENCH_REPEAT_MAX = 32, NJ_BENCH_PEERS_MAX = 4, NJ_PEER_FIGURES_MAX = 16 };

typedef struct nj_bench_list { uint32_t item[NJ_BENCH_LIST_MAX], count; } nj_bench_list;

typedef enum nj_bench_kind { NJ_BENCH_PREFILL, NJ_BENCH_DECODE } nj_bench_kind;
const char *nj_bench_kind_name(nj_bench_kind kind); /* "prefill", "decode" */

/* ---- Peers: other programs, measured in the same rounds ---- */

typedef struct nj_peer_figure {
    nj_bench_kind kind;
    uint32_t tokens, ctx; /* 0: not told */
    double tok_s;
} nj_peer_figure;

typedef struct nj_peer {
    const char *command;
    struct { nj_peer_figure figure; double tok_s[NJ_BENCH_REPEAT_MAX]; uint32_t samples; } row[NJ_PEER_FIGURES_MAX];
    uint32_t rows;
} nj_peer;

/* Figures of one sequence in what a benchmark printed: llama-bench's JSON (-o json, -o jsonl) or markdown table (tests
 * pp512, tg64, pp512 @ d4096), the JSON of another nightjar bench, or the words "prefill X tok/s" and "decode Y tok/s".
 * Returns how many were stored in out, or -EBADMSG when none was understood. */
int nj_peer_parse(const char *text, nj_peer_figure out[NJ_PEER_FIGURES_MAX], nj_error *err);

/* Runs the command with /bin/sh in a process group of its own and appends its standard output to `out` (at most 16 MB).
 *   cpus  where it may run: the calling thread, a worker, may be pinned
 * -ECANCELED when *cancel became true (the whole group has been ended then), -ECHILD with its last words when it ended
 * with another status than 0. */
int nj_peer_run(const char *command, const cpu_set_t *cpus, const volatile bool *cancel, nj_buf *out, nj_error *err);

/* Keeps one run's figures as samples. -E2BIG when there are too many. */
int nj_peer_keep(nj_peer *p, const nj_peer_figure *figure, uint32_t n, nj_error *err);

/* Median tok/s of a peer's row like (kind, tokens, ctx); where it has none with so many tokens, of one with another
 * number, which *tokens tells. 0: none. */
double nj_peer_median(const nj_peer *p, nj_bench_kind kind, uint32_t ctx, uint32_t *tokens);

/* ---- Rows ---- */

/* What one visit of a row measured. */
typedef struct nj_bench_sample {
    double seconds, attention_seconds;
    double weight_bytes, kv_read;    /* bytes, and values of the cache, that the work had to read */
    double kv_values;                /* that attention covered, summed over rows */
    double ceiling_gb_s, peak_gop_s; /* limits, measured just before */
} nj_bench_sample;

typedef struct nj_bench_row {
    nj_bench_kind kind;
    uint32_t parallel, ctx, tokens; /* sequences side by side; positions before the first; tokens of each sequence */
    uint32_t setting;               /* of nj_bench.setting */
    uint32_t samples;
    nj_bench_sample sample[NJ_BENCH_REPEAT_MAX];
    char skipped[200];              /* why it can't be measured, or "" */
} nj_bench_row;

typedef struct nj_bench_setting {
    uint32_t threads;
    int isa;      /* nj_isa */
    nj_peak peak; /* NJ_PEAK_COUNT: none is known for the tier */
} nj_bench_setting;

typedef struct nj_bench {
    nj_machine machine;
    const nj_model *model;
    const nj_model_info *info;
    const char *source; /* file or shape as it was named */
    bool synthetic;     /* a shape with random weights */
    uint32_t kv_type, repeat;
    uint64_t probe_bytes;
    nj_bench_setting setting[NJ_BENCH_LIST_MAX * NJ_ISA_COUNT];
    uint32_t settings;
    nj_bench_row *row; /* [rows], free() */
    uint32_t rows;
    nj_peer peer[NJ_BENCH_PEERS_MAX];
    uint32_t peers;
} nj_bench;

typedef struct nj_bench_plan {
    uint32_t prompt, tokens; /* of prefill and decode rows; 0: no such rows */
    nj_bench_list parallel, ctx, threads, isa;
} nj_bench_plan;

/* Lists settings and rows: for each of (threads, isa) prefill rows by ctx, then decode rows by ctx and parallel.
 * -EINVAL when nothing would be measured, or in more settings than there is room for; -ENOMEM. */
int nj_bench_plan_rows(nj_bench *b, const nj_bench_plan *plan, nj_error *err);

/* Measures all rows and peers, `repeat` rounds. Rows that don't fit into memory are skipped with a reason. -ECANCELED
 * after Ctrl-C: what was measured until then stays. */
int nj_bench_run(nj_bench *b, bool quiet, nj_error *err);

/* ---- Figures ---- */

typedef struct nj_bench_figures {
    double tok_s, spread;                        /* median over the rounds; (largest - smallest) / median */
    double gb_s, read_ceiling_gb_s;              /* weights once per step and the KV that attention covers */
    double gop_s, peak_gop_s;                    /* 2 per active weight and token */
    double share;                                /* decode: gb_s of the ceiling, prefill: gop_s of the peak; or 0 */
    double attention_share, attention_gop_s;     /* of the time; rate of its own operations while it runs */
} nj_bench_figures;

nj_bench_figures nj_bench_figures_of(const nj_bench *b, const nj_bench_row *row);
double nj_median(double *values, uint32_t n); /* sorts; 0 for none */

void nj_bench_print_table(const nj_bench *b, FILE *out);
int nj_bench_print_json(const nj_bench *b, FILE *out, nj_error *err); /* one row per line */
void nj_bench_print_report(const nj_bench *b, FILE *out);

#endif
