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
	"$CTL" --core "$CORE" show >"$TMP/out" # whole: it fails if grep has seen enough before it ended
	grep -q 'placement  *emulated' "$TMP/out" || fail "flexinsctl does not show the placement"
	grep -q 'bus  *latency=' "$TMP/out" || fail "flexinsctl does not show the bus"
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

# A program whose memory cannot be reached without its leave gives it, as one beside its core does (windows/ptracer).
case_ptracer()
{
	[ "$(id -u)" = 0 ] || skip "no root to become somebody else"
	[ -e /proc/sys/kernel/yama/ptrace_scope ] || skip "no Yama in this kernel"
	mkdir -p "$TMP/b" "$TMP/run"
	cp "$CORED" "$RUN" "$BUILD/shim/libflexins-preload.so" "$HELPERS/hazards" "$TMP/b/"
	chmod -R a+rX "$TMP/b"
	chown 65534 "$TMP/run"
	chmod 700 "$TMP/run"
	FX_PLACEMENT=emulated setpriv --reuid=65534 --regid=65534 --clear-groups env XDG_RUNTIME_DIR="$TMP/run" \
		timeout "$PATIENCE" "$TMP/b/flexins-run" --strict --core "$CORE-own" --placement emulated \
		--core-args --no-huge -- "$TMP/b/hazards" edges >"$TMP/out" 2>&1 || fail "$(tail -n 5 "$TMP/out")"
}

# A program by the ticket alone, without a socket that it could use; the core's own command, too.
case_ticket_alone()
{
	local hidden=$TMP/hidden.sock
	mv "$(rundir)/$CORE.sock" "$hidden"
	pair ibv_rc_pingpong -c -g 0 -n 200
	mv "$hidden" "$(rundir)/$CORE.sock"
	[ "$("$CTL" --core "$CORE" --json show core | grep -c emulated)" -gt 0 ] || fail "another core answered"
}

# ticket_with TOKEN: a file like the core's
ticket_with()
{
	local file=$TMP/other.tcp
	sed "s/[0-9a-f]*\$/$1/" "$(ticket)" >"$file"
	echo "$file"
}

# A wrong token is refused in words, counted, and in the core's log; a missing one is no core.
case_wrong_token()
{
	local before file
	before=$(counter refused_token)
	file=$(ticket_with "$(printf '%064d' 0)")
	refuses timeout 30 env FLEXINS_SOCKET="$file" FLEXINS_WHY=1 LD_PRELOAD="$BUILD/shim/libflexins-preload.so" \
		ibv_rc_pingpong >"$TMP/out" 2>&1
	grep -q "the token is not core $CORE's" "$TMP/out" || fail "the program hears: $(cat "$TMP/out")"
	[ "$(counter refused_token)" -gt "$before" ] || fail "it was not counted"
	grep -q 'a connection was refused: it has a wrong token' "$TMP/core.log" || fail "no word in the core's log"
	file=$(ticket_with "")
	refuses timeout 30 env FLEXINS_SOCKET="$file" FLEXINS_WHY=1 LD_PRELOAD="$BUILD/shim/libflexins-preload.so" \
		ibv_rc_pingpong >"$TMP/out" 2>&1
	grep -q "no core answers at $file" "$TMP/out" || fail "the program hears: $(cat "$TMP/out")"
	pair ibv_rc_pingpong -c -g 0 -n 100
}

# Who listens where the ticket points and says nothing keeps a program for ten seconds, not for ever.
case_silent_core()
{
	local file=$TMP/silent.tcp silent start=$SECONDS
	python3 - "$file" <<'PY' &
import socket, sys, time
s = socket.create_server(("127.0.0.1", 0))
open(sys.argv[1], "w").write("127.0.0.1 %d %s\n" % (s.getsockname()[1], "00" * 32))
held = []
while True:
    held.append(s.accept())
PY
	silent=$!
	wait_for 5 test -s "$file"
	refuses timeout 30 env FLEXINS_SOCKET="$file" FLEXINS_WHY=1 LD_PRELOAD="$BUILD/shim/libflexins-preload.so" \
		ibv_rc_pingpong >"$TMP/out" 2>&1
	kill "$silent"
	grep -q "no core answers at $file" "$TMP/out" || fail "the program hears: $(cat "$TMP/out")"
	[ $((SECONDS - start)) -lt 20 ] || fail "it took $((SECONDS - start)) s"
}

# A core that comes again under a program that lives: that one hears the end, and others find the new ticket.
case_restarted()
{
	local port old server client
	old=$(cat "$(ticket)")
	port=$(free_port)
	run ib_write_bw -F -s 65536 -D 30 -p "$port" >"$TMP/server.out" 2>&1 &
	server=$!
	wait_for 20 listening "$port"
	run ib_write_bw -F -s 65536 -D 30 -p "$port" 127.0.0.1 >"$TMP/client.out" 2>&1 &
	client=$!
	wait_for 20 some_packets || fail "no traffic: $(cat "$TMP/client.out")"
	kill -9 "$(core_pid)"
	wait_for 5 gone "$(core_pid)"
	rm -f "$TMP/core.pid"
	core_start "${CORE_ARGS[@]}"
	[ "$(cat "$(ticket)")" != "$old" ] || fail "the new core has the old one's token"
	pair ibv_rc_pingpong -c -g 0 -n 200
	wait_for 20 gone "$client" || fail "the client hangs: $(cat "$TMP/client.out")"
	refuses wait "$client"
	kill "$server" 2>/dev/null || true # it may wait for its peer's TCP connection
	wait "$server" || true
	wait_for 5 no_objects
}

some_packets()
{
	[ "$(counter tx_packets)" -gt 5000 ]
}

# A host that stops: what is under way with it ends or waits, everybody else goes on, and it goes on when it may.
case_stopped()
{
	local port client server
	port=$(free_port)
	"$RUN" --strict --core "$CORE" -- ib_send_bw -F -s 65536 -n 4000 -p "$port" >"$TMP/server.out" 2>&1 &
	server=$!
	wait_for 20 listening "$port"
	"$RUN" --strict --core "$CORE" -- ib_send_bw -F -s 65536 -n 4000 -p "$port" 127.0.0.1 >"$TMP/client.out" 2>&1 &
	client=$!
	sleep 0.3
	kill -STOP "$server"
	aside beside pair ibv_rc_pingpong -c -g 0 -s 4097 -n 500
	sleep 1
	kill -CONT "$server"
	wait_for 60 gone "$client" || fail "the client hangs: $(cat "$TMP/client.out")"
	wait "$client" || fail "the client: $(cat "$TMP/client.out")"
	wait "$server" || fail "the server: $(cat "$TMP/server.out")"
}

# inodes PID [shared]: of the files that a process maps; only what it would see others write to
inodes()
{
	awk -v shared="${2:-}" '$5 && (!shared || $2 ~ /s/) { print $4 ":" $5 }' "/proc/$1/maps" | sort -u
}

# in_common PID: files that it and the core map, one of the two at least so that it sees the other's stores
in_common()
{
	local core
	core=$(core_pid)
	{
		comm -12 <(inodes "$core" shared) <(inodes "$1")
		comm -12 <(inodes "$core") <(inodes "$1" shared)
	} | sort -u
}

# its_maps ARGS: what a program in full flow has in common with its core
its_maps()
{
	local port server pid
	core_start "$@"
	port=$(free_port)
	"$RUN" --strict --core "$CORE" -- ib_write_bw -F -s 65536 -D 20 -p "$port" >"$TMP/server.out" 2>&1 &
	server=$!
	wait_for 20 listening "$port"
	"$RUN" --strict --core "$CORE" -- ib_write_bw -F -s 65536 -D 20 -p "$port" 127.0.0.1 >"$TMP/client.out" 2>&1 &
	pid=$!
	wait_for 20 some_packets || fail "no traffic: $(cat "$TMP/client.out")"
	in_common "$pid" >"$TMP/common"
	kill -9 "$pid" "$server"
	wait "$pid" "$server" 2>/dev/null || true
}

#
# No page through which core and program see each other's stores: no inode that both map, and one of them shared. What
# both map privately is the code and the initial data of libraries and of the locale; the kernel copies such a page when
# it is written to, so nothing passes through it. The same look at a core beside its programs finds what they share.
#
case_maps()
{
	its_maps --placement local
	[ "$(wc -l <"$TMP/common")" -ge 3 ] || fail "page, arena and windows are not found: $(cat "$TMP/common")"
	its_maps --placement emulated
	[ ! -s "$TMP/common" ] || fail "in common: $(cat "$TMP/common")"
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
