/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the transport: the QP, its work queue, its placement queues, and who may call whom.
 *
 * Room: transport, private to it. May use: transport.h.
 *
 *	wqe.c		send pipe entries -> WQEs in chunks; cursors over them
 *	requester.c	WQEs -> request packets
 *	completer.c	ACK, NAK, READ responses -> progress; retires WQEs into CQEs
 *	responder.c	request packets -> placements
 *	receive.c	receives: taken for messages, flushed, and the limit of shared queues
 *	xrc.c		SRQs that messages name
 *	look.c		packets that wait for a fresh look at their receive queue
 *	datagram.c	what sets datagrams apart when they arrive
 *	mcast.c		multicast groups
 *	answer.c	READ responses, results of atomics, acknowledges and NAKs, in order
 *	mw.c		memory windows: bound, invalidated, found by a peer's key
 *	place.c		placements in PSN order over asynchronous DMA engines
 *	state.c		the state table of modify_qp
 *	qp.c		life of a QP, errors and flushes
 *	sched.c		whose packet is next
 *	moderate.c	events of CQs that are held back for more completions
 *	cause.c		why QPs go to error, and what is told of it
 *	transport.c	packets to QPs, timers
 */
#ifndef FX_TRANSPORT_QP_H
#define FX_TRANSPORT_QP_H

#include <errno.h>

#include "transport/transport.h"
#include "wire/bytes.h"

enum fx_qp_state {
	FX_QPS_RESET,
	FX_QPS_INIT,
	FX_QPS_RTR,
	FX_QPS_RTS,
	FX_QPS_SQD,
	FX_QPS_SQE,
	FX_QPS_ERR,
	FX_QPS_N
};

/* enum ibv_qp_attr_mask, by its ABI values. */
enum fx_qp_mask {
	FX_QPA_STATE = 1 << 0,
	FX_QPA_CUR_STATE = 1 << 1,
	FX_QPA_SQD_NOTIFY = 1 << 2,
	FX_QPA_ACCESS = 1 << 3,
	FX_QPA_PKEY = 1 << 4,
	FX_QPA_PORT = 1 << 5,
	FX_QPA_QKEY = 1 << 6,
	FX_QPA_AV = 1 << 7,
	FX_QPA_MTU = 1 << 8,
	FX_QPA_TIMEOUT = 1 << 9,
	FX_QPA_RETRY = 1 << 10,
	FX_QPA_RNR_RETRY = 1 << 11,
	FX_QPA_RQ_PSN = 1 << 12,
	FX_QPA_RD_ATOMIC = 1 << 13,
	FX_QPA_ALT_PATH = 1 << 14,
	FX_QPA_RNR_TIMER = 1 << 15,
	FX_QPA_SQ_PSN = 1 << 16,
	FX_QPA_DEST_RD_ATOMIC = 1 << 17,
	FX_QPA_MIG_STATE = 1 << 18,
	FX_QPA_CAP = 1 << 19,
	FX_QPA_DEST_QPN = 1 << 20,
	FX_QPA_RATE_LIMIT = 1 << 25,
};

enum {
	FX_CHUNK_SIZE = 1024,
	FX_CHUNK_SLOTS = 15,
	FX_MAX_RD_ATOMIC = 16,
	FX_ATOMIC_LEN = 8,
	FX_JOBS = 2 * FX_MAX_RD_ATOMIC,
	FX_WINDOW = 128,      /* packets in flight per QP */
	FX_UNACKED = 64,      /* segments in the transmit queue, where nobody acknowledges, */
	FX_UNACKED_SLOW = 12, /* ... and of frames that were gathered, which keep a scarcer buffer each */
	FX_READ_CHUNK = 64,   /* response packets one READ request asks for: paces the responder */
	FX_BACKLOG = 512,     /* packets of a QP that may wait for placement */
	FX_KEEP = 6144,	      /* of FX_BUFFERS: a context may keep what all together leave of it */
	FX_RESP_ROOM = 256,   /* of which READ responses, before the next READ is asked for */
	FX_STAGED = 16,	      /* packets of a QP in gathering: they hide how long each takes */
	FX_TX_DRY = 64,	      /* turns without a packet, before the owner is asked again */
	FX_FOLLOWING =
		2048, /* pieces of frames that follow them: a quarter of the owner's, at most half its headers */
	FX_ACK_EVERY = 32, /* packets between acknowledge requests inside a message */
	FX_MAX_MSG_LOG2 = 31,
	FX_GROUP_BUCKETS = 64,
	FX_QPN_GSI = 1,
	FX_QPN_MULTICAST = 0xffffff,
	FX_LATE = 1 << 16, /* PSNs: a UC packet so far behind is late, and beyond that of another age */
};
#define FX_PSN_NONE UINT32_MAX /* no 24-bit PSN: a WQE of which nothing was cut */
#define FX_MAX_MSG (UINT32_C(1) << FX_MAX_MSG_LOG2)
#define FX_RTO_FLOOR UINT64_C(1000000) /* ns: a software peer may be descheduled for as long */
/* ns: how soon a receive posted in ERR is flushed; twice as late each time that there was none */
#define FX_FLUSH_SOON UINT64_C(200000)
#define FX_FLUSH_LATE UINT64_C(25600000)

/* A place in a ring that has a head of the same kind. */
struct fx_link {
	struct fx_link *next, *prev;
};

/* What the QPs of a context share: its turn at the wire, and its application's memory. sched.c */
struct fx_share {
	struct fx_share *next;	/* of all contexts */
	struct fx_link link;	/* in tp->turns, while on_turns */
	struct fx_link qps;	/* that have something to send */
	struct fx_link waiting; /* that have a slow copy for which the engine had no room */
	uint32_t ctx, nqps;
	int32_t left;	    /* bytes of its allowance: more than 0 */
	uint32_t gathering; /* packets that are being staged */
	uint32_t following; /* pieces of the frames that go out after them */
	uint32_t slow;	    /* slow copies under way */
	uint32_t kept;	    /* cost of the packets that wait for their placement */
	bool on_turns;
};

/* A send work request in the core: this, then more SGEs or inline data in the slots behind it. */
struct fx_wqe {
	uint8_t op;    /* enum fx_wr_op */
	uint8_t flags; /* enum fx_wr_flags */
	uint8_t nsge;
	uint8_t nslots; /* of its chunk */
	uint32_t index;
	uint32_t length;
	uint32_t psn;	/* of its first packet, once cut */
	uint32_t npkt;	/* PSNs it takes */
	uint16_t refs;	/* segments in the transmit queue (guarantee L1) */
	uint8_t status; /* enum fx_wc_status, when it failed */
	uint8_t again; /* it waits for its segments: some of it was sent more than once, or nobody acknowledges */
	uint32_t imm;
	uint32_t rkey; /* of a datagram: the Q_Key */
	union {
		uint64_t raddr;
		struct { /* of a datagram, as in its slot */
			uint32_t ah, remote_qpn;
		} ud;
	};
	uint32_t placed; /* READ, atomic: bytes in memory; of what sends nothing: it has happened */
	uint32_t syndrome : 8;
	uint32_t srqn : 24; /* XRC: of the peer */
	union {
		struct fx_sge sge[1]; /* or inline bytes */
		struct { /* BIND_MW: as in its slot; imm is the window, raddr and rkey are the rest */
			uint64_t length;
			uint32_t lkey, access;
		} bind;
	};
};
/* An atomic's operands, compare-or-add and swap, follow its one SGE. */
static_assert(sizeof(struct fx_wqe) == FX_LINE, "wqe");

struct fx_chunk {
	struct fx_chunk *next;
	struct fx_qp *qp;
	uint16_t used; /* slots */
	uint16_t refs; /* segments in the transmit queue of any WQE in it */
	bool retired;  /* the QP has no use for it: freed with the last reference */
	uint8_t pad[FX_LINE - 21];
	uint8_t slot[FX_CHUNK_SLOTS][FX_LINE];
};
static_assert(sizeof(struct fx_chunk) == FX_CHUNK_SIZE, "chunk");

/* A place in the send queue: WQE number `index`, found at slot i of c. */
struct fx_cursor {
	struct fx_chunk *c;
	uint32_t i;
	uint32_t index;
};

/* Packets of one direction in PSN order, on their way into memory. */
struct fx_fifo {
	struct fx_pkt *head, *tail;
	struct fx_pkt *next;	/* first whose copies are not all submitted */
	struct fx_pkt *barrier; /* nothing behind it is submitted before it has taken effect */
	uint16_t n;
	uint16_t kept;		   /* of these, that wait */
	uint32_t flying;	   /* copies under way */
	struct fx_dma_engine *eng; /* that has them */
};

/* Something the responder owes: the rest of a READ, or the result of an atomic. */
struct fx_job {
	uint32_t psn;
	uint32_t rkey;
	uint64_t va; /* atomic: the result */
	uint32_t left;
	uint32_t pd; /* whose keys it may name */
	bool begun;
	bool atomic;
};

/* What an atomic found, kept for its duplicates (IBTA 9.7.5.1.4). */
struct fx_result {
	uint32_t psn;
	uint64_t original;
};

/*
 * With thousands of QPs each request meets one whose lines are in no cache, so what every request touches comes first,
 * by what touches it: FX_HOT bytes, which fx_qp_soon() fetches ahead. What few do comes behind.
 */
enum { FX_HOT = 9 * FX_LINE };
struct fx_qp {
	/* requester */
	struct fx_cursor cur; /* next WQE to cut */
	uint32_t cut_off;     /* bytes of it that are cut */
	uint32_t cut_sge, cut_sge_off;
	uint32_t next_psn;   /* next to cut */
	uint32_t una_psn;    /* oldest not acknowledged */
	uint32_t high_psn;   /* one past the highest ever cut */
	uint32_t post_index; /* of the next WQE to come */
	uint32_t window;
	uint32_t mtu;
	uint8_t state, type, gen;
	uint8_t cut_err; /* status the WQE at `cur` will fail with */
	uint8_t staged;	 /* packets that are being gathered, */
	uint8_t follow;	 /* ... and what was cut after the last of them */
	bool rnr_wait;
	bool draining; /* SQD, and what was begun is not over */
	bool on_run, on_acks, on_touched, on_waiting;
	bool asks_first; /* its requests go before its answers */
	uint8_t mtu_shift;
	uint32_t qpn, dest_qpn, pd;
	uint16_t ip_id;
	uint8_t rd_limit; /* READs and atomics in flight, at most */
	uint8_t rd_head, rd_n;
	uint8_t opt;	/* enum fx_opcode_transport */
	bool acks;	/* it is reliable: requests are acknowledged, refused, and sent again */
	uint8_t xrceth; /* bytes of it in each request; 0: none */
	uint32_t since_ackreq;
	struct fx_chunk *head, *tail; /* of the queue; looking at the WQE at `una` may move that past head */
	struct fx_cursor ack;	      /* WQE that una_psn is in */
	struct fx_cursor una;	      /* oldest not completed */
	struct fx_tp *tp;	      /* NULL: detached */
	struct fx_cq *scq, *rcq;
	uint32_t refs; /* segments in the transmit queue */
	uint32_t access;
	struct fx_tmpl tmpl;
	struct fx_qp *ack_next, *touch_next;
	struct fx_link run, wait;
	struct fx_share *share; /* from attach to free */
	int32_t left;		/* bytes of its allowance: more than 0 */
	uint64_t tx_packets, rx_packets;

	/* completer */
	uint64_t rto_at, rto;
	struct fx_timer timer;
	uint8_t retries, rnr_retries;
	bool rewound;

	/* responder */
	bool ack_want;
	bool nak_sent;	  /* one NAK a gap */
	bool dead_end;	  /* a refusal is queued: nothing after it counts */
	uint8_t nak_want; /* AETH syndrome; 0: none */
	uint8_t njobs, job_head;
	uint32_t epsn;	     /* expected */
	uint32_t placed_psn; /* all before it are in memory (guarantee O1) */
	uint32_t msn;
	uint32_t max_len;    /* of the payload of a packet; a datagram has its GRH in front */
	uint32_t msg_off;    /* bytes of the message in progress */
	uint32_t msg_flags;  /* enum fx_op_flags of its first packet: SEND or WRITE; 0: none */
	struct fx_fifo reqs; /* requests on their way into memory */
	struct fx_qp_cfg cfg;

	/* completer, where something is lost, or fetched */
	uint32_t resp_sge, resp_sge_off; /* landing of the READ at `ack` */
	struct fx_fifo resp;		 /* READ responses on their way into memory */
	uint32_t rewound_psn;		 /* the gap that was last acted on */
	uint32_t rd_end
		[FX_MAX_RD_ATOMIC]; /* one past the last response PSN of each READ or atomic in flight */
	uint64_t rnr_at;
	uint64_t flush_wait; /* in ERR */

	/* responder, beside placing */
	struct {
		uint64_t va;
		uint32_t rkey, length;
	} write;
	uint32_t nak_psn;
	struct fx_rxq *rx; /* its receive queue: its own, or a shared one */
	struct fx_rxq own;
	struct fx_qp *ask_next; /* of those that wait for the same look */
	struct {		/* packets that wait for a look, in their order of arrival */
		struct fx_pkt *head, *tail;
		uint32_t n;
	} parked;
	bool looking; /* it waits for one */
	bool looked;  /* ... and has just ended: nothing but what it brought is there */
	bool have_rwqe;
	uint8_t oldest_staged;
	uint8_t behind[FX_STAGED]; /* pieces of the frames behind each packet in gathering, a ring */
	uint32_t rwqe_index, rwqe_nsge, rwqe_len, rwqe_sge, rwqe_off;
	struct fx_sge *rwqe; /* max_recv_sge of them */
	struct fx_job jobs[FX_JOBS];
	/* A peer may have max_dest_rd_atomic under way: the most there can be fits any, also when it changes. */
	uint32_t natomics; /* executed; the last of them are in results[] */
	struct fx_result results[FX_MAX_RD_ATOMIC];

	/* both, cold */
	struct fx_qp_attr attr;
	struct fx_path path;
	enum fx_cause cause; /* of the error it is in */
	bool greeted;	     /* COMM_EST was told */
	bool last_told;	     /* LAST_WQE was */
	uint64_t retransmits, naks, timeouts, dups;
};
static_assert(offsetof(struct fx_qp, cfg) + offsetof(struct fx_qp_cfg, rq) <= FX_HOT,
	      "what every request touches");

/* Its lines are on their way when it is looked at. */
static inline void fx_qp_soon(const struct fx_qp *qp)
{
	for (unsigned i = 0; i < FX_HOT; i += FX_LINE)
		__builtin_prefetch((const char *)qp + i);
}

struct fx_tp {
	struct fx_tp_cfg cfg;
	uint64_t now;
	struct fx_qp **qps;   /* by QPN >> FX_WORKER_BITS */
	struct fx_rxq **srqs; /* of XRC, by number >> FX_WORKER_BITS */
	struct fx_share *shares;
	struct fx_link turns; /* contexts that have something to send */
	struct fx_qp *acks_head, *acks_tail, *touched;
	struct fx_cq *held; /* whose events are held back, */
	uint64_t held_due;  /* ... the first of them until then */
	struct fx_pkt *released;
	struct fx_member *groups[FX_GROUP_BUCKETS]; /* by a hash of their GID */
	struct fx_chunk *chunks;		    /* free ones */
	struct fx_slab *slabs;			    /* where they came from */
	struct fx_wheel wheel;
	struct fx_counters n;
	uint64_t memory;
	uint32_t gathering, following, kept; /* of all contexts */
	unsigned ndma;			     /* collected, not yet submitted */
	unsigned flying;		     /* submitted, not yet completed */
	struct fx_dma dma[FX_DMA_BATCH];
};

/* ---- wqe.c ---- */
struct fx_wqe *fx_wqe_at(struct fx_cursor *cur);
void fx_cursor_next(struct fx_cursor *cur);
void fx_wqe_retire(struct fx_tp *tp, struct fx_qp *qp); /* the WQE at `una` is over */
/* Forgets every WQE; the next to come has number `index`. */
void fx_wqe_drop_all(struct fx_tp *tp, struct fx_qp *qp, uint32_t index);
/* Nothing from there on is sent any more: what has not failed yet is flushed. */
void fx_wqe_stop(struct fx_qp *qp, struct fx_cursor from);
void fx_wqe_free_slabs(struct fx_tp *tp);
static inline uint8_t *fx_wqe_inline(struct fx_wqe *w)
{
	return (uint8_t *)w->sge;
}
static inline const uint8_t *fx_wqe_operands(const struct fx_wqe *w)
{
	return (const uint8_t *)w + sizeof(*w);
}
/* Operations that end with data from the peer, not with an acknowledge; rd_limit bounds them. */
static inline bool fx_wqe_fetches(const struct fx_wqe *w)
{
	return w->op == FX_WR_READ || w->op == FX_WR_CMP_SWAP || w->op == FX_WR_FETCH_ADD;
}
/* Operations that are done here, and send nothing. */
static inline bool fx_wqe_local(const struct fx_wqe *w)
{
	return w->op == FX_WR_LOCAL_INV || w->op == FX_WR_BIND_MW;
}
static inline uint32_t fx_packets(const struct fx_qp *qp, uint32_t length)
{
	return length ? (uint32_t)(((uint64_t)length + qp->mtu - 1) >> qp->mtu_shift) : 1;
}

/*
 * Whether a packet may be cut: what is being gathered, and follows that, has an end. A context may have as much
 * following as is left for all the others: however many memories stall, there is some for the next.
 */
static inline bool fx_may_cut(const struct fx_qp *qp)
{
	if (!qp->staged)
		return true;
	return qp->staged < FX_STAGED && qp->follow < FX_FOLLOW &&
	       qp->share->following + qp->tp->following < FX_FOLLOWING;
}

/* ---- requester.c ---- */
unsigned fx_requester_cut(struct fx_tp *tp, struct fx_qp *qp, struct fx_txpkt *out, unsigned max);
bool fx_requester_ready(struct fx_qp *qp);
void fx_requester_rewind(struct fx_tp *tp, struct fx_qp *qp); /* go back to una_psn */

/* ---- completer.c ---- */
void fx_completer_rx(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p);
void fx_completer_placed(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p);
void fx_completer_retire(struct fx_tp *tp, struct fx_qp *qp);
/* The WQE at `ack` fails: everything before it completes, it gets `status`, the QP goes to error. */
void fx_completer_fail(struct fx_tp *tp, struct fx_qp *qp, uint8_t status, uint8_t syndrome,
		       enum fx_cause cause);
/* Bytes of the WQE could not be read when they were to be sent: it fails when its turn comes. */
void fx_completer_lost(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w);
void fx_completer_timer(struct fx_tp *tp, struct fx_qp *qp);
void fx_completer_settle(struct fx_tp *tp, struct fx_qp *qp); /* a local error whose turn has come */
void fx_completer_sent(struct fx_tp *tp, struct fx_qp *qp);   /* a packet was cut that nobody acknowledges */
void fx_completer_left(struct fx_tp *tp,
		       struct fx_qp *qp); /* ... and segments have left the transmit queue */

/* ---- responder.c ---- */
void fx_responder_rx(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p);
void fx_responder_placed(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p);
/* Where an address of the peer's leads: an address of a region, through a window or not (NULL). */
struct fx_spot {
	struct fx_mr *mr;
	uint64_t va;
	struct fx_mw *mw;
};
/* Do the region or window that the peer names, and the QP, give these rights on these bytes? Where are they? */
bool fx_remote_at(struct fx_tp *tp, struct fx_qp *qp, uint32_t pd, uint32_t rkey, uint64_t va, uint32_t len,
		  uint32_t access, struct fx_spot *at);
/* A SEND that takes a key of ours from its sender, when it is placed. */
static inline bool fx_revokes(const struct fx_pkt *p)
{
	return p->act == FX_PLACE_RECV && p->wc_flags & FX_WCF_INV;
}

/* ---- datagram.c ---- */
/* Does the UD QP take it? Then its message begins with the GRH. `bth` is where BTH starts. */
bool fx_datagram_welcome(struct fx_tp *tp, const struct fx_qp *qp, struct fx_pkt *p, uint32_t bth);

/* ---- receive.c ---- */
enum { FX_LOOKS = 1 }; /* not a syndrome: the packet has to wait */
/* Takes the next receive into the QP, if it has none in hand. Returns 0, FX_LOOKS, or the syndrome to refuse with. */
uint8_t fx_receive_take(struct fx_tp *tp, struct fx_qp *qp);
void fx_receive_flush(struct fx_tp *tp, struct fx_qp *qp);  /* in ERR */
void fx_receive_looked(struct fx_tp *tp, struct fx_qp *qp); /* the same, after a look for more of them */
/* Its limit, since entries went, or came by a look. */
void fx_rxq_watch(struct fx_tp *tp, struct fx_rxq *rx, bool looked);

/* Where its completion goes; `rx` is whose it was. */
void fx_receive_complete(struct fx_tp *tp, struct fx_qp *qp, const struct fx_rxq *rx, struct fx_cqe *cqe);

/* ---- xrc.c ---- */
/* The SRQ that a request names, among those that the QP reaches; or NULL. */
struct fx_rxq *fx_xrc_find(const struct fx_tp *tp, const struct fx_qp *qp, uint32_t number);
/* It becomes the QP's for this message; false: it cannot. */
bool fx_xrc_select(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p);

/* ---- look.c ---- */
/* True: the QP waits for a fresh look at its receive queue. */
bool fx_look_ask(struct fx_tp *tp, struct fx_qp *qp);
void fx_look_drop(struct fx_qp *qp);
void fx_park(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p); /* until it is over */
void fx_park_drop(struct fx_tp *tp, struct fx_qp *qp);

/* ---- answer.c ---- */
/*
 * What the peer hears when memory of this side has gone. In the name of a program that has ended nothing is said, so
 * that its peers find out in one way, by their own timers, whether the core has noticed already or not.
 */
static inline uint8_t fx_lost_syndrome(int err)
{
	return err == -ESRCH ? 0 : FX_NAK_REMOTE_OP;
}
/* May the placed request take effect? */
bool fx_answer_room(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p);
void fx_answer_read(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p);
void fx_answer_read_again(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p);
void fx_answer_atomic(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p);
void fx_answer_atomic_again(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p);
/* A READ response that was being gathered. */
void fx_answer_lost(struct fx_tp *tp, struct fx_qp *qp, uint32_t psn, int err);
unsigned fx_answer_cut(struct fx_tp *tp, struct fx_qp *qp, struct fx_txpkt *out, unsigned max);

/* ---- mw.c ---- */
/* fx_remote_at() of a key that is no region's. */
bool fx_mw_at(struct fx_tp *tp, struct fx_qp *qp, uint32_t pd, uint32_t rkey, uint64_t va, uint32_t len,
	      uint32_t access, struct fx_spot *at);
/* Work requests; return a wc status. */
uint8_t fx_mw_bind(struct fx_tp *tp, struct fx_qp *qp, const struct fx_wqe *w);
uint8_t fx_mw_local_inv(struct fx_tp *tp, struct fx_qp *qp, const struct fx_wqe *w);
/* Takes a type 2 window from the QP's peer. False: this key gives it none. */
bool fx_mw_revoke(struct fx_tp *tp, struct fx_qp *qp, uint32_t key);
/* It would, but something that was let through before is still under way. */
bool fx_mw_revocation_waits(const struct fx_tp *tp, const struct fx_qp *qp, uint32_t key);
/* Is anything under way that was let through this window, before whatever changed it? */
bool fx_mw_held(const struct fx_tp *tp, uint32_t key);

/* ---- place.c ---- */
void fx_place_push(struct fx_tp *tp, struct fx_fifo *f, struct fx_qp *qp, struct fx_pkt *p);
uint64_t fx_payload_word(struct fx_pkt *p); /* the next 8 bytes of payload */
void fx_place_run(struct fx_tp *tp);	    /* submit, collect, retire until nothing more happens at once */
void fx_place_drop(struct fx_qp *qp, struct fx_fifo *f);
/* Is there no room for another packet behind those that wait? For one that would be the first, a little longer. */
static inline bool fx_place_full(const struct fx_tp *tp, const struct fx_qp *qp, const struct fx_fifo *f)
{
	return f->kept && qp->share->kept + tp->kept >= FX_KEEP;
}
/* The packet, ready for fx_place_push(), would wait for its application's memory, and there is no room: drop it. */
bool fx_place_refuses(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p);
void fx_touch(struct fx_tp *tp, struct fx_qp *qp);
unsigned fx_place_poll(struct fx_tp *tp);
/* Checks that `len` bytes may land at (sge_i, off) of the list; returns a wc status, FX_WC_SUCCESS if so. */
uint8_t fx_sges_check(struct fx_tp *tp, uint32_t pd, const struct fx_sge *sge, uint32_t nsge, uint32_t i,
		      uint32_t off, uint32_t len, uint32_t access);
void fx_sges_skip(const struct fx_sge *sge, uint32_t nsge, uint32_t *i, uint32_t *off, uint32_t len);

/* ---- qp.c ---- */
void fx_qp_error(struct fx_tp *tp, struct fx_qp *qp, enum fx_cause cause);
/* A send work request failed; `behind` are those after it. */
void fx_qp_send_error(struct fx_tp *tp, struct fx_qp *qp, enum fx_cause cause, struct fx_cursor behind);
void fx_qp_flush(struct fx_tp *tp, struct fx_qp *qp, enum fx_cause cause);
void fx_qp_greet(struct fx_tp *tp, struct fx_qp *qp); /* a packet came in RTR */
void fx_qp_tell(struct fx_tp *tp, struct fx_qp *qp, enum fx_async type);
void fx_qp_reset(struct fx_tp *tp, struct fx_qp *qp, uint32_t sq_index, uint32_t rq_index);
void fx_qp_drained(struct fx_tp *tp, struct fx_qp *qp);
void fx_qp_complete(struct fx_tp *tp, struct fx_qp *qp, struct fx_cq *cq, struct fx_cqe *cqe);

/* ---- moderate.c ---- */
void fx_moderate_timers(struct fx_tp *tp); /* the first is due */

/* ---- state.c ---- */
void fx_qp_set_mtu(struct fx_qp *qp, uint32_t code); /* enum ibv_mtu */

/* ---- sched.c ---- */
void fx_sched_init(struct fx_tp *tp);
void fx_sched_fini(struct fx_tp *tp);
int fx_sched_join(struct fx_tp *tp, struct fx_qp *qp); /* 0 or -ENOMEM */
void fx_sched_quit(struct fx_tp *tp, struct fx_qp *qp);
void fx_run(struct fx_tp *tp, struct fx_qp *qp);     /* it has something to send */
void fx_run_not(struct fx_tp *tp, struct fx_qp *qp); /* or nothing any more */
void fx_run_ack(struct fx_tp *tp, struct fx_qp *qp); /* an answer is due */
void fx_sched_cut(struct fx_tp *tp, struct fx_qp *qp,
		  const struct fx_txpkt *o); /* that is staged, or follows one */
/* A packet was cut. */
static inline void fx_cut_one(struct fx_tp *tp, struct fx_qp *qp, const struct fx_txpkt *o)
{
	if (o->stage || qp->staged)
		fx_sched_cut(tp, qp, o);
}
void fx_sched_gathered(struct fx_tp *tp, struct fx_qp *qp); /* its staged packet is out, or lost */
/* The QP asks for its slow copy again when one of its context is done; and the one that asks first. */
void fx_slow_wait(struct fx_qp *qp);
void fx_slow_wait_not(struct fx_qp *qp);
struct fx_qp *fx_slow_next(const struct fx_share *s);

/* ---- mcast.c ---- */
/* A datagram to a multicast group; `bth` is where BTH starts. */
void fx_mcast_rx(struct fx_tp *tp, struct fx_pkt *p, uint32_t bth);
void fx_mcast_forget(struct fx_tp *tp, const struct fx_qp *qp); /* it is in no group any more */

/* ---- transport.c ---- */
/* The packet is for this QP, if that takes it. */
void fx_tp_deliver(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t bth);
void fx_release(struct fx_tp *tp, struct fx_pkt *p);
void fx_timer_set(struct fx_tp *tp, struct fx_qp *qp, uint64_t when);

/* BTH, straight into bytes. */
static inline void fx_put_bth(uint8_t *p, uint8_t opcode, bool se, uint32_t pad, uint32_t dqpn, bool ackreq,
			      uint32_t psn)
{
	fx_put32(p, (uint32_t)opcode << 24 | (uint32_t)se << 23 | pad << 20 | FX_PKEY_DEFAULT);
	fx_put32(p + 4, dqpn);
	fx_put32(p + 8, (uint32_t)ackreq << 31 | psn);
}

#endif
