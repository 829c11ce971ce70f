# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Registered memory and everything else that programs do with it: a case for each row of docs/windows.md.

# fine PROGRAM CASE [COMMAND...]: the program's case, behind a command
fine()
{
	local program=$1 name=$2
	shift 2
	run "$@" "$HELPERS/$program" "$name" >"$TMP/out" 2>&1 || {
		[ $? != 77 ] || skip "the system lets nobody try $program $name"
		fail "$program $name: $(tail -n 5 "$TMP/out")"
	}
	grep -q '^fine$' "$TMP/out" || fail "$program $name did not end: $(tail -n 5 "$TMP/out")"
}

hazard()
{
	fine hazards "$@"
}

case_edges()
{
	hazard edges
}

case_overlap()
{
	hazard overlap
}

# Shared memory of the program's own is mapped as it is.
case_shared()
{
	hazard shared env "SHOW=$CTL --core $CORE --json show mrs"
}

case_sections()
{
	hazard sections
}

case_stacks()
{
	hazard stacks
}

case_attributes()
{
	hazard attributes
}

case_dontneed()
{
	hazard dontneed
}

case_munmap()
{
	hazard unmapped
}

case_mremap()
{
	hazard remap
}

case_realloc()
{
	hazard reallocs
}

case_pinned_elsewhere()
{
	hazard slow env FLEXINS_WINDOWS=slow
}

case_fork_copy()
{
	fine forks copy
	grep '^NOTE' "$TMP/out"
}

case_fork_malloc()
{
	fine forks malloc
}

case_fork_wishes()
{
	fine forks wishes
}

case_fork_init()
{
	fine forks init
	fine forks safe env RDMAV_FORK_SAFE=1
	fine forks safe env IBV_FORK_SAFE=1
}

case_fork_no_room()
{
	fine forks no_room
	[ "${FX_PLACEMENT:-}" = emulated ] || # where nothing has to be copied but by the kernel
		grep -q 'the child has no registered memory' "$TMP/out" || fail "no word of it: $(cat "$TMP/out")"
}

case_spawn()
{
	fine forks spawn
}

# huge_pages COUNT: so many more of 2 MiB, until the case ends
huge_pages()
{
	local pool=/sys/kernel/mm/hugepages/hugepages-2048kB had free
	[ -w "$pool/nr_hugepages" ] || skip "huge pages cannot be reserved here"
	had=$(cat "$pool/nr_hugepages")
	# shellcheck disable=SC2064 # now
	trap "echo $had >$pool/nr_hugepages" EXIT
	echo $((had + $1)) >"$pool/nr_hugepages"
	free=$(($(cat "$pool/free_hugepages") - $(cat "$pool/resv_hugepages")))
	[ "$free" -ge "$1" ] || skip "$free huge pages could be reserved, $1 are needed"
}

# Private ones are reached slowly, shared ones are mapped.
case_huge_pages()
{
	huge_pages 6
	hazard huge env "SHOW=$CTL --core $CORE --json show mrs"
}

case_exec()
{
	fine hostile exec
	fine hostile exec env FLEXINS_WINDOWS=slow
	wait_for 5 no_objects
}

# The owner and its peer get errors, a pair beside them nothing.
case_truncate()
{
	local by
	aside by pair ibv_rc_pingpong -c -g 0 -s 65536 -n 2000 &
	by=$!
	for _ in 1 2 3; do
		fine hostile truncate
	done
	wait "$by" || fail "the bystander was disturbed"
}

case_truncate_huge()
{
	huge_pages 2
	fine hostile truncate_huge
}

case_held()
{
	fine hostile held
}

# bandwidth: of a pair, in MiB/s
bandwidth()
{
	pair ib_write_bw -F -s 65536 -n 5000
	awk '$1 == 65536 { printf "%d\n", $4 }' "$TMP/client.out"
}

# short_pair: from start to end, in ms
short_pair()
{
	local start
	start=$(date +%s%N)
	pair ibv_rc_pingpong -c -g 0 -n 1000 >&2
	echo $((($(date +%s%N) - start) / 1000000))
}

# While one program's memory does not answer, others transfer as fast as ever, and end as soon.
case_stalled()
{
	local stalled alone beside usual ms
	alone=$(bandwidth)
	usual=$(short_pair)
	aside stalled fine hostile stalled &
	stalled=$!
	sleep 1
	ms=$(aside beside short_pair)
	beside=$(aside beside bandwidth)
	"$CTL" --core "$CORE" show device >/dev/null
	wait "$stalled" || [ $? = 77 ] || fail "$(cat "$TMP/stalled/out")"
	grep '^NOTE' "$TMP/stalled/out" || skip "no file system of the program's own can be mounted here"
	echo "NOTE: $alone MiB/s alone, $beside MiB/s beside it; a short pair $usual ms, $ms ms"
	[ "$ms" -lt $((usual + 2000)) ] || fail "the end of a pair took $ms ms: it waited for the stalled program"
	[ $((4 * beside)) -gt "$alone" ] || fail "others were slowed down"
	wait_for 5 no_objects
}

# The same with the engine that delays and reorders.
case_chaos()
{
	# shellcheck disable=SC2046 # words
	core_start $(chaos "${FX_CHAOS:-chaos=8,1}")
	fine forks copy
	fine hostile truncate
	hazard overlap
	hazard remap
	hazard dontneed
	core_stop
}

# An ordinary user's core may be let in by Yama only.
case_ptracer()
{
	[ "$(id -u)" = 0 ] || skip "no root to become somebody else"
	[ -e /proc/sys/kernel/yama/ptrace_scope ] || skip "no Yama in this kernel"
	mkdir -p "$TMP/b" "$TMP/run"
	cp "$CORED" "$RUN" "$BUILD/shim/libflexins-preload.so" "$HELPERS/hazards" "$TMP/b/"
	chmod -R a+rX "$TMP/b"
	chown 65534 "$TMP/run"
	chmod 700 "$TMP/run"
	setpriv --reuid=65534 --regid=65534 --clear-groups env XDG_RUNTIME_DIR="$TMP/run" \
		timeout "$PATIENCE" "$TMP/b/flexins-run" --strict --core "$CORE-own" --core-args --no-huge -- \
		"$TMP/b/hazards" edges >"$TMP/out" 2>&1 || fail "$(tail -n 5 "$TMP/out")"
}
