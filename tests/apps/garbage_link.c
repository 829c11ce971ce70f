/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See garbage_link.h.
 *
 * Room: tests. May use: libc, control/protocol.h, host/ticket.h.
 */
#include "garbage_link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/ticket.h"

#ifndef FLEXINS_VERSION
#define FLEXINS_VERSION "0.0.0"
#endif

enum { ANSWER_MS = 200, GONE_TRIES = 100 };
enum { PAGE, ARENA, KICK, FDS }; /* in the answer to a greeting */

static bool is_far(const char *path)
{
	size_t n = strlen(path);

	return n > 4 && !strcmp(path + n - 4, ".tcp");
}

static _Noreturn void gone(const char *path, int err)
{
	printf("the core is gone: %s: %s\n", path, strerror(err));
	exit(1);
}

/* -> a socket or a negative errno */
static int connect_near(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), err;

	strncpy(sun.sun_path, path, sizeof(sun.sun_path) - 1);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int connect_far(const char *path, struct link *l, bool shown)
{
	struct fx_ticket t;
	struct fx_msg_why why;
	int err = fx_ticket_read(path, true, &t), fd = err ? err : fx_ticket_connect(&t, FX_TICKET_MS);
	struct fx_auth_rep rep;

	if (fd < 0 || !shown)
		return fd;
	/* one who is a stranger for too long is refused, as is the 65th */
	err = fx_ticket_show(fd, &t, &rep, &why);
	if (!err) {
		l->arena_size = rep.arena_size;
		return fd;
	}
	close(fd);
	return err == -EPROTO ? -EAGAIN : err;
}

struct link dial(const char *path, bool shown)
{
	struct link l = {.far = is_far(path), .fd = -1, .kick = -1};

	for (int i = 0; i < GONE_TRIES; i++) {
		l.fd = l.far ? connect_far(path, &l, shown) : connect_near(path);
		if (l.fd >= 0)
			return l;
		if (l.fd != -EAGAIN && l.fd != -ECONNREFUSED && l.fd != -EINTR)
			break;
		usleep(20000);
	}
	gone(path, -l.fd);
}

void hang_up(struct link *l)
{
	if (l->kick >= 0)
		close(l->kick);
	close(l->fd);
	if (l->arena)
		munmap(l->arena, l->arena_size);
}

/* A datagram; the descriptors that came along go to `fds`, as far as there is room. */
static size_t receive_near(int fd, void *buf, size_t size, int *fds, size_t nfds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * FX_MSG_FDS)];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	int passed[FX_MSG_FDS];

	if (got <= 0)
		return 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		memcpy(passed, CMSG_DATA(c), n * sizeof(int));
		for (size_t i = 0; i < n; i++) {
			if (i < nfds)
				fds[i] = passed[i];
			else
				close(passed[i]);
		}
	}
	return (size_t)got;
}

/* The next message of the stream, whose length is in it; 0: none, or none that fits. */
static size_t receive_far(int fd, uint8_t *buf, size_t size)
{
	struct fx_msg_head head;

	fx_receive_for(fd, ANSWER_MS);
	if (!fx_read_all(fd, &head, sizeof(head)) || head.size < sizeof(head) || head.size > size ||
	    !fx_read_all(fd, buf + sizeof(head), head.size - sizeof(head)))
		return 0;
	memcpy(buf, &head, sizeof(head));
	return head.size;
}

static size_t receive(struct link *l, void *buf, size_t size, int *fds, size_t nfds)
{
	struct pollfd pfd = {.fd = l->fd, .events = POLLIN};
	size_t n;

	do {
		if (poll(&pfd, 1, ANSWER_MS) <= 0)
			return 0;
		n = l->far ? receive_far(l->fd, buf, size) : receive_near(l->fd, buf, size, fds, nfds);
	} while (n >= sizeof(struct fx_msg_head) && ((struct fx_msg_head *)buf)->op == FX_MSG_WAKE);
	return n;
}

size_t answer(struct link *l, void *buf, size_t size)
{
	return receive(l, buf, size, NULL, 0);
}

bool say(struct link *l, const void *buf, size_t size)
{
	return send(l->fd, buf, size, MSG_NOSIGNAL) == (ssize_t)size;
}

bool tell(struct link *l, const void *buf, size_t size)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * 4)];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int n = rnd() % 8 == 0 ? 1 + (int)(rnd() % 4) : 0;
	int null = n ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
	int fds[4] = {null, null, null, null};
	ssize_t sent;

	if (n) { /* TCP takes none, and ignores them */
		struct cmsghdr *c;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n);
	}
	sent = sendmsg(l->fd, &msg, MSG_NOSIGNAL);
	if (null >= 0)
		close(null);
	return sent >= 0;
}

bool kick(struct link *l)
{
	struct fx_msg_head msg = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_KICK, .size = sizeof(msg)};
	uint64_t one = 1;

	return l->far ? say(l, &msg, sizeof(msg)) : write(l->kick, &one, sizeof(one)) >= 0;
}

bool greet(struct link *l)
{
	struct fx_hello_req req = {.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_HELLO, .size = sizeof(req)},
				   .abi = FX_ABI_VERSION,
				   .role = FX_ROLE_HOST,
				   .version = FLEXINS_VERSION,
				   .program = "garbage"};
	int flags = l->far ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED,
	    fds[FDS] = {-1, -1, -1};
	char buf[FX_MSG_BYTES] = {0};
	char *p = MAP_FAILED;

	if (l->far) {
		p = mmap(NULL, l->arena_size, PROT_READ | PROT_WRITE, flags, -1, 0);
		if (p == MAP_FAILED)
			return false;
		l->arena = p;
		req.arena = (uintptr_t)p;
	}
	if (!say(l, &req, sizeof(req)) || receive(l, buf, sizeof(buf), fds, FDS) < sizeof(l->hello))
		return false;
	memcpy(&l->hello, buf, sizeof(l->hello));
	if (fds[PAGE] >= 0)
		close(fds[PAGE]);
	if (!l->far && fds[ARENA] >= 0 && !l->hello.head.err) {
		l->arena_size = l->hello.arena_size;
		p = mmap(NULL, l->arena_size, PROT_READ | PROT_WRITE, flags, fds[ARENA], 0);
		l->arena = p == MAP_FAILED ? NULL : p;
		l->kick = fds[KICK];
	} else if (fds[KICK] >= 0) {
		close(fds[KICK]);
	}
	if (fds[ARENA] >= 0)
		close(fds[ARENA]);
	return !l->hello.head.err && l->arena;
}
