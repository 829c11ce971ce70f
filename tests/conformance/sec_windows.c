/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section windows: memory windows of both types, and the operations that end keys.
 *
 * Room: tests. May use: verbs and libc.
 */
#include "sections.h"
#include "transfer.h"

enum { PAGE = 4096, REMOTE = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ };

/* The rig of every row here: b may bind windows to its region. */
static struct rig *window_rig(void)
{
	struct spec s = usual();
	struct rig *r;

	s.mr_access |= IBV_ACCESS_MW_BIND;
	r = rig_make(&s);
	if (!r->dev.max_mw)
		row_skipped("max_mw is 0: the device has no memory windows");
	return r;
}

static struct ibv_mw *window(struct rig *r, enum ibv_mw_type type)
{
	struct ibv_mw *mw = ibv_alloc_mw(r->b.pd, type);

	if (!mw && errno == EOPNOTSUPP)
		row_skipped("the device has no windows of type %d", type == IBV_MW_TYPE_1 ? 1 : 2);
	NEED(mw && mw->pd == r->b.pd && mw->context == r->ctx);
	return mw;
}

static struct ibv_mw_bind_info info(struct rig *r, size_t at, size_t len, unsigned access)
{
	return (struct ibv_mw_bind_info){
		.mr = r->b.mr, .addr = (uintptr_t)r->b.buf + at, .length = len, .mw_access_flags = access};
}

static int try_bind1(struct rig *r, struct ibv_mw *mw, struct ibv_mw_bind_info i)
{
	struct ibv_mw_bind bind = {.wr_id = 50, .send_flags = IBV_SEND_SIGNALED, .bind_info = i};

	return ibv_bind_mw(r->b.qp, mw, &bind);
}

static void bind1(struct rig *r, struct ibv_mw *mw, struct ibv_mw_bind_info i)
{
	struct ibv_wc wc;

	NEED_EQ(try_bind1(r, mw, i), 0);
	wc = need_wc(r->b.scq, 50, IBV_WC_SUCCESS);
	NEED_EQ(wc.opcode, IBV_WC_BIND_MW);
}

static void post_bind2(struct rig *r, struct ibv_mw *mw, uint32_t rkey, struct ibv_mw_bind_info i)
{
	struct ibv_send_wr wr = {.wr_id = 51, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED},
			   *bad;

	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = rkey;
	wr.bind_mw.bind_info = i;
	NEED_EQ(ibv_post_send(r->b.qp, &wr, &bad), 0);
}

/* Binds a window of type 2 under its next key. */
static uint32_t bind2(struct rig *r, struct ibv_mw *mw, struct ibv_mw_bind_info i)
{
	uint32_t rkey = ibv_inc_rkey(mw->rkey);

	post_bind2(r, mw, rkey, i);
	NEED_EQ(need_wc(r->b.scq, 51, IBV_WC_SUCCESS).opcode, IBV_WC_BIND_MW);
	return rkey;
}

/* Does a's request on b's memory at `at` under the key work? */
static bool works(struct rig *r, int op, size_t at, size_t len, uint32_t rkey)
{
	return access_works(r, op, (uintptr_t)r->b.buf + at, rkey, len);
}

static void life(const struct row *row)
{
	struct rig *r = window_rig();
	struct ibv_mw *mw[20];

	for (size_t i = 0; i < COUNT(mw); i++)
		mw[i] = window(r, (enum ibv_mw_type)row->a);
	NEED_EQ(ibv_dealloc_pd(r->b.pd), EBUSY);
	for (size_t i = 0; i < COUNT(mw); i++)
		NEED_EQ(ibv_dealloc_mw(mw[i]), 0);
}

static void bound(const struct row *row)
{
	struct rig *r = window_rig();
	struct ibv_mw *mw = window(r, (enum ibv_mw_type)row->a);
	uint32_t rkey;

	if (row->a == IBV_MW_TYPE_1)
		bind1(r, mw, info(r, 100, PAGE, REMOTE));
	else
		mw->rkey = bind2(r, mw, info(r, 100, PAGE, REMOTE));
	rkey = mw->rkey;
	NEED(rkey != r->b.mr->rkey);
	fill(r->a.buf, PAGE, 3);
	NEED(works(r, IBV_WR_RDMA_WRITE, 100, PAGE, rkey));
	NEED(filled(r->b.buf + 100, PAGE, 3));
	NEED(works(r, IBV_WR_RDMA_READ, 100 + PAGE - 1, 1, rkey));
	NEED_EQ(ibv_dealloc_mw(mw), 0);
	NEED(!works(r, IBV_WR_RDMA_WRITE, 100, 8, rkey));
}

/* row->b: what is tried that the window does not allow */
static void limits(const struct row *row)
{
	struct rig *r = window_rig();
	struct ibv_mw *mw = window(r, IBV_MW_TYPE_1);
	uint32_t rkey;

	bind1(r, mw, info(r, 100, PAGE, row->b == 2 ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE));
	rkey = mw->rkey;
	if (row->b == 0)
		NEED(!works(r, IBV_WR_RDMA_WRITE, 99, 8, rkey));
	else if (row->b == 1)
		NEED(!works(r, IBV_WR_RDMA_WRITE, 100 + PAGE - 7, 8, rkey));
	else if (row->b == 2)
		NEED(!works(r, IBV_WR_RDMA_WRITE, 100, 8, rkey));
	else
		NEED(!works(r, IBV_WR_RDMA_READ, 100, 8, rkey));
	NEED_EQ(ibv_dealloc_mw(mw), 0);
}

static void rebound(const struct row *row)
{
	struct rig *r = window_rig();
	struct ibv_mw *mw = window(r, IBV_MW_TYPE_1);
	uint32_t first;

	(void)row;
	bind1(r, mw, info(r, 0, PAGE, REMOTE));
	first = mw->rkey;
	bind1(r, mw, info(r, PAGE, PAGE, REMOTE));
	NEED(mw->rkey != first);
	NEED(works(r, IBV_WR_RDMA_WRITE, PAGE, 8, mw->rkey));
	NEED(!works(r, IBV_WR_RDMA_WRITE, 0, 8, first));
	bind1(r, mw, info(r, 0, 0, 0)); /* length 0 unbinds */
	NEED(!works(r, IBV_WR_RDMA_WRITE, PAGE, 8, mw->rkey));
	NEED_EQ(ibv_dealloc_mw(mw), 0);
}

static void region_busy(const struct row *row)
{
	struct rig *r = window_rig();
	struct ibv_mw *mw = window(r, IBV_MW_TYPE_1);

	(void)row;
	bind1(r, mw, info(r, 0, PAGE, REMOTE));
	NEED_EQ(ibv_dereg_mr(r->b.mr), EBUSY);
	NEED(works(r, IBV_WR_RDMA_WRITE, 0, 8, mw->rkey));
	NEED_EQ(ibv_dealloc_mw(mw), 0);
}

/* row->a: what is wrong with the bind. It fails at the post or as a completion. */
static void bad_bind(const struct row *row)
{
	struct rig *r = window_rig();
	struct ibv_mw *mw = window(r, IBV_MW_TYPE_2);
	struct ibv_mw_bind_info i = info(r, 0, PAGE, REMOTE);

	if (row->a == 0)
		i.mr = need_mr(r->b.pd, r->b.buf, PAGE, ALL_ACCESS); /* without IBV_ACCESS_MW_BIND */
	else if (row->a == 1)
		i.length = r->b.size + 1;
	else if (row->a == 2)
		i.mr = need_mr(r->b.pd, r->b.buf, PAGE, IBV_ACCESS_REMOTE_READ | IBV_ACCESS_MW_BIND);
	else
		i.mr = need_mr(r->a.pd, r->b.buf, PAGE, ALL_ACCESS | IBV_ACCESS_MW_BIND);
	post_bind2(r, mw, ibv_inc_rkey(mw->rkey), i);
	need_wc(r->b.scq, 51, IBV_WC_MW_BIND_ERR);
	need_state(r->b.qp, IBV_QPS_ERR);
	NEED_EQ(ibv_dealloc_mw(mw), 0);
	if (i.mr != r->b.mr)
		NEED_EQ(ibv_dereg_mr(i.mr), 0);
}

static void local_inv(const struct row *row)
{
	struct rig *r = window_rig();
	struct ibv_mw *mw = window(r, IBV_MW_TYPE_2);
	struct ibv_send_wr wr = {.wr_id = 60, .opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED},
			   *bad;
	uint32_t rkey = bind2(r, mw, info(r, 0, PAGE, REMOTE));

	(void)row;
	NEED(works(r, IBV_WR_RDMA_WRITE, 0, 8, rkey));
	wr.invalidate_rkey = rkey;
	NEED_EQ(ibv_post_send(r->b.qp, &wr, &bad), 0);
	NEED_EQ(need_wc(r->b.scq, 60, IBV_WC_SUCCESS).opcode, IBV_WC_LOCAL_INV);
	NEED(!works(r, IBV_WR_RDMA_WRITE, 0, 8, rkey));
	NEED_EQ(ibv_dealloc_mw(mw), 0);
}

static void local_inv_unbound(const struct row *row)
{
	struct rig *r = window_rig();
	struct ibv_mw *mw = window(r, IBV_MW_TYPE_2);
	struct ibv_send_wr wr = {.wr_id = 60, .opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED},
			   *bad;

	(void)row;
	wr.invalidate_rkey = mw->rkey ^ 0x7700;
	NEED_EQ(ibv_post_send(r->b.qp, &wr, &bad), 0);
	NEED(completion(r->b.scq).status != IBV_WC_SUCCESS);
	need_state(r->b.qp, IBV_QPS_ERR);
	NEED_EQ(ibv_dealloc_mw(mw), 0);
}

static void send_with_inv(const struct row *row)
{
	struct rig *r = window_rig();
	struct ibv_mw *mw = window(r, IBV_MW_TYPE_2);
	uint32_t rkey = bind2(r, mw, info(r, 0, PAGE, REMOTE));
	struct work w = work(r, IBV_WR_SEND_WITH_INV, 1, 0, 0, 100);
	struct ibv_wc wc;

	(void)row;
	NEED(works(r, IBV_WR_RDMA_WRITE, 0, 8, rkey));
	post_recv(&r->b, 2, 8192, 100);
	w.wr.invalidate_rkey = rkey;
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	wc = need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
	NEED_EQ(wc.wc_flags, IBV_WC_WITH_INV);
	NEED_EQ(wc.invalidated_rkey, rkey);
	NEED_EQ(wc.byte_len, 100);
	NEED(!works(r, IBV_WR_RDMA_WRITE, 0, 8, rkey));
	NEED_EQ(ibv_dealloc_mw(mw), 0);
}

static void send_with_bad_inv(const struct row *row)
{
	struct rig *r = window_rig();
	struct work w = work(r, IBV_WR_SEND_WITH_INV, 1, 0, 0, 100);

	(void)row;
	post_recv(&r->b, 2, 8192, 100);
	w.wr.invalidate_rkey = r->b.mr->rkey ^ 0x1100;
	post(r->a.qp, &w);
	NEED(completion(r->b.rcq).status != IBV_WC_SUCCESS);
	need_state(r->b.qp, IBV_QPS_ERR);
}

/* A window of type 2 is the QP's that bound it (2B) or its domain's (2A, no device has it). */
static void other_qp(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = window_rig();
	struct ibv_mw *mw = window(r, IBV_MW_TYPE_2);
	uint32_t rkey = bind2(r, mw, info(r, 0, PAGE, REMOTE));
	struct ibv_qp *a2 = make_qp(r->a.pd, r->a.scq, r->a.scq, &s),
		      *b2 = make_qp(r->b.pd, r->b.scq, r->b.scq, &s);
	struct work w = work(r, IBV_WR_RDMA_WRITE, 1, 0, 0, 8);

	(void)row;
	connect_qp(r, &s, b2, a2->qp_num, IBV_QPS_RTS);
	connect_qp(r, &s, a2, b2->qp_num, IBV_QPS_RTS);
	w.wr.wr.rdma.rkey = rkey;
	post(a2, &w);
	need_wc(r->a.scq, 1, IBV_WC_REM_ACCESS_ERR);
	NEED(works(r, IBV_WR_RDMA_WRITE, 0, 8, rkey));
	NEED_EQ(ibv_destroy_qp(a2), 0);
	NEED_EQ(ibv_destroy_qp(b2), 0);
	NEED_EQ(ibv_dealloc_mw(mw), 0);
}

static void told_apart(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	if (r->dev.max_mw)
		row_skipped("max_mw is not 0: the device has memory windows");
	NEED_NULL(ibv_alloc_mw(r->a.pd, IBV_MW_TYPE_1), EOPNOTSUPP);
	NEED_NULL(ibv_alloc_mw(r->a.pd, IBV_MW_TYPE_2), EOPNOTSUPP);
}

static const struct row rows[] = {
	{"none, and a clear refusal", "ibv_alloc_mw(3)", told_apart},
	{"type 1: allocate", "ibv_alloc_mw(3)", life, .a = IBV_MW_TYPE_1},
	{"type 2: allocate", "ibv_alloc_mw(3)", life, .a = IBV_MW_TYPE_2},
	{"type 1: bind and use", "10.6.7.2.1", bound, .a = IBV_MW_TYPE_1},
	{"type 2: bind and use", "10.6.7.2.2", bound, .a = IBV_MW_TYPE_2},
	{"before the window", "10.6.7", limits, .b = 0},
	{"beyond the window", "10.6.7", limits, .b = 1},
	{"WRITE, window for READ", "10.6.7", limits, .b = 2},
	{"READ, window for WRITE", "10.6.7", limits, .b = 3},
	{"type 1: bind again, unbind", "10.6.7.2.1", rebound},
	{"a region with a window bound", "ibv_reg_mr(3)", region_busy},
	{"bind to a region that allows none", "10.6.7.2.2", bad_bind, .a = 0},
	{"bind beyond the region", "10.6.7.2.2", bad_bind, .a = 1},
	{"bind with more rights than the region", "10.6.7.2.2", bad_bind, .a = 2},
	{"bind to a region of another domain", "10.6.7.2.2", bad_bind, .a = 3},
	{"LOCAL_INV", "10.6.5", local_inv},
	{"LOCAL_INV of no key", "10.6.5", local_inv_unbound},
	{"SEND_WITH_INV", "9.4.1.1.3", send_with_inv},
	{"SEND_WITH_INV of no key", "9.4.1.1.3", send_with_bad_inv},
	{"type 2: another QP", "10.6.7.2.4", other_qp},
};

const struct section section_windows = {"windows", "memory windows and invalidation", rows, COUNT(rows)};
