/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the control thread asks of a worker, and the grace periods behind deregistration, and behind a QP's reset and end.
 *
 * A grace period: regions are unpublished before it is asked for, so whatever is looked up from then on does
 * not find them. What was looked up before is counted under the old parity: segments on their way through the
 * port, buffers being gathered, and the transport's copies. When the old parity has counted down to nothing,
 * nothing under way knows the regions, or is what the QP had begun. Requests that arrive meanwhile share the next
 * period. Regions and QPs belong to contexts, and so do periods: the memory of one may take as long as it likes.
 */
#include <errno.h>
#include <string.h>

#include "control/table.h"
#include "core/inside.h"

enum { LATER = 1, QPS_RESET = 0 /* enum ibv_qp_state */ };
#define PATIENCE_NS UINT64_C(1000000000) /* with a pipe index that was announced but never comes */

static void done(struct fx_worker *w, struct fx_cmd *cmd, int err)
{
	cmd->err = err;
	fx_cmd_done(w->cfg.mailbox, cmd);
}

static void defer(struct fx_cmd **list, struct fx_cmd *cmd)
{
	cmd->next = *list;
	*list = cmd;
}

/* ---- contexts and their CQs ---- */

static int ctx_add(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_wctx *ctx = cmd->ctx;
	int err;

	if (w->nctx == FX_CTXS)
		return -ENOSPC;
	err = fx_wait_add(w, ctx->kick);
	if (err)
		return err;
	ctx->slot = w->nctx;
	ctx->dead = false;
	w->ctx[w->nctx++] = ctx;
	fx_mirror_attach(w->mirror, ctx->mirror, w->now);
	return 0;
}

static int cq_add(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cq *cq = cmd->data;

	w->cqs[fx_handle_index(cq->handle)] = cq;
	cmd->ctx->ncqs++;
	return 0;
}

static int cq_modify(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cmd_cq *m = cmd->data;

	fx_tp_cq_moderate(w->tp, m->cq, m->every, m->patience);
	return 0;
}

static int cq_resize(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cmd_cq *m = cmd->data;

	(void)w;
	if (m->cq->copy)
		return fx_mirror_cq_move(m->cq->copy, m->to.copy, m->ci, &m->end);
	return fx_cq_move(m->cq, &m->to, m->ci, &m->end);
}

static int cq_del(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cq *cq = cmd->data;

	fx_tp_cq_let_go(w->tp, cq);
	w->cqs[fx_handle_index(cq->handle)] = NULL;
	cmd->ctx->ncqs--;
	defer(&w->dying, cmd);
	return LATER;
}

static int ctx_del(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_wctx *ctx = cmd->ctx;

	for (uint32_t i = 1; ctx->ncqs && i <= FX_LIMIT_CQ; i++)
		if (w->cqs[i] && w->cqs[i]->owner == ctx) {
			fx_tp_cq_let_go(w->tp, w->cqs[i]);
			w->cqs[i] = NULL;
			ctx->ncqs--;
		}
	fx_wait_del(w, ctx->kick);
	fx_mirror_detach(w->mirror, ctx->mirror);
	ctx->dead = true;
	w->ctx[ctx->slot] = w->ctx[--w->nctx];
	w->ctx[ctx->slot]->slot = ctx->slot;
	defer(&w->dying, cmd);
	return LATER;
}

static int pipe_add(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_wpipe *p = cmd->data;

	(void)w;
	p->next = cmd->ctx->pipes;
	cmd->ctx->pipes = p;
	return 0;
}

static int pipe_del(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_wpipe **at = &cmd->ctx->pipes;

	(void)w;
	while (*at && *at != cmd->data)
		at = &(*at)->next;
	if (*at)
		*at = (*at)->next;
	return 0;
}

/* Its pipe is not looked at any more; the control thread does the rest. It may die of several things. */
void fx_ctx_dead(struct fx_worker *w, struct fx_wctx *ctx)
{
	if (ctx->dead)
		return;
	ctx->dead = true;
	w->n.pipe_broken++;
	done(w, &ctx->broken, 0);
}

/* ---- QPs ---- */

/*
 * The application has its memory back when it hears of a reset or the end of a QP: what the QP still copies, or
 * has on its way as segments of that memory, READ responses too, has passed by then (guarantee L1).
 */
static int after_grace(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_wctx *ctx = cmd->ctx;

	if (!ctx->grace && !ctx->grace_next) {
		ctx->graces = w->graces;
		w->graces = ctx;
	}
	defer(&ctx->grace_next, cmd);
	return LATER;
}

static int qp_attach(struct fx_worker *w, struct fx_cmd *cmd)
{
	int err = fx_qp_attach(w->tp, cmd->qp);

	if (err)
		fx_qp_free(w->tp, cmd->qp);
	return err;
}

static int qp_modify(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cmd_modify *m = cmd->data;
	struct fx_qp_attr now;
	int err = fx_qp_modify(w->tp, cmd->qp, &m->attr, m->mask, m->have_path ? &m->path : NULL, m->sq_index,
			       m->rq_index);

	fx_qp_query(cmd->qp, &now);
	m->attr.qp_state = now.qp_state;
	m->gen = fx_qp_gen(cmd->qp);
	if (!err && now.qp_state == QPS_RESET) {
		fx_mirror_rq_moved(fx_qp_rxq(cmd->qp)->copy);
		return after_grace(w, cmd);
	}
	return err > 0 ? -err : err;
}

static int qp_query(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cmd_modify *m = cmd->data;

	(void)w;
	fx_qp_query(cmd->qp, &m->attr);
	m->gen = fx_qp_gen(cmd->qp);
	return 0;
}

static int qp_detach(struct fx_worker *w, struct fx_cmd *cmd)
{
	fx_qp_detach(w->tp, cmd->qp);
	return after_grace(w, cmd);
}

/* ---- shared receive queues ---- */

static int srq_query(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cmd_srq *s = cmd->data;

	(void)w;
	s->limit = s->rx->limit;
	return 0;
}

static int srq_arm(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cmd_srq *s = cmd->data;

	fx_rxq_arm(w->tp, s->rx, s->limit);
	return srq_query(w, cmd);
}

static int srq_add(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_rxq *rx = ((struct fx_cmd_srq *)cmd->data)->rx;
	int err = rx->cq ? fx_rxq_attach(w->tp, rx) : 0;

	return err ? err : srq_arm(w, cmd);
}

/* Copies into its receives have passed; and the mirror's looks at it. */
static int srq_del(struct fx_worker *w, struct fx_cmd *cmd)
{
	fx_rxq_detach(w->tp, cmd->data);
	return after_grace(w, cmd);
}

/* ---- multicast groups ---- */

static int mcast_join(struct fx_worker *w, struct fx_cmd *cmd)
{
	fx_mcast_join(w->tp, cmd->data);
	return 0;
}

static int mcast_leave(struct fx_worker *w, struct fx_cmd *cmd)
{
	fx_mcast_leave(w->tp, cmd->data);
	return 0;
}

/* ---- the rest ---- */

/* What is looked up in a turn is done with by its end, and commands run between. */
static int pass(struct fx_worker *w, struct fx_cmd *cmd)
{
	(void)w;
	(void)cmd;
	return 0;
}

static void count_carried(const struct fx_worker *w, struct fx_worker_counters *n)
{
	n->bus_landed = w->landed.writes;
	n->bus_landed_bytes = w->landed.bytes;
	n->bus_fetched = w->fetched.reads;
	n->bus_fetched_bytes = w->fetched.bytes;
	n->bus_ring_reads = w->mirrored.reads;
	n->bus_ring_writes = w->mirrored.writes;
	n->bus_ring_bytes = w->mirrored.bytes;
}

static int snapshot(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cmd_snapshot *s = cmd->data;
	struct rte_eth_stats st;

	for (uint32_t i = 0; i < s->nqp; i++)
		fx_qp_snapshot(s->qp[i], &s->info[i]);
	if (!s->want_counters)
		return 0;
	s->transport = *fx_tp_counters(w->tp);
	s->worker = w->n;
	count_carried(w, &s->worker);
	s->memory = fx_tp_memory(w->tp);
	s->port = (struct fx_port_stats){.up = w->port->info.up};
	if (rte_eth_stats_get(w->port->id, &st) == 0) {
		s->port.tx_packets = st.opackets;
		s->port.tx_bytes = st.obytes;
		s->port.tx_errors = st.oerrors;
		s->port.rx_packets = st.ipackets;
		s->port.rx_bytes = st.ibytes;
		s->port.rx_missed = st.imissed;
		s->port.rx_errors = st.ierrors;
		s->port.rx_nombuf = st.rx_nombuf;
	}
	return 0;
}

static int (*const run[FX_CMD_OPS])(struct fx_worker *w, struct fx_cmd *cmd) = {
	[FX_CMD_CTX_ADD] = ctx_add,   [FX_CMD_CTX_DEL] = ctx_del,	[FX_CMD_CQ_ADD] = cq_add,
	[FX_CMD_CQ_DEL] = cq_del,     [FX_CMD_QP_ATTACH] = qp_attach,	[FX_CMD_QP_MODIFY] = qp_modify,
	[FX_CMD_QP_QUERY] = qp_query, [FX_CMD_QP_DETACH] = qp_detach,	[FX_CMD_GRACE] = after_grace,
	[FX_CMD_SRQ_ADD] = srq_add,   [FX_CMD_SRQ_ARM] = srq_arm,	[FX_CMD_SRQ_QUERY] = srq_query,
	[FX_CMD_SRQ_DEL] = srq_del,   [FX_CMD_MCAST_JOIN] = mcast_join, [FX_CMD_MCAST_LEAVE] = mcast_leave,
	[FX_CMD_PASS] = pass,	      [FX_CMD_CQ_MODIFY] = cq_modify,	[FX_CMD_CQ_RESIZE] = cq_resize,
	[FX_CMD_SNAPSHOT] = snapshot, [FX_CMD_PIPE_ADD] = pipe_add,	[FX_CMD_PIPE_DEL] = pipe_del,
};

/* Entries of the pipe that the command has to wait for; more than the pipe holds is a lie. */
static uint32_t behind(const struct fx_cmd *cmd)
{
	uint32_t n;

	if (!cmd->in_turn || cmd->ctx->dead)
		return 0;
	n = cmd->pipe_pi - cmd->ctx->pipe.ci;
	return (int32_t)n < 0 ? 0 : n;
}

static void run_now(struct fx_worker *w, struct fx_cmd *cmd)
{
	int err = run[cmd->op] ? run[cmd->op](w, cmd) : -EOPNOTSUPP;

	if (err != LATER)
		done(w, cmd, err);
}

/* A destroy happens all the same: the index was only there for the entries before it. */
static void give_up(struct fx_worker *w, struct fx_cmd *cmd)
{
	struct fx_cmd_modify *m = cmd->data;

	w->n.late_commands++;
	if (cmd->op != FX_CMD_QP_MODIFY) {
		run_now(w, cmd);
		return;
	}
	m->gen = fx_qp_gen(cmd->qp);
	done(w, cmd, -ETIMEDOUT);
}

unsigned fx_commands(struct fx_worker *w)
{
	struct fx_cmd *cmd = fx_cmd_take(&w->cfg.mailbox->todo), *next;
	unsigned n = 0;

	for (; cmd; cmd = next, n++) {
		uint32_t left = behind(cmd);

		next = cmd->next;
		w->n.commands++;
		if (!left) {
			run_now(w, cmd);
		} else if (left > 1u << cmd->ctx->pipe.shift) {
			give_up(w, cmd);
		} else {
			cmd->deadline = w->now + PATIENCE_NS;
			fx_mirror_kick(
				cmd->ctx->mirror); /* there is something, whether its kick has come or not */
			defer(&w->waiting, cmd);
		}
	}
	return n;
}

/* ---- things that pass ---- */

/* Moves those that are ready from the list to the caller, one a call. */
static struct fx_cmd *pick(struct fx_worker *w, struct fx_cmd **list,
			   bool (*ready)(struct fx_worker *, struct fx_cmd *))
{
	for (struct fx_cmd **p = list; *p; p = &(*p)->next) {
		struct fx_cmd *cmd = *p;

		if (ready(w, cmd)) {
			*p = cmd->next;
			return cmd;
		}
	}
	return NULL;
}

static bool turn_has_come(struct fx_worker *w, struct fx_cmd *cmd)
{
	return !behind(cmd) || w->now >= cmd->deadline;
}

static bool has_died(struct fx_worker *w, struct fx_cmd *cmd)
{
	const struct fx_cq *cq = cmd->data;
	const struct fx_rxq *srq = cmd->data;

	(void)w;
	switch (cmd->op) {
	case FX_CMD_CTX_DEL:
		return fx_mirror_ctx_idle(cmd->ctx->mirror);
	case FX_CMD_CQ_DEL:
		return fx_mirror_cq_idle(cq->copy);
	case FX_CMD_SRQ_DEL:
		return fx_mirror_rq_idle(srq->copy);
	default:
		return fx_qp_idle(cmd->qp) && !fx_wqp_of(cmd->qp)->first &&
		       fx_mirror_rq_idle(fx_qp_rxq(cmd->qp)->copy);
	}
}

static void begin_grace(struct fx_worker *w, struct fx_wctx *ctx)
{
	w->n.graces++;
	ctx->grace = ctx->grace_next;
	ctx->grace_next = NULL;
	fx_grace_begin(&ctx->under_way);
}

static void finish_grace(struct fx_worker *w, struct fx_cmd *over)
{
	while (over) {
		struct fx_cmd *cmd = over;

		over = cmd->next;
		if (cmd->op == FX_CMD_QP_DETACH || cmd->op == FX_CMD_SRQ_DEL)
			defer(&w->dying, cmd);
		else
			done(w, cmd, 0);
	}
}

static void settle_graces(struct fx_worker *w)
{
	struct fx_wctx **at = &w->graces, *ctx;

	while ((ctx = *at)) {
		struct fx_cmd *over = NULL;

		if (ctx->grace && fx_grace_over(&ctx->under_way)) {
			over = ctx->grace;
			ctx->grace = NULL;
		}
		if (!ctx->grace && ctx->grace_next)
			begin_grace(w, ctx);
		if (ctx->grace)
			at = &ctx->graces;
		else
			*at = ctx->graces;
		finish_grace(w, over); /* last: with a context's last command, the context goes */
	}
}

void fx_commands_settle(struct fx_worker *w)
{
	struct fx_cmd *cmd;

	while ((cmd = pick(w, &w->waiting, turn_has_come))) {
		if (behind(cmd))
			give_up(w, cmd);
		else
			run_now(w, cmd);
	}
	settle_graces(w);
	if (w->graces)
		settle_graces(w); /* nothing was under way: over as it began */
	while ((cmd = pick(w, &w->dying, has_died))) {
		if (cmd->op == FX_CMD_QP_DETACH)
			fx_qp_free(w->tp, cmd->qp);
		done(w, cmd, 0);
	}
}
