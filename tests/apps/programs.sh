#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The table of programs, docs/programs.md, of programs.list and of a run.
#
#   programs.sh --check   has the table the list's rows, and are all of its cases there? Runs nothing.
#   programs.sh --write   runs them all and writes the table
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
docs=$here/../../docs/programs.md
log=$(mktemp "${TMPDIR:-/tmp}/fxprograms.XXXXXX")
trap 'rm -f "$log"' EXIT

rows()
{
	grep -v '^#' "$here/programs.list"
}

# results CASES...: what the run says of them
results()
{
	awk -v wanted="$*" '
		BEGIN { n = split(wanted, want, " ") }
		function ours(name, i) {
			for (i = 1; i <= n; i++)
				if (name == want[i] || index(name, want[i] "/") == 1)
					return 1
			return 0
		}
		/^passed / { on = ours($2); if (on) { passed++; gsub(/[(]/, "", $3); time += $3 } next }
		/^FAILED / { on = 0; if (ours($2)) failed++; next }
		/^skipped / { on = 0; sub(/:$/, "", $2); if (ours($2)) skipped++; next }
		/^    / { if (on) { sub(/^ +/, ""); note = note "; " $0 } }
		END {
			if (!passed || failed || skipped)
				printf "%d passed, %d failed, %d skipped | %d s\n", passed, failed, skipped, time
			else
				printf "passed%s | %d s\n", note, time
		}' "$log"
}

table()
{
	local program package what cases version
	cat <<'END'
<!-- SPDX-License-Identifier: BSD-3-Clause -->
<!-- Printed by tests/apps/programs.sh --write -->
# Programs

Programs of the field that run unmodified over FlexiNS: as Debian 12 packages them, under `flexins-run`, over a core on a
loopback port. Where a program checks data or can be told to, it does. This is what `tests/apps/programs.sh --write`
printed last; CI runs the same cases each time.

| program | package | run for | cases | result | time |
|---|---|---|---|---|---|
END
	while IFS=$'\t' read -r program package what cases; do
		version=$(dpkg-query -W -f='${Version}' "$package")
		# shellcheck disable=SC2086
		echo "| $program | $package $version | $what | $cases | $(results $cases) |"
	done < <(rows)
	cat <<'END'

Not yet: what needs the connection manager (rdmacm-utils, fio, qperf, librpma, `fi_pingpong` on `FI_EP_MSG` and with
`-e dgram`, which opens an event queue of the connection manager's). Never: static and setuid programs, and what loads
libibverbs with `RTLD_DEEPBIND`; OpenMPI's old `btl openib`, which in Debian's build cannot run on RoCE.
END
}

# The rows without what a run adds.
check()
{
	local cases name group bad=0
	diff -u --label docs/programs.md --label tests/apps/programs.list \
		<(sed -n 's/^| \(.*\) |$/\1/p' "$docs" | sed 1d | grep -v '^---' |
			awk -F ' [|] ' '{ sub(/ [^ ]*$/, "", $2); print $1 "\t" $2 "\t" $3 "\t" $4 }') <(rows) || {
		echo "docs/programs.md is out of date: run tests/apps/programs.sh --write"
		bad=1
	}
	while IFS=$'\t' read -r _ _ _ cases; do
		for name in $cases; do
			group=${name%%/*}
			if ! [ -e "$here/groups/$group.sh" ] || { [ "$group" != "$name" ] &&
				! grep -q "^case_${name#*/}()\$" "$here/groups/$group.sh"; }; then
				echo "tests/apps/programs.list: there is no case $name"
				bad=1
			fi
		done
	done < <(rows)
	if grep -E '\| [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped \|' "$docs"; then
		echo "docs/programs.md tells of failures or skipped cases"
		bad=1
	fi
	return "$bad"
}

write()
{
	local cases bad=0
	mapfile -t cases < <(rows | cut -f 4 | tr ' ' '\n' | sort -u)
	"$here/run.sh" -v "${cases[@]}" >"$log" || bad=$?
	table >"$docs"
	[ "$bad" = 0 ] || cat "$log"
	return "$bad"
}

case ${1:-} in
--check) check ;;
--write) write ;;
*)
	sed -n '4,8s/^# *//p' "${BASH_SOURCE[0]}"
	exit 2
	;;
esac
