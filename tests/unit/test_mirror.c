/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mirrored rings over an engine that is late and in any order: a host that uses its own side as ever, a worker that
 * uses its copies as ever, at random moments, and an oracle that counts.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memory/engine.h"
#include "mirror/mirror.h"

enum {
	SEEDS = 300,
	STEPS = 4000,
	DELAY = 6,
	PIPE_SHIFT = 5,
	EVENT_SHIFT = 3,
	CQ_SHIFT = 3,
	RQ_SHIFT = 3,
	DOZE = 20,
	/* where things lie in the host's memory */
	PAGE = 0,
	PIPE = 4096,
	EVENT = 8192,
	CQ = 12288,
	RQ = 16384,
	HOST = 20480,
	IOVA = 1 << 20,
};

static uint8_t host[HOST] __attribute__((aligned(64)));
static uint64_t rng;

static uint32_t dice(uint32_t n)
{
	rng = rng * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)((rng >> 33) % n);
}

struct rig {
	struct fx_mr mem;
	struct fx_dma_engine *engine;
	struct fx_mirror *m;
	struct fx_mirror_ctx *x;
	uint64_t now;
	/* the worker's side */
	struct fx_pipe_rx pipe;
	struct fx_event_tx events;
	struct fx_cq cq;
	struct fx_mirror_cq *mcq;
	struct fx_rq rq;
	struct fx_mirror_rq *mrq;
	/* the host's side */
	struct fx_pipe_tx tx;
	struct fx_event_rx ev;
	struct fx_cq_rx cqx;
	struct fx_rq rqx;
	/* what was told */
	unsigned looked, overrun, broken, wakes;
	uint32_t kicked; /* for which sleep */
	bool deaf;
};

static void on_looked(void *arg, void *owner)
{
	(void)owner;
	((struct rig *)arg)->looked++;
}

static void on_overrun(void *arg, struct fx_cq *cq)
{
	cq->overrun = true;
	((struct rig *)arg)->overrun++;
}

/* The host wakes up: the record is there, and the completions that it tells of. */
static void on_wake(void *arg, int wake)
{
	struct rig *r = arg;
	struct fx_event e;
	struct fx_cqe c;

	assert_int_equal(wake, 7);
	r->wakes++;
	if (r->deaf)
		return;
	assert_true(fx_event_take(&r->ev, &e));
	fx_event_publish_ci(&r->ev);
	assert_int_equal(e.kind, FX_EV_CQ);
	while ((int32_t)(e.index - r->cqx.ci) > 0) {
		uint32_t want = r->cqx.ci;

		assert_true(fx_cq_take(&r->cqx, &c));
		assert_int_equal(c.index, want);
	}
	fx_cq_publish_ci(&r->cqx);
}

static void on_broken(void *arg, void *owner)
{
	assert_ptr_equal(owner, arg);
	((struct rig *)arg)->broken++;
}

static void rig_start_dozing(struct rig *r, uint64_t seed, uint64_t doze, uint64_t most)
{
	struct fx_mirror_place at = {.mem = &r->mem,
				     .page = IOVA + PAGE,
				     .pipe = IOVA + PIPE,
				     .event = IOVA + EVENT,
				     .pipe_shift = PIPE_SHIFT,
				     .event_shift = EVENT_SHIFT};
	struct fx_mirror_cfg cfg = {.doze_ns = doze,
				    .doze_most_ns = most,
				    .env = {.arg = r,
					    .looked = on_looked,
					    .overrun = on_overrun,
					    .wake = on_wake,
					    .broken = on_broken}};

	memset(host, 0, sizeof(host));
	*r = (struct rig){.mem = {.iova = IOVA, .length = HOST, .base = host}};
	rng = seed;
	r->engine = cfg.engine = fx_dma_chaos_create(64, DELAY, seed);
	r->m = fx_mirror_create(&cfg);
	r->x = fx_mirror_ctx_new(&at, &r->pipe, &r->events, r);
	r->mcq = fx_mirror_cq_new(r->x, IOVA + CQ, CQ_SHIFT, &r->cq);
	r->rq = (struct fx_rq){.shift = RQ_SHIFT, .stride = 1};
	r->mrq = fx_mirror_rq_new(r->x, IOVA + RQ, &r->rq, r);
	assert_non_null(r->mrq);
	r->tx = (struct fx_pipe_tx){
		.head = (void *)(host + PIPE), .slots = host + PIPE + FX_LINE, .shift = PIPE_SHIFT};
	r->ev = (struct fx_event_rx){.head = (void *)(host + EVENT),
				     .ring = (void *)(host + EVENT + FX_LINE),
				     .shift = EVENT_SHIFT};
	r->cqx = (struct fx_cq_rx){
		.head = (void *)(host + CQ), .ring = (void *)(host + CQ + FX_LINE), .shift = CQ_SHIFT};
	r->rqx = (struct fx_rq){.slots = host + RQ, .shift = RQ_SHIFT, .stride = 1};
	fx_mirror_attach(r->m, r->x, r->now);
}

static void rig_start(struct rig *r, uint64_t seed)
{
	rig_start_dozing(r, seed, seed % DOZE, seed % 3 * DOZE);
}

static void turn(struct rig *r)
{
	r->now++;
	fx_mirror_poll(r->m, r->now);
}

static void rig_end(struct rig *r)
{
	fx_mirror_detach(r->m, r->x);
	for (int i = 0; !fx_mirror_ctx_idle(r->x); i++) {
		assert_true(i < 1000);
		turn(r);
	}
	assert_true(fx_mirror_cq_idle(r->mcq) && fx_mirror_rq_idle(r->mrq));
	fx_mirror_cq_free(r->mcq);
	fx_mirror_rq_free(r->mrq);
	fx_mirror_ctx_free(r->x);
	r->engine->ops->destroy(r->engine);
	fx_mirror_destroy(r->m);
}

/* ---- send pipe ---- */

static uint32_t sleeping(void)
{
	return ((const struct fx_core_page *)(void *)(host + PAGE))->worker[0].sleeping;
}

/* An entry of 1 to 9 slots whose every byte is known from its number; kicks once for each sleep of a worker. */
static bool post(struct rig *r, uint32_t number)
{
	uint32_t n = 1 + number * 7 % FX_MAX_SQ_SLOTS;

	if (!fx_pipe_room(&r->tx, n))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		struct fx_sq_slot slot;

		memset(&slot, (int)(number + i), sizeof(slot));
		slot.nslots = (uint8_t)n;
		slot.index = number;
		fx_pipe_put(&r->tx, &slot);
	}
	if (sleeping() && sleeping() != r->kicked) {
		r->kicked = sleeping();
		fx_mirror_kick(r->x);
	}
	return true;
}

static void take(struct rig *r, uint32_t *next)
{
	struct fx_sq_slot entry[FX_MAX_SQ_SLOTS];
	int n = fx_pipe_take(&r->pipe, entry);

	assert_true(n >= 0);
	if (!n)
		return;
	assert_int_equal(n, 1 + *next * 7 % FX_MAX_SQ_SLOTS);
	for (int i = 0; i < n; i++) {
		assert_int_equal(entry[i].index, *next);
		assert_int_equal(((uint8_t *)&entry[i])[62], (uint8_t)(*next + (uint32_t)i));
	}
	++*next;
	fx_pipe_publish_ci(&r->pipe);
}

static void pipe_keeps_order_and_never_sleeps_over_an_entry(void **state)
{
	uint64_t dozed = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		uint32_t posted = 0, taken = 0, burst = 0, quiet_for;
		struct rig r;

		rig_start(&r, seed);
		for (int i = 0; i < STEPS; i++) {
			if (!burst && !dice(60))
				burst = dice(40);
			if (burst && dice(2) && post(&r, posted)) {
				posted++;
				burst--;
			}
			if (dice(3))
				take(&r, &taken);
			if (dice(4))
				turn(&r);
			if (fx_mirror_quiet(r.m)) {
				assert_true(sleeping());
				while (taken != posted) { /* all of it is here: no look is needed for it */
					uint32_t before = taken;

					take(&r, &taken);
					assert_int_not_equal(before, taken);
				}
				dozed++;
			}
		}
		for (quiet_for = 0; quiet_for < 200; quiet_for++) {
			take(&r, &taken);
			turn(&r);
		}
		assert_int_equal(taken, posted);
		assert_true(posted > 50);
		assert_true(fx_mirror_quiet(r.m));
		assert_int_equal(((struct fx_pipe_head *)(void *)(host + PIPE))->ci, r.tx.pi);
		assert_int_equal(r.broken, 0);
		rig_end(&r);
	}
	assert_true(dozed > 1000);
}

/* Posts once in `gap` turns, `n` times: how many kicks it took. */
static unsigned kicks_of(struct rig *r, uint32_t *posted, uint32_t *taken, unsigned n, unsigned gap)
{
	unsigned kicks = 0;

	while (n--) {
		uint32_t before = r->kicked;

		assert_true(post(r, (*posted)++));
		kicks += r->kicked != before;
		for (unsigned i = 0; i < gap; i++) {
			take(r, taken);
			turn(r);
		}
		assert_int_equal(*taken, *posted);
	}
	return kicks;
}

/* Who is kicked soon after it dozed off, stays awake for longer; who is left alone for long, does not. */
static void kicks_keep_it_awake(void **state)
{
	enum { MANY = 40, GAP = 150, LONG = 3000, MOST = 1000 };
	uint32_t posted = 0, taken = 0;
	struct rig r;

	(void)state;
	rig_start_dozing(&r, 1, DOZE, 0);
	assert_int_equal(kicks_of(&r, &posted, &taken, MANY, GAP), MANY - 1); /* the first finds it awake */
	rig_end(&r);
	posted = taken = 0;
	rig_start_dozing(&r, 1, DOZE, MOST);
	assert_in_range(kicks_of(&r, &posted, &taken, MANY, GAP), 2, 5);
	kicks_of(&r, &posted, &taken, 1, LONG);				 /* it sleeps after that */
	assert_in_range(kicks_of(&r, &posted, &taken, MANY, GAP), 3, 6); /* and learns anew */
	rig_end(&r);
}

/* ---- completions and events ---- */

static void complete(struct rig *r)
{
	struct fx_cqe c = {.index = r->cq.pi};

	if (r->cq.pi - r->cqx.head->ci < 1u << CQ_SHIFT) /* what a program has outstanding fits its CQ */
		assert_int_equal(fx_cq_push(&r->cq, &c), 0);
}

static void completions_arrive_in_order_and_before_their_events(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct fx_event e = {.kind = FX_EV_CQ};
		uint32_t consumed = 0;
		struct rig r;

		rig_start(&r, seed);
		for (int i = 0; i < STEPS; i++) {
			struct fx_cqe c;

			if (!dice(3))
				complete(&r);
			e.index = r.cq.pi;
			if (!dice(20) && r.events.pi - r.ev.head->ci < 1u << EVENT_SHIFT) {
				assert_true(fx_event_put(&r.events, &e, 1u << r.events.shift));
				r.events.told(&r.events, 7, &r.cq);
			}
			if (!dice(4) && fx_cq_take(&r.cqx, &c)) {
				assert_int_equal(c.index, r.cqx.ci - 1);
				if (dice(2))
					fx_cq_publish_ci(&r.cqx);
			}
			if (dice(3))
				turn(&r);
			consumed = r.cqx.ci;
		}
		fx_cq_publish_ci(&r.cqx);
		for (int i = 0; i < 200; i++)
			turn(&r);
		assert_int_equal(r.wakes, r.events.pi);
		assert_true(r.wakes > 20 && consumed > 100);
		assert_int_equal(r.overrun, 0);
		assert_true(fx_mirror_cq_idle(r.mcq));
		rig_end(&r);
	}
}

static void an_overrun_is_found_exactly(void **state)
{
	enum { SIZE = 1 << CQ_SHIFT };
	struct fx_cqe c = {0};
	struct rig r;

	(void)state;
	for (uint32_t more = 0; more < 3; more++) {
		rig_start(&r, 1 + more);
		for (c.index = 0; c.index < SIZE + more; c.index++)
			fx_cq_push(&r.cq, &c);
		for (int i = 0; i < 200; i++)
			turn(&r);
		assert_int_equal(r.overrun, more != 0);
		assert_int_equal(r.cq.overrun, more != 0);
		for (uint32_t i = 0; i < SIZE; i++) {
			assert_true(fx_cq_take(&r.cqx, &c));
			assert_int_equal(c.index, i);
		}
		assert_false(fx_cq_take(&r.cqx, &c)); /* nothing was overwritten */
		rig_end(&r);
	}
}

/* To another ring and back, again and again, in the midst of traffic: each comes once, in order. */
static void completions_follow_their_queue_to_another_ring(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct fx_cq_rx next = {.ring = NULL};
		uint32_t area = 0, moves = 0;
		struct rig r;

		rig_start(&r, seed);
		for (int i = 0; i < STEPS; i++) {
			struct fx_cqe c;

			if (!dice(2) && r.cq.pi - r.cqx.head->ci < 1u << (next.ring ? 2 : r.cqx.shift)) {
				c.index = r.cq.pi;
				assert_int_equal(fx_cq_push(&r.cq, &c), 0);
			}
			if (!dice(3) && fx_cq_take(&r.cqx, &c)) {
				assert_int_equal(c.index, r.cqx.ci - 1);
				fx_cq_publish_ci(&r.cqx);
			}
			if (next.ring && r.cqx.ci == next.origin) {
				next.ci = r.cqx.ci;
				r.cqx = next;
				next.ring = NULL;
			}
			if (!next.ring && !dice(20)) {
				uint32_t shift = 2 + (uint32_t)dice(3), at = CQ + 2048 * (area ^ 1), end = 0;
				struct fx_cq to = {.shift = 0};
				struct fx_mirror_cq *copy;
				int err;

				memset(host + at, 0, 2048);
				((struct fx_cq_head *)(void *)(host + at))->ci = r.cqx.ci;
				copy = fx_mirror_cq_new(r.x, IOVA + at, shift, &to);
				assert_non_null(copy);
				err = fx_mirror_cq_move(r.mcq, copy, r.cqx.ci, &end);
				fx_mirror_cq_free(copy);
				assert_int_equal(err, r.cq.pi - r.cqx.ci > 1u << shift ? -EINVAL : 0);
				if (!err) {
					moves++;
					area ^= 1;
					next = (struct fx_cq_rx){.head = (void *)(host + at),
								 .ring = (void *)(host + at + FX_LINE),
								 .shift = shift,
								 .origin = end};
					r.cqx.head = next.head;
				}
			}
			if (dice(3))
				turn(&r);
		}
		assert_true(moves > 5 && r.cq.pi > 100);
		assert_int_equal(r.overrun, 0);
		assert_int_equal(r.broken, 0);
		rig_end(&r);
	}
}

static void what_a_lossy_queue_has_no_room_for_is_lost(void **state)
{
	enum { SIZE = 1 << CQ_SHIFT };
	struct fx_event e = {.kind = FX_EV_CQ};
	struct fx_cqe c = {0};
	struct rig r;

	(void)state;
	for (uint32_t seed = 0; seed < 20; seed++) {
		rig_start(&r, 1 + seed);
		r.cq.lossy = r.deaf = true;
		for (c.index = 0; c.index < SIZE + 1 + seed % 3; c.index++) {
			fx_cq_push(&r.cq, &c);
			if (seed % 2)
				turn(&r);
		}
		e.index = r.cq.pi; /* and an event that waits for what is lost */
		assert_true(fx_event_put(&r.events, &e, 1u << r.events.shift));
		r.events.told(&r.events, 7, &r.cq);
		for (int i = 0; i < 200; i++)
			turn(&r);
		assert_int_equal(r.overrun, 0);
		assert_int_equal(r.wakes, 1);
		assert_true(fx_mirror_cq_idle(r.mcq));
		for (uint32_t i = 0; i < SIZE; i++) {
			assert_true(fx_cq_take(&r.cqx, &c));
			assert_int_equal(c.index, i);
		}
		assert_false(fx_cq_take(&r.cqx, &c));
		fx_cq_publish_ci(&r.cqx);
		c.index = 1000;
		assert_int_equal(fx_cq_push(&r.cq, &c), 0);
		for (int i = 0; i < 200; i++)
			turn(&r);
		assert_true(fx_cq_take(&r.cqx, &c));
		assert_int_equal(c.index, 1000);
		assert_false(fx_cq_take(&r.cqx, &c));
		rig_end(&r);
	}
}

static void events_that_find_no_room_are_lost_and_the_rest_arrive(void **state)
{
	struct fx_event e = {.kind = FX_EV_CQ};
	struct rig r;

	(void)state;
	rig_start(&r, 3);
	r.deaf = true; /* nobody takes a record: eight fit, eight more wait in the copy */
	for (int i = 0; i < 12; i++) {
		assert_true(fx_event_put(&r.events, &e, 1u << r.events.shift));
		r.events.told(&r.events, 7, NULL);
	}
	for (int i = 0; i < 300; i++)
		turn(&r);
	assert_int_equal(r.wakes, 8);
	assert_true(fx_mirror_quiet(r.m));
	while (fx_event_take(&r.ev, &e))
		r.wakes--;
	assert_int_equal(r.wakes, 0);
	fx_event_publish_ci(&r.ev);
	r.deaf = false;
	assert_true(fx_event_put(&r.events, &e, 1u << r.events.shift));
	r.events.told(&r.events, 7, NULL);
	for (int i = 0; i < 300; i++)
		turn(&r);
	assert_int_equal(r.wakes, 1);
	rig_end(&r);
}

/* ---- receive queue ---- */

static void a_look_finds_what_was_posted_before_it(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct fx_sge sge = {0}, got[1];
		uint32_t posted = 0, taken = 0, asked_posted = 0, looks = 0;
		bool asked = false;
		struct rig r;

		rig_start(&r, seed);
		for (int i = 0; i < STEPS; i++) {
			if (!dice(3) && posted - taken < 1u << RQ_SHIFT) {
				sge.addr = posted++;
				fx_rq_put(&r.rqx, &sge, 1);
			}
			if (!dice(3) && !asked) {
				int n = fx_rq_take(&r.rq, got, 1);

				if (n == -EAGAIN) {
					asked = true;
					asked_posted = posted;
					looks = r.looked;
					fx_mirror_look(r.m, r.mrq);
				} else {
					assert_int_equal(n, 1);
					assert_int_equal(got[0].addr, taken++);
				}
			}
			if (dice(3))
				turn(&r);
			if (asked && r.looked != looks) {
				asked = false;
				if (taken < asked_posted) {
					assert_int_equal(fx_rq_take(&r.rq, got, 1), 1);
					assert_int_equal(got[0].addr, taken++);
				}
			}
		}
		assert_true(taken > 200);
		while (asked && r.looked == looks)
			turn(&r);
		rig_end(&r);
	}
}

/* Entries that a reset skips never come up again, a lap later either. */
static void a_reset_skips_what_was_never_read(void **state)
{
	struct fx_sge sge = {0}, got[1];
	struct rig r;

	(void)state;
	for (uint32_t before = 0; before <= 1 << RQ_SHIFT; before++) {
		rig_start(&r, before + 1);
		for (uint32_t lap = 0; lap < 4; lap++) {
			for (uint32_t i = 0; i < before; i++) {
				sge.addr = 1000;
				fx_rq_put(&r.rqx, &sge, 1);
			}
			r.rq.pos += r.rqx.index - r.rq.index;
			r.rq.index = r.rqx.index;
			fx_mirror_rq_moved(r.mrq);
			assert_int_equal(fx_rq_take(&r.rq, got, 1), -EAGAIN);
			/* as many as fit: what was skipped is overwritten before it was ever seen */
			for (sge.addr = 0; sge.addr < 1 << RQ_SHIFT; sge.addr++)
				fx_rq_put(&r.rqx, &sge, 1);
			for (uint32_t i = 0; i < 1 << RQ_SHIFT; i++) {
				if (fx_rq_take(&r.rq, got, 1) == -EAGAIN) {
					fx_mirror_look(r.m, r.mrq);
					for (int k = 0; k < 40; k++)
						turn(&r);
					assert_int_equal(fx_rq_take(&r.rq, got, 1), 1);
				}
				assert_int_equal(got[0].addr, i);
			}
		}
		rig_end(&r);
	}
}

/* ---- hosts that are gone, or lie ---- */

static void memory_that_is_gone_breaks_the_context_once(void **state)
{
	struct fx_cqe c = {0};
	struct rig r;

	(void)state;
	rig_start(&r, 5);
	fx_mirror_look(r.m, r.mrq);
	fx_cq_push(&r.cq, &c);
	r.mem.base = NULL; /* and the engine fails what has no window */
	r.mem.nrun = 0;
	for (int i = 0; i < 100; i++) {
		fx_mirror_look(r.m, r.mrq);
		turn(&r);
	}
	assert_int_equal(r.broken, 1);
	assert_true(r.looked > 0); /* whoever waits for a look is not left waiting */
	/* a queue that went away while something of it could not leave is in no list */
	fx_cq_push(&r.cq, &c);
	assert_false(fx_mirror_cq_idle(r.mcq));
	turn(&r);
	assert_true(fx_mirror_cq_idle(r.mcq));
	assert_null(r.cq.out->head);
	rig_end(&r);
}

static void an_index_that_cannot_be_breaks_the_context(void **state)
{
	struct fx_cqe c = {0};
	struct rig r;

	(void)state;
	rig_start(&r, 6);
	r.cqx.head->ci = 1000;
	for (int i = 0; i < 12; i++)
		fx_cq_push(&r.cq, &c);
	for (int i = 0; i < 100; i++)
		turn(&r);
	assert_int_equal(r.broken, 1);
	rig_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pipe_keeps_order_and_never_sleeps_over_an_entry),
		cmocka_unit_test(kicks_keep_it_awake),
		cmocka_unit_test(completions_arrive_in_order_and_before_their_events),
		cmocka_unit_test(an_overrun_is_found_exactly),
		cmocka_unit_test(completions_follow_their_queue_to_another_ring),
		cmocka_unit_test(what_a_lossy_queue_has_no_room_for_is_lost),
		cmocka_unit_test(events_that_find_no_room_are_lost_and_the_rest_arrive),
		cmocka_unit_test(a_look_finds_what_was_posted_before_it),
		cmocka_unit_test(a_reset_skips_what_was_never_read),
		cmocka_unit_test(memory_that_is_gone_breaks_the_context_once),
		cmocka_unit_test(an_index_that_cannot_be_breaks_the_context),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
