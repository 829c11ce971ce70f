/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UC and UD, one situation at a time: nobody acknowledges, nobody refuses, and what is not whole is not there.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { RTS = 3, SQE = 5, ERR = 6, MTU = 1024, GRH = 40, ELSEWHERE = 700000 };
enum { M_STATE = 1 << 0, M_CUR_STATE = 1 << 1 };

static struct pair *uc(void)
{
	return pair_create(&(struct pair_opt){.type = FX_QPT_UC});
}

static struct pair *ud(void)
{
	return pair_create(&(struct pair_opt){.type = FX_QPT_UD});
}

/* The sender never heard anything. */
static void silent_end(struct pair *p)
{
	assert_int_equal(pair_sent(p, 1, -1), 0);
	pair_expect_none(p, 0);
	pair_expect_none(p, 1);
	pair_destroy(p);
}

/* ---- UC: what goes well ---- */

static void uc_one_of_each(void **state)
{
	static const struct pair_opt opts[] = {{.type = FX_QPT_UC},
					       {.type = FX_QPT_UC, .chaos = true},
					       {.type = FX_QPT_UC, .kind = MEM_SLOW},
					       {.type = FX_QPT_UC, .kind = MEM_RUNS, .look_ns = 5000},
					       {.type = FX_QPT_UC, .ip6 = true}};

	(void)state;
	for (unsigned i = 0; i < sizeof(opts) / sizeof(opts[0]); i++) {
		struct pair *p = pair_create(&opts[i]);

		pair_fill(p, 0, 0, 5000, 1);
		for (unsigned k = 0; k < 3; k++)
			pair_recv(p, 1, 40000 + k * 10000, 6000);
		pair_post(p, 0, FX_WR_SEND, 0, 5000, 0);
		pair_post(p, 0, FX_WR_WRITE, 0, 5000, 100);
		pair_post(p, 0, FX_WR_SEND_IMM, 0, 1, 0);
		pair_post(p, 0, FX_WR_WRITE_IMM, 0, 1024, 8000);
		pair_run(p, 10 * MS);
		assert_int_equal(p->cqe[1][0].byte_len, 5000);
		assert_int_equal(p->cqe[1][1].imm, 0x11223344);
		pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
		pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_SUCCESS);
		pair_expect(p, 0, FX_WC_SEND, 2, FX_WC_SUCCESS);
		pair_expect(p, 0, FX_WC_RDMA_WRITE, 3, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RECV, 1, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RECV_RDMA_WITH_IMM, 2, FX_WC_SUCCESS);
		pair_check(p, 1, 40000, 5000, 1);
		pair_check(p, 1, 100, 5000, 1);
		pair_check(p, 1, 8000, 1024, 1);
		pair_check_blank(p, 1, 60000, 6000);
		assert_int_equal(pair_sent(p, 0, FX_OPT_UC | FX_OP_SEND_FIRST), 1);
		silent_end(p);
	}
}

/* A send completes when its last segment has left the queue, and no sooner (guarantee L1). */
static void completes_when_it_has_left(void **state)
{
	static const uint32_t types[] = {FX_QPT_UC, FX_QPT_UD};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct pair *p = pair_create(&(struct pair_opt){.type = types[i]});

		p->deaf[0] = true;
		pair_post(p, 0, FX_WR_SEND, 0, 800, 0);
		pair_run(p, 3 * US); /* it is on the link: in zero-copy the buffer is still needed */
		assert_int_equal(pair_sent(p, 0, -1), 1);
		p->deaf[0] = false;
		pair_run(p, 1);
		pair_expect_none(p, 0);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
		silent_end(p);
	}
}

/*
 * On a link that hands the buffers over, a sender is held back by whoever has them: a receiver whose copies take long
 * costs time and no message.
 */
static void does_not_outrun(void **state)
{
	static const struct pair_opt opts[] = {{.type = FX_QPT_UC, .kind = MEM_SLOW},
					       {.type = FX_QPT_UC, .kind = MEM_SOME_SLOW},
					       {.type = FX_QPT_UC, .chaos = true},
					       {.type = FX_QPT_UC, .chaos = true, .look_ns = 5000}};

	(void)state;
	for (unsigned i = 0; i < sizeof(opts) / sizeof(opts[0]); i++) {
		struct pair *p = pair_create(&opts[i]);

		pair_fill(p, 0, 0, 900000, 4);
		pair_recv(p, 1, 0, 900000);
		pair_post(p, 0, FX_WR_SEND, 0, 900000, 0);
		pair_run(p, 2000 * MS);
		pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
		assert_int_equal(pair_counters(p, 1)->rx_backlog, 0);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
		pair_check(p, 1, 0, 900000, 4);
		silent_end(p);
	}
}

/* ---- UC: what is lost ---- */

static enum pair_fate drop_one(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	(void)bth;
	return from == 0 && p->nlog == p->count ? DROP : PASS;
}

/* Of two messages of three packets one packet is lost: its message never shows, and the other has the first receive. */
static void uc_any_packet_lost(void **state)
{
	static const uint8_t ops[] = {FX_WR_SEND, FX_WR_WRITE_IMM};

	(void)state;
	for (unsigned op = 0; op < 2; op++) {
		for (unsigned lost = 0; lost < 6; lost++) {
			struct pair *p = uc();
			bool second = lost >= 3; /* is lost */
			uint32_t len = second ? 2500 : 3000, at = ops[op] == FX_WR_SEND ? 0
								  : second		? 0
											: 50000;

			p->count = lost;
			p->fate = drop_one;
			pair_fill(p, 0, 0, 2500, 1);
			pair_fill(p, 0, 10000, 3000, 2);
			pair_recv(p, 1, 0, 4000);
			pair_recv(p, 1, 20000, 4000);
			pair_post(p, 0, ops[op], 0, 2500, 0);
			pair_post(p, 0, ops[op], 10000, 3000, 50000);
			pair_run(p, 1 * MS);
			assert_int_equal(p->cqe[1][0].byte_len, len);
			pair_expect(p, 1, ops[op] == FX_WR_SEND ? FX_WC_RECV : FX_WC_RECV_RDMA_WITH_IMM, 0,
				    FX_WC_SUCCESS);
			pair_check(p, 1, at, len, second ? 1 : 2);
			pair_expect(p, 0, ops[op] == FX_WR_SEND ? FX_WC_SEND : FX_WC_RDMA_WRITE, 0, 0);
			pair_expect(p, 0, ops[op] == FX_WR_SEND ? FX_WC_SEND : FX_WC_RDMA_WRITE, 1, 0);
			/* a gap shows when something follows it */
			assert_int_equal(pair_counters(p, 1)->rx_gaps, lost != 5);
			assert_int_equal(pair_counters(p, 1)->rx_rest, lost % 3 == 0 ? 2 : lost % 3 == 1);
			assert_int_equal(pair_state(p, 1), RTS);
			silent_end(p);
		}
	}
}

static void uc_no_receive(void **state)
{
	struct pair *p = uc();

	(void)state;
	pair_fill(p, 0, 0, 3000, 1);
	pair_post(p, 0, FX_WR_SEND, 0, 3000, 0);
	pair_post(p, 0, FX_WR_WRITE_IMM, 0, 100, ELSEWHERE);
	pair_run(p, 1 * MS);
	assert_int_equal(pair_counters(p, 1)->rx_no_receive, 2);
	assert_int_equal(pair_counters(p, 1)->rx_rest, 2);
	pair_expect_none(p, 1);
	pair_recv(p, 1, 0, 4000);
	pair_post(p, 0, FX_WR_SEND, 0, 3000, 0);
	pair_run(p, 1 * MS);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	pair_check(p, 1, 0, 3000, 1);
	for (unsigned i = 0; i < 3; i++)
		pair_expect(p, 0, i == 1 ? FX_WC_RDMA_WRITE : FX_WC_SEND, i, FX_WC_SUCCESS);
	assert_int_equal(pair_counters(p, 1)->tx_naks, 0);
	silent_end(p);
}

/* Longer than the receive: it is given up in its middle, and the receive is there for the next one. */
static void uc_too_long(void **state)
{
	struct pair *p = uc();

	(void)state;
	pair_fill(p, 0, 0, 3000, 1);
	pair_fill(p, 0, 5000, 1500, 2);
	pair_recv(p, 1, 0, 1500);
	pair_post(p, 0, FX_WR_SEND, 0, 3000, 0);
	pair_post(p, 0, FX_WR_SEND, 5000, 1500, 0);
	pair_run(p, 1 * MS);
	assert_int_equal(pair_counters(p, 1)->rx_too_long, 1);
	assert_int_equal(pair_counters(p, 1)->rx_rest, 1);
	assert_int_equal(p->cqe[1][0].byte_len, 1500);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	pair_check(p, 1, 0, 1500, 2);
	pair_check_blank(p, 1, 1500, 3000);
	assert_int_equal(pair_state(p, 1), RTS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_SEND, 1, FX_WC_SUCCESS);
	silent_end(p);
}

/* No NAK, no error, no event: the peer's mistake stays the peer's. */
static void uc_without_right(void **state)
{
	struct pair *p = uc();
	struct wr w = pair_wr(p, 0, FX_WR_WRITE, 0, 3000, 0);

	(void)state;
	pair_fill(p, 0, 0, 3000, 1);
	w.rkey ^= 1;
	qp_post(p->q[0], &w);
	pair_post(p, 0, FX_WR_WRITE, 0, 3000, 100000);
	pair_run(p, 1 * MS);
	assert_int_equal(pair_counters(p, 1)->rx_remote_access, 1);
	assert_int_equal(pair_counters(p, 1)->rx_rest, 2);
	pair_check_blank(p, 1, 0, 3000);
	pair_check(p, 1, 100000, 3000, 1);
	assert_int_equal(pair_state(p, 1), RTS);
	assert_int_equal(p->h[1]->events, 0);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_SUCCESS);
	silent_end(p);
}

/* What is wrong with a receive is this side's: it completes with that, and the QP is in error. */
static void receive_that_may_not_be_written(void **state)
{
	static const uint32_t types[] = {FX_QPT_UC, FX_QPT_UD};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct pair *p = pair_create(&(struct pair_opt){.type = types[i]});
		const struct fx_sge bad = {mem_va(p->mem[1], p->mem[1]->bytes), 1000, p->mem[1]->mr.key ^ 1};

		qp_post_recv(p->q[1], &bad, 1);
		pair_recv(p, 1, 20000, 1000);
		pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
		pair_run(p, 10 * MS);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_LOC_PROT_ERR);
		pair_expect(p, 1, FX_WC_RECV, 1, FX_WC_WR_FLUSH_ERR);
		assert_int_equal(pair_state(p, 1), ERR);
		pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
		silent_end(p);
	}
}

/* ---- the send queue's error ---- */

static int to_rts(struct qp *q)
{
	const struct fx_qp_attr a = {.qp_state = RTS, .cur_qp_state = SQE};

	return fx_qp_modify(q->h->tp, q->core, &a, M_STATE | M_CUR_STATE, NULL, 0, 0);
}

/* It stops, what is behind it is flushed, what comes still arrives; and the application starts it again. */
static void send_error_is_sqe(void **state)
{
	static const uint32_t types[] = {FX_QPT_UC, FX_QPT_UD};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct pair *p = pair_create(&(struct pair_opt){.type = types[i]});
		struct wr bad = pair_wr(p, 0, FX_WR_SEND, 0, 100, 0);

		bad.sge[0].lkey ^= 1;
		pair_fill(p, 0, 0, 100, 1);
		pair_fill(p, 1, 0, 100, 2);
		for (unsigned k = 0; k < 2; k++)
			pair_recv(p, 1, 20000 + 1000 * k, 200);
		pair_recv(p, 0, 20000, 200);
		pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
		qp_post(p->q[0], &bad);
		pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
		pair_expect(p, 0, FX_WC_SEND, 1, FX_WC_LOC_PROT_ERR);
		pair_expect(p, 0, FX_WC_SEND, 2, FX_WC_WR_FLUSH_ERR);
		assert_int_equal(pair_state(p, 0), SQE);
		assert_int_equal(pair_counters(p, 0)->sq_errors, 1);
		assert_int_equal(pair_counters(p, 0)->qp_errors, 0);
		assert_int_equal(p->h[0]->events, 0);
		pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
		pair_post(p, 1, FX_WR_SEND, 0, 100, 0);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, FX_WC_SEND, 3, FX_WC_WR_FLUSH_ERR);
		pair_expect(p, 0, FX_WC_RECV, 0, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_SEND, 0, FX_WC_SUCCESS);
		assert_int_equal(to_rts(p->q[0]), 0);
		assert_int_equal(pair_info(p, 0).cause, 0);
		pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, FX_WC_SEND, 4, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RECV, 1, FX_WC_SUCCESS);
		assert_int_equal(pair_sent(p, 0, -1), 2);
		pair_expect_none(p, 0);
		pair_destroy(p);
	}
}

/* A message that is lost in its middle, while it is gathered: it ends with that, what is behind it is flushed. */
static void source_goes_while_gathered(void **state)
{
	static const uint32_t types[] = {FX_QPT_UC, FX_QPT_UD};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct pair *p = pair_create(&(struct pair_opt){.type = types[i], .kind = MEM_SLOW});

		p->mem[0]->gone = true;
		pair_recv(p, 1, 0, 8000);
		pair_post(p, 0, FX_WR_SEND, 0, i ? 1000 : 5000, 0);
		pair_post(p, 0, FX_WR_SEND, 0, 1000, 0);
		pair_run(p, 10 * MS);
		pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_LOC_PROT_ERR);
		pair_expect(p, 0, FX_WC_SEND, 1, FX_WC_WR_FLUSH_ERR);
		assert_int_equal(pair_state(p, 0), SQE);
		assert_int_equal(to_rts(p->q[0]), 0);
		p->mem[0]->gone = false;
		pair_fill(p, 0, 0, 1000, 3);
		pair_post(p, 0, FX_WR_SEND, 0, 1000, 0);
		pair_run(p, 10 * MS);
		pair_expect(p, 0, FX_WC_SEND, 2, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
		pair_check(p, 1, i ? GRH : 0, 1000, 3);
		silent_end(p);
	}
}

/* In ERR everything is flushed, and RESET forgets; then it begins anew. */
static void error_and_reset(void **state)
{
	static const uint32_t types[] = {FX_QPT_UC, FX_QPT_UD};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct pair *p = pair_create(&(struct pair_opt){.type = types[i]});

		pair_recv(p, 0, 0, 1000);
		assert_int_equal(qp_state(p->q[0], ERR), 0);
		pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
		pair_run(p, 10 * MS);
		pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_WR_FLUSH_ERR);
		pair_expect(p, 0, FX_WC_RECV, 0, FX_WC_WR_FLUSH_ERR);
		for (unsigned k = 0; k < SIM_HOSTS; k++)
			assert_int_equal(qp_state(p->q[k], 0), 0);
		pair_connect(p);
		pair_recv(p, 1, 0, 1000);
		pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, FX_WC_SEND, 1, FX_WC_SUCCESS);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
		silent_end(p);
	}
}

/* ---- UD ---- */

/* The GRH by the standard's own words, not the transport's: the IP header as it was sent. */
static void check_grh(struct pair *p, uint32_t off, uint32_t len)
{
	const uint8_t *g = p->mem[1]->bytes + off, *ip4 = g + 20;

	if (p->opt.ip6) {
		assert_int_equal(g[0] >> 4, 6);
		assert_int_equal(g[4] << 8 | g[5], len);
		assert_int_equal(g[6], 17);
		assert_int_equal(g[8], 0xfd);
		assert_int_equal(g[23], 1);
		assert_int_equal(g[24], 0xfd);
		assert_int_equal(g[39], 2);
		return;
	}
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(g[i], 0);
	assert_int_equal(ip4[0], 0x45);
	assert_int_equal(ip4[2] << 8 | ip4[3], 20 + len);
	assert_int_equal(ip4[9], 17);
	assert_memory_equal(ip4 + 12, ((const uint8_t[]){10, 0, 0, 1, 10, 0, 0, 2}), 8);
}

static void ud_messages(void **state)
{
	static const uint32_t sizes[] = {0, 1, 3, 100, 1024, 4095, 4096};
	static const struct pair_opt opts[] = {{.type = FX_QPT_UD},
					       {.type = FX_QPT_UD, .ip6 = true},
					       {.type = FX_QPT_UD, .chaos = true},
					       {.type = FX_QPT_UD, .kind = MEM_SLOW},
					       {.type = FX_QPT_UD, .kind = MEM_RUNS, .look_ns = 5000}};

	(void)state;
	for (unsigned i = 0; i < sizeof(opts) / sizeof(opts[0]); i++) {
		struct pair *p = pair_create(&opts[i]);

		for (unsigned k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
			bool imm = k & 1;

			pair_fill(p, 0, 0, sizes[k], (uint8_t)k);
			pair_recv(p, 1, 10000 * k, 5000);
			pair_post(p, 0, imm ? FX_WR_SEND_IMM : FX_WR_SEND, 0, sizes[k], 0);
			pair_run(p, 10 * MS);
			assert_int_equal(p->cqe[1][0].byte_len, GRH + sizes[k]);
			assert_int_equal(p->cqe[1][0].src_qp, p->q[0]->qpn);
			assert_int_equal(p->cqe[1][0].flags,
					 FX_WCF_GRH | (imm ? FX_WCF_IMM : 0) | (p->opt.ip6 ? FX_WCF_IP6 : 0));
			assert_int_equal(p->cqe[1][0].imm, imm ? 0x11223344 : 0);
			pair_expect(p, 1, FX_WC_RECV, k, FX_WC_SUCCESS);
			pair_expect(p, 0, FX_WC_SEND, k, FX_WC_SUCCESS);
			/* UDP, BTH, DETH, immediate, payload and its pad */
			check_grh(p, 10000 * k, 8 + 12 + 8 + (imm ? 4 : 0) + (sizes[k] + 3) / 4 * 4);
			pair_check(p, 1, 10000 * k + GRH, sizes[k], (uint8_t)k);
			pair_check_blank(p, 1, 10000 * k + GRH + sizes[k], 100);
		}
		silent_end(p);
	}
}

/* The GRH apart from the payload, an empty SGE between, and a receive that is full to the last byte. */
static void ud_scattered(void **state)
{
	struct pair *p = ud();
	uint64_t va = mem_va(p->mem[1], p->mem[1]->bytes);
	uint32_t key = p->mem[1]->mr.key;
	const struct fx_sge sge[] = {
		{va, 30, key}, {va + 1000, 0, key}, {va + 2000, 11, key}, {va + 3000, 99, key}};

	(void)state;
	pair_fill(p, 0, 0, 100, 1);
	qp_post_recv(p->q[1], sge, 4);
	pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
	pair_run(p, 1 * MS);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
	memmove(p->mem[1]->bytes + 2999, p->mem[1]->bytes + 2010, 1); /* the first byte of the payload */
	pair_check(p, 1, 2999, 100, 1);
	pair_check_blank(p, 1, 3099, 100);
	silent_end(p);
}

/* Dropped and counted, each for its reason; what is as it should be still arrives. */
static void ud_dropped(void **state)
{
	struct pair *p = ud();
	struct wr w = pair_wr(p, 0, FX_WR_SEND, 0, 100, 0);
	const struct fx_counters *n = pair_counters(p, 1);
	unsigned i = 0;

	(void)state;
	qp_post(p->q[0], &w);
	pair_run(p, 1 * MS);
	assert_int_equal(n->rx_no_receive, 1);
	pair_recv(p, 1, 0, GRH + 99);
	qp_post(p->q[0], &w);
	pair_run(p, 1 * MS);
	assert_int_equal(n->rx_too_long, 1);
	w.rkey = HOST_QKEY + 1;
	qp_post(p->q[0], &w);
	wr_address(&w, p->ah[0].handle, p->q[1]->qpn + (1 << FX_WORKER_BITS), HOST_QKEY);
	qp_post(p->q[0], &w);
	pair_run(p, 1 * MS);
	assert_int_equal(n->rx_wrong_qkey, 1);
	assert_int_equal(n->rx_unknown_qp, 1);
	pair_expect_none(p, 1);
	/* the high bit says: the QP's own, whatever else is in it */
	w = pair_wr(p, 0, FX_WR_SEND, 0, 99, 0);
	w.rkey = 0x80000001;
	qp_post(p->q[0], &w);
	pair_run(p, 1 * MS);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	for (; i < 5; i++)
		pair_expect(p, 0, FX_WC_SEND, i, FX_WC_SUCCESS);
	assert_int_equal(pair_state(p, 1), RTS);
	silent_end(p);
}

/* What the sender alone can see to be wrong. */
static void ud_refused_here(void **state)
{
	static const uint8_t want[] = {FX_WC_LOC_LEN_ERR, FX_WC_LOC_QP_OP_ERR, FX_WC_LOC_QP_OP_ERR,
				       FX_WC_LOC_QP_OP_ERR, FX_WC_LOC_QP_OP_ERR};

	(void)state;
	for (unsigned i = 0; i < sizeof(want); i++) {
		struct pair *p = ud();
		struct wr w = pair_wr(p, 0, i == 4 ? FX_WR_WRITE : FX_WR_SEND, 0, i ? 100 : 4097, 0);
		struct fx_ah foreign;

		ah_publish(p->h[0], &foreign, 2, 2, false);
		if (i == 1) /* of an earlier life of its index */
			wr_address(&w, p->ah[0].handle ^ 1u << FX_AH_INDEX_BITS, p->q[1]->qpn, HOST_QKEY);
		if (i == 2) /* of another protection domain */
			wr_address(&w, foreign.handle, p->q[1]->qpn, HOST_QKEY);
		if (i == 3) /* beyond the table */
			wr_address(&w, UINT32_MAX, p->q[1]->qpn, HOST_QKEY);
		qp_post(p->q[0], &w);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, i == 4 ? FX_WC_RDMA_WRITE : FX_WC_SEND, 0, want[i]);
		assert_int_equal(pair_state(p, 0), SQE);
		assert_int_equal(pair_sent(p, 0, -1), 0);
		silent_end(p);
	}
}

/* ---- frames of strangers ---- */

static void inject(struct pair *p, const struct fx_bth *bth, uint32_t len)
{
	struct fx_l3 l3 = {.vlan = 0xffff, .ip_version = 4, .ttl = 64, .df = true, .sport = 0xc000};
	uint8_t frame[SIM_FRAME] = {0};
	uint32_t n, at;

	l3.src[10] = l3.src[11] = l3.dst[10] = l3.dst[11] = 0xff;
	l3.src[12] = l3.dst[12] = 10;
	l3.src[15] = 1;
	l3.dst[15] = 2;
	n = FX_BTH_LEN + fx_opcodes[bth->opcode].ext_len + len + bth->pad;
	at = fx_l3_write(frame, &l3, n);
	fx_bth_write(frame + at, bth);
	net_inject(p->s, p->h[1], frame, at + n, 0);
	pair_run(p, 1 * MS);
}

/* A request that asks for an acknowledge gets none where there are none; opcodes of another transport are dropped. */
static void strangers(void **state)
{
	static const uint32_t types[] = {FX_QPT_UC, FX_QPT_UD, FX_QPT_RC};
	static const uint8_t opts[] = {FX_OPT_UC, FX_OPT_UD, FX_OPT_RC};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct pair *p = pair_create(&(struct pair_opt){.type = types[i]});
		struct fx_bth bth = {.pkey = 0xffff,
				     .dqpn = p->q[1]->qpn,
				     .psn = p->attr.psn[0],
				     .ackreq = true,
				     .deth = {.qkey = HOST_QKEY, .sqpn = 77}};

		pair_recv(p, 1, 0, 1000);
		for (unsigned k = 0; k < 3; k++) {
			if (k == i)
				continue;
			bth.opcode = opts[k] | FX_OP_SEND_ONLY;
			inject(p, &bth, 8);
		}
		assert_int_equal(pair_counters(p, 1)->rx_wrong_transport, 2);
		pair_expect_none(p, 1);
		bth.opcode = opts[i] | FX_OP_SEND_ONLY;
		inject(p, &bth, 8);
		assert_int_equal(p->cqe[1][0].src_qp, types[i] == FX_QPT_UD ? 77 : 0);
		pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
		assert_int_equal(pair_sent(p, 1, -1), types[i] == FX_QPT_RC);
		pair_destroy(p);
	}
}

/* Late copies of what was there, and a first packet in the middle of a message. */
static void uc_orders(void **state)
{
	struct pair *p = uc();
	struct fx_bth bth = {.pkey = 0xffff, .dqpn = p->q[1]->qpn, .opcode = FX_OPT_UC | FX_OP_SEND_FIRST};
	uint32_t psn = p->attr.psn[0];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		pair_recv(p, 1, 10000 * i, 4000);
	bth.psn = psn;
	inject(p, &bth, MTU);
	bth.opcode = FX_OPT_UC | FX_OP_SEND_ONLY; /* in sequence, and the message before it has no end */
	bth.psn = psn + 1;
	inject(p, &bth, 8);
	assert_int_equal(pair_counters(p, 1)->rx_invalid_request, 1);
	assert_int_equal(p->cqe[1][0].byte_len, 8);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	inject(p, &bth, 8); /* again */
	bth.psn = psn;
	inject(p, &bth, 8);
	assert_int_equal(pair_counters(p, 1)->rx_late, 2);
	pair_expect_none(p, 1);
	bth.psn = fx_psn_add(psn, (uint32_t)-70000); /* of another age: the sender began anew */
	inject(p, &bth, 8);
	pair_expect(p, 1, FX_WC_RECV, 1, FX_WC_SUCCESS);
	bth.psn = fx_psn_add(bth.psn, 1);
	bth.opcode = FX_OPT_UC | FX_OP_SEND_LAST; /* of nothing */
	inject(p, &bth, 8);
	assert_int_equal(pair_counters(p, 1)->rx_rest, 1);
	bth.psn = fx_psn_add(bth.psn, 1);
	bth.opcode = FX_OPT_UC | FX_OP_SEND_FIRST; /* not as long as it must be */
	inject(p, &bth, MTU - 4);
	assert_int_equal(pair_counters(p, 1)->rx_invalid_request, 2);
	silent_end(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uc_one_of_each),    cmocka_unit_test(completes_when_it_has_left),
		cmocka_unit_test(does_not_outrun),   cmocka_unit_test(uc_any_packet_lost),
		cmocka_unit_test(uc_no_receive),     cmocka_unit_test(uc_too_long),
		cmocka_unit_test(uc_without_right),  cmocka_unit_test(receive_that_may_not_be_written),
		cmocka_unit_test(send_error_is_sqe), cmocka_unit_test(source_goes_while_gathered),
		cmocka_unit_test(error_and_reset),   cmocka_unit_test(ud_messages),
		cmocka_unit_test(ud_scattered),	     cmocka_unit_test(ud_dropped),
		cmocka_unit_test(ud_refused_here),   cmocka_unit_test(strangers),
		cmocka_unit_test(uc_orders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
