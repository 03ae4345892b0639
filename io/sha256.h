/* SHA-256, private to io/. */
#ifndef NJ_SHA256_H
#define NJ_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nj_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t rest[64]; /* bytes % 64 of them */
    bool sha_ni;
} nj_sha256;

void nj_sha256_begin(nj_sha256 *s);
void nj_sha256_add(nj_sha256 *s, const void *data, size_t len);
void nj_sha256_end(nj_sha256 *s, uint8_t digest[32]);

#endif
