/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asking a core how the device is, whether or not this process has opened it.
 *
 * Room: host. May use: control.c, context.c, device.c.
 */
#include <string.h>

#include "host/host.h"
#include "host/state.h"

/* What is asked for, of whatever connection there is. */
struct question {
	int (*ask)(const struct question *q, struct fx_conn *conn);
	struct fx_state *state;
	struct fx_counter *counter;
	uint32_t max;
};

static int ask_port(const struct question *q, struct fx_conn *conn)
{
	struct fx_handle_req req = {.head = {.op = FX_MSG_QUERY_PORT}, .handle = FX_PORT};
	struct fx_query_port_rep *rep = &q->state->port;
	const uint32_t room = sizeof(rep->gid) / sizeof(rep->gid[0]);
	int err = fx_call(conn, &req, sizeof(req), rep, sizeof(*rep), NULL);

	if (!err && rep->gid_count > room)
		rep->gid_count = room;
	return err;
}

static int ask_counters(const struct question *q, struct fx_conn *conn)
{
	struct fx_counters_rep rep;
	uint32_t seen = 0;

	do {
		struct fx_handle_req req = {.head = {.op = FX_MSG_COUNTERS}, .handle = seen};
		int err = fx_call(conn, &req, sizeof(req), &rep, sizeof(rep), NULL);

		if (err)
			return err;
		for (uint32_t i = 0; i < rep.n && i < FX_COUNTERS_PAGE && seen < q->max; i++) {
			memcpy(q->counter[seen].name, rep.counter[i].name, FX_COUNTER_NAME);
			q->counter[seen].name[FX_COUNTER_NAME - 1] = '\0';
			q->counter[seen++].value = rep.counter[i].value;
		}
	} while (rep.n && seen < rep.total && seen < q->max);
	return (int)seen;
}

static int by_context(struct fx_context *ctx, void *arg)
{
	const struct question *q = arg;

	if (q->state) {
		q->state->limits = ctx->limits;
		memcpy(q->state->version, ctx->version, sizeof(ctx->version));
	}
	return q->ask(q, &ctx->conn);
}

static int by_stranger(const struct question *q)
{
	struct fx_hello_rep rep;
	struct fx_conn conn;
	struct fx_fds fds;
	int err = fx_conn_open(&conn, &rep, &fds);

	if (err)
		return err;
	fx_close_fds(&fds);
	if (q->state) {
		q->state->limits = rep.limits;
		memcpy(q->state->version, rep.version, FX_VERSION_LEN);
	}
	err = q->ask(q, &conn);
	fx_conn_close(&conn);
	return err;
}

/*
 * A context whose core has just gone is as good as none: another core may have taken its place. This is called from
 * open(), where threads may be cancelled: not while they hold locks.
 */
static int answer(struct question *q)
{
	int state, err;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	err = fx_by_any_context(by_context, q);
	if (err < 0)
		err = by_stranger(q);
	pthread_setcancelstate(state, NULL);
	return err;
}

int fx_state_ask(struct fx_state *s)
{
	struct question q = {.ask = ask_port, .state = s};

	memset(s, 0, sizeof(*s));
	s->device = fx_device_named();
	return answer(&q);
}

int fx_state_counters(struct fx_counter *c, uint32_t max)
{
	struct question q = {.ask = ask_counters, .counter = c, .max = max};

	return answer(&q);
}
