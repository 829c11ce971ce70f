# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# The test suite of rdma-core's Python verbs, as its package has it: no failure, no error, and no skip but those that
# pyverbs.skips lists with a reason.

DOC=/usr/share/doc/rdma-core/tests

# The package's files, in $TMP/pyverbs; from the package itself where the machine keeps no documentation.
suite()
{
	local from=$DOC
	if [ ! -e "$from/run_tests.py" ]; then
		(cd "$TMP" && apt-get download python3-pyverbs && dpkg-deb -x python3-pyverbs_*.deb deb)
		from=$TMP/deb$DOC
	fi
	mkdir "$TMP/pyverbs"
	cp -r "$from" "$TMP/pyverbs/"
	find "$TMP/pyverbs" -name '*.gz' -exec gunzip {} +
}

# skips: the list; across a bus nothing lands elsewhere first, so that what differs by it does not
skips()
{
	local list=$APPS/pyverbs.skips
	if [ "${FX_PLACEMENT:-}" = emulated ]; then
		grep -v '^!tests.test_mr.MRTest.test_mr_rereg_' "$list" >"$TMP/skips"
		list=$TMP/skips
	fi
	echo "$list"
}

# judged HOW: run it, and judge it so
judged()
{
	[ -e "$TMP/pyverbs" ] || suite
	cd "$TMP/pyverbs" || return
	PYVERBS_RESULTS=$TMP/results run /usr/bin/python3 "$APPS/pyverbs_suite.py" --run --dev flexins0 \
		>"$TMP/pyverbs.out" 2>&1 || true
	/usr/bin/python3 "$APPS/pyverbs_suite.py" "$1" "$(skips)" "$TMP/results" || {
		grep -A 30 '^ERROR:\|^FAIL:' "$TMP/pyverbs.out" | head -n 200
		tail -n 5 "$TMP/pyverbs.out"
		return 1
	}
	wait_for 10 no_objects
}

case_suite()
{
	judged --judge
}

# All memory through the core: no difference is left.
case_suite_helper()
{
	export FLEXINS_WINDOWS=helper
	judged --judge-strictly
}
