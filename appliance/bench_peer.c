/* Peers of nightjar bench: running another program's benchmark and understanding what it prints. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "appliance/bench.h"

#define OUTPUT_BYTES_MAX (UINT64_C(16) << 20)
#define WORDS_BYTES      200  /* of standard error that are quoted */
#define GRACE_MS         2000 /* between SIGTERM and SIGKILL */
#define POLL_MS          100
#define WAIT_MS          5
#define CELLS_MAX        24

/* ---- Understanding ---- */

typedef struct figures {
    nj_peer_figure *out;
    int count;
} figures;

static void add_figure(figures *f, nj_bench_kind kind, double tokens, double ctx, double tok_s)
{
    if (f->count == NJ_PEER_FIGURES_MAX || !isfinite(tok_s) || tok_s <= 0) return;
    if (!(tokens >= 0 && tokens <= UINT32_MAX && ctx >= 0 && ctx <= UINT32_MAX)) return;
    f->out[f->count++] = (nj_peer_figure){ kind, (uint32_t)tokens, (uint32_t)ctx, tok_s };
}

/* llama-bench's object of one test, or our own document with its rows. */
static void read_object(figures *f, const json_t *o)
{
    const json_t *row, *rows = json_object_get(o, "rows");
    size_t i;
    double prompt = json_number_value(json_object_get(o, "n_prompt"));
    double generated = json_number_value(json_object_get(o, "n_gen"));
    double depth = json_number_value(json_object_get(o, "n_depth"));
    double rate = json_number_value(json_object_get(o, "avg_ts"));
    if (prompt > 0 && generated == 0) add_figure(f, NJ_BENCH_PREFILL, prompt, depth, rate);
    if (generated > 0 && prompt == 0) add_figure(f, NJ_BENCH_DECODE, generated, depth, rate);
    json_array_foreach(rows, i, row)
    {
        const char *kind = json_string_value(json_object_get(row, "kind"));
        if (!kind || json_integer_value(json_object_get(row, "parallel")) != 1) continue;
        add_figure(f, strcmp(kind, "prefill") ? NJ_BENCH_DECODE : NJ_BENCH_PREFILL,
                   json_number_value(json_object_get(row, "tokens")), json_number_value(json_object_get(row, "ctx")),
                   json_number_value(json_object_get(row, "tok_s")));
    }
}

/* A JSON document that begins at `line`; returns its length, or 0 when there is none. */
static size_t read_json(figures *f, const char *line)
{
    json_error_t where;
    const json_t *item;
    size_t i;
    const char *start = line + strspn(line, " \t");
    if (*start != '[' && *start != '{') return 0;
    json_t *document = json_loads(line, JSON_DISABLE_EOF_CHECK, &where);
    if (!document) return 0;
    if (json_is_object(document)) read_object(f, document);
    json_array_foreach(document, i, item) read_object(f, item);
    json_decref(document);
    return (size_t)where.position;
}

/* The cells of a line of a markdown table, without blanks around them: `cell` points into the line. */
typedef struct cells {
    const char *text[CELLS_MAX];
    int len[CELLS_MAX], count;
} cells;

static void split_cells(const char *line, size_t len, cells *c)
{
    c->count = 0;
    if (len == 0 || line[0] != '|') return;
    const char *end = line + len;
    for (const char *at = line + 1; at < end && c->count < CELLS_MAX;) {
        const char *bar = memchr(at, '|', (size_t)(end - at)), *last = bar ? bar : end, *next = last + 1;
        while (at < last && isblank((unsigned char)*at)) at++;
        while (last > at && isspace((unsigned char)last[-1])) last--;
        c->text[c->count] = at;
        c->len[c->count++] = (int)(last - at);
        at = next;
    }
}

static int find_cell(const cells *c, const char *name)
{
    for (int i = 0; i < c->count; i++)
        if ((size_t)c->len[i] == strlen(name) && memcmp(c->text[i], name, strlen(name)) == 0) return i;
    return -1;
}

/* Columns of the table under way; test < 0: no table. */
typedef struct table {
    int test, rate;
} table;

/* A test is "pp512", "tg64", also "pp512 @ d4096"; "pp512+tg64" mixes both and says nothing about either. */
static void read_table_line(figures *f, table *t, const char *line, size_t len)
{
    cells c;
    char test[64];
    unsigned tokens, ctx = 0;
    int used = 0;
    split_cells(line, len, &c);
    if (find_cell(&c, "test") >= 0 && find_cell(&c, "t/s") >= 0) {
        *t = (table){ find_cell(&c, "test"), find_cell(&c, "t/s") };
        return;
    }
    if (c.count == 0) t->test = -1;
    if (t->test < 0 || t->test >= c.count || t->rate >= c.count) return;
    snprintf(test, sizeof test, "%.*s", c.len[t->test], c.text[t->test]);
    bool prefill = strncmp(test, "pp", 2) == 0;
    if (!prefill && strncmp(test, "tg", 2) != 0) return;
    if (sscanf(test + 2, "%u%n @ d%u%n", &tokens, &used, &ctx, &used) < 1 || test[2 + used]) return;
    add_figure(f, prefill ? NJ_BENCH_PREFILL : NJ_BENCH_DECODE, tokens, ctx, strtod(c.text[t->rate], NULL));
}

/* "prefill 57.1 tok/s decode 4.7 tok/s", each anywhere in the text. */
static void read_words(figures *f, const char *text)
{
    static const char *const patterns[] = { "prefill[^0-9\n]*([0-9]+(\\.[0-9]+)?) *t(ok|okens)?/s",
                                            "decode[^0-9\n]*([0-9]+(\\.[0-9]+)?) *t(ok|okens)?/s" };
    for (int kind = NJ_BENCH_PREFILL; kind <= NJ_BENCH_DECODE; kind++) {
        regex_t re;
        regmatch_t match[2];
        if (regcomp(&re, patterns[kind], REG_EXTENDED | REG_ICASE) != 0) continue;
        if (regexec(&re, text, 2, match, 0) == 0)
            add_figure(f, (nj_bench_kind)kind, 0, 0, strtod(text + match[1].rm_so, NULL));
        regfree(&re);
    }
}

int nj_peer_parse(const char *text, nj_peer_figure out[NJ_PEER_FIGURES_MAX], nj_error *err)
{
    figures f = { .out = out };
    table t = { -1, -1 };
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n"), json = read_json(&f, line);
        if (!json) read_table_line(&f, &t, line, len);
        line += json > len ? json : len;
        line += *line == '\n';
    }
    if (f.count == 0) read_words(&f, text);
    if (f.count) return f.count;
    nj_fail(err, -EBADMSG, "nothing in what it printed was understood");
    return nj_remedy(
        err, "Let it print what llama-bench prints (-o json, or the table with pp512 and tg64), or a line like: "
             "prefill 57.1 tok/s decode 4.7 tok/s");
}

/* ---- Keeping ---- */

int nj_peer_keep(nj_peer *p, const nj_peer_figure *figure, uint32_t n, nj_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t r = 0;
        while (r < p->rows && !(p->row[r].figure.kind == figure[i].kind && p->row[r].figure.ctx == figure[i].ctx &&
                                p->row[r].figure.tokens == figure[i].tokens))
            r++;
        if (r == NJ_PEER_FIGURES_MAX) return nj_fail(err, -E2BIG, "more than %u figures", NJ_PEER_FIGURES_MAX);
        if (r == p->rows) p->row[p->rows++].figure = figure[i];
        if (p->row[r].samples < NJ_BENCH_REPEAT_MAX) p->row[r].tok_s[p->row[r].samples++] = figure[i].tok_s;
    }
    return 0;
}

double nj_peer_median(const nj_peer *p, nj_bench_kind kind, uint32_t ctx, uint32_t *tokens)
{
    int best = -1;
    for (uint32_t r = 0; r < p->rows; r++) {
        const nj_peer_figure *f = &p->row[r].figure;
        if (f->kind == kind && f->ctx == ctx && (best < 0 || f->tokens == *tokens)) best = (int)r;
    }
    if (best < 0) return 0;
    double tok_s[NJ_BENCH_REPEAT_MAX];
    memcpy(tok_s, p->row[best].tok_s, sizeof tok_s);
    *tokens = p->row[best].figure.tokens;
    return nj_median(tok_s, p->row[best].samples);
}

/* ---- Running ---- */

/* In the child: its own group, so that all that it starts can be ended; no terminal input; our pinning undone. */
static void exec_command(const char *command, const cpu_set_t *cpus, int out, int talk)
{
    int null = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    sched_setaffinity(0, sizeof *cpus, cpus);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(talk, 2) < 0) _exit(126);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

/* Reads what is there; false at the end. Text beyond bytes_max is read and dropped. */
static bool drain(int fd, nj_buf *to, size_t bytes_max)
{
    char chunk[4096];
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n < 0) return errno == EINTR || errno == EAGAIN;
    if (to->len < bytes_max) nj_buf_add(to, chunk, (size_t)n);
    return n > 0;
}

/* Waits for the command's end, also of one that closed its output long before; false when *cancel became true. */
static bool wait_for(pid_t pid, int *status, const volatile bool *cancel)
{
    while (!*cancel) {
        if (waitpid(pid, status, WNOHANG) == pid) return true;
        poll(NULL, 0, WAIT_MS);
    }
    return false;
}

/* Ends the whole group: kindly, then not. */
static void end_group(pid_t pid, int *status)
{
    kill(-pid, SIGTERM);
    for (int ms = 0; ms < GRACE_MS; ms += POLL_MS) {
        if (waitpid(pid, status, WNOHANG) == pid) break;
        poll(NULL, 0, POLL_MS);
    }
    kill(-pid, SIGKILL);
    while (waitpid(pid, status, 0) < 0 && errno == EINTR) {
    }
}

/* The last line that it wrote to standard error. */
static const char *last_words(nj_buf *talk)
{
    while (talk->len && isspace((unsigned char)talk->data[talk->len - 1])) talk->data[--talk->len] = '\0';
    const char *line = talk->len ? strrchr(talk->data, '\n') : NULL;
    return line ? line + 1 : talk->len ? talk->data : "";
}

static int check_status(int status, nj_buf *talk, nj_error *err)
{
    const char *words = last_words(talk);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
    if (WIFSIGNALED(status))
        return nj_fail(err, -ECHILD, "it was ended by signal %d (%s)%s%.*s", WTERMSIG(status),
                       strsignal(WTERMSIG(status)), *words ? ": " : "", WORDS_BYTES, words);
    return nj_fail(err, -ECHILD, "it ended with exit status %d%s%.*s", WEXITSTATUS(status), *words ? ": " : "",
                   WORDS_BYTES, words);
}

int nj_peer_run(const char *command, const cpu_set_t *cpus, const volatile bool *cancel, nj_buf *out, nj_error *err)
{
    int data[2], talk[2], status = 0;
    nj_buf words = { 0 };
    if (pipe2(data, O_CLOEXEC) != 0) return nj_fail(err, -errno, "there is no pipe: %s", strerror(errno));
    if (pipe2(talk, O_CLOEXEC) != 0) {
        close(data[0]), close(data[1]);
        return nj_fail(err, -errno, "there is no pipe: %s", strerror(errno));
    }
    pid_t pid = fork();
    if (pid == 0) exec_command(command, cpus, data[1], talk[1]);
    int rc = pid < 0 ? nj_fail(err, -errno, "it can't be started: %s", strerror(errno)) : 0;
    if (pid > 0) setpgid(pid, pid); /* here too: whoever comes first */
    close(data[1]);
    close(talk[1]);
    struct pollfd fds[2] = { { data[0], POLLIN, 0 }, { talk[0], POLLIN, 0 } };
    while (rc == 0 && (fds[0].fd >= 0 || fds[1].fd >= 0) && !*cancel) {
        if (poll(fds, 2, POLL_MS) <= 0) continue;
        if (fds[0].revents && !drain(data[0], out, OUTPUT_BYTES_MAX)) fds[0].fd = -1;
        if (words.len > 1 << 16) nj_buf_clear(&words); /* only the end matters */
        if (fds[1].revents && !drain(talk[0], &words, OUTPUT_BYTES_MAX)) fds[1].fd = -1;
    }
    if (rc == 0 && wait_for(pid, &status, cancel)) {
        rc = check_status(status, &words, err);
    } else if (rc == 0) {
        end_group(pid, &status);
        rc = nj_fail(err, -ECANCELED, "it was stopped");
    }
    close(data[0]);
    close(talk[0]);
    nj_buf_free(&words);
    if (rc == 0 && out->failed) rc = nj_fail(err, out->failed, "there is no memory for what it printed");
    return rc;
}
