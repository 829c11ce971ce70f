# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Processes that do everything to one another while they are killed (storm.c): all bytes right, every operation ends,
# and the core holds nothing afterwards. Longer, with other seeds: STORM_SECONDS, STORM_SEED.

# resident KIB of the core
resident()
{
	sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$(core_pid)/status"
}

# storm SECONDS: and what it leaves behind
storm()
{
	local before after
	PATIENCE=30 run "$HELPERS/storm" --seconds 1 --seed 99 # what the core keeps for good
	wait_for 10 no_objects
	before=$(resident)
	PATIENCE=$((STORM_SECONDS + $1 + 200)) run "$HELPERS/storm" --seconds $((STORM_SECONDS + $1)) --seed "$STORM_SEED" \
		>"$TMP/storm.out" 2>&1 || {
		grep '^storm' "$TMP/storm.out"
		fail "the storm"
	}
	tail -n 1 "$TMP/storm.out" | sed 's/^/NOTE: /'
	wait_for 10 no_objects || fail "left behind: $("$CTL" --core "$CORE" show)"
	after=$(resident)
	echo "NOTE: the core's memory: $before KiB before, $after KiB after"
	[ $((after - before)) -lt 8192 ] || fail "the core's memory grew from $before to $after KiB"
}

STORM_SECONDS=${STORM_SECONDS:-0} STORM_SEED=${STORM_SEED:-1}

case_storm()
{
	storm 60
}

case_chaos()
{
	# shellcheck disable=SC2046 # words
	core_start $(chaos chaos=16,1)
	storm 20
}
