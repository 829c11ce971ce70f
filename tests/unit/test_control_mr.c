/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the core tells of a region: the parts that it reaches slowly.
 */
#include "test_control_play.h"

static struct fx_reg_mr_done_rep registered(struct client *c, uint32_t pd, const void *at, uint64_t length,
					    uint32_t flags)
{
	struct fx_reg_mr_req req = {.pd = pd,
				    .access = FX_ACC_LOCAL_WRITE,
				    .addr = (uintptr_t)at,
				    .length = length,
				    .iova = (uintptr_t)at,
				    .flags = FX_REG_NO_CONVERT | flags};
	struct fx_reg_mr_done_req step2 = {0};
	struct fx_reg_mr_done_rep done;
	struct fx_reg_mr_rep plan;

	assert_int_equal(ASK(c, FX_MSG_REG_MR, &req, &plan), 0);
	assert_int_equal(plan.seg[0].sparse, flags == FX_REG_SPARSE);
	step2.mr = plan.mr;
	step2.nseg = plan.nseg;
	assert_int_equal(ASK(c, FX_MSG_REG_MR_DONE, &step2, &done), 0);
	return done;
}

static void expect_run(const struct fx_reg_mr_done_rep *rep, uint32_t i, uint64_t off, uint64_t length)
{
	assert_in_range(i, 0, rep->nslow - 1);
	assert_int_equal(rep->slow[i].off, off);
	assert_int_equal(rep->slow[i].length, length);
}

/* What the helper thread will have to do; what is shared with us is opened by root only. */
static void slow_runs_are_told(void **state)
{
	enum { PAGE = 4096, PAGES = 2 * (FX_SLOW_RUNS + 1) };
	const int rw = PROT_READ | PROT_WRITE;
	int whole = memfd_create("whole", MFD_CLOEXEC), empty = memfd_create("empty", MFD_CLOEXEC);
	uint8_t *mem = mmap(NULL, PAGES * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct client c = join(*state);
	struct fx_reg_mr_done_rep rep;
	uint32_t pd;

	assert_ptr_not_equal(mem, MAP_FAILED);
	assert_int_equal(ftruncate(whole, PAGES * PAGE), 0);
	assert_int_equal(simple(&c, FX_MSG_ALLOC_PD, 0, &pd), 0);
	rep = registered(&c, pd, mem + 100, 200, 0);
	assert_int_equal(rep.nslow, 1);
	expect_run(&rep, 0, 0, 200);
	assert_ptr_equal(mmap(mem + PAGE, PAGE, rw, MAP_SHARED | MAP_FIXED, whole, 0), mem + PAGE);
	rep = registered(&c, pd, mem + PAGE, 100, FX_REG_SPARSE);
	assert_int_equal(rep.nslow, geteuid() ? 1 : 0);
	rep = registered(&c, pd, mem + 100, 2 * PAGE, 0);
	assert_int_equal(rep.nslow, geteuid() ? 1 : 2);
	if (!geteuid()) {
		expect_run(&rep, 0, 0, PAGE - 100);
		expect_run(&rep, 1, 2 * PAGE - 100, 100);
	}
	/* as many runs as there is room for, and then one more: every other page lies behind the end of its file */
	for (int i = 0; i < PAGES; i++)
		mmap(mem + i * PAGE, PAGE, rw, MAP_SHARED | MAP_FIXED, i % 2 ? whole : empty, i * PAGE);
	rep = registered(&c, pd, mem, (PAGES - 2) * PAGE, 0);
	assert_int_equal(rep.nslow, geteuid() ? 1 : FX_SLOW_RUNS);
	if (!geteuid())
		expect_run(&rep, FX_SLOW_RUNS - 1, (PAGES - 4) * PAGE, PAGE);
	rep = registered(&c, pd, mem, PAGES * PAGE, 0);
	assert_int_equal(rep.nslow, 1);
	expect_run(&rep, 0, 0, PAGES * PAGE);
	munmap(mem, PAGES * PAGE);
	close(whole);
	close(empty);
	leave(&c);
	await_empty(*state, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(slow_runs_are_told, play_start, play_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
