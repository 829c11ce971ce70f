# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# ibv_{rc,uc,ud,srq,xsrq}_pingpong with checked data: sizes around every boundary, path MTUs, depths, with and without a GID, by
# polling and by events.

pingpong()
{
	pong ibv_rc_pingpong "$@"
}

pong()
{
	local program=$1
	shift
	pair "$program" -c "$@"
	grep -q 'iters in' "$TMP/client.out" || fail "no result: $(cat "$TMP/client.out")"
	clean "$TMP/client.out" "$TMP/server.out"
}

case_sizes()
{
	local size
	for size in 1 64 4096 4097 1000000; do
		pingpong -g 0 -s "$size" -n $((size > 100000 ? 200 : 1000))
	done
}

case_sizes_without_gid()
{
	local size
	for size in 1 64 4096 4097 1000000; do
		pingpong -s "$size" -n $((size > 100000 ? 200 : 1000))
	done
}

case_mtus()
{
	local mtu size
	for mtu in 256 512 1024 2048 4096; do
		for size in 1 $((mtu - 1)) "$mtu" $((mtu + 1)) $((mtu * 7 + 3)); do
			pingpong -g 0 -m "$mtu" -s "$size" -n 200
		done
	done
}

case_depths()
{
	local depth
	for depth in 1 2 16 500 4000; do
		pingpong -g 0 -r "$depth" -s 4097 -n 500
	done
}

case_two_pairs_at_once()
{
	local first
	aside first pingpong -g 0 -s 65536 -n 1000 &
	first=$!
	aside second pingpong -g 0 -s 4097 -n 2000
	wait "$first"
}

case_uc()
{
	local size mtu big=1000000
	# What waits for a landing is bounded, and nobody sends it again: across a bus a message has to find room as a whole.
	[ "${FX_PLACEMENT:-}" != emulated ] || big=150000
	for size in 1 64 4096 4097 "$big"; do
		pong ibv_uc_pingpong -g 0 -s "$size" -n $((size > 100000 ? 200 : 1000))
		pong ibv_uc_pingpong -g 0 -e -s "$size" -n $((size > 100000 ? 50 : 200))
	done
	for mtu in 256 1024 4096; do
		pong ibv_uc_pingpong -g 0 -m "$mtu" -s $((mtu * 3 + 1)) -n 200
	done
	pong ibv_uc_pingpong -s 4097 -n 200
}

case_ud()
{
	local size
	for size in 1 64 1000 2048 4096; do
		pong ibv_ud_pingpong -g 0 -s "$size" -n 1000
		pong ibv_ud_pingpong -g 0 -e -s "$size" -n 200
	done
	pong ibv_ud_pingpong -g 0 -r 1 -s 100 -n 500
}

case_srq()
{
	local size qps
	for size in 1 64 4096 4097 1000000; do
		pong ibv_srq_pingpong -g 0 -s "$size" -n $((size > 100000 ? 200 : 1000))
		pong ibv_srq_pingpong -g 0 -e -s "$size" -n $((size > 100000 ? 50 : 200))
	done
	for qps in 1 2 64; do
		pong ibv_srq_pingpong -g 0 -q "$qps" -r 200 -s 4097 -n 1000
	done
	pong ibv_srq_pingpong -s 4097 -n 200
}

# xrc CLIENTS OPTION...: one server and so many clients, in the XRC domain of one file
xrc()
{
	local clients=$1 port i pids=() pid ok=0
	shift
	port=$(free_port)
	server "$port" ibv_xsrq_pingpong -g 0 -c "$clients" "$@"
	for ((i = 0; i < clients; i++)); do
		run ibv_xsrq_pingpong -g 0 "$@" -p "$port" 127.0.0.1 >"$TMP/client.$i.out" 2>&1 &
		pids+=($!)
	done
	for pid in "${pids[@]}" "$SERVER"; do
		wait "$pid" || ok=1
	done
	[ "$ok" = 0 ] || fail "$clients clients, $*: $(cat "$TMP"/server.out "$TMP"/client.*.out)"
}

case_xsrq()
{
	local size
	for size in 1 64 4096 4097 1000000; do
		xrc 1 -s "$size" -n $((size > 100000 ? 100 : 500))
		xrc 1 -e -s "$size" -n $((size > 100000 ? 50 : 200))
	done
	xrc 4 -s 4097 -n 200
	xrc 4 -e -s 4097 -n 200
}
