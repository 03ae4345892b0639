/* Reads a file of JSON lines in order, of any size, with one line in memory at a time. */
#ifndef NJ_LINES_H
#define NJ_LINES_H

#include "numa/nj_base.h"

typedef struct nj_lines {
    /* The present line, after nj_lines_next gave 1. Text is NUL-terminated and valid until the next call. */
    const char *text;
    size_t len;
    uint64_t number; /* from 1 */
    uint64_t offset; /* of its first byte in the file */
    uint64_t bytes;  /* in the file, with its newline */
    bool newline;    /* false only for a last line that lacks it */
    bool too_long;   /* more than line_max bytes: len is 0, the rest was skipped */

    /* Private. */
    int fd;
    bool owned;
    const char *path;
    uint64_t limit, read_at, bytes_max;
    nj_buf buf;
    size_t consumed;
} nj_lines;

/* Opens a regular file as it is now: what others append later isn't read. `path` is kept by pointer. -EINVAL
 * when it isn't a regular file; the remedy is the caller's, who knows what the file is for. */
int nj_lines_open(nj_lines *l, const char *path, size_t line_max, nj_error *err);
/* The same over an open file, from its beginning; the caller keeps and closes `fd`. */
int nj_lines_start(nj_lines *l, int fd, const char *path, size_t line_max, nj_error *err);
/* 1 with the next line, 0 at the end, or a negative errno. */
int nj_lines_next(nj_lines *l, nj_error *err);
void nj_lines_rewind(nj_lines *l); /* to the first line; the limit stays */
void nj_lines_close(nj_lines *l);  /* accepts a zeroed one, closes fd only after nj_lines_open */

#endif
