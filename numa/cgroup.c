/* Limits of control groups, version 2 (one tree: cpu.max, memory.max) and version 1 (a tree per controller).
 * Format: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the Linux kernel. See cgroup.h. */
#include "numa/cgroup.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_MAX_BYTES 4096

/* First line of DIR/FILE without its newline; false when there is none. */
static bool read_line(const char *dir, const char *file, char *line, int size)
{
    char path[PATH_MAX_BYTES + 64];
    int len = snprintf(path, sizeof path, "%s/%s", dir, file);
    if (len < 0 || (size_t)len >= sizeof path) return false;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool got = fgets(line, size, f) != NULL;
    fclose(f);
    if (got) line[strcspn(line, "\n")] = '\0';
    return got;
}

/* A number, or `none` for "max", "-1" and whatever else is no plain number. */
static uint64_t read_number(const char *dir, const char *file, uint64_t none)
{
    char line[64];
    uint64_t value;
    return read_line(dir, file, line, sizeof line) && line[0] != '-' && sscanf(line, "%" SCNu64, &value) == 1 ? value
                                                                                                              : none;
}

/* The value after `key` in memory.stat, 0 when absent. */
static uint64_t read_stat(const char *dir, const char *key)
{
    char path[PATH_MAX_BYTES + 64], line[256], name[64];
    uint64_t value, found = 0;
    int len = snprintf(path, sizeof path, "%s/memory.stat", dir);
    if (len < 0 || (size_t)len >= sizeof path) return 0;
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    while (!found && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %" SCNu64, name, &value) == 2 && strcmp(name, key) == 0) found = value;
    fclose(f);
    return found;
}

static void limit_cpus(nj_cgroup *c, uint64_t quota_us, uint64_t period_us)
{
    if (period_us == 0 || quota_us == UINT64_MAX) return;
    uint64_t cpus = quota_us / period_us;
    if (cpus < 1) cpus = 1;
    if (cpus < c->cpus) c->cpus = (uint32_t)cpus;
}

/* Page cache counts as used, but its inactive part goes when memory is wanted. */
static void limit_ram(nj_cgroup *c, uint64_t max, uint64_t current, uint64_t cache)
{
    if (max == UINT64_MAX) return;
    uint64_t used = current > cache ? current - cache : 0;
    uint64_t left = max > used ? max - used : 0;
    if (max < c->ram_bytes) c->ram_bytes = max;
    if (left < c->ram_available_bytes) c->ram_available_bytes = left;
}

static void read_group_cpu(nj_cgroup *c, const char *dir)
{
    char line[64];
    uint64_t quota, period;
    if (read_line(dir, "cpu.max", line, sizeof line)) {
        if (sscanf(line, "%" SCNu64 " %" SCNu64, &quota, &period) == 2) limit_cpus(c, quota, period);
    } else {
        limit_cpus(c, read_number(dir, "cpu.cfs_quota_us", UINT64_MAX), read_number(dir, "cpu.cfs_period_us", 0));
    }
}

static void read_group_memory(nj_cgroup *c, const char *dir)
{
    limit_ram(c, read_number(dir, "memory.max", UINT64_MAX), read_number(dir, "memory.current", 0),
              read_stat(dir, "inactive_file"));
    limit_ram(c, read_number(dir, "memory.limit_in_bytes", UINT64_MAX), read_number(dir, "memory.usage_in_bytes", 0),
              read_stat(dir, "total_inactive_file"));
}

/* Reads the group and all above it, up to the mount. In a container the path may name directories of the host that are
 * not mounted here; then the mount itself is the container's group, and the walk ends there. */
static void walk(nj_cgroup *c, const char *mount, const char *path, void (*read_group)(nj_cgroup *, const char *))
{
    char dir[PATH_MAX_BYTES];
    int len = snprintf(dir, sizeof dir, "%s%s", mount, path);
    if (len < 0 || (size_t)len >= sizeof dir) return;
    size_t root = strlen(mount);
    for (;;) {
        read_group(c, dir);
        char *slash = strrchr(dir + root, '/');
        if (!slash) break;
        *slash = '\0';
    }
}

static bool has_controller(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = list; (p = strstr(p, name)); p += len)
        if ((p == list || p[-1] == ',') && (p[len] == ',' || p[len] == '\0')) return true;
    return false;
}

void nj_cgroup_read(const char *mount, const char *membership, nj_cgroup *out)
{
    *out = (nj_cgroup){ .cpus = UINT32_MAX, .ram_bytes = UINT64_MAX, .ram_available_bytes = UINT64_MAX };
    FILE *f = fopen(membership, "re");
    if (!f) return;
    char *line = NULL, tree[PATH_MAX_BYTES];
    size_t cap = 0;
    while (getline(&line, &cap, f) > 0) { /* "hierarchy:controllers:path"; version 2 has no controllers */
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = '\0';
        controllers++;
        if (*controllers == '\0') {
            walk(out, mount, path, read_group_cpu);
            walk(out, mount, path, read_group_memory);
        }
        if (snprintf(tree, sizeof tree, "%s/%s", mount, controllers) >= (int)sizeof tree) continue;
        if (has_controller(controllers, "cpu")) walk(out, tree, path, read_group_cpu);
        if (has_controller(controllers, "memory")) walk(out, tree, path, read_group_memory);
    }
    free(line);
    fclose(f);
}
