/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Send pipes beside a context's first one, each for a thread of the application that shares it with no other. The worker
 * polls them as long as they exist.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"

/* A handle is a place in ctx->pipes, counted from 1. */
static uint32_t free_place(const struct fx_ctx *ctx)
{
	uint32_t i = 0;

	while (i < FX_LIMIT_PIPE && ctx->pipes[i])
		i++;
	return i;
}

static int check(struct fx_client *c, const struct fx_create_pipe_req *req)
{
	if (req->shift > FX_PIPE_SHIFT || 1u << req->shift < FX_MAX_SQ_SLOTS)
		return fx_refuse(c, -EINVAL, "a send pipe of 2^%u slots: it has %u at least, 2^%u at most",
				 req->shift, FX_MAX_SQ_SLOTS, FX_PIPE_SHIFT);
	if (!fx_arena_holds(req->off, sizeof(struct fx_pipe_head) + ((uint64_t)FX_SLOT_SIZE << req->shift)))
		return fx_refuse(c, -EINVAL,
				 "a send pipe of 2^%u slots at %#llx is misaligned or outside of the arena",
				 req->shift, (unsigned long long)req->off);
	return 0;
}

static void created(struct fx_cmd *cmd)
{
	fx_client_reply(cmd->arg, 0);
}

int fx_create_pipe(struct fx_client *c)
{
	const struct fx_create_pipe_req *req = &c->req.create_pipe;
	uint32_t i = free_place(c->ctx);
	struct fx_wpipe *pipe;
	int err = check(c, req);

	if (err)
		return err;
	if (i == FX_LIMIT_PIPE)
		return fx_refuse(c, -ENOSPC, "a context has no more than %u send pipes beside its first",
				 FX_LIMIT_PIPE);
	pipe = calloc(1, sizeof(*pipe));
	err = pipe ? c->ctl->cfg.place->pipe_open(c->ctx, &pipe->rx, req->off, req->shift) : -ENOMEM;
	if (err) {
		free(pipe);
		return fx_refuse(c, err, "there can be no further send pipe here: %s", strerror(-err));
	}
	c->ctx->pipes[i] = pipe;
	c->rep.handle_rep.handle = i + 1;
	c->cmd = (struct fx_cmd){
		.op = FX_CMD_PIPE_ADD, .done = created, .arg = c, .ctx = c->ctx->wctx, .data = pipe};
	fx_cmd_send(&c->ctl->mailbox[0], &c->cmd);
	return FX_LATER;
}

static void destroyed(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	uint32_t i = c->rep.handle_rep.handle - 1;

	free(c->ctx->pipes[i]);
	c->ctx->pipes[i] = NULL;
	fx_client_reply(c, 0);
}

int fx_destroy_pipe(struct fx_client *c)
{
	uint32_t i = c->req.handle.handle - 1;

	if (i >= FX_LIMIT_PIPE || !c->ctx->pipes[i])
		return fx_refuse(c, -EINVAL, "there is no send pipe %u beside the first", i + 1);
	c->rep.handle_rep.handle = i + 1;
	c->cmd = (struct fx_cmd){.op = FX_CMD_PIPE_DEL,
				 .done = destroyed,
				 .arg = c,
				 .ctx = c->ctx->wctx,
				 .data = c->ctx->pipes[i]};
	fx_cmd_send(&c->ctl->mailbox[0], &c->cmd);
	return FX_LATER;
}

void fx_pipes_free(struct fx_ctx *ctx)
{
	for (uint32_t i = 0; i < FX_LIMIT_PIPE; i++)
		free(ctx->pipes[i]);
}
