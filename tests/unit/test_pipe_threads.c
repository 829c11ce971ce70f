/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rings of the pipe between two threads that check each other's bytes, millions of entries of them; and two threads
 * that sleep whenever they have nothing to do, as worker and application: a wake-up that gets lost is found by its
 * absence. Also run under ThreadSanitizer.
 *
 * May use: pipe/ring.h, threads, cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

/* ---- sleeping and waking ---- */

enum {
	REQUESTS = SLOW ? 20000 : 60000,
	MEET_SHIFT = 3, /* of the pipe: it is full now and then */
	CQ_SHIFT = 4,
	EVENT_SHIFT = 2,
	LOST_MS = 10000, /* nobody sleeps so long, unless a wake-up is lost */
};

/* Requests go down the pipe and complete; the CQ is armed when it is empty. Both sides sleep as the real ones do. */
static struct meet {
	struct pipe pipe;
	struct cq cq;
	struct fx_event ring[1 << EVENT_SHIFT];
	struct fx_event_head head;
	struct fx_event_tx etx;
	struct fx_event_rx erx;
	int kick, wake[2];
	uint32_t sleeping;
	_Atomic bool stop, lost;
	/* the worker's */
	uint64_t taken, written, sleeps;
	/* the application's */
	uint64_t posted, done, waits;
	uint32_t seq, told;
	bool armed;
} mt;

/* False: nothing came in time. */
static bool wait_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, LOST_MS) > 0;
}

static void fire(void)
{
	struct fx_event ev = {.kind = FX_EV_CQ, .index = mt.cq.core.pi};

	fx_cq_fire(&mt.cq.core);
	assert_true(fx_event_put(&mt.etx, &ev, 1)); /* the CQ's one */
	assert_int_equal(write(mt.wake[1], "", 1), 1);
}

static bool worker_takes(void)
{
	struct fx_sq_slot e[FX_MAX_SQ_SLOTS];
	struct fx_arm_slot a;
	int n = fx_pipe_take(&mt.pipe.rx, e);

	if (n == 0)
		return false;
	fx_pipe_publish_ci(&mt.pipe.rx);
	memcpy(&a, e, sizeof(a));
	if (a.opcode != FX_WR_ARM)
		mt.taken++;
	else if (fx_cq_arm(&mt.cq.core, a.arm, a.ci))
		fire();
	return true;
}

static bool worker_completes(void)
{
	struct fx_cqe c = {.index = (uint32_t)mt.written};

	if (mt.written == mt.taken)
		return false;
	assert_int_equal(fx_cq_push(&mt.cq.core, &c), 0);
	mt.written++;
	if (fx_cq_wakes(&mt.cq.core, &c))
		fire();
	return true;
}

/* go_to_sleep() of core/wait.c, whose barriers these are. */
static void worker_sleeps(void)
{
	uint64_t kicks;

	__atomic_store_n(&mt.sleeping, 1, __ATOMIC_RELAXED);
	atomic_thread_fence(memory_order_seq_cst);
	if (!fx_pipe_ready(&mt.pipe.rx) && !mt.stop) {
		mt.sleeps++;
		if (!wait_readable(mt.kick) && !mt.stop)
			mt.lost = true;
		else
			assert_true(read(mt.kick, &kicks, sizeof(kicks)) > 0 || mt.stop);
	}
	__atomic_store_n(&mt.sleeping, 0, __ATOMIC_RELAXED);
}

static void *worker_thread(void *arg)
{
	(void)arg;
	while (!mt.stop && !mt.lost) {
		bool any = worker_takes();

		any |= worker_completes();
		if (!any)
			worker_sleeps();
	}
	return NULL;
}

/* kick() of host/post.c */
static void kick(void)
{
	uint64_t one = 1;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&mt.sleeping, __ATOMIC_RELAXED))
		assert_int_equal(write(mt.kick, &one, sizeof(one)), sizeof(one));
}

static void put(const void *slot)
{
	while (!fx_pipe_room(&mt.pipe.tx, 1) && !mt.lost) {
		kick();
		sched_yield();
	}
	fx_pipe_put(&mt.pipe.tx, slot);
}

static void post_some(void)
{
	struct fx_sq_slot e = {.opcode = FX_WR_SEND, .nslots = 1};

	for (uint64_t n = 1 + mix(mt.posted) % 20;
	     n && mt.posted < REQUESTS && mt.posted - mt.done < 1 << CQ_SHIFT; n--) {
		put(&e);
		mt.posted++;
	}
	kick();
}

static void arm(void)
{
	struct fx_arm_slot a = {.opcode = FX_WR_ARM, .nslots = 1, .arm = mt.seq << 2 | FX_ARM_ANY};
	uint32_t ci = mt.cq.host.ci;

	if (mt.armed)
		return;
	mt.armed = true;
	a.ci = (int32_t)(mt.told - ci) > 0 ? mt.told : ci;
	put(&a);
	kick();
}

static bool drain(void)
{
	struct fx_cqe c;
	bool any = false;

	for (; fx_cq_take(&mt.cq.host, &c); any = true)
		assert_int_equal(c.index, mt.done++);
	if (any)
		fx_cq_publish_ci(&mt.cq.host);
	return any;
}

/* The CQ is armed and was empty: there will be an event, of a CQE that no event told of. */
static void wait_event(void)
{
	struct fx_event ev;
	char byte;

	mt.waits++;
	if (!wait_readable(mt.wake[0])) {
		mt.lost = true;
		return;
	}
	assert_int_equal(read(mt.wake[0], &byte, 1), 1);
	assert_true(fx_event_take(&mt.erx, &ev));
	fx_event_publish_ci(&mt.erx);
	assert_int_not_equal(ev.index, mt.told);
	mt.told = ev.index;
	mt.armed = false;
	mt.seq++;
}

static void meet_init(uint32_t start)
{
	memset(&mt, 0, sizeof(mt));
	pipe_init(&mt.pipe, MEET_SHIFT, start);
	cq_init(&mt.cq, CQ_SHIFT, start);
	mt.etx = (struct fx_event_tx){.head = &mt.head, .ring = mt.ring, .shift = EVENT_SHIFT};
	mt.erx = (struct fx_event_rx){.head = &mt.head, .ring = mt.ring, .shift = EVENT_SHIFT};
	mt.seq = 1;
	mt.told = start;
	mt.kick = eventfd(0, EFD_NONBLOCK);
	assert_true(mt.kick >= 0);
	assert_int_equal(pipe(mt.wake), 0);
}

static void test_sleep_and_wake(void **state)
{
	uint64_t one = 1;
	pthread_t thread;

	(void)state;
	meet_init(UINT32_MAX - REQUESTS / 2);
	assert_int_equal(pthread_create(&thread, NULL, worker_thread, NULL), 0);
	while (mt.done < REQUESTS && !mt.lost) {
		post_some();
		arm();
		if (!drain() && mt.done < mt.posted)
			wait_event();
	}
	mt.stop = true;
	assert_int_equal(write(mt.kick, &one, sizeof(one)), sizeof(one));
	pthread_join(thread, NULL);
	assert_false(mt.lost);
	assert_int_equal(mt.done, REQUESTS);
	assert_true(mt.sleeps > 0 && mt.waits > 0); /* or this showed nothing */
	close(mt.kick);
	close(mt.wake[0]);
	close(mt.wake[1]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_threads),
		cmocka_unit_test(test_sleep_and_wake),
	};

	return cmocka_run_group_tests_name("pipe_threads", tests, NULL, NULL);
}
