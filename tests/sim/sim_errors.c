/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What goes wrong, one thing at a time: the status on either side, the states afterwards, and memory
 * untouched.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { RTS = 3, ERR = 6 };

/* ---- refused by the peer ---- */

/* WRITE, the bad one, WRITE: success, the refusal, flushed; both QPs in error; the middle one did nothing. */
static void expect_refused(struct pair *p, struct wr *bad, uint8_t opcode, uint8_t status)
{
	pair_fill(p, 0, 0, 3000, 1);
	pair_post(p, 0, FX_WR_WRITE, 0, 3000, 100000);
	qp_post(p->q[0], bad);
	pair_post(p, 0, FX_WR_WRITE, 0, 3000, 200000);
	pair_recv(p, 0, 300000, 10);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, opcode, 1, status);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 2, FX_WC_WR_FLUSH_ERR);
	pair_expect(p, 0, FX_WC_RECV, 0, FX_WC_WR_FLUSH_ERR);
	pair_expect_none(p, 0);
	assert_int_equal(pair_state(p, 0), ERR);
	assert_int_equal(pair_state(p, 1), ERR);
	assert_int_equal(p->h[0]->events, 0); /* the completion tells it */
	assert_int_equal(p->h[1]->events, 1);
	assert_int_equal(p->h[1]->event[FX_ASYNC_QP_ACCESS_ERR], 1);
	pair_check(p, 1, 100000, 3000, 1);
	pair_check_blank(p, 1, 0, 100000);
	pair_check_blank(p, 1, 103000, PAIR_MEM - 103000);
	pair_check_blank(p, 0, 3000, PAIR_MEM - 3000);
	assert_int_equal(pair_counters(p, 0)->timeouts, 0);
}

static void test_remote_access(void **state)
{
	static const uint8_t ops[] = {FX_WR_WRITE, FX_WR_WRITE_IMM, FX_WR_READ};

	(void)state;
	for (unsigned i = 0; i < 3 * 8; i++) {
		uint8_t op = ops[i % 3], wc = op == FX_WR_READ ? FX_WC_RDMA_READ : FX_WC_RDMA_WRITE;
		struct pair *p = pair_create(NULL);
		struct wr w = pair_wr(p, 0, op, op == FX_WR_READ ? 500000 : 0, 3000, 500000);
		struct mem *other = mem_create(p->h[1], PAIR_MEM, FX_ACC_LOCAL_WRITE, MEM_FLAT, &p->rng);

		memset(other->bytes, OR_POISON, PAIR_MEM);
		if (op == FX_WR_WRITE_IMM)
			pair_recv(p, 1, 700000, 100);
		switch (i / 3) {
		case 0:
			w.rkey ^= 1; /* another secret */
			break;
		case 1:
			w.rkey += 77u << FX_KEY_RAND_BITS; /* no such region */
			break;
		case 2:
			w.rkey = UINT32_MAX;
			break;
		case 3:
			w.remote_addr += PAIR_MEM - 500000 - 2999; /* one byte too far */
			break;
		case 4:
			w.remote_addr = p->mem[1]->mr.iova - 1;
			break;
		case 5:
			w.remote_addr = UINT64_MAX - 100; /* wraps */
			break;
		case 6: /* no remote rights */
			w.rkey = other->mr.key;
			w.remote_addr = other->mr.iova;
			break;
		default: /* another protection domain */
			other->mr.access = p->mem[1]->mr.access;
			other->mr.pd = 2;
			w.rkey = other->mr.key;
			w.remote_addr = other->mr.iova;
		}
		expect_refused(p, &w, wc, FX_WC_REM_ACCESS_ERR);
		for (uint32_t k = 0; k < PAIR_MEM; k += 997)
			assert_int_equal(other->bytes[k], OR_POISON);
		assert_int_equal(pair_counters(p, 1)->rx_remote_access, 1);
		mem_revoke(p->h[1], other);
		pair_destroy(p);
		mem_destroy(other);
	}
}

/* The region would allow it, the QP does not. */
static void test_qp_access(void **state)
{
	static const struct {
		uint32_t access;
		uint8_t op, wc;
	} rows[] = {
		{FX_ACC_LOCAL_WRITE, FX_WR_WRITE, FX_WC_RDMA_WRITE},
		{FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_READ, FX_WR_WRITE, FX_WC_RDMA_WRITE},
		{FX_ACC_LOCAL_WRITE, FX_WR_READ, FX_WC_RDMA_READ},
		{FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE, FX_WR_READ, FX_WC_RDMA_READ},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct pair_opt opt = {.access = rows[i].access};
		struct pair *p = pair_create(&opt);

		pair_post(p, 0, rows[i].op, 0, 100, 0);
		pair_run(p, 20 * MS);
		pair_expect(p, 0, rows[i].wc, 0, FX_WC_REM_ACCESS_ERR);
		assert_int_equal(pair_state(p, 1), ERR);
		pair_check_blank(p, 1, 0, 100);
		pair_destroy(p);
	}
}

/* Nothing is accessed, so no key is needed. */
static void test_zero_length_needs_no_key(void **state)
{
	struct pair *p = pair_create(NULL);
	struct wr w = pair_wr(p, 0, FX_WR_WRITE, 0, 0, 0), r = pair_wr(p, 0, FX_WR_READ, 0, 0, 0);

	(void)state;
	w.rkey = r.rkey = 0xdeadbeef;
	w.remote_addr = r.remote_addr = 0;
	qp_post(p->q[0], &w);
	qp_post(p->q[0], &r);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 1, FX_WC_SUCCESS);
	pair_destroy(p);
}

static void test_send_too_long(void **state)
{
	static const uint32_t sizes[] = {101, 1024, 1025, 5000};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct pair *p = pair_create(NULL);
		struct wr w = pair_wr(p, 0, FX_WR_SEND, 0, sizes[i], 0);

		pair_recv(p, 1, 500000, i < 2 ? 100 : 1024);
		w.sge[0].length = sizes[i] + (i == 1);
		pair_recv(p, 1, 600000, 100);
		qp_post(p->q[0], &w);
		pair_run(p, 20 * MS);
		pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_REM_INV_REQ_ERR);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_LOC_LEN_ERR);
		pair_expect(p, 1, FX_WC_RECV, 1, FX_WC_WR_FLUSH_ERR);
		pair_expect_none(p, 1);
		assert_int_equal(pair_state(p, 0), ERR);
		assert_int_equal(pair_state(p, 1), ERR);
		pair_check_blank(p, 1, 600000, 1000);
		pair_check_blank(p, 1, 500000 + (i < 2 ? 100 : 1024), 1000);
		pair_destroy(p);
	}
}

static void test_receive_bad_lkey(void **state)
{
	struct pair *p = pair_create(NULL);
	struct fx_sge sge = {mem_va(p->mem[1], p->mem[1]->bytes), 1000, p->mem[1]->mr.key ^ 5};

	(void)state;
	qp_post_recv(p->q[1], &sge, 1);
	pair_post(p, 0, FX_WR_SEND, 0, 500, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_REM_OP_ERR);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_LOC_PROT_ERR);
	assert_int_equal(pair_state(p, 1), ERR);
	pair_check_blank(p, 1, 0, 1000);
	pair_destroy(p);
}

/* ---- refused here ---- */

static void expect_local(struct pair *p, const struct wr *bad, uint8_t opcode, uint8_t status)
{
	pair_fill(p, 0, 0, 9000, 1);
	pair_post(p, 0, FX_WR_WRITE, 0, 9000, 100000);
	qp_post(p->q[0], bad);
	pair_post(p, 0, FX_WR_WRITE, 0, 9000, 200000);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, opcode, 1, status);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 2, FX_WC_WR_FLUSH_ERR);
	pair_expect_none(p, 0);
	assert_int_equal(pair_state(p, 0), ERR);
	assert_int_equal(pair_state(p, 1), RTS);
	pair_check(p, 1, 100000, 9000, 1);
	pair_check_blank(p, 1, 0, 100000);
	pair_check_blank(p, 1, 109000, PAIR_MEM - 109000);
}

static void test_local_protection(void **state)
{
	static const uint8_t ops[] = {FX_WR_SEND, FX_WR_WRITE};

	(void)state;
	for (unsigned i = 0; i < 2 * 5; i++) {
		uint8_t op = ops[i % 2];
		struct pair *p = pair_create(NULL);
		struct wr w = pair_wr(p, 0, op, 0, 500, 0);

		pair_recv(p, 1, 0, 5000);
		switch (i / 2) {
		case 0:
			w.sge[0].lkey ^= 1;
			break;
		case 1:
			w.sge[0].length = 1;
			w.sge[0].addr += PAIR_MEM;
			break;
		case 2:
			w.sge[0].addr = UINT64_MAX - 3;
			break;
		case 3: /* the second of two */
			w.nsge = 2;
			w.sge[1] = w.sge[0];
			w.sge[1].lkey = 0;
			break;
		default:
			w.sge[0].lkey = p->mem[1]->mr.key ^ 0x2000;
		}
		expect_local(p, &w, op == FX_WR_SEND ? FX_WC_SEND : FX_WC_RDMA_WRITE, FX_WC_LOC_PROT_ERR);
		pair_destroy(p);
	}
}

/* A READ must not land where the application itself may not write. */
static void test_read_landing(void **state)
{
	struct pair *p = pair_create(NULL);
	struct mem *fixed = mem_create(p->h[0], 4096, 0, MEM_FLAT, &p->rng);
	struct wr w = pair_wr(p, 0, FX_WR_READ, 0, 3000, 0);

	(void)state;
	memset(fixed->bytes, 7, 4096);
	w.sge[0] = (struct fx_sge){fixed->mr.iova, 3000, fixed->mr.key};
	qp_post(p->q[0], &w);
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 0, FX_WC_LOC_PROT_ERR);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_WR_FLUSH_ERR);
	assert_int_equal(fixed->bytes[0], 7);
	assert_int_equal(fixed->bytes[2999], 7);
	pair_destroy(p);
	mem_destroy(fixed);
}

static void test_bad_work_requests(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct pair *p = pair_create(NULL);
		struct wr w = pair_wr(p, 0, FX_WR_WRITE, 0, 100, 0);
		uint8_t wc = FX_WC_RDMA_WRITE;

		w.data[0] = p->mem[0]->bytes;
		switch (i) {
		case 0: /* more than max_inline */
			w.flags |= FX_WRF_INLINE;
			w.sge[0].length = 257;
			break;
		case 1: /* READ cannot be inline */
			w.op = FX_WR_READ;
			w.flags |= FX_WRF_INLINE;
			wc = FX_WC_RDMA_READ;
			break;
		case 2: /* more than max_send_sge */
			w.nsge = 5;
			for (unsigned k = 1; k < 5; k++)
				w.sge[k] = w.sge[0];
			break;
		case 3:
			w.op = FX_WR_OFFLOAD;
			wc = 0;
			break;
		case 4:
			w.op = FX_WR_OPS;
			wc = 0;
			break;
		default:
			w.op = 255;
			wc = 0;
		}
		expect_local(p, &w, wc, FX_WC_LOC_QP_OP_ERR);
		assert_int_equal(pair_counters(p, 0)->wqe_bad, 1);
		pair_destroy(p);
	}
}

/* Entries of an earlier life, for other QPs, or out of turn. */
static void test_stray_entries(void **state)
{
	struct pair *p = pair_create(NULL);
	struct wr w = pair_wr(p, 0, FX_WR_WRITE, 0, 100, 0);
	struct fx_sq_slot e[FX_MAX_SQ_SLOTS] = {
		{.opcode = FX_WR_WRITE, .nslots = 1, .flags = FX_WRF_SIGNALED}};

	(void)state;
	p->q[0]->gen--;
	qp_post(p->q[0], &w);
	p->q[0]->gen += 2;
	qp_post(p->q[0], &w);
	p->q[0]->gen--;
	p->q[0]->sq_index -= 2;
	assert_int_equal(pair_counters(p, 0)->wqe_stale, 2);
	e->qpn_gen = fx_qpn_gen(p->q[0]->qpn, (uint8_t)p->q[0]->gen);
	fx_post(p->h[0]->tp, 2, e); /* another context's pipe */
	e->qpn_gen = fx_qpn_gen(0xffffff, 0);
	fx_post(p->h[0]->tp, 1, e);
	e->qpn_gen = fx_qpn_gen(p->q[0]->qpn + 1, (uint8_t)p->q[0]->gen); /* another worker's */
	fx_post(p->h[0]->tp, 1, e);
	assert_int_equal(pair_counters(p, 0)->wqe_bad, 3);
	pair_run(p, 1 * MS);
	pair_expect_none(p, 0);
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	p->q[0]->sq_index += 5;
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0); /* a gap in the counters */
	pair_run(p, 1 * MS);
	assert_int_equal(pair_state(p, 0), ERR);
	pair_destroy(p);
}

/* A host that posts more than it said: its QP fails, what was within bounds flushes in order. */
static void test_overrun_of_the_queue(void **state)
{
	const struct pair_opt opt = {.max_send = 8};
	struct pair *p = pair_create(&opt);

	(void)state;
	p->cut[0] = true;
	for (unsigned i = 0; i < 9; i++)
		pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 5 * MS);
	assert_int_equal(pair_counters(p, 0)->wqe_overrun, 1);
	assert_int_equal(pair_state(p, 0), ERR);
	for (unsigned i = 0; i < 8; i++)
		pair_expect(p, 0, FX_WC_RDMA_WRITE, i, FX_WC_WR_FLUSH_ERR);
	pair_expect_none(p, 0);
	pair_destroy(p);
}

/* Contract 13: an overrun is an event, not a lost or overwritten completion. */
static void test_cq_overrun(void **state)
{
	const struct pair_opt opt = {.cqes = 4};
	struct pair *p = pair_create(&opt);

	(void)state;
	p->deaf[0] = true;
	for (unsigned i = 0; i < 6; i++)
		pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 2 * MS);
	assert_int_equal(p->h[0]->events, 2);
	assert_int_equal(p->h[0]->event[FX_ASYNC_CQ_ERR], 1);
	assert_int_equal(p->h[0]->event[FX_ASYNC_QP_FATAL], 1);
	assert_true(pair_counters(p, 0)->cq_overruns >= 1);
	p->deaf[0] = false;
	pair_run(p, 2 * MS);
	for (unsigned i = 0; i < 4; i++)
		pair_expect(p, 0, FX_WC_RDMA_WRITE, i, FX_WC_SUCCESS);
	pair_expect_none(p, 0);
	pair_destroy(p);
}

/* What a CQ that may lose has no room for is lost, and nothing else happens: the next CQE retires it, too. */
static void test_cq_lossy(void **state)
{
	const struct pair_opt opt = {.cqes = 4};
	struct pair *p = pair_create(&opt);

	(void)state;
	p->cq[0]->core.lossy = true;
	p->deaf[0] = true;
	for (unsigned i = 0; i < 6; i++)
		pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 2 * MS);
	assert_int_equal(p->h[0]->events, 0);
	assert_int_equal(pair_counters(p, 0)->cq_overruns, 2);
	p->deaf[0] = false;
	pair_run(p, 2 * MS);
	for (unsigned i = 0; i < 4; i++)
		pair_expect(p, 0, FX_WC_RDMA_WRITE, i, FX_WC_SUCCESS);
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 2 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 6, FX_WC_SUCCESS);
	pair_expect_none(p, 0);
	pair_destroy(p);
}

/* CQEs of a stamped CQ tell when they were made, in order; those of any other have no stamp. */
static void test_cq_stamped(void **state)
{
	struct pair *p = pair_create(NULL);
	uint64_t before = p->s->now, last = before;

	(void)state;
	p->cq[0]->core.stamped = true;
	for (unsigned i = 0; i < 20; i++) {
		pair_post(p, 0, FX_WR_SEND, 0, 5000, 0);
		pair_recv(p, 1, 0, 5000);
		pair_run(p, 1 * MS);
	}
	assert_int_equal(p->n[0], 20);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t at = fx_cqe_stamp(&p->cqe[0][i]);

		assert_true(at > last && at <= p->s->now);
		assert_in_range(at - before, i * MS, (i + 1) * MS);
		last = at;
	}
	assert_int_equal(p->n[1], 20);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(fx_cqe_stamp(&p->cqe[1][i]), 0);
	pair_destroy(p);
}

/* ---- keys that end while in use (guarantee L2) ---- */

static void test_key_ends(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct pair *p = pair_create(NULL);
		bool read = i == 2;

		pair_post(p, 0, read ? FX_WR_READ : FX_WR_WRITE, 0, 500000, 0);
		pair_run(p, 20 * US); /* some of it has crossed */
		pair_expect_none(p, 0);
		if (i == 3)
			p->cut[0] = true; /* what was sent may be lost; what is sent again needs the key */
		mem_revoke(p->h[i != 0 && i != 3], p->mem[i != 0 && i != 3]);
		pair_run(p, 100 * US);
		p->cut[0] = false;
		pair_run(p, 50 * MS);
		pair_expect(p, 0, read ? FX_WC_RDMA_READ : FX_WC_RDMA_WRITE, 0,
			    i == 0 || i == 3 ? FX_WC_LOC_PROT_ERR : FX_WC_REM_ACCESS_ERR);
		assert_int_equal(pair_state(p, 0), ERR);
		pair_destroy(p);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_remote_access),
		cmocka_unit_test(test_qp_access),
		cmocka_unit_test(test_zero_length_needs_no_key),
		cmocka_unit_test(test_send_too_long),
		cmocka_unit_test(test_receive_bad_lkey),
		cmocka_unit_test(test_local_protection),
		cmocka_unit_test(test_read_landing),
		cmocka_unit_test(test_bad_work_requests),
		cmocka_unit_test(test_stray_entries),
		cmocka_unit_test(test_overrun_of_the_queue),
		cmocka_unit_test(test_cq_overrun),
		cmocka_unit_test(test_cq_lossy),
		cmocka_unit_test(test_cq_stamped),
		cmocka_unit_test(test_key_ends),
	};

	return cmocka_run_group_tests_name("sim_errors", tests, NULL, NULL);
}
