# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# A core that shares no memory with its hosts, by a host that is nothing but the protocol.

# shellcheck disable=SC2034 # read by run.sh
CORE_ARGS=(--placement emulated)

ticket()
{
	echo "$(rundir)/$CORE.tcp"
}

# bus SPEC: farhost over a core with that bus
bus()
{
	core_start --placement emulated --bus "$1"
	timeout 60 "$HELPERS/farhost" "$(ticket)"
	core_start "${CORE_ARGS[@]}"
}

case_protocol()
{
	timeout 60 "$HELPERS/farhost" "$(ticket)"
	wait_for 5 no_objects
	[ "$(counter kicks | head -n 1)" -gt 0 ] || fail "nobody kicked"
	[ "$(counter rx_parked)" -gt 0 ] || fail "no receive was looked for"
	[ "$(counter tx_naks)" = 0 ] || fail "a receive that was posted was not found"
}

case_near_bus()
{
	bus latency=0,width=0,reorder=0
}

case_far_bus()
{
	bus latency=20000,width=2,reorder=500,seed=3
}

case_shown()
{
	"$CTL" --core "$CORE" show | grep -q 'placement  *emulated' || fail "flexinsctl does not show the placement"
	"$CTL" --core "$CORE" show | grep -q 'bus  *latency=' || fail "flexinsctl does not show the bus"
}

# Hosts that die at any moment of it leave nothing behind.
case_killed()
{
	local i pid
	for i in 1 2 3 4 5 6 7 8 9 10; do
		"$HELPERS/farhost" "$(ticket)" >"$TMP/far.out" &
		pid=$!
		sleep "0.$((i * 7 % 10))"
		kill -9 "$pid" 2>/dev/null || true
		wait "$pid" || true
	done
	wait_for 5 no_objects || fail "something was left behind"
	timeout 60 "$HELPERS/farhost" "$(ticket)"
}

# An engine for mappings, where there are none, is refused and not passed over.
case_no_chaos()
{
	local status=0
	timeout 10 "$CORED" --name "$CORE-2" --placement emulated --dma chaos >"$TMP/out" 2>&1 || status=$?
	[ "$status" = 2 ] || fail "status $status: $(cat "$TMP/out")"
	grep -q -- '--dma chaos.*--placement emulated.*--bus' "$TMP/out" || fail "it says: $(cat "$TMP/out")"
}

# What a program without the ticket hears, and that no ticket outlives its core.
case_ticket()
{
	local file
	file=$(ticket)
	[ "$(wc -w <"$file")" = 3 ] || fail "the ticket is: $(cat "$file")"
	core_stop
	[ ! -e "$file" ] || fail "$file is left"
	echo "127.0.0.1 1 00" >"$file"
	core_start --placement local
	[ ! -e "$file" ] || fail "a local core leaves $file, which leads hosts astray"
	core_start "${CORE_ARGS[@]}" # as the next case expects it
}

# With a host that has all its rings open and does nothing: they are not looked at until it kicks.
case_idle()
{
	local pid before after far
	pid=$(core_pid)
	"$HELPERS/farhost" "$(ticket)" 4 >"$TMP/far.out" &
	far=$!
	wait_for 20 grep -q idle "$TMP/far.out" || fail "farhost: $(cat "$TMP/far.out")"
	sleep 0.2
	before=$(cat "/proc/$pid/task/"*/schedstat | awk '{ n += $1 } END { printf "%d", n / 1000000 }')
	sleep 2
	after=$(cat "/proc/$pid/task/"*/schedstat | awk '{ n += $1 } END { printf "%d", n / 1000000 }')
	wait "$far" || fail "farhost: $(cat "$TMP/far.out")"
	echo "NOTE: idle: $((after - before)) ms of CPU in 2 s"
	[ $((after - before)) -lt 40 ] || fail "an idle core uses $((after - before)) ms of CPU in 2 s"
}
