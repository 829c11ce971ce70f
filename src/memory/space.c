/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One application's address space: opening it, and keeping the memfds that its memory was converted into.
 *
 * Room: memory. May use: memory/space.h, /proc. Control thread, but for fx_space_put().
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/space.h"

#define FX_SPARSE_SIZE (UINT64_C(1) << 46) /* of every memfd, so that a region can grow in place */

static uint32_t read_map_count(void)
{
	unsigned int n = 0;
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");

	if (f) {
		if (fscanf(f, "%u", &n) != 1)
			n = 0;
		fclose(f);
	}
	return n ? n : 65530;
}

static int open_proc(struct fx_space *s, const char **what)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", s->pid);
	*what = "find its /proc entry";
	s->proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->proc < 0)
		return -errno;
	*what = "open its memory (the core needs root, or the application's user and leave to trace it)";
	s->mem = openat(s->proc, "mem", O_RDWR | O_CLOEXEC);
	if (s->mem < 0)
		return -errno;
	*what = "read its memory map";
	s->maps.fd = openat(s->proc, "maps", O_RDONLY | O_CLOEXEC);
	return s->maps.fd < 0 ? -errno : 0;
}

struct fx_space *fx_space_open(pid_t pid, char *why, size_t whylen)
{
	struct fx_space *s = calloc(1, sizeof(*s));
	const char *what = "get memory";
	int rc = -ENOMEM;

	if (s) {
		*s = (struct fx_space){.pid = pid, .proc = -1, .mem = -1, .maps.fd = -1};
		atomic_store(&s->refs, 1);
		s->vma_budget = read_map_count() / 4;
		rc = open_proc(s, &what);
		if (!rc)
			rc = fx_maps_refresh(&s->maps);
	}
	if (!rc)
		return s;
	snprintf(why, whylen, "process %d: cannot %s: %s", pid, what, strerror(-rc));
	if (s)
		fx_space_put(s);
	errno = -rc;
	return NULL;
}

void fx_space_put(struct fx_space *s)
{
	/* acq_rel: all that the others did with the space comes before what the last one undoes */
	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	fx_slow_free(s);
	fx_maps_free(&s->maps);
	if (s->mem >= 0)
		close(s->mem);
	if (s->proc >= 0)
		close(s->proc);
	free(s);
}

static void region_free(struct fx_space *s, struct fx_region **link)
{
	struct fx_region *r = *link;

	*link = r->next;
	s->nregion--;
	if (r->pending)
		s->npending--;
	close(r->fd); /* windows that map it keep its pages */
	free(r);
}

void fx_space_close(struct fx_space *s)
{
	if (!s)
		return;
	for (int i = 0; i < FX_REGION_BUCKETS; i++)
		while (s->bucket[i])
			region_free(s, &s->bucket[i]);
	fx_slow_stop(s);
	fx_space_put(s);
}

/* A sealed memfd of which any part can be mapped; the application can neither shrink nor unseal it. */
static int sealed_memfd(uint64_t need)
{
	int fd = memfd_create(FX_MR_MEMFD, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint64_t size = FX_SPARSE_SIZE;
	struct rlimit rl;

	if (fd < 0)
		return -errno;
	/* growing past RLIMIT_FSIZE would not fail but kill */
	if (!getrlimit(RLIMIT_FSIZE, &rl) && rl.rlim_cur < size)
		size = rl.rlim_cur & ~((uint64_t)FX_HUGE - 1);
	if (size >= need && !ftruncate(fd, (off_t)size) &&
	    !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return fd;
	close(fd);
	return -ENOSPC;
}

static struct fx_region **bucket_of(struct fx_space *s, ino_t ino)
{
	return &s->bucket[((uint64_t)ino * UINT64_C(0x9e3779b97f4a7c15)) >> 56];
}
static_assert(FX_REGION_BUCKETS == 256, "bucket_of");

/* A memfd for [addr, addr + len), which is at offset addr % FX_HUGE of it. NULL: this one stays slow. */
struct fx_region *fx_region_new(struct fx_space *s, uint64_t addr, uint64_t len)
{
	struct fx_region *r, **b;
	struct stat st;
	int fd;

	if (s->npending >= FX_PENDING_MAX)
		return NULL;
	fd = sealed_memfd(len + FX_HUGE);
	if (fd < 0)
		return NULL;
	r = calloc(1, sizeof(*r));
	if (!r || fstat(fd, &st)) {
		free(r);
		close(fd);
		return NULL;
	}
	b = bucket_of(s, st.st_ino);
	*r = (struct fx_region){
		.next = *b,
		.addr = addr,
		.len = len,
		.dev = st.st_dev,
		.ino = st.st_ino,
		.fd = fd,
		.pending = true,
	};
	*b = r;
	s->nregion++;
	s->npending++;
	return r;
}

struct fx_region *fx_region_find(struct fx_space *s, const struct fx_vma *v)
{
	struct fx_region *r = *bucket_of(s, v->inode);

	while (r && (r->ino != v->inode || r->dev != v->dev))
		r = r->next;
	return r;
}

/* Does the application still map any of it where it was? */
static bool region_live(struct fx_space *s, const struct fx_region *r)
{
	uint64_t at = r->addr, end = r->addr + r->len;
	struct fx_vma v;

	while (at < end && !fx_maps_at(&s->maps, at, &v) && v.start < end) {
		if (v.inode == r->ino && v.dev == r->dev && (v.flags & FX_VMA_SHARED))
			return true;
		at = v.end;
	}
	return false;
}

/* Step 2 of [addr, addr + len) is over: what the application did not map is dropped. */
void fx_region_settle(struct fx_space *s, uint64_t addr, uint64_t len)
{
	if (!s->npending)
		return;
	for (int i = 0; i < FX_REGION_BUCKETS; i++) {
		struct fx_region **link = &s->bucket[i];

		while (*link) {
			struct fx_region *r = *link;

			if (r->pending && r->addr == addr && r->len == len) {
				r->pending = false;
				s->npending--;
				if (!region_live(s, r)) {
					region_free(s, link);
					continue;
				}
			}
			link = &r->next;
		}
	}
}

/* Has some of [addr, addr + len) been handed out already? To convert it twice would lose the first window. */
bool fx_region_pending(const struct fx_space *s, uint64_t addr, uint64_t len)
{
	if (!s->npending)
		return false;
	for (int i = 0; i < FX_REGION_BUCKETS; i++)
		for (const struct fx_region *r = s->bucket[i]; r; r = r->next)
			if (r->pending && r->addr < addr + len && addr < r->addr + r->len)
				return true;
	return false;
}

/* Collects regions that the application has unmapped; a few buckets at a time, on the way of every plan. */
void fx_region_sweep(struct fx_space *s, uint32_t buckets)
{
	while (buckets--) {
		struct fx_region **link = &s->bucket[s->sweep++ % FX_REGION_BUCKETS];

		while (*link) {
			if (!(*link)->pending && !region_live(s, *link))
				region_free(s, link);
			else
				link = &(*link)->next;
		}
	}
}
