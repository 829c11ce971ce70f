/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads classic little-endian pcap files of Ethernet frames, whole, into memory. For tests; a file that is
 * not such a capture, or whose frames were cut short, is refused.
 *
 * May use: libc.
 */
#ifndef FX_TESTS_PCAP_H
#define FX_TESTS_PCAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pcap {
	uint8_t *data;
	size_t len, at;
	bool bad; /* the walk stopped at a malformed record */
};

enum { PCAP_FILE_HDR = 24, PCAP_REC_HDR = 16 };

static inline uint32_t pcap_le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void pcap_close(struct pcap *c)
{
	free(c->data);
	c->data = NULL;
}

static inline bool pcap_open(struct pcap *c, const char *path)
{
	FILE *f = fopen(path, "rb");
	long size = -1;

	*c = (struct pcap){.at = PCAP_FILE_HDR};
	if (!f)
		return false;
	if (!fseek(f, 0, SEEK_END))
		size = ftell(f);
	if (size >= PCAP_FILE_HDR && !fseek(f, 0, SEEK_SET)) {
		c->data = malloc((size_t)size);
		if (c->data)
			c->len = fread(c->data, 1, (size_t)size, f);
	}
	fclose(f);
	if (c->len == (size_t)size && pcap_le32(c->data) == 0xa1b2c3d4 && pcap_le32(c->data + 20) == 1)
		return true;
	pcap_close(c);
	return false;
}

/* The next frame, or false at the end; then c->bad tells whether the end was a clean one. */
static inline bool pcap_next(struct pcap *c, const uint8_t **frame, uint32_t *len)
{
	size_t left = c->len - c->at;
	uint32_t n;

	if (!left)
		return false;
	c->bad = true;
	if (left < PCAP_REC_HDR)
		return false;
	n = pcap_le32(c->data + c->at + 8);
	if (n > left - PCAP_REC_HDR || n != pcap_le32(c->data + c->at + 12))
		return false;
	c->bad = false;
	*frame = c->data + c->at + PCAP_REC_HDR;
	*len = n;
	c->at += PCAP_REC_HDR + n;
	return true;
}

#endif
