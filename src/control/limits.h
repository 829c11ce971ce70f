/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What one core holds at most; also what query_device answers. One table, here.
 *
 * Room: control. May use: C only.
 */
#ifndef FX_CONTROL_LIMITS_H
#define FX_CONTROL_LIMITS_H

#include <stdint.h>

enum {
	FX_LIMIT_CLIENTS = 1024,
	FX_LIMIT_STRANGERS = 64, /* connections that have not shown their token yet */
	FX_LIMIT_QP = 65536,
	FX_LIMIT_QP_WR = 65536,
	FX_LIMIT_SRQ = 16384,
	FX_LIMIT_PIPE = 64, /* send pipes of a context, beside the first */
	FX_LIMIT_XRCD = 2048,
	FX_LIMIT_CQ = 16384,
	FX_LIMIT_CHANNEL = 4096, /* a descriptor of the core's each */
	FX_LIMIT_CQE_SHIFT = 22,
	FX_LIMIT_MR = 131072,
	FX_LIMIT_MW = 65536,
	FX_LIMIT_PD = 16384,
	FX_LIMIT_AH = 65536,
	FX_LIMIT_MCAST_GRP = 1024,
	FX_LIMIT_MCAST_QP = 64, /* of a group: each gets a copy of what is sent there */
	FX_LIMIT_MCAST = 16384,
	FX_LIMIT_RD_ATOMIC = 16,
	FX_LIMIT_RQ_SHIFT = 20,
	FX_QPN_REST_MS =
		1000,	     /* until a destroyed QP's number comes back: its last packets are gone by then */
	FX_PIPE_SHIFT = 11,  /* slots of a context's send pipe */
	FX_EVENT_SHIFT = 15, /* records of its event ring: half of it has room for one of every CQ */
};
#define FX_LIMIT_MR_SIZE (UINT64_C(1) << 46)
#define FX_ARENA_SIZE (UINT64_C(1) << 30) /* address space: the pages are taken on first use */

#endif
