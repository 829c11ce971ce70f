/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A storm: processes that send, write, read and count over links to one another, break them and make them anew, and
 * that are killed and started again meanwhile. All bytes are checked, and every operation has to end.
 *
 * Usage: storm [--seconds N] [--processes N] [--seed S]
 *
 * The same seed makes the same plan: who is killed in what order, what each process does with each offer. What meets
 * what is up to the scheduler.
 *
 * Room: tests. May use: verbs only.
 */
#include "storm.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TICK_US = 10000, KILL_MS = 400, REST_MS = 300, PROGRESS_MS = 5000, DRAIN_S = 60 };

struct board *board;

static struct child {
	pid_t pid; /* 0: none */
	bool killed;
	uint64_t start_ms;	 /* not before */
	uint64_t turns, seen_ms; /* for the watch */
} child[MAX_PROCS];
static unsigned kills;
static uint64_t plan;

/* ---- processes ---- */

static void stop_all(void)
{
	for (unsigned i = 0; i < board->procs; i++)
		if (child[i].pid > 0)
			kill(child[i].pid, SIGKILL);
}

static _Noreturn void give_up(void)
{
	stop_all();
	printf("storm: seed %lu: failed\n", (unsigned long)board->seed);
	exit(1);
}

static void start(unsigned i)
{
	uint32_t life = atomic_fetch_add(&board->proc[i].life, 1) + 1;

	board->proc[i].adds[life % LIVES].posted = board->proc[i].adds[life % LIVES].done = 0;
	atomic_store(&board->proc[i].drained, false);
	atomic_store(&board->proc[i].doing, "starting");
	fflush(stdout);
	child[i] = (struct child){.pid = fork(), .seen_ms = now_ms()};
	if (child[i].pid == 0)
		peer_run(i, life);
	if (child[i].pid < 0) {
		perror("storm: fork");
		give_up();
	}
}

static void kill_one(unsigned i)
{
	if (child[i].pid <= 0 || child[i].killed)
		return;
	/* before it dies: who sees it gone finds out why */
	atomic_store(&board->proc[i].doomed, board->proc[i].life);
	child[i].killed = true;
	kill(child[i].pid, SIGKILL);
	kills++;
}

static void withdraw_offers(unsigned i)
{
	for (unsigned link = 0; link < board->links; link++)
		for (unsigned which = 0; which < 2; which++)
			if (link_proc(link, which) == i) {
				atomic_store(&board->end[link][which].offer, 0);
				atomic_store(&board->end[link][which].accepted, 0);
			}
}

/* Those that ended: only a killed one may, before the end. */
static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		unsigned i = 0;

		while (i < board->procs && child[i].pid != pid)
			i++;
		if (i == board->procs)
			continue;
		child[i].pid = 0;
		if (child[i].killed) {
			withdraw_offers(i);
			child[i].start_ms = now_ms() + rnd(&plan, REST_MS);
		} else if (atomic_load(&board->stop) != END || status) {
			printf("storm: process %u ended with status %#x, in '%s' of link %d\n", i,
			       (unsigned)status, board->proc[i].doing, board->proc[i].link);
			give_up();
		}
	}
}

static unsigned running(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < board->procs; i++)
		n += child[i].pid > 0;
	return n;
}

/* A process that does not get round any more: where is it? */
static void watch(void)
{
	uint64_t now = now_ms();

	for (unsigned i = 0; i < board->procs; i++) {
		uint64_t turns = board->proc[i].turns;

		if (child[i].pid <= 0 || turns != child[i].turns) {
			child[i].turns = turns;
			child[i].seen_ms = now;
		} else if (now - child[i].seen_ms > SILENCE_S * 1000) {
			printf("storm: process %u (%d) has been in '%s' of link %d for %d s\n", i,
			       child[i].pid, board->proc[i].doing, board->proc[i].link, SILENCE_S);
			give_up();
		}
	}
}

/* ---- the storm ---- */

static void tick(void)
{
	usleep(TICK_US);
	reap();
	watch();
}

static void progress(uint64_t since_ms)
{
	uint64_t n = 0;

	for (int k = 0; k < KINDS; k++)
		n += board->ops[k];
	printf("storm: %lu s: %lu operations, %lu MB, %lu offers, %u kills\n",
	       (unsigned long)(now_ms() - since_ms) / 1000, (unsigned long)n,
	       (unsigned long)(board->bytes / 1000000), (unsigned long)board->offers, kills);
	fflush(stdout);
}

static void blow(uint64_t seconds)
{
	uint64_t from = now_ms(), next_kill = from + KILL_MS, next_line = from + PROGRESS_MS;

	while (now_ms() - from < seconds * 1000) {
		tick();
		for (unsigned i = 0; i < board->procs; i++)
			if (!child[i].pid && now_ms() >= child[i].start_ms)
				start(i);
		if (now_ms() >= next_kill) {
			kill_one((unsigned)rnd(&plan, board->procs));
			next_kill += KILL_MS / 2 + rnd(&plan, KILL_MS);
		}
		if (now_ms() >= next_line) {
			progress(from);
			next_line += PROGRESS_MS;
		}
	}
}

static bool drained(void)
{
	for (unsigned i = 0; i < board->procs; i++)
		if (child[i].pid && !atomic_load(&board->proc[i].drained))
			return false;
	return true;
}

/* Everything under way ends, then every process looks at what it has. */
static void calm_down(void)
{
	uint64_t from = now_ms();

	atomic_store(&board->stop, DRAIN);
	while (!drained()) {
		tick();
		if (now_ms() - from > DRAIN_S * 1000) {
			for (unsigned i = 0; i < board->procs; i++)
				if (child[i].pid && !board->proc[i].drained)
					printf("storm: process %u is not done after %d s, in '%s' of link %d\n",
					       i, DRAIN_S, board->proc[i].doing, board->proc[i].link);
			give_up();
		}
	}
	atomic_store(&board->stop, END);
	while (running())
		tick();
}

static void report(void)
{
	static const char *const names[KINDS] = {"SEND",	 "SEND_IMM",  "WRITE",	  "WRITE_IMM", "READ",
						 "READ(source)", "FETCH_ADD", "CMP_SWAP", "COUNT"};

	printf("storm: seed %lu:", (unsigned long)board->seed);
	for (int k = 0; k < KINDS; k++)
		printf(" %lu %s,", (unsigned long)board->ops[k], names[k]);
	printf(" %lu bytes, %lu messages received, %lu offers, %lu registrations, %u kills; errors:",
	       (unsigned long)board->bytes, (unsigned long)board->received, (unsigned long)board->offers,
	       (unsigned long)board->registrations, kills);
	for (unsigned i = 0; i < STATUSES; i++)
		if (board->errors[i])
			printf(" %lu %s,", (unsigned long)board->errors[i], ibv_wc_status_str(i));
	printf(" all well\n");
}

static uint64_t number(const char *text, uint64_t most)
{
	char *end;
	unsigned long long v = strtoull(text, &end, 10);

	if (!*text || *end || v < 1 || v > most) {
		fprintf(stderr, "storm: %s is not a number from 1 to %llu\n", text, (unsigned long long)most);
		exit(2);
	}
	return v;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", 1, NULL, 's'}, {"processes", 1, NULL, 'p'}, {"seed", 1, NULL, 'S'}, {0}};
	uint64_t seconds = 10;
	int c;

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED) {
		perror("storm: mmap");
		return 1;
	}
	board->procs = 8;
	board->seed = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			seconds = number(optarg, 1000000);
		else if (c == 'p')
			board->procs = (unsigned)number(optarg, MAX_PROCS);
		else if (c == 'S')
			board->seed = number(optarg, UINT64_MAX);
		else
			return 2;
	}
	board->links = board->procs * HOPS;
	plan = mix(board->seed);
	blow(seconds);
	calm_down();
	report();
	return 0;
}
