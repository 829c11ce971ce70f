/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Address handles. The path is resolved when one is made; its front lies in a table that workers read without locks.
 * Making one asks no worker. Ending one does: it is unpublished, and freed when every worker has answered, since what was
 * looked up before is copied by then; the worker of the pipe answers in turn, so that what was posted with it finds it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"

static_assert((int)FX_AH_INDEX_BITS == (int)FX_HANDLE_INDEX_BITS, "the worker finds the slot by the handle");

static _Atomic(struct fx_ah *) *slot_of(const struct fx_aho *ah)
{
	return &ah->obj.ctx->ctl->ahs.slot[fx_handle_index(ah->obj.handle)];
}

void fx_ah_free(struct fx_aho *ah)
{
	ah->pd->obj.refs--;
	fx_obj_del(&ah->obj);
	free(ah);
}

void fx_ah_unpublish(struct fx_aho *ah)
{
	ah->obj.going = true;
	/* release: before the command that workers answer */
	atomic_store_explicit(slot_of(ah), NULL, memory_order_release);
}

int fx_create_ah(struct fx_client *c)
{
	const struct fx_ah_req req = c->req.ah;
	struct fx_pdo *pd = fx_obj_get(c, FX_OBJ_PD, req.pd);
	struct fx_path path;
	struct fx_aho *ah;
	int err;

	if (!pd)
		return -EINVAL;
	if (!req.attr.is_global)
		return fx_refuse(
			c, -EINVAL,
			"an address handle without a GID: RoCE needs one (is_global), choose a GID index");
	ah = calloc(1, sizeof(*ah));
	if (!ah)
		return fx_refuse(c, -ENOMEM, "cannot allocate an address handle");
	err = fx_obj_add(c->ctx, &ah->obj, FX_OBJ_AH);
	if (err) {
		free(ah);
		return err;
	}
	ah->pd = pd;
	pd->obj.refs++;
	err = fx_path_build(c, &req.attr, ah->obj.handle, &path);
	if (err) {
		fx_ah_free(ah);
		return err;
	}
	ah->ah = (struct fx_ah){.handle = ah->obj.handle, .pd = pd->obj.handle};
	fx_tmpl_init(&ah->ah.tmpl, &path.l3);
	c->rep.ah_rep.ah = ah->obj.handle;
	memcpy(c->rep.ah_rep.dmac, path.l3.dmac, 6);
	/* release: a worker that finds the handle (acquire, fx_ah_get) sees the whole address */
	atomic_store_explicit(slot_of(ah), &ah->ah, memory_order_release);
	return 0;
}

int fx_resolve_ah(struct fx_client *c)
{
	struct fx_path path;
	int err = fx_path_build(c, &c->req.ah.attr, 0, &path);

	if (!err)
		memcpy(c->rep.ah_rep.dmac, path.l3.dmac, 6);
	return err;
}

static void destroyed(struct fx_grace *g)
{
	struct fx_client *c = g->arg;
	struct fx_aho *ah = c->target;

	c->rep.handle_rep.handle = ah->obj.handle;
	fx_ah_free(ah);
	fx_client_reply(c, 0);
}

/* The pipe comes first: until then what was posted before is in it, and goes where the handle leads. */
static void pipe_reached(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;

	fx_ah_unpublish(c->target);
	fx_workers_ask(c->ctx, FX_CMD_PASS, &c->grace, destroyed, c);
}

int fx_destroy_ah(struct fx_client *c)
{
	struct fx_aho *ah = fx_obj_get(c, FX_OBJ_AH, c->req.qp.qp);

	if (!ah)
		return -EINVAL;
	ah->obj.going = true;
	c->target = ah;
	c->cmd = (struct fx_cmd){.op = FX_CMD_PASS,
				 .done = pipe_reached,
				 .arg = c,
				 .ctx = c->ctx->wctx,
				 .pipe_pi = c->req.qp.pipe_pi,
				 .in_turn = true};
	fx_cmd_send(&c->ctl->mailbox[0], &c->cmd);
	return FX_LATER;
}
