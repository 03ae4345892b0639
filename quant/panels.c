/* Packing rows into panels, and reading a row back. The order of bits is in quant/panels.inc. */
#include <stddef.h>

#include "quant/formats.h"

/* `count` elements of `size` bytes at `offset` of a block. */
typedef struct field {
    uint16_t offset, count, size;
} field;

enum { FIELDS_MAX = 7 };

/* Fields of the body, then those of the tail; a field of no elements ends each list. */
typedef struct layout {
    field body[FIELDS_MAX + 1], tail[2];
} layout;

#define NJ_FIELD(name, member, bytes)                                                                                  \
    { offsetof(struct nj_block_##name, member), sizeof(((struct nj_block_##name *)0)->member) / (bytes), bytes },
#define NJ_WORDS(name, member)              NJ_FIELD(name, member, 4)
#define NJ_PART(name, member, first, count) { offsetof(struct nj_block_##name, member) + 4 * (first), count, 4 },
#define NJ_HALVES(name, member)             NJ_FIELD(name, member, 2)
#define NJ_BYTES(name, member)              NJ_FIELD(name, member, 1)

#define NJ_PANEL(name, sub, min, offset, max, BODY, TAIL) static const layout layout_##name = { { BODY }, { TAIL } };
#define NJ_PANEL_PLAIN(name, FIELD)                       static const layout layout_##name = { { FIELD }, { { 0 } } };
#include "quant/panels.inc"

static const layout *const layouts[NJ_TYPE_COUNT] = {
#define NJ_FORMAT(ID, name, id, weights, bytes) [id] = &layout_##name,
#include "quant/formats.inc"
};

/* Bytes that a list of fields has in one block of one row. */
static size_t fields_bytes(const field *f)
{
    size_t bytes = 0;
    for (; f->count; f++) bytes += (size_t)f->count * f->size;
    return bytes;
}

uint64_t nj_panel_bytes(uint32_t type, uint64_t cols)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(nj_row_bytes(type, cols), NJ_PANEL_ROWS, &bytes) || bytes > UINT64_MAX - 63) return 0;
    return (bytes + 63) / 64 * 64;
}

uint64_t nj_panels_bytes(uint32_t type, uint64_t rows, uint64_t cols)
{
    uint64_t panels = rows / NJ_PANEL_ROWS + (rows % NJ_PANEL_ROWS != 0), bytes;
    return __builtin_mul_overflow(nj_panel_bytes(type, cols), panels, &bytes) ? 0 : bytes;
}

/* One row's elements of one size, from a block to their places 16 elements apart. */
#define SCATTER(type)                                                                                                  \
    for (uint32_t i = 0; i < f->count; i++)                                                                            \
    memcpy(to + i * NJ_PANEL_ROWS * sizeof(type), from + i * sizeof(type), sizeof(type))
#define GATHER(type)                                                                                                   \
    for (uint32_t i = 0; i < f->count; i++)                                                                            \
    memcpy(to + i * sizeof(type), from + i * NJ_PANEL_ROWS * sizeof(type), sizeof(type))

/* Puts one row's fields of a block into its lane; returns the bytes that all 16 lanes take. */
static size_t scatter(const field *f, const uint8_t *block, uint32_t lane, uint8_t *lanes)
{
    uint8_t *base = lanes;
    for (; f->count; f++) {
        const uint8_t *from = block + f->offset;
        uint8_t *to = lanes + lane * f->size;
        if (f->size == 4)
            SCATTER(uint32_t);
        else if (f->size == 2)
            SCATTER(uint16_t);
        else
            SCATTER(uint8_t);
        lanes += (size_t)f->count * f->size * NJ_PANEL_ROWS;
    }
    return (size_t)(lanes - base);
}

/* The reverse. */
static void gather(const field *f, const uint8_t *lanes, uint32_t lane, uint8_t *block)
{
    for (; f->count; f++) {
        const uint8_t *from = lanes + lane * f->size;
        uint8_t *to = block + f->offset;
        if (f->size == 4)
            GATHER(uint32_t);
        else if (f->size == 2)
            GATHER(uint16_t);
        else
            GATHER(uint8_t);
        lanes += (size_t)f->count * f->size * NJ_PANEL_ROWS;
    }
}

/* Formats of one weight per block go by runs of columns, so that a run's lines stay in L1 while 16 rows fill them. */
enum { RUN_COLS = 64 };

static field run_field(const layout *l, uint32_t cols, uint32_t col)
{
    return (field){ 0, (uint16_t)(cols - col < RUN_COLS ? cols - col : RUN_COLS), l->body[0].size };
}

static void pack_plain(const layout *l, const uint8_t *src, uint32_t rows, uint32_t cols, uint8_t *dst)
{
    size_t size = l->body[0].size;
    for (uint32_t c = 0; c < cols; c += RUN_COLS) {
        field run[2] = { run_field(l, cols, c), { 0 } };
        for (uint32_t r = 0; r < rows; r++)
            scatter(run, src + (r * (size_t)cols + c) * size, r, dst + c * size * NJ_PANEL_ROWS);
    }
}

static void pack_blocks(const layout *l, const uint8_t *src, uint32_t rows, size_t row_bytes, uint8_t *dst)
{
    size_t body = fields_bytes(l->body), tail = fields_bytes(l->tail), blocks = row_bytes / (body + tail);
    uint8_t *tails = dst + blocks * body * NJ_PANEL_ROWS;
    for (size_t b = 0; b < blocks; b++) {
        for (uint32_t r = 0; r < rows; r++) {
            const uint8_t *block = src + r * row_bytes + b * (body + tail);
            scatter(l->body, block, r, dst + b * body * NJ_PANEL_ROWS);
            scatter(l->tail, block, r, tails + b * tail * NJ_PANEL_ROWS);
        }
    }
}

void nj_panel_pack(uint32_t type, const void *src, uint32_t rows, uint32_t cols, void *dst)
{
    uint64_t row_bytes = nj_row_bytes(type, cols), panel_bytes = nj_panel_bytes(type, cols);
    assert(rows >= 1 && rows <= NJ_PANEL_ROWS && row_bytes);
    size_t used = rows < NJ_PANEL_ROWS ? 0 : row_bytes * NJ_PANEL_ROWS;
    memset((uint8_t *)dst + used, 0, panel_bytes - used); /* all formats read zero bytes as zeros */
    if (nj_acts_of(type) == NJ_ACTS_F32)
        pack_plain(layouts[type], src, rows, cols, dst);
    else
        pack_blocks(layouts[type], src, rows, row_bytes, dst);
}

static void row_plain(const nj_panels *w, const uint8_t *panel, uint32_t lane, float *out)
{
    const layout *l = layouts[w->type];
    uint8_t values[RUN_COLS * sizeof(float)];
    for (uint32_t c = 0; c < w->cols; c += RUN_COLS) {
        field run[2] = { run_field(l, w->cols, c), { 0 } };
        gather(run, panel + (size_t)c * run->size * NJ_PANEL_ROWS, lane, values);
        nj_decode(w->type, values, out + c, run->count);
    }
}

static void row_blocks(const nj_panels *w, const uint8_t *panel, uint32_t lane, float *out)
{
    const layout *l = layouts[w->type];
    uint8_t block[256];
    uint32_t weights, bytes;
    nj_format_size(w->type, &weights, &bytes);
    size_t body = fields_bytes(l->body), tail = fields_bytes(l->tail), blocks = w->cols / weights;
    const uint8_t *tails = panel + blocks * body * NJ_PANEL_ROWS;
    assert(bytes <= sizeof block);
    for (size_t b = 0; b < blocks; b++) {
        gather(l->body, panel + b * body * NJ_PANEL_ROWS, lane, block);
        gather(l->tail, tails + b * tail * NJ_PANEL_ROWS, lane, block);
        nj_decode(w->type, block, out + b * weights, weights);
    }
}

void nj_panels_row(const nj_panels *w, uint32_t row, float *out)
{
    assert(row < w->rows);
    const uint8_t *panel = (const uint8_t *)w->data + row / NJ_PANEL_ROWS * nj_panel_bytes(w->type, w->cols);
    if (nj_acts_of(w->type) == NJ_ACTS_F32)
        row_plain(w, panel, row % NJ_PANEL_ROWS, out);
    else
        row_blocks(w, panel, row % NJ_PANEL_ROWS, out);
}

/* ---- Activation rows ---- */

nj_acts nj_acts_of(uint32_t type)
{
    return type == NJ_F32 || type == NJ_F16 || type == NJ_BF16 ? NJ_ACTS_F32 : NJ_ACTS_INT8;
}

size_t nj_acts_bytes(nj_acts form, uint32_t cols)
{
    static_assert(sizeof(nj_act_block) == 64, "an activation block is one cache line");
    size_t bytes =
        form == NJ_ACTS_INT8 ? (size_t)cols / 32 * sizeof(nj_act_block) : (size_t)cols * (form == NJ_ACTS_BF16 ? 2 : 4);
    return (bytes + 63) / 64 * 64;
}
