/* Figures from samples, and how they are told: a table, JSON, a card for a forum. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "appliance/bench.h"
#include "appliance/cli.h"
#include "appliance/config.h"
#include "appliance/facts.h"
#include "appliance/text.h"

const char *nj_bench_kind_name(nj_bench_kind kind)
{
    return kind == NJ_BENCH_PREFILL ? "prefill" : "decode";
}

/* ---- Figures ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double nj_median(double *values, uint32_t n)
{
    if (n == 0) return 0;
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* Multiplications and additions with weights in one visit. Of a prompt only the last token meets the output matrix. */
static double weight_ops(const nj_bench *b, const nj_bench_row *row)
{
    double output = (double)b->info->vocab * b->info->d_model, tokens = (double)row->tokens * row->parallel;
    double logits = row->kind == NJ_BENCH_PREFILL ? 1 : tokens;
    return 2 * (((double)b->info->params_active - output) * tokens + output * logits);
}

/* Each key and each value takes part in one multiply-add for every query head that shares it. */
static double attention_ops(const nj_bench *b, double kv_values)
{
    return b->info->kv_heads ? 2.0 * kv_values * b->info->heads / b->info->kv_heads : 0;
}

nj_bench_figures nj_bench_figures_of(const nj_bench *b, const nj_bench_row *row)
{
    double tok_s[NJ_BENCH_REPEAT_MAX], gb_s[NJ_BENCH_REPEAT_MAX], ceiling[NJ_BENCH_REPEAT_MAX];
    double peak[NJ_BENCH_REPEAT_MAX], attention[NJ_BENCH_REPEAT_MAX], attention_gop_s[NJ_BENCH_REPEAT_MAX];
    nj_bench_figures f = { 0 };
    uint32_t n = row->samples;
    for (uint32_t i = 0; i < n; i++) {
        const nj_bench_sample *s = &row->sample[i];
        tok_s[i] = (double)row->tokens * row->parallel / s->seconds;
        gb_s[i] = (s->weight_bytes + nj_kv_bytes((uint64_t)s->kv_read, b->kv_type)) / s->seconds / 1e9;
        ceiling[i] = s->ceiling_gb_s;
        peak[i] = s->peak_gop_s;
        attention[i] = s->attention_seconds / s->seconds;
        attention_gop_s[i] = s->attention_seconds > 0 ? attention_ops(b, s->kv_values) / s->attention_seconds / 1e9 : 0;
    }
    f.tok_s = nj_median(tok_s, n); /* sorts */
    if (n == 0 || !(f.tok_s > 0)) return f;
    f.spread = (tok_s[n - 1] - tok_s[0]) / f.tok_s;
    f.gb_s = nj_median(gb_s, n);
    f.read_ceiling_gb_s = nj_median(ceiling, n);
    f.gop_s = weight_ops(b, row) / ((double)row->tokens * row->parallel) * f.tok_s / 1e9;
    f.peak_gop_s = nj_median(peak, n);
    f.attention_share = nj_median(attention, n);
    f.attention_gop_s = nj_median(attention_gop_s, n);
    bool decode = row->kind == NJ_BENCH_DECODE;
    double rate = decode ? f.gb_s : f.gop_s, limit = decode ? f.read_ceiling_gb_s : f.peak_gop_s;
    f.share = limit > 0 ? rate / limit : 0;
    return f;
}

/* ---- Table ---- */

/* "36 layers", or of a cut shape what its name ends in: "4 of 36 layers". */
static void layers_text(const nj_bench *b, char out[32])
{
    const char *cut = b->synthetic ? strrchr(b->info->name, ',') : NULL;
    if (cut)
        snprintf(out, 32, "%.31s", cut + 2);
    else
        snprintf(out, 32, "%" PRIu32 " layer%s", b->info->layers, b->info->layers == 1 ? "" : "s");
}

/* "Qwen3 4B, 36 layers, 2.49 GB read per token" */
static void print_model(const nj_bench *b, FILE *out)
{
    char bytes[24], all[24], layers[32];
    nj_buf name = { 0 };
    layers_text(b, layers);
    nj_text_bytes((double)b->info->bytes_per_token, bytes);
    nj_text_bytes((double)b->info->bytes, all);
    nj_text_escape(&name, b->source, strlen(b->source), 80);
    fprintf(out, "%s%s, %s, %s of weights, %s of them read per token", name.data ? name.data : "model",
            b->synthetic ? " (shape with random weights)" : "", layers, all, bytes);
    nj_buf_free(&name);
}

static void print_machine(const nj_bench *b, FILE *out)
{
    char ram[24];
    nj_text_bytes((double)b->machine.ram_bytes, ram);
    fprintf(out, "%s, %" PRIu32 " core%s, %" PRIu32 " memory node%s, %s", b->machine.cpu_name, b->machine.cores,
            b->machine.cores == 1 ? "" : "s", b->machine.nodes, b->machine.nodes == 1 ? "" : "s", ram);
}

/* "11.7 GB/s" of "30.1 read", or "460 GOP/s" of "1840 int8 vnni". */
static void limit_texts(const nj_bench *b, const nj_bench_row *row, const nj_bench_figures *f, char rate[32],
                        char limit[48], char share[16])
{
    nj_peak peak = b->setting[row->setting].peak;
    share[0] = limit[0] = '\0';
    if (f->share > 0) snprintf(share, 16, "%.0f%%", 100 * f->share);
    if (row->kind == NJ_BENCH_DECODE) {
        snprintf(rate, 32, "%.1f GB/s", f->gb_s);
        snprintf(limit, 48, "%.1f GB/s read", f->read_ceiling_gb_s);
    } else {
        snprintf(rate, 32, "%.0f GOP/s", f->gop_s);
        if (peak < NJ_PEAK_COUNT) snprintf(limit, 48, "%.0f %s", f->peak_gop_s, nj_peak_name(peak));
    }
}

static void print_row(const nj_bench *b, const nj_bench_row *row, FILE *out)
{
    char rate[32], limit[48], share[16];
    const nj_bench_setting *s = &b->setting[row->setting];
    fprintf(out, "%-7s %5" PRIu32 " %8" PRIu32 " %7" PRIu32 " %7" PRIu32 "  %-6s", nj_bench_kind_name(row->kind),
            row->tokens, row->parallel, row->ctx, s->threads, nj_isa_name((nj_isa)s->isa));
    if (row->skipped[0]) {
        fprintf(out, "  skipped: %s\n", row->skipped);
        return;
    }
    nj_bench_figures f = nj_bench_figures_of(b, row);
    limit_texts(b, row, &f, rate, limit, share);
    fprintf(out, " %9.2f %5.0f%%  %12s  %-16s %5s  %8.0f%%\n", f.tok_s, 100 * f.spread, rate, limit, share,
            100 * f.attention_share);
}

static bool is_shown(const nj_bench_row *row)
{
    return row->samples || row->skipped[0];
}

static void print_peers(const nj_bench *b, FILE *out)
{
    for (uint32_t p = 0; p < b->peers; p++)
        for (uint32_t i = 0; i < b->peer[p].rows; i++) {
            const nj_peer_figure *f = &b->peer[p].row[i].figure;
            uint32_t tokens = f->tokens;
            fprintf(out, "%-7s %5" PRIu32 " %8u %7" PRIu32 " %15s %10.2f  peer %" PRIu32 "\n",
                    nj_bench_kind_name(f->kind), f->tokens, 1, f->ctx, "",
                    nj_peer_median(&b->peer[p], f->kind, f->ctx, &tokens), p + 1);
        }
}

/* Why a share may be above 1. */
static void print_remark(const nj_bench *b, FILE *out)
{
    double share = 0;
    for (uint32_t i = 0; i < b->rows; i++)
        if (b->row[i].kind == NJ_BENCH_DECODE && b->row[i].samples)
            share = fmax(share, nj_bench_figures_of(b, &b->row[i]).share);
    if (share > 1.05 && b->info->bytes_per_token < b->machine.l3_bytes)
        fprintf(out, "Shares above 100%%: these weights fit into the CPU's cache, which is faster than the memory.\n");
    else if (share > 1.05)
        fprintf(out, "Shares above 100%%: memory was slower while its limit was measured; other programs were busy.\n");
}

void nj_bench_print_table(const nj_bench *b, FILE *out)
{
    print_model(b, out);
    fputc('\n', out);
    print_machine(b, out);
    fprintf(out, "\n\n%-7s %5s %8s %7s %7s  %-6s %9s %6s  %12s  %-16s %5s  %9s\n", "", "tok", "parallel", "ctx",
            "threads", "isa", "tok/s", "spread", "rate", "limit", "share", "attention");
    for (uint32_t i = 0; i < b->rows; i++)
        if (is_shown(&b->row[i])) print_row(b, &b->row[i], out);
    print_remark(b, out);
    print_peers(b, out);
}

/* ---- JSON. Names of members are part of the interface: add, don't rename. ---- */

static json_t *machine_json(const nj_bench *b)
{
    const nj_machine *m = &b->machine;
    double ceiling = 0;
    for (uint32_t i = 0; i < b->rows; i++) {
        nj_bench_figures f = nj_bench_figures_of(b, &b->row[i]);
        if (f.read_ceiling_gb_s > ceiling) ceiling = f.read_ceiling_gb_s;
    }
    return json_pack("{s:o,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:I}", "cpu", nj_text_json(m->cpu_name, strlen(m->cpu_name)),
                     "cores", (json_int_t)m->cores, "threads", (json_int_t)m->threads, "nodes", (json_int_t)m->nodes,
                     "l3_bytes", (json_int_t)m->l3_bytes, "ram_bytes", (json_int_t)m->ram_bytes, "isa",
                     nj_isa_name(nj_isa_best()), "read_ceiling_gb_s", ceiling, "read_ceiling_bytes",
                     (json_int_t)b->probe_bytes);
}

static json_t *model_json(const nj_bench *b)
{
    const nj_model_info *m = b->info;
    return json_pack("{s:o,s:b,s:o,s:I,s:I,s:I,s:I,s:I,s:s}", "source", nj_text_json(b->source, strlen(b->source)),
                     "random_weights", b->synthetic, "name", nj_text_json(m->name, strlen(m->name)), "layers",
                     (json_int_t)m->layers, "parameters", (json_int_t)m->params, "parameters_active",
                     (json_int_t)m->params_active, "weight_bytes", (json_int_t)m->bytes, "bytes_per_token",
                     (json_int_t)m->bytes_per_token, "kv", nj_format_name(b->kv_type));
}

/* A limit that nobody has measured, and a share of it, are null. */
static json_t *known(double value)
{
    return value > 0 ? json_real(value) : json_null();
}

static json_t *row_json(const nj_bench *b, const nj_bench_row *row)
{
    const nj_bench_setting *s = &b->setting[row->setting];
    json_t *o = json_pack("{s:s,s:I,s:I,s:I,s:s,s:I}", "kind", nj_bench_kind_name(row->kind), "parallel",
                          (json_int_t)row->parallel, "ctx", (json_int_t)row->ctx, "tokens", (json_int_t)row->tokens,
                          "isa", nj_isa_name((nj_isa)s->isa), "threads", (json_int_t)s->threads);
    if (!o) return NULL;
    if (row->skipped[0]) {
        json_object_set_new(o, "reason", nj_text_json(row->skipped, strlen(row->skipped)));
        return o;
    }
    nj_bench_figures f = nj_bench_figures_of(b, row);
    json_t *figures =
        json_pack("{s:f,s:f,s:f,s:f,s:o,s:o,s:f,s:f,s:f,s:I}", "tok_s", f.tok_s, "gb_s", f.gb_s, "read_ceiling_gb_s",
                  f.read_ceiling_gb_s, "gop_s", f.gop_s, "peak_gop_s", known(f.peak_gop_s), "share", known(f.share),
                  "spread", f.spread, "attention_share", f.attention_share, "attention_gop_s", f.attention_gop_s,
                  "repeats", (json_int_t)row->samples);
    if (s->peak < NJ_PEAK_COUNT) json_object_set_new(figures, "peak", json_string(nj_peak_name(s->peak)));
    json_object_update(o, figures);
    json_decref(figures);
    return o;
}

/* One value in one line; false without memory. */
static bool print_value(json_t *value, FILE *out)
{
    int rc = value ? json_dumpf(value, out, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6)) : -1;
    json_decref(value);
    return rc == 0;
}

/* Rows that were measured, or (skipped) those that could not be. */
static bool print_rows(const nj_bench *b, bool skipped, FILE *out)
{
    const char *before = "\n";
    bool ok = true;
    for (uint32_t i = 0; i < b->rows; i++) {
        const nj_bench_row *row = &b->row[i];
        if (skipped ? !row->skipped[0] : row->skipped[0] || !row->samples) continue;
        fputs(before, out);
        ok &= print_value(row_json(b, row), out);
        before = ",\n";
    }
    return ok;
}

static json_t *peers_json(const nj_bench *b)
{
    json_t *list = json_array();
    for (uint32_t p = 0; p < b->peers; p++)
        for (uint32_t i = 0; i < b->peer[p].rows; i++) {
            const nj_peer_figure *f = &b->peer[p].row[i].figure;
            uint32_t tokens = f->tokens;
            json_array_append_new(list, json_pack("{s:o,s:s,s:I,s:I,s:f,s:I}", "command",
                                                  nj_text_json(b->peer[p].command, strlen(b->peer[p].command)), "kind",
                                                  nj_bench_kind_name(f->kind), "ctx", (json_int_t)f->ctx, "tokens",
                                                  (json_int_t)f->tokens, "tok_s",
                                                  nj_peer_median(&b->peer[p], f->kind, f->ctx, &tokens), "repeats",
                                                  (json_int_t)b->peer[p].row[i].samples));
        }
    return list;
}

int nj_bench_print_json(const nj_bench *b, FILE *out, nj_error *err)
{
    bool ok = true;
    fputs("{\"machine\": ", out);
    ok &= print_value(machine_json(b), out);
    fputs(",\n\"model\": ", out);
    ok &= print_value(model_json(b), out);
    fputs(",\n\"rows\": [", out);
    ok &= print_rows(b, false, out);
    fputs("],\n\"skipped\": [", out);
    ok &= print_rows(b, true, out);
    fputs("],\n\"peers\": ", out);
    ok &= print_value(peers_json(b), out);
    fputs("}\n", out);
    return ok ? 0 : nj_fail(err, -ENOMEM, "There is no memory for the JSON text.");
}

/* ---- The card ---- */

/* The program's name in a command: "/opt/x/llama-bench -m m.gguf" gives "llama-bench". */
static void peer_name(const nj_peer *p, char out[24])
{
    const char *word = p->command + strspn(p->command, " ");
    int len = (int)strcspn(word, " ");
    for (int i = len; i-- > 0;)
        if (word[i] == '/') {
            word += i + 1;
            len -= i + 1;
            break;
        }
    nj_buf safe = { 0 };
    nj_text_escape(&safe, word, (size_t)len, 18);
    snprintf(out, 24, "%s", safe.data && safe.len ? safe.data : "peer");
    for (char *c = out; *c; c++)
        if (*c == '|') *c = '/'; /* would end a cell */
    nj_buf_free(&safe);
}

/* A peer's cell: its tok/s and how many times ours that makes; "-" where it has no such figure. */
static void print_peer_cell(const nj_peer *p, const nj_bench_row *row, double tok_s, FILE *out)
{
    uint32_t tokens = row->tokens;
    double median = row->parallel == 1 ? nj_peer_median(p, row->kind, row->ctx, &tokens) : 0;
    if (median <= 0)
        fprintf(out, " - |");
    else if (tokens && tokens != row->tokens)
        fprintf(out, " %.2f (%" PRIu32 " tokens), ours %.2fx |", median, tokens, tok_s / median);
    else
        fprintf(out, " %.2f, ours %.2fx |", median, tok_s / median);
}

static void print_report_row(const nj_bench *b, const nj_bench_row *row, FILE *out)
{
    char rate[32], limit[48], share[16];
    nj_bench_figures f = nj_bench_figures_of(b, row);
    const nj_bench_setting *s = &b->setting[row->setting];
    limit_texts(b, row, &f, rate, limit, share);
    fprintf(out, "| %s %" PRIu32, nj_bench_kind_name(row->kind), row->tokens);
    if (row->parallel > 1) fprintf(out, " x%" PRIu32, row->parallel);
    if (row->ctx) fprintf(out, " @ %" PRIu32, row->ctx);
    fprintf(out, " | %s, %" PRIu32 " thread%s | %.2f | %s of %s%s%s |", nj_isa_name((nj_isa)s->isa), s->threads,
            s->threads == 1 ? "" : "s", f.tok_s, rate, limit[0] ? limit : "an unknown limit", share[0] ? " = " : "",
            share);
    for (uint32_t p = 0; p < b->peers; p++) print_peer_cell(&b->peer[p], row, f.tok_s, out);
    fputc('\n', out);
}

enum { REPORT_ROWS_MAX = 14 };

/* Samples that each row shown has. */
static uint32_t rounds_done(const nj_bench *b)
{
    uint32_t rounds = b->repeat;
    for (uint32_t i = 0; i < b->rows; i++)
        if (b->row[i].samples && b->row[i].samples < rounds) rounds = b->row[i].samples;
    return rounds;
}

void nj_bench_print_report(const nj_bench *b, FILE *out)
{
    time_t now = time(NULL);
    char day[16], name[24];
    uint32_t shown = 0, all = 0;
    strftime(day, sizeof day, "%Y-%m-%d", localtime(&now));
    fprintf(out, "**nightjar bench**, %s, medians of %" PRIu32 "%s\n\n- machine: ", day, rounds_done(b),
            rounds_done(b) < b->repeat ? " (stopped early)" : "");
    print_machine(b, out);
    fprintf(out, "\n- model: ");
    print_model(b, out);
    fprintf(out, "\n\n| test | tier | tok/s | share of this machine's limit |");
    for (uint32_t p = 0; p < b->peers; p++) {
        peer_name(&b->peer[p], name);
        fprintf(out, " %s |", name);
    }
    fprintf(out, "\n|---|---|---|---|");
    for (uint32_t p = 0; p < b->peers; p++) fprintf(out, "---|");
    fputc('\n', out);
    for (uint32_t i = 0; i < b->rows; i++)
        if (b->row[i].samples && ++all <= REPORT_ROWS_MAX) {
            print_report_row(b, &b->row[i], out);
            shown++;
        }
    fputc('\n', out);
    if (all > shown) fprintf(out, "(%" PRIu32 " more rows were measured.) ", all - shown);
    for (uint32_t i = 0; i < b->rows; i++)
        if (b->row[i].skipped[0])
            fprintf(out, "%s x%" PRIu32 " @ %" PRIu32 " was skipped: %s.\n", nj_bench_kind_name(b->row[i].kind),
                    b->row[i].parallel, b->row[i].ctx, b->row[i].skipped);
    fprintf(out, "Limits and peers were measured in turn with these figures, in the same run.\n");
}
