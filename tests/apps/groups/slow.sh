# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Memory that no window maps: stacks, .data, file mappings, less than a page. With the windows that a program gets by
# itself, with none of its memory mapped, and with the helper thread for all of it.

# windows COMMAND...
windows()
{
	local kind
	"$@"
	for kind in slow helper; do
		FLEXINS_WINDOWS=$kind "$@"
	done
}

case_places()
{
	windows run "$HELPERS/selftalk" places
}

case_places_chaos()
{
	# shellcheck disable=SC2046 # words
	core_start $(chaos "${FX_CHAOS:-chaos=8,1}")
	windows run "$HELPERS/selftalk" places
	core_stop
}

# What RESET has answered for may be used again, the buffers too.
case_reset_chaos()
{
	# shellcheck disable=SC2046 # words
	core_start $(chaos "${FX_CHAOS:-chaos=8,1}")
	FLEXINS_WINDOWS=slow run "$HELPERS/selftalk" reset
	FLEXINS_WINDOWS=helper run "$HELPERS/selftalk" reset
	run "$HELPERS/selftalk" reset
	core_stop
}

pingpong()
{
	pair ibv_rc_pingpong -c -g 0 "$@"
	clean "$TMP/client.out" "$TMP/server.out"
}

case_pingpong()
{
	local size
	for size in 1 512 513 4095 5000; do
		windows pingpong -s "$size" -n 300
	done
}

# Deeper queues than the buffers have room for.
case_pingpong_deep()
{
	FLEXINS_WINDOWS=slow pingpong -s 40000 -r 4000 -n 1000
}

case_perftest()
{
	local program size
	for program in ib_send_bw ib_write_bw ib_read_bw ib_send_lat ib_write_lat ib_read_lat; do
		for size in 8 5000 200000; do
			FLEXINS_WINDOWS=slow pair "$program" -s "$size" -n 100 -F
		done
	done
	FLEXINS_WINDOWS=slow pair ib_atomic_lat -A FETCH_AND_ADD -n 100 -F
}

# What the buffers are for: a round trip with one byte costs about what it costs in mapped memory.
case_latency()
{
	local kind
	for kind in helper slow auto; do
		FLEXINS_WINDOWS=$kind pair ibv_rc_pingpong -g 0 -s 1 -n 2000
		echo "NOTE: 1 byte, windows $kind: $(sed -n 's/.*= *\(.*\) usec.*/\1/p' "$TMP/client.out") us a round trip"
	done
	pair ibv_rc_pingpong -g 0 -s 4096 -n 2000
	echo "NOTE: 4096 bytes, mapped: $(sed -n 's/.*= *\(.*\) usec.*/\1/p' "$TMP/client.out") us a round trip"
}
