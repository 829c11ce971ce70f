/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The wire room against another implementation's packets: the captures in FX_TEST_DATA/golden. Every RoCEv2
 * packet in them must come back from its parsed fields byte for byte, with the ICRC it carries; a shortened
 * one must be refused, and a damaged one refused or kept within its bounds.
 *
 * May use: wire, cmocka.
 */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pcap.h"
#include "wire_util.h"

enum { GOLDEN_FILES = 43, GOLDEN_PACKETS = 829 };

struct packet {
	const char *file;
	const uint8_t *p;
	uint32_t len;
};

static struct pcap captures[GOLDEN_FILES];
static struct packet packets[GOLDEN_PACKETS];
static uint32_t others; /* frames that are not RoCEv2 */
static glob_t files;

/* Its own idea of what a RoCEv2 packet is, so that the parser cannot hide one. */
static bool is_roce(const uint8_t *p, uint32_t len)
{
	bool v4 = len > 42 && p[12] == 0x08 && p[13] == 0 && p[23] == 17;
	bool v6 = len > 62 && p[12] == 0x86 && p[13] == 0xdd && p[20] == 17;
	uint32_t udp = v4 ? 34 : 54;

	return (v4 || v6) && p[udp + 2] == 0x12 && p[udp + 3] == 0xb7;
}

static int load(void **state)
{
	const char *dir = getenv("FX_TEST_DATA");
	char pattern[4096];
	uint32_t n = 0;

	(void)state;
	if (!dir) {
		print_error("FX_TEST_DATA is not set\n");
		return -1;
	}
	snprintf(pattern, sizeof(pattern), "%s/golden/*.pcap", dir);
	if (glob(pattern, 0, NULL, &files) || files.gl_pathc != GOLDEN_FILES) {
		print_error("%s: %zu captures, not %d\n", pattern, files.gl_pathc, GOLDEN_FILES);
		return -1;
	}
	for (uint32_t i = 0; i < GOLDEN_FILES; i++) {
		struct packet k = {.file = files.gl_pathv[i]};

		if (!pcap_open(&captures[i], k.file))
			return -1;
		while (pcap_next(&captures[i], &k.p, &k.len)) {
			if (!is_roce(k.p, k.len))
				others++;
			else if (n++ < GOLDEN_PACKETS)
				packets[n - 1] = k;
		}
		if (captures[i].bad)
			return -1;
	}
	if (n != GOLDEN_PACKETS)
		print_error("%u RoCEv2 packets, not %d\n", n, GOLDEN_PACKETS);
	return n == GOLDEN_PACKETS ? 0 : -1;
}

static int unload(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < GOLDEN_FILES; i++)
		pcap_close(&captures[i]);
	globfree(&files);
	return 0;
}

/* A packet as fields: all that may go into writing it again. */
struct fields {
	struct fx_l3 l3;
	struct fx_bth bth;
	const uint8_t *payload;
	uint32_t payload_len; /* without pad and ICRC */
};

static void parse(const struct packet *k, struct fields *f)
{
	uint32_t off, end, len;

	assert_int_equal(fx_l3_parse(k->p, k->len, k->len, &f->l3, &off, &end), FX_DROP_NONE);
	assert_int_equal(fx_bth_parse(k->p + off, end - off, &f->bth, &len), FX_DROP_NONE);
	assert_int_equal(end, k->len);
	assert_true(end - off >= len + f->bth.pad + FX_ICRC_LEN);
	f->payload = k->p + off + len;
	f->payload_len = end - off - len - f->bth.pad - FX_ICRC_LEN;
	if (!(fx_opcodes[f->bth.opcode].flags & FX_OPF_PAYLOAD))
		assert_int_equal(f->payload_len, 0);
}

static uint32_t serialise(uint8_t *out, const struct fields *f, bool from_tmpl)
{
	uint32_t ip = f->l3.vlan == 0xffff ? 14 : 18, n, head, crc;
	uint32_t ext = fx_opcodes[f->bth.opcode].ext_len;
	uint32_t pay = FX_BTH_LEN + ext + f->payload_len + f->bth.pad + FX_ICRC_LEN;
	struct fx_tmpl t;

	if (from_tmpl) {
		fx_tmpl_init(&t, &f->l3);
		n = fx_tmpl_emit(&t, out, pay, f->l3.ip_id);
	} else {
		n = fx_l3_write(out, &f->l3, pay);
	}
	n += fx_bth_write(out + n, &f->bth);
	head = n;
	memcpy(out + n, f->payload, f->payload_len);
	n += f->payload_len;
	memset(out + n, 0, f->bth.pad);
	n += f->bth.pad;
	crc = fx_icrc_end(fx_icrc_more(fx_icrc_head(out + ip, head - ip), out + head, n - head));
	for (int i = 0; i < FX_ICRC_LEN; i++)
		out[n++] = (uint8_t)(crc >> 8 * i);
	return n;
}

static void every_packet_comes_back(void **state)
{
	uint32_t seen[256] = {0}, opcodes = 0, v6 = 0;
	uint8_t out[FRAME_MAX];
	struct fields f;

	(void)state;
	for (uint32_t i = 0; i < GOLDEN_PACKETS; i++) {
		for (int from_tmpl = 0; from_tmpl < 2; from_tmpl++) {
			memset(&f, 0xee, sizeof(f));
			parse(&packets[i], &f);
			memset(out, 0x5a, sizeof(out));
			assert_int_equal(serialise(out, &f, from_tmpl), packets[i].len);
			if (memcmp(out, packets[i].p, packets[i].len))
				print_error("%s: packet %u differs\n", packets[i].file, i);
			assert_memory_equal(out, packets[i].p, packets[i].len);
		}
		opcodes += !seen[f.bth.opcode]++;
		v6 += f.l3.ip_version == 6;
	}
	assert_int_equal(opcodes, 36);
	assert_int_equal(v6, 73);
}

/* The ICRC over the frame as it was received, not as rewritten. */
static void every_icrc_is_right(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < GOLDEN_PACKETS; i++) {
		const struct packet *k = &packets[i];
		uint32_t off, end, len, crc, stored = 0;
		struct fx_bth bth;

		assert_int_equal(fx_l3_parse(k->p, k->len, k->len, NULL, &off, &end), FX_DROP_NONE);
		assert_int_equal(fx_bth_parse(k->p + off, end - off, &bth, &len), FX_DROP_NONE);
		crc = fx_icrc_head(k->p + FX_ETH_LEN, off + len - FX_ETH_LEN);
		crc = fx_icrc_end(fx_icrc_more(crc, k->p + off + len, end - off - len - FX_ICRC_LEN));
		for (int b = 0; b < FX_ICRC_LEN; b++)
			stored |= (uint32_t)k->p[end - FX_ICRC_LEN + (uint32_t)b] << 8 * b;
		assert_int_equal(crc, stored);
	}
}

static void other_frames_are_refused(void **state)
{
	const uint8_t *p;
	uint32_t len, n = 0;

	(void)state;
	for (uint32_t i = 0; i < GOLDEN_FILES; i++) {
		captures[i].at = PCAP_FILE_HDR;
		while (pcap_next(&captures[i], &p, &len)) {
			if (is_roce(p, len))
				continue;
			assert_int_not_equal(l3_of(p, len), FX_DROP_NONE);
			n++;
		}
	}
	assert_int_equal(n, others);
}

/* Cut at every length: a frame that ends there, and a whole one of which only so much is contiguous. */
static void every_truncation_is_refused(void **state)
{
	uint8_t *block, *p;
	struct fx_bth bth;
	struct fx_l3 l3;

	(void)state;
	for (uint32_t i = 0; i < GOLDEN_PACKETS; i++) {
		uint32_t full = packets[i].len, off, bth_off, end, len;
		enum fx_drop d;

		assert_int_equal(fx_l3_parse(packets[i].p, full, full, NULL, &bth_off, &end), FX_DROP_NONE);
		block = malloc(full);
		for (uint32_t cut = 0; cut < full; cut++) {
			p = block + full - cut; /* ends where the block does */
			memcpy(p, packets[i].p, cut);
			d = fx_l3_parse(p, cut, cut, &l3, &off, &end);
			assert_int_equal(d, cut < bth_off - FX_UDP_LEN ? FX_DROP_SHORT : FX_DROP_BAD_IP);
			d = fx_l3_parse(p, cut, full, &l3, &off, &end);
			assert_int_equal(d, cut < bth_off ? FX_DROP_SHORT : FX_DROP_NONE);
			if (cut < bth_off)
				continue;
			assert_int_equal(off, bth_off);
			d = fx_bth_parse(p + off, cut - off, &bth, &len);
			if (cut - off < FX_BTH_LEN + (uint32_t)fx_opcodes[packets[i].p[off]].ext_len)
				assert_int_equal(d, FX_DROP_SHORT);
			else
				assert_int_equal(d, FX_DROP_NONE);
		}
		free(block);
	}
}

/* Random damage to headers: what still parses lies within the frame and survives a rewrite unchanged. */
static void damage_stays_in_bounds(void **state)
{
	uint8_t out[FX_HDR_MAX], twice[FX_HDR_MAX];
	uint32_t off, end, len, n, survivors = 0;
	struct fx_l3 l3, l3_again;
	struct fx_bth bth, bth_again;

	(void)state;
	for (int i = 0; i < 400000; i++) {
		const struct packet *k = &packets[rnd() % GOLDEN_PACKETS];
		uint32_t have = k->len < FX_HDR_MAX ? k->len : FX_HDR_MAX;
		uint8_t *p = malloc(have);

		memcpy(p, k->p, have);
		for (int hits = 1 + (int)(rnd() % 3); hits; hits--)
			p[rnd() % have] = (uint8_t)rnd();
		if (fx_l3_parse(p, have, k->len, &l3, &off, &end) == FX_DROP_NONE) {
			assert_true(off + FX_BTH_LEN <= end && end <= k->len && off <= have);
			len = end < have ? end : have;
			if (fx_bth_parse(p + off, len - off, &bth, &len) == FX_DROP_NONE) {
				assert_true(off + len <= have && off + len <= end);
				n = fx_l3_write(out, &l3, end - off);
				assert_int_equal(n, off);
				assert_int_equal(fx_bth_write(out + n, &bth), len);
				assert_int_equal(fx_l3_parse(out, n, end, &l3_again, &n, &end), FX_DROP_NONE);
				assert_int_equal(fx_bth_parse(out + n, len, &bth_again, &len), FX_DROP_NONE);
				same_l3(&l3, &l3_again);
				same_bth(&bth, &bth_again);
				fx_l3_write(twice, &l3_again, end - off);
				fx_bth_write(twice + n, &bth_again);
				assert_memory_equal(out, twice, n + len);
				survivors++;
			}
		}
		free(p);
	}
	assert_true(survivors > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_packet_comes_back),  cmocka_unit_test(every_icrc_is_right),
		cmocka_unit_test(other_frames_are_refused), cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(damage_stays_in_bounds),
	};

	return cmocka_run_group_tests(tests, load, unload);
}
