# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# The core as a process: how fast it starts, what it costs while idle, how much memory, what it leaves behind.

# shellcheck disable=SC2153 # CORED is lib.sh's

# cpu_ms PID: CPU time so far, all threads; by the account of the scheduler, since ticks miss short turns
cpu_ms()
{
	if [ -r "/proc/$1/schedstat" ]; then
		cat "/proc/$1/task/"*/schedstat | awk '{ n += $1 } END { printf "%d\n", n / 1000000 }'
	else
		sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ print ($12 + $13) * 1000 / hz }'
	fi
}

# idle_cost: fails when the core takes 2 % of a CPU or more over 3 s
idle_cost()
{
	local before after pid percent
	pid=$(core_pid)
	before=$(cpu_ms "$pid")
	sleep 3
	after=$(cpu_ms "$pid")
	percent=$(awk -v ms=$((after - before)) 'BEGIN { printf "%.2f", ms / 30 }')
	echo "NOTE: idle core$1: $percent % of a CPU over 3 s"
	awk -v p="$percent" 'BEGIN { exit !(p < 2) }' || fail "2 % or more"
}

tell_qps()
{
	local line
	echo "$*" >&"${MANY[1]}"
	read -r -t 120 line <&"${MANY[0]}" || fail "manyqps ended: $(cat "$TMP/many.err")"
	[ "$line" = "$*" ] || fail "manyqps: $line"
}

start_many()
{
	local line
	coproc MANY { exec "$RUN" --strict --core "$CORE" -- "$HELPERS/manyqps" 2>"$TMP/many.err"; }
	read -r -t 20 line <&"${MANY[0]}" || fail "manyqps ended: $(cat "$TMP/many.err")"
	[ "$line" = open ] || fail "manyqps: $line"
}

stop_many()
{
	local pid=$MANY_PID
	eval "exec ${MANY[1]}>&-"
	wait "$pid"
}

case_start_time()
{
	local start ms
	core_stop
	start=$(date +%s%N)
	"$CORED" --name "$CORE" "${PLACEMENT[@]}" --ready-fd 7 7> >(head -c 1 >"$TMP/ready") >"$TMP/core.log" 2>&1 </dev/null &
	echo $! >"$TMP/core.pid"
	wait_for 10 test -s "$TMP/ready" || fail "not ready: $(cat "$TMP/core.log")"
	ms=$((($(date +%s%N) - start) / 1000000))
	echo "NOTE: ready after $ms ms"
	[ "$ms" -lt 1000 ] || fail "a second or more"
}

case_idle_cpu()
{
	sleep 1
	idle_cost ""
}

case_idle_cpu_with_client()
{
	start_many
	tell_qps qps 10
	sleep 1
	idle_cost " with a client of 10 QPs"
	stop_many
}

case_memory()
{
	local one many each
	start_many
	tell_qps qps 1
	one=$(core_kib)
	tell_qps qps 1001
	many=$(core_kib)
	each=$(((many - one) * 1024 / 1000))
	echo "NOTE: core with one QP: $((one / 1024)) MiB; each further QP $each bytes"
	stop_many
	[ "$one" -lt 100000 ] || fail "one QP: $one KiB, 100 MB or more"
	[ "$each" -lt 8192 ] || fail "each further QP: $each bytes, 8 KiB or more"
	wait_for 5 no_objects
}

# However many requests went through it, in queues as long as perftest's.
case_traffic_takes_no_memory()
{
	local before after
	pair ib_write_bw -F -s 64 -n 5000
	before=$(core_kib)
	pair ib_write_bw -F -s 64 -n 200000
	after=$(core_kib)
	echo "NOTE: 200000 WRITEs later the core has $((after - before)) KiB more"
	[ $((after - before)) -lt 4096 ] || fail "4 MiB or more"
}

# Opening and closing a thousand times leaves the core's memory where it was.
case_no_leak()
{
	local before after i
	for i in $(seq 1 20); do
		printf 'qps 20\n' | run "$HELPERS/manyqps" >/dev/null 2>"$TMP/err" || fail "round $i: $(cat "$TMP/err")"
	done
	wait_for 5 no_objects
	before=$(core_kib)
	for i in $(seq 1 100); do
		printf 'qps 20\n' | run "$HELPERS/manyqps" >/dev/null 2>"$TMP/err" || fail "round $i: $(cat "$TMP/err")"
	done
	wait_for 5 no_objects
	after=$(core_kib)
	echo "NOTE: 100 clients later the core has $((after - before)) KiB more"
	[ $((after - before)) -lt 2048 ] || fail "2 MiB or more"
	[ "$(find "/proc/$(core_pid)/fd" | wc -l)" -lt 60 ] || fail "descriptors left open"
}

# Without what belongs to another core that runs now: its process id is in the name of its DPDK directory, its
# name in its socket's.
of_nobody_else()
{
	local path pid
	while read -r path; do
		pid=$(sed -n 's|.*/flexins\([0-9][0-9]*\)\(/.*\)\{0,1\}$|\1|p' <<<"$path")
		if [ -n "$pid" ] && ! gone "$pid"; then
			continue
		fi
		case $path in
		*/"$CORE".sock | */"$CORE".tcp) echo "$path" ;;
		*.sock | *.tcp) ;;
		*) echo "$path" ;;
		esac
	done
}

case_term_leaves_nothing()
{
	local args
	for args in "" "--no-huge"; do
		core_stop
		leftovers >"$TMP/before"
		# shellcheck disable=SC2086 # words
		core_start $args
		pair ibv_rc_pingpong -c -g 0 -n 100
		core_stop
		leftovers >"$TMP/after"
		comm -13 "$TMP/before" "$TMP/after" | of_nobody_else >"$TMP/out"
		[ ! -s "$TMP/out" ] || fail "flexinsd $args left something behind"
	done
}

case_two_cores_of_one_name()
{
	refuses timeout 10 "$CORED" --name "$CORE" "${PLACEMENT[@]}" >"$TMP/out" 2>&1
	grep -q "$CORE" "$TMP/out" || fail "it did not say why: $(cat "$TMP/out")"
	pair ibv_rc_pingpong -c -g 0 -n 100
}

case_two_cores_side_by_side()
{
	local other=$CORE-b pid
	"$CORED" --name "$other" "${PLACEMENT[@]}" >"$TMP/other.log" 2>&1 </dev/null &
	pid=$!
	wait_for 10 "$CTL" --core "$other" show device || fail "the second core: $(cat "$TMP/other.log")"
	pair ibv_rc_pingpong -c -g 0 -n 100
	CORE=$other
	pair ibv_rc_pingpong -c -g 0 -n 100
	kill "$pid"
	wait "$pid"
}
