/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The timing wheel against a plain array of deadlines: arm, re-arm, disarm, steps and long jumps of `now`.
 *
 * May use: transport/wheel.h, cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "transport/wheel.h"

enum { TIMERS = 300 };

#define TICK (UINT64_C(1) << FX_WHEEL_TICK_SHIFT)

struct model {
	struct fx_wheel wheel;
	struct fx_timer timer[TIMERS];
	uint64_t due[TIMERS]; /* earliest time asked for; 0: not armed */
	uint64_t now;
	uint64_t rng;
};

static uint64_t rnd(struct model *m)
{
	m->rng ^= m->rng << 13;
	m->rng ^= m->rng >> 7;
	m->rng ^= m->rng << 17;
	return m->rng;
}

static void start(struct model *m, uint64_t now, uint64_t seed)
{
	memset(m, 0, sizeof(*m));
	m->now = now;
	m->rng = seed * 0x9e3779b97f4a7c15u + 1;
	fx_wheel_init(&m->wheel, now);
}

/* The time from which the wheel must have fired a timer for `when`, armed at `now`. */
static uint64_t latest(uint64_t when, uint64_t now)
{
	uint64_t t = when > now ? when : now;

	return t > UINT64_MAX - TICK ? UINT64_MAX : t + TICK;
}

static void arm(struct model *m, unsigned i, uint64_t when)
{
	uint64_t had = m->due[i];

	fx_wheel_arm(&m->wheel, &m->timer[i], when);
	if (when < m->now)
		when = m->now;
	if (!had || when < had)
		m->due[i] = when;
}

static void disarm(struct model *m, unsigned i)
{
	fx_wheel_disarm(&m->wheel, &m->timer[i]);
	m->due[i] = 0;
}

static unsigned armed(const struct model *m, uint64_t *earliest)
{
	unsigned n = 0;

	*earliest = UINT64_MAX;
	for (unsigned i = 0; i < TIMERS; i++) {
		if (!m->due[i])
			continue;
		n++;
		if (m->due[i] < *earliest)
			*earliest = m->due[i];
	}
	return n;
}

/* Lets time pass; some of the fired are armed again at once, as a lazy timer's owner does. */
static void pass(struct model *m, uint64_t to, bool rearm)
{
	struct fx_timer *t;
	unsigned fired = 0;
	uint64_t earliest;

	m->now = to;
	while ((t = fx_wheel_expire(&m->wheel, to))) {
		unsigned i = (unsigned)(t - m->timer);

		assert_true(i < TIMERS);
		assert_true(m->due[i] != 0);
		assert_true(m->due[i] <= to);
		assert_null(t->prev);
		m->due[i] = 0;
		assert_true(++fired <= TIMERS);
		if (rearm && rnd(m) % 4 == 0)
			arm(m, i, to + rnd(m) % (8 * TICK));
	}
	for (unsigned i = 0; i < TIMERS; i++)
		assert_true(!m->due[i] || latest(m->due[i], 0) > to);
	assert_int_equal(m->wheel.armed, armed(m, &earliest));
	if (!m->wheel.armed)
		assert_true(fx_wheel_next(&m->wheel) == UINT64_MAX);
	else
		assert_true(fx_wheel_next(&m->wheel) <= latest(earliest, 0));
}

/* A span whose magnitude is drawn first, so that every level gets its share. */
static uint64_t span(struct model *m, unsigned maxbits)
{
	return rnd(m) & ((UINT64_C(1) << (1 + rnd(m) % maxbits)) - 1);
}

static void run_random(struct model *m, unsigned steps, unsigned armbits, unsigned jumpbits)
{
	for (unsigned s = 0; s < steps; s++) {
		for (unsigned k = rnd(m) % 8; k; k--) {
			unsigned i = rnd(m) % TIMERS;

			if (rnd(m) % 5 == 0)
				disarm(m, i);
			else
				arm(m, i, m->now + span(m, armbits));
		}
		pass(m, m->now + span(m, jumpbits), true);
	}
}

static void test_random(void **state)
{
	static struct model m;

	(void)state;
	for (uint64_t seed = 1; seed <= 30; seed++) {
		start(&m, seed % 3 ? 1 + (seed << (seed + 16)) : 1, seed);
		run_random(&m, 300, 18, 16);
		run_random(&m, 300, 30, 28);
		run_random(&m, 300, 40, 38);
		run_random(&m, 300, 47, 46); /* beyond the levels' reach */
		run_random(&m, 300, 34, 15);
	}
}

/* Sleeping until fx_wheel_next() never sleeps past a timer and never stops making progress. */
static void test_next_leads_to_expiry(void **state)
{
	static struct model m;

	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		uint64_t when, next;
		unsigned hops = 0;

		start(&m, seed << 29, seed);
		when = m.now + 1 + span(&m, 46);
		arm(&m, 7, when);
		while ((next = fx_wheel_next(&m.wheel)) != UINT64_MAX) {
			assert_true(next > m.now || hops == 0);
			assert_true(next < when + TICK);
			assert_true(++hops <= 2 * FX_WHEEL_LEVELS + 2);
			pass(&m, next, false);
		}
		assert_true(m.now >= when && m.now < when + TICK);
	}
}

/* Every distance around the powers where a level ends, from starting points around them too. */
static void test_level_edges(void **state)
{
	static struct model m;

	(void)state;
	for (unsigned level = 0; level <= FX_WHEEL_LEVELS; level++) {
		uint64_t edge = TICK << (level * FX_WHEEL_BITS);

		for (int a = -2; a <= 2; a++) {
			for (int b = -2; b <= 2; b++) {
				uint64_t from = 4 * edge + (uint64_t)((int64_t)TICK * a);
				uint64_t when = from + edge + (uint64_t)((int64_t)TICK * b) + 3;

				start(&m, from, 1);
				arm(&m, 0, when);
				arm(&m, 1, when + edge);
				if (when > m.now)
					pass(&m, when - 1, false);
				assert_true(m.due[1] != 0);
				pass(&m, latest(when, from), false);
				assert_true(m.due[0] == 0);
				pass(&m, latest(when + edge, from), false);
				assert_true(m.due[1] == 0);
			}
		}
	}
}

/* An earlier deadline moves a timer, a later one leaves it where it is. */
static void test_rearm(void **state)
{
	static struct model m;

	(void)state;
	start(&m, 12345, 1);
	arm(&m, 0, m.now + 1000 * TICK);
	arm(&m, 0, m.now + 5 * TICK);
	arm(&m, 0, m.now + 2000 * TICK);
	assert_int_equal(m.wheel.armed, 1);
	pass(&m, m.now + 6 * TICK, false);
	assert_int_equal(m.wheel.armed, 0);
	/* armed in the past: soon, but not twice in one tick */
	arm(&m, 3, 1);
	pass(&m, m.now, false);
	assert_int_equal(m.wheel.armed, 1);
	pass(&m, m.now + TICK, false);
	assert_int_equal(m.wheel.armed, 0);
}

static void test_disarm(void **state)
{
	static struct model m;
	static const uint64_t far[] = {0, 3, 300, 70000, 17000000, UINT64_C(5000000000)};

	(void)state;
	start(&m, 99 * TICK, 1);
	for (unsigned i = 0; i < sizeof(far) / sizeof(far[0]); i++) {
		disarm(&m, i); /* not armed: nothing */
		arm(&m, i, m.now + far[i] * TICK);
		arm(&m, i + 10, m.now + far[i] * TICK);
		arm(&m, i + 20, m.now + far[i] * TICK);
		disarm(&m, i + 10);
	}
	/* due but not yet taken */
	m.now += 2 * TICK;
	assert_non_null(fx_wheel_expire(&m.wheel, m.now));
	assert_int_equal(m.wheel.armed, 11);
	m.due[0] = m.due[20] = 0;
	disarm(&m, 0);
	disarm(&m, 20);
	assert_int_equal(m.wheel.armed, 10);
	pass(&m, m.now + UINT64_C(6000000000) * TICK, false);
	assert_int_equal(m.wheel.armed, 0);
}

/* The end of time neither overflows nor fires early. */
static void test_far_future(void **state)
{
	static struct model m;

	(void)state;
	start(&m, 0, 1);
	arm(&m, 0, UINT64_MAX);
	pass(&m, UINT64_C(1) << 62, false);
	assert_int_equal(m.wheel.armed, 1);
	assert_true(fx_wheel_next(&m.wheel) > UINT64_C(1) << 62);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),	    cmocka_unit_test(test_next_leads_to_expiry),
		cmocka_unit_test(test_level_edges), cmocka_unit_test(test_rearm),
		cmocka_unit_test(test_disarm),	    cmocka_unit_test(test_far_future),
	};

	return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
