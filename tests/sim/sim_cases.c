/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One situation at a time: refusals, retries, acknowledges, go-back-N.
 *
 * Room: tests/sim. May use: cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { ERR = 6, RTS = 3 };

/* ---- what goes well ---- */

static void one_of_each(struct pair *p)
{
	pair_fill(p, 0, 0, 5000, 1);
	pair_fill(p, 1, 20000, 3000, 2);
	pair_recv(p, 1, 40000, 6000);
	pair_recv(p, 1, 50000, 6000);
	pair_recv(p, 1, 60000, 6000);
	pair_post(p, 0, FX_WR_SEND, 0, 5000, 0);
	pair_post(p, 0, FX_WR_WRITE, 0, 5000, 100);
	pair_post(p, 0, FX_WR_READ, 30000, 3000, 20000);
	pair_post(p, 0, FX_WR_SEND_IMM, 0, 1, 0);
	pair_post(p, 0, FX_WR_WRITE_IMM, 0, 1024, 8000);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 2, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_SEND, 3, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 4, FX_WC_SUCCESS);
	pair_expect_none(p, 0);
	assert_int_equal(p->cqe[1][1].imm, 0x11223344);
	assert_int_equal(p->cqe[1][0].byte_len, 5000);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	pair_expect(p, 1, FX_WC_RECV, 1, FX_WC_SUCCESS);
	pair_expect(p, 1, FX_WC_RECV_RDMA_WITH_IMM, 2, FX_WC_SUCCESS);
	pair_check(p, 1, 40000, 5000, 1);
	pair_check(p, 1, 100, 5000, 1);
	pair_check(p, 0, 30000, 3000, 2);
	pair_check(p, 1, 8000, 1024, 1);
	pair_check_blank(p, 1, 60000, 6000);
}

static void test_one_of_each(void **state)
{
	const struct pair_opt chaos = {.chaos = true};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct pair *p = pair_create(i ? &chaos : NULL);

		one_of_each(p);
		pair_destroy(p);
	}
}

/* Contract 33: ceil(size / MTU) frames, one for nothing. */
static void test_frames_per_message(void **state)
{
	static const uint32_t sizes[] = {0, 1, 1023, 1024, 1025, 2048, 2049, 65536};

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned want = sizes[i] ? (sizes[i] + 1023) / 1024 : 1;
		struct pair *p = pair_create(NULL);

		pair_post(p, 0, FX_WR_WRITE, 0, sizes[i], 0);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
		assert_int_equal(pair_sent(p, 0, -1), want);
		pair_destroy(p);
	}
}

/* Many packets, few acknowledges. */
static void test_ack_coalescing(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		pair_post(p, 0, FX_WR_WRITE, 0, 65536, 0);
	pair_run(p, 5 * MS);
	for (unsigned i = 0; i < 8; i++)
		pair_expect(p, 0, FX_WC_RDMA_WRITE, i, FX_WC_SUCCESS);
	assert_int_equal(pair_sent(p, 0, -1), 512);
	assert_in_range(pair_sent(p, 1, FX_OP_ACKNOWLEDGE), 4, 64);
	pair_destroy(p);
}

/* READs over an engine slower than the link ask for no more than waits well for its place: nothing is dropped. */
static void test_reads_do_not_outrun_their_landing(void **state)
{
	const struct pair_opt slow = {.chaos = true};
	struct pair *p = pair_create(&slow);

	(void)state;
	pair_fill(p, 1, 0, 1000000, 3);
	pair_post(p, 0, FX_WR_READ, 0, 1000000, 0);
	pair_run(p, 2000 * MS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 0, FX_WC_SUCCESS);
	pair_check(p, 0, 0, 1000000, 3);
	assert_int_equal(pair_counters(p, 0)->rx_backlog, 0);
	assert_int_equal(pair_counters(p, 0)->timeouts, 0);
	pair_destroy(p);
}

/* Nor where the memory does not answer for a while: no more is asked for than buffers can be kept for. */
static void test_reads_wait_for_slow_landings(void **state)
{
	enum { READS = 40, LEN = 25000 };
	const struct pair_opt slow = {.kind = MEM_SLOW, .max_send = READS, .rd_atomic = 16};
	struct pair *p = pair_create(&slow);

	(void)state;
	pair_fill(p, 1, 0, READS * LEN, 3);
	p->mem[0]->stalls = true;
	for (uint32_t i = 0; i < READS; i++)
		pair_post(p, 0, FX_WR_READ, i * LEN, LEN, i * LEN);
	pair_run(p, 20 * MS);
	assert_int_equal(p->n[0], 0);
	p->mem[0]->stalls = false;
	pair_run(p, 2000 * MS);
	for (unsigned i = 0; i < READS; i++)
		pair_expect(p, 0, FX_WC_RDMA_READ, i, FX_WC_SUCCESS);
	pair_check(p, 0, 0, READS * LEN, 3);
	assert_int_equal(pair_counters(p, 0)->rx_backlog, 0);
	assert_int_equal(pair_counters(p, 0)->timeouts, 0);
	pair_destroy(p);
}

/* ---- loss ---- */

static enum pair_fate drop_third_data(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	(void)bth;
	return from == 0 && p->count++ == 2 ? DROP : PASS;
}

/* One lost packet: the sender goes back to just that one. */
static void test_go_back_to_the_gap(void **state)
{
	struct pair *p = pair_create(NULL);
	uint32_t missing = 0;
	unsigned times = 0;

	(void)state;
	p->fate = drop_third_data;
	pair_fill(p, 0, 0, 20480, 9);
	pair_post(p, 0, FX_WR_WRITE, 0, 20480, 0);
	pair_run(p, 1 * MS - 100 * US); /* before any timeout */
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	pair_check(p, 1, 0, 20480, 9);
	for (unsigned i = 0; i < p->nlog; i++)
		if (p->log[i].lost)
			missing = p->log[i].bth.psn;
	assert_int_equal(missing, 0xfffff2);
	for (unsigned i = 0; i < p->nlog; i++)
		if (p->log[i].from == 0) {
			uint32_t psn = p->log[i].bth.psn;

			times += psn == missing;
			if (times > 1)
				assert_true(fx_psn_diff(psn, missing) >= 0); /* nothing before it again */
		}
	assert_int_equal(times, 2);
	assert_int_equal(pair_counters(p, 1)->tx_naks, 1);
	assert_int_equal(pair_counters(p, 0)->timeouts, 0);
	pair_destroy(p);
}

static enum pair_fate drop_first_ack(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	return from == 1 && bth->opcode == FX_OP_ACKNOWLEDGE && p->count++ == 0 ? DROP : PASS;
}

/* A lost acknowledge: the timer finds out, the peer answers the duplicate, nothing is delivered twice. */
static void test_lost_ack(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	p->fate = drop_first_ack;
	pair_recv(p, 1, 0, 100);
	pair_recv(p, 1, 1000, 100);
	pair_fill(p, 0, 0, 100, 5);
	pair_post(p, 0, FX_WR_SEND, 0, 100, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	pair_expect_none(p, 1);
	pair_check(p, 1, 0, 100, 5);
	pair_check_blank(p, 1, 1000, 100);
	assert_int_equal(pair_counters(p, 0)->timeouts, 1);
	assert_int_equal(pair_counters(p, 1)->rx_duplicates, 1);
	pair_destroy(p);
}

static enum pair_fate drop_response(struct pair *p, unsigned from, const struct fx_bth *bth)
{
	(void)bth;
	return from == 1 && p->count++ == 3 ? DROP : PASS;
}

/* A READ that lost a response in the middle asks for the rest only. */
static void test_read_goes_on(void **state)
{
	struct pair *p = pair_create(NULL);
	unsigned requests = 0;

	(void)state;
	p->fate = drop_response;
	pair_fill(p, 1, 0, 10240, 6);
	pair_post(p, 0, FX_WR_READ, 0, 10240, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 0, FX_WC_SUCCESS);
	pair_check(p, 0, 0, 10240, 6);
	for (unsigned i = 0; i < p->nlog; i++)
		if (p->log[i].from == 0 && p->log[i].bth.opcode == FX_OP_READ_REQUEST && requests++) {
			assert_int_equal(p->log[i].bth.psn, 0xfffff3);
			assert_int_equal(p->log[i].bth.reth.length, 10240 - 3 * 1024);
		}
	assert_int_equal(requests, 2);
	pair_destroy(p);
}

/* The peer is gone: retry_cnt more attempts, an error, and everything behind it flushed in order. */
static void test_retry_exceeded(void **state)
{
	struct pair *p = pair_create(NULL);
	unsigned times = 0;

	(void)state;
	p->cut[1] = true;
	for (unsigned i = 0; i < 4; i++)
		pair_post(p, 0, FX_WR_WRITE, 0, 3000, 0);
	pair_recv(p, 0, 5000, 100);
	pair_recv(p, 0, 6000, 100);
	pair_run(p, 3 * MS); /* 4 timeouts of 1.05 ms at least */
	pair_expect_none(p, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_RETRY_EXC_ERR);
	for (unsigned i = 1; i < 4; i++)
		pair_expect(p, 0, FX_WC_RDMA_WRITE, i, FX_WC_WR_FLUSH_ERR);
	pair_expect(p, 0, FX_WC_RECV, 0, FX_WC_WR_FLUSH_ERR);
	pair_expect(p, 0, FX_WC_RECV, 1, FX_WC_WR_FLUSH_ERR);
	pair_expect_none(p, 0);
	assert_int_equal(pair_state(p, 0), ERR);
	assert_int_equal(p->h[0]->events, 0); /* the completion tells it */
	for (unsigned i = 0; i < p->nlog; i++)
		times += p->log[i].from == 0 && p->log[i].bth.psn == 0xfffff0;
	assert_int_equal(times, 1 + 3);
	pair_destroy(p);
}

/* A short silence is survived, and the retries are counted anew after progress. */
static void test_silence_survived(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	for (unsigned round = 0; round < 4; round++) {
		p->cut[0] = p->cut[1] = true;
		pair_post(p, 0, FX_WR_WRITE, 0, 3000, 0);
		pair_run(p, 2500 * US); /* two timeouts */
		p->cut[0] = p->cut[1] = false;
		pair_run(p, 10 * MS);
		pair_expect(p, 0, FX_WC_RDMA_WRITE, round, FX_WC_SUCCESS);
	}
	assert_int_equal(pair_state(p, 0), RTS);
	pair_destroy(p);
}

/* A queue that is never empty gives back what it has passed. */
static void test_memory_comes_back(void **state)
{
	enum { DEEP = 40, TOTAL = 10000 };
	struct pair *p = pair_create(NULL);
	unsigned posted = 0, done = 0;
	uint64_t first = 0;

	(void)state;
	while (done < TOTAL) {
		for (; posted < TOTAL && posted - done < DEEP; posted++)
			pair_post(p, 0, FX_WR_WRITE, 0, 100, 0);
		pair_run(p, 1 * US);
		done += p->n[0];
		p->n[0] = p->nlog = 0;
		if (!first && done > DEEP)
			first = fx_tp_memory(p->h[0]->tp);
	}
	assert_int_equal(fx_tp_memory(p->h[0]->tp), first);
	pair_destroy(p);
}

/* ---- receiver not ready ---- */

static void test_rnr_waits(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	pair_fill(p, 0, 0, 3000, 3);
	pair_post(p, 0, FX_WR_SEND, 0, 3000, 0);
	pair_run(p, 100 * US); /* one refusal, 60 us of waiting */
	pair_expect_none(p, 0);
	assert_int_equal(pair_state(p, 0), RTS);
	pair_recv(p, 1, 0, 3000);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
	pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
	pair_check(p, 1, 0, 3000, 3);
	assert_true(pair_counters(p, 1)->tx_naks >= 1);
	pair_destroy(p);
}

static void test_rnr_exceeded(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	pair_post(p, 0, FX_WR_SEND, 0, 3000, 0);
	pair_post(p, 0, FX_WR_WRITE, 0, 3000, 0);
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_RNR_RETRY_EXC_ERR);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_WR_FLUSH_ERR);
	pair_expect_none(p, 0);
	assert_int_equal(pair_counters(p, 1)->tx_naks, 1 + 2); /* rnr_retry more */
	assert_int_equal(pair_state(p, 0), ERR);
	assert_int_equal(pair_state(p, 1), RTS);
	pair_check_blank(p, 1, 0, 3000);
	pair_destroy(p);
}

/* Two refusals are allowed for each message, not for all of them together. */
static void test_rnr_counted_anew(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	for (unsigned round = 0; round < 4; round++) {
		pair_post(p, 0, FX_WR_SEND, 0, 3000, 0);
		pair_run(p, 120 * US);
		pair_recv(p, 1, 0, 3000);
		pair_run(p, 1 * MS);
		pair_expect(p, 0, FX_WC_SEND, round, FX_WC_SUCCESS);
	}
	assert_true(pair_counters(p, 1)->tx_naks > 2);
	pair_destroy(p);
}

/* WRITE with immediate needs a receive as well; before it comes, no byte is written twice nor lost. */
/* A peer that was silent now and then, and is not ready for long, is there all the same. */
static void test_rnr_is_no_silence(void **state)
{
	const struct pair_opt opt = {.rnr_retry = 7}; /* for ever */
	struct pair *p = pair_create(&opt);

	(void)state;
	pair_post(p, 0, FX_WR_SEND, 0, 3000, 0);
	for (unsigned round = 0; round < 6; round++) {
		p->cut[0] = p->cut[1] = true;
		pair_run(p, 1500 * US); /* a timeout */
		p->cut[0] = p->cut[1] = false;
		pair_run(p, 3 * MS);
	}
	assert_true(pair_counters(p, 0)->timeouts > 3); /* more than retry_cnt */
	pair_recv(p, 1, 0, 3000);
	pair_run(p, 10 * MS);
	pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
	pair_destroy(p);
}

static void test_rnr_write_imm(void **state)
{
	struct pair *p = pair_create(NULL);

	(void)state;
	pair_fill(p, 0, 0, 3000, 3);
	pair_post(p, 0, FX_WR_WRITE_IMM, 0, 3000, 500);
	pair_run(p, 100 * US);
	pair_expect_none(p, 1);
	pair_recv(p, 1, 9000, 0);
	pair_run(p, 1 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	pair_expect(p, 1, FX_WC_RECV_RDMA_WITH_IMM, 0, FX_WC_SUCCESS);
	pair_check(p, 1, 500, 3000, 3);
	pair_destroy(p);
}

/* ---- acknowledges that should not be ---- */

static void inject_ack(struct pair *p, uint32_t psn, uint8_t syndrome, uint32_t msn)
{
	uint8_t frame[128];
	uint32_t at = FX_ETH_LEN + FX_IP4_LEN + FX_UDP_LEN, len;
	struct fx_bth bth;

	memcpy(frame, p->ack, p->ack_len);
	assert_int_equal(fx_bth_parse(frame + at, p->ack_len - at, &bth, &len), FX_DROP_NONE);
	bth.psn = psn & FX_PSN_MASK;
	bth.aeth.syndrome = syndrome;
	bth.aeth.msn = msn;
	fx_bth_write(frame + at, &bth);
	net_inject(p->s, p->h[0], frame, p->ack_len, 1);
}

/* A pair with one message done and one whose answer never comes, so that something is in flight. */
static struct pair *pair_in_flight(void)
{
	struct pair *p = pair_create(NULL);

	pair_post(p, 0, FX_WR_WRITE, 0, 3000, 0);
	pair_run(p, 200 * US);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	p->cut[1] = true;
	pair_post(p, 0, FX_WR_WRITE, 0, 3000, 0);
	pair_run(p, 50 * US);
	pair_expect_none(p, 0);
	return p;
}

static void test_ack_for_the_future(void **state)
{
	struct pair *p = pair_in_flight();
	struct fx_qp_info before = pair_info(p, 0), after;

	(void)state;
	for (uint32_t i = 0; i < 100; i++) {
		inject_ack(p, before.next_psn + i, FX_AETH_CREDITS_INVALID, 0xabcdef);
		inject_ack(p, before.next_psn + i, FX_NAK_PSN, 0);
		inject_ack(p, before.next_psn + i, FX_NAK_REMOTE_ACCESS, 0);
		inject_ack(p, before.next_psn + i, FX_AETH_RNR | 1, 0);
		inject_ack(p, before.next_psn + 0x700000 + i, FX_AETH_CREDITS_INVALID, 0);
	}
	pair_run(p, 50 * US);
	after = pair_info(p, 0);
	pair_expect_none(p, 0);
	assert_int_equal(after.una_psn, before.una_psn);
	assert_int_equal(after.next_psn, before.next_psn);
	assert_int_equal(after.retransmits, before.retransmits);
	assert_int_equal(after.state, RTS);
	assert_int_equal(pair_counters(p, 0)->rx_bad_ack, 500);
	p->cut[1] = false;
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_SUCCESS);
	pair_destroy(p);
}

/* Old acknowledges and refusals, a thousand times, change nothing. */
static void test_old_answers(void **state)
{
	struct pair *p = pair_in_flight();
	struct fx_qp_info before = pair_info(p, 0), after;

	(void)state;
	for (uint32_t i = 0; i < 1000; i++) {
		inject_ack(p, before.una_psn - 1 - i % 3, FX_AETH_CREDITS_INVALID, i);
		inject_ack(p, before.una_psn - 1 - i % 3, (uint8_t)(FX_NAK_PSN + i % 4), i);
		inject_ack(p, before.una_psn - 1 - i % 3, FX_AETH_RNR | 31, i);
	}
	pair_run(p, 50 * US);
	after = pair_info(p, 0);
	pair_expect_none(p, 0);
	assert_int_equal(after.una_psn, before.una_psn);
	assert_int_equal(after.next_psn, before.next_psn);
	assert_int_equal(after.retransmits, before.retransmits);
	assert_int_equal(after.state, RTS);
	p->cut[1] = false;
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_SUCCESS);
	pair_destroy(p);
}

/* The same sequence NAK many times is one gap: gone back to once, charged once. */
static void test_nak_storm(void **state)
{
	struct pair *p = pair_in_flight();
	struct fx_qp_info before = pair_info(p, 0), after;

	(void)state;
	for (uint32_t i = 0; i < 1000; i++)
		inject_ack(p, before.una_psn, FX_NAK_PSN, 0);
	pair_run(p, 100 * US);
	after = pair_info(p, 0);
	assert_int_equal(after.retransmits, before.retransmits + 3);
	assert_int_equal(after.state, RTS);
	p->cut[1] = false;
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 1, FX_WC_SUCCESS);
	pair_destroy(p);
}

/*
 * A packet that lands in two pieces, the second looked up in a later grace period than the first: the period after that
 * waits for it.
 */
static void test_grace(void **state)
{
	const struct pair_opt opt = {.chaos = true, .kind = MEM_RUNS};
	struct pair *p = pair_create(&opt);
	uint32_t edge = (uint32_t)p->mem[1]->runs[0].len;
	struct fx_under_way *u = p->q[1]->cfg.under_way;

	(void)state;
	pair_fill(p, 0, 0, 100, 1);
	pair_post(p, 0, FX_WR_WRITE, 0, 100, edge - 50);
	for (unsigned i = 0; i < 10000 && !p->h[1]->dma->ops->pending(p->h[1]->dma); i++)
		pair_run(p, 50);
	for (unsigned period = 0; period < 2; period++) {
		fx_grace_begin(u);
		for (unsigned i = 0; i < 10000 && !fx_grace_over(u); i++)
			pair_run(p, 50);
		assert_true(fx_grace_over(u));
		if (!period)
			pair_check_blank(p, 1, edge, 100);
	}
	pair_check(p, 1, edge - 50, 100, 1);
	pair_destroy(p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_of_each),
		cmocka_unit_test(test_frames_per_message),
		cmocka_unit_test(test_ack_coalescing),
		cmocka_unit_test(test_go_back_to_the_gap),
		cmocka_unit_test(test_lost_ack),
		cmocka_unit_test(test_read_goes_on),
		cmocka_unit_test(test_retry_exceeded),
		cmocka_unit_test(test_silence_survived),
		cmocka_unit_test(test_memory_comes_back),
		cmocka_unit_test(test_rnr_waits),
		cmocka_unit_test(test_rnr_exceeded),
		cmocka_unit_test(test_rnr_counted_anew),
		cmocka_unit_test(test_rnr_is_no_silence),
		cmocka_unit_test(test_rnr_write_imm),
		cmocka_unit_test(test_ack_for_the_future),
		cmocka_unit_test(test_old_answers),
		cmocka_unit_test(test_nak_storm),
		cmocka_unit_test(test_reads_do_not_outrun_their_landing),
		cmocka_unit_test(test_reads_wait_for_slow_landings),
		cmocka_unit_test(test_grace),
	};

	return cmocka_run_group_tests_name("sim_cases", tests, NULL, NULL);
}
