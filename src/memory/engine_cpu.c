/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The CPU as a DMA engine: copies at once, hands the completions out when polled.
 *
 * Room: memory. May use: memory/engine.h, memory/window.h for the poison mark. The hottest code of the stack.
 *
 * The order in which bytes become visible (guarantee O2): programs spin on the last byte, or the last word, of
 * a message and then read the rest. So each write stores its last word last, and no write begins before the
 * one before it is visible. Writes are merged into one copy only where the region is relaxed, since a copy
 * goes through its bytes in any order and a message may end in the middle of it; reads are merged wherever
 * they meet.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/engine.h"
#include "memory/window.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Application memory has no declared type. */
typedef uint64_t __attribute__((may_alias)) u64_any;
typedef uint32_t __attribute__((may_alias)) u32_any;
typedef uint16_t __attribute__((may_alias)) u16_any;

struct cpu_engine {
	struct fx_dma_engine e;
	uint32_t head; /* next to poll */
	uint32_t tail; /* next to complete */
	uint32_t depth;
	uint32_t mask;
	struct fx_dma_done ring[];
};

/*
 * Orders the previous write before the next one: its release put its own bytes in order, but later stores may pass
 * it on Arm. Nothing to do on x86; ThreadSanitizer does not know fences.
 */
static inline void write_barrier(void)
{
#ifndef __SANITIZE_THREAD__
	atomic_thread_fence(memory_order_release);
#endif
}

/*
 * A write that does not end on an 8-byte boundary, or is shorter: the largest aligned unit that it ends with
 * goes last.
 */
static __attribute__((noinline)) void put_odd(uint8_t *to, const uint8_t *from, uint64_t len)
{
	uintptr_t end = (uintptr_t)to + len;

	/* each release: the body before the tail that announces it */
	if (!(end & 3) && len >= 4) {
		u32_any last;

		memcpy(&last, from + len - 4, 4);
		memmove(to, from, len - 4);
		__atomic_store_n((u32_any *)(to + len - 4), last, __ATOMIC_RELEASE);
	} else if (!(end & 1) && len >= 2) {
		u16_any last;

		memcpy(&last, from + len - 2, 2);
		memmove(to, from, len - 2);
		__atomic_store_n((u16_any *)(to + len - 2), last, __ATOMIC_RELEASE);
	} else if (len) {
		uint8_t last = from[len - 1];

		memmove(to, from, len - 1);
		__atomic_store_n(to + len - 1, last, __ATOMIC_RELEASE);
	}
}

/* To the window. Source and destination may overlap: both can be the same application's memory. */
static inline void put(uint8_t *to, const uint8_t *from, uint64_t len)
{
	u64_any last;

	write_barrier();
	if (unlikely(len < 8 || (((uintptr_t)to + len) & 7))) {
		put_odd(to, from, len);
		return;
	}
	memcpy(&last, from + len - 8, 8);
	if (len == 64) {
		uint8_t body[56];

		memcpy(body, from, sizeof(body));
		memcpy(to, body, sizeof(body));
	} else if (len != 8) {
		memmove(to, from, len - 8);
	}
	/* release: the body before the word that announces it */
	__atomic_store_n((u64_any *)(to + len - 8), last, __ATOMIC_RELEASE);
}

/* From the window. An aligned word is read at once, so that a counter in it is never torn. */
static inline void get(uint8_t *to, const uint8_t *from, uint64_t len)
{
	if (len == 8 && !((uintptr_t)from & 7)) {
		/* relaxed: only to have it whole */
		u64_any v = __atomic_load_n((const u64_any *)from, __ATOMIC_RELAXED);

		memcpy(to, &v, 8);
	} else if (len == 64) {
		uint8_t all[64];

		memcpy(all, from, sizeof(all));
		memcpy(to, all, sizeof(all));
	} else {
		memmove(to, from, len);
	}
}

/* Can `b` ride on the copy of `a`? */
static inline bool meets(const struct fx_dma *a, const struct fx_dma *b)
{
	if (a->op | b->op || a->local + a->len != b->local || a->win + a->len != b->win ||
	    a->to_window != b->to_window)
		return false;
	if (!a->to_window)
		return true;
	return a->mr && a->mr == b->mr && (a->mr->access & FX_ACC_RELAXED_ORDERING);
}

/* A region whose backing was taken away took zeroes, or gave them: its transfers have failed. */
static __attribute__((noinline)) void check_poison(struct cpu_engine *c, const struct fx_dma *d, unsigned n,
						   uint32_t before)
{
	uint32_t at = c->tail - n;

	for (unsigned i = 0; i < n; i++)
		if (fx_poison_hit(d[i].mr, d[i].local, before))
			c->ring[(at + i) & c->mask].err = -EFAULT;
}

static unsigned cpu_submit(struct fx_dma_engine *e, const struct fx_dma *d, unsigned n)
{
	struct cpu_engine *c = (struct cpu_engine *)e;
	uint32_t room = c->depth - (c->tail - c->head), before = fx_poisoned_so_far();
	unsigned i = 0;

	if (unlikely(n > room))
		n = room;
	while (i < n) {
		const struct fx_dma *first = &d[i];
		uint64_t len = first->len;
		int err = 0;
		unsigned last = i;

		while (last + 1 < n && meets(&d[last], &d[last + 1]))
			len += d[++last].len;
		if (unlikely(!first->win))
			err = len ? -EFAULT : 0; /* the slow engine's */
		else if (unlikely(first->op))
			err = fx_atomic_run(first);
		else if (first->to_window)
			put(first->win, first->local, len);
		else
			get(first->local, first->win, len);
		for (; i <= last; i++)
			c->ring[c->tail++ & c->mask] =
				(struct fx_dma_done){.cookie = d[i].cookie, .err = err};
	}
	if (unlikely(fx_poisoned_any()))
		check_poison(c, d, n, before);
	return n;
}

static unsigned cpu_poll(struct fx_dma_engine *e, struct fx_dma_done *out, unsigned max)
{
	struct cpu_engine *c = (struct cpu_engine *)e;
	unsigned n = c->tail - c->head;

	if (n > max)
		n = max;
	for (unsigned i = 0; i < n; i++)
		out[i] = c->ring[c->head++ & c->mask];
	return n;
}

static unsigned cpu_pending(const struct fx_dma_engine *e)
{
	const struct cpu_engine *c = (const struct cpu_engine *)e;

	return c->tail - c->head;
}

static void cpu_destroy(struct fx_dma_engine *e)
{
	free(e);
}

static const struct fx_dma_ops cpu_ops = {
	.name = "cpu",
	.ordered = true,
	.submit = cpu_submit,
	.poll = cpu_poll,
	.pending = cpu_pending,
	.destroy = cpu_destroy,
};

struct fx_dma_engine *fx_dma_cpu_create(unsigned depth)
{
	struct cpu_engine *c;
	uint32_t size = 1;

	if (!depth || depth > 1u << 20)
		return NULL;
	while (size < depth)
		size *= 2;
	c = calloc(1, sizeof(*c) + size * sizeof(c->ring[0]));
	if (!c)
		return NULL;
	c->e.ops = &cpu_ops;
	c->depth = depth;
	c->mask = size - 1;
	return &c->e;
}
