/* Requests and the scheduler: which rows make the next step, and what happens with their logits. */
#include "engine/answer.h"
#include "engine/engine.h"
#include "engine/loop.h"
#include "engine/sampler.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nj_session {
    nj_session *prev, *next;
    nj_sequence *sequence;
    nj_sampler *sampler;
    nj_answer answer;
    nj_loop loop;
    int32_t *token; /* prompt, then answer */
    size_t token_cap;
    uint32_t prompt_len, token_count, max_tokens;
    bool ignore_eos, detect_loops, logprobs, any_recipe;
    uint32_t top_count;
    nj_token_out *out; /* one per token of the answer */
    size_t out_count, out_cap;
    nj_top *top; /* [out_count][top_count] */
    size_t top_cap;
    nj_buf piece; /* bytes of one token, kept to spare an allocation per token */
    nj_finish finish;
    bool prompt_ready;   /* all of the prompt has been computed once */
    uint32_t retried_at; /* tokens it had when it was last computed from scratch for lack of pages */
    bool parked;         /* lost its pages to older requests; waits until one of them ends */
    uint32_t rows;       /* in the step being formed */
    char error[256];
};

const char *nj_finish_name(nj_finish f)
{
    static const char *const names[] = { "running", "stop", "length", "repetition", "cancelled", "error" };
    return names[f];
}

static void link_session(nj_engine *e, nj_session *s)
{
    s->prev = e->sessions_last;
    *(s->prev ? &s->prev->next : &e->sessions) = s;
    e->sessions_last = s;
}

static void unlink_session(nj_engine *e, nj_session *s)
{
    *(s->prev ? &s->prev->next : &e->sessions) = s->next;
    *(s->next ? &s->next->prev : &e->sessions_last) = s->prev;
}

static int check_request(const nj_engine *e, const nj_request *r, nj_error *err)
{
    if (r->prompt_len == 0) return nj_fail(err, -EINVAL, "the prompt is empty");
    if (r->prompt_len >= e->context) {
        nj_fail(err, -EINVAL, "the prompt has %zu tokens, the context is %u", r->prompt_len, e->context);
        return nj_remedy(err, "Shorten the prompt, or raise --ctx as far as the model was trained for.");
    }
    if (r->top_logprobs > 20) return nj_fail(err, -EINVAL, "top_logprobs is %u, the most is 20", r->top_logprobs);
    for (size_t i = 0; i < r->prompt_len; i++)
        if (r->prompt[i] < 0 || (uint32_t)r->prompt[i] >= e->m->h.vocab)
            return nj_fail(err, -EINVAL, "prompt token %d is outside the vocabulary of %u", r->prompt[i],
                           e->m->h.vocab);
    return 0;
}

int nj_session_new(nj_engine *e, const nj_request *r, nj_session **out, nj_error *err)
{
    int rc = check_request(e, r, err);
    if (rc) return rc;
    nj_session *s = nj_new(nj_session);
    if (!s) return nj_fail(err, -ENOMEM, "no memory");
    link_session(e, s);
    s->prompt_len = s->token_count = (uint32_t)r->prompt_len;
    s->max_tokens = r->max_tokens;
    s->ignore_eos = r->ignore_eos;
    s->detect_loops = r->detect_loops;
    s->logprobs = r->logprobs;
    s->any_recipe = r->any_recipe;
    s->top_count = r->logprobs ? r->top_logprobs : 0;
    rc = nj_sequence_new(e, &s->sequence, err);
    if (!rc) rc = nj_sampler_new(&s->sampler, &r->sampling, (int32_t)e->m->h.vocab, err);
    if (!rc) rc = nj_answer_init(&s->answer, r->stop, r->stop_count, err);
    if (!rc && nj_array_grow(&s->token, &s->token_cap, r->prompt_len, sizeof *s->token))
        rc = nj_fail(err, -ENOMEM, "no memory for a prompt of %zu tokens", r->prompt_len);
    if (rc) {
        nj_session_free(e, s);
        return rc;
    }
    memcpy(s->token, r->prompt, r->prompt_len * sizeof *r->prompt);
    for (size_t i = 0; i < r->prompt_len; i++) nj_sampler_accept(s->sampler, r->prompt[i]);
    *out = s;
    return 0;
}

void nj_session_free(nj_engine *e, nj_session *s)
{
    if (!s) return;
    unlink_session(e, s);
    nj_sequence_free(e, s->sequence);
    nj_sampler_free(s->sampler);
    nj_answer_free(&s->answer);
    nj_buf_free(&s->piece);
    free(s->top);
    free(s->out);
    free(s->token);
    free(s);
}

/* Parked sessions go on, oldest first, as far as the cache will hold them beside those that run. */
static void unpark(nj_engine *e)
{
    uint64_t bytes = 0;
    for (const nj_session *s = e->sessions; s; s = s->next)
        if (s->finish == NJ_RUNNING && !s->parked) bytes += nj_kv_bytes_for(&e->kv, s->token_count + NJ_KV_PAGE);
    for (nj_session *s = e->sessions; s; s = s->next) {
        if (s->finish != NJ_RUNNING || !s->parked) continue;
        bytes += nj_kv_bytes_for(&e->kv, s->token_count + NJ_KV_PAGE);
        if (bytes > e->kv.bytes_max) return;
        s->parked = false;
    }
}

/* Ends a session: its pages go back at once (indexed ones stay for others), which may let parked sessions go on.
 * Returns 0, or -ENOMEM when the end of the text could not be kept. */
static int finish(nj_engine *e, nj_session *s, nj_finish how)
{
    s->finish = how;
    int rc = nj_answer_end(&s->answer);
    nj_kv_release(&e->kv, s->sequence);
    unpark(e);
    return rc;
}

void nj_session_cancel(nj_session *s)
{
    if (s->finish == NJ_RUNNING) s->finish = NJ_FINISH_CANCELLED; /* the next nj_engine_run takes its pages back */
}

/* ---- Forming a step ---- */

/* Rows of the prompt that the wide recipe computes. */
static uint32_t wide_rows(const nj_engine *e, const nj_session *s)
{
    return e->step.has_wide ? s->prompt_len : 0;
}

/* Is a session of this step about to compute the very page that `s` needs next? Then waiting a step saves the work. */
static bool page_is_coming(const nj_engine *e, const nj_session *s)
{
    const nj_sequence *q = s->sequence;
    uint32_t from = q->indexed * NJ_KV_PAGE;
    uint64_t wide = nj_kv_wide_bits(q->indexed, wide_rows(e, s));
    if (q->length != from || from + NJ_KV_PAGE >= s->token_count) return false;
    for (const nj_session *o = e->sessions; o != s; o = o->next)
        if (o->rows && o->sequence->prefix == q->prefix && o->token_count >= from + NJ_KV_PAGE &&
            (s->any_recipe || nj_kv_wide_bits(q->indexed, wide_rows(e, o)) == wide) &&
            memcmp(o->token + from, s->token + from, NJ_KV_PAGE * sizeof *s->token) == 0)
            return true;
    return false;
}

/* Adds up to `limit` of the session's uncomputed tokens to the step. A request that can't grow for lack of pages adds
 * nothing; it stays in the queue. */
static int add_rows(nj_engine *e, nj_session *s, uint32_t *n, uint32_t limit)
{
    nj_sequence *q = s->sequence;
    uint32_t count = s->token_count - q->length;
    if (count > limit) count = limit;
    int rc = nj_kv_reserve(&e->kv, q, q->length + count);
    if (rc) return rc == -ENOSPC ? 0 : rc;
    for (uint32_t i = 0; i < count; i++) {
        bool last = q->length + i + 1 == s->token_count;
        e->row_session[*n] = last ? s : NULL;
        e->row[(*n)++] = (nj_row){ q, s->token[q->length + i], last, q->length + i < s->prompt_len };
    }
    s->rows = count;
    return 0;
}

/* Sessions that need one row each (decoding) come first, then prompts in order of arrival with what room is left. */
static int form_step(nj_engine *e, uint32_t *n)
{
    int rc = 0;
    *n = 0;
    for (nj_session *s = e->sessions; s; s = s->next)
        if (s->finish == NJ_FINISH_CANCELLED && s->sequence->pages && (rc = finish(e, s, s->finish)) != 0) return rc;
    for (nj_session *s = e->sessions; s; s = s->next) {
        s->rows = 0;
        if (s->finish != NJ_RUNNING || s->parked || s->token_count <= s->prompt_len || *n == e->step.rows_max) continue;
        if (s->token_count - s->sequence->length == 1 && (rc = add_rows(e, s, n, 1)) != 0) return rc;
    }
    for (nj_session *s = e->sessions; s && *n < e->step.rows_max; s = s->next) {
        if (s->finish != NJ_RUNNING || s->parked || s->rows || s->sequence->length == s->token_count) continue;
        nj_kv_want want = { s->token, s->token_count, wide_rows(e, s), s->any_recipe };
        int gained = nj_kv_adopt(&e->kv, s->sequence, &want);
        if (gained < 0) return gained;
        e->stats.prefix_rows_saved += (uint64_t)gained;
        if (!page_is_coming(e, s) && (rc = add_rows(e, s, n, e->step.rows_max - *n)) != 0) return rc;
    }
    return 0;
}

/* Nobody could grow: the youngest request gives its pages up and waits, to be computed again later (the same bits come
 * out). When the oldest alone is left and can't grow even from scratch, the cache can never hold it. False: nothing is
 * left to run. */
static bool make_room(nj_engine *e)
{
    nj_session *oldest = NULL, *youngest = NULL;
    for (nj_session *s = e->sessions; s; s = s->next) {
        if (s->finish != NJ_RUNNING) continue;
        if (!oldest) oldest = s;
        if (!s->parked) youngest = s;
    }
    if (!oldest) return false;
    if (!youngest) {
        oldest->parked = false; /* those that it made room for were cancelled or freed */
    } else if (youngest != oldest || youngest->token_count > youngest->retried_at) {
        /* Once per new token also for the last one: it may hold pages beside shared ones that nobody else uses. */
        nj_kv_release(&e->kv, youngest->sequence);
        youngest->parked = youngest != oldest;
        youngest->retried_at = youngest->token_count;
        e->stats.preemptions++;
    } else {
        snprintf(oldest->error, sizeof oldest->error,
                 "the KV cache of %.1f MB can't hold %u positions, which need %.1f MB", (double)e->kv.bytes_max / 1e6,
                 oldest->token_count, (double)nj_kv_bytes_for(&e->kv, oldest->token_count) / 1e6);
        if (finish(e, oldest, NJ_FINISH_ERROR)) snprintf(oldest->error, sizeof oldest->error, "no memory");
    }
    return true;
}

/* ---- After a step ---- */

/* Room for one more token of the answer. The alternatives lie in one array; when it moves, the tokens point anew. */
static int reserve_token(nj_session *s)
{
    const nj_top *before = s->top;
    if (nj_array_grow(&s->token, &s->token_cap, s->token_count + 1, sizeof *s->token) ||
        nj_array_grow(&s->out, &s->out_cap, s->out_count + 1, sizeof *s->out) ||
        nj_array_grow(&s->top, &s->top_cap, (s->out_count + 1) * s->top_count, sizeof *s->top))
        return -ENOMEM;
    for (size_t i = 0; s->top != before && i < s->out_count; i++) s->out[i].top = s->top + i * s->top_count;
    return 0;
}

static int keep_token(nj_engine *e, nj_session *s, int32_t token, const float *logits)
{
    int rc = reserve_token(s);
    if (rc) return rc;
    nj_token_out out = { .token = token };
    if (s->logprobs) {
        nj_top *top = s->top_count ? s->top + s->out_count * s->top_count : NULL;
        nj_logprobs(logits, (int32_t)e->m->h.vocab, token, &out.logprob, top, s->top_count);
        out.top = top;
    }
    s->token[s->token_count++] = token;
    nj_sampler_accept(s->sampler, token);
    nj_buf_clear(&s->piece);
    nj_token_text(e->m->tokenizer, token, false, &s->piece);
    rc =
        s->piece.failed ? s->piece.failed : nj_answer_add(&s->answer, s->piece.data ? s->piece.data : "", s->piece.len);
    out.text_end = (uint32_t)s->answer.raw_bytes;
    s->out[s->out_count++] = out;
    return rc;
}

/* Samples the session's next token and decides whether it goes on. */
static int take_logits(nj_engine *e, nj_session *s, const float *logits)
{
    int32_t token = nj_sampler_pick(s->sampler, logits);
    s->prompt_ready = true;
    if (!s->ignore_eos && nj_token_is_end(e->m->tokenizer, token)) return finish(e, s, NJ_FINISH_STOP);
    int rc = keep_token(e, s, token, logits);
    if (rc) return rc;
    if (s->answer.stopped) return finish(e, s, NJ_FINISH_STOP);
    if (s->detect_loops && nj_loop_add(&s->loop, token)) return finish(e, s, NJ_FINISH_LOOP);
    if (s->out_count == s->max_tokens || s->token_count >= e->context) return finish(e, s, NJ_FINISH_LENGTH);
    return 0;
}

static void count_step(nj_engine *e, uint32_t n, uint64_t ns)
{
    bool prompt = false;
    for (uint32_t i = 0; i < n; i++) prompt |= e->row_session[i] == NULL;
    for (uint32_t i = 0; i < n && !prompt; i++)
        prompt = e->row_session[i]->token_count <= e->row_session[i]->prompt_len;
    *(prompt ? &e->stats.prompt_rows : &e->stats.decode_rows) += n;
    *(prompt ? &e->stats.prompt_ns : &e->stats.decode_ns) += ns;
    if (!prompt) e->stats.decode_bytes += e->m->bytes_dense + e->step.routing.bytes;
}

static int count_running(const nj_engine *e)
{
    int running = 0;
    for (const nj_session *s = e->sessions; s; s = s->next) running += s->finish == NJ_RUNNING;
    return running;
}

int nj_engine_run(nj_engine *e, nj_error *err)
{
    uint32_t n;
    const float *logits = NULL;
    int rc;
    do {
        if ((rc = form_step(e, &n)) != 0) return nj_fail(err, rc, "no memory to form a step");
    } while (n == 0 && make_room(e));
    if (n == 0) return count_running(e);
    uint64_t start = nj_now_ns();
    if ((rc = nj_engine_step(e, e->row, n, &logits, err)) != 0) return rc;
    count_step(e, n, nj_now_ns() - start);
    for (uint32_t i = 0; i < n; i++) {
        if (!e->row_session[i]) continue;
        if ((rc = take_logits(e, e->row_session[i], logits)) != 0) return nj_fail(err, rc, "no memory for an answer");
        logits += e->m->h.vocab;
    }
    return count_running(e);
}

nj_finish nj_session_finish(const nj_session *s)
{
    return s->finish;
}

const char *nj_session_error(const nj_session *s)
{
    return s->error;
}

const char *nj_session_text(const nj_session *s, size_t *len)
{
    if (len) *len = s->answer.text.len;
    return s->answer.text.data;
}

const nj_token_out *nj_session_tokens(const nj_session *s, size_t *n)
{
    *n = s->out_count;
    return s->out;
}

uint32_t nj_session_prompt_tokens(const nj_session *s)
{
    return s->prompt_len;
}

uint32_t nj_session_prompt_done(const nj_session *s)
{
    return s->prompt_ready ? s->prompt_len : s->sequence->length;
}
