/* Status, text buffers and checked arithmetic, shared by every room but quant/.
 *
 * Convention: a function that can fail returns 0 or a negative errno and fills an nj_error.
 * Libraries never print and never exit; only appliance/ does. */
#ifndef NJ_BASE_H
#define NJ_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NJ_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define NJ_COUNT(array)      (sizeof(array) / sizeof((array)[0]))

/* What went wrong (one plain sentence naming the file or field and the reason) and what to do about it. */
typedef struct nj_error {
    int code;         /* negative errno, 0 when nothing has failed */
    char text[1024];  /* "qwen3.gguf: tensor ... ends at byte N, the file has M." */
    char remedy[512]; /* "The download is incomplete. Fetch it again.", or "" */
} nj_error;

/* Fills `err` (may be NULL), clears its remedy and returns `code`, so that a caller can write `return nj_fail(...)`. */
int nj_fail(nj_error *err, int code, const char *fmt, ...) NJ_PRINTF(3, 4);

/* Adds the sentence that says what to do to an error already filled; returns err->code (or -EINVAL for NULL). */
int nj_remedy(nj_error *err, const char *fmt, ...) NJ_PRINTF(2, 3);

/* Puts "prefix: " before the text of an error already filled, as it passes a caller who knows the file or line. */
int nj_error_prefix(nj_error *err, const char *fmt, ...) NJ_PRINTF(2, 3);

/* One zeroed object, or NULL. Freed with free(). */
#define nj_new(type) ((type *)calloc(1, sizeof(type)))

/* A zeroed array of `count` elements of `size` bytes; NULL for an overflow, an empty array or no memory. */
void *nj_array_new(size_t count, size_t size);

/* Grows *array (elements of `size` bytes, capacity *cap) to hold at least `need` elements, doubling.
 * Returns 0, or -ENOMEM with everything unchanged. */
int nj_array_grow(void *array, size_t *cap, size_t need, size_t size);

/* A growable byte string, always NUL-terminated when `data` is not NULL. Zero-initialise, free with nj_buf_free.
 * `max` (0: none) bounds the length; once an append fails, `failed` is a negative errno (-ENOMEM or -E2BIG) and later
 * appends do nothing, so that a long chain of appends is checked once at its end. */
typedef struct nj_buf {
    char *data;
    size_t len, cap, max;
    int failed;
} nj_buf;

void nj_buf_add(nj_buf *b, const void *bytes, size_t len);
void nj_buf_str(nj_buf *b, const char *text);
void nj_buf_char(nj_buf *b, char c);
void nj_buf_printf(nj_buf *b, const char *fmt, ...) NJ_PRINTF(2, 3);
void nj_buf_clear(nj_buf *b); /* empties it, keeps the memory */
void nj_buf_free(nj_buf *b);  /* back to the zero state */

/* Monotonic time in nanoseconds. */
uint64_t nj_now_ns(void);

/* Length of the longest prefix of `text` that does not end inside a UTF-8 character. Invalid bytes count as
 * characters of their own, so that the prefix never stays behind by more than 3 bytes. */
size_t nj_utf8_whole(const char *text, size_t len);

#endif
