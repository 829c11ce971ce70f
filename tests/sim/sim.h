/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two hosts, each with one transport, and a link between them, in virtual time.
 *
 * Room: tests/sim. May use: transport, memory's engines, the oracle.
 *
 *	sim_net.c	the clock, the queue of events, the link and what it does to frames
 *	sim_host.c	a host: its loop around the transport, QPs, CQs, posting
 *	sim_mem.c	memory regions of every kind, and a slow engine
 *	load_plan.c	what a seed means: hosts, QPs, memory, operations
 *	sim_load.c	random work for every QP, shown to the oracle
 *	oracle.c	the judge
 *	sim.c		seeds by the thousand
 *	sim_*.c		one situation at a time, over the pair of pair.h
 */
#ifndef SIM_H
#define SIM_H

#include "memory/engine.h"
#include "oracle.h"
#include "transport/transport.h"

enum { SIM_MTU_MAX = 4096, SIM_FRAME = FX_TX_ROOM + SIM_MTU_MAX + 64, SIM_HOSTS = 2, SIM_BURST = 32 };

enum { SIM_EVENTS = FX_ASYNC_LAST_WQE + 1 };

#define SIM_NEVER UINT64_MAX

/* ---- random numbers: one stream for each purpose, so that one draw more here changes nothing there ---- */
struct rng {
	uint64_t s;
};
static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}
static inline struct rng rng_of(uint64_t seed, uint64_t stream)
{
	struct rng r = {seed * 0x2545f4914f6cdd1du + stream * 0x632be59bd9b4e019u};

	rng_next(&r);
	return r;
}
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return n ? rng_next(r) % n : 0;
}
static inline uint64_t rng_range(struct rng *r, uint64_t lo, uint64_t hi) /* both included */
{
	return lo + rng_below(r, hi - lo + 1);
}
static inline bool rng_chance(struct rng *r, uint32_t ppm)
{
	return ppm && rng_next(r) % 1000000 < ppm;
}

/* ---- network ---- */
struct host;
struct sim;

enum frame_state { FRAME_QUEUED, FRAME_FLYING, FRAME_LOST, FRAME_HELD };

/* A frame from the moment it is cut. In zero-copy its payload stays where it was until frame_free(). */
struct frame {
	struct frame *next;
	struct fx_pkt pkt; /* as the receiver gets it */
	struct host *src, *dst;
	struct fx_txpkt tx;
	unsigned held; /* segments to report done */
	bool flat;     /* everything is in bytes[] */
	enum frame_state fate;
	uint32_t len; /* of bytes[] */
	uint8_t bytes[SIM_FRAME];
};

struct link_cfg {
	uint32_t loss, dup, reorder; /* millionths, of each direction */
	uint64_t latency, spread;    /* ns; the spread is what a reordered frame may come later */
	uint32_t ps_per_byte;
	bool zero_copy; /* the payload crosses as a reference, as on net_ring */
	bool icrc;	/* four more bytes on every frame */
};

/* Decides about a frame about to leave: true, it is lost. For directed tests. */
typedef bool (*sim_tap)(void *arg, struct frame *f, const struct fx_bth *bth);

struct event {
	uint64_t at, order;
	struct frame *frame;
	enum frame_state what;
};

struct sim {
	uint64_t now, order, turns;
	struct event *heap;
	unsigned nheap, room;
	struct link_cfg link;
	struct rng rng[SIM_HOSTS];
	uint64_t line_free[SIM_HOSTS]; /* when the transmitter is idle again */
	struct host *host[SIM_HOSTS];
	struct oracle *oracle;
	sim_tap tap;
	void *tap_arg;
	uint64_t frames, lost, doubled, delayed;
	unsigned out; /* frames that somebody has: spare, on the link, or waiting for their placement */
	const char *malformed; /* a frame that left was not as it should be */
};

struct sim *sim_create(const struct link_cfg *link, uint64_t seed);
void sim_destroy(struct sim *s);
struct frame *frame_get(struct sim *s);
void frame_free(struct sim *s, struct frame *f); /* tells the sender's transport about its segments */
void net_send(struct sim *s, struct frame *f);
void net_clear(struct sim *s); /* loses everything under way */
void net_inject(struct sim *s, struct host *dst, const uint8_t *bytes, uint32_t len, uint64_t delay);
bool net_refers(const struct sim *s, const uint8_t *base, uint32_t size); /* does a frame on its way? */
bool net_busy(const struct sim *s, const struct host *h);		  /* the transmit queue is long */
/* Lets time pass until done() or nothing is left to happen or `until`; returns whether done. */
bool sim_run(struct sim *s, uint64_t until, bool (*done)(void *arg), void *arg);

/* ---- memory ---- */
enum mem_kind { MEM_FLAT, MEM_RUNS, MEM_SOME_SLOW, MEM_SLOW };
struct mem {
	uint8_t *bytes; /* as the application sees them */
	uint32_t size, room;
	struct fx_mr mr;
	struct fx_mr_run runs[32];
	/* of its slow copies: that many at a time, if not 0; and while it stalls none of them ends */
	uint32_t lane, under_way;
	bool stalls;
	int gone; /* a negative errno: with which all of them fail */
};
struct mem *mem_create(struct host *h, uint32_t size, uint32_t access, enum mem_kind kind, struct rng *r);
void mem_destroy(struct mem *m);
void mem_publish(struct host *h, struct mem *m, uint32_t slot, uint32_t secret);
void mem_revoke(struct host *h, struct mem *m);
static inline struct mem *mem_of(const struct fx_mr *mr)
{
	return (struct mem *)((char *)(uintptr_t)mr - offsetof(struct mem, mr));
}
/* A window that is the caller's, at this index of the host's windows. */
void mw_publish(struct host *h, struct fx_mw *mw, uint32_t slot, uint32_t secret);
static inline uint64_t mem_va(const struct mem *m, const uint8_t *p)
{
	return m->mr.iova + (uint64_t)(p - m->bytes);
}
/* An engine for what no window reaches: copies after some polls, in any order. */
struct fx_dma_engine *slow_engine_create(uint64_t seed, unsigned delay);
uint64_t slow_engine_refused(const struct fx_dma_engine *e); /* copies for which there was no room */

/* ---- host ---- */
enum { HOST_MRS = 4096, HOST_MWS = 16, HOST_AHS = 16, HOST_QPS = 256, HOST_CTXS = 256 };
enum { HOST_QKEY = 0x11111111 }; /* of every UD QP */

struct cq {
	struct fx_cq core;
	struct fx_cq_rx rx;
	uint8_t *bytes;
};

struct wr {
	uint8_t op;    /* enum fx_wr_op */
	uint8_t flags; /* enum fx_wr_flags */
	uint32_t nsge;
	struct fx_sge sge[FX_MAX_SGE];
	const uint8_t *data[FX_MAX_SGE]; /* where inline data is taken from */
	uint64_t remote_addr;
	uint32_t rkey;
	uint32_t imm;
	uint64_t compare_add, swap; /* atomics */
};
/* Of a datagram: where it goes. */
static inline void wr_address(struct wr *w, uint32_t ah, uint32_t qpn, uint32_t qkey)
{
	w->remote_addr = ah | (uint64_t)qpn << 32;
	w->rkey = qkey;
}

struct qp {
	struct host *h;
	struct fx_qp *core;
	uint32_t qpn, gen;
	struct cq *scq, *rcq;
	struct fx_qp_cfg cfg;
	uint8_t *rq_bytes;
	struct fx_rq rq; /* the host's end */
	/* with host_cfg.look_ns: what the core has of it, and a look that is under way */
	uint8_t *rq_copy, *rq_seen;
	uint64_t look_at;
	uint32_t look_gen;
	uint32_t sq_index;
	void *user; /* whose completions these are */
};

/* Shared by QPs of one host: receives that are known by a number. */
struct srq {
	struct host *h;
	struct fx_rxq core;
	struct fx_rq rq; /* the host's end */
	uint8_t *bytes;
	/* as for a QP's own */
	uint8_t *copy, *seen;
	uint64_t look_at;
};

struct host_cfg {
	uint32_t window;
	bool icrc;
	bool chaos;
	unsigned chaos_delay;
	uint64_t seed;
	uint32_t turn_ns; /* a loop takes up to this long */
	uint32_t nap_ns;  /* now and then up to this long */
	const struct fx_dma_bus
		*bus;	  /* what the engine is behind; its clock is the simulation's. NULL: nothing */
	uint32_t look_ns; /* receives are seen after a look only, which takes up to so long; 0: at once */
};

struct host {
	struct sim *s;
	unsigned id;
	struct host_cfg cfg;
	struct fx_tp *tp;
	struct fx_dma_engine *dma, *slow;
	struct fx_mr_table table;
	_Atomic(struct fx_mr *) mr_slot[HOST_MRS];
	_Atomic(struct fx_mw *) mw_slot[HOST_MWS];
	struct fx_ah_table ahs;
	_Atomic(struct fx_ah *) ah_slot[HOST_AHS];
	uint32_t next_mr;
	struct rng rng;
	struct frame *in_head, *in_tail;
	struct frame *spare[SIM_BURST];		  /* for the next packets to be cut */
	struct qp *qp[HOST_QPS];		  /* by QPN >> FX_WORKER_BITS */
	struct srq *srq;			  /* the one it may have */
	struct fx_under_way under_way[HOST_CTXS]; /* by context; of segments nothing is counted here */
	uint64_t wake, asleep;
	/* the application: polls, posts, and says when it wants to be asked again */
	uint64_t (*app)(void *arg, struct host *h);
	void *app_arg;
	uint64_t app_at;
	uint64_t looks, look_next;	    /* so far; when the next one is over */
	enum fx_cause trouble;		    /* the last one */
	unsigned events, event[SIM_EVENTS]; /* asynchronous ones, of each kind */
	unsigned clones;  /* copies of datagrams for multicast groups that it has; fewer with each */
	unsigned comps;	  /* events of completions, */
	uint64_t comp_at; /* ... and the time of the last */
};

struct host *host_create(struct sim *s, unsigned id, const struct host_cfg *cfg);
void host_destroy(struct host *h);
void host_arrive(struct host *h, struct frame *f);
void host_turn(struct host *h);
void host_rouse(struct host *h, uint64_t at);
struct cq *cq_create(uint32_t entries);
void cq_destroy(struct cq *c);

struct link_attr {
	bool ip6;
	uint32_t mtu; /* bytes */
	uint32_t psn[SIM_HOSTS];
	uint8_t timeout, retry_cnt, rnr_retry, min_rnr_timer;
	uint8_t rd_atomic;
	uint32_t access;
};
struct qp *qp_create(struct host *h, const struct fx_qp_cfg *cfg, struct cq *scq, struct cq *rcq,
		     uint32_t sq_index, uint32_t rq_index);
bool qp_destroy(struct qp *q); /* false: something still pointed at it */
/* An address handle of `h` for the other host; it is the caller's, at this index. */
void ah_publish(struct host *h, struct fx_ah *ah, uint32_t slot, uint32_t pd, bool ip6);
/* The same, for a multicast group. */
void ah_publish_group(struct host *h, struct fx_ah *ah, uint32_t slot, uint32_t pd, const uint8_t gid[16]);
/* max_wr entries, numbered below that; of protection domain pd. cfg.srq = &srq->core makes a QP use it. */
struct srq *srq_create(struct host *h, uint32_t max_wr, uint32_t max_sge, uint32_t pd);
void srq_destroy(struct srq *s); /* after its QPs */
void srq_post(struct srq *s, uint32_t number, const struct fx_sge *sge, uint32_t nsge);
/* Through INIT to RTR, or on to RTS. Returns the first error. */
int qp_listen(struct qp *q, const struct qp *peer, const struct link_attr *a);
int qp_connect(struct qp *q, const struct qp *peer, const struct link_attr *a);
int qp_state(struct qp *q, uint32_t state);
void qp_post(struct qp *q, const struct wr *w);
void qp_post_bind(struct qp *q, const struct fx_bind_slot *bind); /* fills in what is the queue's */
void qp_post_recv(struct qp *q, const struct fx_sge *sge, uint32_t nsge);

/* ---- a run ---- */
struct sim_cfg {
	uint64_t seed;
	struct link_cfg link;
	bool chaos;
	bool looks;   /* receive queues are seen by looks only */
	uint32_t mtu; /* 0: drawn */
	uint32_t qps; /* 0: drawn */
	uint32_t ops; /* each flow's; 0: drawn */
	bool trace;   /* prints every frame */
};
/* Returns NULL or what failed (static storage). */
const char *load_run(const struct sim_cfg *cfg);

struct load_totals {
	uint64_t messages, bytes, frames, lost, doubled, delayed, retransmits, timeouts, naks, rnr, dups,
		acks, turns;
	uint64_t virtual_ns;
};
extern struct load_totals load_totals;

#endif
