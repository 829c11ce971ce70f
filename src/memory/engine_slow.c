/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The slow DMA engine: reaches application memory that no window maps, through /proc/PID/mem, on helper
 * threads.
 *
 * Room: memory. May use: memory/engine.h, memory/space.h, threads.
 *
 * An application decides how long an access to its memory takes (its page may sit behind a file system of its
 * own), so each address space has a helper thread of its own, which the others never wait for. An
 * engine (a worker) and a space meet in a lane: one ring of slots, filled and emptied by the worker in order,
 * worked off by the helper in order. A slot's state is the only thing that both write, and says who owns the
 * slot:
 *
 *   FREE -> QUEUED       worker: the descriptor is in it
 *   QUEUED -> COPY       helper: it touches the packet buffer
 *   COPY -> XFER         helper: it is in the system call, with a bounce buffer of its own
 *   XFER -> COPY         helper: back, and the packet buffer is still the descriptor's
 *   COPY -> DONE         helper: err is in it
 *   DONE -> FREE         worker: reported
 *   QUEUED, XFER -> GONE worker: the space closed; reported as an error, the buffer is no longer the helper's
 *
 * `depth` bounds the descriptors of one space, so that no application takes the places of another.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory/engine.h"
#include "memory/space.h"

enum {
	FX_IDLE_POLLS = 1024,
	FX_BOUNCE = 64 << 10,
	FX_HELPER_STACK = 256 << 10,
	FX_RUN = 16, /* descriptors worked off before the worker is told, if there are as many */
};

enum slot_state { FREE, QUEUED, COPY, XFER, DONE, GONE };

struct slot {
	_Atomic uint32_t state; /* enum slot_state */
	int err;
	uint64_t addr; /* the application's */
	struct fx_dma d;
};

struct fx_lane {
	struct fx_lane *next; /* of the space; written before it is published */
	struct fx_lane *peer; /* next of the engine; worker only */
	struct slow_engine *engine;
	struct fx_space *space;	    /* NULL: for descriptors that belong to none */
	_Atomic uint32_t refs;	    /* the engine's and the space's */
	_Atomic uint32_t abandoned; /* the engine has gone */
	_Atomic uint32_t calling;   /* the helper is in the engine's wake function */
	uint32_t head, tail;	    /* worker only: oldest not reported, next to fill */
	uint32_t run;		    /* helper only: next to work off */
	uint32_t depth, mask;
	bool due; /* worker only: the helper was not told of what is queued */
	struct slot slot[];
};

struct slow_engine {
	struct fx_dma_engine e;
	struct fx_lane *lanes;
	struct fx_lane *stray;
	uint32_t depth;
	uint32_t pending;
	uint32_t idle;
	bool due; /* some lane's helper was not told */
	void (*wake)(void *arg);
	void *arg;
};

static struct slot *slot_at(struct fx_lane *l, uint32_t i)
{
	return &l->slot[i & l->mask];
}

static bool state_is(struct slot *s, uint32_t from, uint32_t to)
{
	/* acq_rel: what the last owner wrote is seen by the next */
	return atomic_compare_exchange_strong_explicit(&s->state, &from, to, memory_order_acq_rel,
						       memory_order_acquire);
}

static void lane_put(struct fx_lane *l)
{
	/* acq_rel: the other side's last use comes before the free */
	if (atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) == 1)
		free(l);
}

/* ---- the helper thread ---- */

static void finish_slot(struct slot *t, int err)
{
	t->err = err;
	/* release: the bytes and err before the word that says so */
	atomic_store_explicit(&t->state, DONE, memory_order_release);
}

/* The same for an atomic, whose operands and result are in the packet's buffer. */
static bool run_atomic(struct fx_space *s, struct slot *t)
{
	uint64_t addr = t->addr;
	uint8_t op = t->d.op;
	struct fx_dma_atomic a;
	int err;

	memcpy(&a, t->d.local, sizeof(a));
	/* release: the packet buffer has been read before the worker may take it back */
	atomic_store_explicit(&t->state, XFER, memory_order_release);
	err = fx_space_atomic(s, addr, op, &a);
	if (!state_is(t, XFER, COPY))
		return false;
	memcpy(t->d.local, &a, sizeof(a));
	finish_slot(t, err);
	return true;
}

/* Works off a slot that is in COPY. False: the worker took it back meanwhile. */
static bool run_slot(struct fx_space *s, struct slot *t, uint8_t *bounce)
{
	uint32_t done = 0;
	int err = 0;

	while (done < t->d.len && !err) {
		size_t n = t->d.len - done < FX_BOUNCE ? t->d.len - done : FX_BOUNCE;
		uint64_t addr = t->addr + done;
		uint8_t *local = t->d.local + done;
		bool to_window = t->d.to_window;

		if (to_window)
			memcpy(bounce, local, n);
		/* release: the packet buffer has been read before the worker may take it back */
		atomic_store_explicit(&t->state, XFER, memory_order_release);
		err = t->d.lines ? fx_space_lines(s, bounce, addr, n, to_window)
				 : fx_space_transfer(s, bounce, addr, n, to_window);
		if (!state_is(t, XFER, COPY))
			return false;
		if (!err && !to_window)
			memcpy(local, bounce, n);
		done += (uint32_t)n;
	}
	finish_slot(t, err);
	return true;
}

static void call_wake(struct fx_lane *l)
{
	/* seq_cst, as in slow_destroy(): either it sees us calling and waits, or we see it abandoned */
	atomic_store(&l->calling, 1);
	atomic_thread_fence(memory_order_seq_cst); /* seq_cst: as in sleep_until_queued() */
	if (!atomic_load(&l->abandoned) && l->engine->wake)
		l->engine->wake(l->engine->arg);
	atomic_store(&l->calling, 0);
}

/* One descriptor of a lane. False: the worker took it back meanwhile. */
static bool run_one(struct fx_space *s, struct slot *t, uint8_t *bounce)
{
	bool done;

	s->serial += s->serial == UINT32_MAX ? 2 : 1;
	/* relaxed, both: only a number for fx_space_stall() */
	atomic_store_explicit(&s->transfer, s->serial, memory_order_relaxed);
	done = t->d.op ? run_atomic(s, t) : run_slot(s, t, bounce);
	atomic_store_explicit(&s->transfer, 0, memory_order_relaxed);
	return done;
}

/*
 * What a lane has, up to a run. True: there was something. The worker is told once for all of it: told of each, it would
 * take the CPU for one packet's worth of work, ask for one copy more and sleep, and so would we. A copy that stalls
 * behind finished ones keeps them no longer than a worker with copies under way sleeps at most.
 */
static bool run_lane(struct fx_space *s, struct fx_lane *l, uint8_t *bounce)
{
	unsigned done = 0, n = 0;

	for (; n < FX_RUN && state_is(slot_at(l, l->run), QUEUED, COPY); n++)
		done += run_one(s, slot_at(l, l->run++), bounce);
	if (done)
		call_wake(l);
	return n;
}

static bool any_queued(struct fx_space *s)
{
	for (struct fx_lane *l = atomic_load(&s->lanes); l; l = l->next)
		if (atomic_load(&slot_at(l, l->run)->state) == QUEUED)
			return true;
	return atomic_load(&s->closing);
}

static void sleep_until_queued(struct fx_space *s)
{
	/*
	 * seq_cst on both sides: we say that we sleep, then look for work; the worker publishes work, then
	 * looks whether we sleep. One of the two sees the other.
	 */
	atomic_store(&s->sleeping, 1);
	/* seq_cst: emulators of Arm let a later load overtake a store, of seq_cst operations too, but no fence */
	atomic_thread_fence(memory_order_seq_cst);
	if (!any_queued(s))
		syscall(SYS_futex, &s->sleeping, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
	atomic_store(&s->sleeping, 0);
}

static void wake_helper(struct fx_space *s)
{
	atomic_thread_fence(memory_order_seq_cst); /* seq_cst: the other half of sleep_until_queued() */
	if (atomic_load(&s->sleeping) && atomic_exchange(&s->sleeping, 0))
		syscall(SYS_futex, &s->sleeping, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *helper(void *arg)
{
	struct fx_space *s = arg;
	uint8_t *bounce = malloc(FX_BOUNCE);

	while (bounce && !atomic_load(&s->closing)) {
		bool busy = false;

		for (struct fx_lane *l = atomic_load(&s->lanes); l; l = l->next)
			busy |= run_lane(s, l, bounce);
		if (!busy)
			sleep_until_queued(s);
	}
	/* no memory, or closing: what is queued is failed by the worker's next poll */
	atomic_store(&s->closing, 1);
	free(bounce);
	fx_space_put(s);
	return NULL;
}

int fx_slow_start(struct fx_space *s)
{
	sigset_t all, old;
	pthread_attr_t attr;
	pthread_t t;
	int rc;

	if (s->helper)
		return 0;
	if (pthread_attr_init(&attr))
		return -EAGAIN;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, FX_HELPER_STACK);
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed); /* relaxed: we hold one already */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* inherited: signals are for the other threads */
	rc = pthread_create(&t, &attr, helper, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	s->helper = !rc;
	if (rc)
		fx_space_put(s);
	return rc ? -EAGAIN : 0;
}

void fx_slow_stop(struct fx_space *s)
{
	atomic_store(&s->closing, 1);
	wake_helper(s);
}

void fx_slow_free(struct fx_space *s)
{
	struct fx_lane *l = atomic_load(&s->lanes);

	while (l) {
		struct fx_lane *next = l->next;

		lane_put(l);
		l = next;
	}
}

uint32_t fx_space_stall(const struct fx_space *s)
{
	/* relaxed: nothing else is read on the strength of it */
	return atomic_load_explicit(&s->transfer, memory_order_relaxed);
}

/* ---- the worker ---- */

static struct fx_lane *lane_new(struct slow_engine *e, struct fx_space *s)
{
	uint32_t size = 1;
	struct fx_lane *l;

	while (size < e->depth)
		size *= 2;
	l = calloc(1, sizeof(*l) + size * sizeof(l->slot[0]));
	if (!l)
		return NULL;
	l->engine = e;
	l->space = s;
	l->depth = e->depth;
	l->mask = size - 1;
	atomic_store(&l->refs, s ? 2 : 1);
	if (s) {
		/* relaxed: the window that led us here holds a reference */
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
		l->next = atomic_load(&s->lanes);
		while (!atomic_compare_exchange_weak(&s->lanes, &l->next, l))
			;
	}
	l->peer = e->lanes;
	e->lanes = l;
	return l;
}

static struct fx_lane *lane_of(struct slow_engine *e, struct fx_space *s)
{
	struct fx_lane *l;

	for (l = e->lanes; l && l->space != s; l = l->peer)
		;
	return l ? l : lane_new(e, s);
}

/*
 * Can the helper run it? The kernel checks no rights: it would write even to memory that the application may
 * not.
 */
static int check(const struct fx_dma *d)
{
	const uint32_t writable = FX_ACC_LOCAL_WRITE | FX_ACC_REMOTE_WRITE | FX_ACC_REMOTE_ATOMIC;
	const struct fx_window *w = d->mr ? d->mr->slow : NULL;

	/* a region that is all mapped has no helper */
	if (!w || d->mr->base || !fx_mr_covers(d->mr, d->va, d->len))
		return -EFAULT;
	if (atomic_load(&w->space->closing))
		return -ESRCH;
	return d->to_window && !(d->mr->access & writable) ? -EACCES : 0;
}

/* Fills the next slot of the right lane. False: no room, or no memory. */
static bool enqueue(struct slow_engine *e, const struct fx_dma *d)
{
	int err = d->len ? check(d) : 0;
	bool stray = err || !d->len;
	const struct fx_window *w = stray ? NULL : d->mr->slow;
	struct fx_lane *l = stray ? e->stray : lane_of(e, w->space);
	struct slot *t;

	if (!l || l->tail - l->head >= l->depth)
		return false;
	t = slot_at(l, l->tail++);
	t->d = *d;
	t->err = err;
	e->pending++;
	if (stray) {
		/* relaxed: no thread but this one looks at a lane without a space */
		atomic_store_explicit(&t->state, DONE, memory_order_relaxed);
		return true;
	}
	t->addr = w->addr + (d->va - d->mr->iova);
	/* seq_cst: the descriptor before the word that announces it; and see sleep_until_queued() */
	atomic_store(&t->state, QUEUED);
	l->due = e->due = true;
	return true;
}

static unsigned slow_submit(struct fx_dma_engine *base, const struct fx_dma *d, unsigned n)
{
	struct slow_engine *e = (struct slow_engine *)base;
	unsigned i;

	for (i = 0; i < n && enqueue(e, &d[i]); i++)
		;
	return i;
}

/* Telling a helper costs a system call, and it would be through with one copy before we have the next ready. */
static void slow_flush(struct fx_dma_engine *base)
{
	struct slow_engine *e = (struct slow_engine *)base;

	if (!e->due)
		return;
	e->due = false;
	for (struct fx_lane *l = e->lanes; l; l = l->peer) {
		if (l->due)
			wake_helper(l->space);
		l->due = false;
	}
}

static bool lane_closing(const struct fx_lane *l)
{
	return !l->space || atomic_load(&l->space->closing);
}

/* Takes a slot back that the helper may or may not be at. False: it touches the buffer right now. */
static bool take_back(struct slot *t)
{
	return state_is(t, QUEUED, GONE) || state_is(t, XFER, GONE);
}

static unsigned poll_lane(struct fx_lane *l, struct fx_dma_done *out, unsigned max)
{
	unsigned n = 0;

	while (n < max && l->head != l->tail) {
		struct slot *t = slot_at(l, l->head);

		/* acquire: err and the bytes, after the word that announces them */
		if (atomic_load_explicit(&t->state, memory_order_acquire) == DONE) {
			out[n++] = (struct fx_dma_done){.cookie = t->d.cookie, .err = t->err};
			/* relaxed: the helper looks at the slot again only after the next QUEUED */
			atomic_store_explicit(&t->state, FREE, memory_order_relaxed);
		} else if (lane_closing(l) && take_back(t)) {
			out[n++] = (struct fx_dma_done){.cookie = t->d.cookie, .err = -ESRCH};
		} else {
			break;
		}
		l->head++;
	}
	return n;
}

/* Forgets a lane; `link` is where the engine keeps it. */
static void lane_drop(struct fx_lane **link)
{
	struct fx_lane *l = *link;

	*link = l->peer;
	atomic_store(&l->abandoned, 1); /* seq_cst, and the fence: see call_wake() */
	atomic_thread_fence(memory_order_seq_cst);
	while (atomic_load(&l->calling))
		;
	if (l->space)
		fx_space_put(l->space);
	lane_put(l);
}

static unsigned slow_poll(struct fx_dma_engine *base, struct fx_dma_done *out, unsigned max)
{
	struct slow_engine *e = (struct slow_engine *)base;
	struct fx_lane **link = &e->lanes, *l;
	unsigned n = 0;

	/* with nothing under way, look for closed spaces now and then */
	if (!e->pending && ++e->idle % FX_IDLE_POLLS)
		return 0;
	slow_flush(base);
	while (n < max && (l = *link)) {
		unsigned got = poll_lane(l, out + n, max - n);

		n += got;
		e->pending -= got;
		if (l->space && l->head == l->tail && lane_closing(l))
			lane_drop(link);
		else
			link = &l->peer;
	}
	return n;
}

static unsigned slow_pending(const struct fx_dma_engine *base)
{
	return ((const struct slow_engine *)base)->pending;
}

static bool slow_wakes(const struct fx_dma_engine *base)
{
	return ((const struct slow_engine *)base)->wake;
}

static void slow_destroy(struct fx_dma_engine *base)
{
	struct slow_engine *e = (struct slow_engine *)base;

	while (e->lanes) {
		struct fx_lane *l = e->lanes;

		for (; l->head != l->tail; l->head++) {
			struct slot *t = slot_at(l, l->head);

			while (atomic_load_explicit(&t->state, memory_order_acquire) != DONE && !take_back(t))
				; /* the helper copies a few KiB at most */
		}
		lane_drop(&e->lanes);
	}
	free(e);
}

static const struct fx_dma_ops slow_ops = {
	.name = "slow",
	.ordered = true, /* a lane is worked off in order, and a QP's memory is one application's */
	.submit = slow_submit,
	.flush = slow_flush,
	.poll = slow_poll,
	.pending = slow_pending,
	.wakes = slow_wakes,
	.destroy = slow_destroy,
};

struct fx_dma_engine *fx_dma_slow_create(unsigned depth, void (*wake)(void *arg), void *arg)
{
	struct slow_engine *e;

	if (!depth || depth > 1u << 16)
		return NULL;
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->e.ops = &slow_ops;
	e->depth = depth;
	e->wake = wake;
	e->arg = arg;
	e->stray = lane_new(e, NULL);
	if (!e->stray) {
		free(e);
		return NULL;
	}
	return &e->e;
}
