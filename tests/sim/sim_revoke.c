/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory windows and the send queue: binds and invalidations in their order, each once; every invalidation that is
 * refused, by a request or by a SEND; and that none completes before what was let through is over.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include "lend.h"

/* ---- in the send queue ---- */

static void test_local_inv(void **state)
{
	struct pair *p = start(NULL);
	struct win w;

	(void)state;
	win_alloc(p, &w, FX_MW_TYPE_2, 3);
	bind_now(p, &w, ALL);
	use(p, &w);
	post_inv(p, w.rkey);
	pair_run(p, 100 * US);
	pair_expect(p, 1, FX_WC_LOCAL_INV, 1, FX_WC_SUCCESS);
	assert_int_equal(p->mem[1]->mr.windows, 0);
	bind_now(p, &w, ALL); /* and again, under another key */
	post_inv(p, w.rkey);
	pair_run(p, 100 * US);
	pair_expect(p, 1, FX_WC_LOCAL_INV, 3, FX_WC_SUCCESS);
	assert_int_equal(pair_sent(p, 1, FX_OP_SEND_ONLY), 0);
	assert_int_equal(pair_counters(p, 1)->mw_invalidates, 2);
	post_through(p, &w, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 5 * MS);
	expect_refused(p, FX_WC_RDMA_WRITE, 3);
	pair_destroy(p);
}

enum bad_inv { I_UNBOUND, I_TAG, I_TYPE_1, I_REGION, I_NOTHING, I_OTHER_PD, I_OTHER_QP, BAD_INVS };

/* A key that gives the QP nothing to invalidate. */
static uint32_t bad_key(struct pair *p, enum bad_inv bad, struct win *w, struct qp *other)
{
	win_alloc(p, w, bad == I_TYPE_1 ? FX_MW_TYPE_1 : FX_MW_TYPE_2, 3);
	if (bad == I_OTHER_QP) {
		struct fx_bind_slot b = bind_of(p, w, ALL);

		qp_post_bind(other, &b);
		w->rkey = b.rkey;
		pair_run(p, 100 * US);
		assert_int_equal(w->mw.length, LEN);
		p->n[1] = 0;
	} else if (bad != I_UNBOUND) {
		bind_now(p, w, ALL);
	}
	if (bad == I_OTHER_PD)
		w->mw.pd = 2;
	return bad == I_TAG	  ? w->rkey + 1
	       : bad == I_REGION  ? p->mem[1]->mr.key
	       : bad == I_NOTHING ? 0xfffff000
				  : w->rkey;
}

static void test_bad_invs(void **state)
{
	(void)state;
	for (unsigned i = 0; i < BAD_INVS; i++) {
		struct pair *p = start(NULL);
		uint32_t key, index;
		struct qp *q[2];
		struct win w;

		second(p, q);
		key = bad_key(p, i, &w, q[1]);
		index = p->q[1]->sq_index;
		post_inv(p, key);
		pair_run(p, 5 * MS);
		pair_expect(p, 1, FX_WC_LOCAL_INV, index, FX_WC_MW_BIND_ERR);
		assert_int_equal(pair_state(p, 1), ERR);
		assert_int_equal(w.mw.length, i == I_UNBOUND ? 0 : LEN);
		second_end(q);
		pair_destroy(p);
	}
}

static enum pair_fate drop_some(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	(void)from;
	(void)bth;
	return p->count++ % 7 == 1 ? DROP : PASS;
}

/* Between requests that are lost and sent again: in order, and once. */
static void test_in_order(void **state)
{
	struct pair *p = start(NULL);
	struct win w;

	(void)state;
	p->fate = drop_some;
	win_alloc(p, &w, FX_MW_TYPE_2, 3);
	for (unsigned i = 0; i < 4; i++) {
		pair_post(p, 1, i % 2 ? FX_WR_READ : FX_WR_WRITE, 0, 3000, 0);
		post_bind(p, &w, ALL);
		pair_post(p, 1, FX_WR_WRITE, 0, 3000, 0);
		post_inv(p, w.rkey);
	}
	pair_run(p, 200 * MS);
	for (unsigned i = 0; i < 16; i += 4) {
		pair_expect(p, 1, i % 8 ? FX_WC_RDMA_READ : FX_WC_RDMA_WRITE, i, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_BIND_MW, i + 1, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RDMA_WRITE, i + 2, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_LOCAL_INV, i + 3, FX_WC_SUCCESS);
	}
	assert_int_equal(pair_counters(p, 1)->mw_binds, 4);
	assert_int_equal(pair_counters(p, 1)->mw_invalidates, 4);
	assert_int_equal(pair_state(p, 1), RTS);
	pair_destroy(p);
}

/* Whoever fails behind one that has happened fails itself: by a NAK, by silence, with a READ before. */
static void test_blame(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct pair *p = start(NULL);
		struct win w;
		struct wr r;

		win_alloc(p, &w, FX_MW_TYPE_1, 3);
		pair_post(p, 1, i == 2 ? FX_WR_READ : FX_WR_WRITE, 0, 100, 0);
		post_bind(p, &w, ALL);
		post_bind(p, &w, ALL);
		if (i)
			pair_run(p, 100 * US);
		p->cut[0] = i != 0;
		r = pair_wr(p, 1, FX_WR_WRITE, 0, 100, 0);
		r.rkey ^= i == 0;
		qp_post(p->q[1], &r);
		pair_run(p, 50 * MS);
		pair_expect(p, 1, i == 2 ? FX_WC_RDMA_READ : FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_BIND_MW, 1, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_BIND_MW, 2, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RDMA_WRITE, 3, i ? FX_WC_RETRY_EXC_ERR : FX_WC_REM_ACCESS_ERR);
		pair_destroy(p);
	}
}

/* An invalidation waits for all that was posted before it; a bind for READs, if told to; neither begins in SQD. */
static void test_waits(void **state)
{
	struct pair *p = start(NULL);
	struct fx_qp_attr sqd = {.qp_state = SQD};
	struct fx_bind_slot b;
	struct win w;

	(void)state;
	win_alloc(p, &w, FX_MW_TYPE_2, 3);
	p->cut[0] = true;
	pair_post(p, 1, FX_WR_READ, 0, 100, 0);
	b = bind_of(p, &w, ALL);
	b.flags |= FX_WRF_FENCE;
	w.rkey = b.rkey;
	qp_post_bind(p->q[1], &b);
	pair_run(p, 500 * US);
	assert_int_equal(w.mw.length, 0);
	p->cut[0] = false;
	pair_run(p, 3 * MS);
	assert_int_equal(w.mw.length, LEN);
	p->cut[0] = true;
	pair_post(p, 1, FX_WR_WRITE, 0, 100, 0);
	post_inv(p, w.rkey);
	pair_run(p, 500 * US);
	assert_int_equal(w.mw.length, LEN);
	p->cut[0] = false;
	pair_run(p, 3 * MS);
	assert_int_equal(w.mw.length, 0);
	p->n[1] = 0;
	assert_int_equal(fx_qp_modify(p->h[1]->tp, p->q[1]->core, &sqd, M_STATE, NULL, 0, 0), 0);
	post_bind(p, &w, ALL);
	pair_run(p, 500 * US);
	assert_int_equal(w.mw.length, 0);
	assert_int_equal(qp_state(p->q[1], RTS), 0);
	pair_run(p, 500 * US);
	pair_expect(p, 1, FX_WC_BIND_MW, 4, FX_WC_SUCCESS);
	pair_destroy(p);
}

/* A queue full of what sends nothing does not keep the worker from its other work. */
static void test_share(void **state)
{
	enum { BINDS = 2000 };
	const struct pair_opt opt = {.max_send = BINDS};
	struct pair *p = start(&opt);
	struct fx_txpkt out = {.hdr = (uint8_t[FX_TX_ROOM]){0}};
	struct win w;

	(void)state;
	win_alloc(p, &w, FX_MW_TYPE_1, 3);
	for (unsigned i = 0; i < BINDS; i++) {
		struct fx_bind_slot b = bind_of(p, &w, ALL);

		b.flags = i == BINDS - 1 ? FX_WRF_SIGNALED : 0;
		w.rkey = b.rkey;
		qp_post_bind(p->q[1], &b);
	}
	assert_int_equal(fx_tp_tx(p->h[1]->tp, &out, 1), 0);
	assert_in_range(pair_counters(p, 1)->mw_binds, 1, 100);
	assert_true(fx_tp_tx_ready(p->h[1]->tp));
	pair_run(p, 5 * MS);
	pair_expect(p, 1, FX_WC_BIND_MW, BINDS - 1, FX_WC_SUCCESS);
	assert_int_equal(pair_counters(p, 1)->mw_binds, BINDS);
	pair_destroy(p);
}

/* ---- what is under way ---- */

static void until_cqe(struct pair *p, unsigned at)
{
	for (unsigned i = 0; i < 200000 && !p->n[at]; i++)
		pair_run(p, 50);
	assert_true(p->n[at] > 0);
}

/*
 * Copies that were let in are in memory when the window's end is told (guarantee O1): by an invalidation, or by binding
 * type 1 anew. What is let in and not yet on its way comes to nothing.
 */
static void test_copies_end(void **state)
{
	static uint8_t then[PAIR_MEM];

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		const struct pair_opt opt = {.chaos = true, .kind = i & 1 ? MEM_SLOW : MEM_FLAT};
		struct pair *p = start(&opt);
		uint32_t type = i & 2 ? FX_MW_TYPE_1 : FX_MW_TYPE_2;
		struct win w;

		win_alloc(p, &w, type, 3);
		bind_now(p, &w, ALL);
		pair_fill(p, 0, 0, 60000, 9);
		post_through(p, &w, FX_WR_WRITE, 0, 60000, 0);
		for (unsigned k = 0; k < 10000 && !w.mw.held; k++)
			pair_run(p, 50);
		if (i & 4)
			pair_run(p, 3000);
		if (type == FX_MW_TYPE_2)
			post_inv(p, w.rkey);
		else
			post_bind(p, &w, ALL);
		until_cqe(p, 1);
		pair_expect(p, 1, type == FX_MW_TYPE_2 ? FX_WC_LOCAL_INV : FX_WC_BIND_MW, 1, FX_WC_SUCCESS);
		memcpy(then, p->mem[1]->bytes, PAIR_MEM);
		pair_run(p, 20 * MS);
		assert_memory_equal(then, p->mem[1]->bytes, PAIR_MEM);
		expect_refused(p, FX_WC_RDMA_WRITE, 0);
		pair_check_blank(p, 1, OFF + 60000, LEN - 60000);
		assert_int_equal(w.mw.held, 0);
		pair_destroy(p);
	}
}

/* So have packets that carry its bytes left. */
static void test_packets_end(void **state)
{
	struct pair *p = start(NULL);
	struct win w;

	(void)state;
	win_alloc(p, &w, FX_MW_TYPE_2, 3);
	bind_now(p, &w, ALL);
	post_through(p, &w, FX_WR_READ, 0, 60000, 0);
	for (unsigned i = 0; i < 10000 && !net_refers(p->s, p->mem[1]->bytes + OFF, LEN); i++)
		pair_run(p, 50);
	post_inv(p, w.rkey);
	pair_run(p, 300);
	assert_int_equal(w.mw.length, 0);
	assert_int_equal(p->n[1], 0);
	until_cqe(p, 1);
	pair_expect(p, 1, FX_WC_LOCAL_INV, 1, FX_WC_SUCCESS);
	assert_false(net_refers(p->s, p->mem[1]->bytes + OFF, LEN));
	pair_run(p, 5 * MS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 0, FX_WC_SUCCESS); /* all of it had been let out */
	pair_destroy(p);
}

/* ---- SEND with invalidate ---- */

static void test_send_inv(void **state)
{
	static const uint32_t lens[] = {0, 1, 1000, 3000};

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		const struct pair_opt opt = {.chaos = i & 1};
		struct pair *p = start(&opt);
		uint32_t len = lens[i / 2];
		struct win w;

		win_alloc(p, &w, FX_MW_TYPE_2, 3);
		bind_now(p, &w, ALL);
		pair_recv(p, 1, 500000, 4096);
		pair_fill(p, 0, 0, 3000, 1);
		post_through(p, &w, FX_WR_READ, 100000, 2500, 0);
		post_send_inv(p, w.rkey, 0, len);
		pair_run(p, 5 * MS);
		pair_expect(p, 0, FX_WC_RDMA_READ, 0, FX_WC_SUCCESS);
		pair_expect(p, 0, FX_WC_SEND, 1, FX_WC_SUCCESS);
		assert_int_equal(p->cqe[1][0].flags, FX_WCF_INV);
		assert_int_equal(p->cqe[1][0].imm, w.rkey);
		assert_int_equal(p->cqe[1][0].byte_len, len);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
		pair_check(p, 1, 500000, len, 1);
		assert_int_equal(w.mw.length, 0);
		assert_int_equal(p->mem[1]->mr.windows, 0);
		assert_int_equal(pair_sent(p, 0, len > 1024 ? FX_OP_SEND_LAST_INV : FX_OP_SEND_ONLY_INV), 1);
		bind_now(p, &w, ALL); /* free again */
		pair_destroy(p);
	}
}

/* Refused when its turn comes: what was asked before it is done, and its receive is over. */
static void test_bad_send_invs(void **state)
{
	(void)state;
	for (unsigned i = 0; i < BAD_INVS; i++) {
		struct pair *p = start(NULL);
		struct qp *q[2];
		uint32_t key;
		struct win w;

		second(p, q);
		key = bad_key(p, i, &w, q[1]);
		pair_recv(p, 1, 500000, 4096);
		pair_recv(p, 1, 500000, 4096);
		pair_fill(p, 0, 0, 3000, 1);
		pair_post(p, 0, FX_WR_WRITE, 0, 3000, 200000);
		post_send_inv(p, key, 0, 100);
		pair_post(p, 0, FX_WR_WRITE, 0, 3000, 300000);
		pair_run(p, 5 * MS);
		pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
		expect_refused(p, FX_WC_SEND, 1);
		pair_expect(p, 0, FX_WC_RDMA_WRITE, 2, FX_WC_WR_FLUSH_ERR);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_REM_INV_REQ_ERR);
		pair_expect(p, 1, FX_WC_RECV, 1, FX_WC_WR_FLUSH_ERR);
		pair_check(p, 1, 200000, 3000, 1);
		pair_check_blank(p, 1, 300000, 3000);
		assert_int_equal(w.mw.length, i == I_UNBOUND ? 0 : LEN);
		second_end(q);
		pair_destroy(p);
	}
}

/* A WRITE on its heels was let in while the key was good, and is refused all the same; a READ too. */
static void test_behind_send_inv(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		const struct pair_opt opt = {.chaos = i & 1, .kind = i & 2 ? MEM_SLOW : MEM_FLAT};
		uint8_t op = i & 4 ? FX_WR_READ : FX_WR_WRITE;
		struct pair *p = start(&opt);
		struct win w;

		win_alloc(p, &w, FX_MW_TYPE_2, 3);
		bind_now(p, &w, ALL);
		pair_recv(p, 1, 500000, 4096);
		pair_fill(p, 0, 0, 6000, 1);
		post_through(p, &w, FX_WR_WRITE, 0, 3000, 0);
		post_send_inv(p, w.rkey, 0, 100);
		post_through(p, &w, op, 3000, 3000, 3000);
		pair_run(p, 5 * MS);
		pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
		pair_expect(p, 0, FX_WC_SEND, 1, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
		expect_refused(p, op == FX_WR_READ ? FX_WC_RDMA_READ : FX_WC_RDMA_WRITE, 2);
		pair_check(p, 1, OFF, 3000, 1);
		pair_check_blank(p, 1, OFF + 3000, LEN - 3000);
		pair_destroy(p);
	}
}

static enum pair_fate drop_first_ack(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	return from == 1 && bth->opcode == FX_OP_ACKNOWLEDGE && p->count++ == 0 ? DROP : PASS;
}

/* Repeated after the window was bound again: acknowledged, and not carried out a second time. */
static void test_send_inv_again(void **state)
{
	struct pair *p = start(NULL);
	struct win w;

	(void)state;
	win_alloc(p, &w, FX_MW_TYPE_2, 3);
	bind_now(p, &w, ALL);
	pair_recv(p, 1, 500000, 4096);
	pair_recv(p, 1, 500000, 4096);
	p->fate = drop_first_ack;
	post_send_inv(p, w.rkey, 0, 100);
	pair_run(p, 100 * US);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	w.rkey--; /* so that it gets the same key again */
	bind_now(p, &w, ALL);
	pair_run(p, 10 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
	assert_int_equal(pair_counters(p, 1)->rx_duplicates, 1);
	assert_int_equal(pair_counters(p, 1)->rx_invalidates, 1);
	assert_int_equal(w.mw.length, LEN);
	pair_expect_none(p, 1);
	pair_destroy(p);
}

/*
 * A protocol as storage has it, over a bad link: lend a window, WRITE into it, hand it back with the SEND. Every time
 * the data is there when the receive tells that the key is gone.
 */
static void test_storm(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 40; seed++) {
		const struct pair_opt opt = {.mtu = 1024,
					     .max_send = 64,
					     .max_recv = 64,
					     .max_sge = 4,
					     .timeout = 8,
					     .retry_cnt = 7,
					     .rnr_retry = 7,
					     .rd_atomic = 4,
					     .access = ALL,
					     .cqes = 512,
					     .chaos = seed % 2,
					     .kind = seed % 4 < 2 ? MEM_FLAT : MEM_SOME_SLOW};
		struct pair *p = start(&opt);
		struct win w;

		p->s->link.loss = 20000;
		p->s->link.dup = p->s->link.reorder = 50000;
		p->s->link.spread = 20000;
		p->s->rng[0] = rng_of(seed, 1);
		p->s->rng[1] = rng_of(seed, 2);
		win_alloc(p, &w, FX_MW_TYPE_2, 3);
		for (unsigned k = 0; k < 20; k++) {
			uint32_t len = 1 + (uint32_t)rng_below(&p->rng, 9000);

			post_bind(p, &w, ALL);
			pair_recv(p, 1, 500000, 4096);
			until_cqe(p, 1);
			pair_expect(p, 1, FX_WC_BIND_MW, k, FX_WC_SUCCESS);
			pair_fill(p, 0, 0, len, (uint8_t)k);
			post_through(p, &w, FX_WR_WRITE, 0, len, k);
			post_send_inv(p, w.rkey, 0, len % 3000);
			until_cqe(p, 1);
			assert_int_equal(p->cqe[1][0].imm, w.rkey);
			pair_expect(p, 1, FX_WC_RECV, k, FX_WC_SUCCESS);
			pair_check(p, 1, OFF + k, len, (uint8_t)k);
			assert_int_equal(w.mw.length, 0);
		}
		pair_run(p, 100 * MS);
		assert_int_equal(pair_counters(p, 1)->rx_invalidates, 20);
		assert_int_equal(p->n[0], 40);
		for (unsigned k = 0; k < 40; k++)
			assert_int_equal(p->cqe[0][k].status, FX_WC_SUCCESS);
		assert_int_equal(pair_state(p, 1), RTS);
		pair_destroy(p);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_local_inv),	cmocka_unit_test(test_bad_invs),
		cmocka_unit_test(test_in_order),	cmocka_unit_test(test_blame),
		cmocka_unit_test(test_waits),		cmocka_unit_test(test_share),
		cmocka_unit_test(test_copies_end),	cmocka_unit_test(test_packets_end),
		cmocka_unit_test(test_send_inv),	cmocka_unit_test(test_bad_send_invs),
		cmocka_unit_test(test_behind_send_inv), cmocka_unit_test(test_send_inv_again),
		cmocka_unit_test(test_storm),
	};

	return cmocka_run_group_tests_name("sim_revoke", tests, NULL, NULL);
}
