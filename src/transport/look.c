/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fresh looks at receive queues (guarantee P9). Where the queue is a copy of the host's, an entry that is not here may be
 * there: so before "not ready" is said, the owner is asked for a look that begins now, and the packet waits for what it
 * brings. What arrives meanwhile waits behind it, and is taken up in its order of arrival.
 *
 * Room: transport. A look serves the packet that asked for it and nobody later: the entry for the next one may have been
 * posted when the look had passed. Of a shared queue it serves the first packet of each QP that asked before it.
 */
#include "transport/qp.h"

bool fx_look_ask(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_rxq *rx = qp->rx;

	if (qp->looking || !tp->cfg.env.look || !tp->cfg.env.look(tp->cfg.env.arg, rx))
		return qp->looking;
	qp->looking = true;
	/* who asked first is served first */
	if (rx->asks)
		rx->asks_last->ask_next = qp;
	else
		rx->asks = qp;
	rx->asks_last = qp;
	return true;
}

/* A look that was asked for before a reset is nobody's. */
void fx_look_drop(struct fx_qp *qp)
{
	struct fx_qp **p = &qp->rx->asks, *before = NULL;

	if (!qp->looking)
		return;
	for (; *p != qp; p = &before->ask_next)
		before = *p;
	*p = qp->ask_next;
	if (qp->rx->asks_last == qp)
		qp->rx->asks_last = before;
	qp->ask_next = NULL;
	qp->looking = false;
}

void fx_park(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	if (qp->reqs.n + qp->parked.n >= FX_BACKLOG) {
		tp->n.rx_backlog++;
		fx_release(tp, p);
		return;
	}
	tp->n.rx_parked++;
	p->next = NULL;
	if (qp->parked.tail)
		qp->parked.tail->next = p;
	else
		qp->parked.head = p;
	qp->parked.tail = p;
	qp->parked.n++;
}

static struct fx_pkt *unpark(struct fx_qp *qp)
{
	struct fx_pkt *list = qp->parked.head;

	qp->parked.head = qp->parked.tail = NULL;
	qp->parked.n = 0;
	return list;
}

void fx_park_drop(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_pkt *next;

	for (struct fx_pkt *p = unpark(qp); p; p = next) {
		next = p->next;
		fx_release(tp, p);
	}
}

static void looked(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_pkt *p, *next;

	if (qp->state == FX_QPS_ERR) {
		fx_receive_looked(tp, qp);
		return;
	}
	qp->looked = true;
	for (p = unpark(qp); p; p = next) {
		next = p->next;
		fx_responder_rx(tp, qp, p);
		qp->looked = false;
	}
	qp->looked = false;
}

/* Who asks again meanwhile asks for another look. */
void fx_tp_looked(struct fx_tp *tp, struct fx_rxq *rx)
{
	struct fx_qp *list = rx->asks, *qp;

	rx->asks = NULL;
	for (qp = list; qp; qp = qp->ask_next)
		qp->looking = false;
	while ((qp = list)) {
		list = qp->ask_next;
		qp->ask_next = NULL;
		looked(tp, qp);
	}
	if (rx->watches)
		fx_rxq_watch(tp, rx, true);
	fx_place_run(tp);
}
