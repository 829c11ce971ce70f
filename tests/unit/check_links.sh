#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The libraries that run inside applications need libc and nothing else: programs such as SPDK bring a DPDK of
# their own. Usage: check_links.sh LIBRARY...
set -euo pipefail
export LC_ALL=C

bad=0
for lib in "$@"; do
	dynamic=$(readelf -W -d "$lib")
	while read -r needed; do
		case $needed in
		'' | libc.so.6 | ld-linux*.so.* | libdl.so.2 | libpthread.so.0) ;;
		*)
			echo "$lib needs $needed: it may link libc only" >&2
			bad=1
			;;
		esac
	done <<<"$(sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' <<<"$dynamic")"
	if grep -qE '\((RPATH|RUNPATH|TEXTREL)\)' <<<"$dynamic"; then
		echo "$lib has a run path or text relocations" >&2
		bad=1
	fi

	# What it exports: only its own names, so that it never captures a program's.
	case ${lib##*/} in
	libflexins.so*) allowed='flexins_.*|FLEXINS_.*' ;;
	*) allowed='_?ibv_.*|[a-z_0-9]+' ;;
	esac
	while read -r symbol; do
		if [ -n "$symbol" ] && ! [[ $symbol =~ ^($allowed)$ ]]; then
			echo "$lib exports $symbol" >&2
			bad=1
		fi
		case $symbol in
		fx_* | rte_*)
			echo "$lib exports the internal $symbol" >&2
			bad=1
			;;
		esac
	done <<<"$(readelf -W --dyn-syms "$lib" |
		awk '$7 != "UND" && ($5 == "GLOBAL" || $5 == "WEAK") { sub(/@.*/, "", $8); print $8 }')"
done
exit "$bad"
