/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queue pairs: checked and allocated here, run on their worker. A modify or destroy runs there after the
 * worker has consumed the context's pipe up to the index that the request names (guarantee P7); a destroyed QP
 * comes back when nothing under way points at it any more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"

enum {
	ATTR_AV = 1 << 7, /* IBV_QP_AV */
	TYPES = 1 << FX_QPT_RC | 1 << FX_QPT_UC | 1 << FX_QPT_UD | 1 << FX_QPT_XRC_SEND |
		1 << FX_QPT_XRC_RECV,
};

/*
 * A receive queue that nothing can be posted to: this slot never becomes valid, since its phase would be 1.
 */
static const uint8_t empty_slot[FX_SLOT_SIZE];

static int check_caps(struct fx_client *c, const struct fx_create_qp_req *req)
{
	const struct {
		const char *name;
		uint32_t want, max;
	} caps[] = {
		{"max_send_wr", req->max_send_wr, FX_LIMIT_QP_WR},
		{"max_recv_wr", req->max_recv_wr, FX_LIMIT_QP_WR},
		{"max_send_sge", req->max_send_sge, FX_MAX_SGE},
		{"max_recv_sge", req->max_recv_sge, FX_MAX_SGE},
		{"max_inline_data", req->max_inline, FX_MAX_INLINE},
	};

	if (req->type > FX_QPT_XRC_RECV || !(TYPES & 1u << req->type))
		return fx_refuse(c, -EOPNOTSUPP,
				 "QPs of type %u: this core has RC (%u), UC (%u), UD (%u) and XRC (%u, %u)",
				 req->type, FX_QPT_RC, FX_QPT_UC, FX_QPT_UD, FX_QPT_XRC_SEND,
				 FX_QPT_XRC_RECV);
	if (req->flags & ~(uint32_t)FX_QPF_KNOWN)
		return fx_refuse(c, -EINVAL, "a QP with flags %#x: this core knows %#x", req->flags,
				 FX_QPF_KNOWN);
	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		if (caps[i].want > caps[i].max)
			return fx_refuse(c, -EINVAL, "%s %u: the device has at most %u", caps[i].name,
					 caps[i].want, caps[i].max);
	return 0;
}

int fx_check_rq(struct fx_client *c, uint32_t max_wr, uint32_t max_sge, uint32_t shift, uint64_t off,
		struct fx_rq *rq)
{
	uint32_t stride = fx_rq_stride(max_sge);

	if (shift > FX_LIMIT_RQ_SHIFT || 1u << shift < max_wr * stride)
		return fx_refuse(c, -EINVAL, "a receive ring of 2^%u slots cannot hold %u entries of %u",
				 shift, max_wr, stride);
	if (!fx_arena_holds(off, (uint64_t)FX_SLOT_SIZE << shift))
		return fx_refuse(
			c, -EINVAL,
			"a receive ring of 2^%u slots at %#llx is misaligned or outside of the arena", shift,
			(unsigned long long)off);
	*rq = (struct fx_rq){.shift = shift, .stride = stride}; /* whose slots the placement opens */
	return 0;
}

static bool has_ring(const struct fx_create_qp_req *req)
{
	return req->max_recv_wr && !req->srq && req->type != FX_QPT_XRC_RECV;
}

static int check_rq(struct fx_client *c, const struct fx_create_qp_req *req, struct fx_rq *rq)
{
	*rq = (struct fx_rq){.slots = (uint8_t *)(uintptr_t)empty_slot, .stride = 1};
	return !has_ring(req)
		       ? 0
		       : fx_check_rq(c, req->max_recv_wr, req->max_recv_sge, req->rq_shift, req->rq_off, rq);
}

/* What it is made of. */
static int find_parts(struct fx_client *c, struct fx_qpo *qp, const struct fx_create_qp_req *req)
{
	if (req->type == FX_QPT_XRC_RECV) {
		if (req->max_send_wr || req->srq)
			return fx_refuse(c, -EINVAL, "a QP of type XRC_RECV has no queues of its own");
		qp->xrcd = fx_obj_get(c, FX_OBJ_XRCD, req->xrcd);
		return qp->xrcd ? 0 : -EINVAL;
	}
	qp->pd = fx_obj_get(c, FX_OBJ_PD, req->pd);
	qp->scq = qp->pd ? fx_obj_get(c, FX_OBJ_CQ, req->send_cq) : NULL;
	qp->rcq = qp->scq ? fx_obj_get(c, FX_OBJ_CQ, req->recv_cq) : NULL;
	if (!qp->rcq)
		return -EINVAL;
	if (qp->scq->worker != qp->rcq->worker)
		return fx_refuse(c, -EINVAL, "the CQs of a QP must be of one worker: these are of %u and %u",
				 qp->scq->worker, qp->rcq->worker);
	qp->worker = qp->scq->worker;
	qp->srq = req->srq ? fx_obj_get(c, FX_OBJ_SRQ, req->srq) : NULL;
	if (req->srq && !qp->srq)
		return -EINVAL;
	if (qp->srq && (qp->srq->worker != qp->worker || qp->srq->xrcd))
		return fx_refuse(c, -EINVAL, "SRQ %#x is %s", qp->srq->obj.handle,
				 qp->srq->xrcd ? "of XRC: its messages name it"
					       : "of another worker than the CQs");
	return 0;
}

static void refer(struct fx_qpo *qp, int n)
{
	struct fx_obj *const parts[] = {qp->pd ? &qp->pd->obj : NULL, qp->scq ? &qp->scq->obj : NULL,
					qp->rcq ? &qp->rcq->obj : NULL, qp->srq ? &qp->srq->obj : NULL,
					qp->xrcd ? &qp->xrcd->obj : NULL};

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (parts[i])
			parts[i]->refs += (uint32_t)n;
}

/* Takes references; the opposite of unlink_qp(). */
static int link_qp(struct fx_client *c, struct fx_qpo *qp, const struct fx_create_qp_req *req)
{
	int err = find_parts(c, qp, req);

	if (!err)
		err = fx_quota_take(c, FX_QUOTA_send_wrs, req->max_send_wr);
	if (err)
		return err;
	err = fx_obj_add(c->ctx, &qp->obj, FX_OBJ_QP);
	if (err) {
		fx_quota_give(c->user, FX_QUOTA_send_wrs, req->max_send_wr);
		return err;
	}
	qp->send_wrs = req->max_send_wr;
	refer(qp, 1);
	return 0;
}

static void unlink_qp(struct fx_qpo *qp)
{
	refer(qp, -1);
	fx_quota_give(qp->obj.ctx->user, FX_QUOTA_send_wrs, qp->send_wrs);
	fx_obj_del(&qp->obj);
}

struct fx_wctx *fx_qp_wctx(const struct fx_qpo *qp)
{
	return qp->xrcd ? qp->xrcd->d->w : qp->obj.ctx->wctx;
}

/* The number's next life starts a generation later: what is still in a pipe or ring for this one is stale. */
void fx_qp_forget(struct fx_qpo *qp)
{
	qp->obj.ctx->ctl->qp_gen[fx_handle_index(qp->obj.handle)]++;
	qp->obj.ctx->ctl->cfg.place->rq_close(qp->rq_copy);
	fx_mcast_quit(qp);
	unlink_qp(qp);
	free(qp);
}

/* 0 or -ENOMEM; with its receive ring, if it has one. */
static int make_qp(struct fx_client *c, struct fx_qpo *qp, const struct fx_create_qp_req *req,
		   const struct fx_rq *rq)
{
	uint32_t index = fx_handle_index(qp->obj.handle);
	struct fx_qp_cfg cfg = {
		.qpn = index << FX_WORKER_BITS | qp->worker,
		.gen = c->ctl->qp_gen[index],
		.ctx = qp->xrcd ? qp->xrcd->d->id : c->ctx->id,
		.pd = qp->pd ? qp->pd->obj.handle : 0,
		.type = req->type,
		.handle = qp->obj.handle,
		.cookie = req->cookie,
		.max_send_wr = req->max_send_wr,
		.max_recv_wr = req->max_recv_wr,
		.max_send_sge = req->max_send_sge,
		.max_recv_sge = qp->xrcd ? FX_MAX_SGE : req->max_recv_sge,
		.max_inline = req->max_inline,
		.sq_sig_all = req->sq_sig_all != 0,
		.block_mcast_loop = req->flags & FX_QPF_BLOCK_MCAST_LOOP,
		.scq = qp->scq ? &qp->scq->cq : NULL,
		.rcq = qp->rcq ? &qp->rcq->cq : NULL,
		.rq = *rq,
		.srq = qp->srq ? &qp->srq->rx : NULL,
		.xrcd = qp->xrcd ? qp->xrcd->d->id : 0,
		.owner = &qp->wqp,
		.under_way = &fx_qp_wctx(qp)->under_way,
	};

	qp->qpn = cfg.qpn;
	qp->type = (uint8_t)req->type;
	qp->wqp = (struct fx_wqp){.ctx = fx_qp_wctx(qp)};
	qp->qp = fx_qp_create(&cfg);
	if (!qp->qp || rq->slots)
		return qp->qp ? 0 : -ENOMEM;
	if (c->ctl->cfg.place->rq_open(c->ctx, fx_qp_rxq(qp->qp), req->rq_off) < 0)
		return -ENOMEM;
	qp->rq_copy = fx_qp_rxq(qp->qp)->copy;
	return 0;
}

static void created(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_qpo *qp = c->target;

	if (cmd->err) { /* the worker has freed it */
		fx_qp_forget(qp);
		fx_client_reply(c, fx_refuse(c, cmd->err, "the worker cannot take another QP: %s",
					     strerror(-cmd->err)));
		return;
	}
	c->rep.create_qp_rep.qp = qp->obj.handle;
	c->rep.create_qp_rep.qpn = qp->qpn;
	c->rep.create_qp_rep.gen = c->ctl->qp_gen[fx_handle_index(qp->obj.handle)];
	c->rep.create_qp_rep.worker = qp->worker;
	qp->obj.going = false;
	fx_client_reply(c, 0);
}

/* Prepares the client's one command. */
static void ask_worker(struct fx_client *c, struct fx_qpo *qp, enum fx_cmd_op op,
		       void (*done)(struct fx_cmd *cmd), void *data)
{
	c->target = qp;
	c->cmd = (struct fx_cmd){
		.op = (uint8_t)op, .done = done, .arg = c, .ctx = fx_qp_wctx(qp), .qp = qp->qp, .data = data};
}

/* After what was posted before; to a QP that only receives, nothing is. */
static void in_turn(struct fx_client *c, const struct fx_qpo *qp, uint32_t pipe_pi)
{
	c->cmd.pipe_pi = pipe_pi;
	c->cmd.in_turn = !qp->xrcd;
}

int fx_create_qp(struct fx_client *c)
{
	const struct fx_create_qp_req req = c->req.create_qp;
	struct fx_qpo *qp;
	struct fx_rq rq;
	int err = check_caps(c, &req);

	if (!err)
		err = check_rq(c, &req, &rq);
	if (err)
		return err;
	qp = calloc(1, sizeof(*qp));
	if (!qp)
		return fx_refuse(c, -ENOMEM, "cannot allocate a QP");
	err = link_qp(c, qp, &req);
	if (err) {
		free(qp);
		return err;
	}
	if (make_qp(c, qp, &req, &rq) < 0) {
		if (qp->qp)
			fx_qp_free(NULL, qp->qp);
		unlink_qp(qp);
		free(qp);
		return fx_refuse(c, -ENOMEM, "cannot allocate a QP");
	}
	qp->obj.going = true; /* no other request may find it before its worker knows it */
	ask_worker(c, qp, FX_CMD_QP_ATTACH, created, NULL);
	fx_cmd_send(&c->ctl->mailbox[qp->worker], &c->cmd);
	return FX_LATER;
}

static void modified(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_qpo *qp = c->target;
	int err = cmd->err;

	if (err == -ETIMEDOUT)
		fx_refuse(c, err, "QP %#x: the send pipe never reached index %u", qp->qpn, cmd->pipe_pi);
	else if (err)
		fx_refuse(c, err, "QP %#x: the transition or its attributes (mask %#x) are not allowed: %s",
			  qp->qpn, c->modify.mask, strerror(-err));
	c->ctl->qp_gen[fx_handle_index(qp->obj.handle)] = (uint8_t)c->modify.gen;
	c->rep.modify_qp_rep.gen = c->modify.gen;
	c->rep.modify_qp_rep.state = c->modify.attr.qp_state;
	fx_client_reply(c, err);
}

int fx_modify_qp(struct fx_client *c)
{
	const struct fx_modify_qp_req *req = &c->req.modify_qp;
	struct fx_qpo *qp = fx_qp_get(c, req->qp);
	int err;

	if (!qp)
		return -EINVAL;
	memset(&c->modify, 0, sizeof(c->modify));
	c->modify.attr = req->attr;
	c->modify.mask = req->mask;
	c->modify.sq_index = req->sq_index;
	c->modify.rq_index = req->rq_index;
	if (req->mask & ATTR_AV) {
		err = fx_path_build(c, &req->attr.ah, qp->qpn, &c->modify.path);
		if (err)
			return err;
		c->modify.have_path = true;
	}
	ask_worker(c, qp, FX_CMD_QP_MODIFY, modified, &c->modify);
	in_turn(c, qp, req->pipe_pi);
	fx_cmd_send(&c->ctl->mailbox[qp->worker], &c->cmd);
	return FX_LATER;
}

static void queried(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;

	c->rep.query_qp_rep.gen = c->modify.gen;
	c->rep.query_qp_rep.attr = c->modify.attr;
	fx_client_reply(c, cmd->err);
}

int fx_query_qp(struct fx_client *c)
{
	struct fx_qpo *qp = fx_qp_get(c, c->req.qp.qp);

	if (!qp)
		return -EINVAL;
	memset(&c->modify, 0, sizeof(c->modify));
	ask_worker(c, qp, FX_CMD_QP_QUERY, queried, &c->modify);
	fx_cmd_send(&c->ctl->mailbox[qp->worker], &c->cmd);
	return FX_LATER;
}

static void destroyed(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_qpo *qp = c->target;

	c->rep.handle_rep.handle = qp->obj.handle;
	fx_qp_forget(qp);
	fx_client_reply(c, 0);
}

int fx_destroy_qp(struct fx_client *c)
{
	struct fx_qpo *qp = fx_qp_get(c, c->req.qp.qp);

	if (!qp)
		return -EINVAL;
	if (qp->groups)
		return fx_refuse(c, -EBUSY, "QP %#x is in a multicast group: detach it first", qp->qpn);
	c->rep.handle_rep.handle = qp->obj.handle;
	if (fx_qp_leave(qp, c->ctx))
		return 0;
	qp->obj.going = true;
	ask_worker(c, qp, FX_CMD_QP_DETACH, destroyed, NULL);
	in_turn(c, qp, c->req.qp.pipe_pi);
	fx_cmd_send(&c->ctl->mailbox[qp->worker], &c->cmd);
	return FX_LATER;
}
