# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Programs that sleep until an event: completion channels, asynchronous events, and the end of the core beneath them.

case_pingpong()
{
	local size
	for size in 1 64 4096 4097 1000000; do
		pair ibv_rc_pingpong -e -c -g 0 -s "$size" -n $((size > 100000 ? 100 : 1000))
		clean "$TMP/client.out" "$TMP/server.out"
	done
}

# They really slept: there were events, none was lost, and nobody armed what is not there.
case_counted()
{
	local before after
	before=$(counter comp_events)
	pair ibv_rc_pingpong -e -c -g 0 -n 1000
	after=$(counter comp_events)
	[ $((after - before)) -ge 1000 ] || fail "$((after - before)) completion events in 1000 round trips"
	[ "$(counter events_lost)" = 0 ] || fail "events were lost"
}

case_send_bw()
{
	pair ib_send_bw -e -F -s 4096 -n 5000
	pair ib_send_bw -e -F -a -n 100
}

# perftest has no events with WRITE
case_read_bw()
{
	pair ib_read_bw -e -F -s 65536 -n 2000
}

case_send_lat()
{
	pair ib_send_lat -e -F -s 64 -n 2000
}

case_read_lat()
{
	pair ib_read_lat -e -F -s 64 -n 2000
}

case_two_pairs_at_once()
{
	local first
	aside first pair ibv_rc_pingpong -e -c -g 0 -s 65536 -n 1000 &
	first=$!
	aside second pair ibv_rc_pingpong -e -c -g 0 -s 4097 -n 2000
	wait "$first"
}

case_asyncwatch()
{
	local pid
	"$RUN" --strict --core "$CORE" -- ibv_asyncwatch >"$TMP/watch.out" 2>&1 &
	pid=$!
	wait_for 10 grep -q 'async event FD' "$TMP/watch.out" || fail "it said: $(cat "$TMP/watch.out")"
	sleep 0.3
	! gone "$pid" || fail "it ended by itself: $(cat "$TMP/watch.out")"
	kill "$pid"
	wait_for 5 gone "$pid" || fail "it does not end"
	wait "$pid" || true
	wait_for 5 no_objects
}

# A CQ that overruns, and its QPs, of which flexinsctl knows why.
case_overrun()
{
	run "$HELPERS/overrun" "$CTL --core $CORE --json show qps | grep -q '\"cause\": *\"cq-overrun\"'" >"$TMP/out" ||
		fail "$(cat "$TMP/out")"
	wait_for 5 no_objects
}

# core_ends SIGNAL: while one program sleeps until a completion that never comes, and another until an event
core_ends()
{
	local watch
	"$RUN" --strict --core "$CORE" -- ibv_asyncwatch >"$TMP/watch.out" 2>&1 &
	watch=$!
	wait_for 10 grep -q 'async event FD' "$TMP/watch.out" || fail "it said: $(cat "$TMP/watch.out")"
	"$RUN" --strict --core "$CORE" -- "$HELPERS/sleeper" >"$TMP/sleeper.out" 2>&1 &
	SLEEPER=$!
	wait_for 10 grep -q asleep "$TMP/sleeper.out" || fail "the sleeper said: $(cat "$TMP/sleeper.out")"
	sleep 0.3
	kill "$1" "$(core_pid)"
	wait_for 10 gone "$(core_pid)" || fail "the core did not end"
	rm -f "$TMP/core.pid"
	wait_for 10 gone "$SLEEPER" || {
		kill -9 "$SLEEPER" "$watch"
		fail "the sleeper sleeps on: $(cat "$TMP/sleeper.out")"
	}
	wait "$SLEEPER" || fail "the sleeper said: $(cat "$TMP/sleeper.out")"
	wait_for 10 grep -q 'event_type' "$TMP/watch.out" || fail "the watcher said: $(cat "$TMP/watch.out")"
	kill "$watch" 2>/dev/null || true
	wait "$watch" 2>/dev/null || true
}

case_core_term()
{
	core_ends -TERM
}

case_core_kill()
{
	core_ends -KILL
	rm -f "$(rundir)/$CORE.sock"
}
