/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The users of a core and what each holds: taken when something is made, given back when it is gone, and nowhere else.
 *
 * Room: control. May use: libc, /etc/passwd for users' names: a local file, since a directory service could make the
 * control thread wait.
 */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"

enum {
	SPARE_CLIENTS = 64
}; /* connections of a user beyond its contexts: flexinsctl, and those not greeted yet */

const struct fx_quota_info fx_quota_info[FX_QUOTA_KINDS] = {
#define X(k, what, more, usual) [FX_QUOTA_##k] = {.key = #k, .name = what, .text = more, .normal = usual},
	FX_QUOTA_LIST(X)
#undef X
};

void fx_quota_normal(struct fx_quota *q)
{
	for (int k = 0; k < FX_QUOTA_KINDS; k++)
		q->limit[k] = k ? fx_quota_info[k].normal : FX_UNLIMITED;
}

/* ---- users ---- */

static void find_name(struct fx_user *u)
{
	FILE *f = fopen("/etc/passwd", "re");
	char buf[1024];
	struct passwd pw, *found;

	while (f && fgetpwent_r(f, &pw, buf, sizeof(buf), &found) == 0)
		if (pw.pw_uid == u->uid) {
			snprintf(u->name, sizeof(u->name), "%s", pw.pw_name);
			break;
		}
	if (f)
		fclose(f);
}

static void find_quota(struct fx_user *u, const struct fx_quota_cfg *cfg)
{
	for (int k = 0; k < FX_QUOTA_KINDS; k++)
		u->quota.limit[k] = FX_UNLIMITED;
	if (!cfg)
		return;
	for (uint32_t i = 0; i < cfg->nusers; i++)
		if (cfg->users[i].uid == u->uid) {
			u->quota = cfg->users[i].quota;
			return;
		}
	if (u->uid != 0 && u->uid != geteuid())
		u->quota = cfg->others;
}

static struct fx_user **bucket(struct fx_control *ctl, uid_t uid)
{
	return &ctl->users[uid * 2654435761u >> (32 - FX_USER_SHIFT)];
}

struct fx_user *fx_user_hold(struct fx_control *ctl, uid_t uid)
{
	struct fx_user **b = bucket(ctl, uid), *u = *b;

	while (u && u->uid != uid)
		u = u->next;
	if (!u) {
		u = calloc(1, sizeof(*u));
		if (!u)
			return NULL;
		u->uid = uid;
		u->ctl = ctl;
		u->next = *b;
		*b = u;
		find_name(u);
		find_quota(u, ctl->cfg.quota);
	}
	u->refs++;
	return u;
}

void fx_user_release(struct fx_user *u)
{
	struct fx_user **p = bucket(u->ctl, u->uid);

	if (--u->refs)
		return;
	while (*p != u)
		p = &(*p)->next;
	*p = u->next;
	free(u);
}

bool fx_user_admits(const struct fx_user *u)
{
	uint64_t contexts = u->quota.limit[FX_QUOTA_contexts];

	/* u->refs counts its contexts too, of which each has a connection, or had until just now */
	return contexts == FX_UNLIMITED || u->refs - u->used[FX_QUOTA_contexts] <= contexts + SPARE_CLIENTS;
}

/* ---- accounts ---- */

static int refuse(struct fx_client *c, enum fx_quota_kind k, uint64_t n)
{
	const struct fx_user *u = c->user;
	char what[64] = "";

	c->ctl->n.refused_quota++;
	if (n > 1)
		snprintf(what, sizeof(what), ", %llu more are wanted", (unsigned long long)n);
	return fx_refuse(
		c, -ENOMEM, "user %s%s(uid %u) has %llu of %llu %s%s: destroy some, or raise [quota] %s",
		u->name, u->name[0] ? " " : "", (unsigned)u->uid, (unsigned long long)u->used[k],
		(unsigned long long)u->quota.limit[k], fx_quota_info[k].name, what, fx_quota_info[k].key);
}

int fx_quota_take(struct fx_client *c, enum fx_quota_kind k, uint64_t n)
{
	struct fx_user *u = c->user;

	if (k == FX_QUOTA_NONE)
		return 0;
	if (n > u->quota.limit[k] || u->used[k] > u->quota.limit[k] - n)
		return refuse(c, k, n);
	u->used[k] += n;
	return 0;
}

void fx_quota_give(struct fx_user *u, enum fx_quota_kind k, uint64_t n)
{
	u->used[k] -= k == FX_QUOTA_NONE ? 0 : n;
}

/* A device limit as this user meets it. */
uint32_t fx_quota_min(const struct fx_user *u, enum fx_quota_kind k, uint32_t limit)
{
	return u->quota.limit[k] < limit ? (uint32_t)u->quota.limit[k] : limit;
}
