# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the benchmarks share. They source it with their directory in $here; the products are found under $FX_BUILD, or
# ../../build.
source=$here/../..
build=${FX_BUILD:-$source/build}
run=$build/tools/flexins-run
core=fxbench-$$

die()
{
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# The machine and the version, without a full stop.
machine()
{
	echo "$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, Linux" \
		"$(uname -r | cut -d. -f1,2), FlexiNS $("$build/tools/flexinsctl" --version | cut -d' ' -f2)"
}

# mark A OP B: is A >= B, or <=
mark()
{
	awk -v a="$1" -v op="$2" -v b="$3" 'BEGIN { print (op == ">=" ? a >= b : a <= b) ? "reached" : "missed" }'
}

# into_page NAME FILE: replaces the part of docs/performance.md between the lines of that name
into_page()
{
	local page=$source/docs/performance.md begin="<!-- $1: begin -->" end="<!-- $1: end -->"
	grep -qF "$begin" "$page" || die "$page has no line $begin"
	awk -v begin="$begin" -v end="$end" -v report="$2" '
		$0 == end { skip = 0 }
		!skip { print }
		$0 == begin { skip = 1; while ((getline line < report) > 0) print line }
	' "$page" >"$2.page"
	cat "$2.page" >"$page"
	echo "written to docs/performance.md" >&2
}
