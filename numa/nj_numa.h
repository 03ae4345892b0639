/* Where bytes and threads live: the machine's topology, arenas for weights, and the worker pool. */
#ifndef NJ_NUMA_H
#define NJ_NUMA_H

#include "numa/nj_base.h"

/* ---- Topology: what this process may use, after affinity mask, cpuset and cgroup quota. ---- */

typedef struct nj_machine {
    char cpu_name[96];
    uint32_t nodes;               /* NUMA nodes with memory */
    uint32_t cores, threads;      /* physical cores and hardware threads this process may run on */
    uint32_t threads_best;        /* one worker per physical core, cut to the cgroup's CPU quota; at least 1 */
    uint64_t l2_bytes, l3_bytes;  /* L2 of one core, all L3 together; 0 when unknown */
    uint64_t ram_bytes;           /* installed, or the cgroup limit when lower */
    uint64_t ram_available_bytes; /* MemAvailable, cut to what the cgroup leaves */
} nj_machine;

/* Reads the topology. Never fails: what can't be read gets a plain default (1 node, sysconf's CPU count). */
void nj_machine_read(nj_machine *m);

/* ---- Arena: one large mapping from which weights, KV pages and scratch are cut. ---- */

typedef struct nj_arena nj_arena;

/* Reserves `bytes` of zeroed anonymous memory, huge pages where the system grants them.
 * Memory is committed at first touch; -ENOMEM when the reservation itself is refused. */
int nj_arena_new(nj_arena **out, uint64_t bytes, nj_error *err);

/* Cuts `bytes`, aligned to `align` (a power of two, at least 64 is used), from the arena.
 * Returns NULL when the arena is full. One thread at a time; the memory itself lives as long as the arena. */
void *nj_arena_take(nj_arena *a, uint64_t bytes, uint64_t align);

uint64_t nj_arena_used(const nj_arena *a);
void nj_arena_free(nj_arena *a);

/* ---- Pool: pinned workers that all run the same function (SPMD). ---- */

typedef struct nj_pool nj_pool;
typedef void nj_work(void *arg, uint32_t worker, uint32_t workers);

/* Starts `workers` - 1 threads (the caller of nj_pool_run is worker 0), pinned to distinct physical cores when the
 * machine has enough. workers = 0 takes nj_machine.threads_best. */
int nj_pool_new(nj_pool **out, uint32_t workers, nj_error *err);

/* Runs work(arg, worker, workers) on every worker and returns when all have returned. One caller at a time. */
void nj_pool_run(nj_pool *p, nj_work *work, void *arg);

/* All workers meet here; memory written before it by any worker is visible after it to all. Only inside a run.
 * Spins briefly, then sleeps: an idle or descheduled worker must not burn a core. */
void nj_pool_barrier(nj_pool *p);

uint32_t nj_pool_workers(const nj_pool *p);
void nj_pool_free(nj_pool *p);

/* The part [begin, end) of `total` items that worker `worker` of `workers` owns: contiguous, sizes differing by <= 1.
 */
static inline void nj_share(uint64_t total, uint32_t worker, uint32_t workers, uint64_t *begin, uint64_t *end)
{
    *begin = total / workers * worker + (worker < total % workers ? worker : total % workers);
    *end = *begin + total / workers + (worker < total % workers);
}

/* ---- Probes: the limits of this machine, measured; benchmarks print them beside their figures. ---- */

typedef struct nj_probe nj_probe;

/* Takes a buffer of `bytes` (0: 2 GiB; at most half of the memory available, see nj_probe_bytes), huge pages where
 * granted, fills it, and finds out how to read it fastest. About a second. -ENOMEM when memory is short. */
int nj_probe_new(nj_probe **out, nj_pool *pool, uint64_t bytes, nj_error *err);

/* GB/s (10^9 bytes) at which the workers of `pool` together read the next `bytes` of the buffer (0: all of it). Goes
 * round the buffer, so that a byte comes again only after the whole buffer: what was read last is in no cache. Not
 * inside a run. */
double nj_probe_read(nj_probe *p, nj_pool *pool, uint64_t bytes);

uint64_t nj_probe_bytes(const nj_probe *p); /* less than 2 GiB: the rate may be that of a cache */
void nj_probe_free(nj_probe *p);

typedef enum nj_peak {
    NJ_PEAK_F32_AVX2,   /* fused multiply-add */
    NJ_PEAK_I8_AVX2,    /* products of bytes, added in pairs to 16 and then 32 bits */
    NJ_PEAK_F32_AVX512, /* fused multiply-add */
    NJ_PEAK_I8_VNNI,    /* products of bytes, four added to 32 bits */
    NJ_PEAK_BF16_AMX,
    NJ_PEAK_I8_AMX,
    NJ_PEAK_COUNT
} nj_peak;

/* Giga-operations per second (a multiplication and an addition are two) of all workers of `pool` together, doing
 * nothing else, on registers, for a few milliseconds. 0 when this CPU or system can't run it. Not inside a run. */
double nj_probe_peak(nj_pool *pool, nj_peak kind);
const char *nj_peak_name(nj_peak kind); /* "int8 vnni" */

#endif
