/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An engine as far away as another's memory behind a bus: what it is given to do is done by an engine of its own, and
 * counts as done when a bus could have done it. Every request takes the latency, and all of them share the width,
 * so that many small ones cost their headers; some complete later than others that followed.
 *
 * Room: memory. May use: memory/engine.h. The time is the owner's.
 */
#include <stdlib.h>

#include "memory/engine.h"

enum {
	PAYLOAD = 256, /* bytes of a packet on the bus, */
	HEADER = 24,   /* ... and what each costs beside them: header, sequence number, checksum, framing */
};

struct flight {
	void *cookie;
	uint64_t due;
	int err;
};

struct bus_engine {
	struct fx_dma_engine e;
	struct fx_dma_ops ops; /* bus_ops, as ordered as the inner engine */
	struct fx_dma_engine *inner;
	struct fx_dma_bus bus;
	uint64_t free_at; /* when the bus has carried all that was asked for, in 1/1024 ns */
	uint64_t rng;
	uint32_t depth;
	uint32_t nfree; /* flights that are nobody's: idle[0, nfree) */
	uint32_t ndone; /* done by the inner engine: heap[0, ndone), the earliest due first */
	struct flight **idle, **heap;
	struct flight flight[];
};

static uint64_t next_random(struct bus_engine *b)
{
	b->rng = b->rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return b->rng >> 33;
}

static uint64_t due(struct bus_engine *b, uint32_t len)
{
	uint64_t now = b->bus.now(b->bus.arg), bytes = len + (uint64_t)(len / PAYLOAD + 1) * HEADER;
	uint64_t carried = now << 10, late = 0;

	if (b->free_at < carried)
		b->free_at = carried;
	if (b->bus.bytes_per_us)
		b->free_at += (bytes << 10) * 1000 / b->bus.bytes_per_us;
	if (b->bus.reorder_permille && next_random(b) % 1000 < b->bus.reorder_permille)
		late = b->bus.latency_ns / 2 + next_random(b) % (b->bus.latency_ns + 1);
	return (b->free_at >> 10) + b->bus.latency_ns + late;
}

static void count(struct fx_dma_carried *c, const struct fx_dma *d)
{
	c->reads += !d->to_window;
	c->writes += d->to_window;
	c->bytes += d->len;
}

static unsigned bus_submit(struct fx_dma_engine *e, const struct fx_dma *d, unsigned n)
{
	struct bus_engine *b = (struct bus_engine *)e;
	unsigned i;

	for (i = 0; i < n && b->nfree; i++) {
		struct flight *f = b->idle[b->nfree - 1];
		struct fx_dma one = d[i];

		one.cookie = f;
		if (!b->inner->ops->submit(b->inner, &one, 1))
			break;
		*f = (struct flight){.cookie = d[i].cookie, .due = due(b, d[i].len)};
		b->nfree--;
		if (b->bus.carried)
			count(b->bus.carried, &d[i]);
	}
	return i;
}

static void bus_flush(struct fx_dma_engine *e)
{
	fx_dma_flush(((struct bus_engine *)e)->inner);
}

static void heap_push(struct bus_engine *b, struct flight *f)
{
	uint32_t i = b->ndone++;

	for (; i && b->heap[(i - 1) / 2]->due > f->due; i = (i - 1) / 2)
		b->heap[i] = b->heap[(i - 1) / 2];
	b->heap[i] = f;
}

static struct flight *heap_pop(struct bus_engine *b)
{
	struct flight *first = b->heap[0], *last = b->heap[--b->ndone];
	uint32_t i = 0, child;

	while ((child = 2 * i + 1) < b->ndone) {
		if (child + 1 < b->ndone && b->heap[child + 1]->due < b->heap[child]->due)
			child++;
		if (b->heap[child]->due >= last->due)
			break;
		b->heap[i] = b->heap[child];
		i = child;
	}
	b->heap[i] = last;
	return first;
}

static void collect(struct bus_engine *b)
{
	enum { BATCH = 64 };
	struct fx_dma_done done[BATCH];
	unsigned n;

	do {
		n = b->inner->ops->poll(b->inner, done, BATCH);
		for (unsigned i = 0; i < n; i++) {
			struct flight *f = done[i].cookie;

			f->err = done[i].err;
			heap_push(b, f);
		}
	} while (n == BATCH);
}

static unsigned bus_poll(struct fx_dma_engine *e, struct fx_dma_done *out, unsigned max)
{
	struct bus_engine *b = (struct bus_engine *)e;
	unsigned n = 0;
	uint64_t now;

	collect(b);
	if (!b->ndone)
		return 0;
	now = b->bus.now(b->bus.arg);
	while (n < max && b->ndone && b->heap[0]->due <= now) {
		struct flight *f = heap_pop(b);

		out[n++] = (struct fx_dma_done){.cookie = f->cookie, .err = f->err};
		b->idle[b->nfree++] = f;
	}
	return n;
}

static unsigned bus_pending(const struct fx_dma_engine *e)
{
	const struct bus_engine *b = (const struct bus_engine *)e;

	return b->depth - b->nfree;
}

/* What its inner engine has done waits for the time only. */
static bool bus_wakes(const struct fx_dma_engine *e)
{
	const struct bus_engine *b = (const struct bus_engine *)e;

	return !b->ndone && b->inner->ops->wakes && b->inner->ops->wakes(b->inner);
}

static void bus_destroy(struct fx_dma_engine *e)
{
	struct bus_engine *b = (struct bus_engine *)e;

	b->inner->ops->destroy(b->inner);
	free(b->idle);
	free(b->heap);
	free(b);
}

static const struct fx_dma_ops bus_ops = {
	.name = "bus",
	.submit = bus_submit,
	.flush = bus_flush,
	.poll = bus_poll,
	.pending = bus_pending,
	.wakes = bus_wakes,
	.destroy = bus_destroy,
};

struct fx_dma_engine *fx_dma_bus_create(struct fx_dma_engine *inner, unsigned depth,
					const struct fx_dma_bus *bus)
{
	struct bus_engine *b;

	if (!inner || !depth || depth > 1u << 20)
		return NULL;
	b = calloc(1, sizeof(*b) + depth * sizeof(b->flight[0]));
	if (!b)
		return NULL;
	b->ops = bus_ops;
	b->ops.ordered = inner->ops->ordered;
	b->e.ops = &b->ops;
	b->inner = inner;
	b->bus = *bus;
	b->rng = bus->seed;
	b->depth = depth;
	b->idle = calloc(depth, sizeof(struct flight *));
	b->heap = calloc(depth, sizeof(struct flight *));
	if (!b->idle || !b->heap) {
		free(b->idle);
		free(b->heap);
		free(b);
		return NULL;
	}
	while (b->nfree < depth) {
		b->idle[b->nfree] = &b->flight[b->nfree];
		b->nfree++;
	}
	return &b->e;
}
