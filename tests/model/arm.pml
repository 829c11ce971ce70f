/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Arms of a completion queue: flexins_req_notify_cq() and known() of host/cq.c, taken() and note_told() of
 * host/channel.c, against fx_cq_arm(), fx_cq_wakes() and fx_cq_fire() of pipe/ring.h, as fx_event_arm() and
 * fx_event_comp() of core/event.c call them. One CQ; a thread that waits for events as programs do (arm, poll until
 * empty, wait), one that takes an event, polls little and arms for solicited events, when it likes, and may be stopped
 * anywhere, between the lock and the pipe too.
 *
 * What happens under the CQ's lock is one step. The pipe is a FIFO (pipe.pml), the ring holds the CQ's one event, as is
 * asserted. CQEs become visible late, but before the record of an event that tells of them (release). A run
 * has CQES completions, any of which may be solicited; counters start at 1 as the code's sequences do.
 *
 * Holds: while an arm waits, no CQE that it is for is left without an event; at most one event that nobody took; each
 * event tells of a CQE that none before told of, and which can be polled.
 */
#define CQES 4

mtype = {NOT, SOLICITED, ANY};
#define FROM(kind, loud) (kind == ANY -> pi : loud) /* the newest CQE that the arm is for */

chan pipe = [2] of {byte, mtype, byte};
byte pi, loud, seen; /* CQEs written, one past the last solicited one, what the host can see */
byte noted;	     /* the last solicited one as the core knows it */
byte told, ci;	     /* of the host */
byte seq = 1, known; /* of its arm */
mtype armed = NOT;
byte sending; /* threads between the lock and the pipe */
byte fired;   /* the core's */
byte wait_seq, wait_from;
mtype waits = NOT;
bool busy, untaken, in_ring;
byte record;

/* ---- core ---- */

inline fire()
{
	d_step {
		assert(!untaken);
		untaken = true;
		in_ring = true;
		record = pi;
		fired = wait_seq;
		waits = NOT
	}
}

#ifdef BUG_SEQUENCE_IGNORED
#define PASSED_OVER(s) false
#else
#ifdef BUG_ONLY_THE_LAST_SEQUENCE_PASSED_OVER
#define PASSED_OVER(s) ((s) == fired)
#else
#define PASSED_OVER(s) ((s) <= fired)
#endif
#endif
#ifdef BUG_NARROWED
#define KEPT(s) false
#else
#define KEPT(s) (waits == ANY && wait_seq == (s))
#endif
#ifdef BUG_WHAT_IS_THERE_IGNORED
#define NEWER(from) false
#else
#ifdef BUG_COMPARED_WITH_AN_OLD_INDEX
#define NEWER(from) (old_pi > (from) && FROM(waits, noted) > (from))
#else
#define NEWER(from) (FROM(waits, noted) > (from))
#endif
#endif

active proctype Core()
{
	byte s, from, old_pi;
	mtype kind;

end:	do
	:: atomic { pi < CQES -> busy = true; pi++; if :: loud = pi :: skip fi };
	   /* fx_cq_wakes() */
	   if
#ifdef BUG_LOUD_NOTED_ONLY_FOR_ARMS
	   :: loud == pi && waits == NOT
#endif
	   :: loud == pi -> noted = pi
	   :: else
	   fi;
	   if
	   :: waits == ANY || (waits == SOLICITED && loud == pi) -> fire()
	   :: else
	   fi;
	   busy = false
	:: atomic { pipe ? s, kind, from; busy = true };
	   if
	   :: PASSED_OVER(s)
	   :: else ->
		d_step {
			if
			:: KEPT(s)
			:: else -> waits = kind; wait_seq = s
			fi
		};
		if
		:: NEWER(from) -> fire()
		:: else
		fi
	   fi;
	   atomic { old_pi = pi; s = 0; from = 0; busy = false }
	od
}

active proctype Stores()
{
end:	do
	:: seen < pi -> seen++
	od
}

/* ---- host ---- */

#ifdef BUG_ONLY_THE_CONSUMED_ARE_KNOWN
#define KNOWN ci
#else
#define KNOWN (told > ci -> told : ci)
#endif

/* flexins_req_notify_cq() */
inline arm(kind)
{
	atomic {
		if
		:: armed == ANY || armed == kind
		:: else ->
			armed = kind;
			known = KNOWN;
			my_seq = seq;
			my_known = known;
			sending++
		fi
	};
	if
	:: my_seq -> atomic { pipe ! my_seq, kind, my_known; sending--; my_seq = 0; my_known = 0 }
	:: else
	fi
}

#ifdef BUG_EVENT_BEFORE_ITS_CQE
#define VISIBLE in_ring
#else
#define VISIBLE (in_ring && seen >= record)
#endif

inline note_told()
{
	d_step {
		assert(record > told && seen >= record);
		told = record;
#ifdef BUG_SEQUENCE_OF_THE_RECORD
		armed = NOT;
		seq++;
#endif
		in_ring = false
	}
}

inline taken()
{
	d_step {
#ifndef BUG_SEQUENCE_OF_THE_RECORD
		armed = NOT;
		seq++;
#endif
		untaken = false
	}
}

/* flexins_get_cq_event(): ctx->lock is held from the record to the event */
inline take()
{
#ifdef BUG_TAKEN_BEFORE_TOLD
	taken();
	note_told();
#else
	note_told();
	taken();
#endif
	locked = false
}

bool locked;

active proctype Waiter()
{
	byte my_seq, my_known;

	do
	:: arm(ANY);
	   ci = seen;
end:	   if /* for ever if the other one has taken the last event and polled little: that is the program's affair */
	   :: ci == CQES -> break
	   :: atomic { VISIBLE && !locked -> locked = true };
	      take()
	   fi
	od
}

active proctype Other()
{
	byte my_seq, my_known;

	do
	:: atomic { ci < seen -> ci++ }
	:: arm(SOLICITED)
	:: atomic { VISIBLE && !locked -> locked = true };
	   take();
	   arm(ANY)
	:: break
	od
}

#define QUIET (!busy && !sending && empty(pipe) && !locked)

/* An arm waits that has reason to fire. */
active proctype Watch()
{
end:	do
	:: QUIET && !untaken && armed != NOT && FROM(armed, loud) > known -> assert(false)
	od
}
