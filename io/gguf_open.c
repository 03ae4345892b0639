/* Opening GGUF files, whole or in parts, and reading their tensors. */
#include "io/gguf_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES_FIRST (4u << 20) /* holds most headers: a vocabulary of 150000 takes some 5 MB */
#define HEADER_BYTES_MAX   (1u << 30)
#define SPLIT_SUFFIX       20 /* strlen("-00001-of-00002.gguf") */

/* All of [offset, offset + len) into dst. -EIO when the file ends before or the disk fails. */
static int read_at(const struct nj_gguf_file *f, uint64_t offset, void *dst, uint64_t len, nj_error *err)
{
    char *to = dst;
    while (len) {
        ssize_t got = pread(f->fd, to, len < SSIZE_MAX ? len : SSIZE_MAX, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            nj_fail(err, -EIO, "%s: reading %" PRIu64 " bytes at byte %" PRIu64 " failed: %s.", f->path, len, offset,
                    strerror(errno));
            return nj_remedy(err, "The drive or the connection to it may be failing; see `dmesg`.");
        }
        if (!got) {
            nj_fail(err, -EIO, "%s: ends at byte %" PRIu64 " now, it had %" PRIu64 " when it was opened.", f->path,
                    offset, f->bytes);
            return nj_remedy(err, "Don't change model files while they are in use.");
        }
        to += got;
        offset += (uint64_t)got;
        len -= (uint64_t)got;
    }
    return 0;
}

static int open_fd(struct nj_gguf_file *f, nj_error *err)
{
    struct stat st;
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block us before it is refused */
    if (f->fd < 0) {
        int code = -errno;
        nj_fail(err, code, "%s: can't be opened: %s.", f->path, strerror(errno));
        return code == -ENOENT ? nj_remedy(err, "Check the path.") : code;
    }
    if (fstat(f->fd, &st)) return nj_fail(err, -errno, "%s: %s.", f->path, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        nj_fail(err, -EISDIR, "%s: is a directory, not a GGUF file.", f->path);
        return nj_remedy(err, "Give the path of the .gguf file in it.");
    }
    if (!S_ISREG(st.st_mode)) return nj_fail(err, -EINVAL, "%s: is not a regular file.", f->path);
    f->bytes = (uint64_t)st.st_size;
    return 0;
}

/* Reads as much of the header as parsing asks for: each try doubles it, so that the work stays linear. */
static int open_file(nj_gguf *g, uint32_t file, const nj_gguf_types *types, struct nj_gguf_split *split, nj_error *err)
{
    struct nj_gguf_file *f = &g->files[file];
    uint8_t *header = NULL;
    uint64_t have = 0, want = HEADER_BYTES_FIRST;
    int rc = open_fd(f, err);
    while (!rc) {
        if (want > f->bytes) want = f->bytes;
        uint8_t *grown = realloc(header, want + 1);
        if (!grown) {
            rc = nj_fail(err, -ENOMEM, "%s: not enough memory for a header of %" PRIu64 " bytes.", f->path, want);
            break;
        }
        header = grown;
        if ((rc = read_at(f, have, header + have, want - have, err)) != 0) break;
        have = want;
        rc = nj_gguf_parse_file(g, file, header, have, types, split, err);
        if (rc == -EAGAIN && have < HEADER_BYTES_MAX) {
            want = have * 2;
            rc = 0;
            continue;
        }
        if (rc == -EAGAIN) rc = nj_fail(err, -EINVAL, "the header is longer than 1 GiB, so the file must be damaged.");
        if (rc) nj_error_prefix(err, "%s", f->path);
        break;
    }
    free(header);
    return rc;
}

/* ---- Split files ---- */

/* Number and count of a name like model-00001-of-00003.gguf. */
static bool split_name(const char *path, unsigned *no, unsigned *count)
{
    size_t len = strlen(path);
    if (len < SPLIT_SUFFIX) return false;
    const char *s = path + len - SPLIT_SUFFIX;
    char pattern[] = "-00000-of-00000.gguf";
    for (int i = 0; i < SPLIT_SUFFIX; i++)
        if (pattern[i] == '0' ? s[i] < '0' || s[i] > '9' : s[i] != pattern[i]) return false;
    *no = (unsigned)strtoul(s + 1, NULL, 10);
    *count = (unsigned)strtoul(s + 10, NULL, 10);
    return true;
}

/* The path of part `no` (from 1), malloc'ed. */
static char *split_path(const char *path, unsigned no, unsigned count)
{
    char *part = strdup(path);
    if (part)
        snprintf(part + strlen(part) - SPLIT_SUFFIX, SPLIT_SUFFIX + 1, "-%05u-of-%05u.gguf", no % 100000,
                 count % 100000);
    return part;
}

static int open_rest(nj_gguf *g, const struct nj_gguf_split *first, const nj_gguf_types *types, nj_error *err)
{
    struct nj_gguf_split split;
    uint32_t count = (uint32_t)first->count;
    struct nj_gguf_file *files = realloc(g->files, count * sizeof *files);
    if (!files) return nj_fail(err, -ENOMEM, "%s: not enough memory for %" PRIu32 " parts.", g->files[0].path, count);
    g->files = files;
    for (uint32_t i = 1; i < count; i++) {
        files[i] = (struct nj_gguf_file){ .path = split_path(files[0].path, i + 1, count), .fd = -1 };
        g->n_files = i + 1;
        if (!files[i].path) return nj_fail(err, -ENOMEM, "%s: not enough memory.", files[0].path);
        int rc = open_file(g, i, types, &split, err);
        if (rc == -ENOENT) nj_remedy(err, "The model has %" PRIu32 " parts. Fetch the missing ones.", count);
        if (rc) return rc;
        if (!split.given || split.no != i || split.count != count) {
            nj_fail(err, -EINVAL,
                    "%s: says it is part %" PRIu64 " of %" PRIu64 ", its name says %" PRIu32 " of %" PRIu32 ".",
                    files[i].path, split.no + 1, split.count, i + 1, count);
            return nj_remedy(err, "Fetch this part again.");
        }
    }
    if (first->tensors && first->tensors != g->n_tensors) {
        nj_fail(err, -EINVAL, "%s: its parts hold %zu tensors together, split.tensors.count says %" PRIu64 ".",
                files[0].path, g->n_tensors, first->tensors);
        return nj_remedy(err, "Fetch all parts of one and the same model.");
    }
    return 0;
}

static int open_all(nj_gguf *g, const nj_gguf_types *types, nj_error *err)
{
    const char *path = g->files[0].path;
    struct nj_gguf_split split;
    unsigned no = 1, count = 1;
    bool named = split_name(path, &no, &count);
    if (named && no != 1) {
        char *first = split_path(path, 1, count);
        nj_fail(err, -EINVAL, "%s: is part %u of %u; a split model is opened by its first part.", path, no, count);
        nj_remedy(err, "Open %s.", first ? first : "the first part");
        free(first);
        return -EINVAL;
    }
    int rc = open_file(g, 0, types, &split, err);
    if (rc) return rc;
    if (split.count <= 1 && count <= 1) return 0;
    if (split.count != count) {
        nj_fail(err, -EINVAL, "%s: says it has %" PRIu64 " parts (split.count), its name says %u.", path, split.count,
                count);
        return nj_remedy(err,
                         "Give the parts their original names, which end in -00001-of-%05" PRIu64 ".gguf and so on.",
                         split.count ? split.count : 1);
    }
    if (split.no != 0)
        return nj_fail(err, -EINVAL, "%s: says it is part %" PRIu64 " (split.no), its name says 1.", path,
                       split.no + 1);
    return open_rest(g, &split, types, err);
}

/* ---- The object ---- */

static nj_gguf *gguf_new(const char *path)
{
    nj_gguf *g = nj_new(nj_gguf);
    if (!g || !(g->files = nj_new(struct nj_gguf_file))) goto fail;
    g->n_files = 1;
    g->files[0].fd = -1;
    if (!(g->files[0].path = strdup(path))) goto fail;
    return g;
fail:
    nj_gguf_close(g);
    return NULL;
}

int nj_gguf_open(nj_gguf **out, const char *path, const nj_gguf_types *types, nj_error *err)
{
    nj_error own;
    nj_gguf *g = gguf_new(path);
    if (!err) err = &own; /* codes travel in it */
    if (!g) return nj_fail(err, -ENOMEM, "%s: not enough memory.", path);
    int rc = open_all(g, types, err);
    if (rc) {
        nj_gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

int nj_gguf_parse(nj_gguf **out, const void *data, size_t len, uint64_t size_bytes, const char *name,
                  const nj_gguf_types *types, nj_error *err)
{
    struct nj_gguf_split split;
    nj_error own;
    nj_gguf *g = gguf_new(name);
    if (!err) err = &own; /* codes travel in it */
    if (!g) return nj_fail(err, -ENOMEM, "%s: not enough memory.", name);
    g->files[0].bytes = size_bytes;
    g->files[0].data = data;
    g->files[0].data_len = len;
    int rc = nj_gguf_parse_file(g, 0, data, len, types, &split, err);
    if (rc) {
        nj_error_prefix(err, "%s", name);
        nj_gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

void nj_gguf_close(nj_gguf *g)
{
    if (!g) return;
    for (uint32_t i = 0; i < g->n_files; i++) {
        if (g->files[i].fd >= 0) close(g->files[i].fd);
        free(g->files[i].path);
        free(g->files[i].strs);
        free(g->files[i].text);
    }
    for (struct nj_gguf_text *next, *t = g->set_texts; t; t = next) {
        next = t->next;
        free(t);
    }
    nj_index_free(&g->meta_index);
    nj_index_free(&g->tensor_index);
    free(g->metas);
    free(g->tensors);
    free(g->files);
    free(g);
}

int nj_gguf_read(const nj_gguf *g, const nj_tensor *t, uint64_t offset, void *dst, uint64_t len, nj_error *err)
{
    const struct nj_gguf_file *f = &g->files[t->file];
    if (offset > t->bytes || len > t->bytes - offset)
        return nj_fail(err, -EINVAL,
                       "%s: tensor %.200s has %" PRIu64 " bytes, %" PRIu64 " from %" PRIu64 " were asked for.", f->path,
                       t->name.data, t->bytes, len, offset);
    if (f->fd >= 0) return read_at(f, t->offset + offset, dst, len, err);
    if (t->offset + offset + len > f->data_len)
        return nj_fail(err, -EIO, "%s: tensor %.200s is not in memory.", f->path, t->name.data);
    if (len) memcpy(dst, f->data + t->offset + offset, len);
    return 0;
}
