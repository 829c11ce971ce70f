/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CQs that are polled one completion at a time: what can be read, and what may be called meanwhile.
 */
#include "bounce_rig.h"

static const struct ibv_qp_cap cap = {
	.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1};

static struct ibv_poll_cq_attr none;

static struct ibv_cq_ex *create(struct rig *r, uint64_t wc_flags, uint32_t flags)
{
	struct ibv_cq_init_attr_ex a = {.cqe = 16,
					.cq_context = r,
					.wc_flags = wc_flags,
					.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS,
					.flags = flags};

	return flexins_create_cq_ex(r->ctx, &a);
}

/* A rig whose QP is on a CQ that is polled so; the core knows it as its second. */
static struct rig start(uint64_t wc_flags, uint32_t flags, struct ibv_cq_ex **x)
{
	struct rig r = rig_start(6, &cap);

	assert_int_equal(flexins_destroy_qp(r.qp), 0);
	assert_int_equal(flexins_destroy_cq(r.cq), 0);
	*x = create(&r, wc_flags, flags);
	assert_non_null(*x);
	r.cq = ibv_cq_ex_to_cq(*x);
	assert_ptr_equal(r.cq->context, r.ctx);
	assert_int_equal(r.cq->cqe, 16);
	r.qp = rig_qp(&r, &cap);
	assert_int_equal(rig_move(r.qp, IBV_QPS_RTS), 0);
	return r;
}

static void push(struct rig *r, struct fx_cqe c)
{
	c.qpn_gen = fx_qpn_gen(r->qp->qp_num, CORE_GEN);
	assert_int_equal(fx_cq_push(&r->core->cq[1], &c), 0);
}

static void test_fields(void **state)
{
	struct ibv_cq_ex *x;
	struct rig r = start(IBV_WC_STANDARD_FLAGS | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP, 0, &x);
	struct fx_cqe c = {.opcode = FX_WC_RECV,
			   .byte_len = 1234,
			   .imm = 0xaabbccdd,
			   .src_qp = 77,
			   .flags = FX_WCF_IMM | FX_WCF_SOLICITED | FX_WCF_GRH,
			   .syndrome = 9};

	(void)state;
	assert_int_equal(r.core->made_cq[1].flags, FX_CQF_STAMPED);
	assert_int_equal(rig_recv(r.qp, 500), 0);
	assert_int_equal(rig_send(r.qp, 501, IBV_SEND_SIGNALED), 0);
	fx_cqe_put_stamp(&c, 0x123456789a);
	push(&r, c);
	push(&r, (struct fx_cqe){.opcode = FX_WC_SEND, .status = FX_WC_REM_OP_ERR});
	assert_int_equal(x->start_poll(x, &none), 0);
	assert_int_equal(x->wr_id, 500);
	assert_int_equal(x->status, IBV_WC_SUCCESS);
	assert_int_equal(ibv_wc_read_opcode(x), IBV_WC_RECV);
	assert_int_equal(ibv_wc_read_vendor_err(x), 9);
	assert_int_equal(ibv_wc_read_byte_len(x), 1234);
	assert_int_equal(ibv_wc_read_imm_data(x), 0xaabbccdd);
	assert_int_equal(ibv_wc_read_invalidated_rkey(x), 0xaabbccddu);
	assert_int_equal(ibv_wc_read_qp_num(x), r.qp->qp_num);
	assert_int_equal(ibv_wc_read_src_qp(x), 77);
	assert_int_equal(ibv_wc_read_wc_flags(x), IBV_WC_WITH_IMM | IBV_WC_GRH);
	assert_int_equal(ibv_wc_read_slid(x), 0);
	assert_int_equal(ibv_wc_read_sl(x), 2);
	assert_int_equal(ibv_wc_read_dlid_path_bits(x), 0);
	assert_int_equal(ibv_wc_read_completion_ts(x), 0x123456789a);
	assert_int_equal(x->next_poll(x), 0);
	assert_int_equal(x->wr_id, 501);
	assert_int_equal(x->status, IBV_WC_REM_OP_ERR);
	assert_int_equal(ibv_wc_read_sl(x), 0);
	assert_int_equal(x->next_poll(x), ENOENT);
	x->end_poll(x);
	rig_end(&r);
}

static void test_empty(void **state)
{
	struct ibv_poll_cq_attr unknown = {.comp_mask = 1};
	struct ibv_cq_ex *x;
	struct rig r = start(0, 0, &x);

	(void)state;
	assert_int_equal(r.core->made_cq[1].flags, 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(x->start_poll(x, &none), ENOENT); /* and no end */
		assert_int_equal(x->start_poll(x, &unknown), EINVAL);
	}
	/* what nobody wants to hear of is passed over, and given back to the core */
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(rig_send(r.qp, i, 0), 0);
	for (unsigned i = 0; i < 16; i++)
		push(&r, (struct fx_cqe){.opcode = FX_WC_SEND, .index = i});
	assert_int_equal(x->start_poll(x, &none), ENOENT);
	assert_int_equal(r.core->cq[1].head->ci, 16);
	rig_end(&r);
}

/* Meanwhile the CQ is as usable as ever. */
static void test_meanwhile(void **state)
{
	struct ibv_cq_ex *x;
	struct rig r = start(0, 0, &x);
	struct ibv_qp *other;
	struct ibv_wc wc;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(rig_send(r.qp, i, IBV_SEND_SIGNALED), 0);
	for (unsigned i = 0; i < 4; i++)
		push(&r, (struct fx_cqe){.opcode = FX_WC_SEND, .index = i});
	assert_int_equal(x->start_poll(x, &none), 0);
	assert_int_equal(flexins_poll_cq(r.cq, 1, &wc), 1);
	assert_int_equal(wc.wr_id, 1);
	assert_int_equal(flexins_req_notify_cq(r.cq, 0), 0);
	other = rig_qp(&r, &cap);
	assert_int_equal(rig_move(other, IBV_QPS_RTS), 0);
	assert_int_equal(rig_send(r.qp, 4, 0), 0);
	assert_int_equal(x->next_poll(x), 0);
	assert_int_equal(x->wr_id, 2);
	assert_int_equal(flexins_destroy_qp(other), 0);
	other = r.qp;
	assert_int_equal(rig_move(r.qp, IBV_QPS_RESET), 0);
	assert_int_equal(flexins_destroy_qp(r.qp), 0);
	assert_int_equal(ibv_wc_read_qp_num(x), core_qpn(2)); /* of a QP that is gone */
	assert_int_equal(x->next_poll(x), ENOENT);	      /* as are its completions */
	x->end_poll(x);
	r.qp = NULL;
	rig_end(&r);
}

/* Two threads: who is in a poll keeps the other out. */
struct turns {
	struct ibv_cq_ex *x;
	_Atomic int inside;
	unsigned got;
};

static void *poller(void *arg)
{
	struct turns *t = arg;
	int64_t until = rig_ms() + 200;

	while (rig_ms() < until) {
		if (t->x->start_poll(t->x, &none))
			continue;
		do {
			uint64_t id = t->x->wr_id;

			assert_int_equal(atomic_fetch_add(&t->inside, 1), 0);
			sched_yield();
			assert_int_equal(t->x->wr_id, id);
			t->got++;
			atomic_fetch_sub(&t->inside, 1);
		} while (!t->x->next_poll(t->x));
		t->x->end_poll(t->x);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct ibv_cq_ex *x;
	struct rig r = start(0, 0, &x);
	struct turns t = {.x = x};
	pthread_t thread[2];
	unsigned index = 0;
	int64_t until;

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, poller, &t), 0);
	until = rig_ms() + 100;
	while (rig_ms() < until) {
		if (rig_send(r.qp, index, IBV_SEND_SIGNALED)) {
			sched_yield();
			continue;
		}
		fx_pipe_take(&r.core->pipe, (struct fx_sq_slot[FX_MAX_SQ_SLOTS]){{0}});
		fx_pipe_publish_ci(&r.core->pipe);
		push(&r, (struct fx_cqe){.opcode = FX_WC_SEND, .index = index++});
	}
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(t.got, index);
	rig_end(&r);
}

/* With a single thread there is no lock: what is forgotten does not matter. */
static void test_single_threaded(void **state)
{
	struct ibv_cq_ex *x;
	struct rig r = start(0, IBV_CREATE_CQ_ATTR_SINGLE_THREADED | IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN, &x);

	(void)state;
	assert_int_equal(r.core->made_cq[1].flags, FX_CQF_LOSSY);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(rig_send(r.qp, i, IBV_SEND_SIGNALED), 0);
		push(&r, (struct fx_cqe){.opcode = FX_WC_SEND, .index = i});
		assert_int_equal(x->start_poll(x, &none), 0);
		assert_int_equal(x->wr_id, i);
	}
	rig_end(&r);
}

static void test_flushed(void **state)
{
	struct ibv_cq_ex *x;
	struct rig r = start(0, 0, &x);

	(void)state;
	assert_int_equal(rig_send(r.qp, 1, 0), 0);
	assert_int_equal(rig_recv(r.qp, 2), 0);
	core_cut(r.core);
	while (flexins_modify_qp(r.qp, &(struct ibv_qp_attr){.qp_state = IBV_QPS_RTS}, IBV_QP_STATE) !=
	       ENODEV)
		;
	assert_int_equal(x->start_poll(x, &none), 0);
	for (unsigned i = 1; i <= 2; i++) {
		assert_int_equal(x->wr_id, i);
		assert_int_equal(x->status, IBV_WC_WR_FLUSH_ERR);
		assert_int_equal(ibv_wc_read_opcode(x), i == 1 ? IBV_WC_SEND : IBV_WC_RECV);
		assert_int_equal(ibv_wc_read_qp_num(x), r.qp->qp_num);
		assert_int_equal(ibv_wc_read_completion_ts(x), 0);
		assert_int_equal(x->next_poll(x), i == 1 ? 0 : ENOENT);
	}
	x->end_poll(x);
	rig_end(&r);
}

/* What landed in a buffer is where it belongs when its completion is there to be read. */
static void test_bounced(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_cq_ex *x;
	struct fx_sge at;

	(void)state;
	assert_int_equal(flexins_destroy_qp(b.r.qp), 0);
	assert_int_equal(flexins_destroy_cq(b.r.cq), 0);
	x = create(&b.r, 0, 0);
	b.r.cq = ibv_cq_ex_to_cq(x);
	b.r.qp = rig_qp(&b.r, &bounce_cap);
	assert_int_equal(rig_move(b.r.qp, IBV_QPS_RTS), 0);
	b.rindex = 0;
	{
		struct ibv_sge sge = sge_of(&b, SLOW_LO + 5, 100);
		struct ibv_recv_wr wr = {.wr_id = 9, .sg_list = &sge, .num_sge = 1}, *bad;

		assert_int_equal(flexins_post_recv(b.r.qp, &wr, &bad), 0);
		assert_int_equal(fx_rq_take(&b.r.core->rq[1], &at, 1), 1);
	}
	memset(in_pool(&b, &at, 100), 0x5a, 100);
	push(&b.r, (struct fx_cqe){.opcode = FX_WC_RECV, .byte_len = 60});
	assert_int_equal(x->start_poll(x, &none), 0);
	assert_int_equal(b.mem[SLOW_LO + 5 + 59], 0x5a);
	assert_int_equal(b.mem[SLOW_LO + 5 + 60], pattern(SLOW_LO + 5 + 60));
	assert_int_equal(x->wr_id, 9);
	x->end_poll(x);
	bounce_end(&b);
}

static void test_refused(void **state)
{
	struct rig r = rig_start(6, &cap);
	struct ibv_cq_init_attr_ex a = {.cqe = 16};
	static const struct {
		uint32_t cqe, vector;
	} bad[] = {{0, 0}, {1025, 0}, {UINT32_MAX, 0}, {1, 1u << 20}, {1, UINT32_MAX}};

	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		if (1ull << bit & (IBV_WC_STANDARD_FLAGS | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |
				   IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK))
			continue;
		a.wc_flags = 1ull << bit;
		assert_null(flexins_create_cq_ex(r.ctx, &a));
		assert_int_equal(errno, EOPNOTSUPP);
	}
	a.wc_flags = 0;
	for (unsigned bit = 2; bit < 32; bit++) {
		a.comp_mask = 1u << bit;
		assert_null(flexins_create_cq_ex(r.ctx, &a));
		assert_int_equal(errno, EOPNOTSUPP);
		a.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS;
		a.flags = 1u << bit;
		assert_null(flexins_create_cq_ex(r.ctx, &a));
		assert_int_equal(errno, EOPNOTSUPP);
	}
	a.comp_mask = 0;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		a.cqe = bad[i].cqe;
		a.comp_vector = bad[i].vector;
		assert_null(flexins_create_cq_ex(r.ctx, &a));
		assert_int_equal(errno, EINVAL);
	}
	rig_end(&r);
}

static void test_clock(void **state)
{
	struct rig r = rig_start(6, &cap);
	struct ibv_values_ex v = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK};
	struct timespec t;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &t);
	assert_int_equal(flexins_query_rt_values(r.ctx, &v), 0);
	assert_in_range(v.raw_clock.tv_sec, t.tv_sec, t.tv_sec + 10);
	assert_in_range(v.raw_clock.tv_nsec, 0, 999999999);
	v.comp_mask = IBV_VALUES_MASK_RESERVED;
	assert_int_equal(flexins_query_rt_values(r.ctx, &v), EINVAL);
	rig_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_meanwhile),	cmocka_unit_test(test_threads),
		cmocka_unit_test(test_single_threaded), cmocka_unit_test(test_flushed),
		cmocka_unit_test(test_bounced),		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_clock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
