/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UC and UD under random work on a link that loses, repeats and reorders, and their judge. What arrives is whole, is
 * what was sent, comes at most once, on UC in order, and touches nothing else; every send completes, in order; and where
 * the link does nothing, all of it arrives.
 *
 *	sim_loss [--scale PERCENT] [--seed N]
 *
 * Room: tests/sim. The judge knows messages and memory, and no transport.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { FLOWS = 4, MESSAGES = 80, DEPTH = 8, FEW = 12, GRH = 40, MARK = 8, END_MS = 2000 };
#define MS UINT64_C(1000000)

struct network {
	uint32_t loss, dup, reorder;
	bool chaos, looks;
	unsigned seeds;
};
static const struct network networks[] = {
	{0, 0, 0, false, false, 150},		{0, 0, 0, true, true, 150},
	{20000, 0, 0, false, false, 200},	{0, 100000, 0, false, false, 200},
	{0, 0, 100000, false, false, 200},	{50000, 50000, 50000, true, false, 200},
	{10000, 10000, 10000, true, true, 200}, {300000, 0, 300000, false, true, 100},
};

struct message {
	uint8_t op; /* enum fx_wr_op */
	uint32_t len;
	bool arrived;
};

struct flow {
	unsigned id;
	struct qp *from, *to;
	struct cq *scq, *rcq;
	struct mem *src, *dst, *recv; /* slots: DEPTH, MESSAGES, recvs */
	struct fx_ah ah;
	struct message m[MESSAGES];
	uint32_t posted, sent, recv_posted, received, arrived;
	int64_t last;
	uint64_t recv_at;
};

struct run {
	const struct network *net;
	uint64_t seed;
	struct rng rng;
	struct sim *s;
	uint32_t type, mtu, max_len, slot;
	bool late;	/* receives are, */
	uint32_t recvs; /* ... and there are few of them; else one for each message */
	unsigned nflow;
	struct flow flow[FLOWS];
	bool failed;
};

static uint64_t total_sent, total_arrived, failures;

static void bad(struct run *r, const struct flow *f, const char *what, uint64_t a, uint64_t b)
{
	if (!r->failed)
		printf("FAIL: sim_loss --seed %llu network %u flow %u (%s): %s (%llu, %llu)\n",
		       (unsigned long long)r->seed, (unsigned)(r->net - networks), f->id,
		       r->type == FX_QPT_UC ? "UC" : "UD", what, (unsigned long long)a,
		       (unsigned long long)b);
	failures += !r->failed;
	r->failed = true;
}

/* Byte i of message m: its number in front, then what no other message has there. */
static uint8_t byte_of(const struct flow *f, uint32_t m, uint32_t i)
{
	uint32_t h;

	if (i < 4)
		return (uint8_t)(m >> 8 * i);
	h = (f->id * 7919 + m) * 2654435761u ^ i * 40503u;
	h ^= h >> 13;
	h = (h * 0x5bd1e995u) >> 16 & 0xff;
	return h == OR_POISON ? 0 : (uint8_t)h;
}

static bool is_imm(uint8_t op)
{
	return op == FX_WR_SEND_IMM || op == FX_WR_WRITE_IMM;
}
static bool is_write(uint8_t op)
{
	return op == FX_WR_WRITE || op == FX_WR_WRITE_IMM;
}

/* Is memory the message in `len` bytes, and poison up to the end of its slot? */
static void check_slot(struct run *r, struct flow *f, const uint8_t *p, uint32_t m, uint32_t len,
		       uint32_t room)
{
	for (uint32_t i = 0; i < room; i++)
		if (p[i] != (i < len ? byte_of(f, m, i) : OR_POISON)) {
			bad(r, f, "a byte of a message, or behind it, is wrong", m, i);
			return;
		}
}

/* ---- sending ---- */

static void post_one(struct run *r, struct flow *f)
{
	uint32_t m = f->posted, n = 1 + (uint32_t)rng_below(&r->rng, 3), off = 0;
	struct message *g = &f->m[m];
	uint8_t *p = f->src->bytes + (m % DEPTH) * r->slot;
	struct wr w = {.op = g->op, .flags = FX_WRF_SIGNALED, .imm = m};

	for (uint32_t i = 0; i < g->len; i++)
		p[i] = byte_of(f, m, i);
	if (g->len <= 200 && rng_chance(&r->rng, 500000))
		w.flags |= FX_WRF_INLINE;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t len = i == n - 1 ? g->len - off : (uint32_t)rng_below(&r->rng, g->len - off + 1);

		w.sge[w.nsge] = (struct fx_sge){mem_va(f->src, p + off), len, f->src->mr.key};
		w.data[w.nsge++] = p + off;
		off += len;
	}
	if (r->type == FX_QPT_UD) {
		wr_address(&w, f->ah.handle, f->to->qpn, HOST_QKEY);
	} else {
		w.remote_addr = mem_va(f->dst, f->dst->bytes + m * r->slot);
		w.rkey = f->dst->mr.key;
	}
	qp_post(f->from, &w);
	f->posted++;
	total_sent++;
}

static void sent(struct run *r, struct flow *f, const struct fx_cqe *c)
{
	uint8_t *p = f->src->bytes + (f->sent % DEPTH) * r->slot;

	if (c->status || c->index != f->sent)
		bad(r, f, "a send did not complete in its turn", c->index, c->status);
	if (net_refers(r->s, p, r->slot))
		bad(r, f, "a send completed while a frame still needs its buffer", c->index, 0);
	memset(p, OR_POISON, r->slot);
	f->sent++;
}

/* ---- receiving ---- */

static void post_recvs(struct run *r, struct flow *f)
{
	while (f->recv_posted - f->received < r->recvs && r->s->now >= f->recv_at) {
		uint8_t *p = f->recv->bytes + (f->recv_posted % r->recvs) * r->slot;
		const struct fx_sge sge[2] = {
			{mem_va(f->recv, p), GRH - 3, f->recv->mr.key},
			{mem_va(f->recv, p) + GRH - 3, r->slot - GRH + 3 - MARK, f->recv->mr.key}};

		memset(p, OR_POISON, r->slot);
		qp_post_recv(f->to, sge, 2);
		f->recv_posted++;
		if (r->late)
			f->recv_at = r->s->now + rng_below(&r->rng, 20000);
	}
}

static void received(struct run *r, struct flow *f, const struct fx_cqe *c)
{
	uint8_t *p = f->recv->bytes + (f->received % r->recvs) * r->slot;
	uint32_t grh = r->type == FX_QPT_UD ? GRH : 0, m = c->imm, len = c->byte_len - grh;
	bool imm = c->flags & FX_WCF_IMM, write = c->opcode == FX_WC_RECV_RDMA_WITH_IMM;

	if (c->status || c->index != f->received++)
		bad(r, f, "a receive did not complete in its turn", c->index, c->status);
	if (!imm)
		memcpy(&m, p + grh, 4);
	if (m >= f->posted || is_imm(f->m[m].op) != imm || is_write(f->m[m].op) != write ||
	    f->m[m].len != len) {
		bad(r, f, "a receive is of no message", m, len);
		return;
	}
	if (r->type == FX_QPT_UC ? (int64_t)m <= f->last : f->m[m].arrived && !r->net->dup)
		bad(r, f, "a message came again, or after a later one", m, (uint64_t)f->last);
	if (write) {
		check_slot(r, f, f->dst->bytes + m * r->slot, m, len, r->slot);
	} else {
		/* on UC there may be something behind it of a longer message that was given up */
		check_slot(r, f, p + grh, m, len, grh ? r->slot - grh : len);
	}
	check_slot(r, f, p + r->slot - MARK, m, 0, MARK);
	f->last = m;
	f->arrived += !f->m[m].arrived;
	f->m[m].arrived = true;
	total_arrived++;
}

static uint64_t app(void *arg, struct host *h)
{
	struct run *r = arg;

	for (unsigned i = 0; i < r->nflow; i++) {
		struct flow *f = &r->flow[i];
		struct fx_cqe c;

		while (f->to->h == h && fx_cq_take(&f->rcq->rx, &c))
			received(r, f, &c);
		while (f->from->h == h && fx_cq_take(&f->scq->rx, &c))
			sent(r, f, &c);
		fx_cq_publish_ci(&f->scq->rx);
		fx_cq_publish_ci(&f->rcq->rx);
		if (f->to->h == h)
			post_recvs(r, f);
		while (f->from->h == h && f->posted < MESSAGES && f->posted - f->sent < DEPTH &&
		       rng_chance(&r->rng, 700000))
			post_one(r, f);
	}
	return r->s->now + 1 + rng_below(&r->rng, 5000);
}

/* ---- a run ---- */

static struct mem *slots(struct run *r, struct host *h, uint32_t n)
{
	static const enum mem_kind kinds[] = {MEM_FLAT, MEM_FLAT, MEM_RUNS, MEM_SOME_SLOW, MEM_SLOW};
	struct mem *m = mem_create(h, n * r->slot, FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE,
				   kinds[rng_below(&r->rng, 5)], &r->rng);

	memset(m->bytes, OR_POISON, m->size);
	return m;
}

static void draw_messages(struct run *r, struct flow *f)
{
	static const uint8_t ops[] = {FX_WR_SEND, FX_WR_SEND_IMM, FX_WR_WRITE_IMM, FX_WR_WRITE};

	for (uint32_t m = 0; m < MESSAGES; m++) {
		struct message *g = &f->m[m];

		g->op = ops[rng_below(&r->rng, r->type == FX_QPT_UC ? 4 : 2)];
		g->len = (uint32_t)rng_below(&r->rng, r->max_len + 1);
		if (rng_chance(&r->rng, 300000))
			g->len %= 64;
		if (!is_imm(g->op) && g->len < MARK)
			g->len = MARK;
	}
}

static void make_flow(struct run *r, unsigned i)
{
	struct link_attr attr = {.ip6 = rng_chance(&r->rng, 300000),
				 .mtu = r->mtu,
				 .psn = {(uint32_t)rng_next(&r->rng) & FX_PSN_MASK, 0xfffffa},
				 .access = FX_ACC_REMOTE_WRITE};
	struct fx_qp_cfg cfg = {.qpn = (i + 1) << FX_WORKER_BITS,
				.ctx = 1,
				.pd = 1,
				.type = r->type,
				.max_send_wr = DEPTH,
				.max_recv_wr = r->recvs,
				.max_send_sge = 4,
				.max_recv_sge = 2,
				.max_inline = 256};
	struct flow *f = &r->flow[i];
	struct qp *q[SIM_HOSTS];
	unsigned from = i & 1;

	*f = (struct flow){.id = i, .last = -1};
	f->scq = cq_create(DEPTH + r->recvs);
	f->rcq = cq_create(DEPTH + r->recvs);
	for (unsigned k = 0; k < SIM_HOSTS; k++)
		q[k] = qp_create(r->s->host[k], &cfg, k == from ? f->scq : f->rcq,
				 k == from ? f->scq : f->rcq, 0, 0);
	for (unsigned k = 0; k < SIM_HOSTS; k++)
		if (qp_connect(q[k], q[!k], &attr))
			bad(r, f, "a QP could not be connected", k, 0);
	f->from = q[from];
	f->to = q[!from];
	f->src = slots(r, f->from->h, DEPTH);
	f->dst = slots(r, f->to->h, MESSAGES);
	f->recv = slots(r, f->to->h, r->recvs);
	ah_publish(f->from->h, &f->ah, i + 1, 1, attr.ip6);
	draw_messages(r, f);
}

static void setup(struct run *r)
{
	struct link_cfg link = {.loss = r->net->loss,
				.dup = r->net->dup,
				.reorder = r->net->reorder,
				.latency = rng_range(&r->rng, 200, 20000),
				.spread = rng_range(&r->rng, 500, 60000),
				.ps_per_byte = (uint32_t)rng_range(&r->rng, 20, 800),
				.zero_copy = rng_chance(&r->rng, 600000),
				.icrc = rng_chance(&r->rng, 300000)};
	struct host_cfg host = {.chaos = r->net->chaos,
				.chaos_delay = (unsigned)rng_range(&r->rng, 1, 40),
				.seed = r->seed,
				.icrc = link.icrc,
				.turn_ns = (uint32_t)rng_range(&r->rng, 50, 2000),
				.look_ns = r->net->looks ? (uint32_t)rng_range(&r->rng, 100, 20000) : 0};

	r->type = rng_chance(&r->rng, 500000) ? FX_QPT_UC : FX_QPT_UD;
	r->mtu = 256u << rng_below(&r->rng, 5);
	r->max_len = r->type == FX_QPT_UD ? 4096 : 1 + (uint32_t)rng_below(&r->rng, 5 * r->mtu);
	r->slot = r->max_len + GRH + 2 * MARK;
	r->late = rng_chance(&r->rng, 300000);
	r->recvs = r->late ? FEW : MESSAGES;
	r->nflow = 1 + (unsigned)rng_below(&r->rng, FLOWS);
	r->s = sim_create(&link, r->seed);
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		struct host *h = host_create(r->s, i, &host);

		h->app = app;
		h->app_arg = r;
	}
	for (unsigned i = 0; i < r->nflow; i++)
		make_flow(r, i);
}

static bool over(void *arg)
{
	const struct run *r = arg;

	for (unsigned i = 0; i < r->nflow; i++)
		if (r->flow[i].sent < MESSAGES)
			return r->failed;
	return true;
}

/* What is under way has arrived, and is where it belongs. */
static bool settled(void *arg)
{
	const struct run *r = arg;
	bool busy = r->s->nheap;

	for (unsigned i = 0; i < SIM_HOSTS; i++)
		busy |= r->s->host[i]->in_head || fx_tp_dma_pending(r->s->host[i]->tp) ||
			r->s->host[i]->look_next != SIM_NEVER;
	return r->failed || !busy;
}

/* Nothing was lost: not by the link, and not for want of room behind slow memory. */
static bool clean(const struct run *r)
{
	return !r->net->loss && !r->net->reorder && !r->net->dup &&
	       !fx_tp_counters(r->s->host[0]->tp)->rx_backlog &&
	       !fx_tp_counters(r->s->host[1]->tp)->rx_backlog;
}

/* What a WRITE left of which nobody is told: its bytes, as far as they came. */
static void check_end(struct run *r, struct flow *f)
{
	uint32_t want = 0;

	for (uint32_t m = 0; m < MESSAGES; m++) {
		const uint8_t *p = f->dst->bytes + m * r->slot;

		want += f->m[m].op != FX_WR_WRITE;
		for (uint32_t i = 0; i < r->slot; i++)
			if (p[i] != OR_POISON &&
			    (!is_write(f->m[m].op) || i >= f->m[m].len || p[i] != byte_of(f, m, i)))
				bad(r, f, "a byte of a target is of no message", m, i);
		if (f->m[m].op == FX_WR_WRITE && clean(r))
			check_slot(r, f, p, m, f->m[m].len, r->slot);
	}
	if (f->sent != MESSAGES)
		bad(r, f, "not every send completed", f->sent, 0);
	if (clean(r) && !r->late && f->arrived != want)
		bad(r, f, "not all arrived, though nothing was lost", f->arrived, want);
}

static void check_counters(struct run *r)
{
	if (r->s->malformed)
		bad(r, &r->flow[0], r->s->malformed, 0, 0);
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		const struct fx_counters *n = fx_tp_counters(r->s->host[i]->tp);

		if (n->rx_wrong_transport || n->rx_wrong_qkey || n->rx_bad_length || n->rx_too_long ||
		    n->rx_remote_access || n->rx_unknown_qp || n->tx_acks || n->tx_naks ||
		    n->tx_retransmits || n->timeouts || n->dma_errors || n->sq_errors || n->qp_errors ||
		    n->wqe_bad || n->rx_invalid_request)
			bad(r, &r->flow[0], "a counter of errors is not zero, on host", i, 0);
	}
}

static void teardown(struct run *r)
{
	net_clear(r->s);
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		r->s->host[i]->app = NULL;
	for (unsigned i = 0; i < r->nflow; i++)
		if (!qp_destroy(r->flow[i].from) || !qp_destroy(r->flow[i].to))
			bad(r, &r->flow[i], "a QP never became idle", 0, 0);
	net_clear(r->s);
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		host_destroy(r->s->host[i]);
	for (unsigned i = 0; i < r->nflow; i++) {
		struct flow *f = &r->flow[i];

		cq_destroy(f->scq);
		cq_destroy(f->rcq);
		mem_destroy(f->src);
		mem_destroy(f->dst);
		mem_destroy(f->recv);
	}
	sim_destroy(r->s);
}

static void run(const struct network *net, uint64_t seed)
{
	static struct run r;

	r = (struct run){.net = net, .seed = seed, .rng = rng_of(seed, 77)};
	setup(&r);
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		host_rouse(r.s->host[i], r.s->now);
	sim_run(r.s, END_MS * MS, over, &r);
	if (!sim_run(r.s, r.s->now + END_MS * MS, settled, &r))
		bad(&r, &r.flow[0], "something stays under way", 0, 0);
	sim_run(r.s, r.s->now + MS, NULL, NULL); /* for the application to see it */
	for (unsigned i = 0; i < r.nflow; i++)
		check_end(&r, &r.flow[i]);
	check_counters(&r);
	teardown(&r);
}

int main(int argc, char **argv)
{
	unsigned scale = argc == 3 && !strcmp(argv[1], "--scale") ? (unsigned)atoi(argv[2]) : 100;
	uint64_t only = argc == 3 && !strcmp(argv[1], "--seed") ? strtoull(argv[2], NULL, 10) : 0, seed = 0;
	unsigned runs = 0;

	for (size_t i = 0; i < sizeof(networks) / sizeof(networks[0]); i++)
		for (unsigned k = 0; k < networks[i].seeds; k++) {
			seed++;
			if (only ? seed != only : k >= networks[i].seeds * scale / 100)
				continue;
			run(&networks[i], seed);
			runs++;
			if (failures >= 5)
				return 1;
		}
	printf("sim_loss: %u seeds, %llu failed; %llu messages, %llu arrived\n", runs,
	       (unsigned long long)failures, (unsigned long long)total_sent,
	       (unsigned long long)total_arrived);
	return failures != 0;
}
