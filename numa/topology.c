/* The machine as this process may use it. The only file that knows hwloc. */
#include "numa/nj_numa.h"

#include <hwloc.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "numa/cgroup.h"
#include "numa/topology.h"

/* CPUs, nodes and caches, read once: pinning a worker changes the affinity mask that a later look would find. */
static struct {
    nj_machine machine;
    uint32_t *cpu; /* [machine.threads], see topology.h */
} facts;
static pthread_once_t facts_once = PTHREAD_ONCE_INIT;

static void defaults_set(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    nj_machine *m = &facts.machine;
    *m = (nj_machine){ .nodes = 1, .cpu_name = "unknown CPU" };
    m->cores = m->threads = online > 0 ? (uint32_t)online : 1;
}

/* Memory nodes that hold memory. */
static uint32_t nodes_count(hwloc_topology_t t)
{
    uint32_t nodes = 0;
    for (hwloc_obj_t n = NULL; (n = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_NUMANODE, n));)
        nodes += n->attr->numanode.local_memory > 0;
    return nodes ? nodes : 1;
}

static void caches_read(hwloc_topology_t t, nj_machine *m)
{
    hwloc_obj_t l2 = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_L2CACHE, NULL);
    if (l2) m->l2_bytes = l2->attr->cache.size;
    for (hwloc_obj_t l3 = NULL; (l3 = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_L3CACHE, l3));)
        m->l3_bytes += l3->attr->cache.size;
}

static void name_read(hwloc_topology_t t, nj_machine *m)
{
    hwloc_obj_t package = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_PACKAGE, NULL);
    const char *name = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    if (!name) return;
    size_t len = 0; /* runs of blanks become one: "Intel(R) Xeon(R)    CPU  E5" */
    for (name += strspn(name, " "); *name && len + 1 < sizeof m->cpu_name; name++)
        if (*name != ' ' || (name[1] != ' ' && name[1] != '\0')) m->cpu_name[len++] = *name;
    m->cpu_name[len] = '\0';
}

/* Cores, threads and the order of CPUs. False when there is nothing to count or no memory. */
static bool cpus_read(hwloc_topology_t t)
{
    int cores = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_CORE), threads = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU);
    if (threads < 1) return false;
    uint32_t *cpu = nj_array_new((size_t)threads, sizeof *cpu);
    if (!cpu) return false;
    hwloc_obj_type_t unit = cores > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU; /* some virtual machines report no cores */
    uint32_t n = 0;
    for (int turn = 0; n < (uint32_t)threads && turn < threads; turn++) {
        for (hwloc_obj_t core = NULL; (core = hwloc_get_next_obj_by_type(t, unit, core));) {
            int index = hwloc_bitmap_first(core->cpuset);
            for (int skip = 0; skip < turn && index >= 0; skip++) index = hwloc_bitmap_next(core->cpuset, index);
            if (index >= 0 && n < (uint32_t)threads) cpu[n++] = (uint32_t)index;
        }
    }
    facts.cpu = cpu;
    facts.machine.threads = n;
    facts.machine.cores = cores > 0 ? (uint32_t)cores : n;
    return true;
}

static void facts_read(void)
{
    hwloc_topology_t t;
    defaults_set();
    if (hwloc_topology_init(&t) == 0) {
        hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
        if (allowed && hwloc_topology_load(t) == 0) {
            /* The affinity mask already lies within the cpuset; taskset may have cut it further. */
            if (hwloc_get_cpubind(t, allowed, HWLOC_CPUBIND_THREAD) == 0) hwloc_topology_restrict(t, allowed, 0);
            if (cpus_read(t)) {
                facts.machine.nodes = nodes_count(t);
                caches_read(t, &facts.machine);
                name_read(t, &facts.machine);
            }
        }
        hwloc_bitmap_free(allowed);
        hwloc_topology_destroy(t);
    }
}

const uint32_t *nj_topology_cpus(uint32_t *count)
{
    pthread_once(&facts_once, facts_read);
    *count = facts.cpu ? facts.machine.threads : 0;
    return facts.cpu;
}

/* MemTotal and MemAvailable of /proc/meminfo, in bytes. */
static void meminfo_read(nj_machine *m)
{
    m->ram_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    m->ram_available_bytes = m->ram_bytes / 2; /* until the file says better */
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return;
    char line[128];
    uint64_t kib;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemTotal: %" SCNu64, &kib) == 1) m->ram_bytes = kib * 1024;
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) m->ram_available_bytes = kib * 1024;
    }
    fclose(f);
}

void nj_machine_read(nj_machine *m)
{
    nj_cgroup group;
    pthread_once(&facts_once, facts_read);
    *m = facts.machine;
    meminfo_read(m);
    nj_cgroup_read("/sys/fs/cgroup", "/proc/self/cgroup", &group);
    m->threads_best = m->cores < group.cpus ? m->cores : group.cpus;
    if (group.ram_bytes < m->ram_bytes) m->ram_bytes = group.ram_bytes;
    if (group.ram_available_bytes < m->ram_available_bytes) m->ram_available_bytes = group.ram_available_bytes;
    if (m->ram_available_bytes > m->ram_bytes) m->ram_available_bytes = m->ram_bytes;
}
