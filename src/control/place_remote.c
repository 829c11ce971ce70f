/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Host and core share no memory: the rings of a context lie in memory of the host's own, which the core reaches by DMA
 * only. The worker works on copies, and its mirror keeps both alike (mirror/mirror.h). What a worker would tell a waiting
 * thread by a byte comes to this room, which says it on the client's connection.
 *
 * Room: control. May use: mirror, memory/window.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"
#include "memory/window.h"
#include "mirror/mirror.h"

enum { PAGE = 4096 };

/* ---- the context ---- */

/* The host's memory as a region of its own, which no key names. Its iova space begins at 0. */
struct fx_arena {
	struct fx_mr mem;
	bool mapped;
};

static void close_arena(struct fx_ctx *ctx)
{
	struct fx_arena *a = ctx->arena;

	if (!a)
		return;
	if (ctx->wctx && ctx->wctx->mirror)
		fx_mirror_ctx_free(ctx->wctx->mirror);
	if (a->mapped)
		fx_mr_unmap(&a->mem);
	free(a);
	ctx->arena = NULL;
}

static int reach_arena(struct fx_ctx *ctx, struct fx_arena *a, uint64_t addr)
{
	struct fx_mr_seg *seg = calloc(FX_MR_SEGS, sizeof(*seg));
	int err, fds[FX_MSG_FDS];
	uint32_t nseg = 0, nfd = 0;

	if (!seg)
		return -ENOMEM;
	a->mem = (struct fx_mr){.access = FX_ACC_LOCAL_WRITE, .ctx = ctx->id};
	err = fx_space_plan(ctx->space, addr, FX_ARENA_SIZE, a->mem.access, FX_PLAN_ALL_SLOW, seg, &nseg, fds,
			    &nfd);
	if (!err)
		err = fx_space_commit(ctx->space, seg, nseg, 0, &a->mem);
	a->mapped = !err;
	free(seg);
	return err;
}

static int open_arena(struct fx_ctx *ctx, struct fx_client *c)
{
	const uint64_t addr = c->req.hello.arena;
	struct fx_mirror_place at = {.page = FX_PAGE_OFF,
				     .pipe = FX_PIPE_OFF,
				     .event = FX_EVENT_OFF,
				     .pipe_shift = FX_PIPE_SHIFT,
				     .event_shift = FX_EVENT_SHIFT};
	int err = addr && addr % PAGE == 0 ? 0 : -EINVAL;

	ctx->arena = err ? NULL : calloc(1, sizeof(*ctx->arena));
	if (!err)
		err = ctx->arena ? reach_arena(ctx, ctx->arena, addr) : -ENOMEM;
	if (err)
		return fx_refuse(c, err,
				 "there are no %llu bytes of memory for rings at %#llx of process %d: %s",
				 (unsigned long long)FX_ARENA_SIZE, (unsigned long long)addr, (int)ctx->pid,
				 strerror(-err));
	at.mem = &ctx->arena->mem;
	ctx->wctx->mirror = fx_mirror_ctx_new(&at, &ctx->wctx->pipe, &ctx->wctx->events, ctx->wctx);
	return ctx->wctx->mirror ? 0 : -ENOMEM;
}

static void welcome(struct fx_ctx *ctx, struct fx_client *c)
{
	c->rep.hello_rep.page_off = FX_PAGE_OFF;
	c->rep.hello_rep.shared_cpus = ctx->ctl->cfg.shared_cpus;
	c->rep.hello_rep.remote = 1;
}

/* ---- rings ---- */

/* A context has one copy of a pipe; its host shares that among its threads. */
static int pipe_open(struct fx_ctx *ctx, struct fx_pipe_rx *pipe, uint64_t off, uint32_t shift)
{
	(void)ctx;
	(void)pipe;
	(void)off;
	(void)shift;
	return -EOPNOTSUPP;
}

static int cq_open(struct fx_ctx *ctx, struct fx_cq *cq, uint64_t off, uint32_t shift)
{
	return fx_mirror_cq_new(ctx->wctx->mirror, off, shift, cq) ? 0 : -ENOMEM;
}

static void cq_close(struct fx_cq *cq)
{
	fx_mirror_cq_free(cq->copy);
}

static int rq_open(struct fx_ctx *ctx, struct fx_rxq *rx, uint64_t off)
{
	rx->copy = fx_mirror_rq_new(ctx->wctx->mirror, off, &rx->ring, rx);
	return rx->copy ? 0 : -ENOMEM;
}

static void rq_close(void *copy)
{
	if (copy)
		fx_mirror_rq_free(copy);
}

/* ---- wakes ---- */

struct fx_ear {
	struct fx_source src;
	struct fx_ctx *ctx;
	uint32_t handle;
};

/* A worker has put records where their host will find them. */
static void heard(struct fx_source *src, uint32_t events)
{
	struct fx_ear *ear = (struct fx_ear *)src;
	struct fx_client *c = ear->ctx->client;
	char bytes[PAGE];
	ssize_t n = read(src->fd, bytes, sizeof(bytes));
	struct fx_wake_msg msg = {
		.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_WAKE, .size = sizeof(msg)},
		.handle = ear->handle,
		.count = n > 0 ? (uint32_t)n : 0,
	};

	(void)events;
	if (n <= 0 || !c)
		return;
	src->ctl->n.wakes += msg.count;
	fx_client_say(c, &msg, sizeof(msg));
}

static int wake_open(struct fx_ctx *ctx, struct fx_wake *w, uint32_t handle)
{
	struct fx_ear *ear = calloc(1, sizeof(*ear));
	int fd[2], err = ear ? 0 : -ENOMEM;

	if (!err && pipe2(fd, O_CLOEXEC | O_NONBLOCK) < 0)
		err = -errno;
	if (err) {
		free(ear);
		return err;
	}
	*ear = (struct fx_ear){
		.src = {.fd = fd[0], .ready = heard, .ctl = ctx->ctl}, .ctx = ctx, .handle = handle};
	*w = (struct fx_wake){.ring = fd[1], .ear = -1, .listener = ear};
	return fx_source_add(ctx->ctl, &ear->src, EPOLLIN);
}

static void wake_close(struct fx_wake *w)
{
	if (w->ring >= 0)
		close(w->ring);
	if (w->listener)
		fx_source_free(w->listener->src.ctl, &w->listener->src);
}

const struct fx_place_ops fx_place_remote = {
	.name = "emulated",
	.plan_flags = FX_PLAN_ALL_SLOW,
	.open = open_arena,
	.close = close_arena,
	.welcome = welcome,
	.pipe_open = pipe_open,
	.cq_open = cq_open,
	.cq_close = cq_close,
	.rq_open = rq_open,
	.rq_close = rq_close,
	.wake_open = wake_open,
	.wake_close = wake_close,
};
