/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For the tests of registered memory that meets everything else a program does: regions, a peer that reads and writes
 * them, children, and what the kernel says of an address.
 *
 * Room: tests. May use: verbs, selfqp.h.
 */
#ifndef FX_TEST_HAZARDS_H
#define FX_TEST_HAZARDS_H

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "selfqp.h"

enum { SKIPPED = 77 };

typedef volatile uint64_t word;

static uint64_t *scratch; /* what the peer sends from and reads into */
static struct ibv_mr *scratch_mr;

static inline word *at(void *base, size_t off)
{
	return (word *)((char *)base + off);
}

static inline char *pages(size_t n)
{
	char *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	NEED(p != MAP_FAILED);
	return p;
}

static inline struct ibv_mr *reg(void *addr, size_t len)
{
	struct ibv_mr *mr = ibv_reg_mr(pd, addr, len, ACCESS);

	NEED(mr);
	return mr;
}

static inline void meet(void)
{
	open_all();
	connect_to_self();
	scratch = (uint64_t *)pages(1);
	scratch_mr = reg(scratch, PAGE);
}

/* A QP that an error ended begins anew. */
static inline void meet_again(void)
{
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_RESET};
	struct ibv_wc wc;

	NEED(!ibv_modify_qp(qp, &a, IBV_QP_STATE));
	while (ibv_poll_cq(cq, 1, &wc) > 0)
		;
	connect_to_self();
}

static inline void peer_write(const struct ibv_mr *mr, word *to, uint64_t value)
{
	scratch[0] = value;
	post(scratch_mr, &scratch[0], IBV_WR_RDMA_WRITE, mr, (void *)(uintptr_t)to, 0, 0);
	completion();
}

static inline uint64_t peer_read(const struct ibv_mr *mr, word *from)
{
	scratch[1] = ~UINT64_C(0);
	post(scratch_mr, &scratch[1], IBV_WR_RDMA_READ, mr, (void *)(uintptr_t)from, 0, 0);
	completion();
	return *(word *)&scratch[1];
}

/* Each sees what the other writes. */
static inline void both_see(const struct ibv_mr *mr, word *w)
{
	static uint64_t last = 0x1000;

	peer_write(mr, w, ++last);
	NEED(*w == last);
	*w = ++last;
	NEED(peer_read(mr, w) == last);
}

/* The peer is refused. It is the same QP: its responder may have ended it before its requester hears why. */
static inline void peer_refused(const struct ibv_mr *mr, word *w, enum ibv_wr_opcode op)
{
	enum ibv_wc_status status;

	post(scratch_mr, &scratch[2], op, mr, (void *)(uintptr_t)w, 0, 0);
	status = outcome().status;
	NEED(status == IBV_WC_REM_ACCESS_ERR || status == IBV_WC_WR_FLUSH_ERR);
	meet_again();
}

/* The line of `file` (maps, smaps) that begins with `key` for the area of an address; key NULL: its first line. */
static inline bool proc_line(const char *file, const void *addr, const char *key, char *line, size_t size)
{
	FILE *f = fopen(file, "r");
	unsigned long start, end;
	bool inside = false, found = false;

	NEED(f);
	while (!found && fgets(line, (int)size, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			inside = (uintptr_t)addr >= start && (uintptr_t)addr < end;
			found = inside && !key;
		} else {
			found = inside && key && !strncmp(line, key, strlen(key));
		}
	}
	fclose(f);
	return found;
}

/* Shares the core no memory with anybody? Then nothing is ever converted or mapped, and all the rest holds. */
static inline bool far(void)
{
	const char *at = getenv("FX_PLACEMENT");

	return at && !strcmp(at, "emulated");
}

/* Is the page shared with the core? */
static inline bool is_converted(const void *addr)
{
	char line[512];

	return proc_line("/proc/self/maps", addr, NULL, line, sizeof(line)) &&
	       strstr(line, "/memfd:flexins-mr");
}

/* Is it what can be converted, and was wherever that is done? */
static inline bool may_be_converted(const void *addr)
{
	return is_converted(addr) != far();
}

struct hazard {
	const char *name;
	void (*run)(void);
};

/* main() of a program of such cases. */
static inline int run_hazard(const char *name, const struct hazard *cases, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(name, cases[i].name)) {
			meet();
			cases[i].run();
			puts("fine");
			return 0;
		}
	printf("there is no case '%s'\n", name);
	return 2;
}

/* -> a child's wait status; it runs fn(arg) and ends with 0. */
static inline int in_child(void (*fn)(void *arg), void *arg)
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	NEED(child >= 0);
	if (!child) {
		alarm(PATIENCE_S);
		fn(arg);
		fflush(stdout);
		_exit(0);
	}
	NEED(waitpid(child, &status, 0) == child);
	return status;
}

#endif
