/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the random load: load_plan.c draws it, sim_load.c carries it out.
 *
 * Room: tests/sim.
 */
#ifndef SIM_LOAD_H
#define SIM_LOAD_H

#include "sim.h"

enum { RING = 256, GUARD = 64, GAP = 12, SLOTS = 80, FLOWS_MAX = 64, CQS_MAX = 64, TURNS_MAX = 20000000 };
enum { NO_SLOT = 0xffff };
#define SIM_END_NS UINT64_C(200000000000) /* of virtual time */

struct planned {
	enum or_op op;
	uint32_t len, nsge;
	bool signaled, solicited, inlined, keep, overwrite, reread, forward, keep_local;
};
static inline bool is_atomic(enum or_op op)
{
	return op == OR_FETCH_ADD || op == OR_CMP_SWAP;
}
struct planned_recv {
	uint32_t room, nsge;
};
struct posted {
	uint32_t src, target; /* slots */
};
struct slots {
	uint32_t n;
	uint16_t stack[SLOTS];
};

/* One direction of a connection. */
struct flow {
	struct or_flow *judge;
	struct qp *from, *to;
	struct rng rng;
	struct mem *src, *target, *recv_mem;
	uint8_t *word; /* of target, for atomics */
	uint32_t slot_size, max_send, max_recv;
	uint32_t late; /* millionths of receives that come late, and by how much at most */
	uint64_t late_ns, recv_at;
	struct planned *plan;
	struct planned_recv *recv;
	uint64_t nplan, nrecv, posted, src_freed, freed, recv_posted;
	struct slots src_slots, target_slots;
	struct posted ring[RING];
	struct or_place last_local, last_remote;
};

struct load {
	struct sim *s;
	struct rng rng;
	unsigned nflow, ncq;
	struct flow flow[FLOWS_MAX];
	struct flow *pair[SIM_HOSTS][FLOWS_MAX][2]; /* of each QP: what it sends, what it receives */
	struct cq *cq[SIM_HOSTS][CQS_MAX];
	enum fx_cause why;
};

uint64_t app_turn(void *arg, struct host *h);
struct load *load_setup(const struct sim_cfg *cfg);
bool load_teardown(struct load *l); /* false: a QP was still in use */

#endif
