/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the memory room share: the address space, its virtual memory areas, its converted
 * regions, and the window behind struct fx_mr.
 *
 * Room: memory, inside only (and its tests).
 */
#ifndef FX_MEMORY_SPACE_H
#define FX_MEMORY_SPACE_H

#include <sys/types.h>

#include "memory/window.h"
#include "transport/dma.h"

enum {
	FX_HUGE = 2 << 20, /* windows keep addresses congruent to this, so that huge pages stay huge */
	FX_CONVERT_SMALL = 64 << 10, /* past the budget, nothing below this is converted */
	FX_REGION_BUCKETS = 256,
	FX_PENDING_MAX = 4 * FX_MSG_FDS, /* memfds handed out whose step 2 has not come */
	FX_WINDOW_PIECES = 256,
	FX_LINES_MAX = 4096,
};

/* ---- maps.c: the areas of an address space ---- */
enum fx_vma_flags { FX_VMA_READ = 1, FX_VMA_WRITE = 2, FX_VMA_EXEC = 4, FX_VMA_SHARED = 8 };

struct fx_vma {
	uint64_t start, end;
	uint64_t offset; /* of start, in the file */
	uint64_t inode;	 /* 0: anonymous */
	uint64_t page;	 /* size of its pages, 0 where the kernel does not say */
	dev_t dev;
	uint32_t flags; /* enum fx_vma_flags */
	bool stack;	/* said to be a stack; only looked up for private anonymous memory */
};

struct fx_maps {
	int fd;		    /* /proc/PID/maps */
	bool text;	    /* this kernel has no PROCMAP_QUERY: read the text */
	struct fx_vma *vma; /* the text, read by fx_maps_refresh() */
	size_t n, cap;
};

/* Before a series of look-ups; with PROCMAP_QUERY there is nothing to do. 0, -ESRCH, -ENOMEM. */
int fx_maps_refresh(struct fx_maps *m);
/* The area that contains `addr` or the next one above. 0, -ENOENT: none, -ESRCH. */
int fx_maps_at(struct fx_maps *m, uint64_t addr, struct fx_vma *out);
void fx_maps_free(struct fx_maps *m);

/* ---- space.c ---- */
/* A memfd that we gave the application to convert a range into. */
struct fx_region {
	struct fx_region *next;
	uint64_t addr, len;
	dev_t dev;
	ino_t ino;
	int fd;
	bool pending; /* handed out, step 2 has not come */
};

struct fx_lane; /* engine_slow.c */

struct fx_space {
	/*
	 * The control thread's, the windows', the helper thread's, and one for every lane that an engine
	 * polls.
	 */
	_Atomic uint32_t refs;
	pid_t pid;
	int proc; /* /proc/PID */
	int mem;  /* /proc/PID/mem */
	struct fx_maps maps;
	uint32_t vma_budget; /* areas that conversions may cost the application */
	uint32_t nregion;
	uint32_t npending;
	uint32_t sweep; /* bucket where the collector goes on */
	struct fx_region *bucket[FX_REGION_BUCKETS];

	/* engine_slow.c: shared with the helper thread and with the workers */
	bool helper; /* started; control thread only */
	_Atomic(struct fx_lane *) lanes;
	_Atomic uint32_t sleeping; /* a futex: 1 while the helper waits for work */
	_Atomic uint32_t closing;
	_Atomic uint32_t transfer; /* number of the transfer under way, or 0 */
	uint32_t serial;	   /* of the last transfer; helper only */
};

struct fx_region *fx_region_new(struct fx_space *s, uint64_t addr, uint64_t len);
struct fx_region *fx_region_find(struct fx_space *s, const struct fx_vma *v);
void fx_region_settle(struct fx_space *s, uint64_t addr, uint64_t len);
bool fx_region_pending(const struct fx_space *s, uint64_t addr, uint64_t len);
void fx_region_sweep(struct fx_space *s, uint32_t buckets);
void fx_space_put(struct fx_space *s);

/* ---- engine_slow.c, what a space needs of it ---- */
int fx_slow_start(struct fx_space *s); /* the helper thread, once; 0 or -EAGAIN */
void fx_slow_stop(struct fx_space *s); /* asks it to end; does not wait */
void fx_slow_free(struct fx_space *s); /* frees the lanes when the last reference has gone */

/* ---- transfer.c: the helper thread's system calls; 0, -EFAULT, or -ESRCH: the process has ended ---- */
int fx_space_transfer(const struct fx_space *s, uint8_t *bounce, uint64_t addr, size_t len, bool to_window);
/* The same for ring entries of FX_LINES_MAX bytes at most; may change `bounce`. */
int fx_space_lines(const struct fx_space *s, uint8_t *bounce, uint64_t addr, size_t len, bool to_window);
/* An atomic by reading and writing: atomic to the helper's other transfers, of which there is one at a time. */
int fx_space_atomic(const struct fx_space *s, uint64_t addr, uint8_t op, struct fx_dma_atomic *a);

/* ---- window.c and guard.c ---- */
struct fx_window {
	struct fx_window *next, **link; /* guard.c */
	struct fx_space *space;
	struct fx_mr *mr;
	uint64_t addr; /* the application's address of the region's first byte */
	uint8_t *map;  /* what is mapped, and only that; NULL: nothing is */
	size_t maplen;
	uint32_t vmas; /* areas that it costs this process */
	struct fx_mr_run *run;
	_Atomic uint32_t poisoned;
};

void fx_guard_add(struct fx_window *w);
void fx_guard_del(struct fx_window *w);

#endif
