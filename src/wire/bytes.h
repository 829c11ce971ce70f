/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Big-endian integers at unaligned addresses, as single loads and stores.
 *
 * Room: wire. May use: C11 and the compiler's byte swap.
 */
#ifndef FX_WIRE_BYTES_H
#define FX_WIRE_BYTES_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FX_BE16(v) __builtin_bswap16(v)
#define FX_BE32(v) __builtin_bswap32(v)
#define FX_BE64(v) __builtin_bswap64(v)
#else
#define FX_BE16(v) (v)
#define FX_BE32(v) (v)
#define FX_BE64(v) (v)
#endif

static inline uint16_t fx_get16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return FX_BE16(v);
}
static inline uint32_t fx_get32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return FX_BE32(v);
}
static inline uint64_t fx_get64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return FX_BE64(v);
}
static inline void fx_put16(void *p, uint16_t v)
{
	v = FX_BE16(v);
	memcpy(p, &v, sizeof(v));
}
static inline void fx_put32(void *p, uint32_t v)
{
	v = FX_BE32(v);
	memcpy(p, &v, sizeof(v));
}
static inline void fx_put64(void *p, uint64_t v)
{
	v = FX_BE64(v);
	memcpy(p, &v, sizeof(v));
}

#endif
