/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starting and ending DPDK's environment: a small one, for one process, that leaves no file behind.
 *
 * Room: core. May use: DPDK's EAL.
 */
#ifndef FX_CORE_EAL_H
#define FX_CORE_EAL_H

#include <stdbool.h>
#include <stddef.h>

enum fx_huge { FX_HUGE_AUTO, FX_HUGE_NO, FX_HUGE_YES };

struct fx_eal_cfg {
	const char *program;
	const char *vdev; /* NULL: none */
	unsigned workers;
	enum fx_huge huge;
	bool verbose;
};

/*
 * 0, or a negative errno with `why`. EAL lcores 1 .. workers are free then; all may use every CPU that this
 * process may.
 */
int fx_eal_start(const struct fx_eal_cfg *cfg, char *why, size_t size);
void fx_eal_end(void);
/* CPUs that this process may use. */
unsigned fx_eal_cpus(void);
bool fx_eal_has_huge(void);

#endif
