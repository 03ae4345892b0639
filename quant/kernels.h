/* The tables of kernels, one per tier, and what a tier's file supplies to quant/kernels.inc. Private to quant/.
 *
 * A tier's file defines `v16`, sixteen floats, and:
 *   v16_zero() v16_set1(x) v16_load(p) v16_store(p, v) v16_add(a, b) v16_mul(a, b)
 *   v16_fma(a, b, c)       a * b + c, rounded once
 *   v16_sum(v)             the pairwise tree: lanes i + (i + 8), then 4, 2 and 1 apart
 *   v16_div(a, b) v16_min(a, b) v16_max(a, b)    the latter are b where a is not less (greater), NaN or not
 *   v16_max_of(v)          the largest lane
 *   v16_zero_below(x, least, a)    a, but 0 in lanes where x < least
 *   v16_pow2_half(sum)     2^(n - 1) for sum = 1.5 * 2^23 + n, n in -125..128
 *   v16_load_f32(p) v16_load_f16(p) v16_load_bf16(p) v16_load_i8(p) v16_load_u8(p)    sixteen values, any alignment
 *   v16_store_f16(p, v)    sixteen halves, round to nearest even
 *   v16_from_i32(b)        sixteen integers as floats
 * `b64`, 64 bytes that are also 32 halves or 16 words, and:
 *   b64_load(p) b64_store(p, b)    aligned
 *   b64_words(w)           16 times the word w
 *   b64_and(a, b) b64_or(a, b) b64_xor(a, b) b64_sub8(a, b) b64_sub32(a, b) b64_mul16(a, b)
 *   b64_mulhi16(a, b)      upper halves of products of unsigned halves
 *   b64_shr16(a, n) b64_shl16(a, n) b64_shr32(a, n) b64_shl32(a, n)    logical shifts of the halves, of the words
 *   b64_test(a, bits, value)       bytes of value where a has any of the bits, else 0
 *   b64_table(table, index)        table[i] for each byte i of index (0..15)
 *   b64_plus_minus(a, b, minus, bits)    bytes a - b where minus has all of the bits (one bit is asked for), else a + b
 *   b64_pick_eights(table, index, out)   out[0]: for 16 rows, the first four bytes of table[index[2 * row]];
 *                          out[1]: the next four
 *   b64_pick_fours(table, index)         for 16 rows, table[index[2 * row]]
 *   b64_spread(a, k)               byte k of each word, four times
 *   b64_widen_u8(p) b64_widen_u16(p)    sixteen bytes or halves at p (any alignment) as words
 *   dot_rows(code, n, x, minus, out, panels, rows, max)
 *                          out[p * rows + r] = sum over 4 * n columns of code[p] * x[r], minus minus[r], exact, as
 *                          floats in 16 lanes; code[p][k]: columns 4 * k.. of 16 outputs, bytes 0..max; x[r]: columns
 *                          in order
 *   ROW_TILE, PANEL_TILE   rows and panels whose int8 products are summed in registers at once
 *   v16_turn_f32(keys, stride, out) v16_turn_f16(keys, stride, out) v16_turn_q8_0(blocks, stride, c, out)
 *                          out[j * 16 + k] = value j (c + j) of the row k * stride bytes on, for k < 16 and j < 8
 *   QUERY_STEP, PANELS     queries, and vectors of keys or dims, whose sums fit the registers beside their operands
 *   ROW_STEP               4 or 8: rows whose sums of one class fit the registers beside their operands
 * Then, for each table it offers, it includes quant/kernels_table.inc with the table's name as KERNELS and its TIER. */
#ifndef NJ_QUANT_KERNELS_H
#define NJ_QUANT_KERNELS_H

#include <string.h>

#include "quant/nj_quant.h"

/* Sums must live in registers, so kernels are inlined and their loops unrolled whole, for each format. The reference
 * has no use for that, and would take minutes to compile. */
#ifdef NJ_REFERENCE
#define INLINE static
#define UNROLL
#else
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#endif

/* Four bytes as kernels broadcast them. */
static inline int32_t four_bytes(const void *p)
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
