/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Contexts: the greeting that opens one, and its end.
 *
 * Its arena has the head and slots of the send pipe, the event ring, a page for the core page, then the heap, which the
 * client lays out as it likes; where that memory is is the placement's matter (place.h). The end of a context needs no
 * memory and no goodwill: all that it takes was allocated with the objects.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"
#include "memory/window.h"

enum { STALL_S = 5 };
static_assert(1u << FX_EVENT_SHIFT >= 2 * FX_LIMIT_CQ, "asynchronous events leave room for one of every CQ");

bool fx_arena_holds(uint64_t off, uint64_t len)
{
	return off % FX_LINE == 0 && off >= FX_HEAP_OFF && off <= FX_ARENA_SIZE && len <= FX_ARENA_SIZE - off;
}

/* The rings were taken to pieces by their own host, or away: only its context suffers. */
static void rings_broken(struct fx_cmd *cmd)
{
	struct fx_ctx *ctx = cmd->arg;

	if (!ctx->client)
		return; /* it has gone, and its memory with it */
	ctx->ctl->n.broken_pipes++;
	fx_log(FX_LOG_WARN,
	       "context %u (%s, process %d): its rings contradict themselves, or are gone; disconnected",
	       fx_handle_index(ctx->id), ctx->program, (int)ctx->pid);
	fx_client_drop(ctx->client);
}

static int make_wctx(struct fx_ctx *ctx)
{
	struct fx_wctx *w = aligned_alloc(FX_LINE, (sizeof(*w) + FX_LINE - 1) / FX_LINE * FX_LINE);

	if (!w)
		return -ENOMEM;
	*w = (struct fx_wctx){
		.id = ctx->id,
		.broken = {.op = FX_CMD_CTX_BROKEN, .done = rings_broken, .arg = ctx},
	};
	ctx->wctx = w;
	w->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return w->kick < 0 ? -errno : 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void ctx_free(struct fx_ctx *ctx)
{
	const struct fx_place_ops *place = ctx->ctl->cfg.place;

	place->close(ctx);
	place->wake_close(&ctx->wake);
	if (ctx->space)
		fx_space_close(ctx->space);
	close_fd(ctx->line);
	if (ctx->wctx)
		close_fd(ctx->wctx->kick);
	fx_pipes_free(ctx);
	free(ctx->wctx);
	if (ctx->id)
		fx_table_del(&ctx->ctl->ctxs, ctx->id, fx_now_ms());
	fx_quota_give(ctx->user, FX_QUOTA_contexts, 1);
	fx_user_release(ctx->user);
	free(ctx);
}

/* Its rings, and what wakes those who wait for them. */
static int open_rings(struct fx_ctx *ctx, struct fx_client *c)
{
	const struct fx_place_ops *place = ctx->ctl->cfg.place;
	int err = make_wctx(ctx);

	if (!err)
		err = place->open(ctx, c);
	if (!err)
		err = place->wake_open(ctx, &ctx->wake, 0);
	if (!err)
		ctx->wctx->events.wake = ctx->wake.ring;
	return err;
}

static struct fx_ctx *ctx_open(struct fx_client *c, int *err)
{
	struct fx_ctx *ctx = calloc(1, sizeof(*ctx));

	*err = ctx ? fx_quota_take(c, FX_QUOTA_contexts, 1) : -ENOMEM;
	if (*err) {
		free(ctx);
		return NULL;
	}
	ctx->ctl = c->ctl;
	ctx->user = c->user;
	ctx->user->refs++;
	ctx->pid = c->cred.pid;
	ctx->uid = c->cred.uid;
	ctx->gid = c->cred.gid;
	ctx->wake = FX_NO_WAKE;
	ctx->line = -1;
	memcpy(ctx->program, c->req.hello.program, FX_VERSION_LEN);
	memcpy(ctx->version, c->req.hello.version, FX_VERSION_LEN);
	ctx->id = fx_table_add(&c->ctl->ctxs, ctx, fx_now_ms());
	ctx->space = fx_space_open(ctx->pid, c->why, sizeof(c->why));
	if (!ctx->space) {
		*err = errno ? -errno : -EACCES;
		goto fail;
	}
	*err = ctx->id ? open_rings(ctx, c) : -ENOSPC;
	if (!*err)
		return ctx;
	if (!c->why[0])
		fx_refuse(c, *err, "cannot open a context: %s", strerror(-*err));
fail:
	ctx_free(ctx);
	return NULL;
}

/* ---- the greeting ---- */

/* What the device has, and its user may have. */
static void say_limits(const struct fx_control *ctl, const struct fx_user *u, struct fx_device_limits *l)
{
	uint64_t bytes = u->quota.limit[FX_QUOTA_mr_bytes];

	*l = (struct fx_device_limits){
		.guid = ctl->guid,
		.max_mr_size = bytes < FX_LIMIT_MR_SIZE ? bytes : FX_LIMIT_MR_SIZE,
		.max_qp = fx_quota_min(u, FX_QUOTA_qps, FX_LIMIT_QP),
		.max_qp_wr = fx_quota_min(u, FX_QUOTA_send_wrs, FX_LIMIT_QP_WR),
		.max_sge = FX_MAX_SGE,
		.max_inline = FX_MAX_INLINE,
		.max_cq = fx_quota_min(u, FX_QUOTA_cqs, FX_LIMIT_CQ),
		.max_cqe = (1u << FX_LIMIT_CQE_SHIFT) - 1,
		.max_mr = fx_quota_min(u, FX_QUOTA_mrs, FX_LIMIT_MR),
		.max_srq = fx_quota_min(u, FX_QUOTA_srqs, FX_LIMIT_SRQ),
		.max_srq_wr = FX_LIMIT_QP_WR,
		.max_mcast_grp = FX_LIMIT_MCAST_GRP,
		.max_mcast_qp = FX_LIMIT_MCAST_QP,
		.max_mcast = fx_quota_min(u, FX_QUOTA_mcasts, FX_LIMIT_MCAST),
		.max_ah = fx_quota_min(u, FX_QUOTA_ahs, FX_LIMIT_AH),
		.max_mw = fx_quota_min(u, FX_QUOTA_mws, FX_LIMIT_MW),
		.max_pd = fx_quota_min(u, FX_QUOTA_pds, FX_LIMIT_PD),
		.max_rd_atomic = FX_LIMIT_RD_ATOMIC,
		.max_init_rd_atomic = FX_LIMIT_RD_ATOMIC,
		.vendor_id = 0x464c58, /* "FLX": nobody's, so nobody's quirks */
		.vendor_part_id = 1,
		.hw_ver = FX_ABI_VERSION,
	};
}

static void say_hello(struct fx_client *c)
{
	struct fx_hello_rep *rep = &c->rep.hello_rep;

	rep->abi = FX_ABI_VERSION;
	rep->workers = c->ctl->cfg.workers;
	say_limits(c->ctl, c->user, &rep->limits);
	snprintf(rep->version, sizeof(rep->version), "%s", FLEXINS_VERSION);
	snprintf(rep->core, sizeof(rep->core), "%s", c->ctl->name);
}

static void ctx_added(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_ctx *ctx = c->ctx;
	struct fx_hello_rep *rep = &c->rep.hello_rep;

	if (cmd->err) {
		c->ctx = NULL;
		c->role = 0;
		ctx_free(ctx);
		fx_client_reply(c, fx_refuse(c, cmd->err, "the worker cannot take another context: %s",
					     strerror(-cmd->err)));
		return;
	}
	rep->arena_size = FX_ARENA_SIZE;
	rep->pipe_off = FX_PIPE_OFF;
	rep->pipe_shift = FX_PIPE_SHIFT;
	rep->event_off = FX_EVENT_OFF;
	rep->event_shift = FX_EVENT_SHIFT;
	rep->heap_off = FX_HEAP_OFF;
	rep->ctx = fx_handle_index(ctx->id);
	c->ctl->cfg.place->welcome(ctx, c);
	c->ctl->n.contexts++;
	fx_log(FX_LOG_INFO, "context %u: %s, process %d, user %u", rep->ctx, ctx->program, (int)ctx->pid,
	       (unsigned)ctx->uid);
	fx_client_reply(c, 0);
}

static int wrong_door(struct fx_client *c)
{
	struct fx_control *ctl = c->ctl;

	if (ctl->path[0] && c->door == &ctl->door[FX_DOOR_TCP])
		return fx_refuse(c, -EPERM, "control connections to core %s come by its socket %s", ctl->name,
				 ctl->path);
	return fx_refuse(c, -EREMOTE,
			 "core %s shares no memory with its hosts: connect as its token file %s says",
			 ctl->name, ctl->ticket);
}

int fx_hello(struct fx_client *c)
{
	const struct fx_hello_req *req = &c->req.hello;
	struct fx_ctx *ctx;
	int err;

	if (req->role != FX_ROLE_HOST && req->role != FX_ROLE_CTL)
		return fx_refuse(c, -EPROTO, "role %u is unknown to this core", req->role);
	if (!(c->door->roles & 1u << req->role))
		return wrong_door(c);
	say_hello(c);
	if (req->role == FX_ROLE_CTL) {
		c->role = FX_ROLE_CTL;
		return 0;
	}
	ctx = ctx_open(c, &err);
	if (!ctx)
		return err;
	ctx->client = c;
	c->ctx = ctx;
	c->role = FX_ROLE_HOST;
	c->cmd = (struct fx_cmd){.op = FX_CMD_CTX_ADD, .ctx = ctx->wctx, .done = ctx_added, .arg = c};
	fx_cmd_send(&c->ctl->mailbox[0], &c->cmd);
	return FX_LATER;
}

/* ---- applications that stall their own memory ---- */

/*
 * A slow copy that makes no progress for STALL_S seconds: whatever the application does, it does it to
 * itself.
 */
void fx_ctx_check_stalls(struct fx_control *ctl)
{
	struct fx_ctx *ctx;

	for (uint32_t i = 1; (ctx = fx_table_next(&ctl->ctxs, &i));) {
		uint32_t now = ctx->space ? fx_space_stall(ctx->space) : 0;

		ctx->stalled_s = now && now == ctx->stall ? ctx->stalled_s + 1 : 0;
		ctx->stall = now;
		if (ctx->stalled_s < STALL_S || !ctx->client)
			continue;
		ctl->n.stalled++;
		fx_log(FX_LOG_WARN,
		       "context %u (%s, process %d): a copy to or from its memory made no progress for "
		       "%d s; disconnected",
		       fx_handle_index(ctx->id), ctx->program, (int)ctx->pid, STALL_S);
		fx_client_drop(ctx->client);
	}
}

/* ---- grace periods ---- */

static bool ask_domain(struct fx_grace *g);

static void grace_one(struct fx_cmd *cmd)
{
	struct fx_grace *g = cmd->arg;

	if (--g->left == 0 && !ask_domain(g))
		g->done(g);
}

static void ask_all(struct fx_grace *g, enum fx_cmd_op op, struct fx_wctx *wctx)
{
	struct fx_control *ctl = g->ctx->ctl;

	g->left = ctl->cfg.workers;
	for (uint32_t w = 0; w < ctl->cfg.workers; w++) {
		g->cmd[w] = (struct fx_cmd){.op = (uint8_t)op, .ctx = wctx, .done = grace_one, .arg = g};
		fx_cmd_send(&ctl->mailbox[w], &g->cmd[w]);
	}
}

/* The next domain that the context has open, if there is one; none is closed meanwhile. */
static bool ask_domain(struct fx_grace *g)
{
	const struct fx_xrcdo *x = (const struct fx_xrcdo *)g->xrcd;

	if (!x)
		return false;
	g->xrcd = x->obj.next;
	ask_all(g, FX_CMD_GRACE, x->d->w);
	return true;
}

void fx_workers_ask(struct fx_ctx *ctx, enum fx_cmd_op op, struct fx_grace *g,
		    void (*done)(struct fx_grace *g), void *arg)
{
	g->ctx = ctx;
	g->xrcd = op == FX_CMD_GRACE ? ctx->objs[FX_OBJ_XRCD] : NULL;
	g->done = done;
	g->arg = arg;
	ask_all(g, op, ctx->wctx);
}

void fx_grace_ask(struct fx_ctx *ctx, struct fx_grace *g, void (*done)(struct fx_grace *g), void *arg)
{
	fx_workers_ask(ctx, FX_CMD_GRACE, g, done, arg);
}

/* ---- the end ---- */

/* Nothing under way knows any of its memory: last step. */
static void reap_memory(struct fx_grace *g)
{
	struct fx_ctx *ctx = g->arg;
	struct fx_control *ctl = ctx->ctl;

	while (ctx->objs[FX_OBJ_AH])
		fx_ah_free((struct fx_aho *)ctx->objs[FX_OBJ_AH]);
	while (ctx->objs[FX_OBJ_MW])
		fx_mw_free((struct fx_mwo *)ctx->objs[FX_OBJ_MW]);
	while (ctx->objs[FX_OBJ_MR])
		fx_mr_free((struct fx_mro *)ctx->objs[FX_OBJ_MR]);
	while (ctx->objs[FX_OBJ_SRQ])
		fx_srq_free((struct fx_srqo *)ctx->objs[FX_OBJ_SRQ]);
	while (ctx->objs[FX_OBJ_XRCD])
		fx_xrcd_free((struct fx_xrcdo *)ctx->objs[FX_OBJ_XRCD]);
	while (ctx->objs[FX_OBJ_CQ])
		fx_cq_free((struct fx_cqo *)ctx->objs[FX_OBJ_CQ]);
	while (ctx->objs[FX_OBJ_CHANNEL])
		fx_channel_free((struct fx_channelo *)ctx->objs[FX_OBJ_CHANNEL]);
	while (ctx->objs[FX_OBJ_PD]) {
		struct fx_pdo *pd = (struct fx_pdo *)ctx->objs[FX_OBJ_PD];

		fx_obj_del(&pd->obj);
		free(pd);
	}
	fx_log(FX_LOG_INFO, "context %u (%s, process %d) is gone", fx_handle_index(ctx->id), ctx->program,
	       (int)ctx->pid);
	ctl->n.reaped++;
	ctx_free(ctx);
}

static void reap_one(struct fx_ctx *ctx)
{
	if (--ctx->reap_left)
		return;
	for (struct fx_obj *o = ctx->objs[FX_OBJ_MR]; o; o = o->next)
		fx_mr_unpublish((struct fx_mro *)o);
	for (struct fx_obj *o = ctx->objs[FX_OBJ_MW]; o; o = o->next)
		fx_mw_unpublish((struct fx_mwo *)o);
	for (struct fx_obj *o = ctx->objs[FX_OBJ_AH]; o; o = o->next)
		fx_ah_unpublish((struct fx_aho *)o);
	fx_grace_ask(ctx, &ctx->grace, reap_memory, ctx);
}

static void reap_qp(struct fx_cmd *cmd)
{
	struct fx_qpo *qp = cmd->arg;
	struct fx_ctx *ctx = qp->obj.ctx;

	fx_qp_forget(qp);
	reap_one(ctx);
}

/* A context, or an SRQ of it: freed with the rest. */
static void reap_other(struct fx_cmd *cmd)
{
	reap_one(cmd->arg);
}

/*
 * Slow copies end with an error first, so that a client which stalls its own memory cannot keep us waiting.
 */
void fx_ctx_disown(struct fx_ctx *ctx)
{
	if (ctx->space)
		fx_space_close(ctx->space);
	ctx->space = NULL;
	ctx->client = NULL;
}

/* QPs first, then SRQs, then the pipe, then what they used. */
void fx_ctx_reap(struct fx_ctx *ctx)
{
	struct fx_control *ctl = ctx->ctl;

	fx_openings_close(ctx);
	ctx->reap_left = 1 + ctx->nobjs[FX_OBJ_QP] + ctx->nobjs[FX_OBJ_SRQ];
	for (struct fx_obj *o = ctx->objs[FX_OBJ_QP]; o; o = o->next) {
		struct fx_qpo *qp = (struct fx_qpo *)o;

		qp->obj.going = true;
		qp->cmd = (struct fx_cmd){.op = FX_CMD_QP_DETACH,
					  .qp = qp->qp,
					  .ctx = fx_qp_wctx(qp),
					  .done = reap_qp,
					  .arg = qp};
		fx_cmd_send(&ctl->mailbox[qp->worker], &qp->cmd);
	}
	for (struct fx_obj *o = ctx->objs[FX_OBJ_SRQ]; o; o = o->next) {
		struct fx_srqo *srq = (struct fx_srqo *)o;

		srq->obj.going = true;
		srq->cmd = (struct fx_cmd){.op = FX_CMD_SRQ_DEL,
					   .data = &srq->rx,
					   .ctx = fx_srq_wctx(srq),
					   .done = reap_other,
					   .arg = ctx};
		fx_cmd_send(&ctl->mailbox[srq->worker], &srq->cmd);
	}
	ctx->del = (struct fx_cmd){.op = FX_CMD_CTX_DEL, .ctx = ctx->wctx, .done = reap_other, .arg = ctx};
	fx_cmd_send(&ctl->mailbox[0], &ctx->del);
}
