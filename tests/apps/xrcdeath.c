/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Three processes in an XRC domain. One makes the receiving QP and an SRQ, the second opens that QP and has an SRQ of its
 * own, and we send to both, by turns. Then the first is killed in the midst of it: we are told of an error, its SRQ is no
 * more, and the QP goes on with the second process.
 *
 * Room: tests. May use: verbs only; it runs unmodified on any device.
 */
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "need.h"

enum { ENTRIES = 32, MSG = 3000, ROUNDS = 4, MESSAGES = 200, PSN = 0x777 };

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static uint8_t buf[ENTRIES][4096] __attribute__((aligned(4096)));

static void open_all(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	NEED(list && list[0]);
	ctx = ibv_open_device(list[0]);
	NEED(ctx);
	ibv_free_device_list(list);
	pd = ibv_alloc_pd(ctx);
	cq = ibv_create_cq(ctx, 4 * ENTRIES, NULL, NULL, 0);
	mr = pd ? ibv_reg_mr(pd, buf, sizeof(buf), IBV_ACCESS_LOCAL_WRITE) : NULL;
	NEED(pd && cq && mr);
}

/* All the attributes that either half wants; the peer is in the same machine. */
static void connect_to(struct ibv_qp *qp, uint32_t peer)
{
	struct ibv_qp_attr a = {.port_num = 1,
				.path_mtu = IBV_MTU_1024,
				.dest_qp_num = peer,
				.rq_psn = PSN,
				.sq_psn = PSN,
				.min_rnr_timer = 1,
				.timeout = 14,
				.retry_cnt = 7,
				.rnr_retry = 7,
				.ah_attr = {.is_global = 1, .port_num = 1, .grh.hop_limit = 1}};
	const int init = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
	const int rtr = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	const int rts = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
			IBV_QP_MAX_QP_RD_ATOMIC;

	NEED(!ibv_query_gid(ctx, 1, 0, &a.ah_attr.grh.dgid));
	a.qp_state = IBV_QPS_RESET;
	NEED(!ibv_modify_qp(qp, &a, IBV_QP_STATE));
	a.qp_state = IBV_QPS_INIT;
	NEED(!ibv_modify_qp(qp, &a, init));
	a.qp_state = IBV_QPS_RTR;
	NEED(!ibv_modify_qp(qp, &a, rtr));
	a.qp_state = IBV_QPS_RTS;
	NEED(!ibv_modify_qp(qp, &a, rts));
}

/* ---- who receives: says "QPN SRQN", is told whom to connect to, and takes what comes until its input ends ---- */

static struct ibv_qp *receiving_qp(struct ibv_xrcd *xrcd, uint32_t qpn)
{
	struct ibv_qp_init_attr_ex make = {
		.qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrcd};
	struct ibv_qp_open_attr there = {.comp_mask = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD |
						      IBV_QP_OPEN_ATTR_TYPE,
					 .qp_num = qpn,
					 .xrcd = xrcd,
					 .qp_type = IBV_QPT_XRC_RECV};

	return qpn ? ibv_open_qp(ctx, &there) : ibv_create_qp_ex(ctx, &make);
}

static void take(struct ibv_srq *srq, uint64_t i)
{
	struct ibv_sge sge = {(uintptr_t)buf[i], sizeof(buf[i]), mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1}, *bad;

	NEED(!ibv_post_srq_recv(srq, &wr, &bad));
}

/* The SRQ's number is in every byte of what was sent to it. */
static void take_all(struct ibv_srq *srq, uint32_t number)
{
	struct ibv_wc wc;

	while (ibv_poll_cq(cq, 1, &wc) > 0) {
		if (wc.status == IBV_WC_SUCCESS) {
			NEED(wc.byte_len == MSG);
			for (int i = 0; i < MSG; i++)
				NEED(buf[wc.wr_id][i] == (uint8_t)(number >> 4));
		}
		take(srq, wc.wr_id);
	}
}

static int receive(const char *path, uint32_t qpn)
{
	struct ibv_xrcd_init_attr domain = {.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
					    .fd = open(path, O_RDONLY),
					    .oflags = O_CREAT};
	struct ibv_srq_init_attr_ex shared = {.attr = {.max_wr = ENTRIES, .max_sge = 1},
					      .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD |
							   IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ,
					      .srq_type = IBV_SRQT_XRC};
	struct ibv_srq *srq;
	struct ibv_qp *qp;
	uint32_t number, peer;
	ssize_t n;

	open_all();
	shared.xrcd = ibv_open_xrcd(ctx, &domain);
	shared.pd = pd;
	shared.cq = cq;
	srq = shared.xrcd ? ibv_create_srq_ex(ctx, &shared) : NULL;
	NEED(srq && !ibv_get_srq_num(srq, &number));
	qp = receiving_qp(shared.xrcd, qpn);
	NEED(qp);
	for (uint64_t i = 0; i < ENTRIES; i++)
		take(srq, i);
	NEED(write(1, &qp->qp_num, 4) == 4 && write(1, &number, 4) == 4);
	fcntl(0, F_SETFL, O_NONBLOCK);
	while ((n = read(0, &peer, 4))) {
		if (n == 4) {
			connect_to(qp, peer);
			NEED(write(1, &peer, 4) == 4);
		}
		take_all(srq, number);
	}
	return 0;
}

/* ---- who sends ---- */

struct peer {
	pid_t pid;
	int to, from;
	uint32_t qpn, srqn;
};

static struct peer start(const char *self, const char *path, uint32_t qpn)
{
	struct peer p;
	char number[16];
	int in[2], out[2];

	snprintf(number, sizeof(number), "%u", qpn);
	NEED(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC));
	p.pid = fork();
	if (!p.pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl(self, self, path, number, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	p.to = in[1];
	p.from = out[0];
	NEED(read(p.from, &p.qpn, 4) == 4 && read(p.from, &p.srqn, 4) == 4);
	return p;
}

static void tell(struct peer *p, uint32_t qpn)
{
	uint32_t answer;

	NEED(write(p->to, &qpn, 4) == 4);
	NEED(read(p->from, &answer, 4) == 4 && answer == qpn);
}

static enum ibv_wc_status send_one(struct ibv_qp *qp, uint32_t srqn)
{
	struct ibv_sge sge = {(uintptr_t)buf[0], MSG, mr->lkey};
	struct ibv_send_wr wr = {.sg_list = &sge,
				 .num_sge = 1,
				 .opcode = IBV_WR_SEND,
				 .send_flags = IBV_SEND_SIGNALED},
			   *bad;
	struct ibv_wc wc;
	int n;

	memset(buf[0], (uint8_t)(srqn >> 4), MSG);
	wr.qp_type.xrc.remote_srqn = srqn;
	NEED(!ibv_post_send(qp, &wr, &bad));
	while (!(n = ibv_poll_cq(cq, 1, &wc)))
		;
	NEED(n == 1);
	return wc.status;
}

static void end(struct peer *p, bool kills)
{
	int status;

	if (kills)
		kill(p->pid, SIGKILL);
	else
		close(p->to);
	NEED(waitpid(p->pid, &status, 0) == p->pid);
	NEED(kills || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
	if (kills)
		close(p->to);
	close(p->from);
}

static void round_of(const char *self, const char *path, struct ibv_qp *qp)
{
	struct peer maker = start(self, path, 0), other = start(self, path, maker.qpn);
	enum ibv_wc_status status = IBV_WC_SUCCESS;

	connect_to(qp, maker.qpn);
	tell(&maker, qp->qp_num);
	for (int i = 0; i < MESSAGES; i++)
		NEED(send_one(qp, i % 2 ? maker.srqn : other.srqn) == IBV_WC_SUCCESS);
	end(&maker, true);
	while (status == IBV_WC_SUCCESS)
		status = send_one(qp, maker.srqn);
	NEED(status == IBV_WC_REM_INV_REQ_ERR || status == IBV_WC_RETRY_EXC_ERR ||
	     status == IBV_WC_RNR_RETRY_EXC_ERR || status == IBV_WC_REM_OP_ERR);
	connect_to(qp, other.qpn);
	tell(&other, qp->qp_num);
	for (int i = 0; i < MESSAGES; i++)
		NEED(send_one(qp, other.srqn) == IBV_WC_SUCCESS);
	end(&other, false);
}

int main(int argc, char **argv)
{
	char path[] = "/tmp/xrcdeath.XXXXXX";
	struct ibv_qp_init_attr_ex init = {.qp_type = IBV_QPT_XRC_SEND,
					   .cap = {.max_send_wr = 4, .max_send_sge = 1},
					   .comp_mask = IBV_QP_INIT_ATTR_PD};
	struct ibv_qp *qp;
	int fd;

	if (argc == 3)
		return receive(argv[1], (uint32_t)strtoul(argv[2], NULL, 10));
	signal(SIGPIPE, SIG_IGN);
	fd = mkstemp(path);
	NEED(fd >= 0);
	open_all();
	init.pd = pd;
	init.send_cq = cq;
	qp = ibv_create_qp_ex(ctx, &init);
	NEED(qp);
	for (int i = 0; i < ROUNDS; i++)
		round_of(argv[0], path, qp);
	unlink(path);
	close(fd);
	return 0;
}
