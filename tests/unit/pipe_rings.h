/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rings in ordinary memory, and entries whose contents follow from their number: for the tests of the pipe.
 *
 * May use: pipe/ring.h, cmocka (included before this).
 */
#ifndef TEST_PIPE_RINGS_H
#define TEST_PIPE_RINGS_H

#include "pipe/ring.h"

enum { MAX_SHIFT = 6, MAX_SLOTS = 1 << MAX_SHIFT };

struct ring {
	_Alignas(64) struct fx_pipe_head head;
	struct fx_cq_head cq_head;
	_Alignas(64) uint8_t bytes[MAX_SLOTS * FX_SLOT_SIZE];
};

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* Rubbish everywhere, with the phases that a ring has whose next index is `start`: none of it is valid. */
static inline void ring_init(struct ring *r, unsigned shift, unsigned slot_size, uint32_t start)
{
	memset(r, 0xa5, sizeof(*r));
	r->head.ci = start;
	r->cq_head.ci = start;
	for (uint32_t k = 0; k < 1u << shift; k++) {
		uint32_t i = start + k;
		uint8_t *slot = r->bytes + (size_t)(i & ((1u << shift) - 1)) * slot_size;

		slot[slot_size - 1] = !fx_phase(i, shift);
	}
}

/* ---- send pipe ---- */
struct pipe {
	struct ring mem;
	struct fx_pipe_tx tx;
	struct fx_pipe_rx rx;
	unsigned shift;
};

static inline void pipe_init(struct pipe *p, unsigned shift, uint32_t start)
{
	ring_init(&p->mem, shift, FX_SLOT_SIZE, start);
	p->shift = shift;
	p->tx = (struct fx_pipe_tx){&p->mem.head, p->mem.bytes, shift, start, start};
	p->rx = (struct fx_pipe_rx){&p->mem.head, p->mem.bytes, shift, start};
}

/* Length and contents of message m follow from its number. */
static inline uint32_t entry_slots(uint64_t m, unsigned shift)
{
	uint32_t max = 1u << shift < FX_MAX_SQ_SLOTS ? 1u << shift : FX_MAX_SQ_SLOTS;

	return mix(m) % 3 ? 1 : 1 + (uint32_t)(mix(m) >> 8) % max;
}

static inline void entry_make(struct fx_sq_slot *e, uint64_t m, uint32_t n)
{
	for (uint32_t s = 0; s < n; s++)
		for (uint32_t k = 0; k < FX_SLOT_SIZE / 8; k++) {
			uint64_t v = mix(m * 1000 + s * 10 + k);

			memcpy((uint8_t *)(e + s) + k * 8, &v, 8);
		}
	e->nslots = (uint8_t)n;
}

/* Returns 0 if `got` is message m, but for the phases. */
static inline int entry_differs(const struct fx_sq_slot *got, uint64_t m, uint32_t n)
{
	struct fx_sq_slot want[FX_MAX_SQ_SLOTS];

	entry_make(want, m, n);
	for (uint32_t s = 0; s < n; s++)
		if (memcmp(want + s, got + s, FX_SLOT_SIZE - 1))
			return 1;
	return 0;
}

static inline void pipe_send(struct pipe *p, uint64_t m, uint32_t n)
{
	struct fx_sq_slot e[FX_MAX_SQ_SLOTS];

	entry_make(e, m, n);
	for (uint32_t s = 0; s < n; s++)
		fx_pipe_put(&p->tx, e + s);
}

static inline void pipe_recv(struct pipe *p, uint64_t m, uint32_t n)
{
	struct fx_sq_slot out[FX_MAX_SQ_SLOTS];

	assert_int_equal(fx_pipe_take(&p->rx, out), n);
	assert_int_equal(entry_differs(out, m, n), 0);
}

/* ---- receive queue ---- */
struct rq {
	struct ring mem;
	struct fx_rq host, core;
};

static inline void rq_init(struct rq *q, unsigned shift, uint32_t stride, uint32_t start)
{
	ring_init(&q->mem, shift, FX_SLOT_SIZE, start * stride);
	q->host = (struct fx_rq){.slots = q->mem.bytes,
				 .shift = shift,
				 .stride = stride,
				 .index = start,
				 .pos = start * stride};
	q->core = q->host;
}

static inline uint32_t rq_make(struct fx_sge *sge, uint64_t m, uint32_t stride)
{
	uint32_t max = stride * FX_RQ_SGES < FX_MAX_SGE ? stride * FX_RQ_SGES : FX_MAX_SGE;
	uint32_t n = (uint32_t)mix(m) % (max + 1);

	for (uint32_t k = 0; k < n; k++)
		sge[k] = (struct fx_sge){mix(m * 20 + k), (uint32_t)mix(m + k), (uint32_t)(m + k)};
	return n;
}

static inline int rq_differs(const struct fx_sge *got, int n, uint64_t m, uint32_t stride)
{
	struct fx_sge want[FX_MAX_SGE];
	uint32_t w = rq_make(want, m, stride);

	return n < 0 || (uint32_t)n != w || memcmp(want, got, w * sizeof(want[0])) != 0;
}

/* ---- completion queue ---- */
struct cq {
	struct ring mem;
	struct fx_cq core;
	struct fx_cq_rx host;
};

static inline void cq_init(struct cq *q, unsigned shift, uint32_t start)
{
	struct fx_cqe *ring = (struct fx_cqe *)q->mem.bytes;

	ring_init(&q->mem, shift, FX_CQE_SIZE, start);
	q->core = (struct fx_cq){
		.head = &q->mem.cq_head, .ring = ring, .shift = shift, .pi = start, .ci = start};
	q->host = (struct fx_cq_rx){.head = &q->mem.cq_head, .ring = ring, .shift = shift, .ci = start};
}

static inline struct fx_cqe cqe_make(uint64_t m)
{
	struct fx_cqe c;

	for (unsigned k = 0; k < FX_CQE_SIZE / 8; k++) {
		uint64_t v = mix(m * 4 + k);

		memcpy((uint8_t *)&c + k * 8, &v, 8);
	}
	return c;
}

static inline int cqe_differs(const struct fx_cqe *got, uint64_t m)
{
	struct fx_cqe want = cqe_make(m);

	return memcmp(&want, got, FX_CQE_SIZE - 1) != 0;
}

static inline int cq_give(struct cq *q, uint64_t m)
{
	struct fx_cqe c = cqe_make(m);

	return fx_cq_push(&q->core, &c);
}

static inline void cq_get(struct cq *q, uint64_t m)
{
	struct fx_cqe c;

	assert_true(fx_cq_take(&q->host, &c));
	assert_int_equal(cqe_differs(&c, m), 0);
}

#endif
