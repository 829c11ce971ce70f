/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Step 1 of a registration: which pages of a range are to be converted, which are shared already, which stay
 * slow.
 *
 * Room: memory. May use: memory/space.h. Control thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "memory/space.h"

/*
 * Of the pieces that are not slow at most this many are kept: each can have one slow piece before it, and one
 * follows.
 */
enum { FX_KEEP = (FX_MR_SEGS - 1) / 2 };
static_assert((int)FX_KEEP <= (int)FX_MSG_FDS, "a memfd each");

struct piece {
	uint64_t addr, len;
	enum fx_seg_kind kind;
};
struct plan {
	struct piece *piece;
	uint32_t n, cap;
	uint64_t page;
	uint32_t convert; /* pieces so far */
	bool write;	  /* the registration lets somebody write */
	bool no_convert;
	bool all_slow;
	bool sparse;
};

/*
 * Adds a piece after the last; neighbours of one kind become one, but each conversion stays within one area.
 */
static int add(struct plan *p, uint64_t addr, uint64_t len, enum fx_seg_kind kind)
{
	struct piece *last = p->n ? &p->piece[p->n - 1] : NULL;

	if (!len)
		return 0;
	if (last && last->kind == kind && kind != FX_SEG_CONVERT) {
		last->len += len;
		return 0;
	}
	if (p->n == p->cap) {
		uint32_t cap = p->cap ? 2 * p->cap : 64;
		struct piece *more = realloc(p->piece, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		p->piece = more;
		p->cap = cap;
	}
	p->piece[p->n++] = (struct piece){.addr = addr, .len = len, .kind = kind};
	p->convert += kind == FX_SEG_CONVERT;
	return 0;
}

/*
 * Every conversion can split an area in three. Past the budget only what is worth it, past twice that
 * nothing.
 */
static bool within_budget(const struct fx_space *s, const struct plan *p, uint64_t len)
{
	uint64_t vmas = 2 * ((uint64_t)s->nregion + p->convert + 1);

	return vmas <= s->vma_budget || (len >= FX_CONVERT_SMALL && vmas <= 2 * (uint64_t)s->vma_budget);
}

static bool convertible(const struct plan *p, const struct fx_vma *v)
{
	return !p->no_convert && !v->inode && v->flags == (FX_VMA_READ | FX_VMA_WRITE) && !v->stack &&
	       (!v->page || v->page == p->page);
}

/* The part [at, end) of area `v`. */
static int classify(struct fx_space *s, struct plan *p, const struct fx_vma *v, uint64_t at, uint64_t end)
{
	uint64_t lo = (at + p->page - 1) & ~(p->page - 1), hi = end & ~(p->page - 1);
	int rc;

	if (!(v->flags & FX_VMA_READ) || (p->write && !(v->flags & FX_VMA_WRITE)))
		return -EFAULT;
	if (p->all_slow)
		return add(p, at, end - at, FX_SEG_SLOW);
	/* an inode may be 0: that of the first System V segment is */
	if (v->flags & FX_VMA_SHARED)
		return add(p, at, end - at, FX_SEG_SHARED);
	if (lo >= hi || !convertible(p, v) || !within_budget(s, p, hi - lo) ||
	    fx_region_pending(s, lo, hi - lo))
		return add(p, at, end - at, FX_SEG_SLOW);
	rc = add(p, at, lo - at, FX_SEG_SLOW);
	if (!rc)
		rc = add(p, lo, hi - lo, FX_SEG_CONVERT);
	if (!rc)
		rc = add(p, hi, end - hi, FX_SEG_SLOW);
	return rc;
}

static int walk(struct fx_space *s, struct plan *p, uint64_t addr, uint64_t end)
{
	uint64_t at = addr;
	struct fx_vma v;
	int rc;

	while (at < end) {
		rc = fx_maps_at(&s->maps, at, &v);
		if (rc == -ENOENT || (!rc && v.start > at))
			return -EFAULT;
		if (!rc)
			rc = classify(s, p, &v, at, v.end < end ? v.end : end);
		if (rc)
			return rc;
		at = v.end;
	}
	return 0;
}

static int by_length(const void *x, const void *y)
{
	const struct piece *a = *(const struct piece *const *)x, *b = *(const struct piece *const *)y;

	if (a->len != b->len)
		return a->len < b->len ? 1 : -1;
	return a->addr < b->addr ? -1 : a->addr > b->addr;
}

/* Makes the smallest pieces slow until the rest fits in a message. */
static int shrink(struct plan *p)
{
	struct piece **order;
	uint32_t n = 0, old = p->n;

	if (p->n <= FX_MR_SEGS && p->convert <= FX_MSG_FDS)
		return 0;
	order = malloc(p->n * sizeof(*order));
	if (!order)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->n; i++)
		if (p->piece[i].kind != FX_SEG_SLOW)
			order[n++] = &p->piece[i];
	qsort(order, n, sizeof(struct piece *), by_length);
	for (uint32_t i = FX_KEEP; i < n; i++)
		order[i]->kind = FX_SEG_SLOW;
	free(order);
	/* Rebuilt in place: what add() writes is never beyond what is read. */
	p->n = 0;
	p->convert = 0;
	for (uint32_t i = 0; i < old; i++) {
		struct piece one = p->piece[i];
		int rc = add(p, one.addr, one.len, one.kind);

		if (rc)
			return rc;
	}
	return 0;
}

/*
 * Writes the segments; a conversion for which there is no memfd becomes slow, its neighbours stay their own.
 */
static void emit(struct fx_space *s, const struct plan *p, struct fx_mr_seg *seg, int *fds, uint32_t *nfd)
{
	for (uint32_t i = 0; i < p->n; i++) {
		const struct piece *one = &p->piece[i];
		struct fx_region *r = NULL;

		seg[i] = (struct fx_mr_seg){.addr = one->addr, .length = one->len, .kind = one->kind};
		seg[i].sparse = p->sparse && one->kind == FX_SEG_SHARED;
		if (one->kind != FX_SEG_CONVERT)
			continue;
		r = fx_region_new(s, one->addr, one->len);
		if (!r) {
			seg[i].kind = FX_SEG_SLOW;
			continue;
		}
		seg[i].offset = one->addr & (FX_HUGE - 1);
		fds[(*nfd)++] = r->fd;
	}
}

int fx_space_plan(struct fx_space *s, uint64_t addr, uint64_t length, uint32_t access, uint32_t flags,
		  struct fx_mr_seg *seg, uint32_t *nseg, int *fds, uint32_t *nfd)
{
	struct plan p = {
		.page = (uint64_t)sysconf(_SC_PAGESIZE),
		.write = access & (FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_ATOMIC),
		.no_convert = flags & FX_REG_NO_CONVERT,
		.all_slow = flags & FX_PLAN_ALL_SLOW,
		.sparse = flags & FX_REG_SPARSE,
	};
	int rc;

	*nseg = 0;
	*nfd = 0;
	if (!length || addr + length < addr)
		return -EINVAL;
	rc = fx_maps_refresh(&s->maps);
	if (rc)
		return rc;
	fx_region_sweep(s, 2 * s->nregion > s->vma_budget ? FX_REGION_BUCKETS : 2);
	rc = walk(s, &p, addr, addr + length);
	if (!rc)
		rc = shrink(&p);
	if (!rc) {
		emit(s, &p, seg, fds, nfd);
		*nseg = p.n;
	}
	free(p.piece);
	return rc;
}

void fx_space_abandon(struct fx_space *s, const struct fx_mr_seg *seg, uint32_t nseg)
{
	if (fx_maps_refresh(&s->maps))
		return; /* the application has gone, its regions go with the space */
	for (uint32_t i = 0; i < nseg; i++)
		if (seg[i].kind == FX_SEG_CONVERT)
			fx_region_settle(s, seg[i].addr, seg[i].length);
}
