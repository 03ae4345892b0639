/* A line from the person at the terminal, with editing and history. */
#ifndef NJ_LINEEDIT_H
#define NJ_LINEEDIT_H

#include "numa/nj_base.h"

typedef struct nj_lineedit nj_lineedit;

/* Reads from stdin, writes prompts to stderr. NULL: no memory. */
nj_lineedit *nj_lineedit_new(void);
void         nj_lineedit_free(nj_lineedit *l); /* accepts NULL */

/* One entry into `out` (emptied first), without its newline; a line that ends in a backslash goes on in the next.
 * 1: there is one. 0: end of input (Ctrl-D). -EINTR: Ctrl-C, what was typed is dropped (nj_cli_interrupted is cleared);
 * *dropped then says whether there was anything. -ECANCELED: SIGTERM. -ENOMEM. Entries that are not empty join the
 * history. */
int nj_lineedit_read(nj_lineedit *l, nj_buf *out, bool *dropped);

#endif
