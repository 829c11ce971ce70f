/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A hostile client: garbage SOCKET [ROUNDS [SEED]]. Sends a core what no library would send: rubbish datagrams,
 * lying headers, requests before the greeting, random fields in every request, descriptors of the wrong kind,
 * hang-ups at every point, and rings full of rubbish. It fails only when the core is not there any more.
 *
 * Room: tests. May use: libc, control/protocol.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/protocol.h"

#ifndef FLEXINS_VERSION
#define FLEXINS_VERSION "0.0.0"
#endif

enum { ANSWER_MS = 200, GONE_TRIES = 100, MAX_FDS = 8 };

static uint64_t state;

static uint32_t rnd(void) /* splitmix64: the same run for the same seed */
{
	uint64_t z = state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)(z ^ z >> 31);
}

/* Values at which code breaks are likelier than others. */
static uint32_t odd(void)
{
	static const uint32_t edge[] = {0,	    1,		2,  3,	  0x7fffffff, 0x80000000,
					0xffffffff, 0xfffffffe, 64, 4096, 16,	      31};

	return rnd() % 3 ? edge[rnd() % (sizeof(edge) / sizeof(edge[0]))] : rnd();
}

static int dial(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	strncpy(sun.sun_path, path, sizeof(sun.sun_path) - 1);
	for (int i = 0; i < GONE_TRIES; i++) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

		if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
			return fd;
		close(fd);
		if (errno != EAGAIN && errno != ECONNREFUSED && errno != EINTR)
			break;
		usleep(20000);
	}
	printf("the core is gone: %s: %s\n", path, strerror(errno));
	exit(1);
}

/* -> bytes of the answer, 0: hung up or silent. What came along goes to `fds`, the rest is closed. */
static size_t answer(int fd, void *buf, size_t size, int *fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * FX_MSG_FDS)];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	int passed[FX_MSG_FDS];
	ssize_t got;

	if (poll(&pfd, 1, ANSWER_MS) <= 0)
		return 0;
	got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	if (got <= 0)
		return 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		memcpy(passed, CMSG_DATA(c), n * sizeof(int));
		for (size_t i = 0; i < n; i++) {
			if (fds && i < MAX_FDS)
				fds[i] = passed[i];
			else
				close(passed[i]);
		}
	}
	return (size_t)got;
}

/* Sends, sometimes with descriptors that nobody asked for. */
static bool tell(int fd, const void *buf, size_t size)
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

	if (n) {
		struct cmsghdr *c;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n);
	}
	sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
	if (null >= 0)
		close(null);
	return sent >= 0;
}

/* A proper greeting as an application's library. */
static bool greet(int fd, struct fx_hello_rep *rep, int *fds)
{
	struct fx_hello_req req = {.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_HELLO, .size = sizeof(req)},
				   .abi = FX_ABI_VERSION,
				   .role = FX_ROLE_HOST,
				   .version = FLEXINS_VERSION,
				   .program = "garbage"};
	char buf[FX_MSG_BYTES] = {0};

	if (send(fd, &req, sizeof(req), MSG_NOSIGNAL) < 0 || answer(fd, buf, sizeof(buf), fds) < sizeof(*rep))
		return false;
	memcpy(rep, buf, sizeof(*rep));
	return rep->head.err == 0;
}

/* One datagram of random length and content, with a head that is more or less right. */
static bool rubbish(int fd)
{
	uint32_t words[FX_MSG_BYTES / 4 + 16];
	size_t size = rnd() % 4 ? 16 + rnd() % 256 : rnd() % sizeof(words);
	struct fx_msg_head head = {.magic = FX_PROTO_MAGIC,
				   .op = (uint16_t)(rnd() % (FX_MSG_COUNT + 2)),
				   .seq = (uint16_t)rnd(),
				   .size = (uint32_t)size};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = odd();
	if (rnd() % 8 == 0)
		head.magic = odd();
	if (rnd() % 8 == 0)
		head.size = odd();
	if (rnd() % 16 == 0)
		head.op = (uint16_t)rnd();
	if (rnd() % 16)
		memcpy(words, &head, sizeof(head));
	return tell(fd, words, size);
}

static uint32_t request_size(uint16_t op)
{
	static const uint32_t size[FX_MSG_COUNT] = {
		[FX_MSG_HELLO] = sizeof(struct fx_hello_req),
		[FX_MSG_ALLOC_PD] = sizeof(struct fx_handle_req),
		[FX_MSG_DEALLOC_PD] = sizeof(struct fx_handle_req),
		[FX_MSG_REG_MR] = sizeof(struct fx_reg_mr_req),
		[FX_MSG_REG_MR_DONE] = sizeof(struct fx_reg_mr_done_req),
		[FX_MSG_DEREG_MR] = sizeof(struct fx_handle_req),
		[FX_MSG_CREATE_CQ] = sizeof(struct fx_create_cq_req),
		[FX_MSG_DESTROY_CQ] = sizeof(struct fx_handle_req),
		[FX_MSG_CREATE_QP] = sizeof(struct fx_create_qp_req),
		[FX_MSG_MODIFY_QP] = sizeof(struct fx_modify_qp_req),
		[FX_MSG_QUERY_QP] = sizeof(struct fx_qp_req),
		[FX_MSG_DESTROY_QP] = sizeof(struct fx_qp_req),
		[FX_MSG_QUERY_PORT] = sizeof(struct fx_handle_req),
		[FX_MSG_SHOW] = sizeof(struct fx_handle_req),
	};

	return op < FX_MSG_COUNT ? size[op] : 0;
}

/* Every request in its right size, with fields that are mostly edges. */
static bool lie(int fd)
{
	uint16_t op = (uint16_t)(1 + rnd() % (FX_MSG_COUNT - 1));
	uint32_t words[FX_MSG_BYTES / 4], size = request_size(op);
	struct fx_msg_head head = {.magic = FX_PROTO_MAGIC, .op = op, .seq = 7, .size = size};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = rnd() % 2 ? 0 : odd();
	memcpy(words, &head, sizeof(head));
	return tell(fd, words, size);
}

/* Fills the send pipe with rubbish whose phase says that it is valid, and wakes the worker. */
static void spoil_pipe(const struct fx_hello_rep *rep, char *arena, int kick)
{
	uint64_t slots = 1ull << (rep->pipe_shift & 31);
	char *ring = arena + rep->pipe_off + sizeof(struct fx_pipe_head);

	if (rep->pipe_off + sizeof(struct fx_pipe_head) + slots * FX_SLOT_SIZE > rep->arena_size)
		return;
	for (uint64_t i = 0; i < slots; i++) {
		uint32_t words[FX_SLOT_SIZE / 4];

		for (size_t w = 0; w < FX_SLOT_SIZE / 4; w++)
			words[w] = odd();
		words[0] = (rnd() % (FX_WR_OPS + 1)) | (rnd() & 15) << 8 | (rnd() % 11) << 16 |
			   (rnd() % 18) << 24;
		memcpy(ring + i * FX_SLOT_SIZE, words, FX_SLOT_SIZE - 1);
		__atomic_store_n(ring + i * FX_SLOT_SIZE + FX_SLOT_SIZE - 1, (char)(rnd() % 16 ? 1 : rnd()),
				 __ATOMIC_RELEASE);
	}
	for (int i = 0; i < 3; i++) {
		uint64_t one = 1;

		if (write(kick, &one, sizeof(one)) < 0)
			break;
		usleep(1000);
	}
}

static void hostile_host(const char *path)
{
	struct fx_hello_rep rep = {0};
	int fds[MAX_FDS], fd = dial(path), requests = (int)(rnd() % 40);
	char *arena = MAP_FAILED;
	char buf[FX_MSG_BYTES];

	memset(fds, -1, sizeof(fds));
	if (greet(fd, &rep, fds)) {
		arena = mmap(NULL, rep.arena_size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
		for (int i = 0; i < requests && lie(fd); i++)
			if (rnd() % 8)
				answer(fd, buf, sizeof(buf), NULL);
		if (arena != MAP_FAILED && rnd() % 2)
			spoil_pipe(&rep, arena, fds[2]);
		for (int i = 0; i < requests && (rnd() % 2 ? lie(fd) : rubbish(fd)); i++)
			if (rnd() % 8)
				answer(fd, buf, sizeof(buf), NULL);
	}
	if (arena != MAP_FAILED)
		munmap(arena, rep.arena_size);
	for (int i = 0; i < MAX_FDS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	close(fd);
}

static void hostile_stranger(const char *path)
{
	int fd = dial(path), n = (int)(rnd() % 6);
	char buf[FX_MSG_BYTES];

	for (int i = 0; i < n && rubbish(fd); i++)
		if (rnd() % 4 == 0)
			answer(fd, buf, sizeof(buf), NULL);
	close(fd);
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[2]) : 200;
	struct fx_hello_rep rep;
	int fds[MAX_FDS], fd;

	if (argc < 2) {
		fprintf(stderr, "garbage SOCKET [ROUNDS [SEED]]\n");
		return 2;
	}
	state = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	for (int i = 0; i < rounds; i++) {
		if (rnd() % 2)
			hostile_host(argv[1]);
		else
			hostile_stranger(argv[1]);
	}
	memset(fds, -1, sizeof(fds));
	fd = dial(argv[1]);
	for (int i = 0; i < 20; i++) { /* the core may still be clearing up after the others */
		if (greet(fd, &rep, fds))
			return 0;
		close(fd);
		usleep(100000);
		fd = dial(argv[1]);
	}
	printf("after %d rounds the core greets nobody any more\n", rounds);
	return 1;
}
