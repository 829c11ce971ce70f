#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every test that docs/guarantees.md names exists, every guarantee names one or says how it is checked, and every
# guarantee that the code names exists.
# Usage: check_guarantees.sh SOURCE_ROOT
set -euo pipefail
export LC_ALL=C
cd "$1"

bad=0
missing()
{
	echo "docs/guarantees.md: there is no $*" >&2
	bad=1
}

# has FILE TEXT: on one line
has()
{
	[ -f "$1" ] && grep -qF -- "$2" "$1"
}

# row SECTION/ROW: as docs/conformance.md has it, which its own tests compare with the program
row()
{
	awk -v head="## ${1%%/*}:" '/^## / { on = index($0, head) == 1 } on' docs/conformance.md |
		grep -qF -- "| ${1#*/} | "
}

tests=0
while IFS= read -r line; do
	kind=${line%% \`*}
	name=${line#*\`}
	name=${name%\`*}
	tests=$((tests + 1))
	case $kind in
	mutant) grep -q "^$name  *|" tests/sim/mutants.list || missing "$line" ;;
	unit | sim) has "tests/$kind/${name%%: *}.c" "${name#*: }" || missing "$line" ;;
	'unit script') [ -x "tests/unit/$name" ] || missing "$line" ;;
	apps) has "tests/apps/groups/${name%%/*}.sh" "case_${name#*/}()" || missing "$line" ;;
	conformance) row "$name" || missing "$line" ;;
	*) missing "kind of test called '$kind'" ;;
	esac
done < <(sed -n 's/^- //p' docs/guarantees.md)
[ "$tests" -gt 50 ] || missing "list of tests: $tests were found"

while IFS= read -r id; do
	grep -q "^\*\*$id\. " docs/guarantees.md || missing "guarantee $id, of which the code speaks"
done < <(grep -rhoE 'guarantees? [A-Z][0-9]+(( and|,) [A-Z][0-9]+)*' src shim tools tests --include='*.[ch]' |
	grep -oE '[A-Z][0-9]+' | sort -u)
exit "$bad"
