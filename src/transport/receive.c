/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Receives: taken out of a QP's receive queue when a message begins that needs one, flushed when the QP is in error.
 *
 * Room: transport. A shared queue (SRQ) is taken from like any other. It outlives the errors of its QPs: each of those
 * flushes what it had taken, tells that this was the last, and leaves the rest to the others (IBTA 10.2.9, 11.6.3.1).
 */
#include "transport/qp.h"

/* Bytes that its entry has room for. */
static uint32_t room(const struct fx_qp *qp)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < qp->rwqe_nsge; i++)
		sum += qp->rwqe[i].length;
	return sum > FX_MAX_MSG ? FX_MAX_MSG : (uint32_t)sum;
}

/* Nothing of the ring is believed any more: only its own host wrote it. */
static void broke(struct fx_tp *tp, struct fx_rxq *rx)
{
	tp->n.rwqe_bad++;
	if (!rx->shared || rx->broken)
		return;
	rx->broken = true;
	if (tp->cfg.env.rxq_event)
		tp->cfg.env.rxq_event(tp->cfg.env.arg, rx, FX_ASYNC_SRQ_ERR);
}

uint8_t fx_receive_take(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_rxq *rx = qp->rx;
	int n;

	if (qp->have_rwqe)
		return 0;
	n = rx->broken ? -EPROTO : fx_rq_take(&rx->ring, qp->rwqe, rx->max_sge);
	if (n == -EAGAIN && !qp->looked && fx_look_ask(tp, qp))
		return FX_LOOKS;
	if (n == -EAGAIN)
		return (uint8_t)(FX_AETH_RNR | (qp->attr.min_rnr_timer & 0x1f));
	if (n < 0) {
		broke(tp, rx);
		return FX_NAK_REMOTE_OP;
	}
	qp->have_rwqe = true;
	qp->rwqe_index = rx->ring.name;
	qp->rwqe_nsge = (uint32_t)n;
	qp->rwqe_sge = qp->rwqe_off = 0;
	qp->rwqe_len = room(qp);
	if (rx->limit && !rx->watches)
		fx_rxq_watch(tp, rx, false);
	return 0;
}

void fx_receive_complete(struct fx_tp *tp, struct fx_qp *qp, const struct fx_rxq *rx, struct fx_cqe *cqe)
{
	if (!rx->cq) {
		fx_qp_complete(tp, qp, qp->rcq, cqe);
		return;
	}
	cqe->flags |= FX_WCF_XRC;
	cqe->src_qp = rx->handle;
	fx_qp_complete(tp, qp, rx->cq, cqe);
}

/* ---- the limit of a shared queue ---- */

/*
 * Where the ring is a copy, entries that are not here may be there: so it is looked at until a look brings no more.
 */
void fx_rxq_watch(struct fx_tp *tp, struct fx_rxq *rx, bool looked)
{
	uint32_t from = rx->ring.index, before;

	if ((int32_t)(rx->seen - from) < 0)
		rx->seen = from;
	before = rx->seen;
	while (rx->seen - from < rx->limit && fx_rq_holds(&rx->ring, rx->seen - from))
		rx->seen++;
	rx->watches = false;
	if (rx->seen - from >= rx->limit)
		return;
	if (!(looked && rx->seen == before) && tp->cfg.env.look) {
		rx->watches = tp->cfg.env.look(tp->cfg.env.arg, rx);
		if (rx->watches)
			return;
	}
	rx->limit = 0;
	if (tp->cfg.env.rxq_event)
		tp->cfg.env.rxq_event(tp->cfg.env.arg, rx, FX_ASYNC_SRQ_LIMIT);
}

void fx_rxq_arm(struct fx_tp *tp, struct fx_rxq *rx, uint32_t limit)
{
	rx->limit = limit;
	rx->seen = rx->ring.index;
	if (limit)
		fx_rxq_watch(tp, rx, false);
}

/* ---- in error ---- */

static void flush_one(struct fx_tp *tp, struct fx_qp *qp, uint32_t index)
{
	struct fx_cqe cqe = {.index = index,
			     .status = FX_WC_WR_FLUSH_ERR,
			     .opcode = FX_WC_RECV,
			     .syndrome = (uint8_t)qp->cause};

	fx_receive_complete(tp, qp, qp->rx, &cqe);
}

static void flush_in_hand(struct fx_tp *tp, struct fx_qp *qp)
{
	if (!qp->have_rwqe)
		return;
	qp->have_rwqe = false;
	flush_one(tp, qp, qp->rwqe_index);
}

/* Flushes the receives that are here; true: there were some. */
static bool flush_here(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_rq *ring = &qp->own.ring;
	uint32_t from = ring->index;

	flush_in_hand(tp, qp);
	while (fx_rq_take(ring, qp->rwqe, qp->own.max_sge) >= 0)
		flush_one(tp, qp, ring->name);
	return ring->index != from;
}

static void flush_last(struct fx_tp *tp, struct fx_qp *qp)
{
	flush_in_hand(tp, qp);
	if (qp->cfg.srq && !qp->last_told)
		fx_qp_tell(tp, qp, FX_ASYNC_LAST_WQE);
	qp->last_told = true;
}

void fx_receive_flush(struct fx_tp *tp, struct fx_qp *qp)
{
	if (qp->reqs.n)
		return; /* what arrived before the error comes first */
	if (qp->rx->shared) {
		flush_last(tp, qp);
		return;
	}
	if (flush_here(tp, qp))
		qp->flush_wait = FX_FLUSH_SOON;
	else if (qp->flush_wait < FX_FLUSH_LATE)
		qp->flush_wait *= 2; /* a QP left in error must not keep the core awake */
	fx_timer_set(tp, qp, tp->now + qp->flush_wait);
	fx_look_ask(tp, qp);
}

/* As long as looks bring some there may be more. */
void fx_receive_looked(struct fx_tp *tp, struct fx_qp *qp)
{
	if (!qp->rx->shared && !qp->reqs.n && flush_here(tp, qp))
		fx_look_ask(tp, qp);
}
