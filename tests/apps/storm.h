/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A storm of processes: what its processes share, and what its files know of one another.
 *
 *	storm.c		the parent: starts and kills, watches, counts
 *	storm_peer.c	a process: its objects, its turns
 *	storm_link.c	one end of a link: made, connected, broken, made again
 *	storm_ops.c	the plan of operations, posting, and checking what came of it
 *
 * A link joins two processes by a pair of RC queue pairs. Its ends find each other on the board, a piece of memory that
 * all processes share. An end that is ready makes an offer, numbered; two ends that are fresh accept each other's, and
 * each offer is accepted once only: when one end breaks, for whatever reason, both make new ones.
 *
 * Operation k of an offer follows from the seed, the link, the side, the offer and k, and so do the bytes that it
 * carries; the receiver makes the same plan and knows what has to come.
 *
 * Room: tests. May use: verbs only; it runs unmodified on any device.
 */
#ifndef STORM_H
#define STORM_H

#include <infiniband/verbs.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	MAX_PROCS = 16,
	HOPS = 3, /* links from process p to p + 1, p + 2, p + 4 */
	MAX_LINKS = MAX_PROCS * HOPS,
	MAX_ENDS = 2 * HOPS, /* of a process */
	LIVES = 1024,	     /* of a process, whose counts are kept apart */
	STATUSES = 32,

	BIGGEST = 1 << 20, /* bytes an operation */
	GUARD = 64,
	IMM_AREAS = 4, /* that writes with immediate take turns in */
	IMM_ROOM = BIGGEST / IMM_AREAS,
	HEAP = 4 * BIGGEST, /* where an end's operations begin and land */
	DEPTH = 16,	    /* operations under way */
	FLY = 2 * DEPTH,    /* room for them and a mark */
	RECVS = 4,
	SPLIT = 1 << 16, /* largest first piece of a receive buffer */
	INLINE = 200,
	SGES = 4,
	GAP = 64, /* between pieces */

	END_S = 20,	/* an operation ends within this, its peer being dead or alive */
	MEET_S = 60,	/* two ends that live find each other */
	SILENCE_S = 60, /* a process that does no turn for so long hangs */
};

/* ---- the board ---- */
struct end {
	_Atomic uint32_t next;	   /* last offer made; survives its processes */
	_Atomic uint32_t offer;	   /* 0: none */
	_Atomic uint32_t accepted; /* the peer's offer that this one is for; 0: fresh */
	_Atomic uint32_t verified; /* messages received */
	/* of the offer */
	_Atomic uint32_t life, qpn, psn, rkey, source_rkey;
	_Atomic uint64_t addr, source;
};

struct proc {
	_Atomic uint32_t life;	 /* 0: none yet */
	_Atomic uint32_t doomed; /* the last life that was killed, or will be at once */
	_Atomic bool drained;	 /* nothing is under way any more */
	/* for who watches */
	_Atomic(const char *) doing; /* a literal: the same address in every process */
	_Atomic int link;
	_Atomic uint64_t turns;
	struct {
		_Atomic uint64_t posted, done; /* additions to the counter of this life, by all peers */
	} adds[LIVES];
};

enum kind { SEND, SEND_IMM, WRITE, WRITE_IMM, READ, READ_SOURCE, FETCH_ADD, CMP_SWAP, COUNT, KINDS };
enum stop { RUN, DRAIN, END };

struct board {
	uint64_t seed;
	unsigned procs, links;
	_Atomic int stop; /* enum stop */
	_Atomic uint64_t ops[KINDS], bytes, received, errors[STATUSES], offers, registrations;
	struct proc proc[MAX_PROCS];
	struct end end[MAX_LINKS][2];
};
extern struct board *board;

static inline unsigned link_proc(unsigned link, unsigned side)
{
	return (link / HOPS + (side ? 1u << link % HOPS : 0)) % board->procs;
}

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static inline uint64_t rnd(uint64_t *state, uint64_t below)
{
	*state = mix(*state);
	return *state % below;
}

uint64_t now_ms(void);

/* ---- a process, storm_peer.c ---- */
struct side;
struct peer {
	unsigned index;
	uint32_t life;
	uint64_t rnd;
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel; /* NULL: it never sleeps */
	struct ibv_cq *cq[2];
	union ibv_gid gid;
	uint8_t *source; /* BIGGEST bytes to be read, then the counter */
	struct ibv_mr *source_mr;
	struct side *side[MAX_ENDS];
	unsigned sides;
};
extern struct peer me;

void peer_run(unsigned index, uint32_t life); /* does not return */
/* For who watches: what this process does, with which link (-1: none). */
void doing(const char *what, int link);
/* Prints what is wrong, and ends the process. */
_Noreturn void die(const struct side *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- one end, storm_link.c ---- */
struct op {
	enum kind kind;
	bool signaled, inlined, solicited;
	unsigned nsge;
	uint32_t len, off, imm;
};

struct flying {
	struct op op;
	uint64_t k, posted_ms;
	uint8_t *land;	    /* of what comes back */
	uint64_t want;	    /* hash or value of that */
	uint32_t heap_head; /* the heap is used up to here */
};

enum side_state { DOWN, OFFERED, ACCEPTED, UP, FLUSHING };

struct side {
	unsigned link, which; /* which of the link's two */
	enum side_state state;
	uint64_t since_ms; /* of the state */
	struct ibv_qp *qp;
	struct ibv_mr *mr, *target_mr;
	uint8_t *memory; /* the heap, then the receive buffers */
	unsigned target_off;
	uint8_t *target; /* guard, writes, guard, writes with immediate, guard, word */
	uint8_t *shadow; /* what the peer's writes area has to hold */
	uint32_t offer, peer_offer, peer_life;
	bool failed; /* an operation did */
	uint64_t broken_ms;
	/* sending */
	uint64_t k; /* next operation */
	struct flying fly[FLY];
	uint64_t first;	     /* oldest that flies, k being one past the newest */
	unsigned unsignaled; /* in a row */
	uint32_t heap_head, heap_tail;
	uint32_t messages;	   /* sent, that take a receive */
	uint64_t word, last_count; /* the peer's word; the last value seen of its counter */
	/* receiving */
	uint64_t recv_k; /* of the peer's plan */
	uint32_t recv_posted, recv_done;
	uint32_t split[RECVS];
};

enum { /* in side->target */
       WRITES_AT = GUARD,
       IMMS_AT = WRITES_AT + BIGGEST + GUARD,
       WORD_AT = IMMS_AT + BIGGEST + GUARD,
       TARGET_SIZE = WORD_AT + 8,
       RECV_SIZE = BIGGEST + SPLIT,
       MEMORY_SIZE = HEAP + RECVS * RECV_SIZE,
};

static inline struct end *own_end(const struct side *s)
{
	return &board->end[s->link][s->which];
}
static inline struct end *peer_end(const struct side *s)
{
	return &board->end[s->link][!s->which];
}

struct side *side_new(unsigned link, unsigned which);
/* One turn; -> whether it did something. */
bool side_turn(struct side *s);
/* No operation of it is under way, nor will be. */
bool side_drained(const struct side *s);
void side_end(struct side *s);
/* The peer has broken the link, or its process is killed. */
bool side_broken(const struct side *s);

/* ---- operations, storm_ops.c ---- */
void ops_start(struct side *s); /* of a new offer; its QP is in INIT */
bool ops_post(struct side *s);	/* the next one, if there is room */
void ops_mark(struct side *s);	/* one that is flushed, and so tells that all before it have ended */
void ops_completed(struct side *s, const struct ibv_wc *wc);
void ops_check_target(const struct side *s);
void content_fill(uint8_t *p, uint64_t key, uint64_t from, size_t len);

#define RECV_ID 1u /* low bits of wr_id: receive?, the side's index; then the offer, then a number */
static inline uint64_t wr_id(const struct side *s, unsigned index, bool recv, uint64_t k)
{
	return k << 32 | (uint64_t)(s->offer & 0xffffff) << 8 | index << 1 | recv;
}
unsigned side_index(const struct side *s);

#endif
