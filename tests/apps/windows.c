/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two queue pairs connected to each other, and memory windows between them:
 *	windows type1		bound, used, bound anew, unbound
 *	windows type2		lent with a key, written into, given back by SEND with invalidate, or taken back
 *	windows refused		what each may not do
 *	windows busy		what may not go while a window is bound or there
 *	windows leave		ends with everything bound
 *
 * Room: tests. May use: verbs only; it runs unmodified on any device that has both types.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "need.h"
#include "rc.h"

enum { SIZE = 1 << 20, PART = 100000, ROUNDS = 200, PATIENCE_S = 10 };

#define REMOTE (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq[2];
static struct ibv_qp *qp[2]; /* 0 asks, 1 has the windows */
static struct ibv_mr *mr[2];
static uint8_t *mem[2];

static void connect_both(void)
{
	union ibv_gid gid;

	for (int i = 0; i < 2; i++) {
		struct ibv_qp_init_attr attr = {
			.qp_type = IBV_QPT_RC,
			.send_cq = cq[i],
			.recv_cq = cq[i],
			.cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1}};

		if (qp[i])
			NEED(!ibv_destroy_qp(qp[i]));
		qp[i] = ibv_create_qp(pd, &attr);
		NEED(qp[i]);
	}
	NEED(!ibv_query_gid(ctx, 1, 0, &gid));
	for (int i = 0; i < 2; i++)
		NEED(!rc_connect(qp[i], qp[!i]->qp_num, &gid, REMOTE));
}

static void open_all(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_device_attr attr;

	NEED(list && list[0]);
	ctx = ibv_open_device(list[0]);
	NEED(ctx);
	ibv_free_device_list(list);
	NEED(!ibv_query_device(ctx, &attr));
	NEED(attr.max_mw > 0 && attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW &&
	     attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B);
	pd = ibv_alloc_pd(ctx);
	NEED(pd);
	for (int i = 0; i < 2; i++) {
		cq[i] = ibv_create_cq(ctx, 64, NULL, NULL, 0);
		mem[i] = aligned_alloc(4096, SIZE);
		NEED(cq[i] && mem[i]);
		memset(mem[i], 0, SIZE);
		mr[i] = ibv_reg_mr(pd, mem[i], SIZE, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
		NEED(mr[i]);
	}
	connect_both();
}

static struct ibv_wc completion(int side)
{
	time_t end = time(NULL) + PATIENCE_S;
	struct ibv_wc wc;
	int n;

	do
		n = ibv_poll_cq(cq[side], 1, &wc);
	while (n == 0 && time(NULL) < end);
	NEED(n == 1);
	return wc;
}

static struct ibv_wc expect(int side, enum ibv_wc_opcode opcode, enum ibv_wc_status status)
{
	struct ibv_wc wc = completion(side);

	if (wc.status != status)
		printf("side %d: %s instead of %s\n", side, ibv_wc_status_str(wc.status),
		       ibv_wc_status_str(status));
	NEED(wc.status == status);
	NEED(status || wc.opcode == opcode);
	return wc;
}

static void drain(void)
{
	struct ibv_wc wc;

	for (int i = 0; i < 2; i++)
		while (ibv_poll_cq(cq[i], 1, &wc) > 0)
			;
}

/* Side 0's request for the first `len` bytes of its memory. */
static void post(enum ibv_wr_opcode op, uint32_t len, uint64_t addr, uint32_t rkey)
{
	struct ibv_sge sge = {.addr = (uintptr_t)mem[0], .length = len, .lkey = mr[0]->lkey};
	struct ibv_send_wr *bad,
		wr = {.sg_list = &sge, .num_sge = 1, .opcode = op, .send_flags = IBV_SEND_SIGNALED};

	if (op == IBV_WR_SEND_WITH_INV) {
		wr.invalidate_rkey = rkey;
	} else {
		wr.wr.rdma.remote_addr = addr;
		wr.wr.rdma.rkey = rkey;
	}
	NEED(!ibv_post_send(qp[0], &wr, &bad));
}

static void post_recv(void)
{
	struct ibv_sge sge = {.addr = (uintptr_t)mem[1] + SIZE / 2, .length = 4096, .lkey = mr[1]->lkey};
	struct ibv_recv_wr *bad, wr = {.sg_list = &sge, .num_sge = 1};

	NEED(!ibv_post_recv(qp[1], &wr, &bad));
}

static struct ibv_mw_bind_info part(unsigned access)
{
	return (struct ibv_mw_bind_info){
		.mr = mr[1], .addr = (uintptr_t)mem[1] + 1000, .length = PART, .mw_access_flags = access};
}

static void bind_1(struct ibv_mw *mw, struct ibv_mw_bind_info info)
{
	struct ibv_mw_bind bind = {.wr_id = 11, .send_flags = IBV_SEND_SIGNALED, .bind_info = info};
	uint32_t rkey = mw->rkey;

	NEED(!ibv_bind_mw(qp[1], mw, &bind));
	NEED(mw->rkey != rkey);
	NEED(expect(1, IBV_WC_BIND_MW, IBV_WC_SUCCESS).wr_id == 11);
}

static void post_bind_2(struct ibv_mw *mw, unsigned access)
{
	struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED};

	mw->rkey = ibv_inc_rkey(mw->rkey);
	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = mw->rkey;
	wr.bind_mw.bind_info = part(access);
	NEED(!ibv_post_send(qp[1], &wr, &bad));
}

static void post_local_inv(uint32_t rkey)
{
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED, .invalidate_rkey = rkey};
	struct ibv_send_wr *bad;

	NEED(!ibv_post_send(qp[1], &wr, &bad));
}

/* Writes a pattern through the window and reads it back. */
static void use(uint64_t addr, uint32_t rkey, uint8_t salt)
{
	for (unsigned i = 0; i < PART; i++)
		mem[0][i] = (uint8_t)(i * 7 + salt);
	post(IBV_WR_RDMA_WRITE, PART, addr, rkey);
	expect(0, IBV_WC_RDMA_WRITE, IBV_WC_SUCCESS);
	NEED(!memcmp(mem[1] + 1000, mem[0], PART));
	memset(mem[0], 0, PART);
	post(IBV_WR_RDMA_READ, PART, addr, rkey);
	expect(0, IBV_WC_RDMA_READ, IBV_WC_SUCCESS);
	NEED(!memcmp(mem[1] + 1000, mem[0], PART));
}

static void refused(enum ibv_wr_opcode op, uint32_t len, uint64_t addr, uint32_t rkey)
{
	post(op, len, addr, rkey);
	expect(0, 0, IBV_WC_REM_ACCESS_ERR);
	drain();
	connect_both();
}

static struct ibv_mw *alloc(enum ibv_mw_type type)
{
	struct ibv_mw *mw = ibv_alloc_mw(pd, type);

	NEED(mw && mw->type == type && mw->pd == pd && mw->context == ctx);
	return mw;
}

static void type_1(void)
{
	struct ibv_mw *mw = alloc(IBV_MW_TYPE_1);
	uint64_t addr = (uintptr_t)mem[1] + 1000;
	uint32_t old;

	for (unsigned i = 0; i < ROUNDS; i++) {
		bind_1(mw, part(REMOTE));
		use(addr, mw->rkey, (uint8_t)i);
	}
	old = mw->rkey;
	bind_1(mw, part(IBV_ACCESS_REMOTE_READ));
	refused(IBV_WR_RDMA_WRITE, 10, addr, old);
	refused(IBV_WR_RDMA_WRITE, 10, addr, mw->rkey);
	post(IBV_WR_RDMA_READ, 10, addr, mw->rkey); /* by the new connection too: it is for the domain */
	expect(0, IBV_WC_RDMA_READ, IBV_WC_SUCCESS);
	bind_1(mw, (struct ibv_mw_bind_info){.mr = NULL});
	refused(IBV_WR_RDMA_READ, 10, addr, mw->rkey);
	NEED(!ibv_dealloc_mw(mw));
}

static void type_2(void)
{
	struct ibv_mw *mw = alloc(IBV_MW_TYPE_2);

	for (unsigned i = 0; i < ROUNDS; i++) {
		bool zero = i % 2, back = i % 3;
		uint64_t addr = zero ? 0 : (uintptr_t)mem[1] + 1000;
		struct ibv_wc wc;

		post_recv();
		post_bind_2(mw, REMOTE | (zero ? IBV_ACCESS_ZERO_BASED : 0));
		expect(1, IBV_WC_BIND_MW, IBV_WC_SUCCESS);
		use(addr, mw->rkey, (uint8_t)i);
		mem[0][0]++;
		post(IBV_WR_RDMA_WRITE, PART, addr, mw->rkey);
		post(back ? IBV_WR_SEND_WITH_INV : IBV_WR_SEND, 100, 0, mw->rkey);
		wc = expect(1, IBV_WC_RECV, IBV_WC_SUCCESS);
		NEED(wc.byte_len == 100 && !back == !(wc.wc_flags & IBV_WC_WITH_INV));
		NEED(!back || wc.invalidated_rkey == mw->rkey);
		NEED(!memcmp(mem[1] + 1000, mem[0], PART));
		expect(0, IBV_WC_RDMA_WRITE, IBV_WC_SUCCESS);
		expect(0, IBV_WC_SEND, IBV_WC_SUCCESS);
		if (!back) {
			post_local_inv(mw->rkey);
			expect(1, IBV_WC_LOCAL_INV, IBV_WC_SUCCESS);
		}
	}
	refused(IBV_WR_RDMA_WRITE, 10, (uintptr_t)mem[1] + 1000, mw->rkey);
	NEED(!ibv_dealloc_mw(mw));
}

static void not_bound(void)
{
	struct ibv_mw *mw = alloc(IBV_MW_TYPE_2);
	uint64_t addr = (uintptr_t)mem[1] + 1000;

	refused(IBV_WR_RDMA_WRITE, 10, addr, mw->rkey);
	post_bind_2(mw, REMOTE);
	expect(1, IBV_WC_BIND_MW, IBV_WC_SUCCESS);
	refused(IBV_WR_RDMA_WRITE, 10, addr + PART - 9, mw->rkey);
	/* the connection that it was bound to is gone: it is free */
	post_bind_2(mw, REMOTE);
	expect(1, IBV_WC_BIND_MW, IBV_WC_SUCCESS);
	use(addr, mw->rkey, 1);
	post_bind_2(mw, REMOTE);
	expect(1, 0, IBV_WC_MW_BIND_ERR);
	connect_both();
	post_local_inv(mw->rkey);
	expect(1, 0, IBV_WC_MW_BIND_ERR);
	connect_both();
	post_recv();
	post(IBV_WR_SEND_WITH_INV, 10, 0, mw->rkey + 1);
	expect(0, 0, IBV_WC_REM_ACCESS_ERR);
	expect(1, 0, IBV_WC_REM_INV_REQ_ERR);
	NEED(!ibv_dealloc_mw(mw));
}

static void busy(void)
{
	struct ibv_mw *one = alloc(IBV_MW_TYPE_1), *two = alloc(IBV_MW_TYPE_2);
	struct ibv_mr *zero =
		ibv_reg_mr_iova(pd, mem[1], SIZE, 0, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
	struct ibv_mr *based = ibv_reg_mr(pd, mem[1], SIZE, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ZERO_BASED);

	NEED(zero && based);
	NEED(!ibv_dereg_mr(based));
	bind_1(one, part(REMOTE));
	post_bind_2(two, REMOTE);
	expect(1, IBV_WC_BIND_MW, IBV_WC_SUCCESS);
	NEED(ibv_dereg_mr(mr[1]) == EBUSY);
	post_local_inv(two->rkey);
	expect(1, IBV_WC_LOCAL_INV, IBV_WC_SUCCESS);
	NEED(ibv_dereg_mr(mr[1]) == EBUSY);
	/* to another region, by the addresses of its keys */
	bind_1(one, (struct ibv_mw_bind_info){
			    .mr = zero, .addr = 1000, .length = PART, .mw_access_flags = REMOTE});
	use(1000, one->rkey, 5);
	NEED(ibv_dereg_mr(zero) == EBUSY);
	NEED(!ibv_dereg_mr(mr[1]));
	NEED(!ibv_destroy_qp(qp[0]) && !ibv_destroy_qp(qp[1]));
	NEED(!ibv_dereg_mr(mr[0]));
	NEED(ibv_dealloc_pd(pd) == EBUSY);
	NEED(!ibv_dealloc_mw(one)); /* bound */
	NEED(!ibv_dereg_mr(zero));
	NEED(ibv_dealloc_pd(pd) == EBUSY);
	NEED(!ibv_dealloc_mw(two));
	NEED(!ibv_dealloc_pd(pd));
}

static void leave(void)
{
	for (unsigned i = 0; i < 10; i++) {
		bind_1(alloc(IBV_MW_TYPE_1), part(REMOTE));
		post_bind_2(alloc(IBV_MW_TYPE_2), REMOTE);
		expect(1, IBV_WC_BIND_MW, IBV_WC_SUCCESS);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} all[] = {{"type1", type_1},
		   {"type2", type_2},
		   {"refused", not_bound},
		   {"busy", busy},
		   {"leave", leave}};

	NEED(argc == 2);
	open_all();
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (!strcmp(argv[1], all[i].name)) {
			all[i].run();
			puts("fine");
			return 0;
		}
	return 2;
}
