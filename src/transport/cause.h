/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Why a QP went to error, one list for the log, flexinsctl, vendor_err and the asynchronous event (IBTA 11.6.3).
 *
 * What a completion tells needs no event: the requester's errors end a send work request, and some of the responder's
 * a receive. Events are for what nobody would hear of otherwise.
 *
 * Room: transport. May use: nothing.
 */
#ifndef FX_TRANSPORT_CAUSE_H
#define FX_TRANSPORT_CAUSE_H

/* As enum ibv_event_type. */
enum fx_async {
	FX_ASYNC_CQ_ERR = 0,
	FX_ASYNC_QP_FATAL = 1,
	FX_ASYNC_QP_REQ_ERR = 2,
	FX_ASYNC_QP_ACCESS_ERR = 3,
	FX_ASYNC_COMM_EST = 4,
	FX_ASYNC_SQ_DRAINED = 5,
	FX_ASYNC_SRQ_ERR = 14,
	FX_ASYNC_SRQ_LIMIT = 15,
	FX_ASYNC_LAST_WQE = 16,
	FX_ASYNC_NONE = 255,
};

/* X(name, word for programs, asynchronous event, text) */
#define FX_CAUSE_LIST(X)                                                                                     \
	X(ASKED, "asked", NONE, "the application moved it there")                                            \
	/* at the requester: a send work request completes with it */                                        \
	X(NO_ANSWER, "no-answer", NONE, "retries exceeded: the peer does not answer")                        \
	X(SEQUENCE, "sequence", NONE, "retries exceeded: PSN sequence errors")                               \
	X(NO_RECEIVE, "no-receive", NONE, "the peer never posted a receive")                                 \
	X(PEER_INVALID, "peer-invalid-request", NONE, "the peer refused: invalid request")                   \
	X(PEER_ACCESS, "peer-access", NONE, "the peer refused: remote access error")                         \
	X(PEER_OPERATION, "peer-operation", NONE, "the peer refused: remote operational error")              \
	X(BAD_REQUEST, "bad-request", NONE, "a work request that cannot be sent")                            \
	X(BAD_LANDING, "bad-landing", NONE, "what was fetched may not land where it should")                 \
	X(LOST_SOURCE, "lost-source", NONE, "the memory that was to be sent is gone")                        \
	X(LOST_LANDING, "lost-landing", NONE, "the memory where something fetched lands is gone")            \
	/* at the responder: a receive completes with it */                                                  \
	X(RECEIVE_ROOM, "receive-room", NONE, "a message longer than its receive")                           \
	X(RECEIVE_MEMORY, "receive-memory", NONE, "a receive whose memory may not be written")               \
	/* at the responder, without a completion */                                                         \
	X(INVALID_REQUEST, "invalid-request", QP_REQ_ERR, "an invalid request of the peer was refused")      \
	X(ACCESS, "access", QP_ACCESS_ERR,                                                                   \
	  "a request of the peer without the right to its memory was refused")                               \
	X(XRC, "xrc", QP_REQ_ERR, "a request named an SRQ that is not, or no longer, in the XRC domain")     \
	X(LOST_MEMORY, "lost-memory", QP_FATAL, "the memory that a request of the peer was for is gone")     \
	/* of the QP as a whole */                                                                           \
	X(RECEIVE_ENTRY, "receive-entry", QP_FATAL, "an entry of the receive queue that contradicts itself") \
	X(OUT_OF_ORDER, "out-of-order", QP_FATAL,                                                            \
	  "a work request out of order or in a state that takes none")                                       \
	X(TOO_MANY, "too-many", QP_FATAL, "more work requests than max_send_wr")                             \
	X(NO_MEMORY, "no-memory", QP_FATAL, "no memory for work requests")                                   \
	X(CQ_OVERRUN, "cq-overrun", QP_FATAL, "one of its completion queues overran")

/* Above the syndromes of AETH, with which they share a byte of the CQE. */
enum fx_cause {
	FX_CAUSE_NONE,
	FX_CAUSE_BASE = 0x7f,
#define X(name, word, async, text) FX_CAUSE_##name,
	FX_CAUSE_LIST(X)
#undef X
		FX_CAUSE_END
};

/* The text and the word are never NULL. */
const char *fx_cause_text(enum fx_cause cause);
const char *fx_cause_word(enum fx_cause cause);
enum fx_async fx_cause_async(enum fx_cause cause);

#endif
