/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section xrc: XRC domains, the SRQs that messages name, and QPs that only send or only receive.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sections.h"

enum { ENTRIES = 8, MSG = 3000, SLOT = 4096 };

/* Over a rig whose own QPs stay in RESET: b receives. */
struct xrc {
	struct rig *r;
	struct ibv_xrcd *xrcd;
	struct ibv_srq *srq;
	struct ibv_qp *from, *to;
	uint32_t number;
};

static struct ibv_xrcd *open_domain(struct ibv_context *ctx, int fd, int oflags)
{
	struct ibv_xrcd_init_attr a = {
		.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = fd, .oflags = oflags};

	return ibv_open_xrcd(ctx, &a);
}

static struct ibv_srq *make_srq(const struct rig *r, struct ibv_xrcd *xrcd, const struct end *e,
				uint32_t *number)
{
	struct ibv_srq_init_attr_ex a = {.attr = {.max_wr = ENTRIES, .max_sge = 1},
					 .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD |
						      IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ,
					 .srq_type = IBV_SRQT_XRC,
					 .pd = e->pd,
					 .xrcd = xrcd,
					 .cq = e->rcq};
	struct ibv_srq *srq = ibv_create_srq_ex(r->ctx, &a);

	NEED(srq);
	NEED_EQ(ibv_get_srq_num(srq, number), 0);
	return srq;
}

static struct ibv_qp *make_target(struct ibv_context *ctx, struct ibv_xrcd *xrcd)
{
	struct ibv_qp_init_attr_ex a = {
		.qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrcd};
	struct ibv_qp *qp = ibv_create_qp_ex(ctx, &a);

	NEED(qp);
	return qp;
}

static struct ibv_qp *make_sender(const struct rig *r)
{
	struct spec s = usual();
	struct ibv_qp_init_attr_ex a = {.qp_type = IBV_QPT_XRC_SEND,
					.send_cq = r->a.scq,
					.cap = s.cap,
					.comp_mask = IBV_QP_INIT_ATTR_PD,
					.pd = r->a.pd};
	struct ibv_qp *qp;

	a.cap.max_inline_data = 200;
	qp = ibv_create_qp_ex(r->ctx, &a);
	NEED(qp);
	return qp;
}

/* Either half, as perftest does it: with the attributes of both. */
static void join(const struct rig *r, struct ibv_qp *from, struct ibv_qp *to)
{
	struct spec s = usual();

	s.rnr_retry = 1;
	connect_qp(r, &s, from, to->qp_num, IBV_QPS_RTS);
	connect_qp(r, &s, to, from->qp_num, IBV_QPS_RTS);
}

static struct xrc setup(void)
{
	struct spec s = usual();
	struct xrc x;

	s.state = IBV_QPS_RESET;
	x.r = rig_make(&s);
	x.xrcd = open_domain(x.r->ctx, -1, O_CREAT);
	NEED(x.xrcd);
	x.srq = make_srq(x.r, x.xrcd, &x.r->b, &x.number);
	x.to = make_target(x.r->ctx, x.xrcd);
	x.from = make_sender(x.r);
	join(x.r, x.from, x.to);
	return x;
}

static void teardown(struct xrc *x)
{
	NEED_EQ(ibv_destroy_qp(x->from), 0);
	NEED_EQ(ibv_destroy_qp(x->to), 0);
	if (x->srq)
		NEED_EQ(ibv_destroy_srq(x->srq), 0);
	NEED_EQ(ibv_close_xrcd(x->xrcd), 0);
}

static void receive(struct ibv_srq *srq, uint64_t wr_id, const struct end *e)
{
	struct ibv_sge sge = {(uintptr_t)e->buf + wr_id * SLOT, SLOT, e->mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = wr_id, .sg_list = &sge, .num_sge = 1}, *bad;

	NEED_EQ(ibv_post_srq_recv(srq, &wr, &bad), 0);
}

static struct work to_srq(const struct xrc *x, int op, uint64_t wr_id, size_t to, size_t len, uint32_t number)
{
	struct work w = work(x->r, op, wr_id, 0, to, len);

	w.wr.qp_type.xrc.remote_srqn = number;
	return w;
}

static void operation(const struct row *row)
{
	struct xrc x = setup();
	struct rig *r = x.r;
	size_t len = row->a ? (size_t)row->a : MSG;
	struct work w = to_srq(&x, row->op, 7, SLOT * 4, len, x.number);
	bool fetch = row->op == IBV_WR_RDMA_READ;

	fill(fetch ? r->b.buf + SLOT * 4 : r->a.buf, len, 3);
	if (row->b)
		w.wr.send_flags |= IBV_SEND_INLINE;
	if (takes_receive(row->op))
		receive(x.srq, 1, &r->b);
	post(x.from, &w);
	need_wc(r->a.scq, 7, IBV_WC_SUCCESS);
	if (takes_receive(row->op)) {
		struct ibv_wc wc = need_wc(r->b.rcq, 1, IBV_WC_SUCCESS);

		NEED_EQ(wc.qp_num, x.to->qp_num);
		NEED_EQ(wc.byte_len, len);
		if (wc.wc_flags & IBV_WC_WITH_IMM)
			NEED_EQ(wc.imm_data, w.wr.imm_data);
	}
	NEED(filled(fetch ? r->a.buf : is_write(row->op) ? r->b.buf + SLOT * 4 : r->b.buf + SLOT, len, 3));
	need_quiet(r->b.rcq);
	teardown(&x);
}

static void atomics(const struct row *row)
{
	struct xrc x = setup();
	struct work w = atomic_work(x.r, row->op, 7, 0, 4096, 5, 9);
	uint64_t *word = (uint64_t *)(x.r->b.buf + 4096), *old = (uint64_t *)x.r->a.buf;

	*word = 5;
	w.wr.qp_type.xrc.remote_srqn = x.number;
	post(x.from, &w);
	need_wc(x.r->a.scq, 7, IBV_WC_SUCCESS);
	NEED_EQ(*old, 5);
	NEED_EQ(*word, row->a);
	teardown(&x);
}

/* One pair of QPs, two SRQs with domains and CQs of their own, by turns. */
static void two_srqs(const struct row *row)
{
	struct xrc x = setup();
	struct end other = x.r->a;
	uint32_t number;
	struct ibv_srq *srq = make_srq(x.r, x.xrcd, &other, &number);

	(void)row;
	NEED(number != x.number);
	for (uint64_t i = 0; i < 4; i++) {
		receive(x.srq, i, &x.r->b);
		receive(srq, i + 4, &other);
	}
	for (uint64_t i = 0; i < 4; i++) {
		struct work w = to_srq(&x, IBV_WR_SEND, 50 + i, 0, MSG, x.number);
		struct work v = to_srq(&x, IBV_WR_SEND, 60 + i, 0, MSG, number);

		fill(x.r->a.buf, MSG, (unsigned)i);
		w.wr.send_flags = v.wr.send_flags = 0;
		post(x.from, &w);
		post(x.from, &v);
		need_wc(x.r->b.rcq, i, IBV_WC_SUCCESS);
		need_wc(other.rcq, i + 4, IBV_WC_SUCCESS);
		NEED(filled(x.r->b.buf + i * SLOT, MSG, (unsigned)i));
		NEED(filled(other.buf + (i + 4) * SLOT, MSG, (unsigned)i));
	}
	NEED_EQ(ibv_destroy_srq(srq), 0);
	teardown(&x);
}

static void wrong_number(const struct row *row)
{
	struct xrc x = setup();
	struct work w = to_srq(&x, IBV_WR_SEND, 7, 0, MSG, x.number ^ 0x10);

	(void)row;
	receive(x.srq, 1, &x.r->b);
	post(x.from, &w);
	need_wc(x.r->a.scq, 7, IBV_WC_REM_INV_REQ_ERR);
	need_quiet(x.r->b.rcq);
	teardown(&x);
}

/* The number is right, and of an SRQ in another domain. */
static void wrong_domain(const struct row *row)
{
	struct xrc x = setup();
	struct ibv_xrcd *other = open_domain(x.r->ctx, -1, O_CREAT);
	uint32_t number;
	struct ibv_srq *srq;
	struct work w;

	(void)row;
	NEED(other);
	srq = make_srq(x.r, other, &x.r->b, &number);
	receive(srq, 1, &x.r->b);
	w = to_srq(&x, IBV_WR_SEND, 7, 0, MSG, number);
	post(x.from, &w);
	need_wc(x.r->a.scq, 7, IBV_WC_REM_INV_REQ_ERR);
	need_quiet(x.r->b.rcq);
	NEED_EQ(ibv_destroy_srq(srq), 0);
	NEED_EQ(ibv_close_xrcd(other), 0);
	teardown(&x);
}

static void gone(const struct row *row)
{
	struct xrc x = setup();
	struct work w = to_srq(&x, IBV_WR_SEND, 7, 0, MSG, x.number);

	(void)row;
	receive(x.srq, 1, &x.r->b);
	NEED_EQ(ibv_destroy_srq(x.srq), 0);
	x.srq = NULL;
	post(x.from, &w);
	need_wc(x.r->a.scq, 7, IBV_WC_REM_INV_REQ_ERR);
	teardown(&x);
}

static void not_ready(const struct row *row)
{
	struct xrc x = setup();
	struct work w = to_srq(&x, IBV_WR_SEND, 7, 0, MSG, x.number);

	(void)row;
	post(x.from, &w);
	need_wc(x.r->a.scq, 7, IBV_WC_RNR_RETRY_EXC_ERR);
	teardown(&x);
}

/* Keys are checked against the SRQ's domain: a's region is not of it. */
static void foreign_key(const struct row *row)
{
	struct xrc x = setup();
	struct work w = to_srq(&x, IBV_WR_RDMA_WRITE, 7, 0, MSG, x.number);

	(void)row;
	w.wr.wr.rdma.remote_addr = (uintptr_t)x.r->a.buf;
	w.wr.wr.rdma.rkey = x.r->a.mr->rkey;
	post(x.from, &w);
	need_wc(x.r->a.scq, 7, IBV_WC_REM_ACCESS_ERR);
	teardown(&x);
}

static void busy(const struct row *row)
{
	struct xrc x = setup();

	(void)row;
	NEED_EQ(ibv_close_xrcd(x.xrcd), EBUSY);
	NEED_EQ(ibv_destroy_cq(x.r->b.rcq), EBUSY);
	teardown(&x);
}

static void number_of_a_basic_one(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_srq_init_attr attr = {.attr = {.max_wr = 4, .max_sge = 1}};
	struct ibv_srq *srq = ibv_create_srq(r->b.pd, &attr);
	uint32_t number;

	(void)row;
	NEED(srq);
	NEED(ibv_get_srq_num(srq, &number) != 0);
	NEED_EQ(ibv_destroy_srq(srq), 0);
}

/* ---- domains of files ---- */

static int file(void)
{
	int fd = memfd_create("domain", MFD_CLOEXEC);

	NEED(fd >= 0);
	return fd;
}

static void by_file(const struct row *row)
{
	struct ibv_context *ctx = open_device();
	int fd = file(), other = file();
	struct ibv_xrcd *x, *y;

	(void)row;
	NEED_NULL(open_domain(ctx, fd, 0), EAGAIN); /* there is none yet */
	x = open_domain(ctx, fd, O_CREAT | O_EXCL);
	NEED(x);
	NEED_NULL(open_domain(ctx, fd, O_CREAT | O_EXCL), EINVAL);
	y = open_domain(ctx, fd, 0);
	NEED(y);
	NEED_NULL(open_domain(ctx, other, 0), EAGAIN);
	NEED_NULL(open_domain(ctx, 10000, O_CREAT), EBADF);
	NEED_EQ(ibv_close_xrcd(x), 0);
	NEED_EQ(ibv_close_xrcd(y), 0);
	NEED_NULL(open_domain(ctx, fd, 0), EAGAIN); /* it ended with the last one */
	NEED_EQ(ibv_close_device(ctx), 0);
}

static struct ibv_qp *open_target(struct ibv_context *ctx, struct ibv_xrcd *xrcd, uint32_t number)
{
	struct ibv_qp_open_attr a = {.comp_mask = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD |
						  IBV_QP_OPEN_ATTR_TYPE,
				     .qp_num = number,
				     .xrcd = xrcd,
				     .qp_type = IBV_QPT_XRC_RECV};

	return ibv_open_qp(ctx, &a);
}

/* Made by one context, opened by another: it serves that one's SRQ, and outlives its maker. */
static void opened(const struct row *row)
{
	struct ibv_context *maker = open_device();
	int fd = file();
	struct ibv_xrcd *theirs = open_domain(maker, fd, O_CREAT), *apart = open_domain(maker, -1, O_CREAT);
	struct ibv_qp *to = make_target(maker, theirs), *mine;
	struct spec s = usual();
	struct xrc x = {.number = 0};
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	struct work w;

	s.state = IBV_QPS_RESET;
	x.r = rig_make(&s);
	x.xrcd = open_domain(x.r->ctx, fd, 0);
	NEED(x.xrcd && apart);
	x.srq = make_srq(x.r, x.xrcd, &x.r->b, &x.number);
	x.from = make_sender(x.r);
	join(x.r, x.from, to);
	NEED_NULL(open_target(x.r->ctx, x.xrcd, to->qp_num ^ 0x10), EINVAL);
	NEED_NULL(open_target(maker, apart, to->qp_num), EINVAL);
	mine = open_target(x.r->ctx, x.xrcd, to->qp_num);
	NEED(mine);
	NEED_EQ(mine->qp_num, to->qp_num);
	NEED_EQ(ibv_query_qp(mine, &attr, IBV_QP_STATE, &init), 0);
	NEED_EQ(attr.qp_state, IBV_QPS_RTS);
	if (row->a)
		NEED_EQ(ibv_destroy_qp(to), 0);
	NEED_EQ(ibv_close_device(maker), 0);
	receive(x.srq, 1, &x.r->b);
	w = to_srq(&x, IBV_WR_SEND, 7, 0, MSG, x.number);
	post(x.from, &w);
	need_wc(x.r->a.scq, 7, IBV_WC_SUCCESS);
	need_wc(x.r->b.rcq, 1, IBV_WC_SUCCESS);
	x.to = mine;
	teardown(&x);
}

/* clang-format off */
static const struct row rows[] = {
	{"SEND", "A14.3", operation, .op = IBV_WR_SEND},
	{"SEND, inline", "A14.3", operation, .op = IBV_WR_SEND, .a = 200, .b = 1},
	{"SEND of one byte, inline", "A14.3", operation, .op = IBV_WR_SEND, .a = 1, .b = 1},
	{"SEND with immediate", "A14.3", operation, .op = IBV_WR_SEND_WITH_IMM},
	{"WRITE", "A14.3", operation, .op = IBV_WR_RDMA_WRITE},
	{"WRITE, inline", "A14.3", operation, .op = IBV_WR_RDMA_WRITE, .a = 31, .b = 1},
	{"WRITE with immediate", "A14.3", operation, .op = IBV_WR_RDMA_WRITE_WITH_IMM},
	{"READ", "A14.3", operation, .op = IBV_WR_RDMA_READ},
	{"compare and swap", "A14.3", atomics, .op = IBV_WR_ATOMIC_CMP_AND_SWP, .a = 9},
	{"fetch and add", "A14.3", atomics, .op = IBV_WR_ATOMIC_FETCH_AND_ADD, .a = 10},
	{"two SRQs by turns, each with memory and a CQ of its own", "A14.3", two_srqs},
	{"a number of no SRQ", "A14.3", wrong_number},
	{"an SRQ of another domain", "A14.3", wrong_domain},
	{"an SRQ that was destroyed", "A14.3", gone},
	{"no receive is posted: the sender's retries end", "A14.3", not_ready},
	{"a key of another protection domain than the SRQ's", "A14.3", foreign_key},
	{"domain and CQ in use: EBUSY", "ibv_open_xrcd(3)", busy},
	{"a basic SRQ has no number", "ibv_get_srq_num(3)", number_of_a_basic_one},
	{"domains of files: O_CREAT, O_EXCL, and their end", "ibv_open_xrcd(3)", by_file},
	{"ibv_open_qp, whose maker ends", "ibv_open_qp(3)", opened},
	{"ibv_open_qp, whose maker destroys it", "ibv_open_qp(3)", opened, .a = 1},
};
/* clang-format on */

const struct section section_xrc = {"xrc", "extended reliable connections", rows, COUNT(rows)};
