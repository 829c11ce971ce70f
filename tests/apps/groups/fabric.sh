# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# libfabric over the verbs: its reliable datagrams on UD, with checked data.

pingpong()
{
	local port ok=0
	port=$(free_port)
	run fi_pingpong -B "$port" "$@" >"$TMP/server.out" 2>&1 &
	SERVER=$!
	wait_for 20 listening "$port"
	run fi_pingpong -P "$port" "$@" 127.0.0.1 >"$TMP/client.out" 2>&1 || ok=$?
	wait "$SERVER" || ok="$ok, server $?"
	[ "$ok" = 0 ] || {
		cat "$TMP/server.out" "$TMP/client.out"
		fail "fi_pingpong $*: exit status $ok"
	}
}

case_info()
{
	run fi_info -p verbs -t FI_EP_DGRAM >"$TMP/out"
	grep -q 'domain: flexins0-dgram' "$TMP/out" || fail "no flexins0: $(cat "$TMP/out")"
}

case_rxd()
{
	local size
	for size in 1 64 1024 4096 65536 1000000; do
		pingpong -p 'verbs;ofi_rxd' -e rdm -c -S "$size" -I $((size > 100000 ? 50 : 200))
	done
	grep -qE '^976.56k|^1000000|^1m|^976k' "$TMP/client.out" || fail "no result: $(cat "$TMP/client.out")"
}
