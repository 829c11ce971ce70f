/* SPDX-License-Identifier: BSD-3-Clause */
/* Protection domains: a number that MRs, memory windows and QPs share. */
#include <errno.h>
#include <stdlib.h>

#include "control/inside.h"

int fx_alloc_pd(struct fx_client *c)
{
	struct fx_pdo *pd = calloc(1, sizeof(*pd));
	int err;

	if (!pd)
		return fx_refuse(c, -ENOMEM, "cannot allocate a PD");
	err = fx_obj_add(c->ctx, &pd->obj, FX_OBJ_PD);
	if (err) {
		free(pd);
		return err;
	}
	c->rep.handle_rep.handle = pd->obj.handle;
	return 0;
}

int fx_dealloc_pd(struct fx_client *c)
{
	struct fx_pdo *pd = fx_obj_get(c, FX_OBJ_PD, c->req.handle.handle);

	if (!pd)
		return -EINVAL;
	if (pd->obj.refs)
		return fx_refuse(c, -EBUSY, "PD %#x is used by %u MRs, windows and QPs: destroy them first",
				 pd->obj.handle, pd->obj.refs);
	c->rep.handle_rep.handle = pd->obj.handle;
	fx_obj_del(&pd->obj);
	free(pd);
	return 0;
}
