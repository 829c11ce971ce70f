/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * madvise and mremap as they are on private memory, for memory that was converted. The shim's functions of these
 * names lead here; memory that was not converted goes straight to the kernel.
 *
 * Room: host. May use: ranges.h, areas.h, wishes.h, the kernel. No allocation: allocators call these.
 */
#ifndef FX_HOST_MEMORY_H
#define FX_HOST_MEMORY_H

#include <stddef.h>

/* As madvise(2) and mremap(2), with their errors. */
int fx_madvise(void *addr, size_t len, int advice);
void *fx_mremap(void *old, size_t old_len, size_t new_len, int flags, void *to);

#endif
