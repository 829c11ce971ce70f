/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared receive queues. Their receives are taken in order, but complete in any: each has a number, which its entry
 * and its CQE carry, and which is free again when the CQE is polled (guarantee P4). As many as are not free may be in the
 * ring at most, so an entry is never written over.
 *
 * Room: host. May use: context.c, arena.c, pipe/ring.h.
 */
#include <stdlib.h>
#include <string.h>

#include "host/host.h"

/* ---- posting and completing ---- */

static int post_one(struct fx_vsrq *srq, const struct ibv_recv_wr *wr)
{
	uint32_t n = (uint32_t)wr->num_sge, number = srq->free;
	struct fx_sge sge[FX_MAX_SGE];

	if (wr->num_sge < 0 || n > srq->max_sge)
		return -EINVAL;
	if (number == srq->max_wr)
		return -ENOMEM;
	if (n)
		memcpy(sge, wr->sg_list, n * sizeof(sge[0]));
	srq->free = srq->wr[number].next;
	srq->wr[number] = (struct fx_srq_wr){.wr_id = wr->wr_id, .next = FX_SRQ_BUSY};
	if (fx_likely(fx_alive(srq->ctx)))
		fx_rq_put_as(&srq->ring, number, sge, n);
	return 0;
}

int flexins_post_srq_recv(struct ibv_srq *ibsrq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	struct fx_vsrq *srq = fx_srq_of(ibsrq);
	int err = 0;

	fx_lock(&srq->lock);
	for (; wr; wr = wr->next) {
		err = post_one(srq, wr);
		if (fx_unlikely(err))
			break;
	}
	fx_unlock(&srq->lock);
	if (fx_likely(!err))
		return 0;
	*bad_wr = wr;
	return fx_fail(err);
}

bool fx_srq_retire(struct fx_vsrq *srq, uint32_t number, uint64_t *wr_id)
{
	struct fx_srq_wr *wr = number < srq->max_wr ? &srq->wr[number] : NULL;
	bool known;

	if (!wr)
		return false;
	fx_lock(&srq->lock);
	known = wr->next == FX_SRQ_BUSY;
	if (known) {
		*wr_id = wr->wr_id;
		wr->next = srq->free;
		srq->free = number;
	}
	fx_unlock(&srq->lock);
	return known;
}

/* ---- life ---- */

static uint64_t ring_bytes(const struct fx_vsrq *srq)
{
	return (uint64_t)FX_SLOT_SIZE << srq->ring.shift;
}

static void free_srq(struct fx_vsrq *srq)
{
	struct fx_context *ctx = srq->ctx;

	if (srq->ring.slots)
		fx_arena_free(&ctx->arena, srq->ring_off, ring_bytes(srq),
			      __atomic_load_n(&ctx->life, __ATOMIC_RELAXED) != FX_FORKED);
	free(srq->wr);
	free(srq);
}

static struct fx_vsrq *new_srq(struct fx_context *ctx, const struct ibv_srq_attr *a)
{
	uint32_t stride = fx_rq_stride(a->max_sge);
	struct fx_vsrq *srq = calloc(1, sizeof(*srq));

	if (!srq)
		return NULL;
	srq->ctx = ctx;
	srq->max_wr = a->max_wr;
	srq->max_sge = a->max_sge;
	srq->wr = calloc(a->max_wr, sizeof(*srq->wr));
	srq->ring = (struct fx_rq){.shift = fx_log2_up(a->max_wr * stride), .stride = stride};
	if (!srq->wr || fx_arena_alloc(&ctx->arena, ring_bytes(srq), &srq->ring_off)) {
		free_srq(srq);
		return NULL;
	}
	srq->ring.slots = ctx->arena.base + srq->ring_off;
	for (uint32_t i = 0; i < a->max_wr; i++)
		srq->wr[i].next = i + 1;
	return srq;
}

static int ask_create(struct fx_vsrq *srq, uint32_t pd, uint32_t limit)
{
	struct fx_create_srq_req req = {.head = {.op = FX_MSG_CREATE_SRQ},
					.pd = pd,
					.max_wr = srq->max_wr,
					.max_sge = srq->max_sge,
					.limit = limit,
					.xrcd = srq->xrcd ? srq->xrcd->handle : 0,
					.cq = srq->cq ? srq->cq->cq.handle : 0,
					.rq_shift = srq->ring.shift,
					.rq_off = srq->ring_off,
					.cookie = srq->subject.cookie};
	struct fx_create_srq_rep rep;
	int err = fx_ask(srq->ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);

	if (err)
		return err;
	srq->srq.handle = rep.srq;
	srq->number = rep.number;
	return 0;
}

/* Of XRC: from now on its CQ finds it, or not any more; n is 1 or -1. */
static void list_in_cq(struct fx_vsrq *srq, int n)
{
	struct fx_vsrq **p;

	if (!srq->cq)
		return;
	fx_lock(&srq->cq->lock);
	for (p = &srq->cq->srqs; *p && *p != srq;)
		p = &(*p)->cq_next;
	*p = n > 0 ? srq : srq->cq_next;
	fx_unlock(&srq->cq->lock);
	/* release: the last use of each comes before whoever destroys it */
	__atomic_fetch_add(&srq->cq->users, (uint32_t)n, __ATOMIC_RELEASE);
	__atomic_fetch_add(&srq->xrcd->users, (uint32_t)n, __ATOMIC_RELEASE);
}

static int check_attr(const struct fx_context *ctx, const struct ibv_srq_attr *a)
{
	const struct fx_device_limits *l = &ctx->limits;

	return a->max_wr && a->max_wr <= l->max_srq_wr && a->max_sge <= l->max_sge &&
			       a->max_sge <= FX_MAX_SGE && a->srq_limit <= a->max_wr
		       ? 0
		       : -EINVAL;
}

/* xrcd and cq: both, or NULL both */
static struct ibv_srq *create(struct ibv_pd *pd, const struct ibv_srq_init_attr *attr, struct fx_vxrcd *xrcd,
			      struct fx_vcq *cq)
{
	struct fx_context *ctx = fx_context_of(pd->context);
	int err = check_attr(ctx, &attr->attr);
	struct fx_vsrq *srq;

	if (err)
		return fx_null(err);
	srq = new_srq(ctx, &attr->attr);
	if (!srq)
		return fx_null(ENOMEM);
	srq->xrcd = xrcd;
	srq->cq = cq;
	srq->srq = (struct ibv_srq){.context = pd->context, .srq_context = attr->srq_context, .pd = pd};
	fx_subject_init(ctx, &srq->subject, FX_OF_SRQ, &srq->srq, &srq->srq.mutex, &srq->srq.cond);
	pthread_mutex_lock(&ctx->lock);
	fx_subject_list(ctx, &srq->subject); /* its limit may be reached at once */
	pthread_mutex_unlock(&ctx->lock);
	err = ask_create(srq, pd->handle, attr->attr.srq_limit);
	if (err) {
		fx_subject_forget(ctx, &srq->subject);
		fx_subject_fini(&srq->subject, &srq->srq.events_completed);
		free_srq(srq);
		return fx_null(err);
	}
	__atomic_fetch_add(&fx_pd_of(pd)->users, 1, __ATOMIC_RELAXED);
	list_in_cq(srq, 1);
	return &srq->srq;
}

struct ibv_srq *flexins_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	return create(pd, attr, NULL, NULL);
}

static int check_extended(const struct ibv_context *c, const struct ibv_srq_init_attr_ex *a)
{
	const uint32_t basic = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
	const uint32_t parts = IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ;
	enum ibv_srq_type type = a->comp_mask & IBV_SRQ_INIT_ATTR_TYPE ? a->srq_type : IBV_SRQT_BASIC;

	if (type != IBV_SRQT_BASIC && type != IBV_SRQT_XRC)
		return EOPNOTSUPP;
	if (a->comp_mask & ~(basic | parts))
		return EOPNOTSUPP;
	if (!(a->comp_mask & IBV_SRQ_INIT_ATTR_PD) || !a->pd || a->pd->context != c)
		return EINVAL;
	if (type == IBV_SRQT_BASIC)
		return a->comp_mask & parts ? EINVAL : 0;
	if ((a->comp_mask & parts) != parts || !a->xrcd || !a->cq)
		return EINVAL;
	return a->xrcd->context == c && a->cq->context == c ? 0 : EINVAL;
}

struct ibv_srq *flexins_create_srq_ex(struct ibv_context *c, struct ibv_srq_init_attr_ex *a)
{
	struct ibv_srq_init_attr base = {.srq_context = a->srq_context, .attr = a->attr};
	bool xrc = a->comp_mask & IBV_SRQ_INIT_ATTR_XRCD;
	int err = check_extended(c, a);

	if (err)
		return fx_null(err);
	return create(a->pd, &base, xrc ? fx_xrcd_of(a->xrcd) : NULL, xrc ? fx_cq_of(a->cq) : NULL);
}

int flexins_get_srq_num(struct ibv_srq *srq, uint32_t *number)
{
	if (!fx_srq_of(srq)->xrcd)
		return fx_fail(EINVAL);
	*number = fx_srq_of(srq)->number;
	return 0;
}

static int ask_limit(struct fx_vsrq *srq, uint16_t op, uint32_t limit, struct fx_srq_rep *rep)
{
	struct fx_modify_srq_req req = {.head = {.op = op}, .srq = srq->srq.handle, .limit = limit};

	return fx_ask(srq->ctx, &req, sizeof(req), rep, sizeof(*rep), NULL);
}

int flexins_modify_srq(struct ibv_srq *ibsrq, struct ibv_srq_attr *attr, int mask)
{
	struct fx_vsrq *srq = fx_srq_of(ibsrq);
	struct fx_srq_rep rep;
	int err;

	if (mask & IBV_SRQ_MAX_WR) {
		fx_why("ibv_modify_srq: an SRQ keeps its size, as device_cap_flags has it");
		return fx_fail(EOPNOTSUPP);
	}
	if (mask & ~IBV_SRQ_LIMIT || (mask && attr->srq_limit > srq->max_wr))
		return fx_fail(EINVAL);
	err = mask ? ask_limit(srq, FX_MSG_MODIFY_SRQ, attr->srq_limit, &rep) : 0;
	return err ? fx_fail(err) : 0;
}

int flexins_query_srq(struct ibv_srq *ibsrq, struct ibv_srq_attr *attr)
{
	struct fx_vsrq *srq = fx_srq_of(ibsrq);
	struct fx_srq_rep rep;
	int err = ask_limit(srq, FX_MSG_QUERY_SRQ, 0, &rep);

	if (err)
		return fx_fail(err);
	*attr = (struct ibv_srq_attr){.max_wr = srq->max_wr, .max_sge = srq->max_sge, .srq_limit = rep.limit};
	return 0;
}

int flexins_destroy_srq(struct ibv_srq *ibsrq)
{
	struct fx_vsrq *srq = fx_srq_of(ibsrq);
	struct fx_context *ctx = srq->ctx;
	int err;

	/* acquire: the last QP's use of it (its release) comes before the end */
	if (__atomic_load_n(&srq->users, __ATOMIC_ACQUIRE))
		return fx_fail(EBUSY);
	err = fx_ask_drop(ctx, FX_MSG_DESTROY_SRQ, ibsrq->handle);
	if (err && fx_alive(ctx))
		return fx_fail(err);
	list_in_cq(srq, -1);
	fx_subject_forget(ctx, &srq->subject);
	fx_subject_fini(&srq->subject, &ibsrq->events_completed);
	/* release: what it was used for comes before its domain may go */
	__atomic_fetch_sub(&fx_pd_of(ibsrq->pd)->users, 1, __ATOMIC_RELEASE);
	free_srq(srq);
	return 0;
}
