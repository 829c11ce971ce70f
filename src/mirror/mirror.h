/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rings whose other side is in memory that only DMA reaches: the worker works on local copies, and this room keeps
 * them and the host's alike.
 *
 * Room: mirror. May use: pipe, transport/dma.h, transport/mr.h. Pure C: no DPDK, no sockets, no clock (time is
 * passed in), no allocation but when something is made. What makes a context or a ring runs on the control thread;
 * everything that takes a struct fx_mirror runs on the worker that owns it.
 *
 *	send pipe	pulled: the next slots are read again and again, as long as the host writes; a context that has been
 *			idle for a while dozes: its host is told to kick (guarantee S3), then one last look is taken
 *	receive queue	pulled when the transport asks for a fresh look (guarantee P9)
 *	completions	pushed: a write for each run of CQEs; a full ring is believed only after a fresh look at the
 *			host's index (guarantee P10)
 *	events		pushed behind the CQEs that they tell of; the wake goes out when the record is there
 *
 * The engine reads and writes aligned lines of 64 bytes at once (struct fx_dma, lines), as a bus does: so a slot whose
 * phase is new is new as a whole. It may finish in any order: a consumer takes entries in theirs. A host that is gone
 * or lies about an index breaks its own context only.
 *
 * Where a context's rings are the host's own there is nothing to mirror: the functions for the worker take NULL for what
 * would be a copy, and have nothing to do for it.
 */
#ifndef FX_MIRROR_MIRROR_H
#define FX_MIRROR_MIRROR_H

#include "pipe/ring.h"
#include "transport/dma.h"
#include "transport/mr.h"

struct fx_mirror;
struct fx_mirror_ctx;
struct fx_mirror_cq;
struct fx_mirror_rq;

struct fx_mirror_env {
	void *arg;
	/* The look that fx_mirror_look() asked for is over: the next entry is here, or the host had not posted it by then. */
	void (*looked)(void *arg, void *owner);
	/* The host has a CQ full of completions and one more has come: it is in error now. */
	void (*overrun)(void *arg, struct fx_cq *cq);
	/* A record is in the host's event ring: tell it, by the descriptor that fx_event_tx.told was given. */
	void (*wake)(void *arg, int wake);
	/* The context's memory is gone, or its indices cannot be. Told once. */
	void (*broken)(void *arg, void *owner);
};

struct fx_mirror_cfg {
	struct fx_dma_engine *engine; /* of its own: completions never mix with others' */
	uint32_t worker;
	uint64_t doze_ns; /* a context without entries for so long is left alone until its host kicks */
	/* ... or for longer, up to this, where kicks came soon after; not above doze_ns: always the same */
	uint64_t doze_most_ns;
	struct fx_mirror_env env;
};

struct fx_mirror *fx_mirror_create(const struct fx_mirror_cfg *cfg);
void fx_mirror_destroy(struct fx_mirror *m); /* after its engine has ended */

/* Where a context's rings are, in the iova space of `mem`. */
struct fx_mirror_place {
	const struct fx_mr *mem;
	uint64_t page;	/* struct fx_core_page */
	uint64_t pipe;	/* struct fx_pipe_head, then slots */
	uint64_t event; /* struct fx_event_head, then records */
	uint32_t pipe_shift, event_shift;
};

/* ---- control thread; NULL or -ENOMEM for want of memory ---- */

/* Sets *pipe and *events up on the local copies. `owner` comes back in env.broken. */
struct fx_mirror_ctx *fx_mirror_ctx_new(const struct fx_mirror_place *at, struct fx_pipe_rx *pipe,
					struct fx_event_tx *events, void *owner);
void fx_mirror_ctx_free(struct fx_mirror_ctx *x);
/* A CQ at `va` (head, then 1 << shift CQEs): fills in head, ring, shift and out of *cq. */
struct fx_mirror_cq *fx_mirror_cq_new(struct fx_mirror_ctx *x, uint64_t va, uint32_t shift, struct fx_cq *cq);
void fx_mirror_cq_free(struct fx_mirror_cq *c);
/* A receive queue at `va`: fills in slots of *rq, whose shift and stride are set. `owner` comes back in env.looked. */
struct fx_mirror_rq *fx_mirror_rq_new(struct fx_mirror_ctx *x, uint64_t va, struct fx_rq *rq, void *owner);
void fx_mirror_rq_free(struct fx_mirror_rq *r);

/* ---- worker ---- */

void fx_mirror_attach(struct fx_mirror *m, struct fx_mirror_ctx *x, uint64_t now);
/* Nothing new is begun for it. It may be freed once fx_mirror_ctx_idle(). */
void fx_mirror_detach(struct fx_mirror *m, struct fx_mirror_ctx *x);
bool fx_mirror_ctx_idle(const struct fx_mirror_ctx *x);
/* All that was pushed is with the host, or never will be: the host may use the memory again. */
bool fx_mirror_cq_idle(const struct fx_mirror_cq *c);
/*
 * From now on its CQEs go to the ring of `to`, made for another struct fx_cq and freed afterwards, with the old copy. The
 * host's index stands at ci. *end: of the first CQE in the new ring. -EINVAL: the new one is too small for what is
 * outstanding, or ci cannot be.
 */
int fx_mirror_cq_move(struct fx_mirror_cq *c, struct fx_mirror_cq *to, uint32_t ci, uint32_t *end);
bool fx_mirror_rq_idle(const struct fx_mirror_rq *r);

/* The host says that there is something in its pipe. */
void fx_mirror_kick(struct fx_mirror_ctx *x);
/* Asks for a look at the receive queue that begins now or later; false: there is no copy, so it shows all there is. */
bool fx_mirror_look(struct fx_mirror *m, struct fx_mirror_rq *r);
/* Its owner has begun a new life further on: what was not read before is not valid any more. */
void fx_mirror_rq_moved(struct fx_mirror_rq *r);

/* Collects what has arrived, begins what is due. Returns how many transfers it saw end. */
unsigned fx_mirror_poll(struct fx_mirror *m, uint64_t now);
/* Nothing is under way or due, and every host knows that it has to kick: the worker may sleep. */
bool fx_mirror_quiet(const struct fx_mirror *m);

#endif
