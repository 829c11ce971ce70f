/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * XRC domains: opened at the core, which knows whose files are the same. Their SRQs are in srq.c, their QPs in qp.c.
 *
 * Room: host. May use: context.c.
 */
#include <fcntl.h>
#include <stdlib.h>

#include "host/host.h"

struct ibv_xrcd *flexins_open_xrcd(struct ibv_context *c, struct ibv_xrcd_init_attr *a)
{
	const uint32_t known = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
	struct fx_open_xrcd_req req = {
		.head = {.op = FX_MSG_OPEN_XRCD}, .fd = a->fd, .oflags = (uint32_t)a->oflags};
	struct fx_handle_rep rep;
	struct fx_vxrcd *x;
	int err;

	if (a->comp_mask & ~known)
		return fx_null(EOPNOTSUPP);
	if ((a->comp_mask & known) != known || a->oflags & ~(O_CREAT | O_EXCL))
		return fx_null(EINVAL);
	x = calloc(1, sizeof(*x));
	if (!x)
		return fx_null(ENOMEM);
	err = fx_ask(fx_context_of(c), &req, sizeof(req), &rep, sizeof(rep), NULL);
	if (err) {
		free(x);
		return fx_null(err);
	}
	x->xrcd.context = c;
	x->handle = rep.handle;
	return &x->xrcd;
}

int flexins_close_xrcd(struct ibv_xrcd *xrcd)
{
	struct fx_context *ctx = fx_context_of(xrcd->context);
	struct fx_vxrcd *x = fx_xrcd_of(xrcd);
	int err;

	/* acquire: the last SRQ's or QP's use of it (its release) comes before the end */
	if (__atomic_load_n(&x->users, __ATOMIC_ACQUIRE))
		return fx_fail(EBUSY);
	err = fx_ask_drop(ctx, FX_MSG_CLOSE_XRCD, x->handle);
	if (err && fx_alive(ctx))
		return fx_fail(err);
	free(x);
	return 0;
}
