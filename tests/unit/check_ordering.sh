#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# docs/ordering.md names every source file that uses atomics, fences or volatile, and no other.
# Usage: check_ordering.sh SOURCE-ROOT
set -euo pipefail
export LC_ALL=C
cd "$1"

uses=$(grep -rlE --include='*.[ch]' \
	'__atomic_|__sync_|\batomic_(init|load|store|exchange|compare|fetch|flag|thread|signal|bool)|_Atomic|\bvolatile\b|\brte_([a-z]+_)?[rw]?mb\b' \
	src shim tools include | sort)
named=$(grep '^|' docs/ordering.md | grep -oE '\b(src|shim|tools|include)/[a-z0-9_/-]+\.[ch]\b' | sort -u)
bad=0
while read -r file; do
	echo "$file orders something, and docs/ordering.md does not say what" >&2
	bad=1
done < <(comm -23 <(echo "$uses") <(echo "$named"))
while read -r file; do
	echo "docs/ordering.md names $file, which orders nothing" >&2
	bad=1
done < <(comm -13 <(echo "$uses") <(echo "$named"))
[ -n "$uses" ] && exit "$bad"
