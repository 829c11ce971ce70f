/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One message from one end to the other, with everything about it checked: both completions, every byte that should have
 * changed, and those around it that should not.
 *
 * Room: tests. May use: verbs and libc.
 */
#ifndef CONFORMANCE_TRANSFER_H
#define CONFORMANCE_TRANSFER_H

#include "conformance.h"

struct transfer {
	int op;
	size_t len;
	size_t from, to; /* offsets into a's and b's buffer; at least GUARD bytes are free on both sides */
	int from_sges, to_sges;
	bool zero_sges; /* every second SGE is empty */
	unsigned flags; /* beside IBV_SEND_SIGNALED */
};

void transfer(struct rig *r, const struct transfer *t);
/*
 * Is a request of a's on `len` bytes at `addr` under this key allowed? Anything but success and a remote access error fails
 * the row. The QPs work again afterwards.
 */
bool access_works(struct rig *r, int op, uint64_t addr, uint32_t rkey, size_t len);
/* Splits a range into `n` SGEs of different lengths. */
int split(struct ibv_sge *sge, int n, bool zero_sges, const void *at, size_t len, uint32_t lkey);

#endif
