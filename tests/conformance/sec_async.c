/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section async: asynchronous events and how they are taken. Which event belongs to which error is in section events.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <pthread.h>

#include "sections.h"

/* Makes an IBV_EVENT_SQ_DRAINED for the QP. */
static void drain(struct ibv_qp *qp)
{
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_SQD, .en_sqd_async_notify = 1};

	NEED_EQ(ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY), 0);
}

static void drained(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_async_event e;

	(void)row;
	drain(r->a.qp);
	e = async_event(r->ctx);
	NEED_EQ(e.event_type, IBV_EVENT_SQ_DRAINED);
	NEED(e.element.qp == r->a.qp);
	need_no_event(r->ctx);
}

static void not_asked(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	to_state(r->a.qp, IBV_QPS_SQD);
	need_no_event(r->ctx);
}

static void nothing_yet(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_async_event e;

	(void)row;
	nonblocking(r->ctx->async_fd);
	errno = 0;
	NEED_EQ(ibv_get_async_event(r->ctx, &e), -1);
	NEED_EQ(errno, EAGAIN);
	NEED(!readable(r->ctx->async_fd, 0));
}

static void own_modify_is_silent(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	to_state(r->a.qp, IBV_QPS_ERR);
	to_state(r->a.qp, IBV_QPS_RESET);
	need_no_event(r->ctx);
}

static void *acks_later(void *arg)
{
	sleep_ms(100);
	ibv_ack_async_event(arg);
	return NULL;
}

static void destroy_waits(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_async_event e;
	uint64_t start;
	pthread_t t;

	(void)row;
	drain(r->a.qp);
	NEED(readable(r->ctx->async_fd, PATIENCE_MS));
	NEED_EQ(ibv_get_async_event(r->ctx, &e), 0);
	start = now_ms();
	NEED_EQ(pthread_create(&t, NULL, acks_later, &e), 0);
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	NEED(now_ms() - start >= 90);
	pthread_join(t, NULL);
	r->a.qp = NULL;
}

static void untaken(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_async_event e;

	(void)row;
	drain(r->a.qp);
	NEED(readable(r->ctx->async_fd, PATIENCE_MS));
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0); /* takes its event along */
	r->a.qp = NULL;
	NEED(!readable(r->ctx->async_fd, QUIET_MS));
	drain(r->b.qp);
	e = async_event(r->ctx);
	NEED(e.event_type == IBV_EVENT_SQ_DRAINED && e.element.qp == r->b.qp);
}

static void order(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_async_event e;

	(void)row;
	drain(r->b.qp);
	NEED(readable(r->ctx->async_fd, PATIENCE_MS));
	drain(r->a.qp);
	e = async_event(r->ctx);
	NEED(e.element.qp == r->b.qp);
	e = async_event(r->ctx);
	NEED(e.element.qp == r->a.qp);
}

static void of_its_context(const struct row *row)
{
	struct rig *r = rig(), *other = rig();

	(void)row;
	drain(r->a.qp);
	NEED(async_event(r->ctx).element.qp == r->a.qp);
	need_no_event(other->ctx);
}

struct waiter {
	struct ibv_context *ctx;
	unsigned taken;
};

static void *takes(void *arg)
{
	struct waiter *w = arg;
	struct ibv_async_event e;

	while (!ibv_get_async_event(w->ctx, &e)) {
		NEED_EQ(e.event_type, IBV_EVENT_SQ_DRAINED);
		ibv_ack_async_event(&e);
		__atomic_fetch_add(&w->taken, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Two threads take events of one context: each event is one thread's. */
static void two_takers(const struct row *row)
{
	struct rig *r = rig();
	struct waiter w = {.ctx = r->ctx};
	uint64_t end = now_ms() + PATIENCE_MS;
	pthread_t t[2];

	(void)row;
	for (size_t i = 0; i < COUNT(t); i++)
		NEED_EQ(pthread_create(&t[i], NULL, takes, &w), 0);
	for (int i = 0; i < 100; i++) {
		drain(r->a.qp);
		while (__atomic_load_n(&w.taken, __ATOMIC_RELAXED) < (unsigned)i + 1 && now_ms() < end)
			sleep_ms(1);
		to_state(r->a.qp, IBV_QPS_RTS);
	}
	sleep_ms(QUIET_MS);
	NEED_EQ(w.taken, 100);
	for (size_t i = 0; i < COUNT(t); i++) {
		pthread_cancel(t[i]);
		pthread_join(t[i], NULL);
	}
}

static void names(const struct row *row)
{
	(void)row;
	NEED(ibv_event_type_str(IBV_EVENT_SQ_DRAINED)[0] && ibv_event_type_str(IBV_EVENT_DEVICE_FATAL)[0]);
	NEED(strcmp(ibv_event_type_str(IBV_EVENT_QP_FATAL), ibv_event_type_str(IBV_EVENT_CQ_ERR)) != 0);
	NEED(strstr(ibv_wc_status_str(IBV_WC_SUCCESS), "success"));
}

static const struct row rows[] = {
	{"IBV_EVENT_SQ_DRAINED", "11.6.3.1", drained},
	{"SQD without asking for the event", "10.3.1.5", not_asked},
	{"nothing to take, non-blocking", "ibv_get_async_event(3)", nothing_yet},
	{"the program's own changes are silent", "11.6.3", own_modify_is_silent},
	{"destroying waits for the acknowledgement", "ibv_get_async_event(3)", destroy_waits},
	{"destroying takes events back", "ibv_destroy_qp(3)", untaken},
	{"order", "ibv_get_async_event(3)", order},
	{"each context has its own", "ibv_get_async_event(3)", of_its_context},
	{"two threads take them", "ibv_get_async_event(3)", two_takers},
	{"names", "ibv_event_type_str(3)", names},
};

const struct section section_async = {"async", "asynchronous events", rows, COUNT(rows)};
