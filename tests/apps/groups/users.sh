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
	for dir in tools shim src/host; do
		mkdir -p "$TMP/b/$dir"
		find "$BUILD/$dir" -maxdepth 1 -type f \( -name '*.so*' -o -perm -u+x \) -exec cp {} "$TMP/b/$dir/" \;
	done
	chmod -R a+rX "$TMP/b"
	if [ "$(id -u)" = 0 ]; then
		chown 65534:65534 "$TMP/run"
	fi
	chmod 700 "$TMP/run"
	RUN=$TMP/b/tools/flexins-run
}

# over_core CORE COMMAND...
over_core()
{
	local which=$1
	shift
	as_nobody timeout "$PATIENCE" "$RUN" --strict --core "$which" --core-args "--no-huge" -- "$@"
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
