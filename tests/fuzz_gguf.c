/* Fuzzer of the GGUF parser, its look-ups and overrides. The input is a file; its last bytes are also tried as an
 * assignment, and the whole as a header of which more is to come. What an accepted file promises is asserted. */
#include "tests/gguf_build.h"

#undef NDEBUG
#include <assert.h>
#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile double sink;

static void walk_keys(const nj_gguf *g)
{
    for (size_t i = 0; i < nj_gguf_meta_count(g); i++) {
        const nj_meta *m = nj_gguf_meta_at(g, i);
        uint64_t u64;
        uint32_t u32;
        float f32;
        bool flag;
        nj_str s;
        assert(nj_gguf_meta(g, m->key.data) == m);
        assert(m->key.data[m->key.len] == '\0');
        if (m->type == NJ_META_STRING) assert(m->s.data[m->s.len] == '\0');
        assert(nj_gguf_get_u64(g, m->key.data, &u64, NULL) != -ENOENT);
        assert(nj_gguf_get_u32(g, m->key.data, &u32, NULL) != -ENOENT);
        assert(nj_gguf_get_f32(g, m->key.data, &f32, NULL) != -ENOENT);
        assert(nj_gguf_get_bool(g, m->key.data, &flag, NULL) != -ENOENT);
        assert(nj_gguf_get_str(g, m->key.data, &s, NULL) != -ENOENT);
        for (uint64_t k = 0; k < m->count; k++) {
            if (m->item_type == NJ_META_STRING)
                assert(m->strings[k].data[m->strings[k].len] == '\0');
            else
                sink = nj_meta_item_f64(m, k) + (double)nj_meta_item_i64(m, k);
        }
    }
}

static void walk_tensors(const nj_gguf *g, size_t size)
{
    for (size_t i = 0; i < nj_gguf_tensor_count(g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(g, i);
        char last;
        assert(nj_gguf_tensor(g, t->name.data) == t);
        assert(t->bytes && t->n_dims >= 1 && t->n_dims <= 4 && t->dim[0] && t->dim[1] && t->dim[2] && t->dim[3]);
        assert(t->bytes <= size && t->offset <= size - t->bytes);
        assert(nj_gguf_read(g, t, t->bytes - 1, &last, 1, NULL) == 0);
    }
}

static void set_keys(nj_gguf *g, const uint8_t *data, size_t size)
{
    char text[64];
    size_t len = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy(text, data + size - len, len);
    text[len] = '\0';
    (void)nj_gguf_set(g, text, NULL); /* either outcome is right; walk_keys looks at what came of it */
    for (size_t i = 0; i < nj_gguf_meta_count(g) && i < 8; i++) {
        nj_buf b = { 0 };
        nj_buf_printf(&b, "%s=%s", nj_gguf_meta_at(g, i)->key.data, text);
        if (!b.failed) (void)nj_gguf_set(g, b.data, NULL);
        nj_buf_free(&b);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    nj_gguf *g = NULL;
    nj_error err = { 0 };
    int rc = nj_gguf_parse(&g, data, size, (uint64_t)size * 1000 + 1, "fuzz", &gb_types, &err);
    assert(rc ? err.text[0] && !g : g != NULL);
    nj_gguf_close(g);

    g = NULL;
    rc = nj_gguf_parse(&g, data, size, size, "fuzz", &gb_types, &err);
    assert(rc != -EAGAIN);
    if (rc) return 0;
    walk_keys(g);
    walk_tensors(g, size);
    set_keys(g, data, size);
    walk_keys(g);
    nj_gguf_close(g);
    return 0;
}
