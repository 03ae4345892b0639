/* The index of names: open addressing over 32-bit positions. See gguf_priv.h. */
#include "io/gguf_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static inline uint64_t rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotl(v[1], 13) ^ v[0], v[0] = rotl(v[0], 32);
    v[2] += v[3], v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotl(v[1], 17) ^ v[2], v[2] = rotl(v[2], 32);
}

/* SipHash-1-3 (Aumasson and Bernstein, 2012). */
static uint64_t sip_hash(const uint64_t seed[2], const char *data, size_t len)
{
    uint64_t v[4] = { seed[0] ^ 0x736f6d6570736575u, seed[1] ^ 0x646f72616e646f6du, seed[0] ^ 0x6c7967656e657261u,
                      seed[1] ^ 0x7465646279746573u };
    size_t whole = len & ~(size_t)7;
    for (size_t i = 0; i <= whole; i += 8) {
        uint64_t word = i == whole ? (uint64_t)len << 56 : 0;
        if (i < whole || len > whole) memcpy(&word, data + i, i < whole ? 8 : len - whole);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static const nj_str *name_at(const void *items, size_t stride, size_t n)
{
    return (const nj_str *)((const char *)items + n * stride);
}

/* The slot that holds the name, or the free one where it belongs. cap is not 0. */
static uint32_t *slot_of(const nj_index *x, const void *items, size_t stride, const char *name, size_t len)
{
    for (size_t i = sip_hash(x->seed, name, len) & (x->cap - 1);; i = (i + 1) & (x->cap - 1)) {
        if (!x->slot[i]) return &x->slot[i];
        const nj_str *taken = name_at(items, stride, x->slot[i] - 1);
        if (taken->len == len && !memcmp(taken->data, name, len)) return &x->slot[i];
    }
}

static int grow(nj_index *x, const void *items, size_t stride, size_t n)
{
    size_t cap = x->cap ? x->cap * 2 : 16;
    uint32_t *slot = nj_array_new(cap, sizeof *slot);
    if (!slot) return -ENOMEM;
    if (!x->cap && getrandom(x->seed, sizeof x->seed, GRND_NONBLOCK) != sizeof x->seed)
        x->seed[0] ^= nj_now_ns(), x->seed[1] ^= (uintptr_t)slot; /* early in boot: still hard to guess from a file */
    free(x->slot);
    x->slot = slot;
    x->cap = cap;
    for (size_t i = 0; i < n; i++) {
        const nj_str *name = name_at(items, stride, i);
        *slot_of(x, items, stride, name->data, name->len) = (uint32_t)i + 1;
    }
    return 0;
}

int nj_index_add(nj_index *x, const void *items, size_t stride, size_t n)
{
    if (n >= NJ_INDEX_MAX) return -ENOMEM;
    if (n >= x->cap / 2 && grow(x, items, stride, n)) return -ENOMEM;
    const nj_str *name = name_at(items, stride, n);
    uint32_t *slot = slot_of(x, items, stride, name->data, name->len);
    if (*slot) return -EEXIST;
    *slot = (uint32_t)n + 1;
    return 0;
}

size_t nj_index_find(const nj_index *x, const void *items, size_t stride, const char *name, size_t len)
{
    if (!x->cap) return NJ_INDEX_NONE;
    uint32_t *slot = slot_of(x, items, stride, name, len);
    return *slot ? *slot - 1 : NJ_INDEX_NONE;
}

void nj_index_free(nj_index *x)
{
    free(x->slot);
    *x = (nj_index){ 0 };
}
