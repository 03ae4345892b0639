/* AMX (Sapphire Rapids and later): products of tiles, 16 rows by 16 outputs at a time; for few rows, and for all else,
 * AVX-512 with VNNI.
 *
 * What follows is estimated, not yet run on hardware. In cycles of one core: a tile load 8 (two rows a cycle), a tile
 * store 16, a product of tiles 16, whose results are there 52 cycles later; two 512-bit vector operations, two loads
 * and a store a cycle; L2 gives up to 64 bytes a cycle, sustained about 48.
 *
 * Narrow recipe, per 16 rows x 16 outputs x 32 columns (8192 products), side by side:
 *   product 16 (half of its depth is used); loads of A, B, dots and scales 8 + 4 + 8 + 8; a store 16
 *   vector operations per row: dot to float, product of scales, fma, and a fourth with a minimum: 24 or 32
 * So 35 to 40 cycles, bound by the vector side: about 220 products a cycle, a fifth of the peak for bytes (1024), and
 * between two and three times what VNNI does. Formats with 16 columns to a scale take nearly twice as long. Measured on
 * Zen 4 with the tile instructions left out: the vector side alone takes 0.35 to 0.45 of the time of VNNI's kernel at
 * 128 rows, 0.55 to 0.6 at 16, 0.9 to 1.0 at 8.
 *
 * Wide recipe, per 32 rows x 32 outputs x 32 columns (32768 products), side by side:
 *   4 products 64; 4 loads 32, of which those of B from L2: 32 bytes a cycle
 * and per block of 256 columns (512 cycles): 64 lines of sums stored, then read, added to the outputs, which lie in L2
 * or beyond, and written: 16 bytes a cycle of L2, 64 cycles of stores twice; that and the latency of the last products,
 * where it doesn't overlap, about 20%. Rows are gathered once per 32 panels, 256 lines for 8192 cycles of products: 10%
 * if they come from L3. Expanding takes 3 cycles for 16 weights (Zen 4: 4.6 for Q4_K), against 16 of products with 512
 * rows: 16%. So with 512 rows 60% to 70% of the peak for BF16 (512 products a cycle), with 128 rows 45%. To try on
 * hardware: prefetching the next rows and outputs, and TILELOADDT1 for B. */
#include "quant/x86/avx512.h"
#include "quant/x86/amx.h"
#include "quant/x86/vnni.h"

#include "quant/kernels.inc"

enum { TILE_ROWS = 16 };

/* Registers 0..3 hold sums, 4 and 5 rows of activations, 6 and 7 weights, both `depth` bytes deep. */
static void tiles_begin(uint32_t depth)
{
    tile_config config = { .palette = 1 };
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = (uint16_t)(t == 4 || t == 5 ? depth : 64);
        config.rows[t] = (uint8_t)(t < 6 ? TILE_ROWS : depth / 4);
    }
    TILE_CONFIG(&config);
}

/* Runs WITH(sub, min), where both are constants, for a format's. */
#define FOR_FORM(f, WITH)                                                                                              \
    do {                                                                                                               \
        if ((f)->sub == 1 && !(f)->min) WITH(1, 0);                                                                    \
        if ((f)->sub == 1 && (f)->min) WITH(1, 1);                                                                     \
        if ((f)->sub == 2 && !(f)->min) WITH(2, 0);                                                                    \
        if ((f)->sub == 2 && (f)->min) WITH(2, 1);                                                                     \
    } while (0)

/* ---- The narrow recipe ---- */

enum {
    DOTS = 4,          /* registers of sums; their products and the additions of the four before overlap */
    TILE_ROWS_MIN = 10 /* rows that are worth a tile of 16: at 8 the vector side alone takes as long as VNNI's kernel */
};

/* One chunk of activations; [tile][row]. Rows of activations lie a power of two apart, in the same sets of L1; here
 * they are dense. */
typedef nj_act_block act_tile[TILE_ROWS];

/* Dot products of blocks 0..count of tiles t; `sub` blocks to a tile. Codes are signed. */
INLINE void dots_of(const tile32 *t, const act_tile *x, int32_t (*dot)[16][16], const uint32_t count,
                    const uint32_t sub)
{
#define DOT(i, A, B)                                                                                                   \
    if ((i) < count) {                                                                                                 \
        TILE_ZERO(i);                                                                                                  \
        TILE_LOAD(A, x[(i) / sub]->q + (i) % sub * 16, sizeof(nj_act_block));                                          \
        TILE_LOAD(B, t[(i) / sub].code[(i) % sub * 4], 64);                                                            \
        TILE_DOT_I8(i, A, B);                                                                                          \
    }
    DOT(0, 4, 6)
    DOT(1, 5, 7)
    DOT(2, 4, 6)
    DOT(3, 5, 7)
#undef DOT
#define STORE(i)                                                                                                       \
    if ((i) < count) TILE_STORE(i, dot[i], 64);
    STORE(0)
    STORE(1)
    STORE(2)
    STORE(3)
#undef STORE
}

/* Adds `count` blocks to the sums of 16 rows. */
INLINE void add_dots(const tile32 *t, const act_tile *x, float (*sums)[16], const uint32_t count, const uint32_t sub,
                     const uint32_t min)
{
    alignas(64) int32_t dot[DOTS][16][16];
    v16 scale[DOTS], minimum[DOTS];
    dots_of(t, x, dot, count, sub);
    UNROLL for (uint32_t i = 0; i < count; i++) scale[i] = v16_load(t[i / sub].scale[i % sub]);
    UNROLL for (uint32_t i = 0; i < count * min; i++) minimum[i] = v16_load(t[i / sub].min[i % sub]);
    for (uint32_t r = 0; r < TILE_ROWS; r++) {
        v16 sum = v16_load(sums[r]);
        UNROLL for (uint32_t i = 0; i < count; i++)
        {
            const nj_act_block *b = &x[i / sub][r];
            sum = v16_fma(v16_from_i32(b64_load(dot[i][r])), v16_mul(scale[i], v16_set1(b->scale)), sum);
            if (min) sum = v16_fma(minimum[i], v16_set1(sub == 1 ? b->sum : b->sum_half[i % sub]), sum);
        }
        v16_store(sums[r], sum);
    }
}

/* Adds `tiles` tiles to the sums of 16 rows. */
static void add_16_rows(const reader *f, const tile32 *t, uint32_t tiles, const act_tile *x, float (*sums)[16])
{
    uint32_t b = 0;
#define ADD(sub, min)                                                                                                  \
    do {                                                                                                               \
        for (; b + DOTS / (sub) <= tiles; b += DOTS / (sub)) add_dots(t + b, x + b, sums, DOTS, sub, min);             \
        for (; b < tiles; b++) add_dots(t + b, x + b, sums, sub, sub, min);                                            \
    } while (0)
    FOR_FORM(f, ADD);
#undef ADD
}

/* Code minus offset, a signed byte for all formats: then no product needs to be corrected. */
static void sign_codes(tile32 *t, uint32_t tiles, uint32_t offset)
{
    for (uint32_t i = 0; i < tiles; i++)
        for (uint32_t g = 0; g < 8; g++) b64_store(t[i].code[g], b64_sub8(b64_load(t[i].code[g]), BYTES(offset)));
}

/* Tiles [at, at + n) of up to 16 rows; further rows are zero. */
static void gather_acts(const nj_act_block *const *x, uint32_t rows, uint32_t at, uint32_t n, act_tile *out)
{
    for (uint32_t r = 0; r < TILE_ROWS; r++)
        for (uint32_t b = 0; b < n; b++)
            b64_store(&out[b][r], r < rows ? _mm512_loadu_si512(x[r] + at + b) : b64_words(0));
}

/* A chunk_fn. Rows past the last sixteen, if few, go before the codes become signed. */
static void add_chunk_by_tiles(const narrow *k, tile32 (*tile)[CHUNK], uint32_t panels, uint32_t n,
                               const nj_act_block *const *x, uint32_t at, float (*sums)[GROUP_ROWS][16], uint32_t rows)
{
    alignas(64) act_tile acts[CHUNK];
    uint32_t rest = rows % TILE_ROWS < TILE_ROWS_MIN ? rows % TILE_ROWS : 0;
    rows -= rest;
    if (rest) add_chunk(k, tile, panels, n, x + rows, at, (float(*)[GROUP_ROWS][16])(sums[0] + rows), rest);
    for (uint32_t p = 0; p < panels; p++) sign_codes(tile[p], n, k->f->offset);
    for (uint32_t r = 0; r < rows; r += TILE_ROWS) {
        gather_acts(x + r, rows - r, at, n, acts);
        for (uint32_t p = 0; p < panels; p++) add_16_rows(k->f, tile[p], n, acts, sums[p] + r);
    }
}

#define NJ_PANEL(F, SUB, MIN, OFFSET, MAX, BODY, TAIL)                                                                 \
    static void tile_linear_##F(const nj_panels *w, uint32_t begin, uint32_t end, const void *const *x,                \
                                float *const *y, uint32_t rows)                                                        \
    {                                                                                                                  \
        if (rows < TILE_ROWS_MIN) {                                                                                    \
            linear_##F(w, begin, end, x, y, rows);                                                                     \
            return;                                                                                                    \
        }                                                                                                              \
        tiles_begin(32 / (SUB));                                                                                       \
        narrow_linear(&narrow_##F, add_chunk_by_tiles, w, begin, end, x, y, rows);                                     \
        TILE_RELEASE();                                                                                                \
    }
#include "quant/panels.inc"

/* ---- The wide recipe ----
 * Weights are expanded to BF16 for a group of panels, a chunk of columns at a time, which stays in L2 while all rows
 * are multiplied with it. Sums of a chunk begin at zero in the registers and are added to the outputs in ascending
 * order; so a result has the same order of sums whatever the other rows and panels are. */

enum {
    WIDE_COLS = 256, /* a chunk: 32 rows (16 KiB) stay in L1 while 32 outputs (16 KiB) pass through it */
    WIDE_STEPS = WIDE_COLS / 32,
    WIDE_ROWS = 32,      /* a block of rows */
    WIDE_PANELS_MAX = 32 /* a group: 256 KiB of stack */
};

/* 32 columns of 16 outputs as a product wants them: pairs of columns, side by side for each output. */
typedef struct bf16_tile {
    alignas(64) uint16_t pair[16][16][2];
} bf16_tile;

/* 32 columns of a block of rows. */
typedef struct bf16_rows {
    alignas(64) uint16_t row[WIDE_ROWS][32];
} bf16_rows;

/* Columns [col, col + cols) of a panel, at most WIDE_COLS; zeros after them up to the end of the last tile. */
typedef void expand_fn(const nj_panels *w, uint32_t panel, uint32_t col, uint32_t cols, bf16_tile *out);

/* 16 halves of one column and 16 of the next, as pairs. */
INLINE b64 interleave(b64 columns)
{
    static const alignas(64) uint16_t order[32] = { 0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 };
    return _mm512_permutexvar_epi16(b64_load(order), columns);
}

/* Rounds two columns to nearest even; denormals become zero, as they are to the product. */
INLINE b64 bf16_pairs(v16 first, v16 second)
{
    return interleave((b64)_mm512_cvtne2ps_pbh(second, first));
}

INLINE b64 pairs_of_bf16(const uint8_t *at)
{
    return interleave(b64_load(at));
}

INLINE b64 pairs_of_f16(const uint8_t *at)
{
    return bf16_pairs(v16_load_f16(at), v16_load_f16(at + 32));
}

/* An odd last column pairs with a column of zeros, with which panels end. */
#define EXPAND_HALVES(F)                                                                                               \
    static void expand_##F(const nj_panels *w, uint32_t panel, uint32_t col, uint32_t cols, bf16_tile *out)            \
    {                                                                                                                  \
        const uint8_t *at = (const uint8_t *)w->data + panel * nj_panel_bytes(w->type, w->cols) + (size_t)32 * col;    \
        for (uint32_t c = 0; c < (cols + 31) / 32 * 32; c += 2)                                                        \
            b64_store(out[c / 32].pair[c % 32 / 2], c < cols ? pairs_of_##F(at + 32 * c) : b64_words(0));              \
    }
EXPAND_HALVES(f16)
EXPAND_HALVES(bf16)
#undef EXPAND_HALVES

/* Byte `column` of each word as a word. */
INLINE b64 byte_of(b64 code, uint32_t column)
{
    __m128i pick = _mm_add_epi32(_mm_set_epi32(12, 8, 4, 0), _mm_set1_epi32((int)(0x80808000 + column)));
    return _mm512_shuffle_epi8(code, _mm512_broadcast_i32x4(pick));
}

/* Value = scale * code + minimum, as in quant/decode.h, then rounded. */
INLINE void expand_tile(const tile32 *t, uint32_t offset, bf16_tile *out, const uint32_t sub, const uint32_t min)
{
    UNROLL for (uint32_t g = 0; g < 8; g++)
    {
        const uint32_t i = g / (8 / sub);
        v16 scale = v16_load(t->scale[i]), minimum = min ? v16_load(t->min[i]) : v16_zero(), value[4];
        b64 code = b64_load(t->code[g]);
        UNROLL for (uint32_t c = 0; c < 4; c++)
        {
            b64 whole = min ? byte_of(code, c) : b64_sub32(byte_of(code, c), b64_words(offset));
            value[c] = v16_mul(scale, v16_from_i32(whole));
            if (min) value[c] = v16_add(value[c], minimum);
        }
        b64_store(out->pair[2 * g], bf16_pairs(value[0], value[1]));
        b64_store(out->pair[2 * g + 1], bf16_pairs(value[2], value[3]));
    }
}

static void expand_blocks(const narrow *k, const nj_panels *w, uint32_t panel, uint32_t col, uint32_t cols,
                          bf16_tile *out)
{
    tile32 t[WIDE_STEPS];
    uint32_t tiles = cols / 32;
    unpack_tiles(k, w, panel, col / 32, tiles, t);
#define EXPAND(sub, min)                                                                                               \
    for (uint32_t i = 0; i < tiles; i++) expand_tile(&t[i], k->f->offset, &out[i], sub, min)
    FOR_FORM(k->f, EXPAND);
#undef EXPAND
}

#define NJ_PANEL(F, SUB, MIN, OFFSET, MAX, BODY, TAIL)                                                                 \
    static void expand_##F(const nj_panels *w, uint32_t panel, uint32_t col, uint32_t cols, bf16_tile *out)            \
    {                                                                                                                  \
        static_assert((MIN) == 0 || (OFFSET) == 0, "codes with a minimum are not negative");                           \
        expand_blocks(&narrow_##F, w, panel, col, cols, out);                                                          \
    }
#include "quant/panels.inc"

/* Columns [col, col + cols) of up to WIDE_ROWS rows, dense (see act_tile); zeros past them to the end of the last tile.
 */
static void gather_rows(const uint16_t *const *x, uint32_t rows, uint32_t col, uint32_t cols, bf16_rows *out)
{
    for (uint32_t r = 0; r < (rows + 15) / 16 * 16; r++)
        for (uint32_t c = 0; c < cols; c += 32) {
            uint32_t left = r < rows ? cols - c : 0;
            __mmask32 mask = left < 32 ? (1u << left) - 1 : UINT32_MAX;
            b64_store(out[c / 32].row[r], _mm512_maskz_loadu_epi16(mask, r < rows ? x[r] + col + c : x[0]));
        }
}

/* 16 * R rows times P panels: sums[2 * i + p] is of rows 16 * i and panel p. */
INLINE void multiply(const bf16_rows *a, const bf16_tile (*b)[WIDE_STEPS], uint32_t steps, float (*sums)[16][16],
                     const uint32_t R, const uint32_t P)
{
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (uint32_t s = 0; s < steps; s++) {
        TILE_LOAD(4, a[s].row[0], 64);
        TILE_LOAD(6, b[0][s].pair, 64);
        TILE_DOT_BF16(0, 4, 6);
        if (P > 1) {
            TILE_LOAD(7, b[1][s].pair, 64);
            TILE_DOT_BF16(1, 4, 7);
        }
        if (R > 1) {
            TILE_LOAD(5, a[s].row[16], 64);
            TILE_DOT_BF16(2, 5, 6);
            if (P > 1) TILE_DOT_BF16(3, 5, 7);
        }
    }
    TILE_STORE(0, sums[0], 64);
    if (P > 1) TILE_STORE(1, sums[1], 64);
    if (R > 1) TILE_STORE(2, sums[2], 64);
    if (R > 1 && P > 1) TILE_STORE(3, sums[3], 64);
}

/* Adds sums of a chunk to the outputs of a panel; the first chunk's begin them. */
INLINE void add_outputs(const nj_panels *w, uint32_t panel, bool first, const float *sums, float *y)
{
    uint32_t at = panel * NJ_PANEL_ROWS, left = w->rows - at;
    __mmask16 mask = (__mmask16)(left < NJ_PANEL_ROWS ? (1u << left) - 1 : UINT16_MAX);
    v16 before = first ? v16_zero() : _mm512_maskz_loadu_ps(mask, y + at);
    _mm512_mask_storeu_ps(y + at, mask, v16_add(before, v16_load(sums)));
}

/* A block of rows times a group of panels, one chunk of columns. */
static void wide_block(const nj_panels *w, uint32_t panel, uint32_t panels, const bf16_rows *a,
                       const bf16_tile (*b)[WIDE_STEPS], uint32_t steps, bool first, float *const *y, uint32_t rows)
{
    alignas(64) float sums[4][16][16];
    for (uint32_t p = 0; p < panels; p += 2) {
        bool two = p + 1 < panels;
        if (rows > 16 && two) multiply(a, b + p, steps, sums, 2, 2);
        if (rows > 16 && !two) multiply(a, b + p, steps, sums, 2, 1);
        if (rows <= 16 && two) multiply(a, b + p, steps, sums, 1, 2);
        if (rows <= 16 && !two) multiply(a, b + p, steps, sums, 1, 1);
        for (uint32_t r = 0; r < rows; r++) {
            add_outputs(w, panel + p, first, sums[r / 16 * 2][r % 16], y[r]);
            if (two) add_outputs(w, panel + p + 1, first, sums[r / 16 * 2 + 1][r % 16], y[r]);
        }
    }
}

/* Panels whose chunk takes a quarter of L2, beside rows and outputs. */
static uint32_t wide_panels(void)
{
    size_t panels = nj_l2_bytes() / 4 / sizeof(bf16_tile[WIDE_STEPS]);
    return panels < 2 ? 2 : panels < WIDE_PANELS_MAX ? (uint32_t)panels / 2 * 2 : WIDE_PANELS_MAX;
}

static void wide_linear(expand_fn *expand, const nj_panels *w, uint32_t begin, uint32_t end, const void *const *x,
                        float *const *y, uint32_t rows)
{
    bf16_tile b[WIDE_PANELS_MAX][WIDE_STEPS];
    bf16_rows a[WIDE_STEPS];
    const uint16_t *const *xs = (const uint16_t *const *)x;
    const uint32_t group = wide_panels();
    tiles_begin(64);
    for (uint32_t panel = begin; panel < end; panel += group) {
        uint32_t panels = end - panel < group ? end - panel : group;
        for (uint32_t col = 0; col < w->cols; col += WIDE_COLS) {
            uint32_t cols = w->cols - col < WIDE_COLS ? w->cols - col : WIDE_COLS;
            for (uint32_t p = 0; p < panels; p++) expand(w, panel + p, col, cols, b[p]);
            for (uint32_t r = 0; r < rows; r += WIDE_ROWS) {
                uint32_t n = rows - r < WIDE_ROWS ? rows - r : WIDE_ROWS;
                gather_rows(xs + r, n, col, cols, a);
                wide_block(w, panel, panels, a, b, (cols + 31) / 32, col == 0, y + r, n);
            }
        }
    }
    TILE_RELEASE();
}

#define WIDE(F)                                                                                                        \
    static void wide_##F(const nj_panels *w, uint32_t begin, uint32_t end, const void *const *x, float *const *y,      \
                         uint32_t rows)                                                                                \
    {                                                                                                                  \
        wide_linear(expand_##F, w, begin, end, x, y, rows);                                                            \
    }
WIDE(f16)
WIDE(bf16)
#define NJ_PANEL(F, SUB, MIN, OFFSET, MAX, BODY, TAIL) WIDE(F)
#include "quant/panels.inc"

#define KERNELS           nj_kernels_amx
#define TIER              NJ_ISA_AMX
#define LINEAR(name)      tile_linear_##name
#define LINEAR_WIDE(name) wide_##name
#include "quant/kernels_table.inc"
