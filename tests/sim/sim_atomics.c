/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Atomics, one situation at a time: what they return and leave, exactly once, and every way to refuse one.
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

enum { RESET = 0, RTS = 3, ERR = 6 };
enum { WORD = 4096, LAND = 100 }; /* where the word is at host 1, and results land at host 0 */

#define ALL_BUT_ATOMIC (FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ)

static uint64_t word_at(const struct pair *p, unsigned at, uint32_t off)
{
	uint64_t v;

	memcpy(&v, p->mem[at]->bytes + off, sizeof(v));
	return v;
}

static void set_word(struct pair *p, unsigned at, uint32_t off, uint64_t v)
{
	memcpy(p->mem[at]->bytes + off, &v, sizeof(v));
}

static struct wr atomic_wr(struct pair *p, uint8_t op, uint32_t land, uint64_t compare_add, uint64_t swap)
{
	struct wr w = pair_wr(p, 0, op, land, 8, WORD);

	w.compare_add = compare_add;
	w.swap = swap;
	return w;
}

static void post_atomic(struct pair *p, uint8_t op, uint32_t land, uint64_t compare_add, uint64_t swap)
{
	struct wr w = atomic_wr(p, op, land, compare_add, swap);

	qp_post(p->q[0], &w);
}

/* ---- what goes well ---- */

static void one_of_each(struct pair *p)
{
	set_word(p, 1, WORD, 0x0102030405060708);
	post_atomic(p, FX_WR_FETCH_ADD, LAND, 0x10, 0x999);
	post_atomic(p, FX_WR_CMP_SWAP, LAND + 11, 0x0102030405060718, 42); /* a landing needs no alignment */
	post_atomic(p, FX_WR_CMP_SWAP, LAND + 200, 7, 43);		   /* it is 42: no swap */
	post_atomic(p, FX_WR_FETCH_ADD, LAND + 300, (uint64_t)-43, 0);
	pair_run(p, 2 * MS);
	assert_int_equal(p->cqe[0][0].byte_len, 8);
	pair_expect(p, 0, FX_WC_FETCH_ADD, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_COMP_SWAP, 1, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_COMP_SWAP, 2, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_FETCH_ADD, 3, FX_WC_SUCCESS);
	assert_int_equal(word_at(p, 0, LAND), 0x0102030405060708);
	assert_int_equal(word_at(p, 0, LAND + 11), 0x0102030405060718);
	assert_int_equal(word_at(p, 0, LAND + 200), 42);
	assert_int_equal(word_at(p, 0, LAND + 300), 42);
	assert_int_equal(word_at(p, 1, WORD), UINT64_MAX);
	pair_check_blank(p, 0, 0, LAND);
	pair_check_blank(p, 0, LAND + 19, 181);
	pair_check_blank(p, 1, 0, WORD);
	pair_check_blank(p, 1, WORD + 8, 4096);
	/* a request and a response each, and no acknowledge */
	assert_int_equal(pair_sent(p, 0, -1), 4);
	assert_int_equal(pair_sent(p, 1, FX_OP_ATOMIC_ACKNOWLEDGE), 4);
	assert_int_equal(pair_sent(p, 1, -1), 4);
	assert_int_equal(pair_counters(p, 1)->rx_atomics, 4);
}

static void test_one_of_each(void **state)
{
	static const enum mem_kind kinds[] = {MEM_FLAT, MEM_RUNS, MEM_SOME_SLOW, MEM_SLOW};

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		const struct pair_opt opt = {.kind = kinds[i / 2], .chaos = i % 2};
		struct pair *p = pair_create(&opt);

		one_of_each(p);
		pair_destroy(p);
	}
}

/* As many under way as the peer has resources for, together with READs. */
static void test_limit(void **state)
{
	const struct pair_opt opt = {.rd_atomic = 3};
	struct pair *p = pair_create(&opt);

	(void)state;
	p->cut[1] = true;
	pair_post(p, 0, FX_WR_READ, 0, 100, 0);
	for (unsigned i = 0; i < 6; i++)
		post_atomic(p, FX_WR_FETCH_ADD, LAND, 1, 0);
	pair_run(p, 500 * US);
	assert_int_equal(pair_sent(p, 0, FX_OP_READ_REQUEST), 1);
	assert_int_equal(pair_sent(p, 0, FX_OP_FETCH_ADD), 2);
	pair_destroy(p);
}

/*
 * Contract 1: an atomic sees every WRITE before it; and a WRITE behind it, fenced, goes over what it left. Answers
 * come in the order of the requests.
 */
static void test_order(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		const struct pair_opt opt = {.chaos = i & 1, .kind = i & 2 ? MEM_SLOW : MEM_FLAT};
		struct pair *p = pair_create(&opt);
		static const uint8_t want[] = {FX_OP_READ_RESP_FIRST, FX_OP_READ_RESP_LAST,
					       FX_OP_ATOMIC_ACKNOWLEDGE, FX_OP_READ_RESP_ONLY};
		unsigned n = 0;
		struct wr w;

		set_word(p, 0, 0, 1000);
		set_word(p, 0, 8, 2000);
		pair_post(p, 0, FX_WR_READ, 8192, 2000, 20000);
		pair_post(p, 0, FX_WR_WRITE, 0, 8, WORD);
		post_atomic(p, FX_WR_FETCH_ADD, LAND, 5, 0);
		pair_post(p, 0, FX_WR_READ, LAND + 100, 8, WORD);
		w = pair_wr(p, 0, FX_WR_WRITE, 8, 8, WORD);
		w.flags |= FX_WRF_FENCE;
		qp_post(p->q[0], &w);
		pair_run(p, 5 * MS);
		assert_int_equal(word_at(p, 0, LAND), 1000);
		assert_int_equal(word_at(p, 0, LAND + 100), 1005);
		assert_int_equal(word_at(p, 1, WORD), 2000);
		for (unsigned k = 0; k < p->nlog; k++)
			if (p->log[k].from == 1 && p->log[k].bth.opcode != FX_OP_ACKNOWLEDGE) {
				assert_true(n < 4);
				assert_int_equal(p->log[k].bth.opcode, want[n++]);
			}
		assert_int_equal(n, 4);
		pair_destroy(p);
	}
}

/* ---- exactly once ---- */

static enum pair_fate drop_first_result(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	return from == 1 && bth->opcode == FX_OP_ATOMIC_ACKNOWLEDGE && p->count++ == 0 ? DROP : PASS;
}

/* The result is lost: the atomic is asked for again, answered with what it found, and not done again. */
static void test_duplicate_answered(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	p->fate = drop_first_result;
	set_word(p, 1, WORD, 100);
	post_atomic(p, FX_WR_FETCH_ADD, LAND, 1, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_FETCH_ADD, 0, FX_WC_SUCCESS);
	assert_int_equal(word_at(p, 0, LAND), 100);
	assert_int_equal(word_at(p, 1, WORD), 101);
	assert_int_equal(pair_counters(p, 1)->rx_atomics, 1);
	assert_int_equal(pair_counters(p, 1)->rx_duplicates, 1);
	assert_int_equal(pair_counters(p, 0)->timeouts, 1);
	pair_destroy(p);
}

/* Four under way, the first result lost: later ones show the gap, all four are answered again. */
static void test_duplicates_in_order(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	p->fate = drop_first_result;
	set_word(p, 1, WORD, 0);
	for (unsigned i = 0; i < 4; i++)
		post_atomic(p, FX_WR_FETCH_ADD, LAND + 8 * i, 1, 0);
	pair_run(p, 1 * MS - 100 * US); /* before any timeout */
	for (unsigned i = 0; i < 4; i++) {
		pair_expect(p, 0, FX_WC_FETCH_ADD, i, FX_WC_SUCCESS);
		assert_int_equal(word_at(p, 0, LAND + 8 * i), i);
	}
	assert_int_equal(word_at(p, 1, WORD), 4);
	assert_int_equal(pair_counters(p, 1)->rx_atomics, 4);
	pair_destroy(p);
}

static struct {
	uint8_t bytes[256];
	uint32_t len;
} kept; /* the first atomic request that left */

static bool keep_first(void *arg, struct frame *f, const struct fx_bth *bth)
{
	(void)arg;
	if (bth->opcode == FX_OP_FETCH_ADD && !kept.len) {
		assert_in_range(f->pkt.total, 1, sizeof(kept.bytes));
		memcpy(kept.bytes, f->pkt.frame, f->pkt.total);
		kept.len = f->pkt.total;
	}
	return false;
}

/* A duplicate is answered while its result is kept, and dropped from then on; done again never. */
static void test_forgotten(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	kept.len = 0;
	p->s->tap = keep_first;
	set_word(p, 1, WORD, 0);
	for (unsigned i = 0; i < 16; i++)
		post_atomic(p, FX_WR_FETCH_ADD, LAND, 1, 0);
	pair_run(p, 2 * MS);
	net_inject(p->s, p->h[1], kept.bytes, kept.len, 1);
	pair_run(p, 1 * MS);
	assert_int_equal(pair_counters(p, 1)->rx_duplicates, 1);
	assert_int_equal(pair_counters(p, 1)->rx_atomic_forgotten, 0);
	assert_int_equal(pair_counters(p, 0)->rx_bad_response, 1); /* nobody waits for it any more */
	post_atomic(p, FX_WR_FETCH_ADD, LAND, 1, 0);
	pair_run(p, 1 * MS);
	net_inject(p->s, p->h[1], kept.bytes, kept.len, 1);
	pair_run(p, 1 * MS);
	assert_int_equal(pair_counters(p, 1)->rx_atomic_forgotten, 1);
	assert_int_equal(pair_counters(p, 0)->rx_bad_response, 1);
	assert_int_equal(word_at(p, 1, WORD), 17);
	assert_int_equal(p->n[0], 17);
	assert_int_equal(pair_state(p, 1), RTS);
	pair_destroy(p);
}

/* What an earlier life of the QP did is no answer for the next. */
static void test_reset_forgets(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	kept.len = 0;
	p->s->tap = keep_first;
	post_atomic(p, FX_WR_FETCH_ADD, LAND, 1, 0);
	pair_run(p, 1 * MS);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(qp_state(p->q[i], RESET), 0);
	p->attr.psn[0] = 0xfffff1;
	pair_connect(p);
	net_inject(p->s, p->h[1], kept.bytes, kept.len, 1);
	pair_run(p, 1 * MS);
	assert_int_equal(pair_counters(p, 1)->rx_atomic_forgotten, 1);
	assert_int_equal(pair_counters(p, 1)->rx_atomics, 1);
	pair_destroy(p);
}

/* ---- refused ---- */

enum fault {
	MISALIGNED,
	QP_RIGHTS,
	MR_RIGHTS,
	OTHER_SECRET,
	NO_REGION,
	TOO_FAR,
	OTHER_PD,
	WINDOW_MISALIGNED,
	FAULTS
};

static const struct {
	uint8_t status;
	size_t counter;
} refusals[FAULTS] = {
	[MISALIGNED] = {FX_WC_REM_INV_REQ_ERR, offsetof(struct fx_counters, rx_invalid_request)},
	[QP_RIGHTS] = {FX_WC_REM_ACCESS_ERR, offsetof(struct fx_counters, rx_remote_access)},
	[MR_RIGHTS] = {FX_WC_REM_ACCESS_ERR, offsetof(struct fx_counters, rx_remote_access)},
	[OTHER_SECRET] = {FX_WC_REM_ACCESS_ERR, offsetof(struct fx_counters, rx_remote_access)},
	[NO_REGION] = {FX_WC_REM_ACCESS_ERR, offsetof(struct fx_counters, rx_remote_access)},
	[TOO_FAR] = {FX_WC_REM_ACCESS_ERR, offsetof(struct fx_counters, rx_remote_access)},
	[OTHER_PD] = {FX_WC_REM_ACCESS_ERR, offsetof(struct fx_counters, rx_remote_access)},
	[WINDOW_MISALIGNED] = {FX_WC_REM_OP_ERR, offsetof(struct fx_counters, dma_errors)},
};

static void spoil(struct pair *p, enum fault fault, struct wr *w)
{
	struct fx_mr *mr = &p->mem[1]->mr;

	switch (fault) {
	case MISALIGNED:
		w->remote_addr += 4;
		break;
	case MR_RIGHTS:
		mr->access = ALL_BUT_ATOMIC;
		break;
	case OTHER_SECRET:
		w->rkey ^= 1;
		break;
	case NO_REGION:
		w->rkey += 77u << FX_KEY_RAND_BITS;
		break;
	case TOO_FAR:
		mr->length = WORD + 4;
		break;
	case OTHER_PD:
		mr->pd = 2;
		break;
	case WINDOW_MISALIGNED: /* a region whose addresses are not those of its memory */
		mr->iova += 4;
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
		const struct pair_opt opt = {.access = fault == QP_RIGHTS ? ALL_BUT_ATOMIC : 0};
		uint8_t op = i % 2 ? FX_WR_CMP_SWAP : FX_WR_FETCH_ADD;
		struct pair *p = pair_create(&opt);
		struct wr w = atomic_wr(p, op, LAND, OR_POISON * 0x0101010101010101u, 1);

		spoil(p, fault, &w);
		qp_post(p->q[0], &w);
		post_atomic(p, FX_WR_FETCH_ADD, LAND, 1, 0);
		pair_run(p, 20 * MS);
		pair_expect(p, 0, i % 2 ? FX_WC_COMP_SWAP : FX_WC_FETCH_ADD, 0, refusals[fault].status);
		pair_expect(p, 0, FX_WC_FETCH_ADD, 1, FX_WC_WR_FLUSH_ERR);
		assert_int_equal(pair_state(p, 0), ERR);
		assert_int_equal(pair_state(p, 1), ERR);
		assert_int_equal(*(uint64_t *)((char *)pair_counters(p, 1) + refusals[fault].counter), 1);
		assert_int_equal(pair_counters(p, 1)->rx_atomics, 0);
		pair_check_blank(p, 0, 0, PAIR_MEM);
		pair_check_blank(p, 1, 0, PAIR_MEM);
		pair_destroy(p);
	}
}

/* What is wrong at home fails before anything is sent: an atomic cannot be undone. */
static void test_local_errors(void **state)
{
	enum { SHORT, NO_LKEY, READ_ONLY, NO_SGE, TWO_SGES, NO_RESOURCES, CASES };
	static const uint8_t status[CASES] = {FX_WC_LOC_LEN_ERR,   FX_WC_LOC_PROT_ERR,	FX_WC_LOC_PROT_ERR,
					      FX_WC_LOC_QP_OP_ERR, FX_WC_LOC_QP_OP_ERR, FX_WC_LOC_QP_OP_ERR};

	(void)state;
	for (unsigned i = 0; i < CASES; i++) {
		struct pair *p = pair_create(NULL);
		struct wr w = atomic_wr(p, FX_WR_FETCH_ADD, LAND, 1, 0);

		if (i == SHORT)
			w.sge[0].length = 7;
		else if (i == NO_LKEY)
			w.sge[0].lkey ^= 1;
		else if (i == READ_ONLY)
			p->mem[0]->mr.access = FX_ACC_REMOTE_READ;
		else if (i == NO_SGE || i == TWO_SGES)
			w.nsge = i == NO_SGE ? 0 : 2;
		w.sge[1] = w.sge[0];
		if (i == NO_RESOURCES) {
			for (unsigned k = 0; k < 2; k++)
				assert_int_equal(qp_state(p->q[k], RESET), 0);
			p->attr.rd_atomic = 0;
			pair_connect(p);
		}
		qp_post(p->q[0], &w);
		pair_run(p, 5 * MS);
		pair_expect(p, 0, FX_WC_FETCH_ADD, 0, status[i]);
		assert_int_equal(pair_state(p, 0), ERR);
		assert_int_equal(pair_sent(p, 0, -1), 0);
		pair_destroy(p);
	}
}

/* While it waits behind slow copies its region goes, or theirs (guarantee L2): either way it does not happen. */
static void test_region_gone(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		const struct pair_opt opt = {.chaos = true};
		struct pair *p = pair_create(&opt);
		struct mem *other = mem_create(p->h[1], PAIR_MEM, ALL_BUT_ATOMIC, MEM_FLAT, &p->rng);
		struct wr w = pair_wr(p, 0, FX_WR_WRITE, 8192, 60000, 0);

		w.remote_addr = other->mr.iova;
		w.rkey = other->mr.key;
		qp_post(p->q[0], &w);
		post_atomic(p, FX_WR_FETCH_ADD, LAND, 1, 0);
		while (pair_info(p, 1).rq_psn != fx_psn_add(0xfffff0, 60))
			pair_run(p, 100);
		mem_revoke(p->h[1], i ? other : p->mem[1]);
		pair_run(p, 20 * MS);
		assert_int_equal(pair_counters(p, 1)->rx_atomics, 0);
		assert_int_equal(pair_state(p, 0), ERR);
		assert_int_equal(pair_state(p, 1), ERR);
		pair_check_blank(p, 1, 0, PAIR_MEM);
		pair_destroy(p);
		mem_destroy(other);
	}
}

/* ---- atomic WRITEs ---- */

static void post_store(struct pair *p, uint64_t v, uint32_t len, uint32_t at)
{
	memcpy(p->mem[0]->bytes + LAND, &v, sizeof(v));
	pair_post(p, 0, FX_WR_ATOMIC_WRITE, LAND, len, at);
}

static enum pair_fate no_acks(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	(void)bth;
	return from == 1 && p->count++ < 2 ? DROP : PASS;
}

/* Its bytes lie in memory as they did, it is acknowledged like a WRITE, and takes no READ's place. */
static void test_store(void **state)
{
	static const enum mem_kind kinds[] = {MEM_FLAT, MEM_RUNS, MEM_SOME_SLOW, MEM_SLOW};

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		const struct pair_opt opt = {.kind = kinds[i / 2], .chaos = i % 2};
		struct pair *p = pair_create(&opt);

		set_word(p, 1, WORD, 77);
		post_store(p, 0x0102030405060708, 8, WORD);
		pair_run(p, 2 * MS);
		pair_expect(p, 0, FX_WC_ATOMIC_WRITE, 0, FX_WC_SUCCESS);
		pair_expect_none(p, 1);
		assert_int_equal(word_at(p, 1, WORD), 0x0102030405060708);
		pair_check_blank(p, 1, 0, WORD);
		pair_check_blank(p, 1, WORD + 8, 4096);
		assert_int_equal(pair_sent(p, 0, FX_OP_ATOMIC_WRITE), 1);
		assert_int_equal(pair_sent(p, 1, FX_OP_ACKNOWLEDGE), 1);
		assert_int_equal(pair_sent(p, 1, -1), 1);
		pair_destroy(p);
	}
}

/* Seen again it is acknowledged again, and does not undo what came after it. */
static void test_store_once(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	p->fate = no_acks;
	post_store(p, 5, 8, WORD);
	pair_run(p, 100 * US);
	assert_int_equal(word_at(p, 1, WORD), 5);
	set_word(p, 1, WORD, 6);
	pair_run(p, 500 * MS);
	pair_expect(p, 0, FX_WC_ATOMIC_WRITE, 0, FX_WC_SUCCESS);
	assert_true(pair_sent(p, 0, FX_OP_ATOMIC_WRITE) > 1);
	assert_int_equal(word_at(p, 1, WORD), 6);
	pair_destroy(p);
}

/* Between WRITEs, each sees the one before it. */
static void test_store_in_order(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		const struct pair_opt opt = {.kind = MEM_SOME_SLOW, .chaos = true};
		struct pair *p = pair_create(&opt);

		pair_fill(p, 0, 0, 8192, 3);
		pair_post(p, 0, FX_WR_WRITE, 0, 8192, WORD - 4096);
		post_store(p, 9, 8, WORD);
		post_atomic(p, FX_WR_FETCH_ADD, LAND + 8, 1, 0);
		pair_run(p, 5 * MS);
		pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
		pair_expect(p, 0, FX_WC_ATOMIC_WRITE, 1, FX_WC_SUCCESS);
		pair_expect(p, 0, FX_WC_FETCH_ADD, 2, FX_WC_SUCCESS);
		assert_int_equal(word_at(p, 0, LAND + 8), 9);
		assert_int_equal(word_at(p, 1, WORD), 10);
		pair_destroy(p);
	}
}

static void test_store_refused(void **state)
{
	static const struct {
		uint32_t len, at, access;
		uint8_t status;
	} cases[] = {
		{8, WORD + 4, 0, FX_WC_REM_INV_REQ_ERR},
		{7, WORD, 0, FX_WC_LOC_LEN_ERR},
		{16, WORD, 0, FX_WC_LOC_LEN_ERR},
		{8, WORD, FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC,
		 FX_WC_REM_ACCESS_ERR},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct pair_opt opt = {.access = cases[i].access};
		struct pair *p = pair_create(&opt);

		set_word(p, 1, WORD, 77);
		post_store(p, 5, cases[i].len, cases[i].at);
		pair_run(p, 5 * MS);
		pair_expect(p, 0, FX_WC_ATOMIC_WRITE, 0, cases[i].status);
		assert_int_equal(word_at(p, 1, WORD), 77);
		assert_int_equal(pair_state(p, 0), ERR);
		pair_destroy(p);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_of_each),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_duplicate_answered),
		cmocka_unit_test(test_duplicates_in_order),
		cmocka_unit_test(test_forgotten),
		cmocka_unit_test(test_reset_forgets),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_local_errors),
		cmocka_unit_test(test_region_gone),
		cmocka_unit_test(test_store),
		cmocka_unit_test(test_store_once),
		cmocka_unit_test(test_store_in_order),
		cmocka_unit_test(test_store_refused),
	};

	return cmocka_run_group_tests_name("sim_atomics", tests, NULL, NULL);
}
