/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What programs do to their memory after it was converted. Each area in the range is treated as what it is; to the
 * program they are one.
 *
 * Room: host. May use: memory.h.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/areas.h"
#include "host/memory.h"
#include "host/ranges.h"
#include "host/wishes.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* 0 or a negative errno. */
static int advise(uintptr_t addr, size_t len, int advice)
{
	return syscall(SYS_madvise, addr, len, advice) ? -errno : 0;
}

static uintptr_t move(uintptr_t from, size_t len, size_t new_len, int flags, uintptr_t to)
{
	return (uintptr_t)syscall(SYS_mremap, from, len, new_len, flags, to);
}

static size_t round_up(size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (n + page - 1) & ~(page - 1);
}

/* ---- madvise ---- */

/*
 * The pages go, and read as zeroes: for the core too. Where the program may not write, through another view of the
 * same pages (which is what mremap makes of a length of 0).
 */
static int discard(uintptr_t addr, size_t len)
{
	uintptr_t view;
	int rc = advise(addr, len, MADV_REMOVE);

	if (rc != -EACCES)
		return rc;
	view = move(addr, 0, len, MREMAP_MAYMOVE, 0);
	if (view == (uintptr_t)MAP_FAILED)
		return -errno;
	rc = syscall(SYS_mprotect, view, len, PROT_READ | PROT_WRITE) ? -errno
								      : advise(view, len, MADV_REMOVE);
	syscall(SYS_munmap, view, len);
	return rc;
}

/* Advice that means something else on shared memory than on private. */
static int advise_converted(uintptr_t addr, size_t len, int advice)
{
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_DONTNEED_LOCKED:
	case MADV_FREE:
		return discard(addr, len);
	case MADV_DONTFORK: /* to the kernel it is so already */
		return fx_ranges_wish(addr, len, FX_WISH_NO_FORK, 0);
	case MADV_DOFORK:
		return fx_ranges_wish(addr, len, 0, FX_WISH_NO_FORK);
	case MADV_WIPEONFORK:
		return fx_ranges_wish(addr, len, FX_WISH_WIPE_FORK, 0);
	case MADV_KEEPONFORK:
		return fx_ranges_wish(addr, len, 0, FX_WISH_WIPE_FORK);
	default:
		return advise(addr, len, advice);
	}
}

static bool differs(int advice)
{
	return advice == MADV_DONTNEED || advice == MADV_DONTNEED_LOCKED || advice == MADV_FREE ||
	       advice == MADV_DONTFORK || advice == MADV_DOFORK || advice == MADV_WIPEONFORK ||
	       advice == MADV_KEEPONFORK;
}

/* Goes on behind a hole, and tells of it in the end, as the kernel does. */
static int advise_areas(uintptr_t at, uintptr_t end, int advice)
{
	struct fx_area a;
	int rc = 0, hole = 0;

	while (at < end && !rc) {
		uintptr_t to;

		if (!fx_area_at(at, &a) || a.start >= end)
			return -ENOMEM;
		if (a.start > at) {
			hole = -ENOMEM;
			at = a.start;
		}
		to = a.end < end ? a.end : end;
		rc = a.converted ? advise_converted(at, to - at, advice) : advise(at, to - at, advice);
		at = to;
	}
	return rc ? rc : hole;
}

int fx_madvise(void *addr, size_t len, int advice)
{
	uintptr_t at = (uintptr_t)addr;
	size_t n = round_up(len);
	int rc;

	fx_wishes_heard(advice);
	if (!differs(advice) || at != round_up(at) || at + n < at || !fx_ranges_any(at, n))
		return (int)syscall(SYS_madvise, addr, len, advice);
	rc = advise_areas(at, at + n, advice);
	if (rc)
		errno = -rc;
	return rc ? -1 : 0;
}

/* ---- mremap ---- */

/*
 * Converted or not, the areas [from, end) to where `to` is reserved, one by one. If one cannot be moved, all are put
 * back. 0 or a negative errno.
 */
static int move_areas(uintptr_t from, uintptr_t end, uintptr_t to)
{
	struct fx_area a;
	uintptr_t at = from;
	int rc = 0;

	while (at < end && !rc) {
		bool found = fx_area_at(at, &a) && a.start <= at;
		size_t len = !found ? 0 : (a.end < end ? a.end : end) - at;
		uintptr_t dest = to + (at - from);

		if (!found)
			rc = -EFAULT;
		else if (move(at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, dest) != dest)
			rc = -errno;
		if (rc)
			break;
		if (a.converted)
			fx_ranges_move(at, len, dest);
		at += len;
	}
	if (rc && at > from)
		move_areas(to, to + (at - from), from);
	return rc;
}

/* More of what is at [at, end): private memory, as the program thinks that all of it is. 0 or a negative errno. */
static int append(uintptr_t at, uintptr_t end, size_t more, int where)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | where;
	struct fx_area last;
	size_t len;

	if (!fx_area_at(end - 1, &last) || last.start >= end)
		return -EFAULT;
	if (!last.converted && where == MAP_FIXED_NOREPLACE) {
		len = end - (last.start > at ? last.start : at);
		return move(end - len, len, len + more, 0, 0) == end - len ? 0 : -errno;
	}
	/* a kernel that does not know MAP_FIXED_NOREPLACE may map it elsewhere */
	at = (uintptr_t)syscall(SYS_mmap, end, more, last.prot, flags, -1, (off_t)0);
	if (at != end) {
		if (at != (uintptr_t)MAP_FAILED)
			syscall(SYS_munmap, at, more);
		return -ENOMEM;
	}
	fx_wishes_apply(fx_ranges_wishes(end - 1, NULL), end, more);
	return 0;
}

/* Somewhere else: to `to`, or anywhere if it is 0. -> the new address, or MAP_FAILED and errno. */
static uintptr_t relocate(uintptr_t old, size_t old_len, size_t new_len, int flags, uintptr_t to)
{
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	size_t kept = old_len < new_len ? old_len : new_len;
	struct fx_area first = {0};
	int rc;

	if (to < old + old_len && old < to + new_len && to) {
		errno = EINVAL;
		return (uintptr_t)MAP_FAILED;
	}
	fx_area_at(old, &first);
	if (to)
		fx_ranges_cut(to, new_len);
	to = (uintptr_t)syscall(SYS_mmap, to, new_len, PROT_NONE, anon | (to ? MAP_FIXED : 0), -1, (off_t)0);
	if (to == (uintptr_t)MAP_FAILED)
		return to;
	rc = move_areas(old, old + kept, to);
	if (!rc && new_len > kept)
		rc = append(to, to + kept, new_len - kept, MAP_FIXED);
	if (rc) {
		syscall(SYS_munmap, to, new_len);
		errno = -rc;
		return (uintptr_t)MAP_FAILED;
	}
	if (flags & MREMAP_DONTUNMAP) /* what stays behind is empty */
		syscall(SYS_mmap, old, old_len, first.prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			(off_t)0);
	else if (old_len > kept)
		syscall(SYS_munmap, old + kept, old_len - kept);
	return to;
}

static uintptr_t remap(uintptr_t old, size_t old_len, size_t new_len, int flags, uintptr_t to)
{
	const int fixed = MREMAP_FIXED | MREMAP_DONTUNMAP;
	int rc;

	if (flags & fixed)
		return relocate(old, old_len, new_len, flags, flags & MREMAP_FIXED ? to : 0);
	if (new_len <= old_len) {
		if (new_len < old_len)
			syscall(SYS_munmap, old + new_len, old_len - new_len);
		fx_ranges_cut(old + new_len, old_len - new_len);
		return old;
	}
	rc = append(old, old + old_len, new_len - old_len, MAP_FIXED_NOREPLACE);
	if (!rc)
		return old;
	if (flags & MREMAP_MAYMOVE)
		return relocate(old, old_len, new_len, flags, 0);
	errno = -rc;
	return (uintptr_t)MAP_FAILED;
}

/* What the kernel refuses of private memory, for whatever reason, it shall refuse in its own words. */
static bool odd(uintptr_t old, size_t old_len, size_t new_len, int flags, uintptr_t to)
{
	const int known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;

	if (flags & ~known || ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && !(flags & MREMAP_MAYMOVE)))
		return true;
	if ((flags & MREMAP_DONTUNMAP) && new_len != old_len)
		return true;
	return !new_len || old != round_up(old) || old + old_len < old ||
	       ((flags & MREMAP_FIXED) && (to != round_up(to) || !to));
}

void *fx_mremap(void *old, size_t old_len, size_t new_len, int flags, void *to)
{
	uintptr_t at = (uintptr_t)old;
	size_t n = round_up(old_len);

	if (!fx_ranges_any(at, n ? n : 1) || odd(at, n, round_up(new_len), flags, (uintptr_t)to))
		return (void *)move(at, old_len, new_len, flags, (uintptr_t)to);
	if (!n) { /* shared memory would be there twice */
		errno = EINVAL;
		return MAP_FAILED;
	}
	return (void *)remap(at, n, round_up(new_len), flags, (uintptr_t)to);
}
