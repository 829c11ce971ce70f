/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * To the host: completions and events. An entry leaves with the phase of the host's ring, whose size differs from
 * that of the copy. Writes may land in any order, since the host takes entries in theirs; but an event waits until the
 * completions that it tells of have landed, or who is woken by it would find none and wait again.
 *
 * Room: mirror.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mirror/inside.h"

enum { UNIT = FX_CQE_SIZE };

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* ---- either kind ---- */

static void pushed(struct fx_push *p, const struct fx_move *v)
{
	uint32_t i = 0, landed = p->taken;

	while (p->from[i] != v->index)
		i++;
	p->from[i] = p->from[--p->flight];
	for (i = 0; i < p->flight; i++)
		if ((int32_t)(p->from[i] - landed) < 0)
			landed = p->from[i];
	p->landed = landed;
	fx_store32_release(p->local_ci, landed);
}

static void looked(struct fx_mirror *m, struct fx_move *v, int err, struct fx_push *p)
{
	uint32_t ci;

	p->looking = false;
	if (err || v->index != p->moves)
		return;
	memcpy(&ci, v->buf, sizeof(ci));
	if (ci - p->ci > p->written - p->ci) { /* it has consumed what was never written */
		fx_ctx_broken(m, v->ctx);
		return;
	}
	p->ci = ci;
	p->looked = true;
}

/* Entries that the host has room for; none: a look at its index begins, and *full says what the last one showed. */
static uint32_t room(struct fx_mirror *m, struct fx_mirror_ctx *x, struct fx_push *p, void *ring,
		     fx_moved *done, bool *full)
{
	uint32_t n = (1u << p->shift) - (p->written - p->ci);
	struct fx_move *v;

	*full = false;
	if (n) {
		p->looked = false;
		return n;
	}
	if (p->looked) {
		p->looked = false;
		*full = true;
		return 0;
	}
	v = p->looking ? NULL : fx_move_get(m, x, ring, done);
	if (v) {
		p->looking = true;
		v->index = p->moves;
		fx_move_start(m, v, p->head, sizeof(uint32_t), false);
	}
	return 0;
}

/* One write of up to n entries. False: no transfer is free. */
static bool push(struct fx_mirror *m, struct fx_mirror_ctx *x, struct fx_push *p, uint32_t n, void *ring,
		 fx_moved *done)
{
	uint32_t size = 1u << p->shift, index = p->written - p->origin, at = index & (size - 1),
		 mask = (1u << p->local_shift) - 1;
	struct fx_move *v = p->flight < FX_PUSH_FLIGHT ? fx_move_get(m, x, ring, done) : NULL;

	if (!v)
		return false;
	n = least(least(n, FX_PUSH_MAX), size - at);
	for (uint32_t i = 0; i < n; i++) {
		uint8_t *to = v->buf + (size_t)i * UNIT;

		memcpy(to, p->local + (size_t)((p->taken - p->local_origin + i) & mask) * UNIT, UNIT - 1);
		to[UNIT - 1] = fx_phase(index + i, p->shift);
	}
	v->index = p->taken;
	v->n = n;
	p->from[p->flight++] = p->taken;
	p->taken += n;
	p->written += n;
	fx_move_start(m, v, p->va + (uint64_t)at * UNIT, n * UNIT, true);
	return true;
}

/* Entries before `to` that have not left are lost: the host has no room for them. */
static void skip(struct fx_push *p, uint32_t to)
{
	p->taken = to;
	if (p->flight)
		return; /* whose end tells how far we are */
	p->landed = to;
	fx_store32_release(p->local_ci, to);
}

/* ---- completion queues ---- */

struct fx_mirror_cq *fx_mirror_cq_new(struct fx_mirror_ctx *x, uint64_t va, uint32_t shift, struct fx_cq *cq)
{
	uint32_t local_shift = shift + FX_CQ_SPARE;
	struct fx_mirror_cq *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->head = calloc(1, sizeof(*c->head) + ((size_t)UNIT << local_shift));
	if (!c->head) {
		free(c);
		return NULL;
	}
	c->ctx = x;
	c->cq = cq;
	c->push = (struct fx_push){
		.local = (const uint8_t *)(c->head + 1),
		.local_shift = local_shift,
		.local_ci = &c->head->ci,
		.head = va,
		.va = va + sizeof(struct fx_cq_head),
		.shift = shift,
		.pi = &cq->pi,
	};
	cq->head = c->head;
	cq->ring = (struct fx_cqe *)(c->head + 1);
	cq->shift = local_shift;
	cq->out = &x->out;
	cq->copy = c;
	return c;
}

int fx_mirror_cq_move(struct fx_mirror_cq *c, struct fx_mirror_cq *to, uint32_t ci, uint32_t *end)
{
	struct fx_push *p = &c->push, *n = &to->push;
	struct fx_cq_head *head = c->head;
	uint32_t unsent = *p->pi - p->taken;

	/* all of it may be with the host by now, or none */
	if (p->written - ci > 1u << p->shift || p->written - ci + unsent > 1u << n->shift)
		return -EINVAL;
	for (uint32_t i = 0; i < unsent; i++)
		memcpy(&to->cq->ring[i],
		       p->local + (size_t)((p->taken - p->local_origin + i) & ((1u << p->local_shift) - 1)) *
					  UNIT,
		       UNIT);
	c->head = to->head;
	to->head = head; /* goes with the rest of it */
	c->head->ci = p->landed;
	c->cq->head = c->head;
	c->cq->ring = to->cq->ring;
	c->cq->shift = n->local_shift;
	c->cq->origin = p->local_origin = p->taken;
	p->local = n->local;
	p->local_shift = n->local_shift;
	p->local_ci = n->local_ci;
	p->head = n->head;
	p->va = n->va;
	p->shift = n->shift;
	p->origin = *end = p->written;
	p->ci = ci;
	p->looked = false;
	p->moves++;
	return 0;
}

void fx_mirror_cq_free(struct fx_mirror_cq *c)
{
	free(c->head);
	free(c);
}

/* An event behind it may still look at it. */
bool fx_mirror_cq_idle(const struct fx_mirror_cq *c)
{
	const struct fx_mirror_ctx *x = c ? c->ctx : NULL;

	if (!x)
		return true;
	if (c->push.flight || c->push.looking || (c->cq->queued && x->attached))
		return false;
	return x->broken || !x->attached || x->push.landed == x->events->pi;
}

static void cq_pushed(struct fx_mirror *m, struct fx_move *v, int err)
{
	struct fx_mirror_cq *c = v->ring;

	(void)m;
	(void)err;
	pushed(&c->push, v);
}

static void cq_looked(struct fx_mirror *m, struct fx_move *v, int err)
{
	looked(m, v, err, &((struct fx_mirror_cq *)v->ring)->push);
}

/* True: something of it has not left, and will. */
static bool push_cq(struct fx_mirror *m, struct fx_mirror_ctx *x, struct fx_mirror_cq *c)
{
	struct fx_push *p = &c->push;
	bool full;

	while (*p->pi != p->taken && !p->dead) {
		uint32_t n = room(m, x, p, c, cq_looked, &full);

		if (full && c->cq->lossy) {
			c->cq->lost += *p->pi - p->taken;
			skip(p, *p->pi);
			return false;
		}
		if (full) {
			p->dead = true;
			m->cfg.env.overrun(m->cfg.env.arg, c->cq);
			return false;
		}
		if (!n || !push(m, x, p, least(n, *p->pi - p->taken), c, cq_pushed))
			return true;
	}
	return false;
}

void fx_push_drop(struct fx_mirror_ctx *x)
{
	for (struct fx_cq *q = x->out.head; q; q = q->out_next)
		q->queued = false;
	x->out.head = x->out.tail = NULL;
}

static void push_cqs(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	struct fx_cq *list = x->out.head, *next;

	x->out.head = x->out.tail = NULL;
	for (struct fx_cq *q = list; q; q = next) {
		next = q->out_next;
		q->queued = false;
		if (push_cq(m, x, q->copy))
			fx_cq_leaves(q);
	}
}

/* ---- events ---- */

/* The record that was put last: whom to wake for it, and after which completions. */
void fx_push_told(struct fx_event_tx *t, int wake, const struct fx_cq *cq)
{
	struct fx_mirror_ctx *x = t->copy;

	x->told[(t->pi - 1) & ((1u << t->shift) - 1)] =
		(struct fx_told){.wake = wake, .after = cq ? cq->copy : NULL, .index = cq ? cq->pi : 0};
}

/* Woken in the order of the records: a byte never comes before its record, whichever write landed first. */
static void event_pushed(struct fx_mirror *m, struct fx_move *v, int err)
{
	struct fx_mirror_ctx *x = v->ctx;
	uint32_t mask = (1u << x->push.local_shift) - 1, from = x->push.landed;

	pushed(&x->push, v);
	for (; from != x->push.landed && !err; from++)
		if (x->told[from & mask].wake >= 0)
			m->cfg.env.wake(m->cfg.env.arg, x->told[from & mask].wake);
}

static void event_looked(struct fx_mirror *m, struct fx_move *v, int err)
{
	looked(m, v, err, &v->ctx->push);
}

/* Records from `taken` on whose completions have landed. */
static uint32_t ripe(const struct fx_mirror_ctx *x, uint32_t max)
{
	const struct fx_push *p = &x->push;
	uint32_t mask = (1u << p->local_shift) - 1, n = 0;

	for (; n < max; n++) {
		const struct fx_told *t = &x->told[(p->taken + n) & mask];

		if (t->after && !t->after->push.dead && (int32_t)(t->after->push.landed - t->index) < 0)
			break;
	}
	return n;
}

/* One that the host has no room for is lost: it did not take the many before it. */
static void lose_one(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	struct fx_push *p = &x->push;

	m->lost++;
	x->told[p->taken & ((1u << p->local_shift) - 1)].wake = -1;
	skip(p, p->taken + 1);
}

static void push_events(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	struct fx_push *p = &x->push;
	bool full;

	while (*p->pi != p->taken) {
		uint32_t n = ripe(x, least(*p->pi - p->taken, FX_PUSH_MAX));

		if (n)
			n = least(n, room(m, x, p, x, event_looked, &full));
		else
			return;
		if (full)
			lose_one(m, x);
		else if (!n || !push(m, x, p, n, x, event_pushed))
			return;
	}
}

void fx_push_ctx(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	push_cqs(m, x);
	push_events(m, x);
}
