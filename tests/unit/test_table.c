/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables of handles in a time of their own: numbers come back oldest first, and not before they have rested. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/table.h"

enum { SIZE = 4, REST = 1000 };

static int thing;

static uint32_t add(struct fx_table *t, uint64_t now)
{
	return fx_handle_index(fx_table_add(t, &thing, now));
}

static void without_rest(void **state)
{
	struct fx_table t;
	uint32_t h;

	(void)state;
	assert_int_equal(fx_table_init(&t, 1, 0), 0);
	h = fx_table_add(&t, &thing, 5);
	assert_int_not_equal(h, 0);
	assert_int_equal(fx_table_add(&t, &thing, 5), 0);
	fx_table_del(&t, h, 5);
	assert_int_equal(add(&t, 5), 1);
	assert_null(fx_table_get(&t, h)); /* of the index's last life */
	fx_table_fini(&t);
}

static void rest(void **state)
{
	struct fx_table t;
	uint32_t h[SIZE];

	(void)state;
	assert_int_equal(fx_table_init(&t, SIZE, REST), 0);
	for (uint32_t i = 0; i < SIZE; i++) {
		h[i] = fx_table_add(&t, &thing, 0); /* fresh ones need no rest, not even at time 0 */
		assert_int_equal(fx_handle_index(h[i]), i + 1);
	}
	assert_int_equal(add(&t, 100 * REST), 0); /* full */
	assert_int_equal(t.used, SIZE);
	fx_table_del(&t, h[2], 10);
	fx_table_del(&t, h[0], 20);
	assert_int_equal(add(&t, 10), 0); /* not full, but nothing has rested */
	assert_int_equal(t.used, SIZE - 2);
	assert_int_equal(add(&t, 10 + REST - 1), 0);
	assert_int_equal(add(&t, 10 + REST), 3); /* the oldest */
	assert_int_equal(add(&t, 10 + REST), 0); /* the other one still rests */
	assert_int_equal(add(&t, 20 + REST), 1);
	assert_int_equal(add(&t, UINT64_MAX), 0);
	fx_table_fini(&t);
}

/* Each gets its rest, however fast they come and go. */
static void in_turn(void **state)
{
	uint64_t freed[SIZE + 1] = {0}, now = 1;
	unsigned given = 0, refused = 0;
	struct fx_table t;

	(void)state;
	assert_int_equal(fx_table_init(&t, SIZE, REST), 0);
	for (int i = 0; i < 10000; i++, now += 37) {
		uint32_t h = fx_table_add(&t, &thing, now), index = fx_handle_index(h);

		if (!h) {
			refused++;
			continue;
		}
		given++;
		assert_true(!freed[index] || now - freed[index] >= REST);
		freed[index] = now;
		fx_table_del(&t, h, now);
	}
	/* SIZE numbers a rest of 28 turns */
	assert_in_range(given, 10000 / 28 * SIZE - SIZE, 10000 / 27 * SIZE + SIZE);
	assert_int_equal(given + refused, 10000);
	fx_table_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_rest),
		cmocka_unit_test(rest),
		cmocka_unit_test(in_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
