/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The slow engine: data, limits, refusals, and applications that stall their memory.
 *
 * Shown on this process's own memory: it is its own application.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "memory/engine.h"
#include "memory/space.h"
#include "pipe/ring.h"

enum { BUF = 64 << 10, RW = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ };

static uint8_t win[BUF], local[BUF];

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
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

struct app {
	struct fx_space *space;
	struct fx_mr mr;
	uint8_t *mem;
};

static void app_open(struct app *a, uint32_t access)
{
	struct fx_mr_seg seg[FX_MR_SEGS];
	int fds[FX_MSG_FDS];
	uint32_t nseg, nfd;
	char why[FX_WHY_LEN];

	memset(a, 0, sizeof(*a));
	a->mem = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(a->mem, MAP_FAILED);
	a->space = fx_space_open(getpid(), why, sizeof(why));
	assert_non_null(a->space);
	a->mr.access = access;
	a->mr.iova = 0x10000000;
	assert_int_equal(fx_space_plan(a->space, (uintptr_t)a->mem, 1 << 20, access, FX_REG_NO_CONVERT, seg,
				       &nseg, fds, &nfd),
			 0);
	assert_int_equal(nfd, 0);
	assert_int_equal(fx_space_commit(a->space, seg, nseg, 0, &a->mr), 0);
	assert_null(a->mr.base);
	assert_string_equal(fx_mr_window_kind(&a->mr), "slow");
}

static void app_close(struct app *a)
{
	fx_space_close(a->space);
	fx_mr_unmap(&a->mr);
	munmap(a->mem, 1 << 20);
}

static struct fx_dma slow_copy(const struct app *a, uint64_t off, uint8_t *buf, uint32_t len, bool to_window)
{
	return (struct fx_dma){
		.local = buf,
		.len = len,
		.to_window = to_window,
		.mr = &a->mr,
		.va = a->mr.iova + off,
		.cookie = buf,
	};
}

static _Atomic unsigned wakes;
static void on_wake(void *arg)
{
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

/* Read, change, write, one after the other: also on a word that a page boundary cuts. */
static void slow_atomics(void **state)
{
	static const struct {
		uint64_t off;
		uint8_t op;
		struct fx_dma_atomic in;
		uint64_t original, after;
	} rows[] = {
		{64, FX_DMA_FETCH_ADD, {.swap_add = 5}, 100, 105},
		{64, FX_DMA_COMPARE_SWAP, {.compare = 105, .swap_add = 9}, 105, 9},
		{64, FX_DMA_COMPARE_SWAP, {.compare = 105, .swap_add = 8}, 9, 9},
		{64, FX_DMA_FETCH_ADD, {.swap_add = UINT64_MAX}, 9, 8},
		{4092, FX_DMA_FETCH_ADD, {.swap_add = 1}, 7, 8},
	};
	struct fx_dma_engine *e = fx_dma_slow_create(8, NULL, NULL);
	uint64_t v = 100;
	struct app a;

	(void)state;
	app_open(&a, RW);
	memcpy(a.mem + 64, &v, 8);
	v = 7;
	memcpy(a.mem + 4092, &v, 8);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fx_dma_atomic at = rows[i].in;
		struct fx_dma d = slow_copy(&a, rows[i].off, (uint8_t *)&at, 8, true);
		struct fx_dma_done done[1];

		d.op = rows[i].op;
		assert_int_equal(e->ops->submit(e, &d, 1), 1);
		assert_int_equal(drain(e, done, 1), 1);
		assert_int_equal(done[0].err, 0);
		assert_int_equal(at.original, rows[i].original);
		memcpy(&v, a.mem + rows[i].off, 8);
		assert_int_equal(v, rows[i].after);
	}
	e->ops->destroy(e);
	app_close(&a);
}

static void slow_reads_and_writes(void **state)
{
	struct fx_dma_engine *e = fx_dma_slow_create(8, on_wake, &wakes);
	struct fx_dma_done done[8];
	struct app a;

	(void)state;
	app_open(&a, RW);
	atomic_store(&wakes, 0);
	fill(local, BUF, 6);
	for (uint32_t len = 1; len <= 40000; len = len * 3 + 1) {
		struct fx_dma d[2] = {
			slow_copy(&a, 4090, local, len, true),
			slow_copy(&a, 4090, win, len, false),
		};

		assert_int_equal(e->ops->submit(e, d, 2), 2);
		assert_int_equal(e->ops->pending(e), 2);
		assert_int_equal(drain(e, done, 2), 2);
		assert_int_equal(done[0].err | done[1].err, 0);
		assert_memory_equal(a.mem + 4090, local, len);
		assert_memory_equal(win, local, len);
	}
	assert_int_equal(atomic_load(&wakes) > 0, 1);
	assert_int_equal(e->ops->pending(e), 0);
	e->ops->destroy(e);
	app_close(&a);
}

/* More than the bounce buffer at once, many in the queue, and the helper asleep in between. */
static void slow_is_bounded_and_wakes_up(void **state)
{
	struct fx_dma_engine *e = fx_dma_slow_create(4, NULL, NULL);
	uint8_t *big = malloc(1 << 20);
	struct fx_dma_done done[8];
	struct app a;
	struct fx_dma d[6];

	(void)state;
	app_open(&a, RW);
	fill(big, 1 << 20, 8);
	d[0] = slow_copy(&a, 0, big, 1 << 20, true);
	assert_int_equal(e->ops->submit(e, d, 1), 1);
	assert_int_equal(drain(e, done, 1), 1);
	assert_memory_equal(a.mem, big, 1 << 20);
	free(big);
	for (int round = 0; round < 300; round++) {
		unsigned n;

		for (unsigned i = 0; i < 6; i++)
			d[i] = slow_copy(&a, i * 100, local + i * 100, 100, i & 1);
		n = e->ops->submit(e, d, 6);
		assert_true(n >= 4 && n <= 6); /* places are free only after a poll */
		assert_int_equal(n, 4);
		assert_int_equal(drain(e, done, 4), 4);
		for (unsigned i = 0; i < 4; i++)
			assert_ptr_equal(done[i].cookie, local + i * 100);
	}
	e->ops->destroy(e);
	app_close(&a);
}

static void slow_refuses_what_it_must(void **state)
{
	struct fx_dma_engine *e = fx_dma_slow_create(8, NULL, NULL);
	struct fx_dma_done done[8];
	struct fx_dma d[4];
	struct app a;

	(void)state;
	app_open(&a, FX_ACC_REMOTE_READ);
	d[0] = slow_copy(&a, 0, local, 8, true);	      /* no right to write */
	d[1] = slow_copy(&a, (1 << 20) - 4, local, 8, false); /* beyond the region */
	d[2] = slow_copy(&a, 0, local, 0, false);	      /* nothing to do */
	d[3] = slow_copy(&a, 0, local, 8, false);
	d[3].mr = NULL;
	for (unsigned i = 0; i < 4; i++)
		d[i].cookie = (void *)(uintptr_t)i;
	assert_int_equal(e->ops->submit(e, d, 4), 4);
	assert_int_equal(drain(e, done, 4), 4);
	for (unsigned i = 0; i < 4; i++) {
		const int err[] = {-EACCES, -EFAULT, 0, -EFAULT};

		assert_int_equal(done[i].err, err[(uintptr_t)done[i].cookie]);
	}
	munmap(a.mem, 1 << 20); /* the memory has gone */
	d[0] = slow_copy(&a, 0, local, 8, false);
	assert_int_equal(e->ops->submit(e, d, 1), 1);
	assert_int_equal(drain(e, done, 1), 1);
	assert_int_equal(done[0].err, -EFAULT);
	e->ops->destroy(e);
	app_close(&a);
}

/*
 * An application that holds a page back (behind a file system of its own, say): the system call of the helper
 * thread does not return. Played here by a pread() that waits for the test while it reads from `held`.
 */
static _Atomic uintptr_t held;
static _Atomic uintptr_t restless; /* its owner has written there whenever it is read */
static sem_t held_at, held_go;

ssize_t stalling_pread(int fd, void *buf, size_t n, off_t off) __asm__("pread");
ssize_t stalling_pread64(int fd, void *buf, size_t n, off_t off) __asm__("pread64");
ssize_t stalling_pread(int fd, void *buf, size_t n, off_t off)
{
	if (atomic_load(&held) && (uintptr_t)off == atomic_load(&held)) {
		sem_post(&held_at);
		sem_wait(&held_go);
	}
	if (atomic_load(&restless) && (uintptr_t)off == atomic_load(&restless))
		++*(uint64_t *)(uintptr_t)off;
	return syscall(SYS_pread64, fd, buf, n, off);
}
ssize_t stalling_pread64(int fd, void *buf, size_t n, off_t off)
{
	return stalling_pread(fd, buf, n, off);
}

/* Others go on meanwhile, and the space can be closed with no harm. */
static void slow_survives_a_stalled_application(void **state)
{
	struct fx_dma_engine *e = fx_dma_slow_create(8, NULL, NULL);
	const struct timespec ms = {.tv_nsec = 1000000};
	struct fx_dma_done done[8];
	struct app stalled, other;
	struct fx_dma d[3];
	uint32_t number;

	(void)state;
	app_open(&stalled, RW);
	app_open(&other, RW);
	sem_init(&held_at, 0, 0);
	sem_init(&held_go, 0, 0);
	atomic_store(&held, (uintptr_t)stalled.mem);
	memset(local, 0x5a, 256);
	d[0] = slow_copy(&stalled, 0, local, 8, false);
	d[1] = slow_copy(&stalled, 64, local + 64, 8, true);
	assert_int_equal(e->ops->submit(e, d, 2), 2);
	fx_dma_flush(e);
	sem_wait(&held_at);
	number = fx_space_stall(stalled.space);
	assert_int_not_equal(number, 0);
	for (int i = 0; i < 200; i++) {
		d[2] = slow_copy(&other, 0, local + 128, 8, i & 1);
		assert_int_equal(e->ops->submit(e, &d[2], 1), 1);
		assert_int_equal(drain(e, done, 1), 1);
		assert_ptr_equal(done[0].cookie, local + 128);
		assert_int_equal(done[0].err, 0);
	}
	assert_int_equal(fx_space_stall(stalled.space), number);
	fx_space_close(stalled.space); /* does not wait */
	assert_int_equal(e->ops->poll(e, done, 8), 2);
	assert_int_equal(done[0].err, -ESRCH);
	assert_int_equal(done[1].err, -ESRCH);
	assert_int_equal(e->ops->submit(e, d, 1), 1); /* a late one fails at once */
	assert_int_equal(e->ops->poll(e, done, 8), 1);
	assert_int_equal(done[0].err, -ESRCH);
	sem_post(&held_go); /* the helper comes back, and must not touch our buffers any more */
	for (int i = 0; i < 20; i++)
		nanosleep(&ms, NULL);
	atomic_store(&held, 0);
	assert_int_equal(local[0], 0x5a);
	assert_int_equal(stalled.mem[64], 0);
	fx_mr_unmap(&stalled.mr);
	munmap(stalled.mem, 1 << 20);
	e->ops->destroy(e);
	app_close(&other);
}

/* Nothing of a program that has ended: its peers are not to take that for a refusal (-EFAULT). */
static void slow_tells_that_a_process_ended(void **state)
{
	struct fx_dma_engine *e = fx_dma_slow_create(8, NULL, NULL);
	struct fx_dma_atomic at = {.swap_add = 1};
	struct fx_dma_done done[3];
	struct fx_dma d[3];
	struct app a;
	int real, status;
	char path[32];
	pid_t child;

	(void)state;
	app_open(&a, RW);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		for (;;)
			pause();
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)child);
	real = a.space->mem;
	a.space->mem = open(path, O_RDWR | O_CLOEXEC);
	assert_true(a.space->mem >= 0);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	d[0] = slow_copy(&a, 0, local, 8, true);
	d[1] = slow_copy(&a, 0, local, 8, false);
	d[2] = slow_copy(&a, 0, (uint8_t *)&at, 8, true);
	d[2].op = FX_DMA_FETCH_ADD;
	assert_int_equal(e->ops->submit(e, d, 3), 3);
	assert_int_equal(drain(e, done, 3), 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(done[i].err, -ESRCH);
	close(a.space->mem);
	a.space->mem = real;
	e->ops->destroy(e);
	app_close(&a);
}

static void slow_engine_goes_before_its_applications(void **state)
{
	struct app a;

	(void)state;
	app_open(&a, RW);
	for (int i = 0; i < 50; i++) {
		struct fx_dma_engine *e = fx_dma_slow_create(8, on_wake, &wakes);
		struct fx_dma d[8];

		for (unsigned k = 0; k < 8; k++)
			d[k] = slow_copy(&a, k * 4096, local + k * 4096, 4096, k & 1);
		assert_int_equal(e->ops->submit(e, d, 8), 8);
		e->ops->destroy(e); /* with transfers under way */
		fill(local, 8 * 4096, 1);
	}
	app_close(&a);
}

/* ---- ring entries come and go whole ---- */

enum { ENTRIES = 20000, RING_SHIFT = 4 };

/* Writes land as they were submitted, and a helper is told of them once, as the worker is told of their end once. */
static void a_run_is_in_order_and_told_once(void **state)
{
	enum { N = 16 };
	struct fx_dma_engine *e = fx_dma_slow_create(N, on_wake, &wakes);
	const struct timespec pause = {.tv_nsec = 1000000};
	struct fx_dma d[N];
	struct fx_dma_done done[N];
	struct app a;

	(void)state;
	assert_true(e->ops->ordered);
	app_open(&a, RW);
	for (unsigned round = 0; round < 20; round++) {
		for (int i = 0; round && !atomic_load(&a.space->sleeping) && i < 5000; i++)
			nanosleep(&pause, NULL);
		atomic_store(&wakes, 0);
		for (unsigned i = 0; i < N; i++) {
			local[i] = (uint8_t)(round + i);
			d[i] = slow_copy(&a, 100, local + i, 1, true);
		}
		assert_int_equal(e->ops->submit(e, d, N), N);
		assert_int_equal(round ? atomic_load(&wakes) : 0, 0);
		e->ops->flush(e);
		assert_int_equal(drain(e, done, N), N);
		assert_int_equal(a.mem[100], (uint8_t)(round + N - 1));
		for (int i = 0; !atomic_load(&wakes) && i < 5000; i++)
			nanosleep(&pause, NULL);
		if (round)
			assert_int_equal(atomic_load(&wakes), 1);
	}
	e->ops->destroy(e);
	app_close(&a);
}

/* How many threads we have. */
static unsigned threads(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/task");

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* A ring whose host never stops writing it is never read twice the same; that keeps no thread beyond its end. */
static void a_ring_that_never_rests(void **state)
{
	struct fx_dma_engine *e = fx_dma_slow_create(4, NULL, NULL);
	const struct timespec ms = {.tv_nsec = 1000000};
	struct fx_dma_done done[2];
	unsigned before = threads();
	struct app a;
	struct fx_dma d;

	(void)state;
	app_open(&a, RW);
	atomic_store(&restless, (uintptr_t)a.mem);
	d = slow_copy(&a, 0, local, 2048, false);
	d.lines = true;
	assert_int_equal(e->ops->submit(e, &d, 1), 1);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(e->ops->poll(e, done, 2), 0);
		nanosleep(&ms, NULL);
	}
	fx_space_close(a.space);
	assert_int_equal(drain(e, done, 1), 1);
	assert_int_equal(done[0].err, -ESRCH);
	for (int i = 0; threads() != before && i < 5000; i++)
		nanosleep(&ms, NULL);
	assert_int_equal(threads(), before);
	atomic_store(&restless, 0);
	fx_mr_unmap(&a.mr);
	munmap(a.mem, 1 << 20);
	e->ops->destroy(e);
}

/* Entry i of a ring: every byte but the phase says which. */
static void *produce(void *mem)
{
	const uint32_t *ci = (const uint32_t *)((uint8_t *)mem + 4096);

	for (uint32_t i = 0; i < ENTRIES; i++) {
		uint8_t slot[FX_SLOT_SIZE];

		while (i - fx_load32_acquire(ci) >= 1u << RING_SHIFT)
			sched_yield();
		memset(slot, (int)i, sizeof(slot));
		fx_slot_publish((uint8_t *)mem + (i & ((1u << RING_SHIFT) - 1)) * FX_SLOT_SIZE, slot,
				fx_phase(i, RING_SHIFT));
	}
	return NULL;
}

static void move(struct fx_dma_engine *e, const struct app *a, uint64_t off, void *buf, uint32_t len,
		 bool to_window)
{
	struct fx_dma d = slow_copy(a, off, buf, len, to_window);
	struct fx_dma_done done[1];

	d.lines = true;
	assert_int_equal(e->ops->submit(e, &d, 1), 1);
	assert_int_equal(drain(e, done, 1), 1);
	assert_int_equal(done[0].err, 0);
}

static void entries_are_read_whole(void **state)
{
	struct fx_dma_engine *e = fx_dma_slow_create(8, NULL, NULL);
	uint8_t buf[FX_SLOT_SIZE << RING_SHIFT];
	uint32_t ci = 0;
	struct app a;
	pthread_t t;

	(void)state;
	app_open(&a, RW);
	assert_int_equal(pthread_create(&t, NULL, produce, a.mem), 0);
	while (ci < ENTRIES) {
		move(e, &a, 0, buf, sizeof(buf), false);
		for (const uint8_t *slot; slot = buf + (ci & ((1u << RING_SHIFT) - 1)) * FX_SLOT_SIZE,
					  fx_slot_ready(slot, fx_phase(ci, RING_SHIFT)) && ci < ENTRIES;
		     ci++)
			for (int i = 0; i < FX_SLOT_SIZE - 1; i++)
				assert_int_equal(slot[i], (uint8_t)ci);
		move(e, &a, 4096, &ci, sizeof(ci), true);
	}
	pthread_join(t, NULL);
	app_close(&a);
	e->ops->destroy(e);
}

static void *consume(void *mem)
{
	struct fx_cq_rx rx = {.head = (void *)((uint8_t *)mem + 4096), .ring = mem, .shift = RING_SHIFT};
	struct fx_cqe c;

	while (rx.ci < ENTRIES) {
		if (!fx_cq_take(&rx, &c)) {
			sched_yield();
			continue;
		}
		if (c.index != rx.ci - 1 || c.byte_len != ~c.index || c.imm != c.index)
			return mem;
		fx_cq_publish_ci(&rx);
	}
	return NULL;
}

static void entries_are_written_whole(void **state)
{
	struct fx_dma_engine *e = fx_dma_slow_create(8, NULL, NULL);
	uint32_t pi = 0, ci = 0, size = 1u << RING_SHIFT;
	struct app a;
	pthread_t t;
	void *bad;

	(void)state;
	app_open(&a, RW);
	assert_int_equal(pthread_create(&t, NULL, consume, a.mem), 0);
	while (pi < ENTRIES) {
		struct fx_cqe c[1 << RING_SHIFT];
		uint32_t n = 0, at = pi & (size - 1);

		for (; n < size - (pi - ci) && at + n < size && pi + n < ENTRIES; n++) {
			c[n] = (struct fx_cqe){.index = pi + n, .byte_len = ~(pi + n), .imm = pi + n};
			c[n].phase = fx_phase(pi + n, RING_SHIFT);
		}
		if (n)
			move(e, &a, at * sizeof(c[0]), c, n * (uint32_t)sizeof(c[0]), true);
		pi += n;
		move(e, &a, 4096, &ci, sizeof(ci), false);
	}
	pthread_join(t, &bad);
	assert_null(bad);
	app_close(&a);
	e->ops->destroy(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_atomics),
		cmocka_unit_test(a_run_is_in_order_and_told_once),
		cmocka_unit_test(a_ring_that_never_rests),
		cmocka_unit_test(entries_are_read_whole),
		cmocka_unit_test(entries_are_written_whole),
		cmocka_unit_test(slow_reads_and_writes),
		cmocka_unit_test(slow_is_bounded_and_wakes_up),
		cmocka_unit_test(slow_refuses_what_it_must),
		cmocka_unit_test(slow_tells_that_a_process_ended),
		cmocka_unit_test(slow_survives_a_stalled_application),
		cmocka_unit_test(slow_engine_goes_before_its_applications),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
