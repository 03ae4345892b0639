/* Arenas: one anonymous mapping each, huge pages where granted, spread over the NUMA nodes. The only file that knows
 * libnuma. See nj_numa.h. */
#include "numa/nj_numa.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <numa.h>
#include <numaif.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES      4096u
#define HUGE_PAGE_BYTES (UINT64_C(2) << 20)
#define ALIGN_MIN       64u

struct nj_arena {
    unsigned char *base; /* on a huge page border when at least one fits */
    uint64_t bytes;      /* mapped, whole pages */
    uint64_t used;
};

/* Pages of weights that every worker reads go round the nodes, so that each memory controller serves its part.
 * A refusal (a container may forbid mbind) leaves first touch, which is slower but right. */
static void interleave(void *base, uint64_t bytes)
{
    if (numa_available() < 0) return;
    struct bitmask *nodes = numa_get_mems_allowed();
    if (nodes && numa_bitmask_weight(nodes) > 1)
        (void)!mbind(base, bytes, MPOL_INTERLEAVE, nodes->maskp, nodes->size + 1, 0);
    if (nodes) numa_bitmask_free(nodes);
}

/* Maps `bytes` (whole pages) starting on a multiple of `align`, or NULL with errno set. */
static void *map_aligned(uint64_t bytes, uint64_t align)
{
    uint64_t span = bytes + (align - PAGE_BYTES);
    unsigned char *p = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    uint64_t before = -(uint64_t)(uintptr_t)p & (align - 1), after = span - bytes - before;
    if (before) munmap(p, before);
    if (after) munmap(p + before + bytes, after);
    return p + before;
}

int nj_arena_new(nj_arena **out, uint64_t bytes, nj_error *err)
{
    *out = NULL;
    if (bytes == 0) return nj_fail(err, -EINVAL, "an arena of 0 bytes was asked for");
    nj_arena *a = nj_new(nj_arena);
    if (!a) return nj_fail(err, -ENOMEM, "out of memory");
    int code = ENOMEM; /* a size near 2^64 or 2^63 can't be mapped */
    if (bytes <= INT64_MAX - 2 * HUGE_PAGE_BYTES) {
        uint64_t align = bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : PAGE_BYTES;
        a->bytes = (bytes + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1);
        a->base = map_aligned(a->bytes, align);
        code = errno;
    }
    if (!a->base) {
        free(a);
        nj_machine m;
        nj_machine_read(&m);
        nj_fail(err, -ENOMEM, "the system refused %" PRIu64 " MiB of memory (%s); about %" PRIu64 " MiB are available",
                bytes >> 20, strerror(code), m.ram_available_bytes >> 20);
        return nj_remedy(err,
                         "Close other programs, or take a smaller model, a smaller quantization or a shorter context.");
    }
    (void)!madvise(a->base, a->bytes, MADV_HUGEPAGE); /* a kernel without huge pages refuses: small pages work too */
    interleave(a->base, a->bytes);
    *out = a;
    return 0;
}

void *nj_arena_take(nj_arena *a, uint64_t bytes, uint64_t align)
{
    assert(align && (align & (align - 1)) == 0);
    if (align < ALIGN_MIN) align = ALIGN_MIN;
    uint64_t skip = -((uint64_t)(uintptr_t)a->base + a->used) & (align - 1), left = a->bytes - a->used;
    if (skip > left || bytes > left - skip) return NULL;
    void *p = a->base + a->used + skip;
    a->used += skip + bytes;
    return p;
}

uint64_t nj_arena_used(const nj_arena *a)
{
    return a->used;
}

void nj_arena_free(nj_arena *a)
{
    if (!a) return;
    munmap(a->base, a->bytes);
    free(a);
}
