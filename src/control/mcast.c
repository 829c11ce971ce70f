/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Multicast groups: who is in them is decided and counted here; their workers know the members by group. A QP that is in
 * one cannot be destroyed, as the verbs have it, unless its context ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"

struct fx_group {
	struct fx_group *next;
	uint8_t gid[16];
	uint32_t members;
};

/* A QP's membership. */
struct fx_attachment {
	struct fx_attachment *next; /* of its QP */
	struct fx_member member;
	struct fx_group *group;
};

static struct fx_group *find_group(const struct fx_control *ctl, const uint8_t gid[16])
{
	struct fx_group *g = ctl->groups;

	while (g && memcmp(g->gid, gid, 16) != 0)
		g = g->next;
	return g;
}

static struct fx_attachment **find(struct fx_qpo *qp, const uint8_t gid[16])
{
	struct fx_attachment **at = &qp->groups;

	while (*at && memcmp((*at)->member.gid, gid, 16) != 0)
		at = &(*at)->next;
	return at;
}

/* One more in the group, which is made if there is none; NULL with c->why. */
static struct fx_group *enter(struct fx_client *c, const uint8_t gid[16])
{
	struct fx_control *ctl = c->ctl;
	struct fx_group *g = find_group(ctl, gid);

	if (g && g->members == FX_LIMIT_MCAST_QP) {
		fx_refuse(c, -ENOMEM, "the multicast group has %u QPs, and no group has more", g->members);
		return NULL;
	}
	if (!g && ctl->ngroups == FX_LIMIT_MCAST_GRP) {
		fx_refuse(c, -ENOMEM, "this core has no multicast group left (it holds %u)", ctl->ngroups);
		return NULL;
	}
	if (fx_quota_take(c, FX_QUOTA_mcasts, 1))
		return NULL;
	if (!g) {
		g = calloc(1, sizeof(*g));
		if (!g) {
			fx_quota_give(c->user, FX_QUOTA_mcasts, 1);
			fx_refuse(c, -ENOMEM, "cannot allocate a multicast group");
			return NULL;
		}
		memcpy(g->gid, gid, 16);
		g->next = ctl->groups;
		ctl->groups = g;
		ctl->ngroups++;
	}
	g->members++;
	return g;
}

static void quit(struct fx_control *ctl, struct fx_user *u, struct fx_group *g)
{
	struct fx_group **at = &ctl->groups;

	fx_quota_give(u, FX_QUOTA_mcasts, 1);
	if (--g->members)
		return;
	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	ctl->ngroups--;
	free(g);
}

/* The QP, if it may be in such a group; NULL with c->why. */
static struct fx_qpo *check(struct fx_client *c)
{
	const struct fx_mcast_req *req = &c->req.mcast;
	struct fx_qpo *qp = fx_obj_get(c, FX_OBJ_QP, req->qp);
	char text[INET6_ADDRSTRLEN];

	if (!qp)
		return NULL;
	inet_ntop(AF_INET6, req->gid, text, sizeof(text));
	if (qp->type == FX_QPT_UD && fx_gid_is_multicast(req->gid))
		return qp;
	if (qp->type != FX_QPT_UD)
		fx_refuse(c, -EINVAL, "QP %#x: only UD QPs are in multicast groups", qp->qpn);
	else
		fx_refuse(c, -EINVAL, "GID %s is no multicast address", text);
	return NULL;
}

static void ask(struct fx_client *c, struct fx_qpo *qp, enum fx_cmd_op op, void (*done)(struct fx_cmd *cmd),
		struct fx_attachment *a)
{
	c->target = qp;
	c->cmd = (struct fx_cmd){.op = (uint8_t)op,
				 .done = done,
				 .arg = c,
				 .ctx = c->ctx->wctx,
				 .qp = qp->qp,
				 .data = &a->member};
	fx_cmd_send(&c->ctl->mailbox[qp->worker], &c->cmd);
}

static void attached(struct fx_cmd *cmd)
{
	fx_client_reply(cmd->arg, cmd->err);
}

int fx_attach_mcast(struct fx_client *c)
{
	const struct fx_mcast_req *req = &c->req.mcast;
	struct fx_qpo *qp = check(c);
	struct fx_attachment *a;

	if (!qp)
		return -EINVAL;
	if (*find(qp, req->gid))
		return 0; /* it is in it already */
	a = calloc(1, sizeof(*a));
	if (!a)
		return fx_refuse(c, -ENOMEM, "cannot allocate a multicast membership");
	a->group = enter(c, req->gid);
	if (!a->group) {
		free(a);
		return -ENOMEM;
	}
	a->member.qp = qp->qp;
	memcpy(a->member.gid, req->gid, 16);
	a->next = qp->groups;
	qp->groups = a;
	ask(c, qp, FX_CMD_MCAST_JOIN, attached, a);
	return FX_LATER;
}

static void remove_one(struct fx_qpo *qp, struct fx_attachment **at)
{
	struct fx_attachment *a = *at;

	*at = a->next;
	quit(qp->obj.ctx->ctl, qp->obj.ctx->user, a->group);
	free(a);
}

static void detached(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;

	remove_one(c->target, find(c->target, c->req.mcast.gid));
	fx_client_reply(c, cmd->err);
}

int fx_detach_mcast(struct fx_client *c)
{
	struct fx_qpo *qp = check(c);
	struct fx_attachment *a = qp ? *find(qp, c->req.mcast.gid) : NULL;

	if (!qp)
		return -EINVAL;
	if (!a)
		return fx_refuse(c, -EINVAL, "QP %#x is not in that multicast group", qp->qpn);
	ask(c, qp, FX_CMD_MCAST_LEAVE, detached, a);
	return FX_LATER;
}

void fx_mcast_quit(struct fx_qpo *qp)
{
	while (qp->groups)
		remove_one(qp, &qp->groups);
}
