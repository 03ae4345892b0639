/* Notices when an answer has fallen into a loop: the same n-gram of tokens over and over.
 *
 * A loop is a stretch of at least NJ_LOOP_SPAN tokens, and at least NJ_LOOP_REPEATS periods, in which every token
 * equals the one a period before. Models that loop do so for good, so waiting a little costs little, while cutting a
 * table of zeros, the empty rows of a chess board or a refrain would lose an answer. */
#ifndef NJ_LOOP_H
#define NJ_LOOP_H

#include <stdbool.h>
#include <stdint.h>

enum {
    NJ_LOOP_PERIOD_MAX = 256, /* tokens, a power of two; a long paragraph */
    NJ_LOOP_REPEATS = 4,
    NJ_LOOP_SPAN = 192
};

typedef struct nj_loop {                  /* zero-initialise */
    int32_t recent[NJ_LOOP_PERIOD_MAX];   /* ring of the last tokens */
    uint32_t run[NJ_LOOP_PERIOD_MAX + 1]; /* by period: the last so many tokens equal the one a period before */
    uint64_t count;
} nj_loop;

/* Takes the next token of the answer; true when the answer now ends in a loop. Cost: one comparison per period. */
bool nj_loop_add(nj_loop *l, int32_t token);

#endif
