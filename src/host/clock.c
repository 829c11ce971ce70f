/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's clock, which stamps completions: CLOCK_MONOTONIC of the machine that the core runs on. Where that is
 * ours we read it ourselves; else the core tells it, and the wall clock beside it, which then is asked for once a second.
 *
 * Room: host. May use: context.c.
 */
#include <time.h>

#include "host/host.h"

enum { FX_WALL_MS = 1000 };

static uint64_t read_clock(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int ask(struct fx_context *ctx, struct fx_query_clock_rep *rep)
{
	struct fx_msg_head req = {.op = FX_MSG_QUERY_CLOCK};

	return fx_ask(ctx, &req, sizeof(req), rep, sizeof(*rep), NULL);
}

int fx_clock_raw(struct fx_context *ctx, uint64_t *ns)
{
	struct fx_query_clock_rep rep;
	int err;

	if (!ctx->by_dma) {
		*ns = read_clock(CLOCK_MONOTONIC);
		return 0;
	}
	err = ask(ctx, &rep);
	if (!err)
		*ns = rep.ns;
	return err;
}

/* Two threads may ask at once, and either answer will do: relaxed. */
uint64_t fx_clock_wall(struct fx_context *ctx, uint64_t stamp)
{
	int64_t now = fx_clock_ms(), asked = __atomic_load_n(&ctx->wall_asked, __ATOMIC_RELAXED);
	struct fx_query_clock_rep rep;

	if (!ctx->by_dma)
		return stamp + (read_clock(CLOCK_REALTIME) - read_clock(CLOCK_MONOTONIC));
	if ((!asked || now - asked > FX_WALL_MS) && !ask(ctx, &rep)) {
		__atomic_store_n(&ctx->wall, rep.wall - rep.ns, __ATOMIC_RELAXED);
		__atomic_store_n(&ctx->wall_asked, now, __ATOMIC_RELAXED);
	}
	return stamp + __atomic_load_n(&ctx->wall, __ATOMIC_RELAXED);
}

int flexins_query_rt_values(struct ibv_context *c, struct ibv_values_ex *values)
{
	uint64_t ns;
	int err;

	if (values->comp_mask & ~(uint32_t)IBV_VALUES_MASK_RAW_CLOCK)
		return fx_fail(EINVAL);
	if (!values->comp_mask)
		return 0;
	err = fx_clock_raw(fx_context_of(c), &ns);
	if (err) {
		values->comp_mask = 0;
		return fx_fail(err);
	}
	values->raw_clock.tv_sec = (time_t)(ns / 1000000000);
	values->raw_clock.tv_nsec = (long)(ns % 1000000000);
	return 0;
}
