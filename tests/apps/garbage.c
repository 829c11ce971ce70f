/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A hostile client: garbage SOCKET|TICKET [ROUNDS [SEED]]. Sends a core what no library would: rubbish datagrams,
 * lying headers, requests before the greeting, random fields in every request, descriptors of the wrong kind,
 * hang-ups at every point, and rings full of rubbish: with nothing behind them, and with a connected QP and
 * valid keys. It fails only when the core is not there any more, or never let it have a connected QP.
 *
 * Room: tests. May use: libc, control/protocol.h.
 */
#include "garbage_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A guest that does everything right until it has a connected QP and a registered buffer. */
struct guest {
	struct link *link;
	uint32_t pd, channel, cq, qp, mr, lkey, rkey, mw, window;
	uint32_t qpn_gen;
	uint64_t rq_off;
};

enum { CQ_SHIFT = 8, RQ_SHIFT = 6, BUFFER = 64 * 1024, SEND_WR = 64 };

static uint64_t state;
static unsigned connected;
static uint32_t calm = 1;
static char buffer[BUFFER] __attribute__((aligned(4096)));
static struct guest *known; /* whose handles odd() may use */

uint32_t rnd(void) /* splitmix64: the same run for the same seed */
{
	uint64_t z = state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)(z ^ z >> 31);
}

/* Once in `n` times, in calm rounds less often. */
static bool rare(uint32_t n)
{
	return rnd() % (n * calm) == 0;
}

/* Values at which code breaks are likelier than others. */
static uint32_t odd(void)
{
	const uint32_t handles[] = {known ? known->pd : 1,	known ? known->cq : 1,
				    known ? known->qp : 1,	known ? known->mr : 1,
				    known ? known->qpn_gen : 1, known ? known->channel : 1,
				    known ? known->mw : 1};
	static const uint32_t edge[] = {0,	    1,		2,  3,	  0x7fffffff, 0x80000000,
					0xffffffff, 0xfffffffe, 64, 4096, 16,	      31};

	if (rnd() % 4 == 0)
		return handles[rnd() % 7];
	return rnd() % 3 ? edge[rnd() % (sizeof(edge) / sizeof(edge[0]))] : rnd();
}

/* One datagram of random length and content, with a head that is more or less right. */
static bool rubbish(struct link *l)
{
	uint32_t words[FX_MSG_BYTES / 4 + 16];
	size_t size = rnd() % 4 ? 16 + rnd() % 256 : rnd() % sizeof(words);
	struct fx_msg_head head = {.magic = FX_PROTO_MAGIC,
				   .op = (uint16_t)(rnd() % (FX_MSG_COUNT + 2)),
				   .seq = (uint16_t)rnd(),
				   .size = (uint32_t)size};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = odd();
	if (rnd() % 8 == 0)
		head.magic = odd();
	if (rnd() % 8 == 0)
		head.size = odd();
	if (rnd() % 16 == 0)
		head.op = (uint16_t)rnd();
	if (rnd() % 16)
		memcpy(words, &head, sizeof(head));
	return tell(l, words, size);
}

static uint32_t request_size(uint16_t op)
{
	static const uint32_t size[FX_MSG_COUNT] = {
		[FX_MSG_HELLO] = sizeof(struct fx_hello_req),
		[FX_MSG_ALLOC_PD] = sizeof(struct fx_handle_req),
		[FX_MSG_DEALLOC_PD] = sizeof(struct fx_handle_req),
		[FX_MSG_REG_MR] = sizeof(struct fx_reg_mr_req),
		[FX_MSG_REG_MR_DONE] = sizeof(struct fx_reg_mr_done_req),
		[FX_MSG_DEREG_MR] = sizeof(struct fx_handle_req),
		[FX_MSG_REPLACE_MR] = sizeof(struct fx_replace_mr_req),
		[FX_MSG_ALLOC_MW] = sizeof(struct fx_alloc_mw_req),
		[FX_MSG_DEALLOC_MW] = sizeof(struct fx_handle_req),
		[FX_MSG_CREATE_CHANNEL] = sizeof(struct fx_handle_req),
		[FX_MSG_DESTROY_CHANNEL] = sizeof(struct fx_handle_req),
		[FX_MSG_CREATE_CQ] = sizeof(struct fx_create_cq_req),
		[FX_MSG_DESTROY_CQ] = sizeof(struct fx_handle_req),
		[FX_MSG_MODIFY_CQ] = sizeof(struct fx_modify_cq_req),
		[FX_MSG_RESIZE_CQ] = sizeof(struct fx_resize_cq_req),
		[FX_MSG_CREATE_PIPE] = sizeof(struct fx_create_pipe_req),
		[FX_MSG_DESTROY_PIPE] = sizeof(struct fx_handle_req),
		[FX_MSG_QUERY_CLOCK] = sizeof(struct fx_msg_head),
		[FX_MSG_CREATE_QP] = sizeof(struct fx_create_qp_req),
		[FX_MSG_OPEN_QP] = sizeof(struct fx_open_qp_req),
		[FX_MSG_MODIFY_QP] = sizeof(struct fx_modify_qp_req),
		[FX_MSG_QUERY_QP] = sizeof(struct fx_qp_req),
		[FX_MSG_DESTROY_QP] = sizeof(struct fx_qp_req),
		[FX_MSG_OPEN_XRCD] = sizeof(struct fx_open_xrcd_req),
		[FX_MSG_CLOSE_XRCD] = sizeof(struct fx_handle_req),
		[FX_MSG_CREATE_SRQ] = sizeof(struct fx_create_srq_req),
		[FX_MSG_MODIFY_SRQ] = sizeof(struct fx_modify_srq_req),
		[FX_MSG_QUERY_SRQ] = sizeof(struct fx_modify_srq_req),
		[FX_MSG_DESTROY_SRQ] = sizeof(struct fx_handle_req),
		[FX_MSG_QUERY_PORT] = sizeof(struct fx_handle_req),
		[FX_MSG_COUNTERS] = sizeof(struct fx_handle_req),
		[FX_MSG_SHOW] = sizeof(struct fx_handle_req),
	};

	return op < FX_MSG_COUNT ? size[op] : 0;
}

/* Every request in its right size, with fields that are mostly edges. */
static bool lie(struct link *l)
{
	uint16_t op = (uint16_t)(1 + rnd() % (FX_MSG_COUNT - 1));
	uint32_t words[FX_MSG_BYTES / 4], size = request_size(op);
	struct fx_msg_head head = {.magic = FX_PROTO_MAGIC, .op = op, .seq = 7, .size = size};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = rnd() % 2 ? 0 : odd();
	memcpy(words, &head, sizeof(head));
	return tell(l, words, size);
}

/* A right request; false: refused. */
static bool ask(struct link *l, uint16_t op, void *req, uint32_t size, void *rep, size_t rep_size)
{
	struct fx_msg_head head = {.magic = FX_PROTO_MAGIC, .op = op, .size = size};
	char buf[FX_MSG_BYTES] = {0};

	memcpy(req, &head, sizeof(head));
	if (!say(l, req, size) || answer(l, buf, sizeof(buf)) < sizeof(head))
		return false;
	memcpy(rep, buf, rep_size);
	return ((struct fx_msg_head *)rep)->err == 0;
}

static bool register_buffer(struct guest *g)
{
	struct fx_reg_mr_req req = {.pd = g->pd,
				    .access = 0x17, /* may be bound to windows */
				    .addr = (uintptr_t)buffer,
				    .length = BUFFER,
				    .iova = (uintptr_t)buffer,
				    .flags = FX_REG_NO_CONVERT};
	struct fx_reg_mr_rep rep;
	struct fx_reg_mr_done_req done = {0};
	struct fx_reg_mr_done_rep keys;

	if (!ask(g->link, FX_MSG_REG_MR, &req, sizeof(req), &rep, sizeof(rep)))
		return false;
	done.mr = g->mr = rep.mr;
	done.nseg = rep.nseg;
	if (!ask(g->link, FX_MSG_REG_MR_DONE, &done, sizeof(done), &keys, sizeof(keys)))
		return false;
	g->lkey = keys.lkey;
	g->rkey = keys.rkey;
	return true;
}

static bool alloc_window(struct guest *g)
{
	struct fx_alloc_mw_req req = {.pd = g->pd, .type = 2};
	struct fx_alloc_mw_rep rep;

	if (!ask(g->link, FX_MSG_ALLOC_MW, &req, sizeof(req), &rep, sizeof(rep)))
		return false;
	g->mw = rep.mw;
	g->window = rep.rkey;
	return true;
}

/* INIT, RTR, RTS; masks and states as in the verbs ABI. */
static bool connect_self(struct guest *g)
{
	static const uint32_t masks[] = {1 | 1 << 4 | 1 << 5 | 1 << 3,
					 1 | 1 << 7 | 1 << 8 | 1 << 20 | 1 << 12 | 1 << 17 | 1 << 15,
					 1 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 16 | 1 << 13};

	for (uint32_t i = 0; i < 3; i++) {
		struct fx_modify_qp_req req = {.qp = g->qp,
					       .mask = masks[i],
					       .attr = {.qp_state = i + 1,
							.path_mtu = 1 + rnd() % 5,
							.dest_qp_num = g->qpn_gen & 0xffffff,
							.access = 7,
							.port_num = 1,
							.max_rd_atomic = 4,
							.max_dest_rd_atomic = 4,
							.min_rnr_timer = 1,
							.timeout = 8,
							.retry_cnt = (uint8_t)(rnd() % 8),
							.rnr_retry = (uint8_t)(rnd() % 8)}};
		struct fx_modify_qp_rep rep;

		req.attr.ah.port_num = 1;
		if (!ask(g->link, FX_MSG_MODIFY_QP, &req, sizeof(req), &rep, sizeof(rep)))
			return false;
		g->qpn_gen = (g->qpn_gen & 0xffffff) | rep.gen << FX_QPN_BITS;
	}
	return true;
}

static bool become_guest(struct guest *g)
{
	uint64_t cq_off = (g->link->hello.heap_off + FX_LINE - 1) / FX_LINE * FX_LINE;
	struct fx_handle_req pd = {0}, channel = {0};
	struct fx_create_cq_req cq = {.off = cq_off, .shift = CQ_SHIFT};
	struct fx_create_qp_req qp = {.type = FX_QPT_RC,
				      .max_send_wr = SEND_WR,
				      .max_recv_wr = 1 << RQ_SHIFT,
				      .max_send_sge = 4,
				      .max_recv_sge = 3,
				      .max_inline = FX_MAX_INLINE,
				      .rq_shift = RQ_SHIFT};
	struct fx_handle_rep rep;
	struct fx_create_qp_rep made;

	g->rq_off = qp.rq_off = cq_off + sizeof(struct fx_cq_head) + (FX_CQE_SIZE << CQ_SHIFT);
	if (!ask(g->link, FX_MSG_ALLOC_PD, &pd, sizeof(pd), &rep, sizeof(rep)))
		return false;
	g->pd = qp.pd = rep.handle;
	if (!ask(g->link, FX_MSG_CREATE_CHANNEL, &channel, sizeof(channel), &rep, sizeof(rep)))
		return false;
	g->channel = cq.channel = rep.handle;
	if (!ask(g->link, FX_MSG_CREATE_CQ, &cq, sizeof(cq), &rep, sizeof(rep)))
		return false;
	g->cq = qp.send_cq = qp.recv_cq = rep.handle;
	if (!ask(g->link, FX_MSG_CREATE_QP, &qp, sizeof(qp), &made, sizeof(made)))
		return false;
	g->qp = made.qp;
	g->qpn_gen = fx_qpn_gen(made.qpn, (uint8_t)made.gen);
	return register_buffer(g) && alloc_window(g) && connect_self(g);
}

/* Mostly right, so that the wrong ones come far. */
static struct fx_sge some_sge(const struct guest *g)
{
	struct fx_sge sge = {
		.addr = (uintptr_t)buffer + rnd() % BUFFER, .length = rnd() % 9000, .lkey = g->lkey};

	switch (rare(4) ? rnd() % 3 : 3) {
	case 0:
		sge.length = odd();
		break;
	case 1:
		sge.lkey = rnd() % 2 ? g->rkey : odd();
		break;
	case 2:
		sge.addr = (uint64_t)odd() << 32 | odd();
		break;
	default:
		break;
	}
	return sge;
}

/* An arm, more or less right, in the place of a work request. */
static void some_arm(const struct guest *g, struct fx_sq_slot *slot)
{
	struct fx_arm_slot arm = {.opcode = FX_WR_ARM, .nslots = (uint8_t)(rare(8) ? 1 + rnd() % 9 : 1)};

	arm.cq = rare(4) ? odd() : g->cq;
	arm.arm = rare(4) ? odd() : rnd() % 64;
	arm.ci = rare(4) ? odd() : rnd() % 64;
	memcpy(slot, &arm, sizeof(arm));
}

/* A bind, more or less right; what was sent through its window before may still be under way. */
static void some_bind(const struct guest *g, struct fx_sq_slot *slot)
{
	struct fx_bind_slot b;
	struct fx_sge part = some_sge(g);

	memcpy(&b, slot, sizeof(b));
	b.opcode = FX_WR_BIND_MW;
	b.rsvd = (uint8_t)(rare(16) ? rnd() : 0);
	b.window = rare(8) ? odd() : g->window;
	b.rkey = rare(8) ? odd() : g->window + rnd() % 4;
	b.addr = part.addr;
	b.length = rare(4) ? (uint64_t)odd() << 32 | odd() : part.length;
	b.lkey = part.lkey;
	b.access = rare(4) ? odd() : 6;
	memcpy(slot, &b, sizeof(b));
}

/* One slot of the send pipe, more or less right. -> how many slots its entry says to have */
static unsigned some_slot(const struct guest *g, struct fx_sq_slot *slot, uint32_t index)
{
	struct fx_sge remote = some_sge(g);

	memset(slot, 0, sizeof(*slot));
	slot->opcode = (uint8_t)(rare(16) ? rnd() : rare(16) ? FX_WR_LOCAL_INV : rnd() % (FX_WR_READ + 1));
	slot->flags = (uint8_t)(rare(4) ? rnd() : FX_WRF_SIGNALED);
	slot->nslots = (uint8_t)(rare(8) ? rnd() % 11 : 1);
	slot->nsge = (uint8_t)(rare(8) ? rnd() % 18 : 1);
	slot->qpn_gen = rare(16) ? odd() : g->qpn_gen;
	slot->index = rare(16) ? odd() : index;
	slot->imm = rnd() % 2 ? odd() : g->window + rnd() % 4;
	slot->rdma.remote_addr = remote.addr;
	slot->rdma.rkey = rare(8) ? odd() : rare(2) ? g->window + rnd() % 4 : g->rkey;
	slot->rdma.inline_len = slot->flags & FX_WRF_INLINE ? rnd() % 600 : 0;
	slot->sge = some_sge(g);
	if (rare(8))
		some_bind(g, slot);
	if (rare(8))
		some_arm(g, slot);
	return slot->nslots ? slot->nslots : 1;
}

static void kick_it(const struct guest *g)
{
	for (int i = 0; i < 3 && kick(g->link); i++)
		usleep(500);
}

static void publish(char *to, const void *slot, uint8_t phase)
{
	memcpy(to, slot, FX_SLOT_SIZE - 1);
	__atomic_store_n(to + FX_SLOT_SIZE - 1, (char)phase, __ATOMIC_RELEASE);
}

static void spoil_rq(const struct guest *g)
{
	for (uint32_t i = 0; i < 1u << RQ_SHIFT; i++) {
		struct fx_rq_slot slot = {.index = rare(16) ? odd() : i,
					  .nsge = (uint8_t)(rare(8) ? rnd() : 1)};

		for (int k = 0; k < FX_RQ_SGES; k++)
			slot.sge[k] = some_sge(g);
		publish(g->link->arena + g->rq_off + (uint64_t)i * FX_SLOT_SIZE, &slot,
			fx_phase(i, RQ_SHIFT));
	}
}

/* Fills one lap of the send pipe: with entries that are more or less right, or with plain rubbish. */
static void spoil_pipe(const struct guest *g, bool rubbish_only)
{
	uint32_t slots = 1u << (g->link->hello.pipe_shift & 31), n = rubbish_only ? slots : rnd() % slots;
	char *ring = g->link->arena + g->link->hello.pipe_off + sizeof(struct fx_pipe_head);
	uint32_t index = 0;

	for (uint32_t i = 0; i < n;) {
		uint32_t words[FX_SLOT_SIZE / 4];
		struct fx_sq_slot slot;
		unsigned more = 1;

		for (size_t w = 0; w < FX_SLOT_SIZE / 4; w++)
			words[w] = odd();
		if (rubbish_only) {
			memcpy(&slot, words, sizeof(slot));
			slot.nslots = (uint8_t)(rnd() % 11);
		} else {
			more = some_slot(g, &slot, index++);
		}
		publish(ring + (uint64_t)i++ * FX_SLOT_SIZE, &slot, rare(64) ? (uint8_t)rnd() : 1);
		for (; --more && i < n; i++)
			publish(ring + (uint64_t)i * FX_SLOT_SIZE, words, rare(64) ? 0 : 1);
		if (!rubbish_only && index % SEND_WR == 0)
			kick_it(g);
	}
	kick_it(g);
}

/* Requests with random fields, some of whose answers are not waited for. */
static void pester(struct link *l, int requests, bool anything)
{
	char buf[FX_MSG_BYTES];

	for (int i = 0; i < requests && (anything && rnd() % 2 ? rubbish(l) : lie(l)); i++)
		if (rnd() % 8 && !answer(l, buf, sizeof(buf)) && l->far)
			break; /* the core waits for the rest of a message that never comes */
}

static void hostile_host(const char *path)
{
	struct link l = dial(path, true);
	struct guest g = {.link = &l};
	int requests = (int)(rnd() % 40);

	if (greet(&l)) {
		bool guest = rnd() % 4 != 0 && become_guest(&g);

		calm = 1u << rnd() % 8;
		connected += guest;
		known = guest ? &g : NULL;
		if (guest)
			spoil_rq(&g);
		if (rnd() % 4)
			spoil_pipe(&g, !guest || rnd() % 8 == 0);
		pester(&l, requests, false);
		usleep(guest ? 2000 * (calm > 8) : 0);
		if (rnd() % 2)
			spoil_pipe(&g, true);
		pester(&l, requests, true);
		known = NULL;
	}
	hang_up(&l);
}

static void hostile_stranger(const char *path)
{
	struct link l = dial(path, rnd() % 2);
	int n = (int)(rnd() % 6);
	char buf[FX_MSG_BYTES];

	for (int i = 0; i < n && rubbish(&l); i++)
		if (rnd() % 4 == 0)
			answer(&l, buf, sizeof(buf));
	hang_up(&l);
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[2]) : 200;

	if (argc < 2) {
		fprintf(stderr, "garbage SOCKET|TICKET [ROUNDS [SEED]]\n");
		return 2;
	}
	state = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	for (int i = 0; i < rounds; i++) {
		if (rnd() % 2)
			hostile_host(argv[1]);
		else
			hostile_stranger(argv[1]);
	}
	if (rounds >= 20 && !connected) {
		printf("not one QP was connected: this tests nothing\n");
		return 1;
	}
	for (int i = 0; i < 20; i++) { /* the core may still be clearing up after the others */
		struct link l = dial(argv[1], true);
		bool welcome = greet(&l);

		hang_up(&l);
		if (welcome)
			return 0;
		usleep(100000);
	}
	printf("after %d rounds the core greets nobody any more\n", rounds);
	return 1;
}
