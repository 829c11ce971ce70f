/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Receive queues of which the core has a copy: a receive that was posted in time is found by a fresh look, however long
 * that takes, and nobody is told "not ready" before it (guarantee P9).
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { RESET = 0, ERR = 6, MSG = 500, LOOK = 40000 /* ns: 20000 at least */ };

static struct pair *far_pair(uint32_t look_ns)
{
	const struct pair_opt opt = {.look_ns = look_ns};

	return pair_create(&opt);
}

/* Until the packet has arrived and waits for the look that it asked for. */
static void until_parked(struct pair *p)
{
	for (int i = 0; i < 1000 && !pair_counters(p, 1)->rx_parked; i++)
		pair_run(p, 200);
	assert_true(pair_counters(p, 1)->rx_parked > 0);
	assert_true(p->q[1]->look_at != SIM_NEVER);
}

static void send_one(struct pair *p, uint32_t slot, uint32_t len)
{
	pair_fill(p, 0, slot * 4096, len, (uint8_t)slot);
	pair_post(p, 0, FX_WR_SEND, slot * 4096, len, 0);
}

/* The peer tries not once more after "not ready": it never has to hear that. */
static void what_was_posted_in_time_is_found(void **state)
{
	struct pair *p = far_pair(LOOK);

	(void)state;
	p->attr.rnr_retry = 0;
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		assert_int_equal(qp_state(p->q[i], RESET), 0);
	pair_connect(p);
	for (uint32_t i = 0; i < 40; i++) {
		pair_recv(p, 1, i * 4096, 4096);
		send_one(p, i, i % 3 ? MSG : 3000); /* of one packet, or of three */
		if (i % 4 == 3)
			pair_run(p, i % 8 == 3 ? 1 * MS : 15 * US);
	}
	pair_run(p, 20 * MS);
	for (uint32_t i = 0; i < 40; i++) {
		pair_expect(p, 0, FX_WC_SEND, i, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RECV, i, FX_WC_SUCCESS);
		pair_check(p, 1, i * 4096, i % 3 ? MSG : 3000, (uint8_t)i);
	}
	assert_int_equal(pair_counters(p, 1)->tx_naks, 0);
	assert_true(p->h[1]->looks >= 10);
	pair_destroy(p);
}

/* "Not ready" goes out after a look that found nothing, once for each try of the peer. */
static void what_is_not_there_is_refused(void **state)
{
	struct pair *p = far_pair(LOOK);

	(void)state;
	send_one(p, 0, MSG);
	until_parked(p);
	assert_int_equal(pair_counters(p, 1)->tx_naks, 0);
	pair_run(p, 10 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_RNR_RETRY_EXC_ERR);
	assert_int_equal(pair_counters(p, 1)->tx_naks, 3); /* rnr_retry is 2 */
	assert_int_equal(p->h[1]->looks, 3);
	pair_destroy(p);
}

/* The look for the first had passed when the second's receive was posted: it gets one of its own. */
static void each_packet_has_its_own_look(void **state)
{
	struct pair *p = far_pair(LOOK);

	(void)state;
	pair_recv(p, 1, 0, 4096);
	send_one(p, 0, MSG);
	until_parked(p);
	pair_recv(p, 1, 4096, 4096);
	send_one(p, 1, MSG);
	pair_run(p, 1 * MS);
	for (uint32_t i = 0; i < 2; i++) {
		pair_expect(p, 1, FX_WC_RECV, i, FX_WC_SUCCESS);
		pair_check(p, 1, i * 4096, MSG, (uint8_t)i);
	}
	assert_int_equal(pair_counters(p, 1)->tx_naks, 0);
	assert_int_equal(p->h[1]->looks, 2);
	pair_destroy(p);
}

/* What needs no receive waits all the same behind what does, and takes effect after it. */
static void what_follows_stays_behind(void **state)
{
	struct pair *p = far_pair(LOOK);

	(void)state;
	pair_recv(p, 1, 0, 4096);
	send_one(p, 0, MSG);
	pair_fill(p, 0, 8192, 2000, 9);
	pair_post(p, 0, FX_WR_WRITE, 8192, 2000, 8192);
	until_parked(p);
	pair_run(p, 9 * US);
	assert_int_equal(pair_counters(p, 1)->rx_parked, 3);
	pair_check_blank(p, 1, 8192, 2000);
	pair_run(p, 1 * MS);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	pair_check(p, 1, 8192, 2000, 9);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_SUCCESS);
	assert_int_equal(pair_counters(p, 1)->tx_naks, 0);
	assert_int_equal(pair_counters(p, 1)->rx_out_of_sequence, 0);
	pair_destroy(p);
}

/* A look that takes longer than the peer's patience: what is sent again waits too, up to a bound. */
static void repeats_are_bounded(void **state)
{
	struct pair *p = far_pair(6 * MS);

	(void)state;
	p->attr.retry_cnt = 7;
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		assert_int_equal(qp_state(p->q[i], RESET), 0);
	pair_connect(p);
	p->s->link.dup = 1000000; /* every frame comes twice */
	pair_recv(p, 1, 0, 500000);
	pair_fill(p, 0, 0, 300000, 1);
	pair_post(p, 0, FX_WR_SEND, 0, 300000, 0);
	pair_run(p, 100 * MS);
	assert_true(pair_counters(p, 1)->rx_backlog > 0);
	assert_true(pair_counters(p, 1)->rx_parked <= 512);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	pair_check(p, 1, 0, 300000, 1);
	pair_expect_none(p, 1);
	pair_destroy(p);
}

/* RESET, and another life before the look of the first one is over. */
static void reset_while_it_waits(void **state)
{
	struct pair *p = far_pair(LOOK);

	(void)state;
	pair_recv(p, 1, 0, 4096);
	send_one(p, 0, MSG);
	until_parked(p);
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		assert_int_equal(qp_state(p->q[i], RESET), 0);
	net_clear(p->s);
	pair_connect(p);
	pair_recv(p, 1, 4096, 4096);
	send_one(p, 1, MSG);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_SEND, 1, FX_WC_SUCCESS);
	pair_expect(p, 1, FX_WC_RECV, 1, FX_WC_SUCCESS);
	pair_expect_none(p, 1);
	pair_check_blank(p, 1, 0, 4096); /* of the first life nothing arrived */
	pair_check(p, 1, 4096, MSG, 1);
	assert_int_equal(pair_counters(p, 1)->tx_naks, 0);
	pair_destroy(p);
}

/* ERR: what waits has no effect, and receives that the core has not seen are flushed like any. */
static void error_while_it_waits(void **state)
{
	struct pair *p = far_pair(LOOK);

	(void)state;
	for (uint32_t i = 0; i < 5; i++)
		pair_recv(p, 1, i * 4096, 4096);
	send_one(p, 0, MSG);
	until_parked(p);
	p->cut[0] = true;
	assert_int_equal(qp_state(p->q[1], ERR), 0);
	pair_run(p, 1 * MS);
	for (uint32_t i = 0; i < 5; i++)
		pair_expect(p, 1, FX_WC_RECV, i, FX_WC_WR_FLUSH_ERR);
	pair_recv(p, 1, 0, 4096);
	pair_run(p, 100 * MS);
	pair_expect(p, 1, FX_WC_RECV, 5, FX_WC_WR_FLUSH_ERR);
	pair_expect_none(p, 1);
	pair_check_blank(p, 1, 0, 5 * 4096);
	pair_destroy(p);
}

/* The end of the QP; the look's answer comes when it is nobody's any more, or never. */
static void destroyed_while_it_waits(void **state)
{
	struct pair *p = far_pair(LOOK);

	(void)state;
	pair_recv(p, 1, 0, 4096);
	send_one(p, 0, MSG);
	until_parked(p);
	pair_destroy(p); /* which fails if anything of the packet is left with it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_posted_in_time_is_found),
		cmocka_unit_test(what_is_not_there_is_refused),
		cmocka_unit_test(each_packet_has_its_own_look),
		cmocka_unit_test(what_follows_stays_behind),
		cmocka_unit_test(repeats_are_bounded),
		cmocka_unit_test(reset_while_it_waits),
		cmocka_unit_test(error_while_it_waits),
		cmocka_unit_test(destroyed_while_it_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
