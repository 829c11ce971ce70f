/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What has to be true, in our small verbs programs.
 *
 * Room: tests. May use: libc.
 */
#ifndef FX_TEST_NEED_H
#define FX_TEST_NEED_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define NEED(ok) need(ok, #ok, __LINE__)

static inline void need(bool ok, const char *what, int line)
{
	if (ok)
		return;
	printf("line %d: %s: failed (errno %d)\n", line, what, errno);
	fflush(stdout);
	exit(1);
}

#endif
