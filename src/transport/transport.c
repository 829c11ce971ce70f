/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport of one worker as a whole: frames to QPs, timers, the public face of place.c.
 *
 * Room: transport.
 */
#include <stdlib.h>

#include "transport/qp.h"

struct fx_tp *fx_tp_create(const struct fx_tp_cfg *cfg, uint64_t now)
{
	struct fx_tp *tp = calloc(1, sizeof(*tp));

	if (!tp)
		return NULL;
	tp->cfg = *cfg;
	tp->now = now;
	tp->held_due = UINT64_MAX;
	tp->qps = calloc(cfg->max_qps, sizeof(*tp->qps));
	tp->srqs = calloc(cfg->max_srqs + 1, sizeof(struct fx_rxq *));
	if (!tp->qps || !tp->srqs) {
		free(tp->qps);
		free(tp->srqs);
		free(tp);
		return NULL;
	}
	fx_sched_init(tp);
	fx_wheel_init(&tp->wheel, now);
	return tp;
}

void fx_tp_destroy(struct fx_tp *tp)
{
	if (!tp)
		return;
	fx_sched_fini(tp);
	fx_wqe_free_slabs(tp);
	free(tp->qps);
	free(tp->srqs);
	free(tp);
}

void fx_tp_set_now(struct fx_tp *tp, uint64_t now)
{
	if (now > tp->now)
		tp->now = now;
}

/* ---- send ---- */

void fx_tp_staged(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *wqe, struct fx_mw *mw, uint32_t psn,
		  int err)
{
	fx_sched_gathered(tp, qp);
	if (err) {
		tp->n.dma_errors++;
		if (wqe)
			fx_completer_lost(tp, qp, wqe);
		else
			fx_answer_lost(tp, qp, psn, err);
	}
	fx_tp_seg_done(tp, wqe, mw);
	fx_run(tp, qp);
}

/* ---- receive ---- */

void fx_release(struct fx_tp *tp, struct fx_pkt *p)
{
	p->next = tp->released;
	tp->released = p;
}

struct fx_pkt *fx_tp_released(struct fx_tp *tp)
{
	struct fx_pkt *list = tp->released;

	tp->released = NULL;
	return list;
}

/*
 * Is the sender the QP's peer? `bth` is where BTH starts; UDP and an option-less IP header lie before it. A QP for
 * datagrams has no peer, and so no template.
 */
static bool from_peer(struct fx_tp *tp, const struct fx_qp *qp, struct fx_pkt *p, uint32_t bth)
{
	const uint8_t *ip = qp->tmpl.bytes + qp->tmpl.ip_off; /* of what goes there */
	bool same;

	if (qp->tmpl.version == 4)
		same = p->frame[bth - FX_UDP_LEN - FX_IP4_LEN] == 0x45 &&
		       !memcmp(p->frame + bth - FX_UDP_LEN - 8, ip + 16, 4);
	else if (qp->tmpl.version == 6)
		same = bth >= FX_ETH_LEN + FX_IP6_LEN + FX_UDP_LEN &&
		       p->frame[bth - FX_UDP_LEN - FX_IP6_LEN] >> 4 == 6 &&
		       !memcmp(p->frame + bth - FX_UDP_LEN - 32, ip + 24, 16);
	else
		return fx_datagram_welcome(tp, qp, p, bth);
	if (!same)
		tp->n.rx_wrong_peer++;
	return same;
}

/* Headers into p->bth; returns the QP of that number, or NULL. *bth is 0 when they are none, and that was counted. */
static struct fx_qp *parse(struct fx_tp *tp, struct fx_pkt *p, uint32_t *bth)
{
	uint32_t end, len, tail;
	enum fx_drop drop;

	drop = fx_l3_parse(p->frame, p->have, p->total, NULL, bth, &end);
	if (!drop)
		drop = fx_bth_parse(p->frame + *bth, (p->have < end ? p->have : end) - *bth, &p->bth, &len);
	if (!drop && (p->bth.pkey & 0x7fff) != (FX_PKEY_DEFAULT & 0x7fff))
		drop = FX_DROP_BAD_PKEY;
	tail = p->bth.pad + (tp->cfg.icrc ? FX_ICRC_LEN : 0u);
	if (!drop && *bth + len + tail > end)
		drop = FX_DROP_BAD_UDP_LEN;
	if (drop) {
		tp->n.drop[drop]++;
		*bth = 0;
		return NULL;
	}
	p->psn = p->bth.psn;
	p->payload_off = *bth + len;
	p->len = end - *bth - len - tail;
	return p->bth.dqpn >> FX_WORKER_BITS < tp->cfg.max_qps ? tp->qps[p->bth.dqpn >> FX_WORKER_BITS]
							       : NULL;
}

/* A number that no QP has. */
static void stray(struct fx_tp *tp, struct fx_pkt *p, uint32_t bth)
{
	if (p->bth.dqpn == FX_QPN_MULTICAST) {
		fx_mcast_rx(tp, p, bth);
		return;
	}
	if (p->bth.dqpn == FX_QPN_GSI)
		tp->n.rx_gsi++;
	else
		tp->n.rx_unknown_qp++;
	fx_release(tp, p);
}

/* Does the QP take it, now and from there? */
static bool welcome(struct fx_tp *tp, const struct fx_qp *qp, struct fx_pkt *p, uint32_t bth)
{
	if (qp->qpn != p->bth.dqpn)
		tp->n.rx_unknown_qp++;
	else if (qp->state < FX_QPS_RTR)
		tp->n.rx_wrong_state++;
	else
		return from_peer(tp, qp, p, bth);
	return false;
}

void fx_tp_deliver(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t bth)
{
	uint32_t flags;

	if (!welcome(tp, qp, p, bth)) {
		fx_release(tp, p);
		return;
	}
	qp->rx_packets++;
	flags = fx_opcodes[p->bth.opcode].flags;
	if (flags & FX_OPF_CNP) {
		tp->n.rx_cnp++;
		fx_release(tp, p);
	} else if ((p->bth.opcode & 0xe0) != qp->opt) {
		tp->n.rx_wrong_transport++;
		fx_release(tp, p);
	} else if (flags & FX_OPF_RSP) {
		fx_completer_rx(tp, qp, p);
	} else {
		if (qp->state == FX_QPS_RTR)
			fx_qp_greet(tp, qp);
		fx_responder_rx(tp, qp, p);
	}
}

static void receive(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t bth)
{
	tp->n.rx_packets++;
	if (qp)
		fx_tp_deliver(tp, qp, p, bth);
	else if (bth)
		stray(tp, p, bth);
	else
		fx_release(tp, p);
}

/* All of a burst is parsed before any of it has an effect: meanwhile the QPs' lines come. */
void fx_tp_rx(struct fx_tp *tp, struct fx_pkt **pkts, unsigned n)
{
	uint32_t bth[FX_RX_BURST];
	struct fx_qp *qp[FX_RX_BURST];

	while (n) {
		unsigned burst = n < FX_RX_BURST ? n : FX_RX_BURST;

		for (unsigned i = 0; i < burst; i++) {
			qp[i] = parse(tp, pkts[i], &bth[i]);
			if (qp[i])
				fx_qp_soon(qp[i]);
		}
		for (unsigned i = 0; i < burst; i++)
			receive(tp, qp[i], pkts[i], bth[i]);
		pkts += burst;
		n -= burst;
	}
	fx_place_run(tp);
}

unsigned fx_tp_poll_dma(struct fx_tp *tp)
{
	return fx_place_poll(tp);
}

bool fx_tp_dma_pending(const struct fx_tp *tp)
{
	return tp->flying || tp->touched;
}

/* ---- timers ---- */

void fx_timer_set(struct fx_tp *tp, struct fx_qp *qp, uint64_t when)
{
	fx_wheel_arm(&tp->wheel, &qp->timer, when);
}

void fx_tp_timers(struct fx_tp *tp)
{
	struct fx_timer *t;

	while ((t = fx_wheel_expire(&tp->wheel, tp->now))) {
		struct fx_qp *qp = (struct fx_qp *)((char *)t - offsetof(struct fx_qp, timer));

		if (qp->state == FX_QPS_ERR)
			fx_receive_flush(tp, qp);
		else
			fx_completer_timer(tp, qp);
	}
	if (tp->now >= tp->held_due)
		fx_moderate_timers(tp);
	if (tp->touched)
		fx_place_run(tp);
}

uint64_t fx_tp_next_timer(const struct fx_tp *tp)
{
	uint64_t next = fx_wheel_next(&tp->wheel);

	return next < tp->held_due ? next : tp->held_due;
}

/* ---- for the owner's tools ---- */

void fx_tp_each_qp(struct fx_tp *tp, void (*fn)(void *arg, struct fx_qp *qp), void *arg)
{
	for (uint32_t i = 0; i < tp->cfg.max_qps; i++)
		if (tp->qps[i])
			fn(arg, tp->qps[i]);
}

struct fx_counters *fx_tp_counters(struct fx_tp *tp)
{
	return &tp->n;
}

uint64_t fx_tp_memory(const struct fx_tp *tp)
{
	return tp->memory;
}
