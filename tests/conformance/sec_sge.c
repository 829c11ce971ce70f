/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section sge: lists of SGEs on both sides, inline data, odd addresses.
 *
 * Room: tests. May use: verbs and libc.
 */
#include "sections.h"
#include "transfer.h"

enum { OFF = 256, ODD = 5000 };

static struct rig *rig_of(int sges, uint32_t inline_data)
{
	struct spec s = usual();
	struct rig *r;

	s.cap.max_send_sge = s.cap.max_recv_sge = (uint32_t)sges;
	s.cap.max_inline_data = inline_data;
	s.size = 32 * 1024;
	r = rig_make(&s);
	return r;
}

/* Every number of SGEs from 1 to row->a on both sides. */
static void lists(const struct row *row)
{
	static const int counts[] = {1, 2, 3, 5, 8, 16};
	int max = (int)row->a;
	struct rig *r = rig_of(max, 0);

	for (size_t i = 0; i < COUNT(counts); i++)
		for (size_t k = 0; k < COUNT(counts); k++) {
			struct transfer t = {.op = row->op,
					     .len = ODD,
					     .from = OFF,
					     .to = OFF,
					     .from_sges = counts[i],
					     .to_sges = counts[k],
					     .zero_sges = row->b};

			if (counts[i] <= max && counts[k] <= max)
				transfer(r, &t);
		}
}

/* As many SGEs as bytes, and more SGEs than bytes. */
static void tiny(const struct row *row)
{
	struct rig *r = rig_of(16, 0);

	for (size_t len = 0; len <= 17; len++) {
		struct transfer t = {
			.op = row->op, .len = len, .from = OFF, .to = OFF, .from_sges = 16, .to_sges = 16};

		transfer(r, &t);
	}
}

/* Parts of different regions in one list. */
static void two_regions(const struct row *row)
{
	struct rig *r = rig_of(2, 0);
	struct ibv_mr *second = need_mr(r->a.pd, r->a.buf + 8192, 4096, ALL_ACCESS);
	struct work w = work(r, row->op, 1, 100, 100, 1000);

	w.wr.num_sge = 2;
	w.sge[1] = (struct ibv_sge){.addr = (uintptr_t)r->a.buf + 8192, .length = 2000, .lkey = second->lkey};
	fill(row->op == IBV_WR_RDMA_READ ? r->b.buf + 100 : r->a.buf + 100, 3000, 4);
	fill(r->a.buf + 8192, 2000, 6);
	if (row->op == IBV_WR_SEND)
		post_recv(&r->b, 2, 100, 3000);
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	if (row->op == IBV_WR_RDMA_READ) {
		NEED(!memcmp(r->a.buf + 100, r->b.buf + 100, 1000));
		NEED(!memcmp(r->a.buf + 8192, r->b.buf + 1100, 2000));
	} else {
		if (row->op == IBV_WR_SEND)
			need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
		NEED(filled(r->b.buf + 100, 1000, 4) && filled(r->b.buf + 1100, 2000, 6));
	}
	NEED_EQ(ibv_dereg_mr(second), 0);
}

/* The same bytes gathered twice. */
static void same_twice(const struct row *row)
{
	struct rig *r = rig_of(2, 0);
	struct work w = work(r, row->op, 1, 0, 0, 1500);

	w.wr.num_sge = 2;
	w.sge[1] = w.sge[0];
	fill(r->a.buf, 1500, 4);
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED(filled(r->b.buf, 1500, 4) && filled(r->b.buf + 1500, 1500, 4) &&
	     untouched(r->b.buf + 3000, 100));
}

static void addresses(const struct row *row)
{
	struct rig *r = rig_of(1, 0);

	for (size_t from = 0; from < 8; from++)
		for (size_t to = 0; to < 8; to++)
			for (size_t len = 1; len < 12; len += 3) {
				struct transfer t = {.op = row->op,
						     .len = len,
						     .from = OFF + from,
						     .to = OFF + to,
						     .from_sges = 1,
						     .to_sges = 1};

				transfer(r, &t);
			}
}

/* Across the ends of pages on both sides. */
static void page_ends(const struct row *row)
{
	struct rig *r = rig_of(1, 0);

	for (size_t back = 1; back < 1100; back = back * 3 + 1) {
		struct transfer t = {.op = row->op,
				     .len = 2 * back + 1,
				     .from = 4096 - back,
				     .to = 8192 - back,
				     .from_sges = 1,
				     .to_sges = 1};

		transfer(r, &t);
	}
}

static uint32_t inline_of(const struct rig *r)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr a;

	NEED_EQ(ibv_query_qp(r->a.qp, &a, IBV_QP_CAP, &init), 0);
	return init.cap.max_inline_data;
}

static void inline_data(const struct row *row)
{
	struct rig *r = rig_of(4, 128);
	uint32_t max = inline_of(r);

	NEED(max >= 128);
	for (size_t len = 0; len <= max; len += len < 70 ? 1 : 29) {
		struct transfer t = {.op = row->op,
				     .len = len,
				     .from = OFF,
				     .to = OFF,
				     .from_sges = 1 + (int)len % 4,
				     .to_sges = 1,
				     .flags = IBV_SEND_INLINE};

		transfer(r, &t);
	}
}

static void inline_largest(const struct row *row)
{
	struct spec s = usual();
	struct transfer t = {.op = IBV_WR_RDMA_WRITE,
			     .from = OFF,
			     .to = OFF,
			     .from_sges = 1,
			     .to_sges = 1,
			     .flags = IBV_SEND_INLINE};
	struct rig *r;

	(void)row;
	s.cap.max_inline_data = 512;
	r = rig_make(&s);
	t.len = inline_of(r);
	NEED(t.len >= 512);
	transfer(r, &t);
	t.op = IBV_WR_SEND_WITH_IMM;
	transfer(r, &t);
}

/* Inline data is read when it is posted: it needs no region. */
static void inline_without_region(const struct row *row)
{
	struct rig *r = rig_of(1, 64);
	struct work w = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, 64);
	uint8_t stack[64];

	(void)row;
	fill(stack, 64, 3);
	w.sge[0].addr = (uintptr_t)stack;
	w.sge[0].lkey = 0;
	w.wr.send_flags |= IBV_SEND_INLINE;
	post(r->a.qp, &w);
	memset(stack, 0, 64);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED(filled(r->b.buf, 64, 3));
}

static void inline_too_long(const struct row *row)
{
	struct rig *r = rig_of(1, 64);
	struct work w = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, inline_of(r) + 1);
	int err;

	(void)row;
	w.wr.send_flags |= IBV_SEND_INLINE;
	err = try_post(r->a.qp, &w);
	NEED(err == EINVAL || err == ENOMEM);
	w = work(r, IBV_WR_RDMA_WRITE, 2, 0, 0, 8);
	post(r->a.qp, &w); /* and the QP is as it was */
	need_wc(r->a.scq, 2, IBV_WC_SUCCESS);
}

static void too_many(const struct row *row)
{
	struct rig *r = rig_of(2, 0);
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr a;
	struct ibv_sge sge[MANY_SGES];
	struct work w = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, 8);
	int n;

	(void)row;
	NEED_EQ(ibv_query_qp(r->a.qp, &a, IBV_QP_CAP, &init), 0);
	n = (int)init.cap.max_send_sge + 1;
	if (n > MANY_SGES)
		row_skipped("the device gave %d SGEs where 2 were asked for", n - 1);
	w.wr.num_sge = split(w.sge, n, false, r->a.buf, 100, r->a.mr->lkey);
	NEED(try_post(r->a.qp, &w) == EINVAL || errno == ENOMEM);
	n = (int)init.cap.max_recv_sge + 1;
	split(sge, n, false, r->b.buf, 100, r->b.mr->lkey);
	NEED(try_recv(r->b.qp, 1, sge, n) != 0);
	need_quiet(r->a.scq);
}

/* row->a: on the stack of this process, not in pages that can be shared */
static void from_the_stack(const struct row *row)
{
	struct rig *r = rig_of(1, 0);
	uint8_t stack[3000];
	struct ibv_mr *mr = need_mr(r->a.pd, stack, sizeof(stack), ALL_ACCESS);
	struct work w = work(r, row->op, 1, 0, 0, sizeof(stack));

	w.sge[0].addr = (uintptr_t)stack;
	w.sge[0].lkey = mr->lkey;
	fill(row->op == IBV_WR_RDMA_READ ? r->b.buf : stack, sizeof(stack), 8);
	if (row->op == IBV_WR_SEND)
		post_recv(&r->b, 2, 0, sizeof(stack));
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	if (row->op == IBV_WR_SEND)
		need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
	NEED(filled(row->op == IBV_WR_RDMA_READ ? stack : r->b.buf, sizeof(stack), 8));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

#define EACH(name, clause, run, ...)                                                                         \
	{"SEND: " name, clause, run, IBV_WR_SEND, __VA_ARGS__},                                              \
		{"WRITE: " name, clause, run, IBV_WR_RDMA_WRITE, __VA_ARGS__},                               \
	{                                                                                                    \
		"READ: " name, clause, run, IBV_WR_RDMA_READ, __VA_ARGS__                                    \
	}

static const struct row rows[] = {
	EACH("1 SGE", "ibv_post_send(3)", lists, 1, 0),
	EACH("2 SGEs", "ibv_post_send(3)", lists, 2, 0),
	EACH("up to 16 SGEs", "ibv_post_send(3)", lists, 16, 0),
	EACH("16 SGEs, every second empty", "ibv_post_send(3)", lists, 16, 1),
	EACH("more SGEs than bytes", "ibv_post_send(3)", tiny, 0),
	EACH("SGEs of two regions", "ibv_post_send(3)", two_regions, 0),
	{"WRITE: the same bytes twice", "ibv_post_send(3)", same_twice, IBV_WR_RDMA_WRITE},
	EACH("every alignment", "9.4", addresses, 0),
	EACH("across page ends", "9.4", page_ends, 0),
	EACH("the stack", "ibv_post_send(3)", from_the_stack, 0),
	{"SEND: inline", "ibv_post_send(3)", inline_data, IBV_WR_SEND},
	{"SEND_IMM: inline", "ibv_post_send(3)", inline_data, IBV_WR_SEND_WITH_IMM},
	{"WRITE: inline", "ibv_post_send(3)", inline_data, IBV_WR_RDMA_WRITE},
	{"WRITE_IMM: inline", "ibv_post_send(3)", inline_data, IBV_WR_RDMA_WRITE_WITH_IMM},
	{"inline, 512 bytes", "ibv_post_send(3)", inline_largest},
	{"inline needs no region", "ibv_post_send(3)", inline_without_region},
	{"inline, too long", "ibv_post_send(3)", inline_too_long},
	{"more SGEs than the QP has", "ibv_post_send(3)", too_many},
};

const struct section section_sge = {"sge", "scatter, gather and inline data", rows, COUNT(rows)};
