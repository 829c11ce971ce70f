/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations of a storm: the plan, posting, and checking what came of it. What a read brings is compared with what the
 * end's own writes have left there; one that overtakes a read under way is fenced.
 *
 * Room: tests. May use: verbs only.
 */
#include "storm.h"

/* ---- contents ---- */

void content_fill(uint8_t *p, uint64_t key, uint64_t from, size_t len)
{
	while (len) {
		uint64_t w = mix(key + from / 8);
		size_t in = from % 8, n = 8 - in < len ? 8 - in : len;

		memcpy(p, (const uint8_t *)&w + in, n);
		p += n;
		from += n;
		len -= n;
	}
}

/* -> the first byte that differs, or len */
static size_t content_differs(const uint8_t *p, uint64_t key, uint64_t from, size_t len)
{
	for (size_t at = 0; at < len;) {
		uint64_t w = mix(key + (from + at) / 8);
		size_t in = (from + at) % 8, n = 8 - in < len - at ? 8 - in : len - at;

		if (memcmp(p + at, (const uint8_t *)&w + in, n))
			return at;
		at += n;
	}
	return len;
}

static uint64_t hash(const uint8_t *p, size_t len)
{
	uint64_t h = len, w;

	for (; len >= 8; p += 8, len -= 8) {
		memcpy(&w, p, 8);
		h = (h ^ w) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	for (; len; p++, len--)
		h = (h ^ *p) * 0x100000001b3u;
	return h;
}

/* ---- the plan ---- */

static uint64_t key_of(unsigned link, unsigned which, uint32_t offer, uint64_t k)
{
	return mix(mix(mix(board->seed ^ (uint64_t)link << 1 ^ which) + offer) + k);
}

static uint32_t size_of(uint64_t *r)
{
	static const uint32_t most[] = {0, 256, 256, 256, 8192, 8192, 1 << 16, 1 << 16, 1 << 16, BIGGEST};

	return (uint32_t)rnd(r, most[rnd(r, sizeof(most) / sizeof(most[0]))] + 1);
}

static struct op plan(unsigned link, unsigned which, uint32_t offer, uint64_t k)
{
	static const enum kind often[] = {SEND, SEND, SEND_IMM,	   WRITE,     WRITE,	WRITE, WRITE_IMM,
					  READ, READ, READ_SOURCE, FETCH_ADD, CMP_SWAP, COUNT};
	uint64_t r = key_of(link, which, offer, k);
	struct op op = {.kind = often[rnd(&r, sizeof(often) / sizeof(often[0]))]};

	op.len = op.kind >= FETCH_ADD ? 8 : size_of(&r);
	if (op.kind == WRITE_IMM && op.len > IMM_ROOM)
		op.len = IMM_ROOM;
	op.off = (uint32_t)rnd(&r, BIGGEST - op.len + 1);
	op.imm = (uint32_t)rnd(&r, UINT32_MAX);
	op.signaled = rnd(&r, 3);
	op.solicited = rnd(&r, 2);
	op.inlined = op.kind <= WRITE_IMM && op.len <= INLINE && rnd(&r, 2);
	op.nsge = op.kind >= FETCH_ADD || op.len < SGES ? 1 : 1 + (unsigned)rnd(&r, SGES);
	return op;
}

static bool takes_receive(enum kind kind)
{
	return kind == SEND || kind == SEND_IMM || kind == WRITE_IMM;
}

/* ---- posting ---- */

static uint32_t heap_need(const struct op *op)
{
	return (op->len + SGES * GAP + 7) & ~7u; /* atomics land on 8 bytes */
}

/* Where an operation's bytes may lie in the heap, a ring in which none is cut in two; false: no room. */
static bool heap_room(struct side *s, uint32_t need, uint32_t *at)
{
	uint32_t head = s->heap_head;

	if (head % HEAP + need > HEAP)
		head += HEAP - head % HEAP;
	*at = head;
	return head + need - s->heap_tail <= HEAP;
}

static bool may_post(struct side *s, const struct op *op, uint32_t *at)
{
	if (s->k - s->first == DEPTH || !heap_room(s, heap_need(op), at))
		return false;
	return op->kind != WRITE_IMM || s->messages - atomic_load(&peer_end(s)->verified) < IMM_AREAS;
}

/* Cuts `len` bytes from `p` on into pieces with gaps between. -> their number */
static int cut(const struct side *s, const struct op *op, uint8_t *p, struct ibv_sge *sge)
{
	uint32_t left = op->len;

	for (unsigned i = 0; i < op->nsge; i++) {
		uint32_t n = i + 1 == op->nsge ? left : left / (op->nsge - i) + (i & 1);

		sge[i] = (struct ibv_sge){.addr = (uintptr_t)p, .length = n, .lkey = s->mr->lkey};
		p += n + GAP;
		left -= n;
	}
	return op->len ? (int)op->nsge : 0;
}

static void fill_pieces(const struct ibv_sge *sge, int n, uint64_t key)
{
	uint64_t from = 0;

	for (int i = 0; i < n; i++) {
		content_fill((uint8_t *)(uintptr_t)sge[i].addr, key, from, sge[i].length);
		from += sge[i].length;
	}
}

/* Is a read of what this write changes under way? */
static bool overlaps_a_read(const struct side *s, const struct op *op)
{
	for (uint64_t k = s->first; k != s->k; k++) {
		const struct op *o = &s->fly[k % FLY].op;

		if (o->kind == READ && o->off < op->off + op->len && op->off < o->off + o->len)
			return true;
	}
	return false;
}

static void aim(const struct side *s, struct ibv_send_wr *wr, uint64_t offset)
{
	wr->wr.rdma.remote_addr = atomic_load(&peer_end(s)->addr) + offset;
	wr->wr.rdma.rkey = atomic_load(&peer_end(s)->rkey);
}

/* At the peer's counter or word. */
static void aim_atomic(struct side *s, struct flying *f, struct ibv_send_wr *wr)
{
	bool count = f->op.kind == COUNT;

	wr->wr.atomic.remote_addr = count ? atomic_load(&peer_end(s)->source) + BIGGEST
					  : atomic_load(&peer_end(s)->addr) + WORD_AT;
	wr->wr.atomic.rkey = count ? atomic_load(&peer_end(s)->source_rkey) : atomic_load(&peer_end(s)->rkey);
	wr->wr.atomic.compare_add = 1;
	f->want = s->word;
	if (count) {
		atomic_fetch_add(
			&board->proc[link_proc(s->link, !s->which)].adds[s->peer_life % LIVES].posted, 1);
	} else if (f->op.kind == FETCH_ADD) {
		wr->wr.atomic.compare_add = f->op.imm;
		s->word += f->op.imm;
	} else {
		wr->wr.atomic.compare_add = s->word ^ (f->op.imm & 1); /* half of them fail */
		wr->wr.atomic.swap = mix(f->op.imm);
		if (!(f->op.imm & 1))
			s->word = mix(f->op.imm);
	}
}

/* The request's target, and what has to be there, or come from there, afterwards. */
static void address(struct side *s, struct flying *f, struct ibv_send_wr *wr)
{
	uint64_t key = key_of(s->link, s->which, s->offer, f->k);
	struct op *op = &f->op;

	switch (op->kind) {
	case WRITE:
		aim(s, wr, WRITES_AT + op->off);
		if (overlaps_a_read(s, op))
			wr->send_flags |= IBV_SEND_FENCE;
		content_fill(s->shadow + op->off, key, 0, op->len);
		break;
	case WRITE_IMM:
		aim(s, wr, IMMS_AT + s->messages % IMM_AREAS * IMM_ROOM);
		break;
	case READ:
		aim(s, wr, WRITES_AT + op->off);
		f->want = hash(s->shadow + op->off, op->len);
		break;
	case READ_SOURCE:
		wr->wr.rdma.remote_addr = atomic_load(&peer_end(s)->source) + op->off;
		wr->wr.rdma.rkey = atomic_load(&peer_end(s)->source_rkey);
		break;
	case FETCH_ADD:
	case CMP_SWAP:
	case COUNT:
		aim_atomic(s, f, wr);
		break;
	default:
		break;
	}
	if (takes_receive(op->kind))
		s->messages++;
}

static const enum ibv_wr_opcode opcodes[KINDS] = {
	IBV_WR_SEND,
	IBV_WR_SEND_WITH_IMM,
	IBV_WR_RDMA_WRITE,
	IBV_WR_RDMA_WRITE_WITH_IMM,
	IBV_WR_RDMA_READ,
	IBV_WR_RDMA_READ,
	IBV_WR_ATOMIC_FETCH_AND_ADD,
	IBV_WR_ATOMIC_CMP_AND_SWP,
	IBV_WR_ATOMIC_FETCH_AND_ADD,
};

bool ops_post(struct side *s)
{
	struct op op = plan(s->link, s->which, s->offer, s->k);
	struct flying *f = &s->fly[s->k % FLY];
	struct ibv_sge sge[SGES];
	struct ibv_send_wr *bad, wr = {.opcode = opcodes[op.kind], .sg_list = sge, .imm_data = op.imm};
	uint32_t at;
	int err;

	if (!may_post(s, &op, &at))
		return false;
	*f = (struct flying){.op = op,
			     .k = s->k,
			     .posted_ms = now_ms(),
			     .land = s->memory + at % HEAP,
			     .heap_head = at + heap_need(&op)};
	/* unsignaled ones must not fill the heap, or nothing would ever free it */
	if (s->unsignaled == 3 || op.len > HEAP / 16)
		f->op.signaled = true;
	s->unsignaled = f->op.signaled ? 0 : s->unsignaled + 1;
	wr.wr_id = wr_id(s, side_index(s), false, s->k);
	wr.num_sge = cut(s, &op, f->land, sge);
	wr.send_flags = (f->op.signaled ? IBV_SEND_SIGNALED : 0) | (op.solicited ? IBV_SEND_SOLICITED : 0) |
			(op.inlined ? IBV_SEND_INLINE : 0);
	if (op.kind <= WRITE_IMM)
		fill_pieces(sge, wr.num_sge, key_of(s->link, s->which, s->offer, s->k));
	address(s, f, &wr);
	s->heap_head = f->heap_head;
	s->k++;
	err = ibv_post_send(s->qp, &wr, &bad);
	if (err)
		die(s, "ibv_post_send of operation %lu: %s", (unsigned long)f->k, strerror(err));
	if (op.inlined) /* it is ours again already */
		memset(f->land, 0xee, heap_need(&op));
	return true;
}

void ops_mark(struct side *s)
{
	struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
	int err;

	s->fly[s->k % FLY] = (struct flying){.op = {.kind = SEND, .signaled = true},
					     .k = s->k,
					     .posted_ms = now_ms(),
					     .heap_head = s->heap_head};
	wr.wr_id = wr_id(s, side_index(s), false, s->k++);
	err = ibv_post_send(s->qp, &wr, &bad);
	if (err)
		die(s, "ibv_post_send in ERR: %s", strerror(err));
}

/* ---- receiving ---- */

static void post_receive(struct side *s)
{
	uint32_t i = s->recv_posted % RECVS, first = (uint32_t)rnd(&me.rnd, SPLIT + 1);
	uint8_t *p = s->memory + HEAP + i * RECV_SIZE;
	/* the first piece lies behind the second */
	struct ibv_sge sge[2] = {{(uintptr_t)(p + BIGGEST), first, s->mr->lkey},
				 {(uintptr_t)p, BIGGEST, s->mr->lkey}};
	struct ibv_recv_wr *bad,
		wr = {.wr_id = wr_id(s, side_index(s), true, s->recv_posted), .sg_list = sge, .num_sge = 2};
	int err = ibv_post_recv(s->qp, &wr, &bad);

	if (err)
		die(s, "ibv_post_recv: %s", strerror(err));
	s->split[i] = first;
	s->recv_posted++;
}

static bool message_differs(const struct side *s, const struct op *op, uint64_t key)
{
	const uint8_t *p = s->memory + HEAP + s->recv_done % RECVS * RECV_SIZE;
	uint32_t first = s->split[s->recv_done % RECVS];

	if (op->kind == WRITE_IMM)
		return content_differs(s->target + IMMS_AT + s->recv_done % IMM_AREAS * IMM_ROOM, key, 0,
				       op->len) != op->len;
	if (first > op->len)
		first = op->len;
	return content_differs(p + BIGGEST, key, 0, first) != first ||
	       content_differs(p, key, first, op->len - first) != op->len - first;
}

/* A message: what the peer's plan says comes next? */
static void received(struct side *s, const struct ibv_wc *wc)
{
	bool with_imm;
	struct op op;

	do
		op = plan(s->link, !s->which, s->peer_offer, s->recv_k++);
	while (!takes_receive(op.kind));
	with_imm = op.kind != SEND;
	if (wc->opcode != (op.kind == WRITE_IMM ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV) ||
	    wc->byte_len != op.len || !!(wc->wc_flags & IBV_WC_WITH_IMM) != with_imm ||
	    (with_imm && wc->imm_data != op.imm) || wc->wr_id >> 32 != s->recv_done)
		die(s,
		    "message %u, operation %lu of the peer, kind %d of %u bytes, came as opcode %d of %u bytes",
		    s->recv_done, (unsigned long)s->recv_k - 1, op.kind, op.len, wc->opcode, wc->byte_len);
	if (message_differs(s, &op, key_of(s->link, !s->which, s->peer_offer, s->recv_k - 1)))
		die(s, "wrong bytes in message %u, operation %lu of the peer, kind %d of %u bytes",
		    s->recv_done, (unsigned long)s->recv_k - 1, op.kind, op.len);
	atomic_fetch_add(&board->received, 1);
	s->recv_done++;
	/* the area of a write with immediate is the peer's again */
	atomic_store(&own_end(s)->verified, s->recv_done);
	post_receive(s);
}

/* ---- completions ---- */

static uint8_t whole[BIGGEST]; /* what landed in pieces */

static uint64_t landed_hash(const struct flying *f)
{
	const uint8_t *p = f->land;
	uint32_t left = f->op.len, at = 0;

	for (unsigned i = 0; i < f->op.nsge; i++) { /* as cut() did */
		uint32_t n = i + 1 == f->op.nsge ? left : left / (f->op.nsge - i) + (i & 1);

		memcpy(whole + at, p, n);
		p += n + GAP;
		at += n;
		left -= n;
	}
	if (f->op.kind == READ)
		return hash(whole, at);
	return content_differs(whole, f->want, f->op.off, at) == at;
}

static void check_atomic(struct side *s, const struct flying *f)
{
	uint64_t was;

	memcpy(&was, f->land, 8);
	if (f->op.kind != COUNT) {
		if (was != f->want)
			die(s, "operation %lu, an atomic, brought %#lx and not %#lx", (unsigned long)f->k,
			    (unsigned long)was, (unsigned long)f->want);
		return;
	}
	if (was + 1 <= s->last_count)
		die(s, "the peer's counter went back from %lu to %lu", (unsigned long)s->last_count,
		    (unsigned long)was);
	s->last_count = was + 1;
	atomic_fetch_add(&board->proc[link_proc(s->link, !s->which)].adds[s->peer_life % LIVES].done, 1);
}

/* A read of what our writes left brought something else: where and what, for whoever has to find out why. */
static void wrong_read(struct side *s, const struct flying *f)
{
	const uint8_t *want = s->shadow + f->op.off;
	uint32_t first = 0, last = f->op.len, zeros = 0, pieces = f->op.nsge;

	while (first < f->op.len && whole[first] == want[first])
		first++;
	while (last > first && whole[last - 1] == want[last - 1])
		last--;
	for (uint32_t i = first; i < last; i++)
		zeros += whole[i] == 0;
	die(s,
	    "operation %lu, a read of %u bytes at %u into %u pieces at %#lx, brought other bytes than were written: from %u to "
	    "%u, %u of them zero",
	    (unsigned long)f->k, f->op.len, f->op.off, pieces, (unsigned long)(f->land - s->memory), first,
	    last, zeros);
}

/* It was done; the completion may have been a later one's. */
static void succeeded(struct side *s, struct flying *f)
{
	if (f->op.kind == READ_SOURCE)
		f->want =
			mix(board->seed ^ mix((uint64_t)link_proc(s->link, !s->which) << 32 | s->peer_life));
	if (f->op.kind == READ && landed_hash(f) != f->want)
		wrong_read(s, f);
	if (f->op.kind == READ_SOURCE && !landed_hash(f))
		die(s, "operation %lu, a read of %u bytes at %u of the peer's constant bytes, brought others",
		    (unsigned long)f->k, f->op.len, f->op.off);
	if (f->op.kind >= FETCH_ADD)
		check_atomic(s, f);
	atomic_fetch_add(&board->ops[f->op.kind], 1);
	atomic_fetch_add(&board->bytes, f->op.len);
	s->heap_tail = f->heap_head;
}

/* Does the status tell of a peer that is gone? REM_OP_ERR: its memory went before its queue pairs did. */
static bool tells_of_absence(const struct side *s, enum ibv_wc_status status)
{
	return status == IBV_WC_RETRY_EXC_ERR || status == IBV_WC_WR_FLUSH_ERR ||
	       (status == IBV_WC_REM_OP_ERR &&
		atomic_load(&board->proc[link_proc(s->link, !s->which)].doomed) >= s->peer_life);
}

/* Only a link that is broken may end operations in error. */
static void operation_failed(struct side *s, const struct ibv_wc *wc, bool recv, uint64_t k)
{
	uint64_t end = now_ms() + 2000;

	atomic_fetch_add(&board->errors[wc->status % STATUSES], 1);
	if (!tells_of_absence(s, wc->status))
		die(s, "%s %lu: %s, vendor %#x", recv ? "receive" : "operation", (unsigned long)k,
		    ibv_wc_status_str(wc->status), wc->vendor_err);
	/* a flush follows what failed before, or what we did */
	while (!s->failed && s->state != FLUSHING && !side_broken(s) && now_ms() < end)
		doing("waiting for the news that the peer is gone", (int)s->link);
	if (!s->failed && s->state != FLUSHING && !side_broken(s))
		die(s, "%s %lu: %s, but the peer is there", recv ? "receive" : "operation", (unsigned long)k,
		    ibv_wc_status_str(wc->status));
	s->failed = true;
}

static void sent(struct side *s, const struct ibv_wc *wc, uint64_t k)
{
	bool ok = wc->status == IBV_WC_SUCCESS;
	struct flying *f = &s->fly[k % FLY];

	if ((uint32_t)(k - s->first) >= s->k - s->first)
		die(s, "a completion of operation %lu, %lu to %lu being under way", (unsigned long)k,
		    (unsigned long)s->first, (unsigned long)s->k - 1);
	if (ok && !f->op.signaled)
		die(s, "a completion of operation %lu, which did not ask for one", (unsigned long)k);
	for (; s->first != k; s->first++) {
		if (s->fly[s->first % FLY].op.signaled)
			die(s, "no completion of operation %lu, but of %lu", (unsigned long)s->first,
			    (unsigned long)k);
		succeeded(s, &s->fly[s->first % FLY]);
	}
	s->first++;
	if (ok)
		succeeded(s, f);
	else
		operation_failed(s, wc, false, k);
}

void ops_completed(struct side *s, const struct ibv_wc *wc)
{
	uint64_t k = wc->wr_id >> 32;

	if ((uint32_t)(wc->wr_id >> 8 & 0xffffff) != (s->offer & 0xffffff))
		die(s, "a completion of offer %u, after its QP was reset",
		    (uint32_t)(wc->wr_id >> 8 & 0xffffff));
	if (!(wc->wr_id & RECV_ID))
		sent(s, wc, s->first + (uint32_t)(k - (uint32_t)s->first));
	else if (wc->status == IBV_WC_SUCCESS)
		received(s, wc);
	else if (wc->status == IBV_WC_WR_FLUSH_ERR && k == s->recv_done)
		s->recv_done++;
	else
		operation_failed(s, wc, true, k);
}

/* ---- a new offer ---- */

void ops_start(struct side *s)
{
	s->k = s->first = s->recv_k = 0;
	s->unsignaled = 0;
	s->heap_head = s->heap_tail = 0;
	s->messages = s->recv_posted = s->recv_done = 0;
	s->word = s->last_count = 0;
	s->failed = false;
	memset(s->shadow, 0, BIGGEST);
	memset(s->target, 0, TARGET_SIZE);
	for (unsigned at = 0; at < WORD_AT; at += GUARD + BIGGEST)
		content_fill(s->target + at, at, 0, GUARD);
	atomic_store(&own_end(s)->verified, 0);
	while (s->recv_posted < RECVS)
		post_receive(s);
}

void ops_check_target(const struct side *s)
{
	for (unsigned at = 0; at < WORD_AT; at += GUARD + BIGGEST)
		if (content_differs(s->target + at, at, 0, GUARD) != GUARD)
			die(s, "bytes beside the peer's areas were written");
}
