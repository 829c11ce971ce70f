# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# The same programs with the DMA engine that delays its completions and delivers them in any order: what is
# acknowledged, completed or read before its bytes are placed shows as wrong data.

# shellcheck disable=SC2034 # read by run.sh
read -ra CORE_ARGS < <(chaos "${FX_CHAOS:-chaos=8,1}")

case_pingpong()
{
	local size
	for size in 1 64 4096 4097 1000000; do
		pair ibv_rc_pingpong -c -g 0 -s "$size" -n $((size > 100000 ? 50 : 500))
		clean "$TMP/client.out" "$TMP/server.out"
	done
	pair ibv_rc_pingpong -c -g 0 -m 256 -s 5000 -n 200
}

case_perftest()
{
	local program
	for program in ib_write_bw ib_read_bw ib_send_bw ib_write_lat ib_read_lat ib_send_lat; do
		pair "$program" -a -n 20 -F
	done
}

case_unreliable()
{
	local size program
	for size in 1 64 4096; do
		pair ibv_uc_pingpong -c -g 0 -s "$size" -n 500
		pair ibv_ud_pingpong -c -g 0 -s "$size" -n 500
	done
	pair ibv_uc_pingpong -c -g 0 -s 100000 -n 50
	for program in "ib_write_bw -c UC" "ib_send_bw -c UC" "ib_send_bw -c UD" "ib_send_lat -c UD"; do
		# shellcheck disable=SC2086
		pair $program -a -n 400 -F
	done
}
