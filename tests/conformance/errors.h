/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of errors: how each is provoked, and what both ends are told. Sections errors and events check it, and
 * docs/errors.md is printed from it.
 *
 * Room: tests. May use: verbs and libc.
 */
#ifndef CONFORMANCE_ERRORS_H
#define CONFORMANCE_ERRORS_H

#include "conformance.h"

enum { MAX_ERRORS = 100, NO_CQE = -1, NO_EVENT = -1 };

struct error_arg {
	int op;
	long n;
};

struct error {
	const char *name; /* of the row, and the cause in docs/errors.md */
	const char *clause;
	void (*prepare)(struct spec *s);		      /* or NULL */
	void (*provoke)(struct rig *r, struct error_arg arg); /* a posts request 1, b perhaps receive 2 */
	struct error_arg arg;
	enum ibv_wc_status status; /* of request 1 */
	int recv_status;	   /* of receive 2, or NO_CQE */
	const char *nak;	   /* on the wire */
	enum ibv_qp_state a, b;	   /* the QPs afterwards */
	int event;		   /* for b's QP, or NO_EVENT; a's has none: its completions tell */
	const char *advice;
};

extern const struct error errors[];
extern const size_t nerrors;

#endif
