/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the mirror: transfers, and what each kind of ring knows of both of its sides.
 *
 * Room: mirror, private to it.
 *
 *	mirror.c	life of mirrors and contexts, transfers, the poll
 *	pull.c		send pipes and receive queues: from the host
 *	push.c		completion queues and event rings: to the host
 *	doze.c		contexts that are left alone until their host kicks
 */
#ifndef FX_MIRROR_INSIDE_H
#define FX_MIRROR_INSIDE_H

#include "mirror/mirror.h"

enum {
	FX_MOVES = 256,	      /* transfers under way, all rings together */
	FX_MOVE_BYTES = 2048, /* of one */
	FX_PULL_MAX = FX_MOVE_BYTES / FX_SLOT_SIZE,
	FX_PULL_MIN = 4,
	FX_PUSH_MAX = FX_MOVE_BYTES / FX_CQE_SIZE,
	FX_PUSH_FLIGHT = 8, /* writes of one ring under way */
	FX_CQ_SPARE = 1,    /* log2: how much larger the local copy of a CQ is */
};
static_assert(sizeof(struct fx_event) == FX_CQE_SIZE, "CQEs and events are pushed by the same code");

struct fx_move;
/* A transfer has ended: err 0, or the host's memory is gone. */
typedef void fx_moved(struct fx_mirror *m, struct fx_move *v, int err);

struct fx_move {
	struct fx_move *next; /* free ones */
	fx_moved *done;
	struct fx_mirror_ctx *ctx;
	void *ring;
	uint32_t index, n; /* entries */
	struct fx_dma d;
	_Alignas(FX_LINE) uint8_t buf[FX_MOVE_BYTES];
};

/* From the host: slots [have, ...) may have been written by now. */
struct fx_pull {
	uint8_t *local;
	uint64_t va;
	uint32_t shift;
	uint32_t have;		  /* first slot that is not known to be here */
	const uint32_t *consumed; /* first slot that is still needed here */
	uint32_t batch;
	uint32_t flight; /* 0 or 1 */
};

/* To the host. */
struct fx_push {
	const uint8_t *local;
	uint32_t local_shift, local_origin;
	uint32_t *local_ci; /* tells the local producer what has left */
	uint64_t head;	    /* the host's: its ci first */
	uint64_t va;
	uint32_t shift, origin;
	uint32_t moves;	    /* to another ring: what was looked up before one is of the old ring */
	const uint32_t *pi; /* produced here */
	uint32_t taken;	    /* of these: handed to the engine, or lost */
	uint32_t landed;    /* of these: all before it are with the host */
	uint32_t written;   /* the host's index of the next */
	uint32_t ci;	    /* last seen of the host's */
	uint32_t flight;
	uint32_t from[FX_PUSH_FLIGHT]; /* first entry of each write under way */
	bool looking, looked;	       /* at the host's ci; since the ring last seemed full */
	bool dead;		       /* overrun: nothing leaves any more */
};

struct fx_mirror_cq {
	struct fx_push push;
	struct fx_mirror_ctx *ctx;
	struct fx_cq *cq;
	struct fx_cq_head *head; /* the local copy: head and ring */
};

struct fx_mirror_rq {
	struct fx_pull pull;
	struct fx_mirror_ctx *ctx;
	void *owner;
	bool wanted; /* a look that has to begin after the one under way */
	struct fx_mirror_rq *next;
};

/* What goes with an event record: whom to wake, and behind which completions. */
struct fx_told {
	int wake;
	uint32_t index;
	struct fx_mirror_cq *after; /* NULL: none */
};

enum fx_doze { FX_AWAKE, FX_TELLING, FX_LAST_LOOK, FX_DOZING };

struct fx_mirror_ctx {
	struct fx_mirror_ctx *next; /* of the mirror's */
	struct fx_mirror_place at;
	void *owner;
	struct fx_pipe_rx *pipe;
	struct fx_event_tx *events;
	struct fx_pull pull;
	struct fx_push push;			    /* events */
	struct fx_told *told;			    /* beside the local records */
	struct fx_cq_out out;			    /* CQs with completions that have not left */
	uint32_t flight;			    /* transfers of it, its rings' included */
	uint32_t ci_told;			    /* of the pipe, to the host */
	bool dry;				    /* the last look at the pipe found nothing */
	bool telling_ci, telling_sleep, says_sleep; /* under way; what the host's page says */
	uint32_t nap;				    /* number of the last sleep that it was told of */
	bool attached, broken;
	uint8_t doze; /* enum fx_doze */
	bool kicked;
	uint64_t active;	  /* when an entry was last seen */
	uint64_t patience, dozed; /* how long after that it dozes off, and when it did */
	struct fx_pipe_head *pipe_mem;
	struct fx_event_head *event_mem;
};

struct fx_mirror {
	struct fx_mirror_cfg cfg;
	struct fx_mirror_ctx *ctxs;
	uint64_t now;
	uint32_t flight;
	uint32_t lost; /* events that a host had no room for */
	struct fx_move *free;
	struct fx_move *stuck, **stuck_tail;	  /* that the engine had no room for, oldest first */
	struct fx_mirror_rq *looks, **looks_tail; /* that wait for a transfer */
	struct fx_move move[FX_MOVES];
};

/* ---- mirror.c ---- */
/* A free transfer of the context, or NULL: later. */
struct fx_move *fx_move_get(struct fx_mirror *m, struct fx_mirror_ctx *x, void *ring, fx_moved *done);
void fx_move_start(struct fx_mirror *m, struct fx_move *v, uint64_t va, uint32_t len, bool to_host);
void fx_ctx_broken(struct fx_mirror *m, struct fx_mirror_ctx *x);

/* ---- pull.c ---- */
/* Begins a read of the next slots, if there can be any and none is under way. */
bool fx_pull_start(struct fx_mirror *m, struct fx_mirror_ctx *x, struct fx_pull *p, void *ring,
		   fx_moved *done);
/* Takes over what arrived whole; returns how many slots. */
uint32_t fx_pull_take(struct fx_pull *p, const struct fx_move *v);
void fx_pull_pipe(struct fx_mirror *m, struct fx_mirror_ctx *x);
void fx_pull_looks(struct fx_mirror *m);

/* ---- push.c ---- */
void fx_push_ctx(struct fx_mirror *m, struct fx_mirror_ctx *x);
/* Nothing of it leaves any more: its CQs are in no list, and may go. */
void fx_push_drop(struct fx_mirror_ctx *x);
void fx_push_told(struct fx_event_tx *t, int wake, const struct fx_cq *cq);

/* ---- doze.c ---- */
void fx_doze_turn(struct fx_mirror *m, struct fx_mirror_ctx *x);

#endif
