/* Shared by the GGUF files of io/ only: the open file and the index of its names. */
#ifndef NJ_GGUF_PRIV_H
#define NJ_GGUF_PRIV_H

#include "io/nj_io.h"

/* ---- An index over an array whose elements start with an nj_str (keys and tensors do). ----
 * Hashed with SipHash and a random seed, so that a hostile file can't choose names that collide. */
typedef struct nj_index {
    uint32_t *slot; /* position + 1, 0 is free; at most half are taken */
    size_t cap;     /* a power of two, or 0 */
    uint64_t seed[2];
} nj_index;

#define NJ_INDEX_NONE SIZE_MAX
#define NJ_INDEX_MAX  (UINT32_MAX / 4) /* elements; also what the parser accepts as a count */

/* Adds items[n]; items[0..n) were added before, in order. 0, -EEXIST when an equal name is there, or -ENOMEM. */
int nj_index_add(nj_index *x, const void *items, size_t stride, size_t n);
/* Position of a name, or NJ_INDEX_NONE. */
size_t nj_index_find(const nj_index *x, const void *items, size_t stride, const char *name, size_t len);
void nj_index_free(nj_index *x);

/* ---- An open GGUF ---- */

#define NJ_GGUF_ALIGNMENT_DEFAULT 32
#define NJ_GGUF_ALIGNMENT_MAX     (1u << 30)

static inline bool nj_gguf_alignment_ok(uint64_t alignment)
{
    return alignment && alignment <= NJ_GGUF_ALIGNMENT_MAX && !(alignment & (alignment - 1));
}

struct nj_gguf_file {
    char *path;
    int fd; /* -1 for a file in memory */
    uint64_t bytes;
    const uint8_t *data; /* of a file in memory: [0, data_len), not owned */
    size_t data_len;
    nj_str *strs; /* the elements of its string arrays, one after another */
    char *text;   /* its names, strings (each with a NUL after it) and numeric arrays */
};

struct nj_gguf_text {
    struct nj_gguf_text *next;
    char text[];
};

struct nj_gguf {
    struct nj_gguf_file *files; /* [n_files] */
    uint32_t n_files, version;
    nj_meta *metas; /* of the first file */
    size_t n_metas, cap_metas;
    nj_index meta_index;
    nj_tensor *tensors; /* of all files */
    size_t n_tensors, cap_tensors;
    nj_index tensor_index;
    struct nj_gguf_text *set_texts; /* owned by overrides */
};

/* Reads one value of a scalar type from unaligned memory, widened as nj_meta says. */
void nj_meta_widen(nj_meta_type type, const void *p, int64_t *i, double *f);
/* Bytes of one value of a scalar type; 0 for strings and arrays. */
size_t nj_meta_type_bytes(nj_meta_type type);
const char *nj_meta_type_name(nj_meta_type type);
bool nj_meta_is_integer(nj_meta_type type); /* a bool is none */

/* Why a text can't be the name of a key or tensor ("is empty", "is not valid UTF-8"), or NULL when it can.
 * Control characters are refused, so that a name may be printed to a terminal as it is. */
const char *nj_gguf_name_fault(const char *name, size_t len);

/* Checks one file's header, keys and tensors and adds them to `g` as g->files[file], whose path, fd or data and bytes
 * are set. Keys are kept of file 0 alone; *keys gets the number of the file's own split (-1: not given), split.count
 * and split.tensors.count (0: not given). -EAGAIN when the header goes on past `len`. `err` is not
 * NULL; its text does not name the file. */
struct nj_gguf_split {
    uint64_t no, count, tensors;
    bool given;
};
int nj_gguf_parse_file(nj_gguf *g, uint32_t file, const uint8_t *data, size_t len, const nj_gguf_types *types,
                       struct nj_gguf_split *split, nj_error *err);

#endif
