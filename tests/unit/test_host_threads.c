/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads of one program over the host library: they post on queue pairs of their own and on shared ones, and poll
 * completion queues of their own and shared ones. A thread of the test is the core's worker. Also run under
 * ThreadSanitizer, which sees the library's locks; the pipe's two sides map the arena at addresses of their own, and
 * are test_pipe_threads.c's.
 *
 * Holds: every request that asks for one completes once, each queue's in order, and none is lost by the worker.
 */
#include "host_rig.h"

enum { QPS = 3, THREADS = 4, REQUESTS = 4000, SENDS = 16, RECVS = 8 };

static const struct ibv_qp_cap usual = {
	.max_send_wr = SENDS, .max_recv_wr = RECVS, .max_send_sge = 1, .max_recv_sge = 1};

/* Who posts where, and polls what: two share a queue pair, two queue pairs a completion queue. */
static const struct {
	unsigned qp, cq;
} works_on[THREADS] = {{0, 0}, {0, 0}, {1, 1}, {2, 0}};
static const unsigned cq_of[QPS] = {0, 1, 0};

enum { SEND, RECV, QUEUES };
struct thread {
	unsigned index;
	pthread_t thread;
	uint32_t posted[QUEUES]; /* of its own */
	uint64_t rnd;
};

static struct {
	struct rig r;
	struct ibv_cq *cq[2];
	struct ibv_qp *qp[QPS];
	_Atomic bool stop;
	_Atomic uint8_t done[THREADS][QUEUES][REQUESTS];
	_Atomic uint32_t completed, asked;
	pthread_t worker;
	uint32_t next[QPS]; /* the worker's: index of the next send */
} t;

/* ---- the worker ---- */

static void give(uint32_t qp, bool recv, uint32_t index)
{
	struct core *c = t.r.core;
	struct fx_cqe cqe = {.qpn_gen = fx_qpn_gen(core_qpn(qp + 1), CORE_GEN),
			     .index = index,
			     .opcode = recv ? FX_WC_RECV : FX_WC_SEND};

	assert_int_equal(fx_cq_push(&c->cq[(recv ? c->made[qp].recv_cq : c->made[qp].send_cq) - 1], &cqe), 0);
}

static bool take_send(void)
{
	struct fx_sq_slot e[FX_MAX_SQ_SLOTS];
	int n = fx_pipe_take(&t.r.core->pipe, e);
	uint32_t qp;

	if (n == 0)
		return false;
	assert_int_equal(n, 1);
	fx_pipe_publish_ci(&t.r.core->pipe);
	qp = ((e->qpn_gen & 0xffffff) - core_qpn(1)) / FX_MAX_WORKERS;
	assert_in_range(qp, 0, QPS - 1);
	assert_int_equal(e->index, t.next[qp]++);
	if (e->flags & FX_WRF_SIGNALED)
		give(qp, false, e->index);
	return true;
}

static bool take_recv(uint32_t qp)
{
	struct fx_rq *q = &t.r.core->rq[qp];
	struct fx_sge sge[FX_MAX_SGE];
	uint32_t index = q->index;

	if (fx_rq_take(q, sge, FX_MAX_SGE) < 0)
		return false;
	give(qp, true, index);
	return true;
}

static void *worker(void *arg)
{
	(void)arg;
	while (!t.stop) {
		bool any = take_send();

		for (uint32_t i = 0; i < QPS; i++)
			any |= take_recv(i);
		if (!any)
			sched_yield();
	}
	return NULL;
}

/* ---- the program ---- */

static uint64_t id(const struct thread *me, unsigned queue, bool signaled)
{
	return (uint64_t)me->index << 32 | (uint64_t)signaled << 28 | (uint64_t)queue << 24 |
	       me->posted[queue];
}

static void post(struct thread *me)
{
	struct ibv_qp *qp = t.qp[works_on[me->index].qp];
	unsigned queue = (me->rnd >> 8) % 3 == 0 ? RECV : SEND;
	bool signaled = queue == RECV || me->posted[SEND] % 4 == 3 || (me->rnd >> 16) % 2;
	int err;

	if (me->posted[queue] == REQUESTS)
		return;
	if (queue == RECV)
		err = rig_recv(qp, id(me, RECV, true));
	else
		err = rig_send(qp, id(me, SEND, signaled), signaled ? IBV_SEND_SIGNALED : 0);
	if (err) {
		assert_int_equal(err, ENOMEM); /* as many are outstanding as there may be */
		sched_yield();
		return;
	}
	me->posted[queue]++;
	t.asked += signaled;
}

/* Whoever polls has what anybody posted. */
static void poll_one(struct ibv_cq *cq)
{
	struct ibv_wc wc[4];
	int n = flexins_poll_cq(cq, 4, wc);

	assert_in_range(n, 0, 4);
	for (int i = 0; i < n; i++) {
		unsigned of = (unsigned)(wc[i].wr_id >> 32), queue = wc[i].wr_id >> 24 & 1;

		assert_in_range(of, 0, THREADS - 1);
		assert_int_equal(wc[i].status, IBV_WC_SUCCESS);
		assert_int_equal(wc[i].qp_num, t.qp[works_on[of].qp]->qp_num);
		assert_int_equal(wc[i].opcode, queue == RECV ? IBV_WC_RECV : IBV_WC_SEND);
		assert_true(wc[i].wr_id >> 28 & 1);
		assert_int_equal(t.done[of][queue][wc[i].wr_id & 0xffffff]++, 0);
		t.completed++;
	}
}

static void *program(void *arg)
{
	struct thread *me = arg;

	while (me->posted[SEND] < REQUESTS || me->posted[RECV] < REQUESTS) {
		me->rnd = me->rnd * 6364136223846793005u + 1442695040888963407u;
		if (me->rnd >> 62)
			post(me);
		poll_one(t.cq[works_on[me->index].cq]);
	}
	return NULL;
}

static void set_up(void)
{
	memset(&t, 0, sizeof(t));
	t.r = rig_start(5, &usual);
	t.cq[0] = t.r.cq;
	t.cq[1] = flexins_create_cq(t.r.ctx, 64, NULL, NULL, 0);
	assert_non_null(t.cq[1]);
	t.qp[0] = t.r.qp;
	for (unsigned i = 1; i < QPS; i++) {
		struct rig other = t.r;

		other.cq = t.cq[cq_of[i]];
		t.qp[i] = rig_qp(&other, &usual);
		assert_int_equal(rig_move(t.qp[i], IBV_QPS_RTS), 0);
	}
	assert_int_equal(pthread_create(&t.worker, NULL, worker, NULL), 0);
}

static void take_down(void)
{
	t.stop = true;
	pthread_join(t.worker, NULL);
	for (unsigned i = 1; i < QPS; i++)
		assert_int_equal(flexins_destroy_qp(t.qp[i]), 0);
	assert_int_equal(flexins_destroy_cq(t.cq[1]), 0);
	rig_end(&t.r);
}

static void test_threads(void **state)
{
	struct thread thread[THREADS];
	int64_t until;

	(void)state;
	set_up();
	for (unsigned i = 0; i < THREADS; i++) {
		thread[i] = (struct thread){.index = i, .rnd = i};
		assert_int_equal(pthread_create(&thread[i].thread, NULL, program, &thread[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i].thread, NULL);
	until = rig_ms() + RIG_WAIT_MS;
	while (t.completed < t.asked && rig_ms() < until)
		for (unsigned i = 0; i < 2; i++)
			poll_one(t.cq[i]);
	assert_int_equal(t.completed, t.asked);
	take_down();
}

/* Queue pairs come and go on a completion queue that another thread polls. */
static void *come_and_go(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 300; i++) {
		assert_int_equal(rig_move(t.qp[2], IBV_QPS_RESET), 0);
		assert_int_equal(rig_move(t.qp[2], IBV_QPS_RTS), 0);
	}
	return NULL;
}

static void test_resets_beside_polling(void **state)
{
	struct thread me = {.index = 0};
	pthread_t other;

	(void)state;
	set_up();
	assert_int_equal(pthread_create(&other, NULL, come_and_go, NULL), 0);
	program(&me);
	pthread_join(other, NULL);
	take_down();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_resets_beside_polling),
	};

	return cmocka_run_group_tests_name("host_threads", tests, NULL, NULL);
}
