/* The chat template's public face: compile, render, and the limits both live under. See template.h. */
#include "engine/template.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/nj_engine.h"

struct nj_template {
    tp_arena arena;
    const tp_node *body;
};

struct tp_chunk {
    tp_chunk *next;
    size_t used, cap;
    char data[];
};

enum { CHUNK_FIRST = 32 << 10, CHUNK_LARGEST = 1 << 20, STEP_BYTES = 64 };

/* ---- Failure ---- */

static _Noreturn void land(tp_ctx *c, int code)
{
    c->code = code;
    longjmp(c->landing, 1);
}

_Noreturn void tp_fail(tp_ctx *c, int code, const char *fmt, ...)
{
    char text[sizeof c->err->text - 64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    /* Names and values of the template may have been cut inside a character. */
    text[nj_utf8_whole(text, strlen(text))] = '\0';
    land(c, nj_fail(c->err, code, "chat template, line %" PRIu32 ": %s", c->line, text));
}

_Noreturn void tp_fail_text(tp_ctx *c, int code, const char *text, size_t len)
{
    size_t room = sizeof c->err->text - 1;
    if (len > room) len = room;
    land(c, nj_fail(c->err, code, "%.*s", (int)nj_utf8_whole(text, len), text));
}

_Noreturn void tp_fail_steps(tp_ctx *c)
{
    tp_fail(c, -E2BIG, "it needs more than %d million steps; does it loop over something huge?",
            TP_STEPS_MAX / 1000000);
}

void tp_enter(tp_ctx *c)
{
    tp_tick(c, 1);
    if (++c->depth > TP_EVAL_DEPTH_MAX)
        tp_fail(c, -E2BIG, "expressions, calls or values are nested too deeply (limit %d levels)", TP_EVAL_DEPTH_MAX);
}

/* ---- Memory ---- */

static size_t memory_max(const tp_ctx *c)
{
    return c->out ? TP_MEMORY_MAX : TP_TREE_MAX;
}

static _Noreturn void fail_memory(tp_ctx *c)
{
    tp_fail(c, -E2BIG, "it needs more than %zu MB of memory", memory_max(c) >> 20);
}

/* Bytes that may still be taken; the output counts twice because its buffer doubles. */
static size_t room_left(const tp_ctx *c)
{
    size_t used = c->arena.total + (c->out ? 2 * (c->out->len - c->out_start) : 0);
    return used < memory_max(c) ? memory_max(c) - used : 0;
}

static void *arena_take(tp_ctx *c, size_t bytes)
{
    tp_chunk *k = c->arena.head;
    bytes = (bytes + 15) & ~(size_t)15;
    if (!k || k->cap - k->used < bytes) {
        size_t cap = k ? 2 * k->cap : CHUNK_FIRST;
        if (cap > CHUNK_LARGEST) cap = CHUNK_LARGEST;
        if (cap < bytes) cap = bytes;
        size_t all = cap + sizeof *k;
        if (all > room_left(c)) fail_memory(c);
        tp_chunk *fresh = malloc(all);
        if (!fresh) tp_fail(c, -ENOMEM, "out of memory");
        *fresh = (tp_chunk){ .next = k, .cap = cap };
        c->arena.head = k = fresh;
        c->arena.total += all;
    }
    void *p = k->data + k->used;
    k->used += bytes;
    return p;
}

void *tp_alloc(tp_ctx *c, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > TP_MEMORY_MAX) fail_memory(c);
    tp_tick(c, bytes / STEP_BYTES);
    void *p = arena_take(c, bytes);
    return memset(p, 0, bytes);
}

void *tp_grow(tp_ctx *c, void *p, size_t old_bytes, size_t new_bytes)
{
    if (new_bytes > TP_MEMORY_MAX) fail_memory(c);
    tp_chunk *k = c->arena.head;
    size_t old_all = (old_bytes + 15) & ~(size_t)15, new_all = (new_bytes + 15) & ~(size_t)15;
    if (p && k && (char *)p + old_all == k->data + k->used && k->used - old_all + new_all <= k->cap) {
        k->used += new_all - old_all;
        return p;
    }
    if (new_bytes <= old_bytes) return p;
    tp_tick(c, old_bytes / STEP_BYTES);
    void *fresh = arena_take(c, new_bytes);
    if (old_bytes) memcpy(fresh, p, old_bytes);
    return fresh;
}

void tp_arena_free(tp_arena *a)
{
    for (tp_chunk *k = a->head, *next; k; k = next) {
        next = k->next;
        free(k);
    }
    *a = (tp_arena){ 0 };
}

/* ---- Text ---- */

static void buf_reserve(tp_ctx *c, tp_buf *b, size_t more)
{
    if (more > TP_MEMORY_MAX || b->len + more > TP_MEMORY_MAX) fail_memory(c);
    if (b->len + more <= b->cap) return;
    size_t cap = b->cap ? 2 * b->cap : 64;
    if (cap < b->len + more) cap = b->len + more;
    b->data = tp_grow(c, b->data, b->cap, cap);
    b->cap = cap;
}

void tp_put(tp_ctx *c, tp_buf *b, const char *bytes, size_t len)
{
    if (!len) return;
    tp_tick(c, 1 + len / STEP_BYTES);
    buf_reserve(c, b, len);
    memcpy(b->data + b->len, bytes, len);
    b->len += len;
}

void tp_puts(tp_ctx *c, tp_buf *b, const char *text)
{
    tp_put(c, b, text, strlen(text));
}

void tp_putc(tp_ctx *c, tp_buf *b, char ch)
{
    tp_put(c, b, &ch, 1);
}

void tp_putcp(tp_ctx *c, tp_buf *b, int32_t cp)
{
    char bytes[4];
    int n = 0;
    if (cp < 0x80) {
        bytes[n++] = (char)cp;
    } else if (cp < 0x800) {
        bytes[n++] = (char)(0xC0 | cp >> 6);
        bytes[n++] = (char)(0x80 | (cp & 0x3F));
    } else if (cp < 0x10000) {
        bytes[n++] = (char)(0xE0 | cp >> 12);
        bytes[n++] = (char)(0x80 | (cp >> 6 & 0x3F));
        bytes[n++] = (char)(0x80 | (cp & 0x3F));
    } else {
        bytes[n++] = (char)(0xF0 | cp >> 18);
        bytes[n++] = (char)(0x80 | (cp >> 12 & 0x3F));
        bytes[n++] = (char)(0x80 | (cp >> 6 & 0x3F));
        bytes[n++] = (char)(0x80 | (cp & 0x3F));
    }
    tp_put(c, b, bytes, (size_t)n);
}

void tp_pad(tp_ctx *c, tp_buf *b, const char *unit, size_t len, int64_t times)
{
    if (times <= 0 || !len) return;
    size_t total;
    if (__builtin_mul_overflow((size_t)times, len, &total)) fail_memory(c);
    buf_reserve(c, b, total); /* refuses a huge width before anything is written */
    tp_tick(c, total / STEP_BYTES);
    if (len == 1) {
        memset(b->data + b->len, unit[0], total);
    } else {
        tp_tick(c, (uint64_t)times / 8);
        for (size_t at = 0; at < total; at += len) memcpy(b->data + b->len + at, unit, len);
    }
    b->len += total;
}

void tp_put_str(tp_ctx *c, tp_buf *b, const tp_str *s)
{
    tp_put(c, b, s->data, s->len);
}

tp_value tp_done(tp_ctx *c, tp_buf *b)
{
    if (!b->len) return tp_cstr(c, "");
    b->data = tp_grow(c, b->data, b->cap, b->len); /* gives the tail back when nothing came after it */
    b->cap = b->len;
    return tp_text(c, b->data, b->len);
}

void tp_emit(tp_ctx *c, const char *bytes, size_t len)
{
    if (!len) return;
    tp_tick(c, 1 + len / STEP_BYTES);
    if (len > room_left(c) / 2) fail_memory(c);
    nj_buf_add(c->out, bytes, len);
    if (c->out->failed) tp_fail(c, c->out->failed, "the output could not be stored");
}

/* ---- Public functions ---- */

/* Jinja2 reads and writes only valid UTF-8; checked once here, so nobody below need ask again. */
static int check_utf8(const char *s, size_t len, nj_error *err)
{
    uint32_t line = 1;
    size_t good = tp_utf8_valid(s, len);
    if (good == len) return 0;
    for (size_t i = 0; i < good; i++) line += s[i] == '\n';
    return nj_fail(err, -EINVAL, "chat template, line %" PRIu32 ": this is not valid UTF-8", line);
}

int nj_template_new(nj_template **out, const char *source, size_t len, nj_error *err)
{
    nj_error own = { 0 };
    if (!err) err = &own;
    *out = NULL;
    if (len > TP_SOURCE_MAX)
        return nj_fail(err, -E2BIG, "chat template: it is %zu bytes long, the limit is %d", len, TP_SOURCE_MAX);
    int rc = check_utf8(source, len, err);
    if (rc) return rc;
    nj_template *t = nj_new(nj_template);
    tp_ctx *c = nj_new(tp_ctx);
    if (!t || !c) {
        free(t);
        free(c);
        return nj_fail(err, -ENOMEM, "chat template: out of memory");
    }
    c->err = err;
    c->line = 1;
    if (setjmp(c->landing) == 0) {
        tp_lex(c, source, len);
        t->body = tp_parse(c);
    }
    rc = c->code;
    t->arena = c->arena;
    free(c);
    if (rc)
        nj_template_free(t);
    else
        *out = t;
    return rc;
}

void nj_template_free(nj_template *t)
{
    if (!t) return;
    tp_arena_free(&t->arena);
    free(t);
}

int nj_template_render(const nj_template *t, const char *args_json, size_t len, const struct tm *now, nj_buf *out,
                       nj_error *err)
{
    nj_error own = { 0 };
    if (!err) err = &own;
    if (out->failed) return nj_fail(err, out->failed, "chat template: the output buffer had failed before");
    tp_ctx *c = nj_new(tp_ctx);
    if (!c) return nj_fail(err, -ENOMEM, "chat template: out of memory");
    c->err = err;
    c->out = out;
    c->out_start = out->len;
    c->now = now;
    int rc = tp_args_parse(c, args_json, len, err);
    if (rc == 0 && setjmp(c->landing) == 0) tp_render(c, t->body);
    if (rc == 0) rc = c->code;
    if (rc && out->data) {
        out->len = c->out_start; /* nothing half-rendered */
        out->data[out->len] = '\0';
    }
    tp_arena_free(&c->arena);
    free(c);
    return rc;
}
