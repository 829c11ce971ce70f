/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Registered memory and new processes. Prints "fine" at the end:
 *	forks copy	the child has a private copy of one moment, while a thread and a peer write
 *	forks malloc	threads that allocate from registered pages neither hang a fork nor break the child's heap
 *	forks wishes	MADV_DONTFORK, DOFORK and WIPEONFORK are respected, mprotect too
 *	forks init	after ibv_fork_init() the child has no such pages, and its parent no wait
 *	forks safe	the same by environment
 *	forks no_room	when no copy can be had the parent loses nothing
 *	forks spawn	posix_spawn, system, popen, vfork are as they were
 *
 * Room: tests. May use: verbs, threads.
 */
#include "hazards.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>

enum { N = 64 };

extern char **environ;
static char *area;
static struct ibv_mr *area_mr;
static bool stop;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* ---- copy ---- */

static void touch(void *p)
{
	*at(p, 0) = 1;
}

/* The word of the first page is that of the last, or one more, at any moment. */
static void *count(void *arg)
{
	word *first = at(area, 0), *last = at(area, (N - 1) * PAGE);

	for (uint64_t i = 1; !stopped(); i++) {
		*first = i;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		*last = i;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	}
	return arg;
}

/* As count(), by system calls. */
static void *count_by_kernel(void *arg)
{
	int fd = memfd_create("values", MFD_CLOEXEC);

	for (uint64_t i = 1; !stopped(); i++) {
		NEED(pwrite(fd, &i, 8, 0) == 8);
		NEED(pread(fd, area + 8, 8, 0) == 8 && pread(fd, area + (N - 1) * PAGE + 8, 8, 0) == 8);
	}
	close(fd);
	return arg;
}

static void look_at_copy(void *arg)
{
	for (size_t off = 0; off <= 8; off += 8) {
		word *first = at(area, off), *last = at(area, (N - 1) * PAGE + off);
		uint64_t a = *first, b = *last;

		NEED(a == b || a == b + 1);
		usleep(200);
		NEED(*first == a && *last == b);
	}
	NEED(*at(area, 5 * PAGE) == (uintptr_t)arg && !*at(area, 7 * PAGE + 16));
	NEED(!is_converted(area));
	memset(area, 0xee, N * PAGE); /* is the child's own */
	NEED(!ibv_dereg_mr(area_mr)); /* which the parent's region knows nothing of */
}

static void copy(void)
{
	pthread_t t[2];
	char *big;
	double ms;

	area = pages(N);
	area_mr = reg(area, N * PAGE);
	NEED(in_child(look_at_copy, NULL) == 0); /* of one thread */
	NEED(!pthread_create(&t[0], NULL, count, NULL) &&
	     !pthread_create(&t[1], NULL, count_by_kernel, NULL));
	for (uintptr_t i = 1; i <= 100; i++) {
		peer_write(area_mr, at(area, 5 * PAGE), i);
		NEED(in_child(look_at_copy, (void *)i) == 0);
		NEED(*at(area, 5 * PAGE) == i && !*at(area, 7 * PAGE + 16));
		NEED(peer_read(area_mr, at(area, 5 * PAGE)) == i);
	}
	stop = true;
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	both_see(area_mr, at(area, 0));
	NEED(may_be_converted(area));
	big = pages(16 << 10);
	memset(big, 1, 64 << 20);
	reg(big, 64 << 20);
	ms = now_ms();
	NEED(in_child(touch, big) == 0);
	printf("NOTE: fork with 64 MiB registered: %.1f ms\n", now_ms() - ms);
}

/* ---- malloc ---- */

enum { HEAP = 256 << 10, FORKS = 60 };

static void churn(unsigned seed, unsigned rounds)
{
	void *held[64] = {0};

	for (unsigned i = 0; rounds ? i < rounds : !stopped(); i++) {
		unsigned k = (seed = seed * 1103515245u + 12345) >> 16 & 63;
		size_t size = 16 + (seed >> 8 & 2047);

		free(held[k]);
		held[k] = malloc(size);
		NEED(held[k]);
		memset(held[k], (int)k, size);
	}
	for (int i = 0; i < 64; i++)
		free(held[i]);
}

static void *churn_on(void *arg)
{
	churn((unsigned)(uintptr_t)arg, 0);
	return NULL;
}

static void use_heap(void *arg)
{
	FILE *f = fopen("/dev/null", "w");

	churn((unsigned)(uintptr_t)arg, 2000);
	NEED(f && fprintf(f, "text") == 4 && !fclose(f));
}

static void heap(void)
{
	pthread_t t[3];
	char *p;

	mallopt(M_ARENA_MAX, 1); /* all from one heap, */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	p = malloc(HEAP);
	/* ... of which these pages were registered once, headers and all, and are used again */
	area_mr = reg((char *)((uintptr_t)p & ~(uintptr_t)(PAGE - 1)), HEAP & ~(PAGE - 1));
	NEED(may_be_converted(p + PAGE) && !ibv_dereg_mr(area_mr));
	free(p);
	for (uintptr_t i = 0; i < 3; i++)
		NEED(!pthread_create(&t[i], NULL, churn_on, (void *)(i + 1)));
	alarm(40);
	for (uintptr_t i = 0; i < FORKS; i++)
		NEED(in_child(use_heap, (void *)i) == 0);
	stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

/* ---- wishes ---- */

static void is_wiped(void *p)
{
	NEED(!*at(p, 0) && !is_converted(p));
	*at(p, 0) = 1;
}
static void is_nine(void *p)
{
	NEED(*at(p, 0) == 9);
}

static void crashes(void *p)
{
	int status = in_child(touch, p);

	NEED(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

/* A page that is converted is not there; a private one is copied by the kernel. */
static void not_shared(void *p)
{
	if (far())
		NEED(in_child(touch, p) == 0);
	else
		crashes(p);
}

static void wishes(void)
{
	char *before = pages(4), *p = pages(4);

	NEED(!madvise(before, 4 * PAGE, MADV_DONTFORK));
	reg(before, 4 * PAGE);
	reg(p, 4 * PAGE);
	*at(p, PAGE) = *at(before, PAGE) = 9;
	crashes(before + PAGE);
	NEED(in_child(is_nine, p + PAGE) == 0);
	NEED(!madvise(before, 4 * PAGE, MADV_DOFORK) && !madvise(p + PAGE, PAGE, MADV_DONTFORK));
	crashes(p + PAGE);
	NEED(in_child(touch, p) == 0 && in_child(is_nine, before + PAGE) == 0);
	NEED(!madvise(p + PAGE, PAGE, MADV_DOFORK) && !madvise(p, 2 * PAGE, MADV_WIPEONFORK));
	NEED(in_child(is_wiped, p + PAGE) == 0);
	NEED(!madvise(p, 2 * PAGE, MADV_KEEPONFORK) && !mprotect(p + PAGE, PAGE, PROT_READ));
	NEED(in_child(is_nine, p + PAGE) == 0);
	crashes(p + PAGE);
	NEED(may_be_converted(p + PAGE) && *at(p, PAGE) == 9);
}

/* ---- init ---- */

static void safe(void)
{
	char *p = pages(4);
	struct ibv_mr *mr = reg(p + 8, 3 * PAGE);
	void *args[] = {p + PAGE, p};

	NEED(ibv_is_fork_initialized() == IBV_FORK_ENABLED);
	*at(p, 0) = 9;
	both_see(mr, at(p, PAGE));
	not_shared(args[0]);
	NEED(in_child(is_nine, args[1]) == 0); /* an edge page: private as ever */
	NEED(!madvise(p, 4 * PAGE, MADV_DOFORK));
	not_shared(args[0]); /* for as long as it is registered */
	both_see(mr, at(p, PAGE));
}

static void init(void)
{
	NEED(ibv_is_fork_initialized() != IBV_FORK_ENABLED);
	NEED(!ibv_fork_init());
	safe();
}

/* ---- no room, spawn ---- */

static void no_room(void)
{
	char *p = pages(1024);
	struct ibv_mr *mr = reg(p, 1024 * PAGE);
	struct rlimit none = {0}, was;

	*at(p, PAGE) = 9;
	NEED(!getrlimit(RLIMIT_AS, &was));
	none.rlim_max = was.rlim_max;
	none.rlim_cur = 1 << 20; /* less than there is: nothing more can be mapped */
	NEED(!setrlimit(RLIMIT_AS, &none));
	not_shared(p + PAGE);
	NEED(!setrlimit(RLIMIT_AS, &was));
	NEED(*at(p, PAGE) == 9);
	both_see(mr, at(p, 2 * PAGE));
	NEED(in_child(is_nine, p + PAGE) == 0);
}

static void spawn(void)
{
	char *p = pages(4), *argv[] = {"true", NULL}, text[16] = "";
	struct ibv_mr *mr = reg(p, 4 * PAGE);
	int status;
	pid_t child;
	FILE *f;

	*at(p, 0) = 9;
	NEED(!posix_spawnp(&child, "true", NULL, NULL, argv, environ) &&
	     waitpid(child, &status, 0) == child && !status);
	NEED(system("true") == 0);
	f = popen("echo hello", "r");
	NEED(f && fgets(text, sizeof(text), f) && !pclose(f) && !strcmp(text, "hello\n"));
	child = vfork();
	if (!child) {
		execlp("true", "true", (char *)NULL);
		_exit(1);
	}
	NEED(waitpid(child, &status, 0) == child && !status);
	NEED(*at(p, 0) == 9);
	both_see(mr, at(p, 0));
}

int main(int argc, char **argv)
{
	static const struct hazard cases[] = {
		{"copy", copy}, {"malloc", heap},     {"wishes", wishes}, {"init", init},
		{"safe", safe}, {"no_room", no_room}, {"spawn", spawn},
	};

	return run_hazard(argc == 2 ? argv[1] : "", cases, sizeof(cases) / sizeof(cases[0]));
}
