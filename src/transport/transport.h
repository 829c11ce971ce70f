/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport of one worker: packets, work requests and `now` in; packets, completions and DMA out.
 *
 * Room: transport. May use: wire, pipe. Pure C: no DPDK, no sockets, no clock, no allocation on the data path. One
 * thread, the worker that owns it, makes every call; the simulation in tests/sim is the other user of this header.
 *
 * A loop of the owner looks like this:
 *	fx_post(...)        for every entry that the send pipes delivered
 *	fx_tp_rx(...)       for every burst of frames; then fx_tp_released() gives finished buffers back
 *	fx_tp_poll_dma()    while fx_tp_dma_pending()
 *	fx_tp_timers()      after receive: what is acknowledged is not sent again
 *	fx_tp_tx(...)       until it returns less than asked for
 */
#ifndef FX_TRANSPORT_TRANSPORT_H
#define FX_TRANSPORT_TRANSPORT_H

#include "control/protocol.h"
#include "pipe/ring.h"
#include "transport/ah.h"
#include "transport/cause.h"
#include "transport/counters.h"
#include "transport/dma.h"
#include "transport/mr.h"
#include "transport/wheel.h"
#include "wire/opcode.h"
#include "wire/roce.h"

struct fx_qp;
struct fx_wqe;
struct fx_tp;

enum {
	FX_PKT_SEGS = 8, /* payload pieces of a frame; a longer chain is linearised by the sender */
	FX_TX_SEGS = 48, /* 16 SGEs, each over an edge, a middle and an edge */
	FX_TX_ROOM = 128 + FX_MAX_INLINE + 4, /* bytes behind fx_txpkt.hdr */
	FX_RX_BURST = 32,
	FX_FOLLOW = 16, /* frames of a QP that follow one in gathering, at most */
	FX_DMA_BATCH = 256,
	FX_BUFFERS = 16384, /* unit of fx_pkt.cost: all buffers of a kind that the owner has */
};

/*
 * Grace periods: what is under way of a context, copies and segments alike, counted under one of two parities. A period
 * begins with the other one, and is over when what was counted before has passed; one at a time. After a region was
 * unpublished, nothing under way can touch it from then on. Each context has its own, so that none waits for what
 * another's memory keeps from passing.
 */
struct fx_under_way {
	uint32_t n[2];
	uint32_t parity;
};
/* Counts one more; --* of what it returns, once that has passed. */
static inline uint32_t *fx_set_out(struct fx_under_way *u)
{
	uint32_t *n = &u->n[u->parity];

	++*n;
	return n;
}
static inline void fx_grace_begin(struct fx_under_way *u)
{
	u->parity ^= 1;
}
static inline bool fx_grace_over(const struct fx_under_way *u)
{
	return u->n[u->parity ^ 1] == 0;
}

struct fx_piece {
	uint8_t *base;
	uint32_t len;
};

/* What a packet asks for once every earlier one of its QP is placed. */
enum fx_place_act {
	FX_PLACE_NONE,	   /* a middle packet */
	FX_PLACE_MSG,	   /* end of a message without a completion here */
	FX_PLACE_RECV,	   /* end of a message that completes a receive */
	FX_PLACE_READ,	   /* a READ request */
	FX_PLACE_ATOMIC,   /* an atomic request */
	FX_PLACE_STORE,	   /* an atomic WRITE */
	FX_PLACE_NAK,	   /* refuse with `syndrome` at this PSN */
	FX_PLACE_RESPONSE, /* READ response or atomic acknowledge, at the requester */
};

/*
 * A received packet: the owner fills the first part, the transport owns all of it from fx_tp_rx() until it comes
 * back in fx_tp_released(). The owner keeps it beside the frame (an mbuf's private area).
 */
struct fx_pkt {
	struct fx_pkt *next;
	uint8_t *frame; /* from Ethernet on; `have` bytes are contiguous */
	uint32_t have;
	uint32_t total; /* bytes of the frame, further pieces included */
	uint8_t nmore;	/* further pieces, after the contiguous ones */
	uint16_t cost;	/* what it keeps of the owner's buffers, of FX_BUFFERS: the scarcer ones, the more */
	struct fx_piece more[FX_PKT_SEGS];
	/* the transport's */
	uint8_t act;	  /* enum fx_place_act */
	uint8_t syndrome; /* to refuse with: FX_PLACE_NAK, or it failed */
	uint8_t wc_flags, wc_opcode, status;
	uint8_t grh; /* of a datagram: enum fx_wc_flags that tell of its GRH */
	bool solicited;
	bool submitted; /* all its copies are with an engine, or done */
	bool failed;	/* a copy did not arrive */
	bool xrc;	/* refused: for the SRQ that it names */
	bool dropped;	/* its QP has moved on: no effect */
	bool kept;	/* it waits: on its context's account */
	uint8_t parity; /* under which they are counted */
	uint16_t ndma;	/* copies under way */
	struct fx_qp *qp;
	struct fx_wqe *wqe; /* FX_PLACE_RESPONSE */
	struct fx_mw *mw;   /* that its copies go through; NULL: a region */
	struct fx_rxq *rx;  /* whose receive, where there is one; of XRC: what it names */
	uint32_t psn;
	uint32_t len; /* payload bytes, without pad */
	uint32_t payload_off;
	uint32_t index;	   /* FX_PLACE_RECV: receive WQE */
	uint32_t byte_len; /* FX_PLACE_RECV */
	uint32_t imm;
	struct fx_bth bth;
	/* where the rest of the payload lands: `left` bytes at (rkey, va), or a walk over SGEs from (sge_i, sge_off) */
	uint32_t left;
	uint32_t rkey;
	uint32_t pd; /* whose keys it may name */
	uint64_t va;
	const struct fx_sge *sge;
	uint32_t nsge, sge_i, sge_off;
	struct fx_dma_atomic atomic;   /* FX_PLACE_ATOMIC */
	struct fx_sge own[FX_MAX_SGE]; /* the list, when it has to outlive its queue entry */
};

/* A packet to send. The owner provides `hdr` with FX_TX_ROOM bytes; the transport fills in the rest. */
struct fx_txpkt {
	uint8_t *hdr;
	uint16_t hdr_len; /* headers, and inline payload with its pad */
	uint8_t nseg;
	uint8_t pad; /* bytes of zero after the last segment */
	/*
	 * Gather the segments into one buffer first: some are slow or there are too many. Several of a QP may be in
	 * gathering; what was cut after one goes out after it.
	 */
	bool stage;
	uint32_t psn; /* of a READ response, for fx_tp_staged() */
	struct fx_qp *qp;
	/* what counts its segments, fx_tp_seg_done() for each: the request, or the window that is read through */
	struct fx_wqe *wqe;
	struct fx_mw *mw;
	uint32_t payload; /* bytes in the segments */
	struct {
		uint8_t *base; /* NULL: slow, at va of mr */
		uint32_t len;
		const struct fx_mr *mr;
		uint64_t va;
	} seg[FX_TX_SEGS];
};

/*
 * A receive queue: a QP's own, or shared by QPs of one worker (SRQ). The transport is the ring's consumer. What the
 * owner gives is set before anything uses the queue, and outlives every QP that does.
 */
struct fx_rxq {
	struct fx_rq ring;
	uint32_t pd; /* of its entries' memory */
	uint32_t max_sge;
	bool shared;
	void *owner;	 /* the owner's, for its callbacks */
	void *copy;	 /* the mirror's; NULL: the ring is the host's own */
	uint32_t handle; /* these two of a shared one, for its events */
	uint64_t cookie;
	/* of an SRQ of XRC: messages name it, and its completions are its own */
	uint32_t number;
	uint32_t xrcd; /* its domain, never 0 */
	struct fx_cq *cq;
	/* the transport's */
	struct fx_qp *asks, *asks_last; /* QPs that wait for a look */
	uint32_t limit; /* fewer entries than that are told of, once; 0: nobody wants to know */
	uint32_t seen;	/* with a limit: entries from here on have not been seen to be there */
	bool broken;	/* it is shared, and an entry contradicted itself */
	bool watches;	/* a look for the limit's sake is under way */
};

/* What the owner is told of; rare, so a call is fine. All may be NULL. */
struct fx_tp_env {
	/* Asynchronous events for the host: of a QP (enum fx_async), and the one of a CQ. */
	void (*event)(void *arg, struct fx_qp *qp, enum fx_async type);
	void (*cq_error)(void *arg, struct fx_cq *cq);
	/* For the log: why a QP went to error by itself. */
	void (*trouble)(void *arg, struct fx_qp *qp, enum fx_cause cause);
	void *arg;
	/* A CQE fires the CQ's arm: fx_cq_fire(), and tell whoever waits. May be NULL if nobody arms. */
	void (*comp)(void *arg, struct fx_cq *cq);
	/* Of a shared receive queue. */
	void (*rxq_event)(void *arg, struct fx_rxq *rx, enum fx_async type);
	/*
	 * A receive is wanted and none is here. True: fx_tp_looked() follows, never from inside of this call, once a look
	 * that began after the last such call is over; false, or NULL: what is here is all there is.
	 */
	bool (*look)(void *arg, struct fx_rxq *rx);
	/* The clock that CQEs of stamped CQs tell, ns. May be NULL if there are none such. */
	uint64_t (*stamp)(void *arg);
	/* Another packet with the same frame: its headers are its own, the rest may be shared. NULL: there is no buffer. */
	struct fx_pkt *(*clone)(void *arg, const struct fx_pkt *p);
};

struct fx_tp_cfg {
	uint32_t worker;
	uint32_t max_qps;  /* size of the QPN table */
	uint32_t max_srqs; /* and of that of SRQ numbers; 0: no XRC */
	uint32_t window;   /* packets in flight per QP; 0: the default */
	bool icrc;	   /* frames carry one: 4 bytes more in every length (the port computes it) */
	uint32_t mtu;	   /* of the port, for datagrams; 0: 4096 */
	uint8_t gid[16];   /* of the port */
	const struct fx_mr_table *mrs;
	const struct fx_ah_table *ahs; /* NULL: no UD QP sends */
	struct fx_dma_engine *dma;     /* windows */
	struct fx_dma_engine *slow;    /* everything else; may be NULL in tests */
	struct fx_tp_env env;
};

struct fx_tp *fx_tp_create(const struct fx_tp_cfg *cfg, uint64_t now);
void fx_tp_destroy(struct fx_tp *tp);

/* The time of this turn of the loop, in ns, never going back. */
void fx_tp_set_now(struct fx_tp *tp, uint64_t now);

/* Takes n packets; they come back, in any order and possibly later, by fx_tp_released(). */
void fx_tp_rx(struct fx_tp *tp, struct fx_pkt **pkts, unsigned n);
/* The look that env.look asked for is over: receives that the host had posted before it are here. */
void fx_tp_looked(struct fx_tp *tp, struct fx_rxq *rx);
/* The list of packets that the transport is done with, linked by `next`; empties it. */
struct fx_pkt *fx_tp_released(struct fx_tp *tp);

/* Collects DMA completions, places and answers. Returns how many it saw. */
unsigned fx_tp_poll_dma(struct fx_tp *tp);
bool fx_tp_dma_pending(const struct fx_tp *tp);
void fx_tp_timers(struct fx_tp *tp);
/* Earliest time a timer may want to run, UINT64_MAX if none. */
uint64_t fx_tp_next_timer(const struct fx_tp *tp);

/* Cuts up to max packets into out[] (whose hdr the owner set). Returns how many. */
unsigned fx_tp_tx(struct fx_tp *tp, struct fx_txpkt *out, unsigned max);
/* True while some QP waits for fx_tp_tx(). */
bool fx_tp_tx_ready(const struct fx_tp *tp);
/*
 * The packet with `stage` set was gathered and sent (err 0), or could not be read (negative errno). Of a QP that nobody
 * acknowledges to, the owner may keep its request until the frame is gone as well: wqe is NULL here then, and one
 * fx_tp_seg_done() follows. So whoever sends faster than it is taken is held back, as by frames that were not gathered.
 */
void fx_tp_staged(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *wqe, struct fx_mw *mw, uint32_t psn,
		  int err);
/* One segment's buffer left the transmit queue (guarantee L1); wqe and mw are the packet's, each may be NULL. */
void fx_tp_seg_done(struct fx_tp *tp, struct fx_wqe *wqe, struct fx_mw *mw);

/*
 * A checked-length entry of a send pipe (fx_pipe_take). Everything else about it is checked here; what is wrong
 * becomes a completion or a counter. ctx: the context whose pipe it came from.
 */
void fx_post(struct fx_tp *tp, uint32_t ctx, const struct fx_sq_slot *entry);
/* A hint that an entry with this qpn_gen comes soon; it may be any number. */
void fx_post_soon(const struct fx_tp *tp, uint32_t qpn_gen);

/* ---- QPs ---- */
struct fx_qp_cfg {
	uint32_t qpn, gen, ctx, pd, type; /* enum fx_qp_type */
	uint32_t handle;
	uint64_t cookie;
	uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline;
	bool sq_sig_all;
	bool block_mcast_loop; /* it does not get what it sends to a multicast group itself */
	struct fx_cq *scq, *rcq;
	void *owner;			/* the worker's, for its callbacks */
	struct fx_under_way *under_way; /* of its context; outlives the QP */
	struct fx_rq rq;		/* from here on: looked at when it is created */
	struct fx_rxq *srq;		/* in place of rq; NULL: it has its own */
	uint32_t xrcd;			/* XRC_RECV: its domain, whose SRQs its messages name */
};

/* What the port knows of a path: filled by the control room before a modify to RTR. */
struct fx_path {
	struct fx_l3 l3;  /* addresses, MACs, sport, ttl, tos, flow label */
	uint32_t mtu_max; /* largest path MTU the port carries, bytes */
};

/* Allocates; the QP is in RESET and not yet known by number. Returns NULL with errno. */
struct fx_qp *fx_qp_create(const struct fx_qp_cfg *cfg);
/* Makes it known to the worker's transport (worker thread). Returns 0, -EBUSY, -ENOMEM. */
int fx_qp_attach(struct fx_tp *tp, struct fx_qp *qp);
/*
 * A transition or a change of attributes as ibv_modify_qp has it (IBTA 10.3.1): returns 0, EINVAL, EOPNOTSUPP.
 * `path` is needed with IBV_QP_AV. sq_index, rq_index: where the counters go on after RESET.
 */
int fx_qp_modify(struct fx_tp *tp, struct fx_qp *qp, const struct fx_qp_attr *attr, uint32_t mask,
		 const struct fx_path *path, uint32_t sq_index, uint32_t rq_index);
void fx_qp_query(const struct fx_qp *qp, struct fx_qp_attr *attr);
uint32_t fx_qp_gen(const struct fx_qp *qp);
uint32_t fx_qp_number(const struct fx_qp *qp);
bool fx_qp_unacked(const struct fx_qp *qp); /* nobody acknowledges what it sends */
const struct fx_qp_cfg *fx_qp_config(const struct fx_qp *qp);
/* Its own receive queue, for whoever says where the slots are before the QP is attached. */
struct fx_rxq *fx_qp_rxq(struct fx_qp *qp);
/*
 * Takes it out of the transport: no packet finds it, no timer fires, its queues are dropped without completions.
 * It may be freed (fx_qp_free) once fx_qp_idle() says that nothing under way points at it.
 */
void fx_qp_detach(struct fx_tp *tp, struct fx_qp *qp);
bool fx_qp_idle(const struct fx_qp *qp);
void fx_qp_free(struct fx_tp *tp, struct fx_qp *qp);

/* ---- shared receive queues ---- */
/*
 * From now on, or at once: when fewer than `limit` entries are left, the owner hears of it, once. 0: it does not.
 */
void fx_rxq_arm(struct fx_tp *tp, struct fx_rxq *rx, uint32_t limit);
/* From now on messages of XRC find it. Returns 0 or -EBUSY. */
int fx_rxq_attach(struct fx_tp *tp, struct fx_rxq *rx);
/* And no more: QPs that had begun something for it go to error. */
void fx_rxq_detach(struct fx_tp *tp, struct fx_rxq *rx);

/* ---- multicast groups ---- */
/* A UD QP in a multicast group; the caller's, from joining until it has left, or the QP was detached. */
struct fx_member {
	struct fx_member *next; /* the transport's */
	struct fx_qp *qp;
	uint8_t gid[16];
};
void fx_mcast_join(struct fx_tp *tp, struct fx_member *m);
void fx_mcast_leave(struct fx_tp *tp, struct fx_member *m);

/* For flexinsctl and tests: a snapshot, copied on the worker. */
struct fx_qp_info {
	uint32_t qpn, gen, ctx, state, dest_qpn, mtu, type;
	uint32_t sq_psn, una_psn, next_psn, rq_psn, placed_psn, msn;
	uint32_t sq_outstanding, retries, rnr_retries;
	uint32_t cause; /* enum fx_cause, in ERR */
	uint64_t tx_packets, rx_packets, retransmits, naks, timeouts, dups;
};
void fx_qp_snapshot(const struct fx_qp *qp, struct fx_qp_info *info);

/* Calls fn for every attached QP (worker thread). */
void fx_tp_each_qp(struct fx_tp *tp, void (*fn)(void *arg, struct fx_qp *qp), void *arg);

/*
 * The CQ's arm has to fire (fx_cq_wakes(), fx_cq_arm()): env.comp is called, now or, of a moderated CQ, when there is enough
 * for an event.
 */
void fx_tp_cq_fires(struct fx_tp *tp, struct fx_cq *cq);
/* An event is for `every` CQEs (0, 1: any), but is held back for no longer than `patience` ns (0: there is no end). */
void fx_tp_cq_moderate(struct fx_tp *tp, struct fx_cq *cq, uint32_t every, uint64_t patience);
/* The CQ goes: no event of it is held back any more. */
void fx_tp_cq_let_go(struct fx_tp *tp, struct fx_cq *cq);

/* The CQ has lost a completion where its owner could not see it: in error now, as if it had found no room here. */
void fx_tp_cq_overran(struct fx_tp *tp, struct fx_cq *cq);

struct fx_counters *fx_tp_counters(struct fx_tp *tp);
uint64_t fx_tp_memory(const struct fx_tp *tp); /* bytes of WQE chunks taken from the system */

#endif
