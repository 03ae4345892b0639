/* What a model file holds and needs, from its header alone; works for architectures that we don't run. */
#ifndef NJ_FACTS_H
#define NJ_FACTS_H

#include "engine/nj_engine.h"

typedef enum nj_group {
    NJ_GROUP_EMBEDDING, NJ_GROUP_ATTENTION, NJ_GROUP_MLP, NJ_GROUP_EXPERTS, NJ_GROUP_ROUTER, NJ_GROUP_NORMS,
    NJ_GROUP_OUTPUT, NJ_GROUP_OTHER, NJ_GROUP_COUNT
} nj_group;

typedef struct nj_group_facts {
    uint64_t tensors, params, bytes;
    uint64_t type_bytes[NJ_TYPE_COUNT]; /* by weight type */
} nj_group_facts;

typedef struct nj_facts {
    nj_group_facts group[NJ_GROUP_COUNT], all;
    bool           runs;          /* Nightjar runs this architecture and all tensors are there */
    nj_error       why_not;       /* else */
    bool           broken;        /* a fault of the file, rather than an architecture that we don't know */
    nj_model_info  info;          /* where it doesn't run: as far as the usual keys tell, 0 for the rest */
} nj_facts;

void nj_facts_read(nj_facts *f, const nj_gguf *g);

nj_group    nj_group_of(const char *tensor); /* by name: "blk.0.ffn_up_exps.weight" -> experts */
const char *nj_group_name(nj_group group);

/* Bytes that `values` cached values take as F16, F32 or Q8_0. */
double nj_kv_bytes(uint64_t values, uint32_t type);

/* Does a model fit into the memory that is available now? Weights first; the KV cache may take half of the rest (the
 * engine's own rule). */
typedef struct nj_fit {
    uint64_t weights, kv;      /* bytes; KV of the whole context as F16 */
    uint64_t available, ram;   /* bytes of the machine */
    bool     weights_fit, fit; /* fit: with the whole context */
    uint64_t tokens;           /* positions that the KV cache has room for, at most the context */
} nj_fit;

nj_fit nj_fit_of(const nj_model_info *m, uint64_t available, uint64_t ram);

/* ---- The vocabulary check ---- */

typedef struct nj_vocab_report {
    int64_t tokens;                  /* -1: the file has no vocabulary */
    char    name[64];                /* "gpt2/qwen2", or "" when it can't be used */
    bool    template_there, template_works;
    nj_buf  faults;                  /* lines: what makes the vocabulary unusable */
    nj_buf  notes;                   /* lines: what is unusual but works */
} nj_vocab_report;

void nj_vocab_check(nj_vocab_report *r, const nj_gguf *g);
void nj_vocab_report_free(nj_vocab_report *r);

#endif
