/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the control room: clients, contexts and their objects, and who may call whom.
 *
 * Room: control, private to it.
 *
 *	control.c	what a core has one of: tables, core page, mailboxes
 *	socket.c	the socket's name
 *	server.c	connections, requests in and replies out
 *	doors.c		who connects, and may
 *	tcp.c		the door for hosts that share no memory: token, stream, kicks
 *	place_shared.c place_remote.c	where the rings are (place.h)
 *	dispatch.c	which message is which request, what it must look like
 *	context.c	greeting, and the end of a context
 *	quota.c		users, and what each of them holds
 *	object.c	lists of a context's objects
 *	pd.c mr.c mw.c channel.c cq.c xrcd.c srq.c qp.c opening.c ah.c mcast.c path.c	the objects
 *	counters.c	the device's counters, for a host
 *	show.c		the JSON document of SHOW
 *
 * All of it runs on the control thread. A request that needs a worker returns FX_LATER and goes on in the
 * `done` of its command; until then nothing more is read from its client.
 */
#ifndef FX_CONTROL_INSIDE_H
#define FX_CONTROL_INSIDE_H

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "control/control.h"
#include "control/log.h"
#include "control/place.h"
#include "control/protocol.h"
#include "control/table.h"

#ifndef FLEXINS_VERSION
#define FLEXINS_VERSION "0.0.0"
#endif

struct fx_client;
struct fx_ctx;
struct fx_space;

enum fx_obj_kind {
	FX_OBJ_PD,
	FX_OBJ_CHANNEL,
	FX_OBJ_CQ,
	FX_OBJ_QP,
	FX_OBJ_MR,
	FX_OBJ_MW,
	FX_OBJ_AH,
	FX_OBJ_SRQ,
	FX_OBJ_XRCD,
	FX_OBJ_KINDS
};

struct fx_obj {
	struct fx_obj *next, **prev; /* in its context's list of its kind */
	struct fx_ctx *ctx;
	uint32_t handle;
	uint32_t refs; /* objects that use this one */
	uint8_t kind;  /* enum fx_obj_kind */
	bool going;    /* being destroyed: no request finds it */
};

struct fx_pdo {
	struct fx_obj obj;
};

struct fx_channelo {
	struct fx_obj obj;
	struct fx_wake wake;
};

struct fx_cqo {
	struct fx_obj obj;
	struct fx_cq cq;
	struct fx_channelo *channel; /* NULL: it cannot be armed */
	uint32_t worker;
};

/*
 * An XRC domain, which several contexts may have open. Its receiving QPs, and what they have under way, belong to it and
 * not to a context: the memory that they reach is of whoever has SRQs in it. xrcd.c
 */
struct fx_domain {
	struct fx_domain *next; /* of the core's */
	uint32_t id;		/* as the transport knows it; also in place of a context's */
	uint32_t refs;		/* times that it is open */
	bool named;		/* it has a file: */
	dev_t dev;
	ino_t ino;
	struct fx_wctx *w; /* in place of a context's: it has no pipe, and nobody to tell */
};

struct fx_xrcdo {
	struct fx_obj obj;
	struct fx_domain *d;
};

struct fx_srqo {
	struct fx_obj obj;
	struct fx_pdo *pd;
	struct fx_xrcdo *xrcd; /* these two of XRC, else NULL */
	struct fx_cqo *cq;
	struct fx_rxq rx;
	uint32_t max_wr;
	uint32_t worker;
	struct fx_cmd cmd; /* to take it down with the context */
};

/* A context that has another one's XRC_RECV QP open. opening.c */
struct fx_opening {
	struct fx_opening *next; /* of the QP's */
	struct fx_ctx *ctx;
	struct fx_xrcdo *xrcd;
};

struct fx_qpo {
	struct fx_obj obj;
	struct fx_opening
		*openings; /* beside its owner's: the first becomes the owner when that one leaves */
	struct fx_qp *qp;
	struct fx_pdo *pd;
	struct fx_cqo *scq, *rcq;
	struct fx_xrcdo *xrcd; /* XRC_RECV, which has none of these; else NULL */
	struct fx_srqo *srq;   /* NULL: it has a receive queue of its own, */
	void *rq_copy;	       /* ... of which this is the placement's */
	struct fx_wqp wqp;
	struct fx_cmd cmd; /* to take it down with the context */
	uint32_t qpn;
	uint32_t worker;
	uint32_t send_wrs;	      /* of its user's quota */
	struct fx_attachment *groups; /* multicast groups that it is in */
	uint8_t type;
};

enum fx_mr_state { FX_MR_PLANNED, FX_MR_LIVE };

struct fx_mro {
	struct fx_obj obj;
	struct fx_mr mr;
	struct fx_pdo *pd;
	struct fx_mr_seg *seg; /* the plan, until it is committed */
	uint32_t nseg;
	uint8_t state;			   /* enum fx_mr_state */
	bool fresh;			   /* the memory room has filled `mr` in */
	struct fx_mro *heir;		   /* takes its place when the grace period is over */
	uint64_t bytes[FX_SEG_SHARED + 1]; /* by enum fx_seg_kind */
};

struct fx_mwo {
	struct fx_obj obj;
	struct fx_mw mw;
	struct fx_pdo *pd;
};

struct fx_aho {
	struct fx_obj obj;
	struct fx_ah ah;
	struct fx_pdo *pd;
};

/* Asks every worker for the same: a grace period of a context, or an answer. */
struct fx_grace {
	struct fx_cmd cmd[FX_MAX_WORKERS];
	uint32_t left;
	struct fx_ctx *ctx;
	struct fx_obj *xrcd; /* whose domain is asked next: its QPs reach the context's memory */
	void (*done)(struct fx_grace *g);
	void *arg;
};

/* Somebody with connections or contexts; kept while there are any. */
struct fx_user {
	struct fx_user *next; /* of its bucket */
	struct fx_control *ctl;
	uid_t uid;
	char name[33]; /* "": not in /etc/passwd */
	uint32_t refs; /* connections and contexts */
	uint64_t used[FX_QUOTA_KINDS];
	struct fx_quota quota;
};
enum { FX_USER_SHIFT = 6 };

struct fx_ctx {
	uint32_t id; /* its handle */
	struct fx_control *ctl;
	struct fx_user *user;
	struct fx_client *client; /* NULL: gone */
	int line;		  /* its connection, where that ends last; -1: it has none of its own */
	pid_t pid;
	uid_t uid;
	gid_t gid;
	char program[FX_VERSION_LEN + 1];
	char version[FX_VERSION_LEN + 1];
	struct fx_space *space;
	struct fx_arena *arena;		       /* the placement's */
	struct fx_wake wake;		       /* of asynchronous events */
	struct fx_wctx *wctx;		       /* one; the pipe of worker 0 */
	struct fx_wpipe *pipes[FX_LIMIT_PIPE]; /* beside it */
	struct fx_obj *objs[FX_OBJ_KINDS];
	uint32_t nobjs[FX_OBJ_KINDS];
	struct fx_cmd del;
	uint32_t reap_left;
	uint32_t stall, stalled_s; /* fx_space_stall() last time, and for how many seconds the same */
	struct fx_grace grace;
};

/* Anything in the epoll set. */
struct fx_source {
	int fd;			/* -1: closed */
	struct fx_source *next; /* in the graveyard */
	uint32_t index;		/* of a worker */
	void (*ready)(struct fx_source *src, uint32_t events);
	struct fx_control *ctl;
};

union fx_msg {
	struct fx_msg_head head;
	struct fx_msg_why why;
	uint8_t bytes[FX_MSG_BYTES + 8]; /* one more than allowed shows that a datagram is too long */
	struct fx_hello_req hello;
	struct fx_hello_rep hello_rep;
	struct fx_auth_req auth;
	struct fx_auth_rep auth_rep;
	struct fx_handle_req handle;
	struct fx_handle_rep handle_rep;
	struct fx_reg_mr_req reg_mr;
	struct fx_reg_mr_rep reg_mr_rep;
	struct fx_reg_mr_done_req reg_mr_done;
	struct fx_reg_mr_done_rep reg_mr_done_rep;
	struct fx_replace_mr_req replace_mr;
	struct fx_alloc_mw_req alloc_mw;
	struct fx_alloc_mw_rep alloc_mw_rep;
	struct fx_create_cq_req create_cq;
	struct fx_create_qp_req create_qp;
	struct fx_create_qp_rep create_qp_rep;
	struct fx_open_qp_req open_qp;
	struct fx_open_xrcd_req open_xrcd;
	struct fx_create_srq_req create_srq;
	struct fx_create_srq_rep create_srq_rep;
	struct fx_modify_srq_req modify_srq;
	struct fx_srq_rep srq_rep;
	struct fx_modify_qp_req modify_qp;
	struct fx_modify_qp_rep modify_qp_rep;
	struct fx_ah_req ah;
	struct fx_ah_rep ah_rep;
	struct fx_mcast_req mcast;
	struct fx_qp_req qp;
	struct fx_query_qp_rep query_qp_rep;
	struct fx_query_port_rep query_port_rep;
	struct fx_counters_rep counters_rep;
	struct fx_query_clock_rep query_clock_rep;
	struct fx_create_pipe_req create_pipe;
	struct fx_modify_cq_req modify_cq;
	struct fx_resize_cq_req resize_cq;
	struct fx_resize_cq_rep resize_cq_rep;
};

struct fx_client {
	struct fx_source src;
	struct fx_source life; /* pidfd of the process; fd -1: there is none */
	struct fx_control *ctl;
	struct fx_client *next, **prev;
	struct fx_ctx *ctx;	    /* FX_ROLE_HOST after its greeting */
	const struct fx_door *door; /* by which it came */
	struct ucred cred;	    /* once it is known */
	struct fx_user *user;
	uint64_t since_ms;
	uint32_t role; /* 0 before the greeting */
	bool known;    /* whose it is: from the start, or since AUTH */
	bool busy;     /* a request waits for a worker */
	bool gone;     /* the socket is closed */
	union fx_msg req, rep;
	int fds[FX_MSG_FDS]; /* that go with the reply */
	uint32_t nfds;
	uint32_t nkeep; /* the first of them belong to an object and stay open here */
	char why[FX_WHY_LEN];
	/* of the request under way */
	struct fx_cmd cmd;
	struct fx_cmd_modify modify;
	struct fx_cmd_srq srq;
	struct fx_cmd_cq cq;
	struct fx_grace grace;
	struct fx_show *show;
	struct fx_tally *tally;
	void *target;
	struct fx_stream *stream; /* tcp.c; NULL: its messages come as datagrams */
};

/* What is listened at. */
struct fx_door {
	struct fx_source src;
	uint32_t roles; /* that come in here: bits 1 << enum fx_role */
	bool paused;
	bool passes_fds;
	bool ends_last; /* a context's connection ends when nothing under way touches the host's memory any more */
	uint32_t while_busy; /* epoll events that are waited for while a request is under way */
	void (*ready)(struct fx_source *src, uint32_t events); /* of its clients */
	void (*admit)(struct fx_door *d, int fd);
};
enum { FX_DOOR_LOCAL, FX_DOOR_TCP, FX_DOORS };

struct fx_control {
	struct fx_control_cfg cfg;
	char name[FX_VERSION_LEN];
	char path[108];
	uint64_t guid;
	uint64_t started_ms;
	int epoll;
	struct fx_door door[FX_DOORS];
	uint8_t token[FX_TOKEN_LEN];
	char ticket[128]; /* the token's file; "": none */
	uint64_t warned_ms;
	struct fx_source stop, workers[FX_MAX_WORKERS];
	struct fx_mailbox mailbox[FX_MAX_WORKERS];
	struct fx_client *clients;
	struct fx_source *graveyard; /* freed after the turn, since its events may still name them */
	uint32_t nclients, nstrangers;
	bool stopping;
	uint64_t idle_since_ms, checked_ms;
	struct fx_core_page *page;
	int page_fd;
	struct fx_mr_table mrs;
	struct fx_ah_table ahs;
	struct fx_group *groups; /* multicast */
	uint32_t ngroups;
	uint8_t *qp_gen; /* by QP index: the generation of its next life */
	struct fx_table ctxs, objs[FX_OBJ_KINDS];
	struct fx_user *users[1 << FX_USER_SHIFT]; /* by uid */
	struct fx_domain *domains;
	uint32_t domain_seq;
	struct fx_control_counters n;
};

enum { FX_LATER = 1 };

/* Where rings are in an arena: up to the heap, by offset. A page of the core page's own is there in any placement. */
#define FX_ARENA_PAGE UINT64_C(4096)
#define FX_ARENA_PAGES(bytes) (((bytes) + FX_ARENA_PAGE - 1) / FX_ARENA_PAGE * FX_ARENA_PAGE)
#define FX_PIPE_OFF UINT64_C(0)
#define FX_EVENT_OFF                                                                                         \
	(FX_PIPE_OFF +                                                                                       \
	 FX_ARENA_PAGES(sizeof(struct fx_pipe_head) + ((uint64_t)FX_SLOT_SIZE << FX_PIPE_SHIFT)))
#define FX_PAGE_OFF                                                                                          \
	(FX_EVENT_OFF + FX_ARENA_PAGES(sizeof(struct fx_event_head) +                                        \
				       ((uint64_t)sizeof(struct fx_event) << FX_EVENT_SHIFT)))
#define FX_HEAP_OFF (FX_PAGE_OFF + FX_ARENA_PAGE)

/* ---- server.c ---- */
uint64_t fx_now_ms(void);
int fx_server_init(struct fx_control *ctl);
int fx_source_add(struct fx_control *ctl, struct fx_source *src, uint32_t events);
void fx_source_want(struct fx_control *ctl, struct fx_source *src, uint32_t events);
/* Closes it; its memory, of which it is the first member, goes with the end of this turn. */
void fx_source_free(struct fx_control *ctl, struct fx_source *src);
/* A connection that was accepted; NULL: no memory. */
struct fx_client *fx_client_new(struct fx_control *ctl, const struct fx_door *door, int fd);
void fx_client_ready(struct fx_source *src, uint32_t events); /* a datagram, or the end */
/* Runs what is in c->req, of `len` bytes, and replies. */
void fx_client_request(struct fx_client *c, size_t len);
/* Something that is no reply. A client that has no room for it is dropped. */
void fx_client_say(struct fx_client *c, const void *msg, size_t size);
/* Sends the reply of the request under way: err 0, or a negative errno with c->why. */
void fx_client_reply(struct fx_client *c, int err);
/* Ends the connection, and in time its context. */
void fx_client_drop(struct fx_client *c);
void fx_client_free(struct fx_client *c);

/* ---- doors.c ---- */
int fx_door_open(struct fx_control *ctl, int which, int fd);
void fx_doors_close(struct fx_control *ctl); /* and their names go */
void fx_doors_resume(struct fx_control *ctl);
bool fx_doors_paused(const struct fx_control *ctl);
/* It is known now whose connection it is: 0, or a negative errno with c->why. */
int fx_client_known(struct fx_client *c, const struct ucred *cred);

/* ---- tcp.c ---- */
int fx_tcp_listen(struct fx_control *ctl, const char *listen_at, const char *ticket, unsigned mode, char *why,
		  size_t size);
int fx_auth(struct fx_client *c);
void fx_stream_ready(struct fx_source *src, uint32_t events);
struct fx_stream *fx_stream_new(void);
void fx_drop_strangers(struct fx_control *ctl); /* once a second: those who have not shown a token in time */

/* ---- socket.c ---- */
int fx_socket_listen(const char *path, unsigned mode, char *why, size_t size);

/* ---- dispatch.c ---- */
/* Runs the request in c->req of `len` bytes: 0, FX_LATER or a negative errno with c->why. */
int fx_dispatch(struct fx_client *c, size_t len);
/* Says why a request fails, and returns `err`. */
int fx_refuse(struct fx_client *c, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- context.c ---- */
int fx_hello(struct fx_client *c);
void fx_ctx_check_stalls(struct fx_control *ctl); /* once a second */
/* A range of the client's part of the arena: whole, aligned, inside. */
bool fx_arena_holds(uint64_t off, uint64_t len);
/* The client has gone: nothing of its memory is waited for any more. */
void fx_ctx_disown(struct fx_ctx *ctx);
/* And no request of it is under way. */
void fx_ctx_reap(struct fx_ctx *ctx);
void fx_workers_ask(struct fx_ctx *ctx, enum fx_cmd_op op, struct fx_grace *g,
		    void (*done)(struct fx_grace *g), void *arg);
void fx_grace_ask(struct fx_ctx *ctx, struct fx_grace *g, void (*done)(struct fx_grace *g), void *arg);

/* ---- quota.c ---- */
/* The user's account, and one more reason to keep it; NULL: no memory. */
struct fx_user *fx_user_hold(struct fx_control *ctl, uid_t uid);
void fx_user_release(struct fx_user *u);
/* May the user have the connection that was counted last? */
bool fx_user_admits(const struct fx_user *u);
/* n more of the client's user: 0, or -ENOMEM with c->why. */
int fx_quota_take(struct fx_client *c, enum fx_quota_kind k, uint64_t n);
void fx_quota_give(struct fx_user *u, enum fx_quota_kind k, uint64_t n);
uint32_t fx_quota_min(const struct fx_user *u, enum fx_quota_kind k, uint32_t limit);

/* ---- object.c ---- */
/* Enters it into its user's account, the table and its context's list; -ENOMEM or -EAGAIN with the client's why. */
int fx_obj_add(struct fx_ctx *ctx, struct fx_obj *obj, enum fx_obj_kind kind);
void fx_obj_del(struct fx_obj *obj);
/* By a handle that the client sent: it must be its own. NULL with c->why. */
void *fx_obj_get(struct fx_client *c, enum fx_obj_kind kind, uint32_t handle);
/* It is another context's from now on, and on that one's user's account. */
void fx_obj_move(struct fx_obj *obj, struct fx_ctx *ctx);
extern const char *const fx_obj_names[FX_OBJ_KINDS];

/* ---- requests ---- */
int fx_alloc_pd(struct fx_client *c);
int fx_dealloc_pd(struct fx_client *c);
int fx_reg_mr(struct fx_client *c);
int fx_reg_mr_done(struct fx_client *c);
int fx_dereg_mr(struct fx_client *c);
int fx_replace_mr(struct fx_client *c);
int fx_alloc_mw(struct fx_client *c);
int fx_dealloc_mw(struct fx_client *c);
int fx_create_channel(struct fx_client *c);
int fx_destroy_channel(struct fx_client *c);
int fx_create_cq(struct fx_client *c);
int fx_destroy_cq(struct fx_client *c);
int fx_open_xrcd(struct fx_client *c);
int fx_close_xrcd(struct fx_client *c);
int fx_create_srq(struct fx_client *c);
int fx_modify_srq(struct fx_client *c);
int fx_query_srq(struct fx_client *c);
int fx_destroy_srq(struct fx_client *c);
int fx_create_qp(struct fx_client *c);
int fx_open_qp(struct fx_client *c);
int fx_modify_qp(struct fx_client *c);
int fx_query_qp(struct fx_client *c);
int fx_destroy_qp(struct fx_client *c);
int fx_create_ah(struct fx_client *c);
int fx_resolve_ah(struct fx_client *c);
int fx_destroy_ah(struct fx_client *c);
int fx_attach_mcast(struct fx_client *c);
int fx_detach_mcast(struct fx_client *c);
int fx_query_port(struct fx_client *c);
int fx_query_clock(struct fx_client *c);
int fx_create_pipe(struct fx_client *c);
int fx_destroy_pipe(struct fx_client *c);
void fx_pipes_free(struct fx_ctx *ctx); /* no worker polls them any more */
int fx_modify_cq(struct fx_client *c);
int fx_resize_cq(struct fx_client *c);
int fx_show(struct fx_client *c);
int fx_device_counters(struct fx_client *c);
/* The counters of one more worker. */
void fx_snapshot_add(struct fx_cmd_snapshot *to, const struct fx_cmd_snapshot *from);

/* ---- mr.c ---- */
/* A key of this index in the table of keys, with as many bits of chance below it, and zeroes below them; -EIO. */
int fx_key_make(uint32_t index, unsigned chance_bits, uint32_t *key);

/* ---- qp.c ---- */
/* A ring of receives as a client lays it out: large enough for what may be posted, inside of the arena. */
int fx_check_rq(struct fx_client *c, uint32_t max_wr, uint32_t max_sge, uint32_t shift, uint64_t off,
		struct fx_rq *rq);

/* ---- opening.c ---- */
/* A QP of the client's: its own, or one that it has open. NULL with c->why. */
struct fx_qpo *fx_qp_get(struct fx_client *c, uint32_t handle);
/* The context has no more to do with the QP. False: it was the only one that had, and the QP is its own. */
bool fx_qp_leave(struct fx_qpo *qp, struct fx_ctx *ctx);
/* Nor with any other than those that are its alone. */
void fx_openings_close(struct fx_ctx *ctx);

/* ---- for the end of a context ---- */
void fx_channel_free(struct fx_channelo *ch);
void fx_cq_free(struct fx_cqo *cq); /* its worker does not know it any more */
void fx_mr_unpublish(struct fx_mro *mr);
void fx_mr_free(struct fx_mro *mr); /* after a grace period */
void fx_mw_unpublish(struct fx_mwo *mw);
void fx_mw_free(struct fx_mwo *mw);    /* after a grace period */
void fx_mcast_quit(struct fx_qpo *qp); /* it is in no group any more; the worker knows */
void fx_ah_unpublish(struct fx_aho *ah);
void fx_ah_free(struct fx_aho *ah);    /* every worker has answered since */
void fx_qp_forget(struct fx_qpo *qp);  /* the worker has freed its QP */
void fx_srq_free(struct fx_srqo *srq); /* no worker knows it any more */
void fx_xrcd_free(struct fx_xrcdo *x);
/* As the worker knows whose its memory is: commands that wait for what is under way name it. */
struct fx_wctx *fx_srq_wctx(const struct fx_srqo *srq);
struct fx_wctx *fx_qp_wctx(const struct fx_qpo *qp);

/* ---- path.c ---- */
/* Where packets of this address go: 0, or a negative errno with c->why. */
bool fx_gid_is_multicast(const uint8_t gid[16]);
int fx_path_build(struct fx_client *c, const struct fx_ah_attr *ah, uint32_t qpn, struct fx_path *path);

#endif
