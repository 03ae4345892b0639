/* The OpenAI wire format: request bodies in, response bodies out. Pure functions over JSON, shared by batch files and,
 * later, HTTP. Bodies come from strangers: every type and range is checked here, once.
 *
 * A field that we do not know is ignored, as OpenAI's own clients send new ones all the time; a known field that asks
 * for something we can't do (JSON schemas, images, forced tool calls, ...) is refused, as ignoring it would give an
 * answer to another question. */
#ifndef NJ_OPENAI_H
#define NJ_OPENAI_H

#include "engine/nj_engine.h"

typedef struct json_t json_t; /* jansson's */

typedef enum nj_openai_kind { NJ_OPENAI_CHAT, NJ_OPENAI_COMPLETION } nj_openai_kind;

/* An error as the API gives it: {"error": {message, type, param, code}} with an HTTP status. */
typedef struct nj_openai_error {
    int status;              /* 400, 404, 500, ... */
    const char *type, *code; /* static; code may be NULL */
    char param[64];          /* the field that is wrong, or "" */
    char message[1024];
} nj_openai_error;

/* Fills *err and returns -EINVAL. `code` is static or NULL. */
int nj_openai_fail(nj_openai_error *err, const char *code, const char *param, const char *fmt, ...) NJ_PRINTF(4, 5);

json_t *nj_openai_error_body(const nj_openai_error *err); /* NULL: no memory */

/* The endpoint of "/v1/chat/completions" or "/v1/completions"; false for any other path. */
bool nj_openai_kind_find(const char *url, nj_openai_kind *out);

/* One prompt of a completion request: text, or token ids (not yet checked against a vocabulary). */
typedef struct nj_openai_prompt {
    const char *text; /* NULL: ids */
    size_t len;
    int32_t *ids;
    size_t id_count;
} nj_openai_prompt;

typedef struct nj_openai_request {
    nj_openai_kind kind;
    json_t *body;             /* a reference: owner of the texts pointed to below */
    const char *model;        /* as asked for, or NULL */
    json_t *template_args;    /* chat: messages, tools and chat_template_kwargs as templates want them */
    nj_openai_prompt *prompt; /* completion: [prompt_count] */
    size_t prompt_count;
    nj_sampling sampling; /* the defaults with what the request says; bias is owned here */
    bool seed_set;
    uint32_t max_tokens; /* 0: not given */
    uint32_t n;
    const char **stop; /* [stop_count] */
    size_t stop_count;
    bool ignore_eos, logprobs, echo;
    uint32_t top_logprobs;
} nj_openai_request;

/* Checks and takes apart one body. `defaults` stand where the request says nothing. -EINVAL with *err filled. */
int nj_openai_request_parse(nj_openai_request *out, nj_openai_kind kind, json_t *body, const nj_sampling *defaults,
                            nj_openai_error *err);
void nj_openai_request_free(nj_openai_request *r); /* accepts a zeroed one */

/* What a chat request says as a person would read it: the text of its last user message, or the prompt. Borrowed from
 * the body; NULL when there is none. For listings only. */
const char *nj_openai_prompt_text(const json_t *body);

/* ---- Response ---- */

/* One answer, taken from its session before that is freed. */
typedef struct nj_openai_choice {
    char *text;
    size_t len;
    nj_finish finish;
    uint32_t prompt_tokens, completion_tokens;
    json_t *logprobs; /* NULL: not asked for */
} nj_openai_choice;

/* Copies what the response needs of a finished session. `echo` (may be NULL) goes before the text. -ENOMEM. */
int nj_openai_choice_take(nj_openai_choice *out, const nj_openai_request *r, const nj_session *s, const nj_tokenizer *t,
                          const char *echo, size_t echo_len);
void nj_openai_choice_free(nj_openai_choice *c); /* accepts a zeroed one */

typedef struct nj_openai_reply {
    const char *id;          /* without "chatcmpl-" or "cmpl-" */
    const char *model;       /* what answered */
    const char *fingerprint; /* what the text depends on besides: version, ISA tier, KV type */
    int64_t created;         /* Unix time */
} nj_openai_reply;

/* The body of chat.completion or text_completion: prompts x n choices in order of index. NULL: no memory. */
json_t *nj_openai_reply_body(const nj_openai_request *r, const nj_openai_reply *reply, const nj_openai_choice *choices,
                             size_t count);

#endif
