/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shadow queues, which keep what a CQE does not carry (guarantee P4), and the table that finds a CQE's QP.
 *
 * Room: host. May use: libc. A shadow has one poster (under its queue's lock) and one retirer (under its CQ's
 * lock); the table is its CQ's and changes only under that CQ's lock. Which buffers the outstanding requests use is
 * bounce.c's, under the lock of the buffers' pool.
 */
#ifndef FX_HOST_QUEUE_H
#define FX_HOST_QUEUE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* ---- shadow ---- */
struct fx_shadow_wr {
	uint64_t wr_id;
	uint8_t opcode; /* enum ibv_wc_opcode that it completes with */
	bool signaled;
};
struct fx_bounce;
struct fx_shadow {
	struct fx_shadow_wr *wr;
	uint32_t mask;
	uint32_t cap;		   /* how many may be outstanding */
	uint32_t head;		   /* WQE counter of the next to post; never restarts */
	uint32_t tail;		   /* of the oldest outstanding one */
	uint32_t bounce_end;	   /* of the one after the newest that uses a buffer */
	struct fx_bounce **bounce; /* as wr; NULL until the first one does */
};

static inline uint32_t fx_log2_up(uint32_t n)
{
	return n <= 1 ? 0 : 32 - (uint32_t)__builtin_clz(n - 1);
}

static inline int fx_shadow_init(struct fx_shadow *s, uint32_t cap)
{
	uint32_t size = 1u << fx_log2_up(cap);

	*s = (struct fx_shadow){.mask = size - 1, .cap = cap};
	s->wr = calloc(size, sizeof(*s->wr));
	return s->wr ? 0 : -ENOMEM;
}

/* Is there room for number `index`, the head's or one soon after it? */
static inline bool fx_shadow_fits(const struct fx_shadow *s, uint32_t index)
{
	/* acquire: the retirer has read an entry before the poster writes it again */
	return index - __atomic_load_n(&s->tail, __ATOMIC_ACQUIRE) < s->cap;
}

static inline bool fx_shadow_full(const struct fx_shadow *s)
{
	return !fx_shadow_fits(s, s->head);
}

/* Of a request that fits; it is not outstanding before fx_shadow_post(). */
static inline void fx_shadow_note(struct fx_shadow *s, uint32_t index, uint64_t wr_id, uint8_t opcode,
				  bool signaled)
{
	s->wr[index & s->mask] =
		(struct fx_shadow_wr){.wr_id = wr_id, .opcode = opcode, .signaled = signaled};
}

/* All that was noted before number `head` is outstanding from now on. */
static inline void fx_shadow_post(struct fx_shadow *s, uint32_t head)
{
	/* release: the entries are written before the retirer can find their indices outstanding */
	__atomic_store_n(&s->head, head, __ATOMIC_RELEASE);
}

static inline void fx_shadow_push(struct fx_shadow *s, uint64_t wr_id, uint8_t opcode, bool signaled)
{
	fx_shadow_note(s, s->head, wr_id, opcode, signaled);
	fx_shadow_post(s, s->head + 1);
}

/* Is that one outstanding? The retirer's question. */
static inline bool fx_shadow_holds(const struct fx_shadow *s, uint32_t index)
{
	/* acquire: against fx_shadow_post() */
	return index - s->tail < __atomic_load_n(&s->head, __ATOMIC_ACQUIRE) - s->tail;
}

/* Retires every entry up to `index`, which is outstanding; -> that one */
static inline struct fx_shadow_wr fx_shadow_retire(struct fx_shadow *s, uint32_t index)
{
	struct fx_shadow_wr wr = s->wr[index & s->mask];

	__atomic_store_n(&s->tail, index + 1, __ATOMIC_RELEASE); /* against fx_shadow_fits() */
	return wr;
}

/* Does an outstanding request use a buffer? True at times when none does, never the other way round. */
static inline bool fx_shadow_bounced(const struct fx_shadow *s)
{
	/* relaxed: whoever knows of the request (acquire of head, or its lock) sees the end that was set before it */
	uint32_t end = __atomic_load_n(&s->bounce_end, __ATOMIC_RELAXED);

	return (int32_t)(end - __atomic_load_n(&s->tail, __ATOMIC_RELAXED)) > 0;
}

static inline void fx_shadow_drop_all(struct fx_shadow *s)
{
	__atomic_store_n(&s->tail, s->head, __ATOMIC_RELEASE); /* against fx_shadow_fits() */
}

/* ---- QPs of a CQ by number: open addressing, at most half full ---- */
struct fx_vqp;
struct fx_qp_entry {
	uint32_t qpn;
	struct fx_vqp *qp; /* NULL: empty */
};
struct fx_qp_table {
	struct fx_qp_entry *e;
	uint32_t bits, used;
};

static inline uint32_t fx_qp_hash(const struct fx_qp_table *t, uint32_t qpn)
{
	return (qpn * 2654435761u) >> (32 - t->bits); /* Fibonacci hashing */
}

static inline struct fx_vqp *fx_qp_find(const struct fx_qp_table *t, uint32_t qpn)
{
	uint32_t mask = (1u << t->bits) - 1;

	if (!t->e)
		return NULL;
	for (uint32_t i = fx_qp_hash(t, qpn); t->e[i].qp; i = (i + 1) & mask)
		if (t->e[i].qpn == qpn)
			return t->e[i].qp;
	return NULL;
}

static inline void fx_qp_place(struct fx_qp_table *t, uint32_t qpn, struct fx_vqp *qp)
{
	uint32_t mask = (1u << t->bits) - 1, i = fx_qp_hash(t, qpn);

	while (t->e[i].qp)
		i = (i + 1) & mask;
	t->e[i] = (struct fx_qp_entry){.qpn = qpn, .qp = qp};
}

/* 0 or -ENOMEM */
static inline int fx_qp_insert(struct fx_qp_table *t, uint32_t qpn, struct fx_vqp *qp)
{
	if (!t->e || 2 * (t->used + 1) > 1u << t->bits) {
		struct fx_qp_table n = {.bits = t->e ? t->bits + 1 : 4, .used = t->used};

		n.e = calloc(1u << n.bits, sizeof(*n.e));
		if (!n.e)
			return -ENOMEM;
		for (uint32_t i = 0; t->e && i < 1u << t->bits; i++)
			if (t->e[i].qp)
				fx_qp_place(&n, t->e[i].qpn, t->e[i].qp);
		free(t->e);
		*t = n;
	}
	fx_qp_place(t, qpn, qp);
	t->used++;
	return 0;
}

static inline void fx_qp_remove(struct fx_qp_table *t, uint32_t qpn)
{
	uint32_t mask = (1u << t->bits) - 1, i, hole;

	if (!fx_qp_find(t, qpn))
		return;
	for (i = fx_qp_hash(t, qpn); t->e[i].qpn != qpn || !t->e[i].qp; i = (i + 1) & mask)
		;
	/* Whoever would no longer be found behind the hole moves into it. */
	for (hole = i, i = (i + 1) & mask; t->e[i].qp; i = (i + 1) & mask) {
		uint32_t home = fx_qp_hash(t, t->e[i].qpn);

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			t->e[hole] = t->e[i];
			hole = i;
		}
	}
	t->e[hole] = (struct fx_qp_entry){0};
	t->used--;
}

#endif
