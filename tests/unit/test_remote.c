/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A context whose rings lie in its host's own memory: the real control room, a mirror over the real engine behind a bus,
 * and a worker that only echoes. The host is this process, which the core reaches like any other.
 */
#include "test_control_play.h"

#define FAR_NEED(ok) assert_true(ok)
#include "far_host.h"

#include "control/table.h"
#include "memory/engine.h"
#include "mirror/mirror.h"

enum { ENTRIES = 3000, DOZE_NS = 200000 };

/* The worker's. */
static struct {
	struct play *p;
	struct fx_dma_engine *dma;
	struct fx_mirror *m;
	struct fx_wctx *ctx;
	struct fx_cq *cq; /* every completion goes there */
	struct fx_rxq *rx;
	_Atomic uint32_t want; /* receives that are to be taken */
	_Atomic uint32_t taken;
	_Atomic unsigned looks, overruns, broken;
	bool looking;
} k;

static uint64_t now_ns(void *arg)
{
	struct timespec t;

	(void)arg;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- the mirror's callbacks ---- */

static void take_receives(void)
{
	struct fx_sge sge;

	while (k.want && fx_rq_take(&k.rx->ring, &sge, 1) == 1) {
		assert_int_equal(sge.addr, k.taken);
		k.taken++;
		k.want--;
	}
}

static void on_looked(void *arg, void *rx)
{
	(void)arg;
	assert_ptr_equal(rx, k.rx);
	k.looking = false;
	k.looks++;
	take_receives();
}

static void on_overrun(void *arg, struct fx_cq *cq)
{
	(void)arg;
	cq->overrun = true;
	k.overruns++;
}

static void on_wake(void *arg, int ring)
{
	(void)arg;
	assert_int_equal(write(ring, "", 1), 1);
}

static void on_broken(void *arg, void *ctx)
{
	(void)arg;
	assert_ptr_equal(ctx, k.ctx);
	k.broken++;
	k.ctx->dead = true;
	fx_cmd_done(fx_control_mailbox(k.p->ctl, 0), &k.ctx->broken);
}

/* ---- the worker ---- */

static void poll_mirror(void)
{
	fx_mirror_poll(k.m, now_ns(NULL));
}

static void on_command(struct fx_cmd *cmd)
{
	switch (cmd->op) {
	case FX_CMD_CTX_ADD:
		k.ctx = cmd->ctx;
		fx_mirror_attach(k.m, k.ctx->mirror, now_ns(NULL));
		break;
	case FX_CMD_CTX_DEL:
		fx_mirror_detach(k.m, cmd->ctx->mirror);
		while (!fx_mirror_ctx_idle(cmd->ctx->mirror))
			poll_mirror();
		k.ctx = NULL;
		break;
	case FX_CMD_CQ_ADD:
		k.cq = cmd->data;
		break;
	case FX_CMD_CQ_DEL:
		while (!fx_mirror_cq_idle(((struct fx_cq *)cmd->data)->copy))
			poll_mirror();
		k.cq = NULL;
		break;
	case FX_CMD_QP_ATTACH:
		k.rx = fx_qp_rxq(cmd->qp);
		break;
	case FX_CMD_QP_DETACH:
		k.want = 0;
		while (!fx_mirror_rq_idle(k.rx->copy))
			poll_mirror();
		k.rx = NULL;
		break;
	default:
		break;
	}
}

/* A completion for every work request, an event for every arm. */
static void echo(const struct fx_sq_slot *e)
{
	struct fx_cqe c = {.index = e->index, .imm = e->imm};
	struct fx_event ev = {
		.kind = FX_EV_CQ, .object = k.cq->handle, .cookie = k.cq->cookie, .index = k.cq->pi};

	if (e->opcode != FX_WR_ARM) {
		fx_cq_push(k.cq, &c);
	} else {
		assert_true(fx_event_put(&k.ctx->events, &ev, 1u << k.ctx->events.shift));
		k.ctx->events.told(&k.ctx->events, k.cq->wake, k.cq);
	}
}

static bool on_turn(void)
{
	struct fx_sq_slot e[FX_MAX_SQ_SLOTS];

	poll_mirror();
	if (!k.ctx || k.ctx->dead)
		return false;
	if (atomic_exchange(&k.ctx->kicked, false))
		fx_mirror_kick(k.ctx->mirror);
	for (int i = 0; i < 8 && k.cq && fx_pipe_take(&k.ctx->pipe, e) > 0; i++)
		echo(e);
	fx_pipe_publish_ci(&k.ctx->pipe);
	if (k.want && k.rx) {
		take_receives();
		if (k.want && !k.looking)
			k.looking = fx_mirror_look(k.m, k.rx->copy);
	}
	return !fx_mirror_quiet(k.m);
}

static int start(void **state)
{
	const struct fx_dma_bus bus = {
		.latency_ns = 2000, .bytes_per_us = 10000, .reorder_permille = 200, .seed = 7, .now = now_ns};
	struct fx_mirror_cfg cfg = {
		.doze_ns = DOZE_NS,
		.env = {.looked = on_looked, .overrun = on_overrun, .wake = on_wake, .broken = on_broken}};

	memset(&k, 0, sizeof(k));
	cfg.engine = k.dma = fx_dma_bus_create(fx_dma_slow_create(64, NULL, NULL), 256, &bus);
	k.m = fx_mirror_create(&cfg);
	play_place = &fx_place_remote;
	if (!k.m || play_start(state) < 0)
		return -1;
	k.p = *state;
	k.p->command = on_command;
	k.p->turn = on_turn;
	return 0;
}

static int end(void **state)
{
	int err = play_end(state);

	k.dma->ops->destroy(k.dma);
	fx_mirror_destroy(k.m);
	return err;
}

/* ---- the host's side ---- */

static void post_many(struct far_host *h, struct far_cq *cq, uint32_t n)
{
	struct fx_sq_slot e[FX_MAX_SQ_SLOTS] = {0};
	uint32_t posted = 0, seen = 0;

	while (seen < n) {
		struct fx_cqe c;

		/* as many as its CQ has room for */
		while (posted < n && posted - seen < 1u << FAR_CQ_SHIFT) {
			e->nslots = (uint8_t)(1 + posted % FX_MAX_SQ_SLOTS);
			e->index = posted;
			e->imm = posted * 2654435761u;
			far_post(h, e);
			posted++;
			if (posted % 100 == 0)
				far_nap(); /* long enough that it dozes */
		}
		c = far_completion(cq);
		assert_int_equal(c.index, seen);
		assert_int_equal(c.imm, seen * 2654435761u);
		seen++;
	}
}

static void entries_and_completions(void **state)
{
	struct play *p = *state;
	struct far_host h;
	struct far_cq cq;

	far_open(&h, p->ticket);
	cq = far_cq(&h, 0);
	post_many(&h, &cq, ENTRIES);
	for (int i = 0; i < 20; i++)
		far_nap();
	assert_int_not_equal(h.page->worker[0].sleeping, 0); /* it has been told so in its own memory */
	post_many(&h, &cq, 10);
	assert_true(h.kicks > 0);
	assert_true(fx_control_counters(p->ctl)->kicks > 0);
	assert_int_equal(far_simple(&h, FX_MSG_DESTROY_CQ, cq.handle, NULL), 0);
	far_close(&h);
	await_empty(p, 0);
}

/* A wake for each record, when that is there, and for the channel that it is for. */
static void events_and_wakes(void **state)
{
	struct play *p = *state;
	struct far_host h;
	struct far_cq cq;
	struct fx_event ev;
	uint32_t ch, other;

	far_open(&h, p->ticket);
	assert_int_equal(far_simple(&h, FX_MSG_CREATE_CHANNEL, 0, &other), 0);
	assert_int_equal(far_simple(&h, FX_MSG_CREATE_CHANNEL, 0, &ch), 0);
	cq = far_cq(&h, ch);
	for (uint32_t n = 1; n <= 100; n++) {
		struct fx_sq_slot e[1] = {{.nslots = 1, .index = n}};

		far_post(&h, e);
		far_arm(&h, &cq, n);
		for (time_t until = time(NULL) + FAR_WAIT_S; far_listen(&h, ch) < n; far_nap())
			assert_true(time(NULL) < until);
		assert_true(fx_event_take(&h.events, &ev));
		fx_event_publish_ci(&h.events);
		assert_int_equal(ev.object, cq.handle);
		assert_int_equal(ev.cookie, 0xc00c1e);
		assert_int_equal(ev.index, n);
		assert_int_equal(far_completion(&cq).index, n); /* which was there before it */
	}
	assert_int_equal(far_listen(&h, other), 0);
	assert_int_equal(fx_control_counters(p->ctl)->wakes, 100);
	assert_int_equal(far_simple(&h, FX_MSG_DESTROY_CHANNEL, ch, NULL), -EBUSY);
	assert_int_equal(far_simple(&h, FX_MSG_DESTROY_CQ, cq.handle, NULL), 0);
	assert_int_equal(far_simple(&h, FX_MSG_DESTROY_CHANNEL, ch, NULL), 0);
	far_close(&h);
	await_empty(p, 0);
}

static void receives(void **state)
{
	struct play *p = *state;
	struct far_host h;
	struct far_cq cq;
	struct far_qp qp;
	struct fx_qp_req req;
	struct fx_handle_rep rep;
	uint32_t pd;

	far_open(&h, p->ticket);
	assert_int_equal(far_simple(&h, FX_MSG_ALLOC_PD, 0, &pd), 0);
	cq = far_cq(&h, 0);
	qp = far_qp(&h, pd, &cq);
	k.want = 100; /* nobody else looks at it until there is a receive queue and this is seen */
	for (uint64_t i = 0; i < 100; i++) {
		struct fx_sge sge = {.addr = i};

		for (time_t until = time(NULL) + FAR_WAIT_S; i - k.taken >= 1u << FAR_RQ_SHIFT; far_nap())
			assert_true(time(NULL) < until);
		fx_rq_put(&qp.rq, &sge, 1);
	}
	for (time_t until = time(NULL) + FAR_WAIT_S; k.taken < 100; far_nap())
		assert_true(time(NULL) < until);
	assert_true(k.looks > 0);
	k.want = 1; /* looks and looks, up to its end */
	req = (struct fx_qp_req){.qp = qp.info.qp};
	assert_int_equal(FAR_ASK(&h, FX_MSG_DESTROY_QP, &req, &rep), 0);
	far_close(&h);
	await_empty(p, 0);
}

/* More completions than the CQ has room for, and the host takes none. */
static void overrun(void **state)
{
	struct play *p = *state;
	struct far_host h;
	struct far_cq cq;
	struct fx_sq_slot e[1] = {{.nslots = 1}};

	far_open(&h, p->ticket);
	cq = far_cq(&h, 0);
	for (int i = 0; i < (1 << FAR_CQ_SHIFT) + 1; i++)
		far_post(&h, e);
	for (time_t until = time(NULL) + FAR_WAIT_S; !k.overruns; far_nap())
		assert_true(time(NULL) < until);
	for (int i = 0; i < 1 << FAR_CQ_SHIFT; i++)
		far_completion(&cq); /* none of these was overwritten */
	far_close(&h);
	await_empty(p, 0);
	assert_int_equal(k.overruns, 1);
}

/* The host takes its memory away: it is disconnected, and nobody else suffers. */
static void memory_that_goes(void **state)
{
	struct play *p = *state;
	struct far_host h;
	char buf[FX_MSG_BYTES];

	for (int i = 0; i < 5; i++) {
		struct far_cq cq;

		far_open(&h, p->ticket);
		cq = far_cq(&h, 0);
		post_many(&h, &cq, 10);
		if (i % 2) {
			munmap(h.arena, h.arena_size);
			h.arena = NULL;
			/* what it dozes over is noticed when it looks */
			send(h.fd,
			     &(struct fx_msg_head){.magic = FX_PROTO_MAGIC, .op = FX_MSG_KICK, .size = 16},
			     16, MSG_NOSIGNAL);
			assert_int_equal(far_recv(&h, buf), 0);
		}
		far_close(&h);
		await_empty(p, 0);
	}
	assert_int_equal(fx_control_counters(p->ctl)->broken_pipes, 2);
}

/* The connection ends when nothing more is written to the host's memory, however much was under way. */
static void the_end_comes_last(void **state)
{
	struct play *p = *state;
	struct far_host h;
	struct far_cq cq;
	struct fx_sq_slot e[1] = {{.nslots = 1}};
	char buf[FX_MSG_BYTES];

	for (int i = 0; i < 50; i++) {
		far_open(&h, p->ticket);
		cq = far_cq(&h, 0);
		(void)cq;
		for (int n = 0; n < 1 << FAR_CQ_SHIFT; n++)
			far_post(&h, e);
		if (i % 2)
			far_nap();
		shutdown(h.fd, SHUT_WR);
		assert_int_equal(far_recv(&h, buf), 0);
		assert_int_equal(k.dma->ops->pending(k.dma), 0);
		assert_null(k.ctx);
		far_close(&h);
	}
	await_empty(p, 0);
}

/* Nothing of an application's is mapped by the core, shared or not. */
static void memory_stays_apart(void **state)
{
	struct play *p = *state;
	void *shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct fx_reg_mr_done_rep mr;
	struct far_host h;
	uint32_t pd;

	far_open(&h, p->ticket);
	assert_int_equal(far_simple(&h, FX_MSG_ALLOC_PD, 0, &pd), 0);
	mr = far_mr(&h, pd, shared, 8192); /* which checks that all of it is slow */
	assert_int_equal(mr.nslow, 1);
	assert_int_equal(mr.slow[0].length, 8192);
	far_close(&h);
	await_empty(p, 0);
	munmap(shared, 8192);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(entries_and_completions),
		TEST(events_and_wakes),
		TEST(receives),
		TEST(overrun),
		TEST(memory_that_goes),
		TEST(the_end_comes_last),
		TEST(memory_stays_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
