/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Batches of ibv_wr_*(): requests are prepared one after the other and posted all together, or none of them.
 *
 * Room: host, its hot path. May use: entry.h, post.c. A request is noted as ibv_post_send() takes it, and becomes an entry
 * when the next one begins: its setters may come in any order, and what they point at is free when they return. The
 * entries lie here until the batch completes. The send queue's lock is held from start to end, no other; no allocation.
 */
#include <stdlib.h>

#include "host/entry.h"
#include "host/wr.h"

struct fx_batch {
	uint64_t ops;	    /* enum ibv_qp_create_send_ops_flags: what the QP was created for */
	uint32_t n, nslots; /* requests that are ready */
	uint32_t fetch_end; /* the QP's, before them */
	int err;	    /* the first, negative: nothing of the batch is posted */
	bool begun;	    /* `wr` is not ready yet */
	struct ibv_send_wr wr;
	struct ibv_sge sge[FX_MAX_SGE];
	uint8_t data[FX_MAX_INLINE];
	struct fx_detour detour;
	struct fx_sq_slot
		slot[]; /* as many as the queue's requests can have, and what a builder clears beyond */
};

enum { WR_FLAGS = IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED };

static inline struct fx_vqp *qp_of(struct ibv_qp_ex *ex)
{
	return fx_container(ex, struct fx_vqp, ex);
}

static void spoil(struct fx_batch *b, int err)
{
	if (!b->err)
		b->err = err;
}

/* ---- one request ---- */

static int add(struct fx_vqp *qp, struct fx_batch *b)
{
	const struct fx_op *op = fx_op_of(b->wr.opcode);
	struct fx_sq_slot *slot = &b->slot[b->nslots];
	const struct ibv_send_wr *wr = &b->wr;
	uint32_t index = qp->sq.head + b->n;
	int err = fx_check_send(qp, wr, op);

	if (!err && !fx_shadow_fits(&qp->sq, index))
		err = -ENOMEM;
	if (!err && fx_unlikely(fx_bounces(qp->ctx)))
		err = fx_entry_detour(qp, op, index, &wr, &b->detour);
	if (err)
		return err;
	fx_entry_build(qp, wr, op, index, slot);
	fx_shadow_note(&qp->sq, index, wr->wr_id, op->wc, slot->flags & FX_WRF_SIGNALED);
	b->nslots += slot->nslots;
	b->n++;
	return 0;
}

/* No setter comes any more for what was begun. */
static void finish(struct fx_vqp *qp, struct fx_batch *b)
{
	if (b->begun && !b->err)
		b->err = add(qp, b);
	b->begun = false;
}

static struct ibv_send_wr *begin(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode)
{
	struct fx_vqp *qp = qp_of(ex);
	struct fx_batch *b = qp->batch;

	finish(qp, b);
	if (fx_unlikely(!(b->ops & fx_op_of(opcode)->ops)))
		spoil(b, -EOPNOTSUPP);
	/* IBV_SEND_INLINE is not the caller's: it depends on the setter */
	b->wr = (struct ibv_send_wr){.wr_id = ex->wr_id,
				     .sg_list = b->sge,
				     .opcode = opcode,
				     .send_flags = ex->wr_flags & ~(unsigned)IBV_SEND_INLINE};
	b->begun = true;
	return &b->wr;
}

static void begin_rdma(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t remote_addr,
		       __be32 imm)
{
	struct ibv_send_wr *wr = begin(ex, opcode);

	wr->imm_data = imm;
	wr->wr.rdma.remote_addr = remote_addr;
	wr->wr.rdma.rkey = rkey;
}

static void begin_atomic(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t remote_addr,
			 uint64_t compare_add, uint64_t swap)
{
	struct ibv_send_wr *wr = begin(ex, opcode);

	wr->wr.atomic.remote_addr = remote_addr;
	wr->wr.atomic.rkey = rkey;
	wr->wr.atomic.compare_add = compare_add;
	wr->wr.atomic.swap = swap;
}

/* ---- builders ---- */

static void wr_send(struct ibv_qp_ex *ex)
{
	begin(ex, IBV_WR_SEND);
}
static void wr_send_imm(struct ibv_qp_ex *ex, __be32 imm_data)
{
	begin(ex, IBV_WR_SEND_WITH_IMM)->imm_data = imm_data;
}
static void wr_send_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
	begin(ex, IBV_WR_SEND_WITH_INV)->invalidate_rkey = rkey;
}
static void wr_send_tso(struct ibv_qp_ex *ex, void *hdr, uint16_t hdr_sz, uint16_t mss)
{
	(void)hdr;
	(void)hdr_sz;
	(void)mss;
	begin(ex, IBV_WR_TSO); /* which no QP is created for */
}
static void wr_rdma_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr)
{
	begin_rdma(ex, IBV_WR_RDMA_WRITE, rkey, remote_addr, 0);
}
static void wr_rdma_write_imm(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, __be32 imm_data)
{
	begin_rdma(ex, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, remote_addr, imm_data);
}
static void wr_rdma_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr)
{
	begin_rdma(ex, IBV_WR_RDMA_READ, rkey, remote_addr, 0);
}
static void wr_cmp_swp(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, uint64_t compare,
		       uint64_t swap)
{
	begin_atomic(ex, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, remote_addr, compare, swap);
}
static void wr_fetch_add(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, uint64_t add_to)
{
	begin_atomic(ex, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, remote_addr, add_to, 0);
}
static void wr_atomic_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, const void *word)
{
	struct fx_batch *b = qp_of(ex)->batch;

	begin_rdma(ex, IBV_WR_ATOMIC_WRITE, rkey, remote_addr, 0);
	memcpy(b->data, word, sizeof(uint64_t));
	b->sge[0] = (struct ibv_sge){.addr = (uintptr_t)b->data, .length = sizeof(uint64_t)};
	b->wr.num_sge = 1;
	b->wr.send_flags |= IBV_SEND_INLINE;
}
static void wr_local_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
	begin(ex, IBV_WR_LOCAL_INV)->invalidate_rkey = rkey;
}
static void wr_bind_mw(struct ibv_qp_ex *ex, struct ibv_mw *mw, uint32_t rkey,
		       const struct ibv_mw_bind_info *info)
{
	struct ibv_send_wr *wr = begin(ex, IBV_WR_BIND_MW);

	wr->bind_mw.mw = mw;
	wr->bind_mw.rkey = rkey;
	wr->bind_mw.bind_info = *info;
}

/* ---- setters: of the request that was begun last ---- */

/* NULL: there is none. */
static struct fx_batch *setter(struct ibv_qp_ex *ex)
{
	struct fx_batch *b = qp_of(ex)->batch;

	if (fx_likely(b->begun))
		return b;
	spoil(b, -EINVAL);
	return NULL;
}

static void set_sge_list(struct ibv_qp_ex *ex, size_t num_sge, const struct ibv_sge *sg_list)
{
	struct fx_batch *b = setter(ex);

	if (!b)
		return;
	if (fx_unlikely(num_sge > FX_MAX_SGE)) {
		spoil(b, -EINVAL);
		return;
	}
	for (size_t i = 0; i < num_sge; i++)
		b->sge[i] = sg_list[i];
	b->wr.num_sge = (int)num_sge;
	b->wr.send_flags &= ~(unsigned)IBV_SEND_INLINE;
}

static void set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length)
{
	const struct ibv_sge sge = {.addr = addr, .length = length, .lkey = lkey};

	set_sge_list(ex, 1, &sge);
}

/* One SGE, whatever the QP's limit: inline data has none of its own. */
static void set_inline_data_list(struct ibv_qp_ex *ex, size_t num_buf, const struct ibv_data_buf *list)
{
	struct fx_batch *b = setter(ex);
	size_t len = 0;

	if (!b)
		return;
	for (size_t i = 0; i < num_buf; i++) {
		if (fx_unlikely(list[i].length > sizeof(b->data) - len)) {
			spoil(b, -EINVAL);
			return;
		}
		if (list[i].length)
			memcpy(b->data + len, list[i].addr, list[i].length);
		len += list[i].length;
	}
	b->sge[0] = (struct ibv_sge){.addr = (uintptr_t)b->data, .length = (uint32_t)len};
	b->wr.num_sge = 1;
	b->wr.send_flags |= IBV_SEND_INLINE;
}

static void set_inline_data(struct ibv_qp_ex *ex, void *addr, size_t length)
{
	const struct ibv_data_buf buf = {.addr = addr, .length = length};

	set_inline_data_list(ex, 1, &buf);
}

static void set_ud_addr(struct ibv_qp_ex *ex, struct ibv_ah *ah, uint32_t remote_qpn, uint32_t remote_qkey)
{
	struct fx_batch *b = setter(ex);

	if (!b)
		return;
	if (fx_unlikely(ex->qp_base.qp_type != IBV_QPT_UD)) {
		spoil(b, -EINVAL);
		return;
	}
	b->wr.wr.ud.ah = ah;
	b->wr.wr.ud.remote_qpn = remote_qpn;
	b->wr.wr.ud.remote_qkey = remote_qkey;
}

static void set_xrc_srqn(struct ibv_qp_ex *ex, uint32_t remote_srqn)
{
	struct fx_batch *b = setter(ex);

	if (b)
		b->wr.qp_type.xrc.remote_srqn = remote_srqn;
}

/* ---- batches ---- */

static void wr_start(struct ibv_qp_ex *ex)
{
	struct fx_vqp *qp = qp_of(ex);
	struct fx_batch *b = qp->batch;

	fx_queue_lock(qp, &qp->sq_lock);
	b->n = b->nslots = 0;
	b->fetch_end = qp->fetch_end;
	b->begun = false;
	b->err = fx_may_send(qp->state) ? 0 : -EINVAL;
}

/* Nothing of it was posted: what was prepared is as before. */
static void undo(struct fx_vqp *qp, struct fx_batch *b)
{
	fx_bounce_cancel(qp, qp->sq.head + b->n);
	qp->fetch_end = b->fetch_end;
	fx_queue_unlock(qp, &qp->sq_lock);
}

static int wr_complete(struct ibv_qp_ex *ex)
{
	struct fx_vqp *qp = qp_of(ex);
	struct fx_batch *b = qp->batch;
	int err;

	finish(qp, b);
	err = b->err;
	if (fx_unlikely(err)) {
		undo(qp, b);
		return fx_fail(err);
	}
	fx_shadow_post(&qp->sq, qp->sq.head + b->n);
	fx_pipe_send(qp->ctx, qp->pipe, b->slot, b->nslots);
	fx_queue_unlock(qp, &qp->sq_lock);
	return 0;
}

static void wr_abort(struct ibv_qp_ex *ex)
{
	struct fx_vqp *qp = qp_of(ex);

	undo(qp, qp->batch);
}

/* ---- life ---- */

static uint32_t slots_for(uint32_t beyond, uint32_t each)
{
	return 1 + (beyond + each - 1) / each;
}

/* Of the longest request that may be posted; an atomic has two, and one of XRC another for the peer's SRQ. */
static uint32_t longest(const struct fx_vqp *qp)
{
	struct ibv_qp_cap room = fx_qp_room(qp);
	uint32_t n = room.max_send_sge > 1 ? slots_for(room.max_send_sge - 1, FX_EXT_SGES) : 1;
	uint32_t by_data = room.max_inline_data > FX_SLOT_INLINE
				   ? slots_for(room.max_inline_data - FX_SLOT_INLINE, FX_EXT_DATA)
				   : 1;

	n = n > by_data ? n : by_data;
	return (n > 2 ? n : 2) + (qp->qp.qp_type == IBV_QPT_XRC_SEND);
}

bool fx_batch_ops_ok(enum ibv_qp_type type, uint64_t ops)
{
	const uint64_t sends = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
	const uint64_t writes = IBV_QP_EX_WITH_SEND_WITH_INV | IBV_QP_EX_WITH_RDMA_WRITE |
				IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_LOCAL_INV |
				IBV_QP_EX_WITH_BIND_MW;
	const uint64_t reads = IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
			       IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_ATOMIC_WRITE;
	uint64_t known = sends;

	if (type != IBV_QPT_UD)
		known |= writes;
	if (type != IBV_QPT_UD && type != IBV_QPT_UC)
		known |= reads;
	return !(ops & ~known);
}

int fx_batch_make(struct fx_vqp *qp, uint64_t ops)
{
	size_t slots = (size_t)qp->sq.cap * longest(qp) + FX_MAX_SQ_SLOTS;

	qp->batch = malloc(sizeof(*qp->batch) + slots * sizeof(struct fx_sq_slot));
	if (!qp->batch)
		return -ENOMEM;
	qp->batch->ops = ops;
	qp->ex.wr_start = wr_start;
	qp->ex.wr_complete = wr_complete;
	qp->ex.wr_abort = wr_abort;
	qp->ex.wr_send = wr_send;
	qp->ex.wr_send_imm = wr_send_imm;
	qp->ex.wr_send_inv = wr_send_inv;
	qp->ex.wr_send_tso = wr_send_tso;
	qp->ex.wr_rdma_write = wr_rdma_write;
	qp->ex.wr_rdma_write_imm = wr_rdma_write_imm;
	qp->ex.wr_rdma_read = wr_rdma_read;
	qp->ex.wr_atomic_cmp_swp = wr_cmp_swp;
	qp->ex.wr_atomic_fetch_add = wr_fetch_add;
	qp->ex.wr_atomic_write = wr_atomic_write;
	qp->ex.wr_local_inv = wr_local_inv;
	qp->ex.wr_bind_mw = wr_bind_mw;
	qp->ex.wr_set_sge = set_sge;
	qp->ex.wr_set_sge_list = set_sge_list;
	qp->ex.wr_set_inline_data = set_inline_data;
	qp->ex.wr_set_inline_data_list = set_inline_data_list;
	qp->ex.wr_set_ud_addr = set_ud_addr;
	qp->ex.wr_set_xrc_srqn = set_xrc_srqn;
	return 0;
}

struct ibv_qp_ex *flexins_qp_to_qp_ex(struct ibv_qp *ibqp)
{
	struct fx_vqp *qp = fx_qp_of(ibqp);

	return qp->batch ? &qp->ex : NULL;
}
