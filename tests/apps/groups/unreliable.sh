# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# perftest over unreliable connections and datagrams. Nothing is sent again, so a receiver has a receive for every message:
# -r is not less than -n.

# sizes N ITERATIONS PROGRAM [ARGS]: every size, of which there are N
sizes()
{
	local n=$1 iterations=$2
	shift 2
	pair "$@" -a -F -n "$iterations" -r 400
	[ "$(grep -Ec '^ +[0-9]+ +[0-9]+ +[0-9.]+ +[0-9.]+' "$TMP/client.out")" = "$n" ] || {
		echo "$*: not all sizes in its table:"
		cat "$TMP/client.out"
		return 1
	}
}

# nothing_dropped: the counters of what was are as they were at the start
nothing_dropped()
{
	"$CTL" --core "$CORE" show counters --json >"$TMP/out"
	! grep -E '"rx_(gaps|rest|late|no_receive|too_long|wrong_qkey|mcast_none|mcast_no_buffer)": [1-9]' "$TMP/out" ||
		fail "something was dropped"
}

case_uc_write_bw()
{
	pair ib_write_bw -c UC -a -F -n 100
	variants ib_write_bw -c UC -n 400 -s 3000 <<-'END'
		-q 8
		-b
		-b -q 8
		-I 64 -s 64
		-I 512 -s 511
		-s 65537 -m 1024
		-m 256
		-Q 1
	END
}

case_uc_write_lat()
{
	pair ib_write_lat -c UC -a -F -n 50
	variants ib_write_lat -c UC -n 400 <<-'END'
		-s 1
		-s 4097 -m 512
		-I 220 -s 200
	END
}

case_uc_send()
{
	sizes 23 100 ib_send_bw -c UC
	variants ib_send_bw -c UC -n 400 -r 400 -s 3000 <<-'END'
		-q 8
		-b
		-e
		-I 512 -s 500
		-s 65537 -m 1024
	END
	variants ib_send_lat -c UC -n 400 -r 400 <<-'END'
		-s 1
		-s 100000
		-e -s 100
	END
	nothing_dropped
}

case_ud_send_bw()
{
	sizes 12 400 ib_send_bw -c UD
	variants ib_send_bw -c UD -n 400 -r 400 <<-'END'
		-s 1 -q 8
		-s 4096 -b
		-s 2000 -b -q 8
		-s 64 -I 64
		-s 500 -I 512 -e
		-s 3000 -e
		-s 3000 -Q 1
	END
	nothing_dropped
}

case_ud_send_lat()
{
	sizes 12 400 ib_send_lat -c UD
	variants ib_send_lat -c UD -n 400 -r 400 <<-'END'
		-s 1
		-s 200 -I 220
		-s 4096 -e
	END
	nothing_dropped
}

case_ud_multicast()
{
	variants ib_send_bw -c UD -g -M 0:0:0:0:0:0:0:0:0:0:255:255:239:1:1:1 -n 400 -r 400 <<-'END'
		-s 1000
		-s 4096 -e
	END
	"$CTL" --core "$CORE" show counters --json >"$TMP/out"
	grep -q '"rx_mcast_copies": 800,' "$TMP/out" || fail "not one copy for each datagram"
	nothing_dropped
}
