/* Encoders by block shape, behind nj_encode. Private to quant/encode*.c. */
#ifndef NJ_ENCODE_BLOCKS_H
#define NJ_ENCODE_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each encodes `n` weights (whole blocks) if it knows the type, else returns false. n = 0 asks. */
bool nj_encode_32(uint32_t type, const float *x, void *blocks, size_t n);    /* blocks of 32 */
bool nj_encode_super(uint32_t type, const float *x, void *blocks, size_t n); /* blocks of 256 with sub-blocks */

#endif
