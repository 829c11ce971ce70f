/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The verbs objects in the application's process, and what the files of this room know of one another.
 *
 * Room: host, private to it. May use: pipe, the control protocol, the public header of verbs, libc.
 *
 *	find.c		where cores are
 *	link.h		the way to a core; local.c: on this machine; remote.c, ticket.h: across a bus
 *	control.c	handshake, requests, replies
 *	arena.c		where rings lie in the arena
 *	device.c	the device list: is there a core?
 *	context.c	open and close; whether the core still lives
 *	query.c		device, port, GID and P_Key answers
 *	state.h		what the device is, for programs that only look around
 *	mr.c		protection domains and memory regions
 *	dmabuf.c	regions of dma-bufs
 *	domain.c	parent domains, and thread domains with their pipes
 *	convert.c	turning private pages into shared ones
 *	stacks.c	which memory is a stack, and must stay private
 *	ranges.c	which memory was converted
 *	areas.c		what the kernel says of our memory
 *	wishes.c	what the program asked for its memory, kept over a conversion
 *	fork.c		converted memory in a forked child
 *	hold.c		... copied at one moment
 *	memory.c	madvise and mremap on converted memory
 *	mw.c		memory windows
 *	import.c	what another part of the process has opened
 *	ah.c		address handles, multicast groups
 *	queue.h		shadow queues and the QPs of a CQ
 *	cq.c		completion queues and polling
 *	srq.c		shared receive queues
 *	xrc.c		XRC domains
 *	cq_ex.c		... one completion at a time, read field by field
 *	resize.c	... of another size; moderation
 *	clock.c		the device's clock
 *	qp.c		life and states of a QP
 *	entry.h		send requests as entries of the pipe
 *	post.c		posting lists of requests
 *	wr.c		posting batches of ibv_wr_*()
 *	bounce.h	ways round the core's helper thread: slow.c, pool.c, bounce.c
 *	events.c	records of the event ring, asynchronous events
 *	channel.c	completion channels
 *	absent.c	verbs that this library does not have
 *	text.c		the texts of verbs
 *
 * Inside, functions return 0 or a negative errno; the flexins_* functions return what the verbs manual says.
 * Locks are taken in this order: a poll (cq_ex.c), list of contexts, the making of pools (pool.c), regions (mr.c),
 * context, window, send queue (a program may poll in the midst of a batch of ibv_wr_*()), receive queue, CQs by address,
 * an SRQ, pipe, arena, slow regions, a pool.
 */
#ifndef FX_HOST_HOST_H
#define FX_HOST_HOST_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/protocol.h"
#include "flexins/flexins.h"
#include "host/link.h"
#include "host/lock.h"
#include "host/queue.h"
#include "pipe/ring.h"

#ifndef FLEXINS_VERSION
#define FLEXINS_VERSION "0.0.0"
#endif

enum {
	FX_RINGS = 1, /* workers this ABI names a pipe for */
	FX_PORT = 1,
	FX_BUCKETS = 256,	 /* of what a context's events may be about, by cookie */
	FX_CALL_MS = 60000,	 /* a core that does not answer for so long is lost */
	FX_POLLS_PER_LOOK = 256, /* empty polls between looks whether the core lives */
	FX_LOOK_MS = 20,	 /* least time between looks at the socket */
};

#define fx_likely(x) __builtin_expect(!!(x), 1)
#define fx_unlikely(x) __builtin_expect(!!(x), 0)
#define fx_container(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* ---- control.c ---- */
struct fx_conn {
	pthread_mutex_t lock;
	struct fx_link *link;
	uint16_t seq;
	bool broken; /* a reply is missing: nothing that comes now can be trusted */
};

/*
 * Connects and shakes hands. Errors: -ENOENT no core; -EPROTONOSUPPORT another ABI; -EACCES somebody else's
 * socket; what the core refused with. flexins_why() then has the text. On success the caller owns rep's fds.
 */
int fx_conn_open(struct fx_conn *c, struct fx_hello_rep *rep, struct fx_fds *fds);
void fx_conn_close(struct fx_conn *c);
/*
 * One request and its reply. The head needs op only. fds: NULL if the reply may not bring any. Errors: what the
 * core answered; -EPROTO not a reply; -ENODEV the connection is lost, now or before.
 */
int fx_call(struct fx_conn *c, void *req, size_t req_size, void *rep, size_t rep_size, struct fx_fds *fds);
void fx_close_fds(struct fx_fds *fds);
int64_t fx_clock_ms(void); /* CLOCK_MONOTONIC */
/* Keeps a text for flexins_why() of this thread. */
void fx_why(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A failure reaches the application: a text that was kept for an earlier one is not this one's. */
void fx_why_settle(void);

/* ---- arena.c ---- */
struct fx_extent;
struct fx_arena {
	uint8_t *base;
	int discard; /* the advice that makes whole pages of it read zero */
	pthread_mutex_t lock;
	struct fx_extent *free; /* by offset */
};
/* `size` zeroed bytes at `base`, which stay the caller's; what is before heap_off is not handed out. */
int fx_arena_init(struct fx_arena *a, uint8_t *base, uint64_t size, uint64_t heap_off, int discard);
void fx_arena_fini(struct fx_arena *a);
/* -> the offset of `size` zeroed bytes on an FX_LINE boundary; -ENOMEM */
int fx_arena_alloc(struct fx_arena *a, uint64_t size, uint64_t *off);
/* Nobody writes there any more; reads zero from now on unless `touch` is false (a forked child's view). */
void fx_arena_free(struct fx_arena *a, uint64_t off, uint64_t size, bool touch);

/* ---- objects ---- */
struct fx_device {
	struct ibv_device dev;
	uint8_t zero[256]; /* direct-verbs libraries read their own fields here */
	struct fx_device_limits limits;
};

/* A send pipe: the context's, which its threads share, or a thread domain's. */
struct fx_hpipe {
	uint32_t lock; /* of the context's */
	struct fx_pipe_tx tx;
};
struct fx_vtd {
	struct ibv_td td;
	uint32_t users;	     /* parent domains, atomic */
	struct fx_vtd *next; /* of its context, under its lock */
	uint32_t handle;     /* of its pipe; 0: it has none, and uses the context's */
	uint64_t off;
	struct fx_hpipe pipe __attribute__((aligned(FX_LINE)));
};

enum fx_life { FX_ALIVE, FX_GONE, FX_FORKED };

/* The pipe behind a descriptor that applications wait on: it holds a byte for every record that nobody took. */
struct fx_wake {
	int fd;
	uint32_t readers; /* threads between their read and what they do with it */
	uint32_t owed;	  /* bytes in it whose records were taken back */
};
struct fx_channel {
	struct ibv_comp_channel channel;
	uint32_t handle;
	struct fx_wake wake;
	struct fx_vcq *head, *tail; /* with an event that nobody took, by event_next */
};

/* What events are about: a CQ, QP or SRQ. events.c */
enum fx_element { FX_OF_DEVICE, FX_OF_CQ, FX_OF_QP, FX_OF_SRQ, FX_OF_WQ };
struct fx_subject {
	uint64_t cookie; /* as the core knows it */
	enum fx_element element;
	void *object; /* the verbs object, which has these two: */
	pthread_mutex_t *mutex;
	pthread_cond_t *cond;
	uint32_t delivered;	 /* asynchronous events, under *mutex */
	struct fx_subject *next; /* of its bucket, under ctx->lock */
};

struct fx_context {
	struct verbs_context verbs; /* ends with struct ibv_context */
	struct fx_device *device;
	struct fx_conn conn;
	struct fx_arena arena;
	const struct fx_core_page *page;
	uint32_t kicked; /* the last sleep that was ended by a kick, atomic */
	int life;	 /* enum fx_life, atomic: it only ever rises */
	uint32_t nslow;	 /* regions of which parts are slow, atomic */
	bool by_dma;	 /* the core takes all memory as it is */
	bool bounce;	 /* this core has a helper thread worth going round */
	pid_t pid;
	uint32_t id;
	struct fx_device_limits limits;
	struct fx_query_port_rep port; /* as last asked; under lock */
	char core[FX_VERSION_LEN + 1], version[FX_VERSION_LEN + 1];

	struct fx_hpipe pipe __attribute__((aligned(FX_LINE)));

	pthread_mutex_t lock __attribute__((aligned(FX_LINE)));
	struct fx_subject *subjects[FX_BUCKETS];
	uint64_t cookie; /* last given */
	struct fx_vtd *tds;
	struct fx_event_rx events;
	struct fx_wake wake;	/* of async_fd */
	struct fx_event *async; /* taken from the ring, not yet by the application */
	uint32_t nasync, async_room;
	bool fatal_told;
	struct fx_vpd *pds; /* for whoever imports them by their handles */
	struct fx_vmr *mrs;
	/* under the lock of all contexts */
	struct fx_context *next; /* of all contexts, for fork */
	uint32_t shares;	 /* closes to come, beside the last */
	/* clock.c's, of a core that is elsewhere: both atomic */
	uint64_t wall;	    /* the wall clock when its clock was 0 */
	int64_t wall_asked; /* fx_clock_ms() of when that was last found out; 0: not yet */

	uint32_t slow_lock __attribute__((aligned(FX_LINE)));
	struct fx_vmr *slow[FX_BUCKETS]; /* regions of which parts are slow, by lkey */
};

struct fx_pool;
struct fx_vpd {
	struct ibv_pd pd;
	uint32_t users;	      /* atomic */
	struct fx_pool *pool; /* of bounce buffers, NULL until there is slow memory, atomic */
	struct fx_vpd *next;  /* of its context, under its lock */
	/* of a parent domain: what it was made of; of any other: itself, NULL, NULL */
	struct fx_vpd *root, *base;
	struct fx_vtd *td;
};
struct fx_vmr {
	struct ibv_mr mr;
	uint64_t iova;
	uint32_t access;
	/* slow.c's; nslow is 0 where there is none */
	uint32_t nslow;
	struct fx_slow_run *slow;
	uint32_t writers;	     /* copies under way, atomic */
	struct fx_vmr *next;	     /* of its bucket */
	struct fx_vmr *peer, **back; /* of its context, under its lock: there may be many */
	void *map;		     /* made for it, of a dma-buf; NULL: it is the application's */
	size_t map_len;
};
struct fx_vmw {
	struct ibv_mw mw;
	uint32_t window; /* its key with some tag: the application may write into mw */
	uint32_t lock;	 /* of mw.rkey, type 1 */
};
struct fx_cq_ring {
	struct fx_cq_rx rx;
	uint64_t off;
	struct fx_cq_rx
		next; /* resized: what is polled once rx is at next.origin; ring is NULL: there is none */
	uint64_t next_off;
	uint32_t handle;
	uint32_t told; /* CQEs that its last event told of, under the CQ's lock */
};

/* A completion that was polled. */
struct fx_taken {
	struct fx_cqe c;
	uint64_t wr_id;
};

struct fx_vcq {
	union {
		struct ibv_cq cq;
		struct ibv_cq_ex ex; /* begins with it */
	};
	struct fx_context *ctx;
	uint32_t lock;
	uint32_t first;	       /* ring to look at first */
	uint32_t empty;	       /* polls in a row that found nothing */
	uint32_t stale;	       /* CQEs of QPs that were reset or destroyed */
	uint32_t poll_lock;    /* cq_ex.c's, from start to end of a poll; taken before any other */
	uint32_t flush_at;     /* where in qps there may be more to flush */
	struct fx_vpd *parent; /* domain, if it was created in one */
	bool single;	       /* ... by nobody: the application has one thread for it */
	struct fx_taken now;   /* the completion that is being read */
	uint64_t looked_ms;
	struct fx_cq_ring ring[FX_RINGS];
	struct fx_qp_table qps;
	struct fx_vsrq *srqs;	 /* of XRC, that complete here, under lock */
	uint32_t users;		 /* QPs and SRQs, atomic */
	uint32_t comp_delivered; /* completion events, under cq.mutex */
	uint32_t arm;		 /* enum fx_arm_kind since its last event was taken, under lock */
	uint32_t arm_seq;	 /* of that arm: events taken + 1, under lock */
	/* under ctx->lock */
	bool has_event, gone_told;
	struct fx_vcq *event_next; /* of its channel */
	struct fx_subject subject;
};

/* A receive of an SRQ, found by a number that its entry and its CQE carry. */
struct fx_srq_wr {
	uint64_t wr_id;
	uint32_t next; /* of the free ones; FX_SRQ_BUSY: it is outstanding */
};
#define FX_SRQ_BUSY UINT32_MAX
struct fx_vxrcd {
	struct ibv_xrcd xrcd;
	uint32_t handle;
	uint32_t users; /* SRQs and QPs, atomic */
};
struct fx_vsrq {
	struct ibv_srq srq;
	struct fx_context *ctx;
	struct fx_vxrcd *xrcd; /* these of XRC */
	struct fx_vcq *cq;
	struct fx_vsrq *cq_next;
	uint32_t number;
	uint32_t users; /* QPs, atomic */
	uint32_t max_wr, max_sge;
	uint64_t ring_off;
	struct fx_subject subject;
	uint32_t lock; /* of what follows */
	uint32_t free; /* the first number that is; max_wr: none */
	struct fx_srq_wr *wr;
	struct fx_rq ring;
};

struct fx_batch;
struct fx_vqp {
	union {
		struct ibv_qp qp;
		struct ibv_qp_ex ex; /* begins with it */
	};
	struct fx_context *ctx;
	uint32_t state; /* enum ibv_qp_state as posting sees it, atomic */
	uint32_t qpn_gen;
	uint32_t sq_lock;
	bool sig_all;
	uint32_t max_send_sge, max_recv_sge,
		max_inline; /* the application's: the core was told fx_qp_room()'s */
	uint32_t
		fetch_end; /* of the send request after the newest that fetches; kept while there is slow memory */
	struct fx_vxrcd *xrcd;	/* XRC_RECV: it has no PD and no CQs */
	struct fx_batch *batch; /* NULL: no ibv_wr_*() */
	struct fx_hpipe *pipe;	/* that its requests go through */
	bool alone;		/* ... and nobody else's thread: its queues need no locks */
	struct fx_shadow sq;
	uint32_t rq_lock __attribute__((aligned(FX_LINE)));
	struct fx_shadow rq;
	struct fx_rq ring;
	uint64_t ring_off;
	struct fx_subject subject;
};

static inline struct fx_context *fx_context_of(struct ibv_context *c)
{
	return fx_container(c, struct fx_context, verbs.context);
}
static inline struct fx_vpd *fx_pd_of(struct ibv_pd *pd)
{
	return fx_container(pd, struct fx_vpd, pd);
}
static inline struct fx_vmw *fx_mw_of(struct ibv_mw *mw)
{
	return fx_container(mw, struct fx_vmw, mw);
}
static inline struct fx_vcq *fx_cq_of(struct ibv_cq *cq)
{
	return fx_container(cq, struct fx_vcq, cq);
}
static inline struct fx_vsrq *fx_srq_of(struct ibv_srq *srq)
{
	return fx_container(srq, struct fx_vsrq, srq);
}
static inline struct fx_vxrcd *fx_xrcd_of(struct ibv_xrcd *xrcd)
{
	return fx_container(xrcd, struct fx_vxrcd, xrcd);
}
static inline struct fx_vqp *fx_qp_of(struct ibv_qp *qp)
{
	return fx_container(qp, struct fx_vqp, qp);
}

/* A verbs function's way out: errno is set, and the positive errno or NULL returned. */
static inline int fx_fail(int err)
{
	fx_why_settle();
	errno = err < 0 ? -err : err;
	return errno;
}
static inline void *fx_null(int err)
{
	fx_fail(err);
	return NULL;
}

/* ---- context.c ---- */
static inline bool fx_alive(const struct fx_context *ctx)
{
	return __atomic_load_n(&ctx->life, __ATOMIC_ACQUIRE) == FX_ALIVE;
}
/* Looks at the core page and the socket; notes it when the core is gone. */
bool fx_look(struct fx_context *ctx);
/* The core has hung up on one of our pipes. */
void fx_lost(struct fx_context *ctx);
/* As fx_call(); a lost connection is noted. */
int fx_ask(struct fx_context *ctx, void *req, size_t req_size, void *rep, size_t rep_size,
	   struct fx_fds *fds);
/* A request that names an object and whose reply says no more than that it was done. */
int fx_ask_drop(struct fx_context *ctx, uint16_t op, uint32_t handle);
uint32_t fx_pipe_pi(struct fx_context *ctx);
/* Lets some open context of this process ask its core; -ENOENT: there is none. */
int fx_by_any_context(int (*ask)(struct fx_context *ctx, void *arg), void *arg);

/* The open context that a command descriptor is of, to be closed once more; NULL: none of this process. */
struct fx_context *fx_context_share(int cmd_fd);

/* ---- import.c ---- */
/* -> a command descriptor for a new context, or -1 with errno */
int fx_import_fd(void);
bool fx_import_same(int a, int b);

/* ---- device.c, query.c, mr.c ---- */
struct fx_device *fx_device_of(struct ibv_device *dev);
/* The device with its names, whether there is a core or not. */
const struct ibv_device *fx_device_named(void);
int fx_port_refresh(struct fx_context *ctx);
/* Text for the banner; call after the context's windows were set up. */
void fx_windows_init(int uffd_dev_fd);
const char *fx_windows_kind(const struct fx_context *ctx);
/* No registration is under way while it is held. */
void fx_windows_lock(void);
void fx_windows_unlock(void);
/* Does the user want the helper thread for all that is slow? */
bool fx_windows_helper(void);
/* Both steps of a registration. */
int fx_register(struct fx_context *ctx, struct fx_reg_mr_req *req, struct fx_reg_mr_done_rep *keys);

/* ---- domain.c ---- */
/*
 * Waits until the core has taken whatever is in the pipes of thread domains (guarantee P7): all of them, or the one of a
 * QP. The core always takes it, so that is soon.
 */
void fx_pipes_settle(struct fx_context *ctx);
void fx_pipe_settle(struct fx_context *ctx, const struct fx_hpipe *pipe);
void fx_parent_free(struct fx_vpd *pd);

/* ---- qp.c ---- */
struct ibv_qp_cap fx_qp_room(const struct fx_vqp *qp);
void fx_pack_ah(struct fx_ah_attr *to, const struct ibv_ah_attr *from);
/* Can this port reach such an address? If not, flexins_why() has a text. */
bool fx_av_ok(struct fx_context *ctx, const struct ibv_ah_attr *ah);

/* ---- slow.c: regions, when they have their keys and before they are freed ---- */
void fx_slow_add(struct fx_vmr *mr, const struct fx_reg_mr_done_rep *keys);
void fx_slow_remove(struct fx_vmr *mr);

/* ---- srq.c ---- */
/* The receive of that number is over; false: it is not outstanding. */
bool fx_srq_retire(struct fx_vsrq *srq, uint32_t number, uint64_t *wr_id);

/* ---- clock.c: what CQEs are stamped with, ns ---- */
int fx_clock_raw(struct fx_context *ctx, uint64_t *ns);
/* What the wall clock showed at that time. */
uint64_t fx_clock_wall(struct fx_context *ctx, uint64_t stamp);

/* ---- cq.c ---- */
/* flags: enum fx_cq_flags. NULL with errno */
struct fx_vcq *fx_cq_make(struct ibv_context *c, const struct ibv_cq_init_attr_ex *a, uint32_t flags);
/* Bytes of the arena that a ring and its head take. */
static inline uint64_t fx_cq_bytes(uint32_t shift)
{
	return FX_LINE + ((uint64_t)FX_CQE_SIZE << shift);
}
/* Goes on to the ring's successor, if what is before it was polled. Holds cq->lock. */
bool fx_cq_advance(struct fx_vcq *cq, struct fx_cq_ring *r);
/* The next completion; false: there is none. */
bool fx_cq_next(struct fx_vcq *cq, struct fx_taken *t);
uint8_t fx_taken_sl(const struct fx_taken *t);
enum { FX_WC_FLAGS = FX_WCF_GRH | FX_WCF_IMM | FX_WCF_INV }; /* those of the pipe that are verbs' as well */
/* The QP's receives of an SRQ whose CQEs nobody has polled, and nobody will: their numbers are free. Holds cq->lock. */
void fx_cq_forget(struct fx_vcq *cq, const struct fx_vqp *qp);
/* A QP's two CQs. */
void fx_cqs_lock(struct fx_vqp *qp);
void fx_cqs_unlock(struct fx_vqp *qp);

/* ---- the queues of a QP of a thread domain are its one thread's ---- */
static inline void fx_queue_lock(const struct fx_vqp *qp, uint32_t *lock)
{
	if (fx_likely(!qp->alone))
		fx_lock(lock);
}
static inline void fx_queue_unlock(const struct fx_vqp *qp, uint32_t *lock)
{
	if (fx_likely(!qp->alone))
		fx_unlock(lock);
}

/* ---- post.c ---- */
/* Entries of nslots slots in all into the context's pipe, and a kick; false: the core is gone. */
bool fx_pipe_send(struct fx_context *ctx, struct fx_hpipe *pipe, const struct fx_sq_slot *slot,
		  uint32_t nslots);

/* ---- events.c; fx_lock()s may be taken under ctx->lock, and never the other way round ---- */
static inline struct fx_channel *fx_channel_of(struct ibv_comp_channel *channel)
{
	return fx_container(channel, struct fx_channel, channel);
}
/*
 * Reads a byte as the descriptor's flags say: 1, 0 when the core is gone, -1 with errno. A cancellation point. Unless
 * it is -1, ctx->lock is held and fx_wake_done() is due, with whether a record came with the byte.
 */
int fx_wake_read(struct fx_context *ctx, struct fx_wake *wake);
void fx_wake_done(struct fx_context *ctx, struct fx_wake *wake, bool record);
/* What the ring holds, to where it belongs. Holds ctx->lock. */
void fx_events_sort(struct fx_context *ctx);
/* Gives it a cookie, and its object mutex and cond; `object` is what `mutex` and `cond` belong to. */
void fx_subject_init(struct fx_context *ctx, struct fx_subject *s, enum fx_element element, void *object,
		     pthread_mutex_t *mutex, pthread_cond_t *cond);
/* From now on events find it. Holds ctx->lock. */
void fx_subject_list(struct fx_context *ctx, struct fx_subject *s);
/* The core knows the object no more: so does nobody here, and what it had to tell is taken back. */
void fx_subject_forget(struct fx_context *ctx, struct fx_subject *s);
/* Waits until all that was delivered is acknowledged; mutex and cond are no more. */
void fx_subject_fini(struct fx_subject *s, const uint32_t *acked);
void fx_events_wait_acked(pthread_mutex_t *m, pthread_cond_t *cond, const uint32_t *acked,
			  const uint32_t *delivered);

/* ---- channel.c ---- */
/* A record of the CQ's, from the ring; and out of the channel's list again. Hold ctx->lock. */
void fx_channel_event(struct fx_vcq *cq, const struct fx_event *e);
void fx_channel_remove(struct fx_vcq *cq);
/* The CQ goes away, and with it its event that nobody took. */
void fx_channel_forget(struct fx_vcq *cq);
/* Takes bytes that are owed, if they are ours to take. Holds ctx->lock. */
void fx_wake_settle(struct fx_context *ctx, struct fx_wake *wake);

#endif
