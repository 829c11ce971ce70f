/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport's tables and its front door: the state table of modify_qp against the manual's, and what fx_post makes
 * of entries that a host should not have written. What packets do is tests/sim's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <infiniband/verbs.h>

#include "memory/engine.h"
#include "transport/transport.h"

enum { CQ_SHIFT = 6, RQ_SHIFT = 4, CTX = 7, PD = 3, QPN = 0x50, MAX_WR = 8 };

struct world {
	struct fx_tp *tp;
	struct fx_qp *qp;
	struct fx_under_way under_way;
	struct fx_cq cq;
	struct fx_cq_head head;
	struct fx_cqe ring[1 << CQ_SHIFT];
	uint8_t rq[FX_SLOT_SIZE << RQ_SHIFT];
	struct fx_mr_table mrs;
	struct fx_dma_engine *dma;
	uint32_t seen; /* CQEs read */
};

static void attach_qp(struct world *w)
{
	struct fx_qp_cfg qc = {.qpn = QPN, .gen = 1, .ctx = CTX, .pd = PD, .type = FX_QPT_RC};

	qc.max_send_wr = qc.max_recv_wr = MAX_WR;
	qc.max_send_sge = 4;
	qc.max_recv_sge = 1;
	qc.max_inline = 64;
	qc.scq = qc.rcq = &w->cq;
	qc.under_way = &w->under_way;
	qc.rq = (struct fx_rq){.slots = w->rq, .shift = RQ_SHIFT, .stride = 1};
	w->qp = fx_qp_create(&qc);
	assert_non_null(w->qp);
	assert_int_equal(fx_qp_attach(w->tp, w->qp), 0);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct fx_tp_cfg cfg = {.max_qps = 64, .mrs = &w->mrs};

	w->dma = fx_dma_cpu_create(64);
	cfg.dma = w->dma;
	w->tp = fx_tp_create(&cfg, 1000);
	w->cq = (struct fx_cq){.head = &w->head, .ring = w->ring, .shift = CQ_SHIFT};
	attach_qp(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	fx_qp_detach(w->tp, w->qp);
	while (fx_tp_dma_pending(w->tp))
		fx_tp_poll_dma(w->tp);
	fx_qp_free(w->tp, w->qp);
	fx_tp_destroy(w->tp);
	w->dma->ops->destroy(w->dma);
	free(w);
	return 0;
}

/* ---- the state table ---- */

/* ibv_modify_qp(3), RC: what each transition needs and what it may bring along. */
static const struct row {
	uint32_t from, to;
	uint32_t required, optional;
} manual[] = {
	{IBV_QPS_RESET, IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, 0},
	{IBV_QPS_INIT, IBV_QPS_INIT, 0, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS},
	{IBV_QPS_INIT, IBV_QPS_RTR,
	 IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
		 IBV_QP_MIN_RNR_TIMER,
	 IBV_QP_PKEY_INDEX | IBV_QP_ACCESS_FLAGS | IBV_QP_ALT_PATH},
	{IBV_QPS_RTR, IBV_QPS_RTS,
	 IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_TIMEOUT,
	 IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS | IBV_QP_ALT_PATH | IBV_QP_MIN_RNR_TIMER |
		 IBV_QP_PATH_MIG_STATE | IBV_QP_RATE_LIMIT},
	{IBV_QPS_RTS, IBV_QPS_RTS, 0,
	 IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS | IBV_QP_ALT_PATH | IBV_QP_MIN_RNR_TIMER |
		 IBV_QP_PATH_MIG_STATE | IBV_QP_RATE_LIMIT},
	{IBV_QPS_RTS, IBV_QPS_SQD, 0, IBV_QP_EN_SQD_ASYNC_NOTIFY},
	{IBV_QPS_SQD, IBV_QPS_SQD, 0,
	 IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS | IBV_QP_AV | IBV_QP_MAX_QP_RD_ATOMIC |
		 IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_ALT_PATH | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
		 IBV_QP_RNR_RETRY | IBV_QP_MIN_RNR_TIMER | IBV_QP_PATH_MIG_STATE},
	{IBV_QPS_SQD, IBV_QPS_RTS, 0,
	 IBV_QP_CUR_STATE | IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER |
		 IBV_QP_PATH_MIG_STATE},
};
#define ROWS (sizeof(manual) / sizeof(manual[0]))

static const struct fx_path path = {.l3 = {.ip_version = 4, .ttl = 64}, .mtu_max = 4096};

static struct fx_qp_attr good_attr(uint32_t to)
{
	struct fx_qp_attr a = {.qp_state = to, .path_mtu = IBV_MTU_1024, .dest_qp_num = QPN, .port_num = 1};

	a.ah.port_num = 1;
	a.retry_cnt = a.rnr_retry = 7;
	a.timeout = 14;
	a.max_rd_atomic = a.max_dest_rd_atomic = 1;
	return a;
}

static int modify_with(struct world *w, struct fx_qp_attr a, uint32_t mask)
{
	return fx_qp_modify(w->tp, w->qp, &a, mask, &path, 0, 0);
}

static uint32_t state_of(struct world *w)
{
	struct fx_qp_attr a;

	fx_qp_query(w->qp, &a);
	return a.qp_state;
}

/* Brings the QP to a state by the straight way. */
static void go(struct world *w, uint32_t state)
{
	static const uint32_t way[] = {0, 2, 3, 5}; /* rows: RESET-INIT-RTR-RTS-SQD */

	assert_int_equal(modify_with(w, good_attr(IBV_QPS_RESET), IBV_QP_STATE), 0);
	if (state == IBV_QPS_ERR) {
		assert_int_equal(modify_with(w, good_attr(state), IBV_QP_STATE), 0);
		return;
	}
	for (uint32_t s = IBV_QPS_RESET; s < state; s++)
		assert_int_equal(modify_with(w, good_attr(s + 1), IBV_QP_STATE | manual[way[s]].required), 0);
	assert_int_equal(state_of(w), state);
}

/* The manual's row, or that of the transitions that are allowed from anywhere with nothing else (IBTA 10.3.1). */
static const struct row *row_of(uint32_t from, uint32_t to)
{
	static const struct row anywhere;

	if (to == IBV_QPS_RESET || to == IBV_QPS_ERR)
		return &anywhere;
	for (size_t i = 0; i < ROWS; i++)
		if (manual[i].from == from && manual[i].to == to)
			return &manual[i];
	return NULL;
}

static void try_mask(struct world *w, uint32_t from, uint32_t to, uint32_t mask)
{
	const struct row *r = row_of(from, to);
	bool fine = r && (mask & r->required) == r->required && !(mask & ~(r->required | r->optional));
	struct fx_qp_attr a = good_attr(to);
	int err;

	a.cur_qp_state = from;
	go(w, from);
	err = modify_with(w, a, IBV_QP_STATE | mask);
	if (err != (fine ? 0 : EINVAL) || state_of(w) != (fine ? to : from))
		fail_msg("from %u to %u with attributes %#x: %d, now %u", from, to, mask, err, state_of(w));
}

/* Every transition with nothing, with what it needs, with one of these less, and with one other attribute more. */
static void follows_the_manual(void **state)
{
	struct world *w = *state;

	for (uint32_t from = IBV_QPS_RESET; from <= IBV_QPS_ERR; from++)
		for (uint32_t to = IBV_QPS_RESET; to <= IBV_QPS_ERR + 1; to++) {
			const struct row *r = row_of(from, to);
			uint32_t need = r ? r->required : 0;

			if (from == IBV_QPS_SQE)
				continue; /* RC never comes there */
			try_mask(w, from, to, 0);
			try_mask(w, from, to, need);
			try_mask(w, from, to, need | (r ? r->optional : 0));
			for (uint32_t bit = IBV_QP_CUR_STATE; bit <= 1u << 26; bit <<= 1)
				try_mask(w, from, to, need ^ bit);
		}
}

/* An attribute without a new state: the transition from the state to itself. */
static void changes_without_a_state(void **state)
{
	struct world *w = *state;
	struct fx_qp_attr a = good_attr(IBV_QPS_RTS);

	go(w, IBV_QPS_RTS);
	a.min_rnr_timer = 9;
	assert_int_equal(modify_with(w, a, IBV_QP_MIN_RNR_TIMER), 0);
	fx_qp_query(w->qp, &a);
	assert_int_equal(a.min_rnr_timer, 9);
	assert_int_equal(a.qp_state, IBV_QPS_RTS);
	assert_int_equal(modify_with(w, a, IBV_QP_TIMEOUT), EINVAL);
	go(w, IBV_QPS_RTR);
	assert_int_equal(modify_with(w, a, IBV_QP_MIN_RNR_TIMER), EINVAL); /* there is no RTR to RTR */
}

static void refuses_values_out_of_range(void **state)
{
	struct world *w = *state;
	struct fx_qp_attr a;

#define REFUSED(from, row, field, value)                                                                     \
	do {                                                                                                 \
		go(w, from);                                                                                 \
		a = good_attr(manual[row].to);                                                               \
		a.field = value;                                                                             \
		assert_int_equal(modify_with(w, a, IBV_QP_STATE | manual[row].required), EINVAL);            \
	} while (0)
	REFUSED(IBV_QPS_RESET, 0, port_num, 2);
	REFUSED(IBV_QPS_RESET, 0, pkey_index, 1);
	REFUSED(IBV_QPS_RESET, 0, access, 1u << 9);
	REFUSED(IBV_QPS_INIT, 2, path_mtu, 0);
	REFUSED(IBV_QPS_INIT, 2, path_mtu, 6);
	REFUSED(IBV_QPS_INIT, 2, ah.port_num, 0);
	REFUSED(IBV_QPS_INIT, 2, max_dest_rd_atomic, 17);
	REFUSED(IBV_QPS_INIT, 2, min_rnr_timer, 32);
	REFUSED(IBV_QPS_INIT, 2, dest_qp_num, 1u << 24);
	REFUSED(IBV_QPS_RTR, 3, timeout, 32);
	REFUSED(IBV_QPS_RTR, 3, retry_cnt, 8);
	REFUSED(IBV_QPS_RTR, 3, rnr_retry, 8);
	REFUSED(IBV_QPS_RTR, 3, max_rd_atomic, 17);
	go(w, IBV_QPS_RTS);
	a = good_attr(IBV_QPS_RTS);
	a.cur_qp_state = IBV_QPS_SQD;
	assert_int_equal(modify_with(w, a, IBV_QP_STATE | IBV_QP_CUR_STATE), EINVAL);
}

/* ---- the front door ---- */

static struct fx_sq_slot entry(uint32_t index, uint8_t gen)
{
	return (struct fx_sq_slot){.opcode = FX_WR_SEND,
				   .flags = FX_WRF_SIGNALED,
				   .nslots = 1,
				   .index = index,
				   .qpn_gen = fx_qpn_gen(QPN, gen)};
}

/* The next CQE, or NULL. */
static const struct fx_cqe *next_cqe(struct world *w)
{
	while (fx_tp_dma_pending(w->tp))
		fx_tp_poll_dma(w->tp);
	if (w->ring[w->seen].phase != fx_phase(w->seen, CQ_SHIFT))
		return NULL;
	return &w->ring[w->seen++];
}

static uint8_t gen_of(struct world *w)
{
	return (uint8_t)fx_qp_gen(w->qp);
}

static void drops_what_is_not_its_own(void **state)
{
	struct world *w = *state;
	struct fx_counters *n = fx_tp_counters(w->tp);
	struct fx_sq_slot e;

	go(w, IBV_QPS_RTS);
	e = entry(0, (uint8_t)(gen_of(w) - 1));
	fx_post(w->tp, CTX, &e);
	assert_int_equal(n->wqe_stale, 1);
	e = entry(0, gen_of(w));
	fx_post(w->tp, CTX + 1, &e);
	e.qpn_gen = fx_qpn_gen(QPN + 1, gen_of(w));
	fx_post(w->tp, CTX, &e);
	e.qpn_gen = fx_qpn_gen(0xfffff0, gen_of(w));
	fx_post(w->tp, CTX, &e);
	assert_int_equal(n->wqe_bad, 3);
	assert_int_equal(n->wqe, 0);
	assert_int_equal(state_of(w), IBV_QPS_RTS);
	assert_null(next_cqe(w));
}

static void a_bad_entry_fails_alone_and_in_turn(void **state)
{
	struct world *w = *state;
	const struct {
		uint8_t opcode, flags, nslots, nsge;
		uint32_t inline_len;
	} bad[] = {
		{FX_WR_OPS, 0, 1, 0, 0},
		{0xff, 0, 1, 0, 0},
		{FX_WR_SEND, 0, 2, 5, 0},		/* over max_send_sge */
		{FX_WR_SEND, 0, 1, 4, 0},		/* more SGEs than slots */
		{FX_WR_SEND, 0, 9, 1, 0},		/* more slots than SGEs */
		{FX_WR_WRITE, FX_WRF_INLINE, 2, 0, 65}, /* over max_inline */
		{FX_WR_WRITE, FX_WRF_INLINE, 1, 0, 32}, /* longer than its slot */
		{FX_WR_READ, FX_WRF_INLINE, 1, 0, 8},	/* nowhere to land */
		{FX_WR_WRITE, FX_WRF_INLINE, 1, 0, 0xffffffffu},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct fx_sq_slot e[FX_MAX_SQ_SLOTS] = {0};
		const struct fx_cqe *c;

		go(w, IBV_QPS_RTS);
		e[0] = entry(0, gen_of(w));
		e[0].opcode = bad[i].opcode;
		e[0].flags |= bad[i].flags;
		e[0].nslots = bad[i].nslots;
		e[0].nsge = bad[i].nsge;
		e[0].rdma.inline_len = bad[i].inline_len;
		fx_post(w->tp, CTX, e);
		e[0] = entry(1, gen_of(w));
		fx_post(w->tp, CTX, e);
		struct fx_txpkt out = {.hdr = (uint8_t[FX_TX_ROOM]){0}};

		assert_int_equal(fx_tp_tx(w->tp, &out, 1), 0);
		c = next_cqe(w);
		assert_non_null(c);
		assert_int_equal(c->status, FX_WC_LOC_QP_OP_ERR);
		assert_int_equal(c->index, 0);
		c = next_cqe(w);
		assert_non_null(c);
		assert_int_equal(c->status, FX_WC_WR_FLUSH_ERR);
		assert_int_equal(c->index, 1);
		assert_int_equal(state_of(w), IBV_QPS_ERR);
	}
}

static void a_host_that_overruns_its_queue_gets_an_error(void **state)
{
	struct world *w = *state;

	go(w, IBV_QPS_RTS);
	for (uint32_t i = 0; i < MAX_WR + 1; i++) {
		struct fx_sq_slot e = entry(i, gen_of(w));

		fx_post(w->tp, CTX, &e);
	}
	assert_int_equal(fx_tp_counters(w->tp)->wqe_overrun, 1);
	assert_int_equal(state_of(w), IBV_QPS_ERR);
	for (uint32_t i = 0; i < MAX_WR; i++) {
		const struct fx_cqe *c = next_cqe(w);

		assert_non_null(c);
		assert_int_equal(c->index, i);
		assert_int_equal(c->status, FX_WC_WR_FLUSH_ERR);
	}
	assert_null(next_cqe(w));
}

/* Queues longer than a chunk, again and again: what completes gives its chunk back. */
static void a_busy_queue_takes_no_more_memory(void **state)
{
	struct world *w = *state;
	uint64_t once = 0;

	go(w, IBV_QPS_RTS);
	assert_int_equal(modify_with(w, good_attr(IBV_QPS_ERR), IBV_QP_STATE), 0);
	for (uint32_t i = 0; i < 1000 * MAX_WR;) {
		struct fx_sq_slot e[2] = {entry(i, gen_of(w))};

		e[0].nslots = 2;
		e[0].nsge = 4;
		fx_post(w->tp, CTX, e);
		if (++i % MAX_WR)
			continue;
		while (fx_tp_dma_pending(w->tp))
			fx_tp_poll_dma(w->tp);
		assert_int_equal(w->cq.pi, i); /* all were flushed */
		w->head.ci = i;
		once = once ? once : fx_tp_memory(w->tp);
	}
	assert_true(once > 0);
	assert_true(fx_tp_memory(w->tp) == once);
}

static void a_gap_in_the_counter_gets_an_error(void **state)
{
	struct world *w = *state;
	struct fx_sq_slot e;

	go(w, IBV_QPS_RTS);
	e = entry(1, gen_of(w));
	fx_post(w->tp, CTX, &e);
	assert_int_equal(state_of(w), IBV_QPS_ERR);
	go(w, IBV_QPS_INIT);
	e = entry(0, gen_of(w));
	fx_post(w->tp, CTX, &e); /* no posts before RTS */
	assert_int_equal(state_of(w), IBV_QPS_ERR);
}

static void receives_posted_in_error_are_flushed(void **state)
{
	struct world *w = *state;
	struct fx_rq rq = {.slots = w->rq, .shift = RQ_SHIFT, .stride = 1};
	const struct fx_cqe *c;

	go(w, IBV_QPS_INIT);
	fx_rq_put(&rq, NULL, 0);
	assert_int_equal(modify_with(w, good_attr(IBV_QPS_ERR), IBV_QP_STATE), 0);
	c = next_cqe(w);
	assert_non_null(c);
	assert_int_equal(c->status, FX_WC_WR_FLUSH_ERR);
	assert_int_equal(c->opcode, FX_WC_RECV);
	fx_rq_put(&rq, NULL, 0);
	assert_null(next_cqe(w));
	fx_tp_set_now(w->tp, 1000000000);
	fx_tp_timers(w->tp);
	c = next_cqe(w);
	assert_non_null(c);
	assert_int_equal(c->index, 1);
}

static void a_qp_left_in_error_lets_the_core_sleep(void **state)
{
	struct world *w = *state;
	uint64_t now = 1000;
	int looks = 0;

	go(w, IBV_QPS_INIT);
	assert_int_equal(modify_with(w, good_attr(IBV_QPS_ERR), IBV_QP_STATE), 0);
	while (now < 1000000000) {
		fx_tp_set_now(w->tp, now);
		fx_tp_timers(w->tp);
		while (fx_tp_dma_pending(w->tp))
			fx_tp_poll_dma(w->tp);
		assert_true(fx_tp_next_timer(w->tp) != UINT64_MAX);
		now = fx_tp_next_timer(w->tp) > now ? fx_tp_next_timer(w->tp) : now + 1;
		looks++;
	}
	assert_in_range(looks, 10, 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(follows_the_manual, setup, teardown),
		cmocka_unit_test_setup_teardown(changes_without_a_state, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_values_out_of_range, setup, teardown),
		cmocka_unit_test_setup_teardown(drops_what_is_not_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(a_bad_entry_fails_alone_and_in_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(a_host_that_overruns_its_queue_gets_an_error, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_busy_queue_takes_no_more_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(a_gap_in_the_counter_gets_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(receives_posted_in_error_are_flushed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_qp_left_in_error_lets_the_core_sleep, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
