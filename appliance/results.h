/* The result file of a batch: JSON lines that are only ever added to, each durable before it counts.
 *
 * Every line of the input ends in it exactly once. Its key is the custom_id; a line of the input that has none of its
 * own (not JSON, no custom_id, one that an earlier line has) is keyed by its number instead, which stands in the line's
 * error object. So the file alone says what is done, and a run that died at any moment goes on from there. */
#ifndef NJ_RESULTS_H
#define NJ_RESULTS_H

#include "appliance/idmap.h"

typedef struct json_t json_t; /* jansson's */

typedef struct nj_results {
    int fd;
    const char *path;
    nj_idmap done;      /* keys found; the value is 1 for an error line, else 0 */
    uint64_t size;      /* bytes that are good */
    uint64_t cut_bytes; /* of an unfinished last line, taken away at the start */
    nj_buf pending;     /* lines not yet written */
    bool created;       /* by nj_results_open */
} nj_results;

nj_fingerprint nj_result_key(const char *custom_id, uint64_t line); /* custom_id NULL: by line number */

/* The key of a parsed result line; false when it isn't one. */
bool nj_result_key_of(const json_t *line, nj_fingerprint *key);

/* Opens or creates the file, takes its lock, reads what is done and cuts an unfinished last line off. -EBUSY when
 * another process writes it, -EINVAL when it isn't a result file (it is left as it was) or is the input itself. */
int nj_results_open(nj_results *r, const char *path, const char *input_path, nj_error *err);
void nj_results_close(nj_results *r); /* drops what is pending; accepts a zeroed one */

/* Takes the file away again if nj_results_open made it and nothing has been written to it. */
void nj_results_withdraw(const nj_results *r);

/* Takes error lines out: those whose key is in `keys`, and those of lines without a custom_id. The file is replaced at
 * once or, on failure, not at all; the lock is held throughout. `dropped` counts the lines. */
int nj_results_drop_errors(nj_results *r, const nj_idmap *keys, uint64_t *dropped, nj_error *err);

/* Queues one line. -ENOMEM. */
int nj_results_add(nj_results *r, const json_t *line);

/* Writes what is pending and waits until it is on disk. On failure the file holds what it held before. */
int nj_results_commit(nj_results *r, nj_error *err);

#endif
