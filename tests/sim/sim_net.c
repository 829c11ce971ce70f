/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The clock, the events, and the link: latency, a line rate, and independent loss, duplication and
 * reordering of every frame in both directions.
 *
 * Room: tests/sim. A zero-copy frame points into its sender's memory until it is lost or its receiver gives
 * it back, and only then are its segments reported done. A duplicate is a copy of the bytes made when the
 * frame left.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

enum { QUEUE_NS = 20000, ETH_MIN = 60 };

struct sim *sim_create(const struct link_cfg *link, uint64_t seed)
{
	struct sim *s = calloc(1, sizeof(*s));

	s->link = *link;
	s->now = 1000000;
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		s->rng[i] = rng_of(seed, 100 + i);
	return s;
}

/* The pool outlives a simulation: thousands of them run in one process. */
static struct frame *pool;

void sim_destroy(struct sim *s)
{
	free(s->heap);
	free(s);
}

struct frame *frame_get(struct sim *s)
{
	struct frame *f = pool;

	s->out++;
	if (f)
		pool = f->next;
	else
		f = malloc(sizeof(*f));
	memset(f, 0, offsetof(struct frame, tx));
	f->held = 0;
	f->flat = false;
	f->len = 0;
	return f;
}

void frame_free(struct sim *s, struct frame *f)
{
	if (f->held)
		host_rouse(f->src, s->now);
	while (f->held) {
		f->held--;
		fx_tp_seg_done(f->src->tp, f->tx.wqe, f->tx.mw);
	}
	s->out--;
	/* whoever still reads it shall notice */
	memset(f->bytes, 0x5a, f->len);
	f->next = pool;
	pool = f;
}

/* ---- events ---- */

static bool sooner(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void event_add(struct sim *s, uint64_t at, struct frame *f, enum frame_state what)
{
	unsigned i = s->nheap++;

	if (s->nheap > s->room) {
		s->room = s->room ? 2 * s->room : 256;
		s->heap = realloc(s->heap, s->room * sizeof(*s->heap));
	}
	s->heap[i] = (struct event){at, s->order++, f, what};
	while (i && sooner(&s->heap[i], &s->heap[(i - 1) / 2])) {
		struct event e = s->heap[i];

		s->heap[i] = s->heap[(i - 1) / 2];
		s->heap[(i - 1) / 2] = e;
		i = (i - 1) / 2;
	}
}

static struct event event_take(struct sim *s)
{
	struct event top = s->heap[0];
	unsigned i = 0;

	s->heap[0] = s->heap[--s->nheap];
	for (;;) {
		unsigned c = 2 * i + 1;
		struct event e = s->heap[i];

		if (c >= s->nheap)
			break;
		if (c + 1 < s->nheap && sooner(&s->heap[c + 1], &s->heap[c]))
			c++;
		if (!sooner(&s->heap[c], &s->heap[i]))
			break;
		s->heap[i] = s->heap[c];
		s->heap[c] = e;
		i = c;
	}
	return top;
}

/* ---- frames ---- */

/* Payload behind the headers, byte by byte. */
static void gather(struct frame *f)
{
	uint8_t *p = f->bytes + f->len;

	for (unsigned i = 0; i < f->tx.nseg; i++) {
		const uint8_t *from = f->tx.seg[i].base;

		if (!from)
			from = (const uint8_t *)f->tx.seg[i].mr->slow +
			       (f->tx.seg[i].va - f->tx.seg[i].mr->iova);
		memcpy(p, from, f->tx.seg[i].len);
		p += f->tx.seg[i].len;
	}
	memset(p, 0, f->tx.pad);
	f->len = (uint32_t)(p + f->tx.pad - f->bytes);
	f->flat = true;
}

/* Everything that comes after the payload; then the frame as its receiver sees it. */
static void finish(struct sim *s, struct frame *f)
{
	static uint8_t tail[8];
	struct fx_pkt *p = &f->pkt;
	uint32_t icrc = s->link.icrc ? FX_ICRC_LEN : 0;

	p->frame = f->bytes;
	if (f->flat || !f->tx.nseg) {
		memset(f->bytes + f->len, 0, icrc);
		f->len += icrc;
		while (f->len < ETH_MIN)
			f->bytes[f->len++] = 0;
		p->have = p->total = f->len;
		p->cost = 16; /* as the owners' pools have it */
		return;
	}
	p->have = f->len;
	p->total = f->len + f->tx.payload + f->tx.pad + icrc;
	for (unsigned i = 0; i < f->tx.nseg; i++)
		p->more[i] = (struct fx_piece){f->tx.seg[i].base, f->tx.seg[i].len};
	p->nmore = f->tx.nseg;
	if (f->tx.pad + icrc && p->nmore < FX_PKT_SEGS)
		p->more[p->nmore++] = (struct fx_piece){tail, f->tx.pad + icrc};
	p->cost = 4 + 2 * p->nmore;
}

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/* What any frame must be: lengths that agree, and payload padded to words. Returns the offset of BTH. */
static uint32_t inspect(struct sim *s, const struct frame *f)
{
	const uint8_t *p = f->bytes;
	bool ip6 = p[12] == 0x86;
	uint32_t udp = FX_ETH_LEN + (ip6 ? FX_IP6_LEN : FX_IP4_LEN), bth = udp + FX_UDP_LEN;
	uint32_t payload = 0, len;

	for (unsigned i = 0; i < f->tx.nseg; i++)
		payload += f->tx.seg[i].len;
	len = f->tx.hdr_len + payload + f->tx.pad + (s->link.icrc ? FX_ICRC_LEN : 0) - udp;
	if (get16(p + udp + 4) != len)
		s->malformed = "UDP length";
	else if (get16(p + FX_ETH_LEN + (ip6 ? 4 : 2)) != len + (ip6 ? 0 : FX_IP4_LEN))
		s->malformed = "IP length";
	else if (len % 4)
		s->malformed = "payload is not padded to words";
	else if (f->tx.nseg && (p[bth + 1] >> 4 & 3) != f->tx.pad)
		s->malformed = "pad count in BTH";
	else if (f->tx.nseg && (payload + f->tx.pad) % 4)
		s->malformed = "pad";
	return bth;
}

/* Splits a flat frame in two pieces at a random place behind its headers. */
static void split(struct frame *f, struct rng *r)
{
	uint32_t at = f->tx.hdr_len + (uint32_t)rng_below(r, f->len - f->tx.hdr_len);

	if (f->pkt.nmore || f->len <= f->tx.hdr_len)
		return;
	f->pkt.have = at;
	f->pkt.more[0] = (struct fx_piece){f->bytes + at, f->len - at};
	f->pkt.nmore = 1;
}

static struct frame *twin(struct sim *s, const struct frame *f)
{
	struct frame *d = frame_get(s);

	d->src = f->src;
	d->dst = f->dst;
	memcpy(&d->tx, &f->tx, sizeof(d->tx));
	memcpy(d->bytes, f->bytes, f->len);
	d->len = f->len;
	d->tx.wqe = NULL;
	d->tx.mw = NULL;
	if (f->flat)
		d->flat = true;
	else if (d->tx.nseg)
		gather(d);
	finish(s, d);
	return d;
}

static uint64_t flight(struct sim *s, struct rng *r)
{
	uint64_t t = s->link.latency;

	if (rng_chance(r, s->link.reorder)) {
		t += rng_below(r, s->link.spread + 1);
		s->delayed++;
	}
	return t;
}

/* The frame's last bit has left: what was copied is free, and its fate is drawn. */
static void departed(struct sim *s, struct frame *f)
{
	struct rng *r = &s->rng[f->src->id];
	struct frame *copy = NULL;
	uint32_t off = inspect(s, f), len;
	struct fx_bth bth;
	uint64_t at;
	int lost = 0;

	if (!s->link.zero_copy || f->tx.stage) {
		if (f->tx.nseg && !f->flat)
			gather(f);
		if (f->tx.stage) {
			for (unsigned i = 0; i < f->tx.nseg; i++)
				lost = lost ? lost : mem_of(f->tx.seg[i].mr)->gone;
			f->held = s->link.zero_copy && !lost && f->tx.wqe && fx_qp_unacked(f->tx.qp);
			fx_tp_staged(f->src->tp, f->tx.qp, f->held ? NULL : f->tx.wqe, f->tx.mw, f->tx.psn,
				     lost);
		} else {
			while (f->held) {
				f->held--;
				fx_tp_seg_done(f->src->tp, f->tx.wqe, f->tx.mw);
			}
		}
		host_rouse(f->src, s->now);
	}
	s->frames++;
	lost |= rng_chance(r, s->link.loss);
	f->fate = lost ? FRAME_LOST : FRAME_FLYING;
	if (rng_chance(r, s->link.dup))
		copy = twin(s, f);
	finish(s, f);
	if (f->flat && rng_chance(r, 300000))
		split(f, r);
	if (fx_bth_parse(f->bytes + off, f->pkt.have - off, &bth, &len))
		s->malformed = "BTH";
	else if (s->tap)
		lost |= s->tap(s->tap_arg, f, &bth);
	s->lost += lost;
	at = s->now + flight(s, r);
	event_add(s, at, f, lost ? FRAME_LOST : FRAME_FLYING);
	if (copy) {
		uint64_t other = s->now + flight(s, r);

		/* a copy that overtakes would be acknowledged while its original still needs the buffer */
		s->doubled++;
		event_add(s, f->held && other < at ? at : other, copy, FRAME_FLYING);
	}
}

void net_send(struct sim *s, struct frame *f)
{
	uint64_t *line = &s->line_free[f->src->id];

	f->dst = s->host[!f->src->id];
	f->len = f->tx.hdr_len;
	f->held = (f->tx.wqe || f->tx.mw) && !f->tx.stage ? f->tx.nseg : 0;
	if (*line < s->now)
		*line = s->now;
	*line += (uint64_t)(f->len + f->tx.payload + 24) * s->link.ps_per_byte / 1000;
	event_add(s, *line, f, FRAME_QUEUED);
}

bool net_refers(const struct sim *s, const uint8_t *base, uint32_t size)
{
	for (unsigned i = 0; i < s->nheap; i++) {
		const struct frame *f = s->heap[i].frame;

		for (unsigned k = 0; f->held && k < f->tx.nseg; k++)
			if (f->tx.seg[k].base >= base && f->tx.seg[k].base < base + size)
				return true;
	}
	return false;
}

bool net_busy(const struct sim *s, const struct host *h)
{
	return s->line_free[h->id] > s->now + QUEUE_NS;
}

void net_inject(struct sim *s, struct host *dst, const uint8_t *bytes, uint32_t len, uint64_t delay)
{
	struct frame *f = frame_get(s);

	f->dst = dst;
	f->src = s->host[!dst->id];
	memcpy(f->bytes, bytes, len);
	f->len = len;
	f->flat = true;
	f->pkt.frame = f->bytes;
	f->pkt.have = f->pkt.total = len;
	event_add(s, s->now + delay, f, FRAME_FLYING);
}

void net_clear(struct sim *s)
{
	while (s->nheap)
		frame_free(s, event_take(s).frame);
}

/* ---- time ---- */

static void happen(struct sim *s, struct event e)
{
	switch (e.what) {
	case FRAME_QUEUED:
		departed(s, e.frame);
		break;
	case FRAME_FLYING:
		host_arrive(e.frame->dst, e.frame);
		break;
	default:
		frame_free(s, e.frame);
	}
}

bool sim_run(struct sim *s, uint64_t until, bool (*done)(void *arg), void *arg)
{
	while (!done || !done(arg)) {
		uint64_t at = s->nheap ? s->heap[0].at : SIM_NEVER;
		struct host *h = NULL;

		for (unsigned i = 0; i < SIM_HOSTS; i++)
			if (s->host[i] && s->host[i]->wake < at) {
				h = s->host[i];
				at = h->wake;
			}
		if (at > until) {
			s->now = until == SIM_NEVER ? s->now : until;
			return false;
		}
		if (at > s->now)
			s->now = at;
		if (h) {
			s->turns++;
			host_turn(h);
		} else {
			happen(s, event_take(s));
		}
	}
	return true;
}
