/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cases that an emulator of user programs cannot play.
 *
 * Room: tests.
 */
#ifndef FX_TEST_EMULATED_H
#define FX_TEST_EMULATED_H

#include <stdbool.h>
#include <stdlib.h>

static unsigned npassed_over;

/* True under an emulator of user programs: the case is about what only a kernel does. */
static inline bool passed_over(void)
{
	if (!getenv("FX_EMULATOR"))
		return false;
	npassed_over++;
	return true;
}

/* main()'s result: what was passed over makes the whole program count as skipped, unless something failed. */
static inline int verdict(int failed)
{
	enum { SKIPPED = 77 }; /* meson's */

	return failed || !npassed_over ? failed : SKIPPED;
}

#endif
