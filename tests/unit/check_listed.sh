#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every source file, test and public header is listed in its directory's meson.build, and every text file carries
# its licence. Usage: check_listed.sh SOURCE_ROOT
set -euo pipefail
shopt -s nullglob
cd "$1"

bad=0
for f in src/*/*.c shim/*.c tools/*.c tests/unit/*.c tests/sim/*.c tests/apps/*.c tests/bench/*.c \
	tests/conformance/*.c \
	tests/apps/groups/*.sh tests/unit/*.sh tests/model/*.pml include/flexins/*.h docs/man/*.[0-9]; do
	dir=${f%/*} name=${f##*/}
	dir=${dir%/groups}
	if ! grep -qsE "'($name|${name%.*})'" "$dir/meson.build"; then
		echo "$f is not listed in $dir/meson.build" >&2
		bad=1
	fi
done

while IFS= read -r f; do
	case $f in
	*.pcap | *.png | *.bin) continue ;;
	esac
	if ! head -n 5 "$f" | grep -q 'SPDX-License-Identifier: BSD-3-Clause'; then
		echo "$f has no SPDX line" >&2
		bad=1
	fi
done <<<"$(find LICENSE README.md meson.build src include shim tests tools docs .ci .clang-format .editorconfig \
	.gitignore -type f -not -path '*/__pycache__/*' -not -path 'tests/data/*')"
exit "$bad"
