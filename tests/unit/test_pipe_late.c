/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The send pipe with stores that become visible late and in any order: a random walk of what the model of it allows
 * (tests/model/pipe.pml), on the functions themselves, so that model and code say the same.
 *
 * May use: pipe/ring.h, cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pipe_rings.h"

enum { LATE_STEPS = 1000000, LATE_SLOTS = 3 };

struct late {
	struct pipe p;		       /* as the core sees it */
	struct ring host;	       /* as the host has written it */
	uint32_t seen[1 << MAX_SHIFT]; /* by slot: 1 + the index that became visible there last */
	struct fx_pipe_head head;      /* as the host sees it */
	uint64_t sent, got;
};

static uint32_t late_slots(uint64_t m, unsigned shift)
{
	uint32_t max = 1u << shift < LATE_SLOTS ? 1u << shift : LATE_SLOTS;

	return 1 + (uint32_t)mix(m) % max;
}

/* One of the slots that are written and not visible becomes so. */
static void late_arrive(struct late *l, uint64_t r, uint32_t from)
{
	uint32_t mask = (1u << l->p.shift) - 1, pending = l->p.tx.pi - from,
		 i = from + (uint32_t)r % (pending + !pending);

	if (!pending || l->seen[i & mask] == i + 1)
		return;
	fx_slot_publish(l->p.mem.bytes + (size_t)(i & mask) * FX_SLOT_SIZE,
			l->host.bytes + (size_t)(i & mask) * FX_SLOT_SIZE, fx_phase(i, l->p.shift));
	l->seen[i & mask] = i + 1;
}

static bool late_all_there(const struct late *l, uint32_t from, uint32_t n)
{
	for (uint32_t i = from; i != from + n; i++)
		if (l->seen[i & ((1u << l->p.shift) - 1)] != i + 1)
			return false;
	return true;
}

static void late_take(struct late *l)
{
	struct fx_sq_slot out[FX_MAX_SQ_SLOTS];
	uint32_t n = late_slots(l->got, l->p.shift), from = l->p.rx.ci;
	bool whole = l->got < l->sent && late_all_there(l, from, n);

	assert_int_equal(fx_pipe_take(&l->p.rx, out), whole ? n : 0);
	if (whole)
		assert_int_equal(entry_differs(out, l->got++, n), 0);
}

static void test_pipe_late_stores(void **state)
{
	static struct late l;

	(void)state;
	for (unsigned shift = 1; shift <= 3; shift++) {
		uint32_t start = UINT32_MAX - LATE_STEPS / 16;

		memset(&l, 0, sizeof(l));
		pipe_init(&l.p, shift, start);
		l.p.tx.slots = l.host.bytes;
		l.p.tx.head = &l.head;
		l.head.ci = start;
		for (uint64_t step = 0; step < LATE_STEPS / 3; step++) {
			uint64_t r = mix(step * 3 + shift);
			uint32_t n = late_slots(l.sent, shift);

			if (r % 8 < 2 && fx_pipe_room(&l.p.tx, n))
				pipe_send(&l.p, l.sent++, n);
			else if (r % 8 < 5)
				late_arrive(&l, r >> 8, l.p.rx.ci);
			else if (r % 8 == 5)
				late_take(&l);
			else if (r % 8 == 6)
				fx_pipe_publish_ci(&l.p.rx);
			else
				l.head.ci = l.p.mem.head.ci;
		}
		assert_true(l.got > LATE_STEPS / 100);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pipe_late_stores),
	};

	return cmocka_run_group_tests_name("pipe_late", tests, NULL, NULL);
}
