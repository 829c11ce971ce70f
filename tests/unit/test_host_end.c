/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host library and a core that sleeps, lags or dies: the kick, waiting for room in the pipe, and the flush
 * completions of what a dead core left behind. All of it with the core on this machine, and across a bus.
 */
#include "host_rig.h"

static const struct ibv_qp_cap usual = {
	.max_send_wr = 64, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1};

enum death { ON_PURPOSE, KILLED };

static void die(struct core *c, enum death how)
{
	if (how == ON_PURPOSE && !c->remote)
		__atomic_store_n(&c->page->alive, 0, __ATOMIC_RELEASE);
	else
		core_cut(c);
}

/* ---- the kick ---- */

static void test_kick(void **state)
{
	struct rig r = rig_start(6, &usual);
	struct ibv_send_wr wr[3] = {{.next = &wr[1]}, {.next = &wr[2]}, {.opcode = IBV_WR_SEND}}, *bad;

	(void)state;
	assert_int_equal(rig_kicks(&r), 0);
	assert_int_equal(rig_send(r.qp, 1, 0), 0);
	assert_int_equal(rig_recv(r.qp, 2), 0);
	assert_int_equal(rig_kicks(&r), 0); /* nobody sleeps */
	r.core->page->worker[1].sleeping = 1;
	assert_int_equal(rig_send(r.qp, 3, 0), 0);
	assert_int_equal(rig_kicks(&r), 0); /* not the one that serves us */
	r.core->page->worker[0].sleeping = 1;
	assert_int_equal(rig_send(r.qp, 4, 0), 0);
	assert_int_equal(rig_kicks(&r), 1);
	wr[0].opcode = wr[1].opcode = IBV_WR_SEND;
	assert_int_equal(flexins_post_send(r.qp, wr, &bad), 0);
	assert_int_equal(rig_kicks(&r), 0); /* once a sleep */
	r.core->page->worker[0].sleeping = 2;
	assert_int_equal(flexins_post_send(r.qp, wr, &bad), 0);
	assert_int_equal(rig_kicks(&r), 1); /* once a call */
	r.core->page->worker[0].sleeping = UINT32_MAX;
	wr[1].opcode = (enum ibv_wr_opcode)99;
	assert_int_equal(flexins_post_send(r.qp, wr, &bad), EINVAL);
	assert_int_equal(rig_kicks(&r), 1); /* what came before the bad one is there to be sent */
	r.core->page->worker[0].sleeping = 3;
	assert_int_equal(flexins_post_send(r.qp, &wr[1], &bad), EINVAL);
	assert_int_equal(rig_kicks(&r), 0);
	r.core->page->worker[0].sleeping = 0;
	assert_int_equal(rig_send(r.qp, 5, 0), 0);
	assert_int_equal(rig_kicks(&r), 0);
	rig_end(&r);
}

/* ---- a core that lags ---- */

struct lag {
	struct core *core;
	unsigned want, got;
	bool kicked; /* before anything was taken */
};

/* Sleeps until it is kicked, then takes everything. */
static void *slow_worker(void *arg)
{
	struct lag *l = arg;
	struct pollfd p = {.fd = l->core->kick[0], .events = POLLIN};
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	int64_t until = rig_ms() + RIG_WAIT_MS;

	l->kicked = poll(&p, 1, RIG_WAIT_MS) == 1;
	while (l->got < l->want && rig_ms() < until) {
		if (fx_pipe_take(&l->core->pipe, slot) <= 0)
			continue;
		fx_pipe_publish_ci(&l->core->pipe);
		l->got += slot->index == l->got;
	}
	return NULL;
}

/* A full pipe is waited for, and a worker that sleeps over it is woken. */
static void test_full_pipe(void **state)
{
	struct rig r = rig_start(4, &usual);
	struct lag l = {.core = r.core, .want = 40};
	pthread_t t;

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(rig_send(r.qp, i, 0), 0);
	r.core->page->worker[0].sleeping = 1;
	assert_int_equal(pthread_create(&t, NULL, slow_worker, &l), 0);
	for (unsigned i = 16; i < l.want; i++)
		assert_int_equal(rig_send(r.qp, i, 0), 0);
	pthread_join(t, NULL);
	assert_true(l.kicked);
	assert_int_equal(l.got, l.want);
	rig_end(&r);
}

/* ---- a core that dies ---- */

/* Every wr_id from `first` on, once, in order. */
static void expect_flushed(const struct ibv_wc *wc, uint64_t first, unsigned n, int opcode)
{
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(wc[i].status, IBV_WC_WR_FLUSH_ERR);
		assert_int_equal(wc[i].wr_id, first + i);
		assert_int_equal(wc[i].opcode, opcode);
		assert_int_equal(wc[i].vendor_err, 0);
	}
}

static void flush(enum death how)
{
	struct rig r = rig_start(6, &usual);
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
	struct ibv_wc wc[16];

	for (uint64_t i = 0; i < 4; i++)
		assert_int_equal(rig_send(r.qp, 10 + i, i == 1 ? IBV_SEND_SIGNALED : 0), 0);
	assert_int_equal(rig_recv(r.qp, 20), 0);
	assert_int_equal(rig_recv(r.qp, 21), 0);
	rig_complete(&r, r.qp, CORE_GEN, 1, FX_WC_SEND);
	die(r.core, how);
	assert_int_equal(rig_poll_all(&r, 5, wc), 5);
	assert_int_equal(wc[0].wr_id, 11); /* what the core still completed comes first, as it was */
	assert_int_equal(wc[0].status, IBV_WC_SUCCESS);
	expect_flushed(wc + 1, 12, 2, IBV_WC_SEND);
	expect_flushed(wc + 3, 20, 2, IBV_WC_RECV);
	assert_int_equal(wc[1].qp_num, r.qp->qp_num);
	assert_int_equal(rig_poll(&r, 16, wc), 0);
	/* from now on everything is flushed at once, and no more than asked for at a time */
	assert_int_equal(rig_send(r.qp, 30, 0), 0);
	assert_int_equal(rig_send(r.qp, 31, 0), 0);
	assert_int_equal(rig_recv(r.qp, 40), 0);
	assert_int_equal(rig_poll(&r, 1, wc), 1);
	assert_int_equal(rig_poll(&r, 16, wc + 1), 2);
	expect_flushed(wc, 30, 2, IBV_WC_SEND);
	expect_flushed(wc + 2, 40, 1, IBV_WC_RECV);
	assert_int_equal(flexins_modify_qp(r.qp, &attr, IBV_QP_STATE), ENODEV);
	assert_null(flexins_alloc_pd(r.ctx));
	assert_int_equal(errno, ENODEV);
	rig_end(&r);
}

static void test_flush_ended(void **state)
{
	(void)state;
	flush(ON_PURPOSE);
}

static void test_flush_killed(void **state)
{
	(void)state;
	flush(KILLED);
}

/* Opcodes of flushed requests are those they would have completed with. */
static void test_flush_opcodes(void **state)
{
	static const int op[][2] = {
		{IBV_WR_RDMA_WRITE, IBV_WC_RDMA_WRITE},
		{IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WC_RDMA_WRITE},
		{IBV_WR_SEND, IBV_WC_SEND},
		{IBV_WR_SEND_WITH_IMM, IBV_WC_SEND},
		{IBV_WR_RDMA_READ, IBV_WC_RDMA_READ},
		{IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WC_COMP_SWAP},
		{IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WC_FETCH_ADD},
		{IBV_WR_LOCAL_INV, IBV_WC_LOCAL_INV},
		{IBV_WR_SEND_WITH_INV, IBV_WC_SEND},
	};
	enum { N = sizeof(op) / sizeof(op[0]) };
	struct rig r = rig_start(6, &usual);
	struct ibv_sge sge = {.addr = 8, .length = 8, .lkey = 1};
	struct ibv_wc wc[N];

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		struct ibv_send_wr wr = {
			.wr_id = i, .opcode = (enum ibv_wr_opcode)op[i][0], .sg_list = &sge, .num_sge = 1};
		struct ibv_send_wr *bad;

		assert_int_equal(flexins_post_send(r.qp, &wr, &bad), 0);
	}
	die(r.core, ON_PURPOSE);
	assert_int_equal(rig_poll_all(&r, N, wc), N);
	for (unsigned i = 0; i < N; i++)
		expect_flushed(&wc[i], i, 1, op[i][1]);
	rig_end(&r);
}

/* The pipe is full and nobody will ever take from it: posting goes on, and everything is flushed once. */
static void full_pipe(enum death how)
{
	struct rig r = rig_start(4, &usual);
	int64_t before = rig_ms();
	struct ibv_wc wc[64];

	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(rig_send(r.qp, i, 0), 0);
	r.core->page->worker[0].sleeping = 1;
	die(r.core, how);
	for (unsigned i = 16; i < usual.max_send_wr; i++)
		assert_int_equal(rig_send(r.qp, i, 0), 0);
	assert_int_equal(rig_send(r.qp, 64, 0), ENOMEM);
	assert_int_equal(rig_poll_all(&r, usual.max_send_wr, wc), usual.max_send_wr);
	expect_flushed(wc, 0, usual.max_send_wr, IBV_WC_SEND);
	assert_true(rig_ms() - before < RIG_WAIT_MS);
	assert_int_equal(rig_send(r.qp, 65, 0), 0);
	rig_end(&r);
}

static void test_full_pipe_ended(void **state)
{
	(void)state;
	full_pipe(ON_PURPOSE);
}

static void test_full_pipe_killed(void **state)
{
	(void)state;
	full_pipe(KILLED);
}

/* RESET empties both queues: there is room for as many again, and only those are flushed. */
static void test_flush_after_reset(void **state)
{
	struct rig r = rig_start(8, &usual);
	struct ibv_wc wc[80];

	(void)state;
	for (unsigned turn = 0; turn < 2; turn++) {
		assert_int_equal(rig_move(r.qp, IBV_QPS_RESET), 0);
		assert_int_equal(rig_move(r.qp, IBV_QPS_RTS), 0);
		for (unsigned i = 0; i < usual.max_send_wr; i++)
			assert_int_equal(rig_send(r.qp, 100 * turn + i, 0), 0);
		for (unsigned i = 0; i < usual.max_recv_wr; i++)
			assert_int_equal(rig_recv(r.qp, 100 * turn + i), 0);
		assert_int_equal(rig_send(r.qp, 0, 0), ENOMEM);
		assert_int_equal(rig_recv(r.qp, 0), ENOMEM);
	}
	die(r.core, ON_PURPOSE);
	assert_int_equal(rig_poll_all(&r, 68, wc), 68);
	expect_flushed(wc, 100, 64, IBV_WC_SEND);
	expect_flushed(wc + 64, 100, 4, IBV_WC_RECV);
	assert_int_equal(rig_poll(&r, 80, wc), 0);
	rig_end(&r);
}

/* Each CQ flushes its own queues. */
static void test_flush_two_cqs(void **state)
{
	struct rig r = rig_start(6, &usual);
	struct ibv_cq *other = flexins_create_cq(r.ctx, 4, NULL, NULL, 0);
	struct ibv_qp_init_attr a = {.send_cq = other, .recv_cq = r.cq, .cap = usual, .qp_type = IBV_QPT_RC};
	struct ibv_qp *qp = flexins_create_qp(r.pd, &a);
	struct ibv_wc wc[8];

	(void)state;
	assert_non_null(qp);
	assert_int_equal(rig_move(qp, IBV_QPS_RTS), 0);
	assert_int_equal(rig_send(qp, 1, 0), 0);
	assert_int_equal(rig_recv(qp, 2), 0);
	/* a send completion on the CQ of receives is nobody's */
	rig_complete(&r, qp, CORE_GEN, 0, FX_WC_SEND);
	assert_int_equal(rig_poll(&r, 8, wc), 0);
	die(r.core, ON_PURPOSE);
	assert_int_equal(rig_poll_all(&r, 1, wc), 1);
	expect_flushed(wc, 2, 1, IBV_WC_RECV);
	assert_int_equal(flexins_poll_cq(other, 8, wc), 1);
	expect_flushed(wc, 1, 1, IBV_WC_SEND);
	assert_int_equal(flexins_destroy_qp(qp), 0);
	assert_int_equal(flexins_destroy_cq(other), 0);
	rig_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kick),
		cmocka_unit_test(test_full_pipe),
		cmocka_unit_test(test_flush_ended),
		cmocka_unit_test(test_flush_killed),
		cmocka_unit_test(test_flush_opcodes),
		cmocka_unit_test(test_full_pipe_ended),
		cmocka_unit_test(test_full_pipe_killed),
		cmocka_unit_test(test_flush_after_reset),
		cmocka_unit_test(test_flush_two_cqs),
	};

	int failed = cmocka_run_group_tests_name("on this machine", tests, NULL, NULL);

	core_remote = true;
	return failed + cmocka_run_group_tests_name("across a bus", tests, NULL, NULL);
}
