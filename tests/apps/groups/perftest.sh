# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# perftest over every size and with the options that change what it asks of the verbs, server and client over TCP on
# 127.0.0.1.

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

# Iterations are multiples of 100, 40 and 16: perftest counts each signaled completion for as many as lie between two (-Q,
# 100 unless told), the last too. With a rest, and several QPs both ways, a side may believe to be done before it has sent
# all, and the other waits for ever.

# What all programs for bandwidth know.
bw_variants()
{
	variants "$@" <<-'END'
		-c RC -q 8
		-b
		-b -q 8
		-t 1
		-t 512
		-l 16 -q 2
		-N
		-Q 1
		-Q 40
		-s 1
		-s 7777
		-s 65537 -m 1024
		-m 256
		-m 512
		-m 2048
		-m 4096
	END
}

mtu_variants()
{
	variants "$@" <<-'END'
		-s 1
		-s 7777 -m 256
		-s 4097 -m 512
		-s 1025 -m 1024
		-s 6143 -m 2048
		-s 65537 -m 4096
	END
}

case_ib_write_bw_options()
{
	bw_variants ib_write_bw -n 400 -s 3000
	variants ib_write_bw -n 400 <<-'END'
		-I 64 -s 64
		-I 512 -s 511
		-I 100 -s 100 -l 8 -b
	END
	variants ib_write_bw <<<"-D 1 -s 4096"
}

case_ib_read_bw_options()
{
	bw_variants ib_read_bw -n 400 -s 3000
	variants ib_read_bw -n 400 <<-'END'
		-o 1
		-o 2 -q 4
		-o 16 -s 9000
		-e -o 4
	END
	variants ib_read_bw <<<"-D 1 -s 4096"
}

case_ib_send_bw_options()
{
	bw_variants ib_send_bw -n 400 -s 3000
	variants ib_send_bw -n 400 <<-'END'
		-r 8
		-r 600 -q 4
		-I 64 -s 64
		-I 400 -s 399 -b
		-e
		-e -b -q 2
		-e -r 16 -Q 10 -t 32
	END
	variants ib_send_bw <<<"-D 1 -s 4096"
}

case_srq()
{
	perftest ib_send_bw --use-srq -n 400
	variants ib_send_bw --use-srq -n 400 -s 3000 <<-'END'
		-q 8
		-e
		-e -q 8
		-b -q 8
	END
	variants ib_send_lat --use-srq -n 100 <<-'END'
		-s 64
		-s 70000
		-e -s 64
	END
}

case_xrc()
{
	local program
	perftest ib_send_bw -c XRC -n 400
	for program in ib_send_bw ib_write_bw ib_read_bw; do
		variants "$program" -c XRC -n 400 -s 3000 <<-'END'
			-q 8
			-b
		END
	done
	variants ib_send_bw -c XRC -n 400 <<<"-e -q 8"
	variants ib_send_bw -c XRC -n 400 <<<"-I 400 -s 399"
	variants ib_atomic_bw -c XRC -n 400 <<<"-q 8"
	for program in ib_send_lat ib_write_lat ib_read_lat; do
		variants "$program" -c XRC -n 100 <<-'END'
			-s 64
			-s 70000
		END
	done
}

case_ib_atomic_bw_options()
{
	variants ib_atomic_bw -n 400 <<-'END'
		-A FETCH_AND_ADD
		-A CMP_AND_SWAP
		-q 8
		-b
		-t 1
		-o 1
		-o 16 -A CMP_AND_SWAP
		-l 16
		-N
		-Q 20
		-e
		-m 256
	END
	variants ib_atomic_bw <<<"-D 1"
}

case_ib_lat_options()
{
	local program
	for program in ib_write_lat ib_read_lat ib_send_lat; do
		mtu_variants "$program" -n 100
		variants "$program" <<<"-D 1 -s 64"
	done
	for program in ib_write_lat ib_send_lat; do
		variants "$program" -n 100 <<-'END'
			-I 64 -s 64
			-I 512 -s 500
		END
	done
	variants ib_send_lat -n 100 <<-'END'
		-e -s 64
		-r 4
	END
	variants ib_read_lat -n 100 <<-'END'
		-e -s 64
		-o 1
	END
}

case_ib_atomic_lat_options()
{
	variants ib_atomic_lat -n 100 <<-'END'
		-A FETCH_AND_ADD
		-A CMP_AND_SWAP
		-o 1
		-e
	END
	variants ib_atomic_lat <<<"-D 1"
}
