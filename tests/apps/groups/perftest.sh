# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# perftest over every size, server and client over TCP on 127.0.0.1.

# perftest PROGRAM [ARGS]: has its table all 23 sizes, 2 to 2^23?
perftest()
{
	pair "$@" -a -F
	[ "$(grep -Ec '^ +[0-9]+ +[0-9]+ +[0-9.]+ +[0-9.]+' "$TMP/client.out")" = 23 ] || {
		echo "$*: not all sizes in its table:"
		cat "$TMP/client.out"
		return 1
	}
}

case_ib_write_bw()
{
	perftest ib_write_bw -n 150
}

case_ib_read_bw()
{
	perftest ib_read_bw -n 150
}

case_ib_send_bw()
{
	perftest ib_send_bw -n 150
}

case_ib_write_lat()
{
	perftest ib_write_lat -n 50
}

case_ib_read_lat()
{
	perftest ib_read_lat -n 50
}

case_ib_send_lat()
{
	perftest ib_send_lat -n 50
}

# As users start it.
case_ib_write_bw_defaults()
{
	pair ib_write_bw
	pair ib_write_bw -s 8 -n 20000
}

case_ib_write_bw_both_ways()
{
	pair ib_write_bw -b -s 65536 -n 2000 -F
}

case_ib_write_bw_many_qps()
{
	pair ib_write_bw -q 16 -s 4096 -n 2000 -F
}
