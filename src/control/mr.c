/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory regions. Registering takes two requests: the first answers with what the application should convert,
 * the second looks at what it did, maps it and gives out the key. Deregistering unpublishes the key, waits
 * until nothing under way was looked up before that, and then unmaps.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "control/inside.h"
#include "memory/window.h"

enum {
	KNOWN_ACCESS = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC |
		       FX_ACC_MW_BIND | FX_ACC_RELAXED_ORDERING,
	OPTIONAL_ACCESS =
		0x3ff << 20, /* IBV_ACCESS_OPTIONAL_RANGE: unknown ones are ignored, as verbs have it */
	UNSUPPORTED_ACCESS = 1 << 5 | 1 << 6 | 1 << 7, /* zero based, on demand, huge TLB */
};

static int check_request(struct fx_client *c, const struct fx_reg_mr_req *req)
{
	if (!req->length || req->length > FX_LIMIT_MR_SIZE || req->addr + req->length < req->addr ||
	    req->iova + req->length < req->iova)
		return fx_refuse(
			c, -EINVAL,
			"an MR of %llu bytes at %#llx (iova %#llx) is empty, too long or wraps round",
			(unsigned long long)req->length, (unsigned long long)req->addr,
			(unsigned long long)req->iova);
	if (req->access & UNSUPPORTED_ACCESS)
		return fx_refuse(c, -EOPNOTSUPP,
				 "access flags %#x: zero-based, on-demand and huge-page MRs are not there",
				 req->access);
	if (req->access & ~(uint32_t)(KNOWN_ACCESS | OPTIONAL_ACCESS))
		return fx_refuse(c, -EINVAL, "access flags %#x are unknown", req->access);
	if ((req->access & (FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_ATOMIC)) &&
	    !(req->access & FX_ACC_LOCAL_WRITE))
		return fx_refuse(c, -EINVAL,
				 "remote write and remote atomic access need local write access as well");
	if (req->flags & ~(uint32_t)(FX_REG_NO_CONVERT | FX_REG_SPARSE))
		return fx_refuse(c, -EINVAL, "registration flags %#x are unknown", req->flags);
	return 0;
}

int fx_key_make(uint32_t index, unsigned chance_bits, uint32_t *key)
{
	uint32_t chance;

	if (getrandom(&chance, sizeof(chance), 0) != sizeof(chance))
		return -EIO;
	chance &= (1u << chance_bits) - 1;
	*key = index << FX_KEY_RAND_BITS | chance << (FX_KEY_RAND_BITS - chance_bits);
	return 0;
}

/* NULL with c->why: no memory, no MR left, or none for this user. */
static struct fx_mro *mr_new(struct fx_client *c, struct fx_pdo *pd, const struct fx_reg_mr_req *req)
{
	struct fx_mro *mr = calloc(1, sizeof(*mr));

	if (!mr)
		fx_refuse(c, -ENOMEM, "cannot allocate an MR");
	if (!mr || fx_quota_take(c, FX_QUOTA_mr_bytes, req->length)) {
		free(mr);
		return NULL;
	}
	if (fx_obj_add(c->ctx, &mr->obj, FX_OBJ_MR)) {
		fx_quota_give(c->user, FX_QUOTA_mr_bytes, req->length);
		free(mr);
		return NULL;
	}
	mr->pd = pd;
	pd->obj.refs++;
	mr->mr = (struct fx_mr){
		.iova = req->iova,
		.length = req->length,
		.pd = pd->obj.handle,
		.access = req->access & KNOWN_ACCESS,
		.ctx = c->ctx->id,
	};
	return mr;
}

void fx_mr_free(struct fx_mro *mr)
{
	if (mr->fresh)
		fx_mr_unmap(&mr->mr);
	else if (mr->seg && mr->obj.ctx->space)
		fx_space_abandon(mr->obj.ctx->space, mr->seg, mr->nseg);
	free(mr->seg);
	mr->pd->obj.refs--;
	fx_quota_give(mr->obj.ctx->user, FX_QUOTA_mr_bytes, mr->mr.length);
	fx_obj_del(&mr->obj);
	free(mr);
}

int fx_reg_mr(struct fx_client *c)
{
	struct fx_reg_mr_req req = c->req.reg_mr;
	struct fx_reg_mr_rep *rep = &c->rep.reg_mr_rep;
	struct fx_pdo *pd = fx_obj_get(c, FX_OBJ_PD, req.pd);
	struct fx_mro *mr;
	int err = pd ? check_request(c, &req) : -EINVAL;

	if (err)
		return err;
	mr = mr_new(c, pd, &req);
	if (!mr)
		return -ENOMEM;
	err = fx_space_plan(c->ctx->space, req.addr, req.length, mr->mr.access,
			    req.flags | c->ctl->cfg.place->plan_flags, rep->seg, &rep->nseg, c->fds,
			    &c->nfds);
	if (err) {
		c->nfds = 0;
		fx_refuse(c, err, "cannot register %llu bytes at %#llx: %s", (unsigned long long)req.length,
			  (unsigned long long)req.addr, strerror(-err));
		goto fail;
	}
	c->nkeep = c->nfds;
	mr->nseg = rep->nseg;
	mr->seg = malloc(rep->nseg * sizeof(*mr->seg));
	if (!mr->seg) {
		fx_space_abandon(c->ctx->space, rep->seg, rep->nseg);
		err = fx_refuse(c, -ENOMEM, "cannot remember the plan of an MR");
		goto fail;
	}
	memcpy(mr->seg, rep->seg, rep->nseg * sizeof(*mr->seg));
	rep->mr = mr->obj.handle;
	return 0;
fail:
	fx_mr_free(mr);
	return err;
}

/* What flexinsctl says of the window. */
static void count_bytes(struct fx_mro *mr, uint64_t converted)
{
	for (uint32_t i = 0; i < mr->nseg; i++) {
		const struct fx_mr_seg *s = &mr->seg[i];
		bool failed = s->kind == FX_SEG_CONVERT && !(converted >> i & 1);

		if (s->kind <= FX_SEG_SHARED)
			mr->bytes[failed ? FX_SEG_SLOW : s->kind] += s->length;
	}
}

/* What the host had better not leave to the helper thread. */
static void tell_slow(const struct fx_mr *mr, struct fx_reg_mr_done_rep *rep)
{
	rep->nslow = 0;
	for (uint32_t i = 0; i < mr->nrun; i++) {
		const struct fx_mr_run *r = &mr->run[i];

		if (r->base)
			continue;
		if (rep->nslow == FX_SLOW_RUNS) {
			rep->nslow = 1;
			rep->slow[0] = (struct fx_slow_run){.length = mr->length};
			return;
		}
		rep->slow[rep->nslow++] = (struct fx_slow_run){.off = r->off, .length = r->len};
	}
}

static void publish(struct fx_mro *mr)
{
	struct fx_mr_table *t = &mr->obj.ctx->ctl->mrs;

	/* release: a worker that finds the region (acquire, fx_mr_get) sees all of its fields */
	atomic_store_explicit(&t->slot[fx_handle_index(mr->obj.handle)], &mr->mr, memory_order_release);
}

int fx_reg_mr_done(struct fx_client *c)
{
	const struct fx_reg_mr_done_req *req = &c->req.reg_mr_done;
	struct fx_reg_mr_done_rep *rep = &c->rep.reg_mr_done_rep;
	struct fx_mro *mr = fx_obj_get(c, FX_OBJ_MR, req->mr);
	int err;

	if (!mr)
		return -EINVAL;
	if (mr->state != FX_MR_PLANNED || req->nseg != mr->nseg)
		return fx_refuse(c, -EINVAL, "MR %#x is not waiting for %u segments", req->mr, req->nseg);
	err = fx_key_make(fx_handle_index(mr->obj.handle), FX_KEY_RAND_BITS, &mr->mr.key);
	if (!err)
		err = fx_space_commit(c->ctx->space, mr->seg, mr->nseg, req->converted, &mr->mr);
	if (err) {
		fx_refuse(c, err, "cannot map the memory of an MR: %s", strerror(-err));
		free(mr->seg); /* the plan is spent */
		mr->seg = NULL;
		fx_mr_free(mr);
		return err;
	}
	count_bytes(mr, req->converted);
	free(mr->seg);
	mr->seg = NULL;
	mr->fresh = true;
	mr->state = FX_MR_LIVE;
	publish(mr);
	rep->mr = mr->obj.handle;
	rep->lkey = rep->rkey = mr->mr.key;
	tell_slow(&mr->mr, rep);
	return 0;
}

void fx_mr_unpublish(struct fx_mro *mr)
{
	struct fx_mr_table *t = &mr->obj.ctx->ctl->mrs;

	mr->obj.going = true;
	/* relaxed: the push of the command that asks for the grace period releases it to the worker */
	atomic_store_explicit(&t->slot[fx_handle_index(mr->obj.handle)], NULL, memory_order_relaxed);
}

static void dereg_done(struct fx_grace *g)
{
	struct fx_client *c = g->arg;
	struct fx_mro *mr = c->target;

	c->rep.handle_rep.handle = mr->obj.handle;
	fx_mr_free(mr);
	fx_client_reply(c, 0);
}

/* 0, or why the region cannot go now. */
static int check_windows(struct fx_client *c, const struct fx_mro *mr)
{
	/* relaxed: a window is bound and unbound before the completion after which its owner comes here */
	uint32_t windows = atomic_load_explicit(&mr->mr.windows, memory_order_relaxed);

	return windows ? fx_refuse(c, -EBUSY,
				   "MR %#x has %u memory windows bound to it: invalidate or free them first",
				   mr->obj.handle, windows)
		       : 0;
}

int fx_dereg_mr(struct fx_client *c)
{
	struct fx_mro *mr = fx_obj_get(c, FX_OBJ_MR, c->req.handle.handle);
	int err;

	if (!mr)
		return -EINVAL;
	if (mr->state == FX_MR_PLANNED) { /* no worker has seen it */
		c->rep.handle_rep.handle = mr->obj.handle;
		fx_mr_free(mr);
		return 0;
	}
	err = check_windows(c, mr);
	if (err)
		return err;
	fx_mr_unpublish(mr);
	c->target = mr;
	fx_grace_ask(c->ctx, &c->grace, dereg_done, c);
	return FX_LATER;
}

/* ---- registering anew ---- */

/* Nobody knows either of them: what they are changes places, and the first has its key again. */
static void replaced(struct fx_grace *g)
{
	struct fx_client *c = g->arg;
	struct fx_mro *mr = c->target, *with = mr->heir, was = *mr;

	mr->heir = NULL;
	mr->mr = with->mr;
	mr->mr.key = was.mr.key;
	mr->pd = with->pd;
	memcpy(mr->bytes, with->bytes, sizeof(mr->bytes));
	with->mr = was.mr;
	with->pd = was.pd;
	fx_mr_free(with);
	mr->obj.going = false;
	publish(mr);
	c->rep.handle_rep.handle = mr->obj.handle;
	fx_client_reply(c, 0);
}

int fx_replace_mr(struct fx_client *c)
{
	const struct fx_replace_mr_req *req = &c->req.replace_mr;
	struct fx_mro *mr = fx_obj_get(c, FX_OBJ_MR, req->mr), *with = fx_obj_get(c, FX_OBJ_MR, req->with);
	int err;

	if (!mr || !with || mr == with || mr->state != FX_MR_LIVE || with->state != FX_MR_LIVE)
		return fx_refuse(c, -EINVAL, "MR %#x cannot take the place of MR %#x: both have to be there",
				 req->with, req->mr);
	err = check_windows(c, mr);
	if (!err)
		err = check_windows(c, with);
	if (err)
		return err;
	fx_mr_unpublish(mr);
	fx_mr_unpublish(with);
	mr->heir = with;
	c->target = mr;
	fx_grace_ask(c->ctx, &c->grace, replaced, c);
	return FX_LATER;
}
