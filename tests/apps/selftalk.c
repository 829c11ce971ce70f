/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One queue pair connected to itself, and one thing tried with it:
 *	selftalk atomics	on whole pages, while a thread of ours works on the same word; on the stack
 *	selftalk drain		SQD with its event, what waits meanwhile, and back to RTS
 *	selftalk reset		READs cut short by RESET: from then on nothing writes where they were to land
 *	selftalk overwrite	WRITEs cut short by RESET, into memory that is slow to reach: none comes after it
 *	selftalk places		every operation from and to every kind of memory, with its bytes compared
 *
 * Room: tests. May use: verbs only; it runs unmodified on any device.
 */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "selfqp.h"

enum { ADDS = 2000 };

static void *add_too(void *word)
{
	for (unsigned i = 0; i < 100 * ADDS; i++)
		__atomic_fetch_add((uint64_t *)word, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void atomics(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t *page = aligned_alloc(size, size), onstack[2] = {5, 0};
	struct ibv_mr *mr = ibv_reg_mr(pd, page, size, ACCESS),
		      *stack = ibv_reg_mr(pd, onstack, sizeof(onstack), ACCESS);
	struct ibv_device_attr attr;
	pthread_t t;

	NEED(!ibv_query_device(ctx, &attr));
	NEED(attr.atomic_cap == IBV_ATOMIC_HCA || attr.atomic_cap == IBV_ATOMIC_GLOB);
	NEED(mr && stack);
	memset(page, 0, size);
	NEED(!pthread_create(&t, NULL, add_too, page));
	for (uint64_t i = 0; i < ADDS; i++) {
		post(mr, &page[100], IBV_WR_ATOMIC_FETCH_AND_ADD, mr, page, UINT64_C(1) << 32, 0);
		NEED(completion().opcode == IBV_WC_FETCH_ADD);
		NEED(page[100] >> 32 == i);
	}
	pthread_join(t, NULL);
	NEED(page[0] == ((uint64_t)ADDS << 32 | 100 * ADDS));
	/* memory that no window reaches, and the result in such */
	post(mr, &page[100], IBV_WR_ATOMIC_CMP_AND_SWP, stack, onstack, 5, 77);
	NEED(completion().opcode == IBV_WC_COMP_SWAP);
	NEED(page[100] == 5);
	post(stack, &onstack[1], IBV_WR_ATOMIC_FETCH_AND_ADD, stack, onstack, 1, 0);
	completion();
	/* volatile: the device changed them, not the program */
	NEED(*(volatile uint64_t *)&onstack[1] == 77 && *(volatile uint64_t *)&onstack[0] == 78);
}

static void to_state(enum ibv_qp_state state)
{
	struct ibv_qp_attr a = {.qp_state = state, .en_sqd_async_notify = 1};

	NEED(!ibv_modify_qp(qp, &a, IBV_QP_STATE | (state == IBV_QPS_SQD ? IBV_QP_EN_SQD_ASYNC_NOTIFY : 0)));
}

static void drain(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t *page = aligned_alloc(size, size);
	struct ibv_mr *mr = ibv_reg_mr(pd, page, size, ACCESS);
	struct ibv_qp_init_attr init;
	struct ibv_async_event ev;
	struct ibv_qp_attr a;
	struct ibv_wc wc;

	NEED(mr);
	memset(page, 0, size);
	page[0] = 1;
	post(mr, page, IBV_WR_RDMA_WRITE, mr, &page[8], 0, 0);
	to_state(IBV_QPS_SQD);
	alarm(PATIENCE_S);
	NEED(!ibv_get_async_event(ctx, &ev));
	NEED(ev.event_type == IBV_EVENT_SQ_DRAINED && ev.element.qp == qp);
	ibv_ack_async_event(&ev);
	NEED(!ibv_query_qp(qp, &a, IBV_QP_STATE, &init));
	NEED(a.qp_state == IBV_QPS_SQD && !a.sq_draining);
	while (ibv_poll_cq(cq, 1, &wc) > 0)
		;
	page[0] = 2;
	post(mr, page, IBV_WR_RDMA_WRITE, mr, &page[16], 0, 0);
	usleep(20000);
	NEED(ibv_poll_cq(cq, 1, &wc) == 0 && *(volatile uint64_t *)&page[16] == 0);
	to_state(IBV_QPS_RTS);
	/* the first one too, if it had not begun */
	while (*(volatile uint64_t *)&page[16] != 2)
		completion();
	NEED(page[8] != 0);
}

/* ---- reset ---- */

static void reset(void)
{
	enum { RESETS = 100, READS = 8, LEN = 16 * PAGE };
	uint8_t *mem = aligned_alloc(PAGE, 2 * LEN), seen[LEN];
	struct ibv_mr *mr = ibv_reg_mr(pd, mem, 2 * LEN, ACCESS);
	struct ibv_sge sge = {.addr = (uintptr_t)mem, .length = LEN};
	struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_READ};
	struct ibv_wc wc;

	NEED(mr);
	sge.lkey = mr->lkey;
	wr.wr.rdma.remote_addr = (uintptr_t)mem + LEN;
	wr.wr.rdma.rkey = mr->rkey;
	for (unsigned i = 0; i < RESETS; i++) {
		memset(mem, 0, LEN);
		memset(mem + LEN, (int)(i % 255 + 1), LEN);
		for (unsigned n = 0; n < READS; n++)
			NEED(!ibv_post_send(qp, &wr, &bad));
		for (unsigned n = 0; n < i * 20; n++)
			ibv_poll_cq(cq, 1, &wc);
		to_state(IBV_QPS_RESET);
		memcpy(seen, mem, LEN);
		usleep(500);
		NEED(!memcmp(seen, mem, LEN));
		connect_to_self();
	}
}

/* ---- places ---- */

enum { LARGE = 100000, SMALL = 300 };

static struct place {
	const char *name;
	uint8_t *at;
	uint32_t len;
	struct ibv_mr *mr;
} places[6];
enum { PLACES = sizeof(places) / sizeof(places[0]) };

static uint8_t in_data[LARGE] = {1}, in_bss[LARGE];

static void add_place(unsigned i, const char *name, void *at, uint32_t len)
{
	places[i] = (struct place){.name = name, .at = at, .len = len, .mr = ibv_reg_mr(pd, at, len, ACCESS)};
	NEED(places[i].mr);
}

static void *private_file(void)
{
	FILE *f = tmpfile();
	void *p;

	NEED(f && !ftruncate(fileno(f), LARGE));
	p = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(f), 0);
	NEED(p != MAP_FAILED);
	return p;
}

static struct ibv_sge part_of(const struct place *p, uint32_t off, uint32_t len)
{
	return (struct ibv_sge){.addr = (uintptr_t)p->at + off, .length = len, .lkey = p->mr->lkey};
}

static void fill(const struct place *p, uint32_t len, uint32_t seed)
{
	for (uint32_t i = 0; i < len; i++)
		p->at[i] = (uint8_t)(i * 3 + (i >> 8) + seed);
}

static void need_same(const struct place *from, const struct place *to, uint32_t len, const char *what)
{
	if (!memcmp(from->at, to->at, len))
		return;
	printf("%s of %u bytes from %s to %s: other bytes\n", what, len, from->name, to->name);
	exit(1);
}

static void ask(enum ibv_wr_opcode op, unsigned flags, struct ibv_sge *sge, int n, const struct place *remote)
{
	struct ibv_send_wr *bad, wr = {.sg_list = sge, .num_sge = n, .opcode = op, .send_flags = flags};

	if (remote) {
		wr.wr.rdma.remote_addr = (uintptr_t)remote->at;
		wr.wr.rdma.rkey = remote->mr->rkey;
	}
	NEED(!ibv_post_send(qp, &wr, &bad));
}

static void expect_message(struct ibv_sge *sge, int n)
{
	struct ibv_recv_wr *bad, wr = {.sg_list = sge, .num_sge = n};

	NEED(!ibv_post_recv(qp, &wr, &bad));
}

static void talk(const struct place *from, const struct place *to, uint32_t len)
{
	struct ibv_sge source = part_of(from, 0, len), target = part_of(to, 0, to->len);

	fill(from, len, len);
	memset(to->at, 0, to->len);
	expect_message(&target, 1);
	ask(IBV_WR_SEND, IBV_SEND_SIGNALED, &source, 1, NULL);
	for (unsigned i = 0; i < 2; i++) {
		struct ibv_wc wc = completion();

		NEED(wc.opcode != IBV_WC_RECV || wc.byte_len == len);
	}
	need_same(from, to, len, "SEND");
	memset(to->at, 0, to->len);
	ask(IBV_WR_RDMA_WRITE, IBV_SEND_SIGNALED, &source, 1, to);
	completion();
	need_same(from, to, len, "WRITE");
	memset(to->at, 0, to->len);
	target.length = len;
	ask(IBV_WR_RDMA_READ, IBV_SEND_SIGNALED, &target, 1, from);
	completion();
	need_same(from, to, len, "READ");
}

/* READs that complete in silence; then a fenced WRITE of what was just read. */
static void chain(const struct place *from, const struct place *via, const struct place *to, uint32_t len)
{
	struct ibv_sge land = part_of(via, 0, len), none = part_of(from, 0, 0);

	fill(from, len, 77);
	memset(via->at, 0, via->len);
	memset(to->at, 0, to->len);
	for (unsigned i = 0; i < 3; i++)
		ask(IBV_WR_RDMA_READ, 0, &land, 1, from);
	ask(IBV_WR_RDMA_WRITE, IBV_SEND_SIGNALED, &none, 1, from);
	completion();
	need_same(from, via, len, "silent READ");
	memset(via->at, 0, via->len);
	ask(IBV_WR_RDMA_READ, 0, &land, 1, from);
	ask(IBV_WR_RDMA_WRITE, IBV_SEND_SIGNALED | IBV_SEND_FENCE, &land, 1, to);
	completion();
	need_same(from, via, len, "READ before a fence");
	need_same(from, to, len, "WRITE after a fence");
}

/* A message from several places into several others. */
static void scatter(void)
{
	static const unsigned targets[] = {5, 4, 2, 0};
	struct ibv_sge from[4], to[4];

	for (unsigned i = 0; i < 4; i++) {
		from[i] = part_of(&places[i], i, 200 + 10 * i);
		to[i] = part_of(&places[targets[i]], 5000, 260 - 10 * i);
		fill(&places[i], 240, i);
	}
	expect_message(to, 4);
	ask(IBV_WR_SEND, IBV_SEND_SIGNALED, from, 4, NULL);
	completion();
	completion();
	for (uint32_t i = 0, at = 0; i < 4; i++)
		for (uint32_t k = 0, n = 0, b = 0; k < from[i].length; k++, at++) {
			for (n = at, b = 0; n >= to[b].length; b++)
				n -= to[b].length;
			NEED(((uint8_t *)(uintptr_t)from[i].addr)[k] ==
			     ((uint8_t *)(uintptr_t)to[b].addr)[n]);
		}
}

static void all_places(void)
{
	static const uint32_t sizes[] = {0, 1, 8, 100, 300, 512, 513, 4096, 5000, 65536, LARGE};
	uint8_t on_stack[LARGE];
	uint64_t *word;

	add_place(0, "stack", on_stack, LARGE);
	add_place(1, "data", in_data, LARGE);
	add_place(2, "bss", in_bss, LARGE);
	add_place(3, "small", malloc(SMALL), SMALL);
	add_place(4, "file", private_file(), LARGE);
	add_place(5, "pages", aligned_alloc(PAGE, 25 * PAGE), LARGE);
	for (unsigned i = 0; i < PLACES * PLACES; i++)
		for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
			const struct place *from = &places[i / PLACES], *to = &places[i % PLACES];

			if (from != to && sizes[s] <= from->len && sizes[s] <= to->len)
				talk(from, to, sizes[s]);
		}
	for (unsigned i = 0; i < PLACES; i++)
		for (unsigned s = 1; s < 5; s++)
			if (i != 5)
				chain(&places[5], &places[i], &places[(i + 1) % 5], sizes[s]);
	scatter();
	word = (uint64_t *)(void *)places[5].at;
	for (unsigned i = 0; i < 5; i++) {
		*word = 1000 + i;
		memset(places[i].at, 0, 8);
		post(places[i].mr, places[i].at, IBV_WR_ATOMIC_FETCH_AND_ADD, places[5].mr, word, 7, 0);
		completion();
		NEED(!memcmp(places[i].at, &(uint64_t){1000 + i}, 8) &&
		     *(volatile uint64_t *)word == 1007 + i);
	}
}

/* ---- overwrite ---- */

static void overwrite(void)
{
	enum { ROUNDS = 200, WRITES = 16, SIZE = 1 << 15 };
	uint8_t target[WRITES * SIZE], seen[WRITES * SIZE],
		*from = aligned_alloc(PAGE, SIZE); /* on the stack: slow */
	struct ibv_mr *mr = ibv_reg_mr(pd, from, SIZE, ACCESS),
		      *slow = ibv_reg_mr(pd, target, sizeof(target), ACCESS);
	struct ibv_sge sge = {.addr = (uintptr_t)from, .length = SIZE};
	struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
	unsigned whole = 0;

	NEED(mr && slow);
	sge.lkey = mr->lkey;
	wr.wr.rdma.rkey = slow->rkey;
	memset(target, 0, sizeof(target));
	for (int round = 1; round <= ROUNDS; round++) {
		memset(from, round, SIZE);
		for (unsigned i = 0; i < WRITES; i++) {
			wr.wr.rdma.remote_addr = (uintptr_t)target + i * SIZE;
			NEED(!ibv_post_send(qp, &wr, &bad));
		}
		usleep((useconds_t)(2 * round));
		to_state(IBV_QPS_RESET);
		memcpy(seen, target, sizeof(target));
		whole += target[sizeof(target) - 1] == (uint8_t)round;
		usleep(500);
		NEED(!memcmp(seen, target, sizeof(target)));
		connect_to_self();
	}
	NEED(whole < ROUNDS); /* or nothing was under way */
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} things[] = {{"atomics", atomics},
		      {"drain", drain},
		      {"overwrite", overwrite},
		      {"places", all_places},
		      {"reset", reset}};

	NEED(argc == 2);
	open_all();
	connect_to_self();
	for (unsigned i = 0; i < sizeof(things) / sizeof(things[0]); i++)
		if (!strcmp(argv[1], things[i].name))
			things[i].run();
	puts("fine");
	return 0;
}
