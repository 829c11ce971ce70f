/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening and closing the device; whether the core still lives; what fork leaves of a context.
 *
 * Room: host. May use: all of it.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/fork.h"
#include "host/host.h"

static struct fx_context *contexts;
static pthread_mutex_t contexts_lock = PTHREAD_MUTEX_INITIALIZER;

bool flexins_owns_context(const struct ibv_context *c)
{
	return c && c->ops.poll_cq == flexins_poll_cq;
}

/* ---- life ---- */

static void rise(struct fx_context *ctx, int life)
{
	int was = __atomic_load_n(&ctx->life, __ATOMIC_RELAXED);

	/* acq_rel: whoever sees the new life (acquire) sees what was found out before it was raised */
	while (was < life && !__atomic_compare_exchange_n(&ctx->life, &was, life, false, __ATOMIC_ACQ_REL,
							  __ATOMIC_RELAXED))
		;
}

bool fx_look(struct fx_context *ctx)
{
	if (!fx_alive(ctx))
		return false;
	if (__atomic_load_n(&ctx->page->alive, __ATOMIC_ACQUIRE) &&
	    !ctx->conn.link->ops->hung_up(ctx->conn.link))
		return true;
	rise(ctx, FX_GONE);
	return false;
}

void fx_lost(struct fx_context *ctx)
{
	rise(ctx, FX_GONE);
}

int fx_ask(struct fx_context *ctx, void *req, size_t req_size, void *rep, size_t rep_size, struct fx_fds *fds)
{
	int err = fx_alive(ctx) ? fx_call(&ctx->conn, req, req_size, rep, rep_size, fds) : -ENODEV;

	if (ctx->conn.broken)
		rise(ctx, FX_GONE);
	return err;
}

int fx_ask_drop(struct fx_context *ctx, uint16_t op, uint32_t handle)
{
	struct fx_handle_req req = {.head = {.op = op}, .handle = handle};
	struct fx_msg_head rep;

	return fx_ask(ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
}

uint32_t fx_pipe_pi(struct fx_context *ctx)
{
	uint32_t pi;

	fx_lock(&ctx->pipe.lock);
	pi = ctx->pipe.tx.pi;
	fx_unlock(&ctx->pipe.lock);
	return pi;
}

static void tell_links(enum fx_fork_time when)
{
	for (struct fx_context *c = contexts; c; c = c->next)
		c->conn.link->ops->fork(c->conn.link, when);
}

/*
 * The child shares the parent's rings and socket and must touch neither: to it the core is gone. Locks that other
 * threads held in the parent stay as they were, as with any library. Our own memory may have been converted, as part of
 * somebody's pages: that comes first.
 */
static void forked(void)
{
	fx_fork_child();
	for (struct fx_context *c = contexts; c; c = c->next)
		rise(c, FX_FORKED);
	tell_links(FX_FORK_CHILD);
	pthread_mutex_unlock(&contexts_lock);
}
static void before_fork(void)
{
	pthread_mutex_lock(&contexts_lock);
	tell_links(FX_FORK_BEFORE);
	fx_fork_before();
}
static void after_fork(void)
{
	fx_fork_parent();
	tell_links(FX_FORK_PARENT);
	pthread_mutex_unlock(&contexts_lock);
}
/* As early as can be: the last before a fork and the first after it, and the program's own handlers find all in place. */
__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork, forked);
}

/* ---- opening ---- */

static bool inside(uint64_t off, uint64_t bytes, const struct fx_hello_rep *rep)
{
	return !(off % FX_LINE) && off <= rep->heap_off && bytes <= rep->heap_off - off;
}

static bool layout_ok(const struct fx_hello_rep *rep)
{
	return rep->workers >= 1 && rep->pipe_shift < 28 && rep->event_shift < 28 &&
	       1u << rep->pipe_shift >= FX_MAX_SQ_SLOTS && rep->heap_off < rep->arena_size &&
	       inside(rep->pipe_off, FX_LINE + ((uint64_t)FX_SLOT_SIZE << rep->pipe_shift), rep) &&
	       inside(rep->event_off, FX_LINE + ((uint64_t)sizeof(struct fx_event) << rep->event_shift), rep);
}

static void set_rings(struct fx_context *ctx, const struct fx_hello_rep *rep)
{
	uint8_t *arena = ctx->arena.base;

	ctx->pipe.tx.head = (struct fx_pipe_head *)(arena + rep->pipe_off);
	ctx->pipe.tx.slots = arena + rep->pipe_off + FX_LINE;
	ctx->pipe.tx.shift = rep->pipe_shift;
	ctx->events.head = (struct fx_event_head *)(arena + rep->event_off);
	ctx->events.ring = (const struct fx_event *)(arena + rep->event_off + FX_LINE);
	ctx->events.shift = rep->event_shift;
}

/* Takes over the handshake's descriptors. */
static int attach(struct fx_context *ctx, const struct fx_hello_rep *rep, struct fx_fds *fds)
{
	struct fx_link *link = ctx->conn.link;
	struct fx_attached a;
	int err = layout_ok(rep) ? link->ops->attach(link, rep, fds, &a) : -EPROTO;

	if (err)
		return err;
	ctx->page = a.page;
	ctx->verbs.context.async_fd = ctx->wake.fd = a.wake;
	ctx->by_dma = rep->remote;
	if (!ctx->by_dma)
		fx_windows_init(a.uffd); /* takes it over */
	ctx->bounce = !ctx->by_dma && !fx_windows_helper();
	ctx->pid = getpid();
	ctx->id = rep->ctx;
	ctx->limits = rep->limits;
	memcpy(ctx->core, rep->core, FX_VERSION_LEN);
	memcpy(ctx->version, rep->version, FX_VERSION_LEN);
	err = fx_arena_init(&ctx->arena, a.arena, rep->arena_size, rep->heap_off, a.discard);
	if (err)
		close(a.wake);
	else
		set_rings(ctx, rep);
	return err;
}

/* Before the connection is closed, and the arena's memory with it. */
static void detach(struct fx_context *ctx)
{
	if (ctx->verbs.context.cmd_fd >= 0)
		close(ctx->verbs.context.cmd_fd);
	close(ctx->wake.fd);
	free(ctx->async);
	fx_arena_fini(&ctx->arena);
}

/* Operations of struct verbs_context that are NULL are EOPNOTSUPP: so its public accessors say. */
static void set_ops(struct fx_context *ctx)
{
	struct ibv_context *c = &ctx->verbs.context;
	long cpus = sysconf(_SC_NPROCESSORS_CONF);

	ctx->verbs.sz = sizeof(ctx->verbs);
	ctx->verbs.query_port = flexins_query_port;
	ctx->verbs.query_device_ex = flexins_query_device_ex;
	ctx->verbs.create_qp_ex = flexins_create_qp_ex;
	ctx->verbs.create_srq_ex = flexins_create_srq_ex;
	ctx->verbs.get_srq_num = flexins_get_srq_num;
	ctx->verbs.open_xrcd = flexins_open_xrcd;
	ctx->verbs.open_qp = flexins_open_qp;
	ctx->verbs.close_xrcd = flexins_close_xrcd;
	ctx->verbs.create_cq_ex = flexins_create_cq_ex;
	ctx->verbs.modify_cq = flexins_modify_cq;
	ctx->verbs.alloc_td = flexins_alloc_td;
	ctx->verbs.dealloc_td = flexins_dealloc_td;
	ctx->verbs.alloc_parent_domain = flexins_alloc_parent_domain;
	ctx->verbs.query_rt_values = flexins_query_rt_values;
	c->abi_compat = __VERBS_ABI_IS_EXTENDED;
	c->device = &ctx->device->dev;
	c->ops.poll_cq = flexins_poll_cq;
	c->ops.req_notify_cq = flexins_req_notify_cq;
	c->ops.post_send = flexins_post_send;
	c->ops.post_recv = flexins_post_recv;
	c->ops.post_srq_recv = flexins_post_srq_recv;
	c->ops.alloc_mw = flexins_alloc_mw;
	c->ops.bind_mw = flexins_bind_mw;
	c->ops.dealloc_mw = flexins_dealloc_mw;
	c->ops._compat_query_device = flexins_query_device;
	c->cmd_fd = fx_import_fd(); /* without one it cannot be imported, and that is all */
	c->num_comp_vectors = cpus > 1 ? (int)cpus : 1; /* programs pass a CPU's index */
	pthread_mutex_init(&c->mutex, NULL);
}

static void banner(struct fx_context *ctx)
{
	static bool told;
	const char *wanted = getenv("FLEXINS_BANNER");
	char gid[INET6_ADDRSTRLEN] = "none";
	uint32_t best = 0;

	if (!wanted || strcmp(wanted, "1") != 0 || __atomic_exchange_n(&told, true, __ATOMIC_RELAXED))
		return;
	/* An IPv4 address is what people know their port by. */
	for (uint32_t i = ctx->port.gid_count; i-- > 0;)
		if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)ctx->port.gid[i].gid))
			best = i;
	if (ctx->port.gid_count)
		inet_ntop(AF_INET6, ctx->port.gid[best].gid, gid, sizeof(gid));
	fprintf(stderr, "flexins: device %s, GID %u %s, core %s, %s\n", ctx->device->dev.name, best, gid,
		ctx->core, fx_windows_kind(ctx));
}

static void list_context(struct fx_context *ctx)
{
	pthread_mutex_lock(&contexts_lock);
	ctx->next = contexts;
	contexts = ctx;
	pthread_mutex_unlock(&contexts_lock);
}

/* false: somebody else has it open, too */
static bool unlist_context(struct fx_context *ctx)
{
	bool last;

	pthread_mutex_lock(&contexts_lock);
	last = ctx->shares == 0;
	if (!last)
		ctx->shares--;
	for (struct fx_context **p = &contexts; last && *p; p = &(*p)->next)
		if (*p == ctx) {
			*p = ctx->next;
			break;
		}
	pthread_mutex_unlock(&contexts_lock);
	return last;
}

struct fx_context *fx_context_share(int cmd_fd)
{
	struct fx_context *ctx;

	pthread_mutex_lock(&contexts_lock);
	for (ctx = contexts; ctx && !fx_import_same(cmd_fd, ctx->verbs.context.cmd_fd);)
		ctx = ctx->next;
	if (ctx)
		ctx->shares++;
	pthread_mutex_unlock(&contexts_lock);
	return ctx;
}

int fx_by_any_context(int (*ask)(struct fx_context *ctx, void *arg), void *arg)
{
	struct fx_context *ctx;
	int err = -ENOENT;

	pthread_mutex_lock(&contexts_lock);
	for (ctx = contexts; ctx && !fx_alive(ctx);)
		ctx = ctx->next;
	if (ctx)
		err = ask(ctx, arg);
	pthread_mutex_unlock(&contexts_lock);
	return err;
}

struct ibv_context *flexins_open_device(struct ibv_device *dev)
{
	struct fx_device *device = fx_device_of(dev);
	struct fx_context *ctx;
	struct fx_hello_rep rep;
	struct fx_fds fds;
	int err;

	if (!device)
		return fx_null(ENODEV);
	ctx = aligned_alloc(FX_LINE, (sizeof(*ctx) + FX_LINE - 1) / FX_LINE * FX_LINE);
	if (!ctx)
		return fx_null(ENOMEM);
	memset(ctx, 0, sizeof(*ctx));
	ctx->device = device;
	err = fx_conn_open(&ctx->conn, &rep, &fds);
	if (err)
		goto free_ctx;
	err = attach(ctx, &rep, &fds);
	if (err) {
		fx_why("the core's handshake makes no sense: %s", strerror(-err));
		fx_close_fds(&fds);
		goto close_conn;
	}
	pthread_mutex_init(&ctx->lock, NULL);
	set_ops(ctx);
	err = fx_port_refresh(ctx);
	if (err)
		goto detach;
	list_context(ctx);
	banner(ctx);
	return &ctx->verbs.context;

detach:
	detach(ctx);
close_conn:
	fx_conn_close(&ctx->conn);
free_ctx:
	free(ctx);
	return fx_null(err);
}

int flexins_close_device(struct ibv_context *c)
{
	struct fx_context *ctx = fx_context_of(c);

	if (!unlist_context(ctx))
		return 0;
	detach(ctx);
	fx_conn_close(&ctx->conn); /* the core reaps whatever was left */
	pthread_mutex_destroy(&ctx->lock);
	pthread_mutex_destroy(&c->mutex);
	free(ctx);
	return 0;
}
