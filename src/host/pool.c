/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Buffers that the core maps: a domain's one shared mapping, registered as any memory, cut into powers of two. What
 * has been cut stays so and is used again; pages come when they are first cut.
 *
 * Room: host. May use: mr.c to register, convert.h to populate. What is known of a buffer lies in memory of this
 * process alone, so that a forked child, which shares the buffers, has its own.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/bounce.h"
#include "host/convert.h"

static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static uint8_t *map_shared(void)
{
	int fd = memfd_create("flexins-bounce", MFD_CLOEXEC);
	void *p = MAP_FAILED;

	if (fd < 0)
		return NULL;
	if (!ftruncate(fd, FX_BOUNCE_POOL))
		p = mmap(NULL, FX_BOUNCE_POOL, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

/* 0, or why the core cannot use it: what it would reach slowly as well is of no use. */
static int enlist(struct fx_pool *p, uint32_t pd)
{
	struct fx_reg_mr_req req = {.head = {.op = FX_MSG_REG_MR},
				    .pd = pd,
				    .access = IBV_ACCESS_LOCAL_WRITE,
				    .addr = (uintptr_t)p->base,
				    .length = FX_BOUNCE_POOL,
				    .iova = (uintptr_t)p->base,
				    .flags = FX_REG_SPARSE};
	struct fx_reg_mr_done_rep keys;
	int err = fx_register(p->ctx, &req, &keys);

	if (err)
		return err;
	p->mr = keys.mr;
	p->lkey = keys.lkey;
	if (!keys.nslow)
		return 0;
	fx_ask_drop(p->ctx, FX_MSG_DEREG_MR, p->mr);
	return -EOPNOTSUPP;
}

static struct fx_pool *new_pool(const struct fx_vpd *pd)
{
	struct fx_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->ctx = fx_context_of(pd->pd.context);
	p->base = map_shared();
	if (p->base && !enlist(p, pd->pd.handle))
		return p;
	if (p->base)
		munmap(p->base, FX_BOUNCE_POOL);
	free(p);
	return NULL;
}

void fx_pool_make(struct fx_vpd *pd)
{
	pthread_mutex_lock(&making);
	if (!pd->pool) {
		/* release: a poster that finds the pool (acquire, fx_pool_of()) sees all of it */
		__atomic_store_n(&pd->pool, new_pool(pd), __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&making);
}

void fx_pool_free(struct fx_vpd *pd)
{
	struct fx_pool *p = pd->pool;

	if (!p)
		return;
	fx_ask_drop(p->ctx, FX_MSG_DEREG_MR, p->mr);
	for (uint32_t i = 0; i < FX_BOUNCE_CLASSES; i++)
		for (struct fx_bounce *b = p->free[i], *next; b; b = next) {
			next = b->next;
			free(b);
		}
	munmap(p->base, FX_BOUNCE_POOL);
	free(p);
	pd->pool = NULL;
}

/* A piece that was never used before; without memory for what is known of it, it is lost to the pool. */
static struct fx_bounce *new_buffer(struct fx_pool *p, uint32_t class, uint64_t off)
{
	struct fx_bounce *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->data = p->base + off;
	b->class = (uint8_t) class;
	/* so that this process pays for the pages, and not the core when it writes there; buffers are aligned to their size */
	fx_populate((void *)((uintptr_t)b->data & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1)),
		    (size_t)1 << (FX_BOUNCE_SHIFT + class));
	return b;
}

struct fx_bounce *fx_pool_get(struct fx_pool *p, uint32_t len)
{
	uint32_t shift = fx_log2_up(len), class = shift > FX_BOUNCE_SHIFT ? shift - FX_BOUNCE_SHIFT : 0;
	uint64_t size = UINT64_C(1) << (FX_BOUNCE_SHIFT + class), off = FX_BOUNCE_POOL;
	struct fx_bounce *b;

	fx_lock(&p->lock);
	b = p->free[class];
	if (b) {
		p->free[class] = b->next;
	} else if (((p->used + size - 1) & ~(size - 1)) + size <= FX_BOUNCE_POOL) {
		off = (p->used + size - 1) & ~(size - 1);
		p->used = off + size;
	}
	fx_unlock(&p->lock);
	if (!b && off < FX_BOUNCE_POOL)
		b = new_buffer(p, class, off);
	if (!b)
		return NULL;
	b->refs = 1;
	b->nland = b->nloan = 0;
	return b;
}

void fx_pool_put(struct fx_pool *p, struct fx_bounce *b)
{
	if (--b->refs)
		return;
	/* what is lent has no loans itself */
	for (uint32_t i = 0; i < b->nloan; i++)
		fx_pool_put(p, b->loan[i]);
	b->next = p->free[b->class];
	p->free[b->class] = b;
}
