/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The list of converted ranges, what the kernel says of them, and what of theirs is a stack.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <pthread.h>

#include <cmocka.h>

#include "emulated.h"
#include "control/protocol.h"
#include "host/areas.h"
#include "host/memory.h"
#include "host/ranges.h"
#include "host/stacks.h"
#include "host/wishes.h"

enum { PAGE = 4096, MODEL = 256 };

static int forget(void **state)
{
	(void)state;
	fx_ranges_forget();
	return 0;
}

/* As a conversion leaves it. */
static uint8_t *convert(size_t pages)
{
	int fd = memfd_create(FX_MR_MEMFD, MFD_CLOEXEC);
	uint8_t *p;

	assert_int_equal(ftruncate(fd, 1 << 30), 0);
	p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(p != MAP_FAILED);
	close(fd);
	return p;
}

/* Against a byte a page, with random operations. */
static void agrees_with_a_model(void **state)
{
	uint8_t model[MODEL] = {0}; /* 0: nothing; else 1 + its wishes */
	uint64_t r = 1;

	(void)state;
	for (int step = 0; step < 5000; step++) {
		uint32_t at = (uint32_t)((r = r * 6364136223846793005u + 1442695040888963407u) >> 33) % MODEL;
		uint32_t n = 1 + (uint32_t)(r >> 20) % 20;
		uint32_t wishes = (uint32_t)(r >> 50) & 15;
		uintptr_t end;

		n = at + n > MODEL ? MODEL - at : n;
		switch (step % 3) {
		case 0:
			assert_int_equal(fx_ranges_add(at * PAGE, n * PAGE, wishes), 0);
			for (uint32_t i = 0; i < n; i++)
				model[at + i] = (uint8_t)(1 + wishes);
			break;
		case 1:
			fx_ranges_cut(at * PAGE, n * PAGE);
			for (uint32_t i = 0; i < n; i++)
				model[at + i] = 0;
			break;
		default:
			assert_int_equal(fx_ranges_wish(at * PAGE, n * PAGE, 1, 2), 0);
			for (uint32_t i = 0; i < n; i++)
				if (model[at + i])
					model[at + i] = (uint8_t)(1 + (((model[at + i] - 1) | 1) & ~2));
		}
		for (uint32_t i = 0; i < MODEL; i++) {
			assert_int_equal(fx_ranges_any(i * PAGE, PAGE), model[i] != 0);
			assert_int_equal(fx_ranges_wishes(i * PAGE + 5, &end), model[i] ? model[i] - 1 : 0);
			assert_true(end > i * PAGE + 5 && (end == UINTPTR_MAX || end <= MODEL * PAGE));
			for (uint32_t k = i; k * PAGE < end && k < MODEL; k++)
				assert_int_equal(model[k], model[i]);
		}
	}
}

static void moves_with_their_wishes(void **state)
{
	(void)state;
	fx_ranges_add(PAGE, 2 * PAGE, FX_WISH_NO_DUMP);
	fx_ranges_add(3 * PAGE, PAGE, FX_WISH_NO_FORK);
	fx_ranges_move(2 * PAGE, 2 * PAGE, 100 * PAGE);
	assert_int_equal(fx_ranges_count(), 3);
	assert_int_equal(fx_ranges_wishes(PAGE, NULL), FX_WISH_NO_DUMP);
	assert_false(fx_ranges_any(2 * PAGE, 2 * PAGE));
	assert_int_equal(fx_ranges_wishes(100 * PAGE, NULL), FX_WISH_NO_DUMP);
	assert_int_equal(fx_ranges_wishes(101 * PAGE, NULL), FX_WISH_NO_FORK);
}

/* What was unmapped behind our back does not pile up. */
static void stale_ranges_go(void **state)
{
	uint8_t *kept = convert(1);

	(void)state;
	fx_ranges_add((uintptr_t)kept, PAGE, 0);
	for (int i = 0; i < 3000; i++) {
		uint8_t *p = convert(1);

		fx_ranges_add((uintptr_t)p, PAGE, (uint32_t)i & 15);
		munmap(p, PAGE);
		mmap(p, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0); /* another address next time */
	}
	assert_true(fx_ranges_count() < 1000);
	assert_true(fx_ranges_any((uintptr_t)kept, 1));
}

static void areas_know_what_is_converted(void **state)
{
	uint8_t *p = convert(4);
	int fd = memfd_create("flexins-mr-not", MFD_CLOEXEC);
	struct fx_area a;
	void *other;

	(void)state;
	assert_int_equal(ftruncate(fd, PAGE), 0);
	other = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	assert_int_equal(mprotect(p + PAGE, PAGE, PROT_READ), 0);
	assert_true(fx_area_at((uintptr_t)p, &a) && a.converted && a.end == (uintptr_t)p + PAGE);
	assert_int_equal(a.prot, PROT_READ | PROT_WRITE);
	assert_true(fx_area_at((uintptr_t)p + PAGE, &a) && a.converted && a.prot == PROT_READ);
	assert_true(fx_area_at((uintptr_t)other, &a) && !a.converted);
	assert_true(fx_area_at((uintptr_t)&a, &a) && !a.converted && a.start <= (uintptr_t)&a);
	assert_false(fx_area_at(UINTPTR_MAX - PAGE, &a) && a.start < UINTPTR_MAX - (64 << 20));
}

/* Advice goes by what is there, not by what the list says. */
static void stale_ranges_are_not_discarded(void **state)
{
	int fd;
	uint8_t *p;

	(void)state;
	if (passed_over())
		return;
	fd = memfd_create("own", MFD_CLOEXEC);
	p = convert(2);
	p[0] = p[PAGE] = 7;
	fx_ranges_add((uintptr_t)p, 2 * PAGE, 0);
	assert_int_equal(ftruncate(fd, PAGE), 0);
	assert_ptr_equal(mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), p);
	p[0] = 7;
	assert_int_equal(fx_madvise(p, 2 * PAGE, MADV_DONTNEED), 0);
	assert_int_equal(p[0], 7);
	assert_int_equal(p[PAGE], 0);
}

static uint8_t *shown;
static bool leave;

static void *show(void *arg)
{
	/* not a variable's: a sanitizer keeps those elsewhere */
	__atomic_store_n(&shown, (uint8_t *)__builtin_frame_address(0) - 8 * PAGE, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&leave, __ATOMIC_ACQUIRE))
		usleep(100);
	return arg;
}

static void stacks_are_known(void **state)
{
	uint8_t *p;
	pthread_t t;

	(void)state;
	if (passed_over())
		return;
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(pthread_create(&t, NULL, show, NULL), 0);
	while (!__atomic_load_n(&shown, __ATOMIC_ACQUIRE))
		usleep(100);
	assert_true(fx_stacks_overlap(shown, 8 * PAGE));
	assert_true(fx_stacks_overlap((void *)((uintptr_t)t & ~(uintptr_t)(PAGE - 1)), PAGE));
	assert_false(fx_stacks_overlap(p, 4 * PAGE));
	__atomic_store_n(&leave, true, __ATOMIC_RELEASE);
	pthread_join(t, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(agrees_with_a_model, forget),
		cmocka_unit_test_setup(moves_with_their_wishes, forget),
		cmocka_unit_test_setup(stale_ranges_go, forget),
		cmocka_unit_test_setup(areas_know_what_is_converted, forget),
		cmocka_unit_test_setup(stale_ranges_are_not_discarded, forget),
		cmocka_unit_test_setup(stacks_are_known, forget),
	};

	return verdict(cmocka_run_group_tests(tests, NULL, NULL));
}
