/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section queue: creating queue pairs, and posting lists of work requests to them.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <stdlib.h>

#include "sections.h"

/* ---- creation ---- */

static void caps_kept(const struct row *row)
{
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC,
					.cap = {.max_send_wr = 7,
						.max_recv_wr = 9,
						.max_send_sge = 3,
						.max_recv_sge = 2,
						.max_inline_data = 33}},
				back;
	struct rig *r = rig();
	struct ibv_qp_attr a;
	struct ibv_qp *qp;

	(void)row;
	init.send_cq = init.recv_cq = r->a.scq;
	init.qp_context = r;
	qp = ibv_create_qp(r->a.pd, &init);
	NEED(qp && qp->qp_context == r && qp->pd == r->a.pd && qp->send_cq == r->a.scq &&
	     qp->state == IBV_QPS_RESET);
	NEED(qp->qp_num > 1 && qp->qp_num < 1 << 24 && qp->qp_type == IBV_QPT_RC);
	/* what was got is told, and is at least what was asked for */
	NEED(init.cap.max_send_wr >= 7 && init.cap.max_recv_wr >= 9 && init.cap.max_send_sge >= 3);
	NEED(init.cap.max_recv_sge >= 2 && init.cap.max_inline_data >= 33);
	NEED_EQ(ibv_query_qp(qp, &a, IBV_QP_CAP, &back), 0);
	NEED(!memcmp(&back.cap, &init.cap, sizeof(back.cap)) && !memcmp(&a.cap, &init.cap, sizeof(a.cap)));
	NEED(back.qp_context == r && back.send_cq == r->a.scq && back.recv_cq == r->a.scq && !back.srq);
	NEED_EQ(back.qp_type, IBV_QPT_RC);
	NEED_EQ(ibv_destroy_qp(qp), 0);
}

static void caps_refused(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_qp_init_attr usual_init = {
		.qp_type = IBV_QPT_RC,
		.send_cq = r->a.scq,
		.recv_cq = r->a.scq,
		.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
	struct ibv_qp_init_attr init;

	(void)row;
	init = usual_init;
	init.cap.max_send_wr = (uint32_t)r->dev.max_qp_wr + 1;
	NEED_NULL(ibv_create_qp(r->a.pd, &init), EINVAL);
	init = usual_init;
	init.cap.max_recv_wr = (uint32_t)r->dev.max_qp_wr + 1;
	NEED_NULL(ibv_create_qp(r->a.pd, &init), EINVAL);
	init = usual_init;
	init.cap.max_send_sge = (uint32_t)r->dev.max_sge + 1;
	NEED_NULL(ibv_create_qp(r->a.pd, &init), EINVAL);
	init = usual_init;
	init.cap.max_recv_sge = (uint32_t)r->dev.max_sge + 1;
	NEED_NULL(ibv_create_qp(r->a.pd, &init), EINVAL);
	init = usual_init;
	init.cap.max_inline_data = 1 << 20;
	NEED_NULL(ibv_create_qp(r->a.pd, &init), EINVAL);
}

static void one_sided_queues(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = rig();
	struct ibv_qp *qp;

	(void)row;
	s.cap = (struct ibv_qp_cap){.max_send_wr = 1, .max_send_sge = 1};
	qp = make_qp(r->a.pd, r->a.scq, r->a.scq, &s);
	NEED_EQ(ibv_destroy_qp(qp), 0);
	s.cap = (struct ibv_qp_cap){.max_recv_wr = 1, .max_recv_sge = 1};
	qp = make_qp(r->a.pd, r->a.scq, r->a.scq, &s);
	NEED_EQ(ibv_destroy_qp(qp), 0);
}

static void other_context(const struct row *row)
{
	struct rig *r = rig(), *other = rig();
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC,
					.send_cq = other->a.scq,
					.recv_cq = other->a.scq,
					.cap = {.max_send_wr = 1, .max_send_sge = 1}};

	(void)row;
	NEED_NULL(ibv_create_qp(r->a.pd, &init), EINVAL);
}

static void numbers_differ(const struct row *row)
{
	enum { N = 200 };
	static struct ibv_qp *qp[N];
	struct spec s = usual();
	struct rig *r = rig();
	uint32_t last;

	(void)row;
	s.cap = (struct ibv_qp_cap){.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1};
	for (int i = 0; i < N; i++) {
		qp[i] = make_qp(r->a.pd, r->a.scq, r->a.scq, &s);
		for (int k = 0; k < i; k++)
			NEED(qp[k]->qp_num != qp[i]->qp_num);
	}
	for (int i = 0; i < N; i++)
		NEED_EQ(ibv_destroy_qp(qp[i]), 0);
	/* a number that was just given back is not given out at once: packets of the old QP may be under way */
	qp[0] = make_qp(r->a.pd, r->a.scq, r->a.scq, &s);
	last = qp[0]->qp_num;
	NEED_EQ(ibv_destroy_qp(qp[0]), 0);
	qp[0] = make_qp(r->a.pd, r->a.scq, r->a.scq, &s);
	NEED(qp[0]->qp_num != last);
	NEED_EQ(ibv_destroy_qp(qp[0]), 0);
}

/* ---- posting ---- */

static void list_of_requests(const struct row *row)
{
	enum { N = 10 };
	struct rig *r = rig();
	struct work w[N];
	struct ibv_send_wr *bad = NULL;

	(void)row;
	for (int i = 0; i < N; i++) {
		w[i] = work(r, IBV_WR_RDMA_WRITE, (uint64_t)i, (size_t)i * 8, (size_t)i * 8, 8);
		w[i].wr.sg_list = w[i].sge;
		if (i)
			w[i - 1].wr.next = &w[i].wr;
	}
	fill(r->a.buf, 8 * N, 1);
	NEED_EQ(ibv_post_send(r->a.qp, &w[0].wr, &bad), 0);
	for (uint64_t i = 0; i < N; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	NEED(filled(r->b.buf, 8 * N, 1) && untouched(r->b.buf + 8 * N, 64));
}

/* What is before the bad one is posted, what is behind it is not. */
static void bad_in_the_middle(const struct row *row)
{
	enum { N = 5, BAD = 3 };
	struct rig *r = rig();
	struct work w[N];
	struct ibv_send_wr *bad = NULL;
	int err;

	for (int i = 0; i < N; i++) {
		w[i] = work(r, IBV_WR_RDMA_WRITE, (uint64_t)i, 0, (size_t)i * 8, 8);
		w[i].wr.sg_list = w[i].sge;
		if (i)
			w[i - 1].wr.next = &w[i].wr;
	}
	if (row->a == 0)
		w[BAD].wr.num_sge = 1000;
	else if (row->a == 1)
		w[BAD].wr.opcode = 999;
	else
		w[BAD].wr.num_sge = -1;
	fill(r->a.buf, 8, 1);
	err = ibv_post_send(r->a.qp, &w[0].wr, &bad);
	NEED(err == EINVAL || err == ENOMEM || err == EOPNOTSUPP);
	NEED(bad == &w[BAD].wr);
	for (uint64_t i = 0; i < BAD; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	need_quiet(r->a.scq);
	NEED(untouched(r->b.buf + 8 * BAD, 64));
	post_many(r, IBV_WR_RDMA_WRITE, 100, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 100, IBV_WC_SUCCESS);
}

static void bad_receive(const struct row *row)
{
	enum { N = 5, BAD = 2 };
	struct rig *r = rig();
	struct ibv_sge sge = {.addr = (uintptr_t)r->b.buf, .length = 64, .lkey = r->b.mr->lkey};
	struct ibv_recv_wr wr[N] = {{0}}, *bad = NULL;
	struct work w = work(r, IBV_WR_SEND, 1, 0, 0, 8);
	int err;

	(void)row;
	for (int i = 0; i < N; i++)
		wr[i] = (struct ibv_recv_wr){.wr_id = (uint64_t)i,
					     .sg_list = &sge,
					     .num_sge = i == BAD ? 1000 : 1,
					     .next = i + 1 < N ? &wr[i + 1] : NULL};
	err = ibv_post_recv(r->b.qp, wr, &bad);
	NEED(err == EINVAL || err == ENOMEM);
	NEED(bad == &wr[BAD]);
	for (uint64_t i = 0; i < BAD; i++) {
		post(r->a.qp, &w);
		need_wc(r->b.rcq, i, IBV_WC_SUCCESS);
		need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	}
	to_state(r->b.qp, IBV_QPS_ERR); /* no receive is left to flush */
	need_quiet(r->b.rcq);
}

/* Exactly max_send_wr fit; then ENOMEM, until completions are polled. */
static void full(const struct row *row)
{
	struct spec s = usual();
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr a;
	struct rig *r;
	struct work w;

	(void)row;
	s.state = IBV_QPS_RTR;
	r = rig_make(&s);
	NEED_EQ(ibv_query_qp(r->a.qp, &a, IBV_QP_CAP, &init), 0);
	connect_qp(r, &s, r->a.qp, r->b.qp->qp_num, IBV_QPS_RTS);
	if (init.cap.max_send_wr > 200)
		row_skipped("the device gave %u requests where 64 were asked for", init.cap.max_send_wr);
	/* without a receive they stay in the queue */
	post_many(r, IBV_WR_SEND, 0, init.cap.max_send_wr, 8, IBV_SEND_SIGNALED);
	w = work(r, IBV_WR_SEND, 999, 0, 0, 8);
	NEED_EQ(try_post(r->a.qp, &w), ENOMEM);
	post_recv(&r->b, 1, 0, 64);
	need_wc(r->a.scq, 0, IBV_WC_SUCCESS);
	post(r->a.qp, &w);
	NEED_EQ(try_post(r->a.qp, &w), ENOMEM);
	for (uint64_t i = 1; i <= init.cap.max_send_wr; i++) {
		need_wc(r->b.rcq, 1, IBV_WC_SUCCESS);
		post_recv(&r->b, 1, 0, 64);
		need_wc(r->a.scq, i < init.cap.max_send_wr ? i : 999, IBV_WC_SUCCESS);
	}
}

static void receives_full(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_sge sge = {.addr = (uintptr_t)r->b.buf, .length = 64, .lkey = r->b.mr->lkey};
	struct work w = work(r, IBV_WR_SEND, 1, 0, 0, 8);
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr a;

	(void)row;
	NEED_EQ(ibv_query_qp(r->b.qp, &a, IBV_QP_CAP, &init), 0);
	for (uint64_t i = 0; i < init.cap.max_recv_wr; i++)
		NEED_EQ(try_recv(r->b.qp, i, &sge, 1), 0);
	NEED_EQ(try_recv(r->b.qp, 999, &sge, 1), ENOMEM);
	post(r->a.qp, &w);
	need_wc(r->b.rcq, 0, IBV_WC_SUCCESS);
	NEED_EQ(try_recv(r->b.qp, 999, &sge, 1), 0);
	NEED_EQ(try_recv(r->b.qp, 999, &sge, 1), ENOMEM);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

/* As many as the device has in one queue, posted as one list. */
static void longest_queue(const struct row *row)
{
	struct spec s = usual();
	struct ibv_send_wr *wr, *bad = NULL;
	uint32_t n = 65536;
	struct rig *r = rig();
	struct work one;

	(void)row;
	if ((uint32_t)r->dev.max_qp_wr < n)
		n = (uint32_t)r->dev.max_qp_wr;
	s.cap.max_send_wr = n;
	s.cqe = (int)n;
	r = rig_make(&s);
	one = work(r, IBV_WR_RDMA_WRITE, 0, 0, 0, 8);
	one.wr.sg_list = one.sge;
	wr = calloc(n, sizeof(*wr));
	NEED(wr);
	for (uint32_t i = 0; i < n; i++) {
		wr[i] = one.wr;
		wr[i].wr_id = i;
		wr[i].next = i + 1 < n ? &wr[i + 1] : NULL;
	}
	NEED_EQ(ibv_post_send(r->a.qp, wr, &bad), 0);
	for (uint64_t i = 0; i < n; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	row_note("%u requests", n);
	free(wr);
}

/* ---- signaled or not ---- */

static void unsignaled(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 1, 30, 8, 0);
	need_quiet(r->a.scq);
	post_many(r, IBV_WR_RDMA_WRITE, 100, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 100, IBV_WC_SUCCESS);
	need_quiet(r->a.scq);
}

/* A signaled completion gives the places of the unsignaled ones before it back. */
static void mixed(const struct row *row)
{
	struct rig *r = rig();

	for (uint64_t i = 0; i < 3000; i++) {
		bool signaled = i % (uint64_t)row->a == (uint64_t)row->a - 1;

		post_many(r, i % 2 ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ, i, 1, 8,
			  signaled ? IBV_SEND_SIGNALED : 0);
		if (signaled)
			need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	}
	need_quiet(r->a.scq);
}

static void all_signaled(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.sig_all = true;
	r = rig_make(&s);
	post_many(r, IBV_WR_RDMA_WRITE, 0, 20, 8, 0);
	for (uint64_t i = 0; i < 20; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
}

static void unsignaled_error(const struct row *row)
{
	struct rig *r = rig();
	struct work w = work(r, IBV_WR_RDMA_WRITE, 5, 0, 0, 8);

	(void)row;
	w.wr.send_flags = 0;
	w.wr.wr.rdma.rkey ^= 0x5555;
	post(r->a.qp, &w);
	post_many(r, IBV_WR_RDMA_WRITE, 6, 3, 8, 0);
	need_wc(r->a.scq, 5, IBV_WC_REM_ACCESS_ERR);
	for (uint64_t i = 6; i < 9; i++)
		need_wc(r->a.scq, i, IBV_WC_WR_FLUSH_ERR);
}

static void to_itself(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.loop = true;
	r = rig_make(&s);
	fill(r->a.buf, 5000, 2);
	for (int op = IBV_WR_RDMA_WRITE; op <= IBV_WR_RDMA_READ; op++) {
		struct work w = work(r, op, 1, 0, 8192, 5000);

		if (takes_receive(op))
			post_recv(&r->a, 2, 16384, 5000);
		post(r->a.qp, &w);
		for (int i = 0; i < 1 + takes_receive(op); i++)
			NEED_EQ(completion(r->a.scq).status, IBV_WC_SUCCESS);
	}
	NEED(filled(r->a.buf + 8192, 5000, 2) && filled(r->a.buf + 16384, 5000, 2));
}

static void other_types(const struct row *row)
{
	static const enum ibv_qp_type types[] = {IBV_QPT_UC, IBV_QPT_UD, IBV_QPT_RAW_PACKET};
	struct rig *r = rig();

	(void)row;
	for (size_t i = 0; i < COUNT(types); i++) {
		struct ibv_qp_init_attr init = {
			.qp_type = types[i],
			.send_cq = r->a.scq,
			.recv_cq = r->a.scq,
			.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
		struct ibv_qp *qp = ibv_create_qp(r->a.pd, &init);

		NEED(qp || errno == EOPNOTSUPP || errno == EPERM || errno == EINVAL);
		if (qp)
			NEED_EQ(ibv_destroy_qp(qp), 0);
	}
}

static const struct row rows[] = {
	{"capabilities are kept and told", "ibv_create_qp(3)", caps_kept},
	{"capabilities beyond the device's", "ibv_create_qp(3)", caps_refused},
	{"queues of length 0", "ibv_create_qp(3)", one_sided_queues},
	{"objects of another context", "ibv_create_qp(3)", other_context},
	{"numbers differ, and rest before reuse", "10.2.4.4", numbers_differ},
	{"other types, or a clear refusal", "ibv_create_qp(3)", other_types},
	{"a list of requests", "ibv_post_send(3)", list_of_requests},
	{"bad_wr in the middle: SGEs", "ibv_post_send(3)", bad_in_the_middle, .a = 0},
	{"bad_wr in the middle: opcode", "ibv_post_send(3)", bad_in_the_middle, .a = 1},
	{"bad_wr in the middle: SGEs below 0", "ibv_post_send(3)", bad_in_the_middle, .a = 2},
	{"bad_wr in the middle: receives", "ibv_post_recv(3)", bad_receive},
	{"a full send queue", "ibv_post_send(3)", full},
	{"a full receive queue", "ibv_post_recv(3)", receives_full},
	{"65536 requests in one list", "10.8.2", longest_queue, .seconds = 60},
	{"unsignaled", "10.8.6", unsignaled},
	{"every fourth signaled", "10.8.6", mixed, .a = 4},
	{"every sixtieth signaled", "10.8.6", mixed, .a = 60},
	{"sq_sig_all", "10.8.6", all_signaled},
	{"an unsignaled request that fails", "10.8.6", unsignaled_error},
	{"a QP connected to itself", "10.2.4", to_itself},
};

const struct section section_queue = {"queue", "queue pairs and posting", rows, COUNT(rows)};
