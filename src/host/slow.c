/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The regions of which parts are slow: reached by the core's helper thread only. Found by lkey under a lock of a few
 * instructions; the other regions are not here, so that a program without slow memory pays for nothing.
 *
 * Room: host. May use: pool.c.
 *
 * The application's memory is copied by the kernel, which says so where there is none: by then a region may be
 * deregistered and unmapped, which on a device that has its pages pinned hurts nobody.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "host/bounce.h"

static struct fx_vmr **bucket_of(struct fx_context *ctx, uint32_t lkey)
{
	return &ctx->slow[lkey % FX_BUCKETS];
}

/* Holds ctx->slow_lock. */
static struct fx_vmr *find(struct fx_context *ctx, uint32_t lkey)
{
	struct fx_vmr *mr = *bucket_of(ctx, lkey);

	while (mr && mr->mr.lkey != lkey)
		mr = mr->next;
	return mr;
}

static bool covers(const struct fx_vmr *mr, uint64_t va, uint64_t len)
{
	uint64_t length = mr->mr.length;

	return va >= mr->iova && len <= length && va - mr->iova <= length - len;
}

void fx_slow_add(struct fx_vmr *mr, const struct fx_reg_mr_done_rep *keys)
{
	struct fx_context *ctx = fx_context_of(mr->mr.context);
	struct fx_vmr **bucket = bucket_of(ctx, mr->mr.lkey);
	uint32_t n = keys->nslow;

	if (!ctx->bounce || !n || n > FX_SLOW_RUNS)
		return;
	mr->slow = malloc(n * sizeof(*mr->slow));
	if (!mr->slow)
		return; /* the helper thread does it */
	memcpy(mr->slow, keys->slow, n * sizeof(*mr->slow));
	mr->nslow = n;
	fx_pool_make(fx_pd_of(mr->mr.pd)->root);
	fx_lock(&ctx->slow_lock);
	mr->next = *bucket;
	*bucket = mr;
	__atomic_store_n(&ctx->nslow, ctx->nslow + 1, __ATOMIC_RELAXED);
	fx_unlock(&ctx->slow_lock);
}

/* When it returns nothing writes there any more. */
void fx_slow_remove(struct fx_vmr *mr)
{
	struct fx_context *ctx = fx_context_of(mr->mr.context);
	struct fx_vmr **p = bucket_of(ctx, mr->mr.lkey);

	if (!mr->nslow)
		return;
	fx_lock(&ctx->slow_lock);
	while (*p != mr)
		p = &(*p)->next;
	*p = mr->next;
	__atomic_store_n(&ctx->nslow, ctx->nslow - 1, __ATOMIC_RELAXED);
	fx_unlock(&ctx->slow_lock);
	/* acquire: against the release of fx_slow_write() */
	while (__atomic_load_n(&mr->writers, __ATOMIC_ACQUIRE))
		sched_yield();
	free(mr->slow);
}

const struct fx_vmr *fx_slow_find(struct fx_vqp *qp, const struct ibv_sge *sge, bool land)
{
	const struct fx_vmr *mr = find(qp->ctx, sge->lkey);

	if (!mr || fx_pd_of(mr->mr.pd)->root != fx_pd_of(qp->qp.pd)->root ||
	    !covers(mr, sge->addr, sge->length))
		return NULL;
	return land && !(mr->access & IBV_ACCESS_LOCAL_WRITE) ? NULL : mr;
}

bool fx_slow_at(const struct fx_vmr *mr, uint64_t off, uint32_t *len)
{
	uint64_t room = mr->mr.length - off;
	bool slow = false;

	for (uint32_t i = 0; i < mr->nslow; i++) {
		const struct fx_slow_run *r = &mr->slow[i];

		if (off >= r->off && off - r->off >= r->length)
			continue;
		slow = off >= r->off;
		room = slow ? r->length - (off - r->off) : r->off - off;
		break;
	}
	if (*len > room)
		*len = (uint32_t)room;
	return slow;
}

/* Where the kernel will not (a filter of system calls), the application has to be right. */
static bool refused(ssize_t n)
{
	return n < 0 && (errno == ENOSYS || errno == EPERM);
}

bool fx_slow_read(const struct fx_context *ctx, void *to, uint64_t addr, uint32_t len)
{
	struct iovec mine = {.iov_base = to, .iov_len = len};
	struct iovec theirs = {.iov_base = (void *)(uintptr_t)addr, .iov_len = len};
	int keep = errno;
	ssize_t n = process_vm_readv(ctx->pid, &mine, 1, &theirs, 1, 0);

	if (refused(n)) {
		memcpy(to, theirs.iov_base, len);
		n = len;
	}
	errno = keep;
	return n == (ssize_t)len;
}

static bool write_there(const struct fx_context *ctx, uint64_t addr, const void *from, uint32_t len)
{
	struct iovec mine = {.iov_base = (void *)(uintptr_t)from, .iov_len = len};
	struct iovec theirs = {.iov_base = (void *)(uintptr_t)addr, .iov_len = len};
	int keep = errno;
	ssize_t n = process_vm_writev(ctx->pid, &mine, 1, &theirs, 1, 0);

	if (refused(n)) {
		memcpy(theirs.iov_base, from, len);
		n = len;
	}
	errno = keep;
	return n == (ssize_t)len;
}

bool fx_slow_write(struct fx_context *ctx, uint32_t lkey, uint64_t addr, const void *from, uint32_t len)
{
	struct fx_vmr *mr;
	uint64_t start;
	bool ok;

	fx_lock(&ctx->slow_lock);
	mr = find(ctx, lkey);
	start = mr ? (uintptr_t)mr->mr.addr : 0;
	/* another region may have been given the key meanwhile */
	if (!mr || addr < start || !covers(mr, mr->iova + (addr - start), len)) {
		fx_unlock(&ctx->slow_lock);
		return false;
	}
	__atomic_fetch_add(&mr->writers, 1, __ATOMIC_RELAXED);
	fx_unlock(&ctx->slow_lock);
	ok = write_there(ctx, addr, from, len);
	/* release: the bytes are written before fx_slow_remove() can return */
	__atomic_fetch_sub(&mr->writers, 1, __ATOMIC_RELEASE);
	return ok;
}
