/* Lines of a file. See lines.h. */
#include "appliance/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 18 };

int nj_lines_start(nj_lines *l, int fd, const char *path, size_t line_max, nj_error *err)
{
    struct stat st;
    *l = (nj_lines){ .fd = -1, .path = path, .bytes_max = line_max };
    if (fstat(fd, &st)) return nj_fail(err, -errno, "%s can't be read: %s.", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) {
        return nj_fail(err, -EINVAL, "%s is %s.", path, S_ISDIR(st.st_mode) ? "a folder" : "not a regular file");
    }
    l->fd = fd;
    l->limit = (uint64_t)st.st_size;
    return 0;
}

int nj_lines_open(nj_lines *l, const char *path, size_t line_max, nj_error *err)
{
    *l = (nj_lines){ .fd = -1 };
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not make us wait: it is refused */
    if (fd < 0) {
        int code = -errno;
        return nj_fail(err, code, "%s can't be opened: %s.", path, strerror(-code));
    }
    int rc = nj_lines_start(l, fd, path, line_max, err);
    if (rc)
        close(fd);
    else
        l->owned = true;
    return rc;
}

/* Reads on; 0 at the end of what the file was when opened. */
static ssize_t fill(nj_lines *l, nj_error *err)
{
    char chunk[1 << 14];
    uint64_t total = 0;
    while (total < CHUNK && l->read_at < l->limit) {
        uint64_t left = l->limit - l->read_at;
        ssize_t n = pread(l->fd, chunk, left < sizeof chunk ? left : sizeof chunk, (off_t)l->read_at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return nj_fail(err, -errno, "%s can't be read: %s.", l->path, strerror(errno));
        if (n == 0) return nj_fail(err, -EIO, "%s has become shorter while it was read.", l->path);
        nj_buf_add(&l->buf, chunk, (size_t)n);
        if (l->buf.failed) return nj_fail(err, -ENOMEM, "No memory for a line of %s.", l->path);
        l->read_at += (uint64_t)n;
        total += (uint64_t)n;
    }
    return (ssize_t)total;
}

/* Forgets the first `n` bytes of the buffer. */
static void drop(nj_lines *l, size_t n)
{
    memmove(l->buf.data, l->buf.data + n, l->buf.len - n);
    l->buf.len -= n;
    l->buf.data[l->buf.len] = '\0';
}

int nj_lines_next(nj_lines *l, nj_error *err)
{
    size_t searched = l->consumed;
    char *end = NULL;
    uint64_t skipped = 0;
    l->too_long = false;
    l->offset += l->bytes;
    for (;;) {
        size_t have = l->buf.len - searched;
        if (have && (end = memchr(l->buf.data + searched, '\n', have))) break;
        if (l->buf.len - l->consumed > l->bytes_max) { /* keep counting, stop keeping */
            l->too_long = true;
            skipped += l->buf.len - l->consumed;
            l->consumed = l->buf.len;
        }
        if (l->consumed) drop(l, l->consumed);
        l->consumed = 0;
        searched = l->buf.len;
        ssize_t got = fill(l, err);
        if (got < 0) return (int)got;
        if (got == 0) break;
    }
    l->newline = end != NULL;
    l->text = l->buf.data ? l->buf.data + l->consumed : "";
    l->len = end ? (size_t)(end - l->text) : l->buf.len - l->consumed;
    l->bytes = skipped + l->len + l->newline;
    if (!l->bytes) return 0;
    if (end) *end = '\0';
    l->consumed += l->len + l->newline;
    if (l->len > l->bytes_max) l->too_long = true;
    if (l->too_long) {
        l->text = "";
        l->len = 0;
    }
    l->number++;
    return 1;
}

void nj_lines_rewind(nj_lines *l)
{
    nj_buf_clear(&l->buf);
    l->consumed = 0;
    l->read_at = l->offset = l->bytes = l->number = 0;
}

void nj_lines_close(nj_lines *l)
{
    nj_buf_free(&l->buf);
    if (l->owned) close(l->fd);
    *l = (nj_lines){ .fd = -1 };
}
