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

# What follows keeps what it runs and what that prints in $tmp and $server.

listening()
{
	grep -q ":$(printf '%04X' "$1") [0:A-F]* 0A " /proc/net/tcp /proc/net/tcp6
}

free_port()
{
	local port
	while port=$((20000 + RANDOM % 10000)); do
		grep -q ":$(printf '%04X' "$port") " /proc/net/tcp /proc/net/tcp6 || break
	done
	echo "$port"
}

# serve PORT COMMAND...: in the background, until it listens
serve()
{
	local port=$1
	shift
	timeout 120 "$@" >"$tmp/server" 2>&1 &
	server=$!
	for _ in $(seq 200); do
		listening "$port" && return
		sleep 0.05
	done
	cat "$tmp/server" >&2
	die "$* does not listen"
}

served()
{
	wait "$server" || true
	server=
}

# perftest SIZE PROGRAM ARGS...: the row of its table
perftest()
{
	local port size=$1
	shift
	port=$(free_port)
	serve "$port" "$run" --strict --core "$core" --core-args "$core_args" -- "$@" -s "$size" -F -p "$port"
	timeout 120 "$run" --strict --core "$core" --core-args "$core_args" -- "$@" -s "$size" -F -p "$port" \
		127.0.0.1 >"$tmp/client" 2>&1 || {
		cat "$tmp/server" "$tmp/client" >&2
		die "$* failed"
	}
	served
	awk -v size="$size" '$1 == size && $2 ~ /^[0-9]+$/ { row = $0 } END { print row }' "$tmp/client"
}

# Percent of the CPUs that others take while we do nothing for a second
noise()
{
	local -a before after
	read -r -a before </proc/stat
	sleep 1
	read -r -a after </proc/stat
	printf '%s\n' "${before[*]}" "${after[*]}" | awk '
		{ all[NR] = $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9; idle[NR] = $5 + $6 }
		END { printf "%.0f\n", 100 - 100 * (idle[2] - idle[1]) / (all[2] - all[1]) }'
}

# into_page PAGE NAME FILE: replaces the part of docs/PAGE between the lines of that name
into_page()
{
	local page=$source/docs/$1 begin="<!-- $2: begin -->" end="<!-- $2: end -->"
	grep -qF "$begin" "$page" || die "$page has no line $begin"
	awk -v begin="$begin" -v end="$end" -v report="$3" '
		$0 == end { skip = 0 }
		!skip { print }
		$0 == begin { skip = 1; while ((getline line < report) > 0) print line }
	' "$page" >"$3.page"
	cat "$3.page" >"$page"
	echo "written to docs/$1" >&2
}
