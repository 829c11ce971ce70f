/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What rows do all the time: post, wait for a completion or an event, look at data.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "conformance.h"

/* ---- time ---- */

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void sleep_ms(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

/* ---- work requests ---- */

bool is_write(int op)
{
	return op == IBV_WR_RDMA_WRITE || op == IBV_WR_RDMA_WRITE_WITH_IMM;
}

bool takes_receive(int op)
{
	return op == IBV_WR_SEND || op == IBV_WR_SEND_WITH_IMM || op == IBV_WR_RDMA_WRITE_WITH_IMM;
}

struct work work(const struct rig *r, int op, uint64_t wr_id, size_t from, size_t to, size_t len)
{
	struct work w = {
		.wr = {.wr_id = wr_id, .opcode = op, .send_flags = IBV_SEND_SIGNALED, .num_sge = 1},
		.sge = {{.addr = (uintptr_t)r->a.buf + from, .length = (uint32_t)len, .lkey = r->a.mr->lkey}},
	};

	if (is_write(op) || op == IBV_WR_RDMA_READ) {
		w.wr.wr.rdma.remote_addr = (uintptr_t)r->b.buf + to;
		w.wr.wr.rdma.rkey = r->b.mr->rkey;
	}
	return w;
}

struct work atomic_work(const struct rig *r, int op, uint64_t wr_id, size_t from, size_t to,
			uint64_t compare_add, uint64_t swap)
{
	struct work w = work(r, op, wr_id, from, to, 8);

	w.wr.wr.atomic.remote_addr = (uintptr_t)r->b.buf + to;
	w.wr.wr.atomic.rkey = r->b.mr->rkey;
	w.wr.wr.atomic.compare_add = compare_add;
	w.wr.wr.atomic.swap = swap;
	return w;
}

int try_post(struct ibv_qp *qp, struct work *w)
{
	struct ibv_send_wr *bad = NULL;
	int err;

	w->wr.sg_list = w->sge;
	err = ibv_post_send(qp, &w->wr, &bad);
	NEED(err ? bad == &w->wr : !bad);
	return err;
}

void post(struct ibv_qp *qp, struct work *w)
{
	NEED_EQ(try_post(qp, w), 0);
}

void post_many(const struct rig *r, int op, uint64_t first, unsigned n, size_t len, unsigned flags)
{
	for (unsigned i = 0; i < n; i++) {
		struct work w = work(r, op, first + i, 0, 0, len);

		w.wr.send_flags = flags;
		post(r->a.qp, &w);
	}
}

int try_recv(struct ibv_qp *qp, uint64_t wr_id, struct ibv_sge *sge, int nsge)
{
	struct ibv_recv_wr wr = {.wr_id = wr_id, .sg_list = sge, .num_sge = nsge}, *bad = NULL;
	int err = ibv_post_recv(qp, &wr, &bad);

	NEED(err ? bad == &wr : !bad);
	return err;
}

void post_recv(const struct end *e, uint64_t wr_id, size_t at, size_t len)
{
	struct ibv_sge sge = {.addr = (uintptr_t)e->buf + at, .length = (uint32_t)len, .lkey = e->mr->lkey};

	NEED_EQ(try_recv(e->qp, wr_id, &sge, 1), 0);
}

/* ---- completions ---- */

struct ibv_wc completion(struct ibv_cq *cq)
{
	uint64_t end = now_ms() + PATIENCE_MS;
	struct ibv_wc wc;
	int n;

	do {
		memset(&wc, 0xff, sizeof(wc));
		n = ibv_poll_cq(cq, 1, &wc);
	} while (n == 0 && now_ms() < end);
	NEED_EQ(n, 1);
	return wc;
}

struct ibv_wc need_wc(struct ibv_cq *cq, uint64_t wr_id, enum ibv_wc_status status)
{
	struct ibv_wc wc = completion(cq);

	if (wc.status != status)
		row_failed(__FILE__, __LINE__, "the completion of request %llu says %s where %s belongs",
			   (unsigned long long)wc.wr_id, ibv_wc_status_str(wc.status),
			   ibv_wc_status_str(status));
	NEED_EQ(wc.wr_id, wr_id);
	return wc;
}

void need_quiet(struct ibv_cq *cq)
{
	uint64_t end = now_ms() + QUIET_MS;
	struct ibv_wc wc;

	while (now_ms() < end) {
		if (ibv_poll_cq(cq, 1, &wc))
			row_failed(__FILE__, __LINE__, "a completion where none belongs: request %llu, %s",
				   (unsigned long long)wc.wr_id, ibv_wc_status_str(wc.status));
		sleep_ms(1);
	}
}

/* ---- events ---- */

bool readable(int fd, unsigned ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	/* the end of a device may hang up */
	return poll(&p, 1, (int)ms) == 1 && (p.revents & (POLLIN | POLLHUP));
}

void nonblocking(int fd)
{
	NEED_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

struct ibv_async_event async_event(struct ibv_context *ctx)
{
	struct ibv_async_event e;

	NEED(readable(ctx->async_fd, PATIENCE_MS));
	NEED_EQ(ibv_get_async_event(ctx, &e), 0);
	ibv_ack_async_event(&e);
	return e;
}

void need_no_event(struct ibv_context *ctx)
{
	struct ibv_async_event e;

	if (!readable(ctx->async_fd, QUIET_MS))
		return;
	NEED_EQ(ibv_get_async_event(ctx, &e), 0);
	row_failed(__FILE__, __LINE__, "an event where none belongs: %s", ibv_event_type_str(e.event_type));
}

void need_cq_event(struct ibv_comp_channel *channel, struct ibv_cq *cq)
{
	struct ibv_cq *got = NULL;
	void *context;

	NEED(readable(channel->fd, PATIENCE_MS));
	NEED_EQ(ibv_get_cq_event(channel, &got, &context), 0);
	NEED(got == cq && context == cq->cq_context);
}

/* ---- data ---- */

static uint8_t pattern(size_t i, unsigned seed)
{
	/* no period that divides a packet or a page */
	return (uint8_t)((i * 2654435761u >> 16) + i / 251 + seed * 37u);
}

void fill(uint8_t *at, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		at[i] = pattern(i, seed);
}

bool filled(const uint8_t *at, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		if (at[i] != pattern(i, seed))
			return false;
	return true;
}

bool untouched(const uint8_t *at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (at[i] != UNTOUCHED)
			return false;
	return true;
}
