/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * XRC: every request names an SRQ, and the QP reaches those of its domain, whoever they belong to (IBTA A14). A message has
 * its receive, the protection domain of its keys, and its completion from the SRQ that it names.
 *
 * Room: transport. A QP of type XRC_RECV has no receive queue: its pointer to one is its last message's. What is under way
 * knows its SRQ and its domain itself, since the next message may name others.
 */
#include "transport/qp.h"

int fx_rxq_attach(struct fx_tp *tp, struct fx_rxq *rx)
{
	uint32_t i = rx->number >> FX_WORKER_BITS;

	if (i >= tp->cfg.max_srqs || tp->srqs[i])
		return -EBUSY;
	tp->srqs[i] = rx;
	return 0;
}

struct fx_rxq *fx_xrc_find(const struct fx_tp *tp, const struct fx_qp *qp, uint32_t number)
{
	uint32_t i = number >> FX_WORKER_BITS;
	struct fx_rxq *rx = i < tp->cfg.max_srqs ? tp->srqs[i] : NULL;

	return rx && rx->number == number && rx->xrcd == qp->cfg.xrcd ? rx : NULL;
}

bool fx_xrc_select(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	struct fx_rxq *rx = fx_xrc_find(tp, qp, p->bth.xrc_srqn);

	/* within a message it is the same one */
	if (!rx || (rx != qp->rx && (qp->have_rwqe || qp->msg_flags)))
		return false;
	qp->rx = p->rx = rx;
	qp->pd = rx->pd;
	return true;
}

/* ---- the end of an SRQ ---- */

/* What arrived for it begins nothing any more, and has no completion. True: there was something. */
static bool forget(struct fx_qp *qp, const struct fx_rxq *rx)
{
	bool any = qp->rx == rx && (qp->have_rwqe || qp->looking || qp->msg_flags);

	for (uint32_t i = 0; i < qp->njobs; i++)
		any |= qp->jobs[(qp->job_head + i) % FX_JOBS].pd == rx->pd;
	for (struct fx_pkt *p = qp->reqs.head; p; p = p->next) {
		if (p->rx != rx)
			continue;
		any = true;
		p->rx = NULL;
		p->status = 0;
		p->left = 0;
		if (p->act != FX_PLACE_NAK)
			p->act = FX_PLACE_NONE;
	}
	return any;
}

/* The peer hears what it would if it named the SRQ now. */
static void fail(struct fx_tp *tp, struct fx_qp *qp)
{
	qp->have_rwqe = false;
	qp->njobs = 0;
	qp->nak_want = FX_NAK_INVALID_REQUEST;
	qp->nak_psn = qp->placed_psn;
	qp->dead_end = true;
	fx_run_ack(tp, qp);
	fx_qp_error(tp, qp, FX_CAUSE_XRC);
}

static void leave(struct fx_tp *tp, struct fx_qp *qp, const struct fx_rxq *rx)
{
	if (forget(qp, rx) && qp->state != FX_QPS_ERR)
		fail(tp, qp);
	if (qp->rx != rx)
		return;
	qp->have_rwqe = false;
	fx_look_drop(qp);
	qp->rx = &qp->own;
	qp->pd = qp->cfg.pd;
}

void fx_rxq_detach(struct fx_tp *tp, struct fx_rxq *rx)
{
	uint32_t i = rx->number >> FX_WORKER_BITS;

	rx->limit = 0;
	if (!rx->cq)
		return; /* only QPs of its own use it, and they have gone */
	tp->srqs[i] = NULL;
	for (i = 0; i < tp->cfg.max_qps; i++)
		if (tp->qps[i] && tp->qps[i]->cfg.xrcd == rx->xrcd)
			leave(tp, tp->qps[i], rx);
}
