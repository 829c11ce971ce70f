/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The send pipe: fx_pipe_room() and fx_pipe_put() of the host, fx_pipe_take() and fx_pipe_publish_ci() of the core, as
 * poll_pipe() in core/worker.c calls them. Entries of one to three slots in a ring of four, for ever.
 *
 * Holds: entries are taken whole, in order, once, and unharmed; neither side waits for ever.
 */
#define SIZE 4
#include "stores.inc"

#define SLOT(i, k, n) ((i) << 4 | (k) << 2 | (n)) /* number, place in its entry, length of that */

#ifdef BUG_ROOM_FOR_ONE_MORE
#define ROOM (SIZE + 1)
#else
#define ROOM SIZE
#endif

active proctype Host()
{
	byte pi, ci, n, k;

	do
	:: atomic {
		if
		:: n = 1
		:: n = 2
		:: n = 3
		fi
	   };
	   if
	   :: MOD(pi - ci) + n <= ROOM
	   :: else -> atomic { MOD(pi - head_ci) + n <= ROOM -> ci = head_ci }
	   fi;
	   /* one step: a slot that is not written yet looks like one whose stores are late */
	   d_step {
		k = 0;
		do
		:: k < n -> publish(MOD(pi + k), SLOT(MOD(pi + k), k, n)); k++
		:: else -> break
		od;
		pi = MOD(pi + n);
		k = 0;
		n = 0
	   }
	od
}

active proctype Core()
{
	byte ci, n, k, slot;
	bool unpublished;

look:	if
	:: phase[AT(ci)] != PHASE(ci) && unpublished ->
publish_ci:
#ifndef BUG_CI_NEVER_WHEN_IDLE
		late_ci = ci;
#endif
		unpublished = false;
		goto look
#ifdef BUG_CI_BEFORE_THE_READ
	:: phase[AT(ci)] == PHASE(ci) -> late_ci = MOD(ci + 1); slot = data[AT(ci)]
#else
	:: READ(ci, slot)
#endif
	fi;
	n = slot & 3;
	assert(slot == SLOT(ci, 0, n) && n != 0);
	k = 1;
	do
	:: k < n ->
		/* not all of it is there: the next turn looks again */
		if
#ifdef BUG_ONLY_THE_FIRST_PHASE
		:: slot = data[AT(ci + k)]
#else
		:: phase[AT(ci + k)] == PHASE(ci + k) -> slot = data[AT(ci + k)]
		:: else ->
#ifdef BUG_HALF_AN_ENTRY_TAKEN
			ci = MOD(ci + k);
#endif
			k = 0;
			n = 0;
			if
			:: unpublished -> goto publish_ci
			:: else -> goto look
			fi
#endif
		fi;
		assert(slot == SLOT(MOD(ci + k), k, n));
		k++
	:: else -> break
	od;
	atomic { ci = MOD(ci + n); k = 0; n = 0; slot = 0; unpublished = true };
	if
	:: goto publish_ci /* the turn's budget is spent */
	:: goto look
	fi
}
