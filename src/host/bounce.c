/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which parts of a request go through buffers, and what becomes of those: see bounce.h.
 *
 * Room: host. May use: slow.c, pool.c.
 *
 * An SGE is cut where its memory turns slow or fast, so that a buffer has no more than the slow parts. What the
 * library cannot see to be right (an unknown key, bounds, rights) goes to the core unchanged, which says what is wrong.
 *
 * A fenced request reads what the READs before it fetch. While one is under way nothing of it is copied early: what
 * overlaps a landing that goes through a buffer is read from that buffer, which lives until both have completed, and
 * all else is left to the helper thread.
 */
#include <stdlib.h>
#include <string.h>

#include "host/bounce.h"

/* ---- cutting ---- */

struct part {
	struct ibv_sge sge;
	uint64_t addr; /* of a region in slow.c: the application's */
	bool slow;
};
struct cut {
	uint32_t n, max;
	uint64_t slow, total; /* bytes */
	bool known;	      /* all of it lies in regions of slow.c */
	struct part part[FX_MAX_SGE];
};

/* False: more parts than an entry has room for. */
static bool cut_add(struct cut *c, const struct part *p)
{
	if (c->n == c->max)
		return false;
	c->part[c->n++] = *p;
	c->total += p->sge.length;
	if (p->slow)
		c->slow += p->sge.length;
	return true;
}

/* `whole`: an SGE of which anything is slow is slow. */
static bool cut_sge(struct cut *c, const struct fx_vmr *mr, const struct ibv_sge *sge, bool whole)
{
	uint64_t off = sge->addr - mr->iova;
	struct part p = {.sge = *sge};

	for (uint32_t left = sge->length; left; left -= p.sge.length, off += p.sge.length) {
		p.sge.addr = mr->iova + off;
		p.sge.length = left;
		p.addr = (uintptr_t)mr->mr.addr + off;
		p.slow = fx_slow_at(mr, off, &p.sge.length);
		if (whole && p.sge.length < left) {
			p.sge.length = left;
			p.slow = true;
		}
		if (!cut_add(c, &p))
			return false;
	}
	return true;
}

static bool cut_list(struct fx_vqp *qp, const struct ibv_sge *sge, uint32_t n, bool land, bool whole,
		     uint32_t max, struct cut *c)
{
	bool ok = true;

	c->n = 0;
	c->max = max;
	c->slow = c->total = 0;
	c->known = true;
	fx_lock(&qp->ctx->slow_lock);
	for (uint32_t i = 0; i < n && ok; i++) {
		const struct fx_vmr *mr = fx_slow_find(qp, &sge[i], land);
		struct part as_it_is = {.sge = sge[i]};

		if (mr && sge[i].length) {
			ok = cut_sge(c, mr, &sge[i], whole);
			continue;
		}
		c->known = c->known && !sge[i].length;
		ok = cut_add(c, &as_it_is);
	}
	fx_unlock(&qp->ctx->slow_lock);
	return ok;
}

/* Into parts, or where there would be too many into whole SGEs. True: something is slow, and not too much. */
static bool cut(struct fx_vqp *qp, const struct ibv_sge *sge, int n, bool land, uint32_t max, struct cut *c)
{
	if (!fx_alive(qp->ctx)) /* a forked child shares the buffers with its parent */
		return false;
	if (!cut_list(qp, sge, (uint32_t)n, land, false, max, c))
		cut_list(qp, sge, (uint32_t)n, land, true, max, c);
	return c->slow && c->slow <= FX_BOUNCE_MAX;
}

/* ---- buffers ---- */

/* The queue's request number `index` will use `b`. */
static void attach(struct fx_shadow *s, uint32_t index, struct fx_bounce *b)
{
	s->bounce[index & s->mask] = b;
	__atomic_store_n(&s->bounce_end, index + 1, __ATOMIC_RELAXED);
}

static struct fx_bounce *get_buffer(const struct fx_vqp *qp, struct fx_shadow *s, uint64_t len)
{
	struct fx_pool *pool = fx_pool_of(qp);

	if (!pool)
		return NULL;
	if (!s->bounce)
		s->bounce = calloc((size_t)s->mask + 1, sizeof(struct fx_bounce *));
	return s->bounce ? fx_pool_get(pool, (uint32_t)len) : NULL;
}

static void put_buffer(const struct fx_vqp *qp, struct fx_bounce *b)
{
	struct fx_pool *pool = fx_pool_of(qp);

	fx_lock(&pool->lock);
	fx_pool_put(pool, b);
	fx_unlock(&pool->lock);
}

/* Slow parts become parts of the buffer: filled, or noted to be copied when the request completes. */
static bool divert(const struct fx_vqp *qp, struct cut *c, struct fx_bounce *b, bool land)
{
	uint32_t lkey = fx_pool_of(qp)->lkey, at = 0, skip = 0;

	for (uint32_t i = 0; i < c->n; skip += c->part[i++].sge.length) {
		struct part *p = &c->part[i];

		if (!p->slow)
			continue;
		if (land)
			b->land[b->nland++] = (struct fx_piece){.addr = p->addr,
								.len = p->sge.length,
								.lkey = p->sge.lkey,
								.skip = skip,
								.at = at};
		else if (!fx_slow_read(qp->ctx, b->data + at, p->addr, p->sge.length))
			return false;
		p->sge.addr = (uintptr_t)b->data + at;
		p->sge.lkey = lkey;
		at += p->sge.length;
	}
	return true;
}

/* False: it has to go as it is. */
static bool through_buffer(struct fx_vqp *qp, struct fx_shadow *s, uint32_t index, struct cut *c, bool land)
{
	struct fx_bounce *b = get_buffer(qp, s, c->slow);

	if (!b)
		return false;
	if (!divert(qp, c, b, land)) {
		put_buffer(qp, b);
		return false;
	}
	attach(s, index, b);
	return true;
}

/* The detour's request is `wr` with the parts for SGEs. */
static const struct ibv_send_wr *with_parts(struct fx_detour *d, const struct ibv_send_wr *wr,
					    const struct cut *c)
{
	d->wr = *wr;
	d->wr.sg_list = d->sge;
	d->wr.num_sge = (int)c->n;
	for (uint32_t i = 0; i < c->n; i++)
		d->sge[i] = c->part[i].sge;
	return &d->wr;
}

/* ---- sources ---- */

static bool send_inline(const struct fx_vqp *qp, const struct ibv_send_wr **wr, const struct cut *c,
			struct fx_detour *d)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < c->n; at += c->part[i++].sge.length) {
		const struct part *p = &c->part[i];

		if (p->sge.length && !fx_slow_read(qp->ctx, d->data + at, p->addr, p->sge.length))
			return false;
	}
	d->wr = **wr;
	d->sge[0] = (struct ibv_sge){.addr = (uintptr_t)d->data, .length = at};
	d->wr.sg_list = d->sge;
	d->wr.num_sge = 1;
	d->wr.send_flags |= IBV_SEND_INLINE;
	*wr = &d->wr;
	return true;
}

/*
 * The newest landing before request `index` that has anything of `sge`: 1 and the SGE is there, and `b` has its loan; 0: there is
 * none; -ENOMEM: it has a part only. Holds the pool's lock, and so the requests under way keep their buffers.
 */
static int borrow(const struct fx_shadow *s, uint32_t index, struct fx_bounce *b, uint64_t addr,
		  struct ibv_sge *sge, uint32_t lkey)
{
	uint32_t tail = __atomic_load_n(&s->tail, __ATOMIC_ACQUIRE); /* against fx_shadow_retire() */

	for (uint32_t i = index; i != tail; i--) {
		struct fx_bounce *from = s->bounce[(i - 1) & s->mask];

		for (uint32_t k = 0; from && k < from->nland; k++) {
			const struct fx_piece *p = &from->land[k];

			if (addr >= p->addr + p->len || p->addr >= addr + sge->length)
				continue;
			if (addr < p->addr || addr + sge->length > p->addr + p->len)
				return -ENOMEM;
			from->refs++;
			b->loan[b->nloan++] = from;
			sge->addr = (uintptr_t)from->data + p->at + (addr - p->addr);
			sge->lkey = lkey;
			return 1;
		}
	}
	return 0;
}

/* Where a fenced request's SGE is in the application's memory. */
static uint64_t address_of(struct fx_vqp *qp, const struct ibv_sge *sge)
{
	const struct fx_vmr *mr;
	uint64_t addr = sge->addr; /* true of every region but those with an iova of their own */

	fx_lock(&qp->ctx->slow_lock);
	mr = fx_slow_find(qp, sge, false);
	if (mr)
		addr = (uintptr_t)mr->mr.addr + (sge->addr - mr->iova);
	fx_unlock(&qp->ctx->slow_lock);
	return addr;
}

static int fenced(struct fx_vqp *qp, uint32_t index, const struct ibv_send_wr **wr, struct fx_detour *d)
{
	struct fx_pool *pool = fx_pool_of(qp);
	struct fx_bounce *b = get_buffer(qp, &qp->sq, 1); /* for its loans only */
	int rc = b ? 0 : -ENOMEM;

	d->wr = **wr;
	d->wr.sg_list = d->sge;
	for (int i = 0; i < d->wr.num_sge && rc >= 0; i++) {
		uint64_t addr = address_of(qp, &(*wr)->sg_list[i]);

		d->sge[i] = (*wr)->sg_list[i];
		if (!d->sge[i].length)
			continue;
		fx_lock(&pool->lock);
		rc = borrow(&qp->sq, index, b, addr, &d->sge[i], pool->lkey);
		fx_unlock(&pool->lock);
	}
	if (rc >= 0 && b->nloan) {
		attach(&qp->sq, index, b);
		*wr = &d->wr;
		return 0;
	}
	if (b)
		put_buffer(qp, b);
	return rc < 0 ? rc : 0;
}

/* Is a READ or an atomic under way? */
static bool fetching(const struct fx_vqp *qp)
{
	/* acquire: what fx_bounce_complete() put into memory comes before the release of the tail */
	return (int32_t)(qp->fetch_end - __atomic_load_n(&qp->sq.tail, __ATOMIC_ACQUIRE)) > 0;
}

int fx_bounce_source(struct fx_vqp *qp, uint32_t index, const struct ibv_send_wr **wr, struct fx_detour *d)
{
	struct ibv_qp_cap room = fx_qp_room(qp);
	struct cut c;

	if ((*wr)->send_flags & IBV_SEND_INLINE)
		return 0;
	if (((*wr)->send_flags & IBV_SEND_FENCE) && fetching(qp))
		return fx_shadow_bounced(&qp->sq) && fx_alive(qp->ctx) ? fenced(qp, index, wr, d) : 0;
	if (!cut(qp, (*wr)->sg_list, (*wr)->num_sge, false, room.max_send_sge, &c))
		return 0;
	if (c.known && c.total <= room.max_inline_data && send_inline(qp, wr, &c, d))
		return 0;
	if (through_buffer(qp, &qp->sq, index, &c, false))
		*wr = with_parts(d, *wr, &c);
	return 0;
}

/* ---- landings ---- */

void fx_bounce_landing(struct fx_vqp *qp, uint32_t index, const struct ibv_send_wr **wr, bool atomic,
		       struct fx_detour *d)
{
	struct ibv_sge word;
	struct cut c;
	bool slow;

	qp->fetch_end = index + 1;
	if (!atomic) {
		slow = cut(qp, (*wr)->sg_list, (*wr)->num_sge, true, fx_qp_room(qp).max_send_sge, &c);
	} else {
		/* eight bytes of one SGE, whatever its length; less than that is an error, which the core tells */
		word = (*wr)->sg_list[0];
		if (word.length > sizeof(uint64_t))
			word.length = sizeof(uint64_t);
		slow = word.length == sizeof(uint64_t) && cut(qp, &word, 1, true, 1, &c);
	}
	if (slow && through_buffer(qp, &qp->sq, index, &c, true))
		*wr = with_parts(d, *wr, &c);
}

uint32_t fx_bounce_recv(struct fx_vqp *qp, const struct ibv_recv_wr *wr, struct fx_sge *sge)
{
	struct cut c;

	if (cut(qp, wr->sg_list, wr->num_sge, true, fx_qp_room(qp).max_recv_sge, &c) &&
	    through_buffer(qp, &qp->rq, qp->rq.head, &c, true)) {
		for (uint32_t i = 0; i < c.n; i++)
			memcpy(&sge[i], &c.part[i].sge, sizeof(sge[i]));
		return c.n;
	}
	if (wr->num_sge)
		memcpy(sge, wr->sg_list, (size_t)wr->num_sge * sizeof(sge[0]));
	return (uint32_t)wr->num_sge;
}

/* ---- completion ---- */

/* The first `len` bytes of the message. False: not all of it has a place any more. */
static bool land(struct fx_context *ctx, const struct fx_bounce *b, uint32_t len)
{
	bool ok = true;

	for (uint32_t i = 0; i < b->nland; i++) {
		const struct fx_piece *p = &b->land[i];
		uint32_t n = p->skip >= len ? 0 : p->len < len - p->skip ? p->len : len - p->skip;

		if (n)
			ok = fx_slow_write(ctx, p->lkey, p->addr, b->data + p->at, n) && ok;
	}
	return ok;
}

/* A fenced request that is posted right now finds the buffer with its bytes, or none and the bytes in place. */
static void detach(const struct fx_vqp *qp, struct fx_shadow *s, uint32_t index)
{
	struct fx_bounce **b = &s->bounce[index & s->mask];
	struct fx_pool *pool = fx_pool_of(qp);

	fx_lock(&pool->lock);
	fx_pool_put(pool, *b);
	*b = NULL;
	fx_unlock(&pool->lock);
}

/* How many bytes of request `index` have landed, of a queue that a CQE retires up to its own index. */
static uint32_t landed(const struct fx_cqe *c, uint32_t index)
{
	if (c->opcode & FX_WC_RECV) /* what comes with an immediate of a WRITE is elsewhere */
		return c->index == index && c->opcode == FX_WC_RECV && !c->status ? c->byte_len : 0;
	return c->index == index && c->status ? 0 : UINT32_MAX;
}

bool fx_bounce_complete(struct fx_vqp *qp, struct fx_shadow *s, struct fx_cqe *c)
{
	for (uint32_t i = s->tail; s->bounce && i != c->index + 1; i++) {
		const struct fx_bounce *b = s->bounce[i & s->mask];
		bool ok;

		if (!b)
			continue;
		ok = land(qp->ctx, b, landed(c, i));
		detach(qp, s, i);
		if (ok)
			continue;
		c->status = FX_WC_LOC_PROT_ERR;
		c->syndrome = c->flags = 0;
		if (i == c->index)
			return true;
		c->index = i;
		c->opcode = s->wr[i & s->mask].opcode;
		c->byte_len = 0;
		return false;
	}
	return true;
}

static void drop(struct fx_vqp *qp, struct fx_shadow *s, uint32_t from, uint32_t end)
{
	for (uint32_t i = from; s->bounce && i != end; i++)
		if (s->bounce[i & s->mask])
			detach(qp, s, i);
}

void fx_bounce_drop(struct fx_vqp *qp, struct fx_shadow *s, uint32_t end)
{
	drop(qp, s, s->tail, end);
}

void fx_bounce_cancel(struct fx_vqp *qp, uint32_t end)
{
	drop(qp, &qp->sq, qp->sq.head, end);
}
