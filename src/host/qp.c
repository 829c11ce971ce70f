/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queue pairs: creation, states, destruction. The core checks transitions and attributes; this side keeps what
 * posting and polling need, and what became of the queues (guarantees P4, P6 and P8).
 *
 * Room: host. May use: context.c, arena.c, cq.c, bounce.h.
 */
#include <stdlib.h>
#include <string.h>

#include "host/bounce.h"
#include "host/wr.h"

/* ---- attributes, to and from the wire of the control protocol ---- */

void fx_pack_ah(struct fx_ah_attr *to, const struct ibv_ah_attr *from)
{
	*to = (struct fx_ah_attr){
		.is_global = from->is_global, .sl = from->sl, .port_num = from->port_num, .dlid = from->dlid};
	if (!from->is_global)
		return;
	memcpy(to->dgid, from->grh.dgid.raw, sizeof(to->dgid));
	to->flow_label = from->grh.flow_label;
	to->sgid_index = from->grh.sgid_index;
	to->hop_limit = from->grh.hop_limit;
	to->traffic_class = from->grh.traffic_class;
}

static void unpack_ah(struct ibv_ah_attr *to, const struct fx_ah_attr *from)
{
	memset(to, 0, sizeof(*to));
	to->is_global = from->is_global;
	to->sl = from->sl;
	to->port_num = from->port_num;
	to->dlid = from->dlid;
	memcpy(to->grh.dgid.raw, from->dgid, sizeof(from->dgid));
	to->grh.flow_label = from->flow_label;
	to->grh.sgid_index = from->sgid_index;
	to->grh.hop_limit = from->hop_limit;
	to->grh.traffic_class = from->traffic_class;
}

/* Fields of one name and meaning on both sides, and the mask that gives them a value. */
#define PLAIN_FIELDS(X)                                                                                      \
	X(qp_state, IBV_QP_STATE)                                                                            \
	X(cur_qp_state, IBV_QP_CUR_STATE)                                                                    \
	X(path_mtu, IBV_QP_PATH_MTU)                                                                         \
	X(path_mig_state, IBV_QP_PATH_MIG_STATE)                                                             \
	X(qkey, IBV_QP_QKEY)                                                                                 \
	X(rq_psn, IBV_QP_RQ_PSN)                                                                             \
	X(sq_psn, IBV_QP_SQ_PSN)                                                                             \
	X(dest_qp_num, IBV_QP_DEST_QPN)                                                                      \
	X(pkey_index, IBV_QP_PKEY_INDEX)                                                                     \
	X(en_sqd_async_notify, IBV_QP_EN_SQD_ASYNC_NOTIFY)                                                   \
	X(max_rd_atomic, IBV_QP_MAX_QP_RD_ATOMIC)                                                            \
	X(max_dest_rd_atomic, IBV_QP_MAX_DEST_RD_ATOMIC)                                                     \
	X(min_rnr_timer, IBV_QP_MIN_RNR_TIMER)                                                               \
	X(port_num, IBV_QP_PORT)                                                                             \
	X(timeout, IBV_QP_TIMEOUT)                                                                           \
	X(retry_cnt, IBV_QP_RETRY_CNT)                                                                       \
	X(rnr_retry, IBV_QP_RNR_RETRY)

/* The application need not have set what its mask does not name: only what it names is read. */
static void pack_attr(struct fx_qp_attr *to, const struct ibv_qp_attr *from, int mask)
{
	memset(to, 0, sizeof(*to));
	if (mask & IBV_QP_ACCESS_FLAGS)
		to->access = from->qp_access_flags;
	if (mask & IBV_QP_AV)
		fx_pack_ah(&to->ah, &from->ah_attr);
#define X(field, bit)                                                                                        \
	if (mask & (bit))                                                                                    \
		to->field = from->field;
	PLAIN_FIELDS(X)
#undef X
}

static void unpack_attr(struct ibv_qp_attr *to, const struct fx_qp_attr *from)
{
	memset(to, 0, sizeof(*to));
	to->qp_access_flags = from->access;
	to->sq_draining = from->sq_draining;
	unpack_ah(&to->ah_attr, &from->ah);
#define X(field, bit) to->field = from->field;
	PLAIN_FIELDS(X)
#undef X
}

/* ---- creation ---- */

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/*
 * What the core is told that requests may have: a detour cuts an SGE into its slow parts and the others, and sends
 * inline what was not so. A receive entry stays as large as it is.
 */
struct ibv_qp_cap fx_qp_room(const struct fx_vqp *qp)
{
	struct ibv_qp_cap room = {.max_send_sge = qp->max_send_sge,
				  .max_recv_sge = qp->max_recv_sge,
				  .max_inline_data = qp->max_inline};
	const struct fx_device_limits *l = &qp->ctx->limits;

	if (!qp->ctx->bounce)
		return room;
	room.max_send_sge = least(l->max_sge, FX_MAX_SGE);
	room.max_recv_sge = least(qp->ring.stride * FX_RQ_SGES, room.max_send_sge);
	room.max_inline_data = least(l->max_inline, FX_MAX_INLINE);
	return room;
}

static int check_init(const struct fx_context *ctx, const struct ibv_pd *pd, const struct ibv_qp_init_attr *a)
{
	const struct fx_device_limits *l = &ctx->limits;
	uint32_t max_sge = least(l->max_sge, FX_MAX_SGE), max_inline = least(l->max_inline, FX_MAX_INLINE);

	if (a->qp_type != IBV_QPT_RC && a->qp_type != IBV_QPT_UC && a->qp_type != IBV_QPT_UD &&
	    a->qp_type != IBV_QPT_XRC_SEND)
		return -EOPNOTSUPP;
	if (!a->send_cq || !a->recv_cq || a->send_cq->context != pd->context ||
	    a->recv_cq->context != pd->context || (a->srq && a->srq->context != pd->context))
		return -EINVAL;
	if (a->srq && (fx_srq_of(a->srq)->xrcd || a->qp_type == IBV_QPT_XRC_SEND))
		return -EINVAL;
	if (a->cap.max_send_wr > l->max_qp_wr || a->cap.max_recv_wr > l->max_qp_wr ||
	    a->cap.max_send_sge > max_sge || a->cap.max_recv_sge > max_sge ||
	    a->cap.max_inline_data > max_inline)
		return -EINVAL;
	return 0;
}

static uint64_t ring_bytes(const struct fx_vqp *qp)
{
	return (uint64_t)FX_SLOT_SIZE << qp->ring.shift;
}

static void drop_shadow(struct fx_vqp *qp, struct fx_shadow *s)
{
	fx_bounce_drop(qp, s, s->head);
	fx_shadow_drop_all(s);
}

static void free_queues(struct fx_vqp *qp)
{
	struct fx_context *ctx = qp->ctx;

	fx_arena_free(&ctx->arena, qp->ring_off, ring_bytes(qp),
		      __atomic_load_n(&ctx->life, __ATOMIC_RELAXED) != FX_FORKED);
	drop_shadow(qp, &qp->sq);
	drop_shadow(qp, &qp->rq);
	free(qp->sq.bounce);
	free(qp->rq.bounce);
	free(qp->sq.wr);
	free(qp->rq.wr);
	free(qp->batch);
}

static int make_queues(struct fx_vqp *qp, const struct ibv_qp_cap *cap)
{
	uint32_t stride = fx_rq_stride(qp->max_recv_sge);
	int err = fx_shadow_init(&qp->sq, cap->max_send_wr);

	if (err)
		return err;
	err = fx_shadow_init(&qp->rq, cap->max_recv_wr);
	if (err)
		goto free_sq;
	qp->ring.stride = stride;
	qp->ring.shift = fx_log2_up((cap->max_recv_wr ? cap->max_recv_wr : 1) * stride);
	err = fx_arena_alloc(&qp->ctx->arena, ring_bytes(qp), &qp->ring_off);
	if (err)
		goto free_rq;
	qp->ring.slots = qp->ctx->arena.base + qp->ring_off;
	return 0;

free_rq:
	free(qp->rq.wr);
free_sq:
	free(qp->sq.wr);
	return err;
}

static void name_qp(struct fx_vqp *qp, const struct fx_create_qp_rep *rep)
{
	qp->qp.handle = rep->qp;
	qp->qp.qp_num = rep->qpn;
	qp->qpn_gen = fx_qpn_gen(rep->qpn, (uint8_t)rep->gen);
}

static int ask_create(struct fx_vqp *qp, const struct ibv_qp_init_attr *a, uint32_t flags)
{
	struct ibv_qp_cap room = fx_qp_room(qp);
	struct fx_create_qp_req req = {.head = {.op = FX_MSG_CREATE_QP},
				       .pd = qp->qp.pd ? qp->qp.pd->handle : 0,
				       .type = a->qp_type,
				       .send_cq = a->send_cq ? a->send_cq->handle : 0,
				       .recv_cq = a->recv_cq ? a->recv_cq->handle : 0,
				       .xrcd = qp->xrcd ? qp->xrcd->handle : 0,
				       .sq_sig_all = a->sq_sig_all != 0,
				       .max_send_wr = a->cap.max_send_wr,
				       .max_recv_wr = a->cap.max_recv_wr,
				       .max_send_sge = room.max_send_sge,
				       .max_recv_sge = room.max_recv_sge,
				       .max_inline = room.max_inline_data,
				       .rq_shift = qp->ring.shift,
				       .flags = flags,
				       .rq_off = qp->ring_off,
				       .srq = a->srq ? a->srq->handle : 0,
				       .cookie = qp->subject.cookie};
	struct fx_create_qp_rep rep;
	int err = fx_ask(qp->ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);

	if (!err)
		name_qp(qp, &rep);
	return err;
}

/* Another process's: in which state it is, the core knows. */
static int ask_open(struct fx_vqp *qp, uint32_t qpn)
{
	struct fx_open_qp_req req = {.head = {.op = FX_MSG_OPEN_QP}, .xrcd = qp->xrcd->handle, .qpn = qpn};
	struct fx_create_qp_rep rep;
	int err = fx_ask(qp->ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);

	if (err)
		return err;
	name_qp(qp, &rep);
	qp->state = qp->qp.state = IBV_QPS_UNKNOWN;
	return 0;
}

/* What was posted comes first (guarantee P7): the core waits for this index, and we for a pipe of the QP's thread. */
static uint32_t in_turn(const struct fx_vqp *qp)
{
	if (qp->alone)
		fx_pipe_settle(qp->ctx, qp->pipe);
	return fx_pipe_pi(qp->ctx);
}

static int ask_destroy(struct fx_vqp *qp)
{
	struct fx_qp_req req = {.head = {.op = FX_MSG_DESTROY_QP}, .qp = qp->qp.handle};
	struct fx_msg_head rep;

	req.pipe_pi = in_turn(qp);
	return fx_ask(qp->ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
}

/* Of what it is made of; n is 1 or -1. */
static void use_parts(struct fx_vqp *qp, int n)
{
	uint32_t *const users[] = {qp->xrcd ? NULL : &fx_cq_of(qp->qp.send_cq)->users,
				   qp->xrcd ? NULL : &fx_cq_of(qp->qp.recv_cq)->users,
				   qp->xrcd ? NULL : &fx_pd_of(qp->qp.pd)->users,
				   qp->qp.srq ? &fx_srq_of(qp->qp.srq)->users : NULL,
				   qp->xrcd ? &qp->xrcd->users : NULL};

	/* release: the last use of each comes before whoever destroys it */
	for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++)
		if (users[i])
			__atomic_fetch_add(users[i], (uint32_t)n, __ATOMIC_RELEASE);
}

/* Completions find the QP from now on. */
static int list_in_cqs(struct fx_vqp *qp)
{
	struct fx_vcq *s = fx_cq_of(qp->qp.send_cq), *r = fx_cq_of(qp->qp.recv_cq);
	int err;

	if (qp->xrcd)
		return 0;
	fx_cqs_lock(qp);
	err = fx_qp_insert(&s->qps, qp->qp.qp_num, qp);
	if (!err && r != s) {
		err = fx_qp_insert(&r->qps, qp->qp.qp_num, qp);
		if (err)
			fx_qp_remove(&s->qps, qp->qp.qp_num);
	}
	fx_cqs_unlock(qp);
	return err;
}

static int list_qp(struct fx_vqp *qp)
{
	int err = list_in_cqs(qp);

	if (err)
		return err;
	use_parts(qp, 1);
	pthread_mutex_lock(&qp->ctx->lock);
	fx_subject_list(qp->ctx, &qp->subject);
	pthread_mutex_unlock(&qp->ctx->lock);
	return 0;
}

static void unlist_from_cqs(struct fx_vqp *qp)
{
	struct fx_vcq *s = fx_cq_of(qp->qp.send_cq), *r = fx_cq_of(qp->qp.recv_cq);

	if (qp->xrcd)
		return;
	fx_cqs_lock(qp);
	fx_cq_forget(r, qp);
	fx_qp_remove(&s->qps, qp->qp.qp_num);
	if (r != s)
		fx_qp_remove(&r->qps, qp->qp.qp_num);
	fx_cqs_unlock(qp);
}

static void unlist_qp(struct fx_vqp *qp)
{
	unlist_from_cqs(qp);
	fx_subject_forget(qp->ctx, &qp->subject);
	use_parts(qp, -1);
}

/* With an SRQ it has no receives of its own, whatever was asked for. */
static struct fx_vqp *new_qp(struct fx_context *ctx, struct ibv_pd *pd, struct fx_vxrcd *xrcd,
			     struct ibv_qp_init_attr *a)
{
	struct fx_vqp *qp = aligned_alloc(FX_LINE, sizeof(*qp));

	if (!qp)
		return NULL;
	if (a->srq)
		a->cap.max_recv_wr = a->cap.max_recv_sge = 0;
	memset(qp, 0, sizeof(*qp));
	qp->ctx = ctx;
	qp->xrcd = xrcd;
	qp->qp = (struct ibv_qp){.context = &ctx->verbs.context,
				 .qp_context = a->qp_context,
				 .pd = pd,
				 .send_cq = a->send_cq,
				 .recv_cq = a->recv_cq,
				 .srq = a->srq,
				 .qp_type = a->qp_type};
	qp->alone = pd && fx_pd_of(pd)->td && fx_pd_of(pd)->td->handle;
	qp->pipe = qp->alone ? &fx_pd_of(pd)->td->pipe : &ctx->pipe;
	qp->state = qp->qp.state = IBV_QPS_RESET;
	qp->sig_all = a->sq_sig_all;
	qp->max_send_sge = a->cap.max_send_sge;
	qp->max_recv_sge = a->cap.max_recv_sge;
	qp->max_inline = a->cap.max_inline_data;
	fx_subject_init(qp->ctx, &qp->subject, FX_OF_QP, &qp->qp, &qp->qp.mutex, &qp->qp.cond);
	return qp;
}

/* Of checked attributes. flags: enum fx_qp_flags; ops: enum ibv_qp_create_send_ops_flags; there: a QP to open, or 0 */
static struct ibv_qp *make(struct fx_context *ctx, struct ibv_pd *pd, struct fx_vxrcd *xrcd,
			   struct ibv_qp_init_attr *a, uint32_t flags, uint64_t ops, uint32_t there)
{
	struct fx_vqp *qp = new_qp(ctx, pd, xrcd, a);
	int err;

	if (!qp)
		return fx_null(ENOMEM);
	err = make_queues(qp, &a->cap);
	if (err)
		goto free_qp;
	err = ops ? fx_batch_make(qp, ops) : 0;
	if (err)
		goto free_queues;
	err = there ? ask_open(qp, there) : ask_create(qp, a, flags);
	if (err)
		goto free_queues;
	err = list_qp(qp);
	if (err) {
		ask_destroy(qp);
		goto free_queues;
	}
	return &qp->qp;

free_queues:
	free_queues(qp);
free_qp:
	free(qp);
	return fx_null(err);
}

static struct ibv_qp *create(struct ibv_pd *pd, struct ibv_qp_init_attr *a, uint32_t flags, uint64_t ops)
{
	struct fx_context *ctx = fx_context_of(pd->context);
	int err;

	if (a->qp_type == IBV_QPT_XRC_SEND)
		a->recv_cq = a->send_cq; /* nothing completes there */
	err = check_init(ctx, pd, a);
	return err ? fx_null(err) : make(ctx, pd, NULL, a, flags, ops, 0);
}

/* It has no queues: messages name the SRQ, and whose CQ that is. */
static struct ibv_qp *create_target(struct fx_context *ctx, const struct ibv_qp_init_attr_ex *a)
{
	struct ibv_qp_init_attr base = {.qp_context = a->qp_context, .qp_type = a->qp_type};

	if (!(a->comp_mask & IBV_QP_INIT_ATTR_XRCD) || !a->xrcd || a->xrcd->context != &ctx->verbs.context)
		return fx_null(EINVAL);
	return make(ctx, NULL, fx_xrcd_of(a->xrcd), &base, 0, 0, 0);
}

struct ibv_qp *flexins_open_qp(struct ibv_context *c, struct ibv_qp_open_attr *a)
{
	const uint32_t need = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE;
	struct ibv_qp_init_attr base = {.qp_type = IBV_QPT_XRC_RECV};

	if (a->comp_mask & ~(need | IBV_QP_OPEN_ATTR_CONTEXT))
		return fx_null(EOPNOTSUPP);
	if ((a->comp_mask & need) != need || a->qp_type != IBV_QPT_XRC_RECV || !a->xrcd ||
	    a->xrcd->context != c)
		return fx_null(EINVAL);
	if (a->comp_mask & IBV_QP_OPEN_ATTR_CONTEXT)
		base.qp_context = a->qp_context;
	return make(fx_context_of(c), NULL, fx_xrcd_of(a->xrcd), &base, 0, 0, a->qp_num);
}

struct ibv_qp *flexins_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	return create(pd, a, 0, 0);
}

/* What of an extended creation is not the plain one's: EINVAL, EOPNOTSUPP or 0, with a text. */
static int check_extended(const struct ibv_qp_init_attr_ex *a, uint32_t flags, uint64_t ops)
{
	const uint32_t known =
		IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;

	if (a->comp_mask & ~known) {
		fx_why("ibv_create_qp_ex: comp_mask %#x: %#x is unknown here", a->comp_mask,
		       a->comp_mask & ~known);
		return EOPNOTSUPP;
	}
	if (!(a->comp_mask & IBV_QP_INIT_ATTR_PD) || !a->pd)
		return EINVAL;
	if (flags & ~(uint32_t)IBV_QP_CREATE_BLOCK_SELF_MCAST_LB) {
		fx_why("ibv_create_qp_ex: create_flags %#x: there is IBV_QP_CREATE_BLOCK_SELF_MCAST_LB only",
		       flags);
		return EOPNOTSUPP;
	}
	if (!fx_batch_ops_ok(a->qp_type, ops)) {
		fx_why("ibv_create_qp_ex: QPs of type %d have not all of send_ops_flags %#llx", a->qp_type,
		       (unsigned long long)ops);
		return EOPNOTSUPP;
	}
	return 0;
}

struct ibv_qp *flexins_create_qp_ex(struct ibv_context *c, struct ibv_qp_init_attr_ex *a)
{
	uint32_t flags = a->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS ? a->create_flags : 0;
	uint64_t ops = a->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS ? a->send_ops_flags : 0;
	struct ibv_qp_init_attr base;
	struct ibv_qp *qp;
	int err;

	if (a->qp_type == IBV_QPT_XRC_RECV)
		return create_target(fx_context_of(c), a);
	err = check_extended(a, flags, ops);
	if (!err && a->pd->context != c)
		err = EINVAL;
	if (err)
		return fx_null(err);
	/* the extended structure starts with the plain one */
	memcpy(&base, a, sizeof(base));
	qp = create(a->pd, &base, flags & IBV_QP_CREATE_BLOCK_SELF_MCAST_LB ? FX_QPF_BLOCK_MCAST_LOOP : 0,
		    ops);
	if (qp)
		a->cap = base.cap;
	return qp;
}

int flexins_destroy_qp(struct ibv_qp *ibqp)
{
	struct fx_vqp *qp = fx_qp_of(ibqp);
	int err = ask_destroy(qp);

	if (err && fx_alive(qp->ctx))
		return fx_fail(err);
	unlist_qp(qp);
	fx_subject_fini(&qp->subject, &ibqp->events_completed);
	free_queues(qp);
	free(qp);
	return 0;
}

/* ---- states ---- */

static void set_state(struct fx_vqp *qp, uint32_t state)
{
	fx_lock(&qp->sq_lock);
	fx_lock(&qp->rq_lock);
	__atomic_store_n(&qp->state, state, __ATOMIC_RELAXED);
	fx_unlock(&qp->rq_lock);
	fx_unlock(&qp->sq_lock);
}

/*
 * The core has done it. After RESET nothing posted before completes any more; the counters go on (guarantee P4). Nobody
 * posts in RESET, so the queues' locks are not needed for it: with them and the CQs' at once, a program that polls in the
 * midst of a batch would wait for us, and we for it.
 */
static void moved(struct fx_vqp *qp, const struct fx_modify_qp_rep *rep)
{
	if (rep->state == IBV_QPS_RESET) {
		fx_cqs_lock(qp);
		if (qp->qp.srq)
			fx_cq_forget(fx_cq_of(qp->qp.recv_cq), qp);
		qp->qpn_gen = fx_qpn_gen(qp->qp.qp_num, (uint8_t)rep->gen);
		drop_shadow(qp, &qp->sq);
		drop_shadow(qp, &qp->rq);
		fx_cqs_unlock(qp);
	}
	set_state(qp, rep->state);
	qp->qp.state = rep->state;
}

/* Without a GRH there is no address in RoCE; on a loopback port that means the port itself. */
bool fx_av_ok(struct fx_context *ctx, const struct ibv_ah_attr *ah)
{
	bool loopback;

	pthread_mutex_lock(&ctx->lock);
	loopback = ctx->port.loopback;
	pthread_mutex_unlock(&ctx->lock);
	if (!ah->is_global && !loopback)
		fx_why("this port needs a GID to send to: set ah_attr.is_global and ah_attr.grh");
	return ah->is_global || loopback;
}

int flexins_modify_qp(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask)
{
	struct fx_modify_qp_req req = {
		.head = {.op = FX_MSG_MODIFY_QP}, .qp = ibqp->handle, .mask = (uint32_t)mask};
	struct fx_vqp *qp = fx_qp_of(ibqp);
	struct fx_modify_qp_rep rep;
	bool reset = (mask & IBV_QP_STATE) && attr->qp_state == IBV_QPS_RESET;
	uint32_t before = qp->state;
	int err;

	if (mask & (IBV_QP_CAP | IBV_QP_ALT_PATH | IBV_QP_RATE_LIMIT))
		return fx_fail(EOPNOTSUPP);
	if ((mask & IBV_QP_AV) && !fx_av_ok(qp->ctx, &attr->ah_attr))
		return fx_fail(EINVAL);
	if (reset)
		set_state(qp, IBV_QPS_RESET); /* nothing is posted any more, so the counters below stand */
	pack_attr(&req.attr, attr, mask);
	req.sq_index = qp->sq.head;
	req.rq_index = qp->rq.head;
	req.pipe_pi = in_turn(qp);
	err = fx_ask(qp->ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
	if (err) {
		if (reset)
			set_state(qp, before);
		return fx_fail(err);
	}
	moved(qp, &rep);
	return 0;
}

int flexins_query_qp(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	struct fx_qp_req req = {.head = {.op = FX_MSG_QUERY_QP}, .qp = ibqp->handle};
	struct fx_vqp *qp = fx_qp_of(ibqp);
	struct ibv_qp_cap cap = {.max_send_wr = qp->sq.cap,
				 .max_recv_wr = qp->rq.cap,
				 .max_send_sge = qp->max_send_sge,
				 .max_recv_sge = qp->max_recv_sge,
				 .max_inline_data = qp->max_inline};
	struct fx_query_qp_rep rep;
	int err;

	(void)mask; /* all of it, which the manual allows */
	req.pipe_pi = in_turn(qp);
	err = fx_ask(qp->ctx, &req, sizeof(req), &rep, sizeof(rep), NULL);
	if (err)
		return fx_fail(err);
	unpack_attr(attr, &rep.attr);
	attr->cap = cap;
	*init = (struct ibv_qp_init_attr){.qp_context = ibqp->qp_context,
					  .send_cq = ibqp->send_cq,
					  .recv_cq = ibqp->recv_cq,
					  .srq = ibqp->srq,
					  .cap = cap,
					  .qp_type = ibqp->qp_type,
					  .sq_sig_all = qp->sig_all};
	return 0;
}

int flexins_query_qp_data_in_order(struct ibv_qp *qp, enum ibv_wr_opcode op, uint32_t flags)
{
	(void)qp;
	(void)op;
	(void)flags;
	return 0; /* a message's last byte is written last; the order of those before is not promised */
}

/* ---- enhanced connection establishment: there is nothing to negotiate ---- */

int flexins_query_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	(void)qp;
	memset(ece, 0, sizeof(*ece));
	return 0;
}

int flexins_set_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	(void)qp;
	if (ece->comp_mask)
		return fx_fail(EINVAL);
	return ece->vendor_id ? fx_fail(EOPNOTSUPP) : 0;
}
