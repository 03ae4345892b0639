/* The tile instructions of AMX, by the compiler's intrinsics. With NJ_AMX_EMULATED: the same in plain C, as Intel's
 * manual defines them (SDM volume 2), so that tests can run the kernels on a CPU that has AVX-512 but no tiles. Numbers
 * of tile registers are literals.
 *   TILE_CONFIG(config)     shapes of the eight registers, which become zero; TILE_RELEASE() ends their use
 *   TILE_ZERO(t)  TILE_LOAD(t, p, stride)  TILE_STORE(t, p, stride)    rows `stride` bytes apart
 *   TILE_DOT_I8(c, a, b)    c[m][n] += sum over k and j < 4 of a[m][4 * k + j] * b[k][4 * n + j], signed bytes, exact
 *   TILE_DOT_BF16(c, a, b)  c[m][n] += even + odd: sums over k, in ascending order, one fma each, of
 *                           a[m][2 * k + j] * b[k][2 * n + j] for j = 0 and j = 1; denormals count and come out as 0 */
#ifndef NJ_QUANT_X86_AMX_H
#define NJ_QUANT_X86_AMX_H

#include <assert.h>
#include <stdalign.h>
#include <stdint.h>

/* What LDTILECFG reads. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16]; /* of registers 0..7, then zeros */
    uint8_t rows[16];
} tile_config;

static_assert(sizeof(tile_config) == 64, "LDTILECFG reads 64 bytes");

#ifndef NJ_AMX_EMULATED

#include <immintrin.h>

/* Without the barrier gcc may keep back what was written to memory: its intrinsics don't say that they read it. */
#define TILE_BARRIER __asm__ volatile("" ::: "memory")

#define TILE_CONFIG(config)                                                                                            \
    do {                                                                                                               \
        TILE_BARRIER;                                                                                                  \
        _tile_loadconfig(config);                                                                                      \
    } while (0)
#define TILE_LOAD(t, p, stride)                                                                                        \
    do {                                                                                                               \
        TILE_BARRIER;                                                                                                  \
        _tile_loadd(t, p, stride);                                                                                     \
    } while (0)
#define TILE_RELEASE()           _tile_release()
#define TILE_ZERO(t)             _tile_zero(t)
#define TILE_STORE(t, p, stride) _tile_stored(t, p, stride)
#define TILE_DOT_I8(c, a, b)     _tile_dpbssd(c, a, b)
#define TILE_DOT_BF16(c, a, b)   _tile_dpbf16ps(c, a, b)

#else

#include <float.h>
#include <math.h>
#include <string.h>

/* A thread's registers. Asserted is what hardware answers with a fault. */
static _Thread_local struct {
    tile_config config;
    struct {
        alignas(64) uint8_t row[16][64];
    } tile[8];
} emulated;

#define TILE_CONFIG(config)      emulate_config(config)
#define TILE_RELEASE()           memset(&emulated, 0, sizeof emulated)
#define TILE_ZERO(t)             memset(&emulated.tile[t], 0, sizeof emulated.tile[t])
#define TILE_LOAD(t, p, stride)  emulate_load(t, p, stride)
#define TILE_STORE(t, p, stride) emulate_store(t, p, stride)
#define TILE_DOT_I8(c, a, b)     emulate_dot_i8(c, a, b)
#define TILE_DOT_BF16(c, a, b)   emulate_dot_bf16(c, a, b)

static inline void emulate_config(const tile_config *config)
{
    static const uint8_t zero[16];
    assert(config->palette == 1 && config->start_row == 0 && memcmp(config->reserved, zero, 14) == 0);
    assert(memcmp(config->row_bytes + 8, zero, 16) == 0 && memcmp(config->rows + 8, zero, 8) == 0);
    for (int t = 0; t < 8; t++) assert(config->row_bytes[t] <= 64 && config->rows[t] <= 16);
    memset(&emulated, 0, sizeof emulated);
    emulated.config = *config;
}

/* Bytes past the configured shape become zero. */
static inline void emulate_load(int t, const void *p, size_t stride)
{
    assert(emulated.config.rows[t] && emulated.config.row_bytes[t]);
    memset(&emulated.tile[t], 0, sizeof emulated.tile[t]);
    for (size_t r = 0; r < emulated.config.rows[t]; r++)
        memcpy(emulated.tile[t].row[r], (const char *)p + r * stride, emulated.config.row_bytes[t]);
}

static inline void emulate_store(int t, void *p, size_t stride)
{
    assert(emulated.config.rows[t] && emulated.config.row_bytes[t]);
    for (size_t r = 0; r < emulated.config.rows[t]; r++)
        memcpy((char *)p + r * stride, emulated.tile[t].row[r], emulated.config.row_bytes[t]);
}

static inline void emulate_check_shapes(int c, int a, int b)
{
    const tile_config *f = &emulated.config;
    assert(c != a && a != b && c != b && f->palette == 1);
    assert(f->rows[c] == f->rows[a] && f->row_bytes[c] == f->row_bytes[b] && f->row_bytes[a] == 4 * f->rows[b]);
}

static inline void emulate_dot_i8(int c, int a, int b)
{
    emulate_check_shapes(c, a, b);
    for (int m = 0; m < emulated.config.rows[c]; m++) {
        int32_t sum[16];
        memcpy(sum, emulated.tile[c].row[m], sizeof sum);
        for (int k = 0; k < emulated.config.rows[b]; k++)
            for (int n = 0; n < 16; n++)
                for (int j = 0; j < 4; j++)
                    sum[n] += (int8_t)emulated.tile[a].row[m][4 * k + j] * (int8_t)emulated.tile[b].row[k][4 * n + j];
        memcpy(emulated.tile[c].row[m], sum, sizeof sum);
    }
}

/* A denormal as zero. */
static inline float emulate_flush(float x)
{
    return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x;
}

/* Half j of a word that holds two BF16. */
static inline float emulate_half(uint32_t word, int j)
{
    float x;
    word = j ? word & 0xffff0000 : word << 16;
    memcpy(&x, &word, sizeof x);
    return emulate_flush(x);
}

static inline void emulate_dot_bf16(int c, int a, int b)
{
    emulate_check_shapes(c, a, b);
    for (int m = 0; m < emulated.config.rows[c]; m++) {
        float sum[2][16] = { 0 }, total[16];
        uint32_t row[16], word[16];
        memcpy(row, emulated.tile[a].row[m], sizeof row);
        for (int k = 0; k < emulated.config.rows[b]; k++) {
            memcpy(word, emulated.tile[b].row[k], sizeof word);
            for (int j = 0; j < 2; j++)
                for (int n = 0; n < 16; n++)
                    sum[j][n] = emulate_flush(fmaf(emulate_half(row[k], j), emulate_half(word[n], j), sum[j][n]));
        }
        memcpy(total, emulated.tile[c].row[m], sizeof total);
        for (int n = 0; n < 16; n++)
            total[n] = emulate_flush(emulate_flush(total[n]) + emulate_flush(sum[0][n] + sum[1][n]));
        memcpy(emulated.tile[c].row[m], total, sizeof total);
    }
}

#endif
#endif
