/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host library against a core that only answers: the handshake, completions and what the shadow queues make of
 * them, the kick, and the end of the core.
 */
#include "host_rig.h"

#include "host/queue.h"

static const struct ibv_qp_cap usual = {
	.max_send_wr = 8, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1};

/* ---- handshake ---- */

/* Why a core with such manners cannot be used; the list's errno. */
static int list_errno(enum manners manners)
{
	struct core *c = core_start(6, manners);
	int err = rig_list_errno();

	assert_int_not_equal(err, 0);
	core_end(c);
	return err;
}

static void test_refused(void **state)
{
	(void)state;
	assert_int_equal(list_errno(CORE_REFUSES), EPERM);
	assert_string_equal(flexins_why(), "play: no more than 0 contexts for you");
}

static void expect_both_versions(void)
{
	char mine[32], theirs[32];

	snprintf(mine, sizeof(mine), "ABI %u", FX_ABI_VERSION);
	snprintf(theirs, sizeof(theirs), "ABI %u", FX_ABI_VERSION + 1);
	assert_non_null(strstr(flexins_why(), mine));
	assert_non_null(strstr(flexins_why(), theirs));
}

static void test_other_abi(void **state)
{
	(void)state;
	assert_int_equal(list_errno(CORE_OTHER_ABI), EPROTONOSUPPORT);
	expect_both_versions();
	assert_non_null(strstr(flexins_why(), "9.8.7-play"));
	assert_non_null(strstr(flexins_why(), FLEXINS_VERSION));
}

/* Another ABI's reply need not be as long as ours. */
static void test_other_abi_short(void **state)
{
	(void)state;
	assert_int_equal(list_errno(CORE_SHORT), EPROTONOSUPPORT);
	expect_both_versions();
}

static void test_few_fds(void **state)
{
	(void)state;
	assert_int_equal(list_errno(CORE_FEW_FDS), EPROTO);
	assert_non_null(strstr(flexins_why(), "2 descriptors"));
}

static void test_no_core(void **state)
{
	struct ibv_device **list;

	(void)state;
	setenv("FLEXINS_SOCKET", "/nonexistent/play.sock", 1);
	list = flexins_get_device_list(NULL);
	assert_int_equal(errno, ENOENT);
	assert_non_null(strstr(flexins_why(), "/nonexistent/play.sock"));
	flexins_free_device_list(list);
}

/* A page of another layout is found out before anything is posted. */
static void test_old_page(void **state)
{
	struct core *c = core_start(6, CORE_OLD_PAGE);
	struct ibv_device **list = flexins_get_device_list(NULL);

	(void)state;
	assert_non_null(list[0]);
	assert_null(flexins_open_device(list[0]));
	assert_int_equal(errno, EPROTO);
	assert_non_null(strstr(flexins_why(), "handshake"));
	flexins_free_device_list(list);
	core_end(c);
}

/* A failure that has nothing to add says nothing, whatever was said before. */
static void test_why_is_fresh(void **state)
{
	struct rig r;

	(void)state;
	assert_int_equal(list_errno(CORE_REFUSES), EPERM);
	assert_true(flexins_why()[0]);
	r = rig_start(6, &usual);
	assert_null(flexins_create_cq(r.ctx, 0, NULL, NULL, 0));
	assert_int_equal(errno, EINVAL);
	assert_string_equal(flexins_why(), "");
	r.core->fail = EINVAL;
	assert_int_equal(rig_move(r.qp, IBV_QPS_SQD), EINVAL);
	assert_string_equal(flexins_why(), "play: this transition was to fail");
	assert_int_equal(rig_send(r.qp, 0, IBV_SEND_IP_CSUM), EINVAL);
	assert_string_equal(flexins_why(), "");
	rig_end(&r);
}

/* ---- objects ---- */

static void test_objects(void **state)
{
	struct rig r = rig_start(6, &usual);
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	char buf[100];
	struct ibv_mr *mr = flexins_reg_mr(r.pd, buf, sizeof(buf), IBV_ACCESS_LOCAL_WRITE);
	struct ibv_device_attr device;
	struct ibv_mw *mw;

	(void)state;
	assert_non_null(mr);
	assert_int_equal(mr->lkey, 0x101);
	assert_int_equal(mr->rkey, 0x201);
	assert_int_equal(r.core->made[0].max_send_wr, usual.max_send_wr);
	assert_int_equal(r.core->made[0].rq_off % FX_LINE, 0);
	assert_true(r.core->made[0].rq_off >= CORE_HEAP);
	assert_int_equal(flexins_destroy_cq(r.cq), EBUSY);
	assert_int_equal(flexins_dealloc_pd(r.pd), EBUSY);
	assert_int_equal(flexins_query_qp(r.qp, &attr, 0, &init), 0);
	assert_int_equal(attr.qp_state, IBV_QPS_RTS);
	assert_int_equal(attr.cap.max_send_wr, usual.max_send_wr);
	assert_int_equal(init.cap.max_recv_wr, usual.max_recv_wr);
	assert_int_equal(flexins_destroy_qp(r.qp), 0);
	r.qp = NULL;
	assert_int_equal(flexins_dealloc_pd(r.pd), EBUSY); /* the region */
	assert_int_equal(flexins_dereg_mr(mr), 0);
	mw = flexins_alloc_mw(r.pd, IBV_MW_TYPE_2);
	assert_non_null(mw);
	assert_ptr_equal(mw->pd, r.pd);
	assert_int_equal(mw->type, IBV_MW_TYPE_2);
	assert_int_equal(flexins_dealloc_pd(r.pd), EBUSY);
	assert_int_equal(flexins_dealloc_mw(mw), 0);
	assert_int_equal(flexins_query_device(r.ctx, &device), 0);
	assert_int_equal(device.max_mw, 8);
	assert_true(device.device_cap_flags & IBV_DEVICE_MEM_WINDOW);
	assert_true(device.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B);
	assert_int_equal(r.core->seen[FX_MSG_DEREG_MR], 1);
	assert_int_equal(r.core->seen[FX_MSG_DESTROY_QP], 1);
	rig_end(&r);
}

/* Where addresses begin, and what pages are like, is said by the iova and the plan: the core knows no such rights. */
static void test_zero_based(void **state)
{
	const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ZERO_BASED | IBV_ACCESS_HUGETLB;
	struct rig r = rig_start(6, &usual);
	char buf[100];
	struct ibv_mr *mr = flexins_reg_mr(r.pd, buf, sizeof(buf), access);

	(void)state;
	assert_non_null(mr);
	assert_int_equal(r.core->registered.iova, 0);
	assert_int_equal(r.core->registered.addr, (uintptr_t)buf);
	assert_int_equal(r.core->registered.access, IBV_ACCESS_LOCAL_WRITE);
	assert_int_equal(flexins_dereg_mr(mr), 0);
	rig_end(&r);
}

/* A RESET that the core refuses leaves the QP as it was; one that it grants tells where the counters go on. */
static void test_modify(void **state)
{
	struct rig r = rig_start(6, &usual);

	(void)state;
	assert_int_equal(rig_send(r.qp, 1, 0), 0);
	assert_int_equal(rig_recv(r.qp, 2), 0);
	assert_int_equal(rig_recv(r.qp, 3), 0);
	r.core->fail = EIO;
	assert_int_equal(rig_move(r.qp, IBV_QPS_RESET), EIO);
	assert_int_equal(r.qp->state, IBV_QPS_RTS);
	assert_int_equal(rig_send(r.qp, 4, 0), 0);
	assert_int_equal(rig_move(r.qp, IBV_QPS_RESET), 0);
	assert_int_equal(r.qp->state, IBV_QPS_RESET);
	assert_int_equal(r.core->modified.sq_index, 2);
	assert_int_equal(r.core->modified.rq_index, 2);
	assert_int_equal(r.core->modified.pipe_pi, 2);
	assert_int_equal(rig_send(r.qp, 5, 0), EINVAL);
	rig_end(&r);
}

/* ---- polling ---- */

static void test_unsignaled(void **state)
{
	struct rig r = rig_start(6, &usual);
	struct ibv_wc wc[4];

	(void)state;
	for (uint64_t i = 0; i < 4; i++)
		assert_int_equal(rig_send(r.qp, 100 + i, i == 3 ? IBV_SEND_SIGNALED : 0), 0);
	assert_int_equal(rig_poll(&r, 4, wc), 0);
	rig_complete(&r, r.qp, CORE_GEN, 3, FX_WC_SEND);
	assert_int_equal(r.core->cq[0].head->ci, 0);
	assert_int_equal(rig_poll(&r, 4, wc), 1);
	assert_int_equal(wc[0].wr_id, 103);
	assert_int_equal(wc[0].opcode, IBV_WC_SEND);
	assert_int_equal(wc[0].status, IBV_WC_SUCCESS);
	assert_int_equal(wc[0].qp_num, r.qp->qp_num);
	assert_int_equal(r.core->cq[0].head->ci, 1);
	for (uint64_t i = 0; i < usual.max_send_wr; i++) /* all four have gone */
		assert_int_equal(rig_send(r.qp, i, 0), 0);
	assert_int_equal(rig_send(r.qp, 9, 0), ENOMEM);
	/* an unsignaled one that fails is told, one that succeeds is not */
	rig_complete(&r, r.qp, CORE_GEN, 4, FX_WC_SEND);
	assert_int_equal(rig_poll(&r, 4, wc), 0);
	assert_int_equal(r.core->cq[0].head->ci, 2);
	fx_cq_push(&r.core->cq[0], &(struct fx_cqe){.qpn_gen = fx_qpn_gen(r.qp->qp_num, CORE_GEN),
						    .index = 6,
						    .status = FX_WC_RETRY_EXC_ERR,
						    .syndrome = 0x81});
	assert_int_equal(rig_poll(&r, 4, wc), 1);
	assert_int_equal(wc[0].wr_id, 2);
	assert_int_equal(wc[0].status, IBV_WC_RETRY_EXC_ERR);
	assert_int_equal(wc[0].vendor_err, 0x81);
	rig_end(&r);
}

static void test_receives(void **state)
{
	struct rig r = rig_start(6, &usual);
	struct fx_cqe c = {.qpn_gen = fx_qpn_gen(r.qp->qp_num, CORE_GEN),
			   .byte_len = 77,
			   .imm = htonl(0xabcd),
			   .src_qp = 5,
			   .opcode = FX_WC_RECV_RDMA_WITH_IMM,
			   .flags = FX_WCF_IMM | FX_WCF_SOLICITED};
	struct ibv_wc wc[4];

	(void)state;
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(rig_recv(r.qp, 200 + i), 0);
	assert_int_equal(rig_send(r.qp, 300, IBV_SEND_SIGNALED), 0);
	fx_cq_push(&r.core->cq[0], &c);
	rig_complete(&r, r.qp, CORE_GEN, 0, FX_WC_SEND);
	rig_complete(&r, r.qp, CORE_GEN, 1, FX_WC_RECV);
	assert_int_equal(rig_poll(&r, 0, wc), 0);
	assert_int_equal(rig_poll(&r, 2, wc), 2); /* no more than asked for */
	assert_int_equal(r.core->cq[0].head->ci, 2);
	assert_int_equal(wc[0].wr_id, 200);
	assert_int_equal(wc[0].opcode, IBV_WC_RECV_RDMA_WITH_IMM);
	assert_int_equal(wc[0].byte_len, 77);
	assert_int_equal(wc[0].imm_data, htonl(0xabcd));
	assert_int_equal(wc[0].wc_flags, IBV_WC_WITH_IMM);
	assert_int_equal(wc[0].src_qp, 5);
	assert_int_equal(wc[1].wr_id, 300);
	assert_int_equal(rig_poll(&r, 4, wc), 1);
	assert_int_equal(wc[0].wr_id, 201);
	assert_int_equal(wc[0].opcode, IBV_WC_RECV);
	/* a key that the peer gave back is a number of this machine's order */
	c = (struct fx_cqe){.qpn_gen = fx_qpn_gen(r.qp->qp_num, CORE_GEN),
			    .index = 2,
			    .imm = 0x12345678,
			    .opcode = FX_WC_RECV,
			    .flags = FX_WCF_INV};
	fx_cq_push(&r.core->cq[0], &c);
	assert_int_equal(rig_poll(&r, 4, wc), 1);
	assert_int_equal(wc[0].wc_flags, IBV_WC_WITH_INV);
	assert_int_equal(wc[0].invalidated_rkey, 0x12345678);
	rig_end(&r);
}

/* Neither what was never posted nor what completed before completes. */
static void test_not_outstanding(void **state)
{
	struct rig r = rig_start(6, &usual);
	struct ibv_wc wc[4];

	(void)state;
	rig_complete(&r, r.qp, CORE_GEN, 0, FX_WC_SEND);
	assert_int_equal(rig_poll(&r, 4, wc), 0);
	assert_int_equal(rig_send(r.qp, 1, IBV_SEND_SIGNALED), 0);
	for (uint32_t index = 0; index < 3; index++) {
		rig_complete(&r, r.qp, CORE_GEN, 0, FX_WC_SEND);
		rig_complete(&r, r.qp, CORE_GEN, index, FX_WC_SEND);
	}
	assert_int_equal(rig_poll(&r, 4, wc), 1);
	assert_int_equal(wc[0].wr_id, 1);
	assert_int_equal(rig_poll(&r, 4, wc), 0);
	assert_int_equal(r.core->cq[0].head->ci, 7);
	rig_end(&r);
}

/* After RESET nothing posted before completes: not by its generation, nor by its index under the new one. */
static void test_stale_generation(void **state)
{
	struct rig r = rig_start(6, &usual);
	struct ibv_wc wc[4];

	(void)state;
	assert_int_equal(rig_send(r.qp, 1, IBV_SEND_SIGNALED), 0);
	assert_int_equal(rig_recv(r.qp, 2), 0);
	assert_int_equal(rig_move(r.qp, IBV_QPS_RESET), 0);
	assert_int_equal(rig_move(r.qp, IBV_QPS_RTS), 0);
	assert_int_equal(rig_send(r.qp, 3, IBV_SEND_SIGNALED), 0);
	assert_int_equal(rig_recv(r.qp, 4), 0);
	rig_complete(&r, r.qp, CORE_GEN, 0, FX_WC_SEND);
	rig_complete(&r, r.qp, CORE_GEN, 1, FX_WC_SEND);
	rig_complete(&r, r.qp, CORE_GEN, 0, FX_WC_RECV);
	rig_complete(&r, r.qp, CORE_GEN + 1, 0, FX_WC_RECV);
	assert_int_equal(rig_poll(&r, 4, wc), 0);
	assert_int_equal(r.core->cq[0].head->ci, 4);
	rig_complete(&r, r.qp, CORE_GEN + 1, 1, FX_WC_SEND);
	rig_complete(&r, r.qp, CORE_GEN + 1, 1, FX_WC_RECV);
	assert_int_equal(rig_poll(&r, 4, wc), 2);
	assert_int_equal(wc[0].wr_id, 3);
	assert_int_equal(wc[1].wr_id, 4);
	rig_end(&r);
}

static void test_destroyed_qp(void **state)
{
	struct rig r = rig_start(6, &usual);
	struct ibv_qp gone = *r.qp, *other = rig_qp(&r, &usual);
	struct ibv_wc wc[4];

	(void)state;
	assert_int_equal(rig_move(other, IBV_QPS_RTS), 0);
	assert_int_equal(rig_send(r.qp, 1, IBV_SEND_SIGNALED), 0);
	assert_int_equal(rig_send(other, 2, IBV_SEND_SIGNALED), 0);
	assert_int_equal(flexins_destroy_qp(r.qp), 0);
	rig_complete(&r, &gone, CORE_GEN, 0, FX_WC_SEND);
	rig_complete(&r, other, CORE_GEN, 0, FX_WC_SEND);
	assert_int_equal(rig_poll(&r, 4, wc), 1);
	assert_int_equal(wc[0].wr_id, 2);
	assert_int_equal(r.core->cq[0].head->ci, 2);
	r.qp = other;
	rig_end(&r);
}

/* A CQ's ring is gone round more than once. */
static void test_laps(void **state)
{
	struct rig r = rig_start(4, &usual);
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	struct ibv_wc wc[2];

	(void)state;
	for (uint32_t i = 0; i < 300; i++) {
		assert_int_equal(rig_send(r.qp, i, IBV_SEND_SIGNALED), 0);
		assert_int_equal(fx_pipe_take(&r.core->pipe, slot), 1);
		fx_pipe_publish_ci(&r.core->pipe);
		assert_int_equal(slot->index, i);
		rig_complete(&r, r.qp, CORE_GEN, i, FX_WC_SEND);
		assert_int_equal(rig_poll(&r, 2, wc), 1);
		assert_int_equal(wc[0].wr_id, i);
		assert_int_equal(rig_poll(&r, 2, wc), 0);
	}
	rig_end(&r);
}

/* The table of a CQ's QPs against a plain array, with removals from the midst of collisions. */
static void test_table(void **state)
{
	struct fx_qp_table t = {0};
	bool there[256] = {false};
	uint32_t seed = 1;

	(void)state;
	for (unsigned turn = 0; turn < 20000; turn++) {
		uint32_t i, qpn;

		seed = seed * 1664525u + 1013904223u;
		i = seed >> 24;
		qpn = i * 4096;
		if (there[i])
			fx_qp_remove(&t, qpn);
		else if (seed >> 8 & 1)
			assert_int_equal(fx_qp_insert(&t, qpn, (struct fx_vqp *)&there[i]), 0);
		else
			continue;
		there[i] = !there[i];
		for (uint32_t k = turn % 16; k < 256; k += 16)
			assert_ptr_equal(fx_qp_find(&t, k * 4096), there[k] ? (void *)&there[k] : NULL);
	}
	free(t.e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),		cmocka_unit_test(test_other_abi),
		cmocka_unit_test(test_other_abi_short), cmocka_unit_test(test_few_fds),
		cmocka_unit_test(test_no_core),		cmocka_unit_test(test_old_page),
		cmocka_unit_test(test_why_is_fresh),	cmocka_unit_test(test_objects),
		cmocka_unit_test(test_zero_based),	cmocka_unit_test(test_modify),
		cmocka_unit_test(test_unsignaled),	cmocka_unit_test(test_receives),
		cmocka_unit_test(test_not_outstanding), cmocka_unit_test(test_stale_generation),
		cmocka_unit_test(test_destroyed_qp),	cmocka_unit_test(test_laps),
		cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
