/* The result file of a batch. See results.h. */
#include "appliance/results.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/lines.h"
#include "io/nj_io.h"

enum { COPY_BYTES = 1 << 20 };

#define LINE_START "{\"id\":\"" /* how every line of ours begins */

nj_fingerprint nj_result_key(const char *custom_id, uint64_t line)
{
    struct {
        char nul[8];
        uint64_t line;
    } by_line = { "", line }; /* no custom_id begins with a NUL */
    return custom_id ? nj_fingerprint_of(custom_id, strlen(custom_id)) : nj_fingerprint_of(&by_line, sizeof by_line);
}

bool nj_result_key_of(const json_t *line, nj_fingerprint *key)
{
    const json_t *id = json_object_get(line, "custom_id"), *error = json_object_get(line, "error");
    const json_t *number = json_object_get(error, "line");
    if (!error || !json_object_get(line, "response")) return false;
    if (json_is_string(id))
        *key = nj_result_key(json_string_value(id), 0);
    else if (json_is_integer(number))
        *key = nj_result_key(NULL, (uint64_t)json_integer_value(number));
    else
        return false;
    return true;
}

static bool is_error(const json_t *line)
{
    return json_is_object(json_object_get(line, "error"));
}

static int fail_errno(nj_error *err, const char *path, const char *what)
{
    int code = -errno;
    return nj_fail(err, code, "%s can't be %s: %s.", path, what, strerror(-code));
}

/* ---- Opening ---- */

/* A file that is no longer the one of that name was replaced between our opening and locking it. */
static int lock(const nj_results *r, nj_error *err)
{
    struct stat open, named;
    bool busy = flock(r->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK; /* other errors: a file system without locks */
    if (!busy && !fstat(r->fd, &open) && !stat(r->path, &named))
        busy = open.st_dev != named.st_dev || open.st_ino != named.st_ino;
    if (!busy) return 0;
    nj_fail(err, -EBUSY, "%s is being written by another nightjar.", r->path);
    return nj_remedy(err, "Wait until that one has ended, or choose another file with -o.");
}

/* A write that was under way when the power failed ends in part of a line, or in zeros that the file system put there.
 * Only what looks like that is cut off: a file of another kind is never touched. */
static int cut_tail(nj_results *r, const nj_lines *l, uint64_t file_size, nj_error *err)
{
    size_t start = sizeof LINE_START - 1, n = l->len < start ? l->len : start;
    bool last = l->offset + l->bytes == file_size;
    bool ours = n && !memcmp(l->text, LINE_START, n), zeros = n && !l->text[0] && l->number > 1;
    if (!(ours && last) && !zeros) {
        nj_fail(err, -EINVAL, "%s: line %" PRIu64 " is not a result of a batch.", r->path, l->number);
        return nj_remedy(err, "Choose another file with -o; results are only added to a file of results.");
    }
    r->cut_bytes = file_size - l->offset;
    if (ftruncate(r->fd, (off_t)l->offset) || fsync(r->fd))
        return fail_errno(err, r->path, "cut after its last whole line");
    return 0;
}

static int scan(nj_results *r, nj_error *err)
{
    nj_lines l;
    int rc = nj_lines_start(&l, r->fd, r->path, SIZE_MAX, err);
    while (!rc && (rc = nj_lines_next(&l, err)) == 1) {
        nj_fingerprint key;
        json_t *line = json_loadb(l.text, l.len, 0, NULL);
        bool good = l.newline && nj_result_key_of(line, &key), error = is_error(line);
        json_decref(line);
        if (!good) {
            rc = cut_tail(r, &l, l.limit, err);
            break;
        }
        rc =
            nj_idmap_add(&r->done, key, error) < 0 ? nj_fail(err, -ENOMEM, "No memory for the ids in %s.", r->path) : 0;
        r->size = l.offset + l.bytes;
    }
    nj_lines_close(&l);
    return rc;
}

static int check_file(const nj_results *r, const char *input_path, nj_error *err)
{
    struct stat out, in;
    if (fstat(r->fd, &out)) return fail_errno(err, r->path, "examined");
    if (!S_ISREG(out.st_mode)) {
        nj_fail(err, -EINVAL, "%s is %s.", r->path, S_ISDIR(out.st_mode) ? "a folder" : "not a regular file");
        return nj_remedy(err, "Results must survive a power cut: name a file on disk with -o.");
    }
    if (input_path && !stat(input_path, &in) && in.st_dev == out.st_dev && in.st_ino == out.st_ino) {
        nj_fail(err, -EINVAL, "%s is both the input and the output.", r->path);
        return nj_remedy(err, "Name another file with -o.");
    }
    return 0;
}

int nj_results_open(nj_results *r, const char *path, const char *input_path, nj_error *err)
{
    int rc;
    *r = (nj_results){ .path = path };
    const int flags = O_RDWR | O_APPEND | O_CLOEXEC | O_NONBLOCK;
    while ((r->fd = open(path, flags)) < 0 && errno == ENOENT) {
        r->fd = open(path, flags | O_CREAT | O_EXCL, 0666);
        r->created = r->fd >= 0;
        if (r->created || errno != EEXIST) break;
    }
    if (r->fd < 0) {
        rc = fail_errno(err, path, "opened for writing");
        if (rc == -ENOENT) nj_remedy(err, "Make its folder first.");
        if (rc == -EISDIR) nj_remedy(err, "That is a folder: name a file in it with -o.");
        return rc;
    }
    if ((rc = check_file(r, input_path, err)) || (rc = lock(r, err)) || (rc = scan(r, err)) ||
        (rc = nj_dir_sync(path, err)))
        nj_results_close(r);
    return rc;
}

void nj_results_close(nj_results *r)
{
    if (!r->path) return;
    if (r->fd >= 0) close(r->fd);
    nj_idmap_free(&r->done);
    nj_buf_free(&r->pending);
    *r = (nj_results){ .fd = -1 };
}

void nj_results_withdraw(const nj_results *r)
{
    if (r->created && !r->size) unlink(r->path);
}

/* ---- Writing ---- */

/* 0 or a negative errno; part may have been written then. */
static int write_all(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno != EINTR) return -errno;
        if (n > 0) bytes += n, len -= (size_t)n;
    }
    return 0;
}

/* ---- Dropping errors ---- */

/* Copies all lines but the dropped ones to `fd`. */
static int copy_kept(const nj_results *r, int fd, const nj_idmap *keys, uint64_t *dropped, nj_error *err)
{
    nj_lines l;
    nj_buf kept = { 0 };
    int rc = nj_lines_start(&l, r->fd, r->path, SIZE_MAX, err), code = 0;
    while (!rc && (rc = nj_lines_next(&l, err)) == 1) {
        nj_fingerprint key = { 0 };
        json_t *line = json_loadb(l.text, l.len, 0, NULL);
        bool drop = is_error(line) && nj_result_key_of(line, &key) &&
                    (nj_idmap_find(keys, key, NULL) || !json_is_string(json_object_get(line, "custom_id")));
        json_decref(line);
        *dropped += drop;
        if (!drop) {
            nj_buf_add(&kept, l.text, l.len);
            nj_buf_char(&kept, '\n');
        }
        code = kept.failed;
        if (!code && kept.len >= COPY_BYTES) code = write_all(fd, kept.data, kept.len), nj_buf_clear(&kept);
        rc = code ? nj_fail(err, code, "%s.part can't be written: %s.", r->path, strerror(-code)) : 0;
    }
    if (!rc && (code = write_all(fd, kept.data, kept.len)))
        rc = nj_fail(err, code, "%s.part can't be written: %s.", r->path, strerror(-code));
    nj_lines_close(&l);
    nj_buf_free(&kept);
    return rc;
}

/* Puts the new file, whole, durable and locked, in the place of the old one. */
static int replace(nj_results *r, int fd, const char *part, const char *path, nj_error *err)
{
    struct stat old;
    int rc = 0;
    if (fstat(r->fd, &old) || fchmod(fd, old.st_mode & 07777) || fsync(fd) || rename(part, path))
        return fail_errno(err, path, "replaced");
    close(r->fd); /* the name means the new file already, so who gets this lock now sees that it is too late */
    nj_idmap_free(&r->done);
    r->fd = fd;
    r->size = 0;
    if ((rc = nj_dir_sync(path, err))) return rc;
    return scan(r, err);
}

int nj_results_drop_errors(nj_results *r, const nj_idmap *keys, uint64_t *dropped, nj_error *err)
{
    char *path = realpath(r->path, NULL), *part = NULL; /* not the link to it */
    int fd = -1, rc = 0;
    *dropped = 0;
    if (!path) return fail_errno(err, r->path, "found");
    if (asprintf(&part, "%s.part", path) < 0) {
        free(path);
        return nj_fail(err, -ENOMEM, "There is no memory for a name.");
    }
    fd = open(part, O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK))
        rc = fail_errno(err, part, "made");
    else if (!(rc = copy_kept(r, fd, keys, dropped, err)) && *dropped)
        rc = replace(r, fd, part, path, err);
    if (fd >= 0 && fd != r->fd) {
        unlink(part);
        close(fd);
    }
    free(part);
    free(path);
    return rc;
}

/* ---- Adding ---- */

static int add_bytes(const char *bytes, size_t len, void *pending)
{
    nj_buf_add(pending, bytes, len);
    return ((nj_buf *)pending)->failed ? -1 : 0;
}

int nj_results_add(nj_results *r, const json_t *line)
{
    size_t before = r->pending.len;
    if (!line || json_dump_callback(line, add_bytes, &r->pending, JSON_COMPACT | JSON_REAL_PRECISION(9))) {
        r->pending.len = before;
        return -ENOMEM;
    }
    nj_buf_char(&r->pending, '\n');
    return r->pending.failed;
}

int nj_results_commit(nj_results *r, nj_error *err)
{
    if (!r->pending.len) return 0;
    int code = write_all(r->fd, r->pending.data, r->pending.len);
    if (!code && fdatasync(r->fd)) code = -errno;
    if (code) {
        if (ftruncate(r->fd, (off_t)r->size)) { /* the next start cuts it */
        }
        nj_fail(err, code, "%s can't be written: %s.", r->path, strerror(-code));
        return nj_remedy(err, code == -ENOSPC || code == -EDQUOT || code == -EFBIG
                                  ? "Make room on that disk and give the same command again; it goes on where it was."
                                  : "Give the same command again when the disk is well; it goes on where it was.");
    }
    r->size += r->pending.len;
    nj_buf_clear(&r->pending);
    return 0;
}
