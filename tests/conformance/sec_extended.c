/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section extended: parent and thread domains, changes of regions, and verbs that few devices have.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sections.h"
#include "transfer.h"

enum { PAGE = 4096 };

/* ---- domains ---- */

static struct ibv_td *need_td(struct ibv_context *ctx)
{
	struct ibv_td_init_attr a = {.comp_mask = 0};
	struct ibv_td *td = ibv_alloc_td(ctx, &a);

	if (!td && errno == EOPNOTSUPP)
		row_skipped("the device has no thread domains");
	NEED(td && td->context == ctx);
	return td;
}

static struct ibv_pd *need_parent(struct ibv_pd *pd, struct ibv_td *td)
{
	struct ibv_parent_domain_init_attr a = {.pd = pd, .td = td};
	struct ibv_pd *parent = ibv_alloc_parent_domain(pd->context, &a);

	if (!parent && errno == EOPNOTSUPP)
		row_skipped("the device has no parent domains");
	NEED(parent && parent != pd && parent->context == pd->context);
	return parent;
}

static void td_life(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_td_init_attr unknown = {.comp_mask = 1};
	struct ibv_td *td[20];

	(void)row;
	for (size_t i = 0; i < COUNT(td); i++)
		td[i] = need_td(r->ctx);
	for (size_t i = 0; i < COUNT(td); i++)
		NEED_EQ(ibv_dealloc_td(td[i]), 0);
	NEED_NULL(ibv_alloc_td(r->ctx, &unknown), EINVAL);
}

static void in_use(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_td *td = need_td(r->ctx);
	struct ibv_pd *pd = ibv_alloc_pd(r->ctx), *parent = need_parent(pd, td);

	(void)row;
	NEED_EQ(ibv_dealloc_td(td), EBUSY);
	NEED_EQ(ibv_dealloc_pd(pd), EBUSY);
	NEED_EQ(ibv_dealloc_pd(parent), 0);
	NEED_EQ(ibv_dealloc_td(td), 0);
	NEED_EQ(ibv_dealloc_pd(pd), 0);
}

static void parent_refused(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_parent_domain_init_attr a = {.pd = NULL};

	(void)row;
	NEED_NULL(ibv_alloc_parent_domain(r->ctx, &a), EINVAL);
	a.pd = r->a.pd;
	a.comp_mask = 1u << 20;
	NEED_NULL(ibv_alloc_parent_domain(r->ctx, &a), EINVAL);
}

static void *no_alloc(struct ibv_pd *pd, void *pd_context, size_t size, size_t alignment, uint64_t type)
{
	(void)pd;
	(void)pd_context;
	(void)size;
	(void)alignment;
	(void)type;
	return IBV_ALLOCATOR_USE_DEFAULT;
}
static void no_free(struct ibv_pd *pd, void *pd_context, void *ptr, uint64_t type)
{
	(void)pd;
	(void)pd_context;
	(void)ptr;
	(void)type;
}

/* a's QP, region and CQ are of a parent domain, and its region of the domain is as good: all of it works. */
static void parent_works(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_td *td = row->a ? need_td(r->ctx) : NULL;
	struct ibv_parent_domain_init_attr a = {.pd = r->a.pd,
						.td = td,
						.comp_mask = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS |
							     IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT,
						.alloc = no_alloc,
						.free = no_free,
						.pd_context = r};
	struct ibv_pd *parent = ibv_alloc_parent_domain(r->ctx, &a);
	struct spec s = usual();
	struct ibv_mr *mr;

	if (!parent && errno == EOPNOTSUPP)
		row_skipped("the device has no parent domains");
	NEED(parent);
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	r->a.qp = make_qp(parent, r->a.scq, r->a.rcq, &s);
	NEED(r->a.qp->pd == parent);
	reconnect(r, &s);
	mr = need_mr(parent, r->a.buf, r->a.size, ALL_ACCESS);
	NEED(mr->pd == parent);
	for (unsigned i = 0; i < 200; i++) {
		struct work w = work(r, i % 2 ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ, i, 100, 200, 5000);

		fill(i % 2 ? r->a.buf + 100 : r->b.buf + 200, 5000, i);
		if (i % 4 < 2)
			w.sge[0].lkey = mr->lkey;
		post(r->a.qp, &w);
		need_wc(r->a.scq, i, IBV_WC_SUCCESS);
		NEED(filled(i % 2 ? r->b.buf + 200 : r->a.buf + 100, 5000, i));
	}
	NEED_EQ(ibv_dealloc_pd(parent), EBUSY);
	NEED_EQ(ibv_dereg_mr(mr), 0);
	NEED_EQ(ibv_destroy_qp(r->a.qp), 0);
	r->a.qp = NULL;
	NEED_EQ(ibv_dealloc_pd(parent), 0);
	if (td)
		NEED_EQ(ibv_dealloc_td(td), 0);
}

/* ---- threads that share nothing ---- */

enum { THREADS = 3, ROUNDS = 3000, PIECE = 1000 };

struct alone {
	struct rig *r;
	struct ibv_td *td;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp, *peer;
	unsigned id;
};

static void *works_alone(void *arg)
{
	struct alone *a = arg;
	size_t at = a->id * 4 * PIECE;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct work w =
			work(a->r, IBV_WR_RDMA_WRITE, i, at + i % 4 * PIECE, at + i % 4 * PIECE, PIECE);

		w.wr.send_flags = i % 4 == 3 ? IBV_SEND_SIGNALED : 0;
		fill(a->r->a.buf + at + i % 4 * PIECE, PIECE, i + a->id);
		post(a->qp, &w);
		if (i % 4 != 3)
			continue;
		need_wc(a->cq, i, IBV_WC_SUCCESS);
		for (unsigned k = 0; k < 4; k++)
			NEED(filled(a->r->b.buf + at + k * PIECE, PIECE, i - 3 + k + a->id));
	}
	/* what was posted before comes to an end before the QP does */
	for (unsigned i = 0; i < 20; i++) {
		struct work w = work(a->r, IBV_WR_RDMA_WRITE, i, at, at, 8);

		post(a->qp, &w);
	}
	to_state(a->qp, IBV_QPS_ERR);
	for (unsigned i = 0; i < 20; i++) {
		struct ibv_wc wc = completion(a->cq);

		NEED(wc.wr_id == i && (wc.status == IBV_WC_SUCCESS || wc.status == IBV_WC_WR_FLUSH_ERR));
	}
	return NULL;
}

static void threads_alone(const struct row *row)
{
	struct spec s = usual();
	struct rig *r = rig_make(&s);
	struct alone a[THREADS];
	pthread_t thread[THREADS];

	(void)row;
	for (unsigned i = 0; i < THREADS; i++) {
		a[i] = (struct alone){.r = r, .td = need_td(r->ctx), .id = i};
		a[i].pd = need_parent(r->a.pd, a[i].td);
		a[i].cq = ibv_create_cq(r->ctx, 64, NULL, NULL, 0);
		NEED(a[i].cq);
		a[i].qp = make_qp(a[i].pd, a[i].cq, a[i].cq, &s);
		a[i].peer = make_qp(r->b.pd, r->b.scq, r->b.rcq, &s);
		connect_qp(r, &s, a[i].peer, a[i].qp->qp_num, IBV_QPS_RTS);
		connect_qp(r, &s, a[i].qp, a[i].peer->qp_num, IBV_QPS_RTS);
	}
	for (unsigned i = 0; i < THREADS; i++)
		NEED_EQ(pthread_create(&thread[i], NULL, works_alone, &a[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		NEED_EQ(pthread_join(thread[i], NULL), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		NEED_EQ(ibv_destroy_qp(a[i].qp), 0);
		NEED_EQ(ibv_destroy_qp(a[i].peer), 0);
		NEED_EQ(ibv_destroy_cq(a[i].cq), 0);
		NEED_EQ(ibv_dealloc_pd(a[i].pd), 0);
		NEED_EQ(ibv_dealloc_td(a[i].td), 0);
	}
}

static void parent_cq(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_pd *parent = need_parent(r->a.pd, NULL);
	struct ibv_cq_init_attr_ex a = {
		.cqe = 16, .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD, .parent_domain = parent};
	struct ibv_cq_ex *x = ibv_create_cq_ex(r->ctx, &a);

	(void)row;
	NEED(x);
	NEED_EQ(ibv_dealloc_pd(parent), EBUSY);
	NEED_EQ(ibv_destroy_cq(ibv_cq_ex_to_cq(x)), 0);
	a.parent_domain = r->a.pd; /* which is none */
	NEED_NULL(ibv_create_cq_ex(r->ctx, &a), EINVAL);
	NEED_EQ(ibv_dealloc_pd(parent), 0);
}

/* ---- changes of a region ---- */

static bool writes(struct rig *r, const struct ibv_mr *mr, uint64_t at, size_t len)
{
	return access_works(r, IBV_WR_RDMA_WRITE, at, mr->rkey, len);
}

static void moved(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(4 * PAGE), *q = pages(8 * PAGE);
	struct ibv_mr *mr = need_mr(r->b.pd, p, 4 * PAGE, ALL_ACCESS);
	struct ibv_mr old = *mr;

	(void)row;
	NEED_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, q + 10, 7 * PAGE, 0), 0);
	NEED(mr->addr == q + 10 && mr->length == 7 * PAGE && mr->pd == r->b.pd);
	fill(r->a.buf, 7 * PAGE, 1);
	NEED(writes(r, mr, (uintptr_t)q + 10, 7 * PAGE));
	NEED(filled(q + 10, 7 * PAGE, 1));
	NEED(!writes(r, mr, (uintptr_t)q + 9, 1));
	NEED(!writes(r, mr, (uintptr_t)p, 1));
	if (old.rkey != mr->rkey)
		NEED(!writes(r, &old, (uintptr_t)p, 1));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void rights_changed(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(PAGE);
	struct ibv_mr *mr = need_mr(r->b.pd, p, PAGE, IBV_ACCESS_LOCAL_WRITE);
	const uint32_t lkey = mr->lkey, rkey = mr->rkey;

	(void)row;
	NEED(!writes(r, mr, (uintptr_t)p, 8));
	NEED_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, ALL_ACCESS), 0);
	NEED(mr->addr == p && mr->length == PAGE);
	NEED(mr->lkey == lkey && mr->rkey == rkey); /* peers have it */
	NEED(writes(r, mr, (uintptr_t)p, 8));
	NEED_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, IBV_ACCESS_LOCAL_WRITE), 0);
	NEED(!writes(r, mr, (uintptr_t)p, 8));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void domain_changed(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(PAGE);
	struct ibv_pd *pd = ibv_alloc_pd(r->ctx);
	struct ibv_mr *mr = need_mr(r->b.pd, p, PAGE, ALL_ACCESS);

	(void)row;
	NEED(writes(r, mr, (uintptr_t)p, 8));
	NEED_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_PD, pd, NULL, 0, 0), 0);
	NEED(mr->pd == pd && mr->addr == p);
	NEED(!writes(r, mr, (uintptr_t)p, 8));
	NEED_EQ(ibv_dealloc_pd(pd), EBUSY);
	NEED_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_PD, r->b.pd, NULL, 0, 0), 0);
	NEED(writes(r, mr, (uintptr_t)p, 8));
	NEED_EQ(ibv_dealloc_pd(pd), 0);
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void all_changed(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(PAGE), *q = pages(2 * PAGE);
	struct ibv_mr *mr = need_mr(r->a.pd, p, PAGE, 0);

	(void)row;
	NEED_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_FLAGS_SUPPORTED, r->b.pd, q, 2 * PAGE, ALL_ACCESS), 0);
	NEED(mr->pd == r->b.pd && mr->addr == q && mr->length == 2 * PAGE);
	NEED(writes(r, mr, (uintptr_t)q + PAGE, PAGE));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

/* "Old MR is valid" */
static void change_refused(const struct row *row)
{
	struct rig *r = rig(), *other = rig();
	uint8_t *p = pages(PAGE);
	struct ibv_mr *mr = need_mr(r->b.pd, p, PAGE, ALL_ACCESS);
	const struct {
		int flags;
		struct ibv_pd *pd;
		void *addr;
		size_t length;
		int access;
	} bad[] = {
		{0, NULL, NULL, 0, 0},
		{1 << 3, NULL, NULL, 0, 0},
		{IBV_REREG_MR_CHANGE_TRANSLATION, NULL, NULL, PAGE, 0},
		{IBV_REREG_MR_CHANGE_TRANSLATION, NULL, p, 0, 0},
		{IBV_REREG_MR_CHANGE_PD, NULL, NULL, 0, 0},
		{IBV_REREG_MR_CHANGE_PD, other->a.pd, NULL, 0, 0},
		{IBV_REREG_MR_CHANGE_PD, r->a.pd, NULL, 0, ALL_ACCESS},
		{IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, IBV_ACCESS_REMOTE_WRITE},
	};

	(void)row;
	for (size_t i = 0; i < COUNT(bad); i++) {
		errno = 0;
		NEED_EQ(ibv_rereg_mr(mr, bad[i].flags, bad[i].pd, bad[i].addr, bad[i].length, bad[i].access),
			IBV_REREG_MR_ERR_INPUT);
		NEED_EQ(errno, EINVAL);
	}
	NEED(mr->addr == p && mr->length == PAGE && mr->pd == r->b.pd);
	NEED(writes(r, mr, (uintptr_t)p, PAGE));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void change_with_windows(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(PAGE);
	struct ibv_mr *mr = need_mr(r->b.pd, p, PAGE, ALL_ACCESS | IBV_ACCESS_MW_BIND);
	struct ibv_mw *mw = ibv_alloc_mw(r->b.pd, IBV_MW_TYPE_1);
	struct ibv_mw_bind bind = {.wr_id = 7,
				   .send_flags = IBV_SEND_SIGNALED,
				   .bind_info = {.mr = mr,
						 .addr = (uintptr_t)p,
						 .length = 8,
						 .mw_access_flags = IBV_ACCESS_REMOTE_WRITE}};

	(void)row;
	if (!mw)
		row_skipped("the device has no windows of type 1");
	NEED_EQ(ibv_bind_mw(r->b.qp, mw, &bind), 0);
	need_wc(r->b.scq, 7, IBV_WC_SUCCESS);
	NEED_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_PD, r->a.pd, NULL, 0, 0), IBV_REREG_MR_ERR_INPUT);
	NEED_EQ(errno, EBUSY);
	NEED(writes(r, mr, (uintptr_t)p, PAGE));
	NEED(access_works(r, IBV_WR_RDMA_WRITE, (uintptr_t)p, mw->rkey, 8));
	NEED_EQ(ibv_dealloc_mw(mw), 0);
	NEED_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_PD, r->a.pd, NULL, 0, 0), 0);
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

/* ---- the rest ---- */

static void relaxed(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(64 * PAGE);
	struct ibv_mr *mr = need_mr(r->b.pd, p, 16 * PAGE, ALL_ACCESS | IBV_ACCESS_RELAXED_ORDERING);

	(void)row;
	fill(r->a.buf, 15 * PAGE, 1);
	NEED(writes(r, mr, (uintptr_t)p + 5, 15 * PAGE));
	NEED(filled(p + 5, 15 * PAGE, 1));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void dmabuf_refused(const struct row *row)
{
	struct rig *r = rig();
	int fd = memfd_create("no dma-buf", 0);

	(void)row;
	NEED(fd >= 0 && !ftruncate(fd, PAGE));
	NEED_NULL(ibv_reg_dmabuf_mr(r->a.pd, 0, PAGE, 0, -1, ALL_ACCESS), EBADF);
	NEED_NULL(ibv_reg_dmabuf_mr(r->a.pd, 0, PAGE, 0, 1000, ALL_ACCESS), EBADF);
	NEED_NULL(ibv_reg_dmabuf_mr(r->a.pd, 0, PAGE, 0, fd, ALL_ACCESS), EINVAL);
	close(fd);
}

static void ece(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_ece e = {.vendor_id = 7, .options = 7, .comp_mask = 0};

	(void)row;
	NEED_EQ(ibv_query_ece(r->a.qp, &e), 0);
	NEED_EQ(ibv_set_ece(r->a.qp, &e), 0);
	if (e.vendor_id)
		return; /* a device that has something to negotiate */
	e.vendor_id = 0x1234;
	NEED_EQ(ibv_set_ece(r->a.qp, &e), EOPNOTSUPP);
	e.comp_mask = 1;
	NEED_EQ(ibv_set_ece(r->a.qp, &e), EINVAL);
}

/* What a device does not have it refuses in the way that programs know. */
static void absent(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_alloc_dm_attr dm = {.length = PAGE};
	struct ibv_counters_init_attr counters = {.comp_mask = 0};
	struct ibv_wq_init_attr wq = {
		.wq_type = IBV_WQT_RQ, .max_wr = 1, .max_sge = 1, .pd = r->a.pd, .cq = r->a.rcq};
	struct ibv_flow_attr flow = {.type = IBV_FLOW_ATTR_NORMAL, .size = sizeof(flow), .port = 1};
	void *got = NULL;

	errno = 0;
	switch (row->a) {
	case 0:
		got = ibv_alloc_dm(r->ctx, &dm);
		break;
	case 1:
		got = ibv_create_counters(r->ctx, &counters);
		break;
	case 2:
		got = ibv_create_wq(r->ctx, &wq);
		break;
	default:
		got = ibv_create_flow(r->a.qp, &flow);
	}
	if (!got)
		NEED_EQ(errno, EOPNOTSUPP);
}

#define REREG "ibv_rereg_mr(3)"
#define PARENT "ibv_alloc_parent_domain(3)"

static const struct row rows[] = {
	{"thread domains", "ibv_alloc_td(3)", td_life},
	{"domains in use", PARENT, in_use},
	{"parent domains that are refused", PARENT, parent_refused},
	{"work in a parent domain", PARENT, parent_works},
	{"work in a thread domain", PARENT, parent_works, .a = 1},
	{"threads with a domain each", PARENT, threads_alone, .seconds = 60},
	{"a CQ in a parent domain", "ibv_create_cq_ex(3)", parent_cq},
	{"a region moves", REREG, moved},
	{"a region's rights change", REREG, rights_changed},
	{"a region changes its domain", REREG, domain_changed},
	{"all of a region changes", REREG, all_changed},
	{"changes that are refused", REREG, change_refused},
	{"a region with windows stays", REREG, change_with_windows},
	{"relaxed ordering", "ibv_reg_mr(3)", relaxed},
	{"what is no dma-buf", "ibv_reg_dmabuf_mr(3)", dmabuf_refused},
	{"connection establishment options", "ibv_query_ece(3)", ece},
	{"device memory, or a refusal", "ibv_alloc_dm(3)", absent, .a = 0},
	{"counters, or a refusal", "ibv_create_counters(3)", absent, .a = 1},
	{"raw work queues, or a refusal", "ibv_create_wq(3)", absent, .a = 2},
	{"flows, or a refusal", "ibv_create_flow(3)", absent, .a = 3},
};

const struct section section_extended = {"extended", "domains, changes of regions, and what is rare", rows,
					 COUNT(rows)};
