/* Rounding weights to block formats: error limits, hostile values, determinism; and the types that mixes give. */
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "quant/nj_quant.h"

#define ROW  4096
#define ROWS 32

/* Error for Gaussian rows relative to their RMS: the most allowed, which is what the best quantizers reach. */
static const struct limit {
    uint32_t type;
    double rms;
    bool exact_again; /* encoding the decoded values gives them again */
} limits[] = {
    // clang-format off
    { NJ_Q8_0,   0.0055, false }, { NJ_Q6_K,   0.0180, false }, { NJ_Q5_1, 0.0385, false }, { NJ_Q5_0, 0.0432, true },
    { NJ_Q5_K,   0.0370, false }, { NJ_Q4_K,   0.0730, false }, { NJ_IQ4_NL, 0.0775, true },
    { NJ_IQ4_XS, 0.0785, false }, { NJ_Q4_1,   0.0795, false }, { NJ_Q4_0, 0.0870, true },
    { NJ_Q3_K,   0.154,  false }, { NJ_Q2_K,   0.302,  false }, { NJ_MXFP4, 0.115, true },
    { NJ_F16,  0.00025,  true },  { NJ_BF16,   0.0018, true },  { NJ_F32,  0,      true },
    // clang-format on
};
#define LIMITS (sizeof limits / sizeof *limits)

static uint64_t random_state;

static double uniform(void) /* in (0, 1) */
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(random_state >> 12) + 0.5) / (double)(1ull << 52);
}

static float gaussian(void)
{
    double radius = sqrt(-2 * log(uniform()));
    return (float)(radius * cos(2 * M_PI * uniform()));
}

struct rows {
    float *x, *decoded, *again;
    uint8_t *blocks;
    size_t n;
};

static struct rows rows_new(size_t n)
{
    struct rows r = { calloc(n, 4), calloc(n, 4), calloc(n, 4), calloc(n, 4), n };
    assert_true(r.x && r.decoded && r.again && r.blocks);
    random_state = 1;
    for (size_t i = 0; i < n; i++) r.x[i] = gaussian();
    return r;
}

static void rows_free(struct rows *r)
{
    free(r->x);
    free(r->decoded);
    free(r->again);
    free(r->blocks);
}

static double energy(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

static double squared_error(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sum;
}

static void round_trip(uint32_t type, const float *x, void *blocks, float *decoded, size_t n)
{
    nj_encode(type, x, blocks, n);
    nj_decode(type, blocks, decoded, n);
}

/* How well each format keeps Gaussian weights, and how fast it is written; prints the table. */
static void gaussian_rows_keep_within_the_limits(void **state)
{
    (void)state;
    struct rows r = rows_new(ROW * ROWS);
    printf("type     RMS error   limit    million weights/s, 1 thread\n");
    for (size_t k = 0; k < LIMITS; k++) {
        struct timespec a, b;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        nj_encode(limits[k].type, r.x, r.blocks, r.n);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        nj_decode(limits[k].type, r.blocks, r.decoded, r.n);
        double rms = sqrt(squared_error(r.x, r.decoded, r.n) / energy(r.x, r.n));
        double seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        printf("%-8s %9.5f   %.5f  %6.1f\n", nj_format_name(limits[k].type), rms, limits[k].rms,
               1e-6 * (double)r.n / seconds);
        if (rms > limits[k].rms) fail_msg("%s: RMS error %g", nj_format_name(limits[k].type), rms);
    }
    rows_free(&r);
}

/* Rows of real models have small weights: at 0.001 their scales are subnormal half floats, and it must not matter. */
static void small_weights_lose_little(void **state)
{
    (void)state;
    struct rows r = rows_new(ROW * 8);
    for (size_t i = 0; i < r.n; i++) r.x[i] *= 1e-3f;
    for (size_t k = 0; k < LIMITS; k++) {
        round_trip(limits[k].type, r.x, r.blocks, r.decoded, r.n);
        double rms = sqrt(squared_error(r.x, r.decoded, r.n) / energy(r.x, r.n));
        if (rms > limits[k].rms) fail_msg("%s: RMS error %g", nj_format_name(limits[k].type), rms);
    }
    rows_free(&r);
}

/* The largest error of a plain rounding of n weights whose scales are rounded too, as a share of the peaks: half a step
 * of the levels under the block's own peak, and half a step of the scale levels under the super-block's. */
static const struct bound {
    uint32_t type;
    size_t sub;    /* weights of a (sub-)block */
    double levels; /* from 0, or from the min, to the last that both signs have */
    double scales; /* levels of the sub-block scales; 0: half floats */
    bool affine;
} bounds[] = {
    { NJ_Q8_0, 32, 127, 0, false },  { NJ_Q5_0, 32, 15, 0, false },    { NJ_Q4_0, 32, 7, 0, false },
    { NJ_Q5_1, 32, 31, 0, true },    { NJ_Q4_1, 32, 15, 0, true },     { NJ_Q6_K, 16, 31, 127, false },
    { NJ_Q5_K, 32, 31, 63, true },   { NJ_Q4_K, 32, 15, 63, true },    { NJ_Q3_K, 16, 3, 31, false },
    { NJ_Q2_K, 16, 3, 15, true },    { NJ_IQ4_NL, 32, 4.7, 0, false }, { NJ_IQ4_XS, 32, 4.7, 31, false },
    { NJ_MXFP4, 32, 1.5, 0, false },
};

/* What a scale must span: magnitudes, or the range of values and, for sub-blocks whose min is at most 0, of 0. */
static double span(const struct bound *b, const float *x, size_t n)
{
    double lo = x[0], hi = x[0];
    for (size_t i = 1; i < n; i++) {
        lo = fmin(lo, x[i]);
        hi = fmax(hi, x[i]);
    }
    if (!b->affine) return fmax(-lo, hi);
    return b->scales > 0 ? fmax(hi, 0) - fmin(lo, 0) : hi - lo;
}

/* Heavy-tailed rows, as real weights are: no super-block has more squared error than the plain bound of its blocks. */
static void every_block_keeps_within_its_bound(void **state)
{
    (void)state;
    struct rows r = rows_new(ROW * 8);
    for (size_t i = 0; i < r.n; i += 1 + i % 97) r.x[i] *= (float)(1 / sqrt(uniform()));
    for (size_t k = 0; k < sizeof bounds / sizeof *bounds; k++) {
        const struct bound *b = &bounds[k];
        round_trip(b->type, r.x, r.blocks, r.decoded, r.n);
        for (size_t i = 0; i < r.n; i += 256) {
            double allowed = 0, scales = b->scales > 0 ? span(b, r.x + i, 256) / (2 * b->scales) : 0;
            for (size_t j = i; j < i + 256; j += b->sub) {
                double most = span(b, r.x + j, b->sub) / (2 * b->levels) + (b->affine ? 2 : 1) * scales;
                allowed += (double)b->sub * most * most;
            }
            double error = squared_error(r.x + i, r.decoded + i, 256);
            if (error > allowed) fail_msg("%s at %zu: %g of %g", nj_format_name(b->type), i, error, allowed);
        }
    }
    rows_free(&r);
}

static void the_encodable_types_are_those_listed(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < NJ_TYPE_COUNT + 4; type++) {
        bool listed = false;
        for (size_t k = 0; k < LIMITS; k++) listed |= limits[k].type == type;
        assert_int_equal(nj_can_encode(type), listed);
    }
}

/* Values that sit on the edges of float and half: what each block of 256 holds. */
enum {
    ZEROS,
    CONSTANT,
    NEGATIVE,
    OFFSET,
    HUGE_VALUES,
    LARGEST,
    DENORMAL,
    TINIEST,
    SPIKE,
    WILD,
    STEP,
    HALF_EDGE,
    KINDS
};

static float hostile(int kind, size_t i)
{
    switch (kind) {
    case ZEROS: return i % 2 ? 0.0f : -0.0f;
    case CONSTANT: return 1000.3f;
    case NEGATIVE: return -0.7f;
    case OFFSET: return -1000.0f + gaussian();
    case HUGE_VALUES: return 1e30f * gaussian();
    case LARGEST: return i % 3 ? FLT_MAX : -FLT_MAX;
    case DENORMAL: return 1e-40f * gaussian();
    case TINIEST: return FLT_TRUE_MIN;
    case SPIKE: return i == 77 ? 3e38f : 1e-30f;
    case WILD: return ldexpf(gaussian(), (int)(uniform() * 240) - 120);
    case STEP: return i % 32 < 16 ? 0.0f : 1.0f;
    default: return 65504.0f * gaussian();
    }
}

/* Whatever the input, the decoded values are finite, and leaving the block out would not have been better. */
static void hostile_values_decode_finite_and_no_worse_than_zero(void **state)
{
    (void)state;
    float x[256], decoded[256];
    uint8_t blocks[1024];
    random_state = 2;
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < 256; i++) x[i] = hostile(kind, i);
        double zero = energy(x, 256);
        for (size_t k = 0; k < LIMITS; k++) {
            round_trip(limits[k].type, x, blocks, decoded, 256);
            for (size_t i = 0; i < 256; i++)
                if (!isfinite(decoded[i])) fail_msg("%s, kind %d: not finite", nj_format_name(limits[k].type), kind);
            double error = squared_error(x, decoded, 256);
            if (error > zero * (1 + 1e-6))
                fail_msg("%s, kind %d: error %g of %g", nj_format_name(limits[k].type), kind, error, zero);
        }
    }
}

static void zero_rows_decode_to_zero(void **state)
{
    (void)state;
    float x[256] = { 0 }, decoded[256];
    uint8_t blocks[1024];
    for (size_t k = 0; k < LIMITS; k++) {
        round_trip(limits[k].type, x, blocks, decoded, 256);
        for (int i = 0; i < 256; i++) assert_true(decoded[i] == 0);
    }
}

/* A block of one value keeps it to the precision of a half float, where the format can hold it at all. */
static void constant_rows_are_kept(void **state)
{
    (void)state;
    float x[256], decoded[256];
    uint8_t blocks[1024];
    static const float values[] = { 1, -1, 0.013f, -250.3f };
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (int i = 0; i < 256; i++) x[i] = values[v];
        for (size_t k = 0; k < LIMITS; k++) {
            if (limits[k].type == NJ_MXFP4) continue; /* its scales are powers of two */
            round_trip(limits[k].type, x, blocks, decoded, 256);
            double rms = sqrt(squared_error(x, decoded, 256) / energy(x, 256));
            if (rms > 0.005) fail_msg("%s of %g: %g", nj_format_name(limits[k].type), (double)values[v], rms);
        }
    }
}

static void values_not_finite_count_as_zero(void **state)
{
    (void)state;
    struct rows r = rows_new(512);
    uint8_t *other = calloc(r.n, 4);
    assert_non_null(other);
    for (size_t k = 0; k < LIMITS; k++) {
        r.x[3] = NAN, r.x[40] = INFINITY, r.x[300] = -INFINITY;
        nj_encode(limits[k].type, r.x, r.blocks, r.n);
        r.x[3] = r.x[40] = r.x[300] = 0;
        nj_encode(limits[k].type, r.x, other, r.n);
        assert_memory_equal(r.blocks, other, nj_row_bytes(limits[k].type, r.n));
    }
    free(other);
    rows_free(&r);
}

/* Blocks depend on their own weights alone: rows may be cut anywhere among threads. Output may lie at odd addresses. */
static void a_row_is_its_blocks(void **state)
{
    (void)state;
    struct rows r = rows_new(1024);
    uint8_t *pieces = calloc(r.n + 1, 4);
    assert_non_null(pieces);
    for (size_t k = 0; k < LIMITS; k++) {
        uint64_t bytes = nj_row_bytes(limits[k].type, 256);
        nj_encode(limits[k].type, r.x, r.blocks, r.n);
        for (size_t i = 0; i < 4; i++) nj_encode(limits[k].type, r.x + 256 * i, pieces + 1 + bytes * i, 256);
        assert_memory_equal(r.blocks, pieces + 1, 4 * bytes);
    }
    free(pieces);
    rows_free(&r);
}

/* Doubling weights doubles their decoded values: the search sees no absolute size. */
static void encoding_scales_with_powers_of_two(void **state)
{
    (void)state;
    struct rows r = rows_new(ROW);
    for (size_t k = 0; k < LIMITS; k++) {
        round_trip(limits[k].type, r.x, r.blocks, r.decoded, r.n);
        for (size_t i = 0; i < r.n; i++) r.again[i] = r.x[i] * 32;
        round_trip(limits[k].type, r.again, r.blocks, r.again, r.n);
        for (size_t i = 0; i < r.n; i++)
            if (r.again[i] != 32 * r.decoded[i]) fail_msg("%s at %zu", nj_format_name(limits[k].type), i);
    }
    rows_free(&r);
}

/* Quantizing what was quantized before loses nothing, or little beside the first loss where a format has many levels or
 * two kinds of scales. */
static void encoding_decoded_values_loses_next_to_nothing(void **state)
{
    (void)state;
    struct rows r = rows_new(ROW * 4);
    for (size_t k = 0; k < LIMITS; k++) {
        round_trip(limits[k].type, r.x, r.blocks, r.decoded, r.n);
        round_trip(limits[k].type, r.decoded, r.blocks, r.again, r.n);
        double rms = sqrt(squared_error(r.decoded, r.again, r.n) / energy(r.x, r.n));
        if (rms > (limits[k].exact_again ? 0 : 0.2 * limits[k].rms))
            fail_msg("%s: RMS error %g", nj_format_name(limits[k].type), rms);
    }
    rows_free(&r);
}

static void half_types_round_to_nearest_even(void **state)
{
    (void)state;
    static const struct {
        float x;
        uint16_t f16, bf16;
    } cases[] = {
        { 1.0f, 0x3c00, 0x3f80 },      { 0x1.002p0f, 0x3c00, 0x3f80 }, { 0x1.006p0f, 0x3c02, 0x3f80 },
        { 0x1.01p0f, 0x3c04, 0x3f80 }, { 0x1.03p0f, 0x3c0c, 0x3f82 },  { 0x1p-24f, 0x0001, 0x3380 },
        { 0x1p-25f, 0x0000, 0x3300 },  { 0x1.8p-24f, 0x0002, 0x33c0 }, { 65519.0f, 0x7bff, 0x4780 },
        { 1e30f, 0x7bff, 0x7149 + 1 }, { -FLT_MAX, 0xfbff, 0xff7f },   { -0.0f, 0x8000, 0x8000 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint16_t h;
        nj_encode(NJ_F16, &cases[i].x, &h, 1);
        assert_int_equal(h, cases[i].f16);
        nj_encode(NJ_BF16, &cases[i].x, &h, 1);
        assert_int_equal(h, cases[i].bf16);
    }
}

/* ---- Mixes ---- */

static uint32_t type_of(int mix, nj_mix_model model, const char *name, uint64_t row)
{
    uint64_t dims[2] = { row, 512 };
    return nj_mix_type(mix, &model, name, dims, 2);
}

static const nj_mix_model dense = { .layers = 32 };
static const nj_mix_model moe = { .layers = 48, .experts = 128 };

static void norms_biases_routers_and_factors_stay_f32(void **state)
{
    (void)state;
    static const char *const names[] = {
        "blk.0.attn_norm.weight",          "blk.9.attn_q.bias",         "blk.9.ffn_gate_inp.weight",
        "blk.9.ffn_gate_inp_shexp.weight", "blk.31.attn_q_norm.weight", "output_norm.weight",
        "blk.3.rope_factors_long.weight",  "rope_freqs.weight",         "output.bias",
        "blk.3.exp_probs_b.bias"
    };
    static const int mixes[] = { NJ_MIX_Q4_K_M, NJ_MIX_Q5_K_M, NJ_Q6_K, NJ_Q8_0, NJ_Q2_K, NJ_F16, NJ_F32 };
    for (size_t m = 0; m < sizeof mixes / sizeof *mixes; m++)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            assert_int_equal(type_of(mixes[m], dense, names[i], 4096), NJ_F32);
    const uint64_t vector[2] = { 4096, 1 };
    assert_int_equal(nj_mix_type(NJ_Q8_0, &dense, "blk.0.attn_q.weight", vector, 1), NJ_F32);
    assert_int_equal(nj_mix_type(NJ_Q8_0, &dense, "blk.0.attn_q.weight", vector, 2), NJ_F32);
}

static void the_output_matrix_has_at_least_q6_k(void **state)
{
    (void)state;
    const nj_mix_model tied = { .layers = 32, .tied = true };
    static const int below[] = { NJ_MIX_Q4_K_M, NJ_MIX_Q5_K_M, NJ_Q6_K, NJ_Q2_K, NJ_Q4_0, NJ_IQ4_XS, NJ_MXFP4 };
    for (size_t m = 0; m < sizeof below / sizeof *below; m++) {
        assert_int_equal(type_of(below[m], dense, "output.weight", 4096), NJ_Q6_K);
        assert_int_equal(type_of(below[m], tied, "token_embd.weight", 4096), NJ_Q6_K);
        assert_int_equal(type_of(below[m], dense, "output.weight", 96), NJ_Q8_0);
    }
    assert_int_equal(type_of(NJ_Q8_0, dense, "output.weight", 4096), NJ_Q8_0);
    assert_int_equal(type_of(NJ_BF16, tied, "token_embd.weight", 4096), NJ_BF16);
    assert_int_equal(type_of(NJ_MIX_Q4_K_M, dense, "token_embd.weight", 4096), NJ_Q4_K);
    assert_int_equal(type_of(NJ_Q3_K, dense, "token_embd.weight", 4096), NJ_Q3_K);
}

/* Of 32 layers: 0-3, 28-31, and 6, 9, .. 27 between. */
static void k_m_mixes_raise_sensitive_layers(void **state)
{
    (void)state;
    char name[64];
    for (int layer = 0; layer < 32; layer++) {
        bool sensitive = layer < 4 || layer >= 28 || (layer - 4) % 3 == 2;
        snprintf(name, sizeof name, "blk.%d.attn_v.weight", layer);
        assert_int_equal(type_of(NJ_MIX_Q4_K_M, dense, name, 4096), sensitive ? NJ_Q6_K : NJ_Q4_K);
        snprintf(name, sizeof name, "blk.%d.ffn_down.weight", layer);
        assert_int_equal(type_of(NJ_MIX_Q5_K_M, dense, name, 4096), sensitive ? NJ_Q6_K : NJ_Q5_K);
        snprintf(name, sizeof name, "blk.%d.ffn_up.weight", layer);
        assert_int_equal(type_of(NJ_MIX_Q4_K_M, dense, name, 4096), NJ_Q4_K);
        snprintf(name, sizeof name, "blk.%d.attn_v.weight", layer);
        assert_int_equal(type_of(NJ_Q4_K, dense, name, 4096), NJ_Q4_K);
    }
    assert_int_equal(type_of(NJ_MIX_Q4_K_M, dense, "blk.20.attn_qkv.weight", 3072), NJ_Q5_K);
    assert_int_equal(type_of(NJ_MIX_Q5_K_M, dense, "blk.20.attn_qkv.weight", 3072), NJ_Q6_K);
}

static void attention_beside_experts_has_more_bits(void **state)
{
    (void)state;
    assert_int_equal(type_of(NJ_MIX_Q4_K_M, moe, "blk.20.attn_v.weight", 2048), NJ_Q8_0);
    assert_int_equal(type_of(NJ_MIX_Q4_K_M, moe, "blk.20.attn_k.weight", 2048), NJ_Q8_0);
    assert_int_equal(type_of(NJ_Q3_K, moe, "blk.20.attn_v.weight", 2048), NJ_Q8_0);
    assert_int_equal(type_of(NJ_BF16, moe, "blk.20.attn_v.weight", 2048), NJ_BF16);
    assert_int_equal(type_of(NJ_Q3_K, moe, "blk.20.attn_output.weight", 2048), NJ_Q5_K);
    assert_int_equal(type_of(NJ_Q5_1, moe, "blk.20.attn_output.weight", 2048), NJ_Q5_1);
    assert_int_equal(type_of(NJ_Q6_K, moe, "blk.20.attn_output.weight", 2048), NJ_Q6_K);
    assert_int_equal(type_of(NJ_Q3_K, dense, "blk.20.attn_output.weight", 2048), NJ_Q3_K);
    assert_int_equal(type_of(NJ_MIX_Q4_K_M, moe, "blk.20.attn_q.weight", 2048), NJ_Q4_K);
    assert_int_equal(type_of(NJ_MIX_Q4_K_M, moe, "blk.0.ffn_down_exps.weight", 768), NJ_Q6_K);
    assert_int_equal(type_of(NJ_MIX_Q4_K_M, moe, "blk.0.ffn_gate_exps.weight", 2048), NJ_Q4_K);
}

static void rows_that_blocks_do_not_divide_get_smaller_blocks(void **state)
{
    (void)state;
    static const int pairs[][2] = { { NJ_Q2_K, NJ_IQ4_NL }, { NJ_Q3_K, NJ_IQ4_NL }, { NJ_IQ4_XS, NJ_IQ4_NL },
                                    { NJ_Q4_K, NJ_Q5_0 },   { NJ_Q5_K, NJ_Q5_1 },   { NJ_Q6_K, NJ_Q8_0 },
                                    { NJ_Q4_0, NJ_Q4_0 },   { NJ_Q8_0, NJ_Q8_0 } };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        assert_int_equal(type_of(pairs[i][0], dense, "blk.8.attn_q.weight", 2880), pairs[i][1]);
        assert_int_equal(type_of(pairs[i][0], dense, "blk.8.attn_q.weight", 100), NJ_F16);
    }
}

static void mixes_are_found_by_name(void **state)
{
    (void)state;
    assert_int_equal(nj_mix_find("Q4_K_M"), NJ_MIX_Q4_K_M);
    assert_int_equal(nj_mix_find("q5_k_m"), NJ_MIX_Q5_K_M);
    assert_int_equal(nj_mix_find("q8_0"), NJ_Q8_0);
    assert_int_equal(nj_mix_find("iq2_xs"), -1);
    assert_int_equal(nj_mix_find(""), -1);
    assert_string_equal(nj_mix_name(NJ_MIX_Q4_K_M), "q4_k_m");
    assert_int_equal(nj_mix_file_type(NJ_MIX_Q4_K_M), 15);
    for (size_t k = 0; k < LIMITS; k++)
        assert_int_equal(nj_mix_find(nj_format_name(limits[k].type)), (int)limits[k].type);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaussian_rows_keep_within_the_limits),
        cmocka_unit_test(small_weights_lose_little),
        cmocka_unit_test(every_block_keeps_within_its_bound),
        cmocka_unit_test(the_encodable_types_are_those_listed),
        cmocka_unit_test(hostile_values_decode_finite_and_no_worse_than_zero),
        cmocka_unit_test(zero_rows_decode_to_zero),
        cmocka_unit_test(constant_rows_are_kept),
        cmocka_unit_test(values_not_finite_count_as_zero),
        cmocka_unit_test(a_row_is_its_blocks),
        cmocka_unit_test(encoding_scales_with_powers_of_two),
        cmocka_unit_test(encoding_decoded_values_loses_next_to_nothing),
        cmocka_unit_test(half_types_round_to_nearest_even),
        cmocka_unit_test(norms_biases_routers_and_factors_stay_f32),
        cmocka_unit_test(the_output_matrix_has_at_least_q6_k),
        cmocka_unit_test(k_m_mixes_raise_sensitive_layers),
        cmocka_unit_test(attention_beside_experts_has_more_bits),
        cmocka_unit_test(rows_that_blocks_do_not_divide_get_smaller_blocks),
        cmocka_unit_test(mixes_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
