/* SPDX-License-Identifier: BSD-3-Clause */
/* Life of mirrors and contexts, transfers, and the poll: see mirror.h. */
#include <stdlib.h>

#include "mirror/inside.h"

/* ---- transfers ---- */

struct fx_move *fx_move_get(struct fx_mirror *m, struct fx_mirror_ctx *x, void *ring, fx_moved *done)
{
	struct fx_move *v = x->broken || !x->attached ? NULL : m->free;

	if (!v)
		return NULL;
	m->free = v->next;
	v->next = NULL;
	v->ctx = x;
	v->ring = ring;
	v->done = done;
	m->flight++;
	x->flight++;
	return v;
}

static bool submit(struct fx_mirror *m, struct fx_move *v)
{
	return m->cfg.engine->ops->submit(m->cfg.engine, &v->d, 1) == 1;
}

void fx_move_start(struct fx_mirror *m, struct fx_move *v, uint64_t va, uint32_t len, bool to_host)
{
	uint32_t run = len;

	v->d = (struct fx_dma){
		.win = fx_mr_at(v->ctx->at.mem, va, &run),
		.local = v->buf,
		.len = len,
		.to_window = to_host,
		.lines = true,
		.mr = v->ctx->at.mem,
		.va = va,
		.cookie = v,
	};
	/* behind those that wait already: an engine without room is not asked out of turn */
	if (!m->stuck && submit(m, v))
		return;
	*m->stuck_tail = v;
	m->stuck_tail = &v->next;
}

static void retry_stuck(struct fx_mirror *m)
{
	while (m->stuck && submit(m, m->stuck)) {
		struct fx_move *v = m->stuck;

		m->stuck = v->next;
		v->next = NULL;
	}
	if (!m->stuck)
		m->stuck_tail = &m->stuck;
}

static void ended(struct fx_mirror *m, struct fx_move *v, int err)
{
	if (err)
		fx_ctx_broken(m, v->ctx);
	v->done(m, v, err);
	v->ctx->flight--;
	m->flight--;
	v->next = m->free;
	m->free = v;
}

static unsigned collect(struct fx_mirror *m)
{
	enum { BATCH = 32 };
	struct fx_dma_done done[BATCH];
	unsigned n, total = 0;

	if (!m->flight)
		return 0;
	do {
		n = m->cfg.engine->ops->poll(m->cfg.engine, done, BATCH);
		for (unsigned i = 0; i < n; i++)
			ended(m, done[i].cookie, done[i].err);
		total += n;
	} while (n == BATCH);
	return total;
}

/* ---- contexts ---- */

void fx_ctx_broken(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	if (x->broken)
		return;
	x->broken = true;
	if (x->attached)
		m->cfg.env.broken(m->cfg.env.arg, x->owner);
}

struct fx_mirror_ctx *fx_mirror_ctx_new(const struct fx_mirror_place *at, struct fx_pipe_rx *pipe,
					struct fx_event_tx *events, void *owner)
{
	uint32_t event_shift = at->event_shift + FX_CQ_SPARE;
	struct fx_mirror_ctx *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	/* calloc: pages that are never reached cost nothing */
	x->pipe_mem = calloc(1, sizeof(*x->pipe_mem) + ((size_t)FX_SLOT_SIZE << at->pipe_shift));
	x->event_mem = calloc(1, sizeof(*x->event_mem) + (sizeof(struct fx_event) << event_shift));
	x->told = calloc((size_t)1 << event_shift, sizeof(*x->told));
	if (!x->pipe_mem || !x->event_mem || !x->told) {
		fx_mirror_ctx_free(x);
		return NULL;
	}
	x->at = *at;
	x->owner = owner;
	x->pipe = pipe;
	x->events = events;
	pipe->head = x->pipe_mem;
	pipe->slots = (uint8_t *)(x->pipe_mem + 1);
	pipe->shift = at->pipe_shift;
	events->head = x->event_mem;
	events->ring = (struct fx_event *)(x->event_mem + 1);
	events->shift = event_shift;
	events->told = fx_push_told;
	events->copy = x;
	x->pull = (struct fx_pull){
		.local = (uint8_t *)(x->pipe_mem + 1),
		.va = at->pipe + sizeof(struct fx_pipe_head),
		.shift = at->pipe_shift,
		.consumed = &pipe->ci,
		.batch = FX_PULL_MIN,
	};
	x->push = (struct fx_push){
		.local = (const uint8_t *)(x->event_mem + 1),
		.local_shift = event_shift,
		.local_ci = &x->event_mem->ci,
		.head = at->event,
		.va = at->event + sizeof(struct fx_event_head),
		.shift = at->event_shift,
		.pi = &events->pi,
	};
	return x;
}

void fx_mirror_ctx_free(struct fx_mirror_ctx *x)
{
	free(x->pipe_mem);
	free(x->event_mem);
	free(x->told);
	free(x);
}

void fx_mirror_attach(struct fx_mirror *m, struct fx_mirror_ctx *x, uint64_t now)
{
	if (!x)
		return;
	x->attached = true;
	x->active = now;
	x->patience = m->cfg.doze_ns;
	x->next = m->ctxs;
	m->ctxs = x;
}

void fx_mirror_detach(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	struct fx_mirror_ctx **at = &m->ctxs;

	if (!x)
		return;
	while (*at && *at != x)
		at = &(*at)->next;
	if (*at)
		*at = x->next;
	x->attached = false;
}

bool fx_mirror_ctx_idle(const struct fx_mirror_ctx *x)
{
	return !x || (!x->attached && !x->flight);
}

void fx_mirror_kick(struct fx_mirror_ctx *x)
{
	if (x)
		x->kicked = true;
}

/* ---- the whole ---- */

struct fx_mirror *fx_mirror_create(const struct fx_mirror_cfg *cfg)
{
	struct fx_mirror *m = aligned_alloc(FX_LINE, (sizeof(*m) + FX_LINE - 1) / FX_LINE * FX_LINE);

	if (!m)
		return NULL;
	memset(m, 0, offsetof(struct fx_mirror, move));
	m->cfg = *cfg;
	m->stuck_tail = &m->stuck;
	m->looks_tail = &m->looks;
	for (int i = FX_MOVES - 1; i >= 0; i--) {
		m->move[i].next = m->free;
		m->free = &m->move[i];
	}
	return m;
}

void fx_mirror_destroy(struct fx_mirror *m)
{
	free(m);
}

unsigned fx_mirror_poll(struct fx_mirror *m, uint64_t now)
{
	unsigned n;

	if (__builtin_expect(!m->ctxs && !m->flight && !m->looks, 1))
		return 0;
	m->now = now;
	retry_stuck(m);
	n = collect(m);
	fx_pull_looks(m);
	for (struct fx_mirror_ctx *x = m->ctxs; x; x = x->next) {
		if (x->broken) {
			fx_push_drop(x);
			continue;
		}
		fx_push_ctx(m, x);
		fx_doze_turn(m, x);
	}
	return n;
}

bool fx_mirror_quiet(const struct fx_mirror *m)
{
	if (m->flight || m->looks)
		return false;
	for (const struct fx_mirror_ctx *x = m->ctxs; x; x = x->next)
		if (!x->broken &&
		    (x->doze != FX_DOZING || x->kicked || x->out.head || x->push.landed != x->events->pi))
			return false;
	return true;
}
