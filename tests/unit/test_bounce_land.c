/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Landings in slow memory: copied when their completion is polled, and never where they must not be; buffers come back
 * however a request ends.
 */
#include "bounce_rig.h"
#include "emulated.h"

static void fill(uint8_t *p, uint32_t len, uint32_t seed)
{
	for (uint32_t i = 0; i < len; i++)
		p[i] = (uint8_t)(seed + i * 3);
}

static bool holds(const uint8_t *p, uint32_t len, uint32_t seed)
{
	for (uint32_t i = 0; i < len; i++)
		if (p[i] != (uint8_t)(seed + i * 3))
			return false;
	return true;
}

static bool untouched(const struct bounced *b, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		if (b->mem[i] != pattern(i))
			return false;
	return true;
}

/* As many bytes as came, and when the completion is polled. */
static void test_recv(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);

	(void)state;
	for (uint32_t len = 0; len <= 3000; len += 750) {
		struct fx_sge s = recv_posted(&b, sge_of(&b, SLOW_LO + 1, 3000));
		struct ibv_wc wc;

		fill(in_pool(&b, &s, 3000), 3000, len);
		assert_true(untouched(&b, 0, REGION));
		wc = completed(&b, FX_WC_RECV, b.rindex - 1, 0, len);
		assert_int_equal(wc.status, 0);
		assert_int_equal(wc.byte_len, len);
		assert_int_equal(wc.wr_id, 1000 + b.rindex - 1);
		assert_true(holds(b.mem + SLOW_LO + 1, len, len));
		assert_true(untouched(&b, 0, SLOW_LO + 1) && untouched(&b, SLOW_LO + 1 + len, REGION));
		refill(&b);
	}
	bounce_end(&b);
}

/* The immediate of a WRITE takes a receive and puts nothing there. */
static void test_recv_imm(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct fx_sge s = recv_posted(&b, sge_of(&b, SLOW_LO, 100));

	(void)state;
	memset(in_pool(&b, &s, 100), 0, 100);
	assert_int_equal(completed(&b, FX_WC_RECV_RDMA_WITH_IMM, 0, 0, 100).status, 0);
	assert_true(untouched(&b, 0, REGION));
	bounce_end(&b);
}

/* A message over fast, slow, empty and fast SGEs, that ends in each of them. */
static void test_mixed(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_sge sge[4] = {sge_of(&b, 0, 100), sge_of(&b, SLOW_HI - 200, 300), sge_of(&b, 7, 0),
				 sge_of(&b, SLOW_LO, 50)};
	const uint32_t ends[] = {90, 100, 150, 350, 420, 450};

	(void)state;
	for (uint32_t i = 0; i < 6; i++) {
		uint32_t slow1 = ends[i] < 100 ? 0 : ends[i] - 100 < 200 ? ends[i] - 100 : 200;
		uint32_t slow2 = ends[i] < 400 ? 0 : ends[i] - 400;
		struct ibv_recv_wr wr = {.sg_list = sge, .num_sge = 4}, *bad;
		struct fx_sge got[FX_MAX_SGE];

		assert_int_equal(flexins_post_recv(b.r.qp, &wr, &bad), 0);
		assert_int_equal(fx_rq_take(&b.r.core->rq[0], got, FX_MAX_SGE), 5);
		assert_true(same_sge(&got[0], &sge[0]) && same_sge(&got[3], &sge[2]));
		assert_int_equal(got[2].addr, (uintptr_t)b.mem + SLOW_HI);
		assert_int_equal(got[2].length, 100);
		fill(in_pool(&b, &got[1], 200), 200, 1);
		fill(in_pool(&b, &got[4], 50), 50, 2);
		completed(&b, FX_WC_RECV, i, 0, ends[i]);
		assert_true(holds(b.mem + SLOW_HI - 200, slow1, 1) && holds(b.mem + SLOW_LO, slow2, 2));
		assert_true(untouched(&b, SLOW_HI - 200 + slow1, REGION) && untouched(&b, 0, SLOW_LO));
		assert_true(untouched(&b, SLOW_LO + slow2, SLOW_HI - 200));
		refill(&b);
	}
	bounce_end(&b);
}

static void test_read(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct entry e = sent(&b, IBV_WR_RDMA_READ, IBV_SEND_SIGNALED, sge_of(&b, SLOW_LO, 5000));

	(void)state;
	assert_int_equal(e.head.opcode, FX_WR_READ);
	fill(in_pool(&b, &e.sge[0], 5000), 5000, 9);
	assert_true(untouched(&b, 0, REGION));
	assert_int_equal(completed(&b, FX_WC_RDMA_READ, 0, 0, 5000).wr_id, 0);
	assert_true(holds(b.mem + SLOW_LO, 5000, 9) && untouched(&b, SLOW_LO + 5000, REGION));
	bounce_end(&b);
}

/* Eight bytes, however long the SGE is; one that is too short is the core's to refuse. */
static void test_atomic(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_sge small = sge_of(&b, SLOW_LO, 7);
	struct entry e =
		sent(&b, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_SEND_SIGNALED, sge_of(&b, SLOW_HI - 4, 100));

	(void)state;
	assert_int_equal(e.head.nsge, 1);
	fill(in_pool(&b, &e.sge[0], 8), 8, 3);
	assert_int_equal(completed(&b, FX_WC_FETCH_ADD, 0, 0, 8).status, 0);
	assert_true(holds(b.mem + SLOW_HI - 4, 8, 3) && untouched(&b, SLOW_HI + 4, REGION));
	e = sent(&b, IBV_WR_ATOMIC_CMP_AND_SWP, 0, small);
	assert_true(same_sge(&e.sge[0], &small));
	bounce_end(&b);
}

/* Unsignaled READs are in place once a later request's completion was polled, be it an error. */
static void test_unsignaled(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct entry e[3];

	(void)state;
	for (uint32_t round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < 3; i++) {
			e[i] = sent(&b, IBV_WR_RDMA_READ, 0, sge_of(&b, SLOW_LO + i * 600, 600));
			fill(in_pool(&b, &e[i].sge[0], 600), 600, i + round);
		}
		sent(&b, IBV_WR_SEND, IBV_SEND_SIGNALED, sge_of(&b, 0, 1));
		assert_true(untouched(&b, 0, REGION));
		assert_int_equal(
			completed(&b, FX_WC_SEND, b.index - 1, round ? FX_WC_REM_ACCESS_ERR : 0, 0).wr_id,
			b.index - 1);
		for (uint32_t i = 0; i < 3; i++)
			assert_true(holds(b.mem + SLOW_LO + i * 600, 600, i + round));
		refill(&b);
	}
	bounce_end(&b);
}

/* ---- what ends otherwise ---- */

/* Request and receive, each with a buffer; -> where they were */
static void two_requests(struct bounced *b, uint8_t *at[2])
{
	struct entry e = sent(b, IBV_WR_RDMA_READ, IBV_SEND_SIGNALED, sge_of(b, SLOW_LO, 700));
	struct fx_sge s = recv_posted(b, sge_of(b, SLOW_LO + 2000, 900));

	at[0] = in_pool(b, &e.sge[0], 700);
	at[1] = in_pool(b, &s, 900);
	memset(at[0], 0, 700);
	memset(at[1], 0, 900);
}

/* Both buffers are free again, and nothing was copied. */
static void expect_back(struct bounced *b, uint8_t *before[2])
{
	uint8_t *at[2];

	assert_true(untouched(b, 0, REGION));
	two_requests(b, at);
	assert_true((at[0] == before[0] && at[1] == before[1]) || (at[0] == before[1] && at[1] == before[0]));
}

static void test_errors(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	uint8_t *at[2];

	(void)state;
	two_requests(&b, at);
	assert_int_equal(completed(&b, FX_WC_RDMA_READ, 0, FX_WC_REM_OP_ERR, 700).status, IBV_WC_REM_OP_ERR);
	assert_int_equal(completed(&b, FX_WC_RECV, 0, FX_WC_WR_FLUSH_ERR, 900).status, IBV_WC_WR_FLUSH_ERR);
	expect_back(&b, at);
	bounce_end(&b);
}

static void test_reset(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	uint8_t *at[2];

	(void)state;
	two_requests(&b, at);
	assert_int_equal(rig_move(b.r.qp, IBV_QPS_RESET), 0);
	assert_int_equal(rig_move(b.r.qp, IBV_QPS_RTS), 0);
	expect_back(&b, at);
	bounce_end(&b);
}

static void test_destroy(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	uint8_t *before[2];
	struct fx_sge got[FX_MAX_SGE];
	struct ibv_sge sge = sge_of(&b, SLOW_LO, 700);
	struct ibv_recv_wr wr = {.sg_list = &sge, .num_sge = 1}, *bad;
	uint8_t *at;

	(void)state;
	two_requests(&b, before);
	assert_int_equal(flexins_destroy_qp(b.r.qp), 0);
	b.r.qp = rig_qp(&b.r, &bounce_cap);
	assert_int_equal(rig_move(b.r.qp, IBV_QPS_RTS), 0);
	assert_int_equal(flexins_post_recv(b.r.qp, &wr, &bad), 0);
	assert_int_equal(fx_rq_take(&b.r.core->rq[1], got, FX_MAX_SGE), 1);
	at = in_pool(&b, &got[0], 700);
	assert_true(at == before[0] || at == before[1]);
	bounce_end(&b);
}

static void test_core_gone(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_wc wc[4];
	uint8_t *at[2];

	(void)state;
	two_requests(&b, at);
	b.r.core->page->alive = 0;
	core_cut(b.r.core);
	assert_int_equal(rig_poll_all(&b.r, 2, wc), 2);
	assert_int_equal(wc[0].status, IBV_WC_WR_FLUSH_ERR);
	assert_int_equal(wc[1].status, IBV_WC_WR_FLUSH_ERR);
	assert_true(untouched(&b, 0, REGION));
	/* posting still works, and needs no buffers any more */
	assert_int_equal(rig_recv(b.r.qp, 5), 0);
	assert_int_equal(rig_poll_all(&b.r, 1, wc), 1);
	bounce_end(&b);
}

/* A full pool turns nobody away: what finds no room goes as it is. */
static void test_exhaustion(void **state)
{
	const struct ibv_qp_cap deep = {.max_recv_wr = 256, .max_recv_sge = 1};
	struct bounced b = bounce_start(&deep);
	struct ibv_qp *qp[5] = {b.r.qp};
	struct ibv_sge sge = sge_of(&b, SLOW_LO, POOL_MAX);
	struct ibv_recv_wr wr = {.sg_list = &sge, .num_sge = 1}, *bad;
	struct fx_sge got[FX_MAX_SGE];

	(void)state;
	for (uint32_t i = 1; i < 5; i++) {
		qp[i] = rig_qp(&b.r, &deep);
		assert_int_equal(rig_move(qp[i], IBV_QPS_RTS), 0);
	}
	for (uint32_t i = 0; i < 4 * 256; i++) {
		assert_int_equal(flexins_post_recv(qp[i / 256], &wr, &bad), 0);
		assert_int_equal(fx_rq_take(&b.r.core->rq[i / 256], got, FX_MAX_SGE), 1);
		in_pool(&b, &got[0], POOL_MAX);
	}
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(flexins_post_recv(qp[4], &wr, &bad), 0);
		assert_int_equal(fx_rq_take(&b.r.core->rq[4], got, FX_MAX_SGE), 1);
		assert_true(same_sge(&got[0], &sge));
	}
	assert_int_equal(completed(&b, FX_WC_RECV, 0, 0, 0).status, 0);
	assert_int_equal(flexins_post_recv(qp[4], &wr, &bad), 0);
	assert_int_equal(fx_rq_take(&b.r.core->rq[4], got, FX_MAX_SGE), 1);
	in_pool(&b, &got[0], POOL_MAX);
	for (uint32_t i = 1; i < 5; i++)
		assert_int_equal(flexins_destroy_qp(qp[i]), 0);
	bounce_end(&b);
}

/* ---- memory that is not there any more ---- */

static void test_deregistered(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct fx_sge s = recv_posted(&b, sge_of(&b, SLOW_LO, 100));
	struct ibv_wc wc;

	(void)state;
	memset(in_pool(&b, &s, 100), 0, 100);
	assert_int_equal(flexins_dereg_mr(b.mr), 0);
	b.mr = NULL;
	wc = completed(&b, FX_WC_RECV, 0, 0, 100);
	assert_int_equal(wc.status, IBV_WC_LOC_PROT_ERR);
	assert_int_equal(wc.wr_id, 1000);
	assert_true(untouched(&b, 0, REGION));
	bounce_end(&b);
}

static void test_unmapped(void **state)
{
	struct bounced b;

	(void)state;
	if (passed_over())
		return;
	b = bounce_start(&bounce_cap);
	recv_posted(&b, sge_of(&b, SLOW_LO, 8192));
	recv_posted(&b, sge_of(&b, SLOW_LO + 8192, 8192));
	recv_posted(&b, sge_of(&b, SLOW_LO + 4000, 500));
	munmap(b.mem + SLOW_LO + 4096, 4096);
	assert_int_equal(mprotect(b.mem + SLOW_LO + 8192, 4096, PROT_READ), 0);
	assert_int_equal(completed(&b, FX_WC_RECV, 0, 0, 8192).status, IBV_WC_LOC_PROT_ERR);
	assert_int_equal(completed(&b, FX_WC_RECV, 1, 0, 8192).status, IBV_WC_LOC_PROT_ERR);
	/* what came fits before the hole */
	assert_int_equal(completed(&b, FX_WC_RECV, 2, 0, 96).status, 0);
	bounce_end(&b);
}

/* A READ that nobody asked to hear of: its failure is told under its own name, then what came after it. */
static void test_unsignaled_fails(void **state)
{
	struct bounced b;
	struct ibv_wc wc[4];
	struct entry e;

	(void)state;
	if (passed_over())
		return;
	b = bounce_start(&bounce_cap);
	sent(&b, IBV_WR_RDMA_READ, 0, sge_of(&b, SLOW_LO, 600));
	sent(&b, IBV_WR_RDMA_READ, 0, sge_of(&b, SLOW_LO + 8192, 600));
	e = sent(&b, IBV_WR_RDMA_READ, IBV_SEND_SIGNALED, sge_of(&b, SLOW_LO + 16384, 600));
	fill(in_pool(&b, &e.sge[0], 600), 600, 4);
	munmap(b.mem + SLOW_LO + 8192, 4096);
	rig_complete(&b.r, b.r.qp, CORE_GEN, 2, FX_WC_RDMA_READ);
	assert_int_equal(rig_poll(&b.r, 1, wc), 1);
	assert_int_equal(wc[0].wr_id, 1);
	assert_int_equal(wc[0].status, IBV_WC_LOC_PROT_ERR);
	assert_int_equal(wc[0].opcode, IBV_WC_RDMA_READ);
	assert_int_equal(rig_poll(&b.r, 4, wc), 1);
	assert_int_equal(wc[0].wr_id, 2);
	assert_int_equal(wc[0].status, 0);
	assert_true(holds(b.mem + SLOW_LO + 16384, 600, 4));
	assert_int_equal(rig_poll(&b.r, 4, wc), 0);
	assert_int_equal(b.r.core->cq[0].head->ci, 1);
	bounce_end(&b);
}

/* ---- threads ---- */

enum { ROUNDS = 3000, PLACES = 8, PLACE = 2000 };

/* Posts as fast as the queue takes them: receives into PLACES places by turns. */
static void *poster(void *arg)
{
	struct bounced *b = arg;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		struct ibv_sge sge = sge_of(b, SLOW_LO + i % PLACES * PLACE, PLACE);
		struct ibv_recv_wr wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1}, *bad;

		while (flexins_post_recv(b->r.qp, &wr, &bad))
			sched_yield();
	}
	return NULL;
}

static void *core_thread(void *arg)
{
	struct bounced *b = arg;
	/* a core sees the buffers, as the rings, at addresses of its own: a second mapping of the same pages */
	uint8_t *view = mremap((void *)(uintptr_t)b->pool.addr, 0, b->pool.length, MREMAP_MAYMOVE);

	assert_ptr_not_equal(view, MAP_FAILED);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		struct fx_cqe c = {.qpn_gen = fx_qpn_gen(b->r.qp->qp_num, CORE_GEN),
				   .index = i,
				   .opcode = FX_WC_RECV,
				   .byte_len = 4};
		struct fx_sge got[FX_MAX_SGE];

		while (fx_rq_take(&b->r.core->rq[0], got, FX_MAX_SGE) < 0)
			sched_yield();
		memcpy(view + (got[0].addr - b->pool.addr), &i, sizeof(i));
		while (fx_cq_push(&b->r.core->cq[0], &c))
			sched_yield();
	}
	munmap(view, b->pool.length);
	return NULL;
}

/* One posts, one is the core, one polls: every message is in its place when it is polled. */
static void test_threads(void **state)
{
	const struct ibv_qp_cap cap = {.max_recv_wr = PLACES, .max_recv_sge = 1};
	struct bounced b;
	pthread_t t[2];
	struct ibv_wc wc;

	(void)state;
	if (passed_over())
		return;
	b = bounce_start(&cap);
	assert_int_equal(pthread_create(&t[0], NULL, poster, &b), 0);
	assert_int_equal(pthread_create(&t[1], NULL, core_thread, &b), 0);
	for (uint32_t i = 0, got; i < ROUNDS; i++) {
		assert_int_equal(rig_poll_all(&b.r, 1, &wc), 1);
		assert_int_equal(wc.wr_id, i);
		assert_int_equal(wc.status, 0);
		/* volatile: the kernel wrote it */
		got = *(volatile uint32_t *)(b.mem + SLOW_LO + i % PLACES * PLACE);
		/* the next message for this place cannot have been polled by anybody else */
		assert_int_equal(got, i);
	}
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	bounce_end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recv),	   cmocka_unit_test(test_recv_imm),
		cmocka_unit_test(test_mixed),	   cmocka_unit_test(test_read),
		cmocka_unit_test(test_atomic),	   cmocka_unit_test(test_unsignaled),
		cmocka_unit_test(test_errors),	   cmocka_unit_test(test_reset),
		cmocka_unit_test(test_destroy),	   cmocka_unit_test(test_core_gone),
		cmocka_unit_test(test_exhaustion), cmocka_unit_test(test_deregistered),
		cmocka_unit_test(test_unmapped),   cmocka_unit_test(test_unsignaled_fails),
		cmocka_unit_test(test_threads),
	};

	return verdict(cmocka_run_group_tests(tests, NULL, NULL));
}
