/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a program asked for its memory (locked, not in core dumps, huge pages, NUMA policy, ...), kept over a
 * conversion: the new pages know nothing of it.
 *
 * Room: host. May use: ranges.h, areas.h, the kernel.
 */
#ifndef FX_HOST_WISHES_H
#define FX_HOST_WISHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FX_NODE_WORDS = 16 }; /* of a set of 1024 NUMA nodes */

struct fx_kept {
	uint32_t wishes; /* enum fx_wishes */
	int policy;	 /* MPOL_*, 0: the default */
	unsigned long nodes[FX_NODE_WORDS];
};

/* Before the conversion of a range that begins at `addr`, and lies in one area. */
void fx_wishes_look(struct fx_kept *k, uintptr_t addr);
/*
 * After it, whether it succeeded or stopped half way (`all`: it succeeded). What was converted is noted in the list of
 * ranges, and no forked child has it (fork.c gives it a copy).
 */
void fx_wishes_keep(const struct fx_kept *k, uintptr_t addr, size_t len, bool all);
/* The wishes that hold for any memory, for pages that are new at `addr`. */
void fx_wishes_apply(uint32_t wishes, uintptr_t addr, size_t len);

/*
 * From now on we hear of every madvise of the program (`advice` is one), so that the costly look for wishes is made
 * only when there may be some.
 */
void fx_wishes_watch(void);
void fx_wishes_heard(int advice);

#endif
