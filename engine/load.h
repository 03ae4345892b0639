/* Loading: a list of tensors and where their bytes go, read and packed by all workers. Private to engine/. */
#ifndef NJ_LOAD_H
#define NJ_LOAD_H

#include "engine/nj_engine.h"
#include "numa/nj_numa.h"

/* Where the bytes of tensors come from: a file, or a synthetic model. */
typedef struct nj_load_source {
    nj_gguf *g;
    const nj_synth *synth; /* NULL: from the file `g` */
} nj_load_source;

/* Thread-safe. Errors as nj_gguf_read. */
int nj_load_read(const nj_load_source *s, const nj_tensor *t, uint64_t offset, void *dst, uint64_t len, nj_error *err);

typedef enum nj_load_form { NJ_LOAD_PANELS, NJ_LOAD_ROWS, NJ_LOAD_F32 } nj_load_form;

/* One matrix set: `count` matrices of `rows` rows that lie one after another in the tensor. */
typedef struct nj_load_item {
    const nj_tensor *tensor;
    nj_load_form form;
    uint32_t count, rows, cols;
    uint64_t stride; /* bytes from matrix to matrix at the destination */
    void *data;      /* in the arena, once nj_load_run has cut it */
    void *owner; /* the pointer variable (of any pointer type) that receives `data`; NULL: the item continues the one
                    before it */
} nj_load_item;

typedef struct nj_load {
    nj_load_item *item;
    size_t count, cap;
    uint64_t bytes; /* arena bytes that the items need */
} nj_load;

/* Adds a tensor of shape (count, rows, cols) in `form`. `owner` is the address of the pointer that nj_load_run sets. */
int nj_load_add(nj_load *l, const nj_tensor *t, nj_load_form form, uint32_t count, uint32_t rows, uint32_t cols,
                void *owner, nj_error *err);

/* Cuts every item from a new arena, then reads and packs with `threads` workers (0: one per core). Reports progress,
 * stops at the first error or when *cancel becomes true (-ECANCELED). */
int nj_load_run(nj_load *l, const nj_load_source *source, const nj_model_options *opt, nj_arena **arena,
                nj_error *err);

void nj_load_free(nj_load *l);

#endif
