/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Moderation of CQs: an arm that would fire is held back until there are enough CQEs for the event, or it has been held for
 * long enough. CQs with neither bound never come here but to fire.
 *
 * Room: transport. May use: transport.h, pipe.
 */
#include "transport/qp.h"

/* CQEs that the application has not heard of are as many as it wants to hear of at once. */
static bool enough(const struct fx_cq *cq)
{
	return cq->every && fx_cq_told(cq) - cq->arm_ci >= cq->every;
}

static void hold(struct fx_tp *tp, struct fx_cq *cq)
{
	if (cq->held || !cq->patience)
		return;
	cq->held = true;
	cq->due = tp->now + cq->patience;
	cq->held_next = tp->held;
	tp->held = cq;
	if (cq->due < tp->held_due)
		tp->held_due = cq->due;
}

void fx_tp_cq_let_go(struct fx_tp *tp, struct fx_cq *cq)
{
	struct fx_cq **at = &tp->held;

	if (!cq->held)
		return;
	while (*at != cq)
		at = &(*at)->held_next;
	*at = cq->held_next;
	cq->held = false;
	if (!tp->held)
		tp->held_due = UINT64_MAX;
}

void fx_tp_cq_fires(struct fx_tp *tp, struct fx_cq *cq)
{
	if (cq->moderated && !enough(cq)) {
		hold(tp, cq);
		return;
	}
	fx_tp_cq_let_go(tp, cq);
	tp->cfg.env.comp(tp->cfg.env.arg, cq);
}

void fx_tp_cq_moderate(struct fx_tp *tp, struct fx_cq *cq, uint32_t every, uint64_t patience)
{
	fx_tp_cq_let_go(tp, cq);
	cq->every = every;
	cq->patience = patience;
	cq->moderated = every > 1 || patience;
	/* what was held back is judged anew */
	if (cq->arm && fx_cq_arm(cq, cq->arm, cq->arm_ci) > 0)
		fx_tp_cq_fires(tp, cq);
}

void fx_moderate_timers(struct fx_tp *tp)
{
	struct fx_cq *list = tp->held, *cq;

	tp->held = NULL;
	tp->held_due = UINT64_MAX;
	while ((cq = list)) {
		list = cq->held_next;
		cq->held = false;
		if (tp->now >= cq->due) {
			tp->cfg.env.comp(tp->cfg.env.arg, cq);
			continue;
		}
		cq->held = true;
		cq->held_next = tp->held;
		tp->held = cq;
		if (cq->due < tp->held_due)
			tp->held_due = cq->due;
	}
}
