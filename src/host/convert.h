/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The application's half of a registration: turning its private pages into shared ones under its running
 * threads.
 *
 * Room: host. May use: libc and the kernel. No allocation while pages are away; raw system calls for
 * everything that programs or our own shim interpose. Errors are negative errnos.
 */
#ifndef FX_HOST_CONVERT_H
#define FX_HOST_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Once in each process that registers memory. Takes over `uffd_dev`, the userfaultfd device that the core
 * passed, or -1. 0, or an error that says why other threads' writes cannot be held up. A forked child opens
 * its own from the same device when it first converts.
 */
int fx_convert_init(int uffd_dev);

/* Are there other threads in this process? */
bool fx_has_threads(void);

/* Can pages be converted with no update lost? Without userfaultfd: only while there is one thread. */
bool fx_convert_possible(void);

/*
 * Replaces the private anonymous pages [addr, addr + len) by a mapping of `memfd` from `off` with the same
 * contents, populated. `prot` is what the pages had. Threads that touch the range meanwhile wait; nothing
 * they write is lost. Page-aligned, within one area.
 *
 * The caller serialises whole registrations (step 1, conversion, step 2), so that no range is converted
 * twice.
 *
 * -EDEADLK: a thread's stack is in the range; -EPERM: fx_convert_possible() is false; others as the kernel
 * said. After an error some leading part may be converted, the rest is as it was, and all of it is intact.
 */
int fx_convert(void *addr, size_t len, int memfd, uint64_t off, int prot);

/*
 * Makes sure that [addr, addr + len) of a shared writable mapping has pages, so that this process's cgroup
 * pays for them: for segments that the core calls FX_SEG_SHARED. 0 or a negative errno; the registration can
 * go on regardless.
 */
int fx_populate(void *addr, size_t len);

/*
 * Converted pages [addr, addr + len), mapped in one piece: whoever writes there waits, system calls too, until the
 * release; the core does not. 0, or an error of kernels that cannot (before 5.19), which let writers pass.
 */
int fx_writers_hold(void *addr, size_t len);
void fx_writers_release(void *addr, size_t len);

/* Closes what fx_convert_init() opened. */
void fx_convert_fini(void);

#endif
