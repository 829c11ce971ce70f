# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Queue pairs through states that perftest never enters.

case_drain()
{
	run "$HELPERS/selftalk" drain
}

case_reset()
{
	run "$HELPERS/selftalk" overwrite
}
