/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which IP address a port has. rdma_cm and libfabric want one that a real interface of the machine has, so
 * the default is the first of those.
 *
 * Room: port. May use: getifaddrs.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "port/port.h"

static void put_ip4(uint8_t gid[16], const struct in_addr *a)
{
	memset(gid, 0, 10);
	gid[10] = gid[11] = 0xff;
	memcpy(gid + 12, a, 4);
}

/* The address as a GID; false if it has another family. */
static bool gid_of(const struct sockaddr *sa, uint8_t gid[16])
{
	if (!sa)
		return false;
	if (sa->sa_family == AF_INET)
		put_ip4(gid, &((const struct sockaddr_in *)(const void *)sa)->sin_addr);
	else if (sa->sa_family == AF_INET6)
		memcpy(gid, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	else
		return false;
	return true;
}

static bool usable(const struct ifaddrs *i)
{
	return i->ifa_addr && i->ifa_addr->sa_family == AF_INET && (i->ifa_flags & IFF_UP) &&
	       !(i->ifa_flags & IFF_LOOPBACK);
}

static void take(struct fx_port_info *info, const struct ifaddrs *i)
{
	snprintf(info->netdev, sizeof(info->netdev), "%s", i->ifa_name);
	info->ifindex = if_nametoindex(i->ifa_name);
}

int fx_port_address(const char *ip, struct fx_port_info *info)
{
	struct ifaddrs *list = NULL, *i;
	struct in_addr a4 = {.s_addr = htonl(INADDR_LOOPBACK)};
	uint8_t gid[16];

	info->ifindex = 0;
	info->netdev[0] = '\0';
	if (ip && inet_pton(AF_INET, ip, &a4) != 1 && inet_pton(AF_INET6, ip, info->gid) != 1)
		return -EINVAL;
	if (!ip || !strchr(ip, ':'))
		put_ip4(info->gid, &a4);
	if (getifaddrs(&list) < 0)
		return 0; /* no interface is known to have it: no reason to fail */
	for (i = list; i; i = i->ifa_next) {
		if (ip ? gid_of(i->ifa_addr, gid) && !memcmp(gid, info->gid, 16) : usable(i)) {
			gid_of(i->ifa_addr, info->gid);
			take(info, i);
			break;
		}
	}
	freeifaddrs(list);
	return 0;
}
