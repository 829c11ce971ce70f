# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# OpenMPI over UCX over the verbs, with a program that checks what it receives (mpi_check.c). Everything between ranks
# has to go by the device: shared memory is left out of UCX's transports.

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# Once in a hundred runs UCX 1.13 ends itself by this assertion. A report to its makers has the same and suspects that an
# endpoint's number is used again while an acknowledgement for the last one is under way. Not proven here; so once a case
# group, and no more, it is tried again.
known_bug()
{
	[ ! -e "$TMP/again" ] && grep -q 'acked_psn=.* must be smaller than current_psn' "$TMP/out" && touch "$TMP/again"
}

# mpi TRANSPORTS RANKS PROGRAM...
mpi()
{
	local transports=$1 ranks=$2 before after
	shift 2
	[ -x "$1" ] || skip "no MPI where this was built"
	before=$(counter tx_packets)
	export UCX_TLS=$transports,self UCX_NET_DEVICES=flexins0:1
	until run mpirun --oversubscribe --bind-to none --mca pml ucx --mca osc ucx --mca btl ^openib,tcp,vader \
		-np "$ranks" "$@" >"$TMP/out" 2>&1; do
		known_bug && continue
		cat "$TMP/out"
		fail "$transports, $ranks ranks: $*"
	done
	after=$(counter tx_packets)
	grep -q "passed with $ranks ranks" "$TMP/out" || fail "it did not pass: $(cat "$TMP/out")"
	[ $((after - before)) -gt 1000 ] || fail "only $((after - before)) packets went through the core"
}

case_ud_2()
{
	mpi ud_v 2 "$HELPERS/mpi_check"
}

case_ud_4()
{
	mpi ud_v 4 "$HELPERS/mpi_check"
}

case_rc_2()
{
	mpi rc_v,ud_v 2 "$HELPERS/mpi_check"
}

case_rc_4()
{
	mpi rc_v,ud_v 4 "$HELPERS/mpi_check"
}
