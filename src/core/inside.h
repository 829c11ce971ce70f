/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the worker, and who may call whom.
 *
 * Room: core, private to it.
 *
 *	worker.c	life of a worker, its loop, pipes and frames in
 *	txbuf.c		buffers: frames out as chains, used ones home
 *	stage.c		packets gathered into one buffer first
 *	rings.c		send pipes, and the copies of rings
 *	command.c	what the control thread asks, grace periods
 *	event.c		records into the applications' event rings
 *	wait.c		spinning, sleeping, being kicked
 */
#ifndef FX_CORE_INSIDE_H
#define FX_CORE_INSIDE_H

#include <rte_cycles.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "control/control.h"
#include "control/log.h"
#include "core/worker.h"
#include "memory/engine.h"
#include "mirror/mirror.h"
#include "transport/transport.h"

enum {
	FX_TX_BURST = 32,
	FX_TXQ = 256,	       /* frames that wait for the port: a burst, and staged ones as they get ready */
	FX_TX_ROUND = 32,      /* packets cut before frames are received again: they stay in the cache */
	FX_ROUNDS = 8,	       /* of receive and send a turn, before pipes are looked at again */
	FX_GLANCE = 3,	       /* slots behind the next one, whose QP is fetched: as long as memory takes */
	FX_PIPE_BUDGET = 64,   /* entries a pipe and turn: no context keeps the others waiting */
	FX_PIPES_BUDGET = 256, /* of all pipes, roughly: however many are full, frames are not kept waiting */
	FX_CTXS = FX_LIMIT_CLIENTS,
	/* pools: they only bound what is in flight; what is touched is at the top of the stashes */
	FX_POOL_HDR = 4095,
	FX_POOL_PAY = 8191,
	FX_POOL_STAGE = 1023,
	FX_POOL_CACHE = 256,
	FX_STASH = 1024,
};

/*
 * A worker's own stack of buffers in front of a pool: last in, first out, so that a few hot buffers do all
 * the work. (A pool's own cache is too small for taking what a burst may need at worst, and the ring behind
 * it would cycle through every buffer there is.)
 */
struct fx_stash {
	struct rte_mempool *pool;
	uint32_t n;
	struct rte_mbuf *m[FX_STASH];
};
enum fx_stashes { FX_HDR, FX_PAY, FX_SPARE, FX_STASHES }; /* spare: staging buffers */

struct fx_worker;

/* Beside a payload buffer: whose segment it carries. */
struct fx_pay_priv {
	struct rte_mbuf_ext_shared_info shinfo;
	struct fx_worker *worker;
	struct fx_wqe *wqe;
	struct fx_mw *mw;
	uint32_t *under_way; /* where it is counted */
};

/* Beside a staging buffer, after its fx_pkt: what is to be gathered into it. */
struct fx_stage {
	struct fx_stage *next;		   /* of the worker's, in the order in which they began */
	struct fx_stage *behind;	   /* of its QP's */
	struct fx_pkt *after, *after_last; /* frames of the QP that follow it, by their next */
	struct rte_mbuf *m;		   /* NULL once it is out */
	struct fx_wqp *wqp;
	struct fx_qp *qp;
	struct fx_wqe *wqe;
	uint32_t psn;
	struct fx_mw *mw;
	uint8_t *at; /* where the next segment goes */
	uint16_t nseg, seg_i;
	uint32_t flying;
	int err;
	bool staged;	     /* the transport waits for it; else the port cannot take a chain */
	bool held;	     /* its request is kept until the frame is gone */
	uint32_t *under_way; /* where it is counted */
	struct {
		uint8_t *base;
		uint32_t len;
		const struct fx_mr *mr;
		uint64_t va;
	} seg[FX_TX_SEGS];
};

struct fx_clock {
	uint64_t tsc0;
	uint64_t mult; /* ns a tick, 32.32 */
};

static inline uint64_t fx_clock_ns(const struct fx_clock *c)
{
	return (uint64_t)((unsigned __int128)(rte_rdtsc() - c->tsc0) * c->mult >> 32) + 1;
}

struct fx_worker {
	struct fx_worker_cfg cfg;
	struct fx_tp *tp;
	const struct fx_port *port;
	uint16_t queue;
	struct fx_clock clock;
	uint64_t now;
	_Atomic bool stop;

	/* contexts */
	struct fx_wctx *ctx[FX_CTXS];
	uint32_t nctx, first;	  /* whose turn is first */
	struct fx_cq **cqs;	  /* by index of their handles */
	struct fx_mirror *mirror; /* of rings that lie where only DMA reaches them, by its own engine */
	struct fx_dma_engine *mirror_dma;

	/* commands */
	struct fx_cmd *waiting; /* for a pipe index */
	struct fx_cmd *dying;	/* the end of what something under way still points at */
	struct fx_wctx *graces; /* contexts for which a grace period was asked */

	/* buffers */
	struct fx_stash stash[FX_STASHES];
	struct rte_mbuf *txq[FX_TXQ];
	uint32_t ntx;
	struct fx_txpkt pkt[FX_TX_BURST];

	/* staging */
	struct fx_stage *stages, **stages_end;
	struct fx_dma_engine *stage_cpu, *stage_slow;
	struct fx_dma_engine *dma, *slow; /* the transport's */

	/* waiting */
	int epoll;
	_Atomic bool roused; /* by a helper, since the turn began */
	uint32_t nap;	     /* number of the last sleep, for the core page */
	uint64_t idle_since; /* 0: the last turn did something */
	uint64_t spin_ns;
	int load; /* /proc/loadavg; -1: taken as crowded */
	uint32_t cpus;
	uint64_t load_next; /* when to look again */

	struct fx_worker_counters n;
	struct fx_dma_carried landed, fetched, mirrored; /* by a bus, on three ways */
};

/* ---- worker.c ---- */
/* An engine for what no window maps, behind the bus if there is one; NULL: no memory. */
struct fx_dma_engine *fx_worker_slow(struct fx_worker *w, unsigned depth, struct fx_dma_carried *carried);
void fx_worker_release(struct fx_worker *w); /* what the transport is done with goes home */

/* ---- rings.c ---- */
int fx_rings_init(struct fx_worker *w);
void fx_rings_fini(struct fx_worker *w);
/* Makes rings and their copies alike, then takes entries out of pipes into the transport. */
unsigned fx_rings_poll(struct fx_worker *w);
/* What was completed in this turn leaves for its hosts. */
unsigned fx_rings_push(struct fx_worker *w);
bool fx_rings_ready(const struct fx_worker *w); /* is there an entry in a pipe, or a kick? */
bool fx_rings_want_turns(const struct fx_worker *w);

/* ---- txbuf.c ---- */
int fx_txbuf_init(struct fx_worker *w, char *why, size_t size);
void fx_txbuf_fini(struct fx_worker *w);
/* How many packets may be cut now, up to FX_TX_BURST; sets the hdr of that many w->pkt. */
unsigned fx_txbuf_prepare(struct fx_worker *w);
/* The n packets that were cut, into w->txq or onto the staging list. */
void fx_txbuf_take(struct fx_worker *w, unsigned n);
/* Hands w->txq to the port. What it does not take stays. Returns how many it took. */
unsigned fx_txbuf_flush(struct fx_worker *w);
/*
 * One more buffer of no bytes at the frame's end, which tells when the frame is gone: fx_tp_seg_done() for the request.
 * False: there is none, or the port takes no chain.
 */
bool fx_txbuf_mark(struct fx_worker *w, struct rte_mbuf *m, struct fx_wqe *wqe, struct fx_under_way *u);
/* A frame's buffers go home, with everything attached to them. */
void fx_txbuf_free(struct fx_worker *w, struct rte_mbuf *m);
/* The received frame as the transport wants it, or NULL: too many pieces. */
struct fx_pkt *fx_txbuf_pkt(const struct fx_worker *w, struct rte_mbuf *m);
/* A received frame once more: headers of its own before the same buffers; NULL: there is no buffer for them. */
struct fx_pkt *fx_txbuf_clone(struct fx_worker *w, const struct fx_pkt *p);
static inline struct rte_mbuf *fx_pkt_mbuf(const struct fx_pkt *p)
{
	return (struct rte_mbuf *)p - 1; /* the private area follows the mbuf */
}

/* ---- stage.c ---- */
enum { FX_STAGE_ROOM = 4096 + 4 };
static inline struct fx_stage *fx_stage_of(struct rte_mbuf *m)
{
	return (struct fx_stage *)((struct fx_pkt *)rte_mbuf_to_priv(m) + 1);
}
int fx_stage_init(struct fx_worker *w);
void fx_stage_fini(struct fx_worker *w);
static inline struct fx_wqp *fx_wqp_of(const struct fx_qp *qp)
{
	return fx_qp_config(qp)->owner;
}
/* The frame of a QP of which packets are in gathering: it goes out after them. */
void fx_stage_follow(struct fx_wqp *wqp, struct rte_mbuf *m);
/* Starts gathering `pkt` into staging buffer m. */
void fx_stage_start(struct fx_worker *w, struct rte_mbuf *m, const struct fx_txpkt *pkt);
unsigned fx_stage_poll(struct fx_worker *w);

/* ---- command.c ---- */
unsigned fx_commands(struct fx_worker *w);
/* Whatever waits for something to pass: QPs, grace periods, pipe indexes. */
void fx_commands_settle(struct fx_worker *w);
static inline bool fx_commands_waiting(const struct fx_worker *w)
{
	return w->waiting || w->dying || w->graces;
}
void fx_ctx_dead(struct fx_worker *w, struct fx_wctx *ctx);

/* ---- event.c ---- */
void fx_event_async(void *worker, struct fx_qp *qp, enum fx_async type);
void fx_event_srq(void *worker, struct fx_rxq *rx, enum fx_async type);
void fx_event_cq_error(void *worker, struct fx_cq *cq);
void fx_event_trouble(void *worker, struct fx_qp *qp, enum fx_cause cause);
/* The CQ's arm fires. */
void fx_event_comp(void *worker, struct fx_cq *cq);
/* An entry with FX_WR_ARM of the context's pipe. */
void fx_event_arm(struct fx_worker *w, struct fx_wctx *ctx, const struct fx_sq_slot *entry);

/* ---- wait.c ---- */
int fx_wait_init(struct fx_worker *w);
void fx_wait_be_urgent(struct fx_worker *w); /* on its own thread */
void fx_wait_fini(struct fx_worker *w);
int fx_wait_add(struct fx_worker *w, int eventfd_fd);
void fx_wait_del(struct fx_worker *w, int eventfd_fd);
/* After a turn that did nothing. */
void fx_wait_idle(struct fx_worker *w);
/* Rouses the worker from any thread; `arg` is the worker. */
void fx_wait_rouse(void *arg);
/* What roused the worker until now, it is about to look at. */
static inline void fx_wait_awake(struct fx_worker *w)
{
	/* relaxed: seen late, it is seen before the worker sleeps */
	if (unlikely(atomic_load_explicit(&w->roused, memory_order_relaxed)))
		/* acquire: pairs with fx_wait_rouse(); what it tells of is looked for after this */
		atomic_exchange_explicit(&w->roused, false, memory_order_acquire);
}

#endif
