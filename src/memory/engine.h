/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The DMA engines behind transport/dma.h.
 *
 * Room: memory. May use: transport/dma.h, memory/window.h; threads for the slow engine only.
 */
#ifndef FX_MEMORY_ENGINE_H
#define FX_MEMORY_ENGINE_H

#include "transport/dma.h"

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
 * an application that stalls its memory never stalls the worker. Not ordered. `wake` is called on the helper
 * thread when completions wait, with `arg` (it rouses a sleeping worker); may be NULL.
 */
struct fx_dma_engine *fx_dma_slow_create(unsigned depth, void (*wake)(void *arg), void *arg);

#endif
