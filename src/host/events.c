/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completion channels and asynchronous events. The core writes event records into the context's ring and then a
 * byte a record into a pipe, whose read end is the context's async_fd (contract 25); when the core is gone that
 * descriptor hangs up, which becomes IBV_EVENT_DEVICE_FATAL once.
 *
 * Room: host. May use: context.c. A channel is an object with a descriptor to poll; CQs cannot be armed yet, so
 * nothing ever comes through it.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "host/host.h"

/* ---- completion channels ---- */

struct fx_channel {
	struct ibv_comp_channel channel;
	int write_fd;
};

struct ibv_comp_channel *flexins_create_comp_channel(struct ibv_context *c)
{
	struct fx_channel *ch = calloc(1, sizeof(*ch));
	int fd[2];

	if (!ch)
		return fx_null(ENOMEM);
	if (pipe2(fd, O_CLOEXEC) < 0) {
		int err = errno;

		free(ch);
		return fx_null(err);
	}
	ch->channel = (struct ibv_comp_channel){.context = c, .fd = fd[0]};
	ch->write_fd = fd[1];
	return &ch->channel;
}

int flexins_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	struct fx_channel *ch = fx_container(channel, struct fx_channel, channel);
	struct fx_context *ctx = fx_context_of(channel->context);
	int users;

	pthread_mutex_lock(&ctx->lock);
	users = channel->refcnt;
	pthread_mutex_unlock(&ctx->lock);
	if (users)
		return fx_fail(EBUSY);
	close(channel->fd);
	close(ch->write_fd);
	free(ch);
	return 0;
}

int flexins_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
	(void)channel;
	(void)cq;
	(void)cq_context;
	fx_fail(EOPNOTSUPP); /* no CQ can be armed: waiting would be for ever */
	return -1;
}

void flexins_ack_cq_events(struct ibv_cq *cq, unsigned int nevents)
{
	pthread_mutex_lock(&cq->mutex);
	cq->comp_events_completed += nevents;
	pthread_cond_signal(&cq->cond);
	pthread_mutex_unlock(&cq->mutex);
}

/* ---- asynchronous events ---- */

/* The object that an event names is looked up: it may be gone by now. Holds ctx->lock. */
static struct fx_vqp *find_qp(struct fx_context *ctx, uint64_t cookie)
{
	struct fx_vqp *qp = ctx->qps;

	while (qp && qp->cookie != cookie)
		qp = qp->next;
	return qp;
}

static struct fx_vcq *find_cq(struct fx_context *ctx, uint64_t cookie)
{
	struct fx_vcq *cq = ctx->cqs;

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

static bool next_event(struct fx_context *ctx, struct ibv_async_event *event)
{
	bool found = false;

	pthread_mutex_lock(&ctx->lock);
	while (!found) {
		const struct fx_event *at = &ctx->events[ctx->event_ci & ((1u << ctx->event_shift) - 1)];
		struct fx_event e;

		/* acquire: against the core's release of the phase, so that the record is whole */
		if (fx_load8_acquire(&at->phase) != fx_phase(ctx->event_ci, ctx->event_shift))
			break;
		e = *at;
		ctx->event_ci++;
		found = e.kind == FX_EV_ASYNC && deliver(ctx, &e, event);
	}
	pthread_mutex_unlock(&ctx->lock);
	return found;
}

/* The last event there is: the core is gone. False: that was told before. */
static bool fatal_event(struct fx_context *ctx, struct ibv_async_event *event)
{
	bool first;

	pthread_mutex_lock(&ctx->lock);
	first = !ctx->fatal_told;
	ctx->fatal_told = true;
	pthread_mutex_unlock(&ctx->lock);
	*event = (struct ibv_async_event){.event_type = IBV_EVENT_DEVICE_FATAL};
	return first;
}

int flexins_get_async_event(struct ibv_context *c, struct ibv_async_event *event)
{
	struct fx_context *ctx = fx_context_of(c);
	char byte;

	if (__atomic_load_n(&ctx->life, __ATOMIC_ACQUIRE) == FX_FORKED) {
		fx_fail(EIO);
		return -1;
	}
	for (;;) {
		ssize_t n = read(c->async_fd, &byte, 1);

		if (n < 0) {
			fx_fail(errno); /* EAGAIN of a non-blocking descriptor, or EINTR */
			return -1;
		}
		if (next_event(ctx, event))
			return 0;
		if (n == 0) {
			fx_look(ctx);
			if (fatal_event(ctx, event))
				return 0;
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

void fx_events_wait_acked(pthread_mutex_t *m, pthread_cond_t *cond, const uint32_t *acked, const uint32_t *delivered)
{
	pthread_mutex_lock(m);
	while (*acked != *delivered)
		pthread_cond_wait(cond, m);
	pthread_mutex_unlock(m);
}
