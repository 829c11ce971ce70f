/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Posting: the bytes of every entry that it writes, decoded by offsets of this file's own.
 */
#include "host_rig.h"

static const struct ibv_qp_cap wide = {.max_send_wr = 32,
				       .max_recv_wr = 6,
				       .max_send_sge = FX_MAX_SGE,
				       .max_recv_sge = FX_MAX_SGE,
				       .max_inline_data = FX_MAX_INLINE};

static uint64_t le(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

/* The next entry of the pipe as bytes; -> its slots */
static int take(struct rig *r, uint8_t *e)
{
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	int n;

	memset(slot, 0, sizeof(slot));
	n = fx_pipe_take(&r->core->pipe, slot);
	fx_pipe_publish_ci(&r->core->pipe);
	memcpy(e, slot, sizeof(slot));
	return n;
}

static void complete_last(struct rig *r, uint32_t index)
{
	struct ibv_wc wc;

	rig_complete(r, r->qp, CORE_GEN, index, FX_WC_SEND);
	rig_poll(r, 1, &wc);
}

struct fixed {
	uint32_t opcode, flags, nslots, nsge, imm, rkey, inline_len;
	uint64_t remote;
};

static void expect_fixed(const struct rig *r, const uint8_t *e, uint32_t index, const struct fixed *f)
{
	assert_int_equal(e[0], f->opcode);
	assert_int_equal(e[1], f->flags);
	assert_int_equal(e[2], f->nslots);
	assert_int_equal(e[3], f->nsge);
	assert_int_equal(le(e + 4, 3), r->qp->qp_num);
	assert_int_equal(e[7], CORE_GEN);
	assert_int_equal(le(e + 8, 4), index);
	assert_int_equal(le(e + 12, 4), f->imm);
	assert_int_equal(le(e + 16, 8), f->remote);
	assert_int_equal(le(e + 24, 4), f->rkey);
	assert_int_equal(le(e + 28, 4), f->inline_len);
}

/* Where the i-th SGE of an entry begins: one in the first slot, three in each further one. */
static const uint8_t *sge_at(const uint8_t *e, unsigned i)
{
	return i == 0 ? e + 32 : e + 64 * (1 + (i - 1) / 3) + 16 * ((i - 1) % 3);
}

/* Bytes [from, to) of an entry but for the phases: none may be left over from elsewhere. */
static void expect_zero(const uint8_t *e, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		if (i % 64 != 63)
			assert_int_equal(e[i], 0);
}

static const struct {
	enum ibv_wr_opcode wr;
	uint8_t fx;
	bool imm, remote, may_inline;
} ops[] = {
	{IBV_WR_SEND, 0, false, false, true},
	{IBV_WR_SEND_WITH_IMM, 1, true, false, true},
	{IBV_WR_SEND_WITH_INV, 2, true, false, true},
	{IBV_WR_RDMA_WRITE, 3, false, true, true},
	{IBV_WR_RDMA_WRITE_WITH_IMM, 4, true, true, true},
	{IBV_WR_RDMA_READ, 5, false, true, false},
};
enum { OPS = sizeof(ops) / sizeof(ops[0]) };

static struct ibv_send_wr request(unsigned op, struct ibv_sge *sge, int nsge)
{
	return (struct ibv_send_wr){.opcode = ops[op].wr,
				    .sg_list = sge,
				    .num_sge = nsge,
				    .imm_data = 0x11223344,
				    .wr.rdma = {.remote_addr = 0x8877665544332211, .rkey = 0xcafe0001}};
}

static struct fixed expected(unsigned op, unsigned nslots)
{
	return (struct fixed){.opcode = ops[op].fx,
			      .nslots = nslots,
			      .imm = ops[op].imm ? 0x11223344 : 0,
			      .remote = ops[op].remote ? 0x8877665544332211 : 0,
			      .rkey = ops[op].remote ? 0xcafe0001 : 0};
}

static void check_sges(struct rig *r, unsigned op, unsigned n, uint32_t index)
{
	struct ibv_sge sge[FX_MAX_SGE];
	struct ibv_send_wr wr = request(op, sge, (int)n), *bad;
	struct fixed f = expected(op, n <= 1 ? 1 : 1 + (n + 1) / 3);
	uint8_t e[FX_MAX_SQ_SLOTS * 64];

	f.nsge = n;
	for (unsigned i = 0; i < n; i++)
		sge[i] = (struct ibv_sge){0x1111000000000000 + i + index, 0x20000000 + i, 0x30000000 + i};
	assert_int_equal(flexins_post_send(r->qp, &wr, &bad), 0);
	assert_int_equal(take(r, e), f.nslots);
	expect_fixed(r, e, index, &f);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(le(sge_at(e, i), 8), sge[i].addr);
		assert_int_equal(le(sge_at(e, i) + 8, 4), sge[i].length);
		assert_int_equal(le(sge_at(e, i) + 12, 4), sge[i].lkey);
	}
	expect_zero(e, n ? 48 : 32, 64);
	if (n > 1)
		expect_zero(e, (unsigned)(sge_at(e, n - 1) - e) + 16, f.nslots * 64);
}

static void test_sges(void **state)
{
	struct rig r = rig_start(5, &wide);
	uint32_t index = 0;

	(void)state;
	for (unsigned op = 0; op < OPS; op++)
		for (unsigned n = 0; n <= FX_MAX_SGE; n++, index++) {
			check_sges(&r, op, n, index);
			complete_last(&r, index);
		}
	rig_end(&r);
}

/* `len` bytes from up to three places, one of which may be empty, lie in one row through the slots. */
static void check_inline(struct rig *r, unsigned op, unsigned len, uint32_t index)
{
	uint8_t data[FX_MAX_INLINE], e[FX_MAX_SQ_SLOTS * 64];
	unsigned a = len / 3, b = len % 5 ? len / 7 : 0, slots = 1, at = 0;
	struct ibv_sge sge[3] = {{(uintptr_t)data, a, 1},
				 {(uintptr_t)(data + a), b, 2},
				 {(uintptr_t)(data + a + b), len - a - b, 3}};
	struct ibv_send_wr wr = request(op, sge, 3), *bad;
	struct fixed f;

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + len + 1);
	while (31 + 63 * (slots - 1) < len)
		slots++;
	f = expected(op, slots);
	f.flags = 1 << 3;
	f.inline_len = len;
	wr.send_flags = IBV_SEND_INLINE;
	assert_int_equal(flexins_post_send(r->qp, &wr, &bad), 0);
	memset(data, 0xee, sizeof(data)); /* the caller's again */
	assert_int_equal(take(r, e), f.nslots);
	expect_fixed(r, e, index, &f);
	for (unsigned i = 32; i < 64 * slots; i++)
		if (i % 64 != 63) {
			assert_int_equal(e[i], at < len ? (uint8_t)(at * 7 + len + 1) : 0);
			at++;
		}
}

static void test_inline(void **state)
{
	struct rig r = rig_start(5, &wide);
	uint32_t index = 0;

	(void)state;
	for (unsigned op = 0; op < OPS; op++)
		for (unsigned len = 0; len <= FX_MAX_INLINE && ops[op].may_inline; len++, index++) {
			check_inline(&r, op, len, index);
			complete_last(&r, index);
		}
	rig_end(&r);
}

static void test_atomics(void **state)
{
	struct rig r = rig_start(5, &wide);
	struct ibv_sge sge = {0x1234, 8, 0x56};
	uint8_t e[FX_MAX_SQ_SLOTS * 64];

	(void)state;
	for (uint32_t i = 0; i < 2; i++) {
		struct fixed f = {.opcode = 6 + i, .nslots = 2, .nsge = 1, .rkey = 0xbeef, .remote = 0x998};
		struct ibv_send_wr wr = {.opcode =
						 i ? IBV_WR_ATOMIC_FETCH_AND_ADD : IBV_WR_ATOMIC_CMP_AND_SWP,
					 .sg_list = &sge,
					 .num_sge = 1},
				   *bad;

		wr.wr.atomic.remote_addr = 0x998;
		wr.wr.atomic.rkey = 0xbeef;
		wr.wr.atomic.compare_add = 0x0102030405060708;
		wr.wr.atomic.swap = 0x1112131415161718;
		assert_int_equal(flexins_post_send(r.qp, &wr, &bad), 0);
		assert_int_equal(take(&r, e), 2);
		expect_fixed(&r, e, i, &f);
		assert_int_equal(le(e + 32, 8), 0x1234);
		assert_int_equal(le(e + 40, 4), 8);
		assert_int_equal(le(e + 44, 4), 0x56);
		assert_int_equal(le(e + 64, 8), 0x0102030405060708);
		assert_int_equal(le(e + 72, 8), 0x1112131415161718);
		expect_zero(e, 48, 64);
		expect_zero(e, 80, 128);
	}
	rig_end(&r);
}

/* LOCAL_INV has a key and no data, whatever its list of SGEs says. */
static void test_local_inv(void **state)
{
	struct rig r = rig_start(5, &wide);
	struct ibv_sge sge[2] = {{1, 2, 3}, {4, 5, 6}};
	struct fixed f = {.opcode = 8, .nslots = 1, .imm = 0x777};
	uint8_t e[FX_MAX_SQ_SLOTS * 64];

	(void)state;
	for (int n = 0; n <= 2; n++) {
		struct ibv_send_wr wr = {.opcode = IBV_WR_LOCAL_INV,
					 .invalidate_rkey = 0x777,
					 .sg_list = sge,
					 .num_sge = n},
				   *bad;

		assert_int_equal(flexins_post_send(r.qp, &wr, &bad), 0);
		assert_int_equal(take(&r, e), 1);
		expect_fixed(&r, e, (uint32_t)n, &f);
		expect_zero(e, 32, 64);
	}
	rig_end(&r);
}

static void expect_bind(struct rig *r, uint32_t index, uint8_t flags, uint32_t window, uint32_t rkey,
			uint64_t length, uint32_t lkey)
{
	struct fixed f = {.opcode = 9,
			  .flags = flags,
			  .nslots = 1,
			  .imm = window,
			  .rkey = rkey,
			  .remote = 0x123456789abc};
	uint8_t e[FX_MAX_SQ_SLOTS * 64];

	assert_int_equal(take(r, e), 1);
	expect_fixed(r, e, index, &f);
	assert_int_equal(le(e + 32, 8), length);
	assert_int_equal(le(e + 40, 4), lkey);
	assert_int_equal(le(e + 44, 4), IBV_ACCESS_REMOTE_READ);
	expect_zero(e, 48, 64);
}

/* Binds: type 2 with the key that the request names, type 1 with the next, which the window has from then on. */
static void test_bind(void **state)
{
	struct rig r = rig_start(5, &wide);
	struct ibv_mr mr = {.context = r.ctx, .pd = r.pd, .lkey = 0x1234};
	struct ibv_mw *one = ibv_alloc_mw(r.pd, IBV_MW_TYPE_1), *two = ibv_alloc_mw(r.pd, IBV_MW_TYPE_2);
	struct ibv_mw_bind bind = {.wr_id = 7,
				   .send_flags = IBV_SEND_SIGNALED,
				   .bind_info = {.mr = &mr,
						 .addr = 0x123456789abc,
						 .length = 1ull << 40,
						 .mw_access_flags = IBV_ACCESS_REMOTE_READ}};
	struct ibv_send_wr wr = {.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_FENCE}, *bad;
	uint32_t rkey;

	(void)state;
	assert_non_null(one);
	assert_non_null(two);
	rkey = one->rkey;
	assert_int_equal(ibv_bind_mw(r.qp, one, &bind), 0);
	assert_int_equal(one->rkey, ibv_inc_rkey(rkey));
	expect_bind(&r, 0, 1, rkey, one->rkey, 1ull << 40, 0x1234);
	bind.bind_info.mr = NULL; /* unbinds */
	bind.bind_info.length = bind.bind_info.addr = 0;
	assert_int_equal(ibv_bind_mw(r.qp, one, &bind), 0);
	assert_int_equal(one->rkey, ibv_inc_rkey(ibv_inc_rkey(rkey)));
	r.core->pipe.ci++;
	rkey = two->rkey;
	two->rkey = 0xdead; /* what an application writes there is its own business */
	wr.bind_mw.mw = two;
	wr.bind_mw.rkey = rkey + 0x77;
	wr.bind_mw.bind_info = (struct ibv_mw_bind_info){&mr, 0x123456789abc, 3, IBV_ACCESS_REMOTE_READ};
	assert_int_equal(flexins_post_send(r.qp, &wr, &bad), 0);
	assert_int_equal(two->rkey, 0xdead);
	expect_bind(&r, 2, 4, rkey, rkey + 0x77, 3, 0x1234);
	assert_int_equal(ibv_dealloc_mw(one), 0);
	assert_int_equal(ibv_dealloc_mw(two), 0);
	rig_end(&r);
}

static void check_flags(struct rig *r, unsigned all)
{
	static const unsigned pair[][2] = {
		{IBV_SEND_SIGNALED, 1}, {IBV_SEND_SOLICITED, 2}, {IBV_SEND_FENCE, 4}};
	uint8_t e[FX_MAX_SQ_SLOTS * 64];

	for (uint32_t set = 0; set < 8; set++) {
		struct fixed f = {.nslots = 1, .flags = all};
		unsigned flags = 0;

		for (unsigned i = 0; i < 3; i++)
			if (set >> i & 1) {
				flags |= pair[i][0];
				f.flags |= pair[i][1];
			}
		assert_int_equal(rig_send(r->qp, set, flags), 0);
		assert_int_equal(take(r, e), 1);
		expect_fixed(r, e, set, &f);
	}
}

static void test_flags(void **state)
{
	struct rig r = rig_start(5, &wide);
	struct ibv_qp_init_attr a = {
		.send_cq = r.cq, .recv_cq = r.cq, .cap = wide, .qp_type = IBV_QPT_RC, .sq_sig_all = 1};

	(void)state;
	check_flags(&r, 0);
	assert_int_equal(flexins_destroy_qp(r.qp), 0);
	r.qp = flexins_create_qp(r.pd, &a);
	assert_non_null(r.qp);
	assert_int_equal(rig_move(r.qp, IBV_QPS_RTS), 0);
	check_flags(&r, 1);
	rig_end(&r);
}

/* Receive entries of every width, several laps of the ring. */
static void test_recv_entries(void **state)
{
	struct rig r = rig_start(5, &wide);

	(void)state;
	for (unsigned i = 0; i < 60; i++) {
		unsigned n = i % (FX_MAX_SGE + 1);
		struct ibv_sge sge[FX_MAX_SGE];
		struct ibv_recv_wr wr = {.wr_id = i, .sg_list = sge, .num_sge = (int)n}, *bad;
		struct fx_sge got[FX_MAX_SGE];
		struct ibv_wc wc;

		for (unsigned k = 0; k < n; k++)
			sge[k] = (struct ibv_sge){0x5000 + i * 100 + k, 10 + k, 20 + k};
		assert_int_equal(flexins_post_recv(r.qp, &wr, &bad), 0);
		assert_int_equal(fx_rq_take(&r.core->rq[0], got, FX_MAX_SGE), n);
		for (unsigned k = 0; k < n; k++) {
			assert_int_equal(got[k].addr, sge[k].addr);
			assert_int_equal(got[k].length, sge[k].length);
			assert_int_equal(got[k].lkey, sge[k].lkey);
		}
		rig_complete(&r, r.qp, CORE_GEN, i, FX_WC_RECV);
		assert_int_equal(rig_poll(&r, 1, &wc), 1);
		assert_int_equal(wc.wr_id, i);
	}
	rig_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sges),	cmocka_unit_test(test_inline),
		cmocka_unit_test(test_atomics), cmocka_unit_test(test_local_inv),
		cmocka_unit_test(test_flags),	cmocka_unit_test(test_recv_entries),
		cmocka_unit_test(test_bind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
