/* AVX-512 with VNNI: an instruction adds four products of bytes to each lane. */
#include "quant/x86/avx512.h"

INLINE void dot_rows(const b64 *code, const uint32_t n, const int8_t *const *x, const int32_t *minus, v16 *out,
                     const uint32_t rows, const uint32_t max)
{
    (void)max;
    b64 sum[ROW_STEP];
    UNROLL for (uint32_t r = 0; r < rows; r++) sum[r] = b64_words(-(uint32_t)minus[r]);
    UNROLL for (uint32_t k = 0; k < n; k++)
    {
        b64 c = code[k];
        UNROLL for (uint32_t r = 0; r < rows; r++) sum[r] =
            _mm512_dpbusd_epi32(sum[r], c, _mm512_set1_epi32(four_bytes(x[r] + 4 * k)));
    }
    UNROLL for (uint32_t r = 0; r < rows; r++) out[r] = v16_from_i32(sum[r]);
}

#include "quant/kernels.inc"

#define KERNELS nj_kernels_avx512vnni
#define TIER    NJ_ISA_AVX512
#include "quant/kernels_table.inc"

/* The AMX tier is granted and named apart, but for now computes with these same AVX-512 kernels: no tile instruction
 * is used yet. */
#define KERNELS nj_kernels_amx
#define TIER    NJ_ISA_AMX
#include "quant/kernels_table.inc"
