/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finding a core by its name and greeting it, as flexins-run and flexinsctl both do.
 *
 * Room: tools. May use: libc, control/protocol.h. Functions return 0 or a negative errno.
 */
#ifndef FX_TOOLS_GREET_H
#define FX_TOOLS_GREET_H

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/protocol.h"

#ifndef FLEXINS_VERSION
#define FLEXINS_VERSION "0.0.0"
#endif

enum { FX_GREET_MS = 5000 }; /* a core that does not answer a greeting for so long is stuck */

struct fx_core_info {
	uint32_t abi;
	char version[FX_VERSION_LEN + 1];
	char why[FX_WHY_LEN + 1]; /* set when the core refused */
	char sock[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* snprintf that says whether it all fitted. */
__attribute__((format(printf, 3, 4))) static inline bool fx_text(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(buf, size, fmt, ap);
	va_end(ap);
	return len >= 0 && (size_t)len < size;
}

/* A name becomes part of a path and of DPDK's file prefix: letters, digits and - _ . only. */
static inline bool fx_name_ok(const char *name)
{
	size_t len = strlen(name);

	return len > 0 && len < FX_VERSION_LEN && name[0] != '.' && name[0] != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == len;
}

/*
 * The directories of sockets, in the order in which libflexins tries them: the system's, then the user's own.
 * false: there is no i-th one.
 */
static inline bool fx_dir(unsigned i, char *dir, size_t size)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");

	if (i == 0)
		return fx_text(dir, size, "%s", FX_RUNTIME_DIR);
	if (i == 1 && xdg && xdg[0] == '/')
		return fx_text(dir, size, "%s/flexins", xdg);
	return i <= 2 && fx_text(dir, size, "/tmp/flexins-%u", (unsigned)geteuid());
}

/* Where a core that this user starts has its socket. */
static inline bool fx_own_dir(char *dir, size_t size)
{
	return fx_dir(geteuid() == 0 ? 0 : 1, dir, size);
}

/* The core must be root's or ours: anybody can make a directory in /tmp. */
static inline bool fx_trusted(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
	       (cred.uid == 0 || cred.uid == geteuid());
}

/* -> a connected socket, or a negative errno; -ENOENT and -ECONNREFUSED: no core there. */
static inline int fx_connect_in(const char *dir, const char *name, struct fx_core_info *info)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd, err = 0;

	if (!fx_text(info->sock, sizeof(info->sock), "%s/%s.sock", dir, name))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, info->sock, sizeof(sun.sun_path));
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
		err = -errno;
	else if (!fx_trusted(fd))
		err = -EACCES;
	if (err)
		close(fd);
	return err ? err : fd;
}

static inline bool fx_nobody(int err)
{
	return err == -ENOENT || err == -ECONNREFUSED || err == -ENOTDIR;
}

/* The first core of that name; with none, why the first that is not simply absent cannot be used. */
static inline int fx_connect(const char *name, struct fx_core_info *info)
{
	char dir[PATH_MAX];
	int err = -ENOENT;

	for (unsigned i = 0; fx_dir(i, dir, sizeof(dir)); i++) {
		struct fx_core_info here = {0};
		int fd = fx_connect_in(dir, name, &here);

		if (i == 0 || fd >= 0 || (fx_nobody(err) && !fx_nobody(fd)))
			*info = here;
		if (fd >= 0)
			return fd;
		if (fx_nobody(err))
			err = fd;
	}
	return err;
}

/* One datagram; descriptors that come with it are closed, but for the first one if `keep` asks for it. */
static inline ssize_t fx_recv_msg(int fd, void *buf, size_t size, int timeout_ms, int *keep)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * FX_MSG_FDS)];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	struct cmsghdr *c;
	ssize_t got;
	int n;

	do
		n = poll(&pfd, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : -ETIMEDOUT;
	got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	if (got < 0)
		return -errno;
	for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int passed;

			memcpy(&passed, CMSG_DATA(c) + i * sizeof(int), sizeof(passed));
			if (keep && *keep < 0)
				*keep = passed;
			else
				close(passed);
		}
	}
	return got;
}

/* One request and its reply; -EPROTO: what came is no reply to it. A refusal fills info->why. */
static inline int fx_call(int fd, const void *req, void *rep, size_t rep_size, int *keep,
			  struct fx_core_info *info)
{
	const struct fx_msg_head *head = req;
	char buf[FX_MSG_BYTES] = {0};
	struct fx_msg_head answer;
	ssize_t got;

	if (send(fd, req, head->size, MSG_NOSIGNAL) < 0)
		return -errno;
	got = fx_recv_msg(fd, buf, sizeof(buf), FX_GREET_MS, keep);
	if (got < 0)
		return (int)got;
	if (got == 0)
		return -ECONNRESET;
	memcpy(&answer, buf, sizeof(answer));
	if ((size_t)got < sizeof(answer) || answer.magic != FX_PROTO_MAGIC || answer.op != head->op)
		return -EPROTO;
	if (answer.err) {
		memcpy(info->why, buf + offsetof(struct fx_msg_why, why), FX_WHY_LEN);
		return answer.err > 0 ? -answer.err : -EPROTO;
	}
	memcpy(rep, buf, rep_size);
	return (size_t)got < rep_size ? -EPROTO : 0;
}

/* flexinsctl's side of the handshake. */
static inline int fx_greet(int fd, const char *program, struct fx_core_info *info)
{
	struct fx_hello_req req = {
		.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_HELLO, .size = sizeof(req)},
		.abi = FX_ABI_VERSION,
		.role = FX_ROLE_CTL,
		.version = FLEXINS_VERSION,
	};
	struct fx_hello_rep rep = {0};
	int err;

	fx_text(req.program, sizeof(req.program), "%s", program);
	err = fx_call(fd, &req, &rep, sizeof(rep), NULL, info);
	info->abi = rep.abi;
	memcpy(info->version, rep.version, FX_VERSION_LEN);
	return err;
}

#endif
