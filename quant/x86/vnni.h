/* VNNI: an instruction adds four products of bytes to each lane. Beside quant/x86/avx512.h. */
#ifndef NJ_QUANT_X86_VNNI_H
#define NJ_QUANT_X86_VNNI_H

#include "quant/x86/avx512.h"

INLINE void dot_rows(const b64 *const *code, const uint32_t n, const int8_t *const *x, const int32_t *minus, v16 *out,
                     const uint32_t panels, const uint32_t rows, const uint32_t max)
{
    (void)max;
    b64 sum[PANEL_TILE * ROW_TILE];
    UNROLL for (uint32_t i = 0; i < panels * rows; i++) sum[i] = b64_words(-(uint32_t)minus[i % rows]);
    UNROLL for (uint32_t k = 0; k < n; k++)
    {
        UNROLL for (uint32_t r = 0; r < rows; r++)
        {
            b64 v = b64_words((uint32_t)four_bytes(x[r] + 4 * k));
            UNROLL for (uint32_t p = 0; p < panels; p++) sum[p * rows + r] =
                _mm512_dpbusd_epi32(sum[p * rows + r], code[p][k], v);
        }
    }
    UNROLL for (uint32_t i = 0; i < panels * rows; i++) out[i] = v16_from_i32(sum[i]);
}

#endif
