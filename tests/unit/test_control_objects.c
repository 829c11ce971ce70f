/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The objects of the control room: handles that are foreign, stale or of the wrong kind, places in the arena
 * that are not, attributes that cannot be, and clients that vanish at the worst moment.
 */
#include <poll.h>

#include "test_control_play.h"

enum { MR_BYTES = 8192, LOCAL_WRITE = FX_ACC_LOCAL_WRITE };

static uint8_t memory[MR_BYTES] __attribute__((aligned(4096)));

static int plan_mr(struct client *c, uint32_t pd, uint64_t addr, uint64_t length, uint32_t access,
		   struct fx_reg_mr_rep *rep)
{
	struct fx_reg_mr_req req = {.pd = pd,
				    .access = access,
				    .addr = addr,
				    .length = length,
				    .iova = addr,
				    .flags = FX_REG_NO_CONVERT};

	return ASK(c, FX_MSG_REG_MR, &req, rep);
}

static int commit_mr(struct client *c, uint32_t mr, uint32_t nseg, struct fx_reg_mr_done_rep *rep)
{
	struct fx_reg_mr_done_req req = {.mr = mr, .nseg = nseg};

	return ASK(c, FX_MSG_REG_MR_DONE, &req, rep);
}

static int alloc_mw(struct client *c, uint32_t pd, uint32_t type, struct fx_alloc_mw_rep *rep)
{
	struct fx_alloc_mw_req req = {.pd = pd, .type = type};

	return ASK(c, FX_MSG_ALLOC_MW, &req, rep);
}

/* A PD, a CQ, a QP and an MR. */
struct set {
	uint32_t pd, cq, mr, key;
	struct fx_create_qp_rep qp;
};

static struct set make_set(struct client *c)
{
	struct fx_create_qp_req req;
	struct fx_reg_mr_done_rep done;
	struct fx_reg_mr_rep plan;
	struct set s = {0};

	assert_int_equal(simple(c, FX_MSG_ALLOC_PD, 0, &s.pd), 0);
	assert_int_equal(make_cq(c, c->hello.heap_off, 4, &s.cq), 0);
	req = qp_request(c, s.pd, s.cq);
	assert_int_equal(ASK(c, FX_MSG_CREATE_QP, &req, &s.qp), 0);
	assert_int_equal(plan_mr(c, s.pd, (uintptr_t)memory, MR_BYTES, LOCAL_WRITE, &plan), 0);
	assert_int_equal(commit_mr(c, plan.mr, plan.nseg, &done), 0);
	s.mr = done.mr;
	s.key = done.lkey;
	return s;
}

static int modify(struct client *c, uint32_t qp, uint32_t mask, const struct fx_qp_attr *attr, uint32_t pi)
{
	struct fx_modify_qp_req req = {.qp = qp, .mask = mask, .pipe_pi = pi, .attr = *attr};
	struct fx_modify_qp_rep rep;

	return ASK(c, FX_MSG_MODIFY_QP, &req, &rep);
}

static int destroy_qp(struct client *c, uint32_t qp)
{
	struct fx_qp_req req = {.qp = qp};
	struct fx_handle_rep rep;

	return ASK(c, FX_MSG_DESTROY_QP, &req, &rep);
}

static int query_qp(struct client *c, uint32_t qp)
{
	struct fx_qp_req req = {.qp = qp};
	struct fx_query_qp_rep rep;

	return ASK(c, FX_MSG_QUERY_QP, &req, &rep);
}

static void life_and_double_destroy(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	struct set s = make_set(&c);

	assert_int_equal(s.qp.qpn & ((1 << FX_WORKER_BITS) - 1), 0);
	assert_true(s.qp.qpn >= 1 << FX_WORKER_BITS); /* 0 and 1 are special */
	assert_int_equal(query_qp(&c, s.qp.qp), 0);
	/* what is used stays */
	assert_int_equal(simple(&c, FX_MSG_DEALLOC_PD, s.pd, NULL), -EBUSY);
	assert_int_equal(simple(&c, FX_MSG_DESTROY_CQ, s.cq, NULL), -EBUSY);
	assert_int_equal(destroy_qp(&c, s.qp.qp), 0);
	assert_int_equal(destroy_qp(&c, s.qp.qp), -EINVAL);
	assert_int_equal(query_qp(&c, s.qp.qp), -EINVAL);
	assert_int_equal(simple(&c, FX_MSG_DESTROY_CQ, s.cq, NULL), 0);
	assert_int_equal(simple(&c, FX_MSG_DESTROY_CQ, s.cq, NULL), -EINVAL);
	assert_int_equal(simple(&c, FX_MSG_DEREG_MR, s.mr, NULL), 0);
	assert_int_equal(simple(&c, FX_MSG_DEREG_MR, s.mr, NULL), -EINVAL);
	assert_int_equal(simple(&c, FX_MSG_DEALLOC_PD, s.pd, NULL), 0);
	assert_int_equal(simple(&c, FX_MSG_DEALLOC_PD, s.pd, NULL), -EINVAL);
	leave(&c);
	await_empty(p, 0);
}

/* Handles of another context, of another kind, and made up. */
static void foreign_handles(void **state)
{
	struct play *p = *state;
	struct client a = join(p), b = join(p);
	struct set s = make_set(&a);
	struct fx_qp_attr attr = {.qp_state = 1};
	uint32_t pd, cq;

	assert_int_equal(simple(&b, FX_MSG_ALLOC_PD, 0, &pd), 0);
	assert_int_equal(make_cq(&b, b.hello.heap_off, 4, &cq), 0);
	const uint32_t wrong[] = {s.pd, s.cq, s.qp.qp, s.mr, 0, 0xffffffff, s.qp.qpn, s.key, pd ^ 1u << 31};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		uint32_t h = wrong[i];
		struct fx_create_qp_req qps[] = {qp_request(&b, h, cq), qp_request(&b, pd, h),
						 qp_request(&b, pd, cq)};
		struct fx_create_qp_rep rep;
		struct fx_reg_mr_rep plan;
		struct fx_reg_mr_done_rep done;
		struct fx_alloc_mw_rep mw;

		if (h == pd || h == cq)
			continue; /* the same index of another table: a handle of its own */
		qps[2].recv_cq = h;
		for (int k = 0; k < 3; k++)
			assert_int_equal(ASK(&b, FX_MSG_CREATE_QP, &qps[k], &rep), -EINVAL);
		assert_int_equal(simple(&b, FX_MSG_DEALLOC_PD, h, NULL), -EINVAL);
		assert_int_equal(simple(&b, FX_MSG_DESTROY_CQ, h, NULL), -EINVAL);
		assert_int_equal(simple(&b, FX_MSG_DEREG_MR, h, NULL), -EINVAL);
		assert_int_equal(alloc_mw(&b, h, FX_MW_TYPE_1, &mw), -EINVAL);
		assert_int_equal(simple(&b, FX_MSG_DEALLOC_MW, h, NULL), -EINVAL);
		assert_int_equal(plan_mr(&b, h, (uintptr_t)memory, 64, LOCAL_WRITE, &plan), -EINVAL);
		assert_int_equal(commit_mr(&b, h, 1, &done), -EINVAL);
		assert_int_equal(modify(&b, h, 1, &attr, 0), -EINVAL);
		assert_int_equal(query_qp(&b, h), -EINVAL);
		assert_int_equal(destroy_qp(&b, h), -EINVAL);
	}
	leave(&b);
	assert_int_equal(query_qp(&a, s.qp.qp), 0); /* none the worse */
	leave(&a);
	await_empty(p, 0);
}

static void places_in_the_arena(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	const uint64_t heap = c.hello.heap_off, size = c.hello.arena_size;
	const struct {
		uint64_t off;
		uint32_t shift;
		int err;
	} rows[] = {
		{heap, 0, 0},
		{heap + 64, 4, 0},
		{size - 64 - 32, 0, -EINVAL}, /* misaligned */
		{size - 128, 0, 0},
		{size - 128, 1, 0}, /* ends where the arena ends */
		{size - 128, 2, -EINVAL},
		{size - 64, 0, -EINVAL},
		{size, 0, -EINVAL},
		{size + 64, 0, -EINVAL},
		{0, 4, -EINVAL},	 /* the pipe */
		{heap - 64, 0, -EINVAL}, /* the event ring */
		{c.hello.event_off, 4, -EINVAL},
		{heap + 1, 4, -EINVAL},
		{heap + 32, 4, -EINVAL},
		{heap, 22, 0},
		{heap, 23, -EINVAL},
		{heap, 31, -EINVAL},
		{heap, 32, -EINVAL},
		{heap, 0xffffffff, -EINVAL},
		{UINT64_MAX - 63, 4, -EINVAL}, /* wraps round */
		{UINT64_MAX & ~63ull, 22, -EINVAL},
		{1ull << 63, 4, -EINVAL},
	};
	uint32_t cq, pd;

	assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, &pd), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int err = make_cq(&c, rows[i].off, rows[i].shift, &cq);

		if (err != rows[i].err)
			fail_msg("row %zu: %d instead of %d", i, err, rows[i].err);
	}
	assert_int_equal(make_cq(&c, heap, 4, &cq), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fx_create_qp_req req = qp_request(&c, pd, cq);
		struct fx_create_qp_rep rep;

		req.rq_off = rows[i].off;
		req.rq_shift = rows[i].shift;
		req.max_recv_wr = 1;
		/* a receive ring of 2^shift slots is 64 << shift bytes: at the very end half as many fit */
		if (rows[i].err && !(rows[i].off == size - 64))
			assert_int_equal(ASK(&c, FX_MSG_CREATE_QP, &req, &rep), -EINVAL);
	}
	leave(&c);
	await_empty(p, 0);
}

static void what_a_queue_pair_may_ask_for(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	struct fx_create_qp_req ok, req;
	struct fx_create_qp_rep rep;
	uint32_t pd, cq;

	assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, &pd), 0);
	assert_int_equal(make_cq(&c, c.hello.heap_off, 4, &cq), 0);
	ok = qp_request(&c, pd, cq);
	const struct {
		uint32_t *field;
		uint32_t value;
		int err;
	} rows[] = {
		{&req.max_send_wr, 65536, 0},
		{&req.max_send_wr, 65537, -EINVAL},
		{&req.max_send_wr, 0xffffffff, -EINVAL},
		{&req.max_recv_wr, 17, -EINVAL}, /* more than the ring holds */
		{&req.max_recv_wr, 0, 0},
		{&req.max_recv_wr, 0xffffffff, -EINVAL},
		{&req.max_recv_sge, 4, -EINVAL}, /* two slots each: 16 entries do not fit 16 slots */
		{&req.max_recv_sge, 17, -EINVAL},
		{&req.max_send_sge, 16, 0},
		{&req.max_send_sge, 17, -EINVAL},
		{&req.max_inline, 512, 0},
		{&req.max_inline, 513, -EINVAL},
		{&req.rq_shift, 3, -EINVAL},
		{&req.rq_shift, 21, -EINVAL},
		{&req.rq_shift, 64, -EINVAL},
		{&req.type, 0, -EOPNOTSUPP},
		{&req.type, 77, -EOPNOTSUPP},
		{&req.srq, 1, -EINVAL},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int err;

		req = ok;
		*rows[i].field = rows[i].value;
		err = ASK(&c, FX_MSG_CREATE_QP, &req, &rep);
		if (err != rows[i].err)
			fail_msg("row %zu: %d (%s) instead of %d", i, err, c.why, rows[i].err);
	}
	leave(&c);
	await_empty(p, 0);
}

static void what_a_region_may_ask_for(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	const uint64_t at = (uintptr_t)memory;
	const struct {
		uint64_t addr, length;
		uint32_t access;
		int err;
	} rows[] = {
		{at, 1, 0, 0},
		{at, 0, LOCAL_WRITE, -EINVAL},
		{at, MR_BYTES, LOCAL_WRITE | FX_ACC_REMOTE_WRITE, 0},
		{at, MR_BYTES, FX_ACC_REMOTE_WRITE, -EINVAL}, /* needs local write */
		{at, MR_BYTES, FX_ACC_REMOTE_ATOMIC, -EINVAL},
		{at, MR_BYTES, FX_ACC_REMOTE_READ, 0},
		{at, MR_BYTES, 1 << 9, -EINVAL},
		{at, MR_BYTES, 1 << 6, -EOPNOTSUPP}, /* on demand */
		{at, MR_BYTES, LOCAL_WRITE | FX_ACC_RELAXED_ORDERING | 1 << 25,
		 0}, /* optional ones are ignored */
		{UINT64_MAX - 10, 100, LOCAL_WRITE, -EINVAL},
		{at, UINT64_MAX, LOCAL_WRITE, -EINVAL},
		{0, 4096, LOCAL_WRITE, -EFAULT}, /* nothing there */
	};
	uint32_t pd;

	assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, &pd), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fx_reg_mr_rep plan;
		struct fx_reg_mr_done_rep done;
		int err = plan_mr(&c, pd, rows[i].addr, rows[i].length, rows[i].access, &plan);

		if (err != rows[i].err)
			fail_msg("row %zu: %d (%s) instead of %d", i, err, c.why, rows[i].err);
		if (err)
			continue;
		assert_int_equal(commit_mr(&c, plan.mr, plan.nseg + 1, &done), -EINVAL);
		assert_int_equal(commit_mr(&c, plan.mr, plan.nseg, &done), 0);
		assert_int_equal(commit_mr(&c, plan.mr, plan.nseg, &done), -EINVAL); /* once only */
		assert_non_null(fx_mr_get(fx_control_mrs(p->ctl), done.lkey));
		assert_null(fx_mr_get(fx_control_mrs(p->ctl), done.lkey ^ 1));
		assert_int_equal(simple(&c, FX_MSG_DEREG_MR, done.mr, NULL), 0);
		assert_null(fx_mr_get(fx_control_mrs(p->ctl), done.lkey));
	}
	leave(&c);
	await_empty(p, 0);
}

/* What the worker does when it binds. */
static void bind_as_worker(struct play *p, uint32_t rkey, uint32_t lkey)
{
	struct fx_mw *mw = fx_mw_get(fx_control_mrs(p->ctl), rkey);

	assert_non_null(mw);
	mw->length = 1;
	mw->lkey = lkey;
	fx_mr_get(fx_control_mrs(p->ctl), lkey)->windows++;
}

/* Windows have keys of their own, hold their PD, and when bound their MR. */
static void memory_windows(void **state)
{
	struct play *p = *state;
	const struct fx_mr_table *mrs = fx_control_mrs(p->ctl);
	struct client a = join(p), b = join(p);
	struct set s = make_set(&a);
	struct fx_alloc_mw_rep mw[2], none;
	struct fx_control_usage u;
	uint32_t pd;

	assert_int_equal(a.hello.limits.max_mw, FX_LIMIT_MW);
	assert_int_equal(simple(&a, FX_MSG_ALLOC_PD, 0, &pd), 0);
	for (uint32_t type = 0; type < 5; type += 1 + 2 * (type == 0))
		assert_int_equal(alloc_mw(&a, pd, type, &none), -EINVAL);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(alloc_mw(&a, pd, i + 1, &mw[i]), 0);
		assert_int_equal(mw[i].rkey & FX_KEY_TAG, 0);
		assert_non_null(fx_mw_get(mrs, mw[i].rkey));
		assert_int_equal(fx_mw_get(mrs, mw[i].rkey)->type, i + 1);
		assert_int_equal(fx_mw_get(mrs, mw[i].rkey)->length, 0);
		assert_ptr_equal(fx_mw_get(mrs, mw[i].rkey), fx_mw_get(mrs, mw[i].rkey | FX_KEY_TAG));
		assert_null(fx_mw_get(mrs, mw[i].rkey ^ 1u << FX_KEY_TAG_BITS));
		assert_null(fx_mr_get(mrs, mw[i].rkey));
	}
	assert_null(fx_mw_get(mrs, s.key));
	fx_control_usage(p->ctl, &u);
	assert_int_equal(u.mws, 2);
	assert_int_equal(simple(&a, FX_MSG_DEALLOC_PD, pd, NULL), -EBUSY);
	assert_int_equal(simple(&b, FX_MSG_DEALLOC_MW, mw[0].mw, NULL), -EINVAL);
	bind_as_worker(p, mw[0].rkey, s.key);
	bind_as_worker(p, mw[1].rkey, s.key);
	assert_int_equal(simple(&a, FX_MSG_DEREG_MR, s.mr, NULL), -EBUSY);
	assert_non_null(strstr(a.why, "2 memory windows"));
	assert_non_null(fx_mr_get(mrs, s.key));
	assert_int_equal(simple(&a, FX_MSG_DEALLOC_MW, mw[0].mw, NULL), 0);
	assert_int_equal(p->seen[FX_CMD_GRACE], 1);
	assert_null(fx_mw_get(mrs, mw[0].rkey));
	assert_int_equal(simple(&a, FX_MSG_DEALLOC_MW, mw[0].mw, NULL), -EINVAL);
	assert_int_equal(simple(&a, FX_MSG_DEREG_MR, s.mr, NULL), -EBUSY);
	assert_int_equal(simple(&a, FX_MSG_DEALLOC_MW, mw[1].mw, NULL), 0);
	assert_int_equal(simple(&a, FX_MSG_DEREG_MR, s.mr, NULL), 0);
	assert_int_equal(simple(&a, FX_MSG_DEALLOC_PD, pd, NULL), 0);
	leave(&a);
	leave(&b);
	await_empty(p, 0);
}

/* One region takes another's place: what it is, under the other's handle and key. Both have to be there, and free. */
static void regions_take_places(void **state)
{
	struct play *p = *state;
	struct client c = join(p), other = join(p);
	const struct fx_mr_table *mrs = fx_control_mrs(p->ctl);
	struct set s = make_set(&c), t = make_set(&c);
	struct fx_replace_mr_req req = {.mr = s.mr, .with = t.mr};
	struct fx_handle_rep rep;
	struct fx_alloc_mw_rep mw;

	assert_int_equal(alloc_mw(&c, s.pd, FX_MW_TYPE_1, &mw), 0);
	bind_as_worker(p, mw.rkey, s.key);
	assert_int_equal(ASK(&c, FX_MSG_REPLACE_MR, &req, &rep), -EBUSY);
	assert_int_equal(simple(&c, FX_MSG_DEALLOC_MW, mw.mw, NULL), 0);
	assert_int_equal(ASK(&other, FX_MSG_REPLACE_MR, &req, &rep), -EINVAL);
	req.with = s.mr;
	assert_int_equal(ASK(&c, FX_MSG_REPLACE_MR, &req, &rep), -EINVAL);
	assert_int_equal(fx_mr_get(mrs, s.key)->pd, s.pd);
	req.with = t.mr;
	assert_int_equal(ASK(&c, FX_MSG_REPLACE_MR, &req, &rep), 0);
	assert_int_equal(rep.handle, s.mr);
	assert_int_equal(fx_mr_get(mrs, s.key)->pd, t.pd);
	assert_int_equal(fx_mr_get(mrs, s.key)->key, s.key);
	assert_null(fx_mr_get(mrs, t.key));
	assert_int_equal(simple(&c, FX_MSG_DEREG_MR, t.mr, NULL), -EINVAL);
	assert_int_equal(simple(&c, FX_MSG_DEREG_MR, s.mr, NULL), 0);
	assert_null(fx_mr_get(mrs, s.key));
	leave(&c);
	leave(&other);
	await_empty(p, 0);
}

/* The end of a context unbinds what is bound, and waits for nobody's leave. */
static void vanishing_with_windows(void **state)
{
	struct play *p = *state;

	for (int i = 0; i < 10; i++) {
		struct client c = join(p);
		struct set s = make_set(&c);
		struct fx_alloc_mw_rep mw;

		for (uint32_t type = 1; type <= 2; type++) {
			assert_int_equal(alloc_mw(&c, s.pd, type, &mw), 0);
			bind_as_worker(p, mw.rkey, s.key);
		}
		leave(&c);
	}
	await_empty(p, 0);
}

static void paths(void **state)
{
	enum { AV = 1 << 7 };
	struct play *p = *state;
	struct client c = join(p);
	struct set s = make_set(&c);
	struct fx_qp_attr attr = {.ah = {.port_num = 1, .is_global = 1}};
	struct fx_ah_req handle = {.pd = s.pd, .attr = {.port_num = 1}};
	struct fx_ah_rep made;

	memcpy(attr.ah.dgid, p->port.gid, 16);
	assert_int_equal(modify(&c, s.qp.qp, AV, &attr, 0), 0);
	assert_true(p->last_path);
	attr.ah.dgid[15] ^= 1;
	assert_int_equal(modify(&c, s.qp.qp, AV, &attr, 0), -EHOSTUNREACH);
	assert_non_null(strstr(c.why, "192.0.2.7"));
	assert_int_equal(modify(&c, s.qp.qp, 0, &attr, 0), 0); /* not asked about */
	assert_false(p->last_path);
	attr.ah.is_global = 0; /* the port itself */
	assert_int_equal(modify(&c, s.qp.qp, AV, &attr, 0), 0);
	attr.ah.port_num = 2;
	assert_int_equal(modify(&c, s.qp.qp, AV, &attr, 0), -EINVAL);
	attr.ah = (struct fx_ah_attr){.port_num = 1, .is_global = 1, .sgid_index = 1};
	memcpy(attr.ah.dgid, p->port.gid, 16);
	assert_int_equal(modify(&c, s.qp.qp, AV, &attr, 0), -EINVAL);
	/* an address handle is never for the port itself: programs take its GID from what arrives */
	handle.attr.is_global = 0;
	assert_int_equal(ASK(&c, FX_MSG_CREATE_AH, &handle, &made), -EINVAL);
	leave(&c);
	await_empty(p, 0);
}

/* The worker is told what to wait for, and its answer is the request's. */
static void requests_run_in_turn(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	struct set s = make_set(&c);
	struct fx_qp_attr attr = {0};

	assert_int_equal(modify(&c, s.qp.qp, 0, &attr, 4711), 0);
	assert_int_equal(p->last_pi, 4711);
	assert_true(p->last_in_turn);
	p->fail = EINVAL;
	assert_int_equal(modify(&c, s.qp.qp, 1, &attr, 0), -EINVAL);
	p->fail = ETIMEDOUT;
	assert_int_equal(modify(&c, s.qp.qp, 1, &attr, 5), -ETIMEDOUT);
	leave(&c);
	await_empty(p, 0);
}

/* ---- vanishing ---- */

static void vanishing_with_everything_open(void **state)
{
	struct play *p = *state;

	for (int i = 0; i < 20; i++) {
		struct client c = join(p);
		struct set s = make_set(&c);

		assert_true(s.key);
		leave(&c);
	}
	await_empty(p, 0);
	assert_int_equal(p->seen[FX_CMD_QP_DETACH], 20);
	assert_int_equal(p->seen[FX_CMD_CTX_DEL], 20);
	assert_int_equal(fx_control_counters(p->ctl)->reaped, 20);
}

static void vanishing_between_the_steps_of_reg_mr(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	struct fx_reg_mr_rep plan;
	uint32_t pd;

	assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, &pd), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(plan_mr(&c, pd, (uintptr_t)memory, MR_BYTES, LOCAL_WRITE, &plan), 0);
	assert_int_equal(simple(&c, FX_MSG_DEREG_MR, plan.mr, NULL), 0); /* giving one up is fine too */
	leave(&c);
	await_empty(p, 0);
}

/* Its last request is with the worker: nothing may go before that comes back. */
static void vanishing_while_the_worker_is_busy(void **state)
{
	static const unsigned ops[] = {FX_MSG_DESTROY_QP, FX_MSG_QUERY_QP, FX_MSG_CREATE_QP,
				       FX_MSG_DEREG_MR,	  FX_MSG_SHOW,	   FX_MSG_MODIFY_QP,
				       FX_MSG_DEALLOC_MW, FX_MSG_COUNTERS};
	struct play *p = *state;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		struct client c = join(p);
		struct set s = make_set(&c);
		struct fx_create_qp_req create = qp_request(&c, s.pd, s.cq);
		struct fx_modify_qp_req change = {.qp = s.qp.qp};
		struct fx_handle_req handle = {.handle = ops[i] == FX_MSG_DEREG_MR ? s.mr : s.qp.qp};
		struct fx_msg_head *req = &handle.head;
		struct fx_control_usage u;
		struct fx_alloc_mw_rep mw;

		assert_int_equal(alloc_mw(&c, s.pd, FX_MW_TYPE_2, &mw), 0);
		if (ops[i] == FX_MSG_DEALLOC_MW)
			handle.handle = mw.mw;
		if (ops[i] == FX_MSG_CREATE_QP)
			req = &create.head;
		else if (ops[i] == FX_MSG_MODIFY_QP)
			req = &change.head;
		req->size = req == &create.head	  ? sizeof(create)
			    : req == &change.head ? sizeof(change)
						  : sizeof(handle);
		req->magic = FX_PROTO_MAGIC;
		req->op = (uint16_t)ops[i];
		p->hold = true;
		assert_int_equal(send(c.fd, req, req->size, 0), req->size);
		for (int k = 0; k < 20; k++)
			play_pause();
		leave(&c);
		for (int k = 0; k < 20; k++)
			play_pause();
		fx_control_usage(p->ctl, &u);
		assert_int_equal(u.contexts, 1);
		assert_int_equal(u.cqs, 1);
		p->hold = false;
		await_empty(p, 0);
	}
}

/* Numbers and handles come back as late as can be, and never the same. */
static void numbers_are_reused_oldest_first(void **state)
{
	struct play *p = *state;
	struct client c = join(p);
	uint32_t last = 0, first = 0;

	for (unsigned i = 0; i < 2 * FX_LIMIT_PD; i++) {
		uint32_t pd;

		assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, &pd), 0);
		assert_int_not_equal(pd, last);
		if (i == 0)
			first = pd;
		if (i == FX_LIMIT_PD) {
			assert_int_equal(pd & 0xfffff, first & 0xfffff);
			assert_int_not_equal(pd, first);
			assert_int_equal(simple(&c, FX_MSG_DEALLOC_PD, first, NULL), -EINVAL);
		}
		assert_int_equal(simple(&c, FX_MSG_DEALLOC_PD, pd, NULL), 0);
		last = pd;
	}
	leave(&c);
	await_empty(p, 0);
}

static int make_cq_with(struct client *c, uint32_t channel, uint32_t *cq)
{
	struct fx_create_cq_req req = {.off = c->hello.heap_off, .shift = 4, .channel = channel};
	struct fx_handle_rep rep = {0};
	int err = ASK(c, FX_MSG_CREATE_CQ, &req, &rep);

	*cq = rep.handle;
	return err;
}

/* A channel brings a pipe that hangs up with it, and outlives its CQs only. */
static void completion_channels(void **state)
{
	struct play *p = *state;
	struct client a = join(p), b = join(p);
	struct pollfd end = {.events = POLLIN};
	uint32_t ch, cq, other;
	unsigned fds = a.nfds;

	assert_int_equal(simple(&a, FX_MSG_CREATE_CHANNEL, 0, &ch), 0);
	assert_int_equal(a.nfds, fds + 1);
	end.fd = a.fds[fds];
	assert_int_equal(poll(&end, 1, 0), 0);
	assert_int_equal(make_cq_with(&b, ch, &other), -EINVAL); /* somebody else's */
	assert_int_equal(make_cq_with(&a, ch + 1, &cq), -EINVAL);
	assert_int_equal(make_cq_with(&a, ch, &cq), 0);
	assert_int_equal(p->seen[FX_CMD_CQ_ADD], 1);
	assert_int_equal(simple(&a, FX_MSG_DESTROY_CHANNEL, ch, NULL), -EBUSY);
	assert_int_equal(simple(&b, FX_MSG_DESTROY_CHANNEL, ch, NULL), -EINVAL);
	assert_int_equal(simple(&a, FX_MSG_DESTROY_CQ, cq, NULL), 0);
	assert_int_equal(p->seen[FX_CMD_CQ_DEL], 1);
	assert_int_equal(simple(&a, FX_MSG_DESTROY_CHANNEL, ch, NULL), 0);
	assert_int_equal(poll(&end, 1, PLAY_WAIT_MS), 1);
	assert_true(end.revents & POLLHUP);
	assert_int_equal(simple(&a, FX_MSG_DESTROY_CHANNEL, ch, NULL), -EINVAL);
	/* with everything open */
	assert_int_equal(simple(&a, FX_MSG_CREATE_CHANNEL, 0, &ch), 0);
	assert_int_equal(make_cq_with(&a, ch, &cq), 0);
	leave(&a);
	leave(&b);
	await_empty(p, 0);
}

static int make_pipe(struct client *c, uint64_t off, uint32_t shift, uint32_t *handle)
{
	struct fx_create_pipe_req req = {.off = off, .shift = shift};
	struct fx_handle_rep rep = {0};
	int err = ASK(c, FX_MSG_CREATE_PIPE, &req, &rep);

	*handle = rep.handle;
	return err;
}

/* As many as a context may have, each where its slots are the context's own. */
static void further_pipes(void **state)
{
	struct play *p = *state;
	struct client a = join(p), b = join(p);
	uint64_t heap = a.hello.heap_off, end = a.hello.arena_size;
	uint32_t pipe[FX_LIMIT_PIPE], other;

	assert_int_equal(make_pipe(&a, heap + 1, 6, &other), -EINVAL);
	assert_int_equal(make_pipe(&a, end - FX_LINE * 64, 6, &other), -EINVAL);
	assert_int_equal(make_pipe(&a, end + FX_LINE, 6, &other), -EINVAL);
	assert_int_equal(make_pipe(&a, heap, 3, &other), -EINVAL); /* a long entry would not fit */
	assert_int_equal(make_pipe(&a, heap, 31, &other), -EINVAL);
	assert_int_equal(make_pipe(&a, heap, 64, &other), -EINVAL);
	assert_int_equal(p->seen[FX_CMD_PIPE_ADD], 0);
	for (uint32_t i = 0; i < FX_LIMIT_PIPE; i++)
		assert_int_equal(make_pipe(&a, heap + i * 8192, 6, &pipe[i]), 0);
	assert_int_equal(make_pipe(&a, heap, 6, &other), -ENOSPC);
	assert_int_equal(simple(&b, FX_MSG_DESTROY_PIPE, pipe[0], NULL), -EINVAL); /* somebody else's */
	assert_int_equal(simple(&a, FX_MSG_DESTROY_PIPE, 0, NULL), -EINVAL);
	assert_int_equal(simple(&a, FX_MSG_DESTROY_PIPE, FX_LIMIT_PIPE + 1, NULL), -EINVAL);
	assert_int_equal(simple(&a, FX_MSG_DESTROY_PIPE, pipe[7], NULL), 0);
	assert_int_equal(simple(&a, FX_MSG_DESTROY_PIPE, pipe[7], NULL), -EINVAL);
	assert_int_equal(make_pipe(&a, heap, 6, &other), 0);
	assert_int_equal(other, pipe[7]);
	assert_int_equal(p->seen[FX_CMD_PIPE_ADD], FX_LIMIT_PIPE + 1);
	assert_int_equal(p->seen[FX_CMD_PIPE_DEL], 1);
	leave(&a); /* with all of them */
	leave(&b);
	await_empty(p, 0);
}

/* Where a CQ may be moved to, and that its client may go meanwhile. */
static void changes_of_completion_queues(void **state)
{
	struct play *p = *state;
	struct client a = join(p);
	struct fx_resize_cq_req to = {.off = a.hello.heap_off + 4096, .shift = 5};
	struct fx_modify_cq_req m = {.count = 4, .period_us = 10};
	struct fx_resize_cq_rep rep;
	struct fx_handle_rep ok;
	uint32_t cq;

	assert_int_equal(make_cq_with(&a, 0, &cq), 0);
	m.cq = to.cq = cq + 1;
	assert_int_equal(ASK(&a, FX_MSG_RESIZE_CQ, &to, &rep), -EINVAL);
	assert_int_equal(ASK(&a, FX_MSG_MODIFY_CQ, &m, &ok), -EINVAL);
	m.cq = to.cq = cq;
	to.off++;
	assert_int_equal(ASK(&a, FX_MSG_RESIZE_CQ, &to, &rep), -EINVAL);
	to.off--;
	to.shift = 40;
	assert_int_equal(ASK(&a, FX_MSG_RESIZE_CQ, &to, &rep), -EINVAL);
	to.shift = 5;
	assert_int_equal(p->seen[FX_CMD_CQ_RESIZE], 0);
	assert_int_equal(ASK(&a, FX_MSG_RESIZE_CQ, &to, &rep), 0);
	assert_int_equal(ASK(&a, FX_MSG_MODIFY_CQ, &m, &ok), 0);
	assert_int_equal(p->seen[FX_CMD_CQ_RESIZE], 1);
	assert_int_equal(p->seen[FX_CMD_CQ_MODIFY], 1);
	assert_int_equal(simple(&a, FX_MSG_DESTROY_CQ, cq, NULL), 0);
	leave(&a);
	await_empty(p, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, play_start, play_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(life_and_double_destroy),
		TEST(foreign_handles),
		TEST(places_in_the_arena),
		TEST(what_a_queue_pair_may_ask_for),
		TEST(further_pipes),
		TEST(changes_of_completion_queues),
		TEST(what_a_region_may_ask_for),
		TEST(memory_windows),
		TEST(vanishing_with_windows),
		TEST(paths),
		TEST(requests_run_in_turn),
		TEST(vanishing_with_everything_open),
		TEST(regions_take_places),
		TEST(vanishing_between_the_steps_of_reg_mr),
		TEST(vanishing_while_the_worker_is_busy),
		TEST(numbers_are_reused_oldest_first),
		TEST(completion_channels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
