/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which memory is some thread's stack. Such memory is never converted: this thread would wait for itself, and
 * whoever joins another one would wait for ever, since the kernel looks for waiters by page once it is shared.
 *
 * Room: host. May use: areas.h, convert.h, libc, the kernel.
 */
#ifndef FX_HOST_STACKS_H
#define FX_HOST_STACKS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Is any of [addr, addr + len), which lies in one area, stack or thread control block of a thread of this process?
 * What lies below a thread's control block in the same area counts as its stack. The first thread's stack the core
 * knows by name.
 */
bool fx_stacks_overlap(const void *addr, size_t len);

#endif
