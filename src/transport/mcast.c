/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Multicast: which QPs are in a group, and a datagram for each of them (IBTA 10.5). Who may join, and how many, is for
 * the control room to say.
 *
 * Room: transport. A datagram to a group takes as many packets as the group has members, so the owner is asked for them
 * one by one: what it has not is not delivered, and counted.
 */
#include "transport/qp.h"

static struct fx_member **bucket(struct fx_tp *tp, const uint8_t gid[16])
{
	/* the low bytes of an address are what differs between groups, IPv4's and IPv6's alike */
	return &tp->groups[(gid[15] ^ gid[14] * 7u ^ gid[13] * 31u) % FX_GROUP_BUCKETS];
}

void fx_mcast_join(struct fx_tp *tp, struct fx_member *m)
{
	struct fx_member **at = bucket(tp, m->gid);

	m->next = *at;
	*at = m;
}

void fx_mcast_leave(struct fx_tp *tp, struct fx_member *m)
{
	for (struct fx_member **at = bucket(tp, m->gid); *at; at = &(*at)->next)
		if (*at == m) {
			*at = m->next;
			return;
		}
}

void fx_mcast_forget(struct fx_tp *tp, const struct fx_qp *qp)
{
	for (unsigned i = 0; i < FX_GROUP_BUCKETS; i++)
		for (struct fx_member **at = &tp->groups[i]; *at;) {
			if ((*at)->qp == qp)
				*at = (*at)->next;
			else
				at = &(*at)->next;
		}
}

/* It sent that itself, and does not want to hear it. */
static bool own_voice(const struct fx_tp *tp, const struct fx_qp *qp, const struct fx_pkt *p,
		      const struct fx_l3 *l3)
{
	return qp->cfg.block_mcast_loop && p->bth.deth.sqpn == qp->qpn && !memcmp(l3->src, tp->cfg.gid, 16);
}

/* A packet of the same datagram; NULL: the owner has none. */
static struct fx_pkt *another(struct fx_tp *tp, const struct fx_pkt *p)
{
	struct fx_pkt *c = tp->cfg.env.clone ? tp->cfg.env.clone(tp->cfg.env.arg, p) : NULL;

	if (!c) {
		tp->n.rx_mcast_no_buffer++;
		return NULL;
	}
	c->bth = p->bth;
	c->psn = p->psn;
	c->payload_off = p->payload_off;
	c->len = p->len;
	return c;
}

static void deliver(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t bth)
{
	tp->n.rx_mcast_copies++;
	p->bth.dqpn = qp->qpn;
	fx_tp_deliver(tp, qp, p, bth);
}

/* The last member has the packet itself: until then it stays as it came. */
void fx_mcast_rx(struct fx_tp *tp, struct fx_pkt *p, uint32_t bth)
{
	struct fx_member *m, *last = NULL;
	uint32_t off, end;
	struct fx_l3 l3;

	if (fx_l3_parse(p->frame, p->have, p->total, &l3, &off, &end) != FX_DROP_NONE) {
		fx_release(tp, p);
		return;
	}
	for (m = *bucket(tp, l3.dst); m; m = m->next) {
		if (memcmp(m->gid, l3.dst, 16) != 0 || own_voice(tp, m->qp, p, &l3))
			continue;
		if (last) {
			struct fx_pkt *c = another(tp, p);

			if (c)
				deliver(tp, last->qp, c, bth);
		}
		last = m;
	}
	if (last) {
		deliver(tp, last->qp, p, bth);
		return;
	}
	tp->n.rx_mcast_none++;
	fx_release(tp, p);
}
