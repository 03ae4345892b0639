/* Fuzzer of the chat template: the input is a template, a NUL byte, and the arguments as JSON ({} without a NUL).
 * What nj_template_render promises is asserted: bounded output, nothing half-written, an error that says something. */
#include "tests/template_build.h"

#undef NDEBUG
#include <assert.h>
#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_utf8(const nj_buf *b)
{
    for (size_t i = 0; i < b->len;) {
        unsigned char c = (unsigned char)b->data[i];
        size_t n = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
        if (!n || i + n > b->len) return false;
        for (size_t k = 1; k < n; k++)
            if (((unsigned char)b->data[i + k] & 0xC0) != 0x80) return false;
        i += n;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *source = (const char *)data, *end = size ? memchr(source, 0, size) : NULL;
    size_t len = end ? (size_t)(end - source) : size;
    const char *args = end ? end + 1 : "{}";
    nj_buf out = { 0 };
    nj_error err = { 0 };
    nj_buf_str(&out, "before");
    int rc = template_run(source, len, args, end ? size - len - 1 : 2, &out, &err);
    assert(rc <= 0 && out.len >= 6 && memcmp(out.data, "before", 6) == 0 && out.data[out.len] == '\0');
    assert(is_utf8(&out));
    if (rc) assert(out.len == 6 && err.code == rc && (err.text[0] || rc == -EBADMSG));
    assert(out.len <= 64 << 20);
    nj_buf_free(&out);
    return 0;
}
