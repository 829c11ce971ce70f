/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Makes as many RC queue pairs as it is told, each connected to itself, and uses each. Reads commands from
 * stdin, answers each with a line, and leaves when stdin ends:
 *	qps N		bring the number of connected QPs up to N, and write 8 bytes through each new one
 *	zero N		write nothing, N times, through the first QP
 *	poison		write to a key that nobody has, and say the completion's status
 *
 * Room: tests. May use: verbs only; it runs unmodified on any device.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rc.h"

enum { MAX_QPS = 20000, BYTES = 4096, DEPTH = 16, PATIENCE_S = 10 };

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static struct ibv_qp *qps[MAX_QPS];
static unsigned nqps;
static char *buf;

__attribute__((format(printf, 2, 3))) static void need(bool ok, const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	if (ok)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(": failed (%s)\n", strerror(err));
	exit(1);
}

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	need(list && list[0], "device list");
	ctx = ibv_open_device(list[0]);
	need(ctx, "open");
	ibv_free_device_list(list);
	pd = ibv_alloc_pd(ctx);
	need(pd, "PD");
	cq = ibv_create_cq(ctx, 256, NULL, NULL, 0);
	need(cq, "CQ");
	buf = aligned_alloc(4096, 2 * BYTES);
	need(buf, "memory");
	memset(buf, 0, 2 * BYTES);
	mr = ibv_reg_mr(pd, buf, 2 * BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	need(mr, "MR");
}

static void connect_to(struct ibv_qp *qp, uint32_t peer)
{
	union ibv_gid gid;

	need(ibv_query_gid(ctx, 1, 0, &gid) == 0, "GID");
	need(rc_connect(qp, peer, &gid, IBV_ACCESS_REMOTE_WRITE) == 0, "connecting QP %u", nqps);
}

static enum ibv_wc_status completion(void)
{
	time_t end = time(NULL) + PATIENCE_S;
	struct ibv_wc wc;
	int n;

	do
		n = ibv_poll_cq(cq, 1, &wc);
	while (n == 0 && time(NULL) < end);
	need(n == 1, "completion (poll_cq gave %d)", n);
	return wc.status;
}

/* -> the completion's status */
static enum ibv_wc_status write_bytes(struct ibv_qp *qp, uint32_t bytes, uint32_t rkey)
{
	struct ibv_sge sge = {.addr = (uintptr_t)buf, .length = bytes, .lkey = mr->lkey};
	struct ibv_send_wr *bad, wr = {.wr_id = qp->qp_num,
				       .sg_list = &sge,
				       .num_sge = bytes ? 1 : 0,
				       .opcode = IBV_WR_RDMA_WRITE,
				       .send_flags = IBV_SEND_SIGNALED,
				       .wr.rdma = {.remote_addr = (uintptr_t)(buf + BYTES), .rkey = rkey}};

	need(ibv_post_send(qp, &wr, &bad) == 0, "post_send");
	return completion();
}

static struct ibv_qp *create_qp(void)
{
	struct ibv_qp_init_attr attr = {
		.send_cq = cq,
		.recv_cq = cq,
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = DEPTH, .max_recv_wr = DEPTH, .max_send_sge = 1, .max_recv_sge = 1}};
	struct ibv_qp *qp = ibv_create_qp(pd, &attr);

	need(qp, "QP %u", nqps);
	return qp;
}

static void one_more(void)
{
	struct ibv_qp *qp = create_qp();
	enum ibv_wc_status status;
	uint64_t value = 0x1122334400000000u + nqps, there;

	qps[nqps++] = qp;
	connect_to(qp, qp->qp_num);
	memcpy(buf, &value, sizeof(value));
	status = write_bytes(qp, sizeof(value), mr->rkey);
	need(status == IBV_WC_SUCCESS, "write through QP %u: %s", nqps - 1, ibv_wc_status_str(status));
	memcpy(&there, buf + BYTES, sizeof(there));
	need(there == value, "data of QP %u", nqps - 1);
}

/* Two QPs, since one that refuses its own request is in error before it hears of it. */
static enum ibv_wc_status poison(void)
{
	struct ibv_qp *from = create_qp(), *to = create_qp();
	enum ibv_wc_status status;

	connect_to(from, to->qp_num);
	connect_to(to, from->qp_num);
	status = write_bytes(from, 8, mr->rkey ^ 0x5a5a5a5au);
	need(ibv_destroy_qp(from) == 0 && ibv_destroy_qp(to) == 0, "destroy_qp");
	return status;
}

static void leave(void)
{
	while (nqps)
		need(ibv_destroy_qp(qps[--nqps]) == 0, "destroy_qp");
	need(ibv_dereg_mr(mr) == 0, "dereg_mr");
	need(ibv_destroy_cq(cq) == 0, "destroy_cq");
	need(ibv_dealloc_pd(pd) == 0, "dealloc_pd");
	need(ibv_close_device(ctx) == 0, "close");
	free(buf);
}

int main(void)
{
	char line[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	open_device();
	puts("open");
	while (fgets(line, sizeof(line), stdin)) {
		unsigned n = (unsigned)strtoul(line + strcspn(line, " "), NULL, 10);

		if (strncmp(line, "qps", 3) == 0) {
			while (nqps < n && nqps < MAX_QPS)
				one_more();
			printf("qps %u\n", nqps);
		} else if (strncmp(line, "zero", 4) == 0) {
			for (unsigned i = 0; i < n; i++)
				need(write_bytes(qps[0], 0, mr->rkey) == IBV_WC_SUCCESS, "empty write %u", i);
			printf("zero %u\n", n);
		} else if (strncmp(line, "poison", 6) == 0) {
			printf("poison %d\n", (int)poison());
		}
	}
	leave();
	puts("closed");
	return 0;
}
