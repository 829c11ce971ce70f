/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The QP state machine of ibv_modify_qp as one table (IBTA 10.3.1, table 91): for each transition and transport the
 * attributes it must have and may have.
 *
 * Room: transport.
 */
#include "transport/qp.h"

enum {
	RC = 1 << FX_QPT_RC,
	UC = 1 << FX_QPT_UC,
	UD = 1 << FX_QPT_UD,
	INI = 1
	      << FX_QPT_XRC_SEND, /* A14: either half of what RC has; programs may name the other's attributes */
	TGT = 1 << FX_QPT_XRC_RECV,
};

static const struct transition {
	uint8_t from, to;
	uint16_t types;
	uint32_t required, optional;
} transitions[] = {
	{FX_QPS_RESET, FX_QPS_INIT, RC | UC | INI | TGT, FX_QPA_PKEY | FX_QPA_PORT | FX_QPA_ACCESS, 0},
	{FX_QPS_RESET, FX_QPS_INIT, UD, FX_QPA_PKEY | FX_QPA_PORT | FX_QPA_QKEY, 0},
	{FX_QPS_INIT, FX_QPS_INIT, RC | UC | INI | TGT, 0, FX_QPA_PKEY | FX_QPA_PORT | FX_QPA_ACCESS},
	{FX_QPS_INIT, FX_QPS_INIT, UD, 0, FX_QPA_PKEY | FX_QPA_PORT | FX_QPA_QKEY},
	{FX_QPS_INIT, FX_QPS_RTR, RC | TGT,
	 FX_QPA_AV | FX_QPA_MTU | FX_QPA_DEST_QPN | FX_QPA_RQ_PSN | FX_QPA_DEST_RD_ATOMIC | FX_QPA_RNR_TIMER,
	 FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_PKEY},
	{FX_QPS_INIT, FX_QPS_RTR, UC, FX_QPA_AV | FX_QPA_MTU | FX_QPA_DEST_QPN | FX_QPA_RQ_PSN,
	 FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_PKEY},
	{FX_QPS_INIT, FX_QPS_RTR, INI, FX_QPA_AV | FX_QPA_MTU | FX_QPA_DEST_QPN | FX_QPA_RQ_PSN,
	 FX_QPA_DEST_RD_ATOMIC | FX_QPA_RNR_TIMER | FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_PKEY},
	{FX_QPS_INIT, FX_QPS_RTR, UD, 0, FX_QPA_PKEY | FX_QPA_QKEY},
	{FX_QPS_RTR, FX_QPS_RTS, RC | INI,
	 FX_QPA_SQ_PSN | FX_QPA_TIMEOUT | FX_QPA_RETRY | FX_QPA_RNR_RETRY | FX_QPA_RD_ATOMIC,
	 FX_QPA_CUR_STATE | FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_RNR_TIMER | FX_QPA_MIG_STATE |
		 FX_QPA_RATE_LIMIT},
	{FX_QPS_RTR, FX_QPS_RTS, UC, FX_QPA_SQ_PSN,
	 FX_QPA_CUR_STATE | FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_MIG_STATE | FX_QPA_RATE_LIMIT},
	{FX_QPS_RTR, FX_QPS_RTS, TGT, FX_QPA_SQ_PSN | FX_QPA_TIMEOUT,
	 FX_QPA_RETRY | FX_QPA_RNR_RETRY | FX_QPA_RD_ATOMIC | FX_QPA_CUR_STATE | FX_QPA_ALT_PATH |
		 FX_QPA_ACCESS | FX_QPA_RNR_TIMER | FX_QPA_MIG_STATE},
	{FX_QPS_RTR, FX_QPS_RTS, UD, FX_QPA_SQ_PSN, FX_QPA_CUR_STATE | FX_QPA_QKEY | FX_QPA_RATE_LIMIT},
	{FX_QPS_RTS, FX_QPS_RTS, RC | TGT, 0,
	 FX_QPA_CUR_STATE | FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_RNR_TIMER | FX_QPA_MIG_STATE |
		 FX_QPA_RATE_LIMIT},
	{FX_QPS_RTS, FX_QPS_RTS, UC | INI, 0,
	 FX_QPA_CUR_STATE | FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_MIG_STATE | FX_QPA_RATE_LIMIT},
	{FX_QPS_RTS, FX_QPS_RTS, UD, 0, FX_QPA_CUR_STATE | FX_QPA_QKEY | FX_QPA_RATE_LIMIT},
	{FX_QPS_RTS, FX_QPS_SQD, RC | UC | UD | INI | TGT, 0, FX_QPA_SQD_NOTIFY},
	{FX_QPS_SQD, FX_QPS_SQD, RC | INI | TGT, 0,
	 FX_QPA_PKEY | FX_QPA_PORT | FX_QPA_ACCESS | FX_QPA_AV | FX_QPA_RD_ATOMIC | FX_QPA_DEST_RD_ATOMIC |
		 FX_QPA_ALT_PATH | FX_QPA_TIMEOUT | FX_QPA_RETRY | FX_QPA_RNR_RETRY | FX_QPA_RNR_TIMER |
		 FX_QPA_MIG_STATE},
	{FX_QPS_SQD, FX_QPS_SQD, UC, 0,
	 FX_QPA_AV | FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_PKEY | FX_QPA_MIG_STATE},
	{FX_QPS_SQD, FX_QPS_SQD, UD, 0, FX_QPA_PKEY | FX_QPA_QKEY},
	{FX_QPS_SQD, FX_QPS_RTS, RC | TGT, 0,
	 FX_QPA_CUR_STATE | FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_RNR_TIMER | FX_QPA_MIG_STATE},
	{FX_QPS_SQD, FX_QPS_RTS, UC | INI, 0,
	 FX_QPA_CUR_STATE | FX_QPA_ALT_PATH | FX_QPA_ACCESS | FX_QPA_MIG_STATE},
	{FX_QPS_SQD, FX_QPS_RTS, UD, 0, FX_QPA_CUR_STATE | FX_QPA_QKEY},
	{FX_QPS_SQE, FX_QPS_RTS, UC, 0, FX_QPA_CUR_STATE | FX_QPA_ACCESS},
	{FX_QPS_SQE, FX_QPS_RTS, UD, 0, FX_QPA_CUR_STATE | FX_QPA_QKEY},
};

/* Is the change allowed with this set of attributes? */
static bool allowed(const struct fx_qp *qp, uint32_t to, uint32_t mask)
{
	mask &= ~(uint32_t)FX_QPA_STATE;
	if (to == FX_QPS_RESET || to == FX_QPS_ERR)
		return mask == 0; /* from anywhere, with nothing else */
	for (size_t i = 0; i < sizeof(transitions) / sizeof(transitions[0]); i++) {
		const struct transition *t = &transitions[i];

		if (t->from == qp->state && t->to == to && t->types & 1u << qp->type)
			return (mask & t->required) == t->required && !(mask & ~(t->required | t->optional));
	}
	return false;
}

enum {
	ACCESS_ALL = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC |
		     FX_ACC_MW_BIND
};

/* Largest value of each attribute that has a plain range. */
static bool in_range(const struct fx_qp_attr *a, uint32_t mask, const struct fx_path *path)
{
	const struct {
		uint32_t bit, value, max;
	} ranges[] = {
		{FX_QPA_PKEY, a->pkey_index, 0},
		{FX_QPA_ACCESS, a->access, ACCESS_ALL},
		{FX_QPA_TIMEOUT, a->timeout, 31},
		{FX_QPA_RETRY, a->retry_cnt, 7},
		{FX_QPA_RNR_RETRY, a->rnr_retry, 7},
		{FX_QPA_RNR_TIMER, a->min_rnr_timer, 31},
		{FX_QPA_RD_ATOMIC, a->max_rd_atomic, FX_MAX_RD_ATOMIC},
		{FX_QPA_DEST_RD_ATOMIC, a->max_dest_rd_atomic, FX_MAX_RD_ATOMIC},
		{FX_QPA_DEST_QPN, a->dest_qp_num, FX_PSN_MASK},
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		if (mask & ranges[i].bit && ranges[i].value > ranges[i].max)
			return false;
	if (mask & FX_QPA_ACCESS && a->access & ~(uint32_t)ACCESS_ALL)
		return false;
	if (mask & FX_QPA_PORT && a->port_num != 1)
		return false;
	if (mask & FX_QPA_AV && (!path || a->ah.port_num != 1))
		return false;
	if (mask & FX_QPA_MTU)
		return a->path_mtu >= 1 && a->path_mtu <= 5 && path && 128u << a->path_mtu <= path->mtu_max;
	return true;
}

static void set_av(struct fx_qp *qp, const struct fx_qp_attr *a, const struct fx_path *path)
{
	qp->attr.ah = a->ah;
	qp->path = *path;
	fx_tmpl_init(&qp->tmpl, &path->l3);
}

void fx_qp_set_mtu(struct fx_qp *qp, uint32_t code)
{
	qp->mtu_shift = (uint8_t)(7 + code);
	qp->mtu = 1u << qp->mtu_shift;
	qp->max_len = qp->mtu + (qp->type == FX_QPT_UD ? FX_GRH_LEN : 0);
}

static void set_mtu(struct fx_qp *qp, const struct fx_qp_attr *a)
{
	qp->attr.path_mtu = a->path_mtu;
	fx_qp_set_mtu(qp, a->path_mtu);
}

static void set_timeout(struct fx_qp *qp, const struct fx_qp_attr *a)
{
	uint64_t ns = UINT64_C(4096) << a->timeout;

	qp->attr.timeout = a->timeout;
	qp->rto = a->timeout == 0 ? 0 : ns < FX_RTO_FLOOR ? FX_RTO_FLOOR : ns; /* 0: never */
}

static void apply(struct fx_qp *qp, const struct fx_qp_attr *a, uint32_t mask, const struct fx_path *path)
{
	struct fx_qp_attr *to = &qp->attr;

	if (mask & FX_QPA_ACCESS)
		qp->access = to->access = a->access;
	if (mask & FX_QPA_PKEY)
		to->pkey_index = a->pkey_index;
	if (mask & FX_QPA_PORT)
		to->port_num = a->port_num;
	if (mask & FX_QPA_QKEY)
		to->qkey = a->qkey;
	if (mask & FX_QPA_AV)
		set_av(qp, a, path);
	if (mask & FX_QPA_MTU)
		set_mtu(qp, a);
	if (mask & FX_QPA_TIMEOUT)
		set_timeout(qp, a);
	if (mask & FX_QPA_RETRY)
		to->retry_cnt = a->retry_cnt;
	if (mask & FX_QPA_RNR_RETRY)
		to->rnr_retry = a->rnr_retry;
	if (mask & FX_QPA_RNR_TIMER)
		to->min_rnr_timer = a->min_rnr_timer;
	if (mask & FX_QPA_RD_ATOMIC)
		qp->rd_limit = to->max_rd_atomic = a->max_rd_atomic;
	if (mask & FX_QPA_DEST_RD_ATOMIC)
		to->max_dest_rd_atomic = a->max_dest_rd_atomic;
	if (mask & FX_QPA_DEST_QPN)
		qp->dest_qpn = to->dest_qp_num = a->dest_qp_num;
	if (mask & FX_QPA_RQ_PSN)
		qp->epsn = qp->placed_psn = to->rq_psn = a->rq_psn & FX_PSN_MASK;
	if (mask & FX_QPA_SQ_PSN)
		qp->next_psn = qp->una_psn = qp->high_psn = to->sq_psn = a->sq_psn & FX_PSN_MASK;
}

int fx_qp_modify(struct fx_tp *tp, struct fx_qp *qp, const struct fx_qp_attr *attr, uint32_t mask,
		 const struct fx_path *path, uint32_t sq_index, uint32_t rq_index)
{
	uint32_t to = mask & FX_QPA_STATE ? attr->qp_state : qp->state;

	if (to >= FX_QPS_N || !allowed(qp, to, mask))
		return EINVAL;
	/* while it drains, what its packets are made of stays as it is (10.3.1.5) */
	if (qp->draining && to != FX_QPS_RESET && to != FX_QPS_ERR)
		return EINVAL;
	if (mask & FX_QPA_CUR_STATE && attr->cur_qp_state != qp->state)
		return EINVAL;
	if (!in_range(attr, mask, path))
		return EINVAL;
	if (to == FX_QPS_RESET) {
		fx_qp_reset(tp, qp, sq_index, rq_index);
		return 0;
	}
	if (to == FX_QPS_ERR) {
		fx_qp_flush(tp, qp, FX_CAUSE_ASKED);
		return 0;
	}
	apply(qp, attr, mask, path);
	if (to == FX_QPS_SQD && qp->state == FX_QPS_RTS) {
		qp->attr.en_sqd_async_notify = mask & FX_QPA_SQD_NOTIFY && attr->en_sqd_async_notify;
		qp->state = FX_QPS_SQD;
		qp->draining = true;
		fx_completer_retire(tp, qp); /* it may be drained already */
		return 0;
	}
	if (qp->state == FX_QPS_SQE)
		qp->cause = FX_CAUSE_NONE;
	qp->state = (uint8_t)to;
	if (to == FX_QPS_RTS)
		fx_run(tp, qp);
	return 0;
}

void fx_qp_query(const struct fx_qp *qp, struct fx_qp_attr *attr)
{
	*attr = qp->attr;
	attr->qp_state = attr->cur_qp_state = qp->state;
	attr->sq_draining = qp->draining;
	attr->max_send_wr = qp->cfg.max_send_wr;
	attr->max_recv_wr = qp->cfg.max_recv_wr;
	attr->max_send_sge = qp->cfg.max_send_sge;
	attr->max_recv_sge = qp->cfg.max_recv_sge;
	attr->max_inline = qp->cfg.max_inline;
	if (qp->state >= FX_QPS_RTR)
		attr->rq_psn = qp->epsn;
	if (qp->state >= FX_QPS_RTS)
		attr->sq_psn = qp->next_psn;
}
