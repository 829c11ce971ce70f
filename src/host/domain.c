/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Parent domains and thread domains. To the core a parent domain is the domain that it was made of: keys and rights are the
 * same in both. A thread domain has a send pipe of its own, which one thread at a time writes to: so it takes no lock.
 *
 * Room: host. May use: context.c, arena.c, libc.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "host/host.h"

static struct fx_vtd *td_of(struct ibv_td *td)
{
	return fx_container(td, struct fx_vtd, td);
}

/* ---- pipes ---- */

enum { TD_SHIFT = 9 }; /* log2 of its slots */

static uint64_t pipe_bytes(void)
{
	return sizeof(struct fx_pipe_head) + ((uint64_t)FX_SLOT_SIZE << TD_SHIFT);
}

/* 0, too, where the core has no further pipes: its threads then share the context's. */
static int make_pipe(struct fx_context *ctx, struct fx_vtd *td)
{
	struct fx_create_pipe_req req = {.head = {.op = FX_MSG_CREATE_PIPE}, .shift = TD_SHIFT};
	struct fx_handle_rep rep;
	int err = fx_arena_alloc(&ctx->arena, pipe_bytes(), &td->off);

	if (err)
		return err;
	req.off = td->off;
	err = fx_ask(ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
	if (err) {
		fx_arena_free(&ctx->arena, td->off, pipe_bytes(), true);
		return err == -EOPNOTSUPP || err == -ENOSPC ? 0 : err;
	}
	td->handle = rep.handle;
	td->pipe.tx.head = (struct fx_pipe_head *)(ctx->arena.base + td->off);
	td->pipe.tx.slots = (uint8_t *)(td->pipe.tx.head + 1);
	td->pipe.tx.shift = TD_SHIFT;
	return 0;
}

void fx_pipe_settle(struct fx_context *ctx, const struct fx_hpipe *pipe)
{
	uint32_t pi = __atomic_load_n(&pipe->tx.pi, __ATOMIC_RELAXED);
	unsigned turns = 0;

	/* acquire: as for room in it. A core that is gone takes nothing, and nothing has to come first. */
	while (fx_alive(ctx) && (int32_t)(pi - fx_load32_acquire(&pipe->tx.head->ci)) > 0) {
		if (++turns % FX_POLLS_PER_LOOK == 0)
			fx_look(ctx);
		sched_yield();
	}
}

void fx_pipes_settle(struct fx_context *ctx)
{
	pthread_mutex_lock(&ctx->lock);
	for (struct fx_vtd *td = ctx->tds; td; td = td->next)
		if (td->handle)
			fx_pipe_settle(ctx, &td->pipe);
	pthread_mutex_unlock(&ctx->lock);
}

/* ---- thread domains ---- */

struct ibv_td *flexins_alloc_td(struct ibv_context *c, struct ibv_td_init_attr *a)
{
	struct fx_context *ctx = fx_context_of(c);
	struct fx_vtd *td;
	int err;

	if (a->comp_mask)
		return fx_null(EINVAL);
	td = aligned_alloc(FX_LINE, sizeof(*td));
	if (!td)
		return fx_null(ENOMEM);
	memset(td, 0, sizeof(*td));
	err = make_pipe(ctx, td);
	if (err) {
		free(td);
		return fx_null(err);
	}
	td->td.context = c;
	pthread_mutex_lock(&ctx->lock);
	td->next = ctx->tds;
	ctx->tds = td;
	pthread_mutex_unlock(&ctx->lock);
	return &td->td;
}

int flexins_dealloc_td(struct ibv_td *ibtd)
{
	struct fx_context *ctx = fx_context_of(ibtd->context);
	struct fx_vtd *td = td_of(ibtd);
	int err;

	/* acquire: against the release of the last parent domain */
	if (__atomic_load_n(&td->users, __ATOMIC_ACQUIRE))
		return fx_fail(EBUSY);
	err = td->handle ? fx_ask_drop(ctx, FX_MSG_DESTROY_PIPE, td->handle) : 0;
	if (err && fx_alive(ctx))
		return fx_fail(err);
	pthread_mutex_lock(&ctx->lock);
	for (struct fx_vtd **at = &ctx->tds; *at; at = &(*at)->next)
		if (*at == td) {
			*at = td->next;
			break;
		}
	pthread_mutex_unlock(&ctx->lock);
	if (td->handle)
		fx_arena_free(&ctx->arena, td->off, pipe_bytes(),
			      __atomic_load_n(&ctx->life, __ATOMIC_RELAXED) != FX_FORKED);
	free(td);
	return 0;
}

/* ---- parent domains ---- */

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
