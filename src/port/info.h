/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a port is, in words that need no DPDK: decided once when the port starts, read by the control room.
 *
 * Room: port. May use: C11 only.
 */
#ifndef FX_PORT_INFO_H
#define FX_PORT_INFO_H

#include <stdbool.h>
#include <stdint.h>

enum { FX_PORT_NAME = 64 };

struct fx_port_info {
	char name[FX_PORT_NAME];   /* of the ethdev */
	char driver[FX_PORT_NAME]; /* DPDK's */
	char netdev[16];	   /* the kernel's interface that has the IP, "" if none */
	uint32_t ifindex;
	uint8_t mac[6];
	uint8_t gid[16];      /* ::ffff:a.b.c.d, or an IPv6 address */
	uint32_t mtu;	      /* largest path MTU, bytes: 256 .. 4096 */
	uint32_t frame_limit; /* bytes of a frame, Ethernet header included */
	uint16_t max_segs;    /* of a chain, header included; 1: everything is linearised */
	bool loopback;	      /* the only peer is the port itself; nothing comes from outside */
	bool icrc;	      /* frames carry an invariant CRC */
	bool up;
};

#endif
