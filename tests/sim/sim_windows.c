/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory windows, one situation at a time: what a bound one lets through and what not, every bind and invalidation that
 * is refused, and that neither completes before what was let through is over. Host 1 binds, host 0 reaches through.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pair.h"

enum { RESET = 0, RTS = 3, SQD = 4, ERR = 6, M_STATE = 1 };
enum { OFF = 8192, LEN = 65536 }; /* of host 1's memory, in the window */
enum { ALL = FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC };

struct win {
	struct fx_mw mw;
	uint32_t rkey; /* as the application knows it */
	uint64_t va;   /* of byte 0 of the window, as host 0 says it */
};

static struct pair *start(const struct pair_opt *opt)
{
	struct pair *p = pair_create(opt);

	p->mem[1]->mr.access |= FX_ACC_MW_BIND;
	return p;
}

static void win_alloc(struct pair *p, struct win *w, uint32_t type, uint32_t slot)
{
	*w = (struct win){.mw = {.pd = 1, .type = type}};
	mw_publish(p->h[1], &w->mw, slot, (uint32_t)rng_next(&p->rng));
	w->rkey = w->mw.key;
}

static struct fx_bind_slot bind_of(const struct pair *p, const struct win *w, uint32_t access)
{
	return (struct fx_bind_slot){.flags = FX_WRF_SIGNALED,
				     .window = w->mw.key,
				     .rkey = (w->rkey & ~FX_KEY_TAG) | ((w->rkey + 1) & FX_KEY_TAG),
				     .addr = mem_va(p->mem[1], p->mem[1]->bytes + OFF),
				     .length = LEN,
				     .lkey = p->mem[1]->mr.key,
				     .access = access};
}

static void post_bind(struct pair *p, struct win *w, uint32_t access)
{
	struct fx_bind_slot b = bind_of(p, w, access);

	w->rkey = b.rkey;
	w->va = access & FX_ACC_ZERO_BASED ? 0 : b.addr;
	qp_post_bind(p->q[1], &b);
}

/* Binds, and sees it complete as host 1's next. */
static void bind_now(struct pair *p, struct win *w, uint32_t access)
{
	uint32_t index = p->q[1]->sq_index;

	post_bind(p, w, access);
	pair_run(p, 100 * US);
	pair_expect(p, 1, FX_WC_BIND_MW, index, FX_WC_SUCCESS);
}

static void post_inv(struct pair *p, uint32_t rkey)
{
	const struct wr w = {.op = FX_WR_LOCAL_INV, .flags = FX_WRF_SIGNALED, .imm = rkey};

	qp_post(p->q[1], &w);
}

/* Host 0's request for `len` bytes at `at` of the window, from or to `off` of its own memory. */
static struct wr through(struct pair *p, const struct win *w, uint8_t op, uint32_t off, uint32_t len, uint64_t at)
{
	struct wr r = pair_wr(p, 0, op, off, len, 0);

	r.remote_addr = w->va + at;
	r.rkey = w->rkey;
	r.compare_add = 1;
	return r;
}

static void post_through(struct pair *p, const struct win *w, uint8_t op, uint32_t off, uint32_t len, uint64_t at)
{
	struct wr r = through(p, w, op, off, len, at);

	qp_post(p->q[0], &r);
}

static void post_send_inv(struct pair *p, uint32_t rkey, uint32_t off, uint32_t len)
{
	struct wr r = pair_wr(p, 0, FX_WR_SEND_INV, off, len, 0);

	r.imm = rkey;
	qp_post(p->q[0], &r);
}

/* A second connection between the same hosts, in the same domain. */
static void second(struct pair *p, struct qp *q[2])
{
	for (unsigned i = 0; i < 2; i++) {
		struct fx_qp_cfg cfg = p->q[i]->cfg;

		cfg.qpn += 16 << FX_WORKER_BITS;
		q[i] = qp_create(p->h[i], &cfg, p->cq[i], p->cq[i], 0, 0);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(qp_connect(q[i], q[!i], &p->attr), 0);
}

static void second_end(struct qp *q[2])
{
	for (unsigned i = 0; i < 2; i++)
		assert_true(qp_destroy(q[i]));
}

/* Host 0's next request is refused, and its connection over. */
static void expect_refused(struct pair *p, uint8_t opcode, uint32_t index)
{
	pair_expect(p, 0, opcode, index, FX_WC_REM_ACCESS_ERR);
	assert_int_equal(pair_state(p, 0), ERR);
	assert_int_equal(pair_state(p, 1), ERR);
	assert_true(pair_counters(p, 1)->rx_remote_access > 0);
}

/* ---- bound ---- */

static void use(struct pair *p, const struct win *w)
{
	uint64_t word = 41;

	pair_fill(p, 0, 0, 10000, 3);
	memcpy(p->mem[1]->bytes + OFF + LEN - 8, &word, 8);
	post_through(p, w, FX_WR_WRITE, 0, 10000, 5);
	post_through(p, w, FX_WR_READ, 20000, 10000, 5);
	post_through(p, w, FX_WR_FETCH_ADD, 40000, 8, LEN - 8);
	pair_run(p, 5 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 1, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_FETCH_ADD, 2, FX_WC_SUCCESS);
	pair_check_blank(p, 1, 0, OFF + 5);
	pair_check(p, 1, OFF + 5, 10000, 3);
	pair_check_blank(p, 1, OFF + 10005, LEN - 10013);
	pair_check(p, 0, 20000, 10000, 3);
	memcpy(&word, p->mem[1]->bytes + OFF + LEN - 8, 8);
	assert_int_equal(word, 42);
	memcpy(&word, p->mem[0]->bytes + 40000, 8);
	assert_int_equal(word, 41);
	assert_int_equal(w->mw.held, 0);
}

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

enum fault { NO_READ, NO_WRITE, NO_ATOMIC, QP_RIGHTS, BEFORE, BEHIND, WRAPS, OLD_TAG, OTHER_PD, UNBOUND, NO_WINDOW,
	     REGION_GONE, REGION_CHANGED, REGION_MOVED, FAULTS };

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
		uint8_t op = fault == NO_READ ? FX_WR_READ : fault == NO_ATOMIC ? FX_WR_FETCH_ADD : FX_WR_WRITE;
		struct win w;
		struct wr r;

		win_alloc(p, &w, 1 + i % 2, 3);
		if (fault != UNBOUND)
			bind_now(p, &w, fault == NO_READ     ? FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_ATOMIC
					: fault == NO_WRITE  ? FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC
					: fault == NO_ATOMIC ? FX_ACC_REMOTE_READ | FX_ACC_REMOTE_WRITE
							     : ALL);
		r = through(p, &w, op, 0, 8, 0);
		spoil(p, fault, &w, &r);
		qp_post(p->q[0], &r);
		pair_run(p, 5 * MS);
		expect_refused(p, op == FX_WR_READ ? FX_WC_RDMA_READ : op == FX_WR_WRITE ? FX_WC_RDMA_WRITE : FX_WC_FETCH_ADD, 0);
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
		assert_int_equal(p->cqe[0][0].status, type == FX_MW_TYPE_1 ? FX_WC_SUCCESS : FX_WC_REM_ACCESS_ERR);
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

enum bad_bind { B_NO_WINDOW, B_OTHER_PD, B_KEY, B_RIGHTS, B_NO_REGION, B_REGION_PD, B_NOT_BINDABLE, B_READ_ONLY, B_TOO_LOW,
		B_TOO_LONG, B_WRAPS, B_ZERO_BASED_1, B_EMPTY_2, B_BOUND_2, B_DATA, BAD_BINDS };

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
		b->access |= FX_ACC_LOCAL_WRITE;
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
	bind_now(p, &w, ALL);
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
	return bad == I_TAG ? w->rkey + 1 : bad == I_REGION ? p->mem[1]->mr.key : bad == I_NOTHING ? 0xfffff000 : w->rkey;
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

/* An invalidation waits for all that was posted before it; a bind for READs only, and if told to; neither runs in SQD. */
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

/* ---- what is under way ---- */

static void until_cqe(struct pair *p, unsigned at)
{
	for (unsigned i = 0; i < 200000 && !p->n[at]; i++)
		pair_run(p, 50);
	assert_true(p->n[at] > 0);
}

/*
 * Copies that were let in are in memory when the window's end is told (contract 1): by an invalidation, or by binding
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
		const struct pair_opt opt = {.mtu = 1024, .max_send = 64, .max_recv = 64, .max_sge = 4, .timeout = 8,
					     .retry_cnt = 7, .rnr_retry = 7, .rd_atomic = 4, .access = ALL, .cqes = 512,
					     .chaos = seed % 2, .kind = seed % 4 < 2 ? MEM_FLAT : MEM_SOME_SLOW};
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
		cmocka_unit_test(test_bound),	       cmocka_unit_test(test_refused),
		cmocka_unit_test(test_other_qp),       cmocka_unit_test(test_no_lkey),
		cmocka_unit_test(test_bad_binds),      cmocka_unit_test(test_more_than_the_region),
		cmocka_unit_test(test_rebind),	       cmocka_unit_test(test_reset),
		cmocka_unit_test(test_local_inv),      cmocka_unit_test(test_bad_invs),
		cmocka_unit_test(test_in_order),       cmocka_unit_test(test_blame),
		cmocka_unit_test(test_waits),	       cmocka_unit_test(test_copies_end),
		cmocka_unit_test(test_packets_end),    cmocka_unit_test(test_send_inv),
		cmocka_unit_test(test_bad_send_invs),  cmocka_unit_test(test_behind_send_inv),
		cmocka_unit_test(test_send_inv_again), cmocka_unit_test(test_storm),
	};

	return cmocka_run_group_tests_name("sim_windows", tests, NULL, NULL);
}
