/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What datagrams are addressed with: address handles, made by the core, which resolves the address; the addresses of
 * those whose datagrams came; and multicast groups.
 *
 * Room: host. May use: context.c, qp.c, query.c.
 */
#include <stdlib.h>
#include <string.h>

#include "host/host.h"

enum { UNTAGGED = 0xffff, HOP_LIMIT = 0xff, IP6_VERSION = 6 };

/* CREATE_AH, RESOLVE_AH: 0 or a negative errno, with a text for what this side refuses. */
static int ask(struct fx_context *ctx, uint16_t op, uint32_t pd, const struct ibv_ah_attr *attr,
	       struct fx_ah_rep *rep)
{
	struct fx_ah_req req = {.head = {.op = op}, .pd = pd};

	if (!fx_av_ok(ctx, attr))
		return -EINVAL;
	fx_pack_ah(&req.attr, attr);
	return fx_ask(ctx, &req, sizeof(req), rep, sizeof(*rep), NULL);
}

struct ibv_ah *flexins_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	struct ibv_ah *ah = calloc(1, sizeof(*ah));
	struct fx_ah_rep rep;
	int err;

	if (!ah)
		return fx_null(ENOMEM);
	err = ask(fx_context_of(pd->context), FX_MSG_CREATE_AH, pd->handle, attr, &rep);
	if (err) {
		free(ah);
		return fx_null(err);
	}
	*ah = (struct ibv_ah){.context = pd->context, .pd = pd, .handle = rep.ah};
	__atomic_fetch_add(&fx_pd_of(pd)->users, 1, __ATOMIC_RELAXED);
	return ah;
}

int flexins_destroy_ah(struct ibv_ah *ah)
{
	struct fx_qp_req req = {.head = {.op = FX_MSG_DESTROY_AH}, .qp = ah->handle};
	struct fx_context *ctx = fx_context_of(ah->context);
	struct fx_msg_head rep;
	int err;

	fx_pipes_settle(ctx);
	req.pipe_pi = fx_pipe_pi(ctx);
	err = fx_ask(ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
	if (err && fx_alive(ctx))
		return fx_fail(err);
	/* release: what the handle was used for comes before its domain may go */
	__atomic_fetch_sub(&fx_pd_of(ah->pd)->users, 1, __ATOMIC_RELEASE);
	free(ah);
	return 0;
}

int flexins_resolve_eth_l2_from_gid(struct ibv_context *c, struct ibv_ah_attr *attr, uint8_t mac[6],
				    uint16_t *vid)
{
	struct fx_ah_rep rep;
	int err = ask(fx_context_of(c), FX_MSG_RESOLVE_AH, 0, attr, &rep);

	if (err)
		return fx_fail(err);
	memcpy(mac, rep.dmac, sizeof(rep.dmac));
	if (vid)
		*vid = UNTAGGED;
	return 0;
}

/* ---- answering a datagram ---- */

static void put_ip4(union ibv_gid *gid, const uint8_t *ip4)
{
	memset(gid, 0, sizeof(*gid));
	gid->raw[10] = gid->raw[11] = 0xff;
	memcpy(gid->raw + 12, ip4, 4);
}

/* Which of our GIDs it was sent to; a multicast group is none, and is answered from the first. */
static uint8_t find_index(struct ibv_context *c, uint8_t port, const union ibv_gid *gid)
{
	struct ibv_gid_entry e;

	for (uint32_t i = 0; flexins_query_gid_ex(c, port, i, &e, 0, sizeof(e)) == 0; i++)
		if (!memcmp(&e.gid, gid, sizeof(*gid)))
			return (uint8_t)i;
	return 0;
}

/* The GRH of a datagram that came by IPv4 is that header, in the last 20 of its bytes (IBTA A17.4.5.1). */
static void address_back(struct ibv_global_route *to, union ibv_gid *own, const struct ibv_grh *grh)
{
	const uint8_t *p = (const uint8_t *)grh, *ip4 = p + 20;

	if (p[0] >> 4 == IP6_VERSION) {
		uint32_t word = be32toh(grh->version_tclass_flow);

		to->dgid = grh->sgid;
		to->flow_label = word & 0xfffff;
		to->traffic_class = (uint8_t)(word >> 20);
		*own = grh->dgid;
	} else {
		put_ip4(&to->dgid, ip4 + 12);
		to->traffic_class = ip4[1];
		put_ip4(own, ip4 + 16);
	}
	to->hop_limit = HOP_LIMIT;
}

int flexins_init_ah_from_wc(struct ibv_context *c, uint8_t port, struct ibv_wc *wc, struct ibv_grh *grh,
			    struct ibv_ah_attr *attr)
{
	union ibv_gid own;

	if (port != FX_PORT)
		return fx_fail(EINVAL);
	*attr = (struct ibv_ah_attr){
		.dlid = wc->slid, .sl = wc->sl, .src_path_bits = wc->dlid_path_bits, .port_num = port};
	if (!(wc->wc_flags & IBV_WC_GRH))
		return 0;
	attr->is_global = 1;
	address_back(&attr->grh, &own, grh);
	attr->grh.sgid_index = find_index(c, port, &own);
	return 0;
}

struct ibv_ah *flexins_create_ah_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh,
					 uint8_t port)
{
	struct ibv_ah_attr attr;
	int err = flexins_init_ah_from_wc(pd->context, port, wc, grh, &attr);

	return err ? NULL : flexins_create_ah(pd, &attr);
}

/* ---- multicast groups; a LID has no meaning in RoCE ---- */

static int ask_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t op)
{
	struct fx_mcast_req req = {.head = {.op = op}, .qp = qp->handle};
	struct fx_msg_head rep;
	int err;

	memcpy(req.gid, gid->raw, sizeof(req.gid));
	err = fx_ask(fx_context_of(qp->context), &req, sizeof(req), &rep, sizeof(rep), NULL);
	return err ? fx_fail(err) : 0;
}

int flexins_attach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	(void)lid;
	return ask_mcast(qp, gid, FX_MSG_ATTACH_MCAST);
}

int flexins_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	(void)lid;
	return ask_mcast(qp, gid, FX_MSG_DETACH_MCAST);
}
