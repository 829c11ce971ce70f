/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the responder owes: acknowledges, NAKs, READ responses and the results of atomics, in the order of their
 * requests (IBTA 9.7.5).
 *
 * Room: transport. READ responses and results are jobs, cut and paced like requests (guarantee O5); an acknowledge waits
 * until those before it are out.
 */
#include "transport/qp.h"

/* ---- jobs ---- */

static void job_push(struct fx_tp *tp, struct fx_qp *qp, struct fx_job job)
{
	qp->jobs[(qp->job_head + qp->njobs++) % FX_JOBS] = job;
	fx_run(tp, qp);
}

/* A request again: the requester went back, so it will ask again for everything after it too. */
static void job_again(struct fx_tp *tp, struct fx_qp *qp, struct fx_job job)
{
	while (qp->njobs) {
		struct fx_job *last = &qp->jobs[(qp->job_head + qp->njobs - 1) % FX_JOBS];

		if (fx_psn_diff(last->psn, job.psn) < 0)
			break;
		qp->njobs--;
	}
	if (qp->njobs < FX_JOBS)
		job_push(tp, qp, job);
}

static struct fx_job read_job(const struct fx_pkt *p)
{
	return (struct fx_job){.psn = p->psn,
			       .rkey = p->bth.reth.rkey,
			       .pd = p->pd,
			       .va = p->bth.reth.va,
			       .left = p->bth.reth.length};
}

static struct fx_job result_job(const struct fx_result *r)
{
	return (struct fx_job){.psn = r->psn, .va = r->original, .atomic = true};
}

void fx_answer_read(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	job_push(tp, qp, read_job(p));
}

void fx_answer_read_again(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	uint32_t n = fx_packets(qp, p->bth.reth.length);

	if (p->bth.reth.length > FX_MAX_MSG || fx_psn_diff(fx_psn_add(p->psn, n), qp->placed_psn) > 0)
		return; /* the first one still waits for its turn */
	job_again(tp, qp, read_job(p));
}

/* It has happened: keeps what it found, and owes it. */
void fx_answer_atomic(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	struct fx_result *r = &qp->results[qp->natomics++ % FX_MAX_RD_ATOMIC];

	*r = (struct fx_result){.psn = p->psn, .original = p->atomic.original};
	tp->n.rx_atomics++;
	job_push(tp, qp, result_job(r));
}

/* Never a second time: what the first one found, or nothing. */
void fx_answer_atomic_again(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	uint32_t n = qp->natomics < FX_MAX_RD_ATOMIC ? qp->natomics : FX_MAX_RD_ATOMIC;

	if (fx_psn_diff(p->psn, qp->placed_psn) >= 0)
		return; /* the first one still waits for its turn */
	for (uint32_t i = 0; i < n; i++)
		if (qp->results[i].psn == p->psn) {
			job_again(tp, qp, result_job(&qp->results[i]));
			return;
		}
	tp->n.rx_atomic_forgotten++;
}

/* READs before it are answered from what is to be revoked, and their packets have left; this is looked at each turn. */
static bool may_revoke(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	if (!qp->njobs && !fx_mw_revocation_waits(tp, qp, p->imm))
		return true;
	fx_touch(tp, qp);
	return false;
}

bool fx_answer_room(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	bool owes = p->act == FX_PLACE_READ || p->act == FX_PLACE_ATOMIC;

	if (qp->state == FX_QPS_ERR)
		return true;
	if (fx_revokes(p))
		return may_revoke(tp, qp, p);
	return !owes || qp->njobs < FX_JOBS;
}

/* ---- packets ---- */

static void put_aeth(uint8_t *p, uint8_t syndrome, uint32_t msn)
{
	fx_put32(p, (uint32_t)syndrome << 24 | msn);
}

static void begin(struct fx_qp *qp, struct fx_txpkt *o)
{
	o->nseg = o->pad = 0;
	o->stage = false;
	o->payload = 0;
	o->wqe = NULL;
	o->mw = NULL;
	o->qp = qp;
}

static void cut_ack(struct fx_tp *tp, struct fx_qp *qp, struct fx_txpkt *o, uint8_t syndrome, uint32_t psn)
{
	uint8_t *p = o->hdr;

	begin(qp, o);
	p += fx_tmpl_emit(&qp->tmpl, p, FX_BTH_LEN + FX_AETH_LEN + (tp->cfg.icrc ? FX_ICRC_LEN : 0),
			  qp->ip_id++);
	fx_put_bth(p, qp->opt | FX_OP_ACKNOWLEDGE, false, 0, qp->dest_qpn, false, psn);
	put_aeth(p + FX_BTH_LEN, syndrome, qp->msn);
	o->hdr_len = (uint16_t)(p + FX_BTH_LEN + FX_AETH_LEN - o->hdr);
	if ((syndrome & FX_AETH_TYPE) == FX_AETH_ACK)
		tp->n.tx_acks++;
	else
		tp->n.tx_naks++;
	fx_cut_one(tp, qp, o);
	tp->n.tx_packets++;
}

/* One READ response packet. False: the memory is not to be read any more. */
static bool cut_response(struct fx_tp *tp, struct fx_qp *qp, struct fx_job *j, struct fx_txpkt *o)
{
	uint32_t len = j->left < qp->mtu ? j->left : qp->mtu, pad = -len & 3, left = len;
	bool last = len == j->left, aeth = last || !j->begun;
	uint8_t op = j->begun ? (last ? FX_OP_READ_RESP_LAST : FX_OP_READ_RESP_MIDDLE)
			      : (last ? FX_OP_READ_RESP_ONLY : FX_OP_READ_RESP_FIRST);
	struct fx_spot at = {0};
	uint8_t *p = o->hdr;

	if (len && !fx_remote_at(tp, qp, j->pd, j->rkey, j->va, j->left, FX_ACC_REMOTE_READ, &at))
		return false;
	begin(qp, o);
	p += fx_tmpl_emit(&qp->tmpl, p,
			  FX_BTH_LEN + (aeth ? FX_AETH_LEN : 0) + len + pad +
				  (tp->cfg.icrc ? FX_ICRC_LEN : 0),
			  qp->ip_id++);
	fx_put_bth(p, qp->opt | op, false, pad, qp->dest_qpn, false, j->psn);
	p += FX_BTH_LEN;
	if (aeth) {
		put_aeth(p, FX_AETH_CREDITS_INVALID, qp->msn);
		p += FX_AETH_LEN;
	}
	o->hdr_len = (uint16_t)(p - o->hdr);
	o->pad = (uint8_t)pad;
	o->payload = len;
	while (left) {
		uint32_t run = left;
		uint8_t *base = fx_mr_at(at.mr, at.va, &run);

		o->seg[o->nseg].base = base;
		o->seg[o->nseg].len = run;
		o->seg[o->nseg].mr = at.mr;
		o->seg[o->nseg].va = at.va;
		o->stage |= !base;
		if (++o->nseg == FX_TX_SEGS && run < left)
			return false;
		at.va += run;
		left -= run;
	}
	o->stage |= o->nseg > FX_PKT_SEGS;
	o->psn = j->psn;
	fx_cut_one(tp, qp, o);
	o->mw = at.mw;
	if (at.mw)
		at.mw->held += o->stage ? 1 : o->nseg; /* as fx_tp_staged() or fx_tp_seg_done() will tell */
	tp->n.staged_packets += o->stage;
	tp->n.tx_packets++;
	tp->n.tx_bytes += len;
	j->begun = true;
	j->va += len;
	j->left -= len;
	j->psn = fx_psn_add(j->psn, 1);
	return true;
}

/* The result of an atomic: AETH and the word, no payload. */
static void cut_result(struct fx_tp *tp, struct fx_qp *qp, const struct fx_job *j, struct fx_txpkt *o)
{
	uint32_t len = FX_BTH_LEN + FX_AETH_LEN + FX_ATOMICACKETH_LEN;
	uint8_t *p = o->hdr;

	begin(qp, o);
	p += fx_tmpl_emit(&qp->tmpl, p, len + (tp->cfg.icrc ? FX_ICRC_LEN : 0), qp->ip_id++);
	fx_put_bth(p, qp->opt | FX_OP_ATOMIC_ACKNOWLEDGE, false, 0, qp->dest_qpn, false, j->psn);
	put_aeth(p + FX_BTH_LEN, FX_AETH_CREDITS_INVALID, qp->msn);
	fx_put64(p + FX_BTH_LEN + FX_AETH_LEN, j->va);
	o->hdr_len = (uint16_t)(p + len - o->hdr);
	fx_cut_one(tp, qp, o);
	tp->n.tx_packets++;
}

/* What is owed cannot be had: a NAK instead, and nothing after it. */
static void refuse_job(struct fx_tp *tp, struct fx_qp *qp, uint8_t syndrome, uint32_t psn,
		       enum fx_cause cause)
{
	qp->njobs = 0;
	qp->nak_want = syndrome;
	qp->nak_psn = psn;
	qp->dead_end = true;
	fx_run_ack(tp, qp);
	fx_qp_error(tp, qp, cause);
}

void fx_answer_lost(struct fx_tp *tp, struct fx_qp *qp, uint32_t psn, int err)
{
	if (qp->state >= FX_QPS_RTR && qp->state != FX_QPS_ERR)
		refuse_job(tp, qp, fx_lost_syndrome(err), psn, FX_CAUSE_LOST_MEMORY);
}

static unsigned cut_jobs(struct fx_tp *tp, struct fx_qp *qp, struct fx_txpkt *out, unsigned max)
{
	unsigned n = 0;

	while (qp->njobs && n < max && fx_may_cut(qp)) {
		struct fx_job *j = &qp->jobs[qp->job_head];

		if (j->atomic) {
			cut_result(tp, qp, j, &out[n]);
		} else if (!cut_response(tp, qp, j, &out[n])) {
			tp->n.rx_remote_access++;
			refuse_job(tp, qp, FX_NAK_REMOTE_ACCESS, j->psn, FX_CAUSE_ACCESS);
			break;
		}
		n++;
		if (!j->left) {
			qp->job_head = (uint8_t)((qp->job_head + 1) % FX_JOBS);
			if (qp->njobs-- == FX_JOBS)
				fx_touch(tp, qp); /* a READ or an atomic may have waited for room */
		}
	}
	return n;
}

unsigned fx_answer_cut(struct fx_tp *tp, struct fx_qp *qp, struct fx_txpkt *out, unsigned max)
{
	unsigned n = cut_jobs(tp, qp, out, max);

	/* answers keep the order of the requests: READ responses before a later acknowledge */
	if (qp->njobs || n == max || !fx_may_cut(qp))
		return n;
	if (qp->nak_want) {
		cut_ack(tp, qp, &out[n++], qp->nak_want, qp->nak_psn);
		qp->nak_want = 0;
		qp->ack_want = false;
	} else if (qp->ack_want) {
		cut_ack(tp, qp, &out[n++], FX_AETH_ACK | FX_AETH_CREDITS_INVALID,
			fx_psn_add(qp->placed_psn, FX_PSN_MASK));
		qp->ack_want = false;
	}
	return n;
}
