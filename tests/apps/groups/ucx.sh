# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# UCX's own benchmark: every operation over each of its verbs transports. It checks no data (mpi.sh does, over the same
# library), so what is looked at besides is that the core carried all of it.

export UCX_NET_DEVICES=flexins0:1 UCX_LOG_LEVEL=error

# perf TEST SIZE TIMES: at least that much payload has to have gone through the core
perf()
{
	local before after
	before=$(counter tx_bytes)
	pair ucx_perftest -t "$1" -s "$2" -n "$3" -w 10 -f
	after=$(counter tx_bytes)
	[ $((after - before)) -ge $(($2 * $3)) ] ||
		fail "$UCX_TLS $1: $3 times $2 bytes, of which $((after - before)) went through the core"
	refuses grep -i 'error' "$TMP/server.out" "$TMP/client.out"
}

sizes()
{
	local size
	for size in 8 1000 65536 1048576; do
		perf "$1" "$size" $((size > 100000 ? 50 : 500))
	done
}

# all_of TRANSPORT
all_of()
{
	local test
	export UCX_TLS=$1
	for test in tag_lat tag_bw tag_sync_bw ucp_am_lat ucp_am_bw ucp_put_bw ucp_get stream_bw; do
		sizes "$test"
	done
}

case_ud()
{
	all_of ud_v
}

case_rc()
{
	all_of rc_v,ud_v
}

# Its lowest layer, operation by operation.
case_rc_uct()
{
	local size
	export UCX_TLS=rc_v
	for size in 100 1000 8000; do
		pair ucx_perftest -d flexins0:1 -x rc_verbs -t put_bw -D zcopy -s "$size" -n 2000 -w 10 -f
		pair ucx_perftest -d flexins0:1 -x rc_verbs -t get -D zcopy -s "$size" -n 2000 -w 10 -f
		pair ucx_perftest -d flexins0:1 -x rc_verbs -t am_bw -D bcopy -s "$size" -n 2000 -w 10 -f
	done
	pair ucx_perftest -d flexins0:1 -x rc_verbs -t fadd -s 8 -n 2000 -w 10 -f
	pair ucx_perftest -d flexins0:1 -x rc_verbs -t cswap -s 8 -n 2000 -w 10 -f
}

# What it sees of the device.
case_info()
{
	run ucx_info -d >"$TMP/info" 2>&1
	sed -n '/Memory domain: flexins0/,/Memory domain: cma/p' "$TMP/info" >"$TMP/out"
	grep -q 'Transport: rc_verbs' "$TMP/out" || fail "no rc_verbs"
	grep -q 'Transport: ud_verbs' "$TMP/out" || fail "no ud_verbs"
	refuses grep -B 5 'ERROR\|failed to open interface' "$TMP/out"
}
