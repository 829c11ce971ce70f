/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A port: one DPDK ethdev, its addresses, and what it can carry.
 *
 * Room: port. May use: DPDK's ethdev, wire. What the driver can do is decided once, when the port starts,
 * from its capabilities and from a table of what drivers were seen to do (they do not all tell the truth).
 */
#ifndef FX_PORT_PORT_H
#define FX_PORT_PORT_H

#include <stddef.h>

#include <rte_ethdev.h>

#include "port/info.h"

struct fx_port_cfg {
	const char *device; /* of the ethdev, as EAL knows it */
	const char *salt;   /* makes the MAC of a port without one: two cores differ */
	const char *ip;	    /* NULL: the machine's first */
	uint32_t mtu;	    /* path MTU wanted, bytes */
	uint16_t queues;    /* one a worker */
};

struct fx_port {
	struct fx_port_info info;
	uint16_t id;
	uint16_t queues;
};

/* Finds the device and decides; nothing moves yet. 0 or a negative errno with `why`. */
int fx_port_open(struct fx_port *p, const struct fx_port_cfg *cfg, char *why, size_t size);
/* Starts it; pools[q] provides the receive buffers of queue q. */
int fx_port_start(struct fx_port *p, struct rte_mempool *const *pools, char *why, size_t size);
void fx_port_stop(struct fx_port *p);

/* Bytes of the longest frame that carries a path MTU of payload. */
uint32_t fx_port_frame(uint32_t mtu);

static inline uint16_t fx_port_rx(const struct fx_port *p, uint16_t queue, struct rte_mbuf **m, uint16_t n)
{
	return rte_eth_rx_burst(p->id, queue, m, n);
}
static inline uint16_t fx_port_tx(const struct fx_port *p, uint16_t queue, struct rte_mbuf **m, uint16_t n)
{
	return rte_eth_tx_burst(p->id, queue, m, n);
}

/* ---- address.c ---- */
/*
 * The port's IP address: `ip`, or the machine's first that is not a loopback's; else 127.0.0.1. -EINVAL: no
 * address.
 */
int fx_port_address(const char *ip, struct fx_port_info *info);

#endif
