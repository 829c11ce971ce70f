/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Conversion of private pages to shared ones with no update lost.
 *
 * Room: host. May use: libc and the kernel.
 *
 * A chunk at a time: prepare the new pages; ask userfaultfd to hold whoever finds a page missing; move the
 * old pages away, which leaves the range empty; copy those that exist; map the new pages where the old ones
 * were; let the waiters go. From the move on nobody but us can reach the old pages, so the copy is exact;
 * whoever waits retries on the new page. If the new pages cannot be mapped, the old ones move back first. No
 * signal handler runs here meanwhile: it might touch the range, and this thread would wait for itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "host/convert.h"
#include "host/stacks.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum {
	CHUNK = 2 << 20, /* of addresses: a chunk never crosses a multiple of it, so huge pages stay whole */
	CHUNK_PAGES = CHUNK / 4096, /* at most: no machine's pages are smaller */
	KERNEL_SIGSET = 8,	    /* bytes of the kernel's signal set */
	ROLLBACK_TRIES = 1000,
};

static struct {
	int dev;   /* what a userfaultfd comes from, or -1 */
	int uffd;  /* or -1: there is none */
	bool wp;   /* it can hold up writers of shared memory */
	pid_t pid; /* whose memory the userfaultfd is about, whoever inherits it; 0: not ready */
} state = {.dev = -1, .uffd = -1};

/* One call of fx_convert(). */
struct job {
	int memfd;
	int prot;
	int pagemap; /* -1: unreadable, copy every page */
	uintptr_t page;
	uint8_t *fresh;	 /* CHUNK of addresses: the new pages while they are filled */
	uint8_t *away;	 /* CHUNK of addresses: the old pages while they are copied */
	uint8_t *hole;	 /* part of `away` that may no longer be ours, */
	size_t hole_len; /* ... of this length */
};

static void *map_at(void *at, size_t len, int prot, int flags, int fd, uint64_t off)
{
	return (void *)syscall(SYS_mmap, at, len, prot, flags, fd, (off_t)off);
}
static void unmap(void *at, size_t len)
{
	if (len)
		syscall(SYS_munmap, at, len);
}

/* ---- userfaultfd ---- */

/* With the feature or, where the kernel has it not, without: it leaves a refused descriptor as it was. */
static int handshake(int fd)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM};

	state.wp = !ioctl(fd, UFFDIO_API, &api);
	if (state.wp)
		return 0;
	api = (struct uffdio_api){.api = UFFD_API};
	return ioctl(fd, UFFDIO_API, &api);
}

static int open_uffd(void)
{
	int fd = -1, rc = 0;

	if (state.dev >= 0)
		fd = ioctl(state.dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) /* not for user mode only: system calls of other threads would fail instead of waiting */
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || handshake(fd)) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	state.uffd = fd;
	state.pid = getpid();
	return rc;
}

int fx_convert_init(int uffd_dev)
{
	fx_convert_fini();
	state.dev = uffd_dev;
	return open_uffd();
}

void fx_convert_fini(void)
{
	if (state.uffd >= 0)
		close(state.uffd);
	if (state.dev >= 0)
		close(state.dev);
	state.uffd = -1;
	state.dev = -1;
	state.pid = 0;
}

bool fx_has_threads(void)
{
	struct stat st;

	/* a directory for each, and two links more; in doubt, yes */
	return stat("/proc/self/task", &st) || st.st_nlink != 3;
}

bool fx_convert_possible(void)
{
	if (!state.pid)
		return false;
	if (state.pid != getpid()) {
		/* a forked child: the inherited one would act on the parent's memory */
		if (state.uffd >= 0)
			close(state.uffd);
		open_uffd();
	}
	return state.uffd >= 0 || !fx_has_threads();
}

static int hold(void *at, size_t len)
{
	struct uffdio_register r = {
		.range = {.start = (uintptr_t)at, .len = len},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return state.uffd >= 0 && ioctl(state.uffd, UFFDIO_REGISTER, &r) ? -errno : 0;
}

static void let_go(void *at, size_t len)
{
	struct uffdio_range r = {.start = (uintptr_t)at, .len = len};

	if (state.uffd >= 0)
		ioctl(state.uffd, UFFDIO_WAKE, &r);
}

/* Where the old area is still (or again) in place and registered. */
static void unhold(void *at, size_t len)
{
	struct uffdio_range r = {.start = (uintptr_t)at, .len = len};

	if (state.uffd >= 0)
		ioctl(state.uffd, UFFDIO_UNREGISTER, &r);
	let_go(at, len);
}

/* ---- writers of converted memory ---- */

int fx_writers_hold(void *addr, size_t len)
{
	const struct uffdio_range range = {.start = (uintptr_t)addr, .len = len};
	struct uffdio_register r = {.range = range, .mode = UFFDIO_REGISTER_MODE_WP};
	struct uffdio_writeprotect wp = {.range = range, .mode = UFFDIO_WRITEPROTECT_MODE_WP};

	if (!fx_convert_possible() || state.uffd < 0 || !state.wp)
		return -EOPNOTSUPP;
	if (ioctl(state.uffd, UFFDIO_REGISTER, &r))
		return -errno;
	if (!ioctl(state.uffd, UFFDIO_WRITEPROTECT, &wp))
		return 0;
	fx_writers_release(addr, len);
	return -EOPNOTSUPP;
}

void fx_writers_release(void *addr, size_t len)
{
	unhold(addr, len);
}

/* ---- populating ---- */

static void touch(void *addr, size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	/* a write that changes nothing, whatever other threads do there; relaxed: it orders nothing */
	for (size_t i = 0; i < len; i += page)
		__atomic_fetch_or((uint8_t *)addr + i, 0, __ATOMIC_RELAXED);
}

int fx_populate(void *addr, size_t len)
{
	while (syscall(SYS_madvise, addr, len, MADV_POPULATE_WRITE)) {
		if (errno == EINTR || errno == EAGAIN)
			continue;
		if (errno != EINVAL)
			return -errno;
		touch(addr, len); /* a kernel before 5.14 */
		break;
	}
	return 0;
}

/* ---- one chunk ---- */

/* Copies the pages that exist; the others read as zeroes on both sides. */
static void copy_pages(const struct job *j, uint8_t *to, const uint8_t *from, size_t len)
{
	uint64_t map[CHUNK_PAGES];
	size_t n = len / j->page, want = n * sizeof(map[0]), i = 0;
	off_t at = (off_t)((uintptr_t)from / j->page * sizeof(map[0]));

	if (syscall(SYS_pread64, j->pagemap, map, want, at) != (ssize_t)want)
		memset(map, 0xff, want);
	while (i < n) {
		size_t first = i;

		while (i < n && map[i] >> 62) /* present, or swapped out */
			i++;
		if (i > first)
			memcpy(to + first * j->page, from + first * j->page, (i - first) * j->page);
		else
			i++;
	}
}

/* The old pages back where they were. They must: the program has no others. */
static void put_back(uint8_t *at, uint8_t *old, size_t len)
{
	static const char msg[] = "flexins: cannot put pages back after a failed registration\n";
	const struct timespec ms = {.tv_nsec = 1000000};

	for (int i = 0; i < ROLLBACK_TRIES; i++) {
		if (syscall(SYS_mremap, old, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) ==
		    (long)(uintptr_t)at)
			return;
		syscall(SYS_nanosleep, &ms, NULL);
	}
	/* rather end than go on with lost data */
	if (write(STDERR_FILENO, msg, sizeof(msg) - 1))
		abort();
	abort();
}

/*
 * The new pages to where the old ones were: with their page tables, or else (before 5.13) to be faulted in
 * again.
 */
static int put_new(const struct job *j, uint8_t *at, uint8_t *fresh, size_t len, uint64_t off)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;

	if (j->prot == (PROT_READ | PROT_WRITE) &&
	    syscall(SYS_mremap, fresh, len, len, flags, at) == (long)(uintptr_t)at)
		return 0;
	return map_at(at, len, j->prot, MAP_SHARED | MAP_FIXED, j->memfd, off) == at ? 0 : -errno;
}

/* The old pages are at `old`, the new ones complete at `fresh`: change places. */
static int change(struct job *j, uint8_t *at, uint8_t *fresh, uint8_t *old, size_t len, uint64_t off)
{
	int rc = put_new(j, at, fresh, len, off);

	if (!rc) {
		let_go(at, len);
		return 0;
	}
	put_back(at, old, len);
	let_go(at, len);
	j->hole = old;
	j->hole_len = len;
	return rc;
}

static int prepare(const struct job *j, uint8_t *fresh, size_t len, uint64_t off, bool huge)
{
	if (map_at(fresh, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, j->memfd, off) != fresh)
		return -errno;
	if (huge)
		syscall(SYS_madvise, fresh, len, MADV_HUGEPAGE); /* a wish */
	return fx_populate(fresh, len);
}

static int convert_chunk(struct job *j, uint8_t *at, size_t len, uint64_t off)
{
	uint8_t *fresh = j->fresh + ((uintptr_t)at & (CHUNK - 1));
	uint8_t *old = j->away + ((uintptr_t)at & (CHUNK - 1));
	bool huge = len == CHUNK && !(off & (CHUNK - 1));
	int rc = prepare(j, fresh, len, off, huge);

	if (!rc)
		rc = hold(at, len);
	if (rc)
		return rc;
	if (syscall(SYS_mremap, at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, old) !=
	    (long)(uintptr_t)old) {
		rc = -errno;
		unhold(at, len);
		j->hole = old; /* the kernel may have unmapped it before it failed */
		j->hole_len = len;
		return rc;
	}
	copy_pages(j, fresh, old, len);
	rc = change(j, at, fresh, old, len, off);
	if (!rc && huge)
		syscall(SYS_madvise, at, len, MADV_HUGEPAGE);
	return rc;
}

static int convert_chunk_alone(struct job *j, uint8_t *at, size_t len, uint64_t off)
{
	uint64_t all = ~UINT64_C(0), old = 0;
	int rc;

	/* the kernel's own call: libc keeps some signals deliverable, and one of them touches stacks */
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, KERNEL_SIGSET);
	rc = convert_chunk(j, at, len, off);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, KERNEL_SIGSET);
	return rc;
}

/* ---- all of it ---- */

/* CHUNK of reserved addresses at a multiple of CHUNK. */
static uint8_t *reserve(void)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	uint8_t *raw = map_at(NULL, 2 * CHUNK, PROT_NONE, flags, -1, 0), *at;

	if (raw == MAP_FAILED)
		return NULL;
	at = (uint8_t *)(((uintptr_t)raw + CHUNK - 1) & ~(uintptr_t)(CHUNK - 1));
	unmap(raw, (size_t)(at - raw));
	unmap(at + CHUNK, (size_t)(raw + CHUNK - at));
	return at;
}

static void finish(struct job *j)
{
	if (j->fresh)
		unmap(j->fresh, CHUNK);
	if (j->away && j->hole) {
		/* another thread may have got the addresses of the hole already */
		unmap(j->away, (size_t)(j->hole - j->away));
		unmap(j->hole + j->hole_len, (size_t)(j->away + CHUNK - j->hole) - j->hole_len);
	} else if (j->away) {
		unmap(j->away, CHUNK);
	}
	if (j->pagemap >= 0)
		close(j->pagemap);
}

int fx_convert(void *addr, size_t len, int memfd, uint64_t off, int prot)
{
	struct job j = {
		.memfd = memfd, .prot = prot, .pagemap = -1, .page = (uintptr_t)sysconf(_SC_PAGESIZE)};
	uint8_t *at = addr, *end = at + len;
	int rc = 0;

	if (!len || (((uintptr_t)addr | len | off) & (j.page - 1)))
		return -EINVAL;
	if (!fx_convert_possible())
		return -EPERM;
	if (fx_stacks_overlap(addr, len))
		return -EDEADLK;
	j.pagemap = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	j.fresh = reserve();
	j.away = reserve();
	if (!j.fresh || !j.away)
		rc = -ENOMEM;
	while (at < end && !rc) {
		size_t n = CHUNK - ((uintptr_t)at & (CHUNK - 1));

		if (n > (size_t)(end - at))
			n = (size_t)(end - at);
		rc = convert_chunk_alone(&j, at, n, off);
		at += n;
		off += n;
	}
	finish(&j);
	return rc;
}
