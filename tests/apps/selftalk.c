/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One queue pair connected to itself, and one thing tried with it:
 *	selftalk atomics	on whole pages, while a thread of ours works on the same word; on the stack
 *	selftalk drain		SQD with its event, what waits meanwhile, and back to RTS
 *
 * Room: tests. May use: verbs only; it runs unmodified on any device.
 */
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ADDS = 2000, PATIENCE_S = 10 };

#define ACCESS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)
#define NEED(ok) need(ok, #ok, __LINE__)

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp;

static void need(bool ok, const char *what, int line)
{
	if (ok)
		return;
	printf("selftalk.c:%d: %s: failed\n", line, what);
	exit(1);
}

static void open_all(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = 16, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};

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
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_INIT,
				.port_num = 1,
				.qp_access_flags = ACCESS,
				.path_mtu = IBV_MTU_1024,
				.dest_qp_num = qp->qp_num,
				.max_dest_rd_atomic = 8,
				.max_rd_atomic = 8,
				.min_rnr_timer = 12,
				.timeout = 14,
				.retry_cnt = 7,
				.rnr_retry = 7,
				.ah_attr = {.is_global = 1, .port_num = 1, .grh.hop_limit = 1}};

	NEED(!ibv_query_gid(ctx, 1, 0, &a.ah_attr.grh.dgid));
	NEED(!ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	a.qp_state = IBV_QPS_RTR;
	NEED(!ibv_modify_qp(qp, &a,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	a.qp_state = IBV_QPS_RTS;
	NEED(!ibv_modify_qp(qp, &a,
			    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				    IBV_QP_MAX_QP_RD_ATOMIC));
}

static struct ibv_wc completion(void)
{
	time_t end = time(NULL) + PATIENCE_S;
	struct ibv_wc wc;
	int n;

	do
		n = ibv_poll_cq(cq, 1, &wc);
	while (n == 0 && time(NULL) < end);
	NEED(n == 1);
	NEED(wc.status == IBV_WC_SUCCESS);
	return wc;
}

static void post(const struct ibv_mr *land_mr, void *land, enum ibv_wr_opcode op, const struct ibv_mr *mr, void *word,
		 uint64_t compare_add, uint64_t swap)
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

	if (op == IBV_WR_RDMA_WRITE) {
		wr.wr.rdma.remote_addr = (uintptr_t)word;
		wr.wr.rdma.rkey = mr->rkey;
	}
	NEED(!ibv_post_send(qp, &wr, &bad));
}

static void *add_too(void *word)
{
	for (unsigned i = 0; i < 100 * ADDS; i++)
		__atomic_fetch_add((uint64_t *)word, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void atomics(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t *page = aligned_alloc(size, size), onstack[2] = {5, 0};
	struct ibv_mr *mr = ibv_reg_mr(pd, page, size, ACCESS), *stack = ibv_reg_mr(pd, onstack, sizeof(onstack), ACCESS);
	struct ibv_device_attr attr;
	pthread_t t;

	NEED(!ibv_query_device(ctx, &attr));
	NEED(attr.atomic_cap == IBV_ATOMIC_HCA || attr.atomic_cap == IBV_ATOMIC_GLOB);
	NEED(mr && stack);
	memset(page, 0, size);
	NEED(!pthread_create(&t, NULL, add_too, page));
	for (uint64_t i = 0; i < ADDS; i++) {
		post(mr, &page[100], IBV_WR_ATOMIC_FETCH_AND_ADD, mr, page, UINT64_C(1) << 32, 0);
		NEED(completion().opcode == IBV_WC_FETCH_ADD);
		NEED(page[100] >> 32 == i);
	}
	pthread_join(t, NULL);
	NEED(page[0] == ((uint64_t)ADDS << 32 | 100 * ADDS));
	/* memory that no window reaches, and the result in such */
	post(mr, &page[100], IBV_WR_ATOMIC_CMP_AND_SWP, stack, onstack, 5, 77);
	NEED(completion().opcode == IBV_WC_COMP_SWAP);
	NEED(page[100] == 5);
	post(stack, &onstack[1], IBV_WR_ATOMIC_FETCH_AND_ADD, stack, onstack, 1, 0);
	completion();
	/* volatile: the device changed them, not the program */
	NEED(*(volatile uint64_t *)&onstack[1] == 77 && *(volatile uint64_t *)&onstack[0] == 78);
}

static void to_state(enum ibv_qp_state state)
{
	struct ibv_qp_attr a = {.qp_state = state, .en_sqd_async_notify = 1};

	NEED(!ibv_modify_qp(qp, &a, IBV_QP_STATE | (state == IBV_QPS_SQD ? IBV_QP_EN_SQD_ASYNC_NOTIFY : 0)));
}

static void drain(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t *page = aligned_alloc(size, size);
	struct ibv_mr *mr = ibv_reg_mr(pd, page, size, ACCESS);
	struct ibv_qp_init_attr init;
	struct ibv_async_event ev;
	struct ibv_qp_attr a;
	struct ibv_wc wc;

	NEED(mr);
	memset(page, 0, size);
	page[0] = 1;
	post(mr, page, IBV_WR_RDMA_WRITE, mr, &page[8], 0, 0);
	to_state(IBV_QPS_SQD);
	alarm(PATIENCE_S);
	NEED(!ibv_get_async_event(ctx, &ev));
	NEED(ev.event_type == IBV_EVENT_SQ_DRAINED && ev.element.qp == qp);
	ibv_ack_async_event(&ev);
	NEED(!ibv_query_qp(qp, &a, IBV_QP_STATE, &init));
	NEED(a.qp_state == IBV_QPS_SQD && !a.sq_draining);
	while (ibv_poll_cq(cq, 1, &wc) > 0)
		;
	page[0] = 2;
	post(mr, page, IBV_WR_RDMA_WRITE, mr, &page[16], 0, 0);
	usleep(20000);
	NEED(ibv_poll_cq(cq, 1, &wc) == 0 && *(volatile uint64_t *)&page[16] == 0);
	to_state(IBV_QPS_RTS);
	/* the first one too, if it had not begun */
	while (*(volatile uint64_t *)&page[16] != 2)
		completion();
	NEED(page[8] != 0);
}

int main(int argc, char **argv)
{
	NEED(argc == 2);
	open_all();
	connect_to_self();
	if (!strcmp(argv[1], "atomics"))
		atomics();
	else
		drain();
	puts("fine");
	return 0;
}
