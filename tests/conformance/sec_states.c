/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section states: what queue pairs do in each state, and how they leave it.
 *
 * Room: tests. May use: verbs and libc.
 */
#include "sections.h"

static struct rig *rig_in(enum ibv_qp_state state)
{
	struct spec s = usual();
	struct rig *r;

	s.state = state > IBV_QPS_RTS ? IBV_QPS_RTS : state;
	r = rig_make(&s);
	if (state > IBV_QPS_RTS)
		to_state(r->a.qp, state);
	return r;
}

/* ---- posting ---- */

/* row->a: the state, row->b: whether sending (1) and receiving (2) is allowed */
static void posting(const struct row *row)
{
	struct rig *r = rig_in((enum ibv_qp_state)row->a);
	struct work w = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, 8);
	struct ibv_sge sge = {.addr = (uintptr_t)r->a.buf, .length = 64, .lkey = r->a.mr->lkey};

	NEED_EQ(try_post(r->a.qp, &w), row->b & 1 ? 0 : EINVAL);
	NEED_EQ(try_recv(r->a.qp, 2, &sge, 1), row->b & 2 ? 0 : EINVAL);
	if (!(row->b & 1))
		need_quiet(r->a.scq);
}

static void receive_in_init(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.state = IBV_QPS_INIT;
	r = rig_make(&s);
	post_recv(&r->b, 7, 0, 64); /* before the peer could send */
	connect_qp(r, &s, r->b.qp, r->a.qp->qp_num, IBV_QPS_RTR);
	connect_qp(r, &s, r->a.qp, r->b.qp->qp_num, IBV_QPS_RTS);
	post_many(r, IBV_WR_SEND, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->b.rcq, 7, IBV_WC_SUCCESS); /* a QP in RTR receives and answers */
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

static void rtr_answers(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.state = IBV_QPS_RTR;
	r = rig_make(&s);
	connect_qp(r, &s, r->a.qp, r->b.qp->qp_num, IBV_QPS_RTS);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	post_many(r, IBV_WR_RDMA_READ, 2, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
}

/* ---- SQD ---- */

static void sqd_holds_back(const struct row *row)
{
	struct rig *r = rig_in(IBV_QPS_SQD);

	(void)row;
	fill(r->a.buf, 8, 1);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 10, 8, IBV_SEND_SIGNALED);
	need_quiet(r->a.scq);
	NEED(untouched(r->b.buf, 8));
	to_state(r->a.qp, IBV_QPS_RTS);
	for (uint64_t i = 1; i <= 10; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	NEED(filled(r->b.buf, 8, 1));
}

static void sqd_receives(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	to_state(r->b.qp, IBV_QPS_SQD);
	post_recv(&r->b, 9, 0, 64);
	post_many(r, IBV_WR_SEND, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->b.rcq, 9, IBV_WC_SUCCESS);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	post_many(r, IBV_WR_RDMA_READ, 2, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
}

/* The event comes when what was begun is over, not before. */
static void sqd_drains(const struct row *row)
{
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_SQD, .en_sqd_async_notify = 1};
	struct ibv_qp_init_attr init;
	struct ibv_async_event e;
	struct rig *r = rig();

	(void)row;
	/* no receive: the SEND stays under way */
	post_many(r, IBV_WR_SEND, 1, 1, 8, IBV_SEND_SIGNALED);
	sleep_ms(QUIET_MS);
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY), 0);
	need_no_event(r->ctx);
	NEED_EQ(ibv_query_qp(r->a.qp, &a, IBV_QP_STATE, &init), 0);
	NEED(a.qp_state == IBV_QPS_SQD && a.sq_draining);
	post_recv(&r->b, 2, 0, 64);
	e = async_event(r->ctx);
	NEED(e.event_type == IBV_EVENT_SQ_DRAINED && e.element.qp == r->a.qp);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED_EQ(ibv_query_qp(r->a.qp, &a, IBV_QP_STATE, &init), 0);
	NEED(a.qp_state == IBV_QPS_SQD && !a.sq_draining);
}

/* Attributes that may change when it is drained take effect. */
static void sqd_changes(const struct row *row)
{
	struct ibv_qp_attr a = {.timeout = 8, .retry_cnt = 1};
	struct rig *r = rig_in(IBV_QPS_SQD);
	uint64_t start;

	(void)row;
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT), 0);
	to_state(r->a.qp, IBV_QPS_RTS);
	NEED_EQ(ibv_destroy_qp(r->b.qp), 0);
	r->b.qp = NULL;
	start = now_ms();
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_RETRY_EXC_ERR);
	NEED(now_ms() - start < 500); /* with the attributes of before it would be longer */
}

/* ---- ERR ---- */

static void flushes_sends(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	post_many(r, IBV_WR_SEND, 0, 20, 8, IBV_SEND_SIGNALED); /* no receive: they wait */
	post_many(r, IBV_WR_RDMA_WRITE, 20, 20, 8, 0); /* unsignaled ones flush with a completion too */
	to_state(r->a.qp, IBV_QPS_ERR);
	for (uint64_t i = 0; i < 40; i++) {
		struct ibv_wc wc = need_wc(r->a.scq, i, IBV_WC_WR_FLUSH_ERR);

		NEED_EQ(wc.qp_num, r->a.qp->qp_num);
	}
	need_quiet(r->a.scq);
}

static void flushes_receives(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	for (uint64_t i = 0; i < 30; i++)
		post_recv(&r->a, i, 0, 64);
	to_state(r->a.qp, IBV_QPS_ERR);
	for (uint64_t i = 0; i < 30; i++)
		NEED_EQ(need_wc(r->a.rcq, i, IBV_WC_WR_FLUSH_ERR).qp_num, r->a.qp->qp_num);
	need_quiet(r->a.rcq);
}

static void flushes_posts(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.two_cqs = true;
	r = rig_make(&s);
	to_state(r->a.qp, IBV_QPS_ERR);
	for (uint64_t i = 0; i < 200; i++) {
		post_many(r, IBV_WR_SEND, i, 1, 8, i % 2 ? IBV_SEND_SIGNALED : 0);
		post_recv(&r->a, 1000 + i, 0, 64);
		need_wc(r->a.scq, i, IBV_WC_WR_FLUSH_ERR);
		need_wc(r->a.rcq, 1000 + i, IBV_WC_WR_FLUSH_ERR);
	}
}

/* What completed before the error stays a success, then come the flushes, all in order. */
static void successes_first(const struct row *row)
{
	struct rig *r = rig();
	struct work bad = work(r, IBV_WR_RDMA_WRITE, 20, 0, 0, 8);

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 0, 20, 2000, IBV_SEND_SIGNALED);
	bad.wr.wr.rdma.rkey ^= 0x3333;
	post(r->a.qp, &bad);
	post_many(r, IBV_WR_RDMA_WRITE, 21, 20, 2000, IBV_SEND_SIGNALED);
	for (uint64_t i = 0; i < 20; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	need_wc(r->a.scq, 20, IBV_WC_REM_ACCESS_ERR);
	for (uint64_t i = 21; i < 41; i++)
		need_wc(r->a.scq, i, IBV_WC_WR_FLUSH_ERR);
}

static void err_does_not_answer(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.timeout = 8;
	s.retry_cnt = 2;
	r = rig_make(&s);
	to_state(r->b.qp, IBV_QPS_ERR);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_RETRY_EXC_ERR);
	NEED(untouched(r->b.buf, 8));
}

/* ---- RESET ---- */

static void reset_forgets(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = rig();

	(void)row;
	for (uint64_t i = 0; i < 30; i++)
		post_recv(&r->a, i, 0, 64);
	post_many(r, IBV_WR_SEND, 0, 30, 8, IBV_SEND_SIGNALED);
	reconnect(r, &s);
	need_quiet(r->a.scq);
	/* the queues are empty: all of their places are free again */
	post_many(r, IBV_WR_RDMA_WRITE, 100, 64, 8, IBV_SEND_SIGNALED);
	for (uint64_t i = 0; i < 64; i++)
		need_wc(r->a.scq, 100 + i, IBV_WC_SUCCESS);
}

static void reset_and_again(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = rig();

	(void)row;
	for (unsigned i = 0; i < 30; i++) {
		s.sq_psn = s.rq_psn = (i * 7919) & 0xffffff;
		reconnect(r, &s);
		fill(r->a.buf, 3000, i);
		post_recv(&r->b, 2 * i, 0, 3000);
		post_many(r, IBV_WR_SEND, 2 * i + 1, 1, 3000, IBV_SEND_SIGNALED);
		need_wc(r->b.rcq, 2 * i, IBV_WC_SUCCESS);
		need_wc(r->a.scq, 2 * i + 1, IBV_WC_SUCCESS);
		NEED(filled(r->b.buf, 3000, i));
	}
}

static void reset_after_error(const struct row *row)
{
	struct rig *r = rig();
	struct work bad = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, 8);
	struct spec s = usual();
	struct ibv_wc wc;

	(void)row;
	bad.wr.wr.rdma.rkey ^= 0x3333;
	post(r->a.qp, &bad);
	post_many(r, IBV_WR_RDMA_WRITE, 2, 10, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_REM_ACCESS_ERR);
	reconnect(r, &s);
	while (ibv_poll_cq(r->a.scq, 1, &wc) > 0)
		NEED_EQ(wc.status, IBV_WC_WR_FLUSH_ERR);
	post_many(r, IBV_WR_RDMA_WRITE, 100, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 100, IBV_WC_SUCCESS);
}

/* ---- the end ---- */

static void destroy_at_work(const struct row *row)
{
	struct spec s = usual();

	(void)row;
	for (int i = 0; i < 20; i++) {
		struct rig *r = rig_make(&s);

		post_recv(&r->b, 1, 0, 64);
		post_many(r, IBV_WR_RDMA_READ, 0, 30, 20000, IBV_SEND_SIGNALED);
		post_many(r, IBV_WR_SEND, 0, 30, 64, IBV_SEND_SIGNALED);
		NEED_EQ(ibv_destroy_qp(i % 2 ? r->a.qp : r->b.qp), 0);
		if (i % 2)
			r->a.qp = NULL;
		else
			r->b.qp = NULL;
		rigs_close();
	}
}

static void access_changes_live(const struct row *row)
{
	struct ibv_qp_attr a = {.qp_access_flags = IBV_ACCESS_REMOTE_READ};
	struct rig *r = rig();

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED_EQ(ibv_modify_qp(r->b.qp, &a, IBV_QP_ACCESS_FLAGS), 0);
	post_many(r, IBV_WR_RDMA_READ, 2, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
	post_many(r, IBV_WR_RDMA_WRITE, 3, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 3, IBV_WC_REM_ACCESS_ERR);
}

static void access_widens_live(const struct row *row)
{
	struct ibv_qp_attr a = {.qp_access_flags = IBV_ACCESS_REMOTE_WRITE};
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.qp_access = 0;
	r = rig_make(&s);
	NEED_EQ(ibv_modify_qp(r->b.qp, &a, IBV_QP_ACCESS_FLAGS), 0);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

static const struct row rows[] = {
	{"posting in RESET: refused", "10.3.1.1", posting, .a = IBV_QPS_RESET, .b = 0},
	{"posting in INIT: receives only", "10.3.1.2", posting, .a = IBV_QPS_INIT, .b = 2},
	{"posting in RTR: receives only", "10.3.1.3", posting, .a = IBV_QPS_RTR, .b = 2},
	{"posting in RTS", "10.3.1.4", posting, .a = IBV_QPS_RTS, .b = 3},
	{"posting in SQD", "10.3.1.5", posting, .a = IBV_QPS_SQD, .b = 3},
	{"posting in ERR", "10.3.1.7", posting, .a = IBV_QPS_ERR, .b = 3},
	{"receives posted in INIT", "10.3.1.2", receive_in_init},
	{"RTR answers", "10.3.1.3", rtr_answers},
	{"SQD holds new requests back", "10.3.1.5", sqd_holds_back},
	{"SQD still receives", "10.3.1.5", sqd_receives},
	{"SQD tells when it is drained", "10.3.1.5", sqd_drains},
	{"SQD: changes take effect", "10.3.1.5", sqd_changes},
	{"ERR flushes sends in order", "10.3.1.7", flushes_sends},
	{"ERR flushes receives in order", "10.3.1.7", flushes_receives},
	{"ERR flushes what is posted in it", "10.3.1.7", flushes_posts},
	{"ERR: successes, the error, flushes", "10.8.5", successes_first},
	{"ERR does not answer", "10.3.1.7", err_does_not_answer},
	{"RESET forgets what was posted", "10.3.1.1", reset_forgets},
	{"RESET, and again with other PSNs", "10.3.1.1", reset_and_again},
	{"RESET after an error", "10.3.1.1", reset_after_error},
	{"destroyed with work outstanding", "ibv_create_qp(3)", destroy_at_work},
	{"access taken away while it is live", "ibv_modify_qp(3)", access_changes_live},
	{"access given while it is live", "ibv_modify_qp(3)", access_widens_live},
};

const struct section section_states = {"states", "behaviour in each state", rows, COUNT(rows)};
