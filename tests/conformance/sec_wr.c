/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section wr: queue pairs that are created with more attributes, and batches of ibv_wr_*().
 *
 * Room: tests. May use: verbs and libc.
 */
#include <endian.h>
#include <pthread.h>

#include "sections.h"
#include "transfer.h"

enum {
	RC_OPS = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_SEND_WITH_INV |
		 IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ |
		 IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
		 IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW,
	IMM = 0x01020304,
	LEN = 5000,
};

static struct ibv_qp_init_attr_ex init_of(const struct rig *r, uint64_t ops)
{
	return (struct ibv_qp_init_attr_ex){
		.send_cq = r->a.scq,
		.recv_cq = r->a.rcq,
		.cap = {.max_send_wr = 16,
			.max_recv_wr = 16,
			.max_send_sge = 4,
			.max_recv_sge = 1,
			.max_inline_data = 64},
		.qp_type = IBV_QPT_RC,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = r->a.pd,
		.send_ops_flags = ops,
	};
}

/* A rig whose a has batches of all operations. */
static struct rig *batch_rig(void)
{
	struct spec s = usual();
	struct ibv_qp_init_attr_ex init;
	struct rig *r;

	s.mr_access |= IBV_ACCESS_MW_BIND;
	r = rig_make(&s);
	init = init_of(r, RC_OPS);
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	r->a.qp = ibv_create_qp_ex(r->ctx, &init);
	NEED(r->a.qp && ibv_qp_to_qp_ex(r->a.qp));
	reconnect(r, &s);
	return r;
}

static struct ibv_qp_ex *start(const struct rig *r, uint64_t wr_id, unsigned flags)
{
	struct ibv_qp_ex *x = ibv_qp_to_qp_ex(r->a.qp);

	ibv_wr_start(x);
	x->wr_id = wr_id;
	x->wr_flags = flags;
	return x;
}

static uint64_t remote(const struct rig *r, size_t at)
{
	return (uintptr_t)r->b.buf + at;
}

static void set_local(const struct rig *r, struct ibv_qp_ex *x, size_t at, size_t len)
{
	ibv_wr_set_sge(x, r->a.mr->lkey, (uintptr_t)r->a.buf + at, (uint32_t)len);
}

/* ---- creation ---- */

static void created(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_qp_init_attr_ex init = init_of(r, IBV_QP_EX_WITH_SEND);
	struct ibv_qp *qp = ibv_create_qp_ex(r->ctx, &init);
	struct ibv_qp_ex *x;

	(void)row;
	NEED(qp && qp->qp_num > 1 && qp->pd == r->a.pd && qp->state == IBV_QPS_RESET);
	NEED(init.cap.max_send_wr >= 16 && init.cap.max_send_sge >= 4 && init.cap.max_inline_data >= 64);
	x = ibv_qp_to_qp_ex(qp);
	NEED(x && &x->qp_base == qp);
	NEED_EQ(ibv_destroy_qp(qp), 0);
	init.comp_mask = IBV_QP_INIT_ATTR_PD;
	qp = ibv_create_qp_ex(r->ctx, &init);
	NEED(qp && !ibv_qp_to_qp_ex(qp) && !ibv_qp_to_qp_ex(r->a.qp));
	NEED_EQ(ibv_destroy_qp(qp), 0);
}

static void create_refused(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_qp_init_attr_ex init = init_of(r, (uint64_t)row->a);

	if (row->op)
		init.qp_type = (enum ibv_qp_type)row->op;
	if (row->b)
		init.comp_mask |= (uint32_t)row->b;
	if (row->b == IBV_QP_INIT_ATTR_CREATE_FLAGS)
		init.create_flags = IBV_QP_CREATE_SCATTER_FCS;
	NEED_NULL(ibv_create_qp_ex(r->ctx, &init), EOPNOTSUPP);
}

static void create_without_pd(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_qp_init_attr_ex init = init_of(r, 0);

	(void)row;
	init.comp_mask = 0;
	NEED_NULL(ibv_create_qp_ex(r->ctx, &init), EINVAL);
}

static void create_flag(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_qp_init_attr_ex init = init_of(r, 0);
	struct ibv_qp *qp;

	(void)row;
	init.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS;
	init.create_flags = IBV_QP_CREATE_BLOCK_SELF_MCAST_LB;
	qp = ibv_create_qp_ex(r->ctx, &init);
	if (!qp && errno == EOPNOTSUPP)
		row_skipped("the device cannot keep a QP's own multicasts from it");
	NEED(qp);
	NEED_EQ(ibv_destroy_qp(qp), 0);
}

/* ---- each operation does its work ---- */

static void receives(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_qp_ex *x;
	struct ibv_wc wc;

	fill(r->a.buf, LEN, 1);
	post_recv(&r->b, 2, 0, LEN);
	x = start(r, 1, IBV_SEND_SIGNALED);
	if (row->op == IBV_WR_SEND)
		ibv_wr_send(x);
	else if (row->op == IBV_WR_SEND_WITH_IMM)
		ibv_wr_send_imm(x, htobe32(IMM));
	else
		ibv_wr_rdma_write_imm(x, r->b.mr->rkey, remote(r, 0), htobe32(IMM));
	set_local(r, x, 0, LEN);
	NEED_EQ(ibv_wr_complete(x), 0);
	wc = need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED_EQ(wc.opcode, is_write(row->op) ? IBV_WC_RDMA_WRITE : IBV_WC_SEND);
	wc = need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
	NEED_EQ(wc.byte_len, LEN);
	NEED_EQ(wc.wc_flags, row->op == IBV_WR_SEND ? 0 : IBV_WC_WITH_IMM);
	NEED(row->op == IBV_WR_SEND || be32toh(wc.imm_data) == IMM);
	NEED(filled(r->b.buf, LEN, 1));
}

static void one_sided(const struct row *row)
{
	struct rig *r = batch_rig();
	bool read = row->op == IBV_WR_RDMA_READ;
	struct ibv_qp_ex *x;

	fill(read ? r->b.buf + 7 : r->a.buf + 100, LEN, 2);
	x = start(r, 1, IBV_SEND_SIGNALED);
	if (read)
		ibv_wr_rdma_read(x, r->b.mr->rkey, remote(r, 7));
	else
		ibv_wr_rdma_write(x, r->b.mr->rkey, remote(r, 7));
	set_local(r, x, 100, LEN);
	NEED_EQ(ibv_wr_complete(x), 0);
	NEED_EQ(need_wc(r->a.scq, 1, IBV_WC_SUCCESS).opcode, read ? IBV_WC_RDMA_READ : IBV_WC_RDMA_WRITE);
	NEED(filled(read ? r->a.buf + 100 : r->b.buf + 7, LEN, 2));
}

static void atomics(const struct row *row)
{
	struct rig *r = batch_rig();
	uint64_t *word = (uint64_t *)(void *)(r->b.buf + 64), *old = (uint64_t *)(void *)r->a.buf;
	struct ibv_qp_ex *x;

	*word = 41;
	x = start(r, 1, IBV_SEND_SIGNALED);
	if (row->op == IBV_WR_ATOMIC_CMP_AND_SWP)
		ibv_wr_atomic_cmp_swp(x, r->b.mr->rkey, remote(r, 64), 41, 43);
	else
		ibv_wr_atomic_fetch_add(x, r->b.mr->rkey, remote(r, 64), 2);
	set_local(r, x, 0, 8);
	NEED_EQ(ibv_wr_complete(x), 0);
	NEED_EQ(need_wc(r->a.scq, 1, IBV_WC_SUCCESS).opcode,
		row->op == IBV_WR_ATOMIC_CMP_AND_SWP ? IBV_WC_COMP_SWAP : IBV_WC_FETCH_ADD);
	NEED_EQ(*word, 43);
	NEED_EQ(*old, 41);
}

/* a binds a window, b writes through it until a invalidates it. */
static void windows(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_mw *mw = ibv_alloc_mw(r->a.pd, IBV_MW_TYPE_2);
	struct work w = work(r, IBV_WR_RDMA_WRITE, 3, 0, 0, 8);
	struct ibv_mw_bind_info info = {.mr = r->a.mr,
					.addr = (uintptr_t)r->a.buf,
					.length = 100,
					.mw_access_flags = IBV_ACCESS_REMOTE_WRITE};
	struct ibv_qp_ex *x;
	uint32_t rkey;

	(void)row;
	if (!mw)
		row_skipped("the device has no windows of type 2");
	rkey = ibv_inc_rkey(mw->rkey);
	x = start(r, 1, IBV_SEND_SIGNALED);
	ibv_wr_bind_mw(x, mw, rkey, &info);
	NEED_EQ(ibv_wr_complete(x), 0);
	NEED_EQ(need_wc(r->a.scq, 1, IBV_WC_SUCCESS).opcode, IBV_WC_BIND_MW);
	w.sge[0].addr = (uintptr_t)r->b.buf;
	w.sge[0].lkey = r->b.mr->lkey;
	w.wr.wr.rdma.remote_addr = (uintptr_t)r->a.buf + 10;
	w.wr.wr.rdma.rkey = rkey;
	fill(r->b.buf, 8, 3);
	post(r->b.qp, &w);
	need_wc(r->b.scq, 3, IBV_WC_SUCCESS);
	NEED(filled(r->a.buf + 10, 8, 3));
	x = start(r, 2, IBV_SEND_SIGNALED);
	ibv_wr_local_inv(x, rkey);
	NEED_EQ(ibv_wr_complete(x), 0);
	NEED_EQ(need_wc(r->a.scq, 2, IBV_WC_SUCCESS).opcode, IBV_WC_LOCAL_INV);
	post(r->b.qp, &w);
	need_wc(r->b.scq, 3, IBV_WC_REM_ACCESS_ERR);
	NEED_EQ(ibv_dealloc_mw(mw), 0);
}

/* b binds, a invalidates it from afar. */
static void send_inv(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_mw *mw = ibv_alloc_mw(r->b.pd, IBV_MW_TYPE_2);
	struct work w = {.wr = {.wr_id = 3, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED}};
	struct ibv_qp_ex *x;
	struct ibv_wc wc;

	(void)row;
	if (!mw)
		row_skipped("the device has no windows of type 2");
	w.wr.bind_mw.mw = mw;
	w.wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
	w.wr.bind_mw.bind_info = (struct ibv_mw_bind_info){.mr = r->b.mr,
							   .addr = (uintptr_t)r->b.buf,
							   .length = 100,
							   .mw_access_flags = IBV_ACCESS_REMOTE_WRITE};
	post(r->b.qp, &w);
	need_wc(r->b.scq, 3, IBV_WC_SUCCESS);
	post_recv(&r->b, 2, 0, 8);
	x = start(r, 1, IBV_SEND_SIGNALED);
	ibv_wr_send_inv(x, w.wr.bind_mw.rkey);
	set_local(r, x, 0, 8);
	NEED_EQ(ibv_wr_complete(x), 0);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	wc = need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
	NEED(wc.wc_flags & IBV_WC_WITH_INV);
	NEED_EQ(wc.invalidated_rkey, w.wr.bind_mw.rkey);
	NEED(!access_works(r, IBV_WR_RDMA_WRITE, remote(r, 0), w.wr.bind_mw.rkey, 8));
	NEED_EQ(ibv_dealloc_mw(mw), 0);
}

/* ---- setters ---- */

/* A QP that sends datagrams to itself; the setters in either order. */
static void datagrams(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_qp_init_attr_ex init = init_of(r, IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM);
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_INIT, .port_num = (uint8_t)options.port, .qkey = 0x1234};
	struct ibv_ah_attr to = attr_of(r, &(struct spec){0}, 0).ah_attr;
	struct ibv_ah *ah = ibv_create_ah(r->a.pd, &to);
	struct ibv_qp_ex *x;
	struct ibv_wc wc;

	(void)row;
	init.qp_type = IBV_QPT_UD;
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	r->a.qp = ibv_create_qp_ex(r->ctx, &init);
	NEED(ah && r->a.qp);
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), 0);
	a.qp_state = IBV_QPS_RTR;
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE), 0);
	a.qp_state = IBV_QPS_RTS;
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE | IBV_QP_SQ_PSN), 0);
	fill(r->a.buf, 100, 7);
	post_recv(&r->a, 8, 1000, 140);
	post_recv(&r->a, 9, 2000, 140);
	x = start(r, 1, 0);
	ibv_wr_send(x);
	ibv_wr_set_ud_addr(x, ah, r->a.qp->qp_num, 0x1234);
	set_local(r, x, 0, 100);
	ibv_wr_send_imm(x, htobe32(IMM));
	set_local(r, x, 0, 100);
	ibv_wr_set_ud_addr(x, ah, r->a.qp->qp_num, 0x1234);
	NEED_EQ(ibv_wr_complete(x), 0);
	wc = need_wc(r->a.rcq, 8, IBV_WC_SUCCESS);
	NEED(wc.byte_len == 140 && wc.src_qp == r->a.qp->qp_num && filled(r->a.buf + 1040, 100, 7));
	wc = need_wc(r->a.rcq, 9, IBV_WC_SUCCESS);
	NEED(be32toh(wc.imm_data) == IMM && filled(r->a.buf + 2040, 100, 7));
	x = start(r, 1, 0);
	ibv_wr_send(x); /* to nobody */
	NEED_EQ(ibv_wr_complete(x), EINVAL);
	NEED_EQ(ibv_destroy_ah(ah), 0);
}

static void sge_list(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_sge sge[4];
	struct ibv_qp_ex *x;

	(void)row;
	fill(r->a.buf, LEN, 4);
	split(sge, 4, true, r->a.buf, LEN, r->a.mr->lkey);
	x = start(r, 1, IBV_SEND_SIGNALED);
	ibv_wr_rdma_write(x, r->b.mr->rkey, remote(r, 0));
	ibv_wr_set_sge_list(x, 4, sge);
	memset(sge, 0, sizeof(sge)); /* free at once */
	NEED_EQ(ibv_wr_complete(x), 0);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED(filled(r->b.buf, LEN, 4));
}

static void inline_data(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_data_buf part[3];
	uint8_t data[64];
	struct ibv_qp_ex *x;

	fill(data, sizeof(data), 5);
	part[0] = (struct ibv_data_buf){data, 10};
	part[1] = (struct ibv_data_buf){data + 10, 0};
	part[2] = (struct ibv_data_buf){data + 10, 54};
	x = start(r, 1, IBV_SEND_SIGNALED);
	ibv_wr_rdma_write(x, r->b.mr->rkey, remote(r, 0));
	if (row->a)
		ibv_wr_set_inline_data_list(x, 3, part);
	else
		ibv_wr_set_inline_data(x, data, sizeof(data));
	memset(data, 0, sizeof(data)); /* free at once */
	NEED_EQ(ibv_wr_complete(x), 0);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED(filled(r->b.buf, 64, 5));
}

static void no_data(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_qp_ex *x = start(r, 1, IBV_SEND_SIGNALED);

	(void)row;
	post_recv(&r->b, 2, 0, 8);
	ibv_wr_send(x);
	NEED_EQ(ibv_wr_complete(x), 0);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED_EQ(need_wc(r->b.rcq, 2, IBV_WC_SUCCESS).byte_len, 0);
}

/* ---- batches ---- */

static void prepare(const struct rig *r, struct ibv_qp_ex *x, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		x->wr_id = 10 + i;
		ibv_wr_rdma_write(x, r->b.mr->rkey, remote(r, i * 8));
		set_local(r, x, i * 8, 8);
	}
}

static void in_order(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_qp_ex *x;

	(void)row;
	fill(r->a.buf, 128, 6);
	memset(r->b.buf, UNTOUCHED, 128);
	x = start(r, 0, IBV_SEND_SIGNALED);
	prepare(r, x, 16);
	need_quiet(r->a.scq); /* "No work is executed to the queue until ibv_wr_complete()" */
	NEED(untouched(r->b.buf, 128));
	NEED_EQ(ibv_wr_complete(x), 0);
	for (unsigned i = 0; i < 16; i++)
		need_wc(r->a.scq, 10 + i, IBV_WC_SUCCESS);
	NEED(filled(r->b.buf, 128, 6));
}

static void with_lists(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_qp_ex *x;

	(void)row;
	for (unsigned i = 0; i < 50; i++) {
		x = start(r, 0, IBV_SEND_SIGNALED);
		prepare(r, x, 3);
		NEED_EQ(ibv_wr_complete(x), 0);
		post_many(r, IBV_WR_RDMA_WRITE, 20, 2, 8, IBV_SEND_SIGNALED);
		for (unsigned k = 0; k < 3; k++)
			need_wc(r->a.scq, 10 + k, IBV_WC_SUCCESS);
		need_wc(r->a.scq, 20, IBV_WC_SUCCESS);
		need_wc(r->a.scq, 21, IBV_WC_SUCCESS);
	}
}

static void aborted(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_qp_ex *x = start(r, 0, IBV_SEND_SIGNALED);

	(void)row;
	memset(r->b.buf, UNTOUCHED, 128);
	prepare(r, x, 16);
	ibv_wr_abort(x);
	need_quiet(r->a.scq);
	NEED(untouched(r->b.buf, 128));
	x = start(r, 0, IBV_SEND_SIGNALED);
	prepare(r, x, 16); /* the queue is empty still */
	NEED_EQ(ibv_wr_complete(x), 0);
	for (unsigned i = 0; i < 16; i++)
		need_wc(r->a.scq, 10 + i, IBV_WC_SUCCESS);
}

static void unsignaled(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_qp_ex *x = start(r, 0, 0);

	(void)row;
	prepare(r, x, 5);
	x->wr_flags = IBV_SEND_SIGNALED;
	x->wr_id = 1;
	ibv_wr_rdma_write(x, r->b.mr->rkey, remote(r, 0));
	NEED_EQ(ibv_wr_complete(x), 0);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	need_quiet(r->a.scq);
}

/* ---- errors: the whole posting is aborted ---- */

enum mistake { TOO_MANY, FULL, INLINE, INLINE_READ, NO_LANDING, NOT_ASKED_FOR };

static void make(const struct rig *r, struct ibv_qp_ex *x, enum mistake m)
{
	static uint8_t data[65];
	struct ibv_sge sge[5] = {{0}};

	if (m == TOO_MANY) {
		ibv_wr_send(x);
		ibv_wr_set_sge_list(x, 5, sge);
	} else if (m == FULL) {
		prepare(r, x, 16);
	} else if (m == INLINE) {
		ibv_wr_send(x);
		ibv_wr_set_inline_data(x, data, sizeof(data));
	} else if (m == INLINE_READ) {
		ibv_wr_rdma_read(x, r->b.mr->rkey, remote(r, 0));
		ibv_wr_set_inline_data(x, data, 8);
	} else if (m == NO_LANDING) {
		ibv_wr_atomic_fetch_add(x, r->b.mr->rkey, remote(r, 0), 1);
	} else {
		ibv_wr_send_tso(x, data, 10, 20);
	}
}

static void refused(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_qp_ex *x = start(r, 0, IBV_SEND_SIGNALED);

	memset(r->b.buf, UNTOUCHED, 128);
	prepare(r, x, 1);
	make(r, x, (enum mistake)row->a);
	if (row->a != FULL)
		prepare(r, x, 1);
	NEED_EQ(ibv_wr_complete(x), row->b);
	need_quiet(r->a.scq);
	NEED(untouched(r->b.buf, 128));
	need_state(r->a.qp, IBV_QPS_RTS);
	x = start(r, 0, IBV_SEND_SIGNALED);
	prepare(r, x, 1);
	NEED_EQ(ibv_wr_complete(x), 0);
	need_wc(r->a.scq, 10, IBV_WC_SUCCESS);
}

static void not_yet(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_qp_ex *x;

	(void)row;
	to_state(r->a.qp, IBV_QPS_RESET);
	x = start(r, 0, IBV_SEND_SIGNALED);
	prepare(r, x, 1);
	NEED_EQ(ibv_wr_complete(x), EINVAL);
}

static void flushed(const struct row *row)
{
	struct rig *r = batch_rig();
	struct ibv_qp_ex *x;

	(void)row;
	to_state(r->a.qp, IBV_QPS_ERR);
	x = start(r, 0, 0);
	prepare(r, x, 3);
	NEED_EQ(ibv_wr_complete(x), 0);
	for (unsigned i = 0; i < 3; i++)
		need_wc(r->a.scq, 10 + i, IBV_WC_WR_FLUSH_ERR);
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 2000, EACH = 3 };

struct poster {
	struct rig *r;
	unsigned id;
};

/* Batches of one thread stay together: nobody else's request is between theirs. */
static void *poster(void *arg)
{
	struct poster *p = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct ibv_qp_ex *x = ibv_qp_to_qp_ex(p->r->a.qp);
		int err;

		do {
			ibv_wr_start(x);
			for (unsigned k = 0; k < EACH; k++) {
				x->wr_id = p->id * EACH + k;
				x->wr_flags = IBV_SEND_SIGNALED;
				ibv_wr_rdma_write(x, p->r->b.mr->rkey, remote(p->r, p->id * 8));
				set_local(p->r, x, p->id * 8, 8);
			}
			err = ibv_wr_complete(x);
			if (err)
				sleep_ms(1);
		} while (err == ENOMEM);
		if (err)
			return p;
	}
	return NULL;
}

static void threads(const struct row *row)
{
	struct rig *r = batch_rig();
	pthread_t thread[THREADS];
	struct poster p[THREADS];
	void *bad;

	(void)row;
	for (unsigned i = 0; i < THREADS; i++) {
		p[i] = (struct poster){r, i};
		NEED_EQ(pthread_create(&thread[i], NULL, poster, &p[i]), 0);
	}
	for (unsigned n = 0; n < THREADS * ROUNDS; n++) {
		struct ibv_wc wc = completion(r->a.scq);

		NEED_EQ(wc.status, IBV_WC_SUCCESS);
		NEED_EQ(wc.wr_id % EACH, 0);
		for (unsigned k = 1; k < EACH; k++)
			need_wc(r->a.scq, wc.wr_id + k, IBV_WC_SUCCESS);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		NEED_EQ(pthread_join(thread[i], &bad), 0);
		NEED(!bad);
	}
}

#define WR "ibv_wr_post(3)"
#define EX "ibv_create_qp_ex(3)"

static const struct row rows[] = {
	{"created with send operations, and without", EX, created},
	{"created for an operation that does not exist", EX, create_refused, .a = 1 << 11},
	{"created for segmentation", EX, create_refused, .a = IBV_QP_EX_WITH_TSO},
	{"created with an unknown attribute", EX, create_refused, .b = 1 << 20},
	{"created with a flag of raw packets", EX, create_refused, .b = IBV_QP_INIT_ATTR_CREATE_FLAGS},
	{"created for what datagrams do not have", EX, create_refused, .op = IBV_QPT_UD,
	 .a = IBV_QP_EX_WITH_RDMA_WRITE},
	{"created without a domain", EX, create_without_pd},
	{"created to block its own multicasts", EX, create_flag},
	{"SEND", WR, receives, IBV_WR_SEND},
	{"SEND with immediate", WR, receives, IBV_WR_SEND_WITH_IMM},
	{"SEND with invalidate", WR, send_inv},
	{"WRITE", WR, one_sided, IBV_WR_RDMA_WRITE},
	{"WRITE with immediate", WR, receives, IBV_WR_RDMA_WRITE_WITH_IMM},
	{"READ", WR, one_sided, IBV_WR_RDMA_READ},
	{"COMPARE AND SWAP", WR, atomics, IBV_WR_ATOMIC_CMP_AND_SWP},
	{"FETCH AND ADD", WR, atomics, IBV_WR_ATOMIC_FETCH_AND_ADD},
	{"BIND and LOCAL INVALIDATE", WR, windows},
	{"datagrams", WR, datagrams},
	{"list of SGEs", WR, sge_list},
	{"inline data", WR, inline_data},
	{"list of inline data", WR, inline_data, .a = 1},
	{"no data", WR, no_data},
	{"a batch is in order, and nothing of it is early", WR, in_order},
	{"batches and lists by turns", WR, with_lists},
	{"an aborted batch", WR, aborted},
	{"unsignaled requests of a batch", WR, unsignaled},
	{"too many SGEs", WR, refused, .a = TOO_MANY, .b = EINVAL},
	{"a full send queue", WR, refused, .a = FULL, .b = ENOMEM},
	{"too much inline data", WR, refused, .a = INLINE, .b = EINVAL},
	{"inline data of a READ", WR, refused, .a = INLINE_READ, .b = EINVAL},
	{"an atomic without a landing", WR, refused, .a = NO_LANDING, .b = EINVAL},
	{"an operation that was not asked for", WR, refused, .a = NOT_ASKED_FOR, .b = EOPNOTSUPP},
	{"a batch in RESET", WR, not_yet},
	{"a batch in ERR is flushed", WR, flushed},
	{"batches of several threads", WR, threads, .seconds = 60},
};

const struct section section_wr = {"wr", "extended creation and batches of work requests", rows, COUNT(rows)};
