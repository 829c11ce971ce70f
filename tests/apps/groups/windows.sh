# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Registered memory and everything else that programs do with it: a case for each row of docs/windows.md.

# fine PROGRAM CASE [COMMAND...]: the program's case, behind a command
fine()
{
	local program=$1 name=$2
	shift 2
	run "$@" "$HELPERS/$program" "$name" >"$TMP/out" 2>&1 || fail "$program $name: $(tail -n 5 "$TMP/out")"
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
	grep -q 'the child has no registered memory' "$TMP/out" || fail "no word of it: $(cat "$TMP/out")"
}

case_spawn()
{
	fine forks spawn
}
