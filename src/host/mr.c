/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Protection domains and memory regions. Registration has two steps: the core says which ranges should become
 * shared memory and brings a memfd for each; what could be converted is told back, and the keys come.
 *
 * Room: host. May use: context.c, convert.h, bounce.h.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/bounce.h"
#include "host/convert.h"
#include "host/wishes.h"

enum {
	FX_ACCESS_OURS =
		IBV_ACCESS_ZERO_BASED | IBV_ACCESS_HUGETLB, /* the core need not know: an iova; a hint */
	FX_ACCESS_KNOWN = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			  IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND | FX_ACCESS_OURS,
};

/* ---- windows ---- */

/* Between the two steps nobody else in the process may convert: ranges of regions overlap. */
static pthread_mutex_t regions_lock = PTHREAD_MUTEX_INITIALIZER;
static bool windows_ready, windows_off, windows_helper;

/* Takes the descriptor over; -1: there is none. */
void fx_windows_init(int uffd_dev_fd)
{
	const char *kind = getenv("FLEXINS_WINDOWS");

	pthread_mutex_lock(&regions_lock);
	if (!windows_ready) {
		windows_helper = kind && strcmp(kind, "helper") == 0;
		windows_off = windows_helper || (kind && strcmp(kind, "slow") == 0);
		fx_convert_init(uffd_dev_fd);
		windows_ready = true;
	} else if (uffd_dev_fd >= 0) {
		close(uffd_dev_fd);
	}
	pthread_mutex_unlock(&regions_lock);
}

void fx_windows_lock(void)
{
	pthread_mutex_lock(&regions_lock);
}
void fx_windows_unlock(void)
{
	pthread_mutex_unlock(&regions_lock);
}

const char *fx_windows_kind(const struct fx_context *ctx)
{
	if (ctx->by_dma)
		return "windows by DMA";
	if (windows_off)
		return windows_helper ? "slow windows: FLEXINS_WINDOWS=helper"
				      : "slow windows: FLEXINS_WINDOWS=slow";
	if (!fx_convert_possible())
		return "slow windows: the core could not open /dev/userfaultfd, or this process may not use it";
	return "windows mapped";
}

bool fx_windows_helper(void)
{
	return windows_helper;
}

/* ---- protection domains ---- */

struct ibv_pd *flexins_alloc_pd(struct ibv_context *c)
{
	struct fx_handle_req req = {.head = {.op = FX_MSG_ALLOC_PD}};
	struct fx_context *ctx = fx_context_of(c);
	struct fx_vpd *pd = calloc(1, sizeof(*pd));
	struct fx_handle_rep rep;
	int err;

	if (!pd)
		return fx_null(ENOMEM);
	err = fx_ask(ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
	if (err) {
		free(pd);
		return fx_null(err);
	}
	pd->pd.context = c;
	pd->pd.handle = rep.handle;
	pd->root = pd;
	pthread_mutex_lock(&ctx->lock);
	pd->next = ctx->pds;
	ctx->pds = pd;
	pthread_mutex_unlock(&ctx->lock);
	return &pd->pd;
}

int flexins_dealloc_pd(struct ibv_pd *ibpd)
{
	struct fx_context *ctx = fx_context_of(ibpd->context);
	struct fx_vpd *pd = fx_pd_of(ibpd);
	int err;

	/* acquire: against the release of whatever was the last in it */
	if (__atomic_load_n(&pd->users, __ATOMIC_ACQUIRE))
		return fx_fail(EBUSY);
	if (pd->root != pd) {
		fx_parent_free(pd);
		return 0;
	}
	fx_pool_free(pd);
	err = fx_ask_drop(ctx, FX_MSG_DEALLOC_PD, ibpd->handle);
	if (err && fx_alive(ctx))
		return fx_fail(err);
	pthread_mutex_lock(&ctx->lock);
	for (struct fx_vpd **p = &ctx->pds; *p; p = &(*p)->next)
		if (*p == pd) {
			*p = pd->next;
			break;
		}
	pthread_mutex_unlock(&ctx->lock);
	free(pd);
	return 0;
}

/* ---- memory regions ---- */

/* Converts what the core asked for; -> a bit for each segment that now is its memfd. */
static uint64_t convert(const struct fx_reg_mr_rep *rep, const struct fx_fds *fds)
{
	struct fx_kept kept;
	uint64_t done = 0;
	unsigned fd = 0;

	for (uint32_t i = 0; i < rep->nseg; i++) {
		const struct fx_mr_seg *s = &rep->seg[i];

		if (s->kind == FX_SEG_SHARED && !s->sparse)
			fx_populate((void *)(uintptr_t)s->addr, s->length);
		if (s->kind != FX_SEG_CONVERT || fd == fds->n)
			continue;
		fx_wishes_look(&kept, s->addr);
		if (fx_convert((void *)(uintptr_t)s->addr, s->length, fds->fd[fd++], s->offset,
			       PROT_READ | PROT_WRITE) == 0)
			done |= 1ull << i;
		fx_wishes_keep(&kept, s->addr, s->length, done >> i & 1);
	}
	return done;
}

int fx_register(struct fx_context *ctx, struct fx_reg_mr_req *req, struct fx_reg_mr_done_rep *keys)
{
	struct fx_reg_mr_done_req done = {.head = {.op = FX_MSG_REG_MR_DONE}};
	struct fx_reg_mr_rep rep;
	struct fx_fds fds;
	int err;

	pthread_mutex_lock(&regions_lock);
	if (ctx->by_dma || windows_off || !fx_convert_possible())
		req->flags |= FX_REG_NO_CONVERT;
	err = fx_ask(ctx, req, sizeof(*req), &rep, sizeof(rep), &fds);
	if (!err && rep.nseg > FX_MR_SEGS) {
		fx_close_fds(&fds);
		err = -EPROTO;
	}
	if (!err) {
		done.mr = rep.mr;
		done.nseg = rep.nseg;
		done.converted = convert(&rep, &fds);
		fx_close_fds(&fds);
		err = fx_ask(ctx, &done, sizeof(done), keys, sizeof(*keys), NULL);
	}
	pthread_mutex_unlock(&regions_lock);
	return err;
}

/* 0 or the errno of a registration that cannot be. */
static int check_region(uintptr_t addr, size_t length, uint64_t iova, unsigned int access)
{
	access &= ~(unsigned)IBV_ACCESS_OPTIONAL_RANGE; /* hints: may be ignored */
	if (access & ~(unsigned)FX_ACCESS_KNOWN)
		return access & IBV_ACCESS_ON_DEMAND ? EOPNOTSUPP : EINVAL;
	if ((access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) &&
	    !(access & IBV_ACCESS_LOCAL_WRITE))
		return EINVAL;
	if (!length || addr + length < addr || iova + length < iova)
		return EINVAL;
	return 0;
}

/* Gives the core a region that can be. `iova` is where its keys address it from. */
static int enroll(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access,
		  struct fx_reg_mr_done_rep *keys)
{
	struct fx_reg_mr_req req = {.head = {.op = FX_MSG_REG_MR},
				    .pd = pd->handle,
				    .access = access & ~(unsigned)FX_ACCESS_OURS,
				    .addr = (uintptr_t)addr,
				    .length = length,
				    .iova = iova};
	int err = check_region((uintptr_t)addr, length, iova, access);

	return err ? -err : fx_register(fx_context_of(pd->context), &req, keys);
}

/* The region is what the core knows by these keys. */
static void describe(struct fx_vmr *mr, struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
		     unsigned int access, const struct fx_reg_mr_done_rep *keys)
{
	mr->mr = (struct ibv_mr){.context = pd->context,
				 .pd = pd,
				 .addr = addr,
				 .length = length,
				 .handle = keys->mr,
				 .lkey = keys->lkey,
				 .rkey = keys->rkey};
	mr->iova = iova;
	mr->access = access;
	fx_slow_add(mr, keys);
	__atomic_fetch_add(&fx_pd_of(pd)->users, 1, __ATOMIC_RELAXED);
}

struct ibv_mr *flexins_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
				   unsigned int access)
{
	struct fx_context *ctx = fx_context_of(pd->context);
	struct fx_vmr *mr = calloc(1, sizeof(*mr));
	struct fx_reg_mr_done_rep keys;
	int err;

	if (!mr)
		return fx_null(ENOMEM);
	if (access & IBV_ACCESS_ZERO_BASED)
		iova = 0;
	err = enroll(pd, addr, length, iova, access, &keys);
	if (err) {
		free(mr);
		return fx_null(err);
	}
	describe(mr, pd, addr, length, iova, access, &keys);
	pthread_mutex_lock(&ctx->lock);
	mr->peer = ctx->mrs;
	if (mr->peer)
		mr->peer->back = &mr->peer;
	mr->back = &ctx->mrs;
	ctx->mrs = mr;
	pthread_mutex_unlock(&ctx->lock);
	return &mr->mr;
}

struct ibv_mr *flexins_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	return flexins_reg_mr_iova(pd, addr, length, (uintptr_t)addr, (unsigned)access);
}

/* 0, or the errno of a change that cannot be. */
static int check_change(const struct ibv_mr *mr, int flags, const struct ibv_pd *pd, const void *addr,
			size_t length, int access)
{
	if (!flags || flags & ~IBV_REREG_MR_FLAGS_SUPPORTED)
		return EINVAL;
	if (flags & IBV_REREG_MR_CHANGE_TRANSLATION && (!addr || !length))
		return EINVAL;
	if (flags & IBV_REREG_MR_CHANGE_PD && (!pd || pd->context != mr->context))
		return EINVAL;
	return access && !(flags & IBV_REREG_MR_CHANGE_ACCESS) ? EINVAL : 0;
}

static int replace(struct fx_context *ctx, struct ibv_mr *mr, struct fx_reg_mr_done_rep *with)
{
	struct fx_replace_mr_req req = {
		.head = {.op = FX_MSG_REPLACE_MR}, .mr = mr->handle, .with = with->mr};
	struct fx_msg_head rep;
	int err = fx_ask(ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);

	if (err)
		return err;
	with->mr = mr->handle;
	with->lkey = mr->lkey;
	with->rkey = mr->rkey;
	return 0;
}

/*
 * A new region takes the place of the old one, and its keys, which peers may know. The new one is there before the old
 * one goes, so that the old one stays if anything fails: a region that windows are bound to cannot go.
 */
int flexins_rereg_mr(struct ibv_mr *ibmr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	struct fx_vmr *mr = fx_container(ibmr, struct fx_vmr, mr);
	struct fx_context *ctx = fx_context_of(ibmr->context);
	bool moves = flags & IBV_REREG_MR_CHANGE_TRANSLATION;
	unsigned int rights = flags & IBV_REREG_MR_CHANGE_ACCESS ? (unsigned)access : mr->access;
	uint64_t iova = !moves ? mr->iova : rights & IBV_ACCESS_ZERO_BASED ? 0 : (uintptr_t)addr;
	int err = check_change(ibmr, flags, pd, addr, length, access);
	struct ibv_pd *old = ibmr->pd;
	struct fx_reg_mr_done_rep keys;

	if (!(flags & IBV_REREG_MR_CHANGE_PD))
		pd = old;
	if (!moves) {
		addr = ibmr->addr;
		length = ibmr->length;
	}
	if (!err)
		err = enroll(pd, addr, length, iova, rights, &keys);
	if (!err) {
		err = replace(ctx, ibmr, &keys);
		if (err)
			fx_ask_drop(ctx, FX_MSG_DEREG_MR, keys.mr);
	}
	if (err) {
		fx_fail(err);
		return IBV_REREG_MR_ERR_INPUT;
	}
	fx_slow_remove(mr);
	describe(mr, pd, addr, length, iova, rights, &keys);
	/* release: what the region was used for comes before its domain may go */
	__atomic_fetch_sub(&fx_pd_of(old)->users, 1, __ATOMIC_RELEASE);
	return 0;
}

int flexins_dereg_mr(struct ibv_mr *ibmr)
{
	struct fx_vmr *mr = fx_container(ibmr, struct fx_vmr, mr);
	struct fx_context *ctx = fx_context_of(ibmr->context);
	int err = fx_ask_drop(ctx, FX_MSG_DEREG_MR, ibmr->handle);

	if (err && fx_alive(ctx))
		return fx_fail(err);
	fx_slow_remove(mr);
	pthread_mutex_lock(&ctx->lock);
	*mr->back = mr->peer;
	if (mr->peer)
		mr->peer->back = mr->back;
	pthread_mutex_unlock(&ctx->lock);
	/* release: what the region was used for comes before its domain may go */
	__atomic_fetch_sub(&fx_pd_of(ibmr->pd)->users, 1, __ATOMIC_RELEASE);
	if (mr->map)
		munmap(mr->map, mr->map_len);
	free(mr);
	return 0;
}
