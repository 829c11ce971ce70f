/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pair of pair.h.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

static const struct pair_opt defaults = {
	.mtu = 1024,
	.max_send = 64,
	.max_recv = 64,
	.max_sge = 4,
	.timeout = 8, /* 1.05 ms */
	.retry_cnt = 3,
	.rnr_retry = 2,
	.rd_atomic = 4,
	.access = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC,
	.cqes = 512,
};

static uint64_t poll(void *arg, struct host *h)
{
	struct pair *p = arg;
	unsigned i = h->id;

	while (!p->deaf[i] && p->n[i] < PAIR_CQES && fx_cq_take(&p->cq[i]->rx, &p->cqe[i][p->n[i]]))
		p->n[i]++;
	fx_cq_publish_ci(&p->cq[i]->rx);
	return SIM_NEVER;
}

static bool tap(void *arg, struct frame *f, const struct fx_bth *bth)
{
	struct pair *p = arg;
	unsigned from = f->src->id;
	bool lost = p->cut[from] || (p->fate && p->fate(p, from, bth) == DROP);

	assert_true(p->nlog < PAIR_LOG);
	p->log[p->nlog++] = (struct seen){from, *bth, lost};
	if (bth->opcode == FX_OP_ACKNOWLEDGE && f->pkt.total <= sizeof(p->ack)) {
		memcpy(p->ack, f->pkt.frame, f->pkt.total);
		p->ack_len = f->pkt.total;
	}
	return lost;
}

static struct qp *make_qp(struct pair *p, unsigned i)
{
	const struct fx_qp_cfg cfg = {
		.qpn = (5 + i) << FX_WORKER_BITS,
		.gen = 3,
		.ctx = 1,
		.pd = 1,
		.type = p->opt.type ? p->opt.type : FX_QPT_RC,
		.max_send_wr = p->opt.max_send,
		.max_recv_wr = p->opt.max_recv,
		.max_send_sge = p->opt.max_sge,
		.max_recv_sge = p->opt.max_sge,
		.max_inline = 256,
	};

	return qp_create(p->h[i], &cfg, p->cq[i], p->cq[i], 0, 0);
}

void pair_connect(struct pair *p)
{
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		assert_int_equal(qp_connect(p->q[i], p->q[!i], &p->attr), 0);
}

struct pair *pair_create(const struct pair_opt *opt)
{
	const struct link_cfg link = {.latency = 5000, .ps_per_byte = 80, .zero_copy = true};
	struct pair *p = calloc(1, sizeof(*p));

	p->opt = opt ? *opt : defaults;
	if (!p->opt.mtu) {
		struct pair_opt given = p->opt;

		p->opt = defaults;
		p->opt.chaos = given.chaos;
		p->opt.look_ns = given.look_ns;
		p->opt.max_send = given.max_send ? given.max_send : defaults.max_send;
		p->opt.access = given.access ? given.access : defaults.access;
		p->opt.cqes = given.cqes ? given.cqes : defaults.cqes;
		p->opt.rnr_retry = given.rnr_retry ? given.rnr_retry : defaults.rnr_retry;
		p->opt.kind = given.kind;
		p->opt.type = given.type;
		p->opt.ip6 = given.ip6;
		p->opt.rd_atomic = given.rd_atomic ? given.rd_atomic : defaults.rd_atomic;
	}
	p->rng = rng_of(1, 1);
	p->s = sim_create(p->opt.link ? p->opt.link : &link, 1);
	p->s->tap = tap;
	p->s->tap_arg = p;
	p->attr = (struct link_attr){
		.ip6 = p->opt.ip6,
		.mtu = p->opt.mtu,
		.psn = {0xfffff0, 0x7ffff0},
		.timeout = p->opt.timeout,
		.retry_cnt = p->opt.retry_cnt,
		.rnr_retry = p->opt.rnr_retry,
		.min_rnr_timer = 5, /* 60 us */
		.rd_atomic = p->opt.rd_atomic,
		.access = p->opt.access,
	};
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		const struct host_cfg cfg = {.chaos = p->opt.chaos,
					     .chaos_delay = p->opt.bus ? 0 : 20, /* a bus is late by itself */
					     .seed = 1,
					     .turn_ns = p->opt.turn_ns ? p->opt.turn_ns : 300,
					     .bus = p->opt.bus,
					     .look_ns = p->opt.look_ns};

		p->h[i] = host_create(p->s, i, &cfg);
		p->h[i]->app = poll;
		p->h[i]->app_arg = p;
		p->cq[i] = cq_create(p->opt.cqes);
		p->q[i] = make_qp(p, i);
		p->mem[i] = mem_create(p->h[i], PAIR_MEM,
				       FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ |
					       FX_ACC_REMOTE_ATOMIC,
				       p->opt.kind, &p->rng);
		memset(p->mem[i]->bytes, OR_POISON, PAIR_MEM);
	}
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		ah_publish(p->h[i], &p->ah[i], 1, 1, p->opt.ip6);
	pair_connect(p);
	return p;
}

void pair_destroy(struct pair *p)
{
	assert_null(p->s->malformed);
	p->s->tap = NULL;
	net_clear(p->s);
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		p->h[i]->app = NULL;
		assert_true(qp_destroy(p->q[i]));
	}
	net_clear(p->s);
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		host_destroy(p->h[i]);
		cq_destroy(p->cq[i]);
		mem_destroy(p->mem[i]);
	}
	sim_destroy(p->s);
	free(p);
}

void pair_run(struct pair *p, uint64_t ns)
{
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		host_rouse(p->h[i], p->s->now);
	sim_run(p->s, p->s->now + ns, NULL, NULL);
	/* what completed at the end of a turn */
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		if (p->h[i]->app)
			p->h[i]->app(p->h[i]->app_arg, p->h[i]);
}

struct wr pair_wr(struct pair *p, unsigned from, uint8_t op, uint32_t off, uint32_t len, uint32_t roff)
{
	struct wr w = {
		.op = op,
		.flags = FX_WRF_SIGNALED,
		.nsge = 1,
		.sge = {{mem_va(p->mem[from], p->mem[from]->bytes + off), len, p->mem[from]->mr.key}},
		.remote_addr = mem_va(p->mem[!from], p->mem[!from]->bytes + roff),
		.rkey = p->mem[!from]->mr.key,
		.imm = 0x11223344,
	};

	if (p->opt.type == FX_QPT_UD)
		wr_address(&w, p->ah[from].handle, p->q[!from]->qpn, HOST_QKEY);
	return w;
}

void pair_post(struct pair *p, unsigned from, uint8_t op, uint32_t off, uint32_t len, uint32_t roff)
{
	struct wr w = pair_wr(p, from, op, off, len, roff);

	qp_post(p->q[from], &w);
}

void pair_recv(struct pair *p, unsigned at, uint32_t off, uint32_t len)
{
	struct fx_sge sge = {mem_va(p->mem[at], p->mem[at]->bytes + off), len, p->mem[at]->mr.key};

	qp_post_recv(p->q[at], &sge, 1);
}

struct fx_qp_info pair_info(struct pair *p, unsigned at)
{
	struct fx_qp_info info;

	fx_qp_snapshot(p->q[at]->core, &info);
	return info;
}

uint32_t pair_state(struct pair *p, unsigned at)
{
	return pair_info(p, at).state;
}

struct fx_counters *pair_counters(struct pair *p, unsigned at)
{
	return fx_tp_counters(p->h[at]->tp);
}

/* What was looked at is taken out of the array. */
void pair_expect(struct pair *p, unsigned at, uint8_t opcode, uint32_t index, uint8_t status)
{
	struct fx_cqe *c = &p->cqe[at][0];

	assert_true(p->n[at] > 0);
	assert_int_equal(c->status, status);
	assert_int_equal(c->index, index);
	assert_int_equal(c->opcode, opcode);
	assert_int_equal(c->qpn_gen, fx_qpn_gen(p->q[at]->qpn, (uint8_t)p->q[at]->gen));
	p->n[at]--;
	memmove(c, c + 1, p->n[at] * sizeof(*c));
}

void pair_expect_none(struct pair *p, unsigned at)
{
	assert_int_equal(p->n[at], 0);
}

static uint8_t pattern(uint32_t i, uint8_t salt)
{
	return (uint8_t)((i * 2654435761u >> 13) + salt * 31u);
}

void pair_fill(struct pair *p, unsigned at, uint32_t off, uint32_t len, uint8_t salt)
{
	for (uint32_t i = 0; i < len; i++)
		p->mem[at]->bytes[off + i] = pattern(i, salt);
}

void pair_check(struct pair *p, unsigned at, uint32_t off, uint32_t len, uint8_t salt)
{
	for (uint32_t i = 0; i < len; i++)
		assert_int_equal(p->mem[at]->bytes[off + i], pattern(i, salt));
}

void pair_check_blank(struct pair *p, unsigned at, uint32_t off, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		assert_int_equal(p->mem[at]->bytes[off + i], OR_POISON);
}

unsigned pair_sent(const struct pair *p, unsigned from, int opcode)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->nlog; i++)
		n += p->log[i].from == from && (opcode < 0 || p->log[i].bth.opcode == opcode);
	return n;
}
