/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * RoCEv2 frames: their headers as fields, and back (IBTA volume 1 chapter 9, annex A17).
 *
 * Room: wire. May use: C11 only; no state, no allocation. Fields are in host byte order except where said.
 * A frame is Ethernet [802.1Q] IPv4|IPv6 UDP(4791) BTH extension-headers payload pad [ICRC].
 * Whether the ICRC is there is a property of the port: every function that cares is told.
 */
#ifndef FX_WIRE_ROCE_H
#define FX_WIRE_ROCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	FX_ROCE_PORT = 4791,
	FX_ETH_LEN = 14,
	FX_VLAN_LEN = 4,
	FX_IP4_LEN = 20,
	FX_IP6_LEN = 40,
	FX_UDP_LEN = 8,
	FX_BTH_LEN = 12,
	FX_RETH_LEN = 16,
	FX_AETH_LEN = 4,
	FX_ATOMICETH_LEN = 28,
	FX_ATOMICACKETH_LEN = 8,
	FX_DETH_LEN = 8,
	FX_XRCETH_LEN = 4,
	FX_IMM_LEN = 4,	 /* and IETH */
	FX_CNP_LEN = 16, /* reserved bytes after a CNP's BTH */
	FX_ICRC_LEN = 4,
	FX_GRH_LEN = 40,
	FX_L3_MAX = FX_ETH_LEN + FX_VLAN_LEN + FX_IP6_LEN + FX_UDP_LEN,
	FX_HDR_MAX = 128, /* every header of any frame fits */
	FX_PSN_MASK = 0xffffff,
	FX_PKEY_DEFAULT = 0xffff,
};

/* Why a frame was refused; also the names of counters. */
#define FX_DROP_LIST(X)                                                                                      \
	X(SHORT, "frame ends inside its headers")                                                            \
	X(NOT_IP, "neither IPv4 nor IPv6")                                                                   \
	X(BAD_IP, "IP header version, length or checksum is wrong")                                          \
	X(FRAGMENT, "IP fragment")                                                                           \
	X(NOT_UDP, "not UDP")                                                                                \
	X(NOT_ROCE, "not for UDP port 4791")                                                                 \
	X(BAD_UDP_LEN, "UDP length disagrees with the frame")                                                \
	X(BAD_BTH, "BTH version or pad count is wrong")                                                      \
	X(BAD_OPCODE, "opcode unknown")                                                                      \
	X(BAD_PKEY, "partition key is not the port's")                                                       \
	X(BAD_ICRC, "invariant CRC is wrong")
enum fx_drop {
	FX_DROP_NONE,
#define X(name, text) FX_DROP_##name,
	FX_DROP_LIST(X)
#undef X
		FX_DROPS
};
extern const char *const fx_drop_names[FX_DROPS]; /* lower case, as in counters: "bad_icrc" */

/* Ethernet, IP and UDP. Addresses are 16 bytes, IPv4 ones as ::ffff:a.b.c.d, like a GID. */
struct fx_l3 {
	uint8_t dmac[6], smac[6];
	uint16_t vlan; /* TCI; 0xffff: untagged */
	uint8_t ip_version;
	uint8_t tos; /* or traffic class: DSCP and ECN */
	uint8_t ttl; /* or hop limit */
	bool df;     /* IPv4 don't-fragment */
	uint16_t ip_id;
	uint32_t flow_label;
	uint8_t src[16], dst[16];
	uint16_t sport;
	uint16_t udp_csum;
};

/* BTH and whatever extension headers the opcode says follow it. */
struct fx_bth {
	uint8_t opcode;
	bool se, migreq, fecn, becn, ackreq;
	uint8_t pad; /* 0..3 */
	uint16_t pkey;
	uint32_t dqpn, psn;
	struct {
		uint64_t va;
		uint32_t rkey, length;
	} reth;
	struct {
		uint8_t syndrome;
		uint32_t msn;
	} aeth;
	struct {
		uint64_t va, swap_add, compare;
		uint32_t rkey;
	} atomic;
	uint64_t atomic_orig;
	struct {
		uint32_t qkey, sqpn;
	} deth;
	uint32_t imm; /* as on the wire (network order), like ibv_wc.imm_data */
	uint32_t inv_rkey;
	uint32_t xrc_srqn;
};

/* AETH syndromes (9.7.5.2.4): the upper three bits say what, the lower five how much. */
enum fx_aeth {
	FX_AETH_ACK = 0x00,
	FX_AETH_RNR = 0x20,
	FX_AETH_NAK = 0x60,
	FX_AETH_TYPE = 0xe0,
	FX_AETH_CREDITS_INVALID = 0x1f,
	FX_NAK_PSN = 0x60,
	FX_NAK_INVALID_REQUEST = 0x61,
	FX_NAK_REMOTE_ACCESS = 0x62,
	FX_NAK_REMOTE_OP = 0x63,
};

/* a - b in the 24-bit circle, -2^23 .. 2^23-1. */
static inline int32_t fx_psn_diff(uint32_t a, uint32_t b)
{
	return (int32_t)((a - b) << 8) >> 8;
}
static inline uint32_t fx_psn_add(uint32_t psn, uint32_t n)
{
	return (psn + n) & FX_PSN_MASK;
}

/*
 * Reads Ethernet, IP and UDP of a frame of which `have` bytes are contiguous at `p` and `total` exist.
 * Returns FX_DROP_NONE and sets *bth_off (where BTH starts) and *end (where the UDP payload ends, pad and
 * ICRC included; Ethernet padding is outside), or the reason to drop. `out` may be NULL.
 */
enum fx_drop fx_l3_parse(const uint8_t *p, uint32_t have, uint32_t total, struct fx_l3 *out,
			 uint32_t *bth_off, uint32_t *end);

/*
 * Reads BTH and extension headers at `p` (`have` contiguous bytes, none of them past fx_l3_parse's *end).
 * Returns FX_DROP_NONE and sets *len to their length, or the reason. Fields of headers that the opcode does
 * not have are zero. Does not look at payload, pad bytes or ICRC: whether pad and ICRC fit is for the caller
 * to check, against *end.
 */
enum fx_drop fx_bth_parse(const uint8_t *p, uint32_t have, struct fx_bth *out, uint32_t *len);

/* Writes them; both return the bytes written. `payload_len` counts everything after UDP. */
uint32_t fx_l3_write(uint8_t *p, const struct fx_l3 *l3, uint32_t payload_len);
uint32_t fx_bth_write(uint8_t *p, const struct fx_bth *bth);

/*
 * A frame's fixed front, made once per QP: Ethernet to UDP. fx_tmpl_emit copies it and patches the lengths,
 * the IPv4 identification and checksum (one's-complement update of a precomputed sum, no loop).
 */
struct fx_tmpl {
	uint8_t bytes[FX_L3_MAX + 2];
	uint8_t len;	 /* of the front */
	uint8_t ip_off;	 /* where IP starts */
	uint8_t version; /* 4 or 6 */
	uint8_t pad;
	uint32_t sum; /* IPv4: folded sum of the header with length, id and checksum zero */
};
void fx_tmpl_init(struct fx_tmpl *t, const struct fx_l3 *l3);
/* payload_len: bytes after UDP, ICRC included if the port adds one. Returns t->len. */
uint32_t fx_tmpl_emit(const struct fx_tmpl *t, uint8_t *p, uint32_t payload_len, uint16_t ip_id);

/*
 * ICRC over a frame's covered bytes. Start with fx_icrc_head (the masked headers: `p` at the IP header, `len`
 * up to the end of the extension headers), go on with fx_icrc_more over payload and pad, finish with
 * fx_icrc_end; the result is stored least significant byte first. Computed with ISA-L.
 */
uint32_t fx_icrc_head(const uint8_t *ip, uint32_t len);
uint32_t fx_icrc_more(uint32_t state, const void *p, size_t len);
uint32_t fx_icrc_end(uint32_t state);

#endif
