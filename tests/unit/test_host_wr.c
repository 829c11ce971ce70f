/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Batches of ibv_wr_*(): what is posted is what ibv_post_send() posts; what fails posts nothing.
 */
#include "bounce_rig.h"

static const struct ibv_qp_cap cap = {
	.max_send_wr = 8, .max_recv_wr = 1, .max_send_sge = 4, .max_recv_sge = 1, .max_inline_data = 100};

enum {
	SENDS = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM,
	RC_OPS = SENDS | IBV_QP_EX_WITH_SEND_WITH_INV | IBV_QP_EX_WITH_RDMA_WRITE |
		 IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ |
		 IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
		 IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_ATOMIC_WRITE,
	RKEY = 0x5151,
	IMM = 0x0a0b0c0d,
};
#define REMOTE 0x123456789aull

static struct ibv_qp *create(const struct rig *r, uint64_t ops)
{
	struct ibv_qp_init_attr_ex a = {.send_cq = r->cq,
					.recv_cq = r->cq,
					.cap = cap,
					.qp_type = IBV_QPT_RC,
					.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
					.pd = r->pd,
					.send_ops_flags = ops};

	return flexins_create_qp_ex(r->ctx, &a);
}

/* The rig's QP has batches. */
static struct rig start(void)
{
	struct rig r = rig_start(6, &cap);

	assert_null(flexins_qp_to_qp_ex(r.qp));
	assert_int_equal(flexins_destroy_qp(r.qp), 0);
	r.qp = create(&r, RC_OPS);
	assert_non_null(r.qp);
	assert_int_equal(rig_move(r.qp, IBV_QPS_RTS), 0);
	return r;
}

static int take(struct rig *r, struct fx_sq_slot *slot)
{
	int n;

	memset(slot, 0, FX_MAX_SQ_SLOTS * sizeof(*slot));
	n = fx_pipe_take(&r->core->pipe, slot);
	if (n)
		fx_pipe_publish_ci(&r->core->pipe);
	for (int i = 0; i < n; i++)
		((uint8_t *)&slot[i])[FX_SLOT_SIZE - 1] = 0; /* its phase */
	return n;
}

static void complete(struct rig *r, uint32_t index)
{
	struct ibv_wc wc;

	rig_complete(r, r->qp, (uint8_t)r->core->gen[0], index, FX_WC_SEND);
	rig_poll(r, 1, &wc);
}

/* ---- each operation ---- */

static uint8_t data[128];
static struct ibv_sge sges[5] = {{0x1000, 10, 1}, {0x2000, 0, 0}, {0x3000, 30, 3}, {0x4000, 1u << 31, 4}};
static struct ibv_mw_bind_info bind_info = {.addr = 0x7000, .length = 99, .mw_access_flags = 3};

static struct ibv_send_wr plain(enum ibv_wr_opcode op, struct ibv_mw *mw)
{
	struct ibv_send_wr wr = {.wr_id = 77, .opcode = op, .sg_list = sges};

	wr.imm_data = op == IBV_WR_RDMA_READ || op == IBV_WR_RDMA_WRITE ? 0 : IMM;
	if (op == IBV_WR_ATOMIC_CMP_AND_SWP || op == IBV_WR_ATOMIC_FETCH_AND_ADD) {
		wr.wr.atomic.remote_addr = REMOTE;
		wr.wr.atomic.rkey = RKEY;
		wr.wr.atomic.compare_add = 5;
		wr.wr.atomic.swap = op == IBV_WR_ATOMIC_CMP_AND_SWP ? 6 : 0;
	} else if (op == IBV_WR_BIND_MW) {
		wr.bind_mw.mw = mw;
		wr.bind_mw.rkey = RKEY;
		wr.bind_mw.bind_info = bind_info;
	} else {
		wr.wr.rdma.remote_addr = REMOTE;
		wr.wr.rdma.rkey = RKEY;
	}
	return wr;
}

static void build(struct ibv_qp_ex *x, enum ibv_wr_opcode op, struct ibv_mw *mw)
{
	switch ((int)op) {
	case IBV_WR_SEND:
		return x->wr_send(x);
	case IBV_WR_SEND_WITH_IMM:
		return x->wr_send_imm(x, IMM);
	case IBV_WR_SEND_WITH_INV:
		return x->wr_send_inv(x, IMM);
	case IBV_WR_RDMA_WRITE:
		return x->wr_rdma_write(x, RKEY, REMOTE);
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		return x->wr_rdma_write_imm(x, RKEY, REMOTE, IMM);
	case IBV_WR_RDMA_READ:
		return x->wr_rdma_read(x, RKEY, REMOTE);
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		return x->wr_atomic_cmp_swp(x, RKEY, REMOTE, 5, 6);
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		return x->wr_atomic_fetch_add(x, RKEY, REMOTE, 5);
	case IBV_WR_LOCAL_INV:
		return x->wr_local_inv(x, IMM);
	case IBV_WR_BIND_MW:
		return x->wr_bind_mw(x, mw, RKEY, &bind_info);
	default:
		fail();
	}
}

static const struct {
	enum ibv_wr_opcode op;
	bool data, inline_too;
	int sges; /* at most; -1: exactly one */
} ops[] = {{IBV_WR_SEND, true, true, 4},
	   {IBV_WR_SEND_WITH_IMM, true, true, 4},
	   {IBV_WR_SEND_WITH_INV, true, true, 4},
	   {IBV_WR_RDMA_WRITE, true, true, 4},
	   {IBV_WR_RDMA_WRITE_WITH_IMM, true, true, 4},
	   {IBV_WR_RDMA_READ, true, false, 4},
	   {IBV_WR_ATOMIC_CMP_AND_SWP, true, false, -1},
	   {IBV_WR_ATOMIC_FETCH_AND_ADD, true, false, -1},
	   {IBV_WR_LOCAL_INV, false, false, 0},
	   {IBV_WR_BIND_MW, false, false, 0}};
enum { OPS = sizeof(ops) / sizeof(ops[0]) };

/* The entry of a batch of one against that of a list of one. */
static void same(struct rig *r, struct ibv_send_wr *wr, uint32_t *index)
{
	struct fx_sq_slot one[FX_MAX_SQ_SLOTS], other[FX_MAX_SQ_SLOTS];
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(r->qp);
	struct ibv_send_wr *bad;
	int n;

	assert_int_equal(x->wr_complete(x), 0);
	n = take(r, one);
	assert_int_equal(flexins_post_send(r->qp, wr, &bad), 0);
	assert_int_equal(take(r, other), n);
	assert_int_equal(one[0].index, (*index)++);
	assert_int_equal(other[0].index, *index);
	one[0].index = other[0].index;
	assert_memory_equal(one, other, sizeof(one));
	complete(r, (*index)++);
}

static void test_same_entries(void **state)
{
	static const unsigned flags[] = {0, IBV_SEND_SIGNALED, IBV_SEND_SOLICITED, IBV_SEND_FENCE};
	struct rig r = start();
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(r.qp);
	struct ibv_mw *mw = flexins_alloc_mw(r.pd, IBV_MW_TYPE_2);
	struct ibv_mr mr = {.context = r.ctx, .lkey = 0x99};
	uint32_t index = 0;

	(void)state;
	bind_info.mr = &mr;
	for (unsigned i = 0; i < OPS; i++)
		for (int n = ops[i].sges < 0 ? 1 : 0; n <= (ops[i].sges < 0 ? 1 : ops[i].sges); n++) {
			struct ibv_send_wr wr = plain(ops[i].op, mw);

			wr.num_sge = n;
			wr.send_flags = x->wr_flags = flags[(i + (unsigned)n) % 4];
			x->wr_id = 77;
			x->wr_start(x);
			build(x, ops[i].op, mw);
			if (n == 1)
				x->wr_set_sge(x, sges[0].lkey, sges[0].addr, sges[0].length);
			else if (n)
				x->wr_set_sge_list(x, (size_t)n, sges);
			same(&r, &wr, &index);
		}
	assert_int_equal(flexins_dealloc_mw(mw), 0);
	rig_end(&r);
}

/* Copied when the setter is called; a list is one after the other. */
static void test_same_inline(void **state)
{
	static const uint32_t len[] = {0, 1, 31, 32, 94, 95, 100};
	struct rig r = start();
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(r.qp);
	uint8_t copy[100];
	uint32_t index = 0;

	(void)state;
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i + 1);
	for (unsigned i = 0; i < OPS; i++)
		for (unsigned l = 0; ops[i].inline_too && l < sizeof(len) / sizeof(len[0]); l++) {
			struct ibv_sge sge = {.addr = (uintptr_t)data, .length = len[l]};
			struct ibv_send_wr wr = plain(ops[i].op, NULL);
			struct ibv_data_buf part[3] = {
				{copy, len[l] / 3}, {NULL, 0}, {copy + len[l] / 3, len[l] - len[l] / 3}};

			memcpy(copy, data, sizeof(copy));
			wr.sg_list = &sge;
			wr.num_sge = 1;
			wr.send_flags = IBV_SEND_INLINE;
			x->wr_flags = l % 2 ? IBV_SEND_INLINE : 0; /* the setter says what is inline */
			x->wr_start(x);
			build(x, ops[i].op, NULL);
			if (l % 2)
				x->wr_set_inline_data(x, copy, len[l]);
			else
				x->wr_set_inline_data_list(x, 3, part);
			memset(copy, 0, sizeof(copy));
			same(&r, &wr, &index);
		}
	rig_end(&r);
}

/* An atomic WRITE has its word with it. */
static void test_word(void **state)
{
	struct rig r = start();
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(r.qp);
	uint64_t word = 0x1122334455667788, copy = word;
	struct ibv_sge sge = {.addr = (uintptr_t)&word, .length = 8};
	struct ibv_send_wr wr = plain(IBV_WR_ATOMIC_WRITE, NULL);
	uint32_t index = 0;

	(void)state;
	wr.sg_list = &sge;
	wr.num_sge = 1;
	wr.send_flags = IBV_SEND_INLINE;
	x->wr_flags = 0;
	x->wr_start(x);
	x->wr_atomic_write(x, RKEY, REMOTE, &copy);
	copy = 0;
	same(&r, &wr, &index);
	rig_end(&r);
}

/* ---- batches ---- */

static void sends(struct ibv_qp_ex *x, uint64_t first, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		x->wr_id = first + i;
		x->wr_flags = IBV_SEND_SIGNALED;
		x->wr_send(x);
		x->wr_set_sge(x, 1, 0x1000, 8);
	}
}

/* Nothing is there before the end, then all of it, in order and before what is posted behind it. */
static void test_batch(void **state)
{
	struct rig r = start();
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(r.qp);
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	struct ibv_wc wc[8];

	(void)state;
	x->wr_start(x);
	assert_int_equal(x->wr_complete(x), 0); /* of none */
	x->wr_start(x);
	sends(x, 100, 5);
	assert_int_equal(take(&r, slot), 0);
	assert_int_equal(rig_poll(&r, 8, wc), 0); /* polling is no posting */
	assert_int_equal(x->wr_complete(x), 0);
	assert_int_equal(rig_send(r.qp, 105, IBV_SEND_SIGNALED), 0);
	for (uint32_t i = 0; i < 6; i++) {
		assert_int_equal(take(&r, slot), 1);
		assert_int_equal(slot[0].index, i);
		rig_complete(&r, r.qp, (uint8_t)r.core->gen[0], i, FX_WC_SEND);
	}
	assert_int_equal(rig_poll(&r, 8, wc), 6);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(wc[i].wr_id, 100 + i);
	rig_end(&r);
}

/* The next batch has the numbers of one that was not posted. */
static void expect_nothing(struct rig *r, uint32_t index)
{
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];

	assert_int_equal(take(r, slot), 0);
	assert_int_equal(rig_send(r->qp, 1, 0), 0);
	assert_int_equal(take(r, slot), 1);
	assert_int_equal(slot[0].index, index);
	complete(r, index);
}

static void test_abort(void **state)
{
	struct rig r = start();
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(r.qp);

	(void)state;
	for (uint32_t i = 0; i < 3; i++) {
		x->wr_start(x);
		sends(x, 1, i * 4);
		x->wr_abort(x);
		expect_nothing(&r, i);
	}
	rig_end(&r);
}

/* ---- errors ---- */

static void too_many_sges(struct ibv_qp_ex *x)
{
	x->wr_send(x);
	x->wr_set_sge_list(x, 5, sges);
}
static void far_too_many_sges(struct ibv_qp_ex *x)
{
	x->wr_send(x);
	x->wr_set_sge_list(x, SIZE_MAX, NULL);
}
static void too_much_inline(struct ibv_qp_ex *x)
{
	x->wr_send(x);
	x->wr_set_inline_data(x, data, 101);
}
static void far_too_much_inline(struct ibv_qp_ex *x)
{
	struct ibv_data_buf buf[2] = {{data, 10}, {NULL, SIZE_MAX - 5}};

	x->wr_send(x);
	x->wr_set_inline_data_list(x, 2, buf);
}
static void inline_read(struct ibv_qp_ex *x)
{
	x->wr_rdma_read(x, RKEY, REMOTE);
	x->wr_set_inline_data(x, data, 8);
}
static void atomic_to_nowhere(struct ibv_qp_ex *x)
{
	x->wr_atomic_fetch_add(x, RKEY, REMOTE, 1);
}
static void atomic_to_two(struct ibv_qp_ex *x)
{
	x->wr_atomic_cmp_swp(x, RKEY, REMOTE, 1, 2);
	x->wr_set_sge_list(x, 2, sges);
}
static void bad_flags(struct ibv_qp_ex *x)
{
	x->wr_flags = IBV_SEND_IP_CSUM;
	x->wr_send(x);
	x->wr_flags = 0;
}
static void bind_nothing(struct ibv_qp_ex *x)
{
	x->wr_bind_mw(x, NULL, RKEY, &bind_info);
}
static void address_of_rc(struct ibv_qp_ex *x)
{
	x->wr_send(x);
	x->wr_set_ud_addr(x, NULL, 1, 1);
}
static void nine(struct ibv_qp_ex *x)
{
	sends(x, 1, 9);
}
static void segments(struct ibv_qp_ex *x)
{
	x->wr_send_tso(x, data, 10, 20);
}

static void test_errors(void **state)
{
	static const struct {
		void (*fn)(struct ibv_qp_ex *x);
		int err;
	} cases[] = {{too_many_sges, EINVAL},
		     {far_too_many_sges, EINVAL},
		     {too_much_inline, EINVAL},
		     {far_too_much_inline, EINVAL},
		     {inline_read, EINVAL},
		     {atomic_to_nowhere, EINVAL},
		     {atomic_to_two, EINVAL},
		     {bad_flags, EINVAL},
		     {bind_nothing, EINVAL},
		     {address_of_rc, EINVAL},
		     {nine, ENOMEM},
		     {segments, EOPNOTSUPP}};
	struct rig r = start();
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(r.qp);
	uint32_t index = 0;

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int place = 0; place < 3; place++) { /* alone; before and behind what would be right */
			x->wr_start(x);
			if (place == 2)
				sends(x, 1, 2);
			cases[i].fn(x);
			if (place == 1)
				sends(x, 1, 2);
			assert_int_equal(x->wr_complete(x), cases[i].err);
			assert_int_equal(errno, cases[i].err);
			expect_nothing(&r, index++);
		}
	rig_end(&r);
}

/* The first error is the one that is returned; a setter that belongs to nothing is one. */
static void test_first_error(void **state)
{
	struct rig r = start();
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(r.qp);

	(void)state;
	x->wr_start(x);
	nine(x);
	segments(x);
	too_many_sges(x);
	assert_int_equal(x->wr_complete(x), ENOMEM);
	x->wr_start(x);
	x->wr_set_sge(x, 1, 1, 1);
	segments(x);
	assert_int_equal(x->wr_complete(x), EINVAL);
	x->wr_start(x);
	segments(x);
	x->wr_set_inline_data(x, data, 101);
	assert_int_equal(x->wr_complete(x), EOPNOTSUPP);
	expect_nothing(&r, 0);
	rig_end(&r);
}

static void test_states(void **state)
{
	struct rig r = start();
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(r.qp);

	(void)state;
	for (int s = IBV_QPS_RESET; s <= IBV_QPS_ERR; s++) {
		assert_int_equal(rig_move(r.qp, (enum ibv_qp_state)s), 0);
		x->wr_start(x);
		sends(x, 1, 1);
		assert_int_equal(x->wr_complete(x), s < IBV_QPS_RTS ? EINVAL : 0);
	}
	rig_end(&r);
}

/* Operations that the QP was not created for, and flags of none. */
static void test_create(void **state)
{
	struct rig r = start();
	struct ibv_qp *some = create(&r, IBV_QP_EX_WITH_SEND);
	struct ibv_qp_ex *x = flexins_qp_to_qp_ex(some);
	static const uint64_t none[] = {IBV_QP_EX_WITH_TSO, 1ull << 11, 1ull << 13, 1ull << 63};

	(void)state;
	assert_non_null(x);
	assert_int_equal(rig_move(some, IBV_QPS_RTS), 0);
	for (unsigned i = 1; i < OPS; i++) {
		x->wr_start(x);
		build(x, ops[i].op, NULL);
		assert_int_equal(x->wr_complete(x), EOPNOTSUPP);
	}
	x->wr_start(x);
	x->wr_send(x);
	assert_int_equal(x->wr_complete(x), 0);
	assert_int_equal(flexins_destroy_qp(some), 0);
	for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		assert_null(create(&r, none[i] | IBV_QP_EX_WITH_SEND));
		assert_int_equal(errno, EOPNOTSUPP);
	}
	rig_end(&r);
}

static void test_create_flags(void **state)
{
	struct rig r = start();
	struct ibv_qp_init_attr_ex a = {.send_cq = r.cq,
					.recv_cq = r.cq,
					.cap = cap,
					.qp_type = IBV_QPT_RC,
					.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS,
					.pd = r.pd,
					.create_flags = IBV_QP_CREATE_BLOCK_SELF_MCAST_LB};
	struct ibv_qp *qp = flexins_create_qp_ex(r.ctx, &a);

	(void)state;
	assert_non_null(qp);
	assert_null(flexins_qp_to_qp_ex(qp));
	assert_int_equal(r.core->made[2].flags, FX_QPF_BLOCK_MCAST_LOOP);
	assert_int_equal(r.core->made[0].flags, 0);
	assert_int_equal(flexins_destroy_qp(qp), 0);
	for (unsigned bit = 0; bit < 32; bit++) {
		a.create_flags = 1u << bit;
		if (a.create_flags == IBV_QP_CREATE_BLOCK_SELF_MCAST_LB)
			continue;
		assert_null(flexins_create_qp_ex(r.ctx, &a));
		assert_int_equal(errno, EOPNOTSUPP);
	}
	a.create_flags = 0;
	for (unsigned bit = 7; bit < 32; bit++) {
		a.comp_mask = IBV_QP_INIT_ATTR_PD | 1u << bit;
		assert_null(flexins_create_qp_ex(r.ctx, &a));
		assert_int_equal(errno, EOPNOTSUPP);
	}
	a.comp_mask = 0;
	assert_null(flexins_create_qp_ex(r.ctx, &a));
	assert_int_equal(errno, EINVAL);
	rig_end(&r);
}

/* ---- slow memory ---- */

/* Its buffers are given back by a batch that is not posted, and there is no end of them. */
static void test_bounced(void **state)
{
	struct bounced b = bounce_start(&bounce_cap);
	struct ibv_qp_ex *x;
	struct entry e;

	(void)state;
	assert_int_equal(flexins_destroy_qp(b.r.qp), 0);
	b.r.qp = create(&b.r, RC_OPS);
	assert_int_equal(rig_move(b.r.qp, IBV_QPS_RTS), 0);
	x = flexins_qp_to_qp_ex(b.r.qp);
	for (unsigned i = 0; i < 3000; i++) { /* as much as the pool has, and more */
		x->wr_start(x);
		x->wr_rdma_read(x, RKEY, REMOTE);
		x->wr_set_sge(x, b.mr->lkey, (uintptr_t)b.mem + SLOW_LO, POOL_MAX);
		x->wr_rdma_write(x, RKEY, REMOTE);
		x->wr_set_sge(x, b.mr->lkey, (uintptr_t)b.mem + SLOW_LO, 20);
		if (i % 2) {
			x->wr_set_sge(x, b.mr->lkey, (uintptr_t)b.mem + SLOW_LO, 600);
			x->wr_abort(x);
		} else {
			x->wr_send_tso(x, NULL, 0, 0);
			assert_int_equal(x->wr_complete(x), EOPNOTSUPP);
		}
	}
	x->wr_start(x);
	x->wr_rdma_read(x, RKEY, REMOTE);
	x->wr_set_sge(x, b.mr->lkey, (uintptr_t)b.mem + SLOW_LO, POOL_MAX);
	x->wr_flags = IBV_SEND_FENCE | IBV_SEND_SIGNALED; /* reads what the READ before it fetches */
	x->wr_rdma_write(x, RKEY, REMOTE);
	x->wr_set_sge(x, b.mr->lkey, (uintptr_t)b.mem + SLOW_LO + 100, 600);
	assert_int_equal(x->wr_complete(x), 0);
	e = take_entry(&b);
	memset(in_pool(&b, &e.sge[0], POOL_MAX), 0x5a, POOL_MAX);
	e = take_entry(&b);
	assert_int_equal(*in_pool(&b, &e.sge[0], 600), 0x5a);
	assert_int_equal(completed(&b, FX_WC_RDMA_WRITE, 1, 0, 0).status, IBV_WC_SUCCESS);
	assert_int_equal(b.mem[SLOW_LO + POOL_MAX - 1], 0x5a);
	bounce_end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_entries), cmocka_unit_test(test_same_inline),
		cmocka_unit_test(test_word),	     cmocka_unit_test(test_batch),
		cmocka_unit_test(test_abort),	     cmocka_unit_test(test_errors),
		cmocka_unit_test(test_first_error),  cmocka_unit_test(test_states),
		cmocka_unit_test(test_create),	     cmocka_unit_test(test_create_flags),
		cmocka_unit_test(test_bounced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
