/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lets a completion queue overrun and reads what the device says of it: IBV_EVENT_CQ_ERR for the queue and
 * IBV_EVENT_QP_FATAL for each of its QPs, the idle one too, each once, and each of the right object; the completions that
 * had room are still there. One QP's event is not read: destroying it takes the event back. Exits with 0 if it was so.
 * overrun [COMMAND]: which has to succeed while the QPs are in error
 *
 * Room: tests. May use: verbs only.
 */
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { SENDS = 16, PATIENCE_MS = 5000 };

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	printf("%s failed: errno %d\n", what, errno);
	exit(1);
}

/* Connected to itself. */
static struct ibv_qp *connected(struct ibv_pd *pd, struct ibv_cq *cq)
{
	struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .sq_sig_all = 1};
	struct ibv_qp_attr a = {.port_num = 1, .path_mtu = IBV_MTU_1024, .timeout = 14, .retry_cnt = 7};
	struct ibv_qp *qp;

	init.cap = (struct ibv_qp_cap){.max_send_wr = SENDS, .max_send_sge = 1};
	qp = ibv_create_qp(pd, &init);
	need(qp, "create_qp");
	a.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
	a.dest_qp_num = qp->qp_num;
	a.ah_attr = (struct ibv_ah_attr){.is_global = 1, .port_num = 1};
	need(!ibv_query_gid(pd->context, 1, 0, &a.ah_attr.grh.dgid), "query_gid");
	a.qp_state = IBV_QPS_INIT;
	need(!ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
	     "INIT");
	a.qp_state = IBV_QPS_RTR;
	need(!ibv_modify_qp(qp, &a,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
	     "RTR");
	a.qp_state = IBV_QPS_RTS;
	need(!ibv_modify_qp(qp, &a,
			    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				    IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
	     "RTS");
	return qp;
}

/* Writes of nothing: they need no memory. */
static void post(struct ibv_qp *qp)
{
	struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE}, *bad;

	for (int i = 0; i < SENDS; i++)
		need(!ibv_post_send(qp, &wr, &bad), "post_send");
}

static bool readable(const struct ibv_context *ctx, int ms)
{
	struct pollfd p = {.fd = ctx->async_fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1 && p.revents & POLLIN;
}

int main(int argc, char **argv)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *ctx = list && list[0] ? ibv_open_device(list[0]) : NULL;
	struct ibv_async_event e[2];
	struct ibv_qp *qp[2], *told;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_wc wc;

	need(ctx, "open_device");
	pd = ibv_alloc_pd(ctx);
	cq = ibv_create_cq(ctx, 2, NULL, NULL, 0);
	need(pd && cq, "preparing");
	ibv_free_device_list(list);
	need(!fcntl(ctx->async_fd, F_SETFL, O_NONBLOCK), "O_NONBLOCK");
	for (int i = 0; i < 2; i++)
		qp[i] = connected(pd, cq);
	need(ibv_get_async_event(ctx, e) && errno == EAGAIN, "EAGAIN while nothing happened");
	post(qp[0]);
	for (int i = 0; i < 2; i++)
		need(readable(ctx, PATIENCE_MS) && !ibv_get_async_event(ctx, &e[i]), "an event");
	need(e[0].event_type == IBV_EVENT_CQ_ERR && e[0].element.cq == cq, "IBV_EVENT_CQ_ERR of the CQ");
	told = e[1].element.qp;
	need(e[1].event_type == IBV_EVENT_QP_FATAL && (told == qp[0] || told == qp[1]),
	     "IBV_EVENT_QP_FATAL of a QP");
	for (int i = 0; i < 2; i++)
		need(ibv_poll_cq(cq, 1, &wc) == 1 && wc.status == IBV_WC_SUCCESS, "what had room");
	need(argc < 2 || system(argv[1]) == 0, argv[argc - 1]);
	ibv_ack_async_event(&e[1]);
	need(readable(ctx, 0), "the other QP's event");
	need(!ibv_destroy_qp(qp[told == qp[0]]) && !readable(ctx, 0),
	     "taking back what nobody read, each event once");
	e[0] = (struct ibv_async_event){.element.cq = cq, .event_type = IBV_EVENT_CQ_ERR};
	ibv_ack_async_event(&e[0]);
	need(!ibv_destroy_qp(told) && !ibv_destroy_cq(cq) && !ibv_dealloc_pd(pd) && !ibv_close_device(ctx),
	     "closing");
	return 0;
}
