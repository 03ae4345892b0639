/* A conversation with one model: what was said, as messages for the template, or as plain text where there is none. */
#ifndef NJ_CHAT_H
#define NJ_CHAT_H

#include <stdio.h>

#include "engine/nj_engine.h"

typedef struct nj_chat {
    const nj_model *model;
    nj_engine      *engine;
    nj_request      request;    /* sampling, stop, max_tokens; prompt is filled in per answer */
    const char     *system;     /* or NULL */
    bool            plain;      /* no template: text is completed */
    bool            no_think;   /* enable_thinking = false for the template */
    struct json_t  *messages;   /* [{role, content}] */
    nj_buf          transcript; /* when plain: all text so far */
    bool            quiet;      /* no remarks on standard error */
    size_t         *turn;       /* [turns] where each exchange begins: index into messages, or when plain byte of */
    size_t          turns, cap; /* the transcript */
    size_t          forgotten;  /* oldest exchanges that the prompt leaves out, for they don't fit the context */
} nj_chat;

/* What became of one answer. */
typedef struct nj_chat_answer {
    nj_buf    text;
    nj_finish finish;
    uint32_t  prompt_tokens, tokens;
} nj_chat_answer;

int  nj_chat_init(nj_chat *c, nj_error *err); /* after model, engine, request, system and flags are set */
void nj_chat_free(nj_chat *c);
int  nj_chat_reset(nj_chat *c, nj_error *err); /* forgets what was said; the system message stays */

/* Says `text` to the model and streams the answer to `out` (NULL: doesn't) as it becomes stable. Ctrl-C
 * (nj_cli_interrupted) ends the answer with NJ_FINISH_CANCELLED. What was said and answered joins the conversation;
 * after an error it is as before. When the context is too small for all of it, the oldest exchanges are left out from
 * then on, with a remark; -EMSGSIZE when even the newest turn does not fit. */
int  nj_chat_say(nj_chat *c, const char *text, size_t len, FILE *out, nj_chat_answer *answer, nj_error *err);
void nj_chat_answer_free(nj_chat_answer *a);

#endif
