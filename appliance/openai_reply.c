/* OpenAI response bodies. See openai.h. */
#include "appliance/openai.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

/* A JSON string of any bytes: what isn't UTF-8 (half a character in a token) becomes U+FFFD. */
static json_t *text_json(const char *bytes, size_t len)
{
    nj_buf text = { 0 };
    json_t *result = NULL;
    for (size_t at = 0; at < len;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)bytes + at, (utf8proc_ssize_t)(len - at), &c);
        if (n > 0)
            nj_buf_add(&text, bytes + at, (size_t)n);
        else
            nj_buf_str(&text, "\xEF\xBF\xBD");
        at += n > 0 ? (size_t)n : 1;
    }
    if (!text.failed) result = json_stringn(text.data ? text.data : "", text.len);
    nj_buf_free(&text);
    return result;
}

static json_t *bytes_json(const char *bytes, size_t len)
{
    json_t *list = json_array();
    for (size_t i = 0; i < len && list; i++) json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    return list;
}

/* {"token", "logprob", "bytes"} of chat, with room for more members. */
static json_t *chat_token(const nj_tokenizer *t, int32_t id, float logprob, nj_buf *scratch)
{
    nj_buf_clear(scratch);
    nj_token_text(t, id, true, scratch);
    const char *bytes = scratch->data ? scratch->data : "";
    return json_pack("{s:o,s:f,s:o}", "token", text_json(bytes, scratch->len), "logprob", (double)logprob, "bytes",
                     bytes_json(bytes, scratch->len));
}

/* Tokens that belong to the answer as given: none that a stop string cut away as a whole. */
static size_t tokens_kept(const nj_token_out *tokens, size_t n, size_t text_len)
{
    while (n > 1 && tokens[n - 2].text_end >= text_len && tokens[n - 1].text_end > text_len) n--;
    return n;
}

static json_t *chat_logprobs(const nj_tokenizer *t, const nj_token_out *tokens, size_t n, uint32_t top_count)
{
    nj_buf scratch = { 0 };
    json_t *content = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *one = chat_token(t, tokens[i].token, tokens[i].logprob, &scratch), *top = json_array();
        for (uint32_t k = 0; k < top_count && tokens[i].top && tokens[i].top[k].token >= 0; k++)
            json_array_append_new(top, chat_token(t, tokens[i].top[k].token, tokens[i].top[k].logprob, &scratch));
        json_object_set_new(one, "top_logprobs", top);
        json_array_append_new(content, one);
    }
    nj_buf_free(&scratch);
    if (json_array_size(content) != n) { /* an append failed: no memory */
        json_decref(content);
        return NULL;
    }
    return json_pack("{s:o,s:n}", "content", content, "refusal");
}

static json_t *token_json(const nj_tokenizer *t, int32_t id, nj_buf *scratch)
{
    nj_buf_clear(scratch);
    nj_token_text(t, id, true, scratch);
    return text_json(scratch->data ? scratch->data : "", scratch->len);
}

/* The older form: parallel lists, and per token a map from alternatives to log probabilities. */
static json_t *completion_logprobs(const nj_tokenizer *t, const nj_token_out *tokens, size_t n, uint32_t top_count)
{
    nj_buf scratch = { 0 };
    json_t *texts = json_array(), *values = json_array(), *tops = json_array(), *offsets = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(texts, token_json(t, tokens[i].token, &scratch));
        json_array_append_new(values, json_real((double)tokens[i].logprob));
        json_array_append_new(offsets, json_integer(i ? tokens[i - 1].text_end : 0));
        json_t *map = json_object();
        for (uint32_t k = 0; k < top_count && tokens[i].top && tokens[i].top[k].token >= 0; k++) {
            json_t *key = token_json(t, tokens[i].top[k].token, &scratch);
            json_object_set_new(map, key ? json_string_value(key) : "", json_real((double)tokens[i].top[k].logprob));
            json_decref(key);
        }
        json_array_append_new(tops, map);
    }
    nj_buf_free(&scratch);
    return json_pack("{s:o,s:o,s:o,s:o}", "tokens", texts, "token_logprobs", values, "top_logprobs", tops,
                     "text_offset", offsets);
}

int nj_openai_choice_take(nj_openai_choice *out, const nj_openai_request *r, const nj_session *s, const nj_tokenizer *t,
                          const char *echo, size_t echo_len)
{
    size_t len, n;
    const char *text = nj_session_text(s, &len);
    const nj_token_out *tokens = nj_session_tokens(s, &n);
    *out = (nj_openai_choice){ .finish = nj_session_finish(s),
                               .prompt_tokens = nj_session_prompt_tokens(s),
                               .completion_tokens = (uint32_t)n };
    out->len = echo_len + len;
    if (!(out->text = malloc(out->len + 1))) return -ENOMEM;
    if (echo_len) memcpy(out->text, echo, echo_len);
    if (len) memcpy(out->text + echo_len, text, len);
    out->text[out->len] = '\0';
    if (!r->logprobs) return 0;
    n = tokens_kept(tokens, n, len);
    out->logprobs = r->kind == NJ_OPENAI_CHAT ? chat_logprobs(t, tokens, n, r->top_logprobs)
                                              : completion_logprobs(t, tokens, n, r->top_logprobs);
    return out->logprobs ? 0 : -ENOMEM;
}

void nj_openai_choice_free(nj_openai_choice *c)
{
    free(c->text);
    json_decref(c->logprobs);
    *c = (nj_openai_choice){ 0 };
}

static json_t *choice_json(const nj_openai_request *r, const nj_openai_choice *c, size_t index)
{
    json_t *text = text_json(c->text, c->len);
    json_t *logprobs = c->logprobs ? json_incref(c->logprobs) : json_null();
    const char *finish = nj_finish_name(c->finish);
    if (r->kind == NJ_OPENAI_COMPLETION)
        return json_pack("{s:I,s:o,s:o,s:s}", "index", (json_int_t)index, "text", text, "logprobs", logprobs,
                         "finish_reason", finish);
    return json_pack("{s:I,s:{s:s,s:o,s:n},s:o,s:s}", "index", (json_int_t)index, "message", "role", "assistant",
                     "content", text, "refusal", "logprobs", logprobs, "finish_reason", finish);
}

json_t *nj_openai_reply_body(const nj_openai_request *r, const nj_openai_reply *reply, const nj_openai_choice *choices,
                             size_t count)
{
    bool chat = r->kind == NJ_OPENAI_CHAT;
    json_t *list = json_array();
    json_int_t prompt_tokens = 0, completion_tokens = 0;
    for (size_t i = 0; i < count; i++) {
        if (json_array_append_new(list, choice_json(r, &choices[i], i))) {
            json_decref(list);
            return NULL;
        }
        if (i % r->n == 0) prompt_tokens += choices[i].prompt_tokens; /* the n answers share one prompt */
        completion_tokens += choices[i].completion_tokens;
    }
    return json_pack("{s:s+,s:s,s:I,s:s,s:o,s:{s:I,s:I,s:I},s:s}", "id", chat ? "chatcmpl-" : "cmpl-", reply->id,
                     "object", chat ? "chat.completion" : "text_completion", "created", (json_int_t)reply->created,
                     "model", reply->model, "choices", list, "usage", "prompt_tokens", prompt_tokens,
                     "completion_tokens", completion_tokens, "total_tokens", prompt_tokens + completion_tokens,
                     "system_fingerprint", reply->fingerprint);
}
