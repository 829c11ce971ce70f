/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A sorted array of ranges that do not overlap.
 *
 * Room: host. May use: ranges.h.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/areas.h"
#include "host/lock.h"
#include "host/ranges.h"

enum { FIRST_CAP = 4096 / 24, KERNEL_SIGSET = 8 };

struct range {
	uintptr_t addr, end;
	uint64_t wishes;
};

static uint32_t lock;
static struct range *list;
static uint32_t cap;
static uint32_t count; /* atomic for readers without the lock */

/* A signal handler that comes by here must not find the lock held by the thread that it interrupted. */
static uint64_t take(void)
{
	uint64_t all = ~UINT64_C(0), old = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, KERNEL_SIGSET);
	fx_lock(&lock);
	return old;
}
static void release(uint64_t old)
{
	fx_unlock(&lock);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, KERNEL_SIGSET);
}

static void set_count(uint32_t n)
{
	/* relaxed: who must see a range has synchronised with whoever registered it */
	__atomic_store_n(&count, n, __ATOMIC_RELAXED);
}

uint32_t fx_ranges_count(void)
{
	return __atomic_load_n(&count, __ATOMIC_RELAXED);
}

/* ---- with the lock held ---- */

/* The first range that ends above `addr`. */
static uint32_t find(uintptr_t addr)
{
	uint32_t lo = 0, hi = count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (list[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Forgets what is converted no longer. */
static void purge(void)
{
	struct fx_areas it;
	struct fx_area a = {0};
	uint32_t kept = 0;
	bool more;

	if (fx_areas_open(&it))
		return;
	more = fx_areas_next(&it, &a);
	for (uint32_t i = 0; i < count; i++) {
		while (more && (a.end <= list[i].addr || (!a.converted && a.end < list[i].end)))
			more = fx_areas_next(&it, &a);
		if (more && a.converted && a.start < list[i].end)
			list[kept++] = list[i];
	}
	fx_areas_close(&it);
	set_count(kept);
}

/* Room for two more; what is stale goes first. */
static int make_room(void)
{
	uint32_t want = cap ? 2 * cap : FIRST_CAP;
	void *more;

	if (count + 2 <= cap)
		return 0;
	if (cap)
		purge();
	if (count + 2 <= cap / 2)
		return 0;
	more = (void *)syscall(SYS_mmap, NULL, want * sizeof(*list), PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, (off_t)0);
	if (more == MAP_FAILED)
		return count + 2 <= cap ? 0 : -ENOMEM;
	if (count)
		memcpy(more, list, count * sizeof(*list));
	if (list)
		syscall(SYS_munmap, list, cap * sizeof(*list));
	list = more;
	cap = want;
	return 0;
}

/* `n` at index `i`, which must be its place. */
static void insert(uint32_t i, struct range n)
{
	memmove(&list[i + 1], &list[i], (count - i) * sizeof(*list));
	list[i] = n;
	set_count(count + 1);
}

/* After this `addr` is within no range, but may be between two. Needs room for one. */
static void split(uintptr_t addr)
{
	uint32_t i = find(addr);

	if (i < count && list[i].addr < addr) {
		struct range upper = list[i];

		list[i].end = upper.addr = addr;
		insert(i + 1, upper);
	}
}

static void cut(uintptr_t addr, uintptr_t end)
{
	uint32_t i, n;

	split(addr);
	split(end);
	i = find(addr);
	for (n = i; n < count && list[n].addr < end; n++)
		;
	memmove(&list[i], &list[n], (count - n) * sizeof(*list));
	set_count(count - (n - i));
}

/* ---- */

int fx_ranges_add(uintptr_t addr, size_t len, uint32_t wishes)
{
	struct range n = {.addr = addr, .end = addr + len, .wishes = wishes};
	uint64_t mask = take();
	int rc = make_room();

	if (!rc) {
		uint32_t i;

		cut(n.addr, n.end);
		i = find(addr);
		/* one that continues its neighbour needs no entry of its own */
		if (i && list[i - 1].end == addr && list[i - 1].wishes == wishes)
			list[i - 1].end = n.end;
		else
			insert(i, n);
	}
	release(mask);
	return rc;
}

void fx_ranges_cut(uintptr_t addr, size_t len)
{
	uint64_t mask;

	if (!fx_ranges_count())
		return;
	mask = take();
	/* without room the hole is not noted, as if libc had made it */
	if (!make_room())
		cut(addr, addr + len);
	release(mask);
}

bool fx_ranges_any(uintptr_t addr, size_t len)
{
	uint64_t mask;
	uint32_t i;
	bool any;

	if (!fx_ranges_count())
		return false;
	mask = take();
	i = find(addr);
	any = i < count && list[i].addr < addr + len;
	release(mask);
	return any;
}

uint32_t fx_ranges_wishes(uintptr_t addr, uintptr_t *end)
{
	uint32_t i, wishes = 0;
	uintptr_t stop = UINTPTR_MAX;
	uint64_t mask = take();

	i = find(addr);
	if (i < count && list[i].addr <= addr) {
		wishes = (uint32_t)list[i].wishes;
		stop = list[i].end;
	} else if (i < count) {
		stop = list[i].addr;
	}
	release(mask);
	if (end)
		*end = stop;
	return wishes;
}

void fx_ranges_move(uintptr_t from, size_t len, uintptr_t to)
{
	for (uintptr_t at = from, next; at < from + len; at = next) {
		uint32_t wishes = fx_ranges_wishes(at, &next);

		if (next > from + len)
			next = from + len;
		fx_ranges_add(to + (at - from), next - at, wishes);
	}
	fx_ranges_cut(from, len);
}

int fx_ranges_wish(uintptr_t addr, size_t len, uint32_t set, uint32_t clear)
{
	uint64_t mask = take();
	int rc = make_room();

	if (!rc) {
		split(addr);
		split(addr + len);
		for (uint32_t i = find(addr); i < count && list[i].addr < addr + len; i++)
			list[i].wishes = (list[i].wishes | set) & ~(uint64_t)clear;
	}
	release(mask);
	return rc;
}

void fx_ranges_forget(void)
{
	lock = 0;
	set_count(0);
}
