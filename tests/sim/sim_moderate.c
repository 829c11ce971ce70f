/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Moderation of CQs: how many completions an event is for, and how long it is held back for them.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { HOLD = 100 * US };

static void arm(struct pair *p, uint32_t kind)
{
	struct fx_cq *cq = &p->cq[0]->core;

	if (fx_cq_arm(cq, (cq->fired + 1) << 2 | kind, p->cq[0]->rx.ci) > 0)
		fx_tp_cq_fires(p->h[0]->tp, cq);
}

static void moderate(struct pair *p, uint32_t every, uint64_t patience)
{
	fx_tp_cq_moderate(p->h[0]->tp, &p->cq[0]->core, every, patience);
}

/* n WRITEs, completed well before the period ends. */
static void work(struct pair *p, unsigned n)
{
	while (n--)
		pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 30 * US);
}

static void test_by_count(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	moderate(p, 4, 0);
	for (unsigned i = 0; i < 5; i++) {
		arm(p, FX_ARM_ANY);
		work(p, 3);
		pair_run(p, 10 * MS); /* without a period there is no end to it */
		assert_int_equal(p->h[0]->comps, i);
		work(p, 1);
		assert_int_equal(p->h[0]->comps, i + 1);
		work(p, 4); /* not armed */
		assert_int_equal(p->h[0]->comps, i + 1);
	}
	pair_destroy(p);
}

static void test_by_time(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	moderate(p, 100, HOLD);
	for (unsigned i = 0; i < 5; i++) {
		uint64_t from = p->s->now;

		arm(p, FX_ARM_ANY);
		work(p, 3);
		assert_int_equal(p->h[0]->comps, i);
		pair_run(p, 2 * HOLD);
		assert_int_equal(p->h[0]->comps, i + 1);
		assert_in_range(p->h[0]->comp_at - from, HOLD, HOLD + 30 * US);
	}
	pair_destroy(p);
}

static void test_whichever_is_first(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	moderate(p, 3, HOLD);
	arm(p, FX_ARM_ANY);
	work(p, 3);
	assert_int_equal(p->h[0]->comps, 1);
	pair_run(p, 2 * HOLD); /* and no second one */
	assert_int_equal(p->h[0]->comps, 1);
	arm(p, FX_ARM_ANY);
	work(p, 2);
	assert_int_equal(p->h[0]->comps, 1);
	pair_run(p, 2 * HOLD);
	assert_int_equal(p->h[0]->comps, 2);
	pair_destroy(p);
}

/* Those that are there when it is armed count, too. */
static void test_armed_late(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	p->deaf[0] = true;
	moderate(p, 3, HOLD);
	work(p, 3);
	arm(p, FX_ARM_ANY);
	assert_int_equal(p->h[0]->comps, 1);
	p->deaf[0] = false;
	pair_run(p, 1 * US);
	p->deaf[0] = true;
	work(p, 2);
	arm(p, FX_ARM_ANY);
	assert_int_equal(p->h[0]->comps, 1);
	pair_run(p, 2 * HOLD);
	assert_int_equal(p->h[0]->comps, 2);
	pair_destroy(p);
}

/* It may be changed while an event is held back, and ends with it. */
static void test_changed(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	moderate(p, 10, 0);
	arm(p, FX_ARM_ANY);
	work(p, 2);
	moderate(p, 10, HOLD);
	assert_int_equal(p->h[0]->comps, 0);
	pair_run(p, HOLD / 2);
	moderate(p, 10, 2 * HOLD); /* from now on */
	pair_run(p, HOLD);
	assert_int_equal(p->h[0]->comps, 0);
	moderate(p, 2, 2 * HOLD);
	assert_int_equal(p->h[0]->comps, 1);
	arm(p, FX_ARM_ANY);
	work(p, 1);
	assert_int_equal(p->h[0]->comps, 1);
	moderate(p, 0, 0);
	assert_int_equal(p->h[0]->comps, 2);
	arm(p, FX_ARM_ANY);
	work(p, 1);
	assert_int_equal(p->h[0]->comps, 3);
	pair_destroy(p);
}

/* A CQ that goes is not looked at any more, the others' events come. */
static void test_gone(void **state)
{
	struct pair *p = pair_create(NULL);
	struct fx_cq other = {.wake = -1, .pi = 1, .loud = 1};

	(void)state;
	moderate(p, 10, HOLD);
	fx_tp_cq_moderate(p->h[0]->tp, &other, 10, HOLD / 2);
	arm(p, FX_ARM_ANY);
	work(p, 1);
	assert_int_equal(fx_cq_arm(&other, 1 << 2 | FX_ARM_ANY, 0), 1);
	fx_tp_cq_fires(p->h[0]->tp, &other);
	fx_tp_cq_let_go(p->h[0]->tp, &other);
	memset(&other, 0xa5, sizeof(other));
	pair_run(p, 2 * HOLD);
	assert_int_equal(p->h[0]->comps, 1);
	fx_tp_cq_let_go(p->h[0]->tp, &p->cq[0]->core); /* which is not held */
	pair_destroy(p);
}

static void test_solicited(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	moderate(p, 0, HOLD);
	arm(p, FX_ARM_SOLICITED);
	work(p, 3);
	pair_run(p, 3 * HOLD);
	assert_int_equal(p->h[0]->comps, 0); /* nothing of what it is armed for */
	arm(p, FX_ARM_ANY);		     /* a wider one, which what is there fires */
	pair_run(p, 2 * HOLD);
	assert_int_equal(p->h[0]->comps, 0); /* it was polled */
	work(p, 1);
	pair_run(p, 2 * HOLD);
	assert_int_equal(p->h[0]->comps, 1);
	pair_destroy(p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_count),
		cmocka_unit_test(test_by_time),
		cmocka_unit_test(test_whichever_is_first),
		cmocka_unit_test(test_armed_late),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_solicited),
	};

	return cmocka_run_group_tests_name("sim_moderate", tests, NULL, NULL);
}
