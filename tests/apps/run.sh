#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Runs groups of tests with unmodified programs: run.sh [-v] [GROUP[/CASE]...]; without one, all of them.
# A group is a file in groups/ and brings a core of its own. Products are in $FX_BUILD, or ../../build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
verbose=

# allowed GROUP CASE: may the case be skipped?
allowed()
{
	grep -qE "^apps/$1/$2( |\$)" "$here/../allowed-skips.txt"
}

# run_case GROUP NAME: adds to $passed, $failed or $skipped
run_case()
{
	local status start=$SECONDS
	touch "$TMP/case.start"
	set +e
	(
		set -e
		[ -e "$TMP/core.pid" ] || core_start "${CORE_ARGS[@]}"
		"case_$2"
	) >"$TMP/case.out" 2>&1
	status=$?
	set -e
	if [ "$status" = 0 ]; then
		passed=$((passed + 1))
		[ -z "$verbose" ] || echo "passed $1/$2 ($((SECONDS - start)) s)"
	elif [ "$status" = 77 ] && allowed "$1" "$2"; then
		skipped=$((skipped + 1))
		echo "skipped $1/$2: $(sed -n 's/^SKIPPED: //p' "$TMP/case.out")"
	else
		failed=$((failed + 1))
		echo "FAILED $1/$2 ($((SECONDS - start)) s):"
		sed 's/^/    /' "$TMP/case.out"
		if [ "$TMP/out" -nt "$TMP/case.start" ]; then
			sed 's/^/    out: /' "$TMP/out"
		fi
	fi
	[ -z "$verbose" ] || sed -n 's/^NOTE: /    /p' "$TMP/case.out"
}

# run_group GROUP[/CASE]
run_group()
{
	local group=${1%%/*} only="" name
	[ "$group" = "$1" ] || only=${1#*/}
	passed=0 failed=0 skipped=0
	CORE_ARGS=()
	# shellcheck source=tests/apps/lib.sh
	. "$here/lib.sh"
	TMP=$(mktemp -d "${TMPDIR:-/tmp}/fxapps.XXXXXX")
	chmod 755 "$TMP"
	trap group_end EXIT
	trap 'exit 130' INT TERM
	[ -z "${FX_EMULATOR:-}" ] || emulate
	# shellcheck source=/dev/null
	. "$here/groups/$group.sh"
	while read -r name; do
		[ -z "$only" ] || [ "$name" = "$only" ] || continue
		run_case "$group" "$name" </dev/null
	done < <(sed -n 's/^case_\([a-z0-9_]*\)()$/\1/p' "$here/groups/$group.sh")
	echo "$passed $failed $skipped" >>"$results/$group"
}

if [ "${1:-}" = -v ]; then
	verbose=1
	shift
fi
groups=("$@")
if [ $# = 0 ]; then
	for file in "$here"/groups/*.sh; do
		groups+=("$(basename "$file" .sh)")
	done
fi
results=$(mktemp -d "${TMPDIR:-/tmp}/fxresults.XXXXXX")
trap 'rm -rf "$results"' EXIT
for group in "${groups[@]}"; do
	if [ ! -e "$here/groups/${group%%/*}.sh" ]; then
		echo "there is no group ${group%%/*} in $here/groups"
		exit 2
	fi
	set +e # and no ||: both would switch off set -e in all that is called
	(
		set -e
		run_group "$group"
	)
	set -e
	[ -e "$results/${group%%/*}" ] || echo "0 1" >"$results/${group%%/*}"
done
awk '{ p += $1; f += $2; s += $3 }
	END { printf "%d passed, %d failed", p, f; if (s) printf ", %d skipped", s; print ""; exit f > 0 || p == 0 }' \
	"$results"/*
