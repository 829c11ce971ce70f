/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A core for tests of the host library: a thread that answers the control protocol over a real socket, or as a core across
 * a bus over TCP (host_play_tcp.h), and does nothing else. The test itself is the worker: it reads the send pipe and pushes completions. What the thread
 * writes down about a request is the test's to read once the request was answered.
 */
#ifndef FX_TEST_HOST_PLAY_H
#define FX_TEST_HOST_PLAY_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/protocol.h"
#include "flexins/flexins.h"
#include "pipe/ring.h"

enum {
	CORE_ARENA = 1 << 20,
	CORE_HEAP = 1 << 16,
	CORE_PIPE = FX_LINE, /* offset of the send pipe */
	CORE_EVENTS = 1 << 15,
	CORE_PAGE = 3 << 14, /* of the host's arena, where that is the host's */
	CORE_EVENT_SHIFT = 4,
	CORE_CONNS = 4,
	CORE_OBJECTS = 8,
	CORE_GEN = 7, /* generation of every new QP */
};

/* How a core shakes hands. */
enum manners { CORE_POLITE, CORE_REFUSES, CORE_OTHER_ABI, CORE_OLD_PAGE, CORE_FEW_FDS, CORE_SHORT };

struct core {
	enum manners manners;
	uint32_t pipe_shift;
	char dir[64], path[100];
	bool remote;
	int listen, stop[2];
	_Atomic int conn[CORE_CONNS];
	pthread_t thread;
	int page_fd, arena_fd, kick[2], wake[2];
	struct fx_core_page *page;
	uint8_t *arena;
	struct fx_pipe_rx pipe;
	/* objects, by handle - 1 */
	uint32_t npd, nmr, nmw, ncq, nqp;
	struct fx_cq cq[CORE_OBJECTS];
	struct fx_rq rq[CORE_OBJECTS];
	struct fx_create_qp_req made[CORE_OBJECTS];
	struct fx_create_cq_req made_cq[CORE_OBJECTS];
	struct fx_pipe_rx more[CORE_OBJECTS]; /* pipes beside the first */
	uint32_t nmore;
	_Atomic bool no_more; /* it has none */
	struct fx_qp_attr attr[CORE_OBJECTS];
	uint32_t gen[CORE_OBJECTS];
	struct fx_modify_qp_req modified; /* the last one */
	struct fx_reg_mr_req registered;  /* the last one */
	struct fx_reg_mr_req pool;	  /* the last sparse region */
	uint32_t pool_mr;
	bool pool_slow;
	/* what is slow of every other region */
	uint32_t nslow;
	struct fx_slow_run slow[FX_SLOW_RUNS];
	unsigned seen[FX_MSG_COUNT];
	_Atomic int fail; /* errno for the next MODIFY_QP */
	/* of a core across a bus */
	uint8_t token[FX_TOKEN_LEN];
	uint16_t port;
	uint64_t arena_size;
	int lingers; /* hundredths of a second, with a host's arena, after that has hung up */
	_Atomic bool let_go;
	uint32_t nchannel;
	_Atomic int last_conn; /* that asked for something */
	_Atomic int rude;      /* enum rudeness, to a request of that kind: */
	_Atomic uint16_t rude_at;
	unsigned seed;
	void (*bend)(struct fx_hello_rep *rep);
};

union core_msg {
	struct fx_msg_head head;
	struct fx_msg_why why;
	struct fx_auth_req authenticate;
	struct fx_auth_rep auth;
	struct fx_hello_req hello;
	struct fx_hello_rep welcome;
	struct fx_handle_req by_handle;
	struct fx_handle_rep handle;
	struct fx_reg_mr_req reg_mr;
	struct fx_reg_mr_rep reg;
	struct fx_reg_mr_done_req reg_done;
	struct fx_reg_mr_done_rep keys;
	struct fx_alloc_mw_req alloc_mw;
	struct fx_alloc_mw_rep mw;
	struct fx_create_cq_req create_cq;
	struct fx_create_pipe_req create_pipe;
	struct fx_create_qp_req create_qp;
	struct fx_create_qp_rep qp;
	struct fx_modify_qp_req modify;
	struct fx_modify_qp_rep modified;
	struct fx_qp_req by_qp;
	struct fx_query_qp_rep query;
	struct fx_query_port_rep port;
	char bytes[FX_MSG_BYTES];
};

static inline uint32_t core_qpn(uint32_t handle)
{
	return 0x1000 + handle * FX_MAX_WORKERS;
}

/* ---- answers ---- */

static inline void core_send(int conn, union core_msg *m, const struct fx_msg_head *req, size_t size,
			     const int *fds, unsigned nfds)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * FX_MSG_FDS)];
	} control = {.room = {0}};
	struct iovec iov = {.iov_base = m, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	m->head.magic = FX_PROTO_MAGIC;
	m->head.op = req->op;
	m->head.seq = req->seq;
	m->head.size = (uint32_t)size;
	if (nfds) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, sizeof(int) * nfds);
	}
	sendmsg(conn, &msg, MSG_NOSIGNAL);
}

static inline size_t core_refuse(union core_msg *m, int err, const char *why)
{
	m->head.err = err;
	snprintf(m->why.why, sizeof(m->why.why), "%s", why);
	return sizeof(m->why);
}

static inline size_t core_hello(const struct core *c, union core_msg *m)
{
	struct fx_hello_rep *r = &m->welcome;

	if (c->manners == CORE_REFUSES)
		return core_refuse(m, EPERM, "play: no more than 0 contexts for you");
	r->abi = FX_ABI_VERSION + (c->manners == CORE_OTHER_ABI || c->manners == CORE_SHORT);
	r->workers = 1;
	r->arena_size = CORE_ARENA;
	r->pipe_off = CORE_PIPE;
	r->pipe_shift = c->pipe_shift;
	r->event_shift = CORE_EVENT_SHIFT;
	r->event_off = CORE_EVENTS;
	r->heap_off = CORE_HEAP;
	r->ctx = 1;
	r->limits = (struct fx_device_limits){.guid = 1,
					      .max_mr_size = 1u << 30,
					      .max_qp = 8,
					      .max_qp_wr = 256,
					      .max_sge = FX_MAX_SGE,
					      .max_inline = FX_MAX_INLINE,
					      .max_cq = 8,
					      .max_cqe = 1024,
					      .max_mr = 8,
					      .max_mw = 8,
					      .max_pd = 8};
	snprintf(r->version, sizeof(r->version), "9.8.7-play");
	snprintf(r->core, sizeof(r->core), "play");
	return c->manners == CORE_SHORT ? offsetof(struct fx_hello_rep, workers) : sizeof(*r);
}

static inline size_t core_create_cq(struct core *c, const struct fx_create_cq_req *req, union core_msg *m)
{
	if (c->ncq == CORE_OBJECTS)
		return core_refuse(m, ENOMEM, "play: no more CQs");
	c->cq[c->ncq] = (struct fx_cq){.head = (struct fx_cq_head *)(c->arena + req->off),
				       .ring = (struct fx_cqe *)(c->arena + req->off + FX_LINE),
				       .shift = req->shift};
	c->made_cq[c->ncq] = *req;
	m->handle.handle = ++c->ncq;
	return sizeof(m->handle);
}

static inline size_t core_create_pipe(struct core *c, const struct fx_create_pipe_req *req, union core_msg *m)
{
	uint8_t *p = c->arena + req->off;

	if (c->no_more)
		return core_refuse(m, EOPNOTSUPP, "play: one pipe is enough");
	c->more[c->nmore] = (struct fx_pipe_rx){
		.head = (struct fx_pipe_head *)p, .slots = p + FX_LINE, .shift = req->shift};
	m->handle.handle = ++c->nmore;
	return sizeof(m->handle);
}

static inline size_t core_create_qp(struct core *c, const struct fx_create_qp_req *req, union core_msg *m)
{
	uint32_t i = c->nqp;

	if (i == CORE_OBJECTS)
		return core_refuse(m, ENOMEM, "play: no more QPs");
	c->nqp++;
	c->made[i] = *req;
	c->rq[i] = (struct fx_rq){.slots = c->arena + req->rq_off,
				  .shift = req->rq_shift,
				  .stride = fx_rq_stride(req->max_recv_sge)};
	c->gen[i] = CORE_GEN;
	m->qp = (struct fx_create_qp_rep){.qp = i + 1, .qpn = core_qpn(i + 1), .gen = CORE_GEN};
	return sizeof(m->qp);
}

static inline size_t core_modify(struct core *c, const struct fx_modify_qp_req *req, union core_msg *m)
{
	uint32_t i = req->qp - 1;
	int err = atomic_exchange(&c->fail, 0);

	c->modified = *req;
	if (err)
		return core_refuse(m, err, "play: this transition was to fail");
	if (req->mask & IBV_QP_STATE)
		c->attr[i].qp_state = req->attr.qp_state;
	if (req->mask & IBV_QP_STATE && req->attr.qp_state == IBV_QPS_RESET)
		c->gen[i]++;
	m->modified.gen = c->gen[i];
	m->modified.state = c->attr[i].qp_state;
	return sizeof(m->modified);
}

static inline size_t core_reg_mr(struct core *c, const struct fx_reg_mr_req *req, union core_msg *m)
{
	m->reg.mr = ++c->nmr;
	if (req->flags & FX_REG_SPARSE) {
		c->pool = *req;
		c->pool_mr = m->reg.mr;
	}
	return sizeof(m->reg);
}

static inline size_t core_reg_done(const struct core *c, const struct fx_reg_mr_done_req *req,
				   union core_msg *m)
{
	m->keys.mr = req->mr;
	m->keys.lkey = 0x100 + req->mr;
	m->keys.rkey = 0x200 + req->mr;
	if (req->mr != c->pool_mr || c->pool_slow) {
		m->keys.nslow = c->nslow;
		memcpy(m->keys.slow, c->slow, sizeof(c->slow));
	}
	return sizeof(m->keys);
}

/* -> the reply's size */
static inline size_t core_answer(struct core *c, const union core_msg *req, union core_msg *m)
{
	switch (req->head.op) {
	case FX_MSG_HELLO:
		return core_hello(c, m);
	case FX_MSG_ALLOC_PD:
		m->handle.handle = ++c->npd;
		return sizeof(m->handle);
	case FX_MSG_REG_MR:
		c->registered = req->reg_mr;
		return core_reg_mr(c, &req->reg_mr, m);
	case FX_MSG_REG_MR_DONE:
		return core_reg_done(c, &req->reg_done, m);
	case FX_MSG_ALLOC_MW:
		m->mw.mw = ++c->nmw;
		m->mw.rkey = 0x300 * c->nmw;
		return sizeof(m->mw);
	case FX_MSG_CREATE_PIPE:
		return core_create_pipe(c, &req->create_pipe, m);
	case FX_MSG_CREATE_CQ:
		return core_create_cq(c, &req->create_cq, m);
	case FX_MSG_CREATE_QP:
		return core_create_qp(c, &req->create_qp, m);
	case FX_MSG_MODIFY_QP:
		return core_modify(c, &req->modify, m);
	case FX_MSG_QUERY_QP:
		m->query.gen = c->gen[req->by_qp.qp - 1];
		m->query.attr = c->attr[req->by_qp.qp - 1];
		return sizeof(m->query);
	case FX_MSG_QUERY_PORT:
		m->port.state = IBV_PORT_ACTIVE;
		m->port.loopback = 1;
		return sizeof(m->port);
	case FX_MSG_CREATE_CHANNEL:
		if (!c->remote)
			return core_refuse(m, EPROTO, "play: no channels here");
		m->handle.handle = ++c->nchannel;
		return sizeof(m->handle);
	case FX_MSG_DESTROY_CHANNEL:
	case FX_MSG_DESTROY_PIPE:
	case FX_MSG_DEALLOC_PD:
	case FX_MSG_DEREG_MR:
	case FX_MSG_DEALLOC_MW:
	case FX_MSG_DESTROY_CQ:
	case FX_MSG_DESTROY_QP:
		return sizeof(m->head);
	default:
		return core_refuse(m, EPROTO, "play: what is this?");
	}
}

#include "host_play_tcp.h"

/* One request; false: the host hung up. */
static inline bool core_serve(struct core *c, int conn)
{
	union core_msg req = {.bytes = {0}}, rep = {.bytes = {0}};
	int fds[4] = {c->page_fd, c->arena_fd, c->kick[1], c->wake[0]};
	bool hello;
	size_t size;

	if (c->remote)
		return core_serve_tcp(c, conn);
	if (recv(conn, &req, sizeof(req), 0) < (ssize_t)sizeof(req.head))
		return false;
	if (req.head.op < FX_MSG_COUNT)
		c->seen[req.head.op]++;
	size = core_answer(c, &req, &rep);
	hello = req.head.op == FX_MSG_HELLO && !rep.head.err && c->manners != CORE_SHORT;
	core_send(conn, &rep, &req.head, size, fds, !hello ? 0 : c->manners == CORE_FEW_FDS ? 2 : 4);
	return true;
}

static inline void core_accept(struct core *c)
{
	int fd = accept4(c->listen, NULL, NULL, SOCK_CLOEXEC);

	for (unsigned i = 0; i < CORE_CONNS && fd >= 0; i++)
		if (c->conn[i] < 0) {
			c->conn[i] = fd;
			return;
		}
	if (fd >= 0)
		close(fd);
}

/* Its DMA has not ended when the host hangs up. */
static inline void core_let_go(struct core *c)
{
	for (int i = 0; i < c->lingers; i++, usleep(10000))
		c->arena[c->arena_size - 1]++;
	c->let_go = true;
}

static inline void *core_run(void *arg)
{
	struct core *c = arg;

	for (;;) {
		struct pollfd p[2 + CORE_CONNS] = {{.fd = c->stop[0], .events = POLLIN},
						   {.fd = c->listen, .events = POLLIN}};

		for (unsigned i = 0; i < CORE_CONNS; i++)
			p[2 + i] = (struct pollfd){.fd = c->conn[i], .events = POLLIN};
		if (poll(p, 2 + CORE_CONNS, -1) < 0)
			continue;
		if (p[0].revents)
			return NULL;
		for (unsigned i = 0; i < CORE_CONNS; i++)
			if (p[2 + i].revents && !core_serve(c, p[2 + i].fd)) {
				c->conn[i] = -1;
				core_let_go(c);
				close(p[2 + i].fd);
			}
		if (p[1].revents)
			core_accept(c);
	}
}

/* ---- start and end ---- */

static inline void *core_memory(const char *name, size_t size, int *fd)
{
	void *p;

	*fd = memfd_create(name, MFD_CLOEXEC);
	assert_true(*fd >= 0);
	assert_int_equal(ftruncate(*fd, (off_t)size), 0);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static inline void core_listen(struct core *c)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	snprintf(c->path, sizeof(c->path), "%s/play.sock", c->dir);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", c->path);
	c->listen = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(c->listen, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(c->listen, CORE_CONNS), 0);
}

/* All that a core on this machine shares. */
static inline void core_share(struct core *c)
{
	c->page = core_memory("page", sizeof(*c->page), &c->page_fd);
	c->arena = core_memory("arena", CORE_ARENA, &c->arena_fd);
	c->page->magic = FX_CORE_MAGIC;
	c->page->abi = FX_ABI_VERSION + (c->manners == CORE_OLD_PAGE);
	c->page->alive = 1;
	c->pipe = (struct fx_pipe_rx){.head = (struct fx_pipe_head *)(c->arena + CORE_PIPE),
				      .slots = c->arena + CORE_PIPE + FX_LINE,
				      .shift = c->pipe_shift};
}

static bool core_remote; /* of the cores that are started: are they across a bus? */

/* A core whose pipe has 1 << pipe_shift slots. */
static inline struct core *core_start(uint32_t pipe_shift, enum manners manners)
{
	struct core *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	c->manners = manners;
	c->pipe_shift = pipe_shift;
	c->remote = core_remote;
	c->arena_size = CORE_ARENA;
	c->page_fd = c->arena_fd = -1;
	if (!c->remote)
		core_share(c);
	for (unsigned i = 0; i < CORE_CONNS; i++)
		c->conn[i] = -1;
	assert_int_equal(pipe2(c->kick, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(pipe2(c->wake, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(pipe2(c->stop, O_CLOEXEC), 0);
	snprintf(c->dir, sizeof(c->dir), "/tmp/fxhostXXXXXX");
	assert_non_null(mkdtemp(c->dir));
	if (c->remote)
		core_listen_tcp(c);
	else
		core_listen(c);
	setenv("FLEXINS_SOCKET", c->path, 1);
	assert_int_equal(pthread_create(&c->thread, NULL, core_run, c), 0);
	return c;
}

/* Hangs up on everybody, as a core that was killed. */
static inline void core_cut(struct core *c)
{
	for (unsigned i = 0; i < CORE_CONNS; i++)
		if (c->conn[i] >= 0)
			shutdown(c->conn[i], SHUT_RDWR);
}

static inline void core_end(struct core *c)
{
	const int fds[] = {c->listen,  c->page_fd, c->arena_fd, c->kick[0], c->kick[1],
			   c->wake[0], c->wake[1], c->stop[0],	c->stop[1]};

	assert_int_equal(write(c->stop[1], "", 1), 1);
	pthread_join(c->thread, NULL);
	for (unsigned i = 0; i < CORE_CONNS; i++)
		if (c->conn[i] >= 0)
			close(c->conn[i]);
	for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (!c->remote) {
		munmap(c->page, sizeof(*c->page));
		munmap(c->arena, CORE_ARENA);
	}
	unlink(c->path);
	rmdir(c->dir);
	free(c);
}

/* How many kicks came since last asked. */
static inline unsigned core_kicks(struct core *c)
{
	uint64_t one;
	unsigned n = 0;

	while (read(c->kick[0], &one, sizeof(one)) == sizeof(one))
		n++;
	return n;
}

#endif
