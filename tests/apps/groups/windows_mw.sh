# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Memory windows as programs use them, over engines that are prompt and over one that is late.

case_type_1()
{
	run "$HELPERS/windows" type1
}

case_type_2()
{
	run "$HELPERS/windows" type2
}

# What goes over a window that is not there ends the connection, and nothing else.
case_refused()
{
	run "$HELPERS/windows" refused
}

case_busy()
{
	run "$HELPERS/windows" busy
}

# Programs that end with everything bound leave nothing behind.
case_left_bound()
{
	run "$HELPERS/windows" leave
	wait_for 5 no_objects || fail "something was left"
}

case_late_engine()
{
	local -a counted
	# shellcheck disable=SC2046 # words
	core_start $(chaos chaos=50,7)
	run "$HELPERS/windows" type1
	run "$HELPERS/windows" type2
	run "$HELPERS/windows" refused
	mapfile -t counted < <(counter mw_binds mw_invalidates rx_invalidates)
	[ "${counted[0]}" -gt 0 ] && [ "${counted[1]}" -gt 0 ] && [ "${counted[2]}" -gt 0 ] ||
		fail "bound ${counted[0]}, invalidated ${counted[1]} and ${counted[2]} times"
	core_stop
}
