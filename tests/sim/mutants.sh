#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Planted transport bugs: each row of mutants.list is an edit of a copy of src/transport; the simulation
# must notice every one. Prints a table, and fails when a bug survives or an edit no longer applies.
#
# Usage: mutants.sh [NAME...]        CC, and JOBS (how many at a time) from the environment
#        mutants.sh --check          only whether every edit still changes something
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
list=$here/mutants.list
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# check: a moment's work, so it is a test of every run
check() {
	local name file edit bad=0

	while IFS='|' read -r name file edit; do
		case $name in '' | '#'*) continue ;; esac
		file=$root/src/transport/${file// /}
		if sed -E "${edit# }" "$file" | cmp -s - "$file"; then
			echo "mutants: ${name%% *}: the edit changes nothing in ${file##*/}" >&2
			bad=1
		fi
	done <"$list"
	return "$bad"
}

if [ "${1-}" = --check ]; then
	check
	exit
fi

cc=${CC:-gcc}
flags=(-std=c17 -D_GNU_SOURCE -O1 -g -fno-strict-aliasing -w)
common=(oracle sim_host sim_mem sim_net)
tests=(sim_atomics sim_cases sim_errors sim_events sim_looks sim_mcast sim_revoke sim_rogue sim_sched sim_srq sim_states sim_unreliable sim_windows sim_loss)

build() { # build OUT SOURCE: against the copy in $dir, whose headers come first
	"$cc" "${flags[@]}" -I"$dir" -I"$root/src" -I"$root/include" -c "$2" -o "$1"
}

# Objects of $dir: everything that includes the transport's headers is built with the copy's.
build_all() {
	local f

	for f in "$dir"/transport/*.c "$root"/src/wire/{roce,opcode}.c "$root"/src/memory/*.c \
		"$here"/{pair,sim_load,load_plan,sim}.c "${common[@]/#/$here/}" "${tests[@]/#/$here/}"; do
		f=${f%.c}.c
		build "$dir/${f##*/}.o" "$f"
	done
}

link() { # link PROGRAM MAIN...: objects by name
	local program=$1 o objects=()

	shift
	for o in "$@" "${common[@]}" roce opcode; do
		objects+=("$dir/$o.c.o")
	done
	for o in "$dir"/transport/*.c "$root"/src/memory/*.c; do
		objects+=("$dir/${o##*/}.o")
	done
	"$cc" "${objects[@]}" -lcmocka -lpthread -o "$dir/$program"
}

link_all() {
	local t

	link sim sim sim_load load_plan
	for t in "${tests[@]}"; do
		link "$t" "$t" pair
	done
}

# Runs the copy in $dir; prints what noticed, or "-".
judge() {
	local t

	for t in "${tests[@]}"; do
		if ! timeout 60 "$dir/$t" >"$dir/out" 2>&1; then
			grep -m 1 FAILED "$dir/out" | sed "s/.*\] /$t: /" || echo "$t: crashed"
			return
		fi
	done
	if ! timeout 300 "$dir/sim" --stop --scale "${SCALE:-100}" >"$dir/out" 2>&1; then
		grep -m 1 '^FAIL' "$dir/out" | sed 's/.* # /sim: /' || echo "sim: crashed"
		return
	fi
	echo -
}

# try NAME FILE EDIT: one planted bug, in a directory of its own.
try() {
	local name=$1 file=$2 edit=$3 verdict

	dir=$work/$name
	mkdir "$dir"
	cp -r "$root/src/transport" "$dir/transport"
	cp "$work"/none/*.o "$dir"
	sed -E -i "$edit" "$dir/transport/$file"
	if cmp -s "$dir/transport/$file" "$root/src/transport/$file"; then
		verdict="STALE: the edit changes nothing"
	elif [ "${file##*.}" = h ] && ! build_all 2>"$dir/out"; then
		verdict="STALE: does not compile"
	elif [ "${file##*.}" = c ] && ! build "$dir/$file.o" "$dir/transport/$file" 2>"$dir/out"; then
		verdict="STALE: does not compile"
	else
		link_all
		verdict=$(judge)
		[ "$verdict" != - ] || verdict=SURVIVED
	fi
	echo "$verdict" >"$work/$name.verdict"
	rm -rf "$dir"
}

dir=$work/none
mkdir "$dir"
cp -r "$root/src/transport" "$dir/transport"
build_all
link_all
verdict=$(SCALE=10 judge)
if [ "$verdict" != - ]; then
	echo "mutants: the unchanged transport fails already: $verdict" >&2
	exit 1
fi

names=()
while IFS='|' read -r name file edit; do
	case $name in '' | '#'*) continue ;; esac
	name=${name%% *} file=${file// /} edit=${edit# }
	if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then
		continue
	fi
	names+=("$name")
	while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-$(nproc)}" ]; do
		wait -n || true
	done
	try "$name" "$file" "$edit" &
done <"$list"
wait

bad=0
for name in "${names[@]}"; do
	verdict=$(cat "$work/$name.verdict" 2>/dev/null || echo "STALE: could not be tried")
	printf '%-28s %s\n' "$name" "${verdict:0:110}"
	case $verdict in SURVIVED | STALE*) bad=$((bad + 1)) ;; esac
done
echo "mutants: ${#names[@]} planted, $((${#names[@]} - bad)) caught"
[ "$bad" = 0 ]
