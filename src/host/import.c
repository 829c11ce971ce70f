/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Importing: who has the command descriptor of a context of this process gets that context, and the objects whose
 * handles it knows. Their last close is the one that counts. Of another process's nothing can be imported: its
 * rings and its registered memory are where that process is.
 *
 * Room: host. May use: context.c.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/host.h"

#define CONTEXT_FILE "flexins-context"

/* An empty file, of which only the identity counts. */
int fx_import_fd(void)
{
	return memfd_create(CONTEXT_FILE, MFD_CLOEXEC);
}

/* Made by some process's fx_import_fd()? */
static bool is_context_file(int fd)
{
	static const char want[] = "/memfd:" CONTEXT_FILE;
	char link[64], name[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name));
	return n >= (ssize_t)sizeof(want) - 1 && memcmp(name, want, sizeof(want) - 1) == 0;
}

bool fx_import_same(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

struct ibv_context *flexins_import_device(int cmd_fd)
{
	struct fx_context *ctx;

	if (!is_context_file(cmd_fd)) {
		fx_why("this descriptor is of no FlexiNS context");
		return fx_null(EBADF);
	}
	ctx = fx_context_share(cmd_fd);
	if (!ctx) {
		fx_why("contexts of other processes cannot be imported: their rings and memory are theirs alone");
		return fx_null(EOPNOTSUPP);
	}
	if (cmd_fd != ctx->verbs.context.cmd_fd)
		close(cmd_fd); /* it was given to us */
	return &ctx->verbs.context;
}

struct ibv_pd *flexins_import_pd(struct ibv_context *c, uint32_t handle)
{
	struct fx_context *ctx = fx_context_of(c);
	struct fx_vpd *pd;

	pthread_mutex_lock(&ctx->lock);
	for (pd = ctx->pds; pd && pd->pd.handle != handle;)
		pd = pd->next;
	pthread_mutex_unlock(&ctx->lock);
	return pd ? &pd->pd : fx_null(EINVAL);
}

struct ibv_mr *flexins_import_mr(struct ibv_pd *ibpd, uint32_t handle)
{
	struct fx_context *ctx = fx_context_of(ibpd->context);
	struct fx_vmr *mr;

	pthread_mutex_lock(&ctx->lock);
	for (mr = ctx->mrs; mr && (mr->mr.handle != handle || mr->mr.pd != ibpd);)
		mr = mr->peer;
	pthread_mutex_unlock(&ctx->lock);
	return mr ? &mr->mr : fx_null(EINVAL);
}

/* What was imported is the object itself, which its owner destroys. */
void flexins_unimport_pd(struct ibv_pd *pd)
{
	(void)pd;
}
void flexins_unimport_mr(struct ibv_mr *mr)
{
	(void)mr;
}
