/* nightjar perplexity: exp of the mean negative log-likelihood of a text's tokens.
 *
 * The text is cut into chunks of N tokens without overlap; each starts from an empty context; a tail shorter than N is
 * left out. Plain: no special tokens, tokens 2..N of each chunk are scored. --second-half, for comparison with
 * llama.cpp's figures: bos where the vocabulary wants it, in place of each chunk's first token too, and only what
 * follows position N/2 is scored.
 *
 * --kl: what rounding activations costs. A second engine computes the same weights with F32 activations, and the mean
 * divergence of the next token's distribution from the one that it gives is printed beside its limit. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/cli.h"
#include "appliance/score.h"
#include "appliance/text.h"
#include "appliance/verbs.h"

#define ROWS_MAX      128
#define CHUNK_DEFAULT 512

typedef struct args {
    const char *file, *text;
    uint32_t chunk;
    bool second_half, kl, prompt, json, quiet;
    nj_cli_model_args model;
} args;

// clang-format off
static const nj_cli_option options[] = {
    { "file", 'f', "TEXT", nj_cli_text, offsetof(args, file), 0, 0, "the text to score (-: standard input)" },
    { "prompt", 'p', "TEXT", nj_cli_text, offsetof(args, text), 0, 0, "the text itself" },
    { "chunk", 0, "N", nj_cli_u32, offsetof(args, chunk), 2, 1 << 24,
      "tokens per chunk (512, or what text and context have)" },
    { "second-half", 0, NULL, NULL, offsetof(args, second_half), 0, 0, "score as llama.cpp does, for comparison" },
    { "kl", 0, NULL, NULL, offsetof(args, kl), 0, 0, "also the divergence from the same weights with F32 activations" },
    { "as-prompt", 0, NULL, NULL, offsetof(args, prompt), 0, 0,
      "compute as a prompt is: with --isa amx in BF16, else as always" },
    { "json", 0, NULL, NULL, offsetof(args, json), 0, 0, "one JSON document, with the surprise of each token" },
    { "quiet", 'q', NULL, NULL, offsetof(args, quiet), 0, 0, "no progress bar" },
    NJ_CLI_MODEL_OPTIONS(args, model),
    { 0 },
};
// clang-format on

static const nj_cli_verb verb = {
    .name = "perplexity",
    .usage = "MODEL -f TEXT [--chunk N] [--second-half] [--kl]",
    .summary = "Measures how well a model predicts a text; lower is better. Compare models with the same\n"
               "vocabulary, text and chunk only.",
    .options = options,
    .examples = "  nightjar perplexity model-q4_k_m.gguf -f heldout.txt\n"
                "  nightjar perplexity model.gguf -f wiki.test.raw --second-half --chunk 512\n"
                "  nightjar perplexity model-q4_k_m.gguf -f heldout.txt --kl\n"
                "  nightjar perplexity model.gguf -f letter.txt --json | jq '.tokens[] | select(.nll > 10)'\n",
    .operands_min = 1,
    .operands_max = 1,
};

typedef struct scoring {
    const args *a;
    const nj_tokenizer *tokenizer;
    const int32_t *chunk; /* tokens of the chunk at work, `begin` tokens into the text */
    size_t begin, tokens, chunks;
    uint32_t vocab;
    nj_mean nll, kl;
    double kl_worst;
    bool wide; /* computed by the wide recipe */
    nj_progress bar;
} scoring;

/* What rounded activations may cost, in nats per token: int8 of the narrow recipe, BF16 of the wide one. */
static double kl_limit(const scoring *s)
{
    return s->wide ? 1e-4 : 2e-3;
}

static double perplexity(const scoring *s)
{
    return exp(s->nll.mean);
}

/* exp's slope at the mean carries the mean's standard error over. */
static double perplexity_error(const scoring *s)
{
    return perplexity(s) * nj_mean_error(&s->nll);
}

static int print_token(const scoring *s, size_t position, int32_t id, double nll, nj_error *err)
{
    nj_buf raw = { 0 };
    nj_token_text(s->tokenizer, id, true, &raw);
    json_t *text = nj_text_json(raw.data ? raw.data : "", raw.len);
    nj_buf_free(&raw);
    json_t *entry =
        json_pack("{s:I,s:i,s:o,s:f}", "position", (json_int_t)position, "id", id, "text", text, "nll", nll);
    if (!entry) return nj_fail(err, -ENOMEM, "There is no memory left.");
    printf("%s\n    ", s->nll.n > 1 ? "," : "");
    json_dumpf(entry, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(entry);
    return 0;
}

static int score_next(void *arg, size_t position, const float *logits, const float *reference, nj_error *err)
{
    scoring *s = arg;
    int32_t next = s->chunk[position + 1];
    double nll = nj_log_sum_exp(logits, s->vocab) - logits[next];
    if (!isfinite(nll))
        return nj_fail(err, -EDOM, "The model's logits at token %zu are not finite.", s->begin + position);
    nj_mean_add(&s->nll, nll);
    if (reference) {
        double kl = nj_divergence(reference, logits, s->vocab);
        nj_mean_add(&s->kl, kl);
        s->kl_worst = fmax(s->kl_worst, kl);
    }
    return s->a->json ? print_token(s, s->begin + position + 1, next, nll, err) : 0;
}

/* Scores all chunks; Ctrl-C ends early with what there is. */
static int score_chunks(scoring *s, nj_engine *e, nj_engine *reference, nj_tokens *tokens, nj_error *err)
{
    uint32_t n = s->a->chunk;
    int32_t bos = nj_tokenizer_bos(s->tokenizer);
    bool with_bos = s->a->second_half && tokens->len && bos >= 0 && tokens->id[0] == bos;
    nj_score score = { .engine = e, .reference = reference, .vocab = s->vocab, .fn = score_next, .arg = s };
    score.prompt = s->a->prompt;
    score.rows = n - 1 < ROWS_MAX ? n - 1 : ROWS_MAX;
    size_t all = tokens->len / n, first = s->a->second_half ? n / 2 : 0;
    int rc = 0;

    nj_progress_begin(&s->bar, "Perplexity", "tokens", s->a->quiet);
    for (s->chunks = 0; s->chunks < all && rc == 0; s->chunks++) {
        s->begin = s->chunks * n;
        s->chunk = tokens->id + s->begin;
        if (with_bos) tokens->id[s->begin] = bos;
        rc = nj_score_tokens(&score, s->chunk, n - 1, first, err);
        if (rc == 0 && !nj_cli_out_flush()) rc = nj_fail(err, -EPIPE, "Standard output can't be written any more.");
        nj_progress_note(&s->bar, "perplexity %.4f +/- %.4f", perplexity(s), perplexity_error(s));
        nj_progress_update(&s->bar, s->begin + n, all * n);
    }
    nj_progress_end(&s->bar);
    if (rc == -ECANCELED && s->nll.n) {
        nj_cli_say("stopped after %zu of %zu chunks.", s->chunks - 1, all);
        s->chunks--;
        return 0;
    }
    return rc;
}

static void print_json(const scoring *s, double seconds)
{
    printf("\n  ],\n  \"perplexity\": %.9g,\n  \"perplexity_error\": %.6g,\n  \"mean_nll\": %.12g,\n", perplexity(s),
           perplexity_error(s), s->nll.mean);
    if (s->a->kl)
        printf("  \"kl\": {\"mean\": %.6g, \"error\": %.3g, \"worst\": %.6g, \"limit\": %g, \"recipe\": \"%s\"},\n",
               s->kl.mean, nj_mean_error(&s->kl), s->kl_worst, kl_limit(s), s->wide ? "wide" : "narrow");
    printf("  \"scored\": %" PRIu64 ",\n  \"text_tokens\": %zu,\n  \"chunk\": %" PRIu32 ",\n  \"chunks\": %zu,\n",
           s->nll.n, s->tokens, s->a->chunk, s->chunks);
    printf("  \"second_half\": %s,\n  \"seconds\": %.3f\n}\n", s->a->second_half ? "true" : "false", seconds);
}

static void print_result(const scoring *s)
{
    printf("perplexity %.4f +/- %.4f\n", perplexity(s), perplexity_error(s));
    if (s->a->kl)
        printf("divergence from F32 activations %.2e +/- %.0e nats per token, worst %.2e; limit %.0e (%s recipe)\n",
               s->kl.mean, nj_mean_error(&s->kl), s->kl_worst, kl_limit(s), s->wide ? "wide" : "narrow");
    printf("%" PRIu64 " of %zu tokens scored, %zu chunk%s of %" PRIu32 "%s; mean surprise %.6f nats\n", s->nll.n,
           s->tokens, s->chunks, s->chunks == 1 ? "" : "s", s->a->chunk, s->a->second_half ? ", second halves" : "",
           s->nll.mean);
}

/* Settles the length of a chunk: as given, which must fit text and context, else what there is, up to the default. */
static int choose_chunk(args *a, const nj_model *m, size_t tokens, nj_error *err)
{
    uint32_t context = nj_model_info_of(m)->context, least = a->second_half ? 3 : 2;
    if (!a->chunk) {
        a->chunk = CHUNK_DEFAULT;
        if (a->chunk > context) a->chunk = context;
        if (a->chunk > tokens) a->chunk = (uint32_t)tokens;
        if (a->chunk >= least && a->chunk < CHUNK_DEFAULT && !a->quiet)
            nj_cli_say("the %s has %" PRIu32 " tokens, so --chunk is %" PRIu32 " instead of %d.",
                       a->chunk == tokens ? "text" : "context", a->chunk, a->chunk, CHUNK_DEFAULT);
    }
    if (a->chunk < least)
        return nj_fail(err, -EINVAL,
                       "There is nothing to score: text, --chunk and --ctx must have %" PRIu32 " tokens or more.",
                       least);
    if (a->chunk > context) {
        nj_fail(err, -EINVAL, "--chunk %" PRIu32 " is more than the context of %" PRIu32 " tokens.", a->chunk, context);
        return nj_remedy(err, "Take a smaller --chunk or a larger --ctx.");
    }
    if (tokens < a->chunk) {
        nj_fail(err, -EINVAL, "The text has %zu tokens, a chunk has %" PRIu32 ".", tokens, a->chunk);
        return nj_remedy(err, "Take a longer text or a smaller --chunk.");
    }
    return 0;
}

static int measure(const args *a, const nj_model *m, nj_tokens *tokens, nj_error *err)
{
    nj_engine *e = NULL, *reference = NULL;
    scoring s = { .a = a, .tokenizer = nj_model_tokenizer(m), .tokens = tokens->len };
    nj_engine_stats stats;
    s.vocab = nj_model_info_of(m)->vocab;
    nj_engine_options opt = nj_cli_engine_options(&a->model);
    opt.rows_max = ROWS_MAX;
    if (!opt.context && a->chunk < nj_model_info_of(m)->context) opt.context = a->chunk;
    int rc = nj_engine_new(&e, m, &opt, err);
    opt.acts_f32 = true;
    if (rc == 0 && a->kl) rc = nj_engine_new(&reference, m, &opt, err);
    uint64_t start = nj_now_ns();
    if (rc == 0) {
        nj_engine_stats_read(e, &stats);
        s.wide = a->prompt && stats.has_wide;
    }
    if (rc == 0 && a->json) printf("{\n  \"tokens\": [");
    if (rc == 0) rc = score_chunks(&s, e, reference, tokens, err);
    if (rc == 0 && a->json)
        print_json(&s, (double)(nj_now_ns() - start) / 1e9);
    else if (rc == 0)
        print_result(&s);
    nj_engine_free(reference);
    nj_engine_free(e);
    return rc;
}

int nj_verb_perplexity(int argc, char **argv)
{
    args a = { .model = NJ_CLI_MODEL_DEFAULTS, .chunk = 0 };
    char **operand;
    nj_error err = { 0 };
    nj_buf text = { 0 };
    nj_model *m = NULL;
    nj_tokens tokens = { 0 };
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, NULL);
    if (status >= 0) return status;
    if (a.text && a.file) return nj_cli_usage(&verb, "give -p or -f, not both.");
    if (a.chunk && a.model.context && a.chunk > a.model.context)
        return nj_cli_usage(&verb, "--chunk %" PRIu32 " is more than --ctx %" PRIu32 ".", a.chunk, a.model.context);

    int rc = nj_cli_prompt(a.text, a.file, &text, &err);
    if (rc == 0 && text.len == 0) rc = nj_fail(&err, -ENODATA, "There is no text.");
    if (rc == 0) rc = nj_cli_model_open(&m, operand[0], &a.model, a.quiet, &err);
    if (rc == 0)
        rc = nj_tokenize(nj_model_tokenizer(m), text.data ? text.data : "", text.len,
                         a.second_half ? NJ_TOKENIZE_BOS : 0, &tokens, &err);
    nj_buf_free(&text);
    if (rc == 0) rc = choose_chunk(&a, m, tokens.len, &err);
    if (rc == 0) rc = measure(&a, m, &tokens, &err);
    free(tokens.id);
    nj_model_close(m);
    nj_cli_model_args_free(&a.model);
    if (rc == 0 && nj_cli_interrupted) return nj_cli_interrupt_status();
    return rc ? nj_cli_fail(&err) : 0;
}
