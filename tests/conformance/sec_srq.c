/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section srq: shared receive queues, what they take, what their QPs leave to one another, and what is told of them.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <pthread.h>

#include "sections.h"

enum { ENTRIES = 8, MSG = 256, SLOT = 4096 };

/* Of b's domain; b's QP is made anew with it, and connected to a's. */
static struct ibv_srq *with_srq(struct rig *r, struct spec *s, uint32_t entries)
{
	struct ibv_srq_init_attr attr = {.attr = {.max_wr = entries, .max_sge = 1}};
	struct ibv_qp_init_attr init = {
		.send_cq = r->b.scq, .recv_cq = r->b.rcq, .qp_type = IBV_QPT_RC, .cap = s->cap};
	struct ibv_srq *srq = ibv_create_srq(r->b.pd, &attr);

	NEED(srq);
	NEED_EQ(ibv_destroy_qp(r->b.qp), 0);
	init.srq = srq;
	r->b.qp = ibv_create_qp(r->b.pd, &init);
	NEED(r->b.qp);
	connect_qp(r, s, r->a.qp, r->b.qp->qp_num, IBV_QPS_RTS);
	connect_qp(r, s, r->b.qp, r->a.qp->qp_num, IBV_QPS_RTS);
	return srq;
}

static struct rig *srq_rig(struct ibv_srq **srq, uint32_t entries)
{
	struct spec s = usual();
	struct rig *r;

	s.state = IBV_QPS_RESET;
	s.rnr_retry = 1;
	r = rig_make(&s);
	s.state = IBV_QPS_RTS;
	*srq = with_srq(r, &s, entries);
	return r;
}

static int try_srq_recv(struct ibv_srq *srq, uint64_t wr_id, const struct end *e, int sges)
{
	struct ibv_sge sge[2] = {{(uintptr_t)e->buf + wr_id * SLOT, SLOT, e->mr->lkey}, {0}};
	struct ibv_recv_wr wr = {.wr_id = wr_id, .sg_list = sge, .num_sge = sges}, *bad = NULL;

	return ibv_post_srq_recv(srq, &wr, &bad);
}

static void srq_recv(struct ibv_srq *srq, uint64_t wr_id, const struct end *e)
{
	NEED_EQ(try_srq_recv(srq, wr_id, e, 1), 0);
}

static void send_one(struct rig *r, uint64_t wr_id)
{
	struct work w = work(r, IBV_WR_SEND, wr_id, 0, 0, MSG);

	fill(r->a.buf, MSG, (unsigned)wr_id);
	post(r->a.qp, &w);
	need_wc(r->a.scq, wr_id, IBV_WC_SUCCESS);
}

static void done(struct rig *r, struct ibv_srq *srq)
{
	NEED_EQ(ibv_destroy_qp(r->b.qp), 0);
	r->b.qp = NULL;
	NEED_EQ(ibv_destroy_srq(srq), 0);
}

static void receives(const struct row *row)
{
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);

	(void)row;
	for (uint64_t round = 0; round < 4; round++) {
		for (uint64_t i = 0; i < ENTRIES; i++)
			srq_recv(srq, i, &r->b);
		for (uint64_t i = 0; i < ENTRIES; i++) {
			struct ibv_wc wc;

			send_one(r, i);
			wc = need_wc(r->b.rcq, i, IBV_WC_SUCCESS);
			NEED_EQ(wc.opcode, IBV_WC_RECV);
			NEED_EQ(wc.byte_len, MSG);
			NEED_EQ(wc.qp_num, r->b.qp->qp_num);
			NEED(filled(r->b.buf + i * SLOT, MSG, (unsigned)i));
		}
	}
	done(r, srq);
}

static void limits(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_srq_init_attr attr = {.attr = {.max_wr = (uint32_t)row->a, .max_sge = (uint32_t)row->b}};

	if (row->a < 0)
		attr.attr.max_wr = (uint32_t)r->dev.max_srq_wr + 1;
	if (row->b < 0)
		attr.attr.max_sge = (uint32_t)r->dev.max_srq_sge + 1;
	NEED_NULL(ibv_create_srq(r->b.pd, &attr), EINVAL);
}

static void limit_too_high(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_srq_init_attr attr = {.attr = {.max_wr = 4, .max_sge = 1, .srq_limit = 5}};
	struct ibv_srq_attr a = {.srq_limit = 5};
	struct ibv_srq *srq;

	(void)row;
	NEED_NULL(ibv_create_srq(r->b.pd, &attr), EINVAL);
	attr.attr.srq_limit = 0;
	srq = ibv_create_srq(r->b.pd, &attr);
	NEED(srq);
	NEED_EQ(ibv_modify_srq(srq, &a, IBV_SRQ_LIMIT), EINVAL);
	NEED_EQ(ibv_destroy_srq(srq), 0);
}

static void query(const struct row *row)
{
	struct ibv_srq_attr a = {.srq_limit = 3};
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);

	(void)row;
	for (uint64_t i = 0; i < ENTRIES; i++)
		srq_recv(srq, i, &r->b);
	NEED_EQ(ibv_modify_srq(srq, &a, IBV_SRQ_LIMIT), 0);
	memset(&a, 0xff, sizeof(a));
	NEED_EQ(ibv_query_srq(srq, &a), 0);
	NEED(a.max_wr >= ENTRIES && a.max_sge >= 1);
	NEED_EQ(a.srq_limit, 3);
	need_no_event(r->ctx);
	done(r, srq);
}

static void limit_event(const struct row *row)
{
	struct ibv_srq_attr a = {.srq_limit = 3};
	struct ibv_async_event e;
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);

	(void)row;
	for (uint64_t i = 0; i < 4; i++)
		srq_recv(srq, i, &r->b);
	NEED_EQ(ibv_modify_srq(srq, &a, IBV_SRQ_LIMIT), 0);
	send_one(r, 0);
	need_no_event(r->ctx); /* three are left */
	send_one(r, 1);
	e = async_event(r->ctx);
	NEED_EQ(e.event_type, IBV_EVENT_SRQ_LIMIT_REACHED);
	NEED(e.element.srq == srq);
	send_one(r, 2);
	need_no_event(r->ctx); /* once */
	NEED_EQ(ibv_query_srq(srq, &a), 0);
	NEED_EQ(a.srq_limit, 0);
	done(r, srq);
}

/* A device that cannot change the size says so. */
static void resize(const struct row *row)
{
	struct ibv_srq_attr a = {.max_wr = 2 * ENTRIES};
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);
	int err = ibv_modify_srq(srq, &a, IBV_SRQ_MAX_WR);

	(void)row;
	if (r->dev.device_cap_flags & IBV_DEVICE_SRQ_RESIZE)
		NEED_EQ(err, 0);
	else
		NEED(err == EOPNOTSUPP || err == EINVAL || err == ENOSYS);
	done(r, srq);
}

static void full(const struct row *row)
{
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);
	struct ibv_srq_attr a;
	uint32_t n = 0;

	(void)row;
	NEED_EQ(ibv_query_srq(srq, &a), 0);
	while (n < a.max_wr + 1 && !try_srq_recv(srq, 0, &r->b, 1))
		n++;
	NEED_EQ(n, a.max_wr);
	NEED_EQ(try_srq_recv(srq, 0, &r->b, 1), ENOMEM);
	send_one(r, 1); /* a polled completion gives one back */
	need_wc(r->b.rcq, 0, IBV_WC_SUCCESS);
	NEED_EQ(try_srq_recv(srq, 0, &r->b, 1), 0);
	NEED_EQ(try_srq_recv(srq, 0, &r->b, 1), ENOMEM);
	done(r, srq);
}

static void too_many_sges(const struct row *row)
{
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);
	struct ibv_srq_attr a;

	(void)row;
	NEED_EQ(ibv_query_srq(srq, &a), 0);
	if (a.max_sge < 2)
		NEED_EQ(try_srq_recv(srq, 0, &r->b, 2), EINVAL);
	NEED_EQ(try_srq_recv(srq, 0, &r->b, -1), EINVAL);
	done(r, srq);
}

static void post_to_the_qp(const struct row *row)
{
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);

	(void)row;
	NEED_EQ(try_recv(r->b.qp, 1, NULL, 0), EINVAL);
	done(r, srq);
}

static void in_use(const struct row *row)
{
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);

	(void)row;
	NEED_EQ(ibv_destroy_srq(srq), EBUSY);
	NEED_EQ(ibv_destroy_qp(r->b.qp), 0);
	r->b.qp = NULL;
	NEED_EQ(ibv_dealloc_pd(r->b.pd), EBUSY);
	NEED_EQ(ibv_destroy_srq(srq), 0);
}

static void not_ready(const struct row *row)
{
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);
	struct work w = work(r, IBV_WR_SEND, 1, 0, 0, MSG);

	(void)row;
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_RNR_RETRY_EXC_ERR);
	need_quiet(r->b.rcq);
	done(r, srq);
}

static void too_long(const struct row *row)
{
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);
	struct work w = work(r, IBV_WR_SEND, 1, 0, 0, SLOT + 1);

	(void)row;
	srq_recv(srq, 5, &r->b);
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_REM_INV_REQ_ERR);
	need_wc(r->b.rcq, 5, IBV_WC_LOC_LEN_ERR);
	done(r, srq);
}

/* The QP in error leaves what it has not taken, and says when it takes no more. */
static void last_wqe(const struct row *row)
{
	struct ibv_async_event e;
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);

	(void)row;
	srq_recv(srq, 1, &r->b);
	srq_recv(srq, 2, &r->b);
	to_state(r->b.qp, IBV_QPS_ERR);
	e = async_event(r->ctx);
	NEED_EQ(e.event_type, IBV_EVENT_QP_LAST_WQE_REACHED);
	NEED(e.element.qp == r->b.qp);
	need_quiet(r->b.rcq);
	need_no_event(r->ctx);
	done(r, srq);
}

/* Two QPs, one queue: each takes what the other left, and RESET gives nothing back to the program. */
static void two_qps(const struct row *row)
{
	struct spec s = usual();
	struct ibv_srq *srq;
	struct rig *r = srq_rig(&srq, ENTRIES);
	struct ibv_qp_init_attr init = {
		.send_cq = r->b.scq, .recv_cq = r->b.rcq, .srq = srq, .qp_type = IBV_QPT_RC, .cap = s.cap};
	struct ibv_qp *to = ibv_create_qp(r->b.pd, &init), *from = make_qp(r->a.pd, r->a.scq, r->a.rcq, &s);
	struct work w = work(r, IBV_WR_SEND, 9, 0, 0, MSG);
	struct ibv_wc wc;

	(void)row;
	NEED(to);
	connect_qp(r, &s, from, to->qp_num, IBV_QPS_RTS);
	connect_qp(r, &s, to, from->qp_num, IBV_QPS_RTS);
	for (uint64_t i = 0; i < 3; i++)
		srq_recv(srq, i, &r->b);
	send_one(r, 7);
	need_wc(r->b.rcq, 0, IBV_WC_SUCCESS);
	to_state(r->b.qp, IBV_QPS_RESET);
	post(from, &w);
	need_wc(r->a.scq, 9, IBV_WC_SUCCESS);
	wc = need_wc(r->b.rcq, 1, IBV_WC_SUCCESS);
	NEED_EQ(wc.qp_num, to->qp_num);
	NEED_EQ(ibv_destroy_qp(from), 0);
	NEED_EQ(ibv_destroy_qp(to), 0);
	done(r, srq);
}

static void extended(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_srq_init_attr_ex a = {.attr = {.max_wr = 4, .max_sge = 1},
					 .comp_mask = IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_TYPE,
					 .srq_type = (enum ibv_srq_type)row->a,
					 .pd = r->b.pd};
	struct ibv_srq *srq;

	if (row->b) {
		NEED_NULL(ibv_create_srq_ex(r->ctx, &a), (int)row->b);
		return;
	}
	srq = ibv_create_srq_ex(r->ctx, &a);
	NEED(srq);
	NEED_EQ(ibv_destroy_srq(srq), 0);
}

static void *acks_later(void *arg)
{
	sleep_ms(100);
	ibv_ack_async_event(arg);
	return NULL;
}

static void destroy_waits(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_srq_init_attr attr = {.attr = {.max_wr = 4, .max_sge = 1}};
	struct ibv_srq_attr a = {.srq_limit = 1};
	struct ibv_async_event e;
	struct ibv_srq *srq = ibv_create_srq(r->b.pd, &attr);
	uint64_t start;
	pthread_t t;

	(void)row;
	NEED(srq);
	NEED_EQ(ibv_modify_srq(srq, &a, IBV_SRQ_LIMIT), 0); /* none is there */
	NEED(readable(r->ctx->async_fd, PATIENCE_MS));
	NEED_EQ(ibv_get_async_event(r->ctx, &e), 0);
	NEED_EQ(e.event_type, IBV_EVENT_SRQ_LIMIT_REACHED);
	NEED_EQ(pthread_create(&t, NULL, acks_later, &e), 0);
	start = now_ms();
	NEED_EQ(ibv_destroy_srq(srq), 0);
	NEED(now_ms() - start >= 50);
	NEED_EQ(pthread_join(t, NULL), 0);
}

static void caps(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	NEED(r->dev.max_srq > 0 && r->dev.max_srq_wr > 0 && r->dev.max_srq_sge > 0);
}

/* clang-format off */
static const struct row rows[] = {
	{"the device has them, and says how many", "11.2.1.2", caps},
	{"receives are taken in order, again and again", "10.2.9.2", receives},
	{"two QPs take from one, and one's RESET leaves the rest", "10.2.9.2", two_qps},
	{"created without entries: EINVAL", "ibv_create_srq(3)", limits, .a = 0, .b = 1},
	{"created with more entries than max_srq_wr: EINVAL", "ibv_create_srq(3)", limits, .a = -1, .b = 1},
	{"created with more SGEs than max_srq_sge: EINVAL", "ibv_create_srq(3)", limits, .a = 4, .b = -1},
	{"a limit above max_wr: EINVAL", "11.2.3.3", limit_too_high},
	{"query: what it has, and its limit", "11.2.3.2", query},
	{"SRQ_LIMIT_REACHED: fewer than the limit, once", "10.2.9.1, 11.6.3.1", limit_event},
	{"resizing, or a refusal", "11.2.3.3", resize},
	{"as many as max_wr may be outstanding, then ENOMEM", "ibv_post_srq_recv(3)", full},
	{"posting more SGEs than max_sge: EINVAL", "ibv_post_srq_recv(3)", too_many_sges},
	{"posting a receive to its QP: EINVAL", "ibv_post_recv(3)", post_to_the_qp},
	{"destroyed while a QP uses it: EBUSY", "ibv_destroy_srq(3)", in_use},
	{"none posted: the sender's retries end", "9.7.5.2.8", not_ready},
	{"a message longer than its receive", "9.9.3", too_long},
	{"a QP in error: LAST_WQE_REACHED, and no flush of what it has not taken", "11.6.3.1", last_wqe},
	{"ibv_create_srq_ex, basic", "ibv_create_srq_ex(3)", extended, .a = IBV_SRQT_BASIC},
	{"ibv_create_srq_ex, tag matching: EOPNOTSUPP", "ibv_create_srq_ex(3)", extended, .a = IBV_SRQT_TM, .b = EOPNOTSUPP},
	{"destroying waits until its events are acknowledged", "ibv_get_async_event(3)", destroy_waits},
};
/* clang-format on */

const struct section section_srq = {"srq", "shared receive queues", rows, COUNT(rows)};
