/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Events of a completion channel, and the bytes in its pipe: fx_wake_read(), fx_wake_done(), settle(),
 * fx_events_sort() and fx_events_forget_cq() of host/events.c, flexins_get_cq_event() and fx_channel_event() of
 * host/channel.c, against tell() of core/event.c. Two CQs, two threads that take events, one that destroys a CQ.
 *
 * What happens under the context's lock is several steps where the core may come in between. That a CQ has one event at
 * most that nobody took is arm.pml's; here the core fires EVENTS times for each. That the ring's records are seen in
 * order is cq.pml's. Cancelled readers do as one that read no byte: they leave.
 *
 * Holds: whenever nobody holds the lock, there is a byte for every event that nobody took and for every one that is
 * owed, so that who waits wakes; when nobody reads either, nothing is owed, so that nobody wakes for nothing.
 */
#define CQS 2
#define EVENTS 2

chan ring = [CQS] of {byte};
chan queue = [CQS] of {byte}; /* the channel's list */
byte bytes, readers, owed, held; /* held: bytes that were read, by threads that did not find their event yet */
bool locked, between;		 /* the core: between a record and its byte */
bool gone, dead;		 /* CQ 1, for the core and for the host */
bool untaken[CQS], has[CQS];

/* ---- core ---- */

inline fire(c)
{
	atomic { !(c == 1 && gone) && !untaken[c] && fires[c] < EVENTS ->
		fires[c]++;
		untaken[c] = true;
		between = true;
#ifdef BUG_BYTE_BEFORE_RECORD
		bytes++
	};
	atomic { ring ! c; between = false }
#else
		ring ! c
	};
	atomic { bytes++; between = false }
#endif
}

active proctype Core()
{
	byte fires[CQS];

end:	do
	:: fire(0)
	:: fire(1)
	od
}

/* ---- host ---- */

#define LOCK atomic { !locked -> locked = true }
#define UNLOCK locked = false

inline settle()
{
#ifdef BUG_SETTLED_BESIDE_READERS
	do
	:: owed ->
#else
	do
	:: owed && !readers ->
#endif
		/* a byte that is owed is there, or about to be written */
		if
		:: atomic { bytes -> bytes--; owed-- }
#ifdef BUG_SETTLE_DOES_NOT_WAIT
		:: !bytes -> break
#endif
		fi
	:: else -> break
	od
}

inline sort()
{
	do
	:: atomic { ring ? c ->
		if
		:: c == 1 && dead
		:: !(c == 1 && dead) && has[c] -> owed++
		:: else -> has[c] = true; queue ! c
		fi
	   }
	:: empty(ring) -> break
	od
}

active [2] proctype Taker()
{
	byte c;
	bool found;

again:	LOCK;
	readers++;
	UNLOCK;
end:	if
	:: atomic { bytes -> bytes--; held++ }
	:: true -> /* EAGAIN, a signal, cancellation */
		LOCK;
		readers--;
#ifndef BUG_NOT_SETTLED_BY_WHO_LEAVES
		settle();
#endif
		UNLOCK;
		goto done
	fi;
	LOCK;
	sort();
	if
	:: atomic { queue ? c -> has[c] = false; untaken[c] = false; found = true }
	:: empty(queue) -> found = false
	fi;
	atomic {
		held--;
		readers--;
		if
#ifndef BUG_NOTHING_FOUND_PAYS_NOTHING
		:: !found && owed -> owed--
#endif
		:: else
		fi
	};
	settle();
	UNLOCK;
	found = false;
	c = 0;
	goto again;
done:	skip
}

active proctype Destroyer()
{
	byte c;

	/* the core does it between two events, and answers */
	atomic { !between -> gone = true };
	LOCK;
#ifndef BUG_FORGOTTEN_WITHOUT_A_LOOK
	sort();
#endif
	dead = true;
	if
	:: atomic { has[1] ->
		has[1] = false;
		queue ?? 1;
#ifndef BUG_BYTE_OF_THE_DEAD_NOT_OWED
		owed++
#endif
	   }
	:: else
	fi;
	settle();
	UNLOCK
}

#define CALM (!locked && !between)

active proctype Watch()
{
end:	do
	:: CALM && bytes + held != len(ring) + len(queue) + owed -> assert(false)
	:: CALM && !readers && owed -> assert(false)
	od
}
