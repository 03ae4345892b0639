/* Random weights of a shape, computed wherever they are asked for: the bytes of a file that was never written. */
#include "engine/shape.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A matrix is a row of pieces of 256 weights (whole blocks in every type), each picked by a hash from PIECES that were
 * encoded beforehand: as fast as copying (a Q4_K piece in some 10 ns), where encoding takes microseconds, and no two
 * rows or experts agree, as a row of 8 pieces has 2^88 forms. The Q4_K pieces fill 295 KB, so they stay in L2. */
enum { PIECE_WEIGHTS = 256, PIECE_BITS = 11, PIECES = 1 << PIECE_BITS };

struct nj_synth {
    nj_buf header;
    nj_gguf *g;
    uint64_t seed;
    uint64_t piece_bytes[NJ_TYPE_COUNT];
    char *piece[NJ_TYPE_COUNT]; /* [PIECES] of a type that the shape has */
};

/* Finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t nth(uint64_t seed, uint64_t n)
{
    return mix(seed + (n + 1) * UINT64_C(0x9e3779b97f4a7c15));
}

/* Nearly normal, mean 0, deviation 1: the sum of four 16-bit uniform numbers. */
static float bell(uint64_t bits)
{
    int32_t sum = (int32_t)(bits & 0xffff) + (int32_t)(bits >> 16 & 0xffff) + (int32_t)(bits >> 32 & 0xffff) +
                  (int32_t)(bits >> 48);
    return (float)(sum - 2 * 65535) * (1.0f / 37837.2f);
}

/* Deviation 1 / sqrt(d_model) keeps what a product puts out near what went in, so that no layer can overflow. */
static int make_pieces(nj_synth *s, uint32_t type, uint32_t d_model, nj_error *err)
{
    float x[PIECE_WEIGHTS], deviation = 1.0f / sqrtf((float)d_model);
    uint64_t bytes = nj_row_bytes(type, PIECE_WEIGHTS);
    if (!(s->piece[type] = malloc(bytes * PIECES))) return nj_fail(err, -ENOMEM, "There is no memory for weights.");
    s->piece_bytes[type] = bytes;
    for (uint64_t p = 0; p < PIECES; p++) {
        for (uint64_t i = 0; i < PIECE_WEIGHTS; i++) x[i] = deviation * bell(nth(s->seed, p * PIECE_WEIGHTS + i));
        nj_encode(type, x, s->piece[type] + p * bytes, PIECE_WEIGHTS);
    }
    return 0;
}

int nj_synth_new(nj_synth **out, const nj_shape *shape, nj_error *err)
{
    uint64_t file_bytes = 0;
    nj_synth *s = nj_new(nj_synth);
    if (!s) return nj_fail(err, -ENOMEM, "There is no memory left.");
    s->seed = mix(shape->seed);
    int rc = nj_shape_header(shape, &s->header, &file_bytes, err);
    if (!rc) rc = nj_gguf_parse(&s->g, s->header.data, s->header.len, file_bytes, shape->name, nj_weight_types(), err);
    for (size_t i = 0; !rc && i < nj_gguf_tensor_count(s->g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(s->g, i);
        if (t->n_dims > 1 && !s->piece[t->type]) rc = make_pieces(s, t->type, shape->d_model, err);
    }
    if (rc)
        nj_synth_free(s);
    else
        *out = s;
    return rc;
}

void nj_synth_free(nj_synth *s)
{
    if (!s) return;
    for (int t = 0; t < NJ_TYPE_COUNT; t++) free(s->piece[t]);
    nj_gguf_close(s->g);
    nj_buf_free(&s->header);
    free(s);
}

nj_gguf *nj_synth_gguf(const nj_synth *s)
{
    return s->g;
}

/* Norm weights and rope factors are 1, biases 0. Before attention the norm is small: random attention averages over
 * positions, and what it adds is nearly the same in all rows. At full weight rows grow alike with depth, and so does
 * their routing: in 30B-A3B's shape, made smaller, the last of 16 layers had a chi-square of 200 per degree of freedom.
 * At 1/64 it is 1 to 1.6 from the first to the last of 48 layers, and chance gives 1. */
static float vector_value(const char *name)
{
    if (strstr(name, ".bias")) return 0.0f;
    return strstr(name, ".attn_norm.") ? 1.0f / 64 : 1.0f;
}

static void fill_vector(const nj_tensor *t, char *dst, uint64_t len)
{
    float value = vector_value(t->name.data);
    assert(t->type == NJ_F32 && len % sizeof value == 0);
    for (uint64_t i = 0; i < len; i += sizeof value) memcpy(dst + i, &value, sizeof value);
}

void nj_synth_read(const nj_synth *s, const nj_tensor *t, uint64_t offset, void *dst, uint64_t len)
{
    char *to = dst;
    if (t->n_dims == 1) {
        fill_vector(t, to, len);
        return;
    }
    uint64_t key = s->seed, bytes = s->piece_bytes[t->type]; /* by name: a cut model has the same layers */
    for (size_t i = 0; i < t->name.len; i++) key = nth(key, (uint8_t)t->name.data[i]);
    while (len) {
        uint64_t at = offset % bytes, n = bytes - at < len ? bytes - at : len;
        memcpy(to, s->piece[t->type] + (nth(key, offset / bytes) >> (64 - PIECE_BITS)) * bytes + at, n);
        to += n;
        offset += n;
        len -= n;
    }
}
