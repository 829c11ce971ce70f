/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the device, its port and its tables are.
 *
 * Room: host. May use: context.c.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "host/host.h"

enum {
	FX_PKEY = 0xffff, /* the default partition, full member: RoCE has no other */
	FX_MAX_GIDS = sizeof(((struct fx_query_port_rep *)0)->gid) /
		      sizeof(((struct fx_query_port_rep *)0)->gid[0]),
};

static int as_int(uint64_t n)
{
	return n > INT_MAX ? INT_MAX : (int)n;
}

static void fill_device(const struct fx_context *ctx, struct ibv_device_attr *a)
{
	const struct fx_device_limits *l = &ctx->limits;

	memset(a, 0, sizeof(*a));
	snprintf(a->fw_ver, sizeof(a->fw_ver), "%s", ctx->version);
	a->node_guid = a->sys_image_guid = l->guid;
	a->max_mr_size = l->max_mr_size;
	a->page_size_cap = 0xfffff000u;
	a->vendor_id = l->vendor_id;
	a->vendor_part_id = l->vendor_part_id;
	a->hw_ver = l->hw_ver;
	a->max_qp = as_int(l->max_qp);
	a->max_qp_wr = as_int(l->max_qp_wr);
	a->device_cap_flags = IBV_DEVICE_XRC | IBV_DEVICE_SYS_IMAGE_GUID | IBV_DEVICE_RC_RNR_NAK_GEN;
	if (l->max_mw)
		a->device_cap_flags |= IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2B;
	a->max_sge = a->max_sge_rd = as_int(l->max_sge);
	a->max_cq = as_int(l->max_cq);
	a->max_cqe = as_int(l->max_cqe);
	a->max_mr = as_int(l->max_mr);
	a->max_pd = as_int(l->max_pd);
	a->max_qp_rd_atom = as_int(l->max_rd_atomic);
	a->max_res_rd_atom = as_int((uint64_t)l->max_rd_atomic * l->max_qp);
	a->max_qp_init_rd_atom = as_int(l->max_init_rd_atomic);
	a->atomic_cap = IBV_ATOMIC_HCA; /* not GLOB: the CPUs see no atomic in what a slow window reaches */
	a->max_mw = as_int(l->max_mw);
	a->max_ah = as_int(l->max_ah);
	a->max_mcast_grp = as_int(l->max_mcast_grp);
	a->max_mcast_qp_attach = as_int(l->max_mcast_qp);
	a->max_total_mcast_qp_attach = as_int(l->max_mcast);
	a->max_srq = as_int(l->max_srq);
	a->max_srq_wr = as_int(l->max_srq_wr);
	a->max_srq_sge = l->max_srq ? as_int(l->max_sge) : 0;
	a->max_pkeys = 1;
	a->phys_port_cnt = 1;
}

int flexins_query_device(struct ibv_context *c, struct ibv_device_attr *attr)
{
	fill_device(fx_context_of(c), attr);
	return 0;
}

int flexins_query_device_ex(struct ibv_context *c, const struct ibv_query_device_ex_input *input,
			    struct ibv_device_attr_ex *attr, size_t size)
{
	if ((input && input->comp_mask) || size < sizeof(attr->orig_attr))
		return fx_fail(EINVAL);
	memset(attr, 0, size);
	fill_device(fx_context_of(c), &attr->orig_attr);
	if (vext_field_avail(struct ibv_device_attr_ex, device_cap_flags_ex, size))
		attr->device_cap_flags_ex = attr->orig_attr.device_cap_flags;
	if (vext_field_avail(struct ibv_device_attr_ex, phys_port_cnt_ex, size))
		attr->phys_port_cnt_ex = 1;
	if (vext_field_avail(struct ibv_device_attr_ex, completion_timestamp_mask, size))
		attr->completion_timestamp_mask = FX_STAMP_MASK;
	if (vext_field_avail(struct ibv_device_attr_ex, hca_core_clock, size))
		attr->hca_core_clock = FX_CLOCK_KHZ;
	return 0;
}

/* ---- port ---- */

int fx_port_refresh(struct fx_context *ctx)
{
	struct fx_handle_req req = {.head = {.op = FX_MSG_QUERY_PORT}, .handle = FX_PORT};
	struct fx_query_port_rep rep;
	int err = fx_ask(ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);

	if (err)
		return err;
	if (rep.gid_count > FX_MAX_GIDS)
		rep.gid_count = FX_MAX_GIDS;
	pthread_mutex_lock(&ctx->lock);
	ctx->port = rep;
	pthread_mutex_unlock(&ctx->lock);
	return 0;
}

/* Fresh from the core; of a core that is gone, as last known, and down. */
static void port_now(struct fx_context *ctx, struct fx_query_port_rep *p)
{
	int err = fx_port_refresh(ctx);

	pthread_mutex_lock(&ctx->lock);
	if (err)
		ctx->port.state = IBV_PORT_DOWN;
	*p = ctx->port;
	pthread_mutex_unlock(&ctx->lock);
}

int flexins_query_port(struct ibv_context *c, uint8_t port, struct ibv_port_attr *attr, size_t size)
{
	struct fx_query_port_rep p;
	struct ibv_port_attr a = {0};

	if (port != FX_PORT)
		return fx_fail(EINVAL);
	port_now(fx_context_of(c), &p);
	a.state = p.state;
	a.phys_state = (uint8_t)p.phys_state;
	a.max_mtu = p.max_mtu;
	a.active_mtu = p.active_mtu;
	a.gid_tbl_len = (int)p.gid_count;
	a.port_cap_flags = IBV_PORT_CM_SUP | IBV_PORT_IP_BASED_GIDS;
	a.max_msg_sz = p.max_msg_sz;
	a.pkey_tbl_len = 1;
	a.max_vl_num = 1;
	a.active_width = (uint8_t)p.active_width;
	a.active_speed = (uint8_t)p.active_speed;
	a.link_layer = IBV_LINK_LAYER_ETHERNET;
	memset(attr, 0, size);
	memcpy(attr, &a, size < sizeof(a) ? size : sizeof(a));
	return 0;
}

/* ---- GIDs ---- */

/* 0, EINVAL: no such index, ENODATA: an empty one; from what was last heard, since programs walk the whole table */
static int find_gid(struct ibv_context *c, uint32_t port, uint32_t index, struct ibv_gid_entry *e)
{
	struct fx_context *ctx = fx_context_of(c);
	int err = 0;

	memset(e, 0, sizeof(*e));
	if (port != FX_PORT)
		return EINVAL;
	if (index == 0 && fx_alive(ctx))
		fx_port_refresh(ctx);
	pthread_mutex_lock(&ctx->lock);
	if (index >= ctx->port.gid_count) {
		err = EINVAL;
	} else if (!ctx->port.gid[index].type) {
		err = ENODATA;
	} else {
		memcpy(e->gid.raw, ctx->port.gid[index].gid, 16);
		e->gid_index = index;
		e->port_num = port;
		e->gid_type = ctx->port.gid[index].type;
		e->ndev_ifindex = ctx->port.gid[index].ifindex;
	}
	pthread_mutex_unlock(&ctx->lock);
	return err;
}

int flexins_query_gid(struct ibv_context *c, uint8_t port, int index, union ibv_gid *gid)
{
	struct ibv_gid_entry e;
	int err = index < 0 ? EINVAL : find_gid(c, port, (uint32_t)index, &e);

	if (err && err != ENODATA) {
		fx_fail(err);
		return -1;
	}
	*gid = e.gid; /* an empty entry is all zero */
	return 0;
}

int flexins_query_gid_ex(struct ibv_context *c, uint32_t port, uint32_t index, struct ibv_gid_entry *entry,
			 uint32_t flags, size_t size)
{
	struct ibv_gid_entry e;
	int err;

	if (flags)
		return fx_fail(EOPNOTSUPP);
	err = find_gid(c, port, index, &e);
	if (err)
		return fx_fail(err);
	memset(entry, 0, size);
	memcpy(entry, &e, size < sizeof(e) ? size : sizeof(e));
	return 0;
}

ssize_t flexins_query_gid_table(struct ibv_context *c, struct ibv_gid_entry *entries, size_t max,
				uint32_t flags, size_t size)
{
	struct ibv_gid_entry e;
	ssize_t n = 0;
	int err;

	if (flags)
		return -EOPNOTSUPP;
	for (uint32_t i = 0; (err = find_gid(c, FX_PORT, i, &e)) != EINVAL; i++) {
		if (err)
			continue;
		if ((size_t)n == max)
			return -EINVAL;
		memset((char *)entries + (size_t)n * size, 0, size);
		memcpy((char *)entries + (size_t)n++ * size, &e, size < sizeof(e) ? size : sizeof(e));
	}
	return n;
}

int flexins_query_gid_type(struct ibv_context *c, uint8_t port, unsigned int index, int *type)
{
	struct ibv_gid_entry e;
	int err = find_gid(c, port, index, &e);

	if (err && err != ENODATA) {
		fx_fail(err);
		return -1;
	}
	*type = e.gid_type == IBV_GID_TYPE_ROCE_V2; /* sysfs knows two: IB or RoCE v1, and RoCE v2 */
	return 0;
}

/* ---- P_Keys ---- */

int flexins_query_pkey(struct ibv_context *c, uint8_t port, int index, __be16 *pkey)
{
	(void)c;
	if (port != FX_PORT || index != 0) {
		fx_fail(EINVAL);
		return -1;
	}
	*pkey = FX_PKEY; /* the same in either byte order */
	return 0;
}

int flexins_get_pkey_index(struct ibv_context *c, uint8_t port, __be16 pkey)
{
	(void)c;
	if (port != FX_PORT || pkey != FX_PKEY) {
		fx_fail(EINVAL);
		return -1;
	}
	return 0;
}
