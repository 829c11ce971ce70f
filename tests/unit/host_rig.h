/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A program over host_play.h's core: a context, a domain, a CQ and an RC QP.
 */
#ifndef FX_TEST_HOST_RIG_H
#define FX_TEST_HOST_RIG_H

#include <time.h>

#include "host_play.h"

enum { RIG_WAIT_MS = 5000 };

struct rig {
	struct core *core;
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
};

/* Why there is no device; 0: there is one. */
static inline int rig_list_errno(void)
{
	int n = -1, err;
	struct ibv_device **list = flexins_get_device_list(&n);

	err = errno;
	assert_non_null(list);
	assert_int_equal(n, !err);
	assert_true(list[0] ? n == 1 : n == 0);
	flexins_free_device_list(list);
	return err;
}

static inline struct ibv_context *rig_open(void)
{
	struct ibv_device **list = flexins_get_device_list(NULL);
	struct ibv_context *ctx;

	assert_non_null(list);
	assert_non_null(list[0]);
	ctx = flexins_open_device(list[0]);
	flexins_free_device_list(list);
	assert_non_null(ctx);
	return ctx;
}

static inline struct ibv_qp *rig_qp(const struct rig *r, const struct ibv_qp_cap *cap)
{
	struct ibv_qp_init_attr a = {.send_cq = r->cq, .recv_cq = r->cq, .cap = *cap, .qp_type = IBV_QPT_RC};
	struct ibv_qp *qp = flexins_create_qp(r->pd, &a);

	assert_non_null(qp);
	return qp;
}

static inline int rig_move(struct ibv_qp *qp, enum ibv_qp_state state)
{
	struct ibv_qp_attr a = {.qp_state = state};

	return flexins_modify_qp(qp, &a, IBV_QP_STATE);
}

/* Everything, with a QP that is ready to send. */
static inline struct rig rig_start(uint32_t pipe_shift, const struct ibv_qp_cap *cap)
{
	struct rig r = {.core = core_start(pipe_shift, CORE_POLITE)};

	r.ctx = rig_open();
	r.pd = flexins_alloc_pd(r.ctx);
	assert_non_null(r.pd);
	r.cq = flexins_create_cq(r.ctx, 64, NULL, NULL, 0);
	assert_non_null(r.cq);
	r.qp = rig_qp(&r, cap);
	assert_int_equal(rig_move(r.qp, IBV_QPS_RTS), 0);
	return r;
}

/* Whatever became of the core, everything can be destroyed. */
static inline void rig_leave(struct rig *r)
{
	if (r->qp)
		assert_int_equal(flexins_destroy_qp(r->qp), 0);
	assert_int_equal(flexins_destroy_cq(r->cq), 0);
	assert_int_equal(flexins_dealloc_pd(r->pd), 0);
	assert_int_equal(flexins_close_device(r->ctx), 0);
}

static inline void rig_end(struct rig *r)
{
	rig_leave(r);
	core_end(r->core);
}

static inline int rig_send(struct ibv_qp *qp, uint64_t wr_id, unsigned flags)
{
	struct ibv_send_wr wr = {.wr_id = wr_id, .opcode = IBV_WR_SEND, .send_flags = flags}, *bad;

	return flexins_post_send(qp, &wr, &bad);
}

static inline int rig_recv(struct ibv_qp *qp, uint64_t wr_id)
{
	struct ibv_recv_wr wr = {.wr_id = wr_id}, *bad;

	return flexins_post_recv(qp, &wr, &bad);
}

/* The core completes a QP's request number `index`. */
static inline void rig_complete(struct rig *r, const struct ibv_qp *qp, uint8_t gen, uint32_t index,
				uint8_t opcode)
{
	struct fx_cqe c = {.qpn_gen = fx_qpn_gen(qp->qp_num, gen), .index = index, .opcode = opcode};

	assert_int_equal(fx_cq_push(&r->core->cq[0], &c), 0);
}

static inline unsigned rig_poll(struct rig *r, int max, struct ibv_wc *wc)
{
	int n = flexins_poll_cq(r->cq, max, wc);

	assert_in_range(n, 0, max);
	return (unsigned)n;
}

/* How many kicks came since last asked: all before this one, since a request is answered in its turn. */
static inline unsigned rig_kicks(struct rig *r)
{
	struct ibv_pd *pd = flexins_alloc_pd(r->ctx);

	assert_non_null(pd);
	assert_int_equal(flexins_dealloc_pd(pd), 0);
	return core_kicks(r->core);
}

static inline int64_t rig_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Polls until `want` completions came, or for RIG_WAIT_MS; -> their number */
static inline unsigned rig_poll_all(struct rig *r, unsigned want, struct ibv_wc *wc)
{
	int64_t until = rig_ms() + RIG_WAIT_MS;
	unsigned n = 0;

	while (n < want && rig_ms() < until)
		n += rig_poll(r, (int)(want - n), wc + n);
	return n;
}

#endif
