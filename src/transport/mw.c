/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory windows: bound, invalidated, and what a peer may reach through them (IBTA 10.6.6, 10.6.7).
 *
 * Room: transport. A window changes at once, for every packet that is looked at from then on; the request that changed
 * it completes when nothing under way was let through before (guarantees O1, L2). A type 2 window belongs to the QP that
 * it was bound with, in that QP's present life: a QP that was reset or destroyed has given its windows back.
 */
#include "transport/qp.h"

enum {
	REMOTE = FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC,
	CHANGES = FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_ATOMIC,
};

/* ---- bound or not ---- */

/* Is the QP that a window names there, in the same life? Another worker's is taken to be. */
static bool lives(const struct fx_tp *tp, uint32_t qpn_gen)
{
	uint32_t qpn = qpn_gen & FX_PSN_MASK, i = qpn >> FX_WORKER_BITS;

	if ((qpn & ((1u << FX_WORKER_BITS) - 1)) != tp->cfg.worker)
		return true;
	return i < tp->cfg.max_qps && tp->qps[i] && fx_qpn_gen(tp->qps[i]->qpn, tp->qps[i]->gen) == qpn_gen;
}

static void unbind(struct fx_tp *tp, struct fx_mw *mw)
{
	struct fx_mr *mr = mw->length ? fx_mr_get(tp->cfg.mrs, mw->lkey) : NULL;

	/* relaxed: who deregisters after a completion has it in order by the rings in between */
	if (mr)
		atomic_fetch_sub_explicit(&mr->windows, 1, memory_order_relaxed);
	mw->length = 0;
}

bool fx_mw_held(const struct fx_tp *tp, uint32_t key)
{
	const struct fx_mw *mw = fx_mw_get(tp->cfg.mrs, key);

	return mw && mw->held;
}

/* The window that this key makes valid for the QP and that may be invalidated, or NULL: type 1 may not (10.6.7.2). */
static struct fx_mw *revocable(const struct fx_tp *tp, const struct fx_qp *qp, uint32_t key)
{
	struct fx_mw *mw = fx_mw_get(tp->cfg.mrs, key);

	if (!mw || mw->key != key || mw->pd != qp->pd || mw->type != FX_MW_TYPE_2 || !mw->length)
		return NULL;
	return mw->qpn_gen == fx_qpn_gen(qp->qpn, qp->gen) ? mw : NULL;
}

bool fx_mw_revocation_waits(const struct fx_tp *tp, const struct fx_qp *qp, uint32_t key)
{
	const struct fx_mw *mw = revocable(tp, qp, key);

	return mw && mw->held;
}

bool fx_mw_revoke(struct fx_tp *tp, struct fx_qp *qp, uint32_t key)
{
	struct fx_mw *mw = revocable(tp, qp, key);

	if (mw)
		unbind(tp, mw);
	return mw != NULL;
}

/* ---- what peers reach ---- */

bool fx_mw_at(struct fx_tp *tp, struct fx_qp *qp, uint32_t pd, uint32_t rkey, uint64_t va, uint32_t len,
	      uint32_t access, struct fx_spot *at)
{
	struct fx_mw *mw = fx_mw_get(tp->cfg.mrs, rkey);
	struct fx_mr *mr;

	if (!mw || mw->key != rkey || mw->pd != pd || !(mw->access & qp->access & access))
		return false;
	if (mw->type == FX_MW_TYPE_2 && mw->qpn_gen != fx_qpn_gen(qp->qpn, qp->gen))
		return false;
	if (!mw->length || va < mw->first || len > mw->length || va - mw->first > mw->length - len)
		return false;
	/* the region by its key: it may be gone since, and another in its place */
	mr = fx_mr_get(tp->cfg.mrs, mw->lkey);
	*at = (struct fx_spot){.mr = mr, .va = mw->base + (va - mw->first), .mw = mw};
	return mr && mr->pd == mw->pd && mr->access & FX_ACC_MW_BIND && fx_mr_covers(mr, at->va, len);
}

/* ---- work requests ---- */

static uint8_t refuse(struct fx_tp *tp)
{
	tp->n.mw_errors++;
	return FX_WC_MW_BIND_ERR;
}

/*
 * May the window be bound now, with this key and these rights, or unbound? The right to write locally is the region's
 * to give; that a program names it here as well is nothing to complain of.
 */
static bool may_bind(const struct fx_tp *tp, const struct fx_qp *qp, const struct fx_mw *mw,
		     const struct fx_wqe *w)
{
	if (mw->pd != qp->pd || (w->rkey ^ mw->key) & ~FX_KEY_TAG ||
	    w->bind.access & ~(uint32_t)(REMOTE | FX_ACC_LOCAL_WRITE | FX_ACC_ZERO_BASED))
		return false;
	if (mw->type == FX_MW_TYPE_1)
		return !(w->bind.access & FX_ACC_ZERO_BASED);
	/* type 2: it has to be free, and is freed by an invalidation only */
	return w->bind.length && (!mw->length || !lives(tp, mw->qpn_gen));
}

/* The region to bind it to, or NULL: not these rights on these bytes (10.6.6.2.1). */
static struct fx_mr *parent(const struct fx_tp *tp, const struct fx_qp *qp, const struct fx_wqe *w)
{
	struct fx_mr *mr = fx_mr_get(tp->cfg.mrs, w->bind.lkey);

	if (!mr || mr->pd != qp->pd || !(mr->access & FX_ACC_MW_BIND) ||
	    !fx_mr_covers(mr, w->raddr, w->bind.length))
		return NULL;
	return w->bind.access & CHANGES && !(mr->access & FX_ACC_LOCAL_WRITE) ? NULL : mr;
}

uint8_t fx_mw_bind(struct fx_tp *tp, struct fx_qp *qp, const struct fx_wqe *w)
{
	struct fx_mw *mw = fx_mw_get(tp->cfg.mrs, w->imm);
	struct fx_mr *mr = w->bind.length ? parent(tp, qp, w) : NULL;

	if (!mw || !may_bind(tp, qp, mw, w) || (w->bind.length && !mr))
		return refuse(tp);
	unbind(tp, mw);
	mw->key = w->rkey;
	mw->qpn_gen = fx_qpn_gen(qp->qpn, qp->gen);
	mw->access = w->bind.access & REMOTE;
	mw->lkey = w->bind.lkey;
	mw->length = w->bind.length;
	mw->base = w->raddr;
	mw->first = w->bind.access & FX_ACC_ZERO_BASED ? 0 : w->raddr;
	if (mr)
		atomic_fetch_add_explicit(&mr->windows, 1, memory_order_relaxed); /* as in unbind() */
	tp->n.mw_binds++;
	return FX_WC_SUCCESS;
}

uint8_t fx_mw_local_inv(struct fx_tp *tp, struct fx_qp *qp, const struct fx_wqe *w)
{
	if (!fx_mw_revoke(tp, qp, w->imm))
		return refuse(tp);
	tp->n.mw_invalidates++;
	return FX_WC_SUCCESS;
}
