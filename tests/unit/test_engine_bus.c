/* SPDX-License-Identifier: BSD-3-Clause */
/* The bus engine in virtual time: latency, width, overtaking, and what it leaves as the inner engine has it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "memory/engine.h"

enum { DEPTH = 64, LATENCY = 1000, WIDTH = 64000 /* bytes a microsecond */ };

static uint8_t win[DEPTH * 4096], local[DEPTH * 4096];
static uint64_t now;
static struct fx_dma_carried carried;

static uint64_t clock_now(void *arg)
{
	assert_ptr_equal(arg, &now);
	return now;
}

static struct fx_dma_engine *make(uint64_t width, uint32_t reorder)
{
	struct fx_dma_bus bus = {.latency_ns = LATENCY,
				 .bytes_per_us = width,
				 .reorder_permille = reorder,
				 .seed = 1,
				 .now = clock_now,
				 .arg = &now,
				 .carried = &carried};
	struct fx_dma_engine *e = fx_dma_bus_create(fx_dma_cpu_create(DEPTH), DEPTH, &bus);

	assert_non_null(e);
	now = 5000;
	carried = (struct fx_dma_carried){0};
	return e;
}

static unsigned submit(struct fx_dma_engine *e, uintptr_t cookie, uint32_t len)
{
	struct fx_dma d = {.win = win + cookie % DEPTH * 4096,
			   .local = local,
			   .len = len,
			   .to_window = true,
			   .cookie = (void *)cookie};

	return e->ops->submit(e, &d, 1);
}

static void a_request_takes_the_latency(void **state)
{
	struct fx_dma_engine *e = make(0, 0);
	struct fx_dma_done done[4];

	(void)state;
	memset(local, 7, 64);
	assert_int_equal(submit(e, 1, 64), 1);
	assert_int_equal(e->ops->pending(e), 1);
	now += LATENCY - 1;
	assert_int_equal(e->ops->poll(e, done, 4), 0);
	now++;
	assert_int_equal(e->ops->poll(e, done, 4), 1);
	assert_ptr_equal(done[0].cookie, (void *)1);
	assert_int_equal(done[0].err, 0);
	assert_int_equal(win[4096 + 63], 7);
	assert_int_equal(e->ops->pending(e), 0);
	e->ops->destroy(e);
}

/* Many at once share the latency, but not the width; small ones pay for their headers. */
static void requests_share_the_width(void **state)
{
	static const uint32_t lens[] = {4096, 64};

	(void)state;
	for (int k = 0; k < 2; k++) {
		uint64_t total = DEPTH * (lens[k] + (lens[k] / 256 + 1) * 24),
			 want = LATENCY + total * 1000 / WIDTH;
		struct fx_dma_engine *e = make(WIDTH, 0);
		struct fx_dma_done done[DEPTH];
		uint64_t start = now;
		unsigned n = 0;

		for (uintptr_t i = 0; i < DEPTH; i++)
			assert_int_equal(submit(e, i, lens[k]), 1);
		assert_int_equal(submit(e, 0, 64), 0); /* full */
		while (n < DEPTH) {
			unsigned got = e->ops->poll(e, done + n, DEPTH - n);

			for (unsigned i = n; i < n + got; i++)
				assert_int_equal((uintptr_t)done[i].cookie, i);
			n += got;
			now += 10;
		}
		assert_in_range(now - start, want - 20, want + 20);
		assert_int_equal(carried.writes, DEPTH); /* what found no room does not count */
		assert_int_equal(carried.reads, 0);
		assert_int_equal(carried.bytes, DEPTH * lens[k]);
		e->ops->destroy(e);
	}
}

static void some_are_overtaken_and_none_is_lost(void **state)
{
	struct fx_dma_engine *e = make(WIDTH, 200);
	bool seen[1000] = {false};
	unsigned n = 0, overtaken = 0;
	uintptr_t next = 0, highest = 0;

	(void)state;
	while (n < 1000) {
		struct fx_dma_done done[8];
		unsigned got;

		while (next < 1000 && submit(e, next, 256))
			next++;
		now += 20;
		got = e->ops->poll(e, done, 8);
		for (unsigned i = 0; i < got; i++) {
			uintptr_t c = (uintptr_t)done[i].cookie;

			assert_false(seen[c]);
			seen[c] = true;
			overtaken += c < highest;
			highest = c > highest ? c : highest;
		}
		n += got;
	}
	assert_in_range(overtaken, 100, 300);
	e->ops->destroy(e);
}

/* Its latency is no reason for the transport to have one write under way: order is what the inner engine makes of it. */
static void as_ordered_as_what_is_behind_it(void **state)
{
	const struct fx_dma_bus bus = {.now = clock_now, .arg = &now};
	struct fx_dma_engine *ordered = make(0, 500),
			     *loose = fx_dma_bus_create(fx_dma_chaos_create(DEPTH, 4, 1), DEPTH, &bus);

	(void)state;
	assert_non_null(loose);
	assert_true(ordered->ops->ordered);
	assert_false(loose->ops->ordered);
	ordered->ops->destroy(ordered);
	loose->ops->destroy(loose);
}

static void errors_come_through(void **state)
{
	struct fx_dma_engine *e = make(0, 0);
	struct fx_dma d = {.local = local, .len = 8, .cookie = &d};
	struct fx_dma_done done[1];

	(void)state;
	assert_int_equal(e->ops->submit(e, &d, 1), 1);
	now += LATENCY;
	assert_int_equal(e->ops->poll(e, done, 1), 1);
	assert_ptr_equal(done[0].cookie, &d);
	assert_int_equal(done[0].err, -EFAULT); /* no window: the CPU engine's word for it */
	e->ops->destroy(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_takes_the_latency),
		cmocka_unit_test(requests_share_the_width),
		cmocka_unit_test(some_are_overtaken_and_none_is_lost),
		cmocka_unit_test(as_ordered_as_what_is_behind_it),
		cmocka_unit_test(errors_come_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
