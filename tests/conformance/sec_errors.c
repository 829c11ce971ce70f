/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sections errors and events: the table of errors (errors.c), once for what completions and states tell, once for
 * asynchronous events.
 *
 * Room: tests. May use: verbs and libc.
 */
#include "errors.h"
#include "sections.h"

static struct rig *provoked(const struct error *e)
{
	struct spec s = usual();
	struct rig *r;

	s.two_cqs = true;
	if (e->prepare)
		e->prepare(&s);
	r = rig_make(&s);
	e->provoke(r, e->arg);
	return r;
}

/* The rows of a provocation leave regions behind. */
static void leave(struct rig *r)
{
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	NEED_EQ(ibv_destroy_qp(r->b.qp), 0);
	NEED_EQ(ibv_close_device(r->ctx), 0);
	memset(r, 0, offsetof(struct rig, next));
}

static void told(const struct row *row)
{
	const struct error *e = &errors[row->a];
	struct rig *r = provoked(e);
	struct ibv_wc wc;

	need_wc(r->a.scq, 1, e->status);
	if (e->recv_status != NO_CQE) {
		need_wc(r->b.rcq, 2, (enum ibv_wc_status)e->recv_status);
	} else if (ibv_poll_cq(r->b.rcq, 1, &wc)) {
		NEED_EQ(wc.wr_id, 2);
		NEED_EQ(wc.status, IBV_WC_WR_FLUSH_ERR);
	}
	need_state(r->a.qp, e->a);
	need_state(r->b.qp, e->b);
	need_quiet(r->a.scq);
	/* memory that was not to be touched is not, beyond what a message brought before it was found out */
	NEED(e->recv_status != NO_CQE || untouched(r->b.buf, 4096));
	leave(r);
}

static void event(const struct row *row)
{
	const struct error *e = &errors[row->a];
	struct rig *r = provoked(e);
	struct ibv_async_event got;

	need_wc(r->a.scq, 1, e->status);
	if (e->event != NO_EVENT) {
		got = async_event(r->ctx);
		if ((int)got.event_type != e->event)
			row_failed(__FILE__, __LINE__, "the event is %s where %s belongs",
				   ibv_event_type_str(got.event_type),
				   ibv_event_type_str((enum ibv_event_type)e->event));
		NEED(got.element.qp == r->b.qp);
	}
	need_no_event(r->ctx);
	leave(r);
}

static struct row told_rows[MAX_ERRORS], event_rows[MAX_ERRORS];
struct section section_errors = {"errors", "errors, as completions and states tell them", told_rows, 0};
struct section section_events = {"events", "errors, as asynchronous events tell them", event_rows, 0};

void errors_rows(void)
{
	for (size_t i = 0; i < nerrors && i < MAX_ERRORS; i++) {
		told_rows[i] = (struct row){errors[i].name, errors[i].clause, told, .a = (long)i};
		event_rows[i] = (struct row){errors[i].name, "11.6.3", event, .a = (long)i};
	}
	section_errors.count = section_events.count = nerrors;
}
