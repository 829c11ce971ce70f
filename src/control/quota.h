/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Quotas: what one user may hold in a core at a time, so that no user can take all of it from the others.
 *
 * Room: control, and whoever reads the configuration for it. May use: libc. Plain structures: the list below is what
 * is parsed, enforced, shown and documented.
 */
#ifndef FX_CONTROL_QUOTA_H
#define FX_CONTROL_QUOTA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/limits.h"

#define FX_UNLIMITED UINT64_MAX

/*
 * Key, what it counts in a word and in more words, and the limit of a user whom no configuration names: half of what
 * the core holds, so that there is something left for another one. A core keeps a send work request in 64 to 1024
 * bytes of its own memory; registered bytes are the applications' memory.
 */
#define FX_QUOTA_LIST(X)                                                                                     \
	X(contexts, "contexts", "open devices, each with a send pipe", FX_LIMIT_CLIENTS / 2)                 \
	X(pds, "PDs", "protection domains", FX_LIMIT_PD / 2)                                                 \
	X(channels, "channels", "completion channels", FX_LIMIT_CHANNEL / 2)                                 \
	X(cqs, "CQs", "completion queues", FX_LIMIT_CQ / 2)                                                  \
	X(qps, "QPs", "queue pairs", FX_LIMIT_QP / 2)                                                        \
	X(send_wrs, "send work requests", "the sum of max_send_wr of all QPs", UINT64_C(4) << 20)            \
	X(mrs, "MRs", "memory regions", FX_LIMIT_MR / 2)                                                     \
	X(mr_bytes, "registered bytes", "the sum of the lengths of all MRs", FX_UNLIMITED)                   \
	X(mws, "MWs", "memory windows", FX_LIMIT_MW / 2)                                                     \
	X(ahs, "AHs", "address handles", FX_LIMIT_AH / 2)                                                    \
	X(srqs, "SRQs", "shared receive queues", FX_LIMIT_SRQ / 2)                                           \
	X(mcasts, "multicast memberships", "the QPs in multicast groups, each once for each group",          \
	  FX_LIMIT_MCAST / 2)                                                                                \
	X(xrcds, "XRCDs", "open XRC domains", FX_LIMIT_XRCD / 2)

enum fx_quota_kind {
	FX_QUOTA_NONE, /* what is not counted */
#define X(key, name, text, normal) FX_QUOTA_##key,
	FX_QUOTA_LIST(X)
#undef X
		FX_QUOTA_KINDS
};

extern const struct fx_quota_info {
	const char *key, *name, *text;
	uint64_t normal;
} fx_quota_info[FX_QUOTA_KINDS]; /* from FX_QUOTA_NONE + 1 */

struct fx_quota {
	uint64_t limit[FX_QUOTA_KINDS];
};

/*
 * `others` holds for every user without a quota of their own, but for root and the core's own user: they are limited
 * by name only, since whoever can end the core need not be kept from filling it.
 */
struct fx_quota_cfg {
	struct fx_quota others;
	struct fx_quota_user {
		uid_t uid;
		struct fx_quota quota;
	} * users;
	uint32_t nusers;
};

void fx_quota_normal(struct fx_quota *q);

#endif
