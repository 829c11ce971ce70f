/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Contexts: the greeting that opens one, its arena, and its end.
 *
 * An arena is one sealed memfd: the head and slots of the send pipe, the event ring, then the heap, which the
 * client lays out as it likes. It is sparse: its size is address space, and pages are taken by whoever
 * touches them first. The end of a context needs no memory and no goodwill: all that it takes was allocated
 * with the objects.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "control/inside.h"
#include "memory/window.h"

enum { PAGE = 4096, STALL_S = 5 };
#define PIPE_OFF UINT64_C(0)
#define PIPE_BYTES (sizeof(struct fx_pipe_head) + ((uint64_t)FX_SLOT_SIZE << FX_PIPE_SHIFT))
#define EVENT_OFF ((PIPE_OFF + PIPE_BYTES + PAGE - 1) / PAGE * PAGE)
#define EVENT_BYTES (sizeof(struct fx_event_head) + (sizeof(struct fx_event) << FX_EVENT_SHIFT))
#define HEAP_OFF ((EVENT_OFF + EVENT_BYTES + PAGE - 1) / PAGE * PAGE)
static_assert(1u << FX_EVENT_SHIFT >= 2 * FX_LIMIT_CQ, "asynchronous events leave room for one of every CQ");

void *fx_arena(struct fx_ctx *ctx, uint64_t off, uint64_t len)
{
	if (off % FX_LINE || off < HEAP_OFF || off > FX_ARENA_SIZE || len > FX_ARENA_SIZE - off)
		return NULL;
	return ctx->arena + off;
}

static int make_arena(struct fx_ctx *ctx)
{
	void *p;

	ctx->arena_fd = memfd_create("flexins-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ctx->arena_fd < 0 || ftruncate(ctx->arena_fd, (off_t)FX_ARENA_SIZE) < 0 ||
	    fcntl(ctx->arena_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	p = mmap(NULL, FX_ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ctx->arena_fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	ctx->arena = p;
	return 0;
}

/* The pipe was taken to pieces by its own producer: only its context suffers. */
static void pipe_broken(struct fx_cmd *cmd)
{
	struct fx_ctx *ctx = cmd->arg;

	ctx->ctl->n.broken_pipes++;
	fx_log(FX_LOG_WARN, "context %u (%s, process %d): its send pipe contradicts itself; disconnected",
	       fx_handle_index(ctx->id), ctx->program, (int)ctx->pid);
	if (ctx->client)
		fx_client_drop(ctx->client);
}

static int make_wctx(struct fx_ctx *ctx)
{
	struct fx_wctx *w = aligned_alloc(FX_LINE, (sizeof(*w) + FX_LINE - 1) / FX_LINE * FX_LINE);

	if (!w)
		return -ENOMEM;
	*w = (struct fx_wctx){
		.id = ctx->id,
		.pipe = {.head = (struct fx_pipe_head *)(ctx->arena + PIPE_OFF),
			 .slots = ctx->arena + PIPE_OFF + sizeof(struct fx_pipe_head),
			 .shift = FX_PIPE_SHIFT},
		.events = {.head = (struct fx_event_head *)(ctx->arena + EVENT_OFF),
			   .ring = (struct fx_event *)(ctx->arena + EVENT_OFF + sizeof(struct fx_event_head)),
			   .shift = FX_EVENT_SHIFT,
			   .wake = ctx->wake[1]},
		.broken = {.op = FX_CMD_CTX_BROKEN, .done = pipe_broken, .arg = ctx},
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
	if (ctx->space)
		fx_space_close(ctx->space);
	if (ctx->wctx)
		close_fd(ctx->wctx->kick);
	free(ctx->wctx);
	if (ctx->arena)
		munmap(ctx->arena, FX_ARENA_SIZE);
	close_fd(ctx->arena_fd);
	close_fd(ctx->wake[0]);
	close_fd(ctx->wake[1]);
	if (ctx->id)
		fx_table_del(&ctx->ctl->ctxs, ctx->id, fx_now_ms());
	fx_quota_give(ctx->user, FX_QUOTA_contexts, 1);
	fx_user_release(ctx->user);
	free(ctx);
}

/* Only our end: the client's must block, or not, as the client wants. */
static int make_wake(struct fx_ctx *ctx)
{
	if (pipe2(ctx->wake, O_CLOEXEC) < 0)
		return -errno;
	return fcntl(ctx->wake[1], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
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
	ctx->arena_fd = ctx->wake[0] = ctx->wake[1] = -1;
	memcpy(ctx->program, c->req.hello.program, FX_VERSION_LEN);
	memcpy(ctx->version, c->req.hello.version, FX_VERSION_LEN);
	ctx->id = fx_table_add(&c->ctl->ctxs, ctx, fx_now_ms());
	ctx->space = fx_space_open(ctx->pid, c->why, sizeof(c->why));
	if (!ctx->space) {
		*err = errno ? -errno : -EACCES;
		goto fail;
	}
	*err = ctx->id ? make_arena(ctx) : -ENOSPC;
	if (!*err)
		*err = make_wake(ctx);
	if (!*err)
		*err = make_wctx(ctx);
	if (!*err)
		return ctx;
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

/*
 * The device gives a client a userfaultfd for its own memory (the ladder's race-free conversion); it may be
 * absent.
 */
static void give_fds(struct fx_client *c, struct fx_ctx *ctx, int uffd)
{
	const int fds[] = {c->ctl->page_fd, ctx->arena_fd, ctx->wctx->kick, ctx->wake[0], uffd};

	c->nfds = uffd >= 0 ? 5 : 4;
	for (uint32_t i = 0; i < c->nfds; i++)
		c->fds[i] = fds[i];
	c->keep_fds = true;
}

static void ctx_added(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_ctx *ctx = c->ctx;
	struct fx_hello_rep *rep = &c->rep.hello_rep;
	int uffd;

	if (cmd->err) {
		c->ctx = NULL;
		c->role = 0;
		ctx_free(ctx);
		fx_client_reply(c, fx_refuse(c, cmd->err, "the worker cannot take another context: %s",
					     strerror(-cmd->err)));
		return;
	}
	uffd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	rep->arena_size = FX_ARENA_SIZE;
	rep->pipe_off = PIPE_OFF;
	rep->pipe_shift = FX_PIPE_SHIFT;
	rep->event_off = EVENT_OFF;
	rep->event_shift = FX_EVENT_SHIFT;
	rep->heap_off = HEAP_OFF;
	rep->ctx = fx_handle_index(ctx->id);
	rep->have_uffd = uffd >= 0;
	give_fds(c, ctx, uffd);
	c->ctl->n.contexts++;
	fx_log(FX_LOG_INFO, "context %u: %s, process %d, user %u", rep->ctx, ctx->program, (int)ctx->pid,
	       (unsigned)ctx->uid);
	fx_client_reply(c, 0);
	close_fd(uffd);
}

int fx_hello(struct fx_client *c)
{
	const struct fx_hello_req *req = &c->req.hello;
	struct fx_ctx *ctx;
	int err;

	if (req->role != FX_ROLE_HOST && req->role != FX_ROLE_CTL)
		return fx_refuse(c, -EPROTO, "role %u is unknown to this core", req->role);
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

static void grace_one(struct fx_cmd *cmd)
{
	struct fx_grace *g = cmd->arg;

	if (--g->left == 0)
		g->done(g);
}

void fx_grace_ask(struct fx_ctx *ctx, struct fx_grace *g, void (*done)(struct fx_grace *g), void *arg)
{
	struct fx_control *ctl = ctx->ctl;

	g->left = ctl->cfg.workers;
	g->done = done;
	g->arg = arg;
	for (uint32_t w = 0; w < ctl->cfg.workers; w++) {
		g->cmd[w] = (struct fx_cmd){.op = FX_CMD_GRACE, .ctx = ctx->wctx, .done = grace_one, .arg = g};
		fx_cmd_send(&ctl->mailbox[w], &g->cmd[w]);
	}
}

/* ---- the end ---- */

/* Nothing under way knows any of its memory: last step. */
static void reap_memory(struct fx_grace *g)
{
	struct fx_ctx *ctx = g->arg;
	struct fx_control *ctl = ctx->ctl;

	while (ctx->objs[FX_OBJ_MR])
		fx_mr_free((struct fx_mro *)ctx->objs[FX_OBJ_MR]);
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
	fx_grace_ask(ctx, &ctx->grace, reap_memory, ctx);
}

static void reap_qp(struct fx_cmd *cmd)
{
	struct fx_qpo *qp = cmd->arg;
	struct fx_ctx *ctx = qp->obj.ctx;

	fx_qp_forget(qp);
	reap_one(ctx);
}

static void reap_ctx(struct fx_cmd *cmd)
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

/* QPs first, then the pipe, then what they used. */
void fx_ctx_reap(struct fx_ctx *ctx)
{
	struct fx_control *ctl = ctx->ctl;

	ctx->reap_left = 1 + ctx->nobjs[FX_OBJ_QP];
	for (struct fx_obj *o = ctx->objs[FX_OBJ_QP]; o; o = o->next) {
		struct fx_qpo *qp = (struct fx_qpo *)o;

		qp->obj.going = true;
		qp->cmd = (struct fx_cmd){
			.op = FX_CMD_QP_DETACH, .qp = qp->qp, .ctx = ctx->wctx, .done = reap_qp, .arg = qp};
		fx_cmd_send(&ctl->mailbox[qp->worker], &qp->cmd);
	}
	ctx->del = (struct fx_cmd){.op = FX_CMD_CTX_DEL, .ctx = ctx->wctx, .done = reap_ctx, .arg = ctx};
	fx_cmd_send(&ctl->mailbox[0], &ctx->del);
}
