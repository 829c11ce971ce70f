/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The way to a core: messages there and back, the kick, descriptors to wait on, and the memory that both sides reach.
 * Where the core is shows here and nowhere above.
 *
 * Room: host, private to it. May use: the control protocol.
 *
 *	local.c		a core on this machine: a Unix socket, descriptors passed along, shared memory
 *	remote.c	a core across a bus: TCP, a thread that listens to it, memory of our own
 */
#ifndef FX_HOST_LINK_H
#define FX_HOST_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/protocol.h"

/* Descriptors that came with a reply. */
struct fx_fds {
	unsigned n;
	int fd[FX_MSG_FDS];
};

/* What a handshake brings. All but the two descriptors stays the link's. */
struct fx_attached {
	const struct fx_core_page *page;
	uint8_t *arena;
	int discard; /* as of struct fx_arena */
	int wake;    /* to wait on for asynchronous events */
	int uffd;    /* userfaultfd device, or -1 */
};

enum fx_fork_time { FX_FORK_BEFORE, FX_FORK_PARENT, FX_FORK_CHILD };

struct fx_link;
/* Functions return 0 or a negative errno unless they say otherwise. */
struct fx_link_ops {
	/* How many descriptors come with the greeting's reply, that for userfaultfd aside, and with a channel's. */
	unsigned hello_fds, channel_fds;
	int (*send)(struct fx_link *l, const void *msg, size_t size);
	/* One message: -> its bytes, 0 when the core has hung up; -ETIMEDOUT: not before fx_clock_ms() was `until`. */
	ssize_t (*receive)(struct fx_link *l, void *buf, size_t size, struct fx_fds *fds, int64_t until);
	/* After the greeting, with as many descriptors as there should be; takes them over unless it fails. */
	int (*attach)(struct fx_link *l, const struct fx_hello_rep *rep, struct fx_fds *fds,
		      struct fx_attached *a);
	bool (*hung_up)(struct fx_link *l);
	/* Wakes the worker that serves us. From any thread; the others may be slow. */
	void (*kick)(struct fx_link *l);
	/*
	 * -> a descriptor that is the caller's, to wait on for a channel's events; takes over what came with the reply.
	 * wake_close() when the core has the channel no more.
	 */
	int (*wake_open)(struct fx_link *l, uint32_t handle, struct fx_fds *fds);
	void (*wake_close)(struct fx_link *l, uint32_t handle);
	/* Around a fork. In the child the link can only be closed from then on. */
	void (*fork)(struct fx_link *l, enum fx_fork_time when);
	void (*close)(struct fx_link *l);
};

/* The first member of either kind. */
struct fx_link {
	const struct fx_link_ops *ops;
	uint64_t arena; /* its address, where it is ours alone: for the greeting */
};

/*
 * Connects by a socket's or a ticket's path. `named`: the user gave it, so that it may be anybody's. *refused: there is
 * a core, and fx_why() has what it says.
 */
int fx_local_open(const char *path, bool named, struct fx_link **link);
int fx_remote_open(const char *path, bool named, struct fx_link **link, bool *refused);

/* Lets the core, of an ordinary user, look into this process where Yama would not. */
void fx_let_in(pid_t core);

/* ---- find.c ---- */
/* The core that the environment names; fx_why() has the text of an error. */
int fx_find_core(struct fx_link **link);

#endif
