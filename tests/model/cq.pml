/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The completion queue: fx_cq_push() of the core, fx_cq_take() and fx_cq_publish_ci() of the host, as flexins_poll_cq()
 * calls them. The host polls when it likes, and so does not prevent an overrun. A CQE is the number of the
 * completion, those that found no room included. The event ring is of the same kind, without an overrun's end.
 *
 * Holds: CQEs are taken in order, once, and unharmed; an overrun is an error, of a ring that is full, for good, and all
 * that was written before it can still be taken.
 */
#define SIZE 4
#include "stores.inc"

bool overrun;
byte pi, told; /* CQEs written; completions that there were */

active proctype Core()
{
	byte ci;

	do
	:: if
	   :: MOD(pi - ci) < SIZE
	   :: else ->
		atomic {
#ifndef BUG_OLD_CI_BELIEVED
			ci = head_ci; /* acquire: before we write where the host has read */
#endif
			if
			:: MOD(pi - ci) < SIZE
			:: else ->
				assert(MOD(pi - head_ci) == SIZE);
#ifndef BUG_OVERRUN_OVERWRITES
				overrun = true;
#ifndef BUG_OVERRUN_FORGIVEN
				goto dead;
#endif
				told = MOD(told + 1);
				goto again
#endif
			fi
		}
	   fi;
	   d_step {
		publish(pi, told);
		pi = MOD(pi + 1);
		told = MOD(told + 1)
	   };
again:	   skip
	od;
dead:	skip
}

active proctype Host()
{
	byte ci, cqe;

	do
	:: if
#ifdef BUG_CI_BEFORE_THE_READ
	   :: phase[AT(ci)] == PHASE(ci) -> late_ci = MOD(ci + 1); cqe = data[AT(ci)]
#else
	   :: READ(ci, cqe)
#endif
	   :: overrun && ci == pi -> break /* all that was written before the overrun */
	   fi;
	   assert(cqe == ci);
	   ci = MOD(ci + 1);
	   cqe = 0;
	   if
	   :: late_ci = ci
	   :: skip /* the application asked for more */
	   fi
	od
}
