/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rings of the pipe: wrap, back-pressure, entries whose slots arrive in any order, hostile lengths,
 * overrun.
 *
 * May use: pipe/ring.h, cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pipe_rings.h"

/* Where a ring's counters begin: the first lap, the middle of one, and just before they wrap. */
static const uint32_t starts[] = {0, 1, 37, UINT32_MAX - 200, UINT32_MAX - 3, UINT32_MAX};
enum { STARTS = sizeof(starts) / sizeof(starts[0]) };

/* ---- send pipe ---- */

static void test_pipe_wrap(void **state)
{
	static struct pipe p;
	struct fx_sq_slot out[FX_MAX_SQ_SLOTS];

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (unsigned s = 0; s < STARTS; s++) {
			uint64_t sent = 0, seen = 0;

			pipe_init(&p, shift, starts[s]);
			assert_int_equal(fx_pipe_take(&p.rx, out), 0);
			while (seen < 2000) {
				while (sent - seen <= mix(sent + 7) % 40 &&
				       fx_pipe_room(&p.tx, entry_slots(sent, shift))) {
					pipe_send(&p, sent, entry_slots(sent, shift));
					sent++;
				}
				while (seen < sent) {
					pipe_recv(&p, seen, entry_slots(seen, shift));
					seen++;
				}
				assert_int_equal(fx_pipe_take(&p.rx, out), 0);
				fx_pipe_publish_ci(&p.rx);
			}
		}
	}
}

/* A full pipe has no room until the consumer says so, and loses nothing meanwhile. */
static void test_pipe_back_pressure(void **state)
{
	static struct pipe p;

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (unsigned s = 0; s < STARTS; s++) {
			uint32_t size = 1u << shift;

			pipe_init(&p, shift, starts[s]);
			assert_true(fx_pipe_room(&p.tx, size));
			assert_false(fx_pipe_room(&p.tx, size + 1));
			for (uint32_t i = 0; i < size; i++) {
				assert_true(fx_pipe_room(&p.tx, size - i));
				pipe_send(&p, i, 1);
			}
			assert_false(fx_pipe_room(&p.tx, 1));
			pipe_recv(&p, 0, 1);
			assert_false(fx_pipe_room(&p.tx, 1)); /* taken, not yet published */
			fx_pipe_publish_ci(&p.rx);
			assert_true(fx_pipe_room(&p.tx, 1));
			assert_false(fx_pipe_room(&p.tx, 2));
			pipe_send(&p, size, 1);
			for (uint32_t i = 1; i <= size; i++)
				pipe_recv(&p, i, 1);
			assert_false(fx_pipe_ready(&p.rx));
		}
	}
}

/* Two entries whose slots land in a random order: none is seen before its last slot, none out of turn. */
static void permuted_pair(struct pipe *p, uint64_t m, uint32_t n0, uint32_t n1)
{
	struct fx_sq_slot e[2 * FX_MAX_SQ_SLOTS], out[FX_MAX_SQ_SLOTS];
	uint32_t order[2 * FX_MAX_SQ_SLOTS], n = n0 + n1, here = 0, base = p->tx.pi;
	int seen = 0;

	entry_make(e, m, n0);
	entry_make(e + n0, m + 1, n1);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t k = (uint32_t)mix(m * 50 + i) % (i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = base + order[i], want;

		fx_slot_publish(p->mem.bytes + (size_t)(at & ((1u << p->shift) - 1)) * FX_SLOT_SIZE,
				e + order[i], fx_phase(at, p->shift));
		here |= 1u << order[i];
		want = (1u << n0) - 1;
		if (seen == 0 && (here & want) == want) {
			pipe_recv(p, m, n0);
			seen = 1;
		}
		want = ((1u << n1) - 1) << n0;
		if (seen == 1 && (here & want) == want) {
			pipe_recv(p, m + 1, n1);
			seen = 2;
		}
		assert_int_equal(fx_pipe_take(&p->rx, out), 0);
	}
	assert_int_equal(seen, 2);
	p->tx.pi += n;
	fx_pipe_publish_ci(&p->rx);
}

static void test_pipe_permuted_slots(void **state)
{
	static struct pipe p;

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		uint32_t max = 1u << (shift - 1) < FX_MAX_SQ_SLOTS ? 1u << (shift - 1) : FX_MAX_SQ_SLOTS;

		for (unsigned s = 0; s < STARTS; s++) {
			pipe_init(&p, shift, starts[s]);
			for (uint64_t m = 0; m < 600; m += 2)
				permuted_pair(&p, m, 1 + (uint32_t)mix(m) % max, 1 + (uint32_t)mix(~m) % max);
		}
	}
}

static void test_pipe_impossible_length(void **state)
{
	static struct pipe p;
	static const uint8_t bad[] = {0, FX_MAX_SQ_SLOTS + 1, 64, 127, 128, 255};

	(void)state;
	for (unsigned k = 0; k < sizeof(bad); k++) {
		struct fx_sq_slot e = {.nslots = bad[k]}, out[FX_MAX_SQ_SLOTS];

		pipe_init(&p, 5, starts[k % STARTS]);
		fx_pipe_put(&p.tx, &e);
		assert_int_equal(fx_pipe_take(&p.rx, out), -EPROTO);
		assert_int_equal(fx_pipe_take(&p.rx, out), -EPROTO); /* and stays so */
	}
}

/* ---- receive queue ---- */

static void test_rq_wrap(void **state)
{
	static struct rq q;
	struct fx_sge sge[FX_MAX_SGE + FX_RQ_SGES];

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (uint32_t stride = 1; stride <= 6 && stride <= 1u << shift; stride++) {
			for (unsigned s = 0; s < STARTS; s++) {
				uint32_t cap = (1u << shift) / stride;
				uint64_t put = 0, got = 0;

				rq_init(&q, shift, stride, starts[s]);
				while (got < 500) {
					while (put - got < cap && (put == got || mix(put * 3 + got) % 8)) {
						uint32_t n = rq_make(sge, put++, stride);

						fx_rq_put(&q.host, sge, n);
					}
					while (got < put) {
						assert_true(fx_rq_holds(&q.core, 0));
						assert_int_equal(q.core.index, starts[s] + (uint32_t)got);
						int n = fx_rq_take(&q.core, sge, FX_MAX_SGE);
						assert_int_equal(rq_differs(sge, n, got++, stride), 0);
					}
					assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EAGAIN);
				}
			}
		}
	}
}

/* The slots of a receive entry arrive in any order too. */
static void test_rq_permuted_slots(void **state)
{
	static struct rq q, shadow;
	struct fx_sge sge[FX_MAX_SGE + FX_RQ_SGES];

	(void)state;
	for (uint32_t stride = 2; stride <= 6; stride++) {
		for (unsigned s = 0; s < STARTS; s++) {
			rq_init(&q, 4, stride, starts[s]);
			rq_init(&shadow, 4, stride, starts[s]);
			for (uint64_t m = 0; m < 100; m++) {
				uint32_t pos = shadow.host.pos, first = (uint32_t)mix(m) % stride;

				fx_rq_put(&shadow.host, sge, rq_make(sge, m, stride));
				for (uint32_t k = 0; k < stride; k++) {
					uint32_t i = pos + (first + k * (stride == 4 ? 3 : 1)) % stride;

					assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EAGAIN);
					fx_slot_publish(fx_rq_slot_at(&q.host, i),
							fx_rq_slot_at(&shadow.host, i), fx_phase(i, 4));
				}
				assert_int_equal(
					rq_differs(sge, fx_rq_take(&q.core, sge, FX_MAX_SGE), m, stride), 0);
			}
		}
	}
}

static void rq_spoil(struct rq *q, uint32_t s, uint32_t index, uint8_t nsge)
{
	struct fx_rq_slot slot = {.index = index, .nsge = nsge};

	fx_slot_publish(fx_rq_slot_at(&q->host, q->host.pos + s), &slot,
			fx_phase(q->host.pos + s, q->host.shift));
}

static void test_rq_contradictions(void **state)
{
	static struct rq q;
	struct fx_sge sge[FX_MAX_SGE + FX_RQ_SGES];

	(void)state;
	rq_init(&q, 3, 2, 5);
	rq_spoil(&q, 0, 6, 1); /* another entry's index */
	assert_int_equal(fx_rq_take(&q.core, sge, 6), -EPROTO);
	rq_init(&q, 3, 2, 5);
	rq_spoil(&q, 0, 5, 7); /* more than its slots hold */
	assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EPROTO);
	rq_init(&q, 3, 2, 5);
	rq_spoil(&q, 0, 5, 5); /* more than the caller holds */
	assert_int_equal(fx_rq_take(&q.core, sge, 4), -EPROTO);
	rq_init(&q, 3, 2, 5);
	rq_spoil(&q, 0, 5, 4); /* its slots disagree */
	rq_spoil(&q, 1, 5, 6);
	assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EPROTO);
	rq_init(&q, 3, 6, 5);
	rq_spoil(&q, 0, 5, 255);
	assert_int_equal(fx_rq_take(&q.core, sge, FX_MAX_SGE), -EPROTO);
}

/* ---- completion queue ---- */

static void test_cq_wrap(void **state)
{
	static struct cq q;
	struct fx_cqe c;

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (unsigned s = 0; s < STARTS; s++) {
			uint64_t put = 0, got = 0;

			cq_init(&q, shift, starts[s]);
			while (got < 1000) {
				while (put - got < 1u << shift && (put == got || mix(put * 5 + got) % 8))
					assert_int_equal(cq_give(&q, put++), 0);
				while (got < put)
					cq_get(&q, got++);
				assert_false(fx_cq_take(&q.host, &c));
				fx_cq_publish_ci(&q.host);
			}
			assert_false(q.core.overrun);
		}
	}
}

/* A CQE without room is lost, everything before it stays, and the CQ is in error for good (guarantee P10). */
static void test_cq_overrun(void **state)
{
	static struct cq q;
	struct fx_cqe c;

	(void)state;
	for (unsigned shift = 1; shift <= MAX_SHIFT; shift++) {
		for (unsigned s = 0; s < STARTS; s++) {
			uint32_t size = 1u << shift;

			cq_init(&q, shift, starts[s]);
			for (uint32_t i = 0; i < size; i++)
				assert_int_equal(cq_give(&q, i), 0);
			assert_false(q.core.overrun);
			for (uint32_t i = 0; i < 2 * size; i++)
				assert_int_equal(cq_give(&q, 1000 + i), -ENOSPC);
			assert_true(q.core.overrun);
			cq_get(&q, 0);
			cq_get(&q, 1);
			fx_cq_publish_ci(&q.host);
			for (uint32_t i = 0; i < 3; i++)
				assert_int_equal(cq_give(&q, 2000 + i), -ENOSPC);
			for (uint32_t i = 2; i < size; i++)
				cq_get(&q, i);
			assert_false(fx_cq_take(&q.host, &c));
		}
	}
}

/* One that may lose loses just what finds no room. */
static void test_cq_lossy(void **state)
{
	static struct cq q;
	struct fx_cqe c;

	(void)state;
	for (unsigned s = 0; s < STARTS; s++) {
		cq_init(&q, 2, starts[s]);
		q.core.lossy = true;
		for (uint32_t i = 0; i < 7; i++)
			assert_int_equal(cq_give(&q, i), i < 4 ? 0 : -ENOSPC);
		cq_get(&q, 0);
		fx_cq_publish_ci(&q.host);
		assert_int_equal(cq_give(&q, 7), 0);
		assert_int_equal(cq_give(&q, 8), -ENOSPC);
		for (uint32_t i = 1; i < 4; i++)
			cq_get(&q, i);
		cq_get(&q, 7);
		assert_false(fx_cq_take(&q.host, &c));
		assert_false(q.core.overrun);
	}
}

/* From any index, in the midst of a lap, to a larger ring or a smaller one; and never to one that is too small. */
static void test_cq_move(void **state)
{
	static struct cq q, next;

	(void)state;
	for (unsigned s = 0; s < STARTS; s++)
		for (unsigned shift = 1; shift <= 4; shift++)
			for (uint32_t left = 0; left <= 8; left++) {
				uint64_t m = 0, got = 0;
				uint32_t end = 0;

				cq_init(&q, 3, starts[s]);
				cq_init(&next, shift, 0);
				for (unsigned i = 0; i < 5 + s; i++) {
					assert_int_equal(cq_give(&q, m++), 0);
					cq_get(&q, got++);
					fx_cq_publish_ci(&q.host);
				}
				while (m - got < left)
					assert_int_equal(cq_give(&q, m++), 0);
				next.mem.cq_head.ci = q.host.ci;
				assert_int_equal(fx_cq_move(&q.core, &next.core, q.host.ci - 9, &end),
						 -EINVAL);
				assert_int_equal(fx_cq_move(&q.core, &next.core, q.core.pi + 1, &end),
						 -EINVAL);
				assert_int_equal(fx_cq_move(&q.core, &next.core, q.host.ci, &end),
						 left > 1u << shift ? -EINVAL : 0);
				if (left > 1u << shift)
					continue;
				assert_int_equal(end, q.core.pi);
				while (m - got < 1u << shift)
					assert_int_equal(cq_give(&q, m++), 0);
				for (uint32_t i = 0; i < left; i++)
					cq_get(&q, got++);
				assert_false(fx_cq_take(&q.host, &(struct fx_cqe){0}));
				assert_int_equal(q.host.ci, end);
				next.host.origin = next.host.ci = end;
				q.host = next.host;
				for (unsigned i = 0; i < 100; i++) {
					while (got < m)
						cq_get(&q, got++);
					fx_cq_publish_ci(&q.host);
					assert_false(fx_cq_take(&q.host, &(struct fx_cqe){0}));
					assert_int_equal(cq_give(&q, m++), 0);
				}
			}
}

static void test_cq_stamp(void **state)
{
	struct fx_cqe c;

	(void)state;
	memset(&c, 0x5a, sizeof(c));
	fx_cqe_put_stamp(&c, 0xff11223344556677);
	assert_int_equal(fx_cqe_stamp(&c), 0x11223344556677);
	assert_int_equal(c.stamp[0], 0x77);
	assert_int_equal(c.phase, 0x5a);
	assert_int_equal(c.syndrome, 0x5a);
	fx_cqe_put_stamp(&c, FX_STAMP_MASK);
	assert_int_equal(fx_cqe_stamp(&c), FX_STAMP_MASK);
}

/* ---- arms ---- */

enum { ARM_STEPS = 20000, ARM_SHIFT = 4, PAST = 64 };

/* Arms on their way through a pipe that delays them, CQEs at any moment, and what has to come of it. */
struct arms {
	struct cq q;
	bool loud[PAST];	      /* of the CQEs written last */
	uint32_t arm[PAST], ci[PAST]; /* under way, or arrived for this sequence */
	unsigned head, arrived, tail; /* of those: under way from `arrived` on */
	uint32_t seq, known;
	bool fired;
};

static bool must_fire(const struct arms *a)
{
	for (unsigned i = a->head; i != a->arrived; i++)
		for (uint32_t k = a->ci[i % PAST]; k != a->q.core.pi; k++)
			if ((a->arm[i % PAST] & 3) == FX_ARM_ANY || a->loud[k % PAST])
				return true;
	return false;
}

static void arms_write(struct arms *a, uint64_t r)
{
	struct fx_cqe c = {.flags = r % 3 ? 0 : FX_WCF_SOLICITED,
			   .status = r % 7 ? FX_WC_SUCCESS : FX_WC_WR_FLUSH_ERR};

	a->q.mem.cq_head.ci = a->q.core.pi; /* whether there is room is another test's */
	a->loud[a->q.core.pi % PAST] = c.flags || c.status;
	assert_int_equal(fx_cq_push(&a->q.core, &c), 0);
	if (fx_cq_wakes(&a->q.core, &c)) {
		assert_false(a->fired);
		fx_cq_fire(&a->q.core);
		a->fired = true;
	}
}

static void arms_send(struct arms *a, uint64_t r)
{
	uint32_t fresh = a->q.core.pi - a->known;

	if (a->tail - a->head == PAST)
		return;
	a->known += fresh ? (uint32_t)(r >> 8) % (fresh + 1) : 0;
	a->arm[a->tail % PAST] = a->seq << 2 | (r % 2 ? FX_ARM_ANY : FX_ARM_SOLICITED);
	a->ci[a->tail++ % PAST] = a->known;
}

static void arms_arrive(struct arms *a)
{
	uint32_t i = a->arrived % PAST;
	int now;

	if (a->arrived == a->tail)
		return;
	a->arrived++;
	now = fx_cq_arm(&a->q.core, a->arm[i], a->ci[i]);
	assert_true(now >= 0);
	if (now) {
		assert_false(a->fired); /* one event a sequence */
		fx_cq_fire(&a->q.core);
		a->fired = true;
	}
}

/* The application takes the event: what was armed for it has had its effect, wherever it is. */
static void arms_take(struct arms *a)
{
	while (a->arrived != a->tail)
		arms_arrive(a);
	a->head = a->tail;
	a->seq++;
	a->fired = false;
	a->known = a->q.core.pi;
}

/* An arm of a sequence that is over, by a thread that was slow: it changes nothing. */
static void arms_arrive_late(struct arms *a, uint64_t r)
{
	uint32_t seq = a->seq - 1 - (uint32_t)r % (a->seq < 5 ? a->seq : 5), waits = a->q.core.arm;

	if (a->head != a->arrived && seq) {
		assert_int_equal(fx_cq_arm(&a->q.core, seq << 2 | (1 + (uint32_t)(r >> 8) % 2), a->known), 0);
		assert_int_equal(a->q.core.arm, waits);
	}
}

static void test_arms(void **state)
{
	static struct arms a;

	(void)state;
	for (unsigned s = 0; s < STARTS; s++) {
		memset(&a, 0, sizeof(a));
		cq_init(&a.q, ARM_SHIFT, starts[s]);
		a.known = starts[s];
		a.seq = 1;
		for (uint64_t step = 0; step < ARM_STEPS; step++) {
			uint64_t r = mix(step * STARTS + s);

			if (r % 4 == 0 && a.q.core.pi - a.known < PAST / 2)
				arms_write(&a, r >> 8);
			else if (r % 4 == 1)
				arms_send(&a, r >> 8);
			else if (r % 4 == 2)
				arms_arrive(&a);
			else if (a.fired || a.q.core.pi - a.known >= PAST / 2)
				arms_take(&a);
			else
				arms_arrive_late(&a, r >> 8);
			assert_int_equal(a.fired, must_fire(&a));
		}
		assert_int_equal(fx_cq_arm(&a.q.core, 3, 0), -EPROTO);
		assert_int_equal(fx_cq_arm(&a.q.core, a.seq << 2, 0), -EPROTO);
	}
}

/* ---- events ---- */

/* Records in order over many laps; without room they are refused, and nothing is written over. */
static void test_events(void **state)
{
	enum { SHIFT = 3, SIZE = 1 << SHIFT, LAPS = 40 };
	static struct fx_event ring[SIZE];
	struct fx_event_head head = {0};
	struct fx_event_tx tx = {.head = &head, .ring = ring, .shift = SHIFT};
	struct fx_event_rx rx = {.head = &head, .ring = ring, .shift = SHIFT};
	struct fx_event e;
	uint64_t put = 0, got = 0;

	(void)state;
	while (got < LAPS * SIZE) {
		uint64_t n = mix(got) % (SIZE + 3);

		for (uint64_t i = 0; i < n; i++) {
			bool room = put - got < SIZE;

			assert_int_equal(fx_event_put(&tx, &(struct fx_event){.cookie = put}, SIZE), room);
			put += room;
		}
		assert_int_equal(fx_event_put(&tx, &(struct fx_event){.cookie = put}, SIZE / 2),
				 put - got < SIZE / 2);
		put += put - got < SIZE / 2;
		for (n = mix(put) % (SIZE + 1); n && got < put; n--, got++) {
			assert_true(fx_event_take(&rx, &e));
			assert_int_equal(e.cookie, got);
		}
		assert_int_equal(fx_event_take(&rx, &e), got < put);
		if (got < put)
			got++;
		fx_event_publish_ci(&rx);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pipe_wrap),
		cmocka_unit_test(test_pipe_back_pressure),
		cmocka_unit_test(test_pipe_permuted_slots),
		cmocka_unit_test(test_pipe_impossible_length),
		cmocka_unit_test(test_rq_wrap),
		cmocka_unit_test(test_rq_permuted_slots),
		cmocka_unit_test(test_rq_contradictions),
		cmocka_unit_test(test_cq_wrap),
		cmocka_unit_test(test_cq_overrun),
		cmocka_unit_test(test_cq_lossy),
		cmocka_unit_test(test_cq_stamp),
		cmocka_unit_test(test_cq_move),
		cmocka_unit_test(test_arms),
		cmocka_unit_test(test_events),
	};

	return cmocka_run_group_tests_name("pipe", tests, NULL, NULL);
}
