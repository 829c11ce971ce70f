/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rings of the pipe: wrap, back-pressure, entries whose slots arrive in any order, hostile lengths, overrun, and
 * two threads that check each other's bytes. Also run under ThreadSanitizer.
 *
 * May use: pipe/ring.h, threads, cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "pipe/ring.h"

#if defined(__SANITIZE_THREAD__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#endif
#ifndef SLOW
#define SLOW 0
#endif

enum {
	MAX_SHIFT = 6,
	MAX_SLOTS = 1 << MAX_SHIFT,
	THREAD_ENTRIES = SLOW ? 60000 : 400000, /* for each size of each ring */
};

/* Where a ring's counters begin: the first lap, the middle of one, and just before they wrap. */
static const uint32_t starts[] = {0, 1, 37, UINT32_MAX - 200, UINT32_MAX - 3, UINT32_MAX};
enum { STARTS = sizeof(starts) / sizeof(starts[0]) };

struct ring {
	_Alignas(64) struct fx_pipe_head head;
	struct fx_cq_head cq_head;
	_Alignas(64) uint8_t bytes[MAX_SLOTS * FX_SLOT_SIZE];
};

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* Rubbish everywhere, with the phases that a ring has whose next index is `start`: none of it is valid. */
static void ring_init(struct ring *r, unsigned shift, unsigned slot_size, uint32_t start)
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

static void pipe_init(struct pipe *p, unsigned shift, uint32_t start)
{
	ring_init(&p->mem, shift, FX_SLOT_SIZE, start);
	p->shift = shift;
	p->tx = (struct fx_pipe_tx){&p->mem.head, p->mem.bytes, shift, start, start};
	p->rx = (struct fx_pipe_rx){&p->mem.head, p->mem.bytes, shift, start};
}

/* Length and contents of message m follow from its number. */
static uint32_t entry_slots(uint64_t m, unsigned shift)
{
	uint32_t max = 1u << shift < FX_MAX_SQ_SLOTS ? 1u << shift : FX_MAX_SQ_SLOTS;

	return mix(m) % 3 ? 1 : 1 + (uint32_t)(mix(m) >> 8) % max;
}

static void entry_make(struct fx_sq_slot *e, uint64_t m, uint32_t n)
{
	for (uint32_t s = 0; s < n; s++)
		for (uint32_t k = 0; k < FX_SLOT_SIZE / 8; k++) {
			uint64_t v = mix(m * 1000 + s * 10 + k);

			memcpy((uint8_t *)(e + s) + k * 8, &v, 8);
		}
	e->nslots = (uint8_t)n;
}

/* Returns 0 if `got` is message m, but for the phases. */
static int entry_differs(const struct fx_sq_slot *got, uint64_t m, uint32_t n)
{
	struct fx_sq_slot want[FX_MAX_SQ_SLOTS];

	entry_make(want, m, n);
	for (uint32_t s = 0; s < n; s++)
		if (memcmp(want + s, got + s, FX_SLOT_SIZE - 1))
			return 1;
	return 0;
}

static void pipe_send(struct pipe *p, uint64_t m, uint32_t n)
{
	struct fx_sq_slot e[FX_MAX_SQ_SLOTS];

	entry_make(e, m, n);
	for (uint32_t s = 0; s < n; s++)
		fx_pipe_put(&p->tx, e + s);
}

static void pipe_recv(struct pipe *p, uint64_t m, uint32_t n)
{
	struct fx_sq_slot out[FX_MAX_SQ_SLOTS];

	assert_int_equal(fx_pipe_take(&p->rx, out), n);
	assert_int_equal(entry_differs(out, m, n), 0);
}

static void test_pipe_wrap(void **state)
{
	static struct pipe p;
	struct fx_sq_slot out[FX_MAX_SQ_SLOTS];

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (unsigned s = 0; s < STARTS; s++) {
			uint64_t sent = 0, seen = 0;

			pipe_init(&p, shift, starts[s]);
			assert_int_equal(fx_pipe_take(&p.rx, out), 0);
			while (seen < 2000) {
				while (sent - seen <= mix(sent + 7) % 40 &&
				       fx_pipe_room(&p.tx, entry_slots(sent, shift))) {
					pipe_send(&p, sent, entry_slots(sent, shift));
					sent++;
				}
				while (seen < sent) {
					pipe_recv(&p, seen, entry_slots(seen, shift));
					seen++;
				}
				assert_int_equal(fx_pipe_take(&p.rx, out), 0);
				fx_pipe_publish_ci(&p.rx);
			}
		}
	}
}

/* A full pipe has no room until the consumer says so, and loses nothing meanwhile. */
static void test_pipe_back_pressure(void **state)
{
	static struct pipe p;

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (unsigned s = 0; s < STARTS; s++) {
			uint32_t size = 1u << shift;

			pipe_init(&p, shift, starts[s]);
			assert_true(fx_pipe_room(&p.tx, size));
			assert_false(fx_pipe_room(&p.tx, size + 1));
			for (uint32_t i = 0; i < size; i++) {
				assert_true(fx_pipe_room(&p.tx, size - i));
				pipe_send(&p, i, 1);
			}
			assert_false(fx_pipe_room(&p.tx, 1));
			pipe_recv(&p, 0, 1);
			assert_false(fx_pipe_room(&p.tx, 1)); /* taken, not yet published */
			fx_pipe_publish_ci(&p.rx);
			assert_true(fx_pipe_room(&p.tx, 1));
			assert_false(fx_pipe_room(&p.tx, 2));
			pipe_send(&p, size, 1);
			for (uint32_t i = 1; i <= size; i++)
				pipe_recv(&p, i, 1);
			assert_false(fx_pipe_ready(&p.rx));
		}
	}
}

/* Two entries whose slots land in a random order: none is seen before its last slot, none out of turn. */
static void permuted_pair(struct pipe *p, uint64_t m, uint32_t n0, uint32_t n1)
{
	struct fx_sq_slot e[2 * FX_MAX_SQ_SLOTS], out[FX_MAX_SQ_SLOTS];
	uint32_t order[2 * FX_MAX_SQ_SLOTS], n = n0 + n1, here = 0, base = p->tx.pi;
	int seen = 0;

	entry_make(e, m, n0);
	entry_make(e + n0, m + 1, n1);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t k = (uint32_t)mix(m * 50 + i) % (i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = base + order[i], want;

		fx_slot_publish(p->mem.bytes + (size_t)(at & ((1u << p->shift) - 1)) * FX_SLOT_SIZE, e + order[i],
				fx_phase(at, p->shift));
		here |= 1u << order[i];
		want = (1u << n0) - 1;
		if (seen == 0 && (here & want) == want) {
			pipe_recv(p, m, n0);
			seen = 1;
		}
		want = ((1u << n1) - 1) << n0;
		if (seen == 1 && (here & want) == want) {
			pipe_recv(p, m + 1, n1);
			seen = 2;
		}
		assert_int_equal(fx_pipe_take(&p->rx, out), 0);
	}
	assert_int_equal(seen, 2);
	p->tx.pi += n;
	fx_pipe_publish_ci(&p->rx);
}

static void test_pipe_permuted_slots(void **state)
{
	static struct pipe p;

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		uint32_t max = 1u << (shift - 1) < FX_MAX_SQ_SLOTS ? 1u << (shift - 1) : FX_MAX_SQ_SLOTS;

		for (unsigned s = 0; s < STARTS; s++) {
			pipe_init(&p, shift, starts[s]);
			for (uint64_t m = 0; m < 600; m += 2)
				permuted_pair(&p, m, 1 + (uint32_t)mix(m) % max, 1 + (uint32_t)mix(~m) % max);
		}
	}
}

static void test_pipe_impossible_length(void **state)
{
	static struct pipe p;
	static const uint8_t bad[] = {0, FX_MAX_SQ_SLOTS + 1, 64, 127, 128, 255};

	(void)state;
	for (unsigned k = 0; k < sizeof(bad); k++) {
		struct fx_sq_slot e = {.nslots = bad[k]}, out[FX_MAX_SQ_SLOTS];

		pipe_init(&p, 5, starts[k % STARTS]);
		fx_pipe_put(&p.tx, &e);
		assert_int_equal(fx_pipe_take(&p.rx, out), -EPROTO);
		assert_int_equal(fx_pipe_take(&p.rx, out), -EPROTO); /* and stays so */
	}
}

/* ---- receive queue ---- */
struct rq {
	struct ring mem;
	struct fx_rq host, core;
};

static void rq_init(struct rq *q, unsigned shift, uint32_t stride, uint32_t start)
{
	ring_init(&q->mem, shift, FX_SLOT_SIZE, start * stride);
	q->host = (struct fx_rq){q->mem.bytes, shift, stride, start, start * stride};
	q->core = q->host;
}

static uint32_t rq_make(struct fx_sge *sge, uint64_t m, uint32_t stride)
{
	uint32_t max = stride * FX_RQ_SGES < FX_MAX_SGE ? stride * FX_RQ_SGES : FX_MAX_SGE;
	uint32_t n = (uint32_t)mix(m) % (max + 1);

	for (uint32_t k = 0; k < n; k++)
		sge[k] = (struct fx_sge){mix(m * 20 + k), (uint32_t)mix(m + k), (uint32_t)(m + k)};
	return n;
}

static int rq_differs(const struct fx_sge *got, int n, uint64_t m, uint32_t stride)
{
	struct fx_sge want[FX_MAX_SGE];
	uint32_t w = rq_make(want, m, stride);

	return n < 0 || (uint32_t)n != w || memcmp(want, got, w * sizeof(want[0])) != 0;
}

static void test_rq_wrap(void **state)
{
	static struct rq q;
	struct fx_sge sge[FX_MAX_SGE + FX_RQ_SGES];

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (uint32_t stride = 1; stride <= 6 && stride <= 1u << shift; stride++) {
			for (unsigned s = 0; s < STARTS; s++) {
				uint32_t cap = (1u << shift) / stride;
				uint64_t put = 0, got = 0;

				rq_init(&q, shift, stride, starts[s]);
				while (got < 500) {
					while (put - got < cap && (put == got || mix(put * 3 + got) % 8)) {
						uint32_t n = rq_make(sge, put++, stride);

						fx_rq_put(&q.host, sge, n);
					}
					while (got < put) {
						assert_true(fx_rq_ready(&q.core));
						assert_int_equal(q.core.index, starts[s] + (uint32_t)got);
						int n = fx_rq_take(&q.core, sge, FX_MAX_SGE);
						assert_int_equal(rq_differs(sge, n, got++, stride), 0);
					}
					assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EAGAIN);
				}
			}
		}
	}
}

/* The slots of a receive entry arrive in any order too. */
static void test_rq_permuted_slots(void **state)
{
	static struct rq q, shadow;
	struct fx_sge sge[FX_MAX_SGE + FX_RQ_SGES];

	(void)state;
	for (uint32_t stride = 2; stride <= 6; stride++) {
		for (unsigned s = 0; s < STARTS; s++) {
			rq_init(&q, 4, stride, starts[s]);
			rq_init(&shadow, 4, stride, starts[s]);
			for (uint64_t m = 0; m < 100; m++) {
				uint32_t pos = shadow.host.pos, first = (uint32_t)mix(m) % stride;

				fx_rq_put(&shadow.host, sge, rq_make(sge, m, stride));
				for (uint32_t k = 0; k < stride; k++) {
					uint32_t i = pos + (first + k * (stride == 4 ? 3 : 1)) % stride;

					assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EAGAIN);
					fx_slot_publish(fx_rq_slot_at(&q.host, i), fx_rq_slot_at(&shadow.host, i),
							fx_phase(i, 4));
				}
				assert_int_equal(
					rq_differs(sge, fx_rq_take(&q.core, sge, FX_MAX_SGE), m, stride), 0);
			}
		}
	}
}

static void rq_spoil(struct rq *q, uint32_t s, uint32_t index, uint8_t nsge)
{
	struct fx_rq_slot slot = {.index = index, .nsge = nsge};

	fx_slot_publish(fx_rq_slot_at(&q->host, q->host.pos + s), &slot, fx_phase(q->host.pos + s, q->host.shift));
}

static void test_rq_contradictions(void **state)
{
	static struct rq q;
	struct fx_sge sge[FX_MAX_SGE + FX_RQ_SGES];

	(void)state;
	rq_init(&q, 3, 2, 5);
	rq_spoil(&q, 0, 6, 1); /* another entry's index */
	assert_int_equal(fx_rq_take(&q.core, sge, 6), -EPROTO);
	rq_init(&q, 3, 2, 5);
	rq_spoil(&q, 0, 5, 7); /* more than its slots hold */
	assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EPROTO);
	rq_init(&q, 3, 2, 5);
	rq_spoil(&q, 0, 5, 5); /* more than the caller holds */
	assert_int_equal(fx_rq_take(&q.core, sge, 4), -EPROTO);
	rq_init(&q, 3, 2, 5);
	rq_spoil(&q, 0, 5, 4); /* its slots disagree */
	rq_spoil(&q, 1, 5, 6);
	assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EPROTO);
	rq_init(&q, 3, 6, 5);
	rq_spoil(&q, 0, 5, 255);
	assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EPROTO);
}

/* ---- completion queue ---- */
struct cq {
	struct ring mem;
	struct fx_cq core;
	struct fx_cq_rx host;
};

static void cq_init(struct cq *q, unsigned shift, uint32_t start)
{
	struct fx_cqe *ring = (struct fx_cqe *)q->mem.bytes;

	ring_init(&q->mem, shift, FX_CQE_SIZE, start);
	q->core = (struct fx_cq){.head = &q->mem.cq_head, .ring = ring, .shift = shift, .pi = start, .ci = start};
	q->host = (struct fx_cq_rx){&q->mem.cq_head, ring, shift, start};
}

static struct fx_cqe cqe_make(uint64_t m)
{
	struct fx_cqe c;

	for (unsigned k = 0; k < FX_CQE_SIZE / 8; k++) {
		uint64_t v = mix(m * 4 + k);

		memcpy((uint8_t *)&c + k * 8, &v, 8);
	}
	return c;
}

static int cqe_differs(const struct fx_cqe *got, uint64_t m)
{
	struct fx_cqe want = cqe_make(m);

	return memcmp(&want, got, FX_CQE_SIZE - 1) != 0;
}

static int cq_give(struct cq *q, uint64_t m)
{
	struct fx_cqe c = cqe_make(m);

	return fx_cq_push(&q->core, &c);
}

static void cq_get(struct cq *q, uint64_t m)
{
	struct fx_cqe c;

	assert_true(fx_cq_take(&q->host, &c));
	assert_int_equal(cqe_differs(&c, m), 0);
}

static void test_cq_wrap(void **state)
{
	static struct cq q;
	struct fx_cqe c;

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (unsigned s = 0; s < STARTS; s++) {
			uint64_t put = 0, got = 0;

			cq_init(&q, shift, starts[s]);
			while (got < 1000) {
				while (put - got < 1u << shift && (put == got || mix(put * 5 + got) % 8))
					assert_int_equal(cq_give(&q, put++), 0);
				while (got < put)
					cq_get(&q, got++);
				assert_false(fx_cq_take(&q.host, &c));
				fx_cq_publish_ci(&q.host);
			}
			assert_false(q.core.overrun);
		}
	}
}

/* A CQE without room is lost, everything before it stays, and the CQ is in error for good (contract 13). */
static void test_cq_overrun(void **state)
{
	static struct cq q;
	struct fx_cqe c;

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (unsigned s = 0; s < STARTS; s++) {
			uint32_t size = 1u << shift;

			cq_init(&q, shift, starts[s]);
			for (uint32_t i = 0; i < size; i++)
				assert_int_equal(cq_give(&q, i), 0);
			assert_false(q.core.overrun);
			for (uint32_t i = 0; i < 2 * size; i++)
				assert_int_equal(cq_give(&q, 1000 + i), -ENOSPC);
			assert_true(q.core.overrun);
			cq_get(&q, 0);
			cq_get(&q, 1);
			fx_cq_publish_ci(&q.host);
			for (uint32_t i = 0; i < 3; i++)
				assert_int_equal(cq_give(&q, 2000 + i), -ENOSPC);
			for (uint32_t i = 2; i < size; i++)
				cq_get(&q, i);
			assert_false(fx_cq_take(&q.host, &c));
		}
	}
}

/* ---- two threads ---- */
struct two {
	union {
		struct pipe pipe;
		struct rq rq;
		struct cq cq;
	} r;
	unsigned shift;
	uint32_t stride;
	_Atomic uint64_t freed; /* RQ: entries that the producer may reuse, as completions would tell it */
	_Atomic bool stop;	/* one side failed: the other must not wait for ever */
	void (*consume)(struct two *t);
};

static bool relax(struct two *t)
{
	sched_yield();
	return !atomic_load_explicit(&t->stop, memory_order_relaxed);
}

static void pipe_consumer(struct two *t)
{
	struct fx_sq_slot out[FX_MAX_SQ_SLOTS];

	for (uint64_t m = 0; m < THREAD_ENTRIES; m++) {
		uint32_t n = entry_slots(m, t->shift);
		int got;

		while ((got = fx_pipe_take(&t->r.pipe.rx, out)) == 0) {
			fx_pipe_publish_ci(&t->r.pipe.rx);
			if (!relax(t))
				return;
		}
		if (got != (int)n || entry_differs(out, m, n))
			return;
		if (mix(m) % 4 == 0)
			fx_pipe_publish_ci(&t->r.pipe.rx);
	}
	t->consume = NULL; /* all seen */
}

static bool pipe_producer(struct two *t)
{
	for (uint64_t m = 0; m < THREAD_ENTRIES; m++) {
		uint32_t n = entry_slots(m, t->shift);

		while (!fx_pipe_room(&t->r.pipe.tx, n))
			if (!relax(t))
				return false;
		pipe_send(&t->r.pipe, m, n);
	}
	return true;
}

static void rq_consumer(struct two *t)
{
	struct fx_sge sge[FX_MAX_SGE + FX_RQ_SGES];

	for (uint64_t m = 0; m < THREAD_ENTRIES; m++) {
		int n;

		while ((n = fx_rq_take(&t->r.rq.core, sge, FX_MAX_SGE)) == -EAGAIN)
			if (!relax(t))
				return;
		if (rq_differs(sge, n, m, t->stride))
			return;
		atomic_store_explicit(&t->freed, m + 1, memory_order_release);
	}
	t->consume = NULL;
}

static bool rq_producer(struct two *t)
{
	uint32_t cap = (1u << t->shift) / t->stride;
	struct fx_sge sge[FX_MAX_SGE + FX_RQ_SGES];

	for (uint64_t m = 0; m < THREAD_ENTRIES; m++) {
		while (m - atomic_load_explicit(&t->freed, memory_order_acquire) >= cap)
			if (!relax(t))
				return false;
		fx_rq_put(&t->r.rq.host, sge, rq_make(sge, m, t->stride));
	}
	return true;
}

static void cq_consumer(struct two *t)
{
	for (uint64_t m = 0; m < THREAD_ENTRIES; m++) {
		struct fx_cqe c;

		while (!fx_cq_take(&t->r.cq.host, &c)) {
			fx_cq_publish_ci(&t->r.cq.host);
			if (!relax(t))
				return;
		}
		if (cqe_differs(&c, m))
			return;
		if (mix(m) % 4 == 0)
			fx_cq_publish_ci(&t->r.cq.host);
	}
	t->consume = NULL;
}

static bool cq_producer(struct two *t)
{
	struct fx_cq *q = &t->r.cq.core;

	for (uint64_t m = 0; m < THREAD_ENTRIES; m++) {
		/* The owner of a real CQ sizes it for what is outstanding; here the producer looks. */
		while (q->pi - fx_load32_acquire(&q->head->ci) >= 1u << t->shift)
			if (!relax(t))
				return false;
		if (cq_give(&t->r.cq, m))
			return false;
	}
	return true;
}

static void *consumer_thread(void *arg)
{
	struct two *t = arg;

	t->consume(t);
	if (t->consume)
		atomic_store(&t->stop, true);
	return NULL;
}

static void run_two(struct two *t, void (*consume)(struct two *), bool (*produce)(struct two *))
{
	pthread_t thread;
	bool sent;

	t->consume = consume;
	atomic_store(&t->freed, 0);
	atomic_store(&t->stop, false);
	assert_int_equal(pthread_create(&thread, NULL, consumer_thread, t), 0);
	sent = produce(t);
	if (!sent)
		atomic_store(&t->stop, true);
	pthread_join(thread, NULL);
	assert_true(sent);
	assert_null(t->consume);
}

static void test_two_threads(void **state)
{
	static struct two t;

	(void)state;
	for (t.shift = 1; t.shift <= MAX_SHIFT; t.shift++) {
		uint32_t start = t.shift % 2 ? UINT32_MAX - 1000 : 0;

		pipe_init(&t.r.pipe, t.shift, start);
		run_two(&t, pipe_consumer, pipe_producer);
		t.stride = t.shift < 3 ? t.shift : t.shift - 1;
		rq_init(&t.r.rq, t.shift, t.stride, start);
		run_two(&t, rq_consumer, rq_producer);
		cq_init(&t.r.cq, t.shift, start);
		run_two(&t, cq_consumer, cq_producer);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pipe_wrap),
		cmocka_unit_test(test_pipe_back_pressure),
		cmocka_unit_test(test_pipe_permuted_slots),
		cmocka_unit_test(test_pipe_impossible_length),
		cmocka_unit_test(test_rq_wrap),
		cmocka_unit_test(test_rq_permuted_slots),
		cmocka_unit_test(test_rq_contradictions),
		cmocka_unit_test(test_cq_wrap),
		cmocka_unit_test(test_cq_overrun),
		cmocka_unit_test(test_two_threads),
	};

	return cmocka_run_group_tests_name("pipe", tests, NULL, NULL);
}
