/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control protocol: fixed-size requests and replies between a host library (or flexinsctl) and the
 * core, one datagram each, over SOCK_SEQPACKET. One request is outstanding on a connection at a time.
 *
 * Room: control. May use: pipe/abi.h. Fixed-width types only; the emulated and BlueField placements carry
 * the same bytes over TCP. The host writes every reserved field zero; the core refuses what it does not know.
 */
#ifndef FX_CONTROL_PROTOCOL_H
#define FX_CONTROL_PROTOCOL_H

#include "pipe/abi.h"

#define FX_PROTO_MAGIC 0x31435846u /* "FXC1": never changes, so that any version can refuse any other */
#define FX_RUNTIME_DIR                                                                                       \
	"/run/flexins" /* non-root: $XDG_RUNTIME_DIR/flexins or /tmp/flexins-UID; socket: NAME.sock */

enum fx_msg_op {
	FX_MSG_HELLO = 1, /* the first message of every connection, host and flexinsctl alike */
	FX_MSG_ALLOC_PD,
	FX_MSG_DEALLOC_PD,
	FX_MSG_REG_MR,	    /* step 1: reply says which ranges to convert, with a memfd each */
	FX_MSG_REG_MR_DONE, /* step 2: what was converted; reply has the keys */
	FX_MSG_DEREG_MR,
	FX_MSG_REPLACE_MR, /* one region takes another's place, its handle and its keys */
	FX_MSG_ALLOC_MW,
	FX_MSG_DEALLOC_MW,
	FX_MSG_CREATE_CHANNEL, /* completion channel: reply has the read end of its pipe */
	FX_MSG_DESTROY_CHANNEL,
	FX_MSG_CREATE_CQ,
	FX_MSG_DESTROY_CQ,
	FX_MSG_MODIFY_CQ,
	FX_MSG_RESIZE_CQ,
	FX_MSG_CREATE_QP,
	FX_MSG_OPEN_QP, /* XRC_RECV, of a domain that the host has open; reply as of CREATE_QP */
	FX_MSG_MODIFY_QP,
	FX_MSG_QUERY_QP,
	FX_MSG_DESTROY_QP,
	FX_MSG_CREATE_AH,
	FX_MSG_RESOLVE_AH, /* the same without making one: where does the address lead? */
	FX_MSG_DESTROY_AH,
	FX_MSG_OPEN_XRCD,
	FX_MSG_CLOSE_XRCD,
	FX_MSG_CREATE_SRQ,
	FX_MSG_MODIFY_SRQ,
	FX_MSG_QUERY_SRQ,
	FX_MSG_DESTROY_SRQ,
	FX_MSG_ATTACH_MCAST,
	FX_MSG_DETACH_MCAST,
	FX_MSG_QUERY_PORT,
	FX_MSG_CREATE_PIPE,  /* a further send pipe; struct fx_create_pipe_req */
	FX_MSG_DESTROY_PIPE, /* whose entries have been consumed, or are forgotten */
	FX_MSG_QUERY_CLOCK,  /* a head; the reply is struct fx_query_clock_rep */
	/*
	 * Where both sides share no memory: over TCP, and AUTH before HELLO. KICK and WAKE have no reply, and come in
	 * between at any time.
	 */
	FX_MSG_AUTH,	 /* the token, and whose memory it is; reply: how much of it the rings want */
	FX_MSG_KICK,	 /* host -> core: a head, nothing else: there is something in the send pipe */
	FX_MSG_WAKE,	 /* core -> host: struct fx_wake_msg */
	FX_MSG_COUNTERS, /* a page of the device's counters: `handle` of them are passed over */
	FX_MSG_SHOW,	 /* flexinsctl: reply carries a memfd with a JSON document; `size` bytes */
	FX_MSG_COUNT
};

struct fx_msg_head {
	uint32_t magic;
	uint16_t op;
	uint16_t seq;  /* echoed in the reply */
	int32_t err;   /* replies: 0 or an errno, positive */
	uint32_t size; /* whole message, this head included */
};
static_assert(sizeof(struct fx_msg_head) == 16, "msg head");

enum { FX_MSG_BYTES = 2048, FX_MSG_FDS = 28, FX_VERSION_LEN = 32, FX_WHY_LEN = 160 };

/* A refused request answers with this: what failed, on which object, what to do. */
struct fx_msg_why {
	struct fx_msg_head head;
	char why[FX_WHY_LEN];
};

enum { FX_TOKEN_LEN = 32 };
struct fx_auth_req {
	struct fx_msg_head head;
	uint32_t pid;
	uint32_t rsvd;
	uint8_t token[FX_TOKEN_LEN];
};
struct fx_auth_rep {
	struct fx_msg_head head;
	uint64_t arena_size;
	uint32_t pid; /* of a core that needs the process's leave to reach its memory; 0: it does not */
	uint32_t rsvd;
};
/* So many records are in the event ring, for whoever waits on the channel. */
struct fx_wake_msg {
	struct fx_msg_head head;
	uint32_t handle; /* of the channel; 0: asynchronous events */
	uint32_t count;
};

enum fx_role { FX_ROLE_HOST = 1, FX_ROLE_CTL = 2 };

struct fx_hello_req {
	struct fx_msg_head head;
	uint32_t abi;
	uint32_t role;
	char version[FX_VERSION_LEN];
	char program[FX_VERSION_LEN]; /* comm of the process, for flexinsctl */
	uint64_t
		arena; /* after AUTH: address of the arena, arena_size bytes of the host's own memory; else 0 */
};

/* Device limits, as query_device answers them. */
struct fx_device_limits {
	uint64_t guid; /* network order as in verbs */
	uint64_t max_mr_size;
	uint32_t max_qp, max_qp_wr, max_sge, max_inline;
	uint32_t max_cq, max_cqe, max_mr, max_pd;
	uint32_t max_rd_atomic, max_init_rd_atomic, max_srq, max_srq_wr;
	uint32_t max_ah, max_mw;
	uint32_t vendor_id, vendor_part_id, hw_ver;
	uint32_t max_mcast_grp, max_mcast_qp, max_mcast;
};

/*
 * Reply fds, in order: core page, arena, kick (write end), event wake (read end), userfaultfd device or none. After AUTH
 * there are none: the page is in the host's own arena and the core writes to it, the rest are KICK and WAKE. A host that
 * has shut its side of that connection down has its memory to itself once the core has closed the other.
 */
struct fx_hello_rep {
	struct fx_msg_head head;
	uint32_t abi;
	uint32_t workers;
	uint64_t arena_size;
	uint64_t pipe_off; /* the context's send pipe for worker 0: struct fx_pipe_head, then slots */
	uint32_t pipe_shift;
	uint32_t event_shift;
	uint64_t event_off;   /* struct fx_event_head, then records */
	uint64_t heap_off;    /* from here to arena_size the host allocates as it likes */
	uint32_t ctx;	      /* context number, as flexinsctl shows it */
	uint32_t have_uffd;   /* 1: the last fd is a userfaultfd device */
	uint64_t page_off;    /* struct fx_core_page, after AUTH; the host sets all of it up but `sleeping` */
	uint32_t shared_cpus; /* for that page */
	uint32_t remote; /* 1: the core reaches all memory by DMA: nothing is to be converted or bounced */
	struct fx_device_limits limits;
	char version[FX_VERSION_LEN];
	char core[FX_VERSION_LEN]; /* the core's name */
};

struct fx_handle_req { /* ALLOC_PD (0), DEALLOC_PD, DEREG_MR, DEALLOC_MW, *_CHANNEL, DESTROY_CQ, QUERY_PORT (port number), SHOW */
	struct fx_msg_head head;
	uint32_t handle;
	uint32_t rsvd;
};
struct fx_handle_rep { /* ALLOC_PD and every reply that only has a handle */
	struct fx_msg_head head;
	uint32_t handle;
	uint32_t rsvd;
};

/* Ranges of a memory region, by how the core will reach them (facts: the ladder of windows). */
enum fx_seg_kind {
	FX_SEG_SLOW,	/* C: /proc/PID/mem on the helper thread */
	FX_SEG_CONVERT, /* A: the host converts it to the memfd that comes with the reply */
	FX_SEG_SHARED,	/* A already done, or B: the core maps what is there */
};
struct fx_mr_seg {
	uint64_t addr;
	uint64_t length;
	uint64_t offset; /* in the memfd of a FX_SEG_CONVERT */
	uint32_t kind;
	uint32_t sparse; /* FX_SEG_SHARED: 1: its pages come as they are used, nobody touches them before */
};
enum { FX_MR_SEGS = 48 };
#define FX_MR_MEMFD "flexins-mr" /* the memfds' name, by which /proc tells converted memory from any other */

struct fx_reg_mr_req {
	struct fx_msg_head head;
	uint32_t pd;
	uint32_t access; /* enum ibv_access_flags */
	uint64_t addr, length, iova;
	uint32_t flags; /* enum fx_reg_flags */
	uint32_t rsvd;
};
enum fx_reg_flags {
	FX_REG_NO_CONVERT = 1, /* everything unconvertible, by the user's wish or for want of userfaultfd */
	FX_REG_SPARSE = 2,     /* shared memory of which little will be used: its segments are sparse */
};
/* fds: one memfd for each FX_SEG_CONVERT, in order. */
struct fx_reg_mr_rep {
	struct fx_msg_head head;
	uint32_t mr; /* handle; not usable before FX_MSG_REG_MR_DONE */
	uint32_t nseg;
	struct fx_mr_seg seg[FX_MR_SEGS];
};
static_assert(sizeof(struct fx_reg_mr_rep) <= FX_MSG_BYTES, "reg_mr reply");
struct fx_reg_mr_done_req {
	struct fx_msg_head head;
	uint32_t mr;
	uint32_t nseg;
	uint64_t
		converted; /* bit i: segment i is now the memfd; a clear bit of a CONVERT falls back to SLOW */
};
/* What goes through the helper thread: sorted, apart from one another; one run of everything where there are more. */
enum { FX_SLOW_RUNS = 32 };
struct fx_slow_run {
	uint64_t off; /* from the region's start */
	uint64_t length;
};
struct fx_reg_mr_done_rep {
	struct fx_msg_head head;
	uint32_t mr;
	uint32_t lkey, rkey;
	uint32_t nslow;
	struct fx_slow_run slow[FX_SLOW_RUNS];
};
static_assert(sizeof(struct fx_reg_mr_done_rep) <= FX_MSG_BYTES, "reg_mr_done reply");

struct fx_replace_mr_req {
	struct fx_msg_head head;
	uint32_t mr;   /* stays, as what the other is */
	uint32_t with; /* is gone afterwards, as its own keys are */
};

struct fx_alloc_mw_req {
	struct fx_msg_head head;
	uint32_t pd;
	uint32_t type; /* enum ibv_mw_type */
};
struct fx_alloc_mw_rep {
	struct fx_msg_head head;
	uint32_t mw;
	uint32_t rkey; /* its tag, the low 8 bits, is 0; not bound, it gives access to nothing */
};

/*
 * Any of the context's requests may go through any of its pipes, but those of a QP through one only. Where the core has no
 * further pipes the answer is EOPNOTSUPP, and ENOSPC where a context has as many as it may.
 */
struct fx_create_pipe_req { /* reply: struct fx_handle_rep */
	struct fx_msg_head head;
	uint64_t off; /* arena: struct fx_pipe_head, then 1 << shift slots, zeroed; FX_LINE aligned */
	uint32_t shift;
	uint32_t rsvd;
};

enum fx_cq_flags {
	FX_CQF_STAMPED = 1, /* its CQEs have stamps */
	FX_CQF_LOSSY = 2,   /* a CQE that finds no room is lost, and the CQ goes on */
	FX_CQF_KNOWN = FX_CQF_STAMPED | FX_CQF_LOSSY,
};
struct fx_create_cq_req {
	struct fx_msg_head head;
	uint64_t off; /* arena: struct fx_cq_head, then 1 << shift CQEs, zeroed; FX_LINE aligned */
	uint32_t shift;
	uint32_t worker;
	uint64_t cookie;
	uint32_t channel; /* 0: none, and it cannot be armed */
	uint32_t flags;	  /* enum fx_cq_flags */
};

struct fx_modify_cq_req { /* reply: struct fx_handle_rep */
	struct fx_msg_head head;
	uint32_t cq;
	uint32_t count;	    /* CQEs an event is for; 0, 1: any */
	uint32_t period_us; /* longest that it is held back for them; 0: there is no end */
	uint32_t rsvd;
};
/* Before it the host writes ci to the new head, and publishes no other until the reply is there. */
struct fx_resize_cq_req {
	struct fx_msg_head head;
	uint64_t off; /* as in CREATE_CQ: a head and a ring of its own */
	uint32_t cq;
	uint32_t shift;
	uint32_t ci;
	uint32_t rsvd;
};
struct fx_resize_cq_rep {
	struct fx_msg_head head;
	uint32_t
		end; /* index of the CQE that is in slot 0 of the new ring; those before it are in the old one */
	uint32_t rsvd;
};

enum fx_qp_flags {
	FX_QPF_BLOCK_MCAST_LOOP =
		1, /* UD: what it sends to a group that it is a member of does not come back */
	FX_QPF_KNOWN = FX_QPF_BLOCK_MCAST_LOOP,
};
enum fx_qp_type {
	FX_QPT_RC = 2,
	FX_QPT_UC = 3,
	FX_QPT_UD = 4,
	FX_QPT_XRC_SEND = 9,
	FX_QPT_XRC_RECV = 10
}; /* as enum ibv_qp_type */
struct fx_create_qp_req {
	struct fx_msg_head head;
	uint32_t pd;
	uint32_t type;
	uint32_t send_cq, recv_cq;
	uint32_t srq; /* 0: none; else it has no ring of its own, whatever max_recv_wr says */
	uint32_t sq_sig_all;
	uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline;
	uint32_t rq_shift; /* log2 of the receive ring's slots */
	uint64_t rq_off;   /* arena; FX_LINE aligned, zeroed */
	uint64_t cookie;
	uint32_t flags; /* enum fx_qp_flags */
	uint32_t xrcd;	/* XRC_RECV, which has no PD, no CQs and no requests */
};

struct fx_open_qp_req {
	struct fx_msg_head head;
	uint32_t xrcd;
	uint32_t qpn;
};
/* The domain of the file that the host has open as fd, or a new one without a file; O_CREAT, O_EXCL as for files. */
struct fx_open_xrcd_req {
	struct fx_msg_head head;
	int32_t fd; /* -1: none */
	uint32_t oflags;
};

/* The ring is as a QP's, but that its entries carry a number below max_wr that no outstanding one has. */
struct fx_create_srq_req {
	struct fx_msg_head head;
	uint32_t pd;
	uint32_t worker; /* of the QPs that are going to use it */
	uint32_t max_wr, max_sge;
	uint32_t limit;	   /* 0: none */
	uint32_t xrcd, cq; /* both: messages of XRC name it, and complete there; or none */
	uint32_t rsvd;
	uint32_t rq_shift; /* as for a QP, as rq_off */
	uint64_t rq_off;
	uint64_t cookie;
};
struct fx_create_srq_rep {
	struct fx_msg_head head;
	uint32_t srq;
	uint32_t number; /* as messages name it */
};
struct fx_modify_srq_req { /* and QUERY_SRQ, which looks at `srq` only */
	struct fx_msg_head head;
	uint32_t srq;
	uint32_t limit;
};
struct fx_srq_rep { /* MODIFY_SRQ, QUERY_SRQ */
	struct fx_msg_head head;
	uint32_t limit; /* now: 0, too, when it was reached */
	uint32_t rsvd;
};

struct fx_create_qp_rep {
	struct fx_msg_head head;
	uint32_t qp;  /* handle for control requests */
	uint32_t qpn; /* its low FX_WORKER_BITS name the worker */
	uint32_t gen;
	uint32_t worker;
};

/* struct ibv_qp_attr without its holes; attr_mask and values as in the verbs ABI. */
struct fx_ah_attr {
	uint8_t dgid[16]; /* zero and is_global 0: the port itself, on a loopback port only */
	uint32_t flow_label;
	uint8_t sgid_index, hop_limit, traffic_class, is_global;
	uint8_t sl, port_num, rsvd[2];
	uint8_t dmac[6]; /* filled in by the core */
	uint16_t dlid;
};
static_assert(sizeof(struct fx_ah_attr) == 36, "ah attr");
struct fx_qp_attr {
	uint32_t qp_state, cur_qp_state, path_mtu, path_mig_state;
	uint32_t qkey, rq_psn, sq_psn, dest_qp_num;
	uint32_t access; /* qp_access_flags */
	uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline;
	struct fx_ah_attr ah;
	uint16_t pkey_index, alt_pkey_index;
	uint8_t en_sqd_async_notify, sq_draining, max_rd_atomic, max_dest_rd_atomic;
	uint8_t min_rnr_timer, port_num, timeout, retry_cnt;
	uint8_t rnr_retry, alt_port_num, alt_timeout, rsvd;
	uint32_t rate_limit;
};
static_assert(sizeof(struct fx_qp_attr) == 112, "qp attr");

struct fx_modify_qp_req {
	struct fx_msg_head head;
	uint32_t qp;
	uint32_t mask;		     /* enum ibv_qp_attr_mask */
	uint32_t pipe_pi;	     /* run after the pipe was consumed up to here (guarantee P7) */
	uint32_t sq_index, rq_index; /* to RESET: where the counters go on */
	uint32_t rsvd;
	struct fx_qp_attr attr;
};
struct fx_modify_qp_rep {
	struct fx_msg_head head;
	uint32_t gen; /* after it */
	uint32_t state;
};
struct fx_ah_req { /* CREATE_AH, RESOLVE_AH */
	struct fx_msg_head head;
	uint32_t pd; /* RESOLVE_AH: 0 */
	struct fx_ah_attr attr;
};
struct fx_ah_rep {
	struct fx_msg_head head;
	uint32_t ah; /* as send entries name it; RESOLVE_AH: 0 */
	uint8_t dmac[6];
	uint8_t rsvd[2];
};
struct fx_qp_req { /* QUERY_QP, DESTROY_QP; DESTROY_AH, whose handle is in place of the QP's */
	struct fx_msg_head head;
	uint32_t qp;
	uint32_t pipe_pi;
};
struct fx_query_qp_rep {
	struct fx_msg_head head;
	uint32_t gen;
	uint32_t rsvd;
	struct fx_qp_attr attr;
};

struct fx_query_clock_rep {
	struct fx_msg_head head;
	uint64_t ns;   /* of the clock that CQEs are stamped with: CLOCK_MONOTONIC, where the core is */
	uint64_t wall; /* CLOCK_REALTIME at the same time */
};

struct fx_mcast_req { /* ATTACH_MCAST, DETACH_MCAST; reply: a head */
	struct fx_msg_head head;
	uint32_t qp;
	uint32_t rsvd;
	uint8_t gid[16];
};

struct fx_query_port_rep {
	struct fx_msg_head head;
	uint32_t state, phys_state;   /* as enum ibv_port_state */
	uint32_t max_mtu, active_mtu; /* enum ibv_mtu */
	uint32_t active_speed, active_width;
	uint32_t max_msg_sz, gid_count;
	uint32_t loopback; /* 1: an address handle without a GRH means the port itself */
	uint32_t rsvd;
	struct {
		uint8_t gid[16];
		uint32_t type; /* 2: RoCE v2, as enum ibv_gid_type_sysfs + 1 */
		uint32_t ifindex;
	} gid[16];
};
static_assert(sizeof(struct fx_query_port_rep) <= FX_MSG_BYTES, "query_port reply");

/* Counters come with their names: the host has no list of its own. "port_..." are the port's, others the transport's. */
enum { FX_COUNTER_NAME = 32, FX_COUNTERS_PAGE = 48 };
struct fx_counters_rep {
	struct fx_msg_head head;
	uint32_t total; /* there are so many */
	uint32_t n;	/* and here these */
	struct {
		char name[FX_COUNTER_NAME];
		uint64_t value;
	} counter[FX_COUNTERS_PAGE];
};
static_assert(sizeof(struct fx_counters_rep) <= FX_MSG_BYTES, "counters reply");

#endif
