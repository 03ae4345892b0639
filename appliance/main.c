/* nightjar: finds the verb and runs it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/cli.h"
#include "appliance/config.h"
#include "appliance/verbs.h"

#define NJ_VERSION "0.1"

// clang-format off
static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} verbs[] = {
    { "batch",      nj_verb_batch,      "answer a file of requests, each exactly once" },
    { "answers",    nj_verb_answers,    "show the answers in a result file" },
    { "run",        nj_verb_run,        "chat with a model, or answer one prompt" },
    { "inspect",    nj_verb_inspect,    "what a model file holds and what it needs" },
    { "quantize",   nj_verb_quantize,   "write a smaller copy of a model" },
    { "bench",      nj_verb_bench,      "how fast a model runs here, beside this machine's limits" },
    { "synth",      nj_verb_synth,      "write a model of random weights in a real shape" },
    { "perplexity", nj_verb_perplexity, "how well a model predicts a text" },
    { "logits",     nj_verb_logits,     "raw scores of every position, for comparisons" },
    { "tokenize",   nj_verb_tokenize,   "text to token ids" },
    { "detokenize", nj_verb_detokenize, "token ids to text" },
    { "template",   nj_verb_template,   "what a chat template makes of messages" },
};
// clang-format on

static void print_help(FILE *out)
{
    fprintf(out, "nightjar answers files of prompts with big language models on the CPU.\n\n"
                 "Usage: nightjar VERB [OPTIONS] ...\n\n");
    for (size_t i = 0; i < NJ_COUNT(verbs); i++) fprintf(out, "  %-12s %s\n", verbs[i].name, verbs[i].summary);
    fprintf(out, "\nnightjar VERB --help explains a verb, with examples. nightjar --version prints the version.\n\n"
                 "Examples:\n"
                 "  nightjar inspect qwen3-30b-a3b-q4_k_m.gguf\n"
                 "  nightjar run qwen3-30b-a3b-q4_k_m.gguf\n"
                 "  nightjar batch -m qwen3-30b-a3b-q4_k_m.gguf -i night.jsonl -o answers.jsonl\n");
}

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < NJ_COUNT(verbs); i++)
        if (strcmp(verbs[i].name, name) == 0) return &verbs[i];
    return NULL;
}

static int unknown_verb(const char *name)
{
    const char *names[NJ_COUNT(verbs) + 1] = { NULL };
    for (size_t i = 0; i < NJ_COUNT(verbs); i++) names[i] = verbs[i].name;
    const char *near = nj_cli_suggest(name, names);
    nj_cli_say("there is no verb '%s'.", name);
    if (near)
        fprintf(stderr, "Did you mean: nightjar %s\n", near);
    else
        fprintf(stderr, "nightjar --help lists the verbs.\n");
    return 2;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        puts("nightjar " NJ_VERSION);
        return 0;
    }
    bool help = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
    if (help && argc < 3) {
        print_help(stdout);
        return 0;
    }
    if (help) word = argv[2];
    const struct verb *v = find_verb(word);
    if (!v) return unknown_verb(word);
    if (help) return v->run(2, (char *[]){ argv[2], "--help", NULL });
    return v->run(argc - 1, argv + 1);
}

/* A descriptor 0-2 that the caller closed must not become a model file: 0 reads nothing, 1 and 2 refuse writing. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDONLY) < 0) _exit(1);
}

int main(int argc, char **argv)
{
    nj_error err = { 0 };
    fill_standard_descriptors();
    signal(SIGPIPE, SIG_IGN); /* a reader who leaves is a write error, noticed where we write */
    if (nj_config_read(&err) != 0) {
        nj_cli_fail(&err);
        return 2;
    }
    int status = dispatch(argc, argv);
    int out = nj_cli_out_close();
    return status ? status : out;
}
