/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completion queues: a head and a ring in the client's arena, pushed to by one worker.
 * A CQ with no QP left is known to nobody but this room: it goes away at once.
 */
#include <errno.h>
#include <stdlib.h>

#include "control/inside.h"

int fx_create_cq(struct fx_client *c)
{
	const struct fx_create_cq_req *req = &c->req.create_cq;
	struct fx_cqo *cq;
	uint8_t *p;

	if (req->worker >= c->ctl->cfg.workers)
		return fx_refuse(c, -EINVAL, "worker %u: this core has %u", req->worker, c->ctl->cfg.workers);
	if (req->shift > FX_LIMIT_CQE_SHIFT)
		return fx_refuse(c, -EINVAL, "a CQ of 2^%u entries is beyond the device's 2^%u", req->shift,
				 FX_LIMIT_CQE_SHIFT);
	p = fx_arena(c->ctx, req->off, sizeof(struct fx_cq_head) + ((uint64_t)FX_CQE_SIZE << req->shift));
	if (!p)
		return fx_refuse(c, -EINVAL,
				 "a CQ of 2^%u entries at %#llx is misaligned or outside of the arena",
				 req->shift, (unsigned long long)req->off);
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return fx_refuse(c, -ENOMEM, "cannot allocate a CQ");
	if (fx_obj_add(c->ctx, &cq->obj, FX_OBJ_CQ) < 0) {
		free(cq);
		return fx_refuse(c, -ENOSPC, "this core has no CQ left (it holds %u)", FX_LIMIT_CQ);
	}
	cq->worker = req->worker;
	cq->cq = (struct fx_cq){
		.head = (struct fx_cq_head *)p,
		.ring = (struct fx_cqe *)(p + sizeof(struct fx_cq_head)),
		.shift = req->shift,
		.handle = cq->obj.handle,
		.cookie = req->cookie,
	};
	c->rep.handle_rep.handle = cq->obj.handle;
	return 0;
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
	fx_obj_del(&cq->obj);
	free(cq);
	return 0;
}
