# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Many of everything: thousands of QPs, dozens of processes. How fast they are is tests/bench/qps's business.

QPS=$BUILD/tests/bench/bench-qps

# Both ends of 2,000 connections in one program, which writes through all of them and looks at every byte.
case_two_thousand_pairs()
{
	run "$QPS" --pairs 2000 --rounds 3 --ms 200 --core-pid "$(core_pid)" >"$TMP/out" 2>"$TMP/err" ||
		fail "$(cat "$TMP/out" "$TMP/err")"
	sed 's/^/NOTE: /' "$TMP/out"
	awk '$1 == "core_bytes_a_qp" { seen = 1; exit !($2 > 0 && $2 < 8192) } END { exit !seen }' "$TMP/out" ||
		fail "the core needs 8 KiB or more for a QP"
	wait_for 5 no_objects
}

# As many connections at once, each request alone on its QP.
case_one_request_each()
{
	run "$QPS" --pairs 2000 --rounds 3 --ms 200 --list 1 --window 1000 >"$TMP/out" 2>"$TMP/err" ||
		fail "$(cat "$TMP/out" "$TMP/err")"
	wait_for 5 no_objects
}

crowd()
{
	timeout -k 5 120 "$RUN" --strict --core "$CORE" -- "$HELPERS/crowd" "$@" >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
	wait_for 10 no_objects || fail "left behind: $("$CTL" --core "$CORE" show)"
}

no_more_fds()
{
	[ "$(find "/proc/$(core_pid)/fd" | wc -l)" -le "$1" ]
}

# 64 processes in pairs, all at once; every fourth pair loses one of its two on the way.
case_64_processes()
{
	local fds kib
	crowd 64 8 200 # what the core keeps for next time
	[ "${FX_PLACEMENT:-}" != emulated ] || crowd 64 8 200 # more, for rings and helpers
	fds=$(find "/proc/$(core_pid)/fd" | wc -l)
	kib=$(core_kib)
	crowd 64 8 200
	crowd 64 0 200
	echo "NOTE: 128 processes later the core has $(($(core_kib) - kib)) KiB more"
	[ $(($(core_kib) - kib)) -lt 2048 ] || fail "2 MiB or more"
	wait_for 5 no_more_fds "$fds" || fail "descriptors left open"
	[ "$(objects users)" = 1 ] || # the one who asks
		fail "users left: $("$CTL" --core "$CORE" show users)"
	pair ibv_rc_pingpong -c -g 0 -s 4097 -n 500
}
