/* The result file of a batch. See results.h. */
#include "appliance/results.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/lines.h"
#include "io/nj_io.h"

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

static int fail_errno(nj_error *err, const char *path, const char *what)
{
    int code = -errno;
    return nj_fail(err, code, "%s can't be %s: %s.", path, what, strerror(-code));
}

/* ---- Opening ---- */

static int lock(const nj_results *r, nj_error *err)
{
    if (!flock(r->fd, LOCK_EX | LOCK_NB)) return 0;
    if (errno != EWOULDBLOCK) return 0; /* a file system without locks: rare, and no reason to refuse the work */
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
        bool good = l.newline && nj_result_key_of(line, &key);
        json_decref(line);
        if (!good) {
            rc = cut_tail(r, &l, l.limit, err);
            break;
        }
        rc = nj_idmap_add(&r->done, key, l.offset) < 0 ? nj_fail(err, -ENOMEM, "No memory for the ids in %s.", r->path)
                                                       : 0;
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
        nj_fail(err, -EINVAL, "%s is not a regular file.", r->path);
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
    r->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    if (r->fd < 0) {
        rc = fail_errno(err, path, "opened for writing");
        if (rc == -ENOENT) nj_remedy(err, "Make its folder first.");
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
    const char *rest = r->pending.data;
    size_t left = r->pending.len;
    int code = 0;
    if (!left) return 0;
    while (left && !code) {
        ssize_t n = write(r->fd, rest, left);
        if (n < 0 && errno != EINTR) code = -errno;
        if (n > 0) rest += n, left -= (size_t)n;
    }
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
