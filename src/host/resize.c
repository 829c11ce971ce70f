/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of a CQ: another size, and how many completions an event is for.
 *
 * Room: host. May use: context.c, arena.c, cq.c. A CQ that is resized has two rings for a while: the core writes to the new
 * one, and the old one is polled until it is empty. The CQ's lock is held while the core is asked, so that it finds the
 * consumer's index where the request says.
 */
#include <string.h>

#include "host/host.h"

/* Holds cq->lock. */
static int move_ring(struct fx_vcq *cq, struct fx_cq_ring *r, uint32_t shift)
{
	struct fx_resize_cq_req req = {
		.head = {.op = FX_MSG_RESIZE_CQ}, .cq = r->handle, .shift = shift, .ci = r->rx.ci};
	struct fx_context *ctx = cq->ctx;
	struct fx_resize_cq_rep rep;
	struct fx_cq_head *head;
	int err;

	fx_cq_advance(cq, r);
	if (r->next.ring) /* of the last time: it has not been polled as far as that */
		return -EBUSY;
	err = fx_arena_alloc(&ctx->arena, fx_cq_bytes(shift), &req.off);
	if (err)
		return err;
	head = (struct fx_cq_head *)(ctx->arena.base + req.off);
	head->ci = r->rx.ci;
	err = fx_ask(ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
	if (err) {
		fx_arena_free(&ctx->arena, req.off, fx_cq_bytes(shift), true);
		return err;
	}
	r->next_off = req.off;
	r->next = (struct fx_cq_rx){
		.head = head, .ring = (const struct fx_cqe *)(head + 1), .shift = shift, .origin = rep.end};
	r->rx.head = head; /* where the core looks from now on, whichever ring is polled */
	fx_cq_advance(cq, r);
	return 0;
}

int flexins_resize_cq(struct ibv_cq *ibcq, int cqe)
{
	struct fx_vcq *cq = fx_cq_of(ibcq);
	uint32_t shift;
	int err = 0;

	if (cqe <= 0 || (uint32_t)cqe > cq->ctx->limits.max_cqe)
		return fx_fail(EINVAL);
	shift = fx_log2_up((uint32_t)cqe);
	if (ibcq->cqe == (int)(1u << shift))
		return 0;
	fx_lock(&cq->lock);
	for (uint32_t i = 0; i < FX_RINGS && !err; i++)
		err = move_ring(cq, &cq->ring[i], shift);
	if (!err)
		ibcq->cqe = (int)(1u << shift);
	fx_unlock(&cq->lock);
	return err ? fx_fail(err) : 0;
}

int flexins_modify_cq(struct ibv_cq *ibcq, struct ibv_modify_cq_attr *attr)
{
	struct fx_vcq *cq = fx_cq_of(ibcq);
	struct fx_modify_cq_req req = {.head = {.op = FX_MSG_MODIFY_CQ},
				       .count = attr->moderate.cq_count,
				       .period_us = attr->moderate.cq_period};
	struct fx_handle_rep rep;
	int err = 0;

	if (attr->attr_mask & ~(uint32_t)IBV_CQ_ATTR_MODERATE)
		return fx_fail(EOPNOTSUPP);
	for (uint32_t i = 0; i < FX_RINGS && attr->attr_mask && !err; i++) {
		req.cq = cq->ring[i].handle;
		err = fx_ask(cq->ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
	}
	return err ? fx_fail(err) : 0;
}
