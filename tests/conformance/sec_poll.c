/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section poll: extended completion queues, polled one completion at a time and read field by field; the device's clock.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <endian.h>
#include <time.h>

#include "sections.h"
#include "transfer.h"

enum {
	STAMP = IBV_WC_EX_WITH_COMPLETION_TIMESTAMP,
	WALL = IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK,
	IMM = 0x01020304,
};
#define SECOND UINT64_C(1000000000)

static struct ibv_poll_cq_attr none;

static struct ibv_cq_ex *create(struct ibv_context *ctx, uint64_t wc_flags, uint32_t flags, uint32_t cqe)
{
	struct ibv_cq_init_attr_ex a = {.cqe = cqe,
					.cq_context = ctx,
					.wc_flags = wc_flags,
					.comp_mask = flags ? IBV_CQ_INIT_ATTR_MASK_FLAGS : 0,
					.flags = flags};

	return ibv_create_cq_ex(ctx, &a);
}

static void use(struct rig *r, struct end *e, struct ibv_cq_ex *x, const struct spec *s)
{
	if (!x && errno == EOPNOTSUPP)
		row_skipped("the device has no such extended CQs");
	NEED(x);
	NEED_EQ(ibv_destroy_qp(e->qp), 0);
	NEED_EQ(ibv_destroy_cq(e->scq), 0);
	e->scq = e->rcq = ibv_cq_ex_to_cq(x);
	e->qp = make_qp(e->pd, e->scq, e->rcq, s);
	(void)r;
}

/* A rig whose ends are polled so. */
static struct rig *poll_rig(uint64_t wc_flags, uint32_t flags, uint32_t cqe)
{
	struct spec s = usual();
	struct rig *r = rig_make(&s);

	use(r, &r->a, create(r->ctx, wc_flags, flags, cqe), &s);
	use(r, &r->b, create(r->ctx, wc_flags, flags, cqe), &s);
	reconnect(r, &s);
	return r;
}

static struct ibv_cq_ex *ex_of(struct ibv_cq *cq)
{
	return (struct ibv_cq_ex *)cq;
}

/* Begins a poll that finds something. */
static struct ibv_cq_ex *begin(struct ibv_cq *cq)
{
	uint64_t end = now_ms() + PATIENCE_MS;
	struct ibv_cq_ex *x = ex_of(cq);
	int err;

	do
		err = ibv_start_poll(x, &none);
	while (err == ENOENT && now_ms() < end);
	NEED_EQ(err, 0);
	return x;
}

static void created(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	for (uint32_t n = 1; n <= 5000; n = n * 3 + 1) {
		struct ibv_cq_ex *x = create(r->ctx, IBV_WC_STANDARD_FLAGS, 0, n);
		struct ibv_cq *cq = x ? ibv_cq_ex_to_cq(x) : NULL;

		NEED(cq && cq->cqe >= (int)n && cq->cq_context == r->ctx && cq->context == r->ctx);
		NEED_EQ(ibv_start_poll(x, &none), ENOENT);
		NEED_EQ(ibv_destroy_cq(cq), 0);
	}
}

static void refused(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_cq_init_attr_ex a = {
		.cqe = 16, .wc_flags = (uint64_t)row->a, .comp_mask = (uint32_t)row->b};

	NEED_NULL(ibv_create_cq_ex(r->ctx, &a), EOPNOTSUPP);
}

static void bad_size(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	NEED_NULL(create(r->ctx, 0, 0, 0), EINVAL);
	NEED_NULL(create(r->ctx, 0, 0, (uint32_t)r->dev.max_cqe + 1), EINVAL);
}

static void fields(const struct row *row)
{
	struct rig *r = poll_rig(IBV_WC_STANDARD_FLAGS, 0, 64);
	struct work w = work(r, (int)row->op, 5, 0, 0, 321);
	struct ibv_cq_ex *x;

	fill(r->a.buf, 321, 1);
	if (takes_receive(row->op))
		post_recv(&r->b, 6, 0, 1000);
	w.wr.imm_data = htobe32(IMM);
	post(r->a.qp, &w);
	x = begin(r->a.scq);
	NEED(x->wr_id == 5 && x->status == IBV_WC_SUCCESS);
	NEED_EQ(ibv_wc_read_opcode(x), row->a);
	NEED_EQ(ibv_wc_read_qp_num(x), r->a.qp->qp_num);
	NEED_EQ(ibv_wc_read_vendor_err(x), 0);
	NEED_EQ(ibv_next_poll(x), ENOENT);
	ibv_end_poll(x);
	if (takes_receive(row->op)) {
		x = begin(r->b.rcq);
		NEED(x->wr_id == 6 && x->status == IBV_WC_SUCCESS);
		NEED_EQ(ibv_wc_read_opcode(x), row->b);
		NEED_EQ(ibv_wc_read_byte_len(x), 321);
		NEED_EQ(ibv_wc_read_qp_num(x), r->b.qp->qp_num);
		NEED_EQ(ibv_wc_read_wc_flags(x), row->op == IBV_WR_SEND ? 0 : IBV_WC_WITH_IMM);
		NEED(row->op == IBV_WR_SEND || be32toh(ibv_wc_read_imm_data(x)) == IMM);
		NEED_EQ(ibv_wc_read_slid(x), 0);
		NEED_EQ(ibv_wc_read_dlid_path_bits(x), 0);
		ibv_end_poll(x);
	}
	NEED(filled(r->b.buf, 321, 1));
}

static void datagram(const struct row *row)
{
	struct rig *r = poll_rig(IBV_WC_STANDARD_FLAGS, 0, 64);
	struct spec s = usual();
	struct ibv_ah_attr to = attr_of(r, &s, 0).ah_attr;
	struct ibv_ah *ah = ibv_create_ah(r->a.pd, &to);
	struct ibv_qp_init_attr init = {
		.send_cq = r->a.scq, .recv_cq = r->a.scq, .cap = s.cap, .qp_type = IBV_QPT_UD};
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_INIT, .port_num = (uint8_t)options.port, .qkey = 1};
	struct work w = work(r, IBV_WR_SEND, 5, 0, 0, 100);
	struct ibv_cq_ex *x;

	(void)row;
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	r->a.qp = ibv_create_qp(r->a.pd, &init);
	NEED(ah && r->a.qp);
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), 0);
	a.qp_state = IBV_QPS_RTR;
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE), 0);
	a.qp_state = IBV_QPS_RTS;
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE | IBV_QP_SQ_PSN), 0);
	post_recv(&r->a, 6, 1000, 140);
	w.wr.send_flags = 0;
	w.wr.wr.ud.ah = ah;
	w.wr.wr.ud.remote_qpn = r->a.qp->qp_num;
	w.wr.wr.ud.remote_qkey = 1;
	post(r->a.qp, &w);
	x = begin(r->a.scq);
	NEED(x->wr_id == 6 && x->status == IBV_WC_SUCCESS);
	NEED_EQ(ibv_wc_read_byte_len(x), 140);
	NEED_EQ(ibv_wc_read_src_qp(x), r->a.qp->qp_num);
	NEED_EQ(ibv_wc_read_wc_flags(x), IBV_WC_GRH);
	ibv_end_poll(x);
	NEED_EQ(ibv_destroy_ah(ah), 0);
}

static void error(const struct row *row)
{
	struct rig *r = poll_rig(IBV_WC_STANDARD_FLAGS, 0, 64);
	struct work w = work(r, IBV_WR_RDMA_WRITE, 5, 0, 0, 8);
	struct ibv_cq_ex *x;

	(void)row;
	w.wr.wr.rdma.rkey ^= 0x5555;
	post(r->a.qp, &w);
	post(r->a.qp, &w);
	x = begin(r->a.scq);
	NEED(x->wr_id == 5 && x->status == IBV_WC_REM_ACCESS_ERR);
	NEED_EQ(ibv_wc_read_qp_num(x), r->a.qp->qp_num);
	NEED(ibv_wc_read_vendor_err(x));
	ibv_end_poll(x);
	x = begin(r->a.scq);
	NEED(x->wr_id == 5 && x->status == IBV_WC_WR_FLUSH_ERR);
	ibv_end_poll(x);
}

/* All there is in one poll, in order; what is not read then is read next time. */
static void in_order(const struct row *row)
{
	struct rig *r = poll_rig(0, (uint32_t)row->a, 64);
	uint64_t next = 0;

	while (next < 3000) {
		struct ibv_cq_ex *x;
		unsigned n = 0;

		if (next % 30 == 0)
			post_many(r, IBV_WR_RDMA_WRITE, next, 30, 8, IBV_SEND_SIGNALED);
		x = begin(r->a.scq);
		do {
			NEED_EQ(x->wr_id, next++);
			NEED_EQ(x->status, IBV_WC_SUCCESS);
		} while (++n < 7 && next % 30 && !ibv_next_poll(x));
		ibv_end_poll(x);
	}
	need_quiet(r->a.scq);
}

static void by_turns(const struct row *row)
{
	struct rig *r = poll_rig(0, 0, 64);

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 0, 40, 8, IBV_SEND_SIGNALED);
	for (uint64_t i = 0; i < 40; i += 2) {
		struct ibv_cq_ex *x = begin(r->a.scq);

		NEED_EQ(x->wr_id, i);
		ibv_end_poll(x);
		need_wc(r->a.scq, i + 1, IBV_WC_SUCCESS);
	}
}

static void unknown_attribute(const struct row *row)
{
	struct rig *r = poll_rig(0, 0, 64);
	struct ibv_poll_cq_attr a = {.comp_mask = 1};

	(void)row;
	NEED_EQ(ibv_start_poll(ex_of(r->a.scq), &a), EINVAL);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

static void event(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_comp_channel *channel = ibv_create_comp_channel(r->ctx);
	struct ibv_cq_init_attr_ex a = {.cqe = 64, .channel = channel};
	struct spec s = usual();
	struct ibv_cq_ex *x;

	(void)row;
	NEED(channel);
	use(r, &r->a, ibv_create_cq_ex(r->ctx, &a), &s);
	r->a.channel = channel;
	reconnect(r, &s);
	NEED_EQ(ibv_req_notify_cq(r->a.scq, 0), 0);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_cq_event(channel, r->a.scq);
	ibv_ack_cq_events(r->a.scq, 1);
	x = begin(r->a.scq);
	NEED_EQ(x->wr_id, 1);
	ibv_end_poll(x);
}

static void overrun_ignored(const struct row *row)
{
	struct rig *r = poll_rig(0, IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN, 4);
	struct ibv_cq_ex *x;
	unsigned n = 0;

	(void)row;
	post_many(r, IBV_WR_RDMA_WRITE, 0, 40, 8, IBV_SEND_SIGNALED);
	sleep_ms(QUIET_MS);
	need_no_event(r->ctx);
	x = begin(r->a.scq);
	do
		NEED_EQ(x->wr_id, n++);
	while (!ibv_next_poll(x));
	ibv_end_poll(x);
	NEED(n >= 4);
	post_many(r, IBV_WR_RDMA_WRITE, 100, 1, 8, IBV_SEND_SIGNALED);
	x = begin(r->a.scq);
	NEED(x->wr_id == 100 && x->status == IBV_WC_SUCCESS);
	ibv_end_poll(x);
}

/* ---- the clock ---- */

static uint64_t device_ns(struct ibv_context *ctx)
{
	struct ibv_values_ex v = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK};

	NEED_EQ(ibv_query_rt_values_ex(ctx, &v), 0);
	NEED_EQ(v.comp_mask, IBV_VALUES_MASK_RAW_CLOCK);
	return (uint64_t)v.raw_clock.tv_sec * SECOND + (uint64_t)v.raw_clock.tv_nsec;
}

static void clock_runs(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_device_attr_ex dev;
	uint64_t before, after;

	(void)row;
	NEED_EQ(ibv_query_device_ex(r->ctx, NULL, &dev), 0);
	NEED(dev.hca_core_clock && dev.completion_timestamp_mask);
	before = device_ns(r->ctx);
	sleep_ms(50);
	after = device_ns(r->ctx);
	NEED(after - before >= SECOND / 20 && after - before < 5 * SECOND);
}

static void clock_unknown(const struct row *row)
{
	struct ibv_values_ex v = {.comp_mask = 1u << 7};

	(void)row;
	NEED_EQ(ibv_query_rt_values_ex(rig()->ctx, &v), EINVAL);
}

/* In ticks of hca_core_clock; between what the clock showed before and after. */
static void stamps(const struct row *row)
{
	struct rig *r = poll_rig(STAMP, 0, 64);
	struct ibv_device_attr_ex dev;
	uint64_t last = 0;

	(void)row;
	NEED_EQ(ibv_query_device_ex(r->ctx, NULL, &dev), 0);
	for (int i = 0; i < 20; i++) {
		uint64_t before = device_ns(r->ctx), at;
		struct ibv_cq_ex *x;

		post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
		x = begin(r->a.scq);
		at = ibv_wc_read_completion_ts(x);
		ibv_end_poll(x);
		NEED_EQ(at & ~dev.completion_timestamp_mask, 0);
		at = (uint64_t)((unsigned __int128)at * 1000000 / dev.hca_core_clock);
		NEED(at >= before && at <= device_ns(r->ctx) && at > last);
		last = at;
	}
}

static void wall(const struct row *row)
{
	struct rig *r = poll_rig(WALL, 0, 64);
	struct timespec before, after;
	struct ibv_cq_ex *x;
	uint64_t at;

	(void)row;
	clock_gettime(CLOCK_REALTIME, &before);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	x = begin(r->a.scq);
	at = ibv_wc_read_completion_wallclock_ns(x);
	ibv_end_poll(x);
	clock_gettime(CLOCK_REALTIME, &after);
	/* to a millisecond: it may have been converted */
	NEED(at + SECOND / 1000 >= (uint64_t)before.tv_sec * SECOND + (uint64_t)before.tv_nsec);
	NEED(at <= (uint64_t)after.tv_sec * SECOND + (uint64_t)after.tv_nsec + SECOND / 1000);
}

#define EX "ibv_create_cq_ex(3)"
#define RT "ibv_query_rt_values_ex(3)"

static const struct row rows[] = {
	{"created, polled and destroyed", EX, created},
	{"sizes that are refused", EX, bad_size},
	{"a VLAN cannot be read", EX, refused, .a = IBV_WC_EX_WITH_CVLAN},
	{"a flow tag cannot be read", EX, refused, .a = IBV_WC_EX_WITH_FLOW_TAG},
	{"tag matching cannot be read", EX, refused, .a = IBV_WC_EX_WITH_TM_INFO},
	{"an unknown attribute of creation", EX, refused, .b = 1 << 20},
	{"fields of a SEND", EX, fields, IBV_WR_SEND, IBV_WC_SEND, IBV_WC_RECV},
	{"fields of a SEND with immediate", EX, fields, IBV_WR_SEND_WITH_IMM, IBV_WC_SEND, IBV_WC_RECV},
	{"fields of a WRITE", EX, fields, IBV_WR_RDMA_WRITE, IBV_WC_RDMA_WRITE},
	{"fields of a WRITE with immediate", EX, fields, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WC_RDMA_WRITE,
	 IBV_WC_RECV_RDMA_WITH_IMM},
	{"fields of a datagram", EX, datagram},
	{"fields of an error", EX, error},
	{"several in a poll, in order", EX, in_order},
	{"for one thread only", EX, in_order, .a = IBV_CREATE_CQ_ATTR_SINGLE_THREADED},
	{"by turns with ibv_poll_cq()", EX, by_turns},
	{"an unknown attribute of a poll", EX, unknown_attribute},
	{"an event", EX, event},
	{"an overrun that is ignored", EX, overrun_ignored},
	{"the clock runs", RT, clock_runs},
	{"an unknown value", RT, clock_unknown},
	{"timestamps are of that clock", EX, stamps},
	{"wall clock timestamps", EX, wall},
};

const struct section section_poll = {"poll", "extended completion queues and the clock", rows, COUNT(rows)};
