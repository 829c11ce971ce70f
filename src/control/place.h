/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The seam of the placement: where a core stands to its hosts, which is how it reaches their rings and how it wakes them.
 * One table of functions for each; above it nobody asks which one it is.
 *
 * Room: control. place_shared.c: one machine, an arena that both sides map. place_remote.c: no memory in common, copies
 * that the worker's mirror keeps (mirror/mirror.h), everything else on the connection.
 *
 * What is opened here is handed to a worker by a command, and closed here when the worker has answered that it does not
 * know it any more. Functions that return an int return 0 or a negative errno.
 */
#ifndef FX_CONTROL_PLACE_H
#define FX_CONTROL_PLACE_H

#include <stdint.h>

struct fx_client;
struct fx_cq;
struct fx_pipe_rx;
struct fx_ctx;
struct fx_rxq;

/* How a worker's byte reaches whoever waits for events. */
struct fx_wake {
	int ring; /* the worker's end of a pipe, O_NONBLOCK */
	int ear;  /* the client's end, to go with a reply; -1: it is told on its connection */
	struct fx_ear *listener;
};
#define FX_NO_WAKE ((struct fx_wake){.ring = -1, .ear = -1})

struct fx_place_ops {
	const char *name;
	uint32_t plan_flags; /* more of them for every fx_space_plan() */
	/* The context's pipe and events, in ctx->wctx; with the client's why where there is more to say than the errno. */
	int (*open)(struct fx_ctx *ctx, struct fx_client *c);
	void (*close)(struct fx_ctx *ctx);
	/* What of the reply to the greeting depends on the placement, descriptors too. */
	void (*welcome)(struct fx_ctx *ctx, struct fx_client *c);
	/* A further send pipe whose head is at `off` of the arena. -EOPNOTSUPP: there can be none. */
	int (*pipe_open)(struct fx_ctx *ctx, struct fx_pipe_rx *pipe, uint64_t off, uint32_t shift);
	/* A CQ whose head is at `off` of the arena: fills in how the worker reaches its ring. */
	int (*cq_open)(struct fx_ctx *ctx, struct fx_cq *cq, uint64_t off, uint32_t shift);
	void (*cq_close)(struct fx_cq *cq);
	/* A receive queue, whose shift and stride are set. */
	int (*rq_open)(struct fx_ctx *ctx, struct fx_rxq *rx, uint64_t off);
	void (*rq_close)(void *copy); /* what rq_open made rx->copy */
	/* For those who wait on channel `handle`, or 0: for asynchronous events. */
	int (*wake_open)(struct fx_ctx *ctx, struct fx_wake *w, uint32_t handle);
	void (*wake_close)(struct fx_wake *w);
};

#endif
