/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Verbs that this library does not have, answering EOPNOTSUPP: programs then fall back, where EINVAL would make them fail.
 *
 * Room: host. May use: libc.
 */
#include "host/host.h"

struct ibv_dm *flexins_import_dm(struct ibv_context *c, uint32_t handle)
{
	(void)c;
	(void)handle;
	return fx_null(EOPNOTSUPP);
}

/* Device memory is never there to be forgotten. */
void flexins_unimport_dm(struct ibv_dm *dm)
{
	(void)dm;
}
