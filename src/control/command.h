/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Between the control thread and a worker: commands, their mailbox, and a context as its worker sees it.
 *
 * Room: control. May use: transport/transport.h, pipe. No DPDK: the unit tests answer a mailbox with a thread
 * of their own. Whoever asks owns the command and everything it points at until it comes back; nothing is
 * allocated for sending one, so that taking things down cannot fail.
 */
#ifndef FX_CONTROL_COMMAND_H
#define FX_CONTROL_COMMAND_H

#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "transport/transport.h"

enum fx_cmd_op {
	FX_CMD_CTX_ADD,	   /* poll this context's pipe */
	FX_CMD_CTX_DEL,	   /* and no more: its memory goes away next */
	FX_CMD_CTX_BROKEN, /* from the worker: the pipe contradicts itself, the context has to go */
	FX_CMD_CQ_ADD,	   /* data: struct fx_cq; from now on it may be armed */
	FX_CMD_CQ_DEL,	   /* data: the same; nothing of it is under way after it */
	FX_CMD_CQ_MODIFY,  /* data: struct fx_cmd_cq: moderation */
	FX_CMD_CQ_RESIZE,  /* data: the same: to another ring */
	FX_CMD_PIPE_ADD,   /* data: struct fx_wpipe; it is polled from now on */
	FX_CMD_PIPE_DEL,   /* data: the same; and no more */
	FX_CMD_QP_ATTACH,
	FX_CMD_QP_MODIFY,  /* data: struct fx_cmd_modify */
	FX_CMD_QP_QUERY,   /* data: struct fx_cmd_modify, its attr, gen filled in */
	FX_CMD_MCAST_JOIN, /* data: struct fx_member */
	FX_CMD_MCAST_LEAVE,
	FX_CMD_QP_DETACH, /* comes back once nothing points at the QP, which is then freed */
	FX_CMD_SRQ_ADD,	  /* data: struct fx_cmd_srq; as SRQ_ARM, and messages of XRC find it */
	FX_CMD_SRQ_ARM,	  /* data: struct fx_cmd_srq; the limit, which it answers with */
	FX_CMD_SRQ_QUERY, /* the same, but that it only answers */
	FX_CMD_SRQ_DEL,	  /* data: struct fx_rxq; nothing of it is under way after it */
	FX_CMD_GRACE,	  /* comes back once nothing under way of the context was looked up before it */
	FX_CMD_PASS,	  /* comes back once nothing that was looked up before it is looked at */
	FX_CMD_SNAPSHOT,  /* data: struct fx_cmd_snapshot */
	FX_CMD_OPS
};

struct fx_cmd {
	struct fx_cmd *next;
	void (*done)(struct fx_cmd *cmd); /* on the control thread */
	void *arg;			  /* the asker's */
	struct fx_wctx *ctx;
	struct fx_qp *qp;
	void *data;
	uint64_t deadline; /* the worker's */
	uint32_t pipe_pi;
	int err; /* 0 or a negative errno */
	uint8_t op;
	bool in_turn; /* run only after the pipe was consumed up to pipe_pi (guarantee P7) */
};

struct fx_cmd_modify {
	struct fx_qp_attr attr;
	struct fx_path path;
	bool have_path;
	uint32_t mask, sq_index, rq_index;
	uint32_t gen; /* afterwards */
};

struct fx_cmd_cq {
	struct fx_cq *cq;
	uint32_t every;	   /* MODIFY */
	uint64_t patience; /* ns */
	struct fx_cq to; /* RESIZE: a CQ that was opened for its ring; holds the old one's copy afterwards */
	uint32_t ci;	 /* the host's index */
	uint32_t end;	 /* afterwards: index of the first CQE in the new ring */
};

struct fx_cmd_srq {
	struct fx_rxq *rx;
	uint32_t limit;
};

/* The worker's own counters: what it polls, sends and frees. */
#define FX_WORKER_COUNTER_LIST(X)                                                                            \
	X(loops, "turns of the poll loop")                                                                   \
	X(sleeps, "times it went to sleep")                                                                  \
	X(kicks, "times something other than a timer woke it")                                               \
	X(bus_landed, "DMA requests that put what was received into memory across a bus")                    \
	X(bus_landed_bytes, "... and their bytes")                                                           \
	X(bus_fetched, "DMA requests that fetched what is sent")                                             \
	X(bus_fetched_bytes, "... and their bytes")                                                          \
	X(bus_ring_reads, "DMA requests for entries of send pipes and receive queues, and indices")          \
	X(bus_ring_writes, "DMA requests with completions, events, indices, and words of the core page")     \
	X(bus_ring_bytes, "... and the bytes of both")                                                       \
	X(pipe_entries, "entries taken from send pipes")                                                     \
	X(pipe_broken, "pipes that contradicted themselves: their contexts were ended")                      \
	X(header_only, "packets sent as a header and the application's own memory")                          \
	X(linearised, "packets copied into one buffer because the port cannot take a chain")                 \
	X(tx_bursts, "bursts handed to the port")                                                            \
	X(tx_full, "bursts that the port did not take whole; the rest waited")                               \
	X(tx_no_buffer, "times sending waited for buffers")                                                  \
	X(rx_frames, "frames taken from the port")                                                           \
	X(rx_long_chain, "frames in too many pieces, dropped")                                               \
	X(staged, "packets gathered from memory that only the helper reaches")                               \
	X(stage_errors, "of these that could not be read")                                                   \
	X(graces, "grace periods")                                                                           \
	X(commands, "commands of the control thread")                                                        \
	X(late_commands, "commands that gave up waiting for a pipe index that never came")                   \
	X(arms, "times completion queues were armed")                                                        \
	X(bad_arms, "of these for what is no CQ, or not any more: passed over")                              \
	X(comp_events, "completion events delivered to applications")                                        \
	X(async_events, "asynchronous events delivered to applications")                                     \
	X(events_lost, "events that found no room because the application took none")

struct fx_worker_counters {
#define X(name, text) uint64_t name;
	FX_WORKER_COUNTER_LIST(X)
#undef X
};

struct fx_port_stats {
	uint64_t tx_packets, tx_bytes, tx_errors, rx_packets, rx_bytes, rx_missed, rx_errors, rx_nombuf;
	bool up;
};

enum { FX_SNAP_QPS = 64 };
struct fx_cmd_snapshot {
	struct fx_counters transport;
	struct fx_worker_counters worker;
	struct fx_port_stats port;
	uint64_t memory;
	bool want_counters;
	uint32_t nqp;
	const struct fx_qp *qp[FX_SNAP_QPS];
	struct fx_qp_info info[FX_SNAP_QPS];
};

/* A send pipe beside the context's first. */
struct fx_wpipe {
	struct fx_pipe_rx rx;
	struct fx_wpipe *next; /* the worker's */
};

/* A context, as its worker sees it. The control thread fills in the first part before CTX_ADD. */
struct fx_wctx {
	uint32_t id;
	struct fx_under_way under_way; /* the worker's, like those below, but read with every packet */
	struct fx_pipe_rx pipe;
	int kick;		      /* eventfd; the application writes it */
	struct fx_event_tx events;    /* the worker is their producer */
	struct fx_mirror_ctx *mirror; /* NULL: pipe and events are the host's own */
	_Atomic bool kicked;	      /* by a host that cannot write `kick` itself */
	struct fx_cmd broken;	      /* sent to the control thread once */
	/* the worker's */
	uint32_t slot;
	uint32_t ncqs;
	struct fx_wpipe *pipes; /* those beside the first */
	bool dead;
	struct fx_cmd *grace, *grace_next; /* wait for a grace period: this one, the next one */
	struct fx_wctx *graces;		   /* next of those that have any */
};

/* A QP as its worker sees it. */
struct fx_stage;
struct fx_wqp {
	struct fx_wctx *ctx;
	struct fx_stage *first, *last; /* the worker's: packets in gathering, and what goes out after each */
};

/*
 * Two stacks of commands, each emptied whole by its only consumer, which turns it round: so they are queues,
 * they have no capacity, and neither side can ever wait for the other.
 */
struct fx_mailbox {
	_Atomic(struct fx_cmd *) todo; /* control -> worker */
	int worker_fd;		       /* eventfd: rouses the worker */
	_Alignas(FX_LINE) _Atomic(struct fx_cmd *) done;
	int control_fd;
};

static inline void fx_rouse(int eventfd_fd)
{
	uint64_t one = 1;

	if (write(eventfd_fd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: it is readable already */
}

static inline void fx_cmd_push(_Atomic(struct fx_cmd *) *stack, struct fx_cmd *cmd)
{
	struct fx_cmd *head = atomic_load_explicit(stack, memory_order_relaxed);

	/* release: the command's fields are written before whoever takes it (acquire) reads them */
	do
		cmd->next = head;
	while (!atomic_compare_exchange_weak_explicit(stack, &head, cmd, memory_order_release,
						      memory_order_relaxed));
}

/* All of them, oldest first. */
static inline struct fx_cmd *fx_cmd_take(_Atomic(struct fx_cmd *) *stack)
{
	struct fx_cmd *list, *out = NULL;

	if (!atomic_load_explicit(stack, memory_order_relaxed))
		return NULL;
	/* acquire: pairs with the release of fx_cmd_push */
	list = atomic_exchange_explicit(stack, NULL, memory_order_acquire);
	while (list) {
		struct fx_cmd *next = list->next;

		list->next = out;
		out = list;
		list = next;
	}
	return out;
}

/* Control thread. */
static inline void fx_cmd_send(struct fx_mailbox *m, struct fx_cmd *cmd)
{
	fx_cmd_push(&m->todo, cmd);
	fx_rouse(m->worker_fd);
}
/* Control thread: the host has put something into its pipe. */
static inline void fx_ctx_kick(struct fx_mailbox *m, struct fx_wctx *ctx)
{
	/* acq_rel: what the host had written before is read after the worker has taken the flag */
	if (!atomic_exchange_explicit(&ctx->kicked, true, memory_order_acq_rel))
		fx_rouse(m->worker_fd);
}
/* Worker. */
static inline void fx_cmd_done(struct fx_mailbox *m, struct fx_cmd *cmd)
{
	fx_cmd_push(&m->done, cmd);
	fx_rouse(m->control_fd);
}

#endif
