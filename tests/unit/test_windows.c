/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Windows: what is converted, mapped, left slow or refused, and that nothing the application says is
 * believed.
 */
#include "window_play.h"

#include <sys/shm.h>

/* Whole pages are converted, the edges are not, and both are reached. */
static int edges_stay_slow(int sock)
{
	uint8_t *buf = pages(10, PROT_READ | PROT_WRITE);
	struct region g, h;

	CHECK(reg(sock, &g, buf + 4000, 4 * PAGE, RW, 0) == 0);
	CHECK(g.plan.nseg == 3 && g.plan.nfd == 1 && g.converted == 2);
	CHECK(g.plan.seg[0].kind == FX_SEG_SLOW && g.plan.seg[0].length == 96);
	CHECK(g.plan.seg[1].kind == FX_SEG_CONVERT && g.plan.seg[1].length == 3 * PAGE);
	CHECK(g.plan.seg[2].kind == FX_SEG_SLOW);
	CHECK(!g.done.flat && g.done.nrun == 3);
	check_word(sock, &g, buf + 4000);
	check_word(sock, &g, buf + 4096);
	check_word(sock, &g, buf + 4 * PAGE - 8);
	check_word(sock, &g, buf + 4 * PAGE);
	CHECK(reg(sock, &h, buf + 100, 200, RW, 0) == 0); /* less than a page */
	CHECK(h.plan.nseg == 1 && h.plan.nfd == 0 && h.done.nrun == 1 && !h.done.flat);
	check_word(sock, &h, buf + 104);
	return 0;
}

static int registered_again(int sock)
{
	uint8_t *buf = pages(600, PROT_READ | PROT_WRITE);
	struct region g, again, inside, across;

	memset(buf, 1, 600 * PAGE);
	CHECK(reg(sock, &g, buf, 540 * PAGE, RW, 0) == 0); /* more than one chunk */
	CHECK(g.done.flat && g.plan.nfd == 1 && g.done.regions == 1);
	for (size_t i = 0; i < 540 * PAGE; i++)
		CHECK(buf[i] == 1);
	CHECK(reg(sock, &again, buf, 540 * PAGE, RW, 0) == 0);
	CHECK(again.done.flat && again.plan.nfd == 0 && again.plan.seg[0].kind == FX_SEG_SHARED);
	CHECK(reg(sock, &inside, buf + 5000, 10000, RW, 0) == 0);
	CHECK(inside.done.flat && inside.plan.nfd == 0); /* shared already: not even the edges are slow */
	CHECK(reg(sock, &across, buf + 500 * PAGE, 100 * PAGE, RW, 0) == 0);
	CHECK(across.done.flat && across.plan.nfd == 1 && across.plan.nseg == 2 && across.done.regions == 2);
	check_word(sock, &inside, buf + 5000);
	check_word(sock, &again, buf + 5000);
	check_word(sock, &across, buf + 540 * PAGE - 8);
	check_word(sock, &across, buf + 540 * PAGE);
	dereg(sock, &g);
	check_word(sock, &again, buf + 540 * PAGE - 8);
	dereg(sock, &again);
	CHECK(reg(sock, &g, buf + 8, 600 * PAGE - 16, RW, 0) == 0);
	CHECK(g.done.flat);
	check_word(sock, &g, buf + 600 * PAGE - 16);
	return 0;
}

/* Path B: memory that is shared already is mapped as it is, by root; and read-only stays read-only. */
static bool as_shared(const struct region *g)
{
	return g->plan.nseg == 1 && g->plan.seg[0].kind == FX_SEG_SHARED && (geteuid() || g->done.flat);
}

static int shared_memory_is_mapped(int sock)
{
	const int rw = PROT_READ | PROT_WRITE;
	int mem = memfd_create("mine", MFD_CLOEXEC), none = memfd_create("ro", MFD_CLOEXEC);
	uint8_t *anon, *file, *ro, *sysv;
	struct region g;
	int id;

	if (!unshare(CLONE_NEWIPC)) { /* the first segment there has the number 0, and so has its file */
		id = shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600);
		sysv = shmat(id, NULL, 0);
		CHECK(id == 0 && sysv != (void *)-1 && !shmctl(id, IPC_RMID, NULL));
		CHECK(reg(sock, &g, sysv, 4 * PAGE, RW, 0) == 0 && as_shared(&g));
		check_word(sock, &g, sysv);
	}
	CHECK(!ftruncate(mem, 20 * PAGE) && !ftruncate(none, 4 * PAGE));
	anon = mmap(NULL, 8 * PAGE, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	file = mmap(NULL, 8 * PAGE, rw, MAP_SHARED, mem, 6 * PAGE);
	ro = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, none, 0);
	CHECK(anon != MAP_FAILED && file != MAP_FAILED && ro != MAP_FAILED);
	CHECK(reg(sock, &g, anon + 100, 3 * PAGE, RW, 0) == 0);
	CHECK(as_shared(&g));
	check_word(sock, &g, anon + 104);
	CHECK(reg(sock, &g, file + 16, 5 * PAGE, RW, FX_REG_NO_CONVERT) == 0);
	CHECK(as_shared(&g));
	check_word(sock, &g, file + 16);
	check_word(sock, &g, file + 5 * PAGE);
	CHECK(reg(sock, &g, ro, 4 * PAGE, RW, 0) == -EFAULT);
	CHECK(reg(sock, &g, ro, 4 * PAGE, RO, 0) == 0);
	CHECK(as_shared(&g));
	CHECK(ask(sock, (struct request){.ask = ASK_PEEK, .mr = g.plan.mr, .addr = (uintptr_t)ro}).err == 0);
	return 0;
}

/* Files on disks, private files, .data, stacks, read-only memory, holes. */
static char in_data[4 * PAGE] = {1};
static int unconvertible_memory(int sock)
{
	/* by alloca(): a sanitizer moves an array's variable off the stack */
	char *on_stack = alloca(4 * PAGE), path[] = "/var/tmp/fx-test-XXXXXX";
	const int rw = PROT_READ | PROT_WRITE;
	int disk = mkstemp(path);
	uint8_t *file, *priv, *hole = pages(6, rw), *ro = pages(4, PROT_READ), *none = pages(4, PROT_NONE);
	struct region g;

	CHECK(disk >= 0 && !unlink(path) && !ftruncate(disk, 4 * PAGE));
	file = mmap(NULL, 4 * PAGE, rw, MAP_SHARED, disk, 0);
	priv = mmap(NULL, 4 * PAGE, rw, MAP_PRIVATE, disk, 0);
	CHECK(file != MAP_FAILED && priv != MAP_FAILED);
	CHECK(reg(sock, &g, priv, 4 * PAGE, RW, 0) == 0 && g.plan.nfd == 0 && !g.done.flat &&
	      g.done.nrun == 1);
	check_word(sock, &g, priv + PAGE);
	CHECK(reg(sock, &g, file, 4 * PAGE, RW, 0) == 0);
	check_word(sock, &g, file + PAGE);
	in_data[0] = 2;
	CHECK(reg(sock, &g, in_data, sizeof(in_data), RW, 0) == 0 && g.plan.nfd == 0);
	check_word(sock, &g, in_data + 2 * PAGE);
	memset(on_stack, 0, 4 * PAGE);
	CHECK(reg(sock, &g, on_stack, 4 * PAGE, RW, 0) == 0 && g.plan.nfd == 0);
	check_word(sock, &g, on_stack + 2 * PAGE);
	CHECK(reg(sock, &g, ro, 4 * PAGE, RO, 0) == 0 && g.plan.nfd == 0);
	CHECK(reg(sock, &g, ro, 4 * PAGE, RW, 0) == -EFAULT);
	CHECK(reg(sock, &g, none, 4 * PAGE, RO, 0) == -EFAULT);
	munmap(hole + 2 * PAGE, PAGE);
	CHECK(reg(sock, &g, hole, 6 * PAGE, RW, 0) == -EFAULT);
	CHECK(reg(sock, &g, hole + PAGE, 2 * PAGE, RW, 0) == -EFAULT);
	CHECK(reg(sock, &g, hole + 2 * PAGE, PAGE, RO, 0) == -EFAULT);
	CHECK(reg(sock, &g, hole, 0, RW, 0) == -EINVAL);
	CHECK(reg(sock, &g, hole, (size_t)-1, RW, 0) == -EINVAL);
	CHECK(reg(sock, &g, hole, 2 * PAGE, RW, 0) == 0 && g.done.flat);
	CHECK(reg(sock, &g, hole + 3 * PAGE, 3 * PAGE, RW, FX_REG_NO_CONVERT) == 0);
	CHECK(g.plan.nfd == 0 && g.plan.nseg == 1 && !g.done.flat);
	check_word(sock, &g, hole + 4 * PAGE);
	return 0;
}

/* An application that claims what it did not do gets the slow path, whatever it did instead. */
static int lies_are_not_believed(int sock)
{
	const int rw = PROT_READ | PROT_WRITE;
	uint8_t *buf = pages(64, rw);
	int fds[FX_MSG_FDS];
	struct region g;

	CHECK(plan(sock, &g, buf, 16 * PAGE, RW, 0, fds) == 0 && g.plan.nfd == 1);
	g.converted = ~UINT64_C(0); /* nothing done */
	CHECK(finish(sock, &g, fds) == 0 && !g.done.flat && g.done.regions == 0);
	check_word(sock, &g, buf);

	CHECK(plan(sock, &g, buf, 16 * PAGE, RW, 0, fds) == 0 && g.plan.nfd == 1);
	CHECK(mmap(buf, 16 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fds[0], (off_t)g.plan.seg[0].offset) ==
	      buf);
	g.converted = 1; /* but read-only */
	CHECK(finish(sock, &g, fds) == 0 && !g.done.flat);

	CHECK(plan(sock, &g, buf + 16 * PAGE, 16 * PAGE, RW, 0, fds) == 0 && g.plan.nfd == 1);
	CHECK(mmap(buf + 16 * PAGE, 16 * PAGE, rw, MAP_PRIVATE | MAP_FIXED, fds[0],
		   (off_t)g.plan.seg[0].offset) != MAP_FAILED);
	g.converted = 1; /* but private */
	CHECK(finish(sock, &g, fds) == 0 && !g.done.flat);
	check_word(sock, &g, buf + 20 * PAGE);

	CHECK(plan(sock, &g, buf + 32 * PAGE, 16 * PAGE, RW, 0, fds) == 0 && g.plan.nfd == 1);
	CHECK(mmap(buf + 32 * PAGE, 8 * PAGE, rw, MAP_SHARED | MAP_FIXED, fds[0],
		   (off_t)g.plan.seg[0].offset + 80 * PAGE) != MAP_FAILED);
	g.converted = 1; /* half of it, and from elsewhere in the file: what is there is mapped */
	CHECK(finish(sock, &g, fds) == 0 && g.done.nrun == 2);
	check_word(sock, &g, buf + 33 * PAGE);
	check_word(sock, &g, buf + 45 * PAGE);

	CHECK(plan(sock, &g, buf + 48 * PAGE, 16 * PAGE, RW, 0, fds) == 0 && g.plan.nfd == 1);
	munmap(buf + 50 * PAGE, PAGE);
	g.converted = 1;
	CHECK(finish(sock, &g, fds) == -EFAULT); /* the memory has gone */
	CHECK(ftruncate(fds[0], 0) != 0);
	return 0;
}

/* The core's memfd cannot be shrunk; a file of the application's own can, and the core lives on. */
static int backing_taken_away(int sock)
{
	const int rw = PROT_READ | PROT_WRITE;
	uint8_t *buf = pages(16, rw), *mine;
	int fds[FX_MSG_FDS], mem = memfd_create("mine", MFD_CLOEXEC);
	struct region g, other;
	struct reply r;

	CHECK(plan(sock, &g, buf, 16 * PAGE, RW, 0, fds) == 0 && g.plan.nfd == 1);
	CHECK(ftruncate(fds[0], 0) && errno == EPERM);
	convert_all(&g, fds);
	CHECK(finish(sock, &g, fds) == 0 && g.done.flat);
	CHECK(!ftruncate(mem, 8 * PAGE));
	mine = mmap(NULL, 8 * PAGE, rw, MAP_SHARED, mem, 0);
	CHECK(mine != MAP_FAILED && reg(sock, &other, mine, 8 * PAGE, RW, 0) == 0 && as_shared(&other));
	check_word(sock, &other, mine + PAGE);
	CHECK(!ftruncate(mem, 0));
	r = ask(sock, (struct request){.ask = ASK_PEEK, .mr = other.plan.mr, .addr = (uintptr_t)mine + PAGE});
	CHECK(r.err == -EFAULT && (geteuid() || r.poisoned));
	check_word(sock, &g, buf + PAGE);
	dereg(sock, &other);
	/* what was read from there on the way to another region has failed as well */
	CHECK(!ftruncate(mem, 8 * PAGE) && reg(sock, &other, mine, 8 * PAGE, RW, 0) == 0 &&
	      as_shared(&other));
	check_word(sock, &other, mine + PAGE);
	CHECK(!ftruncate(mem, 0));
	r = ask(sock, (struct request){.ask = ASK_CARRY,
				       .mr = other.plan.mr,
				       .addr = (uintptr_t)mine + PAGE,
				       .value = g.plan.mr,
				       .length = (uintptr_t)buf});
	CHECK(r.err == -EFAULT && (geteuid() || r.poisoned));
	r = ask(sock, (struct request){.ask = ASK_CARRY,
				       .mr = g.plan.mr,
				       .addr = (uintptr_t)buf + PAGE,
				       .value = g.plan.mr,
				       .length = (uintptr_t)buf});
	CHECK(r.err == 0);
	dereg(sock, &other);
	return 0;
}

/* Ranges of many areas: the smallest become slow, the largest are kept. */
static int many_areas(int sock)
{
	uint8_t *buf = pages(400, PROT_READ | PROT_WRITE);
	struct region g;

	for (int i = 0; i < 100; i++) /* two advices alternate, so areas do not merge */
		CHECK(!madvise(buf + (size_t)i * 4 * PAGE, (i % 3 ? 2 : 3) * PAGE, MADV_DONTDUMP));
	CHECK(reg(sock, &g, buf, 400 * PAGE, RW, 0) == 0);
	CHECK(g.plan.nseg <= FX_MR_SEGS && g.plan.nfd <= FX_MSG_FDS);
	CHECK(kinds(&g, FX_SEG_CONVERT) == 23);
	for (uint32_t i = 0; i < g.plan.nseg; i++)
		if (g.plan.seg[i].kind == FX_SEG_CONVERT)
			CHECK(g.plan.seg[i].length >= 3 * PAGE && (g.converted >> i & 1));
	for (size_t i = 0; i < 400; i += 13)
		check_word(sock, &g, buf + i * PAGE);
	return 0;
}

/* Past the budget (8 areas here) only what is large is converted, and past twice that nothing. */
static int vma_budget(int sock)
{
	uint8_t *buf = pages(500, PROT_READ | PROT_WRITE);
	struct region g[12];

	for (int i = 0; i < 6; i++)
		CHECK(reg(sock, &g[i], buf + (size_t)i * 3 * PAGE, PAGE, RW, 0) == 0);
	CHECK(g[3].done.flat && g[3].done.regions == 4);
	CHECK(!g[4].done.flat && !g[5].done.flat);
	for (int i = 6; i < 12; i++)
		CHECK(reg(sock, &g[i], buf + (size_t)(i * 20 + 100) * PAGE, 16 * PAGE, RW, 0) == 0);
	CHECK(g[9].done.flat && g[9].done.regions == 8 && !g[10].done.flat);
	munmap(buf, 12 * PAGE); /* regions that are no longer mapped give their places back */
	CHECK(reg(sock, &g[4], buf + 400 * PAGE, 16 * PAGE, RW, 0) == 0);
	CHECK(g[4].done.flat && g[4].done.regions == 5);
	check_word(sock, &g[9], buf + 280 * PAGE);
	return 0;
}

/*
 * Plans that never come to step 2 cost a bounded number of memfds, and no range is offered twice meanwhile.
 */
static int unfinished_plans(int sock)
{
	uint8_t *buf = pages(1000, PROT_READ | PROT_WRITE);
	int fds[FX_MSG_FDS];
	struct region g, h;

	CHECK(plan(sock, &g, buf, 4 * PAGE, RW, 0, fds) == 0 && g.plan.nfd == 1);
	CHECK(plan(sock, &h, buf + PAGE, 4 * PAGE, RW, 0, fds) == 0 && h.plan.nfd == 0);
	CHECK(finish(sock, &h, fds) == 0 && finish(sock, &g, fds) == 0 && g.done.regions == 0);
	for (size_t i = 0; i < 50; i++)
		CHECK(plan(sock, &h, buf + i * 8 * PAGE, PAGE, RW, 0, fds) == 0 && h.plan.nfd == 1);
	return 0;
}

/*
 * What the application unmaps stays the window's until it is taken away; killed applications leave windows
 * behind.
 */
static int unmapped_while_registered(int sock)
{
	uint8_t *buf = pages(600, PROT_READ | PROT_WRITE);
	struct region g, h;

	CHECK(reg(sock, &g, buf, 16 * PAGE, RW, 0) == 0 && g.done.flat);
	CHECK(reg(sock, &h, buf + 20 * PAGE, 530 * PAGE, RW, 0) == 0 && h.done.flat);
	*(uint64_t *)(buf + PAGE) = 77;
	munmap(buf, 16 * PAGE);
	CHECK(ask(sock, (struct request){.ask = ASK_PEEK, .mr = g.plan.mr, .addr = (uintptr_t)buf + PAGE})
		      .value == 77);
	/*
	 * windows of 2 MiB and more are congruent with the application's addresses, so huge pages stay huge
	 */
	CHECK(((ask(sock,
		    (struct request){.ask = ASK_UVA, .mr = h.plan.mr, .addr = (uintptr_t)buf + 20 * PAGE})
			.value ^
		(uintptr_t)(buf + 20 * PAGE)) &
	       ((2 << 20) - 1)) == 0);
	return 0;
}

static void a_dead_process_is_refused(void **state)
{
	char why[FX_WHY_LEN] = "";
	pid_t p = fork();

	(void)state;
	if (!p)
		_exit(0);
	waitpid(p, NULL, 0);
	assert_null(fx_space_open(p, why, sizeof(why)));
	assert_non_null(strstr(why, "process"));
}

PLAY_IN_KERNEL(edges_stay_slow, 0)
PLAY_IN_KERNEL(registered_again, 0)
PLAY(shared_memory_is_mapped, 0)
PLAY_IN_KERNEL(unconvertible_memory, 0)
PLAY(lies_are_not_believed, 0)
PLAY_IN_KERNEL(backing_taken_away, 0)
PLAY_IN_KERNEL(many_areas, 0)
PLAY_IN_KERNEL(vma_budget, 8)
PLAY(unfinished_plans, 0)
PLAY_IN_KERNEL(unmapped_while_registered, 0)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(edges_stay_slow),
		BOTH(registered_again),
		BOTH(shared_memory_is_mapped),
		BOTH(unconvertible_memory),
		BOTH(lies_are_not_believed),
		BOTH(backing_taken_away),
		BOTH(many_areas),
		BOTH(vma_budget),
		BOTH(unfinished_plans),
		BOTH(unmapped_while_registered),
		cmocka_unit_test(a_dead_process_is_refused),
	};

	return verdict(cmocka_run_group_tests(tests, setup, NULL));
}
