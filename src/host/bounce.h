/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ways round the core's helper thread. What a request names of slow memory goes through memory that the core maps:
 * what is sent is copied when it is posted, what lands is copied when its completion is polled (guarantee W2).
 *
 * Room: host. May use: queue.h, the control protocol.
 *
 *	slow.c		the regions of which parts are slow, and copying from and to them
 *	pool.c		buffers that the core maps, of a protection domain
 *	bounce.c	which parts of a request go through them, and what becomes of them
 *
 * One-sided accesses of a peer to slow memory still go through the helper thread. So does everything for which there
 * is no room, or which is too large: a request that is left as it is works, slowly.
 */
#ifndef FX_HOST_BOUNCE_H
#define FX_HOST_BOUNCE_H

#include "host/host.h"

enum {
	FX_BOUNCE_POOL = 64 << 20, /* of a domain, sparse */
	FX_BOUNCE_SHIFT = 9,	   /* log2 of the smallest buffer */
	FX_BOUNCE_CLASSES = 8,
	FX_BOUNCE_MAX = 1 << (FX_BOUNCE_SHIFT + FX_BOUNCE_CLASSES - 1), /* slow bytes of a request */
};

/* ---- slow.c ---- */

/*
 * Of an SGE: the region, if parts of it are slow and the SGE lies in it and may be used so. Holds ctx->slow_lock from
 * before this call until it is done with the region.
 */
const struct fx_vmr *fx_slow_find(struct fx_vqp *qp, const struct ibv_sge *sge, bool land);
/* Whether the region's byte `off` is slow; cuts *len to where that changes. */
bool fx_slow_at(const struct fx_vmr *mr, uint64_t off, uint32_t *len);
/* False: that memory is not there, or is not what the copy needs. */
bool fx_slow_read(const struct fx_context *ctx, void *to, uint64_t addr, uint32_t len);
/* The same, and false as well if the region of that lkey is gone. */
bool fx_slow_write(struct fx_context *ctx, uint32_t lkey, uint64_t addr, const void *from, uint32_t len);

/* ---- pool.c ---- */

/* A part of a request that goes through a buffer. */
struct fx_piece {
	uint64_t addr; /* the application's */
	uint32_t len;
	uint32_t lkey; /* of its region */
	uint32_t skip; /* bytes of the message before it */
	uint32_t at;   /* where in the buffer */
};
struct fx_bounce {
	struct fx_bounce *next; /* of the free ones */
	uint8_t *data;
	uint32_t refs; /* requests that use it; under the pool's lock */
	uint8_t class; /* 1 << (FX_BOUNCE_SHIFT + class) bytes */
	uint8_t nland; /* pieces to be copied when it completes */
	uint8_t nloan; /* buffers of other requests that this one uses */
	struct fx_piece land[FX_MAX_SGE];
	struct fx_bounce *loan[FX_MAX_SGE];
};
struct fx_pool {
	struct fx_context *ctx;
	uint32_t lock; /* taken last */
	uint32_t mr, lkey;
	uint8_t *base;
	uint64_t used; /* bytes that have been given out at some time */
	struct fx_bounce *free[FX_BOUNCE_CLASSES];
};

/* The domain's pool, made if there is none; without memory there is none, and nothing bounces. */
void fx_pool_make(struct fx_vpd *pd);
/* Every request of the domain's QPs is over. */
void fx_pool_free(struct fx_vpd *pd);
/* A buffer of 1 to FX_BOUNCE_MAX bytes with one reference; NULL: there is no room. */
struct fx_bounce *fx_pool_get(struct fx_pool *p, uint32_t len);
/* Drops a reference, and with the last one the buffer's loans. Holds p->lock. */
void fx_pool_put(struct fx_pool *p, struct fx_bounce *b);

static inline struct fx_pool *fx_pool_of(const struct fx_vqp *qp)
{
	/* acquire: against the release of fx_pool_make() */
	return __atomic_load_n(&fx_pd_of(qp->qp.pd)->root->pool, __ATOMIC_ACQUIRE);
}

/* ---- bounce.c ---- */

/* Is there any slow memory? What is asked before every request; the rest only if so. */
static inline bool fx_bounces(const struct fx_context *ctx)
{
	/* relaxed: the application that posts memory knows its region, and so this thread sees the count */
	return __atomic_load_n(&ctx->nslow, __ATOMIC_RELAXED) != 0;
}

/* A request as it goes to the core instead of the application's. */
struct fx_detour {
	struct ibv_send_wr wr;
	struct ibv_sge sge[FX_MAX_SGE];
	uint8_t data[FX_MAX_INLINE];
};

/*
 * A checked request that will be the shadow queue's number `index`, under the queue's lock: *wr becomes the detour's
 * where that is better, and the shadow queue knows the buffer. 0; -ENOMEM: not before an earlier request has completed.
 */
int fx_bounce_source(struct fx_vqp *qp, uint32_t index, const struct ibv_send_wr **wr, struct fx_detour *d);
void fx_bounce_landing(struct fx_vqp *qp, uint32_t index, const struct ibv_send_wr **wr, bool atomic,
		       struct fx_detour *d);
/* Requests before `end` that were to be the next of the send queue, and are not posted after all. */
void fx_bounce_cancel(struct fx_vqp *qp, uint32_t end);
/* The same as a landing for the next receive; writes its SGEs into sge[FX_MAX_SGE] and returns how many. */
uint32_t fx_bounce_recv(struct fx_vqp *qp, const struct ibv_recv_wr *wr, struct fx_sge *sge);

/*
 * Before what a CQE retires is retired: copies what has landed and frees the buffers. False: the bytes of a request
 * before the CQE's own could not be copied. The CQE now tells of that one, and has to be seen again. Hold the CQ's
 * lock, or see to it that nobody else retires.
 */
bool fx_bounce_complete(struct fx_vqp *qp, struct fx_shadow *s, struct fx_cqe *c);
/* What ends with no completion of the core's, up to WQE counter `end`. */
void fx_bounce_drop(struct fx_vqp *qp, struct fx_shadow *s, uint32_t end);

#endif
