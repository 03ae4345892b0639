/* Fingerprints in an open-addressed table. See idmap.h. */
#include "appliance/idmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct nj_idmap_slot {
    nj_fingerprint id;
    uint64_t value;
}; /* id 0, 0: empty */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u; /* SplitMix64's finaliser: a bijection */
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Two chains over 8-byte words, each a bijection of its state and of the word. The files depend on it (default seeds,
 * request ids), so it must never change. */
nj_fingerprint nj_fingerprint_of(const void *bytes, size_t len)
{
    nj_fingerprint f = { 0x243F6A8885A308D3u ^ len, 0x13198A2E03707344u + len };
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = 0;
        memcpy(&word, (const char *)bytes + at, len - at < 8 ? len - at : 8);
        f.a = mix(f.a ^ word);
        f.b = mix(f.b * 0x9E3779B97F4A7C15u + (word << 32 | word >> 32));
    }
    if (!f.a && !f.b) f.b = 1;
    return f;
}

static struct nj_idmap_slot *slot_of(const nj_idmap *m, nj_fingerprint id)
{
    for (size_t i = id.a & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct nj_idmap_slot *s = &m->slot[i];
        if ((!s->id.a && !s->id.b) || (s->id.a == id.a && s->id.b == id.b)) return s;
    }
}

static int grow(nj_idmap *m)
{
    nj_idmap bigger = { .cap = m->cap ? 2 * m->cap : 1024 };
    if (!(bigger.slot = nj_array_new(bigger.cap, sizeof *bigger.slot))) return -ENOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slot[i].id.a || m->slot[i].id.b) *slot_of(&bigger, m->slot[i].id) = m->slot[i];
    bigger.len = m->len;
    free(m->slot);
    *m = bigger;
    return 0;
}

int nj_idmap_add(nj_idmap *m, nj_fingerprint id, uint64_t value)
{
    if (m->len * 2 >= m->cap && grow(m)) return -ENOMEM;
    struct nj_idmap_slot *s = slot_of(m, id);
    if (s->id.a || s->id.b) return 1;
    *s = (struct nj_idmap_slot){ id, value };
    m->len++;
    return 0;
}

bool nj_idmap_find(const nj_idmap *m, nj_fingerprint id, uint64_t *value)
{
    if (!m->cap) return false;
    const struct nj_idmap_slot *s = slot_of(m, id);
    if (!s->id.a && !s->id.b) return false;
    if (value) *value = s->value;
    return true;
}

void nj_idmap_free(nj_idmap *m)
{
    free(m->slot);
    *m = (nj_idmap){ 0 };
}
