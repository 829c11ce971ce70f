/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Frames that no correct peer sends: ignored and counted, or refused as the specification says, and never
 * worse.
 *
 * Room: tests/sim. May use: wire, cmocka.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

enum { RESET = 0, RTS = 3, ERR = 6, PEER_PSN = 0x7ffff0 };

/* A frame to host `to` as its peer would send it, with `len` bytes of payload. Returns its length. */
static uint32_t forge(const struct pair *p, unsigned to, uint8_t *f, struct fx_bth *bth, uint32_t len,
		      unsigned from)
{
	struct fx_l3 l3 = {
		.vlan = 0xffff,
		.ip_version = 4,
		.ttl = 64,
		.sport = 0xc123,
		.src = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = (uint8_t)(from + 1)},
		.dst = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = (uint8_t)(to + 1)},
	};
	uint32_t ext = fx_opcodes[bth->opcode].name ? fx_opcodes[bth->opcode].ext_len : 0, at;

	(void)p;
	bth->pad = (uint8_t)(-len & 3);
	at = fx_l3_write(f, &l3, FX_BTH_LEN + ext + len + bth->pad);
	at += fx_bth_write(f + at, bth);
	memset(f + at, 0x77, len + bth->pad);
	return at + len + bth->pad;
}

static void inject(struct pair *p, unsigned to, struct fx_bth bth, uint32_t len)
{
	uint8_t f[SIM_FRAME];

	if (!bth.pkey)
		bth.pkey = FX_PKEY_DEFAULT;
	if (!bth.dqpn)
		bth.dqpn = p->q[to]->qpn;
	net_inject(p->s, p->h[to], f, forge(p, to, f, &bth, len, !to), 1);
}

#define AT(counter) offsetof(struct fx_counters, counter)
#define RETH(n) .reth = {.length = n}

/* To host 1, which expects PSN 0xfffff0 from host 0; `psn` is relative to that. */
static const struct row {
	const char *what;
	struct fx_bth bth;
	uint32_t len;
	size_t counter;
	bool fatal; /* refused, and the QP ends */
} rows[] = {
	{"unknown QP", {.opcode = FX_OP_SEND_ONLY, .dqpn = 0x1234}, 4, AT(rx_unknown_qp), false},
	{"the neighbouring worker's QP",
	 {.opcode = FX_OP_SEND_ONLY, .dqpn = (6 << 4) + 1},
	 4,
	 AT(rx_unknown_qp),
	 false},
	{"foreign partition",
	 {.opcode = FX_OP_SEND_ONLY, .pkey = 0x8001},
	 4,
	 AT(drop[FX_DROP_BAD_PKEY]),
	 false},
	{"UC", {.opcode = FX_OPT_UC | FX_OP_SEND_ONLY}, 4, AT(rx_wrong_transport), false},
	{"UD", {.opcode = FX_OPT_UD | FX_OP_SEND_ONLY}, 4, AT(rx_wrong_transport), false},
	{"CNP", {.opcode = FX_OPCODE_CNP}, 16, AT(rx_cnp), false},
	{"a request ahead", {.opcode = FX_OP_SEND_ONLY, .psn = 5}, 4, AT(rx_out_of_sequence), false},
	{"a request long past",
	 {.opcode = FX_OP_WRITE_ONLY, .psn = 0xfffff0, RETH(4)},
	 4,
	 AT(rx_duplicates),
	 false},
	{"an old READ of nothing",
	 {.opcode = FX_OP_READ_REQUEST, .psn = 0xfffff0},
	 0,
	 AT(rx_duplicates),
	 false},
	{"READ response, none asked", {.opcode = FX_OP_READ_RESP_ONLY}, 4, AT(rx_bad_response), false},
	{"READ response FIRST",
	 {.opcode = FX_OP_READ_RESP_FIRST, .psn = 3},
	 1024,
	 AT(rx_bad_response),
	 false},
	{"READ response MIDDLE",
	 {.opcode = FX_OP_READ_RESP_MIDDLE, .psn = 3},
	 1024,
	 AT(rx_bad_response),
	 false},
	{"atomic acknowledge", {.opcode = FX_OP_ATOMIC_ACKNOWLEDGE}, 0, AT(rx_bad_response), false},
	{"MIDDLE without FIRST", {.opcode = FX_OP_WRITE_MIDDLE}, 1024, AT(rx_invalid_request), true},
	{"LAST without FIRST", {.opcode = FX_OP_SEND_LAST}, 4, AT(rx_invalid_request), true},
	{"a short FIRST", {.opcode = FX_OP_SEND_FIRST}, 1020, AT(rx_invalid_request), true},
	{"an ONLY above the MTU", {.opcode = FX_OP_SEND_ONLY}, 1028, AT(rx_invalid_request), true},
	{"RETH says more", {.opcode = FX_OP_WRITE_ONLY, RETH(8)}, 4, AT(rx_invalid_request), true},
	{"RETH says less", {.opcode = FX_OP_WRITE_ONLY, RETH(3)}, 4, AT(rx_invalid_request), true},
	{"WRITE FIRST of one packet",
	 {.opcode = FX_OP_WRITE_FIRST, RETH(1024)},
	 1024,
	 AT(rx_invalid_request),
	 true},
	{"more than 2 GiB",
	 {.opcode = FX_OP_WRITE_FIRST, RETH(0x80000001)},
	 1024,
	 AT(rx_invalid_request),
	 true},
	{"READ of more than 2 GiB",
	 {.opcode = FX_OP_READ_REQUEST, RETH(0xffffffff)},
	 0,
	 AT(rx_invalid_request),
	 true},
	{"READ with a payload", {.opcode = FX_OP_READ_REQUEST, RETH(4)}, 4, AT(rx_invalid_request), true},
	{"WRITE to key 0", {.opcode = FX_OP_WRITE_ONLY, RETH(4)}, 4, AT(rx_remote_access), true},
	{"READ from key 0", {.opcode = FX_OP_READ_REQUEST, RETH(4)}, 0, AT(rx_remote_access), true},
};

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];
		struct pair *p = pair_create(NULL);
		struct fx_bth bth = r->bth;
		const uint64_t *counter = (const uint64_t *)((const char *)pair_counters(p, 1) + r->counter);

		bth.psn = fx_psn_add(0xfffff0, bth.psn);
		pair_recv(p, 1, 0, 4096);
		inject(p, 1, bth, r->len);
		pair_run(p, 1 * MS);
		if (*counter != 1 || pair_state(p, 1) != (r->fatal ? ERR : RTS))
			print_error("%s: counter %u, state %u\n", r->what, (unsigned)*counter,
				    pair_state(p, 1));
		assert_int_equal(*counter, 1);
		assert_int_equal(pair_state(p, 1), r->fatal ? ERR : RTS);
		if (!r->fatal) {
			pair_expect_none(p, 1);
			assert_int_equal(pair_info(p, 1).rq_psn, 0xfffff0);
			pair_fill(p, 0, 0, 4096, 1);
			pair_post(p, 0, FX_WR_SEND, 0, 4096, 0);
			pair_run(p, 20 * MS);
			pair_expect(p, 0, FX_WC_SEND, 0, FX_WC_SUCCESS);
			pair_expect(p, 1, FX_WC_RECV, 0, FX_WC_SUCCESS);
			pair_check(p, 1, 0, 4096, 1);
		}
		pair_destroy(p);
	}
}

/* A READ is under way: responses of the wrong length, or ahead of a gap, are not taken for the right ones. */
static void test_wrong_responses(void **state)
{
	static const uint32_t bad[] = {0, 4, 1020};
	struct pair *p = pair_create(NULL);

	(void)state;
	p->cut[1] = true;
	pair_fill(p, 1, 0, 2500, 1);
	pair_post(p, 0, FX_WR_READ, 0, 2500, 0);
	pair_run(p, 100 * US);
	for (unsigned i = 0; i < 3; i++)
		inject(p, 0, (struct fx_bth){.opcode = FX_OP_READ_RESP_FIRST, .psn = 0xfffff0}, bad[i]);
	inject(p, 0, (struct fx_bth){.opcode = FX_OP_READ_RESP_MIDDLE, .psn = 0xfffff1}, 1024);
	inject(p, 0, (struct fx_bth){.opcode = FX_OP_READ_RESP_LAST, .psn = 0xfffff2}, 452);
	pair_run(p, 100 * US);
	pair_expect_none(p, 0);
	assert_int_equal(pair_counters(p, 0)->rx_bad_length, 3);
	pair_check_blank(p, 0, 0, 2500);
	p->cut[1] = false;
	pair_run(p, 20 * MS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 0, FX_WC_SUCCESS);
	pair_check(p, 0, 0, 2500, 1);
	pair_destroy(p);
}

/* Frames cut short at every length, and from another address. */
static void test_truncated(void **state)
{
	struct fx_bth bth = {
		.opcode = FX_OP_WRITE_ONLY_IMM, .pkey = FX_PKEY_DEFAULT, .psn = 0xfffff0, RETH(40)};
	struct pair *p = pair_create(NULL);
	uint8_t f[SIM_FRAME];
	uint32_t len;

	(void)state;
	bth.dqpn = p->q[1]->qpn;
	bth.reth.rkey = p->mem[1]->mr.key;
	bth.reth.va = p->mem[1]->mr.iova;
	len = forge(p, 1, f, &bth, 40, 0);
	for (uint32_t n = 0; n < len; n++)
		net_inject(p->s, p->h[1], f, n, 1 + n);
	pair_run(p, 1 * MS);
	assert_int_equal(pair_counters(p, 1)->rx_packets, len);
	assert_int_equal(pair_info(p, 1).rx_packets, 0);
	len = forge(p, 1, f, &bth, 40, 6);
	net_inject(p->s, p->h[1], f, len, 1);
	pair_run(p, 1 * MS);
	assert_int_equal(pair_counters(p, 1)->rx_wrong_peer, 1);
	assert_int_equal(pair_state(p, 1), RTS);
	pair_check_blank(p, 1, 0, 4096);
	pair_destroy(p);
}

static struct fx_bth random_bth(struct pair *p, struct rng *r, unsigned to)
{
	struct fx_qp_info info = pair_info(p, to);
	uint32_t base = rng_chance(r, 500000) ? info.rq_psn : info.una_psn;
	struct fx_bth bth = {
		.opcode = (uint8_t)(rng_chance(r, 950000) ? rng_below(r, 24) : rng_next(r)),
		.se = rng_next(r) & 1,
		.ackreq = rng_next(r) & 1,
		.psn = fx_psn_add(base, (uint32_t)(rng_chance(r, 700000) ? 0 : rng_below(r, 8) - 4)),
		.reth = {.va = p->mem[to]->mr.iova + rng_below(r, PAIR_MEM),
			 .rkey = rng_chance(r, 900000) ? p->mem[to]->mr.key : (uint32_t)rng_next(r),
			 .length = (uint32_t)(rng_chance(r, 900000) ? rng_below(r, 5000) : rng_next(r))},
		.aeth = {.syndrome = (uint8_t)rng_next(r), .msn = (uint32_t)rng_below(r, 1 << 24)},
	};

	bth.atomic.va = bth.reth.va;
	bth.atomic.rkey = bth.reth.rkey;
	return bth;
}

/*
 * Valid keys, a connected QP, plausible and implausible frames in between real work. It has to end somehow.
 */
static void test_noise(void **state)
{
	struct pair *p = pair_create(NULL);
	struct rng r = rng_of(42, 1);

	(void)state;
	p->s->tap = NULL;
	for (unsigned i = 0; i < 20000; i++) {
		unsigned to = (unsigned)rng_below(&r, 2);
		struct fx_bth bth = random_bth(p, &r, to);
		uint32_t len = (uint32_t)(rng_chance(&r, 400000) ? 1024 : rng_below(&r, 1100));

		if (fx_opcodes[bth.opcode].flags & FX_OPF_PAYLOAD && rng_chance(&r, 500000) &&
		    fx_opcodes[bth.opcode].flags & FX_OPF_RETH &&
		    (fx_opcodes[bth.opcode].flags & FX_OPF_LAST))
			bth.reth.length = len;
		inject(p, to, bth, fx_opcodes[bth.opcode].flags & FX_OPF_PAYLOAD ? len : 0);
		if (rng_chance(&r, 300000) && pair_info(p, 0).sq_outstanding < 32)
			pair_post(p, 0, (uint8_t)(rng_chance(&r, 500000) ? FX_WR_READ : FX_WR_SEND), 0, 5000,
				  9000);
		if (rng_chance(&r, 300000) && p->q[1]->rq.index % 64 < 60)
			pair_recv(p, 1, 0, 8000);
		pair_run(p, rng_below(&r, 20) * US);
		p->n[0] = p->n[1] = 0;
		if (pair_state(p, 0) == ERR || pair_state(p, 1) == ERR) {
			pair_run(p, 300 * US);
			for (unsigned k = 0; k < 2; k++)
				assert_int_equal(qp_state(p->q[k], RESET), 0);
			pair_connect(p);
		}
	}
	pair_destroy(p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_wrong_responses),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests_name("sim_rogue", tests, NULL, NULL);
}
