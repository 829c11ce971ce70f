/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device list. The device exists while a core answers: the list shakes hands with it and hangs up again, so
 * that a wrong version shows here and not in the middle of a program.
 *
 * Room: host. May use: control.c, libc.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/host.h"

/* One device a process, never freed: programs keep pointers to it beyond the list. */
static struct fx_device device;
static pthread_mutex_t device_lock = PTHREAD_MUTEX_INITIALIZER;

struct fx_device *fx_device_of(struct ibv_device *dev)
{
	return dev == &device.dev ? &device : NULL;
}

bool flexins_owns_device(const struct ibv_device *dev)
{
	return dev == &device.dev;
}

/* Not by access(), which the shim may answer, and for this very device. */
static bool in_kernel(const char *path)
{
	return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

/* A uverbs name that no real device has. */
static void name_device(struct ibv_device *d)
{
	char path[64];
	unsigned n = 0;

	do
		snprintf(path, sizeof(path), "/sys/class/infiniband_verbs/uverbs%u", n);
	while (in_kernel(path) && ++n < 1024);
	d->node_type = IBV_NODE_CA;
	d->transport_type = IBV_TRANSPORT_IB;
	snprintf(d->name, sizeof(d->name), "flexins0");
	snprintf(d->dev_name, sizeof(d->dev_name), "uverbs%u", n);
	snprintf(d->dev_path, sizeof(d->dev_path), "%s", path);
	snprintf(d->ibdev_path, sizeof(d->ibdev_path), "/sys/class/infiniband/%s", d->name);
}

const struct ibv_device *fx_device_named(void)
{
	pthread_mutex_lock(&device_lock);
	if (!device.dev.name[0])
		name_device(&device.dev);
	pthread_mutex_unlock(&device_lock);
	return &device.dev;
}

static int probe(void)
{
	struct fx_hello_rep rep;
	struct fx_conn conn;
	struct fx_fds fds;
	int err = fx_conn_open(&conn, &rep, &fds);

	if (err)
		return err;
	fx_close_fds(&fds);
	fx_conn_close(&conn);
	fx_device_named();
	pthread_mutex_lock(&device_lock);
	device.limits = rep.limits;
	pthread_mutex_unlock(&device_lock);
	return 0;
}

struct ibv_device **flexins_get_device_list(int *num_devices)
{
	struct ibv_device **list = calloc(2, sizeof(*list));
	int err;

	if (num_devices)
		*num_devices = 0;
	if (!list)
		return fx_null(ENOMEM);
	err = probe();
	if (!err) {
		list[0] = &device.dev;
		if (num_devices)
			*num_devices = 1;
	}
	if (err)
		fx_fail(err); /* beside an empty list: why it is empty */
	else
		errno = 0;
	return list;
}

void flexins_free_device_list(struct ibv_device **list)
{
	free(list);
}

const char *flexins_get_device_name(struct ibv_device *dev)
{
	return dev->name;
}

__be64 flexins_get_device_guid(struct ibv_device *dev)
{
	struct fx_device *d = fx_device_of(dev);

	return d ? d->limits.guid : 0;
}

int flexins_get_device_index(struct ibv_device *dev)
{
	(void)dev;
	return -1; /* as of a kernel without device indices */
}
