/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Seeds by the thousand. Without arguments: a table of networks and engines, and one line at the end. With
 * any, only what they say:
 *
 *	sim --seeds A..B --loss P --dup P --reorder P --dma cpu|chaos --looks --mtu N --qps N --ops N [--trace]
 *	sim [--scale PERCENT] [--stop]		the table with fewer or more seeds; stop at the first failure
 *
 * Probabilities are per frame and direction, 0 to 1. What is not given is drawn from the seed. A seed that
 * fails prints the command that repeats it; with --trace it prints every frame.
 *
 * Room: tests/sim.
 */
#include "sim.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct row {
	struct sim_cfg cfg;
	uint64_t from, to;
};

#define ROW(l, d, r, c, a, b)                                                                                \
	{                                                                                                    \
		{.link = {.loss = l, .dup = d, .reorder = r}, .chaos = c}, a, b                              \
	}
#define LOOKS(l, d, r, c, a, b)                                                                              \
	{                                                                                                    \
		{.link = {.loss = l, .dup = d, .reorder = r}, .chaos = c, .looks = true}, a, b               \
	}
static const struct row table[] = {
	ROW(0, 0, 0, false, 1, 400),
	ROW(0, 0, 0, true, 1, 400),
	ROW(10000, 0, 0, false, 1001, 1400),
	ROW(0, 20000, 0, false, 2001, 2400),
	ROW(0, 0, 30000, false, 3001, 3400),
	ROW(1000, 1000, 1000, false, 4001, 4400),
	ROW(10000, 10000, 10000, true, 5001, 5600),
	ROW(50000, 20000, 50000, false, 6001, 6500),
	ROW(50000, 20000, 50000, true, 7001, 7500),
	ROW(100000, 100000, 100000, true, 8001, 8200),
	ROW(0, 300000, 300000, true, 9001, 9200),
	LOOKS(0, 0, 0, false, 10001, 10400),
	LOOKS(10000, 10000, 10000, true, 11001, 11600),
	LOOKS(50000, 20000, 50000, false, 12001, 12400),
	LOOKS(0, 300000, 300000, true, 13001, 13200),
};

static const char *program;
static unsigned long failures, enough = 20;

static void command(const struct sim_cfg *c, uint64_t seed)
{
	printf("%s --seeds %llu..%llu --loss %g --dup %g --reorder %g --dma %s", program,
	       (unsigned long long)seed, (unsigned long long)seed, c->link.loss / 1e6, c->link.dup / 1e6,
	       c->link.reorder / 1e6, c->chaos ? "chaos" : "cpu");
	if (c->looks)
		printf(" --looks");
	if (c->mtu)
		printf(" --mtu %u", c->mtu);
	if (c->qps)
		printf(" --qps %u", c->qps);
	if (c->ops)
		printf(" --ops %u", c->ops);
}

static uint64_t run_row(const struct row *row)
{
	uint64_t n = 0;

	for (uint64_t seed = row->from; seed <= row->to; seed++, n++) {
		struct sim_cfg c = row->cfg;
		const char *bad;

		c.seed = seed;
		bad = load_run(&c);
		if (!bad)
			continue;
		printf("FAIL: ");
		command(&c, seed);
		printf("   # %s\n", bad);
		fflush(stdout);
		if (++failures >= enough) {
			printf("that is enough\n");
			exit(1);
		}
	}
	return n;
}

static uint32_t ppm(const char *s)
{
	double p = strtod(s, NULL);

	return p < 0 ? 0 : p > 1 ? 1000000 : (uint32_t)(p * 1e6 + 0.5);
}

enum { O_SEEDS, O_LOSS, O_DUP, O_REORDER, O_DMA, O_LOOKS, O_MTU, O_QPS, O_OPS, O_SCALE, O_STOP, O_TRACE };
static const struct option options[] = {
	{"seeds", 1, NULL, O_SEEDS}, {"loss", 1, NULL, O_LOSS},
	{"dup", 1, NULL, O_DUP},     {"reorder", 1, NULL, O_REORDER},
	{"dma", 1, NULL, O_DMA},     {"mtu", 1, NULL, O_MTU},
	{"qps", 1, NULL, O_QPS},     {"ops", 1, NULL, O_OPS},
	{"scale", 1, NULL, O_SCALE}, {"looks", 0, NULL, O_LOOKS},
	{"stop", 0, NULL, O_STOP},   {"trace", 0, NULL, O_TRACE},
	{NULL, 0, NULL, 0},
};

static void usage(void)
{
	fprintf(stderr,
		"usage: %s [--seeds A..B] [--loss P] [--dup P] [--reorder P] [--dma cpu|chaos] [--mtu N] "
		"[--looks] [--qps N] [--ops N] [--trace]\n       %s [--scale PERCENT] [--stop]\n",
		program, program);
	exit(2);
}

static void parse(int o, struct row *r)
{
	unsigned long long a, b;

	switch (o) {
	case O_SEEDS:
		if (sscanf(optarg, "%llu..%llu", &a, &b) != 2 || a > b)
			usage();
		r->from = a;
		r->to = b;
		break;
	case O_LOSS:
		r->cfg.link.loss = ppm(optarg);
		break;
	case O_DUP:
		r->cfg.link.dup = ppm(optarg);
		break;
	case O_REORDER:
		r->cfg.link.reorder = ppm(optarg);
		break;
	case O_DMA:
		r->cfg.chaos = !strcmp(optarg, "chaos");
		if (!r->cfg.chaos && strcmp(optarg, "cpu"))
			usage();
		break;
	case O_LOOKS:
		r->cfg.looks = true;
		break;
	case O_MTU:
		r->cfg.mtu = (uint32_t)atoi(optarg);
		if (r->cfg.mtu != 256 && r->cfg.mtu != 512 && r->cfg.mtu != 1024 && r->cfg.mtu != 2048 &&
		    r->cfg.mtu != 4096)
			usage();
		break;
	case O_QPS:
		r->cfg.qps = (uint32_t)atoi(optarg);
		if (r->cfg.qps < 1 || r->cfg.qps > 32)
			usage();
		break;
	case O_OPS:
		r->cfg.ops = (uint32_t)atoi(optarg);
		break;
	case O_TRACE:
		r->cfg.trace = true;
		break;
	default:
		usage();
	}
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct row given = {.from = 1, .to = 100};
	const struct load_totals *t = &load_totals;
	unsigned scale = 100;
	double start = seconds();
	bool custom = false;
	uint64_t seeds = 0;
	int o;

	program = argv[0];
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == O_SCALE) {
			scale = (unsigned)atoi(optarg);
			continue;
		}
		if (o == O_STOP) {
			enough = 1;
			continue;
		}
		parse(o, &given);
		custom = true;
	}
	if (optind < argc)
		usage();
	for (size_t i = 0; !custom && i < sizeof(table) / sizeof(table[0]); i++) {
		struct row r = table[i];

		r.to = r.from + (r.to - r.from + 1) * scale / 100 - 1;
		seeds += run_row(&r);
	}
	if (custom)
		seeds = run_row(&given);
	printf("sim: %llu seeds, %lu failed; %llu messages, %.1f MB, %llu frames "
	       "(%llu lost, %llu doubled, %llu delayed), %llu resent, "
	       "%llu timeouts, %llu NAKs, %llu RNR, %llu duplicates; %.1f s\n",
	       (unsigned long long)seeds, failures, (unsigned long long)t->messages, (double)t->bytes / 1e6,
	       (unsigned long long)t->frames, (unsigned long long)t->lost, (unsigned long long)t->doubled,
	       (unsigned long long)t->delayed, (unsigned long long)t->retransmits,
	       (unsigned long long)t->timeouts, (unsigned long long)t->naks, (unsigned long long)t->rnr,
	       (unsigned long long)t->dups, seconds() - start);
	return failures != 0;
}
