/* Errors, text buffers, checked arrays, time. See nj_base.h. */
#include "numa/nj_base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int nj_fail(nj_error *err, int code, const char *fmt, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    err->code = code;
    err->remedy[0] = '\0';
    return code;
}

int nj_remedy(nj_error *err, const char *fmt, ...)
{
    if (!err) return -EINVAL;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->remedy, sizeof err->remedy, fmt, args);
    va_end(args);
    return err->code;
}

int nj_error_prefix(nj_error *err, const char *fmt, ...)
{
    if (!err) return -EINVAL;
    nj_error old = *err;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    size_t len = strlen(err->text);
    snprintf(err->text + len, sizeof err->text - len, ": %s", old.text); /* a cut message is still a message */
    return err->code;
}

void *nj_array_new(size_t count, size_t size)
{
    size_t bytes;
    return count && !__builtin_mul_overflow(count, size, &bytes) ? calloc(count, size) : NULL;
}

int nj_array_grow(void *array, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap) return 0;
    size_t cap_new = *cap ? *cap : 16, bytes;
    while (cap_new < need)
        if (__builtin_mul_overflow(cap_new, 2, &cap_new)) return -ENOMEM;
    if (__builtin_mul_overflow(cap_new, size, &bytes)) return -ENOMEM;
    void *old, *grown;
    memcpy(&old, array, sizeof old); /* *array is a T* of any T: copy the pointer's bytes, don't alias its type */
    if (!(grown = realloc(old, bytes))) return -ENOMEM;
    memcpy(array, &grown, sizeof grown);
    *cap = cap_new;
    return 0;
}

/* Room for `len` more bytes and the NUL; false once the buffer has failed. */
static bool buf_reserve(nj_buf *b, size_t len)
{
    size_t need;
    if (b->failed) return false;
    if (__builtin_add_overflow(b->len, len, &need) || need == SIZE_MAX || (b->max && need > b->max)) {
        b->failed = -E2BIG;
        return false;
    }
    b->failed = nj_array_grow(&b->data, &b->cap, need + 1, 1);
    return !b->failed;
}

void nj_buf_add(nj_buf *b, const void *bytes, size_t len)
{
    if (!buf_reserve(b, len)) return;
    if (len) memcpy(b->data + b->len, bytes, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void nj_buf_str(nj_buf *b, const char *text)
{
    nj_buf_add(b, text, strlen(text));
}

void nj_buf_char(nj_buf *b, char c)
{
    nj_buf_add(b, &c, 1);
}

void nj_buf_printf(nj_buf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (len >= 0 && buf_reserve(b, (size_t)len)) {
        vsnprintf(b->data + b->len, (size_t)len + 1, fmt, again);
        b->len += (size_t)len;
    }
    va_end(again);
}

void nj_buf_clear(nj_buf *b)
{
    b->len = 0;
    b->failed = 0;
    if (b->data) b->data[0] = '\0';
}

void nj_buf_free(nj_buf *b)
{
    free(b->data);
    size_t max = b->max;
    *b = (nj_buf){ .max = max };
}

uint64_t nj_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Bytes that the character starting with `lead` should have; 1 for anything that can't start one. */
static size_t utf8_len(unsigned char lead)
{
    if (lead >= 0xF0 && lead <= 0xF4) return 4;
    if (lead >= 0xE0 && lead <= 0xEF) return 3;
    if (lead >= 0xC2 && lead <= 0xDF) return 2;
    return 1;
}

size_t nj_utf8_whole(const char *text, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)text[len - back];
        if ((c & 0xC0) == 0x80) continue;
        return utf8_len(c) > back ? len - back : len;
    }
    return len;
}
