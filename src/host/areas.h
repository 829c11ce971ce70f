/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The areas of this process's address space, as the kernel tells them.
 *
 * Room: host. May use: libc and the kernel. For fork handlers and interposed functions: no allocation, no locks, raw
 * system calls.
 */
#ifndef FX_HOST_AREAS_H
#define FX_HOST_AREAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fx_area {
	uintptr_t start, end;
	int prot;	/* PROT_* */
	bool converted; /* shared with the core: its pages are those of a memfd that was made for a region */
};

/* A walk over all areas, lowest first. */
struct fx_areas {
	int fd;
	size_t have, at; /* bytes in buf, and of them used */
	char buf[4096];
};

/* 0 or a negative errno. */
int fx_areas_open(struct fx_areas *it);
bool fx_areas_next(struct fx_areas *it, struct fx_area *out);
void fx_areas_close(struct fx_areas *it);

/* The area that holds `addr`, or the next one above. False: there is none. */
bool fx_area_at(uintptr_t addr, struct fx_area *out);

/* What a program may have asked for its memory, and mapping other pages there would undo. */
enum fx_wishes {
	FX_WISH_LOCKED = 1,
	FX_WISH_NO_DUMP = 2,
	FX_WISH_HUGE = 4,
	FX_WISH_NO_HUGE = 8,
	FX_WISH_NO_FORK = 16,	/* a child has no such memory */
	FX_WISH_WIPE_FORK = 32, /* a child finds zeroes */
};

/* The wishes for the area that holds `addr`; costs a look at every page of the areas below it. */
uint32_t fx_area_wishes(uintptr_t addr);

#endif
