/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Multicast: a datagram for each QP of a group, and for nobody else.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { GRH = 40, EXTRA = 6, GROUP_QPN = 0xffffff };

static const uint8_t group4[16] = {[10] = 0xff, [11] = 0xff, [12] = 239, [13] = 1, [15] = 7};
static const uint8_t group6[16] = {0xff, 0x0e, [15] = 9};
static const uint8_t other[16] = {
	[10] = 0xff, [11] = 0xff, [12] = 239, [13] = 1, [15] = 71}; /* of the same bucket */

/* Host 1 has EXTRA QPs more, over one CQ; host 0 has addresses of groups. */
struct crowd {
	struct pair *p;
	struct qp *q[EXTRA];
	struct cq *cq;
	struct fx_member m[EXTRA];
	struct fx_ah ah;
};

static void gather(struct crowd *c, struct pair_opt opt, const uint8_t gid[16])
{
	struct fx_qp_cfg cfg = {.gen = 1,
				.ctx = 1,
				.pd = 1,
				.type = FX_QPT_UD,
				.max_send_wr = 4,
				.max_recv_wr = 8,
				.max_send_sge = 1,
				.max_recv_sge = 1};

	opt.type = FX_QPT_UD;
	*c = (struct crowd){.p = pair_create(&opt), .cq = cq_create(64)};
	for (unsigned i = 0; i < EXTRA; i++) {
		cfg.qpn = (20 + i) << FX_WORKER_BITS;
		c->q[i] = qp_create(c->p->h[1], &cfg, c->cq, c->cq, 0, 0);
		assert_int_equal(qp_connect(c->q[i], c->p->q[0], &c->p->attr), 0);
	}
	ah_publish_group(c->p->h[0], &c->ah, 3, 1, gid);
}

static void join(struct crowd *c, unsigned i, const uint8_t gid[16])
{
	c->m[i].qp = c->q[i]->core;
	memcpy(c->m[i].gid, gid, 16);
	fx_mcast_join(c->p->h[1]->tp, &c->m[i]);
}

static void recv_at(struct crowd *c, unsigned i, uint32_t off)
{
	struct mem *m = c->p->mem[1];
	const struct fx_sge sge = {mem_va(m, m->bytes + off), 4000, m->mr.key};

	qp_post_recv(c->q[i], &sge, 1);
}

static void send(struct crowd *c, uint32_t len)
{
	struct wr w = pair_wr(c->p, 0, FX_WR_SEND, 0, len, 0);

	wr_address(&w, c->ah.handle, GROUP_QPN, HOST_QKEY);
	qp_post(c->p->q[0], &w);
	pair_run(c->p, 10 * MS);
	assert_true(c->p->n[0] > 0);
	assert_int_equal(c->p->cqe[0][0].status, FX_WC_SUCCESS);
	c->p->n[0] = 0;
}

/* Which QPs have a completion, each one and in success; bit i for q[i]. */
static unsigned heard(struct crowd *c, uint32_t len)
{
	unsigned who = 0;
	struct fx_cqe e;

	while (fx_cq_take(&c->cq->rx, &e)) {
		unsigned i = ((e.qpn_gen & FX_PSN_MASK) >> FX_WORKER_BITS) - 20;

		assert_int_equal(e.status, FX_WC_SUCCESS);
		assert_int_equal(e.byte_len, GRH + len);
		assert_int_equal(e.src_qp, c->p->q[0]->qpn);
		assert_false(who & 1u << i);
		who |= 1u << i;
	}
	fx_cq_publish_ci(&c->cq->rx);
	return who;
}

static void disperse(struct crowd *c)
{
	for (unsigned i = 0; i < EXTRA; i++)
		assert_true(qp_destroy(c->q[i]));
	cq_destroy(c->cq);
	pair_destroy(c->p);
}

/* Those of the group have it, whole and each at its own place; others have nothing. */
static void each_has_its_own(void **state)
{
	static const struct pair_opt opts[] = {
		{0}, {.chaos = true}, {.kind = MEM_SLOW}, {.kind = MEM_RUNS, .look_ns = 5000}};
	static const uint8_t *const groups[] = {group4, group6};

	(void)state;
	for (unsigned k = 0; k < 8; k++) {
		struct crowd c;

		gather(&c, opts[k / 2], groups[k % 2]);
		for (unsigned i = 0; i < EXTRA; i++) {
			join(&c, i, i == 1 ? other : groups[k % 2]);
			recv_at(&c, i, 10000 * i);
		}
		pair_fill(c.p, 0, 0, 3001, 5);
		send(&c, 3001);
		assert_int_equal(heard(&c, 3001), 0x3d);
		for (unsigned i = 0; i < EXTRA; i++) {
			const uint8_t *grh = c.p->mem[1]->bytes + 10000 * i;

			if (i == 1) {
				pair_check_blank(c.p, 1, 10000, 4000);
				continue;
			}
			pair_check(c.p, 1, 10000 * i + GRH, 3001, 5);
			pair_check_blank(c.p, 1, 10000 * i + GRH + 3001, 500);
			/* where it was sent to */
			if (k % 2)
				assert_memory_equal(grh + 24, group6, 16);
			else
				assert_memory_equal(grh + 36, group4 + 12, 4);
		}
		assert_int_equal(pair_counters(c.p, 1)->rx_mcast_copies, 5);
		disperse(&c);
	}
}

/* Leaving, joining again, and nobody there. */
static void who_is_in_it(void **state)
{
	struct crowd c;

	(void)state;
	gather(&c, (struct pair_opt){0}, group4);
	for (unsigned i = 0; i < 3; i++)
		for (unsigned k = 0; k < 3; k++)
			recv_at(&c, i, 10000 * (3 * i + k));
	send(&c, 100);
	assert_int_equal(pair_counters(c.p, 1)->rx_mcast_none, 1);
	for (unsigned i = 0; i < 3; i++)
		join(&c, i, group4);
	send(&c, 100);
	assert_int_equal(heard(&c, 100), 7);
	fx_mcast_leave(c.p->h[1]->tp, &c.m[1]);
	send(&c, 100);
	assert_int_equal(heard(&c, 100), 5);
	join(&c, 1, group4);
	assert_true(qp_destroy(c.q[0])); /* which leaves all groups */
	send(&c, 100);
	assert_int_equal(heard(&c, 100), 6);
	assert_int_equal(pair_counters(c.p, 1)->rx_mcast_copies, 3 + 2 + 2);
	for (unsigned i = 1; i < EXTRA; i++)
		assert_true(qp_destroy(c.q[i]));
	cq_destroy(c.cq);
	pair_destroy(c.p);
}

/* Each for itself: no receive, another Q_Key or no buffer keeps it from one of them only. */
static void each_drops_for_itself(void **state)
{
	const struct fx_counters *n;
	struct crowd c;

	(void)state;
	gather(&c, (struct pair_opt){0}, group4);
	n = pair_counters(c.p, 1);
	for (unsigned i = 0; i < 3; i++)
		join(&c, i, group4);
	recv_at(&c, 0, 0);
	recv_at(&c, 2, 20000);
	send(&c, 10);
	assert_int_equal(heard(&c, 10), 5);
	assert_int_equal(n->rx_no_receive, 1);
	for (unsigned i = 0; i < 3; i++)
		recv_at(&c, i, 10000 * i);
	c.p->h[1]->clones = 1;
	send(&c, 10);
	assert_int_equal(n->rx_mcast_no_buffer, 1);
	assert_int_equal(__builtin_popcount(heard(&c, 10)), 2);
	disperse(&c);
}

/* A group number says nothing without a group's address: a stranger's frame to it reaches nobody. */
static void number_without_group(void **state)
{
	struct crowd c;
	struct wr w;

	(void)state;
	gather(&c, (struct pair_opt){0}, group4);
	join(&c, 0, group4);
	recv_at(&c, 0, 0);
	w = pair_wr(c.p, 0, FX_WR_SEND, 0, 10, 0);
	wr_address(&w, c.p->ah[0].handle, GROUP_QPN, HOST_QKEY);
	qp_post(c.p->q[0], &w);
	pair_run(c.p, 1 * MS);
	assert_int_equal(pair_counters(c.p, 1)->rx_mcast_none, 1);
	wr_address(&w, c.p->ah[0].handle, 1, HOST_QKEY);
	qp_post(c.p->q[0], &w);
	pair_run(c.p, 1 * MS);
	assert_int_equal(pair_counters(c.p, 1)->rx_gsi, 1);
	assert_int_equal(heard(&c, 10), 0);
	disperse(&c);
}

/* What it sent itself comes back to a QP that did not ask to be spared; another's always does. */
static void own_voice(void **state)
{
	const struct fx_l3 mine = {.vlan = 0xffff,
				   .ip_version = 4,
				   .ttl = 1,
				   .sport = 0xc000,
				   .src = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 2},
				   .dst = {[10] = 0xff, [11] = 0xff, [12] = 239, [13] = 1, [15] = 7}};

	(void)state;
	for (unsigned blocks = 0; blocks < 2; blocks++) {
		for (unsigned own = 0; own < 2; own++) {
			uint32_t n = FX_BTH_LEN + FX_DETH_LEN + 8, at;
			struct fx_bth bth = {.opcode = FX_OPT_UD | FX_OP_SEND_ONLY,
					     .pkey = 0xffff,
					     .dqpn = GROUP_QPN,
					     .deth = {.qkey = HOST_QKEY}};
			uint8_t frame[256] = {0};
			struct fx_qp_cfg cfg;
			struct crowd c;

			gather(&c, (struct pair_opt){0}, group4);
			cfg = c.q[0]->cfg;
			cfg.block_mcast_loop = blocks;
			assert_true(qp_destroy(c.q[0]));
			c.q[0] = qp_create(c.p->h[1], &cfg, c.cq, c.cq, 0, 0);
			assert_int_equal(qp_connect(c.q[0], c.p->q[0], &c.p->attr), 0);
			join(&c, 0, group4);
			recv_at(&c, 0, 0);
			bth.deth.sqpn = own ? c.q[0]->qpn : c.q[1]->qpn;
			at = fx_l3_write(frame, &mine, n);
			fx_bth_write(frame + at, &bth);
			net_inject(c.p->s, c.p->h[1], frame, at + n, 0);
			pair_run(c.p, 1 * MS);
			assert_int_equal(pair_counters(c.p, 1)->rx_mcast_copies, !(blocks && own));
			disperse(&c);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_has_its_own),
		cmocka_unit_test(who_is_in_it),
		cmocka_unit_test(each_drops_for_itself),
		cmocka_unit_test(number_without_group),
		cmocka_unit_test(own_voice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
