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
