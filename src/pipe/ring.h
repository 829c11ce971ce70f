/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Producers and consumers of the rings in abi.h: send pipe, receive queue, completion queue, event ring.
 *
 * Room: pipe. May use: C11 atomics. Each ring has one producer and one consumer; a caller with several threads
 * holds its own lock. Whoever reads what the other side writes copies it once, then checks the copy.
 *
 * Barriers: a slot's phase byte is stored with release after the slot's other bytes, and loaded with acquire
 * before they are read; consumer indices are stored with release after the last read of the slots they free, and
 * loaded with acquire before those slots are written again. Nothing else orders the two sides.
 */
#ifndef FX_PIPE_RING_H
#define FX_PIPE_RING_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "pipe/abi.h"

/* Plain shared memory seen as an atomic: the ABI's types stay plain so that any language can map them. */
static inline uint8_t fx_load8_acquire(const uint8_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static inline void fx_store8_release(uint8_t *p, uint8_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}
static inline uint32_t fx_load32_acquire(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static inline void fx_store32_release(uint32_t *p, uint32_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

/* Copies a 64-byte slot but for its phase, then publishes it. `src` may hold anything in its last byte. */
static inline void fx_slot_publish(void *slot, const void *src, uint8_t phase)
{
	memcpy(slot, src, FX_SLOT_SIZE - 1);
	fx_store8_release((uint8_t *)slot + FX_SLOT_SIZE - 1, phase);
}
static inline bool fx_slot_ready(const void *slot, uint8_t phase)
{
	return fx_load8_acquire((const uint8_t *)slot + FX_SLOT_SIZE - 1) == phase;
}

/* ---- send pipe, host side ---- */
struct fx_pipe_tx {
	struct fx_pipe_head *head;
	uint8_t *slots;
	uint32_t shift;
	uint32_t pi;
	uint32_t ci; /* last seen of head->ci */
};
static inline bool fx_pipe_room(struct fx_pipe_tx *p, uint32_t nslots)
{
	uint32_t size = 1u << p->shift;

	if (p->pi - p->ci + nslots <= size)
		return true;
	p->ci = fx_load32_acquire(&p->head->ci);
	return p->pi - p->ci + nslots <= size;
}
static inline void fx_pipe_put(struct fx_pipe_tx *p, const void *slot)
{
	uint32_t i = p->pi;

	fx_slot_publish(p->slots + (size_t)(i & ((1u << p->shift) - 1)) * FX_SLOT_SIZE, slot,
			fx_phase(i, p->shift));
	/* relaxed: whoever looks at another thread's pipe has synchronised with what it posted before */
	__atomic_store_n(&p->pi, i + 1, __ATOMIC_RELAXED);
}

/* ---- send pipe, core side ---- */
struct fx_pipe_rx {
	struct fx_pipe_head *head;
	const uint8_t *slots;
	uint32_t shift;
	uint32_t ci;
};
static inline const uint8_t *fx_pipe_slot(const struct fx_pipe_rx *p, uint32_t i)
{
	return p->slots + (size_t)(i & ((1u << p->shift) - 1)) * FX_SLOT_SIZE;
}
static inline bool fx_pipe_ready(const struct fx_pipe_rx *p)
{
	return fx_slot_ready(fx_pipe_slot(p, p->ci), fx_phase(p->ci, p->shift));
}
/*
 * Copies the next entry into out[FX_MAX_SQ_SLOTS] if all its slots have arrived. Returns its number of slots, 0 when
 * there is none yet, or -EPROTO when the host wrote a length that cannot be: the pipe is then beyond repair.
 */
static inline int fx_pipe_take(struct fx_pipe_rx *p, struct fx_sq_slot *out)
{
	uint32_t n;

	if (!fx_pipe_ready(p))
		return 0;
	memcpy(out, fx_pipe_slot(p, p->ci), FX_SLOT_SIZE);
	n = out->nslots;
	if (n == 0 || n > FX_MAX_SQ_SLOTS)
		return -EPROTO;
	for (uint32_t i = 1; i < n; i++) {
		const uint8_t *s = fx_pipe_slot(p, p->ci + i);

		if (!fx_slot_ready(s, fx_phase(p->ci + i, p->shift)))
			return 0;
		memcpy(out + i, s, FX_SLOT_SIZE);
	}
	p->ci += n;
	return (int)n;
}
/* The QP of the entry that may be `ahead` slots further: a hint, since nothing says that there is one, or where it begins. */
static inline uint32_t fx_pipe_glance(const struct fx_pipe_rx *p, uint32_t ahead)
{
	const struct fx_sq_slot *s = (const struct fx_sq_slot *)(const void *)fx_pipe_slot(p, p->ci + ahead);

	return __atomic_load_n(&s->qpn_gen, __ATOMIC_RELAXED);
}
static inline void fx_pipe_publish_ci(struct fx_pipe_rx *p)
{
	fx_store32_release(&p->head->ci, p->ci);
}

/*
 * ---- receive queue: entries of `stride` slots; `index` counts entries ----
 * Those of a shared one complete in any order, and so they carry a number of the host's, below `ids`, in place of index.
 */
struct fx_rq {
	uint8_t *slots;
	uint32_t shift;	 /* log2 of slots */
	uint32_t stride; /* slots an entry */
	uint32_t index;	 /* next entry to write (host) or to read (core) */
	uint32_t pos;	 /* its first slot's running number: index * stride, kept to survive wrap */
	uint32_t ids;	 /* 0: entries carry their index */
	uint32_t name;	 /* core: what the entry that was taken last carries */
};
static inline uint8_t *fx_rq_slot_at(const struct fx_rq *q, uint32_t i)
{
	return q->slots + (size_t)(i & ((1u << q->shift) - 1)) * FX_SLOT_SIZE;
}
/* The caller counts outstanding entries against its cap; the ring is at least that large. */
static inline void fx_rq_put_as(struct fx_rq *q, uint32_t name, const struct fx_sge *sge, uint32_t nsge)
{
	for (uint32_t s = 0; s < q->stride; s++) {
		struct fx_rq_slot slot = {.index = name, .nsge = (uint8_t)nsge};
		uint32_t from = s * FX_RQ_SGES, i = q->pos + s;

		for (uint32_t k = 0; k < FX_RQ_SGES && from + k < nsge; k++)
			slot.sge[k] = sge[from + k];
		fx_slot_publish(fx_rq_slot_at(q, i), &slot, fx_phase(i, q->shift));
	}
	q->index++;
	q->pos += q->stride;
}
static inline void fx_rq_put(struct fx_rq *q, const struct fx_sge *sge, uint32_t nsge)
{
	fx_rq_put_as(q, q->index, sge, nsge);
}
/* Are there more than `ahead` entries? Those behind the next one arrive in their order, so the last of them tells. */
static inline bool fx_rq_holds(const struct fx_rq *q, uint32_t ahead)
{
	uint32_t i = q->pos + (ahead + 1) * q->stride - 1;

	return fx_slot_ready(fx_rq_slot_at(q, i), fx_phase(i, q->shift));
}
/*
 * Copies the next entry's SGEs into sge[max]; returns their number, -EAGAIN when there is no entry (or not all of
 * it yet), -EPROTO when it contradicts itself.
 */
static inline int fx_rq_take(struct fx_rq *q, struct fx_sge *sge, uint32_t max)
{
	uint32_t nsge = 0, name = q->index;

	for (uint32_t s = 0; s < q->stride; s++) {
		uint32_t i = q->pos + s;
		const uint8_t *p = fx_rq_slot_at(q, i);
		struct fx_rq_slot slot;

		if (!fx_slot_ready(p, fx_phase(i, q->shift)))
			return -EAGAIN;
		memcpy(&slot, p, sizeof(slot));
		if (q->ids && !s)
			name = slot.index < q->ids ? slot.index : ~slot.index;
		if (slot.index != name || slot.nsge > max || slot.nsge > q->stride * FX_RQ_SGES ||
		    (s && slot.nsge != nsge))
			return -EPROTO;
		nsge = slot.nsge;
		for (uint32_t k = 0; k < FX_RQ_SGES && s * FX_RQ_SGES + k < nsge; k++)
			sge[s * FX_RQ_SGES + k] = slot.sge[k];
	}
	q->name = name;
	q->index++;
	q->pos += q->stride;
	return (int)nsge;
}

/* ---- completion queue, core side ---- */
struct fx_cq;
/* CQs whose ring is a copy, with entries that have not left for the host (mirror/mirror.h). */
struct fx_cq_out {
	struct fx_cq *head, *tail;
};
struct fx_cq {
	struct fx_cq_head *head;
	struct fx_cqe *ring;
	uint32_t shift;
	uint32_t origin; /* index of the CQE that slot 0 was first for */
	uint32_t pi;
	uint32_t ci;   /* last seen of head->ci */
	uint32_t lost; /* CQEs counted by pi that the host never sees */
	uint32_t handle;
	uint64_t cookie;
	bool overrun; /* a CQE found no room: the CQ is in error, nothing is ever overwritten (guarantee P10) */
	bool lossy;   /* by its owner's wish: what finds no room is lost, and that is no error */
	bool stamped;	 /* its CQEs tell when they were made */
	uint32_t arm;	 /* that waits for a CQE: sequence << 2 | enum fx_arm_kind; 0: none */
	uint32_t fired;	 /* sequence of the last one that fired */
	uint32_t loud;	 /* one past the last CQE that fires a solicited-only arm */
	uint32_t arm_ci; /* CQEs that the host knew of when it armed */
	/* moderation (transport/moderate.c) */
	bool moderated, held;
	uint32_t every;	   /* CQEs an event is for; 0: however few */
	uint64_t patience; /* ns that an event is held back for more of them; 0: for ever */
	uint64_t due;
	struct fx_cq *held_next;
	int wake; /* its channel's pipe */
	void *owner;
	struct fx_cq_out *out; /* NULL: the ring is the host's own */
	struct fx_cq *out_next;
	void *copy; /* the mirror's */
	bool queued;
};
static inline void fx_cq_leaves(struct fx_cq *q)
{
	if (q->queued)
		return;
	q->queued = true;
	q->out_next = NULL;
	if (q->out->tail)
		q->out->tail->out_next = q;
	else
		q->out->head = q;
	q->out->tail = q;
}
/* Returns 0, or -ENOSPC: the CQ is overrun, from now on and for good; or lossy, and the CQE is lost. */
static inline int fx_cq_push(struct fx_cq *q, const struct fx_cqe *c)
{
	uint32_t size = 1u << q->shift, at;
	struct fx_cqe *e;

	if (q->overrun)
		return -ENOSPC;
	if (q->pi - q->ci >= size) {
		q->ci = fx_load32_acquire(&q->head->ci);
		if (q->pi - q->ci >= size) {
			q->overrun = !q->lossy;
			return -ENOSPC;
		}
	}
	at = q->pi - q->origin;
	e = &q->ring[at & (size - 1)];
	memcpy(e, c, FX_CQE_SIZE - 1);
	fx_store8_release(&e->phase, fx_phase(at, q->shift));
	q->pi++;
	if (q->out)
		fx_cq_leaves(q);
	return 0;
}

/*
 * From now on its CQEs go to the ring of `to`. The host's index stands at ci. *end: of the first CQE in the new ring.
 * Returns -EINVAL if that is too small for what is outstanding, or ci cannot be.
 */
static inline int fx_cq_move(struct fx_cq *q, const struct fx_cq *to, uint32_t ci, uint32_t *end)
{
	if (q->pi - ci > 1u << q->shift || q->pi - ci > 1u << to->shift)
		return -EINVAL;
	q->head = to->head;
	q->ring = to->ring;
	q->shift = to->shift;
	q->ci = ci;
	q->origin = *end = q->pi;
	return 0;
}

/* ---- arms, core side (abi.h, struct fx_arm_slot): nothing here is shared ---- */

/* The CQE was pushed: has the arm that waits, if any, to fire? */
static inline bool fx_cq_wakes(struct fx_cq *q, const struct fx_cqe *c)
{
	bool loud = c->status != FX_WC_SUCCESS || c->flags & FX_WCF_SOLICITED;

	if (loud)
		q->loud = q->pi;
	return q->arm && (loud || (q->arm & 3) == FX_ARM_ANY);
}
/* CQEs written so far, as the host counts them. */
static inline uint32_t fx_cq_told(const struct fx_cq *q)
{
	return q->pi - q->lost;
}
static inline void fx_cq_fire(struct fx_cq *q)
{
	q->fired = q->arm >> 2;
	q->arm = 0;
}
/*
 * An arm by a host that knows of CQEs up to ci: 1 if it has to fire now, 0 if it waits or has fired before, -EPROTO
 * if it is of no kind. An arm for any CQE is not narrowed by a later one of its sequence. A ci that cannot be fires.
 * One that fired before may be of any older sequence, since several threads of a host arm: it must not replace the
 * arm that waits.
 */
static inline int fx_cq_arm(struct fx_cq *q, uint32_t arm, uint32_t ci)
{
	uint32_t fresh = fx_cq_told(q) - ci, kind = arm & 3;

	if (kind != FX_ARM_ANY && kind != FX_ARM_SOLICITED)
		return -EPROTO;
	if ((int32_t)((arm & ~3u) - (q->fired << 2)) <= 0)
		return 0;
	if (q->arm >> 2 != arm >> 2 || kind == FX_ARM_ANY) {
		q->arm = arm;
		q->arm_ci = ci;
	}
	if ((q->arm & 3) == FX_ARM_ANY)
		return fresh != 0;
	return q->loud - q->lost - ci - 1 < fresh; /* ci < loud <= pi, whatever has wrapped */
}

/* ---- events of a context, core side ---- */
struct fx_event_tx {
	const struct fx_event_head *head;
	struct fx_event *ring;
	uint32_t shift;
	uint32_t pi;
	uint32_t ci; /* last seen of head->ci */
	int wake;    /* of asynchronous events: write end, O_NONBLOCK */
	/* The record put last is for who listens on `wake`, and tells of completions of `cq` (NULL: of none). */
	void (*told)(struct fx_event_tx *t, int wake, const struct fx_cq *cq);
	void *copy; /* the mirror's */
};
/* A record that may fill the ring up to `size`; false: it is lost for want of room. The wake is the caller's. */
static inline bool fx_event_put(struct fx_event_tx *t, const struct fx_event *ev, uint32_t size)
{
	struct fx_event *e = &t->ring[t->pi & ((1u << t->shift) - 1)];

	if (t->pi - t->ci >= size) {
		/* acquire: the host has read the slots that it gives back before we write them again */
		t->ci = fx_load32_acquire(&t->head->ci);
		if (t->pi - t->ci >= size)
			return false;
	}
	memcpy(e, ev, sizeof(*e) - 1);
	/* release: the record, and the CQEs before it, are visible to whoever sees its phase */
	fx_store8_release(&e->phase, fx_phase(t->pi, t->shift));
	t->pi++;
	return true;
}

/* ---- events of a context, host side ---- */
struct fx_event_rx {
	struct fx_event_head *head;
	const struct fx_event *ring;
	uint32_t shift;
	uint32_t ci;
};
static inline bool fx_event_take(struct fx_event_rx *t, struct fx_event *out)
{
	const struct fx_event *e = &t->ring[t->ci & ((1u << t->shift) - 1)];

	if (fx_load8_acquire(&e->phase) != fx_phase(t->ci, t->shift))
		return false;
	memcpy(out, e, sizeof(*out));
	t->ci++;
	return true;
}
static inline void fx_event_publish_ci(struct fx_event_rx *t)
{
	fx_store32_release(&t->head->ci, t->ci);
}

/* ---- completion queue, host side ---- */
struct fx_cq_rx {
	struct fx_cq_head *head;
	const struct fx_cqe *ring;
	uint32_t shift;
	uint32_t origin; /* index of the CQE that slot 0 was first for */
	uint32_t ci;
};
static inline bool fx_cq_take(struct fx_cq_rx *q, struct fx_cqe *out)
{
	uint32_t at = q->ci - q->origin;
	const struct fx_cqe *e = &q->ring[at & ((1u << q->shift) - 1)];

	if (fx_load8_acquire(&e->phase) != fx_phase(at, q->shift))
		return false;
	memcpy(out, e, sizeof(*out));
	q->ci++;
	return true;
}
static inline void fx_cq_publish_ci(struct fx_cq_rx *q)
{
	fx_store32_release(&q->head->ci, q->ci);
}

#endif
