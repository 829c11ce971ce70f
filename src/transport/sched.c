/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whose packet is next: round robin in bytes, between contexts and then between the QPs of each, so that
 * neither many QPs nor large packets get more of the wire.
 *
 * Room: transport. Contexts with something to send stand in a ring, and in each of them its QPs. Whoever is first sends
 * until its allowance is used up; then it gets the next one and goes to the end. The last packet may overdraw; what it
 * took is missing from the next allowance. An allowance outlives idle times but never grows in them, so nobody saves up
 * for a burst. Headers count, so that small packets are not free. Every decision takes the same time however many wait.
 *
 * Acknowledges do not take part: they are tiny, and the peers wait for them.
 */
#include <stdlib.h>

#include "transport/qp.h"

enum {
	QUANTUM =
		32
		<< 10, /* a few packets of the largest MTU, which amortise what changing to another QP costs */
	/*
	 * Packets of a context that may be in gathering, which takes as long as its application pleases, and a buffer
	 * each: with more the context has to wait. An eighth of what the others leave of GATHERING_ALL, and one more.
	 */
	GATHERING = 32,
	GATHERING_ALL = 256,
};

/* ---- rings ---- */

static void link_last(struct fx_link *ring, struct fx_link *l)
{
	l->next = ring;
	l->prev = ring->prev;
	ring->prev->next = l;
	ring->prev = l;
}

static void unlink_one(struct fx_link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
}

static void to_the_end(struct fx_link *ring, struct fx_link *l)
{
	unlink_one(l);
	link_last(ring, l);
}

static void ring_init(struct fx_link *ring)
{
	ring->next = ring->prev = ring;
}

static bool ring_empty(const struct fx_link *ring)
{
	return ring->next == ring;
}

#define OF(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

/* ---- contexts ---- */

void fx_sched_init(struct fx_tp *tp)
{
	ring_init(&tp->turns);
}

void fx_sched_fini(struct fx_tp *tp)
{
	while (tp->shares) {
		struct fx_share *s = tp->shares;

		tp->shares = s->next;
		free(s);
	}
}

static struct fx_share *share_of(struct fx_tp *tp, uint32_t ctx)
{
	struct fx_share *s = tp->shares;

	while (s && s->ctx != ctx)
		s = s->next;
	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->ctx = ctx;
	s->left = QUANTUM;
	ring_init(&s->qps);
	ring_init(&s->waiting);
	s->next = tp->shares;
	tp->shares = s;
	return s;
}

int fx_sched_join(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_share *s = share_of(tp, qp->cfg.ctx);

	if (!s)
		return -ENOMEM;
	s->nqps++;
	qp->share = s;
	qp->left = QUANTUM;
	return 0;
}

void fx_sched_quit(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_share *s = qp->share, **at = &tp->shares;

	qp->share = NULL;
	if (--s->nqps)
		return;
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	free(s);
}

/* How many more of its packets may be gathered. One that has none may always have one: nobody would tell it when. */
static unsigned may_gather(const struct fx_tp *tp, const struct fx_share *s)
{
	uint32_t others = tp->gathering - s->gathering, max = 1;

	if (others < GATHERING_ALL)
		max += (GATHERING_ALL - others) / 8;
	if (max > GATHERING)
		max = GATHERING;
	return s->gathering < max ? max - s->gathering : 0;
}

/* In the ring while it has something to send, and may. */
static void share_settle(struct fx_tp *tp, struct fx_share *s)
{
	bool wants = !ring_empty(&s->qps) && may_gather(tp, s);

	if (wants == s->on_turns)
		return;
	s->on_turns = wants;
	if (wants)
		link_last(&tp->turns, &s->link);
	else
		unlink_one(&s->link);
}

/* ---- QPs that have something to send ---- */

void fx_run(struct fx_tp *tp, struct fx_qp *qp)
{
	if (qp->on_run || !qp->tp)
		return;
	qp->on_run = true;
	link_last(&qp->share->qps, &qp->run);
	share_settle(tp, qp->share);
}

void fx_run_not(struct fx_tp *tp, struct fx_qp *qp)
{
	if (!qp->on_run)
		return;
	qp->on_run = false;
	unlink_one(&qp->run);
	share_settle(tp, qp->share);
}

void fx_run_ack(struct fx_tp *tp, struct fx_qp *qp)
{
	if (qp->on_acks || !qp->tp)
		return;
	qp->on_acks = true;
	qp->ack_next = NULL;
	if (tp->acks_tail)
		tp->acks_tail->ack_next = qp;
	else
		tp->acks_head = qp;
	tp->acks_tail = qp;
}

static struct fx_qp *pop_ack(struct fx_tp *tp)
{
	struct fx_qp *qp = tp->acks_head;

	if (qp) {
		tp->acks_head = qp->ack_next;
		if (!tp->acks_head)
			tp->acks_tail = NULL;
		qp->on_acks = false;
	}
	return qp;
}

/* ---- sending ---- */

static bool has_answers(const struct fx_qp *qp)
{
	return fx_may_cut(qp) && (qp->njobs || qp->nak_want || qp->ack_want);
}

/* Takes turns too: neither side of a QP keeps the other waiting for as long as the peer asks. */
static unsigned cut(struct fx_tp *tp, struct fx_qp *qp, struct fx_txpkt *out, unsigned max)
{
	unsigned n = 0;

	if (qp->asks_first)
		n = fx_requester_cut(tp, qp, out, max);
	if (has_answers(qp))
		n += fx_answer_cut(tp, qp, out + n, max - n);
	if (!qp->asks_first)
		n += fx_requester_cut(tp, qp, out + n, max - n);
	return n;
}

/* True: that was the turn. */
static bool spend(int32_t *left, int32_t bytes)
{
	*left -= bytes;
	if (*left > 0)
		return false;
	*left += QUANTUM;
	return true;
}

/* The first QP of the context that is first sends some of what it may. */
static unsigned take_turn(struct fx_tp *tp, struct fx_txpkt *out, unsigned max)
{
	struct fx_share *s = OF(tp->turns.next, struct fx_share, link);
	struct fx_qp *qp = OF(s->qps.next, struct fx_qp, run);
	int32_t left = qp->left < s->left ? qp->left : s->left, bytes = 0;
	unsigned may = 1 + ((uint32_t)(left - 1) >> qp->mtu_shift), n;
	unsigned room = may_gather(tp, s);

	if (may > room)
		may = room; /* none: others have begun to gather meanwhile */
	n = cut(tp, qp, out, may < max ? may : max);
	if (!n)
		bytes = QUANTUM; /* that was a turn too: it may have worked on windows */
	for (unsigned i = 0; i < n; i++)
		bytes += out[i].hdr_len + (int32_t)(out[i].nseg ? out[i].payload + out[i].pad : 0);
	if (spend(&qp->left, bytes)) {
		qp->asks_first = !qp->asks_first;
		to_the_end(&s->qps, &qp->run);
	}
	if (spend(&s->left, bytes))
		to_the_end(&tp->turns, &s->link);
	if (has_answers(qp) || fx_requester_ready(qp))
		share_settle(tp, s);
	else
		fx_run_not(tp, qp);
	return n;
}

unsigned fx_tp_tx(struct fx_tp *tp, struct fx_txpkt *out, unsigned max)
{
	unsigned n = 0, dry = 0;
	struct fx_qp *qp;

	while (n < max && (qp = pop_ack(tp))) {
		if (qp->njobs) {
			fx_run(tp, qp); /* they go out behind READ responses, in their turn */
			continue;
		}
		if (qp->tp)
			n += fx_answer_cut(tp, qp, out + n, 1);
	}
	/* turns that send nothing, but work on windows perhaps, must not keep the owner here */
	while (n < max && dry < FX_TX_DRY && !ring_empty(&tp->turns)) {
		unsigned k = take_turn(tp, out + n, max - n);

		n += k;
		dry += !k;
	}
	return n;
}

bool fx_tp_tx_ready(const struct fx_tp *tp)
{
	return !ring_empty(&tp->turns) || tp->acks_head;
}

/* ---- what waits for the application's memory ---- */

void fx_sched_cut(struct fx_tp *tp, struct fx_qp *qp, const struct fx_txpkt *o)
{
	uint32_t pieces = 1u + o->nseg;

	if (o->stage) {
		qp->behind[(qp->oldest_staged + qp->staged++) % FX_STAGED] = 0;
		qp->follow = 0;
		qp->share->gathering++;
		tp->gathering++;
		return;
	}
	qp->behind[(qp->oldest_staged + qp->staged - 1u) % FX_STAGED] += (uint8_t)pieces;
	qp->follow++;
	qp->share->following += pieces;
	tp->following += pieces;
}

void fx_sched_gathered(struct fx_tp *tp, struct fx_qp *qp)
{
	uint32_t pieces = qp->behind[qp->oldest_staged++ % FX_STAGED];

	qp->staged--;
	qp->share->gathering--;
	tp->gathering--;
	qp->share->following -= pieces;
	tp->following -= pieces;
	share_settle(tp, qp->share);
}

void fx_slow_wait(struct fx_qp *qp)
{
	if (qp->on_waiting)
		return;
	qp->on_waiting = true;
	link_last(&qp->share->waiting, &qp->wait);
}

void fx_slow_wait_not(struct fx_qp *qp)
{
	if (!qp->on_waiting)
		return;
	qp->on_waiting = false;
	unlink_one(&qp->wait);
}

struct fx_qp *fx_slow_next(const struct fx_share *s)
{
	return ring_empty(&s->waiting) ? NULL : OF(s->waiting.next, struct fx_qp, wait);
}
