/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the latency of a DMA engine does to the transport, in virtual time, so that no machine shows through: WRITEs over
 * a wire of 400 Gb/s whose payload is put into place by an engine behind a bus. One line for each latency: it in ns,
 * Gb/s of 64 KiB messages where the engine keeps its writes in order, Gb/s where it does not, and the ns from posting a
 * WRITE of 8 bytes to its completion.
 *
 * Room: tests/bench. May use: tests/sim.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "pair.h"

enum { MTU = 4096, BIG = 65536, SMALL = 8, MESSAGES = 300, DEPTH = 32, STEP = 500, TURN = 50 };

static const struct link_cfg wire = {.latency = 600, .ps_per_byte = 20, .zero_copy = true};

static struct pair *start(uint64_t latency, bool loose)
{
	static struct fx_dma_bus bus;
	const struct pair_opt opt = {.mtu = MTU,
				     .max_send = DEPTH,
				     .max_recv = 1,
				     .max_sge = 1,
				     .timeout = 14,
				     .retry_cnt = 7,
				     .rd_atomic = 1,
				     .access = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE,
				     .cqes = PAIR_CQES,
				     .chaos = loose,
				     .link = &wire,
				     .bus = &bus,
				     .turn_ns = TURN};

	bus = (struct fx_dma_bus){
		.latency_ns = latency, .bytes_per_us = 63000, .reorder_permille = 50, .seed = 1};
	return pair_create(&opt);
}

/* Gb/s, with DEPTH messages under way. */
static double rate(uint64_t latency, bool loose)
{
	struct pair *p = start(latency, loose);
	uint64_t from = p->s->now;
	double gbits;

	for (unsigned posted = 0; p->n[0] < MESSAGES; pair_run(p, STEP))
		for (; posted < MESSAGES && posted - p->n[0] < DEPTH; posted++)
			pair_post(p, 0, FX_WR_WRITE, posted % 16 * BIG, BIG, posted % 16 * BIG);
	gbits = 8.0 * BIG * MESSAGES / (double)(p->s->now - from);
	assert_int_equal(p->cqe[0][MESSAGES - 1].status, FX_WC_SUCCESS);
	assert_int_equal(pair_counters(p, 0)->timeouts, 0);
	pair_destroy(p);
	return gbits;
}

static double alone(uint64_t latency)
{
	struct pair *p = start(latency, false);
	uint64_t from = p->s->now;
	double ns;

	for (unsigned i = 0; i < MESSAGES; i++) {
		pair_post(p, 0, FX_WR_WRITE, 0, SMALL, 0);
		while (p->n[0] == i)
			pair_run(p, 10);
	}
	ns = (double)(p->s->now - from) / MESSAGES;
	pair_destroy(p);
	return ns;
}

static void latencies(void **state)
{
	static const uint64_t ns[] = {0, 500, 1000, 2000, 5000};

	(void)state;
	for (unsigned i = 0; i < sizeof(ns) / sizeof(ns[0]); i++)
		printf("%u %.1f %.1f %.0f\n", (unsigned)ns[i], rate(ns[i], false), rate(ns[i], true),
		       alone(ns[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(latencies)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
