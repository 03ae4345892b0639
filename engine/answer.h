/* Collects the decoded bytes of tokens into the text of an answer, up to the first stop string.
 *
 * `text` holds only what will not change any more: whole, valid UTF-8 characters (what isn't UTF-8 becomes U+FFFD), and
 * nothing that may still become a stop string. So it can be streamed as it grows. The result depends on the bytes
 * alone, not on the borders between tokens, and the cost is linear in their number. */
#ifndef NJ_ANSWER_H
#define NJ_ANSWER_H

#include "numa/nj_base.h"

typedef struct nj_stop_matcher nj_stop_matcher;

typedef struct nj_answer {
    nj_buf text;        /* stable; data is never NULL after nj_answer_init */
    bool stopped;       /* a stop string was met; text ends before it, later bytes are ignored */
    uint64_t raw_bytes; /* bytes given so far */

    /* Private. */
    nj_stop_matcher *stop; /* [stop_count] */
    size_t stop_count;
    size_t held, held_stop;   /* bytes held back: the first `held` of stop string `held_stop` */
    unsigned char partial[4]; /* an unfinished character */
    unsigned partial_len;
} nj_answer;

/* Copies the stop strings. Where two could match, the one completed first wins, then the longer one.
 * -EINVAL for an empty stop string or one that isn't UTF-8. On failure nothing needs freeing. */
int nj_answer_init(nj_answer *a, const char *const *stop, size_t stop_count, nj_error *err);
void nj_answer_free(nj_answer *a); /* back to the zero state; accepts one that is in it */

/* Appends the bytes of a token. 0, or -ENOMEM. */
int nj_answer_add(nj_answer *a, const char *bytes, size_t len);

/* No more bytes will come: gives out what was held back. 0, or -ENOMEM. */
int nj_answer_end(nj_answer *a);

#endif
