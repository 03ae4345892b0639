/* Mixes: see nj_quant.h. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "quant/nj_quant.h"

/* general.file_type by type; the K types alone are what other tools call their _S mixes. */
static const struct mix {
    int id;
    uint32_t file_type;
    const char *name; /* NULL: that of the type */
} mixes[] = {
    // clang-format off
    { NJ_F32, 0, NULL },     { NJ_F16, 1, NULL },     { NJ_BF16, 32, NULL },   { NJ_Q8_0, 7, NULL },
    { NJ_Q4_0, 2, NULL },    { NJ_Q4_1, 3, NULL },    { NJ_Q5_0, 8, NULL },    { NJ_Q5_1, 9, NULL },
    { NJ_Q2_K, 10, NULL },   { NJ_Q3_K, 11, NULL },   { NJ_Q4_K, 14, NULL },   { NJ_Q5_K, 16, NULL },
    { NJ_Q6_K, 18, NULL },   { NJ_IQ4_NL, 25, NULL }, { NJ_IQ4_XS, 30, NULL }, { NJ_MXFP4, 38, NULL },
    { NJ_MIX_Q4_K_M, 15, "q4_k_m" }, { NJ_MIX_Q5_K_M, 17, "q5_k_m" },
    // clang-format on
};
#define MIXES (sizeof mixes / sizeof *mixes)

static const struct mix *mix_of(int id)
{
    for (size_t i = 0; i < MIXES; i++)
        if (mixes[i].id == id) return &mixes[i];
    return NULL;
}

int nj_mix_find(const char *name)
{
    for (size_t i = 0; i < MIXES; i++)
        if (!strcasecmp(name, nj_mix_name(mixes[i].id))) return mixes[i].id;
    return -1;
}

const char *nj_mix_name(int mix)
{
    const struct mix *m = mix_of(mix);
    return m && m->name ? m->name : nj_format_name((uint32_t)mix);
}

uint32_t nj_mix_file_type(int mix)
{
    const struct mix *m = mix_of(mix);
    return m ? m->file_type : 0;
}

/* The part of a tensor's name behind "blk.N.", with N in *layer; else the whole name, and -1. */
static const char *part_of(const char *name, long *layer)
{
    char *end;
    *layer = -1;
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9') return name;
    long n = strtol(name + 4, &end, 10);
    if (*end != '.') return name;
    *layer = n;
    return end + 1;
}

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && !strcmp(text + a - b, end);
}

/* Small tensors whose rounding costs much and saves nothing. */
static bool stays_f32(const char *part, const uint64_t *dims, uint32_t dims_count)
{
    bool is_vector = true;
    for (uint32_t i = 1; i < dims_count; i++)
        if (dims[i] != 1) is_vector = false;
    return is_vector || !ends_with(part, ".weight") || strstr(part, "norm") || !strncmp(part, "ffn_gate_inp", 12) ||
           !strncmp(part, "rope_", 5);
}

/* Layers near both ends, and every third between, are the sensitive ones. */
static bool is_sensitive(long layer, uint32_t layers)
{
    long eighth = layers / 8;
    return layer < eighth || layer >= 7 * (long)layers / 8 || (layer - eighth) % 3 == 2;
}

/* The type, or `floor` where that has more bits. */
static uint32_t at_least(uint32_t type, uint32_t floor)
{
    uint32_t weights, bytes, floor_weights, floor_bytes;
    if (!nj_format_size(type, &weights, &bytes) || !nj_format_size(floor, &floor_weights, &floor_bytes)) return type;
    return bytes * floor_weights < floor_bytes * weights ? floor : type;
}

/* What the part of a layer gets from a mix whose plain type is `base`. */
static uint32_t type_of_part(uint32_t base, bool k_m, const nj_mix_model *model, const char *part, long layer)
{
    bool is_v = !strcmp(part, "attn_v.weight");
    if (model->experts && (is_v || !strcmp(part, "attn_k.weight"))) return at_least(base, NJ_Q8_0);
    if (model->experts && !strcmp(part, "attn_output.weight")) return at_least(base, NJ_Q5_K);
    if (!k_m) return base;
    if (!strcmp(part, "attn_qkv.weight")) return base == NJ_Q4_K ? NJ_Q5_K : NJ_Q6_K;
    /* ffn_down, ffn_down_exps, ffn_down_shexp */
    bool is_down = !strncmp(part, "ffn_down", 8);
    return (is_v || is_down) && is_sensitive(layer, model->layers) ? NJ_Q6_K : base;
}

/* The type itself, or the nearest with a block that divides the row. */
static uint32_t fit_row(uint32_t type, uint64_t row)
{
    if (nj_row_bytes(type, row)) return type;
    uint32_t small = type == NJ_Q4_K ? NJ_Q5_0 : type == NJ_Q5_K ? NJ_Q5_1 : type == NJ_Q6_K ? NJ_Q8_0 : NJ_IQ4_NL;
    return nj_row_bytes(small, row) ? small : NJ_F16;
}

uint32_t nj_mix_type(int mix, const nj_mix_model *model, const char *name, const uint64_t *dims, uint32_t dims_count)
{
    long layer;
    const char *part = part_of(name, &layer);
    if (dims_count == 0 || stays_f32(part, dims, dims_count)) return NJ_F32;

    bool k_m = mix == NJ_MIX_Q4_K_M || mix == NJ_MIX_Q5_K_M;
    uint32_t type = k_m ? (mix == NJ_MIX_Q4_K_M ? NJ_Q4_K : NJ_Q5_K) : (uint32_t)mix;
    if (layer >= 0) type = type_of_part(type, k_m, model, part, layer);
    bool is_output = !strcmp(name, "output.weight") || (model->tied && !strcmp(name, "token_embd.weight"));
    return fit_row(is_output ? at_least(type, NJ_Q6_K) : type, dims[0]);
}
