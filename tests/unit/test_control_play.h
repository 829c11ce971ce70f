/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A control room for tests: on a thread, with a worker that is only a mailbox answered by another thread. The
 * test is its client, over the real socket.
 */
#ifndef FX_TEST_CONTROL_PLAY_H
#define FX_TEST_CONTROL_PLAY_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include <cmocka.h>

#include "control/control.h"
#include "control/protocol.h"

enum { PLAY_WAIT_MS = 5000 };

struct play {
	struct fx_control *ctl;
	struct fx_port_info port;
	char dir[64], path[100], ticket[100];
	pthread_t control, worker;
	_Atomic bool stop, hold; /* hold: commands stay unanswered */
	/* what the worker saw */
	_Atomic unsigned seen[FX_CMD_OPS];
	_Atomic uint32_t last_pi;
	_Atomic bool last_in_turn, last_path;
	_Atomic int fail; /* errno for the next modify */
	/* What a test's own worker does: with a command before it is answered, and else (true: it was not idle). */
	void (*_Atomic command)(struct fx_cmd *cmd);
	bool (*_Atomic turn)(void);
};

static inline void play_pause(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
}

static inline void play_answer(struct play *p, struct fx_cmd *cmd)
{
	struct fx_cmd_modify *m = cmd->data;

	if (p->command)
		p->command(cmd);
	p->last_pi = cmd->pipe_pi;
	p->last_in_turn = cmd->in_turn;
	cmd->err = 0;
	switch (cmd->op) {
	case FX_CMD_QP_MODIFY:
		p->last_path = m->have_path;
		cmd->err = -atomic_exchange(&p->fail, 0);
		m->gen = fx_qp_gen(cmd->qp);
		break;
	case FX_CMD_QP_QUERY:
		fx_qp_query(cmd->qp, &m->attr);
		break;
	case FX_CMD_QP_DETACH:
		fx_qp_free(NULL, cmd->qp);
		break;
	case FX_CMD_SNAPSHOT:
		for (uint32_t i = 0; i < ((struct fx_cmd_snapshot *)cmd->data)->nqp; i++) {
			struct fx_cmd_snapshot *s = cmd->data;

			fx_qp_snapshot(s->qp[i], &s->info[i]);
		}
		break;
	default:
		break;
	}
	p->seen[cmd->op]++;
}

static inline void *play_worker(void *arg)
{
	struct play *p = arg;
	struct fx_mailbox *m = fx_control_mailbox(p->ctl, 0);

	while (!p->stop) {
		struct fx_cmd *cmd = p->hold ? NULL : fx_cmd_take(&m->todo), *next;

		if (!cmd && !(p->turn && p->turn()))
			play_pause();
		for (; cmd; cmd = next) {
			next = cmd->next;
			play_answer(p, cmd);
			fx_cmd_done(m, cmd);
		}
	}
	return NULL;
}

static inline void *play_control(void *arg)
{
	fx_control_run(((struct play *)arg)->ctl);
	return NULL;
}

static const struct fx_quota_cfg *play_quota; /* of the next one; NULL: nobody is limited */
static const struct fx_place_ops
	*play_place; /* NULL: shared; else with a door for hosts, whose ticket is play.tcp */

static inline int play_start(void **state)
{
	static const uint8_t gid[16] = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 7};
	struct play *p = calloc(1, sizeof(*p));
	struct fx_control_cfg cfg = {.name = "play",
				     .poll = "adaptive",
				     .dma = "cpu",
				     .workers = 1,
				     .port = &p->port,
				     .quota = play_quota,
				     .place = play_place};
	char why[512] = "";

	p->port = (struct fx_port_info){
		.name = "none", .driver = "none", .mtu = 4096, .max_segs = 9, .loopback = true, .up = true};
	memcpy(p->port.gid, gid, 16);
	snprintf(p->dir, sizeof(p->dir), "/tmp/fxplayXXXXXX");
	if (!mkdtemp(p->dir))
		return -1;
	snprintf(p->path, sizeof(p->path), "%s/play.sock", p->dir);
	p->ctl = fx_control_create(&cfg, why, sizeof(why));
	if (!p->ctl || fx_control_listen(p->ctl, p->path, 0600, why, sizeof(why)) < 0) {
		fprintf(stderr, "%s\n", why);
		return -1;
	}
	snprintf(p->ticket, sizeof(p->ticket), "%s/play.tcp", p->dir);
	if (play_place && fx_control_listen_tcp(p->ctl, NULL, p->ticket, 0600, why, sizeof(why)) < 0) {
		fprintf(stderr, "%s\n", why);
		return -1;
	}
	pthread_create(&p->worker, NULL, play_worker, p);
	pthread_create(&p->control, NULL, play_control, p);
	*state = p;
	return 0;
}

static inline int play_end(void **state)
{
	struct play *p = *state;
	struct fx_control_usage u;

	p->hold = false;
	fx_control_stop(p->ctl);
	pthread_join(p->control, NULL);
	fx_control_usage(p->ctl, &u);
	p->stop = true;
	pthread_join(p->worker, NULL);
	fx_control_destroy(p->ctl);
	if (access(p->path, F_OK) == 0 || access(p->ticket, F_OK) == 0 || u.strangers || u.contexts ||
	    u.clients || u.mrs || u.mws || u.ahs || u.srqs || u.xrcds || u.qps || u.cqs || u.channels ||
	    u.pds)
		return -1; /* something was left behind */
	rmdir(p->dir);
	free(p);
	return 0;
}

/* ---- a client ---- */

struct client {
	int fd;
	int fds[FX_MSG_FDS];
	unsigned nfds;
	struct fx_hello_rep hello;
	char why[FX_WHY_LEN + 1];
};

static inline int client_socket(const struct play *p)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct timeval tv = {.tv_sec = PLAY_WAIT_MS / 1000};

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", p->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

/* One datagram; its descriptors stay with the client. 0: the core hung up. */
static inline ssize_t client_recv(struct client *c, void *buf, size_t size)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * FX_MSG_FDS)];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	if (h) {
		unsigned got = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		assert_true(c->nfds + got <= FX_MSG_FDS);
		memcpy(c->fds + c->nfds, CMSG_DATA(h), got * sizeof(int));
		c->nfds += got;
	}
	return n < 0 && errno == ECONNRESET ? 0 : n;
}

/*
 * Sends a request and takes its reply: 0, or the errno that it carries, negative. -EPIPE: the core hung up.
 */
static inline int ask(struct client *c, void *req, size_t size, unsigned op, void *rep, size_t rep_size)
{
	union {
		struct fx_msg_why why;
		char bytes[FX_MSG_BYTES];
	} buf;
	struct fx_msg_head *head = req;
	ssize_t n;

	*head = (struct fx_msg_head){
		.magic = FX_PROTO_MAGIC, .op = (uint16_t)op, .seq = 77, .size = (uint32_t)size};
	if (send(c->fd, req, size, MSG_NOSIGNAL) < 0)
		return -errno;
	memset(&buf, 0, sizeof(buf));
	n = client_recv(c, &buf, sizeof(buf));
	if (n == 0)
		return -EPIPE;
	assert_true(n >= (ssize_t)sizeof(*head));
	assert_int_equal(buf.why.head.magic, FX_PROTO_MAGIC);
	assert_int_equal(buf.why.head.op, op);
	assert_int_equal(buf.why.head.seq, 77);
	assert_int_equal(buf.why.head.size, n);
	if (buf.why.head.err) {
		assert_true(buf.why.head.err > 0);
		assert_true(buf.why.why[0]); /* every refusal says why */
		memcpy(c->why, buf.why.why, FX_WHY_LEN);
		return -buf.why.head.err;
	}
	assert_true((size_t)n >= rep_size);
	if (rep)
		memcpy(rep, &buf, rep_size);
	return 0;
}
#define ASK(c, op, req, rep) ask(c, req, sizeof(*(req)), op, rep, sizeof(*(rep)))

static inline int hello(struct client *c, uint32_t role)
{
	struct fx_hello_req req = {.abi = FX_ABI_VERSION, .role = role, .version = "test", .program = "test"};

	return ASK(c, FX_MSG_HELLO, &req, &c->hello);
}

static inline struct client join(const struct play *p)
{
	struct client c = {.fd = client_socket(p)};

	assert_int_equal(hello(&c, FX_ROLE_HOST), 0);
	return c;
}

static inline void leave(struct client *c)
{
	close(c->fd);
	while (c->nfds)
		close(c->fds[--c->nfds]);
}

/* One of the requests that have a handle and answer with one. */
static inline int simple(struct client *c, unsigned op, uint32_t handle, uint32_t *out)
{
	struct fx_handle_req req = {.handle = handle};
	struct fx_handle_rep rep;
	int err = ASK(c, op, &req, &rep);

	if (out)
		*out = err ? 0 : rep.handle;
	return err;
}

static inline int make_cq(struct client *c, uint64_t off, uint32_t shift, uint32_t *cq)
{
	struct fx_create_cq_req req = {.off = off, .shift = shift};
	struct fx_handle_rep rep;
	int err = ASK(c, FX_MSG_CREATE_CQ, &req, &rep);

	*cq = err ? 0 : rep.handle;
	return err;
}

static inline struct fx_create_qp_req qp_request(const struct client *c, uint32_t pd, uint32_t cq)
{
	return (struct fx_create_qp_req){
		.pd = pd,
		.type = FX_QPT_RC,
		.send_cq = cq,
		.recv_cq = cq,
		.max_send_wr = 16,
		.max_recv_wr = 16,
		.max_send_sge = 1,
		.max_recv_sge = 1,
		.rq_shift = 4,
		.rq_off = c->hello.heap_off + 65536,
	};
}

/* Waits until the core is empty of everything but `clients` connections. */
static inline void await_empty(const struct play *p, uint32_t clients)
{
	struct fx_control_usage u = {0};

	for (int i = 0; i < PLAY_WAIT_MS; i++) {
		fx_control_usage(p->ctl, &u);
		if (u.clients == clients && !u.contexts && !u.pds && !u.channels && !u.cqs && !u.qps &&
		    !u.mrs && !u.mws && !u.ahs && !u.srqs && !u.xrcds)
			return;
		play_pause();
	}
	fail_msg("left behind: %u clients, %u contexts, %u PDs, %u CQs, %u QPs, %u MRs, %u windows",
		 u.clients, u.contexts, u.pds, u.cqs, u.qps, u.mrs, u.mws);
}

#endif
