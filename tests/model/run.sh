#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Verifies the models of the pipe exhaustively with spin, and that each defect that can be planted in one is found: a
# name BUG_... in a model, or in the file that it includes, is one, and is planted by defining it.
#
# Usage: run.sh [-v] [MODEL...]        default: all; JOBS (how many at a time) and CC from the environment
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
megabytes=900 # for one model
depth=1500000 # of the search; a path that is longer fails the run

verbose=0
if [ "${1:-}" = -v ]; then
	verbose=1
	shift
fi
command -v spin >/dev/null || {
	echo "model: spin is not installed (Debian: apt-get install spin)" >&2
	exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# search MODEL OPTIMISATION [DEFINE]: pan's report on stdout
search()
{
	local model=$1 level=$2 dir

	shift 2
	dir=$(mktemp -d "$work/XXXXXX")
	cd "$dir"
	spin "$@" -a "$here/$model.pml" && # it prints what is wrong with a model, if anything is
		"${CC:-cc}" "$level" -w -DSAFETY -DCOLLAPSE -DMEMLIM="$megabytes" -o pan pan.c &&
		./pan -n -m"$depth"
	rm -rf "$dir"
}

# verdict NAME REPORT: of a clean model; prints it, and fails if the model or the search does
verdict()
{
	local states

	states=$(sed -n 's/^ *\([0-9]*\) states, stored$/\1/p' "$2")
	if ! grep -q 'errors: 0$' "$2" || grep -Eq 'max search depth too small|Search not completed' "$2"; then
		echo "FAILED $1"
		cat "$2"
	else
		echo "holds  $1: $states states, $(sed -n 's/^pan: elapsed time \(.*\) seconds$/\1/p' "$2") s"
	fi
}

# caught NAME REPORT: of a planted defect
caught()
{
	local how

	how=$(grep -Em 1 '^pan:1: (assertion violated|invalid end state)' "$2" || true)
	if [ -n "$how" ]; then
		echo "caught $1: ${how#pan:1: }"
	else
		echo "FAILED $1: not noticed"
		cat "$2"
	fi
}

# try MODEL [BUG]: its verdict goes to a file
try()
{
	local name=$1${2:+ with $2} report

	report=$work/$1.${2:-clean}.report
	if [ -z "${2:-}" ]; then
		search "$1" -O2 >"$report" 2>&1 || true
		verdict "$name" "$report"
	else
		search "$1" -O0 "-D$2" >"$report" 2>&1 || true # found soon, or not at all
		caught "$name" "$report"
	fi >"$work/$1.${2:-clean}.verdict"
}

# files MODEL: what it is made of
files()
{
	echo "$here/$1.pml"
	sed -n "s|^#include \"\(.*\)\"|$here/\1|p" "$here/$1.pml"
}

models=("$@")
if [ $# = 0 ]; then
	for file in "$here"/*.pml; do
		models+=("$(basename "$file" .pml)")
	done
fi
tries=0
for model in "${models[@]}"; do
	mapfile -t from < <(files "$model")
	for bug in '' $(grep -oh 'BUG_[A-Z_]*' "${from[@]}" | sort -u); do
		while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do
			wait -n || true
		done
		# shellcheck disable=SC2086 # none, or one word
		try "$model" $bug &
		tries=$((tries + 1))
	done
done
wait

cat "$work"/*.verdict >"$work/all"
[ "$verbose" = 0 ] || grep -v '^FAILED' "$work/all" | grep -E '^(holds|caught)' || true
sed -n '/^FAILED/,/^\(holds\|caught\)/{/^\(holds\|caught\)/!p}' "$work/all"
held=$(grep -c '^holds' "$work/all" || true)
found=$(grep -c '^caught' "$work/all" || true)
echo "model: $held models hold, $found planted defects caught, $((tries - held - found)) failed"
[ "$held" != 0 ] && [ "$tries" = $((held + found)) ]
