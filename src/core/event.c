/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Arms of completion queues, records into the applications' event rings, and the wake that goes with them (contracts
 * 25 and 26). The ring is the application's own memory: one that does not read it only loses events of its own.
 */
#include <errno.h>
#include <string.h>

#include "control/table.h"
#include "core/inside.h"

/* Of completions of `cq`, or of none. True: there was room for it; when its byte follows depends on where the ring is. */
static bool tell(struct fx_worker *w, struct fx_wctx *ctx, const struct fx_event *ev, int wake,
		 const struct fx_cq *cq, uint32_t size)
{
	if (ctx->dead)
		return false;
	if (!fx_event_put(&ctx->events, ev, size)) {
		w->n.events_lost++;
		return false;
	}
	ctx->events.told(&ctx->events, wake, cq);
	return true;
}

/* ---- completion channels ---- */

void fx_event_comp(void *worker, struct fx_cq *cq)
{
	struct fx_event ev = {
		.kind = FX_EV_CQ, .object = cq->handle, .cookie = cq->cookie, .index = fx_cq_told(cq)};
	struct fx_worker *w = worker;
	struct fx_wctx *ctx = cq->owner;

	fx_cq_fire(cq);
	w->n.comp_events += tell(w, ctx, &ev, cq->wake, cq, 1u << ctx->events.shift);
}

void fx_event_arm(struct fx_worker *w, struct fx_wctx *ctx, const struct fx_sq_slot *entry)
{
	uint32_t index;
	struct fx_arm_slot a;
	struct fx_cq *cq;
	int fire;

	memcpy(&a, entry, sizeof(a));
	index = fx_handle_index(a.cq);
	cq = index <= FX_LIMIT_CQ ? w->cqs[index] : NULL;
	w->n.arms++;
	fire = cq && cq->handle == a.cq && cq->owner == ctx && cq->wake >= 0 ? fx_cq_arm(cq, a.arm, a.ci)
									     : -EINVAL;
	if (fire < 0)
		w->n.bad_arms++;
	else if (fire)
		fx_tp_cq_fires(w->tp, cq);
}

/* ---- asynchronous events ---- */

static void async(struct fx_worker *w, struct fx_wctx *ctx, enum fx_async type, uint32_t object,
		  uint64_t cookie)
{
	struct fx_event ev = {.kind = FX_EV_ASYNC, .type = (uint8_t)type, .object = object, .cookie = cookie};

	w->n.async_events += tell(w, ctx, &ev, ctx->events.wake, NULL, 1u << ctx->events.shift >> 1);
}

void fx_event_async(void *worker, struct fx_qp *qp, enum fx_async type)
{
	struct fx_worker *w = worker;
	const struct fx_qp_cfg *cfg = fx_qp_config(qp);

	async(w, fx_wqp_of(qp)->ctx, type, cfg->handle, cfg->cookie);
}

void fx_event_srq(void *worker, struct fx_rxq *rx, enum fx_async type)
{
	async(worker, rx->owner, type, rx->handle, rx->cookie);
}

void fx_event_cq_error(void *worker, struct fx_cq *cq)
{
	async(worker, cq->owner, FX_ASYNC_CQ_ERR, cq->handle, cq->cookie);
}

void fx_event_trouble(void *worker, struct fx_qp *qp, enum fx_cause cause)
{
	(void)worker;
	fx_log(FX_LOG_INFO, "QP %#x went to error: %s", fx_qp_number(qp), fx_cause_text(cause));
}
