/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The CPU and the chaos engine: data, order, merging, limits, lateness.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "memory/engine.h"

enum { BUF = 64 << 10, RW = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ };

static uint8_t win[BUF] __attribute__((aligned(64))), local[BUF] __attribute__((aligned(64)));
static uint8_t want[BUF];

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
}

static struct fx_dma copy(size_t to, size_t from, uint32_t len, bool to_window, uintptr_t cookie)
{
	return (struct fx_dma){
		.win = win + (to_window ? to : from),
		.local = local + (to_window ? from : to),
		.len = len,
		.to_window = to_window,
		.cookie = (void *)cookie,
	};
}

static unsigned drain(struct fx_dma_engine *e, struct fx_dma_done *out, unsigned n)
{
	const struct timespec pause = {.tv_nsec = 20000};
	unsigned got = 0;

	for (int i = 0; got < n && i < 200000; i++) {
		unsigned now = e->ops->poll(e, out + got, n - got);

		got += now;
		if (!now && i > 1000)
			nanosleep(&pause, NULL);
	}
	return got;
}

/* ---- CPU ---- */

static void cpu_copies_every_length_and_alignment(void **state)
{
	struct fx_dma_engine *e = fx_dma_cpu_create(8);
	struct fx_dma_done done[1];

	(void)state;
	for (uint32_t len = 0; len < 140; len++) {
		for (unsigned at = 0; at < 9; at++) {
			for (int dir = 0; dir < 2; dir++) {
				struct fx_dma d = copy(32 + at, 64 + (at * 5) % 9, len, dir, len);
				uint8_t *to = dir ? win : local;

				fill(win, 512, len);
				fill(local, 512, len + 1);
				memcpy(want, to, 512);
				memcpy(want + 32 + at, (dir ? local : win) + 64 + (at * 5) % 9, len);
				assert_int_equal(e->ops->submit(e, &d, 1), 1);
				assert_int_equal(e->ops->poll(e, done, 1), 1);
				assert_ptr_equal(done[0].cookie, (void *)(uintptr_t)len);
				assert_int_equal(done[0].err, 0);
				assert_memory_equal(to, want, 512);
			}
		}
	}
	e->ops->destroy(e);
}

static void cpu_bounds_what_is_not_polled(void **state)
{
	struct fx_dma_engine *e = fx_dma_cpu_create(5);
	struct fx_dma_done done[8];
	struct fx_dma d[8];

	(void)state;
	assert_null(fx_dma_cpu_create(0));
	for (unsigned i = 0; i < 8; i++)
		d[i] = copy(i * 100, i * 100, 10, true, i);
	for (unsigned round = 0; round < 100; round++) {
		assert_int_equal(e->ops->submit(e, d, 8), 5);
		assert_int_equal(e->ops->submit(e, d, 8), 0);
		assert_int_equal(e->ops->pending(e), 5);
		assert_int_equal(e->ops->poll(e, done, 3), 3);
		assert_int_equal(e->ops->submit(e, d + 5, 3), 3);
		assert_int_equal(e->ops->poll(e, done + 3, 8), 5);
		for (unsigned i = 0; i < 8; i++)
			assert_ptr_equal(done[i].cookie, (void *)(uintptr_t)i);
		assert_int_equal(e->ops->pending(e), 0);
	}
	e->ops->destroy(e);
}

/* Neighbours in both directions, mixed with copies that must not join them. */
static void cpu_merges_neighbours(void **state)
{
	struct fx_dma_engine *e = fx_dma_cpu_create(64);
	struct fx_mr relaxed = {.access = RW | FX_ACC_RELAXED_ORDERING}, strict = {.access = RW};
	const struct fx_mr *const mr[] = {&relaxed, &strict, NULL};
	struct fx_dma_done done[32];

	(void)state;
	for (unsigned k = 0; k < 3; k++) {
		struct fx_dma d[16];

		fill(win, BUF, 3);
		fill(local, BUF, 4);
		memcpy(want, win, BUF);
		for (unsigned i = 0; i < 8; i++)
			d[i] = copy(1000 + i * 24, 5000 + i * 24, 24, true, i);
		d[8] = copy(1192, 9000, 24, true, 8);	  /* the source does not meet */
		d[9] = copy(1300, 9024, 24, true, 9);	  /* the destination does not meet */
		d[10] = copy(20000, 1300, 24, false, 10); /* reads what was just written */
		for (unsigned i = 11; i < 16; i++)
			d[i] = copy(20024 + (i - 11) * 24, 1324 + (i - 11) * 24, 24, false, i);
		for (unsigned i = 0; i < 16; i++)
			d[i].mr = mr[k];
		memcpy(want + 1000, local + 5000, 192);
		memcpy(want + 1192, local + 9000, 24);
		memcpy(want + 1300, local + 9024, 24);
		assert_int_equal(e->ops->submit(e, d, 16), 16);
		assert_int_equal(e->ops->poll(e, done, 32), 16);
		for (unsigned i = 0; i < 16; i++)
			assert_ptr_equal(done[i].cookie, (void *)(uintptr_t)i);
		assert_memory_equal(win, want, BUF);
		assert_memory_equal(local + 20000, want + 1300, 144);
	}
	e->ops->destroy(e);
}

/*
 * A copy whose source is where the one before it lands: in order it takes what has just landed, merged it
 * takes what was there before. Only a relaxed region may merge.
 */
static void cpu_merges_writes_of_relaxed_regions_only(void **state)
{
	struct fx_dma_engine *e = fx_dma_cpu_create(4);
	struct fx_dma_done done[2];

	(void)state;
	for (int relaxed = 0; relaxed < 2; relaxed++) {
		struct fx_mr mr = {.access = RW | (relaxed ? FX_ACC_RELAXED_ORDERING : 0)};
		struct fx_dma d[2];

		fill(win, 256, 5);
		memcpy(want, win, 256);
		for (unsigned i = 0; i < 2; i++)
			d[i] = (struct fx_dma){
				.win = win + 64 + i * 64,
				.local = win + i * 64,
				.len = 64,
				.to_window = true,
				.mr = &mr,
			};
		assert_int_equal(e->ops->submit(e, d, 2), 2);
		assert_int_equal(e->ops->poll(e, done, 2), 2);
		assert_memory_equal(win + 64, want, 64);
		assert_memory_equal(win + 128, relaxed ? want + 64 : want, 64);
	}
	e->ops->destroy(e);
}

static void cpu_lands_in_order_and_overlapping(void **state)
{
	struct fx_dma_engine *e = fx_dma_cpu_create(64);
	struct fx_dma d[3] = {copy(100, 0, 64, true, 0), copy(100, 1000, 64, true, 1),
			      copy(108, 2000, 8, true, 2)};
	struct fx_dma self = {.win = win + 104, .local = win + 100, .len = 101, .to_window = true};
	struct fx_dma_done done[4];

	(void)state;
	assert_true(e->ops->ordered);
	fill(local, BUF, 9);
	assert_int_equal(e->ops->submit(e, d, 3), 3);
	memcpy(want, local + 1000, 64);
	memcpy(want + 8, local + 2000, 8);
	assert_memory_equal(win + 100, want, 64);
	fill(win, 512, 7);
	memcpy(want, win, 512);
	memmove(want + 104, want + 100, 101);
	assert_int_equal(e->ops->submit(e, &self, 1), 1); /* one application's buffers may overlap */
	assert_memory_equal(win, want, 512);
	assert_int_equal(e->ops->poll(e, done, 4), 4);
	e->ops->destroy(e);
}

static void unmapped_descriptors_are_not_theirs(void **state)
{
	struct fx_dma_engine *e[2] = {fx_dma_cpu_create(4), fx_dma_chaos_create(4, 3, 1)};
	struct fx_dma d = {.local = local, .len = 8, .to_window = true};
	struct fx_dma_done done[1];

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(e[i]->ops->submit(e[i], &d, 1), 1);
		assert_int_equal(drain(e[i], done, 1), 1);
		assert_int_equal(done[0].err, -EFAULT);
		e[i]->ops->destroy(e[i]);
	}
}

/* A program that spins on the last word of a message must then see all of it. */
enum { SPIN_ROUNDS = 3000 };
struct spinner {
	uint64_t word[64];
	unsigned bad;
};
static void *spin(void *arg)
{
	struct spinner *s = arg;

	for (uint64_t round = 1; round <= SPIN_ROUNDS; round++) {
		for (unsigned i = 0; __atomic_load_n(&s->word[63], __ATOMIC_ACQUIRE) != round; i++)
			if (i > 200)
				sched_yield();
		/* relaxed: the engine may be at the next message by now, whose words are greater */
		for (int i = 0; i < 63; i++)
			s->bad += __atomic_load_n(&s->word[i], __ATOMIC_RELAXED) != round;
		__atomic_store_n(&s->word[63], 0, __ATOMIC_RELEASE);
	}
	return NULL;
}
static void cpu_stores_the_last_word_last(void **state)
{
	static struct spinner s;
	struct fx_dma_engine *e = fx_dma_cpu_create(4);
	uint64_t msg[64];
	struct fx_dma_done done[1];
	struct fx_dma d = {
		.win = (uint8_t *)s.word,
		.local = (uint8_t *)msg,
		.len = sizeof(msg),
		.to_window = true,
	};
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, spin, &s), 0);
	for (uint64_t round = 1; round <= SPIN_ROUNDS; round++) {
		for (int i = 0; i < 64; i++)
			msg[i] = round;
		assert_int_equal(e->ops->submit(e, &d, 1), 1);
		assert_int_equal(e->ops->poll(e, done, 1), 1);
		for (unsigned i = 0; __atomic_load_n(&s.word[63], __ATOMIC_ACQUIRE); i++)
			if (i > 200)
				sched_yield();
	}
	pthread_join(t, NULL);
	assert_int_equal(s.bad, 0);
	e->ops->destroy(e);
}

/* ---- chaos ---- */

/* Runs 200 copies with a seed; the order of completions goes to order[], the lateness is checked. */
static void chaos_run(uint64_t seed, uintptr_t *order)
{
	struct fx_dma_engine *e = fx_dma_chaos_create(16, 12, seed);
	unsigned sent = 0, got = 0, polls = 0;

	memset(win, 0, BUF);
	fill(local, BUF, 11);
	while (got < 200) {
		struct fx_dma_done done[4];
		unsigned n;

		while (sent < 200) {
			struct fx_dma d = copy(sent * 64, sent * 64, 64, true, sent);

			if (!e->ops->submit(e, &d, 1))
				break;
			sent++;
		}
		assert_true(e->ops->pending(e) <= 16);
		n = e->ops->poll(e, done, 4);
		for (unsigned i = 0; i < n; i++) {
			uintptr_t c = (uintptr_t)done[i].cookie;

			assert_memory_equal(win + c * 64, local + c * 64, 64);
			order[got++] = c;
		}
		assert_true(++polls < 200 * 13);
	}
	assert_int_equal(e->ops->pending(e), 0);
	e->ops->destroy(e);
}

static void chaos_reorders_and_is_deterministic(void **state)
{
	uintptr_t a[200], b[200], c[200], swaps = 0;

	(void)state;
	chaos_run(42, a);
	chaos_run(42, b);
	chaos_run(43, c);
	assert_memory_equal(a, b, sizeof(a));
	assert_true(memcmp(a, c, sizeof(a)) != 0);
	for (int i = 1; i < 200; i++)
		swaps += a[i] < a[i - 1];
	assert_true(swaps > 20);
}

static void chaos_is_late(void **state)
{
	unsigned late = 0, early_bytes = 0;

	(void)state;
	fill(local, BUF, 5);
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct fx_dma_engine *e = fx_dma_chaos_create(1, 10, seed);
		struct fx_dma d = copy(0, 0, 4096, true, 1);
		struct fx_dma_done done[1];
		unsigned polls = 1;

		memset(win, 0, 4096);
		assert_int_equal(e->ops->submit(e, &d, 1), 1);
		assert_int_equal(win[0] | win[4095], 0); /* nothing moves before a poll */
		while (!e->ops->poll(e, done, 1)) {
			polls++;
			early_bytes += memcmp(win, local, 4096) == 0;
		}
		assert_true(polls <= 10);
		late += polls > 1;
		assert_memory_equal(win, local, 4096);
		e->ops->destroy(e);
	}
	assert_true(late > 150);
	assert_true(early_bytes > 0); /* also: there, but not reported yet */
}

static void chaos_lets_either_overlapping_copy_win(void **state)
{
	unsigned first = 0, second = 0, mixed = 0;

	(void)state;
	memset(local, 1, 64);
	memset(local + 64, 2, 64);
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct fx_dma_engine *e = fx_dma_chaos_create(4, 8, seed);
		struct fx_dma d[2] = {copy(0, 0, 64, true, 1), copy(0, 64, 64, true, 2)};
		struct fx_dma_done done[2];

		assert_int_equal(e->ops->submit(e, d, 2), 2);
		assert_int_equal(drain(e, done, 2), 2);
		if (!memcmp(win, local, 64))
			first++;
		else if (!memcmp(win, local + 64, 64))
			second++;
		else
			mixed++;
		e->ops->destroy(e);
	}
	assert_true(first > 10 && second > 10 && mixed > 10);
}

enum { ADDS = 200000 };

static void *add_too(void *word)
{
	for (unsigned i = 0; i < ADDS; i++)
		__atomic_fetch_add((uint64_t *)word, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Contract 24: on a window an atomic is one for the application's CPUs too. */
static void atomics_are_atomic_to_cpus(void **state)
{
	struct fx_dma_engine *e[2] = {fx_dma_cpu_create(4), fx_dma_chaos_create(4, 0, 1)};
	_Alignas(64) uint64_t word = 0;
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, add_too, &word), 0);
	for (unsigned i = 0; i < ADDS; i++) {
		struct fx_dma_atomic a = {.swap_add = UINT64_C(1) << 32};
		struct fx_dma d = {.win = (uint8_t *)&word,
				   .local = (uint8_t *)&a,
				   .len = 8,
				   .to_window = true,
				   .op = FX_DMA_FETCH_ADD};
		struct fx_dma_done done[1];

		assert_int_equal(e[i % 2]->ops->submit(e[i % 2], &d, 1), 1);
		assert_int_equal(drain(e[i % 2], done, 1), 1);
		assert_int_equal(done[0].err, 0);
		assert_int_equal(a.original >> 32, i);
	}
	pthread_join(t, NULL);
	assert_int_equal(word, (uint64_t)ADDS << 32 | ADDS);
	for (unsigned i = 0; i < 2; i++) {
		struct fx_dma_atomic a = {.compare = word, .swap_add = 3};
		struct fx_dma d = {.win = (uint8_t *)&word + 4,
				   .local = (uint8_t *)&a,
				   .len = 8,
				   .to_window = true,
				   .op = FX_DMA_COMPARE_SWAP};
		struct fx_dma_done done[1];

		e[i]->ops->submit(e[i], &d, 1);
		assert_int_equal(drain(e[i], done, 1), 1);
		assert_int_equal(done[0].err, -EFAULT); /* not aligned */
		e[i]->ops->destroy(e[i]);
	}
	assert_int_equal(word, (uint64_t)ADDS << 32 | ADDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(atomics_are_atomic_to_cpus),
		cmocka_unit_test(cpu_copies_every_length_and_alignment),
		cmocka_unit_test(cpu_bounds_what_is_not_polled),
		cmocka_unit_test(cpu_merges_neighbours),
		cmocka_unit_test(cpu_merges_writes_of_relaxed_regions_only),
		cmocka_unit_test(cpu_lands_in_order_and_overlapping),
		cmocka_unit_test(unmapped_descriptors_are_not_theirs),
		cmocka_unit_test(cpu_stores_the_last_word_last),
		cmocka_unit_test(chaos_reorders_and_is_deterministic),
		cmocka_unit_test(chaos_is_late),
		cmocka_unit_test(chaos_lets_either_overlapping_copy_win),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
