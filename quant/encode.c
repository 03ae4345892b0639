/* nj_encode: plain types here, block types in encode_32.c and encode_super.c. */
#include "quant/encode_blocks.h"

#include <string.h>

#include "quant/nj_quant.h"

/* x; 0 for infinities and NaN. */
static float finite_or_zero(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000) == 0x7f800000 ? 0 : x;
}

/* Round to nearest even, but the largest finite value where that would be infinity. */
static uint16_t half_of(float x)
{
    x = finite_or_zero(x);
    return nj_f32_to_f16(x > 65504 ? 65504 : x < -65504 ? -65504 : x);
}

static uint16_t brain_of(float x)
{
    const float max = 0x1.fep127f;
    x = finite_or_zero(x);
    return nj_f32_to_bf16(x > max ? max : x < -max ? -max : x);
}

bool nj_can_encode(uint32_t type)
{
    return type == NJ_F32 || type == NJ_F16 || type == NJ_BF16 || nj_encode_32(type, NULL, NULL, 0) ||
           nj_encode_super(type, NULL, NULL, 0);
}

void nj_encode(uint32_t type, const float *x, void *blocks, size_t n)
{
    uint8_t *out = blocks;
    switch (type) {
    case NJ_F32:
        for (size_t i = 0; i < n; i++) {
            float value = finite_or_zero(x[i]);
            memcpy(out + 4 * i, &value, 4);
        }
        return;
    case NJ_F16:
    case NJ_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t value = type == NJ_F16 ? half_of(x[i]) : brain_of(x[i]);
            memcpy(out + 2 * i, &value, 2);
        }
        return;
    default:
        if (!nj_encode_32(type, x, blocks, n)) nj_encode_super(type, x, blocks, n);
    }
}
