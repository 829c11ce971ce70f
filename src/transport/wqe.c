/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Send work requests: from pipe entries into per-QP chunks of WQEs.
 *
 * Room: transport. The worker drains every pipe into here (guarantee P2), so a QP that stalls keeps nobody else's
 * entries waiting. Chunks come from a per-worker free list; the queue's cap bounds how many a QP can hold.
 */
#include <stdlib.h>

#include "transport/qp.h"

enum { FX_SLAB = 64 }; /* chunks taken from the system at a time; given back when the transport ends */

struct fx_slab {
	struct fx_slab *next;
	struct fx_chunk *chunk;
};

static bool slab_add(struct fx_tp *tp)
{
	struct fx_slab *slab = malloc(sizeof(*slab));
	struct fx_chunk *c = aligned_alloc(FX_CHUNK_SIZE, (size_t)FX_SLAB * FX_CHUNK_SIZE);

	if (!slab || !c) {
		free(slab);
		free(c);
		return false;
	}
	*slab = (struct fx_slab){.next = tp->slabs, .chunk = c};
	tp->slabs = slab;
	tp->memory += (uint64_t)FX_SLAB * FX_CHUNK_SIZE;
	for (int i = FX_SLAB - 1; i >= 0; i--) {
		c[i].next = tp->chunks;
		tp->chunks = &c[i];
	}
	return true;
}

void fx_wqe_free_slabs(struct fx_tp *tp)
{
	while (tp->slabs) {
		struct fx_slab *slab = tp->slabs;

		tp->slabs = slab->next;
		free(slab->chunk);
		free(slab);
	}
	tp->chunks = NULL;
}

static struct fx_chunk *chunk_get(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_chunk *c;

	if (!tp->chunks && !slab_add(tp))
		return NULL;
	c = tp->chunks;
	tp->chunks = c->next;
	c->next = NULL;
	c->qp = qp;
	c->used = 0;
	c->refs = 0;
	c->retired = false;
	return c;
}

static void chunk_put(struct fx_tp *tp, struct fx_chunk *c)
{
	c->qp = NULL;
	c->next = tp->chunks;
	tp->chunks = c;
}

/* The queue has passed it; segments still in the transmit queue keep it a little longer. */
static void chunk_retire(struct fx_tp *tp, struct fx_chunk *c)
{
	if (c->refs)
		c->retired = true;
	else
		chunk_put(tp, c);
}

struct fx_wqe *fx_wqe_at(struct fx_cursor *cur)
{
	if (cur->i >= cur->c->used) {
		cur->c = cur->c->next;
		cur->i = 0;
	}
	return (struct fx_wqe *)cur->c->slot[cur->i];
}

void fx_cursor_next(struct fx_cursor *cur)
{
	cur->i += fx_wqe_at(cur)->nslots;
	cur->index++;
}

void fx_wqe_stop(struct fx_qp *qp, struct fx_cursor from)
{
	while (from.index != qp->post_index) {
		struct fx_wqe *w = fx_wqe_at(&from);

		if (!w->status)
			w->status = FX_WC_WR_FLUSH_ERR;
		fx_cursor_next(&from);
	}
	qp->ack = qp->cur = from;
	qp->cut_off = qp->cut_sge = qp->cut_sge_off = 0;
}

void fx_wqe_retire(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_chunk *c;

	fx_cursor_next(&qp->una);
	/* a flush overtakes the other cursors */
	if ((int32_t)(qp->ack.index - qp->una.index) < 0)
		qp->ack = qp->una;
	if ((int32_t)(qp->cur.index - qp->una.index) < 0)
		qp->cur = qp->una;
	while (qp->head != qp->una.c) {
		c = qp->head;
		qp->head = c->next;
		chunk_retire(tp, c);
	}
	/* an empty queue starts over at the same, warm chunk */
	c = qp->una.c;
	if (qp->una.index == qp->post_index && c->refs == 0 && qp->una.i == c->used) {
		c->used = 0;
		qp->una.i = qp->ack.i = qp->cur.i = 0;
	}
}

void fx_wqe_drop_all(struct fx_tp *tp, struct fx_qp *qp, uint32_t index)
{
	for (struct fx_chunk *c = qp->head; c;) {
		struct fx_chunk *next = c->next;

		chunk_retire(tp, c);
		c = next;
	}
	qp->head = qp->tail = NULL;
	qp->una = qp->ack = qp->cur = (struct fx_cursor){.index = index};
	qp->post_index = index;
	qp->cut_off = qp->cut_sge = qp->cut_sge_off = 0;
}

/* A request's last segment: its completion may have waited for this, and where nobody acknowledges the next packet. */
static void awaited(struct fx_tp *tp, struct fx_qp *qp)
{
	fx_touch(tp, qp);
	if (!qp->acks)
		fx_completer_left(tp, qp);
}

void fx_tp_seg_done(struct fx_tp *tp, struct fx_wqe *w, struct fx_mw *mw)
{
	struct fx_chunk *c;
	struct fx_qp *qp;

	if (mw)
		mw->held--;
	if (!w)
		return;
	/* chunks are aligned to their size, so a WQE finds its own */
	c = (struct fx_chunk *)((uintptr_t)w & ~(uintptr_t)(FX_CHUNK_SIZE - 1));
	qp = c->qp;
	qp->refs--;
	w->refs--;
	if (--c->refs == 0 && c->retired)
		chunk_put(tp, c);
	else if (w->refs == 0 && qp->una.index != qp->post_index && (w->again || qp->state == FX_QPS_ERR))
		awaited(tp, qp);
}

/* Room for a WQE of `nslots` at the end of the queue, or NULL. */
static struct fx_wqe *wqe_append(struct fx_tp *tp, struct fx_qp *qp, uint32_t nslots)
{
	struct fx_chunk *c = qp->tail;
	struct fx_wqe *w;

	if (!c || c->used + nslots > FX_CHUNK_SLOTS) {
		c = chunk_get(tp, qp);
		if (!c)
			return NULL;
		if (qp->tail)
			qp->tail->next = c;
		else
			qp->head = qp->una.c = qp->ack.c = qp->cur.c = c;
		qp->tail = c;
	}
	w = (struct fx_wqe *)c->slot[c->used];
	c->used = (uint16_t)(c->used + nslots);
	w->nslots = (uint8_t)nslots;
	return w;
}

enum {
	RC = 1 << FX_QPT_RC | 1 << FX_QPT_XRC_SEND,
	UC = 1 << FX_QPT_UC,
	UD = 1 << FX_QPT_UD,
};

/* What a send opcode may be used for, and how its entry looks. */
static const struct {
	uint16_t types; /* bit per enum fx_qp_type */
	bool remote;	/* has a remote address */
	bool source;	/* gathers local data (else it lands there) */
	bool atomic;	/* one SGE, and operands in the second slot */
	bool word;	/* of FX_ATOMIC_LEN bytes, inline always allowed */
} wr_ops[FX_WR_OPS] = {
	[FX_WR_SEND] = {RC | UC | UD, false, true, false, false},
	[FX_WR_SEND_IMM] = {RC | UC | UD, false, true, false, false},
	[FX_WR_SEND_INV] = {RC, false, true, false, false},
	[FX_WR_WRITE] = {RC | UC, true, true, false, false},
	[FX_WR_WRITE_IMM] = {RC | UC, true, true, false, false},
	[FX_WR_READ] = {RC, true, false, false, false},
	[FX_WR_CMP_SWAP] = {RC, true, false, true, false},
	[FX_WR_FETCH_ADD] = {RC, true, false, true, false},
	[FX_WR_ATOMIC_WRITE] = {RC, true, true, false, true},
	[FX_WR_LOCAL_INV] = {RC | UC, false, false, false, false},
	[FX_WR_BIND_MW] = {RC | UC, false, false, false, false},
};

/* Of XRC, whatever is sent: the one that names the peer's SRQ. */
static uint32_t srqn_slots(const struct fx_qp *qp, const struct fx_sq_slot *e)
{
	return qp->xrceth && (wr_ops[e->opcode].remote || wr_ops[e->opcode].source);
}

/* Entry slots that its SGEs or inline bytes need. */
static uint32_t entry_slots(const struct fx_sq_slot *e)
{
	if (e->flags & FX_WRF_INLINE) {
		uint32_t n = e->rdma.inline_len;

		return n <= FX_SLOT_INLINE ? 1 : 1 + (n - FX_SLOT_INLINE + FX_EXT_DATA - 1) / FX_EXT_DATA;
	}
	if (wr_ops[e->opcode].atomic)
		return 2;
	return e->nsge <= 1 ? 1u : 1u + (e->nsge - 1u + FX_EXT_SGES - 1) / FX_EXT_SGES;
}

/* 0, or the status that the work request fails with. */
static uint8_t entry_check(const struct fx_qp *qp, const struct fx_sq_slot *e)
{
	if (e->opcode >= FX_WR_OPS || !(wr_ops[e->opcode].types & 1u << qp->type))
		return FX_WC_LOC_QP_OP_ERR;
	if (e->flags & FX_WRF_INLINE) {
		if (e->rdma.inline_len > (wr_ops[e->opcode].word ? FX_ATOMIC_LEN : qp->cfg.max_inline) ||
		    e->rdma.inline_len > FX_MAX_INLINE || !wr_ops[e->opcode].source)
			return FX_WC_LOC_QP_OP_ERR;
	} else if (e->nsge > qp->cfg.max_send_sge || e->nsge > FX_MAX_SGE ||
		   (wr_ops[e->opcode].atomic && e->nsge != 1)) {
		return FX_WC_LOC_QP_OP_ERR;
	} else if (e->nsge && !wr_ops[e->opcode].remote && !wr_ops[e->opcode].source) {
		return FX_WC_LOC_QP_OP_ERR; /* it has no data */
	}
	return entry_slots(e) + srqn_slots(qp, e) == e->nslots ? 0 : FX_WC_LOC_QP_OP_ERR;
}

static void copy_inline(struct fx_wqe *w, const struct fx_sq_slot *e)
{
	const struct fx_ext_slot *x = (const struct fx_ext_slot *)(e + 1);
	uint32_t left = e->rdma.inline_len, n = left < FX_SLOT_INLINE ? left : FX_SLOT_INLINE;
	uint8_t *to = fx_wqe_inline(w);

	memcpy(to, &e->sge, n);
	for (to += n, left -= n; left; to += n, left -= n, x++) {
		n = left < FX_EXT_DATA ? left : FX_EXT_DATA;
		memcpy(to, x->data, n);
	}
	w->length = e->rdma.inline_len;
}

/* Returns the status of a message longer than may be. */
static uint8_t copy_sges(struct fx_wqe *w, const struct fx_sq_slot *e)
{
	const struct fx_ext_slot *x = (const struct fx_ext_slot *)(e + 1);
	uint64_t length = 0;

	if (e->nsge)
		memcpy(&w->sge[0], &e->sge, sizeof(e->sge));
	for (uint32_t i = 1; i < e->nsge; i++)
		memcpy(&w->sge[0] + i,
		       x[(i - 1) / FX_EXT_SGES].data + (i - 1) % FX_EXT_SGES * sizeof(struct fx_sge),
		       sizeof(struct fx_sge));
	for (uint32_t i = 0; i < e->nsge; i++)
		length += (&w->sge[0])[i].length;
	w->length = (uint32_t)length;
	w->nsge = e->nsge;
	return length > FX_MAX_MSG ? FX_WC_LOC_LEN_ERR : 0;
}

/* Whether the result has room is seen with the SGE's rights, when it is cut. */
static void copy_atomic(struct fx_wqe *w, const struct fx_sq_slot *e)
{
	memcpy(&w->sge[0], &e->sge, sizeof(e->sge));
	memcpy((uint8_t *)w + sizeof(*w), e + 1, 2 * sizeof(uint64_t));
	w->nsge = 1;
	w->length = FX_ATOMIC_LEN;
}

/* Slots in the queue: inline bytes, SGEs and operands follow the fixed part. */
static uint32_t wqe_slots(const struct fx_sq_slot *e, uint8_t status)
{
	size_t bytes = offsetof(struct fx_wqe, sge) + e->nsge * sizeof(struct fx_sge);

	if (status)
		return 1;
	if (e->flags & FX_WRF_INLINE)
		bytes = offsetof(struct fx_wqe, sge) + e->rdma.inline_len;
	else if (wr_ops[e->opcode].atomic)
		bytes += 2 * sizeof(uint64_t);
	return (uint32_t)(bytes + FX_LINE - 1) / FX_LINE;
}

/* The first bytes of the last slot: of XRC they are an SRQ's number, else nobody asks for it. */
static uint32_t last_word(const struct fx_sq_slot *e)
{
	uint32_t word;

	memcpy(&word, e + e->nslots - 1, sizeof(word));
	return word & FX_PSN_MASK;
}

static void wqe_fill(struct fx_qp *qp, struct fx_wqe *w, const struct fx_sq_slot *e, uint8_t status)
{
	w->op = e->opcode;
	w->flags = (uint8_t)(e->flags | (qp->cfg.sq_sig_all ? FX_WRF_SIGNALED : 0));
	w->nsge = 0;
	w->index = e->index;
	w->length = 0;
	w->npkt = 0;
	w->psn = FX_PSN_NONE;
	w->refs = 0;
	w->again = !qp->acks;
	w->imm = e->imm;
	w->rkey = e->rdma.rkey;
	w->raddr = e->rdma.remote_addr;
	w->placed = 0;
	w->syndrome = 0;
	w->status = status;
	if (status)
		return;
	w->srqn = last_word(e);
	if (e->flags & FX_WRF_INLINE)
		copy_inline(w, e);
	else if (wr_ops[e->opcode].atomic)
		copy_atomic(w, e);
	else
		w->status = copy_sges(w, e);
	if (wr_ops[e->opcode].word && w->length != FX_ATOMIC_LEN)
		w->status = FX_WC_LOC_LEN_ERR;
	if (e->opcode == FX_WR_BIND_MW)
		memcpy(&w->bind, &e->sge, sizeof(w->bind));
	else if (!w->status && !fx_wqe_local(w))
		w->npkt = fx_packets(qp, w->length);
}

static struct fx_qp *entry_qp(struct fx_tp *tp, uint32_t ctx, const struct fx_sq_slot *e)
{
	uint32_t qpn = e->qpn_gen & FX_PSN_MASK, i = qpn >> FX_WORKER_BITS;
	struct fx_qp *qp = i < tp->cfg.max_qps ? tp->qps[i] : NULL;

	if (!qp || qp->qpn != qpn || qp->cfg.ctx != ctx) {
		tp->n.wqe_bad++;
		return NULL;
	}
	if (qp->gen != (uint8_t)(e->qpn_gen >> FX_QPN_BITS)) {
		tp->n.wqe_stale++;
		return NULL;
	}
	return qp;
}

void fx_post_soon(const struct fx_tp *tp, uint32_t qpn_gen)
{
	uint32_t i = (qpn_gen & FX_PSN_MASK) >> FX_WORKER_BITS;

	if (i < tp->cfg.max_qps && tp->qps[i])
		fx_qp_soon(tp->qps[i]);
}

void fx_post(struct fx_tp *tp, uint32_t ctx, const struct fx_sq_slot *e)
{
	struct fx_qp *qp = entry_qp(tp, ctx, e);
	uint8_t status;
	struct fx_wqe *w;

	if (!qp)
		return;
	if (e->index != qp->post_index || qp->state < FX_QPS_RTS) {
		tp->n.wqe_bad++;
		fx_qp_error(tp, qp, FX_CAUSE_OUT_OF_ORDER);
		return;
	}
	if (qp->post_index - qp->una.index >= qp->cfg.max_send_wr) {
		tp->n.wqe_overrun++;
		fx_qp_error(tp, qp, FX_CAUSE_TOO_MANY);
		return;
	}
	status = entry_check(qp, e);
	if (status)
		tp->n.wqe_bad++;
	w = wqe_append(tp, qp, wqe_slots(e, status));
	if (!w) {
		tp->n.wqe_bad++;
		fx_qp_error(tp, qp, FX_CAUSE_NO_MEMORY);
		return;
	}
	wqe_fill(qp, w, e, status);
	qp->post_index++;
	tp->n.wqe++;
	if (qp->state < FX_QPS_SQE) {
		fx_run(tp, qp);
		return;
	}
	if (qp->state == FX_QPS_SQE)
		fx_wqe_stop(qp, qp->cur);
	fx_touch(tp, qp);
}
