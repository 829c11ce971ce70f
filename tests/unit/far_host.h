/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A host that shares no memory with its core, by the protocol alone: connection and token, rings in memory of its own,
 * wakes and kicks as messages. It uses nothing of libflexins.
 *
 * Room: tests. May use: the control protocol, pipe. Whoever includes it defines FAR_NEED(ok).
 */
#ifndef FX_TEST_FAR_HOST_H
#define FX_TEST_FAR_HOST_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "control/protocol.h"
#include "pipe/ring.h"

enum { FAR_WAIT_S = 5, FAR_CQ_SHIFT = 4, FAR_RQ_SHIFT = 4, FAR_CHANNELS = 8 };

struct far_host {
	char address[32];
	unsigned port;
	uint8_t token[FX_TOKEN_LEN];
	int fd;
	char why[FX_WHY_LEN + 1];
	uint8_t *arena;
	uint64_t arena_size, heap; /* the next free byte of it */
	struct fx_hello_rep hello;
	struct fx_core_page *page;
	struct fx_pipe_tx pipe;
	struct fx_event_rx events;
	unsigned wakes[FAR_CHANNELS]; /* bytes of each channel, by the order in which they were first told */
	uint32_t channel[FAR_CHANNELS];
	unsigned kicks;
};

static inline void far_nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

/* ---- connecting ---- */

static inline void far_ticket(struct far_host *h, const char *path)
{
	char hex[2 * FX_TOKEN_LEN + 1];
	FILE *f = fopen(path, "re");

	FAR_NEED(f && fscanf(f, "%31s %u %64s", h->address, &h->port, hex) == 3);
	fclose(f);
	for (int i = 0; i < FX_TOKEN_LEN; i++)
		FAR_NEED(sscanf(hex + 2 * i, "%2hhx", &h->token[i]) == 1);
}

static inline void far_connect(struct far_host *h)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)h->port)};
	struct timeval tv = {.tv_sec = FAR_WAIT_S};

	inet_pton(AF_INET, h->address, &sin.sin_addr);
	h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FAR_NEED(h->fd >= 0 && connect(h->fd, (struct sockaddr *)&sin, sizeof(sin)) == 0);
	setsockopt(h->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
}

/* ---- messages ---- */

static inline void far_woken(struct far_host *h, const struct fx_wake_msg *w)
{
	int i = 0;

	while (i < FAR_CHANNELS && h->wakes[i] && h->channel[i] != w->handle)
		i++;
	FAR_NEED(i < FAR_CHANNELS && w->count > 0);
	h->channel[i] = w->handle;
	h->wakes[i] += w->count;
}

/* The next message that is no wake, into buf[FX_MSG_BYTES]: its size; 0: the core hung up. */
static inline ssize_t far_recv(struct far_host *h, void *buf)
{
	struct fx_msg_head *head = buf;

	for (;;) {
		ssize_t n = recv(h->fd, head, sizeof(*head), MSG_WAITALL);

		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return 0;
		FAR_NEED(n == sizeof(*head) && head->magic == FX_PROTO_MAGIC && head->size >= sizeof(*head) &&
			 head->size <= FX_MSG_BYTES);
		n = (ssize_t)(head->size - sizeof(*head));
		FAR_NEED(recv(h->fd, head + 1, (size_t)n, MSG_WAITALL) == n);
		if (head->op != FX_MSG_WAKE)
			return head->size;
		far_woken(h, buf);
	}
}

/* Takes the wakes that have come. */
static inline unsigned far_listen(struct far_host *h, uint32_t handle)
{
	struct fx_wake_msg w;

	while (recv(h->fd, &w, sizeof(w), MSG_DONTWAIT | MSG_PEEK) == sizeof(w)) {
		FAR_NEED(w.head.op == FX_MSG_WAKE && recv(h->fd, &w, sizeof(w), MSG_WAITALL) == sizeof(w));
		far_woken(h, &w);
	}
	for (int i = 0; i < FAR_CHANNELS; i++)
		if (h->wakes[i] && h->channel[i] == handle)
			return h->wakes[i];
	return 0;
}

/* 0, or the errno of the refusal, negative; -EPIPE: the core hung up. */
static inline int far_ask(struct far_host *h, void *req, size_t size, unsigned op, void *rep, size_t rep_size)
{
	union {
		struct fx_msg_why why;
		char bytes[FX_MSG_BYTES];
	} buf = {0};

	*(struct fx_msg_head *)req = (struct fx_msg_head){
		.magic = FX_PROTO_MAGIC, .op = (uint16_t)op, .seq = 5, .size = (uint32_t)size};
	if (send(h->fd, req, size, MSG_NOSIGNAL) != (ssize_t)size || !far_recv(h, &buf))
		return -EPIPE;
	FAR_NEED(buf.why.head.op == op && buf.why.head.seq == 5);
	if (buf.why.head.err) {
		memcpy(h->why, buf.why.why, FX_WHY_LEN);
		FAR_NEED(h->why[0]); /* every refusal says why */
		return -buf.why.head.err;
	}
	FAR_NEED(buf.why.head.size == rep_size);
	if (rep)
		memcpy(rep, &buf, rep_size);
	return 0;
}
#define FAR_ASK(h, op, req, rep) far_ask(h, req, sizeof(*(req)), op, rep, sizeof(*(rep)))

static inline int far_simple(struct far_host *h, unsigned op, uint32_t handle, uint32_t *out)
{
	struct fx_handle_req req = {.handle = handle};
	struct fx_handle_rep rep = {0};
	int err = FAR_ASK(h, op, &req, &rep);

	if (out)
		*out = rep.handle;
	return err;
}

static inline int far_auth(struct far_host *h, pid_t pid)
{
	struct fx_auth_req req = {.pid = (uint32_t)pid};
	struct fx_auth_rep rep = {0};
	int err;

	memcpy(req.token, h->token, sizeof(req.token));
	err = FAR_ASK(h, FX_MSG_AUTH, &req, &rep);
	if (!err)
		h->arena_size = rep.arena_size;
	return err;
}

static inline int far_hello(struct far_host *h, uint64_t arena)
{
	struct fx_hello_req req = {.abi = FX_ABI_VERSION,
				   .role = FX_ROLE_HOST,
				   .version = "test",
				   .program = "far",
				   .arena = arena};

	return FAR_ASK(h, FX_MSG_HELLO, &req, &h->hello);
}

/* All of it, up to rings that can be used. */
static inline void far_open(struct far_host *h, const char *ticket)
{
	*h = (struct far_host){0};
	far_ticket(h, ticket);
	far_connect(h);
	FAR_NEED(far_auth(h, getpid()) == 0);
	h->arena = mmap(NULL, h->arena_size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	FAR_NEED(h->arena != MAP_FAILED);
	FAR_NEED(far_hello(h, (uintptr_t)h->arena) == 0);
	FAR_NEED(h->hello.remote == 1 && h->hello.page_off && h->hello.have_uffd == 0);
	h->page = (struct fx_core_page *)(h->arena + h->hello.page_off);
	h->pipe = (struct fx_pipe_tx){.head = (struct fx_pipe_head *)(h->arena + h->hello.pipe_off),
				      .slots = h->arena + h->hello.pipe_off + sizeof(struct fx_pipe_head),
				      .shift = h->hello.pipe_shift};
	h->events = (struct fx_event_rx){.head = (struct fx_event_head *)(h->arena + h->hello.event_off),
					 .ring = (struct fx_event *)(h->arena + h->hello.event_off + FX_LINE),
					 .shift = h->hello.event_shift};
	h->heap = h->hello.heap_off;
}

static inline void far_close(struct far_host *h)
{
	close(h->fd);
	if (h->arena)
		munmap(h->arena, h->arena_size);
}

/* ---- rings ---- */

static inline uint64_t far_alloc(struct far_host *h, uint64_t bytes)
{
	uint64_t at = h->heap;

	h->heap += (bytes + 4095) & ~UINT64_C(4095);
	return at;
}

/* Entries of a send pipe, all slots set but for their phases; kicks a worker that says it sleeps. */
static inline void far_post(struct far_host *h, const struct fx_sq_slot *e)
{
	struct fx_msg_head kick = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_KICK, .size = sizeof(kick)};

	for (time_t end = time(NULL) + FAR_WAIT_S; !fx_pipe_room(&h->pipe, e->nslots); far_nap())
		FAR_NEED(time(NULL) < end);
	for (int i = 0; i < e->nslots; i++)
		fx_pipe_put(&h->pipe, e + i);
	/* orders the slots' stores before the load of `sleeping`, as the core stores that before its last look */
	atomic_thread_fence(memory_order_seq_cst);
	if (!__atomic_load_n(&h->page->worker[0].sleeping, __ATOMIC_RELAXED))
		return;
	h->kicks++;
	FAR_NEED(send(h->fd, &kick, sizeof(kick), MSG_NOSIGNAL) == sizeof(kick));
}

struct far_cq {
	uint32_t handle, channel;
	struct fx_cq_rx rx;
};

static inline struct far_cq far_cq(struct far_host *h, uint32_t channel)
{
	struct fx_create_cq_req req = {.off = far_alloc(h, FX_LINE + (FX_CQE_SIZE << FAR_CQ_SHIFT)),
				       .shift = FAR_CQ_SHIFT,
				       .cookie = 0xc00c1e,
				       .channel = channel};
	struct fx_handle_rep rep;
	struct far_cq q = {.channel = channel,
			   .rx = {.head = (struct fx_cq_head *)(h->arena + req.off),
				  .ring = (struct fx_cqe *)(h->arena + req.off + FX_LINE),
				  .shift = FAR_CQ_SHIFT}};

	FAR_NEED(FAR_ASK(h, FX_MSG_CREATE_CQ, &req, &rep) == 0);
	q.handle = rep.handle;
	return q;
}

static inline struct fx_cqe far_completion(struct far_cq *q)
{
	struct fx_cqe c;

	for (time_t end = time(NULL) + FAR_WAIT_S; !fx_cq_take(&q->rx, &c); far_nap())
		FAR_NEED(time(NULL) < end);
	fx_cq_publish_ci(&q->rx);
	return c;
}

/* Arms for the n-th event of the CQ, from 1. */
static inline void far_arm(struct far_host *h, struct far_cq *q, uint32_t n)
{
	struct fx_sq_slot e[1] = {{.opcode = FX_WR_ARM}};
	struct fx_arm_slot arm = {.opcode = FX_WR_ARM,
				  .nslots = 1,
				  .cq = q->handle,
				  .arm = n << 2 | FX_ARM_ANY,
				  .ci = q->rx.ci};

	memcpy(e, &arm, sizeof(arm));
	far_post(h, e);
}

struct far_qp {
	struct fx_create_qp_rep info;
	struct fx_rq rq;
	uint32_t index;
};

static inline struct far_qp far_qp(struct far_host *h, uint32_t pd, const struct far_cq *cq)
{
	struct fx_create_qp_req req = {.pd = pd,
				       .type = FX_QPT_RC,
				       .send_cq = cq->handle,
				       .recv_cq = cq->handle,
				       .max_send_wr = 8,
				       .max_recv_wr = 8,
				       .max_send_sge = 1,
				       .max_recv_sge = 1,
				       .max_inline = 64,
				       .rq_shift = FAR_RQ_SHIFT,
				       .rq_off = far_alloc(h, FX_SLOT_SIZE << FAR_RQ_SHIFT)};
	struct far_qp q = {.rq = {.slots = h->arena + req.rq_off, .shift = FAR_RQ_SHIFT, .stride = 1}};

	FAR_NEED(FAR_ASK(h, FX_MSG_CREATE_QP, &req, &q.info) == 0);
	return q;
}

static inline struct fx_reg_mr_done_rep far_mr(struct far_host *h, uint32_t pd, void *addr, uint64_t length)
{
	struct fx_reg_mr_req req = {
		.pd = pd, .access = 7, .addr = (uintptr_t)addr, .length = length, .iova = (uintptr_t)addr};
	struct fx_reg_mr_rep rep;
	struct fx_reg_mr_done_req done;
	struct fx_reg_mr_done_rep mr;

	FAR_NEED(FAR_ASK(h, FX_MSG_REG_MR, &req, &rep) == 0);
	for (uint32_t i = 0; i < rep.nseg; i++)
		FAR_NEED(rep.seg[i].kind == FX_SEG_SLOW); /* nothing of it can be shared */
	done = (struct fx_reg_mr_done_req){.mr = rep.mr, .nseg = rep.nseg};
	FAR_NEED(FAR_ASK(h, FX_MSG_REG_MR_DONE, &done, &mr) == 0);
	return mr;
}

#endif
