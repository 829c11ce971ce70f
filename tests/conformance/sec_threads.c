/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section threads: verbs are thread-safe, whatever is shared between the threads.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "sections.h"

enum { THREADS = 4, EACH = 800, TOTAL = THREADS * EACH };

static atomic_uint seen[TOTAL]; /* completions of each request */
static atomic_uint nseen, nposted;
static atomic_bool enough;
static struct rig *shared;

static void run_threads(void *(*run)(void *), unsigned n)
{
	pthread_t t[16];

	for (uintptr_t i = 0; i < n; i++)
		NEED_EQ(pthread_create(&t[i], NULL, run, (void *)i), 0);
	for (unsigned i = 0; i < n; i++)
		pthread_join(t[i], NULL);
}

/* Until it is empty: only then an arm tells of every further one. */
static void poll_all(struct ibv_cq *cq)
{
	struct ibv_wc wc[8];
	int n;

	while ((n = ibv_poll_cq(cq, 8, wc)) > 0)
		for (int i = 0; i < n; i++) {
			NEED_EQ(wc[i].status, IBV_WC_SUCCESS);
			NEED(wc[i].wr_id < TOTAL);
			seen[wc[i].wr_id]++;
			nseen++;
		}
	NEED_EQ(n, 0);
}

/* Posts until the request fits, taking completions meanwhile. */
static void post_or_poll(struct ibv_qp *qp, struct ibv_cq *cq, struct work *w)
{
	int err;

	while ((err = try_post(qp, w)) == ENOMEM) {
		poll_all(cq);
		sched_yield();
	}
	NEED_EQ(err, 0);
	nposted++;
}

static void all_once(struct ibv_cq *cq)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	while (nseen < TOTAL && now_ms() < end)
		poll_all(cq);
	for (unsigned i = 0; i < TOTAL; i++)
		NEED_EQ(seen[i], 1);
	need_quiet(cq);
}

/* ---- one QP, one CQ ---- */

/* The thread's part of the words in a's buffer, one WRITE each. */
static void post_words(uintptr_t me, struct ibv_qp *qp, struct ibv_cq *cq)
{
	for (unsigned i = 0; i < EACH; i++) {
		unsigned id = (unsigned)me * EACH + i;
		struct work w = work(shared, IBV_WR_RDMA_WRITE, id, 4 * (size_t)id, 4 * (size_t)id, 4);

		memcpy(shared->a.buf + 4 * (size_t)id, &id, 4);
		post_or_poll(qp, cq, &w);
	}
}

static void need_words(void)
{
	for (unsigned i = 0; i < TOTAL; i++)
		NEED(!memcmp(shared->b.buf + 4 * (size_t)i, &i, 4));
}

static void *posts_on_shared(void *arg)
{
	post_words((uintptr_t)arg, shared->a.qp, shared->a.scq);
	return NULL;
}

static void one_qp(const struct row *row)
{
	(void)row;
	shared = rig();
	run_threads(posts_on_shared, THREADS);
	all_once(shared->a.scq);
	need_words();
}

/* ---- QPs of their own, one CQ or one each ---- */

static struct ibv_qp *own_a[THREADS], *own_b[THREADS];
static struct ibv_cq *own_cq[THREADS];

static void make_own(bool own_cqs)
{
	struct spec s = usual();

	s.cqe = 1000;
	shared = rig_make(&s);
	for (int i = 0; i < THREADS; i++) {
		own_cq[i] = own_cqs ? ibv_create_cq(shared->ctx, 128, NULL, NULL, 0) : shared->a.scq;
		NEED(own_cq[i]);
		own_a[i] = make_qp(shared->a.pd, own_cq[i], own_cq[i], &s);
		own_b[i] = make_qp(shared->b.pd, shared->b.scq, shared->b.scq, &s);
		connect_qp(shared, &s, own_b[i], own_a[i]->qp_num, IBV_QPS_RTS);
		connect_qp(shared, &s, own_a[i], own_b[i]->qp_num, IBV_QPS_RTS);
	}
}

static void end_own(void)
{
	for (int i = 0; i < THREADS; i++) {
		NEED_EQ(ibv_destroy_qp(own_a[i]), 0);
		NEED_EQ(ibv_destroy_qp(own_b[i]), 0);
		if (own_cq[i] != shared->a.scq)
			NEED_EQ(ibv_destroy_cq(own_cq[i]), 0);
	}
}

static void *posts_on_own(void *arg)
{
	uintptr_t me = (uintptr_t)arg;

	post_words(me, own_a[me], own_cq[me]);
	if (own_cq[me] != shared->a.scq)
		for (uint64_t end = now_ms() + PATIENCE_MS; seen[(me + 1) * EACH - 1] == 0 && now_ms() < end;)
			poll_all(own_cq[me]);
	return NULL;
}

static void own_qps(const struct row *row)
{
	make_own(row->a);
	run_threads(posts_on_own, THREADS);
	all_once(shared->a.scq);
	need_words();
	end_own();
}

/* ---- contexts of their own ---- */

static struct rig *rigs_of[THREADS];

static void *works_alone(void *arg)
{
	struct rig *r = rigs_of[(uintptr_t)arg];

	for (unsigned i = 0; i < 200; i++) {
		size_t len = 1 + (size_t)i * 97 % 5000;

		fill(r->a.buf, len, i);
		post_recv(&r->b, i, 0, 8192);
		post_many(r, IBV_WR_SEND, i, 1, len, IBV_SEND_SIGNALED);
		NEED_EQ(need_wc(r->b.rcq, i, IBV_WC_SUCCESS).byte_len, len);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
		NEED(filled(r->b.buf, len, i));
	}
	return NULL;
}

static void own_contexts(const struct row *row)
{
	(void)row;
	for (int i = 0; i < THREADS; i++)
		rigs_of[i] = rig();
	run_threads(works_alone, THREADS);
}

/* ---- polling while objects come and go ---- */

static void *creates_and_destroys(void *arg)
{
	struct spec s = usual();

	(void)arg;
	for (int i = 0; i < 60; i++) {
		struct ibv_qp *a = make_qp(shared->a.pd, shared->a.scq, shared->a.scq, &s);
		struct ibv_qp *b = make_qp(shared->b.pd, shared->b.scq, shared->b.scq, &s);
		struct work w = work(shared, IBV_WR_RDMA_WRITE, 0, 0, 0, 64);

		connect_qp(shared, &s, b, a->qp_num, IBV_QPS_RTS);
		connect_qp(shared, &s, a, b->qp_num, IBV_QPS_RTS);
		w.wr.send_flags = 0; /* its completions are nobody's */
		for (int k = 0; k < 20; k++)
			post(a, &w);
		NEED_EQ(ibv_destroy_qp(a), 0);
		NEED_EQ(ibv_destroy_qp(b), 0);
	}
	enough = true;
	return NULL;
}

static void *posts_meanwhile(void *arg)
{
	(void)arg;
	for (unsigned id = 0; id < TOTAL; id++) {
		struct work w = work(shared, IBV_WR_RDMA_WRITE, id, 0, 0, 64);

		post_or_poll(shared->a.qp, shared->a.scq, &w);
	}
	while (!enough)
		poll_all(shared->a.scq);
	return NULL;
}

static void *one_of_two(void *arg)
{
	return arg ? posts_meanwhile(arg) : creates_and_destroys(arg);
}

static void come_and_go(const struct row *row)
{
	(void)row;
	shared = rig();
	run_threads(one_of_two, 2);
	all_once(shared->a.scq);
}

/* ---- registering ---- */

static void *registers(void *arg)
{
	uint8_t *own = pages(64 * 1024);

	(void)arg;
	fill(own, 64 * 1024, 5);
	for (int i = 0; i < 100; i++) {
		/* memory of its own, and memory that all of them register */
		struct ibv_mr *mine = need_mr(shared->a.pd, own + i * 100, 30000, ALL_ACCESS);
		struct ibv_mr *ours = need_mr(shared->a.pd, shared->a.buf, 8192, ALL_ACCESS);

		NEED(mine->lkey != ours->lkey);
		NEED_EQ(ibv_dereg_mr(mine), 0);
		NEED_EQ(ibv_dereg_mr(ours), 0);
	}
	NEED(filled(own, 64 * 1024, 5));
	return NULL;
}

static void *registers_or_writes(void *arg)
{
	if (arg)
		return registers(arg);
	for (unsigned i = 0; i < 2000; i++) {
		fill(shared->a.buf + 100, 3000, i);
		post_many(shared, IBV_WR_RDMA_WRITE, i, 1, 8000, IBV_SEND_SIGNALED);
		need_wc(shared->a.scq, i, IBV_WC_SUCCESS);
		NEED(filled(shared->b.buf + 100, 3000, i));
	}
	return NULL;
}

static void registering(const struct row *row)
{
	(void)row;
	shared = rig();
	run_threads(registers_or_writes, THREADS + 1);
}

/* ---- a thread that sleeps for events, others that post ---- */

static void *sleeps_and_polls(void *arg)
{
	struct ibv_cq *cq;
	void *context;
	unsigned n = 0;

	(void)arg;
	while (nseen < TOTAL) {
		NEED_EQ(ibv_req_notify_cq(shared->a.scq, 0), 0);
		poll_all(shared->a.scq);
		if (nseen >= TOTAL)
			break;
		NEED(readable(shared->a.channel->fd, PATIENCE_MS));
		NEED_EQ(ibv_get_cq_event(shared->a.channel, &cq, &context), 0);
		n++;
		poll_all(shared->a.scq);
	}
	ibv_ack_cq_events(shared->a.scq, n);
	return NULL;
}

static void *event_threads(void *arg)
{
	uintptr_t me = (uintptr_t)arg;

	if (!me)
		return sleeps_and_polls(arg);
	for (unsigned i = 0; i < EACH; i++) {
		unsigned id = (unsigned)(me - 1) * EACH + i;
		struct work w = work(shared, IBV_WR_RDMA_WRITE, id, 0, 0, 64);
		int err;

		while ((err = try_post(shared->a.qp, &w)) == ENOMEM)
			sched_yield(); /* the sleeper makes room */
		NEED_EQ(err, 0);
	}
	return NULL;
}

static void events(const struct row *row)
{
	struct spec s = usual();

	(void)row;
	s.channels = true;
	shared = rig_make(&s);
	run_threads(event_threads, THREADS + 1);
	for (unsigned i = 0; i < TOTAL; i++)
		NEED_EQ(seen[i], 1);
}

/* ---- into error while others post ---- */

static void *posts_into_error(void *arg)
{
	struct work w = work(shared, IBV_WR_RDMA_WRITE, 1, 0, 0, 64);

	if (!arg) {
		sleep_ms(5);
		to_state(shared->a.qp, IBV_QPS_ERR);
		return NULL;
	}
	for (int i = 0; i < 2000; i++)
		if (!try_post(shared->a.qp, &w))
			nposted++;
	return NULL;
}

static void into_error(const struct row *row)
{
	struct spec s = usual();
	struct ibv_wc wc;
	bool flushed = false;

	(void)row;
	s.cap.max_send_wr = 8192;
	s.cqe = 10000;
	shared = rig_make(&s);
	run_threads(posts_into_error, THREADS);
	for (unsigned i = 0; i < nposted; i++) {
		wc = completion(shared->a.scq);
		flushed |= wc.status == IBV_WC_WR_FLUSH_ERR;
		NEED_EQ(wc.status, flushed ? IBV_WC_WR_FLUSH_ERR : IBV_WC_SUCCESS);
	}
	need_quiet(shared->a.scq);
	row_note("%u requests", nposted);
}

/* ---- two threads, one connection: one sends, the other receives ---- */

static void *sends_or_receives(void *arg)
{
	for (unsigned i = 0; i < TOTAL; i++)
		if (arg) {
			post_many(shared, IBV_WR_SEND, i, 1, 64, IBV_SEND_SIGNALED);
			need_wc(shared->a.scq, i, IBV_WC_SUCCESS);
		} else {
			post_recv(&shared->b, i, 64 * ((size_t)i % 64), 64);
			need_wc(shared->b.rcq, i, IBV_WC_SUCCESS);
		}
	return NULL;
}

static void sender_and_receiver(const struct row *row)
{
	struct spec s = usual();

	(void)row;
	s.min_rnr_timer = 1;
	shared = rig_make(&s);
	run_threads(sends_or_receives, 2);
}

static const struct row rows[] = {
	{"four on one QP and one CQ", "ibv_post_send(3)", one_qp},
	{"four on QPs of their own, one CQ", "ibv_post_send(3)", own_qps, .a = 0},
	{"four on QPs and CQs of their own", "ibv_post_send(3)", own_qps, .a = 1},
	{"four on contexts of their own", "ibv_post_send(3)", own_contexts},
	{"one sends, one receives", "ibv_post_send(3)", sender_and_receiver},
	{"one polls, one creates and destroys QPs", "ibv_destroy_qp(3)", come_and_go},
	{"four register, one writes", "ibv_reg_mr(3)", registering, .seconds = 60},
	{"four post, one sleeps for events", "ibv_get_cq_event(3)", events},
	{"three post, one takes the QP to ERR", "10.3.1.7", into_error},
};

const struct section section_threads = {"threads", "threads", rows, COUNT(rows)};
