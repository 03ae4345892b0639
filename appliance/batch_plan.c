/* Which lines of a batch are to be done. See batch.h. */
#include "appliance/batch.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Lines ---- */

static void fail_line(nj_batch_line *b, const char *code, const char *fmt, ...) NJ_PRINTF(3, 4);
static void fail_line(nj_batch_line *b, const char *code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(b->message, sizeof b->message, fmt, args);
    va_end(args);
    b->message[nj_utf8_whole(b->message, strlen(b->message))] = '\0';
    b->code = code;
}

/* A byte order mark, as some editors put before the first line. */
static size_t mark_bytes(const nj_lines *l)
{
    return l->number == 1 && l->len >= 3 && !memcmp(l->text, "\xEF\xBB\xBF", 3) ? 3 : 0;
}

void nj_batch_line_read(nj_batch_line *out, const nj_lines *l)
{
    json_error_t error;
    size_t mark = mark_bytes(l);
    *out = (nj_batch_line){ 0 };
    if (l->too_long) {
        fail_line(out, "line_too_long", "Line %" PRIu64 " has %" PRIu64 " bytes; a request may have %d MB.", l->number,
                  l->bytes, NJ_BATCH_LINE_MAX >> 20);
        return;
    }
    out->root = json_loadb(l->text + mark, l->len - mark, 0, &error);
    const json_t *id = json_object_get(out->root, "custom_id");
    if (!out->root)
        fail_line(out, "invalid_json", "Line %" PRIu64 " is not JSON: %s, at byte %d.", l->number, error.text,
                  error.position);
    else if (!json_is_object(out->root))
        fail_line(out, "invalid_request", "Line %" PRIu64 " is not a JSON object.", l->number);
    else if (!id || json_is_null(id))
        fail_line(out, "missing_custom_id", "Line %" PRIu64 " has no custom_id.", l->number);
    else if (!json_is_string(id))
        fail_line(out, "invalid_custom_id", "Line %" PRIu64 ": custom_id must be a string.", l->number);
    else if (json_string_length(id) < 1 || json_string_length(id) > NJ_BATCH_ID_MAX)
        fail_line(out, "invalid_custom_id", "Line %" PRIu64 ": custom_id must have 1 to %d bytes, not %zu.", l->number,
                  NJ_BATCH_ID_MAX, json_string_length(id));
    else
        out->custom_id = json_string_value(id);
}

void nj_batch_line_free(nj_batch_line *b)
{
    json_decref(b->root);
    *b = (nj_batch_line){ 0 };
}

/* ---- Is this a file of requests at all? ---- */

static int not_requests(nj_error *err)
{
    return nj_remedy(err, "Each line must be one request, as in "
                          "{\"custom_id\": \"a-1\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", "
                          "\"body\": {\"messages\": [{\"role\": \"user\", \"content\": \"Good evening.\"}]}}");
}

int nj_batch_line_check(const nj_lines *l, nj_error *err)
{
    if (!memchr(l->text, '\0', l->len)) return 0;
    nj_fail(err, -EINVAL, "%s is not a text in UTF-8: line %" PRIu64 " holds a zero byte.", l->path, l->number);
    return not_requests(err);
}

/* ---- Plan ---- */

static bool is_blank(const nj_lines *l)
{
    size_t mark = mark_bytes(l);
    return !l->too_long && strspn(l->text + mark, " \t\r") == l->len - mark;
}

/* What is to be done with the present line. -ENOMEM. */
static int classify(nj_batch_plan *p, const nj_lines *in, const nj_results *done, nj_idmap *seen, uint64_t *objects)
{
    if (is_blank(in)) return NJ_LINE_BLANK;
    nj_batch_line line;
    nj_batch_line_read(&line, in);
    int kind = NJ_LINE_TODO, again = 0;
    if (line.custom_id && (again = nj_idmap_add(seen, nj_result_key(line.custom_id, 0), in->number)) == 1)
        kind = NJ_LINE_DUPLICATE;
    bool own_id = line.custom_id && kind == NJ_LINE_TODO;
    nj_fingerprint key = nj_result_key(own_id ? line.custom_id : NULL, in->number);
    uint64_t error = 0;
    if (nj_idmap_find(&done->done, key, &error)) kind = NJ_LINE_DONE;
    if (error && nj_idmap_add(&p->failed, key, 0) < 0) again = -ENOMEM;
    *objects += json_is_object(line.root);
    nj_batch_line_free(&line);
    p->total++;
    p->done += kind == NJ_LINE_DONE;
    return again < 0 ? again : kind;
}

int nj_batch_plan_make(nj_batch_plan *p, nj_lines *in, const nj_results *done, nj_error *err)
{
    int rc;
    uint64_t objects = 0;
    nj_idmap seen = { 0 };
    *p = (nj_batch_plan){ 0 };
    while ((rc = nj_lines_next(in, err)) == 1) {
        if ((rc = nj_batch_line_check(in, err))) break;
        int kind = classify(p, in, done, &seen, &objects);
        if (kind < 0 || nj_array_grow(&p->kind, &p->cap, p->lines + 1, sizeof *p->kind)) {
            rc = nj_fail(err, -ENOMEM, "No memory for the ids of %s.", in->path);
            break;
        }
        p->kind[p->lines++] = (uint8_t)kind;
    }
    if (rc >= 0 && p->total && !objects) {
        rc = nj_fail(err, -EINVAL, "%s holds no request: none of its lines is a JSON object.", in->path);
        not_requests(err);
    }
    p->strangers = done->done.len - p->done;
    nj_idmap_free(&seen);
    nj_lines_rewind(in);
    if (rc < 0) nj_batch_plan_free(p);
    return rc;
}

void nj_batch_plan_free(nj_batch_plan *p)
{
    free(p->kind);
    nj_idmap_free(&p->failed);
    *p = (nj_batch_plan){ 0 };
}
