/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From the host: the slots of send pipes and receive queues. A read brings what it brings; only what has the right
 * phase is taken over, in order, so that the worker's copy never holds half an entry or an old one.
 *
 * Room: mirror.
 */
#include <stdlib.h>

#include "mirror/inside.h"

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/*
 * A queue that was reset goes on behind entries that were never read: they count as used up. Their slots get the
 * phase that a used one has, or a lap later they would look as if they were new.
 */
static void skip_unread(struct fx_pull *p)
{
	uint32_t mask = (1u << p->shift) - 1;

	for (; (int32_t)(*p->consumed - p->have) > 0; p->have++)
		p->local[(size_t)(p->have & mask) * FX_SLOT_SIZE + FX_SLOT_SIZE - 1] =
			fx_phase(p->have, p->shift);
}

bool fx_pull_start(struct fx_mirror *m, struct fx_mirror_ctx *x, struct fx_pull *p, void *ring,
		   fx_moved *done)
{
	uint32_t size = 1u << p->shift, at, n;
	struct fx_move *v;

	if (p->flight)
		return false;
	skip_unread(p);
	at = p->have & (size - 1);
	/* a slot is read again only after the entry of the lap before was used up here */
	n = least(least(p->batch, *p->consumed + size - p->have), size - at);
	v = n ? fx_move_get(m, x, ring, done) : NULL;
	if (!v)
		return false;
	p->flight = 1;
	v->index = p->have;
	v->n = n;
	fx_move_start(m, v, p->va + (uint64_t)at * FX_SLOT_SIZE, n * FX_SLOT_SIZE, false);
	return true;
}

uint32_t fx_pull_take(struct fx_pull *p, const struct fx_move *v)
{
	uint32_t mask = (1u << p->shift) - 1, n;

	skip_unread(p);
	for (n = p->have - v->index; n < v->n; n++, p->have++) {
		const uint8_t *slot = v->buf + (size_t)n * FX_SLOT_SIZE;
		uint8_t phase = fx_phase(p->have, p->shift);

		if (slot[FX_SLOT_SIZE - 1] != phase)
			break;
		fx_slot_publish(p->local + (size_t)(p->have & mask) * FX_SLOT_SIZE, slot, phase);
	}
	/* as much as there was, and more while it comes: reads cost by number and by length */
	if (n == v->n)
		p->batch = least(2 * p->batch, FX_PULL_MAX);
	else if (n < p->batch / 2 && p->batch > FX_PULL_MIN)
		p->batch /= 2;
	return n < v->n ? n : v->n;
}

/* ---- send pipes ---- */

static void pipe_pulled(struct fx_mirror *m, struct fx_move *v, int err)
{
	struct fx_mirror_ctx *x = v->ctx;
	bool found;

	x->pull.flight = 0;
	found = !err && fx_pull_take(&x->pull, v);
	x->dry = !found;
	if (found)
		x->active = m->now;
	if (x->doze == FX_LAST_LOOK) {
		x->doze = found || err ? FX_AWAKE : FX_DOZING;
		x->dozed = m->now;
	}
}

void fx_pull_pipe(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	fx_pull_start(m, x, &x->pull, x, pipe_pulled);
}

/* ---- receive queues ---- */

struct fx_mirror_rq *fx_mirror_rq_new(struct fx_mirror_ctx *x, uint64_t va, struct fx_rq *rq, void *owner)
{
	struct fx_mirror_rq *r = calloc(1, sizeof(*r));
	uint8_t *slots = calloc((size_t)1 << rq->shift, FX_SLOT_SIZE);

	if (!r || !slots) {
		free(r);
		free(slots);
		return NULL;
	}
	rq->slots = slots;
	r->ctx = x;
	r->owner = owner;
	r->pull = (struct fx_pull){
		.local = slots,
		.va = va,
		.shift = rq->shift,
		.have = rq->pos,
		.consumed = &rq->pos,
		.batch = FX_PULL_MAX,
	};
	return r;
}

void fx_mirror_rq_free(struct fx_mirror_rq *r)
{
	free(r->pull.local);
	free(r);
}

bool fx_mirror_rq_idle(const struct fx_mirror_rq *r)
{
	return !r || (!r->pull.flight && !r->wanted);
}

static void want_look(struct fx_mirror *m, struct fx_mirror_rq *r)
{
	if (r->wanted)
		return;
	r->wanted = true;
	r->next = NULL;
	*m->looks_tail = r;
	m->looks_tail = &r->next;
}

/* Whoever asked meanwhile asked for a later look: it follows. An entry that wraps round takes two. */
static void rq_pulled(struct fx_mirror *m, struct fx_move *v, int err)
{
	struct fx_mirror_rq *r = v->ring;
	uint32_t mask = (1u << r->pull.shift) - 1;

	r->pull.flight = 0;
	if (!err)
		fx_pull_take(&r->pull, v);
	if (!err && r->pull.have == v->index + v->n && !(r->pull.have & mask))
		want_look(m, r);
	if (!r->wanted)
		m->cfg.env.looked(m->cfg.env.arg, r->owner);
}

bool fx_mirror_look(struct fx_mirror *m, struct fx_mirror_rq *r)
{
	if (r)
		want_look(m, r);
	return r;
}

void fx_mirror_rq_moved(struct fx_mirror_rq *r)
{
	if (r)
		skip_unread(&r->pull);
}

void fx_pull_looks(struct fx_mirror *m)
{
	struct fx_mirror_rq *list = m->looks, *next;

	m->looks = NULL;
	m->looks_tail = &m->looks;
	for (struct fx_mirror_rq *r = list; r; r = next) {
		bool lost = r->ctx->broken || !r->ctx->attached, full;

		next = r->next;
		r->wanted = false;
		full = *r->pull.consumed + (1u << r->pull.shift) == r->pull.have;
		if (lost || full)
			m->cfg.env.looked(m->cfg.env.arg, r->owner); /* there is nothing more to be seen */
		else if (!fx_pull_start(m, r->ctx, &r->pull, r, rq_pulled))
			want_look(m, r);
	}
}
