/* A set of custom_ids with a number each. Millions of ids must fit beside a model, so it keeps 128-bit fingerprints
 * (24 bytes per entry at most half full) and not the ids; two different ids share one with a chance of 2^-80 even among
 * ten million. */
#ifndef NJ_IDMAP_H
#define NJ_IDMAP_H

#include "numa/nj_base.h"

typedef struct nj_fingerprint {
    uint64_t a, b;
} nj_fingerprint;

nj_fingerprint nj_fingerprint_of(const void *bytes, size_t len);

typedef struct nj_idmap {
    struct nj_idmap_slot *slot;
    size_t cap, len;
} nj_idmap; /* zero-initialise */

/* Adds `id` with `value`; 1 when it was there already (its value is kept), 0 when it is new, -ENOMEM. */
int nj_idmap_add(nj_idmap *m, nj_fingerprint id, uint64_t value);
bool nj_idmap_find(const nj_idmap *m, nj_fingerprint id, uint64_t *value); /* value may be NULL */
void nj_idmap_free(nj_idmap *m);

#endif
