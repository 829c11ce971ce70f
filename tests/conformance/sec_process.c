/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section process: what happens to a program when its device goes away, or when it forks. The device is one that the row
 * starts itself (--daemon), so that nobody else's goes away.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sections.h"

static pid_t daemon_pid;

static _Noreturn void exec_daemon(const char *name, int ready)
{
	char fd[16];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	unsetenv("LD_PRELOAD"); /* the program's, not the daemon's */
	snprintf(fd, sizeof(fd), "%d", ready);
	execl(options.daemon, options.daemon, "--name", name, "--ready-fd", fd, "--log", "error",
	      (char *)NULL);
	_exit(127);
}

/* From here on the row's device is one of its own. */
static struct rig *own_device(struct spec *s)
{
	struct rig *r;
	char name[64];
	int ready[2];

	if (!options.daemon)
		row_skipped("no --daemon was given");
	snprintf(name, sizeof(name), "conformance-%d", (int)getpid());
	NEED_EQ(pipe(ready), 0);
	daemon_pid = fork();
	NEED(daemon_pid >= 0);
	if (daemon_pid == 0)
		exec_daemon(name, ready[1]);
	close(ready[1]);
	NEED(readable(ready[0], PATIENCE_MS));
	close(ready[0]);
	setenv("FLEXINS_CORE", name, 1);
	r = rig_make(s);
	return r;
}

static void take_away(int sig)
{
	NEED_EQ(kill(daemon_pid, sig), 0);
	NEED_EQ(waitpid(daemon_pid, NULL, 0), daemon_pid);
}

/* Everything outstanding completes, in order, and nothing else does. */
static void outstanding(const struct row *row)
{
	struct spec s = usual();
	struct rig *r;

	s.two_cqs = true;
	r = own_device(&s);
	for (uint64_t i = 0; i < 20; i++)
		post_recv(&r->a, i, 0, 64);
	post_many(r, IBV_WR_SEND, 0, 1, 8, IBV_SEND_SIGNALED); /* no receive: it stays, and all behind it */
	post_many(r, IBV_WR_RDMA_READ, 1, 30, 8, 0);
	take_away((int)row->a);
	for (uint64_t i = 0; i < 31; i++)
		NEED_EQ(need_wc(r->a.scq, i, IBV_WC_WR_FLUSH_ERR).qp_num, r->a.qp->qp_num);
	for (uint64_t i = 0; i < 20; i++)
		need_wc(r->a.rcq, i, IBV_WC_WR_FLUSH_ERR);
	need_quiet(r->a.scq);
	need_quiet(r->b.rcq);
}

static void fatal_once(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = own_device(&s);
	struct ibv_async_event e;

	take_away((int)row->a);
	NEED_EQ(async_event(r->ctx).event_type, IBV_EVENT_DEVICE_FATAL);
	errno = 0;
	NEED_EQ(ibv_get_async_event(r->ctx, &e), -1); /* and no waiting for what cannot come */
	NEED_EQ(errno, EIO);
}

static void *takes_away(void *arg)
{
	sleep_ms(50);
	take_away((int)(intptr_t)arg);
	return NULL;
}

static void wakes_sleepers(const struct row *row)
{
	struct spec s = usual();
	struct ibv_async_event e;
	struct ibv_cq *cq = NULL;
	void *context;
	pthread_t t;
	struct rig *r;

	s.channels = true;
	r = own_device(&s);
	post_recv(&r->a, 7, 0, 64);
	NEED_EQ(ibv_req_notify_cq(r->a.rcq, 0), 0);
	NEED_EQ(pthread_create(&t, NULL, takes_away, (void *)(intptr_t)row->a), 0);
	NEED_EQ(ibv_get_cq_event(r->a.channel, &cq, &context), 0);
	NEED(cq == r->a.rcq);
	ibv_ack_cq_events(cq, 1);
	need_wc(r->a.rcq, 7, IBV_WC_WR_FLUSH_ERR);
	NEED_EQ(ibv_get_cq_event(r->a.channel, &cq, &context), -1);
	NEED_EQ(ibv_get_async_event(r->ctx, &e), 0);
	NEED_EQ(e.event_type, IBV_EVENT_DEVICE_FATAL);
	pthread_join(t, NULL);
}

/* Every call returns, whatever it says. */
static void calls_return(const struct row *row)
{
	struct spec s = usual();
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC, .cap = {.max_send_wr = 1, .max_send_sge = 1}};
	struct ibv_port_attr port;
	struct ibv_qp_attr a;
	struct rig *r = own_device(&s);
	struct work w = work(r, IBV_WR_RDMA_WRITE, 5, 0, 0, 8);

	take_away((int)row->a);
	NEED(!ibv_alloc_pd(r->ctx));
	NEED(!ibv_create_cq(r->ctx, 16, NULL, NULL, 0));
	NEED(!ibv_create_comp_channel(r->ctx));
	NEED(!ibv_reg_mr(r->a.pd, r->a.buf, 4096, ALL_ACCESS));
	init.send_cq = init.recv_cq = r->a.scq;
	NEED(!ibv_create_qp(r->a.pd, &init));
	NEED(ibv_query_qp(r->a.qp, &a, ~0, &init));
	a = (struct ibv_qp_attr){.qp_state = IBV_QPS_ERR};
	NEED(ibv_modify_qp(r->a.qp, &a, IBV_QP_STATE));
	NEED(ibv_query_port(r->ctx, (uint8_t)options.port, &port) || port.state != IBV_PORT_ACTIVE);
	NEED_EQ(ibv_req_notify_cq(r->a.scq, 0), 0);
	if (!try_post(r->a.qp, &w))
		need_wc(r->a.scq, 5, IBV_WC_WR_FLUSH_ERR);
	/* and the rig is destroyed as ever */
}

/* Posting all the time while it goes: what was posted completes, with success or flushed. */
static void in_full_flow(const struct row *row)
{
	uint64_t posted = 0, done = 0, end = now_ms() + PATIENCE_MS;
	struct spec s = usual();
	struct rig *r = own_device(&s);
	bool flushed = false;
	struct ibv_wc wc;
	pthread_t t;

	NEED_EQ(pthread_create(&t, NULL, takes_away, (void *)(intptr_t)row->a), 0);
	while ((!flushed || done < posted) && now_ms() < end) {
		struct work w = work(r, IBV_WR_RDMA_WRITE, posted, 0, 0, 4096);

		if (!flushed && !try_post(r->a.qp, &w))
			posted++;
		while (ibv_poll_cq(r->a.scq, 1, &wc) > 0) {
			NEED_EQ(wc.wr_id, done++);
			flushed |= wc.status == IBV_WC_WR_FLUSH_ERR;
			NEED_EQ(wc.status, flushed ? IBV_WC_WR_FLUSH_ERR : IBV_WC_SUCCESS);
		}
	}
	pthread_join(t, NULL);
	NEED(flushed && done == posted);
	row_note("%llu requests", (unsigned long long)posted);
}

static void opens_again(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = own_device(&s);

	take_away((int)row->a);
	post_recv(&r->a, 1, 0, 64);
	need_wc(r->a.rcq, 1, IBV_WC_WR_FLUSH_ERR);
	rigs_close();
	r = own_device(&s); /* the same program, a new device of the same name */
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
	rigs_close();
	take_away(SIGTERM);
}

/* The parent's connection goes on while a child comes and goes. */
static void forks(const struct row *row)
{
	struct rig *r;
	int status;

	(void)row;
	NEED_EQ(ibv_fork_init(), 0);
	r = rig();
	for (unsigned i = 0; i < 10; i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(0);
		fill(r->a.buf, 5000, i);
		post_many(r, IBV_WR_RDMA_WRITE, i, 1, 5000, IBV_SEND_SIGNALED);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
		NEED(filled(r->b.buf, 5000, i));
		NEED(waitpid(child, &status, 0) == child && status == 0);
	}
}

/* A child opens the device for itself. */
static void child_opens(const struct row *row)
{
	struct rig *r;
	pid_t child;
	int status;

	(void)row;
	NEED_EQ(ibv_fork_init(), 0);
	r = rig();
	child = fork();
	if (child == 0) {
		struct ibv_context *ctx = open_device();
		struct ibv_device_attr a;

		_exit(ibv_query_device(ctx, &a) || ibv_close_device(ctx) ? 1 : 0);
	}
	NEED(waitpid(child, &status, 0) == child && status == 0);
	post_many(r, IBV_WR_RDMA_WRITE, 1, 1, 8, IBV_SEND_SIGNALED);
	need_wc(r->a.scq, 1, IBV_WC_SUCCESS);
}

#define BOTH(name, clause, run)                                                                              \
	{"device killed: " name, clause, run, .a = SIGKILL},                                                 \
	{                                                                                                    \
		"device ended: " name, clause, run, .a = SIGTERM                                             \
	}

static const struct row rows[] = {
	{"fork, and the parent goes on", "ibv_fork_init(3)", forks},
	{"fork, and the child opens the device", "ibv_fork_init(3)", child_opens},
	BOTH("what is outstanding is flushed", "11.6.3.4", outstanding),
	BOTH("IBV_EVENT_DEVICE_FATAL, once", "11.6.3.4", fatal_once),
	BOTH("sleepers wake", "ibv_get_cq_event(3)", wakes_sleepers),
	BOTH("every call returns", "11.6.3.4", calls_return),
	BOTH("in full flow", "11.6.3.4", in_full_flow),
	BOTH("opened again", "ibv_open_device(3)", opens_again),
};

const struct section section_process = {"process", "devices that go away, and fork", rows, COUNT(rows)};
