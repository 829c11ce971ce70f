/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The wire room on made-up headers: opcode table, parsers and writers, templates, ICRC. What other
 * implementations send is in test_wire_golden.c.
 *
 * May use: wire, cmocka.
 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire_util.h"

/* ---- opcode table ---- */
static bool has(const char *name, const char *part)
{
	return strstr(name, part) != NULL;
}

/* The flags that a row's name promises. */
static uint32_t flags_by_name(const char *n)
{
	bool rsp = has(n, "RESP") || has(n, "ACKNOWLEDGE"), cnp = !strcmp(n, "CNP");
	bool atomic_req = has(n, "COMPARE_SWAP") || has(n, "FETCH_ADD"), store = has(n, "ATOMIC_WRITE");
	bool single =
		has(n, "ONLY") || has(n, "READ_REQUEST") || has(n, "ACKNOWLEDGE") || atomic_req || store;
	uint32_t f = 0;

#define IF(cond, flag) f |= (cond) ? FX_OPF_##flag : 0
	IF(!rsp && !cnp, REQ), IF(rsp, RSP), IF(cnp, CNP);
	IF(has(n, "SEND"), SEND), IF(has(n, "WRITE") && !store, WRITE), IF(store, STORE),
		IF(has(n, "READ"), READ);
	IF((has(n, "ATOMIC") && !store) || atomic_req, ATOMIC),
		IF(has(n, "ACKNOWLEDGE") && !has(n, "ATOMIC"), ACK);
	IF(single || has(n, "FIRST"), FIRST), IF(single || has(n, "LAST"), LAST);
	IF(has(n, "SEND") || has(n, "WRITE") || has(n, "RESP"), PAYLOAD);
	IF(has(n, "_IMM"), IMM), IF(has(n, "_INV"), INV);
	IF(has(n, "READ_REQUEST") || (has(n, "WRITE") && (has(n, "FIRST") || has(n, "ONLY") || store)), RETH);
	IF(rsp && !has(n, "MIDDLE"), AETH), IF(atomic_req, ATOMICETH), IF(has(n, "ATOMIC_A"), ATOMICACKETH);
	IF(!strncmp(n, "UD_", 3), DETH), IF(!strncmp(n, "XRC_", 4) && !rsp, XRCETH);
#undef IF
	return f;
}

static void opcode_rows(void **state)
{
	static const struct {
		uint32_t flag, len;
	} hdr[] = {
		{FX_OPF_IMM, 4},    {FX_OPF_INV, 4},  {FX_OPF_RETH, 16},
		{FX_OPF_AETH, 4},   {FX_OPF_DETH, 8}, {FX_OPF_ATOMICETH, 28},
		{FX_OPF_XRCETH, 4}, {FX_OPF_CNP, 16}, {FX_OPF_ATOMICACKETH, 8},
	};
	static const char *const prefix[8] = {"RC_", "UC_", "RD_", "UD_", "CNP", "XRC_", "?", "?"};
	static const int want[8] = {24, 12, 0, 2, 1, 24, 0, 0};
	int rows[8] = {0};

	(void)state;
	for (int i = 0; i < 256; i++) {
		const struct fx_opcode_info *op = &fx_opcodes[i];
		uint32_t len = 0;

		for (size_t h = 0; h < sizeof(hdr) / sizeof(hdr[0]); h++)
			len += op->flags & hdr[h].flag ? hdr[h].len : 0;
		assert_int_equal(op->ext_len, len);
		if (!op->name) {
			assert_int_equal(op->flags, 0);
			continue;
		}
		rows[i >> 5]++;
		assert_int_equal(strncmp(op->name, prefix[i >> 5], strlen(prefix[i >> 5])), 0);
		assert_int_equal(op->flags, flags_by_name(op->name));
		if (i >= 0xa0) /* XRC is RC and one header */
			assert_string_equal(op->name + 1 + 2, fx_opcodes[i - 0xa0].name + 2);
	}
	assert_memory_equal(rows, want, sizeof(want));
}

static void opcode_numbers(void **state)
{
	static const struct {
		uint8_t op, len;
		const char *name;
	} known[] = {
		{0x00, 0, "RC_SEND_FIRST"},	{0x03, 4, "RC_SEND_LAST_IMM"},
		{0x0a, 16, "RC_WRITE_ONLY"},	{0x0b, 20, "RC_WRITE_ONLY_IMM"},
		{0x0c, 16, "RC_READ_REQUEST"},	{0x0e, 0, "RC_READ_RESP_MIDDLE"},
		{0x11, 4, "RC_ACKNOWLEDGE"},	{0x12, 12, "RC_ATOMIC_ACKNOWLEDGE"},
		{0x13, 28, "RC_COMPARE_SWAP"},	{0x14, 28, "RC_FETCH_ADD"},
		{0x17, 4, "RC_SEND_ONLY_INV"},	{0x1d, 16, "RC_ATOMIC_WRITE"},
		{0x26, 16, "UC_WRITE_FIRST"},	{0x64, 8, "UD_SEND_ONLY"},
		{0x65, 12, "UD_SEND_ONLY_IMM"}, {0xa1, 4, "XRC_SEND_MIDDLE"},
		{0xb3, 32, "XRC_COMPARE_SWAP"}, {0x81, 16, "CNP"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		assert_non_null(fx_opcodes[known[i].op].name);
		assert_string_equal(fx_opcodes[known[i].op].name, known[i].name);
		assert_int_equal(fx_opcodes[known[i].op].ext_len, known[i].len);
	}
	assert_null(fx_opcodes[FX_OP_RESYNC].name);
	assert_null(fx_opcodes[FX_OPT_UC | FX_OP_READ_REQUEST].name);
	assert_null(fx_opcodes[0xff].name);
}

static void drop_names(void **state)
{
	static const char *const token[FX_DROPS] = {"NONE",
#define X(name, text) #name,
						    FX_DROP_LIST(X)
#undef X
	};

	(void)state;
	for (int i = 0; i < FX_DROPS; i++) {
		assert_non_null(fx_drop_names[i]);
		assert_int_equal(strlen(fx_drop_names[i]), strlen(token[i]));
		for (int c = 0; token[i][c]; c++)
			assert_int_equal(fx_drop_names[i][c], tolower(token[i][c]));
	}
}

static void psn_circle(void **state)
{
	(void)state;
	assert_int_equal(fx_psn_diff(0, 0xffffff), 1);
	assert_int_equal(fx_psn_diff(0xffffff, 0), -1);
	assert_int_equal(fx_psn_diff(0x800000, 0), -0x800000);
	assert_int_equal(fx_psn_diff(0x7fffff, 0), 0x7fffff);
	assert_int_equal(fx_psn_add(0xfffffe, 3), 1);
}

/* ---- BTH ---- */
static void bth_known_bytes(void **state)
{
	static const uint8_t wire[] = {
		0x0b, 0xf0, 0x12, 0x34, 0xc0, 0xab, 0xcd, 0xef, 0x80, 1,  2,  3,		  /* BTH */
		1,    2,    3,	  4,	5,    6,    7,	  8,	9,    10, 11, 12, 13, 14, 15, 16, /* RETH */
		0xde, 0xad, 0xbe, 0xef, /* immediate */
	};
	struct fx_bth want =
			      {
				      .opcode = 0x0b,
				      .se = true,
				      .migreq = true,
				      .pad = 3,
				      .pkey = 0x1234,
				      .fecn = true,
				      .becn = true,
				      .dqpn = 0xabcdef,
				      .ackreq = true,
				      .psn = 0x010203,
				      .reth = {.va = 0x0102030405060708,
					       .rkey = 0x090a0b0c,
					       .length = 0x0d0e0f10},
			      },
		      got;
	uint8_t out[FX_HDR_MAX];
	uint32_t len;

	(void)state;
	memcpy(&want.imm, wire + 28, 4);
	memset(&got, 0xee, sizeof(got));
	assert_int_equal(fx_bth_parse(wire, sizeof(wire), &got, &len), FX_DROP_NONE);
	assert_int_equal(len, sizeof(wire));
	same_bth(&got, &want);
	want.dqpn |= 0xff000000; /* fields wider than the wire's do not spill */
	want.psn |= 0x7f000000;
	want.pad |= 0xfc;
	assert_int_equal(fx_bth_write(out, &want), sizeof(wire));
	assert_memory_equal(out, wire, sizeof(wire));
}

static void bth_every_opcode(void **state)
{
	uint8_t wire[FX_HDR_MAX], again[FX_HDR_MAX], *edge;
	struct fx_bth b, got;
	uint32_t n, len;

	(void)state;
	for (int i = 0; i < 256 * 16; i++) {
		if (!fx_opcodes[i & 255].name)
			continue;
		b = rnd_bth((uint8_t)i);
		memset(wire, 0x5a, sizeof(wire));
		n = fx_bth_write(wire, &b);
		assert_int_equal(n, FX_BTH_LEN + fx_opcodes[i & 255].ext_len);
		assert_int_equal(wire[n], 0x5a);
		memset(&got, 0xee, sizeof(got));
		assert_int_equal(fx_bth_parse(wire, n, &got, &len), FX_DROP_NONE);
		assert_int_equal(len, n);
		same_bth(&b, &got);
		assert_int_equal(fx_bth_write(again, &got), n);
		assert_memory_equal(wire, again, n);
		for (uint32_t cut = 0; cut < n; cut++) {
			edge = malloc(n);
			memcpy(edge + n - cut, wire, cut);
			assert_int_equal(fx_bth_parse(edge + n - cut, cut, &got, &len), FX_DROP_SHORT);
			free(edge);
		}
	}
}

static void bth_malformed(void **state)
{
	uint8_t wire[FX_HDR_MAX] = {0};
	struct fx_bth got;
	uint32_t len;

	(void)state;
	for (int op = 0; op < 256; op++) {
		const struct fx_opcode_info *info = &fx_opcodes[op];

		wire[0] = (uint8_t)op;
		wire[1] = 0;
		assert_int_equal(fx_bth_parse(wire, sizeof(wire), &got, &len),
				 info->name ? FX_DROP_NONE : FX_DROP_BAD_OPCODE);
		for (int version = 1; version < 16; version++) {
			wire[1] = (uint8_t)version;
			assert_int_equal(fx_bth_parse(wire, sizeof(wire), &got, &len), FX_DROP_BAD_BTH);
		}
		for (int pad = 1; pad < 4 && info->name; pad++) {
			wire[1] = (uint8_t)(pad << 4);
			assert_int_equal(fx_bth_parse(wire, sizeof(wire), &got, &len),
					 info->flags & FX_OPF_PAYLOAD ? FX_DROP_NONE : FX_DROP_BAD_BTH);
		}
	}
}

/* ---- Ethernet, IP, UDP ---- */
/* The IPv4 header checksum the slow way, to make mutated headers pass or fail for the reason meant. */
static void ip4_fix(uint8_t *ip, uint32_t halves)
{
	uint32_t sum = 0;

	ip[10] = ip[11] = 0;
	for (uint32_t i = 0; i < halves; i++)
		sum += (uint32_t)ip[2 * i] << 8 | ip[2 * i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	ip[10] = (uint8_t)(~sum >> 8);
	ip[11] = (uint8_t)~sum;
}

static void l3_round_trip(void **state)
{
	uint8_t f[FRAME_MAX], again[FX_HDR_MAX];
	struct fx_l3 l3, got;
	uint32_t n, off, end, pay;

	(void)state;
	for (int i = 0; i < 4000; i++) {
		l3 = rnd_l3(i & 1 ? 4 : 6, i & 2);
		pay = FX_BTH_LEN + (uint32_t)(rnd() % 9000);
		memset(f, 0x5a, FX_HDR_MAX);
		n = fx_l3_write(f, &l3, pay);
		assert_int_equal(n, 14 + (i & 2 ? 4 : 0) + (i & 1 ? 20 : 40) + 8);
		assert_int_equal(f[n], 0x5a);
		memset(&got, 0xee, sizeof(got));
		end = n + pay + (i & 4 ? 18 : 0); /* Ethernet may pad */
		assert_int_equal(fx_l3_parse(f, n, end, &got, &off, &end), FX_DROP_NONE);
		assert_int_equal(off, n);
		assert_int_equal(end, n + pay);
		same_l3(&l3, &got);
		assert_int_equal(fx_l3_write(again, &got, pay), n);
		assert_memory_equal(f, again, n);
		assert_int_equal(fx_l3_parse(f, n, n + pay - 1, NULL, &off, &end), FX_DROP_BAD_IP);
		assert_int_equal(fx_l3_parse(f, n - 1, n + pay, NULL, &off, &end), FX_DROP_SHORT);
	}
}

struct mutation {
	const char *what;
	int version, at, width; /* at: from the IP header */
	uint32_t value;
	enum fx_drop drop;
};

/* Each changes one field of a good frame with 64 bytes behind UDP; the IPv4 checksum is made right again. */
static const struct mutation mutations[] = {
	{"v4 untouched", 4, 8, 1, 64, FX_DROP_NONE},
	{"v6 untouched", 6, 7, 1, 64, FX_DROP_NONE},
	{"v4 reserved flag is ignored", 4, 6, 2, 0xc000, FX_DROP_NONE},
	{"v4 zero UDP checksum", 4, 26, 2, 0, FX_DROP_NONE},
	{"v4 version 6", 4, 0, 1, 0x65, FX_DROP_BAD_IP},
	{"v4 version 0", 4, 0, 1, 0x05, FX_DROP_BAD_IP},
	{"v4 header of 4 words", 4, 0, 1, 0x44, FX_DROP_BAD_IP},
	{"v4 options", 4, 0, 1, 0x46, FX_DROP_BAD_IP},
	{"v4 most options", 4, 0, 1, 0x4f, FX_DROP_BAD_IP},
	{"v4 length 0", 4, 2, 2, 0, FX_DROP_BAD_IP},
	{"v4 length inside its header", 4, 2, 2, 19, FX_DROP_BAD_IP},
	{"v4 length without UDP", 4, 2, 2, 20, FX_DROP_BAD_UDP_LEN},
	{"v4 length beside UDP's", 4, 2, 2, 91, FX_DROP_BAD_UDP_LEN},
	{"v4 length past the frame", 4, 2, 2, 93, FX_DROP_BAD_IP},
	{"v4 longest length", 4, 2, 2, 0xffff, FX_DROP_BAD_IP},
	{"v4 more fragments", 4, 6, 2, 0x2000, FX_DROP_FRAGMENT},
	{"v4 last fragment", 4, 6, 2, 0x0001, FX_DROP_FRAGMENT},
	{"v4 far fragment", 4, 6, 2, 0x5000, FX_DROP_FRAGMENT},
	{"v4 TCP", 4, 9, 1, 6, FX_DROP_NOT_UDP},
	{"v6 version 4", 6, 0, 1, 0x45, FX_DROP_BAD_IP},
	{"v6 length 0", 6, 4, 2, 0, FX_DROP_BAD_UDP_LEN},
	{"v6 length beside UDP's", 6, 4, 2, 71, FX_DROP_BAD_UDP_LEN},
	{"v6 length past the frame", 6, 4, 2, 73, FX_DROP_BAD_IP},
	{"v6 fragment header", 6, 6, 1, 44, FX_DROP_FRAGMENT},
	{"v6 hop-by-hop header", 6, 6, 1, 0, FX_DROP_NOT_UDP},
	{"v6 destination options", 6, 6, 1, 60, FX_DROP_NOT_UDP},
	{"v4 other port", 4, 22, 2, 4790, FX_DROP_NOT_ROCE},
	{"v6 other port", 6, 42, 2, 4792, FX_DROP_NOT_ROCE},
	{"v4 UDP length 0", 4, 24, 2, 0, FX_DROP_BAD_UDP_LEN},
	{"v4 UDP length short by one", 4, 24, 2, 71, FX_DROP_BAD_UDP_LEN},
	{"v4 UDP length long by one", 4, 24, 2, 73, FX_DROP_BAD_UDP_LEN},
	{"v6 UDP length long by one", 6, 44, 2, 73, FX_DROP_BAD_UDP_LEN},
	{"v4 type ARP", 4, -2, 2, 0x0806, FX_DROP_NOT_IP},
	{"v4 type IPv6", 4, -2, 2, 0x86dd, FX_DROP_BAD_IP},
	{"v6 type IPv4", 6, -2, 2, 0x0800, FX_DROP_BAD_IP},
	{"v6 type provider tag", 6, -2, 2, 0x88a8, FX_DROP_NOT_IP},
};

static void l3_malformed(void **state)
{
	enum { PAY = 64 };
	uint8_t f[FX_L3_MAX + PAY] = {0};

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(mutations) / sizeof(mutations[0]); i++) {
		const struct mutation *m = &mutations[i / 2];
		struct fx_l3 l3 = rnd_l3(m->version, i & 1);
		uint32_t n = fx_l3_write(f, &l3, PAY), ip = i & 1 ? 18 : 14;
		enum fx_drop d;

		for (int w = 0; w < m->width; w++)
			f[(int)ip + m->at + w] = (uint8_t)(m->value >> 8 * (m->width - 1 - w));
		for (int fix = 0; fix < 2; fix++) { /* a checksum of five words, or of as many as it says */
			if (m->version == 4)
				ip4_fix(f + ip, fix ? (f[ip] & 15) * 2u : 10);
			d = l3_of(f, n + PAY);
			if (d != m->drop)
				fail_msg("%s: %s, not %s", m->what, fx_drop_names[d], fx_drop_names[m->drop]);
		}
	}
}

static void l3_truncated(void **state)
{
	enum { PAY = 64 };
	uint8_t f[FX_L3_MAX + PAY] = {0};
	uint32_t off, end;

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct fx_l3 l3 = rnd_l3(i & 1 ? 4 : 6, i & 2);
		uint32_t n = fx_l3_write(f, &l3, PAY);

		for (uint32_t cut = 0; cut < n + PAY; cut++) {
			assert_int_equal(l3_of(f, cut), cut < n - 8 ? FX_DROP_SHORT : FX_DROP_BAD_IP);
			/* more bytes at hand than the frame has are not the frame's */
			assert_int_not_equal(fx_l3_parse(f, n + PAY, cut, &l3, &off, &end), FX_DROP_NONE);
		}
		assert_int_equal(l3_of(f, n + PAY), FX_DROP_NONE);
	}
}

static void l3_checksum_and_tags(void **state)
{
	uint8_t f[FX_L3_MAX + 12] = {0};
	struct fx_l3 l3 = rnd_l3(4, false);
	uint32_t n = fx_l3_write(f, &l3, 12);

	(void)state;
	assert_int_equal(l3_of(f, n + 12), FX_DROP_NONE);
	for (uint32_t bit = 0; bit < 8 * FX_IP4_LEN; bit++) { /* one wrong bit is always seen */
		f[FX_ETH_LEN + bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(l3_of(f, n + 12), FX_DROP_BAD_IP);
		f[FX_ETH_LEN + bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	n = fx_l3_write(f, &l3, FX_BTH_LEN - 1);
	assert_int_equal(l3_of(f, n + 12), FX_DROP_BAD_UDP_LEN);
	l3 = rnd_l3(6, true);
	n = fx_l3_write(f, &l3, 12);
	assert_int_equal(l3_of(f, n + 12), FX_DROP_NONE);
	f[14] = f[15] = 0xff; /* would read as untagged */
	assert_int_equal(l3_of(f, n + 12), FX_DROP_NOT_IP);
	memcpy(f + 14, "\0\1\x81\0", 4); /* a tag in a tag */
	assert_int_equal(l3_of(f, n + 12), FX_DROP_NOT_IP);
}

static void tmpl_emits_what_l3_writes(void **state)
{
	uint8_t want[FX_HDR_MAX], got[FX_HDR_MAX];
	struct fx_tmpl t;
	struct fx_l3 l3;

	(void)state;
	for (int i = 0; i < 4000; i++) {
		uint32_t n, pay = (uint32_t)(rnd() % 65000);

		l3 = rnd_l3(i & 1 ? 4 : 6, i & 2);
		fx_tmpl_init(&t, &l3);
		if (i & 1)
			l3.ip_id = (uint16_t)rnd(); /* the template's own does not matter */
		memset(want, 0x5a, sizeof(want));
		memset(got, 0x5a, sizeof(got));
		n = fx_l3_write(want, &l3, pay);
		assert_int_equal(fx_tmpl_emit(&t, got, pay, l3.ip_id), n);
		assert_int_equal(t.len, n);
		assert_memory_equal(want, got, sizeof(want)); /* and not a byte behind it */
	}
}

/* Every carry of the updated checksum, against the sum from scratch. */
static void tmpl_every_id(void **state)
{
	uint8_t want[FX_HDR_MAX], got[FX_HDR_MAX];
	struct fx_l3 l3 = rnd_l3(4, false);
	struct fx_tmpl t;

	(void)state;
	memset(l3.dst + 12, 0xff, 4);
	l3.dst[15] = 0x7f;
	for (int tos = 0; tos < 256; tos += 51) {
		l3.tos = (uint8_t)tos;
		fx_tmpl_init(&t, &l3);
		for (uint32_t id = 0; id <= 0xffff; id++) {
			l3.ip_id = (uint16_t)id;
			fx_l3_write(want, &l3, 65000);
			assert_int_equal(fx_tmpl_emit(&t, got, 65000, l3.ip_id), 42);
			assert_int_equal(memcmp(want, got, 42), 0);
		}
	}
}

/* ---- ICRC ---- */
static uint32_t icrc(const uint8_t *ip, uint32_t head, uint32_t n)
{
	return fx_icrc_end(fx_icrc_more(fx_icrc_head(ip, head), ip + head, n - head));
}

/* Which bits of byte i, counted from the IP header, the network may change. */
static uint8_t variant(int version, uint32_t i)
{
	uint32_t l4 = version == 4 ? 20 : 40;

	if (i == l4 + 6 || i == l4 + 7 || i == l4 + 8 + 4)
		return 0xff;
	if (version == 4)
		return i == 1 || i == 8 || i == 10 || i == 11 ? 0xff : 0;
	return i == 0 ? 0x0f : i <= 3 || i == 7 ? 0xff : 0;
}

static void icrc_coverage(void **state)
{
	uint8_t f[FX_HDR_MAX * 3], masked[FX_HDR_MAX * 3 + 8];

	(void)state;
	for (int i = 0; i < 64; i++) {
		int version = i & 1 ? 4 : 6;
		struct fx_l3 l3 = rnd_l3(version, false);
		uint32_t n = fx_l3_write(f, &l3, 200) - FX_ETH_LEN, crc;
		uint32_t head = n + FX_BTH_LEN + (i & 4 ? 140 : 16);
		uint8_t *ip = f + FX_ETH_LEN;

		rnd_fill(ip + n, 200);
		n += 196;
		memset(masked, 0xff, 8);
		for (uint32_t b = 0; b < n; b++)
			masked[8 + b] = ip[b] | variant(version, b);
		crc = icrc(ip, head, n);
		assert_int_equal(crc, ~crc_bits(0xffffffff, masked, n + 8));
		for (uint32_t b = 0; b < n; b++)
			for (int bit = 0; bit < (b ? 8 : 4); bit++) { /* the version says where L4 is */
				bool covered = !(variant(version, b) >> bit & 1);

				ip[b] ^= (uint8_t)(1 << bit);
				assert_int_equal(icrc(ip, head, n) != crc, covered);
				ip[b] ^= (uint8_t)(1 << bit);
			}
		assert_int_equal(icrc(ip, n, n), crc);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opcode_rows),		cmocka_unit_test(opcode_numbers),
		cmocka_unit_test(drop_names),		cmocka_unit_test(psn_circle),
		cmocka_unit_test(bth_known_bytes),	cmocka_unit_test(bth_every_opcode),
		cmocka_unit_test(bth_malformed),	cmocka_unit_test(l3_round_trip),
		cmocka_unit_test(l3_malformed),		cmocka_unit_test(l3_truncated),
		cmocka_unit_test(l3_checksum_and_tags), cmocka_unit_test(tmpl_emits_what_l3_writes),
		cmocka_unit_test(tmpl_every_id),	cmocka_unit_test(icrc_coverage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
