/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section uc: unreliable connections. Nobody acknowledges and nobody refuses; a message comes whole or not at all.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <endian.h>

#include "sections.h"

static struct rig *uc(void)
{
	struct spec s = usual();

	s.type = IBV_QPT_UC;
	s.two_cqs = true;
	s.cap.max_inline_data = 100;
	return rig_make(&s);
}

/* One message of `len` bytes that arrives, with a mark behind it. */
static void arrives(struct rig *r, int op, size_t len, unsigned flags, unsigned seed)
{
	struct work w = work(r, op, 1, 1000, 2000, len);
	uint64_t end = now_ms() + PATIENCE_MS;
	struct ibv_wc wc;

	memset(r->b.buf, UNTOUCHED, r->b.size);
	fill(r->a.buf + 1000, len, seed);
	w.wr.imm_data = htobe32(seed);
	w.wr.send_flags |= flags;
	if (takes_receive(op))
		post_recv(&r->b, 2, 2000, is_write(op) ? 0 : len + 50);
	post(r->a.qp, &w);
	if (flags & IBV_SEND_INLINE)
		memset(r->a.buf + 1000, 0, len);
	wc = need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED_EQ(wc.opcode, is_write(op) ? IBV_WC_RDMA_WRITE : IBV_WC_SEND);
	if (takes_receive(op)) {
		wc = need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
		NEED_EQ(wc.byte_len, len);
		NEED_EQ(wc.opcode, is_write(op) ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV);
		NEED_EQ(wc.wc_flags, op == IBV_WR_SEND ? 0 : IBV_WC_WITH_IMM);
		NEED(op == IBV_WR_SEND || be32toh(wc.imm_data) == seed);
	}
	/* nobody tells when a WRITE without an immediate is there */
	while (op == IBV_WR_RDMA_WRITE && !filled(r->b.buf + 2000, len, seed) && now_ms() < end)
		sleep_ms(1);
	NEED(filled(r->b.buf + 2000, len, seed));
	NEED(untouched(r->b.buf, 2000) && untouched(r->b.buf + 2000 + len, GUARD));
}

static void message(const struct row *row)
{
	arrives(uc(), row->op, (size_t)row->a, (unsigned)row->b, 7);
}

/* As any operation that it does not have: refused when posted, or when its turn comes. */
static void not_there(const struct row *row)
{
	struct rig *r = uc();
	bool atomic = row->op == IBV_WR_ATOMIC_FETCH_AND_ADD;
	struct work w = atomic ? atomic_work(r, row->op, 1, 0, 0, 1, 0) : work(r, row->op, 1, 0, 0, 8);
	int err = try_post(r->a.qp, &w);

	if (err) {
		NEED(err == EINVAL || err == EOPNOTSUPP);
		return;
	}
	need_wc(r->a.scq, 1, IBV_WC_LOC_QP_OP_ERR);
	NEED(untouched(r->b.buf, 64));
}

/* Without a receive it is dropped; the next one arrives. */
static void no_receive(const struct row *row)
{
	struct rig *r = uc();
	struct work w = work(r, row->op, 9, 0, 0, 3000);

	post(r->a.qp, &w);
	need_wc(r->a.scq, 9, IBV_WC_SUCCESS);
	need_quiet(r->b.rcq);
	arrives(r, row->op, 3000, 0, 5);
	NEED_EQ(state_of(r->b.qp), IBV_QPS_RTS);
}

/* Longer than its receive: dropped, and the receive is there for the next one. */
static void too_long(const struct row *row)
{
	struct rig *r = uc();
	struct work w = work(r, IBV_WR_SEND, 1, 0, 0, 3000), fits = work(r, IBV_WR_SEND, 2, 4000, 0, 1000);

	(void)row;
	fill(r->a.buf + 4000, 1000, 3);
	post_recv(&r->b, 7, 100, 1000);
	post(r->a.qp, &w);
	post(r->a.qp, &fits);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
	NEED_EQ(need_wc(r->b.rcq, 7, IBV_WC_SUCCESS).byte_len, 1000);
	NEED(filled(r->b.buf + 100, 1000, 3) && untouched(r->b.buf + 1100, 3000));
	NEED_EQ(state_of(r->b.qp), IBV_QPS_RTS);
}

/* The peer's mistake is nobody's error here. */
static void without_right(const struct row *row)
{
	struct rig *r = uc();
	struct work w = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, 3000);

	(void)row;
	w.wr.wr.rdma.rkey ^= 1;
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	need_no_event(r->ctx);
	NEED(untouched(r->b.buf, 3000));
	NEED_EQ(state_of(r->b.qp), IBV_QPS_RTS);
	arrives(r, IBV_WR_RDMA_WRITE, 3000, 0, 6);
}

/* A send that fails stops the send queue alone, and the application starts it again. */
static void send_queue_error(const struct row *row)
{
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_RTS, .cur_qp_state = IBV_QPS_SQE};
	struct rig *r = uc();
	struct work w = work(r, IBV_WR_SEND, 1, 0, 0, 100), behind = work(r, IBV_WR_SEND, 2, 0, 0, 100);

	(void)row;
	w.sge[0].lkey ^= 1;
	post(r->a.qp, &w);
	post(r->a.qp, &behind);
	need_wc(r->a.scq, 1, IBV_WC_LOC_PROT_ERR);
	need_wc(r->a.scq, 2, IBV_WC_WR_FLUSH_ERR);
	NEED_EQ(state_of(r->a.qp), IBV_QPS_SQE);
	post(r->a.qp, &behind);
	need_wc(r->a.scq, 2, IBV_WC_WR_FLUSH_ERR);
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE | IBV_QP_CUR_STATE), 0);
	arrives(r, IBV_WR_SEND, 100, 0, 8);
}

/* Attributes of reliable connections are none here. */
static void attributes(const struct row *row)
{
	struct spec s = usual();
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr a;
	struct rig *r;

	(void)row;
	s.type = IBV_QPT_UC;
	s.state = IBV_QPS_INIT;
	r = rig_make(&s);
	a = attr_of(r, &s, r->b.qp->qp_num);
	a.qp_state = IBV_QPS_RTR;
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, RTR_MASK), EINVAL);
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN),
		EINVAL);
	connect_qp(r, &s, r->a.qp, r->b.qp->qp_num, IBV_QPS_RTR);
	a.qp_state = IBV_QPS_RTS;
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, RTS_MASK), EINVAL);
	connect_qp(r, &s, r->a.qp, r->b.qp->qp_num, IBV_QPS_RTS);
	NEED_EQ(ibv_query_qp(r->a.qp, &a, IBV_QP_STATE, &init), 0);
	NEED_EQ(init.qp_type, IBV_QPT_UC);
	NEED_EQ(a.dest_qp_num, r->b.qp->qp_num);
}

static const struct row rows[] = {
	{"SEND of 0 bytes", "9.8", message, IBV_WR_SEND, 0},
	{"SEND of 1 byte, inline", "9.8", message, IBV_WR_SEND, 1, IBV_SEND_INLINE},
	{"SEND of 5000 bytes", "9.8", message, IBV_WR_SEND, 5000},
	{"SEND of 40000 bytes, with immediate", "9.8", message, IBV_WR_SEND_WITH_IMM, 40000},
	{"WRITE of 100 bytes, inline", "9.8", message, IBV_WR_RDMA_WRITE, 100, IBV_SEND_INLINE},
	{"WRITE of 40000 bytes", "9.8", message, IBV_WR_RDMA_WRITE, 40000},
	{"WRITE of 5000 bytes, with immediate", "9.8", message, IBV_WR_RDMA_WRITE_WITH_IMM, 5000},
	{"READ", "9.8", not_there, IBV_WR_RDMA_READ},
	{"fetch-and-add", "9.8", not_there, IBV_WR_ATOMIC_FETCH_AND_ADD},
	{"SEND without a receive", "9.8.2", no_receive, IBV_WR_SEND},
	{"WRITE with immediate, without a receive", "9.8.2", no_receive, IBV_WR_RDMA_WRITE_WITH_IMM},
	{"SEND longer than its receive", "9.9.3", too_long},
	{"WRITE without the right to", "9.9.3", without_right},
	{"a send that fails", "10.3.1", send_queue_error},
	{"attributes", "ibv_modify_qp(3)", attributes},
};

const struct section section_uc = {"uc", "unreliable connections", rows, COUNT(rows)};
