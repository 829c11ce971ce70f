# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Cores and programs without root, without hugepages.

# Everything that an ordinary user needs, where it can be read: the build tree may be closed to others.
as_nobody()
{
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid=65534 --regid=65534 --clear-groups env -u XDG_RUNTIME_DIR \
			HOME="$TMP" XDG_RUNTIME_DIR="$TMP/run" "$@"
	else
		"$@"
	fi
}

prepare()
{
	local dir
	mkdir -p "$TMP/b" "$TMP/run"
	for dir in tools shim src/host tests/apps; do
		mkdir -p "$TMP/b/$dir"
		find "$BUILD/$dir" -maxdepth 1 -type f \( -name '*.so*' -o -perm -u+x \) -exec cp {} "$TMP/b/$dir/" \;
	done
	chmod -R a+rX "$TMP/b"
	if [ "$(id -u)" = 0 ]; then
		chown 65534:65534 "$TMP/run"
	fi
	chmod 700 "$TMP/run"
	RUN=$TMP/b/tools/flexins-run
	HELPERS=$TMP/b/tests/apps
}

# over_core CORE COMMAND...
over_core()
{
	local which=$1
	shift
	as_nobody timeout "$PATIENCE" "$RUN" --strict --core "$which" "${PLACEMENT[@]}" --core-args "--no-huge" -- "$@"
}

# pair_as_nobody CORE COMMAND...
pair_as_nobody()
{
	local port server which=$1
	shift
	port=$(free_port)
	over_core "$which" "$@" -p "$port" >"$TMP/server.out" 2>&1 &
	server=$!
	wait_for 20 listening "$port" || fail "server: $(cat "$TMP/server.out")"
	over_core "$which" "$@" -p "$port" 127.0.0.1 >"$TMP/client.out" 2>&1 ||
		fail "client: $(cat "$TMP/client.out") server: $(cat "$TMP/server.out")"
	wait "$server" || fail "server: $(cat "$TMP/server.out")"
}

# A core of the user's own, started by flexins-run, that ends by itself and leaves nothing.
case_own_core()
{
	prepare
	pair_as_nobody "$CORE-own" ibv_rc_pingpong -c -g 0 -s 4097
	pair_as_nobody "$CORE-own" ib_write_bw -F -s 65536 -n 1000
	as_nobody "$TMP/b/tools/flexinsctl" --core "$CORE-own" show device >"$TMP/out" || fail "no core any more"
	wait_for 15 no_core "$CORE-own" || fail "the core does not end by itself"
	sleep 0.5
	[ -z "$(find "$TMP/run" -mindepth 2)" ] || fail "left behind: $(find "$TMP/run")"
}

# Looked at from outside: a question to the core would make it stay.
no_core()
{
	! pgrep -f -- "flexinsd --name $1( |\$)"
}

# The system's core (root's, when the tests run as root) serves other users too.
case_system_core()
{
	prepare
	pair_as_nobody "$CORE" ibv_rc_pingpong -c -g 0 -s 4097
	pair_as_nobody "$CORE" ib_write_bw -F -s 65536 -n 1000
}

# as_user UID COMMAND...: over the group's core; its output is $TMP/user.out
as_user()
{
	local uid=$1
	shift
	setpriv --reuid="$uid" --regid="$uid" --clear-groups env FLEXINS_WHY=1 timeout "$PATIENCE" "$RUN" --strict --core "$CORE" -- "$@" \
		>"$TMP/user.out" 2>&1
}

# limit_of UID KEY: as flexinsctl shows it
limit_of()
{
	"$CTL" --core "$CORE" --json show users |
		python3 -c 'import json, sys
print([u[sys.argv[2]]["limit"] for u in json.load(sys.stdin) if u["uid"] == int(sys.argv[1])][0])' "$@"
}

# Two users with quotas of their own and root without one, on one core.
case_quota()
{
	[ "$(id -u)" = 0 ] || { quota_of_ones_own; return; }
	local text
	prepare
	core_stop
	printf '[core]\nlog = info\n[quota]\nqps = 7\n[quota user 65533]\nqps = 5\nsend_wrs = 1K\n' >"$TMP/conf"
	core_start --config "$TMP/conf"
	refuses as_user 65534 "$HELPERS/manyqps" <<<"qps 8"
	for text in 'QP 7: failed (Cannot allocate memory)' \
		'flexins: user nobody (uid 65534) has 7 of 7 QPs: destroy some, or raise'; do
		grep -qF "$text" "$TMP/user.out" || fail "nobody's eighth QP: $(cat "$TMP/user.out")"
	done
	refuses as_user 65533 "$HELPERS/manyqps" <<<"qps 6"
	grep -q 'user (uid 65533) has 5 of 5 QPs' "$TMP/user.out" || fail "the sixth QP: $(cat "$TMP/user.out")"
	as_user 65533 ibv_devinfo -v || fail "ibv_devinfo: $(cat "$TMP/user.out")"
	grep -q 'max_qp:[[:space:]]*5$' "$TMP/user.out" || fail "max_qp is not 5: $(cat "$TMP/user.out")"
	grep -q 'max_qp_wr:[[:space:]]*1024$' "$TMP/user.out" || fail "max_qp_wr is not 1024: $(cat "$TMP/user.out")"
	# one who has nothing left disturbs nobody
	mkfifo "$TMP/hold"
	as_user 65534 "$HELPERS/manyqps" <"$TMP/hold" &
	local holder=$!
	exec 8>"$TMP/hold"
	echo "qps 7" >&8
	wait_for 20 has_qps 7 || fail "nobody has no 7 QPs"
	[ "$(limit_of 65534 qps) $(limit_of 0 qps)" = "7 None" ] || fail "$("$CTL" --core "$CORE" show users)"
	as_user 65533 "$HELPERS/manyqps" <<<"qps 5" || fail "the other user: $(cat "$TMP/user.out")"
	timeout "$PATIENCE" "$RUN" --strict --core "$CORE" -- "$HELPERS/manyqps" <<<"qps 50" >"$TMP/out" 2>&1 || fail "root"
	exec 8>&-
	wait "$holder" || fail "the one with 7: $(cat "$TMP/user.out")"
	wait_for 5 no_objects
	as_user 65534 "$HELPERS/manyqps" <<<"qps 7" || fail "given back: $(cat "$TMP/user.out")"
}

has_qps()
{
	[ "$(objects qps)" = "$1" ]
}

# An ordinary user's core limits its own user by name only.
quota_of_ones_own()
{
	core_stop
	printf '[quota]\nqps = 1\n' >"$TMP/conf"
	core_start --config "$TMP/conf"
	run "$HELPERS/manyqps" <<<"qps 5" >"$TMP/out" 2>&1 || fail "not limited: $(cat "$TMP/out")"
	core_stop
	printf '[quota user %s]\nqps = 4\n' "$(id -u)" >"$TMP/conf"
	core_start --config "$TMP/conf"
	export FLEXINS_WHY=1
	refuses run "$HELPERS/manyqps" <<<"qps 5" >"$TMP/out" 2>&1
	grep -q 'has 4 of 4 QPs' "$TMP/out" || fail "the fifth: $(cat "$TMP/out")"
}

# A file that is wrong ends the core before it begins, with the place.
case_wrong_config()
{
	local status=0
	printf '[quota]\nqp = 7\n' >"$TMP/wrong"
	timeout 10 "$CORED" --name "$CORE-w" --config "$TMP/wrong" >"$TMP/out" 2>&1 || status=$?
	[ "$status" = 2 ] || fail "exit status $status"
	grep -q "$TMP/wrong: \[quota\] qp = 7: .* qps" "$TMP/out" || fail "it said: $(cat "$TMP/out")"
	[ ! -e "$(rundir)/$CORE-w.sock" ] || fail "a socket"
}
