/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The oracle: what an application may expect of reliable connections, and nothing else.
 *
 * Room: tests/sim. May use: C11 only. It knows neither the transport nor its headers: it is told in plain
 * structures what was posted and what completed, writes the data itself by a formula from message numbers,
 * and looks at memory.
 *
 * A flow is one direction of a connection: the requester's send queue and the responder's receive queue.
 * All memory that a flow uses lies in slots that hold the poison byte except where a message is; so a byte
 * written where nothing should be, or after it should be, shows.
 */
#ifndef SIM_ORACLE_H
#define SIM_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

enum { OR_PIECES = 16, OR_POISON = 0xee };

enum or_op { OR_SEND, OR_SEND_IMM, OR_WRITE, OR_WRITE_IMM, OR_READ, OR_FETCH_ADD, OR_CMP_SWAP, OR_OPS };

struct or_piece {
	uint8_t *p;
	uint32_t len;
};

/* A stretch of poisoned memory with the pieces of one message in it. */
struct or_place {
	uint8_t *base; /* first byte and length of the slot */
	uint32_t size;
	uint32_t n;
	struct or_piece piece[OR_PIECES];
};

struct or_post {
	enum or_op op;
	uint32_t len;
	uint32_t imm;
	bool signaled, solicited, inlined;
	bool keep;	 /* a later post of this flow uses the same remote place */
	bool overwrite;	 /* WRITE: over the target of the post before */
	bool reread;	 /* READ: of what the last WRITE put there */
	bool forward;	 /* SEND, WRITE: of what the READ before fetches, behind a fence; same local place */
	bool keep_local; /* READ: the next post does */
	uint64_t compare_add, swap; /* atomics; their remote place is the flow's word */
	struct or_place local, remote;
};

struct or_cqe {
	uint32_t index;
	uint32_t status; /* as delivered; 0 is success */
	enum or_op op;	 /* what the completion says it was; receives: OR_SEND or OR_WRITE_IMM */
	uint32_t len;
	uint32_t imm;
	bool has_imm, solicited;
};

struct oracle;
struct or_flow;

struct oracle *or_create(void);
void or_destroy(struct oracle *o);
/* NULL, or what went wrong first. */
const char *or_failed(const struct oracle *o);
void or_fail(struct oracle *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Counters of the two queues begin at these. */
struct or_flow *or_flow(struct oracle *o, unsigned id, uint32_t sq_index, uint32_t rq_index);

/* Bytes become visible in order but for those of one packet of this length; 0: all in order. */
void or_grain(struct or_flow *f, uint32_t grain);

/* Memory of the flow, poisoned from now on. */
void or_arena(struct or_flow *f, uint8_t *base, uint32_t size);

/*
 * The one word of the flow, in an arena, that its atomics work on. It holds poison, and from then on what they did to
 * it, each once and in order. or_word: what it will hold after all that was posted.
 */
void or_set_word(struct or_flow *f, uint8_t *p);
uint64_t or_word(const struct or_flow *f);

/* Before the work request is handed to the transport: fills in its data. Returns the message number. */
uint64_t or_posted(struct or_flow *f, const struct or_post *p);
/* After it was: inline data was copied, so its source is overwritten at once. */
void or_taken(struct or_flow *f, uint64_t m);
void or_recv_posted(struct or_flow *f, const struct or_place *place);

/* Completions as the application polls them. Sources are overwritten here and now. */
void or_send_cqe(struct or_flow *f, const struct or_cqe *c);
void or_recv_cqe(struct or_flow *f, const struct or_cqe *c);

/* Messages whose send work request is over; all of them are retired in order. */
uint64_t or_retired(const struct or_flow *f);
uint64_t or_received(const struct or_flow *f);
/* True once nothing looks at the remote place of message m any more. */
bool or_remote_free(const struct or_flow *f, uint64_t m);

/* A program that polls memory: what it sees of WRITEs under way must be in order and whole. */
void or_watch(struct or_flow *f);

/* The end: everything completed, and all memory as it should be. */
void or_finish(struct or_flow *f);

#endif
