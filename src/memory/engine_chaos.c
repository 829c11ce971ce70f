/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A DMA engine for tests: late, and in any order.
 *
 * Room: memory. May use: memory/engine.h. Every descriptor is cut in two at a random place; each half moves
 * at a poll of its own, and the completion comes with the later one or after it. So bytes may be there long
 * before they are reported, the end of a message before its beginning, and of two overlapping copies either
 * may win. The source is read when its half moves: a buffer that is recycled too early is caught.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/engine.h"
#include "memory/window.h"

enum { LINE = 64 };

struct flight {
	struct fx_dma d;
	uint32_t cut;
	uint64_t due[3]; /* poll at which [0, cut) moves, [cut, len) moves, the completion comes */
	bool moved[2];
	int err;
};

struct chaos_engine {
	struct fx_dma_engine e;
	uint64_t rng;
	uint64_t now; /* polls so far */
	uint32_t depth, max_delay;
	uint32_t n; /* under way: flight[0, n), in no order */
	struct flight flight[];
};

/* A Weyl sequence through a mixer: any seed is good, and runs are the same everywhere. */
static uint64_t next_random(struct chaos_engine *c)
{
	uint64_t x = c->rng += UINT64_C(0xd1342543de82ef95);

	x = (x ^ x >> 32) * UINT64_C(0xaef17502108ef2d9);
	x = (x ^ x >> 29) * UINT64_C(0xd6e8feb86659fd93);
	return x ^ x >> 32;
}

static uint64_t delay(struct chaos_engine *c)
{
	return 1 + (c->max_delay ? next_random(c) % c->max_delay : 0);
}

/* Where a descriptor is cut. An atomic is done in one, as the second half; lines stay whole. */
static uint32_t cut_at(struct chaos_engine *c, const struct fx_dma *d)
{
	uint32_t cut = d->op ? 0 : (uint32_t)(next_random(c) % ((uint64_t)d->len + 1));

	return d->lines ? cut & ~(uint32_t)(LINE - 1) : cut;
}

static unsigned chaos_submit(struct fx_dma_engine *e, const struct fx_dma *d, unsigned n)
{
	struct chaos_engine *c = (struct chaos_engine *)e;

	if (n > c->depth - c->n)
		n = c->depth - c->n;
	for (unsigned i = 0; i < n; i++) {
		struct flight *f = &c->flight[c->n++];

		*f = (struct flight){.d = d[i], .cut = cut_at(c, &d[i])};
		for (int k = 0; k < 3; k++)
			f->due[k] = c->now + delay(c);
		for (int k = 0; k < 2; k++)
			if (f->due[2] < f->due[k])
				f->due[2] = f->due[k];
	}
	return n;
}

static void move_half(struct flight *f, int k)
{
	uint32_t at = k ? f->cut : 0, len = k ? f->d.len - f->cut : f->cut, before = fx_poisoned_so_far();

	f->moved[k] = true;
	if (!f->d.win || !len)
		return;
	if (f->d.op) {
		if (k)
			f->err = fx_atomic_run(&f->d);
		return;
	}
	if (f->d.to_window)
		memmove(f->d.win + at, f->d.local + at, len);
	else
		memmove(f->d.local + at, f->d.win + at, len);
	if (fx_poison_hit(f->d.mr, f->d.local, before))
		f->err = -EFAULT;
}

/* Moves what is due, one pass in a random rotation, so that halves of the same poll have no order either. */
static void move_due(struct chaos_engine *c)
{
	uint64_t start = next_random(c);
	uint32_t halves = 2 * c->n;

	for (uint32_t i = 0; i < halves; i++) {
		uint32_t h = (uint32_t)((start + i) % halves);
		struct flight *f = &c->flight[h / 2];

		if (!f->moved[h % 2] && f->due[h % 2] <= c->now)
			move_half(f, h % 2);
	}
}

static unsigned chaos_poll(struct fx_dma_engine *e, struct fx_dma_done *out, unsigned max)
{
	struct chaos_engine *c = (struct chaos_engine *)e;
	unsigned got = 0;

	c->now++;
	if (!c->n)
		return 0;
	move_due(c);
	for (uint32_t i = 0; i < c->n && got < max;) {
		struct flight *f = &c->flight[i];

		if (f->due[2] > c->now) {
			i++;
			continue;
		}
		out[got++] = (struct fx_dma_done){
			.cookie = f->d.cookie,
			.err = f->d.win || !f->d.len ? f->err : -EFAULT, /* the slow engine's */
		};
		*f = c->flight[--c->n];
	}
	return got;
}

static unsigned chaos_pending(const struct fx_dma_engine *e)
{
	return ((const struct chaos_engine *)e)->n;
}

static void chaos_destroy(struct fx_dma_engine *e)
{
	free(e);
}

static const struct fx_dma_ops chaos_ops = {
	.name = "chaos",
	.ordered = false,
	.submit = chaos_submit,
	.poll = chaos_poll,
	.pending = chaos_pending,
	.destroy = chaos_destroy,
};

struct fx_dma_engine *fx_dma_chaos_create(unsigned depth, unsigned max_delay, uint64_t seed)
{
	struct chaos_engine *c;

	if (!depth || depth > 1u << 20)
		return NULL;
	c = calloc(1, sizeof(*c) + depth * sizeof(c->flight[0]));
	if (!c)
		return NULL;
	c->e.ops = &chaos_ops;
	c->rng = seed;
	c->depth = depth;
	c->max_delay = max_delay;
	return &c->e;
}
