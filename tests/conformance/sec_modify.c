/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section modify: the table of transitions (IBTA table 91), each with the attributes it must have, may have and must not
 * have; the ranges of attributes; what a query says afterwards.
 *
 * Room: tests. May use: verbs and libc.
 */
#include "sections.h"

static const char *const state_names[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};

/* Attributes that every device knows. Alternate paths, capabilities and rate limits are in a row of their own. */
static const int attributes[] = {
	IBV_QP_CUR_STATE,
	IBV_QP_EN_SQD_ASYNC_NOTIFY,
	IBV_QP_ACCESS_FLAGS,
	IBV_QP_PKEY_INDEX,
	IBV_QP_PORT,
	IBV_QP_AV,
	IBV_QP_PATH_MTU,
	IBV_QP_TIMEOUT,
	IBV_QP_RETRY_CNT,
	IBV_QP_RNR_RETRY,
	IBV_QP_RQ_PSN,
	IBV_QP_MAX_QP_RD_ATOMIC,
	IBV_QP_MIN_RNR_TIMER,
	IBV_QP_SQ_PSN,
	IBV_QP_MAX_DEST_RD_ATOMIC,
	IBV_QP_DEST_QPN,
	IBV_QP_QKEY,
};

enum {
	LIVE = IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER,
	DRAINED = IBV_QP_PORT | IBV_QP_AV | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
		  IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_ACCESS_FLAGS |
		  IBV_QP_PKEY_INDEX | IBV_QP_MIN_RNR_TIMER,
};

static const struct transition {
	enum ibv_qp_state from, to;
	int required, optional;
} transitions[] = {
	{IBV_QPS_RESET, IBV_QPS_INIT, INIT_MASK & ~IBV_QP_STATE, 0},
	{IBV_QPS_INIT, IBV_QPS_INIT, 0, INIT_MASK & ~IBV_QP_STATE},
	{IBV_QPS_INIT, IBV_QPS_RTR, RTR_MASK & ~IBV_QP_STATE, IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX},
	{IBV_QPS_RTR, IBV_QPS_RTS, RTS_MASK & ~IBV_QP_STATE, LIVE},
	{IBV_QPS_RTS, IBV_QPS_RTS, 0, LIVE},
	{IBV_QPS_RTS, IBV_QPS_SQD, 0, IBV_QP_EN_SQD_ASYNC_NOTIFY},
	{IBV_QPS_SQD, IBV_QPS_SQD, 0, DRAINED},
	{IBV_QPS_SQD, IBV_QPS_RTS, 0, LIVE},
};

static const struct transition *find(enum ibv_qp_state from, enum ibv_qp_state to)
{
	static struct transition always;

	for (size_t i = 0; i < COUNT(transitions); i++)
		if (transitions[i].from == from && transitions[i].to == to)
			return &transitions[i];
	always = (struct transition){from, to, 0, 0};
	return to == IBV_QPS_RESET || to == IBV_QPS_ERR ? &always : NULL;
}

/* Takes a's QP from wherever it is to `state`. */
static void bring(struct rig *r, const struct spec *s, enum ibv_qp_state state)
{
	to_state(r->a.qp, IBV_QPS_RESET);
	if (state >= IBV_QPS_INIT && state <= IBV_QPS_RTS)
		connect_qp(r, s, r->a.qp, r->b.qp->qp_num, state);
	if (state == IBV_QPS_SQD)
		connect_qp(r, s, r->a.qp, r->b.qp->qp_num, IBV_QPS_RTS);
	if (state == IBV_QPS_SQD || state == IBV_QPS_ERR)
		to_state(r->a.qp, state);
	NEED_EQ(state_of(r->a.qp), state);
}

/* One try from a fresh `from`; it works or is refused, and the state is what follows from that. */
static void try(struct rig *r, const struct transition *t, int mask, bool works)
{
	struct spec s = usual();
	struct ibv_qp_attr a = attr_of(r, &s, r->b.qp->qp_num);
	int err;

	bring(r, &s, t->from);
	a.qp_state = t->to;
	a.cur_qp_state = t->from;
	err = ibv_modify_qp(r->a.qp, &a, mask | IBV_QP_STATE);
	if (works ? err != 0 : err != EINVAL)
		row_failed(__FILE__, __LINE__, "%s to %s with mask %#x: %s", state_names[t->from],
			   state_names[t->to], (unsigned)mask, err ? strerror(err) : "it worked");
	NEED_EQ(state_of(r->a.qp), works ? t->to : t->from);
}

static void transition(const struct row *row)
{
	const struct transition *t = find((enum ibv_qp_state)row->a, (enum ibv_qp_state)row->b);
	const struct transition none = {(enum ibv_qp_state)row->a, (enum ibv_qp_state)row->b, 0, 0};
	struct spec s = usual();
	struct rig *r;

	s.state = IBV_QPS_RESET;
	r = rig_make(&s);
	if (!t) {
		/* whatever attributes come along */
		try(r, &none, 0, false);
		try(r, &none, INIT_MASK, false);
		try(r, &none, RTR_MASK, false);
		try(r, &none, RTS_MASK, false);
		return;
	}
	try(r, t, t->required, true);
	try(r, t, t->required | t->optional, true);
	for (size_t i = 0; i < COUNT(attributes); i++) {
		int bit = attributes[i];

		if (t->required & bit)
			try(r, t, t->required & ~bit, false);
		else
			try(r, t, t->required | bit, t->optional & bit);
	}
}

/* ---- values ---- */

static void queried(const struct row *row)
{
	struct spec s = usual();
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr a, was;
	struct rig *r;

	(void)row;
	s.mtu = IBV_MTU_512;
	s.rd_atomic = 3;
	s.dest_rd_atomic = 5;
	s.timeout = 13;
	s.retry_cnt = 6;
	s.rnr_retry = 2;
	s.min_rnr_timer = 9;
	s.sq_psn = 0xabcdef;
	s.rq_psn = 0x13579b;
	s.qp_access = IBV_ACCESS_REMOTE_WRITE;
	r = rig_make(&s);
	was = attr_of(r, &s, r->b.qp->qp_num);
	memset(&a, 0xff, sizeof(a));
	NEED_EQ(ibv_query_qp(r->a.qp, &a, ~0, &init), 0);
	NEED_EQ(a.qp_state, IBV_QPS_RTS);
	NEED_EQ(a.cur_qp_state, IBV_QPS_RTS);
	NEED_EQ(a.path_mtu, s.mtu);
	NEED_EQ(a.max_rd_atomic, 3);
	NEED_EQ(a.max_dest_rd_atomic, 5);
	NEED_EQ(a.timeout, 13);
	NEED_EQ(a.retry_cnt, 6);
	NEED_EQ(a.rnr_retry, 2);
	NEED_EQ(a.min_rnr_timer, 9);
	NEED_EQ(a.sq_psn, 0xabcdef);
	NEED_EQ(a.rq_psn, 0x13579b);
	NEED_EQ(a.dest_qp_num, r->b.qp->qp_num);
	NEED_EQ(a.qp_access_flags & (unsigned)ALL_ACCESS & ~(unsigned)IBV_ACCESS_LOCAL_WRITE,
		IBV_ACCESS_REMOTE_WRITE);
	NEED_EQ(a.pkey_index, 0);
	NEED_EQ(a.port_num, options.port);
	NEED_EQ(a.sq_draining, 0);
	NEED(a.ah_attr.is_global && !memcmp(&a.ah_attr.grh.dgid, &was.ah_attr.grh.dgid, 16));
	NEED_EQ(a.ah_attr.grh.sgid_index, options.gid);
	NEED_EQ(a.ah_attr.grh.hop_limit, 64);
	NEED_EQ(a.ah_attr.port_num, options.port);
}

static void query_each_state(const struct row *row)
{
	static const enum ibv_qp_state states[] = {IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR,
						   IBV_QPS_RTS,	  IBV_QPS_SQD,	IBV_QPS_ERR};
	struct spec s = usual();
	struct rig *r = rig();

	(void)row;
	for (size_t i = 0; i < COUNT(states); i++) {
		bring(r, &s, states[i]);
		NEED_EQ(r->a.qp->state, states[i]); /* kept in the QP too */
	}
}

static const struct bad {
	const char *what;
	enum ibv_qp_state from;
} bads[] = {
	{"port 0", IBV_QPS_RESET},
	{"port 77", IBV_QPS_RESET},
	{"P_Key index 9999", IBV_QPS_RESET},
	{"MTU 0", IBV_QPS_INIT},
	{"MTU 6", IBV_QPS_INIT},
	{"GID index 200", IBV_QPS_INIT},
	{"destination QP 2^24", IBV_QPS_INIT},
	{"responder depth 255", IBV_QPS_INIT},
	{"RNR timer 32", IBV_QPS_INIT},
	{"timeout 32", IBV_QPS_RTR},
	{"retries 8", IBV_QPS_RTR},
	{"RNR retries 8", IBV_QPS_RTR},
	{"initiator depth 255", IBV_QPS_RTR},
	{"current state INIT", IBV_QPS_RTR},
};

static int spoil(struct ibv_qp_attr *a, size_t which, int mask)
{
	switch (which) {
	case 0:
		a->port_num = 0;
		break;
	case 1:
		a->port_num = 77;
		break;
	case 2:
		a->pkey_index = 9999;
		break;
	case 3:
		a->path_mtu = (enum ibv_mtu)0;
		break;
	case 4:
		a->path_mtu = (enum ibv_mtu)6;
		break;
	case 5:
		a->ah_attr.grh.sgid_index = 200;
		break;
	case 6:
		a->dest_qp_num = 1 << 24;
		break;
	case 7:
		a->max_dest_rd_atomic = 255;
		break;
	case 8:
		a->min_rnr_timer = 32;
		break;
	case 9:
		a->timeout = 32;
		break;
	case 10:
		a->retry_cnt = 8;
		break;
	case 11:
		a->rnr_retry = 8;
		break;
	case 12:
		a->max_rd_atomic = 255;
		break;
	default:
		a->cur_qp_state = IBV_QPS_INIT;
		return mask | IBV_QP_CUR_STATE;
	}
	return mask;
}

static void ranges(const struct row *row)
{
	static const int masks[] = {
		[IBV_QPS_RESET] = INIT_MASK, [IBV_QPS_INIT] = RTR_MASK, [IBV_QPS_RTR] = RTS_MASK};
	struct spec s = usual();
	struct rig *r = rig();

	(void)row;
	for (size_t i = 0; i < COUNT(bads); i++) {
		struct ibv_qp_attr a = attr_of(r, &s, r->b.qp->qp_num);
		int mask = spoil(&a, i, masks[bads[i].from]), err;

		bring(r, &s, bads[i].from);
		a.qp_state = (enum ibv_qp_state)(bads[i].from + 1);
		err = ibv_modify_qp(r->a.qp, &a, mask);
		if (err != EINVAL)
			row_failed(__FILE__, __LINE__, "%s: %s", bads[i].what,
				   err ? strerror(err) : "it worked");
		NEED_EQ(state_of(r->a.qp), bads[i].from);
	}
}

static void rare_attributes(const struct row *row)
{
	static const int bits[] = {IBV_QP_CAP, IBV_QP_ALT_PATH, IBV_QP_RATE_LIMIT};
	struct rig *r = rig();

	(void)row;
	for (size_t i = 0; i < COUNT(bits); i++) {
		struct ibv_qp_attr a = {.qp_state = IBV_QPS_RTS};
		int err = ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE | bits[i]);

		NEED(err == 0 || err == EOPNOTSUPP || err == EINVAL);
		NEED_EQ(state_of(r->a.qp), IBV_QPS_RTS);
	}
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

static void without_state(const struct row *row)
{
	struct ibv_qp_attr a = {.qp_access_flags = IBV_ACCESS_REMOTE_READ}, got;
	struct ibv_qp_init_attr init;
	struct rig *r = rig();

	(void)row;
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_ACCESS_FLAGS), 0);
	NEED_EQ(ibv_query_qp(r->a.qp, &got, IBV_QP_ACCESS_FLAGS, &init), 0);
	NEED_EQ(got.qp_access_flags & (unsigned)ALL_ACCESS & ~(unsigned)IBV_ACCESS_LOCAL_WRITE,
		IBV_ACCESS_REMOTE_READ);
	NEED_EQ(ibv_modify_qp(r->a.qp, &a, IBV_QP_TIMEOUT), EINVAL);
	NEED_EQ(state_of(r->a.qp), IBV_QPS_RTS);
}

static void psn_moves_on(const struct row *row)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr a;
	struct spec s = usual();
	struct rig *r;

	(void)row;
	s.sq_psn = s.rq_psn = 0xffffff; /* and round */
	r = rig_make(&s);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 5, 8, IBV_SEND_SIGNALED);
	for (uint64_t i = 1; i <= 5; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	NEED_EQ(ibv_query_qp(r->a.qp, &a, IBV_QP_SQ_PSN, &init), 0);
	NEED_EQ(a.sq_psn, 4);
	NEED_EQ(ibv_query_qp(r->b.qp, &a, IBV_QP_RQ_PSN, &init), 0);
	NEED_EQ(a.rq_psn, 4);
}

#define R IBV_QPS_RESET
#define I IBV_QPS_INIT
#define T IBV_QPS_RTR
#define S IBV_QPS_RTS
#define D IBV_QPS_SQD
#define E IBV_QPS_ERR
#define TO(from_name, from, to_name, to)                                                                     \
	{                                                                                                    \
		from_name " to " to_name, "10.3.1, table 91", transition, .a = from, .b = to                 \
	}
#define FROM(name, from)                                                                                     \
	TO(name, from, "RESET", R), TO(name, from, "INIT", I), TO(name, from, "RTR", T),                     \
		TO(name, from, "RTS", S), TO(name, from, "SQD", D), TO(name, from, "ERR", E)

static const struct row rows[] = {
	FROM("RESET", R),
	FROM("INIT", I),
	FROM("RTR", T),
	FROM("RTS", S),
	FROM("SQD", D),
	FROM("ERR", E),
	{"attributes as they were set", "ibv_query_qp(3)", queried},
	{"the state, in each state", "ibv_query_qp(3)", query_each_state},
	{"PSNs move on", "ibv_query_qp(3)", psn_moves_on},
	{"values out of range", "ibv_modify_qp(3)", ranges},
	{"attributes that few devices have", "ibv_modify_qp(3)", rare_attributes},
	{"without IBV_QP_STATE", "ibv_modify_qp(3)", without_state},
};

const struct section section_modify = {"modify", "transitions and attributes of queue pairs", rows,
				       COUNT(rows)};
