/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completion queues: a head and a ring in the client's arena, pushed to by one worker, which knows the CQ by its handle
 * from its creation to its end. With a completion channel it can be armed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/inside.h"

static void ask_worker(struct fx_client *c, struct fx_cqo *cq, enum fx_cmd_op op,
		       void (*done)(struct fx_cmd *cmd), void *data)
{
	cq->obj.going = true; /* until the worker has answered, no other request finds it */
	c->target = cq;
	c->cmd =
		(struct fx_cmd){.op = (uint8_t)op, .done = done, .arg = c, .ctx = c->ctx->wctx, .data = data};
	fx_cmd_send(&c->ctl->mailbox[cq->worker], &c->cmd);
}

static int check_place(struct fx_client *c, uint64_t off, uint32_t shift)
{
	if (shift > FX_LIMIT_CQE_SHIFT)
		return fx_refuse(c, -EINVAL, "a CQ of 2^%u entries is beyond the device's 2^%u", shift,
				 FX_LIMIT_CQE_SHIFT);
	if (!fx_arena_holds(off, sizeof(struct fx_cq_head) + ((uint64_t)FX_CQE_SIZE << shift)))
		return fx_refuse(c, -EINVAL,
				 "a CQ of 2^%u entries at %#llx is misaligned or outside of the arena", shift,
				 (unsigned long long)off);
	return 0;
}

static int check_ring(struct fx_client *c, const struct fx_create_cq_req *req)
{
	if (req->worker >= c->ctl->cfg.workers)
		return fx_refuse(c, -EINVAL, "worker %u: this core has %u", req->worker, c->ctl->cfg.workers);
	if (req->flags & ~(uint32_t)FX_CQF_KNOWN)
		return fx_refuse(c, -EINVAL, "a CQ with flags %#x: this core knows %#x", req->flags,
				 FX_CQF_KNOWN);
	return check_place(c, req->off, req->shift);
}

static void created(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_cqo *cq = c->target;

	cq->obj.going = false;
	fx_client_reply(c, 0);
}

int fx_create_cq(struct fx_client *c)
{
	const struct fx_create_cq_req *req = &c->req.create_cq;
	struct fx_channelo *ch = req->channel ? fx_obj_get(c, FX_OBJ_CHANNEL, req->channel) : NULL;
	struct fx_cqo *cq;
	int err = req->channel && !ch ? -EINVAL : check_ring(c, req);

	if (err)
		return err;
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return fx_refuse(c, -ENOMEM, "cannot allocate a CQ");
	err = fx_obj_add(c->ctx, &cq->obj, FX_OBJ_CQ);
	if (err) {
		free(cq);
		return err;
	}
	cq->worker = req->worker;
	cq->cq = (struct fx_cq){
		.handle = cq->obj.handle,
		.cookie = req->cookie,
		.wake = ch ? ch->wake.ring : -1,
		.owner = c->ctx->wctx,
		.stamped = req->flags & FX_CQF_STAMPED,
		.lossy = req->flags & FX_CQF_LOSSY,
	};
	err = c->ctl->cfg.place->cq_open(c->ctx, &cq->cq, req->off, req->shift);
	if (err) {
		fx_obj_del(&cq->obj);
		free(cq);
		return fx_refuse(c, err, "cannot reach the ring of a CQ: %s", strerror(-err));
	}
	c->rep.handle_rep.handle = cq->obj.handle;
	cq->channel = ch;
	if (ch)
		ch->obj.refs++;
	ask_worker(c, cq, FX_CMD_CQ_ADD, created, &cq->cq);
	return FX_LATER;
}

void fx_cq_free(struct fx_cqo *cq)
{
	if (cq->channel)
		cq->channel->obj.refs--;
	cq->obj.ctx->ctl->cfg.place->cq_close(&cq->cq);
	fx_obj_del(&cq->obj);
	free(cq);
}

static void destroyed(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;

	fx_cq_free(c->target);
	fx_client_reply(c, 0);
}

int fx_destroy_cq(struct fx_client *c)
{
	struct fx_cqo *cq = fx_obj_get(c, FX_OBJ_CQ, c->req.handle.handle);

	if (!cq)
		return -EINVAL;
	if (cq->obj.refs)
		return fx_refuse(c, -EBUSY, "CQ %#x is used by %u queues: destroy their QPs first",
				 cq->obj.handle, cq->obj.refs);
	c->rep.handle_rep.handle = cq->obj.handle;
	ask_worker(c, cq, FX_CMD_CQ_DEL, destroyed, &cq->cq);
	return FX_LATER;
}

/* ---- changes ---- */

static void modified(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_cqo *cq = c->target;

	cq->obj.going = false;
	c->rep.handle_rep.handle = cq->obj.handle;
	fx_client_reply(c, 0);
}

int fx_modify_cq(struct fx_client *c)
{
	const struct fx_modify_cq_req *req = &c->req.modify_cq;
	struct fx_cqo *cq = fx_obj_get(c, FX_OBJ_CQ, req->cq);

	if (!cq)
		return -EINVAL;
	c->cq = (struct fx_cmd_cq){
		.cq = &cq->cq, .every = req->count, .patience = (uint64_t)req->period_us * 1000};
	ask_worker(c, cq, FX_CMD_CQ_MODIFY, modified, &c->cq);
	return FX_LATER;
}

static void resized(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_cqo *cq = c->target;

	cq->obj.ctx->ctl->cfg.place->cq_close(&c->cq.to);
	cq->obj.going = false;
	c->rep.resize_cq_rep.end = c->cq.end;
	fx_client_reply(c, cmd->err ? fx_refuse(c, cmd->err,
						"a CQ of 2^%u entries is too small for what is outstanding",
						c->cq.to.shift)
				    : 0);
}

int fx_resize_cq(struct fx_client *c)
{
	const struct fx_resize_cq_req req = c->req.resize_cq;
	struct fx_cqo *cq = fx_obj_get(c, FX_OBJ_CQ, req.cq);
	int err = cq ? check_place(c, req.off, req.shift) : -EINVAL;

	if (err)
		return err;
	c->cq = (struct fx_cmd_cq){.cq = &cq->cq, .ci = req.ci};
	err = c->ctl->cfg.place->cq_open(c->ctx, &c->cq.to, req.off, req.shift);
	if (err)
		return fx_refuse(c, err, "cannot reach the ring of a CQ: %s", strerror(-err));
	ask_worker(c, cq, FX_CMD_CQ_RESIZE, resized, &c->cq);
	return FX_LATER;
}

/* ---- the clock that CQEs are stamped with ---- */

static uint64_t read_clock(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int fx_query_clock(struct fx_client *c)
{
	c->rep.query_clock_rep.ns = read_clock(CLOCK_MONOTONIC);
	c->rep.query_clock_rep.wall = read_clock(CLOCK_REALTIME);
	return 0;
}
