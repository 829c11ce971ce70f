/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory regions as the transport sees them: keys, rights, bounds, and where the bytes are.
 *
 * Room: transport. May use: C11 atomics. The memory room fills these in; the transport only reads.
 * The table is read without locks (contract 14): a slot is published with release and unpublished by the
 * control thread, which frees the region only after every worker has passed a grace period.
 */
#ifndef FX_TRANSPORT_MR_H
#define FX_TRANSPORT_MR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FX_KEY_RAND_BITS = 14, FX_KEY_INDEX_BITS = 18 };

/* As enum ibv_access_flags. */
enum fx_access {
	FX_ACC_LOCAL_WRITE = 1 << 0,
	FX_ACC_REMOTE_WRITE = 1 << 1,
	FX_ACC_REMOTE_READ = 1 << 2,
	FX_ACC_REMOTE_ATOMIC = 1 << 3,
	FX_ACC_MW_BIND = 1 << 4,
	FX_ACC_RELAXED_ORDERING = 1 << 20,
};

/* A run of the region: `base` is its address in this process, NULL where only the slow path reaches it. */
struct fx_mr_run {
	uint64_t off; /* from the region's start; runs are sorted and cover it */
	uint64_t len;
	uint8_t *base;
};

struct fx_mr {
	uint64_t iova;
	uint64_t length;
	uint8_t *base; /* whole region mapped flat: address of iova; else NULL and runs tell */
	uint32_t key;  /* lkey and rkey */
	uint32_t pd;
	uint32_t access; /* enum fx_access */
	uint32_t nrun;
	const struct fx_mr_run *run;
	void *slow; /* the memory room's, for slow accesses */
	uint32_t ctx;
};

struct fx_mr_table {
	_Atomic(struct fx_mr *) *slot;
	uint32_t n;
};

static inline struct fx_mr *fx_mr_get(const struct fx_mr_table *t, uint32_t key)
{
	uint32_t i = key >> FX_KEY_RAND_BITS;
	struct fx_mr *mr;

	if (i >= t->n)
		return NULL;
	/* acquire: pairs with the publisher's release, so that the region's fields are seen */
	mr = atomic_load_explicit(&t->slot[i], memory_order_acquire);
	return mr && mr->key == key ? mr : NULL;
}

/* Bounds without overflow: [va, va + len) inside the region. */
static inline bool fx_mr_covers(const struct fx_mr *mr, uint64_t va, uint64_t len)
{
	return va >= mr->iova && len <= mr->length && va - mr->iova <= mr->length - len;
}

/*
 * Where byte `va` is: returns its address (NULL: slow) and cuts *len to what is contiguous there.
 * The caller has checked the bounds and *len > 0.
 */
static inline uint8_t *fx_mr_at(const struct fx_mr *mr, uint64_t va, uint32_t *len)
{
	uint64_t off = va - mr->iova;

	if (mr->base)
		return mr->base + off;
	for (uint32_t i = 0; i < mr->nrun; i++) {
		const struct fx_mr_run *r = &mr->run[i];

		if (off - r->off >= r->len)
			continue;
		if (*len > r->len - (off - r->off))
			*len = (uint32_t)(r->len - (off - r->off));
		return r->base ? r->base + (off - r->off) : NULL;
	}
	*len = 0;
	return NULL;
}

#endif
