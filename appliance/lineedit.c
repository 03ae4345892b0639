/* Line editing by libedit, read through our own character function so that Ctrl-C is noticed at once. */
#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/cli.h"
#include "appliance/lineedit.h"
#include "appliance/text.h"

#define HISTORY_LINES 500

struct nj_lineedit {
    EditLine *edit;
    History *history;
    bool continued; /* at the second and later lines of an entry */
};

static char *prompt(EditLine *edit)
{
    static char first[] = "> ", next[] = "| ";
    nj_lineedit *l = NULL;
    el_get(edit, EL_CLIENTDATA, &l);
    return l && l->continued ? next : first;
}

/* Waits for input; false when a signal that ends the wait has come. They are let through only while we wait, so that
 * none slips in between the look at the flag and the wait. */
static bool wait_for_input(void)
{
    sigset_t stop, before;
    struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &stop, &before);
    while (!nj_cli_interrupted && ppoll(&input, 1, NULL, &before) < 0 && errno == EINTR) continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !nj_cli_interrupted;
}

/* 1 and a character, 0 at the end of input, -1 after Ctrl-C or an error. */
static int read_character(EditLine *edit, wchar_t *out)
{
    char bytes[4];
    size_t n = 0;
    (void)edit;
    for (;;) {
        if (!wait_for_input()) return -1;
        ssize_t got = read(STDIN_FILENO, bytes + n, 1);
        if (got < 0 && errno == EINTR && !nj_cli_interrupted) continue; /* the window's size has changed */
        if (got < 0) return -1;
        if (got == 0) return 0;
        n++;
        unsigned char lead = (unsigned char)bytes[0];
        size_t need = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
        if (n < need && (n == 1 || ((unsigned char)bytes[n - 1] & 0xc0) == 0x80)) continue;
        if (nj_text_char(bytes, n) != n) {
            *out = 0xfffd;
            return 1;
        }
        wchar_t c = n == 1 ? lead : lead & (0x7f >> n);
        for (size_t i = 1; i < n; i++) c = c << 6 | (bytes[i] & 0x3f);
        *out = c;
        return 1;
    }
}

nj_lineedit *nj_lineedit_new(void)
{
    HistEvent event;
    nj_lineedit *l = nj_new(nj_lineedit);
    if (!l) return NULL;
    l->history = history_init();
    l->edit = el_init("nightjar", stdin, stderr, stderr);
    if (!l->history || !l->edit) {
        nj_lineedit_free(l);
        return NULL;
    }
    history(l->history, &event, H_SETSIZE, HISTORY_LINES);
    history(l->history, &event, H_SETUNIQUE, 1);
    el_set(l->edit, EL_CLIENTDATA, l);
    el_set(l->edit, EL_PROMPT, prompt);
    el_set(l->edit, EL_EDITOR, "emacs");
    el_set(l->edit, EL_HIST, history, l->history);
    el_set(l->edit, EL_GETCFN, read_character);
    el_set(l->edit, EL_BIND, "\033[3~", "ed-delete-next-char", NULL);
    el_set(l->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return l;
}

void nj_lineedit_free(nj_lineedit *l)
{
    if (!l) return;
    if (l->edit) el_end(l->edit);
    if (l->history) history_end(l->history);
    free(l);
}

int nj_lineedit_read(nj_lineedit *l, nj_buf *out, bool *dropped)
{
    HistEvent event;
    nj_buf_clear(out);
    l->continued = false;
    for (;;) {
        int n = 0;
        const char *line = el_gets(l->edit, &n);
        if (nj_cli_terminated()) return -ECANCELED;
        if (nj_cli_interrupted) {
            const LineInfo *typed = el_line(l->edit);
            *dropped = out->len || (typed && typed->lastchar > typed->buffer);
            nj_cli_interrupted = false;
            fputs("^C\n", stderr);
            el_reset(l->edit);
            return -EINTR;
        }
        if (!line || n <= 0) return 0;
        size_t len = (size_t)n;
        if (line[len - 1] == '\n') len--;
        l->continued = len > 0 && line[len - 1] == '\\';
        nj_buf_add(out, line, l->continued ? len - 1 : len);
        if (l->continued)
            nj_buf_char(out, '\n');
        else
            break;
    }
    if (out->failed) return out->failed;
    if (out->len) history(l->history, &event, H_ENTER, out->data);
    return 1;
}
