/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tables of objects known by handle: an index and a generation, never a pointer. A handle is good for one
 * life of its index; indexes are reused oldest first, and not before they have rested if the table says so, so a stale
 * handle or a late packet meets an old number as late as possible. Handle 0 is never given out.
 *
 * Room: control. May use: libc. Control thread only.
 */
#ifndef FX_CONTROL_TABLE_H
#define FX_CONTROL_TABLE_H

#include <stdint.h>

enum { FX_HANDLE_INDEX_BITS = 20, FX_HANDLE_GENS = 1 << (32 - FX_HANDLE_INDEX_BITS) };

struct fx_table {
	struct fx_table_slot {
		void *obj;
		uint32_t next_free;
		uint32_t gen;
		uint64_t freed_ms;
	} * slot;
	uint32_t size; /* indexes 1 .. size */
	uint32_t used;
	uint32_t fresh; /* first index that was never used */
	uint32_t free_head, free_tail;
	uint32_t rest_ms; /* between two lives of an index */
};

int fx_table_init(struct fx_table *t, uint32_t size, uint32_t rest_ms); /* -ENOMEM */
void fx_table_fini(struct fx_table *t);

/* Returns a handle, or 0: the table is full, or (used < size) whatever is free still rests. */
uint32_t fx_table_add(struct fx_table *t, void *obj, uint64_t now_ms);
/* NULL: no such handle in this life of its index. */
void *fx_table_get(const struct fx_table *t, uint32_t handle);
void fx_table_del(struct fx_table *t, uint32_t handle, uint64_t now_ms);
/* The first object at or after *index, which is moved behind it; NULL at the end. Start with 1. */
void *fx_table_next(const struct fx_table *t, uint32_t *index);

static inline uint32_t fx_handle_index(uint32_t handle)
{
	return handle & ((1u << FX_HANDLE_INDEX_BITS) - 1);
}

#endif
