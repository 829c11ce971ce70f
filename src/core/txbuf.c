/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Buffers. A frame goes out as a header buffer followed by the application's own memory, attached as external
 * buffers (guarantee F1); it comes home in pieces, each to its pool.
 *
 * What measured best (and is therefore done here): a stack of buffers of the worker's own in front of each
 * pool, raw buffers, external ones with their reference count in the buffer's private area, frames taken
 * apart by hand. A packet that was cut never lacks a buffer: what it may need at worst is at hand before it
 * is cut.
 */
#include <stdio.h>
#include <string.h>

#include <rte_errno.h>

#include "core/inside.h"

enum {
	PRIV_PKT = (sizeof(struct fx_pkt) + 7) & ~7,
	PRIV_PAY = (sizeof(struct fx_pay_priv) + 7) & ~7,
	COST_HDR = FX_BUFFERS / FX_POOL_HDR,
	COST_PAY = FX_BUFFERS / FX_POOL_PAY,
	COST_SPARE = FX_BUFFERS / FX_POOL_STAGE,
	PRIV_STAGE = (sizeof(struct fx_pkt) + sizeof(struct fx_stage) + 7) & ~7,
};
static_assert(sizeof(struct fx_pkt) % _Alignof(struct fx_stage) == 0, "fx_stage follows fx_pkt");

/* ---- pools ---- */

/* One piece of an application's memory has left the transmit queue (guarantee L1). */
static void segment_gone(void *addr, void *opaque)
{
	struct fx_pay_priv *priv = opaque;
	struct fx_worker *w = priv->worker;

	(void)addr;
	--*priv->under_way;
	if (priv->wqe || priv->mw)
		fx_tp_seg_done(w->tp, priv->wqe, priv->mw);
}

static void payload_init(struct rte_mempool *pool, void *worker, void *obj, unsigned i)
{
	struct fx_pay_priv *priv = rte_mbuf_to_priv(obj);

	(void)pool;
	(void)i;
	*priv = (struct fx_pay_priv){.worker = worker};
	priv->shinfo.free_cb = segment_gone;
	priv->shinfo.fcb_opaque = priv;
}

static struct rte_mempool *make_pool(struct fx_worker *w, const char *what, unsigned n, uint16_t priv,
				     uint16_t room)
{
	char name[RTE_MEMPOOL_NAMESIZE];

	snprintf(name, sizeof(name), "%s%u", what, w->cfg.index);
	return rte_pktmbuf_pool_create(name, n, FX_POOL_CACHE, priv, room, SOCKET_ID_ANY);
}

int fx_txbuf_init(struct fx_worker *w, char *why, size_t size)
{
	w->stash[FX_HDR].pool =
		make_pool(w, "fx_hdr", FX_POOL_HDR, PRIV_PKT, RTE_PKTMBUF_HEADROOM + FX_TX_ROOM);
	w->stash[FX_PAY].pool = make_pool(w, "fx_pay", FX_POOL_PAY, PRIV_PAY, 0);
	w->stash[FX_SPARE].pool = make_pool(w, "fx_stage", FX_POOL_STAGE, PRIV_STAGE,
					    RTE_PKTMBUF_HEADROOM + FX_TX_ROOM + FX_STAGE_ROOM);
	for (int i = 0; i < FX_STASHES; i++)
		if (!w->stash[i].pool) {
			snprintf(why, size, "worker %u has no memory for packet buffers: %s", w->cfg.index,
				 rte_strerror(rte_errno));
			return -ENOMEM;
		}
	rte_mempool_obj_iter(w->stash[FX_PAY].pool, payload_init, w);
	return 0;
}

void fx_txbuf_fini(struct fx_worker *w)
{
	while (w->ntx)
		fx_txbuf_free(w, w->txq[--w->ntx]);
	for (int i = 0; i < FX_STASHES; i++) {
		rte_mempool_free(
			w->stash[i].pool); /* with whatever is out: nobody is left to bring it back */
		w->stash[i] = (struct fx_stash){0};
	}
}

/* At least `want` buffers at hand; false: the pool is empty, and some have to come home first. */
static bool stash_fill(struct fx_stash *s, uint32_t want)
{
	if (likely(s->n >= want))
		return true;
	if (rte_mempool_get_bulk(s->pool, (void **)&s->m[s->n], want - s->n) < 0)
		return false;
	s->n = want;
	return true;
}

/* Raw buffers keep what their last user wrote; these are the fields that a new user relies on. */
static struct rte_mbuf *stash_get(struct fx_stash *s)
{
	struct rte_mbuf *m = s->m[--s->n];

	m->data_off = RTE_PKTMBUF_HEADROOM;
	m->ol_flags = 0;
	return m;
}

/* The lower half goes back to the pool: the cold one. */
static void stash_spill(struct fx_stash *s)
{
	uint32_t half = FX_STASH / 2;

	rte_mempool_put_bulk(s->pool, (void **)s->m, half);
	memmove(s->m, s->m + half, half * sizeof(s->m[0]));
	s->n -= half;
}

static void stash_put(struct fx_stash *s, struct rte_mbuf *m)
{
	s->m[s->n++] = m;
	if (unlikely(s->n == FX_STASH))
		stash_spill(s);
}

/* ---- out ---- */

unsigned fx_txbuf_prepare(struct fx_worker *w)
{
	const struct fx_stash *hdr = &w->stash[FX_HDR];
	unsigned n = FX_TX_BURST;

	if (w->ntx + n > FX_TXQ)
		return 0;
	if (!stash_fill(&w->stash[FX_HDR], n) || !stash_fill(&w->stash[FX_PAY], n * FX_PKT_SEGS) ||
	    !stash_fill(&w->stash[FX_SPARE], n)) {
		w->n.tx_no_buffer++;
		return 0;
	}
	for (unsigned i = 0; i < n; i++) {
		const struct rte_mbuf *m = hdr->m[hdr->n - 1 - i]; /* in the order of stash_get() */

		w->pkt[i].hdr = (uint8_t *)m->buf_addr + RTE_PKTMBUF_HEADROOM;
	}
	return n;
}

static struct rte_mbuf *attach(struct fx_worker *w, struct rte_mbuf *last, uint8_t *base, uint32_t len,
			       struct fx_wqe *wqe, struct fx_mw *mw, struct fx_under_way *u)
{
	struct rte_mbuf *m = stash_get(&w->stash[FX_PAY]);
	struct fx_pay_priv *priv = rte_mbuf_to_priv(m);

	priv->wqe = wqe;
	priv->mw = mw;
	priv->under_way = fx_set_out(u);
	rte_mbuf_ext_refcnt_set(&priv->shinfo, 1);
	/* by virtual address: a software port needs no other */
	rte_pktmbuf_attach_extbuf(m, base, (rte_iova_t)(uintptr_t)base, (uint16_t)len, &priv->shinfo);
	m->data_len = (uint16_t)len;
	last->next = m;
	return m;
}

/* Zeroes behind the payload, to a multiple of four. */
static uint8_t pad_bytes[4];

static void chain(struct fx_worker *w, struct rte_mbuf *m, const struct fx_txpkt *p, struct fx_under_way *u)
{
	struct rte_mbuf *last = m;

	m->data_len = p->hdr_len;
	m->pkt_len = p->hdr_len + (p->nseg ? p->payload + p->pad : 0);
	m->nb_segs = (uint16_t)(1 + p->nseg + (p->nseg && p->pad));
	for (unsigned i = 0; i < p->nseg; i++)
		last = attach(w, last, p->seg[i].base, p->seg[i].len, p->wqe, p->mw, u);
	if (p->nseg && p->pad)
		attach(w, last, pad_bytes, p->pad, NULL, NULL, u);
	w->n.header_only += p->nseg != 0;
}

bool fx_txbuf_mark(struct fx_worker *w, struct rte_mbuf *m, struct fx_wqe *wqe, struct fx_under_way *u)
{
	if (w->port->info.max_segs < 2 || !stash_fill(&w->stash[FX_PAY], 1))
		return false;
	attach(w, m, pad_bytes, 0, wqe, NULL, u);
	m->nb_segs = 2;
	return true;
}

void fx_txbuf_take(struct fx_worker *w, unsigned n)
{
	struct rte_mbuf *hdr[FX_TX_BURST];

	/* all of them first: those that are not needed go back on the same stack */
	for (unsigned i = 0; i < n; i++)
		hdr[i] = stash_get(&w->stash[FX_HDR]);
	for (unsigned i = 0; i < n; i++) {
		const struct fx_txpkt *p = &w->pkt[i];
		bool fits = p->nseg + (p->pad != 0) < w->port->info.max_segs;

		if (likely(!p->nseg || (fits && !p->stage))) {
			struct fx_wqp *wqp = fx_wqp_of(p->qp);

			chain(w, hdr[i], p, &wqp->ctx->under_way);
			if (unlikely(wqp->first))
				fx_stage_follow(wqp, hdr[i]);
			else
				w->txq[w->ntx++] = hdr[i];
			continue;
		}
		w->n.linearised += !p->stage;
		fx_stage_start(w, stash_get(&w->stash[FX_SPARE]), p);
		fx_txbuf_free(w, hdr[i]);
	}
}

unsigned fx_txbuf_flush(struct fx_worker *w)
{
	unsigned n;

	if (!w->ntx)
		return 0;
	n = fx_port_tx(w->port, w->queue, w->txq, (uint16_t)w->ntx);
	w->n.tx_bursts++;
	w->ntx -= n;
	if (unlikely(w->ntx)) {
		w->n.tx_full++;
		memmove(w->txq, w->txq + n, w->ntx * sizeof(w->txq[0]));
	}
	return n;
}

/* ---- home ---- */

static void bring_home(struct fx_worker *w, struct rte_mbuf *m)
{
	for (int i = 0; i < FX_STASHES; i++)
		if (m->pool == w->stash[i].pool) {
			stash_put(&w->stash[i], m);
			return;
		}
	rte_mbuf_raw_free(m); /* a port's own */
}

void fx_txbuf_free(struct fx_worker *w, struct rte_mbuf *m)
{
	while (m) {
		struct rte_mbuf *next = m->next;

		m = rte_pktmbuf_prefree_seg(m); /* calls segment_gone() */
		if (m)
			bring_home(w, m);
		m = next;
	}
}

/* ---- in ---- */

struct fx_pkt *fx_txbuf_pkt(const struct fx_worker *w, struct rte_mbuf *m)
{
	struct fx_pkt *p = rte_mbuf_to_priv(m);
	struct rte_mbuf *s = m->next;
	uint8_t n = 0;

	p->frame = rte_pktmbuf_mtod(m, uint8_t *);
	p->have = m->data_len;
	p->total = m->pkt_len;
	for (; s; s = s->next, n++) {
		if (n == FX_PKT_SEGS)
			return NULL;
		p->more[n].base = rte_pktmbuf_mtod(s, uint8_t *);
		p->more[n].len = s->data_len;
	}
	p->nmore = n;
	p->cost = m->pool == w->stash[FX_SPARE].pool ? COST_SPARE : (uint16_t)(COST_HDR + n * COST_PAY);
	return p;
}

/* The buffers behind the first are shared, each with a count of its users, and go home with the last of them. */
struct fx_pkt *fx_txbuf_clone(struct fx_worker *w, const struct fx_pkt *p)
{
	struct fx_stash *s = &w->stash[p->have <= FX_TX_ROOM ? FX_HDR : FX_SPARE];
	const struct rte_mbuf *from = fx_pkt_mbuf(p);
	struct rte_mbuf *m;

	if (!stash_fill(s, 1))
		return NULL;
	m = stash_get(s);
	memcpy(rte_pktmbuf_mtod(m, uint8_t *), p->frame, p->have);
	m->data_len = (uint16_t)p->have;
	m->pkt_len = p->total;
	m->nb_segs = from->nb_segs;
	m->next = from->next;
	for (struct rte_mbuf *t = m->next; t; t = t->next)
		rte_mbuf_refcnt_update(t, 1);
	return fx_txbuf_pkt(w, m);
}
