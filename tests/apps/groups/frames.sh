# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Loopback has no short cut: every message crosses the port as ceil(size / MTU) frames, at least one.

# counts COMMAND...: what it added to the counters, in $PACKETS (without acknowledgements), $ALL, $RECEIVED,
# $BYTES and $AGAIN (sent again)
counts()
{
	local before after list=(tx_packets tx_acks tx_naks rx_packets tx_bytes tx_retransmits)
	mapfile -t before < <(counter "${list[@]}")
	"$@"
	mapfile -t after < <(counter "${list[@]}")
	[ "${#before[@]} ${#after[@]}" = "${#list[@]} ${#list[@]}" ] || fail "counters: ${before[*]}; ${after[*]}"
	PACKETS=$((after[0] - before[0] - (after[1] - before[1]) - (after[2] - before[2])))
	RECEIVED=$((after[3] - before[3]))
	BYTES=$((after[4] - before[4]))
	ALL=$((after[0] - before[0]))
	AGAIN=$((after[5] - before[5]))
}

# expect WHAT PACKETS BYTES: retransmissions (rings fill too) come on top
expect()
{
	echo "$1: $PACKETS packets, $ALL with acknowledgements, $RECEIVED received, $BYTES bytes, $AGAIN sent again"
	[ "$((PACKETS - AGAIN))" = "$2" ] || fail "$1: expected $2 data packets"
	[ "$RECEIVED" = "$ALL" ] || [ "$AGAIN" != 0 ] || fail "$1: expected as many received as sent"
	[ "$BYTES" = "$3" ] || [ "$AGAIN" != 0 ] || fail "$1: expected $3 bytes"
}

case_write()
{
	local mtu size n=500
	for mtu in 1024 4096; do
		for size in 1 $((mtu - 1)) "$mtu" $((mtu + 1)) 65536 1000001; do
			counts pair ib_write_bw -F -m "$mtu" -s "$size" -n "$n"
			expect "write $size, MTU $mtu" $((n * ((size + mtu - 1) / mtu))) $((n * size))
		done
	done
}

case_send()
{
	local size n=500
	for size in 1 4096 4097; do
		counts pair ibv_rc_pingpong -g 0 -m 1024 -s "$size" -n "$n"
		expect "pingpong $size" $((2 * n * ((size + 1023) / 1024))) $((2 * n * size))
	done
}

# A READ is one request and ceil(size / MTU) responses.
case_read()
{
	local size n=500
	for size in 1 4096 65536; do
		counts pair ib_read_bw -F -m 4096 -s "$size" -n "$n"
		expect "read $size" $((n + n * ((size + 4095) / 4096))) $((n * size))
	done
}

empty_writes()
{
	printf 'qps 1\nzero 100\n' | run "$HELPERS/manyqps" >"$TMP/out" 2>&1 || {
		cat "$TMP/out"
		return 1
	}
	grep -q '^zero 100' "$TMP/out"
}

# 100 empty writes, and the one of 8 bytes with which manyqps tries its QP.
case_empty_write()
{
	counts empty_writes
	expect "empty writes" 101 8
}
