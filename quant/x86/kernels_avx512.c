/* AVX-512 without VNNI (Skylake-X, Cascade Lake's elder sisters): products of bytes are summed in pairs first. */
#include "quant/x86/avx512.h"

/* Pairs of products are summed in 16 bits as long as they can't overflow, then in 32; a code is the first, unsigned
 * factor. Bytes above 127 would saturate the pairs, so these are split: the low seven bits, and 128 times the top. */
INLINE void dot_rows(const b64 *code, const uint32_t n, const int8_t *const *x, const int32_t *minus, v16 *out,
                     const uint32_t rows, const uint32_t max)
{
    const uint32_t fit = max <= 15 ? 8 : max <= 31 ? 4 : max <= 63 ? 2 : 1; /* 2 * max * 127 * fit < 2^15 */
    const uint32_t depth = fit < n ? fit : n;
    __m512i one = _mm512_set1_epi16(1);
    b64 sum[ROW_STEP], pair[ROW_STEP];
    UNROLL for (uint32_t r = 0; r < rows; r++) sum[r] = b64_words(-(uint32_t)minus[r]);
    UNROLL for (uint32_t g = 0; g < n; g += depth)
    {
        UNROLL for (uint32_t k = g; k < g + depth; k++)
        {
            b64 c = code[k];
            UNROLL for (uint32_t r = 0; r < rows; r++)
            {
                b64 v = _mm512_set1_epi32(four_bytes(x[r] + 4 * k));
                b64 low = max <= 127 ? c : b64_and(c, b64_words(0x7f7f7f7f));
                b64 p = _mm512_maddubs_epi16(low, v);
                if (max > 127) {
                    b64 top = _mm512_maddubs_epi16(b64_and(b64_shr16(c, 7), b64_words(0x01010101)), v);
                    sum[r] = _mm512_add_epi32(sum[r], b64_shl32(_mm512_madd_epi16(top, one), 7));
                }
                pair[r] = k == g ? p : _mm512_add_epi16(pair[r], p);
            }
        }
        UNROLL for (uint32_t r = 0; r < rows; r++) sum[r] = _mm512_add_epi32(sum[r], _mm512_madd_epi16(pair[r], one));
    }
    UNROLL for (uint32_t r = 0; r < rows; r++) out[r] = v16_from_i32(sum[r]);
}

#include "quant/kernels.inc"

#define KERNELS nj_kernels_avx512
#define TIER    NJ_ISA_AVX512
#include "quant/kernels_table.inc"
