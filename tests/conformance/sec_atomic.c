/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section atomic: compare-and-swap and fetch-and-add.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <pthread.h>

#include "sections.h"

static struct rig *atomic_rig(const struct spec *s)
{
	struct rig *r = rig_make(s);

	if (r->dev.atomic_cap == IBV_ATOMIC_NONE)
		row_skipped("the device has no atomics");
	return r;
}

static struct rig *usual_rig(void)
{
	struct spec s = usual();

	return atomic_rig(&s);
}

/* volatile: the device changes it */
static volatile uint64_t *word(const struct end *e, size_t at)
{
	return (volatile uint64_t *)(e->buf + at);
}

static struct ibv_wc does(struct rig *r, struct work w)
{
	post(r->a.qp, &w);
	return need_wc(r->a.scq, w.wr.wr_id, IBV_WC_SUCCESS);
}

static void add(const struct row *row)
{
	struct rig *r = usual_rig();
	struct ibv_wc wc;

	*word(&r->b, 64) = (uint64_t)row->a;
	wc = does(r, atomic_work(r, IBV_WR_ATOMIC_FETCH_AND_ADD, 1, 0, 64, (uint64_t)row->b, 0));
	NEED_EQ(wc.opcode, IBV_WC_FETCH_ADD);
	NEED_EQ(wc.byte_len, 8);
	NEED_EQ(*word(&r->a, 0), row->a);
	NEED_EQ(*word(&r->b, 64), (uint64_t)row->a + (uint64_t)row->b);
	NEED(untouched(r->b.buf, 64) && untouched(r->b.buf + 72, 64) && untouched(r->a.buf + 8, 64));
}

static void swap(const struct row *row)
{
	const uint64_t was = UINT64_C(0x0123456789abcdef), to = UINT64_C(0xfedcba9876543210);
	struct rig *r = usual_rig();
	struct ibv_wc wc;

	*word(&r->b, 64) = was;
	wc = does(r, atomic_work(r, IBV_WR_ATOMIC_CMP_AND_SWP, 1, 0, 64, was + (uint64_t)row->a, to));
	NEED_EQ(wc.opcode, IBV_WC_COMP_SWAP);
	NEED_EQ(wc.byte_len, 8);
	NEED_EQ(*word(&r->a, 0), was);
	NEED_EQ(*word(&r->b, 64), row->a ? was : to);
	NEED(untouched(r->b.buf, 64) && untouched(r->b.buf + 72, 64) && untouched(r->a.buf + 8, 64));
}

static void chain(const struct row *row)
{
	struct rig *r = usual_rig();

	(void)row;
	*word(&r->b, 0) = 0;
	for (uint64_t i = 0; i < 50; i++) {
		struct work w = atomic_work(r, IBV_WR_ATOMIC_FETCH_AND_ADD, i, 8 * i, 0, 3, 0);

		post(r->a.qp, &w);
	}
	for (uint64_t i = 0; i < 50; i++) {
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
		NEED_EQ(*word(&r->a, 8 * i), 3 * i);
	}
	NEED_EQ(*word(&r->b, 0), 150);
}

static void odd_landing(const struct row *row)
{
	struct rig *r = usual_rig();
	uint64_t got;

	(void)row;
	*word(&r->b, 64) = UINT64_C(0x1122334455667788);
	does(r, atomic_work(r, IBV_WR_ATOMIC_FETCH_AND_ADD, 1, 67, 64, 1, 0));
	memcpy(&got, r->a.buf + 67, 8);
	NEED_EQ(got, 0x1122334455667788);
	NEED(untouched(r->a.buf, 67) && untouched(r->a.buf + 75, 64));
}

static void every_word(const struct row *row)
{
	struct rig *r = usual_rig();

	(void)row;
	memset(r->b.buf, 0, r->b.size);
	for (size_t at = 4096 - 64; at < 4096 + 64; at += 8) {
		does(r, atomic_work(r, IBV_WR_ATOMIC_FETCH_AND_ADD, at, 0, at, at, 0));
		NEED_EQ(*word(&r->b, at), at);
	}
}

/* Order against what is around it in the same queue. */
static void between_writes(const struct row *row)
{
	struct rig *r = usual_rig();
	uint64_t *value = (uint64_t *)r->a.buf;

	(void)row;
	for (uint64_t i = 1; i <= 50; i++) {
		struct work before = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, 8);
		struct work add1 = atomic_work(r, IBV_WR_ATOMIC_FETCH_AND_ADD, 2, 64, 0, 1, 0);
		struct work read = work(r, IBV_WR_RDMA_READ, 3, 128, 0, 8);

		value[0] = i * 1000;
		post(r->a.qp, &before);
		post(r->a.qp, &add1);
		post(r->a.qp, &read);
		for (uint64_t id = 1; id <= 3; id++)
			need_wc(r->a.scq, id, IBV_WC_SUCCESS);
		NEED_EQ(*word(&r->a, 64), i * 1000);
		NEED_EQ(*word(&r->a, 128), i * 1000 + 1);
	}
}

/* ---- at once ---- */

enum { ADDS = 2000 };

/* Two QPs add to one word. */
static void two_qps(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = atomic_rig(&s);
	struct ibv_qp *a2 = make_qp(r->a.pd, r->a.scq, r->a.scq, &s),
		      *b2 = make_qp(r->b.pd, r->b.scq, r->b.scq, &s);

	(void)row;
	connect_qp(r, &s, b2, a2->qp_num, IBV_QPS_RTS);
	connect_qp(r, &s, a2, b2->qp_num, IBV_QPS_RTS);
	*word(&r->b, 0) = 0;
	for (int i = 0; i < ADDS / 20; i++) {
		for (int k = 0; k < 20; k++) {
			struct work w = atomic_work(r, IBV_WR_ATOMIC_FETCH_AND_ADD, 1, 64, 0, 1, 0);

			post(k % 2 ? r->a.qp : a2, &w);
		}
		for (int k = 0; k < 20; k++)
			need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	}
	NEED_EQ(*word(&r->b, 0), ADDS);
	NEED_EQ(ibv_destroy_qp(a2), 0);
	NEED_EQ(ibv_destroy_qp(b2), 0);
}

static void *adds_too(void *at)
{
	for (int i = 0; i < 100 * ADDS; i++)
		__atomic_fetch_add((uint64_t *)at, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Against the CPU's own atomics, which only a device with IBV_ATOMIC_GLOB promises. */
static void with_the_cpu(const struct row *row)
{
	struct rig *r = usual_rig();
	pthread_t t;

	(void)row;
	if (r->dev.atomic_cap != IBV_ATOMIC_GLOB)
		row_skipped("the device promises atomics among its own only (IBV_ATOMIC_HCA)");
	*word(&r->b, 0) = 0;
	NEED_EQ(pthread_create(&t, NULL, adds_too, r->b.buf), 0);
	for (uint64_t i = 0; i < ADDS; i++)
		does(r, atomic_work(r, IBV_WR_ATOMIC_FETCH_AND_ADD, i, 64, 0, UINT64_C(1) << 32, 0));
	pthread_join(t, NULL);
	NEED_EQ(*word(&r->b, 0), ((uint64_t)ADDS << 32) + 100 * ADDS);
}

/* More than the peer takes at once: the rest waits its turn. */
static void beyond_depth(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	s.rd_atomic = s.dest_rd_atomic = (uint8_t)row->a;
	r = atomic_rig(&s);
	*word(&r->b, 0) = 0;
	for (uint64_t i = 0; i < 60; i++) {
		struct work w = atomic_work(r, IBV_WR_ATOMIC_FETCH_AND_ADD, i, 64 + 8 * i, 0, 1, 0);

		post(r->a.qp, &w);
	}
	for (uint64_t i = 0; i < 60; i++) {
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
		NEED_EQ(*word(&r->a, 64 + 8 * i), i);
	}
}

static void on_the_stack(const struct row *row)
{
	struct rig *r = usual_rig();
	volatile uint64_t stack[2] = {5, 0};
	struct ibv_mr *mr = need_mr(r->b.pd, (void *)(uintptr_t)stack, sizeof(stack), ALL_ACCESS);
	struct work w = atomic_work(r, IBV_WR_ATOMIC_CMP_AND_SWP, 1, 0, 0, 5, 77);

	(void)row;
	w.wr.wr.atomic.remote_addr = (uintptr_t)stack;
	w.wr.wr.atomic.rkey = mr->rkey;
	does(r, w);
	NEED(*word(&r->a, 0) == 5 && stack[0] == 77 && stack[1] == 0);
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

/* ---- atomic WRITE ---- */

static struct work store(const struct rig *r, uint64_t wr_id, size_t at)
{
	struct work w = work(r, IBV_WR_ATOMIC_WRITE, wr_id, 64, 0, 8);

	w.wr.wr.rdma.remote_addr = (uintptr_t)r->b.buf + at;
	w.wr.wr.rdma.rkey = r->b.mr->rkey;
	return w;
}

static void try_store(struct rig *r, struct work *w)
{
	int err = try_post(r->a.qp, w);

	if (err == EOPNOTSUPP)
		row_skipped("the device has no atomic WRITE");
	NEED_EQ(err, 0);
}

static void stores(const struct row *row)
{
	struct rig *r = usual_rig();
	struct work w = store(r, 1, 8);

	w.wr.send_flags |= (unsigned)row->a;
	*word(&r->a, 64) = 0x1122334455667788;
	*word(&r->b, 0) = *word(&r->b, 8) = *word(&r->b, 16) = 1;
	try_store(r, &w);
	NEED_EQ(need_wc(r->a.scq, 1, IBV_WC_SUCCESS).opcode, IBV_WC_ATOMIC_WRITE);
	NEED(*word(&r->b, 8) == 0x1122334455667788 && *word(&r->b, 0) == 1 && *word(&r->b, 16) == 1);
}

static void store_misplaced(const struct row *row)
{
	struct rig *r = usual_rig();
	struct work w = store(r, 1, (size_t)row->a);

	w.wr.wr.rdma.rkey ^= (uint32_t)row->b;
	*word(&r->b, 0) = *word(&r->b, 8) = 1;
	try_store(r, &w);
	need_wc(r->a.scq, 1, row->b ? IBV_WC_REM_ACCESS_ERR : IBV_WC_REM_INV_REQ_ERR);
	NEED(*word(&r->b, 0) == 1 && *word(&r->b, 8) == 1);
}

static void store_too_long(const struct row *row)
{
	struct rig *r = usual_rig();
	struct work w = store(r, 1, 0);
	int err;

	w.sge[0].length = (uint32_t)row->a;
	err = try_post(r->a.qp, &w);
	if (err == EOPNOTSUPP)
		row_skipped("the device has no atomic WRITE");
	NEED_EQ(err, EINVAL);
}

static void store_in_batch(const struct row *row)
{
	struct rig *r = usual_rig();
	struct spec s = usual();
	struct ibv_qp_init_attr_ex init = {.send_cq = r->a.scq,
					   .recv_cq = r->a.rcq,
					   .cap = s.cap,
					   .qp_type = IBV_QPT_RC,
					   .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
					   .pd = r->a.pd,
					   .send_ops_flags = IBV_QP_EX_WITH_ATOMIC_WRITE};
	struct ibv_qp *qp = ibv_create_qp_ex(r->ctx, &init);
	uint64_t value = 0x99;
	struct ibv_qp_ex *x;

	(void)row;
	if (!qp && errno == EOPNOTSUPP)
		row_skipped("the device has no atomic WRITE");
	NEED(qp);
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	r->a.qp = qp;
	reconnect(r, &s);
	x = ibv_qp_to_qp_ex(qp);
	ibv_wr_start(x);
	x->wr_id = 1;
	x->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_atomic_write(x, r->b.mr->rkey, (uintptr_t)r->b.buf + 16, &value);
	value = 0; /* free at once */
	NEED_EQ(ibv_wr_complete(x), 0);
	NEED_EQ(need_wc(r->a.scq, 1, IBV_WC_SUCCESS).opcode, IBV_WC_ATOMIC_WRITE);
	NEED_EQ(*word(&r->b, 16), 0x99);
}

static const struct row rows[] = {
	{"FETCH_ADD", "9.4.5", add, .a = 41, .b = 1},
	{"FETCH_ADD of 0", "9.4.5", add, .a = 41, .b = 0},
	{"FETCH_ADD that wraps", "9.4.5", add, .a = -1, .b = 3},
	{"CMP_SWAP that swaps", "9.4.5", swap, .a = 0},
	{"CMP_SWAP that does not", "9.4.5", swap, .a = 1},
	{"fifty in a row", "9.4.5", chain},
	{"a result at an odd address", "9.4.5", odd_landing},
	{"every word around a page's end", "9.4.5", every_word},
	{"between WRITE and READ", "10.8.3.3", between_writes},
	{"two QPs, one word", "9.4.5", two_qps},
	{"against the CPU", "9.4.5", with_the_cpu},
	{"more than one at a time", "9.4.5", beyond_depth, .a = 1},
	{"more than sixteen at a time", "9.4.5", beyond_depth, .a = 16},
	{"a word on the stack", "9.4.5", on_the_stack},
	{"ATOMIC_WRITE", "A19", stores},
	{"ATOMIC_WRITE, inline", "A19", stores, .a = IBV_SEND_INLINE},
	{"ATOMIC_WRITE to no word", "A19", store_misplaced, .a = 4},
	{"ATOMIC_WRITE with another key", "A19", store_misplaced, .b = 0x5555},
	{"ATOMIC_WRITE of seven bytes", "A19", store_too_long, .a = 7},
	{"ATOMIC_WRITE of sixteen bytes", "A19", store_too_long, .a = 16},
	{"ATOMIC_WRITE in a batch", "ibv_wr_post(3)", store_in_batch},
};

const struct section section_atomic = {"atomic", "atomic operations", rows, COUNT(rows)};
