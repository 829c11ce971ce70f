# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# flexins-run itself: starting a core, once; refusing what cannot work, and saying what to do.

own=$CORE-run

# Looked at from outside: a question to the core would make it stay.
ended()
{
	! pgrep -f -- "flexinsd --name $own( |\$)"
}

case_starts_a_core()
{
	timeout 30 "$RUN" --strict --core "$own" "${PLACEMENT[@]}" -- ibv_devices >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
	grep -q flexins0 "$TMP/out"
	"$CTL" --core "$own" show device >/dev/null || fail "the core did not outlive its first client"
	wait_for 15 ended || fail "the core did not end by itself"
	[ ! -e "$(rundir)/$own.sock" ] || fail "its socket is still there"
	[ ! -e "$(rundir)/$own.tcp" ] || fail "its ticket is still there"
	[ ! -e "$(rundir)/$own.start" ] || fail "its lock is still there"
}

case_starts_only_one()
{
	local i pids=()
	for i in 1 2 3 4 5 6; do
		timeout 30 "$RUN" --strict --core "$own" "${PLACEMENT[@]}" -- ibv_devices >"$TMP/out.$i" 2>&1 &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" || fail "$(cat "$TMP"/out.*)"
	done
	[ "$(pgrep -fc -- "flexinsd --name $own( |\$)")" = 1 ] || fail "not one core: $(pgrep -fa flexinsd)"
	wait_for 15 ended
}

# The whole pair with nothing prepared, as a user does it.
case_pair_from_nothing()
{
	CORE=$own
	pair ib_write_bw -F -n 1000
	wait_for 15 ended
}

# The core takes no descriptor of the caller's: a pipe ends when the command does.
case_pipe_ends()
{
	# shellcheck disable=SC2016 # sh expands them
	timeout 10 sh -c 'run=$1 own=$2; shift 2
		"$run" --strict --core "$own" "$@" -- ibv_devices 2>&1 | cat >/dev/null' sh "$RUN" "$own" "${PLACEMENT[@]}"
	wait_for 15 ended
}

case_passes_status()
{
	local status=0
	run sh -c 'exit 42' 2>/dev/null || status=$?
	[ "$status" = 42 ]
	status=0
	run /nonexistent/program 2>/dev/null || status=$?
	[ "$status" = 127 ]
}

case_core_fails()
{
	refuses timeout 30 "$RUN" --strict --core "$own" --core-args "--no-such-option" -- echo ran >"$TMP/out" 2>&1
	refuses grep '^ran' "$TMP/out"
	grep -q 'no-such-option' "$TMP/out" || fail "the core's own message is missing: $(cat "$TMP/out")"
	timeout 30 "$RUN" --core "$own" --core-args "--no-such-option" -- echo ran >"$TMP/out" 2>&1
	grep -q '^ran' "$TMP/out" || fail "it did not run the command"
}

# The program itself finds no core although flexins-run did: strict.
case_strict_in_the_program()
{
	local lib
	lib=$(run sh -c 'echo "${LD_PRELOAD%%:*}"' 2>/dev/null)
	refuses timeout 20 env LD_PRELOAD="$lib" FLEXINS_CORE="$own-none" FLEXINS_STRICT=1 FLEXINS_BANNER=1 \
		ibv_devices >"$TMP/out" 2>&1
	grep -q "$own-none" "$TMP/out" || fail "it did not say which core: $(cat "$TMP/out")"
}

case_static_program()
{
	printf '#include <stdio.h>\nint main(void){puts("ran");return 0;}\n' |
		${CC:-cc} -static -x c -o "$TMP/static" -
	refuses run "$TMP/static" >"$TMP/out" 2>&1
	grep -q 'statically linked' "$TMP/out"
	timeout 20 "$RUN" --core "$CORE" -- "$TMP/static" >"$TMP/out" 2>&1
	grep -q '^ran' "$TMP/out"
	grep -q 'statically linked' "$TMP/out"
}

case_usage()
{
	"$RUN" --help >"$TMP/out"
	grep -q -- '--core-args' "$TMP/out"
	"$RUN" --version | grep -Eq '^flexins-run [0-9]'
	"$CTL" --version | grep -Eq '^flexinsctl [0-9]'
	refuses "$RUN" 2>/dev/null
	refuses "$RUN" --core ../x -- true 2>/dev/null
	refuses "$CTL" --core "$own-none" show >"$TMP/out" 2>&1
	grep -q "$own-none" "$TMP/out"
}
