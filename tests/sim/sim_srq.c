/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared receive queues: many QPs take receives from one, on a quiet link and on one that loses, repeats and reorders.
 * The judge is here: what each message says of itself, and which numbers are outstanding.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

enum {
	RESET = 0,
	ERR = 6,
	QPS = 8,
	ENTRIES = 12,
	MAX_SGE = 4, /* entries of two slots */
	ROOM = 8192, /* bytes of a receive */
	SRQ_PD = 7,  /* the QPs are of domain 1 */
	CQES = 4096,
};

/* Host 0 sends on QPS QPs; host 1 receives, with one SRQ. */
struct many {
	struct sim *s;
	struct host *h[SIM_HOSTS];
	struct cq *cq[SIM_HOSTS];
	struct qp *q[SIM_HOSTS][QPS];
	struct mem *mem[SIM_HOSTS];
	struct srq *srq;
	struct link_attr attr;
	struct rng rng;
	bool busy[ENTRIES]; /* posted, and not completed */
	bool replenishes;
	uint32_t sent[QPS], got[QPS], flushed, acked;
	uint8_t last_status;
	uint32_t last_qp;
};

struct many_opt {
	struct link_cfg link;
	bool chaos;
	uint32_t look_ns;
	uint64_t seed;
	uint8_t rnr_retry; /* 0: for ever */
};

/* ---- what a message says: who sent it, which one it is, and bytes that follow from both ---- */

static uint32_t length_of(uint32_t qp, uint32_t n)
{
	return 8 + (qp * 977 + n * 1361) % 3000;
}

static uint8_t byte_of(uint32_t qp, uint32_t n, uint32_t i)
{
	return (uint8_t)(qp * 31 + n * 7 + (i * 2654435761u >> 16));
}

static void write_message(uint8_t *p, uint32_t qp, uint32_t n)
{
	memcpy(p, &qp, 4);
	memcpy(p + 4, &n, 4);
	for (uint32_t i = 8; i < length_of(qp, n); i++)
		p[i] = byte_of(qp, n, i);
}

static void check_message(const uint8_t *p, uint32_t qp, uint32_t n)
{
	uint32_t head[2];

	memcpy(head, p, sizeof(head));
	assert_int_equal(head[0], qp);
	assert_int_equal(head[1], n);
	for (uint32_t i = 8; i < length_of(qp, n); i++)
		assert_int_equal(p[i], byte_of(qp, n, i));
}

/* ---- both sides ---- */

static void post(struct many *m, uint32_t number)
{
	uint8_t *p = m->mem[1]->bytes + number * ROOM;
	/* in four pieces of odd lengths */
	const uint32_t cut[] = {0, 13, 1000, 1001, ROOM};
	struct fx_sge sge[4];

	assert_false(m->busy[number]);
	m->busy[number] = true;
	memset(p, OR_POISON, ROOM);
	for (int i = 0; i < 4; i++)
		sge[i] = (struct fx_sge){mem_va(m->mem[1], p + cut[i]), cut[i + 1] - cut[i],
					 m->mem[1]->mr.key};
	srq_post(m->srq, number, sge, 4);
}

static void received(struct many *m, const struct fx_cqe *c)
{
	uint32_t qp = (c->qpn_gen & FX_PSN_MASK) >> FX_WORKER_BITS;

	qp -= 1;
	assert_true(qp < QPS);
	assert_true(c->index < ENTRIES && m->busy[c->index]);
	m->busy[c->index] = false;
	m->last_status = c->status;
	m->last_qp = qp;
	if (c->status) {
		m->flushed += c->status == FX_WC_WR_FLUSH_ERR;
		return;
	}
	assert_int_equal(c->byte_len, length_of(qp, m->got[qp]));
	check_message(m->mem[1]->bytes + c->index * ROOM, qp, m->got[qp]++);
	if (m->replenishes)
		post(m, c->index);
}

static uint64_t poll(void *arg, struct host *h)
{
	struct many *m = arg;
	struct fx_cqe c;

	while (fx_cq_take(&m->cq[h->id]->rx, &c)) {
		if (h->id)
			received(m, &c);
		else
			m->acked += !c.status;
	}
	fx_cq_publish_ci(&m->cq[h->id]->rx);
	return SIM_NEVER;
}

static void send(struct many *m, uint32_t qp)
{
	uint32_t n = m->sent[qp]++;
	uint8_t *p = m->mem[0]->bytes + (qp * 64 + n % 64) * ROOM;
	struct wr w = {.op = FX_WR_SEND, .flags = FX_WRF_SIGNALED, .nsge = 1};

	write_message(p, qp, n);
	w.sge[0] = (struct fx_sge){mem_va(m->mem[0], p), length_of(qp, n), m->mem[0]->mr.key};
	qp_post(m->q[0][qp], &w);
}

static void run(struct many *m, uint64_t ns)
{
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		host_rouse(m->h[i], m->s->now);
	sim_run(m->s, m->s->now + ns, NULL, NULL);
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		poll(m, m->h[i]);
}

static void make_side(struct many *m, unsigned i, const struct many_opt *opt)
{
	const struct host_cfg cfg = {.chaos = opt->chaos,
				     .chaos_delay = 20,
				     .seed = opt->seed,
				     .turn_ns = 300,
				     .look_ns = opt->look_ns};
	struct fx_qp_cfg qc = {
		.gen = 3, .ctx = 1, .pd = 1, .type = FX_QPT_RC, .max_send_wr = 64, .max_send_sge = 1};

	m->h[i] = host_create(m->s, i, &cfg);
	m->h[i]->app = poll;
	m->h[i]->app_arg = m;
	m->cq[i] = cq_create(CQES);
	m->mem[i] = mem_create(m->h[i], QPS * 64 * ROOM, FX_ACC_LOCAL_WRITE, MEM_FLAT, &m->rng);
	if (i) {
		m->srq = srq_create(m->h[i], ENTRIES, MAX_SGE, SRQ_PD);
		m->mem[i]->mr.pd = SRQ_PD;
		qc.srq = &m->srq->core;
	}
	for (uint32_t k = 0; k < QPS; k++) {
		qc.qpn = (1 + k) << FX_WORKER_BITS;
		m->q[i][k] = qp_create(m->h[i], &qc, m->cq[i], m->cq[i], 0, 0);
	}
}

static struct many *many_create(const struct many_opt *opt)
{
	struct many *m = calloc(1, sizeof(*m));

	m->rng = rng_of(opt->seed, 1);
	m->s = sim_create(&opt->link, opt->seed);
	m->attr = (struct link_attr){.mtu = 1024,
				     .psn = {0xfffff0, 0x7ffff0},
				     .timeout = 8,
				     .retry_cnt = 7,
				     .rnr_retry = opt->rnr_retry ? opt->rnr_retry : 7,
				     .min_rnr_timer = 5,
				     .access = FX_ACC_LOCAL_WRITE};
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		make_side(m, i, opt);
	for (uint32_t k = 0; k < QPS; k++) {
		assert_int_equal(qp_connect(m->q[0][k], m->q[1][k], &m->attr), 0);
		assert_int_equal(qp_connect(m->q[1][k], m->q[0][k], &m->attr), 0);
	}
	return m;
}

static void many_destroy(struct many *m)
{
	assert_null(m->s->malformed);
	net_clear(m->s);
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		for (uint32_t k = 0; k < QPS; k++)
			assert_true(qp_destroy(m->q[i][k]));
	net_clear(m->s);
	srq_destroy(m->srq);
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		host_destroy(m->h[i]);
		cq_destroy(m->cq[i]);
		mem_destroy(m->mem[i]);
	}
	sim_destroy(m->s);
	free(m);
}

static const struct link_cfg quiet = {.latency = 5000, .ps_per_byte = 80, .zero_copy = true};

static struct many *quiet_many(uint32_t look_ns)
{
	const struct many_opt opt = {.link = quiet, .look_ns = look_ns, .seed = 1, .rnr_retry = 2};

	return many_create(&opt);
}

/* ---- random work ---- */

/* Every message arrives once, in its QP's order, whole, in a receive that is outstanding. */
static void storm(uint64_t seed)
{
	struct rng r = rng_of(seed, 5);
	const struct many_opt opt = {.link = {.latency = 3000,
					      .spread = 20000,
					      .ps_per_byte = 80,
					      .loss = (uint32_t)rng_below(&r, 30000),
					      .dup = (uint32_t)rng_below(&r, 30000),
					      .reorder = (uint32_t)rng_below(&r, 30000),
					      .zero_copy = rng_chance(&r, 500000)},
				     .chaos = rng_chance(&r, 500000),
				     .look_ns = rng_chance(&r, 500000) ? 20000 : 0,
				     .seed = seed};
	struct many *m = many_create(&opt);
	uint32_t entries = (uint32_t)rng_range(&r, 1, ENTRIES), total = 0;

	m->replenishes = true;
	for (uint32_t i = 0; i < entries; i++)
		post(m, i);
	for (int burst = 0; burst < 40; burst++) {
		for (uint32_t i = (uint32_t)rng_below(&r, 20); i--; total++)
			send(m, (uint32_t)rng_below(&r, QPS));
		run(m, rng_below(&r, 4 * MS));
	}
	for (int i = 0; i < 4000 && m->acked < total; i++)
		run(m, MS);
	assert_int_equal(m->acked, total);
	for (uint32_t k = 0; k < QPS; k++)
		assert_int_equal(m->got[k], m->sent[k]);
	many_destroy(m);
}

static void many_qps_on_a_bad_link(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++)
		storm(seed);
}

/* ---- not ready ---- */

static void not_ready_until_one_is_posted(void **state)
{
	struct many *m = quiet_many(0);

	(void)state;
	send(m, 3);
	send(m, 5);
	run(m, 20 * US);
	assert_int_equal(fx_tp_counters(m->h[1]->tp)->tx_naks, 2);
	post(m, 0); /* whoever comes first has it */
	run(m, 70 * US);
	assert_int_equal(m->got[3] + m->got[5], 1);
	post(m, 1);
	run(m, 200 * US);
	assert_int_equal(m->got[3], 1);
	assert_int_equal(m->got[5], 1);
	many_destroy(m);
}

/* Two wait for a look, which finds a single receive: one of them has it, the other hears "not ready". */
static void a_look_serves_all_who_asked(void **state)
{
	struct many *m = quiet_many(40000);

	(void)state;
	post(m, 2);
	send(m, 1);
	send(m, 6);
	run(m, 100 * US);
	assert_int_equal(m->got[1] + m->got[6], 1);
	assert_int_equal(fx_tp_counters(m->h[1]->tp)->tx_naks, 1);
	post(m, 4);
	run(m, 500 * US);
	assert_int_equal(m->got[1], 1);
	assert_int_equal(m->got[6], 1);
	many_destroy(m);
}

/* One of those who wait is gone before the look is over. */
static void a_look_passes_over_who_left(void **state)
{
	struct many *m = quiet_many(40000);

	(void)state;
	post(m, 2);
	send(m, 0);
	send(m, 1);
	send(m, 2);
	for (int i = 0; i < 100 && fx_tp_counters(m->h[1]->tp)->rx_parked < 4;
	     i++) /* the last is of two packets */
		run(m, 1 * US);
	assert_int_equal(fx_tp_counters(m->h[1]->tp)->rx_parked, 4);
	assert_int_equal(qp_state(m->q[1][0], RESET), 0);
	assert_int_equal(qp_state(m->q[1][2], RESET), 0);
	run(m, 50 * US);
	assert_int_equal(m->got[1], 1);
	assert_int_equal(m->got[0] + m->got[2], 0);
	many_destroy(m);
}

/* ---- the limit ---- */

static unsigned limits(const struct many *m)
{
	return m->h[1]->event[FX_ASYNC_SRQ_LIMIT];
}

static void arm(struct many *m, uint32_t limit)
{
	fx_rxq_arm(m->h[1]->tp, &m->srq->core, limit);
	run(m, 100 * US);
}

static void the_limit(uint32_t look_ns)
{
	struct many *m = quiet_many(look_ns);

	for (uint32_t i = 0; i < 10; i++)
		post(m, i);
	run(m, 10 * US);
	arm(m, 8);
	assert_int_equal(limits(m), 0);
	for (uint32_t i = 0; i < 2; i++)
		send(m, i);
	run(m, 300 * US);
	assert_int_equal(limits(m), 0); /* eight are left */
	send(m, 2);
	run(m, 300 * US);
	assert_int_equal(limits(m), 1);
	for (uint32_t i = 0; i < 3; i++)
		send(m, i);
	run(m, 300 * US);
	assert_int_equal(limits(m), 1); /* once */
	assert_int_equal(m->srq->core.limit, 0);
	arm(m, 5); /* four are left: at once */
	assert_int_equal(limits(m), 2);
	arm(m, 4);
	assert_int_equal(limits(m), 2);
	arm(m, 0);
	send(m, 0);
	run(m, 300 * US);
	assert_int_equal(limits(m), 2); /* not armed any more */
	many_destroy(m);
}

static void a_limit_is_told_once(void **state)
{
	(void)state;
	the_limit(0);
	the_limit(20000);
}

/* ---- errors ---- */

/*
 * A message of several packets of which only the first arrived: its receive comes back with the error, and that was the
 * last of this QP.
 */
static bool lose_second(void *arg, struct frame *f, const struct fx_bth *bth)
{
	struct many *m = arg;

	return f->src == m->h[0] && bth->opcode != FX_OP_SEND_FIRST;
}

static void what_was_begun_is_flushed(void **state)
{
	struct many *m = quiet_many(0);
	uint32_t qp = 0;

	(void)state;
	while (length_of(qp, 0) <= 1024)
		qp++;
	assert_true(qp < QPS);
	post(m, 5);
	post(m, 6);
	m->s->tap = lose_second;
	m->s->tap_arg = m;
	send(m, qp);
	run(m, 50 * US);
	assert_int_equal(qp_state(m->q[1][qp], ERR), 0);
	run(m, 50 * US);
	assert_int_equal(m->flushed, 1);
	assert_int_equal(m->last_qp, qp);
	assert_false(m->busy[5]);
	assert_true(m->busy[6]);
	assert_int_equal(m->h[1]->event[FX_ASYNC_LAST_WQE], 1);
	m->s->tap = NULL;
	send(m, !qp); /* the rest is there for the others */
	run(m, 100 * MS);
	assert_int_equal(m->got[!qp], 1);
	assert_int_equal(m->flushed, 1);
	assert_int_equal(m->h[1]->event[FX_ASYNC_LAST_WQE], 1);
	many_destroy(m);
}

/* The number is beyond the queue: nothing of the ring is believed any more, and everybody hears of it. */
static void a_number_that_cannot_be(void **state)
{
	struct many *m = quiet_many(0);
	struct fx_sge sge = {mem_va(m->mem[1], m->mem[1]->bytes), ROOM, m->mem[1]->mr.key};

	(void)state;
	srq_post(m->srq, ENTRIES, &sge, 1);
	post(m, 1);
	send(m, 0);
	run(m, 1 * MS);
	assert_int_equal(m->h[1]->event[FX_ASYNC_SRQ_ERR], 1);
	assert_int_equal(m->h[1]->trouble, FX_CAUSE_RECEIVE_ENTRY);
	send(m, 1);
	run(m, 1 * MS);
	assert_int_equal(m->got[0] + m->got[1], 0);
	assert_int_equal(m->h[1]->event[FX_ASYNC_SRQ_ERR], 1);
	assert_int_equal(m->acked, 0);
	many_destroy(m);
}

/* Where it lands belongs to the SRQ's domain, whatever the QP's is. */
static void memory_is_of_its_own_domain(void **state)
{
	struct many *m = quiet_many(0);

	(void)state;
	post(m, 0);
	post(m, 1);
	send(m, 0);
	run(m, 1 * MS);
	assert_int_equal(m->got[0], 1);
	m->mem[1]->mr.pd = 1; /* the QP's */
	send(m, 0);
	run(m, 1 * MS);
	assert_int_equal(m->got[0], 1);
	assert_int_equal(m->last_status, FX_WC_LOC_PROT_ERR);
	many_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_qps_on_a_bad_link),
		cmocka_unit_test(not_ready_until_one_is_posted),
		cmocka_unit_test(a_look_serves_all_who_asked),
		cmocka_unit_test(a_look_passes_over_who_left),
		cmocka_unit_test(a_limit_is_told_once),
		cmocka_unit_test(what_was_begun_is_flushed),
		cmocka_unit_test(a_number_that_cannot_be),
		cmocka_unit_test(memory_is_of_its_own_domain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
