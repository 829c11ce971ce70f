/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finding out what a program asked for its memory, and asking for it again.
 *
 * Room: host. May use: wishes.h.
 */
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/areas.h"
#include "host/ranges.h"
#include "host/wishes.h"

static bool watched, heard; /* atomic */

void fx_wishes_watch(void)
{
	__atomic_store_n(&watched, true, __ATOMIC_RELAXED);
}

void fx_wishes_heard(int advice)
{
	if (advice == MADV_DONTDUMP || advice == MADV_HUGEPAGE || advice == MADV_NOHUGEPAGE ||
	    advice == MADV_DONTFORK || advice == MADV_WIPEONFORK)
		/* relaxed: who registers the memory has synchronised with whoever gave the advice */
		__atomic_store_n(&heard, true, __ATOMIC_RELAXED);
}

/* Has the process locked any memory? When in doubt, yes. */
static bool locks_memory(void)
{
	char text[4096];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	const char *at;

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strstr(text, "VmLck:");
	return !at || strtoul(at + 6, NULL, 10) != 0;
}

void fx_wishes_look(struct fx_kept *k, uintptr_t addr)
{
	*k = (struct fx_kept){0};
	if (!__atomic_load_n(&watched, __ATOMIC_RELAXED) || __atomic_load_n(&heard, __ATOMIC_RELAXED) ||
	    locks_memory())
		k->wishes = fx_area_wishes(addr);
	if (syscall(SYS_get_mempolicy, &k->policy, k->nodes, sizeof(k->nodes) * 8, addr, MPOL_F_ADDR))
		k->policy = MPOL_DEFAULT;
}

void fx_wishes_apply(uint32_t wishes, uintptr_t addr, size_t len)
{
	if (wishes & FX_WISH_NO_DUMP)
		syscall(SYS_madvise, addr, len, MADV_DONTDUMP);
	if (wishes & FX_WISH_HUGE)
		syscall(SYS_madvise, addr, len, MADV_HUGEPAGE);
	if (wishes & FX_WISH_NO_HUGE)
		syscall(SYS_madvise, addr, len, MADV_NOHUGEPAGE);
	if (wishes & FX_WISH_LOCKED)
		syscall(SYS_mlock, addr,
			len); /* may fail: the new pages count as well until the old ones are gone */
}

static void keep(const struct fx_kept *k, uintptr_t addr, size_t len)
{
	syscall(SYS_madvise, addr, len, MADV_DONTFORK);
	fx_wishes_apply(k->wishes, addr, len);
	if (k->policy != MPOL_DEFAULT)
		syscall(SYS_mbind, addr, len, k->policy, k->nodes, sizeof(k->nodes) * 8, MPOL_MF_MOVE);
	fx_ranges_add(addr, len, k->wishes);
}

void fx_wishes_keep(const struct fx_kept *k, uintptr_t addr, size_t len, bool all)
{
	uintptr_t end = addr + len;
	struct fx_area a;

	if (all)
		keep(k, addr, len);
	while (!all && addr < end && fx_area_at(addr, &a) && a.start < end) {
		uintptr_t from = a.start > addr ? a.start : addr, to = a.end < end ? a.end : end;

		if (a.converted)
			keep(k, from, to - from);
		addr = to;
	}
}
