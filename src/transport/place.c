/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Placement: payloads into application memory, in PSN order, over engines that finish later and in any order.
 *
 * Room: transport. Every QP has two queues, requests and READ responses; a packet enters in PSN order, its copies are
 * submitted in that order, and it takes effect (completion, answer, READ) when it is at the head and its copies are
 * done: guarantees O1 and O2. Copies of one queue run ahead of each other only on one ordered engine.
 */
#include "transport/qp.h"

void fx_touch(struct fx_tp *tp, struct fx_qp *qp)
{
	if (qp->on_touched)
		return;
	qp->on_touched = true;
	qp->touch_next = tp->touched;
	tp->touched = qp;
}

/* ---- landing ranges ---- */

/* Moves (i, off) over `len` bytes of the list. */
void fx_sges_skip(const struct fx_sge *sge, uint32_t nsge, uint32_t *i, uint32_t *off, uint32_t len)
{
	while (*i < nsge && len >= sge[*i].length - *off) {
		len -= sge[*i].length - *off;
		*off = 0;
		++*i;
	}
	if (*i < nsge)
		*off += len;
}

uint8_t fx_sges_check(struct fx_tp *tp, uint32_t pd, const struct fx_sge *sge, uint32_t nsge, uint32_t i,
		      uint32_t off, uint32_t len, uint32_t access)
{
	for (; len && i < nsge; i++, off = 0) {
		uint32_t n = sge[i].length - off;
		struct fx_mr *mr;

		if (!n)
			continue;
		mr = fx_mr_get(tp->cfg.mrs, sge[i].lkey);
		if (!mr || mr->pd != pd || (mr->access & access) != access ||
		    !fx_mr_covers(mr, sge[i].addr, sge[i].length))
			return FX_WC_LOC_PROT_ERR;
		len -= n < len ? n : len;
	}
	return len ? FX_WC_LOC_LEN_ERR : FX_WC_SUCCESS;
}

/* The next contiguous piece of the packet's payload, from payload_off on. */
static const uint8_t *payload_at(const struct fx_pkt *p, uint32_t *len)
{
	uint32_t off = p->payload_off;

	if (off < p->have) {
		if (*len > p->have - off)
			*len = p->have - off;
		return p->frame + off;
	}
	off -= p->have;
	for (unsigned i = 0; i < p->nmore; i++) {
		if (off < p->more[i].len) {
			if (*len > p->more[i].len - off)
				*len = p->more[i].len - off;
			return p->more[i].base + off;
		}
		off -= p->more[i].len;
	}
	*len = 0;
	return NULL;
}

uint64_t fx_payload_word(struct fx_pkt *p)
{
	uint8_t bytes[sizeof(uint64_t)] = {0};
	uint64_t word;

	for (uint32_t at = 0, n; at < sizeof(bytes); at += n) {
		const uint8_t *from;

		n = (uint32_t)sizeof(bytes) - at;
		from = payload_at(p, &n);
		if (!from)
			break;
		memcpy(bytes + at, from, n);
		p->payload_off += n;
	}
	memcpy(&word, bytes, sizeof(word)); /* its bytes are to lie in memory as they came */
	return word;
}

/*
 * The next landing of the packet: its region and address, *len cut to what is contiguous; NULL if it is gone. The key
 * is looked up again: region or window may have gone since the packet was let in (guarantee L2).
 */
static struct fx_mr *landing_at(struct fx_tp *tp, struct fx_pkt *p, uint64_t *va, uint32_t *len)
{
	const struct fx_sge *s = p->sge ? &p->sge[p->sge_i] : NULL;
	struct fx_spot at;
	struct fx_mr *mr;

	if (!s) {
		if (!fx_remote_at(tp, p->qp, p->pd, p->rkey, p->va, *len,
				  p->act == FX_PLACE_ATOMIC ? FX_ACC_REMOTE_ATOMIC : FX_ACC_REMOTE_WRITE,
				  &at))
			return NULL;
		*va = at.va;
		p->mw = at.mw;
		return at.mr;
	}
	*va = s->addr + p->sge_off;
	if (*len > s->length - p->sge_off)
		*len = s->length - p->sge_off;
	mr = fx_mr_get(tp->cfg.mrs, s->lkey);
	return mr && fx_mr_covers(mr, *va, *len) ? mr : NULL;
}

static void landing_advance(struct fx_pkt *p, uint32_t len)
{
	p->left -= len;
	p->payload_off += len;
	if (!p->sge) {
		p->va += len;
		return;
	}
	fx_sges_skip(p->sge, p->nsge, &p->sge_i, &p->sge_off, len);
}

/* Over what is empty. */
static void landing_settle(struct fx_pkt *p)
{
	while (p->sge && p->sge_i < p->nsge && p->sge[p->sge_i].length == p->sge_off) {
		p->sge_i++;
		p->sge_off = 0;
	}
}

/* ---- what waits ---- */

/* Whoever's memory it is, its packets keep buffers that all the others need too. */
static void keep(struct fx_tp *tp, struct fx_fifo *f, struct fx_pkt *p)
{
	if (p->kept)
		return;
	p->kept = true;
	f->kept++;
	p->qp->share->kept += p->cost;
	tp->kept += p->cost;
}

static void keep_no_more(struct fx_tp *tp, struct fx_fifo *f, const struct fx_pkt *p)
{
	f->kept--;
	p->qp->share->kept -= p->cost;
	tp->kept -= p->cost;
}

static bool lands_slowly(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	struct fx_pkt at = *p;

	at.qp = qp; /* not yet in its queue */
	for (landing_settle(&at); at.left; landing_settle(&at)) {
		uint32_t len = at.left;
		uint64_t va;
		struct fx_mr *mr = landing_at(tp, &at, &va, &len);

		if (!mr)
			return false; /* it fails at once */
		if (!fx_mr_at(mr, va, &len))
			return true;
		landing_advance(&at, len);
	}
	return false;
}

bool fx_place_refuses(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	return tp->kept && qp->share->kept + tp->kept >= FX_KEEP + FX_KEEP / 4 && lands_slowly(tp, qp, p);
}

/* ---- engines ---- */

static void submit_batch(struct fx_tp *tp)
{
	struct fx_dma_engine *e = tp->cfg.dma;
	unsigned n = tp->ndma, done = n ? e->ops->submit(e, tp->dma, n) : 0;

	if (done < n)
		memmove(tp->dma, tp->dma + done, (n - done) * sizeof(tp->dma[0]));
	tp->ndma -= done;
}

/* Into the batch for the windows' engine; false: that is full. */
static bool queue_fast(struct fx_tp *tp, struct fx_qp *qp, const struct fx_dma *d)
{
	if (tp->ndma == FX_DMA_BATCH)
		submit_batch(tp);
	if (tp->ndma == FX_DMA_BATCH) {
		fx_touch(tp, qp); /* asks again at the next turn */
		return false;
	}
	tp->dma[tp->ndma++] = *d;
	return true;
}

/*
 * To the slow engine at once: it is the application's memory that decides how long such a copy takes, so there is no
 * queue here in which those of others could stand behind it. False: its application has too many under way.
 */
static bool queue_slow(struct fx_tp *tp, struct fx_qp *qp, const struct fx_dma *d)
{
	struct fx_dma_engine *e = tp->cfg.slow;

	if (e->ops->submit(e, d, 1)) {
		qp->share->slow++;
		return true;
	}
	if (qp->share->slow)
		fx_slow_wait(qp); /* until one of them is done */
	else
		fx_touch(tp, qp);
	return false;
}

/* Queues `d`, whose cookie is a packet of the queue. False: it has to wait, for its predecessors or for room. */
static bool enqueue(struct fx_tp *tp, struct fx_fifo *f, const struct fx_dma *d)
{
	struct fx_dma_engine *e = d->win ? tp->cfg.dma : tp->cfg.slow;
	struct fx_pkt *p = d->cookie;
	struct fx_under_way *u = p->qp->cfg.under_way;

	if (!d->win)
		keep(tp, f, p);
	if (f->flying && (f->eng != e || !e->ops->ordered))
		return false;
	if (!(d->win ? queue_fast : queue_slow)(tp, p->qp, d))
		return false;
	/* what is looked up now counts for this period; while copies of an older one fly, none can begin after this */
	if (!p->ndma++)
		p->parity = (uint8_t)u->parity;
	u->n[p->parity]++;
	if (p->mw)
		p->mw->held++;
	tp->flying++;
	f->flying++;
	f->eng = e;
	return true;
}

/* Its memory is gone: nothing more of it is copied, and it fails when its turn comes. */
static bool lost(struct fx_tp *tp, struct fx_pkt *p)
{
	tp->n.dma_errors++;
	p->failed = true;
	p->syndrome = p->sge ? FX_NAK_REMOTE_OP : FX_NAK_REMOTE_ACCESS;
	p->left = 0;
	return true;
}

static uint8_t op_of(const struct fx_pkt *p)
{
	if (p->act == FX_PLACE_STORE)
		return FX_DMA_STORE;
	return (p->bth.opcode & 0x1f) == FX_OP_COMPARE_SWAP ? FX_DMA_COMPARE_SWAP : FX_DMA_FETCH_ADD;
}

/*
 * Queues an atomic, once everything before it is in memory and went well (guarantee O1). What follows it on an ordered
 * engine is done after it, and on any other waits.
 */
static bool submit_atomic(struct fx_tp *tp, struct fx_fifo *f, struct fx_pkt *p)
{
	struct fx_dma d = {.local = (uint8_t *)&p->atomic,
			   .len = p->left,
			   .to_window = true,
			   .op = op_of(p),
			   .cookie = p};

	if (p != f->head)
		return false;
	if (p->qp->state == FX_QPS_ERR) {
		p->left = 0; /* something before it failed */
		return true;
	}
	d.mr = landing_at(tp, p, &d.va, &d.len);
	if (d.mr)
		d.win = fx_mr_at(d.mr, d.va, &d.len);
	if (!d.mr || d.len != p->left)
		return lost(tp, p);
	if (!enqueue(tp, f, &d))
		return false;
	p->left = 0;
	return true;
}

/* Queues the next copy of `p`. False: it has to wait. */
static bool submit_one(struct fx_tp *tp, struct fx_fifo *f, struct fx_pkt *p)
{
	struct fx_dma d = {.to_window = true, .cookie = p};

	if (p->act == FX_PLACE_ATOMIC || p->act == FX_PLACE_STORE)
		return submit_atomic(tp, f, p);
	landing_settle(p);
	d.len = p->left;
	d.local = (uint8_t *)(uintptr_t)payload_at(p, &d.len);
	d.mr = landing_at(tp, p, &d.va, &d.len);
	if (!d.mr || !d.local)
		return lost(tp, p);
	d.win = fx_mr_at(d.mr, d.va, &d.len);
	if (!enqueue(tp, f, &d))
		return false;
	landing_advance(p, d.len);
	return true;
}

static void fifo_submit(struct fx_tp *tp, struct fx_fifo *f)
{
	while (f->next && !f->barrier) {
		struct fx_pkt *p = f->next;

		while (p->left)
			if (!submit_one(tp, f, p))
				return;
		p->submitted = true;
		f->next = p->next;
		if (fx_revokes(p))
			f->barrier = p; /* what comes behind it is to find the key gone */
	}
}

void fx_place_push(struct fx_tp *tp, struct fx_fifo *f, struct fx_qp *qp, struct fx_pkt *p)
{
	p->next = NULL;
	p->qp = qp;
	p->ndma = 0;
	p->mw = NULL;
	p->submitted = p->failed = p->dropped = p->kept = false;
	if (f->tail)
		f->tail->next = p;
	else
		f->head = p;
	f->tail = p;
	f->n++;
	if (!f->next)
		f->next = p;
	fifo_submit(tp, f);
	if (f->kept || !p->submitted)
		keep(tp, f, p);
	if (!p->submitted && p->sge) {
		/* it waits: the queue entry it lands in may be replaced before its turn */
		memcpy(p->own, p->sge, p->nsge * sizeof(p->own[0]));
		p->sge = p->own;
	}
	fx_touch(tp, qp);
}

/* What is queued has no effect any more; copies under way still finish before the buffers go. */
void fx_place_drop(struct fx_qp *qp, struct fx_fifo *f)
{
	(void)qp;
	for (struct fx_pkt *p = f->head; p; p = p->next) {
		p->dropped = true;
		p->left = 0;
		p->submitted = true;
	}
	f->next = f->barrier = NULL;
}

static struct fx_fifo *fifo_of(struct fx_pkt *p)
{
	return p->act == FX_PLACE_RESPONSE ? &p->qp->resp : &p->qp->reqs;
}

static void fifo_retire(struct fx_tp *tp, struct fx_qp *qp, struct fx_fifo *f)
{
	struct fx_pkt *p;

	/* each that goes may let the next be submitted: an atomic waits for the head */
	while (fifo_submit(tp, f), (p = f->head) && p->submitted && !p->ndma) {
		if (!p->dropped && f == &qp->reqs && !fx_answer_room(tp, qp, p)) {
			keep(tp, f, p);
			return;
		}
		if (f->barrier == p)
			f->barrier = NULL;
		f->head = p->next;
		if (!f->head)
			f->tail = NULL;
		f->n--;
		if (p->kept)
			keep_no_more(tp, f, p);
		if (!p->dropped) {
			if (f == &qp->resp)
				fx_completer_placed(tp, qp, p);
			else
				fx_responder_placed(tp, qp, p);
		}
		fx_release(tp, p);
	}
}

/* One turn for every touched QP; what they touch meanwhile waits for the next. */
static void retire_touched(struct fx_tp *tp)
{
	struct fx_qp *qp = tp->touched, *next, *asks;

	tp->touched = NULL;
	for (; qp; qp = next) {
		next = qp->touch_next;
		qp->on_touched = false;
		fx_slow_wait_not(qp);
		fifo_retire(tp, qp, &qp->reqs);
		fifo_retire(tp, qp, &qp->resp);
		/* while they find room, those of its context that wait for some ask again, one after the other */
		if (!qp->on_waiting && (asks = fx_slow_next(qp->share)))
			fx_touch(tp, asks);
		if (!qp->tp)
			continue; /* detached: only its buffers had to come home */
		fx_completer_retire(tp, qp);
		if (qp->state == FX_QPS_ERR)
			fx_receive_flush(tp, qp);
	}
}

static unsigned collect(struct fx_tp *tp, struct fx_dma_engine *e)
{
	struct fx_dma_done done[FX_RX_BURST];
	unsigned n = e->ops->poll(e, done, FX_RX_BURST);

	for (unsigned i = 0; i < n; i++) {
		struct fx_pkt *p = done[i].cookie;

		if (done[i].err) {
			tp->n.dma_errors++;
			p->failed = true;
			p->syndrome = fx_lost_syndrome(done[i].err);
		}
		if (e == tp->cfg.slow)
			p->qp->share->slow--;
		if (p->mw)
			p->mw->held--;
		p->ndma--;
		tp->flying--;
		p->qp->cfg.under_way->n[p->parity]--;
		fifo_of(p)->flying--;
		fx_touch(tp, p->qp);
	}
	return n;
}

unsigned fx_place_poll(struct fx_tp *tp)
{
	unsigned n = 0;

	submit_batch(tp);
	if (tp->flying) {
		n = collect(tp, tp->cfg.dma);
		if (tp->cfg.slow)
			n += collect(tp, tp->cfg.slow);
	}
	retire_touched(tp);
	return n;
}

void fx_place_run(struct fx_tp *tp)
{
	while (fx_place_poll(tp))
		;
}
