/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Step 2 of a registration: look at what the application shares by now, and map that as one flat window.
 *
 * Room: memory. May use: memory/space.h, /proc. Control thread.
 *
 * Everything here is decided by what the kernel says about the application's memory, nothing by what the
 * application said. A file is opened for real only once it is known to be a plain file of tmpfs or hugetlbfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "memory/space.h"

/*
 * Areas that all windows together may cost this process; past that memory stays slow. Half of the kernel's
 * default.
 */
enum { FX_WINDOW_VMAS = 32 << 10 };
static uint32_t window_vmas;

/* A part of the region as it will be mapped. */
struct part {
	uint64_t addr, len;
	uint64_t off;  /* in the file, of addr */
	uint64_t page; /* what mappings of this file must be aligned to */
	int fd;	       /* -1: slow */
	int prot;
	bool opened; /* fd is ours to close */
	bool sparse;
};
struct build {
	struct fx_space *space;
	bool write, sparse;
	uint64_t page;
	uint32_t n;
	struct part part[FX_WINDOW_PIECES];
	/* where it goes: address `lo` of the application is `at` here */
	uint64_t lo, hi;
	uint8_t *at;
};

/* ---- what is there ---- */

static void add_slow(struct build *b, uint64_t addr, uint64_t len)
{
	struct part *last = b->n ? &b->part[b->n - 1] : NULL;

	if (last && last->fd < 0)
		last->len += len;
	else
		b->part[b->n++] = (struct part){.addr = addr, .len = len, .fd = -1};
}

/* Opens the file behind area `v`, if it is what the area says and safe to map. Returns the fd or -1. */
static int open_backing(const struct fx_space *s, const struct fx_vma *v, struct part *out)
{
	char path[64];
	struct statfs fs;
	struct stat st;
	int fd = -1, look;

	snprintf(path, sizeof(path), "map_files/%" PRIx64 "-%" PRIx64, v->start, v->end);
	look = openat(s->proc, path, O_PATH | O_CLOEXEC); /* opens nothing: it may be a device */
	if (look < 0)
		return -1;
	if (fstat(look, &st) || fstatfs(look, &fs))
		goto out;
	if (!S_ISREG(st.st_mode) || st.st_ino != v->inode || st.st_dev != v->dev)
		goto out;
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC)
		goto out;
	if (fs.f_type == HUGETLBFS_MAGIC)
		out->page = (uint64_t)fs.f_bsize;
	if ((uint64_t)st.st_size < out->off + out->len)
		goto out;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", look);
	fd = open(path, ((v->flags & FX_VMA_WRITE) ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
out:
	close(look);
	return fd;
}

/* The part [at, end) of area `v`: shared memory that we can map, or slow. */
static void add_area(struct build *b, const struct fx_vma *v, uint64_t at, uint64_t end)
{
	struct part p = {
		.addr = at,
		.len = end - at,
		.off = v->offset + (at - v->start),
		.page = b->page,
		.fd = -1,
		.sparse = b->sparse,
		.prot = PROT_READ | ((v->flags & FX_VMA_WRITE) ? PROT_WRITE : 0),
	};
	struct fx_region *r;

	/* of any kind of part there must be room for one more, a slow one */
	if (b->n + 1 < FX_WINDOW_PIECES && (v->flags & FX_VMA_SHARED) && (v->flags & FX_VMA_READ) &&
	    (!b->write || (v->flags & FX_VMA_WRITE))) {
		r = fx_region_find(b->space, v);
		p.fd = r ? r->fd : open_backing(b->space, v, &p);
		p.opened = !r;
	}
	if (p.fd < 0)
		add_slow(b, at, end - at);
	else
		b->part[b->n++] = p;
}

static int look(struct build *b, uint64_t addr, uint64_t len)
{
	uint64_t at = addr, end = addr + len;
	struct fx_vma v;
	int rc;

	while (at < end) {
		rc = fx_maps_at(&b->space->maps, at, &v);
		if (rc)
			return rc == -ENOENT ? -EFAULT : rc;
		if (v.start > at)
			return -EFAULT;
		add_area(b, &v, at, v.end < end ? v.end : end);
		at = v.end;
	}
	return 0;
}

static int look_all(struct build *b, const struct fx_mr_seg *seg, uint32_t nseg, uint64_t converted)
{
	int rc = fx_maps_refresh(&b->space->maps);

	for (uint32_t i = 0; i < nseg && !rc; i++) {
		bool claimed = seg[i].kind == FX_SEG_SHARED ||
			       (seg[i].kind == FX_SEG_CONVERT && (converted >> i & 1));

		b->sparse = seg[i].sparse;
		if (claimed)
			rc = look(b, seg[i].addr, seg[i].length);
		else
			add_slow(b, seg[i].addr, seg[i].length);
	}
	return rc;
}

/* ---- mapping it ---- */

/*
 * Reserves addresses for all parts to be mapped, congruent to the application's modulo the largest page, and
 * gives back what is beyond them. Leaves b->at NULL where nothing is to be mapped.
 */
static int reserve(struct build *b)
{
	uint64_t align = b->page, size;
	uint8_t *raw;

	for (uint32_t i = 0; i < b->n; i++) {
		const struct part *p = &b->part[i];

		if (p->fd < 0)
			continue;
		if (p->page > align)
			align = p->page;
		if (!b->hi)
			b->lo = p->addr & ~(p->page - 1);
		b->hi = (p->addr + p->len + p->page - 1) & ~(p->page - 1);
	}
	if (!b->hi)
		return 0;
	if (b->hi - b->lo >= FX_HUGE && align < FX_HUGE)
		align = FX_HUGE;
	size = b->hi - b->lo;
	raw = mmap(NULL, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (raw == MAP_FAILED)
		return -ENOMEM;
	b->at = raw + ((b->lo - (uintptr_t)raw) & (align - 1));
	if (b->at != raw)
		munmap(raw, (size_t)(b->at - raw));
	if (raw + align != b->at)
		munmap(b->at + size, (size_t)(raw + align - b->at));
	return 0;
}

static void map_part(struct build *b, struct part *p)
{
	uint64_t skip = p->addr & (p->page - 1);
	uint64_t len = (skip + p->len + p->page - 1) & ~(p->page - 1);
	uint8_t *to = b->at + (p->addr - skip - b->lo);
	int flags = MAP_SHARED | MAP_FIXED | (p->sparse ? 0 : MAP_POPULATE);

	if (window_vmas < FX_WINDOW_VMAS &&
	    mmap(to, len, p->prot, flags, p->fd, (off_t)(p->off - skip)) == to)
		return;
	/* a mapping that fails may have taken the reservation away first */
	mmap(to, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (p->opened)
		close(p->fd);
	p->fd = -1;
}

/* Neighbouring parts that are both mapped are one run, wherever they come from; so are both slow. */
static int make_runs(const struct build *b, struct fx_window *w, struct fx_mr *mr)
{
	struct fx_mr_run *run = calloc(b->n, sizeof(*run));
	uint32_t n = 0;

	if (!run)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->n; i++) {
		const struct part *p = &b->part[i];

		if (n && (p->fd >= 0) == (run[n - 1].base != NULL)) {
			run[n - 1].len += p->len;
			continue;
		}
		run[n++] = (struct fx_mr_run){
			.off = p->addr - w->addr,
			.len = p->len,
			.base = p->fd >= 0 ? b->at + (p->addr - b->lo) : NULL,
		};
		w->vmas += 2;
	}
	w->run = run;
	mr->run = run;
	mr->nrun = n;
	mr->base = n == 1 ? run[0].base : NULL;
	return 0;
}

static void close_parts(struct build *b)
{
	for (uint32_t i = 0; i < b->n; i++)
		if (b->part[i].opened && b->part[i].fd >= 0)
			close(b->part[i].fd);
}

/* Fills in w->map; on failure the caller undoes all with discard(). */
static int build(struct build *b, struct fx_window *w, struct fx_mr *mr)
{
	int rc = reserve(b);

	if (rc)
		return rc;
	if (b->at) {
		w->map = b->at;
		w->maplen = b->hi - b->lo;
		for (uint32_t i = 0; i < b->n; i++)
			if (b->part[i].fd >= 0)
				map_part(b, &b->part[i]);
	}
	rc = make_runs(b, w, mr);
	if (!rc && !mr->base)
		rc = fx_slow_start(b->space);
	return rc;
}

static void discard(struct fx_window *w, struct fx_mr *mr)
{
	if (w->map)
		munmap(w->map, w->maplen);
	free(w->run);
	free(w);
	mr->base = NULL;
	mr->run = NULL;
	mr->nrun = 0;
	mr->slow = NULL;
}

static uint64_t span(const struct fx_mr_seg *seg, uint32_t nseg)
{
	return nseg ? seg[nseg - 1].addr + seg[nseg - 1].length - seg[0].addr : 0;
}

int fx_space_commit(struct fx_space *s, const struct fx_mr_seg *seg, uint32_t nseg, uint64_t converted,
		    struct fx_mr *mr)
{
	struct fx_window *w = calloc(1, sizeof(*w));
	struct build *b = calloc(1, sizeof(*b));
	int rc = w && b && nseg ? 0 : nseg ? -ENOMEM : -EINVAL;

	if (!rc) {
		w->space = s;
		w->addr = seg[0].addr;
		b->space = s;
		b->page = (uint64_t)sysconf(_SC_PAGESIZE);
		b->write = mr->access & (FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_ATOMIC);
		rc = look_all(b, seg, nseg, converted);
		if (!rc)
			rc = build(b, w, mr);
		close_parts(b);
	}
	free(b);
	if (nseg)
		fx_space_abandon(s, seg, nseg); /* drops the memfds that were not used */
	if (rc) {
		if (w)
			discard(w, mr);
		return rc;
	}
	/* relaxed: the caller holds a reference already */
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	mr->length = span(seg, nseg);
	mr->slow = w;
	w->mr = mr;
	window_vmas += w->vmas;
	fx_guard_add(w);
	return 0;
}

void fx_mr_unmap(struct fx_mr *mr)
{
	struct fx_window *w = mr->slow;

	if (!w)
		return;
	fx_guard_del(w);
	window_vmas -= w->vmas;
	fx_space_put(w->space);
	discard(w, mr);
}

const char *fx_mr_window_kind(const struct fx_mr *mr)
{
	if (mr->base)
		return "mapped";
	return mr->nrun > 1 ? "mixed" : "slow";
}
