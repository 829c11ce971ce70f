/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory windows: the core gives them a key, and requests of the send queue bind them.
 *
 * Room: host. May use: context.c, post.c.
 */
#include <stdlib.h>

#include "host/host.h"

struct ibv_mw *flexins_alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	struct fx_alloc_mw_req req = {.head = {.op = FX_MSG_ALLOC_MW}, .pd = pd->handle, .type = type};
	struct fx_alloc_mw_rep rep;
	struct fx_vmw *mw;
	int err;

	if (type != IBV_MW_TYPE_1 && type != IBV_MW_TYPE_2)
		return fx_null(EINVAL);
	mw = calloc(1, sizeof(*mw));
	if (!mw)
		return fx_null(ENOMEM);
	err = fx_ask(fx_context_of(pd->context), &req, sizeof(req), &rep, sizeof(rep), NULL);
	if (err) {
		free(mw);
		return fx_null(err);
	}
	mw->mw = (struct ibv_mw){
		.context = pd->context, .pd = pd, .rkey = rep.rkey, .handle = rep.mw, .type = type};
	mw->window = rep.rkey;
	__atomic_fetch_add(&fx_pd_of(pd)->users, 1, __ATOMIC_RELAXED);
	return &mw->mw;
}

int flexins_dealloc_mw(struct ibv_mw *ibmw)
{
	struct fx_context *ctx = fx_context_of(ibmw->context);
	int err = fx_ask_drop(ctx, FX_MSG_DEALLOC_MW, ibmw->handle);

	if (err && fx_alive(ctx))
		return fx_fail(err);
	/* release: what the window was used for comes before its domain may go */
	__atomic_fetch_sub(&fx_pd_of(ibmw->pd)->users, 1, __ATOMIC_RELEASE);
	free(fx_mw_of(ibmw));
	return 0;
}

/* Type 1: a request with the next key, which the window has from when it is posted. Of two at once each has its own. */
int flexins_bind_mw(struct ibv_qp *qp, struct ibv_mw *ibmw, struct ibv_mw_bind *bind)
{
	struct ibv_send_wr wr = {.wr_id = bind->wr_id,
				 .opcode = IBV_WR_BIND_MW,
				 .send_flags = bind->send_flags},
			   *bad;
	struct fx_vmw *mw = fx_mw_of(ibmw);
	int err;

	if (ibmw->type != IBV_MW_TYPE_1 || bind->bind_info.mw_access_flags & IBV_ACCESS_ZERO_BASED)
		return fx_fail(EINVAL);
	wr.bind_mw.mw = ibmw;
	wr.bind_mw.bind_info = bind->bind_info;
	fx_lock(&mw->lock);
	wr.bind_mw.rkey = ibv_inc_rkey(ibmw->rkey);
	err = flexins_post_send(qp, &wr, &bad);
	if (!err)
		ibmw->rkey = wr.bind_mw.rkey;
	fx_unlock(&mw->lock);
	return err;
}
