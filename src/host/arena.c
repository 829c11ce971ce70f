/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where rings lie in the arena: first fit over a list of free extents, on lines of FX_LINE bytes.
 *
 * Room: host. May use: libc. What is free always reads zero, because a ring must start so (fx_phase()). Called
 * when queues are made and destroyed, never on the data path.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/host.h"

struct fx_extent {
	uint64_t off, size;
	struct fx_extent *next;
};

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) & ~(to - 1);
}

int fx_arena_init(struct fx_arena *a, uint8_t *base, uint64_t size, uint64_t heap_off, int discard)
{
	*a = (struct fx_arena){.base = base, .discard = discard};
	heap_off = round_up(heap_off, FX_LINE);
	if (heap_off >= size)
		return -EPROTO;
	a->free = malloc(sizeof(*a->free));
	if (!a->free)
		return -ENOMEM;
	*a->free = (struct fx_extent){.off = heap_off, .size = (size - heap_off) & ~(uint64_t)(FX_LINE - 1)};
	pthread_mutex_init(&a->lock, NULL);
	return 0;
}

void fx_arena_fini(struct fx_arena *a)
{
	for (struct fx_extent *e = a->free, *next; e; e = next) {
		next = e->next;
		free(e);
	}
	pthread_mutex_destroy(&a->lock);
}

int fx_arena_alloc(struct fx_arena *a, uint64_t size, uint64_t *off)
{
	int err = -ENOMEM;

	size = round_up(size ? size : 1, FX_LINE);
	pthread_mutex_lock(&a->lock);
	for (struct fx_extent **p = &a->free; *p; p = &(*p)->next) {
		struct fx_extent *e = *p;

		if (e->size < size)
			continue;
		*off = e->off;
		e->off += size;
		e->size -= size;
		if (!e->size) {
			*p = e->next;
			free(e);
		}
		err = 0;
		break;
	}
	pthread_mutex_unlock(&a->lock);
	if (err)
		fx_why("the context's arena has no %llu bytes left for another queue",
		       (unsigned long long)size);
	return err;
}

/* Whole pages go back to the system, which hands out zeroed ones; the edges are cleared. */
static void zero(struct fx_arena *a, uint64_t off, uint64_t size)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t first = round_up(off, page), last = (off + size) & ~(page - 1);

	if (last <= first ||
	    syscall(SYS_madvise, a->base + first, last - first, a->discard)) { /* not the shim's madvise() */
		memset(a->base + off, 0, size);
		return;
	}
	memset(a->base + off, 0, first - off);
	memset(a->base + last, 0, off + size - last);
}

void fx_arena_free(struct fx_arena *a, uint64_t off, uint64_t size, bool touch)
{
	struct fx_extent **p = &a->free, *prev = NULL, *e;

	size = round_up(size ? size : 1, FX_LINE);
	if (touch)
		zero(a, off, size);
	pthread_mutex_lock(&a->lock);
	for (; *p && (*p)->off < off; p = &(*p)->next)
		prev = *p;
	e = *p;
	if (prev && prev->off + prev->size == off) {
		prev->size += size;
		if (e && prev->off + prev->size == e->off) {
			prev->size += e->size;
			prev->next = e->next;
			free(e);
		}
	} else if (e && off + size == e->off) {
		e->off = off;
		e->size += size;
	} else {
		struct fx_extent *n = malloc(sizeof(*n));

		if (n) { /* without memory the extent is lost to this context, and nothing else */
			*n = (struct fx_extent){.off = off, .size = size, .next = e};
			*p = n;
		}
	}
	pthread_mutex_unlock(&a->lock);
}
