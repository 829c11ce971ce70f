/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Contexts that are left alone until their host kicks: looking at a pipe over a bus costs transfers, so one that has
 * been empty for a while is not looked at. The host's page says so first, then follows one last look: as with a
 * shared page, either that look finds an entry or its producer finds that it has to kick (guarantee S3).
 *
 * Room: mirror.
 */
#include "mirror/inside.h"

static uint64_t sleeping_at(const struct fx_mirror *m, const struct fx_mirror_ctx *x)
{
	return x->at.page + offsetof(struct fx_core_page, worker) +
	       m->cfg.worker * sizeof(((struct fx_core_page *)0)->worker[0]) +
	       offsetof(__typeof__(((struct fx_core_page *)0)->worker[0]), sleeping);
}

static bool put_word(struct fx_mirror *m, struct fx_mirror_ctx *x, uint64_t va, uint32_t word, fx_moved *done)
{
	struct fx_move *v = fx_move_get(m, x, x, done);

	if (!v)
		return false;
	v->index = word;
	memcpy(v->buf, &word, sizeof(word));
	fx_move_start(m, v, va, sizeof(word), true);
	return true;
}

static void ci_told(struct fx_mirror *m, struct fx_move *v, int err)
{
	(void)m;
	(void)err;
	v->ctx->telling_ci = false;
}

/* How far the pipe was consumed: often enough that the host never waits for it, seldom enough to cost nothing. */
static void tell_ci(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	uint32_t ci = x->pipe_mem->ci, due = ci - x->ci_told;

	if (!due || x->telling_ci || (due < 1u << x->at.pipe_shift >> 3 && !x->dry))
		return;
	if (!put_word(m, x, x->at.pipe, ci, ci_told))
		return;
	x->telling_ci = true;
	x->ci_told = ci;
}

static void sleep_told(struct fx_mirror *m, struct fx_move *v, int err)
{
	struct fx_mirror_ctx *x = v->ctx;

	(void)m;
	(void)err;
	x->telling_sleep = false;
	if (x->doze == FX_TELLING)
		x->doze = FX_LAST_LOOK; /* which begins only now */
}

static void begin_doze(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	uint32_t nap = x->nap + 1 ? x->nap + 1 : 1; /* never 0: awake */

	if (!put_word(m, x, sleeping_at(m, x), nap, sleep_told))
		return;
	x->nap = nap;
	x->telling_sleep = true;
	x->says_sleep = true;
	x->doze = FX_TELLING;
}

/* Writes may overtake each other, so there is one at a time; until then the host kicks for nothing. */
static void say_awake(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	if (!x->says_sleep || x->telling_sleep || !put_word(m, x, sleeping_at(m, x), 0, sleep_told))
		return;
	x->telling_sleep = true;
	x->says_sleep = false;
}

/*
 * A kick costs a host more than some looks cost us. One that comes soon tells that we should have gone on looking, and
 * next time we do for twice as long; one that comes late, that looking is for nothing.
 */
static void learn(const struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	uint64_t most = m->cfg.doze_most_ns;

	if (x->doze != FX_DOZING)
		return;
	if (m->now - x->dozed >= most)
		x->patience = m->cfg.doze_ns;
	else if (x->patience < most)
		x->patience = 2 * x->patience < most ? 2 * x->patience : most;
}

static bool may_doze(const struct fx_mirror *m, const struct fx_mirror_ctx *x)
{
	return m->now - x->active >= x->patience && !x->pull.flight && !x->telling_sleep && !x->says_sleep &&
	       x->pipe_mem->ci == x->ci_told && !x->telling_ci;
}

void fx_doze_turn(struct fx_mirror *m, struct fx_mirror_ctx *x)
{
	tell_ci(m, x);
	if (x->kicked && x->doze != FX_TELLING && x->doze != FX_LAST_LOOK) {
		learn(m, x);
		x->kicked = false;
		x->doze = FX_AWAKE;
		x->active = m->now;
	}
	switch (x->doze) {
	case FX_AWAKE:
		say_awake(m, x);
		if (may_doze(m, x))
			begin_doze(m, x);
		else
			fx_pull_pipe(m, x);
		break;
	case FX_LAST_LOOK:
		if (!x->pull.flight)
			fx_pull_pipe(m, x);
		break;
	default:
		break;
	}
}
