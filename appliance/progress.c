#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "appliance/config.h"
#include "appliance/progress.h"

#define FIRST_DRAW_NS   200000000u /* what is done sooner needs no bar */
#define REDRAW_NS       100000000u
#define LINE_NS         5000000000u /* when stderr is a file or a pipe */
#define BAR_COLUMNS     28
#define BAR_COLUMNS_MIN 6

static nj_progress *shown; /* the bar that is on the terminal now, or NULL */

void nj_text_bytes(double bytes, char out[24])
{
    static const char *const unit[] = { "B", "kB", "MB", "GB", "TB", "PB" };
    size_t u = 0;
    while (bytes >= 999.5 && u + 1 < NJ_COUNT(unit)) bytes /= 1000, u++;
    snprintf(out, 24, u && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, unit[u]);
}

void nj_text_duration(double seconds, char out[24])
{
    if (!(seconds < 1e9)) {
        snprintf(out, 24, "very long");
        return;
    }
    unsigned long s = (unsigned long)(seconds + 0.5);
    if (s < 60)
        snprintf(out, 24, "%lu s", s);
    else if (s < 3600)
        snprintf(out, 24, "%lum %02lus", s / 60, s % 60);
    else if (s < 100 * 3600)
        snprintf(out, 24, "%luh %02lum", s / 3600, s / 60 % 60);
    else
        snprintf(out, 24, "%lu days", s / 86400);
}

/* An amount in the bar's own unit. */
static void format_amount(const nj_progress *p, double amount, char out[24])
{
    if (!p->unit)
        nj_text_bytes(amount, out);
    else
        snprintf(out, 24, amount < 9.95 && amount != (uint64_t)amount ? "%.1f" : "%.0f", amount);
}

/* "43%  1.2 of 2.8 GB  310 MB/s  5 s left", pieces joined by `gap`; what isn't known is left out. */
static void format_figures(const nj_progress *p, uint64_t now_ns, const char *gap, nj_buf *b)
{
    char done[24], total[24], rate[24], left[24];
    double seconds = (double)(now_ns - p->start_ns) / 1e9;
    double per_second = seconds > 0 && p->done > p->base ? (double)(p->done - p->base) / seconds : 0;
    const char *unit = p->unit ? p->unit : "", *space = p->unit ? " " : "";

    format_amount(p, (double)p->done, done);
    if (p->total) {
        format_amount(p, (double)p->total, total);
        nj_buf_printf(b, "%3.0f%%%s%s of %s%s%s", 100.0 * (double)p->done / (double)p->total, gap, done, total, space,
                      unit);
    } else {
        nj_buf_printf(b, "%s%s%s", done, space, unit);
    }
    if (per_second > 0) {
        format_amount(p, per_second, rate);
        nj_buf_printf(b, "%s%s/s", gap, rate);
        if (p->total > p->done) {
            nj_text_duration((double)(p->total - p->done) / per_second, left);
            nj_buf_printf(b, "%s%s left", gap, left);
        }
    }
    if (p->note[0]) nj_buf_printf(b, "%s%s", gap, p->note);
}

/* Columns that UTF-8 text takes, counting every character as one (file names and notes; near enough for a bar). */
static size_t text_columns(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void cut_columns(char *text, size_t columns)
{
    for (; *text; text++)
        if (((unsigned char)*text & 0xc0) != 0x80 && columns-- == 0) break;
    *text = '\0';
}

void nj_progress_format(const nj_progress *p, uint64_t now_ns, uint32_t columns, char *out, size_t size)
{
    nj_buf figures = { 0 };
    char bar[BAR_COLUMNS + 5] = "";
    size_t width = columns > 1 ? columns - 1 : 1;

    format_figures(p, now_ns, "  ", &figures);
    const char *text = figures.data ? figures.data : "";
    size_t used = text_columns(p->title) + 2 + text_columns(text);
    if (p->total && used + BAR_COLUMNS_MIN + 4 <= width) {
        size_t room = width - used - 4, cells = room < BAR_COLUMNS ? room : BAR_COLUMNS, fill = 0;
        fill = p->done >= p->total ? cells : (size_t)((double)p->done / (double)p->total * (double)cells);
        bar[0] = '[';
        memset(bar + 1, '.', cells);
        memset(bar + 1, '#', fill);
        memcpy(bar + 1 + cells, "]  ", 4);
    }
    snprintf(out, size, "%s  %s%s", p->title, bar, text);
    cut_columns(out, width);
    nj_buf_free(&figures);
}

static void erase(void)
{
    if (!shown) return;
    fprintf(stderr, "\r%*s\r", (int)nj_config_columns(stderr) - 1, "");
    fflush(stderr);
    shown = NULL;
}

static void draw(nj_progress *p, uint64_t now_ns)
{
    if (!p->terminal) {
        nj_buf line = { 0 };
        format_figures(p, now_ns, ", ", &line);
        const char *text = line.data ? line.data : "";
        while (*text == ' ') text++;
        fprintf(stderr, "%s: %s\n", p->title, text);
        nj_buf_free(&line);
        p->drawn = true;
        p->printed = p->done;
        return;
    }
    char line[1024];
    uint32_t columns = nj_config_columns(stderr);
    nj_progress_format(p, now_ns, columns, line, sizeof line);
    size_t taken = text_columns(line), pad = columns - 1 > taken ? columns - 1 - taken : 0;
    fprintf(stderr, "\r%s%*s", line, (int)pad, "");
    fflush(stderr);
    p->drawn = true;
    shown = p;
}

void nj_progress_begin(nj_progress *p, const char *title, const char *unit, bool quiet)
{
    *p = (nj_progress){ .title = title, .unit = unit, .quiet = quiet, .terminal = isatty(STDERR_FILENO) };
    p->start_ns = nj_now_ns();
    p->next_ns = p->start_ns + (p->terminal ? FIRST_DRAW_NS : LINE_NS);
}

void nj_progress_update(nj_progress *p, uint64_t done, uint64_t total)
{
    p->done = done;
    p->total = total;
    if (p->quiet) return;
    uint64_t now = nj_now_ns();
    if (now < p->next_ns) return;
    draw(p, now);
    p->next_ns = now + (p->terminal ? REDRAW_NS : LINE_NS);
}

void nj_progress_callback(void *p, uint64_t done, uint64_t total)
{
    nj_progress_update(p, done, total);
}

void nj_progress_note(nj_progress *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(p->note, sizeof p->note, fmt, args);
    va_end(args);
    p->note[nj_utf8_whole(p->note, strlen(p->note))] = '\0';
}

void nj_progress_say(nj_progress *p, const char *fmt, ...)
{
    va_list args;
    erase();
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    if (p && p->terminal && p->drawn && !p->quiet) draw(p, nj_now_ns());
}

void nj_progress_end(nj_progress *p)
{
    if (p->terminal)
        erase();
    else if (p->drawn && !p->quiet && p->printed != p->done)
        draw(p, nj_now_ns());
    p->drawn = false;
}
