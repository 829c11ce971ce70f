/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory windows: a key here, and the worker binds it (transport/mw.c). Freeing one unpublishes the key and waits until
 * nothing under way was let through it, bound or not.
 */
#include <errno.h>
#include <stdlib.h>

#include "control/inside.h"

/* Their keys' indexes follow those of regions. */
static_assert(FX_LIMIT_MR + 1 + FX_LIMIT_MW < 1 << FX_KEY_INDEX_BITS, "every MR and window has a key");

static _Atomic(struct fx_mw *) *slot_of(const struct fx_mwo *mw)
{
	return &mw->obj.ctx->ctl->mrs.mw[fx_handle_index(mw->obj.handle)];
}

/* The worker knows it no more, so its binding is ours to undo. */
void fx_mw_free(struct fx_mwo *mw)
{
	struct fx_mr *mr = mw->mw.length ? fx_mr_get(&mw->obj.ctx->ctl->mrs, mw->mw.lkey) : NULL;

	if (mr)
		atomic_fetch_sub_explicit(&mr->windows, 1, memory_order_relaxed); /* as in fx_dereg_mr() */
	mw->pd->obj.refs--;
	fx_obj_del(&mw->obj);
	free(mw);
}

int fx_alloc_mw(struct fx_client *c)
{
	const struct fx_alloc_mw_req req = c->req.alloc_mw;
	struct fx_pdo *pd = fx_obj_get(c, FX_OBJ_PD, req.pd);
	struct fx_mwo *mw;
	int err;

	if (!pd)
		return -EINVAL;
	if (req.type != FX_MW_TYPE_1 && req.type != FX_MW_TYPE_2)
		return fx_refuse(c, -EINVAL, "memory windows of type %u: there are 1 and 2", req.type);
	mw = calloc(1, sizeof(*mw));
	if (!mw)
		return fx_refuse(c, -ENOMEM, "cannot allocate a memory window");
	err = fx_obj_add(c->ctx, &mw->obj, FX_OBJ_MW);
	if (err) {
		free(mw);
		return err;
	}
	mw->pd = pd;
	pd->obj.refs++;
	mw->mw = (struct fx_mw){.pd = pd->obj.handle, .type = req.type};
	err = fx_key_make(c->ctl->mrs.n + fx_handle_index(mw->obj.handle), FX_KEY_RAND_BITS - FX_KEY_TAG_BITS,
			  &mw->mw.key);
	if (err) {
		fx_mw_free(mw);
		return fx_refuse(c, err, "no random key for a memory window");
	}
	c->rep.alloc_mw_rep.mw = mw->obj.handle;
	c->rep.alloc_mw_rep.rkey = mw->mw.key;
	/* release: a worker that finds the window (acquire, fx_mw_get) sees all of its fields */
	atomic_store_explicit(slot_of(mw), &mw->mw, memory_order_release);
	return 0;
}

void fx_mw_unpublish(struct fx_mwo *mw)
{
	mw->obj.going = true;
	/* release: before the command that asks for the grace period */
	atomic_store_explicit(slot_of(mw), NULL, memory_order_release);
}

static void dealloc_done(struct fx_grace *g)
{
	struct fx_client *c = g->arg;
	struct fx_mwo *mw = c->target;

	c->rep.handle_rep.handle = mw->obj.handle;
	fx_mw_free(mw);
	fx_client_reply(c, 0);
}

int fx_dealloc_mw(struct fx_client *c)
{
	struct fx_mwo *mw = fx_obj_get(c, FX_OBJ_MW, c->req.handle.handle);

	if (!mw)
		return -EINVAL;
	fx_mw_unpublish(mw);
	c->target = mw;
	fx_grace_ask(c->ctx, &c->grace, dealloc_done, c);
	return FX_LATER;
}
