/* Topology, control group limits, arenas and the worker pool. */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "numa/cgroup.h"
#include "numa/nj_numa.h"

/* ---- Topology ---- */

static void machine_figures_agree_with_each_other(void **state)
{
    nj_machine m;
    (void)state;
    nj_machine_read(&m);
    assert_true(m.nodes >= 1);
    assert_true(m.cores >= 1 && m.cores <= m.threads);
    assert_true(m.threads_best >= 1 && m.threads_best <= m.cores);
    assert_true(m.ram_available_bytes > 0 && m.ram_available_bytes <= m.ram_bytes);
    assert_true(strlen(m.cpu_name) > 0);
}

static void machine_threads_are_those_of_the_affinity_mask(void **state)
{
    nj_machine m;
    cpu_set_t set;
    (void)state;
    nj_machine_read(&m);
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    assert_int_equal(m.threads, CPU_COUNT(&set));
}

/* ---- Control groups: a made-up tree in a temporary directory ---- */

static char tree[64]; /* stands for /sys/fs/cgroup */

static int tree_make(void **state)
{
    (void)state;
    strcpy(tree, "/tmp/nightjar-test-XXXXXX");
    return mkdtemp(tree) ? 0 : -1;
}

static int tree_remove(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", tree);
    return system(command);
}

/* Writes TREE/NAME, making its directories. */
static void tree_put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", tree, name);
    for (char *slash = path + strlen(tree); (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static nj_cgroup tree_read(const char *membership)
{
    char path[128];
    nj_cgroup c;
    tree_put("membership", membership);
    snprintf(path, sizeof path, "%s/membership", tree);
    nj_cgroup_read(tree, path, &c);
    return c;
}

static void lowest_limit_on_the_way_up_counts(void **state)
{
    (void)state;
    tree_put("a/cpu.max", "350000 100000\n");
    tree_put("a/memory.max", "1000000000\n");
    tree_put("a/memory.current", "900000000\n");
    tree_put("a/memory.stat", "anon 1\nactive_file 7\ninactive_file 300000000\n");
    tree_put("a/b/cpu.max", "max 100000\n");
    tree_put("a/b/memory.max", "2000000000\n");
    tree_put("a/b/memory.current", "5000\n");
    nj_cgroup c = tree_read("0::/a/b\n");
    assert_int_equal(c.cpus, 3);
    assert_int_equal(c.ram_bytes, 1000000000);
    assert_int_equal(c.ram_available_bytes, 400000000);
}

static void group_outside_the_mount_falls_back_to_the_mount(void **state)
{
    (void)state;
    tree_put("cpu.max", "50000 100000\n");
    nj_cgroup c = tree_read("0::/system.slice/container-of-the-host\n");
    assert_int_equal(c.cpus, 1); /* half a CPU is still one worker */
    assert_true(c.ram_bytes == UINT64_MAX);
}

static void version_1_trees_are_read_by_controller(void **state)
{
    (void)state;
    tree_put("cpu,cpuacct/job/cpu.cfs_quota_us", "400000\n");
    tree_put("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    tree_put("cpuset/job/cpu.cfs_quota_us", "100000\n"); /* not the cpu controller: to be ignored */
    tree_put("cpuset/job/cpu.cfs_period_us", "100000\n");
    tree_put("memory/job/memory.limit_in_bytes", "1048576\n");
    tree_put("memory/job/memory.usage_in_bytes", "1000000\n");
    nj_cgroup c = tree_read("5:cpuset:/job\n4:cpu,cpuacct:/job\n3:memory:/job\n1:name=systemd:/job\n");
    assert_int_equal(c.cpus, 4);
    assert_int_equal(c.ram_bytes, 1048576);
    assert_int_equal(c.ram_available_bytes, 48576);
}

static void group_without_limits_limits_nothing(void **state)
{
    (void)state;
    tree_put("free/cpu.max", "max 100000\n");
    tree_put("free/memory.max", "max\n");
    tree_put("cpu/free/cpu.cfs_quota_us", "-1\n");
    tree_put("cpu/free/cpu.cfs_period_us", "100000\n");
    nj_cgroup c = tree_read("4:cpu:/free\n0::/free\nnonsense\n");
    assert_int_equal(c.cpus, UINT32_MAX);
    assert_true(c.ram_bytes == UINT64_MAX && c.ram_available_bytes == UINT64_MAX);
}

/* ---- Arena ---- */

static void arena_pieces_are_aligned_apart_and_zero(void **state)
{
    nj_arena *a;
    nj_error err;
    (void)state;
    assert_int_equal(nj_arena_new(&a, 8u << 20, &err), 0);
    unsigned char *end = NULL;
    for (uint64_t align = 1; align <= 1u << 20; align *= 2) {
        unsigned char *p = nj_arena_take(a, 100 + align, align);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (align < 64 ? 64 : align), 0);
        assert_true(p >= end);
        for (uint64_t i = 0; i < 100 + align; i++) assert_int_equal(p[i], 0);
        memset(p, 0xA5, 100 + align);
        end = p + 100 + align;
    }
    assert_true(nj_arena_used(a) > 0 && nj_arena_used(a) <= 8u << 20);
    nj_arena_free(a);
}

static void full_arena_refuses_and_stays_usable(void **state)
{
    nj_arena *a;
    (void)state;
    assert_int_equal(nj_arena_new(&a, 4096, NULL), 0);
    assert_null(nj_arena_take(a, 4097, 64));
    assert_non_null(nj_arena_take(a, 4000, 64));
    assert_null(nj_arena_take(a, 97, 1));
    assert_null(nj_arena_take(a, UINT64_MAX, 64));
    assert_null(nj_arena_take(a, UINT64_MAX - 4000, UINT64_C(1) << 63));
    assert_int_equal(nj_arena_used(a), 4000);
    assert_non_null(nj_arena_take(a, 64, 64));
    assert_int_equal(nj_arena_used(a), 4096);
    nj_arena_free(a);
}

static void arena_beyond_any_memory_is_an_error_with_a_remedy(void **state)
{
    uint64_t sizes[] = { UINT64_MAX, UINT64_MAX / 2, UINT64_C(1) << 62, UINT64_C(1) << 48 };
    (void)state;
    for (size_t i = 0; i < NJ_COUNT(sizes); i++) {
        nj_error err = { 0 };
        nj_arena *a = (nj_arena *)1;
        assert_int_equal(nj_arena_new(&a, sizes[i], &err), -ENOMEM);
        assert_null(a);
        assert_int_equal(err.code, -ENOMEM);
        assert_non_null(strstr(err.text, "MiB"));
        assert_true(strlen(err.remedy) > 0);
    }
    assert_int_equal(nj_arena_new(&(nj_arena *){ NULL }, 0, NULL), -EINVAL);
    nj_arena_free(NULL);
}

/* ---- Pool ---- */

enum { CELLS = 64 };

typedef struct meeting {
    nj_pool *pool;
    uint32_t rounds;
    uint32_t cell[CELLS]; /* plain memory: the barriers alone make it safe, and TSan checks that they do */
    _Atomic uint32_t wrong, calls;
} meeting;

/* Every worker writes its cell, meets the others, reads all cells, meets again. */
static void meet(void *arg, uint32_t worker, uint32_t workers)
{
    meeting *m = arg;
    m->calls++;
    for (uint32_t round = 1; round <= m->rounds; round++) {
        m->cell[worker] = round;
        nj_pool_barrier(m->pool);
        for (uint32_t i = 0; i < workers; i++) m->wrong += m->cell[i] != round;
        nj_pool_barrier(m->pool);
    }
}

static void meetings_hold(uint32_t workers, uint32_t runs, uint32_t rounds)
{
    meeting m = { .rounds = rounds };
    nj_error err;
    assert_int_equal(nj_pool_new(&m.pool, workers, &err), 0);
    assert_int_equal(nj_pool_workers(m.pool), workers);
    for (uint32_t run = 0; run < runs; run++) nj_pool_run(m.pool, meet, &m);
    assert_int_equal(m.calls, workers * runs);
    assert_int_equal(m.wrong, 0);
    nj_pool_free(m.pool);
}

static void one_worker_needs_no_thread(void **state)
{
    (void)state;
    meetings_hold(1, 10, 1000);
}

static void barrier_orders_thousands_of_rounds(void **state)
{
    (void)state;
    meetings_hold(2, 20, 500);
    meetings_hold(3, 5, 500);
}

static void more_workers_than_cores_still_meet(void **state)
{
    nj_machine m;
    (void)state;
    nj_machine_read(&m);
    uint32_t workers = 4 * m.threads < CELLS ? 4 * m.threads : CELLS;
    meetings_hold(workers, 5, 100);
}

static void note_caller(void *arg, uint32_t worker, uint32_t workers)
{
    (void)workers;
    ((pthread_t *)arg)[worker] = pthread_self();
}

static void caller_is_worker_0_and_the_others_are_threads(void **state)
{
    nj_pool *p;
    pthread_t thread[3];
    (void)state;
    assert_int_equal(nj_pool_new(&p, 3, NULL), 0);
    nj_pool_run(p, note_caller, thread);
    assert_true(pthread_equal(thread[0], pthread_self()));
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < i; k++) assert_false(pthread_equal(thread[i], thread[k]));
    nj_pool_free(p);
}

static void many_short_runs_lose_no_wake_up(void **state)
{
    nj_pool *p;
    pthread_t thread[2];
    (void)state;
    assert_int_equal(nj_pool_new(&p, 2, NULL), 0);
    for (int run = 0; run < 3000; run++) {
        /* Now and then let the worker fall asleep, so that both ways of waking are met. */
        if (run % 64 == 0) sched_yield();
        nj_pool_run(p, note_caller, thread);
    }
    nj_pool_free(p);
}

static void default_pool_takes_the_best_number_of_threads(void **state)
{
    nj_machine m;
    nj_pool *p;
    (void)state;
    nj_machine_read(&m);
    assert_int_equal(nj_pool_new(&p, 0, NULL), 0);
    assert_int_equal(nj_pool_workers(p), m.threads_best);
    nj_pool_free(p);
    nj_pool_free(NULL);
}

static void freed_pool_leaves_the_caller_its_cpus(void **state)
{
    cpu_set_t before, after;
    nj_machine m;
    nj_pool *p;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(nj_pool_new(&p, 0, NULL), 0);
    nj_machine_read(&m);
    assert_int_equal(m.threads, CPU_COUNT(&before)); /* pinned or not, the machine is the same */
    nj_pool_free(p);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

static void absurd_worker_count_is_refused(void **state)
{
    nj_pool *p;
    nj_error err;
    (void)state;
    assert_int_equal(nj_pool_new(&p, UINT32_MAX, &err), -EINVAL);
    assert_null(p);
    assert_non_null(strstr(err.text, "4294967295 threads"));
}

static void shares_cover_everything_once(void **state)
{
    (void)state;
    for (uint64_t total = 0; total < 70; total++) {
        for (uint32_t workers = 1; workers < 20; workers++) {
            uint64_t begin, end, next = 0, least = UINT64_MAX, most = 0;
            for (uint32_t w = 0; w < workers; w++) {
                nj_share(total, w, workers, &begin, &end);
                assert_int_equal(begin, next);
                next = end;
                if (end - begin < least) least = end - begin;
                if (end - begin > most) most = end - begin;
            }
            assert_int_equal(next, total);
            assert_true(most - least <= 1);
        }
    }
    uint64_t begin, end;
    nj_share(UINT64_MAX, 6, 7, &begin, &end); /* no overflow at the far end */
    assert_true(end == UINT64_MAX && begin < end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machine_figures_agree_with_each_other),
        cmocka_unit_test(machine_threads_are_those_of_the_affinity_mask),
        cmocka_unit_test_setup_teardown(lowest_limit_on_the_way_up_counts, tree_make, tree_remove),
        cmocka_unit_test_setup_teardown(group_outside_the_mount_falls_back_to_the_mount, tree_make, tree_remove),
        cmocka_unit_test_setup_teardown(version_1_trees_are_read_by_controller, tree_make, tree_remove),
        cmocka_unit_test_setup_teardown(group_without_limits_limits_nothing, tree_make, tree_remove),
        cmocka_unit_test(arena_pieces_are_aligned_apart_and_zero),
        cmocka_unit_test(full_arena_refuses_and_stays_usable),
        cmocka_unit_test(arena_beyond_any_memory_is_an_error_with_a_remedy),
        cmocka_unit_test(one_worker_needs_no_thread),
        cmocka_unit_test(barrier_orders_thousands_of_rounds),
        cmocka_unit_test(more_workers_than_cores_still_meet),
        cmocka_unit_test(caller_is_worker_0_and_the_others_are_threads),
        cmocka_unit_test(many_short_runs_lose_no_wake_up),
        cmocka_unit_test(default_pool_takes_the_best_number_of_threads),
        cmocka_unit_test(freed_pool_leaves_the_caller_its_cpus),
        cmocka_unit_test(absurd_worker_count_is_refused),
        cmocka_unit_test(shares_cover_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
