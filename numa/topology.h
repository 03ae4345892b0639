/* Which hardware threads workers should take. Private to numa/. */
#ifndef NJ_TOPOLOGY_H
#define NJ_TOPOLOGY_H

#include <stdint.h>

/* The operating system's numbers of the hardware threads this process may run on, in the order in which workers should
 * take them: the first of every physical core, node by node, then the second of every core, and so on.
 * *count of them, read once and constant; none when the topology could not be read. */
const uint32_t *nj_topology_cpus(uint32_t *count);

#endif
