/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completion queues: polling merges the rings of the workers, the shadow queues give back what a CQE
 * leaves out, and when the core is gone they give the flush completions too (guarantee P4).
 *
 * Room: host. May use: context.c, arena.c, bounce.h, pipe/ring.h.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/bounce.h"

/* ---- polling ---- */

/*
 * A service level does not exist in RoCE. With a GRH its place tells what kind of header that is, as NICs have it and
 * programs look for.
 */
enum { SL_IP6 = 1, SL_IP4 = 2 };

static inline uint8_t sl_of(const struct fx_taken *t)
{
	return !(t->c.flags & FX_WCF_GRH) ? 0 : t->c.flags & FX_WCF_IP6 ? SL_IP6 : SL_IP4;
}

uint8_t fx_taken_sl(const struct fx_taken *t)
{
	return sl_of(t);
}

static void fill_wc(struct ibv_wc *wc, const struct fx_taken *t)
{
	const struct fx_cqe *c = &t->c;

	wc->wr_id = t->wr_id;
	wc->status = c->status;
	wc->opcode = c->opcode;
	wc->vendor_err = c->syndrome;
	wc->byte_len = c->byte_len;
	wc->imm_data = c->imm;
	wc->qp_num = fx_cqe_qpn(c);
	wc->src_qp = c->src_qp;
	wc->wc_flags = c->flags & FX_WC_FLAGS;
	wc->pkey_index = 0;
	wc->slid = 0;
	wc->sl = sl_of(t);
	wc->dlid_path_bits = 0;
}

/* The QP is known to its CQ, and the CQE is of its life; what it retires, the caller sees. */
static bool of_life(const struct fx_vcq *cq, const struct fx_vqp *qp, const struct fx_cqe *c, bool recv)
{
	return qp && qp->qpn_gen == c->qpn_gen && (recv ? qp->qp.recv_cq : qp->qp.send_cq) == &cq->cq;
}

/* A receive of an SRQ; false: it is of no receive that is outstanding. */
static bool accept_shared(struct fx_vcq *cq, const struct fx_vqp *qp, struct fx_taken *t)
{
	bool ok = fx_srq_retire(fx_srq_of(qp->qp.srq), t->c.index, &t->wr_id);

	if (!ok)
		cq->stale++;
	return ok;
}

/* Of XRC: the SRQ is ours, whoever has the QP. */
static bool accept_xrc(struct fx_vcq *cq, struct fx_taken *t)
{
	struct fx_vsrq *srq = cq->srqs;

	while (srq && srq->srq.handle != t->c.src_qp)
		srq = srq->cq_next;
	t->c.src_qp = 0;
	if (srq && fx_srq_retire(srq, t->c.index, &t->wr_id))
		return true;
	cq->stale++;
	return false;
}

/* The CQE just taken; false: nothing for the application: its QP is gone or was reset, or it asked for silence. */
__attribute__((always_inline)) static inline bool accept_cqe(struct fx_vcq *cq, struct fx_cq_rx *rx,
							     struct fx_taken *t)
{
	struct fx_cqe *c = &t->c;
	struct fx_vqp *qp = fx_qp_find(&cq->qps, fx_cqe_qpn(c));
	bool recv = c->opcode & IBV_WC_RECV;
	struct fx_shadow *s = !qp ? NULL : recv ? &qp->rq : &qp->sq;
	struct fx_shadow_wr wr;

	if (fx_unlikely(c->flags & FX_WCF_XRC))
		return accept_xrc(cq, t);
	if (recv && qp && qp->qp.srq && of_life(cq, qp, c, recv))
		return accept_shared(cq, qp, t);
	if (fx_unlikely(!of_life(cq, qp, c, recv) || !fx_shadow_holds(s, c->index))) {
		cq->stale++;
		return false;
	}
	if (fx_unlikely(fx_shadow_bounced(s)) && !fx_bounce_complete(qp, s, c))
		rx->ci--;
	wr = fx_shadow_retire(s, c->index);
	if (!wr.signaled && c->status == FX_WC_SUCCESS)
		return false;
	t->wr_id = wr.wr_id;
	return true;
}

/* take_cqe(), that moves nothing but `r`. */
static bool look_ahead(struct fx_cq_ring *r, struct fx_cqe *c)
{
	uint32_t ci = r->rx.ci;

	if (!r->next.ring || ci != r->next.origin)
		return false;
	r->rx = r->next;
	r->rx.ci = ci;
	r->next.ring = NULL;
	return fx_cq_take(&r->rx, c);
}

void fx_cq_forget(struct fx_vcq *cq, const struct fx_vqp *qp)
{
	struct fx_cqe c;
	uint64_t wr_id;

	for (uint32_t w = 0; qp->qp.srq && w < FX_RINGS; w++) {
		struct fx_cq_ring ahead = cq->ring[w];

		while (fx_cq_take(&ahead.rx, &c) || look_ahead(&ahead, &c))
			if (c.qpn_gen == qp->qpn_gen && c.opcode & IBV_WC_RECV)
				fx_srq_retire(fx_srq_of(qp->qp.srq), c.index, &wr_id);
	}
}

bool fx_cq_advance(struct fx_vcq *cq, struct fx_cq_ring *r)
{
	struct fx_context *ctx = cq->ctx;
	uint32_t ci = r->rx.ci;

	if (!r->next.ring || ci != r->next.origin)
		return false;
	fx_arena_free(&ctx->arena, r->off, fx_cq_bytes(r->rx.shift),
		      __atomic_load_n(&ctx->life, __ATOMIC_RELAXED) != FX_FORKED);
	r->off = r->next_off;
	r->rx = r->next;
	r->rx.ci = ci;
	r->next.ring = NULL;
	return true;
}

/* The next CQE, of the ring or of its successor. */
static inline bool take_cqe(struct fx_vcq *cq, struct fx_cq_ring *r, struct fx_cqe *c)
{
	return fx_likely(fx_cq_take(&r->rx, c)) ||
	       (fx_unlikely(r->next.ring != NULL) && fx_cq_advance(cq, r) && fx_cq_take(&r->rx, c));
}

static int drain(struct fx_vcq *cq, struct fx_cq_ring *r, int max, struct ibv_wc *wc)
{
	struct fx_cq_rx *rx = &r->rx;
	uint32_t from = rx->ci;
	struct fx_taken t;
	int n = 0;

	while (n < max && take_cqe(cq, r, &t.c))
		if (accept_cqe(cq, rx, &t))
			fill_wc(&wc[n++], &t);
	if (rx->ci != from)
		fx_cq_publish_ci(rx);
	return n;
}

static int drain_all(struct fx_vcq *cq, int max, struct ibv_wc *wc)
{
	int n = 0;

	for (uint32_t i = 0; i < FX_RINGS && n < max; i++)
		n += drain(cq, &cq->ring[(cq->first + i) % FX_RINGS], max - n, wc + n);
	cq->first = (cq->first + 1) % FX_RINGS; /* no worker's completions wait behind another's for ever */
	return n;
}

static bool flush_one(struct fx_vqp *qp, struct fx_shadow *s, struct fx_taken *t)
{
	struct fx_shadow_wr wr;

	if (!fx_shadow_holds(s, s->tail))
		return false;
	fx_bounce_drop(qp, s, s->tail + 1);
	wr = fx_shadow_retire(s, s->tail);
	*t = (struct fx_taken){
		.c = {.qpn_gen = qp->qp.qp_num, .status = FX_WC_WR_FLUSH_ERR, .opcode = wr.opcode},
		.wr_id = wr.wr_id};
	return true;
}

/* The core is gone: whatever is outstanding completes here, unsignaled requests too. */
static bool flush_next(struct fx_vcq *cq, struct fx_taken *t)
{
	uint32_t n = cq->qps.e ? 1u << cq->qps.bits : 0;

	for (uint32_t i = 0; i < n; i++, cq->flush_at++) {
		struct fx_vqp *qp = cq->qps.e[cq->flush_at & (n - 1)].qp;

		if (qp && qp->qp.send_cq == &cq->cq && flush_one(qp, &qp->sq, t))
			return true;
		if (qp && qp->qp.recv_cq == &cq->cq && flush_one(qp, &qp->rq, t))
			return true;
	}
	return false;
}

static int flush_all(struct fx_vcq *cq, int max, struct ibv_wc *wc)
{
	struct fx_taken t;
	int n = 0;

	while (n < max && flush_next(cq, &t))
		fill_wc(&wc[n++], &t);
	return n;
}

/* After many empty polls, and not too often: does the core still live? Holds cq->lock. */
static bool time_to_look(struct fx_vcq *cq)
{
	struct timespec t;
	uint64_t ms;

	if (++cq->empty % FX_POLLS_PER_LOOK)
		return false;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	if (ms - cq->looked_ms < FX_LOOK_MS)
		return false;
	cq->looked_ms = ms;
	return true;
}

/* Nothing was there: somebody we wait for may need this CPU, or be gone. */
static int found_nothing(struct fx_context *ctx, bool look)
{
	if (look)
		fx_look(ctx);
	if (ctx->page->shared_cpus)
		sched_yield();
	return 0;
}

int flexins_poll_cq(struct ibv_cq *ibcq, int num_entries, struct ibv_wc *wc)
{
	struct fx_vcq *cq = fx_cq_of(ibcq);
	struct fx_context *ctx = cq->ctx;
	int life = __atomic_load_n(&ctx->life, __ATOMIC_ACQUIRE), n = 0;
	bool look = false;

	fx_lock(&cq->lock);
	if (fx_likely(life != FX_FORKED))
		n = drain_all(cq, num_entries, wc);
	if (fx_unlikely(life != FX_ALIVE) && n < num_entries)
		n += flush_all(cq, num_entries - n, wc + n);
	if (n)
		cq->empty = 0;
	else
		look = time_to_look(cq);
	fx_unlock(&cq->lock);
	return n ? n : found_nothing(ctx, look);
}

static bool take_one(struct fx_vcq *cq, struct fx_taken *t)
{
	for (uint32_t i = 0; i < FX_RINGS; i++) {
		struct fx_cq_ring *r = &cq->ring[(cq->first + i) % FX_RINGS];
		struct fx_cq_rx *rx = &r->rx;
		uint32_t from = rx->ci;
		bool found = false;

		while (!found && take_cqe(cq, r, &t->c))
			found = accept_cqe(cq, rx, t);
		if (rx->ci != from)
			fx_cq_publish_ci(rx);
		if (found)
			return true;
	}
	return false;
}

bool fx_cq_next(struct fx_vcq *cq, struct fx_taken *t)
{
	struct fx_context *ctx = cq->ctx;
	int life = __atomic_load_n(&ctx->life, __ATOMIC_ACQUIRE);
	bool found, look = false;

	fx_lock(&cq->lock);
	found = life != FX_FORKED && take_one(cq, t);
	if (fx_unlikely(life != FX_ALIVE) && !found)
		found = flush_next(cq, t);
	if (found)
		cq->empty = 0;
	else
		look = time_to_look(cq);
	fx_unlock(&cq->lock);
	if (!found)
		found_nothing(ctx, look);
	return found;
}

/* How many CQEs the application knows of: those it consumed, or that its last event told of. */
static uint32_t known(const struct fx_cq_ring *r)
{
	return (int32_t)(r->told - r->rx.ci) > 0 ? r->told : r->rx.ci;
}

/*
 * An arm of the same or a wider kind that nobody took the event of is still good: it waits, or its event does. The
 * arms go out after the lock is free, since a full pipe is waited for. If one is overtaken by polling, it names fewer
 * CQEs than are known by then and fires early: never late.
 */
int flexins_req_notify_cq(struct ibv_cq *ibcq, int solicited_only)
{
	uint32_t kind = solicited_only ? FX_ARM_SOLICITED : FX_ARM_ANY, n = 0;
	struct fx_arm_slot a[FX_RINGS];
	struct fx_vcq *cq = fx_cq_of(ibcq);

	if (!ibcq->channel)
		return 0; /* nobody could be told */
	memset(a, 0, sizeof(a));
	fx_lock(&cq->lock);
	if (cq->arm != FX_ARM_ANY && cq->arm != kind) {
		cq->arm = kind;
		for (; n < FX_RINGS; n++) {
			a[n].opcode = FX_WR_ARM;
			a[n].nslots = 1;
			a[n].cq = cq->ring[n].handle;
			a[n].arm = cq->arm_seq << 2 | kind;
			a[n].ci = known(&cq->ring[n]);
		}
	}
	fx_unlock(&cq->lock);
	/* one that finds no core stays noted: fx_channel's readers learn from the pipe's end that there is none */
	for (uint32_t i = 0;
	     i < n && fx_pipe_send(cq->ctx, &cq->ctx->pipe, (const struct fx_sq_slot *)&a[i], 1); i++)
		;
	return 0;
}

/* ---- life ---- */

/* A QP's two CQs, if it has any, in order of address, once if they are one. */
void fx_cqs_lock(struct fx_vqp *qp)
{
	struct fx_vcq *a = fx_cq_of(qp->qp.send_cq), *b = fx_cq_of(qp->qp.recv_cq);

	if (qp->xrcd)
		return;
	fx_lock(a < b ? &a->lock : &b->lock);
	if (a != b)
		fx_lock(a < b ? &b->lock : &a->lock);
}

void fx_cqs_unlock(struct fx_vqp *qp)
{
	struct fx_vcq *a = fx_cq_of(qp->qp.send_cq), *b = fx_cq_of(qp->qp.recv_cq);

	if (qp->xrcd)
		return;
	fx_unlock(&a->lock);
	if (a != b)
		fx_unlock(&b->lock);
}

static void destroy_ring(struct fx_context *ctx, struct fx_cq_ring *r)
{
	bool touch = __atomic_load_n(&ctx->life, __ATOMIC_RELAXED) != FX_FORKED;

	fx_arena_free(&ctx->arena, r->off, fx_cq_bytes(r->rx.shift), touch);
	if (r->next.ring)
		fx_arena_free(&ctx->arena, r->next_off, fx_cq_bytes(r->next.shift), touch);
}

static int create_ring(struct fx_vcq *cq, uint32_t worker, uint32_t shift, uint32_t channel, uint32_t flags)
{
	struct fx_create_cq_req req = {.head = {.op = FX_MSG_CREATE_CQ},
				       .shift = shift,
				       .worker = worker,
				       .cookie = cq->subject.cookie,
				       .channel = channel,
				       .flags = flags};
	struct fx_cq_ring *r = &cq->ring[worker];
	struct fx_context *ctx = cq->ctx;
	struct fx_handle_rep rep;
	int err;

	r->rx.shift = shift;
	err = fx_arena_alloc(&ctx->arena, fx_cq_bytes(shift), &r->off);
	if (err)
		return err;
	r->rx.head = (struct fx_cq_head *)(ctx->arena.base + r->off);
	r->rx.ring = (const struct fx_cqe *)(ctx->arena.base + r->off + FX_LINE);
	req.off = r->off;
	err = fx_ask(ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
	if (err)
		destroy_ring(ctx, r);
	else
		r->handle = rep.handle;
	return err;
}

/* A CQ whose rings the core knows; one worker today, so either all of them or none. */
static int create_rings(struct fx_vcq *cq, uint32_t shift, const struct ibv_comp_channel *channel,
			uint32_t flags)
{
	uint32_t handle = channel ? fx_container(channel, struct fx_channel, channel)->handle : 0;
	int err = 0;

	for (uint32_t w = 0; w < FX_RINGS && !err; w++)
		err = create_ring(cq, w, shift, handle, flags);
	return err;
}

struct fx_vcq *fx_cq_make(struct ibv_context *c, const struct ibv_cq_init_attr_ex *a, uint32_t flags)
{
	struct fx_context *ctx = fx_context_of(c);
	struct fx_vcq *cq;
	uint32_t shift;
	int err;

	if (!a->cqe || a->cqe > ctx->limits.max_cqe || a->comp_vector >= (uint32_t)c->num_comp_vectors ||
	    (a->channel && a->channel->context != c))
		return fx_null(EINVAL);
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return fx_null(ENOMEM);
	shift = fx_log2_up(a->cqe);
	cq->ctx = ctx;
	cq->arm_seq = 1;
	cq->cq = (struct ibv_cq){
		.context = c, .channel = a->channel, .cq_context = a->cq_context, .cqe = (int)(1u << shift)};
	fx_subject_init(ctx, &cq->subject, FX_OF_CQ, &cq->cq, &cq->cq.mutex, &cq->cq.cond);
	err = create_rings(cq, shift, a->channel, flags);
	if (err) {
		fx_subject_fini(&cq->subject, &cq->cq.async_events_completed);
		free(cq);
		return fx_null(err);
	}
	cq->cq.handle = cq->ring[0].handle;
	pthread_mutex_lock(&ctx->lock);
	if (a->channel)
		a->channel->refcnt++;
	fx_subject_list(ctx, &cq->subject);
	pthread_mutex_unlock(&ctx->lock);
	return cq;
}

struct ibv_cq *flexins_create_cq(struct ibv_context *c, int cqe, void *cq_context,
				 struct ibv_comp_channel *channel, int comp_vector)
{
	/* what is negative is more than any limit */
	const struct ibv_cq_init_attr_ex a = {.cqe = (uint32_t)cqe,
					      .cq_context = cq_context,
					      .channel = channel,
					      .comp_vector = (uint32_t)comp_vector};
	struct fx_vcq *cq = fx_cq_make(c, &a, 0);

	return cq ? &cq->cq : NULL;
}

int flexins_destroy_cq(struct ibv_cq *ibcq)
{
	struct fx_vcq *cq = fx_cq_of(ibcq);
	struct fx_context *ctx = cq->ctx;

	/* acquire: the last QP's use of it (its release) comes before the end */
	if (__atomic_load_n(&cq->users, __ATOMIC_ACQUIRE))
		return fx_fail(EBUSY);
	for (uint32_t i = 0; i < FX_RINGS; i++) {
		int err = fx_ask_drop(ctx, FX_MSG_DESTROY_CQ, cq->ring[i].handle);

		if (err && fx_alive(ctx))
			return fx_fail(err);
		destroy_ring(ctx, &cq->ring[i]);
	}
	fx_subject_forget(ctx, &cq->subject);
	fx_channel_forget(cq);
	fx_events_wait_acked(&ibcq->mutex, &ibcq->cond, &ibcq->comp_events_completed, &cq->comp_delivered);
	fx_subject_fini(&cq->subject, &ibcq->async_events_completed);
	if (cq->parent) /* release: the last use comes before whoever frees it */
		__atomic_fetch_sub(&cq->parent->users, 1, __ATOMIC_RELEASE);
	free(cq->qps.e);
	free(cq);
	return 0;
}
