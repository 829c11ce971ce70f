/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory regions of every kind that the transport may meet: flat, in several runs, and partly or wholly out of reach;
 * and the engine for the last.
 *
 * Room: tests/sim.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

enum { RUN_MIN = 5000, QUEUE = 1024, PAGE = 4096 };

static void cut_runs(struct mem *m, enum mem_kind kind, struct rng *r)
{
	uint64_t off = 0;

	while (off < m->size) {
		struct fx_mr_run *run = &m->runs[m->mr.nrun++];
		uint64_t len = RUN_MIN + rng_below(r, 1 + m->size / 8);

		if (m->mr.nrun == 32 || len > m->size - off)
			len = m->size - off;
		*run = (struct fx_mr_run){.off = off, .len = len, .base = m->bytes + off};
		if (kind == MEM_SLOW || (kind == MEM_SOME_SLOW && rng_chance(r, 500000)))
			run->base = NULL;
		off += len;
	}
	m->mr.run = m->runs;
}

struct mem *mem_create(struct host *h, uint32_t size, uint32_t access, enum mem_kind kind, struct rng *r)
{
	struct mem *m = calloc(1, sizeof(*m));
	uint32_t room = (size + PAGE - 1) / PAGE * PAGE;

	m->bytes = aligned_alloc(PAGE, room);
	m->size = size;
	m->mr.length = size;
	m->mr.iova = rng_chance(r, 500000) ? (uint64_t)rng_below(r, 1 << 30) * PAGE : (uint64_t)(uintptr_t)m->bytes;
	m->mr.access = access;
	m->mr.pd = 1;
	m->mr.slow = m->bytes;
	if (kind == MEM_FLAT)
		m->mr.base = m->bytes;
	else
		cut_runs(m, kind, r);
	mem_publish(h, m, h->next_mr++, (uint32_t)rng_next(r));
	return m;
}

void mem_publish(struct host *h, struct mem *m, uint32_t slot, uint32_t secret)
{
	m->mr.key = slot << FX_KEY_RAND_BITS | (secret & ((1u << FX_KEY_RAND_BITS) - 1));
	atomic_store_explicit(&h->mr_slot[slot], &m->mr, memory_order_release);
}

void mem_revoke(struct host *h, struct mem *m)
{
	atomic_store_explicit(&h->mr_slot[m->mr.key >> FX_KEY_RAND_BITS], NULL, memory_order_release);
}

void mem_destroy(struct mem *m)
{
	free(m->bytes);
	free(m);
}

/* ---- the slow engine ---- */

struct slow {
	struct fx_dma_engine e;
	struct rng rng;
	unsigned delay, n;
	struct {
		struct fx_dma d;
		unsigned polls; /* left */
	} q[QUEUE];
};

static unsigned slow_submit(struct fx_dma_engine *e, const struct fx_dma *d, unsigned n)
{
	struct slow *s = (struct slow *)e;
	unsigned k;

	for (k = 0; k < n && s->n < QUEUE; k++) {
		s->q[s->n].d = d[k];
		s->q[s->n++].polls = (unsigned)rng_below(&s->rng, s->delay + 1);
	}
	return k;
}

static unsigned slow_poll(struct fx_dma_engine *e, struct fx_dma_done *out, unsigned max)
{
	struct slow *s = (struct slow *)e;
	unsigned n = 0;

	for (unsigned i = 0; i < s->n && n < max;) {
		const struct fx_dma *d = &s->q[i].d;
		uint8_t *mem = (uint8_t *)d->mr->slow + (d->va - d->mr->iova);

		if (s->q[i].polls) {
			s->q[i++].polls--;
			continue;
		}
		if (d->to_window)
			memcpy(mem, d->local, d->len);
		else
			memcpy(d->local, mem, d->len);
		out[n++] = (struct fx_dma_done){.cookie = d->cookie};
		s->q[i] = s->q[--s->n];
	}
	return n;
}

static unsigned slow_pending(const struct fx_dma_engine *e)
{
	return ((const struct slow *)e)->n;
}

static void slow_destroy(struct fx_dma_engine *e)
{
	free(e);
}

static const struct fx_dma_ops slow_ops = {
	.name = "sim-slow",
	.submit = slow_submit,
	.poll = slow_poll,
	.pending = slow_pending,
	.destroy = slow_destroy,
};

struct fx_dma_engine *slow_engine_create(uint64_t seed, unsigned delay)
{
	struct slow *s = calloc(1, sizeof(*s));

	s->e.ops = &slow_ops;
	s->rng = rng_of(seed, 7);
	s->delay = delay;
	return &s->e;
}
