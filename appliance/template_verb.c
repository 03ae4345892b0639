/* nightjar template: what a chat template makes of messages, byte for byte. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/cli.h"
#include "appliance/config.h"
#include "appliance/text.h"
#include "appliance/verbs.h"

#define TEMPLATE_BYTES_MAX (4u << 20)
#define ARGS_BYTES_MAX     (64u << 20)

typedef struct args {
    const char *file, *args;
    bool json;
} args;

static const nj_cli_option options[] = {
    { "args", 'a', "ARGS", nj_cli_text, offsetof(args, args), 0, 0,
      "a JSON file (-: standard input) or the JSON object itself: messages, add_generation_prompt, tools, ..." },
    { "file", 'f', "T.jinja", nj_cli_text, offsetof(args, file), 0, 0,
      "a template file instead of a model's template" },
    { "json", 0, NULL, NULL, offsetof(args, json), 0, 0, "print {\"text\": \"...\"}" },
    { 0 },
};

static const nj_cli_verb verb = {
    .name = "template",
    .usage = "(MODEL | --file T.jinja) --args ARGS",
    .summary = "Prints what a chat template makes of messages, with nothing added.\n"
               "NIGHTJAR_NOW=2026-11-20T07:00:00 sets the clock that templates see.",
    .options = options,
    .examples =
        "  nightjar template model.gguf --args '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}],\n"
        "      \"add_generation_prompt\": true}'\n"
        "  nightjar template --file chat_template.jinja --args args.json\n",
    .operands_min = 0,
    .operands_max = 1,
};

/* Gives a token's text to the template under its usual name, unless the caller did. */
static void add_token(json_t *object, const char *name, const nj_tokenizer *t, int32_t id)
{
    nj_buf text = { 0 };
    if (id < 0 || json_object_get(object, name)) return;
    nj_token_text(t, id, true, &text);
    json_object_set_new(object, name, nj_text_json(text.data ? text.data : "", text.len));
    nj_buf_free(&text);
}

/* Takes the object out of {"args": {...}} and adds the model's own tokens; text that needs neither stays as written. */
static int prepare_args(nj_buf *text, const nj_tokenizer *t, nj_error *err)
{
    json_error_t where;
    json_t *whole = json_loadb(text->data ? text->data : "", text->len, JSON_ALLOW_NUL | JSON_DECODE_ANY, &where);
    if (!whole)
        return nj_fail(err, -EINVAL, "the arguments are not JSON: line %d, column %d: %s.", where.line, where.column,
                       where.text);
    json_t *inner = json_object_get(whole, "args"), *object = json_is_object(inner) ? inner : whole;
    int rc = 0;
    if (!json_is_object(object)) {
        rc = nj_fail(err, -EINVAL, "ARGS must be a JSON object.");
        nj_remedy(err, "Write them like {\"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}.");
    } else if (object != whole || t) {
        if (t) {
            add_token(object, "bos_token", t, nj_tokenizer_bos(t));
            add_token(object, "eos_token", t, nj_tokenizer_eos(t));
        }
        char *dumped = json_dumps(object, JSON_COMPACT);
        nj_buf_clear(text);
        nj_buf_str(text, dumped ? dumped : "");
        rc = !dumped || text->failed ? nj_fail(err, -ENOMEM, "There is no memory for the arguments.") : 0;
        free(dumped);
    }
    json_decref(whole);
    return rc;
}

static int read_args(const char *given, nj_buf *out, nj_error *err)
{
    char first = given[strspn(given, " \t\r\n")];
    if (first != '{' && first != '[') return nj_file_read(given, ARGS_BYTES_MAX, out, err);
    nj_buf_str(out, given);
    return out->failed ? nj_fail(err, out->failed, "There is no memory for the arguments.") : 0;
}

/* The template's source, and the vocabulary of the model that it comes from. */
static int read_model(const char *path, nj_buf *source, nj_tokenizer **t, nj_error *err)
{
    nj_gguf *g;
    nj_str text;
    int rc = nj_gguf_open(&g, path, nj_weight_types(), err);
    if (rc != 0) return rc;
    rc = nj_gguf_get_str(g, "tokenizer.chat_template", &text, err);
    if (rc == -ENOENT) {
        nj_fail(err, rc, "%s: the model has no chat template.", path);
        nj_remedy(err, "Give one with --file T.jinja.");
    } else if (rc == 0) {
        nj_buf_add(source, text.data, text.len);
        if (source->failed) rc = nj_fail(err, source->failed, "There is no memory for the template.");
    }
    if (rc == 0 && nj_gguf_meta(g, "tokenizer.ggml.tokens")) rc = nj_tokenizer_new(t, g, err);
    nj_gguf_close(g);
    return rc;
}

int nj_verb_template(int argc, char **argv)
{
    args a = { 0 };
    char **operand;
    int count;
    nj_error err = { 0 };
    nj_buf source = { 0 }, json = { 0 }, out = { 0 };
    nj_tokenizer *tokenizer = NULL;
    nj_template *t = NULL;
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, &count);
    if (status >= 0) return status;
    if (!a.file == !count) return nj_cli_usage(&verb, "give a model or --file T.jinja, one of them.");
    if (!a.args) return nj_cli_usage(&verb, "--args is missing.");

    int rc = a.file ? nj_file_read(a.file, TEMPLATE_BYTES_MAX, &source, &err)
                    : read_model(operand[0], &source, &tokenizer, &err);
    if (rc == 0 && (rc = nj_template_new(&t, source.data ? source.data : "", source.len, &err)) != 0)
        nj_error_prefix(&err, "%s", a.file ? a.file : operand[0]);
    if (rc == 0) rc = read_args(a.args, &json, &err);
    if (rc == 0) rc = prepare_args(&json, tokenizer, &err);
    if (rc == 0) rc = nj_template_render(t, json.data, json.len, nj_config_now(), &out, &err);
    if (rc == 0 && a.json)
        rc = nj_text_json_print(json_pack("{s:o}", "text", nj_text_json(out.data ? out.data : "", out.len)), &err);
    else if (rc == 0 && out.len)
        fwrite(out.data, 1, out.len, stdout);
    nj_template_free(t);
    nj_tokenizer_free(tokenizer);
    nj_buf_free(&source);
    nj_buf_free(&json);
    nj_buf_free(&out);
    return rc ? nj_cli_fail(&err) : 0;
}
