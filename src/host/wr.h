/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * QPs with ibv_wr_*(): see wr.c.
 *
 * Room: host. May use: libc.
 */
#ifndef FX_HOST_WR_H
#define FX_HOST_WR_H

#include "host/host.h"

/* Can QPs of that type be created for these enum ibv_qp_create_send_ops_flags? */
bool fx_batch_ops_ok(enum ibv_qp_type type, uint64_t ops);
/* Of a QP that has its queues: gives it the functions, and room for a batch, free(qp->batch) later. 0 or -ENOMEM */
int fx_batch_make(struct fx_vqp *qp, uint64_t ops);

#endif
