/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many connected queue pairs in one program: how long they take to set up, what they cost, and how fast 64-byte
 * WRITEs run over one of them and over all of them in random order, posted in lists. Prints a line `NAME VALUE` for
 * each; every byte that arrived is checked. tests/bench/qps makes a table of it.
 *
 *	bench-qps [--pairs N] [--list L] [--window W] [--rounds R] [--ms T] [--core-pid PID] [--pause]
 *
 * W lists at most are outstanding, 8 on a QP. With --pause it waits for a line when all are there and idle.
 *
 * Room: tests. May use: verbs only; it runs unmodified on any device.
 */
#include <getopt.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "rc.h"

enum { BYTES = 64, MAX_LIST = 64, MAX_ROUNDS = 99, LISTS_A_QP = 8, PATIENCE_S = 20, CQES = 4096 };

static struct {
	unsigned pairs, list, window, rounds, ms, core_pid, pause;
} o = {.pairs = 10000, .list = 16, .window = 64, .rounds = 9, .ms = 300};

/* A pair: QP `a` writes to where `b` lives. Each request of a list has 64 bytes of its own at either end. */
struct pair {
	struct ibv_qp *a, *b;
	uint32_t rounds; /* lists posted: what the bytes say */
	uint32_t flying; /* lists */
};

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_mr *from_mr, *to_mr;
static union ibv_gid gid;
static struct pair *pairs;
static uint8_t *from, *to;
static unsigned npairs, flying;

__attribute__((format(printf, 2, 3))) static void need(bool ok, const char *fmt, ...)
{
	va_list ap;

	if (ok)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(": failed\n");
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Pss and hugepages of a process in KiB; 0: it may not be looked at. */
static unsigned long memory_kib(unsigned pid)
{
	static const char *const wanted[] = {"Pss:", "Private_Hugetlb:", "Shared_Hugetlb:"};
	unsigned long sum = 0, kib;
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/smaps_rollup", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		for (unsigned i = 0; i < 3; i++)
			if (!strncmp(line, wanted[i], strlen(wanted[i])) &&
			    sscanf(line + strlen(wanted[i]), "%lu", &kib) == 1)
				sum += kib;
	if (f)
		fclose(f);
	return sum;
}

/* ---- set-up ---- */

static uint8_t *slot(uint8_t *base, unsigned pair, unsigned i)
{
	return base + ((size_t)pair * o.list + i) * BYTES;
}

static struct ibv_mr *region(uint8_t **at, int access)
{
	size_t size = ((size_t)o.pairs * o.list * BYTES + 4095) / 4096 * 4096;
	struct ibv_mr *mr;

	*at = aligned_alloc(4096, size);
	need(*at, "memory");
	memset(*at, 0, size);
	mr = ibv_reg_mr(pd, *at, size, access);
	need(mr, "MR of %zu bytes", size);
	return mr;
}

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	need(list && list[0], "device list");
	ctx = ibv_open_device(list[0]);
	need(ctx, "open");
	ibv_free_device_list(list);
	need(ibv_query_gid(ctx, 1, 0, &gid) == 0, "GID");
	pd = ibv_alloc_pd(ctx);
	need(pd, "PD");
	cq = ibv_create_cq(ctx, CQES, NULL, NULL, 0);
	need(cq, "CQ");
	pairs = calloc(o.pairs, sizeof(*pairs));
	need(pairs, "memory");
	from_mr = region(&from, IBV_ACCESS_LOCAL_WRITE);
	to_mr = region(&to, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
}

static struct ibv_qp *create_qp(void)
{
	struct ibv_qp_init_attr attr = {.send_cq = cq,
					.recv_cq = cq,
					.qp_type = IBV_QPT_RC,
					.cap = {.max_send_wr = LISTS_A_QP * o.list,
						.max_recv_wr = 16,
						.max_send_sge = 1,
						.max_recv_sge = 1}};
	struct ibv_qp *qp = ibv_create_qp(pd, &attr);

	need(qp, "QP %u", 2 * npairs);
	return qp;
}

static void connect_to(struct ibv_qp *qp, uint32_t peer)
{
	need(rc_connect(qp, peer, &gid, IBV_ACCESS_REMOTE_WRITE) == 0, "connecting QP %#x", qp->qp_num);
}

static void grow(unsigned n)
{
	for (; npairs < n; npairs++) {
		struct pair *p = &pairs[npairs];

		p->a = create_qp();
		p->b = create_qp();
		connect_to(p->a, p->b->qp_num);
		connect_to(p->b, p->a->qp_num);
	}
}

/* ---- traffic ---- */

static uint32_t pattern(unsigned pair, unsigned i)
{
	return (pair * 2654435761u) ^ (pairs[pair].rounds << 8) ^ i;
}

/* The source changes with every list, unless an earlier one may still be on its way. */
static void post(unsigned pair)
{
	struct pair *p = &pairs[pair];
	struct ibv_sge sge[MAX_LIST];
	struct ibv_send_wr wr[MAX_LIST], *bad;
	bool fresh = !p->flying;

	p->rounds += fresh;
	for (unsigned i = 0; i < o.list; i++) {
		uint32_t word = pattern(pair, i);

		if (fresh)
			for (unsigned k = 0; k < BYTES; k += 4)
				memcpy(slot(from, pair, i) + k, &word, sizeof(word));
		sge[i] = (struct ibv_sge){
			.addr = (uintptr_t)slot(from, pair, i), .length = BYTES, .lkey = from_mr->lkey};
		wr[i] = (struct ibv_send_wr){
			.wr_id = pair,
			.next = i + 1 < o.list ? &wr[i + 1] : NULL,
			.sg_list = &sge[i],
			.num_sge = 1,
			.opcode = IBV_WR_RDMA_WRITE,
			.send_flags = i + 1 < o.list ? 0 : IBV_SEND_SIGNALED,
			.wr.rdma = {.remote_addr = (uintptr_t)slot(to, pair, i), .rkey = to_mr->rkey}};
	}
	need(ibv_post_send(p->a, wr, &bad) == 0, "post_send on pair %u", pair);
	p->flying++;
	flying++;
}

/* -> lists that completed */
static unsigned reap(void)
{
	struct ibv_wc wc[32];
	int n = ibv_poll_cq(cq, 32, wc);

	need(n >= 0, "poll_cq");
	for (int i = 0; i < n; i++) {
		need(wc[i].status == IBV_WC_SUCCESS, "pair %u: %s", (unsigned)wc[i].wr_id,
		     ibv_wc_status_str(wc[i].status));
		pairs[wc[i].wr_id].flying--;
		flying--;
	}
	return (unsigned)n;
}

static void drain(void)
{
	double end = now() + PATIENCE_S;

	while (flying) {
		if (!reap())
			need(now() < end, "%u lists outstanding after %d s", flying, PATIENCE_S);
	}
}

/* What arrived is what was written last; of pairs that never wrote, zeroes. */
static void check(void)
{
	for (unsigned p = 0; p < npairs; p++)
		for (unsigned i = 0; i < o.list; i++)
			for (unsigned k = 0; k < BYTES; k += 4) {
				uint32_t want = pairs[p].rounds ? pattern(p, i) : 0, got;

				memcpy(&got, slot(to, p, i) + k, sizeof(got));
				need(got == want, "pair %u, request %u, byte %u: %#x instead of %#x", p, i, k,
				     got, want);
			}
}

static void shuffle(unsigned *order, unsigned n)
{
	uint64_t x = 88172645463325252u;

	for (unsigned i = 0; i < n; i++)
		order[i] = i;
	for (unsigned i = n; i > 1; i--) {
		unsigned k, t;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		k = (unsigned)(x % i);
		t = order[i - 1], order[i - 1] = order[k], order[k] = t;
	}
}

/* WRITEs a second over the first n pairs, each in its turn of a random order, for o.ms. */
static double rate(unsigned n, const unsigned *order)
{
	uint64_t posted = 0;
	double start = now(), end = start + o.ms / 1e3;

	do {
		for (unsigned i = 0; i < 64; i++) {
			unsigned pair = order[posted % n];

			while (flying >= o.window || pairs[pair].flying >= LISTS_A_QP)
				reap();
			post(pair);
			posted++;
		}
	} while (now() < end);
	drain();
	end = now();
	check();
	return (double)posted * o.list / (end - start);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Both rates in turns, so that a machine that changes its state changes both; medians. */
static void compare(void)
{
	unsigned *order = calloc(o.pairs, sizeof(*order)), first = 0;
	double one[MAX_ROUNDS], many[MAX_ROUNDS];

	need(order, "memory");
	shuffle(order, o.pairs);
	for (unsigned i = 0; i < o.rounds; i++) {
		one[i] = rate(1, &first);
		many[i] = rate(o.pairs, order);
	}
	qsort(one, o.rounds, sizeof(one[0]), by_value);
	qsort(many, o.rounds, sizeof(many[0]), by_value);
	printf("one_rate %.0f\nmany_rate %.0f\nratio %.2f\n", one[o.rounds / 2], many[o.rounds / 2],
	       many[o.rounds / 2] / one[o.rounds / 2]);
	free(order);
}

/* Every pair once, so that whatever a QP allocates on first use is there. */
static void touch_all(void)
{
	for (unsigned p = 0; p < npairs; p++) {
		while (flying >= o.window)
			reap();
		post(p);
	}
	drain();
	check();
}

static void leave(void)
{
	while (npairs) {
		struct pair *p = &pairs[--npairs];

		need(ibv_destroy_qp(p->a) == 0 && ibv_destroy_qp(p->b) == 0, "destroy_qp");
	}
	need(ibv_dereg_mr(from_mr) == 0 && ibv_dereg_mr(to_mr) == 0, "dereg_mr");
	need(ibv_destroy_cq(cq) == 0, "destroy_cq");
	need(ibv_dealloc_pd(pd) == 0, "dealloc_pd");
	need(ibv_close_device(ctx) == 0, "close");
	free(from);
	free(to);
	free(pairs);
}

static void parse(int argc, char **argv)
{
	static const struct option list[] = {
		{"pairs", required_argument, NULL, 0},	{"list", required_argument, NULL, 1},
		{"window", required_argument, NULL, 2}, {"rounds", required_argument, NULL, 3},
		{"ms", required_argument, NULL, 4},	{"core-pid", required_argument, NULL, 5},
		{"pause", no_argument, NULL, 6},	{NULL, 0, NULL, 0},
	};
	unsigned *const to_set[] = {&o.pairs, &o.list, &o.window, &o.rounds, &o.ms, &o.core_pid, &o.pause};
	int c;

	while ((c = getopt_long(argc, argv, "", list, NULL)) != -1) {
		need(c != '?', "arguments");
		*to_set[c] = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 1;
	}
	need(optind == argc, "arguments");
	need(o.pairs && o.list && o.list <= MAX_LIST && o.window && o.window < CQES && o.rounds &&
		     o.rounds <= MAX_ROUNDS,
	     "arguments");
}

int main(int argc, char **argv)
{
	unsigned long core, host;
	double start;

	setvbuf(stdout, NULL, _IOLBF, 0);
	parse(argc, argv);
	open_device();
	grow(1);
	touch_all();
	core = memory_kib(o.core_pid);
	host = memory_kib((unsigned)getpid());
	start = now();
	grow(o.pairs);
	printf("setup_s %.3f\n", now() - start);
	printf("qps_per_s %.0f\n", 2 * (o.pairs - 1) / (now() - start));
	touch_all();
	printf("core_bytes_a_qp %ld\n", (long)(memory_kib(o.core_pid) - core) * 1024 / (2 * (long)o.pairs));
	printf("host_bytes_a_qp %ld\n",
	       (long)(memory_kib((unsigned)getpid()) - host) * 1024 / (2 * (long)o.pairs));
	if (o.pause) {
		puts("paused");
		need(getchar() != EOF, "go on");
	}
	compare();
	start = now();
	leave();
	printf("leave_s %.3f\n", now() - start);
	return 0;
}
