# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Programs that look around: what they find in /sys and /dev is the device, and what they find there of others too.

SYS=/sys/class/infiniband/flexins0

has()
{
	grep -Eq -- "$1" "$TMP/out" || {
		echo "no line like '$1' in:"
		cat "$TMP/out"
		return 1
	}
}

case_every_function()
{
	run "$HELPERS/lookaround" >"$TMP/out"
	has '^passed$'
	wait_for 5 no_objects
}

case_ibstat()
{
	run ibstat >"$TMP/out" 2>"$TMP/err"
	has "^CA 'flexins0'"
	has 'Number of ports: 1$'
	has 'Node GUID: 0x[0-9a-f]{16}$'
	has 'State: Active$'
	has 'Physical state: LinkUp$'
	has 'Rate: 100$'
	has 'Link layer: Ethernet$'
	run ibstat -l >"$TMP/out"
	has '^flexins0$'
	run ibstat -p >"$TMP/out"
	has '^0x[0-9a-f]{16}$'
}

case_ibv_devinfo()
{
	run ibv_devinfo -v >"$TMP/out" 2>"$TMP/err"
	has 'board_id:[[:space:]]*FlexiNS$'
	refuses grep -i 'warning' "$TMP/out" "$TMP/err"
}

# What people look with.
case_shell()
{
	run ls -l /sys/class/infiniband /dev/infiniband >"$TMP/out"
	has '^lrwxrwxrwx .* flexins0 -> \.\./\.\./devices/virtual/infiniband/flexins0$'
	has '^crw-rw-rw- .* 231, *192 .* uverbs0$'
	run cat $SYS/ports/1/state >"$TMP/out"
	has '^4: ACTIVE$'
	run find $SYS/ports -name port_rcv_data >/dev/null || true # goes by descriptors, and must not hang
	refuses test -e $SYS # without us there is none
}

# A program that keeps a counter open and reads it again, before and after.
case_perftest_counters()
{
	local n
	pair ib_write_bw -F -s 4096 -n 2000 \
		--report-counters=counters/port_xmit_data,hw_counters/wqe,hw_counters/rx_acks
	n=$(sed -n 's/^.*port_xmit_data=\([0-9]*\).*/\1/p' "$TMP/client.out")
	[ "${n:-0}" -ge $((2000 * 4096 / 4)) ] || fail "port_xmit_data counted ${n:-nothing}: $(cat "$TMP/client.out")"
	n=$(sed -n 's/^.*wqe=\([0-9]*\).*/\1/p' "$TMP/client.out")
	[ "${n:-0}" -ge 2000 ] || fail "wqe counted ${n:-nothing}: $(cat "$TMP/client.out")"
}

# With another library that wraps the same functions, in front of us and behind us.
case_chains()
{
	local ours=$BUILD/shim/libflexins-preload.so other=$HELPERS/libchained.so preload
	for preload in "$other:$ours" "$ours:$other"; do
		FLEXINS_CORE=$CORE LD_PRELOAD=$preload ibv_devices >"$TMP/out" 2>"$TMP/err"
		has '^ *flexins0[[:space:]]'
		grep -q 'chained: ibv_get_device_list' "$TMP/err" || fail "$preload: the other saw no list"
		FLEXINS_CORE=$CORE LD_PRELOAD=$preload sh -c "test -r $SYS/fw_ver" 2>"$TMP/err" ||
			fail "$preload: no $SYS/fw_ver"
	done
	# what is the kernel's to answer goes through both
	FLEXINS_CORE=$CORE LD_PRELOAD=$ours:$other python3 -c \
		'import os; os.access("/dev/infiniband/uverbs99", os.R_OK)' 2>"$TMP/err"
	grep -q 'chained: access' "$TMP/err" || fail "behind us nobody was asked"
}

# Without a core there is no device, and looking for it is no more than that.
case_no_core()
{
	core_stop
	FLEXINS_CORE=none-such LD_PRELOAD=$BUILD/shim/libflexins-preload.so \
		"$HELPERS/lookaround" >"$TMP/out" 2>&1 && fail "it found a device: $(cat "$TMP/out")"
	FLEXINS_CORE=none-such LD_PRELOAD=$BUILD/shim/libflexins-preload.so \
		cat $SYS/fw_ver >"$TMP/out" 2>&1 && fail "it found a file: $(cat "$TMP/out")"
	has 'No such file'
}
