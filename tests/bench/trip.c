/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calibration: a cache line's one-way trip between the first two CPUs that this process may use. Prints ns.
 *
 * Room: tests. May use: libc, threads.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TRIPS = 100000, ROUNDS = 9 };

static struct {
	_Alignas(128) _Atomic uint32_t there;
	_Alignas(128) _Atomic uint32_t back;
} line;
static int cpu[2];

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void pin(int to)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(to, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *answer(void *arg)
{
	pin(cpu[1]);
	for (uint32_t i = 1; i <= TRIPS * (ROUNDS + 1); i++) {
		while (atomic_load_explicit(&line.there, memory_order_acquire) != i)
			relax();
		atomic_store_explicit(&line.back, i, memory_order_release);
	}
	return arg;
}

static double round_ns(uint32_t first)
{
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (uint32_t i = first; i < first + TRIPS; i++) {
		atomic_store_explicit(&line.there, i, memory_order_release);
		while (atomic_load_explicit(&line.back, memory_order_acquire) != i)
			relax();
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	return ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / TRIPS / 2;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	double ns[ROUNDS];
	pthread_t thread;
	cpu_set_t set;
	int n = 0;

	sched_getaffinity(0, sizeof(set), &set);
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &set))
			cpu[n++] = i;
	if (n < 2) {
		puts("-"); /* one CPU: no trip to measure */
		return 0;
	}
	pin(cpu[0]);
	if (pthread_create(&thread, NULL, answer, NULL) != 0)
		return 1;
	round_ns(1);
	for (uint32_t i = 0; i < ROUNDS; i++)
		ns[i] = round_ns((i + 1) * TRIPS + 1);
	pthread_join(thread, NULL);
	qsort(ns, ROUNDS, sizeof(ns[0]), by_value);
	printf("%.1f\n", ns[ROUNDS / 2]);
	return 0;
}
