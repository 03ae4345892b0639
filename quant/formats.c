/* The list of formats, their decoders, and half-precision numbers. */
#include <strings.h>

#include "quant/decode.h"

typedef void decode_fn(const uint8_t *blocks, float *out, size_t blocks_count);

#define NJ_FORMAT(ID, name, id, weights, bytes)                                                                        \
    static void decode_##name(const uint8_t *blocks, float *out, size_t count)                                         \
    {                                                                                                                  \
        for (size_t i = 0; i < count; i++)                                                                             \
            nj_decode_##name((const struct nj_block_##name *)(blocks + i * (bytes)), out + i * (weights));             \
    }
#include "quant/formats.inc"

static const struct format {
    const char *name; /* NULL for ids we don't read */
    uint32_t weights, bytes;
    decode_fn *decode;
} formats[NJ_TYPE_COUNT] = {
#define NJ_FORMAT(ID, name, id, weights, bytes) [id] = { #name, weights, bytes, decode_##name },
#include "quant/formats.inc"
};

/* Ids that files in the world have and we don't read. */
static const struct foreign {
    uint32_t type;
    const char *name;
} foreign[] = {
#define REMOVED(name) name ", removed from GGUF"
#define SCRATCH(name) name ", a type of activations, not of weights"
#define IK(name)      name ", an ik_llama.cpp type"
    { 4, REMOVED("q4_2") },
    { 5, REMOVED("q4_3") },
    { 9, SCRATCH("q8_1") },
    { 15, SCRATCH("q8_k") },
    { 24, "i8" },
    { 25, "i16" },
    { 26, "i32" },
    { 27, "i64" },
    { 28, "f64" },
    { 31, REMOVED("q4_0_4_4") },
    { 32, REMOVED("q4_0_4_8") },
    { 33, REMOVED("q4_0_8_8") },
    { 36, REMOVED("iq4_nl_4_4") },
    { 37, REMOVED("iq4_nl_4_8") },
    { 38, REMOVED("iq4_nl_8_8") },
    { 40, "nvfp4" },
    { 41, "q1_0" },
    { 133, IK("q6_0") },
    { 134, IK("iq1_bn") },
    { 135, IK("iq2_bn") },
    { 136, IK("q8_k64") },
    { 137, IK("iq2_k") },
    { 138, IK("iq3_k") },
    { 139, IK("iq4_k") },
    { 140, IK("iq5_k") },
    { 141, IK("iq6_k") },
    { 144, IK("iq4_ks") },
    { 145, IK("iq2_ks") },
    { 146, IK("iq4_kss") },
    { 147, IK("q8_k16") },
    { 148, IK("q8_k32") },
    { 149, IK("q8_kr8") },
    { 150, IK("q8_k128") },
    { 151, IK("q8_kv") },
    { 152, IK("iq5_ks") },
    { 153, IK("iq2_kt") },
    { 154, IK("iq3_kt") },
    { 155, IK("iq4_kt") },
    { 156, IK("iq3_ks") },
    { 157, IK("iq2_kl") },
    { 158, IK("iq1_kt") },
    { 202, IK("q4_0_r8") },
    { 206, IK("q5_0_r4") },
    { 208, IK("q8_0_r8") },
    { 210, IK("q2_k_r4") },
    { 211, IK("q3_k_r4") },
    { 212, IK("q4_k_r4") },
    { 213, IK("q5_k_r4") },
    { 214, IK("q6_k_r4") },
    { 216, IK("iq2_xxs_r4") },
    { 217, IK("iq2_xs_r4") },
    { 218, IK("iq3_xxs_r4") },
    { 219, IK("iq1_s_r4") },
    { 220, IK("iq4_nl_r4") },
    { 221, IK("iq3_s_r4") },
    { 222, IK("iq2_s_r4") },
    { 223, IK("iq4_xs_r8") },
    { 229, IK("iq1_m_r4") },
    { 230, IK("bf16_r16") },
    { 233, IK("q6_0_r4") },
    { 335, IK("iq2_bn_r4") },
    { 337, IK("iq2_k_r4") },
    { 338, IK("iq3_k_r4") },
    { 339, IK("iq4_k_r4") },
    { 340, IK("iq5_k_r4") },
    { 344, IK("iq4_ks_r4") },
    { 352, IK("iq5_ks_r4") },
    { 398, IK("q8_kv_r8") },
    { 399, IK("q8_k_r8") },
#undef REMOVED
#undef SCRATCH
#undef IK
};

static const struct format *format_of(uint32_t type)
{
    return type < NJ_TYPE_COUNT && formats[type].name ? &formats[type] : NULL;
}

bool nj_format_size(uint32_t type, uint32_t *block_weights, uint32_t *block_bytes)
{
    const struct format *f = format_of(type);
    if (!f) return false;
    *block_weights = f->weights;
    *block_bytes = f->bytes;
    return true;
}

const char *nj_format_name(uint32_t type)
{
    const struct format *f = format_of(type);
    if (f) return f->name;
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        if (foreign[i].type == type) return foreign[i].name;
    return type >= 133 && type <= 399 ? "unknown, an ik_llama.cpp type" : "unknown";
}

int nj_format_find(const char *name)
{
    for (int type = 0; type < NJ_TYPE_COUNT; type++)
        if (formats[type].name && strcasecmp(name, formats[type].name) == 0) return type;
    return -1;
}

uint64_t nj_row_bytes(uint32_t type, uint64_t cols)
{
    const struct format *f = format_of(type);
    uint64_t bytes;
    if (!f || cols % f->weights != 0 || __builtin_mul_overflow(cols / f->weights, f->bytes, &bytes)) return 0;
    return bytes;
}

void nj_decode(uint32_t type, const void *blocks, float *out, size_t n)
{
    const struct format *f = format_of(type);
    assert(f && n % f->weights == 0);
    f->decode(blocks, out, n / f->weights);
}

uint16_t nj_f32_to_f16(float x)
{
    return nj_to_half(x);
}

float nj_f16_to_f32(uint16_t h)
{
    return nj_half(h);
}

uint16_t nj_f32_to_bf16(float x)
{
    uint32_t bits = nj_f32_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40); /* a NaN stays one, quiet */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float nj_bf16_to_f32(uint16_t h)
{
    return nj_brain(h);
}
