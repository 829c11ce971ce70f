/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The DMA engines behind transport/dma.h.
 *
 * Room: memory. May use: transport/dma.h, memory/window.h; threads for the slow engine only.
 */
#ifndef FX_MEMORY_ENGINE_H
#define FX_MEMORY_ENGINE_H

#include <errno.h>

#include "transport/dma.h"

/*
 * An atomic on a window, by the CPU: atomic to every thread that shares the memory, ours or the application's. A
 * window may lie otherwise than the addresses that the peer aligns: 0, or -EFAULT where the word is not aligned here.
 */
static inline int fx_atomic_run(const struct fx_dma *d)
{
	struct fx_dma_atomic *a = (struct fx_dma_atomic *)(void *)d->local;
	uint64_t __attribute__((may_alias)) *word = (void *)d->win;

	if ((uintptr_t)d->win % sizeof(*word))
		return -EFAULT;
	a->original = a->compare;
	/* seq_cst: applications build locks of it */
	if (d->op == FX_DMA_STORE)
		__atomic_store_n(word, a->swap_add, __ATOMIC_SEQ_CST);
	else if (d->op == FX_DMA_FETCH_ADD)
		a->original = __atomic_fetch_add(word, a->swap_add, __ATOMIC_SEQ_CST);
	else
		__atomic_compare_exchange_n(word, &a->original, a->swap_add, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
	return 0;
}

/*
 * Copies at once, merging neighbours of one submission; the last bytes of a descriptor are stored last, so that a
 * program spinning on the final byte of a message sees all of it. Ordered. `depth` bounds unpolled completions.
 */
struct fx_dma_engine *fx_dma_cpu_create(unsigned depth);

/*
 * Copies late and out of order: a descriptor's bytes move, and it completes, after a pseudo-random number (up to
 * max_delay) of polls. Deterministic from `seed`. Not ordered.
 */
struct fx_dma_engine *fx_dma_chaos_create(unsigned depth, unsigned max_delay, uint64_t seed);

/*
 * Reaches what no window maps (descriptors with `win` NULL) by /proc/PID/mem, on a helper thread of its own, so that
 * an application that stalls its memory never stalls the worker. Ordered, for each application. `wake` is called on the helper
 * thread when completions wait, with `arg` (it rouses a sleeping worker); may be NULL.
 */
struct fx_dma_engine *fx_dma_slow_create(unsigned depth, void (*wake)(void *arg), void *arg);

/*
 * Another engine as if it were behind a bus: a request of `len` bytes completes latency_ns after the bus has carried
 * it and all before it; `reorder_permille` of them come later still, overtaken by others. Takes `inner` over (also its
 * destruction), unless it returns NULL. As ordered as that one: what a bus lets overtake others are completions, since writes
 * that no attribute relaxes stay in their order on PCIe.
 */
struct fx_dma_carried {
	uint64_t reads, writes, bytes;
};
struct fx_dma_bus {
	uint64_t latency_ns;
	uint64_t bytes_per_us; /* 0: no limit */
	uint32_t reorder_permille;
	uint64_t seed;
	uint64_t (*now)(void *arg);	/* ns */
	struct fx_dma_carried *carried; /* counted there; or NULL */
	void *arg;
};
/*
 * "latency=NS,width=GB/s,reorder=PERMILLE,seed=N", any of them, over a PCIe 5.0 x16: 1000 ns for a read of the host's
 * memory, 63 GB/s (32 GT/s on 16 lanes, less the 128b/130b code), 50 per mille overtaken. NULL, or what is allowed.
 */
const char *fx_dma_bus_parse(struct fx_dma_bus *bus, const char *text);
struct fx_dma_engine *fx_dma_bus_create(struct fx_dma_engine *inner, unsigned depth,
					const struct fx_dma_bus *bus);

#endif
