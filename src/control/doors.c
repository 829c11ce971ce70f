/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who connects, and may: the socket of the core's name, whose peers the kernel names at once, and the door for hosts that
 * share no memory (tcp.c), whose peers are strangers until they have shown a token.
 *
 * Room: control. May use: sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "control/inside.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* ---- whose connection it is ---- */

/* The process has ended, but a child of it holds its socket. */
static void process_ended(struct fx_source *src, uint32_t events)
{
	struct fx_client *c = (struct fx_client *)((char *)src - offsetof(struct fx_client, life));

	(void)events;
	fx_client_drop(c);
}

/* A socket outlives its process in forked children; the process itself is what must live. */
static void watch_process(struct fx_client *c)
{
	socklen_t len = sizeof(c->life.fd);

	c->life = (struct fx_source){.ready = process_ended, .ctl = c->ctl};
	if (getsockopt(c->src.fd, SOL_SOCKET, SO_PEERPIDFD, &c->life.fd, &len) < 0)
		c->life.fd = (int)syscall(SYS_pidfd_open, c->cred.pid, 0); /* TCP, or before Linux 6.5 */
	if (c->life.fd < 0)
		return;
	if (fcntl(c->life.fd, F_SETFD, FD_CLOEXEC) == 0 && fx_source_add(c->ctl, &c->life, EPOLLIN) == 0)
		return;
	close(c->life.fd);
	c->life.fd = -1;
}

/* The core's own user and root may use it; anyone may if it is root's. */
static bool may_connect(const struct ucred *cred)
{
	return geteuid() == 0 || cred->uid == 0 || cred->uid == geteuid();
}

int fx_client_known(struct fx_client *c, const struct ucred *cred)
{
	struct fx_control *ctl = c->ctl;

	if (!may_connect(cred)) {
		ctl->n.refused_user++;
		return fx_refuse(c, -EACCES, "core %s is for its own user only", ctl->name);
	}
	c->cred = *cred;
	c->user = fx_user_hold(ctl, cred->uid);
	if (!c->user) {
		ctl->n.refused_full++;
		return fx_refuse(c, -ENOMEM, "cannot allocate an account");
	}
	if (!fx_user_admits(c->user)) {
		ctl->n.refused_quota++;
		return fx_refuse(c, -EDQUOT, "user %u has all the connections that it may have",
				 (unsigned)cred->uid);
	}
	watch_process(c);
	c->known = true;
	ctl->nstrangers--;
	ctl->n.connections++;
	return 0;
}

/* ---- coming in ---- */

/* NULL: refused and counted; the connection is closed then. */
static struct fx_client *let_in(struct fx_door *d, int fd)
{
	struct fx_control *ctl = d->src.ctl;
	struct fx_client *c =
		ctl->nclients < FX_LIMIT_CLIENTS && !ctl->stopping ? fx_client_new(ctl, d, fd) : NULL;

	if (c)
		return c;
	ctl->n.refused_full++;
	close(fd);
	return NULL;
}

static void admit_local(struct fx_door *d, int fd)
{
	struct fx_client *c;
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || !may_connect(&cred)) {
		d->src.ctl->n.refused_user++;
		close(fd);
		return;
	}
	c = let_in(d, fd);
	if (c && fx_client_known(c, &cred) < 0)
		fx_client_drop(c);
}

static void admit_stranger(struct fx_door *d, int fd)
{
	struct fx_control *ctl = d->src.ctl;
	struct fx_client *c;
	int one = 1;

	if (ctl->nstrangers >= FX_LIMIT_STRANGERS) {
		ctl->n.refused_full++;
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c = let_in(d, fd);
	if (!c)
		return;
	c->stream = fx_stream_new();
	if (!c->stream) {
		ctl->n.refused_full++;
		fx_client_drop(c);
	}
}

static void door_ready(struct fx_source *src, uint32_t events)
{
	struct fx_door *d = (struct fx_door *)src;

	(void)events;
	for (;;) {
		int fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			d->admit(d, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			/* no descriptor to accept with: leave the queue alone for a tick instead of spinning on it */
			src->ctl->n.refused_full++;
			d->paused = true;
			fx_source_want(src->ctl, src, 0);
		}
		if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

/* ---- the doors ---- */

static const struct fx_door doors[FX_DOORS] = {
	[FX_DOOR_LOCAL] = {.roles = 1 << FX_ROLE_HOST | 1 << FX_ROLE_CTL,
			   .passes_fds = true,
			   .while_busy = EPOLLRDHUP,
			   .ready = fx_client_ready,
			   .admit = admit_local},
	/* kicks come in between; memory that is reached by DMA is the host's again when the connection ends */
	[FX_DOOR_TCP] = {.roles = 1 << FX_ROLE_HOST,
			 .ends_last = true,
			 .while_busy = EPOLLIN | EPOLLRDHUP,
			 .ready = fx_stream_ready,
			 .admit = admit_stranger},
};

int fx_door_open(struct fx_control *ctl, int which, int fd)
{
	struct fx_door *d = &ctl->door[which];

	*d = doors[which];
	d->src = (struct fx_source){.fd = fd, .ready = door_ready, .ctl = ctl};
	return fx_source_add(ctl, &d->src, EPOLLIN);
}

void fx_doors_close(struct fx_control *ctl)
{
	for (int i = 0; i < FX_DOORS; i++) {
		if (ctl->door[i].src.fd >= 0)
			close(ctl->door[i].src.fd);
		ctl->door[i].src.fd = -1;
	}
	if (ctl->path[0])
		unlink(ctl->path);
	if (ctl->ticket[0])
		unlink(ctl->ticket);
	ctl->path[0] = ctl->ticket[0] = '\0';
}

bool fx_doors_paused(const struct fx_control *ctl)
{
	return ctl->door[FX_DOOR_LOCAL].paused || ctl->door[FX_DOOR_TCP].paused;
}

void fx_doors_resume(struct fx_control *ctl)
{
	for (int i = 0; i < FX_DOORS; i++)
		if (ctl->door[i].paused) {
			ctl->door[i].paused = false;
			fx_source_want(ctl, &ctl->door[i].src, EPOLLIN);
		}
}

int fx_control_listen(struct fx_control *ctl, const char *path, unsigned mode, char *why, size_t size)
{
	int fd = fx_socket_listen(path, mode, why, size);

	if (fd < 0)
		return fd;
	snprintf(ctl->path, sizeof(ctl->path), "%s", path);
	return fx_door_open(ctl, FX_DOOR_LOCAL, fd);
}

int fx_control_listen_tcp(struct fx_control *ctl, const char *at, const char *ticket, unsigned mode,
			  char *why, size_t size)
{
	int fd = fx_tcp_listen(ctl, at, ticket, mode, why, size);

	if (fd < 0)
		return fd;
	ctl->door[FX_DOOR_LOCAL].roles = 1 << FX_ROLE_CTL;
	return fx_door_open(ctl, FX_DOOR_TCP, fd);
}
