/* SPDX-License-Identifier: BSD-3-Clause */
/* A DPDK ethdev port: see port.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "port/port.h"
#include "wire/roce.h"

enum { RX_RING = 1024, TX_RING = 1024, CHAIN_SEGS = 9 }; /* a header and eight payload pieces */

/*
 * What drivers were seen to do with a header mbuf followed by external buffers. One that is not listed may do
 * what its capabilities say.
 */
static const struct {
	const char *driver;
	bool chain;    /* carries it unharmed */
	bool loopback; /* has no outside */
} drivers[] = {
	{"net_ring", true, true},   /* hands the very mbufs to the receiver */
	{"net_memif", true, false}, /* copies them one after the other */
	{"net_af_packet", true, false},	   {"net_tap", true, false},
	{"net_af_xdp", false, false}, /* the payload arrives as garbage */
	{"net_vhost", false, false},  /* stalls */
	{"net_virtio_user", false, false},
};

uint32_t fx_port_frame(uint32_t mtu)
{
	return FX_L3_MAX + FX_BTH_LEN + FX_RETH_LEN + FX_IMM_LEN + mtu + FX_ICRC_LEN;
}

/* A locally administered address made of the core's name, where the device has none of its own. */
static void make_mac(uint8_t mac[6], const char *salt)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (; *salt; salt++)
		h = (h ^ (uint8_t)*salt) * 0x100000001b3u;
	mac[0] = 0x02;
	for (int i = 1; i < 6; i++)
		mac[i] = (uint8_t)(h >> (8 * i));
}

static void decide(struct fx_port *p, const struct rte_eth_dev_info *di)
{
	bool multi = di->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	struct fx_port_info *info = &p->info;

	for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++)
		if (!strcmp(drivers[i].driver, info->driver)) {
			multi = drivers[i].chain;
			info->loopback = drivers[i].loopback;
		}
	info->max_segs = multi ? CHAIN_SEGS : 1;
	if (multi && di->tx_desc_lim.nb_mtu_seg_max && di->tx_desc_lim.nb_mtu_seg_max < CHAIN_SEGS)
		info->max_segs = di->tx_desc_lim.nb_mtu_seg_max;
	info->icrc = false; /* both ends are this program, in one memory */
}

static int find_device(struct fx_port *p, const struct fx_port_cfg *cfg, char *why, size_t size)
{
	struct rte_eth_dev_info di;
	struct rte_ether_addr mac;
	int err = rte_eth_dev_get_port_by_name(cfg->device, &p->id);

	if (err) {
		snprintf(why, size, "there is no DPDK port %s", cfg->device);
		return err;
	}
	err = rte_eth_dev_info_get(p->id, &di);
	if (err) {
		snprintf(why, size, "DPDK port %s does not tell what it is: %s", cfg->device, strerror(-err));
		return err;
	}
	snprintf(p->info.name, sizeof(p->info.name), "%s", cfg->device);
	snprintf(p->info.driver, sizeof(p->info.driver), "%s", di.driver_name);
	decide(p, &di);
	if (!p->info.loopback && rte_eth_macaddr_get(p->id, &mac) == 0 && !rte_is_zero_ether_addr(&mac))
		memcpy(p->info.mac, mac.addr_bytes, 6);
	else
		make_mac(p->info.mac, cfg->salt);
	if (di.max_tx_queues < cfg->queues || di.max_rx_queues < cfg->queues) {
		snprintf(why, size, "DPDK port %s has %u queues, %u workers need one each", cfg->device,
			 di.max_rx_queues < di.max_tx_queues ? di.max_rx_queues : di.max_tx_queues,
			 cfg->queues);
		return -EINVAL;
	}
	return 0;
}

int fx_port_open(struct fx_port *p, const struct fx_port_cfg *cfg, char *why, size_t size)
{
	int err;

	*p = (struct fx_port){.queues = cfg->queues};
	err = find_device(p, cfg, why, size);
	if (err)
		return err;
	err = fx_port_address(cfg->ip, &p->info);
	if (err) {
		snprintf(why, size, "%s is no IP address", cfg->ip);
		return err;
	}
	if (!p->info.loopback) {
		snprintf(why, size, "DPDK port %s (%s): only loopback ports are supported by this version",
			 cfg->device, p->info.driver);
		return -EOPNOTSUPP;
	}
	p->info.mtu = cfg->mtu;
	p->info.frame_limit = fx_port_frame(cfg->mtu);
	return 0;
}

int fx_port_start(struct fx_port *p, struct rte_mempool *const *pools, char *why, size_t size)
{
	struct rte_eth_conf conf = {0};
	int err = rte_eth_dev_configure(p->id, p->queues, p->queues, &conf);

	for (uint16_t q = 0; q < p->queues && !err; q++) {
		err = rte_eth_rx_queue_setup(p->id, q, RX_RING, (unsigned)SOCKET_ID_ANY, NULL, pools[q]);
		if (!err)
			err = rte_eth_tx_queue_setup(p->id, q, TX_RING, (unsigned)SOCKET_ID_ANY, NULL);
	}
	if (!err)
		err = rte_eth_dev_start(p->id);
	if (err) {
		snprintf(why, size, "cannot start DPDK port %s with %u queues: %s", p->info.name, p->queues,
			 strerror(-err));
		return err;
	}
	p->info.up = true;
	return 0;
}

void fx_port_stop(struct fx_port *p)
{
	if (!p->info.up)
		return;
	p->info.up = false;
	(void)rte_eth_dev_stop(p->id);
	(void)rte_eth_dev_close(p->id);
}
