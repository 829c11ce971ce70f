/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory regions and memory windows as the transport sees them: keys, rights, bounds, and where the bytes are.
 *
 * Room: transport. May use: C11 atomics. The memory room fills the regions in; the transport only reads them.
 * The table is read without locks: a slot is published with release and unpublished by the
 * control thread, which frees the region only after every worker has passed a grace period.
 */
#ifndef FX_TRANSPORT_MR_H
#define FX_TRANSPORT_MR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A key is an index and chance. The lowest bits of a window's are a tag, which whoever binds it chooses. */
enum { FX_KEY_RAND_BITS = 14, FX_KEY_INDEX_BITS = 18, FX_KEY_TAG_BITS = 8 };
#define FX_KEY_TAG ((UINT32_C(1) << FX_KEY_TAG_BITS) - 1)

/* As enum ibv_access_flags. */
enum fx_access {
	FX_ACC_LOCAL_WRITE = 1 << 0,
	FX_ACC_REMOTE_WRITE = 1 << 1,
	FX_ACC_REMOTE_READ = 1 << 2,
	FX_ACC_REMOTE_ATOMIC = 1 << 3,
	FX_ACC_MW_BIND = 1 << 4,
	FX_ACC_ZERO_BASED = 1 << 5,
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
	_Atomic uint32_t windows; /* bound to it: it stays registered as long */
};

enum fx_mw_type {
	FX_MW_TYPE_1 = 1,
	FX_MW_TYPE_2 = 2
}; /* as enum ibv_mw_type; 2 is 2B: bound to one QP too */

/*
 * A memory window: a part of a region, with a key and rights of its own. The control thread makes and frees it; from
 * publication to the grace period after its withdrawal everything but key's upper bits, pd and type belongs to the
 * worker, which binds it. It knows its region by key only and looks it up at every use, so that the region may go at
 * any time.
 */
struct fx_mw {
	uint32_t key;
	uint32_t pd;
	uint32_t type;	  /* enum fx_mw_type */
	uint32_t qpn_gen; /* type 2: the QP that it is bound to */
	uint32_t access;  /* enum fx_access */
	uint32_t lkey;	  /* of the region */
	uint64_t length;  /* 0: not bound */
	uint64_t first;	  /* address of its first byte, as peers say it, */
	uint64_t base;	  /* ... and as the region does */
	uint32_t held;	  /* copies and segments under way through it */
};

/* Indexes from n on are those of windows: so no key of a window is ever taken for one of a region. */
struct fx_mr_table {
	_Atomic(struct fx_mr *) *slot;
	uint32_t n;
	uint32_t nmw;
	_Atomic(struct fx_mw *) *mw;
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

/* The window of this key, whatever the tag. */
static inline struct fx_mw *fx_mw_get(const struct fx_mr_table *t, uint32_t key)
{
	uint32_t i = (key >> FX_KEY_RAND_BITS) - t->n;
	struct fx_mw *mw;

	if (i >= t->nmw)
		return NULL;
	/* acquire: pairs with the publisher's release, so that the window's fields are seen */
	mw = atomic_load_explicit(&t->mw[i], memory_order_acquire);
	return mw && !((mw->key ^ key) & ~FX_KEY_TAG) ? mw : NULL;
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
