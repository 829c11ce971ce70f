/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory regions of every kind that the transport may meet: flat, in several runs, and partly or wholly out
 * of reach; and the engine for the last.
 *
 * Room: tests/sim.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	RUN_MIN = 2,
	QUEUE = 1024,
	PAGE = 4096,
	RUNS = sizeof((struct mem){0}.runs) / sizeof(struct fx_mr_run)
};

static void *map(int fd, uint64_t off, uint64_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)off);

	if (p == MAP_FAILED)
		abort();
	return p;
}

/* The same pages twice: in one piece for the application, in runs at other addresses for the transport. */
static void cut_runs(struct mem *m, int fd, enum mem_kind kind, struct rng *r)
{
	uint64_t off = 0;

	while (off < m->room) {
		struct fx_mr_run *run = &m->runs[m->mr.nrun++];
		uint64_t len = (RUN_MIN + rng_below(r, 1 + m->room / PAGE / 8)) * PAGE;

		if (m->mr.nrun == RUNS || len > m->room - off)
			len = m->room - off;
		*run = (struct fx_mr_run){.off = off, .len = len};
		if (kind == MEM_RUNS || (kind == MEM_SOME_SLOW && rng_chance(r, 500000)))
			run->base = map(fd, off, len);
		off += len;
	}
	m->mr.run = m->runs;
}

struct mem *mem_create(struct host *h, uint32_t size, uint32_t access, enum mem_kind kind, struct rng *r)
{
	struct mem *m = calloc(1, sizeof(*m));

	m->size = size;
	m->room = (size + PAGE - 1) / PAGE * PAGE;
	m->mr.length = size;
	m->mr.access = access;
	m->mr.pd = 1;
	if (kind == MEM_FLAT) {
		m->mr.base = m->bytes = aligned_alloc(PAGE, m->room);
	} else {
		int fd = memfd_create("sim", MFD_CLOEXEC);

		if (fd < 0 || ftruncate(fd, m->room))
			abort();
		m->bytes = map(fd, 0, m->room);
		cut_runs(m, fd, kind, r);
		close(fd);
	}
	m->mr.slow = m->bytes;
	m->mr.iova = rng_chance(r, 500000) ? (uint64_t)rng_below(r, 1 << 30) * PAGE
					   : (uint64_t)(uintptr_t)m->bytes;
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

void mw_publish(struct host *h, struct fx_mw *mw, uint32_t slot, uint32_t secret)
{
	mw->key = (h->table.n + slot) << FX_KEY_RAND_BITS |
		  (secret << FX_KEY_TAG_BITS & ((1u << FX_KEY_RAND_BITS) - 1));
	atomic_store_explicit(&h->mw_slot[slot], mw, memory_order_release);
}

void mem_destroy(struct mem *m)
{
	for (uint32_t i = 0; i < m->mr.nrun; i++)
		if (m->runs[i].base)
			munmap(m->runs[i].base, m->runs[i].len);
	if (m->mr.nrun)
		munmap(m->bytes, m->room);
	else
		free(m->bytes);
	free(m);
}

/* ---- the slow engine ---- */

struct slow {
	struct fx_dma_engine e;
	struct rng rng;
	unsigned delay, n;
	uint64_t refused;
	struct {
		struct fx_dma d;
		unsigned polls; /* left */
	} q[QUEUE];
};

static bool has_room(const struct slow *s, const struct mem *m)
{
	return s->n < QUEUE && (!m->lane || m->under_way < m->lane);
}

static unsigned slow_submit(struct fx_dma_engine *e, const struct fx_dma *d, unsigned n)
{
	struct slow *s = (struct slow *)e;
	unsigned k;

	for (k = 0; k < n && has_room(s, mem_of(d[k].mr)); k++) {
		mem_of(d[k].mr)->under_way++;
		s->q[s->n].d = d[k];
		s->q[s->n++].polls = (unsigned)rng_below(&s->rng, s->delay + 1);
	}
	s->refused += k < n;
	return k;
}

/* One at a time, like everything here; the word may lie anywhere. */
static void slow_atomic(const struct fx_dma *d, uint8_t *mem)
{
	struct fx_dma_atomic *a = (struct fx_dma_atomic *)(void *)d->local;
	uint64_t v;

	memcpy(&v, mem, sizeof(v));
	a->original = v;
	if (d->op == FX_DMA_STORE)
		v = a->swap_add;
	else if (d->op == FX_DMA_FETCH_ADD)
		v += a->swap_add;
	else if (v == a->compare)
		v = a->swap_add;
	memcpy(mem, &v, sizeof(v));
}

static unsigned slow_poll(struct fx_dma_engine *e, struct fx_dma_done *out, unsigned max)
{
	struct slow *s = (struct slow *)e;
	unsigned n = 0;

	for (unsigned i = 0; i < s->n && n < max;) {
		const struct fx_dma *d = &s->q[i].d;
		uint8_t *mem = (uint8_t *)d->mr->slow + (d->va - d->mr->iova);
		int err = 0;

		if (s->q[i].polls || mem_of(d->mr)->stalls) {
			s->q[i].polls -= s->q[i].polls > 0;
			i++;
			continue;
		}
		mem_of(d->mr)->under_way--;
		if (mem_of(d->mr)->gone)
			err = mem_of(d->mr)->gone;
		else if (d->op)
			slow_atomic(d, mem);
		else if (d->to_window)
			memcpy(mem, d->local, d->len);
		else
			memcpy(d->local, mem, d->len);
		out[n++] = (struct fx_dma_done){.cookie = d->cookie, .err = err};
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

uint64_t slow_engine_refused(const struct fx_dma_engine *e)
{
	return ((const struct slow *)e)->refused;
}

struct fx_dma_engine *slow_engine_create(uint64_t seed, unsigned delay)
{
	struct slow *s = calloc(1, sizeof(*s));

	s->e.ops = &slow_ops;
	s->rng = rng_of(seed, 7);
	s->delay = delay;
	return &s->e;
}
