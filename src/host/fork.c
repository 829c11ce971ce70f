/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The copy for a forked child.
 *
 * Converted memory is marked so that no child inherits it. Before the fork a second view is made of it, which the child
 * does inherit; behind the fork the child copies out of that view into private memory at the old addresses, while the
 * parent waits. The parent's other threads are held where they would write, so that the copy is of one moment. The core
 * is not: as with hardware, what arrives from the network during a fork may be in the copy or not.
 *
 * Room: host. May use: fork.h, hold.h. Handlers allocate by mmap only.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "host/areas.h"
#include "host/fork.h"
#include "host/hold.h"
#include "host/host.h"
#include "host/ranges.h"
#include "host/wishes.h"

enum {
	CHILD_MS = 30000, /* a child that does not copy for so long does not hold its parent any longer */
	LOOK_PAGES = 512,
};

/* One fork at a time: under the lock of regions. */
static struct {
	struct fx_piece *piece;
	uint32_t n, cap;
	int sock[2]; /* parent's end, child's end; -1: nothing to be done */
} job = {.sock = {-1, -1}};

static bool unneeded; /* atomic */

void fx_fork_unneeded(void)
{
	__atomic_store_n(&unneeded, true, __ATOMIC_RELAXED);
}

int flexins_fork_init(void)
{
	fx_fork_unneeded();
	return 0;
}

enum ibv_fork_status flexins_is_fork_initialized(void)
{
	return fx_fork_is_unneeded() ? IBV_FORK_ENABLED : IBV_FORK_UNNEEDED;
}

static bool set_in_environment(const char *name)
{
	return getenv(name) != NULL;
}

bool fx_fork_is_unneeded(void)
{
	return __atomic_load_n(&unneeded, __ATOMIC_RELAXED) || set_in_environment("RDMAV_FORK_SAFE") ||
	       set_in_environment("IBV_FORK_SAFE");
}

static void complain(const char *what, int err)
{
	fprintf(stderr, "flexins: fork: the child has no registered memory: %s: %s\n", what, strerror(err));
}

/* ---- the list of pieces ---- */

static int add_piece(struct fx_piece p)
{
	if (job.n == job.cap) {
		uint32_t cap = job.cap ? 2 * job.cap : 4096 / sizeof(p);
		void *more = mmap(NULL, cap * sizeof(p), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				  -1, 0);

		if (more == MAP_FAILED)
			return -ENOMEM;
		if (job.cap) {
			memcpy(more, job.piece, job.n * sizeof(p));
			munmap(job.piece, job.cap * sizeof(p));
		}
		job.piece = more;
		job.cap = cap;
	}
	job.piece[job.n++] = p;
	return 0;
}

/* An area, or as many parts of it as there are different wishes. */
static int add_area(const struct fx_area *a)
{
	int rc = 0;

	for (uintptr_t at = a->start, end; at < a->end && !rc; at = end) {
		uint32_t wishes = fx_ranges_wishes(at, &end);

		end = end < a->end ? end : a->end;
		if (!(wishes & FX_WISH_NO_FORK))
			rc = add_piece((struct fx_piece){
				.addr = (uint8_t *)at, .len = end - at, .prot = a->prot, .wishes = wishes});
	}
	return rc;
}

static void drop_pieces(void)
{
	for (uint32_t i = 0; i < job.n; i++)
		if (job.piece[i].view)
			munmap(job.piece[i].view, job.piece[i].len);
	if (job.cap)
		munmap(job.piece, job.cap * sizeof(*job.piece));
	job.piece = NULL;
	job.n = job.cap = 0;
}

/* By what the kernel says: libc may have moved memory without telling anybody. */
static int list_pieces(void)
{
	struct fx_areas it;
	struct fx_area a;
	int rc = fx_areas_open(&it);

	while (!rc && fx_areas_next(&it, &a))
		if (a.converted)
			rc = add_area(&a);
	fx_areas_close(&it);
	return rc;
}

/* A second view, which children inherit. */
static int add_view(struct fx_piece *p)
{
	void *view;

	if (p->wishes & FX_WISH_WIPE_FORK)
		return 0;
	view = (void *)syscall(SYS_mremap, p->addr, (size_t)0, p->len, MREMAP_MAYMOVE, NULL);
	if (view == MAP_FAILED)
		return -errno;
	p->view = view;
	if (syscall(SYS_madvise, view, p->len, MADV_DOFORK) || syscall(SYS_mprotect, view, p->len, PROT_READ))
		return -errno;
	return 0;
}

/* ---- the child's copy ---- */

static bool pages_may_be_swapped(void)
{
	struct sysinfo info;

	return sysinfo(&info) || info.totalswap != info.freeswap;
}

/* The pages that exist; those that are swapped out look as if they did not. */
static void copy_pages(const struct fx_piece *p, bool all)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char there[LOOK_PAGES];

	for (size_t at = 0; at < p->len; at += LOOK_PAGES * page) {
		size_t len = p->len - at < LOOK_PAGES * page ? p->len - at : LOOK_PAGES * page,
		       n = len / page, i = 0;

		if (all || mincore(p->view + at, len, there))
			memset(there, 1, n);
		while (i < n) {
			size_t first = i;

			while (i < n && there[i] & 1)
				i++;
			if (i > first)
				memcpy(p->addr + at + first * page, p->view + at + first * page,
				       (i - first) * page);
			else
				i++;
		}
	}
}

static int make_private(const struct fx_piece *p, bool all)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	void *at = (void *)syscall(SYS_mmap, p->addr, p->len, PROT_READ | PROT_WRITE, flags, -1, (off_t)0);

	if (at != p->addr) {
		if (at != MAP_FAILED)
			munmap(at, p->len);
		return at == MAP_FAILED ? -errno : -EEXIST;
	}
	/* no locks: a child has none of its parent's */
	fx_wishes_apply(p->wishes & ~(uint32_t)FX_WISH_LOCKED, (uintptr_t)at, p->len);
	if (p->wishes & FX_WISH_WIPE_FORK)
		syscall(SYS_madvise, at, p->len, MADV_WIPEONFORK);
	if (p->view)
		copy_pages(p, all);
	if (p->prot != (PROT_READ | PROT_WRITE))
		syscall(SYS_mprotect, at, p->len, p->prot);
	return 0;
}

/* ---- the three handlers ---- */

static bool wait_byte(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char c;
	int n;

	do
		n = poll(&p, 1, ms);
	while (n < 0 && errno == EINTR);
	return n > 0 && read(fd, &c, 1) == 1;
}

static void send_byte(int fd)
{
	char c = 0;

	/* to a peer that has gone: as good as sent */
	if (send(fd, &c, 1, MSG_NOSIGNAL) != 1)
		return;
}

static void close_both(void)
{
	for (int i = 0; i < 2; i++) {
		if (job.sock[i] >= 0)
			close(job.sock[i]);
		job.sock[i] = -1;
	}
}

static int prepare(const char **what)
{
	int rc = list_pieces();

	*what = "cannot list it";
	for (uint32_t i = 0; i < job.n && !rc; i++) {
		*what = "cannot map it a second time";
		rc = add_view(&job.piece[i]);
	}
	if (!rc && job.n && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, job.sock)) {
		*what = "no descriptors";
		rc = -errno;
	}
	return rc;
}

void fx_fork_before(void)
{
	const char *what;
	int rc;

	fx_windows_lock();
	if (!fx_ranges_count() || fx_fork_is_unneeded())
		return;
	rc = prepare(&what);
	if (rc) {
		complain(what, -rc);
		drop_pieces();
		return;
	}
	fx_hold_begin(job.piece, job.n);
}

void fx_fork_parent(void)
{
	if (job.sock[0] >= 0) {
		close(job.sock[1]);
		job.sock[1] = -1;
		fx_hold_forked();
		send_byte(job.sock[0]);
		/* false: no child, or it ended, or it is stopped; we go on without it */
		wait_byte(job.sock[0], CHILD_MS);
		close_both();
		fx_hold_end();
		drop_pieces();
	}
	fx_windows_unlock();
}

void fx_fork_child(void)
{
	bool all = false;
	int rc = 0;

	fx_ranges_forget();
	if (job.sock[1] >= 0) {
		close(job.sock[0]);
		job.sock[0] = -1;
		if (!wait_byte(job.sock[1], -1))
			rc = -EPIPE;
		all = pages_may_be_swapped();
		for (uint32_t i = 0; i < job.n && !rc; i++)
			rc = make_private(&job.piece[i], all);
		if (rc)
			complain("cannot copy it", -rc);
		send_byte(job.sock[1]);
		close_both();
		drop_pieces();
		fx_hold_child();
	}
	fx_windows_unlock();
}
