/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control thread's loop: connections, requests in, replies out. See control.h.
 *
 * A client has at most one request under way, so its reply fits the socket's buffer; one that does not take what it is
 * told is dropped, and nothing here ever waits for a client.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/inside.h"

enum {
	EVENTS = 64,
	TICK_MS = 100,		 /* while something is to be looked at again */
	CHECK_MS = 1000,	 /* between looks at clients that stall their memory */
	GOODBYE_MS = 2000,	 /* for taking everything down at the end */
	FIRST_CLIENT_MS = 10000, /* the least linger time of a core that nobody has used yet */
};

uint64_t fx_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int fx_source_add(struct fx_control *ctl, struct fx_source *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};

	return epoll_ctl(ctl->epoll, EPOLL_CTL_ADD, src->fd, &ev) < 0 ? -errno : 0;
}

void fx_source_want(struct fx_control *ctl, struct fx_source *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};

	(void)epoll_ctl(ctl->epoll, EPOLL_CTL_MOD, src->fd, &ev);
}

/* Unlinked already; its memory goes with the end of this turn, since events of this turn may still name it. */
static void bury_later(struct fx_control *ctl, struct fx_source *src)
{
	src->next = ctl->graveyard;
	ctl->graveyard = src;
}

void fx_source_free(struct fx_control *ctl, struct fx_source *src)
{
	if (src->fd >= 0)
		close(src->fd); /* also takes it out of the epoll set */
	src->fd = -1;
	bury_later(ctl, src);
}

static void close_fds(struct fx_client *c)
{
	for (uint32_t i = c->nkeep; i < c->nfds; i++)
		close(c->fds[i]);
	c->nfds = c->nkeep = 0;
}

/* ---- replies ---- */

/* Whole or not at all, as far as the client can ever see: one that has no room for it is dropped. */
static ssize_t send_message(struct fx_client *c, const void *what, size_t size)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * FX_MSG_FDS)];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)what, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (c->nfds) {
		struct cmsghdr *h = &control.align;

		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * c->nfds);
		memcpy(CMSG_DATA(h), c->fds, sizeof(int) * c->nfds);
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * c->nfds);
	}
	return sendmsg(c->src.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The head of the reply is made here; a request fills in the rest and rep.head.size. */
static void finish_head(struct fx_client *c, int err)
{
	if (err < 0) {
		memset(&c->rep, 0, sizeof(c->rep.why));
		memcpy(c->rep.why.why, c->why, FX_WHY_LEN - 1);
		c->rep.head.size = sizeof(c->rep.why);
		close_fds(c);
		c->ctl->n.refused++;
	}
	c->rep.head.magic = FX_PROTO_MAGIC;
	c->rep.head.op = c->req.head.op;
	c->rep.head.seq = c->req.head.seq;
	c->rep.head.err = -err;
}

static void tell(struct fx_client *c, const void *what, size_t size)
{
	ssize_t n = send_message(c, what, size);

	if (n == (ssize_t)size)
		return;
	if (n >= 0 || errno == EAGAIN)
		c->ctl->n.slow_readers++;
	fx_client_drop(c);
}

void fx_client_say(struct fx_client *c, const void *msg, size_t size)
{
	if (!c->gone)
		tell(c, msg, size);
}

void fx_client_reply(struct fx_client *c, int err)
{
	bool was_busy = c->busy;

	c->busy = false;
	if (c->gone) {
		close_fds(c);
		if (c->ctx)
			fx_ctx_reap(c->ctx);
		fx_client_free(c);
		return;
	}
	finish_head(c, err);
	tell(c, &c->rep, c->rep.head.size);
	close_fds(c);
	if (was_busy && !c->gone)
		fx_source_want(c->ctl, &c->src, EPOLLIN | EPOLLRDHUP);
}

/* ---- the life of a connection ---- */

struct fx_client *fx_client_new(struct fx_control *ctl, const struct fx_door *door, int fd)
{
	struct fx_client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->ctl = ctl;
	c->door = door;
	c->since_ms = fx_now_ms();
	c->src = (struct fx_source){.fd = fd, .ready = door->ready, .ctl = ctl};
	c->life.fd = -1;
	if (fx_source_add(ctl, &c->src, EPOLLIN | EPOLLRDHUP) < 0) {
		free(c);
		return NULL;
	}
	c->next = ctl->clients;
	c->prev = &ctl->clients;
	if (c->next)
		c->next->prev = &c->next;
	ctl->clients = c;
	ctl->nclients++;
	ctl->nstrangers++;
	return c;
}

void fx_client_free(struct fx_client *c)
{
	struct fx_control *ctl = c->ctl;

	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	bury_later(ctl, &c->src);
	free(c->stream);
	c->stream = NULL;
	if (c->user)
		fx_user_release(c->user);
	if (!c->known)
		ctl->nstrangers--;
	if (--ctl->nclients == 0)
		ctl->idle_since_ms = fx_now_ms();
}

void fx_client_drop(struct fx_client *c)
{
	if (c->gone)
		return;
	c->gone = true;
	if (c->ctx && c->door->ends_last) {
		epoll_ctl(c->ctl->epoll, EPOLL_CTL_DEL, c->src.fd, NULL);
		c->ctx->line = c->src.fd;
	} else {
		close(c->src.fd); /* also takes it out of the epoll set */
	}
	if (c->life.fd >= 0)
		close(c->life.fd);
	c->src.fd = c->life.fd = -1;
	if (c->ctx)
		fx_ctx_disown(c->ctx);
	if (c->busy)
		return; /* the reply will find it gone */
	if (c->ctx)
		fx_ctx_reap(c->ctx);
	fx_client_free(c);
}

/* One datagram, if there is one. Returns its length, 0 when the peer has gone, -EAGAIN. */
static ssize_t receive(struct fx_client *c)
{
	struct iovec iov = {.iov_base = &c->req, .iov_len = sizeof(c->req.bytes)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1}; /* no room for descriptors: the kernel drops them */
	ssize_t n = recvmsg(c->src.fd, &msg, MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : 0;
	return n;
}

void fx_client_request(struct fx_client *c, size_t len)
{
	int err;

	memset(&c->rep, 0, sizeof(c->rep));
	c->why[0] = '\0';
	c->ctl->n.requests++;
	err = fx_dispatch(c, len);
	if (err == FX_LATER) {
		c->busy = true;
		if (!c->gone)
			fx_source_want(c->ctl, &c->src, c->door->while_busy);
		return;
	}
	fx_client_reply(c, err);
	/* what is no message of any version comes from no client of ours */
	if (!c->gone && err < 0 && (err == -EBADMSG || c->role == 0)) {
		c->ctl->n.dropped++;
		fx_client_drop(c);
	}
}

void fx_client_ready(struct fx_source *src, uint32_t events)
{
	struct fx_client *c = (struct fx_client *)src;
	ssize_t len;

	if (c->busy) {
		/* only a hang-up is waited for now */
		if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
			fx_client_drop(c);
		return;
	}
	len = receive(c);
	if (len == 0)
		fx_client_drop(c);
	else if (len > 0)
		fx_client_request(c, (size_t)len);
}

/* A worker has answered commands. */
static void worker_ready(struct fx_source *src, uint32_t events)
{
	struct fx_mailbox *m = &src->ctl->mailbox[src->index];
	struct fx_cmd *cmd, *next;
	uint64_t count;

	(void)events;
	if (read(src->fd, &count, sizeof(count)) < 0)
		return;
	for (cmd = fx_cmd_take(&m->done); cmd; cmd = next) {
		next = cmd->next; /* `done` may free the command */
		cmd->done(cmd);
	}
}

static void stop_ready(struct fx_source *src, uint32_t events)
{
	uint64_t count;

	(void)events;
	if (read(src->fd, &count, sizeof(count)) > 0)
		src->ctl->stopping = true;
}

/* ---- the loop ---- */

static void bury(struct fx_control *ctl)
{
	while (ctl->graveyard) {
		struct fx_source *src = ctl->graveyard;

		ctl->graveyard = src->next;
		free(src);
	}
}

static void turn(struct fx_control *ctl, int timeout_ms)
{
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(ctl->epoll, ev, EVENTS, timeout_ms);

	for (int i = 0; i < n; i++) {
		struct fx_source *src = ev[i].data.ptr;

		if (src->fd >= 0)
			src->ready(src, ev[i].events);
	}
	bury(ctl);
}

/* How long until the linger time is over: -1 never, 0 it is. */
static int linger_left(const struct fx_control *ctl)
{
	uint64_t wait = ctl->cfg.linger_ms, now = fx_now_ms();

	if (!wait || ctl->nclients)
		return -1;
	if (!ctl->n.connections && wait < FIRST_CLIENT_MS)
		wait = FIRST_CLIENT_MS;
	return now - ctl->idle_since_ms >= wait ? 0 : (int)(wait - (now - ctl->idle_since_ms));
}

/* The clients learn it from their sockets and the core page; workers take down what they had. */
static void say_goodbye(struct fx_control *ctl)
{
	uint64_t until = fx_now_ms() + GOODBYE_MS;

	/*
	 * Release: whoever sees it (acquire) sees what this thread did before. Completions of a worker that still
	 * runs may become visible later: their requests count as flushed by then, and the host passes them over.
	 */
	__atomic_store_n(&ctl->page->alive, 0, __ATOMIC_RELEASE);
	fx_doors_close(ctl);
	for (struct fx_client *c = ctl->clients, *next; c; c = next) {
		next = c->next;
		fx_client_drop(c);
	}
	while ((ctl->nclients || ctl->ctxs.used) && fx_now_ms() < until)
		turn(ctl, TICK_MS);
	if (ctl->nclients || ctl->ctxs.used)
		fx_log(FX_LOG_WARN, "%u contexts could not be taken down within %d ms", ctl->ctxs.used,
		       GOODBYE_MS);
}

void fx_control_run(struct fx_control *ctl)
{
	ctl->idle_since_ms = fx_now_ms();
	while (!ctl->stopping) {
		int wait = linger_left(ctl);

		if (wait == 0)
			break;
		if (ctl->nclients && (wait < 0 || wait > CHECK_MS))
			wait = CHECK_MS;
		if (fx_doors_paused(ctl) && (wait < 0 || wait > TICK_MS))
			wait = TICK_MS;
		turn(ctl, wait);
		if (fx_now_ms() - ctl->checked_ms >= CHECK_MS) {
			ctl->checked_ms = fx_now_ms();
			fx_ctx_check_stalls(ctl);
			fx_drop_strangers(ctl);
		}
		fx_doors_resume(ctl);
	}
	ctl->stopping = true;
	say_goodbye(ctl);
}

void fx_control_stop(struct fx_control *ctl)
{
	fx_rouse(ctl->stop.fd);
}

int fx_server_init(struct fx_control *ctl)
{
	ctl->stop = (struct fx_source){
		.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = stop_ready, .ctl = ctl};
	if (ctl->stop.fd < 0 || fx_source_add(ctl, &ctl->stop, EPOLLIN) < 0)
		return -errno;
	for (uint32_t w = 0; w < ctl->cfg.workers; w++) {
		struct fx_mailbox *m = &ctl->mailbox[w];

		m->worker_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		m->control_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		ctl->workers[w] = (struct fx_source){
			.fd = m->control_fd, .index = w, .ready = worker_ready, .ctl = ctl};
		if (m->worker_fd < 0 || m->control_fd < 0 ||
		    fx_source_add(ctl, &ctl->workers[w], EPOLLIN) < 0)
			return -errno;
	}
	return 0;
}
