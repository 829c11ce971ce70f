/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * QPs through their states under traffic: error and what it flushes, reset and what it forgets.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { RESET = 0, ERR = 6 };

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
	/* posting goes on, and flushes (contract 10) */
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

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_flush_half_received),
		cmocka_unit_test(test_reset_and_reuse),
	};

	return cmocka_run_group_tests_name("sim_states", tests, NULL, NULL);
}
