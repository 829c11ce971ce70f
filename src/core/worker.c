/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's life and its loop: see worker.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/inside.h"

enum {
	DMA_DEPTH = 1024,
	SLOW_DEPTH = 256,
	BUS_DEPTH = 4096, /* of all spaces together */
	CHAOS_DELAY = 16,
};

/* ---- life ---- */

/* "chaos[=DELAY[,SEED]]" */
static bool is_chaos(const char *spec, unsigned *delay, unsigned long long *seed)
{
	int end = 0;

	*delay = CHAOS_DELAY;
	*seed = 1;
	return !strcmp(spec, "chaos") || (sscanf(spec, "chaos=%u%n", delay, &end) == 1 && !spec[end]) ||
	       (sscanf(spec, "chaos=%u,%llu%n", delay, seed, &end) == 2 && !spec[end]);
}

bool fx_worker_knows_dma(const char *spec)
{
	unsigned long long seed;
	unsigned delay;

	return !strcmp(spec, "cpu") || is_chaos(spec, &delay, &seed);
}

static struct fx_dma_engine *make_engine(const char *spec)
{
	unsigned long long seed;
	unsigned delay;

	return is_chaos(spec, &delay, &seed) ? fx_dma_chaos_create(DMA_DEPTH, delay, seed)
					     : fx_dma_cpu_create(DMA_DEPTH);
}

static uint64_t bus_now(void *arg)
{
	return fx_clock_ns(&((struct fx_worker *)arg)->clock);
}

struct fx_dma_engine *fx_worker_slow(struct fx_worker *w, unsigned depth, struct fx_dma_carried *carried)
{
	struct fx_dma_engine *slow = fx_dma_slow_create(depth, fx_wait_rouse, w), *e;
	struct fx_dma_bus bus;

	if (!slow || !w->cfg.bus)
		return slow;
	bus = *w->cfg.bus;
	bus.now = bus_now;
	bus.arg = w;
	bus.carried = carried;
	e = fx_dma_bus_create(slow, BUS_DEPTH, &bus);
	if (!e)
		slow->ops->destroy(slow);
	return e;
}

static bool look(void *worker, struct fx_rxq *rx)
{
	return fx_mirror_look(((struct fx_worker *)worker)->mirror, rx->copy);
}

/* The clock of the machine: programs here read it, too. */
static uint64_t stamp(void *worker)
{
	struct timespec t;

	(void)worker;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct fx_pkt *another(void *worker, const struct fx_pkt *p)
{
	return fx_txbuf_clone(worker, p);
}

static int make_transport(struct fx_worker *w, char *why, size_t size)
{
	struct fx_tp_cfg cfg = {
		.worker = w->cfg.index,
		.max_qps = w->cfg.max_qps,
		.max_srqs = FX_LIMIT_SRQ + 1,
		.icrc = w->port->info.icrc,
		.mtu = w->port->info.mtu,
		.mrs = w->cfg.mrs,
		.ahs = w->cfg.ahs,
		.env = {.event = fx_event_async,
			.rxq_event = fx_event_srq,
			.cq_error = fx_event_cq_error,
			.trouble = fx_event_trouble,
			.comp = fx_event_comp,
			.look = look,
			.stamp = stamp,
			.clone = another,
			.arg = w},
	};

	memcpy(cfg.gid, w->port->info.gid, sizeof(cfg.gid));
	w->dma = make_engine(w->cfg.dma);
	w->slow = fx_worker_slow(w, SLOW_DEPTH, &w->landed);
	w->cqs = calloc(FX_LIMIT_CQ + 1, sizeof(struct fx_cq *));
	if (!w->dma || !w->slow || !w->cqs || fx_stage_init(w) < 0 || fx_rings_init(w) < 0) {
		snprintf(why, size, "worker %u has no memory for its engines", w->cfg.index);
		return -ENOMEM;
	}
	cfg.dma = w->dma;
	cfg.slow = w->slow;
	w->now = fx_clock_ns(&w->clock);
	w->tp = fx_tp_create(&cfg, w->now);
	if (w->tp)
		return 0;
	snprintf(why, size, "worker %u has no memory for its transport", w->cfg.index);
	return -ENOMEM;
}

struct fx_worker *fx_worker_create(const struct fx_worker_cfg *cfg, char *why, size_t size)
{
	struct fx_worker *w = calloc(1, sizeof(*w));
	int err;

	why[0] = '\0';
	if (!w) {
		snprintf(why, size, "worker %u cannot be allocated", cfg->index);
		return NULL;
	}
	w->cfg = *cfg;
	w->port = cfg->port;
	w->queue = (uint16_t)cfg->index;
	w->epoll = w->load = -1;
	w->clock.tsc0 = rte_rdtsc();
	w->clock.mult = (uint64_t)(((unsigned __int128)1000000000 << 32) / rte_get_tsc_hz());
	err = fx_wait_init(w);
	if (err)
		snprintf(why, size, "worker %u cannot wait for events: %s", cfg->index, strerror(-err));
	if (!err)
		err = fx_txbuf_init(w, why, size);
	if (!err)
		err = make_transport(w, why, size);
	if (!err)
		return w;
	fx_worker_destroy(w);
	return NULL;
}

struct rte_mempool *fx_worker_rx_pool(struct fx_worker *w)
{
	return w->stash[FX_SPARE].pool; /* its buffers hold any frame */
}

void fx_worker_destroy(struct fx_worker *w)
{
	/* engines first: nothing may still be copying into a buffer */
	if (w->dma)
		w->dma->ops->destroy(w->dma);
	if (w->slow)
		w->slow->ops->destroy(w->slow);
	fx_stage_fini(w);
	fx_rings_fini(w);
	fx_txbuf_fini(w);
	fx_tp_destroy(w->tp);
	fx_wait_fini(w);
	free(w->cqs);
	free(w);
}

void fx_worker_stop(struct fx_worker *w)
{
	/* relaxed: the eventfd below orders it before the wake */
	atomic_store_explicit(&w->stop, true, memory_order_relaxed);
	fx_wait_rouse(w);
}

/* ---- what it polls ---- */

void fx_worker_release(struct fx_worker *w)
{
	struct fx_pkt *p = fx_tp_released(w->tp), *next;

	for (; p; p = next) {
		next = p->next;
		fx_txbuf_free(w, fx_pkt_mbuf(p));
	}
}

static unsigned receive(struct fx_worker *w)
{
	struct rte_mbuf *m[FX_RX_BURST];
	struct fx_pkt *p[FX_RX_BURST];
	unsigned n = fx_port_rx(w->port, w->queue, m, FX_RX_BURST), k = 0;

	if (!n)
		return 0;
	w->n.rx_frames += n;
	for (unsigned i = 0; i < n; i++) {
		p[k] = fx_txbuf_pkt(w, m[i]);
		if (likely(p[k])) {
			k++;
			continue;
		}
		w->n.rx_long_chain++;
		fx_txbuf_free(w, m[i]);
	}
	fx_tp_rx(w->tp, p, k);
	fx_worker_release(w);
	return n;
}

static unsigned poll_dma(struct fx_worker *w)
{
	unsigned n;

	if (!fx_tp_dma_pending(w->tp))
		return 0;
	n = fx_tp_poll_dma(w->tp);
	fx_worker_release(w);
	return n;
}

static unsigned transmit(struct fx_worker *w)
{
	unsigned total = fx_txbuf_flush(w);

	while (total < FX_TX_ROUND && !w->ntx && fx_tp_tx_ready(w->tp)) {
		unsigned n = fx_txbuf_prepare(w);

		n = n ? fx_tp_tx(w->tp, w->pkt, n) : 0;
		if (!n)
			break;
		fx_txbuf_take(w, n);
		total += n;
		fx_txbuf_flush(w);
	}
	return total;
}

/* True: something moved. */
static bool turn(struct fx_worker *w)
{
	unsigned moved;
	bool any;

	w->now = fx_clock_ns(&w->clock);
	fx_tp_set_now(w->tp, w->now);
	w->n.loops++;
	fx_wait_awake(w);
	any = fx_commands(w) + fx_rings_poll(w);
	for (int round = 0; round < FX_ROUNDS; round++) {
		moved = receive(w);
		moved += poll_dma(w);
		if (round == 0)
			fx_tp_timers(w->tp); /* after receive: what is acknowledged is not sent again */
		moved += fx_stage_poll(w);
		moved += transmit(w);
		any |= moved != 0;
		if (!moved)
			break;
	}
	any |= fx_rings_push(w) != 0;
	fx_dma_flush(w->slow);
	fx_dma_flush(w->stage_slow);
	fx_dma_flush(w->mirror_dma);
	if (unlikely(fx_commands_waiting(w)))
		fx_commands_settle(w);
	return any;
}

int fx_worker_run(void *worker)
{
	struct fx_worker *w = worker;

	fx_wait_be_urgent(w);
	while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		if (turn(w)) {
			w->idle_since = 0;
			continue;
		}
		fx_wait_idle(w);
	}
	return 0;
}
