#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/chat.h"
#include "appliance/cli.h"
#include "appliance/config.h"
#include "appliance/text.h"

static int no_memory(nj_error *err)
{
    return nj_fail(err, -ENOMEM, "There is no memory left for the conversation.");
}

static int add_message(json_t *messages, const char *role, const char *text, size_t len)
{
    return json_array_append_new(messages, json_pack("{s:s,s:o}", "role", role, "content", nj_text_json(text, len)));
}

int nj_chat_reset(nj_chat *c, nj_error *err)
{
    json_decref(c->messages);
    nj_buf_clear(&c->transcript);
    c->turns = c->forgotten = 0;
    if (!(c->messages = json_array())) return no_memory(err);
    if (!c->system) return 0;
    if (c->plain) {
        nj_buf_str(&c->transcript, c->system);
        nj_buf_char(&c->transcript, '\n');
    }
    return add_message(c->messages, "system", c->system, strlen(c->system)) != 0 ? no_memory(err) : 0;
}

int nj_chat_init(nj_chat *c, nj_error *err)
{
    c->plain = c->plain || !nj_model_template(c->model);
    return nj_chat_reset(c, err);
}

void nj_chat_free(nj_chat *c)
{
    json_decref(c->messages);
    nj_buf_free(&c->transcript);
    free(c->turn);
}

void nj_chat_answer_free(nj_chat_answer *a)
{
    nj_buf_free(&a->text);
}

/* ---- The prompt ---- */

static int set_token(json_t *args, const char *name, const nj_tokenizer *t, int32_t id)
{
    nj_buf text = { 0 };
    if (id >= 0) nj_token_text(t, id, true, &text);
    int rc = json_object_set_new(args, name, nj_text_json(text.data ? text.data : "", text.len));
    nj_buf_free(&text);
    return rc;
}

/* The messages that the prompt has: the system message and all exchanges that are not left out. */
static json_t *messages_shown(const nj_chat *c)
{
    json_t *shown = json_copy(c->messages);
    size_t system = c->turns ? c->turn[0] : 0;
    for (size_t i = c->forgotten ? c->turn[c->forgotten] : system; i > system; i--) json_array_remove(shown, i - 1);
    return shown;
}

/* The template's arguments as JSON text, for free(); NULL without memory. */
static char *template_args(const nj_chat *c)
{
    const nj_tokenizer *t = nj_model_tokenizer(c->model);
    char *text = NULL;
    json_t *args = json_pack("{s:o,s:b}", "messages", messages_shown(c), "add_generation_prompt", 1);
    if (args && !set_token(args, "bos_token", t, nj_tokenizer_bos(t)) &&
        !set_token(args, "eos_token", t, nj_tokenizer_eos(t)) &&
        (!c->no_think || !json_object_set_new(args, "enable_thinking", json_false())))
        text = json_dumps(args, JSON_COMPACT);
    json_decref(args);
    return text;
}

/* The transcript without the exchanges that are left out. */
static int plain_prompt(const nj_chat *c, nj_tokens *tokens, nj_error *err)
{
    nj_buf text = { 0 };
    size_t from = c->turn[c->forgotten];
    nj_buf_add(&text, c->transcript.data, c->turn[0]);
    nj_buf_add(&text, c->transcript.data + from, c->transcript.len - from);
    int rc = text.failed ? no_memory(err)
                         : nj_tokenize(nj_model_tokenizer(c->model), text.data ? text.data : "", text.len,
                                       NJ_TOKENIZE_SPECIAL | NJ_TOKENIZE_BOS, tokens, err);
    nj_buf_free(&text);
    return rc;
}

static int make_prompt(const nj_chat *c, nj_tokens *tokens, nj_error *err)
{
    const nj_tokenizer *t = nj_model_tokenizer(c->model);
    nj_buf text = { 0 };
    tokens->len = 0;
    if (c->plain) return plain_prompt(c, tokens, err);
    char *args = template_args(c);
    int rc = args ? 0 : no_memory(err);
    if (rc == 0) rc = nj_template_render(nj_model_template(c->model), args, strlen(args), nj_config_now(), &text, err);
    if (rc != 0 && args) nj_error_prefix(err, "the model's chat template");
    /* The template has written bos itself where it wants one. */
    if (rc == 0) rc = nj_tokenize(t, text.data ? text.data : "", text.len, NJ_TOKENIZE_SPECIAL, tokens, err);
    free(args);
    nj_buf_free(&text);
    return rc;
}

/* Makes a prompt that the context has room for, with a quarter left for the answer (less where the answer may not be
 * that long), leaving out as many of the oldest exchanges as it takes. */
static int fit_prompt(nj_chat *c, nj_tokens *tokens, nj_error *err)
{
    uint32_t context = nj_model_info_of(c->model)->context, room = context / 4;
    size_t before = c->forgotten;
    if (c->request.max_tokens && c->request.max_tokens < room) room = c->request.max_tokens;
    int rc = make_prompt(c, tokens, err);
    while (rc == 0 && tokens->len + room > context && c->forgotten + 1 < c->turns) {
        c->forgotten++;
        rc = make_prompt(c, tokens, err);
    }
    if (rc != 0) return rc;
    if (tokens->len >= context) {
        rc = nj_fail(err, -EMSGSIZE, "The prompt has %zu tokens, more than the context of %" PRIu32 " has room for.",
                     tokens->len, context);
        nj_remedy(err, "Shorten it, or start with a larger --ctx.");
        return rc;
    }
    size_t left_out = c->forgotten - before;
    if (left_out && !c->quiet) {
        char which[48] = "exchange is";
        if (left_out > 1) snprintf(which, sizeof which, "%zu exchanges are", left_out);
        nj_progress_say(NULL, "[the context is full: the oldest %s left out from now on; /reset starts afresh]", which);
    }
    return 0;
}

/* ---- The answer ---- */

/* Writes text; on a terminal without control characters, so that no answer can steer it. */
static void write_text(FILE *out, const char *text, size_t len, bool terminal)
{
    if (!terminal) {
        fwrite(text, 1, len, out);
        return;
    }
    for (size_t i = 0; i < len;) {
        size_t n = nj_text_char(text + i, len - i);
        unsigned char c = (unsigned char)text[i];
        bool control = n == 0 || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ||
                       (n == 2 && c == 0xc2 && (unsigned char)text[i + 1] < 0xa0);
        if (control)
            fputs("\xef\xbf\xbd", out);
        else
            fwrite(text + i, 1, n, out);
        i += n ? n : 1;
    }
}

/* Steps until the session has ended, passing on text as it becomes stable. */
static int stream(nj_chat *c, nj_session *s, FILE *out, nj_error *err)
{
    size_t shown = 0;
    nj_progress bar;
    bool terminal = out && isatty(fileno(out));
    int running = 1;
    nj_progress_begin(&bar, "Reading the prompt", "tokens", !isatty(STDERR_FILENO));
    while (running > 0 && nj_session_finish(s) == NJ_RUNNING) {
        size_t len;
        running = nj_engine_run(c->engine, err);
        if (running < 0 || nj_session_prompt_done(s) >= nj_session_prompt_tokens(s))
            nj_progress_end(&bar);
        else
            nj_progress_update(&bar, nj_session_prompt_done(s), nj_session_prompt_tokens(s));
        if (running < 0) return running;
        const char *text = nj_session_text(s, &len);
        if (out && len > shown) {
            write_text(out, text + shown, len - shown, terminal);
            if (!nj_cli_out_flush()) return nj_fail(err, -EPIPE, "Standard output can't be written any more.");
        }
        shown = len;
        if (nj_cli_interrupted) nj_session_cancel(s);
    }
    nj_progress_end(&bar);
    if (nj_session_finish(s) != NJ_FINISH_ERROR) return 0;
    return nj_fail(err, -EIO, "The answer can't be finished: %s.", nj_session_error(s));
}

static int take_answer(const nj_session *s, nj_chat_answer *a, nj_error *err)
{
    size_t len, tokens;
    const char *text = nj_session_text(s, &len);
    nj_session_tokens(s, &tokens);
    nj_buf_add(&a->text, text, len);
    a->finish = nj_session_finish(s);
    a->prompt_tokens = nj_session_prompt_tokens(s);
    a->tokens = (uint32_t)tokens;
    return a->text.failed ? no_memory(err) : 0;
}

static int answer(nj_chat *c, FILE *out, nj_chat_answer *a, nj_error *err)
{
    nj_tokens prompt = { 0 };
    nj_session *s = NULL;
    nj_request request = c->request;
    int rc = fit_prompt(c, &prompt, err);
    request.prompt = prompt.id;
    request.prompt_len = prompt.len;
    request.any_recipe = true; /* a person is waiting: what was said before is not computed again */
    if (rc == 0) rc = nj_session_new(c->engine, &request, &s, err);
    if (rc == 0) rc = stream(c, s, out, err);
    if (rc == 0) rc = take_answer(s, a, err);
    if (s) nj_session_free(c->engine, s);
    free(prompt.id);
    return rc;
}

int nj_chat_say(nj_chat *c, const char *text, size_t len, FILE *out, nj_chat_answer *a, nj_error *err)
{
    size_t messages = json_array_size(c->messages), transcript = c->transcript.len, forgotten = c->forgotten;
    nj_buf_clear(&a->text);
    if (nj_array_grow(&c->turn, &c->cap, c->turns + 1, sizeof *c->turn) != 0) return no_memory(err);
    c->turn[c->turns] = c->plain ? transcript : messages;
    if (add_message(c->messages, "user", text, len) != 0) return no_memory(err);
    c->turns++;
    if (c->plain) nj_buf_add(&c->transcript, text, len);
    int rc = c->transcript.failed ? no_memory(err) : answer(c, out, a, err);
    const char *said = a->text.data ? a->text.data : "";
    if (rc == 0 && add_message(c->messages, "assistant", said, a->text.len) != 0) rc = no_memory(err);
    if (rc == 0) {
        if (c->plain) nj_buf_add(&c->transcript, said, a->text.len);
        return 0;
    }
    c->turns--;
    c->forgotten = forgotten;
    while (json_array_size(c->messages) > messages) json_array_remove(c->messages, messages);
    if (c->transcript.data) c->transcript.data[c->transcript.len = transcript] = '\0';
    return rc;
}
