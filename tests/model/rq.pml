/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The receive queue: fx_rq_put() and fx_rq_take() of src/pipe/ring.h. Entries of three slots in a ring of eight, so that
 * they lie across its end. The host counts what is outstanding: an entry is given back by the completion of what it
 * received, here the consumer's index, counted in entries.
 *
 * Holds: entries are taken whole, in order, once, and unharmed; neither side waits for ever.
 */
#define SIZE 8
#define STRIDE 3
#include "stores.inc"

#define POS(index) MOD((index) * STRIDE)
#define SLOT(index, s) ((index) << 2 | (s))

#ifdef BUG_ONE_MORE_OUTSTANDING
#define CAP (SIZE / STRIDE + 1)
#else
#define CAP (SIZE / STRIDE)
#endif

active proctype Host()
{
	byte index, s;

	do
	:: MOD(index - head_ci) < CAP ->
	   atomic {
		s = 0;
		do
		:: s < STRIDE -> publish(MOD(POS(index) + s), SLOT(index, s)); s++
		:: else -> break
		od;
		index = MOD(index + 1);
		s = 0
	   }
	od
}

active proctype Core()
{
	byte index, s, slot;

look:	s = 0;
	do
	:: s < STRIDE ->
		if
#ifdef BUG_ONLY_THE_FIRST_PHASE
		:: s > 0 -> slot = data[AT(POS(index) + s)]
#else
		:: s > 0 && phase[AT(POS(index) + s)] != PHASE(MOD(POS(index) + s)) -> goto look
#endif
		:: READ(MOD(POS(index) + s), slot)
		fi;
		assert(slot == SLOT(index, s));
		s++;
#ifdef BUG_GIVEN_BACK_HALF_READ
		late_ci = MOD(index + 1)
#endif
	:: else -> break
	od;
	atomic { index = MOD(index + 1); late_ci = index; slot = 0 };
	goto look
}
