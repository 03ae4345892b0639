/* nightjar run: a conversation at the terminal, or one answer to a prompt. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "appliance/chat.h"
#include "appliance/cli.h"
#include "appliance/lineedit.h"
#include "appliance/text.h"
#include "appliance/verbs.h"

#define NOT_GIVEN UINT32_MAX

typedef struct args {
    const char *prompt, *file, *system;
    float temp, top_p, min_p, typical_p, repeat, presence, frequency; /* NAN: not given */
    uint32_t top_k, window, max_tokens;
    uint64_t seed;
    nj_cli_strings stop;
    bool ignore_eos, loop_check, raw, no_think, stats, json, quiet;
    nj_cli_model_args model;
} args;

// clang-format off
static const nj_cli_option options[] = {
    { "prompt", 'p', "TEXT", nj_cli_text, offsetof(args, prompt), 0, 0, "answer this and end" },
    { "file", 'f', "FILE", nj_cli_text, offsetof(args, file), 0, 0,
      "answer the text of a file (-: standard input) and end" },
    { "system", 's', "TEXT", nj_cli_text, offsetof(args, system), 0, 0, "what the model is told before anything else" },
    { "max-tokens", 'n', "N", nj_cli_u32, offsetof(args, max_tokens), 1, INT32_MAX, "longest answer (the context)" },
    { "raw", 0, NULL, NULL, offsetof(args, raw), 0, 0, "complete the text as it is, without the chat template" },
    { "no-think", 0, NULL, NULL, offsetof(args, no_think), 0, 0, "ask the template to leave thinking out" },
    { "stats", 0, NULL, NULL, offsetof(args, stats), 0, 0, "print tokens per second and GB/s on standard error" },
    { "json", 0, NULL, NULL, offsetof(args, json), 0, 0, "print one JSON document per answer instead of a stream" },
    { "quiet", 'q', NULL, NULL, offsetof(args, quiet), 0, 0, "no progress bar and no remarks" },
    { .help = "Sampling (defaults: the model's own, else as shown):" },
    { "temp", 0, "X", nj_cli_float, offsetof(args, temp), 0, 100, "temperature; 0 always takes the best token (0.8)" },
    { "top-k", 0, "N", nj_cli_u32, offsetof(args, top_k), 0, INT32_MAX, "draw from the N best tokens; 0: all (40)" },
    { "top-p", 0, "X", nj_cli_float, offsetof(args, top_p), 0, 1,
      "draw from the best tokens of this probability together (0.95)" },
    { "min-p", 0, "X", nj_cli_float, offsetof(args, min_p), 0, 1,
      "leave out tokens below this share of the best (0.05)" },
    { "typical-p", 0, "X", nj_cli_float, offsetof(args, typical_p), 0, 1,
      "draw from tokens of typical surprise; 1: off (1)" },
    { "repeat-penalty", 0, "X", nj_cli_float, offsetof(args, repeat), 0.01, 100,
      "divide logits of seen tokens; 1: off (1)" },
    { "presence-penalty", 0, "X", nj_cli_float, offsetof(args, presence), -100, 100,
      "subtract once for a seen token (0)" },
    { "frequency-penalty", 0, "X", nj_cli_float, offsetof(args, frequency), -100, 100,
      "subtract for each time it was seen (0)" },
    { "penalty-window", 0, "N", nj_cli_u32, offsetof(args, window), 0, INT32_MAX,
      "last tokens that penalties see; 0: all (64)" },
    { "seed", 0, "N", nj_cli_u64, offsetof(args, seed), 0, 0, "same seed, same text (random)" },
    { "stop", 0, "TEXT", nj_cli_list, offsetof(args, stop), 0, 0, "end before this text; repeatable" },
    { "ignore-eos", 0, NULL, NULL, offsetof(args, ignore_eos), 0, 0, "go on after the model's end token" },
    { "loop-check", 0, NULL, NULL, offsetof(args, loop_check), 0, 0,
      "end an answer that repeats itself over and over" },
    NJ_CLI_MODEL_OPTIONS(args, model),
    { 0 },
};
// clang-format on

static const nj_cli_verb verb = {
    .name = "run",
    .usage = "MODEL [-p TEXT | -f FILE]",
    .summary = "Chats with a model at the terminal, or gives one answer to a prompt or to piped input.\n"
               "In a chat, Ctrl-C stops the answer, Ctrl-D leaves, and /help lists the commands.",
    .options = options,
    .examples = "  nightjar run model.gguf\n"
                "  nightjar run model.gguf -p 'Why is the night sky dark?' --stats\n"
                "  git diff | nightjar run model.gguf --system 'Review this change.' --temp 0\n"
                "  nightjar run model.gguf --raw -p 'Once upon a time' -n 100 --seed 7\n",
    .operands_min = 1,
    .operands_max = 1,
};

static uint64_t random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed) seed = nj_now_ns();
    return seed >> 11; /* below 2^53: exact in anyone's JSON */
}

static void set_float(float given, float *field)
{
    if (!isnan(given)) *field = given;
}

static nj_request make_request(const args *a, const nj_model *m)
{
    nj_request r = { .max_tokens = a->max_tokens, .stop = a->stop.item, .stop_count = a->stop.count };
    nj_sampling *s = &r.sampling;
    nj_sampling_defaults(m, s);
    set_float(a->temp, &s->temperature);
    set_float(a->top_p, &s->top_p);
    set_float(a->min_p, &s->min_p);
    set_float(a->typical_p, &s->typical_p);
    set_float(a->repeat, &s->repeat_penalty);
    set_float(a->presence, &s->presence_penalty);
    set_float(a->frequency, &s->frequency_penalty);
    if (a->top_k != NOT_GIVEN) s->top_k = a->top_k;
    if (a->window != NOT_GIVEN) s->penalty_window = a->window;
    s->seed = a->seed;
    r.ignore_eos = a->ignore_eos;
    r.detect_loops = a->loop_check;
    return r;
}

/* ---- Figures ---- */

static double per_second(uint64_t n, uint64_t ns)
{
    return ns ? (double)n * 1e9 / (double)ns : 0;
}

/* What the engine did since `before`. */
static nj_engine_stats stats_since(const nj_engine *e, const nj_engine_stats *before)
{
    nj_engine_stats s;
    nj_engine_stats_read(e, &s);
    s.prompt_rows -= before->prompt_rows;
    s.prompt_ns -= before->prompt_ns;
    s.decode_rows -= before->decode_rows;
    s.decode_ns -= before->decode_ns;
    s.decode_bytes -= before->decode_bytes;
    s.prefix_rows_saved -= before->prefix_rows_saved;
    return s;
}

static void print_stats(const nj_engine_stats *s)
{
    char kv[24], cached[64] = "";
    nj_text_bytes((double)s->kv_bytes, kv);
    if (s->prefix_rows_saved)
        snprintf(cached, sizeof cached, ", %" PRIu64 " taken from the cache", s->prefix_rows_saved);
    nj_progress_say(NULL,
                    "%" PRIu64 " prompt tokens at %.1f tok/s%s; %" PRIu64
                    " decoded at %.2f tok/s, %.2f GB/s; %s, %" PRIu32 " thread%s, KV %s",
                    s->prompt_rows, per_second(s->prompt_rows, s->prompt_ns), cached, s->decode_rows,
                    per_second(s->decode_rows, s->decode_ns), per_second(s->decode_bytes, s->decode_ns) / 1e9,
                    nj_isa_name(s->isa), s->threads, s->threads == 1 ? "" : "s", kv);
}

static void print_load(const nj_model_info *m)
{
    char size[24], rate[24];
    nj_text_bytes((double)m->bytes, size);
    nj_text_bytes(per_second(m->bytes, m->load_ns), rate);
    nj_progress_say(NULL, "loaded %s of weights in %.1f s, %s/s", size, (double)m->load_ns / 1e9, rate);
}

static int print_json(const nj_chat_answer *a, const nj_chat *c, const nj_engine_stats *s, nj_error *err)
{
    json_t *text = nj_text_json(a->text.data ? a->text.data : "", a->text.len);
    json_t *o =
        json_pack("{s:o,s:s,s:{s:I,s:I,s:I},s:I}", "text", text, "finish_reason", nj_finish_name(a->finish), "usage",
                  "prompt_tokens", (json_int_t)a->prompt_tokens, "completion_tokens", (json_int_t)a->tokens,
                  "cached_tokens", (json_int_t)s->prefix_rows_saved, "seed", (json_int_t)c->request.sampling.seed);
    json_t *stats = json_pack("{s:f,s:f,s:f,s:s,s:I}", "prompt_tok_s", per_second(s->prompt_rows, s->prompt_ns),
                              "decode_tok_s", per_second(s->decode_rows, s->decode_ns), "decode_gb_s",
                              per_second(s->decode_bytes, s->decode_ns) / 1e9, "isa", nj_isa_name(s->isa), "threads",
                              (json_int_t)s->threads);
    if (json_object_set_new(o, "stats", stats) != 0) {
        json_decref(o);
        o = NULL;
    }
    return nj_text_json_print(o, err);
}

/* ---- Answers ---- */

/* Why an answer ended where it did, in the words of nightjar answers; NULL where that is plain. */
static const char *ending(nj_finish finish)
{
    switch (finish) {
    case NJ_FINISH_LENGTH: return "[ended at its length limit]";
    case NJ_FINISH_LOOP: return "[ended because it repeated itself]";
    case NJ_FINISH_CANCELLED: return "[cancelled]";
    default: return NULL;
    }
}

/* Says `text`, prints the answer as the options ask, and why it ended where that is not plain. */
static int say(const args *a, nj_chat *c, const char *text, size_t len, nj_finish *finish, nj_error *err)
{
    nj_chat_answer answer = { 0 };
    nj_engine_stats before, stats;
    nj_engine_stats_read(c->engine, &before);
    int rc = nj_chat_say(c, text, len, a->json ? NULL : stdout, &answer, err);
    if (rc == 0) {
        stats = stats_since(c->engine, &before);
        if (a->json)
            rc = print_json(&answer, c, &stats, err);
        else if (!answer.text.len || answer.text.data[answer.text.len - 1] != '\n')
            putchar('\n');
        nj_cli_out_flush();
        if (ending(answer.finish) && !a->quiet && !a->json) nj_progress_say(NULL, "%s", ending(answer.finish));
        if (a->stats) print_stats(&stats);
        *finish = answer.finish;
    } else if (answer.text.len == 0 && !a->json) {
        nj_cli_out_flush();
    }
    nj_chat_answer_free(&answer);
    return rc;
}

static int answer_once(const args *a, nj_chat *c, const nj_buf *prompt, nj_error *err)
{
    nj_finish finish = NJ_FINISH_STOP;
    int rc = say(a, c, prompt->data ? prompt->data : "", prompt->len, &finish, err);
    if (rc != 0) return rc == -EPIPE ? 1 : nj_cli_fail(err); /* main says why stdout failed */
    return finish == NJ_FINISH_CANCELLED ? nj_cli_interrupt_status() : 0;
}

static const char chat_help[] = "  /reset   forget what was said (the system message stays)\n"
                                "  /stats   figures of the engine so far\n"
                                "  /quit    leave (/exit and Ctrl-D do too)\n"
                                "A line that ends in \\ goes on in the next. Ctrl-C stops an answer.";

/* A command of the chat. True when the conversation is over. */
static bool command(nj_chat *c, const char *line, nj_error *err)
{
    static const nj_engine_stats none;
    static const char *const names[] = { "/help", "/reset", "/stats", "/quit", "/exit", NULL };
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) return true;
    if (strcmp(line, "/help") == 0) {
        nj_progress_say(NULL, "%s", chat_help);
    } else if (strcmp(line, "/reset") == 0) {
        if (nj_chat_reset(c, err) != 0) return nj_cli_fail(err);
        nj_progress_say(NULL, "[what was said is forgotten]");
    } else if (strcmp(line, "/stats") == 0) {
        nj_engine_stats s = stats_since(c->engine, &none);
        print_stats(&s);
    } else {
        const char *near = nj_cli_suggest(line, names);
        nj_progress_say(NULL, "There is no command %s.%s%s%s", line, near ? " Did you mean " : " /help lists them.",
                        near ? near : "", near ? "?" : "");
    }
    return false;
}

static bool is_blank(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && strchr(" \t\r\n", text[i]) && text[i]) i++;
    return i == len;
}

/* "/name" alone is a command; "/home/me/x is ..." is not. */
static bool is_command(const char *line)
{
    return line[0] == '/' && line[1 + strspn(line + 1, "abcdefghijklmnopqrstuvwxyz")] == '\0';
}

static int converse(const args *a, nj_chat *c, nj_error *err)
{
    bool hinted = a->quiet, dropped = false;
    nj_buf line = { 0 };
    nj_lineedit *editor = nj_lineedit_new();
    nj_finish finish;
    int rc = 1;
    if (!editor)
        rc = nj_fail(err, -ENOMEM, "The terminal can't be set up.");
    else if (!a->quiet)
        nj_progress_say(NULL, "Ctrl-C stops an answer, Ctrl-D leaves, /help lists the commands.");
    while (rc > 0) {
        rc = nj_lineedit_read(editor, &line, &dropped);
        if (rc == -EINTR) {
            if (!dropped && !hinted) hinted = true, nj_progress_say(NULL, "Ctrl-D or /quit leaves.");
            rc = 1;
            continue;
        }
        if (rc <= 0) break;
        if (is_blank(line.data, line.len)) continue;
        if (is_command(line.data)) {
            if (command(c, line.data, err)) break;
            continue;
        }
        if (say(a, c, line.data, line.len, &finish, err) != 0) {
            if (!nj_cli_out_flush()) break;
            nj_cli_fail(err); /* a prompt too long, say: the conversation is as before, and goes on */
        }
        nj_cli_interrupted = false;
        if (nj_cli_terminated()) rc = -ECANCELED;
    }
    if (rc == 0 && !a->quiet) fputc('\n', stderr);
    if (rc < 0 && rc != -ECANCELED && !err->text[0]) nj_fail(err, rc, "The terminal can't be read.");
    nj_lineedit_free(editor);
    nj_buf_free(&line);
    if (rc == -ECANCELED) return nj_cli_interrupt_status();
    return rc < 0 ? nj_cli_fail(err) : 0;
}

/* ---- The verb ---- */

static int run(args *a, const char *path, bool chat, const nj_buf *prompt, nj_error *err)
{
    nj_model *m = NULL;
    nj_engine *e = NULL;
    nj_chat c = { .system = a->system, .plain = a->raw, .no_think = a->no_think, .quiet = a->quiet };
    int status = 1, rc = nj_cli_model_open(&m, path, &a->model, a->quiet, err);
    nj_engine_options opt = nj_cli_engine_options(&a->model);
    if (rc == 0) rc = nj_engine_new(&e, m, &opt, err);
    if (rc == 0) {
        c.model = m;
        c.engine = e;
        c.request = make_request(a, m);
        rc = nj_chat_init(&c, err);
    }
    if (rc == 0) {
        const char *why = nj_model_template_error(m);
        if (c.plain && !a->raw && !a->quiet)
            nj_cli_say("the model has no chat template that can be used%s%s; its text is completed as it is.",
                       why ? ": " : "", why ? why : "");
        if (a->stats) print_load(nj_model_info_of(m));
        nj_cli_catch_interrupt(!chat);
        status = chat ? converse(a, &c, err) : answer_once(a, &c, prompt, err);
    } else {
        nj_cli_fail(err);
    }
    nj_chat_free(&c);
    nj_engine_free(e);
    nj_model_close(m);
    return status;
}

int nj_verb_run(int argc, char **argv)
{
    args a = { .temp = NAN,
               .top_p = NAN,
               .min_p = NAN,
               .typical_p = NAN,
               .repeat = NAN,
               .presence = NAN,
               .frequency = NAN,
               .top_k = NOT_GIVEN,
               .window = NOT_GIVEN,
               .seed = random_seed(),
               .model = NJ_CLI_MODEL_DEFAULTS };
    char **operand;
    nj_error err = { 0 };
    nj_buf prompt = { 0 };
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, NULL);
    if (status >= 0) return status;
    if (a.prompt && a.file) return nj_cli_usage(&verb, "give -p or -f, not both.");

    bool chat = !a.prompt && !a.file && isatty(STDIN_FILENO);
    int rc = chat ? 0 : nj_cli_prompt(a.prompt, a.file, &prompt, &err);
    if (!chat && rc == 0 && (a.raw ? prompt.len == 0 : is_blank(prompt.data, prompt.len))) {
        rc = nj_fail(&err, -EINVAL, "The prompt is empty.");
        nj_remedy(&err,
                  "Give it with -p TEXT or -f FILE, or pipe it in; at a terminal, without them, there is a chat.");
    }
    status = rc ? nj_cli_fail(&err) : run(&a, operand[0], chat, &prompt, &err);
    nj_buf_free(&prompt);
    free(a.stop.item);
    nj_cli_model_args_free(&a.model);
    return status;
}
