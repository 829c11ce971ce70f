/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Parent domains and thread domains. To the core a parent domain is the domain that it was made of: keys and rights are the
 * same in both.
 *
 * Room: host. May use: libc.
 */
#include <stdlib.h>

#include "host/host.h"

static struct fx_vtd *td_of(struct ibv_td *td)
{
	return fx_container(td, struct fx_vtd, td);
}

struct ibv_td *flexins_alloc_td(struct ibv_context *c, struct ibv_td_init_attr *a)
{
	struct fx_vtd *td;

	if (a->comp_mask)
		return fx_null(EINVAL);
	td = calloc(1, sizeof(*td));
	if (!td)
		return fx_null(ENOMEM);
	td->td.context = c;
	return &td->td;
}

int flexins_dealloc_td(struct ibv_td *ibtd)
{
	struct fx_vtd *td = td_of(ibtd);

	/* acquire: against the release of the last parent domain */
	if (__atomic_load_n(&td->users, __ATOMIC_ACQUIRE))
		return fx_fail(EBUSY);
	free(td);
	return 0;
}

struct ibv_pd *flexins_alloc_parent_domain(struct ibv_context *c, struct ibv_parent_domain_init_attr *a)
{
	const uint32_t known =
		IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
	struct fx_vpd *pd;

	if (a->comp_mask & ~known || !a->pd || a->pd->context != c || (a->td && a->td->context != c))
		return fx_null(EINVAL);
	pd = calloc(1, sizeof(*pd));
	if (!pd)
		return fx_null(ENOMEM);
	pd->pd = (struct ibv_pd){.context = c, .handle = a->pd->handle};
	pd->base = fx_pd_of(a->pd);
	pd->root = pd->base->root;
	pd->td = a->td ? td_of(a->td) : NULL;
	__atomic_fetch_add(&pd->base->users, 1, __ATOMIC_RELAXED);
	if (pd->td)
		__atomic_fetch_add(&pd->td->users, 1, __ATOMIC_RELAXED);
	return &pd->pd;
}

void fx_parent_free(struct fx_vpd *pd)
{
	/* release: whatever was done in it comes before what it was made of may go */
	__atomic_fetch_sub(&pd->base->users, 1, __ATOMIC_RELEASE);
	if (pd->td)
		__atomic_fetch_sub(&pd->td->users, 1, __ATOMIC_RELEASE);
	free(pd);
}
