/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables of objects known by handle: see table.h. */
#include <errno.h>
#include <stdlib.h>

#include "control/table.h"

int fx_table_init(struct fx_table *t, uint32_t size, uint32_t rest_ms)
{
	/* calloc: pages of indexes never used cost nothing */
	*t = (struct fx_table){.size = size, .fresh = 1, .rest_ms = rest_ms};
	t->slot = calloc((size_t)size + 1, sizeof(*t->slot));
	return t->slot ? 0 : -ENOMEM;
}

void fx_table_fini(struct fx_table *t)
{
	free(t->slot);
	*t = (struct fx_table){0};
}

uint32_t fx_table_add(struct fx_table *t, void *obj, uint64_t now_ms)
{
	struct fx_table_slot *s;
	uint32_t i;

	if (t->fresh <= t->size) {
		i = t->fresh++;
	} else {
		i = t->free_head;
		if (i == 0 || now_ms - t->slot[i].freed_ms < t->rest_ms)
			return 0; /* the head of the list has rested longest */
		t->free_head = t->slot[i].next_free;
	}
	s = &t->slot[i];
	s->gen = s->gen + 1 < FX_HANDLE_GENS ? s->gen + 1 : 1;
	s->obj = obj;
	t->used++;
	return s->gen << FX_HANDLE_INDEX_BITS | i;
}

static struct fx_table_slot *lookup(const struct fx_table *t, uint32_t handle)
{
	uint32_t i = fx_handle_index(handle);

	if (i == 0 || i > t->size || !t->slot[i].obj || t->slot[i].gen != handle >> FX_HANDLE_INDEX_BITS)
		return NULL;
	return &t->slot[i];
}

void *fx_table_get(const struct fx_table *t, uint32_t handle)
{
	struct fx_table_slot *s = lookup(t, handle);

	return s ? s->obj : NULL;
}

void fx_table_del(struct fx_table *t, uint32_t handle, uint64_t now_ms)
{
	struct fx_table_slot *s = lookup(t, handle);
	uint32_t i = fx_handle_index(handle);

	if (!s)
		return;
	s->obj = NULL;
	s->next_free = 0;
	s->freed_ms = now_ms;
	if (t->free_head)
		t->slot[t->free_tail].next_free = i;
	else
		t->free_head = i;
	t->free_tail = i;
	t->used--;
}

void *fx_table_next(const struct fx_table *t, uint32_t *index)
{
	for (; *index < t->fresh; (*index)++)
		if (t->slot[*index].obj)
			return t->slot[(*index)++].obj;
	return NULL;
}
