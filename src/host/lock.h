/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A lock for a few instructions: spins shortly, then yields the CPU to whoever holds it.
 *
 * Room: host. May use: libc. A lock is a uint32_t, 0 when free.
 */
#ifndef FX_HOST_LOCK_H
#define FX_HOST_LOCK_H

#include <sched.h>
#include <stdint.h>

enum { FX_LOCK_SPINS = 64 };

static inline void fx_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Out of line: the uncontended path stays small where it is inlined. */
__attribute__((noinline, unused)) static void fx_lock_wait(uint32_t *lock)
{
	unsigned spins = 0;

	do {
		while (__atomic_load_n(lock, __ATOMIC_RELAXED)) {
			if (++spins < FX_LOCK_SPINS)
				fx_pause();
			else
				sched_yield();
		}
		/* acquire: against the release of fx_unlock(), so that the last holder's writes are seen */
	} while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE));
}

static inline void fx_lock(uint32_t *lock)
{
	if (__builtin_expect(__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0, 0))
		fx_lock_wait(lock);
}

static inline void fx_unlock(uint32_t *lock)
{
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

#endif
