/* One inspected model, between the verb and its two ways to print. */
#ifndef NJ_INSPECT_H
#define NJ_INSPECT_H

#include "appliance/facts.h"

typedef struct nj_inspection {
    const char     *path;
    nj_gguf        *g;
    nj_facts        facts;
    nj_vocab_report vocab;
    nj_fit          fit;
    char          (*sha256)[65]; /* [files], or NULL when not asked for */
    bool            all;         /* every tensor, and values in full */
} nj_inspection;

/* "u32", "string", "bool[]": a key's type for people. */
void nj_meta_type_text(const nj_meta *m, char out[24]);

/* "can be changed with --set", "bound to the tensors", "information": the answer of nj_key_describe. */
const char *nj_key_kind_text(nj_key_kind kind);

/* A scalar item of a key: `index` of an array, or of the key itself when it is no array (index 0). */
void nj_meta_item_text(const nj_meta *m, uint64_t index, size_t bytes_max, nj_buf *out);

/* Prints the JSON document on stdout. */
int nj_inspect_json(const nj_inspection *in, nj_error *err);

#endif
