/* Whole files: read, written durably. */
#include "io/part.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    int code;
    const char *remedy;
} write_remedies[] = {
    { ENOSPC, "Free some space on that drive, or write to another one." },
    { EDQUOT, "Your disk quota is used up: free some space, or write elsewhere." },
    { EFBIG, "A limit (`ulimit -f`) or the file system forbids files this large; write elsewhere." },
    { EACCES, "Write to a folder that you may change." },
    { EPERM, "Write to a folder that you may change." },
    { EROFS, "Write to a folder that you may change." },
    { ENOENT, "Create its folder first." },
    { EIO, "The drive or the connection to it may be failing; see `dmesg`." },
};

/* "PATH: can't be written: REASON." with what can be done about it; `code` is a positive errno. */
static int write_failed(const char *path, int code, nj_error *err)
{
    nj_fail(err, -code, "%s: can't be written: %s.", path, strerror(code));
    for (size_t i = 0; i < NJ_COUNT(write_remedies); i++)
        if (write_remedies[i].code == code) nj_remedy(err, "%s", write_remedies[i].remedy);
    return -code;
}

/* ---- Parts ---- */

int nj_part_open(nj_part *p, const char *path, nj_error *err)
{
    struct stat st;
    bool there = !stat(path, &st), direct = there && !S_ISREG(st.st_mode);
    *p = (nj_part){ .fd = -1 };
    if (there && S_ISDIR(st.st_mode)) return write_failed(path, EISDIR, err);
    p->path = there && !direct ? realpath(path, NULL) : strdup(path);
    if (!p->path || (!direct && asprintf(&p->part, "%s.part", p->path) < 0)) {
        p->part = NULL;
        nj_part_drop(p);
        return nj_fail(err, -ENOMEM, "%s: not enough memory.", path);
    }
    int flags = direct ? O_WRONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
    p->fd = open(direct ? p->path : p->part, flags, 0666);
    if (p->fd < 0) {
        int rc = write_failed(direct ? p->path : p->part, errno, err);
        free(p->part); /* not ours: it must not be removed */
        p->part = NULL;
        nj_part_drop(p);
        return rc;
    }
    /* A private file stays private. Where that is not allowed (vfat), the mode means nothing anyway. */
    if (there && !direct && fchmod(p->fd, st.st_mode & 0777) && errno != EPERM) {
        int rc = write_failed(p->part, errno, err);
        nj_part_drop(p);
        return rc;
    }
    return 0;
}

int nj_part_reserve(nj_part *p, uint64_t bytes, nj_error *err)
{
    if (!p->part || !bytes) return 0;
    while (fallocate(p->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes)) {
        if (errno == EINTR) continue;
        if (errno != ENOSPC && errno != EFBIG && errno != EDQUOT) return 0; /* a file system that can't say */
        int code = errno;
        write_failed(p->path, code, err);
        nj_error_prefix(err, "%" PRIu64 " bytes are needed", bytes);
        return -code;
    }
    return 0;
}

int nj_part_write(nj_part *p, const void *data, uint64_t len, nj_error *err)
{
    const char *from = data;
    while (len) {
        ssize_t done = write(p->fd, from, len < SSIZE_MAX ? len : SSIZE_MAX);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return write_failed(p->path, errno, err);
        from += done;
        len -= (uint64_t)done;
    }
    return 0;
}

int nj_part_commit(nj_part *p, nj_error *err)
{
    if (fsync(p->fd) && (p->part || errno == EIO)) return write_failed(p->path, errno, err); /* pipes can't sync */
    int failed = close(p->fd) ? errno : 0;
    p->fd = -1;
    if (failed) return write_failed(p->path, failed, err);
    if (!p->part) return 0;
    if (rename(p->part, p->path)) return write_failed(p->path, errno, err);
    free(p->part);
    p->part = NULL;
    return nj_dir_sync(p->path, err);
}

void nj_part_drop(nj_part *p)
{
    if (p->fd >= 0) close(p->fd);
    if (p->part) unlink(p->part);
    free(p->part);
    free(p->path);
    *p = (nj_part){ .fd = -1 };
}

/* ---- Public ---- */

int nj_file_write(const char *path, const void *data, size_t len, nj_error *err)
{
    nj_part p;
    int rc = nj_part_open(&p, path, err);
    if (rc) return rc;
    if ((rc = nj_part_write(&p, data, len, err)) == 0) rc = nj_part_commit(&p, err);
    nj_part_drop(&p);
    return rc;
}

int nj_dir_sync(const char *path, nj_error *err)
{
    const char *slash = strrchr(path, '/');
    char *dir = !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (!dir) return nj_fail(err, -ENOMEM, "%s: not enough memory.", path);
    int rc = 0, fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* EINVAL: a file system without such a thing (some network and FUSE ones), where nothing more can be done. */
    if (fd < 0 || (fsync(fd) && errno != EINVAL)) {
        rc = -errno;
        nj_fail(err, rc, "%s: its folder can't be made durable: %s.", path, strerror(-rc));
    }
    if (fd >= 0) close(fd);
    free(dir);
    return rc;
}

static int read_all(int fd, const char *name, uint64_t bytes_max, nj_buf *buf, nj_error *err)
{
    char chunk[65536];
    nj_buf_add(buf, "", 0); /* an empty file is an empty string, not NULL */
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return nj_fail(err, -errno, "%s: can't be read: %s.", name, strerror(errno));
        if (got && (uint64_t)got > bytes_max - buf->len)
            return nj_fail(err, -EFBIG, "%s: is longer than %" PRIu64 " bytes.", name, bytes_max);
        nj_buf_add(buf, chunk, (size_t)got);
        if (buf->failed) return nj_fail(err, buf->failed, "%s: not enough memory to read it.", name);
        if (!got) return 0;
    }
}

int nj_file_read(const char *path, uint64_t bytes_max, nj_buf *buf, nj_error *err)
{
    nj_buf_clear(buf);
    if (!strcmp(path, "-")) return read_all(STDIN_FILENO, "standard input", bytes_max, buf, err);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        int rc = nj_fail(err, -errno, "%s: can't be opened: %s.", path, strerror(errno));
        if (rc == -ENOENT) nj_remedy(err, "Check the path.");
        return rc;
    }
    int rc = read_all(fd, path, bytes_max, buf, err);
    close(fd);
    return rc;
}
