/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A verbs program as anybody writes one, over <flexins/verbs.h> and libflexins alone: that it links is the test.
 * It lists the devices where no core is.
 */
#include <flexins/verbs.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Never called: takes every usual function by its verbs name, inline ones of the standard header too. */
static int use_names(struct ibv_context *ctx)
{
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC};
	struct ibv_recv_wr recv = {.wr_id = 1}, *bad_recv;
	struct ibv_send_wr send = {.wr_id = 1}, *bad_send;
	struct ibv_device_attr_ex device;
	struct ibv_port_attr port;
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT};
	struct ibv_async_event event = {0};
	struct ibv_gid_entry entry;
	struct ibv_wc wc = {0};
	union ibv_gid gid;
	char buf[64];
	struct ibv_pd *pd = ibv_alloc_pd(ctx);
	struct ibv_mr *mr = ibv_reg_mr(pd, buf, sizeof(buf), IBV_ACCESS_LOCAL_WRITE);
	struct ibv_mr *at = ibv_reg_mr_iova(pd, buf, sizeof(buf), 0, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_comp_channel *channel = ibv_create_comp_channel(ctx);
	struct ibv_cq *cq = ibv_create_cq(ctx, 1, NULL, channel, 0);
	struct ibv_qp *qp = ibv_create_qp(pd, &init);
	int sum = ibv_query_device(ctx, &device.orig_attr) + ibv_query_device_ex(ctx, NULL, &device) +
		  ibv_query_port(ctx, 1, &port) + ibv_query_gid(ctx, 1, 0, &gid) +
		  ibv_query_gid_ex(ctx, 1, 0, &entry, 0) + (int)ibv_query_gid_table(ctx, &entry, 1, 0) +
		  ibv_modify_qp(qp, &attr, IBV_QP_STATE) + ibv_query_qp(qp, &attr, 0, &init) +
		  ibv_post_send(qp, &send, &bad_send) + ibv_post_recv(qp, &recv, &bad_recv) +
		  ibv_poll_cq(cq, 1, &wc) + ibv_req_notify_cq(cq, 0) + ibv_get_async_event(ctx, &event);

	ibv_ack_async_event(&event);
	printf("%s %s\n", ibv_wc_status_str(wc.status), ibv_event_type_str(event.event_type));
	return sum + ibv_destroy_qp(qp) + ibv_destroy_cq(cq) + ibv_destroy_comp_channel(channel) +
	       ibv_dereg_mr(at) + ibv_dereg_mr(mr) + ibv_dealloc_pd(pd) + ibv_close_device(ctx);
}

int main(void)
{
	struct ibv_device **list;
	int n = -1, err;

	setenv("FLEXINS_SOCKET", "/nonexistent/play.sock", 1);
	ibv_fork_init();
	list = ibv_get_device_list(&n);
	err = errno;
	for (int i = 0; list && i < n; i++)
		printf("%s %016llx\n", ibv_get_device_name(list[i]),
		       (unsigned long long)ibv_get_device_guid(list[i]));
	if (list && n > 0)
		use_names(ibv_open_device(list[0]));
	if (!list || n != 0 || list[0] || err != ENOENT) {
		fprintf(stderr, "%d devices, errno %d\n", n, err);
		return 1;
	}
	ibv_free_device_list(list);
	return 0;
}
