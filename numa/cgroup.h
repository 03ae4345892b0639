/* What the control group leaves this process of CPU time and memory. Private to numa/. */
#ifndef NJ_CGROUP_H
#define NJ_CGROUP_H

#include <stdint.h>

typedef struct nj_cgroup {
    uint32_t cpus;      /* whole CPUs of quota, at least 1; UINT32_MAX without one */
    uint64_t ram_bytes; /* UINT64_MAX without a limit */
    uint64_t ram_available_bytes;
} nj_cgroup;

/* Reads the limits of the group and of every group above it, and keeps the lowest. Never fails: what can't be read
 * doesn't limit.
 *   mount       where the cgroup file systems are ("/sys/fs/cgroup")
 *   membership  the file that names this process's groups ("/proc/self/cgroup") */
void nj_cgroup_read(const char *mount, const char *membership, nj_cgroup *out);

#endif
