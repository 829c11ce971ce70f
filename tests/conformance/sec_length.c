/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section length: every operation with every length that could make a difference, over every path MTU.
 *
 * Room: tests. May use: verbs and libc.
 */
#include "sections.h"
#include "transfer.h"

enum { MTU = 1024, MIB = 1 << 20 };

static void one_length(const struct row *row)
{
	struct spec s = usual();
	struct transfer t = {
		.op = row->op, .len = (size_t)row->a, .from = 192, .to = 320, .from_sges = 1, .to_sges = 1};
	struct rig *r;

	s.size = t.len + 4096;
	r = rig_make(&s);
	for (int i = 0; i < 3; i++)
		transfer(r, &t);
	need_quiet(r->a.scq);
	need_quiet(r->b.rcq);
}

/* No SGE at all: a message of no bytes, which needs no memory and no valid key. */
static void no_sge(const struct row *row)
{
	struct rig *r = rig();
	struct work w = work(r, row->op, 1, 0, 0, 0);

	w.wr.num_sge = 0;
	if (row->op != IBV_WR_SEND && row->op != IBV_WR_SEND_WITH_IMM) {
		w.wr.wr.rdma.remote_addr = 0;
		w.wr.wr.rdma.rkey = 0;
	}
	if (takes_receive(row->op))
		NEED_EQ(try_recv(r->b.qp, 2, NULL, 0), 0);
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	if (takes_receive(row->op))
		NEED_EQ(need_wc(r->b.rcq, 2, IBV_WC_SUCCESS).byte_len, 0);
}

/* Lengths around every multiple of the packet, each operation, one path MTU. */
static void one_mtu(const struct row *row)
{
	static const int ops[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_SEND_WITH_IMM};
	const size_t mtu = 128u << row->a;
	struct spec s = usual();
	struct rig *r;

	s.mtu = (enum ibv_mtu)row->a;
	s.size = 4 * mtu + 4096;
	r = rig_make(&s);
	if (s.mtu > r->port.active_mtu)
		row_skipped("the port's MTU is smaller");
	for (size_t k = 1; k <= 3; k++)
		for (size_t len = k * mtu - 1; len <= k * mtu + 1; len++)
			for (size_t i = 0; i < COUNT(ops); i++) {
				struct transfer t = {.op = ops[i],
						     .len = len,
						     .from = 192,
						     .to = 320,
						     .from_sges = 1,
						     .to_sges = 1};

				transfer(r, &t);
			}
}

static void shorter_than_receive(const struct row *row)
{
	struct rig *r = rig();
	struct work w = work(r, IBV_WR_SEND, 1, 0, 0, 100);

	(void)row;
	fill(r->a.buf, 100, 5);
	post_recv(&r->b, 2, 64, 5000);
	post(r->a.qp, &w);
	NEED_EQ(need_wc(r->b.rcq, 2, IBV_WC_SUCCESS).byte_len, 100);
	NEED(filled(r->b.buf + 64, 100, 5));
	NEED(untouched(r->b.buf, 64) && untouched(r->b.buf + 164, 5000));
}

static void write_imm_leaves_receive(const struct row *row)
{
	struct rig *r = rig();
	struct work w = work(r, IBV_WR_RDMA_WRITE_WITH_IMM, 1, 0, 8192, 100);

	(void)row;
	fill(r->a.buf, 100, 5);
	post_recv(&r->b, 2, 0, 4096);
	post(r->a.qp, &w);
	NEED_EQ(need_wc(r->b.rcq, 2, IBV_WC_SUCCESS).byte_len, 100);
	NEED(filled(r->b.buf + 8192, 100, 5));
	NEED(untouched(r->b.buf, 4096)); /* the receive gives the notice only */
}

#define LENGTHS(op, name, clause)                                                                            \
	{name " of 0 bytes", clause, one_length, op, 0}, {name " of no SGE", clause, no_sge, op},            \
		{name " of 1 byte", clause, one_length, op, 1},                                              \
		{name " of 777 bytes", clause, one_length, op, 777},                                         \
		{name " of MTU - 1", clause, one_length, op, MTU - 1},                                       \
		{name " of MTU", clause, one_length, op, MTU},                                               \
		{name " of MTU + 1", clause, one_length, op, MTU + 1},                                       \
		{name " of 1 MiB", clause, one_length, op, MIB},                                             \
	{                                                                                                    \
		name " of 1 MiB + 3", clause, one_length, op, MIB + 3                                        \
	}

static const struct row rows[] = {
	LENGTHS(IBV_WR_SEND, "SEND", "9.4.1"),
	LENGTHS(IBV_WR_SEND_WITH_IMM, "SEND_IMM", "9.4.1"),
	LENGTHS(IBV_WR_RDMA_WRITE, "WRITE", "9.4.3"),
	LENGTHS(IBV_WR_RDMA_WRITE_WITH_IMM, "WRITE_IMM", "9.4.3"),
	LENGTHS(IBV_WR_RDMA_READ, "READ", "9.4.4"),
	{"path MTU 256", "ibv_modify_qp(3)", one_mtu, .a = IBV_MTU_256},
	{"path MTU 512", "ibv_modify_qp(3)", one_mtu, .a = IBV_MTU_512},
	{"path MTU 1024", "ibv_modify_qp(3)", one_mtu, .a = IBV_MTU_1024},
	{"path MTU 2048", "ibv_modify_qp(3)", one_mtu, .a = IBV_MTU_2048},
	{"path MTU 4096", "ibv_modify_qp(3)", one_mtu, .a = IBV_MTU_4096},
	{"SEND shorter than the receive", "ibv_post_send(3)", shorter_than_receive},
	{"WRITE_IMM leaves the receive's memory alone", "9.4.3", write_imm_leaves_receive},
};

const struct section section_length = {"length", "operations by length", rows, COUNT(rows)};
