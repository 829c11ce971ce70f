/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A host that shares no memory with its core, without libflexins: farhost TICKET [SECONDS]. A queue pair connected to
 * itself sends and writes, sleeps on a channel, is reset with receives posted, and goes; before that it does nothing for
 * some seconds, if it is told to. Prints what it measured. Last it lies in its send pipe, and must be hung up on.
 *
 * Room: tests. May use: libc, unit/far_host.h.
 */
#include <stdbool.h>

#define FAR_NEED(ok) need(ok, #ok, __LINE__)
static void need(bool ok, const char *what, int line);

#include "../unit/far_host.h"

static void need(bool ok, const char *what, int line)
{
	if (ok)
		return;
	printf("line %d: %s: failed (errno %d)\n", line, what, errno);
	fflush(stdout);
	exit(1);
}

enum { ROUNDS = 2000, BIG = 1 << 20, ACCESS = 7 };
enum { INIT = 1, RTR = 2, RTS = 3, RESET = 0 };

static struct far_host h;
static uint32_t pd;
static struct far_cq cq;
static struct far_qp qp;
static uint8_t *from, *to;
static struct fx_reg_mr_done_rep mr_from, mr_to;

static void modify(uint32_t mask, struct fx_qp_attr a)
{
	struct fx_modify_qp_req req = {.qp = qp.info.qp,
				       .mask = mask,
				       .pipe_pi = h.pipe.pi,
				       .sq_index = qp.index,
				       .rq_index = qp.rq.index,
				       .attr = a};
	struct fx_modify_qp_rep rep;
	int err = FAR_ASK(&h, FX_MSG_MODIFY_QP, &req, &rep);

	if (err)
		printf("modify to %u: %s\n", a.qp_state, h.why);
	FAR_NEED(!err);
	qp.info.gen = rep.gen;
}

/* To itself: through INIT and RTR to RTS, by the masks of the verbs manual. */
static void connect_to_self(void)
{
	struct fx_qp_attr a = {.qp_state = INIT,
			       .port_num = 1,
			       .access = ACCESS,
			       .path_mtu = 5,
			       .dest_qp_num = qp.info.qpn,
			       .max_rd_atomic = 4,
			       .max_dest_rd_atomic = 4,
			       .min_rnr_timer = 12,
			       .timeout = 16,
			       .retry_cnt = 7,
			       .rnr_retry = 0, /* a receive that is posted is always found */
			       .ah = {.port_num = 1}};

	modify(1 << 0 | 1 << 3 | 1 << 4 | 1 << 5, a);
	a.qp_state = RTR;
	modify(1 << 0 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 15 | 1 << 17 | 1 << 20, a);
	a.qp_state = RTS;
	modify(1 << 0 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13 | 1 << 16, a);
}

static void post_recv(uint32_t len)
{
	struct fx_sge sge = {.addr = (uintptr_t)to, .length = len, .lkey = mr_to.lkey};

	fx_rq_put(&qp.rq, &sge, 1);
}

static void post(uint8_t op, uint32_t len)
{
	struct fx_sq_slot e[1] = {{
		.opcode = op,
		.flags = FX_WRF_SIGNALED,
		.nslots = 1,
		.nsge = 1,
		.qpn_gen = fx_qpn_gen(qp.info.qpn, (uint8_t)qp.info.gen),
		.index = qp.index++,
		.rdma = {.remote_addr = (uintptr_t)to, .rkey = mr_to.rkey},
		.sge = {.addr = (uintptr_t)from, .length = len, .lkey = mr_from.lkey},
	}};

	far_post(&h, e);
}

static void expect(uint8_t opcode)
{
	struct fx_cqe c = far_completion(&cq);

	if (c.status || c.opcode != opcode)
		printf("a completion of opcode %u with status %u, syndrome %u instead of opcode %u\n",
		       c.opcode, c.status, c.syndrome, opcode);
	FAR_NEED(c.status == 0 && c.opcode == opcode);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* SENDs into receives that were posted a moment before: the core sees those by a fresh look only. */
static void sends(void)
{
	double start = seconds();

	for (uint32_t i = 0; i < ROUNDS; i++) {
		uint32_t len = i % 10 ? 1 + i : 100000;

		memset(from, (int)(i + 1), len);
		to[len - 1] = 0;
		post_recv(BIG);
		post(FX_WR_SEND, len);
		for (int k = 0; k < 2; k++) {
			struct fx_cqe c = far_completion(&cq);

			FAR_NEED(c.status == 0 &&
				 (c.opcode == FX_WC_SEND || (c.opcode == FX_WC_RECV && c.byte_len == len)));
		}
		FAR_NEED(!memcmp(from, to, len));
	}
	printf("NOTE: %d sends one by one, %.1f us each\n", ROUNDS, (seconds() - start) * 1e6 / ROUNDS);
}

static void write_and_read(void)
{
	for (uint32_t i = 0; i < BIG; i++)
		from[i] = (uint8_t)(i * 2654435761u >> 24);
	memset(to, 0, BIG);
	post(FX_WR_WRITE, BIG);
	expect(FX_WC_RDMA_WRITE);
	FAR_NEED(!memcmp(from, to, BIG));
	memset(from, 0, BIG);
	post(FX_WR_READ, BIG);
	expect(FX_WC_RDMA_READ);
	FAR_NEED(!memcmp(from, to, BIG));
}

/* Idle until the core has said that it sleeps; then one event, by a message. */
static void sleep_on_channel(void)
{
	struct fx_event ev;

	for (uint32_t n = 1; n <= 20; n++) {
		far_arm(&h, &cq, n);
		if (n % 4 == 1)
			for (int i = 0; i < 50; i++)
				far_nap();
		post(FX_WR_WRITE, 64);
		for (time_t end = time(NULL) + FAR_WAIT_S; far_listen(&h, cq.channel) < n; far_nap())
			FAR_NEED(time(NULL) < end);
		FAR_NEED(fx_event_take(&h.events, &ev) && ev.kind == FX_EV_CQ && ev.object == cq.handle);
		fx_event_publish_ci(&h.events);
		FAR_NEED(fx_cq_take(&cq.rx, &(struct fx_cqe){0})); /* what it tells of is there already */
		fx_cq_publish_ci(&cq.rx);
	}
	FAR_NEED(h.kicks > 0);
	printf("NOTE: %u kicks\n", h.kicks);
}

/* A full queue of receives that a reset takes away; the next ones are found. */
static void reset_and_again(void)
{
	for (int lap = 0; lap < 3; lap++) {
		for (uint32_t i = 0; i < 1 << FAR_RQ_SHIFT; i++)
			post_recv(10);
		modify(1 << 0, (struct fx_qp_attr){.qp_state = RESET});
		connect_to_self();
		post_recv(BIG);
		post(FX_WR_SEND, 4000);
		for (int k = 0; k < 2; k++)
			FAR_NEED(far_completion(&cq).status == 0);
	}
}

/* An entry of no length: the pipe is beyond repair, and the connection with it. */
static void lie(void)
{
	struct fx_msg_head kick = {.magic = FX_PROTO_MAGIC, .op = FX_MSG_KICK, .size = sizeof(kick)};
	struct fx_sq_slot e = {.nslots = 0};
	char buf[FX_MSG_BYTES];

	fx_pipe_put(&h.pipe, &e);
	FAR_NEED(send(h.fd, &kick, sizeof(kick), MSG_NOSIGNAL) == sizeof(kick));
	FAR_NEED(far_recv(&h, buf) == 0);
}

int main(int argc, char **argv)
{
	struct fx_qp_req end;
	struct fx_handle_rep rep;
	uint32_t ch;

	if (argc < 2)
		return 2;
	far_open(&h, argv[1]);
	FAR_NEED(far_simple(&h, FX_MSG_ALLOC_PD, 0, &pd) == 0);
	FAR_NEED(far_simple(&h, FX_MSG_CREATE_CHANNEL, 0, &ch) == 0);
	from = aligned_alloc(4096, BIG);
	to = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		  0); /* shared, but not with the core */
	mr_from = far_mr(&h, pd, from, BIG);
	mr_to = far_mr(&h, pd, to, BIG);
	cq = far_cq(&h, ch);
	qp = far_qp(&h, pd, &cq);
	connect_to_self();
	sends();
	write_and_read();
	sleep_on_channel();
	reset_and_again();
	if (argc > 2) {
		puts("idle");
		fflush(stdout);
		sleep((unsigned)atoi(argv[2]));
		post(FX_WR_WRITE, 64); /* it is all there still */
		expect(FX_WC_RDMA_WRITE);
	}
	end = (struct fx_qp_req){.qp = qp.info.qp, .pipe_pi = h.pipe.pi};
	FAR_NEED(FAR_ASK(&h, FX_MSG_DESTROY_QP, &end, &rep) == 0);
	FAR_NEED(far_simple(&h, FX_MSG_DESTROY_CQ, cq.handle, NULL) == 0);
	FAR_NEED(far_simple(&h, FX_MSG_DESTROY_CHANNEL, ch, NULL) == 0);
	FAR_NEED(far_simple(&h, FX_MSG_DEREG_MR, mr_from.mr, NULL) == 0);
	lie();
	far_close(&h); /* with the rest open */
	puts("fine");
	return 0;
}
