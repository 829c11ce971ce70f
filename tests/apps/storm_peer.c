/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process of a storm: its objects, and its turns until it is killed or the storm is over. Those of odd index sleep on
 * a completion channel when there is nothing to do.
 *
 * Room: tests. May use: verbs only.
 */
#include "storm.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { CQ_SIZE = 1024, BATCH = 16, NAP_MS = 2 };

struct peer me;

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void doing(const char *what, int link)
{
	atomic_store_explicit(&board->proc[me.index].doing, what, memory_order_relaxed);
	atomic_store_explicit(&board->proc[me.index].link, link, memory_order_relaxed);
}

void die(const struct side *s, const char *fmt, ...)
{
	static const char *const states[] = {"down", "offered", "accepted", "up", "flushing"};
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (s)
		printf("storm: process %u, life %u, link %u to process %u (%s, offer %u for %u, %lu under way): %s\n",
		       me.index, me.life, s->link, link_proc(s->link, !s->which), states[s->state], s->offer,
		       s->peer_offer, (unsigned long)(s->k - s->first), text);
	else
		printf("storm: process %u, life %u: %s\n", me.index, me.life, text);
	fflush(stdout);
	_exit(1);
}

unsigned side_index(const struct side *s)
{
	for (unsigned i = 0; i < me.sides; i++)
		if (me.side[i] == s)
			return i;
	die(s, "a link of nobody");
}

/* ---- objects ---- */

static void open_device(void)
{
	struct ibv_device **list;

	doing("ibv_open_device", -1);
	list = ibv_get_device_list(NULL);
	me.ctx = list && list[0] ? ibv_open_device(list[0]) : NULL;
	if (!me.ctx)
		die(NULL, "no device");
	ibv_free_device_list(list);
	me.pd = ibv_alloc_pd(me.ctx);
	if (!me.pd || ibv_query_gid(me.ctx, 1, 0, &me.gid))
		die(NULL, "no protection domain or no GID");
}

static void make_cqs(void)
{
	doing("ibv_create_cq", -1);
	if (me.index % 2) {
		me.channel = ibv_create_comp_channel(me.ctx);
		if (!me.channel || fcntl(me.channel->fd, F_SETFL, O_NONBLOCK))
			die(NULL, "no completion channel");
	}
	for (int i = 0; i < 2; i++) {
		me.cq[i] = ibv_create_cq(me.ctx, CQ_SIZE, NULL, me.channel, 0);
		if (!me.cq[i])
			die(NULL, "ibv_create_cq");
		if (me.channel && ibv_req_notify_cq(me.cq[i], 0))
			die(NULL, "ibv_req_notify_cq");
	}
}

static void make_source(void)
{
	doing("ibv_reg_mr of the source", -1);
	me.source = aligned_alloc(4096, BIGGEST + 4096);
	if (!me.source)
		die(NULL, "no memory");
	content_fill(me.source, mix(board->seed ^ mix((uint64_t)me.index << 32 | me.life)), 0, BIGGEST);
	memset(me.source + BIGGEST, 0, 8);
	me.source_mr = ibv_reg_mr(me.pd, me.source, BIGGEST + 8,
				  IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC);
	if (!me.source_mr)
		die(NULL, "ibv_reg_mr");
}

static void make_sides(void)
{
	for (unsigned link = 0; link < board->links; link++)
		for (unsigned which = 0; which < 2; which++)
			if (link_proc(link, which) == me.index) {
				me.side[me.sides] = side_new(link, which);
				if (!me.side[me.sides++])
					die(NULL, "no memory");
			}
}

/* ---- completions ---- */

static bool poll_all(void)
{
	struct ibv_wc wc[BATCH];
	bool any = false;

	for (int c = 0; c < 2; c++) {
		int n;

		doing("ibv_poll_cq", -1);
		n = ibv_poll_cq(me.cq[c], BATCH, wc);
		if (n < 0)
			die(NULL, "ibv_poll_cq: %d", n);
		for (int i = 0; i < n; i++) {
			unsigned index = wc[i].wr_id >> 1 & 0x7f;

			if (index >= me.sides || !me.side[index]->qp ||
			    wc[i].qp_num != me.side[index]->qp->qp_num)
				die(NULL, "a completion with wr_id %#lx of QP %#x",
				    (unsigned long)wc[i].wr_id, wc[i].qp_num);
			ops_completed(me.side[index], &wc[i]);
		}
		any |= n > 0;
	}
	return any;
}

/* As programs sleep: they armed, polled until nothing came, and wait for an event. */
static void nap(void)
{
	struct pollfd p = {.fd = me.channel->fd, .events = POLLIN};
	struct ibv_cq *cq;
	void *cookie;

	doing("sleeping", -1);
	if (poll(&p, 1, NAP_MS) <= 0 || ibv_get_cq_event(me.channel, &cq, &cookie))
		return;
	ibv_ack_cq_events(cq, 1);
	if (ibv_req_notify_cq(cq, 0))
		die(NULL, "ibv_req_notify_cq");
}

static void turn(void)
{
	bool any = poll_all();

	for (unsigned i = 0; i < me.sides; i++) {
		doing("a turn", (int)me.side[i]->link);
		any |= side_turn(me.side[i]);
	}
	atomic_fetch_add(&board->proc[me.index].turns, 1);
	if (any)
		return;
	if (me.channel)
		nap();
	else
		sched_yield();
}

/* ---- the end ---- */

static bool all_drained(void)
{
	for (unsigned i = 0; i < me.sides; i++)
		if (!side_drained(me.side[i]))
			return false;
	return true;
}

/* What peers that were killed, or broke a link, did not learn of, may have been done or not. */
static void check_counter(void)
{
	uint64_t value, done = board->proc[me.index].adds[me.life % LIVES].done,
			posted = board->proc[me.index].adds[me.life % LIVES].posted;

	memcpy(&value, me.source + BIGGEST, 8);
	if (value < done || value > posted)
		die(NULL, "its counter is %lu; %lu additions were posted, and %lu known to be done",
		    (unsigned long)value, (unsigned long)posted, (unsigned long)done);
}

static void close_all(void)
{
	for (unsigned i = 0; i < me.sides; i++)
		side_end(me.side[i]);
	doing("closing", -1);
	if (ibv_dereg_mr(me.source_mr) || ibv_destroy_cq(me.cq[0]) || ibv_destroy_cq(me.cq[1]) ||
	    (me.channel && ibv_destroy_comp_channel(me.channel)) || ibv_dealloc_pd(me.pd) ||
	    ibv_close_device(me.ctx))
		die(NULL, "closing failed");
}

void peer_run(unsigned index, uint32_t life)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	me.index = index;
	me.life = life;
	me.rnd = mix(board->seed ^ mix((uint64_t)index << 32 | life) ^ 1);
	open_device();
	make_cqs();
	make_source();
	make_sides();
	while (atomic_load(&board->stop) != END) {
		turn();
		if (atomic_load(&board->stop) == DRAIN)
			atomic_store(&board->proc[index].drained, all_drained());
	}
	check_counter();
	close_all();
	_exit(0);
}
