/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Slow memory as the core is told of it: what is sent inline, through a buffer, in parts, or as it is.
 */
#include "bounce_rig.h"
#include "emulated.h"

static const struct {
	enum ibv_wr_opcode op;
	uint8_t fx;
} sources[] = {{IBV_WR_SEND, FX_WR_SEND},
	       {IBV_WR_SEND_WITH_IMM, FX_WR_SEND_IMM},
	       {IBV_WR_SEND_WITH_INV, FX_WR_SEND_INV},
	       {IBV_WR_RDMA_WRITE, FX_WR_WRITE},
	       {IBV_WR_RDMA_WRITE_WITH_IMM, FX_WR_WRITE_IMM}};

static void finish(struct bounced *b)
{
	assert_int_equal(completed(b, FX_WC_SEND, b->index - 1, 0, 0).status, IBV_WC_SUCCESS);
}

/* Whatever the QP's max_inline_data is; and the bytes are those of the moment of posting. */
static void test_inline(void **state)
{
	static const uint32_t len[] = {1, 8, 9, 31, 32, 511, 512};
	struct bounced b = bounce_start(&bounce_cap);

	(void)state;
	for (unsigned s = 0; s < sizeof(sources) / sizeof(sources[0]); s++)
		for (unsigned i = 0; i < sizeof(len) / sizeof(len[0]); i++) {
			struct entry e;
			struct ibv_sge sge = sge_of(&b, SLOW_LO + 100, len[i]);

			assert_int_equal(post(&b, sources[s].op, IBV_SEND_SIGNALED, &sge, 1), 0);
			memset(b.mem + SLOW_LO + 100, 0, len[i]);
			e = take_entry(&b);
			refill(&b);
			assert_int_equal(e.head.opcode, sources[s].fx);
			assert_int_equal(e.head.flags, FX_WRF_INLINE | FX_WRF_SIGNALED);
			assert_int_equal(e.head.rdma.inline_len, len[i]);
			assert_memory_equal(e.data, b.mem + SLOW_LO + 100, len[i]);
			finish(&b);
		}
	bounce_end(&b);
}

/* Slow and fast parts of one region, in any order; what is fast alone is left alone. */
static void test_inline_gathers(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_sge sge[3] = {sge_of(&b, SLOW_HI - 10, 30), sge_of(&b, 0, 0), sge_of(&b, 5, 100)};
	struct entry e;

	(void)state;
	assert_int_equal(post(&b, IBV_WR_SEND, IBV_SEND_SIGNALED, sge, 3), 0);
	e = take_entry(&b);
	assert_int_equal(e.head.rdma.inline_len, 130);
	assert_memory_equal(e.data, b.mem + SLOW_HI - 10, 30);
	assert_memory_equal(e.data + 30, b.mem + 5, 100);
	e = sent(&b, IBV_WR_SEND, 0, sge[2]);
	assert_int_equal(e.head.flags, 0);
	assert_true(same_sge(&e.sge[0], &sge[2]));
	bounce_end(&b);
}

/* The application's own limit stays what it was. */
static void test_own_inline(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_sge sge = sge_of(&b, SLOW_LO, 9);

	(void)state;
	assert_int_equal(b.r.core->made[0].max_inline, FX_MAX_INLINE);
	assert_int_equal(post(&b, IBV_WR_SEND, IBV_SEND_INLINE, &sge, 1), EINVAL);
	sge.length = 8;
	assert_int_equal(post(&b, IBV_WR_SEND, IBV_SEND_INLINE, &sge, 1), 0);
	bounce_end(&b);
}

static void test_bounced(void **state)
{
	static const uint32_t len[] = {513, 4096, 5000, POOL_MAX};
	struct bounced b = bounce_start(&bounce_cap);

	(void)state;
	for (unsigned i = 0; i < sizeof(len) / sizeof(len[0]); i++) {
		struct ibv_sge sge = sge_of(&b, SLOW_LO + 3, len[i]);
		struct entry e;

		assert_int_equal(post(&b, IBV_WR_RDMA_WRITE, IBV_SEND_SIGNALED, &sge, 1), 0);
		memset(b.mem + SLOW_LO, 0, len[i] + 3);
		e = take_entry(&b);
		refill(&b);
		assert_int_equal(e.head.nsge, 1);
		assert_memory_equal(in_pool(&b, &e.sge[0], len[i]), b.mem + SLOW_LO + 3, len[i]);
		finish(&b);
	}
	bounce_end(&b);
}

/* Fast, slow, fast: three parts, of which the middle one is copied. */
static void test_parts(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_sge lo = sge_of(&b, 0, SLOW_LO), hi = sge_of(&b, SLOW_LO + 2000, 500);
	struct entry e;

	(void)state;
	assert_int_equal(flexins_dereg_mr(b.mr), 0);
	b.r.core->slow[0].length = 2000;
	b.mr = flexins_reg_mr(b.r.pd, b.mem, REGION, ALL_ACCESS);
	lo.lkey = hi.lkey = b.mr->lkey;
	e = sent(&b, IBV_WR_SEND, 0, sge_of(&b, 0, SLOW_LO + 2500));
	assert_int_equal(e.head.nsge, 3);
	assert_true(same_sge(&e.sge[0], &lo));
	assert_memory_equal(in_pool(&b, &e.sge[1], 2000), b.mem + SLOW_LO, 2000);
	assert_true(same_sge(&e.sge[2], &hi));
	bounce_end(&b);
}

/* Sixteen SGEs that cannot be cut further go whole where anything of them is slow. */
static void test_sixteen(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_sge sge[FX_MAX_SGE];
	struct entry e;

	(void)state;
	for (uint32_t i = 0; i < FX_MAX_SGE; i++)
		sge[i] = i % 4 == 0 ? sge_of(&b, SLOW_HI - 50, 100 + i) : sge_of(&b, i * 10, i);
	assert_int_equal(post(&b, IBV_WR_SEND, 0, sge, FX_MAX_SGE), 0);
	e = take_entry(&b);
	assert_int_equal(e.head.nsge, FX_MAX_SGE);
	for (uint32_t i = 0; i < FX_MAX_SGE; i++)
		if (i % 4 == 0)
			assert_memory_equal(in_pool(&b, &e.sge[i], 100 + i), b.mem + SLOW_HI - 50, 100 + i);
		else
			assert_true(same_sge(&e.sge[i], &sge[i]));
	bounce_end(&b);
}

/* Whatever is not right, or not here, is the core's to judge: with one such SGE nothing is inline. */
static void test_left_alone(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_mr *other, *readonly = flexins_reg_mr(b.r.pd, b.mem, REGION, 0);
	struct ibv_pd *pd = flexins_alloc_pd(b.r.ctx);
	struct ibv_sge bad[] = {
		sge_of(&b, SLOW_LO, 8),		   /* another domain's region: see below */
		sge_of(&b, SLOW_LO, 8),		   /* a key that nobody has */
		sge_of(&b, REGION - 4, 8),	   /* beyond the end */
		sge_of(&b, 0, 8),		   /* before the start */
		sge_of(&b, SLOW_LO, POOL_MAX + 1), /* too much */
	};
	struct ibv_sge ro = sge_of(&b, SLOW_LO, 600);
	struct entry e;

	(void)state;
	other = flexins_reg_mr(pd, b.mem, REGION, ALL_ACCESS);
	assert_non_null(other);
	bad[0].lkey = other->lkey;
	bad[1].lkey = 0x999;
	bad[3].addr--;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct ibv_sge two[2] = {sge_of(&b, SLOW_LO, 8), bad[i]};

		e = sent(&b, IBV_WR_SEND, IBV_SEND_SIGNALED, bad[i]);
		assert_int_equal(e.head.flags, FX_WRF_SIGNALED);
		assert_true(same_sge(&e.sge[0], &bad[i]));
		if (i == 4)
			continue;
		assert_int_equal(post(&b, IBV_WR_SEND, IBV_SEND_SIGNALED, two, 2), 0);
		e = take_entry(&b);
		assert_int_equal(e.head.flags, FX_WRF_SIGNALED);
		assert_memory_equal(in_pool(&b, &e.sge[0], 8), b.mem + SLOW_LO, 8);
		assert_true(same_sge(&e.sge[1], &bad[i]));
		finish(&b);
	}
	/* what may be read may be sent, and nothing may land there */
	ro.lkey = readonly->lkey;
	e = sent(&b, IBV_WR_RDMA_READ, 0, ro);
	assert_true(same_sge(&e.sge[0], &ro));
	e = sent(&b, IBV_WR_SEND, 0, ro);
	in_pool(&b, &e.sge[0], 600);
	assert_int_equal(flexins_dereg_mr(other), 0);
	assert_int_equal(flexins_dereg_mr(readonly), 0);
	assert_int_equal(flexins_dealloc_pd(pd), 0);
	bounce_end(&b);
}

/* A region whose addresses on the wire are not the program's. */
static void test_iova(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_mr *mr = flexins_reg_mr_iova(b.r.pd, b.mem, REGION, 1 << 30, ALL_ACCESS);
	struct ibv_sge sge = {.addr = (1 << 30) + SLOW_HI - 600, .length = 700, .lkey = mr->lkey};
	struct entry e = sent(&b, IBV_WR_SEND, 0, sge);

	(void)state;
	assert_int_equal(e.head.nsge, 2);
	assert_memory_equal(in_pool(&b, &e.sge[0], 600), b.mem + SLOW_HI - 600, 600);
	assert_int_equal(e.sge[1].addr, (1 << 30) + SLOW_HI);
	assert_int_equal(e.sge[1].length, 100);
	assert_int_equal(e.sge[1].lkey, mr->lkey);
	assert_int_equal(flexins_dereg_mr(mr), 0);
	bounce_end(&b);
}

/* A source that is unmapped is the core's to complain of. */
static void test_unmapped_source(void **state)
{
	struct bounced b;
	struct ibv_sge sge;
	struct entry e;

	(void)state;
	if (passed_over())
		return;
	b = bounce_start(&bounce_cap);
	sge = sge_of(&b, SLOW_LO, 100);
	munmap(b.mem + SLOW_LO, 8192);
	e = sent(&b, IBV_WR_SEND, 0, sge);
	assert_int_equal(e.head.flags, 0);
	assert_true(same_sge(&e.sge[0], &sge));
	sge.length = 1000;
	e = sent(&b, IBV_WR_SEND, 0, sge);
	assert_true(same_sge(&e.sge[0], &sge));
	bounce_end(&b);
}

/* A pool that the core reaches slowly too is none: small requests go inline all the same. */
static void test_no_pool(void **state)
{
	struct bounced b = {.r = rig_start(6, &bounce_cap)};
	struct core *core = b.r.core;
	struct ibv_sge sge;
	struct entry e;

	(void)state;
	core->pool_slow = true;
	core->nslow = 1;
	core->slow[0] = (struct fx_slow_run){.length = REGION};
	b.mem = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	b.mr = flexins_reg_mr(b.r.pd, b.mem, REGION, ALL_ACCESS);
	assert_int_equal(core->seen[FX_MSG_DEREG_MR], 1);
	sge = sge_of(&b, 0, 513);
	e = sent(&b, IBV_WR_SEND, 0, sge);
	assert_true(same_sge(&e.sge[0], &sge));
	sge.length--;
	assert_int_equal(sent(&b, IBV_WR_SEND, 0, sge).head.flags, FX_WRF_INLINE);
	e = sent(&b, IBV_WR_RDMA_READ, 0, sge);
	assert_true(same_sge(&e.sge[0], &sge));
	bounce_end(&b);
}

/* One pool for a domain, however many regions; it goes with the domain. */
static void test_one_pool(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct core *core = b.r.core;
	struct ibv_mr *more = flexins_reg_mr(b.r.pd, b.mem, REGION, ALL_ACCESS);
	struct ibv_pd *pd = flexins_alloc_pd(b.r.ctx);
	struct ibv_mr *third = flexins_reg_mr(pd, b.mem, REGION, ALL_ACCESS);

	(void)state;
	assert_int_equal(core->seen[FX_MSG_REG_MR], 5);
	assert_int_equal(core->pool.access, IBV_ACCESS_LOCAL_WRITE);
	assert_int_equal(flexins_dereg_mr(third), 0);
	assert_int_equal(core->seen[FX_MSG_DEREG_MR], 1);
	assert_int_equal(flexins_dealloc_pd(pd), 0);
	assert_int_equal(core->seen[FX_MSG_DEREG_MR], 2);
	assert_int_equal(flexins_dereg_mr(more), 0);
	bounce_end(&b);
}

/* ---- fences ---- */

/* A fenced request reads what a READ before it fetches: where that lands, and as long as it may need it. */
static void test_fence_borrows(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_sge land = sge_of(&b, SLOW_LO, 600), from = sge_of(&b, SLOW_LO + 100, 400);
	struct entry read = sent(&b, IBV_WR_RDMA_READ, IBV_SEND_SIGNALED, land), send, next;
	uint8_t *buffer = in_pool(&b, &read.sge[0], 600);

	(void)state;
	send = sent(&b, IBV_WR_SEND, IBV_SEND_FENCE | IBV_SEND_SIGNALED, from);
	assert_int_equal(send.head.flags, FX_WRF_FENCE | FX_WRF_SIGNALED);
	assert_ptr_equal(in_pool(&b, &send.sge[0], 400), buffer + 100);
	assert_int_equal(completed(&b, FX_WC_RDMA_READ, 0, 0, 600).status, 0);
	/* the READ is over, the SEND is not */
	next = sent(&b, IBV_WR_RDMA_READ, IBV_SEND_SIGNALED, land);
	assert_ptr_not_equal(in_pool(&b, &next.sge[0], 600), buffer);
	assert_int_equal(completed(&b, FX_WC_SEND, 1, 0, 0).status, 0);
	next = sent(&b, IBV_WR_RDMA_READ, IBV_SEND_SIGNALED, land);
	assert_ptr_equal(in_pool(&b, &next.sge[0], 600), buffer);
	bounce_end(&b);
}

/* Memory that is in part fetched can be named by no buffer: the request has to come again. */
static void test_fence_overlaps(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_sge land = sge_of(&b, SLOW_LO, 600),
		       over[] = {sge_of(&b, SLOW_LO + 500, 101), sge_of(&b, SLOW_LO - 1, 50)};
	struct ibv_sge beside = sge_of(&b, SLOW_LO + 600, 100);
	struct entry e;

	(void)state;
	sent(&b, IBV_WR_RDMA_READ, IBV_SEND_SIGNALED, land);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(post(&b, IBV_WR_SEND, IBV_SEND_FENCE, &over[i], 1), ENOMEM);
	/* nothing of it is fetched, but for all the library knows: it is not copied before its turn */
	e = sent(&b, IBV_WR_SEND, IBV_SEND_FENCE, beside);
	assert_true(same_sge(&e.sge[0], &beside));
	assert_int_equal(completed(&b, FX_WC_RDMA_READ, 0, 0, 600).status, 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(sent(&b, IBV_WR_SEND, IBV_SEND_FENCE, over[i]).head.flags,
				 FX_WRF_FENCE | FX_WRF_INLINE);
	bounce_end(&b);
}

/* The newest of two landings counts. */
static void test_fence_newest(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_sge land = sge_of(&b, SLOW_LO, 600);
	struct entry read, send;

	(void)state;
	sent(&b, IBV_WR_RDMA_READ, 0, land);
	read = sent(&b, IBV_WR_RDMA_READ, 0, land);
	send = sent(&b, IBV_WR_SEND, IBV_SEND_FENCE, land);
	assert_int_equal(send.sge[0].addr, read.sge[0].addr);
	bounce_end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inline),		cmocka_unit_test(test_inline_gathers),
		cmocka_unit_test(test_own_inline),	cmocka_unit_test(test_bounced),
		cmocka_unit_test(test_parts),		cmocka_unit_test(test_sixteen),
		cmocka_unit_test(test_left_alone),	cmocka_unit_test(test_iova),
		cmocka_unit_test(test_unmapped_source), cmocka_unit_test(test_no_pool),
		cmocka_unit_test(test_one_pool),	cmocka_unit_test(test_fence_borrows),
		cmocka_unit_test(test_fence_overlaps),	cmocka_unit_test(test_fence_newest),
	};

	return verdict(cmocka_run_group_tests(tests, NULL, NULL));
}
