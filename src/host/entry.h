/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A send request becomes an entry: what each operation takes, the checks, and the slots. Both ways of posting, lists of
 * ibv_post_send() (post.c) and batches of ibv_wr_*() (wr.c), go through these functions; inline, since posting is the
 * hot path.
 *
 * Room: host. May use: pipe/abi.h, bounce.h.
 */
#ifndef FX_HOST_ENTRY_H
#define FX_HOST_ENTRY_H

#include <string.h>

#include "host/bounce.h"

enum fx_op_flags {
	OP_KNOWN = 1 << 0,
	OP_DATA = 1 << 1,   /* gathers data: may be inline */
	OP_REMOTE = 1 << 2, /* names remote memory by wr.rdma */
	OP_IMM = 1 << 3,    /* carries imm_data or invalidate_rkey */
	OP_ATOMIC = 1 << 4,
	OP_READ = 1 << 5,
	OP_ABSENT = 1 << 6, /* of verbs, but not here yet */
	OP_BIND = 1 << 7,
	OP_WORD = 1 << 8, /* of eight bytes, whatever max_inline_data is */
};

struct fx_op {
	uint8_t wr;	/* enum fx_wr_op */
	uint8_t wc;	/* enum ibv_wc_opcode */
	uint16_t flags; /* enum fx_op_flags */
	uint16_t ops;	/* enum ibv_qp_create_send_ops_flags */
};
static const struct fx_op fx_ops[] = {
	[IBV_WR_RDMA_WRITE] = {FX_WR_WRITE, IBV_WC_RDMA_WRITE, OP_KNOWN | OP_DATA | OP_REMOTE,
			       IBV_QP_EX_WITH_RDMA_WRITE},
	[IBV_WR_RDMA_WRITE_WITH_IMM] = {FX_WR_WRITE_IMM, IBV_WC_RDMA_WRITE,
					OP_KNOWN | OP_DATA | OP_REMOTE | OP_IMM,
					IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM},
	[IBV_WR_SEND] = {FX_WR_SEND, IBV_WC_SEND, OP_KNOWN | OP_DATA, IBV_QP_EX_WITH_SEND},
	[IBV_WR_SEND_WITH_IMM] = {FX_WR_SEND_IMM, IBV_WC_SEND, OP_KNOWN | OP_DATA | OP_IMM,
				  IBV_QP_EX_WITH_SEND_WITH_IMM},
	[IBV_WR_RDMA_READ] = {FX_WR_READ, IBV_WC_RDMA_READ, OP_KNOWN | OP_READ | OP_REMOTE,
			      IBV_QP_EX_WITH_RDMA_READ},
	[IBV_WR_ATOMIC_CMP_AND_SWP] = {FX_WR_CMP_SWAP, IBV_WC_COMP_SWAP, OP_KNOWN | OP_ATOMIC,
				       IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP},
	[IBV_WR_ATOMIC_FETCH_AND_ADD] = {FX_WR_FETCH_ADD, IBV_WC_FETCH_ADD, OP_KNOWN | OP_ATOMIC,
					 IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD},
	[IBV_WR_LOCAL_INV] = {FX_WR_LOCAL_INV, IBV_WC_LOCAL_INV, OP_KNOWN | OP_IMM, IBV_QP_EX_WITH_LOCAL_INV},
	[IBV_WR_BIND_MW] = {FX_WR_BIND_MW, IBV_WC_BIND_MW, OP_KNOWN | OP_BIND, IBV_QP_EX_WITH_BIND_MW},
	[IBV_WR_SEND_WITH_INV] = {FX_WR_SEND_INV, IBV_WC_SEND, OP_KNOWN | OP_DATA | OP_IMM,
				  IBV_QP_EX_WITH_SEND_WITH_INV},
	[IBV_WR_TSO] = {0, IBV_WC_TSO, OP_ABSENT, 0},
	[IBV_WR_DRIVER1] = {0, IBV_WC_DRIVER1, OP_ABSENT, 0},
	[IBV_WR_ATOMIC_WRITE] = {FX_WR_ATOMIC_WRITE, IBV_WC_ATOMIC_WRITE,
				 OP_KNOWN | OP_DATA | OP_REMOTE | OP_WORD, IBV_QP_EX_WITH_ATOMIC_WRITE},
};

enum { FX_SEND_FLAGS = IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | IBV_SEND_INLINE };

static inline const struct fx_op *fx_op_of(enum ibv_wr_opcode opcode)
{
	static const struct fx_op unknown;

	return fx_likely((unsigned)opcode < sizeof(fx_ops) / sizeof(fx_ops[0])) ? &fx_ops[opcode] : &unknown;
}

/* ---- one entry ---- */

static inline void fx_put_bytes(uint8_t *slot, uint32_t at, const uint8_t *from, uint32_t len)
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
static inline uint32_t fx_put_inline(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
{
	uint32_t len = 0;

	for (int i = 0; i < wr->num_sge; i++) {
		const struct ibv_sge *s = &wr->sg_list[i];

		fx_put_bytes((uint8_t *)slot, len, (const uint8_t *)(uintptr_t)s->addr, s->length);
		len += s->length;
	}
	slot->rdma.inline_len = len;
	slot->nsge = 0;
	return len <= FX_SLOT_INLINE ? 1 : 1 + (len - FX_SLOT_INLINE + FX_EXT_DATA - 1) / FX_EXT_DATA;
}

static inline uint32_t fx_put_sges(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
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

static inline uint32_t fx_put_atomic(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
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
static inline uint32_t fx_put_bind(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
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
static inline void fx_put_datagram(const struct ibv_send_wr *wr, struct fx_sq_slot *slot)
{
	slot->ud.ah = wr->wr.ud.ah->handle;
	slot->ud.remote_qpn = wr->wr.ud.remote_qpn;
	slot->ud.qkey = wr->wr.ud.remote_qkey;
}

/* What is not said once for the connection; -> slots, `n` before. */
static inline uint32_t fx_put_target(const struct fx_vqp *qp, const struct ibv_send_wr *wr,
				     const struct fx_op *op, struct fx_sq_slot *slot, uint32_t n)
{
	if (qp->qp.qp_type == IBV_QPT_UD) {
		fx_put_datagram(wr, slot);
		return n;
	}
	if (!(op->flags & (OP_DATA | OP_READ | OP_ATOMIC)))
		return n;
	memset(&slot[n], 0, sizeof(slot[n]));
	memcpy(&slot[n], &wr->qp_type.xrc.remote_srqn, sizeof(uint32_t));
	return n + 1;
}

static inline bool fx_inline_fits(const struct fx_vqp *qp, const struct ibv_send_wr *wr)
{
	uint32_t room = qp->max_inline;

	for (int i = 0; i < wr->num_sge; i++) {
		if (wr->sg_list[i].length > room)
			return false;
		room -= wr->sg_list[i].length;
	}
	return true;
}

static inline bool fx_is_datagram(const struct fx_vqp *qp)
{
	return fx_unlikely(qp->qp.qp_type == IBV_QPT_UD);
}

/* 0, -EINVAL or -EOPNOTSUPP, by the request alone */
static inline int fx_check_send(const struct fx_vqp *qp, const struct ibv_send_wr *wr, const struct fx_op *op)
{
	if (!(op->flags & OP_KNOWN))
		return op->flags & OP_ABSENT ? -EOPNOTSUPP : -EINVAL;
	if (wr->send_flags & ~(unsigned)FX_SEND_FLAGS)
		return -EINVAL;
	if (wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->max_send_sge)
		return -EINVAL;
	if ((wr->send_flags & IBV_SEND_INLINE) &&
	    (!(op->flags & OP_DATA) || (!(op->flags & OP_WORD) && !fx_inline_fits(qp, wr))))
		return -EINVAL;
	if ((op->flags & OP_WORD) && (wr->num_sge != 1 || wr->sg_list[0].length != sizeof(uint64_t)))
		return -EINVAL;
	if ((op->flags & OP_ATOMIC) && wr->num_sge != 1)
		return -EINVAL;
	if ((op->flags & OP_BIND) &&
	    (!wr->bind_mw.mw || (!wr->bind_mw.bind_info.mr && wr->bind_mw.bind_info.length)))
		return -EINVAL;
	if (fx_is_datagram(qp) &&
	    (op->wc != IBV_WC_SEND || !wr->wr.ud.ah || wr->wr.ud.ah->context != qp->qp.context))
		return -EINVAL;
	return 0;
}

static inline uint8_t fx_wr_flags(const struct fx_vqp *qp, unsigned int f)
{
	return (uint8_t)((f & IBV_SEND_SIGNALED || qp->sig_all ? FX_WRF_SIGNALED : 0) |
			 (f & IBV_SEND_SOLICITED ? FX_WRF_SOLICITED : 0) |
			 (f & IBV_SEND_FENCE ? FX_WRF_FENCE : 0) | (f & IBV_SEND_INLINE ? FX_WRF_INLINE : 0));
}

/* Writes the entry of a checked request, the queue's number `index`, into slot[FX_MAX_SQ_SLOTS] */
static inline void fx_entry_build(const struct fx_vqp *qp, const struct ibv_send_wr *wr,
				  const struct fx_op *op, uint32_t index, struct fx_sq_slot *slot)
{
	uint32_t n = 1; /* LOCAL_INV: no data */

	memset(&slot[0], 0, sizeof(slot[0]));
	if (wr->num_sge > 1 || (wr->send_flags & IBV_SEND_INLINE) || (op->flags & OP_ATOMIC))
		memset(&slot[1], 0, (FX_MAX_SQ_SLOTS - 1) * sizeof(slot[0]));
	slot->opcode = op->wr;
	slot->flags = fx_wr_flags(qp, wr->send_flags);
	slot->qpn_gen = qp->qpn_gen;
	slot->index = index;
	if (op->flags & OP_IMM)
		slot->imm = wr->imm_data;
	if (op->flags & OP_REMOTE) {
		slot->rdma.remote_addr = wr->wr.rdma.remote_addr;
		slot->rdma.rkey = wr->wr.rdma.rkey;
	}
	if (op->flags & OP_ATOMIC)
		n = fx_put_atomic(wr, slot);
	else if (op->flags & OP_BIND)
		n = fx_put_bind(wr, slot);
	else if (wr->send_flags & IBV_SEND_INLINE)
		n = fx_put_inline(wr, slot);
	else if (op->flags & (OP_DATA | OP_READ))
		n = fx_put_sges(wr, slot);
	if (fx_unlikely(qp->qp.qp_type > IBV_QPT_UC))
		n = fx_put_target(qp, wr, op, slot, n);
	slot->nslots = (uint8_t)n;
}

/* Slow memory, if there is any: what goes to the core instead of request number `index`. 0 or -ENOMEM */
static inline int fx_entry_detour(struct fx_vqp *qp, const struct fx_op *op, uint32_t index,
				  const struct ibv_send_wr **wr, struct fx_detour *d)
{
	if (op->flags & OP_DATA)
		return fx_bounce_source(qp, index, wr, d);
	if (op->flags & (OP_READ | OP_ATOMIC))
		fx_bounce_landing(qp, index, wr, op->flags & OP_ATOMIC, d);
	return 0;
}

static inline bool fx_may_send(uint32_t state)
{
	return state == IBV_QPS_RTS || state == IBV_QPS_SQD || state == IBV_QPS_SQE || state == IBV_QPS_ERR;
}

#endif
