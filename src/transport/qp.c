/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life of a QP: creation, errors and flushes, reset, the end. And its completions.
 *
 * Room: transport. Creation allocates and runs on the control thread; everything that takes a struct fx_tp runs on
 * the worker.
 */
#include <stdlib.h>

#include "transport/qp.h"

static const uint8_t transports[] = {[FX_QPT_RC] = FX_OPT_RC,
				     [FX_QPT_UC] = FX_OPT_UC,
				     [FX_QPT_UD] = FX_OPT_UD,
				     [FX_QPT_XRC_SEND] = FX_OPT_XRC,
				     [FX_QPT_XRC_RECV] = FX_OPT_XRC};

struct fx_qp *fx_qp_create(const struct fx_qp_cfg *cfg)
{
	struct fx_qp *qp = aligned_alloc(FX_LINE, (sizeof(*qp) + FX_LINE - 1) / FX_LINE * FX_LINE);

	if (!qp) {
		errno = ENOMEM;
		return NULL;
	}
	memset(qp, 0, sizeof(*qp));
	qp->cfg = *cfg;
	qp->qpn = cfg->qpn;
	qp->gen = (uint8_t)cfg->gen;
	qp->type = (uint8_t)cfg->type;
	qp->opt = transports[cfg->type];
	qp->acks = qp->opt == FX_OPT_RC || qp->opt == FX_OPT_XRC;
	qp->xrceth = qp->opt == FX_OPT_XRC ? FX_XRCETH_LEN : 0;
	qp->pd = cfg->pd;
	qp->scq = cfg->scq;
	qp->rcq = cfg->rcq;
	qp->own = (struct fx_rxq){.ring = cfg->rq,
				  .pd = cfg->pd,
				  .max_sge = cfg->max_recv_sge,
				  .shared = cfg->xrcd != 0,
				  .owner = cfg->owner};
	qp->rx = cfg->srq ? cfg->srq : &qp->own;
	qp->rwqe = calloc(qp->rx->max_sge ? qp->rx->max_sge : 1, sizeof(*qp->rwqe));
	if (!qp->rwqe) {
		free(qp);
		errno = ENOMEM;
		return NULL;
	}
	return qp;
}

int fx_qp_attach(struct fx_tp *tp, struct fx_qp *qp)
{
	uint32_t i = qp->qpn >> FX_WORKER_BITS;
	int err;

	if (i >= tp->cfg.max_qps || tp->qps[i])
		return -EBUSY;
	err = fx_sched_join(tp, qp);
	if (err)
		return err;
	qp->tp = tp;
	qp->window = !qp->acks ? FX_UNACKED : tp->cfg.window ? tp->cfg.window : FX_WINDOW;
	if (qp->type == FX_QPT_UD)
		fx_qp_set_mtu(qp, tp->cfg.mtu ? 24u - (uint32_t)__builtin_clz(tp->cfg.mtu) : 5);
	tp->qps[i] = qp;
	return 0;
}

void fx_qp_tell(struct fx_tp *tp, struct fx_qp *qp, enum fx_async type)
{
	if (tp->cfg.env.event && type != FX_ASYNC_NONE)
		tp->cfg.env.event(tp->cfg.env.arg, qp, type);
}

/* The first completion that found no room: nobody can rely on the CQ any more, whoever used it. */
static void cq_failed(struct fx_tp *tp, struct fx_cq *cq)
{
	if (tp->cfg.env.cq_error)
		tp->cfg.env.cq_error(tp->cfg.env.arg, cq);
	for (uint32_t i = 0; i < tp->cfg.max_qps; i++) {
		struct fx_qp *qp = tp->qps[i];

		if (qp && qp->state != FX_QPS_RESET && (qp->scq == cq || qp->rcq == cq))
			fx_qp_error(tp, qp, FX_CAUSE_CQ_OVERRUN);
	}
}

void fx_qp_complete(struct fx_tp *tp, struct fx_qp *qp, struct fx_cq *cq, struct fx_cqe *cqe)
{
	bool was_overrun = cq->overrun;

	cqe->qpn_gen = fx_qpn_gen(qp->qpn, qp->gen);
	tp->n.cqe++;
	if (cqe->status)
		tp->n.cqe_errors++;
	if (cq->stamped)
		fx_cqe_put_stamp(cqe, tp->cfg.env.stamp(tp->cfg.env.arg));
	if (fx_cq_push(cq, cqe) == 0) {
		if (fx_cq_wakes(cq, cqe))
			fx_tp_cq_fires(tp, cq);
		return;
	}
	tp->n.cq_overruns++;
	if (cq->lossy)
		return;
	if (!was_overrun)
		cq_failed(tp, cq);
	fx_qp_error(tp, qp, FX_CAUSE_CQ_OVERRUN); /* it came later, or only messages of its name the CQ */
}

void fx_tp_cq_overran(struct fx_tp *tp, struct fx_cq *cq)
{
	tp->n.cq_overruns++;
	if (cq->overrun)
		return;
	cq->overrun = true;
	cq_failed(tp, cq);
}

void fx_qp_flush(struct fx_tp *tp, struct fx_qp *qp, enum fx_cause cause)
{
	if (qp->state != FX_QPS_ERR)
		qp->cause = cause;
	qp->state = FX_QPS_ERR;
	qp->rnr_wait = qp->draining = false;
	qp->cut_err = 0;
	fx_park_drop(tp, qp);
	fx_touch(tp, qp);
	qp->flush_wait = FX_FLUSH_SOON;
	fx_timer_set(tp, qp, tp->now + FX_FLUSH_SOON);
}

void fx_qp_error(struct fx_tp *tp, struct fx_qp *qp, enum fx_cause cause)
{
	if (qp->state == FX_QPS_ERR)
		return;
	tp->n.qp_errors++;
	fx_qp_flush(tp, qp, cause);
	if (tp->cfg.env.trouble)
		tp->cfg.env.trouble(tp->cfg.env.arg, qp, cause);
	fx_qp_tell(tp, qp, fx_cause_async(cause));
}

/* UC and UD stop sending, and receive on (IBTA 10.3.1.7); the application may start them again. */
void fx_qp_send_error(struct fx_tp *tp, struct fx_qp *qp, enum fx_cause cause, struct fx_cursor behind)
{
	if (qp->acks) {
		fx_qp_error(tp, qp, cause);
		return;
	}
	if (qp->state >= FX_QPS_SQE)
		return;
	tp->n.sq_errors++;
	qp->state = FX_QPS_SQE;
	qp->cause = cause;
	qp->draining = false;
	qp->cut_err = 0;
	qp->una_psn = qp->next_psn;
	fx_wqe_stop(qp, behind);
	fx_touch(tp, qp);
	if (tp->cfg.env.trouble)
		tp->cfg.env.trouble(tp->cfg.env.arg, qp, cause);
}

/* IBTA 11.6.3.1, communication established: once a life, where there is a peer. */
void fx_qp_greet(struct fx_tp *tp, struct fx_qp *qp)
{
	if (!qp->greeted && qp->type != FX_QPT_UD)
		fx_qp_tell(tp, qp, FX_ASYNC_COMM_EST);
	qp->greeted = true;
}

void fx_qp_drained(struct fx_tp *tp, struct fx_qp *qp)
{
	qp->draining = false;
	if (qp->attr.en_sqd_async_notify)
		fx_qp_tell(tp, qp, FX_ASYNC_SQ_DRAINED);
}

/* Out of every list and timer; what is queued has no effect any more. */
static void quiesce(struct fx_tp *tp, struct fx_qp *qp, uint32_t sq_index)
{
	fx_place_drop(qp, &qp->reqs);
	fx_place_drop(qp, &qp->resp);
	fx_park_drop(tp, qp);
	fx_wheel_disarm(&tp->wheel, &qp->timer);
	fx_run_not(tp, qp);
	fx_touch(tp, qp); /* for what was queued to go home */
	fx_wqe_drop_all(tp, qp, sq_index);
	qp->njobs = 0;
	qp->natomics = 0;
	qp->nak_want = 0;
	qp->ack_want = qp->nak_sent = qp->dead_end = qp->have_rwqe = false;
	fx_look_drop(qp);
	qp->rx = qp->cfg.srq ? qp->cfg.srq : &qp->own;
	qp->looked = false;
	qp->rnr_wait = qp->rewound = qp->draining = qp->greeted = qp->last_told = false;
	qp->cause = FX_CAUSE_NONE;
	qp->cut_err = qp->retries = qp->rnr_retries = 0;
	qp->rd_n = 0;
	qp->msg_flags = qp->msg_off = qp->msn = 0;
	qp->resp_sge = qp->resp_sge_off = qp->since_ackreq = 0;
	qp->next_psn = qp->una_psn = qp->high_psn = 0;
}

void fx_qp_reset(struct fx_tp *tp, struct fx_qp *qp, uint32_t sq_index, uint32_t rq_index)
{
	quiesce(tp, qp, sq_index);
	qp->own.ring.pos += (rq_index - qp->own.ring.index) * qp->own.ring.stride;
	qp->own.ring.index = rq_index;
	memset(&qp->attr, 0, sizeof(qp->attr));
	qp->access = 0;
	qp->gen++;
	qp->state = FX_QPS_RESET;
}

void fx_qp_detach(struct fx_tp *tp, struct fx_qp *qp)
{
	uint32_t i = qp->qpn >> FX_WORKER_BITS;

	if (!qp->tp)
		return;
	quiesce(tp, qp, qp->post_index);
	fx_mcast_forget(tp, qp);
	qp->state = FX_QPS_RESET;
	tp->qps[i] = NULL;
	qp->tp = NULL;
}

bool fx_qp_idle(const struct fx_qp *qp)
{
	return !qp->tp && !qp->on_touched && !qp->on_run && !qp->on_acks && !qp->staged && !qp->refs &&
	       !qp->reqs.n && !qp->resp.n;
}

void fx_qp_free(struct fx_tp *tp, struct fx_qp *qp)
{
	if (qp->share)
		fx_sched_quit(tp, qp);
	free(qp->rwqe);
	free(qp);
}

uint32_t fx_qp_gen(const struct fx_qp *qp)
{
	return qp->gen;
}

bool fx_qp_unacked(const struct fx_qp *qp)
{
	return !qp->acks;
}

uint32_t fx_qp_number(const struct fx_qp *qp)
{
	return qp->qpn;
}

const struct fx_qp_cfg *fx_qp_config(const struct fx_qp *qp)
{
	return &qp->cfg;
}

struct fx_rxq *fx_qp_rxq(struct fx_qp *qp)
{
	return &qp->own;
}

void fx_qp_snapshot(const struct fx_qp *qp, struct fx_qp_info *info)
{
	*info = (struct fx_qp_info){
		.qpn = qp->qpn,
		.gen = qp->gen,
		.ctx = qp->cfg.ctx,
		.state = qp->state,
		.dest_qpn = qp->dest_qpn,
		.mtu = qp->mtu,
		.type = qp->type,
		.sq_psn = qp->attr.sq_psn,
		.una_psn = qp->una_psn,
		.next_psn = qp->next_psn,
		.rq_psn = qp->epsn,
		.placed_psn = qp->placed_psn,
		.msn = qp->msn,
		.sq_outstanding = qp->post_index - qp->una.index,
		.retries = qp->retries,
		.rnr_retries = qp->rnr_retries,
		.cause = qp->cause,
		.tx_packets = qp->tx_packets,
		.rx_packets = qp->rx_packets,
		.retransmits = qp->retransmits,
		.naks = qp->naks,
		.timeouts = qp->timeouts,
		.dups = qp->dups,
	};
}
