/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * QPs through their states under traffic: error and what it flushes, reset and what it forgets, the drain of a send
 * queue; and what the attributes mean at the ends of their ranges.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { RESET = 0, RTS = 3, SQD = 4, ERR = 6 };
enum {
	M_STATE = 1 << 0,
	M_SQD_NOTIFY = 1 << 2,
	M_ACCESS = 1 << 3,
	M_TIMEOUT = 1 << 9,
	M_RD_ATOMIC = 1 << 13
};

static void test_flush(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	p->cut[0] = true;
	pair_recv(p, 0, 0, 10);
	for (unsigned i = 0; i < 5; i++)
		pair_post(p, 0, i % 2 ? FX_WR_READ : FX_WR_SEND, 0, 5000, 0);
	pair_run(p, 100 * US);
	assert_int_equal(qp_state(p->q[0], ERR), 0);
	pair_run(p, 1 * MS);
	for (unsigned i = 0; i < 5; i++)
		pair_expect(p, 0, i % 2 ? FX_WC_RDMA_READ : FX_WC_SEND, i, FX_WC_WR_FLUSH_ERR);
	pair_expect(p, 0, FX_WC_RECV, 0, FX_WC_WR_FLUSH_ERR);
	pair_expect_none(p, 0);
	/* posting goes on, and flushes (guarantee P8) */
	pair_recv(p, 0, 0, 10);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_RECV, 1, FX_WC_WR_FLUSH_ERR);
	pair_post(p, 0, FX_WR_WRITE, 0, 10, 0);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 5, FX_WC_WR_FLUSH_ERR);
	pair_expect_none(p, 0);
	pair_destroy(p);
}

/* A message half received when its QP fails flushes its receive too, in order. */
static void test_flush_half_received(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	pair_recv(p, 1, 0, 300000);
	pair_recv(p, 1, 400000, 300000);
	pair_post(p, 0, FX_WR_SEND, 0, 300000, 0);
	pair_run(p, 20 * US);
	assert_true(pair_info(p, 1).placed_psn != pair_info(p, 1).rq_psn || pair_info(p, 1).rx_packets > 0);
	assert_int_equal(qp_state(p->q[1], ERR), 0);
	pair_run(p, 2 * MS);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_WR_FLUSH_ERR);
	pair_expect(p, 1, FX_WC_RECV, 1, FX_WC_WR_FLUSH_ERR);
	pair_expect_none(p, 1);
	pair_run(p, 50 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_RETRY_EXC_ERR);
	pair_destroy(p);
}

/* Reset in mid-traffic and connect anew: nothing of the first life reaches the second. */
static void test_reset_and_reuse(void **state)
{
	struct pair *p = pair_create(NULL);
	uint32_t gen = p->q[0]->gen;

	(void)state;
	for (unsigned life = 0; life < 5; life++) {
		pair_fill(p, 0, 0, 60000, (uint8_t)life);
		pair_recv(p, 1, 200000, 60000);
		pair_post(p, 0, FX_WR_SEND, 0, 60000, 0);
		pair_post(p, 0, FX_WR_READ, 400000, 60000, 500000);
		pair_run(p, 3 * US + life * 4 * US);
		p->n[0] = p->n[1] = 0;
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(qp_state(p->q[i], RESET), 0);
		assert_int_equal((uint8_t)p->q[0]->gen, (uint8_t)(gen + life + 1));
		p->attr.psn[0] = 0x100000 * (life + 1);
		p->attr.psn[1] = 0x4321 * (life + 1);
		pair_connect(p);
		pair_run(p, 1 * MS);
		pair_expect_none(p, 0);
		pair_expect_none(p, 1);
		pair_fill(p, 0, 0, 6000, (uint8_t)(life + 100));
		pair_recv(p, 1, 300000, 6000);
		pair_post(p, 0, FX_WR_SEND, 0, 6000, 0);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, FX_WC_SEND, p->q[0]->sq_index - 1, FX_WC_SUCCESS);
		/* the receive of the first life was left in the ring, and is passed over */
		pair_expect(p, 1, FX_WC_RECV, p->q[1]->rq.index - 1, FX_WC_SUCCESS);
		pair_check(p, 1, 300000, 6000, (uint8_t)(life + 100));
	}
	pair_destroy(p);
}

static int modify(struct pair *p, struct fx_qp_attr attr, uint32_t mask)
{
	int err = fx_qp_modify(p->h[0]->tp, p->q[0]->core, &attr, mask, NULL, 0, 0);

	host_rouse(p->h[0], p->s->now);
	return err;
}

static int drain(struct pair *p)
{
	return modify(p, (struct fx_qp_attr){.qp_state = SQD, .en_sqd_async_notify = 1},
		      M_STATE | M_SQD_NOTIFY);
}

static struct fx_qp_attr query(struct pair *p)
{
	struct fx_qp_attr attr;

	fx_qp_query(p->q[0]->core, &attr);
	return attr;
}

static enum pair_fate drop_some(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	(void)from;
	(void)bth;
	return p->count++ % 13 == 6 ? DROP : PASS;
}

enum { WRITES = 5, BYTES = 60000, PACKETS = 59 }; /* more than a window holds */

/* What was begun ends, whatever is lost; nothing is begun; and it goes on where it stopped. */
static void drain_in_traffic(struct pair *p)
{
	unsigned begun;

	pair_fill(p, 0, 0, BYTES, 1);
	for (unsigned i = 0; i < WRITES; i++)
		pair_post(p, 0, FX_WR_WRITE, 0, BYTES, i * BYTES);
	pair_run(p, 4 * US);
	assert_int_equal(drain(p), 0);
	assert_int_equal(query(p).qp_state, SQD);
	assert_int_equal(query(p).sq_draining, 1);
	/* not before it is drained */
	assert_int_equal(modify(p, (struct fx_qp_attr){.qp_state = RTS}, M_STATE), EINVAL);
	assert_int_equal(modify(p, (struct fx_qp_attr){.timeout = 9}, M_TIMEOUT), EINVAL);
	pair_post(p, 0, FX_WR_FETCH_ADD, 400000, 8, 400000);
	assert_int_equal(p->h[0]->events, 0);
	pair_run(p, 100 * MS);
	begun = p->n[0];
	assert_in_range(begun, 1, 3);
	assert_int_equal(p->h[0]->events, 1);
	assert_int_equal(p->h[0]->event[FX_ASYNC_SQ_DRAINED], 1);
	assert_int_equal(query(p).sq_draining, 0);
	assert_int_equal(query(p).en_sqd_async_notify, 1);
	assert_int_equal(fx_psn_diff(pair_info(p, 0).next_psn, 0xfffff0), begun * PACKETS);
	pair_check_blank(p, 1, begun * BYTES, PAIR_MEM - begun * BYTES);
	/* the answering side goes on all the while */
	pair_post(p, 1, FX_WR_WRITE, 500000, 100, 500000);
	pair_run(p, 20 * MS);
	pair_expect(p, 1, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	assert_int_equal(
		modify(p, (struct fx_qp_attr){.timeout = 9, .max_rd_atomic = 2}, M_TIMEOUT | M_RD_ATOMIC), 0);
	assert_int_equal(query(p).timeout, 9);
	assert_int_equal(modify(p, (struct fx_qp_attr){.qp_state = RTS}, M_STATE), 0);
	pair_run(p, 100 * MS);
	for (unsigned i = 0; i < WRITES; i++) {
		pair_expect(p, 0, FX_WC_RDMA_WRITE, i, FX_WC_SUCCESS);
		pair_check(p, 1, i * BYTES, BYTES, 1);
	}
	pair_expect(p, 0, FX_WC_FETCH_ADD, WRITES, FX_WC_SUCCESS);
	assert_int_equal(p->h[0]->events, 1);
}

static void test_drain(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		const struct pair_opt opt = {.chaos = i & 1};
		struct pair *p = pair_create(&opt);

		if (i & 2)
			p->fate = drop_some;
		drain_in_traffic(p);
		pair_destroy(p);
	}
}

/* Nothing under way: drained at once, and said only to who asked. */
static void test_drain_idle(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	assert_int_equal(drain(p), 0);
	pair_run(p, 10 * US);
	assert_int_equal(p->h[0]->event[FX_ASYNC_SQ_DRAINED], 1);
	assert_int_equal(modify(p, (struct fx_qp_attr){.qp_state = RTS}, M_STATE), 0);
	assert_int_equal(modify(p, (struct fx_qp_attr){.qp_state = SQD}, M_STATE), 0);
	pair_run(p, 10 * US);
	assert_int_equal(p->h[0]->events, 1);
	assert_int_equal(query(p).sq_draining, 0);
	pair_destroy(p);
}

/* A drain that fails is an error and not drained. */
static void test_drain_fails(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	p->cut[1] = true;
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 5 * US);
	assert_int_equal(drain(p), 0);
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 50 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_RETRY_EXC_ERR);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_WR_FLUSH_ERR);
	assert_int_equal(p->h[0]->events, 0); /* the completion tells it */
	assert_int_equal(query(p).sq_draining, 0);
	pair_destroy(p);
}

/* ---- what attributes mean ---- */

static struct pair *pair_with(uint8_t timeout, uint8_t retry_cnt, uint8_t rnr_retry, uint8_t min_rnr_timer,
			      uint8_t rd_atomic)
{
	struct pair *p = pair_create(NULL);

	for (unsigned i = 0; i < SIM_HOSTS; i++)
		assert_int_equal(qp_state(p->q[i], RESET), 0);
	p->attr.timeout = timeout;
	p->attr.retry_cnt = retry_cnt;
	p->attr.rnr_retry = rnr_retry;
	p->attr.min_rnr_timer = min_rnr_timer;
	p->attr.rd_atomic = rd_atomic;
	pair_connect(p);
	return p;
}

/* timeout 0: nothing is ever sent again by itself. */
static void test_no_timeout(void **state)
{
	struct pair *p = pair_with(0, 7, 7, 5, 4);

	(void)state;
	p->cut[0] = true;
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 100000 * MS);
	pair_expect_none(p, 0);
	assert_int_equal(pair_sent(p, 0, -1), 1);
	assert_int_equal(pair_state(p, 0), RTS);
	pair_destroy(p);
}

/* retry_cnt 0: the first timeout is the last. */
static void test_no_retries(void **state)
{
	struct pair *p = pair_with(8, 0, 7, 5, 4);

	(void)state;
	p->cut[0] = true;
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_RETRY_EXC_ERR);
	assert_int_equal(pair_sent(p, 0, -1), 1);
	pair_destroy(p);
}

/* rnr_retry 7 is for ever; min_rnr_timer 0 the longest of all, 655.36 ms. */
static void test_rnr_for_ever(void **state)
{
	struct pair *p = pair_with(8, 1, 7, 0, 4);

	(void)state;
	pair_fill(p, 0, 0, 100, 1);
	pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
	pair_run(p, 655 * MS);
	assert_int_equal(pair_counters(p, 1)->tx_naks, 1);
	pair_run(p, 1 * MS);
	assert_int_equal(pair_counters(p, 1)->tx_naks, 2);
	pair_run(p, 20 * 656 * MS);
	assert_in_range(pair_counters(p, 1)->tx_naks, 21, 23);
	pair_expect_none(p, 0);
	pair_recv(p, 1, 0, 100);
	pair_run(p, 656 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
	pair_check(p, 1, 0, 100, 1);
	pair_destroy(p);
}

/* rnr_retry 0: the first refusal is the last. */
static void test_no_rnr_retries(void **state)
{
	struct pair *p = pair_with(8, 7, 0, 5, 4);

	(void)state;
	pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_RNR_RETRY_EXC_ERR);
	assert_int_equal(pair_sent(p, 0, -1), 1);
	pair_destroy(p);
}

/* Without READs and atomics on either side: the requester sends none, the responder refuses them. */
static void test_no_rd_atomic(void **state)
{
	struct pair *p = pair_with(8, 7, 7, 5, 0);
	struct fx_qp_attr a;

	(void)state;
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_post(p, 0, FX_WR_READ, 0, 100, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 1, FX_WC_LOC_QP_OP_ERR);
	assert_int_equal(pair_sent(p, 0, FX_OP_READ_REQUEST), 0);
	assert_int_equal(pair_state(p, 1), RTS);
	pair_destroy(p);
	p = pair_create(NULL);
	assert_int_equal(qp_state(p->q[1], RESET), 0);
	p->attr.rd_atomic = 0;
	assert_int_equal(qp_connect(p->q[1], p->q[0], &p->attr), 0);
	fx_qp_query(p->q[1]->core, &a);
	assert_int_equal(a.max_dest_rd_atomic, 0);
	pair_post(p, 0, FX_WR_READ, 0, 100, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 0, FX_WC_REM_INV_REQ_ERR);
	pair_destroy(p);
}

/* Rights of a QP in use: the next request is judged by the new ones. */
static void test_access_changes(void **state)
{
	const struct fx_qp_attr less = {.access = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_READ},
				more = {.access = 15};
	struct pair *p = pair_create(NULL);

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(
			fx_qp_modify(p->h[1]->tp, p->q[1]->core, i ? &more : &less, M_ACCESS, NULL, 0, 0), 0);
		pair_post(p, 0, FX_WR_READ, 0, 100, 0);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, FX_WC_RDMA_READ, i, FX_WC_SUCCESS);
	}
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 2, FX_WC_SUCCESS);
	assert_int_equal(fx_qp_modify(p->h[1]->tp, p->q[1]->core, &less, M_ACCESS, NULL, 0, 0), 0);
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 5000);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 3, FX_WC_REM_ACCESS_ERR);
	pair_check_blank(p, 1, 5000, 100);
	pair_destroy(p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flush),		cmocka_unit_test(test_flush_half_received),
		cmocka_unit_test(test_reset_and_reuse), cmocka_unit_test(test_drain),
		cmocka_unit_test(test_drain_idle),	cmocka_unit_test(test_drain_fails),
		cmocka_unit_test(test_no_timeout),	cmocka_unit_test(test_no_retries),
		cmocka_unit_test(test_rnr_for_ever),	cmocka_unit_test(test_no_rnr_retries),
		cmocka_unit_test(test_no_rd_atomic),	cmocka_unit_test(test_access_changes),
	};

	return cmocka_run_group_tests_name("sim_states", tests, NULL, NULL);
}
