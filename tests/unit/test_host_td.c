/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Thread domains: a pipe of their own, which their thread writes to whatever others do; and what has to come first does.
 * Also run under ThreadSanitizer.
 */
#include "host_rig.h"

static const struct ibv_qp_cap cap = {
	.max_send_wr = 64, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1};

struct domain {
	struct ibv_td *td;
	struct ibv_pd *pd;
	struct ibv_qp *qp;
};

static struct domain domain(struct rig *r)
{
	struct ibv_td_init_attr none = {.comp_mask = 0};
	struct ibv_parent_domain_init_attr a = {.pd = r->pd};
	struct ibv_pd *base = r->pd;
	struct domain d = {.td = flexins_alloc_td(r->ctx, &none)};

	assert_non_null(d.td);
	a.td = d.td;
	d.pd = flexins_alloc_parent_domain(r->ctx, &a);
	assert_non_null(d.pd);
	r->pd = d.pd;
	d.qp = rig_qp(r, &cap);
	r->pd = base;
	assert_int_equal(rig_move(d.qp, IBV_QPS_RTS), 0);
	return d;
}

static void leave(struct domain *d)
{
	assert_int_equal(flexins_dealloc_td(d->td), EBUSY);
	assert_int_equal(flexins_dealloc_pd(d->pd), EBUSY);
	assert_int_equal(flexins_destroy_qp(d->qp), 0);
	assert_int_equal(flexins_dealloc_pd(d->pd), 0);
	assert_int_equal(flexins_dealloc_td(d->td), 0);
}

static int take(struct fx_pipe_rx *pipe, struct fx_sq_slot *slot)
{
	int n = fx_pipe_take(pipe, slot);

	if (n > 0)
		fx_pipe_publish_ci(pipe);
	return n;
}

static void test_own_pipe(void **state)
{
	struct rig r = rig_start(6, &cap);
	struct domain one = domain(&r), two = domain(&r);
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	struct ibv_wc wc;

	(void)state;
	assert_int_equal(r.core->nmore, 2);
	assert_int_equal(rig_send(one.qp, 1, IBV_SEND_SIGNALED), 0);
	assert_int_equal(rig_send(r.qp, 2, 0), 0);
	assert_int_equal(rig_recv(one.qp, 3), 0);
	assert_int_equal(take(&r.core->more[0], slot), 1);
	assert_int_equal(slot->qpn_gen & 0xffffff, one.qp->qp_num);
	assert_int_equal(take(&r.core->more[0], slot), 0);
	assert_int_equal(take(&r.core->more[1], slot), 0);
	assert_int_equal(take(&r.core->pipe, slot), 1);
	assert_int_equal(slot->qpn_gen & 0xffffff, r.qp->qp_num);
	assert_int_equal(take(&r.core->pipe, slot), 0);
	rig_complete(&r, one.qp, CORE_GEN, 0, FX_WC_SEND);
	assert_int_equal(rig_poll(&r, 1, &wc), 1);
	assert_int_equal(wc.wr_id, 1);
	leave(&one);
	leave(&two);
	assert_int_equal(r.core->seen[FX_MSG_DESTROY_PIPE], 2);
	rig_end(&r);
}

/* A core that has no further pipes: all go through the one there is. */
static void test_no_pipe(void **state)
{
	struct rig r = rig_start(6, &cap);
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	struct domain d;

	(void)state;
	r.core->no_more = true;
	d = domain(&r);
	assert_int_equal(rig_send(d.qp, 1, 0), 0);
	assert_int_equal(take(&r.core->pipe, slot), 1);
	leave(&d);
	assert_int_equal(r.core->seen[FX_MSG_DESTROY_PIPE], 0);
	rig_end(&r);
}

static void *post_one(void *arg)
{
	assert_int_equal(rig_send(arg, 99, 0), 0);
	return NULL;
}

/* Somebody waits for room in the context's pipe, holding its lock: who has a pipe posts on. */
static void test_no_lock(void **state)
{
	struct rig r = rig_start(4, &cap);
	struct domain d = domain(&r);
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	pthread_t thread;

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(rig_send(r.qp, i, 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, post_one, r.qp), 0);
	usleep(50000); /* it waits by now, or will soon */
	for (unsigned i = 0; i < 60; i++) {
		assert_int_equal(rig_send(d.qp, i, 0), 0);
		assert_int_equal(take(&r.core->more[0], slot), 1);
		assert_int_equal(slot->index, i);
	}
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(take(&r.core->pipe, slot), 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	leave(&d);
	rig_end(&r);
}

enum { LATE_MS = 60 };

static void *late(void *arg)
{
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];

	usleep(LATE_MS * 1000);
	while (take(arg, slot) > 0)
		;
	return NULL;
}

/* Nothing is asked of a QP before the worker has what was posted to it (guarantee P7). */
static void test_in_turn(void **state)
{
	struct rig r = rig_start(6, &cap);
	struct domain d = domain(&r);
	pthread_t thread;
	int64_t from;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(rig_send(d.qp, 1, 0), 0);
		assert_int_equal(rig_send(d.qp, 2, 0), 0);
		assert_int_equal(pthread_create(&thread, NULL, late, &r.core->more[0]), 0);
		from = rig_ms();
		if (i == 0)
			assert_int_equal(rig_move(d.qp, IBV_QPS_ERR), 0);
		else if (i == 1)
			assert_int_equal(rig_move(d.qp, IBV_QPS_SQE), 0);
		else
			assert_int_equal(flexins_destroy_qp(d.qp), 0);
		assert_true(rig_ms() - from >= LATE_MS - 20);
		assert_int_equal(pthread_join(thread, NULL), 0);
	}
	assert_int_equal(flexins_dealloc_pd(d.pd), 0);
	assert_int_equal(flexins_dealloc_td(d.td), 0);
	rig_end(&r);
}

/* A core that has died takes nothing, and nobody waits for it. */
static void test_dead(void **state)
{
	struct rig r = rig_start(6, &cap);
	struct domain d = domain(&r);
	struct ibv_wc wc;

	(void)state;
	assert_int_equal(rig_send(d.qp, 7, 0), 0);
	core_cut(r.core);
	assert_int_equal(rig_move(d.qp, IBV_QPS_ERR), ENODEV);
	assert_int_equal(rig_poll_all(&r, 1, &wc), 1);
	assert_int_equal(wc.wr_id, 7);
	assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
	leave(&d);
	rig_end(&r);
}

/* ---- a thread each, over one worker and one CQ ---- */

enum { POSTS = 5000 };

static void *poster(void *arg)
{
	for (unsigned i = 0; i < POSTS; i++)
		while (rig_send(arg, i, IBV_SEND_SIGNALED))
			sched_yield();
	return NULL;
}

static void test_threads(void **state)
{
	struct rig r = rig_start(6, &cap);
	struct domain d[2] = {domain(&r), domain(&r)};
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	uint32_t next[2] = {0}, done[2] = {0};
	pthread_t thread[2];
	struct ibv_wc wc[8];

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, poster, d[i].qp), 0);
	while (done[0] + done[1] < 2 * POSTS) {
		unsigned n;

		for (unsigned i = 0; i < 2; i++)
			while (next[i] - done[i] < 16 && take(&r.core->more[i], slot) > 0) {
				assert_int_equal(slot->index, next[i]);
				rig_complete(&r, d[i].qp, CORE_GEN, next[i]++, FX_WC_SEND);
			}
		n = rig_poll(&r, 8, wc);
		for (unsigned k = 0; k < n; k++) {
			unsigned i = wc[k].qp_num == d[1].qp->qp_num;

			assert_int_equal(wc[k].wr_id, done[i]++);
		}
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(thread[i], NULL), 0);
		leave(&d[i]);
	}
	rig_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_pipe), cmocka_unit_test(test_no_pipe),
		cmocka_unit_test(test_no_lock),	 cmocka_unit_test(test_in_turn),
		cmocka_unit_test(test_dead),	 cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
