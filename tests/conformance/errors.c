/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of errors, and docs/errors.md.
 *
 * Room: tests. May use: verbs and libc.
 */
#include "errors.h"

enum { LEN = 3000 };

/* ---- how they are provoked ---- */

static struct work request(struct rig *r, int op, size_t len)
{
	if (op == IBV_WR_ATOMIC_CMP_AND_SWP || op == IBV_WR_ATOMIC_FETCH_AND_ADD)
		return atomic_work(r, op, 1, 0, 0, 1, 1);
	return work(r, op, 1, 0, 0, len);
}

/* Posts it, with a receive for what needs one. */
static void go(struct rig *r, struct work *w)
{
	if (takes_receive(w->wr.opcode))
		post_recv(&r->b, 2, 0, LEN);
	post(r->a.qp, w);
}

static bool is_atomic(const struct work *w)
{
	return w->wr.opcode == IBV_WR_ATOMIC_CMP_AND_SWP || w->wr.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
}

static void aim(struct work *w, uint64_t addr, uint32_t rkey)
{
	if (is_atomic(w)) {
		w->wr.wr.atomic.remote_addr = addr;
		w->wr.wr.atomic.rkey = rkey;
	} else {
		w->wr.wr.rdma.remote_addr = addr;
		w->wr.wr.rdma.rkey = rkey;
	}
}

static void no_receive(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, 8);

	post(r->a.qp, &w);
}

static void no_peer(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, 8);

	to_state(r->b.qp, IBV_QPS_RESET);
	post(r->a.qp, &w);
}

static void bad_rkey(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, LEN);

	aim(&w, (uintptr_t)r->b.buf, r->b.mr->rkey ^ 0x2a);
	go(r, &w);
}

static void remote_bounds(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, LEN);

	aim(&w, (uintptr_t)r->b.buf + r->b.size - (is_atomic(&w) ? 0 : LEN - 1), r->b.mr->rkey);
	go(r, &w);
}

/* A region of b's that lacks the right arg.n */
static void remote_region_right(struct rig *r, struct error_arg arg)
{
	struct ibv_mr *mr = need_mr(r->b.pd, r->b.buf, LEN, ALL_ACCESS & ~(int)arg.n);
	struct work w = request(r, arg.op, LEN);

	aim(&w, (uintptr_t)r->b.buf, mr->rkey);
	go(r, &w);
}

static void remote_qp_right(struct rig *r, struct error_arg arg)
{
	struct ibv_qp_attr a = {.qp_access_flags = (unsigned)(ALL_ACCESS & ~arg.n)};
	struct work w = request(r, arg.op, LEN);

	NEED_EQ(ibv_modify_qp(r->b.qp, &a, IBV_QP_ACCESS_FLAGS), 0);
	go(r, &w);
}

static void remote_other_pd(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, LEN);

	aim(&w, (uintptr_t)r->a.buf, r->a.mr->rkey); /* a's domain, b's QP */
	go(r, &w);
}

static void remote_deregistered(struct rig *r, struct error_arg arg)
{
	struct ibv_mr *mr = need_mr(r->b.pd, r->b.buf, LEN, ALL_ACCESS);
	struct work w = request(r, arg.op, LEN);

	aim(&w, (uintptr_t)r->b.buf, mr->rkey);
	NEED_EQ(ibv_dereg_mr(mr), 0);
	go(r, &w);
}

static void receive_too_short(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, (size_t)arg.n);

	post_recv(&r->b, 2, 0, (size_t)arg.n - 1);
	post(r->a.qp, &w);
}

static void plain(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, LEN);

	go(r, &w);
}

static void misaligned(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, 8);

	aim(&w, (uintptr_t)r->b.buf + 4, r->b.mr->rkey);
	post(r->a.qp, &w);
}

/* An SGE for `e` with something wrong about its memory: arg.n says what. */
enum wrong { BAD_LKEY, BOUNDS, READ_ONLY, OTHER_PD, DEREGISTERED };

static struct ibv_sge bad_sge(const struct end *e, const struct end *other, enum wrong wrong, uint32_t len)
{
	struct ibv_sge sge = {.addr = (uintptr_t)e->buf, .length = len, .lkey = e->mr->lkey};
	struct ibv_mr *mr;

	switch (wrong) {
	case BAD_LKEY:
		sge.lkey ^= 0x15;
		break;
	case BOUNDS:
		sge.addr = (uintptr_t)e->buf + e->size - len + 1;
		break;
	case READ_ONLY:
		sge.lkey = need_mr(e->pd, e->buf, len, IBV_ACCESS_REMOTE_READ)->lkey;
		break;
	case OTHER_PD:
		sge.lkey = need_mr(other->pd, e->buf, len, ALL_ACCESS)->lkey;
		break;
	case DEREGISTERED:
		mr = need_mr(e->pd, e->buf, len, ALL_ACCESS);
		sge.lkey = mr->lkey;
		NEED_EQ(ibv_dereg_mr(mr), 0);
		break;
	}
	return sge;
}

static void bad_receive_memory(struct rig *r, struct error_arg arg)
{
	struct ibv_sge sge = bad_sge(&r->b, &r->a, (enum wrong)arg.n, LEN);
	struct work w = request(r, arg.op, LEN);

	NEED_EQ(try_recv(r->b.qp, 2, &sge, 1), 0);
	post(r->a.qp, &w);
}

static void bad_local_memory(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, LEN);

	w.sge[0] = bad_sge(&r->a, &r->b, (enum wrong)arg.n, w.sge[0].length);
	if (takes_receive(arg.op))
		post_recv(&r->b, 2, 0, LEN);
	post(r->a.qp, &w);
}

/* Sixteen SGEs over the same 136 MiB. */
static void longer_than_messages(struct rig *r, struct error_arg arg)
{
	const size_t size = 136 << 20;
	void *p = pages(size);
	struct ibv_mr *mr = need_mr(r->a.pd, p, size, 0);
	struct work w = request(r, arg.op, 8);

	w.wr.num_sge = 16;
	for (int i = 0; i < 16; i++)
		w.sge[i] = (struct ibv_sge){.addr = (uintptr_t)p, .length = (uint32_t)size, .lkey = mr->lkey};
	post(r->a.qp, &w);
}

/* What is wrong with the bind: no IBV_ACCESS_MW_BIND (0), bounds (1). */
static void bad_bind(struct rig *r, struct error_arg arg)
{
	struct ibv_send_wr wr = {.wr_id = 1, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED}, *bad;
	struct ibv_mw *mw;

	if (!r->dev.max_mw)
		row_skipped("max_mw is 0: the device has no memory windows");
	mw = ibv_alloc_mw(r->a.pd, IBV_MW_TYPE_2);
	NEED(mw);
	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
	wr.bind_mw.bind_info = (struct ibv_mw_bind_info){
		.mr = arg.n ? need_mr(r->a.pd, r->a.buf, 4096, ALL_ACCESS | IBV_ACCESS_MW_BIND) : r->a.mr,
		.addr = (uintptr_t)r->a.buf,
		.length = 4097,
		.mw_access_flags = IBV_ACCESS_REMOTE_READ};
	NEED_EQ(ibv_post_send(r->a.qp, &wr, &bad), 0);
}

static void in_error(struct rig *r, struct error_arg arg)
{
	struct work w = request(r, arg.op, 8);

	to_state(r->a.qp, IBV_QPS_ERR);
	post(r->a.qp, &w);
}

/* ---- what their rigs are like ---- */

static void impatient(struct spec *s)
{
	s->rnr_retry = 0;
}
static void short_timeout(struct spec *s)
{
	s->timeout = 8;
	s->retry_cnt = 1;
}
static void no_responder_depth(struct spec *s)
{
	s->dest_rd_atomic = 0;
}
static void no_initiator_depth(struct spec *s)
{
	s->rd_atomic = 0;
}
static void many_sges(struct spec *s)
{
	s->cap.max_send_sge = 16;
}

/* ---- the table ---- */

#define RR IBV_WR_RDMA_READ
#define RW IBV_WR_RDMA_WRITE
#define WI IBV_WR_RDMA_WRITE_WITH_IMM
#define SD IBV_WR_SEND
#define FA IBV_WR_ATOMIC_FETCH_AND_ADD
#define CS IBV_WR_ATOMIC_CMP_AND_SWP

/* The responder refuses access. */
#define ACCESS(name, how, op, n, advice)                                                                     \
	{                                                                                                    \
		name, "9.7.5.2.4", NULL, how, {op, n}, IBV_WC_REM_ACCESS_ERR, NO_CQE, "remote access error", \
			IBV_QPS_ERR, IBV_QPS_ERR, IBV_EVENT_QP_ACCESS_ERR, advice                            \
	}
/* The responder finds the request invalid. */
#define INVALID(name, prepare, how, op, advice)                                                              \
	{                                                                                                    \
		name, "9.7.5.2.3", prepare, how, {op, 0}, IBV_WC_REM_INV_REQ_ERR, NO_CQE, "invalid request", \
			IBV_QPS_ERR, IBV_QPS_ERR, IBV_EVENT_QP_REQ_ERR, advice                               \
	}
#define TOO_LONG(name, op, n)                                                                                \
	{                                                                                                    \
		name, "9.7.5.2.3", NULL, receive_too_short, {op, n}, IBV_WC_REM_INV_REQ_ERR,                 \
			IBV_WC_LOC_LEN_ERR, "invalid request", IBV_QPS_ERR, IBV_QPS_ERR, NO_EVENT,           \
			"post receives as long as the longest message"                                       \
	}
/* The responder's own receive is no good. */
#define RECEIVE(name, n, advice)                                                                             \
	{                                                                                                    \
		name, "9.7.5.2.5", NULL, bad_receive_memory, {SD, n}, IBV_WC_REM_OP_ERR,                     \
			IBV_WC_LOC_PROT_ERR, "remote operational error", IBV_QPS_ERR, IBV_QPS_ERR, NO_EVENT, \
			advice                                                                               \
	}
/* The requester's own request is no good; the peer never hears of it. */
#define LOCAL(name, prepare, how, op, n, status, advice)                                                     \
	{                                                                                                    \
		name, "10.10.2.2", prepare, how, {op, n}, status, NO_CQE, "none", IBV_QPS_ERR, IBV_QPS_RTS,  \
			NO_EVENT, advice                                                                     \
	}
#define PROTECTION(name, op, n, advice)                                                                      \
	LOCAL(name, NULL, bad_local_memory, op, n, IBV_WC_LOC_PROT_ERR, advice)

#define KEYS "exchange the key and the address again; was the region registered anew?"
#define RANGE "check address and length against the region that the key is of"
#define REGION_RIGHTS "register the region with the right"
#define QP_RIGHTS "give the right in qp_access_flags"
#define SAME_PD "register the memory in the QP's protection domain"
#define ALIVE "deregister only when nobody uses the key any more"
#define DEPTH "agree on max_rd_atomic and max_dest_rd_atomic when connecting"

const struct error errors[] = {
	{"SEND, and no receive is posted (rnr_retry 0)",
	 "9.7.5.2.8",
	 impatient,
	 no_receive,
	 {SD, 0},
	 IBV_WC_RNR_RETRY_EXC_ERR,
	 NO_CQE,
	 "RNR",
	 IBV_QPS_ERR,
	 IBV_QPS_RTS,
	 NO_EVENT,
	 "post receives earlier, or set rnr_retry to 7"},
	{"WRITE_IMM, and no receive is posted (rnr_retry 0)",
	 "9.7.5.2.8",
	 impatient,
	 no_receive,
	 {WI, 0},
	 IBV_WC_RNR_RETRY_EXC_ERR,
	 NO_CQE,
	 "RNR",
	 IBV_QPS_ERR,
	 IBV_QPS_RTS,
	 NO_EVENT,
	 "post receives earlier, or set rnr_retry to 7"},
	{"the peer does not answer",
	 "9.7.6.1.3",
	 short_timeout,
	 no_peer,
	 {RW, 0},
	 IBV_WC_RETRY_EXC_ERR,
	 NO_CQE,
	 "none",
	 IBV_QPS_ERR,
	 IBV_QPS_RESET,
	 NO_EVENT,
	 "is the peer alive, its QP at least in RTR, its number and GID right? Else a longer timeout or more retries"},

	ACCESS("WRITE with a wrong rkey", bad_rkey, RW, 0, KEYS),
	ACCESS("WRITE_IMM with a wrong rkey", bad_rkey, WI, 0, KEYS),
	ACCESS("READ with a wrong rkey", bad_rkey, RR, 0, KEYS),
	ACCESS("FETCH_ADD with a wrong rkey", bad_rkey, FA, 0, KEYS),
	ACCESS("CMP_SWAP with a wrong rkey", bad_rkey, CS, 0, KEYS),
	ACCESS("WRITE beyond the region", remote_bounds, RW, 0, RANGE),
	ACCESS("READ beyond the region", remote_bounds, RR, 0, RANGE),
	ACCESS("FETCH_ADD beyond the region", remote_bounds, FA, 0, RANGE),
	ACCESS("WRITE, region without remote write", remote_region_right, RW, IBV_ACCESS_REMOTE_WRITE,
	       REGION_RIGHTS),
	ACCESS("READ, region without remote read", remote_region_right, RR, IBV_ACCESS_REMOTE_READ,
	       REGION_RIGHTS),
	ACCESS("CMP_SWAP, region without remote atomic", remote_region_right, CS, IBV_ACCESS_REMOTE_ATOMIC,
	       REGION_RIGHTS),
	ACCESS("WRITE, QP without remote write", remote_qp_right, RW, IBV_ACCESS_REMOTE_WRITE, QP_RIGHTS),
	ACCESS("READ, QP without remote read", remote_qp_right, RR, IBV_ACCESS_REMOTE_READ, QP_RIGHTS),
	ACCESS("FETCH_ADD, QP without remote atomic", remote_qp_right, FA, IBV_ACCESS_REMOTE_ATOMIC,
	       QP_RIGHTS),
	ACCESS("WRITE, region of another domain", remote_other_pd, RW, 0, SAME_PD),
	ACCESS("READ, region of another domain", remote_other_pd, RR, 0, SAME_PD),
	ACCESS("WRITE, region deregistered", remote_deregistered, RW, 0, ALIVE),
	ACCESS("READ, region deregistered", remote_deregistered, RR, 0, ALIVE),

	TOO_LONG("SEND longer than the receive, one packet", SD, 100),
	TOO_LONG("SEND longer than the receive, several packets", SD, LEN),
	INVALID("FETCH_ADD on an address that 8 does not divide", NULL, misaligned, FA, "align the word"),
	INVALID("CMP_SWAP on an address that 8 does not divide", NULL, misaligned, CS, "align the word"),
	INVALID("READ to a QP with max_dest_rd_atomic 0", no_responder_depth, plain, RR, DEPTH),
	INVALID("FETCH_ADD to a QP with max_dest_rd_atomic 0", no_responder_depth, plain, FA, DEPTH),

	RECEIVE("the receive has a wrong lkey", BAD_LKEY, "use the lkey of the region that holds the buffer"),
	RECEIVE("the receive goes beyond its region", BOUNDS, RANGE),
	RECEIVE("the receive's region has no local write", READ_ONLY, REGION_RIGHTS),
	RECEIVE("the receive's region is of another domain", OTHER_PD, SAME_PD),
	RECEIVE("the receive's region was deregistered", DEREGISTERED, ALIVE),

	LOCAL("a message longer than 2 GiB", many_sges, longer_than_messages, RW, 0, IBV_WC_LOC_LEN_ERR,
	      "split it: max_msg_sz of the port"),
	PROTECTION("SEND with a wrong lkey", SD, BAD_LKEY,
		   "use the lkey of the region that holds the buffer"),
	PROTECTION("WRITE with a wrong lkey", RW, BAD_LKEY,
		   "use the lkey of the region that holds the buffer"),
	PROTECTION("READ with a wrong lkey", RR, BAD_LKEY,
		   "use the lkey of the region that holds the buffer"),
	PROTECTION("FETCH_ADD with a wrong lkey", FA, BAD_LKEY,
		   "use the lkey of the region that holds the buffer"),
	PROTECTION("WRITE from beyond the region", RW, BOUNDS, RANGE),
	PROTECTION("READ to beyond the region", RR, BOUNDS, RANGE),
	PROTECTION("READ into a region without local write", RR, READ_ONLY, REGION_RIGHTS),
	PROTECTION("CMP_SWAP into a region without local write", CS, READ_ONLY, REGION_RIGHTS),
	PROTECTION("WRITE from a region of another domain", RW, OTHER_PD, SAME_PD),
	PROTECTION("READ to a region of another domain", RR, OTHER_PD, SAME_PD),
	PROTECTION("WRITE from a deregistered region", RW, DEREGISTERED, ALIVE),
	PROTECTION("READ to a deregistered region", RR, DEREGISTERED, ALIVE),
	LOCAL("READ from a QP with max_rd_atomic 0", no_initiator_depth, plain, RR, 0, IBV_WC_LOC_QP_OP_ERR,
	      DEPTH),
	LOCAL("FETCH_ADD from a QP with max_rd_atomic 0", no_initiator_depth, plain, FA, 0,
	      IBV_WC_LOC_QP_OP_ERR, DEPTH),
	LOCAL("a window, region without IBV_ACCESS_MW_BIND", NULL, bad_bind, IBV_WR_BIND_MW, 0,
	      IBV_WC_MW_BIND_ERR, REGION_RIGHTS),
	LOCAL("a window beyond its region", NULL, bad_bind, IBV_WR_BIND_MW, 1, IBV_WC_MW_BIND_ERR, RANGE),
	LOCAL("any request posted to a QP in ERR", NULL, in_error, RW, 0, IBV_WC_WR_FLUSH_ERR,
	      "look for the first completion with another error; take the QP to RESET and connect again"),
};

const size_t nerrors = COUNT(errors);

/* ---- docs/errors.md ---- */

static const char *status_name(int status)
{
	static const char *const names[] = {
		[IBV_WC_LOC_LEN_ERR] = "LOC_LEN_ERR",
		[IBV_WC_LOC_QP_OP_ERR] = "LOC_QP_OP_ERR",
		[IBV_WC_LOC_PROT_ERR] = "LOC_PROT_ERR",
		[IBV_WC_WR_FLUSH_ERR] = "WR_FLUSH_ERR",
		[IBV_WC_REM_INV_REQ_ERR] = "REM_INV_REQ_ERR",
		[IBV_WC_REM_ACCESS_ERR] = "REM_ACCESS_ERR",
		[IBV_WC_REM_OP_ERR] = "REM_OP_ERR",
		[IBV_WC_RETRY_EXC_ERR] = "RETRY_EXC_ERR",
		[IBV_WC_RNR_RETRY_EXC_ERR] = "RNR_RETRY_EXC_ERR",
		[IBV_WC_MW_BIND_ERR] = "MW_BIND_ERR",
	};

	return status == NO_CQE ? "none" : names[status];
}

static const char *state_name(enum ibv_qp_state state)
{
	return state == IBV_QPS_ERR ? "ERR" : state == IBV_QPS_RESET ? "RESET" : "RTS";
}

static const char *event_name(int event)
{
	return event == IBV_EVENT_QP_ACCESS_ERR ? "QP_ACCESS_ERR"
	       : event == IBV_EVENT_QP_REQ_ERR	? "QP_REQ_ERR"
						: "none";
}

void errors_markdown(FILE *out)
{
	fputs("<!-- SPDX-License-Identifier: BSD-3-Clause -->\n"
	      "<!-- Printed by the conformance program: tests/conformance/run.sh --write -->\n"
	      "# Errors of reliable connections\n\n"
	      "What both ends are told. Each line is checked by the rows of the same name in sections `errors` and `events` "
	      "of\n[the conformance program](conformance.md). Statuses are completions' `IBV_WC_...`, of the request and of "
	      "the receive it took at the\nresponder; events are `IBV_EVENT_...` for the responder's QP. The requester's QP "
	      "has no event of its own, since its completion\ntells. Whatever is outstanding on a QP that goes into ERR "
	      "completes with `IBV_WC_WR_FLUSH_ERR`, in order, behind the error.\n\n"
	      "| cause | requester | responder | NAK | QPs then | event | what to do |\n|---|---|---|---|---|---|---|\n",
	      out);
	for (const struct error *e = errors; e < errors + nerrors; e++)
		fprintf(out, "| %s | %s | %s | %s | %s, %s | %s | %s |\n", e->name,
			status_name((int)e->status), status_name(e->recv_status), e->nak, state_name(e->a),
			state_name(e->b), event_name(e->event), e->advice);
	fputs("\nBesides: a completion queue that overruns has `IBV_EVENT_CQ_ERR`, and each QP that could not complete\n"
	      "`IBV_EVENT_QP_FATAL`; when the device goes away there is one `IBV_EVENT_DEVICE_FATAL`, and everything "
	      "outstanding completes\nwith `IBV_WC_WR_FLUSH_ERR`.\n",
	      out);
}
