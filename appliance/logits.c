/* nightjar logits: the raw scores of every position, for comparison with a reference. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/cli.h"
#include "appliance/score.h"
#include "appliance/text.h"
#include "appliance/verbs.h"

#define ROWS_DEFAULT 64 /* of a step: enough to share each weight's unpacking, small beside the weights */
#define TOP          5

typedef struct args {
    const char *tokens, *out;
    uint32_t chunk;
    bool json, quiet;
    nj_cli_model_args model;
} args;

// clang-format off
static const nj_cli_option options[] = {
    { "tokens", 0, "IDS", nj_cli_text, offsetof(args, tokens), 0, 0, "token ids, like 5,17,9" },
    { "chunk", 0, "N", nj_cli_u32, offsetof(args, chunk), 1, 4096, "positions per step; 1: token by token (64)" },
    { "output", 'o', "OUT.f32", nj_cli_text, offsetof(args, out), 0, 0, "write to this file" },
    { "json", 0, NULL, NULL, offsetof(args, json), 0, 0, "print the five best tokens of each position as JSON" },
    { "quiet", 'q', NULL, NULL, offsetof(args, quiet), 0, 0, "no progress bar" },
    NJ_CLI_MODEL_OPTIONS(args, model),
    { 0 },
};
// clang-format on

static const nj_cli_verb verb = {
    .name = "logits",
    .usage = "MODEL --tokens IDS [-o OUT.f32]",
    .summary = "Writes the logits of every position as float32, positions x vocabulary, row by row.\n"
               "Without -o they go to standard output, on a terminal the five best of each position as text.",
    .options = options,
    .examples = "  nightjar logits model.gguf --tokens 9707,11,1879 -o logits.f32\n"
                "  nightjar logits model.gguf --tokens 9707,11,1879 --chunk 1 --kv f32 > logits.f32\n"
                "  nightjar logits model.gguf --tokens \"$(nightjar tokenize model.gguf -p 'Good night,' --ids)\"\n",
    .operands_min = 1,
    .operands_max = 1,
};

typedef struct writer {
    FILE *file;
    const char *path;
    const nj_tokenizer *tokenizer;
    const int32_t *tokens;
    uint32_t vocab;
    json_t *list; /* with --json */
} writer;

static int write_raw(void *arg, size_t position, const float *logits, const float *reference, nj_error *err)
{
    writer *w = arg;
    (void)position;
    (void)reference;
    if (fwrite(logits, sizeof *logits, w->vocab, w->file) == w->vocab) return 0;
    int rc = errno ? -errno : -EIO;
    return nj_fail(err, rc, "%s: can't be written: %s.", w->path, strerror(-rc));
}

/* Ids of the largest logits, best first; the lower id first where equal. */
static void find_top(const float *logits, uint32_t vocab, int32_t top[TOP])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        uint32_t at = n;
        while (at > 0 && logits[i] > logits[top[at - 1]]) at--;
        if (at >= TOP) continue;
        if (n < TOP) n++;
        memmove(top + at + 1, top + at, (n - 1 - at) * sizeof *top);
        top[at] = (int32_t)i;
    }
}

static int print_top(void *arg, size_t position, const float *logits, const float *reference, nj_error *err)
{
    writer *w = arg;
    (void)reference;
    int32_t top[TOP];
    uint32_t n = w->vocab < TOP ? w->vocab : TOP;
    nj_buf raw = { 0 }, safe = { 0 };
    double total = nj_log_sum_exp(logits, w->vocab);
    json_t *entry = w->list ? json_array() : NULL;

    find_top(logits, w->vocab, top);
    if (!w->list) printf("position %zu, after token %" PRId32 "\n", position, w->tokens[position]);
    for (uint32_t i = 0; i < n; i++) {
        double p = exp(logits[top[i]] - total);
        nj_buf_clear(&raw);
        nj_buf_clear(&safe);
        if (top[i] < nj_tokenizer_size(w->tokenizer)) nj_token_text(w->tokenizer, top[i], true, &raw);
        if (w->list) {
            json_array_append_new(entry, json_pack("{s:i,s:o,s:f,s:f}", "id", top[i], "text",
                                                   nj_text_json(raw.data ? raw.data : "", raw.len), "logit",
                                                   (double)logits[top[i]], "probability", p));
            continue;
        }
        nj_text_quote(&safe, raw.data ? raw.data : "", raw.len, 40);
        printf("  %8" PRId32 "  %9.4f  %5.1f%%  %s\n", top[i], (double)logits[top[i]], 100 * p,
               safe.data ? safe.data : "");
    }
    nj_buf_free(&raw);
    nj_buf_free(&safe);
    if (!w->list) return 0;
    entry = json_pack("{s:I,s:i,s:o}", "position", (json_int_t)position, "token", w->tokens[position], "top", entry);
    return json_array_append_new(w->list, entry) == 0 ? 0 : nj_fail(err, -ENOMEM, "There is no memory left.");
}

/* Scores all tokens with what `a` asks for as output. */
static int score(const args *a, const nj_model *m, nj_engine *e, const nj_tokens *tokens, uint32_t rows, nj_error *err)
{
    writer w = { .file = stdout, .path = "standard output", .tokens = tokens->id };
    w.tokenizer = nj_model_tokenizer(m);
    w.vocab = nj_model_info_of(m)->vocab;
    if (a->json && !(w.list = json_array())) return nj_fail(err, -ENOMEM, "There is no memory left.");
    if (a->out) {
        w.path = a->out;
        if (!(w.file = fopen(a->out, "wb")))
            return nj_fail(err, -errno, "%s: can't be opened for writing: %s.", a->out, strerror(errno));
    }
    bool raw = a->out || (!a->json && !isatty(STDOUT_FILENO));
    nj_score s = { .engine = e, .vocab = w.vocab, .rows = rows, .fn = raw ? write_raw : print_top, .arg = &w };
    int rc = nj_score_tokens(&s, tokens->id, tokens->len, 0, err);
    if (a->out && fclose(w.file) != 0 && rc == 0) rc = nj_fail(err, -errno, "%s: %s.", a->out, strerror(errno));
    if (a->out && rc != 0) unlink(a->out); /* half a result must not look like one */
    if (rc == 0 && w.list) return nj_text_json_print(w.list, err);
    json_decref(w.list);
    return rc;
}

int nj_verb_logits(int argc, char **argv)
{
    args a = { .model = NJ_CLI_MODEL_DEFAULTS, .chunk = ROWS_DEFAULT };
    char **operand;
    nj_error err = { 0 };
    nj_model *m = NULL;
    nj_engine *e = NULL;
    nj_tokens tokens = { 0 };
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, NULL);
    if (status >= 0) return status;
    if (!a.tokens) return nj_cli_usage(&verb, "--tokens is missing.");
    if (a.json && a.out) return nj_cli_usage(&verb, "--json prints text, -o writes numbers: give one of them.");

    int rc = nj_cli_model_open(&m, operand[0], &a.model, a.quiet, &err);
    if (rc == 0) rc = nj_cli_ids(a.tokens, (int32_t)nj_model_info_of(m)->vocab, &tokens, &err);
    if (rc == 0 && tokens.len == 0) rc = nj_fail(&err, -EINVAL, "--tokens has no token.");
    uint32_t rows = tokens.len < a.chunk ? (uint32_t)tokens.len : a.chunk;
    nj_engine_options opt = nj_cli_engine_options(&a.model);
    opt.rows_max = rows;
    if (rc == 0) rc = nj_engine_new(&e, m, &opt, &err);
    if (rc == 0) rc = score(&a, m, e, &tokens, rows, &err);
    nj_engine_free(e);
    nj_model_close(m);
    nj_cli_model_args_free(&a.model);
    free(tokens.id);
    return rc ? nj_cli_fail(&err) : 0;
}
