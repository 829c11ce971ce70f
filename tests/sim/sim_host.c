/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A host in miniature: the loop of a worker around its transport, and the application's end of the rings.
 *
 * Room: tests/sim. Posts go to fx_post() as the entries that a send pipe would have delivered.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

/* Bits of a modify, as in the verbs ABI. */
enum {
	M_STATE = 1 << 0,
	M_ACCESS = 1 << 3,
	M_PKEY = 1 << 4,
	M_PORT = 1 << 5,
	M_QKEY = 1 << 6,
	M_AV = 1 << 7,
	M_MTU = 1 << 8,
	M_TIMEOUT = 1 << 9,
	M_RETRY = 1 << 10,
	M_RNR_RETRY = 1 << 11,
	M_RQ_PSN = 1 << 12,
	M_RD_ATOMIC = 1 << 13,
	M_RNR_TIMER = 1 << 15,
	M_SQ_PSN = 1 << 16,
	M_DEST_RD_ATOMIC = 1 << 17,
	M_DEST_QPN = 1 << 20,
};
enum { INIT = 1, RTR = 2, RTS = 3 };

static void on_event(void *arg, struct fx_qp *qp, enum fx_async type)
{
	struct host *h = arg;

	(void)qp;
	h->events++;
	h->event[type]++;
}

static void on_cq_error(void *arg, struct fx_cq *cq)
{
	(void)cq;
	on_event(arg, NULL, FX_ASYNC_CQ_ERR);
}

static void on_rxq_event(void *arg, struct fx_rxq *rx, enum fx_async type)
{
	(void)rx;
	on_event(arg, NULL, type);
}

static void on_trouble(void *arg, struct fx_qp *qp, enum fx_cause cause)
{
	(void)qp;
	((struct host *)arg)->trouble = cause;
}

/* All of it is copied, where the core shares what is not headers. */
static struct fx_pkt *on_clone(void *arg, const struct fx_pkt *p)
{
	struct host *h = arg;
	struct frame *f;

	if (!h->clones)
		return NULL;
	h->clones--;
	f = frame_get(h->s);
	f->src = h->s->host[!h->id];
	f->dst = h;
	f->flat = true;
	memcpy(f->bytes, p->frame, p->have);
	f->len = p->have;
	for (unsigned i = 0; i < p->nmore; i++) {
		memcpy(f->bytes + f->len, p->more[i].base, p->more[i].len);
		f->len += p->more[i].len;
	}
	f->pkt.frame = f->bytes;
	f->pkt.have = f->pkt.total = f->len;
	f->pkt.nmore = 0;
	f->pkt.cost = p->cost;
	return &f->pkt;
}

/* ---- receive queues that are seen by looks only ---- */

static size_t ring_bytes(const struct qp *q)
{
	return (size_t)FX_SLOT_SIZE << q->rq.shift;
}

/* Sees what is there now and nothing later, and says so a while after. */
static uint64_t look_end(struct host *h)
{
	uint64_t at = h->s->now + h->cfg.look_ns / 2 + rng_below(&h->rng, h->cfg.look_ns / 2 + 1);

	if (at < h->look_next)
		h->look_next = at;
	h->looks++;
	return at;
}

/* A look that is under way goes on as another one, which sees more. */
static bool look_at_srq(struct host *h, struct srq *s)
{
	if (!s->copy)
		return false;
	memcpy(s->seen, s->bytes, (size_t)FX_SLOT_SIZE << s->rq.shift);
	s->look_at = look_end(h);
	return true;
}

static bool on_look(void *arg, struct fx_rxq *rx)
{
	struct host *h = arg;
	struct qp *q = rx->owner;

	if (rx->shared)
		return look_at_srq(h, rx->owner);

	if (!q->rq_copy)
		return false;
	memcpy(q->rq_seen, q->rq_bytes, ring_bytes(q));
	q->look_at = look_end(h);
	q->look_gen = fx_qp_gen(q->core);
	return true;
}

/* Looks that are over; the time of the next one that will be. */
static uint64_t end_looks(struct host *h)
{
	uint64_t next = SIM_NEVER;
	struct srq *s = h->srq;

	if (s && s->look_at <= h->s->now) {
		s->look_at = SIM_NEVER;
		memcpy(s->copy, s->seen, (size_t)FX_SLOT_SIZE << s->rq.shift);
		fx_tp_looked(h->tp, &s->core);
	}
	if (s)
		next = s->look_at;
	for (unsigned i = 0; h->cfg.look_ns && i < HOST_QPS; i++) {
		struct qp *q = h->qp[i];

		if (q && q->look_at <= h->s->now) {
			q->look_at = SIM_NEVER;
			if (q->look_gen == fx_qp_gen(q->core))
				memcpy(q->rq_copy, q->rq_seen, ring_bytes(q));
			fx_tp_looked(h->tp, fx_qp_rxq(q->core));
		}
		if (q && q->look_at < next)
			next = q->look_at;
	}
	return next;
}

static void make_copy(struct qp *q)
{
	q->look_at = SIM_NEVER;
	if (!q->h->cfg.look_ns)
		return;
	q->rq_copy = calloc(1, ring_bytes(q));
	q->rq_seen = calloc(1, ring_bytes(q));
	q->cfg.rq.slots = q->rq_copy;
}

static void on_comp(void *arg, struct fx_cq *cq)
{
	struct host *h = arg;

	fx_cq_fire(cq);
	h->comps++;
	h->comp_at = h->s->now;
}

static uint64_t on_stamp(void *arg)
{
	return ((struct host *)arg)->s->now;
}

struct srq *srq_create(struct host *h, uint32_t max_wr, uint32_t max_sge, uint32_t pd)
{
	uint32_t stride = fx_rq_stride(max_sge), shift = 0;
	struct srq *s = calloc(1, sizeof(*s));

	while (1u << shift < max_wr * stride)
		shift++;
	s->h = h;
	s->look_at = SIM_NEVER;
	s->bytes = calloc(1, (size_t)FX_SLOT_SIZE << shift);
	s->rq = (struct fx_rq){.slots = s->bytes, .shift = shift, .stride = stride, .ids = max_wr};
	s->core = (struct fx_rxq){
		.ring = s->rq, .pd = pd, .max_sge = max_sge, .shared = true, .owner = s, .handle = 1};
	if (h->cfg.look_ns) {
		s->copy = calloc(1, (size_t)FX_SLOT_SIZE << shift);
		s->seen = calloc(1, (size_t)FX_SLOT_SIZE << shift);
		s->core.ring.slots = s->copy;
	}
	h->srq = s;
	return s;
}

void srq_destroy(struct srq *s)
{
	s->h->srq = NULL;
	free(s->bytes);
	free(s->copy);
	free(s->seen);
	free(s);
}

void srq_post(struct srq *s, uint32_t number, const struct fx_sge *sge, uint32_t nsge)
{
	fx_rq_put_as(&s->rq, number, sge, nsge);
}

static void address(uint8_t *a, const struct host *h, bool ip6)
{
	memset(a, 0, 16);
	if (ip6) {
		a[0] = 0xfd;
		a[15] = (uint8_t)(h->id + 1);
		return;
	}
	a[10] = a[11] = 0xff;
	a[12] = 10;
	a[15] = (uint8_t)(h->id + 1);
}

static uint64_t sim_now(void *arg)
{
	return ((const struct sim *)arg)->now;
}

static struct fx_dma_engine *engine_create(struct host *h)
{
	const struct host_cfg *cfg = &h->cfg;
	struct fx_dma_engine *e = cfg->chaos ? fx_dma_chaos_create(256, cfg->chaos_delay, rng_next(&h->rng))
					     : fx_dma_cpu_create(256);
	struct fx_dma_bus bus;

	if (!cfg->bus)
		return e;
	bus = *cfg->bus;
	bus.now = sim_now;
	bus.arg = h->s;
	return fx_dma_bus_create(e, 256, &bus);
}

struct host *host_create(struct sim *s, unsigned id, const struct host_cfg *cfg)
{
	struct host *h = calloc(1, sizeof(*h));
	struct fx_tp_cfg tp = {
		.max_qps = HOST_QPS,
		.window = cfg->window,
		.icrc = cfg->icrc,
		.mrs = &h->table,
		.ahs = &h->ahs,
		.env = {.event = on_event,
			.cq_error = on_cq_error,
			.trouble = on_trouble,
			.rxq_event = on_rxq_event,
			.comp = on_comp,
			.look = on_look,
			.stamp = on_stamp,
			.clone = on_clone,
			.arg = h},
	};

	h->s = s;
	h->id = id;
	address(tp.gid, h, false);
	h->clones = UINT32_MAX;
	h->cfg = *cfg;
	h->rng = rng_of(cfg->seed, 200 + id);
	h->table.slot = h->mr_slot;
	h->table.n = HOST_MRS;
	h->table.mw = h->mw_slot;
	h->table.nmw = HOST_MWS;
	h->ahs = (struct fx_ah_table){.slot = h->ah_slot, .n = HOST_AHS};
	h->next_mr = 1;
	h->wake = h->app_at = h->look_next = SIM_NEVER;
	tp.dma = engine_create(h);
	tp.slow = slow_engine_create(rng_next(&h->rng), cfg->chaos ? cfg->chaos_delay : 3);
	h->dma = tp.dma;
	h->slow = tp.slow;
	h->tp = fx_tp_create(&tp, s->now);
	s->host[id] = h;
	return h;
}

void host_destroy(struct host *h)
{
	for (unsigned i = 0; i < SIM_BURST; i++)
		if (h->spare[i])
			frame_free(h->s, h->spare[i]);
	fx_tp_destroy(h->tp);
	h->dma->ops->destroy(h->dma);
	h->slow->ops->destroy(h->slow);
	free(h);
}

void host_rouse(struct host *h, uint64_t at)
{
	if (at < h->asleep)
		at = h->asleep;
	if (at < h->wake)
		h->wake = at;
}

void host_arrive(struct host *h, struct frame *f)
{
	f->next = NULL;
	if (h->in_tail)
		h->in_tail->next = f;
	else
		h->in_head = f;
	h->in_tail = f;
	host_rouse(h, h->s->now + rng_below(&h->rng, h->cfg.turn_ns));
}

static struct frame *frame_of(struct fx_pkt *p)
{
	return (struct frame *)((char *)p - offsetof(struct frame, pkt));
}

static void give_back(struct host *h)
{
	struct fx_pkt *p = fx_tp_released(h->tp);

	while (p) {
		struct fx_pkt *next = p->next;

		frame_free(h->s, frame_of(p));
		p = next;
	}
}

static void receive(struct host *h)
{
	struct fx_pkt *burst[FX_RX_BURST];
	unsigned n = 0;

	while (h->in_head && n < FX_RX_BURST) {
		struct frame *f = h->in_head;

		h->in_head = f->next;
		if (!h->in_head)
			h->in_tail = NULL;
		burst[n++] = &f->pkt;
	}
	if (n)
		fx_tp_rx(h->tp, burst, n);
	give_back(h);
}

static void transmit(struct host *h)
{
	static struct fx_txpkt out[SIM_BURST];
	unsigned max, n;

	do {
		if (net_busy(h->s, h))
			return;
		max = 1 + (unsigned)rng_below(&h->rng, SIM_BURST);
		for (unsigned i = 0; i < max; i++) {
			if (!h->spare[i])
				h->spare[i] = frame_get(h->s);
			out[i].hdr = h->spare[i]->bytes;
		}
		n = fx_tp_tx(h->tp, out, max);
		for (unsigned i = 0; i < n; i++) {
			struct frame *f = h->spare[i];

			h->spare[i] = NULL;
			f->src = h;
			memcpy(&f->tx, &out[i],
			       offsetof(struct fx_txpkt, seg) + out[i].nseg * sizeof(out[i].seg[0]));
			net_send(h->s, f);
		}
	} while (n == max);
}

static void sleep_until_due(struct host *h)
{
	uint64_t now = h->s->now, at = fx_tp_next_timer(h->tp);
	bool blocked = net_busy(h->s, h);

	if (h->app_at < at)
		at = h->app_at;
	if (h->look_next < at)
		at = h->look_next;
	if (at <= now)
		at = now + 1;
	if (h->in_head || fx_tp_dma_pending(h->tp) || (fx_tp_tx_ready(h->tp) && !blocked))
		at = now + 50 + rng_below(&h->rng, h->cfg.turn_ns);
	else if (fx_tp_tx_ready(h->tp) && h->s->line_free[h->id] < at)
		at = h->s->line_free[h->id];
	h->wake = SIM_NEVER;
	h->asleep = 0;
	if (h->cfg.nap_ns && rng_chance(&h->rng, 1000))
		h->asleep = now + rng_below(&h->rng, h->cfg.nap_ns);
	if (at != SIM_NEVER)
		host_rouse(h, at);
}

void host_turn(struct host *h)
{
	fx_tp_set_now(h->tp, h->s->now);
	receive(h);
	if (fx_tp_dma_pending(h->tp)) {
		fx_tp_poll_dma(h->tp);
		give_back(h);
	}
	h->look_next = end_looks(h);
	give_back(h);
	if (!h->in_head)
		fx_tp_timers(h->tp);
	h->app_at = h->app ? h->app(h->app_arg, h) : SIM_NEVER;
	transmit(h);
	sleep_until_due(h);
}

/* ---- completion queues ---- */

struct cq *cq_create(uint32_t entries)
{
	struct cq *c = calloc(1, sizeof(*c));
	uint32_t shift = 1;
	struct fx_cq_head *head;
	struct fx_cqe *ring;

	while (1u << shift < entries)
		shift++;
	c->bytes = calloc(1, sizeof(struct fx_cq_head) + ((size_t)FX_CQE_SIZE << shift));
	head = (struct fx_cq_head *)c->bytes;
	ring = (struct fx_cqe *)(c->bytes + sizeof(*head));
	c->core = (struct fx_cq){.head = head, .ring = ring, .shift = shift};
	c->rx = (struct fx_cq_rx){.head = head, .ring = ring, .shift = shift};
	return c;
}

void cq_destroy(struct cq *c)
{
	free(c->bytes);
	free(c);
}

/* ---- queue pairs ---- */

struct qp *qp_create(struct host *h, const struct fx_qp_cfg *cfg, struct cq *scq, struct cq *rcq,
		     uint32_t sq_index, uint32_t rq_index)
{
	struct qp *q = calloc(1, sizeof(*q));
	uint32_t stride = fx_rq_stride(cfg->max_recv_sge), shift = 0;

	while (1u << shift < cfg->max_recv_wr * stride)
		shift++;
	q->h = h;
	q->scq = scq;
	q->rcq = rcq;
	q->cfg = *cfg;
	q->qpn = cfg->qpn;
	q->rq_bytes = calloc(1, (size_t)FX_SLOT_SIZE << shift);
	q->rq = q->cfg.rq = (struct fx_rq){.slots = q->rq_bytes, .shift = shift, .stride = stride};
	q->cfg.owner = q;
	make_copy(q);
	q->cfg.scq = &scq->core;
	q->cfg.rcq = &rcq->core;
	q->cfg.under_way = &h->under_way[cfg->ctx % HOST_CTXS];
	q->core = fx_qp_create(&q->cfg);
	h->qp[q->qpn >> FX_WORKER_BITS] = q;
	if (!q->core || fx_qp_attach(h->tp, q->core))
		abort();
	q->sq_index = sq_index;
	/* the counters of a queue go on through RESET: here they begin somewhere */
	if (sq_index || rq_index) {
		const struct fx_qp_attr attr = {.qp_state = 0};

		if (fx_qp_modify(h->tp, q->core, &attr, M_STATE, NULL, sq_index, rq_index))
			abort();
		q->rq.index = rq_index;
		q->rq.pos = rq_index * stride;
		for (uint32_t i = q->rq.pos; i - q->rq.pos < 1u << shift; i++)
			fx_rq_slot_at(&q->rq, i)[FX_SLOT_SIZE - 1] = !fx_phase(i, shift);
		if (q->rq_copy)
			memcpy(q->rq_copy, q->rq_bytes, ring_bytes(q));
	}
	q->gen = fx_qp_gen(q->core);
	return q;
}

bool qp_destroy(struct qp *q)
{
	struct host *h = q->h;
	bool idle;

	fx_qp_detach(h->tp, q->core);
	host_rouse(h, h->s->now);
	for (unsigned i = 0; i < 200 && !fx_qp_idle(q->core); i++)
		sim_run(h->s, h->s->now + 100000, NULL, NULL);
	idle = fx_qp_idle(q->core);
	h->qp[q->qpn >> FX_WORKER_BITS] = NULL;
	fx_qp_free(h->tp, q->core);
	free(q->rq_bytes);
	free(q->rq_copy);
	free(q->rq_seen);
	free(q);
	return idle;
}

/* From the host to the other one. */
static struct fx_l3 route(const struct host *h, bool ip6, uint32_t entropy)
{
	unsigned me = h->id;
	struct fx_l3 l3 = {.dmac = {2, 0, 0, 0, 0, (uint8_t)!me},
			   .smac = {2, 0, 0, 0, 0, (uint8_t)me},
			   .vlan = 0xffff,
			   .ip_version = ip6 ? 6 : 4,
			   .ttl = 64,
			   .df = true,
			   .sport = (uint16_t)(0xc000 + entropy % 16384)};

	address(l3.src, h, ip6);
	address(l3.dst, h->s->host[!me], ip6);
	return l3;
}

void ah_publish(struct host *h, struct fx_ah *ah, uint32_t slot, uint32_t pd, bool ip6)
{
	struct fx_l3 l3 = route(h, ip6, slot);

	*ah = (struct fx_ah){.handle = 7u << FX_AH_INDEX_BITS | slot, .pd = pd};
	fx_tmpl_init(&ah->tmpl, &l3);
	h->ah_slot[slot] = ah;
}

void ah_publish_group(struct host *h, struct fx_ah *ah, uint32_t slot, uint32_t pd, const uint8_t gid[16])
{
	bool ip6 = gid[0] == 0xff;
	struct fx_l3 l3 = route(h, ip6, slot);

	*ah = (struct fx_ah){.handle = 7u << FX_AH_INDEX_BITS | slot, .pd = pd};
	memcpy(l3.dst, gid, 16);
	fx_tmpl_init(&ah->tmpl, &l3);
	h->ah_slot[slot] = ah;
}

/* What the transport does not know in a transition is left out. */
static uint32_t known(const struct qp *q, uint32_t mask)
{
	static const uint32_t unknown[] = {
		[FX_QPT_UC] = M_RD_ATOMIC | M_DEST_RD_ATOMIC | M_RNR_TIMER | M_TIMEOUT | M_RETRY |
			      M_RNR_RETRY | M_QKEY,
		[FX_QPT_RC] = M_QKEY,
		[FX_QPT_UD] = ~(uint32_t)(M_STATE | M_PKEY | M_PORT | M_QKEY | M_SQ_PSN)};

	return mask & ~unknown[q->cfg.type];
}

int qp_listen(struct qp *q, const struct qp *peer, const struct link_attr *a)
{
	struct fx_path path = {.mtu_max = SIM_MTU_MAX};
	struct fx_qp_attr m = {.qp_state = INIT, .port_num = 1, .access = a->access, .qkey = HOST_QKEY};
	unsigned me = q->h->id;
	int err;

	err = fx_qp_modify(q->h->tp, q->core, &m, known(q, M_STATE | M_PKEY | M_PORT | M_ACCESS | M_QKEY),
			   NULL, 0, 0);
	if (err)
		return err;
	path.l3 = route(q->h, a->ip6, q->qpn);
	m.qp_state = RTR;
	m.ah.port_num = 1;
	while (128u << m.path_mtu < a->mtu)
		m.path_mtu++;
	m.dest_qp_num = peer->qpn;
	m.rq_psn = a->psn[!me];
	m.max_dest_rd_atomic = a->rd_atomic;
	m.min_rnr_timer = a->min_rnr_timer;
	return fx_qp_modify(
		q->h->tp, q->core, &m,
		known(q, M_STATE | M_AV | M_MTU | M_DEST_QPN | M_RQ_PSN | M_DEST_RD_ATOMIC | M_RNR_TIMER),
		&path, 0, 0);
}

int qp_connect(struct qp *q, const struct qp *peer, const struct link_attr *a)
{
	const struct fx_qp_attr m = {.qp_state = RTS,
				     .sq_psn = a->psn[q->h->id],
				     .timeout = a->timeout,
				     .retry_cnt = a->retry_cnt,
				     .rnr_retry = a->rnr_retry,
				     .max_rd_atomic = a->rd_atomic};
	int err = qp_listen(q, peer, a);

	if (err)
		return err;
	return fx_qp_modify(q->h->tp, q->core, &m,
			    known(q, M_STATE | M_SQ_PSN | M_TIMEOUT | M_RETRY | M_RNR_RETRY | M_RD_ATOMIC),
			    NULL, 0, 0);
}

int qp_state(struct qp *q, uint32_t state)
{
	const struct fx_qp_attr attr = {.qp_state = state};
	int err = fx_qp_modify(q->h->tp, q->core, &attr, M_STATE, NULL, q->sq_index, q->rq.index);

	if (q->rq_copy && state == 0)
		memcpy(q->rq_copy, q->rq_bytes, ring_bytes(q)); /* nothing in it is valid any more */
	q->gen = fx_qp_gen(q->core);
	host_rouse(q->h, q->h->s->now);
	return err;
}

/* ---- posting ---- */

/* Inline bytes: 31 in the first slot, 63 in each further one. Returns the slots used. */
static uint32_t put_inline(struct fx_sq_slot *e, const struct wr *w)
{
	uint8_t flat[FX_MAX_INLINE];
	uint32_t len = 0, n = 1;

	for (uint32_t i = 0; i < w->nsge; i++) {
		memcpy(flat + len, w->data[i], w->sge[i].length);
		len += w->sge[i].length;
	}
	e->rdma.inline_len = len;
	memcpy((uint8_t *)e + 32, flat, len < FX_SLOT_INLINE ? len : FX_SLOT_INLINE);
	for (uint32_t off = FX_SLOT_INLINE; off < len; off += FX_EXT_DATA, n++)
		memcpy(e + n, flat + off, len - off < FX_EXT_DATA ? len - off : FX_EXT_DATA);
	return n;
}

static uint32_t put_sges(struct fx_sq_slot *e, const struct wr *w)
{
	uint32_t n = 1;

	e->nsge = (uint8_t)w->nsge;
	if (w->nsge)
		e->sge = w->sge[0];
	for (uint32_t i = 1; i < w->nsge; i += FX_EXT_SGES, n++)
		for (uint32_t k = 0; k < FX_EXT_SGES && i + k < w->nsge; k++)
			memcpy((uint8_t *)(e + n) + k * sizeof(struct fx_sge), &w->sge[i + k],
			       sizeof(struct fx_sge));
	return n;
}

/* Operands in the second slot. */
static uint32_t put_atomic(struct fx_sq_slot *e, const struct wr *w)
{
	put_sges(e, w);
	memcpy(e + 1, &w->compare_add, sizeof(w->compare_add));
	memcpy((uint8_t *)(e + 1) + sizeof(w->compare_add), &w->swap, sizeof(w->swap));
	return 2;
}

void qp_post(struct qp *q, const struct wr *w)
{
	struct fx_sq_slot e[FX_MAX_SQ_SLOTS] = {
		{
			.opcode = w->op,
			.flags = w->flags,
			.qpn_gen = fx_qpn_gen(q->qpn, (uint8_t)q->gen),
			.index = q->sq_index++,
			.imm = w->imm,
			.rdma = {.remote_addr = w->remote_addr, .rkey = w->rkey},
		},
	};

	e[0].nslots = (uint8_t)(w->op == FX_WR_CMP_SWAP || w->op == FX_WR_FETCH_ADD ? put_atomic(e, w)
				: w->flags & FX_WRF_INLINE			    ? put_inline(e, w)
										    : put_sges(e, w));
	fx_post(q->h->tp, q->cfg.ctx, e);
	host_rouse(q->h, q->h->s->now);
}

void qp_post_bind(struct qp *q, const struct fx_bind_slot *bind)
{
	struct fx_bind_slot b = *bind;
	struct fx_sq_slot e;

	b.opcode = FX_WR_BIND_MW;
	b.nslots = 1;
	b.qpn_gen = fx_qpn_gen(q->qpn, (uint8_t)q->gen);
	b.index = q->sq_index++;
	memcpy(&e, &b, sizeof(e));
	fx_post(q->h->tp, q->cfg.ctx, &e);
	host_rouse(q->h, q->h->s->now);
}

void qp_post_recv(struct qp *q, const struct fx_sge *sge, uint32_t nsge)
{
	fx_rq_put(&q->rq, sge, nsge);
}
