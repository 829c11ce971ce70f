/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What fork makes of converted memory: the child gets a private copy, as if the memory had been private.
 *
 * Room: host. May use: convert.h, ranges.h, areas.h, mr.c's lock. The handlers of pthread_atfork; `before` holds the
 * lock of regions, so that no conversion is under way.
 */
#ifndef FX_HOST_FORK_H
#define FX_HOST_FORK_H

#include <stdbool.h>

void fx_fork_before(void);
void fx_fork_parent(void);
void fx_fork_child(void);

/* The program takes care itself: its children have no converted memory at all (ibv_fork_init). */
void fx_fork_unneeded(void);
bool fx_fork_is_unneeded(void);

#endif
