/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host library and a core across a bus that says what no core would: never a crash, and nobody waits for ever.
 */
#include "host_rig.h"

static int open_errno(struct ibv_device *dev)
{
	struct ibv_context *ctx = flexins_open_device(dev);
	int err = errno;

	if (!ctx)
		return err;
	assert_int_equal(flexins_close_device(ctx), 0);
	return 0;
}

/* What a request comes to when its reply is so; the context can be closed after it. */
static int ask_rudely(enum rudeness rude, unsigned seed)
{
	struct core *c = core_start(6, CORE_POLITE);
	struct ibv_context *ctx = rig_open();
	struct ibv_pd *pd;
	int err;

	c->seed = seed;
	c->rude_at = FX_MSG_ALLOC_PD;
	c->rude = rude;
	pd = flexins_alloc_pd(ctx);
	err = pd ? 0 : errno;
	if (pd)
		assert_int_equal(flexins_dealloc_pd(pd), 0);
	assert_int_equal(flexins_close_device(ctx), 0);
	core_end(c);
	return err;
}

static void nonsense_ends_the_connection(void **state)
{
	static const enum rudeness ends[] = {RUDE_MAGIC, RUDE_TINY, RUDE_HUGE,
					     RUDE_CUT,	 RUDE_GONE, RUDE_WAKE};

	(void)state;
	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		assert_int_equal(ask_rudely(ends[i], 0), ENODEV);
	assert_int_equal(ask_rudely(RUDE_SHORT, 0), EPROTO);
	assert_int_equal(ask_rudely(RUDE_NOT, 0), 0);
	/* replies that nobody asked for: how far they are believed depends on when they come */
	ask_rudely(RUDE_TWICE, 0);
	ask_rudely(RUDE_OTHER_SEQ, 0);
	for (unsigned seed = 1; seed <= 300; seed++)
		assert_int_not_equal(ask_rudely(RUDE_NOISE, seed), 0);
}

static void nonsense_instead_of_a_greeting(void **state)
{
	static const uint16_t ops[] = {FX_MSG_AUTH, FX_MSG_HELLO};

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		for (unsigned rude = RUDE_NOT; rude < RUDE_KINDS; rude++) {
			struct core *c = core_start(6, CORE_POLITE);
			int err;

			c->rude_at = ops[i];
			c->rude = (int)rude;
			err = rig_list_errno();
			if (rude == RUDE_NOT || rude == RUDE_LATE)
				assert_int_equal(err, 0);
			else if (rude != RUDE_TWICE && rude != RUDE_OTHER_SEQ && (i || rude != RUDE_WAKE))
				assert_true(err == EPROTO || err == ENODEV || err == EPROTONOSUPPORT);
			core_end(c);
		}
}

static void page_outside(struct fx_hello_rep *r)
{
	r->page_off = CORE_ARENA;
}
static void page_beyond(struct fx_hello_rep *r)
{
	r->page_off = UINT64_MAX - FX_LINE + 1;
}
static void page_in_the_heap(struct fx_hello_rep *r)
{
	r->page_off = r->heap_off - FX_LINE;
}
static void page_askew(struct fx_hello_rep *r)
{
	r->page_off += 4;
}
static void larger_arena(struct fx_hello_rep *r)
{
	r->arena_size += 4096;
}
static void pipe_outside(struct fx_hello_rep *r)
{
	r->pipe_off = CORE_ARENA;
}
static void a_descriptor(struct fx_hello_rep *r)
{
	r->have_uffd = 1;
}

static void greetings_that_make_no_sense(void **state)
{
	static void (*const bends[])(struct fx_hello_rep * r) = {page_outside, page_beyond,  page_in_the_heap,
								 page_askew,   larger_arena, pipe_outside,
								 a_descriptor};
	struct core *c = core_start(6, CORE_POLITE);
	struct ibv_device **list = flexins_get_device_list(NULL);

	(void)state;
	assert_int_equal(open_errno(list[0]), 0);
	for (unsigned i = 0; i < sizeof(bends) / sizeof(bends[0]); i++) {
		c->bend = bends[i];
		assert_int_equal(open_errno(list[0]), EPROTO);
	}
	c->bend = NULL;
	c->arena_size = 0;
	assert_int_not_equal(open_errno(list[0]), 0);
	c->arena_size = UINT64_MAX / 2;
	assert_int_equal(open_errno(list[0]), ENOMEM);
	flexins_free_device_list(list);
	core_end(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nonsense_ends_the_connection),
		cmocka_unit_test(nonsense_instead_of_a_greeting),
		cmocka_unit_test(greetings_that_make_no_sense),
	};

	core_remote = true;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
