/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The timing wheel behind wheel.h: four levels of 256 slots.
 *
 * Room: transport. May use: C11 only; no clock, no allocation.
 *
 * A timer is due at a tick, its time rounded up. It sits on the level of the highest byte in which that
 * tick differs from the wheel's, in the slot that this byte names; so everything on a level comes before
 * everything on the next one, and a slot is passed once. Passing a slot puts its timers where they now
 * belong: on a lower level, or, when due, in the slot of the present tick, which holds nothing else. Ticks
 * further away than the levels reach wait in the last slot of the top level and are looked at again when it
 * comes up.
 */
#include "transport/wheel.h"

#include <stddef.h>

enum { SLOTS = 1 << FX_WHEEL_BITS, TOP = FX_WHEEL_LEVELS - 1 };

#define LAST_TICK (UINT64_MAX >> FX_WHEEL_TICK_SHIFT)

static unsigned shift_of(unsigned level)
{
	return level * FX_WHEEL_BITS;
}

static void link_timer(struct fx_timer **head, struct fx_timer *t)
{
	t->next = *head;
	t->prev = head;
	if (t->next)
		t->next->prev = &t->next;
	*head = t;
}

static void unlink_timer(struct fx_timer *t)
{
	*t->prev = t->next;
	if (t->next)
		t->next->prev = t->prev;
	t->next = NULL;
	t->prev = NULL;
}

/* Where a timer for `tick` belongs; what is due goes to the slot of the present tick. */
static struct fx_timer **slot_of(struct fx_wheel *w, uint64_t tick)
{
	uint64_t here = w->tick >> shift_of(TOP), there = tick >> shift_of(TOP);
	unsigned level = 0;

	if (tick <= w->tick)
		return &w->slot[0][w->tick % SLOTS];
	while (level < TOP && tick >> shift_of(level + 1) != w->tick >> shift_of(level + 1))
		level++;
	if (level == TOP)
		return &w->slot[TOP][(there - here < SLOTS ? there : here + SLOTS - 1) % SLOTS];
	return &w->slot[level][(tick >> shift_of(level)) % SLOTS];
}

void fx_wheel_init(struct fx_wheel *w, uint64_t now)
{
	*w = (struct fx_wheel){.tick = now >> FX_WHEEL_TICK_SHIFT};
}

void fx_wheel_arm(struct fx_wheel *w, struct fx_timer *t, uint64_t when)
{
	uint64_t tick = when >> FX_WHEEL_TICK_SHIFT;

	if (when & ((1u << FX_WHEEL_TICK_SHIFT) - 1))
		tick++;
	/*
	 * The present tick was turned already: the next one, so that a timer armed for now cannot fire twice
	 * in it.
	 */
	if (tick <= w->tick)
		tick = w->tick + 1;
	if (tick > LAST_TICK)
		tick = LAST_TICK;
	if (t->prev) {
		if (t->slot_time >> FX_WHEEL_TICK_SHIFT <= tick)
			return;
		unlink_timer(t);
		w->armed--;
	}
	t->slot_time = tick << FX_WHEEL_TICK_SHIFT;
	link_timer(slot_of(w, tick), t);
	w->armed++;
}

void fx_wheel_disarm(struct fx_wheel *w, struct fx_timer *t)
{
	if (!t->prev)
		return;
	unlink_timer(t);
	w->armed--;
}

/* Empties the slots of `level` that lie before tick `to`, or at it, onto `list`. */
static void collect(struct fx_wheel *w, unsigned level, uint64_t to, struct fx_timer **list)
{
	uint64_t i = w->tick >> shift_of(level), end = to >> shift_of(level);

	if (end - i >= SLOTS)
		end = i + SLOTS - 1;
	/*
	 * The slot of the present tick holds what is due; those of higher levels were emptied when they came
	 * up.
	 */
	for (i += level > 0; i <= end; i++) {
		struct fx_timer **slot = &w->slot[level][i % SLOTS];

		while (*slot) {
			struct fx_timer *t = *slot;

			unlink_timer(t);
			link_timer(list, t);
		}
	}
}

static void turn(struct fx_wheel *w, uint64_t to)
{
	struct fx_timer *list = NULL;

	for (unsigned level = 0; level < FX_WHEEL_LEVELS; level++) {
		collect(w, level, to, &list);
		if (w->tick >> shift_of(level + 1) == to >> shift_of(level + 1))
			break;
	}
	w->tick = to;
	while (list) {
		struct fx_timer *t = list;

		unlink_timer(t);
		link_timer(slot_of(w, t->slot_time >> FX_WHEEL_TICK_SHIFT), t);
	}
}

struct fx_timer *fx_wheel_expire(struct fx_wheel *w, uint64_t now)
{
	uint64_t tick = now >> FX_WHEEL_TICK_SHIFT;
	struct fx_timer *t;

	if (tick > w->tick) {
		if (w->armed)
			turn(w, tick);
		else
			w->tick = tick;
	}
	if (!w->armed)
		return NULL;
	t = w->slot[0][w->tick % SLOTS];
	if (!t)
		return NULL;
	unlink_timer(t);
	w->armed--;
	return t;
}

uint64_t fx_wheel_next(const struct fx_wheel *w)
{
	if (!w->armed)
		return UINT64_MAX;
	for (unsigned level = 0; level < FX_WHEEL_LEVELS; level++) {
		uint64_t base = w->tick >> shift_of(level);

		for (uint64_t i = base; i < base + SLOTS; i++)
			if (w->slot[level][i % SLOTS])
				return i << shift_of(level) << FX_WHEEL_TICK_SHIFT;
	}
	return UINT64_MAX;
}
