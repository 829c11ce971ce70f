/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section retry: peers that are not ready or do not answer. Upper limits are wide, since a machine may be busy; lower ones
 * are exact.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <pthread.h>

#include "sections.h"

/* ---- receiver not ready ---- */

/* row->a: rnr_retry */
static void rnr_gives_up(const struct row *row)
{
	struct spec s = usual();
	uint64_t start;
	struct rig *r;

	s.rnr_retry = (uint8_t)row->a;
	s.min_rnr_timer = 14; /* 1.28 ms */
	r = rig_make(&s);
	start = now_ms();
	post_many(r, IBV_WR_SEND, 1, 3, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_RNR_RETRY_EXC_ERR);
	need_wc(r->a.scq, 2, IBV_WC_WR_FLUSH_ERR);
	need_wc(r->a.scq, 3, IBV_WC_WR_FLUSH_ERR);
	NEED((double)(now_ms() - start) + 1 >= 1.28 * (double)row->a);
	NEED_EQ(state_of(r->b.qp), IBV_QPS_RTS);
	need_quiet(r->b.rcq);
}

/* row->a: rnr_retry that is enough for a receive after 60 ms */
static void rnr_rescued(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	s.rnr_retry = (uint8_t)row->a;
	s.min_rnr_timer = row->a == 7 ? 1 : 28; /* 10 us, or 164 ms */
	r = rig_make(&s);
	fill(r->a.buf, 3000, 1);
	post_many(r, row->op, 1, 1, 3000, IBV_SEND_SIGNALED);
	sleep_ms(60);
	need_quiet(r->a.scq);
	post_recv(&r->b, 2, 0, 3000);
	need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED(filled(r->b.buf, 3000, 1));
}

/* After a rescue the count starts over. */
static void rnr_counts_anew(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.rnr_retry = 1;
	s.min_rnr_timer = 28;
	r = rig_make(&s);
	for (uint64_t i = 0; i < 4; i++) {
		post_many(r, IBV_WR_SEND, i, 1, 8, IBV_SEND_SIGNALED);
		sleep_ms(20);
		post_recv(&r->b, i, 0, 64);
		need_wc(r->b.rcq, i, IBV_WC_SUCCESS);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	}
}

static void *posts_slowly(void *arg)
{
	struct rig *r = arg;

	for (uint64_t i = 0; i < 20; i++) {
		sleep_ms(3);
		post_recv(&r->b, i, 64 * i, 64);
	}
	return NULL;
}

/* Senders that are always too early: everything arrives, once, in order. */
static void rnr_often(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;
	pthread_t t;

	(void)row;
	s.min_rnr_timer = 5;
	r = rig_make(&s);
	NEED_EQ(pthread_create(&t, NULL, posts_slowly, r), 0);
	for (uint64_t i = 0; i < 20; i++) {
		struct work w = work(r, IBV_WR_SEND, i, 64 * i, 0, 64);

		fill(r->a.buf + 64 * i, 64, (unsigned)i);
		post(r->a.qp, &w);
	}
	for (uint64_t i = 0; i < 20; i++) {
		need_wc(r->b.rcq, i, IBV_WC_SUCCESS);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
		NEED(filled(r->b.buf + 64 * i, 64, (unsigned)i));
	}
	pthread_join(t, NULL);
}

/* The responder's timer is what the sender waits. */
static void rnr_timer_live(const struct row *row)
{
	struct ibv_qp_attr a = {.min_rnr_timer = 28};
	struct spec s = usual();
	uint64_t start;
	struct rig *r;

	(void)row;
	s.rnr_retry = 1;
	s.min_rnr_timer = 1;
	r = rig_make(&s);
	NEED_EQ(ibv_modify_qp(r->b.qp, &a, IBV_QP_MIN_RNR_TIMER), 0);
	start = now_ms();
	post_many(r, IBV_WR_SEND, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_RNR_RETRY_EXC_ERR);
	NEED(now_ms() - start >= 160);
}

static void write_needs_no_receive(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.rnr_retry = 0;
	r = rig_make(&s);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	post_many(r, IBV_WR_RDMA_WRITE_WITH_IMM, 2, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 2, IBV_WC_RNR_RETRY_EXC_ERR);
}

/* ---- no answer ---- */

/* row->a: timeout, row->b: retry_cnt. Each attempt waits T to 4T (IBTA 9.7.6.1.3), T = 4.096 us * 2^timeout. */
static void no_answer(const struct row *row)
{
	double unit = 0.004096 * (double)(1 << row->a), least = unit * (double)(row->b + 1);
	struct spec s = usual();
	uint64_t start, took;
	struct rig *r;

	s.timeout = (uint8_t)row->a;
	s.retry_cnt = (uint8_t)row->b;
	r = rig_make(&s);
	NEED_EQ(ibv_destroy_qp(r->b.qp), 0);
	r->b.qp = NULL;
	start = now_ms();
	post_many(r, row->op, 1, 3, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_RETRY_EXC_ERR);
	took = now_ms() - start;
	need_wc(r->a.scq, 2, IBV_WC_WR_FLUSH_ERR);
	need_wc(r->a.scq, 3, IBV_WC_WR_FLUSH_ERR);
	need_state(r->a.qp, IBV_QPS_ERR);
	row_note("%llu ms, where %.0f to %.0f belong", (unsigned long long)took, least, 4 * least);
	NEED((double)took + 2 >= least);
	NEED((double)took <= 4 * least + 500);
}

static void timeout_zero(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.timeout = 0; /* for ever */
	s.retry_cnt = 0;
	r = rig_make(&s);
	NEED_EQ(ibv_destroy_qp(r->b.qp), 0);
	r->b.qp = NULL;
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	sleep_ms(300);
	need_quiet(r->a.scq);
	to_state(r->a.qp, IBV_QPS_ERR);
	need_wc(r->a.scq, 1, IBV_WC_WR_FLUSH_ERR);
}

/* A peer that comes up late, within the retries, is as good as one in time. */
static void late_peer(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	s.state = IBV_QPS_INIT;
	s.timeout = 14;
	r = rig_make(&s);
	connect_qp(r, &s, r->a.qp, r->b.qp->qp_num, IBV_QPS_RTS);
	fill(r->a.buf, 5000, 1);
	post_many(r, row->op, 1, 1, 5000, IBV_SEND_SIGNALED);
	sleep_ms(30);
	post_recv(&r->b, 2, 0, 8192);
	connect_qp(r, &s, r->b.qp, r->a.qp->qp_num, IBV_QPS_RTR);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

/* Packets from another PSN than the agreed one are not taken for anything else. */
static void wrong_psn(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.timeout = 10;
	s.retry_cnt = 2;
	s.rq_psn = s.sq_psn + 1000; /* the responder has them for duplicates */
	r = rig_make(&s);
	fill(r->a.buf, 8, 1);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	sleep_ms(QUIET_MS);
	NEED(untouched(r->b.buf, 8));
	s.rq_psn = (s.sq_psn - 1000) & 0xffffff; /* for a gap, which is never filled */
	reconnect(r, &s);
	post_many(r, IBV_WR_RDMA_WRITE, 2, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 2, IBV_WC_RETRY_EXC_ERR);
	NEED(untouched(r->b.buf, 8));
}

static const struct row rows[] = {
	{"rnr_retry 0", "9.7.5.2.8", rnr_gives_up, .a = 0},
	{"rnr_retry 1", "9.7.5.2.8", rnr_gives_up, .a = 1},
	{"rnr_retry 3", "9.7.5.2.8", rnr_gives_up, .a = 3},
	{"rnr_retry 6", "9.7.5.2.8", rnr_gives_up, .a = 6},
	{"rnr_retry 1 and a receive in time: SEND", "9.7.5.2.8", rnr_rescued, IBV_WR_SEND, .a = 1},
	{"rnr_retry 1 and a receive in time: WRITE_IMM", "9.7.5.2.8", rnr_rescued, IBV_WR_RDMA_WRITE_WITH_IMM,
	 .a = 1},
	{"rnr_retry 7 waits for ever: SEND", "9.7.5.2.8", rnr_rescued, IBV_WR_SEND, .a = 7},
	{"rnr_retry 7 waits for ever: WRITE_IMM", "9.7.5.2.8", rnr_rescued, IBV_WR_RDMA_WRITE_WITH_IMM,
	 .a = 7},
	{"rnr_retry counts anew after a success", "9.7.5.2.8", rnr_counts_anew},
	{"receives that are always late", "9.7.5.2.8", rnr_often},
	{"min_rnr_timer, changed while live", "9.7.5.2.8", rnr_timer_live},
	{"a WRITE needs no receive", "9.7.5.2.8", write_needs_no_receive},
	{"no answer, retry_cnt 0", "9.7.6.1.3", no_answer, IBV_WR_RDMA_WRITE, .a = 13, .b = 0},
	{"no answer, retry_cnt 1", "9.7.6.1.3", no_answer, IBV_WR_SEND, .a = 12, .b = 1},
	{"no answer, retry_cnt 3: READ", "9.7.6.1.3", no_answer, IBV_WR_RDMA_READ, .a = 12, .b = 3},
	{"no answer, retry_cnt 7", "9.7.6.1.3", no_answer, IBV_WR_RDMA_WRITE, .a = 11, .b = 7},
	{"timeout 0 waits for ever", "9.7.6.1.3", timeout_zero},
	{"a peer that is late: WRITE", "9.7.6.1.3", late_peer, IBV_WR_RDMA_WRITE},
	{"a peer that is late: SEND", "9.7.6.1.3", late_peer, IBV_WR_SEND},
	{"a peer that is late: READ", "9.7.6.1.3", late_peer, IBV_WR_RDMA_READ},
	{"PSNs that do not match", "9.7.4.1", wrong_psn},
};

const struct section section_retry = {"retry", "retries and timeouts", rows, COUNT(rows)};
