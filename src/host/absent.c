/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Verbs that this library does not have, each answering EOPNOTSUPP in its own way: programs then fall back, where
 * EINVAL would make them fail.
 *
 * Room: host. May use: libc.
 */
#include "host/host.h"

#define ABSENT_POINTERS(X)                                                                                   \
	X(struct ibv_mr *, reg_dmabuf_mr,                                                                    \
	  (struct ibv_pd * pd, uint64_t offset, size_t length, uint64_t iova, int fd, int access),           \
	  (pd, offset, length, iova, fd, access))                                                            \
	X(struct ibv_dm *, import_dm, (struct ibv_context * c, uint32_t handle), (c, handle))

#define ABSENT_INTS(X)                                                                                       \
	X(query_ece, (struct ibv_qp * qp, struct ibv_ece * ece), (qp, ece))                                  \
	X(set_ece, (struct ibv_qp * qp, struct ibv_ece * ece), (qp, ece))

/* Uses every argument and none of them. */
static inline void unused(int first, ...)
{
	(void)first;
}
#define LIST(...) __VA_ARGS__

#define X(ret, name, params, args)                                                                           \
	ret flexins_##name params                                                                            \
	{                                                                                                    \
		unused(0, LIST args);                                                                        \
		return fx_null(EOPNOTSUPP);                                                                  \
	}
ABSENT_POINTERS(X)
#undef X

#define X(name, params, args)                                                                                \
	int flexins_##name params                                                                            \
	{                                                                                                    \
		unused(0, LIST args);                                                                        \
		return fx_fail(EOPNOTSUPP);                                                                  \
	}
ABSENT_INTS(X)
#undef X

int flexins_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	unused(0, mr, flags, pd, addr, length, access);
	fx_fail(EOPNOTSUPP);
	return IBV_REREG_MR_ERR_INPUT; /* the region is as it was */
}

/* Device memory is never there to be forgotten. */
void flexins_unimport_dm(struct ibv_dm *dm)
{
	(void)dm;
}
