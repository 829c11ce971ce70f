/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section cq: completion queues without their channels.
 *
 * Room: tests. May use: verbs and libc.
 */
#include "sections.h"

static void limits(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_cq *cq;

	(void)row;
	for (int n = 1; n <= 5000; n = n * 3 + 1) {
		cq = ibv_create_cq(r->ctx, n, r, NULL, 0);
		NEED(cq && cq->cqe >= n && cq->cq_context == r && !cq->channel && cq->context == r->ctx);
		NEED_EQ(ibv_destroy_cq(cq), 0);
	}
}

static void refused(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	NEED_NULL(ibv_create_cq(r->ctx, 0, NULL, NULL, 0), EINVAL);
	NEED_NULL(ibv_create_cq(r->ctx, -1, NULL, NULL, 0), EINVAL);
	NEED_NULL(ibv_create_cq(r->ctx, r->dev.max_cqe + 1, NULL, NULL, 0), EINVAL);
	NEED_NULL(ibv_create_cq(r->ctx, 16, NULL, NULL, -1), EINVAL);
	NEED_NULL(ibv_create_cq(r->ctx, 16, NULL, NULL, r->ctx->num_comp_vectors), EINVAL);
}

static void vectors(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	for (int v = 0; v < r->ctx->num_comp_vectors; v++) {
		struct ibv_cq *cq = ibv_create_cq(r->ctx, 16, NULL, NULL, v);

		NEED(cq);
		NEED_EQ(ibv_destroy_cq(cq), 0);
	}
}

static void busy(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.two_cqs = true;
	r = rig_make(&s);
	NEED_EQ(ibv_destroy_cq(r->a.scq), EBUSY);
	NEED_EQ(ibv_destroy_cq(r->a.rcq), EBUSY);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

static void empty(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_wc wc[4];

	(void)row;
	NEED_EQ(ibv_poll_cq(r->a.scq, 4, wc), 0);
	NEED_EQ(ibv_poll_cq(r->a.scq, 0, wc), 0);
}

static void poll_several(const struct row *row)
{
	struct rig *r = rig();
	uint64_t next = 1, end = now_ms() + PATIENCE_MS;
	struct ibv_wc wc[7];

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 1, 60, 8, IBV_SEND_SIGNALED);
	while (next <= 60 && now_ms() < end) {
		int n = ibv_poll_cq(r->a.scq, 7, wc);

		NEED(n >= 0 && n <= 7);
		for (int i = 0; i < n; i++) {
			NEED_EQ(wc[i].wr_id, next++);
			NEED_EQ(wc[i].status, IBV_WC_SUCCESS);
			NEED_EQ(wc[i].qp_num, r->a.qp->qp_num);
		}
	}
	NEED_EQ(next, 61);
	need_quiet(r->a.scq);
}

static void poll_zero(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_wc wc;

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 1, 2, 8, IBV_SEND_SIGNALED);
	sleep_ms(QUIET_MS);
	NEED_EQ(ibv_poll_cq(r->a.scq, 0, &wc), 0); /* takes none */
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
}

/* Two QPs on one CQ: each queue's completions are in its order. */
static void shared_order(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = rig_make(&s);
	struct ibv_qp *a2 = make_qp(r->a.pd, r->a.scq, r->a.scq, &s),
		      *b2 = make_qp(r->b.pd, r->b.scq, r->b.scq, &s);
	uint64_t next[2] = {0};

	(void)row;
	connect_qp(r, &s, b2, a2->qp_num, IBV_QPS_RTS);
	connect_qp(r, &s, a2, b2->qp_num, IBV_QPS_RTS);
	for (uint64_t i = 0; i < 50; i++) {
		struct work w = work(r, IBV_WR_RDMA_WRITE, i, 0, 0, 100);

		post(r->a.qp, &w);
		post(a2, &w);
	}
	for (int i = 0; i < 100; i++) {
		struct ibv_wc wc = completion(r->a.scq);

		NEED_EQ(wc.status, IBV_WC_SUCCESS);
		NEED_EQ(wc.wr_id, next[wc.qp_num == a2->qp_num]++);
	}
	NEED_EQ(ibv_destroy_qp(a2), 0);
	NEED_EQ(ibv_destroy_qp(b2), 0);
}

static void wraps_round(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.cqe = 16;
	r = rig_make(&s);
	for (uint64_t i = 0; i < 5000; i += 10) {
		post_many(r, IBV_WR_RDMA_WRITE, i, 10, 8, IBV_SEND_SIGNALED);
		for (uint64_t k = i; k < i + 10; k++)
			need_wc(r->a.scq, k, IBV_WC_SUCCESS);
	}
}

static void resize(const struct row *row)
{
	struct rig *r = rig();
	int before = r->a.scq->cqe, err = ibv_resize_cq(r->a.scq, 1000);

	(void)row;
	if (err) {
		NEED(err == EOPNOTSUPP || err == ENOSYS);
		NEED_EQ(r->a.scq->cqe, before);
		post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
		need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
		row_skipped("the device does not resize; refused with EOPNOTSUPP, and the CQ still works");
	}
	NEED(r->a.scq->cqe >= 1000);
}

/* Larger and smaller, empty or not, and meanwhile nothing is lost and nothing comes out of order. */
static void resize_under_way(const struct row *row)
{
	static const int sizes[] = {500, 40, 3000, 64, 2000, 33};
	struct spec s = usual();
	uint64_t sent = 0, got = 0;
	struct rig *r;

	(void)row;
	s.cqe = 40;
	r = rig_make(&s);
	for (unsigned i = 0; i < 600; i++) {
		unsigned n = i % 30;

		post_many(r, IBV_WR_RDMA_WRITE, sent, n, 8, IBV_SEND_SIGNALED);
		sent += n;
		while (sent - got > i % 7)
			need_wc(r->a.scq, got++, IBV_WC_SUCCESS);
		NEED_EQ(ibv_resize_cq(r->a.scq, sizes[i % COUNT(sizes)]), 0);
		NEED(r->a.scq->cqe >= sizes[i % COUNT(sizes)]);
		while (sent > got)
			need_wc(r->a.scq, got++, IBV_WC_SUCCESS);
	}
	need_quiet(r->a.scq);
}

static void resize_too_small(const struct row *row)
{
	struct rig *r = rig();
	int before;

	(void)row;
	NEED_EQ(ibv_resize_cq(r->a.scq, 0), EINVAL);
	NEED_EQ(ibv_resize_cq(r->a.scq, -1), EINVAL);
	NEED_EQ(ibv_resize_cq(r->a.scq, r->dev.max_cqe + 1), EINVAL);
	before = r->a.scq->cqe;
	post_many(r, IBV_WR_RDMA_WRITE, 0, 40, 8, IBV_SEND_SIGNALED);
	sleep_ms(QUIET_MS);
	NEED_EQ(ibv_resize_cq(r->a.scq, 8), EINVAL);
	NEED_EQ(r->a.scq->cqe, before);
	for (uint64_t i = 0; i < 40; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	NEED_EQ(ibv_resize_cq(r->a.scq, 8), 0);
	post_many(r, IBV_WR_RDMA_WRITE, 0, 8, 8, IBV_SEND_SIGNALED);
	for (uint64_t i = 0; i < 8; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
}

/* ---- moderation ---- */

static struct rig *moderated(uint16_t count, uint16_t period)
{
	struct ibv_modify_cq_attr a = {.attr_mask = IBV_CQ_ATTR_MODERATE,
				       .moderate = {.cq_count = count, .cq_period = period}};
	struct spec s = usual();
	struct rig *r;
	int err;

	s.channels = true;
	r = rig_make(&s);
	err = ibv_modify_cq(r->a.scq, &a);
	if (err == EOPNOTSUPP)
		row_skipped("the device does not moderate");
	NEED_EQ(err, 0);
	NEED_EQ(ibv_req_notify_cq(r->a.scq, 0), 0);
	return r;
}

static void moderate_count(const struct row *row)
{
	struct rig *r = moderated(5, UINT16_MAX);

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 0, 4, 8, IBV_SEND_SIGNALED);
	NEED(!readable(r->a.channel->fd, 20));
	post_many(r, IBV_WR_RDMA_WRITE, 4, 1, 8, IBV_SEND_SIGNALED);
	NEED(readable(r->a.channel->fd, 20));
	need_cq_event(r->a.channel, r->a.scq);
	ibv_ack_cq_events(r->a.scq, 1);
	for (uint64_t i = 0; i < 5; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
}

static void moderate_period(const struct row *row)
{
	struct rig *r = moderated(1000, 50000);
	uint64_t from = now_ms();

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 0, 4, 8, IBV_SEND_SIGNALED);
	need_cq_event(r->a.channel, r->a.scq);
	NEED(now_ms() - from >= 49);
	ibv_ack_cq_events(r->a.scq, 1);
	for (uint64_t i = 0; i < 4; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
}

static void moderate_polled(const struct row *row)
{
	struct rig *r = moderated(1000, UINT16_MAX);
	uint64_t from = now_ms();

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 0, 4, 8, IBV_SEND_SIGNALED);
	for (uint64_t i = 0; i < 4; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	NEED(now_ms() - from < 60);
}

static void moderate_no_more(const struct row *row)
{
	struct rig *r = moderated(1000, 0);
	struct ibv_modify_cq_attr a = {.attr_mask = IBV_CQ_ATTR_MODERATE};

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 0, 1, 8, IBV_SEND_SIGNALED);
	NEED(!readable(r->a.channel->fd, QUIET_MS));
	NEED_EQ(ibv_modify_cq(r->a.scq, &a), 0); /* and what was held back comes */
	need_cq_event(r->a.channel, r->a.scq);
	ibv_ack_cq_events(r->a.scq, 1);
	need_wc(r->a.scq, 0, IBV_WC_SUCCESS);
}

static void moderate_unknown(const struct row *row)
{
	struct ibv_modify_cq_attr a = {.attr_mask = 1 << 5};

	(void)row;
	NEED_EQ(ibv_modify_cq(rig()->a.scq, &a), EOPNOTSUPP);
}

/* What has room stays; the CQ and its QP say so. */
static void overrun(const struct row *row)
{
	struct spec s = usual();
	struct ibv_async_event e;
	struct rig *r;
	int n;

	(void)row;
	s.cqe = 2;
	r = rig_make(&s);
	n = r->a.scq->cqe;
	if (n >= 60)
		row_skipped("the device gave a CQ of %d entries where 2 were asked for", n);
	post_many(r, IBV_WR_RDMA_WRITE, 1, (unsigned)n + 1, 8, IBV_SEND_SIGNALED);
	e = async_event(r->ctx);
	NEED_EQ(e.event_type, IBV_EVENT_CQ_ERR);
	NEED(e.element.cq == r->a.scq);
	e = async_event(r->ctx);
	NEED_EQ(e.event_type, IBV_EVENT_QP_FATAL);
	NEED(e.element.qp == r->a.qp);
	need_state(r->a.qp, IBV_QPS_ERR);
	for (int i = 1; i <= n; i++)
		need_wc(r->a.scq, (uint64_t)i, IBV_WC_SUCCESS);
	NEED_EQ(state_of(r->b.qp), IBV_QPS_RTS);
}

static void destroyed_qp_leaves(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = rig_make(&s);
	struct ibv_wc wc;

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 1, 20, 8, IBV_SEND_SIGNALED);
	sleep_ms(QUIET_MS);
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	/* whether they are still there is the device's choice; none may come with another's number */
	while (ibv_poll_cq(r->a.scq, 1, &wc) > 0)
		NEED(wc.wr_id >= 1 && wc.wr_id <= 20);
	r->a.qp = make_qp(r->a.pd, r->a.scq, r->a.rcq, &s);
	to_state(r->b.qp, IBV_QPS_RESET);
	connect_qp(r, &s, r->b.qp, r->a.qp->qp_num, IBV_QPS_RTS);
	connect_qp(r, &s, r->a.qp, r->b.qp->qp_num, IBV_QPS_RTS);
	post_many(r, IBV_WR_RDMA_WRITE, 1000, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1000, IBV_WC_SUCCESS);
}

static void many_cqs(const struct row *row)
{
	enum { N = 300 };
	static struct ibv_cq *cq[N];
	struct rig *r = rig();

	(void)row;
	for (int i = 0; i < N; i++) {
		cq[i] = ibv_create_cq(r->ctx, 64, NULL, NULL, 0);
		NEED(cq[i]);
	}
	for (int i = 0; i < N; i++)
		NEED_EQ(ibv_destroy_cq(cq[i]), 0);
}

/* Every field that the manual defines for a receive of SEND with immediate. */
static void fields(const struct row *row)
{
	struct spec s = usual();
	struct ibv_wc wc;
	struct work w;
	struct rig *r;

	(void)row;
	s.two_cqs = true;
	r = rig_make(&s);
	post_recv(&r->b, 77, 0, 4096);
	w = work(r, IBV_WR_SEND_WITH_IMM, 88, 0, 0, 123);
	w.wr.imm_data = htobe32(0xdecade01);
	post(r->a.qp, &w);
	wc = need_wc(r->b.rcq, 77, IBV_WC_SUCCESS);
	NEED_EQ(wc.opcode, IBV_WC_RECV);
	NEED_EQ(wc.byte_len, 123);
	NEED_EQ(wc.wc_flags, IBV_WC_WITH_IMM);
	NEED_EQ(be32toh(wc.imm_data), 0xdecade01);
	NEED_EQ(wc.qp_num, r->b.qp->qp_num);
	wc = need_wc(r->a.scq, 88, IBV_WC_SUCCESS);
	NEED_EQ(wc.opcode, IBV_WC_SEND);
	NEED_EQ(wc.qp_num, r->a.qp->qp_num);
	need_quiet(r->a.rcq);
	need_quiet(r->b.scq);
}

static const struct row rows[] = {
	{"at least the entries asked for", "ibv_create_cq(3)", limits},
	{"sizes and vectors that are refused", "ibv_create_cq(3)", refused},
	{"every completion vector", "ibv_create_cq(3)", vectors},
	{"in use by a QP", "ibv_create_cq(3)", busy},
	{"poll an empty one", "ibv_poll_cq(3)", empty},
	{"poll several at once", "11.4.2.1", poll_several},
	{"poll for none", "ibv_poll_cq(3)", poll_zero},
	{"fields of a completion", "11.4.2.1", fields},
	{"order of two QPs on one CQ", "10.8.5.1", shared_order},
	{"many times round", "11.4.2.1", wraps_round},
	{"resize", "ibv_resize_cq(3)", resize},
	{"resize with completions under way", "11.2.8.4", resize_under_way},
	{"sizes that are refused, too small ones first", "ibv_resize_cq(3)", resize_too_small},
	{"an event for so many completions", "ibv_modify_cq(3)", moderate_count},
	{"an event after so long", "ibv_modify_cq(3)", moderate_period},
	{"polling does not notice moderation", "ibv_modify_cq(3)", moderate_polled},
	{"the end of moderation", "ibv_modify_cq(3)", moderate_no_more},
	{"an unknown attribute", "ibv_modify_cq(3)", moderate_unknown},
	{"overrun", "11.6.3.2", overrun},
	{"a destroyed QP's completions", "10.2.4.4", destroyed_qp_leaves},
	{"three hundred CQs", "ibv_create_cq(3)", many_cqs},
};

const struct section section_cq = {"cq", "completion queues", rows, COUNT(rows)};
