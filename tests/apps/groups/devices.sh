# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What programs see of the device, and what flexins-run says about it.

has()
{
	grep -Eq -- "$1" "$TMP/out" || {
		echo "no line like '$1' in:"
		cat "$TMP/out"
		return 1
	}
}

case_ibv_devices()
{
	run ibv_devices >"$TMP/out" 2>"$TMP/err"
	has '^ *flexins0[[:space:]]+[0-9a-f]{16}$'
}

case_ibv_devinfo()
{
	run ibv_devinfo >"$TMP/out" 2>"$TMP/err"
	has '^hca_id:[[:space:]]*flexins0'
	has 'transport:[[:space:]]*InfiniBand \(0\)'
	has 'phys_port_cnt:[[:space:]]*1$'
	has 'state:[[:space:]]*PORT_ACTIVE \(4\)'
	has 'active_mtu:[[:space:]]*4096 \(5\)'
	has 'link_layer:[[:space:]]*Ethernet'
}

case_ibv_devinfo_verbose()
{
	run ibv_devinfo -v >"$TMP/out" 2>"$TMP/err"
	has 'node_guid:[[:space:]]*[0-9a-f]{4}(:[0-9a-f]{4}){3}$'
	has 'max_mr_size:[[:space:]]*0x[0-9a-f]{6,}'
	has 'max_qp:[[:space:]]*[1-9][0-9]{2,}'
	has 'max_qp_wr:[[:space:]]*[1-9][0-9]{3,}'
	has 'max_sge:[[:space:]]*16'
	has 'max_cqe:[[:space:]]*[1-9][0-9]{3,}'
	has 'max_qp_rd_atom:[[:space:]]*[1-9]'
	has 'GID\[ *0\]:[[:space:]]*[0-9a-f:.]+, RoCE v2'
	refuses grep -i 'fail\|error' "$TMP/out" "$TMP/err"
}

case_banner()
{
	run ibv_devinfo >"$TMP/out" 2>"$TMP/err"
	[ "$(wc -l <"$TMP/err")" = 1 ] || fail "not one line on stderr: $(cat "$TMP/err")"
	grep -q flexins0 "$TMP/err" || fail "no device in: $(cat "$TMP/err")"
	grep -q "$CORE" "$TMP/err" || fail "no core in: $(cat "$TMP/err")"
	grep -qi 'gid' "$TMP/err" || fail "no GID in: $(cat "$TMP/err")"
	grep -qi 'window' "$TMP/err" || fail "no kind of windows in: $(cat "$TMP/err")"
}

case_flexinsctl()
{
	local section
	for section in device contexts qps mrs ports counters; do
		"$CTL" --core "$CORE" show "$section" >"$TMP/out"
		[ -s "$TMP/out" ] || fail "show $section prints nothing"
		"$CTL" --core "$CORE" --json show "$section" | python3 -m json.tool >/dev/null
	done
	"$CTL" --core "$CORE" show >"$TMP/out"
	has '^device'
	has '^counters'
}

case_preload_kept()
{
	LD_PRELOAD=libm.so.6 run sh -c 'echo "$LD_PRELOAD"' >"$TMP/out" 2>/dev/null
	has '^/[^:]*/libflexins-preload.so:libm.so.6$'
}
