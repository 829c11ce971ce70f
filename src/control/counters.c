/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's counters for a host, a page of them at a time, each with its name: what an application finds in
 * sysfs beside a real port. All users see them, as there: they tell of packets, and of nobody's data.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/inside.h"

struct fx_tally {
	uint32_t worker;
	struct fx_cmd_snapshot total, snap;
};

void fx_snapshot_add(struct fx_cmd_snapshot *to, const struct fx_cmd_snapshot *from)
{
#define X(name, text) to->transport.name += from->transport.name;
	FX_COUNTER_LIST(X)
#undef X
	for (int i = 0; i < FX_DROPS; i++)
		to->transport.drop[i] += from->transport.drop[i];
	to->memory += from->memory;
	to->port = from->port; /* the port's own: the same from every worker */
}

/* One more, if the page that was asked for has it. */
static void put(struct fx_client *c, const char *prefix, const char *name, uint64_t value)
{
	struct fx_counters_rep *rep = &c->rep.counters_rep;
	uint32_t i = rep->total++, first = c->req.handle.handle;

	if (i < first || i - first >= FX_COUNTERS_PAGE)
		return;
	snprintf(rep->counter[i - first].name, FX_COUNTER_NAME, "%s%s", prefix, name);
	rep->counter[i - first].value = value;
	rep->n++;
}

/* What a driver that counts no bytes has carried is payload at least. */
static void put_all(struct fx_client *c, const struct fx_cmd_snapshot *s)
{
	put(c, "port_", "tx_packets", s->port.tx_packets);
	put(c, "port_", "tx_bytes", s->port.tx_bytes ? s->port.tx_bytes : s->transport.tx_bytes);
	put(c, "port_", "tx_errors", s->port.tx_errors);
	put(c, "port_", "rx_packets", s->port.rx_packets);
	put(c, "port_", "rx_bytes", s->port.rx_bytes ? s->port.rx_bytes : s->transport.rx_bytes);
	put(c, "port_", "rx_missed", s->port.rx_missed);
	put(c, "port_", "rx_errors", s->port.rx_errors);
	put(c, "port_", "rx_no_buffer", s->port.rx_nombuf);
#define X(name, text) put(c, "", #name, s->transport.name);
	FX_COUNTER_LIST(X)
#undef X
	for (int i = FX_DROP_NONE + 1; i < FX_DROPS; i++)
		put(c, "rx_drop_", fx_drop_names[i], s->transport.drop[i]);
}

static void ask(struct fx_client *c);

static void seen(struct fx_cmd *cmd)
{
	struct fx_client *c = cmd->arg;
	struct fx_tally *t = c->tally;

	fx_snapshot_add(&t->total, &t->snap);
	if (++t->worker < c->ctl->cfg.workers) {
		ask(c);
		return;
	}
	put_all(c, &t->total);
	c->tally = NULL;
	free(t);
	fx_client_reply(c, 0);
}

static void ask(struct fx_client *c)
{
	struct fx_tally *t = c->tally;

	t->snap.want_counters = true;
	c->cmd = (struct fx_cmd){.op = FX_CMD_SNAPSHOT, .done = seen, .arg = c, .data = &t->snap};
	fx_cmd_send(&c->ctl->mailbox[t->worker], &c->cmd);
}

int fx_device_counters(struct fx_client *c)
{
	c->tally = calloc(1, sizeof(*c->tally));
	if (!c->tally)
		return fx_refuse(c, -ENOMEM, "cannot allocate for COUNTERS");
	ask(c);
	return FX_LATER;
}
