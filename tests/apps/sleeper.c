/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sleeps until completions that never come, on three channels: blocking, by poll() on a non-blocking descriptor, and
 * without having armed anything. A signal whose handler restarts system calls arrives every 10 ms. Once the core is
 * gone, each has to find out: the armed ones by an event and flush completions, and then all by errors. Exits with 0 if
 * it was so; prints "asleep" when it may begin.
 *
 * Room: tests. May use: verbs and threads only.
 */
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

enum { WAYS = 3, RECVS = 8 };
enum way { BLOCKING, POLLING, NOT_ARMED };

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static volatile sig_atomic_t ticks;
static struct sleeper {
	enum way way;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	pthread_t thread;
} sleepers[WAYS];

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	printf("%s failed: errno %d\n", what, errno);
	exit(1);
}

static void tick(int sig)
{
	(void)sig;
	ticks++;
}

static void prepare(struct sleeper *s)
{
	struct ibv_qp_init_attr init = {
		.cap = {.max_send_wr = 1, .max_recv_wr = RECVS, .max_send_sge = 1, .max_recv_sge = 1},
		.qp_type = IBV_QPT_RC};
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
	struct ibv_recv_wr wr = {.wr_id = 1}, *bad;

	s->channel = ibv_create_comp_channel(ctx);
	need(s->channel, "create_comp_channel");
	s->cq = ibv_create_cq(ctx, 64, s, s->channel, 0);
	need(s->cq, "create_cq");
	init.send_cq = init.recv_cq = s->cq;
	s->qp = ibv_create_qp(pd, &init);
	need(s->qp, "create_qp");
	need(!ibv_modify_qp(s->qp, &attr,
			    IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
	     "modify_qp");
	for (int i = 0; i < RECVS; i++)
		need(!ibv_post_recv(s->qp, &wr, &bad), "post_recv");
	if (s->way != NOT_ARMED)
		need(!ibv_req_notify_cq(s->cq, 0), "req_notify_cq");
	if (s->way == POLLING)
		need(!fcntl(s->channel->fd, F_SETFL, O_NONBLOCK), "O_NONBLOCK");
}

/* As ibv_get_cq_event(), whatever the way. */
static int get_event(struct sleeper *s)
{
	struct pollfd p = {.fd = s->channel->fd, .events = POLLIN};
	struct ibv_cq *cq;
	void *cookie;
	int err;

	if (s->way == POLLING) {
		err = ibv_get_cq_event(s->channel, &cq, &cookie);
		need(err && (errno == EAGAIN || errno == EIO), "EAGAIN from an empty channel");
		while (poll(&p, 1, -1) < 0)
			need(errno == EINTR, "poll");
	}
	err = ibv_get_cq_event(s->channel, &cq, &cookie);
	if (err)
		return errno;
	need(cq == s->cq && cookie == s, "the right CQ");
	ibv_ack_cq_events(cq, 1);
	return 0;
}

static void *sleep_until_the_end(void *arg)
{
	struct sleeper *s = arg;
	struct ibv_wc wc[RECVS + 1];

	errno = get_event(s);
	need(errno == (s->way == NOT_ARMED ? EIO : 0), "the last event");
	need(ibv_poll_cq(s->cq, RECVS + 1, wc) == RECVS, "flush completions");
	for (int i = 0; i < RECVS; i++)
		need(wc[i].status == IBV_WC_WR_FLUSH_ERR && wc[i].wr_id == 1, "a flush completion");
	need(!ibv_req_notify_cq(s->cq, 0), "req_notify_cq after the end");
	errno = s->way == NOT_ARMED ? 0 : get_event(s);
	need(errno == (s->way == NOT_ARMED ? 0 : EIO), "the end of events");
	return NULL;
}

int main(void)
{
	struct sigaction act = {.sa_handler = tick, .sa_flags = SA_RESTART};
	struct itimerval every = {{0, 10000}, {0, 10000}};
	struct ibv_device **list = ibv_get_device_list(NULL);

	setvbuf(stdout, NULL, _IOLBF, 0);
	need(list && list[0], "device list");
	ctx = ibv_open_device(list[0]);
	need(ctx, "open");
	ibv_free_device_list(list);
	pd = ibv_alloc_pd(ctx);
	need(pd, "alloc_pd");
	for (int i = 0; i < WAYS; i++) {
		sleepers[i].way = (enum way)i;
		prepare(&sleepers[i]);
	}
	sigaction(SIGALRM, &act, NULL);
	for (int i = 0; i < WAYS; i++)
		need(!pthread_create(&sleepers[i].thread, NULL, sleep_until_the_end, &sleepers[i]), "thread");
	setitimer(ITIMER_REAL, &every, NULL);
	printf("asleep\n");
	for (int i = 0; i < WAYS; i++)
		pthread_join(sleepers[i].thread, NULL);
	need(ticks > 0, "a signal");
	for (int i = 0; i < WAYS; i++)
		need(!ibv_destroy_qp(sleepers[i].qp) && !ibv_destroy_cq(sleepers[i].cq) &&
			     !ibv_destroy_comp_channel(sleepers[i].channel),
		     "taking down");
	need(!ibv_dealloc_pd(pd) && !ibv_close_device(ctx), "closing");
	return 0;
}
