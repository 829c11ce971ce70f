/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One connected pair of QPs for directed tests: host 0 asks, host 1 answers, on a quiet link.
 *
 * Room: tests/sim.
 */
#ifndef SIM_PAIR_H
#define SIM_PAIR_H

#include "sim.h"

enum { PAIR_MEM = 1 << 20, PAIR_CQES = 1024, PAIR_LOG = 8192 };

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

enum pair_fate { PASS, DROP };

struct pair_opt {
	uint32_t mtu, max_send, max_recv, max_sge;
	uint8_t timeout, retry_cnt, rnr_retry;
	uint8_t rd_atomic;
	uint32_t access; /* of the QPs */
	uint32_t cqes;
	bool chaos;
	uint32_t look_ns;   /* as struct host_cfg has it */
	enum mem_kind kind; /* of both memories */
	uint32_t type;	    /* enum fx_qp_type; 0: RC */
	bool ip6;
	const struct link_cfg *link; /* NULL: a quiet one of 100 Gb/s */
	const struct fx_dma_bus *bus;
	uint32_t turn_ns; /* 0: 300 */
};

/* A frame as the tap saw it. */
struct seen {
	unsigned from;
	struct fx_bth bth;
	bool lost;
};

struct pair {
	struct sim *s;
	struct host *h[SIM_HOSTS];
	struct qp *q[SIM_HOSTS];
	struct cq *cq[SIM_HOSTS];
	struct mem *mem[SIM_HOSTS];
	struct fx_ah ah[SIM_HOSTS]; /* for the other host */
	struct rng rng;
	struct pair_opt opt;
	struct link_attr attr;
	struct fx_cqe cqe[SIM_HOSTS][PAIR_CQES]; /* polled so far */
	unsigned n[SIM_HOSTS];
	bool deaf[SIM_HOSTS]; /* this host does not poll */
	/* every frame that left, and what is to happen to the next ones */
	struct seen log[PAIR_LOG];
	unsigned nlog;
	bool cut[SIM_HOSTS]; /* everything this host sends is lost */
	enum pair_fate (*fate)(struct pair *p, unsigned from, const struct fx_bth *bth);
	unsigned count; /* for the fate function */
	/* the last acknowledge that crossed, as bytes */
	uint8_t ack[128];
	uint32_t ack_len;
};

/* NULL: defaults */
struct pair *pair_create(const struct pair_opt *opt);
void pair_destroy(struct pair *p);
void pair_connect(struct pair *p);
void pair_run(struct pair *p, uint64_t ns);
/* Posts from host `from`: `len` bytes at `off` of its memory, to or from `roff` of the peer's. */
void pair_post(struct pair *p, unsigned from, uint8_t op, uint32_t off, uint32_t len, uint32_t roff);
struct wr pair_wr(struct pair *p, unsigned from, uint8_t op, uint32_t off, uint32_t len, uint32_t roff);
void pair_recv(struct pair *p, unsigned at, uint32_t off, uint32_t len);
uint32_t pair_state(struct pair *p, unsigned at);
struct fx_qp_info pair_info(struct pair *p, unsigned at);
struct fx_counters *pair_counters(struct pair *p, unsigned at);
/* Checks the next completion of the host that no one has looked at. */
void pair_expect(struct pair *p, unsigned at, uint8_t opcode, uint32_t index, uint8_t status);
void pair_expect_none(struct pair *p, unsigned at);
void pair_fill(struct pair *p, unsigned at, uint32_t off, uint32_t len, uint8_t salt);
void pair_check(struct pair *p, unsigned at, uint32_t off, uint32_t len, uint8_t salt);
void pair_check_blank(struct pair *p, unsigned at, uint32_t off, uint32_t len);
/* Frames from this host with this RC opcode (-1: any) since the beginning. */
unsigned pair_sent(const struct pair *p, unsigned from, int opcode);

#endif
