/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Posting: a send request becomes an entry of the context's pipe, a receive request one of its QP's ring.
 *
 * Room: host, its hot path. May use: pipe/ring.h, bounce.h, context.c to see whether the core lives. Two short locks a
 * call, no allocation, and no system call but the kick of a worker that sleeps; slow memory costs more.
 */
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "host/bounce.h"

enum op_flags {
	OP_KNOWN = 1 << 0,
	OP_DATA = 1 << 1,   /* gathers data: may be inline */
	OP_REMOTE = 1 << 2, /* names remote memory by wr.rdma */
	OP_IMM = 1 << 3,    /* carries imm_data or invalidate_rkey */
	OP_ATOMIC = 1 << 4,
	OP_READ = 1 << 5,
	OP_ABSENT = 1 << 6, /* of verbs, but not here yet */
	OP_BIND = 1 << 7,
};

static const struct op {
	uint8_t wr; /* enum fx_wr_op */
	uint8_t wc; /* enum ibv_wc_opcode */
	uint8_t flags;
} ops[] = {
	[IBV_WR_RDMA_WRITE] = {FX_WR_WRITE, IBV_WC_RDMA_WRITE, OP_KNOWN | OP_DATA | OP_REMOTE},
	[IBV_WR_RDMA_WRITE_WITH_IMM] = {FX_WR_WRITE_IMM, IBV_WC_RDMA_WRITE,
					OP_KNOWN | OP_DATA | OP_REMOTE | OP_IMM},
	[IBV_WR_SEND] = {FX_WR_SEND, IBV_WC_SEND, OP_KNOWN | OP_DATA},
	[IBV_WR_SEND_WITH_IMM] = {FX_WR_SEND_IMM, IBV_WC_SEND, OP_KNOWN | OP_DATA | OP_IMM},
	[IBV_WR_RDMA_READ] = {FX_WR_READ, IBV_WC_RDMA_READ, OP_KNOWN | OP_READ | OP_REMOTE},
	[IBV_WR_ATOMIC_CMP_AND_SWP] = {FX_WR_CMP_SWAP, IBV_WC_COMP_SWAP, OP_KNOWN | OP_ATOMIC},
	[IBV_WR_ATOMIC_FETCH_AND_ADD] = {FX_WR_FETCH_ADD, IBV_WC_FETCH_ADD, OP_KNOWN | OP_ATOMIC},
	[IBV_WR_LOCAL_INV] = {FX_WR_LOCAL_INV, IBV_WC_LOCAL_INV, OP_KNOWN | OP_IMM},
	[IBV_WR_BIND_MW] = {FX_WR_BIND_MW, IBV_WC_BIND_MW, OP_KNOWN | OP_BIND},
	[IBV_WR_SEND_WITH_INV] = {FX_WR_SEND_INV, IBV_WC_SEND, OP_KNOWN | OP_DATA | OP_IMM},
	[IBV_WR_TSO] = {0, IBV_WC_TSO, OP_ABSENT},
	[IBV_WR_DRIVER1] = {0, IBV_WC_DRIVER1, OP_ABSENT},
	[IBV_WR_ATOMIC_WRITE] = {0, IBV_WC_ATOMIC_WRITE, OP_ABSENT},
};

enum { FX_SEND_FLAGS = IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | IBV_SEND_INLINE };

/* ---- one entry ---- */

static void copy_out(uint8_t *slot, uint32_t at, const uint8_t *from, uint32_t len)
{
	/* at counts inline bytes: 31 of them in the first slot behind its fixed part, 63 in each further one */
	while (len) {
		uint32_t i = at < FX_SLOT_INLINE ? 0 : 1 + (at - FX_SLOT_INLINE) / FX_EXT_DATA;
		uint32_t in = i ? (at - FX_SLOT_INLINE) % FX_EXT_DATA : at;
		uint32_t room = (i ? FX_EXT_DATA : FX_SLOT_INLINE) - in, n = len < room ? len : room;
		uint32_t base = i ? i * FX_SLOT_SIZE : (uint32_t)offsetof(struct fx_sq_slot, sge);

		memcpy(slot + base + in, from, n);
		at += n;
		from += n;
		len -= n;
	}
}

/* -> slots, as the others */
static uint32_t put_inline(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
{
	uint32_t len = 0;

	for (int i = 0; i < wr->num_sge; i++) {
		const struct ibv_sge *s = &wr->sg_list[i];

		copy_out((uint8_t *)slot, len, (const uint8_t *)(uintptr_t)s->addr, s->length);
		len += s->length;
	}
	slot->rdma.inline_len = len;
	slot->nsge = 0;
	return len <= FX_SLOT_INLINE ? 1 : 1 + (len - FX_SLOT_INLINE + FX_EXT_DATA - 1) / FX_EXT_DATA;
}

static uint32_t put_sges(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
{
	struct fx_ext_slot *ext = (struct fx_ext_slot *)slot; /* [0] is the first slot itself */
	uint32_t n = (uint32_t)wr->num_sge;

	static_assert(sizeof(struct ibv_sge) == sizeof(struct fx_sge), "an SGE is copied as it is");
	if (n)
		memcpy(&slot->sge, &wr->sg_list[0], sizeof(slot->sge));
	for (uint32_t i = 1; i < n; i++)
		memcpy(ext[1 + (i - 1) / FX_EXT_SGES].data + (i - 1) % FX_EXT_SGES * sizeof(struct fx_sge),
		       &wr->sg_list[i], sizeof(struct fx_sge));
	slot->nsge = (uint8_t)n;
	return n <= 1 ? 1 : 1 + (n - 1 + FX_EXT_SGES - 1) / FX_EXT_SGES;
}

static uint32_t put_atomic(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
{
	uint64_t operand[2] = {wr->wr.atomic.compare_add, wr->wr.atomic.swap};

	memcpy(&slot->sge, &wr->sg_list[0], sizeof(slot->sge));
	slot->nsge = 1;
	slot->rdma.remote_addr = wr->wr.atomic.remote_addr;
	slot->rdma.rkey = wr->wr.atomic.rkey;
	memcpy(((struct fx_ext_slot *)slot)[1].data, operand, sizeof(operand));
	return 2;
}

/* What the core checks is what it needs: rights and bounds; what is wrong there completes the request with an error. */
static uint32_t put_bind(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
{
	const struct ibv_mw_bind_info *info = &wr->bind_mw.bind_info;
	struct fx_bind_slot *b = (struct fx_bind_slot *)slot;

	b->window = fx_mw_of(wr->bind_mw.mw)->window;
	b->rkey = wr->bind_mw.rkey;
	b->addr = info->addr;
	b->length = info->length;
	b->lkey = info->mr ? info->mr->lkey : 0;
	b->access = info->mw_access_flags;
	return 1;
}

/* The inline length is in the same place as any other request's. */
static void put_datagram(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
{
	slot->ud.ah = wr->wr.ud.ah->handle;
	slot->ud.remote_qpn = wr->wr.ud.remote_qpn;
	slot->ud.qkey = wr->wr.ud.remote_qkey;
}

static bool inline_fits(const struct fx_vqp *qp, const struct ibv_send_wr *wr)
{
	uint32_t room = qp->max_inline;

	for (int i = 0; i < wr->num_sge; i++) {
		if (wr->sg_list[i].length > room)
			return false;
		room -= wr->sg_list[i].length;
	}
	return true;
}

static inline bool is_datagram(const struct fx_vqp *qp)
{
	return fx_unlikely(qp->qp.qp_type == IBV_QPT_UD);
}

/* 0, -EINVAL or -EOPNOTSUPP, by the request alone */
static int check_send(const struct fx_vqp *qp, const struct ibv_send_wr *wr, const struct op *op)
{
	if (!(op->flags & OP_KNOWN))
		return op->flags & OP_ABSENT ? -EOPNOTSUPP : -EINVAL;
	if (wr->send_flags & ~(unsigned)FX_SEND_FLAGS)
		return -EINVAL;
	if (wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->max_send_sge)
		return -EINVAL;
	if ((wr->send_flags & IBV_SEND_INLINE) && (!(op->flags & OP_DATA) || !inline_fits(qp, wr)))
		return -EINVAL;
	if ((op->flags & OP_ATOMIC) && wr->num_sge != 1)
		return -EINVAL;
	if ((op->flags & OP_BIND) &&
	    (!wr->bind_mw.mw || (!wr->bind_mw.bind_info.mr && wr->bind_mw.bind_info.length)))
		return -EINVAL;
	if (is_datagram(qp) &&
	    (op->wc != IBV_WC_SEND || !wr->wr.ud.ah || wr->wr.ud.ah->context != qp->qp.context))
		return -EINVAL;
	return 0;
}

static uint8_t wr_flags(const struct fx_vqp *qp, unsigned int f)
{
	return (uint8_t)((f & IBV_SEND_SIGNALED || qp->sig_all ? FX_WRF_SIGNALED : 0) |
			 (f & IBV_SEND_SOLICITED ? FX_WRF_SOLICITED : 0) |
			 (f & IBV_SEND_FENCE ? FX_WRF_FENCE : 0) | (f & IBV_SEND_INLINE ? FX_WRF_INLINE : 0));
}

/* Writes the entry of a checked request into slot[FX_MAX_SQ_SLOTS] */
static void build(const struct fx_vqp *qp, const struct ibv_send_wr *wr, const struct op *op,
		  struct fx_sq_slot *slot)
{
	uint32_t n = 1; /* LOCAL_INV: no data */

	memset(&slot[0], 0, sizeof(slot[0]));
	if (wr->num_sge > 1 || (wr->send_flags & IBV_SEND_INLINE) || (op->flags & OP_ATOMIC))
		memset(&slot[1], 0, (FX_MAX_SQ_SLOTS - 1) * sizeof(slot[0]));
	slot->opcode = op->wr;
	slot->flags = wr_flags(qp, wr->send_flags);
	slot->qpn_gen = qp->qpn_gen;
	slot->index = qp->sq.head;
	if (op->flags & OP_IMM)
		slot->imm = wr->imm_data;
	if (op->flags & OP_REMOTE) {
		slot->rdma.remote_addr = wr->wr.rdma.remote_addr;
		slot->rdma.rkey = wr->wr.rdma.rkey;
	}
	if (is_datagram(qp))
		put_datagram(wr, slot);
	if (op->flags & OP_ATOMIC)
		n = put_atomic(wr, slot);
	else if (op->flags & OP_BIND)
		n = put_bind(wr, slot);
	else if (wr->send_flags & IBV_SEND_INLINE)
		n = put_inline(wr, slot);
	else if (op->flags & (OP_DATA | OP_READ))
		n = put_sges(wr, slot);
	slot->nslots = (uint8_t)n;
}

/* ---- the pipe; holds ctx->pipe_lock ---- */

static void kick(struct fx_context *ctx)
{
	uint32_t nap;

	/*
	 * Full fence: the phases stored before are visible before `sleeping` is loaded. The worker stores `sleeping`,
	 * fences, and looks at the phases once more, so one of the two sees the other.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	nap = __atomic_load_n(&ctx->page->worker[0].sleeping, __ATOMIC_RELAXED);
	if (fx_likely(!nap) || nap == __atomic_load_n(&ctx->kicked, __ATOMIC_RELAXED))
		return;
	ctx->conn.link->ops->kick(ctx->conn.link);
	/*
	 * Not before the kick: who finds the number here may leave the worker to it. Relaxed will do, since the worker
	 * that this kick wakes looks at the phases again before it sleeps under another number.
	 */
	__atomic_store_n(&ctx->kicked, nap, __ATOMIC_RELAXED);
}

/* Waits for the worker to make room (guarantee P1); false: the core is gone. */
static bool await_room(struct fx_context *ctx, uint32_t nslots)
{
	unsigned turns = 0;

	kick(ctx);
	while (!fx_pipe_room(&ctx->pipe, nslots)) {
		if (++turns % FX_POLLS_PER_LOOK == 0 && !fx_look(ctx))
			return false;
		sched_yield();
		kick(ctx);
	}
	return true;
}

/* A core that is gone gets nothing: the shadow queue has the request, and polling flushes it. */
static bool pipe_put(struct fx_context *ctx, const struct fx_sq_slot *slot, uint32_t nslots)
{
	if (fx_unlikely(!fx_alive(ctx)))
		return false;
	if (fx_unlikely(!fx_pipe_room(&ctx->pipe, nslots)) && !await_room(ctx, nslots))
		return false;
	for (uint32_t i = 0; i < nslots; i++)
		fx_pipe_put(&ctx->pipe, &slot[i]);
	return true;
}

bool fx_pipe_send(struct fx_context *ctx, const void *slot, uint32_t nslots)
{
	bool sent;

	fx_lock(&ctx->pipe_lock);
	sent = pipe_put(ctx, slot, nslots);
	fx_unlock(&ctx->pipe_lock);
	if (sent)
		kick(ctx);
	return sent;
}

/* ---- posting ---- */

/* Slow memory, if there is any: what goes to the core instead of the request. 0 or -ENOMEM */
static int detour(struct fx_vqp *qp, const struct op *op, const struct ibv_send_wr **wr, struct fx_detour *d)
{
	if (op->flags & OP_DATA)
		return fx_bounce_source(qp, wr, d);
	if (op->flags & (OP_READ | OP_ATOMIC))
		fx_bounce_landing(qp, wr, op->flags & OP_ATOMIC, d);
	return 0;
}

static int send_one(struct fx_vqp *qp, const struct ibv_send_wr *wr, bool *published)
{
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	struct fx_detour other;
	const struct op *op;
	int err;

	if (fx_unlikely((unsigned)wr->opcode >= sizeof(ops) / sizeof(ops[0])))
		return -EINVAL;
	op = &ops[wr->opcode];
	err = check_send(qp, wr, op);
	if (fx_unlikely(err))
		return err;
	if (fx_unlikely(fx_shadow_full(&qp->sq)))
		return -ENOMEM;
	if (fx_unlikely(fx_bounces(qp->ctx)) && (err = detour(qp, op, &wr, &other)))
		return err;
	build(qp, wr, op, slot);
	fx_shadow_push(&qp->sq, wr->wr_id, op->wc, slot->flags & FX_WRF_SIGNALED);
	if (pipe_put(qp->ctx, slot, slot->nslots))
		*published = true;
	return 0;
}

static bool may_send(uint32_t state)
{
	return state == IBV_QPS_RTS || state == IBV_QPS_SQD || state == IBV_QPS_SQE || state == IBV_QPS_ERR;
}

int flexins_post_send(struct ibv_qp *ibqp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)
{
	struct fx_vqp *qp = fx_qp_of(ibqp);
	struct fx_context *ctx = qp->ctx;
	bool published = false;
	int err = 0;

	fx_lock(&qp->sq_lock);
	if (fx_unlikely(!may_send(qp->state)))
		err = -EINVAL;
	fx_lock(&ctx->pipe_lock);
	for (; wr && !err; wr = wr->next) {
		err = send_one(qp, wr, &published);
		if (fx_unlikely(err))
			break;
	}
	fx_unlock(&ctx->pipe_lock);
	fx_unlock(&qp->sq_lock);
	if (published)
		kick(ctx);
	if (fx_likely(!err))
		return 0;
	*bad_wr = wr;
	return fx_fail(err);
}

static int recv_one(struct fx_vqp *qp, const struct ibv_recv_wr *wr)
{
	uint32_t n = (uint32_t)wr->num_sge;
	struct fx_sge sge[FX_MAX_SGE];

	if (fx_unlikely(wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->max_recv_sge))
		return -EINVAL;
	if (fx_unlikely(fx_shadow_full(&qp->rq)))
		return -ENOMEM;
	if (fx_unlikely(fx_bounces(qp->ctx)))
		n = fx_bounce_recv(qp, wr, sge);
	else if (n)
		memcpy(sge, wr->sg_list, n * sizeof(sge[0]));
	fx_shadow_push(&qp->rq, wr->wr_id, IBV_WC_RECV, true);
	if (fx_likely(fx_alive(qp->ctx)))
		fx_rq_put(&qp->ring, sge, n);
	return 0;
}

int flexins_post_recv(struct ibv_qp *ibqp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	struct fx_vqp *qp = fx_qp_of(ibqp);
	int err = 0;

	fx_lock(&qp->rq_lock);
	if (fx_unlikely(qp->state == IBV_QPS_RESET))
		err = -EINVAL;
	for (; wr && !err; wr = wr->next) {
		err = recv_one(qp, wr);
		if (fx_unlikely(err))
			break;
	}
	fx_unlock(&qp->rq_lock);
	if (fx_likely(!err))
		return 0;
	*bad_wr = wr;
	return fx_fail(err);
}
