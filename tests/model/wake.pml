/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sleep and wake: go_to_sleep() of core/wait.c and poll_pipe() of core/worker.c against pipe_put(), await_room() and
 * kick() of host/post.c. Two hosts with a pipe of two slots each, who post one or three entries a call; three find no
 * room without a worker that is awake.
 *
 * Each store is first on its way, and becomes visible whenever it likes; a fence waits until one's own are visible.
 * That the contents of entries come before their phases is pipe.pml's: here an entry is a count. Timers, which wake
 * the worker too, are left out, since nothing here may need them. The eventfd is never read and the poll
 * edge-triggered: a write sets `kicked`, a return of the poll clears it.
 *
 * Holds: the worker never sleeps while an entry waits that its host has kicked for; no host waits for ever.
 */
#define HOSTS 2
#define SIZE 2

/* Entries whose store is on its way, that the worker can see, and whose slot's return is on its way back. */
byte late[HOSTS], there[HOSTS], back[HOSTS];
bool sleeping, late_sleeping;
bool kicked;
byte stopped; /* hosts that post no more */

active proctype Stores()
{
end:	do
	:: d_step { late[0] -> late[0]--; there[0]++ }
	:: d_step { late[1] -> late[1]--; there[1]++ }
	:: d_step { back[0] -> back[0]-- }
	:: d_step { back[1] -> back[1]-- }
	:: sleeping != late_sleeping -> sleeping = late_sleeping
	od
}

inline kick()
{
#ifndef BUG_NO_FENCE_OF_THE_HOST
	late[me] == 0;
#endif
	if
	:: sleeping -> kicked = true
	:: !sleeping
	fi
}

#define ROOM (late[me] + there[me] + back[me] < SIZE)

proctype Host(byte me)
{
	byte n;

	do
	:: atomic {
		if
		:: n = 1
		:: n = 3
		:: stopped++; goto done
		fi
	   };
	   do
	   :: n > 0 ->
		if
		:: ROOM
		:: !ROOM ->
#ifndef BUG_NO_KICK_FOR_ROOM
			kick();
#endif
			/* it kicks again and again while it waits: not needed, and so left out */
			ROOM
		fi;
		atomic { late[me]++; n-- }
	   :: else -> break
	   od;
#ifndef BUG_NO_KICK
	   kick()
#endif
	od;
done:	skip
}

inline poll(h)
{
	if
	:: atomic { there[h] -> there[h]--; back[h]++; found = true }
	:: else
	fi
}

/* fx_pipes_ready() */
inline look(h)
{
	if
	:: there[h] -> found = true
	:: else
	fi
}

#define ALL_TAKEN (late[0] + there[0] + late[1] + there[1] == 0)

active proctype Worker()
{
	bool found;

	run Host(0);
	run Host(1);
turn:	found = false;
	poll(0);
	poll(1);
	if
	:: found -> goto turn
	:: else
	fi;
#ifdef BUG_SECOND_LOOK_TOO_EARLY
	look(0);
	look(1);
#endif
	late_sleeping = true;
#ifndef BUG_NO_FENCE_OF_THE_WORKER
	sleeping == late_sleeping;
#endif
#if !defined(BUG_NO_SECOND_LOOK) && !defined(BUG_SECOND_LOOK_TOO_EARLY)
	look(0);
	look(1);
#endif
#ifdef BUG_EARLIER_KICKS_FORGOTTEN
	kicked = false;
#endif
	if
	:: found
	:: !found && kicked -> kicked = false
	:: !found && stopped == HOSTS && ALL_TAKEN -> goto done
	fi;
	late_sleeping = false;
	goto turn;
done:	skip
}
