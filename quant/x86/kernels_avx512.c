/* AVX-512 without VNNI (Skylake-X, Cascade Lake's elder sisters): products of bytes are summed in pairs first. */
#include "quant/x86/avx512.h"

/* Pairs of products are summed in 16 bits as long as they can't overflow, then in 32; a code is the first, unsigned
 * factor. Bytes above 127 would saturate the pairs, so these are split: the low seven bits, and 128 times the top. */
INLINE void dot_rows(const b64 *const *code, const uint32_t n, const int8_t *const *x, const int32_t *minus, v16 *out,
                     const uint32_t panels, const uint32_t rows, const uint32_t max)
{
    const uint32_t fit = max <= 15 ? 8 : max <= 31 ? 4 : max <= 63 ? 2 : 1; /* 2 * max * 127 * fit < 2^15 */
    const uint32_t depth = fit < n ? fit : n;
    const b64 one = b64_words(0x10001), low = b64_words(0x7f7f7f7f), top = b64_words(0x01010101);
    b64 sum[PANEL_TILE * ROW_TILE], pair[PANEL_TILE * ROW_TILE];
    UNROLL for (uint32_t i = 0; i < panels * rows; i++) sum[i] = b64_words(-(uint32_t)minus[i % rows]);
    UNROLL for (uint32_t k = 0; k < n; k++)
    {
        UNROLL for (uint32_t i = 0; i < panels * rows; i++)
        {
            b64 v = b64_words((uint32_t)four_bytes(x[i % rows] + 4 * k)), c = code[i / rows][k];
            b64 p = _mm512_maddubs_epi16(max <= 127 ? c : b64_and(c, low), v);
            if (max > 127) {
                b64 t = _mm512_maddubs_epi16(b64_and(b64_shr16(c, 7), top), v);
                sum[i] = _mm512_add_epi32(sum[i], b64_shl32(_mm512_madd_epi16(t, one), 7));
            }
            pair[i] = k % depth == 0 ? p : _mm512_add_epi16(pair[i], p);
            if (k % depth == depth - 1) sum[i] = _mm512_add_epi32(sum[i], _mm512_madd_epi16(pair[i], one));
        }
    }
    UNROLL for (uint32_t i = 0; i < panels * rows; i++) out[i] = v16_from_i32(sum[i]);
}

#include "quant/kernels.inc"

#define KERNELS nj_kernels_avx512
#define TIER    NJ_ISA_AVX512
#include "quant/kernels_table.inc"
