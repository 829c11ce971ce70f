/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The responder: request packets become placements, and placements become answers (IBTA 9.7.4, 9.7.5, 9.9.3).
 *
 * Room: transport. A request is checked when it arrives, in PSN order; it takes effect when everything before it is in
 * memory (place.c). Refusals queue up behind the requests before them, because a NAK acknowledges those.
 *
 * Where nobody acknowledges, a message that cannot be taken is given up, and its receive is there for the next one. Only
 * what is wrong with the receive itself ends it, and the QP with it (9.8.2, 9.9.3: classes D and A).
 */
#include "transport/qp.h"

/* The next message has the receive of this one. */
static void forget_message(struct fx_qp *qp)
{
	qp->msg_flags = qp->msg_off = 0;
	qp->rwqe_sge = qp->rwqe_off = 0;
}

/* What is left of the message will be in sequence, and no message's. */
static void give_up(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	forget_message(qp);
	qp->epsn = fx_psn_add(p->psn, 1);
	fx_release(tp, p);
}

/* A request that is refused: the NAK leaves once everything before it is placed. */
static void refuse(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint8_t syndrome)
{
	if (syndrome == FX_NAK_REMOTE_ACCESS)
		tp->n.rx_remote_access++;
	else if (syndrome == FX_NAK_INVALID_REQUEST)
		tp->n.rx_invalid_request++;
	if (!qp->acks && syndrome != FX_NAK_REMOTE_OP) {
		give_up(tp, qp, p);
		return;
	}
	p->act = FX_PLACE_NAK;
	p->syndrome = syndrome;
	p->psn = qp->epsn;
	p->left = 0;
	p->sge = NULL;
	qp->nak_sent = true;
	if (syndrome > FX_NAK_PSN)
		qp->dead_end = true;
	fx_place_push(tp, &qp->reqs, qp, p);
}

/* A receive is wanted, and fx_receive_take() said why there is none. */
static void no_receive(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint8_t why)
{
	if (why == FX_LOOKS) {
		fx_park(tp, qp, p);
		return;
	}
	if (!qp->acks && why != FX_NAK_REMOTE_OP)
		tp->n.rx_no_receive++;
	refuse(tp, qp, p, why);
}

/* A refusal that also ends the receive in hand with `status`. */
static void refuse_receive(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint8_t syndrome,
			   uint8_t status)
{
	p->status = status;
	p->rx = qp->rx;
	p->index = qp->rwqe_index;
	qp->have_rwqe = false;
	refuse(tp, qp, p, syndrome);
}

static void too_long(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	if (qp->acks) {
		refuse_receive(tp, qp, p, FX_NAK_INVALID_REQUEST, FX_WC_LOC_LEN_ERR);
		return;
	}
	tp->n.rx_too_long++;
	give_up(tp, qp, p);
}

static void end_receive(struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	p->act = FX_PLACE_RECV;
	p->rx = qp->rx;
	p->index = qp->rwqe_index;
	p->byte_len = qp->msg_off + p->len;
	p->wc_opcode = flags & FX_OPF_WRITE ? FX_WC_RECV_RDMA_WITH_IMM : FX_WC_RECV;
	p->wc_flags =
		(uint8_t)((flags & FX_OPF_IMM ? FX_WCF_IMM : 0) | (flags & FX_OPF_INV ? FX_WCF_INV : 0) |
			  (p->bth.se ? FX_WCF_SOLICITED : 0) | (flags & FX_OPF_DETH ? p->grh : 0));
	p->imm = flags & FX_OPF_INV ? p->bth.inv_rkey : p->bth.imm;
	qp->have_rwqe = false;
}

/* ---- requests in sequence ---- */

bool fx_remote_at(struct fx_tp *tp, struct fx_qp *qp, uint32_t pd, uint32_t rkey, uint64_t va, uint32_t len,
		  uint32_t access, struct fx_spot *at)
{
	struct fx_mr *mr = fx_mr_get(tp->cfg.mrs, rkey);

	if (!mr)
		return fx_mw_at(tp, qp, pd, rkey, va, len, access, at);
	*at = (struct fx_spot){.mr = mr, .va = va};
	return mr->pd == pd && mr->access & qp->access & access && fx_mr_covers(mr, va, len);
}

static bool remote_ok(struct fx_tp *tp, struct fx_qp *qp, uint32_t rkey, uint64_t va, uint32_t len,
		      uint32_t access)
{
	struct fx_spot at;

	return fx_remote_at(tp, qp, qp->pd, rkey, va, len, access, &at);
}

/* There is no room for what its memory keeps waiting: the peer has to send it again. */
static bool crowded_out(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	if (!fx_place_refuses(tp, qp, p))
		return false;
	tp->n.rx_backlog++;
	fx_release(tp, p);
	return true;
}

/* Moves the expected PSN on and queues the packet. */
static void accept(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags, uint32_t npsn)
{
	qp->epsn = fx_psn_add(qp->epsn, npsn);
	qp->nak_sent = false;
	qp->msg_off += p->len;
	qp->msg_flags = flags & (FX_OPF_SEND | FX_OPF_WRITE);
	if (flags & FX_OPF_LAST) {
		qp->msg_flags = 0;
		qp->msg_off = 0;
	}
	tp->n.rx_bytes += p->len;
	fx_place_push(tp, &qp->reqs, qp, p);
}

static void rx_send(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	uint8_t bad = fx_receive_take(tp, qp), status;

	if (bad) {
		no_receive(tp, qp, p, bad);
		return;
	}
	if (p->len > qp->rwqe_len - qp->msg_off) {
		too_long(tp, qp, p);
		return;
	}
	status = fx_sges_check(tp, qp->rx->pd, qp->rwqe, qp->rwqe_nsge, qp->rwqe_sge, qp->rwqe_off, p->len,
			       FX_ACC_LOCAL_WRITE);
	if (status) {
		refuse_receive(tp, qp, p, FX_NAK_REMOTE_OP, status);
		return;
	}
	p->left = p->len;
	p->sge = qp->rwqe;
	p->nsge = qp->rwqe_nsge;
	p->sge_i = qp->rwqe_sge;
	p->sge_off = qp->rwqe_off;
	if (crowded_out(tp, qp, p))
		return;
	fx_sges_skip(qp->rwqe, qp->rwqe_nsge, &qp->rwqe_sge, &qp->rwqe_off, p->len);
	if (flags & FX_OPF_LAST)
		end_receive(qp, p, flags);
	accept(tp, qp, p, flags, 1);
}

static void rx_write(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	uint8_t bad;

	if (flags & FX_OPF_RETH) {
		qp->write.va = p->bth.reth.va;
		qp->write.rkey = p->bth.reth.rkey;
		qp->write.length = p->bth.reth.length;
		if (qp->write.length > FX_MAX_MSG) {
			refuse(tp, qp, p, FX_NAK_INVALID_REQUEST);
			return;
		}
	}
	/* the packets carry exactly what the RETH announced (9.7.4.1.7) */
	if (flags & FX_OPF_LAST ? qp->msg_off + p->len != qp->write.length
				: qp->msg_off + p->len >= qp->write.length) {
		refuse(tp, qp, p, FX_NAK_INVALID_REQUEST);
		return;
	}
	/* the whole range at first, then again with each packet: keys may end in between; length 0 needs no key */
	if (qp->write.length &&
	    !remote_ok(tp, qp, qp->write.rkey, qp->write.va, qp->write.length, FX_ACC_REMOTE_WRITE)) {
		refuse(tp, qp, p, FX_NAK_REMOTE_ACCESS);
		return;
	}
	if (flags & FX_OPF_IMM) {
		bad = fx_receive_take(tp, qp);
		if (bad) {
			no_receive(tp, qp, p, bad);
			return;
		}
	}
	p->left = p->len;
	p->sge = NULL;
	p->rkey = qp->write.rkey;
	p->pd = qp->pd;
	p->va = qp->write.va + qp->msg_off;
	if (crowded_out(tp, qp, p))
		return;
	if (flags & FX_OPF_IMM)
		end_receive(qp, p, flags);
	else if (flags & FX_OPF_LAST)
		p->act = FX_PLACE_MSG;
	accept(tp, qp, p, flags, 1);
}

static void rx_read(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	uint32_t len = p->bth.reth.length;

	if (len > FX_MAX_MSG || !qp->attr.max_dest_rd_atomic) {
		refuse(tp, qp, p, FX_NAK_INVALID_REQUEST);
		return;
	}
	if (len && !remote_ok(tp, qp, p->bth.reth.rkey, p->bth.reth.va, len, FX_ACC_REMOTE_READ)) {
		refuse(tp, qp, p, FX_NAK_REMOTE_ACCESS);
		return;
	}
	p->act = FX_PLACE_READ;
	p->pd = qp->pd;
	p->left = 0;
	p->sge = NULL;
	accept(tp, qp, p, flags | FX_OPF_LAST, fx_packets(qp, len));
}

static void rx_atomic(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	if (p->bth.atomic.va % FX_ATOMIC_LEN || !qp->attr.max_dest_rd_atomic) {
		refuse(tp, qp, p, FX_NAK_INVALID_REQUEST);
		return;
	}
	if (!remote_ok(tp, qp, p->bth.atomic.rkey, p->bth.atomic.va, FX_ATOMIC_LEN, FX_ACC_REMOTE_ATOMIC)) {
		refuse(tp, qp, p, FX_NAK_REMOTE_ACCESS);
		return;
	}
	p->act = FX_PLACE_ATOMIC;
	p->left = FX_ATOMIC_LEN;
	p->sge = NULL;
	p->rkey = p->bth.atomic.rkey;
	p->pd = qp->pd;
	p->va = p->bth.atomic.va;
	p->atomic =
		(struct fx_dma_atomic){.compare = p->bth.atomic.compare, .swap_add = p->bth.atomic.swap_add};
	if (!crowded_out(tp, qp, p))
		accept(tp, qp, p, flags | FX_OPF_LAST, 1);
}

/* A WRITE of one word that nobody sees half of: done as an atomic, acknowledged as a WRITE (annex A19.4). */
static void rx_store(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	if (p->bth.reth.va % FX_ATOMIC_LEN || p->bth.reth.length != FX_ATOMIC_LEN ||
	    p->len != FX_ATOMIC_LEN) {
		refuse(tp, qp, p, FX_NAK_INVALID_REQUEST);
		return;
	}
	if (!remote_ok(tp, qp, p->bth.reth.rkey, p->bth.reth.va, FX_ATOMIC_LEN, FX_ACC_REMOTE_WRITE)) {
		refuse(tp, qp, p, FX_NAK_REMOTE_ACCESS);
		return;
	}
	p->act = FX_PLACE_STORE;
	p->left = FX_ATOMIC_LEN;
	p->sge = NULL;
	p->rkey = p->bth.reth.rkey;
	p->pd = qp->pd;
	p->va = p->bth.reth.va;
	if (crowded_out(tp, qp, p))
		return;
	p->atomic = (struct fx_dma_atomic){.swap_add = fx_payload_word(p)};
	accept(tp, qp, p, flags, 1);
}

/* Does the payload length suit the opcode? (9.7.4.1.6) */
static bool length_fits(const struct fx_qp *qp, const struct fx_pkt *p, uint32_t flags)
{
	if (!(flags & FX_OPF_PAYLOAD))
		return p->len == 0;
	if (!(flags & FX_OPF_LAST))
		return p->len == qp->mtu;
	return p->len <= qp->max_len && ((flags & FX_OPF_FIRST) || p->len > 0);
}

/* Is this opcode what may follow the last one? (9.7.4.1.3) */
static bool order_fits(const struct fx_qp *qp, uint32_t flags)
{
	if (!(flags & (FX_OPF_SEND | FX_OPF_WRITE)))
		return qp->msg_flags == 0;
	if (flags & FX_OPF_FIRST)
		return qp->msg_flags == 0;
	return qp->msg_flags == (flags & (FX_OPF_SEND | FX_OPF_WRITE));
}

/* ---- duplicates ---- */

/* The SRQ that it names may be another one than the last message's, or gone: then no key is good. */
static uint32_t pd_again(const struct fx_tp *tp, const struct fx_qp *qp, const struct fx_pkt *p,
			 uint32_t flags)
{
	const struct fx_rxq *rx = flags & FX_OPF_XRCETH ? fx_xrc_find(tp, qp, p->bth.xrc_srqn) : NULL;

	return flags & FX_OPF_XRCETH ? rx ? rx->pd : 0 : qp->pd;
}

static void duplicate(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	tp->n.rx_duplicates++;
	qp->dups++;
	if (flags & FX_OPF_READ) {
		p->pd = pd_again(tp, qp, p, flags);
		fx_answer_read_again(tp, qp, p);
	} else if (flags & FX_OPF_ATOMIC) {
		fx_answer_atomic_again(tp, qp, p);
	} else if (flags & (FX_OPF_SEND | FX_OPF_WRITE | FX_OPF_STORE)) {
		qp->ack_want = true;
		fx_run_ack(tp, qp);
	}
	fx_release(tp, p);
}

/* ---- requests as they come ---- */

/*
 * It is not what may come here. Where nobody is told, a first packet begins a message whatever was before it. True: it
 * does so now.
 */
static bool begins_anew(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	bool first = flags & FX_OPF_FIRST, within = qp->msg_flags;

	if (!qp->acks && !first && !within) {
		tp->n.rx_rest++;
		give_up(tp, qp, p);
		return false;
	}
	if (!qp->acks && first && within) {
		tp->n.rx_invalid_request++;
		forget_message(qp);
		if (length_fits(qp, p, flags))
			return true;
	}
	refuse(tp, qp, p, FX_NAK_INVALID_REQUEST);
	return false;
}

static void in_sequence(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	if ((!order_fits(qp, flags) || !length_fits(qp, p, flags)) && !begins_anew(tp, qp, p, flags))
		return;
	if (flags & FX_OPF_XRCETH && !fx_xrc_select(tp, qp, p)) {
		p->xrc = true;
		refuse(tp, qp, p, FX_NAK_INVALID_REQUEST);
	} else if (flags & FX_OPF_SEND) {
		rx_send(tp, qp, p, flags);
	} else if (flags & FX_OPF_WRITE) {
		rx_write(tp, qp, p, flags);
	} else if (flags & FX_OPF_READ) {
		rx_read(tp, qp, p, flags);
	} else if (flags & FX_OPF_ATOMIC) {
		rx_atomic(tp, qp, p, flags);
	} else if (flags & FX_OPF_STORE) {
		rx_store(tp, qp, p, flags);
	} else {
		refuse(tp, qp, p, FX_NAK_INVALID_REQUEST);
	}
}

/* It waits behind others, or there is no room for it. */
static bool held_up(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	if (qp->parked.n) {
		fx_park(tp, qp, p);
		return true;
	}
	if (qp->reqs.n < FX_BACKLOG && !fx_place_full(tp, qp, &qp->reqs))
		return false;
	tp->n.rx_backlog++;
	fx_release(tp, p);
	return true;
}

static void out_of_sequence(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	if (fx_psn_diff(p->psn, qp->epsn) < 0) {
		duplicate(tp, qp, p, flags);
		return;
	}
	if (held_up(tp, qp, p))
		return;
	tp->n.rx_out_of_sequence++;
	if (qp->nak_sent)
		fx_release(tp, p);
	else
		refuse(tp, qp, p, FX_NAK_PSN);
}

/*
 * Nobody sends it again: a message ends at its first gap, and the next first packet begins another (9.8.2.2). Datagrams
 * are of many senders, each with PSNs of its own, and so always in sequence. True: it is the next one now.
 */
static bool resync(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint32_t flags)
{
	int32_t ahead = fx_psn_diff(p->psn, qp->epsn);

	if (flags & FX_OPF_DETH) {
		qp->epsn = p->psn;
		return true;
	}
	if (ahead < 0 && ahead >= -FX_LATE) {
		tp->n.rx_late++;
		fx_release(tp, p);
		return false;
	}
	tp->n.rx_gaps++;
	forget_message(qp);
	qp->epsn = p->psn;
	return true;
}

void fx_responder_rx(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	uint32_t flags = fx_opcodes[p->bth.opcode].flags;

	p->act = FX_PLACE_NONE;
	p->status = 0;
	p->rx = NULL;
	p->xrc = false;
	if (qp->state < FX_QPS_RTR || qp->state == FX_QPS_ERR || qp->dead_end) {
		tp->n.rx_wrong_state++;
		fx_release(tp, p);
	} else if (p->psn != qp->epsn && qp->acks) {
		out_of_sequence(tp, qp, p, flags);
	} else if (held_up(tp, qp, p)) {
		return;
	} else if (p->psn == qp->epsn || resync(tp, qp, p, flags)) {
		in_sequence(tp, qp, p, flags);
	}
}

/* ---- in memory ---- */

static void receive_done(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p, uint8_t status,
			 enum fx_cause cause)
{
	struct fx_cqe cqe = {
		.index = p->index, .status = status, .opcode = p->wc_opcode, .syndrome = (uint8_t)cause};

	if (!status) {
		cqe.byte_len = p->byte_len;
		cqe.imm = p->imm;
		cqe.flags = p->wc_flags;
		cqe.src_qp = p->bth.deth.sqpn;
	} else {
		cqe.opcode = FX_WC_RECV;
	}
	fx_receive_complete(tp, qp, p->rx, &cqe);
}

/* A receive that completes with an error tells enough; else it is an event (IBTA 11.6.3.2). */
static enum fx_cause refusal_cause(const struct fx_pkt *p)
{
	if (p->failed)
		return FX_CAUSE_LOST_MEMORY;
	if (p->status)
		return p->status == FX_WC_LOC_LEN_ERR ? FX_CAUSE_RECEIVE_ROOM : FX_CAUSE_RECEIVE_MEMORY;
	if (p->syndrome == FX_NAK_REMOTE_OP)
		return FX_CAUSE_RECEIVE_ENTRY;
	if (p->xrc)
		return FX_CAUSE_XRC;
	return p->syndrome == FX_NAK_REMOTE_ACCESS ? FX_CAUSE_ACCESS : FX_CAUSE_INVALID_REQUEST;
}

static void nak_now(struct fx_tp *tp, struct fx_qp *qp, const struct fx_pkt *p)
{
	enum fx_cause cause = refusal_cause(p);

	if (qp->acks) {
		qp->nak_want = p->syndrome;
		qp->nak_psn = p->psn;
		fx_run_ack(tp, qp);
	}
	if (p->status)
		receive_done(tp, qp, p, p->status, cause);
	if (p->failed || p->syndrome > FX_NAK_PSN)
		fx_qp_error(tp, qp, cause);
}

/* What was accepted comes to nothing after all. */
static void refuse_placed(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p, uint8_t syndrome,
			  uint8_t status)
{
	p->syndrome = syndrome;
	p->status = p->act == FX_PLACE_RECV ? status : 0;
	if (syndrome == FX_NAK_REMOTE_ACCESS)
		tp->n.rx_remote_access++;
	qp->dead_end = true;
	nak_now(tp, qp, p);
}

void fx_responder_placed(struct fx_tp *tp, struct fx_qp *qp, struct fx_pkt *p)
{
	if (qp->state == FX_QPS_ERR) {
		if (p->act == FX_PLACE_RECV)
			receive_done(tp, qp, p, FX_WC_WR_FLUSH_ERR, qp->cause);
		return;
	}
	if (p->failed) {
		/* its memory went away under the copy */
		refuse_placed(tp, qp, p, p->syndrome, FX_WC_LOC_PROT_ERR);
		return;
	}
	if (p->act == FX_PLACE_NAK) {
		nak_now(tp, qp, p);
		return;
	}
	if (fx_revokes(p)) {
		if (!fx_mw_revoke(tp, qp, p->imm)) {
			refuse_placed(tp, qp, p, FX_NAK_REMOTE_ACCESS, FX_WC_REM_INV_REQ_ERR);
			return;
		}
		tp->n.rx_invalidates++;
	}
	qp->placed_psn = fx_psn_add(p->psn, p->act == FX_PLACE_READ ? fx_packets(qp, p->bth.reth.length) : 1);
	if (p->act != FX_PLACE_NONE)
		qp->msn = (qp->msn + 1) & FX_PSN_MASK;
	if (p->act == FX_PLACE_RECV)
		receive_done(tp, qp, p, FX_WC_SUCCESS, FX_CAUSE_NONE);
	if (p->act == FX_PLACE_READ) {
		fx_answer_read(tp, qp, p);
	} else if (p->act == FX_PLACE_ATOMIC) {
		fx_answer_atomic(tp, qp, p);
	} else if (p->bth.ackreq & qp->acks) {
		qp->ack_want = true;
		fx_run_ack(tp, qp);
	}
}
