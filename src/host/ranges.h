/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ranges of this process's memory that were converted, and what the program had asked for them.
 *
 * Room: host. May use: areas.h, lock.h, the kernel. Every function may be called by any thread, in interposed
 * functions too: no allocation by malloc, signals blocked while the lock is held.
 *
 * The list says where to look, and areas.h what is there: a range may have been unmapped or moved since, by libc
 * itself too, without anybody being told.
 */
#ifndef FX_HOST_RANGES_H
#define FX_HOST_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* [addr, addr + len) is converted, with these wishes (enum fx_wishes). 0, or -ENOMEM: it is not in the list. */
int fx_ranges_add(uintptr_t addr, size_t len, uint32_t wishes);
/* It is no longer. */
void fx_ranges_cut(uintptr_t addr, size_t len);
/* May any of it be converted? Costs nothing while nothing is. */
bool fx_ranges_any(uintptr_t addr, size_t len);
/* The wishes for the byte at `addr`, 0 where nothing is converted; *end (may be NULL): up to where they are the same. */
uint32_t fx_ranges_wishes(uintptr_t addr, uintptr_t *end);
/* What was at [from, from + len) is at `to` now. */
void fx_ranges_move(uintptr_t from, size_t len, uintptr_t to);
/* Changes the wishes for all of [addr, addr + len) that is converted. 0 or -ENOMEM. */
int fx_ranges_wish(uintptr_t addr, size_t len, uint32_t set, uint32_t clear);
/* How many there are. */
uint32_t fx_ranges_count(void);
/* In a forked child: nothing is converted, and whoever held the lock is not there. */
void fx_ranges_forget(void);

#endif
