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

/* What an event names is looked up: it may be gone by now. Holds ctx->lock. */
static struct fx_subject *find(struct fx_context *ctx, enum fx_element element, uint64_t cookie)
{
	struct fx_subject *s = ctx->subjects[cookie % FX_BUCKETS];

	while (s && (s->cookie != cookie || s->element != element))
		s = s->next;
	return s;
}

static enum fx_element element_of(enum ibv_event_type type)
{
	switch (type) {
	case IBV_EVENT_CQ_ERR:
		return FX_OF_CQ;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		return FX_OF_QP;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED:
		return FX_OF_SRQ;
	case IBV_EVENT_WQ_FATAL:
		return FX_OF_WQ;
	default:
		return FX_OF_DEVICE;
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
	struct fx_subject *s = e->kind == FX_EV_CQ ? find(ctx, FX_OF_CQ, e->cookie) : NULL;
	struct ibv_cq *cq = s ? s->object : NULL;

	if (e->kind == FX_EV_ASYNC)
		ctx->async[ctx->nasync++] = *e;
	else if (cq && cq->channel)
		fx_channel_event(fx_cq_of(cq), e);
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

/* A forked child shares the pipes with its parent, and leaves the bytes alone. */
void fx_wake_settle(struct fx_context *ctx, struct fx_wake *wake)
{
	if (__atomic_load_n(&ctx->life, __ATOMIC_RELAXED) != FX_FORKED)
		settle(wake);
}

/* The asynchronous events of one object, and their bytes. Holds ctx->lock. */
static void take_back(struct fx_context *ctx, const struct fx_subject *s)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < ctx->nasync; i++)
		if (element_of(ctx->async[i].type) != s->element || ctx->async[i].cookie != s->cookie)
			ctx->async[kept++] = ctx->async[i];
	ctx->wake.owed += ctx->nasync - kept;
	ctx->nasync = kept;
	fx_wake_settle(ctx, &ctx->wake);
}

void fx_subject_init(struct fx_context *ctx, struct fx_subject *s, enum fx_element element, void *object,
		     pthread_mutex_t *mutex, pthread_cond_t *cond)
{
	*s = (struct fx_subject){.element = element, .object = object, .mutex = mutex, .cond = cond};
	pthread_mutex_init(mutex, NULL);
	pthread_cond_init(cond, NULL);
	pthread_mutex_lock(&ctx->lock);
	s->cookie = ++ctx->cookie;
	pthread_mutex_unlock(&ctx->lock);
}

void fx_subject_list(struct fx_context *ctx, struct fx_subject *s)
{
	struct fx_subject **bucket = &ctx->subjects[s->cookie % FX_BUCKETS];

	s->next = *bucket;
	*bucket = s;
}

void fx_subject_forget(struct fx_context *ctx, struct fx_subject *s)
{
	struct fx_subject **p = &ctx->subjects[s->cookie % FX_BUCKETS];

	pthread_mutex_lock(&ctx->lock);
	fx_events_sort(ctx);
	take_back(ctx, s);
	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	pthread_mutex_unlock(&ctx->lock);
}

void fx_subject_fini(struct fx_subject *s, const uint32_t *acked)
{
	fx_events_wait_acked(s->mutex, s->cond, acked, &s->delivered);
	pthread_mutex_destroy(s->mutex);
	pthread_cond_destroy(s->cond);
}

/* ---- asynchronous events ---- */

/* Fills in what the event is about and counts the delivery; false: its object is gone. Holds ctx->lock. */
static bool deliver(struct fx_context *ctx, const struct fx_event *e, struct ibv_async_event *event)
{
	enum fx_element element = element_of(e->type);
	struct fx_subject *s;

	event->event_type = e->type;
	if (element == FX_OF_DEVICE) {
		event->element.port_num = (int)e->object;
		return true;
	}
	s = find(ctx, element, e->cookie);
	if (!s)
		return false;
	event->element.qp = s->object; /* one pointer, whatever it is */
	pthread_mutex_lock(s->mutex);
	s->delivered++;
	pthread_mutex_unlock(s->mutex);
	return true;
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
	case FX_OF_CQ:
		return event->element.cq->context;
	case FX_OF_QP:
		return event->element.qp->context;
	case FX_OF_SRQ:
		return event->element.srq->context;
	case FX_OF_WQ:
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
	struct ibv_srq *srq = event->element.srq;

	switch (element_of(event->event_type)) {
	case FX_OF_CQ:
		ack(&cq->mutex, &cq->cond, &cq->async_events_completed);
		break;
	case FX_OF_QP:
		ack(&qp->mutex, &qp->cond, &qp->events_completed);
		break;
	case FX_OF_SRQ:
		ack(&srq->mutex, &srq->cond, &srq->events_completed);
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
