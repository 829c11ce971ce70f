/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the tests of the wire room share: random headers from a fixed seed, comparing headers field by field,
 * parsing at the edge of a heap block, a CRC to judge by.
 *
 * May use: wire, cmocka (included before this).
 */
#ifndef FX_TESTS_WIRE_UTIL_H
#define FX_TESTS_WIRE_UTIL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire/opcode.h"
#include "wire/roce.h"

enum { FRAME_MAX = 16384 };

static uint64_t rng = 0x9e3779b97f4a7c15;

static inline uint64_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static inline void rnd_fill(void *p, size_t n)
{
	uint8_t *b = p;

	while (n--)
		*b++ = (uint8_t)(rnd() >> 24);
}

static inline struct fx_l3 rnd_l3(int version, bool tagged)
{
	struct fx_l3 l3 = {.ip_version = (uint8_t)version, .vlan = tagged ? rnd() % 0xffff : 0xffff};

	rnd_fill(l3.dmac, 12);
	l3.tos = (uint8_t)rnd();
	l3.ttl = (uint8_t)rnd();
	l3.sport = (uint16_t)rnd();
	l3.udp_csum = (uint16_t)rnd();
	rnd_fill(l3.src, 32);
	if (version == 4) {
		static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

		memcpy(l3.src, mapped, 12);
		memcpy(l3.dst, mapped, 12);
		l3.df = rnd() & 1;
		l3.ip_id = (uint16_t)rnd();
	} else {
		l3.flow_label = rnd() & 0xfffff;
	}
	return l3;
}

static inline struct fx_bth rnd_bth(uint8_t opcode)
{
	uint32_t f = fx_opcodes[opcode].flags;
	struct fx_bth b = {.opcode = opcode, .pkey = (uint16_t)rnd(), .psn = rnd() & FX_PSN_MASK};

	b.dqpn = rnd() & FX_PSN_MASK;
	b.se = rnd() & 1, b.migreq = rnd() & 1, b.fecn = rnd() & 1, b.becn = rnd() & 1, b.ackreq = rnd() & 1;
	b.pad = f & FX_OPF_PAYLOAD ? rnd() & 3 : 0;
	if (f & FX_OPF_RETH)
		b.reth.va = rnd(), b.reth.rkey = (uint32_t)rnd(), b.reth.length = (uint32_t)rnd();
	if (f & FX_OPF_AETH)
		b.aeth.syndrome = (uint8_t)rnd(), b.aeth.msn = rnd() & FX_PSN_MASK;
	if (f & FX_OPF_ATOMICETH) {
		b.atomic.va = rnd(), b.atomic.swap_add = rnd(), b.atomic.compare = rnd();
		b.atomic.rkey = (uint32_t)rnd();
	}
	if (f & FX_OPF_ATOMICACKETH)
		b.atomic_orig = rnd();
	if (f & FX_OPF_DETH)
		b.deth.qkey = (uint32_t)rnd(), b.deth.sqpn = rnd() & FX_PSN_MASK;
	if (f & FX_OPF_IMM)
		b.imm = (uint32_t)rnd();
	if (f & FX_OPF_INV)
		b.inv_rkey = (uint32_t)rnd();
	if (f & FX_OPF_XRCETH)
		b.xrc_srqn = rnd() & FX_PSN_MASK;
	return b;
}

#define SAME(a, b, field) assert_int_equal((a)->field, (b)->field)
static inline void same_bth(const struct fx_bth *a, const struct fx_bth *b)
{
	SAME(a, b, opcode), SAME(a, b, se), SAME(a, b, migreq), SAME(a, b, fecn), SAME(a, b, becn);
	SAME(a, b, ackreq), SAME(a, b, pad), SAME(a, b, pkey), SAME(a, b, dqpn), SAME(a, b, psn);
	SAME(a, b, reth.va), SAME(a, b, reth.rkey), SAME(a, b, reth.length);
	SAME(a, b, aeth.syndrome), SAME(a, b, aeth.msn);
	SAME(a, b, atomic.va), SAME(a, b, atomic.swap_add), SAME(a, b, atomic.compare);
	SAME(a, b, atomic.rkey), SAME(a, b, atomic_orig), SAME(a, b, deth.qkey), SAME(a, b, deth.sqpn);
	SAME(a, b, imm), SAME(a, b, inv_rkey), SAME(a, b, xrc_srqn);
}

static inline void same_l3(const struct fx_l3 *a, const struct fx_l3 *b)
{
	assert_memory_equal(a->dmac, b->dmac, 6);
	assert_memory_equal(a->smac, b->smac, 6);
	assert_memory_equal(a->src, b->src, 16);
	assert_memory_equal(a->dst, b->dst, 16);
	SAME(a, b, vlan), SAME(a, b, ip_version), SAME(a, b, tos), SAME(a, b, ttl), SAME(a, b, df);
	SAME(a, b, ip_id), SAME(a, b, flow_label), SAME(a, b, sport), SAME(a, b, udp_csum);
}

/* Parses `n` bytes that end where a heap block ends, so that a sanitizer sees any read past them. */
static inline enum fx_drop l3_of(const uint8_t *frame, uint32_t n)
{
	uint32_t off, end;
	struct fx_l3 l3;
	uint8_t *copy = malloc(n ? n : 1);
	enum fx_drop d;

	memcpy(copy, frame, n);
	d = fx_l3_parse(copy + (n ? 0 : 1), n, n, &l3, &off, &end);
	free(copy);
	return d;
}

/* CRC-32 a bit at a time: the judge of ISA-L's. */
static inline uint32_t crc_bits(uint32_t crc, const uint8_t *p, size_t n)
{
	while (n--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return crc;
}

#endif
