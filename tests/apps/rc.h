/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What our own verbs programs share: a check, and the way of an RC queue pair to a peer on this device.
 *
 * Room: tests. May use: verbs only.
 */
#ifndef APPS_RC_H
#define APPS_RC_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define NEED(ok) need(ok, #ok, __LINE__)

static inline void need(bool ok, const char *what, int line)
{
	if (ok)
		return;
	printf("line %d: %s: failed\n", line, what);
	exit(1);
}

/* From RESET to RTS, with these rights for the peer. */
static inline void rc_connect(struct ibv_qp *qp, uint32_t peer, unsigned access)
{
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_INIT,
				.port_num = 1,
				.qp_access_flags = access,
				.path_mtu = IBV_MTU_1024,
				.dest_qp_num = peer,
				.max_dest_rd_atomic = 8,
				.max_rd_atomic = 8,
				.min_rnr_timer = 12,
				.timeout = 14,
				.retry_cnt = 7,
				.rnr_retry = 7,
				.ah_attr = {.is_global = 1, .port_num = 1, .grh.hop_limit = 1}};

	NEED(!ibv_query_gid(qp->context, 1, 0, &a.ah_attr.grh.dgid));
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

#endif
