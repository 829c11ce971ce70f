/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section channel: completion channels, arms and their events.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <pthread.h>
#include <sched.h>

#include "sections.h"

static struct rig *rig_with_channels(void)
{
	struct spec s = usual();

	s.channels = true;
	s.two_cqs = true;
	return rig_make(&s);
}

static void arm(struct ibv_cq *cq)
{
	NEED_EQ(ibv_req_notify_cq(cq, 0), 0);
}

static bool quiet(const struct ibv_comp_channel *ch)
{
	return !readable(ch->fd, QUIET_MS);
}

static void one_write(struct rig *r, uint64_t wr_id)
{
	post_many(r, IBV_WR_RDMA_WRITE, wr_id, 1, 8, IBV_SEND_SIGNALED);
}

static void one_send(struct rig *r, unsigned flags)
{
	struct work w = work(r, IBV_WR_SEND, 1, 0, 0, 8);

	post_recv(&r->b, 2, 0, 64);
	w.wr.send_flags = IBV_SEND_SIGNALED | flags;
	post(r->a.qp, &w);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

static void unarmed(const struct row *row)
{
	struct rig *r = rig_with_channels();

	(void)row;
	one_write(r, 1);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	NEED(quiet(r->a.channel));
}

static void arm_before(const struct row *row)
{
	struct rig *r = rig_with_channels();

	(void)row;
	arm(r->a.scq);
	NEED(quiet(r->a.channel));
	one_write(r, 1);
	need_cq_event(r->a.channel, r->a.scq);
	ibv_ack_cq_events(r->a.scq, 1);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

/*
 * A completion that is there already need not fire an arm; so programs poll once more after arming. What must not be is
 * that neither the poll nor the event finds it.
 */
static void arm_after(const struct row *row)
{
	struct rig *r = rig_with_channels();
	struct ibv_wc wc;

	(void)row;
	for (uint64_t i = 0; i < 200; i++) {
		one_write(r, i);
		arm(r->a.scq);
		if (ibv_poll_cq(r->a.scq, 1, &wc) == 0) {
			need_cq_event(r->a.channel, r->a.scq);
			ibv_ack_cq_events(r->a.scq, 1);
			wc = completion(r->a.scq);
		}
		NEED_EQ(wc.wr_id, i);
		NEED_EQ(wc.status, IBV_WC_SUCCESS);
		while (readable(r->a.channel->fd, 0)) {
			need_cq_event(r->a.channel, r->a.scq);
			ibv_ack_cq_events(r->a.scq, 1);
		}
	}
}

static void one_shot(const struct row *row)
{
	struct rig *r = rig_with_channels();

	(void)row;
	arm(r->a.scq);
	arm(r->a.scq); /* twice is once */
	for (uint64_t i = 1; i <= 10; i++)
		one_write(r, i);
	need_cq_event(r->a.channel, r->a.scq);
	for (uint64_t i = 1; i <= 10; i++)
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	NEED(quiet(r->a.channel));
	ibv_ack_cq_events(r->a.scq, 1);
	one_write(r, 11);
	need_wc(r->a.scq, 11, IBV_WC_SUCCESS);
	NEED(quiet(r->a.channel));
}

static void solicited(const struct row *row)
{
	struct rig *r = rig_with_channels();

	(void)row;
	NEED_EQ(ibv_req_notify_cq(r->b.rcq, 1), 0);
	one_send(r, 0);
	need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
	NEED(quiet(r->b.channel));
	one_send(r, IBV_SEND_SOLICITED);
	need_cq_event(r->b.channel, r->b.rcq);
	ibv_ack_cq_events(r->b.rcq, 1);
	need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
}

static void solicited_write_imm(const struct row *row)
{
	struct rig *r = rig_with_channels();
	struct work w = work(r, IBV_WR_RDMA_WRITE_WITH_IMM, 1, 0, 0, 8);

	(void)row;
	NEED_EQ(ibv_req_notify_cq(r->b.rcq, 1), 0);
	post_recv(&r->b, 2, 0, 64);
	post_recv(&r->b, 3, 0, 64);
	post(r->a.qp, &w);
	need_wc(r->b.rcq, 2, IBV_WC_SUCCESS);
	NEED(quiet(r->b.channel));
	w.wr.send_flags |= IBV_SEND_SOLICITED;
	post(r->a.qp, &w);
	need_cq_event(r->b.channel, r->b.rcq);
	ibv_ack_cq_events(r->b.rcq, 1);
	need_wc(r->b.rcq, 3, IBV_WC_SUCCESS);
}

/* An arm for any completion is not narrowed by a later one for solicited ones. */
static void wider_stays(const struct row *row)
{
	struct rig *r = rig_with_channels();

	(void)row;
	arm(r->b.rcq);
	NEED_EQ(ibv_req_notify_cq(r->b.rcq, 1), 0);
	one_send(r, 0);
	need_cq_event(r->b.channel, r->b.rcq);
	ibv_ack_cq_events(r->b.rcq, 1);
}

static void narrow_widens(const struct row *row)
{
	struct rig *r = rig_with_channels();

	(void)row;
	NEED_EQ(ibv_req_notify_cq(r->b.rcq, 1), 0);
	arm(r->b.rcq);
	one_send(r, 0);
	need_cq_event(r->b.channel, r->b.rcq);
	ibv_ack_cq_events(r->b.rcq, 1);
}

static void errors_are_solicited(const struct row *row)
{
	struct rig *r = rig_with_channels();

	(void)row;
	NEED_EQ(ibv_req_notify_cq(r->b.rcq, 1), 0);
	post_recv(&r->b, 2, 0, 64);
	to_state(r->b.qp, IBV_QPS_ERR);
	need_cq_event(r->b.channel, r->b.rcq);
	ibv_ack_cq_events(r->b.rcq, 1);
	need_wc(r->b.rcq, 2, IBV_WC_WR_FLUSH_ERR);
}

static void several_cqs(const struct row *row)
{
	struct rig *r = rig_with_channels();
	struct ibv_cq *first, *second;
	void *context;

	(void)row;
	/* both of a's CQs are on one channel */
	arm(r->a.scq);
	arm(r->a.rcq);
	post_recv(&r->a, 9, 0, 64);
	one_write(r, 1);
	to_state(r->a.qp, IBV_QPS_ERR);
	NEED_EQ(ibv_get_cq_event(r->a.channel, &first, &context), 0);
	NEED_EQ(ibv_get_cq_event(r->a.channel, &second, &context), 0);
	NEED(first != second && (first == r->a.scq || first == r->a.rcq) &&
	     (second == r->a.scq || second == r->a.rcq));
	ibv_ack_cq_events(first, 1);
	ibv_ack_cq_events(second, 1);
	NEED(quiet(r->a.channel));
}

static void nonblocking_get(const struct row *row)
{
	struct rig *r = rig_with_channels();
	struct ibv_cq *cq;
	void *context;

	(void)row;
	nonblocking(r->a.channel->fd);
	errno = 0;
	NEED_EQ(ibv_get_cq_event(r->a.channel, &cq, &context), -1);
	NEED_EQ(errno, EAGAIN);
	arm(r->a.scq);
	one_write(r, 1);
	need_cq_event(r->a.channel, r->a.scq);
	ibv_ack_cq_events(r->a.scq, 1);
	NEED_EQ(ibv_get_cq_event(r->a.channel, &cq, &context), -1);
	NEED_EQ(errno, EAGAIN);
}

static void *sends_later(void *arg)
{
	sleep_ms(50);
	one_write(arg, 1);
	return NULL;
}

static void blocking_get(const struct row *row)
{
	struct rig *r = rig_with_channels();
	uint64_t start = now_ms();
	struct ibv_cq *cq;
	void *context;
	pthread_t t;

	(void)row;
	arm(r->a.scq);
	NEED_EQ(pthread_create(&t, NULL, sends_later, r), 0);
	NEED_EQ(ibv_get_cq_event(r->a.channel, &cq, &context), 0);
	NEED(now_ms() - start >= 45 && cq == r->a.scq);
	pthread_join(t, NULL);
	ibv_ack_cq_events(cq, 1);
}

/* Events may be acknowledged together, and the destruction waits for that. */
static void *acks_later(void *arg)
{
	sleep_ms(100);
	ibv_ack_cq_events(arg, 3);
	return NULL;
}

static void destroy_waits(const struct row *row)
{
	struct rig *r = rig_with_channels();
	uint64_t start;
	pthread_t t;

	(void)row;
	for (uint64_t i = 1; i <= 3; i++) {
		arm(r->a.scq);
		one_write(r, i);
		need_cq_event(r->a.channel, r->a.scq);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
	}
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	start = now_ms();
	NEED_EQ(pthread_create(&t, NULL, acks_later, r->a.scq), 0);
	NEED_EQ(ibv_destroy_cq(r->a.scq), 0);
	NEED(now_ms() - start >= 90);
	pthread_join(t, NULL);
	NEED_EQ(ibv_destroy_cq(r->a.rcq), 0);
	r->a.qp = NULL;
	r->a.scq = r->a.rcq = NULL;
}

static void untaken(const struct row *row)
{
	struct rig *r = rig_with_channels();

	(void)row;
	arm(r->a.scq);
	one_write(r, 1);
	NEED(readable(r->a.channel->fd, PATIENCE_MS));
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	NEED_EQ(ibv_destroy_cq(r->a.scq), 0); /* takes its event along */
	NEED(quiet(r->a.channel));
	NEED_EQ(ibv_destroy_cq(r->a.rcq), 0);
	r->a.qp = NULL;
	r->a.scq = r->a.rcq = NULL;
}

static void busy(const struct row *row)
{
	struct rig *r = rig_with_channels();

	(void)row;
	NEED_EQ(ibv_destroy_comp_channel(r->a.channel), EBUSY);
	one_write(r, 1);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

static void without_channel(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	arm(r->a.scq);
	one_write(r, 1);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

/* ---- races ---- */

static volatile int armed_once, armed_all; /* of the thread that hammers */

static void *arms(void *cq)
{
	while (!__atomic_load_n(&armed_all, __ATOMIC_RELAXED)) {
		ibv_req_notify_cq(cq, 0);
		__atomic_store_n(&armed_once, 1, __ATOMIC_RELEASE); /* the arm is in the device's hands */
	}
	return NULL;
}

/* While another thread arms without end, no event comes that is not the CQ's, and all completions come. */
static void hammered(const struct row *row)
{
	struct rig *r = rig_with_channels();
	unsigned events = 0;
	struct ibv_cq *cq;
	void *context;
	pthread_t t;

	(void)row;
	nonblocking(r->a.channel->fd);
	NEED_EQ(pthread_create(&t, NULL, arms, r->a.scq), 0);
	while (!__atomic_load_n(&armed_once, __ATOMIC_ACQUIRE))
		sched_yield();
	for (uint64_t i = 0; i < 2000; i++) {
		one_write(r, i);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
		while (!ibv_get_cq_event(r->a.channel, &cq, &context)) {
			NEED(cq == r->a.scq);
			events++;
		}
	}
	__atomic_store_n(&armed_all, 1, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	while (readable(r->a.channel->fd, QUIET_MS) && !ibv_get_cq_event(r->a.channel, &cq, &context))
		events++;
	NEED(events > 0 && events <= 2001);
	row_note("%u events of 2000 completions", events);
	ibv_ack_cq_events(r->a.scq, events);
}

/* Sleep, wake, arm, poll: no completion is slept through. */
static void sleeper(const struct row *row)
{
	enum { TURNS = 3000 };
	struct rig *r = rig_with_channels();
	struct ibv_wc wc;

	(void)row;
	arm(r->a.scq);
	for (uint64_t i = 0, taken = 0; taken < TURNS;) {
		for (; i < TURNS && i < taken + 5; i++)
			one_write(r, i);
		need_cq_event(r->a.channel, r->a.scq);
		ibv_ack_cq_events(r->a.scq, 1);
		arm(r->a.scq);
		while (ibv_poll_cq(r->a.scq, 1, &wc) > 0)
			NEED_EQ(wc.wr_id, taken++);
	}
}

static const struct row rows[] = {
	{"no event without an arm", "11.4.2.2", unarmed},
	{"arm, then complete", "11.4.2.2", arm_before},
	{"complete, then arm, then poll", "11.4.2.2", arm_after},
	{"an arm is good once", "11.4.2.2", one_shot},
	{"solicited only: SEND", "11.4.2.2", solicited},
	{"solicited only: WRITE with immediate", "9.2.3", solicited_write_imm},
	{"any, then solicited only", "11.4.2.2", wider_stays},
	{"solicited only, then any", "11.4.2.2", narrow_widens},
	{"errors count as solicited", "11.4.2.2", errors_are_solicited},
	{"several CQs on one channel", "ibv_create_comp_channel(3)", several_cqs},
	{"non-blocking", "ibv_get_cq_event(3)", nonblocking_get},
	{"blocking", "ibv_get_cq_event(3)", blocking_get},
	{"destroying waits for acknowledgements", "ibv_ack_cq_events(3)", destroy_waits},
	{"destroying takes events back", "ibv_get_cq_event(3)", untaken},
	{"channel in use by a CQ", "ibv_create_comp_channel(3)", busy},
	{"arm of a CQ without a channel", "ibv_req_notify_cq(3)", without_channel},
	{"a thread that arms without end", "11.4.2.2", hammered},
	{"sleep until each completion", "ibv_get_cq_event(3)", sleeper},
};

const struct section section_channel = {"channel", "completion channels", rows, COUNT(rows)};
