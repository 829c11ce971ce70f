/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Host and core on one machine: all rings of a context lie in an arena that both sides map, a sealed memfd. It is sparse:
 * its size is address space, and pages are taken by whoever touches them first.
 *
 * Room: control.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "control/inside.h"

struct fx_arena {
	int fd;
	uint8_t *map;
};

/* ---- the context ---- */

static void close_arena(struct fx_ctx *ctx)
{
	struct fx_arena *a = ctx->arena;

	if (!a)
		return;
	if (a->map)
		munmap(a->map, FX_ARENA_SIZE);
	if (a->fd >= 0)
		close(a->fd);
	free(a);
	ctx->arena = NULL;
}

static int make_arena(struct fx_arena *a)
{
	void *p;

	a->fd = memfd_create("flexins-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (a->fd < 0 || ftruncate(a->fd, (off_t)FX_ARENA_SIZE) < 0 ||
	    fcntl(a->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	p = mmap(NULL, FX_ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, a->fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	a->map = p;
	return 0;
}

/* The record is where the application looks for it: the byte follows at once. One that is awake needs none (EAGAIN). */
static void tell_at_once(struct fx_event_tx *t, int wake, const struct fx_cq *cq)
{
	(void)t;
	(void)cq;
	if (write(wake, "", 1) < 0)
		return;
}

static int open_arena(struct fx_ctx *ctx, struct fx_client *c)
{
	struct fx_arena *a = calloc(1, sizeof(*a));
	struct fx_wctx *w = ctx->wctx;
	int err = a ? make_arena(a) : -ENOMEM;

	(void)c;
	ctx->arena = a;
	if (err)
		return err;
	w->pipe = (struct fx_pipe_rx){.head = (struct fx_pipe_head *)(a->map + FX_PIPE_OFF),
				      .slots = a->map + FX_PIPE_OFF + sizeof(struct fx_pipe_head),
				      .shift = FX_PIPE_SHIFT};
	w->events = (struct fx_event_tx){
		.head = (struct fx_event_head *)(a->map + FX_EVENT_OFF),
		.ring = (struct fx_event *)(a->map + FX_EVENT_OFF + sizeof(struct fx_event_head)),
		.shift = FX_EVENT_SHIFT,
		.told = tell_at_once};
	return 0;
}

/*
 * The last descriptor gives a client a userfaultfd for its own memory (the ladder's race-free conversion); there may be
 * none.
 */
static void welcome(struct fx_ctx *ctx, struct fx_client *c)
{
	const int fds[] = {c->ctl->page_fd, ctx->arena->fd, ctx->wctx->kick, ctx->wake.ear};
	int uffd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	c->nfds = 0;
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		c->fds[c->nfds++] = fds[i];
	c->nkeep = c->nfds;
	if (uffd < 0)
		return;
	c->rep.hello_rep.have_uffd = 1;
	c->fds[c->nfds++] = uffd;
}

/* ---- rings ---- */

static int pipe_open(struct fx_ctx *ctx, struct fx_pipe_rx *pipe, uint64_t off, uint32_t shift)
{
	uint8_t *p = ctx->arena->map + off;

	*pipe = (struct fx_pipe_rx){
		.head = (struct fx_pipe_head *)p, .slots = p + sizeof(struct fx_pipe_head), .shift = shift};
	return 0;
}

static int cq_open(struct fx_ctx *ctx, struct fx_cq *cq, uint64_t off, uint32_t shift)
{
	uint8_t *p = ctx->arena->map + off;

	cq->head = (struct fx_cq_head *)p;
	cq->ring = (struct fx_cqe *)(p + sizeof(struct fx_cq_head));
	cq->shift = shift;
	return 0;
}

static void cq_close(struct fx_cq *cq)
{
	(void)cq;
}

static int rq_open(struct fx_ctx *ctx, struct fx_rxq *rx, uint64_t off)
{
	rx->ring.slots = ctx->arena->map + off;
	return 0;
}

static void rq_close(void *copy)
{
	(void)copy;
}

/* ---- wakes ---- */

/* Only our end does not block: the client's must, or not, as the client wants. */
static int wake_open(struct fx_ctx *ctx, struct fx_wake *w, uint32_t handle)
{
	int fd[2];

	(void)ctx;
	(void)handle;
	if (pipe2(fd, O_CLOEXEC) < 0)
		return -errno;
	*w = (struct fx_wake){.ring = fd[1], .ear = fd[0]};
	return fcntl(fd[1], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static void wake_close(struct fx_wake *w)
{
	if (w->ring >= 0)
		close(w->ring);
	if (w->ear >= 0)
		close(w->ear);
}

const struct fx_place_ops fx_place_shared = {
	.name = "local",
	.open = open_arena,
	.close = close_arena,
	.welcome = welcome,
	.pipe_open = pipe_open,
	.cq_open = cq_open,
	.cq_close = cq_close,
	.rq_open = rq_open,
	.rq_close = rq_close,
	.wake_open = wake_open,
	.wake_close = wake_close,
};
