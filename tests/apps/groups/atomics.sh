# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# perftest's remote atomics, both operations: rate and latency.

case_ib_atomic_bw_fetch_and_add()
{
	pair ib_atomic_bw -A FETCH_AND_ADD -n 5000 -F
}

case_ib_atomic_bw_cmp_and_swap()
{
	pair ib_atomic_bw -A CMP_AND_SWAP -n 5000 -F
}

case_ib_atomic_lat_fetch_and_add()
{
	pair ib_atomic_lat -A FETCH_AND_ADD -n 500 -F
}

case_ib_atomic_lat_cmp_and_swap()
{
	pair ib_atomic_lat -A CMP_AND_SWAP -n 500 -F
}

# More queue pairs, more under way, both ways.
case_ib_atomic_bw_many()
{
	pair ib_atomic_bw -A FETCH_AND_ADD -q 8 -o 16 -b -n 1000 -F
}

# Atomic to the application's own CPUs on whole pages (guarantee W3), and right on its stack too.
case_pages_and_stack()
{
	run "$HELPERS/selftalk" atomics
}
