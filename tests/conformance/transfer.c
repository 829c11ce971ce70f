/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One message, with everything about it checked.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <endian.h>

#include "transfer.h"

enum { SEND_ID = 1001, RECV_ID = 2002 };

static unsigned seed; /* each message has bytes of its own */

int split(struct ibv_sge *sge, int n, bool zero_sges, const void *at, size_t len, uint32_t lkey)
{
	int parts = zero_sges ? (n + 1) / 2 : n;
	size_t off = 0;

	NEED(n >= 0 && n <= MANY_SGES);
	for (int i = 0; i < n; i++) {
		bool none = zero_sges && i % 2;
		int part = zero_sges ? i / 2 : i;
		/* ever more of what is left, all of it in the last */
		size_t size = none		  ? 0
			      : part == parts - 1 ? len - off
						  : (len - off) / (size_t)(parts - part + 1);

		sge[i] = (struct ibv_sge){
			.addr = (uintptr_t)at + off, .length = (uint32_t)size, .lkey = none ? 0 : lkey};
		off += size;
	}
	return n;
}

static uint8_t *landing(const struct rig *r, const struct transfer *t)
{
	return t->op == IBV_WR_RDMA_READ ? r->a.buf + t->from : r->b.buf + t->to;
}

static uint8_t *source(const struct rig *r, const struct transfer *t)
{
	return t->op == IBV_WR_RDMA_READ ? r->b.buf + t->to : r->a.buf + t->from;
}

static void receive(const struct rig *r, const struct transfer *t)
{
	struct ibv_sge sge[MANY_SGES];
	int n;

	if (!takes_receive(t->op))
		return;
	/* a WRITE takes a receive for its immediate alone, one of nothing will do */
	n = is_write(t->op) ? 0
			    : split(sge, t->to_sges, t->zero_sges, r->b.buf + t->to, t->len, r->b.mr->lkey);
	NEED_EQ(try_recv(r->b.qp, RECV_ID, sge, n), 0);
}

static void request(const struct rig *r, const struct transfer *t)
{
	struct work w = work(r, t->op, SEND_ID, t->from, t->to, t->len);

	w.wr.send_flags |= t->flags;
	w.wr.imm_data = htobe32(0xabcd0000 + seed);
	w.wr.num_sge = split(w.sge, t->from_sges, t->zero_sges, r->a.buf + t->from, t->len, r->a.mr->lkey);
	post(r->a.qp, &w);
	if (t->flags & IBV_SEND_INLINE) /* the buffer is free at once */
		memset(r->a.buf + t->from, 0x11, t->len);
}

static enum ibv_wc_opcode opcode_of(int op)
{
	switch (op) {
	case IBV_WR_RDMA_READ:
		return IBV_WC_RDMA_READ;
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		return IBV_WC_RDMA_WRITE;
	default:
		return IBV_WC_SEND;
	}
}

static void completions(const struct rig *r, const struct transfer *t)
{
	struct ibv_wc wc = need_wc(r->a.scq, SEND_ID, IBV_WC_SUCCESS);

	NEED_EQ(wc.opcode, opcode_of(t->op));
	NEED_EQ(wc.qp_num, r->a.qp->qp_num);
	if (t->op == IBV_WR_RDMA_READ)
		NEED_EQ(wc.byte_len, t->len);
	if (!takes_receive(t->op))
		return;
	wc = need_wc(r->b.rcq, RECV_ID, IBV_WC_SUCCESS);
	NEED_EQ(wc.opcode, is_write(t->op) ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV);
	NEED_EQ(wc.byte_len, t->len);
	NEED_EQ(wc.qp_num, r->b.qp->qp_num);
	NEED_EQ(wc.wc_flags, t->op == IBV_WR_SEND ? 0 : IBV_WC_WITH_IMM);
	if (t->op != IBV_WR_SEND)
		NEED_EQ(be32toh(wc.imm_data), 0xabcd0000 + seed);
}

void transfer(struct rig *r, const struct transfer *t)
{
	uint8_t *to = landing(r, t), *from = source(r, t);

	NEED(t->from >= GUARD && t->from + t->len + GUARD <= r->a.size);
	NEED(t->to >= GUARD && t->to + t->len + GUARD <= r->b.size);
	seed++;
	memset(to - GUARD, UNTOUCHED, t->len + 2 * GUARD);
	fill(from, t->len, seed);
	receive(r, t);
	request(r, t);
	completions(r, t);
	NEED(filled(to, t->len, seed));
	NEED(untouched(to - GUARD, GUARD) && untouched(to + t->len, GUARD));
	if (!(t->flags & IBV_SEND_INLINE))
		NEED(filled(from, t->len, seed));
}

bool access_works(struct rig *r, int op, uint64_t addr, uint32_t rkey, size_t len)
{
	struct work w = work(r, op, SEND_ID, 0, 0, len);
	struct spec s = usual();
	struct ibv_wc wc;

	w.wr.wr.rdma.remote_addr = addr;
	w.wr.wr.rdma.rkey = rkey;
	post(r->a.qp, &w);
	wc = completion(r->a.scq);
	if (wc.status == IBV_WC_SUCCESS)
		return true;
	NEED_EQ(wc.status, IBV_WC_REM_ACCESS_ERR);
	reconnect(r, &s);
	return false;
}
