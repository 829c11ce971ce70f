/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Registered memory, and what programs do to it: one case a row of the table in docs/windows.md. A peer reads and
 * writes it meanwhile. Prints "fine" at the end.
 *
 * Room: tests. May use: verbs, libc; it runs unmodified on any device but for the looks into /proc.
 */
#include "hazards.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <sys/shm.h>
#include <sys/syscall.h>

/* ---- which pages are shared ---- */

/* Neighbours in the same page as the edges of a region stay as private as they were. */
static void edges(void)
{
	char *p = pages(4);
	struct ibv_mr *mr = reg(p + 100, 2 * PAGE);
	pid_t child;
	int status;

	p[0] = 'a';
	NEED(!is_converted(p) && may_be_converted(p + PAGE) && !is_converted(p + 2 * PAGE));
	both_see(mr, at(p, 104));
	both_see(mr, at(p, PAGE));
	both_see(mr, at(p, 2 * PAGE));
	peer_refused(mr, at(p, 0), IBV_WR_RDMA_WRITE);
	peer_refused(mr, at(p, 2 * PAGE + 96), IBV_WR_RDMA_READ);
	child = fork();
	if (!child) {
		p[0] = 'b';
		p[PAGE] = 'c';
		_exit(0);
	}
	p[PAGE] = 'd';
	NEED(waitpid(child, &status, 0) == child && !status);
	NEED(p[0] == 'a' && p[PAGE] == 'd');
}

/* Regions over the same pages, with other rights, deregistered in any order. */
static void overlap(void)
{
	char *p = pages(16);
	struct ibv_mr *outer = reg(p, 16 * PAGE),
		      *inner = ibv_reg_mr(pd, p + 4 * PAGE, PAGE, IBV_ACCESS_REMOTE_READ);
	struct ibv_mr *across = reg(p + 3 * PAGE + 8, 2 * PAGE), *twin = reg(p, 16 * PAGE);
	word *w = at(p, 4 * PAGE + 8);

	NEED(inner);
	both_see(outer, w);
	both_see(across, w);
	both_see(twin, w);
	*w = 1;
	NEED(peer_read(inner, w) == 1);
	peer_refused(inner, w, IBV_WR_RDMA_WRITE);
	peer_write(across, w, 2);
	NEED(peer_read(inner, w) == 2 && peer_read(outer, w) == 2);
	NEED(!ibv_dereg_mr(outer));
	both_see(across, w);
	both_see(twin, at(p, 15 * PAGE));
	NEED(!ibv_dereg_mr(across));
	both_see(twin, w);
	*w = 3;
	NEED(peer_read(inner, w) == 3);
	NEED(!ibv_dereg_mr(twin));
	*w = 4;
	NEED(peer_read(inner, w) == 4);
	NEED(!ibv_dereg_mr(inner));
	outer = reg(p, 16 * PAGE); /* converted already */
	both_see(outer, w);
}

static char data[3 * PAGE] = {1}, bss[3 * PAGE];

/* Global variables and private file mappings, which may hold anything else too. */
static void sections(void)
{
	char path[] = "/tmp/hazards.XXXXXX", zero[2 * PAGE] = "file";
	int fd = mkstemp(path);
	struct ibv_mr *mr;
	char *p, back[4];

	mr = reg(data, sizeof(data));
	both_see(mr, at(data, PAGE));
	both_see(mr, at(data, sizeof(data) - 8));
	mr = reg(bss, sizeof(bss));
	both_see(mr, at(bss, PAGE));
	both_see(mr, at(bss, sizeof(bss) - 8));
	NEED(fd >= 0 && !unlink(path) && write(fd, zero, sizeof(zero)) == sizeof(zero));
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	NEED(p != MAP_FAILED);
	mr = reg(p, 2 * PAGE);
	both_see(mr, at(p, 0));
	both_see(mr, at(p, PAGE));
	NEED(!is_converted(p) && !is_converted(data + PAGE));
	NEED(pread(fd, back, 4, 0) == 4 && !memcmp(back, "file", 4));
	p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	NEED(p != MAP_FAILED && !ibv_reg_mr(pd, p, PAGE, ACCESS)); /* may not be written */
	mr = ibv_reg_mr(pd, p, PAGE, IBV_ACCESS_REMOTE_READ);
	NEED(mr && (uint32_t)peer_read(mr, at(p, 0)) == *(uint32_t *)(void *)p);
}

/* ---- stacks ---- */

static char *shown; /* a thread's buffer */
static bool leave;

static void *show_stack(void *arg)
{
	char buf[64 * PAGE];

	memset(buf, 7, sizeof(buf));
	__atomic_store_n(&shown, buf, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&leave, __ATOMIC_ACQUIRE))
		usleep(1000);
	NEED(buf[33 * PAGE] == 7 || arg);
	return NULL;
}

static void register_while_it_runs(pthread_attr_t *attr)
{
	struct ibv_mr *mr, *around;
	pthread_t t;
	char *base;

	shown = NULL;
	leave = false;
	NEED(!pthread_create(&t, attr, show_stack, NULL));
	while (!__atomic_load_n(&shown, __ATOMIC_ACQUIRE))
		usleep(1000);
	mr = reg(shown, 64 * PAGE);
	NEED(!is_converted(shown + 32 * PAGE));
	both_see(mr, at(shown, 32 * PAGE));
	/* and its control block, which the kernel wakes joiners by */
	base = (char *)((uintptr_t)t & ~(uintptr_t)(PAGE - 1));
	around = reg(base - PAGE, 2 * PAGE);
	NEED(!is_converted(base) && !is_converted(base - PAGE));
	__atomic_store_n(&leave, true, __ATOMIC_RELEASE);
	NEED(!pthread_join(t, NULL));
	NEED(!ibv_dereg_mr(mr) && !ibv_dereg_mr(around));
}

static void stacks(void)
{
	char own[16 * PAGE], *lent = pages(256);
	struct ibv_mr *mr = reg(own, sizeof(own)), *heap;
	pthread_attr_t attr;

	alarm(30);
	both_see(mr, at(own, 8 * PAGE));
	NEED(!is_converted(own + 8 * PAGE));
	for (int i = 0; i < 20; i++) /* the stack comes from the cache from the second on */
		register_while_it_runs(NULL);
	/* memory beside them is converted as ever */
	heap = reg(aligned_alloc(PAGE, 64 * PAGE), 64 * PAGE);
	NEED(may_be_converted(heap->addr));
	both_see(heap, at(heap->addr, PAGE));
	/* a stack of the program's own making */
	NEED(!pthread_attr_init(&attr) && !pthread_attr_setstack(&attr, lent, 255 * PAGE));
	register_while_it_runs(&attr);
	/* which is memory like any other once nobody stands on it */
	mr = reg(lent, 256 * PAGE);
	NEED(may_be_converted(lent + 32 * PAGE));
	both_see(mr, at(lent, 32 * PAGE));
}

/* ---- attributes ---- */

static bool flagged(const void *addr, const char *flag)
{
	char line[512], name[8];

	snprintf(name, sizeof(name), " %s", flag);
	return proc_line("/proc/self/smaps", addr, "VmFlags:", line, sizeof(line)) && strstr(line, name);
}

static void keeps(int advice, const char *flag)
{
	char *p = pages(512);
	struct ibv_mr *mr;

	if (advice < 0)
		NEED(!mlock(p, 512 * PAGE));
	else if (madvise(p, 512 * PAGE, advice))
		return; /* not in this kernel */
	NEED(flagged(p, flag));
	mr = reg(p, 512 * PAGE);
	NEED(may_be_converted(p) && flagged(p, flag));
	both_see(mr, at(p, 100 * PAGE));
	NEED(!ibv_dereg_mr(mr));
	NEED(!munmap(p, 512 * PAGE));
}

static void attributes(void)
{
	unsigned long node = 1, got[16] = {0};
	char *p = pages(16);
	int policy = -1;

	keeps(MADV_DONTDUMP, "dd");
	keeps(MADV_HUGEPAGE, "hg");
	keeps(MADV_NOHUGEPAGE, "nh");
	keeps(-1, "lo");
	/* what shared memory cannot be is no harm */
	NEED(!madvise(p, 16 * PAGE, MADV_MERGEABLE) || errno == EINVAL);
	if (syscall(SYS_mbind, p, 16 * PAGE, MPOL_BIND, &node, 8, 0))
		printf("no NUMA policies here\n");
	reg(p, 16 * PAGE);
	NEED(may_be_converted(p));
	if (!syscall(SYS_get_mempolicy, &policy, got, sizeof(got) * 8, p, MPOL_F_ADDR))
		NEED(policy == MPOL_BIND && got[0] == 1);
}

/* ---- other than remapping, what calls do to it ---- */

static void discards(int advice)
{
	char *p = pages(8);
	struct ibv_mr *mr = reg(p + PAGE, 4 * PAGE);

	memset(p, 9, 8 * PAGE);
	NEED(!madvise(p, 8 * PAGE, advice));
	for (int i = 0; i < 8; i++)
		NEED((advice == MADV_FREE && p[i * PAGE] == 9) || p[i * PAGE] == 0);
	both_see(mr, at(p, 2 * PAGE));
	both_see(mr, at(p, 4 * PAGE + 8));
}

/* MADV_DONTNEED makes zeroes, as allocators rely on; also where they took the right to write away before. */
static void dontneed(void)
{
	char *p = pages(4);
	struct ibv_mr *mr = reg(p, 4 * PAGE);

	discards(MADV_DONTNEED);
	discards(MADV_FREE);
	memset(p, 9, 4 * PAGE);
	NEED(!mprotect(p, 2 * PAGE, PROT_NONE) && !madvise(p, 3 * PAGE, MADV_DONTNEED));
	NEED(!mprotect(p, 2 * PAGE, PROT_READ));
	NEED(p[0] == 0 && p[PAGE] == 0 && p[2 * PAGE] == 0 && p[3 * PAGE] == 9);
	NEED(!mprotect(p, 2 * PAGE, PROT_READ | PROT_WRITE));
	both_see(mr, at(p, PAGE));
	both_see(mr, at(p, 3 * PAGE));
	/* errors as ever */
	NEED(madvise(p + 1, PAGE, MADV_DONTNEED) == -1 && errno == EINVAL);
	NEED(!munmap(p + PAGE, PAGE) && madvise(p, 3 * PAGE, MADV_DONTNEED) == -1 && errno == ENOMEM);
	NEED(p[2 * PAGE] == 0);
	/* memory of the program's own that comes to lie there is left alone */
	int fd = memfd_create("own", MFD_CLOEXEC);

	NEED(!ftruncate(fd, PAGE) &&
	     mmap(p + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == p + PAGE);
	p[PAGE] = 5;
	NEED(!madvise(p, 4 * PAGE, MADV_DONTNEED) && p[PAGE] == 5);
}

/* Not there, for either side: an error of the peer's, and the QP's end. */
static void peer_fails(const struct ibv_mr *mr, word *w)
{
	enum ibv_wc_status status;

	post(scratch_mr, &scratch[2], IBV_WR_RDMA_READ, mr, (void *)(uintptr_t)w, 0, 0);
	status = outcome().status;
	NEED(status == IBV_WC_REM_OP_ERR || status == IBV_WC_WR_FLUSH_ERR); /* as in peer_refused() */
	meet_again();
}

/* By address, and not by page: what is there now is the peer's, and what was there is nobody's. */
static void unmapped_far(void)
{
	char *p = pages(4);
	struct ibv_mr *mr = reg(p, 4 * PAGE);

	*at(p, PAGE) = 77;
	NEED(peer_read(mr, at(p, PAGE)) == 77);
	NEED(!munmap(p, 4 * PAGE));
	peer_fails(mr, at(p, PAGE));
	NEED(mmap(p, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	*at(p, PAGE) = 88;
	both_see(mr, at(p, PAGE));
	NEED(!ibv_dereg_mr(mr));
	*at(p, PAGE) = 99;
	peer_refused(mr, at(p, PAGE), IBV_WR_RDMA_WRITE);
	NEED(*at(p, PAGE) == 99);
}

/* The window lives until the region is deregistered; what is mapped there next is not the peer's. */
static void unmapped(void)
{
	char *p = pages(4);
	struct ibv_mr *mr = reg(p, 4 * PAGE), *next;

	*at(p, PAGE) = 77;
	NEED(!munmap(p, 4 * PAGE));
	NEED(peer_read(mr, at(p, PAGE)) == 77);
	NEED(mmap(p, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	*at(p, PAGE) = 88;
	NEED(peer_read(mr, at(p, PAGE)) == 77);
	peer_write(mr, at(p, PAGE), 99);
	NEED(*at(p, PAGE) == 88);
	next = reg(p, 4 * PAGE);
	both_see(next, at(p, PAGE));
	NEED(peer_read(mr, at(p, PAGE)) == 99);
	NEED(!ibv_dereg_mr(mr));
	both_see(next, at(p, PAGE));
	/* the last rights that the program has are not the device's, as with hardware */
	NEED(!mprotect(p, PAGE, PROT_READ));
	peer_write(next, at(p, 8), 5);
	NEED(*at(p, 8) == 5);
	NEED(!mprotect(p, PAGE, PROT_READ | PROT_WRITE));
	both_see(next, at(p, 8));
}

/* FLEXINS_WINDOWS=slow: for pages that somebody else has pinned. Nothing is converted, and all works. */
static void slow(void)
{
	char *p = pages(16);
	struct ibv_mr *mr = reg(p, 16 * PAGE);

	NEED(!is_converted(p));
	both_see(mr, at(p, 0));
	both_see(mr, at(p, 15 * PAGE));
}

/* ---- shared already ---- */

/* How many windows are mapped from first to last, as the core says. */
static int mapped_windows(void)
{
	FILE *f = popen(getenv("SHOW"), "r");
	char line[512];
	int n = 0;

	NEED(f);
	while (fgets(line, sizeof(line), f))
		for (const char *s = line; (s = strstr(s, "\"mapped\"")); s++)
			n++;
	NEED(!pclose(f));
	return n;
}

/* Memory that is shared is mapped as it is. The first System V segment of a name space has the number 0. */
static void shared(void)
{
	int fd = memfd_create("mine", MFD_CLOEXEC), id, before = mapped_windows();
	char *p[3];

	NEED(fd >= 0 && !ftruncate(fd, 4 * PAGE));
	p[0] = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	p[1] = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (unshare(CLONE_NEWIPC))
		printf("System V segments of the system's name space\n");
	id = shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600);
	p[2] = shmat(id, NULL, 0);
	NEED(id >= 0 && p[2] != (char *)-1 && !shmctl(id, IPC_RMID, NULL));
	for (int i = 0; i < 3; i++) {
		struct ibv_mr *mr = reg(p[i] + 8, 3 * PAGE);

		both_see(mr, at(p[i], 8));
		both_see(mr, at(p[i], 3 * PAGE));
		NEED(mapped_windows() == before + (far() ? 0 : i + 1));
	}
}

/* ---- huge pages ---- */

static void huge(void)
{
	enum { HUGE = 2 << 20, AT = MAP_ANONYMOUS | MAP_HUGETLB };
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB), id, before;
	struct ibv_mr *mr;
	char *p;

	NEED(getenv("SHOW"));
	p = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | AT, -1, 0);
	NEED(p != MAP_FAILED);
	mr = reg(p + 8, HUGE);
	both_see(mr, at(p, 8));
	both_see(mr, at(p, HUGE));
	NEED(!ibv_dereg_mr(mr) && !munmap(p, 2 * HUGE));
	before = mapped_windows();
	NEED(fd >= 0 && !ftruncate(fd, HUGE));
	p = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	NEED(p != MAP_FAILED);
	mr = reg(p + PAGE, HUGE - 2 * PAGE);
	both_see(mr, at(p, PAGE));
	both_see(mr, at(p, HUGE / 2));
	NEED(mapped_windows() == before + !far());
	id = shmget(IPC_PRIVATE, HUGE, IPC_CREAT | SHM_HUGETLB | 0600);
	NEED(id >= 0);
	p = shmat(id, NULL, 0);
	NEED(p != (char *)-1 && !shmctl(id, IPC_RMID, NULL));
	mr = reg(p, HUGE);
	both_see(mr, at(p, HUGE / 2));
	NEED(mapped_windows() == before + 2 * !far());
}

/* ---- mremap ---- */

static void fill(char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*at(p, i * PAGE) = i + 1;
}
static bool filled(char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (*at(p, i * PAGE) != i + 1)
			return false;
	return true;
}
static bool empty(char *p, size_t n)
{
	for (size_t i = 0; i < n * PAGE; i += 8)
		if (*at(p, i))
			return false;
	return true;
}

/* [first, first + n) of 16 pages is registered; the peer goes on where they are moved to. */
static void moves(size_t first, size_t n)
{
	char *p = pages(16), *q, *to;
	struct ibv_mr *mr;

	fill(p, 16);
	mr = reg(p + first * PAGE, n * PAGE);
	/* a wall behind it, so that it cannot grow in place */
	mmap(p + 16 * PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	NEED(mremap(p, 16 * PAGE, 64 * PAGE, 0) == MAP_FAILED && errno == ENOMEM);
	q = mremap(p, 16 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	NEED(q != MAP_FAILED && q != p && filled(q, 16) && empty(q + 16 * PAGE, 48));
	*at(q, (first + 1) * PAGE) = 1234;
	if (far()) { /* which looks where they were */
		peer_fails(mr, at(p, (first + 1) * PAGE));
		*at(q, (first + 1) * PAGE) = first + 2;
	} else {
		NEED(peer_read(mr, at(p, (first + 1) * PAGE)) == 1234);
		peer_write(mr, at(p, (first + 1) * PAGE), first + 2);
	}
	NEED(filled(q, 16));
	NEED(mremap(q, 64 * PAGE, 8 * PAGE, 0) == q && filled(q, 8));
	p = mremap(q, 8 * PAGE, 24 * PAGE, MREMAP_MAYMOVE);
	NEED(p != MAP_FAILED && filled(p, 8) && empty(p + 8 * PAGE, 16));
	to = pages(24);
	NEED(mremap(p, 24 * PAGE, 24 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	NEED(filled(to, 8) && empty(to + 8 * PAGE, 16));
	q = mremap(to, 24 * PAGE, 24 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
	if (q != MAP_FAILED)
		NEED(filled(q, 8) && empty(to, 24));
	NEED(mremap(q, 0, PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL);
	NEED(!ibv_dereg_mr(mr));
	mr = reg(q, 24 * PAGE);
	for (size_t i = 0; i < 24; i++)
		both_see(mr, at(q, i * PAGE));
}

static void remap(void)
{
	char *p = pages(8), *q;

	moves(0, 16);
	moves(4, 4);
	moves(0, 4);
	moves(12, 4);
	/* in place, where there is room */
	NEED(!munmap(p + 4 * PAGE, 4 * PAGE));
	fill(p, 4);
	reg(p, 4 * PAGE);
	NEED(mremap(p, 4 * PAGE, 8 * PAGE, 0) == p && filled(p, 4) && empty(p + 4 * PAGE, 4));
	q = pages(2);
	NEED(mremap(p, 4 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q && filled(q, 2));
}

/* libc's realloc moves and grows whole mappings by itself: registered from the first page to the last, too. */
static void reallocs(void)
{
	for (int round = 0; round < 20; round++) {
		size_t n = 1 << 20, base;
		char *p = malloc(n);
		struct ibv_mr *mr;

		NEED(p);
		base = (uintptr_t)p & ~(size_t)(PAGE - 1);
		memset(p, 5, n);
		mr = round % 2 ? reg(p, n)
			       : reg((char *)base, ((uintptr_t)p + n - base) & ~(size_t)(PAGE - 1));
		for (int more = 2; more <= 16; more *= 2) {
			p = realloc(p, n * more);
			NEED(p);
			for (size_t i = 0; i < n * more / 2; i++)
				NEED(p[i] == 5);
			memset(p, 5, n * more);
		}
		NEED(!ibv_dereg_mr(mr));
		mr = reg(p, 16 * n);
		both_see(mr, at(p, n));
		both_see(mr, at(p, 15 * n));
		NEED(!ibv_dereg_mr(mr));
		p = realloc(p, n / 2);
		free(p);
		p = calloc(1, n);
		NEED(empty(p, n / PAGE));
		free(p);
	}
}

int main(int argc, char **argv)
{
	const struct hazard cases[] = {
		{"edges", edges},
		{"overlap", overlap},
		{"sections", sections},
		{"stacks", stacks},
		{"attributes", attributes},
		{"dontneed", dontneed},
		{"unmapped", far() ? unmapped_far : unmapped},
		{"slow", slow},
		{"remap", remap},
		{"reallocs", reallocs},
		{"huge", huge},
		{"shared", shared},
	};

	return run_hazard(argc == 2 ? argv[1] : "", cases, sizeof(cases) / sizeof(cases[0]));
}
