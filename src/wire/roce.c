/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * RoCEv2 headers read and written. The frame is hostile: nothing is read before its length is checked, and
 * what is checked is copied into locals first, so that a frame which changes meanwhile changes nothing.
 *
 * Room: wire. May use: C11 only; no state, no allocation.
 */
#include "wire/roce.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "wire/bytes.h"
#include "wire/opcode.h"

enum {
	TYPE_IP4 = 0x0800,
	TYPE_IP6 = 0x86dd,
	TYPE_VLAN = 0x8100,
	UNTAGGED = 0xffff,
	PROTO_UDP = 17,
	PROTO_IP6_FRAGMENT = 44,
	IP4_START = 0x45, /* version 4, five words: RoCEv2 has no IPv4 options */
	IP4_DF = 0x4000,
	IP4_MF_OFFSET = 0x3fff,
	IP4_LEN_AT = 2,
	IP4_ID_AT = 4,
	IP4_CSUM_AT = 10,
	IP6_LEN_AT = 4,
	BTH_TVER = 0x0f,
};

const char *const fx_drop_names[FX_DROPS] = {
	[FX_DROP_NONE] = "none",	 [FX_DROP_SHORT] = "short",
	[FX_DROP_NOT_IP] = "not_ip",	 [FX_DROP_BAD_IP] = "bad_ip",
	[FX_DROP_FRAGMENT] = "fragment", [FX_DROP_NOT_UDP] = "not_udp",
	[FX_DROP_NOT_ROCE] = "not_roce", [FX_DROP_BAD_UDP_LEN] = "bad_udp_len",
	[FX_DROP_BAD_BTH] = "bad_bth",	 [FX_DROP_BAD_OPCODE] = "bad_opcode",
	[FX_DROP_BAD_PKEY] = "bad_pkey", [FX_DROP_BAD_ICRC] = "bad_icrc",
};

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

/* For the compiler only: what was copied out of the frame before it is not read from the frame again. */
static inline void read_done(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

/* The one's-complement sum of an IPv4 header, folded, in whatever byte order the words are in. */
static inline uint16_t ip4_sum(const uint32_t w[5])
{
	uint64_t sum = (uint64_t)w[0] + w[1] + w[2] + w[3] + w[4];

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

/* *len: what the IP header says follows it. */
static inline enum fx_drop ip4_parse(const uint8_t *p, uint32_t have, uint32_t total, struct fx_l3 *out,
				     uint32_t *len)
{
	uint32_t w[5], w0, w1, w2;

	if (have < FX_IP4_LEN)
		return FX_DROP_SHORT;
	memcpy(w, p, sizeof(w));
	read_done();
	w0 = FX_BE32(w[0]);
	w1 = FX_BE32(w[1]);
	w2 = FX_BE32(w[2]);
	*len = (w0 & 0xffff) - FX_IP4_LEN;
	if (w0 >> 24 != IP4_START || ip4_sum(w) != 0xffff || *len > total - FX_IP4_LEN)
		return FX_DROP_BAD_IP;
	if (w1 & IP4_MF_OFFSET)
		return FX_DROP_FRAGMENT;
	if ((w2 >> 16 & 0xff) != PROTO_UDP)
		return FX_DROP_NOT_UDP;
	if (out) {
		out->ip_version = 4;
		out->tos = (uint8_t)(w0 >> 16);
		out->ttl = (uint8_t)(w2 >> 24);
		out->df = w1 & IP4_DF;
		out->ip_id = (uint16_t)(w1 >> 16);
		out->flow_label = 0;
		memcpy(out->src, v4_mapped, 12);
		memcpy(out->src + 12, &w[3], 4);
		memcpy(out->dst, v4_mapped, 12);
		memcpy(out->dst + 12, &w[4], 4);
	}
	return FX_DROP_NONE;
}

static inline enum fx_drop ip6_parse(const uint8_t *p, uint32_t have, uint32_t total, struct fx_l3 *out,
				     uint32_t *len)
{
	uint32_t w0, w1;
	uint8_t next;

	if (have < FX_IP6_LEN)
		return FX_DROP_SHORT;
	w0 = fx_get32(p);
	w1 = fx_get32(p + 4);
	read_done();
	*len = w1 >> 16;
	if (w0 >> 28 != 6 || *len > total - FX_IP6_LEN)
		return FX_DROP_BAD_IP;
	next = (uint8_t)(w1 >> 8);
	if (next != PROTO_UDP)
		return next == PROTO_IP6_FRAGMENT ? FX_DROP_FRAGMENT : FX_DROP_NOT_UDP;
	if (out) {
		out->ip_version = 6;
		out->tos = (uint8_t)(w0 >> 20);
		out->ttl = (uint8_t)w1;
		out->df = false;
		out->ip_id = 0;
		out->flow_label = w0 & 0xfffff;
		memcpy(out->src, p + 8, 16);
		memcpy(out->dst, p + 24, 16);
	}
	return FX_DROP_NONE;
}

enum fx_drop fx_l3_parse(const uint8_t *p, uint32_t have, uint32_t total, struct fx_l3 *out,
			 uint32_t *bth_off, uint32_t *end)
{
	uint32_t off = FX_ETH_LEN, tag, type, vlan = UNTAGGED, len;
	enum fx_drop drop;
	uint64_t udp;

	if (have > total)
		have = total;
	if (have < FX_ETH_LEN)
		return FX_DROP_SHORT;
	type = fx_get16(p + 12);
	if (type == TYPE_VLAN) {
		if (have < FX_ETH_LEN + FX_VLAN_LEN)
			return FX_DROP_SHORT;
		tag = fx_get32(p + FX_ETH_LEN);
		vlan = tag >> 16;
		type = tag & 0xffff;
		off += FX_VLAN_LEN;
		if (vlan == UNTAGGED) /* VLAN 4095 is reserved, and this tag would read as none */
			return FX_DROP_NOT_IP;
	}
	read_done();
	if (type == TYPE_IP4) {
		drop = ip4_parse(p + off, have - off, total - off, out, &len);
		off += FX_IP4_LEN;
	} else if (type == TYPE_IP6) {
		drop = ip6_parse(p + off, have - off, total - off, out, &len);
		off += FX_IP6_LEN;
	} else {
		return FX_DROP_NOT_IP;
	}
	if (drop)
		return drop;
	if (have < off + FX_UDP_LEN)
		return FX_DROP_SHORT;
	udp = fx_get64(p + off);
	read_done();
	if ((udp >> 32 & 0xffff) != FX_ROCE_PORT)
		return FX_DROP_NOT_ROCE;
	if ((udp >> 16 & 0xffff) != len || len < FX_UDP_LEN + FX_BTH_LEN)
		return FX_DROP_BAD_UDP_LEN;
	if (out) {
		memcpy(out->dmac, p, 6);
		memcpy(out->smac, p + 6, 6);
		out->vlan = (uint16_t)vlan;
		out->sport = (uint16_t)(udp >> 48);
		out->udp_csum = (uint16_t)udp;
	}
	*bth_off = off + FX_UDP_LEN;
	*end = off + len;
	return FX_DROP_NONE;
}

/* The extension headers in their order on the wire; the caller has checked that they are there. */
static inline void ext_parse(const uint8_t *p, uint32_t flags, struct fx_bth *out)
{
	uint32_t w;

	if (flags & FX_OPF_DETH) {
		out->deth.qkey = fx_get32(p);
		out->deth.sqpn = fx_get32(p + 4) & FX_PSN_MASK;
		p += FX_DETH_LEN;
	}
	if (flags & FX_OPF_XRCETH) {
		out->xrc_srqn = fx_get32(p) & FX_PSN_MASK;
		p += FX_XRCETH_LEN;
	}
	if (flags & FX_OPF_RETH) {
		out->reth.va = fx_get64(p);
		out->reth.rkey = fx_get32(p + 8);
		out->reth.length = fx_get32(p + 12);
		p += FX_RETH_LEN;
	}
	if (flags & FX_OPF_AETH) {
		w = fx_get32(p);
		out->aeth.syndrome = (uint8_t)(w >> 24);
		out->aeth.msn = w & FX_PSN_MASK;
		p += FX_AETH_LEN;
	}
	if (flags & FX_OPF_IMM)
		memcpy(&out->imm, p, FX_IMM_LEN);
	if (flags & FX_OPF_INV)
		out->inv_rkey = fx_get32(p);
	if (flags & FX_OPF_ATOMICETH) {
		out->atomic.va = fx_get64(p);
		out->atomic.rkey = fx_get32(p + 8);
		out->atomic.swap_add = fx_get64(p + 12);
		out->atomic.compare = fx_get64(p + 20);
	}
	if (flags & FX_OPF_ATOMICACKETH)
		out->atomic_orig = fx_get64(p);
}

enum fx_drop fx_bth_parse(const uint8_t *p, uint32_t have, struct fx_bth *out, uint32_t *len)
{
	const struct fx_opcode_info *op;
	uint32_t w0, w1, w2, pad, hdr_len;

	if (have < FX_BTH_LEN)
		return FX_DROP_SHORT;
	w0 = fx_get32(p);
	w1 = fx_get32(p + 4);
	w2 = fx_get32(p + 8);
	read_done();
	op = &fx_opcodes[w0 >> 24];
	pad = w0 >> 20 & 3;
	if (w0 >> 16 & BTH_TVER)
		return FX_DROP_BAD_BTH;
	if (!op->name)
		return FX_DROP_BAD_OPCODE;
	if (pad && !(op->flags & FX_OPF_PAYLOAD))
		return FX_DROP_BAD_BTH;
	hdr_len = (uint32_t)FX_BTH_LEN + op->ext_len;
	if (have < hdr_len)
		return FX_DROP_SHORT;
	/* In two halves: a compiler clears the whole with `rep stos`, which costs more than all the rest. */
	memset(out, 0, sizeof(*out) / 2);
	memset((uint8_t *)out + sizeof(*out) / 2, 0, sizeof(*out) - sizeof(*out) / 2);
	out->opcode = (uint8_t)(w0 >> 24);
	out->se = w0 >> 23 & 1;
	out->migreq = w0 >> 22 & 1;
	out->pad = (uint8_t)pad;
	out->pkey = (uint16_t)w0;
	out->fecn = w1 >> 31;
	out->becn = w1 >> 30 & 1;
	out->dqpn = w1 & FX_PSN_MASK;
	out->ackreq = w2 >> 31;
	out->psn = w2 & FX_PSN_MASK;
	if (op->ext_len)
		ext_parse(p + FX_BTH_LEN, op->flags, out);
	*len = hdr_len;
	return FX_DROP_NONE;
}

static inline void ip4_write(uint8_t *p, const struct fx_l3 *l3, uint32_t payload_len)
{
	uint32_t w[5] = {
		FX_BE32((uint32_t)IP4_START << 24 | (uint32_t)l3->tos << 16 |
			((FX_IP4_LEN + FX_UDP_LEN + payload_len) & 0xffff)),
		FX_BE32((uint32_t)l3->ip_id << 16 | (l3->df ? IP4_DF : 0)),
		FX_BE32((uint32_t)l3->ttl << 24 | PROTO_UDP << 16),
	};
	uint16_t csum;

	memcpy(&w[3], l3->src + 12, 4);
	memcpy(&w[4], l3->dst + 12, 4);
	csum = (uint16_t)~ip4_sum(w);
	memcpy(p, w, sizeof(w));
	memcpy(p + IP4_CSUM_AT, &csum, sizeof(csum)); /* summed in memory order, stored in memory order */
}

static inline void ip6_write(uint8_t *p, const struct fx_l3 *l3, uint32_t payload_len)
{
	fx_put32(p, 6u << 28 | (uint32_t)l3->tos << 20 | (l3->flow_label & 0xfffff));
	fx_put32(p + 4, (FX_UDP_LEN + payload_len) << 16 | PROTO_UDP << 8 | l3->ttl);
	memcpy(p + 8, l3->src, 16);
	memcpy(p + 24, l3->dst, 16);
}

uint32_t fx_l3_write(uint8_t *p, const struct fx_l3 *l3, uint32_t payload_len)
{
	uint32_t off = FX_ETH_LEN;
	bool v4 = l3->ip_version == 4;

	memcpy(p, l3->dmac, 6);
	memcpy(p + 6, l3->smac, 6);
	if (l3->vlan != UNTAGGED) {
		fx_put32(p + 12, (uint32_t)TYPE_VLAN << 16 | l3->vlan);
		off += FX_VLAN_LEN;
	}
	fx_put16(p + off - 2, v4 ? TYPE_IP4 : TYPE_IP6);
	if (v4) {
		ip4_write(p + off, l3, payload_len);
		off += FX_IP4_LEN;
	} else {
		ip6_write(p + off, l3, payload_len);
		off += FX_IP6_LEN;
	}
	fx_put16(p + off, l3->sport);
	fx_put16(p + off + 2, FX_ROCE_PORT);
	fx_put16(p + off + 4, (uint16_t)(FX_UDP_LEN + payload_len));
	fx_put16(p + off + 6, l3->udp_csum);
	return off + FX_UDP_LEN;
}

static inline void ext_write(uint8_t *p, uint32_t flags, const struct fx_bth *bth)
{
	if (flags & FX_OPF_DETH) {
		fx_put32(p, bth->deth.qkey);
		fx_put32(p + 4, bth->deth.sqpn & FX_PSN_MASK);
		p += FX_DETH_LEN;
	}
	if (flags & FX_OPF_XRCETH) {
		fx_put32(p, bth->xrc_srqn & FX_PSN_MASK);
		p += FX_XRCETH_LEN;
	}
	if (flags & FX_OPF_RETH) {
		fx_put64(p, bth->reth.va);
		fx_put32(p + 8, bth->reth.rkey);
		fx_put32(p + 12, bth->reth.length);
		p += FX_RETH_LEN;
	}
	if (flags & FX_OPF_AETH) {
		fx_put32(p, (uint32_t)bth->aeth.syndrome << 24 | (bth->aeth.msn & FX_PSN_MASK));
		p += FX_AETH_LEN;
	}
	if (flags & FX_OPF_IMM)
		memcpy(p, &bth->imm, FX_IMM_LEN);
	if (flags & FX_OPF_INV)
		fx_put32(p, bth->inv_rkey);
	if (flags & FX_OPF_ATOMICETH) {
		fx_put64(p, bth->atomic.va);
		fx_put32(p + 8, bth->atomic.rkey);
		fx_put64(p + 12, bth->atomic.swap_add);
		fx_put64(p + 20, bth->atomic.compare);
	}
	if (flags & FX_OPF_ATOMICACKETH)
		fx_put64(p, bth->atomic_orig);
	if (flags & FX_OPF_CNP)
		memset(p, 0, FX_CNP_LEN);
}

uint32_t fx_bth_write(uint8_t *p, const struct fx_bth *bth)
{
	const struct fx_opcode_info *op = &fx_opcodes[bth->opcode];

	fx_put32(p, (uint32_t)bth->opcode << 24 | (uint32_t)bth->se << 23 | (uint32_t)bth->migreq << 22 |
			    (bth->pad & 3u) << 20 | bth->pkey);
	fx_put32(p + 4, (uint32_t)bth->fecn << 31 | (uint32_t)bth->becn << 30 | (bth->dqpn & FX_PSN_MASK));
	fx_put32(p + 8, (uint32_t)bth->ackreq << 31 | (bth->psn & FX_PSN_MASK));
	if (op->ext_len)
		ext_write(p + FX_BTH_LEN, op->flags, bth);
	return FX_BTH_LEN + op->ext_len;
}

void fx_tmpl_init(struct fx_tmpl *t, const struct fx_l3 *l3)
{
	uint32_t w[5];
	uint8_t *ip;

	memset(t, 0, sizeof(*t));
	t->version = l3->ip_version == 4 ? 4 : 6;
	t->ip_off = l3->vlan == UNTAGGED ? FX_ETH_LEN : FX_ETH_LEN + FX_VLAN_LEN;
	t->len = (uint8_t)fx_l3_write(t->bytes, l3, 0);
	if (t->version != 4)
		return;
	ip = t->bytes + t->ip_off;
	memset(ip + IP4_LEN_AT, 0, 4); /* and the identification */
	memset(ip + IP4_CSUM_AT, 0, 2);
	memcpy(w, ip, sizeof(w));
	t->sum = FX_BE16(ip4_sum(w));
}

/* A front has 42, 46, 62 or 66 bytes: two overlapping copies of fixed size make that, without a branch. */
enum { FRONT_COPY = 34 };
static_assert(FRONT_COPY <= FX_ETH_LEN + FX_IP4_LEN + FX_UDP_LEN, "a copy is within the shortest front");
static_assert(2 * FRONT_COPY >= FX_L3_MAX, "two copies cover the longest front");

uint32_t fx_tmpl_emit(const struct fx_tmpl *t, uint8_t *p, uint32_t payload_len, uint16_t ip_id)
{
	uint32_t len = t->len, udp_len = FX_UDP_LEN + payload_len, sum;
	uint8_t *ip = p + t->ip_off;

	memcpy(p, t->bytes, FRONT_COPY);
	memcpy(p + len - FRONT_COPY, t->bytes + len - FRONT_COPY, FRONT_COPY);
	fx_put16(p + len - 4, (uint16_t)udp_len);
	if (t->version == 4) {
		sum = t->sum + ((FX_IP4_LEN + udp_len) & 0xffff) + ip_id;
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		fx_put16(ip + IP4_LEN_AT, (uint16_t)(FX_IP4_LEN + udp_len));
		fx_put16(ip + IP4_ID_AT, ip_id);
		fx_put16(ip + IP4_CSUM_AT, (uint16_t)~sum);
	} else {
		fx_put16(ip + IP6_LEN_AT, (uint16_t)udp_len);
	}
	return len;
}
