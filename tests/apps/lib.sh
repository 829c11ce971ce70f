# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the groups of tests/apps share: a core of the group's own, pairs of programs over it, a look inside it.
# A case is a function case_NAME; it runs in a subshell under `set -e` and fails by any failing command or by
# `fail`. What a failing case printed is shown; a passing one is silent. Lines that begin with NOTE: are
# measured values, shown by run.sh -v.

BUILD=${FX_BUILD:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build}
RUN=$BUILD/tools/flexins-run
CTL=$BUILD/tools/flexinsctl
CORED=$BUILD/tools/flexinsd
export HELPERS=$BUILD/tests/apps # our own small programs
APPS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export APPS
CORE=fxapps-$$
PATIENCE=60 # seconds that one program may take
# Where a core runs is for the caller to say: FX_PLACEMENT=emulated, and FX_BUS for what is between it and programs.
PLACEMENT=()
[ -z "${FX_PLACEMENT:-}" ] || PLACEMENT+=(--placement "$FX_PLACEMENT")
[ -z "${FX_BUS:-}" ] || PLACEMENT+=(--bus "$FX_BUS")

# What delays and reorders: the engine for tests; where all goes over a bus, that is what does it.
chaos()
{
	if [ "${FX_PLACEMENT:-}" = emulated ]; then
		echo --bus "latency=3000,reorder=500,seed=${1##*,}"
	else
		echo --dma "$1"
	fi
}

# emulate: what was built for another machine runs under $FX_EMULATOR, and so do that machine's own programs in
# $FX_SYSROOT: a script for each, so that neither cases nor flexins-run need to know.
emulate()
{
	local file
	mkdir "$TMP/bin"
	for file in "$BUILD"/tools/flexins* "$BUILD"/tests/apps/* "$FX_SYSROOT"/usr/bin/ib*; do
		[ -f "$file" ] || continue
		printf '#!/bin/bash\nexec %s %s "$@"\n' "$FX_EMULATOR" "$file" >"$TMP/bin/${file##*/}"
	done
	chmod +x "$TMP"/bin/*
	PATH=$TMP/bin:$PATH
	RUN=$TMP/bin/flexins-run CTL=$TMP/bin/flexinsctl CORED=$TMP/bin/flexinsd HELPERS=$TMP/bin
}

fail()
{
	echo "FAILED: $*"
	exit 1
}

# skip REASON...: the case cannot be run here; a failure unless tests/allowed-skips.txt lists it
skip()
{
	echo "SKIPPED: $*"
	exit 77
}

# Where this user's cores have their sockets.
rundir()
{
	if [ "$(id -u)" = 0 ]; then
		echo /run/flexins
	elif [ -n "${XDG_RUNTIME_DIR:-}" ]; then
		echo "$XDG_RUNTIME_DIR/flexins"
	else
		echo "/tmp/flexins-$(id -u)"
	fi
}

# Everything in the places where a core could leave something behind.
leftovers()
{
	local dir
	for dir in "$(rundir)" /run/dpdk /tmp/dpdk "${XDG_RUNTIME_DIR:-/none}/dpdk" /dev/hugepages /dev/shm; do
		if [ -d "$dir" ]; then
			find "$dir" -mindepth 1 -maxdepth 2 2>/dev/null
		fi
	done | sort
}

# wait_for SECONDS COMMAND...: until it succeeds
wait_for()
{
	local end=$(($(date +%s%N) + $1 * 1000000000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s%N)" -lt "$end" ] || return 1
		sleep 0.05
	done
}

# core_start [ARGS...]: a core called $CORE; its process id is in $TMP/core.pid
core_start()
{
	[ ! -e "$TMP/core.pid" ] || core_stop
	"$CORED" --name "$CORE" "${PLACEMENT[@]}" "$@" >"$TMP/core.log" 2>&1 </dev/null &
	echo $! >"$TMP/core.pid"
	if ! wait_for 10 "$CTL" --core "$CORE" show device; then
		echo "the core did not start; it said:"
		cat "$TMP/core.log"
		return 1
	fi
}

core_pid()
{
	cat "$TMP/core.pid"
}

# KiB of the core's own: Pss and hugepages; the application's windows count only as the Pss share of them
core_kib()
{
	awk '/^(Pss|Private_Hugetlb|Shared_Hugetlb):/ { n += $2 } END { print n }' "/proc/$(core_pid)/smaps_rollup"
}

core_stop()
{
	local pid
	[ -e "$TMP/core.pid" ] || return 0
	pid=$(core_pid)
	rm -f "$TMP/core.pid"
	kill "$pid" 2>/dev/null || return 0
	if ! wait_for 5 gone "$pid"; then
		echo "the core did not end on SIGTERM"
		kill -9 "$pid"
		return 1
	fi
}

# gone PID: no such process, or a zombie that its parent has not fetched yet
gone()
{
	local state
	state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) || return 0
	[ -z "$state" ] || [ "$state" = Z ]
}

# run COMMAND...: over the group's core, or one of that name that is started for it
run()
{
	timeout -k 5 "$PATIENCE" "$RUN" --strict --core "$CORE" "${PLACEMENT[@]}" -- "$@"
}

listening()
{
	grep -q ":$(printf '%04X' "$1") [0:A-F]* 0A " /proc/net/tcp /proc/net/tcp6
}

taken()
{
	grep -q ":$(printf '%04X' "$1") " /proc/net/tcp /proc/net/tcp6
}

free_port()
{
	local port
	while port=$((20000 + RANDOM % 10000)); do
		taken "$port" || break
	done
	echo "$port"
}

# server PORT COMMAND...: in the background; its process id is in $SERVER
server()
{
	local port=$1
	shift
	run "$@" -p "$port" >"$TMP/server.out" 2>&1 &
	SERVER=$!
	wait_for 20 listening "$port" || {
		echo "the server of '$*' did not listen on port $port:"
		cat "$TMP/server.out"
		return 1
	}
}

# pair COMMAND...: server and client of a program; both must succeed. Output: $TMP/server.out and client.out.
pair()
{
	local port ok=0
	port=$(free_port)
	server "$port" "$@" || return 1
	run "$@" -p "$port" 127.0.0.1 >"$TMP/client.out" 2>&1 || ok=$?
	if [ "$ok" != 0 ]; then
		kill "$SERVER" 2>/dev/null || true
	fi
	wait "$SERVER" || ok="$ok, server $?"
	if [ "$ok" != 0 ]; then
		printf '%s: exit status %s\n-- server:\n' "$*" "$ok"
		cat "$TMP/server.out"
		echo "-- client:"
		cat "$TMP/client.out"
		echo "-- core:"
		tail -n 20 "$TMP/core.log"
		return 1
	fi
}

# variants PROGRAM [ARGS]: a perftest program, once with each line of the input as further options; its table has one line
variants()
{
	local options
	while read -r options <&3; do
		# shellcheck disable=SC2086
		pair "$@" -F $options
		[ "$(grep -Ec '^ +[0-9]+ +[0-9]+ +[0-9.]+ +[0-9.]+' "$TMP/client.out")" = 1 ] || {
			echo "$* $options: no result:"
			cat "$TMP/client.out"
			return 1
		}
	done 3<&0
}

# aside NAME COMMAND...: with files of its own, for what runs beside something else
aside()
{
	local dir=$TMP/$1
	mkdir -p "$dir"
	cp "$TMP"/core.* "$dir/"
	shift
	local TMP=$dir
	"$@"
}

# refuses COMMAND...: it must fail
refuses()
{
	! "$@" || fail "this succeeded: $*"
}

# clean FILE...: no program complained of wrong data there
clean()
{
	refuses grep -i 'invalid data' "$@"
}

# counter NAME...: their values, one a line
counter()
{
	local json name
	json=$("$CTL" --core "$CORE" --json show counters)
	for name; do
		printf '%s\n' "$json" | sed -n "s/.*\"$name\": *\([0-9][0-9]*\).*/\1/p" |
			awk -v name="$name" '{ n += $1; seen = 1 } END { if (!seen) exit 1; print n }' ||
			fail "flexinsctl shows no counter $name"
	done
}

# objects SECTION: how many the core holds
objects()
{
	"$CTL" --core "$CORE" --json show "$1" |
		python3 -c 'import json, sys; d = json.load(sys.stdin); print(len(d))'
}

no_objects()
{
	[ "$(objects contexts) $(objects qps) $(objects mrs)" = "0 0 0" ]
}

group_end()
{
	local status=$?
	trap - EXIT
	if [ -e "$TMP/core.pid" ]; then
		core_stop || true
	fi
	rm -rf "$TMP"
	exit "$status"
}
