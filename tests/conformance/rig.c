/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rig: device, protection domains, buffers, queue pairs that are connected to each other; and its end.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "conformance.h"

static struct rig *rigs;

struct spec usual(void)
{
	return (struct spec){
		.type = IBV_QPT_RC,
		.size = BUFFER,
		.cap = {.max_send_wr = 64, .max_recv_wr = 64, .max_send_sge = 1, .max_recv_sge = 1},
		.cqe = 256,
		.mtu = IBV_MTU_1024,
		.rd_atomic = 4,
		.dest_rd_atomic = 4,
		.timeout = 14,
		.retry_cnt = 7,
		.rnr_retry = 7,
		.min_rnr_timer = 12,
		.sq_psn = 0x123456,
		.rq_psn = 0x123456,
		.mr_access = ALL_ACCESS,
		.qp_access = ALL_ACCESS & ~IBV_ACCESS_LOCAL_WRITE,
		.state = IBV_QPS_RTS,
	};
}

struct ibv_context *open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *ctx = NULL;

	for (struct ibv_device **d = list; d && *d && !ctx; d++)
		if (!options.device || !strcmp(ibv_get_device_name(*d), options.device))
			ctx = ibv_open_device(*d);
	if (!ctx)
		row_failed(__FILE__, __LINE__, "there is no device %s",
			   options.device ? options.device : "at all");
	ibv_free_device_list(list);
	return ctx;
}

void *pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	NEED(p != MAP_FAILED);
	return p;
}

struct ibv_mr *need_mr(struct ibv_pd *pd, void *addr, size_t size, int access)
{
	struct ibv_mr *mr = ibv_reg_mr(pd, addr, size, access);

	NEED(mr);
	return mr;
}

struct ibv_qp *make_qp(struct ibv_pd *pd, struct ibv_cq *scq, struct ibv_cq *rcq, const struct spec *s)
{
	struct ibv_qp_init_attr init = {
		.send_cq = scq, .recv_cq = rcq, .qp_type = s->type, .sq_sig_all = s->sig_all, .cap = s->cap};
	struct ibv_qp *qp = ibv_create_qp(pd, &init);

	NEED(qp);
	return qp;
}

struct ibv_qp_attr attr_of(const struct rig *r, const struct spec *s, uint32_t peer)
{
	return (struct ibv_qp_attr){
		.port_num = (uint8_t)options.port,
		.qp_access_flags = (unsigned)s->qp_access,
		.path_mtu = s->mtu,
		.qkey = QKEY,
		.dest_qp_num = peer,
		.rq_psn = s->rq_psn,
		.sq_psn = s->sq_psn,
		.max_rd_atomic = s->rd_atomic,
		.max_dest_rd_atomic = s->dest_rd_atomic,
		.min_rnr_timer = s->min_rnr_timer,
		.timeout = s->timeout,
		.retry_cnt = s->retry_cnt,
		.rnr_retry = s->rnr_retry,
		.ah_attr = {.is_global = 1,
			    .port_num = (uint8_t)options.port,
			    .dlid = r->port.lid,
			    .grh = {.dgid = r->gid, .sgid_index = (uint8_t)options.gid, .hop_limit = 64}},
	};
}

void connect_qp(const struct rig *r, const struct spec *s, struct ibv_qp *qp, uint32_t peer,
		enum ibv_qp_state to)
{
	static const int rc[] = {
		[IBV_QPS_INIT] = INIT_MASK, [IBV_QPS_RTR] = RTR_MASK, [IBV_QPS_RTS] = RTS_MASK};
	static const int uc[] = {[IBV_QPS_INIT] = INIT_MASK,
				 [IBV_QPS_RTR] = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
						 IBV_QP_DEST_QPN | IBV_QP_RQ_PSN,
				 [IBV_QPS_RTS] = IBV_QP_STATE | IBV_QP_SQ_PSN};
	static const int ud[] = {[IBV_QPS_INIT] =
					 IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY,
				 [IBV_QPS_RTR] = IBV_QP_STATE,
				 [IBV_QPS_RTS] = IBV_QP_STATE | IBV_QP_SQ_PSN};
	const int *masks = s->type == IBV_QPT_UD ? ud : s->type == IBV_QPT_UC ? uc : rc;
	struct ibv_qp_attr a = attr_of(r, s, peer);

	for (int state = (int)qp->state + 1; state <= (int)to; state++) {
		a.qp_state = (enum ibv_qp_state)state;
		NEED_EQ(ibv_modify_qp(qp, &a, masks[state]), 0);
	}
}

static void make_end(const struct rig *r, struct end *e, const struct spec *s)
{
	e->pd = ibv_alloc_pd(r->ctx);
	NEED(e->pd);
	if (s->channels) {
		e->channel = ibv_create_comp_channel(r->ctx);
		NEED(e->channel);
	}
	e->scq = e->rcq = ibv_create_cq(r->ctx, s->cqe, NULL, e->channel, 0);
	if (s->two_cqs)
		e->rcq = ibv_create_cq(r->ctx, s->cqe, NULL, e->channel, 0);
	NEED(e->scq && e->rcq);
	e->size = s->size;
	e->buf = pages(s->size);
	memset(e->buf, UNTOUCHED, s->size);
	e->mr = need_mr(e->pd, e->buf, s->size, s->mr_access);
	e->qp = make_qp(e->pd, e->scq, e->rcq, s);
}

static void connect_ends(struct rig *r, const struct spec *s)
{
	if (s->loop) {
		connect_qp(r, s, r->a.qp, r->a.qp->qp_num, s->state);
		return;
	}
	connect_qp(r, s, r->b.qp, r->a.qp->qp_num, s->state);
	connect_qp(r, s, r->a.qp, r->b.qp->qp_num, s->state);
}

struct rig *rig_make(const struct spec *s)
{
	struct rig *r = calloc(1, sizeof(*r));

	NEED(r);
	r->ctx = open_device();
	NEED_EQ(ibv_query_device(r->ctx, &r->dev), 0);
	NEED_EQ(ibv_query_port(r->ctx, (uint8_t)options.port, &r->port), 0);
	NEED_EQ(ibv_query_gid(r->ctx, (uint8_t)options.port, options.gid, &r->gid), 0);
	make_end(r, &r->a, s);
	if (!s->loop)
		make_end(r, &r->b, s);
	else
		r->b = r->a;
	connect_ends(r, s);
	r->next = rigs;
	rigs = r;
	return r;
}

struct rig *rig(void)
{
	struct spec s = usual();

	return rig_make(&s);
}

void reconnect(struct rig *r, const struct spec *s)
{
	to_state(r->a.qp, IBV_QPS_RESET);
	to_state(r->b.qp, IBV_QPS_RESET);
	connect_ends(r, s);
}

static void close_end(struct end *e)
{
	if (e->qp)
		NEED_EQ(ibv_destroy_qp(e->qp), 0);
	if (e->ah)
		NEED_EQ(ibv_destroy_ah(e->ah), 0);
	if (e->mr)
		NEED_EQ(ibv_dereg_mr(e->mr), 0);
	if (e->rcq && e->rcq != e->scq)
		NEED_EQ(ibv_destroy_cq(e->rcq), 0);
	if (e->scq)
		NEED_EQ(ibv_destroy_cq(e->scq), 0);
	if (e->channel)
		NEED_EQ(ibv_destroy_comp_channel(e->channel), 0);
	if (e->pd)
		NEED_EQ(ibv_dealloc_pd(e->pd), 0);
	munmap(e->buf, e->size);
}

void rigs_close(void)
{
	for (struct rig *r = rigs; r; r = r->next) {
		if (r->b.buf != r->a.buf)
			close_end(&r->b);
		close_end(&r->a);
		if (r->ctx)
			NEED_EQ(ibv_close_device(r->ctx), 0);
	}
	rigs = NULL;
}

void to_state(struct ibv_qp *qp, enum ibv_qp_state state)
{
	struct ibv_qp_attr a = {.qp_state = state};

	NEED_EQ(ibv_modify_qp(qp, &a, IBV_QP_STATE), 0);
}

enum ibv_qp_state state_of(struct ibv_qp *qp)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr a;

	NEED_EQ(ibv_query_qp(qp, &a, IBV_QP_STATE, &init), 0);
	return a.qp_state;
}

void need_state(struct ibv_qp *qp, enum ibv_qp_state state)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	while (state_of(qp) != state && now_ms() < end)
		sleep_ms(1);
	NEED_EQ(state_of(qp), state);
}
