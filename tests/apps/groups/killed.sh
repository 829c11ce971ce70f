# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Programs and cores that end in the middle of things.

# Server and client of a long transfer; process ids in $SERVER and $CLIENT. No `timeout` between: it passes no
# -9 on.
long_pair()
{
	local port
	port=$(free_port)
	"$RUN" --strict --core "$CORE" -- "$@" -p "$port" >"$TMP/server.out" 2>&1 &
	SERVER=$!
	wait_for 20 listening "$port"
	"$RUN" --strict --core "$CORE" -- "$@" -p "$port" 127.0.0.1 >"$TMP/client.out" 2>&1 &
	CLIENT=$!
	moving || {
		cat "$TMP/server.out" "$TMP/client.out"
		kill -9 "$SERVER" "$CLIENT"
		fail "no traffic"
	}
}

moving()
{
	local before after i
	for i in $(seq 100); do
		before=$(counter tx_packets)
		sleep 0.1
		after=$(counter tx_packets)
		[ $((after - before)) -lt 1000 ] || return 0
	done
	echo "only $((after - before)) packets in 0.1 s after $i tries"
	return 1
}

end_of()
{
	if ! wait_for 20 gone "$1"; then
		kill -9 "$1"
		fail "process $1 hangs: $(tail -n 5 "$TMP/server.out" "$TMP/client.out")"
	fi
	wait "$1" || return 0
}

clean_afterwards()
{
	wait_for 5 no_objects || fail "left behind: $("$CTL" --core "$CORE" show)"
	pair ibv_rc_pingpong -c -g 0 -s 4097 -n 500
	wait_for 5 no_objects
}

# peer_dies PROGRAM: kill -9 of the passive side; the active side's QP runs out of retries
peer_dies()
{
	long_pair "$1" -F -s 65536 -D 30 -u 8
	kill -9 "$SERVER"
	end_of "$CLIENT"
	grep -Eqi 'status 12|retry (counter )?exceeded|retry exc' "$TMP/client.out" ||
		fail "$1 did not see its peer's death: $(cat "$TMP/client.out")"
	clean_afterwards
}

case_write_peer()
{
	peer_dies ib_write_bw
}

case_read_peer()
{
	peer_dies ib_read_bw
}

case_send_peer()
{
	peer_dies ib_send_bw
}

# kill -9 of the active side in mid-transfer
case_sender()
{
	long_pair ib_write_bw -F -s 1000000 -D 30
	kill -9 "$CLIENT"
	sleep 0.2
	kill -9 "$SERVER" 2>/dev/null || true # perhaps it has seen the end of its peer by itself
	wait "$CLIENT" "$SERVER" 2>/dev/null || true
	clean_afterwards
}

case_both()
{
	long_pair ib_send_bw -F -s 4096 -D 30
	kill -9 "$CLIENT" "$SERVER"
	wait "$CLIENT" "$SERVER" 2>/dev/null || true
	clean_afterwards
}

# A bystander's data stays right while others die.
case_bystander()
{
	local by
	aside by pair ibv_rc_pingpong -c -g 0 -s 65536 -n 20000 &
	by=$!
	for _ in 1 2 3; do
		long_pair ib_write_bw -F -s 65536 -D 30
		kill -9 "$CLIENT" "$SERVER"
		wait "$CLIENT" "$SERVER" 2>/dev/null || true
	done
	wait "$by"
}

# The core is told to end, or dies: programs get errors, and do not hang.
core_ends()
{
	long_pair ib_write_bw -F -s 65536 -D 30
	kill "$1" "$(core_pid)"
	wait_for 10 gone "$(core_pid)" || fail "the core did not end"
	rm -f "$TMP/core.pid"
	if ! wait_for 20 gone "$CLIENT"; then
		kill -9 "$CLIENT" "$SERVER"
		fail "the client hangs: $(cat "$TMP/client.out")"
	fi
	refuses wait "$CLIENT"
	kill -9 "$SERVER" 2>/dev/null || true
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

# One of three processes in an XRC domain: its QP goes on without it.
case_in_an_xrc_domain()
{
	run "$HELPERS/xrcdeath"
	clean_afterwards
}
