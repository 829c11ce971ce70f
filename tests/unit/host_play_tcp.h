/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * host_play.h's core across a bus: a ticket, TCP, the rings in the host's memory (which is this process's too, so DMA is
 * a store), KICK and WAKE messages. It can be rude, once.
 */
#ifndef FX_TEST_HOST_PLAY_TCP_H
#define FX_TEST_HOST_PLAY_TCP_H

/* What comes instead of a reply. */
enum rudeness {
	RUDE_NOT,
	RUDE_MAGIC,
	RUDE_TINY, /* smaller than a head */
	RUDE_HUGE, /* larger than any message */
	RUDE_CUT,  /* half of it, and then nobody */
	RUDE_GONE,
	RUDE_TWICE,
	RUDE_OTHER_SEQ, /* an answer to something else before the right one */
	RUDE_SHORT,	/* a head alone */
	RUDE_WAKE,	/* a wake of the wrong size before it */
	RUDE_NOISE,
	RUDE_LATE,
	RUDE_KINDS
};

enum { RUDE_LATE_MS = 500 };

static inline bool core_read(int conn, void *buf, size_t n)
{
	return !n || recv(conn, buf, n, MSG_WAITALL) == (ssize_t)n; /* even for nothing recv() would wait */
}

static inline bool core_write(int conn, const void *buf, size_t n)
{
	return send(conn, buf, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static inline bool core_noise(struct core *c, int conn)
{
	uint8_t bytes[3000];
	size_t n = 1 + (size_t)rand_r(&c->seed) % sizeof(bytes);

	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)(rand_r(&c->seed) >> 8);
	if (rand_r(&c->seed) % 2 && n >= sizeof(struct fx_msg_head))
		*(struct fx_msg_head *)(void *)bytes =
			(struct fx_msg_head){.magic = FX_PROTO_MAGIC,
					     .op = (uint16_t)(rand_r(&c->seed) % FX_MSG_COUNT),
					     .size = (uint32_t)rand_r(&c->seed) % 2100};
	core_write(conn, bytes, n);
	return false;
}

/* The reply that has been made, or worse; false: that was the end of the connection. */
static inline bool core_reply(struct core *c, int conn, union core_msg *m)
{
	union core_msg other = *m;
	size_t size = m->head.size;

	switch (m->head.op == c->rude_at ? c->rude : RUDE_NOT) {
	case RUDE_MAGIC:
		m->head.magic ^= 1;
		break;
	case RUDE_TINY:
		m->head.size = sizeof(m->head) - 1;
		break;
	case RUDE_HUGE:
		m->head.size = FX_MSG_BYTES + 1;
		break;
	case RUDE_CUT:
		core_write(conn, m, size / 2);
		return false;
	case RUDE_GONE:
		return false;
	case RUDE_TWICE:
		core_write(conn, m, size);
		break;
	case RUDE_OTHER_SEQ:
		other.head.seq ^= 0x100;
		core_write(conn, &other, size);
		break;
	case RUDE_SHORT:
		m->head.size = size = sizeof(m->head);
		break;
	case RUDE_WAKE:
		other.head = (struct fx_msg_head){
			.magic = FX_PROTO_MAGIC, .op = FX_MSG_WAKE, .size = sizeof(struct fx_wake_msg) + 8};
		core_write(conn, &other, other.head.size);
		break;
	case RUDE_NOISE:
		return core_noise(c, conn);
	case RUDE_LATE:
		usleep(RUDE_LATE_MS * 1000);
		break;
	default:
		break;
	}
	return core_write(conn, m, size);
}

/* The host's memory, as it says where it is. */
static inline void core_take_arena(struct core *c, const struct fx_hello_req *req)
{
	c->arena = (uint8_t *)(uintptr_t)req->arena;
	c->page = (struct fx_core_page *)(c->arena + CORE_PAGE);
	c->pipe = (struct fx_pipe_rx){.head = (struct fx_pipe_head *)(c->arena + CORE_PIPE),
				      .slots = c->arena + CORE_PIPE + FX_LINE,
				      .shift = c->pipe_shift};
}

static inline size_t core_auth(const struct core *c, const struct fx_auth_req *req, union core_msg *m)
{
	if (memcmp(req->token, c->token, sizeof(c->token)) != 0 || req->pid != (uint32_t)getpid())
		return core_refuse(m, EACCES, "play: that token is not mine");
	m->auth.arena_size = c->arena_size;
	return sizeof(m->auth);
}

/* One request; false: the host hung up. */
static inline bool core_serve_tcp(struct core *c, int conn)
{
	union core_msg req = {.bytes = {0}}, rep = {.bytes = {0}};
	uint64_t one = 1;
	size_t size;

	if (!core_read(conn, &req, sizeof(req.head)) || req.head.size < sizeof(req.head) ||
	    req.head.size > sizeof(req) ||
	    !core_read(conn, req.bytes + sizeof(req.head), req.head.size - sizeof(req.head)))
		return false;
	c->seen[req.head.op % FX_MSG_COUNT]++;
	if (req.head.op == FX_MSG_KICK)
		return write(c->kick[1], &one, sizeof(one)) == sizeof(one);
	c->last_conn = conn;
	if (req.head.op == FX_MSG_HELLO)
		core_take_arena(c, &req.hello);
	size = req.head.op == FX_MSG_AUTH ? core_auth(c, &req.authenticate, &rep)
					  : core_answer(c, &req, &rep);
	if (req.head.op == FX_MSG_HELLO && !rep.head.err) {
		rep.welcome.page_off = CORE_PAGE;
		rep.welcome.shared_cpus = 1;
		rep.welcome.remote = 1;
		if (c->bend)
			c->bend(&rep.welcome);
	}
	rep.head = (struct fx_msg_head){.magic = FX_PROTO_MAGIC,
					.op = req.head.op,
					.seq = req.head.seq,
					.err = rep.head.err,
					.size = (uint32_t)size};
	return core_reply(c, conn, &rep);
}

/* Somebody waits on that channel, or with 0 for asynchronous events. */
static inline void core_wake(const struct core *c, uint32_t handle, uint32_t count)
{
	struct fx_wake_msg m = {.head = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_WAKE, .size = sizeof(m)},
				.handle = handle,
				.count = count};

	assert_true(core_write(c->last_conn, &m, sizeof(m)));
}

static inline void core_write_ticket(const struct core *c, const char *path, uint16_t port)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fprintf(f, "127.0.0.1 %u ", port);
	for (int i = 0; i < FX_TOKEN_LEN; i++)
		fprintf(f, "%02x", c->token[i]);
	fputc('\n', f);
	fclose(f);
}

static inline void core_listen_tcp(struct core *c)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);

	c->listen = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(c->listen, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(c->listen, CORE_CONNS), 0);
	assert_int_equal(getsockname(c->listen, (struct sockaddr *)&at, &len), 0);
	c->port = ntohs(at.sin_port);
	for (int i = 0; i < FX_TOKEN_LEN; i++)
		c->token[i] = (uint8_t)(i * 11 + 200);
	snprintf(c->path, sizeof(c->path), "%s/play.tcp", c->dir);
	core_write_ticket(c, c->path, c->port);
}

#endif
