/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Windows: an application's registered memory, as this process reaches it.
 *
 * Room: memory. May use: transport/mr.h, control/protocol.h, the kernel's /proc.
 *
 * A registration takes two steps, because only the application can turn its private pages into shared ones:
 * fx_space_plan() says what should be converted, the application does it (host/convert.h), and
 * fx_space_commit() looks at what is really there and builds one flat window of it. Nothing the application
 * claims is believed.
 *
 * Threads: every function is for the one control thread, but for the fx_mr_poisoned() family, which any may
 * call. Errors are negative errnos.
 */
#ifndef FX_MEMORY_WINDOW_H
#define FX_MEMORY_WINDOW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/protocol.h"
#include "transport/mr.h"

struct fx_space; /* one application's address space */

/*
 * Opens the address space of `pid`, once, when the application connects: what is opened follows that address
 * space and not the process, so neither exec nor a reused process id can redirect it. On failure returns NULL
 * with errno set and a sentence in `why`.
 */
struct fx_space *fx_space_open(pid_t pid, char *why, size_t whylen);

/*
 * Ends the use of an address space. Never waits: slow transfers that are under way complete with -ESRCH at
 * the next poll of their engine. Windows stay mapped, and readable memory, until fx_mr_unmap().
 */
void fx_space_close(struct fx_space *s);

/* Beside enum fx_reg_flags, and nothing for a client to ask: nothing is mapped, whatever it is. */
#define FX_PLAN_ALL_SLOW (UINT32_C(1) << 31)

/*
 * Step 1. Cuts [addr, addr + length) into at most FX_MR_SEGS segments that cover it exactly and in order,
 * with a memfd for each FX_SEG_CONVERT in fds[FX_MSG_FDS]; the fds stay the space's own: pass them on, do not
 * close them. `access` is enum fx_access, `flags` enum fx_reg_flags, or FX_PLAN_ALL_SLOW. Keep the segments for step 2.
 * -EINVAL: empty or wraps round; -EFAULT: a hole, memory that cannot be read, or write access to read-only
 * memory; -ESRCH: the application is gone; -ENOMEM.
 */
int fx_space_plan(struct fx_space *s, uint64_t addr, uint64_t length, uint32_t access, uint32_t flags,
		  struct fx_mr_seg *seg, uint32_t *nseg, int *fds, uint32_t *nfd);

/*
 * Step 2. Maps what the application now shares and fills in base, run, nrun, length and slow of `mr`, whose
 * other fields are the caller's (access and iova before this call). `seg` must be this process's own copy
 * from step 1. `converted` is the application's claim, which only spares looking for memory that it failed to
 * convert. Whatever is not shared, or cannot be mapped, becomes a slow run. -EFAULT: the memory has gone
 * meanwhile; -ESRCH: the application has; -ENOMEM; -EAGAIN: no helper thread for slow runs. After an error
 * nothing is left behind.
 */
int fx_space_commit(struct fx_space *s, const struct fx_mr_seg *seg, uint32_t nseg, uint64_t converted,
		    struct fx_mr *mr);

/* Instead of step 2, where it will never come: forgets the memfds of a plan. */
void fx_space_abandon(struct fx_space *s, const struct fx_mr_seg *seg, uint32_t nseg);

/*
 * Takes a window away again: after the grace period of mr.h, with no transfer under way. Also after the space
 * was closed.
 */
void fx_mr_unmap(struct fx_mr *mr);

/* For flexinsctl: "mapped", "mixed" or "slow". */
const char *fx_mr_window_kind(const struct fx_mr *mr);

/*
 * 0, or the number of the slow transfer that is under way. A number that stays the same for seconds is an
 * application that stalls its own memory: disconnect it.
 */
uint32_t fx_space_stall(const struct fx_space *s);

/*
 * A guard against applications that take the backing away under a window (truncate, punch a hole in
 * hugetlbfs): the access would raise SIGBUS; the handler puts zeroes there, marks the window, whose region
 * then has length 0, and the access goes on. Call once, after whatever else installs signal handlers. SIGBUS from anywhere else keeps its
 * former meaning.
 */
int fx_window_guard(void);

extern _Atomic uint32_t fx_poison_count; /* windows poisoned so far, ever */

static inline uint32_t fx_poisoned_so_far(void)
{
	/* relaxed: the handler ran on the thread that asks, in the middle of its own copy */
	return atomic_load_explicit(&fx_poison_count, memory_order_relaxed);
}
static inline bool fx_poisoned_any(void)
{
	return __builtin_expect(fx_poisoned_so_far() != 0, 0);
}
bool fx_mr_poisoned(const struct fx_mr *mr);
/* Is this address in a window that was poisoned? Slow. */
bool fx_poisoned_at(const void *at);

/*
 * Behind a copy between a region and `local`: has it failed, because the backing of either was taken away? With a
 * loopback's packets, whose payload is in the sender's window, both are windows. `before`: the count, as it was before.
 */
static inline bool fx_poison_hit(const struct fx_mr *mr, const void *local, uint32_t before)
{
	return fx_poisoned_any() &&
	       (fx_mr_poisoned(mr) || (before != fx_poisoned_so_far() && fx_poisoned_at(local)));
}

#endif
