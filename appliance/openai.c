/* OpenAI request bodies: checking and taking apart. See openai.h. */
#include "appliance/openai.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_MAX = 128,    /* as OpenAI */
    STOPS_MAX = 16, /* OpenAI has 4; local models need more */
    STOP_BYTES_MAX = 1024,
    BIAS_MAX = 1 << 16,
    TOP_LOGPROBS_MAX = 20, /* as OpenAI */
    PROMPTS_MAX = 2048,    /* as OpenAI */
    CHOICES_MAX = 4096,
    MESSAGES_MAX = 1 << 16,
    COMPLETION_TOKENS_DEFAULT = 16 /* what /v1/completions has always done */
};

int nj_openai_fail(nj_openai_error *err, const char *code, const char *param, const char *fmt, ...)
{
    va_list args;
    *err = (nj_openai_error){ .status = 400, .type = "invalid_request_error", .code = code };
    snprintf(err->param, sizeof err->param, "%s", param ? param : "");
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    return -EINVAL;
}

static int fail_memory(nj_openai_error *err)
{
    nj_openai_fail(err, "out_of_memory", NULL, "There is no memory for this request.");
    err->status = 500;
    err->type = "server_error";
    return -EINVAL;
}

json_t *nj_openai_error_body(const nj_openai_error *err)
{
    return json_pack("{s:{s:s,s:s,s:s?,s:s?}}", "error", "message", err->message, "type", err->type, "param",
                     err->param[0] ? err->param : NULL, "code", err->code);
}

bool nj_openai_kind_find(const char *url, nj_openai_kind *out)
{
    if (!strcmp(url, "/v1/chat/completions"))
        *out = NJ_OPENAI_CHAT;
    else if (!strcmp(url, "/v1/completions"))
        *out = NJ_OPENAI_COMPLETION;
    else
        return false;
    return true;
}

/* A member, or NULL when it is absent or null: clients send null for "not given". */
static json_t *member(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

static int fail_type(nj_openai_error *err, const char *param, const char *want, const json_t *got)
{
    return nj_openai_fail(err, "invalid_type", param, "%s must be %s, not %s.", param, want, type_name(got));
}

/* ---- Numbers ---- */

/* An optional number in [min, max]. Sets *set when it is there. */
static int get_number(const json_t *body, const char *name, bool whole, double min, double max, double *out, bool *set,
                      nj_openai_error *err)
{
    json_t *value = member(body, name);
    *set = false;
    if (!value) return 0;
    if (!json_is_number(value)) return fail_type(err, name, whole ? "an integer" : "a number", value);
    double x = json_number_value(value);
    if (whole && x != floor(x)) return nj_openai_fail(err, "invalid_value", name, "%s must be an integer.", name);
    if (!(x >= min && x <= max))
        return nj_openai_fail(err, "invalid_value", name, "%s is %.15g, but must lie between %.15g and %.15g.", name, x,
                              min, max);
    *out = x;
    *set = true;
    return 0;
}

static int get_bool(const json_t *body, const char *name, bool *out, nj_openai_error *err)
{
    json_t *value = member(body, name);
    if (!value) return 0;
    if (!json_is_boolean(value)) return fail_type(err, name, "a boolean", value);
    *out = json_is_true(value);
    return 0;
}

/* Ranges are OpenAI's where it has the field. A later row for the same field wins. */
static const struct number_field {
    const char *name;
    bool whole; /* into a uint32_t, else a float */
    size_t offset;
    double min, max;
} number_fields[] = {
    { "temperature", false, offsetof(nj_openai_request, sampling.temperature), 0, 2 },
    { "top_p", false, offsetof(nj_openai_request, sampling.top_p), 0, 1 },
    { "min_p", false, offsetof(nj_openai_request, sampling.min_p), 0, 1 },
    { "typical_p", false, offsetof(nj_openai_request, sampling.typical_p), 0, 1 },
    { "presence_penalty", false, offsetof(nj_openai_request, sampling.presence_penalty), -2, 2 },
    { "frequency_penalty", false, offsetof(nj_openai_request, sampling.frequency_penalty), -2, 2 },
    { "repetition_penalty", false, offsetof(nj_openai_request, sampling.repeat_penalty), 0.01, 10 },
    { "repeat_penalty", false, offsetof(nj_openai_request, sampling.repeat_penalty), 0.01, 10 },
    { "penalty_window", true, offsetof(nj_openai_request, sampling.penalty_window), 0, 1 << 24 },
    { "max_tokens", true, offsetof(nj_openai_request, max_tokens), 1, INT32_MAX },
    { "max_completion_tokens", true, offsetof(nj_openai_request, max_tokens), 1, INT32_MAX },
    { "n", true, offsetof(nj_openai_request, n), 1, N_MAX },
};

static int parse_numbers(nj_openai_request *r, nj_openai_error *err)
{
    int rc;
    double x;
    bool set;
    for (size_t i = 0; i < NJ_COUNT(number_fields); i++) {
        const struct number_field *f = &number_fields[i];
        if ((rc = get_number(r->body, f->name, f->whole, f->min, f->max, &x, &set, err))) return rc;
        if (!set) continue;
        if (f->whole)
            *(uint32_t *)((char *)r + f->offset) = (uint32_t)x;
        else
            *(float *)((char *)r + f->offset) = (float)x;
    }
    if ((rc = get_number(r->body, "top_k", true, -1, INT32_MAX, &x, &set, err))) return rc;
    if (set) r->sampling.top_k = x > 0 ? (uint32_t)x : 0; /* -1 is how vLLM's clients say "off" */

    json_t *seed = member(r->body, "seed");
    if (seed && !json_is_integer(seed)) return fail_type(err, "seed", "an integer", seed);
    r->seed_set = seed != NULL;
    if (seed) r->sampling.seed = (uint64_t)json_integer_value(seed);
    return get_bool(r->body, "ignore_eos", &r->ignore_eos, err);
}

/* ---- Stop strings, biases, log probabilities ---- */

static int parse_stop(nj_openai_request *r, nj_openai_error *err)
{
    json_t *stop = member(r->body, "stop");
    if (!stop) return 0;
    size_t count = json_is_array(stop) ? json_array_size(stop) : 1;
    if (count > STOPS_MAX)
        return nj_openai_fail(err, "invalid_value", "stop", "stop holds %zu strings, but may hold %d.", count,
                              STOPS_MAX);
    if (!count) return 0;
    if (!(r->stop = nj_array_new(count, sizeof *r->stop))) return fail_memory(err);
    for (size_t i = 0; i < count; i++) {
        json_t *one = json_is_array(stop) ? json_array_get(stop, i) : stop;
        if (!json_is_string(one)) return fail_type(err, "stop", "a string or an array of strings", one);
        size_t len = json_string_length(one);
        if (len < 1 || len > STOP_BYTES_MAX)
            return nj_openai_fail(err, "invalid_value", "stop", "A stop string must have 1 to %d bytes, not %zu.",
                                  STOP_BYTES_MAX, len);
        r->stop[r->stop_count++] = json_string_value(one);
    }
    return 0;
}

static int parse_bias(nj_openai_request *r, nj_openai_error *err)
{
    const char *key;
    json_t *value, *map = member(r->body, "logit_bias");
    if (!map) return 0;
    if (!json_is_object(map)) return fail_type(err, "logit_bias", "an object from token ids to biases", map);
    size_t count = json_object_size(map);
    if (count > BIAS_MAX)
        return nj_openai_fail(err, "invalid_value", "logit_bias", "logit_bias has %zu entries, but may have %d.", count,
                              BIAS_MAX);
    if (!count) return 0;
    nj_logit_bias *bias = nj_array_new(count, sizeof *bias);
    if (!bias) return fail_memory(err);
    r->sampling.bias = bias;
    json_object_foreach(map, key, value)
    {
        char *end;
        errno = 0;
        long token = strtol(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end || errno || token > INT32_MAX)
            return nj_openai_fail(err, "invalid_value", "logit_bias", "logit_bias: '%.40s' is not a token id.", key);
        double x = json_is_number(value) ? json_number_value(value) : NAN;
        if (!(x >= -100 && x <= 100))
            return nj_openai_fail(err, "invalid_value", "logit_bias",
                                  "logit_bias of token %ld must be a number between -100 and 100.", token);
        bias[r->sampling.bias_count++] = (nj_logit_bias){ (int32_t)token, (float)x };
    }
    return 0;
}

/* Chat: logprobs is a boolean and top_logprobs a count. Completions: logprobs is the count. */
static int parse_logprobs(nj_openai_request *r, nj_openai_error *err)
{
    int rc;
    double x = 0;
    bool set;
    const char *count = r->kind == NJ_OPENAI_CHAT ? "top_logprobs" : "logprobs";
    if (r->kind == NJ_OPENAI_CHAT && (rc = get_bool(r->body, "logprobs", &r->logprobs, err))) return rc;
    if ((rc = get_number(r->body, count, true, 0, TOP_LOGPROBS_MAX, &x, &set, err))) return rc;
    if (!set) return 0;
    if (r->kind == NJ_OPENAI_CHAT && !r->logprobs && x > 0)
        return nj_openai_fail(err, "invalid_value", "top_logprobs", "top_logprobs needs logprobs to be true.");
    if (r->kind == NJ_OPENAI_COMPLETION) r->logprobs = true;
    r->top_logprobs = (uint32_t)x;
    return 0;
}

/* ---- What we can't do ---- */

static int refuse(nj_openai_error *err, const char *param, const char *what)
{
    return nj_openai_fail(err, "unsupported_value", param, "%s: Nightjar %s.", param, what);
}

/* Is `value` just the word `plain`, as a string or as {"type": plain}? */
static bool is_plain(const json_t *value, const char *plain)
{
    const json_t *word = json_is_object(value) ? json_object_get(value, "type") : value;
    return json_is_string(word) && !strcmp(json_string_value(word), plain);
}

static int refuse_unsupported(const nj_openai_request *r, nj_openai_error *err)
{
    static const struct {
        const char *name, *why;
    } never[] = {
        { "functions", "takes tools, not the older functions" },
        { "function_call", "takes tools, not the older functions" },
        { "audio", "answers in text only" },
        { "web_search_options", "has no connection to the web" },
    };
    json_t *value;
    for (size_t i = 0; i < NJ_COUNT(never); i++)
        if (member(r->body, never[i].name)) return refuse(err, never[i].name, never[i].why);
    if ((value = member(r->body, "response_format")) && !is_plain(value, "text"))
        return refuse(err, "response_format", "can't yet hold a model to JSON; only the type text is possible");
    if ((value = member(r->body, "tool_choice")) && !is_plain(value, "auto") && !is_plain(value, "none"))
        return refuse(err, "tool_choice", "can't force a tool call; auto and none are possible");
    if ((value = member(r->body, "modalities")) &&
        (json_array_size(value) != 1 || !is_plain(json_array_get(value, 0), "text")))
        return refuse(err, "modalities", "answers in text only");
    if ((value = member(r->body, "suffix")) && !(json_is_string(value) && !json_string_length(value)))
        return refuse(err, "suffix", "can't fill in before a suffix");
    if ((value = member(r->body, "best_of")) && json_number_value(value) != (double)r->n)
        return refuse(err, "best_of", "gives all n answers; best_of must equal n or be left out");
    return 0;
}

/* ---- Chat ---- */

/* The text of a content: a string, or an array of parts of type text, joined by newlines as other servers do. */
static json_t *content_text(const json_t *content, size_t index, nj_openai_error *err)
{
    char param[64];
    nj_buf text = { 0 };
    json_t *result = NULL;
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i), *words = json_object_get(part, "text");
        snprintf(param, sizeof param, "messages[%zu].content[%zu]", index, i);
        if (!json_is_object(part) || !json_is_string(json_object_get(part, "type"))) {
            nj_openai_fail(err, "invalid_type", param, "%s must be an object with a type.", param);
            goto done;
        }
        if (!is_plain(part, "text") || !json_is_string(words)) {
            nj_openai_fail(err, "unsupported_value", param, "%s has the type '%.40s': Nightjar reads text only.", param,
                           json_string_value(json_object_get(part, "type")));
            goto done;
        }
        if (i) nj_buf_char(&text, '\n');
        nj_buf_add(&text, json_string_value(words), json_string_length(words));
    }
    if (text.failed || !(result = json_stringn(text.data ? text.data : "", text.len))) fail_memory(err);
done:
    nj_buf_free(&text);
    return result;
}

/* OpenAI carries the arguments of a call as JSON in a string; templates expect the object itself. */
static int open_arguments(json_t *tool_calls)
{
    for (size_t i = 0; i < json_array_size(tool_calls); i++) {
        json_t *function = json_object_get(json_array_get(tool_calls, i), "function");
        json_t *text = json_object_get(function, "arguments");
        if (!json_is_string(text)) continue;
        json_t *arguments = json_loadb(json_string_value(text), json_string_length(text), 0, NULL);
        if (arguments && json_object_set_new(function, "arguments", arguments)) return -ENOMEM;
    }
    return 0;
}

/* A copy of one message as templates want it, in *out. */
static int parse_message(const json_t *message, size_t index, json_t **out, nj_openai_error *err)
{
    char param[64];
    snprintf(param, sizeof param, "messages[%zu]", index);
    if (!json_is_object(message)) return fail_type(err, param, "an object", message);
    const json_t *role = json_object_get(message, "role"), *content = member(message, "content");
    const json_t *calls = member(message, "tool_calls");
    if (!json_is_string(role))
        return nj_openai_fail(err, "invalid_type", param, "%s must have a role that is a string.", param);
    if (!content && !calls) return nj_openai_fail(err, "missing_content", param, "%s has no content.", param);
    if (content && !json_is_string(content) && !json_is_array(content))
        return nj_openai_fail(err, "invalid_type", param, "The content of %s must be a string or an array of parts.",
                              param);
    if (calls && !json_is_array(calls))
        return nj_openai_fail(err, "invalid_type", param, "tool_calls of %s must be an array.", param);

    json_t *copy = json_deep_copy(message), *text;
    if (!copy) return fail_memory(err);
    *out = copy;
    if (json_is_array(content)) {
        if (!(text = content_text(content, index, err))) return -EINVAL;
        if (json_object_set_new(copy, "content", text)) return fail_memory(err);
    }
    /* OpenAI's newer name for the system role; no template knows it. */
    if (!strcmp(json_string_value(role), "developer") && json_object_set_new(copy, "role", json_string("system")))
        return fail_memory(err);
    return open_arguments(json_object_get(copy, "tool_calls")) ? fail_memory(err) : 0;
}

static int parse_tools(nj_openai_request *r, nj_openai_error *err)
{
    json_t *tools = member(r->body, "tools"), *choice = member(r->body, "tool_choice");
    if (!tools) return 0;
    if (!json_is_array(tools)) return fail_type(err, "tools", "an array", tools);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *tool = json_array_get(tools, i);
        if (!is_plain(tool, "function") || !json_is_string(json_object_get(json_object_get(tool, "function"), "name")))
            return nj_openai_fail(err, "invalid_value", "tools",
                                  "tools[%zu] must be {\"type\": \"function\", \"function\": {\"name\": ...}}.", i);
    }
    if (!json_array_size(tools) || (choice && is_plain(choice, "none"))) return 0;
    return json_object_set(r->template_args, "tools", tools) ? fail_memory(err) : 0;
}

static int parse_chat(nj_openai_request *r, nj_openai_error *err)
{
    int rc;
    json_t *messages = member(r->body, "messages"), *kwargs = member(r->body, "chat_template_kwargs");
    if (!messages) return nj_openai_fail(err, "missing_required_parameter", "messages", "messages is missing.");
    if (!json_is_array(messages)) return fail_type(err, "messages", "an array", messages);
    size_t count = json_array_size(messages);
    if (count < 1 || count > MESSAGES_MAX)
        return nj_openai_fail(err, "invalid_value", "messages", "messages holds %zu messages, but must hold 1 to %d.",
                              count, MESSAGES_MAX);
    if (kwargs && !json_is_object(kwargs)) return fail_type(err, "chat_template_kwargs", "an object", kwargs);

    json_t *list = json_array();
    r->template_args = json_pack("{s:b}", "add_generation_prompt", 1);
    if (!list || !r->template_args || (kwargs && json_object_update(r->template_args, kwargs)) ||
        json_object_set_new(r->template_args, "messages", list))
        return fail_memory(err);
    for (size_t i = 0; i < count; i++) {
        json_t *message = NULL;
        rc = parse_message(json_array_get(messages, i), i, &message, err);
        if (message && json_array_append_new(list, message) && !rc) rc = fail_memory(err);
        if (rc) return rc;
    }
    return parse_tools(r, err);
}

/* ---- Completions ---- */

static int parse_ids(nj_openai_prompt *p, const json_t *ids, nj_openai_error *err)
{
    size_t count = json_array_size(ids);
    if (!count) return nj_openai_fail(err, "invalid_value", "prompt", "prompt is an empty list.");
    if (!(p->ids = nj_array_new(count, sizeof *p->ids))) return fail_memory(err);
    for (p->id_count = 0; p->id_count < count; p->id_count++) {
        const json_t *id = json_array_get(ids, p->id_count);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return nj_openai_fail(err, "invalid_value", "prompt", "prompt: item %zu is not a token id.", p->id_count);
        p->ids[p->id_count] = (int32_t)json_integer_value(id);
    }
    return 0;
}

static int parse_completion(nj_openai_request *r, nj_openai_error *err)
{
    int rc;
    json_t *prompt = member(r->body, "prompt");
    if (!prompt) return nj_openai_fail(err, "missing_required_parameter", "prompt", "prompt is missing.");
    /* A string, a list of strings, a list of ids, or a list of lists of ids. */
    bool many = json_is_array(prompt) && !json_is_integer(json_array_get(prompt, 0));
    size_t count = many ? json_array_size(prompt) : 1;
    if (count < 1 || count > PROMPTS_MAX || count * r->n > CHOICES_MAX)
        return nj_openai_fail(err, "invalid_value", "prompt",
                              "%zu prompts with n = %u: between 1 and %d answers are "
                              "possible.",
                              count, r->n, CHOICES_MAX);
    if (!(r->prompt = nj_array_new(count, sizeof *r->prompt))) return fail_memory(err);
    for (r->prompt_count = 0; r->prompt_count < count;) {
        json_t *one = many ? json_array_get(prompt, r->prompt_count) : prompt;
        nj_openai_prompt *p = &r->prompt[r->prompt_count++];
        if (json_is_array(one)) {
            if ((rc = parse_ids(p, one, err))) return rc;
        } else if (json_is_string(one)) {
            p->text = json_string_value(one);
            p->len = json_string_length(one);
        } else {
            return fail_type(err, "prompt", "a string, a list of strings or token ids", one);
        }
    }
    if ((rc = get_bool(r->body, "echo", &r->echo, err))) return rc;
    if (r->echo && r->logprobs)
        return refuse(err, "echo", "has no log probabilities of the prompt; ask for echo or logprobs");
    if (!r->max_tokens) r->max_tokens = COMPLETION_TOKENS_DEFAULT;
    return 0;
}

int nj_openai_request_parse(nj_openai_request *out, nj_openai_kind kind, json_t *body, const nj_sampling *defaults,
                            nj_openai_error *err)
{
    int rc;
    *out = (nj_openai_request){ .kind = kind, .sampling = *defaults, .n = 1 };
    out->sampling.bias = NULL;
    out->sampling.bias_count = 0;
    if (!json_is_object(body)) return nj_openai_fail(err, "invalid_type", "body", "body must be a JSON object.");
    out->body = json_incref(body);
    json_t *model = member(body, "model");
    if (model && !json_is_string(model)) {
        rc = fail_type(err, "model", "a string", model);
        goto fail;
    }
    out->model = json_string_value(model);
    if ((rc = parse_numbers(out, err)) || (rc = parse_stop(out, err)) || (rc = parse_bias(out, err)) ||
        (rc = parse_logprobs(out, err)) || (rc = refuse_unsupported(out, err)))
        goto fail;
    if ((rc = kind == NJ_OPENAI_CHAT ? parse_chat(out, err) : parse_completion(out, err))) goto fail;
    return 0;
fail:
    nj_openai_request_free(out);
    return rc;
}

void nj_openai_request_free(nj_openai_request *r)
{
    for (size_t i = 0; i < r->prompt_count; i++) free(r->prompt[i].ids);
    free(r->prompt);
    free(r->stop);
    free((nj_logit_bias *)r->sampling.bias); /* const for its readers; allocated in parse_bias */
    json_decref(r->template_args);
    json_decref(r->body);
    *r = (nj_openai_request){ 0 };
}

/* ---- For listings ---- */

/* The first string of a content or prompt in any of its forms. */
static const char *first_text(const json_t *value)
{
    if (json_is_array(value)) value = json_array_get(value, 0);
    if (json_is_object(value)) value = json_object_get(value, "text");
    return json_string_value(value);
}

const char *nj_openai_prompt_text(const json_t *body)
{
    const json_t *messages = json_object_get(body, "messages");
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const json_t *message = json_array_get(messages, i);
        if (is_plain(json_object_get(message, "role"), "user")) return first_text(json_object_get(message, "content"));
    }
    return first_text(json_object_get(body, "prompt"));
}
