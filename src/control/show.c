/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The document of SHOW: everything the core knows, as JSON in a memfd; `handle` of the reply is its length.
 *
 * {"core": {name, version, abi, pid, workers, placement, bus, poll, dma, clients, uptime_ms},
 *  "device": {name, guid, max_qp, ...},
 *  "ports": [{port, name, driver, state, mac, mtu, frame_limit, max_segs, header_only, loopback, icrc,
 *             netdev, gids: [{index, gid, type, netdev}], counters: {...}}],
 *  "users": [{uid, user, connections, contexts: {used, limit}, pds: {used, limit}, ...}], // by the list of quota.h
 *  "contexts": [{ctx, pid, uid, program, version, pds, channels, cqs, qps, mrs, mws, ahs, srqs}],
 *  "qps": [{qpn, ctx, type, state, cause, dest_qpn, mtu, sq_psn, una_psn, ...}],
 *  "mrs": [{mr, ctx, pd, iova, length, access, window, bytes: {slow, converted, shared}}],
 *  "counters": {control: {...}, transport: {...}, drops: {...}, workers: [{...}]},
 *  "memory": {transport}}
 *
 * Keys are not shown: they are what gives access. QPs are looked at on their worker, FX_SNAP_QPS at a time,
 * so that ten thousand of them do not stop it; the document is written as it goes and never held in memory.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "control/inside.h"
#include "memory/window.h"

struct fx_show {
	FILE *out;
	int fd;
	uint32_t worker;
	uint32_t index; /* of the QP table, next to look at */
	bool some;	/* the array has an element already */
	json_t *workers;
	struct fx_cmd_snapshot total; /* counters of all workers */
	struct fx_cmd_snapshot snap;
};

static const char *const state_names[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};
static const char *const type_names[] = {[FX_QPT_RC] = "RC",
					 [FX_QPT_UC] = "UC",
					 [FX_QPT_UD] = "UD",
					 [FX_QPT_XRC_SEND] = "XRC_SEND",
					 [FX_QPT_XRC_RECV] = "XRC_RECV"};

static const char *name_of(const char *const *names, size_t n, uint32_t i)
{
	return i < n && names[i] ? names[i] : "?";
}
#define NAME_OF(names, i) name_of(names, sizeof(names) / sizeof(names[0]), i)

/* ---- pieces ---- */

static json_t *number(uint64_t v)
{
	return json_integer((json_int_t)v);
}

/* An element of the array that is being written. */
static void element(struct fx_show *s, json_t *obj)
{
	fputs(s->some ? ",\n  " : "\n  ", s->out);
	s->some = true;
	if (obj)
		json_dumpf(obj, s->out, JSON_COMPACT);
	json_decref(obj);
}

static void member(struct fx_show *s, const char *name, json_t *value, bool last)
{
	fprintf(s->out, "\"%s\": ", name);
	if (value)
		json_dumpf(value, s->out, JSON_COMPACT);
	else
		fputs("null", s->out);
	json_decref(value);
	fputs(last ? "\n" : ",\n", s->out);
}

static json_t *control_counters(const struct fx_control_counters *n)
{
	json_t *o = json_object();
#define X(name, text) json_object_set_new(o, #name, number(n->name));
	FX_CONTROL_COUNTER_LIST(X)
#undef X
	return o;
}

static json_t *worker_counters(const struct fx_worker_counters *n)
{
	json_t *o = json_object();
#define X(name, text) json_object_set_new(o, #name, number(n->name));
	FX_WORKER_COUNTER_LIST(X)
#undef X
	return o;
}

static json_t *transport_counters(const struct fx_counters *n)
{
	json_t *o = json_object();
#define X(name, text) json_object_set_new(o, #name, number(n->name));
	FX_COUNTER_LIST(X)
#undef X
	return o;
}

static json_t *drops(const struct fx_counters *n)
{
	json_t *o = json_object();

	for (int i = FX_DROP_NONE + 1; i < FX_DROPS; i++)
		json_object_set_new(o, fx_drop_names[i], number(n->drop[i]));
	return o;
}

static json_t *core(const struct fx_control *ctl)
{
	return json_pack("{s:s s:s s:I s:I s:I s:s s:s? s:s s:s s:I s:I}", "name", ctl->name, "version",
			 FLEXINS_VERSION, "abi", (json_int_t)FX_ABI_VERSION, "pid", (json_int_t)getpid(),
			 "workers", (json_int_t)ctl->cfg.workers, "placement", ctl->cfg.place->name, "bus",
			 ctl->cfg.bus, "poll", ctl->cfg.poll, "dma", ctl->cfg.dma, "clients",
			 (json_int_t)ctl->nclients, "uptime_ms", (json_int_t)(fx_now_ms() - ctl->started_ms));
}

static json_t *device(const struct fx_control *ctl)
{
	uint8_t g[8];
	char guid[24];

	memcpy(g, &ctl->guid, sizeof(g));
	snprintf(guid, sizeof(guid), "%02x%02x:%02x%02x:%02x%02x:%02x%02x", g[0], g[1], g[2], g[3], g[4],
		 g[5], g[6], g[7]);
	return json_pack("{s:s s:s s:i s:i s:i s:i s:i s:i s:i s:i s:i s:i}", "name", "flexins0", "guid",
			 guid, "max_qp", FX_LIMIT_QP, "max_qp_wr", FX_LIMIT_QP_WR, "max_sge", FX_MAX_SGE,
			 "max_inline", FX_MAX_INLINE, "max_cq", FX_LIMIT_CQ, "max_mr", FX_LIMIT_MR, "max_mw",
			 FX_LIMIT_MW, "max_ah", FX_LIMIT_AH, "max_pd", FX_LIMIT_PD, "max_rd_atomic",
			 FX_LIMIT_RD_ATOMIC);
}

static json_t *port_counters(const struct fx_port_stats *p)
{
	return json_pack("{s:I s:I s:I s:I s:I s:I s:I s:I}", "tx_packets", (json_int_t)p->tx_packets,
			 "tx_bytes", (json_int_t)p->tx_bytes, "tx_errors", (json_int_t)p->tx_errors,
			 "rx_packets", (json_int_t)p->rx_packets, "rx_bytes", (json_int_t)p->rx_bytes,
			 "rx_missed", (json_int_t)p->rx_missed, "rx_errors", (json_int_t)p->rx_errors,
			 "rx_no_buffer", (json_int_t)p->rx_nombuf);
}

static json_t *port(const struct fx_port_info *p, const struct fx_port_stats *stats)
{
	char mac[24], gid[INET6_ADDRSTRLEN];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", p->mac[0], p->mac[1], p->mac[2],
		 p->mac[3], p->mac[4], p->mac[5]);
	inet_ntop(AF_INET6, p->gid, gid, sizeof(gid));
	return json_pack("{s:i s:s s:s s:s s:s s:I s:I s:i s:b s:b s:b s:s s:[{s:i s:s s:s s:s}] s:o}",
			 "port", 1, "name", p->name, "driver", p->driver, "state", p->up ? "ACTIVE" : "DOWN",
			 "mac", mac, "mtu", (json_int_t)p->mtu, "frame_limit", (json_int_t)p->frame_limit,
			 "max_segs", (int)p->max_segs, "header_only", p->max_segs > 1, "loopback",
			 p->loopback, "icrc", p->icrc, "netdev", p->netdev, "gids", "index", 0, "gid", gid,
			 "type", "RoCE v2", "netdev", p->netdev, "counters", port_counters(stats));
}

/* Programs choose their names: whatever is no text is shown as question marks. */
static json_t *text(const char *s)
{
	json_t *t = json_string(s);

	return t ? t : json_string("?");
}

/* A limit of null: there is none. */
static json_t *user(const struct fx_user *u)
{
	json_t *o = json_pack("{s:I s:o s:I}", "uid", (json_int_t)u->uid, "user",
			      u->name[0] ? text(u->name) : json_null(), "connections",
			      (json_int_t)(u->refs - u->used[FX_QUOTA_contexts]));

	for (int k = FX_QUOTA_NONE + 1; o && k < FX_QUOTA_KINDS; k++)
		json_object_set_new(o, fx_quota_info[k].key,
				    json_pack("{s:o s:o}", "used", number(u->used[k]), "limit",
					      u->quota.limit[k] == FX_UNLIMITED ? json_null()
										: number(u->quota.limit[k])));
	return o;
}

static json_t *context(const struct fx_ctx *ctx)
{
	return json_pack("{s:I s:I s:I s:o s:o s:I s:I s:I s:I s:I s:I s:I s:I}", "ctx",
			 (json_int_t)fx_handle_index(ctx->id), "pid", (json_int_t)ctx->pid, "uid",
			 (json_int_t)ctx->uid, "program", text(ctx->program), "version", text(ctx->version),
			 "pds", (json_int_t)ctx->nobjs[FX_OBJ_PD], "channels",
			 (json_int_t)ctx->nobjs[FX_OBJ_CHANNEL], "cqs", (json_int_t)ctx->nobjs[FX_OBJ_CQ],
			 "qps", (json_int_t)ctx->nobjs[FX_OBJ_QP], "mrs", (json_int_t)ctx->nobjs[FX_OBJ_MR],
			 "mws", (json_int_t)ctx->nobjs[FX_OBJ_MW], "ahs", (json_int_t)ctx->nobjs[FX_OBJ_AH],
			 "srqs", (json_int_t)ctx->nobjs[FX_OBJ_SRQ]);
}

static json_t *mr(const struct fx_mro *m)
{
	return json_pack("{s:I s:I s:I s:I s:I s:I s:s s:{s:I s:I s:I}}", "mr",
			 (json_int_t)fx_handle_index(m->obj.handle), "ctx",
			 (json_int_t)fx_handle_index(m->obj.ctx->id), "pd",
			 (json_int_t)fx_handle_index(m->mr.pd), "iova", (json_int_t)m->mr.iova, "length",
			 (json_int_t)m->mr.length, "access", (json_int_t)m->mr.access, "window",
			 m->fresh ? fx_mr_window_kind(&m->mr) : "planned", "bytes", "slow",
			 (json_int_t)m->bytes[FX_SEG_SLOW], "converted", (json_int_t)m->bytes[FX_SEG_CONVERT],
			 "shared", (json_int_t)m->bytes[FX_SEG_SHARED]);
}

static json_t *qp(const struct fx_qp_info *q)
{
	json_t *o = json_object();
	const struct {
		const char *name;
		uint64_t value;
	} fields[] = {
		{"qpn", q->qpn},
		{"ctx", fx_handle_index(q->ctx)},
		{"generation", q->gen},
		{"dest_qpn", q->dest_qpn},
		{"mtu", q->mtu},
		{"sq_psn", q->sq_psn},
		{"una_psn", q->una_psn},
		{"next_psn", q->next_psn},
		{"rq_psn", q->rq_psn},
		{"placed_psn", q->placed_psn},
		{"msn", q->msn},
		{"sq_outstanding", q->sq_outstanding},
		{"retries", q->retries},
		{"rnr_retries", q->rnr_retries},
		{"tx_packets", q->tx_packets},
		{"rx_packets", q->rx_packets},
		{"retransmits", q->retransmits},
		{"naks", q->naks},
		{"timeouts", q->timeouts},
		{"duplicates", q->dups},
	};

	json_object_set_new(o, "type", json_string(NAME_OF(type_names, q->type)));
	json_object_set_new(o, "state", json_string(NAME_OF(state_names, q->state)));
	if (q->cause)
		json_object_set_new(o, "cause", json_string(fx_cause_word(q->cause)));
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		json_object_set_new(o, fields[i].name, number(fields[i].value));
	return o;
}

/* ---- the walk ---- */

static void show_end(struct fx_client *c, int err)
{
	struct fx_show *s = c->show;
	long size;

	c->show = NULL;
	fflush(s->out);
	size = ftell(s->out);
	if (!err && (ferror(s->out) || size < 0))
		err = fx_refuse(c, -ENOMEM, "cannot write the document: %s", strerror(errno));
	c->fds[0] = dup(s->fd);
	c->nfds = c->fds[0] >= 0;
	if (!err && !c->nfds)
		err = fx_refuse(c, -EMFILE, "cannot pass the document: %s", strerror(errno));
	c->rep.handle_rep.handle = (uint32_t)size;
	fclose(s->out); /* and s->fd */
	json_decref(s->workers);
	free(s);
	if (!err)
		lseek(c->fds[0], 0, SEEK_SET);
	fx_client_reply(c, err);
}

static void write_tail(struct fx_client *c)
{
	struct fx_show *s = c->show;
	struct fx_control *ctl = c->ctl;
	struct fx_mro *m;

	fputs("],\n\"mrs\": [", s->out);
	s->some = false;
	for (uint32_t i = 1; (m = fx_table_next(&ctl->objs[FX_OBJ_MR], &i));)
		element(s, mr(m));
	fputs("],\n", s->out);
	member(s, "counters",
	       json_pack("{s:o s:o s:o s:O}", "control", control_counters(&ctl->n), "transport",
			 transport_counters(&s->total.transport), "drops", drops(&s->total.transport),
			 "workers", s->workers),
	       false);
	member(s, "memory", json_pack("{s:I}", "transport", (json_int_t)s->total.memory), true);
	fputs("}\n", s->out);
}

static void qps_seen(struct fx_cmd *cmd);

/* The next few QPs of one worker, or the next worker, or the end. */
static void ask_qps(struct fx_client *c)
{
	struct fx_show *s = c->show;
	struct fx_control *ctl = c->ctl;

	while (s->worker < ctl->cfg.workers) {
		struct fx_qpo *q;

		s->snap.want_counters = false;
		for (s->snap.nqp = 0; s->snap.nqp < FX_SNAP_QPS;) {
			q = fx_table_next(&ctl->objs[FX_OBJ_QP], &s->index);
			if (!q)
				break;
			if (!q->obj.going && q->worker == s->worker)
				s->snap.qp[s->snap.nqp++] = q->qp;
		}
		if (s->snap.nqp) {
			c->cmd = (struct fx_cmd){
				.op = FX_CMD_SNAPSHOT, .done = qps_seen, .arg = c, .data = &s->snap};
			fx_cmd_send(&ctl->mailbox[s->worker], &c->cmd);
			return;
		}
		s->worker++;
		s->index = 1;
	}
	write_tail(c);
	show_end(c, 0);
}

/* A QP that was told to go meanwhile comes back to the control thread only after this answer. */
static void qps_seen(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_show *s = c->show;

	for (uint32_t i = 0; i < s->snap.nqp; i++)
		element(s, qp(&s->snap.info[i]));
	ask_qps(c);
}

static void write_front(struct fx_client *c)
{
	struct fx_show *s = c->show;
	struct fx_control *ctl = c->ctl;
	struct fx_ctx *ctx;

	fputs("{", s->out);
	member(s, "core", core(ctl), false);
	member(s, "device", device(ctl), false);
	member(s, "ports", json_pack("[o]", port(ctl->cfg.port, &s->total.port)), false);
	fputs("\"users\": [", s->out);
	for (int b = 0; b < 1 << FX_USER_SHIFT; b++)
		for (const struct fx_user *u = ctl->users[b]; u; u = u->next)
			element(s, user(u));
	fputs("],\n\"contexts\": [", s->out);
	s->some = false;
	for (uint32_t i = 1; (ctx = fx_table_next(&ctl->ctxs, &i));)
		element(s, context(ctx));
	fputs("],\n\"qps\": [", s->out);
	s->some = false;
	s->worker = 0;
	s->index = 1;
}

static void ask_counters(struct fx_client *c);

static void counters_seen(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_show *s = c->show;

	fx_snapshot_add(&s->total, &s->snap);
	json_array_append_new(s->workers, worker_counters(&s->snap.worker));
	s->worker++;
	if (s->worker < c->ctl->cfg.workers) {
		ask_counters(c);
		return;
	}
	write_front(c);
	ask_qps(c);
}

static void ask_counters(struct fx_client *c)
{
	struct fx_show *s = c->show;

	s->snap.want_counters = true;
	s->snap.nqp = 0;
	c->cmd = (struct fx_cmd){.op = FX_CMD_SNAPSHOT, .done = counters_seen, .arg = c, .data = &s->snap};
	fx_cmd_send(&c->ctl->mailbox[s->worker], &c->cmd);
}

int fx_show(struct fx_client *c)
{
	struct fx_show *s;

	if (!c->door->passes_fds)
		return fx_refuse(c, -EOPNOTSUPP,
				 "SHOW answers with a descriptor, which this connection cannot carry");
	s = calloc(1, sizeof(*s));
	if (!s)
		return fx_refuse(c, -ENOMEM, "cannot allocate for SHOW");
	s->fd = memfd_create("flexins-show", MFD_CLOEXEC);
	s->out = s->fd >= 0 ? fdopen(s->fd, "w") : NULL;
	s->workers = json_array();
	if (!s->out || !s->workers) {
		int err = -errno;

		if (s->out)
			fclose(s->out);
		else if (s->fd >= 0)
			close(s->fd);
		json_decref(s->workers);
		free(s);
		return fx_refuse(c, err ? err : -ENOMEM, "cannot make a memfd for SHOW");
	}
	c->show = s;
	ask_counters(c);
	return FX_LATER;
}
