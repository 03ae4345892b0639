/* nightjar batch: answers a file of OpenAI Batch lines. The run itself is in batch_run.c. */
#include "appliance/batch.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "appliance/cli.h"
#include "appliance/config.h"
#include "appliance/verbs.h"

enum { PARALLEL_DEFAULT = 8, PARALLEL_MAX = 4096 };

typedef struct batch_args {
    const char *model, *in, *out;
    uint32_t parallel, max_tokens;
    uint64_t seed;
    bool no_loop_check, retry_errors, json, quiet;
    nj_cli_model_args m;
} batch_args;

static const nj_cli_option options[] = {
    { "model", 'm', "FILE", nj_cli_text, offsetof(batch_args, model), 0, 0,
      "the model, a GGUF file (its first part, if it is split)" },
    { "input", 'i', "IN.jsonl", nj_cli_text, offsetof(batch_args, in), 0, 0,
      "requests, one JSON object per line; only read" },
    { "output", 'o', "OUT.jsonl", nj_cli_text, offsetof(batch_args, out), 0, 0,
      "results; added to, never overwritten" },
    { "parallel", 'p', "N", nj_cli_u32, offsetof(batch_args, parallel), 1, PARALLEL_MAX,
      "answers computed at a time (8); no answer depends on it" },
    { "max-tokens", 'n', "N", nj_cli_u32, offsetof(batch_args, max_tokens), 1, INT32_MAX,
      "longest answer of chat requests that name no limit (the context)" },
    { "seed", 0, "N", nj_cli_u64, offsetof(batch_args, seed), 0, 0,
      "changes the draws of requests that name no seed (0)" },
    { "no-loop-check", 0, NULL, NULL, offsetof(batch_args, no_loop_check), 0, 0,
      "don't end answers that repeat themselves over and over" },
    { "retry-errors", 0, NULL, NULL, offsetof(batch_args, retry_errors), 0, 0,
      "take the error lines of these requests out of OUT.jsonl first" },
    { "json", 0, NULL, NULL, offsetof(batch_args, json), 0, 0, "print the summary as JSON on stdout" },
    { "quiet", 'q', NULL, NULL, offsetof(batch_args, quiet), 0, 0, "no progress bar, no summary" },
    NJ_CLI_MODEL_OPTIONS(batch_args, m),
    { 0 },
};

static const nj_cli_verb verb = {
    .name = "batch",
    .usage = "-m MODEL -i IN.jsonl -o OUT.jsonl",
    .summary =
        "Answers a file of requests in the OpenAI Batch format, each exactly once. Stopped at any moment, even by "
        "a power cut, the same command goes on where it was. A request that can't be answered gets an error line "
        "and the rest go on; --retry-errors tries it again. The exit status is 0 when "
        "every request has its line, be it an answer or an error.",
    .options = options,
    .examples = "  nightjar batch -m qwen3-30b-a3b-q4_k_m.gguf -i night.jsonl -o answers.jsonl\n"
                "  nightjar batch -m llama-3.3-70b-q4_k_m.gguf -i night.jsonl -o answers.jsonl --parallel 32\n"
                "  nightjar answers answers.jsonl night.jsonl\n",
};

/* "nano-q8_0" of "models/nano-q8_0.gguf". */
static void model_name(const char *path, char out[128])
{
    const char *base = strrchr(path, '/');
    snprintf(out, 128, "%.127s", base ? base + 1 : path);
    size_t len = strlen(out);
    if (len > 5 && !strcmp(out + len - 5, ".gguf")) out[len - 5] = '\0';
    out[nj_utf8_whole(out, strlen(out))] = '\0';
}

/* What an answer's text depends on besides model and request. */
static void fingerprint(const nj_engine *e, const batch_args *a, char out[64])
{
    nj_engine_stats stats;
    nj_engine_stats_read(e, &stats);
    snprintf(out, 64, "nightjar-%s-kv-%s", nj_isa_name(stats.isa),
             nj_format_name(a->m.kv_type < 0 ? NJ_F16 : (uint32_t)a->m.kv_type));
}

static void summary_text(const batch_args *a, const nj_batch_plan *p, const nj_batch_counts *c, double seconds)
{
    char duration[24], found[48] = "", found_errors[48] = "";
    uint64_t done = p->done + c->answered + c->errors;
    nj_text_duration(seconds, duration);
    if (p->done) snprintf(found, sizeof found, ", %" PRIu64 " found done", p->done);
    if (p->failed.len) snprintf(found_errors, sizeof found_errors, ", %zu of them with an error", p->failed.len);
    nj_cli_say("%" PRIu64 " of %" PRIu64 " done: %" PRIu64 " answered now, %" PRIu64 " with an error%s%s.", done,
               p->total, c->answered, c->errors, found, found_errors);
    if (c->completion_tokens)
        nj_cli_say("%" PRIu64 " tokens written in %s, %.1f tok/s; %" PRIu64 " tokens of prompts read.",
                   c->completion_tokens, duration, seconds > 0 ? (double)c->completion_tokens / seconds : 0,
                   c->prompt_tokens);
    if (c->loops)
        nj_cli_say("%" PRIu64 " answers had begun to repeat themselves and were ended (finish_reason \"repetition\").",
                   c->loops);
    if (c->errors + p->failed.len)
        nj_cli_say("nightjar answers %s -i %s shows the errors; the same command with --retry-errors tries them again.",
                   a->out, a->in);
    nj_cli_say("results: %s", a->out);
}

static void summary_json(const batch_args *a, const nj_batch_plan *p, const nj_batch_counts *c, double seconds)
{
    uint64_t done = p->done + c->answered + c->errors;
    json_t *o = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f}", "input", a->in, "output", a->out,
                          "requests", (json_int_t)p->total, "done", (json_int_t)done, "found_done", (json_int_t)p->done,
                          "found_errors", (json_int_t)p->failed.len, "answered", (json_int_t)c->answered, "errors",
                          (json_int_t)c->errors, "ended_by_repetition", (json_int_t)c->loops, "remaining",
                          (json_int_t)(p->total - done), "prompt_tokens", (json_int_t)c->prompt_tokens,
                          "completion_tokens", (json_int_t)c->completion_tokens, "seconds", seconds,
                          "tokens_per_second", seconds > 0 ? (double)c->completion_tokens / seconds : 0.0);
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(o);
}

/* Loads the model and works the plan off. *began: that far it came. */
static int answer(const batch_args *a, const nj_batch_plan *plan, nj_lines *in, nj_results *out,
                  nj_batch_counts *counts, bool *began, nj_error *err)
{
    char name[128], print[64];
    nj_model *m = NULL;
    nj_engine *e = NULL;
    nj_progress bar;
    int rc = nj_cli_model_open(&m, a->model, &a->m, a->quiet, err);
    if (rc) return rc;
    const nj_engine_options engine_options = nj_cli_engine_options(&a->m);
    if (!(rc = nj_engine_new(&e, m, &engine_options, err))) {
        model_name(a->model, name);
        fingerprint(e, a, print);
        const nj_batch_options opt = {
            .parallel = a->parallel,
            .max_tokens = a->max_tokens,
            .seed = a->seed,
            .detect_loops = !a->no_loop_check,
            .model_name = name,
            .fingerprint = print,
            .now = nj_config_now(),
            .stop = &nj_cli_interrupted,
        };
        *began = true;
        nj_progress_begin(&bar, "Answering", "requests", a->quiet);
        bar.base = plan->done;
        nj_progress_update(&bar, plan->done, plan->total);
        rc = nj_batch_run(e, m, &opt, plan, in, out, &bar, counts, err);
        nj_progress_end(&bar);
    }
    nj_engine_free(e);
    nj_model_close(m);
    return rc;
}

static void tell_plan(const batch_args *a, const nj_batch_plan *p, const nj_results *out)
{
    if (out->cut_bytes)
        nj_cli_say("%s ended in %" PRIu64 " bytes of an unfinished line; they were cut off.", a->out, out->cut_bytes);
    if (p->strangers)
        nj_cli_say("%s holds %" PRIu64 " results of requests that are not in %s; they stay.", a->out, p->strangers,
                   a->in);
    if (!p->total) nj_cli_say("%s holds no requests.", a->in);
    if (!p->done || a->quiet) return;
    char errors[48] = "";
    if (p->failed.len) snprintf(errors, sizeof errors, ", %zu of them with an error", p->failed.len);
    nj_cli_say("found %" PRIu64 " of %" PRIu64 " done%s.", p->done, p->total, errors);
}

/* Takes the errors out of the results, and plans again. */
static int retry_errors(const batch_args *a, nj_batch_plan *p, nj_lines *in, nj_results *out, nj_error *err)
{
    uint64_t dropped;
    int rc = nj_results_drop_errors(out, &p->failed, &dropped, err);
    if (rc || !dropped) return rc;
    if (!a->quiet) nj_cli_say("took %" PRIu64 " error lines out of %s, to try again.", dropped, a->out);
    nj_batch_plan_free(p);
    return nj_batch_plan_make(p, in, out, err);
}

static int run(const batch_args *a, nj_lines *in, nj_results *out, nj_error *err)
{
    nj_batch_plan plan;
    nj_batch_counts counts = { 0 };
    int rc = nj_batch_plan_make(&plan, in, out, err);
    if (!rc && a->retry_errors) rc = retry_errors(a, &plan, in, out, err);
    if (rc) {
        nj_batch_plan_free(&plan);
        return nj_cli_fail(err);
    }
    tell_plan(a, &plan, out);
    bool began = plan.done == plan.total;
    uint64_t start = nj_now_ns();
    if (!began) rc = answer(a, &plan, in, out, &counts, &began, err);
    double seconds = (double)(nj_now_ns() - start) / 1e9;
    int status = rc ? 1 : 0;
    if (rc == -ECANCELED) {
        uint64_t left = plan.total - plan.done - counts.answered - counts.errors;
        nj_cli_say("stopped with %" PRIu64 " of %" PRIu64 " left. The same command goes on from here.", left,
                   plan.total);
        status = nj_cli_interrupt_status();
    } else if (rc) {
        nj_cli_fail(err);
    }
    if (began && plan.total && !a->quiet) summary_text(a, &plan, &counts, seconds);
    if (began && a->json) summary_json(a, &plan, &counts, seconds);
    nj_batch_plan_free(&plan);
    return status;
}

static int open_input(nj_lines *in, const char *path, nj_error *err)
{
    int rc = nj_lines_open(in, path, NJ_BATCH_LINE_MAX, err);
    if (rc == -ENOENT) nj_remedy(err, "Check the name; the requests must be there before the run.");
    if (rc == -EINVAL) nj_remedy(err, "Save the requests to a file on disk; an interrupted run reads it again.");
    return rc;
}

int nj_verb_batch(int argc, char **argv)
{
    batch_args a = { .parallel = PARALLEL_DEFAULT, .m = NJ_CLI_MODEL_DEFAULTS };
    char **operand;
    int operands;
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, &operands);
    if (status < 0 && !a.model) status = nj_cli_usage(&verb, "name the model with -m.");
    if (status < 0 && !a.in) status = nj_cli_usage(&verb, "name the file of requests with -i.");
    if (status < 0 && !a.out) status = nj_cli_usage(&verb, "name the file for the results with -o.");
    if (status < 0 && !strcmp(a.in, "-"))
        status = nj_cli_usage(&verb, "-i must be a file that stays, for an interrupted run reads it again; save the "
                                     "requests first.");
    if (status < 0 && !strcmp(a.out, "-"))
        status = nj_cli_usage(&verb, "-o must be a file that stays, for an interrupted run goes on from it.");
    if (status < 0) {
        nj_error err = { 0 };
        nj_lines in = { .fd = -1 };
        nj_results out = { .fd = -1 };
        signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk: an error of write */
        if (open_input(&in, a.in, &err) || nj_results_open(&out, a.out, a.in, &err))
            status = nj_cli_fail(&err);
        else
            status = run(&a, &in, &out, &err);
        if (status) nj_results_withdraw(&out); /* no empty file where the model or the requests were wrong */
        nj_results_close(&out);
        nj_lines_close(&in);
    }
    nj_cli_model_args_free(&a.m);
    return status;
}
