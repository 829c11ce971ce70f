/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event ring and asynchronous events. The core writes event records into the context's one ring and then a byte a
 * record into a pipe: a channel's, or for asynchronous events the context's, whose read end is async_fd (guarantee S2).
 * Whoever has read a byte takes the records from the ring to where they belong, its own among them. When the core is
 * gone the pipes hang up, which becomes IBV_EVENT_DEVICE_FATAL once.
 *
 * An object that goes away takes its records with it, and their bytes: or descriptors would poll readable with nothing
 * behind them. A byte may be in the hands of a thread that has read it and waits for the lock; so bytes are owed until no
 * such thread is left, and one that finds no record for its byte has paid.
 *
 * Room: host. May use: context.c, channel.c.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/host.h"

enum { BYTE_MS = 100 }; /* how long a core may take from a record to its byte: it does nothing in between */

/* ---- the bytes ---- */

/*
 * Takes the bytes that are owed. One that is not there yet is waited for: its record was taken in the moment before the
 * core wrote it, and it would be left to wake somebody for nothing. Holds ctx->lock, where cancellation would leave it
 * locked.
 */
static void settle(struct fx_wake *wake)
{
	struct pollfd p = {.fd = wake->fd, .events = POLLIN};
	int state;
	char byte;

	if (!wake->owed || wake->readers)
		return;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	/* nobody else reads, so what poll() has seen is there */
	while (wake->owed && poll(&p, 1, BYTE_MS) > 0 && (p.revents & POLLIN) &&
	       read(wake->fd, &byte, 1) == 1)
		wake->owed--;
	pthread_setcancelstate(state, NULL);
}

struct reader {
	struct fx_context *ctx;
	struct fx_wake *wake;
};

static void cancelled(void *arg)
{
	struct reader *r = arg;

	pthread_mutex_lock(&r->ctx->lock);
	r->wake->readers--;
	settle(r->wake);
	pthread_mutex_unlock(&r->ctx->lock);
}

int fx_wake_read(struct fx_context *ctx, struct fx_wake *wake)
{
	struct reader r = {.ctx = ctx, .wake = wake};
	ssize_t n;
	char byte;
	int err;

	pthread_mutex_lock(&ctx->lock);
	wake->readers++;
	pthread_mutex_unlock(&ctx->lock);
	pthread_cleanup_push(cancelled, &r);
	n = read(wake->fd, &byte, 1);
	err = errno;
	pthread_cleanup_pop(0);
	pthread_mutex_lock(&ctx->lock);
	if (n >= 0)
		return (int)n;
	wake->readers--;
	settle(wake);
	pthread_mutex_unlock(&ctx->lock);
	errno = err;
	return -1;
}

void fx_wake_done(struct fx_context *ctx, struct fx_wake *wake, bool record)
{
	wake->readers--;
	if (!record && wake->owed)
		wake->owed--;
	settle(wake);
	pthread_mutex_unlock(&ctx->lock);
}

/* ---- the records ---- */

/* The object that an event names is looked up: it may be gone by now. Holds ctx->lock. */
static struct fx_vqp *find_qp(struct fx_context *ctx, uint64_t cookie)
{
	struct fx_vqp *qp = ctx->qps[cookie % FX_BUCKETS];

	while (qp && qp->cookie != cookie)
		qp = qp->next;
	return qp;
}

static struct fx_vcq *find_cq(struct fx_context *ctx, uint64_t cookie)
{
	struct fx_vcq *cq = ctx->cqs[cookie % FX_BUCKETS];

	while (cq && cq->cookie != cookie)
		cq = cq->next;
	return cq;
}

enum element { OF_DEVICE, OF_CQ, OF_QP, OF_SRQ, OF_WQ };

static enum element element_of(enum ibv_event_type type)
{
	switch (type) {
	case IBV_EVENT_CQ_ERR:
		return OF_CQ;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		return OF_QP;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED:
		return OF_SRQ;
	case IBV_EVENT_WQ_FATAL:
		return OF_WQ;
	default:
		return OF_DEVICE;
	}
}

/* Room for one more asynchronous event. */
static bool async_room(struct fx_context *ctx)
{
	uint32_t room = ctx->async_room ? 2 * ctx->async_room : 16;
	struct fx_event *async;

	if (ctx->nasync < ctx->async_room)
		return true;
	async = realloc(ctx->async, room * sizeof(*async));
	if (!async)
		return false;
	ctx->async = async;
	ctx->async_room = room;
	return true;
}

static void sort_one(struct fx_context *ctx, const struct fx_event *e)
{
	struct fx_vcq *cq = e->kind == FX_EV_CQ ? find_cq(ctx, e->cookie) : NULL;

	if (e->kind == FX_EV_ASYNC)
		ctx->async[ctx->nasync++] = *e;
	else if (cq && cq->cq.channel)
		fx_channel_event(cq, e);
}

void fx_events_sort(struct fx_context *ctx)
{
	uint32_t from = ctx->events.ci;
	struct fx_event e;

	if (__atomic_load_n(&ctx->life, __ATOMIC_RELAXED) == FX_FORKED)
		return; /* the ring is the parent's */
	while (async_room(ctx) && fx_event_take(&ctx->events, &e))
		sort_one(ctx, &e);
	if (ctx->events.ci != from)
		fx_event_publish_ci(&ctx->events);
}

/* ---- objects that go away ---- */

/* The asynchronous events of one object, and their bytes. Holds ctx->lock. */
static void take_back(struct fx_context *ctx, enum element element, uint64_t cookie)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < ctx->nasync; i++)
		if (element_of(ctx->async[i].type) != element || ctx->async[i].cookie != cookie)
			ctx->async[kept++] = ctx->async[i];
	ctx->wake.owed += ctx->nasync - kept;
	ctx->nasync = kept;
}

/* A forked child shares the pipes with its parent, and leaves the bytes alone. */
static void settle_if_ours(struct fx_context *ctx, struct fx_wake *wake)
{
	if (__atomic_load_n(&ctx->life, __ATOMIC_RELAXED) != FX_FORKED)
		settle(wake);
}

void fx_events_forget_cq(struct fx_vcq *cq)
{
	struct fx_channel *ch = cq->cq.channel ? fx_channel_of(cq->cq.channel) : NULL;
	struct fx_context *ctx = cq->ctx;
	struct fx_vcq **p = &ctx->cqs[cq->cookie % FX_BUCKETS];

	pthread_mutex_lock(&ctx->lock);
	fx_events_sort(ctx);
	take_back(ctx, OF_CQ, cq->cookie);
	settle_if_ours(ctx, &ctx->wake);
	if (ch && cq->has_event) {
		fx_channel_remove(cq);
		ch->wake.owed++;
		settle_if_ours(ctx, &ch->wake);
	}
	while (*p != cq)
		p = &(*p)->next;
	*p = cq->next;
	if (ch)
		ch->channel.refcnt--;
	pthread_mutex_unlock(&ctx->lock);
}

void fx_events_forget_qp(struct fx_vqp *qp)
{
	struct fx_context *ctx = qp->ctx;
	struct fx_vqp **p = &ctx->qps[qp->cookie % FX_BUCKETS];

	pthread_mutex_lock(&ctx->lock);
	fx_events_sort(ctx);
	take_back(ctx, OF_QP, qp->cookie);
	settle_if_ours(ctx, &ctx->wake);
	while (*p != qp)
		p = &(*p)->next;
	*p = qp->next;
	pthread_mutex_unlock(&ctx->lock);
}

/* ---- asynchronous events ---- */

/* Fills in what the event is about and counts the delivery; false: its object is gone. Holds ctx->lock. */
static bool deliver(struct fx_context *ctx, const struct fx_event *e, struct ibv_async_event *event)
{
	enum element element = element_of(e->type);
	struct fx_vqp *qp;
	struct fx_vcq *cq;

	event->event_type = e->type;
	switch (element) {
	case OF_QP:
		qp = find_qp(ctx, e->cookie);
		if (!qp)
			return false;
		event->element.qp = &qp->qp;
		pthread_mutex_lock(&qp->qp.mutex);
		qp->delivered++;
		pthread_mutex_unlock(&qp->qp.mutex);
		return true;
	case OF_CQ:
		cq = find_cq(ctx, e->cookie);
		if (!cq)
			return false;
		event->element.cq = &cq->cq;
		pthread_mutex_lock(&cq->cq.mutex);
		cq->delivered++;
		pthread_mutex_unlock(&cq->cq.mutex);
		return true;
	case OF_DEVICE:
		event->element.port_num = (int)e->object;
		return true;
	default:
		return false; /* nothing of that kind exists */
	}
}

/* Holds ctx->lock. */
static bool next_event(struct fx_context *ctx, struct ibv_async_event *event)
{
	bool found = false;

	fx_events_sort(ctx);
	while (!found && ctx->nasync) {
		struct fx_event e = ctx->async[0];

		memmove(ctx->async, ctx->async + 1, --ctx->nasync * sizeof(e));
		found = deliver(ctx, &e, event);
	}
	return found;
}

/* The last event there is: the core is gone. False: that was told before. Holds ctx->lock. */
static bool fatal_event(struct fx_context *ctx, struct ibv_async_event *event)
{
	bool first = !ctx->fatal_told;

	ctx->fatal_told = true;
	*event = (struct ibv_async_event){.event_type = IBV_EVENT_DEVICE_FATAL};
	return first;
}

int flexins_get_async_event(struct ibv_context *c, struct ibv_async_event *event)
{
	struct fx_context *ctx = fx_context_of(c);

	if (__atomic_load_n(&ctx->life, __ATOMIC_ACQUIRE) == FX_FORKED) {
		fx_fail(EIO);
		return -1;
	}
	for (;;) {
		int n = fx_wake_read(ctx, &ctx->wake);
		bool found;

		if (n < 0) {
			fx_fail(errno); /* EAGAIN of a non-blocking descriptor, or EINTR */
			return -1;
		}
		if (n == 0)
			fx_lost(ctx);
		found = next_event(ctx, event);
		if (!found && n == 0) {
			found = fatal_event(ctx, event);
			n = -1;
		}
		fx_wake_done(ctx, &ctx->wake, found);
		if (found)
			return 0;
		if (n < 0) {
			fx_fail(EIO);
			return -1;
		}
	}
}

struct ibv_context *flexins_event_context(const struct ibv_async_event *event)
{
	switch (element_of(event->event_type)) {
	case OF_CQ:
		return event->element.cq->context;
	case OF_QP:
		return event->element.qp->context;
	case OF_SRQ:
		return event->element.srq->context;
	case OF_WQ:
		return event->element.wq->context;
	default:
		return NULL;
	}
}

static void ack(pthread_mutex_t *m, pthread_cond_t *cond, uint32_t *acked)
{
	pthread_mutex_lock(m);
	++*acked;
	pthread_cond_signal(cond);
	pthread_mutex_unlock(m);
}

void flexins_ack_async_event(struct ibv_async_event *event)
{
	struct ibv_cq *cq = event->element.cq;
	struct ibv_qp *qp = event->element.qp;

	switch (element_of(event->event_type)) {
	case OF_CQ:
		ack(&cq->mutex, &cq->cond, &cq->async_events_completed);
		break;
	case OF_QP:
		ack(&qp->mutex, &qp->cond, &qp->events_completed);
		break;
	default:
		break;
	}
}

void fx_events_wait_acked(pthread_mutex_t *m, pthread_cond_t *cond, const uint32_t *acked,
			  const uint32_t *delivered)
{
	pthread_mutex_lock(m);
	while (*acked != *delivered)
		pthread_cond_wait(cond, m);
	pthread_mutex_unlock(m);
}
