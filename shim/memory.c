/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Interposed madvise and mremap: registered memory that was converted behaves as the private memory that the program
 * takes it for. posix_madvise needs nothing: none of its advice changes what memory holds.
 *
 * Room: shim. May use: host's inner header for these two, libc. Nothing but translation.
 */
#include <stdarg.h>
#include <sys/mman.h>

#include "host/memory.h"
#include "host/wishes.h"

#define EXPORT __attribute__((visibility("default")))

__attribute__((constructor)) static void watch(void)
{
	fx_wishes_watch();
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	return fx_madvise(addr, len, advice);
}

EXPORT void *mremap(void *old, size_t old_len, size_t new_len, int flags, ...)
{
	void *to = NULL;
	va_list args;

	if (flags & MREMAP_FIXED) {
		va_start(args, flags);
		to = va_arg(args, void *);
		va_end(args);
	}
	return fx_mremap(old, old_len, new_len, flags, to);
}
