/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section order: what is done before what, and when data is visible.
 *
 * Room: tests. May use: verbs and libc.
 */
#include "sections.h"

/* Spins until the byte has the value. */
static void await_byte(const uint8_t *at, uint8_t value)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	/* acquire: what was written before that byte is looked at afterwards */
	while (__atomic_load_n(at, __ATOMIC_ACQUIRE) != value)
		NEED(now_ms() < end);
}

/* Programs wait for a WRITE by looking at its last byte. */
static void last_byte(const struct row *row)
{
	const size_t len = (size_t)row->a;
	struct spec s = usual();
	struct rig *r;

	s.size = len;
	r = rig_make(&s);
	for (unsigned i = 1; i <= 30; i++) {
		struct work w = work(r, IBV_WR_RDMA_WRITE, i, 0, 0, len);

		fill(r->a.buf, len - 1, i);
		r->a.buf[len - 1] = (uint8_t)i;
		post(r->a.qp, &w);
		await_byte(r->b.buf + len - 1, (uint8_t)i);
		NEED(filled(r->b.buf, len - 1, i));
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	}
}

/* Data first, then a flag by a second WRITE. */
static void flag_after_data(const struct row *row)
{
	const size_t len = 40000;
	struct rig *r = rig();

	(void)row;
	for (unsigned i = 1; i <= 50; i++) {
		struct work data = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, len);
		struct work flag = work(r, IBV_WR_RDMA_WRITE, 2, 50000, 50000, 1);

		fill(r->a.buf, len, i);
		r->a.buf[50000] = (uint8_t)i;
		post(r->a.qp, &data);
		post(r->a.qp, &flag);
		await_byte(r->b.buf + 50000, (uint8_t)i);
		NEED(filled(r->b.buf, len, i));
		need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
		need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
	}
}

/* The receive of a SEND tells that the WRITEs before it are in memory. */
static void send_after_write(const struct row *row)
{
	const size_t len = 30000;
	struct rig *r = rig();

	(void)row;
	for (unsigned i = 1; i <= 50; i++) {
		struct work data = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, len);
		struct work notice = work(r, IBV_WR_SEND, 2, 0, 0, 0);

		data.wr.send_flags = 0;
		fill(r->a.buf, len, i);
		post_recv(&r->b, 3, 60000, 8);
		post(r->a.qp, &data);
		post(r->a.qp, &notice);
		need_wc(r->b.rcq, 3, IBV_WC_SUCCESS);
		NEED(filled(r->b.buf, len, i));
		need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
	}
}

/* A READ sees what the WRITEs before it in the queue wrote. */
static void read_after_write(const struct row *row)
{
	const size_t len = 20000;
	struct rig *r = rig();

	(void)row;
	for (unsigned i = 1; i <= 50; i++) {
		struct work w = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, len),
			    rd = work(r, IBV_WR_RDMA_READ, 2, 32768, 0, len);

		fill(r->a.buf, len, i);
		post(r->a.qp, &w);
		post(r->a.qp, &rd);
		need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
		need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
		NEED(filled(r->a.buf + 32768, len, i));
	}
}

static void receives_in_order(const struct row *row)
{
	static const int ops[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_SEND_WITH_IMM};
	struct rig *r = rig();

	(void)row;
	for (uint64_t i = 0; i < 60; i++)
		post_recv(&r->b, i, i * 64, 64);
	for (uint64_t i = 0; i < 60; i++) {
		struct work w = work(r, ops[i % COUNT(ops)], i, 0, 32768, i);

		post(r->a.qp, &w);
	}
	for (uint64_t i = 0; i < 60; i++) {
		NEED_EQ(need_wc(r->b.rcq, i, IBV_WC_SUCCESS).byte_len, i);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	}
}

/* Mixed operations complete in the order in which they were posted. */
static void mixed_in_order(const struct row *row)
{
	static const int ops[] = {IBV_WR_RDMA_READ,  IBV_WR_RDMA_WRITE, IBV_WR_ATOMIC_FETCH_AND_ADD,
				  IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ,	IBV_WR_SEND};
	struct rig *r = rig();

	(void)row;
	for (int round = 0; round < 20; round++) {
		for (uint64_t i = 0; i < 60; i++) {
			int op = ops[i % COUNT(ops)];
			struct work w = op == IBV_WR_ATOMIC_FETCH_AND_ADD ? atomic_work(r, op, i, 0, 0, 1, 0)
									  : work(r, op, i, 0, 0, i * 100);

			if (op == IBV_WR_SEND)
				post_recv(&r->b, i, 0, 8192);
			post(r->a.qp, &w);
		}
		for (uint64_t i = 0; i < 60; i++) {
			need_wc(r->a.scq, i, IBV_WC_SUCCESS);
			if (ops[i % COUNT(ops)] == IBV_WR_SEND)
				need_wc(r->b.rcq, i, IBV_WC_SUCCESS);
		}
	}
}

/* A fenced request sends what the READ before it fetched. */
static void fence(const struct row *row)
{
	const size_t len = 30000;
	struct rig *r = rig();

	for (unsigned i = 1; i <= 50; i++) {
		struct work rd = work(r, IBV_WR_RDMA_READ, 1, 0, 0, len),
			    w = work(r, row->op, 2, 0, 32000, len);

		fill(r->b.buf, len, i);
		w.wr.send_flags |= IBV_SEND_FENCE;
		if (row->op == IBV_WR_SEND)
			post_recv(&r->b, 3, 32000, len);
		post(r->a.qp, &rd);
		post(r->a.qp, &w);
		need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
		need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
		if (row->op == IBV_WR_SEND)
			need_wc(r->b.rcq, 3, IBV_WC_SUCCESS);
		NEED(filled(r->b.buf + 32000, len, i));
	}
}

static void fence_after_atomic(const struct row *row)
{
	struct rig *r = rig();
	volatile uint64_t *there = (volatile uint64_t *)r->b.buf;

	(void)row;
	there[0] = 0;
	for (uint64_t i = 1; i <= 100; i++) {
		struct work add = atomic_work(r, IBV_WR_ATOMIC_FETCH_AND_ADD, 1, 0, 0, 1, 0);
		struct work w = work(r, IBV_WR_RDMA_WRITE, 2, 0, 8, 8);

		w.wr.send_flags |= IBV_SEND_FENCE;
		post(r->a.qp, &add);
		post(r->a.qp, &w);
		need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
		need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
		NEED_EQ(there[1], i - 1);
	}
}

/* More READs than may be under way: the rest waits, nothing fails. */
static void reads_beyond_depth(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	s.rd_atomic = s.dest_rd_atomic = (uint8_t)row->a;
	r = rig_make(&s);
	fill(r->b.buf, 60 * 1000, 3);
	for (uint64_t i = 0; i < 60; i++) {
		struct work w = work(r, IBV_WR_RDMA_READ, i, i * 1000, i * 1000, 1000);

		post(r->a.qp, &w);
	}
	for (uint64_t i = 0; i < 60; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	NEED(filled(r->a.buf, 60 * 1000, 3));
}

/* While READs wait for their turn, later SENDs do too, and come through. */
static void behind_reads(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.rd_atomic = s.dest_rd_atomic = 1;
	r = rig_make(&s);
	post_recv(&r->b, 1, 0, 64);
	post_many(r, IBV_WR_RDMA_READ, 0, 20, 3000, IBV_SEND_SIGNALED);
	post_many(r, IBV_WR_SEND, 20, 1, 8, IBV_SEND_SIGNALED);
	for (uint64_t i = 0; i <= 20; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	need_wc(r->b.rcq, 1, IBV_WC_SUCCESS);
}

/* Both directions at once: neither stands in the other's way. */
static void both_ways(const struct row *row)
{
	struct rig *r = rig();
	uint64_t done[2] = {0}, end = now_ms() + PATIENCE_MS;
	struct ibv_wc wc;

	(void)row;
	for (uint64_t i = 0; i < 50; i++) {
		struct work there = work(r, IBV_WR_RDMA_WRITE, i, 0, 0, 8000), back = there;

		back.sge[0] = (struct ibv_sge){
			.addr = (uintptr_t)r->b.buf + 16384, .length = 8000, .lkey = r->b.mr->lkey};
		back.wr.wr.rdma.remote_addr = (uintptr_t)r->a.buf + 16384;
		back.wr.wr.rdma.rkey = r->a.mr->rkey;
		post(r->a.qp, &there);
		post(r->b.qp, &back);
	}
	while (done[0] + done[1] < 100 && now_ms() < end)
		for (int k = 0; k < 2; k++)
			while (ibv_poll_cq(k ? r->b.scq : r->a.scq, 1, &wc) > 0) {
				NEED_EQ(wc.status, IBV_WC_SUCCESS);
				NEED_EQ(wc.wr_id, done[k]++);
			}
	NEED(done[0] == 50 && done[1] == 50);
}

/* A QP whose requests cannot go on holds no other back, whatever they share. */
static void neighbour(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;
	struct ibv_qp *a2, *b2;

	(void)row;
	s.cqe = 512;
	r = rig_make(&s);
	a2 = make_qp(r->a.pd, r->a.scq, r->a.scq, &s);
	b2 = make_qp(r->b.pd, r->b.scq, r->b.scq, &s);
	connect_qp(r, &s, b2, a2->qp_num, IBV_QPS_RTS);
	connect_qp(r, &s, a2, b2->qp_num, IBV_QPS_RTS);
	post_many(r, IBV_WR_SEND, 0, 64, 60000,
		  IBV_SEND_SIGNALED); /* without a receive, and its queue is full */
	for (uint64_t i = 1000; i < 1200; i++) {
		struct work w = work(r, IBV_WR_RDMA_WRITE, i, 0, 0, 20000);

		post(a2, &w);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	}
	NEED_EQ(ibv_destroy_qp(a2), 0);
	NEED_EQ(ibv_destroy_qp(b2), 0);
}

static void in_order_query(const struct row *row)
{
	struct rig *r = rig();
	int n = ibv_query_qp_data_in_order(r->a.qp, IBV_WR_RDMA_WRITE, 0);

	(void)row;
	NEED(n == 0 || n == 1);
}

static const struct row rows[] = {
	{"the last byte of a short WRITE", "9.5", last_byte, .a = 64},
	{"the last byte of a long WRITE", "9.5", last_byte, .a = 300001},
	{"a flag after data", "10.8.3.3", flag_after_data},
	{"a SEND after WRITEs", "10.8.3.3", send_after_write},
	{"a READ after a WRITE", "10.8.3.3", read_after_write},
	{"receives, in the order posted", "10.8.5", receives_in_order},
	{"all operations, in the order posted", "10.8.5", mixed_in_order},
	{"READ, then fenced SEND", "10.8.3.3", fence, IBV_WR_SEND},
	{"READ, then fenced WRITE", "10.8.3.3", fence, IBV_WR_RDMA_WRITE},
	{"FETCH_ADD, then fenced WRITE", "10.8.3.3", fence_after_atomic},
	{"READs, one at a time", "9.4.4", reads_beyond_depth, .a = 1},
	{"READs, four at a time", "9.4.4", reads_beyond_depth, .a = 4},
	{"READs, sixteen at a time", "9.4.4", reads_beyond_depth, .a = 16},
	{"SEND behind READs that wait", "9.4.4", behind_reads},
	{"both ways at once", "9.7", both_ways},
	{"a QP that stalls, and its neighbour", "10.2.4", neighbour},
	{"ibv_query_qp_data_in_order", "ibv_query_qp_data_in_order(3)", in_order_query},
};

const struct section section_order = {"order", "order and visibility", rows, COUNT(rows)};
