/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The poll-mode worker: what it polls, in what order, with what budget. It wires the other rooms together.
 *
 * Room: core. May use: every other room but host. One worker owns its QPs, its queue of the port, its buffers
 * and its engines; nothing here is global, so a process may have several.
 *
 * A turn of its loop: commands of the control thread; rings that are copies, made like their hosts'; entries of the send
 * pipes, into the transport; then, until nothing moves any more: frames received, copies finished, timers (after receive:
 * a late loop must not send again what is acknowledged already), frames sent.
 */
#ifndef FX_CORE_WORKER_H
#define FX_CORE_WORKER_H

#include "control/command.h"
#include "memory/engine.h"
#include "port/port.h"

enum fx_poll_mode {
	FX_POLL_ADAPTIVE, /* spin a little, then sleep until somebody kicks */
	FX_POLL_SPIN,	  /* the worker has a CPU to itself */
};

struct fx_worker_cfg {
	uint32_t index;
	uint32_t max_qps; /* size of the QP number table */
	struct fx_mailbox *mailbox;
	struct fx_core_page *page;
	const struct fx_mr_table *mrs;
	const struct fx_ah_table *ahs;
	const struct fx_port *port;
	enum fx_poll_mode poll;
	bool shared_cpus;	      /* sleep at once: the applications need the CPU */
	const char *dma;	      /* "cpu", or "chaos[=DELAY[,SEED]]" */
	const struct fx_dma_bus *bus; /* between the core and memory that no window maps; NULL: none */
};

struct fx_worker;

/* Is it one of the engines that cfg.dma may name? */
bool fx_worker_knows_dma(const char *spec);
/* NULL with `why`. Before the port starts: its receive queue needs fx_worker_rx_pool(). */
struct fx_worker *fx_worker_create(const struct fx_worker_cfg *cfg, char *why, size_t size);
struct rte_mempool *fx_worker_rx_pool(struct fx_worker *w);
/* The loop, for rte_eal_remote_launch(). Returns after fx_worker_stop(). */
int fx_worker_run(void *worker);
void fx_worker_stop(struct fx_worker *w); /* from another thread */
/* After fx_worker_run() has returned and the port has stopped. */
void fx_worker_destroy(struct fx_worker *w);

#endif
