/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The invariant CRC: what routers and NICs may change on the way counts as all ones (annex A17.3.3).
 *
 * Room: wire. May use: C11, ISA-L's CRC.
 *
 * The state between calls is the finished CRC of everything so far, which is how ISA-L chains calls; so
 * fx_icrc_end has nothing left to do.
 */
#include <isa-l/crc.h>
#include <string.h>

#include "wire/roce.h"

enum {
	ICRC_LRH = 0x2144df1c, /* CRC of eight bytes of ones, in place of the LRH that RoCEv2 has not */
	IP4_TOS = 1,
	IP4_TTL = 8,
	IP4_CSUM = 10,
	IP6_HOPS = 7,
	UDP_CSUM = 6,
	BTH_RESV = 4, /* FECN, BECN and reserved bits */
};

uint32_t fx_icrc_head(const uint8_t *ip, uint32_t len)
{
	uint32_t n = len < FX_HDR_MAX ? len : FX_HDR_MAX, l4, crc;
	uint8_t h[FX_HDR_MAX];

	/* A head shorter than its fixed headers is a caller's mistake: the answer is then any number. */
	memset(h, 0, FX_IP6_LEN + FX_UDP_LEN + FX_BTH_LEN);
	memcpy(h, ip, n);
	if (h[0] >> 4 == 4) {
		h[IP4_TOS] = 0xff;
		h[IP4_TTL] = 0xff;
		memset(h + IP4_CSUM, 0xff, 2);
		l4 = FX_IP4_LEN;
	} else {
		h[0] |= 0x0f;
		memset(h + 1, 0xff, 3);
		h[IP6_HOPS] = 0xff;
		l4 = FX_IP6_LEN;
	}
	memset(h + l4 + UDP_CSUM, 0xff, 2);
	h[l4 + FX_UDP_LEN + BTH_RESV] = 0xff;
	crc = crc32_gzip_refl(ICRC_LRH, h, n);
	return n == len ? crc : fx_icrc_more(crc, ip + n, len - n);
}

uint32_t fx_icrc_more(uint32_t state, const void *p, size_t len)
{
	return crc32_gzip_refl(state, p, len);
}

uint32_t fx_icrc_end(uint32_t state)
{
	return state;
}
