/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stacks of threads have no names in /proc, but the kernel knows of every thread where its list of robust mutexes
 * begins: in its control block, which C libraries put at the upper end of its stack.
 *
 * Room: host. May use: stacks.h, areas.h.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/areas.h"
#include "host/convert.h"
#include "host/stacks.h"

enum { BLOCK = 1024 }; /* of the control block around the list: the thread id that joiners wait for is near */

static bool overlaps(uintptr_t a, size_t alen, uintptr_t b, size_t blen)
{
	return a < b + blen && b < a + alen;
}

static bool is_own(uintptr_t addr, size_t len)
{
	static __thread void *stack;
	static __thread size_t size;
	pthread_attr_t attr;

	/* thread-local variables too: errno is used while the pages are away */
	if (overlaps(addr, len, (uintptr_t)__builtin_frame_address(0), 1) ||
	    overlaps(addr, len, (uintptr_t)&errno, sizeof(errno)))
		return true;
	if (!size && syscall(SYS_gettid) != getpid() && !pthread_getattr_np(pthread_self(), &attr)) {
		if (pthread_attr_getstack(&attr, &stack, &size))
			size = 0;
		pthread_attr_destroy(&attr);
	}
	return size && overlaps(addr, len, (uintptr_t)stack, size);
}

static uintptr_t control_block(pid_t tid)
{
	void *head = NULL;
	size_t len;

	return syscall(SYS_get_robust_list, tid, &head, &len) ? 0 : (uintptr_t)head;
}

/* `a` is the area around [addr, addr + len). */
static bool is_stack_of(pid_t tid, const struct fx_area *a, uintptr_t addr, size_t len)
{
	uintptr_t block = control_block(tid);

	if (!block)
		return false;
	/* what lies above may be anything */
	if (overlaps(addr, len, block - BLOCK, 2 * BLOCK))
		return true;
	return tid != getpid() && block >= a->start && block < a->end && addr < block;
}

bool fx_stacks_overlap(const void *at, size_t len)
{
	uintptr_t addr = (uintptr_t)at;
	struct fx_area area;
	struct dirent *d;
	bool found = false;
	DIR *tasks;

	if (is_own(addr, len) || is_stack_of(getpid(), &(struct fx_area){0}, addr, len))
		return true;
	if (!fx_has_threads())
		return false;
	tasks = opendir("/proc/self/task");
	if (!tasks || !fx_area_at(addr, &area))
		found = true; /* cannot know: rather a stack */
	while (!found && (d = readdir(tasks))) {
		pid_t tid = atoi(d->d_name); /* 0 for the dots */

		found = tid && tid != getpid() && is_stack_of(tid, &area, addr, len);
	}
	if (tasks)
		closedir(tasks);
	return found;
}
