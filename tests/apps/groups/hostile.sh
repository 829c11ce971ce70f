# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Bad input: garbage on the control socket and in the rings disturbs nobody else.

# Who may greet as a host, comes by this.
door()
{
	if [ -e "$(rundir)/$CORE.tcp" ]; then
		echo "$(rundir)/$CORE.tcp"
	else
		socket
	fi
}

socket()
{
	echo "$(rundir)/$CORE.sock"
}

core_lives()
{
	! gone "$(core_pid)" || {
		echo "the core died:"
		tail -n 30 "$TMP/core.log"
		return 1
	}
}

# Eight seeds, while a pair with checked data runs beside them.
case_garbage()
{
	local by seed
	aside by pair ibv_rc_pingpong -c -g 0 -s 65536 -n 10000 &
	by=$!
	for seed in 1 2 3 4 5 6 7 8; do
		timeout 60 "$HELPERS/garbage" "$(door)" 60 "$seed" || {
			core_lives
			fail "garbage, seed $seed"
		}
		core_lives
	done
	wait "$by" || fail "the bystander was disturbed"
	core_lives
	wait_for 5 no_objects || fail "left behind: $("$CTL" --core "$CORE" show)"
}

# What was refused was counted.
case_counted()
{
	timeout 60 "$HELPERS/garbage" "$(door)" 40 99
	[ "$(counter bad_message)" -gt 0 ]
	[ "$(counter refused)" -gt 0 ]
	[ "$(counter bad_arms)" -gt 0 ]
}

case_many_connections()
{
	python3 - "$(socket)" <<'PY'
import socket, sys
held = []
for _ in range(1500):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(2)
    try:
        s.connect(sys.argv[1])
    except OSError:
        s.close()
        continue
    held.append(s)
PY
	core_lives
	wait_for 5 "$CTL" --core "$CORE" show device
	pair ibv_rc_pingpong -c -g 0 -n 100
}

case_other_version()
{
	timeout 10 "$HELPERS/oldhost" "$(socket)" >"$TMP/out" || fail "$(cat "$TMP/out")"
	grep -q '77\.8\.9' "$TMP/out" || fail "the refusal does not name the library's version: $(cat "$TMP/out")"
	grep -q "$("$CTL" --version | sed 's/.* //')" "$TMP/out" ||
		fail "the refusal does not name the core's version: $(cat "$TMP/out")"
	[ "$(counter refused_version)" -gt 0 ]
}

case_wrong_key()
{
	echo poison | run "$HELPERS/manyqps" >"$TMP/out" 2>&1 || true
	grep -q '^poison 10$' "$TMP/out" || fail "not a remote access error: $(cat "$TMP/out")"
	pair ibv_rc_pingpong -c -g 0 -n 100
}
