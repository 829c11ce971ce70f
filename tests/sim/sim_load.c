/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random work: from one seed, the shape of a network, of QPs and their memory, and what every flow does;
 * posted as the queues allow, with every post and completion shown to the oracle.
 *
 * Room: tests/sim.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct load_totals load_totals;

/* ---- posting ---- */

/* Pieces of `len` bytes at random places of the slot, in a random order, with gaps between them. */
static void scatter(struct flow *f, struct or_place *at, uint8_t *slot, uint32_t len, uint32_t n)
{
	uint32_t cut[OR_PIECES + 1], order[OR_PIECES];
	uint8_t *p = slot + GUARD + rng_below(&f->rng, 16);

	*at = (struct or_place){.base = slot, .size = f->slot_size, .n = n};
	cut[0] = 0;
	for (uint32_t i = 1; i < n; i++)
		cut[i] = (uint32_t)rng_below(&f->rng, len + 1);
	cut[n] = len;
	for (uint32_t i = 2; i < n; i++)
		for (uint32_t k = i; k > 1 && cut[k] < cut[k - 1]; k--) {
			uint32_t t = cut[k];

			cut[k] = cut[k - 1];
			cut[k - 1] = t;
		}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t k = (uint32_t)rng_below(&f->rng, i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	for (uint32_t i = 0; i < n; i++) {
		struct or_piece *piece = &at->piece[order[i]];

		*piece = (struct or_piece){p, cut[order[i] + 1] - cut[order[i]]};
		p += piece->len + 1 + rng_below(&f->rng, GAP);
	}
}

static uint32_t sges(const struct mem *m, const struct or_place *at, struct fx_sge *sge)
{
	for (uint32_t i = 0; i < at->n; i++)
		sge[i] = (struct fx_sge){mem_va(m, at->piece[i].p), at->piece[i].len, m->mr.key};
	return at->n;
}

static uint32_t take_slot(struct slots *s)
{
	return s->stack[--s->n];
}

static void give_slot(struct slots *s, uint32_t slot)
{
	s->stack[s->n++] = (uint16_t)slot;
}

static uint8_t *slot_at(const struct flow *f, const struct mem *m, uint32_t slot)
{
	return m->bytes + (size_t)slot * f->slot_size;
}

static void fill_wr(struct flow *f, const struct or_post *p, struct wr *w)
{
	static const uint8_t ops[OR_OPS] = {FX_WR_SEND, FX_WR_SEND_IMM,	 FX_WR_WRITE,	FX_WR_WRITE_IMM,
					    FX_WR_READ, FX_WR_FETCH_ADD, FX_WR_CMP_SWAP};

	*w = (struct wr){
		.op = ops[p->op],
		.flags = (uint8_t)((p->signaled ? FX_WRF_SIGNALED : 0) |
				   (p->solicited ? FX_WRF_SOLICITED : 0) | (p->inlined ? FX_WRF_INLINE : 0)),
		.imm = p->imm,
		.compare_add = p->compare_add,
		.swap = p->swap,
	};
	if (p->forward || rng_chance(&f->rng, 50000))
		w->flags |= FX_WRF_FENCE;
	w->nsge = sges(f->src, &p->local, w->sge);
	for (uint32_t i = 0; i < w->nsge; i++) {
		w->data[i] = p->local.piece[i].p;
		if (p->inlined)
			w->sge[i].lkey = 0xdead; /* nobody looks */
	}
	if (p->op >= OR_WRITE) {
		w->remote_addr = mem_va(f->target, p->remote.piece[0].p);
		w->rkey = f->target->mr.key;
	}
}

/* Makes the next planned operation into a post; false if there is no memory free for it. */
static bool prepare(struct flow *f, struct or_post *p)
{
	const struct planned *o = &f->plan[f->posted];
	struct posted *mine = &f->ring[f->posted % RING], *before = &f->ring[(f->posted - 1) % RING];
	bool chained = o->overwrite || o->reread, remote = o->op >= OR_WRITE && !chained && !is_atomic(o->op);

	if ((!o->forward && !f->src_slots.n) || (remote && !f->target_slots.n))
		return false;
	*p = (struct or_post){.op = o->op,
			      .len = o->len,
			      .imm = (uint32_t)rng_next(&f->rng),
			      .signaled = o->signaled,
			      .solicited = o->solicited,
			      .inlined = o->inlined,
			      .keep = o->keep,
			      .overwrite = o->overwrite,
			      .reread = o->reread,
			      .forward = o->forward,
			      .keep_local = o->keep_local};
	/* a slot that two messages share is given back by the last */
	if (o->forward) {
		p->local = f->last_local;
		mine->src = before->src;
		before->src = NO_SLOT;
	} else {
		mine->src = take_slot(&f->src_slots);
		scatter(f, &p->local, slot_at(f, f->src, mine->src), o->len, o->nsge);
	}
	mine->target = NO_SLOT;
	if (chained) {
		p->remote = f->last_remote;
		mine->target = before->target;
		before->target = NO_SLOT;
	} else if (is_atomic(o->op)) {
		p->remote = (struct or_place){.base = f->word, .size = 8, .n = 1, .piece = {{f->word, 8}}};
		/* half of the compares succeed */
		p->compare_add = o->op == OR_CMP_SWAP && rng_chance(&f->rng, 500000) ? or_word(f->judge)
										     : rng_next(&f->rng);
		p->swap = rng_next(&f->rng);
	} else if (remote) {
		mine->target = take_slot(&f->target_slots);
		scatter(f, &p->remote, slot_at(f, f->target, mine->target), o->len, 1);
	}
	f->last_local = p->local;
	f->last_remote = p->remote;
	return true;
}

static bool can_post(const struct flow *f)
{
	return f->posted < f->nplan && f->posted - or_retired(f->judge) < f->max_send &&
	       f->posted - f->freed < RING;
}

/* Gives back the memory of messages that are over; but not what the next message will use too. */
static void reclaim(struct flow *f)
{
	while (f->src_freed < or_retired(f->judge)) {
		uint32_t slot = f->ring[f->src_freed % RING].src;

		if (f->plan[f->src_freed].keep_local && f->posted == f->src_freed + 1)
			break;
		f->src_freed++;
		if (slot != NO_SLOT)
			give_slot(&f->src_slots, slot);
	}
	while (f->freed < f->src_freed && or_remote_free(f->judge, f->freed)) {
		uint32_t slot = f->ring[f->freed % RING].target;

		if (f->plan[f->freed].keep && f->posted == f->freed + 1)
			break;
		f->freed++;
		if (slot != NO_SLOT)
			give_slot(&f->target_slots, slot);
	}
}

static void post_sends(struct flow *f)
{
	unsigned burst = 1 + (unsigned)rng_below(&f->rng, 8);
	struct or_post p;
	struct wr w;

	reclaim(f);
	while (burst-- && can_post(f) && prepare(f, &p)) {
		uint64_t m = or_posted(f->judge, &p);

		fill_wr(f, &p, &w);
		qp_post(f->from, &w);
		or_taken(f->judge, m);
		f->posted++;
		load_totals.messages++;
		load_totals.bytes += p.len;
	}
}

/* Receives go up to the queue's depth, some late; returns when to look again. */
static uint64_t post_recvs(struct flow *f, uint64_t now)
{
	while (f->recv_posted < f->nrecv && f->recv_posted - or_received(f->judge) < f->max_recv) {
		const struct planned_recv *r = &f->recv[f->recv_posted];
		struct fx_sge sge[FX_MAX_SGE];
		struct or_place at;

		if (f->recv_at == 0 && rng_chance(&f->rng, f->late))
			f->recv_at = now + 1 + rng_below(&f->rng, f->late_ns);
		if (f->recv_at > now)
			return f->recv_at;
		f->recv_at = 0;
		scatter(f, &at, slot_at(f, f->recv_mem, (uint32_t)(f->recv_posted % f->max_recv)), r->room,
			r->nsge);
		or_recv_posted(f->judge, &at);
		qp_post_recv(f->to, sge, sges(f->recv_mem, &at, sge));
		f->recv_posted++;
	}
	return SIM_NEVER;
}

/* ---- completing ---- */

/* A send completion; no frame that is still on its way may point at memory of what is over (guarantee L1). */
static void sent(struct load *l, struct flow *f, const struct or_cqe *c)
{
	uint64_t m = or_retired(f->judge);

	or_send_cqe(f->judge, c);
	for (; m < or_retired(f->judge); m++) {
		uint32_t slot = f->ring[m % RING].src;

		if (slot != NO_SLOT && f->plan[m].op < OR_READ &&
		    net_refers(l->s, slot_at(f, f->src, slot), f->slot_size))
			or_fail(l->s->oracle, "message %llu completed while a frame still needs its buffer",
				(unsigned long long)m);
	}
}

static void show_cqe(struct load *l, struct host *h, const struct fx_cqe *c)
{
	struct qp *q = h->qp[(c->qpn_gen & FX_PSN_MASK) >> FX_WORKER_BITS];
	struct or_cqe o = {
		.index = c->index,
		.status = c->status,
		.len = c->byte_len,
		.imm = c->imm,
		.has_imm = c->flags & FX_WCF_IMM,
		.solicited = c->flags & FX_WCF_SOLICITED,
	};
	struct flow **pair;

	if (!q || c->qpn_gen != fx_qpn_gen(q->qpn, (uint8_t)q->gen)) {
		or_fail(l->s->oracle, "host %u: a completion for QP %x, which is not there", h->id,
			c->qpn_gen);
		return;
	}
	pair = q->user; /* [0]: what it sends, [1]: what it receives */
	if (c->opcode <= FX_WC_FETCH_ADD) {
		static const enum or_op ops[] = {[FX_WC_SEND] = OR_SEND,
						 [FX_WC_RDMA_WRITE] = OR_WRITE,
						 [FX_WC_RDMA_READ] = OR_READ,
						 [FX_WC_COMP_SWAP] = OR_CMP_SWAP,
						 [FX_WC_FETCH_ADD] = OR_FETCH_ADD};

		o.op = ops[c->opcode];
		sent(l, pair[0], &o);
	} else if (c->opcode == FX_WC_RECV || c->opcode == FX_WC_RECV_RDMA_WITH_IMM) {
		o.op = c->opcode == FX_WC_RECV ? OR_SEND : OR_WRITE_IMM;
		or_recv_cqe(pair[1]->judge, &o);
	} else {
		or_fail(l->s->oracle, "host %u: a completion with opcode %u", h->id, c->opcode);
	}
	if (or_failed(l->s->oracle) && h->trouble && c->status && !l->why)
		l->why = h->trouble;
}

/* Takes some of what there is; returns false where more may be left. */
static bool poll_cqs(struct load *l, struct host *h)
{
	bool all = true;

	for (unsigned i = 0; i < l->ncq; i++) {
		unsigned max = 1 + (unsigned)rng_below(&l->rng, 32), n = 0;
		struct cq *cq = l->cq[h->id][i];
		struct fx_cqe c;

		while (n < max && fx_cq_take(&cq->rx, &c)) {
			show_cqe(l, h, &c);
			n++;
		}
		if (n)
			fx_cq_publish_ci(&cq->rx);
		all &= n < max;
	}
	return all;
}

uint64_t app_turn(void *arg, struct host *h)
{
	uint64_t at = SIM_NEVER;
	struct load *l = arg;

	if (!poll_cqs(l, h))
		at = l->s->now + 1;
	for (unsigned i = 0; i < l->nflow; i++) {
		struct flow *f = &l->flow[i];

		or_watch(f->judge);
		if (f->to->h == h) {
			uint64_t t = post_recvs(f, l->s->now);

			at = t < at ? t : at;
		}
		if (f->from->h == h) {
			reclaim(f);
			if (rng_chance(&f->rng, 700000))
				post_sends(f);
			if (can_post(f))
				at = l->s->now + 1 + rng_below(&f->rng, 3000);
		}
	}
	return at;
}

/* ---- a run ---- */

static bool all_done(void *arg)
{
	struct load *l = arg;

	if (or_failed(l->s->oracle) || l->s->turns > TURNS_MAX)
		return true;
	for (unsigned i = 0; i < l->nflow; i++)
		if (or_retired(l->flow[i].judge) < l->flow[i].nplan ||
		    or_received(l->flow[i].judge) < l->flow[i].nrecv)
			return false;
	return true;
}

static bool quiet(void *arg)
{
	struct load *l = arg;

	return or_failed(l->s->oracle) || l->s->nheap == 0;
}

static void add_totals(const struct load *l)
{
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		const struct fx_counters *n = fx_tp_counters(l->s->host[i]->tp);

		load_totals.retransmits += n->tx_retransmits;
		load_totals.timeouts += n->timeouts;
		load_totals.naks += n->rx_naks;
		load_totals.rnr += n->rnr_waits;
		load_totals.dups += n->rx_duplicates;
		load_totals.acks += n->tx_acks;
	}
	load_totals.frames += l->s->frames;
	load_totals.lost += l->s->lost;
	load_totals.doubled += l->s->doubled;
	load_totals.delayed += l->s->delayed;
	load_totals.turns += l->s->turns;
	load_totals.virtual_ns += l->s->now;
}

/* Counters that must stay zero whatever the network does: frames were intact, the application behaved. */
static void check_counters(struct load *l)
{
	if (l->s->malformed)
		or_fail(l->s->oracle, "a malformed frame was sent: %s", l->s->malformed);
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		const struct fx_counters *n = fx_tp_counters(l->s->host[i]->tp);
		uint64_t drops = 0;

		for (unsigned d = 0; d < FX_DROPS; d++)
			drops += n->drop[d];
		if (drops || n->rx_unknown_qp || n->rx_wrong_state || n->rx_wrong_peer ||
		    n->rx_wrong_transport || n->rx_bad_length || n->rx_remote_access ||
		    n->rx_invalid_request || n->wqe_stale || n->wqe_bad || n->wqe_overrun || n->rwqe_bad ||
		    n->dma_errors || n->cq_overruns || n->qp_errors || l->s->host[i]->events)
			or_fail(l->s->oracle, "host %u: a counter of errors is not zero", i);
	}
}

static bool print_frame(void *arg, struct frame *f, const struct fx_bth *b)
{
	struct load *l = arg;

	printf("%10llu.%03u %u> qp %x %-22s psn %06x", (unsigned long long)l->s->now / 1000,
	       (unsigned)(l->s->now % 1000), f->src->id, b->dqpn >> FX_WORKER_BITS,
	       fx_opcodes[b->opcode].name, b->psn);
	if (fx_opcodes[b->opcode].flags & FX_OPF_AETH)
		printf(" aeth %02x", b->aeth.syndrome);
	if (fx_opcodes[b->opcode].flags & FX_OPF_RETH)
		printf(" len %u", b->reth.length);
	printf("%s%s\n", b->ackreq ? " ackreq" : "", f->fate == FRAME_LOST ? " LOST" : "");
	return false;
}

static void run(struct load *l)
{
	struct sim *s = l->s;

	for (unsigned i = 0; i < SIM_HOSTS; i++)
		host_rouse(s->host[i], s->now);
	sim_run(s, SIM_END_NS, all_done, l);
	if (!or_failed(s->oracle) && !all_done(l))
		or_fail(s->oracle, "stuck at %llu us", (unsigned long long)s->now / 1000);
	if (s->turns > TURNS_MAX)
		or_fail(s->oracle, "too many turns: something goes in circles");
	/* what is still under way must change nothing */
	sim_run(s, s->now + SIM_END_NS, quiet, l);
	for (unsigned i = 0; i < l->nflow; i++)
		or_finish(l->flow[i].judge);
	check_counters(l);
}

const char *load_run(const struct sim_cfg *cfg)
{
	static char why[600];
	struct load *l = load_setup(cfg);
	const char *bad;

	if (cfg->trace) {
		l->s->tap = print_frame;
		l->s->tap_arg = l;
	}
	run(l);
	bad = or_failed(l->s->oracle);
	if (bad)
		snprintf(why, sizeof(why), "%s%s%s", bad, l->why ? ": " : "",
			 l->why ? fx_cause_text(l->why) : "");
	add_totals(l);
	if (!load_teardown(l) && !bad) {
		snprintf(why, sizeof(why), "a QP never became idle");
		bad = why;
	}
	return bad ? why : NULL;
}
