/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Section memory: registration, keys, and the ends of what they give access to.
 *
 * Room: tests. May use: verbs and libc.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "sections.h"
#include "transfer.h"

enum { PAGE = 4096 };

static bool write_works(struct rig *r, uint64_t addr, uint32_t rkey, size_t len)
{
	return access_works(r, IBV_WR_RDMA_WRITE, addr, rkey, len);
}

static void fields(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	NEED(r->a.mr->addr == r->a.buf && r->a.mr->length == r->a.size);
	NEED(r->a.mr->pd == r->a.pd && r->a.mr->context == r->ctx);
	NEED(r->a.mr->lkey != r->b.mr->lkey);
}

static void access_allowed(const struct row *row)
{
	static const int flags[] = {
		0,
		IBV_ACCESS_LOCAL_WRITE,
		IBV_ACCESS_REMOTE_READ,
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC,
		ALL_ACCESS,
		ALL_ACCESS | IBV_ACCESS_RELAXED_ORDERING,
		ALL_ACCESS | IBV_ACCESS_MW_BIND,
	};
	struct rig *r = rig();
	uint8_t *p = pages(PAGE);

	(void)row;
	for (size_t i = 0; i < COUNT(flags); i++) {
		struct ibv_mr *mr = need_mr(r->a.pd, p, PAGE, flags[i]);

		NEED_EQ(ibv_dereg_mr(mr), 0);
	}
}

static void access_refused(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(PAGE);

	(void)row;
	NEED_NULL(ibv_reg_mr(r->a.pd, p, PAGE, IBV_ACCESS_REMOTE_WRITE), EINVAL);
	NEED_NULL(ibv_reg_mr(r->a.pd, p, PAGE, IBV_ACCESS_REMOTE_ATOMIC), EINVAL);
	NEED_NULL(ibv_reg_mr(r->a.pd, p, PAGE, 1 << 19), EINVAL);
}

static void on_demand(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_device_attr_ex ex;

	(void)row;
	NEED_EQ(ibv_query_device_ex(r->ctx, NULL, &ex), 0);
	if (ex.odp_caps.general_caps & IBV_ODP_SUPPORT)
		row_skipped("the device has on-demand paging");
	NEED(!ibv_reg_mr(r->a.pd, r->a.buf, PAGE, ALL_ACCESS | IBV_ACCESS_ON_DEMAND));
	NEED(errno == EOPNOTSUPP || errno == EINVAL);
}

static void zero_length(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	NEED_NULL(ibv_reg_mr(r->a.pd, r->a.buf, 0, ALL_ACCESS), EINVAL);
}

static void wraps(const struct row *row)
{
	struct rig *r = rig();

	(void)row;
	NEED(!ibv_reg_mr(r->a.pd, r->a.buf, SIZE_MAX - 10, ALL_ACCESS));
	NEED(errno == EINVAL || errno == ENOMEM || errno == EFAULT);
}

static void unmapped(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(4 * PAGE);

	(void)row;
	munmap(p + PAGE, 2 * PAGE);
	NEED(!ibv_reg_mr(r->a.pd, p, 4 * PAGE, ALL_ACCESS));
	NEED(errno == EFAULT || errno == ENOMEM || errno == EINVAL);
}

static void read_only_pages(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(PAGE);
	struct ibv_mr *mr;

	(void)row;
	NEED_EQ(mprotect(p, PAGE, PROT_READ), 0);
	NEED(!ibv_reg_mr(r->a.pd, p, PAGE, ALL_ACCESS));
	NEED(errno == EFAULT || errno == ENOMEM || errno == EACCES || errno == EPERM);
	mr = need_mr(r->a.pd, p, PAGE, IBV_ACCESS_REMOTE_READ); /* with nothing that writes it is fine */
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void bounds(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(4 * PAGE);
	struct ibv_mr *mr = need_mr(r->b.pd, p + 100, 5000, ALL_ACCESS);
	uint64_t at = (uintptr_t)p + 100;

	(void)row;
	NEED(write_works(r, at, mr->rkey, 5000));
	NEED(write_works(r, at + 4999, mr->rkey, 1));
	NEED(!write_works(r, at + 5000, mr->rkey, 1));
	NEED(!write_works(r, at - 1, mr->rkey, 1));
	NEED(!write_works(r, at + 1, mr->rkey, 5000));
	NEED(!write_works(r, UINT64_MAX - 2, mr->rkey, 8));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void overlapping(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(4 * PAGE);
	struct ibv_mr *all = need_mr(r->b.pd, p, 4 * PAGE, ALL_ACCESS);
	struct ibv_mr *inner = need_mr(r->b.pd, p + 10, PAGE, ALL_ACCESS);
	struct ibv_mr *same = need_mr(r->b.pd, p, 4 * PAGE, ALL_ACCESS);
	uint64_t at = (uintptr_t)p + 10;

	(void)row;
	NEED(all->rkey != inner->rkey && all->rkey != same->rkey && inner->rkey != same->rkey);
	fill(r->a.buf, 64, 1);
	NEED(write_works(r, at, inner->rkey, 64));
	NEED(filled(p + 10, 64, 1));
	NEED_EQ(ibv_dereg_mr(inner), 0);
	fill(r->a.buf, 64, 2);
	NEED(!write_works(r, at, inner->rkey, 64));
	NEED(write_works(r, at, all->rkey, 64));
	NEED(filled(p + 10, 64, 2));
	NEED_EQ(ibv_dereg_mr(all), 0);
	fill(r->a.buf, 64, 3);
	NEED(write_works(r, at, same->rkey, 64));
	NEED(filled(p + 10, 64, 3));
	NEED_EQ(ibv_dereg_mr(same), 0);
}

static void keys_not_reused(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_mr *old = need_mr(r->b.pd, r->b.buf, PAGE, ALL_ACCESS), *mr;
	uint32_t rkey = old->rkey;

	(void)row;
	NEED_EQ(ibv_dereg_mr(old), 0);
	/* whoever kept the old key does not get at the next region by it */
	for (int i = 0; i < 200; i++) {
		mr = need_mr(r->b.pd, r->b.buf, PAGE, ALL_ACCESS);
		NEED(mr->rkey != rkey && mr->lkey != rkey);
		if (i == 0)
			NEED(!write_works(r, (uintptr_t)r->b.buf, rkey, 8));
		NEED_EQ(ibv_dereg_mr(mr), 0);
	}
}

static void many(const struct row *row)
{
	enum { N = 1000 };
	static struct ibv_mr *mr[N];
	struct rig *r = rig();

	(void)row;
	for (int i = 0; i < N; i++) {
		mr[i] = need_mr(r->b.pd, r->b.buf + i, 64, ALL_ACCESS);
		for (int k = 0; k < i; k++)
			NEED(mr[k]->rkey != mr[i]->rkey);
	}
	NEED(write_works(r, (uintptr_t)r->b.buf + N - 1, mr[N - 1]->rkey, 64));
	for (int i = 0; i < N; i++)
		NEED_EQ(ibv_dereg_mr(mr[i]), 0);
}

static void huge(const struct row *row)
{
	const size_t size = (size_t)1 << 30;
	struct rig *r = rig();
	uint8_t *p = pages(size);
	struct ibv_mr *mr = need_mr(r->b.pd, p, size, ALL_ACCESS);

	(void)row;
	fill(r->a.buf, 5000, 7);
	NEED(write_works(r, (uintptr_t)p + size - 5000, mr->rkey, 5000));
	NEED(filled(p + size - 5000, 5000, 7));
	NEED_EQ(ibv_dereg_mr(mr), 0);
	munmap(p, size);
}

static void data_survives(const struct row *row)
{
	struct rig *r = rig();
	uint8_t *p = pages(16 * PAGE);
	struct ibv_mr *mr;

	(void)row;
	fill(p, 16 * PAGE, 3);
	for (int i = 0; i < 20; i++) {
		mr = need_mr(r->b.pd, p + PAGE / 2 * i, PAGE, ALL_ACCESS);
		NEED(filled(p, 16 * PAGE, 3));
		NEED_EQ(ibv_dereg_mr(mr), 0);
		NEED(filled(p, 16 * PAGE, 3));
	}
}

/* WRITE into memory of a kind that a device has to reach all the same. */
static void kind_of_memory(const struct row *row)
{
	static uint8_t data[3 * PAGE];
	uint8_t stack[3 * PAGE], *heap = malloc(3 * PAGE), *shared, *p = data;
	struct rig *r = rig();
	struct ibv_mr *mr;

	shared = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(heap && shared != MAP_FAILED);
	if (row->a == 1)
		p = stack;
	else if (row->a == 2)
		p = heap;
	else if (row->a == 3)
		p = shared;
	memset(p, UNTOUCHED, 3 * PAGE);
	mr = need_mr(r->b.pd, p + 11, 2 * PAGE, ALL_ACCESS);
	fill(r->a.buf, 2 * PAGE, 9);
	NEED(write_works(r, (uintptr_t)p + 11, mr->rkey, 2 * PAGE));
	NEED(untouched(p, 11) && filled(p + 11, 2 * PAGE, 9) && untouched(p + 11 + 2 * PAGE, PAGE - 11));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void iova(const struct row *row)
{
	const uint64_t base = UINT64_C(0x7700000000) + 123;
	struct rig *r = rig();
	struct ibv_mr *mr = ibv_reg_mr_iova(r->b.pd, r->b.buf + 123, PAGE, base, ALL_ACCESS);

	(void)row;
	NEED(mr);
	fill(r->a.buf, 64, 1);
	NEED(write_works(r, base + 10, mr->rkey, 64));
	NEED(untouched(r->b.buf, 133) && filled(r->b.buf + 133, 64, 1));
	NEED(!write_works(r, (uintptr_t)r->b.buf + 123, mr->rkey, 64));
	NEED(!write_works(r, base - 1, mr->rkey, 1));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void zero_based(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_mr *mr = ibv_reg_mr(r->b.pd, r->b.buf + 100, PAGE, ALL_ACCESS | IBV_ACCESS_ZERO_BASED);

	(void)row;
	if (!mr && (errno == EOPNOTSUPP || errno == EINVAL))
		row_skipped("the device has no zero-based regions");
	NEED(mr);
	fill(r->a.buf, 64, 1);
	NEED(write_works(r, 10, mr->rkey, 64));
	NEED(untouched(r->b.buf, 110) && filled(r->b.buf + 110, 64, 1));
	NEED(write_works(r, PAGE - 1, mr->rkey, 1));
	NEED(!write_works(r, PAGE, mr->rkey, 1));
	NEED(!write_works(r, (uintptr_t)r->b.buf + 100, mr->rkey, 8));
	NEED_EQ(ibv_dereg_mr(mr), 0);
}

static void rereg(const struct row *row)
{
	struct rig *r = rig();
	uint32_t rkey = r->b.mr->rkey;
	int err = ibv_rereg_mr(r->b.mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, IBV_ACCESS_LOCAL_WRITE);

	(void)row;
	if (err == IBV_REREG_MR_ERR_INPUT && errno == EOPNOTSUPP) {
		/* refused: the region is as it was */
		NEED(write_works(r, (uintptr_t)r->b.buf, rkey, 8));
		row_skipped("the device does not change regions; this one stayed as it was");
	}
	NEED_EQ(err, 0);
	NEED(!write_works(r, (uintptr_t)r->b.buf, r->b.mr->rkey, 8));
}

static void dereg_ends_access(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_mr *mr = need_mr(r->b.pd, r->b.buf, PAGE, ALL_ACCESS);
	uint32_t rkey = mr->rkey;

	(void)row;
	NEED(write_works(r, (uintptr_t)r->b.buf, rkey, 8));
	NEED_EQ(ibv_dereg_mr(mr), 0);
	memset(r->b.buf, UNTOUCHED, 64);
	NEED(!write_works(r, (uintptr_t)r->b.buf, rkey, 8));
	NEED(untouched(r->b.buf, 64));
}

static void advise(const struct row *row)
{
	struct rig *r = rig();
	struct ibv_sge sge = {.addr = (uintptr_t)r->a.buf, .length = 64, .lkey = r->a.mr->lkey};
	int err = ibv_advise_mr(r->a.pd, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, &sge, 1);

	(void)row;
	NEED(err == 0 || err == EOPNOTSUPP || err == EINVAL || err == ENOSYS);
}

static const struct row rows[] = {
	{"fields of an MR", "ibv_reg_mr(3)", fields},
	{"access flags that go together", "ibv_reg_mr(3)", access_allowed},
	{"remote write without local write", "10.6.3.1", access_refused},
	{"on-demand paging", "ibv_reg_mr(3)", on_demand},
	{"length 0", "ibv_reg_mr(3)", zero_length},
	{"length that wraps", "ibv_reg_mr(3)", wraps},
	{"memory with a hole", "ibv_reg_mr(3)", unmapped},
	{"pages that may not be written", "ibv_reg_mr(3)", read_only_pages},
	{"bounds, to the byte", "10.6.3.4", bounds},
	{"overlapping regions", "10.6.3", overlapping},
	{"old keys stay dead", "10.6.3.3", keys_not_reused},
	{"a thousand regions", "ibv_reg_mr(3)", many, .seconds = 60},
	{"a region of 1 GiB", "ibv_reg_mr(3)", huge, .seconds = 60},
	{"registering changes no byte", "ibv_reg_mr(3)", data_survives},
	{"memory: .data", "ibv_reg_mr(3)", kind_of_memory, .a = 0},
	{"memory: stack", "ibv_reg_mr(3)", kind_of_memory, .a = 1},
	{"memory: malloc", "ibv_reg_mr(3)", kind_of_memory, .a = 2},
	{"memory: shared", "ibv_reg_mr(3)", kind_of_memory, .a = 3},
	{"addresses of its own (iova)", "ibv_reg_mr_iova(3)", iova},
	{"zero-based", "ibv_reg_mr(3)", zero_based},
	{"ibv_rereg_mr", "ibv_rereg_mr(3)", rereg},
	{"nothing is reached after ibv_dereg_mr", "10.6.5", dereg_ends_access},
	{"ibv_advise_mr", "ibv_advise_mr(3)", advise},
};

const struct section section_memory = {"memory", "memory regions", rows, COUNT(rows)};
