/* The tables of kernels, one per tier, and what a tier's file supplies to quant/kernels.inc. Private to quant/.
 *
 * A tier's file defines `v16`, sixteen floats, and:
 *   v16_zero() v16_set1(x) v16_load(p) v16_store(p, v) v16_add(a, b) v16_mul(a, b)
 *   v16_fma(a, b, c)       a * b + c, rounded once
 *   v16_sum(v)             the pairwise tree: lanes i + (i + 8), then 4, 2 and 1 apart
 *   v16_load_f32(p) v16_load_f16(p) v16_load_bf16(p) v16_load_i8(p) v16_load_u8(p)    sixteen values, any alignment
 *   v16_store_f16(p, v)    sixteen halves, round to nearest even
 *   v16_from_i32(b)        sixteen integers as floats
 * `b64`, 64 bytes that are also 32 halves or 16 words, and:
 *   b64_load(p) b64_store(p, b)    aligned
 *   b64_words(w)           16 times the word w
 *   b64_and(a, b) b64_or(a, b) b64_xor(a, b) b64_sub8(a, b) b64_sub32(a, b) b64_mul16(a, b)
 *   b64_shr16(a, n) b64_shl16(a, n) b64_shr32(a, n) b64_shl32(a, n)    logical shifts of the halves, of the words
 *   b64_test(a, bits, value)       bytes of value where a has any of the bits, else 0
 *   b64_table(table, index)        table[i] for each byte i of index (0..15)
 *   b64_spread(a, k)               byte k of each word, four times
 *   b64_widen_u8(p) b64_widen_u16(p)    sixteen bytes or halves at p (any alignment) as words
 *   dot_rows(code, n, x, minus, out, panels, rows, max)
 *                          out[p * rows + r] = sum over 4 * n columns of code[p] * x[r], minus minus[r], exact, as
 *                          floats in 16 lanes; code[p][k]: columns 4 * k.. of 16 outputs, bytes 0..max; x[r]: columns
 *                          in order
 *   ROW_TILE, PANEL_TILE   rows and panels whose int8 products are summed in registers at once
 *   ROW_STEP               4 or 8: rows whose sums of one class fit the registers beside their operands
 * Then, for each table it offers, it includes quant/kernels_table.inc with the table's name as KERNELS and its TIER. */
#ifndef NJ_QUANT_KERNELS_H
#define NJ_QUANT_KERNELS_H

#include <string.h>

#include "quant/nj_quant.h"

#define INLINE static inline __attribute__((always_inline))

/* Sums must live in registers, so loops over them are unrolled whole. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* Four bytes as kernels broadcast them. */
INLINE int32_t four_bytes(const void *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Bytes of this core's L2 cache. */
size_t nj_l2_bytes(void);

extern const nj_kernels nj_kernels_scalar;
#ifdef __x86_64__
extern const nj_kernels nj_kernels_avx2, nj_kernels_avx512, nj_kernels_avx512vnni, nj_kernels_amx;
#endif

#endif
