/* What all verbs share: the command line as a table, errors and help in one voice, stdout that notices when it fails,
 * Ctrl-C as a flag, and opening a model. */
#ifndef NJ_CLI_H
#define NJ_CLI_H

#include <stdio.h>

#include "appliance/progress.h"
#include "engine/nj_engine.h"

/* ---- Command line ---- */

typedef struct nj_cli_option nj_cli_option;

/* Reads the text of an option into `dest`; fills `err` ("--temp: 9 is not between 0 and 5") and returns -EINVAL. */
typedef int nj_cli_parse_fn(const nj_cli_option *o, const char *text, void *dest, nj_error *err);

/* One option: `--name VALUE`, also `-letter VALUE`. A table ends with a zeroed row; a row without a name is a heading
 * in the help. An option that isn't given leaves its field alone, so defaults are set before parsing. */
struct nj_cli_option {
    const char      *name;
    char             letter;   /* or 0 */
    const char      *value;    /* placeholder in the help ("N"); NULL for a flag */
    nj_cli_parse_fn *parse;    /* NULL for a flag, whose field is a bool set to true */
    size_t           offset;   /* of the field in the verb's own struct */
    double           min, max; /* for numbers; both 0: whatever the field holds */
    const char      *help;
};

typedef struct nj_cli_verb {
    const char          *name;     /* "run" */
    const char          *usage;    /* "MODEL [-p TEXT | -f FILE]" */
    const char          *summary;  /* one sentence */
    const nj_cli_option *options;
    const char          *examples; /* lines of two spaces and a command, each ending in a newline */
    int                  operands_min, operands_max; /* max -1: any number */
} nj_cli_verb;

/* Parsers for the table. The field's type is in brackets. */
nj_cli_parse_fn nj_cli_text;   /* [const char *] kept by pointer */
nj_cli_parse_fn nj_cli_list;   /* [nj_cli_strings] repeatable */
nj_cli_parse_fn nj_cli_u32;    /* [uint32_t] */
nj_cli_parse_fn nj_cli_u64;    /* [uint64_t] the full range when min and max are 0 */
nj_cli_parse_fn nj_cli_size;   /* [uint64_t] bytes: 512, 64K, 1.5M, 8G, 2T (powers of 1024) */
nj_cli_parse_fn nj_cli_float;  /* [float] finite */
nj_cli_parse_fn nj_cli_isa;    /* [int] nj_isa by name */
nj_cli_parse_fn nj_cli_kv;     /* [int] f16, f32 or q8_0 as nj_type */

typedef struct nj_cli_strings { const char **item; size_t count, cap; } nj_cli_strings; /* free(item) */

/* Parses the whole command line into `fields` (the verb's own struct).
 * operand  NULL-terminated list of what is not an option, in argv (operand_count entries may be NULL)
 * Returns -1 to go on; otherwise the exit status with which to return at once: 0 after --help, 2 after a message. */
int nj_cli_parse(const nj_cli_verb *verb, int argc, char **argv, void *fields, char ***operand, int *operand_count);

/* The word of `list` (NULL-terminated) that `word` was probably meant to be, or NULL. */
const char *nj_cli_suggest(const char *word, const char *const *list);

/* ---- Talk ---- */

/* "nightjar: TEXT" and the remedy on stderr; returns 1, or nj_cli_interrupt_status() for -ECANCELED. */
int nj_cli_fail(const nj_error *err);

/* "nightjar VERB: TEXT" and where help is; returns 2. */
int nj_cli_usage(const nj_cli_verb *verb, const char *fmt, ...) NJ_PRINTF(2, 3);

/* A line on stderr: "nightjar: TEXT". */
void nj_cli_say(const char *fmt, ...) NJ_PRINTF(1, 2);

/* ---- Standard output ---- */

/* Flushes. False once stdout can't be written any more (disk full, reader gone): stop then, main reports it. */
bool nj_cli_out_flush(void);

/* At the end of main: 0, or 1 after saying why what was printed did not arrive (silently when the reader has gone). */
int nj_cli_out_close(void);

/* ---- Files ---- */

/* Before a verb writes a file of about `bytes` to `out`: -EEXIST when it is there (unless `force`), -ENOSPC when its
 * drive has no room, an errno when its folder is no good. */
int nj_cli_check_output(const char *out, double bytes, bool force, nj_error *err);

/* ---- Ctrl-C ---- */

extern volatile bool nj_cli_interrupted;

/* The exit status that shells expect of a program stopped by the signal that came: 130 or 143. */
int nj_cli_interrupt_status(void);

/* SIGTERM has come: also a program that goes on after Ctrl-C ends now. */
bool nj_cli_terminated(void);

/* From now on SIGINT and SIGTERM only set the flag, and system calls are interrupted. With `second_kills`, another
 * one while the flag is set ends the program at once. */
void nj_cli_catch_interrupt(bool second_kills);

/* ---- Models ---- */

typedef struct nj_cli_model_args {
    uint32_t       threads, context, experts_used; /* 0: not given */
    int            isa, kv_type;                   /* -1: not given */
    const char    *rope_scaling;
    nj_cli_strings set;
} nj_cli_model_args;

#define NJ_CLI_MODEL_DEFAULTS { .isa = -1, .kv_type = -1 }

/* Rows for the table of a verb that runs a model; `type` is the verb's struct, `m` its nj_cli_model_args field. */
#define NJ_CLI_MODEL_OPTIONS(type, m)                                                                                  \
    { .help = "Model:" },                                                                                              \
    { "threads", 't', "N", nj_cli_u32, offsetof(type, m.threads), 1, 4096, "worker threads (one per physical core)" }, \
    { "ctx", 'c', "N", nj_cli_u32, offsetof(type, m.context), 1, 1 << 30, "context in tokens (the model's own)" },     \
    { "kv", 0, "TYPE", nj_cli_kv, offsetof(type, m.kv_type), 0, 0, "f16, f32, or q8_0 where heads suit (f16)" },       \
    { "isa", 0, "TIER", nj_cli_isa, offsetof(type, m.isa), 0, 0, "scalar, avx2, avx512 or amx (the best)" },           \
    { "set", 0, "KEY=VALUE", nj_cli_list, offsetof(type, m.set), 0, 0,                                                 \
      "override a metadata key that tensor shapes don't depend on; repeatable" },                                      \
    { "experts-used", 0, "N", nj_cli_u32, offsetof(type, m.experts_used), 1, 1 << 16, "experts used per token" },      \
    { "rope-scaling", 0, "KIND:FACTOR", nj_cli_text, offsetof(type, m.rope_scaling), 0, 0,                             \
      "stretch the context: yarn:4, linear:2 or none" }

/* Opens with a progress bar; Ctrl-C cancels. The error is for nj_cli_fail. */
int nj_cli_model_open(nj_model **out, const char *path, const nj_cli_model_args *a, bool quiet, nj_error *err);

/* The engine options that the arguments stand for; rows_max and kv_bytes_max are left 0. */
nj_engine_options nj_cli_engine_options(const nj_cli_model_args *a);

void nj_cli_model_args_free(nj_cli_model_args *a);

/* The whole prompt: `text` if not NULL, else the file at `path` ("-": stdin), else standard input when it is not a
 * terminal. -ENODATA when there is none of them. Every trailing byte is kept. */
int nj_cli_prompt(const char *text, const char *path, nj_buf *out, nj_error *err);

/* Appends token ids written as "5,17 9" (commas, spaces, newlines). Each must lie in 0..vocab-1. */
int nj_cli_ids(const char *text, int32_t vocab, nj_tokens *out, nj_error *err);

#endif
