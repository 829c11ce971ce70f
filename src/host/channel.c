/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completion channels: a descriptor each, so that applications can wait for one and not for another. The core writes a
 * byte into a channel's pipe for every event of its CQs; the events themselves come through the context's ring
 * (events.c). A CQ has one event at most that nobody took, since its arms carry how many were taken (pipe/abi.h).
 *
 * When the core is gone the pipe hangs up: every armed CQ then has one last event, so that whoever waits polls and
 * finds the flush completions; after that, waiting is an error (EIO).
 *
 * Room: host. May use: context.c, events.c.
 */
#include <stdlib.h>
#include <unistd.h>

#include "host/host.h"

/* ---- life ---- */

static int ask_create(struct fx_context *ctx, struct fx_channel *ch)
{
	struct fx_handle_req req = {.head = {.op = FX_MSG_CREATE_CHANNEL}};
	struct fx_link *link = ctx->conn.link;
	struct fx_handle_rep rep;
	struct fx_fds fds;
	int fd, err = fx_ask(ctx, &req, sizeof(req), &rep, sizeof(rep), &fds);

	if (err)
		return err;
	if (fds.n != link->ops->channel_fds) {
		fx_why("a completion channel came with %u descriptors instead of %u", fds.n,
		       link->ops->channel_fds);
		fx_close_fds(&fds);
		return -EPROTO;
	}
	fd = link->ops->wake_open(link, rep.handle, &fds);
	if (fd < 0) {
		fx_ask_drop(ctx, FX_MSG_DESTROY_CHANNEL, rep.handle);
		return fd;
	}
	ch->handle = rep.handle;
	ch->channel.fd = ch->wake.fd = fd;
	return 0;
}

struct ibv_comp_channel *flexins_create_comp_channel(struct ibv_context *c)
{
	struct fx_channel *ch = calloc(1, sizeof(*ch));
	int err;

	if (!ch)
		return fx_null(ENOMEM);
	ch->channel.context = c;
	err = ask_create(fx_context_of(c), ch);
	if (err) {
		free(ch);
		return fx_null(err);
	}
	return &ch->channel;
}

int flexins_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	struct fx_channel *ch = fx_channel_of(channel);
	struct fx_context *ctx = fx_context_of(channel->context);
	int users, err;

	pthread_mutex_lock(&ctx->lock);
	users = channel->refcnt;
	pthread_mutex_unlock(&ctx->lock);
	if (users)
		return fx_fail(EBUSY);
	err = fx_ask_drop(ctx, FX_MSG_DESTROY_CHANNEL, ch->handle);
	if (err && fx_alive(ctx))
		return fx_fail(err);
	ctx->conn.link->ops->wake_close(ctx->conn.link, ch->handle);
	close(ch->wake.fd);
	free(ch);
	return 0;
}

/* ---- events ---- */

static void note_told(struct fx_vcq *cq, const struct fx_event *e)
{
	fx_lock(&cq->lock);
	for (uint32_t i = 0; i < FX_RINGS; i++)
		if (cq->ring[i].handle == e->object)
			cq->ring[i].told = e->index;
	fx_unlock(&cq->lock);
}

void fx_channel_event(struct fx_vcq *cq, const struct fx_event *e)
{
	struct fx_channel *ch = fx_channel_of(cq->cq.channel);

	note_told(cq, e);
	if (cq->has_event) {
		ch->wake.owed++; /* one event tells it all */
		return;
	}
	cq->has_event = true;
	cq->event_next = NULL;
	if (ch->tail)
		ch->tail->event_next = cq;
	else
		ch->head = cq;
	ch->tail = cq;
}

void fx_channel_remove(struct fx_vcq *cq)
{
	struct fx_channel *ch = fx_channel_of(cq->cq.channel);
	struct fx_vcq *before = NULL;

	for (struct fx_vcq *at = ch->head; at != cq; at = at->event_next)
		before = at;
	if (before)
		before->event_next = cq->event_next;
	else
		ch->head = cq->event_next;
	if (ch->tail == cq)
		ch->tail = before;
	cq->has_event = false;
}

/* The application has the CQ's event: destroying it waits for the acknowledgement, and it may be armed again. */
static void taken(struct fx_vcq *cq)
{
	pthread_mutex_lock(&cq->cq.mutex);
	cq->comp_delivered++;
	pthread_mutex_unlock(&cq->cq.mutex);
	fx_lock(&cq->lock);
	cq->arm = FX_ARM_NONE;
	cq->arm_seq++;
	fx_unlock(&cq->lock);
}

static bool is_armed(struct fx_vcq *cq)
{
	bool armed;

	fx_lock(&cq->lock);
	armed = cq->arm != FX_ARM_NONE;
	fx_unlock(&cq->lock);
	return armed;
}

void fx_channel_forget(struct fx_vcq *cq)
{
	struct fx_channel *ch = cq->cq.channel ? fx_channel_of(cq->cq.channel) : NULL;
	struct fx_context *ctx = cq->ctx;

	if (!ch)
		return;
	pthread_mutex_lock(&ctx->lock);
	if (cq->has_event) {
		fx_channel_remove(cq);
		ch->wake.owed++;
		fx_wake_settle(ctx, &ch->wake);
	}
	ch->channel.refcnt--;
	pthread_mutex_unlock(&ctx->lock);
}

/* The core will fire no arm any more: each armed CQ of the channel has one last event. */
static struct fx_vcq *last_event(struct fx_context *ctx, const struct fx_channel *ch)
{
	for (uint32_t i = 0; i < FX_BUCKETS; i++)
		for (struct fx_subject *s = ctx->subjects[i]; s; s = s->next) {
			struct fx_vcq *cq = s->element == FX_OF_CQ ? fx_cq_of(s->object) : NULL;

			if (cq && cq->cq.channel == &ch->channel && !cq->gone_told && is_armed(cq)) {
				cq->gone_told = true;
				return cq;
			}
		}
	return NULL;
}

/* The next CQ with an event, which is counted; NULL: there is none. Holds ctx->lock. */
static struct fx_vcq *next_event(struct fx_context *ctx, struct fx_channel *ch, bool gone)
{
	struct fx_vcq *cq;

	fx_events_sort(ctx);
	cq = ch->head;
	if (cq)
		fx_channel_remove(cq);
	else if (gone)
		cq = last_event(ctx, ch);
	if (cq)
		taken(cq);
	return cq;
}

int flexins_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
	struct fx_context *ctx = fx_context_of(channel->context);
	struct fx_channel *ch = fx_channel_of(channel);
	int n = 1;

	if (__atomic_load_n(&ctx->life, __ATOMIC_ACQUIRE) == FX_FORKED)
		n = 0;
	while (n > 0) {
		struct fx_vcq *found;

		n = fx_wake_read(ctx, &ch->wake);
		if (n < 0)
			return -1; /* EAGAIN of a non-blocking descriptor, or EINTR */
		if (n == 0)
			fx_lost(ctx);
		found = next_event(ctx, ch, n == 0);
		if (found) {
			*cq = &found->cq;
			*cq_context = found->cq.cq_context;
		}
		fx_wake_done(ctx, &ch->wake, found);
		if (found)
			return 0;
	}
	fx_fail(EIO);
	return -1;
}

void flexins_ack_cq_events(struct ibv_cq *cq, unsigned int nevents)
{
	pthread_mutex_lock(&cq->mutex);
	cq->comp_events_completed += nevents;
	pthread_cond_signal(&cq->cond);
	pthread_mutex_unlock(&cq->mutex);
}
