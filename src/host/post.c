/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Posting lists: a send request becomes an entry of the context's pipe, a receive request one of its QP's ring.
 *
 * Room: host, its hot path. May use: entry.h, pipe/ring.h, context.c to see whether the core lives. Two short locks a
 * call, no allocation, and no system call but the kick of a worker that sleeps; slow memory costs more.
 */
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "host/entry.h"

/* ---- the pipe; holds its lock, or is its only thread ---- */

static void kick(struct fx_context *ctx)
{
	uint32_t nap;

	/*
	 * Full fence: the phases stored before are visible before `sleeping` is loaded. The worker stores `sleeping`,
	 * fences, and looks at the phases once more, so one of the two sees the other.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	nap = __atomic_load_n(&ctx->page->worker[0].sleeping, __ATOMIC_RELAXED);
	if (fx_likely(!nap) || nap == __atomic_load_n(&ctx->kicked, __ATOMIC_RELAXED))
		return;
	ctx->conn.link->ops->kick(ctx->conn.link);
	/*
	 * Not before the kick: who finds the number here may leave the worker to it. Relaxed will do, since the worker
	 * that this kick wakes looks at the phases again before it sleeps under another number.
	 */
	__atomic_store_n(&ctx->kicked, nap, __ATOMIC_RELAXED);
}

/* Waits for the worker to make room (guarantee P1); false: the core is gone. */
static bool await_room(struct fx_context *ctx, struct fx_hpipe *pipe, uint32_t nslots)
{
	unsigned turns = 0;

	kick(ctx);
	while (!fx_pipe_room(&pipe->tx, nslots)) {
		if (++turns % FX_POLLS_PER_LOOK == 0 && !fx_look(ctx))
			return false;
		sched_yield();
		kick(ctx);
	}
	return true;
}

/* A core that is gone gets nothing: the shadow queue has the request, and polling flushes it. */
static bool pipe_put(struct fx_context *ctx, struct fx_hpipe *pipe, const struct fx_sq_slot *slot,
		     uint32_t nslots)
{
	if (fx_unlikely(!fx_alive(ctx)))
		return false;
	if (fx_unlikely(!fx_pipe_room(&pipe->tx, nslots)) && !await_room(ctx, pipe, nslots))
		return false;
	for (uint32_t i = 0; i < nslots; i++)
		fx_pipe_put(&pipe->tx, &slot[i]);
	return true;
}

bool fx_pipe_send(struct fx_context *ctx, struct fx_hpipe *pipe, const struct fx_sq_slot *slot,
		  uint32_t nslots)
{
	bool sent = nslots > 0, shared = pipe == &ctx->pipe;

	if (fx_likely(shared))
		fx_lock(&pipe->lock);
	for (uint32_t i = 0; i < nslots && sent; i += slot[i].nslots)
		sent = pipe_put(ctx, pipe, &slot[i], slot[i].nslots);
	if (fx_likely(shared))
		fx_unlock(&pipe->lock);
	if (sent)
		kick(ctx);
	return sent;
}

/* ---- posting ---- */

static int send_one(struct fx_vqp *qp, const struct ibv_send_wr *wr, bool *published)
{
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	struct fx_detour other;
	const struct fx_op *op = fx_op_of(wr->opcode);
	uint32_t index = qp->sq.head;
	int err = fx_check_send(qp, wr, op);

	if (fx_unlikely(err))
		return err;
	if (fx_unlikely(!fx_shadow_fits(&qp->sq, index)))
		return -ENOMEM;
	if (fx_unlikely(fx_bounces(qp->ctx)) && (err = fx_entry_detour(qp, op, index, &wr, &other)))
		return err;
	fx_entry_build(qp, wr, op, index, slot);
	fx_shadow_push(&qp->sq, wr->wr_id, op->wc, slot->flags & FX_WRF_SIGNALED);
	if (pipe_put(qp->ctx, qp->pipe, slot, slot->nslots))
		*published = true;
	return 0;
}

int flexins_post_send(struct ibv_qp *ibqp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)
{
	struct fx_vqp *qp = fx_qp_of(ibqp);
	struct fx_context *ctx = qp->ctx;
	bool published = false, shared = !qp->alone;
	int err = 0;

	if (fx_likely(shared)) {
		fx_lock(&qp->sq_lock);
		fx_lock(&ctx->pipe.lock);
	}
	if (fx_unlikely(!fx_may_send(qp->state)))
		err = -EINVAL;
	for (; wr && !err; wr = wr->next) {
		err = send_one(qp, wr, &published);
		if (fx_unlikely(err))
			break;
	}
	if (fx_likely(shared)) {
		fx_unlock(&ctx->pipe.lock);
		fx_unlock(&qp->sq_lock);
	}
	if (published)
		kick(ctx);
	if (fx_likely(!err))
		return 0;
	*bad_wr = wr;
	return fx_fail(err);
}

static int recv_one(struct fx_vqp *qp, const struct ibv_recv_wr *wr)
{
	uint32_t n = (uint32_t)wr->num_sge;
	struct fx_sge sge[FX_MAX_SGE];

	if (fx_unlikely(wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->max_recv_sge))
		return -EINVAL;
	if (fx_unlikely(fx_shadow_full(&qp->rq)))
		return -ENOMEM;
	if (fx_unlikely(fx_bounces(qp->ctx)))
		n = fx_bounce_recv(qp, wr, sge);
	else if (n)
		memcpy(sge, wr->sg_list, n * sizeof(sge[0]));
	fx_shadow_push(&qp->rq, wr->wr_id, IBV_WC_RECV, true);
	if (fx_likely(fx_alive(qp->ctx)))
		fx_rq_put(&qp->ring, sge, n);
	return 0;
}

int flexins_post_recv(struct ibv_qp *ibqp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	struct fx_vqp *qp = fx_qp_of(ibqp);
	int err = 0;

	fx_queue_lock(qp, &qp->rq_lock);
	if (fx_unlikely(qp->state == IBV_QPS_RESET || ibqp->srq))
		err = -EINVAL;
	for (; wr && !err; wr = wr->next) {
		err = recv_one(qp, wr);
		if (fx_unlikely(err))
			break;
	}
	fx_queue_unlock(qp, &qp->rq_lock);
	if (fx_likely(!err))
		return 0;
	*bad_wr = wr;
	return fx_fail(err);
}
