/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who gets the wire, and what one application's slow memory costs the others. Host 0 is looked at: shares of what it
 * sends, by connection and by context, while everybody has more to send than there is room for.
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

enum { LINES = 256, CTXS = 4, MEM = 64 << 20, DEPTH = 512, CQES = 1 << 15, QUANTUM = 32 << 10 };
enum { FAST_LINE = 80, SLOW_LINE = 800 }; /* ps a byte: 100 and 10 Gb/s */

/* A connection, and what its ends keep asking for. */
struct line {
	struct qp *q[SIM_HOSTS];
	uint32_t ctx, mtu;
	struct {
		struct wr wr;
		uint32_t depth, under_way; /* depth 0: nothing */
		uint64_t done;
	} ask[SIM_HOSTS];
	uint64_t bytes, answers; /* that host 0 sent for it, and of these READ responses */
	uint64_t first_at;	 /* bytes of all before the first of them, once it was set to 0 */
};

struct world {
	struct sim *s;
	struct host *h[SIM_HOSTS];
	struct cq *cq[SIM_HOSTS];
	struct mem *mem[SIM_HOSTS];
	struct rng rng;
	struct line line[LINES];
	unsigned n;
	uint64_t bytes;
	/* the longest run of a context, while another had something to send */
	uint32_t run_ctx, run, longest;
};

static void ask(struct line *l, unsigned host)
{
	qp_post(l->q[host], &l->ask[host].wr);
	l->ask[host].under_way++;
}

static uint64_t app(void *arg, struct host *h)
{
	struct world *w = arg;
	unsigned i = h->id;
	struct fx_cqe c;

	while (fx_cq_take(&w->cq[i]->rx, &c)) {
		struct line *l = &w->line[(c.qpn_gen & FX_PSN_MASK) >> FX_WORKER_BITS];

		assert_int_equal(c.status, FX_WC_SUCCESS);
		l->ask[i].under_way--;
		l->ask[i].done++;
	}
	fx_cq_publish_ci(&w->cq[i]->rx);
	for (unsigned k = 0; k < w->n; k++)
		while (w->line[k].ask[i].under_way < w->line[k].ask[i].depth)
			ask(&w->line[k], i);
	return SIM_NEVER;
}

static bool tap(void *arg, struct frame *f, const struct fx_bth *bth)
{
	struct world *w = arg;
	struct line *l = &w->line[bth->dqpn >> FX_WORKER_BITS];

	if (f->src != w->h[0] || bth->opcode == FX_OP_ACKNOWLEDGE)
		return false;
	if (!l->first_at)
		l->first_at = w->bytes;
	l->bytes += f->pkt.total;
	w->bytes += f->pkt.total;
	if (fx_opcodes[bth->opcode].flags & FX_OPF_RSP)
		l->answers += f->pkt.total;
	w->run = l->ctx == w->run_ctx ? w->run + f->pkt.total : f->pkt.total;
	w->run_ctx = l->ctx;
	if (w->run > w->longest)
		w->longest = w->run;
	return false;
}

static struct world *world_create(uint32_t ps_per_byte)
{
	const struct link_cfg link = {.latency = 2000, .ps_per_byte = ps_per_byte, .zero_copy = true};
	struct world *w = calloc(1, sizeof(*w));

	w->rng = rng_of(1, 1);
	w->s = sim_create(&link, 1);
	w->s->tap = tap;
	w->s->tap_arg = w;
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		/* the window is not to be what decides: of small packets, the default holds less than a turn */
		const struct host_cfg cfg = {.seed = 1, .turn_ns = 300, .window = DEPTH};

		w->h[i] = host_create(w->s, i, &cfg);
		w->h[i]->app = app;
		w->h[i]->app_arg = w;
		w->cq[i] = cq_create(CQES);
		w->mem[i] = mem_create(w->h[i], MEM,
				       FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ,
				       MEM_FLAT, &w->rng);
	}
	return w;
}

static void world_destroy(struct world *w)
{
	w->s->tap = NULL;
	net_clear(w->s);
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		w->h[i]->app = NULL;
	for (unsigned k = 0; k < w->n; k++)
		for (unsigned i = 0; i < SIM_HOSTS; i++)
			assert_true(qp_destroy(w->line[k].q[i]));
	net_clear(w->s);
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		host_destroy(w->h[i]);
		cq_destroy(w->cq[i]);
		mem_destroy(w->mem[i]);
	}
	sim_destroy(w->s);
	free(w);
}

static struct line *connect(struct world *w, uint32_t ctx, uint32_t mtu)
{
	const struct link_attr attr = {
		.mtu = mtu,
		.psn = {1000, 2000},
		.timeout = 18,
		.retry_cnt = 7,
		.rnr_retry = 7,
		.rd_atomic = 16,
		.access = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ,
	};
	struct line *l = &w->line[w->n];

	assert_true(w->n < LINES);
	*l = (struct line){.ctx = ctx, .mtu = mtu};
	for (unsigned i = 0; i < SIM_HOSTS; i++) {
		const struct fx_qp_cfg cfg = {.qpn = w->n << FX_WORKER_BITS,
					      .ctx = ctx,
					      .pd = 1,
					      .type = FX_QPT_RC,
					      .max_send_wr = DEPTH,
					      .max_recv_wr = 1,
					      .max_send_sge = FX_PKT_SEGS,
					      .max_recv_sge = 1};

		l->q[i] = qp_create(w->h[i], &cfg, w->cq[i], w->cq[i], 0, 0);
	}
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		assert_int_equal(qp_connect(l->q[i], l->q[!i], &attr), 0);
	w->n++;
	return l;
}

/* From now on, `depth` requests of `len` bytes are always under way from this end. */
static void keep_asking(struct world *w, struct line *l, unsigned from, uint8_t op, uint32_t len,
			uint32_t depth)
{
	l->ask[from].depth = depth;
	l->ask[from].wr = (struct wr){
		.op = op,
		.flags = FX_WRF_SIGNALED,
		.nsge = 1,
		.sge = {{w->mem[from]->mr.iova, len, w->mem[from]->mr.key}},
		.remote_addr = w->mem[!from]->mr.iova,
		.rkey = w->mem[!from]->mr.key,
	};
}

static void pass(struct world *w, uint64_t ns)
{
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		host_rouse(w->h[i], w->s->now);
	sim_run(w->s, w->s->now + ns, NULL, NULL);
	assert_null(w->s->malformed);
}

/* Counts what is sent in a while, after another while in which everybody came to speed. */
static void measure(struct world *w, uint64_t ns)
{
	pass(w, ns / 5);
	w->bytes = w->longest = 0;
	for (unsigned k = 0; k < w->n; k++)
		w->line[k].bytes = w->line[k].answers = 0;
	pass(w, ns);
}

static uint64_t of_ctx(const struct world *w, uint32_t ctx)
{
	uint64_t n = 0;

	for (unsigned k = 0; k < w->n; k++)
		n += w->line[k].ctx == ctx ? w->line[k].bytes : 0;
	return n;
}

static void expect_share(uint64_t bytes, uint64_t all, unsigned parts, unsigned percent)
{
	uint64_t fair = all / parts;

	assert_in_range(bytes, fair - fair * percent / 100, fair + fair * percent / 100);
}

/* ---- shares ---- */

/* A hundred QPs get their context no more than another's one; and share alike. */
static void test_contexts(void **state)
{
	struct world *w = world_create(FAST_LINE);

	(void)state;
	for (unsigned k = 0; k < 100; k++)
		keep_asking(w, connect(w, 1, 4096), 0, FX_WR_WRITE, 65536, 16);
	keep_asking(w, connect(w, 2, 4096), 0, FX_WR_WRITE, 65536, 16);
	measure(w, 20 * MS);
	assert_true(w->bytes > 20 * MS * 1000 / FAST_LINE * 9 / 10); /* the line is full */
	expect_share(of_ctx(w, 1), w->bytes, 2, 2);
	for (unsigned k = 0; k < 100; k++)
		expect_share(w->line[k].bytes, of_ctx(w, 1), 100, 5);
	assert_true(w->longest <= QUANTUM + 4096 + 128);
	world_destroy(w);
}

/* Bytes are shared, not packets; and headers are bytes. */
static void test_packet_sizes(void **state)
{
	static const struct {
		uint32_t mtu, len;
	} rows[] = {{4096, 65536}, {1024, 65536}, {256, 65536}, {1024, 64}, {4096, 4097}};
	enum { N = sizeof(rows) / sizeof(rows[0]) };

	for (unsigned contexts = 0; contexts < 2; contexts++) {
		struct world *w = world_create(SLOW_LINE);

		(void)state;
		for (unsigned k = 0; k < N; k++)
			keep_asking(w, connect(w, contexts ? k + 1 : 1, rows[k].mtu), 0, FX_WR_WRITE,
				    rows[k].len, DEPTH);
		measure(w, 60 * MS);
		assert_true(w->bytes > 60 * MS * 1000 / SLOW_LINE * 9 / 10);
		for (unsigned k = 0; k < N; k++)
			expect_share(w->line[k].bytes, w->bytes, N, 1);
		world_destroy(w);
	}
}

/* READ responses are the responder's bytes. */
static void test_responses(void **state)
{
	struct world *w = world_create(FAST_LINE);

	(void)state;
	for (unsigned k = 0; k < 20; k++)
		keep_asking(w, connect(w, 1, 1024), 1, FX_WR_READ, 65536, 8);
	keep_asking(w, connect(w, 2, 4096), 0, FX_WR_WRITE, 65536, 16);
	measure(w, 10 * MS);
	expect_share(of_ctx(w, 1), w->bytes, 2, 3);
	for (unsigned k = 0; k < 20; k++)
		expect_share(w->line[k].bytes, of_ctx(w, 1), 20, 8);
	world_destroy(w);
}

/* A peer that reads all the time does not keep the QP from sending its own. */
static void test_answers_and_requests(void **state)
{
	struct world *w = world_create(SLOW_LINE);
	struct line *l = connect(w, 1, 1024);

	(void)state;
	keep_asking(w, l, 1, FX_WR_READ, 65536, 16);
	keep_asking(w, l, 0, FX_WR_WRITE, 65536, 16);
	measure(w, 10 * MS);
	expect_share(l->answers, w->bytes, 2, 10);
	world_destroy(w);
}

/* ---- delays ---- */

/* Bytes of others that go out after a small write was posted and before it does; the line's queue does not count. */
static uint64_t overtaken_by(struct world *w, struct line *l)
{
	uint64_t line = w->s->line_free[0], out = w->bytes;

	if (line > w->s->now)
		out += (line - w->s->now) * 1000 / w->s->link.ps_per_byte;
	l->first_at = 0;
	ask(l, 0);
	pass(w, 100 * US);
	assert_true(l->first_at > 0);
	assert_int_equal(l->ask[0].under_way, 0);
	return l->first_at > out ? l->first_at - out : 0;
}

/* A small write beside one that would take the line for long waits for a turn of each other context or QP, at most. */
static void test_small_beside_large(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct world *w = world_create(FAST_LINE);
		struct line *large = connect(w, 1, 4096), *small = connect(w, i % 2 + 1, 4096);
		uint64_t worst = 0;

		keep_asking(w, large, 0, FX_WR_WRITE, MEM, 2);
		if (i / 2)
			keep_asking(w, connect(w, 1, 1024), 0, FX_WR_WRITE, MEM, 2);
		keep_asking(w, small, 0, FX_WR_WRITE, 64, 0);
		pass(w, 200 * US);
		for (unsigned k = 0; k < 20; k++) {
			uint64_t bytes = overtaken_by(w, small);

			worst = bytes > worst ? bytes : worst;
			pass(w, k * 137);
		}
		assert_true(worst <= 2 * (QUANTUM + 4096 + 128));
		assert_int_equal(large->ask[0].done, 0);
		world_destroy(w);
	}
}

/* Who was idle for long has no more than the next turn. */
static void test_idle_saves_nothing_up(void **state)
{
	struct world *w = world_create(FAST_LINE);

	(void)state;
	keep_asking(w, connect(w, 1, 4096), 0, FX_WR_WRITE, 65536, 16);
	connect(w, 2, 4096);
	pass(w, 5 * MS);
	w->run = w->longest = 0;
	w->run_ctx = 2;
	keep_asking(w, &w->line[1], 0, FX_WR_WRITE, 65536, 16);
	pass(w, 40 * US); /* what of the first stands in the line's queue counts for it */
	w->longest = 0;
	pass(w, 1 * MS);
	assert_true(w->longest <= QUANTUM + 4096 + 128);
	world_destroy(w);
}

/* ---- slow memory ---- */

static void slow_memory(struct line *l, unsigned from, struct mem *m)
{
	struct wr *wr = &l->ask[from].wr;

	if (m->mr.ctx == from) { /* it is the source */
		wr->sge[0].addr = m->mr.iova;
		wr->sge[0].lkey = m->mr.key;
	} else {
		wr->remote_addr = m->mr.iova;
		wr->rkey = m->mr.key;
	}
}

static struct mem *slow_mem(struct world *w, unsigned host)
{
	struct mem *m =
		mem_create(w->h[host], 1 << 20, FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE, MEM_SLOW, &w->rng);

	m->mr.ctx = host; /* only for slow_memory() */
	return m;
}

/* An application whose memory stalls keeps its own QPs waiting, and then they all go on. */
static void test_stalled_landing(void **state)
{
	enum { STALLED = 20, LANE = 4 };
	struct world *w = world_create(FAST_LINE);
	struct mem *stalled = slow_mem(w, 1), *fine = slow_mem(w, 1);
	uint64_t refused, done;

	(void)state;
	stalled->lane = LANE;
	stalled->stalls = true;
	for (unsigned k = 0; k <= STALLED; k++) {
		struct line *l = connect(w, k < STALLED ? 1 : 2, 1024);

		keep_asking(w, l, 0, FX_WR_WRITE, 4096, 4);
		slow_memory(l, 0, k < STALLED ? stalled : fine);
	}
	pass(w, 1 * MS);
	assert_int_equal(stalled->under_way, LANE);
	refused = slow_engine_refused(w->h[1]->slow);
	done = w->line[STALLED].ask[0].done;
	assert_true(done > 50);
	pass(w, 1 * MS);
	assert_true(w->line[STALLED].ask[0].done > done + 50);
	/* those that wait are not asked for again and again meanwhile */
	assert_true(slow_engine_refused(w->h[1]->slow) - refused < 10);
	for (unsigned k = 0; k < STALLED; k++)
		assert_int_equal(w->line[k].ask[0].done, 0);
	stalled->stalls = false;
	pass(w, 5 * MS);
	for (unsigned k = 0; k < STALLED; k++)
		assert_true(w->line[k].ask[0].done > 4);
	world_destroy(w);
	mem_destroy(stalled);
	mem_destroy(fine);
}

/* QPs that go while they wait for the lane, and others that take their place. */
static void test_stalled_and_reset(void **state)
{
	enum { STALLED = 20, LANE = 4 };
	struct world *w = world_create(FAST_LINE);
	struct mem *stalled = slow_mem(w, 1);

	(void)state;
	stalled->lane = LANE;
	stalled->stalls = true;
	for (unsigned k = 0; k < STALLED; k++) {
		struct line *l = connect(w, 1, 1024);

		keep_asking(w, l, 0, FX_WR_WRITE, 4096, 4);
		slow_memory(l, 0, stalled);
	}
	pass(w, 1 * MS);
	for (unsigned k = 0; k < STALLED; k++) /* those that have the lane and those that wait for it alike */
		if (k % 3)
			assert_int_equal(qp_state(w->line[k].q[1], 0), 0);
	/* what has nothing under way is free at once */
	fx_qp_detach(w->h[1]->tp, w->line[STALLED - 1].q[1]->core);
	pass(w, 10 * US);
	assert_int_equal(stalled->under_way, LANE);
	assert_true(fx_qp_idle(w->line[STALLED - 1].q[1]->core));
	stalled->stalls = false;
	for (unsigned k = 0; k < STALLED; k++)
		w->line[k].ask[0].depth = 0;
	pass(w, 5 * MS);
	for (unsigned k = 0; k < STALLED; k += 3)
		assert_int_equal(w->line[k].ask[0].done, 4);
	assert_int_equal(stalled->under_way, 0);
	world_destroy(w);
	mem_destroy(stalled);
}

static unsigned cut(struct world *w, struct fx_txpkt *out, unsigned max)
{
	static uint8_t hdr[FX_TX_ROOM];

	for (unsigned i = 0; i < max; i++)
		out[i].hdr = hdr; /* nobody looks */
	return fx_tp_tx(w->h[0]->tp, out, max);
}

/* Packets that are being gathered take buffers: a context has its part of them, and the others go on. */
static void test_stalled_source(void **state)
{
	enum { QPS = 60, GATHERING = 32, PACKETS = 128 };
	static struct fx_txpkt out[PACKETS + 4];
	struct world *w = world_create(FAST_LINE);
	struct mem *m = slow_mem(w, 0);
	struct fx_tp *tp = w->h[0]->tp;
	struct line *other;
	unsigned staged;

	(void)state;
	for (unsigned k = 0; k < QPS; k++) {
		struct line *l = connect(w, 1, 1024);

		keep_asking(w, l, 0, FX_WR_WRITE, 4096, 1);
		slow_memory(l, 0, m);
		ask(l, 0);
	}
	staged = cut(w, out, PACKETS);
	assert_int_equal(staged, GATHERING);
	assert_false(fx_tp_tx_ready(tp)); /* the worker may sleep */
	other = connect(w, 2, 1024);
	keep_asking(w, other, 0, FX_WR_WRITE, 1000, 1);
	ask(other, 0);
	assert_true(fx_tp_tx_ready(tp));
	assert_int_equal(cut(w, out + staged, 4), 1);
	assert_false(out[staged].stage);
	fx_tp_seg_done(tp, out[staged].wqe, NULL);
	/* one gone, one more; until each has sent its four packets */
	for (unsigned done = 0; done < staged; done++) {
		assert_true(out[done].stage);
		if (!done)
			fx_qp_detach(tp, out[done].qp); /* one that is gone makes room as well */
		fx_tp_staged(tp, out[done].qp, out[done].wqe, NULL, 0, 0);
		if (staged < PACKETS) {
			staged += cut(w, out + staged, PACKETS - staged);
			assert_int_equal(staged - done - 1, GATHERING);
		}
	}
	assert_int_equal(staged, PACKETS);
	for (unsigned k = 0; k < w->n; k++)
		w->line[k].ask[0].depth = 0;
	world_destroy(w);
	mem_destroy(m);
}

/* A small write from slow memory, and many behind it that are in several pieces. */
static void ask_mixed(struct world *w, struct line *l, struct mem *slow, unsigned frames)
{
	struct wr *wr = &l->ask[0].wr;

	keep_asking(w, l, 0, FX_WR_WRITE, 64, 0);
	slow_memory(l, 0, slow);
	ask(l, 0);
	keep_asking(w, l, 0, FX_WR_WRITE, 64, 0);
	for (wr->nsge = 1; wr->nsge < FX_PKT_SEGS; wr->nsge++)
		wr->sge[wr->nsge] = wr->sge[0];
	for (unsigned i = 0; i < frames; i++)
		ask(l, 0);
}

/* As if they had been gathered, and had left. */
static void let_go(struct world *w, const struct fx_txpkt *out, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (out[i].stage)
			fx_tp_staged(w->h[0]->tp, out[i].qp, out[i].wqe, out[i].mw, 0, 0);
		for (unsigned s = 0; !out[i].stage && s < out[i].nseg; s++)
			fx_tp_seg_done(w->h[0]->tp, out[i].wqe, out[i].mw);
	}
}

/* What follows it waits with it, and takes buffers too: it has an end for each context, and for all of them. */
static void test_stalled_followers(void **state)
{
	enum { FRAMES = 12, QPS = 20, STALLED = 4, FOLLOWING = 2048, OUT = 1024 };
	static struct fx_txpkt out[OUT];

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		struct world *w = world_create(FAST_LINE);
		struct mem *slow = slow_mem(w, 0);
		unsigned n = 0, first = 0, pieces = 0, sent = 0;
		struct line *other;

		for (unsigned again = 0; again <= round; again++, sent = n, n = pieces = 0) {
			let_go(w, out, sent);
			while ((sent = cut(w, out, 64)))
				let_go(w, out, sent);
			for (unsigned k = 0; k < STALLED * QPS; k++) {
				ask_mixed(w, w->n <= k ? connect(w, 1 + k / QPS, 1024) : &w->line[k], slow,
					  FRAMES);
				if (k % QPS < QPS - 1)
					continue;
				n += cut(w, out + n, OUT - n);
				assert_false(fx_tp_tx_ready(w->h[0]->tp));
				first = k < QPS ? n : first;
			}
			for (unsigned i = 0; i < n; i++)
				pieces += out[i].stage ? 0 : 1u + out[i].nseg;
			assert_true(first > 100); /* half for the first of them */
			assert_in_range(pieces, FOLLOWING * 3 / 4, FOLLOWING + STALLED * (1 + FX_PKT_SEGS));
		}
		other = connect(w, STALLED + 1, 1024);
		keep_asking(w, other, 0, FX_WR_WRITE, 1000, 0);
		ask(other, 0);
		assert_int_equal(cut(w, out + sent, 4), 1);
		let_go(w, out, sent + 1);
		while ((n = cut(w, out, 64)))
			let_go(w, out, n);
		for (unsigned k = 0; k < w->n; k++) { /* all of it went out */
			struct fx_qp_info info;

			fx_qp_snapshot(w->line[k].q[0]->core, &info);
			assert_int_equal(info.tx_packets, k < STALLED * QPS ? (1 + round) * (1 + FRAMES) : 1);
		}
		world_destroy(w);
		mem_destroy(slow);
	}
}

/* However many applications stall, they leave buffers; and each may have a little, so that nobody is forgotten. */
static void test_many_stalled_sources(void **state)
{
	enum { STALLED = 120, GATHERING_ALL = 256 };
	static struct fx_txpkt out[1024];
	struct world *w = world_create(FAST_LINE);
	struct mem *slow = slow_mem(w, 0);
	unsigned n = 0, before;

	(void)state;
	for (unsigned k = 0; k < STALLED; k++) {
		struct line *l = connect(w, k + 1, 1024);

		keep_asking(w, l, 0, FX_WR_WRITE, 1 << 16, 0);
		slow_memory(l, 0, slow);
		ask(l, 0);
		before = n;
		n += cut(w, out + n, 1024 - n);
		assert_true(n > before);
		assert_false(fx_tp_tx_ready(w->h[0]->tp));
	}
	assert_in_range(n, GATHERING_ALL - 8, GATHERING_ALL + STALLED);
	for (unsigned i = 0; i < n; i++)
		fx_tp_staged(w->h[0]->tp, out[i].qp, out[i].wqe, out[i].mw, 0, 0);
	assert_true(fx_tp_tx_ready(w->h[0]->tp));
	world_destroy(w);
	mem_destroy(slow);
}

/* Frames of one piece that may wait in all; and those that are not waiting but somewhere */
enum { ROOM = 6144 / 6, SPARE = 2 * SIM_BURST + 32 };

/* Nothing is lost in the end. */
static void answers_again(struct world *w, struct mem *stalled)
{
	stalled->stalls = false;
	for (unsigned k = 0; k < w->n; k++)
		w->line[k].ask[0].depth = 0;
	pass(w, 6000 * MS);
	for (unsigned k = 0; k < w->n; k++)
		assert_int_equal(w->line[k].ask[0].under_way, 0);
	world_destroy(w);
	mem_destroy(stalled);
}

/* What waits for memory that stalls keeps buffers: the first has the most, but there are always some left. */
static void test_stalled_room(void **state)
{
	enum { CONTEXTS = 4, QPS = 30, LANE = 4 };
	struct world *w = world_create(FAST_LINE);
	struct mem *stalled = slow_mem(w, 1);
	unsigned in_all = 0, now;
	struct line *fine, *late;
	uint64_t done;

	(void)state;
	stalled->lane = LANE;
	stalled->stalls = true;
	for (unsigned c = 0; c < CONTEXTS; c++) {
		for (unsigned k = 0; k < QPS; k++) {
			struct line *l = connect(w, c + 1, 1024);

			keep_asking(w, l, 0, FX_WR_WRITE, 1 << 16, 4);
			slow_memory(l, 0, stalled);
		}
		pass(w, 5 * MS);
		now = w->s->out;
		assert_true(now > in_all);
		if (!c)
			assert_in_range(now, ROOM / 2, ROOM / 2 + SPARE);
		in_all = now;
	}
	assert_in_range(in_all, ROOM * 7 / 8, ROOM + SPARE);
	assert_true(fx_tp_counters(w->h[1]->tp)->rx_backlog > 0);
	/* mapped memory, also of one of them, is as fast as ever; a little of what waits is everybody's */
	fine = connect(w, 1, 4096);
	late = connect(w, CONTEXTS + 1, 4096);
	keep_asking(w, fine, 0, FX_WR_WRITE, 1 << 16, 4);
	keep_asking(w, late, 0, FX_WR_WRITE, 1 << 16, 4);
	pass(w, 1 * MS);
	done = fine->ask[0].done + late->ask[0].done;
	assert_true(done > 1 * MS * 1000 / FAST_LINE / (1 << 16) / 2);
	answers_again(w, stalled);
}

/* A QP of which nothing waits yet has a little more room, so that it is not kept out for good; but that ends too. */
static void test_stalled_newcomers(void **state)
{
	enum { OLD = 10, NEW = 200 };
	struct world *w = world_create(FAST_LINE);
	struct mem *stalled = slow_mem(w, 1);
	struct line *mapped;
	unsigned before = 0;

	(void)state;
	stalled->lane = 4;
	stalled->stalls = true;
	for (unsigned k = 0; k < OLD + NEW; k++) {
		struct line *l = connect(w, 1, 1024);

		keep_asking(w, l, 0, FX_WR_WRITE, k < OLD ? 1 << 16 : 64, k < OLD ? 4 : 1);
		slow_memory(l, 0, stalled);
		if (k != OLD - 1)
			continue;
		pass(w, 5 * MS);
		before = w->s->out;
		assert_in_range(before, ROOM / 2, ROOM / 2 + SPARE);
	}
	pass(w, 5 * MS);
	assert_in_range(w->s->out - before, ROOM / 8 - 16, ROOM / 8 + 16);
	mapped = connect(w, 1, 1024);
	keep_asking(w, mapped, 0, FX_WR_WRITE, 4096, 4);
	pass(w, 1 * MS);
	assert_true(mapped->ask[0].done > 100);
	answers_again(w, stalled);
}

/* A grace period waits for what its own context has begun, and for nothing of another's. */
static void test_stalled_grace(void **state)
{
	struct world *w = world_create(FAST_LINE);
	struct mem *stalled = slow_mem(w, 1), *fine = slow_mem(w, 1);
	struct fx_under_way *one = &w->h[1]->under_way[1], *two = &w->h[1]->under_way[2];

	(void)state;
	stalled->stalls = true;
	for (unsigned k = 0; k < 8; k++) {
		struct line *l = connect(w, 1 + k % 2, 1024);

		keep_asking(w, l, 0, FX_WR_WRITE, 4096, 4);
		if (k < 4)
			slow_memory(l, 0, k % 2 ? fine : stalled);
		for (struct wr *wr = &l->ask[0].wr; wr->nsge < 4; wr->nsge++) { /* several copies a packet */
			wr->sge[0].length = 1000;
			wr->sge[wr->nsge] = wr->sge[0];
		}
	}
	pass(w, 1 * MS);
	assert_int_equal(w->line[0].ask[0].done, 0);
	assert_true(w->line[1].ask[0].done > 50);
	for (unsigned i = 0; i < 10000 && !two->n[0]; i++)
		pass(w, 20); /* now and then it has something under way too */
	fx_grace_begin(one);
	fx_grace_begin(two);
	assert_false(fx_grace_over(two));
	pass(w, 20 * US);
	assert_true(fx_grace_over(two));
	assert_false(fx_grace_over(one));
	fx_grace_begin(two); /* and again */
	pass(w, 20 * US);
	assert_true(fx_grace_over(two));
	pass(w, 5 * MS);
	assert_false(fx_grace_over(one));
	stalled->stalls = false;
	pass(w, 20 * US);
	assert_true(fx_grace_over(one));
	for (unsigned k = 0; k < w->n; k++)
		w->line[k].ask[0].depth = 0;
	pass(w, 5 * MS);
	assert_int_equal(one->n[0] + one->n[1] + two->n[0] + two->n[1], 0);
	world_destroy(w);
	mem_destroy(stalled);
	mem_destroy(fine);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_contexts),
		cmocka_unit_test(test_packet_sizes),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_answers_and_requests),
		cmocka_unit_test(test_small_beside_large),
		cmocka_unit_test(test_idle_saves_nothing_up),
		cmocka_unit_test(test_stalled_landing),
		cmocka_unit_test(test_stalled_and_reset),
		cmocka_unit_test(test_stalled_source),
		cmocka_unit_test(test_stalled_followers),
		cmocka_unit_test(test_many_stalled_sources),
		cmocka_unit_test(test_stalled_room),
		cmocka_unit_test(test_stalled_newcomers),
		cmocka_unit_test(test_stalled_grace),
	};

	return cmocka_run_group_tests_name("sim_sched", tests, NULL, NULL);
}
