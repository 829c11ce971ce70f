/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completion channels and asynchronous events of the host library, against a real control room and a worker that is a
 * thread of this test: it takes arms from the pipe, writes CQEs at random moments, and fires with the functions that
 * the core uses. A wake that gets lost is a test that does not end. Also run under ThreadSanitizer.
 *
 * May use: host's insides, control.
 */
#include "test_control_play.h"

#include <poll.h>
#include <signal.h>

#include "control/table.h"
#include "host/host.h"

enum {
	CQS = 4,
	CQ_SIZE = 64,
	ROUNDS = 1500,
	HANG_S = 50,
	LINES = 128,
	EV_QP_FATAL = IBV_EVENT_QP_FATAL,
	LATE_NS = 20000000
};

/* What the test asks of the worker for one CQ; by the index of its handle. */
struct line {
	struct fx_cq *cq;	  /* the worker's */
	_Atomic uint32_t want;	  /* CQEs to write from now on */
	_Atomic uint32_t written; /* since the CQ was made */
	_Atomic uint8_t flags;	  /* of those */
};

static struct {
	struct play *play;
	struct fx_wctx *wctx; /* the worker's */
	struct line line[LINES];
	_Atomic unsigned fired, passed_over;
	_Atomic bool burst;	/* write as fast as there is room, without pauses */
	_Atomic unsigned async; /* events to tell of `object` */
	_Atomic bool late;	/* bytes come some time after their records */
	_Atomic uint64_t object;
	uint64_t rnd;
} t;

static struct ibv_context *ctx;

/* ---- the worker ---- */

static uint32_t rnd(void) /* xorshift: the worker's only */
{
	t.rnd ^= t.rnd << 13;
	t.rnd ^= t.rnd >> 7;
	t.rnd ^= t.rnd << 17;
	return (uint32_t)t.rnd;
}

static void tell(const struct fx_event *ev, int wake)
{
	assert_true(fx_event_put(&t.wctx->events, ev, 1u << t.wctx->events.shift));
	if (t.late)
		nanosleep(&(struct timespec){.tv_nsec = LATE_NS}, NULL);
	assert_int_equal(write(wake, "", 1), 1);
}

static void fire(struct fx_cq *cq)
{
	struct fx_event ev = {.kind = FX_EV_CQ, .object = cq->handle, .cookie = cq->cookie, .index = cq->pi};

	fx_cq_fire(cq);
	tell(&ev, cq->wake);
	t.fired++;
}

static bool take_arm(void)
{
	struct fx_sq_slot slot[FX_MAX_SQ_SLOTS];
	struct fx_arm_slot a;
	struct fx_cq *cq;
	int n = fx_pipe_take(&t.wctx->pipe, slot), now;

	if (n <= 0)
		return false;
	fx_pipe_publish_ci(&t.wctx->pipe);
	memcpy(&a, slot, sizeof(a));
	assert_int_equal(a.opcode, FX_WR_ARM);
	cq = t.line[fx_handle_index(a.cq)].cq;
	now = cq ? fx_cq_arm(cq, a.arm, a.ci) : 0;
	assert_true(now >= 0);
	if (now)
		fire(cq);
	else if (!cq || !cq->arm)
		t.passed_over++;
	return true;
}

static bool write_one(struct line *l)
{
	struct fx_cqe cqe = {.qpn_gen = 0x999990, .flags = l->flags};

	/* a core would overrun; the test's only wants to go on */
	if (!l->cq || !l->want || l->cq->pi - fx_load32_acquire(&l->cq->head->ci) >= CQ_SIZE)
		return false;
	if (!t.burst && rnd() % 4 == 0)
		return true; /* later */
	l->want--;
	assert_int_equal(fx_cq_push(l->cq, &cqe), 0);
	l->written++;
	if (fx_cq_wakes(l->cq, &cqe))
		fire(l->cq);
	return true;
}

static bool worker_turn(void)
{
	bool any = false;

	if (!t.wctx)
		return false;
	for (unsigned n = rnd() % 3; n && take_arm(); n--)
		any = true;
	for (int i = 0; i < LINES; i++)
		any |= write_one(&t.line[i]);
	for (; t.async; t.async--) {
		struct fx_event ev = {.kind = FX_EV_ASYNC, .type = EV_QP_FATAL, .cookie = t.object};

		tell(&ev, t.wctx->events.wake);
	}
	if (!any || rnd() % 8 == 0)
		sched_yield();
	return true;
}

static void worker_command(struct fx_cmd *cmd)
{
	struct fx_cq *cq = cmd->data;

	if (cmd->op == FX_CMD_CTX_ADD)
		t.wctx = cmd->ctx;
	else if (cmd->op == FX_CMD_CTX_DEL)
		t.wctx = NULL;
	else if (cmd->op == FX_CMD_CQ_ADD)
		t.line[fx_handle_index(cq->handle)].cq = cq;
	else if (cmd->op == FX_CMD_CQ_DEL)
		t.line[fx_handle_index(cq->handle)].cq = NULL;
}

/* ---- the test's side ---- */

static int start(void **state)
{
	struct ibv_device **list;

	memset(&t, 0, sizeof(t));
	t.rnd = 88172645463325252u;
	if (play_start(state) < 0)
		return -1;
	t.play = *state;
	t.play->command = worker_command;
	t.play->turn = worker_turn;
	setenv("FLEXINS_SOCKET", t.play->path, 1);
	list = flexins_get_device_list(NULL);
	ctx = list && list[0] ? flexins_open_device(list[0]) : NULL;
	flexins_free_device_list(list);
	alarm(HANG_S);
	return ctx ? 0 : -1;
}

static int end(void **state)
{
	if (ctx && flexins_close_device(ctx))
		return -1;
	alarm(0);
	return play_end(state); /* looks for what is left once its threads have ended */
}

static struct line *line_of(struct ibv_cq *cq)
{
	return &t.line[fx_handle_index(cq->handle)];
}

static void order(struct ibv_cq *cq, uint32_t n, uint8_t flags)
{
	line_of(cq)->flags = flags;
	line_of(cq)->want += n;
}

static struct ibv_cq *make(struct ibv_comp_channel *ch)
{
	struct ibv_cq *cq = flexins_create_cq(ctx, CQ_SIZE, NULL, ch, 0);
	struct line *l;

	assert_non_null(cq);
	l = line_of(cq);
	l->want = l->written = 0;
	l->flags = 0;
	return cq;
}

/* Polls until nothing comes. The CQEs are of no QP that lives: they are only counted. */
static uint32_t drain(struct ibv_cq *cq)
{
	struct ibv_wc wc[16];

	while (flexins_poll_cq(cq, 16, wc))
		;
	return fx_cq_of(cq)->stale;
}

static bool readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) > 0 && p.revents & POLLIN;
}

static void take(struct ibv_comp_channel *ch, struct ibv_cq *want)
{
	struct ibv_cq *cq = NULL;
	void *cookie;

	assert_int_equal(flexins_get_cq_event(ch, &cq, &cookie), 0);
	assert_true(cq == want);
}

/* ---- races ---- */

struct consumer {
	struct ibv_comp_channel *ch;
	struct ibv_cq *cq[CQS];
	unsigned ncqs;
	int solicited;
	bool nonblocking;
	unsigned events;
	pthread_t thread;
};

static bool all_seen(struct consumer *c, uint32_t total)
{
	for (unsigned i = 0; i < c->ncqs; i++)
		if (fx_cq_of(c->cq[i])->stale < total)
			return false;
	return true;
}

/* As programs do it: take an event, acknowledge, arm, poll until empty. */
static void *consume(void *arg)
{
	struct consumer *c = arg;

	while (!all_seen(c, ROUNDS)) {
		struct ibv_cq *cq;
		void *cookie;

		if (c->nonblocking)
			assert_true(readable(c->ch->fd, -1));
		if (flexins_get_cq_event(c->ch, &cq, &cookie)) {
			assert_true(c->nonblocking && errno == EAGAIN);
			continue;
		}
		c->events++;
		flexins_ack_cq_events(cq, 1);
		assert_int_equal(flexins_req_notify_cq(cq, c->solicited), 0);
		drain(cq);
	}
	return NULL;
}

static void set_up(struct consumer *c, unsigned ncqs)
{
	c->ncqs = ncqs;
	c->ch = flexins_create_comp_channel(ctx);
	assert_non_null(c->ch);
	if (c->nonblocking)
		assert_int_equal(fcntl(c->ch->fd, F_SETFL, O_NONBLOCK), 0);
	for (unsigned i = 0; i < ncqs; i++) {
		c->cq[i] = make(c->ch);
		assert_int_equal(flexins_req_notify_cq(c->cq[i], c->solicited), 0);
	}
}

static void take_down(struct consumer *c)
{
	for (unsigned i = 0; i < c->ncqs; i++) {
		assert_int_equal(fx_cq_of(c->cq[i])->stale, ROUNDS);
		assert_int_equal(flexins_destroy_comp_channel(c->ch), EBUSY);
		assert_int_equal(flexins_destroy_cq(c->cq[i]), 0);
	}
	assert_false(readable(c->ch->fd, 0)); /* the events that nobody took went with their CQs */
	assert_int_equal(flexins_destroy_comp_channel(c->ch), 0);
}

/* Several channels at once, each with its own way: thousands of arms against CQEs that come at any moment. */
static void races(bool burst)
{
	struct consumer c[3] = {{.nonblocking = false}, {.nonblocking = true}, {.solicited = 1}};

	t.burst = burst;
	for (int i = 0; i < 3; i++)
		set_up(&c[i], i == 2 ? 1 : CQS);
	for (int i = 0; i < 3; i++) {
		for (unsigned k = 0; k < c[i].ncqs; k++)
			order(c[i].cq[k], ROUNDS, i == 2 ? FX_WCF_SOLICITED : 0);
		pthread_create(&c[i].thread, NULL, consume, &c[i]);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(c[i].thread, NULL);
	for (int i = 0; i < 3; i++) {
		assert_true(c[i].events > 0);
		take_down(&c[i]);
	}
}

static void arms_against_a_trickle(void **state)
{
	(void)state;
	races(false);
}

static void arms_against_bursts(void **state)
{
	(void)state;
	races(true);
}

/* Two threads wait on one channel: no event is taken twice, none is lost. */
static void *take_one(void *arg)
{
	struct ibv_comp_channel *ch = arg;
	struct ibv_cq *cq = NULL;
	void *cookie;

	return flexins_get_cq_event(ch, &cq, &cookie) ? NULL : cq;
}

static void two_threads_on_a_channel(void **state)
{
	struct ibv_comp_channel *ch = flexins_create_comp_channel(ctx);
	struct ibv_cq *cq[2] = {make(ch), make(ch)};

	(void)state;
	for (int round = 0; round < 200; round++) {
		pthread_t thread[2];
		void *got[2];

		for (int i = 0; i < 2; i++) {
			assert_int_equal(flexins_req_notify_cq(cq[i], 0), 0);
			pthread_create(&thread[i], NULL, take_one, ch);
		}
		for (int i = 0; i < 2; i++)
			order(cq[i], 1, 0);
		for (int i = 0; i < 2; i++)
			pthread_join(thread[i], &got[i]);
		assert_true((got[0] == cq[0] && got[1] == cq[1]) || (got[0] == cq[1] && got[1] == cq[0]));
		for (int i = 0; i < 2; i++) {
			flexins_ack_cq_events(cq[i], 1);
			drain(cq[i]);
		}
	}
	assert_false(readable(ch->fd, 0));
	for (int i = 0; i < 2; i++)
		assert_int_equal(flexins_destroy_cq(cq[i]), 0);
	assert_int_equal(flexins_destroy_comp_channel(ch), 0);
}

/* ---- when an arm fires ---- */

static void wait_written(struct ibv_cq *cq, uint32_t n)
{
	while (line_of(cq)->written < n)
		play_pause();
}

static void what_fires(void **state)
{
	struct ibv_comp_channel *ch = flexins_create_comp_channel(ctx);
	struct ibv_cq *cq = make(ch);

	(void)state;
	order(cq, 3, 0);
	wait_written(cq, 3);
	assert_false(readable(ch->fd, 50)); /* nobody armed */
	assert_int_equal(flexins_req_notify_cq(cq, 1), 0);
	assert_false(readable(ch->fd, 50)); /* none of them is solicited */
	assert_int_equal(flexins_req_notify_cq(cq, 0), 0);
	assert_true(
		readable(ch->fd, PLAY_WAIT_MS)); /* they were there before, and nobody had consumed them */
	assert_int_equal(flexins_req_notify_cq(cq, 0), 0);
	take(ch, cq);
	assert_false(readable(ch->fd, 50)); /* one event, however often it was armed */
	/* what that event told of does not fire again, consumed or not; what comes next does */
	assert_int_equal(flexins_req_notify_cq(cq, 0), 0);
	assert_false(readable(ch->fd, 50));
	order(cq, 1, 0);
	take(ch, cq);
	assert_int_equal(drain(cq), 4);
	assert_int_equal(flexins_req_notify_cq(cq, 1), 0);
	order(cq, 5, 0);
	wait_written(cq, 9);
	assert_false(readable(ch->fd, 50));
	order(cq, 1, FX_WCF_SOLICITED);
	take(ch, cq);
	flexins_ack_cq_events(cq, 3);
	assert_int_equal(flexins_destroy_cq(cq), 0);
	assert_int_equal(flexins_destroy_comp_channel(ch), 0);
}

static void without_a_channel(void **state)
{
	struct ibv_cq *cq = make(NULL);

	(void)state;
	assert_int_equal(flexins_req_notify_cq(cq, 0), 0);
	assert_int_equal(flexins_destroy_cq(cq), 0);
	assert_int_equal(t.play->seen[FX_CMD_CQ_ADD], 1); /* its worker knows it all the same, */
	assert_int_equal(t.play->seen[FX_CMD_CQ_DEL], 1); /* ... to its end */
}

/* ---- acknowledging and destroying ---- */

static void *destroy(void *arg)
{
	return (void *)(intptr_t)flexins_destroy_cq(arg);
}

static void destroy_waits_for_acknowledgements(void **state)
{
	struct ibv_comp_channel *ch = flexins_create_comp_channel(ctx);
	struct ibv_cq *cq = make(ch);
	pthread_t thread;
	void *err;

	(void)state;
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(flexins_req_notify_cq(cq, 0), 0);
		order(cq, 1, 0);
		take(ch, cq);
	}
	flexins_ack_cq_events(cq, 1);
	pthread_create(&thread, NULL, destroy, cq);
	for (int i = 0; i < 2; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		assert_int_equal(pthread_tryjoin_np(thread, &err), EBUSY);
		flexins_ack_cq_events(cq, 1);
	}
	pthread_join(thread, &err);
	assert_null(err);
	assert_int_equal(flexins_destroy_comp_channel(ch), 0);
}

/* A CQ's event that nobody took goes with it; its neighbour's stays, and so does what a blocked thread waits for. */
static void destroy_takes_events_back(void **state)
{
	struct ibv_comp_channel *ch = flexins_create_comp_channel(ctx);
	struct ibv_cq *stays = make(ch);

	(void)state;
	for (int round = 0; round < 100; round++) {
		struct ibv_cq *goes = make(ch);
		pthread_t thread;
		void *got;

		for (int k = 0; k < 2; k++) {
			struct ibv_cq *cq = (round + k) % 2 ? goes : stays;

			assert_int_equal(flexins_req_notify_cq(cq, 0), 0);
			order(cq, 1, 0);
			wait_written(cq, cq == goes ? 1 : (uint32_t)round + 1);
		}
		assert_true(readable(ch->fd, PLAY_WAIT_MS));
		if (round % 3 == 0)
			pthread_create(&thread, NULL, take_one, ch);
		else if (round % 3 == 1)
			take(ch, round % 2 ? goes : stays),
				flexins_ack_cq_events(round % 2 ? goes : stays, 1);
		if (round % 3 == 0) { /* it may have got the one that goes: then it is to be acknowledged */
			pthread_join(thread, &got);
			flexins_ack_cq_events(got, 1);
		}
		assert_int_equal(flexins_destroy_cq(goes), 0);
		if (fx_cq_of(stays)->arm)
			take(ch, stays), flexins_ack_cq_events(stays, 1);
		drain(stays);
		assert_false(readable(ch->fd, 0));
	}
	assert_int_equal(flexins_destroy_cq(stays), 0);
	assert_int_equal(flexins_destroy_comp_channel(ch), 0);
}

/* A thread has read the byte of a CQ that goes, and finds its neighbour's record, whose byte is not there yet. */
static void a_byte_after_its_record(void **state)
{
	struct ibv_comp_channel *ch = flexins_create_comp_channel(ctx);
	struct ibv_cq *stays = make(ch), *goes = make(ch);
	struct fx_wake *wake = &fx_channel_of(ch)->wake;

	(void)state;
	assert_int_equal(flexins_req_notify_cq(goes, 0), 0);
	order(goes, 1, 0);
	assert_int_equal(fx_wake_read(fx_context_of(ctx), wake), 1);
	pthread_mutex_unlock(&fx_context_of(ctx)->lock); /* as if it waited for it */
	assert_int_equal(flexins_destroy_cq(goes), 0);
	t.late = true;
	assert_int_equal(flexins_req_notify_cq(stays, 0), 0);
	order(stays, 1, 0);
	pthread_mutex_lock(&fx_context_of(ctx)->lock);
	while (!fx_cq_of(stays)->has_event)
		fx_events_sort(fx_context_of(ctx));
	fx_channel_remove(fx_cq_of(stays));
	fx_wake_done(fx_context_of(ctx), wake, true);
	assert_false(readable(ch->fd, 100));
	assert_int_equal(wake->owed, 0);
	assert_int_equal(flexins_destroy_cq(stays), 0);
	assert_int_equal(flexins_destroy_comp_channel(ch), 0);
}

/* rping cancels the thread that waits: nothing may stay locked or be waited for. */
static void a_cancelled_waiter(void **state)
{
	struct ibv_comp_channel *ch = flexins_create_comp_channel(ctx);
	struct ibv_cq *cq = make(ch);

	(void)state;
	for (int i = 0; i < 50; i++) {
		pthread_t thread;

		pthread_create(&thread, NULL, take_one, ch);
		if (i % 2)
			play_pause();
		pthread_cancel(thread);
		pthread_join(thread, NULL);
	}
	assert_int_equal(flexins_req_notify_cq(cq, 0), 0);
	order(cq, 1, 0);
	take(ch, cq);
	flexins_ack_cq_events(cq, 1);
	assert_int_equal(fx_channel_of(ch)->wake.readers, 0);
	assert_int_equal(flexins_destroy_cq(cq), 0);
	assert_int_equal(flexins_destroy_comp_channel(ch), 0);
}

/* ---- asynchronous events, and the end ---- */

static void asynchronous_events(void **state)
{
	struct ibv_pd *pd = flexins_alloc_pd(ctx);
	struct ibv_cq *cq = make(NULL);
	struct ibv_qp_init_attr init = {
		.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = {1, 1, 1, 1, 0}};
	struct ibv_async_event event;
	struct ibv_qp *qp[2];

	(void)state;
	assert_int_equal(fcntl(ctx->async_fd, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(flexins_get_async_event(ctx, &event), -1);
	assert_int_equal(errno, EAGAIN);
	for (int i = 0; i < 2; i++) {
		qp[i] = flexins_create_qp(pd, &init);
		assert_non_null(qp[i]);
		t.object = fx_qp_of(qp[i])->subject.cookie;
		t.async = 2;
		while (t.async)
			play_pause();
	}
	assert_true(readable(ctx->async_fd, 0));
	assert_int_equal(flexins_get_async_event(ctx, &event), 0);
	assert_int_equal(event.event_type, EV_QP_FATAL);
	assert_true(event.element.qp == qp[0]);
	flexins_ack_async_event(&event);
	assert_int_equal(flexins_destroy_qp(qp[0]), 0); /* and its second event */
	assert_int_equal(flexins_get_async_event(ctx, &event), 0);
	assert_true(event.element.qp == qp[1]);
	flexins_ack_async_event(&event);
	assert_true(readable(ctx->async_fd, 0));
	assert_int_equal(flexins_destroy_qp(qp[1]), 0);
	assert_false(readable(ctx->async_fd, 0));
	assert_int_equal(flexins_destroy_cq(cq), 0);
	assert_int_equal(flexins_dealloc_pd(pd), 0);
}

static void *end_core(void *arg)
{
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	fx_control_stop(arg);
	return NULL;
}

static void the_end_of_the_core(void **state)
{
	struct ibv_comp_channel *ch = flexins_create_comp_channel(ctx);
	struct ibv_cq *armed = make(ch), *idle = make(ch), *cq;
	struct ibv_async_event event;
	pthread_t thread;
	void *cookie;

	(void)state;
	assert_int_equal(flexins_req_notify_cq(armed, 0), 0);
	pthread_create(&thread, NULL, end_core, t.play->ctl);
	take(ch, armed); /* the last one */
	flexins_ack_cq_events(armed, 1);
	pthread_join(thread, NULL);
	assert_int_equal(flexins_req_notify_cq(armed, 0), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(flexins_get_cq_event(ch, &cq, &cookie), -1);
		assert_int_equal(errno, EIO);
	}
	assert_int_equal(flexins_get_async_event(ctx, &event), 0);
	assert_int_equal(event.event_type, IBV_EVENT_DEVICE_FATAL);
	flexins_ack_async_event(&event);
	assert_int_equal(flexins_get_async_event(ctx, &event), -1);
	assert_int_equal(errno, EIO);
	assert_int_equal(flexins_destroy_cq(armed), 0);
	assert_int_equal(flexins_destroy_cq(idle), 0);
	assert_int_equal(flexins_destroy_comp_channel(ch), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(arms_against_a_trickle),	 TEST(arms_against_bursts),
		TEST(two_threads_on_a_channel),	 TEST(what_fires),
		TEST(without_a_channel),	 TEST(destroy_waits_for_acknowledgements),
		TEST(destroy_takes_events_back), TEST(a_byte_after_its_record),
		TEST(a_cancelled_waiter),	 TEST(asynchronous_events),
		TEST(the_end_of_the_core),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
