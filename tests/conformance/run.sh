#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Runs the conformance program over a core of its own.
#
#   run.sh SECTION        this section; its part of docs/conformance.md has to be what it prints
#   run.sh --documents    do docs/errors.md and the sections of docs/conformance.md fit the program? Runs nothing.
#   run.sh --write        runs everything and writes both documents
#
# Products are in $FX_BUILD, or ../../build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=tests/apps/lib.sh
. "$here/../apps/lib.sh"
CORE=fxconformance-$$
PROGRAM=$BUILD/tests/conformance/conformance
docs=$root/docs

TMP=$(mktemp -d "${TMPDIR:-/tmp}/fxconformance.XXXXXX")
trap group_end EXIT
trap 'exit 130' INT TERM

# The core that the program starts itself is where the others are.
printf '#!/bin/sh\nexec %s "$@"\n' "$(printf '%q ' "$CORED" "${PLACEMENT[@]}")" >"$TMP/daemon"
chmod +x "$TMP/daemon"

# conformance ARGS...: over the core
conformance()
{
	"$RUN" --strict --core "$CORE" "${PLACEMENT[@]}" -- env -u FLEXINS_BANNER "$PROGRAM" \
		--expected "$here/expected-failures.txt" --daemon "$TMP/daemon" "$@"
}

# part SECTION: of docs/conformance.md
part()
{
	awk -v head="## $1:" '/^## / { on = index($0, head) == 1 } on' "$docs/conformance.md"
}

# same WHAT FILE FILE
same()
{
	diff -u --label "$1" --label "what the program prints" "$2" "$3" && return 0
	echo "$1 is out of date: run tests/conformance/run.sh --write"
	return 1
}

section()
{
	local bad=0
	core_start --log error
	conformance --only "$1" --markdown "$TMP/run.md" || bad=$?
	[ -e "$TMP/run.md" ] || return "$bad"
	# both without the blank lines between sections
	part "$1" | sed '/^$/d' >"$TMP/docs.md"
	sed -i '/^$/d' "$TMP/run.md"
	same "docs/conformance.md, section $1" "$TMP/docs.md" "$TMP/run.md" || bad=1
	return "$bad"
}

documents()
{
	local bad=0
	"$PROGRAM" --errors-markdown >"$TMP/errors.md"
	same docs/errors.md "$docs/errors.md" "$TMP/errors.md" || bad=1
	"$PROGRAM" --list | sed 's|/.*||' | uniq >"$TMP/sections"
	sed -n 's/^## \(.*\):.*/\1/p' "$docs/conformance.md" >"$TMP/documented"
	same "the list of sections in docs/conformance.md" "$TMP/documented" "$TMP/sections" || bad=1
	sed -n "/^conformance_sections = /,/^]/s/^ *'\([a-z]*\)',$/\1/p" "$here/meson.build" >"$TMP/tested"
	same "the list of sections in tests/conformance/meson.build" "$TMP/tested" "$TMP/sections" || bad=1
	return "$bad"
}

write()
{
	local bad=0
	core_start --log error
	conformance --markdown "$TMP/run.md" || bad=$?
	[ -e "$TMP/run.md" ] || return "$bad"
	{
		cat <<'END'
<!-- SPDX-License-Identifier: BSD-3-Clause -->
<!-- Printed by the conformance program: tests/conformance/run.sh --write -->
# Conformance of reliable connections

`tests/conformance` is an ordinary verbs program that checks a device against what the verbs manual and the InfiniBand
Architecture specification (volume 1, whose clauses are named) promise of reliable connections. This is what it prints over
a core on a loopback port. By hand, over FlexiNS or over hardware:

```sh
build/tools/flexins-run -- build/tests/conformance/conformance
build/tests/conformance/conformance --device mlx5_0 --port 1 --gid 3
```

`--list` names the rows, `--only SECTION[/ROW]` runs some, `--json` is for programs. A row passes, fails, is skipped for a
reason, or is "not yet": it fails, and is listed with its reason until it no longer does.
END
		cat "$TMP/run.md"
	} >"$docs/conformance.md"
	"$PROGRAM" --errors-markdown >"$docs/errors.md"
	return "$bad"
}

case ${1:-} in
--documents) documents ;;
--write) write ;;
[a-z]*) section "$1" ;;
*)
	sed -n '5,9s/^#   //p' "${BASH_SOURCE[0]}"
	exit 2
	;;
esac
