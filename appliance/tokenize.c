/* nightjar tokenize and detokenize. Both need a vocabulary only, so they work on files without tensors. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/cli.h"
#include "appliance/text.h"
#include "appliance/verbs.h"

typedef struct args {
    const char *text, *file;
    bool ids, bos, no_special, json;
} args;

static const nj_cli_option tokenize_options[] = {
    { "prompt", 'p', "TEXT", nj_cli_text, offsetof(args, text), 0, 0, "the text" },
    { "file", 'f', "FILE", nj_cli_text, offsetof(args, file), 0, 0, "read the text from a file (-: standard input)" },
    { "ids", 0, NULL, NULL, offsetof(args, ids), 0, 0, "print the ids only, on one line" },
    { "bos", 0, NULL, NULL, offsetof(args, bos), 0, 0, "begin and end the text as the model was trained" },
    { "no-special", 0, NULL, NULL, offsetof(args, no_special), 0, 0, "take \"<|im_end|>\" and the like as plain text" },
    { "json", 0, NULL, NULL, offsetof(args, json), 0, 0, "print {\"ids\": [...], \"texts\": [...]}" },
    { 0 },
};

static const nj_cli_verb tokenize_verb = {
    .name = "tokenize",
    .usage = "MODEL [-p TEXT | -f FILE]",
    .summary = "Prints the tokens of a text, one per line with its id. Needs the vocabulary only.",
    .options = tokenize_options,
    .examples = "  nightjar tokenize model.gguf -p 'Good night, moon.'\n"
                "  nightjar tokenize model.gguf -f prompt.txt --ids\n"
                "  echo 'How many tokens?' | nightjar tokenize model.gguf --ids | wc -w\n",
    .operands_min = 1,
    .operands_max = 1,
};

static const nj_cli_option detokenize_options[] = {
    { "no-special", 0, NULL, NULL, offsetof(args, no_special), 0, 0, "leave out control tokens" },
    { "json", 0, NULL, NULL, offsetof(args, json), 0, 0, "print {\"text\": \"...\"}" },
    { 0 },
};

static const nj_cli_verb detokenize_verb = {
    .name = "detokenize",
    .usage = "MODEL [ID...]",
    .summary = "Prints the text of token ids, given as words or with commas, or on standard input.\n"
               "It is the text that was tokenized, byte for byte, unless the vocabulary normalises text (Qwen: NFC).",
    .options = detokenize_options,
    .examples = "  nightjar detokenize model.gguf 9707 11 1879 0\n"
                "  nightjar tokenize model.gguf -f a.txt --ids | nightjar detokenize model.gguf | cmp - a.txt\n",
    .operands_min = 1,
    .operands_max = -1,
};

static int open_tokenizer(nj_tokenizer **out, const char *path, nj_error *err)
{
    nj_gguf *g;
    int rc = nj_gguf_open(&g, path, nj_weight_types(), err);
    if (rc != 0) return rc;
    rc = nj_tokenizer_new(out, g, err);
    nj_gguf_close(g);
    return rc;
}

static void print_tokens(const nj_tokenizer *t, const nj_tokens *tokens)
{
    nj_buf raw = { 0 }, safe = { 0 };
    for (size_t i = 0; i < tokens->len; i++) {
        nj_buf_clear(&raw);
        nj_buf_clear(&safe);
        nj_token_text(t, tokens->id[i], true, &raw);
        nj_text_quote(&safe, raw.data ? raw.data : "", raw.len, 0);
        printf("%8" PRId32 "  %s\n", tokens->id[i], safe.data ? safe.data : "");
    }
    nj_buf_free(&raw);
    nj_buf_free(&safe);
}

static int print_json(const nj_tokenizer *t, const nj_tokens *tokens, nj_error *err)
{
    json_t *o = json_object(), *ids = json_array(), *texts = json_array();
    nj_buf raw = { 0 };
    int bad = 0;
    for (size_t i = 0; i < tokens->len; i++) {
        nj_buf_clear(&raw);
        nj_token_text(t, tokens->id[i], true, &raw);
        bad |= json_array_append_new(ids, json_integer(tokens->id[i]));
        bad |= json_array_append_new(texts, nj_text_json(raw.data ? raw.data : "", raw.len));
    }
    nj_buf_free(&raw);
    bad |= json_object_set_new(o, "ids", ids) | json_object_set_new(o, "texts", texts);
    if (bad) {
        json_decref(o);
        o = NULL;
    }
    return nj_text_json_print(o, err);
}

int nj_verb_tokenize(int argc, char **argv)
{
    args a = { 0 };
    char **operand;
    nj_error err = { 0 };
    nj_buf text = { 0 };
    nj_tokenizer *t = NULL;
    nj_tokens tokens = { 0 };
    int status = nj_cli_parse(&tokenize_verb, argc, argv, &a, &operand, NULL);
    if (status >= 0) return status;
    if (a.text && a.file) return nj_cli_usage(&tokenize_verb, "give -p or -f, not both.");

    unsigned flags = (a.no_special ? 0u : NJ_TOKENIZE_SPECIAL) | (a.bos ? NJ_TOKENIZE_BOS : 0u);
    int rc = open_tokenizer(&t, operand[0], &err);
    if (rc == 0) rc = nj_cli_prompt(a.text, a.file, &text, &err);
    if (rc == 0) rc = nj_tokenize(t, text.data ? text.data : "", text.len, flags, &tokens, &err);
    if (rc == 0 && a.json) {
        rc = print_json(t, &tokens, &err);
    } else if (rc == 0 && a.ids) {
        for (size_t i = 0; i < tokens.len; i++) printf("%s%" PRId32, i ? " " : "", tokens.id[i]);
        putchar('\n');
    } else if (rc == 0) {
        print_tokens(t, &tokens);
    }
    free(tokens.id);
    nj_buf_free(&text);
    nj_tokenizer_free(t);
    return rc ? nj_cli_fail(&err) : 0;
}

/* Ids from the command line, or from standard input when there are none. */
static int read_ids(char **words, int count, int32_t vocab, nj_tokens *tokens, nj_error *err)
{
    int rc = 0;
    nj_buf text = { 0 };
    for (int i = 0; i < count && rc == 0; i++) rc = nj_cli_ids(words[i], vocab, tokens, err);
    if (count == 0) {
        rc = nj_cli_prompt(NULL, NULL, &text, err);
        if (rc == -ENODATA) {
            nj_fail(err, rc, "There are no token ids.");
            nj_remedy(err, "Give them after the model, or pipe them in.");
        }
        if (rc == 0 && text.data) rc = nj_cli_ids(text.data, vocab, tokens, err);
    }
    nj_buf_free(&text);
    return rc;
}

/* "-1" would be read as an option that is not there: a space before the first such word makes it an operand, which is
 * then refused with the range of ids. */
static void hide_negative(int argc, char **argv, char word[32])
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (argv[i][0] != '-' || argv[i][1] < '0' || argv[i][1] > '9') continue;
        snprintf(word, 32, " %.30s", argv[i]);
        argv[i] = word;
        return;
    }
}

int nj_verb_detokenize(int argc, char **argv)
{
    args a = { 0 };
    char **operand;
    int count;
    nj_error err = { 0 };
    nj_tokenizer *t = NULL;
    nj_tokens tokens = { 0 };
    nj_buf text = { 0 };
    char negative[32];
    hide_negative(argc, argv, negative);
    int status = nj_cli_parse(&detokenize_verb, argc, argv, &a, &operand, &count);
    if (status >= 0) return status;

    int rc = open_tokenizer(&t, operand[0], &err);
    if (rc == 0) rc = read_ids(operand + 1, count - 1, nj_tokenizer_size(t), &tokens, &err);
    if (rc == 0) nj_detokenize(t, tokens.id, tokens.len, !a.no_special, &text);
    if (rc == 0 && text.failed) rc = nj_fail(&err, text.failed, "There is no memory for the text.");
    if (rc == 0 && a.json) {
        rc = nj_text_json_print(json_pack("{s:o}", "text", nj_text_json(text.data ? text.data : "", text.len)), &err);
    } else if (rc == 0) {
        if (text.len) fwrite(text.data, 1, text.len, stdout); /* exactly; a pipe may carry it on */
        if (isatty(STDOUT_FILENO)) putchar('\n');
    }
    nj_buf_free(&text);
    free(tokens.id);
    nj_tokenizer_free(t);
    return rc ? nj_cli_fail(&err) : 0;
}
