/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control room: one thread that listens on the control socket, keeps the objects behind the protocol, and
 * asks the workers for what concerns running QPs.
 *
 * Room: control. May use: sockets, epoll, jansson, memory/window.h, transport's headers. No DPDK. Nothing
 * that a client does makes the thread wait for it: sockets are non-blocking, a request is one datagram, and a
 * client that does not take its reply is dropped. A closed socket takes everything of its context with it.
 */
#ifndef FX_CONTROL_CONTROL_H
#define FX_CONTROL_CONTROL_H

#include <stddef.h>

#include "control/command.h"
#include "control/limits.h"
#include "control/quota.h"
#include "port/info.h"

/* What control counts. */
#define FX_CONTROL_COUNTER_LIST(X)                                                                           \
	X(connections, "connections accepted")                                                               \
	X(refused_user, "connections of another user, refused")                                              \
	X(refused_token, "connections without the right token, or without one in time, refused")             \
	X(refused_full, "connections beyond the limit, or for want of descriptors, refused")                 \
	X(refused_quota, "requests and connections of users who have all that they may have, refused")       \
	X(refused_version, "greetings of another ABI version, refused")                                      \
	X(requests, "requests taken")                                                                        \
	X(kicks, "kicks that came by a connection")                                                          \
	X(wakes, "wakes that went by a connection")                                                          \
	X(refused, "requests answered with an error")                                                        \
	X(bad_message, "datagrams that are no request: too short, too long, wrong magic or size")            \
	X(unknown_op, "requests of an unknown kind")                                                         \
	X(out_of_order, "requests before a greeting, or a second greeting")                                  \
	X(slow_readers, "clients dropped because they did not take what they were told")                     \
	X(dropped, "clients dropped because of what they sent")                                              \
	X(broken_pipes, "contexts ended because their rings contradicted themselves, or were gone")          \
	X(stalled, "contexts ended because a copy to or from their memory made no progress")                 \
	X(contexts, "contexts opened")                                                                       \
	X(reaped, "contexts whose last trace is gone")

struct fx_control_counters {
#define X(name, text) uint64_t name;
	FX_CONTROL_COUNTER_LIST(X)
#undef X
};

/* Where the core stands to its hosts (place.h): on their machine, or where only DMA reaches their memory. */
struct fx_place_ops;
extern const struct fx_place_ops fx_place_shared, fx_place_remote;

struct fx_control_cfg {
	const char *name;		  /* of the core */
	const char *poll;		  /* for SHOW */
	const char *dma;		  /* for SHOW */
	const char *bus;		  /* for SHOW; NULL: there is none */
	const struct fx_place_ops *place; /* NULL: shared */
	uint32_t workers;
	bool shared_cpus;   /* an empty poll of the application should yield */
	unsigned linger_ms; /* fx_control_run() ends so long after the last client; 0: never */
	const struct fx_port_info *port;
	const struct fx_quota_cfg *quota; /* must outlive the core; NULL: nobody is limited */
};

struct fx_control;

/* Makes the tables, the core page and the mailboxes; nobody is listened to yet. NULL with `why`. */
struct fx_control *fx_control_create(const struct fx_control_cfg *cfg, char *why, size_t size);
/* For the workers, valid until fx_control_destroy(). */
struct fx_mailbox *fx_control_mailbox(struct fx_control *ctl, uint32_t worker);
struct fx_core_page *fx_control_page(struct fx_control *ctl);
const struct fx_mr_table *fx_control_mrs(struct fx_control *ctl);
const struct fx_ah_table *fx_control_ahs(struct fx_control *ctl);

/*
 * Binds the socket `path` (of `mode`) and listens. A socket that nobody answers is replaced. Returns 0, or
 * with `why` -EADDRINUSE: a core of that name is there; or what bind(2) says.
 */
int fx_control_listen(struct fx_control *ctl, const char *path, unsigned mode, char *why, size_t size);
/*
 * Listens for hosts at `at` ("ADDRESS:PORT", NULL: any port of 127.0.0.1), and leaves address and token in the file
 * `ticket`, readable as `mode` has it. From then on the socket is for FX_ROLE_CTL only. 0, or a negative errno with `why`.
 */
int fx_control_listen_tcp(struct fx_control *ctl, const char *at, const char *ticket, unsigned mode,
			  char *why, size_t size);
/*
 * Serves until fx_control_stop() or the linger time; then says goodbye to the clients and takes everything
 * down.
 */
void fx_control_run(struct fx_control *ctl);
/* May be called from a signal handler or another thread. */
void fx_control_stop(struct fx_control *ctl);
/* Ends the socket. The workers must have ended. */
void fx_control_destroy(struct fx_control *ctl);

/* For tests, which glance at them from another thread: what is left, what was counted. */
struct fx_control_usage {
	uint32_t clients, strangers, contexts, pds, channels, cqs, qps, mrs, mws, ahs, srqs, xrcds;
};
void fx_control_usage(const struct fx_control *ctl, struct fx_control_usage *u);
const struct fx_control_counters *fx_control_counters(const struct fx_control *ctl);

#endif
