/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * XRC_RECV QPs of several contexts: whoever has their domain open may open them, and they live until the last one leaves.
 * One context is the owner, on whose user's account the QP is; when it leaves, another one becomes it.
 *
 * Room: control.
 */
#include <errno.h>
#include <stdlib.h>

#include "control/inside.h"

static struct fx_opening **place_of(struct fx_qpo *qp, const struct fx_ctx *ctx)
{
	struct fx_opening **p = &qp->openings;

	while (*p && (*p)->ctx != ctx)
		p = &(*p)->next;
	return p;
}

struct fx_qpo *fx_qp_get(struct fx_client *c, uint32_t handle)
{
	struct fx_qpo *qp = fx_table_get(&c->ctl->objs[FX_OBJ_QP], handle);

	if (qp && !qp->obj.going && *place_of(qp, c->ctx))
		return qp;
	return fx_obj_get(c, FX_OBJ_QP, handle);
}

/* The QP of that number in the domain; NULL with c->why. */
static struct fx_qpo *find(struct fx_client *c, uint32_t qpn, const struct fx_domain *d)
{
	struct fx_qpo *qp;

	for (uint32_t i = qpn >> FX_WORKER_BITS; (qp = fx_table_next(&c->ctl->objs[FX_OBJ_QP], &i));)
		break;
	if (qp && qp->qpn == qpn && qp->xrcd && qp->xrcd->d == d && !qp->obj.going)
		return qp;
	fx_refuse(c, -EINVAL, "there is no receiving QP %#x in this XRC domain", qpn);
	return NULL;
}

int fx_open_qp(struct fx_client *c)
{
	struct fx_xrcdo *xrcd = fx_obj_get(c, FX_OBJ_XRCD, c->req.open_qp.xrcd);
	struct fx_qpo *qp = xrcd ? find(c, c->req.open_qp.qpn, xrcd->d) : NULL;
	struct fx_opening *o;

	if (!qp)
		return -EINVAL;
	if (qp->obj.ctx == c->ctx || *place_of(qp, c->ctx))
		return fx_refuse(c, -EBUSY, "QP %#x is open in this context already", qp->qpn);
	o = calloc(1, sizeof(*o));
	if (!o)
		return fx_refuse(c, -ENOMEM, "cannot allocate what opens a QP");
	*o = (struct fx_opening){.next = qp->openings, .ctx = c->ctx, .xrcd = xrcd};
	qp->openings = o;
	xrcd->obj.refs++;
	c->rep.create_qp_rep.qp = qp->obj.handle;
	c->rep.create_qp_rep.qpn = qp->qpn;
	c->rep.create_qp_rep.gen = c->ctl->qp_gen[fx_handle_index(qp->obj.handle)];
	c->rep.create_qp_rep.worker = qp->worker;
	return 0;
}

/* The reference to the domain goes along: the QP's own is the new owner's from now on. */
static void hand_over(struct fx_qpo *qp)
{
	struct fx_opening *o = qp->openings;

	qp->openings = o->next;
	qp->xrcd->obj.refs--;
	qp->xrcd = o->xrcd;
	fx_obj_move(&qp->obj, o->ctx);
	free(o);
}

bool fx_qp_leave(struct fx_qpo *qp, struct fx_ctx *ctx)
{
	struct fx_opening **p = place_of(qp, ctx), *o = *p;

	if (o) {
		*p = o->next;
		o->xrcd->obj.refs--;
		free(o);
		return true;
	}
	if (!qp->openings)
		return false;
	hand_over(qp);
	return true;
}

void fx_openings_close(struct fx_ctx *ctx)
{
	struct fx_table *t = &ctx->ctl->objs[FX_OBJ_QP];
	struct fx_qpo *qp;

	if (!ctx->nobjs[FX_OBJ_XRCD])
		return;
	for (uint32_t i = 1; (qp = fx_table_next(t, &i));)
		if (qp->xrcd && !qp->obj.going && (qp->obj.ctx == ctx || *place_of(qp, ctx)))
			fx_qp_leave(qp, ctx);
}
