/* SPDX-License-Identifier: BSD-3-Clause */
/* A context's objects: lists, handles, and the check that a handle is the client's own. */
#include <errno.h>

#include "control/inside.h"

const char *const fx_obj_names[FX_OBJ_KINDS] = {"PD", "completion channel", "CQ", "QP", "MR", "memory window"};

int fx_obj_add(struct fx_ctx *ctx, struct fx_obj *obj, enum fx_obj_kind kind)
{
	obj->handle = fx_table_add(&ctx->ctl->objs[kind], obj);
	if (!obj->handle)
		return -ENOSPC;
	obj->ctx = ctx;
	obj->kind = (uint8_t)kind;
	obj->next = ctx->objs[kind];
	obj->prev = &ctx->objs[kind];
	if (obj->next)
		obj->next->prev = &obj->next;
	ctx->objs[kind] = obj;
	ctx->nobjs[kind]++;
	return 0;
}

void fx_obj_del(struct fx_obj *obj)
{
	*obj->prev = obj->next;
	if (obj->next)
		obj->next->prev = obj->prev;
	obj->ctx->nobjs[obj->kind]--;
	fx_table_del(&obj->ctx->ctl->objs[obj->kind], obj->handle);
}

void *fx_obj_get(struct fx_client *c, enum fx_obj_kind kind, uint32_t handle)
{
	struct fx_obj *obj = fx_table_get(&c->ctl->objs[kind], handle);

	if (obj && obj->ctx == c->ctx && !obj->going)
		return obj;
	/* another's object is as unknown as none: nothing is told about other contexts */
	fx_refuse(c, -EINVAL, "%s handle %#x is not one of this context", fx_obj_names[kind], handle);
	return NULL;
}
