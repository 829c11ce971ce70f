/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets that cannot go out as a chain: some of their memory is only reached by the helper thread, they have
 * more pieces than a receiver takes, or the port cannot take a chain at all. Their pieces are gathered into
 * one buffer by the DMA engines; these are engines of the worker's own, so that completions never mix with
 * the transport's.
 *
 * Several packets of a QP may be in gathering; they go out in the order in which they were cut, and so does what was
 * cut after them. One that is only linearised is gathered on the spot, since all its memory is mapped.
 */
#include <errno.h>
#include <string.h>

#include "core/inside.h"

enum { DEPTH = 256, BATCH = 32 };

int fx_stage_init(struct fx_worker *w)
{
	w->stages_end = &w->stages;
	w->stage_cpu = fx_dma_cpu_create(DEPTH);
	w->stage_slow = fx_worker_slow(w, DEPTH, &w->fetched);
	return w->stage_cpu && w->stage_slow ? 0 : -ENOMEM;
}

void fx_stage_fini(struct fx_worker *w)
{
	if (w->stage_cpu)
		w->stage_cpu->ops->destroy(w->stage_cpu);
	if (w->stage_slow)
		w->stage_slow->ops->destroy(w->stage_slow);
	w->stage_cpu = w->stage_slow = NULL;
}

/* Hands pieces to the engines as far as they take them. */
static unsigned submit(struct fx_worker *w, struct fx_stage *s)
{
	unsigned n = 0;

	for (; s->seg_i < s->nseg && !s->err; n++) {
		bool slow = !s->seg[s->seg_i].base;
		struct fx_dma_engine *e = slow ? w->stage_slow : w->stage_cpu;
		struct fx_dma d = {
			.win = s->seg[s->seg_i].base,
			.local = s->at,
			.len = s->seg[s->seg_i].len,
			.to_window = false,
			.mr = s->seg[s->seg_i].mr,
			.va = s->seg[s->seg_i].va,
			.cookie = s,
		};

		if (!e->ops->submit(e, &d, 1))
			break;
		s->at += d.len;
		s->seg_i++;
		s->flying++;
	}
	return n;
}

static unsigned collect(struct fx_dma_engine *e)
{
	struct fx_dma_done done[BATCH];
	unsigned n = e->ops->poll(e, done, BATCH);

	for (unsigned i = 0; i < n; i++) {
		struct fx_stage *s = done[i].cookie;

		s->flying--;
		if (done[i].err)
			s->err = done[i].err;
	}
	return n;
}

static bool finished(const struct fx_stage *s)
{
	return s->flying == 0 && (s->seg_i == s->nseg || s->err);
}

/*
 * All its pieces are there, or it failed: off it goes, and the frames that follow it. The stage lies in its buffer,
 * which is the port's from then on.
 */
static void let_go(struct fx_worker *w, const struct fx_stage *stage)
{
	struct fx_stage s = *stage;
	bool marked = s.held && !s.err && fx_txbuf_mark(w, s.m, s.wqe, &s.wqp->ctx->under_way);

	s.wqp->first = s.behind;
	--*s.under_way;
	w->n.staged += s.staged;
	if (s.err) {
		w->n.stage_errors++;
		fx_txbuf_free(w, s.m);
	} else {
		w->txq[w->ntx++] = s.m;
	}
	for (struct fx_pkt *p = s.after; p; p = p->next)
		w->txq[w->ntx++] = fx_pkt_mbuf(p);
	if (s.staged) {
		fx_tp_staged(w->tp, s.qp, marked ? NULL : s.wqe, s.mw, s.psn, s.err);
		return;
	}
	for (unsigned i = 0; i < s.nseg; i++)
		fx_tp_seg_done(w->tp, s.wqe, s.mw);
}

static bool may_go(const struct fx_worker *w, const struct fx_stage *s)
{
	return finished(s) && s->wqp->first == s && w->ntx + 1 + FX_FOLLOW <= FX_TXQ - FX_TX_BURST;
}

void fx_stage_follow(struct fx_wqp *wqp, struct rte_mbuf *m)
{
	struct fx_stage *s = wqp->last;
	struct fx_pkt *p = rte_mbuf_to_priv(m);

	p->next = NULL;
	if (s->after)
		s->after_last->next = p;
	else
		s->after = p;
	s->after_last = p;
}

static void enlist(struct fx_worker *w, struct fx_stage *s)
{
	if (s->wqp->first)
		s->wqp->last->behind = s;
	else
		s->wqp->first = s;
	s->wqp->last = s;
	*w->stages_end = s;
	w->stages_end = &s->next;
}

void fx_stage_start(struct fx_worker *w, struct rte_mbuf *m, const struct fx_txpkt *pkt)
{
	struct fx_stage *s = fx_stage_of(m);
	uint8_t *p = rte_pktmbuf_mtod(m, uint8_t *);

	s->next = s->behind = NULL;
	s->after = NULL;
	s->m = m;
	s->wqp = fx_wqp_of(pkt->qp);
	s->qp = pkt->qp;
	s->wqe = pkt->wqe;
	s->psn = pkt->psn;
	s->mw = pkt->mw;
	s->nseg = pkt->nseg;
	s->seg_i = 0;
	s->flying = 0;
	s->err = 0;
	s->staged = pkt->stage;
	s->held = pkt->stage && pkt->wqe && fx_qp_unacked(pkt->qp);
	s->under_way = fx_set_out(&s->wqp->ctx->under_way);
	s->at = p + pkt->hdr_len;
	static_assert(sizeof(s->seg[0]) == sizeof(pkt->seg[0]), "the same fields");
	memcpy(s->seg, pkt->seg, pkt->nseg * sizeof(s->seg[0]));
	memcpy(p, pkt->hdr, pkt->hdr_len);
	memset(s->at + pkt->payload, 0, pkt->pad);
	m->data_len = (uint16_t)(pkt->hdr_len + pkt->payload + pkt->pad);
	m->pkt_len = m->data_len;
	m->nb_segs = 1;
	submit(w, s);
	/*
	 * poll for what completes at once; whatever else comes along belongs to others, and they notice
	 * themselves
	 */
	while (collect(w->stage_cpu))
		submit(w, s);
	if (finished(s) && !s->wqp->first && w->ntx < FX_TXQ) {
		s->wqp->first = s;
		let_go(w, s);
		return;
	}
	enlist(w, s);
}

unsigned fx_stage_poll(struct fx_worker *w)
{
	struct fx_stage **at = &w->stages;
	unsigned n;

	if (likely(!w->stages))
		return 0;
	n = collect(w->stage_cpu) + collect(w->stage_slow);
	while (*at) {
		struct fx_stage *s = *at;

		n += submit(w, s);
		if (!may_go(w, s)) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		if (!*at)
			w->stages_end = at;
		let_go(w, s);
		n++;
	}
	return n;
}
