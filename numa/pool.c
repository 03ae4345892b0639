/* The worker pool: SPMD runs and barriers on futexes. See nj_numa.h.
 *
 * Everything rests on one primitive, the gate: a number that only grows, and threads that wait for it to change. A
 * waiter spins for a moment, then counts itself among the sleepers and sleeps in the kernel; an opener adds one to the
 * number and wakes the sleepers if there are any. Both sides are sequentially consistent (write own word, read the
 * other's), so either the opener sees the sleeper or the sleeper sees the new number; the kernel compares it once more
 * before sleeping. */
#include "numa/nj_numa.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "numa/topology.h"

#define WORKERS_MAX 4096u
#define LINE_BYTES  64 /* what two workers write often must not share a cache line */

/* Looks at the gate before sleeping. A pause is 40-140 cycles, so 1000 are 10-50 us: longer than most waits at the
 * borders of ops, shorter than a time slice. With more workers than CPUs the awaited worker may need this very CPU. */
#define SPINS         1000u
#define SPINS_CROWDED 10u

typedef struct gate {
    alignas(LINE_BYTES) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
} gate;

typedef struct worker {
    nj_pool *pool;
    pthread_t thread;
    uint32_t index;
} worker;

struct nj_pool {
    uint32_t workers, started; /* threads started are workers 1..started */
    uint32_t spins;
    bool pinned, stop; /* stop, work and arg: written before `start` opens, read after */
    nj_work *work;
    void *arg;
    worker *worker;    /* [workers], entry 0 unused */
    gate start, phase; /* opened once per run; once per barrier */
    alignas(LINE_BYTES) _Atomic uint32_t arrived;
};

static void gate_wait(gate *g, uint32_t old, uint32_t spins)
{
    for (uint32_t i = 0; i < spins; i++) {
        if (atomic_load_explicit(&g->value, memory_order_acquire) != old) return;
        __builtin_ia32_pause();
    }
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->value) == old) syscall(SYS_futex, &g->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void gate_open(gate *g)
{
    atomic_fetch_add(&g->value, 1);
    if (atomic_load(&g->sleepers)) syscall(SYS_futex, &g->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void nj_pool_barrier(nj_pool *p)
{
    /* Read before arriving: from then on the last worker may open the gate at any moment. */
    uint32_t phase = atomic_load_explicit(&p->phase.value, memory_order_relaxed);
    if (atomic_fetch_add(&p->arrived, 1) + 1 < p->workers) {
        gate_wait(&p->phase, phase, p->spins);
    } else {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed); /* nobody arrives again before the gate opens */
        gate_open(&p->phase);
    }
}

/* Lets the calling thread run on the `n` CPUs of `cpu`. A refusal only costs speed. */
static void thread_bind(const uint32_t *cpu, uint32_t n)
{
    uint32_t highest = 0;
    for (uint32_t i = 0; i < n; i++)
        if (cpu[i] > highest) highest = cpu[i];
    size_t bytes = CPU_ALLOC_SIZE(highest + 1);
    cpu_set_t *set = CPU_ALLOC(highest + 1);
    if (!set) return;
    CPU_ZERO_S(bytes, set);
    for (uint32_t i = 0; i < n; i++) CPU_SET_S(cpu[i], bytes, set);
    pthread_setaffinity_np(pthread_self(), bytes, set);
    CPU_FREE(set);
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    nj_pool *p = w->pool;
    if (p->pinned) {
        uint32_t count;
        thread_bind(nj_topology_cpus(&count) + w->index, 1);
    }
    for (uint32_t run = 0;; run++) {
        gate_wait(&p->start, run, p->spins);
        if (p->stop) return NULL;
        p->work(p->arg, w->index, p->workers);
        nj_pool_barrier(p);
    }
}

/* Starts the threads with all signals blocked: Ctrl-C belongs to the thread that knows what to do with it. */
static int workers_start(nj_pool *p)
{
    sigset_t all, before;
    char name[16];
    int rc = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 1; i < p->workers && rc == 0; i++) {
        worker *w = &p->worker[i];
        *w = (worker){ .pool = p, .index = i };
        if ((rc = pthread_create(&w->thread, NULL, worker_main, w)) != 0) break;
        p->started = i;
        snprintf(name, sizeof name, "nj-worker-%u", i % 10000);
        pthread_setname_np(w->thread, name);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int nj_pool_new(nj_pool **out, uint32_t workers, nj_error *err)
{
    nj_machine m;
    uint32_t cpus;
    *out = NULL;
    nj_machine_read(&m);
    const uint32_t *cpu = nj_topology_cpus(&cpus);
    if (workers == 0) workers = m.threads_best;
    if (workers > WORKERS_MAX)
        return nj_fail(err, -EINVAL, "%u threads: at most %u are possible", workers, WORKERS_MAX);
    nj_pool *p = aligned_alloc(alignof(nj_pool), sizeof *p);
    worker *w = nj_array_new(workers, sizeof *w);
    if (!p || !w) {
        free(p);
        free(w);
        return nj_fail(err, -ENOMEM, "out of memory");
    }
    memset(p, 0, sizeof *p);
    p->workers = workers;
    p->worker = w;
    p->spins = workers > m.threads || workers > 2 * m.threads_best ? SPINS_CROWDED : SPINS;
    /* A pool of half of the cores or less is left to the kernel, which has room to spread it: two such processes, both
     * pinned from the first core on, would sit on each other. So is one under a CPU quota, shared with strangers. */
    p->pinned = workers <= cpus && workers > m.cores / 2 && m.threads_best == m.cores;
    if (p->pinned && workers > 1) thread_bind(cpu, 1);
    int rc = workers_start(p);
    if (rc == 0) {
        *out = p;
        return 0;
    }
    nj_fail(err, -rc, "only %u of %u threads could be started: %s", p->started + 1, workers, strerror(rc));
    nj_remedy(err, "Ask for fewer threads (--threads %u), or raise the limit on processes (ulimit -u).",
              p->started + 1);
    nj_pool_free(p);
    return -rc;
}

void nj_pool_run(nj_pool *p, nj_work *work, void *arg)
{
    p->work = work;
    p->arg = arg;
    gate_open(&p->start);
    work(arg, 0, p->workers);
    nj_pool_barrier(p);
}

uint32_t nj_pool_workers(const nj_pool *p)
{
    return p->workers;
}

void nj_pool_free(nj_pool *p)
{
    if (!p) return;
    p->stop = true;
    gate_open(&p->start);
    for (uint32_t i = 1; i <= p->started; i++) pthread_join(p->worker[i].thread, NULL);
    if (p->pinned) { /* the caller, worker 0, may go everywhere again */
        uint32_t cpus;
        const uint32_t *cpu = nj_topology_cpus(&cpus);
        thread_bind(cpu, cpus);
    }
    free(p->worker);
    free(p);
}
