/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Outcomes of rows, and the ways to print them.
 *
 * Room: tests. May use: libc.
 */
#ifndef CONFORMANCE_REPORT_H
#define CONFORMANCE_REPORT_H

#include "conformance.h"

struct outcome {
	const struct section *section;
	const struct row *row;
	const char *expected; /* why it fails as yet, if that is known; or NULL */
	enum result result;
	unsigned ms;
	char why[400];	/* why it failed or was skipped */
	char note[120]; /* measured values */
};

/* Failed though it should not have, or passed though it is listed as failing. */
bool outcome_bad(const struct outcome *o);
void report_line(FILE *out, const struct outcome *o);
void report_summary(FILE *out, const struct outcome *o, size_t n);
void report_json(FILE *out, const struct outcome *o, size_t n);
void report_markdown(FILE *out, const struct outcome *o, size_t n);

/* Reads SECTION/ROW, a tab and a reason, one a line; exits if the file is wrong. */
void expected_read(const char *path);
const char *expected_reason(const struct section *s, const struct row *row);

/* Do rows that fail, crash and hang come out as that? 0 or 1. (selftest.c) */
int self_test(struct outcome (*run)(const struct section *s, const struct row *row));

#endif
