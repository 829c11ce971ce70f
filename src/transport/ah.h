/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Address handles as the transport sees them: a datagram's front, ready to be copied.
 *
 * Room: transport. May use: wire, C11 atomics. The control thread makes them and publishes them in a table that is read
 * without locks, as memory regions are. The worker looks one up for each packet and keeps nothing of it, so a handle
 * may be freed as soon as the worker has answered a command that was sent after it was unpublished.
 */
#ifndef FX_TRANSPORT_AH_H
#define FX_TRANSPORT_AH_H

#include <stdatomic.h>

#include "wire/roce.h"

enum { FX_AH_INDEX_BITS = 20 }; /* of a handle; above them the generation of its index */

struct fx_ah {
	uint32_t handle;
	uint32_t pd;
	struct fx_tmpl tmpl;
};

struct fx_ah_table {
	_Atomic(struct fx_ah *) *slot;
	uint32_t n;
};

/* NULL: there is no such handle, or not any more. */
static inline const struct fx_ah *fx_ah_get(const struct fx_ah_table *t, uint32_t handle)
{
	uint32_t i = handle & ((1u << FX_AH_INDEX_BITS) - 1);
	const struct fx_ah *ah;

	if (i >= t->n)
		return NULL;
	/* acquire: pairs with the publisher's release, so that the address is seen whole */
	ah = atomic_load_explicit(&t->slot[i], memory_order_acquire);
	return ah && ah->handle == handle ? ah : NULL;
}

#endif
