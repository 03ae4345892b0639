/* The tables of kernels, one per tier, and what a tier's file supplies to quant/kernels.inc. Private to quant/.
 *
 * A tier's file defines `v16`, sixteen floats, and:
 *   v16_zero() v16_set1(x) v16_load(p) v16_store(p, v) v16_add(a, b) v16_mul(a, b)
 *   v16_fma(a, b, c)       a * b + c, rounded once
 *   v16_sum(v)             the pairwise tree: lanes i + (i + 8), then 4, 2 and 1 apart
 *   v16_load_f32(p) v16_load_f16(p) v16_load_bf16(p) v16_load_i8(p)    sixteen values as floats, any alignment
 *   v16_store_f16(p, v)    sixteen halves, round to nearest even
 *   v16_transpose8(rows, stride, cols, tile)    tile[c * 16 + r] = rows[r * stride + c] for r < 8, cols a multiple of 8
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
