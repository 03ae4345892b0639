/* nightjar answers: shows a result file to a person. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utf8proc.h>

#include "appliance/batch.h"
#include "appliance/cli.h"
#include "appliance/config.h"
#include "appliance/verbs.h"

enum { WIDTH_MAX = 100 };

typedef struct answers_args {
    const char *in;
    bool json;
} answers_args;

static const nj_cli_option options[] = {
    { "input", 'i', "IN.jsonl", nj_cli_text, offsetof(answers_args, in), 0, 0,
      "the requests: shows each prompt, in their order" },
    { "json", 0, NULL, NULL, offsetof(answers_args, json), 0, 0,
      "one object per line: custom_id, prompt, answers, error" },
    { 0 },
};

static const nj_cli_verb verb = {
    .name = "answers",
    .usage = "OUT.jsonl [IN.jsonl]",
    .summary = "Shows the answers in a result file of nightjar batch. A batch that is still running does not mind.",
    .options = options,
    .examples = "  nightjar answers answers.jsonl\n"
                "  nightjar answers answers.jsonl night.jsonl | less\n"
                "  nightjar answers answers.jsonl --json | jq -r '.answers[0]'\n",
    .operands_min = 1,
    .operands_max = 2,
};

/* ---- Text on a terminal ---- */

/* Length of the character at `text`, its columns, and the character that is printed for it: controls, which could
 * steer the terminal, become U+FFFD. */
static size_t next_char(const char *text, size_t len, int *columns, const char **shown, size_t *shown_len)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &c);
    bool bad = n <= 0 || (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0);
    *shown = bad ? "\xEF\xBF\xBD" : c == '\t' ? "    " : text;
    *shown_len = bad ? 3 : c == '\t' ? 4 : (size_t)n;
    *columns = bad ? 1 : c == '\t' ? 4 : utf8proc_charwidth(c);
    return n > 0 ? (size_t)n : 1;
}

/* Prints text indented and broken at spaces to `width` columns. */
static void print_wrapped(const char *text, size_t len, int indent, int width)
{
    for (size_t at = 0; at < len || at == 0;) {
        size_t end = at, space = 0, i = at, n, shown_len;
        int used = indent, columns;
        const char *shown;
        for (; i < len && text[i] != '\n'; i += n) { /* how much fits on this line? */
            n = next_char(text + i, len - i, &columns, &shown, &shown_len);
            if (used + columns > width && i > at) break;
            if (text[i] == ' ') space = i;
            used += columns;
        }
        bool broken = i < len && text[i] != '\n';
        end = broken && space > at ? space : i;
        printf("%*s", indent, "");
        for (i = at; i < end; i += n) {
            n = next_char(text + i, len - i, &columns, &shown, &shown_len);
            fwrite(shown, 1, shown_len, stdout);
        }
        putchar('\n');
        at = end + (end < len && (text[end] == '\n' || text[end] == ' '));
        if (at >= len) break;
    }
}

/* ---- One result ---- */

typedef struct view {
    const answers_args *a;
    int width;
    bool color;
} view;

static const json_t *choices_of(const json_t *result)
{
    const json_t *body = json_object_get(json_object_get(result, "response"), "body");
    return json_object_get(body, "choices");
}

static const json_t *choice_text(const json_t *choice)
{
    const json_t *message = json_object_get(choice, "message");
    return message ? json_object_get(message, "content") : json_object_get(choice, "text");
}

static void print_json(const char *custom_id, const char *prompt, const json_t *result)
{
    json_t *texts = json_array(), *finishes = json_array();
    size_t i;
    json_t *choice;
    json_array_foreach(choices_of(result), i, choice)
    {
        json_array_append(texts, (json_t *)choice_text(choice));
        json_array_append(finishes, json_object_get(choice, "finish_reason"));
    }
    json_t *error = json_object_get(result, "error");
    json_t *o = json_pack("{s:s?,s:s?,s:o,s:o,s:O?}", "custom_id", custom_id, "prompt", prompt, "answers", texts,
                          "finish_reasons", finishes, "error", error);
    json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
}

static void print_heading(const view *v, const char *text)
{
    fputs(v->color ? "\033[1m" : "", stdout);
    print_wrapped(text, strlen(text), 0, v->width);
    fputs(v->color ? "\033[0m" : "", stdout);
}

static void print_choice(const view *v, const json_t *choice, size_t index, size_t count)
{
    const json_t *text = choice_text(choice);
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    if (count > 1) printf("  answer %zu of %zu:\n", index + 1, count);
    print_wrapped(json_is_string(text) ? json_string_value(text) : "", json_string_length(text), 2, v->width);
    if (finish && !strcmp(finish, "length")) printf("  [ended at its length limit]\n");
    if (finish && !strcmp(finish, "repetition")) printf("  [ended because it repeated itself]\n");
}

/* result NULL: not answered yet. `line` stands for a missing custom_id. */
static void print_result(const view *v, const char *custom_id, uint64_t line, const char *prompt, const json_t *result)
{
    char heading[NJ_BATCH_ID_MAX + 32];
    if (v->a->json) {
        print_json(custom_id, prompt, result);
        return;
    }
    if (custom_id)
        snprintf(heading, sizeof heading, "== %s", custom_id);
    else
        snprintf(heading, sizeof heading, "== line %" PRIu64, line);
    print_heading(v, heading);
    if (prompt) {
        print_wrapped(prompt, strlen(prompt), 2, v->width);
        putchar('\n');
    }
    const json_t *error = json_object_get(result, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    size_t i;
    json_t *choice;
    if (!result) printf("  [not answered yet]\n");
    if (json_is_object(error)) {
        printf("  error: %s\n", json_is_string(json_object_get(error, "code"))
                                    ? json_string_value(json_object_get(error, "code"))
                                    : "unknown");
        if (message) print_wrapped(message, strlen(message), 2, v->width);
    }
    json_array_foreach(choices_of(result), i, choice) print_choice(v, choice, i, json_array_size(choices_of(result)));
    putchar('\n');
}

/* ---- Files ---- */

static uint64_t line_of(const json_t *result)
{
    return (uint64_t)json_integer_value(json_object_get(json_object_get(result, "error"), "line"));
}

static int not_a_result(const nj_lines *l, const json_t *line, nj_error *err)
{
    nj_fail(err, -EINVAL, "%s: line %" PRIu64 " is not a result of nightjar batch.", l->path, l->number);
    if (json_object_get(line, "body"))
        return nj_remedy(err, "It is a request: name the result file first, then the file of requests.");
    return nj_remedy(err, "Name the result file, the -o of nightjar batch.");
}

/* Results in their own order; or, with `index`, only remembers where each one is. A last line that is still being
 * written is passed over. */
static int read_results(const view *v, const char *path, nj_idmap *index, nj_error *err)
{
    nj_lines l;
    int rc = nj_lines_open(&l, path, SIZE_MAX, err);
    if (rc == -ENOENT)
        nj_remedy(err, "Name the result file, the -o of nightjar batch; it is made when a batch begins.");
    if (rc == -EINVAL) nj_remedy(err, "Name the result file itself, the -o of nightjar batch.");
    if (rc) return rc;
    while ((rc = nj_lines_next(&l, err)) == 1 && (index || nj_cli_out_flush())) {
        nj_fingerprint key;
        json_t *result = json_loadb(l.text, l.len, 0, NULL);
        bool good = nj_result_key_of(result, &key);
        if (!good && (l.newline || l.text[0] != '{'))
            rc = not_a_result(&l, result, err);
        else if (good && index)
            rc = nj_idmap_add(index, key, l.offset) < 0 ? nj_fail(err, -ENOMEM, "No memory for the ids in %s.", path)
                                                        : 0;
        else if (good)
            print_result(v, json_string_value(json_object_get(result, "custom_id")), line_of(result), NULL, result);
        json_decref(result);
        if (rc < 0) break;
    }
    nj_lines_close(&l);
    return rc < 0 ? rc : 0;
}

static json_t *result_at(FILE *f, uint64_t offset)
{
    return fseeko(f, (off_t)offset, SEEK_SET) ? NULL : json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL);
}

/* Requests in their order, each with its result; `shown` counts the results. */
static int follow_input(const view *v, FILE *results, const nj_idmap *index, uint64_t *shown, nj_error *err)
{
    nj_lines l;
    nj_idmap seen = { 0 };
    int rc = nj_lines_open(&l, v->a->in, NJ_BATCH_LINE_MAX, err);
    if (rc) return nj_remedy(err, "Name the file of requests, the -i of nightjar batch, or leave it out.");
    while ((rc = nj_lines_next(&l, err)) == 1 && nj_cli_out_flush()) {
        if ((rc = nj_batch_line_check(&l, err))) break;
        if (!l.too_long && strspn(l.text, " \t\r") == l.len) continue;
        nj_batch_line line;
        uint64_t at;
        nj_batch_line_read(&line, &l);
        int again = line.custom_id ? nj_idmap_add(&seen, nj_result_key(line.custom_id, 0), 0) : 1;
        const char *id = again ? NULL : line.custom_id;
        json_t *result = nj_idmap_find(index, nj_result_key(id, l.number), &at) ? result_at(results, at) : NULL;
        *shown += result != NULL;
        print_result(v, id, l.number, nj_openai_prompt_text(json_object_get(line.root, "body")), result);
        json_decref(result);
        nj_batch_line_free(&line);
        if (again < 0 && (rc = nj_fail(err, again, "No memory for the ids of %s.", v->a->in))) break;
    }
    nj_lines_close(&l);
    nj_idmap_free(&seen);
    return rc < 0 ? rc : 0;
}

static int show_with_input(const view *v, const char *path, nj_error *err)
{
    nj_idmap index = { 0 };
    FILE *results = NULL;
    int rc = read_results(v, path, &index, err);
    if (!rc && !(results = fopen(path, "re")))
        rc = nj_fail(err, -errno, "%s can't be opened: %s.", path, strerror(errno));
    uint64_t shown = 0;
    if (!rc) rc = follow_input(v, results, &index, &shown, err);
    if (!rc && index.len && !shown && nj_cli_out_flush()) {
        rc = nj_fail(err, -EINVAL, "None of the %zu results in %s belongs to a request in %s.", index.len, path,
                     v->a->in);
        nj_remedy(err, "Name the file of requests that they were made from, or leave it out.");
    } else if (!rc && shown < index.len && nj_cli_out_flush()) {
        nj_cli_say("%" PRIu64 " of the %zu results in %s belong to other requests than those in %s.", index.len - shown,
                   index.len, path, v->a->in);
    }
    if (results) fclose(results);
    nj_idmap_free(&index);
    return rc;
}

int nj_verb_answers(int argc, char **argv)
{
    answers_args a = { 0 };
    char **operand;
    int operands;
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, &operands);
    if (status >= 0) return status;
    if (operands == 2 && a.in) return nj_cli_usage(&verb, "name the requests once: as the second file or with -i.");
    if (operands == 2) a.in = operand[1];
    nj_error err = { 0 };
    view v = { .a = &a, .width = (int)nj_config_columns(stdout) };
    if (v.width > WIDTH_MAX) v.width = WIDTH_MAX;
    if (v.width < 20) v.width = 20;
    v.color = nj_config_get()->color && isatty(STDOUT_FILENO);
    int rc = a.in ? show_with_input(&v, operand[0], &err) : read_results(&v, operand[0], NULL, &err);
    return rc ? nj_cli_fail(&err) : 0;
}
