/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One end of a link: made, connected, broken, made again, in one of several ways each time.
 *
 * Room: tests. May use: verbs only.
 */
#include "storm.h"

#include <stdlib.h>

enum { TIMEOUT = 14, RETRIES = 7, OFTEN = 4, SELDOM = 3000 }; /* 67 ms, so many times */

#define ACCESS                                                                                               \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

static void enter(struct side *s, enum side_state state)
{
	s->state = state;
	s->since_ms = now_ms();
}

bool side_broken(const struct side *s)
{
	const struct proc *peer = &board->proc[link_proc(s->link, !s->which)];

	return atomic_load(&peer_end(s)->offer) != s->peer_offer ||
	       atomic_load(&peer->doomed) >= s->peer_life;
}

/* ---- memory ---- */

static struct ibv_mr *reg(struct side *s, void *p, size_t size, int access)
{
	struct ibv_mr *mr;

	doing("ibv_reg_mr", (int)s->link);
	mr = ibv_reg_mr(me.pd, p, size, access);
	if (!mr)
		die(s, "ibv_reg_mr");
	atomic_fetch_add(&board->registrations, 1);
	return mr;
}

static void dereg(struct side *s, struct ibv_mr **mr)
{
	doing("ibv_dereg_mr", (int)s->link);
	if (*mr && ibv_dereg_mr(*mr))
		die(s, "ibv_dereg_mr");
	*mr = NULL;
}

/* Registered anew now and then; the peer's part begins anywhere in a page, on eight bytes. */
static void make_memory(struct side *s)
{
	if (s->mr && rnd(&me.rnd, 3) == 0)
		dereg(s, &s->mr);
	if (s->target_mr && rnd(&me.rnd, 3) == 0) {
		dereg(s, &s->target_mr);
		free(s->target - s->target_off);
		s->target = NULL;
	}
	if (!s->target) {
		s->target_off = 8 * (unsigned)rnd(&me.rnd, 512);
		s->target = malloc(s->target_off + TARGET_SIZE);
		if (!s->target)
			die(s, "no memory");
		s->target += s->target_off;
	}
	if (!s->mr)
		s->mr = reg(s, s->memory, MEMORY_SIZE, IBV_ACCESS_LOCAL_WRITE);
	if (!s->target_mr)
		s->target_mr = reg(s, s->target, TARGET_SIZE, ACCESS);
}

/* ---- states of the QP ---- */

static void modify(struct side *s, struct ibv_qp_attr *a, int mask)
{
	static const char *const what[] = {"ibv_modify_qp to RESET",
					   "ibv_modify_qp to INIT",
					   "ibv_modify_qp to RTR",
					   "ibv_modify_qp to RTS",
					   "",
					   "",
					   "ibv_modify_qp to ERR"};
	int err;

	doing(what[a->qp_state], (int)s->link);
	err = ibv_modify_qp(s->qp, a, mask);
	if (err)
		die(s, "%s: %s", what[a->qp_state], strerror(err));
}

static void to(struct side *s, enum ibv_qp_state state)
{
	modify(s, &(struct ibv_qp_attr){.qp_state = state}, IBV_QP_STATE);
}

static void to_init(struct side *s)
{
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = ACCESS};

	modify(s, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

static void connect_to(struct side *s, uint32_t qpn, uint32_t psn, uint32_t own_psn)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_256 + s->link % 5,
		.dest_qp_num = qpn,
		.rq_psn = psn,
		.sq_psn = own_psn,
		.max_dest_rd_atomic = 4,
		.max_rd_atomic = 4,
		.min_rnr_timer = 12,
		.timeout = TIMEOUT,
		.retry_cnt = RETRIES,
		.rnr_retry = 7,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 1, .dgid = me.gid}}};

	modify(s, &a,
	       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
		       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	a.qp_state = IBV_QPS_RTS;
	modify(s, &a,
	       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
		       IBV_QP_MAX_QP_RD_ATOMIC);
}

static void make_qp(struct side *s)
{
	struct ibv_qp_init_attr a = {.qp_type = IBV_QPT_RC,
				     .send_cq = me.cq[s->link % 2],
				     .recv_cq = me.cq[rnd(&me.rnd, 2)],
				     .cap = {.max_send_wr = DEPTH + 1,
					     .max_recv_wr = RECVS,
					     .max_send_sge = SGES,
					     .max_recv_sge = 2,
					     .max_inline_data = INLINE}};

	if (s->qp)
		return;
	doing("ibv_create_qp", (int)s->link);
	s->qp = ibv_create_qp(me.pd, &a);
	if (!s->qp)
		die(s, "ibv_create_qp");
}

/* ---- together ---- */

static void make_offer(struct side *s)
{
	struct end *e = own_end(s);

	make_qp(s);
	make_memory(s);
	to_init(s);
	s->offer = atomic_fetch_add(&e->next, 1) + 1;
	s->peer_offer = 0;
	s->broken_ms = 0;
	ops_start(s);
	atomic_store(&e->life, me.life);
	atomic_store(&e->qpn, s->qp->qp_num);
	atomic_store(&e->psn, (uint32_t)rnd(&me.rnd, 1 << 24));
	atomic_store(&e->addr, (uintptr_t)s->target);
	atomic_store(&e->rkey, s->target_mr->rkey);
	atomic_store(&e->source, (uintptr_t)me.source);
	atomic_store(&e->source_rkey, me.source_mr->rkey);
	atomic_store(&e->accepted, 0);
	atomic_store(&e->offer, s->offer);
	atomic_fetch_add(&board->offers, 1);
	enter(s, OFFERED);
}

/* The peer's offer, if it is fresh or for this one of ours. */
static bool accept_offer(struct side *s)
{
	struct end *peer = peer_end(s);
	uint32_t offer = atomic_load(&peer->offer), accepted = atomic_load(&peer->accepted);
	uint32_t life = atomic_load(&peer->life), qpn = atomic_load(&peer->qpn),
		 psn = atomic_load(&peer->psn);

	if (!offer || (accepted && accepted != s->offer) || offer != atomic_load(&peer->offer))
		return false;
	s->peer_offer = offer;
	s->peer_life = life;
	connect_to(s, qpn, psn, atomic_load(&own_end(s)->psn));
	atomic_store(&own_end(s)->accepted, offer);
	enter(s, ACCEPTED);
	return true;
}

/* Both have accepted: the peer can receive. */
static bool is_up(struct side *s)
{
	if (atomic_load(&peer_end(s)->accepted) != s->offer)
		return false;
	enter(s, UP);
	return true;
}

/* ---- apart ---- */

/* The QP with whatever is under way: nothing of it may be heard of any more. */
static void forget(struct side *s)
{
	if (rnd(&me.rnd, 2)) {
		to(s, IBV_QPS_RESET);
	} else {
		doing("ibv_destroy_qp", (int)s->link);
		if (ibv_destroy_qp(s->qp))
			die(s, "ibv_destroy_qp");
		s->qp = NULL;
	}
	ops_check_target(s);
	enter(s, DOWN);
}

static void break_up(struct side *s)
{
	atomic_store(&own_end(s)->offer, 0);
	atomic_store(&own_end(s)->accepted, 0);
	if (s->state == OFFERED || rnd(&me.rnd, 2)) {
		forget(s);
		return;
	}
	enter(s, FLUSHING);
	to(s, IBV_QPS_ERR);
	ops_mark(s);
}

/* Every request has to come back. */
static bool flushed(struct side *s)
{
	if (s->first == s->k && s->recv_done == s->recv_posted) {
		forget(s);
		return true;
	}
	if (now_ms() - s->since_ms > END_S * 1000)
		die(s, "in ERR for %d s, and not flushed", END_S);
	return false;
}

/* Its operations end by themselves: half of the time that is waited for. */
static bool broken_turn(struct side *s)
{
	if (!s->broken_ms)
		s->broken_ms = now_ms();
	if (now_ms() - s->broken_ms > END_S * 1000)
		die(s, "the peer has been gone for %d s, and operations have not ended", END_S);
	/* of unsignaled ones alone nothing would be heard if they were done before */
	if (s->k - s->first > s->unsignaled && s->offer % 2 && !s->failed)
		return false;
	break_up(s);
	return true;
}

static void check_time(const struct side *s)
{
	uint64_t now = now_ms();

	if (s->first != s->k && now - s->fly[s->first % FLY].posted_ms > END_S * 1000)
		die(s, "operation %lu has been under way for %d s", (unsigned long)s->first, END_S);
}

static bool up_turn(struct side *s)
{
	bool draining = atomic_load(&board->stop) != RUN, any = false;

	if (side_broken(s) || s->failed)
		return broken_turn(s);
	if (!draining && rnd(&me.rnd, SELDOM) == 0) {
		break_up(s);
		return true;
	}
	/* the last one has to be signaled, or its end is never known */
	for (int n = 0; n < OFTEN && (!draining || s->unsignaled); n++)
		any |= ops_post(s);
	if (!any)
		check_time(s);
	return any;
}

static bool meet_turn(struct side *s)
{
	const struct proc *peer = &board->proc[link_proc(s->link, !s->which)];

	if (atomic_load(&board->stop) != RUN || (s->state == ACCEPTED && side_broken(s))) {
		break_up(s);
		return true;
	}
	if (now_ms() - s->since_ms > MEET_S * 1000 && atomic_load(&peer->turns) > 0)
		die(s, "no peer for %d s: it offers %u for %u", MEET_S, atomic_load(&peer_end(s)->offer),
		    atomic_load(&peer_end(s)->accepted));
	return s->state == OFFERED ? accept_offer(s) : is_up(s);
}

bool side_turn(struct side *s)
{
	switch (s->state) {
	case DOWN:
		if (atomic_load(&board->stop) != RUN)
			return false;
		make_offer(s);
		return true;
	case OFFERED:
	case ACCEPTED:
		return meet_turn(s);
	case UP:
		return up_turn(s);
	case FLUSHING:
		return flushed(s);
	}
	return false;
}

bool side_drained(const struct side *s)
{
	return s->state == DOWN || (s->state == UP && s->first == s->k && !side_broken(s) && !s->failed);
}

/* ---- life ---- */

struct side *side_new(unsigned link, unsigned which)
{
	struct side *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->link = link;
	s->which = which;
	s->memory = malloc(MEMORY_SIZE);
	s->shadow = malloc(BIGGEST);
	enter(s, DOWN);
	return s->memory && s->shadow ? s : NULL;
}

void side_end(struct side *s)
{
	doing("the end of a link", (int)s->link);
	if (s->target)
		ops_check_target(s);
	if (s->qp && ibv_destroy_qp(s->qp))
		die(s, "ibv_destroy_qp");
	dereg(s, &s->mr);
	dereg(s, &s->target_mr);
	if (s->target)
		free(s->target - s->target_off);
	free(s->memory);
	free(s->shadow);
	free(s);
}
