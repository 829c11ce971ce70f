/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a seed means: hosts, QPs, memory, and the operations of every flow.
 *
 * Room: tests/sim.
 */
#include "load.h"

#include <stdlib.h>

/* What the whole run has in common. */
struct shape {
	uint32_t mtu, qps, ops, max_len, max_sge, window;
	uint32_t max_send, max_recv, inline_max;
	uint32_t unsignaled; /* millionths */
	uint32_t weight[OR_OPS];
	bool both, shared_cq;
	struct link_attr attr;
};

static uint32_t pick_mtu(struct rng *r)
{
	return 256u << rng_below(r, 5);
}

static uint32_t pick_psn(struct rng *r)
{
	switch (rng_below(r, 3)) {
	case 0:
		return (uint32_t)(0x1000000 - rng_range(r, 1, 100)); /* wraps soon */
	case 1:
		return (uint32_t)(0x800000 - rng_range(r, 0, 100));
	default:
		return (uint32_t)rng_below(r, 0x1000000);
	}
}

static void draw_attr(struct shape *p, struct rng *r)
{
	p->attr = (struct link_attr){
		.ip6 = rng_chance(r, 300000),
		.mtu = p->mtu,
		.psn = {pick_psn(r), pick_psn(r)},
		.timeout = (uint8_t)rng_range(r, 8, 11),
		.retry_cnt = 7,
		.rnr_retry = 7,
		.min_rnr_timer = (uint8_t)rng_range(r, 1, 9),
		.rd_atomic = (uint8_t)(rng_chance(r, 300000) ? 1 : rng_range(r, 1, 16)),
		.access =
			FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC,
	};
}

static void draw_shape(struct shape *p, const struct sim_cfg *cfg, struct rng *r)
{
	static const uint32_t lens[] = {300, 5000, 20000, 65536}, windows[] = {0, 0, 1, 2, 3, 8, 30, 64, 100};
	static const uint32_t depths[] = {1, 2, 5, 16, 64};

	p->mtu = pick_mtu(r);
	p->mtu = cfg->mtu ? cfg->mtu : p->mtu;
	p->qps = (uint32_t)(rng_chance(r, 600000) ? 1 : rng_range(r, 1, 6));
	p->qps = cfg->qps ? cfg->qps : p->qps;
	p->max_len = lens[rng_below(r, 4)];
	p->ops = (uint32_t)rng_range(r, 20, p->max_len > 5000 ? 60 : 150) / (p->qps > 2 ? 2 : 1);
	p->ops = cfg->ops ? cfg->ops : p->ops;
	p->window = windows[rng_below(r, 9)];
	p->max_send = depths[rng_below(r, 5)];
	p->max_recv = depths[rng_below(r, 5)];
	p->max_sge = rng_chance(r, 200000) ? FX_MAX_SGE : (uint32_t)rng_range(r, 1, 4);
	p->inline_max = rng_chance(r, 300000) ? 0 : (uint32_t)rng_range(r, 1, FX_MAX_INLINE);
	p->unsignaled = (uint32_t)rng_below(r, 1000000);
	p->both = rng_chance(r, 600000);
	p->shared_cq = rng_chance(r, 500000);
	for (unsigned i = 0; i < OR_OPS; i++)
		p->weight[i] = rng_chance(r, 250000) ? 0 : (uint32_t)rng_range(r, 1, 10);
	if (rng_chance(r, 150000)) /* one thing only */
		for (unsigned i = 0, k = (unsigned)rng_below(r, OR_OPS); i < OR_OPS; i++)
			p->weight[i] = i == k;
	draw_attr(p, r);
}

static enum or_op pick_op(const struct shape *p, struct rng *r)
{
	uint64_t sum = 0, k;

	for (unsigned i = 0; i < OR_OPS; i++)
		sum += p->weight[i];
	if (!sum)
		return (enum or_op)rng_below(r, OR_OPS);
	k = rng_below(r, sum);
	for (unsigned i = 0; i < OR_OPS - 1; i++) {
		if (k < p->weight[i])
			return (enum or_op)i;
		k -= p->weight[i];
	}
	return OR_OPS - 1;
}

/* Sizes are mostly at edges. */
static uint32_t pick_len(const struct shape *p, struct rng *r)
{
	uint32_t n = (uint32_t)rng_range(r, 1, 8), len;

	switch (rng_below(r, 8)) {
	case 0:
		len = (uint32_t)rng_below(r, 2);
		break;
	case 1:
		len = p->mtu - 1 + (uint32_t)rng_below(r, 3);
		break;
	case 2:
		len = n * p->mtu - 1 + (uint32_t)rng_below(r, 3);
		break;
	case 3:
	case 4:
		len = (uint32_t)rng_below(r, 600);
		break;
	case 5:
		len = p->max_len - (uint32_t)rng_below(r, 5);
		break;
	default:
		len = (uint32_t)rng_below(r, p->max_len + 1);
	}
	return len < p->max_len ? len : p->max_len;
}

static void plan_op(struct flow *f, const struct shape *p, uint32_t i)
{
	struct planned *o = &f->plan[i], *before = i ? o - 1 : NULL;
	struct rng *r = &f->rng;

	*o = (struct planned){.op = pick_op(p, r), .len = pick_len(p, r)};
	o->nsge = (uint32_t)rng_range(r, 1, p->max_sge);
	if (!o->len && rng_chance(r, 500000))
		o->nsge = 0;
	o->solicited = o->op < OR_READ && o->op != OR_WRITE && rng_chance(r, 300000);
	if (before && before->op == OR_WRITE && rng_chance(r, 250000)) {
		/* over, or back from, the same bytes, without waiting */
		bool again = rng_chance(r, 500000);

		o->op = again ? OR_WRITE : OR_READ;
		o->overwrite = again;
		o->reread = !again;
		o->len = before->len;
		o->solicited = false;
		o->nsge = o->nsge ? o->nsge : 1;
		before->keep = true;
	}
	if (before && before->op == OR_READ && o->op < OR_READ && before->len && rng_chance(r, 250000)) {
		/* what the READ fetches goes on at once: only a fence makes that safe */
		o->forward = before->keep_local = true;
		o->len = before->len;
		o->nsge = before->nsge;
	}
	if (is_atomic(o->op)) {
		o->len = 8;
		o->nsge = 1;
	}
	o->inlined = !o->forward && o->op < OR_READ && o->len <= p->inline_max && rng_chance(r, 500000);
	o->signaled = !rng_chance(r, p->unsignaled);
}

static void plan_recv(struct flow *f, const struct shape *p, const struct planned *o)
{
	struct planned_recv *v = &f->recv[f->nrecv++];
	uint32_t want = o->op == OR_WRITE_IMM ? 0 : o->len;

	v->room = rng_chance(&f->rng, 500000) ? want
					      : want + (uint32_t)rng_below(&f->rng, p->max_len - want + 1);
	v->nsge = (uint32_t)rng_range(&f->rng, 1, p->max_sge);
	if (!v->room && rng_chance(&f->rng, 500000))
		v->nsge = 0;
}

static void plan_flow(struct flow *f, const struct shape *p)
{
	uint32_t silent = 0;

	f->plan = calloc(p->ops, sizeof(*f->plan));
	f->recv = calloc(p->ops, sizeof(*f->recv));
	f->nplan = p->ops;
	for (uint32_t i = 0; i < p->ops; i++) {
		struct planned *o = &f->plan[i];

		plan_op(f, p, i);
		/* memory and queue come back with completions: some have to be asked for */
		if (++silent >= f->max_send || silent >= 16 || i == p->ops - 1)
			o->signaled = true;
		if (o->signaled)
			silent = 0;
		if (o->op == OR_SEND || o->op == OR_SEND_IMM || o->op == OR_WRITE_IMM)
			plan_recv(f, p, o);
	}
}

static enum mem_kind pick_kind(struct rng *r)
{
	static const enum mem_kind kinds[] = {MEM_FLAT, MEM_FLAT, MEM_FLAT, MEM_FLAT,	   MEM_RUNS,
					      MEM_RUNS, MEM_FLAT, MEM_FLAT, MEM_SOME_SLOW, MEM_SLOW};

	return kinds[rng_below(r, 10)];
}

static void slots_fill(struct slots *s, uint32_t n)
{
	for (s->n = 0; s->n < n; s->n++)
		s->stack[s->n] = (uint16_t)s->n;
}

static void make_memory(struct flow *f, const struct shape *p, uint32_t nslots)
{
	uint32_t size;

	f->slot_size = p->max_len + 2 * GUARD + 16 + p->max_sge * (GAP + 1);
	size = nslots * f->slot_size;
	f->src = mem_create(f->from->h, size, FX_ACC_LOCAL_WRITE, pick_kind(&f->rng), &f->rng);
	f->target = mem_create(f->to->h, size + f->slot_size,
			       FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ |
				       FX_ACC_REMOTE_ATOMIC,
			       pick_kind(&f->rng), &f->rng);
	f->recv_mem = mem_create(f->to->h, p->max_recv * f->slot_size, FX_ACC_LOCAL_WRITE, pick_kind(&f->rng),
				 &f->rng);
	slots_fill(&f->src_slots, nslots);
	slots_fill(&f->target_slots, nslots);
	or_arena(f->judge, f->src->bytes, size);
	or_arena(f->judge, f->target->bytes, f->target->size);
	/* the last slot is the word's */
	f->word = f->target->bytes + (size + 7) / 8 * 8;
	or_set_word(f->judge, f->word);
	or_arena(f->judge, f->recv_mem->bytes, f->recv_mem->size);
}

static void make_flow(struct load *l, const struct shape *p, struct qp *from, struct qp *to)
{
	struct flow *f = &l->flow[l->nflow];
	uint32_t nslots = p->max_send + 16 < SLOTS ? p->max_send + 16 : SLOTS;

	f->from = from;
	f->to = to;
	f->rng = rng_of(rng_next(&l->rng), l->nflow);
	f->max_send = p->max_send;
	f->max_recv = p->max_recv;
	if (p->max_len > 20000 && nslots > 24)
		nslots = 24;
	f->judge = or_flow(l->s->oracle, l->nflow, from->sq_index, to->rq.index);
	or_grain(f->judge, l->s->host[0]->cfg.chaos ? p->mtu : 0);
	make_memory(f, p, nslots);
	plan_flow(f, p);
	if (rng_chance(&f->rng, 400000)) {
		f->late = (uint32_t)rng_range(&f->rng, 10000, 400000);
		f->late_ns = rng_range(&f->rng, 1000, 400000);
	}
	l->pair[from->h->id][from->qpn >> FX_WORKER_BITS][0] = f;
	l->pair[to->h->id][to->qpn >> FX_WORKER_BITS][1] = f;
	l->nflow++;
}

static struct qp *make_qp(struct load *l, const struct shape *p, struct host *h, uint32_t c)
{
	struct fx_qp_cfg cfg = {
		.qpn = (c + 1) << FX_WORKER_BITS,
		.gen = (uint32_t)rng_below(&l->rng, 256),
		.ctx = 1,
		.pd = 1,
		.type = FX_QPT_RC,
		.handle = c,
		.max_send_wr = p->max_send,
		.max_recv_wr = p->max_recv,
		.max_send_sge = p->max_sge,
		.max_recv_sge = p->max_sge,
		.max_inline = p->inline_max,
	};
	struct cq *cq = l->cq[h->id][p->shared_cq ? 0 : c];
	bool odd = rng_chance(&l->rng, 500000);
	struct qp *q = qp_create(h, &cfg, cq, cq, odd ? (uint32_t)rng_next(&l->rng) | 0xffffffe0u : 0,
				 odd ? (uint32_t)-7 : 0);

	q->user = l->pair[h->id][c + 1];
	return q;
}

/* QPs of one connection, and one flow or two over it. */
static void make_connection(struct load *l, const struct shape *p, uint32_t c)
{
	struct qp *q[SIM_HOSTS];

	for (unsigned i = 0; i < SIM_HOSTS; i++)
		q[i] = make_qp(l, p, l->s->host[i], c);
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		if (qp_connect(q[i], q[!i], &p->attr))
			or_fail(l->s->oracle, "a QP could not be connected");
	make_flow(l, p, q[0], q[1]);
	if (p->both)
		make_flow(l, p, q[1], q[0]);
}

struct load *load_setup(const struct sim_cfg *cfg)
{
	struct load *l = calloc(1, sizeof(*l));
	struct link_cfg link = cfg->link;
	struct host_cfg host = {.chaos = cfg->chaos, .seed = cfg->seed};
	struct shape p;

	l->rng = rng_of(cfg->seed, 1);
	draw_shape(&p, cfg, &l->rng);
	link.latency = rng_range(&l->rng, 200, 20000);
	link.spread = rng_range(&l->rng, 500, 60000);
	link.ps_per_byte = (uint32_t)rng_range(&l->rng, 20, 800);
	link.zero_copy = rng_chance(&l->rng, 600000);
	link.icrc = rng_chance(&l->rng, 300000);
	host.window = p.window;
	host.icrc = link.icrc;
	host.chaos_delay = (unsigned)rng_range(&l->rng, 1, 40);
	host.turn_ns = (uint32_t)rng_range(&l->rng, 50, 2000);
	host.look_ns = cfg->looks ? (uint32_t)rng_of(cfg->seed, 2).s % 20000 + 100 : 0;
	host.nap_ns = rng_chance(&l->rng, 300000) ? 1200000 : 0; /* a little more than the shortest timeout */
	l->s = sim_create(&link, cfg->seed);
	l->s->oracle = or_create();
	l->ncq = p.shared_cq ? 1 : p.qps;
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		struct host *h = host_create(l->s, i, &host);

		h->app = app_turn;
		h->app_arg = l;
		for (unsigned k = 0; k < l->ncq; k++)
			l->cq[i][k] = cq_create((p.max_send + p.max_recv) * (p.shared_cq ? p.qps : 1));
	}
	for (uint32_t c = 0; c < p.qps; c++)
		make_connection(l, &p, c);
	return l;
}

bool load_teardown(struct load *l)
{
	bool idle = true;

	net_clear(l->s);
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		l->s->host[i]->app = NULL;
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		for (unsigned k = 0; k < HOST_QPS; k++)
			if (l->s->host[i]->qp[k])
				idle &= qp_destroy(l->s->host[i]->qp[k]);
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		net_clear(l->s);
		host_destroy(l->s->host[i]);
		for (unsigned k = 0; k < l->ncq; k++)
			cq_destroy(l->cq[i][k]);
	}
	for (unsigned i = 0; i < l->nflow; i++) {
		mem_destroy(l->flow[i].src);
		mem_destroy(l->flow[i].target);
		mem_destroy(l->flow[i].recv_mem);
		free(l->flow[i].plan);
		free(l->flow[i].recv);
	}
	or_destroy(l->s->oracle);
	sim_destroy(l->s);
	free(l);
	return idle;
}
