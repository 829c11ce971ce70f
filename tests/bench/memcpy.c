/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calibration: what one CPU takes for a memcpy of 4 KiB that stays in its cache. Prints "NS GB/s".
 *
 * Room: tests. May use: libc.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BYTES = 4096, COPIES = 200000, ROUNDS = 9 };

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static double round_ns(char *to, const char *from)
{
	uint64_t start = now_ns();

	for (int i = 0; i < COPIES; i++) {
		memcpy(to, from, BYTES);
		__asm__ volatile("" : : "r"(to), "r"(from) : "memory"); /* every copy is made */
	}
	return (double)(now_ns() - start) / COPIES;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	char *from = aligned_alloc(4096, BYTES), *to = aligned_alloc(4096, BYTES);
	double ns[ROUNDS];

	if (!from || !to)
		return 1;
	memset(from, 1, BYTES);
	memset(to, 2, BYTES);
	round_ns(to, from);
	for (int i = 0; i < ROUNDS; i++)
		ns[i] = round_ns(to, from);
	qsort(ns, ROUNDS, sizeof(ns[0]), by_value);
	printf("%.1f %.1f\n", ns[ROUNDS / 2], BYTES / ns[ROUNDS / 2]);
	return 0;
}
