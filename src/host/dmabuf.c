/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Regions of dma-bufs: mapped here, and registered as any memory that is shared. An exporter that cannot be mapped by
 * processes cannot be reached.
 *
 * Room: host. May use: mr.c, libc.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/host.h"

/* 0; EBADF: no descriptor; EINVAL: of something else. */
static int check(int fd)
{
	static const char is[] = "/dmabuf:";
	char name[64], path[32];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = fd < 0 ? -1 : readlink(path, name, sizeof(name));
	if (n < 0)
		return EBADF;
	if ((size_t)n < sizeof(is) - 1 || memcmp(name, is, sizeof(is) - 1) != 0) {
		fx_why("ibv_reg_dmabuf_mr: descriptor %d is no dma-buf", fd);
		return EINVAL;
	}
	return 0;
}

struct ibv_mr *flexins_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd,
				     int access)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), skip = offset % page;
	int prot = PROT_READ | (access & IBV_ACCESS_LOCAL_WRITE ? PROT_WRITE : 0), err = check(fd);
	struct fx_vmr *mr;
	struct ibv_mr *ibmr;
	void *map;

	if (!err && (!length || length + skip < length))
		err = EINVAL;
	if (err)
		return fx_null(err);
	map = mmap(NULL, length + skip, prot, MAP_SHARED, fd, (off_t)(offset - skip));
	if (map == MAP_FAILED) {
		fx_why("ibv_reg_dmabuf_mr: whoever made dma-buf %d does not let processes map it: %m", fd);
		return fx_null(errno);
	}
	ibmr = flexins_reg_mr_iova(pd, (uint8_t *)map + skip, length, iova, (unsigned)access);
	if (!ibmr) {
		err = errno;
		munmap(map, length + skip);
		errno = err;
		return NULL;
	}
	mr = fx_container(ibmr, struct fx_vmr, mr);
	mr->map = map;
	mr->map_len = length + skip;
	return ibmr;
}
