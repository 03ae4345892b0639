/* A file that comes into being whole or not at all: written as PATH.part, then renamed. Private to io/. */
#ifndef NJ_PART_H
#define NJ_PART_H

#include "io/nj_io.h"

typedef struct nj_part {
    char *path; /* what will be replaced: links are followed */
    char *part; /* NULL when PATH is a device or pipe, which is written as it is */
    int fd;     /* -1 when not open */
} nj_part;

/* On failure nothing stays behind and `p` is in the state of nj_part_drop. Messages name the file. */
int nj_part_open(nj_part *p, const char *path, nj_error *err);
/* Asks the file system for the whole size now, so that a full disk shows before the work and not after it. */
int nj_part_reserve(nj_part *p, uint64_t bytes, nj_error *err);
int nj_part_write(nj_part *p, const void *data, uint64_t len, nj_error *err);
/* fsync, rename, fsync of the directory. */
int nj_part_commit(nj_part *p, nj_error *err);
/* Removes PATH.part unless it was committed, and frees. */
void nj_part_drop(nj_part *p);

#endif
