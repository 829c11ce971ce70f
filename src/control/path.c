/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From an address handle to the addresses of a packet: on a loopback port the only peer is the port itself, and whoever
 * has joined a multicast group is there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "control/inside.h"

enum { SPORT_BASE = 0xc000, SPORT_MASK = 0x3fff, DEFAULT_TTL = 64 };

/* Spreads neighbouring QP numbers over source ports: entropy for switches, as RoCEv2 has it. */
static uint16_t source_port(uint32_t qpn)
{
	uint32_t h = qpn * 0x9e3779b1u;

	return (uint16_t)(SPORT_BASE + (h >> 16 & SPORT_MASK));
}

static bool is_ip4(const uint8_t gid[16])
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return memcmp(gid, prefix, sizeof(prefix)) == 0;
}

bool fx_gid_is_multicast(const uint8_t gid[16])
{
	return is_ip4(gid) ? gid[12] >> 4 == 0xe : gid[0] == 0xff;
}

/* Of a multicast group (RFC 1112, RFC 2464). */
static void group_mac(uint8_t mac[6], const uint8_t gid[16])
{
	const uint8_t ip4[6] = {0x01, 0x00, 0x5e, gid[13] & 0x7f, gid[14], gid[15]};
	const uint8_t ip6[6] = {0x33, 0x33, gid[12], gid[13], gid[14], gid[15]};

	memcpy(mac, is_ip4(gid) ? ip4 : ip6, 6);
}

int fx_path_build(struct fx_client *c, const struct fx_ah_attr *ah, uint32_t qpn, struct fx_path *path)
{
	const struct fx_port_info *port = c->ctl->cfg.port;
	const uint8_t *dgid = ah->is_global ? ah->dgid : port->gid;
	bool group = fx_gid_is_multicast(dgid);
	char text[INET6_ADDRSTRLEN], own[INET6_ADDRSTRLEN];

	inet_ntop(AF_INET6, dgid, text, sizeof(text));
	inet_ntop(AF_INET6, port->gid, own, sizeof(own));
	if (ah->port_num != 1)
		return fx_refuse(c, -EINVAL, "port %u of an address: the device has port 1 only",
				 ah->port_num);
	if (!ah->is_global && !port->loopback)
		return fx_refuse(c, -EINVAL,
				 "an address without a GID: RoCE needs one (is_global), choose a GID index");
	if (ah->is_global && ah->sgid_index != 0)
		return fx_refuse(c, -EINVAL, "GID index %u: port 1 has GID index 0 (%s) only", ah->sgid_index,
				 own);
	if (port->loopback && !group && memcmp(dgid, port->gid, 16) != 0)
		return fx_refuse(c, -EHOSTUNREACH,
				 "GID %s cannot be reached: port 1 is a loopback port, its own GID is %s",
				 text, own);
	*path = (struct fx_path){.mtu_max = port->mtu};
	path->l3 = (struct fx_l3){
		.vlan = 0xffff,
		.ip_version = is_ip4(dgid) ? 4 : 6,
		.tos = ah->is_global ? ah->traffic_class : 0,
		.ttl = ah->is_global && ah->hop_limit ? ah->hop_limit : DEFAULT_TTL,
		.df = true,
		.flow_label = ah->flow_label & 0xfffff,
		.sport = source_port(qpn),
	};
	memcpy(path->l3.smac, port->mac, 6);
	if (group)
		group_mac(path->l3.dmac, dgid);
	else
		memcpy(path->l3.dmac, port->mac, 6);
	memcpy(path->l3.src, port->gid, 16);
	memcpy(path->l3.dst, dgid, 16);
	return 0;
}

/* ---- QUERY_PORT ---- */

enum {
	IB_PORT_DOWN = 1,
	IB_PORT_ACTIVE = 4,
	IB_PHYS_POLLING = 2,
	IB_PHYS_LINK_UP = 5,
	IB_SPEED_EDR = 32, /* 25 Gb/s a lane; a loopback port has no rate of its own */
	IB_WIDTH_4X = 2,
	GID_TYPE_ROCE_V2 = 2,
};

/* enum ibv_mtu */
static uint32_t mtu_code(uint32_t bytes)
{
	uint32_t code = 1;

	while (code < 5 && 128u << (code + 1) <= bytes)
		code++;
	return code;
}

int fx_query_port(struct fx_client *c)
{
	const struct fx_port_info *port = c->ctl->cfg.port;
	struct fx_query_port_rep *rep = &c->rep.query_port_rep;

	if (c->req.handle.handle != 1)
		return fx_refuse(c, -EINVAL, "port %u: the device has port 1 only", c->req.handle.handle);
	rep->state = port->up ? IB_PORT_ACTIVE : IB_PORT_DOWN;
	rep->phys_state = port->up ? IB_PHYS_LINK_UP : IB_PHYS_POLLING;
	rep->max_mtu = mtu_code(4096);
	rep->active_mtu = mtu_code(port->mtu);
	rep->active_speed = IB_SPEED_EDR;
	rep->active_width = IB_WIDTH_4X;
	rep->max_msg_sz = UINT32_C(1) << 31;
	rep->gid_count = 1;
	rep->loopback = port->loopback;
	memcpy(rep->gid[0].gid, port->gid, 16);
	rep->gid[0].type = GID_TYPE_ROCE_V2;
	rep->gid[0].ifindex = port->ifindex;
	return 0;
}
