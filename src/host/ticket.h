/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ticket of a core that is reached over TCP: a file "ADDRESS PORT TOKEN" which those can read who may use the core.
 *
 * Room: host; flexins-run looks with it whether a core answers. May use: the control protocol, libc. Functions return a
 * negative errno where they fail.
 */
#ifndef FX_HOST_TICKET_H
#define FX_HOST_TICKET_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "control/protocol.h"

enum { FX_TICKET_MS = 10000 }; /* whoever listens there and does not answer for so long is no core */

struct fx_ticket {
	struct sockaddr_in at;
	uint8_t token[FX_TOKEN_LEN];
};

static inline int fx_ticket_parse(const char *text, struct fx_ticket *t)
{
	char address[INET_ADDRSTRLEN], hex[2 * FX_TOKEN_LEN + 1];
	unsigned port;

	if (sscanf(text, "%15s %5u %64s", address, &port, hex) != 3 || port > UINT16_MAX ||
	    strspn(hex, "0123456789abcdefABCDEF") != sizeof(hex) - 1)
		return -EPROTO;
	t->at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, address, &t->at.sin_addr) != 1)
		return -EPROTO;
	for (size_t i = 0; i < FX_TOKEN_LEN; i++)
		sscanf(hex + 2 * i, "%2hhx", &t->token[i]);
	return 0;
}

/* `named`: the user gave the path. Else the file must be root's or ours: anybody can make a directory in /tmp. */
static inline int fx_ticket_read(const char *path, bool named, struct fx_ticket *t)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (named ? 0 : O_NOFOLLOW)), err = 0;
	char text[256];
	struct stat st;
	ssize_t n = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		err = -EPROTO;
	else if (!named && st.st_uid != 0 && st.st_uid != geteuid() && st.st_uid != getuid())
		err = -EACCES;
	else if ((n = read(fd, text, sizeof(text) - 1)) < 0)
		err = -errno;
	close(fd);
	if (err)
		return err;
	text[n] = '\0';
	return fx_ticket_parse(text, t);
}

static inline bool fx_read_all(int fd, void *buf, size_t n)
{
	uint8_t *p = buf;

	while (n) {
		ssize_t got = recv(fd, p, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
	}
	return true;
}

/* Receiving gives up after `ms`; 0: never. */
static inline void fx_receive_for(int fd, unsigned ms)
{
	struct timeval t = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
}

/* -> a connected socket. Sending, connecting included, gives up after send_ms. */
static inline int fx_ticket_connect(const struct fx_ticket *t, unsigned send_ms)
{
	struct timeval limit = {.tv_sec = send_ms / 1000, .tv_usec = send_ms % 1000 * 1000};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, err;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)&t->at, sizeof(t->at)) == 0)
		return fd;
	err = errno == EINPROGRESS ? -ETIMEDOUT : -errno;
	close(fd);
	return err;
}

/*
 * Shows the token, and learns how much memory the rings want, and whose leave is asked for. Refused: the core's errno, and why->why is not empty.
 * -EPROTO: whoever listens there is no core; the port is another's by now.
 */
static inline int fx_ticket_show(int fd, const struct fx_ticket *t, struct fx_auth_rep *rep,
				 struct fx_msg_why *why)
{
	struct fx_auth_req req = {.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_AUTH, .size = sizeof(req)},
				  .pid = (uint32_t)getpid()};
	struct fx_msg_head *head = &rep->head;

	memset(why, 0, sizeof(*why));
	memcpy(req.token, t->token, sizeof(req.token));
	fx_receive_for(fd, FX_TICKET_MS);
	if (send(fd, &req, sizeof(req), MSG_NOSIGNAL) != sizeof(req) ||
	    !fx_read_all(fd, head, sizeof(*head)) || head->magic != FX_PROTO_MAGIC || head->op != FX_MSG_AUTH)
		return -EPROTO;
	if (head->err > 0 && head->size == sizeof(*why) && fx_read_all(fd, why->why, sizeof(why->why))) {
		why->why[FX_WHY_LEN - 1] = '\0';
		return -head->err;
	}
	if (head->err || head->size != sizeof(*rep) ||
	    !fx_read_all(fd, &rep->arena_size, sizeof(*rep) - offsetof(struct fx_auth_rep, arena_size)))
		return -EPROTO;
	fx_receive_for(fd, 0);
	return 0;
}

#endif
