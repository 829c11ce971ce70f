/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtual memory areas of an application: by ioctl where the kernel can (6.11 and later), else from the
 * text.
 *
 * Room: memory. May use: memory/space.h, /proc.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "memory/space.h"

/* The kernel's struct procmap_query; headers of this age do not have it. */
struct fx_procmap_query {
	uint64_t size, query_flags, query_addr;
	uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
	uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};
static_assert(sizeof(struct fx_procmap_query) == 104, "PROCMAP_QUERY");
#define FX_PROCMAP_QUERY _IOWR('f', 17, struct fx_procmap_query)
enum { FX_PROCMAP_OR_NEXT = 0x10, FX_VMA_NAME = 128 };

static bool is_stack(const char *name)
{
	return strstr(name, "stack") !=
	       NULL; /* [stack], and the names that some C libraries give to threads' */
}

static bool has_stack_name(struct fx_maps *m, uint64_t addr)
{
	char name[FX_VMA_NAME] = "";
	struct fx_procmap_query q = {
		.size = sizeof(q),
		.query_addr = addr,
		.vma_name_size = sizeof(name),
		.vma_name_addr = (uint64_t)(uintptr_t)name,
	};

	return ioctl(m->fd, FX_PROCMAP_QUERY, &q) || is_stack(name); /* no answer: rather a stack */
}

static int query(struct fx_maps *m, uint64_t addr, struct fx_vma *out)
{
	struct fx_procmap_query q = {
		.size = sizeof(q), .query_flags = FX_PROCMAP_OR_NEXT, .query_addr = addr};

	if (ioctl(m->fd, FX_PROCMAP_QUERY, &q))
		return -errno;
	*out = (struct fx_vma){
		.start = q.vma_start,
		.end = q.vma_end,
		.offset = q.vma_offset,
		.inode = q.inode,
		.page = q.vma_page_size,
		.dev = makedev(q.dev_major, q.dev_minor),
		.flags = q.vma_flags & 0xf,
	};
	if (!q.inode && (out->flags & (FX_VMA_WRITE | FX_VMA_SHARED)) == FX_VMA_WRITE)
		out->stack = has_stack_name(m, q.vma_start);
	return 0;
}

static int add_line(struct fx_maps *m, const char *line)
{
	unsigned long start, end, offset, inode;
	unsigned int maj, min;
	int name = 0;
	char perm[5];

	if (sscanf(line, "%lx-%lx %4s %lx %x:%x %lu %n", &start, &end, perm, &offset, &maj, &min, &inode,
		   &name) < 7)
		return 0;
	if (m->n == m->cap) {
		size_t cap = m->cap ? 2 * m->cap : 256;
		struct fx_vma *v = realloc(m->vma, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		m->vma = v;
		m->cap = cap;
	}
	m->vma[m->n++] = (struct fx_vma){
		.start = start,
		.end = end,
		.offset = offset,
		.inode = inode,
		.dev = makedev(maj, min),
		.flags = (perm[0] == 'r' ? FX_VMA_READ : 0) | (perm[1] == 'w' ? FX_VMA_WRITE : 0) |
			 (perm[2] == 'x' ? FX_VMA_EXEC : 0) | (perm[3] == 's' ? FX_VMA_SHARED : 0),
		.stack = !inode && is_stack(line + name),
	};
	return 0;
}

/* Reads whole lines out of buf[0, have), says in *used how much of it they were. */
static int add_lines(struct fx_maps *m, char *buf, size_t have, size_t *used)
{
	char *line = buf, *end;
	int rc = 0;

	while (!rc && (end = memchr(line, '\n', have - (size_t)(line - buf)))) {
		*end = 0;
		rc = add_line(m, line);
		line = end + 1;
	}
	*used = (size_t)(line - buf);
	return rc;
}

int fx_maps_refresh(struct fx_maps *m)
{
	enum { CHUNK = 32 << 10 };
	size_t have = 0, used = 0;
	struct fx_vma probe;
	char *buf;
	int rc = 0;

	if (!m->text) {
		rc = query(m, 0, &probe);
		if (rc != -ENOTTY && rc != -ENOSYS) /* older kernels, emulators */
			return rc == -ENOENT ? 0 : rc;
		m->text = true;
	}
	buf = malloc(CHUNK);
	if (!buf)
		return -ENOMEM;
	m->n = 0;
	rc = lseek(m->fd, 0, SEEK_SET) < 0 ? -errno : 0;
	while (!rc) {
		ssize_t got = read(m->fd, buf + have, CHUNK - have);

		if (got <= 0) {
			rc = got < 0 ? -errno : 0;
			break;
		}
		have += (size_t)got;
		rc = add_lines(m, buf, have, &used);
		have -= used;
		memmove(buf, buf + used, have);
		if (have == CHUNK)
			rc = -EPROTO; /* no line is that long */
	}
	free(buf);
	return rc ? rc : m->n ? 0 : -ESRCH;
}

int fx_maps_at(struct fx_maps *m, uint64_t addr, struct fx_vma *out)
{
	size_t lo = 0, hi = m->n;

	if (!m->text)
		return query(m, addr, out);
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->vma[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == m->n)
		return -ENOENT;
	*out = m->vma[lo];
	return 0;
}

void fx_maps_free(struct fx_maps *m)
{
	if (m->fd >= 0)
		close(m->fd);
	free(m->vma);
	*m = (struct fx_maps){.fd = -1};
}
