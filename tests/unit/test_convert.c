/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Conversion under running threads: no update is lost, whether it succeeds, fails, or stops half way.
 */
#include "window_play.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/syscall.h>

/* ---- writers: words 0 and 1 of each group from user mode, word 2 by system call ---- */

enum { GROUPS = 40000 };
static struct {
	uint8_t *buf;
	uint32_t groups;
	_Atomic bool stop;
	uint64_t wrote[3][GROUPS];
	_Atomic uint64_t refused;
	_Atomic uint64_t steps[3];
} w;

static volatile uint64_t *word_of(uint32_t group, int lane)
{
	return (volatile uint64_t *)(w.buf + (size_t)group * 32 + (size_t)lane * 8);
}

static void *user_writer(void *arg)
{
	int lane = (int)(uintptr_t)arg;
	uint64_t r = (uint64_t)lane + 1;

	while (!atomic_load_explicit(&w.stop, memory_order_relaxed)) {
		uint32_t g =
			(uint32_t)((r = r * 6364136223846793005u + 1442695040888963407u) >> 33) % w.groups;

		++*word_of(g, lane);
		w.wrote[lane][g]++;
		atomic_fetch_add_explicit(&w.steps[lane], 1, memory_order_relaxed);
	}
	return NULL;
}

static void *kernel_writer(void *arg)
{
	int fd = memfd_create("values", MFD_CLOEXEC);
	uint64_t r = 3;

	(void)arg;
	CHECK(fd >= 0);
	while (!atomic_load_explicit(&w.stop, memory_order_relaxed)) {
		uint32_t g =
			(uint32_t)((r = r * 6364136223846793005u + 1442695040888963407u) >> 33) % w.groups;
		uint64_t v = w.wrote[2][g] + 1;

		CHECK(pwrite(fd, &v, 8, 0) == 8);
		if (pread(fd, (void *)(uintptr_t)word_of(g, 2), 8, 0) == 8)
			w.wrote[2][g]++;
		else
			atomic_fetch_add(&w.refused, 1);
		atomic_fetch_add_explicit(&w.steps[2], 1, memory_order_relaxed);
	}
	close(fd);
	return NULL;
}

static pthread_t writer[3];
static void start_writers(uint8_t *buf, size_t len)
{
	w.buf = buf;
	w.groups = (uint32_t)(len / 32);
	shared->base = (uintptr_t)buf;
	CHECK(w.groups <= GROUPS);
	for (uintptr_t i = 0; i < 3; i++)
		CHECK(!pthread_create(&writer[i], NULL, i < 2 ? user_writer : kernel_writer, (void *)i));
	for (int i = 0; i < 3; i++)
		while (!atomic_load(&w.steps[i]))
			sched_yield();
}

static void stop_writers(void)
{
	atomic_store(&w.stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(writer[i], NULL);
	CHECK(!atomic_load(&w.refused));
	for (uint32_t g = 0; g < w.groups; g++)
		for (int lane = 0; lane < 3; lane++)
			CHECK(*word_of(g, lane) == w.wrote[lane][g]);
}

/* Ends the counting of the core: after a request that ends all regions nothing more is counted. */
static void check_counts(void)
{
	for (uint32_t g = 0; g < w.groups; g++)
		CHECK(*word_of(g, 3) == shared->count[g]);
}

static void pause_ms(long n)
{
	const struct timespec t = {.tv_nsec = n * 1000000};

	nanosleep(&t, NULL);
}

/* Everything at once: overlapping, nested, odd edges, while all writers and the core write. */
static int no_update_is_lost(int sock)
{
	const size_t len = 300 * PAGE;
	uint8_t *buf = pages(302, PROT_READ | PROT_WRITE) + PAGE;
	struct region g[40];
	uint32_t n = 0, mapped = 0;

	memset(buf, 0, len / 2); /* the rest has no pages yet */
	start_writers(buf, len);
	for (uint32_t i = 0; i < 30; i++) {
		size_t at = (i * 7919 * 32) % (len / 2), size = 96 + (i * 104729 * 32) % (len / 4);

		CHECK(reg(sock, &g[n], buf + at, size, RW, 0) == 0);
		mapped += g[n].done.nrun > 1 || g[n].done.flat;
		CHECK(g[n].converted == (kinds(&g[n], FX_SEG_CONVERT) ? g[n].converted : 0));
		for (uint32_t k = 0; k < g[n].plan.nseg; k++)
			if (g[n].plan.seg[k].kind == FX_SEG_CONVERT)
				CHECK(g[n].converted >> k & 1);
		n++;
		pause_ms(1);
	}
	CHECK(mapped > 20);
	CHECK(reg(sock, &g[n++], buf, len, RW, 0) == 0);
	CHECK(g[n - 1].done.flat);
	for (int i = 0; i < 2000 && atomic_load(&shared->reached) < 5000; i++)
		pause_ms(1);
	CHECK(atomic_load(&shared->reached) >= 500);
	for (uint32_t i = 0; i < n; i++)
		dereg(sock, &g[i]);
	stop_writers();
	check_counts();
	return 0;
}

/* ---- what fails inside fx_convert() ---- */

/* From now on new pages cannot be mapped at `at` by this thread; putting old ones back is allowed. */
static void forbid_mmap_at(const void *at)
{
	const uint32_t lo = (uint32_t)(uintptr_t)at, hi = (uint32_t)((uintptr_t)at >> 32);
	const uint32_t arg = offsetof(struct seccomp_data, args);
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 0, 11),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg + 3 * 8), /* mremap: from where it is not taken away */
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MREMAP_DONTUNMAP, 4, 9),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg), /* mmap */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, lo, 0, 7),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, hi, 4, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg + 4 * 8), /* mremap */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, lo, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg + 4 * 8 + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, hi, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(f) / sizeof(f[0]), .filter = f};

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

static int rollback_loses_nothing(int sock)
{
	const size_t len = 64 * PAGE;
	uint8_t *buf = pages(64, PROT_READ | PROT_WRITE);
	struct region g;

	memset(buf, 0, len / 2);
	start_writers(buf, len);
	CHECK(fx_convert(buf, len, 1000, 0, PROT_READ | PROT_WRITE) == -EBADF);
	CHECK(fx_convert(buf + 1, len, 0, 0, PROT_READ | PROT_WRITE) == -EINVAL);
	forbid_mmap_at(buf);
	for (int i = 0; i < 150; i++) {
		CHECK(reg(sock, &g, buf, len, RW, 0) == 0);
		CHECK(kinds(&g, FX_SEG_CONVERT) == 1 && !g.converted && !g.done.flat);
		CHECK(g.done.regions == 0);
		dereg(sock, &g);
	}
	stop_writers();
	check_counts();
	return 0;
}

/* Half way: the first 2 MiB are converted when the second fails. What is there is used. */
static int half_a_conversion(int sock)
{
	uint8_t *raw = pages(2048, PROT_READ | PROT_WRITE);
	uint8_t *mid = (uint8_t *)(((uintptr_t)raw + (4 << 20)) & ~(uintptr_t)((2 << 20) - 1));
	struct region g;

	memset(mid - 4 * PAGE, 7, 8 * PAGE);
	forbid_mmap_at(mid);
	CHECK(reg(sock, &g, mid - 4 * PAGE, 8 * PAGE, RW, 0) == 0);
	CHECK(!g.converted && !g.done.flat);
	for (int i = -4; i < 4; i++) {
		CHECK(mid[i * PAGE] == 7);
		check_word(sock, &g, mid + i * PAGE);
	}
	CHECK(reg(sock, &g, mid - 4 * PAGE, 8 * PAGE, RW, 0) == 0);
	CHECK(g.plan.nseg == 2 && g.plan.seg[0].kind == FX_SEG_SHARED && g.done.nrun == 2);
	for (int i = -4; i < 4; i++)
		check_word(sock, &g, mid + i * PAGE);
	return 0;
}

static void *on_own_stack(void *arg)
{
	char buf[16 * PAGE];
	uint8_t *at = (uint8_t *)(((uintptr_t)buf + PAGE) & ~(uintptr_t)(PAGE - 1));
	int fd = memfd_create("x", MFD_CLOEXEC);

	(void)arg;
	CHECK(!ftruncate(fd, 64 * PAGE));
	memset(buf, 0, sizeof(buf));
	CHECK(fx_convert(at, 8 * PAGE, fd, 0, PROT_READ | PROT_WRITE) == -EDEADLK);
	close(fd);
	return NULL;
}

static int own_stacks_are_refused(int sock)
{
	pthread_t t;

	(void)sock;
	CHECK(!pthread_create(&t, NULL, on_own_stack, NULL) && !pthread_join(t, NULL));
	return 0;
}

static void *idle(void *arg)
{
	while (!atomic_load((_Atomic bool *)arg))
		pause_ms(1);
	return NULL;
}

/* Without userfaultfd only a process of one thread converts; a forked child has its own. */
static int without_userfaultfd(int sock)
{
	_Atomic bool stop = false;
	uint8_t *buf = pages(8, PROT_READ | PROT_WRITE);
	int status, fd = memfd_create("x", MFD_CLOEXEC);
	struct region g;
	pthread_t t;
	pid_t child = fork();

	if (!child) {
		CHECK(!ftruncate(fd, 64 * PAGE));
		CHECK(fx_convert_possible() && !fx_convert(buf, 8 * PAGE, fd, 0, PROT_READ | PROT_WRITE));
		buf[0] = 1;
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && !status && !buf[0]);
	fx_convert_fini();
	CHECK(!fx_convert_possible());
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(f) / sizeof(f[0]), .filter = f};

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
	CHECK(fx_convert_init(-1) == -EPERM);
#ifdef __SANITIZE_THREAD__ /* which has a thread of its own */
	return plan(sock, &g, buf, 4 * PAGE, RW, FX_REG_NO_CONVERT, NULL);
#endif
	CHECK(fx_convert_possible());
	CHECK(reg(sock, &g, buf, 4 * PAGE, RW, 0) == 0 && g.done.flat);
	check_word(sock, &g, buf);
	CHECK(!pthread_create(&t, NULL, idle, &stop));
	CHECK(!fx_convert_possible());
	CHECK(fx_convert(buf + 4 * PAGE, PAGE, fd, 0, PROT_READ | PROT_WRITE) == -EPERM);
	atomic_store(&stop, true);
	pthread_join(t, NULL);
	return 0;
}

PLAY_IN_KERNEL(no_update_is_lost, 0)
PLAY_IN_KERNEL(rollback_loses_nothing, 0)
PLAY_IN_KERNEL(half_a_conversion, 0)
PLAY_IN_KERNEL(own_stacks_are_refused, 0)
PLAY_IN_KERNEL(without_userfaultfd, 0)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(no_update_is_lost),      BOTH(rollback_loses_nothing), BOTH(half_a_conversion),
		BOTH(own_stacks_are_refused), BOTH(without_userfaultfd),
	};

	return verdict(cmocka_run_group_tests(tests, setup, NULL));
}
