/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The requester: cuts WQEs into request packets (IBTA 9.7.3, 9.4).
 *
 * Room: transport. A packet's payload is handed out as pieces of the application's windows; only inline data, which
 * came through the pipe, is copied behind the headers. Every cut looks the key up again (guarantee L2).
 * A READ is asked for in chunks of FX_READ_CHUNK packets, each a READ request of its own: responses are paced by the
 * window like everything else, and going back after a loss asks only for what is missing.
 */
#include "transport/qp.h"

enum tail { NONE, IMM, INV };
#define FX_OWN_QKEY UINT32_C(0x80000000) /* a Q_Key with this bit says: the QP's own (IBTA 10.2.5) */

/* Base opcode of each work request, as its FIRST, MIDDLE, LAST and ONLY packets carry it. */
static const struct {
	uint8_t first, middle, last, only;
	bool reth;
	uint8_t tail; /* enum tail: what its last packet carries before the payload */
} cuts[FX_WR_OPS] = {
	[FX_WR_SEND] = {FX_OP_SEND_FIRST, FX_OP_SEND_MIDDLE, FX_OP_SEND_LAST, FX_OP_SEND_ONLY, false, NONE},
	[FX_WR_SEND_IMM] = {FX_OP_SEND_FIRST, FX_OP_SEND_MIDDLE, FX_OP_SEND_LAST_IMM, FX_OP_SEND_ONLY_IMM,
			    false, IMM},
	[FX_WR_SEND_INV] = {FX_OP_SEND_FIRST, FX_OP_SEND_MIDDLE, FX_OP_SEND_LAST_INV, FX_OP_SEND_ONLY_INV,
			    false, INV},
	[FX_WR_WRITE] = {FX_OP_WRITE_FIRST, FX_OP_WRITE_MIDDLE, FX_OP_WRITE_LAST, FX_OP_WRITE_ONLY, true,
			 NONE},
	[FX_WR_WRITE_IMM] = {FX_OP_WRITE_FIRST, FX_OP_WRITE_MIDDLE, FX_OP_WRITE_LAST_IMM,
			     FX_OP_WRITE_ONLY_IMM, true, IMM},
	[FX_WR_READ] = {FX_OP_READ_REQUEST, FX_OP_READ_REQUEST, FX_OP_READ_REQUEST, FX_OP_READ_REQUEST, true,
			NONE},
	[FX_WR_CMP_SWAP] = {.only = FX_OP_COMPARE_SWAP},
	[FX_WR_FETCH_ADD] = {.only = FX_OP_FETCH_ADD},
	[FX_WR_ATOMIC_WRITE] = {.only = FX_OP_ATOMIC_WRITE, .reth = true},
};

/* READ requests whose responses have all come, atomics whose result has. */
static void reads_done(struct fx_qp *qp)
{
	while (qp->rd_n && fx_psn_diff(qp->una_psn, qp->rd_end[qp->rd_head]) >= 0) {
		qp->rd_head = (uint8_t)((qp->rd_head + 1) % FX_MAX_RD_ATOMIC);
		qp->rd_n--;
	}
}

/* Packets that the window still lets out. */
static uint32_t window_left(const struct fx_qp *qp)
{
	uint32_t out = (uint32_t)fx_psn_diff(qp->next_psn, qp->una_psn);

	return out < qp->window ? qp->window - out : 0;
}

/*
 * Packets of the next chunk of a READ. Chunks end at fixed places of the READ, so that one asked for again never
 * reaches beyond what the responder has seen as a request before.
 */
static uint32_t read_chunk(const struct fx_qp *qp, const struct fx_wqe *w)
{
	uint32_t at = qp->cut_off >> qp->mtu_shift,
		 max = qp->window < FX_READ_CHUNK ? qp->window : FX_READ_CHUNK;
	uint32_t to_end = max - at % max, rest = w->npkt - at;

	return rest < to_end ? rest : to_end;
}

/*
 * What is asked for has to find room (guarantee O5): responses on their way into memory, and all that are still in flight,
 * should they have to wait for it as the last one does.
 */
static bool landing_room(const struct fx_qp *qp, const struct fx_wqe *w)
{
	uint32_t coming = (uint32_t)fx_psn_diff(qp->next_psn, qp->una_psn) + read_chunk(qp, w);

	if (qp->resp.n > FX_RESP_ROOM)
		return false;
	/* twice: on the context's account and on everybody's */
	return !qp->resp.kept || qp->share->kept + qp->tp->kept + 2 * coming * qp->resp.tail->cost < FX_KEEP;
}

/* May the WQE at `cur` be cut now? */
bool fx_requester_ready(struct fx_qp *qp)
{
	struct fx_wqe *w;

	bool stops = qp->state == FX_QPS_SQD;

	if (qp->cur.index == qp->post_index || (qp->state != FX_QPS_RTS && !stops) || qp->cut_err ||
	    !fx_may_cut(qp) || qp->rnr_wait)
		return false;
	if (!window_left(qp))
		return false;
	w = fx_wqe_at(&qp->cur);
	/* a queue that drains finishes what it began, also again, and begins nothing (10.3.1.5) */
	if (stops && w->psn == FX_PSN_NONE)
		return false;
	/*
	 * An invalidation waits until everything before it is over, asked or not (10.6.5.1): it might be of the memory
	 * that is being sent.
	 */
	if (w->op == FX_WR_LOCAL_INV && qp->una.index != qp->cur.index)
		return false;
	/* a fence waits until the READs and atomics before it are in memory (10.8.3.3): it may send what they fetched */
	if ((w->flags & FX_WRF_FENCE) && qp->cut_off == 0) {
		reads_done(qp);
		if (qp->rd_n || qp->resp.n)
			return false;
	}
	if (fx_wqe_fetches(w) && !w->status) {
		reads_done(qp);
		if (qp->rd_n >= qp->rd_limit && qp->rd_limit)
			return false;
		if (!landing_room(qp, w))
			return false;
		return read_chunk(qp, w) <= window_left(qp);
	}
	return true;
}

void fx_requester_rewind(struct fx_tp *tp, struct fx_qp *qp)
{
	struct fx_wqe *w;

	qp->cur = qp->ack;
	qp->next_psn = qp->una_psn;
	qp->cut_off = qp->cut_sge = qp->cut_sge_off = 0;
	qp->rd_n = 0;
	qp->cut_err = 0;
	qp->since_ackreq = 0;
	w = qp->cur.index != qp->post_index ? fx_wqe_at(&qp->cur) : NULL;
	if (w && w->psn != FX_PSN_NONE) {
		/* begun before: una_psn lies in it, even where all that was cut of it is acknowledged */
		qp->cut_off = (uint32_t)fx_psn_diff(qp->una_psn, w->psn) << qp->mtu_shift;
		if (!fx_wqe_fetches(w) && !(w->flags & FX_WRF_INLINE))
			fx_sges_skip(w->sge, w->nsge, &qp->cut_sge, &qp->cut_sge_off, qp->cut_off);
	}
	fx_run(tp, qp);
}

/* Adds `len` bytes of the WQE's SGEs, from the cut on, to the packet. Returns a wc status. */
static uint8_t gather(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w, struct fx_txpkt *out,
		      uint32_t len)
{
	uint32_t i = qp->cut_sge, off = qp->cut_sge_off;

	while (len) {
		const struct fx_sge *s = &w->sge[0] + i;
		uint32_t n = s->length - off;
		struct fx_mr *mr;

		if (!n) {
			i++;
			off = 0;
			continue;
		}
		mr = fx_mr_get(tp->cfg.mrs, s->lkey);
		if (!mr || mr->pd != qp->pd || !fx_mr_covers(mr, s->addr, s->length))
			return FX_WC_LOC_PROT_ERR;
		if (n > len)
			n = len;
		while (n) {
			uint32_t run = n;
			uint8_t *base = fx_mr_at(mr, s->addr + off, &run);

			if (out->nseg == FX_TX_SEGS)
				return FX_WC_LOC_QP_OP_ERR;
			out->seg[out->nseg].base = base;
			out->seg[out->nseg].len = run;
			out->seg[out->nseg].mr = mr;
			out->seg[out->nseg].va = s->addr + off;
			out->nseg++;
			out->stage |= !base;
			off += run;
			n -= run;
			len -= run;
		}
		if (off == s->length) {
			i++;
			off = 0;
		}
	}
	qp->cut_sge = i;
	qp->cut_sge_off = off;
	return FX_WC_SUCCESS;
}

/* Payload of `len` bytes for the packet: inline behind the headers, or as segments. */
static uint8_t attach_payload(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w, struct fx_txpkt *out,
			      uint32_t len, uint32_t pad)
{
	uint8_t status;

	out->payload = len;
	if (!len)
		return FX_WC_SUCCESS;
	if (w->flags & FX_WRF_INLINE) {
		uint8_t *p = out->hdr + out->hdr_len;

		memcpy(p, fx_wqe_inline(w) + qp->cut_off, len);
		memset(p + len, 0, pad);
		out->hdr_len = (uint16_t)(out->hdr_len + len + pad);
		return FX_WC_SUCCESS;
	}
	status = gather(tp, qp, w, out, len);
	out->pad = (uint8_t)pad;
	out->stage |= out->nseg > FX_PKT_SEGS;
	return status;
}

static uint32_t put_reth(uint8_t *p, uint64_t va, uint32_t rkey, uint32_t len)
{
	fx_put64(p, va);
	fx_put32(p + 8, rkey);
	fx_put32(p + 12, len);
	return FX_RETH_LEN;
}

/* XRC; other transports have no room for it, and what comes next is written over it. */
static uint8_t *put_srqn(uint8_t *p, const struct fx_qp *qp, const struct fx_wqe *w)
{
	fx_put32(p, w->srqn);
	return p + qp->xrceth;
}

/* Everything that a cut packet changes in the QP. */
static void cut_done(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w, struct fx_txpkt *out,
		     uint32_t npsn, uint32_t bytes)
{
	bool again = fx_psn_diff(qp->next_psn, qp->high_psn) < 0;

	if (again) {
		w->again = 1;
		qp->retransmits++;
		tp->n.tx_retransmits++;
	}
	if (qp->next_psn == qp->una_psn && qp->rto) {
		qp->rto_at = tp->now + qp->rto;
		fx_timer_set(tp, qp, qp->rto_at);
	}
	qp->next_psn = fx_psn_add(qp->next_psn, npsn);
	if (fx_psn_diff(qp->next_psn, qp->high_psn) > 0)
		qp->high_psn = qp->next_psn;
	qp->cut_off += bytes;
	fx_cut_one(tp, qp, out);
	tp->n.staged_packets += out->stage;
	out->qp = qp;
	out->wqe = out->nseg ? w : NULL;
	if (out->nseg) {
		/* a staged packet holds its WQE as one segment, until it is gathered */
		uint16_t n = out->stage ? 1 : out->nseg;

		w->refs = (uint16_t)(w->refs + n);
		((struct fx_chunk *)((uintptr_t)w & ~(uintptr_t)(FX_CHUNK_SIZE - 1)))->refs += n;
		qp->refs += n;
	}
	qp->tx_packets++;
	tp->n.tx_packets++;
	tp->n.tx_bytes += out->payload;
	if (qp->cut_off >= w->length) {
		fx_cursor_next(&qp->cur);
		qp->cut_off = qp->cut_sge = qp->cut_sge_off = 0;
	}
}

/* A READ request for the next chunk. */
static uint8_t cut_read(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w, struct fx_txpkt *out)
{
	uint32_t left = w->length - qp->cut_off, n = read_chunk(qp, w), len;
	uint8_t *p = out->hdr;

	if (!qp->rd_limit)
		return FX_WC_LOC_QP_OP_ERR;
	len = left < n << qp->mtu_shift ? left : n << qp->mtu_shift;
	p += fx_tmpl_emit(&qp->tmpl, p,
			  FX_BTH_LEN + qp->xrceth + FX_RETH_LEN + (tp->cfg.icrc ? FX_ICRC_LEN : 0),
			  qp->ip_id++);
	fx_put_bth(p, qp->opt | FX_OP_READ_REQUEST, false, 0, qp->dest_qpn, true, qp->next_psn);
	p = put_srqn(p + FX_BTH_LEN, qp, w);
	p += put_reth(p, w->raddr + qp->cut_off, w->rkey, len);
	out->hdr_len = (uint16_t)(p - out->hdr);
	qp->rd_end[(qp->rd_head + qp->rd_n++) % FX_MAX_RD_ATOMIC] = fx_psn_add(qp->next_psn, n);
	cut_done(tp, qp, w, out, n, len);
	return FX_WC_SUCCESS;
}

/*
 * An atomic is one packet. Its landing is checked now and not when the result comes: it cannot be undone, so it had
 * better not happen for nothing.
 */
static uint8_t cut_atomic(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w, struct fx_txpkt *out)
{
	uint8_t *p = out->hdr, status;
	uint64_t operand[2];

	if (!qp->rd_limit)
		return FX_WC_LOC_QP_OP_ERR;
	status = fx_sges_check(tp, qp->pd, w->sge, w->nsge, 0, 0, FX_ATOMIC_LEN, FX_ACC_LOCAL_WRITE);
	if (status)
		return status;
	memcpy(operand, fx_wqe_operands(w), sizeof(operand));
	p += fx_tmpl_emit(&qp->tmpl, p,
			  FX_BTH_LEN + qp->xrceth + FX_ATOMICETH_LEN + (tp->cfg.icrc ? FX_ICRC_LEN : 0),
			  qp->ip_id++);
	fx_put_bth(p, qp->opt | cuts[w->op].only, false, 0, qp->dest_qpn, true, qp->next_psn);
	p = put_srqn(p + FX_BTH_LEN, qp, w);
	fx_put64(p, w->raddr);
	fx_put32(p + 8, w->rkey);
	/* one field holds what is added or swapped in; only a compare-swap has the other */
	fx_put64(p + 12, operand[w->op == FX_WR_CMP_SWAP]);
	fx_put64(p + 20, w->op == FX_WR_CMP_SWAP ? operand[0] : 0);
	out->hdr_len = (uint16_t)(p + FX_ATOMICETH_LEN - out->hdr);
	qp->rd_end[(qp->rd_head + qp->rd_n++) % FX_MAX_RD_ATOMIC] = fx_psn_add(qp->next_psn, 1);
	cut_done(tp, qp, w, out, 1, FX_ATOMIC_LEN);
	return FX_WC_SUCCESS;
}

static bool wants_ack(struct fx_qp *qp, bool last)
{
	if (last || ++qp->since_ackreq >= FX_ACK_EVERY || window_left(qp) == 1) {
		qp->since_ackreq = 0;
		return true;
	}
	return false;
}

/* An immediate is the application's bytes; a key is a number. */
static uint32_t put_tail(uint8_t *p, uint8_t tail, uint32_t imm)
{
	if (tail == INV)
		fx_put32(p, imm);
	else
		memcpy(p, &imm, FX_IMM_LEN);
	return FX_IMM_LEN;
}

static uint8_t cut_data(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w, struct fx_txpkt *out)
{
	uint32_t left = w->length - qp->cut_off, len = left < qp->mtu ? left : qp->mtu, pad = -len & 3,
		 ext = 0;
	bool first = qp->cut_off == 0, last = len == left;
	uint8_t op = first ? (last ? cuts[w->op].only : cuts[w->op].first)
			   : (last ? cuts[w->op].last : cuts[w->op].middle);
	uint8_t *p = out->hdr, status;

	ext = qp->xrceth + (first && cuts[w->op].reth ? FX_RETH_LEN : 0) +
	      (last && cuts[w->op].tail ? FX_IMM_LEN : 0);
	p += fx_tmpl_emit(&qp->tmpl, p, FX_BTH_LEN + ext + len + pad + (tp->cfg.icrc ? FX_ICRC_LEN : 0),
			  qp->ip_id++);
	fx_put_bth(p, op | qp->opt, last && (w->flags & FX_WRF_SOLICITED), pad, qp->dest_qpn,
		   wants_ack(qp, last) & qp->acks, qp->next_psn);
	p = put_srqn(p + FX_BTH_LEN, qp, w);
	if (first && cuts[w->op].reth)
		p += put_reth(p, w->raddr, w->rkey, w->length);
	if (last && cuts[w->op].tail)
		p += put_tail(p, cuts[w->op].tail, w->imm);
	out->hdr_len = (uint16_t)(p - out->hdr);
	status = attach_payload(tp, qp, w, out, len, pad);
	if (status)
		return status;
	cut_done(tp, qp, w, out, 1, len);
	return FX_WC_SUCCESS;
}

static void sent_unacked(struct fx_tp *tp, struct fx_qp *qp, const struct fx_txpkt *out)
{
	qp->window = out->stage ? FX_UNACKED_SLOW : FX_UNACKED;
	fx_completer_sent(tp, qp);
}

static uint8_t cut_unacked(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w, struct fx_txpkt *out)
{
	uint8_t status = cut_data(tp, qp, w, out);

	if (!status)
		sent_unacked(tp, qp, out);
	return status;
}

static uint32_t put_deth(uint8_t *p, const struct fx_qp *qp, uint32_t qkey)
{
	fx_put32(p, qkey & FX_OWN_QKEY ? qp->attr.qkey : qkey);
	fx_put32(p + 4, qp->qpn);
	return FX_DETH_LEN;
}

/* The whole message, to where its address handle leads. */
static uint8_t cut_datagram(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w, struct fx_txpkt *out)
{
	const struct fx_ah *ah = tp->cfg.ahs ? fx_ah_get(tp->cfg.ahs, w->ud.ah) : NULL;
	uint32_t pad = -w->length & 3, ext = FX_DETH_LEN + (cuts[w->op].tail ? FX_IMM_LEN : 0);
	uint8_t *p = out->hdr, status;

	if (!ah || ah->pd != qp->pd)
		return FX_WC_LOC_QP_OP_ERR;
	if (w->length > qp->mtu)
		return FX_WC_LOC_LEN_ERR;
	p += fx_tmpl_emit(&ah->tmpl, p, FX_BTH_LEN + ext + w->length + pad + (tp->cfg.icrc ? FX_ICRC_LEN : 0),
			  qp->ip_id++);
	fx_put_bth(p, FX_OPT_UD | cuts[w->op].only, w->flags & FX_WRF_SOLICITED, pad,
		   w->ud.remote_qpn & FX_PSN_MASK, false, qp->next_psn);
	p += FX_BTH_LEN;
	p += put_deth(p, qp, w->rkey);
	if (cuts[w->op].tail)
		p += put_tail(p, cuts[w->op].tail, w->imm);
	out->hdr_len = (uint16_t)(p - out->hdr);
	status = attach_payload(tp, qp, w, out, w->length, pad);
	if (status)
		return status;
	cut_done(tp, qp, w, out, 1, w->length);
	sent_unacked(tp, qp, out);
	return FX_WC_SUCCESS;
}

static uint8_t (*const doers[FX_WR_OPS])(struct fx_tp *, struct fx_qp *, const struct fx_wqe *) = {
	[FX_WR_LOCAL_INV] = fx_mw_local_inv,
	[FX_WR_BIND_MW] = fx_mw_bind,
};

/* No packet and no PSN: it is done when its turn comes, once, and passed over when the queue goes back. */
static uint8_t cut_nothing(struct fx_tp *tp, struct fx_qp *qp, struct fx_wqe *w, struct fx_txpkt *out)
{
	uint8_t status = w->placed ? FX_WC_SUCCESS : doers[w->op](tp, qp, w);

	(void)out;
	if (status)
		return status;
	w->placed = 1;
	/* nobody acknowledges it */
	if (qp->ack.index == qp->cur.index)
		fx_cursor_next(&qp->ack);
	fx_cursor_next(&qp->cur);
	fx_completer_retire(tp, qp);
	return FX_WC_SUCCESS;
}

typedef uint8_t cutter(struct fx_tp *, struct fx_qp *, struct fx_wqe *, struct fx_txpkt *);

static cutter *const reliable[FX_WR_OPS] = {
	[FX_WR_SEND] = cut_data,	[FX_WR_SEND_IMM] = cut_data,	 [FX_WR_WRITE] = cut_data,
	[FX_WR_WRITE_IMM] = cut_data,	[FX_WR_READ] = cut_read,	 [FX_WR_CMP_SWAP] = cut_atomic,
	[FX_WR_FETCH_ADD] = cut_atomic, [FX_WR_SEND_INV] = cut_data,	 [FX_WR_LOCAL_INV] = cut_nothing,
	[FX_WR_BIND_MW] = cut_nothing,	[FX_WR_ATOMIC_WRITE] = cut_data,
};
static cutter *const unreliable[FX_WR_OPS] = {
	[FX_WR_SEND] = cut_unacked,	 [FX_WR_SEND_IMM] = cut_unacked,  [FX_WR_WRITE] = cut_unacked,
	[FX_WR_WRITE_IMM] = cut_unacked, [FX_WR_LOCAL_INV] = cut_nothing, [FX_WR_BIND_MW] = cut_nothing,
};
static cutter *const datagram[FX_WR_OPS] = {
	[FX_WR_SEND] = cut_datagram,
	[FX_WR_SEND_IMM] = cut_datagram,
};
/* By enum fx_opcode_transport. What entry_check() lets through has a cutter. */
static cutter *const *const cutters[] = {
	[FX_OPT_RC >> 5] = reliable,
	[FX_OPT_UC >> 5] = unreliable,
	[FX_OPT_UD >> 5] = datagram,
	[FX_OPT_XRC >> 5] = reliable,
};

unsigned fx_requester_cut(struct fx_tp *tp, struct fx_qp *qp, struct fx_txpkt *out, unsigned max)
{
	unsigned n = 0;

	/* what sends nothing takes its share of the turn too */
	for (unsigned turn = 0; turn < max && fx_requester_ready(qp); turn++) {
		struct fx_wqe *w = fx_wqe_at(&qp->cur);
		bool sends = !fx_wqe_local(w);
		struct fx_txpkt *o = &out[n];
		uint8_t status = w->status;

		o->nseg = o->pad = 0;
		o->stage = false;
		o->payload = 0;
		o->mw = NULL;
		if (!qp->cut_off)
			w->psn = qp->next_psn;
		if (!status)
			status = cutters[qp->opt >> 5][w->op](tp, qp, w, o);
		if (status) {
			/* it fails when its turn comes: what was sent before it completes first */
			qp->cut_err = status;
			fx_completer_settle(tp, qp);
			break;
		}
		n += sends;
	}
	return n;
}
