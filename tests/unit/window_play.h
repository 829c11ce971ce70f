/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For tests of windows: a forked child is the application, this process is the core, a socket pair is the
 * control connection.
 *
 * A scenario runs in the child and ends with its exit code; the core serves it until then, and between
 * requests counts up one word of each 32 bytes of every region it has (the others are the application's
 * threads').
 */
#ifndef FX_TEST_WINDOW_PLAY_H
#define FX_TEST_WINDOW_PLAY_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "emulated.h"
#include "host/convert.h"
#include "memory/engine.h"
#include "memory/space.h"

enum {
	PAGE = 4096,
	REGIONS = 64,
	WORDS = 1 << 17, /* groups of 32 bytes that a scenario can count in */
	RW = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_READ,
	RO = FX_ACC_REMOTE_READ,
};

/* ---- both sides ---- */

enum ask { ASK_REG, ASK_DONE, ASK_DEREG, ASK_PEEK, ASK_POKE, ASK_UVA, ASK_CARRY };

struct request {
	uint32_t ask, mr;
	uint64_t addr, length;
	uint32_t access, flags;
	uint64_t converted, value;
};
struct reply {
	int err;
	uint32_t mr, nseg, nfd, nrun, flat, regions, poisoned;
	uint64_t value;
	struct fx_mr_seg seg[FX_MR_SEGS];
};

/* What both sides look at: the core's increments. */
static struct {
	uint64_t base; /* where the group of count[0] is in the application */
	uint32_t count[WORDS];
	_Atomic uint32_t reached; /* increments so far */
} * shared;

static void send_msg(int sock, const void *msg, size_t len, const int *fds, uint32_t nfd)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = len};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int) * FX_MSG_FDS)];
	} c = {0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfd) {
		c.head.cmsg_level = SOL_SOCKET;
		c.head.cmsg_type = SCM_RIGHTS;
		c.head.cmsg_len = CMSG_LEN(sizeof(int) * nfd);
		memcpy(CMSG_DATA(&c.head), fds, sizeof(int) * nfd);
		m.msg_control = &c;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * nfd);
	}
	if (sendmsg(sock, &m, MSG_NOSIGNAL) != (ssize_t)len)
		abort();
}

static bool recv_msg(int sock, void *msg, size_t len, int *fds)
{
	struct iovec iov = {.iov_base = msg, .iov_len = len};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int) * FX_MSG_FDS)];
	} c = {0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof(c)};

	if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) != (ssize_t)len)
		return false;
	if (fds && m.msg_controllen)
		memcpy(fds, CMSG_DATA(&c.head), c.head.cmsg_len - CMSG_LEN(0));
	return true;
}

/* ---- the core ---- */

struct core {
	int sock;
	pid_t pid;
	struct fx_space *space;
	struct fx_dma_engine *cpu, *slow;
	struct {
		struct fx_mr mr;
		struct fx_mr_seg seg[FX_MR_SEGS];
		uint32_t nseg;
		bool used;
	} mr[REGIONS];
	uint64_t rng;
	bool text;	 /* look the areas up in the text */
	uint32_t budget; /* not 0: of areas, instead of the system's */
};

static int copy_word(struct core *c, const struct fx_mr *mr, uint64_t va, uint64_t *word, bool to_window)
{
	uint32_t len = 8;
	struct fx_dma_done done;
	struct fx_dma d = {
		.win = fx_mr_at(mr, va, &len),
		.local = (uint8_t *)word,
		.len = 8,
		.to_window = to_window,
		.mr = mr,
		.va = va,
	};
	struct fx_dma_engine *e = d.win ? c->cpu : c->slow;

	if (len != 8 || e->ops->submit(e, &d, 1) != 1)
		abort();
	for (unsigned i = 0; !e->ops->poll(e, &done, 1); i++)
		if (i > 100)
			sched_yield();
	return done.err;
}

/* Counts up the fourth word of some groups. */
static void count_up(struct core *c)
{
	for (int k = 0; k < 64; k++) {
		unsigned i =
			(unsigned)((c->rng = c->rng * 6364136223846793005u + 1442695040888963407u) >> 33);
		const struct fx_mr *mr = &c->mr[i % REGIONS].mr;
		uint64_t va, group, word;

		if (!c->mr[i % REGIONS].used || !mr->slow || !(mr->access & FX_ACC_REMOTE_WRITE))
			continue;
		if (mr->length < 32)
			continue; /* not one whole group */
		group = (mr->iova - shared->base + 31) / 32 + (i / REGIONS) % (mr->length / 32);
		va = shared->base + group * 32 + 24;
		if (!fx_mr_covers(mr, va, 8) || group >= WORDS)
			continue;
		if (copy_word(c, mr, va, &word, false))
			continue;
		word++;
		if (!copy_word(c, mr, va, &word, true)) {
			shared->count[group]++;
			atomic_fetch_add(&shared->reached, 1);
		}
	}
}

static uint32_t new_mr(struct core *c)
{
	uint32_t i = 0;

	while (c->mr[i].used)
		if (++i == REGIONS)
			abort();
	c->mr[i].used = true;
	return i;
}

static void serve_reg(struct core *c, const struct request *q)
{
	uint32_t i = new_mr(c), nfd = 0;
	int fds[FX_MSG_FDS];
	struct reply r = {.mr = i};

	c->mr[i].mr = (struct fx_mr){.iova = q->addr, .access = q->access};
	r.err = fx_space_plan(c->space, q->addr, q->length, q->access, q->flags, c->mr[i].seg, &r.nseg, fds,
			      &nfd);
	r.nfd = nfd;
	c->mr[i].nseg = r.nseg;
	c->mr[i].used = !r.err;
	memcpy(r.seg, c->mr[i].seg, sizeof(r.seg));
	send_msg(c->sock, &r, sizeof(r), fds, nfd);
}

static void serve(struct core *c, const struct request *q)
{
	struct fx_mr *mr = &c->mr[q->mr].mr;
	struct reply r = {.mr = q->mr, .value = q->value};

	switch ((enum ask)q->ask) {
	case ASK_REG:
		serve_reg(c, q);
		return;
	case ASK_DONE:
		r.err = fx_space_commit(c->space, c->mr[q->mr].seg, c->mr[q->mr].nseg, q->converted, mr);
		if (r.err)
			c->mr[q->mr].used = false;
		r.nrun = mr->nrun;
		r.flat = mr->base != NULL;
		break;
	case ASK_DEREG:
		fx_mr_unmap(mr);
		c->mr[q->mr].used = false;
		break;
	case ASK_PEEK:
		r.err = copy_word(c, mr, q->addr, &r.value, false);
		break;
	case ASK_POKE:
		r.err = copy_word(c, mr, q->addr, &r.value, true);
		break;
	case ASK_CARRY: { /* to address `length` of region `value`, as a loopback's receiver does */
		uint32_t len = 8;

		r.err = copy_word(c, &c->mr[q->value].mr, q->length,
				  (uint64_t *)(void *)fx_mr_at(mr, q->addr, &len), true);
		break;
	}
	case ASK_UVA: {
		uint32_t len = 1;

		r.value = (uintptr_t)fx_mr_at(mr, q->addr, &len); /* where the core has it */
		break;
	}
	}
	r.regions = c->space->nregion;
	r.poisoned = fx_mr_poisoned(mr);
	send_msg(c->sock, &r, sizeof(r), NULL, 0);
}

static void core_run(struct core *c)
{
	struct pollfd p = {.fd = c->sock, .events = POLLIN};
	struct request q;

	for (;;) {
		if (!poll(&p, 1, 0))
			count_up(c);
		else if (!recv_msg(c->sock, &q, sizeof(q), NULL))
			return;
		else
			serve(c, &q);
	}
}

static void close_core(struct core *c)
{
	fx_space_close(c->space);
	for (int i = 0; i < REGIONS; i++) {
		struct fx_mr *mr = &c->mr[i].mr;

		if (!c->mr[i].used || !mr->slow)
			continue;
		if (mr->base && mr->access == RW) /* outlives its application */
			memcpy(mr->base, mr->base + mr->length / 2, 8);
		fx_mr_unmap(mr);
	}
	c->cpu->ops->destroy(c->cpu);
	c->slow->ops->destroy(c->slow);
}

/* Runs `app` as the application; its result is its exit code. */
static void play(int (*app)(int sock), bool text, uint32_t budget)
{
	static struct core c;
	char why[FX_WHY_LEN] = "";
	int sp[2], status;

	c = (struct core){.rng = 1, .text = text, .budget = budget};
	memset(shared, 0, sizeof(*shared));
	assert_int_equal(fx_window_guard(), 0); /* here, since cmocka installs handlers for each test */
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sp), 0);
	c.pid = fork();
	assert_true(c.pid >= 0);
	if (!c.pid) {
		int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(sp[0]);
		fx_convert_init(dev);
		_exit(app(sp[1]));
	}
	close(sp[1]);
	c.sock = sp[0];
	c.cpu = fx_dma_cpu_create(4);
	c.slow = fx_dma_slow_create(4, NULL, NULL);
	c.space = fx_space_open(c.pid, why, sizeof(why));
	if (!c.space)
		fail_msg("%s", why);
	c.space->maps.text = text;
	if (budget)
		c.space->vma_budget = budget;
	core_run(&c);
	assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
	close_core(&c);
	close(sp[0]);
	if (status)
		fail_msg("the application ended with 0x%x (line %d)", status, WEXITSTATUS(status) * 4);
}

/* ---- the application's side ---- */

/* In the child a failed check ends it; exit codes are short, so the line goes to stderr. */
#define CHECK(x)                                                                                             \
	do {                                                                                                 \
		if (!(x)) {                                                                                  \
			fprintf(stderr, "application: line %d: %s (errno %d)\n", __LINE__, #x, errno);       \
			_exit(__LINE__ / 4);                                                                 \
		}                                                                                            \
	} while (0)

static struct reply ask(int sock, struct request q)
{
	struct reply r;

	send_msg(sock, &q, sizeof(q), NULL, 0);
	CHECK(recv_msg(sock, &r, sizeof(r), NULL));
	return r;
}

struct region {
	struct reply plan, done;
	uint64_t converted;
};

static int plan(int sock, struct region *g, void *addr, size_t len, uint32_t access, uint32_t flags, int *fds)
{
	struct request q = {
		.ask = ASK_REG,
		.addr = (uintptr_t)addr,
		.length = len,
		.access = access,
		.flags = flags,
	};
	uint64_t at = (uintptr_t)addr;

	memset(g, 0, sizeof(*g));
	send_msg(sock, &q, sizeof(q), NULL, 0);
	CHECK(recv_msg(sock, &g->plan, sizeof(g->plan), fds));
	if (g->plan.err)
		return g->plan.err;
	for (uint32_t i = 0; i < g->plan.nseg; i++) { /* in order, no gap */
		CHECK(g->plan.seg[i].addr == at);
		at += g->plan.seg[i].length;
	}
	CHECK(at == (uintptr_t)addr + len);
	return 0;
}

static void convert_all(struct region *g, const int *fds)
{
	uint32_t fd = 0;

	for (uint32_t i = 0; i < g->plan.nseg; i++) {
		const struct fx_mr_seg *s = &g->plan.seg[i];

		if (s->kind != FX_SEG_CONVERT)
			continue;
		if (!fx_convert((void *)(uintptr_t)s->addr, s->length, fds[fd], s->offset,
				PROT_READ | PROT_WRITE))
			g->converted |= UINT64_C(1) << i;
		fd++;
	}
	CHECK(fd == g->plan.nfd);
}

static int finish(int sock, struct region *g, const int *fds)
{
	for (uint32_t i = 0; i < g->plan.nfd; i++)
		close(fds[i]);
	g->done = ask(sock, (struct request){.ask = ASK_DONE, .mr = g->plan.mr, .converted = g->converted});
	return g->done.err;
}

static inline int reg(int sock, struct region *g, void *addr, size_t len, uint32_t access, uint32_t flags)
{
	int fds[FX_MSG_FDS], rc = plan(sock, g, addr, len, access, flags, fds);

	if (rc)
		return rc;
	convert_all(g, fds);
	return finish(sock, g, fds);
}

static inline void dereg(int sock, const struct region *g)
{
	ask(sock, (struct request){.ask = ASK_DEREG, .mr = g->plan.mr});
}

/* Both sides see each other's stores at `p`. */
static inline void check_word(int sock, const struct region *g, void *p)
{
	struct request q = {
		.ask = ASK_POKE, .mr = g->plan.mr, .addr = (uintptr_t)p, .value = (uintptr_t)p ^ 0x55};
	struct reply r = ask(sock, q);

	CHECK(r.err == 0 && *(volatile uint64_t *)p == q.value);
	*(volatile uint64_t *)p = q.value + 1;
	q.ask = ASK_PEEK;
	r = ask(sock, q);
	CHECK(r.err == 0 && r.value == q.value + 1);
}

static inline uint8_t *pages(size_t n, int prot)
{
	uint8_t *p = mmap(NULL, n * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static inline uint32_t kinds(const struct region *g, enum fx_seg_kind kind)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < g->plan.nseg; i++)
		n += g->plan.seg[i].kind == kind;
	return n;
}

static int setup(void **state)
{
	(void)state;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED;
}

#define PLAY(name, budget)                                                                                   \
	static void name##_by_ioctl(void **state)                                                            \
	{                                                                                                    \
		(void)state;                                                                                 \
		play(name, false, budget);                                                                   \
	}                                                                                                    \
	static void name##_by_text(void **state)                                                             \
	{                                                                                                    \
		(void)state;                                                                                 \
		play(name, true, budget);                                                                    \
	}
/* Scenarios that a kernel must play a part in that emulators of user programs do not know: userfaultfd, seccomp. */
#define PLAY_IN_KERNEL(name, budget)                                                                         \
	static void name##_by_ioctl(void **state)                                                            \
	{                                                                                                    \
		(void)state;                                                                                 \
		if (!passed_over())                                                                          \
			play(name, false, budget);                                                           \
	}                                                                                                    \
	static void name##_by_text(void **state)                                                             \
	{                                                                                                    \
		(void)state;                                                                                 \
		if (!passed_over())                                                                          \
			play(name, true, budget);                                                            \
	}
#define BOTH(name) cmocka_unit_test(name##_by_ioctl), cmocka_unit_test(name##_by_text)

#endif
