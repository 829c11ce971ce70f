/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The asynchronous DMA engine, as the transport drives it: copies between packet buffers and windows.
 *
 * Room: transport (the seam); the engines themselves are the memory room's. May use: transport/mr.h. Submit, then poll for completions, always: the CPU engine only
 * happens to have them at once. An engine that is `ordered` makes its writes visible in the order of submission;
 * on any other, and between engines, the transport keeps one write of a QP in flight at a time (guarantee O2).
 * All calls come from the one worker that owns the engine.
 */
#ifndef FX_TRANSPORT_DMA_H
#define FX_TRANSPORT_DMA_H

#include "transport/mr.h"

enum fx_dma_op {
	FX_DMA_COPY,
	/* on the 64-bit word at `win`, in this machine's byte order; `local` is a struct fx_dma_atomic, `len` 8 */
	FX_DMA_COMPARE_SWAP,
	FX_DMA_FETCH_ADD,
	FX_DMA_STORE, /* of swap_add */
};

struct fx_dma_atomic {
	uint64_t compare, swap_add;
	uint64_t original; /* out: what the word held */
};

/*
 * One copy, or one atomic. `win` NULL: the slow path, at `va` of `mr`. Atomics are atomic among each other, and where
 * there is a window also to the CPUs that share it (guarantee W3); a word that `win` does not align fails.
 */
struct fx_dma {
	uint8_t *win;	/* window side, or NULL */
	uint8_t *local; /* packet-buffer side */
	uint32_t len;
	bool to_window; /* else from it */
	/*
	 * Ring entries: each aligned 64 bytes of the window are read, or each aligned 32 written, at once, as on a bus;
	 * so an entry's phase never comes without the rest of it. An aligned word alone likewise.
	 */
	bool lines;
	uint8_t op; /* enum fx_dma_op */
	const struct fx_mr *mr;
	uint64_t va;  /* in the MR's iova space */
	void *cookie; /* comes back with the completion */
};

struct fx_dma_done {
	void *cookie;
	int err; /* 0 or a negative errno: the window is gone; -ESRCH: its program has left */
};

struct fx_dma_engine;
struct fx_dma_ops {
	const char *name;
	bool ordered;
	/* Takes up to n, in order; returns how many. The descriptors are copied. */
	unsigned (*submit)(struct fx_dma_engine *e, const struct fx_dma *d, unsigned n);
	/* What was submitted begins now at the latest; so does polling. NULL: it has begun. */
	void (*flush)(struct fx_dma_engine *e);
	/* Returns up to max completions, in any order. */
	unsigned (*poll)(struct fx_dma_engine *e, struct fx_dma_done *out, unsigned max);
	/* 0 when nothing is under way. */
	unsigned (*pending)(const struct fx_dma_engine *e);
	/* True: whatever is under way rouses the owner when it ends. NULL: it has to poll. */
	bool (*wakes)(const struct fx_dma_engine *e);
	void (*destroy)(struct fx_dma_engine *e);
};
struct fx_dma_engine {
	const struct fx_dma_ops *ops;
};
static inline void fx_dma_flush(struct fx_dma_engine *e)
{
	if (e->ops->flush)
		e->ops->flush(e);
}
/* Is there something under way that only polling brings forward? */
static inline bool fx_dma_wants_poll(const struct fx_dma_engine *e)
{
	return e->ops->pending(e) && !(e->ops->wakes && e->ops->wakes(e));
}

#endif
