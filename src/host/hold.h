/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Holding the other threads of this process, where they would write into converted memory, from before a fork until
 * behind it.
 *
 * Room: host. May use: convert.h, libc. For fork.c, under the lock of regions.
 */
#ifndef FX_HOST_HOLD_H
#define FX_HOST_HOLD_H

#include <stddef.h>
#include <stdint.h>

struct fx_piece {
	uint8_t *addr; /* converted memory, one area */
	size_t len;
	int prot;
	uint32_t wishes; /* enum fx_wishes */
	uint8_t *view;	 /* the same pages, as children see them; NULL: they have zeroes */
};

/* Called by the thread that forks. The pieces must stay where they are until the end. */
void fx_hold_begin(const struct fx_piece *piece, uint32_t n);
/* The fork is done, and the others are still held, as far as this kernel can. In the parent. */
void fx_hold_forked(void);
/* Lets them go; in the child instead of both: it has no others. */
void fx_hold_end(void);
void fx_hold_child(void);

#endif
