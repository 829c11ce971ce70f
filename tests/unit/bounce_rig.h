/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory of which a part is slow, over host_rig.h: what the core is given for it, and what comes back.
 */
#ifndef FX_TEST_BOUNCE_RIG_H
#define FX_TEST_BOUNCE_RIG_H

#include "host_rig.h"

enum {
	SLOW_LO = 4096,
	SLOW_HI = 204800, /* [SLOW_LO, SLOW_HI) of the region is slow */
	REGION = 262144,
	POOL_MAX = 65536, /* slow bytes of a request that are copied */
	ALL_ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
};

static const struct ibv_qp_cap bounce_cap = {.max_send_wr = 16,
					     .max_recv_wr = 16,
					     .max_send_sge = FX_MAX_SGE,
					     .max_recv_sge = 4,
					     .max_inline_data = 8};

struct bounced {
	struct rig r;
	uint8_t *mem;
	struct ibv_mr *mr;
	uint32_t index, rindex; /* of the next request */
	struct fx_reg_mr_req pool;
	uint32_t pool_key;
};

static inline uint8_t pattern(uint64_t i)
{
	return (uint8_t)(i * 7 + (i >> 8) + 1);
}

static inline void refill(struct bounced *b)
{
	for (uint32_t i = 0; i < REGION; i++)
		b->mem[i] = pattern(i);
}

static inline struct bounced bounce_start(const struct ibv_qp_cap *cap)
{
	struct bounced b = {.r = rig_start(6, cap)};

	b.r.core->nslow = 1;
	b.r.core->slow[0] = (struct fx_slow_run){.off = SLOW_LO, .length = SLOW_HI - SLOW_LO};
	b.mem = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(b.mem, MAP_FAILED);
	refill(&b);
	b.mr = flexins_reg_mr(b.r.pd, b.mem, REGION, ALL_ACCESS);
	assert_non_null(b.mr);
	b.pool = b.r.core->pool;
	b.pool_key = 0x100 + b.r.core->pool_mr;
	return b;
}

static inline void bounce_end(struct bounced *b)
{
	if (b->mr)
		assert_int_equal(flexins_dereg_mr(b->mr), 0);
	munmap(b->mem, REGION);
	rig_end(&b->r);
}

static inline struct ibv_sge sge_of(const struct bounced *b, uint32_t off, uint32_t len)
{
	return (struct ibv_sge){.addr = (uintptr_t)b->mem + off, .length = len, .lkey = b->mr->lkey};
}

static inline bool same_sge(const struct fx_sge *a, const struct ibv_sge *b)
{
	return a->addr == b->addr && a->length == b->length && a->lkey == b->lkey;
}

/* The bytes behind an SGE that has to be in the pool. */
static inline uint8_t *in_pool(const struct bounced *b, const struct fx_sge *s, uint32_t len)
{
	assert_int_equal(s->lkey, b->pool_key);
	assert_int_equal(s->length, len);
	assert_in_range(s->addr, b->pool.addr, b->pool.addr + b->pool.length - len);
	return (uint8_t *)(uintptr_t)s->addr;
}

/* An entry of the send pipe, taken apart. */
struct entry {
	struct fx_sq_slot head;
	struct fx_sge sge[FX_MAX_SGE];
	uint8_t data[FX_MAX_INLINE];
};

static inline struct entry take_entry(struct bounced *b)
{
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	const struct fx_ext_slot *ext = (const struct fx_ext_slot *)slot;
	struct entry e;
	int n = fx_pipe_take(&b->r.core->pipe, slot);

	assert_true(n > 0);
	fx_pipe_publish_ci(&b->r.core->pipe);
	memset(&e, 0, sizeof(e));
	e.head = slot[0];
	assert_int_equal(e.head.index, b->index++);
	if (e.head.flags & FX_WRF_INLINE) {
		uint32_t len = e.head.rdma.inline_len;

		assert_in_range(len, 0, FX_MAX_INLINE);
		for (uint32_t i = 0; i < len; i++)
			e.data[i] = i < FX_SLOT_INLINE ? ((const uint8_t *)&slot[0].sge)[i]
						       : ext[1 + (i - FX_SLOT_INLINE) / FX_EXT_DATA]
								 .data[(i - FX_SLOT_INLINE) % FX_EXT_DATA];
		return e;
	}
	assert_in_range(e.head.nsge, 0, FX_MAX_SGE);
	e.sge[0] = slot[0].sge;
	for (uint32_t i = 1; i < e.head.nsge; i++)
		memcpy(&e.sge[i],
		       ext[1 + (i - 1) / FX_EXT_SGES].data + (i - 1) % FX_EXT_SGES * sizeof(e.sge[0]),
		       sizeof(e.sge[0]));
	return e;
}

static inline int post(struct bounced *b, enum ibv_wr_opcode op, unsigned flags, struct ibv_sge *sge, int n)
{
	struct ibv_send_wr wr = {
		.wr_id = b->index, .opcode = op, .send_flags = flags, .sg_list = sge, .num_sge = n};
	struct ibv_send_wr *bad;

	return flexins_post_send(b->r.qp, &wr, &bad);
}

/* Posts one SGE, and what the core sees of it. */
static inline struct entry sent(struct bounced *b, enum ibv_wr_opcode op, unsigned flags, struct ibv_sge sge)
{
	assert_int_equal(post(b, op, flags, &sge, 1), 0);
	return take_entry(b);
}

static inline struct fx_sge recv_posted(struct bounced *b, struct ibv_sge sge)
{
	struct ibv_recv_wr wr = {.wr_id = 1000 + b->rindex++, .sg_list = &sge, .num_sge = 1}, *bad;
	struct fx_sge got[FX_MAX_SGE];

	assert_int_equal(flexins_post_recv(b->r.qp, &wr, &bad), 0);
	assert_int_equal(fx_rq_take(&b->r.core->rq[0], got, FX_MAX_SGE), 1);
	return got[0];
}

/* The core completes a request; -> what is polled for it */
static inline struct ibv_wc completed(struct bounced *b, uint8_t opcode, uint32_t index, uint8_t status,
				      uint32_t len)
{
	struct fx_cqe c = {.qpn_gen = fx_qpn_gen(b->r.qp->qp_num, (uint8_t)b->r.core->gen[0]),
			   .index = index,
			   .opcode = opcode,
			   .status = status,
			   .byte_len = len};
	struct ibv_wc wc;

	assert_int_equal(fx_cq_push(&b->r.core->cq[0], &c), 0);
	assert_int_equal(rig_poll(&b->r, 1, &wc), 1);
	return wc;
}

#endif
