/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The completer: ACKs, NAKs and READ responses move the send queue on; WQEs that are over become CQEs in order.
 *
 * Room: transport. IBTA 9.7.5, 9.7.6 (acknowledges, timers, retries), 9.9.2 (requester errors). What acknowledges
 * something that was never sent is counted and ignored.
 */
#include "transport/qp.h"

enum { RNR_FOREVER = 7 };

/* RNR NAK timer field to ns (IBTA table 45). */
static const uint64_t rnr_delay[32] = {
	655360000, 10000,    20000,    30000,	  40000,     60000,	80000,	   120000,
	160000,	   240000,   320000,   480000,	  640000,    960000,	1280000,   1920000,
	2560000,   3840000,  5120000,  7680000,	  10240000,  15360000,	20480000,  30720000,
	40960000,  61440000, 81920000, 122880000, 163840000, 245760000, 327680000, 491520000,
};

static void in_flight_restart(struct fx_tp *tp, struct fx_qp *qp)
{
	qp->rto_at = tp->now + qp->rto;
	if (qp->next_psn != qp->una_psn)
		fx_timer_set(tp, qp, qp->rto_at);
}

/* Something new was acknowledged. */
static void progressed(struct fx_tp *tp, struct fx_qp *qp)
{
	qp->retries = qp->rnr_retries = 0;
	qp->rewound = false;
	if (fx_psn_diff(qp->una_psn, qp->next_psn) > 0)
		fx_requester_rewind(tp, qp); /* it answers what was sent before going back: skip that */
	in_flight_restart(tp, qp);
	fx_touch(tp, qp);
	fx_run(tp, qp);
}

/* The WQE at `ack` is acknowledged, and those behind it that needed no acknowledge and have happened already. */
static void ack_next(struct fx_qp *qp)
{
	struct fx_wqe *w;

	do {
		fx_cursor_next(&qp->ack);
		w = qp->ack.index != qp->post_index ? fx_wqe_at(&qp->ack) : NULL;
	} while (w && fx_wqe_local(w) && w->placed);
	qp->resp_sge = qp->resp_sge_off = 0;
}

/*
 * All requests before `to` have arrived. Stops at one that fetches and whose data has not: returns false, for it is
 * lost.
 * `to` is at most high_psn.
 */
static bool acknowledge(struct fx_tp *tp, struct fx_qp *qp, uint32_t to)
{
	uint32_t from = qp->una_psn;
	bool whole = true;

	while (fx_psn_diff(to, qp->una_psn) > 0) {
		struct fx_wqe *w = fx_wqe_at(&qp->ack);
		uint32_t end = fx_psn_add(w->psn, w->npkt);

		if (fx_wqe_fetches(w)) {
			whole = false;
			break;
		}
		if (fx_psn_diff(to, end) < 0) {
			qp->una_psn = to;
			break;
		}
		qp->una_psn = end;
		ack_next(qp);
	}
	if (qp->una_psn != from)
		progressed(tp, qp);
	return whole;
}

/* Go back to una_psn, once for each gap. */
static void go_back(struct fx_tp *tp, struct fx_qp *qp)
{
	if (qp->rewound && qp->rewound_psn == qp->una_psn)
		return;
	qp->rewound = true;
	qp->rewound_psn = qp->una_psn;
	fx_requester_rewind(tp, qp);
}

void fx_completer_fail(struct fx_tp *tp, struct fx_qp *qp, uint8_t status, uint8_t syndrome,
		       enum fx_cause cause)
{
	if (qp->ack.index != qp->post_index) {
		struct fx_wqe *w = fx_wqe_at(&qp->ack);

		w->status = status;
		w->syndrome = syndrome ? syndrome : cause;
		fx_cursor_next(&qp->ack);
	}
	fx_qp_send_error(tp, qp, cause, qp->ack);
}

/* It goes back: what was sent before it completes first, and then it is not sent a second time. */
void fx_completer_lost(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w)
{
	const struct fx_chunk *c = (struct fx_chunk *)((uintptr_t)w & ~(uintptr_t)(FX_CHUNK_SIZE - 1));

	bool passed = (int32_t)(w->index - qp->ack.index) < 0;

	if ((qp->state != FX_QPS_RTS && qp->state != FX_QPS_SQD) || c->retired || (passed && qp->acks))
		return; /* of an earlier life, or it went again and arrived */
	w->status = FX_WC_LOC_PROT_ERR;
	w->syndrome = FX_CAUSE_LOST_SOURCE;
	if (passed)
		return;
	if (!qp->acks)
		qp->una_psn = qp->next_psn; /* what was sent is not sent again */
	fx_requester_rewind(tp, qp);
}

/* Of a WQE that fails without the peer's doing. */
static enum fx_cause own_cause(const struct fx_wqe *w)
{
	return w->syndrome ? w->syndrome : FX_CAUSE_BAD_REQUEST;
}

/*
 * Nobody tells how fast the receiver is, but what waits in the transmit queue does: there the window ends. A port that
 * hands the very buffers over so holds back whoever sends faster than they are taken.
 */
static void window_of_segments(struct fx_qp *qp)
{
	uint32_t out = qp->refs < qp->window ? qp->refs : qp->window;

	qp->una_psn = fx_psn_add(qp->next_psn, 0u - out);
}

void fx_completer_left(struct fx_tp *tp, struct fx_qp *qp)
{
	window_of_segments(qp);
	fx_completer_settle(tp, qp);
	fx_run(tp, qp);
}

/* So it is over when its segments have left (guarantee L1). */
void fx_completer_sent(struct fx_tp *tp, struct fx_qp *qp)
{
	window_of_segments(qp);
	if (qp->ack.index == qp->cur.index)
		return; /* there is more of it */
	qp->ack = qp->cur;
	fx_completer_retire(tp, qp);
}

void fx_completer_settle(struct fx_tp *tp, struct fx_qp *qp)
{
	if (qp->cut_err && qp->una_psn == qp->next_psn && qp->state != FX_QPS_ERR)
		fx_completer_fail(tp, qp, qp->cut_err, 0, own_cause(fx_wqe_at(&qp->ack)));
}

/* ---- acknowledges ---- */

static void rx_rnr(struct fx_tp *tp, struct fx_qp *qp, uint8_t syndrome)
{
	if (qp->rnr_wait)
		return;
	if (qp->attr.rnr_retry != RNR_FOREVER && qp->rnr_retries >= qp->attr.rnr_retry) {
		fx_completer_fail(tp, qp, FX_WC_RNR_RETRY_EXC_ERR, syndrome, FX_CAUSE_NO_RECEIVE);
		return;
	}
	qp->rnr_retries++;
	qp->retries = 0; /* it answers: only silence, and gaps, in a row count against it */
	tp->n.rnr_waits++;
	qp->rnr_wait = true;
	qp->rnr_at = tp->now + rnr_delay[syndrome & 0x1f];
	fx_requester_rewind(tp, qp);
	fx_timer_set(tp, qp, qp->rnr_at);
}

static const struct {
	uint8_t status;
	enum fx_cause cause;
} naks[4] = {
	[FX_NAK_INVALID_REQUEST & 3] = {FX_WC_REM_INV_REQ_ERR, FX_CAUSE_PEER_INVALID},
	[FX_NAK_REMOTE_ACCESS & 3] = {FX_WC_REM_ACCESS_ERR, FX_CAUSE_PEER_ACCESS},
	[FX_NAK_REMOTE_OP & 3] = {FX_WC_REM_OP_ERR, FX_CAUSE_PEER_OPERATION},
};

static void rx_nak(struct fx_tp *tp, struct fx_qp *qp, uint8_t syndrome)
{
	if (syndrome == FX_NAK_PSN) {
		if (qp->rewound && qp->rewound_psn == qp->una_psn)
			return;
		if (qp->retries >= qp->attr.retry_cnt) {
			fx_completer_fail(tp, qp, FX_WC_RETRY_EXC_ERR, syndrome, FX_CAUSE_SEQUENCE);
			return;
		}
		qp->retries++;
		go_back(tp, qp);
		return;
	}
	if (syndrome > FX_NAK_REMOTE_OP) {
		tp->n.rx_bad_ack++;
		return;
	}
	fx_completer_fail(tp, qp, naks[syndrome & 3].status, syndrome, naks[syndrome & 3].cause);
}

static void rx_acknowledge(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	uint8_t type = p->bth.aeth.syndrome & FX_AETH_TYPE;
	bool ack = type == FX_AETH_ACK;

	if (fx_psn_diff(p->psn, qp->high_psn) >= 0 || (!ack && type != FX_AETH_RNR && type != FX_AETH_NAK)) {
		tp->n.rx_bad_ack++;
		return;
	}
	if (ack)
		tp->n.rx_acks++;
	else
		tp->n.rx_naks++;
	if (fx_psn_diff(p->psn, qp->una_psn) < 0)
		return; /* an old one */
	if (!ack)
		qp->naks++;
	if (!acknowledge(tp, qp, ack ? fx_psn_add(p->psn, 1) : p->psn))
		go_back(tp, qp);
	else if (type == FX_AETH_RNR)
		rx_rnr(tp, qp, p->bth.aeth.syndrome);
	else if (type == FX_AETH_NAK)
		rx_nak(tp, qp, p->bth.aeth.syndrome);
	fx_completer_settle(tp, qp);
}

/* ---- READ responses and results of atomics ---- */

/*
 * The result of an atomic is no payload but a header, in network order. So what is placed is the parsed field: memory
 * wants this machine's order. False: there is a payload, where none belongs.
 */
static bool result_as_payload(struct fx_pkt *p)
{
	if (p->len)
		return false;
	p->len = FX_ATOMIC_LEN;
	p->payload_off = p->have;
	p->more[0] = (struct fx_piece){(uint8_t *)&p->bth.atomic_orig, FX_ATOMIC_LEN};
	p->nmore = 1;
	return true;
}

static const uint32_t response_of[FX_WR_OPS] = {
	[FX_WR_READ] = FX_OPF_READ,
	[FX_WR_CMP_SWAP] = FX_OPF_ATOMIC,
	[FX_WR_FETCH_ADD] = FX_OPF_ATOMIC,
};

/* True: the packet went into the placement queue. */
static bool rx_response(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	struct fx_wqe *w;
	uint32_t off, want;
	uint8_t status;

	if (fx_psn_diff(p->psn, qp->high_psn) >= 0 || fx_psn_diff(p->psn, qp->una_psn) < 0) {
		tp->n.rx_bad_response++;
		return false;
	}
	/* a response acknowledges the requests before its own */
	if (!acknowledge(tp, qp, p->psn)) {
		go_back(tp, qp);
		return false;
	}
	w = fx_wqe_at(&qp->ack);
	if (!fx_wqe_fetches(w) || !(response_of[w->op] & flags)) {
		tp->n.rx_bad_response++;
		return false;
	}
	off = (uint32_t)fx_psn_diff(p->psn, w->psn) << qp->mtu_shift;
	want = w->length - off < qp->mtu ? w->length - off : qp->mtu;
	if (flags & FX_OPF_ATOMIC && !result_as_payload(p))
		want = 0;
	if (p->len != want) {
		tp->n.rx_bad_length++;
		return false;
	}
	if (!off)
		qp->resp_sge = qp->resp_sge_off = 0;
	status = fx_sges_check(tp, qp->pd, w->sge, w->nsge, qp->resp_sge, qp->resp_sge_off, p->len,
			       FX_ACC_LOCAL_WRITE);
	if (status) {
		fx_completer_fail(tp, qp, status, 0, FX_CAUSE_BAD_LANDING);
		return false;
	}
	p->act = FX_PLACE_RESPONSE;
	p->wqe = w;
	p->left = p->len;
	p->sge = w->sge;
	p->nsge = w->nsge;
	p->sge_i = qp->resp_sge;
	p->sge_off = qp->resp_sge_off;
	if (fx_place_refuses(tp, qp, p)) {
		tp->n.rx_backlog++;
		return false;
	}
	fx_sges_skip(w->sge, w->nsge, &qp->resp_sge, &qp->resp_sge_off, p->len);
	qp->una_psn = fx_psn_add(p->psn, 1);
	if (off + want == w->length)
		ack_next(qp);
	tp->n.rx_bytes += p->len;
	progressed(tp, qp);
	fx_place_push(tp, &qp->resp, qp, p);
	fx_completer_settle(tp, qp);
	return true;
}

void fx_completer_rx(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	uint32_t flags = fx_opcodes[p->bth.opcode].flags;

	if (qp->state != FX_QPS_RTS && qp->state != FX_QPS_SQD)
		tp->n.rx_wrong_state++;
	else if (flags & FX_OPF_ACK)
		rx_acknowledge(tp, qp, p);
	else if (!(flags & (FX_OPF_READ | FX_OPF_ATOMIC)))
		tp->n.rx_bad_response++;
	else if (qp->resp.n >= FX_BACKLOG || fx_place_full(tp, qp, &qp->resp))
		tp->n.rx_backlog++;
	else if (rx_response(tp, qp, p, flags))
		return;
	fx_release(tp, p);
}

void fx_completer_placed(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	p->wqe->placed += p->len;
	if (p->failed && !p->wqe->status) {
		p->wqe->status = FX_WC_LOC_PROT_ERR;
		p->wqe->syndrome = FX_CAUSE_LOST_LANDING;
	}
	if (!qp->resp.n || qp->resp.n == FX_RESP_ROOM)
		fx_run(tp, qp); /* a fence may have waited for it, or the next READ */
}

/* ---- completions ---- */

static const uint8_t wc_opcodes[FX_WR_OPS] = {
	[FX_WR_SEND] = FX_WC_SEND,
	[FX_WR_SEND_IMM] = FX_WC_SEND,
	[FX_WR_SEND_INV] = FX_WC_SEND,
	[FX_WR_WRITE] = FX_WC_RDMA_WRITE,
	[FX_WR_WRITE_IMM] = FX_WC_RDMA_WRITE,
	[FX_WR_READ] = FX_WC_RDMA_READ,
	[FX_WR_CMP_SWAP] = FX_WC_COMP_SWAP,
	[FX_WR_FETCH_ADD] = FX_WC_FETCH_ADD,
	[FX_WR_LOCAL_INV] = FX_WC_LOCAL_INV,
	[FX_WR_BIND_MW] = FX_WC_BIND_MW,
	[FX_WR_ATOMIC_WRITE] = FX_WC_ATOMIC_WRITE,
};

/* It has happened, and nothing that knows the window from before is under way. Else it is looked at again and again. */
static bool local_over(struct fx_tp *tp, struct fx_qp *qp, const struct fx_wqe *w)
{
	if (w->status || !fx_mw_held(tp, w->imm))
		return true;
	fx_touch(tp, qp);
	return false;
}

/* Is the oldest WQE over? Sets *status if so. */
static bool over(struct fx_tp *tp, struct fx_qp *qp, const struct fx_wqe *w, uint8_t *status)
{
	if ((int32_t)(qp->ack.index - qp->una.index) > 0) {
		*status = w->status;
		if (fx_wqe_fetches(w) && !w->status && w->placed < w->length)
			return false;
		if (fx_wqe_local(w))
			return local_over(tp, qp, w);
		return !(w->refs && (w->again || w->status));
	}
	*status = FX_WC_WR_FLUSH_ERR;
	/* in error everything ends, but not while its bytes are still being sent or received */
	return qp->state == FX_QPS_ERR && !w->refs && !qp->resp.n;
}

/* In SQD: is everything that was begun over? */
static void look_drained(struct fx_tp *tp, struct fx_qp *qp)
{
	if (qp->una.index == qp->post_index || fx_wqe_at(&qp->una)->psn == FX_PSN_NONE)
		fx_qp_drained(tp, qp);
}

static void retire(struct fx_tp *tp, struct fx_qp *qp)
{
	uint8_t status;

	while (qp->una.index != qp->post_index) {
		struct fx_wqe *w = fx_wqe_at(&qp->una);
		enum fx_cause cause = own_cause(w);

		if (!over(tp, qp, w, &status))
			return;
		if (status || (w->flags & FX_WRF_SIGNALED)) {
			struct fx_cqe cqe = {
				.index = w->index,
				.byte_len = w->length,
				.status = status,
				.syndrome = (uint8_t)(w->syndrome || !status ? w->syndrome : qp->cause),
				.opcode = w->op < FX_WR_OPS ? wc_opcodes[w->op] : 0};

			fx_qp_complete(tp, qp, qp->scq, &cqe);
		}
		fx_wqe_retire(tp, qp);
		if (status && status != FX_WC_WR_FLUSH_ERR)
			fx_qp_send_error(tp, qp, cause, qp->una);
	}
}

void fx_completer_retire(struct fx_tp *tp, struct fx_qp *qp)
{
	retire(tp, qp);
	if (qp->una.index == qp->cur.index && qp->cur.index != qp->post_index)
		fx_run(tp, qp); /* an invalidation may have waited for this */
	if (qp->draining)
		look_drained(tp, qp);
}

/* ---- timers ---- */

static void timed_out(struct fx_tp *tp, struct fx_qp *qp)
{
	tp->n.timeouts++;
	qp->timeouts++;
	if (qp->retries >= qp->attr.retry_cnt) {
		fx_completer_fail(tp, qp, FX_WC_RETRY_EXC_ERR, 0, FX_CAUSE_NO_ANSWER);
		return;
	}
	qp->retries++;
	qp->rewound = false;
	fx_requester_rewind(tp, qp);
}

void fx_completer_timer(struct fx_tp *tp, struct fx_qp *qp)
{
	if (qp->state != FX_QPS_RTS && qp->state != FX_QPS_SQD)
		return;
	if (qp->rnr_wait) {
		if (tp->now < qp->rnr_at) {
			fx_timer_set(tp, qp, qp->rnr_at);
			return;
		}
		qp->rnr_wait = false;
		fx_run(tp, qp);
		return;
	}
	if (!qp->rto || qp->next_psn == qp->una_psn)
		return;
	if (tp->now < qp->rto_at)
		fx_timer_set(tp, qp, qp->rto_at);
	else
		timed_out(tp, qp);
}
