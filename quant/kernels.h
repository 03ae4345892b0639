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
 *   v16_load_f32(p) v16_load_f16(p) v16_load_bf16(p) v16_load_i8(p)    sixteen values as floats, any alignment
 *   v16_store_f16(p, v)    sixteen halves, round to nearest even
 *   v16_transpose8(rows, stride, cols, tile)    tile[c * 16 + r] = rows[r * stride + c] for r < 8, cols a multiple of 8
 *   v16_turn_f32(keys, stride, out) v16_turn_f16(keys, stride, out) v16_turn_q8_0(blocks, stride, c, out)
 *                          out[j * 16 + k] = value j (c + j) of the row k * stride bytes on, for k < 16 and j < 8
 *   QUERY_STEP, PANELS     queries, and vectors of keys or dims, whose sums fit the registers beside their operands
 *   ROW_STEP               4 or 8: rows whose sums of one class fit the registers beside their operands
 * Then, for each table it offers, it includes quant/kernels_table.inc with the table's name as KERNELS and its TIER. */
#ifndef NJ_QUANT_KERNELS_H
#define NJ_QUANT_KERNELS_H

#include "quant/nj_quant.h"

extern const nj_kernels nj_kernels_scalar;
#ifdef __x86_64__
extern const nj_kernels nj_kernels_avx2, nj_kernels_avx512, nj_kernels_amx;
#endif

#endif
