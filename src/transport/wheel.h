/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A timing wheel: QPs that want to be looked at not before some time.
 *
 * Room: transport. May use: C11 only. Timers are lazy: re-arming for later only moves the deadline in the QP, and the
 * wheel puts an early riser back to sleep; so the common case (an ACK moved the deadline) costs a store.
 *
 * The timers of the transport, all of them, and why (fx_timer_kind):
 *	RTO	the oldest unacknowledged packet was not acknowledged in time: go back to it (IBTA 9.7.6.1.3)
 *	RNR	the peer had no receive posted: wait as long as it asked, then go back (9.7.5.2.8)
 *	FLUSH	a QP in error looks for receives posted since, to flush them (guarantee P8)
 */
#ifndef FX_TRANSPORT_WHEEL_H
#define FX_TRANSPORT_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

enum { FX_WHEEL_TICK_SHIFT = 14, FX_WHEEL_BITS = 8, FX_WHEEL_LEVELS = 4 }; /* 16 us ticks; 70,000 s in all */

struct fx_timer {
	struct fx_timer *next, **prev; /* prev NULL: not on the wheel */
	uint64_t slot_time;	       /* when the wheel will look */
};

struct fx_wheel {
	uint64_t tick; /* of the last turn */
	uint32_t armed;
	struct fx_timer *slot[FX_WHEEL_LEVELS][1 << FX_WHEEL_BITS];
};

void fx_wheel_init(struct fx_wheel *w, uint64_t now);
/* Look at `t` at or soon (one tick) after `when`. Already on the wheel and due earlier: nothing to do. */
void fx_wheel_arm(struct fx_wheel *w, struct fx_timer *t, uint64_t when);
void fx_wheel_disarm(struct fx_wheel *w, struct fx_timer *t);
/* Takes the next timer whose time has come off the wheel, or NULL. */
struct fx_timer *fx_wheel_expire(struct fx_wheel *w, uint64_t now);
/* A lower bound of the next expiry, UINT64_MAX if nothing is armed. */
uint64_t fx_wheel_next(const struct fx_wheel *w);

#endif
