/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many processes at once on one device: crowd PROCESSES KILLED ROUNDS. They are forked in pairs, open the device, connect
 * QPs with their partner, and write and send to it in turns; every byte is checked. One each of the first KILLED pairs
 * is killed on the way, and its partner has to notice. Says what became of whom; exit status 0: what should have.
 *
 * Room: tests. May use: verbs only; it runs unmodified on any device.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rc.h"

enum { MAX = 256, QPS = 4, ROOM = 4096, PATIENCE_S = 60, LOST = 3, FAILED = 1 };

/* What partners tell each other. */
struct card {
	uint32_t qpn[QPS], rkey;
	uint64_t addr;
};

static unsigned me;
static int partner; /* socket */
static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static struct ibv_qp *qps[QPS];
/* A QP's: sent from, received into, written into by the partner. */
static uint8_t (*buf)[3][ROOM];
static struct card theirs;

__attribute__((format(printf, 3, 4))) static void need(bool ok, int status, const char *fmt, ...)
{
	va_list ap;

	if (ok)
		return;
	if (status == FAILED) {
		printf("process %u: ", me);
		va_start(ap, fmt);
		vprintf(fmt, ap);
		va_end(ap);
		printf(": failed\n");
		fflush(stdout);
	}
	_exit(status);
}

static void tell(const void *what, size_t size)
{
	need(send(partner, what, size, MSG_NOSIGNAL) == (ssize_t)size, LOST, "tell");
}

static void hear(void *what, size_t size)
{
	need(recv(partner, what, size, MSG_WAITALL) == (ssize_t)size, LOST, "hear");
}

static bool partner_lives(void)
{
	char c;
	ssize_t n = recv(partner, &c, 1, MSG_PEEK | MSG_DONTWAIT);

	return n > 0 || (n < 0 && errno == EAGAIN);
}

/* ---- set-up ---- */

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	need(list && list[0], FAILED, "device list");
	ctx = ibv_open_device(list[0]);
	need(ctx, FAILED, "open");
	ibv_free_device_list(list);
	pd = ibv_alloc_pd(ctx);
	need(pd, FAILED, "PD");
	cq = ibv_create_cq(ctx, 64, NULL, NULL, 0);
	need(cq, FAILED, "CQ");
	buf = aligned_alloc(4096, sizeof(*buf) * QPS);
	need(buf, FAILED, "memory");
	memset(buf, 0, sizeof(*buf) * QPS);
	mr = ibv_reg_mr(pd, buf, sizeof(*buf) * QPS, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	need(mr, FAILED, "MR");
	for (int i = 0; i < QPS; i++) {
		struct ibv_qp_init_attr attr = {
			.send_cq = cq,
			.recv_cq = cq,
			.qp_type = IBV_QPT_RC,
			.cap = {.max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1}};

		qps[i] = ibv_create_qp(pd, &attr);
		need(qps[i], FAILED, "QP");
	}
}

static void connect_to(struct ibv_qp *qp, uint32_t peer)
{
	union ibv_gid gid;

	need(ibv_query_gid(ctx, 1, 0, &gid) == 0, FAILED, "GID");
	need(rc_connect(qp, peer, &gid, IBV_ACCESS_REMOTE_WRITE) == 0, FAILED, "connecting");
}

static void post_recv(int q)
{
	struct ibv_sge sge = {.addr = (uintptr_t)buf[q][1], .length = ROOM, .lkey = mr->lkey};
	struct ibv_recv_wr *bad, wr = {.wr_id = (uint64_t)q, .sg_list = &sge, .num_sge = 1};

	need(ibv_post_recv(qps[q], &wr, &bad) == 0, FAILED, "post_recv");
}

static void meet(void)
{
	struct card mine = {.rkey = mr->rkey, .addr = (uintptr_t)buf};
	char c;

	for (int i = 0; i < QPS; i++)
		mine.qpn[i] = qps[i]->qp_num;
	tell(&mine, sizeof(mine));
	hear(&theirs, sizeof(theirs));
	for (int i = 0; i < QPS; i++) {
		connect_to(qps[i], theirs.qpn[i]);
		post_recv(i);
	}
	tell("", 1); /* both are ready to receive */
	hear(&c, 1);
}

/* ---- talking ---- */

static uint8_t expect(unsigned who, unsigned round, unsigned i)
{
	return (uint8_t)(who * 31 + round * 7 + i * 13 + (i >> 8));
}

static unsigned length_of(unsigned round)
{
	return 1 + round * 977 % ROOM;
}

/* A WRITE and a SEND of the same bytes behind it. */
static void speak(unsigned round)
{
	unsigned q = round % QPS, len = length_of(round);
	struct ibv_sge sge = {.addr = (uintptr_t)buf[q][0], .length = len, .lkey = mr->lkey};
	struct ibv_send_wr *bad,
		wr[2] = {
			{.next = &wr[1],
			 .sg_list = &sge,
			 .num_sge = 1,
			 .opcode = IBV_WR_RDMA_WRITE,
			 .wr.rdma = {.remote_addr = theirs.addr + (q * 3 + 2) * ROOM, .rkey = theirs.rkey}},
			{.sg_list = &sge,
			 .num_sge = 1,
			 .opcode = IBV_WR_SEND,
			 .send_flags = IBV_SEND_SIGNALED},
		};

	for (unsigned i = 0; i < len; i++)
		buf[q][0][i] = expect(me, round, i);
	need(ibv_post_send(qps[q], wr, &bad) == 0, FAILED, "post_send");
}

/* Its own SEND's completion and the partner's message, in any order. */
static void listen_to(unsigned round, bool sent, bool heard)
{
	unsigned q = round % QPS, len = length_of(round);
	time_t end = time(NULL) + PATIENCE_S;
	struct ibv_wc wc;

	for (unsigned idle = 0; !sent || !heard;) {
		int n = ibv_poll_cq(cq, 1, &wc);

		need(n >= 0, FAILED, "poll_cq");
		if (!n) {
			if (++idle % 1024 == 0)
				need(partner_lives(), LOST, "partner");
			need(time(NULL) < end, FAILED, "round %u: %d s without a completion", round,
			     PATIENCE_S);
			continue;
		}
		need(wc.status != IBV_WC_RETRY_EXC_ERR && wc.status != IBV_WC_WR_FLUSH_ERR, LOST,
		     "completion");
		need(wc.status == IBV_WC_SUCCESS, FAILED, "round %u: %s", round,
		     ibv_wc_status_str(wc.status));
		if (!(wc.opcode & IBV_WC_RECV)) {
			sent = true;
			continue;
		}
		heard = true;
		need(wc.byte_len == len, FAILED, "round %u: %u bytes instead of %u", round, wc.byte_len, len);
		for (unsigned k = 1; k < 3; k++)
			for (unsigned i = 0; i < len; i++)
				need(buf[q][k][i] == expect(me ^ 1, round, i), FAILED,
				     "round %u: byte %u (%s)", round, i, k == 1 ? "sent" : "written");
		post_recv((int)q);
	}
}

static void leave(void)
{
	for (int i = 0; i < QPS; i++)
		need(ibv_destroy_qp(qps[i]) == 0, FAILED, "destroy_qp");
	need(!ibv_dereg_mr(mr) && !ibv_destroy_cq(cq) && !ibv_dealloc_pd(pd) && !ibv_close_device(ctx),
	     FAILED, "leaving");
}

/* `ready`: told once traffic runs. rounds 0: until somebody ends it. */
static void live(int ready, unsigned rounds)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	open_device();
	meet();
	for (unsigned r = 0; !rounds || r < rounds; r++) {
		bool first = (r ^ me) & 1; /* who speaks last in one round speaks first in the next */

		if (!first)
			listen_to(r, true, false);
		speak(r);
		listen_to(r, false, !first);
		if (r == QPS)
			need(write(ready, "", 1) == 1, FAILED, "ready");
	}
	tell("", 1); /* nobody leaves before the other has all of it */
	hear(&c, 1);
	leave();
	_exit(0);
}

int main(int argc, char **argv)
{
	unsigned n = argc == 4 ? (unsigned)atoi(argv[1]) : 0, killed = n ? (unsigned)atoi(argv[2]) : 0;
	unsigned rounds = n ? (unsigned)atoi(argv[3]) : 0, right = 0;
	pid_t pid[MAX];
	int ready[2];
	char c;

	need(n && n % 2 == 0 && n <= MAX && killed <= n / 2 && pipe(ready) == 0, FAILED, "arguments");
	for (unsigned i = 0; i < n; i += 2) {
		int s[2];

		need(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0, FAILED, "socketpair");
		for (me = i; me < i + 2; me++) {
			partner = s[me - i];
			pid[me] = fork();
			need(pid[me] >= 0, FAILED, "fork");
			if (!pid[me]) {
				close(s[1 - (me - i)]); /* so that the end of the partner shows */
				live(ready[1], i / 2 < killed ? 0 : rounds);
			}
		}
		close(s[0]);
		close(s[1]);
	}
	close(ready[1]);
	for (unsigned i = 0; i < n; i++)
		need(read(ready[0], &c, 1) == 1, FAILED, "%u processes of %u came to life", i, n);
	for (unsigned i = 0; i < killed; i++)
		kill(pid[2 * i], SIGKILL);
	for (unsigned i = 0; i < n; i++) {
		int status, want = i / 2 >= killed ? 0 : i % 2 ? LOST : -1;

		need(waitpid(pid[i], &status, 0) == pid[i], FAILED, "waitpid");
		if (want < 0 ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == want)
			right++;
		else
			printf("process %u: status %#x\n", i, (unsigned)status);
	}
	printf("%u of %u processes ended as they should\n", right, n);
	return right != n;
}
