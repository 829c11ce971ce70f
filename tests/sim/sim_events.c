/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is told of an error (IBTA 11.6.3): by the completion, by an asynchronous event, by the cause that the QP keeps;
 * and the events that are no errors.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { RESET = 0, RTR = 2, RTS = 3, ERR = 6, BIG = 500000 };

/* ---- an error each ---- */

static void silent_peer(struct pair *p)
{
	p->cut[1] = true;
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
}

static enum pair_fate lose_second(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	(void)bth;
	return from == 0 && p->count++ >= 1 && p->count < 4 ? DROP : PASS;
}

static void gap(struct pair *p)
{
	p->fate = lose_second;
	pair_post(p, 0, FX_WR_WRITE, 0, 100000, 0);
}

static void no_receive(struct pair *p)
{
	pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
}

static void too_long(struct pair *p)
{
	pair_recv(p, 1, 0, 50);
	pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
}

static void bad_receive(struct pair *p)
{
	p->mem[1]->mr.key ^= 1;
	pair_recv(p, 1, 0, 500);
	p->mem[1]->mr.key ^= 1;
	pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
}

static void torn_receive(struct pair *p)
{
	struct fx_rq_slot *slot = (struct fx_rq_slot *)fx_rq_slot_at(&p->q[1]->rq, p->q[1]->rq.pos);

	pair_recv(p, 1, 0, 500);
	slot->nsge = 200;
	pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
}

static void misaligned(struct pair *p)
{
	pair_post(p, 0, FX_WR_FETCH_ADD, 0, 8, 4);
}

static void wrong_key(struct pair *p, uint8_t op)
{
	struct wr w = pair_wr(p, 0, op, 0, 100, 0);

	w.rkey ^= 1;
	qp_post(p->q[0], &w);
}

static void bad_write(struct pair *p)
{
	wrong_key(p, FX_WR_WRITE);
}

static void bad_read(struct pair *p)
{
	wrong_key(p, FX_WR_READ);
}

/* The responder is in the midst of its answer. */
static void read_revoked(struct pair *p)
{
	pair_post(p, 0, FX_WR_READ, 0, BIG, 0);
	pair_run(p, 20 * US);
	mem_revoke(p->h[1], p->mem[1]);
}

static void bad_source(struct pair *p)
{
	struct wr w = pair_wr(p, 0, FX_WR_WRITE, 0, 100, 0);

	w.sge[0].lkey ^= 1;
	qp_post(p->q[0], &w);
}

static void bad_landing(struct pair *p)
{
	p->mem[0]->mr.access = FX_ACC_REMOTE_READ;
	pair_post(p, 0, FX_WR_READ, 0, 100, 0);
}

static void lost_landing(struct pair *p)
{
	p->mem[0]->gone = -EFAULT;
	pair_post(p, 0, FX_WR_READ, 0, 100, 0);
}

static void lost_source(struct pair *p)
{
	p->mem[0]->gone = -EFAULT;
	pair_post(p, 0, FX_WR_WRITE, 0, 3000, 0);
}

static void lost_target(struct pair *p)
{
	p->mem[1]->gone = -EFAULT;
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
}

static void lost_receive(struct pair *p)
{
	p->mem[1]->gone = -EFAULT;
	pair_recv(p, 1, 0, 500);
	pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
}

static void lost_answer(struct pair *p)
{
	p->mem[1]->gone = -EFAULT;
	pair_post(p, 0, FX_WR_READ, 0, 3000, 0);
}

static void ended_target(struct pair *p)
{
	lost_target(p);
	p->mem[1]->gone = -ESRCH;
}

static void ended_receive(struct pair *p)
{
	lost_receive(p);
	p->mem[1]->gone = -ESRCH;
}

static void ended_answer(struct pair *p)
{
	lost_answer(p);
	p->mem[1]->gone = -ESRCH;
}

static void out_of_order(struct pair *p)
{
	p->q[0]->sq_index += 5;
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
}

static void too_many(struct pair *p)
{
	for (unsigned i = 0; i <= p->opt.max_send; i++)
		pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
}

static void asked(struct pair *p)
{
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	assert_int_equal(qp_state(p->q[0], ERR), 0);
}

#define NO_EVENT FX_ASYNC_NONE
enum { NAK_PSN = 0x60, NAK_INVALID = 0x61, NAK_ACCESS = 0x62, NAK_OPERATION = 0x63, RNR_5 = 0x25 };

/* vendor 0: the cause of the side; recv: status of the responder's receive, if it completes */
static const struct row {
	const char *name;
	void (*make)(struct pair *p);
	uint8_t status, vendor;
	enum fx_cause asks;
	enum fx_async asks_event;
	enum fx_cause answers;
	enum fx_async answers_event;
	uint8_t recv;
	uint8_t retry_cnt;
	enum mem_kind kind;
} rows[] = {
	{"silent peer", silent_peer, FX_WC_RETRY_EXC_ERR, 0, FX_CAUSE_NO_ANSWER, NO_EVENT, FX_CAUSE_NONE,
	 NO_EVENT, 0, 3, MEM_FLAT},
	{"gap", gap, FX_WC_RETRY_EXC_ERR, NAK_PSN, FX_CAUSE_SEQUENCE, NO_EVENT, FX_CAUSE_NONE, NO_EVENT, 0, 0,
	 MEM_FLAT},
	{"no receive", no_receive, FX_WC_RNR_RETRY_EXC_ERR, RNR_5, FX_CAUSE_NO_RECEIVE, NO_EVENT,
	 FX_CAUSE_NONE, NO_EVENT, 0, 3, MEM_FLAT},
	{"too long", too_long, FX_WC_REM_INV_REQ_ERR, NAK_INVALID, FX_CAUSE_PEER_INVALID, NO_EVENT,
	 FX_CAUSE_RECEIVE_ROOM, NO_EVENT, FX_WC_LOC_LEN_ERR, 3, MEM_FLAT},
	{"bad receive", bad_receive, FX_WC_REM_OP_ERR, NAK_OPERATION, FX_CAUSE_PEER_OPERATION, NO_EVENT,
	 FX_CAUSE_RECEIVE_MEMORY, NO_EVENT, FX_WC_LOC_PROT_ERR, 3, MEM_FLAT},
	{"torn receive", torn_receive, FX_WC_REM_OP_ERR, NAK_OPERATION, FX_CAUSE_PEER_OPERATION, NO_EVENT,
	 FX_CAUSE_RECEIVE_ENTRY, FX_ASYNC_QP_FATAL, 0, 3, MEM_FLAT},
	{"misaligned", misaligned, FX_WC_REM_INV_REQ_ERR, NAK_INVALID, FX_CAUSE_PEER_INVALID, NO_EVENT,
	 FX_CAUSE_INVALID_REQUEST, FX_ASYNC_QP_REQ_ERR, 0, 3, MEM_FLAT},
	{"write, wrong key", bad_write, FX_WC_REM_ACCESS_ERR, NAK_ACCESS, FX_CAUSE_PEER_ACCESS, NO_EVENT,
	 FX_CAUSE_ACCESS, FX_ASYNC_QP_ACCESS_ERR, 0, 3, MEM_FLAT},
	{"read, wrong key", bad_read, FX_WC_REM_ACCESS_ERR, NAK_ACCESS, FX_CAUSE_PEER_ACCESS, NO_EVENT,
	 FX_CAUSE_ACCESS, FX_ASYNC_QP_ACCESS_ERR, 0, 3, MEM_FLAT},
	{"read, revoked", read_revoked, FX_WC_REM_ACCESS_ERR, NAK_ACCESS, FX_CAUSE_PEER_ACCESS, NO_EVENT,
	 FX_CAUSE_ACCESS, FX_ASYNC_QP_ACCESS_ERR, 0, 3, MEM_FLAT},
	{"bad source", bad_source, FX_WC_LOC_PROT_ERR, 0, FX_CAUSE_BAD_REQUEST, NO_EVENT, FX_CAUSE_NONE,
	 NO_EVENT, 0, 3, MEM_FLAT},
	{"bad landing", bad_landing, FX_WC_LOC_PROT_ERR, 0, FX_CAUSE_BAD_LANDING, NO_EVENT, FX_CAUSE_NONE,
	 NO_EVENT, 0, 3, MEM_FLAT},
	{"lost landing", lost_landing, FX_WC_LOC_PROT_ERR, 0, FX_CAUSE_LOST_LANDING, NO_EVENT, FX_CAUSE_NONE,
	 NO_EVENT, 0, 3, MEM_SLOW},
	{"lost source", lost_source, FX_WC_LOC_PROT_ERR, 0, FX_CAUSE_LOST_SOURCE, NO_EVENT, FX_CAUSE_NONE,
	 NO_EVENT, 0, 3, MEM_SLOW},
	{"lost target", lost_target, FX_WC_REM_OP_ERR, NAK_OPERATION, FX_CAUSE_PEER_OPERATION, NO_EVENT,
	 FX_CAUSE_LOST_MEMORY, FX_ASYNC_QP_FATAL, 0, 3, MEM_SLOW},
	{"lost receive", lost_receive, FX_WC_REM_OP_ERR, NAK_OPERATION, FX_CAUSE_PEER_OPERATION, NO_EVENT,
	 FX_CAUSE_LOST_MEMORY, FX_ASYNC_QP_FATAL, FX_WC_LOC_PROT_ERR, 3, MEM_SLOW},
	{"lost answer", lost_answer, FX_WC_REM_OP_ERR, NAK_OPERATION, FX_CAUSE_PEER_OPERATION, NO_EVENT,
	 FX_CAUSE_LOST_MEMORY, FX_ASYNC_QP_FATAL, 0, 3, MEM_SLOW},
	/* the program has ended, and nothing is said any more in its name */
	{"ended target", ended_target, FX_WC_RETRY_EXC_ERR, 0, FX_CAUSE_NO_ANSWER, NO_EVENT,
	 FX_CAUSE_LOST_MEMORY, FX_ASYNC_QP_FATAL, 0, 3, MEM_SLOW},
	{"ended receive", ended_receive, FX_WC_RETRY_EXC_ERR, 0, FX_CAUSE_NO_ANSWER, NO_EVENT,
	 FX_CAUSE_LOST_MEMORY, FX_ASYNC_QP_FATAL, FX_WC_LOC_PROT_ERR, 3, MEM_SLOW},
	{"ended answer", ended_answer, FX_WC_RETRY_EXC_ERR, 0, FX_CAUSE_NO_ANSWER, NO_EVENT,
	 FX_CAUSE_LOST_MEMORY, FX_ASYNC_QP_FATAL, 0, 3, MEM_SLOW},
	{"out of order", out_of_order, 0, 0, FX_CAUSE_OUT_OF_ORDER, FX_ASYNC_QP_FATAL, FX_CAUSE_NONE,
	 NO_EVENT, 0, 3, MEM_FLAT},
	{"too many", too_many, FX_WC_WR_FLUSH_ERR, 0, FX_CAUSE_TOO_MANY, FX_ASYNC_QP_FATAL, FX_CAUSE_NONE,
	 NO_EVENT, 0, 3, MEM_FLAT},
	{"asked", asked, FX_WC_WR_FLUSH_ERR, 0, FX_CAUSE_ASKED, NO_EVENT, FX_CAUSE_NONE, NO_EVENT, 0, 3,
	 MEM_FLAT},
};

static void expect_side(struct pair *p, unsigned at, enum fx_cause cause, enum fx_async event)
{
	assert_int_equal(pair_info(p, at).cause, cause);
	assert_int_equal(pair_state(p, at), cause ? ERR : RTS);
	assert_int_equal(p->h[at]->events, event != NO_EVENT);
	if (event != NO_EVENT)
		assert_int_equal(p->h[at]->event[event], 1);
	assert_int_equal(p->h[at]->trouble, cause == FX_CAUSE_ASKED ? FX_CAUSE_NONE : cause);
}

static void test_errors(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];
		const struct pair_opt opt = {.mtu = 1024,
					     .max_send = 8,
					     .max_recv = 8,
					     .max_sge = 2,
					     .timeout = 8,
					     .retry_cnt = r->retry_cnt,
					     .rnr_retry = 2,
					     .rd_atomic = 4,
					     .access = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE |
						       FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC,
					     .cqes = 64,
					     .kind = r->kind};
		struct pair *p = pair_create(&opt);

		print_message("%s\n", r->name);
		r->make(p);
		pair_run(p, 50 * MS);
		expect_side(p, 0, r->asks, r->asks_event);
		expect_side(p, 1, r->answers, r->answers_event);
		if (r->status) {
			assert_true(p->n[0] >= 1);
			assert_int_equal(p->cqe[0][0].status, r->status);
			assert_int_equal(p->cqe[0][0].syndrome, r->vendor ? r->vendor : r->asks);
		}
		if (r->recv) {
			assert_int_equal(p->n[1], 1);
			assert_int_equal(p->cqe[1][0].status, r->recv);
			assert_int_equal(p->cqe[1][0].syndrome, r->answers);
		}
		/* the next life knows nothing of it */
		assert_int_equal(qp_state(p->q[0], RESET), 0);
		assert_int_equal(pair_info(p, 0).cause, FX_CAUSE_NONE);
		pair_destroy(p);
	}
}

/* Causes share a byte with the syndromes of AETH, and all have their words. */
static void test_causes(void **state)
{
	(void)state;
	assert_true(FX_CAUSE_BASE + 1 > (FX_AETH_NAK | 0x1f));
	assert_true(FX_CAUSE_END <= 256);
	for (unsigned i = FX_CAUSE_BASE + 1; i < FX_CAUSE_END; i++) {
		assert_true(fx_cause_word(i)[0] && fx_cause_text(i)[0]);
		for (unsigned k = FX_CAUSE_BASE + 1; k < i; k++)
			assert_string_not_equal(fx_cause_word(i), fx_cause_word(k));
	}
	assert_string_equal(fx_cause_word(FX_CAUSE_END), fx_cause_word(FX_CAUSE_NONE));
	assert_int_equal(fx_cause_async(FX_CAUSE_NONE), FX_ASYNC_NONE);
}

/* ---- a CQ that overran ---- */

static struct qp *another(struct pair *p, unsigned n, struct cq *scq, struct cq *rcq)
{
	const struct fx_qp_cfg cfg = {.qpn = (20 + n) << FX_WORKER_BITS,
				      .ctx = 1,
				      .pd = 1,
				      .type = FX_QPT_RC,
				      .max_send_wr = 8,
				      .max_recv_wr = 8,
				      .max_send_sge = 1,
				      .max_recv_sge = 1};

	return qp_create(p->h[0], &cfg, scq, rcq, 0, 0);
}

static struct fx_qp_info info_of(const struct qp *q)
{
	struct fx_qp_info info;

	fx_qp_snapshot(q->core, &info);
	return info;
}

/* Every QP that uses it is in error, busy or not, for sending or receiving; and no other. */
static void test_cq_overrun(void **state)
{
	const struct pair_opt opt = {.cqes = 4};
	struct pair *p = pair_create(&opt);
	struct cq *other = cq_create(8);
	struct cq *cq[4][2] = {{p->cq[0], other}, {other, other}, {other, p->cq[0]}, {p->cq[0], p->cq[0]}};
	struct qp *q[4];
	struct wr w;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		q[i] = another(p, i, cq[i][0], cq[i][1]);
		if (i < 3) /* the last one stays in RESET */
			assert_int_equal(qp_connect(q[i], p->q[1], &p->attr), 0);
	}
	p->deaf[0] = true;
	for (unsigned i = 0; i < 6; i++)
		pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 2 * MS);
	assert_int_equal(p->h[0]->event[FX_ASYNC_CQ_ERR], 1);
	assert_int_equal(p->h[0]->event[FX_ASYNC_QP_FATAL], 3); /* the busy one, q[0], q[2] */
	assert_int_equal(p->h[0]->events, 4);
	assert_int_equal(pair_info(p, 0).cause, FX_CAUSE_CQ_OVERRUN);
	assert_int_equal(info_of(q[0]).cause, FX_CAUSE_CQ_OVERRUN);
	assert_int_equal(info_of(q[1]).state, RTS);
	assert_int_equal(info_of(q[2]).cause, FX_CAUSE_CQ_OVERRUN);
	assert_int_equal(info_of(q[3]).state, RESET);
	/* what one that comes to it later misses is no other event of the CQ */
	assert_int_equal(qp_state(q[0], RESET), 0);
	assert_int_equal(qp_connect(q[0], p->q[1], &p->attr), 0);
	w = pair_wr(p, 0, FX_WR_WRITE, 0, 100, 0);
	w.sge[0].lkey ^= 1;
	qp_post(q[0], &w);
	pair_run(p, 2 * MS);
	assert_int_equal(info_of(q[0]).state, ERR);
	assert_int_equal(p->h[0]->event[FX_ASYNC_CQ_ERR], 1);
	for (unsigned i = 0; i < 4; i++)
		assert_true(qp_destroy(q[i]));
	pair_destroy(p);
	cq_destroy(other);
}

/* ---- no errors ---- */

/* The first packet that finds its QP in RTR, once a life. */
static void test_established(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	assert_int_equal(p->h[1]->events, 0); /* it was in RTS already */
	for (unsigned life = 1; life < 3; life++) {
		for (unsigned i = 0; i < SIM_HOSTS; i++)
			assert_int_equal(qp_state(p->q[i], RESET), 0);
		assert_int_equal(qp_connect(p->q[0], p->q[1], &p->attr), 0);
		assert_int_equal(qp_listen(p->q[1], p->q[0], &p->attr), 0);
		pair_run(p, 1 * MS);
		assert_int_equal(p->h[1]->events, life - 1);
		for (unsigned i = 0; i < 3; i++) {
			pair_post(p, 0, FX_WR_WRITE, 0, 3000, 0);
			pair_run(p, 1 * MS);
			pair_expect(p, 0, FX_WC_RDMA_WRITE, p->q[0]->sq_index - 1, FX_WC_SUCCESS);
		}
		assert_int_equal(pair_state(p, 1), RTR);
		assert_int_equal(p->h[1]->event[FX_ASYNC_COMM_EST], life);
		assert_int_equal(p->h[1]->events, life);
		assert_int_equal(p->h[0]->events, 0);
	}
	pair_destroy(p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_causes),
		cmocka_unit_test(test_cq_overrun),
		cmocka_unit_test(test_established),
	};

	return cmocka_run_group_tests_name("sim_events", tests, NULL, NULL);
}
