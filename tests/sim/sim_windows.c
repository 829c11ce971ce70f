/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory windows, one situation at a time: what a bound one lets through and what not, and every bind that is refused.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include "lend.h"

/* ---- bound ---- */

/* Both types, from 0 or not, over every kind of memory: what lies in it is reached, and not a byte beyond. */
static void test_bound(void **state)
{
	static const enum mem_kind kinds[] = {MEM_FLAT, MEM_RUNS, MEM_SOME_SLOW, MEM_SLOW};

	(void)state;
	for (unsigned i = 0; i < 24; i++) {
		const struct pair_opt opt = {.kind = kinds[i % 4], .chaos = i % 8 > 3};
		struct pair *p = start(&opt);
		struct win w;

		win_alloc(p, &w, i < 8 ? FX_MW_TYPE_1 : FX_MW_TYPE_2, i % HOST_MWS);
		bind_now(p, &w, ALL | (i < 16 ? 0 : FX_ACC_ZERO_BASED));
		assert_int_equal(p->mem[1]->mr.windows, 1);
		use(p, &w);
		post_through(p, &w, FX_WR_WRITE, 0, 2, LEN - 1);
		pair_run(p, 5 * MS);
		expect_refused(p, FX_WC_RDMA_WRITE, 3);
		pair_destroy(p);
	}
}

enum fault {
	NO_READ,
	NO_WRITE,
	NO_ATOMIC,
	QP_RIGHTS,
	BEFORE,
	BEHIND,
	WRAPS,
	OLD_TAG,
	OTHER_PD,
	UNBOUND,
	NO_WINDOW,
	REGION_GONE,
	REGION_CHANGED,
	REGION_MOVED,
	FAULTS
};

static void spoil(struct pair *p, enum fault fault, struct win *w, struct wr *r)
{
	switch (fault) {
	case BEFORE:
		r->remote_addr--;
		break;
	case BEHIND:
		r->remote_addr += LEN - 7;
		break;
	case WRAPS:
		r->remote_addr = UINT64_MAX - 3;
		break;
	case OLD_TAG:
		r->rkey--;
		break;
	case OTHER_PD:
		w->mw.pd = 2;
		break;
	case NO_WINDOW:
		r->rkey += 5u << FX_KEY_RAND_BITS;
		break;
	case REGION_GONE:
		mem_revoke(p->h[1], p->mem[1]);
		break;
	case REGION_CHANGED: /* another in its place, which may not be bound */
		p->mem[1]->mr.access &= ~(uint32_t)FX_ACC_MW_BIND;
		break;
	case REGION_MOVED:
		p->mem[1]->mr.iova += LEN + OFF;
		break;
	default:
		break;
	}
}

static void test_refused(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2 * FAULTS; i++) {
		const enum fault fault = i / 2;
		const struct pair_opt opt = {.access = fault == QP_RIGHTS ? FX_ACC_REMOTE_READ : 0};
		struct pair *p = start(&opt);
		uint8_t op = fault == NO_READ	  ? FX_WR_READ
			     : fault == NO_ATOMIC ? FX_WR_FETCH_ADD
						  : FX_WR_WRITE;
		struct win w;
		struct wr r;

		win_alloc(p, &w, 1 + i % 2, 3);
		if (fault != UNBOUND)
			bind_now(p, &w,
				 fault == NO_READ     ? FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_ATOMIC
				 : fault == NO_WRITE  ? FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC
				 : fault == NO_ATOMIC ? FX_ACC_REMOTE_READ | FX_ACC_REMOTE_WRITE
						      : ALL);
		r = through(p, &w, op, 0, 8, 0);
		spoil(p, fault, &w, &r);
		qp_post(p->q[0], &r);
		pair_run(p, 5 * MS);
		expect_refused(p,
			       fault == NO_READ	    ? FX_WC_RDMA_READ
			       : fault == NO_ATOMIC ? FX_WC_FETCH_ADD
						    : FX_WC_RDMA_WRITE,
			       0);
		pair_check_blank(p, 1, 0, PAIR_MEM);
		pair_destroy(p);
	}
}

/* Type 2 is for one connection, type 1 for the whole domain. */
static void test_other_qp(void **state)
{
	(void)state;
	for (unsigned type = FX_MW_TYPE_1; type <= FX_MW_TYPE_2; type++) {
		struct pair *p = start(NULL);
		struct qp *q[2];
		struct win w;
		struct wr r;

		second(p, q);
		win_alloc(p, &w, type, 3);
		bind_now(p, &w, ALL);
		r = through(p, &w, FX_WR_WRITE, 0, 8, 0);
		qp_post(q[0], &r);
		pair_run(p, 5 * MS);
		assert_int_equal(p->n[0], 1);
		assert_int_equal(p->cqe[0][0].status,
				 type == FX_MW_TYPE_1 ? FX_WC_SUCCESS : FX_WC_REM_ACCESS_ERR);
		assert_int_equal(pair_counters(p, 1)->rx_remote_access, type == FX_MW_TYPE_2);
		second_end(q);
		pair_destroy(p);
	}
}

/* A window's key is no lkey. */
static void test_no_lkey(void **state)
{
	struct pair *p = start(NULL);
	struct win w;
	struct wr r;

	(void)state;
	win_alloc(p, &w, FX_MW_TYPE_1, 3);
	bind_now(p, &w, ALL);
	r = pair_wr(p, 1, FX_WR_WRITE, OFF, 8, 0);
	r.sge[0].lkey = w.rkey;
	qp_post(p->q[1], &r);
	pair_run(p, 5 * MS);
	pair_expect(p, 1, FX_WC_RDMA_WRITE, 1, FX_WC_LOC_PROT_ERR);
	pair_destroy(p);
}

/* ---- binding ---- */

enum bad_bind {
	B_NO_WINDOW,
	B_OTHER_PD,
	B_KEY,
	B_RIGHTS,
	B_NO_REGION,
	B_REGION_PD,
	B_NOT_BINDABLE,
	B_READ_ONLY,
	B_TOO_LOW,
	B_TOO_LONG,
	B_WRAPS,
	B_ZERO_BASED_1,
	B_EMPTY_2,
	B_BOUND_2,
	B_DATA,
	BAD_BINDS
};

static void spoil_bind(struct pair *p, enum bad_bind bad, struct win *w, struct fx_bind_slot *b)
{
	struct fx_mr *mr = &p->mem[1]->mr;

	switch (bad) {
	case B_NO_WINDOW:
		b->window = b->rkey = mr->key;
		break;
	case B_OTHER_PD:
		w->mw.pd = 2;
		break;
	case B_KEY: /* more than the tag */
		b->rkey ^= 1u << FX_KEY_TAG_BITS;
		break;
	case B_RIGHTS:
		b->access |= FX_ACC_MW_BIND;
		break;
	case B_NO_REGION:
		b->lkey ^= 1;
		break;
	case B_REGION_PD:
		mr->pd = 2;
		break;
	case B_NOT_BINDABLE:
		mr->access &= ~(uint32_t)FX_ACC_MW_BIND;
		break;
	case B_READ_ONLY:
		mr->access &= ~(uint32_t)FX_ACC_LOCAL_WRITE;
		b->access = FX_ACC_REMOTE_ATOMIC;
		break;
	case B_TOO_LOW:
		b->addr = mr->iova - 1;
		break;
	case B_TOO_LONG:
		b->length = PAIR_MEM - OFF + 1;
		break;
	case B_WRAPS:
		b->length = UINT64_MAX;
		break;
	case B_ZERO_BASED_1:
		b->access |= FX_ACC_ZERO_BASED;
		break;
	case B_EMPTY_2:
		b->length = 0;
		break;
	case B_DATA:
		b->rsvd = 1; /* where other requests have their number of SGEs */
		break;
	default:
		break;
	}
}

static void test_bad_binds(void **state)
{
	(void)state;
	for (unsigned i = 0; i < BAD_BINDS; i++) {
		struct pair *p = start(NULL);
		struct fx_bind_slot b;
		struct win w;

		win_alloc(p, &w, i == B_ZERO_BASED_1 ? FX_MW_TYPE_1 : FX_MW_TYPE_2, 3);
		if (i == B_BOUND_2)
			bind_now(p, &w, ALL);
		b = bind_of(p, &w, ALL);
		pair_post(p, 1, FX_WR_WRITE, 0, 3000, 0); /* what was sent before completes first */
		if (i == B_REGION_PD)
			pair_run(p, 100 * US); /* it is from that region */
		spoil_bind(p, i, &w, &b);
		qp_post_bind(p->q[1], &b);
		pair_post(p, 1, FX_WR_WRITE, 0, 3000, 0);
		pair_run(p, 5 * MS);
		pair_expect(p, 1, FX_WC_RDMA_WRITE, i == B_BOUND_2, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_BIND_MW, 1 + (i == B_BOUND_2),
			    i == B_DATA ? FX_WC_LOC_QP_OP_ERR : FX_WC_MW_BIND_ERR);
		pair_expect(p, 1, FX_WC_RDMA_WRITE, 2 + (i == B_BOUND_2), FX_WC_WR_FLUSH_ERR);
		assert_int_equal(pair_state(p, 1), ERR);
		assert_int_equal(pair_counters(p, 1)->mw_errors, i != B_DATA);
		assert_int_equal(p->mem[1]->mr.windows, i == B_BOUND_2);
		pair_destroy(p);
	}
}

/* Rights that a region's own key does not give, since only writing needs one. */
static void test_more_than_the_region(void **state)
{
	struct pair *p = start(NULL);
	struct win w;

	(void)state;
	p->mem[1]->mr.access = FX_ACC_LOCAL_WRITE | FX_ACC_MW_BIND;
	win_alloc(p, &w, FX_MW_TYPE_2, 3);
	bind_now(p, &w,
		 ALL | FX_ACC_LOCAL_WRITE); /* which is the region's to give, and gives peers nothing */
	use(p, &w);
	pair_destroy(p);
}

/* Type 1 is bound anew: the old key is dead, the new one good; and unbound at last. */
static void test_rebind(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct pair *p = start(NULL);
		struct fx_bind_slot none;
		struct win w, old;

		win_alloc(p, &w, FX_MW_TYPE_1, 3);
		bind_now(p, &w, ALL);
		old = w;
		bind_now(p, &w, ALL);
		assert_int_equal(p->mem[1]->mr.windows, 1);
		none = bind_of(p, &w, 0);
		none.length = none.lkey = none.addr = 0;
		if (i == 2) {
			qp_post_bind(p->q[1], &none);
			pair_run(p, 100 * US);
			pair_expect(p, 1, FX_WC_BIND_MW, 2, FX_WC_SUCCESS);
			assert_int_equal(p->mem[1]->mr.windows, 0);
			w.rkey = none.rkey;
		}
		post_through(p, i == 0 ? &old : &w, FX_WR_WRITE, 0, 100, 0);
		pair_run(p, 5 * MS);
		if (i == 1)
			pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
		else
			expect_refused(p, FX_WC_RDMA_WRITE, 0);
		pair_destroy(p);
	}
}

/* A reset ends what type 2 was bound for, and frees it. */
static void test_reset(void **state)
{
	struct pair *p = start(NULL);
	struct win w;

	(void)state;
	win_alloc(p, &w, FX_MW_TYPE_2, 3);
	bind_now(p, &w, ALL);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(qp_state(p->q[i], RESET), 0);
	pair_connect(p);
	post_through(p, &w, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 5 * MS);
	expect_refused(p, FX_WC_RDMA_WRITE, 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(qp_state(p->q[i], RESET), 0);
	pair_connect(p);
	bind_now(p, &w, ALL);
	assert_int_equal(p->mem[1]->mr.windows, 1);
	post_through(p, &w, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 5 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_SUCCESS);
	pair_destroy(p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bound),	  cmocka_unit_test(test_refused),
		cmocka_unit_test(test_other_qp),  cmocka_unit_test(test_no_lkey),
		cmocka_unit_test(test_bad_binds), cmocka_unit_test(test_more_than_the_region),
		cmocka_unit_test(test_rebind),	  cmocka_unit_test(test_reset),
	};

	return cmocka_run_group_tests_name("sim_windows", tests, NULL, NULL);
}
