/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rings of the pipe between two threads that check each other's bytes, millions of entries of them.
 * Also run under ThreadSanitizer.
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

#include "pipe_rings.h"

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
	LAPS = SLOW ? 2500 : 12000,
	SPIN = 200
}; /* of each ring: on a busy machine a full ring costs a time slice */

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

static uint64_t entries(const struct two *t)
{
	return (uint64_t)LAPS << t->shift;
}

/* Nothing to do: a little spinning, then the other thread's turn. False: the other one gave up. */
static bool relax(struct two *t)
{
	static _Thread_local unsigned n;

	if (++n % SPIN == 0)
		sched_yield();
	return !atomic_load_explicit(&t->stop, memory_order_relaxed);
}

static void pipe_consumer(struct two *t)
{
	struct fx_sq_slot out[FX_MAX_SQ_SLOTS];

	for (uint64_t m = 0; m < entries(t); m++) {
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
	for (uint64_t m = 0; m < entries(t); m++) {
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

	for (uint64_t m = 0; m < entries(t); m++) {
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

	for (uint64_t m = 0; m < entries(t); m++) {
		while (m - atomic_load_explicit(&t->freed, memory_order_acquire) >= cap)
			if (!relax(t))
				return false;
		fx_rq_put(&t->r.rq.host, sge, rq_make(sge, m, t->stride));
	}
	return true;
}

static void cq_consumer(struct two *t)
{
	for (uint64_t m = 0; m < entries(t); m++) {
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

	for (uint64_t m = 0; m < entries(t); m++) {
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
		cmocka_unit_test(test_two_threads),
	};

	return cmocka_run_group_tests_name("pipe_threads", tests, NULL, NULL);
}
