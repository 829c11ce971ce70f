/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory windows over the pair of pair.h: host 1 binds and invalidates, host 0 reaches through.
 *
 * Room: tests/sim. May use: cmocka.
 */
#ifndef SIM_LEND_H
#define SIM_LEND_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pair.h"

enum { RESET = 0, RTS = 3, SQD = 4, ERR = 6, M_STATE = 1 };
enum { OFF = 8192, LEN = 65536 }; /* of host 1's memory, in the window */
enum { ALL = FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ | FX_ACC_REMOTE_ATOMIC };

struct win {
	struct fx_mw mw;
	uint32_t rkey; /* as the application knows it */
	uint64_t va;   /* of byte 0 of the window, as host 0 says it */
};

static inline struct pair *start(const struct pair_opt *opt)
{
	struct pair *p = pair_create(opt);

	p->mem[1]->mr.access |= FX_ACC_MW_BIND;
	return p;
}

static inline void win_alloc(struct pair *p, struct win *w, uint32_t type, uint32_t slot)
{
	*w = (struct win){.mw = {.pd = 1, .type = type}};
	mw_publish(p->h[1], &w->mw, slot, (uint32_t)rng_next(&p->rng));
	w->rkey = w->mw.key;
}

static inline struct fx_bind_slot bind_of(const struct pair *p, const struct win *w, uint32_t access)
{
	return (struct fx_bind_slot){.flags = FX_WRF_SIGNALED,
				     .window = w->mw.key,
				     .rkey = (w->rkey & ~FX_KEY_TAG) | ((w->rkey + 1) & FX_KEY_TAG),
				     .addr = mem_va(p->mem[1], p->mem[1]->bytes + OFF),
				     .length = LEN,
				     .lkey = p->mem[1]->mr.key,
				     .access = access};
}

static inline void post_bind(struct pair *p, struct win *w, uint32_t access)
{
	struct fx_bind_slot b = bind_of(p, w, access);

	w->rkey = b.rkey;
	w->va = access & FX_ACC_ZERO_BASED ? 0 : b.addr;
	qp_post_bind(p->q[1], &b);
}

/* Binds, and sees it complete as host 1's next. */
static inline void bind_now(struct pair *p, struct win *w, uint32_t access)
{
	uint32_t index = p->q[1]->sq_index;

	post_bind(p, w, access);
	pair_run(p, 100 * US);
	pair_expect(p, 1, FX_WC_BIND_MW, index, FX_WC_SUCCESS);
}

static inline void post_inv(struct pair *p, uint32_t rkey)
{
	const struct wr w = {.op = FX_WR_LOCAL_INV, .flags = FX_WRF_SIGNALED, .imm = rkey};

	qp_post(p->q[1], &w);
}

/* Host 0's request for `len` bytes at `at` of the window, from or to `off` of its own memory. */
static inline struct wr through(struct pair *p, const struct win *w, uint8_t op, uint32_t off, uint32_t len,
				uint64_t at)
{
	struct wr r = pair_wr(p, 0, op, off, len, 0);

	r.remote_addr = w->va + at;
	r.rkey = w->rkey;
	r.compare_add = 1;
	return r;
}

static inline void post_through(struct pair *p, const struct win *w, uint8_t op, uint32_t off, uint32_t len,
				uint64_t at)
{
	struct wr r = through(p, w, op, off, len, at);

	qp_post(p->q[0], &r);
}

static inline void post_send_inv(struct pair *p, uint32_t rkey, uint32_t off, uint32_t len)
{
	struct wr r = pair_wr(p, 0, FX_WR_SEND_INV, off, len, 0);

	r.imm = rkey;
	qp_post(p->q[0], &r);
}

/* A second connection between the same hosts, in the same domain. */
static inline void second(struct pair *p, struct qp *q[2])
{
	for (unsigned i = 0; i < 2; i++) {
		struct fx_qp_cfg cfg = p->q[i]->cfg;

		cfg.qpn += 16 << FX_WORKER_BITS;
		q[i] = qp_create(p->h[i], &cfg, p->cq[i], p->cq[i], 0, 0);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(qp_connect(q[i], q[!i], &p->attr), 0);
}

static inline void second_end(struct qp *q[2])
{
	for (unsigned i = 0; i < 2; i++)
		assert_true(qp_destroy(q[i]));
}

/* Host 0's next request is refused, and its connection over. */
static inline void expect_refused(struct pair *p, uint8_t opcode, uint32_t index)
{
	pair_expect(p, 0, opcode, index, FX_WC_REM_ACCESS_ERR);
	assert_int_equal(pair_state(p, 0), ERR);
	assert_int_equal(pair_state(p, 1), ERR);
	assert_true(pair_counters(p, 1)->rx_remote_access > 0);
}

/* Every kind of access, the first three requests of host 0; and not a byte beside what they name. */
static inline void use(struct pair *p, const struct win *w)
{
	uint64_t word = 41;

	pair_fill(p, 0, 0, 10000, 3);
	memcpy(p->mem[1]->bytes + OFF + LEN - 8, &word, 8);
	post_through(p, w, FX_WR_WRITE, 0, 10000, 5);
	post_through(p, w, FX_WR_READ, 20000, 10000, 5);
	post_through(p, w, FX_WR_FETCH_ADD, 40000, 8, LEN - 8);
	pair_run(p, 5 * MS);
	pair_expect(p, 0, FX_WC_RDMA_WRITE, 0, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_RDMA_READ, 1, FX_WC_SUCCESS);
	pair_expect(p, 0, FX_WC_FETCH_ADD, 2, FX_WC_SUCCESS);
	pair_check_blank(p, 1, 0, OFF + 5);
	pair_check(p, 1, OFF + 5, 10000, 3);
	pair_check_blank(p, 1, OFF + 10005, LEN - 10013);
	pair_check(p, 0, 20000, 10000, 3);
	memcpy(&word, p->mem[1]->bytes + OFF + LEN - 8, 8);
	assert_int_equal(word, 42);
	memcpy(&word, p->mem[0]->bytes + 40000, 8);
	assert_int_equal(word, 41);
	assert_int_equal(w->mw.held, 0);
}

#endif
