/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A queue pair connected to itself, for tests in which a program is its own peer.
 *
 * Room: tests. May use: verbs only.
 */
#ifndef FX_TEST_SELFQP_H
#define FX_TEST_SELFQP_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "need.h"
#include "rc.h"

enum { PAGE = 4096, PATIENCE_S = 10 };

#define ACCESS                                                                                               \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp;

static void open_all(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 4, .max_recv_sge = 4}};

	NEED(list && list[0]);
	ctx = ibv_open_device(list[0]);
	NEED(ctx);
	ibv_free_device_list(list);
	pd = ibv_alloc_pd(ctx);
	attr.send_cq = attr.recv_cq = cq = ibv_create_cq(ctx, 64, NULL, NULL, 0);
	NEED(pd && cq);
	qp = ibv_create_qp(pd, &attr);
	NEED(qp);
}

static void connect_to_self(void)
{
	union ibv_gid gid;

	NEED(!ibv_query_gid(ctx, 1, 0, &gid));
	NEED(!rc_connect(qp, qp->qp_num, &gid, ACCESS));
}

static struct ibv_wc outcome(void)
{
	time_t end = time(NULL) + PATIENCE_S;
	struct ibv_wc wc;
	int n;

	do
		n = ibv_poll_cq(cq, 1, &wc);
	while (n == 0 && time(NULL) < end);
	NEED(n == 1);
	return wc;
}

static struct ibv_wc completion(void)
{
	struct ibv_wc wc = outcome();

	NEED(wc.status == IBV_WC_SUCCESS);
	return wc;
}

/* Eight bytes, or an atomic, between `land` and `word`, which is the remote one. */
static inline void post(const struct ibv_mr *land_mr, void *land, enum ibv_wr_opcode op,
			const struct ibv_mr *mr, void *word, uint64_t compare_add, uint64_t swap)
{
	struct ibv_sge sge = {.addr = (uintptr_t)land, .length = 8, .lkey = land_mr->lkey};
	struct ibv_send_wr *bad, wr = {.sg_list = &sge,
				       .num_sge = 1,
				       .opcode = op,
				       .send_flags = IBV_SEND_SIGNALED,
				       .wr.atomic = {.remote_addr = (uintptr_t)word,
						     .compare_add = compare_add,
						     .swap = swap,
						     .rkey = mr->rkey}};

	if (op == IBV_WR_RDMA_WRITE || op == IBV_WR_RDMA_READ) {
		wr.wr.rdma.remote_addr = (uintptr_t)word;
		wr.wr.rdma.rkey = mr->rkey;
	}
	NEED(!ibv_post_send(qp, &wr, &bad));
}

#endif
