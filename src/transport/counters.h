/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport's counters, one X-macro list: name and what it counts. Never a silent drop.
 *
 * Room: transport. May use: wire/roce.h (its drop reasons are counters too).
 */
#ifndef FX_TRANSPORT_COUNTERS_H
#define FX_TRANSPORT_COUNTERS_H

#include <stdint.h>

#include "wire/roce.h"

#define FX_COUNTER_LIST(X)                                                                                   \
	X(tx_packets, "packets handed to the port")                                                          \
	X(tx_bytes, "payload bytes in them")                                                                 \
	X(rx_packets, "packets taken from the port")                                                         \
	X(rx_bytes, "payload bytes placed or delivered")                                                     \
	X(tx_acks, "acknowledgements sent")                                                                  \
	X(tx_naks, "negative acknowledgements sent, RNR included")                                           \
	X(rx_acks, "acknowledgements taken")                                                                 \
	X(rx_naks, "negative acknowledgements taken, RNR included")                                          \
	X(tx_retransmits, "packets sent again")                                                              \
	X(timeouts, "retransmission timers that fired")                                                      \
	X(rnr_waits, "RNR timers started")                                                                   \
	X(rx_duplicates, "requests seen again")                                                              \
	X(rx_out_of_sequence, "requests ahead of the expected PSN, dropped")                                 \
	X(rx_unknown_qp, "packets for a QP number that is not there, dropped")                               \
	X(rx_wrong_state, "packets for a QP not ready to receive, dropped")                                  \
	X(rx_wrong_peer, "packets whose source is not the QP's peer, dropped")                               \
	X(rx_wrong_transport, "opcodes of another transport than the QP's, dropped")                         \
	X(rx_wrong_qkey, "datagrams whose Q_Key is not the QP's, dropped")                                   \
	X(rx_late, "UC packets that came when later ones had, dropped")                                      \
	X(rx_gaps, "gaps between UC packets; a message that has one is given up")                            \
	X(rx_rest, "UC packets of a message that was given up, dropped")                                     \
	X(rx_gsi, "packets for QP 1, the connection manager's, dropped")                                     \
	X(rx_mcast_copies, "datagrams to multicast groups, one for each QP in them")                         \
	X(rx_mcast_none, "datagrams to multicast groups that nobody is in, dropped")                         \
	X(rx_mcast_no_buffer, "of their copies those for which there was no buffer, dropped")                \
	X(rx_no_receive, "UC and UD messages dropped because no receive was posted")                         \
	X(rx_too_long, "UC and UD messages dropped because they are longer than their receive")              \
	X(rx_bad_length, "payload length does not fit opcode and MTU")                                       \
	X(rx_bad_ack, "acknowledgements for what was never sent, ignored")                                   \
	X(rx_bad_response, "READ responses that were not expected, dropped")                                 \
	X(rx_atomics, "atomics carried out for peers")                                                       \
	X(rx_atomic_forgotten, "atomics seen again whose result is not kept any more, dropped")              \
	X(rx_backlog, "packets dropped because too many of their QP or context wait for placement")          \
	X(rx_parked, "packets that waited for a fresh look at their receive queue")                          \
	X(rx_remote_access, "requests refused: key, bounds or rights")                                       \
	X(rx_invalid_request, "requests refused: not valid here")                                            \
	X(rx_invalidates, "memory windows that peers invalidated")                                           \
	X(rx_cnp, "congestion notifications taken")                                                          \
	X(cqe, "completions delivered")                                                                      \
	X(cqe_errors, "of these with an error status")                                                       \
	X(cq_overruns, "completions lost because a CQ was full")                                             \
	X(wqe, "send work requests taken")                                                                   \
	X(wqe_stale, "work requests for an earlier life of their QP, dropped")                               \
	X(wqe_bad, "work requests that contradict themselves or their QP")                                   \
	X(wqe_overrun, "work requests beyond the queue's size: their QP went to error")                      \
	X(mw_binds, "memory windows bound and unbound")                                                      \
	X(mw_invalidates, "memory windows that their own side invalidated")                                  \
	X(mw_errors, "of both, those that were refused")                                                     \
	X(rwqe_bad, "receive entries that contradict themselves")                                            \
	X(dma_errors, "copies that failed because the memory was gone")                                      \
	X(staged_packets, "packets gathered into one buffer before sending")                                 \
	X(sq_errors, "send queues of UC and UD QPs that stopped at an error")                                \
	X(qp_errors, "QPs that went to error by themselves")

struct fx_counters {
#define X(name, text) uint64_t name;
	FX_COUNTER_LIST(X)
#undef X
	uint64_t drop[FX_DROPS]; /* by enum fx_drop */
};

#endif
