/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rings that hosts and worker share: send pipes, whose entries go into the transport, and the mirror of those rings
 * that lie where only DMA reaches them. A context whose rings are the host's own has no mirror, and costs none here.
 *
 * Room: core.
 */
#include <errno.h>

#include "core/inside.h"

enum {
	MIRROR_DEPTH = 256,
	DOZE_NS =
		50000, /* without entries before a host is asked to kick: a kick costs it more than a look costs us */
	/* where the CPU is ours alone; of shared ones each look takes what the host would need to go on (docs/placement.md) */
	DOZE_MOST_NS = 1000000,
};

/* ---- the mirror's callbacks ---- */

static void looked(void *worker, void *rxq)
{
	struct fx_worker *w = worker;

	fx_tp_looked(w->tp, rxq);
	fx_worker_release(w);
}

static void overrun(void *worker, struct fx_cq *cq)
{
	fx_tp_cq_overran(((struct fx_worker *)worker)->tp, cq);
}

/* A pipe that is full is read already (EAGAIN). */
static void wake(void *worker, int ring)
{
	(void)worker;
	if (write(ring, "", 1) < 0)
		return;
}

static void broken(void *worker, void *ctx)
{
	fx_ctx_dead(worker, ctx);
}

int fx_rings_init(struct fx_worker *w)
{
	struct fx_mirror_cfg cfg = {
		.worker = w->cfg.index,
		.doze_ns = DOZE_NS,
		.doze_most_ns = w->cfg.shared_cpus ? 0 : DOZE_MOST_NS,
		.env = {.arg = w, .looked = looked, .overrun = overrun, .wake = wake, .broken = broken},
	};

	cfg.engine = w->mirror_dma = fx_worker_slow(w, MIRROR_DEPTH, &w->mirrored);
	w->mirror = cfg.engine ? fx_mirror_create(&cfg) : NULL;
	return w->mirror ? 0 : -ENOMEM;
}

void fx_rings_fini(struct fx_worker *w)
{
	if (w->mirror_dma)
		w->mirror_dma->ops->destroy(w->mirror_dma);
	if (w->mirror)
		fx_mirror_destroy(w->mirror);
	w->mirror_dma = NULL;
	w->mirror = NULL;
}

/* ---- send pipes ---- */

static void take_kick(struct fx_wctx *ctx)
{
	/* relaxed: a kick that is not seen now rouses us once more */
	if (likely(!atomic_load_explicit(&ctx->kicked, memory_order_relaxed)))
		return;
	/* acq_rel: pairs with fx_ctx_kick(), so that what the host had written by then is looked for after this */
	atomic_exchange_explicit(&ctx->kicked, false, memory_order_acq_rel);
	fx_mirror_kick(ctx->mirror);
}

bool fx_rings_ready(const struct fx_worker *w)
{
	for (uint32_t i = 0; i < w->nctx; i++) {
		const struct fx_wctx *ctx = w->ctx[i];

		if (ctx->dead)
			continue;
		if (fx_pipe_ready(&ctx->pipe) || atomic_load_explicit(&ctx->kicked, memory_order_relaxed))
			return true;
		for (const struct fx_wpipe *p = ctx->pipes; p; p = p->next)
			if (fx_pipe_ready(&p->rx))
				return true;
	}
	return false;
}

static unsigned poll_pipe(struct fx_worker *w, struct fx_wctx *ctx, struct fx_pipe_rx *pipe)
{
	struct fx_sq_slot entry[FX_MAX_SQ_SLOTS];
	unsigned n = 0;
	int slots;

	do {
		slots = fx_pipe_take(pipe, entry);
		if (slots <= 0)
			break;
		fx_post_soon(w->tp, fx_pipe_glance(pipe, FX_GLANCE));
		if (unlikely(entry->opcode == FX_WR_ARM))
			fx_event_arm(w, ctx, entry);
		else
			fx_post(w->tp, ctx->id, entry);
	} while (++n < FX_PIPE_BUDGET);
	if (n) {
		fx_pipe_publish_ci(pipe);
		w->n.pipe_entries += n;
	}
	if (unlikely(slots < 0))
		fx_ctx_dead(w, ctx);
	return n;
}

/* Every pipe has its budget, and all together have theirs; a turn goes on where the last one ended. */
static unsigned poll_pipes(struct fx_worker *w)
{
	uint32_t count = w->nctx, at = w->first < count ? w->first : 0;
	unsigned n = 0;

	for (uint32_t i = 0; i < count && n < FX_PIPES_BUDGET; i++) {
		struct fx_wctx *ctx = w->ctx[at];

		take_kick(ctx);
		if (!ctx->dead)
			n += poll_pipe(w, ctx, &ctx->pipe);
		for (struct fx_wpipe *p = ctx->pipes; unlikely(p != NULL) && !ctx->dead; p = p->next)
			n += poll_pipe(w, ctx, &p->rx);
		at = at + 1 < count ? at + 1 : 0;
	}
	w->first = at;
	return n;
}

/* ---- in a turn ---- */

unsigned fx_rings_poll(struct fx_worker *w)
{
	unsigned n = fx_mirror_poll(w->mirror, w->now);

	return n + poll_pipes(w);
}

unsigned fx_rings_push(struct fx_worker *w)
{
	return fx_mirror_poll(w->mirror, w->now);
}

/* A transfer that rouses us when it ends may be slept through; what is due else has to be begun. */
bool fx_rings_want_turns(const struct fx_worker *w)
{
	if (w->mirror_dma->ops->pending(w->mirror_dma))
		return fx_dma_wants_poll(w->mirror_dma);
	return !fx_mirror_quiet(w->mirror);
}
