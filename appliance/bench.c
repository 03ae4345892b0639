/* nightjar bench: what a model does on this machine, beside the machine's limits. */
#include "appliance/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/cli.h"
#include "appliance/verbs.h"

#define WORD_MAX 32

typedef struct args {
    nj_bench_plan plan;
    const char *shape;
    uint32_t layers, repeat;
    nj_cli_strings peers;
    bool report, json, quiet;
    nj_cli_model_args model;
} args;

/* Numbers between commas, each read as the option would read one, into an nj_bench_list; the default gives way. */
static int parse_list(const nj_cli_option *o, const char *text, void *dest, nj_error *err, nj_cli_parse_fn *parse)
{
    nj_bench_list list = { 0 };
    char word[WORD_MAX];
    for (;; text++) {
        size_t len = strcspn(text, ",");
        if (len >= sizeof word) return nj_fail(err, -EINVAL, "--%s: '%s' is too long.", o->name, text);
        if (list.count == NJ_BENCH_LIST_MAX)
            return nj_fail(err, -EINVAL, "--%s: at most %d values.", o->name, NJ_BENCH_LIST_MAX);
        memcpy(word, text, len);
        word[len] = '\0';
        int rc = parse(o, word, &list.item[list.count++], err);
        if (rc != 0) return rc;
        text += len;
        if (!*text) break;
    }
    *(nj_bench_list *)dest = list;
    return 0;
}

static int parse_numbers(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    return parse_list(o, text, dest, err, nj_cli_u32);
}

/* "all": every tier that this machine runs, but for the scalar reference. */
static int parse_isas(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    nj_bench_list *list = dest;
    if (strcmp(text, "all") != 0) return parse_list(o, text, dest, err, nj_cli_isa);
    list->count = 0;
    for (int isa = NJ_ISA_SCALAR + 1; isa < NJ_ISA_COUNT; isa++)
        if (nj_kernels_get((nj_isa)isa)) list->item[list->count++] = (uint32_t)isa;
    if (list->count == 0) return nj_fail(err, -EINVAL, "--%s: this machine runs the scalar kernels only.", o->name);
    return 0;
}

// clang-format off
static const nj_cli_option options[] = {
    { "prompt", 'p', "N", nj_cli_u32, offsetof(args, plan.prompt), 0, 65536, "tokens of prefill; 0: none (512)" },
    { "tokens", 'n', "N", nj_cli_u32, offsetof(args, plan.tokens), 0, 65536,
      "tokens to decode in each sequence; 0: none (64)" },
    { "parallel", 0, "LIST", parse_numbers, offsetof(args, plan.parallel), 1, 512,
      "sequences decoding side by side (1,4,16)" },
    { "ctx", 'c', "LIST", parse_numbers, offsetof(args, plan.ctx), 0, 1 << 24,
      "positions before the first token, filled with made-up keys and values: 0,4096,32768 (0)" },
    { "threads", 't', "LIST", parse_numbers, offsetof(args, plan.threads), 1, 4096,
      "worker threads (one per physical core)" },
    { "isa", 0, "LIST", parse_isas, offsetof(args, plan.isa), 0, 0, "scalar, avx2, avx512, amx, or all (the best)" },
    { "kv", 0, "TYPE", nj_cli_kv, offsetof(args, model.kv_type), 0, 0, "f16, f32, or q8_0 where heads suit (f16)" },
    { "repeat", 'r', "N", nj_cli_u32, offsetof(args, repeat), 1, NJ_BENCH_REPEAT_MAX, "rounds over all rows (3)" },
    { .help = "Without a file:" },
    { "shape", 0, "NAME:TYPE", nj_cli_text, offsetof(args, shape), 0, 0,
      "a known model's shape with random weights, made in memory: qwen3-4b:q4_k_m" },
    { "layers", 0, "N", nj_cli_u32, offsetof(args, layers), 1, 1 << 16, "only so many layers of the shape" },
    { .help = "To tell:" },
    { "report", 0, NULL, NULL, offsetof(args, report), 0, 0, "print a card that one can paste into a forum" },
    { "peer", 0, "CMD", nj_cli_list, offsetof(args, peers), 0, 0,
      "run this command in every round too, and print its figures; understands llama-bench (-o json, or its table) and "
      "\"prefill X tok/s decode Y tok/s\"; repeatable" },
    { "json", 0, NULL, NULL, offsetof(args, json), 0, 0, "print JSON, one row per line" },
    { "quiet", 'q', NULL, NULL, offsetof(args, quiet), 0, 0, "no progress bar" },
    { 0 },
};
// clang-format on

static const nj_cli_verb verb = {
    .name = "bench",
    .usage = "MODEL | --shape NAME:TYPE",
    .summary = "Measures prefill and decode beside this machine's limits: the rate at which its memory can be read,\n"
               "and the peak of its arithmetic, both measured in turn with each row. Shares count the bytes and\n"
               "operations that the work needs. Ctrl-C prints what was measured until then.",
    .options = options,
    .examples = "  nightjar bench model.gguf\n"
                "  nightjar bench model.gguf --parallel 1,16 --ctx 0,4096,32768 --isa avx2,avx512\n"
                "  nightjar bench --shape qwen3-30b-a3b:q4_k_m --layers 8\n"
                "  nightjar bench model.gguf --report --peer 'llama-bench -m model.gguf -p 512 -n 64 -o json'\n",
    .operands_min = 0,
    .operands_max = 1,
};

/* A shape's weights are made where a file's would be read. */
static int open_shape(nj_model **out, const args *a, nj_error *err)
{
    nj_shape shape;
    nj_progress bar;
    int rc = nj_shape_find(a->shape, a->layers, &shape, err);
    if (rc != 0) return rc;
    nj_cli_catch_interrupt(true);
    nj_progress_begin(&bar, "Making weights", NULL, a->quiet);
    const nj_model_options opt = {
        .threads = a->model.threads,
        .progress = nj_progress_callback,
        .progress_arg = &bar,
        .cancel = &nj_cli_interrupted,
    };
    rc = nj_model_synth(out, &shape, &opt, err);
    nj_progress_end(&bar);
    return rc == -ECANCELED ? nj_fail(err, rc, "Stopped while making weights.") : rc;
}

static int check_args(const args *a, int operands)
{
    if (operands && a->shape) return nj_cli_usage(&verb, "give a file or --shape, not both.");
    if (!operands && !a->shape) return nj_cli_usage(&verb, "something is missing: nightjar bench %s", verb.usage);
    if (a->layers && !a->shape) return nj_cli_usage(&verb, "--layers cuts a --shape; a file is measured as it is.");
    if (a->json && a->report) return nj_cli_usage(&verb, "--json and --report: give one of them.");
    if (a->peers.count > NJ_BENCH_PEERS_MAX) return nj_cli_usage(&verb, "at most %d peers.", NJ_BENCH_PEERS_MAX);
    return -1;
}

static bool measured_any(const nj_bench *b)
{
    for (uint32_t i = 0; i < b->rows; i++)
        if (b->row[i].samples || b->row[i].skipped[0]) return true;
    return false;
}

static int print(const args *a, const nj_bench *b, nj_error *err)
{
    if (b->probe_bytes && b->probe_bytes < UINT64_C(2) << 30)
        nj_cli_say("memory is short: the read ceiling was measured over %" PRIu64 " MB only, and may be a cache's.",
                   b->probe_bytes / 1000000);
    if (a->json) return nj_bench_print_json(b, stdout, err);
    if (a->report)
        nj_bench_print_report(b, stdout);
    else
        nj_bench_print_table(b, stdout);
    return 0;
}

/* Prints also what was measured before Ctrl-C or a peer's failure. */
static int measure(const args *a, nj_bench *b, nj_error *err)
{
    nj_error second = { 0 };
    int rc = nj_bench_plan_rows(b, &a->plan, err);
    if (rc != 0) return rc;
    rc = nj_bench_run(b, a->quiet, err);
    if (rc != 0 && !measured_any(b)) return rc;
    int printed = print(a, b, &second);
    if (rc != 0 || printed == 0) return rc;
    *err = second;
    return printed;
}

int nj_verb_bench(int argc, char **argv)
{
    args a = { .model = NJ_CLI_MODEL_DEFAULTS,
               .repeat = 3,
               .plan = { .prompt = 512,
                         .tokens = 64,
                         .parallel = { { 1, 4, 16 }, 3 },
                         .ctx = { { 0 }, 1 },
                         .threads = { { 0 }, 1 },
                         .isa = { { nj_isa_best() }, 1 } } };
    char **operand;
    int operands;
    nj_error err = { 0 };
    nj_model *m = NULL;
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, &operands);
    if (status < 0) status = check_args(&a, operands);
    if (status >= 0) return status;

    nj_bench *b = nj_new(nj_bench);
    int rc = b ? 0 : nj_fail(&err, -ENOMEM, "There is no memory left.");
    for (uint32_t i = 0; i < a.plan.threads.count; i++)
        if (a.plan.threads.item[i] > a.model.threads) a.model.threads = a.plan.threads.item[i];
    if (rc == 0) rc = a.shape ? open_shape(&m, &a, &err) : nj_cli_model_open(&m, operand[0], &a.model, a.quiet, &err);
    if (rc == 0) {
        nj_machine_read(&b->machine);
        b->model = m;
        b->info = nj_model_info_of(m);
        b->source = a.shape ? a.shape : strrchr(operand[0], '/') ? strrchr(operand[0], '/') + 1 : operand[0];
        b->synthetic = a.shape != NULL;
        b->kv_type = a.model.kv_type < 0 ? NJ_F16 : (uint32_t)a.model.kv_type;
        b->repeat = a.repeat;
        b->peers = (uint32_t)a.peers.count;
        for (uint32_t i = 0; i < b->peers; i++) b->peer[i].command = a.peers.item[i];
        rc = measure(&a, b, &err);
        free(b->row);
    }
    nj_model_close(m);
    free(b);
    free(a.peers.item);
    nj_cli_model_args_free(&a.model);
    return rc ? nj_cli_fail(&err) : 0;
}
