/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Quotas: each kind runs out at its number, says so, and comes back exactly, whichever way things end; users have
 * nothing to do with one another; a user who is not limited is not.
 */
#include "test_control_play.h"

#include "control/inside.h"

enum { MANY = 500, MR_BYTES = 4096 };

static uint8_t memory[MR_BYTES] __attribute__((aligned(4096)));

/* ---- over the socket, as one user ---- */

static struct fx_quota_user me;
static struct fx_quota_cfg quotas = {.users = &me, .nusers = 1};

/* This user has these; the rest is not limited. */
static struct play *play_with(const struct fx_quota *q)
{
	void *state = NULL;

	me = (struct fx_quota_user){.uid = geteuid(), .quota = *q};
	play_quota = &quotas;
	assert_int_equal(play_start(&state), 0);
	play_quota = NULL;
	return state;
}

static struct fx_quota unlimited(void)
{
	struct fx_quota q;

	for (int k = 0; k < FX_QUOTA_KINDS; k++)
		q.limit[k] = FX_UNLIMITED;
	return q;
}

static uint32_t pd_of(struct client *c)
{
	uint32_t pd;

	assert_int_equal(simple(c, FX_MSG_ALLOC_PD, 0, &pd), 0);
	return pd;
}

static int plan_mr(struct client *c, uint32_t pd, uint64_t length, uint32_t *mr)
{
	struct fx_reg_mr_req req = {.pd = pd,
				    .addr = (uintptr_t)memory,
				    .length = length,
				    .iova = (uintptr_t)memory,
				    .flags = FX_REG_NO_CONVERT};
	struct fx_reg_mr_rep rep = {0};
	int err = ASK(c, FX_MSG_REG_MR, &req, &rep);

	*mr = rep.mr;
	return err;
}

static int create_qp(struct client *c, uint32_t pd, uint32_t cq, uint32_t max_send_wr, uint32_t *qp)
{
	struct fx_create_qp_req req = qp_request(c, pd, cq);
	struct fx_create_qp_rep rep = {0};
	int err;

	req.max_send_wr = max_send_wr;
	err = ASK(c, FX_MSG_CREATE_QP, &req, &rep);
	*qp = rep.qp;
	return err;
}

static void destroy_qp(struct client *c, uint32_t qp)
{
	struct fx_qp_req req = {.qp = qp};
	struct fx_handle_rep rep;

	assert_int_equal(ASK(c, FX_MSG_DESTROY_QP, &req, &rep), 0);
}

static int alloc_mw(struct client *c, uint32_t pd, uint32_t *handle)
{
	struct fx_alloc_mw_req req = {.pd = pd, .type = FX_MW_TYPE_2};
	struct fx_alloc_mw_rep rep = {0};
	int err = ASK(c, FX_MSG_ALLOC_MW, &req, &rep);

	*handle = rep.mw;
	return err;
}

static int create_ah(struct client *c, uint32_t pd, uint32_t *handle)
{
	struct fx_ah_req req = {
		.pd = pd,
		.attr = {.port_num = 1, .is_global = 1, .dgid = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 7}}};
	struct fx_ah_rep rep = {0};
	int err = ASK(c, FX_MSG_CREATE_AH, &req, &rep);

	*handle = rep.ah;
	return err;
}

static void destroy_ah(struct client *c, uint32_t ah)
{
	struct fx_qp_req req = {.qp = ah};
	struct fx_handle_rep rep;

	assert_int_equal(ASK(c, FX_MSG_DESTROY_AH, &req, &rep), 0);
}

static int open_xrcd(struct client *c, uint32_t *xrcd)
{
	struct fx_open_xrcd_req req = {.fd = -1};
	struct fx_handle_rep rep;
	int err = ASK(c, FX_MSG_OPEN_XRCD, &req, &rep);

	*xrcd = rep.handle;
	return err;
}

static int create_srq(struct client *c, uint32_t pd, uint32_t *srq)
{
	struct fx_create_srq_req req = {.pd = pd, .max_wr = 4, .max_sge = 3, .rq_shift = 2};
	struct fx_create_srq_rep rep;
	int err;

	req.rq_off = c->hello.heap_off + 4096;
	err = ASK(c, FX_MSG_CREATE_SRQ, &req, &rep);
	*srq = rep.srq;
	return err;
}

/* A UD QP in a group of its own: what counts is the membership. */
static int attach(struct client *c, uint32_t pd, uint32_t cq, uint32_t *qp)
{
	struct fx_create_qp_req create = qp_request(c, pd, cq);
	struct fx_create_qp_rep made = {0};
	struct fx_mcast_req req = {.gid = {0xff, 0x0e}};
	struct fx_msg_head rep;
	int err;

	create.type = FX_QPT_UD;
	assert_int_equal(ASK(c, FX_MSG_CREATE_QP, &create, &made), 0);
	req.qp = *qp = made.qp;
	memcpy(req.gid + 12, &made.qp, sizeof(made.qp));
	err = ASK(c, FX_MSG_ATTACH_MCAST, &req, &rep);
	if (err)
		destroy_qp(c, made.qp);
	return err;
}

static void detach(struct client *c, uint32_t qp)
{
	struct fx_mcast_req req = {.qp = qp, .gid = {0xff, 0x0e}};
	struct fx_msg_head rep;

	memcpy(req.gid + 12, &qp, sizeof(qp));
	assert_int_equal(ASK(c, FX_MSG_DETACH_MCAST, &req, &rep), 0);
	destroy_qp(c, qp);
}

/* One of each kind, by the handle that ends it. `n` only matters for what is counted in something else. */
static int make(struct client *c, enum fx_quota_kind k, uint32_t n, uint32_t pd, uint32_t cq,
		uint32_t *handle)
{
	switch (k) {
	case FX_QUOTA_pds:
		return simple(c, FX_MSG_ALLOC_PD, 0, handle);
	case FX_QUOTA_channels:
		return simple(c, FX_MSG_CREATE_CHANNEL, 0, handle);
	case FX_QUOTA_cqs:
		return make_cq(c, c->hello.heap_off, 4, handle);
	case FX_QUOTA_mrs:
		return plan_mr(c, pd, 64, handle);
	case FX_QUOTA_mr_bytes:
		return plan_mr(c, pd, n, handle);
	case FX_QUOTA_mws:
		return alloc_mw(c, pd, handle);
	case FX_QUOTA_ahs:
		return create_ah(c, pd, handle);
	case FX_QUOTA_srqs:
		return create_srq(c, pd, handle);
	case FX_QUOTA_mcasts:
		return attach(c, pd, cq, handle);
	case FX_QUOTA_xrcds:
		return open_xrcd(c, handle);
	default:
		return create_qp(c, pd, cq, k == FX_QUOTA_send_wrs ? n : 1, handle);
	}
}

static void end(struct client *c, enum fx_quota_kind k, uint32_t handle)
{
	static const uint16_t ops[FX_QUOTA_KINDS] = {
		[FX_QUOTA_pds] = FX_MSG_DEALLOC_PD,    [FX_QUOTA_channels] = FX_MSG_DESTROY_CHANNEL,
		[FX_QUOTA_cqs] = FX_MSG_DESTROY_CQ,    [FX_QUOTA_mrs] = FX_MSG_DEREG_MR,
		[FX_QUOTA_mr_bytes] = FX_MSG_DEREG_MR, [FX_QUOTA_mws] = FX_MSG_DEALLOC_MW,
		[FX_QUOTA_srqs] = FX_MSG_DESTROY_SRQ,  [FX_QUOTA_xrcds] = FX_MSG_CLOSE_XRCD,
	};

	if (ops[k])
		assert_int_equal(simple(c, ops[k], handle, NULL), 0);
	else if (k == FX_QUOTA_mcasts)
		detach(c, handle);
	else if (k == FX_QUOTA_ahs)
		destroy_ah(c, handle);
	else
		destroy_qp(c, handle);
}

static uint64_t used(const struct play *p, enum fx_quota_kind k)
{
	for (int b = 0; b < 1 << FX_USER_SHIFT; b++)
		for (const struct fx_user *u = p->ctl->users[b]; u; u = u->next)
			if (u->uid == geteuid())
				return u->used[k];
	return 0;
}

/* Four of `k` and no more, in several rounds: what was given back can be had again, and nothing more than that. */
static void four_of(enum fx_quota_kind k)
{
	bool summed = k == FX_QUOTA_send_wrs || k == FX_QUOTA_mr_bytes;
	uint32_t each = summed ? 100 : 1, pd, cq, own, h[4];
	struct fx_quota q = unlimited();
	struct play *p;
	struct client c;
	char text[64];

	own = k == FX_QUOTA_pds || k == FX_QUOTA_cqs; /* the PD or CQ that the rest lies in */
	q.limit[k] = 4 * each + own;
	p = play_with(&q);
	c = join(p);
	pd = pd_of(&c);
	assert_int_equal(make_cq(&c, c.hello.heap_off, 4, &cq), 0);
	snprintf(text, sizeof(text), "has %u of %u %s", 4 * each + own, 4 * each + own,
		 fx_quota_info[k].name);
	for (int round = 0; round < 3; round++) {
		uint32_t other;

		for (int i = 0; i < 4; i++)
			if (make(&c, k, each, pd, cq, &h[i]))
				fail_msg("%s: round %d, %d: %s", fx_quota_info[k].key, round, i, c.why);
		assert_true(used(p, k) == 4 * each + own);
		assert_int_equal(make(&c, k, 1, pd, cq, &other), -ENOMEM);
		if (!strstr(c.why, text) || !strstr(c.why, fx_quota_info[k].key))
			fail_msg("%s: it says %s instead of %s", fx_quota_info[k].key, c.why, text);
		end(&c, k, h[3]);
		if (summed) /* less than one that was there: fits, and more does not */
			assert_int_equal(make(&c, k, each + 1, pd, cq, &other), -ENOMEM);
		assert_int_equal(make(&c, k, each, pd, cq, &h[3]), 0);
		for (int i = 0; i < 4; i++)
			end(&c, k, h[i]);
		assert_true(used(p, k) == own);
	}
	assert_true(fx_control_counters(p->ctl)->refused_quota >= 3);
	/* and when all of it ends at once */
	for (int i = 0; i < 4; i++)
		assert_int_equal(make(&c, k, each, pd, cq, &h[i]), 0);
	leave(&c);
	await_empty(p, 0);
	assert_true(used(p, k) == 0);
	assert_int_equal(play_end((void **)&p), 0);
}

static void each_kind(void **state)
{
	(void)state;
	for (int k = FX_QUOTA_contexts + 1; k < FX_QUOTA_KINDS; k++)
		four_of((enum fx_quota_kind)k);
}

/* Refused for another reason, or by the worker: nothing is counted. */
static void failures_count_nothing(void **state)
{
	struct fx_quota q = unlimited();
	struct play *p = play_with(&q);
	struct client c = join(p);
	uint32_t pd = pd_of(&c), cq, h;

	(void)state;
	assert_int_equal(make_cq(&c, c.hello.heap_off, 4, &cq), 0);
	assert_int_equal(make_cq(&c, 1, 4, &h), -EINVAL);
	assert_int_equal(create_qp(&c, pd, cq + 1, 4, &h), -EINVAL);
	assert_int_equal(create_qp(&c, pd, cq, 1u << 20, &h), -EINVAL);
	assert_int_equal(plan_mr(&c, pd, UINT64_MAX, &h), -EINVAL);
	assert_int_equal(simple(&c, FX_MSG_DEALLOC_PD, pd + 1, NULL), -EINVAL);
	for (int k = FX_QUOTA_NONE + 1; k < FX_QUOTA_KINDS; k++)
		assert_true(used(p, k) ==
			    (k == FX_QUOTA_contexts || k == FX_QUOTA_pds || k == FX_QUOTA_cqs ? 1 : 0));
	leave(&c);
	await_empty(p, 0);
	assert_int_equal(play_end((void **)&p), 0);
}

static void contexts(void **state)
{
	struct fx_quota q = unlimited();
	struct client a, b, c;
	struct play *p;

	(void)state;
	q.limit[FX_QUOTA_contexts] = 2;
	p = play_with(&q);
	a = join(p);
	b = join(p);
	c = (struct client){.fd = client_socket(p)};
	assert_int_equal(hello(&c, FX_ROLE_HOST), -ENOMEM);
	assert_non_null(strstr(c.why, "has 2 of 2 contexts"));
	leave(&c);
	c = (struct client){.fd = client_socket(p)};
	assert_int_equal(hello(&c, FX_ROLE_CTL), 0); /* flexinsctl can still look */
	leave(&b);
	for (int i = 0; i < PLAY_WAIT_MS && used(p, FX_QUOTA_contexts) == 2; i++)
		play_pause();
	b = join(p);
	leave(&a);
	leave(&b);
	leave(&c);
	await_empty(p, 0);
	assert_int_equal(play_end((void **)&p), 0);
}

/* Connections without a greeting are bounded too: a user's hundreds leave room for others. */
static void connections(void **state)
{
	struct fx_quota q = unlimited();
	int fd[80], refused = 0;
	struct play *p;

	(void)state;
	q.limit[FX_QUOTA_contexts] = 2;
	p = play_with(&q);
	for (int i = 0; i < 80; i++)
		fd[i] = client_socket(p);
	for (int i = 0; i < 80; i++) {
		struct client c = {.fd = fd[i]};

		refused += hello(&c, FX_ROLE_CTL) != 0;
	}
	assert_int_equal(refused, 80 - 66);
	for (int i = 0; i < 80; i++)
		close(fd[i]);
	await_empty(p, 0);
	assert_int_equal(play_end((void **)&p), 0);
}

/* What the device says that it has is what this user may have. */
static void limits_of_the_device(void **state)
{
	struct fx_quota q = unlimited();
	struct client c;
	struct play *p;

	(void)state;
	p = play_with(&q);
	c = join(p);
	assert_int_equal(c.hello.limits.max_qp, FX_LIMIT_QP);
	assert_int_equal(c.hello.limits.max_pd, FX_LIMIT_PD);
	leave(&c);
	assert_int_equal(play_end((void **)&p), 0);
	q.limit[FX_QUOTA_qps] = 11;
	q.limit[FX_QUOTA_send_wrs] = 12;
	q.limit[FX_QUOTA_cqs] = 13;
	q.limit[FX_QUOTA_mrs] = 14;
	q.limit[FX_QUOTA_pds] = 1 << 30;
	q.limit[FX_QUOTA_mr_bytes] = 15;
	p = play_with(&q);
	c = join(p);
	assert_int_equal(c.hello.limits.max_qp, 11);
	assert_int_equal(c.hello.limits.max_qp_wr, 12);
	assert_int_equal(c.hello.limits.max_cq, 13);
	assert_int_equal(c.hello.limits.max_mr, 14);
	assert_int_equal(c.hello.limits.max_pd, FX_LIMIT_PD);
	assert_int_equal(c.hello.limits.max_mr_size, 15);
	leave(&c);
	assert_int_equal(play_end((void **)&p), 0);
}

/* ---- many users, each a client of nobody's socket ---- */

static struct fx_control fake;
static struct fx_client clients[MANY];
static struct fx_ctx ctxs[MANY];

static void fake_core(const struct fx_quota_cfg *cfg, uint32_t pds)
{
	memset(&fake, 0, sizeof(fake));
	fake.cfg.quota = cfg;
	for (int k = 0; k < FX_OBJ_KINDS; k++)
		assert_int_equal(fx_table_init(&fake.objs[k], pds, 0), 0);
}

static void fake_client(int i, uid_t uid)
{
	clients[i] = (struct fx_client){.ctl = &fake, .user = fx_user_hold(&fake, uid), .ctx = &ctxs[i]};
	assert_non_null(clients[i].user);
	ctxs[i] = (struct fx_ctx){.ctl = &fake, .client = &clients[i], .user = clients[i].user};
}

static void many_users(void **state)
{
	static struct fx_obj objs[MANY][3];
	struct fx_quota_user named[] = {{.uid = 1000 + 7}, {.uid = 0}};
	struct fx_quota_cfg cfg = {.users = named, .nusers = 2};

	(void)state;
	fx_quota_normal(&cfg.others);
	cfg.others.limit[FX_QUOTA_pds] = 2;
	named[0].quota = named[1].quota = cfg.others;
	named[0].quota.limit[FX_QUOTA_pds] = 1;
	named[1].quota.limit[FX_QUOTA_pds] = 3;
	fake_core(&cfg, 2 * MANY);
	for (int i = 0; i < MANY; i++)
		fake_client(i, i ? 1000 + (uid_t)i : 0);
	for (int i = 0; i < MANY; i++) {
		int may = i == 7 ? 1 : i ? 2 : 3;

		for (int n = 0; n < 3; n++)
			assert_int_equal(fx_obj_add(&ctxs[i], &objs[i][n], FX_OBJ_PD), n < may ? 0 : -ENOMEM);
		assert_true(clients[i].user->used[FX_QUOTA_pds] == (uint64_t)may);
	}
	for (int i = 0; i < MANY; i++) {
		while (ctxs[i].objs[FX_OBJ_PD])
			fx_obj_del(ctxs[i].objs[FX_OBJ_PD]);
		assert_true(clients[i].user->used[FX_QUOTA_pds] == 0);
		fx_user_release(clients[i].user);
	}
	for (int b = 0; b < 1 << FX_USER_SHIFT; b++)
		assert_null(fake.users[b]); /* who has nothing is forgotten */
	for (int k = 0; k < FX_OBJ_KINDS; k++)
		fx_table_fini(&fake.objs[k]);
}

/* Root and the core's own user are limited by name only. */
static void who_is_limited(void **state)
{
	const uid_t stranger = geteuid() + 1;
	struct fx_quota_cfg cfg = {.nusers = 0};

	(void)state;
	fx_quota_normal(&cfg.others);
	fake_core(&cfg, 1);
	fake_client(0, 0);
	fake_client(1, geteuid());
	fake_client(2, stranger);
	fake_client(3, stranger); /* the same account */
	assert_true(clients[0].user->quota.limit[FX_QUOTA_qps] == FX_UNLIMITED);
	assert_true(clients[1].user->quota.limit[FX_QUOTA_qps] == FX_UNLIMITED);
	assert_true(clients[2].user->quota.limit[FX_QUOTA_qps] == FX_LIMIT_QP / 2);
	assert_ptr_equal(clients[2].user, clients[3].user);
	assert_string_equal(clients[0].user->name, "root");
	for (int i = 0; i < 4; i++)
		fx_user_release(clients[i].user);
	fake.cfg.quota = NULL; /* nobody is */
	fake_client(0, stranger);
	for (int k = 0; k < FX_QUOTA_KINDS; k++)
		assert_true(clients[0].user->quota.limit[k] == FX_UNLIMITED);
	fx_user_release(clients[0].user);
	for (int k = 0; k < FX_OBJ_KINDS; k++)
		fx_table_fini(&fake.objs[k]);
}

/* A core that is full, or whose numbers rest, says which; and the user's account is as before. */
static void full_and_resting(void **state)
{
	struct fx_obj a, b;

	(void)state;
	fake_core(NULL, 1);
	fake.objs[FX_OBJ_QP].rest_ms = 600000;
	fake_client(0, 4711);
	assert_int_equal(fx_obj_add(&ctxs[0], &a, FX_OBJ_QP), 0);
	assert_int_equal(fx_obj_add(&ctxs[0], &b, FX_OBJ_QP), -ENOMEM);
	assert_non_null(strstr(clients[0].why, "no QP left (it holds 1)"));
	fx_obj_del(&a);
	assert_int_equal(fx_obj_add(&ctxs[0], &b, FX_OBJ_QP), -EAGAIN);
	assert_non_null(strstr(clients[0].why, "rested for 600000 ms"));
	assert_true(clients[0].user->used[FX_QUOTA_qps] == 0);
	fx_user_release(clients[0].user);
	for (int k = 0; k < FX_OBJ_KINDS; k++)
		fx_table_fini(&fake.objs[k]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind),
		cmocka_unit_test(failures_count_nothing),
		cmocka_unit_test(contexts),
		cmocka_unit_test(connections),
		cmocka_unit_test(limits_of_the_device),
		cmocka_unit_test(many_users),
		cmocka_unit_test(who_is_limited),
		cmocka_unit_test(full_and_resting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
