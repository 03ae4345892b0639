/* Works a batch off: keeps some answers in flight, and writes each request's line when its last answer is there. */
#include "appliance/batch.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PENDING_MAX = 1 << 20 }; /* bytes of lines that may wait for one write */

/* One request in flight. Its answers (prompts x n) start one after the other as there is room. */
typedef struct job {
    struct job *next;
    nj_batch_line line;
    nj_openai_request request;
    nj_tokens *prompt;        /* [prompts] */
    nj_session **session;     /* [count], NULL before its start and after its end */
    nj_openai_choice *choice; /* [count] */
    size_t prompts, count, started, ended;
    uint64_t seed;
    char id[33];
} job;

typedef struct run {
    nj_engine *e;
    const nj_model *m;
    const nj_batch_options *opt;
    const nj_batch_plan *plan;
    nj_lines *in;
    nj_results *out;
    nj_progress *bar;
    nj_batch_counts *counts, waiting; /* waiting: of lines not yet on disk */
    job *jobs, **jobs_end;
    uint32_t running;
    bool at_end;
    uint64_t start_ns;
} run;

static void job_free(run *r, job *j)
{
    if (!j) return;
    for (size_t i = 0; i < j->count; i++) {
        if (j->session && j->session[i]) nj_session_free(r->e, j->session[i]), r->running--;
        if (j->choice) nj_openai_choice_free(&j->choice[i]);
    }
    for (size_t i = 0; i < j->prompts; i++) free(j->prompt[i].id);
    free(j->prompt);
    free(j->session);
    free(j->choice);
    nj_openai_request_free(&j->request);
    nj_batch_line_free(&j->line);
    free(j);
}

/* ---- Result lines ---- */

/* Ids follow from the custom_id (or the line number), so that a repeated run gives the same. */
static void id_of(const char *custom_id, uint64_t line, char out[33])
{
    nj_fingerprint f = nj_result_key(custom_id, line);
    snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, f.a, f.b);
}

/* The line of a request that got no answer. `line` is named where there is no custom_id. */
static int add_error(run *r, const char *custom_id, uint64_t line, const nj_openai_error *e)
{
    char id[33];
    id_of(custom_id, line, id);
    char text[sizeof e->message];
    snprintf(text, sizeof text, "%s", e->message);
    text[nj_utf8_whole(text, strlen(text))] = '\0';
    json_t *error = json_pack("{s:s?,s:s}", "code", e->code, "message", text);
    if (e->param[0]) json_object_set_new(error, "param", json_string(e->param));
    if (!custom_id) json_object_set_new(error, "line", json_integer((json_int_t)line));
    json_t *root =
        json_pack("{s:s+,s:s?,s:n,s:o}", "id", "batch_req_", id, "custom_id", custom_id, "response", "error", error);
    int rc = nj_results_add(r->out, root);
    json_decref(root);
    r->waiting.errors++;
    return rc;
}

static int add_answer(run *r, const job *j)
{
    const nj_openai_reply reply = { j->id, r->opt->model_name, r->opt->fingerprint, (int64_t)time(NULL) };
    json_t *body = nj_openai_reply_body(&j->request, &reply, j->choice, j->count);
    json_t *root =
        json_pack("{s:s+,s:s,s:{s:i,s:s+,s:o},s:n}", "id", "batch_req_", j->id, "custom_id", j->line.custom_id,
                  "response", "status_code", 200, "request_id", "req_", j->id, "body", body, "error");
    int rc = nj_results_add(r->out, root);
    json_decref(root);
    r->waiting.answered++;
    for (size_t i = 0; i < j->count; i++) {
        if (i % j->request.n == 0) r->waiting.prompt_tokens += j->choice[i].prompt_tokens;
        r->waiting.completion_tokens += j->choice[i].completion_tokens;
        r->waiting.loops += j->choice[i].finish == NJ_FINISH_LOOP;
    }
    return rc;
}

/* One write and one sync for all lines of a step; only then do they count. */
static int commit(run *r, nj_error *err)
{
    int rc = nj_results_commit(r->out, err);
    if (rc) return rc;
    r->counts->answered += r->waiting.answered;
    r->counts->errors += r->waiting.errors;
    r->counts->prompt_tokens += r->waiting.prompt_tokens;
    r->counts->completion_tokens += r->waiting.completion_tokens;
    r->counts->loops += r->waiting.loops;
    r->waiting = (nj_batch_counts){ 0 };
    return 0;
}

/* ---- From a line to tokens ---- */

static int fail_from(nj_openai_error *e, const char *code, const char *param, const nj_error *err)
{
    size_t len = strlen(err->text);
    const char *stop = len && strchr(".!?", err->text[len - 1]) ? "" : ".";
    return nj_openai_fail(e, code, param, "%s%s%s%s", err->text, stop, err->remedy[0] ? " " : "", err->remedy);
}

static int set_token_text(json_t *args, const char *name, const nj_tokenizer *t, int32_t id)
{
    nj_buf text = { 0 };
    if (id >= 0) nj_token_text(t, id, true, &text);
    json_t *value = json_stringn(text.data ? text.data : "", text.len);
    int rc = text.failed ? text.failed : json_object_set_new(args, name, value) ? -ENOMEM : 0;
    nj_buf_free(&text);
    return rc;
}

/* The conversation in the model's own format. The template writes the beginning-of-text token where its model wants
 * one, so the tokenizer must not add a second. */
static int chat_tokens(const run *r, nj_openai_request *q, nj_tokens *out, nj_openai_error *e)
{
    const nj_tokenizer *t = nj_model_tokenizer(r->m);
    const nj_template *template = nj_model_template(r->m);
    nj_error err = { 0 };
    nj_buf text = { 0 };
    char *args = NULL;
    int rc = -ENOMEM;
    if (!template) {
        const char *why = nj_model_template_error(r->m);
        return nj_openai_fail(e, "no_chat_template", "messages",
                              "The model has no chat template that can be used%s%s. Send a prompt to /v1/completions.",
                              why ? ": " : "", why ? why : "");
    }
    if (!set_token_text(q->template_args, "bos_token", t, nj_tokenizer_bos(t)) &&
        !set_token_text(q->template_args, "eos_token", t, nj_tokenizer_eos(t)) &&
        (args = json_dumps(q->template_args, JSON_COMPACT)))
        rc = nj_template_render(template, args, strlen(args), r->opt->now, &text, &err);
    if (!rc)
        rc = nj_tokenize(t, text.data ? text.data : "", text.len, NJ_TOKENIZE_SPECIAL, out, &err);
    else if (args)
        nj_error_prefix(&err, "The chat template refused the messages");
    free(args);
    nj_buf_free(&text);
    if (rc && !err.code) nj_fail(&err, rc, "There is no memory for this request.");
    return rc ? fail_from(e, "template_error", "messages", &err) : 0;
}

static int completion_tokens(const run *r, const nj_openai_prompt *p, nj_tokens *out, nj_openai_error *e)
{
    const nj_tokenizer *t = nj_model_tokenizer(r->m);
    nj_error err = { 0 };
    if (p->text) {
        int rc = nj_tokenize(t, p->text, p->len, NJ_TOKENIZE_SPECIAL | NJ_TOKENIZE_BOS, out, &err);
        return rc ? fail_from(e, "invalid_prompt", "prompt", &err) : 0;
    }
    if (nj_array_grow(&out->id, &out->cap, p->id_count, sizeof *out->id))
        return nj_openai_fail(e, "out_of_memory", "prompt", "There is no memory for this request.");
    memcpy(out->id, p->ids, p->id_count * sizeof *p->ids);
    out->len = p->id_count;
    return 0;
}

/* A default seed that belongs to the request, wherever and whenever it is computed. */
static uint64_t seed_of(const run *r, const job *j)
{
    if (j->request.seed_set) return j->request.sampling.seed;
    struct {
        nj_fingerprint id;
        uint64_t seed;
    } mixed = { nj_result_key(j->line.custom_id, 0), r->opt->seed };
    return nj_fingerprint_of(&mixed, sizeof mixed).a;
}

static int job_prepare(run *r, job *j, nj_openai_error *e)
{
    nj_openai_kind kind;
    nj_sampling defaults;
    json_t *root = j->line.root, *body = json_object_get(root, "body");
    const char *method = json_string_value(json_object_get(root, "method"));
    const char *url = json_string_value(json_object_get(root, "url"));
    int rc;
    if (!method || strcmp(method, "POST")) return nj_openai_fail(e, "invalid_method", "method", "method must be POST.");
    if (!url) return nj_openai_fail(e, "invalid_url", "url", "url is missing.");
    if (!nj_openai_kind_find(url, &kind))
        return nj_openai_fail(e, "invalid_url", "url",
                              "url is '%.200s', but must be /v1/chat/completions or /v1/completions.", url);
    if (!body) return nj_openai_fail(e, "missing_body", "body", "body is missing.");
    nj_sampling_defaults(r->m, &defaults);
    if ((rc = nj_openai_request_parse(&j->request, kind, body, &defaults, e))) return rc;
    j->seed = seed_of(r, j);
    if (kind == NJ_OPENAI_CHAT && !j->request.max_tokens) j->request.max_tokens = r->opt->max_tokens;

    size_t prompts = kind == NJ_OPENAI_CHAT ? 1 : j->request.prompt_count, count = prompts * j->request.n;
    if (!(j->prompt = nj_array_new(prompts, sizeof *j->prompt)))
        return nj_openai_fail(e, "out_of_memory", NULL, "There is no memory for this request.");
    j->prompts = prompts;
    j->session = nj_array_new(count, sizeof(nj_session *));
    j->choice = nj_array_new(count, sizeof *j->choice);
    if (!j->session || !j->choice)
        return nj_openai_fail(e, "out_of_memory", NULL, "There is no memory for this request.");
    j->count = count;
    for (size_t i = 0; i < prompts && !rc; i++)
        rc = kind == NJ_OPENAI_CHAT ? chat_tokens(r, &j->request, &j->prompt[i], e)
                                    : completion_tokens(r, &j->request.prompt[i], &j->prompt[i], e);
    return rc;
}

/* ---- Admission ---- */

/* Starts the next answer of a job. -EINVAL with *e filled when the request is at fault, else an error of the run. */
static int start_answer(run *r, job *j, nj_openai_error *e, nj_error *err)
{
    const nj_openai_request *q = &j->request;
    const nj_tokens *prompt = &j->prompt[j->started / q->n];
    nj_request request = {
        .prompt = prompt->id,
        .prompt_len = prompt->len,
        .sampling = q->sampling,
        .max_tokens = q->max_tokens,
        .stop = q->stop,
        .stop_count = q->stop_count,
        .ignore_eos = q->ignore_eos,
        .detect_loops = r->opt->detect_loops,
        .logprobs = q->logprobs,
        .top_logprobs = q->top_logprobs,
    };
    request.sampling.seed = j->seed + j->started % q->n;
    int rc = nj_session_new(r->e, &request, &j->session[j->started], err);
    if (rc == -EINVAL) return fail_from(e, "invalid_request", NULL, err);
    if (rc) return rc;
    j->started++;
    r->running++;
    return 0;
}

static void job_remove(run *r, job *j)
{
    job **at = &r->jobs;
    while (*at != j) at = &(*at)->next;
    *at = j->next;
    if (r->jobs_end == &j->next) r->jobs_end = at;
    job_free(r, j);
}

/* Ends a request without an answer. */
static int job_fail(run *r, job *j, const nj_openai_error *e, nj_error *err)
{
    int rc = add_error(r, j->line.custom_id, 0, e);
    job_remove(r, j);
    return rc ? nj_fail(err, rc, "There is no memory for a result line.") : 0;
}

/* Takes the next line that is to do and makes a job of it, or gives it its error line. */
static int next_line(run *r, nj_error *err)
{
    int rc = nj_lines_next(r->in, err);
    if (rc < 0) return rc;
    if (rc == 0 || r->in->number > r->plan->lines) {
        r->at_end = true;
        return 0;
    }
    int kind = r->plan->kind[r->in->number - 1];
    nj_openai_error e;
    if (kind == NJ_LINE_BLANK || kind == NJ_LINE_DONE) return 0;
    job *j = nj_new(job);
    if (!j) return nj_fail(err, -ENOMEM, "There is no memory for a request.");
    nj_batch_line_read(&j->line, r->in);
    if (kind == NJ_LINE_DUPLICATE || !j->line.custom_id) {
        if (kind == NJ_LINE_DUPLICATE)
            nj_openai_fail(&e, "duplicate_custom_id", "custom_id",
                           "Line %" PRIu64 ": an earlier line has the custom_id '%.300s' too; that one is answered.",
                           r->in->number, j->line.custom_id ? j->line.custom_id : "");
        else
            nj_openai_fail(&e, j->line.code, NULL, "%s", j->line.message);
        rc = add_error(r, NULL, r->in->number, &e);
        job_free(r, j);
        return rc ? nj_fail(err, rc, "There is no memory for a result line.") : 0;
    }
    *r->jobs_end = j;
    r->jobs_end = &j->next;
    id_of(j->line.custom_id, 0, j->id);
    return job_prepare(r, j, &e) ? job_fail(r, j, &e, err) : 0;
}

/* Fills the free places: first from requests that have answers left to start, then from the input. */
static int admit(run *r, nj_error *err)
{
    int rc = 0;
    for (job *j = r->jobs; !rc && r->running < r->opt->parallel && !*r->opt->stop;) {
        if (!j) {
            if (r->at_end || r->out->pending.len > PENDING_MAX) break;
            job **added = r->jobs_end;
            rc = next_line(r, err);
            j = r->jobs_end == added ? NULL : *added; /* job_fail takes it away again, and jobs_end goes back */
            continue;
        }
        if (j->started == j->count) {
            j = j->next;
            continue;
        }
        nj_openai_error e;
        if ((rc = start_answer(r, j, &e, err)) == -EINVAL) {
            job *next = j->next;
            rc = job_fail(r, j, &e, err);
            j = next;
        }
    }
    return rc;
}

/* ---- Collection ---- */

/* Takes what has ended of one job. 1 when the job has gone, 0 when it goes on. */
static int collect_job(run *r, job *j, nj_error *err)
{
    nj_openai_error e;
    for (size_t i = 0; i < j->started; i++) {
        nj_session *s = j->session[i];
        if (!s || nj_session_finish(s) == NJ_RUNNING) continue;
        if (nj_session_finish(s) == NJ_FINISH_ERROR) {
            nj_openai_fail(&e, "generation_failed", NULL, "%s", nj_session_error(s));
            int rc = job_fail(r, j, &e, err);
            return rc ? rc : 1;
        }
        nj_buf echo = { 0 };
        const nj_tokens *prompt = &j->prompt[i / j->request.n];
        if (j->request.echo) nj_detokenize(nj_model_tokenizer(r->m), prompt->id, prompt->len, false, &echo);
        int rc = echo.failed ? echo.failed
                             : nj_openai_choice_take(&j->choice[i], &j->request, s, nj_model_tokenizer(r->m), echo.data,
                                                     echo.len);
        nj_buf_free(&echo);
        nj_session_free(r->e, s);
        j->session[i] = NULL;
        j->ended++;
        r->running--;
        if (rc) return nj_fail(err, rc, "There is no memory for an answer.");
    }
    if (j->ended < j->count) return 0;
    int rc = add_answer(r, j);
    job_remove(r, j);
    return rc ? nj_fail(err, rc, "There is no memory for a result line.") : 1;
}

static int collect(run *r, nj_error *err)
{
    int rc = 0;
    for (job *j = r->jobs, *next; j && rc >= 0; j = next) {
        next = j->next;
        rc = collect_job(r, j, err);
    }
    return rc < 0 ? rc : 0;
}

static void show(run *r)
{
    uint64_t tokens = r->counts->completion_tokens, done = r->plan->done + r->counts->answered + r->counts->errors;
    for (const job *j = r->jobs; j; j = j->next) {
        for (size_t i = 0; i < j->started; i++) {
            size_t n = j->choice[i].completion_tokens;
            if (j->session[i]) nj_session_tokens(j->session[i], &n);
            tokens += n;
        }
    }
    double seconds = (double)(nj_now_ns() - r->start_ns) / 1e9;
    if (seconds > 0.1) nj_progress_note(r->bar, "%.1f tok/s", (double)tokens / seconds);
    nj_progress_update(r->bar, done, r->plan->total);
}

int nj_batch_run(nj_engine *e, const nj_model *m, const nj_batch_options *opt, const nj_batch_plan *plan, nj_lines *in,
                 nj_results *out, nj_progress *bar, nj_batch_counts *counts, nj_error *err)
{
    run r = { .e = e, .m = m, .opt = opt, .plan = plan, .in = in, .out = out, .bar = bar, .counts = counts };
    int rc = 0;
    r.jobs_end = &r.jobs;
    r.start_ns = nj_now_ns();
    while (!rc && !*opt->stop && !(r.at_end && !r.jobs)) {
        if ((rc = admit(&r, err))) break;
        if (r.running && (rc = nj_engine_run(e, err)) < 0) break;
        if ((rc = collect(&r, err)) || (rc = commit(&r, err))) break;
        show(&r);
    }
    if (!rc && r.jobs) rc = nj_fail(err, -ECANCELED, "Stopped.");
    if (!rc && !r.at_end) rc = nj_fail(err, -ECANCELED, "Stopped.");
    while (r.jobs) job_remove(&r, r.jobs);
    return rc;
}
