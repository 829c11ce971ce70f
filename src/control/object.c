/* SPDX-License-Identifier: BSD-3-Clause */
/* A context's objects: lists, handles, and the check that a handle is the client's own. */
#include <errno.h>

#include "control/inside.h"

const char *const fx_obj_names[FX_OBJ_KINDS] = {
	"PD", "completion channel", "CQ", "QP", "MR", "memory window", "address handle", "SRQ", "XRC domain"};

static const uint8_t quotas[FX_OBJ_KINDS] = {
	[FX_OBJ_PD] = FX_QUOTA_pds, [FX_OBJ_CHANNEL] = FX_QUOTA_channels, [FX_OBJ_CQ] = FX_QUOTA_cqs,
	[FX_OBJ_QP] = FX_QUOTA_qps, [FX_OBJ_MR] = FX_QUOTA_mrs,		  [FX_OBJ_MW] = FX_QUOTA_mws,
	[FX_OBJ_AH] = FX_QUOTA_ahs, [FX_OBJ_SRQ] = FX_QUOTA_srqs,	  [FX_OBJ_XRCD] = FX_QUOTA_xrcds,
};

static int table_full(struct fx_client *c, enum fx_obj_kind kind)
{
	const struct fx_table *t = &c->ctl->objs[kind];

	if (t->used < t->size)
		return fx_refuse(
			c, -EAGAIN,
			"this core has no %s number that has rested for %u ms since its last use: try again",
			fx_obj_names[kind], t->rest_ms);
	return fx_refuse(c, -ENOMEM, "this core has no %s left (it holds %u)", fx_obj_names[kind], t->size);
}

int fx_obj_add(struct fx_ctx *ctx, struct fx_obj *obj, enum fx_obj_kind kind)
{
	int err = fx_quota_take(ctx->client, quotas[kind], 1);

	if (err)
		return err;
	obj->handle = fx_table_add(&ctx->ctl->objs[kind], obj, fx_now_ms());
	if (!obj->handle) {
		fx_quota_give(ctx->user, quotas[kind], 1);
		return table_full(ctx->client, kind);
	}
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
	fx_table_del(&obj->ctx->ctl->objs[obj->kind], obj->handle, fx_now_ms());
	fx_quota_give(obj->ctx->user, quotas[obj->kind], 1);
}

void fx_obj_move(struct fx_obj *obj, struct fx_ctx *ctx)
{
	*obj->prev = obj->next;
	if (obj->next)
		obj->next->prev = obj->prev;
	obj->ctx->nobjs[obj->kind]--;
	fx_quota_give(obj->ctx->user, quotas[obj->kind], 1);
	obj->ctx = ctx;
	obj->next = ctx->objs[obj->kind];
	obj->prev = &ctx->objs[obj->kind];
	if (obj->next)
		obj->next->prev = &obj->next;
	ctx->objs[obj->kind] = obj;
	ctx->nobjs[obj->kind]++;
	ctx->user->used[quotas[obj->kind]]++;
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
