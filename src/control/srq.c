/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared receive queues: a ring in the client's arena, which QPs of one worker take receives from. The queue itself
 * belongs to that worker as soon as a QP uses it; its limit is set and looked at there.
 *
 * Room: control.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"

static int check_caps(struct fx_client *c, const struct fx_create_srq_req *req)
{
	if (req->worker >= c->ctl->cfg.workers)
		return fx_refuse(c, -EINVAL, "worker %u: this core has %u", req->worker, c->ctl->cfg.workers);
	if (!req->max_wr || req->max_wr > FX_LIMIT_QP_WR)
		return fx_refuse(c, -EINVAL, "an SRQ of %u entries: the device has 1 to %u", req->max_wr,
				 FX_LIMIT_QP_WR);
	if (req->max_sge > FX_MAX_SGE)
		return fx_refuse(c, -EINVAL, "max_sge %u: the device has at most %u", req->max_sge,
				 FX_MAX_SGE);
	return 0;
}

static int check_limit(struct fx_client *c, uint32_t limit, uint32_t max_wr)
{
	if (limit <= max_wr)
		return 0;
	return fx_refuse(c, -EINVAL, "srq_limit %u: the SRQ has %u entries at most", limit, max_wr);
}

static int open_ring(struct fx_client *c, struct fx_srqo *srq, const struct fx_create_srq_req *req,
		     const struct fx_rq *rq)
{
	srq->worker = req->worker;
	srq->max_wr = req->max_wr;
	srq->rx = (struct fx_rxq){.ring = *rq,
				  .pd = srq->pd->obj.handle,
				  .max_sge = req->max_sge,
				  .shared = true,
				  .owner = c->ctx->wctx,
				  .handle = srq->obj.handle,
				  .cookie = req->cookie};
	srq->rx.ring.ids = req->max_wr;
	if (srq->xrcd) {
		srq->rx.number = fx_handle_index(srq->obj.handle) << FX_WORKER_BITS | srq->worker;
		srq->rx.xrcd = srq->xrcd->d->id;
		srq->rx.cq = &srq->cq->cq;
	}
	return c->ctl->cfg.place->rq_open(c->ctx, &srq->rx, req->rq_off);
}

/* Whatever the worker does with it, it answers; until then no other request finds it. */
static void ask_worker(struct fx_client *c, struct fx_srqo *srq, enum fx_cmd_op op,
		       void (*done)(struct fx_cmd *cmd), void *data)
{
	srq->obj.going = true;
	c->target = srq;
	c->cmd = (struct fx_cmd){
		.op = (uint8_t)op, .done = done, .arg = c, .ctx = fx_srq_wctx(srq), .data = data};
	fx_cmd_send(&c->ctl->mailbox[srq->worker], &c->cmd);
}

static int ask_limit(struct fx_client *c, struct fx_srqo *srq, enum fx_cmd_op op, uint32_t limit,
		     void (*done)(struct fx_cmd *cmd))
{
	c->srq = (struct fx_cmd_srq){.rx = &srq->rx, .limit = limit};
	ask_worker(c, srq, op, done, &c->srq);
	return FX_LATER;
}

static void created(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_srqo *srq = c->target;

	if (cmd->err) {
		fx_srq_free(srq);
		fx_client_reply(c, fx_refuse(c, cmd->err, "the worker cannot take another SRQ: %s",
					     strerror(-cmd->err)));
		return;
	}
	srq->obj.going = false;
	fx_client_reply(c, 0);
}

/* What it is made of; the opposite is in fx_srq_free(). */
static int link_srq(struct fx_client *c, struct fx_srqo *srq, const struct fx_create_srq_req *req)
{
	int err;

	srq->pd = fx_obj_get(c, FX_OBJ_PD, req->pd);
	if (!srq->pd)
		return -EINVAL;
	if (req->xrcd || req->cq) {
		srq->xrcd = fx_obj_get(c, FX_OBJ_XRCD, req->xrcd);
		srq->cq = srq->xrcd ? fx_obj_get(c, FX_OBJ_CQ, req->cq) : NULL;
		if (!srq->cq)
			return -EINVAL;
		if (srq->cq->worker != req->worker)
			return fx_refuse(c, -EINVAL, "the CQ of this SRQ is of worker %u, and not of %u",
					 srq->cq->worker, req->worker);
	}
	err = fx_obj_add(c->ctx, &srq->obj, FX_OBJ_SRQ);
	if (err)
		return err;
	srq->pd->obj.refs++;
	if (srq->xrcd) {
		srq->xrcd->obj.refs++;
		srq->cq->obj.refs++;
	}
	return 0;
}

int fx_create_srq(struct fx_client *c)
{
	const struct fx_create_srq_req req = c->req.create_srq;
	struct fx_srqo *srq;
	struct fx_rq rq;
	int err = check_caps(c, &req);

	if (!err)
		err = check_limit(c, req.limit, req.max_wr);
	if (!err)
		err = fx_check_rq(c, req.max_wr, req.max_sge, req.rq_shift, req.rq_off, &rq);
	if (err)
		return err;
	srq = calloc(1, sizeof(*srq));
	if (!srq)
		return fx_refuse(c, -ENOMEM, "cannot allocate an SRQ");
	err = link_srq(c, srq, &req);
	if (err) {
		free(srq);
		return err;
	}
	err = open_ring(c, srq, &req, &rq);
	if (err) {
		fx_srq_free(srq);
		return fx_refuse(c, err, "cannot reach the ring of an SRQ: %s", strerror(-err));
	}
	c->rep.create_srq_rep.srq = srq->obj.handle;
	c->rep.create_srq_rep.number = srq->rx.number;
	return ask_limit(c, srq, FX_CMD_SRQ_ADD, req.limit, created);
}

static void answered(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_srqo *srq = c->target;

	srq->obj.going = false;
	c->rep.srq_rep.limit = c->srq.limit;
	fx_client_reply(c, 0);
}

int fx_modify_srq(struct fx_client *c)
{
	const struct fx_modify_srq_req *req = &c->req.modify_srq;
	struct fx_srqo *srq = fx_obj_get(c, FX_OBJ_SRQ, req->srq);
	int err = srq ? check_limit(c, req->limit, srq->max_wr) : -EINVAL;

	return err ? err : ask_limit(c, srq, FX_CMD_SRQ_ARM, req->limit, answered);
}

int fx_query_srq(struct fx_client *c)
{
	struct fx_srqo *srq = fx_obj_get(c, FX_OBJ_SRQ, c->req.modify_srq.srq);

	return srq ? ask_limit(c, srq, FX_CMD_SRQ_QUERY, 0, answered) : -EINVAL;
}

struct fx_wctx *fx_srq_wctx(const struct fx_srqo *srq)
{
	return srq->xrcd ? srq->xrcd->d->w : srq->obj.ctx->wctx;
}

void fx_srq_free(struct fx_srqo *srq)
{
	srq->obj.ctx->ctl->cfg.place->rq_close(srq->rx.copy);
	srq->pd->obj.refs--;
	if (srq->xrcd) {
		srq->xrcd->obj.refs--;
		srq->cq->obj.refs--;
	}
	fx_obj_del(&srq->obj);
	free(srq);
}

static void destroyed(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;

	fx_srq_free(c->target);
	fx_client_reply(c, 0);
}

int fx_destroy_srq(struct fx_client *c)
{
	struct fx_srqo *srq = fx_obj_get(c, FX_OBJ_SRQ, c->req.handle.handle);

	if (!srq)
		return -EINVAL;
	if (srq->obj.refs)
		return fx_refuse(c, -EBUSY, "SRQ %#x is used by %u QPs: destroy them first", srq->obj.handle,
				 srq->obj.refs);
	c->rep.handle_rep.handle = srq->obj.handle;
	ask_worker(c, srq, FX_CMD_SRQ_DEL, destroyed, &srq->rx);
	return FX_LATER;
}
