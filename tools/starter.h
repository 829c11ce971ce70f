/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bringing a core up, for flexins-run.
 *
 * Room: tools. May use: libc. Functions that can fail return 0 or -1, and have said why on stderr.
 */
#ifndef FX_TOOLS_STARTER_H
#define FX_TOOLS_STARTER_H

#include <stddef.h>

enum {
	FX_PLACE_ARGS = 4, /* --placement and --bus, with a word each */
	FX_CORE_ARGS = 64,
};

struct fx_start {
	const char *core;			   /* its name */
	const char *place_args[FX_PLACE_ARGS + 1]; /* options of flexinsd; ends with NULL */
	const char *core_args;			   /* more of them, in one text */
};

/* There is a core of that name, perhaps only since now. */
int fx_start(const struct fx_start *o);

/* Splits as a shell would, with "..", '..' and backslashes, in place; -1: too many words or an open quote. */
int fx_split_args(char *text, char **argv, int max);

/* The directory of this binary. */
void fx_own_bindir(char *dir, size_t size);

/* A line on stderr, with the tool's name in front. */
__attribute__((format(printf, 1, 2))) void fx_say(const char *fmt, ...);

#endif
