/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libc's functions behind those that the shim interposes. Looked up all at once, in a constructor or, if some other
 * constructor was earlier, at the first call.
 *
 * Room: shim. A file lists its functions as FNS(X), X(name), includes this, and calls libc()->name.
 */
#include <stddef.h>

#include "shim.h"

static struct behind {
#define X(name) __typeof__(&name) name;
	FNS(X)
#undef X
	int found;
} behind_;

__attribute__((constructor)) static void find_behind(void)
{
	/* idempotent, so threads may race; found is last, with release, for whoever sees it (acquire) */
#define X(name)                                                                                              \
	{                                                                                                    \
		void *fn_ = fx_shim_behind(#name);                                                           \
		if (!fn_)                                                                                    \
			fx_shim_missing(#name);                                                              \
		__atomic_store_n((void **)(void *)&behind_.name, fn_, __ATOMIC_RELAXED);                     \
	}
	FNS(X)
#undef X
	__atomic_store_n(&behind_.found, 1, __ATOMIC_RELEASE);
}

static inline const struct behind *libc(void)
{
	if (__builtin_expect(!__atomic_load_n(&behind_.found, __ATOMIC_ACQUIRE), 0))
		find_behind();
	return &behind_;
}
