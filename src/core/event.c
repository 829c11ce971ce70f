/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Records into the applications' event rings, and the wake that goes with them (contract 25). The ring is the
 * application's own memory: one that does not read it only loses its own oldest events.
 */
#include <errno.h>
#include <string.h>

#include "core/inside.h"

enum { EV_CQ_ERR = 0 }; /* enum ibv_event_type */

static void put(struct fx_worker *w, struct fx_wctx *ctx, const struct fx_event *ev)
{
	struct fx_event_tx *t = &ctx->events;
	struct fx_event *e = &t->ring[t->pi & ((1u << t->shift) - 1)];

	memcpy(e, ev, sizeof(*e) - 1);
	fx_store8_release(&e->phase, fx_phase(t->pi, t->shift));
	t->pi++;
	w->n.events++;
	if (write(t->wake, "", 1) < 0)
		return; /* EAGAIN: it is awake; EPIPE: it is gone */
}

void fx_event_async(void *worker, struct fx_qp *qp, uint8_t type)
{
	struct fx_worker *w = worker;
	const struct fx_qp_cfg *cfg = fx_qp_config(qp);
	struct fx_wqp *q = w->wqp[fx_qp_number(qp) >> FX_WORKER_BITS];
	struct fx_event ev = {
		.kind = FX_EV_ASYNC, .type = type, .object = cfg->handle, .cookie = cfg->cookie};

	if (!q || q->ctx->dead)
		return;
	if (type == EV_CQ_ERR) {
		const struct fx_cq *cq = cfg->scq->overrun ? cfg->scq : cfg->rcq;

		ev.object = cq->handle;
		ev.cookie = cq->cookie;
	}
	put(w, q->ctx, &ev);
}

void fx_event_trouble(void *worker, struct fx_qp *qp, const char *why)
{
	(void)worker;
	fx_log(FX_LOG_INFO, "QP %#x went to error: %s", fx_qp_number(qp), why);
}
