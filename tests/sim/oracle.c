/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The oracle behind oracle.h.
 *
 * Room: tests/sim. May use: C11 only, by design: it shares no code with what it judges.
 */
#include "oracle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLOWS = 512, ARENAS = 4, GUARD = 64, WATCHED = 8 };

struct message {
	struct or_post p;
	uint64_t data;	   /* the message whose formula its bytes follow */
	unsigned holds;	   /* completions that still want the remote place as it is */
	bool seen;	   /* WRITE: its last byte was visible */
	bool spoilt;	   /* WRITE: a later one goes over it */
	uint64_t original; /* atomic: what it has to find */
};

struct or_flow {
	struct oracle *o;
	unsigned id;
	uint32_t sq_index, rq_index;
	uint32_t grain;
	struct message *m;
	uint64_t posted, retired, room;
	uint64_t *consuming; /* messages that take a receive, in order */
	uint64_t nconsuming, received, recv_posted;
	struct or_place *recv; /* by receive number */
	uint64_t recv_room, consuming_room;
	struct or_piece arena[ARENAS];
	unsigned narena;
	uint8_t *word_at;
	uint64_t word;
};

struct oracle {
	struct or_flow *flow[FLOWS];
	unsigned n;
	bool failed;
	char why[400];
};

struct oracle *or_create(void)
{
	return calloc(1, sizeof(struct oracle));
}

void or_destroy(struct oracle *o)
{
	for (unsigned i = 0; i < o->n; i++) {
		free(o->flow[i]->m);
		free(o->flow[i]->consuming);
		free(o->flow[i]->recv);
		free(o->flow[i]);
	}
	free(o);
}

const char *or_failed(const struct oracle *o)
{
	return o->failed ? o->why : NULL;
}

void or_fail(struct oracle *o, const char *fmt, ...)
{
	va_list ap;

	if (o->failed)
		return;
	o->failed = true;
	va_start(ap, fmt);
	vsnprintf(o->why, sizeof(o->why), fmt, ap);
	va_end(ap);
}

struct or_flow *or_flow(struct oracle *o, unsigned id, uint32_t sq_index, uint32_t rq_index)
{
	struct or_flow *f = calloc(1, sizeof(*f));

	f->o = o;
	f->id = id;
	f->sq_index = sq_index;
	f->rq_index = rq_index;
	o->flow[o->n++] = f;
	return f;
}

void or_grain(struct or_flow *f, uint32_t grain)
{
	f->grain = grain;
}

void or_arena(struct or_flow *f, uint8_t *base, uint32_t size)
{
	f->arena[f->narena++] = (struct or_piece){base, size};
	memset(base, OR_POISON, size);
}

void or_set_word(struct or_flow *f, uint8_t *p)
{
	f->word_at = p;
	memcpy(&f->word, p, sizeof(f->word));
}

uint64_t or_word(const struct or_flow *f)
{
	return f->word;
}

static bool is_atomic(enum or_op op)
{
	return op == OR_FETCH_ADD || op == OR_CMP_SWAP;
}

/* An array that doubles. */
static void *grown(void *array, uint64_t n, uint64_t *room, size_t size)
{
	if (n < *room)
		return array;
	*room = *room ? 2 * *room : 64;
	return realloc(array, *room * size);
}

/* ---- data ---- */

static uint64_t word(uint64_t key, uint64_t i)
{
	uint64_t x = key + i * 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 31) * 0xd6e8feb86659fd93u;
	return x ^ x >> 29;
}

/* Bytes off..off+len of message m. */
static void formula(const struct or_flow *f, uint64_t m, uint32_t off, uint8_t *to, uint32_t len)
{
	uint64_t key = word(f->id * 1000003u + 17, m);

	if (is_atomic(f->m[m].p.op)) { /* what it returns */
		memcpy(to, (const uint8_t *)&f->m[m].original + off, len);
		return;
	}
	while (len) {
		uint64_t w = word(key, off / 8) >> (off % 8 * 8);
		uint32_t n = 8 - off % 8;

		if (n > len)
			n = len;
		memcpy(to, &w, n);
		to += n;
		off += n;
		len -= n;
	}
}

/* Writes message m into the place, or poison over it. */
static void put(const struct or_flow *f, const struct or_place *at, uint64_t m)
{
	uint32_t off = 0;

	for (uint32_t i = 0; i < at->n; i++) {
		formula(f, m, off, at->piece[i].p, at->piece[i].len);
		off += at->piece[i].len;
	}
}

static void poison(const struct or_place *at)
{
	for (uint32_t i = 0; i < at->n; i++)
		memset(at->piece[i].p, OR_POISON, at->piece[i].len);
}

/* The part of the slot that holds the pieces, and a little on both sides. */
static struct or_piece around(const struct or_place *at)
{
	uint8_t *lo = at->base + at->size, *hi = at->base, *end = at->base + at->size;

	for (uint32_t i = 0; i < at->n; i++) {
		if (at->piece[i].p < lo)
			lo = at->piece[i].p;
		if (at->piece[i].p + at->piece[i].len > hi)
			hi = at->piece[i].p + at->piece[i].len;
	}
	if (lo >= hi)
		return (struct or_piece){at->base, at->size < GUARD ? at->size : GUARD};
	lo = lo - at->base > GUARD ? lo - GUARD : at->base;
	hi = end - hi > GUARD ? hi + GUARD : end;
	return (struct or_piece){lo, (uint32_t)(hi - lo)};
}

/*
 * Is memory just this: the first `len` bytes of message m in the pieces, poison elsewhere? -1, or the first
 * offset.
 */
static long differs(const struct or_flow *f, const struct or_place *at, uint64_t m, uint32_t len)
{
	static uint8_t image[1 << 18];
	struct or_piece w = around(at);
	uint32_t off = 0;

	if (w.len > sizeof(image))
		abort();
	memset(image, OR_POISON, w.len);
	for (uint32_t i = 0; i < at->n && off < len; i++) {
		uint32_t n = at->piece[i].len < len - off ? at->piece[i].len : len - off;

		formula(f, m, off, image + (at->piece[i].p - w.p), n);
		off += n;
	}
	if (!memcmp(image, w.p, w.len))
		return -1;
	for (uint32_t i = 0; i < w.len; i++)
		if (image[i] != w.p[i])
			return w.p + i - at->base;
	return -1;
}

static const char *const names[] = {"SEND", "SEND_IMM",	 "WRITE",   "WRITE_IMM",
				    "READ", "FETCH_ADD", "CMP_SWAP"};

static void check(struct or_flow *f, const char *what, const struct or_place *at, uint64_t m, uint64_t data,
		  uint32_t len)
{
	long bad = differs(f, at, data, len);

	if (bad >= 0)
		or_fail(f->o,
			"flow %u message %llu (%s, %u bytes): %s differs at byte %ld of its slot (%02x)",
			f->id, (unsigned long long)m, names[f->m[m].p.op], f->m[m].p.len, what, bad,
			at->base[bad]);
}

/* ---- posting ---- */

static bool consumes(enum or_op op)
{
	return op == OR_SEND || op == OR_SEND_IMM || op == OR_WRITE_IMM;
}

static uint64_t work_on(struct or_flow *f, const struct or_post *p)
{
	uint64_t original = f->word;

	if (p->op == OR_FETCH_ADD)
		f->word += p->compare_add;
	else if (f->word == p->compare_add)
		f->word = p->swap;
	return original;
}

uint64_t or_posted(struct or_flow *f, const struct or_post *p)
{
	uint64_t m = f->posted;
	struct message *g;

	f->m = grown(f->m, m, &f->room, sizeof(*f->m));
	g = &f->m[m];
	*g = (struct message){.p = *p, .data = m, .holds = 1};
	if (p->op == OR_WRITE_IMM)
		g->holds++;
	if (p->reread || p->forward)
		g->data = f->m[m - 1].data;
	if (p->overwrite)
		f->m[m - 1].spoilt = true;
	if (p->op == OR_READ && !p->reread)
		put(f, &p->remote, m);
	if (is_atomic(p->op))
		g->original = work_on(f, p);
	else if (p->op != OR_READ && !p->forward)
		put(f, &p->local, m);
	if (consumes(p->op)) {
		f->consuming = grown(f->consuming, f->nconsuming, &f->consuming_room, sizeof(*f->consuming));
		f->consuming[f->nconsuming++] = m;
	}
	f->posted++;
	return m;
}

void or_taken(struct or_flow *f, uint64_t m)
{
	if (f->m[m].p.inlined)
		poison(&f->m[m].p.local);
}

void or_recv_posted(struct or_flow *f, const struct or_place *place)
{
	f->recv = grown(f->recv, f->recv_posted, &f->recv_room, sizeof(*f->recv));
	f->recv[f->recv_posted++] = *place;
}

/* ---- completions ---- */

/* One completion less looks at the remote place; the last one of a chain cleans it. */
static void let_go(struct or_flow *f, uint64_t m)
{
	struct message *g = &f->m[m];

	if (--g->holds == 0 && g->p.op >= OR_WRITE && !is_atomic(g->p.op) && !g->p.keep)
		poison(&g->p.remote);
}

static void retire(struct or_flow *f)
{
	uint64_t m = f->retired++;
	struct message *g = &f->m[m];

	if (g->p.op == OR_READ) {
		check(f, "what READ returned", &g->p.local, m, g->data, g->p.len);
		check(f, "the source of a READ", &g->p.remote, m, g->data, g->p.len);
	} else if (is_atomic(g->p.op)) {
		check(f, "what the atomic returned", &g->p.local, m, g->data, g->p.len);
	} else {
		if (!g->p.inlined)
			check(f, "the source", &g->p.local, m, g->data, g->p.len);
		if (g->p.op >= OR_WRITE && !g->spoilt)
			check(f, "the target", &g->p.remote, m, g->data, g->p.len);
		if (consumes(g->p.op) && f->received < f->nconsuming && f->consuming[f->received] <= m &&
		    f->recv_posted <= f->received)
			or_fail(f->o, "flow %u message %llu completed before a receive was posted for it",
				f->id, (unsigned long long)m);
	}
	if (g->p.inlined)
		check(f, "the inline source", &g->p.local, m, m, 0);
	if (!g->p.keep_local)
		poison(&g->p.local);
	let_go(f, m);
}

void or_send_cqe(struct or_flow *f, const struct or_cqe *c)
{
	uint64_t m = f->retired + (uint32_t)(c->index - (f->sq_index + (uint32_t)f->retired));
	struct message *g;

	if (c->status) {
		or_fail(f->o, "flow %u send completion %u has status %u", f->id, c->index, c->status);
		return;
	}
	if (m >= f->posted) {
		or_fail(f->o, "flow %u send completion for index %u, retired %llu, posted %llu", f->id,
			c->index, (unsigned long long)f->retired, (unsigned long long)f->posted);
		return;
	}
	g = &f->m[m];
	if (!g->p.signaled)
		or_fail(f->o, "flow %u message %llu completed though not signaled", f->id,
			(unsigned long long)m);
	for (uint64_t k = f->retired; k < m; k++)
		if (f->m[k].p.signaled)
			or_fail(f->o, "flow %u message %llu was signaled and passed over", f->id,
				(unsigned long long)k);
	if (c->op != (g->p.op == OR_SEND_IMM ? OR_SEND : g->p.op == OR_WRITE_IMM ? OR_WRITE : g->p.op))
		or_fail(f->o, "flow %u message %llu completed as another operation", f->id,
			(unsigned long long)m);
	if (g->p.op >= OR_READ && c->len != g->p.len)
		or_fail(f->o, "flow %u READ or atomic %llu completed with %u bytes", f->id,
			(unsigned long long)m, c->len);
	while (f->retired <= m)
		retire(f);
}

void or_recv_cqe(struct or_flow *f, const struct or_cqe *c)
{
	uint64_t r = f->received, m;
	struct message *g;

	if (c->status || c->index != f->rq_index + (uint32_t)r || r >= f->recv_posted || r >= f->nconsuming) {
		or_fail(f->o,
			"flow %u receive completion %u (status %u): expected %u of %llu posted, %llu sent",
			f->id, c->index, c->status, f->rq_index + (uint32_t)r,
			(unsigned long long)f->recv_posted, (unsigned long long)f->nconsuming);
		return;
	}
	m = f->consuming[r];
	g = &f->m[m];
	f->received++;
	if (c->op != (g->p.op == OR_WRITE_IMM ? OR_WRITE_IMM : OR_SEND) || c->len != g->p.len ||
	    c->has_imm != (g->p.op != OR_SEND) || (c->has_imm && c->imm != g->p.imm) ||
	    c->solicited != g->p.solicited)
		or_fail(f->o, "flow %u message %llu (%s, %u bytes): its receive completion is wrong", f->id,
			(unsigned long long)m, names[g->p.op], g->p.len);
	if (g->p.op == OR_WRITE_IMM) {
		check(f, "the receive of a WRITE_IMM", &f->recv[r], m, m, 0);
		if (!g->spoilt)
			check(f, "the target", &g->p.remote, m, g->data, g->p.len);
		let_go(f, m);
	} else {
		check(f, "what was received", &f->recv[r], m, g->data, g->p.len);
	}
	poison(&f->recv[r]);
}

uint64_t or_retired(const struct or_flow *f)
{
	return f->retired;
}

uint64_t or_received(const struct or_flow *f)
{
	return f->received;
}

bool or_remote_free(const struct or_flow *f, uint64_t m)
{
	return f->m[m].holds == 0;
}

/* ---- memory while messages are under way ---- */

/* Can it be told whether the last byte of this WRITE is there? */
static bool telling(const struct or_flow *f, const struct message *g)
{
	uint8_t last;

	formula(f, g->data, g->p.len - 1, &last, 1);
	return last != OR_POISON;
}

/* All packets but the last are whole; the last one, too, where its bytes come in order. */
static void check_prefix(struct or_flow *f, struct message *g, uint64_t m)
{
	static uint8_t image[1 << 17];
	uint32_t n = f->grain ? (g->p.len - 1) / f->grain * f->grain : g->p.len;
	const uint8_t *p = g->p.remote.piece[0].p;

	formula(f, g->data, 0, image, n);
	for (uint32_t i = 0; i < n && memcmp(image, p, n); i++)
		if (image[i] != p[i])
			or_fail(f->o,
				"flow %u: the last byte of WRITE %llu (%u bytes) is visible, byte %u is not",
				f->id, (unsigned long long)m, g->p.len, i);
}

void or_watch(struct or_flow *f)
{
	bool gap = false;
	unsigned n = 0;

	for (uint64_t m = f->retired; m < f->posted && n < WATCHED; m++) {
		struct message *g = &f->m[m];

		if ((g->p.op != OR_WRITE && g->p.op != OR_WRITE_IMM) || !g->p.len || g->spoilt ||
		    g->p.overwrite)
			continue;
		n++;
		if (g->seen)
			continue;
		if (!telling(f, g))
			continue;
		if (g->p.remote.piece[0].p[g->p.len - 1] == OR_POISON) {
			gap = true;
			continue;
		}
		g->seen = true;
		if (gap)
			or_fail(f->o, "flow %u: WRITE %llu is visible before an earlier one", f->id,
				(unsigned long long)m);
		check_prefix(f, g, m);
	}
}

void or_finish(struct or_flow *f)
{
	if (f->retired != f->posted || f->received != f->nconsuming) {
		or_fail(f->o, "flow %u ended with %llu of %llu sends and %llu of %llu receives completed",
			f->id, (unsigned long long)f->retired, (unsigned long long)f->posted,
			(unsigned long long)f->received, (unsigned long long)f->nconsuming);
		return;
	}
	if (f->word_at && memcmp(f->word_at, &f->word, sizeof(f->word)))
		or_fail(f->o, "flow %u: its word is not what its atomics make of it", f->id);
	if (f->word_at)
		memset(f->word_at, OR_POISON, sizeof(f->word));
	for (unsigned a = 0; a < f->narena; a++) {
		const uint8_t *p = f->arena[a].p;
		uint32_t i = 0;

		if (p[0] == OR_POISON && !memcmp(p, p + 1, f->arena[a].len - 1))
			continue;
		while (p[i] == OR_POISON)
			i++;
		or_fail(f->o, "flow %u: byte %u of its memory %u changed when it should not", f->id, i, a);
	}
}
