/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Contracts 33 and 34 on the core's own transmit path and a real ethdev: a message crosses the port as
 * ceil(size / MTU) frames, at least one, and sending it never touches the payload, for here the window that holds it
 * cannot be read at all.
 *
 * May use: core's insides. The frames are taken from the port by the test, before anybody would copy from them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "core/eal.h"
#include "core/inside.h"

enum {
	CTX = 1,
	PD = 1,
	QPN = 0x10,
	PSN = 100,
	MTU_4096 = 5,
	IOVA = 0x10000,
	KEY = 1 << FX_KEY_RAND_BITS | 7
};

static struct {
	struct fx_worker *w;
	struct fx_qp *qp;
	struct fx_wctx ctx; /* dead: nobody is told of events */
	struct fx_wqp wqp;
	struct fx_port port;
	uint8_t *window; /* PROT_NONE */
	struct fx_mr mr;
	_Atomic(struct fx_mr *) slot[4];
	struct fx_mr_table mrs;
	struct fx_mailbox mailbox;
	struct fx_core_page page;
	struct fx_cq cq;
	struct fx_cq_head head;
	struct fx_cqe ring[64];
	uint8_t rq[FX_SLOT_SIZE];
	uint32_t index;
} t;

enum { WINDOW = 1 << 20 };

static void make_worker(void)
{
	struct fx_port_cfg pc = {
		.device = "net_ring0", .salt = "test", .ip = "192.0.2.1", .mtu = 4096, .queues = 1};
	struct fx_worker_cfg wc = {
		.max_qps = 64, .mailbox = &t.mailbox, .page = &t.page, .mrs = &t.mrs, .dma = "cpu"};
	struct rte_mempool *pool;
	char why[256];

	t.mrs = (struct fx_mr_table){.slot = t.slot, .n = 4};
	t.mailbox.worker_fd = eventfd(0, EFD_NONBLOCK);
	t.mailbox.control_fd = eventfd(0, EFD_NONBLOCK);
	if (fx_port_open(&t.port, &pc, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	wc.port = &t.port;
	t.w = fx_worker_create(&wc, why, sizeof(why));
	if (!t.w)
		fail_msg("%s", why);
	pool = fx_worker_rx_pool(t.w);
	if (fx_port_start(&t.port, &pool, why, sizeof(why)) < 0)
		fail_msg("%s", why);
}

static void make_qp(void)
{
	const uint32_t masks[] = {0, 1 | 8 | 16 | 32,
				  1 | 1 << 7 | 1 << 8 | 1 << 20 | 1 << 12 | 1 << 17 | 1 << 15,
				  1 | 1 << 16 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13};
	struct fx_qp_cfg qc = {.qpn = QPN,
			       .ctx = CTX,
			       .pd = PD,
			       .type = FX_QPT_RC,
			       .max_send_wr = 64,
			       .max_send_sge = 4,
			       .max_recv_sge = 1,
			       .scq = &t.cq,
			       .rcq = &t.cq,
			       .owner = &t.wqp,
			       .under_way = &t.ctx.under_way};
	struct fx_path path = {.l3 = {.vlan = 0xffff, .ip_version = 4, .ttl = 64, .sport = 50000},
			       .mtu_max = 4096};

	t.ctx.dead = true;
	t.wqp.ctx = &t.ctx;
	t.cq = (struct fx_cq){.head = &t.head, .ring = t.ring, .shift = 6};
	qc.rq = (struct fx_rq){.slots = t.rq, .shift = 0, .stride = 1};
	t.qp = fx_qp_create(&qc);
	assert_int_equal(fx_qp_attach(t.w->tp, t.qp), 0);
	for (uint32_t s = 1; s < 4; s++) {
		struct fx_qp_attr a = {.qp_state = s,
				       .path_mtu = MTU_4096,
				       .dest_qp_num = QPN,
				       .sq_psn = PSN,
				       .rq_psn = PSN,
				       .port_num = 1,
				       .timeout = 14,
				       .retry_cnt = 7};

		a.ah.port_num = 1;
		assert_int_equal(fx_qp_modify(t.w->tp, t.qp, &a, masks[s], &path, 0, 0), 0);
	}
}

static int setup(void **state)
{
	struct fx_eal_cfg ec = {
		.program = "test_header_only", .vdev = "net_ring0", .workers = 1, .huge = FX_HUGE_NO};
	char why[256];

	(void)state;
	if (fx_eal_start(&ec, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	t.window = mmap(NULL, WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(t.window != MAP_FAILED);
	t.mr = (struct fx_mr){
		.iova = IOVA, .length = WINDOW, .base = t.window, .key = KEY, .pd = PD, .access = 7};
	atomic_store(&t.slot[1], &t.mr);
	make_worker();
	make_qp();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fx_qp_detach(t.w->tp, t.qp);
	while (fx_tp_dma_pending(t.w->tp))
		fx_tp_poll_dma(t.w->tp);
	fx_qp_free(t.w->tp, t.qp);
	fx_port_stop(&t.port);
	fx_worker_destroy(t.w);
	fx_eal_end();
	munmap(t.window, WINDOW);
	return 0;
}

/* Sends what is ready: the worker's own transmit steps, without its receive. */
static void transmit(void)
{
	for (unsigned n; (n = fx_tp_tx(t.w->tp, t.w->pkt, fx_txbuf_prepare(t.w)));) {
		fx_txbuf_take(t.w, n);
		fx_txbuf_flush(t.w);
	}
	assert_int_equal(t.w->ntx, 0);
}

static void post_write(uint32_t offset, uint32_t length)
{
	struct fx_sq_slot e = {.opcode = FX_WR_WRITE, .nslots = 1, .nsge = 1, .index = t.index++};

	e.qpn_gen = fx_qpn_gen(QPN, 0);
	e.rdma.remote_addr = IOVA;
	e.rdma.rkey = KEY;
	e.sge = (struct fx_sge){.addr = IOVA + offset, .length = length, .lkey = KEY};
	fx_post(t.w->tp, CTX, &e);
}

/* Acknowledges everything, as the peer would, so that the window opens again. */
static void acknowledge(uint32_t psn)
{
	struct fx_l3 l3 = {.vlan = 0xffff, .ip_version = 4, .ttl = 64, .sport = 50000};
	struct fx_bth bth = {.opcode = FX_OP_ACKNOWLEDGE, .pkey = FX_PKEY_DEFAULT, .dqpn = QPN, .psn = psn};
	static uint8_t frame[FX_HDR_MAX];
	static struct fx_pkt p;
	struct fx_pkt *pkts = &p;
	uint32_t n = fx_l3_write(frame, &l3, FX_BTH_LEN + FX_AETH_LEN);

	bth.aeth.syndrome = FX_AETH_CREDITS_INVALID;
	n += fx_bth_write(frame + n, &bth);
	p = (struct fx_pkt){.frame = frame, .have = n, .total = n};
	fx_tp_rx(t.w->tp, &pkts, 1);
	assert_ptr_equal(fx_tp_released(t.w->tp), &p);
}

/* The payload pieces of the frame lie in the window, one after the other, from `offset` on. */
static uint32_t check_frame(const struct rte_mbuf *m, uint32_t offset, uint32_t left)
{
	uint32_t want = left < 4096 ? left : 4096, got = 0, pad = -want & 3;

	for (const struct rte_mbuf *s = m->next; s && got < want; s = s->next) {
		assert_true(RTE_MBUF_HAS_EXTBUF(s));
		assert_ptr_equal(rte_pktmbuf_mtod(s, uint8_t *), t.window + offset + got);
		got += s->data_len;
	}
	assert_int_equal(got, want);
	assert_int_equal(m->pkt_len, m->data_len + want + pad);
	return want;
}

static void sends_without_reading(void **state)
{
	static const uint32_t sizes[] = {0, 1, 7, 4095, 4096, 4097, 65536, 100001};
	uint32_t psn = PSN;

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t frames = sizes[i] ? (sizes[i] + 4095) / 4096 : 1, seen = 0, done = 0;
		struct rte_mbuf *m[FX_RX_BURST];
		uint16_t n;

		post_write(64, sizes[i]);
		transmit();
		while ((n = rte_eth_rx_burst(t.port.id, 0, m, FX_RX_BURST)))
			for (uint16_t k = 0; k < n; k++, seen++) {
				done += check_frame(m[k], 64 + done, sizes[i] - done);
				fx_txbuf_free(t.w, m[k]);
			}
		assert_int_equal(seen, frames);
		assert_int_equal(done, sizes[i]);
		psn += frames;
		acknowledge(psn - 1);
	}
	assert_int_equal(t.ctx.under_way.n[0] + t.ctx.under_way.n[1], 0);
	assert_true(fx_tp_counters(t.w->tp)->tx_packets == psn - PSN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sends_without_reading),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
