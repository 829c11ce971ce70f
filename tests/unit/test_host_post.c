/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Posting: every error that it returns, which request it names, and what was posted before it.
 */
#include "host_rig.h"

static const struct ibv_qp_cap wide = {.max_send_wr = 32,
				       .max_recv_wr = 6,
				       .max_send_sge = FX_MAX_SGE,
				       .max_recv_sge = FX_MAX_SGE,
				       .max_inline_data = FX_MAX_INLINE};
static const struct ibv_qp_cap narrow = {.max_send_wr = 64, .max_send_sge = 2, .max_inline_data = 40};

/* A list of three whose midst is `wr`: the first is posted, `wr` is not, nor is what follows. */
static void expect_bad(struct rig *r, struct ibv_send_wr wr, int err)
{
	struct ibv_send_wr last = {.opcode = IBV_WR_SEND}, first = {.opcode = IBV_WR_SEND, .next = &wr},
			   *bad = NULL;
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];

	wr.next = &last;
	assert_int_equal(flexins_post_send(r->qp, &first, &bad), err);
	assert_int_equal(errno, err);
	assert_ptr_equal(bad, &wr);
	assert_int_equal(fx_pipe_take(&r->core->pipe, slot), 1);
	assert_int_equal(fx_pipe_take(&r->core->pipe, slot), 0);
	fx_pipe_publish_ci(&r->core->pipe);
}

static void test_send_states(void **state)
{
	static const struct {
		enum ibv_qp_state state;
		int err;
	} cases[] = {
		{IBV_QPS_RESET, EINVAL}, {IBV_QPS_INIT, EINVAL}, {IBV_QPS_RTR, EINVAL}, {IBV_QPS_RTS, 0},
		{IBV_QPS_SQD, 0},	 {IBV_QPS_SQE, 0},	 {IBV_QPS_ERR, 0},
	};
	struct rig r = rig_start(6, &wide);

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ibv_send_wr wr = {.opcode = IBV_WR_SEND}, *bad = NULL;
		struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];

		assert_int_equal(rig_move(r.qp, cases[i].state), 0);
		assert_int_equal(flexins_post_send(r.qp, &wr, &bad), cases[i].err);
		assert_ptr_equal(bad, cases[i].err ? &wr : NULL);
		assert_int_equal(fx_pipe_take(&r.core->pipe, slot), !cases[i].err);
	}
	rig_end(&r);
}

static void test_recv_states(void **state)
{
	struct rig r = rig_start(6, &wide);
	struct ibv_recv_wr wr = {.wr_id = 1}, *bad = NULL;
	struct fx_sge sge[FX_MAX_SGE];

	(void)state;
	assert_int_equal(rig_move(r.qp, IBV_QPS_RESET), 0);
	assert_int_equal(flexins_post_recv(r.qp, &wr, &bad), EINVAL);
	assert_int_equal(errno, EINVAL);
	assert_ptr_equal(bad, &wr);
	assert_int_equal(fx_rq_take(&r.core->rq[0], sge, FX_MAX_SGE), -EAGAIN);
	for (int s = IBV_QPS_INIT; s <= IBV_QPS_ERR; s++) {
		assert_int_equal(rig_move(r.qp, (enum ibv_qp_state)s), 0);
		assert_int_equal(flexins_post_recv(r.qp, &wr, &bad), 0);
		assert_int_equal(fx_rq_take(&r.core->rq[0], sge, FX_MAX_SGE), 0);
	}
	rig_end(&r);
}

static void test_send_opcodes(void **state)
{
	static const int unknown[] = {12, 13, 16, 99, 0x7fffffff, -1};
	static const int absent[] = {IBV_WR_TSO, IBV_WR_DRIVER1};
	struct rig r = rig_start(6, &narrow);

	(void)state;
	for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		expect_bad(&r, (struct ibv_send_wr){.opcode = (enum ibv_wr_opcode)unknown[i]}, EINVAL);
	for (unsigned i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
		expect_bad(&r, (struct ibv_send_wr){.opcode = (enum ibv_wr_opcode)absent[i]}, EOPNOTSUPP);
	rig_end(&r);
}

static void test_send_flags(void **state)
{
	struct rig r = rig_start(6, &narrow);

	(void)state;
	for (unsigned bit = 4; bit < 32; bit++)
		expect_bad(&r, (struct ibv_send_wr){.opcode = IBV_WR_SEND, .send_flags = 1u << bit}, EINVAL);
	rig_end(&r);
}

static void test_send_sges(void **state)
{
	struct rig r = rig_start(6, &narrow);
	struct ibv_sge sge[3] = {{8, 20, 1}, {8, 20, 1}, {8, 20, 1}};
	struct ibv_send_wr wr = {.opcode = IBV_WR_SEND, .sg_list = sge, .num_sge = 3};

	(void)state;
	expect_bad(&r, wr, EINVAL); /* beyond max_send_sge */
	wr.num_sge = -1;
	expect_bad(&r, wr, EINVAL);
	for (wr.num_sge = 0; wr.num_sge <= 2; wr.num_sge += 2) { /* an atomic has one landing */
		wr.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
		expect_bad(&r, wr, EINVAL);
		wr.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
		expect_bad(&r, wr, EINVAL);
	}
	rig_end(&r);
}

/* Eight bytes, no more and no less, in one SGE; inline whatever max_inline_data is. */
static void test_send_words(void **state)
{
	static const struct ibv_qp_cap none = {.max_send_wr = 8, .max_send_sge = 2};
	struct rig r = rig_start(6, &none);
	uint64_t word = 0x1122334455667788;
	struct ibv_sge sge[2] = {{(uintptr_t)&word, 7, 1}, {(uintptr_t)&word, 1, 1}};
	struct ibv_send_wr wr = {.opcode = IBV_WR_ATOMIC_WRITE, .sg_list = sge, .num_sge = 2}, *bad;
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];

	(void)state;
	expect_bad(&r, wr, EINVAL);
	wr.num_sge = 1;
	expect_bad(&r, wr, EINVAL);
	sge[0].length = 9;
	expect_bad(&r, wr, EINVAL);
	wr.num_sge = 0;
	expect_bad(&r, wr, EINVAL);
	sge[0].length = 8;
	wr.num_sge = 1;
	wr.send_flags = IBV_SEND_INLINE;
	assert_int_equal(flexins_post_send(r.qp, &wr, &bad), 0);
	assert_int_equal(fx_pipe_take(&r.core->pipe, slot), 1);
	assert_int_equal(slot[0].opcode, FX_WR_ATOMIC_WRITE);
	assert_int_equal(slot[0].rdma.inline_len, 8);
	assert_memory_equal(&slot[0].sge, &word, 8);
	rig_end(&r);
}

static void test_send_inline(void **state)
{
	static const enum ibv_wr_opcode no_data[] = {IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP,
						     IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_LOCAL_INV};
	struct rig r = rig_start(6, &narrow);
	uint8_t data[64] = {0};
	struct ibv_sge sge[2] = {{(uintptr_t)data, 20, 1}, {(uintptr_t)data, 21, 1}}; /* one byte too many */
	struct ibv_sge huge[2] = {{(uintptr_t)data, 1, 1},
				  {(uintptr_t)data, UINT32_MAX, 1}}; /* the sum wraps */
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_SEND, .sg_list = sge, .num_sge = 2, .send_flags = IBV_SEND_INLINE};

	(void)state;
	expect_bad(&r, wr, EINVAL);
	wr.sg_list = huge;
	expect_bad(&r, wr, EINVAL);
	wr.sg_list = sge;
	wr.num_sge = 1;
	for (unsigned i = 0; i < sizeof(no_data) / sizeof(no_data[0]); i++) {
		wr.opcode = no_data[i];
		expect_bad(&r, wr, EINVAL);
	}
	rig_end(&r);
}

/* What a bind lacks; and one that is not posted changes no key. */
static void test_binds(void **state)
{
	struct rig r = rig_start(6, &narrow);
	struct ibv_mw *one = flexins_alloc_mw(r.pd, IBV_MW_TYPE_1),
		      *two = flexins_alloc_mw(r.pd, IBV_MW_TYPE_2);
	struct ibv_mr mr = {.context = r.ctx, .pd = r.pd};
	struct ibv_send_wr wr = {.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_INLINE};
	struct ibv_mw_bind bind = {.bind_info = {.mr = &mr, .length = 1}};
	uint32_t rkey = one->rkey;

	(void)state;
	assert_null(flexins_alloc_mw(r.pd, (enum ibv_mw_type)3));
	assert_int_equal(errno, EINVAL);
	wr.bind_mw.mw = two;
	expect_bad(&r, wr, EINVAL); /* inline */
	wr.send_flags = 0;
	wr.bind_mw.bind_info.length = 1;
	expect_bad(&r, wr, EINVAL); /* of no region */
	wr.bind_mw.bind_info.length = 0;
	wr.bind_mw.mw = NULL;
	expect_bad(&r, wr, EINVAL);
	assert_int_equal(flexins_bind_mw(r.qp, two, &bind), EINVAL);
	bind.bind_info.mw_access_flags = IBV_ACCESS_ZERO_BASED;
	assert_int_equal(flexins_bind_mw(r.qp, one, &bind), EINVAL);
	bind.bind_info.mw_access_flags = 0;
	assert_int_equal(rig_move(r.qp, IBV_QPS_RESET), 0);
	assert_int_equal(flexins_bind_mw(r.qp, one, &bind), EINVAL);
	assert_int_equal(one->rkey, rkey);
	assert_int_equal(flexins_dealloc_pd(r.pd), EBUSY);
	assert_int_equal(flexins_dealloc_mw(one), 0);
	assert_int_equal(flexins_dealloc_mw(two), 0);
	rig_end(&r);
}

/* max_send_wr, no power of two, are outstanding until a completion of them was polled. */
static void test_send_full(void **state)
{
	const struct ibv_qp_cap cap = {.max_send_wr = 5, .max_recv_wr = 3};
	struct ibv_send_wr list[4] = {{.next = &list[1]}, {.next = &list[2]}, {.next = &list[3]}},
			   *bad = NULL;
	struct rig r = rig_start(6, &cap);
	struct ibv_wc wc[8];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		list[i].opcode = IBV_WR_SEND;
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(rig_send(r.qp, i, i == 2 ? IBV_SEND_SIGNALED : 0), 0);
	assert_int_equal(rig_send(r.qp, 5, 0), ENOMEM);
	r.core->pipe.ci = 5; /* taken from the pipe: that frees nothing */
	fx_pipe_publish_ci(&r.core->pipe);
	assert_int_equal(rig_send(r.qp, 5, 0), ENOMEM);
	rig_complete(&r, r.qp, CORE_GEN, 2, FX_WC_SEND); /* nor does a completion before it is polled */
	assert_int_equal(rig_send(r.qp, 5, 0), ENOMEM);
	assert_int_equal(rig_poll(&r, 8, wc), 1);
	assert_int_equal(wc[0].wr_id, 2);
	assert_int_equal(flexins_post_send(r.qp, list, &bad),
			 ENOMEM); /* the list ends where the queue is full */
	assert_int_equal(errno, ENOMEM);
	assert_ptr_equal(bad, &list[3]);
	rig_end(&r);
}

/* The list ends where the queue is full. */
static void test_recv_full(void **state)
{
	const struct ibv_qp_cap cap = {.max_send_wr = 1, .max_recv_wr = 3, .max_recv_sge = 2};
	struct rig r = rig_start(6, &cap);
	struct ibv_sge sge[3] = {{1, 1, 1}, {2, 2, 2}, {3, 3, 3}};
	struct ibv_recv_wr wr[4] = {{.next = &wr[1]}, {.next = &wr[2]}, {.next = &wr[3]}, {.wr_id = 3}},
			   *bad = NULL;
	struct ibv_wc wc[4];

	(void)state;
	wr[1].sg_list = sge;
	wr[1].num_sge = 3;
	assert_int_equal(flexins_post_recv(r.qp, wr, &bad), EINVAL); /* the first is posted */
	assert_ptr_equal(bad, &wr[1]);
	wr[1].num_sge = -1;
	bad = NULL;
	assert_int_equal(flexins_post_recv(r.qp, &wr[1], &bad), EINVAL);
	assert_ptr_equal(bad, &wr[1]);
	wr[1].num_sge = 2;
	assert_int_equal(flexins_post_recv(r.qp, &wr[1], &bad), ENOMEM); /* two more */
	assert_int_equal(errno, ENOMEM);
	assert_ptr_equal(bad, &wr[3]);
	rig_complete(&r, r.qp, CORE_GEN, 0, FX_WC_RECV);
	assert_int_equal(flexins_post_recv(r.qp, &wr[3], &bad), ENOMEM);
	assert_int_equal(rig_poll(&r, 4, wc), 1);
	assert_int_equal(flexins_post_recv(r.qp, &wr[3], &bad), 0);
	assert_int_equal(flexins_post_recv(r.qp, &wr[3], &bad), ENOMEM);
	rig_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_send_states),  cmocka_unit_test(test_recv_states),
		cmocka_unit_test(test_send_opcodes), cmocka_unit_test(test_send_flags),
		cmocka_unit_test(test_send_sges),    cmocka_unit_test(test_send_inline),
		cmocka_unit_test(test_send_words),   cmocka_unit_test(test_send_full),
		cmocka_unit_test(test_recv_full),    cmocka_unit_test(test_binds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
